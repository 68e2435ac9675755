// SPDX-License-Identifier: GPL-2.0-only
/*
 * arch_prctl(2) for AMX: ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM,
 * ARCH_REQ_XCOMP_PERM and the two of them for guests. What can be asked for,
 * what is answered, to whom a permission belongs, and what takes it away.
 *
 * It runs on every x86 CPU, as root or not: without AMX requests are refused,
 * which is as much a promise as that they are granted. The checks are here and
 * in xcomp_perm_tasks.h, xcomp_perm_lock.h and xcomp_perm_altstack.h.
 */
#define _GNU_SOURCE

#include <limits.h>
#include <linux/futex.h>

#include "xcomp_perm_altstack.h"
#include "xcomp_perm_lock.h"
#include "xcomp_perm_tasks.h"

/* All kernels know the components up to XTILE_DATA, newer ones know APX (19) */
#define LAST_KNOWN	XF_XTILE_DATA
#define MAYBE_KNOWN	19

#define NR_ASKERS	8

static const int gets[] = {
	ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM, ARCH_GET_XCOMP_GUEST_PERM,
};

/* Verify the masks of a process that has asked for nothing. */
static int check_initial(struct xcomp *x)
{
	return xcomp_verdict(xcomp_rule(x, xcomp_check_masks(x) == KSFT_PASS,
		"nothing is permitted that was not asked for, all else is"));
}

static bool refuses_number(struct xcomp *x, unsigned long nr)
{
	int host = xf_request(ARCH_REQ_XCOMP_PERM, nr);
	int guest = xf_request(ARCH_REQ_XCOMP_GUEST_PERM, nr);
	int wanted = nr <= LAST_KNOWN ? EOPNOTSUPP : EINVAL;
	char what[64];
	bool ok;

	/* Which of both it is tells kernels apart, but host and guest agree. */
	if (nr == MAYBE_KNOWN && host == EOPNOTSUPP)
		wanted = EOPNOTSUPP;
	snprintf(what, sizeof(what), "host request for component %lu", nr);
	ok = xcomp_same_errno(x, what, wanted, host);
	snprintf(what, sizeof(what), "guest request for component %lu", nr);
	return ok & xcomp_same_errno(x, what, wanted, guest);
}

/*
 * Verify that no component but XTILE_DATA can be asked for, with EOPNOTSUPP
 * for those that the kernel knows and EINVAL for all other numbers, also when
 * XTILE_DATA is granted, and that asking changes no mask.
 */
static int check_numbers(struct xcomp *x)
{
	static const unsigned long far[] = {
		64, 65, 64 + XF_XTILE_DATA, 1ul << XF_XTILE_DATA, INT_MAX,
		INT_MIN, ULONG_MAX, ULONG_MAX - XF_XTILE_DATA,
#ifdef __x86_64__
		1ul << 32, 1ul << 32 | XF_XTILE_DATA, 1ul << 63 | XF_XTILE_DATA,
#endif
	};
	bool ok = true;
	unsigned int i, round;

	for (round = 0; round < 2; round++) {
		for (i = 0; i < 64; i++)
			if (i != XF_XTILE_DATA)
				ok &= refuses_number(x, i);
		for (i = 0; i < ARRAY_SIZE(far); i++)
			ok &= refuses_number(x, far[i]);
		ok &= xcomp_check_masks(x) == KSFT_PASS;
		if (!round)
			ok &= xcomp_request(x, false) && xcomp_request(x, true);
	}
	return xcomp_verdict(xcomp_rule(x, ok,
		"only XTILE_DATA can be asked for, all else is refused"));
}

/*
 * Verify that a host request changes the host's mask, by XTILE_DATA alone, and
 * leaves the guest's alone; and the same the other way round.
 */
static int check_independent(struct xcomp *x, bool guest_first)
{
	bool ok = xcomp_check_masks(x) == KSFT_PASS;

	ok &= xcomp_request(x, guest_first);
	ok &= xcomp_request(x, !guest_first);
	return xcomp_verdict(xcomp_rule(x, ok,
		"host and guest permission do not depend on each other"));
}

static int check_host_then_guest(struct xcomp *x)
{
	return check_independent(x, false);
}

static int check_guest_then_host(struct xcomp *x)
{
	return check_independent(x, true);
}

/* Verify that asking again gives the same answer and changes nothing. */
static int check_repeated(struct xcomp *x)
{
	bool ok = true;
	int i;

	for (i = 0; i < 6; i++)
		ok &= xcomp_request(x, i >= 3);
	for (i = 0; i < 4; i++)
		ok &= xcomp_request(x, i & 1);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a request can be repeated and answers the same"));
}

static bool faults(struct xcomp *x, const char *what, void *p)
{
	unsigned int i;
	bool ok = true;
	int error;

	for (i = 0; i < ARRAY_SIZE(gets); i++) {
		error = syscall(SYS_arch_prctl, gets[i], p) ? errno : 0;
		ok &= xcomp_same_errno(x, what, EFAULT, error);
	}
	return ok;
}

/* Verify that a mask is never written where the process must not write. */
static int check_bad_pointers(struct xcomp *x)
{
	size_t page = sysconf(_SC_PAGESIZE);
	uint8_t *p = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok = true;

	if (p == MAP_FAILED || munmap(p + page, page) ||
	    mprotect(p + 2 * page, page, PROT_READ) ||
	    mprotect(p + 3 * page, page, PROT_NONE))
		return xcomp_error(x, "mmap");

	ok &= faults(x, "NULL", NULL);
	ok &= faults(x, "end of the address space", (void *)-8l);
	ok &= faults(x, "pointer that wraps around", (void *)-4l);
	ok &= faults(x, "unmapped page", p + page);
	ok &= faults(x, "page that is read-only", p + 2 * page);
	ok &= faults(x, "page that is inaccessible", p + 3 * page);
	ok &= faults(x, "mask that ends in an unmapped page", p + page - 4);
	ok &= faults(x, "mask that begins in an unmapped page", p + 2 * page - 4);
#ifdef __x86_64__
	ok &= faults(x, "kernel address", (void *)0xffffffff81000000ul);
	ok &= faults(x, "kernel memory", (void *)0xffff888000000000ul);
	ok &= faults(x, "non-canonical address", (void *)0x8000000000000000ul);
	ok &= faults(x, "end of user space", (void *)0x7ffffffffffcul);
#endif
	ok &= xcomp_check_masks(x) == KSFT_PASS;
	return xcomp_verdict(xcomp_rule(x, ok,
		"what cannot be written to gives EFAULT"));
}

/*
 * Verify that a mask can be written to any address that is writable, across
 * pages as well, and is 8 bytes and not one more.
 */
static int check_pointers(struct xcomp *x)
{
	size_t page = sysconf(_SC_PAGESIZE);
	uint8_t *p = xf_guarded(2 * page, 0), *q;
	uint64_t wanted, got;
	unsigned int i, j;
	bool ok = true;

	for (i = 0; i < ARRAY_SIZE(gets); i++) {
		ok &= !xf_get_mask(gets[i], &wanted);
		for (j = 0; j <= 16; j++) {
			q = p + page - 8 + j;
			memset(p, 0x5a, 2 * page);
			ok &= !syscall(SYS_arch_prctl, gets[i], q);
			memcpy(&got, q, sizeof(got));
			ok &= xcomp_same(x, "mask at an odd address", wanted,
					 got);
			ok &= xcomp_same(x, "bytes around it", 0x5a5a,
					 q[-1] << 8 | q[8]);
		}
		/* The last 8 bytes before what is inaccessible */
		ok &= !syscall(SYS_arch_prctl, gets[i], p + 2 * page - 8);
	}
	return xcomp_verdict(xcomp_rule(x, ok,
		"a mask is 8 bytes, at any address"));
}

/* Verify that the options around the known ones do nothing. */
static int check_options(struct xcomp *x)
{
	uint64_t mask = ~UINT64_C(0);
	bool ok = true;
	int i, error;

	for (i = 0x1020; i < 0x1030; i++) {
		if (i >= ARCH_GET_XCOMP_SUPP && i <= ARCH_REQ_XCOMP_GUEST_PERM)
			continue;
		error = syscall(SYS_arch_prctl, i, &mask) ? errno : 0;
		ok &= xcomp_same_errno(x, "unknown option", EINVAL, error);
		ok &= xcomp_same_errno(x, "unknown option and XTILE_DATA",
				       EINVAL, xf_request(i, XF_XTILE_DATA));
	}
	ok &= xcomp_same(x, "what was to be written", ~UINT64_C(0), mask);
	ok &= xcomp_check_masks(x) == KSFT_PASS;
	return xcomp_verdict(xcomp_rule(x, ok, "unknown options are refused"));
}

struct asker {
	pthread_barrier_t *start;
	bool guest;
	int error;
};

static void *ask_at_once(void *arg)
{
	struct asker *a = arg;

	pthread_barrier_wait(a->start);
	a->error = xf_request(a->guest ? ARCH_REQ_XCOMP_GUEST_PERM :
					 ARCH_REQ_XCOMP_PERM, XF_XTILE_DATA);
	return NULL;
}

/* Verify that all of many threads that ask at once are granted all. */
static int check_concurrent(struct xcomp *x)
{
	struct asker askers[NR_ASKERS];
	pthread_t threads[NR_ASKERS];
	pthread_barrier_t start;
	bool ok = true;
	int i;

	pthread_barrier_init(&start, NULL, NR_ASKERS);
	for (i = 0; i < NR_ASKERS; i++) {
		askers[i].start = &start;
		askers[i].guest = i & 1;
		errno = pthread_create(&threads[i], NULL, ask_at_once,
				       &askers[i]);
		if (errno)
			return xcomp_error(x, "pthread_create");
	}
	for (i = 0; i < NR_ASKERS; i++) {
		pthread_join(threads[i], NULL);
		ok &= xcomp_same_errno(x, "request of one of many threads",
				       xcomp_wanted_errno(x, askers[i].guest),
				       askers[i].error);
	}
	x->host_granted = x->have_amx;
	x->guest_granted = x->have_amx;
	ok &= xcomp_check_masks(x) == KSFT_PASS;
	return xcomp_verdict(xcomp_rule(x, ok,
		"requests at the same time do not get lost"));
}

static const struct xcomp_check checks[] = {
	{ "initial", check_initial },
	{ "numbers", check_numbers },
	{ "host_then_guest", check_host_then_guest },
	{ "guest_then_host", check_guest_then_host },
	{ "repeated", check_repeated },
	{ "bad_pointers", check_bad_pointers },
	{ "pointers", check_pointers },
	{ "options", check_options },
	{ "concurrent", check_concurrent },
	{ "thread", xcomp_check_thread },
	{ "leader", xcomp_check_leader },
	{ "exited_leader", xcomp_check_exited_leader },
	{ "fork", xcomp_check_fork },
	{ "fork_by_thread", xcomp_check_fork_by_thread },
	{ "vfork", xcomp_check_vfork },
	{ "clone_vm", xcomp_check_clone_vm },
	{ "exec", xcomp_check_exec },
	{ "exec_by_thread", xcomp_check_exec_by_thread },
	{ "posix_spawn", xcomp_check_posix_spawn },
	{ "altstack_request", xcomp_check_altstack_request },
	{ "altstack_disabled", xcomp_check_altstack_disabled },
	{ "altstack_thread", xcomp_check_altstack_thread },
	{ "altstack_after", xcomp_check_altstack_after },
	{ "altstack_same_limit", xcomp_check_altstack_same_limit },
	{ "altstack_guest", xcomp_check_altstack_guest },
	{ "vcpu_masks", xcomp_check_vcpu_masks },
	{ "lock", xcomp_check_lock },
	{ "lock_not_by_vm", xcomp_check_lock_not_by_vm },
	{ "lock_not_by_failure", xcomp_check_lock_not_by_failure },
	{ "lock_granted", xcomp_check_lock_granted },
	{ "lock_by_thread", xcomp_check_lock_by_thread },
	{ "lock_survives_close", xcomp_check_lock_survives_close },
	{ "lock_fork", xcomp_check_lock_fork },
	{ "lock_not_by_child", xcomp_check_lock_not_by_child },
	{ "lock_exec", xcomp_check_lock_exec },
	{ "lock_race", xcomp_check_lock_race },
};

static const struct xcomp_check *const after_exec[] = {
	&xcomp_exec_check, NULL,
};

/* The threads of a 32-bit C library need what COMPAT_32BIT_TIME provides. */
static bool no_threads(void)
{
	int word = 0;

	return syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0) < 0;
}

int main(int argc, char **argv)
{
	if (no_threads())
		ksft_exit_skip("no futex() for 32-bit programs\n");

	return xcomp_host_main(argc, argv, checks, ARRAY_SIZE(checks),
			       after_exec, false);
}
