// SPDX-License-Identifier: GPL-2.0-only
/*
 * XFD in a guest, where it is the guest that owns IA32_XFD.
 */
#include "cpu_guest.h"

static void need_xfd(void)
{
	if (!(guest.xcr0 & BIT(TILEDATA)) || !(cpuid_entry(0xd, 1)->eax & HAS_XFD))
		skip("no AMX in guests");
}

static GUEST void guest_xfd_bits(void)
{
	int i;

	guest_xsave_on();
	guest.out[64] = rdmsr(MSR_XFD);
	/* From the first bit set on KVM no longer intercepts writes of XFD. */
	guest.out[65] = try_wrmsr(MSR_XFD, BIT(TILEDATA));
	for (i = 0; i < 64; i++)
		guest.out[i] = i == TILEDATA ? GP_VECTOR :
			       try_wrmsr(MSR_XFD, BIT(TILEDATA) | BIT(i));
	guest.out[66] = rdmsr(MSR_XFD);
	guest.out[67] = try_wrmsr(MSR_XFD_ERR, BIT(TILEDATA));
	guest.out[68] = rdmsr(MSR_XFD_ERR);
	guest.out[69] = try_wrmsr(MSR_XFD_ERR, BIT(TILECFG));
	guest.out[70] = try_wrmsr(MSR_XFD_ERR, 0);
	guest.out[71] = rdmsr(MSR_XFD_ERR);
	wrmsr(MSR_XFD, 0);
}

/* Verify that only bit 18 of XFD and XFD_ERR can be set. */
static void test_xfd_bits(void)
{
	__u64 *out;
	int i;

	setup();
	need_xfd();
	out = run_guest(guest_xfd_bits);
	for (i = 0; i < 64; i++)
		check(out[i] == GP_VECTOR, "XFD bit %d: wanted #GP, got vector %lld", i, out[i]);
	check_eq(out[64], 0, "XFD at first");
	check_eq(out[65], NO_FAULT, "vector of setting XFD[18]");
	check_eq(out[66], BIT(TILEDATA), "XFD after the faults");
	check_eq(out[67], NO_FAULT, "vector of setting XFD_ERR[18]");
	check_eq(out[68], BIT(TILEDATA), "XFD_ERR");
	check_eq(out[69], GP_VECTOR, "vector of setting XFD_ERR[17]");
	check_eq(out[70], NO_FAULT, "vector of clearing XFD_ERR");
	check_eq(out[71], 0, "XFD_ERR cleared");
}

/* Note vector, XFD_ERR and CR0.TS of one instruction. */
#define TRY_XFD(n, insn, ...)						\
do {									\
	__u64 *__out = guest.out + 3 * (n);				\
									\
	TRY(insn, __VA_ARGS__);						\
	__out[0] = fault.vector;					\
	__out[1] = rdmsr(MSR_XFD_ERR);					\
	wrmsr(MSR_XFD_ERR, 0);						\
	asm volatile("mov %%cr0, %0" : "=r" (__out[2]));		\
} while (0)

static const char * const xfd_insns[] = {
	"LDTILECFG", "STTILECFG", "TILERELEASE", "TILEZERO", "TILELOADD", "TILELOADDT1",
	"TILESTORED", "TDPBSSD", "TDPBSUD", "TDPBUSD", "TDPBUUD", "TDPBF16PS",
};

#define XFD_IGNORED_BY	3	/* that many of the names above */

static GUEST void guest_xfd_insns(void)
{
	guest_xsave_on();
	wrmsr(MSR_XFD, BIT(TILEDATA));
	TRY_XFD(2, "tilerelease", "r" (0));
	TRY_XFD(0, "ldtilecfg (%[p])", [p] "r" (op.in.tilecfg));
	TRY_XFD(1, "sttilecfg (%[p])", [p] "r" (op.out.tilecfg));
	TRY_XFD(3, "tilezero %%tmm0", "r" (0));
	TRY_XFD(4, "tileloadd (%[p],%[s],1), %%tmm0", [p] "r" (op.in.tile), [s] "r" (64UL));
	TRY_XFD(5, "tileloaddt1 (%[p],%[s],1), %%tmm0", [p] "r" (op.in.tile), [s] "r" (64UL));
	TRY_XFD(6, "tilestored %%tmm0, (%[p],%[s],1)", [p] "r" (op.out.tile), [s] "r" (64UL));
	TRY_XFD(7, "tdpbssd %%tmm2, %%tmm1, %%tmm0", "r" (0));
	TRY_XFD(8, "tdpbsud %%tmm2, %%tmm1, %%tmm0", "r" (0));
	TRY_XFD(9, "tdpbusd %%tmm2, %%tmm1, %%tmm0", "r" (0));
	TRY_XFD(10, "tdpbuud %%tmm2, %%tmm1, %%tmm0", "r" (0));
	TRY_XFD(11, "tdpbf16ps %%tmm2, %%tmm1, %%tmm0", "r" (0));
	wrmsr(MSR_XFD, 0);
	TRY_XFD(12, "tilezero %%tmm0", "r" (0));
}

/* Verify which instructions raise #NM with XFD[18], and what they leave behind. */
static void test_xfd_insns(void)
{
	__u64 *out, raises;
	__u32 i;

	setup();
	need_xfd();
	out = run_guest(guest_xfd_insns);
	for (i = 0; i < ARRAY_SIZE(xfd_insns); i++) {
		raises = i >= XFD_IGNORED_BY;
		check(out[3 * i] == (raises ? NM_VECTOR : NO_FAULT),
		      "%s: wanted %s, got vector %lld", xfd_insns[i], raises ? "#NM" : "no fault",
		      out[3 * i]);
		check(out[3 * i + 1] == raises << TILEDATA, "%s: XFD_ERR: wanted %#llx, got %#llx",
		      xfd_insns[i], raises << TILEDATA, out[3 * i + 1]);
		check(!(out[3 * i + 2] & BIT(3)), "%s: CR0.TS: wanted 0, got 1", xfd_insns[i]);
	}
	check_eq(out[36], NO_FAULT, "vector of TILEZERO with XFD 0");
}

/* Verify that XSAVE, XSAVEC and XSAVES take live tile data for initial with XFD[18]. */
static void test_xfd_save(void)
{
	struct vm vm = start_ops(0);
	struct op *o = in_guest(&vm, &op);
	enum xsave_insn insn;

	need_xfd();
	for (insn = XSAVE; insn <= XSAVES; insn++) {
		o->xfd = BIT(TILEDATA);
		poison_area(o);
		check_save(do_op(&vm, insn, ~0ULL), guest.xss);
		check_eq(header(o->area)[0] & BIT(TILEDATA), 0, "XSTATE_BV[18], XFD[18] set");
		check_eq(((struct guest *)in_guest(&vm, &guest))->out[0], 0, "XFD_ERR");
		o->xfd = 0;
		poison_area(o);
		check_save(do_op(&vm, insn, ~0ULL), guest.xss);
		check_eq(header(o->area)[0] & BIT(TILEDATA), BIT(TILEDATA),
			 "XSTATE_BV[18], XFD clear");
	}
}

/* Verify that XRSTOR and XRSTORS raise #NM with XFD[18] if they would load 18. */
static void test_xfd_restore(void)
{
	struct vm vm = start_ops(0);
	__u64 *xfd_err = ((struct guest *)in_guest(&vm, &guest))->out;
	struct op *o = in_guest(&vm, &op);
	__u64 format;
	int n;

	need_xfd();
	o->xfd = BIT(TILEDATA);
	for (n = 0; n < 3; n++) {
		format = n ? guest.xcr0 | COMPACTED : 0;
		put_area(o, &other, AMX_MASK, format);
		do_op(&vm, n < 2 ? XRSTOR : XRSTORS, AMX_MASK);
		check_eq(o->vector, NM_VECTOR, "vector, RFBM[18] and XSTATE_BV[18] set");
		check_eq(*xfd_err, BIT(TILEDATA), "XFD_ERR");
		do_op(&vm, n < 2 ? XRSTOR : XRSTORS, guest.xcr0 & ~BIT(TILEDATA));
		check_eq(o->vector, NO_FAULT, "vector, RFBM[18] clear");
		put_area(o, &other, BIT(TILECFG), format);
		do_op(&vm, n < 2 ? XRSTOR : XRSTORS, AMX_MASK);
		check_eq(o->vector, NO_FAULT, "vector, XSTATE_BV[18] clear");
		check_eq(*xfd_err, 0, "XFD_ERR");
	}
}

static const struct cpu_test guest_xfd_tests_list[] = {
	{ "xfd_bits", "Intel SDM vol. 1, Extended Feature Disable (XFD)", test_xfd_bits },
	{ "xfd_instructions", "Intel SDM vol. 1, Extended Feature Disable (XFD)", test_xfd_insns },
	{ "xfd_save", "Intel SDM vol. 1, Extended Feature Disable (XFD)", test_xfd_save },
	{ "xfd_restore", "Intel SDM vol. 1, Extended Feature Disable (XFD)", test_xfd_restore },
};

TEST_GROUP(guest_xfd_tests);
