// SPDX-License-Identifier: GPL-2.0-only
/* IA32_PASID of the calling task, see xpasid.h. */
#define _GNU_SOURCE

#include "xpasid.h"
#include "xregs.h"

#define WRITES		60

static int msrs = -1;

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

/* A task that is preempted inside of the driver writes another task's. */
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

void xpasid_give(struct __test_metadata *const _metadata)
{
	xpasid_write(_metadata, XPASID_THEIRS);
	xcomp_lose_cpu(_metadata);
	xpasid_write(_metadata, XPASID_MINE);
}

void xpasid_expect_kept(struct __test_metadata *const _metadata, const char *when)
{
	EXPECT_SAME(XPASID_MINE, xpasid_read(_metadata), "IA32_PASID %s", when);
	xcomp_lose_cpu(_metadata);
	EXPECT_SAME(XPASID_MINE, xpasid_read(_metadata),
		    "IA32_PASID %s, once another task has run", when);
}
