/*
 * The door probe: which doors are open to whoever runs this program. Static, x86_64, for any container.
 *
 *     probe doors FAMILY...   every door to each family (a number), one JSON object a line
 *     probe unrelated         what must be the same with and without the floor, likewise
 *     probe sleep             wait to be told to stop; also a pause container
 *
 * And what the floor cannot stop, one JSON object each; a FAMILY here may have a bit set in its high half:
 *
 *     probe take PID FAMILY      have that process open a socket, and take it
 *     probe ambush FAMILY FILE   the same with whoever enters this PID namespace, until the file is there
 *     probe receive NAME         a socket that is passed over the abstract unix socket of that name
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

static void leave(int signal)
{
	(void)signal;
	_exit(0);
}

/* As process 1 of a PID namespace, signals without a handler would be ignored and orphans never be reaped. */
static _Noreturn void sleep_until_told(void)
{
	struct sigaction action = {.sa_handler = leave};
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGCHLD, SIG_IGN);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	if (argc >= 3 && strcmp(argv[1], "doors") == 0)
		return probe_doors(argc - 2, argv + 2);
	if (argc == 2 && strcmp(argv[1], "unrelated") == 0)
		return probe_unrelated();
	if (argc == 2 && strcmp(argv[1], "sleep") == 0)
		sleep_until_told();
	if (argc == 4 && strcmp(argv[1], "take") == 0)
		return probe_take(argv[2], argv[3]);
	if (argc == 4 && strcmp(argv[1], "ambush") == 0)
		return probe_ambush(argv[2], argv[3]);
	if (argc == 3 && strcmp(argv[1], "receive") == 0)
		return probe_receive(argv[2]);
	fputs("usage: probe doors FAMILY... | unrelated | sleep | take PID FAMILY | ambush FAMILY FILE | receive NAME\n",
	      stderr);
	return 2;
}
