/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Programs that are a table of checks of what a host task sees, each in a
 * process of its own that starts without any permission.
 */
#ifndef SELFTESTS_X86_XCOMP_HOST_H
#define SELFTESTS_X86_XCOMP_HOST_H

#include <sched.h>

#include "xcomp_tidy.h"
#include "xcomp_vcpu.h"

#define XCOMP_NO_AMX	"no AMX on this machine"
#define XCOMP_NO_PTRACE	"ptrace is forbidden"

/* Say which promise is broken, after what was wanted and got. */
static inline bool xcomp_rule(const struct xcomp *x, bool ok, const char *rule)
{
	if (!ok)
		ksft_print_msg("%s: broken: %s\n", x->name, rule);
	return ok;
}

/*
 * Ask for XTILE_DATA, and verify the answer and all masks after it. Where the
 * lock is to refuse it, the combination is XCOMP_LATE.
 */
static inline bool xcomp_request(struct xcomp *x, bool guest)
{
	bool ok = xcomp_ask(x, guest);

	if (!xcomp_wanted_errno(x, guest)) {
		if (guest)
			x->guest_granted = true;
		else
			x->host_granted = true;
	}
	return ok & (xcomp_check_masks(x) == KSFT_PASS);
}

/* Call @fn in a child of its own; its diagnostics are those of the check. */
static inline bool xcomp_sub(struct xcomp *x, int (*fn)(struct xcomp *x))
{
	const struct xcomp_check check = { .name = x->name, .run = fn };

	return xcomp_fork(x, &check, xcomp_body) == KSFT_PASS;
}

/* Call @fn in a thread, and wait for it. */
static inline bool xcomp_thread(struct xcomp *x, void *(*fn)(void *arg),
				void *arg)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, fn, arg);
	if (errno || pthread_join(thread, NULL)) {
		xcomp_error(x, "pthread_create");
		return false;
	}
	return true;
}

/* Stay on the CPU that this runs on, with all children to come. */
static inline int xcomp_pin(void)
{
	int cpu = sched_getcpu();
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -1 : cpu;
}

/*
 * Stay on this CPU, and open its MSRs by the msr driver, which takes root.
 * Return the file descriptor, or -1.
 */
static inline int xcomp_open_msrs(int flags)
{
	int cpu = xcomp_pin();
	char path[32];

	if (cpu < 0)
		return -1;
	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
	return open(path, flags | O_CLOEXEC);
}

#define XCOMP_MSR_READS	60

/*
 * Read a register of this task. A task that is preempted inside of the driver
 * goes on there without its own, so that one reading proves nothing: take what
 * is read three times in a row.
 */
static inline uint64_t xcomp_read_msr(int fd, uint32_t msr)
{
	uint64_t value, last = ~UINT64_C(0);
	int i, same = 0;

	for (i = 0; i < XCOMP_MSR_READS && same < 3; i++) {
		if (pread(fd, &value, sizeof(value), msr) != 8)
			return ~UINT64_C(0);
		same = value == last ? same + 1 : 1;
		last = value;
	}
	return last;
}

/*
 * Start a process that keeps this CPU busy, so that whoever sleeps here finds
 * its registers gone when it wakes up: the idle task would have kept them. It
 * is to be killed, and dies with its parent.
 */
static inline pid_t xcomp_hog(void)
{
	pid_t pid = fork();

	if (pid < 0)
		ksft_exit_fail_perror("fork");
	while (!pid)
		asm volatile("pause");
	return pid;
}

static inline void xcomp_kill_hog(pid_t pid)
{
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
}

static inline int xcomp_report(const struct xcomp_check *check)
{
	struct xcomp x;
	int result;

	xcomp_parse(&x, "none");
	snprintf(x.name, sizeof(x.name), "%s", check->name);
	result = xcomp_fork(&x, check, xcomp_grant);
	ksft_test_result_code(result, check->name, x.reason ? "%s" : NULL,
			      x.reason);
	return result;
}

/*
 * Run all @checks, or with -t the one of that name; -l lists them. @after are
 * those for xcomp_exec(), NULL if there are none. @trace says whether they use
 * the tracepoint.
 */
static inline int xcomp_host_main(int argc, char **argv,
				  const struct xcomp_check *checks,
				  unsigned int nr,
				  const struct xcomp_check *const *after,
				  bool trace)
{
	unsigned int i, plan = 0;
	const char *only = NULL;

	xcomp_init();
	if (after && argc > 1 && !strcmp(argv[1], XCOMP_AFTER_EXEC))
		return xcomp_after_exec(argc, argv, after);

	if (argc == 2 && !strcmp(argv[1], "-l")) {
		for (i = 0; i < nr; i++)
			printf("%s\n", checks[i].name);
		return KSFT_PASS;
	}
	if (argc == 3 && !strcmp(argv[1], "-t"))
		only = argv[2];
	for (i = 0; i < nr; i++)
		plan += !only || !strcmp(only, checks[i].name);
	if ((argc > 1 && !only) || !plan) {
		fprintf(stderr,
			"use: %s [-l | -t NAME], where -l lists the names\n",
			argv[0]);
		return KSFT_FAIL;
	}

	xcomp_tidy();
	if (trace)
		xf_trace_open();
	ksft_print_header();
	ksft_set_plan(plan);
	for (i = 0; i < nr; i++)
		if (!only || !strcmp(only, checks[i].name))
			xcomp_report(&checks[i]);
	ksft_finished();
}

#endif /* SELFTESTS_X86_XCOMP_HOST_H */
