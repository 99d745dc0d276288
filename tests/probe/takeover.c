/*
 * What no filter of a process' own can see: it takes hold of another process with ptrace, has that one open a socket,
 * and fetches it with pidfd_getfd.
 *
 * The other's next system call is turned into socket(2) on its way in, and made again afterwards, so that it goes on
 * as if nothing had been. A seccomp filter of the other's is asked after the change (Linux 4.8 and later).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report.h"

enum { SYSCALL_STOP = SIGTRAP | 0x80 /* PTRACE_O_TRACESYSGOOD */, INSTRUCTION = 2 /* the length of `syscall` */ };

/* How far it came, and the negative errno that ended it there. */
enum step { ATTACH, STOP, OPEN, FETCH, TAKEN };

struct outcome_of {
	enum step step;
	long error;
	int domain; /* of the socket that was taken: the kernel's word for what it is */
};

static const char *const step_names[] = {"attach", "stop", "open", "fetch", "taken"};

static void print_outcome(struct outcome_of found)
{
	struct outcome outcome = {.value = found.error};
	printf("\"step\": \"%s\", \"result\": \"%s\", \"domain\": %d", step_names[found.step], outcome_name(outcome),
	       found.domain);
}

/* A number out of /proc/PID/status, -1 if there is none. */
static long field_of(pid_t pid, const char *name)
{
	char path[64], line[256];
	long value = -1;
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *status = fopen(path, "re");
	if (!status)
		return -1;
	while (fgets(line, sizeof line, status))
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
			value = strtol(line + strlen(name) + 1, NULL, 10);
			break;
		}
	fclose(status);
	return value;
}

/* Let it run to its next stop at a system call, whatever signals come in between. */
static bool to_system_call(pid_t pid)
{
	int deliver = 0;
	for (;;) {
		int status;
		if (ptrace(PTRACE_SYSCALL, pid, NULL, (long)deliver) < 0 || waitpid(pid, &status, __WALL) < 0 ||
		    !WIFSTOPPED(status))
			return false;
		if (WSTOPSIG(status) == SYSCALL_STOP)
			return true;
		deliver = status >> 16 ? 0 : WSTOPSIG(status);
	}
}

/* In a stopped process: the descriptor there, or the negative errno. */
static long open_there(pid_t pid, long family)
{
	struct user_regs_struct before, now;
	if (!to_system_call(pid) || ptrace(PTRACE_GETREGS, pid, NULL, &before) < 0)
		return -ESRCH;
	now = before;
	now.orig_rax = SYS_socket;
	now.rdi = (unsigned long)family;
	now.rsi = SOCK_STREAM | SOCK_CLOEXEC;
	now.rdx = 0;
	if (ptrace(PTRACE_SETREGS, pid, NULL, &now) < 0 || !to_system_call(pid) ||
	    ptrace(PTRACE_GETREGS, pid, NULL, &now) < 0)
		return -ESRCH;
	before.rax = before.orig_rax;
	before.rip -= INSTRUCTION;
	ptrace(PTRACE_SETREGS, pid, NULL, &before);
	return (long)now.rax;
}

static struct outcome_of fetch(pid_t pid, long descriptor)
{
	struct outcome_of found = {FETCH, 0, -1};
	int process = (int)syscall(SYS_pidfd_open, (pid_t)field_of(pid, "Tgid"), 0);
	int taken = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, (int)descriptor, 0);
	socklen_t size = sizeof found.domain;
	if (taken < 0 || getsockopt(taken, SOL_SOCKET, SO_DOMAIN, &found.domain, &size) < 0)
		found.error = -errno;
	else
		found.step = TAKEN;
	close(taken);
	close(process);
	return found;
}

/* From a process that is held already, and is let go in the end. */
static struct outcome_of take_from_held(pid_t pid, long family)
{
	struct outcome_of found = {STOP, 0, -1};
	int status;
	if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0 || waitpid(pid, &status, __WALL) < 0 || !WIFSTOPPED(status)) {
		found.error = -errno;
		return found;
	}
	long descriptor = open_there(pid, family);
	if (descriptor >= 0)
		found = fetch(pid, descriptor);
	else
		found = (struct outcome_of){OPEN, descriptor, -1};
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	return found;
}

static long hold(pid_t pid)
{
	return ptrace(PTRACE_SEIZE, pid, NULL, (long)PTRACE_O_TRACESYSGOOD) < 0 ? -errno : 0;
}

int probe_take(const char *pid, const char *family)
{
	pid_t other = atoi(pid);
	struct outcome_of found = {ATTACH, hold(other), -1};
	if (found.error == 0)
		found = take_from_held(other, strtol(family, NULL, 0));
	putchar('{');
	print_outcome(found);
	puts("}");
	return 0;
}

/* The number of the newest task of this PID namespace: the last word of /proc/loadavg. */
static pid_t newest(int loadavg)
{
	char text[128];
	ssize_t length = pread(loadavg, text, sizeof text - 1, 0);
	if (length <= 0) {
		perror("probe: /proc/loadavg");
		exit(3);
	}
	text[length] = '\0';
	return atoi(strrchr(text, ' ') + 1);
}

/*
 * Lie in wait for whoever enters the PID namespace, and take the socket from them while they have no filter yet:
 * the runtime's init has none until shortly before it becomes the command of an `exec`. Ends with the first socket,
 * or when the file `enough` is there.
 */
int probe_ambush(const char *family, const char *enough)
{
	enum { BEHIND = 16, AHEAD = 4, SEEN = 4096, HANG_SECONDS = 100 };
	static bool seen[SEEN]; /* who was held once: numbers are not used anew within so short a time */
	struct outcome_of found = {ATTACH, 0, -1};
	unsigned long refused = 0, unfiltered = 0, filtered = 0;
	int loadavg = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	pid_t first = newest(loadavg);

	alarm(HANG_SECONDS);
	while (found.step != TAKEN && access(enough, F_OK) != 0) {
		pid_t last = newest(loadavg);
		for (pid_t pid = last - BEHIND; pid <= last + AHEAD && found.step != TAKEN; pid++) {
			if (pid <= first || pid == getpid() || seen[pid % SEEN])
				continue;
			long held = hold(pid);
			if (held == -EPERM)
				refused++;
			if (held != 0)
				continue;
			seen[pid % SEEN] = true;
			*(field_of(pid, "Seccomp") == 2 ? &filtered : &unfiltered) += 1;
			struct outcome_of now = take_from_held(pid, strtol(family, NULL, 0));
			if (now.step >= OPEN)
				found = now;
		}
	}
	printf("{\"refused\": %lu, \"unfiltered\": %lu, \"filtered\": %lu, ", refused, unfiltered, filtered);
	print_outcome(found);
	puts("}");
	return 0;
}
