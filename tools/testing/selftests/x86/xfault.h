/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A kernel that runs out of memory at a chosen moment: the n-th allocation, or copy from or
 * to user space, that a task causes from now on fails, by fail-nth in /proc.  Each is made
 * to fail in turn, in a child of its own, until there are no more.
 */
#ifndef SELFTESTS_X86_XFAULT_H
#define SELFTESTS_X86_XFAULT_H

#include "xfeature.h"

/* One fault of one task */
struct xfault {
	int fd;				/* its fail-nth */
	char nth[16];
	size_t len;			/* of that */
	bool armed;
	bool injected;			/* what it was armed for has failed */
	bool noticed;			/* and so has the call: for the caller to say */
};

/* What is to fail */
struct xfault_call {
	const char *what;
	/* Prepare it, xfault_arm(), let it fail, xfault_disarm(), see what has become of it. */
	void (*try)(struct __test_metadata *const _metadata, struct xfault *f, const void *arg);
	const void *arg;
	unsigned int least;		/* so often it must fail */
	bool here;			/* in this process, not in a child for each fault */
	unsigned int step;		/* look for what is left at each so many'th fault */
};

bool xfault_need(struct __test_metadata *const _metadata);
void xfault_end(struct __test_metadata *const _metadata);
void xfault_walk(struct __test_metadata *const _metadata, const struct xfault_call *call);
void xfault_expect_freed(struct __test_metadata *const _metadata, const struct xfault_call *call);

/* Neither changes any register but those of the calling convention, nor errno. */
INTEGER_ONLY void xfault_arm(struct xfault *f);
INTEGER_ONLY void xfault_disarm(struct xfault *f);

/* The call has returned @error: if that is one, there was a fault and it is one for that. */
void xfault_expect_errno(struct __test_metadata *const _metadata, struct xfault *f, int error,
			 const char *what);

#endif /* SELFTESTS_X86_XFAULT_H */
