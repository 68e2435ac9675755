// SPDX-License-Identifier: GPL-2.0-only
/*
 * What guest CPUID says of XSAVE and AMX, and what it does: AMX is offered with
 * all that belongs to it, XCR0 takes what is legal and in CPUID and nothing else,
 * components that KVM does not know have no effect, sizes follow XCR0, and a vCPU
 * that has run keeps its CPUID and with it its fpstate.
 */
#include "xregs.h"

/* ---- XCR0 as the host sets it ---- */

/* 0 or the errno of KVM_SET_XCRS */
static int set_xcr0(struct kvm_vcpu *vcpu, u64 xcr0)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = xcr0 };

	return vcpu_errno(vcpu, KVM_SET_XCRS, &xcrs);
}

/* Whether @xcr0 is one for a guest with @offered in its CPUID */
static bool is_valid(u64 xcr0, u64 offered)
{
	return xcr0_is_legal(xcr0) && !(xcr0 & ~offered);
}

/* Offer @xcr0 to a vCPU that has the least possible one, and give that back. */
static void expect_set_xcr0(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			    u64 xcr0, u64 offered)
{
	bool valid = is_valid(xcr0, offered);

	th_case("XCR0 %#lx with %#lx in CPUID", (unsigned long)xcr0, (unsigned long)offered);
	EXPECT_ERRNO(valid ? 0 : EINVAL, set_xcr0(vcpu, xcr0), "KVM_SET_XCRS");
	EXPECT_XFEATURES(valid ? xcr0 : XFEATURE_MASK_FP, vcpu_xcr0(vcpu),
			 "XCR0 after KVM_SET_XCRS");
	EXPECT_ERRNO(0, set_xcr0(vcpu, XFEATURE_MASK_FP), "KVM_SET_XCRS of x87");
	th_no_case();
}

/* A vCPU and the components in its CPUID: those of the combination but for @hidden */
FIXTURE(xcr0) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	u64 offered;
};

FIXTURE_VARIANT(xcr0) {
	struct xstate_combo combo;
	u64 hidden;
};

FIXTURE_VARIANT_ADD(xcr0, noamx) { { PERM_NONE, NOAMX, CET }, 0 };
FIXTURE_VARIANT_ADD(xcr0, permitted) { { PERM_GUEST, NOAMX, CET }, 0 };
FIXTURE_VARIANT_ADD(xcr0, amx) { { PERM_GUEST, AMX, NOCET }, 0 };
FIXTURE_VARIANT_ADD(xcr0, amx_cet) { { PERM_GUEST, AMX, CET }, 0 };
FIXTURE_VARIANT_ADD(xcr0, tile_data_only) { { PERM_GUEST, AMX, CET }, XFEATURE_MASK_XTILE_CFG };
FIXTURE_VARIANT_ADD(xcr0, tile_cfg_only) { { PERM_GUEST, AMX, CET }, XFEATURE_MASK_XTILE_DATA };
FIXTURE_VARIANT_ADD(xcr0, no_ymm) { { PERM_NONE, NOAMX, CET }, XFEATURE_MASK_YMM };
FIXTURE_VARIANT_ADD(xcr0, no_opmask) { { PERM_NONE, NOAMX, CET }, XFEATURE_MASK_OPMASK };
FIXTURE_VARIANT_ADD(xcr0, no_pkru) { { PERM_NONE, NOAMX, CET }, XFEATURE_MASK_PKRU };

FIXTURE_SETUP(xcr0)
{
	u64 absent = variant->hidden | (variant->combo.amx ? 0 : XFEATURE_MASK_XTILE);
	struct kvm_cpuid2 *cpuid;

	if (!xstate_begin(_metadata, &variant->combo))
		return;
	self->offered = kvm_known_xcr0() & ~absent;
	self->vm = vm_create_barebones();
	self->vcpu = __vm_vcpu_add(self->vm, 0);
	/* The first that the vCPU gets: its fpstate is as large as this one has it. */
	cpuid = xstate_cpuid(&variant->combo);
	cpuid_entry(cpuid, 0xd, 0)->eax &= ~variant->hidden;
	vcpu_init_cpuid(self->vcpu, cpuid);
	free(cpuid);
}

FIXTURE_TEARDOWN(xcr0)
{
	xstate_end(_metadata, self->vm);
}

/*
 * Verify that KVM_SET_XCRS takes, of all sets of components, those that are legal
 * and within guest CPUID, and that all others leave XCR0 alone.
 */
TEST_F(xcr0, host_subsets)
{
	u64 all = kvm_known_xcr0() | XFEATURE_MASK_XTILE, xcr0 = all;

	EXPECT_XFEATURES(XFEATURE_MASK_FP, vcpu_xcr0(self->vcpu), "XCR0 of a new vCPU");
	/* One failure is enough. */
	do {
		expect_set_xcr0(_metadata, self->vcpu, xcr0, self->offered);
		xcr0 = (xcr0 - 1) & all;
	} while (xcr0 != all && !_metadata->exit_code);
}

/*
 * Verify the same for each of the 64 bits, with nothing else, with x87, with all
 * of what the guest has, and for all of that without the bit; and that flags, or
 * more registers than there can be, are refused.
 */
TEST_F(xcr0, host_bits)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = XFEATURE_MASK_FPSSE };
	u64 max = self->offered, bit;
	int i;

	for (i = 0; i < 64; i++) {
		bit = BIT_ULL(i);
		expect_set_xcr0(_metadata, self->vcpu, bit, max);
		expect_set_xcr0(_metadata, self->vcpu, bit | XFEATURE_MASK_FP, max);
		expect_set_xcr0(_metadata, self->vcpu, max | bit, max);
		expect_set_xcr0(_metadata, self->vcpu, max & ~bit, max);
	}
	for (i = 0; i < 32; i++) {
		xcrs.flags = BIT(i);
		EXPECT_ERRNO(EINVAL, vcpu_errno(self->vcpu, KVM_SET_XCRS, &xcrs),
			     "KVM_SET_XCRS with bit %d of flags", i);
	}
	xcrs.flags = 0;
	xcrs.nr_xcrs = KVM_MAX_XCRS + 1;
	EXPECT_ERRNO(EINVAL, vcpu_errno(self->vcpu, KVM_SET_XCRS, &xcrs),
		     "KVM_SET_XCRS of %u registers", xcrs.nr_xcrs);
	EXPECT_XFEATURES(XFEATURE_MASK_FP, vcpu_xcr0(self->vcpu), "XCR0 in the end");
}

/* ---- CPUID that KVM offers, and that of a vCPU ---- */

/*
 * Verify what becomes of a list of registers: of those that are XCR0 the first
 * counts, and there need be none; others, and what lies behind the end of the
 * list, have no effect.  KVM_GET_XCRS has XCR0, and nothing else.
 */
TEST_F(xcr0, entries)
{
	const u64 one = XFEATURE_MASK_FP, two = XFEATURE_MASK_FPSSE;
	const struct {
		const char *name;
		struct kvm_xcrs xcrs;
		u64 wanted;
	} lists[] = {
		{ "none", { .nr_xcrs = 0, .xcrs = { { .value = two } } }, one },
		{ "XCR1", { .nr_xcrs = 1, .xcrs = { { .xcr = 1, .value = two } } }, one },
		{ "no XCR", { .nr_xcrs = 1, .xcrs = { { .xcr = ~0u, .value = two } } }, one },
		{ "XCR1 and XCR0", { .nr_xcrs = 2, .xcrs = { { .xcr = 1 }, { .value = two } } },
		  two },
		{ "XCR0 twice", { .nr_xcrs = 2, .xcrs = { { .value = two }, { .value = one } } },
		  two },
		{ "XCR0 behind the end", { .nr_xcrs = 1, .xcrs = { { .xcr = 1 },
								   { .value = two } } }, one },
		{ "XCR0 as the last of all", { .nr_xcrs = 16, .xcrs = {
			{ .xcr = 1 }, { .xcr = 2 }, { .xcr = 3 }, { .xcr = 4 }, { .xcr = 5 },
			{ .xcr = 6 }, { .xcr = 7 }, { .xcr = 8 }, { .xcr = 9 }, { .xcr = 10 },
			{ .xcr = 11 }, { .xcr = 12 }, { .xcr = 13 }, { .xcr = 14 }, { .xcr = 15 },
			{ .value = two } } }, two },
	};
	struct kvm_xcrs got;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		th_case("%s", lists[i].name);
		EXPECT_ERRNO(0, set_xcr0(self->vcpu, one), "KVM_SET_XCRS of x87");
		EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_XCRS, &lists[i].xcrs),
			     "KVM_SET_XCRS");
		memset(&got, 0xa5, sizeof(got));
		EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_GET_XCRS, &got), "KVM_GET_XCRS");
		EXPECT_SAME(1, got.nr_xcrs, "number of registers");
		EXPECT_SAME(0, got.flags, "flags");
		EXPECT_SAME(0, got.xcrs[0].xcr, "index of the register");
		EXPECT_XFEATURES(lists[i].wanted, got.xcrs[0].value, "XCR0");
	}
}

FIXTURE(xstate_cpuid) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xregs regs;
	u64 mask;		/* the components that those are in */
};

XSTATE_SUITE(xstate_cpuid);

FIXTURE_VARIANT_ADD(xstate_cpuid, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_cpuid, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_cpuid, guest_noamx_cet) { .combo = { PERM_GUEST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_cpuid, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_cpuid, guest_amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };

FIXTURE_SETUP(xstate_cpuid)
{
	if (!xstate_begin(_metadata, &variant->combo))
		return;
	self->vcpu = xstate_new_vcpu(&self->vm, &variant->combo);
	self->mask = xregs_mask(vcpu_xcr0_mask(self->vcpu));
	xregs_fill(&self->regs, self->vcpu, 0);
}

/*
 * Verify that guests are offered those variants of XSAVE and XGETBV that the host
 * uses.  XSAVES takes more than the CPU and the host.
 */
TEST_F(xstate_cpuid, variants)
{
	static const char * const flags[] = { "xsaveopt", "xsavec", "xgetbv1" };
	u32 i, offered = cpuid_regs(kvm_get_supported_cpuid(), 0xd, 1).eax;

	for (i = 0; i < ARRAY_SIZE(flags); i++)
		EXPECT_SAME(xf_cpuinfo_flag(flags[i]), !!(offered & BIT(i)),
			    "%s, bit %u of CPUID.(0xD,1).EAX, as in /proc/cpuinfo", flags[i], i);
}

/*
 * Verify that guests are offered those AMX instructions that the host lists, with the
 * CPU's palettes, and with IA32_XFD where the host uses XTILE_DATA; and no AMX that the
 * CPU has not, of later kinds as well, all of which not every kernel knows.
 */
TEST_F(xstate_cpuid, amx_is_complete)
{
	static const struct {
		const char *flag;
		u32 bit;
	} insns[] = { { "amx_bf16", 22 }, { "amx_tile", 24 }, { "amx_int8", 25 } };
	const struct kvm_cpuid2 *offered = kvm_get_supported_cpuid();
	bool tile = xf_cpuinfo_flag("amx_tile");
	struct xf_regs later = cpuid_regs(offered, 7, 1), cpu = xf_cpuid(7, 1);
	const struct xf_regs none = { };
	u32 i;

	for (i = 0; i < ARRAY_SIZE(insns); i++)
		EXPECT_SAME(xf_cpuinfo_flag(insns[i].flag),
			    cpuid_regs(offered, 7, 0).edx >> insns[i].bit & 1,
			    "%s, bit %u of CPUID.(7,0).EDX, as in /proc/cpuinfo", insns[i].flag,
			    insns[i].bit);
	for (i = 0; i < 2; i++)
		expect_leaf(_metadata, 0x1d, i, tile ? xf_cpuid(0x1d, i) : none,
			    cpuid_regs(offered, 0x1d, i));
	EXPECT_SAME(tile ? xf_cpuid(0x1e, 0).ebx : 0, cpuid_regs(offered, 0x1e, 0).ebx,
		    "TMUL in CPUID.(0x1e,0).EBX");
	EXPECT_SAME(0, later.eax & ~cpu.eax & BIT(21), "AMX-FP16 that the CPU has not");
	EXPECT_SAME(0, later.edx & ~cpu.edx & BIT(8), "AMX-COMPLEX that the CPU has not");
	EXPECT_SAME(0, cpuid_regs(offered, 0x1e, 1).eax & ~xf_cpuid(0x1e, 1).eax,
		    "AMX in CPUID.(0x1e,1).EAX that the CPU has not");
	if (xf_has_amx())
		EXPECT_SAME(true, kvm_cpu_has(X86_FEATURE_XFD), "IA32_XFD in CPUID.(0xD,1).EAX");
}

/*
 * Verify that a CPUID with each and every component in it, less AMX where it needs
 * a permission, lets XCR0 take none that KVM does not know.
 */
TEST_F(xstate_cpuid, unknown_components)
{
	struct kvm_cpuid2 *cpuid = xstate_cpuid(&variant->combo);
	u64 known = kvm_known_xcr0(), xcr0;
	int i;

	cpuid_entry(cpuid, 0xd, 0)->eax = ~(variant->combo.amx ? 0 : XFEATURE_MASK_XTILE);
	cpuid_entry(cpuid, 0xd, 0)->edx = ~0u;
	vcpu_init_cpuid(self->vcpu, cpuid);
	free(cpuid);
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
	for (i = 0; i < 64; i++) {
		xcr0 = vcpu_xcr0_mask(self->vcpu) | BIT_ULL(i);
		if (!(known & BIT_ULL(i)))
			EXPECT_ERRNO(EINVAL, set_xcr0(self->vcpu, xcr0), "KVM_SET_XCRS of %#lx, %s",
				     (unsigned long)xcr0, xf_name(i));
	}
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "refused bits of XCR0");
}

/* Verify that XSAVEC alone is enough for the compacted size to follow XCR0. */
TEST_F(xstate_cpuid, size_for_xsavec)
{
	const u64 xcr0[] = { XFEATURE_MASK_FP, vcpu_xcr0_mask(self->vcpu) };
	unsigned int i;

	if (!vcpu_cpuid_has(self->vcpu, X86_FEATURE_XSAVEC))
		SKIP(return, "XSAVEC is not in guest CPUID");
	vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_XSAVES);
	for (i = 0; i < ARRAY_SIZE(xcr0); i++) {
		ASSERT_EQ(0, set_xcr0(self->vcpu, xcr0[i]));
		EXPECT_SAME(xf_compacted_size(xcr0[i]),
			    cpuid_regs(vcpu_current_cpuid(self->vcpu), 0xd, 1).ebx,
			    "CPUID.(0xD,1).EBX of the vCPU with XCR0 %#lx", (unsigned long)xcr0[i]);
	}
}

/*
 * Verify that x87 and SSE state of a vCPU without XSAVE in CPUID, or without any
 * CPUID, comes back from KVM_GET_XSAVE2.
 */
TEST_F(xstate_cpuid, no_xsave)
{
	struct kvm_cpuid2 *cpuid = xstate_cpuid(&variant->combo);
	struct kvm_vcpu *vcpu;
	u8 *area;
	u32 i;

	for (i = 0; i < 64; i++)
		cpuid_drop(cpuid, 0xd, i);
	for (i = 0; i < 2; i++) {
		th_case("a vCPU without %s", i ? "leaf 0xD" : "CPUID");
		vcpu = __vm_vcpu_add(self->vm, i + 1);
		if (i)
			vcpu_init_cpuid(vcpu, cpuid);
		vcpu_set_xregs_area(_metadata, vcpu, &self->regs, XFEATURE_MASK_FPSSE);
		area = vcpu_area(vcpu);
		EXPECT_XFEATURES(XFEATURE_MASK_FPSSE, xarea_header(area, 0), "XSTATE_BV");
		expect_area(_metadata, area, &self->regs, XFEATURE_MASK_FPSSE, 0, "KVM_SET_XSAVE");
	}
	th_no_case();
	free(cpuid);
}

/*
 * KVM takes the CPUID that the vCPU has, whatever its XCR0 and IA32_XSS are
 * meanwhile; in the end they have all.  Nothing here may read CPUID, as much of
 * libkvm does: that is when KVM brings the sizes in it up to date at the latest.
 */
static void expect_same_taken(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			      struct kvm_cpuid2 *cpuid)
{
	u64 xcr0 = vcpu_xcr0_mask(vcpu), xss = vcpu_xss_mask(vcpu);
	int i;

	for (i = 0; i < 4; i++) {
		th_case("all in XCR0: %d, in IA32_XSS: %d", i & 1, i >> 1);
		EXPECT_ERRNO(0, set_xcr0(vcpu, i & 1 ? xcr0 : XFEATURE_MASK_FP), "KVM_SET_XCRS");
		EXPECT_THAT(!xss || vcpu_takes_msr(vcpu, MSR_IA32_XSS, i >> 1 ? xss : 0),
			    "KVM_SET_MSRS of IA32_XSS: not taken");
		EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID2, cpuid), "the same KVM_SET_CPUID2");
	}
	th_no_case();
}

/*
 * Verify that once the vCPU has run, KVM_SET_CPUID2 takes the CPUID that it has, and
 * not one with AMX added or taken away.  Nothing is lost, least of all the fpstate to
 * one that might have grown.
 */
TEST_F(xstate_cpuid, after_run)
{
	bool amx = variant->combo.amx;
	struct kvm_cpuid2 *before;

	if (!xstate_run_without_memory(_metadata, self->vcpu))
		return;
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
	expect_same_taken(_metadata, self->vcpu, xstate_cpuid_with(&variant->combo, amx));
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "the same KVM_SET_CPUID2");

	before = vcpu_current_cpuid(self->vcpu);
	EXPECT_ERRNO(EINVAL, vcpu_errno(self->vcpu, KVM_SET_CPUID2,
					xstate_cpuid_with(&variant->combo, !amx)),
		     "KVM_SET_CPUID2 with AMX %s", amx ? "taken away" : "added");
	expect_same_cpuid(_metadata, self->vcpu, before, "after a refused KVM_SET_CPUID2");
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "a refused KVM_SET_CPUID2");
}

/* ---- XCR0 as the guest sets it ---- */

/* One XSETBV, and the vector that it raises */
struct try {
	u64 value;
	u32 xcr;
	u8 vector;
};

/* All that the guest tries, and CPUID with CR4.OSXSAVE cleared and set */
static struct sweep {
	u64 max;
	bool osxsave_off, osxsave_on;
	u64 xcr0_read;			/* by XGETBV after the first XSETBV */
	u32 nr;
	struct try tries[4096 + 128];
} sweep;

static INTEGER_ONLY void guest_sweep(void)
{
	struct try *t;

	for (t = sweep.tries; t < sweep.tries + sweep.nr; t++)
		t->vector = xsetbv_safe(t->xcr, t->value);
}

static void guest_code(void)
{
	guest_enable_xstate(sweep.max);
	sweep.xcr0_read = xgetbv(0);
	guest_leave();
	set_cr4(get_cr4() & ~X86_CR4_OSXSAVE);
	sweep.osxsave_off = this_cpu_has(X86_FEATURE_OSXSAVE);
	set_cr4(get_cr4() | X86_CR4_OSXSAVE);
	sweep.osxsave_on = this_cpu_has(X86_FEATURE_OSXSAVE);
	guest_sweep();
	guest_leave();
}

static void add_try(struct sweep *s, u32 xcr, u64 value)
{
	TEST_ASSERT(s->nr < ARRAY_SIZE(s->tries), "too many values of XCR0");
	s->tries[s->nr++] = (struct try) { .xcr = xcr, .value = value };
}

/* Every set of components, each single bit on top of all, other registers, and all again */
static void add_tries(struct sweep *s)
{
	u64 xcr0 = s->max;
	int i;

	do {
		add_try(s, 0, xcr0);
		xcr0 = (xcr0 - 1) & s->max;
	} while (xcr0 != s->max);
	for (i = 0; i < 64; i++)
		add_try(s, 0, s->max | BIT_ULL(i));
	for (i = 0; i < 32; i++)
		add_try(s, BIT(i), XFEATURE_MASK_FP);
	add_try(s, 0, s->max);
}

static void expect_try(struct __test_metadata *const _metadata, const struct try *t, u8 wanted)
{
	EXPECT_THAT(wanted == t->vector, "XSETBV of %#lx to XCR%u: wanted %s got %s",
		    (unsigned long)t->value, t->xcr, vector_name(wanted), vector_name(t->vector));
}

/*
 * Verify that XSETBV takes every XCR0 that the architecture allows, and raises
 * #GP for all others: an incomplete AVX-512 or AMX, bits not in guest CPUID, any
 * register but XCR0.  CPUID shows CR4.OSXSAVE, as XSETBV depends on it.
 */
TEST_F(xstate_cpuid, xsetbv)
{
	struct sweep *s;
	struct try *t;

	if (!xstate_need_guests(_metadata))
		return;
	kvm_vm_free(self->vm);
	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_code);
	s = addr_gva2hva(self->vm, (gva_t)&sweep);
	s->max = vcpu_xcr0_mask(self->vcpu);
	add_tries(s);

	/* What KVM takes and the CPU does not is an oops of the host once the guest runs. */
	set_xcr0(self->vcpu, XFEATURE_MASK_FP);
	for (t = s->tries; t < s->tries + s->nr && !t->xcr && !_metadata->exit_code; t++)
		expect_set_xcr0(_metadata, self->vcpu, t->value, s->max);
	ASSERT_EQ(0, _metadata->exit_code);

	if (!xregs_need_xsetbv_exit(_metadata, self->vcpu, &s->xcr0_read))
		return;
	xregs_run(self->vcpu);
	for (t = s->tries; t < s->tries + s->nr; t++)
		expect_try(_metadata, t, !t->xcr && is_valid(t->value, s->max) ? 0 : GP_VECTOR);
	EXPECT_XFEATURES(s->max, vcpu_xcr0(self->vcpu), "XCR0 in the end");
	EXPECT_SAME(false, s->osxsave_off, "OSXSAVE in CPUID with CR4.OSXSAVE cleared");
	EXPECT_SAME(true, s->osxsave_on, "OSXSAVE in CPUID with CR4.OSXSAVE set");
}

/* KVM refuses @cpuid if any bit of @mask in its register @reg changes, or all of them. */
static void expect_bits_refused(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
				struct kvm_cpuid2 *cpuid, u32 *reg, u32 mask)
{
	u32 i, bits;

	for (i = 0; i <= 32; i++) {
		bits = i < 32 ? mask & 1u << i : mask;
		if (!bits)
			continue;
		*reg ^= bits;
		EXPECT_ERRNO(EINVAL, vcpu_errno(vcpu, KVM_SET_CPUID2, cpuid),
			     "KVM_SET_CPUID2 with bits %#x changed", bits);
		*reg ^= bits;
	}
}

/* KVM refuses all changes of what AMX, CET and XSAVE depend on, and losses of sub-leaves. */
static void expect_changes_refused(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
				   const struct kvm_cpuid2 *before)
{
	const struct {
		u32 function, index, reg, mask;
	} fixed[] = {
		{ 0xd, 0, KVM_CPUID_EAX, XFEATURE_MASK_XTILE },
		{ 0xd, 0, KVM_CPUID_EAX, ~0u }, { 0xd, 0, KVM_CPUID_EDX, ~0u },
		{ 0xd, 1, KVM_CPUID_EAX, ~0u }, { 0xd, 1, KVM_CPUID_ECX, ~0u },
		{ 0xd, 1, KVM_CPUID_EDX, ~0u },
		{ 7, 0, KVM_CPUID_ECX, BIT(X86_FEATURE_SHSTK.bit) },
		{ 7, 0, KVM_CPUID_EDX, BIT(X86_FEATURE_IBT.bit) | CPUID_7_EDX_AMX },
	};
	struct kvm_cpuid2 *cpuid = cpuid_copy(before);
	struct kvm_cpuid_entry2 *e;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(fixed); i++) {
		e = cpuid_entry(cpuid, fixed[i].function, fixed[i].index);
		th_case("E%cX of CPUID.(%#x,%u)", 'A' + fixed[i].reg, e->function, e->index);
		expect_bits_refused(_metadata, vcpu, cpuid, &e->eax + fixed[i].reg, fixed[i].mask);
	}
	th_no_case();
	for (i = 0; i < 63; i++) {
		memcpy(cpuid, before, sizeof(*before) + before->nent * sizeof(*e));
		cpuid_drop(cpuid, 0xd, i);
		if (cpuid->nent != before->nent)
			EXPECT_ERRNO(EINVAL, vcpu_errno(vcpu, KVM_SET_CPUID2, cpuid),
				     "KVM_SET_CPUID2 without sub-leaf %u of 0xD", i);
	}
	free(cpuid);
}

/*
 * Verify that once the vCPU has run no bit of its CPUID that AMX, CET or XSAVE
 * depend on can change, neither come nor go, and that the attempt costs it nothing:
 * not its CPUID, no state, nor the size of that.
 */
TEST_F(xstate_cpuid, bits_after_run)
{
	struct kvm_cpuid2 *before;
	struct kvm_xsave area;

	if (!xstate_run_without_memory(_metadata, self->vcpu))
		return;
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
	before = vcpu_current_cpuid(self->vcpu);
	expect_changes_refused(_metadata, self->vcpu, before);
	expect_same_cpuid(_metadata, self->vcpu, before, "after refused KVM_SET_CPUID2");
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_CPUID2, before),
		     "the same KVM_SET_CPUID2 after refused ones");
	EXPECT_ERRNO(vcpu_xsave_size(self->vcpu) > sizeof(area) ? EINVAL : 0,
		     vcpu_errno(self->vcpu, KVM_GET_XSAVE, &area),
		     "KVM_GET_XSAVE after refused KVM_SET_CPUID2");
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "refused KVM_SET_CPUID2");
}

/* ---- CPUID follows CR4 ---- */

#ifndef X86_CR4_PKE
#define X86_CR4_PKE	BIT(22)
#endif

/* What the guest is to set in CR4, and what CPUID says before and after that */
static u64 cr4_next;
static u32 os_bits[2];

static u32 guest_os_bits(void)
{
	return (this_cpu_has(X86_FEATURE_OSXSAVE) ? 1 : 0) |
	       (this_cpu_has(X86_FEATURE_OSPKE) ? 2 : 0);
}

static void guest_cr4_code(void)
{
	for (;;) {
		os_bits[0] = guest_os_bits();
		set_cr4(cr4_next);
		os_bits[1] = guest_os_bits();
		GUEST_SYNC(0);
	}
}

static u32 cr4_os_bits(u64 cr4)
{
	return (cr4 & X86_CR4_OSXSAVE ? 1 : 0) | (cr4 & X86_CR4_PKE ? 2 : 0);
}

/* The same in KVM_GET_CPUID2 */
static u32 vcpu_os_bits(struct kvm_vcpu *vcpu)
{
	struct kvm_cpuid2 *cpuid = vcpu_current_cpuid(vcpu);
	u32 bits;

	bits = (cpuid_regs(cpuid, 1, 0).ecx & BIT(X86_FEATURE_OSXSAVE.bit) ? 1 : 0) |
	       (cpuid_regs(cpuid, 7, 0).ecx & BIT(X86_FEATURE_OSPKE.bit) ? 2 : 0);
	free(cpuid);
	return bits;
}

/*
 * Verify that OSXSAVE and OSPKE in CPUID are CR4.OSXSAVE and CR4.PKE at once, for
 * the guest and for KVM_GET_CPUID2, whether the guest has set them or the host.
 */
TEST_F(xstate_cpuid, os_bits)
{
	u64 pke = kvm_cpu_has(X86_FEATURE_PKU) ? X86_CR4_PKE : 0, cr4;
	struct kvm_sregs sregs;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	unsigned int i;

	if (!xstate_need_guests(_metadata))
		return;
	vcpu = xstate_new_guest(&vm, &variant->combo, guest_cr4_code);
	vcpu_sregs_get(vcpu, &sregs);
	cr4 = sregs.cr4 & ~(X86_CR4_OSXSAVE | X86_CR4_PKE);
	/* From each to each, twice */
	for (i = 0; i < 32; i++) {
		sregs.cr4 = cr4 | (i & 1 ? X86_CR4_OSXSAVE : 0) | (i & 2 ? pke : 0);
		cr4_next = cr4 | (i & 4 ? X86_CR4_OSXSAVE : 0) | (i & 8 ? pke : 0);
		sync_global_to_guest(vm, cr4_next);
		th_case("CR4 %#llx by the host, then %#lx by the guest", sregs.cr4,
			(unsigned long)cr4_next);
		vcpu_sregs_set(vcpu, &sregs);
		EXPECT_SAME(cr4_os_bits(sregs.cr4), vcpu_os_bits(vcpu),
			    "OSXSAVE and OSPKE in KVM_GET_CPUID2 after KVM_SET_SREGS");
		xstate_run(vcpu, UCALL_SYNC);
		sync_global_from_guest(vm, os_bits);
		EXPECT_SAME(cr4_os_bits(sregs.cr4), os_bits[0],
			    "OSXSAVE and OSPKE of the guest after KVM_SET_SREGS");
		EXPECT_SAME(cr4_os_bits(cr4_next), os_bits[1],
			    "OSXSAVE and OSPKE of the guest after MOV to CR4");
		EXPECT_SAME(cr4_os_bits(cr4_next), vcpu_os_bits(vcpu),
			    "OSXSAVE and OSPKE in KVM_GET_CPUID2 after MOV to CR4");
	}
	kvm_vm_free(vm);
}

XSTATE_IOCTL_HARNESS_MAIN
