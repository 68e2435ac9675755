/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Helpers of the CPU self-test: the XSAVE layout, the registers behind it, and
 * one XSAVE instruction run between known registers and known memory.
 */
#ifndef CPU_REGS_H
#define CPU_REGS_H

#include "cpu_test.h"

/* For code that must leave the vector registers alone, or has none yet. */
#define INTEGER_ONLY __attribute__((target("general-regs-only"), unused))

/* ---- CPUID leaf 0xD ---- */

enum component {
	X87 = 0, SSE = 1, AVX = 2, OPMASK = 5, ZMM_HI256 = 6, HI16_ZMM = 7, PKRU = 9,
	PASID = 10, CET_USER = 11, CET_KERNEL = 12, TILECFG = 17, TILEDATA = 18,
};

#define AVX512_MASK	(BIT(OPMASK) | BIT(ZMM_HI256) | BIT(HI16_ZMM))
#define CET_MASK	(BIT(CET_USER) | BIT(CET_KERNEL))
#define AMX_MASK	(BIT(TILECFG) | BIT(TILEDATA))
/* What struct regs can hold. */
#define KNOWN_MASK	(BIT(X87) | BIT(SSE) | BIT(AVX) | AVX512_MASK | BIT(PKRU) | \
			 CET_MASK | AMX_MASK)

#define LEGACY_SIZE	512
#define HEADER_END	576
#define AREA_SIZE	16384
#define COMPACTED	BIT(63)

struct cpu {
	__u64 xcr0, user, supervisor;	/* enabled; what leaf 0xD lists */
	__u32 features;			/* leaf 0xD.1 EAX */
	__u32 size[63], offset[63], flags[63];
};

extern struct cpu cpu;

enum { HAS_XSAVEOPT = BIT(0), HAS_XSAVEC = BIT(1), HAS_XGETBV1 = BIT(2), HAS_XSAVES = BIT(3),
	HAS_XFD = BIT(4), IS_SUPERVISOR = BIT(0), IS_ALIGNED = BIT(1), IS_XFD = BIT(2) };

static INTEGER_ONLY __u64 xgetbv(__u32 index)
{
	__u32 lo, hi;

	asm volatile("xgetbv" : "=a" (lo), "=d" (hi) : "c" (index));
	return lo | (__u64)hi << 32;
}

static inline void read_cpu(void)
{
	__u32 a, b, c, d;
	int i;

	__cpuid(1, a, b, c, d);
	if (!(c & BIT(27)))
		skip("no XSAVE");
	cpu.xcr0 = xgetbv(0);
	__cpuid_count(0xd, 0, a, b, c, d);
	cpu.user = a | (__u64)d << 32;
	__cpuid_count(0xd, 1, a, b, c, d);
	cpu.features = a;
	cpu.supervisor = c | (__u64)d << 32;
	for (i = 2; i < 63; i++)
		__cpuid_count(0xd, i, cpu.size[i], cpu.offset[i], cpu.flags[i], d);
}

/* Where @i starts in an area whose XCOMP_BV is @bv; 63 gives the whole size. */
static inline __u32 compact_offset(__u64 bv, int i)
{
	__u32 offset = HEADER_END;
	int j;

	for (j = 2; j < 63; j++) {
		if (!(bv & BIT(j)))
			continue;
		if (cpu.flags[j] & IS_ALIGNED)
			offset = (offset + 63) & ~63U;
		if (j == i)
			return offset;
		offset += cpu.size[j];
	}
	return offset;
}

/* ---- The registers behind the components ---- */

struct regs {
	alignas(64) __u8 fx[512];	/* x87 and MXCSR */
	__u8 zmm[32][64];
	__u64 k[8];
	__u8 tilecfg[64];
	__u8 tile[8][1024];
	__u64 cet_user[2];		/* U_CET, PL3_SSP */
	__u64 cet_kernel[3];		/* PL0_SSP, PL1_SSP, PL2_SSP */
	__u64 pkru;
};

#define MXCSR_OFFSET	24
#define MXCSR_INIT	0x1f80
#define ALL_TILES	"0,1,2,3,4,5,6,7"
#define LOW_ZMM		"0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define HIGH_ZMM	"16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define MSR_U_CET	0x6a0
#define MSR_PL0_SSP	0x6a4
#define MSR_PL3_SSP	0x6a7
#define MSR_XFD		0x1c4

enum xsave_insn { XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS };

/*
 * One XSAVE or XRSTOR. Before it the components of @load get the values of @in,
 * those of @fill among them with ordinary instructions, the others by XRSTOR of
 * the initial configuration. After it all are read back to @out. User mode
 * leaves @supervisor 0, and with it the MSRs alone.
 */
struct op {
	alignas(64) __u8 area[AREA_SIZE];
	alignas(64) __u8 full_tiles[AREA_SIZE];
	alignas(64) __u8 initial[AREA_SIZE];
	struct regs in, out;
	__u64 load, fill, rfbm, xfd, xinuse, vector, pkru;
	__u32 insn, supervisor;
};

static INTEGER_ONLY __u64 rdmsr(__u32 msr)
{
	__u32 lo, hi;

	asm volatile("rdmsr" : "=a" (lo), "=d" (hi) : "c" (msr));
	return lo | (__u64)hi << 32;
}

static INTEGER_ONLY void wrmsr(__u32 msr, __u64 value)
{
	asm volatile("wrmsr" : : "c" (msr), "a" ((__u32)value), "d" (value >> 32) : "memory");
}

static INTEGER_ONLY void wrpkru(__u32 value)
{
	asm volatile("wrpkru" : : "a" (value), "c" (0), "d" (0) : "memory");
}

static INTEGER_ONLY __u32 rdpkru(void)
{
	__u32 value;

	asm volatile("rdpkru" : "=a" (value) : "c" (0) : "rdx");
	return value;
}

static INTEGER_ONLY void load_regs(struct op *op)
{
	const struct regs *r = &op->in;
	__u64 mask = op->fill;

	if (op->fill != op->load)
		asm volatile("xrstor64 (%0)" : : "r" (op->initial), "a" ((__u32)op->load),
			     "d" (op->load >> 32) : "memory");
	if (mask & BIT(X87))
		asm volatile("fxrstor64 (%0)" : : "r" (r->fx) : "memory");
	asm volatile("ldmxcsr (%0)" : : "r" (r->fx + MXCSR_OFFSET) : "memory");
	if (mask & AVX512_MASK)
		asm volatile(".irp n," LOW_ZMM "," HIGH_ZMM "\n\t"
			     "vmovdqu64 64*\\n(%0), %%zmm\\n\n\t.endr\n\t"
			     ".irp n," ALL_TILES "\n\tkmovq 8*\\n(%1), %%k\\n\n\t.endr"
			     : : "r" (r->zmm), "r" (r->k) : "memory");
	else if (mask & (BIT(SSE) | BIT(AVX)))
		asm volatile(".irp n," LOW_ZMM "\n\t"
			     "vmovdqu 64*\\n(%0), %%ymm\\n\n\t.endr" : : "r" (r->zmm) : "memory");
	if (mask & BIT(PKRU))
		wrpkru(r->pkru);
	if (mask & BIT(TILECFG))
		asm volatile("ldtilecfg (%0)" : : "r" (r->tilecfg) : "memory");
	if (mask & BIT(TILEDATA))
		asm volatile(".irp n," ALL_TILES "\n\t"
			     "tileloadd 1024*\\n(%0,%1,1), %%tmm\\n\n\t.endr"
			     : : "r" (r->tile), "r" (64UL) : "memory");
	if (!op->supervisor)
		return;
	if (op->load & BIT(CET_USER)) {
		wrmsr(MSR_U_CET, r->cet_user[0]);
		wrmsr(MSR_PL3_SSP, r->cet_user[1]);
	}
	if (op->load & BIT(CET_KERNEL)) {
		wrmsr(MSR_PL0_SSP, r->cet_kernel[0]);
		wrmsr(MSR_PL0_SSP + 1, r->cet_kernel[1]);
		wrmsr(MSR_PL0_SSP + 2, r->cet_kernel[2]);
	}
}

static INTEGER_ONLY void store_regs(struct op *op)
{
	struct regs *r = &op->out;

	asm volatile("fxsave64 (%0)" : : "r" (r->fx) : "memory");
	if (op->load & BIT(HI16_ZMM))
		asm volatile(".irp n," LOW_ZMM "," HIGH_ZMM "\n\t"
			     "vmovdqu64 %%zmm\\n, 64*\\n(%0)\n\t.endr\n\t"
			     ".irp n," ALL_TILES "\n\tkmovq %%k\\n, 8*\\n(%1)\n\t.endr"
			     : : "r" (r->zmm), "r" (r->k) : "memory");
	else if (op->load & BIT(AVX))
		asm volatile(".irp n," LOW_ZMM "\n\t"
			     "vmovdqu %%ymm\\n, 64*\\n(%0)\n\t.endr" : : "r" (r->zmm) : "memory");
	if (op->load & BIT(PKRU)) {
		r->pkru = rdpkru();
		wrpkru(op->pkru);
	}
	/* LDTILECFG would clear the tiles: give them their full shape by XRSTOR. */
	if (op->load & BIT(TILEDATA))
		asm volatile("sttilecfg (%0)\n\txrstor64 (%1)\n\t.irp n," ALL_TILES "\n\t"
			     "tilestored %%tmm\\n, 1024*\\n(%2,%3,1)\n\t.endr\n\ttilerelease"
			     : : "r" (r->tilecfg), "r" (op->full_tiles), "r" (r->tile),
			     "r" (64UL), "a" (BIT(TILECFG)), "d" (0) : "memory");
	asm volatile("fninit\n\tldmxcsr (%0)" : : "r" (&(__u32){ MXCSR_INIT }) : "memory");
	if (!op->supervisor)
		return;
	if (op->load & BIT(CET_USER)) {
		r->cet_user[0] = rdmsr(MSR_U_CET);
		r->cet_user[1] = rdmsr(MSR_PL3_SSP);
	}
	if (op->load & BIT(CET_KERNEL)) {
		r->cet_kernel[0] = rdmsr(MSR_PL0_SSP);
		r->cet_kernel[1] = rdmsr(MSR_PL0_SSP + 1);
		r->cet_kernel[2] = rdmsr(MSR_PL0_SSP + 2);
	}
}

/* The vector registers are set and read across statements: no SSE code here. */
static INTEGER_ONLY __attribute_noinline__ void run_op(struct op *op)
{
	__u32 lo = op->rfbm, hi = op->rfbm >> 32;
	__u8 *area = op->area;

	load_regs(op);
	if (op->xfd)
		wrmsr(MSR_XFD, op->xfd);
	op->xinuse = xgetbv(1);
	if (op->insn == XSAVE)
		TRY("xsave64 (%[area])", [area] "r" (area), "a" (lo), "d" (hi));
	else if (op->insn == XSAVEOPT)
		TRY("xsaveopt64 (%[area])", [area] "r" (area), "a" (lo), "d" (hi));
	else if (op->insn == XSAVEC)
		TRY("xsavec64 (%[area])", [area] "r" (area), "a" (lo), "d" (hi));
	else if (op->insn == XSAVES)
		TRY("xsaves64 (%[area])", [area] "r" (area), "a" (lo), "d" (hi));
	else if (op->insn == XRSTOR)
		TRY("xrstor64 (%[area])", [area] "r" (area), "a" (lo), "d" (hi));
	else
		TRY("xrstors64 (%[area])", [area] "r" (area), "a" (lo), "d" (hi));
	op->vector = fault.vector;
	if (op->xfd)
		wrmsr(MSR_XFD, 0);
	store_regs(op);
}

#endif /* CPU_REGS_H */
