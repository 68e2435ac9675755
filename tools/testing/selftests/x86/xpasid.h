/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * IA32_PASID of the calling task, by the msr driver: only an ENQCMD with shared
 * virtual addressing makes the kernel write it, for which few machines have the
 * devices.  On the task's own CPU, with the task's state in the registers, it
 * becomes part of that state.
 */
#ifndef SELFTESTS_X86_XPASID_H
#define SELFTESTS_X86_XPASID_H

#include "xcomp.h"

/* Bits 19:0 are the PASID.  It is not marked valid, so that ENQCMD would refuse it. */
#define XPASID_MINE	0x12345
#define XPASID_THEIRS	0xabcde

/*
 * Stay on this CPU and open its MSRs.  Where there is no PASID state, or only
 * root can tell, the test is skipped, and this is false.
 */
bool xpasid_need(struct __test_metadata *const _metadata);

uint64_t xpasid_read(struct __test_metadata *const _metadata);
void xpasid_write(struct __test_metadata *const _metadata, uint64_t value);

/*
 * Give this task XPASID_MINE, in the register alone: its fpstate in memory has
 * XPASID_THEIRS, which shows if that is what is kept.
 */
void xpasid_give(struct __test_metadata *const _metadata);

/* Now, and once other tasks have run, the PASID is the one that was given. */
void xpasid_expect_kept(struct __test_metadata *const _metadata, const char *when);

#endif /* SELFTESTS_X86_XPASID_H */
