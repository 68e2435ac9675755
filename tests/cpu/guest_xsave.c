// SPDX-License-Identifier: GPL-2.0-only
/*
 * XSS, XSAVES and XRSTORS in a guest, with the components of CET.
 */
#include "cpu_guest.h"

/* Verify what XSAVES writes and where, for every RFBM, all components in use. */
static void test_xsaves_subsets(void)
{
	struct vm vm = start_ops(0);
	__u64 rfbm;

	for (rfbm = op.load;; rfbm = (rfbm - 1) & op.load) {
		poison_area(in_guest(&vm, &op));
		if (!check_save(do_op(&vm, XSAVES, rfbm), guest.xss) || !rfbm)
			break;
	}
}

/* Verify that XSAVES saves no component in its initial configuration. */
static void test_xsaves_initial(void)
{
	struct vm vm = start_ops(0);
	struct op *guest_op = in_guest(&vm, &op);
	struct regs initial;
	int i, n;

	init_regs(&initial);
	for (n = 0; n < 100; n++) {
		guest_op->in = op.in;
		guest_op->fill = op.load & next_random();
		if (!(guest_op->fill & BIT(TILECFG)))
			guest_op->fill &= ~BIT(TILEDATA);
		for (i = 0; i < 63; i++)
			if (!(guest_op->fill & BIT(i)))
				copy_component(&guest_op->in, &initial, i);
		poison_area(guest_op);
		check_save(do_op(&vm, XSAVES, ~0ULL), guest.xss);
	}
}

/* Verify that XSAVEC, unlike XSAVES, never saves a supervisor component. */
static void test_xsavec_supervisor(void)
{
	struct vm vm = start_ops(CET_MASK);

	poison_area(in_guest(&vm, &op));
	check_save(do_op(&vm, XSAVEC, ~0ULL), guest.xss);
	poison_area(in_guest(&vm, &op));
	check_save(do_op(&vm, XSAVES, ~0ULL), guest.xss);
	check_eq(header(((struct op *)in_guest(&vm, &op))->area)[1], op.load | COMPACTED,
		 "XCOMP_BV of XSAVES");
}

static int restore(struct vm *vm, __u64 rfbm, __u64 bv, __u64 xcomp_bv)
{
	put_area(in_guest(vm, &op), &other, bv, xcomp_bv | COMPACTED);
	return check_restore(do_op(vm, XRSTORS, rfbm), &other, guest.xss);
}

/* Verify XRSTORS for every XCOMP_BV, with several RFBM and XSTATE_BV. */
static void test_xrstors_subsets(void)
{
	struct vm vm = start_ops(0);
	__u64 bv;

	for (bv = op.load;; bv = (bv - 1) & op.load)
		if (!restore(&vm, ~0ULL, bv, bv) ||
		    !restore(&vm, next_random(), bv & next_random(), bv) || !bv)
			break;
}

/* Verify that what XCOMP_BV has and RFBM has not still takes up its space. */
static void test_xrstors_space(void)
{
	struct vm vm = start_ops(0);
	int i;

	for (i = 0; i < 63; i++) {
		if (!(op.load & BIT(i)))
			continue;
		restore(&vm, ~BIT(i), op.load, op.load);
		restore(&vm, BIT(i), op.load, op.load);
		restore(&vm, BIT(i), 0, op.load);
	}
}

static void restore_fault(struct vm *vm, const char *what, __u64 bv, __u64 xcomp_bv)
{
	put_area(in_guest(vm, &op), &other, bv & op.load, xcomp_bv);
	header(((struct op *)in_guest(vm, &op))->area)[0] = bv;
	do_op(vm, XRSTORS, ~0ULL);
	check(((struct op *)in_guest(vm, &op))->vector == GP_VECTOR,
	      "%s: wanted #GP, got vector %lld", what, ((struct op *)in_guest(vm, &op))->vector);
}

/* Verify that XRSTORS refuses a header it must refuse. */
static void test_xrstors_faults(void)
{
	struct vm vm = start_ops(0);

	restore_fault(&vm, "standard format", 0, 0);
	restore_fault(&vm, "XCOMP_BV beyond XCR0 and XSS", 0, COMPACTED | BIT(62));
	restore_fault(&vm, "XCOMP_BV with PASID", 0, COMPACTED | BIT(PASID));
	restore_fault(&vm, "XSTATE_BV beyond XCOMP_BV", BIT(AVX), COMPACTED | BIT(SSE));
	if (guest.xss)
		restore_fault(&vm, "XSTATE_BV with CET, XCOMP_BV without", BIT(CET_USER),
			      COMPACTED | (op.load & ~BIT(CET_USER)));
}

static const struct { int component, word; __u32 msr; __u64 value; } bad_cet[] = {
	{ CET_USER, 0, MSR_U_CET, BIT(6) },
	{ CET_USER, 0, MSR_U_CET, BIT(9) },
	{ CET_USER, 0, MSR_U_CET, BIT(62) },
	{ CET_USER, 1, MSR_PL3_SSP, 0x1001 },
	{ CET_USER, 1, MSR_PL3_SSP, 0x1002 },
	{ CET_USER, 1, MSR_PL3_SSP, BIT(62) },
	{ CET_KERNEL, 0, MSR_PL0_SSP, 0x1001 },
	{ CET_KERNEL, 0, MSR_PL0_SSP, BIT(62) },
	{ CET_KERNEL, 1, MSR_PL0_SSP + 1, 0x1002 },
	{ CET_KERNEL, 1, MSR_PL0_SSP + 1, BIT(62) },
	{ CET_KERNEL, 2, MSR_PL0_SSP + 2, 0x1001 },
	{ CET_KERNEL, 2, MSR_PL0_SSP + 2, BIT(62) },
};

static GUEST void guest_bad_cet(void)
{
	__u32 i;

	guest_xsave_on();
	for (i = 0; i < ARRAY_SIZE(bad_cet); i++)
		guest.out[i] = try_wrmsr(bad_cet[i].msr, bad_cet[i].value);
}

/* Verify that XRSTORS refuses a CET value that WRMSR refuses. */
static void test_xrstors_bad_cet(void)
{
	struct vm vm = start_ops(CET_MASK);
	struct regs bad;
	struct op *o;
	__u64 *out;
	__u32 i;

	out = run_guest(guest_bad_cet);
	for (i = 0; i < ARRAY_SIZE(bad_cet); i++) {
		check(out[i] == GP_VECTOR, "WRMSR %#x of %#llx: wanted #GP, got vector %lld",
		      bad_cet[i].msr, bad_cet[i].value, out[i]);
		bad = other;
		if (bad_cet[i].component == CET_USER)
			bad.cet_user[bad_cet[i].word] = bad_cet[i].value;
		else
			bad.cet_kernel[bad_cet[i].word] = bad_cet[i].value;
		put_area(in_guest(&vm, &op), &bad, op.load, op.load | COMPACTED);
		o = do_op(&vm, XRSTORS, BIT(bad_cet[i].component));
		check(o->vector == GP_VECTOR, "XRSTORS of MSR %#x %#llx: wanted #GP, got %lld",
		      bad_cet[i].msr, bad_cet[i].value, o->vector);
		o = do_op(&vm, XRSTORS, op.load & ~BIT(bad_cet[i].component));
		check(o->vector == NO_FAULT, "XRSTORS without MSR %#x: wanted no fault, got %lld",
		      bad_cet[i].msr, o->vector);
	}
}

static GUEST void guest_xss(void)
{
	int i;

	for (i = 0; i < 64; i++)
		guest.out[i] = try_wrmsr(MSR_XSS, BIT(i));
	wrmsr(MSR_XSS, guest.xss);
	guest.out[64] = rdmsr(MSR_XSS);
}

/* Verify that XSS takes what leaf 0xD.1 lists and nothing else. */
static void test_xss(void)
{
	__u64 *out, listed;
	int i;

	setup();
	if (!(cpuid_entry(0xd, 1)->eax & HAS_XSAVES))
		skip("no XSAVES in guests");
	listed = cpuid_entry(0xd, 1)->ecx | (__u64)cpuid_entry(0xd, 1)->edx << 32;
	out = run_guest(guest_xss);
	for (i = 0; i < 64; i++)
		check(out[i] == (listed & BIT(i) ? NO_FAULT : GP_VECTOR),
		      "XSS bit %d: wanted %s, got vector %lld", i,
		      listed & BIT(i) ? "no fault" : "#GP", out[i]);
	check_eq(out[64], guest.xss, "XSS");
}

static const struct cpu_test guest_xsave_tests_list[] = {
	{ "xss_bits", "Intel SDM vol. 4, IA32_XSS", test_xss },
	{ "xsaves_subsets", "Intel SDM vol. 1, Operation of XSAVES", test_xsaves_subsets },
	{ "xsaves_initial", "Intel SDM vol. 1, Operation of XSAVES", test_xsaves_initial },
	{ "xsavec_supervisor", "Intel SDM vol. 1, Operation of XSAVEC and XSAVES",
	  test_xsavec_supervisor },
	{ "xrstors_space", "Intel SDM vol. 1, Operation of XRSTORS", test_xrstors_space },
	{ "xrstors_subsets", "Intel SDM vol. 1, Operation of XRSTORS", test_xrstors_subsets },
	{ "xrstors_faults", "Intel SDM vol. 2, XRSTORS, Protected Mode Exceptions",
	  test_xrstors_faults },
	{ "xrstors_bad_cet", "Intel SDM vol. 1, Operation of XRSTORS (CET state)",
	  test_xrstors_bad_cet },
};

TEST_GROUP(guest_xsave_tests);
