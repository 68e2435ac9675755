/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * MSRs of the host, as the msr driver shows them to root, and a check that it is
 * safe to run guests that have shadow stacks or branch tracking in their kernel.
 */
#ifndef SELFTEST_KVM_XSTATE_HOST_MSR_H
#define SELFTEST_KVM_XSTATE_HOST_MSR_H

#include "xstate_util.h"
#include "../../../x86/xcomp_host.h"

/* @msr of the host; 0 if the CPU has it not */
static inline u64 xstate_host_msr(int fd, u32 msr)
{
	u64 value;

	return pread(fd, &value, sizeof(value), msr) == sizeof(value) ?
	       value : 0;
}

/*
 * Whether the host keeps its IA32_S_CET over KVM_RUN of guests with different
 * values, none of which switches anything on. If it does not, a guest with
 * shadow stacks in its kernel is the end of the host. True as well where that
 * cannot be told.
 */
static inline bool xstate_host_is_safe(const struct xcomp *x)
{
	const u64 values[] = {
		x->ibt_on ? XCOMP_CET_SUPPRESS_DIS : XCOMP_CET_WRSS_EN, 0,
	};
	struct xcomp probe = *x;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u64 before, now;
	bool ok = true;
	unsigned int i;
	int fd;

	if (!x->shstk_on && !x->ibt_on)
		return true;
	fd = xcomp_open_msrs(O_RDONLY);
	if (fd < 0)
		return true;

	/* There is no memory: the first instruction ends KVM_RUN. */
	vm = vm_create_barebones();
	vcpu = xstate_add_vcpu(&probe, vm, 0);
	before = xstate_host_msr(fd, XF_MSR_S_CET);
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		vcpu_set_msr(vcpu, XF_MSR_S_CET, values[i]);
		__vcpu_run(vcpu);
		now = xstate_host_msr(fd, XF_MSR_S_CET);
		ok &= xcomp_same(x, "IA32_S_CET of the host after KVM_RUN",
				 before, now);
	}
	kvm_vm_free(vm);
	close(fd);
	return ok;
}

#endif /* SELFTEST_KVM_XSTATE_HOST_MSR_H */
