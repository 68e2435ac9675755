/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checks of the rule that goes with the host's permission: no thread may have
 * an alternate signal stack that is too small for a frame with XTILE_DATA. The
 * guest's permission puts nothing into frames and has no such rule.
 */
#ifndef SELFTESTS_X86_XCOMP_PERM_ALTSTACK_H
#define SELFTESTS_X86_XCOMP_PERM_ALTSTACK_H

#include <sys/auxv.h>

#include "xcomp_perm_tasks.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ	51
#endif

/* What the kernel took as the least before frames grew; glibc's varies now. */
#define XCOMP_OLD_MINSIGSTKSZ	2048

/* The size that the kernel asks programs to use */
static inline size_t xcomp_minsigstksz(void)
{
	return getauxval(AT_MINSIGSTKSZ);
}

/*
 * 0 or the errno of a sigaltstack() of @size bytes, or without one if 0. The
 * kernel does not look at the size of one that is set up already.
 */
static inline int xcomp_altstack(size_t size)
{
	static uint8_t *memory;
	stack_t none = { .ss_flags = SS_DISABLE };
	stack_t ss = { .ss_size = size };

	if (!memory)
		memory = xf_guarded(xcomp_minsigstksz() + 4096, 0);
	ss.ss_sp = memory;
	if (sigaltstack(&none, NULL))
		return errno;
	return size && sigaltstack(&ss, NULL) ? errno : 0;
}

static inline int xcomp_altstack_missing(struct xcomp *x)
{
	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (!xcomp_minsigstksz())
		return xcomp_skip(x, "no AT_MINSIGSTKSZ");
	return KSFT_PASS;
}

/* A host request with a signal stack of @size must answer @wanted. */
static inline bool xcomp_request_on(struct xcomp *x, size_t size, int wanted)
{
	bool ok;

	ok = xcomp_same_errno(x, "sigaltstack()", 0, xcomp_altstack(size));
	ok &= xcomp_same_errno(x, "ARCH_REQ_XCOMP_PERM on that signal stack",
			       wanted,
			       xf_request(ARCH_REQ_XCOMP_PERM, XF_XTILE_DATA));
	x->host_granted = !wanted;
	return ok & (xcomp_check_masks(x) == KSFT_PASS);
}

/*
 * Verify that a host request is refused on a signal stack of one byte less
 * than AT_MINSIGSTKSZ, and granted on one of just that size.
 */
static inline int xcomp_check_altstack_request(struct xcomp *x)
{
	size_t min = xcomp_minsigstksz();
	int result = xcomp_altstack_missing(x);
	bool ok;

	if (result)
		return result;
	ok = xcomp_request_on(x, min - 1, ENOSPC);
	/* With strict_sas_size such a small one cannot be set up at all. */
	if (!xcomp_altstack(XCOMP_OLD_MINSIGSTKSZ))
		ok &= xcomp_request_on(x, XCOMP_OLD_MINSIGSTKSZ, ENOSPC);
	ok &= xcomp_request_on(x, min, 0);
	return xcomp_verdict(xcomp_rule(x, ok,
		"the host's permission takes a signal stack of AT_MINSIGSTKSZ, no less"));
}

/* Verify that a signal stack that was taken away counts no more. */
static inline int xcomp_check_altstack_disabled(struct xcomp *x)
{
	int result = xcomp_altstack_missing(x);
	bool ok;

	if (result)
		return result;
	ok = xcomp_request_on(x, xcomp_minsigstksz() - 1, ENOSPC);
	ok &= xcomp_request_on(x, 0, 0);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a signal stack that was disabled does not count"));
}

struct xcomp_sleeper {
	sem_t ready, leave;
	pid_t tid;
	int error;
};

static inline void *xcomp_sleep_on_small(void *arg)
{
	struct xcomp_sleeper *s = arg;

	s->tid = syscall(SYS_gettid);
	s->error = xcomp_altstack(xcomp_minsigstksz() - 1);
	sem_post(&s->ready);
	sem_wait(&s->leave);
	return NULL;
}

/* A thread that was joined may be about to leave the process for a while. */
static inline bool xcomp_thread_gone(pid_t tid)
{
	const struct timespec nap = { .tv_nsec = 1000 * 1000 };
	int i;

	for (i = 0; i < 5000; i++) {
		if (syscall(SYS_tgkill, getpid(), tid, 0))
			return errno == ESRCH;
		nanosleep(&nap, NULL);
	}
	return false;
}

/*
 * Verify that another thread's signal stack counts as long as that thread
 * lives, whoever asks.
 */
static inline int xcomp_check_altstack_thread(struct xcomp *x)
{
	int result = xcomp_altstack_missing(x);
	struct xcomp_sleeper s;
	pthread_t thread;
	bool ok;

	if (result)
		return result;
	sem_init(&s.ready, 0, 0);
	sem_init(&s.leave, 0, 0);
	errno = pthread_create(&thread, NULL, xcomp_sleep_on_small, &s);
	if (errno)
		return xcomp_error(x, "pthread_create");
	sem_wait(&s.ready);
	ok = xcomp_same_errno(x, "sigaltstack() of a thread", 0, s.error);
	ok &= xcomp_request_on(x, 0, ENOSPC);
	sem_post(&s.leave);
	pthread_join(thread, NULL);
	ok &= xcomp_same(x, "thread has ended", true, xcomp_thread_gone(s.tid));
	ok &= xcomp_request_on(x, 0, 0);
	return xcomp_verdict(xcomp_rule(x, ok,
		"the signal stacks of all threads count, while they live"));
}

/*
 * With the permission: sizes up to that of the XSAVE area alone are refused,
 * AT_MINSIGSTKSZ and more is taken, and there is one boundary between them.
 */
static inline bool xcomp_altstack_boundary(struct xcomp *x)
{
	size_t area = xf_standard_size(xf_xcr0()), min = xcomp_minsigstksz();
	size_t size, taken = 0;
	bool ok;

	ok = xcomp_same(x, "AT_MINSIGSTKSZ holds an XSAVE area", true,
			min > area);
	ok &= xcomp_same_errno(x, "sigaltstack() of 2 KiB", ENOMEM,
			       xcomp_altstack(XCOMP_OLD_MINSIGSTKSZ));
	ok &= xcomp_same_errno(x, "sigaltstack() of the size of the XSAVE area",
			       ENOMEM, xcomp_altstack(area));
	ok &= xcomp_same_errno(x, "sigaltstack() of AT_MINSIGSTKSZ", 0,
			       xcomp_altstack(min));
	ok &= xcomp_same_errno(x, "sigaltstack() of one byte more", 0,
			       xcomp_altstack(min + 1));
	for (size = area; size <= min; size++) {
		if (!xcomp_altstack(size))
			taken++;
		else
			ok &= xcomp_same(x, "larger than one that was taken",
					 0, taken);
	}
	ok &= xcomp_same_errno(x, "sigaltstack() that disables", 0,
			       xcomp_altstack(0));
	return ok;
}

static inline int xcomp_altstack_child(struct xcomp *x)
{
	return xcomp_verdict(xcomp_altstack_boundary(x));
}

static inline void *xcomp_altstack_in_thread(void *arg)
{
	struct xcomp_asker *a = arg;

	a->ok = xcomp_altstack_boundary(a->x);
	return NULL;
}

/*
 * Verify that who has the host's permission cannot set up a signal stack that
 * is too small, and can set up one of AT_MINSIGSTKSZ; neither can its threads
 * nor its children.
 */
static inline int xcomp_check_altstack_after(struct xcomp *x)
{
	int result = xcomp_altstack_missing(x);
	struct xcomp_asker a = { .x = x };
	bool ok;

	if (result)
		return result;
	ok = xcomp_request(x, false) && xcomp_altstack_boundary(x);
	ok &= xcomp_thread(x, xcomp_altstack_in_thread, &a) && a.ok;
	ok &= xcomp_sub(x, xcomp_altstack_child);
	return xcomp_verdict(xcomp_rule(x, ok,
		"no signal stack under the host's permission is too small"));
}

/*
 * Verify that sigaltstack() takes no stack under the permission on which the
 * permission would have been refused.
 */
static inline int xcomp_check_altstack_same_limit(struct xcomp *x)
{
	int result = xcomp_altstack_missing(x);
	size_t min = xcomp_minsigstksz(), size;

	if (result)
		return result;
	if (!xcomp_request(x, false))
		return KSFT_FAIL;
	for (size = xf_standard_size(xf_xcr0()); size < min; size++) {
		if (!xcomp_altstack(size))
			break;
	}
	if (xcomp_same(x, "least sigaltstack() under the permission", min, size))
		return KSFT_PASS;
	x->reason = "sigaltstack() takes less than the request for the permission";
	return KSFT_XFAIL;
}

/*
 * Verify that a guest request is granted on any signal stack, and that any
 * signal stack can be set up after it that could be before.
 */
static inline int xcomp_check_altstack_guest(struct xcomp *x)
{
	static const size_t sizes[] = { XCOMP_OLD_MINSIGSTKSZ, 4096, 8192 };
	int before[ARRAY_SIZE(sizes)], result = xcomp_altstack_missing(x);
	unsigned int i;
	bool ok = true;

	if (result)
		return result;
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		before[i] = xcomp_altstack(sizes[i]);
	if (xcomp_altstack(XCOMP_OLD_MINSIGSTKSZ))
		xcomp_altstack(xcomp_minsigstksz() - 1);
	ok &= xcomp_request(x, true);
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		ok &= xcomp_same_errno(x, "sigaltstack() after a guest request",
				       before[i], xcomp_altstack(sizes[i]));
	return xcomp_verdict(xcomp_rule(x, ok,
		"the guest's permission has no rule for signal stacks"));
}

#endif /* SELFTESTS_X86_XCOMP_PERM_ALTSTACK_H */
