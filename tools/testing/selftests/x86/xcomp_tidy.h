/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Leave nothing behind, however the program ends: no process, no instance of
 * tracefs, and no exit status of 0 when nothing was tested.
 */
#ifndef SELFTESTS_X86_XCOMP_TIDY_H
#define SELFTESTS_X86_XCOMP_TIDY_H

#include <pthread.h>

#include "xcomp_combo.h"

static pid_t xcomp_main_pid;

/* The child that runs a test, told by itself through shared memory */
static pid_t *xcomp_runner;

/* Whether the program was only asked what tests there are */
static bool xcomp_only_listed;

static inline int xcomp_listed(int result)
{
	xcomp_only_listed = true;
	return result;
}

/* In every child: end when the parent ends. */
static inline void xcomp_in_child(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == xcomp_main_pid)
		*xcomp_runner = getpid();
}

static inline void xcomp_on_signal(int sig)
{
	pid_t child = *xcomp_runner;

	if (getpid() == xcomp_main_pid) {
		/* The harness gives the child a process group of its own. */
		if (child > 0 && !waitpid(child, NULL, WNOHANG)) {
			kill(-child, SIGKILL);
			kill(child, SIGKILL);
		}
		xf_trace_close();
	}
	signal(sig, SIG_DFL);
	raise(sig);
}

static inline void xcomp_at_exit(void)
{
	if (getpid() != xcomp_main_pid)
		return;
	xf_trace_close();
	fflush(stdout);
	if (xcomp_only_listed)
		return;
	if (!ksft_test_num()) {
		fprintf(stderr, "no test of that name, -l lists them\n");
		_exit(KSFT_FAIL);
	}
	if (ksft_test_num() == ksft_cnt.ksft_xskip)
		_exit(KSFT_SKIP);
}

/* Call once, before the first test. */
static inline void xcomp_tidy(void)
{
	static const int signals[] = { SIGHUP, SIGINT, SIGTERM };
	unsigned int i;

	xcomp_main_pid = getpid();
	xcomp_runner = mmap(NULL, sizeof(*xcomp_runner), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (xcomp_runner == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	pthread_atfork(NULL, NULL, xcomp_in_child);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		signal(signals[i], xcomp_on_signal);
	atexit(xcomp_at_exit);
}

#endif /* SELFTESTS_X86_XCOMP_TIDY_H */
