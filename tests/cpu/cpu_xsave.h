/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Helpers of the CPU self-test: what the XSAVE instructions must save and load.
 *
 * The layout is computed from CPUID leaf 0xD, here and once more, apart from
 * the selftests: see cpu_test.h.
 */
#ifndef CPU_XSAVE_H
#define CPU_XSAVE_H

#include "cpu_test.h"

/* Code that may run without, or must leave alone, all but the integer registers. */
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

/* ---- What an XSAVE must write and an XRSTOR must load ---- */

static inline __u64 *header(__u8 *area)
{
	return (__u64 *)(area + LEGACY_SIZE);
}

static inline __u32 *mxcsr(struct regs *r)
{
	return (__u32 *)(r->fx + MXCSR_OFFSET);
}

/*
 * Where the bytes of a component are in struct regs and in an area: @count
 * runs of @size bytes, @in_regs and @in_area bytes apart.
 */
static const struct piece {
	int component;
	__u32 regs, area;		/* area: within the component */
	__u32 count, size, in_regs, in_area;
} pieces[] = {
	{ X87, offsetof(struct regs, fx), 0, 1, 5, 0, 0 },	/* FCW, FSW, FTW */
	{ X87, offsetof(struct regs, fx) + 32, 32, 8, 10, 16, 16 },
	{ SSE, offsetof(struct regs, zmm), 160, 16, 16, 64, 16 },
	{ AVX, offsetof(struct regs, zmm) + 16, 0, 16, 16, 64, 16 },
	{ OPMASK, offsetof(struct regs, k), 0, 1, 64, 0, 0 },
	{ ZMM_HI256, offsetof(struct regs, zmm) + 32, 0, 16, 32, 64, 32 },
	{ HI16_ZMM, offsetof(struct regs, zmm[16]), 0, 1, 1024, 0, 0 },
	{ PKRU, offsetof(struct regs, pkru), 0, 1, 4, 0, 0 },
	{ CET_USER, offsetof(struct regs, cet_user), 0, 1, 16, 0, 0 },
	{ CET_KERNEL, offsetof(struct regs, cet_kernel), 0, 1, 24, 0, 0 },
	{ TILECFG, offsetof(struct regs, tilecfg), 0, 1, 64, 0, 0 },
	{ TILEDATA, offsetof(struct regs, tile), 0, 1, 8192, 0, 0 },
};

#define END_OF_PIECES	(pieces + ARRAY_SIZE(pieces))

/*
 * Write component @i of @r to @area, at @offset if it is an extended one, and
 * clear @care for those of its bytes that the architecture leaves open.
 */
static inline void put_component(const struct regs *r, int i, __u8 *area, __u32 offset, __u8 *care)
{
	const struct piece *p;
	__u32 n;

	if (i == X87) {
		memset(care, 0, MXCSR_OFFSET);
		memset(care + 32, 0, 128);
	}
	if (i < 2)
		offset = 0;
	else
		memset(care + offset, 0, cpu.size[i]);
	for (p = pieces; p < END_OF_PIECES; p++) {
		for (n = 0; p->component == i && n < p->count; n++) {
			memcpy(area + offset + p->area + n * p->in_area,
			       (__u8 *)r + p->regs + n * p->in_regs, p->size);
			memset(care + offset + p->area + n * p->in_area, 0xff, p->size);
		}
	}
}

static inline void copy_component(struct regs *to, const struct regs *from, int i)
{
	const struct piece *p;
	__u32 n, at;

	for (p = pieces; p < END_OF_PIECES; p++) {
		for (n = 0; p->component == i && n < p->count; n++) {
			at = p->regs + n * p->in_regs;
			memcpy((__u8 *)to + at, (__u8 *)from + at, p->size);
		}
	}
}

/*
 * The offset of the first byte of component @i that differs, counted as in an
 * area, or -1. The two values of it are in @values then.
 */
static inline int differs(const struct regs *a, const struct regs *b, int i, __u8 values[2])
{
	const struct piece *p;
	__u32 n, m, at;

	for (p = pieces; p < END_OF_PIECES; p++) {
		for (n = 0; p->component == i && n < p->count; n++) {
			at = p->regs + n * p->in_regs;
			if (!memcmp((__u8 *)a + at, (__u8 *)b + at, p->size))
				continue;
			for (m = 0; ((__u8 *)a)[at + m] == ((__u8 *)b)[at + m]; m++)
				;
			values[0] = ((__u8 *)a)[at + m];
			values[1] = ((__u8 *)b)[at + m];
			return p->area + n * p->in_area + m;
		}
	}
	return -1;
}

static __u64 seed = 0x9e3779b97f4a7c15ULL;

/* Deterministic, so that a failure repeats. */
static inline __u64 next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

/* The initial configuration of all components, and of MXCSR. */
static inline void init_regs(struct regs *r)
{
	memset(r, 0, sizeof(*r));
	r->fx[0] = 0x7f;
	r->fx[1] = 0x03;
	*mxcsr(r) = MXCSR_INIT;
}

/* Values that differ everywhere from the initial ones; @full: largest tiles. */
static inline void fill_regs(struct regs *r, int full)
{
	__u8 *byte;
	int n, row;

	init_regs(r);
	for (byte = r->fx + 32; byte < r->fx + 32 + 8 * 16; byte++)
		*byte = (byte - r->fx) % 16 < 10 ? next_random() | 1 : 0;
	for (byte = r->zmm[0]; byte < (__u8 *)r->tilecfg; byte++)
		*byte = next_random() | 1;
	r->fx[1] = full ? 0x0f : 0x02;		/* FCW: rounding, precision */
	r->fx[3] = full ? 0x55 : 0x23;		/* FSW: TOP and condition codes */
	r->fx[4] = full ? 0xff : 0x5a;		/* FTW */
	*mxcsr(r) = full ? 0x7fa1 : 0x3f92;
	r->pkru = full ? 0x5a5a5a58 : 0xa5a5a5a4;	/* key 0 stays usable */
	r->tilecfg[0] = 1;
	for (n = 0; n < 8; n++) {
		r->tilecfg[16 + 2 * n] = full ? 64 : 36 + 4 * n;
		r->tilecfg[48 + n] = full ? 16 : 16 - n;
		for (row = 0; row < r->tilecfg[48 + n]; row++)
			for (byte = r->tile[n] + 64 * row;
			     byte < r->tile[n] + 64 * row + r->tilecfg[16 + 2 * n]; byte++)
				*byte = next_random() | 1;
	}
	r->cet_user[0] = 2;			/* WRSS_EN: no effect on the host */
	r->cet_user[1] = next_random() >> 20 << 3;
	for (n = 0; n < 3; n++)
		r->cet_kernel[n] = next_random() >> 20 << 3;
}

/* The components of @mask that are not in their initial configuration. */
static inline __u64 not_initial(const struct regs *r, __u64 mask)
{
	struct regs initial;
	__u8 values[2];
	__u64 bv = 0;
	int i;

	init_regs(&initial);
	for (i = 0; i < 63; i++)
		if (mask & BIT(i) && differs(r, &initial, i, values) >= 0)
			bv |= BIT(i);
	return bv;
}

static inline const char *place(__u32 at, __u64 bv, int compacted)
{
	static char text[64];
	__u32 start;
	int i;

	if (at < LEGACY_SIZE)
		return "legacy region";
	if (at < HEADER_END)
		return "header";
	for (i = 2; i < 63; i++) {
		start = compacted ? compact_offset(bv, i) : cpu.offset[i];
		if (bv & BIT(i) && at >= start && at < start + cpu.size[i]) {
			snprintf(text, sizeof(text), "component %d byte %u", i, at - start);
			return text;
		}
	}
	return "no component";
}

#define POISON	0xa5

static const char * const insn_names[] = {
	"XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR", "XRSTORS",
};

static inline void poison_area(struct op *op)
{
	memset(op->area, POISON, sizeof(op->area));
}

/* The first byte that differs where @care is set, or AREA_SIZE. */
static inline int wrong_byte(const __u8 *want, const __u8 *got, const __u8 *care)
{
	__u64 w, g, c;
	int i;

	for (i = 0; i < AREA_SIZE; i += 8) {
		memcpy(&w, want + i, 8);
		memcpy(&g, got + i, 8);
		memcpy(&c, care + i, 8);
		if ((w ^ g) & c)
			return i + __builtin_ctzll((w ^ g) & c) / 8;
	}
	return AREA_SIZE;
}

/* Check all of the area after an XSAVE to poisoned memory; @xss: see XSAVES. */
static inline int check_save(struct op *op, __u64 xss)
{
	int compacted = op->insn == XSAVEC || op->insn == XSAVES;
	__u64 rfbm = op->rfbm & (cpu.xcr0 | (op->insn == XSAVES ? xss : 0));
	static __u8 want[AREA_SIZE], care[AREA_SIZE];
	__u64 bv = header(op->area)[0], saved, inuse, must;
	const char *name = insn_names[op->insn];
	struct regs r = op->in;
	int i;

	if (!check(op->vector == NO_FAULT, "%s RFBM %#llx: wanted no fault, got vector %lld",
		   name, rfbm, op->vector))
		return 0;
	/* XGETBV does not tell about supervisor components; XFD hides some. */
	inuse = ((op->xinuse & cpu.xcr0) | (bv & xss)) & ~op->xfd;
	/* Nor about initial XMM registers, if MXCSR makes it set bit 1. */
	if (!compacted && *mxcsr(&r) != MXCSR_INIT && !not_initial(&r, BIT(SSE)))
		inuse &= bv | ~BIT(SSE);
	must = not_initial(&r, rfbm & op->load) & ~op->xfd;
	if (!check(!(must & ~inuse), "%s RFBM %#llx: XINUSE: wanted at least %#llx, got %#llx",
		   name, rfbm, must, inuse))
		return 0;
	if (op->xfd & BIT(TILEDATA))
		memset(r.tile, 0, sizeof(r.tile));
	memset(want, POISON, sizeof(want));
	memset(care, 0xff, sizeof(care));
	memset(care + 416, 0, 48);		/* reserved, not for software */
	saved = op->insn == XSAVE ? rfbm : rfbm & inuse;
	if (compacted && rfbm & BIT(SSE) && *mxcsr(&r) != MXCSR_INIT)
		saved |= BIT(SSE);
	for (i = 0; i < 63; i++)
		if (saved & BIT(i))
			put_component(&r, i, want, compacted ? compact_offset(rfbm, i) :
				      cpu.offset[i], care);
	/* MXCSR and its mask: with SSE if compacted, else with SSE or AVX. */
	if (compacted ? saved & BIT(SSE) : rfbm & (BIT(SSE) | BIT(AVX))) {
		memcpy(want + MXCSR_OFFSET, mxcsr(&r), 4);
		memcpy(want + MXCSR_OFFSET + 4, mxcsr(&op->out) + 1, 4);
	}
	header(want)[0] = compacted ? saved : (header(want)[0] & ~rfbm) | (rfbm & inuse);
	if (compacted)
		header(want)[1] = rfbm | COMPACTED;
	i = wrong_byte(want, op->area, care);
	if (i == AREA_SIZE)
		return check(1, " ");
	return check(0, "%s RFBM %#llx XINUSE %#llx: offset %d (%s): wanted %#x, got %#x", name,
		     rfbm, inuse, i, place(i, rfbm, compacted), want[i], op->area[i]);
}

/* Prepare an XRSTOR of the components @bv of @from; @xcomp_bv 0: standard. */
static inline void put_area(struct op *op, struct regs *from, __u64 bv, __u64 xcomp_bv)
{
	static __u8 care[AREA_SIZE];
	int i;

	poison_area(op);
	memset(header(op->area), 0, HEADER_END - LEGACY_SIZE);
	header(op->area)[0] = bv;
	header(op->area)[1] = xcomp_bv;
	*(__u32 *)(op->area + MXCSR_OFFSET) = *mxcsr(from);
	for (i = 0; i < 63; i++)
		if (bv & BIT(i))
			put_component(from, i, op->area, xcomp_bv ? compact_offset(xcomp_bv, i) :
				      cpu.offset[i], care);
}

/* Check the registers after an XRSTOR of put_area()'s area. */
static inline int check_restore(struct op *op, struct regs *from, __u64 xss)
{
	__u64 rfbm = op->rfbm & (cpu.xcr0 | (op->insn == XRSTORS ? xss : 0));
	__u64 bv = header(op->area)[0], xcomp_bv = header(op->area)[1];
	struct regs r = op->in, initial;
	int i, at, ok = 1;
	char what[120];
	__u8 values[2] = { 0 };

	snprintf(what, sizeof(what), "%s RFBM %#llx XSTATE_BV %#llx XCOMP_BV %#llx",
		 insn_names[op->insn], rfbm, bv, xcomp_bv);
	if (!check(op->vector == NO_FAULT, "%s: wanted no fault, got vector %lld", what,
		   op->vector))
		return 0;
	init_regs(&initial);
	for (i = 0; i < 63; i++)
		if (rfbm & op->load & BIT(i))
			copy_component(&r, bv & BIT(i) ? from : &initial, i);
	/* Compacted: MXCSR is a part of SSE. Standard: loaded with SSE or AVX. */
	if (xcomp_bv ? rfbm & BIT(SSE) : rfbm & (BIT(SSE) | BIT(AVX)))
		*mxcsr(&r) = xcomp_bv && !(bv & BIT(SSE)) ? MXCSR_INIT : *mxcsr(from);
	for (i = 0; i < 63; i++) {
		at = op->load & BIT(i) ? differs(&r, &op->out, i, values) : -1;
		ok &= check(at < 0, "%s: component %d byte %d: wanted %#x, got %#x", what, i, at,
			    values[0], values[1]);
	}
	return check(*mxcsr(&op->out) == *mxcsr(&r), "%s: MXCSR: wanted %#x, got %#x", what,
		     *mxcsr(&r), *mxcsr(&op->out)) && ok;
}

/* Give store_regs() the full tile shape, and the caller's PKRU back. */
static inline void init_op(struct op *op)
{
	struct regs r;

	memset(op, 0, sizeof(*op));
	fill_regs(&r, 1);
	put_area(op, &r, cpu.xcr0 & BIT(TILECFG), 0);
	memcpy(op->full_tiles, op->area, AREA_SIZE);
	put_area(op, &r, 0, 0);
	memcpy(op->initial, op->area, AREA_SIZE);
}

#endif /* CPU_XSAVE_H */
