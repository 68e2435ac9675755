/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A page that is not there until the kernel asks for it. Whoever touches it
 * sleeps, and other tasks run, as another thread has to provide the page.
 */
#ifndef SELFTESTS_X86_XCOMP_UFFD_H
#define SELFTESTS_X86_XCOMP_UFFD_H

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "xcomp_host.h"

#define XCOMP_PAGE	4096

struct xcomp_away {
	int uffd;
	uint8_t *page;
	uint8_t content[XCOMP_PAGE];
	bool given_back;
	pthread_t thread;
};

static inline void *xcomp_give_back(void *arg)
{
	struct xcomp_away *a = arg;
	struct uffdio_copy copy = {
		.dst = (unsigned long)a->page,
		.src = (unsigned long)a->content,
		.len = XCOMP_PAGE,
	};
	struct uffd_msg msg;

	if (read(a->uffd, &msg, sizeof(msg)) == sizeof(msg) &&
	    msg.event == UFFD_EVENT_PAGEFAULT)
		a->given_back = !ioctl(a->uffd, UFFDIO_COPY, &copy);
	return NULL;
}

/* Watch @page, for faults of the kernel too. Fails where that is forbidden. */
static inline bool xcomp_watch(struct xcomp_away *a, uint8_t *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (unsigned long)page, XCOMP_PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	a->page = page;
	a->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	return a->uffd >= 0 && !ioctl(a->uffd, UFFDIO_API, &api) &&
	       !ioctl(a->uffd, UFFDIO_REGISTER, &reg);
}

/* From now on there is someone to give the page back, once. */
static inline bool xcomp_wait_for_fault(struct xcomp_away *a)
{
	return !pthread_create(&a->thread, NULL, xcomp_give_back, a);
}

/* Whether somebody had to wait for the page */
static inline bool xcomp_was_waited_for(struct xcomp_away *a)
{
	if (!a->given_back)
		pthread_cancel(a->thread);
	pthread_join(a->thread, NULL);
	return a->given_back;
}

#endif /* SELFTESTS_X86_XCOMP_UFFD_H */
