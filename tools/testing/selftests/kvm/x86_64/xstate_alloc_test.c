// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_CREATE_VCPU, KVM_SET_CPUID2 with AMX and KVM_RUN on a kernel that runs out of memory at
 * each moment of it in turn.  That ends in a clean errno, the vCPU is as it was, nothing is
 * left over, and the same works right afterwards.  ioctl_fault_test has the ioctls that read
 * or set registers.
 *
 * Needs root and a kernel with fault injection, see xfault.h.
 */
#include "xregs.h"
#include "../../../x86/xfault.h"

static const struct xstate_combo small = { .perm = PERM_GUEST, .amx = false, .cet = CET };
static const struct xstate_combo whole = { .perm = PERM_GUEST, .amx = true, .cet = CET };

FIXTURE(xstate_alloc) {
};

FIXTURE_VARIANT(xstate_alloc) {
	struct xfault_call call;
};

FIXTURE_SETUP(xstate_alloc)
{
	xstate_begin_unpermitted(_metadata, variant);
	if (!xf_has_amx())
		SKIP(return, "no AMX on this machine");
	xfault_need(_metadata);
}

FIXTURE_TEARDOWN(xstate_alloc)
{
	xfault_end(_metadata);
	xstate_end(_metadata, NULL);
}

/* All registers of a vCPU with AMX can be set, and read. */
static void expect_works(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	const u64 mask = xregs_mask(vcpu_xcr0_mask(vcpu));
	static struct xregs regs;

	xregs_fill(&regs, vcpu, 1);
	vcpu_set_xregs(_metadata, vcpu, &regs, mask);
	expect_xregs(_metadata, vcpu, &regs, mask, "afterwards");
}

/* ---- KVM_CREATE_VCPU ---- */

/*
 * The guest's permission is asked for before, or not until a vCPU could not be made.  KVM locks
 * it along with the first fpstate, so that it is locked by a vCPU that could not be made later
 * on as well.
 */
static void try_create(struct __test_metadata *const _metadata, struct xfault *f,
		       const void *late)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int fd, error;

	if (!late)
		xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	vm = vm_create_barebones();
	xfault_arm(f);
	fd = ioctl(vm->fd, KVM_CREATE_VCPU, 0ul);
	xfault_disarm(f);
	xfault_expect_errno(_metadata, f, fd < 0 ? errno : 0, "KVM_CREATE_VCPU");
	xf_expect_permissions(_metadata, false, !late, "afterwards");
	if (fd >= 0) {
		close(fd);
	} else if (late) {
		error = xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILE_DATA);
		XFAIL_IF(error == EBUSY, "KVM_CREATE_VCPU locks, though it fails")
			EXPECT_ERRNO(0, error, "ARCH_REQ_XCOMP_GUEST_PERM afterwards");
	}
	if (fd < 0 || !late) {
		vcpu = xstate_add_vcpu(vm, fd >= 0, late ? &small : &whole);
		expect_works(_metadata, vcpu);
	}
	kvm_vm_free(vm);
}

FIXTURE_VARIANT_ADD(xstate_alloc, create_vcpu) {
	.call = { .what = "KVM_CREATE_VCPU", .try = try_create, .least = 2 },
};

FIXTURE_VARIANT_ADD(xstate_alloc, create_vcpu_late) {
	.call = { .what = "KVM_CREATE_VCPU without a permission", .try = try_create,
		  .arg = (void *)true, .least = 2 },
};

/* ---- KVM_SET_CPUID2 ---- */

/* The first CPUID with AMX reallocates the guest's fpstate. */
static void try_set_cpuid(struct __test_metadata *const _metadata, struct xfault *f,
			  const void *arg __maybe_unused)
{
	struct kvm_cpuid2 *cpuid;
	struct kvm_vcpu *vcpu;
	static struct xregs regs;
	struct kvm_vm *vm;
	int error;
	u64 mask;

	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	vcpu = xstate_new_vcpu(&vm, &small);
	mask = xregs_mask(vcpu_xcr0_mask(vcpu));
	xregs_fill(&regs, vcpu, 0);
	vcpu_set_xregs(_metadata, vcpu, &regs, mask);
	cpuid = xstate_cpuid_with(&small, true);

	xfault_arm(f);
	error = vcpu_errno(vcpu, KVM_SET_CPUID2, cpuid);
	xfault_disarm(f);
	xfault_expect_errno(_metadata, f, error, "KVM_SET_CPUID2");
	if (error) {
		expect_same_cpuid(_metadata, vcpu, vcpu->cpuid, "afterwards");
		expect_xregs(_metadata, vcpu, &regs, mask, "afterwards");
		EXPECT_THAT(!vcpu_takes_xcr0(vcpu, kvm_known_xcr0()),
			    "XCR0 takes XTILE, which guest CPUID has not");
	}
	/* Of one that was taken libkvm does not know, and it is not to be set again. */
	if (error) {
		vcpu_init_cpuid(vcpu, cpuid);
	} else {
		free(vcpu->cpuid);
		vcpu->cpuid = cpuid_copy(cpuid);
	}
	expect_works(_metadata, vcpu);
	free(cpuid);
	kvm_vm_free(vm);
}

FIXTURE_VARIANT_ADD(xstate_alloc, set_cpuid) {
	.call = { .what = "KVM_SET_CPUID2 with AMX", .try = try_set_cpuid, .least = 1 },
};

/* ---- KVM_RUN ---- */

/* A guest that loads all registers, and saves them before it exits */
static struct guest {
	u64 xcr0;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
} guest;

static INTEGER_ONLY void guest_load_and_save(struct guest *g)
{
	guest_load_xregs(&g->regs, g->xcr0);
	asm volatile("xsave64 %0" : "+m" (g->area) : "a" (-1), "d" (-1));
	guest_leave();
}

static void guest_code(struct guest *g)
{
	guest_enable_xstate(g->xcr0);
	guest_load_and_save(g);
}

/* A guest whose KVM_RUN has failed goes on by the next one as if nothing had been. */
static void try_run(struct __test_metadata *const _metadata, struct xfault *f,
		    const void *arg __maybe_unused)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct guest *g;
	int error;
	u64 mask;

	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	/* With the CPUID that KVM supports, as xstate_new_guest() would make two of them. */
	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	g = addr_gva2hva(vm, (gva_t)&guest);
	g->xcr0 = vcpu_xcr0_mask(vcpu);
	mask = xregs_mask(g->xcr0);
	xregs_fill(&g->regs, vcpu, 0);
	vcpu_args_set(vcpu, 1, &guest);

	xfault_arm(f);
	error = vcpu_errno(vcpu, KVM_RUN, NULL);
	xfault_disarm(f);
	xfault_expect_errno(_metadata, f, error, "KVM_RUN");
	if (error)
		xregs_run(vcpu);
	EXPECT_SAME(KVM_EXIT_IO, vcpu->run->exit_reason, "exit reason");
	expect_area(_metadata, g->area, &g->regs, mask, 0, "saved by the guest");
	expect_area(_metadata, vcpu_area_with_pkru(vcpu), &g->regs, mask, 0, "after KVM_RUN");
	kvm_vm_free(vm);
}

FIXTURE_VARIANT_ADD(xstate_alloc, run) {
	.call = { .what = "KVM_RUN", .try = try_run, .least = 1, .step = 8 },
};

/* ---- the tests ---- */

/* Verify that each fault has the effect that it may have, and no other. */
TEST_F_TIMEOUT(xstate_alloc, fails, 120)
{
	xfault_walk(_metadata, &variant->call);
}

/* Verify that nothing stays allocated of what fails. */
TEST_F_TIMEOUT(xstate_alloc, frees, 240)
{
	xfault_expect_freed(_metadata, &variant->call);
}

XSTATE_HARNESS_MAIN
