/* SPDX-License-Identifier: GPL-2.0-only */
/* Pages that are not there until the kernel asks for them, in the order of their life */
#ifndef SELFTESTS_X86_XPAGE_H
#define SELFTESTS_X86_XPAGE_H

#include "xcomp.h"

#define XPAGE_SIZE	4096

#define XPAGE_NO_UFFD	"no userfaultfd"

struct xpage {
	uint8_t *page, *content;
	unsigned int nr;
	int uffd;
	/* So often somebody had to wait for one, and whether that still counts */
	unsigned int given_back;
	bool waits;
	pthread_t thread;
	struct __test_metadata *metadata;
};

bool xpage_watch(struct xpage *p, uint8_t *page, unsigned int nr);
void xpage_take_away(struct xpage *p);
void xpage_wait_for_fault(struct __test_metadata *const _metadata, struct xpage *p);
void xpage_expect_fault(struct __test_metadata *const _metadata, struct xpage *p,
			const char *who);

#endif /* SELFTESTS_X86_XPAGE_H */
