/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Programs for vCPUs of libkvm with a chosen set of AMX and CET.
 *
 * A combination is named as in xcomp_combo.h, e.g. guest_amx_shstk.
 */
#ifndef SELFTEST_KVM_XSTATE_VCPU_H
#define SELFTEST_KVM_XSTATE_VCPU_H

#include "kvm_compat.h"
#include "kvm_test_harness.h"
#include "../../../x86/xcomp_tidy.h"
#include "../../../x86/xcomp_vcpu.h"

#define XSTATE_CR4_CET		XF_BIT(23)

/* A variant of a fixture, and the name of its combination */
#define XSTATE_VARIANT(fixture, combo)					\
static_assert(sizeof(#combo) <= XCOMP_NAME_SIZE, "name too long");	\
FIXTURE_VARIANT_ADD(fixture, combo) { .name = #combo }

/* Run all tests of the program, if there is what libkvm needs. */
static inline int xstate_main(int argc, char **argv)
{
	int kvm;

	xcomp_init();
	if (!xcomp_unpermitted)
		ksft_exit_skip("%s\n", xcomp_no_kvm);
	/* "noxsave" leaves leaf 0xD. */
	if (!(xkvm_cpuid(xcomp_unpermitted, 1, 0).ecx & XCOMP_CPUID_1_ECX_XSAVE) ||
	    !xkvm_cpuid_entry(xcomp_unpermitted, 0xd, 0))
		ksft_exit_skip("KVM offers no XSAVE\n");
	if (!xkvm_runs_guests())
		ksft_exit_skip("guests run without VMX or SVM\n");
	kvm = xkvm_open();
	if (xkvm_cap(kvm, KVM_CAP_USER_MEMORY2) <= 0)
		ksft_exit_skip("libkvm needs KVM_SET_USER_MEMORY_REGION2\n");
	close(kvm);

	xcomp_tidy();
	return xcomp_listed(test_harness_run(argc, argv));
}

/*
 * Begin the combination @name: ask for its permissions, which must come before
 * the process makes a vCPU or has libkvm cache what KVM supports.
 */
static inline bool xstate_begin(struct xcomp *x, const char *name)
{
	bool host, guest;

	if (!xcomp_parse(x, name) || !xcomp_open_kvm(x))
		return false;
	host = x->perm == XCOMP_HOST || x->perm == XCOMP_BOTH;
	guest = x->perm == XCOMP_GUEST || x->perm == XCOMP_BOTH;
	if ((host && !xcomp_ask(x, false)) || (guest && !xcomp_ask(x, true)))
		return false;

	x->amx_on = x->amx && x->guest_granted;
	x->shstk_on = x->shstk && xcomp_offers_shstk();
	x->ibt_on = x->ibt && xcomp_offers_ibt();
	return true;
}

/* Whether the kernel has warned since @before was read from xf_taint() */
static inline bool xstate_warned(uint64_t before)
{
	return ~before & xf_taint() & XF_TAINT_WARN;
}

/* End a test that shows a promise broken in the one way that is known. */
static inline void xstate_xfail(struct __test_metadata *_metadata,
				const char *reason)
{
	snprintf(_metadata->results->reason, sizeof(_metadata->results->reason),
		 "%s", reason);
	_metadata->exit_code = KSFT_XFAIL;
}

/*
 * Add a vCPU for ioctls alone to a VM without memory, with the CPUID of the
 * combination, and point @x to it.
 */
static inline struct kvm_vcpu *xstate_add_vcpu(struct xcomp *x,
					       struct kvm_vm *vm, int id)
{
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm, id);
	int error;

	x->vm = vm->fd;
	x->vcpu = vcpu->fd;
	error = xcomp_set_cpuid(x, vcpu->fd, x->amx_on);
	TEST_ASSERT(!error, "KVM_SET_CPUID2: wanted success got %s",
		    strerror(error));
	return vcpu;
}

/*
 * Make CPUID of the combination what libkvm gives to all vCPUs that it sets up
 * for guest code. Its copy of what KVM supports is the only way to tell it.
 */
static inline void xstate_libkvm_cpuid(struct xcomp *x)
{
	xcomp_shape_cpuid(x, (struct kvm_cpuid2 *)kvm_get_supported_cpuid(),
			  x->amx_on);
}

/* Have the guest start with XSAVE on, and all its components in XCR0. */
static inline void xstate_enable(struct xcomp *x, struct kvm_vcpu *vcpu)
{
	struct kvm_sregs sregs;

	x->vm = vcpu->vm->fd;
	x->vcpu = vcpu->fd;
	vcpu_sregs_get(vcpu, &sregs);
	sregs.cr4 |= X86_CR4_OSXSAVE;
	vcpu_sregs_set(vcpu, &sregs);
	TEST_ASSERT(xkvm_set_xcr0(vcpu->fd, xcomp_guest_xcr0(x)),
		    "KVM_SET_XCRS: %#lx not taken", xcomp_guest_xcr0(x));
}

/* A VM with one vCPU of the combination that runs @code */
static inline struct kvm_vcpu *xstate_guest(struct xcomp *x, void *code)
{
	struct kvm_vcpu *vcpu;

	xstate_libkvm_cpuid(x);
	vm_create_with_one_vcpu(&vcpu, code);
	xstate_enable(x, vcpu);
	return vcpu;
}

/* Whether the architecture allows @xcr0, given that the CPU has all of it */
static inline bool xstate_xcr0_legal(uint64_t xcr0)
{
	if (!(xcr0 & XF_BIT(XF_FP)))
		return false;
	if ((xcr0 & XF_BIT(XF_YMM)) && !(xcr0 & XF_BIT(XF_SSE)))
		return false;
	if ((xcr0 & XF_AVX512) && ((xcr0 & XF_AVX512) != XF_AVX512 ||
				   !(xcr0 & XF_BIT(XF_YMM))))
		return false;
	if ((xcr0 & XF_MPX) && (xcr0 & XF_MPX) != XF_MPX)
		return false;
	return !(xcr0 & XF_XTILE) || (xcr0 & XF_XTILE) == XF_XTILE;
}

/* Run the guest up to its next GUEST_SYNC() or GUEST_DONE(). */
static inline void xstate_run(struct kvm_vcpu *vcpu, uint64_t wanted)
{
	struct ucall uc;
	uint64_t cmd;

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	cmd = get_ucall(vcpu, &uc);
	if (cmd == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(cmd, wanted);
}

/* Have the vCPU find an INIT when it is next asked for its state or runs. */
static inline void xstate_send_init(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events;

	vcpu_events_get(vcpu, &events);
	events.flags = KVM_VCPUEVENT_VALID_SMM;
	events.smi.latched_init = 1;
	vcpu_events_set(vcpu, &events);
}

#endif /* SELFTEST_KVM_XSTATE_VCPU_H */
