// SPDX-License-Identifier: GPL-2.0-only
/*
 * arch_prctl(2) for AMX: ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM,
 * ARCH_REQ_XCOMP_PERM and the two of them for guests.  What can be asked for,
 * what is answered, to whom a permission belongs, and what takes it away.
 *
 * It runs on every x86 CPU, as root or not: without AMX requests are refused,
 * which is as much a promise as that they are granted.
 */
#define _GNU_SOURCE

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/utsname.h>

#include "xcomp.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ	51
#endif

/*
 * All kernels know the components up to XTILE_DATA, some know APX (19).  One
 * that knows even more of them wants a greater number here.
 */
#define LAST_KNOWN	XFEATURE_XTILE_DATA
#define MAYBE_KNOWN	19

#define NR_ASKERS	8
#define CHILD_STACK	(64 * 1024)

/* What is in frames besides the XSAVE area and FP_XSTATE_MAGIC2: FSAVE's registers */
#define FREGS_SIZE	112

static const struct {
	int option;
	const char *name;
} gets[] = {
	{ ARCH_GET_XCOMP_SUPP, "ARCH_GET_XCOMP_SUPP" },
	{ ARCH_GET_XCOMP_PERM, "ARCH_GET_XCOMP_PERM" },
	{ ARCH_GET_XCOMP_GUEST_PERM, "ARCH_GET_XCOMP_GUEST_PERM" },
};

static const struct {
	const char *name;
	int get, request;
} perms[] = {
	{ "host", ARCH_GET_XCOMP_PERM, ARCH_REQ_XCOMP_PERM },
	{ "guest", ARCH_GET_XCOMP_GUEST_PERM, ARCH_REQ_XCOMP_GUEST_PERM },
};

/* What is never granted, whatever children and new programs have been */
static const unsigned long never[] = {
	XFEATURE_PASID, XFEATURE_CET_USER, XFEATURE_CET_KERNEL, XFEATURE_XTILE_CFG, 63, 64,
};

/* Threads of a test wait here for each other. */
static pthread_barrier_t barrier;

/* The threads of a 32-bit C library need what COMPAT_32BIT_TIME provides. */
static bool no_threads(void)
{
	int word = 0;

	return syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0) < 0;
}

/* Whether this kernel can be tested; if not, the test is skipped. */
static bool begin(struct __test_metadata *const _metadata, const void *variant)
{
	xcomp_begin(_metadata, variant);
	if (no_threads())
		SKIP(return false, "no futex()");
	if (xcomp_too_old())
		SKIP(return false, XCOMP_TOO_OLD);
	return true;
}

FIXTURE(xcomp_perm)
{
	struct xcomp_perm perm;
};

FIXTURE_SETUP(xcomp_perm)
{
	begin(_metadata, variant);
}

FIXTURE_TEARDOWN(xcomp_perm)
{
	xcomp_end(_metadata);
}

static int get_at(int option, void *p)
{
	return syscall(SYS_arch_prctl, option, p) ? errno : 0;
}

/* AMX, and what the kernel needs for it: XSAVES and XFD, and no word that takes it away */
static bool amx_is_due(void)
{
	uint32_t xsaves_and_xfd = 1u << 3 | 1u << 4;
	struct utsname name;

	return xf_cpuid(7, 0).edx & 1u << 24 &&
	       (xf_cpuid(0xd, 1).eax & xsaves_and_xfd) == xsaves_and_xfd &&
	       !(~xf_cpu_user_mask() & XFEATURE_MASK_XTILE) &&
	       !uname(&name) && !strcmp(name.machine, "x86_64") &&
	       (xf_cpuinfo_flag("amx_tile") ||
		(!xf_cmdline_may_have("noxsave") && !xf_cmdline_may_have("clearcpuid")));
}

/* Verify that a kernel does not lose AMX, without which most is not tested. */
TEST_F(xcomp_perm, offered)
{
	if (!amx_is_due())
		SKIP(return, XCOMP_NO_AMX);
	EXPECT_SAME_MASK(xf_names, XFEATURE_MASK_XTILE, xf_xcr0() & XFEATURE_MASK_XTILE,
			 "AMX in XCR0");
}

static void ask_both(struct __test_metadata *const _metadata, void *perm)
{
	xcomp_request_host(_metadata, perm);
	xcomp_request_guest(_metadata, perm);
}

static int refusal(unsigned long nr)
{
	return nr <= LAST_KNOWN ? EOPNOTSUPP : EINVAL;
}

static void expect_refused(struct __test_metadata *const _metadata, unsigned long nr,
			   const char *when)
{
	int wanted = refusal(nr);

	/* Which of both it is tells kernels apart, but host and guest agree. */
	if (nr == MAYBE_KNOWN && xf_request(ARCH_REQ_XCOMP_PERM, nr) == EOPNOTSUPP)
		wanted = EOPNOTSUPP;
	xcomp_expect_request(_metadata, ARCH_REQ_XCOMP_PERM, nr, wanted, when);
	xcomp_expect_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM, nr, wanted, when);
}

/*
 * Verify that no component but XTILE_DATA can be asked for, with EOPNOTSUPP
 * for those that the kernel knows and EINVAL for all other numbers, also when
 * XTILE_DATA is granted, and that asking changes no mask.
 */
TEST_F(xcomp_perm, numbers)
{
	static const unsigned long far[] = {
		64, 65, 64 + XFEATURE_XTILE_DATA, 1ul << XFEATURE_XTILE_DATA, INT_MAX,
		INT_MIN, ULONG_MAX, ULONG_MAX - XFEATURE_XTILE_DATA,
#ifdef __x86_64__
		1ul << 32, 1ul << 32 | XFEATURE_XTILE_DATA, 1ul << 63 | XFEATURE_XTILE_DATA,
#endif
	};
	static const char * const when[] = { "with nothing granted", "with both granted" };
	unsigned int i, round;

	for (round = 0; round < 2; round++) {
		if (round)
			ask_both(_metadata, &self->perm);
		for (i = 0; i < 64; i++)
			if (i != XFEATURE_XTILE_DATA)
				expect_refused(_metadata, i, when[round]);
		for (i = 0; i < ARRAY_SIZE(far); i++)
			expect_refused(_metadata, far[i], when[round]);
		xcomp_expect_masks(_metadata, &self->perm, when[round]);
	}
}

/*
 * Verify the masks of a process that has asked for nothing, that a host request
 * changes the host's mask, by XTILE_DATA alone, and leaves the guest's alone,
 * and that asking again gives the same answer and changes nothing.
 */
TEST_F(xcomp_perm, host_then_guest)
{
	int i;

	xcomp_expect_masks(_metadata, &self->perm, "with nothing asked for");
	for (i = 0; i < 3; i++)
		xcomp_request_host(_metadata, &self->perm);
	for (i = 0; i < 3; i++)
		xcomp_request_guest(_metadata, &self->perm);
	xcomp_request_host(_metadata, &self->perm);
}

/* Verify that a guest request does not bring the host's permission, either. */
TEST_F(xcomp_perm, guest_then_host)
{
	xcomp_request_guest(_metadata, &self->perm);
	xcomp_request_host(_metadata, &self->perm);
	xcomp_request_guest(_metadata, &self->perm);
}

static void expect_bad_pointer(struct __test_metadata *const _metadata, const char *what, void *p)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(gets); i++)
		EXPECT_ERRNO(EFAULT, get_at(gets[i].option, p), "%s to %s (%p)", gets[i].name,
			     what, p);
}

/* Verify that a mask is never written where the process must not write. */
TEST_F(xcomp_perm, bad_pointers)
{
	size_t i, page = sysconf(_SC_PAGESIZE);
	uint8_t *p = xf_guarded(4 * page, 0);
	const struct {
		const char *what;
		void *p;
	} bad[] = {
		{ "NULL", NULL },
		{ "end of the address space", (void *)-8l },
		{ "pointer that wraps around", (void *)-4l },
		{ "unmapped page", p + page },
		{ "page that is read-only", p + 2 * page },
		{ "page that is inaccessible", p + 3 * page },
		{ "mask that ends in an unmapped page", p + page - 4 },
		{ "mask that begins in an unmapped page", p + 2 * page - 4 },
#ifdef __x86_64__
		{ "kernel address", (void *)0xffffffff81000000ul },
		{ "kernel memory", (void *)0xffff888000000000ul },
		{ "non-canonical address", (void *)0x8000000000000000ul },
		{ "end of user space", (void *)0x7ffffffffffcul },
#endif
	};

	ASSERT_EQ(0, munmap(p + page, page));
	ASSERT_EQ(0, mprotect(p + 2 * page, page, PROT_READ));
	ASSERT_EQ(0, mprotect(p + 3 * page, page, PROT_NONE));
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		expect_bad_pointer(_metadata, bad[i].what, bad[i].p);
	xcomp_expect_masks(_metadata, &self->perm, "after EFAULT");
}

/*
 * Verify that a mask can be written to any address that is writable, across
 * pages as well, and is 8 bytes and not one more.
 */
TEST_F(xcomp_perm, pointers)
{
	size_t page = sysconf(_SC_PAGESIZE);
	uint8_t *p = xf_guarded(2 * page, 0), *q;
	uint64_t wanted, got;
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(gets); i++) {
		EXPECT_ERRNO(0, xf_get_mask(gets[i].option, &wanted), "%s", gets[i].name);
		for (j = 0; j <= 16; j++) {
			q = p + page - 8 + j;
			memset(p, 0x5a, 2 * page);
			EXPECT_ERRNO(0, get_at(gets[i].option, q), "%s to %p", gets[i].name, q);
			memcpy(&got, q, sizeof(got));
			EXPECT_SAME_MASK(xf_names, wanted, got, "%s to %p", gets[i].name, q);
			EXPECT_SAME(0x5a5a, q[-1] << 8 | q[8], "%s: bytes around %p", gets[i].name,
				    q);
		}
		EXPECT_ERRNO(0, get_at(gets[i].option, p + 2 * page - 8),
			     "%s to the last 8 bytes before what is inaccessible", gets[i].name);
	}
}

/* Verify that the options around the known ones do nothing. */
TEST_F(xcomp_perm, options)
{
	uint64_t mask = ~UINT64_C(0);
	int i;

	for (i = 0x1020; i < 0x1030; i++) {
		if (i >= ARCH_GET_XCOMP_SUPP && i <= ARCH_REQ_XCOMP_GUEST_PERM)
			continue;
		EXPECT_ERRNO(EINVAL, get_at(i, &mask), "option %#x", i);
		EXPECT_ERRNO(EINVAL, xf_request(i, XFEATURE_XTILE_DATA),
			     "option %#x for XTILE_DATA", i);
	}
	EXPECT_SAME(~UINT64_C(0), mask, "what an unknown option would write");
	xcomp_expect_masks(_metadata, &self->perm, "after unknown options");
}

static void ask_at_once(struct __test_metadata *const _metadata, void *option)
{
	pthread_barrier_wait(&barrier);
	xcomp_expect_request(_metadata, *(int *)option, XFEATURE_XTILE_DATA,
			     xf_has_amx() ? 0 : EOPNOTSUPP, "by one of many threads");
}

static void ask_by_many(struct __test_metadata *const _metadata, void *arg)
{
	static int options[] = { ARCH_REQ_XCOMP_PERM, ARCH_REQ_XCOMP_GUEST_PERM };
	const struct xcomp_perm granted = { xf_has_amx(), xf_has_amx() };
	struct xcomp_thread askers[NR_ASKERS];
	int i;

	(void)arg;
	pthread_barrier_init(&barrier, NULL, NR_ASKERS);
	for (i = 0; i < NR_ASKERS; i++)
		xcomp_start_thread(_metadata, &askers[i], ask_at_once, &options[i & 1]);
	for (i = 0; i < NR_ASKERS; i++)
		xcomp_join_thread(_metadata, &askers[i], "one of many threads");
	xcomp_expect_masks(_metadata, &granted, "after requests at the same time");
}

/* Verify that all of many threads that ask at once are granted all, time and again. */
TEST_F(xcomp_perm, concurrent)
{
	int i;

	for (i = 0; i < 12 && !_metadata->exit_code; i++)
		xf_in_child(_metadata, "a process of many threads", ask_by_many, NULL);
}

static void look_when_told(struct __test_metadata *const _metadata, void *perm)
{
	pthread_barrier_wait(&barrier);
	xcomp_expect_masks(_metadata, perm, "in a thread that was there before");
}

static void look(struct __test_metadata *const _metadata, void *perm)
{
	xcomp_expect_masks(_metadata, perm, "in a new thread");
}

/* All threads see what @ask was granted, whether they were there before or not. */
static void expect_shared(struct __test_metadata *const _metadata, xf_fn ask,
			  struct xcomp_perm *perm)
{
	struct xcomp_thread witness;

	pthread_barrier_init(&barrier, NULL, 2);
	xcomp_start_thread(_metadata, &witness, look_when_told, perm);
	ask(_metadata, perm);
	xcomp_expect_masks(_metadata, perm, "in the leader");
	pthread_barrier_wait(&barrier);
	xcomp_join_thread(_metadata, &witness, "the thread that was there before");
	xcomp_in_thread(_metadata, "a new thread", look, perm);
}

/* Verify that what the leader is granted is granted to its threads. */
TEST_F(xcomp_perm, leader)
{
	expect_shared(_metadata, ask_both, &self->perm);
}

static void ask_in_thread(struct __test_metadata *const _metadata, void *perm)
{
	xcomp_in_thread(_metadata, "a thread that asks", ask_both, perm);
}

/* Verify that a thread asks for the whole process, and that this outlives the thread. */
TEST_F(xcomp_perm, thread)
{
	expect_shared(_metadata, ask_in_thread, &self->perm);
}

/*
 * Wait until this process is as @line of its status says: its leader is a zombie, or
 * another thread has left, for which it takes a while after its end.  No PID goes into
 * that: /proc may have those of another namespace.
 */
static bool status_says(const char *line)
{
	const struct timespec nap = { .tv_nsec = 1000 * 1000 };
	char status[4096];
	int i;

	for (i = 0; i < 5000; i++) {
		if (xf_read_file("/proc/self/status", status, sizeof(status)) > 0 &&
		    strstr(status, line))
			return true;
		nanosleep(&nap, NULL);
	}
	return false;
}

static void ask_without_leader(struct __test_metadata *const _metadata, void *perm)
{
	EXPECT_THAT(status_says("\nState:\tZ"), "the leader has not become a zombie within 5 s");
	xcomp_expect_masks(_metadata, perm, "without a leader");
	ask_both(_metadata, perm);
	xf_exit();
}

static void leave_thread(struct __test_metadata *const _metadata, void *arg)
{
	/* Not on the stack that the leader leaves */
	static struct xcomp_thread thread;
	static struct xcomp_perm perm;

	(void)arg;
	xcomp_start_thread(_metadata, &thread, ask_without_leader, &perm);
	pthread_exit(NULL);
}

/* Verify that a process whose leader has ended can still ask and be told. */
TEST_F(xcomp_perm, exited_leader)
{
	xf_in_child(_metadata, "a process without a leader", leave_thread, NULL);
}

/* What a child or a new program finds for host and guest, for its parent to judge */
struct found {
	uint64_t supp, before[2], after[2];
	int never[2][ARRAY_SIZE(never)], error[2];
};

/*
 * A child on its parent's memory must not print.  It shares errno as well, which
 * is harmless as no call of its parent fails meanwhile.
 */
static int find(void *arg)
{
	struct found *f = arg;
	unsigned int i, j;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	xf_get_mask(ARCH_GET_XCOMP_SUPP, &f->supp);
	for (i = 0; i < 2; i++)
		for (j = 0; j < ARRAY_SIZE(never); j++)
			f->never[i][j] = xf_request(perms[i].request, never[j]);
	for (i = 0; i < 2; i++)
		xf_get_mask(perms[i].get, &f->before[i]);
	for (i = 0; i < 2; i++)
		f->error[i] = xf_request(perms[i].request, XFEATURE_XTILE_DATA);
	for (i = 0; i < 2; i++)
		xf_get_mask(perms[i].get, &f->after[i]);
	return 0;
}

/* It starts with what is in @perm, and is granted the rest, and nothing else. */
static void expect_found(struct __test_metadata *const _metadata, const struct found *f,
			 const struct xcomp_perm *perm, const char *whose)
{
	unsigned int i, j;

	EXPECT_SAME_MASK(xf_names, xf_xcr0() | XFEATURE_MASK_FPSSE, f->supp,
			 "ARCH_GET_XCOMP_SUPP of %s", whose);
	for (i = 0; i < 2; i++) {
		for (j = 0; j < ARRAY_SIZE(never); j++)
			EXPECT_ERRNO(refusal(never[j]), f->never[i][j],
				     "%s request of %s for component %lu", perms[i].name, whose,
				     never[j]);
		EXPECT_SAME_MASK(xf_names, xf_permitted(i ? perm->guest : perm->host), f->before[i],
				 "%s permission that %s starts with", perms[i].name, whose);
		EXPECT_ERRNO(xf_has_amx() ? 0 : EOPNOTSUPP, f->error[i], "%s request of %s",
			     perms[i].name, whose);
		EXPECT_SAME_MASK(xf_names, xf_permitted(xf_has_amx()), f->after[i],
				 "%s permission of %s", perms[i].name, whose);
	}
}

/* A child made by clone() with @flags has a copy of its parent's permissions. */
static void expect_copied(struct __test_metadata *const _metadata, struct xcomp_perm *perm,
			  int flags, const char *whose)
{
	static uint8_t stack[CHILD_STACK];
	struct found *f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	ASSERT_TRUE(f != MAP_FAILED);
	fflush(stdout);
	pid = clone(find, stack + CHILD_STACK, flags | SIGCHLD, f);
	if (!EXPECT_THAT(pid > 0, "clone(): %s", strerror(errno)))
		return;
	xf_join(_metadata, pid, whose);
	expect_found(_metadata, f, perm, whose);
	xcomp_expect_masks(_metadata, perm, "once a child has asked");
}

/* The same with neither permission, with the guest's, and with both */
static void expect_inherited(struct __test_metadata *const _metadata, struct xcomp_perm *perm,
			     int flags)
{
	expect_copied(_metadata, perm, flags, "a child that asks first");
	xcomp_request_guest(_metadata, perm);
	expect_copied(_metadata, perm, flags, "a child after the guest's request");
	xcomp_request_host(_metadata, perm);
	expect_copied(_metadata, perm, flags, "a child after both requests");
}

/* Verify that a child has a copy of both permissions, and only a copy. */
TEST_F(xcomp_perm, fork)
{
	expect_inherited(_metadata, &self->perm, 0);
}

/* Verify the same of vfork(). */
TEST_F(xcomp_perm, vfork)
{
	expect_inherited(_metadata, &self->perm, CLONE_VFORK | CLONE_VM);
}

/* Verify the same of a child that shares all but signal handlers. */
TEST_F(xcomp_perm, clone_vm)
{
	expect_inherited(_metadata, &self->perm, CLONE_VM | CLONE_FILES | CLONE_FS);
}

static void fork_in_thread(struct __test_metadata *const _metadata, void *perm)
{
	expect_inherited(_metadata, perm, 0);
}

/* Verify that a child of a thread gets what the process has. */
TEST_F(xcomp_perm, fork_by_thread)
{
	xcomp_in_thread(_metadata, "the thread that forks", fork_in_thread, &self->perm);
}

static void after_exec(int fd)
{
	struct found f;

	find(&f);
	if (write(fd, &f, sizeof(f)) != sizeof(f))
		perror("write");
}

/* All that was asked for before @fn executes the program has to be gone. */
static void expect_new_program(struct __test_metadata *const _metadata, xf_fn fn,
			       struct xcomp_perm *perm)
{
	const struct xcomp_perm none = { 0 };
	struct found f;

	xcomp_in_new_program(_metadata, "the new program", fn, perm, &f, sizeof(f));
	expect_found(_metadata, &f, &none, "the new program");
}

/* Verify that execve() takes both permissions away, and they can be had anew. */
TEST_F(xcomp_perm, exec)
{
	expect_new_program(_metadata, ask_both, &self->perm);
}

static void exec_in_thread(struct __test_metadata *const _metadata, void *perm)
{
	ask_both(_metadata, perm);
	xcomp_in_thread(_metadata, "the thread that executes", xcomp_exec, NULL);
}

/* Verify the same of an execve() by another thread than the leader. */
TEST_F(xcomp_perm, exec_by_thread)
{
	expect_new_program(_metadata, exec_in_thread, &self->perm);
}

static void spawn(struct __test_metadata *const _metadata, void *perm)
{
	char *args[2] = { program_invocation_name };
	pid_t pid;

	ask_both(_metadata, perm);
	fflush(stdout);
	if (EXPECT_ERRNO(0, posix_spawn(&pid, "/proc/self/exe", NULL, NULL, args, environ),
			 "posix_spawn()"))
		xf_join(_metadata, pid, "the program that was spawned");
	xcomp_expect_masks(_metadata, perm, "after posix_spawn()");
	xf_exit();
}

/* Verify the same of posix_spawn(), which leaves its caller what that has. */
TEST_F(xcomp_perm, posix_spawn)
{
	expect_new_program(_metadata, spawn, &self->perm);
}

/*
 * The rule that goes with the host's permission: no thread may have an alternate
 * signal stack that is too small for a frame with XTILE_DATA.  The guest's
 * permission puts nothing into frames and has no such rule.
 */
FIXTURE(xcomp_altstack)
{
	struct xcomp_perm perm;
	size_t min;	/* the size that the kernel asks programs to use */
};

FIXTURE_SETUP(xcomp_altstack)
{
	if (!begin(_metadata, variant))
		return;
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	self->min = getauxval(AT_MINSIGSTKSZ);
	ASSERT_TRUE(EXPECT_THAT(self->min, "AMX, but no AT_MINSIGSTKSZ"));
}

FIXTURE_TEARDOWN(xcomp_altstack)
{
	xcomp_end(_metadata);
}

/*
 * 0 or the errno of a sigaltstack() of @size bytes, or without one if 0. The
 * kernel does not look at the size of one that is set up already.
 */
static int altstack(size_t size)
{
	static uint8_t *memory;
	stack_t none = { .ss_flags = SS_DISABLE };
	stack_t ss = { .ss_size = size };

	if (!memory)
		memory = xf_guarded(getauxval(AT_MINSIGSTKSZ) + 4096, 0);
	ss.ss_sp = memory;
	if (sigaltstack(&none, NULL))
		return errno;
	return size && sigaltstack(&ss, NULL) ? errno : 0;
}

/* A host request with a signal stack of @size must answer @wanted. */
static void expect_request_on(struct __test_metadata *const _metadata, struct xcomp_perm *perm,
			      size_t size, int wanted)
{
	char when[64];

	snprintf(when, sizeof(when), "with a signal stack of %zu bytes", size);
	EXPECT_ERRNO(0, altstack(size), "sigaltstack() of %zu bytes", size);
	xcomp_expect_request(_metadata, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA, wanted, when);
	perm->host = !wanted;
	xcomp_expect_masks(_metadata, perm, when);
}

/*
 * Verify that a host request is refused on a signal stack of one byte less
 * than AT_MINSIGSTKSZ, and granted on one of just that size.
 */
TEST_F(xcomp_altstack, request)
{
	expect_request_on(_metadata, &self->perm, self->min - 1, ENOSPC);
	/* With strict_sas_size such a small one cannot be set up at all. */
	if (!altstack(XCOMP_OLD_MINSIGSTKSZ))
		expect_request_on(_metadata, &self->perm, XCOMP_OLD_MINSIGSTKSZ, ENOSPC);
	expect_request_on(_metadata, &self->perm, self->min, 0);
}

/* Verify that a signal stack that was taken away counts no more. */
TEST_F(xcomp_altstack, disabled)
{
	expect_request_on(_metadata, &self->perm, self->min - 1, ENOSPC);
	expect_request_on(_metadata, &self->perm, 0, 0);
}

static void sleep_on_small(struct __test_metadata *const _metadata, void *arg)
{
	size_t size = *(size_t *)arg;

	EXPECT_ERRNO(0, altstack(size), "sigaltstack() of a thread, of %zu bytes", size);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
}

/* Verify that another thread's signal stack counts while it lives, whoever asks. */
TEST_F(xcomp_altstack, thread)
{
	size_t size = self->min - 1;
	struct xcomp_thread thread;

	pthread_barrier_init(&barrier, NULL, 2);
	xcomp_start_thread(_metadata, &thread, sleep_on_small, &size);
	pthread_barrier_wait(&barrier);
	expect_request_on(_metadata, &self->perm, 0, ENOSPC);
	pthread_barrier_wait(&barrier);
	xcomp_join_thread(_metadata, &thread, "the thread with a small signal stack");
	EXPECT_THAT(status_says("\nThreads:\t1\n"), "the thread has not gone within 5 s");
	expect_request_on(_metadata, &self->perm, 0, 0);
}

/*
 * With the permission: sizes up to that of the XSAVE area alone are refused,
 * AT_MINSIGSTKSZ and more is taken, and there is one boundary between them.
 */
static void expect_boundary(struct __test_metadata *const _metadata, void *arg)
{
	size_t area = xf_standard_size(xf_xcr0()), min = getauxval(AT_MINSIGSTKSZ);
	const char *who = arg;
	size_t size, taken;

	EXPECT_THAT(min > area, "%s: AT_MINSIGSTKSZ of %zu, an XSAVE area of %zu bytes", who, min,
		    area);
	EXPECT_ERRNO(ENOMEM, altstack(XCOMP_OLD_MINSIGSTKSZ), "%s: sigaltstack() of 2 KiB", who);
	EXPECT_ERRNO(ENOMEM, altstack(area), "%s: sigaltstack() as large as the XSAVE area", who);
	EXPECT_ERRNO(0, altstack(min), "%s: sigaltstack() of AT_MINSIGSTKSZ", who);
	EXPECT_ERRNO(0, altstack(min + 1), "%s: sigaltstack() of one byte more", who);
	for (size = area; size <= min && altstack(size); size++)
		;
	taken = size;
	while (size <= min && !altstack(size))
		size++;
	EXPECT_SAME(min + 1, size, "%s: least sigaltstack() that is refused although %zu is taken",
		    who, taken);
	EXPECT_ERRNO(0, altstack(0), "%s: sigaltstack() that disables", who);
}

/*
 * Verify that who has the host's permission cannot set up a signal stack that
 * is too small, and can set up one of AT_MINSIGSTKSZ; neither can its threads
 * nor its children.
 */
TEST_F(xcomp_altstack, after)
{
	xcomp_request_host(_metadata, &self->perm);
	expect_boundary(_metadata, "the process");
	xcomp_in_thread(_metadata, "a thread", expect_boundary, "a thread");
	xf_in_child(_metadata, "a child", expect_boundary, "a child");
}

/*
 * Verify that sigaltstack() takes no stack under the permission on which the
 * permission would have been refused.  Known kernels take those that have no room
 * for what is in a frame besides the area: FSAVE's registers are not in frames of
 * a kernel without 32-bit programs.
 */
TEST_F(xcomp_altstack, same_limit)
{
	size_t size = xf_standard_size(xf_xcr0()), known = self->min - FP_XSTATE_MAGIC2_SIZE + 1;

	xcomp_request_host(_metadata, &self->perm);
	while (size < self->min && altstack(size))
		size++;
	XFAIL_IF(size == known || size == known - FREGS_SIZE,
		 "sigaltstack() takes less than the request for the permission")
		EXPECT_SAME(self->min, size, "least sigaltstack() under the permission");
}

/*
 * Verify that a guest request is granted on any signal stack, and that any
 * signal stack can be set up after it that could be before.
 */
TEST_F(xcomp_altstack, guest)
{
	static const size_t sizes[] = { XCOMP_OLD_MINSIGSTKSZ, 4096, 8192 };
	int before[ARRAY_SIZE(sizes)];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		before[i] = altstack(sizes[i]);
	if (altstack(XCOMP_OLD_MINSIGSTKSZ))
		EXPECT_ERRNO(0, altstack(self->min - 1), "sigaltstack() of %zu bytes",
			     self->min - 1);
	xcomp_request_guest(_metadata, &self->perm);
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		EXPECT_ERRNO(before[i], altstack(sizes[i]),
			     "sigaltstack() of %zu bytes after a guest request", sizes[i]);
}

XCOMP_EXEC_HARNESS_MAIN(after_exec)
