// SPDX-License-Identifier: GPL-2.0-only
/* What CPUs have to do, and some emulated ones do not */
#include "xregs.h"

static u64 xcr0_read;

static void guest_set_xcr0(u64 xcr0)
{
	xsetbv(0, xcr0);
	xcr0_read = xgetbv(0);
	guest_leave();
}

/*
 * Software makes this CPU, an emulator or a hypervisor, and says so.  Only such a one may break
 * rules: what a guest sees on any other CPU, and should not, is KVM's doing.
 */
bool xregs_cpu_of_software(void)
{
	return this_cpu_has(X86_FEATURE_HYPERVISOR);
}

/* xregs_xsetbv_exits() by a VM of its own, for tests whose guest writes more than that */
bool xregs_any_xsetbv_exits(struct __test_metadata *const _metadata)
{
	static const struct xstate_combo plain = { PERM_NONE, NOAMX, NOCET };
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	bool exits;

	vcpu = xstate_new_guest(&vm, &plain, guest_set_xcr0);
	vcpu_args_set(vcpu, 1, vcpu_xcr0_mask(vcpu));
	exits = xregs_xsetbv_exits(_metadata, vcpu, addr_gva2hva(vm, (gva_t)&xcr0_read));
	kvm_vm_free(vm);
	return exits;
}
