/* SPDX-License-Identifier: GPL-2.0-only */
/* A page that is not there until the kernel asks for it, in the order of its life */
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

bool xpage_watch(struct xpage *p, uint8_t *page);
void xpage_take_away(struct xpage *p);
void xpage_wait_for_fault(struct __test_metadata *const _metadata, struct xpage *p);
void xpage_expect_fault(struct __test_metadata *const _metadata, struct xpage *p,
			const char *who);

#endif /* SELFTESTS_X86_XPAGE_H */
