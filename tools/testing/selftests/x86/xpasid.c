// SPDX-License-Identifier: GPL-2.0-only
/* IA32_PASID of the calling task, see xpasid.h. */
#define _GNU_SOURCE

#include "xpasid.h"
#include "xregs.h"

#define WRITES		60

static int msrs = -1;

bool xpasid_need(struct __test_metadata *const _metadata)
{
	if (!(xf_cpu_supervisor_mask() & XFEATURE_MASK_PASID))
		SKIP(return false, "no PASID state on this CPU");
	if (!xf_cpuinfo_flag("enqcmd") || !xf_cpuinfo_flag("xsaves"))
		SKIP(return false, "the kernel does not use PASID state");
	if (geteuid())
		SKIP(return false, "needs root");
	msrs = xregs_open_msrs(_metadata, O_RDWR);
	if (msrs < 0)
		SKIP(return false, "no /dev/cpu/N/msr");
	return true;
}

uint64_t xpasid_read(struct __test_metadata *const _metadata)
{
	return xregs_read_msr(_metadata, msrs, MSR_IA32_PASID);
}

/* A task that is preempted inside of the driver writes another task's. */
bool xpasid_write(struct __test_metadata *const _metadata, uint64_t value)
{
	ssize_t len;
	int i;

	for (i = 0; i < WRITES; i++) {
		len = pwrite(msrs, &value, sizeof(value), MSR_IA32_PASID);
		if (len < 0 && errno == EPERM)
			SKIP(return false, "the msr driver takes no writes");
		ASSERT_EQ(sizeof(value), len)
			TH_ROW_LOG("writing IA32_PASID: %s", strerror(errno));
		if (xpasid_read(_metadata) == value)
			return true;
	}
	EXPECT_SAME(value, xpasid_read(_metadata), "IA32_PASID back in user space");
	return true;
}

bool xpasid_give(struct __test_metadata *const _metadata)
{
	if (!xpasid_write(_metadata, XPASID_THEIRS))
		return false;
	xcomp_lose_cpu(_metadata);
	return xpasid_write(_metadata, XPASID_MINE);
}

void xpasid_expect_kept(struct __test_metadata *const _metadata, const char *when)
{
	EXPECT_SAME(XPASID_MINE, xpasid_read(_metadata), "IA32_PASID %s", when);
	xcomp_lose_cpu(_metadata);
	EXPECT_SAME(XPASID_MINE, xpasid_read(_metadata),
		    "IA32_PASID %s, once another task has run", when);
}
