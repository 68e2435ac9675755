// SPDX-License-Identifier: GPL-2.0-only
/*
 * IA32_PASID of the calling task, by the msr driver: only an ENQCMD with shared
 * virtual addressing makes the kernel write it, for which few machines have the
 * devices.  On the task's own CPU, with the task's state in the registers, it
 * becomes part of that state.
 */
#define _GNU_SOURCE

#include "xpasid.h"
#include "xregs.h"

#define WRITES		60

static int msrs = -1;

/*
 * Stay on this CPU and open its MSRs.  Where there is no PASID state, or only
 * root can tell, the test is skipped, and this is false.
 */
bool xpasid_need(struct __test_metadata *const _metadata)
{
	const char *missing = xf_pasid_missing();

	if (missing)
		SKIP(return false, "%s", missing);
	msrs = xregs_open_msrs(_metadata, O_RDWR);
	if (msrs < 0)
		SKIP(return false, "no /dev/cpu/N/msr");
	/* Writing no bytes is refused where writing is. */
	if (pwrite(msrs, "", 0, MSR_IA32_PASID) < 0 && errno == EPERM)
		SKIP(return false, "the msr driver takes no writes");
	return true;
}

uint64_t xpasid_read(struct __test_metadata *const _metadata)
{
	return xregs_read_msr(_metadata, msrs, MSR_IA32_PASID);
}

/* A task that is preempted inside of the driver may write another's: see xstate_pasid.c. */
void xpasid_write(struct __test_metadata *const _metadata, uint64_t value)
{
	int i;

	for (i = 0; i < WRITES; i++) {
		if (!EXPECT_THAT(pwrite(msrs, &value, sizeof(value), MSR_IA32_PASID) ==
				 sizeof(value), "writing IA32_PASID: %s", strerror(errno)) ||
		    xpasid_read(_metadata) == value)
			return;
	}
	EXPECT_SAME(value, xpasid_read(_metadata), "IA32_PASID back in user space");
}

/*
 * Give this task XPASID_MINE, in the register alone: its fpstate in memory has
 * XPASID_THEIRS, which shows if that is what is kept.
 */
void xpasid_give(struct __test_metadata *const _metadata)
{
	xpasid_write(_metadata, XPASID_THEIRS);
	xcomp_lose_cpu(_metadata);
	xpasid_write(_metadata, XPASID_MINE);
}

/* Now, and once other tasks have run, the PASID is the one that was given. */
void xpasid_expect_kept(struct __test_metadata *const _metadata, const char *when)
{
	EXPECT_SAME(XPASID_MINE, xpasid_read(_metadata), "IA32_PASID %s", when);
	xcomp_lose_cpu(_metadata);
	EXPECT_SAME(XPASID_MINE, xpasid_read(_metadata),
		    "IA32_PASID %s, once another task has run", when);
}
