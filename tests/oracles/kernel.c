/* The running kernel as a judge of filters (x86_64).
 *
 *   kernel addresses         prints where its two system call instructions return to: what a filter sees as the instruction pointer
 *   kernel accept < PROGRAMS says of each program whether the kernel would take it, without loading it
 *   kernel run < CASES       loads the filters of each case into a thread, makes its calls for real, and says what became of each
 *
 * Numbers are in the machine's byte order. PROGRAM: u32 instructions, then those. CASE: u32 filters, each a PROGRAM, oldest first;
 * u32 calls, each u32 way (0 syscall, 1 int 0x80), u32 number, six u64 arguments. Answers: a u32 errno for each program; for each
 * call u32 kind and i32 value.
 *
 * A filter may deny every call, also those that would report what happened. So the filtered thread makes no calls but those of the
 * case: it writes into memory that it shares with its parent, leaves the signal handler by a jump, and ends by a fault.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RETURNED, TRAPPED, KILLED_THREAD, KILLED_PROCESS, REFUSED, UNKNOWN };
enum { MOST_FILTERS = 8, MOST_CALLS = 4096 };

struct call { uint32_t way, number; uint64_t args[6]; } __attribute__((packed));
struct outcome { uint32_t kind; int32_t value; };

struct shared {
	volatile uint32_t done;	  /* calls that are over */
	volatile int finished;	  /* the thread has made all its calls */
	struct outcome outcomes[MOST_CALLS];
};

static struct shared *shared;
static struct sock_fprog filters[MOST_FILTERS];
static uint32_t filter_count, call_count, first_call;
static struct call calls[MOST_CALLS];
static sigjmp_buf trapped;
static volatile int trap_data;

/* long call_native(const struct call *), long call_compat(const struct call *): number and arguments from memory. */
__asm__(".globl call_native, native_return, call_compat, compat_return\n"
	"call_native:\n"
	"	push %rbx\n"
	"	mov %rdi, %rbx\n"
	"	mov 4(%rbx), %eax\n"
	"	mov 8(%rbx), %rdi\n"
	"	mov 16(%rbx), %rsi\n"
	"	mov 24(%rbx), %rdx\n"
	"	mov 32(%rbx), %r10\n"
	"	mov 40(%rbx), %r8\n"
	"	mov 48(%rbx), %r9\n"
	"	syscall\n"
	"native_return:\n"
	"	pop %rbx\n"
	"	ret\n"
	"call_compat:\n"
	"	push %rbx\n"
	"	push %rbp\n"
	"	mov 4(%rdi), %eax\n"
	"	mov 8(%rdi), %rbx\n"
	"	mov 16(%rdi), %rcx\n"
	"	mov 24(%rdi), %rdx\n"
	"	mov 32(%rdi), %rsi\n"
	"	mov 48(%rdi), %rbp\n"
	"	mov 40(%rdi), %rdi\n"
	"	int $0x80\n"
	"compat_return:\n"
	"	movslq %eax, %rax\n"
	"	pop %rbp\n"
	"	pop %rbx\n"
	"	ret\n");
extern long call_native(const struct call *), call_compat(const struct call *);
extern const char native_return[], compat_return[];

static void die(const char *what)
{
	perror(what);
	_exit(2);
}

static int get(void *to, size_t size)
{
	size_t got = fread(to, 1, size, stdin);
	if (got == 0)
		return 0;
	if (got != size) {
		fprintf(stderr, "input ends in the middle\n");
		_exit(2);
	}
	return 1;
}

static void must_get(void *to, size_t size)
{
	if (!get(to, size)) {
		fprintf(stderr, "input ends too early\n");
		_exit(2);
	}
}

static void get_program(struct sock_fprog *program, uint32_t size)
{
	if (size > UINT16_MAX) {
		fprintf(stderr, "a program of %u instructions\n", size);
		_exit(2);
	}
	program->len = size;
	program->filter = calloc(size + 1, sizeof *program->filter);
	if (size)
		must_get(program->filter, size * sizeof *program->filter);
}

static void put(const void *from, size_t size)
{
	if (fwrite(from, 1, size, stdout) != size)
		die("stdout");
}

/* With no descriptor left for the listener that is asked for, the kernel checks the program and goes no further. */
static int accept_programs(void)
{
	uint32_t size;
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_NOFILE, &none))
		die("setrlimit");
	while (get(&size, sizeof size)) {
		struct sock_fprog program;
		uint32_t answer = 0;
		get_program(&program, size);
		if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program) != -1) {
			fprintf(stderr, "a program was loaded\n");
			_exit(2);
		}
		if (errno != EMFILE)
			answer = errno;
		put(&answer, sizeof answer);
		free(program.filter);
	}
	return 0;
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	trap_data = info->si_errno;
	siglongjmp(trapped, 1);
}

static void *make_calls(void *unused)
{
	uint32_t n;

	(void)unused;
	for (n = 0; n < filter_count; n++)
		if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filters[n])) {
			struct outcome refused = { REFUSED, errno };
			for (uint32_t m = first_call; m < call_count; m++)
				shared->outcomes[m] = refused;
			shared->done = call_count;
			shared->finished = 1;
			return NULL;
		}
	for (n = first_call; n < call_count; n++) {
		struct outcome *outcome = &shared->outcomes[n];
		if (sigsetjmp(trapped, 0)) {
			outcome->kind = TRAPPED;
			outcome->value = trap_data;
		} else {
			long result = (calls[n].way ? call_compat : call_native)(&calls[n]);
			outcome->value = (int32_t)result;
			outcome->kind = RETURNED;
		}
		shared->done = n + 1;
	}
	shared->finished = 1;
	for (;;) /* not even exit(2) may be allowed */
		__asm__ volatile("pause");
}

/* The process of one case: this thread is not filtered, and sees whether only the other one dies. */
static void live(void)
{
	pthread_t thread;
	struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || sigaction(SIGSYS, &action, NULL))
		die("prepare");
	if (pthread_create(&thread, NULL, make_calls, NULL))
		die("pthread_create");
	for (int waited = 0; waited < 200000; waited++) {
		if (shared->finished)
			_exit(0);
		if (pthread_tryjoin_np(thread, NULL) == 0)
			_exit(shared->finished ? 0 : 1); /* the thread is gone: killed alone */
		usleep(waited < 100 ? 20 : 200);
	}
	_exit(3);
}

static int run_cases(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none))
		die("setrlimit");
	while (get(&filter_count, sizeof filter_count)) {
		if (filter_count > MOST_FILTERS)
			die("too many filters");
		for (uint32_t n = 0; n < filter_count; n++) {
			uint32_t size;
			must_get(&size, sizeof size);
			get_program(&filters[n], size);
		}
		must_get(&call_count, sizeof call_count);
		if (call_count > MOST_CALLS)
			die("too many calls");
		must_get(calls, call_count * sizeof *calls);
		first_call = 0;
		shared->done = shared->finished = 0;
		while (shared->done < call_count) {
			int status;
			pid_t child;
			first_call = shared->done;
			shared->finished = 0;
			fflush(stdout);
			child = fork();
			if (child < 0)
				die("fork");
			if (child == 0)
				live();
			if (waitpid(child, &status, 0) != child)
				die("waitpid");
			if (shared->finished)
				continue;
			shared->outcomes[shared->done].kind =
				WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? KILLED_PROCESS :
				WIFEXITED(status) && WEXITSTATUS(status) == 1	   ? KILLED_THREAD :
										     UNKNOWN;
			shared->outcomes[shared->done].value = status;
			shared->done++;
		}
		put(shared->outcomes, call_count * sizeof *shared->outcomes);
		for (uint32_t n = 0; n < filter_count; n++)
			free(filters[n].filter);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";
	int code;

	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	if (!strcmp(what, "addresses")) {
		printf("%lu %lu\n", (unsigned long)native_return, (unsigned long)compat_return);
		return 0;
	}
	if (!strcmp(what, "accept"))
		code = accept_programs();
	else if (!strcmp(what, "run"))
		code = run_cases();
	else {
		fprintf(stderr, "usage: kernel addresses | accept | run\n");
		return 2;
	}
	if (fflush(stdout))
		die("stdout");
	return code;
}
