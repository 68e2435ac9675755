/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A check of the PASID of a task whose sigreturn() has to wait for the memory of
 * its frame. Other tasks run meanwhile, so that supervisor state, which is not
 * in the frame, has to be loaded anew along with what is.
 */
#ifndef SELFTESTS_X86_XSTATE_PASID_SIGNAL_H
#define SELFTESTS_X86_XSTATE_PASID_SIGNAL_H

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <ucontext.h>

#include "xstate_pasid.h"

#define PASID_PAGE	4096

/* The page with the XSAVE area of the frame, and what was in it */
static struct {
	int uffd;
	uint8_t *page;
	uint8_t content[PASID_PAGE];
	bool taken;
	bool given_back;
} pasid_frame;

/* Give the page back when the kernel asks for it. */
static inline void *pasid_give_back(void *arg)
{
	struct uffdio_copy copy = {
		.dst = (unsigned long)pasid_frame.page,
		.src = (unsigned long)pasid_frame.content,
		.len = PASID_PAGE,
	};
	struct uffd_msg msg;

	(void)arg;
	if (read(pasid_frame.uffd, &msg, sizeof(msg)) == sizeof(msg) &&
	    msg.event == UFFD_EVENT_PAGEFAULT)
		pasid_frame.given_back =
			!ioctl(pasid_frame.uffd, UFFDIO_COPY, &copy);
	return NULL;
}

/* Take the page away from below the frame. */
static inline void pasid_take_away(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	if ((uint8_t *)uc->uc_mcontext.fpregs != pasid_frame.page)
		return;
	memcpy(pasid_frame.content, pasid_frame.page, PASID_PAGE);
	pasid_frame.taken = !madvise(pasid_frame.page, PASID_PAGE,
				     MADV_DONTNEED);
}

static inline bool pasid_watch_page(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (unsigned long)pasid_frame.page, PASID_PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	pasid_frame.uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	return pasid_frame.uffd >= 0 &&
	       !ioctl(pasid_frame.uffd, UFFDIO_API, &api) &&
	       !ioctl(pasid_frame.uffd, UFFDIO_REGISTER, &reg);
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
	pthread_t thread;
	stack_t ss;

	ss = (stack_t){ .ss_size = 16 * PASID_PAGE + size + 4 };
	ss.ss_sp = pasid_frame.page - 16 * PASID_PAGE;
	errno = pthread_create(&thread, NULL, pasid_give_back, NULL);
	if (errno || sigaltstack(&ss, NULL) ||
	    sigaction(SIGUSR1, &action, NULL) || raise(SIGUSR1))
		return xcomp_error(x, "taking a signal");
	if (!xcomp_same(x, "the frame was taken away", true,
			pasid_frame.taken)) {
		pthread_cancel(thread);
		return KSFT_FAIL;
	}
	pthread_join(thread, NULL);
	return xcomp_verdict(xcomp_same(x, "and given back", true,
					pasid_frame.given_back));
}

static inline int pasid_prepare_frame(struct xcomp *x)
{
	uint8_t *p = mmap(NULL, 18 * PASID_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return xcomp_error(x, "mmap");
	pasid_frame.page = p + 16 * PASID_PAGE;
	memset(p, 0, 18 * PASID_PAGE);
	if (!pasid_watch_page())
		return xcomp_skip(x, "no userfaultfd");
	return KSFT_PASS;
}

static inline int pasid_check_sigreturn_waits(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_frame, pasid_wait_in_sigreturn,
			   "sigreturn() puts the PASID back");
}

#endif /* SELFTESTS_X86_XSTATE_PASID_SIGNAL_H */
