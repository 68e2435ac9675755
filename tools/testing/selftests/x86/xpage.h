/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A page that is not there until the kernel asks for it.  Whoever touches it
 * sleeps, and other tasks run, as another thread has to provide the page.
 */
#ifndef SELFTESTS_X86_XPAGE_H
#define SELFTESTS_X86_XPAGE_H

#include "xcomp.h"

#define XPAGE_SIZE	4096

#define XPAGE_NO_UFFD	"no userfaultfd"

struct xpage {
	uint8_t *page;
	uint8_t content[XPAGE_SIZE];
	int uffd;
	bool given_back;
	pthread_t thread;
};

/* Watch @page, for faults of the kernel too; false where that is forbidden. */
bool xpage_watch(struct xpage *p, uint8_t *page);

/* Keep the content and take the page away; fit for a signal handler. */
void xpage_take_away(struct xpage *p);

/* From now on there is someone to give the page back, once ... */
void xpage_wait_for_fault(struct __test_metadata *const _metadata, struct xpage *p);
/* ... and by now somebody must have had to wait for it. */
void xpage_expect_fault(struct __test_metadata *const _metadata, struct xpage *p,
			const char *who);

#endif /* SELFTESTS_X86_XPAGE_H */
