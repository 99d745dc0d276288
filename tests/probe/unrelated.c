/*
 * What must not change: sockets of other families, and the answer to every system call number there is.
 *
 * The sweep makes each call with all arguments -1: every pointer is bad, every descriptor closed, every flag word
 * invalid. The kernel answers EFAULT, EBADF or EINVAL and does nothing; a filter answers with its own errno. So the
 * list of answers is a fingerprint of the filter, taken without knowing anything about it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "abi.h"
#include "report.h"

enum { LAST_NUMBER = 550 }; /* beyond every assigned one, so that the ENOSYS above the highest is seen too */

struct numbered {
	enum abi abi;
	long nr;
};

/* Left out: calls that end, fork or suspend the caller, or do something whatever their arguments. */
static const long native_skipped[] = {
	15 /* rt_sigreturn */, 34 /* pause */, 56 /* clone */, 57 /* fork */, 58 /* vfork */, 60 /* exit */,
	68 /* msgget */, 153 /* vhangup */, 162 /* sync */, 169 /* reboot */, 231 /* exit_group */,
};
static const long compat_skipped[] = {
	1 /* exit */, 2 /* fork */, 29 /* pause */, 36 /* sync */, 72 /* sigsuspend */, 88 /* reboot */,
	111 /* vhangup */, 119 /* sigreturn */, 120 /* clone */, 173 /* rt_sigreturn */, 190 /* vfork */,
	252 /* exit_group */, 399 /* msgget */,
};

static bool skipped(enum abi abi, long nr)
{
	const long *list = abi == I386 ? compat_skipped : native_skipped;
	size_t count = abi == I386 ? sizeof compat_skipped / sizeof *list : sizeof native_skipped / sizeof *list;
	for (size_t i = 0; i < count; i++)
		if (list[i] == nr)
			return true;
	return false;
}

static long call_with_minus_ones(const void *argument)
{
	const struct numbered *numbered = argument;
	return call(numbered->abi, numbered->nr, -1, -1, -1, -1, -1);
}

static void sweep(enum abi abi, const char *name)
{
	for (long nr = 0; nr <= LAST_NUMBER; nr++) {
		if (skipped(abi, nr))
			continue;
		struct numbered numbered = {abi, nr};
		printf("{\"call\": \"%s %ld\", \"result\": \"%s\"}\n", name, nr,
		       outcome_name(try_call(call_with_minus_ones, &numbered)));
	}
}

struct wanted {
	enum abi abi;
	bool pair;
	long family;
	int type;
};

static long make_socket(const void *argument)
{
	const struct wanted *wanted = argument;
	long nr = wanted->abi == I386 ? (wanted->pair ? 360 : 359) : (wanted->pair ? 53 : 41);
	void *descriptors = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	return call(wanted->abi, nr, wanted->family, wanted->type, 0, (long)descriptors, 0);
}

static void sockets(enum abi abi, const char *name)
{
	static const struct {
		const char *name;
		int number;
	} families[] = {{"AF_UNIX", AF_UNIX},	    {"AF_INET", AF_INET},     {"AF_INET6", AF_INET6},
			{"AF_NETLINK", AF_NETLINK}, {"AF_PACKET", AF_PACKET}, {"AF_MAX", 46}},
	  types[] = {{"SOCK_STREAM", SOCK_STREAM}, {"SOCK_DGRAM", SOCK_DGRAM},		  {"SOCK_RAW", SOCK_RAW},
		     {"SOCK_SEQPACKET", SOCK_SEQPACKET}, {"SOCK_CLOEXEC", SOCK_STREAM | SOCK_CLOEXEC}};

	for (size_t f = 0; f < sizeof families / sizeof *families; f++)
		for (size_t t = 0; t < sizeof types / sizeof *types; t++)
			for (int high = 0; high < 2; high++)
				for (int pair = 0; pair < 2; pair++) {
					struct wanted wanted = {abi, pair, families[f].number | (high ? DIRTY_HIGH : 0),
								types[t].number};
					printf("{\"call\": \"%s %s %s%s %s\", \"result\": \"%s\"}\n", name,
					       pair ? "socketpair" : "socket", families[f].name,
					       high ? ", high half," : "", types[t].name,
					       outcome_name(try_call(make_socket, &wanted)));
				}
}

int probe_unrelated(void)
{
	sockets(X86_64, "x86_64");
	sockets(I386, "i386");
	sweep(X86_64, "x86_64");
	sweep(I386, "i386");
	sweep(X32, "x32");
	return 0;
}
