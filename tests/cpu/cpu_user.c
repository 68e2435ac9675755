// SPDX-License-Identifier: GPL-2.0-only
/*
 * Check the CPU, as user mode sees it: CPUID leaf 0xD, XSAVE and XRSTOR, XFD,
 * AMX and protection keys, and the MSRs behind them.
 *
 * No kernel selftest is used, and of the kernel only what the CPU needs to be
 * seen at all. Option -w adds tests that write MSRs (and put them back), which
 * taints the kernel.
 */
#include "cpu_user.h"

struct fault fault;
struct report *report;
struct cpu cpu;
struct op op;
struct regs other;
int write_msrs;

__u64 setup(__u32 features)
{
	__u64 mask;
	__u32 a, b, c, d;

	read_cpu();
	catch_faults();
	if (!(cpu.xcr0 & BIT(AVX)))
		skip("no AVX");
	if ((cpu.features & features) != features)
		skip("no such XSAVE instruction");
	if (compact_offset(cpu.user, 63) > AREA_SIZE)
		skip("larger XSAVE area than known");
	mask = cpu.xcr0 & KNOWN_MASK;
	__cpuid_count(7, 0, a, b, c, d);
	if (!(b & BIT(30)))
		mask &= ~AVX512_MASK;		/* no KMOVQ */
	if (mask & AMX_MASK && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILEDATA))
		mask &= ~AMX_MASK;
	init_op(&op);
	op.load = mask;
	op.fill = mask;
	if (mask & BIT(PKRU))
		op.pkru = rdpkru();
	fill_regs(&op.in, 1);
	fill_regs(&other, 0);
	return mask;
}

void need_amx(__u64 mask)
{
	if (!(mask & BIT(TILEDATA)))
		skip("no AMX");
}

/* run_op() changes registers the compiler believes to know. */
void run(enum xsave_insn insn, __u64 rfbm)
{
	op.insn = insn;
	op.rfbm = rfbm;
	run_op(&op);
	asm volatile("" : : : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
		     "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

int restore(enum xsave_insn insn, __u64 rfbm, __u64 bv, __u64 xcomp_bv)
{
	put_area(&op, &other, bv, xcomp_bv);
	run(insn, rfbm);
	return check_restore(&op, &other, 0);
}

/* Verify that leaf 0xD lists each component once, with the size it must have. */
static void cpuid_components(void)
{
	static const struct { int i; __u32 size; } known[] = {
		{ AVX, 256 }, { OPMASK, 64 }, { ZMM_HI256, 512 }, { HI16_ZMM, 1024 }, { PKRU, 8 },
		{ PASID, 8 }, { CET_USER, 16 }, { CET_KERNEL, 24 }, { TILECFG, 64 },
	};
	__u64 all;
	__u32 n;
	int i;

	read_cpu();
	all = cpu.user | cpu.supervisor;
	check((cpu.user & 3) == 3, "x87 and SSE: wanted 0x3, got %#llx", cpu.user & 3);
	check(!(cpu.user & cpu.supervisor), "user and supervisor at once: wanted 0, got %#llx",
	      cpu.user & cpu.supervisor);
	check(!(cpu.xcr0 & ~cpu.user), "XCR0 %#llx beyond CPUID %#llx", cpu.xcr0, cpu.user);
	for (i = 2; i < 63; i++) {
		check(!!cpu.size[i] == !!(all & BIT(i)), "component %d: listed %d, size %u", i,
		      !!(all & BIT(i)), cpu.size[i]);
		check(!!(cpu.flags[i] & IS_SUPERVISOR) == !!(cpu.supervisor & BIT(i)),
		      "component %d: wanted supervisor flag %d, got ECX %#x", i,
		      !!(cpu.supervisor & BIT(i)), cpu.flags[i]);
		check(!(cpu.flags[i] & IS_SUPERVISOR) || !cpu.offset[i],
		      "supervisor component %d: wanted offset 0, got %u", i, cpu.offset[i]);
	}
	for (n = 0; n < ARRAY_SIZE(known); n++)
		check(!(all & BIT(known[n].i)) || cpu.size[known[n].i] == known[n].size,
		      "component %d: wanted size %u, got %u", known[n].i, known[n].size,
		      cpu.size[known[n].i]);
}

/* Verify that the standard format has no overlaps and the sizes leaf 0xD.0 tells. */
static void cpuid_standard_sizes(void)
{
	__u32 enabled = HEADER_END, supported = HEADER_END, end, a, b, c, d;
	int i, j;

	read_cpu();
	for (i = 2; i < 63; i++) {
		if (!(cpu.user & BIT(i)))
			continue;
		end = cpu.offset[i] + cpu.size[i];
		check(cpu.offset[i] >= HEADER_END, "component %d: offset %u", i, cpu.offset[i]);
		for (j = 2; j < i; j++)
			check(!(cpu.user & BIT(j)) || end <= cpu.offset[j] ||
			      cpu.offset[j] + cpu.size[j] <= cpu.offset[i],
			      "components %d and %d overlap", i, j);
		supported = end > supported ? end : supported;
		if (cpu.xcr0 & BIT(i))
			enabled = end > enabled ? end : enabled;
	}
	__cpuid_count(0xd, 0, a, b, c, d);
	check_eq(b, enabled, "size of what XCR0 enables (EBX)");
	check_eq(c, supported, "size of all that is supported (ECX)");
}

/* Verify that leaf 0xD.1 EBX is the compacted size of XCR0 | XSS, for some XSS. */
static void cpuid_compacted_size(void)
{
	__u32 a, size, c, d;
	__u64 xss;

	read_cpu();
	if (!(cpu.features & (HAS_XSAVEC | HAS_XSAVES)))
		skip("no such XSAVE instruction");
	__cpuid_count(0xd, 1, a, size, c, d);
	for (xss = cpu.supervisor; xss; xss = (xss - 1) & cpu.supervisor)
		if (compact_offset(cpu.xcr0 | xss, 63) == size)
			break;
	check(compact_offset(cpu.xcr0 | xss, 63) == size,
	      "compacted size: wanted %u (XSS 0) to %u, got %u", compact_offset(cpu.xcr0, 63),
	      compact_offset(cpu.xcr0 | cpu.supervisor, 63), size);
}

/* Verify that XFD is there for TILEDATA and only where a component lists it. */
static void cpuid_xfd(void)
{
	__u64 bv = 0;
	int i;

	read_cpu();
	for (i = 2; i < 63; i++)
		if (cpu.flags[i] & IS_XFD)
			bv |= BIT(i);
	check_eq(!!(cpu.features & HAS_XFD), !!bv, "XFD in 0xD.1 EAX against ECX of components");
	check(!(bv & ~cpu.user), "XFD for %#llx beyond the user components %#llx", bv, cpu.user);
	if (cpu.user & BIT(TILEDATA))
		check_eq(bv & AMX_MASK, BIT(TILEDATA), "XFD for AMX components");
}

/* Verify that the leaves on AMX agree with each other, and that 17 and 18 are aligned. */
static void cpuid_amx(void)
{
	__u32 a, b, c, d, max;

	read_cpu();
	if (!(cpu.user & AMX_MASK))
		skip("no AMX");
	max = __get_cpuid_max(0, NULL);
	check(max >= 0x1e, "maximal leaf: wanted 0x1e or more, got %#x", max);
	check_eq(cpu.user & AMX_MASK, AMX_MASK, "TILECFG and TILEDATA");
	check_eq(cpu.flags[TILECFG] & IS_ALIGNED, IS_ALIGNED, "alignment of TILECFG");
	check_eq(cpu.flags[TILEDATA] & IS_ALIGNED, IS_ALIGNED, "alignment of TILEDATA");
	__cpuid_count(7, 0, a, b, c, d);
	check(d & BIT(24), "AMX-TILE in leaf 7 EDX: wanted bit 24, got %#x", d);
	__cpuid_count(0x1d, 1, a, b, c, d);
	check_eq(a >> 16, 1024, "bytes per tile");
	check_eq(a & 0xffff, 8192, "bytes of all tiles");
	check_eq(b >> 16, 8, "number of tiles");
	check_eq(b & 0xffff, 64, "bytes per row");
	check_eq(c & 0xffff, 16, "rows");
	check_eq(cpu.size[TILEDATA], a & 0xffff, "size of TILEDATA");
}

static const struct cpu_test cpuid_tests_list[] = {
	{ "cpuid_components", "Intel SDM vol. 2, CPUID, leaf 0DH", cpuid_components },
	{ "cpuid_standard_sizes", "Intel SDM vol. 2, CPUID, leaf 0DH", cpuid_standard_sizes },
	{ "cpuid_compacted_size", "Intel SDM vol. 1, Compacted Format of an XSAVE Area",
	  cpuid_compacted_size },
	{ "cpuid_xfd", "Intel SDM vol. 1, Extended Feature Disable (XFD)", cpuid_xfd },
	{ "cpuid_amx", "Intel SDM vol. 2, CPUID, leaves 0DH, 1DH; real CPUs for the alignment",
	  cpuid_amx },
};

TEST_GROUP(cpuid_tests);

static const struct test_group *const groups[] = {
	&cpuid_tests, &xsave_tests, &amx_tests, &memory_tests, &msr_tests, NULL,
};

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "-w")) {
		write_msrs = 1;
	} else if (argc > 1) {
		fprintf(stderr, "%s: unknown argument \"%s\": use none, or -w to write MSRs too\n",
			argv[0], argv[1]);
		return 2;
	}
	return run_tests(groups);
}
