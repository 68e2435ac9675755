// SPDX-License-Identifier: GPL-2.0-only
/*
 * The XSAVE instructions in a guest, with CET and AMX state in use.
 *
 * Load known values into all components by plain instructions, exit to user
 * space, and have the guest save its state: each component must be found where
 * CPUID says, hold its value, and not one other byte may be written. The same
 * for every XCR0, IA32_XSS and set of requested components (RFBM).
 */
#include "xstate_guest.h"
#include "xstate_util.h"

enum insn { XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS };

static const char * const insn_names[] = {
	"XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR", "XRSTORS",
};

/* Bits of CPUID 0xD.1 EAX */
static const u32 insn_cpuid[] = {
	[XSAVE] = 0, [XSAVEOPT] = 1u << 0, [XSAVEC] = 1u << 1,
	[XSAVES] = 1u << 3, [XRSTOR] = 0, [XRSTORS] = 1u << 3,
};

/* One instruction: what it is given, what comes of it, and all memory of it */
struct op {
	u64 xcr0_max, xss_max;	/* all that the guest may set */
	u64 xcr0, xss, rfbm;
	u64 load;		/* components to load from regs first */
	u64 guest_xss;		/* IA32_XSS as it is */
	u64 sizes;		/* read CPUID right before */
	u64 leave;		/* exit to user space right before */
	u64 release;		/* TILERELEASE right before */
	u64 skew;		/* added to the address */
	u32 insn;
	u32 vector;
	u32 standard_size, compacted_size;
	struct xregs regs;
	u8 image[XAREA_SIZE] __aligned(64);
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct op op;

static GUEST_INTEGER_ONLY u8 guest_insn(u32 insn, void *area, u64 rfbm)
{
	u32 lo = rfbm, hi = rfbm >> 32;

	switch (insn) {
	case XSAVE:
		return kvm_asm_safe("xsave64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	case XSAVEOPT:
		return kvm_asm_safe("xsaveopt64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	case XSAVEC:
		return kvm_asm_safe("xsavec64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	case XSAVES:
		return kvm_asm_safe("xsaves64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	case XRSTOR:
		return kvm_asm_safe("xrstor64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	default:
		return kvm_asm_safe("xrstors64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	}
}

/* Write only what changes: both writes exit to KVM, which takes its time. */
static GUEST_INTEGER_ONLY void guest_set_features(u64 xcr0, u64 xss)
{
	if (xgetbv(0) != xcr0)
		xsetbv(0, xcr0);
	if (op.guest_xss != xss)
		wrmsr(XF_MSR_XSS, xss);
	op.guest_xss = xss;
}

/* Nothing in here may touch the registers that were loaded. */
static GUEST_INTEGER_ONLY void guest_op(void)
{
	bool restore = op.insn >= XRSTOR;
	u32 eax, ecx, edx;

	guest_set_features(op.xcr0_max, op.xss_max);
	guest_load_xregs(&op.regs, op.load);
	if (op.release)
		asm volatile("tilerelease");
	guest_set_features(op.xcr0, op.xss);
	if (op.sizes) {
		__cpuid(0xd, 0, &eax, &op.standard_size, &ecx, &edx);
		__cpuid(0xd, 1, &eax, &op.compacted_size, &ecx, &edx);
	}
	if (op.leave)
		guest_leave();

	op.vector = guest_insn(op.insn, (restore ? op.image : op.area) +
			       op.skew, op.rfbm);

	guest_set_features(op.xcr0_max, op.xss_max);
	if (restore && !op.vector)
		guest_insn(XSAVES, op.area, ~0ull);
}

static void guest_code(void)
{
	guest_enable(op.xcr0_max);
	for (;;) {
		guest_op();
		GUEST_SYNC(0);
	}
}

/* The guest, what it may enable, and the taint of the kernel before it */
struct layout {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct op *op;
	u64 xcr0, xss;
	u32 insns;
	u64 taint;
};

FIXTURE(xsaves_layout) {
	struct layout l;
};

FIXTURE_VARIANT(xsaves_layout) {
	const char *name;
	bool hide_xsaves;
};

FIXTURE_VARIANT_ADD(xsaves_layout, none) { .name = "none_noamx_nocet" };
FIXTURE_VARIANT_ADD(xsaves_layout, cet) { .name = "none_noamx_cet" };
FIXTURE_VARIANT_ADD(xsaves_layout, amx) { .name = "guest_amx_nocet" };
FIXTURE_VARIANT_ADD(xsaves_layout, amx_cet) { .name = "guest_amx_cet" };

FIXTURE_VARIANT_ADD(xsaves_layout, noxsaves) {
	.name = "none_noamx_nocet", .hide_xsaves = true,
};

/* Have libkvm leave XSAVES and XRSTORS out of guest CPUID. */
static void hide_xsaves(void)
{
	struct kvm_cpuid2 *c = (struct kvm_cpuid2 *)kvm_get_supported_cpuid();
	struct kvm_cpuid_entry2 *e = xkvm_cpuid_entry(c, 0xd, 1);

	if (e)
		e->eax &= ~insn_cpuid[XSAVES];
}

FIXTURE_SETUP(xsaves_layout)
{
	struct layout *l = &self->l;
	struct xcomp *x = &l->x;
	struct op *o;

	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (x->amx && !x->amx_on)
		SKIP(return, "no AMX on this machine");
	if (x->shstk && !x->shstk_on)
		SKIP(return, "KVM offers no guest CET");
	l->taint = xf_taint();

	if (variant->hide_xsaves)
		hide_xsaves();
	l->vcpu = xstate_guest(x, guest_code);
	l->insns = xkvm_cpuid(xkvm_vcpu_cpuid(x->vcpu), 0xd, 1).eax;
	l->xcr0 = xregs_mask(xcomp_guest_xcr0(x));
	l->xss = xregs_mask(xcomp_guest_xss(x));

	o = addr_gva2hva(l->vcpu->vm, (gva_t)&op);
	o->xcr0_max = l->xcr0;
	o->xss_max = l->xss;
	xregs_fill(&o->regs, 1);
	l->op = o;
}

FIXTURE_TEARDOWN(xsaves_layout)
{
	struct layout *l = &self->l;

	EXPECT_FALSE(xstate_warned(l->taint));
	kvm_vm_free(l->vcpu->vm);
}

static bool insn_missing(struct layout *l, u32 insn)
{
	return insn_cpuid[insn] & ~l->insns;
}

/* Whether the CPU takes @xcr0, given that all its bits are supported */
static bool xcr0_legal(u64 xcr0)
{
	if (!(xcr0 & XF_BIT(XF_FP)))
		return false;
	if (xcr0 & XF_BIT(XF_YMM) && !(xcr0 & XF_BIT(XF_SSE)))
		return false;
	if (xcr0 & XF_AVX512 && ((xcr0 & XF_AVX512) != XF_AVX512 ||
				 !(xcr0 & XF_BIT(XF_YMM))))
		return false;
	return !(xcr0 & XF_XTILE) || (xcr0 & XF_XTILE) == XF_XTILE;
}

/* Have the guest execute the instruction; use its FPU for other things meanwhile. */
static u32 run_op(struct layout *l)
{
	struct op *o = l->op;

	xarea_fill(o->area, XAREA_POISON, sizeof(o->area));
	xarea_set_header(o->area, 0, 0);
	if (o->leave) {
		xregs_run(l->vcpu);
		vcpu_get_msr(l->vcpu, o->xss_max ? XF_MSR_U_CET : MSR_EFER);
	}
	xstate_run(l->vcpu, UCALL_SYNC);
	return o->vector;
}

/* Give back the poison to what an instruction that saves @bv may write. */
static void forgive(u8 *area, u64 bv, u64 format)
{
	u32 i;

	if (bv & XF_BIT(XF_FP)) {
		xarea_fill(area, XAREA_POISON, 24);
		xarea_fill(area + 32, XAREA_POISON, 128);
	}
	/* The standard format keeps MXCSR with AVX as well as with SSE. */
	if (bv & (XF_BIT(XF_SSE) | (format ? 0 : XF_BIT(XF_YMM))))
		xarea_fill(area + 24, XAREA_POISON, 8);
	if (bv & XF_BIT(XF_SSE))
		xarea_fill(area + 160, XAREA_POISON, 256);
	xarea_fill(area + XF_HEADER_OFFSET, XAREA_POISON, format ? 16 : 8);
	for (i = 2; i < 63; i++)
		if (bv & XF_BIT(i))
			xarea_fill(area + xarea_offset(format, i), XAREA_POISON,
				   xf_cpuid(0xd, i).eax);
}

static bool rest_kept(const char *what, const u8 *area, u64 bv, u64 format)
{
	static u8 rest[XAREA_SIZE], poison[XAREA_SIZE];
	size_t n;

	xarea_copy(rest, area, sizeof(rest));
	forgive(rest, bv, format);
	if (!poison[0])
		xarea_fill(poison, XAREA_POISON, sizeof(poison));
	n = xarea_differ(rest, poison, sizeof(rest));
	if (n == sizeof(rest))
		return true;
	ksft_print_msg("%s: byte %zu belongs to no saved component: wanted it kept, got %#x\n",
		       what, n, rest[n]);
	return false;
}

/* Judge an area that the guest's last instruction has saved @in_use to. */
static bool saved(const char *what, const struct op *o, const struct xregs *r,
		  u64 rfbm, u64 in_use, bool compacted)
{
	u64 format = compacted ? rfbm | XF_COMPACTED : 0;
	bool ok = true;

	ok &= xarea_same(what, "XSTATE_BV", rfbm & in_use,
			 xarea_header(o->area, 0));
	if (compacted)
		ok &= xarea_same(what, "XCOMP_BV", format,
				 xarea_header(o->area, 1));
	ok &= xarea_has(what, o->area, r, rfbm & in_use, format);
	return ok && rest_kept(what, o->area, rfbm & in_use, format);
}

/* Execute one instruction that saves, with all components in use, and judge. */
static bool save_ok(struct layout *l, u32 insn, u64 rfbm)
{
	struct op *o = l->op;
	u64 enabled = o->xcr0 | (insn == XSAVES ? o->xss : 0);
	char what[128];

	snprintf(what, sizeof(what), "%s, XCR0 %#lx, XSS %#lx, RFBM %#lx",
		 insn_names[insn], (unsigned long)o->xcr0,
		 (unsigned long)o->xss, (unsigned long)rfbm);
	o->insn = insn;
	o->rfbm = rfbm;
	o->load = l->xcr0 | l->xss;
	if (!xarea_same(what, "vector", 0, run_op(l)))
		return false;
	return saved(what, o, &o->regs, rfbm & enabled, ~0ull, insn >= XSAVEC);
}

/* The same for every RFBM that is a subset of what is enabled */
static bool save_every_rfbm(struct layout *l, u32 insn)
{
	u64 all = l->xcr0 | (insn == XSAVES ? l->xss : 0), rfbm = all;

	for (;; rfbm = (rfbm - 1) & all) {
		if (!save_ok(l, insn, rfbm))
			return false;
		if (!rfbm)
			return true;
	}
}

/*
 * Verify that XSETBV takes every XCR0 that the architecture allows, and raises
 * #GP for all others: an incomplete AVX-512 or AMX, bits not in guest CPUID.
 */
static GUEST_INTEGER_ONLY void guest_sweep_xcr0(void)
{
	u64 xcr0 = op.xcr0_max, i;

	/* One byte for each vector, in the order in which the host counts */
	for (i = 0;; xcr0 = (xcr0 - 1) & op.xcr0_max, i++) {
		op.area[i] = xsetbv_safe(0, xcr0);
		if (!xcr0)
			break;
	}
	for (i = 0; i < 64; i++)
		op.image[i] = xsetbv_safe(0, op.xcr0_max | BIT_ULL(i));
	xsetbv(0, op.xcr0_max);
}

static void guest_sweep_code(void)
{
	guest_sweep_xcr0();
	GUEST_DONE();
}

TEST_F(xsaves_layout, xcr0)
{
	struct layout *l = &self->l;
	u64 max = l->xcr0, xcr0 = max, i;
	struct op *o = l->op;

	ASSERT_GT(XAREA_SIZE, 1 << __builtin_popcountll(max));
	vcpu_arch_set_entry_point(l->vcpu, guest_sweep_code);
	xstate_run(l->vcpu, UCALL_DONE);
	for (i = 0;; xcr0 = (xcr0 - 1) & max, i++) {
		EXPECT_TRUE(xarea_same("XSETBV of a subset", "vector",
				       xcr0_legal(xcr0) ? 0 : GP_VECTOR,
				       o->area[i])) {
			ksft_print_msg("XCR0 was %#lx\n", (unsigned long)xcr0);
		}
		if (!xcr0)
			break;
	}
	for (i = 0; i < 64; i++)
		EXPECT_TRUE(xarea_same("XSETBV of one bit more", "vector",
				       xcr0_legal(max | XF_BIT(i)) &&
				       xcomp_guest_xcr0(&l->x) & XF_BIT(i) ?
				       0 : GP_VECTOR, o->image[i]));
}

/*
 * Verify, for every XCR0 and IA32_XSS, that CPUID 0xD.0 EBX and 0xD.1 EBX give
 * the guest the size of what is enabled right now.
 */
TEST_F(xsaves_layout, sizes)
{
	struct layout *l = &self->l;
	struct op *o = l->op;
	u64 xcr0, xss;
	char what[64];

	o->sizes = true;
	for (xcr0 = l->xcr0; xcr0; xcr0 = (xcr0 - 1) & l->xcr0) {
		for (xss = l->xss; xcr0_legal(xcr0);
		     xss = (xss - 1) & l->xss) {
			snprintf(what, sizeof(what), "XCR0 %#lx, XSS %#lx",
				 (unsigned long)xcr0, (unsigned long)xss);
			o->xcr0 = xcr0;
			o->xss = xss;
			run_op(l);
			ASSERT_TRUE(xarea_same(what, "CPUID 0xD.0 EBX",
					       xf_standard_size(xcr0),
					       o->standard_size));
			if (l->insns & (insn_cpuid[XSAVEC] |
					   insn_cpuid[XSAVES]))
				ASSERT_TRUE(xarea_same(what, "CPUID 0xD.1 EBX",
						       xf_compacted_size(xcr0 | xss),
						       o->compacted_size));
			if (!xss)
				break;
		}
	}
}

/*
 * Verify, for every XCR0 and IA32_XSS, what XSAVES writes, and that KVM_RUN and
 * KVM_GET_MSRS in between cost no component its contents.
 */
TEST_F(xsaves_layout, every_xcr0_and_xss)
{
	struct layout *l = &self->l;
	u64 xcr0, xss;

	if (insn_missing(l, XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	l->op->leave = true;
	for (xcr0 = l->xcr0; xcr0; xcr0 = (xcr0 - 1) & l->xcr0) {
		for (xss = l->xss; xcr0_legal(xcr0);
		     xss = (xss - 1) & l->xss) {
			l->op->xcr0 = xcr0;
			l->op->xss = xss;
			ASSERT_TRUE(save_ok(l, XSAVES, ~0ull));
			if (!xss)
				break;
		}
	}
}

/*
 * Verify what each instruction that saves writes, for every RFBM. A guest with
 * CET needs that of XSAVES only: the others must never save a supervisor
 * component, whatever IA32_XSS and RFBM say.
 */
TEST_F(xsaves_layout, every_rfbm)
{
	struct layout *l = &self->l;
	u32 insn;

	l->op->xcr0 = l->xcr0;
	l->op->xss = l->xss;
	for (insn = XSAVE; insn <= XSAVES; insn++) {
		if (insn_missing(l, insn))
			continue;
		ASSERT_TRUE(l->xss && insn != XSAVES ?
			    save_ok(l, insn, ~0ull) :
			    save_every_rfbm(l, insn));
	}
}

/*
 * Verify that after TILERELEASE neither XSAVEC nor XSAVES save AMX state: not
 * in XSTATE_BV, still in XCOMP_BV, and its place in the area left alone.
 */
TEST_F(xsaves_layout, tilerelease)
{
	struct layout *l = &self->l;
	struct op *o = l->op;
	u64 all;
	u32 i;

	if (insn_missing(l, XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	if (!l->x.amx_on)
		SKIP(return, "the combination has no AMX");
	o->xcr0 = l->xcr0;
	o->xss = l->xss;
	o->release = true;
	o->leave = true;
	o->load = l->xcr0 | l->xss;
	o->rfbm = ~0ull;
	for (i = XSAVEC; i <= XSAVES; i++) {
		o->insn = i;
		all = l->xcr0 | (i == XSAVES ? l->xss : 0);
		ASSERT_EQ(0, run_op(l));
		EXPECT_TRUE(saved(insn_names[i], o, &o->regs, all, ~XF_XTILE,
				  true));
	}
}

/* Registers as they should be after XRSTORS; @initial components are in init. */
struct restored {
	struct xregs regs;
	u64 initial;
};

/* Take over component by component what was restored. */
static void restore_expected(struct restored *to, const struct xregs *from,
			     u64 mask)
{
	const struct xregs_piece *p;
	u32 i;

	for (p = xregs_pieces; p < xregs_pieces + ARRAY_SIZE(xregs_pieces); p++)
		for (i = 0; i < p->count && mask & XF_BIT(p->nr); i++)
			memcpy((u8 *)&to->regs + p->in_regs + i * p->regs_stride,
			       (u8 *)from + p->in_regs + i * p->regs_stride,
			       p->size);
}

/* XRSTORS of @bv out of an area compacted for everything, then XSAVES */
static bool restore_ok(struct layout *l, u64 rfbm, u64 bv)
{
	u64 all = l->xcr0 | l->xss, got;
	struct op *o = l->op;
	struct xregs other;
	struct restored r;
	char what[64];

	snprintf(what, sizeof(what), "XRSTORS, RFBM %#lx, XSTATE_BV %#lx",
		 (unsigned long)rfbm, (unsigned long)bv);
	xregs_fill(&other, 2);
	xarea_put(o->image, &other, bv, all | XF_COMPACTED);
	o->rfbm = rfbm;
	if (!xarea_same(what, "vector", 0, run_op(l)))
		return false;

	/* The CPU may or may not track that a component is initial. */
	r.regs = o->regs;
	r.initial = rfbm & ~bv & all;
	restore_expected(&r, &other, rfbm & bv);
	got = xarea_header(o->area, 0) | r.initial;
	if (!xarea_same(what, "XSTATE_BV", all, got))
		return false;
	return xarea_has(what, o->area, &r.regs, all & ~r.initial,
			 all | XF_COMPACTED);
}

/*
 * Verify that XRSTORS loads those components that RFBM and XSTATE_BV name,
 * makes those initial that only RFBM names, and leaves all others alone.
 */
TEST_F(xsaves_layout, xrstors)
{
	struct layout *l = &self->l;
	u64 all = l->xcr0 | l->xss;
	struct op *o = l->op;
	u32 i;

	if (insn_missing(l, XRSTORS))
		SKIP(return, "XRSTORS is not in guest CPUID");
	o->xcr0 = l->xcr0;
	o->xss = l->xss;
	o->load = all;
	o->leave = true;
	o->insn = XRSTORS;
	ASSERT_TRUE(restore_ok(l, all, all));
	ASSERT_TRUE(restore_ok(l, 0, all));
	for (i = 0; i < 63; i++) {
		if (!(all & XF_BIT(i)))
			continue;
		ASSERT_TRUE(restore_ok(l, XF_BIT(i), all));
		ASSERT_TRUE(restore_ok(l, all & ~XF_BIT(i), all));
		ASSERT_TRUE(restore_ok(l, XF_BIT(i), all & ~XF_BIT(i)));
	}
}

static bool restore_faults(struct layout *l, const char *what,
			   u64 bv, u64 format)
{
	struct op *o = l->op;

	xarea_fill(o->image, 0, sizeof(o->image));
	xarea_set_header(o->image, 0, bv);
	xarea_set_header(o->image, 1, format);
	return xarea_same(what, "vector of XRSTORS", GP_VECTOR, run_op(l));
}

/*
 * Verify that XRSTORS raises #GP for the standard format, for components that
 * neither XCR0 nor IA32_XSS have, for XSTATE_BV beyond XCOMP_BV, and for
 * reserved bytes of the header.
 */
TEST_F(xsaves_layout, xrstors_refused)
{
	struct layout *l = &self->l;
	u64 all = l->xcr0 | l->xss;
	struct op *o = l->op;
	int i;

	if (insn_missing(l, XRSTORS))
		SKIP(return, "XRSTORS is not in guest CPUID");
	o->xcr0 = l->xcr0;
	o->xss = l->xss;
	o->rfbm = ~0ull;
	o->insn = XRSTORS;
	EXPECT_TRUE(restore_faults(l, "standard format", 0, 0));
	for (i = 0; i < 63; i++) {
		if (!(all & XF_BIT(i)))
			EXPECT_TRUE(restore_faults(l, "XCOMP_BV beyond XCR0 and XSS",
						   0, XF_COMPACTED | XF_BIT(i)));
		EXPECT_TRUE(restore_faults(l, "XSTATE_BV beyond XCOMP_BV",
					   XF_BIT(i),
					   XF_COMPACTED | (all & ~XF_BIT(i))));
	}
	for (i = 16; i < 64; i++) {
		xarea_put(o->image, &o->regs, 0, XF_COMPACTED | all);
		o->image[XF_HEADER_OFFSET + i] = 1;
		EXPECT_EQ(GP_VECTOR, run_op(l));
	}
	xarea_put(o->image, &o->regs, 0, XF_COMPACTED | all);
	EXPECT_EQ(0, run_op(l));
}

/*
 * Verify that XRSTORS of CET state raises #GP once the bit is clear in IA32_XSS,
 * as after a restore that forgot IA32_XSS, and that XRSTOR always does.
 */
TEST_F(xsaves_layout, xrstors_without_xss)
{
	struct layout *l = &self->l;
	u64 all = l->xcr0 | l->xss;
	struct op *o = l->op;
	int i;

	if (insn_missing(l, XRSTORS))
		SKIP(return, "XRSTORS is not in guest CPUID");
	if (!l->xss)
		SKIP(return, "the combination has no supervisor component");
	xarea_put(o->image, &o->regs, all, XF_COMPACTED | all);
	o->xcr0 = l->xcr0;
	o->rfbm = ~0ull;
	o->insn = XRSTORS;
	for (i = 0; i < 63; i++) {
		if (!(l->xss & XF_BIT(i)))
			continue;
		o->xss = l->xss & ~XF_BIT(i);
		EXPECT_TRUE(xarea_same("XRSTORS, component not in XSS",
				       "vector", GP_VECTOR, run_op(l)));
	}
	o->xss = l->xss;
	EXPECT_EQ(0, run_op(l));
	o->insn = XRSTOR;
	EXPECT_TRUE(xarea_same("XRSTOR of supervisor components", "vector",
			       GP_VECTOR, run_op(l)));
}

/*
 * Verify that each instruction raises #GP for an address that is not 64-byte
 * aligned, and that XSAVES and XRSTORS raise #UD if guest CPUID lacks them.
 */
TEST_F(xsaves_layout, refused)
{
	struct layout *l = &self->l;
	struct op *o = l->op;
	u32 insn, wanted;

	o->xcr0 = l->xcr0;
	o->xss = l->xss;
	o->rfbm = ~0ull;
	for (insn = XSAVE; insn <= XRSTORS; insn++) {
		wanted = insn_missing(l, insn) ? UD_VECTOR : GP_VECTOR;
		/* Only these two can be taken from a guest, and only by VMX. */
		if (wanted == UD_VECTOR && (!host_cpu_is_intel ||
					    insn_cpuid[insn] != insn_cpuid[XSAVES]))
			continue;
		xarea_put(o->image, &o->regs, 0, XF_COMPACTED | l->xcr0);
		o->insn = insn;
		o->skew = 32;
		EXPECT_TRUE(xarea_same(insn_names[insn], "vector", wanted,
				       run_op(l)));
		EXPECT_TRUE(rest_kept(insn_names[insn], o->area, 0, 0));
	}
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
