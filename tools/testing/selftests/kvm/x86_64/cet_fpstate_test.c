// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET that KVM keeps in a guest's fpstate: U_CET and PL3_SSP in CET_USER,
 * PL0..2_SSP in CET_KERNEL, and for comparison S_CET, SSP and INT_SSP_TAB,
 * which are kept elsewhere.
 *
 * None of them may be lost by what else is done to the vCPU: other ioctls, a
 * larger fpstate for AMX, use of another vCPU.  INIT clears them and spares the
 * rest.  There is no guest code here, cet_guest_test has that.
 */
#include <pthread.h>

#include "xregs.h"

#define NR_VCPUS	3

FIXTURE(cet_fpstate) {
	struct kvm_vm *vm;
	struct xregs regs;
};

XSTATE_SUITE(cet_fpstate);

FIXTURE_VARIANT_ADD(cet_fpstate, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(cet_fpstate, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(cet_fpstate, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(cet_fpstate, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(cet_fpstate, guest_amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(cet_fpstate, guest_amx_shstk) { .combo = { PERM_GUEST, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(cet_fpstate, guest_amx_ibt) { .combo = { PERM_GUEST, AMX, IBT } };
FIXTURE_VARIANT_ADD(cet_fpstate, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };
FIXTURE_VARIANT_ADD(cet_fpstate, both_amx_cet) { .combo = { PERM_BOTH, AMX, CET } };

FIXTURE_SETUP(cet_fpstate)
{
	if (!xstate_begin(_metadata, &variant->combo))
		return;
	self->vm = vm_create_barebones();
	xstate_create_apic(self->vm);
}

/* All components of the vCPU that there are contents for */
static u64 filled(struct kvm_vcpu *vcpu)
{
	return xregs_mask(vcpu_xcr0_mask(vcpu));
}

/* Give the vCPU all that it can hold. */
static void fill(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		 struct xregs *regs, u32 seed)
{
	xregs_fill(regs, vcpu, seed);
	vcpu_set_xregs(_metadata, vcpu, regs, filled(vcpu));
}

/* Verify that a new vCPU has no CET and no XSAVE state. */
TEST_F(cet_fpstate, reset)
{
	struct kvm_vcpu *vcpu = xstate_add_vcpu(self->vm, 0, &variant->combo);
	u64 kept, initial;

	expect_no_cet(_metadata, vcpu, "after reset");
	EXPECT_XFEATURES(XFEATURE_MASK_FP, vcpu_xcr0(vcpu), "XCR0 after reset");

	/* The vCPU starts with a PKRU of 0, as a CPU does. */
	xregs_fill(&self->regs, vcpu, 0);
	vcpu_sort_xregs(vcpu, &self->regs, filled(vcpu), &kept, &initial);
	EXPECT_XFEATURES(vcpu_sorted(vcpu, filled(vcpu)), initial, "initial after reset");
	EXPECT_XFEATURES(0, kept, "in use after reset");
}

/* ---- what else user space does to a vCPU ---- */

static void *run_thread(void *vcpu)
{
	xstate_run_immediate_exit(vcpu);
	return NULL;
}

static void do_run_elsewhere(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, run_thread, vcpu));
	xf_join_thread(_metadata, thread, "a thread that runs the vCPU");
}

static void do_kernel_fpu(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	(void)_metadata;
	use_kernel_fpu();
	xstate_run_immediate_exit(vcpu);
}

/* Live tiles of the host itself */
static void do_host_amx(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	static u8 back[XREGS_TILES * XREGS_TILE_SIZE];
	static struct xregs host;
	size_t n;

	xregs_fill(&host, vcpu, 0x5c);
	guest_load_xregs(&host, XFEATURE_MASK_XTILE);
	xstate_run_immediate_exit(vcpu);
	tile_store(back);
	tile_release();
	n = xarea_differ(host.tile[0], back, sizeof(back));
	EXPECT_THAT(n == sizeof(back), "tiles of the host after KVM_RUN: byte %zu is %#x", n,
		    n < sizeof(back) ? back[n] : 0);
}

static void do_xsave_again(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_XSAVE, vcpu_area(vcpu)),
		     "KVM_SET_XSAVE of what KVM_GET_XSAVE2 read");
}

/* An area that makes all components initial */
static u8 *initial_area(void)
{
	u8 *area = xf_guarded(XAREA_SIZE, 0);

	*(u16 *)(area + XAREA_FCW) = FCW_INIT;
	*(u32 *)(area + XAREA_MXCSR) = MXCSR_INIT;
	return area;
}

static void do_xsave_init(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_XSAVE, initial_area()), "KVM_SET_XSAVE");
}

/* Supervisor components are no part of the image, whatever else is. */
static void do_xsave_supervisor(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	u8 *area = initial_area();
	int i;

	for (i = 0; i < 64; i++) {
		if (!(XFEATURE_MASK_HIDDEN & BIT_ULL(i)))
			continue;
		xarea_set_header(area, 0, filled(vcpu) | BIT_ULL(i));
		EXPECT_ERRNO(EINVAL, vcpu_errno(vcpu, KVM_SET_XSAVE, area),
			     "KVM_SET_XSAVE with XSTATE_BV[%d], %s", i, xf_name(i));
	}
}

static void do_fpu(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	struct kvm_fpu fpu = { .fcw = FCW_INIT, .mxcsr = MXCSR_INIT, .ftwx = 1 };

	xarea_fill(fpu.xmm, 0x77, sizeof(fpu.xmm));
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_FPU, &fpu), "KVM_SET_FPU");
}

/* CR4.CET is taken if the vCPU has either half of CET. */
static void do_sregs(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	bool has_cet = vcpu_has_shstk(vcpu) || vcpu_has_ibt(vcpu);
	struct kvm_sregs sregs, old;

	vcpu_sregs_get(vcpu, &old);
	sregs = old;
	sregs.cr0 |= X86_CR0_WP;
	sregs.cr4 |= X86_CR4_CET;
	EXPECT_ERRNO(has_cet ? 0 : EINVAL, vcpu_errno(vcpu, KVM_SET_SREGS, &sregs),
		     "KVM_SET_SREGS with CR4.CET");
	vcpu_sregs_get(vcpu, &sregs);
	EXPECT_SAME(has_cet ? X86_CR4_CET : 0, sregs.cr4 & X86_CR4_CET, "CR4.CET");
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_SREGS, &old), "KVM_SET_SREGS without CR4.CET");
}

static void do_xcr0(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	EXPECT_THAT(vcpu_takes_xcr0(vcpu, XFEATURE_MASK_FP), "KVM_SET_XCRS of x87: not taken");
	EXPECT_THAT(vcpu_takes_xcr0(vcpu, vcpu_xcr0_mask(vcpu)), "KVM_SET_XCRS of %#lx: not taken",
		    vcpu_xcr0_mask(vcpu));
}

/* The guest's XSS says what the guest's XSAVES saves, not what KVM keeps. */
static void do_xss(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	EXPECT_THAT(vcpu_takes_msr(vcpu, MSR_IA32_XSS, 0), "KVM_SET_MSRS of 0 to IA32_XSS");
	xstate_run_immediate_exit(vcpu);
	EXPECT_THAT(vcpu_takes_msr(vcpu, MSR_IA32_XSS, vcpu_xss_mask(vcpu)),
		    "KVM_SET_MSRS of %#lx to IA32_XSS", vcpu_xss_mask(vcpu));
}

static void do_cpuid(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID2, vcpu->cpuid), "the same KVM_SET_CPUID2");
}

static const struct disturbance {
	const char *name;
	void (*fn)(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu);
	bool sets_xsave;		/* no XSAVE state is left that could be kept */
} disturbances[] = {
	{ "KVM_RUN by another thread",		.fn = do_run_elsewhere },
	{ "use of the FPU by the kernel",	.fn = do_kernel_fpu },
	{ "use of AMX by the host",		.fn = do_host_amx },
	{ "KVM_SET_XSAVE of the same",		.fn = do_xsave_again },
	{ "a refused KVM_SET_XSAVE",		.fn = do_xsave_supervisor },
	{ "KVM_SET_SREGS",			.fn = do_sregs },
	{ "KVM_SET_XCRS",			.fn = do_xcr0 },
	{ "a write to IA32_XSS",		.fn = do_xss },
	{ "the same KVM_SET_CPUID2 again",	.fn = do_cpuid },
	{ "KVM_SET_FPU",			.fn = do_fpu, .sets_xsave = true },
	{ "KVM_SET_XSAVE of init state",	.fn = do_xsave_init, .sets_xsave = true },
};

/*
 * Verify that what a vCPU was given, CET and XSAVE state alike, outlives every
 * ioctl that does not set just that, and that it is read back by others than
 * those that set it.
 */
TEST_F(cet_fpstate, ioctls)
{
	struct kvm_vcpu *vcpu = xstate_add_vcpu(self->vm, 0, &variant->combo);
	const struct disturbance *d;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(disturbances); i++) {
		d = &disturbances[i];
		if ((d->fn == do_host_amx && !xstate_host_granted(&variant->combo)) ||
		    (d->fn == do_xss && !vcpu_xss_mask(vcpu))) {
			TH_ROW_LOG("left out, for want of it: %s", d->name);
			continue;
		}
		fill(_metadata, vcpu, &self->regs, i);
		d->fn(_metadata, vcpu);
		expect_xregs(_metadata, vcpu, &self->regs, d->sets_xsave ? 0 : filled(vcpu),
			     d->name);
	}
}

/* The same for a turn of the next test: those of AMX are in use, or disarmed by IA32_XFD. */
static u64 fill_with_xfd(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			 struct xregs *regs, u32 turn)
{
	u64 xfd = turn & 1 && vcpu_has_amx(vcpu) ? XFEATURE_MASK_XTILE_DATA : 0;

	xregs_fill(regs, vcpu, turn);
	/* IA32_XFD must not disarm tiles that are in use. */
	vcpu_set_xregs_area(_metadata, vcpu, regs, filled(vcpu) & ~XFEATURE_MASK_XTILE);
	vcpu_set_msr(vcpu, MSR_IA32_XFD, xfd);
	vcpu_set_msr(vcpu, MSR_IA32_XFD_ERR, xfd);
	vcpu_set_xregs(_metadata, vcpu, regs, filled(vcpu) & ~(xfd ? XFEATURE_MASK_XTILE : 0));
	return xfd;
}

/* Exactly what no component carries is as it was: KVM on SVM does not clear that. */
static bool svm_keeps_half(struct kvm_vcpu *vcpu, const struct xregs *r)
{
	static const struct xregs none;

	return xf_cpuinfo_flag("svm") && vcpu_has_shstk(vcpu) && vcpu_holds_cet(vcpu, &none, r);
}

/* What INIT must leave of @regs, and of both MSRs that have the value of @xfd */
static void expect_after_init(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			      const struct xregs *regs, u64 xfd)
{
	u64 kept, initial, mask = filled(vcpu) & ~(xfd ? XFEATURE_MASK_XTILE : 0);

	expect_init_taken(_metadata, vcpu);
	XFAIL_IF(svm_keeps_half(vcpu, regs), "INIT keeps S_CET, SSP and the SSP table with SVM")
		expect_no_cet(_metadata, vcpu, "after INIT");
	vcpu_sort_xregs(vcpu, regs, mask, &kept, &initial);
	EXPECT_XFEATURES(mask, kept & mask, "XSAVE state that INIT leaves alone");
	if (vcpu_xss_mask(vcpu))
		EXPECT_SAME(vcpu_xss_mask(vcpu), vcpu_get_msr(vcpu, MSR_IA32_XSS),
			    "IA32_XSS after INIT");
	EXPECT_SAME(xfd, vcpu_get_msr(vcpu, MSR_IA32_XFD), "IA32_XFD after INIT");
	EXPECT_SAME(xfd, vcpu_get_msr(vcpu, MSR_IA32_XFD_ERR), "IA32_XFD_ERR after INIT");
	EXPECT_XFEATURES(vcpu_xcr0_mask(vcpu), vcpu_xcr0(vcpu), "XCR0 after INIT");
}

/*
 * Verify that INIT clears CET, in the fpstate and elsewhere, and leaves other
 * XSAVE state, XCR0, IA32_XSS, IA32_XFD and IA32_XFD_ERR as they are, whether the
 * fpstate is loaded or not when INIT is taken.  Another vCPU keeps all that it has.
 */
TEST_F(cet_fpstate, init)
{
	struct kvm_vcpu *vcpu = xstate_add_vcpu(self->vm, 0, &variant->combo);
	struct kvm_vcpu *other = xstate_add_vcpu(self->vm, 1, &variant->combo);
	struct xregs others;
	u64 xfd;
	u32 i;

	fill(_metadata, other, &others, 4);
	for (i = 0; i < 4; i++) {
		th_case("turn %u", i);
		xfd = fill_with_xfd(_metadata, vcpu, &self->regs, i);
		xstate_send_init(vcpu);
		if (i & 2)
			xstate_run_without_memory(_metadata, vcpu);
		expect_after_init(_metadata, vcpu, &self->regs, xfd);
	}
	th_no_case();
	expect_xregs(_metadata, other, &others, filled(other), "INIT of another vCPU");
}

/*
 * Verify that vCPUs that one thread serves in turn do not get each other's
 * state, with AMX in the CPUID of some of them only.
 */
TEST_F(cet_fpstate, vcpus_on_one_thread)
{
	struct xstate_combo combo = variant->combo;
	struct kvm_vcpu *vcpus[NR_VCPUS];
	struct xregs regs[NR_VCPUS];
	int i, j;

	for (i = 0; i < NR_VCPUS; i++) {
		combo.amx = i == 1 ? NOAMX : variant->combo.amx;
		vcpus[i] = xstate_add_vcpu(self->vm, i, &combo);
		fill(_metadata, vcpus[i], &regs[i], i);
	}
	for (i = 0; i < NR_VCPUS; i++) {
		for (j = 0; j < NR_VCPUS; j++)
			xstate_run_immediate_exit(vcpus[j]);
		expect_xregs(_metadata, vcpus[i], &regs[i], filled(vcpus[i]), "use of other vCPUs");
	}

	/* What one of them is given anew reaches no other. */
	fill(_metadata, vcpus[0], &regs[0], NR_VCPUS);
	for (i = NR_VCPUS - 1; i >= 0; i--)
		expect_xregs(_metadata, vcpus[i], &regs[i], filled(vcpus[i]),
			     "a change of the first vCPU");
}

/*
 * Verify that a KVM_SET_CPUID2 with AMX loses nothing: neither the first one,
 * which comes with a larger fpstate, nor one that is refused for want of a
 * permission.  Known kernels lose all that the old fpstate held, and only that;
 * half of it, or garbage, is a bug of another kind.
 */
TEST_F(cet_fpstate, first_amx_cpuid)
{
	struct xstate_combo combo = { variant->combo.perm, NOAMX, variant->combo.cet };
	struct kvm_vcpu *vcpu = xstate_add_vcpu(self->vm, 0, &combo);
	struct kvm_cpuid2 *cpuid = xstate_cpuid_with(&combo, true);
	u64 mask = filled(vcpu), all = vcpu_sorted(vcpu, mask), pkru = mask & XFEATURE_MASK_PKRU;
	u64 xcr0 = vcpu_xcr0_mask(vcpu), kept, initial;
	int error;

	fill(_metadata, vcpu, &self->regs, 0);
	error = vcpu_errno(vcpu, KVM_SET_CPUID2, cpuid);
	EXPECT_ERRNO(variant->combo.amx ? 0 : EPERM, error, "KVM_SET_CPUID2 with AMX");
	if (error) {
		expect_xregs(_metadata, vcpu, &self->regs, mask, "a refused KVM_SET_CPUID2");
		return;
	}
	free(vcpu->cpuid);
	vcpu->cpuid = cpuid;

	vcpu_sort_xregs(vcpu, &self->regs, mask, &kept, &initial);
	EXPECT_XFEATURES(xcr0, vcpu_xcr0(vcpu), "XCR0 after the first CPUID with AMX");
	EXPECT_THAT(vcpu_takes_xcr0(vcpu, vcpu_xcr0_mask(vcpu)), "KVM_SET_XCRS with AMX");
	expect_kept_elsewhere(_metadata, vcpu, &self->regs, "the first CPUID with AMX");

	fill(_metadata, vcpu, &self->regs, 1);
	do_cpuid(_metadata, vcpu);
	expect_xregs(_metadata, vcpu, &self->regs, filled(vcpu), "the same KVM_SET_CPUID2 again");

	/* KVM keeps PKRU elsewhere. */
	XFAIL_IF(kept == pkru && initial == (all & ~pkru),
		 "first KVM_SET_CPUID2 with AMX drops the fpstate")
		EXPECT_XFEATURES(all, kept, "kept by the first CPUID with AMX");
}

XSTATE_IOCTL_HARNESS_MAIN
