/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Known values for the registers of a guest's state components: how a guest
 * loads them by plain instructions, and where an XSAVE area must hold them.
 */
#ifndef SELFTEST_KVM_XSTATE_GUEST_H
#define SELFTEST_KVM_XSTATE_GUEST_H

#include "kvm_compat.h"
#include "xstate_vcpu.h"

/* Larger than any area of the components below, checked by xregs_mask() */
#define XAREA_SIZE		16384
#define XAREA_POISON		0xa5

/* What no compiler may mix with registers that a test has loaded */
#define GUEST_INTEGER_ONLY	__attribute__((target("general-regs-only")))

/* The components that struct xregs has values for */
#define XREGS_USER		(XF_FPSSE | XF_BIT(XF_YMM) | XF_AVX512 | \
				 XF_BIT(XF_PKRU) | XF_XTILE)
#define XREGS_ALL		(XREGS_USER | XF_CET)

/* Effects of these bits of IA32_U_CET need CR4.CET, which stays clear. */
#define XREGS_CET_WRSS_EN	XF_BIT(1)

/* The guest leaves at this port with all registers loaded. */
#define XREGS_EXIT_PORT		0x1c0

#define XREGS_TILES		8
#define XREGS_TILE_SIZE		1024

struct xregs {
	u8 st[8][16];
	u8 zmm[32][64];
	u64 k[8];
	u64 cet_user[2];
	u64 cet_kernel[3];
	u32 pkru;
	u32 mxcsr;
	u16 fcw;
	u8 tilecfg[64] __aligned(64);
	u8 tile[XREGS_TILES][XREGS_TILE_SIZE] __aligned(64);
};

/* A run of @count pieces of @size bytes, in struct xregs and in an area */
struct xregs_piece {
	int nr;
	u32 in_regs, in_area;
	u32 count, size;
	u32 regs_stride, area_stride;
};

/* Offsets in an area count from the component's own, for 0 and 1 from 0. */
static const struct xregs_piece xregs_pieces[] = {
	{ XF_FP, offsetof(struct xregs, fcw), 0, 1, 2, 0, 0 },
	{ XF_FP, offsetof(struct xregs, st), 32, 8, 10, 16, 16 },
	{ XF_SSE, offsetof(struct xregs, mxcsr), 24, 1, 4, 0, 0 },
	{ XF_SSE, offsetof(struct xregs, zmm), 160, 16, 16, 64, 16 },
	{ XF_YMM, offsetof(struct xregs, zmm) + 16, 0, 16, 16, 64, 16 },
	{ XF_OPMASK, offsetof(struct xregs, k), 0, 8, 8, 8, 8 },
	{ XF_ZMM_HI256, offsetof(struct xregs, zmm) + 32, 0, 16, 32, 64, 32 },
	{ XF_HI16_ZMM, offsetof(struct xregs, zmm[16]), 0, 16, 64, 64, 64 },
	{ XF_PKRU, offsetof(struct xregs, pkru), 0, 1, 4, 0, 0 },
	{ XF_CET_USER, offsetof(struct xregs, cet_user), 0, 1, 16, 0, 0 },
	{ XF_CET_KERNEL, offsetof(struct xregs, cet_kernel), 0, 1, 24, 0, 0 },
	{ XF_XTILE_CFG, offsetof(struct xregs, tilecfg), 0, 1, 64, 0, 0 },
	{ XF_XTILE_DATA, offsetof(struct xregs, tile), 0, 1,
	  XREGS_TILES * XREGS_TILE_SIZE, 0, 0 },
};

/* ---- host ---- */

/*
 * libkvm replaces memset() and memcpy() by loops over bytes, for guests. An
 * area is large, and there are many of them: eight bytes at a time.
 */
static inline void xarea_fill(void *to, u8 value, size_t size)
{
	size_t words = size / 8;

	asm volatile("rep stosq\n\t"
		     "mov %[rest], %%rcx\n\t"
		     "rep stosb"
		     : "+D" (to), "+c" (words)
		     : "a" (value * 0x0101010101010101ull), [rest] "r" (size % 8)
		     : "memory");
}

static inline void xarea_copy(void *to, const void *from, size_t size)
{
	size_t words = size / 8;

	asm volatile("rep movsq\n\t"
		     "mov %[rest], %%rcx\n\t"
		     "rep movsb"
		     : "+D" (to), "+S" (from), "+c" (words)
		     : [rest] "r" (size % 8) : "memory");
}

/* The first byte in which @a and @b differ; @size if they are the same */
static inline size_t xarea_differ(const u8 *a, const u8 *b, size_t size)
{
	const u8 *p = a, *q = b;
	size_t words = size / 8, i = 0;

	if (words) {
		asm volatile("repe cmpsq"
			     : "+S" (p), "+D" (q), "+c" (words)
			     : : "memory", "cc");
		i = p - a - 8;
	}
	while (i < size && a[i] == b[i])
		i++;
	return i;
}

/* The first byte in @area that is not poison; @size if there is none */
static inline size_t xarea_unpoisoned(const u8 *area, size_t size)
{
	const u8 *p = area;
	size_t words = size / 8, i = 0;

	if (words) {
		asm volatile("repe scasq"
			     : "+D" (p), "+c" (words)
			     : "a" (XAREA_POISON * 0x0101010101010101ull)
			     : "memory", "cc");
		i = p - area - 8;
	}
	while (i < size && area[i] == XAREA_POISON)
		i++;
	return i;
}

/*
 * Values that depend on @seed, none of them what the register holds initially.
 * All tiles have their full size.
 */
static inline void xregs_fill(struct xregs *r, u32 seed)
{
	u8 *p = (u8 *)r;
	size_t i;

	for (i = 0; i < sizeof(*r); i++)
		p[i] = (seed * 0x9e3779b1u + i * 0x85ebca6bu) >> 24 | 1;
	for (i = 0; i < ARRAY_SIZE(r->st); i++) {
		/* A normal number; anything else may raise an exception. */
		r->st[i][7] |= 0x80;
		r->st[i][8] = i + 1;
		r->st[i][9] = 0x40;
	}

	/* Rounding only, and key 0, with which all pages are mapped, is open. */
	r->fcw = 0x37f & ~(seed & 1 ? 0x100 : 0x200);
	r->mxcsr = 0x1f80 | (seed & 1 ? 0x2000 : 0x4000);
	r->pkru = (r->pkru & ~3u) | 4;

	r->cet_user[0] = XREGS_CET_WRSS_EN;
	r->cet_user[1] = 0x700000001000 + 8 * (seed & 0xff);
	for (i = 0; i < ARRAY_SIZE(r->cet_kernel); i++)
		r->cet_kernel[i] = 0x600000010000 + 0x1000 * i +
				   8 * (seed & 0xff);

	memset(r->tilecfg, 0, sizeof(r->tilecfg));
	r->tilecfg[0] = 1;
	for (i = 0; i < XREGS_TILES; i++) {
		r->tilecfg[16 + 2 * i] = 64;
		r->tilecfg[48 + i] = XREGS_TILE_SIZE / 64;
	}
}

/* Those components of @mask that struct xregs has values for */
static inline u64 xregs_mask(u64 mask)
{
	TEST_ASSERT(xf_standard_size(mask) < XAREA_SIZE &&
		    xf_compacted_size(mask) < XAREA_SIZE,
		    "XSAVE areas of this CPU are larger than %u",
		    XAREA_SIZE);
	return mask & XREGS_ALL;
}

/*
 * Those components of the guest's XCR0 that it can load into registers. Without
 * EPT, KVM offers no PKU, so that no instruction writes PKRU, but XCR0 may have
 * it all the same (see "PKU not yet implemented" in KVM's cpuid.c).
 */
static inline u64 xregs_guest_xcr0(struct xcomp *x)
{
	bool pku = xkvm_cpuid(xcomp_unpermitted, 7, 0).ecx &
		   XCOMP_CPUID_7_ECX_PKU;

	return xregs_mask(xcomp_guest_xcr0(x)) & ~(pku ? 0 : XF_BIT(XF_PKRU));
}

/* Where component @nr lies; @format is XCOMP_BV, or 0 for the standard one. */
static inline u32 xarea_offset(u64 format, int nr)
{
	if (nr < 2)
		return 0;
	return format ? xf_compacted_offset(format, nr) : xf_cpuid(0xd, nr).ebx;
}

static inline u64 xarea_header(const u8 *area, int word)
{
	u64 value;

	memcpy(&value, area + XF_HEADER_OFFSET + 8 * word, sizeof(value));
	return value;
}

static inline void xarea_set_header(u8 *area, int word, u64 value)
{
	memcpy(area + XF_HEADER_OFFSET + 8 * word, &value, sizeof(value));
}

/* Build an area that restores the components in @bv to the values of @r. */
static inline void xarea_put(u8 *area, const struct xregs *r, u64 bv,
			     u64 format)
{
	const struct xregs_piece *p;
	u32 base, i;

	xarea_fill(area, 0, XAREA_SIZE);
	for (p = xregs_pieces; p < xregs_pieces + ARRAY_SIZE(xregs_pieces); p++) {
		if (!(bv & XF_BIT(p->nr)))
			continue;
		base = xarea_offset(format, p->nr) + p->in_area;
		for (i = 0; i < p->count; i++)
			xarea_copy(area + base + i * p->area_stride,
				   (u8 *)r + p->in_regs + i * p->regs_stride,
				   p->size);
	}
	xarea_set_header(area, 0, bv);
	xarea_set_header(area, 1, format);
}

static inline bool xarea_piece_ok(const char *what, const u8 *got,
				  const u8 *wanted, const struct xregs_piece *p,
				  u32 i)
{
	size_t n = xarea_differ(got, wanted, p->size);

	if (n == p->size)
		return true;
	ksft_print_msg("%s: component %d, piece %u, byte %zu: wanted %#x got %#x\n",
		       what, p->nr, i, n, wanted[n], got[n]);
	return false;
}

/* Whether @area holds the values of @r for all components in @mask */
static inline bool xarea_has(const char *what, const u8 *area,
			     const struct xregs *r, u64 mask, u64 format)
{
	const struct xregs_piece *p;
	bool ok = true;
	u32 base, i;

	for (p = xregs_pieces; p < xregs_pieces + ARRAY_SIZE(xregs_pieces); p++) {
		if (!(mask & XF_BIT(p->nr)))
			continue;
		base = xarea_offset(format, p->nr) + p->in_area;
		for (i = 0; i < p->count && ok; i++)
			ok &= xarea_piece_ok(what, area + base +
					     i * p->area_stride,
					     (u8 *)r + p->in_regs +
					     i * p->regs_stride, p, i);
	}
	return ok;
}

/* Give back the poison to what an instruction that saves @bv may write. */
static inline void forgive(u8 *area, u64 bv, u64 format)
{
	u32 i;

	if (bv & XF_BIT(XF_FP)) {
		xarea_fill(area, XAREA_POISON, 24);
		xarea_fill(area + 32, XAREA_POISON, 128);
	}
	/* The standard format keeps MXCSR with AVX as well as with SSE. */
	if (bv & (XF_BIT(XF_SSE) | (format ? 0 : XF_BIT(XF_YMM))))
		xarea_fill(area + 24, XAREA_POISON, 8);
	if (bv & XF_BIT(XF_SSE))
		xarea_fill(area + 160, XAREA_POISON, 256);
	xarea_fill(area + XF_HEADER_OFFSET, XAREA_POISON, format ? 16 : 8);
	for (i = 2; i < 63; i++)
		if (bv & XF_BIT(i))
			xarea_fill(area + xarea_offset(format, i), XAREA_POISON,
				   xf_cpuid(0xd, i).eax);
}

/* Whether nothing was written but what belongs to @bv; that is lost now. */
static inline bool rest_kept(const char *what, u8 *area, u64 bv, u64 format)
{
	size_t n;

	forgive(area, bv, format);
	n = xarea_unpoisoned(area, XAREA_SIZE);
	if (n == XAREA_SIZE)
		return true;
	ksft_print_msg("%s: byte %zu belongs to no saved component: wanted it kept, got %#x\n",
		       what, n, area[n]);
	return false;
}

/* Run the guest up to guest_leave(). */
static inline void xregs_run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	if (vcpu->run->io.port == XREGS_EXIT_PORT)
		return;
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_FAIL("The guest ended before its next exit");
}

static inline bool xarea_same(const char *what, const char *field, u64 wanted,
			      u64 got)
{
	if (wanted == got)
		return true;
	ksft_print_msg("%s: %s: wanted %#lx got %#lx\n", what, field,
		       (unsigned long)wanted, (unsigned long)got);
	return false;
}

/* ---- guest ---- */

/* Have XSAVE, all components in @xcr0, and what instructions there are for PKRU. */
static inline void guest_enable(u64 xcr0)
{
	bool pku = xcr0 & XF_BIT(XF_PKRU) && this_cpu_has(X86_FEATURE_PKU);

	set_cr4(get_cr4() | X86_CR4_OSXSAVE | (pku ? X86_CR4_PKE : 0));
	xsetbv(0, xcr0);
}

/* Exit to user space without a change of any register. */
static inline GUEST_INTEGER_ONLY void guest_leave(void)
{
	asm volatile("outb %%al, %%dx"
		     : : "a" (0), "d" (XREGS_EXIT_PORT) : "memory");
}

/* Numbers of registers, for the assembler to repeat an instruction */
#define XREGS_0_7	"0,1,2,3,4,5,6,7"
#define XREGS_0_15	XREGS_0_7 ",8,9,10,11,12,13,14,15"
#define XREGS_16_31	"16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

/* XCR0 and IA32_XSS must have all of @mask, and CR4.PKE must be set for PKRU. */
static inline GUEST_INTEGER_ONLY void guest_load_xregs(const struct xregs *r,
						       u64 mask)
{
	if (mask & XF_BIT(XF_FP))
		asm volatile("fninit\n\tfldcw %0\n\t"
			     ".irp n,7,6,5,4,3,2,1,0\n\tfldt 16*\\n(%1)\n\t.endr"
			     : : "m" (r->fcw), "r" (r->st) : "memory");
	if (mask & XF_BIT(XF_SSE))
		asm volatile("ldmxcsr %0" : : "m" (r->mxcsr));
	if (mask & XF_BIT(XF_OPMASK))
		asm volatile(".irp n," XREGS_0_7 "\n\t"
			     "kmovq 8*\\n(%0), %%k\\n\n\t.endr"
			     : : "r" (r->k) : "memory");
	if (mask & XF_BIT(XF_HI16_ZMM))
		asm volatile(".irp n," XREGS_0_15 "," XREGS_16_31 "\n\t"
			     "vmovdqu64 64*\\n(%0), %%zmm\\n\n\t.endr"
			     : : "r" (r->zmm) : "memory");
	else if (mask & XF_BIT(XF_YMM))
		asm volatile(".irp n," XREGS_0_15 "\n\t"
			     "vmovdqu 64*\\n(%0), %%ymm\\n\n\t.endr"
			     : : "r" (r->zmm) : "memory");
	else if (mask & XF_BIT(XF_SSE))
		asm volatile(".irp n," XREGS_0_15 "\n\t"
			     "movdqu 64*\\n(%0), %%xmm\\n\n\t.endr"
			     : : "r" (r->zmm) : "memory");
	if (mask & XF_BIT(XF_PKRU))
		asm volatile(".byte 0x0f, 0x01, 0xef"
			     : : "a" (r->pkru), "c" (0), "d" (0));
	if (mask & XF_BIT(XF_CET_USER)) {
		wrmsr(XF_MSR_U_CET, r->cet_user[0]);
		wrmsr(XF_MSR_PL3_SSP, r->cet_user[1]);
	}
	if (mask & XF_BIT(XF_CET_KERNEL)) {
		wrmsr(XF_MSR_PL0_SSP, r->cet_kernel[0]);
		wrmsr(XF_MSR_PL1_SSP, r->cet_kernel[1]);
		wrmsr(XF_MSR_PL2_SSP, r->cet_kernel[2]);
	}
	if (mask & XF_BIT(XF_XTILE_CFG))
		asm volatile("ldtilecfg %0" : : "m" (r->tilecfg));
	if (mask & XF_BIT(XF_XTILE_DATA))
		asm volatile(".irp n," XREGS_0_7 "\n\t"
			     "tileloadd 1024*\\n(%0,%1,1), %%tmm\\n\n\t.endr"
			     : : "r" (r->tile), "r" (64ul) : "memory");
}

#endif /* SELFTEST_KVM_XSTATE_GUEST_H */
