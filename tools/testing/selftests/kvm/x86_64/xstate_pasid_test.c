// SPDX-License-Identifier: GPL-2.0-only
/*
 * PASID is state of the host's task, also of one that has a vCPU: KVM loads the
 * guest's fpstate in its place and puts it back, and tells the guest nothing of
 * it.  What else may happen to a PASID is in x86/xstate_pasid.
 *
 * Only an ENQCMD with shared virtual addressing makes the kernel write
 * IA32_PASID.  Here the msr driver writes it: on the task's own CPU, with the
 * task's state in the registers, it becomes part of that state.
 */
#include <fcntl.h>

#include "fpu_trace.h"
#include "xregs.h"

#define TURNS		8

/* AMX where there is a permission for it */
static const struct xstate_combo whole = { .perm = PERM_GUEST, .amx = true, .cet = CET };

static struct xregs regs;

FIXTURE(xstate_pasid) {
	struct kvm_vm *vm;
};

FIXTURE_SETUP(xstate_pasid)
{
	xstate_begin_unpermitted(_metadata, variant);
	if (!xf_pasid_need(_metadata))
		return;
	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	xf_expect_permissions(_metadata, false, xf_has_amx(), "after the guest's request");
}

FIXTURE_TEARDOWN(xstate_pasid)
{
	xstate_end(_metadata, self->vm);
}

/*
 * Verify that neither KVM_CREATE_VCPU drops PASID, nor the KVM_SET_CPUID2 that
 * replaces the guest's fpstate by a larger one.
 */
TEST_F(xstate_pasid, set_cpuid)
{
	struct kvm_vcpu *vcpu;

	self->vm = vm_create_barebones();
	xf_pasid_give(_metadata);
	vcpu = __vm_vcpu_add(self->vm, 0);
	xf_pasid_expect_kept(_metadata, "after KVM_CREATE_VCPU");
	xf_pasid_give(_metadata);
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID2, xstate_cpuid(&whole)),
		     "KVM_SET_CPUID2 with AMX and CET");
	xf_pasid_expect_kept(_metadata, "after KVM_SET_CPUID2 with AMX and CET");
}

/* Verify the same of ioctls that load the guest's fpstate for its MSRs. */
TEST_F(xstate_pasid, msrs)
{
	struct kvm_vcpu *vcpu = xstate_new_vcpu(&self->vm, &whole);
	int i;

	EXPECT_THAT(vcpu_takes_xcr0(vcpu, vcpu_xcr0_mask(vcpu)), "KVM_SET_XCRS of %#lx: not taken",
		    vcpu_xcr0_mask(vcpu));
	xregs_fill(&regs, vcpu, 0);
	xf_pasid_give(_metadata);
	for (i = 0; i < TURNS; i++) {
		vcpu_set_cet(_metadata, vcpu, &regs);
		expect_cet(_metadata, vcpu, &regs, "KVM_SET_MSRS");
		expect_kept_elsewhere(_metadata, vcpu, &regs, "KVM_SET_MSRS");
	}
	xf_pasid_expect_kept(_metadata, "after KVM_SET_MSRS and KVM_GET_MSRS of CET");
}

/* KVM loads the guest's fpstate, and puts the host's back. */
static void swap_fpstates(struct kvm_vcpu *vcpu)
{
	int i;

	for (i = 0; i < TURNS; i++)
		xstate_run_immediate_exit(vcpu);
}

/* No guest has IA32_PASID. */
static void guest_code(void)
{
	u64 value;
	u8 vector;

	for (;;) {
		vector = rdmsr_safe(MSR_IA32_PASID, &value);
		__GUEST_ASSERT(vector == GP_VECTOR,
			       "RDMSR of IA32_PASID: wanted vector %u (#GP) got %u", GP_VECTOR,
			       vector);
		GUEST_SYNC(0);
	}
}

/* A guest runs with live tiles, which it keeps, and so does the host its PASID. */
static void expect_kept_with_tiles(struct __test_metadata *const _metadata, struct kvm_vm **vm,
				   bool host_amx)
{
	struct kvm_vcpu *vcpu;
	u8 *area;
	int i;

	if (!xf_has_amx())
		SKIP(return, "no AMX on this machine");
	if (!xstate_need_refusals(_metadata) || !xstate_need_guests(_metadata))
		return;
	if (host_amx) {
		xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
		xf_expect_permissions(_metadata, true, true, "after both requests");
		xf_use_amx(_metadata);
	}
	vcpu = xstate_new_guest(vm, &whole, guest_code);
	xregs_fill(&regs, vcpu, 0);
	xf_pasid_give(_metadata);
	vcpu_set_xregs_area(_metadata, vcpu, &regs, XFEATURE_MASK_FPSSE | XFEATURE_MASK_XTILE);
	for (i = 0; i < TURNS; i++) {
		xstate_run(vcpu, UCALL_SYNC);
		EXPECT_SAME(XF_PASID_MINE, xf_pasid_read(_metadata),
			    "IA32_PASID between two KVM_RUNs, turn %d", i);
	}
	area = vcpu_area(vcpu);
	EXPECT_XFEATURES(XFEATURE_MASK_XTILE, xarea_header(area, 0) & XFEATURE_MASK_XTILE,
			 "XSTATE_BV of the guest");
	expect_area(_metadata, area, &regs, XFEATURE_MASK_XTILE, 0, "KVM_RUN with live tiles");
	xf_pasid_expect_kept(_metadata, "after KVM_RUN with live tiles");
}

/* Verify the PASID around a guest that runs with XTILE_DATA in use. */
TEST_F(xstate_pasid, run_tile)
{
	expect_kept_with_tiles(_metadata, &self->vm, false);
}

/* Verify the same with the task's own fpstate enlarged as well. */
TEST_F(xstate_pasid, run_tile_host_amx)
{
	expect_kept_with_tiles(_metadata, &self->vm, true);
}

/*
 * Verify that KVM_RUN puts the host's PASID back, and that no interface of KVM
 * knows it.
 */
TEST_F(xstate_pasid, guest_interfaces)
{
	struct kvm_vcpu *vcpu = xstate_new_vcpu(&self->vm, &whole);
	bool refuses = kvm_refuses_msrs();
	u64 value = 0;

	xf_pasid_give(_metadata);
	swap_fpstates(vcpu);
	xf_pasid_expect_kept(_metadata, "after KVM_RUN");
	EXPECT_THAT(!kvm_msr_is_in_save_restore_list(MSR_IA32_PASID), "IA32_PASID is listed");
	if (vcpu_reads_msr(vcpu, MSR_IA32_PASID, &value))
		EXPECT_THAT(!refuses && !value, "KVM_GET_MSRS of IA32_PASID gives %#lx", value);
	if (refuses)
		EXPECT_THAT(!vcpu_takes_msr(vcpu, MSR_IA32_PASID, XF_PASID_THEIRS),
			    "KVM_SET_MSRS of %#x to IA32_PASID: taken", XF_PASID_THEIRS);
	EXPECT_XFEATURES(0, xarea_header(vcpu_area(vcpu), 0) & XFEATURE_MASK_PASID,
			 "XSTATE_BV of the vCPU");
	xf_pasid_expect_kept(_metadata, "after ioctls that know no PASID");
}

/*
 * Verify, by tracepoints, that the guest's fpstate has no PASID in use run after
 * run, and that the host's has.
 */
TEST_F(xstate_pasid, guest_fpstate)
{
	struct fpstate_run runs[TURNS];
	struct kvm_vcpu *vcpu;
	struct fpu_trace trace;
	int i;

	if (!fpu_trace_need(_metadata))
		return;
	vcpu = xstate_new_vcpu(&self->vm, &whole);
	xf_pasid_give(_metadata);
	fpu_trace_begin(_metadata, &trace, 0);
	swap_fpstates(vcpu);
	if (!fpu_trace_runs(_metadata, &trace, runs, TURNS))
		return;
	for (i = 0; i < TURNS; i++) {
		EXPECT_XFEATURES(0, runs[i].guest.xstate_bv & XFEATURE_MASK_PASID,
				 "XSTATE_BV of the guest's fpstate, run %d", i);
		EXPECT_XFEATURES(XFEATURE_MASK_PASID, runs[i].host.xstate_bv & XFEATURE_MASK_PASID,
				 "XSTATE_BV of the host's fpstate, run %d", i);
	}
	xf_pasid_expect_kept(_metadata, "after KVM_RUN in the trace");
}

XSTATE_IOCTL_HARNESS_MAIN
