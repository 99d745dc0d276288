/* One call made in a child of its own, so that a filter that kills is a result like any other. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>

/* What a call did: `signal` ended it, or it returned `value`, negative for an errno. */
struct outcome {
	int signal;
	long value;
};

typedef long (*attempt)(const void *argument);

struct outcome try_call(attempt attempt, const void *argument);
const char *outcome_name(struct outcome outcome); /* "ok", "EPERM", "SIGSYS": valid until the next call but three */
bool seccomp_filtered(void);

/* The modes; each prints JSON lines and returns the exit code. */
int probe_doors(int count, char **families);
int probe_unrelated(void);
int probe_take(const char *pid, const char *family);
int probe_ambush(const char *family, const char *enough);
int probe_receive(const char *name);

#endif
