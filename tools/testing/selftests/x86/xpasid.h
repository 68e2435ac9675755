/* SPDX-License-Identifier: GPL-2.0-only */
/* IA32_PASID of the calling task */
#ifndef SELFTESTS_X86_XPASID_H
#define SELFTESTS_X86_XPASID_H

#include "xcomp.h"

/* Bits 19:0 are the PASID.  It is not marked valid. */
#define XPASID_MINE	0x12345
#define XPASID_THEIRS	0xabcde

bool xpasid_need(struct __test_metadata *const _metadata);
uint64_t xpasid_read(struct __test_metadata *const _metadata);
void xpasid_write(struct __test_metadata *const _metadata, uint64_t value);
void xpasid_give(struct __test_metadata *const _metadata);
void xpasid_expect_kept(struct __test_metadata *const _metadata, const char *when);

#endif /* SELFTESTS_X86_XPASID_H */
