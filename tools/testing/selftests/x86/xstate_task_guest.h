/* SPDX-License-Identifier: GPL-2.0-only */
/* Checks of the registers of a guest that stay in the CPU for too long */
#ifndef SELFTESTS_X86_XSTATE_TASK_GUEST_H
#define SELFTESTS_X86_XSTATE_TASK_GUEST_H

#include "xcomp_guest.h"

/*
 * Verify that nothing of a guest's CET_KERNEL is left in the CPU once its vCPU
 * is: no host task has that component, and none may find it there.
 */
static inline int task_check_guest_ssp(struct xcomp *x)
{
	uint64_t value;
	int fd, i, result;
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_offers_shstk())
		return xcomp_skip(x, "no guest shadow stacks");
	fd = xcomp_open_msrs(O_RDONLY);
	if (fd < 0)
		return xcomp_skip(x, "no /dev/cpu/N/msr");
	x->shstk = true;
	result = xcomp_vcpu(x);
	if (result)
		return result;
	ok = xcomp_write_msrs(x);
	ok &= xkvm_run_immediate_exit(x->kvm, x->vcpu);
	for (i = XF_MSR_PL0_SSP; i <= XF_MSR_PL2_SSP; i++) {
		if (pread(fd, &value, 8, i) != 8)
			return xcomp_error(x, "reading a CET MSR");
		ok &= xcomp_same(x, xf_msr_name(i), 0, value);
	}
	return xcomp_verdict(xcomp_rule(x, ok,
		"the host runs without its guests' CET_KERNEL"));
}

#endif /* SELFTESTS_X86_XSTATE_TASK_GUEST_H */
