// SPDX-License-Identifier: GPL-2.0-only
/*
 * XSAVE, XSAVEOPT, XSAVEC and XRSTOR in user mode.
 */
#include "cpu_user.h"

/* Keep the components of @bv, give the others their initial configuration. */
static void keep(struct regs *r, __u64 bv)
{
	struct regs initial;
	int i;

	/* Tiles have no shape without TILECFG: both or none. */
	if (!(bv & BIT(TILECFG)))
		bv &= ~BIT(TILEDATA);
	init_regs(&initial);
	for (i = 0; i < 63; i++)
		if (!(bv & BIT(i)))
			copy_component(r, &initial, i);
	op.fill = op.load & bv;
}

static void save_subsets(enum xsave_insn insn, __u32 features)
{
	__u64 mask = setup(features | HAS_XGETBV1), rfbm, bv;
	int pattern;

	fill_regs(&other, 1);
	for (pattern = 0; pattern < 4; pattern++) {
		for (rfbm = mask;; rfbm = (rfbm - 1) & mask) {
			bv = pattern < 2 ? mask : pattern < 3 ? 0 : mask & next_random();
			op.in = other;
			keep(&op.in, bv);
			poison_area(&op);
			run(insn, rfbm);
			if (!check_save(&op, 0) || !rfbm)
				break;
		}
		if (!pattern)
			fill_regs(&other, 0);
	}
	/* Bits beyond XCR0 are ignored. */
	fill_regs(&op.in, 0);
	keep(&op.in, mask);
	poison_area(&op);
	run(insn, mask | ~cpu.xcr0);
	check_save(&op, 0);
}

/* Verify what XSAVE writes, for every RFBM. */
static void xsave_subsets(void)
{
	save_subsets(XSAVE, 0);
}

/* Verify what XSAVEOPT writes, for every RFBM. */
static void xsaveopt_subsets(void)
{
	save_subsets(XSAVEOPT, HAS_XSAVEOPT);
}

/* Verify what XSAVEC writes and where, for every RFBM. */
static void xsavec_subsets(void)
{
	save_subsets(XSAVEC, HAS_XSAVEC);
}

/* Verify that MXCSR alone makes XSAVEC save SSE, and only if RFBM has SSE. */
static void xsavec_mxcsr(void)
{
	__u64 mask = setup(HAS_XSAVEC | HAS_XGETBV1);

	fill_regs(&op.in, 0);
	keep(&op.in, 0);
	poison_area(&op);
	run(XSAVEC, mask & ~BIT(X87));
	check_save(&op, 0);
	check_eq(header(op.area)[0] & BIT(SSE), BIT(SSE), "XSTATE_BV[1], MXCSR is not 1F80H");
	poison_area(&op);
	run(XSAVEC, BIT(AVX));
	check_save(&op, 0);
	init_regs(&op.in);
	poison_area(&op);
	run(XSAVEC, BIT(SSE));
	check_save(&op, 0);
	check_eq(header(op.area)[0] & BIT(SSE), op.xinuse & BIT(SSE), "XSTATE_BV[1]");
}

/* Verify the standard form for every RFBM, with several XSTATE_BV. */
static void xrstor_standard_subsets(void)
{
	__u64 mask = setup(0), rfbm;

	for (rfbm = mask;; rfbm = (rfbm - 1) & mask) {
		if (!restore(XRSTOR, rfbm, mask, 0) || !restore(XRSTOR, rfbm, 0, 0) ||
		    !restore(XRSTOR, rfbm, mask & next_random(), 0) || !rfbm)
			break;
	}
}

/* Verify the compacted form for every XCOMP_BV, with several RFBM and XSTATE_BV. */
static void xrstor_compacted_subsets(void)
{
	__u64 mask = setup(HAS_XSAVEC), bv;

	for (bv = mask;; bv = (bv - 1) & mask) {
		if (!restore(XRSTOR, mask, bv, bv | COMPACTED) ||
		    !restore(XRSTOR, mask & next_random(), bv, bv | COMPACTED) ||
		    !restore(XRSTOR, mask & next_random(), bv & next_random(), bv | COMPACTED) ||
		    !bv)
			break;
	}
}

/* Verify that what XCOMP_BV has and RFBM has not still takes up its space. */
static void xrstor_compacted_space(void)
{
	__u64 mask = setup(HAS_XSAVEC);
	int i;

	for (i = 0; i < 63; i++)
		if (mask & BIT(i))
			restore(XRSTOR, mask & ~BIT(i), mask, mask | COMPACTED);
}

/* Verify that initialising or loading one component leaves the others alone. */
static void xrstor_one_component(void)
{
	__u64 mask = setup(0);
	int i;

	for (i = 0; i < 63; i++) {
		if (!(mask & BIT(i)))
			continue;
		restore(XRSTOR, BIT(i), 0, 0);
		restore(XRSTOR, BIT(i), BIT(i), 0);
		if (!(cpu.features & HAS_XSAVEC))
			continue;
		restore(XRSTOR, BIT(i), 0, mask | COMPACTED);
		restore(XRSTOR, BIT(i), BIT(i), BIT(i) | COMPACTED);
	}
}

/* Verify that MXCSR goes with SSE or AVX in the standard form, else with SSE. */
static void xrstor_mxcsr(void)
{
	static const __u64 rfbm[] = { 0, BIT(X87), BIT(SSE), BIT(AVX), BIT(SSE) | BIT(AVX) };
	__u64 compacted;
	__u32 i;

	setup(0);
	compacted = cpu.features & HAS_XSAVEC ? COMPACTED | 7 : 0;
	for (i = 0; i < ARRAY_SIZE(rfbm); i++) {
		restore(XRSTOR, rfbm[i], 0, 0);
		restore(XRSTOR, rfbm[i], 7, 0);
		restore(XRSTOR, rfbm[i], 0, compacted);
		restore(XRSTOR, rfbm[i], 7, compacted);
	}
}

static void restore_fault(const char *what, __u64 bv, __u64 xcomp_bv, int at, __u32 value)
{
	put_area(&op, &other, 0, 0);
	header(op.area)[0] = bv;
	header(op.area)[1] = xcomp_bv;
	if (at)
		memcpy(op.area + at, &value, 4);
	run(XRSTOR, ~0ULL);
	check(op.vector == GP_VECTOR, "%s: wanted #GP, got vector %lld", what, op.vector);
}

/* Verify that XRSTOR refuses a header it must refuse. */
static void xrstor_faults(void)
{
	__u64 mask = setup(0);
	int i;

	restore_fault("standard, XSTATE_BV beyond XCR0", ~cpu.xcr0 & BIT(62), 0, 0, 0);
	restore_fault("standard, XCOMP_BV not zero", 0, BIT(SSE), 0, 0);
	restore_fault("standard, header byte 16", 0, 0, LEGACY_SIZE + 16, 1);
	restore_fault("standard, reserved bit of MXCSR", BIT(SSE), 0, MXCSR_OFFSET, 0x10000);
	if (!(cpu.features & HAS_XSAVEC))
		return;
	restore_fault("compacted, XCOMP_BV beyond XCR0", 0, COMPACTED | BIT(62), 0, 0);
	restore_fault("compacted, XSTATE_BV beyond XCOMP_BV", BIT(AVX), COMPACTED | BIT(SSE), 0, 0);
	restore_fault("compacted, reserved bit of MXCSR", BIT(SSE), COMPACTED | mask, MXCSR_OFFSET,
		      0x10000);
	for (i = 0; i < 63; i++)
		if (cpu.supervisor & BIT(i))
			restore_fault("compacted, supervisor component", 0, COMPACTED | BIT(i),
				      0, 0);
	for (i = 16; i < 64; i += 4)
		restore_fault("compacted, reserved bytes of the header", 0, COMPACTED | mask,
			      LEGACY_SIZE + i, 0x80);
}

/* Verify the faults that do not come from the header. */
static void xsave_faults(void)
{
	__u64 mask = setup(0);
	__u8 *odd = op.area + 16;

	TRY("xsave64 (%[area])", [area] "r" (odd), "a" (3), "d" (0));
	check_eq(fault.vector, GP_VECTOR, "vector of XSAVE, area not 64-byte aligned");
	TRY("xrstor64 (%[area])", [area] "r" (odd), "a" (3), "d" (0));
	check_eq(fault.vector, GP_VECTOR, "vector of XRSTOR, area not 64-byte aligned");
	TRY("xsetbv", "c" (0), "a" (3), "d" (0));
	check_eq(fault.vector, GP_VECTOR, "vector of XSETBV in user mode");
	if (!(cpu.features & HAS_XSAVES))
		return;
	run(XSAVES, mask);
	check_eq(op.vector, GP_VECTOR, "vector of XSAVES in user mode");
	put_area(&op, &other, 0, COMPACTED);
	run(XRSTORS, mask);
	check_eq(op.vector, GP_VECTOR, "vector of XRSTORS in user mode");
}

static const struct cpu_test xsave_tests_list[] = {
	{ "xsave_subsets", "Intel SDM vol. 1, Operation of XSAVE", xsave_subsets },
	{ "xsaveopt_subsets", "Intel SDM vol. 1, Operation of XSAVEOPT", xsaveopt_subsets },
	{ "xsavec_subsets", "Intel SDM vol. 1, Operation of XSAVEC", xsavec_subsets },
	{ "xsavec_mxcsr", "Intel SDM vol. 1, Operation of XSAVEC (MXCSR)", xsavec_mxcsr },
	{ "xrstor_one_component", "Intel SDM vol. 1, Operation of XRSTOR", xrstor_one_component },
	{ "xrstor_mxcsr", "Intel SDM vol. 1, Operation of XRSTOR (MXCSR)", xrstor_mxcsr },
	{ "xrstor_standard_subsets", "Intel SDM vol. 1, Standard Form of XRSTOR",
	  xrstor_standard_subsets },
	{ "xrstor_compacted_space", "Intel SDM vol. 1, Compacted Form of XRSTOR",
	  xrstor_compacted_space },
	{ "xrstor_compacted_subsets", "Intel SDM vol. 1, Compacted Form of XRSTOR",
	  xrstor_compacted_subsets },
	{ "xrstor_faults", "Intel SDM vol. 2, XRSTOR, Protected Mode Exceptions", xrstor_faults },
	{ "xsave_faults", "Intel SDM vol. 2, XSAVE, XRSTOR, XSAVES, XRSTORS, XSETBV, exceptions",
	  xsave_faults },
};

TEST_GROUP(xsave_tests);
