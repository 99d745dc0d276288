#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report.h"

enum { HANG_SECONDS = 5 };

struct outcome try_call(attempt attempt, const void *argument)
{
	static long *result; /* shared with the child: a pipe would need calls that a strict profile may lack */
	if (!result) {
		result = mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (result == MAP_FAILED) {
			perror("probe: mmap");
			exit(3);
		}
	}
	fflush(stdout);
	pid_t child = fork();
	if (child < 0) {
		perror("probe: fork");
		exit(3);
	}
	if (child == 0) {
		alarm(HANG_SECONDS);
		*result = attempt(argument);
		_exit(0);
	}
	int status;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR) {
			perror("probe: waitpid");
			exit(3);
		}
	if (WIFSIGNALED(status))
		return (struct outcome){.signal = WTERMSIG(status)};
	return (struct outcome){.value = *result};
}

const char *outcome_name(struct outcome outcome)
{
	static char ring[4][32];
	static unsigned turn;
	char *buffer = ring[turn++ % 4];
	const char *name = NULL;
	if (outcome.signal) {
		name = sigabbrev_np(outcome.signal);
		snprintf(buffer, sizeof ring[0], name ? "SIG%s" : "SIG?", name);
	} else if (outcome.value >= 0) {
		snprintf(buffer, sizeof ring[0], "ok");
	} else if ((name = strerrorname_np((int)-outcome.value))) {
		snprintf(buffer, sizeof ring[0], "%s", name);
	} else {
		snprintf(buffer, sizeof ring[0], "errno %ld", -outcome.value);
	}
	return buffer;
}

bool seccomp_filtered(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	if (!status) {
		perror("probe: /proc/self/status");
		exit(3);
	}
	char line[256];
	int mode = -1;
	while (fgets(line, sizeof line, status))
		if (sscanf(line, "Seccomp: %d", &mode) == 1)
			break;
	fclose(status);
	if (mode < 0) {
		fputs("probe: /proc/self/status has no Seccomp line\n", stderr);
		exit(3);
	}
	return mode == 2;
}
