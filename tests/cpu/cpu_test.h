/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Helpers of the CPU self-test: KTAP and faults.
 *
 * The self-test tells a wrong CPU apart from a wrong kernel or a wrong suite.
 * On purpose it shares nothing with the selftests, not even the arithmetic on
 * CPUID leaf 0xD: an error made there must not be repeated here.
 */
#ifndef CPU_TEST_H
#define CPU_TEST_H

#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <linux/types.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define BIT(n)		(1ULL << (n))

/* ---- KTAP: each test runs in a child of its own and has a time limit ---- */

#define EXIT_SKIP	4
#define TEST_SECONDS	120
#define MAX_DIAGNOSTICS	8

struct cpu_test {
	const char *name;
	const char *rule;		/* where the rule is written down */
	void (*fn)(void);
};

/* What a child reports, in memory shared with the parent. */
struct report {
	char reason[80];
	int checks;
	int failures;
};

extern struct report *report;

static inline noreturn void skip(const char *reason)
{
	snprintf(report->reason, sizeof(report->reason), "%s", reason);
	exit(EXIT_SKIP);
}

/* Count a check; return whether to tell about it. */
static inline int count_check(int ok)
{
	report->checks++;
	return !ok && report->failures++ < MAX_DIAGNOSTICS;
}

/* Note a check; on failure print the message as a diagnostic line. */
#define check(ok, ...)							\
({									\
	int __ok = !!(ok);						\
									\
	if (count_check(__ok)) {					\
		printf("# ");						\
		printf(__VA_ARGS__);					\
		printf("\n");						\
	}								\
	__ok;								\
})

static inline int check_eq(__u64 got, __u64 wanted, const char *what)
{
	return check(got == wanted, "%s: wanted %#llx, got %#llx", what, wanted, got);
}

static inline int run_child(const struct cpu_test *test)
{
	int status;
	pid_t pid;

	memset(report, 0, sizeof(*report));
	fflush(stdout);
	pid = fork();
	if (pid < 0) {
		printf("# fork failed\n");
		return EXIT_FAILURE;
	}
	if (!pid) {
		alarm(TEST_SECONDS);
		test->fn();
		exit(EXIT_SUCCESS);
	}
	if (waitpid(pid, &status, 0) != pid)
		return EXIT_FAILURE;
	if (WIFSIGNALED(status)) {
		printf(WTERMSIG(status) == SIGALRM ? "# ran out of time\n" :
		       "# died of signal %d\n", WTERMSIG(status));
		return EXIT_FAILURE;
	}
	if (WEXITSTATUS(status) == EXIT_SKIP && !report->failures)
		return EXIT_SKIP;
	if (report->failures > MAX_DIAGNOSTICS)
		printf("# and %d more\n", report->failures - MAX_DIAGNOSTICS);
	if (!report->checks)
		printf("# nothing was checked\n");
	return WEXITSTATUS(status) || report->failures || !report->checks;
}

/* The tests of one source file. */
struct test_group {
	const struct cpu_test *tests;
	int nr;
};

#define TEST_GROUP(name) \
	const struct test_group name = { name ## _list, ARRAY_SIZE(name ## _list) }

static inline int run_tests(const struct test_group *const *groups)
{
	int pass = 0, fail = 0, nr = 0, number = 0, g, i;
	const struct cpu_test *test;

	setvbuf(stdout, NULL, _IOLBF, 0);
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (report == MAP_FAILED) {
		fprintf(stderr, "no memory for the report\n");
		return EXIT_FAILURE;
	}
	for (g = 0; groups[g]; g++)
		nr += groups[g]->nr;
	printf("KTAP version 1\n1..%d\n", nr);
	for (g = 0; groups[g]; g++) {
		for (i = 0; i < groups[g]->nr; i++) {
			test = &groups[g]->tests[i];
			number++;
			switch (run_child(test)) {
			case EXIT_SUCCESS:
				pass++;
				printf("ok %d %s\n", number, test->name);
				break;
			case EXIT_SKIP:
				printf("ok %d %s # SKIP %s\n", number, test->name, report->reason);
				break;
			default:
				fail++;
				printf("# the rule: %s\n", test->rule);
				printf("not ok %d %s\n", number, test->name);
			}
		}
	}
	printf("# Totals: pass:%d fail:%d xfail:0 xpass:0 skip:%d error:0\n",
	       pass, fail, nr - pass - fail);
	if (fail)
		return EXIT_FAILURE;
	return pass ? EXIT_SUCCESS : EXIT_SKIP;
}

/* ---- Faults: an instruction is tried, a handler notes what it raised ---- */

#define NO_FAULT	(~0ULL)
#define DE_VECTOR	0
#define DB_VECTOR	1
#define BP_VECTOR	3
#define UD_VECTOR	6
#define NM_VECTOR	7
#define GP_VECTOR	13
#define PF_VECTOR	14
#define CP_VECTOR	21

/* Written by the signal handler in user mode, by cpu_guest.S in the guest. */
struct fault {
	__u64 resume;			/* where to go on, 0: not expected */
	__u64 vector;
	__u64 error;
	__u64 rip;
	__u64 address;
	__u64 clear_s_cet;		/* guest: turn CET off before going on */
	int signo;
	int code;
};

extern struct fault fault;

/*
 * Execute @insn with the inputs that follow and go on behind it if it faults.
 * It may use R10 and R11, and write to memory.
 */
#define TRY(insn, ...)							\
do {									\
	fault.vector = NO_FAULT;					\
	fault.signo = 0;						\
	asm volatile("lea 1f(%%rip), %%r11\n\t"				\
		     "mov %%r11, %[resume]\n\t"				\
		     insn "\n"						\
		     "1:\tmovq $0, %[resume]"				\
		     : [resume] "=m" (fault.resume)			\
		     : __VA_ARGS__ : "r10", "r11", "memory", "cc");	\
} while (0)

static inline void fault_handler(int signo, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	if (!fault.resume) {
		check(0, "unexpected signal %d, vector %lld, RIP %#llx", signo, regs[REG_TRAPNO],
		      regs[REG_RIP]);
		exit(EXIT_FAILURE);
	}
	fault.vector = regs[REG_TRAPNO];
	fault.error = regs[REG_ERR];
	fault.rip = regs[REG_RIP];
	fault.address = (__u64)info->si_addr;
	fault.signo = signo;
	fault.code = info->si_code;
	regs[REG_RIP] = fault.resume;
}

static inline void catch_faults(void)
{
	struct sigaction sa = { .sa_sigaction = fault_handler, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGILL, &sa, NULL);
	sigaction(SIGFPE, &sa, NULL);
}

#endif /* CPU_TEST_H */
