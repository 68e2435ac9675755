// SPDX-License-Identifier: GPL-2.0-only
/*
 * XRSTORS in a guest, with CET and AMX state, and the faults of all XSAVE
 * instructions.
 *
 * What XRSTORS has loaded is judged by what XSAVES saves right after it.
 */
#include "xsave_guest.h"

FIXTURE(xrstors) {
	struct xsave_guest g;
};

FIXTURE_VARIANT(xrstors) {
	const char *name;
};

FIXTURE_VARIANT_ADD(xrstors, none) { .name = "none_noamx_nocet" };
FIXTURE_VARIANT_ADD(xrstors, cet) { .name = "none_noamx_cet" };
FIXTURE_VARIANT_ADD(xrstors, amx) { .name = "guest_amx_nocet" };
FIXTURE_VARIANT_ADD(xrstors, amx_cet) { .name = "guest_amx_cet" };

FIXTURE_SETUP(xrstors)
{
	const char *missing = xsave_guest_begin(&self->g, variant->name);

	if (!missing && insn_missing(&self->g, XRSTORS))
		missing = "XRSTORS is not in guest CPUID";
	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(xrstors)
{
	EXPECT_FALSE(xstate_warned(self->g.taint));
	xsave_guest_end(&self->g);
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
static bool restore_ok(struct xsave_guest *g, u64 rfbm, u64 bv)
{
	u64 all = g->xcr0 | g->xss, got;
	static struct xregs other;
	struct op *o = g->op;
	struct restored r;
	char what[64];

	snprintf(what, sizeof(what), "XRSTORS, RFBM %#lx, XSTATE_BV %#lx",
		 (unsigned long)rfbm, (unsigned long)bv);
	if (!other.fcw)
		xregs_fill(&other, 2);
	xarea_put(o->image, &other, bv, all | XF_COMPACTED);
	o->rfbm = rfbm;
	if (!xarea_same(what, "vector", 0, run_op(g)))
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
TEST_F(xrstors, components)
{
	struct xsave_guest *g = &self->g;
	u64 all = g->xcr0 | g->xss;
	u32 i;

	xsave_guest_make(g);
	g->op->load = all;
	g->op->leave = true;
	g->op->insn = XRSTORS;
	ASSERT_TRUE(restore_ok(g, all, all));
	ASSERT_TRUE(restore_ok(g, 0, all));
	for (i = 0; i < 63; i++) {
		if (!(all & XF_BIT(i)))
			continue;
		ASSERT_TRUE(restore_ok(g, XF_BIT(i), all));
		ASSERT_TRUE(restore_ok(g, all & ~XF_BIT(i), all));
		ASSERT_TRUE(restore_ok(g, XF_BIT(i), all & ~XF_BIT(i)));
	}
}

static bool restore_faults(struct xsave_guest *g, const char *what,
			   u64 bv, u64 format)
{
	struct op *o = g->op;

	xarea_fill(o->image, 0, sizeof(o->image));
	xarea_set_header(o->image, 0, bv);
	xarea_set_header(o->image, 1, format);
	return xarea_same(what, "vector of XRSTORS", GP_VECTOR, run_op(g));
}

/*
 * Verify that XRSTORS raises #GP for the standard format, for components that
 * neither XCR0 nor IA32_XSS have, for XSTATE_BV beyond XCOMP_BV, and for
 * reserved bytes of the header.
 */
TEST_F(xrstors, refused)
{
	struct xsave_guest *g = &self->g;
	u64 all = g->xcr0 | g->xss;
	struct op *o;
	int i;

	xsave_guest_make(g);
	o = g->op;
	o->insn = XRSTORS;
	EXPECT_TRUE(restore_faults(g, "standard format", 0, 0));
	for (i = 0; i < 63; i++) {
		if (!(all & XF_BIT(i)))
			EXPECT_TRUE(restore_faults(g, "XCOMP_BV beyond XCR0 and XSS",
						   0, XF_COMPACTED | XF_BIT(i)));
		EXPECT_TRUE(restore_faults(g, "XSTATE_BV beyond XCOMP_BV",
					   XF_BIT(i),
					   XF_COMPACTED | (all & ~XF_BIT(i))));
	}
	for (i = 16; i < 64; i++) {
		xarea_put(o->image, &o->regs, 0, XF_COMPACTED | all);
		o->image[XF_HEADER_OFFSET + i] = 1;
		EXPECT_EQ(GP_VECTOR, run_op(g));
	}
	xarea_put(o->image, &o->regs, 0, XF_COMPACTED | all);
	EXPECT_EQ(0, run_op(g));
}

/*
 * Verify that XRSTORS of CET state raises #GP once the bit is clear in IA32_XSS,
 * as after a restore that forgot IA32_XSS, and that XRSTOR always does.
 */
TEST_F(xrstors, without_xss)
{
	struct xsave_guest *g = &self->g;
	u64 all = g->xcr0 | g->xss;
	struct op *o;
	int i;

	if (!g->xss)
		SKIP(return, "the combination has no supervisor component");
	xsave_guest_make(g);
	o = g->op;
	xarea_put(o->image, &o->regs, all, XF_COMPACTED | all);
	o->insn = XRSTORS;
	for (i = 0; i < 63; i++) {
		if (!(g->xss & XF_BIT(i)))
			continue;
		o->xss = g->xss & ~XF_BIT(i);
		EXPECT_TRUE(xarea_same("XRSTORS, component not in XSS",
				       "vector", GP_VECTOR, run_op(g)));
	}
	o->xss = g->xss;
	EXPECT_EQ(0, run_op(g));
	o->insn = XRSTOR;
	EXPECT_TRUE(xarea_same("XRSTOR of supervisor components", "vector",
			       GP_VECTOR, run_op(g)));
}

/* What does not depend on the combination */
FIXTURE(xsave_area) {
	struct xsave_guest g;
};

FIXTURE_SETUP(xsave_area)
{
	ASSERT_EQ(NULL, xsave_guest_begin(&self->g, "none_noamx_nocet"));
}

FIXTURE_TEARDOWN(xsave_area)
{
	EXPECT_FALSE(xstate_warned(self->g.taint));
	xsave_guest_end(&self->g);
}

/*
 * Verify that each instruction raises #GP for an address that is not 64-byte
 * aligned, and writes nothing.
 */
TEST_F(xsave_area, misaligned)
{
	struct xsave_guest *g = &self->g;
	u32 insn;

	xsave_guest_make(g);
	for (insn = XSAVE; insn <= XRSTORS; insn++) {
		if (insn_missing(g, insn))
			continue;
		xarea_put(g->op->image, &g->op->regs, 0, XF_COMPACTED | g->xcr0);
		g->op->insn = insn;
		g->op->skew = 32;
		EXPECT_TRUE(xarea_same(insn_names[insn], "vector", GP_VECTOR,
				       run_op(g)));
		EXPECT_TRUE(rest_kept(insn_names[insn], g->op->area, 0, 0));
	}
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
