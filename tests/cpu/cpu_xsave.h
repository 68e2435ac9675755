/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Helpers of the CPU self-test: what the XSAVE instructions must save and load.
 */
#ifndef CPU_XSAVE_H
#define CPU_XSAVE_H

#include "cpu_regs.h"

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
