/*
 * The doors: every way through the system call interface to a socket of a family.
 *
 * An errno alone does not say who answered, the filter or the kernel: EAFNOSUPPORT is what a kernel without the
 * family says, and also what a filter may be told to say. So each door is tried twice, the second time with a
 * *witness*: the same call with a flag in `type` that the kernel refuses with EINVAL before it looks at the family
 * (net/socket.c, __sys_socket and __sys_socketpair). If the witness gets EINVAL, such calls reach the kernel, and
 * the answer to the real call is the kernel's own; if both get the same other errno, the filter gave it.
 * A filter with conditions on `type` can tell the two apart; where that may have happened the class is "ambiguous".
 * Behind socketcall's pointer the filter sees neither, so the witness is exact there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "abi.h"
#include "report.h"

enum call { SOCKET, SOCKETPAIR, SOCKETCALL, SOCKETCALL_PAIR, IO_URING, IO_URING_SQPOLL };

struct door {
	const char *name;
	enum abi abi;
	enum call call;
	long high; /* set in the register that the filter looks at: the family, or socketcall's call number */
};

static const struct door doors[] = {
	{"x86_64 socket", X86_64, SOCKET, 0},
	{"x86_64 socket, high half", X86_64, SOCKET, DIRTY_HIGH},
	{"x86_64 socketpair", X86_64, SOCKETPAIR, 0},
	{"x86_64 socketpair, high half", X86_64, SOCKETPAIR, DIRTY_HIGH},
	{"i386 socket", I386, SOCKET, 0},
	{"i386 socket, high half", I386, SOCKET, DIRTY_HIGH},
	{"i386 socketpair", I386, SOCKETPAIR, 0},
	{"i386 socketpair, high half", I386, SOCKETPAIR, DIRTY_HIGH},
	{"i386 socketcall socket", I386, SOCKETCALL, 0},
	{"i386 socketcall socket, high half", I386, SOCKETCALL, DIRTY_HIGH},
	{"i386 socketcall socketpair", I386, SOCKETCALL_PAIR, 0},
	{"i386 socketcall socketpair, high half", I386, SOCKETCALL_PAIR, DIRTY_HIGH},
	{"x32 socket", X32, SOCKET, 0},
	{"x32 socket, high half", X32, SOCKET, DIRTY_HIGH},
	{"x32 socketpair", X32, SOCKETPAIR, 0},
	{"x86_64 io_uring", X86_64, IO_URING, 0},
	{"x86_64 io_uring, kernel thread", X86_64, IO_URING_SQPOLL, 0},
	{"i386 io_uring", I386, IO_URING, 0},
};

/* One try: the door, what to ask for, and whether this is the witness. */
struct request {
	const struct door *door;
	int family;
	int type;
	bool witness;
};

enum {
	BAD_FLAG = 0x100, /* neither SOCK_CLOEXEC nor SOCK_NONBLOCK */
	I386_SOCKETCALL = 102,
	I386_SOCKET = 359,
	I386_SOCKETPAIR = 360,
	X86_64_SOCKET = 41,
	X86_64_SOCKETPAIR = 53,
	URING_SETUP = 425, /* the same on every ABI, as all numbers from 424 on */
	URING_ENTER = 426,
	SOCKETCALL_SOCKET = 1,
	SOCKETCALL_SOCKETPAIR = 8,
	X86_64_GETPID = 39,
	X32_GETPID = 39,
	I386_GETPID = 20,
};

/* Results of the io_uring door that are not the kernel's answer to the operation: which step failed. */
enum { STEP_SHIFT = 16, STEP_SETUP = 1, STEP_ENTER = 2, STEP_ASLEEP = 3 };

/* Memory that a 32-bit pointer can name. */
static void *low_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (memory == MAP_FAILED) {
		perror("probe: mmap below 4 GiB");
		_exit(3);
	}
	return memory;
}

static long failed_at(int step, long error)
{
	return -((-error) | (long)step << STEP_SHIFT);
}

/* One ring, one operation: the descriptor or the negative errno; `failed_at` where it did not come to that. */
static long submit_socket(const struct request *request)
{
	enum abi abi = request->door->abi;
	bool sqpoll = request->door->call == IO_URING_SQPOLL;
	struct io_uring_params *params = low_memory(sizeof *params);
	params->flags = sqpoll ? IORING_SETUP_SQPOLL : 0;

	/* The witness asks for no entries at all, which the kernel refuses with EINVAL. */
	long ring = call(abi, URING_SETUP, request->witness ? 0 : 4, (long)params, 0, 0, 0);
	if (ring < 0)
		return failed_at(STEP_SETUP, ring);

	size_t sq_size = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
	size_t cq_size = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
	int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
	char *sq = mmap(NULL, sq_size, protection, flags, (int)ring, IORING_OFF_SQ_RING);
	char *cq = mmap(NULL, cq_size, protection, flags, (int)ring, IORING_OFF_CQ_RING);
	struct io_uring_sqe *sqe = mmap(NULL, params->sq_entries * sizeof *sqe, protection, flags, (int)ring,
					IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || sqe == MAP_FAILED) {
		perror("probe: mmap of the ring");
		_exit(3);
	}

	memset(sqe, 0, sizeof *sqe);
	sqe->opcode = IORING_OP_SOCKET;
	sqe->fd = request->family;
	sqe->off = (uint64_t)request->type;
	*(uint32_t *)(sq + params->sq_off.array) = 0;
	__atomic_store_n((uint32_t *)(sq + params->sq_off.tail), 1, __ATOMIC_RELEASE);

	if (!sqpoll) {
		long entered = call(abi, URING_ENTER, ring, 1, 1, IORING_ENTER_GETEVENTS, 0);
		if (entered < 0)
			return failed_at(STEP_ENTER, entered);
	}
	const uint32_t *done = (uint32_t *)(cq + params->cq_off.tail);
	const uint32_t *state = (uint32_t *)(sq + params->sq_off.flags);
	while (__atomic_load_n(done, __ATOMIC_ACQUIRE) == 0) {
		if (__atomic_load_n(state, __ATOMIC_ACQUIRE) & IORING_SQ_NEED_WAKEUP) {
			close((int)ring);
			return failed_at(STEP_ASLEEP, -EAGAIN);
		}
		usleep(100); /* bounded by try_call's alarm */
	}
	return ((struct io_uring_cqe *)(cq + params->cq_off.cqes))->res;
}

/*
 * With SQPOLL a kernel thread takes up the operation, so io_uring_setup alone is a door. The thread may fall asleep
 * before it sees the entry, and only io_uring_enter could wake it: whoever is denied that tries with another ring.
 */
static long open_by_io_uring(const struct request *request)
{
	long result;
	do
		result = submit_socket(request);
	while (result == failed_at(STEP_ASLEEP, -EAGAIN));
	return result;
}

static long open_door(const void *argument)
{
	const struct request *request = argument;
	const struct door *door = request->door;
	int type = request->witness ? request->type | BAD_FLAG : request->type;
	long family = request->family | door->high;

	switch (door->call) {
	case SOCKET:
		return call(door->abi, door->abi == I386 ? I386_SOCKET : X86_64_SOCKET, family, type, 0, 0, 0);
	case SOCKETPAIR:
		return call(door->abi, door->abi == I386 ? I386_SOCKETPAIR : X86_64_SOCKETPAIR, family, type, 0,
			    (long)low_memory(2 * sizeof(int)), 0);
	case SOCKETCALL:
	case SOCKETCALL_PAIR: {
		uint32_t *arguments = low_memory(6 * sizeof(uint32_t));
		arguments[0] = (uint32_t)request->family;
		arguments[1] = (uint32_t)type;
		arguments[3] = (uint32_t)(uintptr_t)(arguments + 4);
		long which = door->call == SOCKETCALL ? SOCKETCALL_SOCKET : SOCKETCALL_SOCKETPAIR;
		return call(I386, I386_SOCKETCALL, which | door->high, (long)arguments, 0, 0, 0);
	}
	case IO_URING:
	case IO_URING_SQPOLL:
		return open_by_io_uring(request);
	}
	abort();
}

static long getpid_of(const void *argument)
{
	enum abi abi = *(const enum abi *)argument;
	return call(abi, abi == I386 ? I386_GETPID : abi == X32 ? X32_GETPID : X86_64_GETPID, 0, 0, 0, 0, 0);
}

/* Whether the kernel serves the ABI at all: one without it ends `int $0x80` with SIGSEGV and answers x32 with ENOSYS. */
static bool abi_missing(enum abi abi)
{
	struct outcome outcome = try_call(getpid_of, &abi);
	return outcome.signal == SIGSEGV || (!outcome.signal && outcome.value == -ENOSYS);
}

/* The kernel has io_uring if it has the switch that turns it off (since Linux 6.6). */
static bool io_uring_in_kernel(void)
{
	return access("/proc/sys/kernel/io_uring_disabled", F_OK) == 0;
}

static const char *of_kernel(long error)
{
	switch (error) {
	case -EAFNOSUPPORT:
		return "not-in-kernel";
	case -EOPNOTSUPP: /* socketpair: the sockets were made, and destroyed again */
		return "reached";
	default:
		return "refused-by-kernel";
	}
}

static const char *classify_io_uring(struct outcome real, struct outcome witness, bool filtered)
{
	long error = -real.value & ((1 << STEP_SHIFT) - 1);
	int step = (int)(-real.value >> STEP_SHIFT);
	if (step == 0) /* the operation ran: what it answers is beyond any filter */
		return error == EINVAL ? "not-in-kernel" : of_kernel(-error);
	if (!filtered || (step == STEP_SETUP && -witness.value == (EINVAL | STEP_SETUP << STEP_SHIFT)))
		return error == ENOSYS ? "not-in-kernel" : "refused-by-kernel";
	if (step == STEP_ENTER) /* setup passed, so the kernel has io_uring, and the arguments were right */
		return "closed-by-filter";
	if (error == ENOSYS && !io_uring_in_kernel())
		return "ambiguous";
	return witness.value == real.value ? "closed-by-filter" : "ambiguous";
}

static const char *classify(const struct door *door, struct outcome real, struct outcome witness, bool filtered)
{
	if (real.signal)
		return real.signal == SIGSYS ? "closed-by-filter"
		       : real.signal == SIGSEGV && door->abi == I386 ? "abi-missing"
								     : "ambiguous";
	if (real.value >= 0)
		return "opened";
	if (door->call == IO_URING || door->call == IO_URING_SQPOLL)
		return classify_io_uring(real, witness, filtered);
	if (real.value == -ENOSYS && door->abi != X86_64 && abi_missing(door->abi))
		return "abi-missing";
	if (!filtered)
		return real.value == -ENOSYS ? "abi-missing" : of_kernel(real.value);
	if (!witness.signal && witness.value == -EINVAL)
		return real.value == -EINVAL ? "ambiguous" : of_kernel(real.value);
	if (!witness.signal && witness.value == real.value)
		return "closed-by-filter";
	return "ambiguous";
}

/* A type that the family has, so that nothing but a filter can refuse. */
static int type_for(int family)
{
	switch (family) {
	case AF_ALG:
		return SOCK_SEQPACKET;
	case AF_NETLINK:
	case AF_PACKET:
		return SOCK_RAW;
	default:
		return SOCK_STREAM;
	}
}

static void print_name_of(struct outcome outcome)
{
	if (!outcome.signal && outcome.value < 0)
		outcome.value = -(-outcome.value & ((1 << STEP_SHIFT) - 1));
	printf("\"%s\"", outcome_name(outcome));
}

int probe_doors(int count, char **families)
{
	bool filtered = seccomp_filtered();
	for (int i = 0; i < count; i++) {
		char *end;
		long family = strtol(families[i], &end, 10);
		if (*families[i] == '\0' || *end != '\0' || family < 0 || family > INT32_MAX) {
			fprintf(stderr, "probe: '%s' is not the number of an address family\n", families[i]);
			return 2;
		}
		for (size_t j = 0; j < sizeof doors / sizeof *doors; j++) {
			struct request request = {&doors[j], (int)family, type_for((int)family), false};
			struct outcome real = try_call(open_door, &request);
			request.witness = true;
			struct outcome witness = try_call(open_door, &request);
			printf("{\"family\": %ld, \"door\": \"%s\", \"result\": ", family, doors[j].name);
			print_name_of(real);
			fputs(", \"witness\": ", stdout);
			print_name_of(witness);
			printf(", \"class\": \"%s\"}\n", classify(&doors[j], real, witness, filtered));
		}
	}
	return 0;
}
