// SPDX-License-Identifier: GPL-2.0-only
/*
 * XCR0 of a guest: which values XSETBV and KVM_SET_XCRS take.
 *
 * Both must take what the architecture allows of what guest CPUID has, and
 * nothing else, whatever the process may do and the host has. What is refused
 * must change nothing.
 */
#include "xstate_guest.h"
#include "xstate_vcpu.h"

/*
 * A vCPU and the components that its CPUID has, which are those of the
 * combination but for @hidden; and all that KVM could take for offered.
 */
FIXTURE(xcr0) {
	struct xcomp x;
	struct kvm_vm *vm;
	u64 offered, all;
	u64 taint;
};

FIXTURE_VARIANT(xcr0) {
	const char *name;
	u64 hidden;
};

FIXTURE_VARIANT_ADD(xcr0, noamx) { .name = "none_noamx_cet" };
FIXTURE_VARIANT_ADD(xcr0, permitted) { .name = "guest_noamx_cet" };
FIXTURE_VARIANT_ADD(xcr0, amx) { .name = "guest_amx_nocet" };
FIXTURE_VARIANT_ADD(xcr0, amx_cet) { .name = "guest_amx_cet" };

FIXTURE_VARIANT_ADD(xcr0, tile_data_only) {
	.name = "guest_amx_cet", .hidden = XF_BIT(XF_XTILE_CFG),
};

FIXTURE_VARIANT_ADD(xcr0, tile_cfg_only) {
	.name = "guest_amx_cet", .hidden = XF_BIT(XF_XTILE_DATA),
};

FIXTURE_VARIANT_ADD(xcr0, no_ymm) {
	.name = "none_noamx_cet", .hidden = XF_BIT(XF_YMM),
};

FIXTURE_VARIANT_ADD(xcr0, no_opmask) {
	.name = "none_noamx_cet", .hidden = XF_BIT(XF_OPMASK),
};

FIXTURE_VARIANT_ADD(xcr0, no_pkru) {
	.name = "none_noamx_cet", .hidden = XF_BIT(XF_PKRU),
};

/* Give @c those components of the combination that the variant does not hide. */
static void shape(struct xcomp *x, struct kvm_cpuid2 *c, u64 hidden)
{
	xcomp_shape_cpuid(x, c, x->amx_on);
	xkvm_cpuid_entry(c, 0xd, 0)->eax &= ~hidden;
}

FIXTURE_SETUP(xcr0)
{
	struct xcomp *x = &self->x;
	struct kvm_cpuid2 *c;

	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (x->amx && !x->amx_on)
		SKIP(return, "no AMX on this machine");
	self->offered = xcomp_guest_xcr0(x) & ~variant->hidden;
	self->all = xcomp_known_xcr0(x) | XF_XTILE;

	self->vm = vm_create_barebones();
	x->vcpu = __vm_vcpu_add(self->vm, 0)->fd;
	c = xkvm_supported_cpuid(x->kvm);
	ASSERT_NE(NULL, c);
	shape(x, c, variant->hidden);
	ASSERT_EQ(0, ioctl(x->vcpu, KVM_SET_CPUID2, c));
}

FIXTURE_TEARDOWN(xcr0)
{
	EXPECT_FALSE(xstate_warned(self->taint));
	if (self->vm)
		kvm_vm_free(self->vm);
}

static u64 read_xcr0(struct xcomp *x)
{
	struct kvm_xcrs xcrs;

	TEST_ASSERT(!ioctl(x->vcpu, KVM_GET_XCRS, &xcrs),
		    "KVM_GET_XCRS: wanted success got %s", strerror(errno));
	return xcrs.xcrs[0].value;
}

/* Offer @xcr0 to a vCPU that has the least possible one. */
static bool judged_right(struct xcomp *x, u64 offered, u64 xcr0)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = xcr0 };
	bool ok = xstate_xcr0_legal(xcr0) && !(xcr0 & ~offered);
	int error = ioctl(x->vcpu, KVM_SET_XCRS, &xcrs) ? errno : 0;
	u64 got = read_xcr0(x);

	TEST_ASSERT(xkvm_set_xcr0(x->vcpu, XF_BIT(XF_FP)),
		    "KVM_SET_XCRS: wanted 1 taken, got %s", strerror(errno));
	if (error == (ok ? 0 : EINVAL) && got == (ok ? xcr0 : XF_BIT(XF_FP)))
		return true;
	ksft_print_msg("KVM_SET_XCRS of %#lx: wanted %s got %s, XCR0 %#lx\n",
		       (unsigned long)xcr0, ok ? "success" : strerror(EINVAL),
		       error ? strerror(error) : "success", (unsigned long)got);
	return false;
}

/*
 * Verify that KVM_SET_XCRS takes, of all sets of components, those that are
 * legal and within guest CPUID, and that all others leave XCR0 alone.
 */
TEST_F(xcr0, host_subsets)
{
	u64 xcr0 = self->all;

	ASSERT_EQ(XF_BIT(XF_FP), read_xcr0(&self->x));
	for (;; xcr0 = (xcr0 - 1) & self->all) {
		ASSERT_TRUE(judged_right(&self->x, self->offered, xcr0));
		if (!xcr0)
			break;
	}
}

/*
 * Verify the same for each of the 64 bits, with nothing else, with x87, with
 * all of what the guest has, and for all of that without the bit; and that
 * flags, or more registers than there can be, are refused.
 */
TEST_F(xcr0, host_bits)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = XF_FPSSE };
	u64 max = self->offered;
	int i;

	for (i = 0; i < 64; i++) {
		EXPECT_TRUE(judged_right(&self->x, self->offered, XF_BIT(i)));
		EXPECT_TRUE(judged_right(&self->x, self->offered,
					 XF_BIT(i) | XF_BIT(XF_FP)));
		EXPECT_TRUE(judged_right(&self->x, self->offered,
					 max | XF_BIT(i)));
		EXPECT_TRUE(judged_right(&self->x, self->offered,
					 max & ~XF_BIT(i)));
	}
	for (i = 0; i < 32; i++) {
		xcrs.flags = 1u << i;
		EXPECT_EQ(EINVAL, ioctl(self->x.vcpu, KVM_SET_XCRS, &xcrs) ?
				  errno : 0);
	}
	xcrs.flags = 0;
	xcrs.nr_xcrs = KVM_MAX_XCRS + 1;
	EXPECT_EQ(EINVAL, ioctl(self->x.vcpu, KVM_SET_XCRS, &xcrs) ? errno : 0);
	EXPECT_EQ(XF_BIT(XF_FP), read_xcr0(&self->x));
}

/* ---- the guest ---- */

#define MAX_SUBSETS	4096

#define CPUID_1_ECX_OSXSAVE	XF_BIT(27)

/*
 * What a guest may set, and the vector that each of its XSETBV raises, those of
 * other registers than XCR0 too; CPUID.1.ECX with CR4.OSXSAVE cleared and set
 */
struct sweep {
	u64 max;
	u8 subset[MAX_SUBSETS];
	u8 bit[64];
	u8 other[32];
	u32 cpuid_off, cpuid_on;
};

static struct sweep sweep;

/* In the order in which the host counts, from all components to none */
static GUEST_INTEGER_ONLY void guest_sweep(void)
{
	u64 xcr0 = sweep.max, i;

	for (i = 0;; xcr0 = (xcr0 - 1) & sweep.max, i++) {
		sweep.subset[i] = xsetbv_safe(0, xcr0);
		if (!xcr0)
			break;
	}
	for (i = 0; i < 64; i++)
		sweep.bit[i] = xsetbv_safe(0, sweep.max | BIT_ULL(i));
	xsetbv(0, sweep.max);
	for (i = 0; i < 32; i++)
		sweep.other[i] = xsetbv_safe(BIT(i), XFEATURE_MASK_FP);
}

static GUEST_INTEGER_ONLY u32 guest_cpuid_1_ecx(void)
{
	u32 eax, ebx, ecx, edx;

	cpuid(1, &eax, &ebx, &ecx, &edx);
	return ecx;
}

static GUEST_INTEGER_ONLY void guest_toggle_osxsave(void)
{
	set_cr4(get_cr4() & ~X86_CR4_OSXSAVE);
	sweep.cpuid_off = guest_cpuid_1_ecx();
	set_cr4(get_cr4() | X86_CR4_OSXSAVE);
	sweep.cpuid_on = guest_cpuid_1_ecx();
}

static void guest_code(void)
{
	guest_enable(sweep.max);
	guest_toggle_osxsave();
	guest_sweep();
	guest_leave();
}

FIXTURE(xsetbv) {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	u64 taint;
};

FIXTURE_VARIANT(xsetbv) {
	const char *name;
};

FIXTURE_VARIANT_ADD(xsetbv, noamx) { .name = "none_noamx_cet" };
FIXTURE_VARIANT_ADD(xsetbv, permitted) { .name = "guest_noamx_cet" };
FIXTURE_VARIANT_ADD(xsetbv, amx) { .name = "guest_amx_cet" };

FIXTURE_SETUP(xsetbv)
{
	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(&self->x, variant->name));
	if (self->x.amx && !self->x.amx_on)
		SKIP(return, "no AMX on this machine");
	self->vcpu = xstate_guest(&self->x, guest_code);
}

FIXTURE_TEARDOWN(xsetbv)
{
	EXPECT_FALSE(xstate_warned(self->taint));
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
}

static bool raised(const char *what, u64 xcr0, u64 offered, u8 got)
{
	bool ok = xstate_xcr0_legal(xcr0) && !(xcr0 & ~offered);
	char text[64];

	snprintf(text, sizeof(text), "%s, XCR0 %#lx", what,
		 (unsigned long)xcr0);
	return xarea_same(text, "vector", ok ? 0 : GP_VECTOR, got);
}

/*
 * Verify that XSETBV takes every XCR0 that the architecture allows, and raises
 * #GP for all others: an incomplete AVX-512 or AMX, bits not in guest CPUID, any
 * register but XCR0. CPUID shows CR4.OSXSAVE, as XSETBV depends on it.
 */
TEST_F(xsetbv, guest)
{
	u64 max = xcomp_guest_xcr0(&self->x), xcr0 = max, i;
	struct sweep *s = addr_gva2hva(self->vcpu->vm, (gva_t)&sweep);

	ASSERT_GE(MAX_SUBSETS, 1 << __builtin_popcountll(max));
	s->max = max;
	xregs_run(self->vcpu);
	for (i = 0;; xcr0 = (xcr0 - 1) & max, i++) {
		EXPECT_TRUE(raised("XSETBV of a subset", xcr0, max,
				   s->subset[i]));
		if (!xcr0)
			break;
	}
	for (i = 0; i < 64; i++)
		EXPECT_TRUE(raised("XSETBV of one bit more", max | XF_BIT(i),
				   max, s->bit[i]));
	for (i = 0; i < 32; i++)
		EXPECT_TRUE(xarea_same("XSETBV of another register", "vector",
				       GP_VECTOR, s->other[i]));
	EXPECT_EQ(max, read_xcr0(&self->x));
	EXPECT_EQ(0, s->cpuid_off & CPUID_1_ECX_OSXSAVE);
	EXPECT_EQ(CPUID_1_ECX_OSXSAVE,
		  s->cpuid_on & CPUID_1_ECX_OSXSAVE);
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
