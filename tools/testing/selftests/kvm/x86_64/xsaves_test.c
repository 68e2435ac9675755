// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the XSAVE instructions write and load in a guest, with CET and AMX state
 * in use, and how they fault.
 *
 * Load known values into all components by plain instructions, exit to user
 * space, and have the guest save its state: each component must be found where
 * CPUID says, hold its value, and not one other byte may be written.  The same
 * for every XCR0, IA32_XSS and set of requested components (RFBM).  What XRSTORS
 * has loaded is judged by what XSAVES saves right after it.
 */
#include "xregs.h"

enum xsave_insn { TILERELEASE, XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS };

static const struct {
	const char *name;
	u32 cpuid;			/* bit of CPUID 0xD.1 EAX */
} insns[] = {
	[TILERELEASE] = { "TILERELEASE", 0 },
	[XSAVE] = { "XSAVE", 0 },
	[XSAVEOPT] = { "XSAVEOPT", BIT(0) },
	[XSAVEC] = { "XSAVEC", BIT(1) },
	[XSAVES] = { "XSAVES", BIT(3) },
	[XRSTOR] = { "XRSTOR", 0 },
	[XRSTORS] = { "XRSTORS", BIT(3) },
};

/* One instruction: what it is given, what comes of it, and all memory of it */
struct op {
	u64 xcr0_max, xss_max;		/* all that the guest may set */
	u64 xcr0, xss, rfbm;
	u64 load;			/* components to load from regs first */
	u64 guest_xss;			/* IA32_XSS as it is */
	bool sizes;			/* read CPUID right before */
	bool leave;			/* exit to user space right before */
	bool release;			/* TILERELEASE right before */
	u32 skew;			/* added to the address */
	u32 insn;
	u32 vector;
	bool leave_first;		/* right after the first XSETBV */
	u64 xcr0_read;			/* by XGETBV then */
	u32 standard_size, compacted_size;
	struct xregs regs;
	u8 image[XAREA_SIZE] __aligned(64);
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct op op;

/* ---- guest ---- */

#define XSAVE_SAFE(insn, area, lo, hi) \
	kvm_asm_safe(insn " (%[p])", [p] "r" (area), "a" (lo), "d" (hi))

static INTEGER_ONLY u8 guest_insn(enum xsave_insn insn, void *area, u64 rfbm)
{
	u32 lo = rfbm, hi = rfbm >> 32;

	switch (insn) {
	case TILERELEASE:
		return kvm_asm_safe(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0");
	case XSAVE:
		return XSAVE_SAFE("xsave64", area, lo, hi);
	case XSAVEOPT:
		return XSAVE_SAFE("xsaveopt64", area, lo, hi);
	case XSAVEC:
		return XSAVE_SAFE("xsavec64", area, lo, hi);
	case XSAVES:
		return XSAVE_SAFE("xsaves64", area, lo, hi);
	case XRSTOR:
		return XSAVE_SAFE("xrstor64", area, lo, hi);
	default:
		return XSAVE_SAFE("xrstors64", area, lo, hi);
	}
}

/* Write only what changes: both writes exit to KVM, which takes its time. */
static INTEGER_ONLY void guest_set_features(u64 xcr0, u64 xss)
{
	if (xgetbv(0) != xcr0)
		xsetbv(0, xcr0);
	if (op.guest_xss != xss)
		wrmsr(MSR_IA32_XSS, xss);
	op.guest_xss = xss;
}

/* Nothing in here may touch the registers that were loaded. */
static INTEGER_ONLY void guest_op(void)
{
	bool restore = op.insn >= XRSTOR;
	u32 eax, ecx, edx;

	guest_set_features(op.xcr0_max, op.xss_max);
	guest_load_xregs(&op.regs, op.load);
	if (op.release)
		tile_release();
	guest_set_features(op.xcr0, op.xss);
	if (op.sizes) {
		__cpuid(0xd, 0, &eax, &op.standard_size, &ecx, &edx);
		__cpuid(0xd, 1, &eax, &op.compacted_size, &ecx, &edx);
	}
	if (op.leave)
		guest_leave();

	op.vector = guest_insn(op.insn, (restore ? op.image : op.area) + op.skew, op.rfbm);

	guest_set_features(op.xcr0_max, op.xss_max);
	if (restore && !op.vector)
		guest_insn(XSAVES, op.area, ~0ull);
	guest_leave();
}

static void guest_code(void)
{
	guest_enable_xstate(op.xcr0_max);
	op.xcr0_read = xgetbv(0);
	if (op.leave_first)
		guest_leave();
	for (;;)
		guest_op();
}

/* ---- host ---- */

FIXTURE(xsaves) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct op *op;
};

XSTATE_SUITE(xsaves);

FIXTURE_VARIANT_ADD(xsaves, none) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xsaves, cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xsaves, amx) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xsaves, amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(xsaves)
{
	struct op *o;

	if (!xstate_begin(_metadata, &variant->combo))
		return;
	if (variant->combo.cet && !kvm_cpu_has(X86_FEATURE_SHSTK))
		SKIP(return, "KVM offers no guest CET");
	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_code);
	o = addr_gva2hva(self->vm, (gva_t)&op);
	self->op = o;
	o->xcr0_max = xregs_guest_mask(self->vcpu);
	o->xss_max = xregs_mask(vcpu_xss_mask(self->vcpu));
	o->xcr0 = o->xcr0_max;
	o->xss = o->xss_max;
	o->rfbm = ~0ull;
	/* An even seed: with others IA32_U_CET is 0 where there is no IBT. */
	xregs_fill(&o->regs, self->vcpu, 2);
}

static bool insn_missing(FIXTURE_DATA(xsaves) * const self, enum xsave_insn insn)
{
	return insns[insn].cpuid & ~cpuid_regs(self->vcpu->cpuid, 0xd, 1).eax;
}

/*
 * Have the guest execute @insn, which is the case from now on.  If it leaves
 * before, with all its registers loaded, have KVM put its FPU aside and load it
 * again by an ioctl.  Return the vector of the exception, or 0.
 */
static u32 run_op(FIXTURE_DATA(xsaves) * const self, enum xsave_insn insn)
{
	struct op *o = self->op;

	th_case("%s, XCR0 %#lx, XSS %#lx, RFBM %#lx, header of image %#lx %#lx", insns[insn].name,
		o->xcr0, o->xss, o->rfbm, xarea_header(o->image, 0), xarea_header(o->image, 1));
	o->insn = insn;
	xarea_fill(o->area, XAREA_POISON, sizeof(o->area));
	xarea_set_header(o->area, 0, 0);
	if (o->leave) {
		xregs_run(self->vcpu);
		vcpu_get_msr(self->vcpu, o->xss_max ? MSR_IA32_U_CET : MSR_EFER);
	}
	xregs_run(self->vcpu);
	return o->vector;
}

/* The guest's last instruction has saved @in_use to its area, and nothing else. */
static void expect_saved(struct __test_metadata *const _metadata, struct op *o, u64 rfbm,
			 u64 in_use)
{
	u64 format = o->insn >= XSAVEC ? rfbm | XCOMP_BV_COMPACTED : 0;

	EXPECT_XFEATURES(rfbm & in_use, xarea_header(o->area, 0), "XSTATE_BV");
	if (format)
		EXPECT_XFEATURES(format, xarea_header(o->area, 1), "XCOMP_BV");
	expect_area(_metadata, o->area, &o->regs, rfbm & in_use, format, "saved");
	expect_poison(_metadata, o->area, rfbm & in_use, format, "saved");
}

/* Execute one instruction that saves, with all components in use, and judge. */
static void expect_save(struct __test_metadata *const _metadata,
			FIXTURE_DATA(xsaves) * const self, enum xsave_insn insn, u64 rfbm)
{
	struct op *o = self->op;

	o->rfbm = rfbm;
	o->load = o->xcr0_max | o->xss_max;
	if (EXPECT_SAME(0, run_op(self, insn), "vector"))
		expect_saved(_metadata, o, rfbm & (o->xcr0 | (insn == XSAVES ? o->xss : 0)), ~0ull);
}

/* The same for every RFBM that is a subset of what is enabled; one failure is enough. */
static void expect_every_rfbm(struct __test_metadata *const _metadata,
			      FIXTURE_DATA(xsaves) * const self, enum xsave_insn insn)
{
	u64 all = self->op->xcr0 | (insn == XSAVES ? self->op->xss : 0), rfbm = all;

	do {
		expect_save(_metadata, self, insn, rfbm);
		rfbm = (rfbm - 1) & all;
	} while (rfbm != all && !_metadata->exit_code);
}

/*
 * Have the guest execute @insn for every XCR0 and IA32_XSS, and read from CPUID
 * 0xD.0 EBX and 0xD.1 EBX the sizes of what is enabled right then.
 */
static void expect_every_xcr0_and_xss(struct __test_metadata *const _metadata,
				      FIXTURE_DATA(xsaves) * const self, enum xsave_insn insn)
{
	bool compacted = !insn_missing(self, XSAVEC) || !insn_missing(self, XSAVES);
	struct op *o = self->op;
	u64 all = o->xcr0_max | o->xss_max, mask;

	o->leave_first = true;
	if (!xregs_need_xsetbv_exit(_metadata, self->vcpu, &o->xcr0_read))
		return;
	o->sizes = true;
	for (mask = all; mask && !_metadata->exit_code; mask = (mask - 1) & all) {
		o->xcr0 = mask & o->xcr0_max;
		o->xss = mask & o->xss_max;
		if (!xcr0_is_legal(o->xcr0))
			continue;
		expect_save(_metadata, self, insn, ~0ull);
		EXPECT_SAME(xf_standard_size(o->xcr0), o->standard_size, "CPUID 0xD.0 EBX");
		if (compacted)
			EXPECT_SAME(xf_compacted_size(mask), o->compacted_size, "CPUID 0xD.1 EBX");
	}
}

/*
 * Verify, for every XCR0 and IA32_XSS, what XSAVES writes, that KVM_RUN and
 * KVM_GET_MSRS in between cost no component its contents, and that CPUID gives
 * the guest the size of what is enabled.
 */
TEST_F(xsaves, every_xcr0_and_xss)
{
	self->op->leave = true;
	expect_every_xcr0_and_xss(_metadata, self, insn_missing(self, XSAVES) ? XSAVE : XSAVES);
}

/*
 * Verify that XSAVES and XRSTORS raise #UD where guest CPUID has them not, and
 * that the guest finds the sizes and areas of the other instructions as ever.
 */
TEST_F(xsaves, hidden)
{
	enum xsave_insn insn;

	vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_XSAVES);
	self->op->xss_max = 0;
	expect_every_xcr0_and_xss(_metadata, self, insn_missing(self, XSAVEC) ? XSAVE : XSAVEC);
	if (_metadata->exit_code)
		return;

	/* SVM does not let KVM take these two from a guest. */
	for (insn = XSAVES; insn <= XRSTORS && host_cpu_is_intel; insn++) {
		if (!insn_missing(self, insn))
			continue;
		EXPECT_SAME(UD_VECTOR, run_op(self, insn), "vector");
		expect_poison(_metadata, self->op->area, 0, 0, "#UD");
	}
}

/*
 * Verify what each instruction that saves writes, for every RFBM.  A guest with
 * CET needs that of XSAVES only: the others must never save a supervisor
 * component, whatever IA32_XSS and RFBM say.
 */
TEST_F(xsaves, every_rfbm)
{
	enum xsave_insn insn;

	for (insn = XSAVE; insn <= XSAVES; insn++) {
		if (insn_missing(self, insn))
			continue;
		if (self->op->xss && insn != XSAVES)
			expect_save(_metadata, self, insn, ~0ull);
		else
			expect_every_rfbm(_metadata, self, insn);
	}
}

/* XRSTORS of @bv out of an area compacted for everything, then XSAVES */
static void expect_restored(struct __test_metadata *const _metadata,
			    FIXTURE_DATA(xsaves) * const self, u64 rfbm, u64 bv)
{
	static const struct xregs init = { .fcw = FCW_INIT, .mxcsr = MXCSR_INIT };
	struct op *o = self->op;
	u64 all = o->xcr0 | o->xss, format = all | XCOMP_BV_COMPACTED;
	u64 initial = rfbm & ~bv & all, kept = all & ~rfbm, may_go = initial, saved;
	struct xregs other;

	xregs_fill(&other, self->vcpu, 1);
	xregs_to_area(&other, o->image, bv, format);
	o->rfbm = rfbm;
	if (!EXPECT_SAME(0, run_op(self, XRSTORS), "vector"))
		return;

	/*
	 * The CPU may or may not track that a component is initial.  It may also
	 * depend on the CPU whether tiles keep data without a configuration.
	 */
	if (initial & XFEATURE_MASK_XTILE_CFG)
		may_go |= kept & XFEATURE_MASK_XTILE_DATA;
	saved = xarea_header(o->area, 0);
	EXPECT_XFEATURES(all, saved | may_go, "XSTATE_BV of XSAVES after it");
	expect_area(_metadata, o->area, &init, saved & initial, format, "made initial");
	expect_area(_metadata, o->area, &other, rfbm & bv & all, format, "restored");
	expect_area(_metadata, o->area, &o->regs, kept & ~may_go, format, "left alone");
}

/*
 * Verify that XRSTORS loads those components that RFBM and XSTATE_BV name,
 * makes those initial that only RFBM names, and leaves all others alone.
 */
TEST_F(xsaves, xrstors)
{
	u64 all = self->op->xcr0 | self->op->xss;
	int i;

	if (insn_missing(self, XRSTORS))
		SKIP(return, "XRSTORS is not in guest CPUID");
	self->op->load = all;
	self->op->leave = true;
	expect_restored(_metadata, self, all, all);
	expect_restored(_metadata, self, 0, all);
	for (i = 0; i < 63 && !_metadata->exit_code; i++) {
		if (!(all & BIT_ULL(i)))
			continue;
		expect_restored(_metadata, self, BIT_ULL(i), all);
		expect_restored(_metadata, self, all & ~BIT_ULL(i), all);
		expect_restored(_metadata, self, BIT_ULL(i), all & ~BIT_ULL(i));
	}
}

/* Judge what comes of XRSTORS of an area that is all 0 but for its header. */
static void expect_refused(struct __test_metadata *const _metadata,
			   FIXTURE_DATA(xsaves) * const self, u64 bv, u64 format, const char *what)
{
	u8 *image = self->op->image;

	xarea_fill(image, 0, XAREA_SIZE);
	xarea_set_header(image, 0, bv);
	xarea_set_header(image, 1, format);
	EXPECT_SAME(GP_VECTOR, run_op(self, XRSTORS), "vector for %s", what);
}

/*
 * Components without their bit in IA32_XSS, as after a restore that forgot it, are
 * refused by XRSTORS, and all supervisor components by XRSTOR.
 */
static void expect_refused_without_xss(struct __test_metadata *const _metadata,
				       FIXTURE_DATA(xsaves) * const self)
{
	struct op *o = self->op;
	u64 all = o->xcr0 | o->xss;
	int i;

	xregs_to_area(&o->regs, o->image, all, XCOMP_BV_COMPACTED | all);
	for (i = 0; i < 63; i++) {
		if (!(o->xss_max & BIT_ULL(i)))
			continue;
		o->xss = o->xss_max & ~BIT_ULL(i);
		EXPECT_SAME(GP_VECTOR, run_op(self, XRSTORS), "vector, %s not in XSS", xf_name(i));
	}
	o->xss = o->xss_max;
	EXPECT_SAME(0, run_op(self, XRSTORS), "vector with nothing wrong");
	if (o->xss)
		EXPECT_SAME(GP_VECTOR, run_op(self, XRSTOR), "vector for supervisor components");
}

/*
 * Verify that XRSTORS raises #GP for the standard format, for components that
 * neither XCR0 nor IA32_XSS have, CET included, for XSTATE_BV beyond XCOMP_BV,
 * and for reserved bytes of the header; and that XRSTOR of CET always does.
 */
TEST_F(xsaves, xrstors_refused)
{
	struct op *o = self->op;
	u64 all = o->xcr0 | o->xss;
	int i;

	if (insn_missing(self, XRSTORS))
		SKIP(return, "XRSTORS is not in guest CPUID");
	expect_refused(_metadata, self, 0, 0, "standard format");
	for (i = 0; i < 63; i++) {
		if (!(all & BIT_ULL(i)))
			expect_refused(_metadata, self, 0, XCOMP_BV_COMPACTED | BIT_ULL(i),
				       "XCOMP_BV beyond XCR0 and XSS");
		expect_refused(_metadata, self, BIT_ULL(i),
			       XCOMP_BV_COMPACTED | (all & ~BIT_ULL(i)),
			       "XSTATE_BV beyond XCOMP_BV");
	}
	for (i = 16; i < 64; i++) {
		xregs_to_area(&o->regs, o->image, 0, XCOMP_BV_COMPACTED | all);
		o->image[XF_HEADER_OFFSET + i] = 1;
		EXPECT_SAME(GP_VECTOR, run_op(self, XRSTORS), "vector for byte %d of header", i);
	}
	expect_refused_without_xss(_metadata, self);
}

/*
 * Verify that each instruction raises #GP for an address that is not 64-byte
 * aligned, and writes nothing.
 */
TEST_F(xsaves, misaligned)
{
	struct op *o = self->op;
	enum xsave_insn insn;

	o->skew = 32;
	xregs_to_area(&o->regs, o->image, 0, XCOMP_BV_COMPACTED | o->xcr0);
	for (insn = XSAVE; insn <= XRSTORS; insn++) {
		if (insn_missing(self, insn))
			continue;
		EXPECT_SAME(GP_VECTOR, run_op(self, insn), "vector");
		expect_poison(_metadata, o->area, 0, 0, "#GP");
	}
}

/*
 * Have the guest leave with its tiles in use, or released, and see what the
 * host finds: both components of AMX with contents, or neither of them.
 */
static void expect_tiles(struct __test_metadata *const _metadata,
			 FIXTURE_DATA(xsaves) * const self, bool in_use)
{
	const char *when = in_use ? "KVM_GET_XSAVE2 before TILERELEASE" :
				    "KVM_GET_XSAVE2 after TILERELEASE";
	static const struct xregs released;
	u8 *area;

	self->op->release = !in_use;
	xregs_run(self->vcpu);
	area = vcpu_area(self->vcpu);
	xregs_run(self->vcpu);

	EXPECT_XFEATURES(in_use ? XFEATURE_MASK_XTILE : 0,
			 xarea_header(area, 0) & XFEATURE_MASK_XTILE, "XSTATE_BV of %s", when);
	expect_area(_metadata, area, in_use ? &self->op->regs : &released, XFEATURE_MASK_XTILE, 0,
		    when);
}

/*
 * Verify that after TILERELEASE neither XSAVEC nor XSAVES save AMX state: not
 * in XSTATE_BV, still in XCOMP_BV, and its place in the area left alone; and
 * that the host finds none in use either.  Without AMX there is no TILERELEASE.
 */
TEST_F(xsaves, tilerelease)
{
	struct op *o = self->op;
	enum xsave_insn insn;

	if (!(o->xcr0 & XFEATURE_MASK_XTILE)) {
		EXPECT_SAME(UD_VECTOR, run_op(self, TILERELEASE), "vector");
		return;
	}
	if (insn_missing(self, XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	o->leave = true;
	o->load = o->xcr0 | o->xss;
	expect_tiles(_metadata, self, true);
	expect_tiles(_metadata, self, false);
	for (insn = XSAVEC; insn <= XSAVES; insn++)
		if (EXPECT_SAME(0, run_op(self, insn), "vector"))
			expect_saved(_metadata, o, o->xcr0 | (insn == XSAVES ? o->xss : 0),
				     ~XFEATURE_MASK_XTILE);
}

XSTATE_HARNESS_MAIN
