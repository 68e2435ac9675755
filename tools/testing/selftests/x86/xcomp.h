/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of XSAVE state and of its permissions share.  A function that
 * takes _metadata asserts by itself, and says in which file and line.
 *
 * Children and threads assert through the same _metadata, which is memory that
 * all of them share, by EXPECT_*().  What ends the test, ASSERT_*(), is for the
 * process that the harness has made.  Where nothing can go on, as without fork(),
 * it may end a child: that dies by SIGABRT, for which its parent fails the row.
 */
#ifndef SELFTESTS_X86_XCOMP_H
#define SELFTESTS_X86_XCOMP_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kselftest_harness_ext.h"
#include "xfeature.h"

/* In place of TEST_HARNESS_MAIN; the second where a test executes the program anew */
#define XCOMP_HARNESS_MAIN		XCOMP_EXEC_HARNESS_MAIN(NULL)
#define XCOMP_EXEC_HARNESS_MAIN(after_exec)				\
	int main(int argc, char **argv)					\
	{								\
		xcomp_main(argc, argv, after_exec);			\
		exit(test_harness_run(argc, argv));			\
	}

void xcomp_main(int argc, char **argv, void (*after_exec)(int fd));

/* FIXTURE_SETUP() begins with the one, FIXTURE_TEARDOWN() ends with the other. */
void xcomp_begin(struct __test_metadata *const _metadata, const void *variant);
void xcomp_end(struct __test_metadata *const _metadata);

/* What this kernel has, and the reasons to skip if it has not */
bool xcomp_before(unsigned int major, unsigned int minor);
bool xcomp_too_old(void);

#define XCOMP_NO_AMX	"no AMX on this machine"
#define XCOMP_TOO_OLD	"no ARCH_GET_XCOMP_GUEST_PERM"

/* What the kernel took as the least before frames grew; glibc's varies now. */
#define XCOMP_OLD_MINSIGSTKSZ	2048

/* What this process has asked for, and must have been granted if there is AMX */
struct xcomp_perm {
	bool host;
	bool guest;
};

void xcomp_expect_request(struct __test_metadata *const _metadata, int option, unsigned long nr,
			  int wanted, const char *when);
void xcomp_expect_masks(struct __test_metadata *const _metadata, const struct xcomp_perm *perm,
			const char *when);
void xcomp_request_host(struct __test_metadata *const _metadata, struct xcomp_perm *perm);
void xcomp_request_guest(struct __test_metadata *const _metadata, struct xcomp_perm *perm);

/* A set of CPUs: a kernel may have 8192 of them, and a cpu_set_t has 1024. */
#define XCOMP_MAX_CPUS	8192

struct xcomp_cpus {
	cpu_set_t sets[8];
};

struct xcomp_cpus xcomp_only_cpu(int cpu);
void xcomp_run_on(struct __test_metadata *const _metadata, int cpu);

void xcomp_in_thread(struct __test_metadata *const _metadata, const char *what, xf_fn fn,
		     void *arg);

/* A thread that goes on while the caller does */
struct xcomp_thread {
	pthread_t thread;
	struct __test_metadata *metadata;
	xf_fn fn;
	void *arg;
};

void xcomp_start_thread(struct __test_metadata *const _metadata, struct xcomp_thread *t,
			xf_fn fn, void *arg);
void xcomp_join_thread(struct __test_metadata *const _metadata, struct xcomp_thread *t,
		       const char *what);

void xcomp_in_new_program(struct __test_metadata *const _metadata, const char *what, xf_fn fn,
			  void *arg, void *buf, size_t size);
void xcomp_exec(struct __test_metadata *const _metadata, void *arg);

#endif /* SELFTESTS_X86_XCOMP_H */
