/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A check of the PASID of a task whose sigreturn() has to wait for the memory of
 * its frame. Other tasks run meanwhile, so that supervisor state, which is not
 * in the frame, has to be loaded anew along with what is.
 */
#ifndef SELFTESTS_X86_XSTATE_PASID_SIGNAL_H
#define SELFTESTS_X86_XSTATE_PASID_SIGNAL_H

#include <ucontext.h>

#include "xcomp_uffd.h"
#include "xstate_pasid.h"

#define PASID_STACK_PAGES	16

/* The page with the XSAVE area of the frame */
static struct xcomp_away pasid_frame;

/* Take the page away from below the frame. */
static inline void pasid_take_away(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	if ((uint8_t *)uc->uc_mcontext.fpregs != pasid_frame.page)
		return;
	memcpy(pasid_frame.content, pasid_frame.page, XCOMP_PAGE);
	madvise(pasid_frame.page, XCOMP_PAGE, MADV_DONTNEED);
}

/*
 * Take a signal on a stack that puts the XSAVE area, and nothing but it, at the
 * start of a page.
 */
static inline int pasid_wait_in_sigreturn(struct xcomp *x)
{
	uint32_t size = xf_standard_size(xf_xcr0() & ~XF_BIT(XF_XTILE_DATA));
	struct sigaction action = {
		.sa_sigaction = pasid_take_away,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	stack_t ss = {
		.ss_sp = pasid_frame.page - PASID_STACK_PAGES * XCOMP_PAGE,
		/* The area has four bytes behind it. */
		.ss_size = PASID_STACK_PAGES * XCOMP_PAGE + size + 4,
	};

	if (!xcomp_wait_for_fault(&pasid_frame) || sigaltstack(&ss, NULL) ||
	    sigaction(SIGUSR1, &action, NULL) || raise(SIGUSR1))
		return xcomp_error(x, "taking a signal");
	return xcomp_verdict(xcomp_same(x, "sigreturn() waited for its frame",
					true,
					xcomp_was_waited_for(&pasid_frame)));
}

static inline int pasid_prepare_frame(struct xcomp *x)
{
	size_t size = (PASID_STACK_PAGES + 2) * XCOMP_PAGE;
	uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return xcomp_error(x, "mmap");
	memset(p, 0, size);
	if (!xcomp_watch(&pasid_frame, p + PASID_STACK_PAGES * XCOMP_PAGE))
		return xcomp_skip(x, "no userfaultfd");
	return KSFT_PASS;
}

static inline int pasid_check_sigreturn_waits(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_frame, pasid_wait_in_sigreturn,
			   "sigreturn() puts the PASID back");
}

#endif /* SELFTESTS_X86_XSTATE_PASID_SIGNAL_H */
