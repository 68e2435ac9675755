// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET that KVM keeps in a guest's fpstate: U_CET and PL3_SSP in CET_USER,
 * PL0..2_SSP in CET_KERNEL, and for comparison S_CET, SSP and INT_SSP_TAB,
 * which are kept elsewhere.
 *
 * None of them may be lost by what else is done to the vCPU: other ioctls, a
 * larger fpstate for AMX, use of another vCPU. INIT clears them and spares the
 * rest. There is no guest code here, cet_guest_test has that.
 */
#include <pthread.h>

#include "xstate_cet_guest.h"

#define NR_VCPUS	3

/* An MSR as a "KVM register" */
#define REG_MSR(msr)	(0x2030000200000000ull | (msr))

FIXTURE(cet_fpstate) {
	struct xcomp x;
	struct kvm_vm *vm;
	uint64_t taint;
};

FIXTURE_VARIANT(cet_fpstate) {
	const char *name;
};

FIXTURE_SETUP(cet_fpstate)
{
	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(&self->x, variant->name));
	if (self->x.amx && !self->x.have_amx)
		SKIP(return, "no AMX on this machine");
	self->vm = vm_create_barebones();
}

FIXTURE_TEARDOWN(cet_fpstate)
{
	if (self->vm)
		kvm_vm_free(self->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

XSTATE_VARIANT(cet_fpstate, none_noamx_nocet);
XSTATE_VARIANT(cet_fpstate, none_noamx_shstk);
XSTATE_VARIANT(cet_fpstate, none_noamx_ibt);
XSTATE_VARIANT(cet_fpstate, none_noamx_cet);
XSTATE_VARIANT(cet_fpstate, guest_amx_nocet);
XSTATE_VARIANT(cet_fpstate, guest_amx_shstk);
XSTATE_VARIANT(cet_fpstate, guest_amx_ibt);
XSTATE_VARIANT(cet_fpstate, guest_amx_cet);
XSTATE_VARIANT(cet_fpstate, both_amx_cet);

/* Verify that a new vCPU has no CET, no XSS and no XSAVE state. */
TEST_F(cet_fpstate, reset)
{
	struct kvm_vcpu *vcpu = xstate_add_vcpu(&self->x, self->vm, 0);
	struct xcomp *x = &self->x;
	uint64_t kept, initial;
	struct kvm_xcrs xcrs;

	EXPECT_TRUE(xstate_cet_is_zero(x, "after reset"));
	if (xcomp_guest_xss(x))
		EXPECT_EQ(0, xstate_msr(x, XF_MSR_XSS));
	vcpu_xcrs_get(vcpu, &xcrs);
	EXPECT_EQ(XF_BIT(XF_FP), xcrs.xcrs[0].value);

	/* The vCPU starts with a PKRU of 0, as a CPU does. */
	xstate_sort(x, 0, &kept, &initial);
	EXPECT_EQ(xstate_sorted(x), initial);
	EXPECT_EQ(0, kept);
}

/* What else user space does to a vCPU; false if that does not work */
static bool do_nothing(struct xcomp *x)
{
	return x->vcpu >= 0;
}

static bool do_run(struct xcomp *x)
{
	return xkvm_run_immediate_exit(x->kvm, x->vcpu);
}

static void *run_thread(void *x)
{
	return do_run(x) ? x : NULL;
}

static bool do_run_elsewhere(struct xcomp *x)
{
	void *result = NULL;
	pthread_t thread;

	return !pthread_create(&thread, NULL, run_thread, x) &&
	       !pthread_join(thread, &result) && result;
}

static bool do_kernel_fpu(struct xcomp *x)
{
	use_kernel_fpu();
	return do_run(x);
}

/* Live tiles of the host itself, where it may have them */
static bool do_host_amx(struct xcomp *x)
{
	static uint8_t config[XSTATE_TILECFG_SIZE], tiles[XSTATE_TILES_SIZE],
		       back[XSTATE_TILES_SIZE];
	bool ok;

	if (!x->host_granted)
		return true;
	memset(tiles, 0x5c, sizeof(tiles));
	xstate_tile_config(config);
	xstate_ldtilecfg(config);
	xstate_load_tiles(tiles);
	ok = do_run(x);
	xstate_store_tiles(back);
	xstate_tilerelease();
	return ok && !memcmp(tiles, back, sizeof(tiles));
}

static bool do_xsave_again(struct xcomp *x)
{
	return !ioctl(x->vcpu, KVM_SET_XSAVE, xstate_read_image(x));
}

static bool do_xsave_init(struct xcomp *x)
{
	return !ioctl(x->vcpu, KVM_SET_XSAVE, xstate_init_image(x));
}

/* Supervisor components are no part of the image. */
static bool do_xsave_supervisor(struct xcomp *x)
{
	uint8_t *image = xstate_init_image(x);
	bool refused = true;
	uint64_t bv;
	int i;

	for (i = XF_PASID; i <= XF_CET_KERNEL; i++) {
		bv = XF_BIT(i);
		memcpy(image + XF_HEADER_OFFSET, &bv, sizeof(bv));
		refused &= ioctl(x->vcpu, KVM_SET_XSAVE, image) &&
			   errno == EINVAL;
	}
	return refused;
}

static bool do_fpu(struct xcomp *x)
{
	struct kvm_fpu fpu = { .fcw = 0x37f, .mxcsr = 0x1f80, .ftwx = 1 };

	memset(fpu.xmm, 0x77, sizeof(fpu.xmm));
	return !ioctl(x->vcpu, KVM_SET_FPU, &fpu);
}

/* CR4.CET is taken if the guest has either half of CET. */
static bool do_sregs(struct xcomp *x)
{
	bool ok, has_cet = x->shstk_on || x->ibt_on;
	struct kvm_sregs sregs, old;

	ok = !ioctl(x->vcpu, KVM_GET_SREGS, &old);
	sregs = old;
	sregs.cr0 |= X86_CR0_WP;
	sregs.cr4 |= XSTATE_CR4_CET;
	ok &= xcomp_same_errno(x, "KVM_SET_SREGS with CR4.CET",
			has_cet ? 0 : EINVAL,
			ioctl(x->vcpu, KVM_SET_SREGS, &sregs) ? errno : 0);
	ok &= !ioctl(x->vcpu, KVM_GET_SREGS, &sregs);
	ok &= xcomp_same(x, "CR4.CET", has_cet ? XSTATE_CR4_CET : 0,
			 sregs.cr4 & XSTATE_CR4_CET);
	return ok & !ioctl(x->vcpu, KVM_SET_SREGS, &old);
}

static bool do_xcr0(struct xcomp *x)
{
	return xkvm_set_xcr0(x->vcpu, XF_BIT(XF_FP)) &&
	       xkvm_set_xcr0(x->vcpu, xcomp_guest_xcr0(x));
}

/* The guest's XSS says what the guest's XSAVES saves, not what KVM keeps. */
static bool do_xss(struct xcomp *x)
{
	if (!xcomp_guest_xss(x))
		return true;
	return xkvm_set_msr(x->vcpu, XF_MSR_XSS, 0) && do_run(x) &&
	       xkvm_set_msr(x->vcpu, XF_MSR_XSS, xcomp_guest_xss(x));
}

static bool do_ssp(struct xcomp *x)
{
	const uint64_t bad[] = { 0x8000000000000000, XCOMP_GUEST_SSP + 2 };
	uint64_t value = XCOMP_GUEST_SSP - 8;
	bool ok = true;
	int i;

	if (!x->shstk_on && xkvm_cap(x->kvm, KVM_CAP_ONE_REG) <= 0)
		return true;
	for (i = 0; i < 2; i++) {
		value = bad[i];
		ok &= xcomp_same_errno(x, "KVM_SET_ONE_REG of a bad SSP",
				       EINVAL, xkvm_one_reg(x->vcpu,
						KVM_SET_ONE_REG,
						XKVM_REG_GUEST_SSP, &value));
	}
	return ok;
}

static bool do_cpuid(struct xcomp *x)
{
	return !ioctl(x->vcpu, KVM_SET_CPUID2, x->cpuid);
}

static const struct {
	const char *name;
	bool (*fn)(struct xcomp *x);
	bool keeps_fpu;
} disturbances[] = {
	{ "being set",				do_nothing,		true },
	{ "KVM_RUN",				do_run,			true },
	{ "KVM_RUN by another thread",		do_run_elsewhere,	true },
	{ "use of the FPU by the kernel",	do_kernel_fpu,		true },
	{ "use of AMX by the host",		do_host_amx,		true },
	{ "KVM_SET_XSAVE of the same",		do_xsave_again,		true },
	{ "a refused KVM_SET_XSAVE",		do_xsave_supervisor,	true },
	{ "KVM_SET_SREGS",			do_sregs,		true },
	{ "KVM_SET_XCRS",			do_xcr0,		true },
	{ "a write to IA32_XSS",		do_xss,			true },
	{ "a refused KVM_SET_ONE_REG of SSP",	do_ssp,			true },
	{ "the same KVM_SET_CPUID2 again",	do_cpuid,		true },
	{ "KVM_SET_FPU",			do_fpu,			false },
	{ "KVM_SET_XSAVE of init state",	do_xsave_init,		false },
};

/*
 * Verify that what a vCPU was given, CET and XSAVE state alike, outlives every
 * ioctl that does not set just that, and that it is read back by others than
 * those that set it.
 */
TEST_F(cet_fpstate, ioctls)
{
	bool (*kept)(struct xcomp *x, unsigned int seed, const char *when);
	struct xcomp *x = &self->x;
	unsigned int i;

	xstate_add_vcpu(x, self->vm, 0);
	for (i = 0; i < ARRAY_SIZE(disturbances); i++) {
		ASSERT_TRUE(xstate_fill(x, i));
		EXPECT_TRUE(disturbances[i].fn(x)) {
			ksft_print_msg("%s: %s does not do as it must\n",
				       x->name, disturbances[i].name);
		}
		kept = disturbances[i].keeps_fpu ? xstate_kept : xstate_cet_kept;
		ASSERT_TRUE(kept(x, i, disturbances[i].name));
	}
}

/*
 * Verify that bad values, the other half of CET, and MSRs that the guest has
 * not are refused, and that nothing changes by the attempt.
 */
TEST_F(cet_fpstate, refused)
{
	struct xcomp *x = &self->x;
	unsigned int i;

	if (!xkvm_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	xstate_add_vcpu(x, self->vm, 0);
	ASSERT_TRUE(xstate_fill(x, 0));

	for (i = 0; i < ARRAY_SIZE(cet_bad_values); i++)
		EXPECT_TRUE(xcomp_same(x, xf_msr_name(cet_bad_values[i].msr), false,
				       xkvm_set_msr(x->vcpu, cet_bad_values[i].msr,
						    cet_bad_values[i].value)));
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++)
		if (!xcomp_has_msr(x, xcomp_cet_msrs[i]))
			EXPECT_FALSE(xkvm_set_msr(x->vcpu, xcomp_cet_msrs[i],
						  16)) {
				ksft_print_msg("%s: wanted refused got taken\n",
					       xf_msr_name(xcomp_cet_msrs[i]));
			}
	EXPECT_EQ(x->shstk_on, xkvm_set_msr(x->vcpu, XF_MSR_U_CET,
					    XCOMP_CET_WRSS_EN));
	EXPECT_EQ(x->ibt_on, xkvm_set_msr(x->vcpu, XF_MSR_U_CET,
					  XCOMP_CET_SUPPRESS_DIS));
	if (x->shstk_on || x->ibt_on)
		xkvm_set_msr(x->vcpu, XF_MSR_U_CET,
			     xstate_msr_value(x, XF_MSR_U_CET, 0));
	EXPECT_TRUE(xstate_kept(x, 0, "refused KVM_SET_MSRS"));
}

/*
 * Verify that KVM_SET_ONE_REG and KVM_GET_ONE_REG reach the MSRs in the fpstate
 * as KVM_SET_MSRS and KVM_GET_MSRS do, and refuse those that the guest has not.
 */
TEST_F(cet_fpstate, one_reg)
{
	struct xcomp *x = &self->x;
	uint64_t value;
	uint32_t msr;
	unsigned int i;

	if (xkvm_cap(x->kvm, KVM_CAP_ONE_REG) <= 0)
		SKIP(return, "no KVM_CAP_ONE_REG");
	if (!xkvm_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	xstate_add_vcpu(x, self->vm, 0);
	ASSERT_TRUE(xstate_fill(x, 0));
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		msr = xcomp_cet_msrs[i];
		if (!xcomp_has_msr(x, msr)) {
			value = 16;
			EXPECT_NE(0, xkvm_one_reg(x->vcpu, KVM_SET_ONE_REG,
						  REG_MSR(msr), &value));
			continue;
		}
		EXPECT_EQ(0, xkvm_one_reg(x->vcpu, KVM_GET_ONE_REG,
					  REG_MSR(msr), &value));
		EXPECT_TRUE(xf_msr_kept(x->name, msr, "KVM_SET_MSRS",
					xstate_msr_value(x, msr, 0), value));
		value = xstate_msr_value(x, msr, 1);
		EXPECT_EQ(0, xkvm_one_reg(x->vcpu, KVM_SET_ONE_REG,
					  REG_MSR(msr), &value));
	}
	EXPECT_TRUE(xstate_cet_kept(x, 1, "KVM_SET_ONE_REG"));
	EXPECT_TRUE(xstate_ssp_kept(x, 0, "KVM_SET_ONE_REG of others"));
}

/*
 * Verify that KVM lists for saving what it has: SSP exactly if the guest has
 * shadow stacks, and the MSRs exactly if guests may have them at all.
 */
TEST_F(cet_fpstate, listed)
{
	struct {
		struct kvm_reg_list head;
		uint64_t ids[8];
	} list = { .head.n = 8 };
	struct xcomp *x = &self->x, all = *x;
	unsigned int i;

	all.shstk_on = xcomp_offers_shstk();
	all.ibt_on = xcomp_offers_ibt();
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++)
		EXPECT_EQ(xcomp_has_msr(&all, xcomp_cet_msrs[i]),
			  kvm_msr_is_in_save_restore_list(xcomp_cet_msrs[i])) {
			ksft_print_msg("%s in KVM_GET_MSR_INDEX_LIST\n",
				       xf_msr_name(xcomp_cet_msrs[i]));
		}
	if (xkvm_cap(x->kvm, KVM_CAP_ONE_REG) <= 0)
		return;
	xstate_add_vcpu(x, self->vm, 0);
	ASSERT_EQ(0, ioctl(x->vcpu, KVM_GET_REG_LIST, &list));
	EXPECT_EQ(x->shstk_on, list.head.n);
	if (x->shstk_on)
		EXPECT_EQ(XKVM_REG_GUEST_SSP, list.ids[0]);
}

/*
 * Verify that the KVM_SET_CPUID2 that brings AMX, and with it a larger fpstate,
 * loses nothing, and neither does the same one again. Known kernels lose all
 * that the old fpstate held, and only that; half of it, or garbage, is a bug of
 * another kind. Without the permission KVM_SET_CPUID2 fails and loses nothing.
 */
TEST_F(cet_fpstate, first_amx_cpuid)
{
	struct xcomp *x = &self->x, amx = *x;
	uint64_t kept, initial, pkru;

	x->amx_on = false;
	xstate_add_vcpu(x, self->vm, 0);
	ASSERT_TRUE(xstate_fill(x, 0));
	EXPECT_TRUE(xcomp_same_errno(x, "KVM_SET_CPUID2 with AMX",
				     amx.amx_on ? 0 : EPERM,
				     xcomp_set_cpuid(&amx, x->vcpu, true)));
	if (!amx.amx_on) {
		EXPECT_TRUE(xstate_kept(x, 0, "a refused KVM_SET_CPUID2"));
		return;
	}

	/* With AMX to be had, XCR0 is what it was. */
	EXPECT_TRUE(xstate_kept_elsewhere(x, 0, "the first CPUID with AMX"));
	amx.vcpu = x->vcpu;
	xstate_sort(&amx, 0, &kept, &initial);
	pkru = xstate_sorted(&amx) & XF_BIT(XF_PKRU);
	EXPECT_EQ(pkru, kept & XF_BIT(XF_PKRU));
	if (kept != xstate_sorted(&amx))
		EXPECT_EQ(xstate_sorted(&amx) & ~pkru, initial & ~pkru);
	EXPECT_TRUE(kept == xstate_sorted(&amx) || kept == pkru) {
		ksft_print_msg("%s: a mixture is left: wanted %#lx or %#lx got %#lx\n",
			       x->name, xstate_sorted(&amx), pkru, kept);
	}

	ASSERT_TRUE(xstate_fill(&amx, 1));
	ASSERT_TRUE(do_cpuid(&amx));
	EXPECT_TRUE(xstate_kept(&amx, 1, "the same KVM_SET_CPUID2 again"));
	if (kept == pkru && __test_passed(_metadata))
		xstate_xfail(_metadata,
			     "first KVM_SET_CPUID2 with AMX drops the fpstate");
}

static void check_init(struct __test_metadata *_metadata, struct xcomp *x,
		       unsigned int seed)
{
	uint64_t kept, initial, fpu = xstate_filled(x);
	struct kvm_xcrs xcrs;

	EXPECT_TRUE(xstate_cet_is_zero(x, "after INIT"));
	xstate_sort(x, seed, &kept, &initial);
	EXPECT_TRUE(xcomp_same(x, "XSAVE state that INIT leaves alone", fpu,
			       kept & fpu));
	if (xcomp_guest_xss(x))
		EXPECT_TRUE(xf_msr_kept(x->name, XF_MSR_XSS, "INIT",
					xcomp_guest_xss(x),
					xstate_msr(x, XF_MSR_XSS)));
	ASSERT_EQ(0, ioctl(x->vcpu, KVM_GET_XCRS, &xcrs));
	EXPECT_TRUE(xcomp_same(x, "XCR0 after INIT", xcomp_guest_xcr0(x),
			       xcrs.xcrs[0].value));
}

/*
 * Verify that INIT clears CET, in the fpstate and elsewhere, and leaves other
 * XSAVE state, XCR0 and XSS as they are, whether the fpstate is loaded or not
 * when INIT is taken. Another vCPU keeps all that it has.
 */
TEST_F(cet_fpstate, init)
{
	struct xcomp *x = &self->x, other = *x;
	struct kvm_mp_state mp_state;
	struct kvm_vcpu *vcpu;

	__vm_ioctl(self->vm, KVM_CREATE_IRQCHIP, NULL);
	vcpu = xstate_add_vcpu(x, self->vm, 0);
	xstate_add_vcpu(&other, self->vm, 1);
	ASSERT_TRUE(xstate_fill(x, 0));
	ASSERT_TRUE(xstate_fill(&other, 2));

	xstate_send_init(vcpu);
	vcpu_mp_state_get(vcpu, &mp_state);
	check_init(_metadata, x, 0);

	/* There is no memory: the first instruction ends KVM_RUN. */
	ASSERT_TRUE(xstate_fill(x, 1));
	xstate_send_init(vcpu);
	__vcpu_run(vcpu);
	EXPECT_NE(KVM_EXIT_INTR, vcpu->run->exit_reason);
	check_init(_metadata, x, 1);
	EXPECT_TRUE(xstate_kept(&other, 2, "INIT of another vCPU"));
}

/*
 * Verify that vCPUs that one thread serves in turn do not get each other's
 * state, with AMX in the CPUID of some of them only.
 */
TEST_F(cet_fpstate, vcpus_on_one_thread)
{
	struct xcomp x[NR_VCPUS];
	int i, j;

	for (i = 0; i < NR_VCPUS; i++) {
		x[i] = self->x;
		x[i].amx_on &= i != 1;
		xstate_add_vcpu(&x[i], self->vm, i);
		ASSERT_TRUE(xstate_fill(&x[i], i));
	}
	for (i = 0; i < NR_VCPUS; i++) {
		for (j = 0; j < NR_VCPUS; j++)
			EXPECT_TRUE(do_run(&x[j]));
		EXPECT_TRUE(xstate_kept(&x[i], i, "use of other vCPUs"));
	}

	/* What one of them is given anew reaches no other. */
	ASSERT_TRUE(xstate_fill(&x[0], NR_VCPUS));
	for (i = 1; i < NR_VCPUS; i++)
		EXPECT_TRUE(xstate_kept(&x[i], i, "a change of another vCPU"));
	EXPECT_TRUE(xstate_kept(&x[0], NR_VCPUS, "use of other vCPUs"));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
