// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the XSAVE instructions write in a guest, with CET and AMX state in use.
 *
 * Load known values into all components by plain instructions, exit to user
 * space, and have the guest save its state: each component must be found where
 * CPUID says, hold its value, and not one other byte may be written. The same
 * for every XCR0, IA32_XSS and set of requested components (RFBM).
 */
#include "xsave_guest.h"

FIXTURE(xsaves_layout) {
	struct xsave_guest g;
};

FIXTURE_VARIANT(xsaves_layout) {
	const char *name;
};

FIXTURE_VARIANT_ADD(xsaves_layout, none) { .name = "none_noamx_nocet" };
FIXTURE_VARIANT_ADD(xsaves_layout, cet) { .name = "none_noamx_cet" };
FIXTURE_VARIANT_ADD(xsaves_layout, amx) { .name = "guest_amx_nocet" };
FIXTURE_VARIANT_ADD(xsaves_layout, amx_cet) { .name = "guest_amx_cet" };

FIXTURE_SETUP(xsaves_layout)
{
	const char *missing = xsave_guest_begin(&self->g, variant->name);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(xsaves_layout)
{
	EXPECT_FALSE(xstate_warned(self->g.taint));
	xsave_guest_end(&self->g);
}

/* Judge an area that the guest's last instruction has saved @in_use to. */
static bool saved(const char *what, struct op *o, u64 rfbm, u64 in_use,
		  bool compacted)
{
	u64 format = compacted ? rfbm | XF_COMPACTED : 0;
	bool ok = true;

	ok &= xarea_same(what, "XSTATE_BV", rfbm & in_use,
			 xarea_header(o->area, 0));
	if (compacted)
		ok &= xarea_same(what, "XCOMP_BV", format,
				 xarea_header(o->area, 1));
	ok &= xarea_has(what, o->area, &o->regs, rfbm & in_use, format);
	return ok && rest_kept(what, o->area, rfbm & in_use, format);
}

/* Execute one instruction that saves, with all components in use, and judge. */
static bool save_ok(struct xsave_guest *g, u32 insn, u64 rfbm)
{
	struct op *o = g->op;
	u64 enabled = o->xcr0 | (insn == XSAVES ? o->xss : 0);
	char what[128];

	snprintf(what, sizeof(what), "%s, XCR0 %#lx, XSS %#lx, RFBM %#lx",
		 insn_names[insn], (unsigned long)o->xcr0,
		 (unsigned long)o->xss, (unsigned long)rfbm);
	o->insn = insn;
	o->rfbm = rfbm;
	o->load = g->xcr0 | g->xss;
	if (!xarea_same(what, "vector", 0, run_op(g)))
		return false;
	return saved(what, o, rfbm & enabled, ~0ull, insn >= XSAVEC);
}

/* The same for every RFBM that is a subset of what is enabled */
static bool save_every_rfbm(struct xsave_guest *g, u32 insn)
{
	u64 all = g->xcr0 | (insn == XSAVES ? g->xss : 0), rfbm = all;

	for (;; rfbm = (rfbm - 1) & all) {
		if (!save_ok(g, insn, rfbm))
			return false;
		if (!rfbm)
			return true;
	}
}

/*
 * Have the guest execute @insn for every XCR0 and IA32_XSS, and read from CPUID
 * 0xD.0 EBX and 0xD.1 EBX the sizes of what is enabled right then.
 */
static bool every_xcr0_and_xss_ok(struct xsave_guest *g, u32 insn)
{
	bool compacted = !insn_missing(g, XSAVEC) || !insn_missing(g, XSAVES);
	struct op *o = g->op;
	u64 xcr0, xss;

	for (xcr0 = g->xcr0; xcr0; xcr0 = (xcr0 - 1) & g->xcr0) {
		for (xss = g->xss; xstate_xcr0_legal(xcr0);
		     xss = (xss - 1) & g->xss) {
			o->xcr0 = xcr0;
			o->xss = xss;
			if (!save_ok(g, insn, ~0ull) ||
			    !xarea_same("CPUID 0xD.0", "EBX",
					xf_standard_size(xcr0),
					o->standard_size))
				return false;
			if (compacted &&
			    !xarea_same("CPUID 0xD.1", "EBX",
					xf_compacted_size(xcr0 | xss),
					o->compacted_size))
				return false;
			if (!xss)
				break;
		}
	}
	return true;
}

/*
 * Verify, for every XCR0 and IA32_XSS, what XSAVES writes, that KVM_RUN and
 * KVM_GET_MSRS in between cost no component its contents, and that CPUID gives
 * the guest the size of what is enabled.
 */
TEST_F(xsaves_layout, every_xcr0_and_xss)
{
	struct xsave_guest *g = &self->g;

	xsave_guest_make(g);
	g->op->leave = true;
	g->op->sizes = true;
	EXPECT_TRUE(every_xcr0_and_xss_ok(g, insn_missing(g, XSAVES) ? XSAVE :
							       XSAVES));
}

/*
 * Verify what each instruction that saves writes, for every RFBM. A guest with
 * CET needs that of XSAVES only: the others must never save a supervisor
 * component, whatever IA32_XSS and RFBM say.
 */
TEST_F(xsaves_layout, every_rfbm)
{
	struct xsave_guest *g = &self->g;
	u32 insn;

	xsave_guest_make(g);
	for (insn = XSAVE; insn <= XSAVES; insn++) {
		if (insn_missing(g, insn))
			continue;
		EXPECT_TRUE(g->xss && insn != XSAVES ?
			    save_ok(g, insn, ~0ull) :
			    save_every_rfbm(g, insn));
	}
}

/*
 * Have the guest leave with its tiles in use, or released, and see what the
 * host finds: both components of AMX with contents, or neither of them.
 */
static bool host_sees_tiles(struct xsave_guest *g, bool in_use)
{
	static u8 image[XAREA_SIZE], zero[XAREA_SIZE];
	struct xf_regs r;
	bool ok;
	int i;

	g->op->release = !in_use;
	xregs_run(g->vcpu);
	xarea_fill(image, XAREA_POISON, sizeof(image));
	vcpu_xsave2_get(g->vcpu, (struct kvm_xsave *)image);
	xregs_run(g->vcpu);

	ok = xarea_same("KVM_GET_XSAVE2", "XTILE in XSTATE_BV",
			in_use ? XF_XTILE : 0, xarea_header(image, 0) & XF_XTILE);
	if (in_use)
		return ok && xarea_has("KVM_GET_XSAVE2", image, &g->op->regs,
				       XF_XTILE, 0);
	for (i = XF_XTILE_CFG; i <= XF_XTILE_DATA; i++) {
		r = xf_cpuid(0xd, i);
		ok &= xarea_same("KVM_GET_XSAVE2", "bytes of 0 after TILERELEASE",
				 r.eax, xarea_differ(image + r.ebx, zero, r.eax));
	}
	return ok;
}

/*
 * Verify that after TILERELEASE neither XSAVEC nor XSAVES save AMX state: not
 * in XSTATE_BV, still in XCOMP_BV, and its place in the area left alone; and
 * that the host finds none in use either.
 */
TEST_F(xsaves_layout, tilerelease)
{
	struct xsave_guest *g = &self->g;
	struct op *o;
	u64 all;
	u32 i;

	if (insn_missing(g, XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	if (!g->x.amx_on)
		SKIP(return, "the combination has no AMX");
	xsave_guest_make(g);
	o = g->op;
	o->leave = true;
	o->load = g->xcr0 | g->xss;
	EXPECT_TRUE(host_sees_tiles(g, true));
	EXPECT_TRUE(host_sees_tiles(g, false));
	for (i = XSAVEC; i <= XSAVES; i++) {
		o->insn = i;
		all = g->xcr0 | (i == XSAVES ? g->xss : 0);
		ASSERT_EQ(0, run_op(g));
		EXPECT_TRUE(saved(insn_names[i], o, all, ~XF_XTILE, true));
	}
}

/* Have libkvm leave XSAVES and XRSTORS out of guest CPUID. */
static void hide_xsaves(struct xsave_guest *g)
{
	struct kvm_cpuid2 *c = (struct kvm_cpuid2 *)kvm_get_supported_cpuid();
	struct kvm_cpuid_entry2 *e = xkvm_cpuid_entry(c, 0xd, 1);

	if (e)
		e->eax &= ~insn_cpuid[XSAVES];
	g->insns &= ~insn_cpuid[XSAVES];
}

/* A guest without XSAVES, by its CPUID */
FIXTURE(xsaves_absent) {
	struct xsave_guest g;
};

FIXTURE_SETUP(xsaves_absent)
{
	ASSERT_EQ(NULL, xsave_guest_begin(&self->g, "none_noamx_nocet"));
}

FIXTURE_TEARDOWN(xsaves_absent)
{
	EXPECT_FALSE(xstate_warned(self->g.taint));
	xsave_guest_end(&self->g);
}

/*
 * Verify that XSAVES and XRSTORS raise #UD where guest CPUID has them not, and
 * that the guest finds the sizes and areas of the other instructions as ever.
 */
TEST_F(xsaves_absent, xsaves_hidden)
{
	struct xsave_guest *g = &self->g;
	u32 insn;

	hide_xsaves(g);
	xsave_guest_make(g);
	g->op->sizes = true;
	EXPECT_TRUE(every_xcr0_and_xss_ok(g, insn_missing(g, XSAVEC) ?
					  XSAVE : XSAVEC));

	/* SVM does not let KVM take these two from a guest. */
	for (insn = XSAVES; insn <= XRSTORS && host_cpu_is_intel; insn++) {
		if (!insn_missing(g, insn))
			continue;
		g->op->insn = insn;
		EXPECT_TRUE(xarea_same(insn_names[insn], "vector", UD_VECTOR,
				       run_op(g)));
		EXPECT_TRUE(rest_kept(insn_names[insn], g->op->area, 0, 0));
	}
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
