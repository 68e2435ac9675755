// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of a guest that state components carry: see xregs.h.
 */
#include "xregs.h"

const u32 cet_msrs[NR_CET_MSRS] = {
	MSR_IA32_U_CET, MSR_IA32_S_CET, MSR_IA32_PL0_SSP, MSR_IA32_PL1_SSP,
	MSR_IA32_PL2_SSP, MSR_IA32_PL3_SSP, MSR_IA32_INT_SSP_TAB,
};

/* A run of @count pieces of @size bytes, in struct xregs and in an area */
struct piece {
	int nr;
	u32 in_regs, in_area;
	u32 count, size;
	u32 regs_stride, area_stride;
};

/* Offsets in an area count from the component's own, for 0 and 1 from 0. */
static const struct piece pieces[] = {
	{ XFEATURE_FP, offsetof(struct xregs, fcw), XAREA_FCW, 1, 5, 0, 0 },
	{ XFEATURE_FP, offsetof(struct xregs, st), XAREA_ST, 8, 10, 16, 16 },
	{ XFEATURE_SSE, offsetof(struct xregs, mxcsr), XAREA_MXCSR, 1, 4, 0, 0 },
	{ XFEATURE_SSE, offsetof(struct xregs, zmm), XAREA_XMM, 16, 16, 64, 16 },
	{ XFEATURE_YMM, offsetof(struct xregs, zmm) + 16, 0, 16, 16, 64, 16 },
	{ XFEATURE_OPMASK, offsetof(struct xregs, k), 0, 8, 8, 8, 8 },
	{ XFEATURE_ZMM_Hi256, offsetof(struct xregs, zmm) + 32, 0, 16, 32, 64, 32 },
	{ XFEATURE_Hi16_ZMM, offsetof(struct xregs, zmm[16]), 0, 16, 64, 64, 64 },
	{ XFEATURE_PKRU, offsetof(struct xregs, pkru), 0, 1, 4, 0, 0 },
	{ XFEATURE_CET_USER, offsetof(struct xregs, cet[I_U_CET]), 0, 1, 8, 0, 0 },
	{ XFEATURE_CET_USER, offsetof(struct xregs, cet[I_PL3]), 8, 1, 8, 0, 0 },
	{ XFEATURE_CET_KERNEL, offsetof(struct xregs, cet[I_PL0]), 0, 3, 8, 8, 8 },
	{ XFEATURE_XTILE_CFG, offsetof(struct xregs, tilecfg), 0, 1, 64, 0, 0 },
	{ XFEATURE_XTILE_DATA, offsetof(struct xregs, tile), 0, XREGS_TILES, XREGS_TILE_SIZE,
	  XREGS_TILE_SIZE, XREGS_TILE_SIZE },
};

static const struct piece *const end_of_pieces = pieces + ARRAY_SIZE(pieces);

/* The component that carries @msr; -1 if none does */
int cet_msr_component(u32 msr)
{
	switch (msr) {
	case MSR_IA32_U_CET:
	case MSR_IA32_PL3_SSP:
		return XFEATURE_CET_USER;
	case MSR_IA32_PL0_SSP:
	case MSR_IA32_PL1_SSP:
	case MSR_IA32_PL2_SSP:
		return XFEATURE_CET_KERNEL;
	}
	return -1;
}

/* ---- values ---- */

/*
 * With shadow stacks alone U_CET and S_CET have only one harmless bit, with
 * branch tracking the address of the legacy bitmap, which nothing uses as long
 * as the bit for it is clear.
 */
u64 cet_msr_value(struct kvm_vcpu *vcpu, u32 msr, u32 seed)
{
	u64 n = msr - MSR_IA32_U_CET, value = 0;

	if (msr != MSR_IA32_U_CET && msr != MSR_IA32_S_CET)
		return 0x100000000000 + n * 0x10001000 + seed * 0x1008;

	if (vcpu_has_shstk(vcpu) && !(seed & 1))
		value |= CET_WRSS_EN;
	/* VM entry outside of long mode may refuse a higher bitmap in S_CET. */
	if (vcpu_has_ibt(vcpu))
		value |= CET_NO_TRACK_EN |
			 (msr == MSR_IA32_S_CET && seed < 2 ? 0x20000000 : 0x200000000000) |
			 (n * 0x10000000 + seed * 0x4000);
	return value;
}

/* Values for all registers; those of CET for what @vcpu has, or 0 */
void xregs_fill(struct xregs *r, struct kvm_vcpu *vcpu, u32 seed)
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
	/* Rounding only.  Exception flags that are set already raise nothing. */
	r->fcw = FCW_INIT & ~(seed & 1 ? 0x100 : 0x200);
	r->fsw = 0;
	r->ftw = 0xff;
	r->mxcsr = MXCSR_INIT | (seed & 1 ? 0x2000 : 0x4000) | (seed % 63 + 1);
	/* Key 0, which all memory has, is open. */
	r->pkru = (r->pkru & ~3u) | 4;

	for (i = 0; i < NR_CET_MSRS; i++)
		r->cet[i] = vcpu_has_cet_msr(vcpu, cet_msrs[i]) ?
			    cet_msr_value(vcpu, cet_msrs[i], seed) : 0;
	r->ssp = vcpu_has_shstk(vcpu) ? ssp_value(seed) : 0;
	tile_config(r->tilecfg);
}

/*
 * What of the vCPU instructions of the guest can load.  Without EPT, KVM offers no
 * PKU, so that no instruction writes PKRU, but XCR0 may have it all the same (see
 * "PKU not yet implemented" in KVM's cpuid.c).
 */
u64 xregs_guest_mask(struct kvm_vcpu *vcpu)
{
	u64 mask = xregs_mask(vcpu_xcr0_mask(vcpu));

	return kvm_cpu_has(X86_FEATURE_PKU) ? mask : mask & ~XFEATURE_MASK_PKRU;
}

/*
 * ---- areas, filled, copied and compared eight bytes at a time: libkvm replaces
 * memset() and memcpy() by loops over bytes, for guests ----
 */

void xarea_fill(void *to, u8 value, size_t size)
{
	size_t words = size / 8;

	asm volatile("rep stosq\n\t"
		     "mov %[rest], %%rcx\n\t"
		     "rep stosb"
		     : "+D" (to), "+c" (words)
		     : "a" (value * 0x0101010101010101ull), [rest] "r" (size % 8)
		     : "memory");
}

void xarea_copy(void *to, const void *from, size_t size)
{
	size_t words = size / 8;

	asm volatile("rep movsq\n\t"
		     "mov %[rest], %%rcx\n\t"
		     "rep movsb"
		     : "+D" (to), "+S" (from), "+c" (words)
		     : [rest] "r" (size % 8) : "memory");
}

/* The first byte in which @a and @b differ; @size if they are the same */
size_t xarea_differ(const u8 *a, const u8 *b, size_t size)
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

/* Where component @nr lies; @format is XCOMP_BV, or 0 for the standard format. */
u32 xarea_offset(u64 format, int nr)
{
	if (nr < XFEATURE_YMM)
		return 0;
	return format ? xf_compacted_offset(format, nr) : xf_cpuid(0xd, nr).ebx;
}

u64 xarea_header(const u8 *area, int word)
{
	u64 value;

	memcpy(&value, area + XF_HEADER_OFFSET + 8 * word, sizeof(value));
	return value;
}

void xarea_set_header(u8 *area, int word, u64 value)
{
	memcpy(area + XF_HEADER_OFFSET + 8 * word, &value, sizeof(value));
}

/* Write to an area the components of @bv, with the values of @r; but not the header. */
void xregs_into_area(const struct xregs *r, u8 *area, u64 bv, u64 format)
{
	const struct piece *p;
	u32 base, i;

	for (p = pieces; p < end_of_pieces; p++) {
		if (!(bv & BIT_ULL(p->nr)))
			continue;
		base = xarea_offset(format, p->nr) + p->in_area;
		for (i = 0; i < p->count; i++)
			xarea_copy(area + base + i * p->area_stride,
				   (const u8 *)r + p->in_regs + i * p->regs_stride, p->size);
	}
}

/* Build an area of XAREA_SIZE bytes that restores @bv to the values of @r. */
void xregs_to_area(const struct xregs *r, u8 *area, u64 bv, u64 format)
{
	xarea_fill(area, 0, XAREA_SIZE);
	xregs_into_area(r, area, bv, format);
	xarea_set_header(area, 0, bv);
	xarea_set_header(area, 1, format);
}

/* The first byte of a piece that is not as wanted; its size if all are */
static u32 piece_differs(const struct piece *p, const u8 *area, const struct xregs *r, u64 format,
			 u32 i)
{
	return xarea_differ(area + xarea_offset(format, p->nr) + p->in_area + i * p->area_stride,
			    (const u8 *)r + p->in_regs + i * p->regs_stride, p->size);
}

/* The area holds the values of @r in all components of @mask. */
void expect_area(struct __test_metadata *const _metadata, const u8 *area,
		 const struct xregs *r, u64 mask, u64 format, const char *when)
{
	const struct piece *p;
	u32 i, n, offset;

	for (p = pieces; p < end_of_pieces; p++) {
		if (!(mask & BIT_ULL(p->nr)))
			continue;
		for (i = 0; i < p->count; i++) {
			n = piece_differs(p, area, r, format, i);
			if (n == p->size)
				continue;
			offset = xarea_offset(format, p->nr) + p->in_area + i * p->area_stride + n;
			EXPECT_SAME(((const u8 *)r)[p->in_regs + i * p->regs_stride + n],
				    area[offset], "%s: %s, register %u, byte %u of the area",
				    when, xf_name(p->nr), i, offset);
			break;
		}
	}
}

/* Give back the poison to what an instruction that saves @bv may write. */
static void repoison(u8 *area, u64 bv, u64 format)
{
	int i;

	if (bv & XFEATURE_MASK_FP) {
		xarea_fill(area, XAREA_POISON, XAREA_MXCSR);
		xarea_fill(area + XAREA_ST, XAREA_POISON, XAREA_XMM - XAREA_ST);
	}
	/* The standard format keeps MXCSR with AVX as well as with SSE. */
	if (bv & (XFEATURE_MASK_SSE | (format ? 0 : XFEATURE_MASK_YMM)))
		xarea_fill(area + XAREA_MXCSR, XAREA_POISON, 8);
	if (bv & XFEATURE_MASK_SSE)
		xarea_fill(area + XAREA_XMM, XAREA_POISON, 256);
	xarea_fill(area + XF_HEADER_OFFSET, XAREA_POISON, format ? 16 : 8);
	for (i = XFEATURE_YMM; i < 63; i++)
		if (bv & BIT_ULL(i))
			xarea_fill(area + xarea_offset(format, i), XAREA_POISON,
				   xf_cpuid(0xd, i).eax);
}

/*
 * Nothing of an area of poison was written but what belongs to @bv.  That is
 * lost after this.
 */
void expect_poison(struct __test_metadata *const _metadata, u8 *area, u64 bv, u64 format,
		   const char *when)
{
	static u8 poison[XAREA_SIZE];
	size_t n;

	xarea_fill(poison, XAREA_POISON, sizeof(poison));
	repoison(area, bv, format);
	n = xarea_differ(area, poison, sizeof(poison));
	EXPECT_THAT(n == XAREA_SIZE, "%s: byte %zu belongs to no saved component, but is %#x now",
		    when, n, n < XAREA_SIZE ? area[n] : 0);
}

/* Two areas hold the same in component @nr. */
bool xarea_same_component(const u8 *a, const u8 *b, int nr)
{
	const struct piece *p;
	u32 base, i, at;

	for (p = pieces; p < end_of_pieces; p++) {
		if (p->nr != nr)
			continue;
		base = xarea_offset(0, nr) + p->in_area;
		for (i = 0; i < p->count; i++) {
			at = base + i * p->area_stride;
			if (xarea_differ(a + at, b + at, p->size) != p->size)
				return false;
		}
	}
	return true;
}

/* What byte @n of an area in the standard format belongs to */
static const char *byte_owner(u32 n)
{
	struct xf_regs c;
	int i;

	if (n < XF_HEADER_OFFSET)
		return "the legacy area";
	if (n < XF_BASE_SIZE)
		return "the XSAVE header";
	for (i = XFEATURE_YMM; i < 63; i++) {
		c = xf_cpuid(0xd, i);
		if (c.eax && !(c.ecx & 1) && n >= c.ebx && n < c.ebx + c.eax)
			return xf_name(i);
	}
	return "no component";
}

/* @size bytes are the same; says which component the first other one is in. */
void expect_same_area(struct __test_metadata *const _metadata, const u8 *wanted, const u8 *got,
		      size_t size, const char *when)
{
	size_t n = xarea_differ(wanted, got, size);

	if (n < size)
		EXPECT_SAME(wanted[n], got[n], "%s: byte %zu, %s", when, n, byte_owner(n));
}

/* ---- the host's side of a vCPU ---- */

void vcpu_set_xregs_area(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			 const struct xregs *r, u64 mask)
{
	u8 *area = xf_guarded(XAREA_SIZE, 0);

	xregs_to_area(r, area, mask, 0);
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_XSAVE, area), "KVM_SET_XSAVE");
	munmap(area, XAREA_SIZE);
}

void vcpu_set_cet(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		  const struct xregs *r)
{
	u64 ssp = r->ssp;
	int i;

	for (i = 0; i < NR_CET_MSRS; i++)
		if (vcpu_has_cet_msr(vcpu, cet_msrs[i]))
			EXPECT_THAT(vcpu_takes_msr(vcpu, cet_msrs[i], r->cet[i]),
				    "KVM_SET_MSRS of %#lx to %s: not taken",
				    (unsigned long)r->cet[i], msr_name(cet_msrs[i]));
	if (vcpu_xss_mask(vcpu))
		EXPECT_THAT(vcpu_takes_msr(vcpu, MSR_IA32_XSS, vcpu_xss_mask(vcpu)),
			    "KVM_SET_MSRS of %#lx to IA32_XSS: not taken",
			    (unsigned long)vcpu_xss_mask(vcpu));
	if (vcpu_has_shstk(vcpu))
		EXPECT_ERRNO(0, vcpu_one_reg_ssp(vcpu, KVM_SET_ONE_REG, &ssp),
			     "KVM_SET_ONE_REG of SSP");
}

/*
 * Give the vCPU all of XCR0 and IA32_XSS, and the values of @r: by KVM_SET_XSAVE
 * the components of @mask, by MSRs and KVM_SET_ONE_REG all of CET that it has.
 */
void vcpu_set_xregs(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		    const struct xregs *r, u64 mask)
{
	EXPECT_THAT(vcpu_takes_xcr0(vcpu, vcpu_xcr0_mask(vcpu)), "KVM_SET_XCRS of %#lx: not taken",
		    (unsigned long)vcpu_xcr0_mask(vcpu));
	vcpu_set_xregs_area(_metadata, vcpu, r, mask);
	vcpu_set_cet(_metadata, vcpu, r);
}

/* KVM_GET_XSAVE2 into an area that lives as long as the process */
u8 *vcpu_area(struct kvm_vcpu *vcpu)
{
	u8 *area = xf_guarded(XAREA_SIZE, 0);

	/* What should be written, and is not, must not look like init state. */
	xarea_fill(area, XAREA_POISON, XAREA_SIZE);
	vcpu_xsave2_get(vcpu, (struct kvm_xsave *)area);
	return area;
}

/* The same after a KVM_RUN if need be: KVM keeps PKRU elsewhere until then. */
u8 *vcpu_area_with_pkru(struct kvm_vcpu *vcpu)
{
	u8 *area = vcpu_area(vcpu);

	if (!(vcpu_xcr0_mask(vcpu) & ~xarea_header(area, 0) & XFEATURE_MASK_PKRU))
		return area;
	xstate_run_immediate_exit(vcpu);
	return vcpu_area(vcpu);
}

static void expect_cet_msrs(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			    const struct xregs *r, const char *when, bool in_component)
{
	int i;

	for (i = 0; i < NR_CET_MSRS; i++)
		if (vcpu_has_cet_msr(vcpu, cet_msrs[i]) &&
		    in_component == (cet_msr_component(cet_msrs[i]) >= 0))
			EXPECT_SAME(r->cet[i], vcpu_get_msr(vcpu, cet_msrs[i]), "%s lost after %s",
				    msr_name(cet_msrs[i]), when);
}

/* All CET MSRs that it has, by ioctls of their own */
void expect_cet(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		const struct xregs *r, const char *when)
{
	expect_cet_msrs(_metadata, vcpu, r, when, true);
	expect_cet_msrs(_metadata, vcpu, r, when, false);
}

/* Those that no component carries, SSP, IA32_XSS and XCR0 */
void expect_kept_elsewhere(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			   const struct xregs *r, const char *when)
{
	u64 ssp = 0;

	expect_cet_msrs(_metadata, vcpu, r, when, false);
	if (vcpu_xss_mask(vcpu))
		EXPECT_SAME(vcpu_xss_mask(vcpu), vcpu_get_msr(vcpu, MSR_IA32_XSS),
			    "IA32_XSS lost after %s", when);
	if (vcpu_has_shstk(vcpu)) {
		EXPECT_ERRNO(0, vcpu_one_reg_ssp(vcpu, KVM_GET_ONE_REG, &ssp),
			     "KVM_GET_ONE_REG of SSP after %s", when);
		EXPECT_SAME(r->ssp, ssp, "SSP lost after %s", when);
	}
	EXPECT_XFEATURES(vcpu_xcr0_mask(vcpu), vcpu_xcr0(vcpu), "XCR0 after %s", when);
}

/* The vCPU holds @r: components of @mask, CET, SSP, IA32_XSS and XCR0. */
void expect_xregs(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		  const struct xregs *r, u64 mask, const char *when)
{
	u8 *area;

	expect_cet_msrs(_metadata, vcpu, r, when, true);
	expect_kept_elsewhere(_metadata, vcpu, r, when);
	area = vcpu_area_with_pkru(vcpu);
	EXPECT_XFEATURES(mask, xarea_header(area, 0) & mask, "XSTATE_BV after %s", when);
	expect_area(_metadata, area, r, mask, 0, when);
}

/* The CET registers in components are those of @in, SSP and the other ones those of @out. */
bool vcpu_holds_cet(struct kvm_vcpu *vcpu, const struct xregs *in, const struct xregs *out)
{
	u64 wanted, ssp = 0;
	int i;

	for (i = 0; i < NR_CET_MSRS; i++) {
		wanted = cet_msr_component(cet_msrs[i]) < 0 ? out->cet[i] : in->cet[i];
		if (vcpu_has_cet_msr(vcpu, cet_msrs[i]) &&
		    vcpu_get_msr(vcpu, cet_msrs[i]) != wanted)
			return false;
	}
	return !vcpu_has_shstk(vcpu) ||
	       (!vcpu_one_reg_ssp(vcpu, KVM_GET_ONE_REG, &ssp) && ssp == out->ssp);
}

/* All of CET is 0. */
void expect_no_cet(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		   const char *when)
{
	u64 ssp = 0;
	int i;

	for (i = 0; i < NR_CET_MSRS; i++)
		if (vcpu_has_cet_msr(vcpu, cet_msrs[i]))
			EXPECT_SAME(0, vcpu_get_msr(vcpu, cet_msrs[i]), "%s %s",
				    msr_name(cet_msrs[i]), when);
	if (vcpu_has_shstk(vcpu)) {
		EXPECT_ERRNO(0, vcpu_one_reg_ssp(vcpu, KVM_GET_ONE_REG, &ssp),
			     "KVM_GET_ONE_REG of SSP %s", when);
		EXPECT_SAME(0, ssp, "SSP %s", when);
	}
}

/* @mask and the components of CET that the vCPU has */
u64 vcpu_sorted(struct kvm_vcpu *vcpu, u64 mask)
{
	if (vcpu_has_shstk(vcpu))
		return mask | XFEATURE_MASK_CET;
	return vcpu_has_ibt(vcpu) ? mask | XFEATURE_MASK_CET_USER : mask;
}

/* A component of CET counts if all registers in it that the vCPU has agree. */
static void sort_cet(struct kvm_vcpu *vcpu, const struct xregs *r, u64 *kept, u64 *initial)
{
	u64 value, bit;
	int i, nr;

	for (i = 0; i < NR_CET_MSRS; i++) {
		nr = cet_msr_component(cet_msrs[i]);
		if (nr < 0 || !vcpu_has_cet_msr(vcpu, cet_msrs[i]))
			continue;
		bit = BIT_ULL(nr);
		value = vcpu_get_msr(vcpu, cet_msrs[i]);
		if (value != r->cet[i])
			*kept &= ~bit;
		if (value)
			*initial &= ~bit;
	}
}

/*
 * Sort the components of @mask, CET included, into those that hold @r and those
 * in their initial state.  Garbage, or half of each, is in neither.
 */
void vcpu_sort_xregs(struct kvm_vcpu *vcpu, const struct xregs *r, u64 mask, u64 *kept,
		     u64 *initial)
{
	static u8 want[XAREA_SIZE], init[XAREA_SIZE];
	u8 *got = vcpu_area_with_pkru(vcpu);
	u64 cet = vcpu_sorted(vcpu, 0);
	int i;

	xregs_to_area(r, want, mask, 0);
	xarea_fill(init, 0, sizeof(init));
	*(u16 *)(init + XAREA_FCW) = FCW_INIT;
	*(u32 *)(init + XAREA_MXCSR) = MXCSR_INIT;
	*kept = cet;
	*initial = cet;
	for (i = 0; i < 63; i++) {
		if (!(mask & BIT_ULL(i)))
			continue;
		if (xarea_same_component(want, got, i))
			*kept |= BIT_ULL(i) & xarea_header(got, 0);
		if (xarea_same_component(init, got, i))
			*initial |= BIT_ULL(i);
	}
	sort_cet(vcpu, r, kept, initial);
}

/* Have the kernel use the FPU on this CPU: it hashes what it is given. */
void use_kernel_fpu(void)
{
	static const char text[256];
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);

	TEST_ASSERT(fd >= 0, "/dev/urandom: %s", strerror(errno));
	TEST_ASSERT_EQ(write(fd, text, sizeof(text)), sizeof(text));
	close(fd);
}

/* ---- instructions ---- */

void xregs_wrpkru(u32 pkru)
{
	asm volatile(".byte 0x0f, 0x01, 0xef" : : "a" (pkru), "c" (0), "d" (0));
}

u32 xregs_rdpkru(void)
{
	u32 pkru;

	asm volatile(".byte 0x0f, 0x01, 0xee" : "=a" (pkru) : "c" (0) : "edx");
	return pkru;
}

/* Have XSAVE, all components in @xcr0, and what instructions there are for PKRU. */
void guest_enable_xstate(u64 xcr0)
{
	bool pku = xcr0 & XFEATURE_MASK_PKRU && this_cpu_has(X86_FEATURE_PKU);

	set_cr4(get_cr4() | X86_CR4_OSXSAVE | (pku ? X86_CR4_PKE : 0));
	xsetbv(0, xcr0);
}

/* Exit to user space without a change of any register. */
void guest_leave(void)
{
	asm volatile("outb %%al, %%dx" : : "a" (0), "d" (XREGS_EXIT_PORT) : "memory");
}

/* Run the guest up to guest_leave(). */
void xregs_run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run_bounded(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	if (vcpu->run->io.port == XREGS_EXIT_PORT)
		return;
	TH_ROW_LOG("the guest of vCPU %u has failed", vcpu->id);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_FAIL("The guest ended before its next exit");
}

/*
 * False where XSETBV of guests does not exit, on some emulated CPU: what a guest
 * writes is the host's XCR0, too.  On any other CPU the row fails then.
 *
 * The guest begins with all of its XCR0, which does no harm, has @read of XGETBV after it,
 * and leaves.  XGETBV exits on no CPU, and has nothing to read but what KVM knows of, unless
 * KVM was not asked.  With an interrupt of the host between the two it reads what KVM knows
 * even then: so the guest begins anew.
 */
bool xregs_xsetbv_exits(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			const u64 *read)
{
	struct kvm_regs regs;
	int tries = 10;

	vcpu_regs_get(vcpu, &regs);
	do {
		vcpu_regs_set(vcpu, &regs);
		EXPECT_THAT(vcpu_takes_xcr0(vcpu, XFEATURE_MASK_FP),
			    "KVM_SET_XCRS of 0x1: not taken");
		xregs_run(vcpu);
		if (*read != XFEATURE_MASK_FP && vcpu_xcr0(vcpu) == XFEATURE_MASK_FP &&
		    xregs_cpu_of_software())
			return false;
	} while (vcpu_xcr0(vcpu) == XFEATURE_MASK_FP && --tries);
	EXPECT_XFEATURES(vcpu_xcr0(vcpu), *read, "XGETBV after XSETBV");
	return true;
}

/* The same for rows that are nothing without: SKIP, and false for those that failed, too */
bool xregs_need_xsetbv_exit(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			    const u64 *read)
{
	if (!xregs_xsetbv_exits(_metadata, vcpu, read))
		SKIP(return false, "this CPU executes XSETBV of guests without an exit");
	return !_metadata->exit_code;
}

/* Numbers of registers, for the assembler to repeat an instruction */
#define REGS_0_7	"0,1,2,3,4,5,6,7"
#define REGS_0_15	REGS_0_7 ",8,9,10,11,12,13,14,15"
#define REGS_16_31	"16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

static INTEGER_ONLY void load_vectors(const struct xregs *r, u64 mask)
{
	if (mask & XFEATURE_MASK_Hi16_ZMM)
		asm volatile(".irp n," REGS_0_15 "," REGS_16_31 "\n\t"
			     "vmovdqu64 64*\\n(%0), %%zmm\\n\n\t.endr"
			     : : "r" (r->zmm) : "memory");
	else if (mask & XFEATURE_MASK_YMM)
		asm volatile(".irp n," REGS_0_15 "\n\t"
			     "vmovdqu 64*\\n(%0), %%ymm\\n\n\t.endr"
			     : : "r" (r->zmm) : "memory");
	else if (mask & XFEATURE_MASK_SSE)
		asm volatile(".irp n," REGS_0_15 "\n\t"
			     "movdqu 64*\\n(%0), %%xmm\\n\n\t.endr"
			     : : "r" (r->zmm) : "memory");
}

static INTEGER_ONLY void load_cet(const struct xregs *r, u64 mask)
{
	if (mask & XFEATURE_MASK_CET_USER) {
		wrmsr(MSR_IA32_U_CET, r->cet[I_U_CET]);
		wrmsr(MSR_IA32_PL3_SSP, r->cet[I_PL3]);
	}
	if (mask & XFEATURE_MASK_CET_KERNEL) {
		wrmsr(MSR_IA32_PL0_SSP, r->cet[I_PL0]);
		wrmsr(MSR_IA32_PL1_SSP, r->cet[I_PL1]);
		wrmsr(MSR_IA32_PL2_SSP, r->cet[I_PL2]);
	}
}

/* XCR0 and IA32_XSS must have all of @mask, and CR4.PKE must be set for PKRU. */
void guest_load_xregs(const struct xregs *r, u64 mask)
{
	if (mask & XFEATURE_MASK_FP)
		asm volatile("fninit\n\tfldcw %0\n\t"
			     ".irp n,7,6,5,4,3,2,1,0\n\tfldt 16*\\n(%1)\n\t.endr"
			     : : "m" (r->fcw), "r" (r->st) : "memory");
	if (mask & XFEATURE_MASK_SSE)
		asm volatile("ldmxcsr %0" : : "m" (r->mxcsr));
	if (mask & XFEATURE_MASK_OPMASK)
		asm volatile(".irp n," REGS_0_7 "\n\t"
			     "kmovq 8*\\n(%0), %%k\\n\n\t.endr"
			     : : "r" (r->k) : "memory");
	load_vectors(r, mask);
	if (mask & XFEATURE_MASK_PKRU)
		xregs_wrpkru(r->pkru);
	load_cet(r, mask);
	if (mask & XFEATURE_MASK_XTILE_CFG)
		tile_load_config(r->tilecfg);
	if (mask & XFEATURE_MASK_XTILE_DATA)
		tile_load(r->tile[0]);
}

/* ---- AMX, by opcodes: assemblers of kernel developers may not know it ---- */

void tile_config(u8 *config)
{
	int i;

	for (i = 0; i < XREGS_TILECFG_SIZE; i++)
		config[i] = 0;
	config[0] = 1;
	for (i = 0; i < XREGS_TILES; i++) {
		config[16 + 2 * i] = XREGS_TILE_ROW;
		config[48 + i] = XREGS_TILE_ROWS;
	}
}

/* ldtilecfg (%rax) */
void tile_load_config(const u8 *config)
{
	asm volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00" : : "a" (config) : "memory");
}

/* sttilecfg (%rax) */
void tile_store_config(u8 *config)
{
	asm volatile(".byte 0xc4, 0xe2, 0x79, 0x49, 0x00" : : "a" (config) : "memory");
}

void tile_release(void)
{
	asm volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0" : : : "memory");
}

/*
 * Execute @op for each tile, with (%rax,%rcx) as its operand: the number of the
 * tile is a field of the byte that counts.
 */
#define EACH_TILE(op)						\
	".set tile_modrm, 4\n\t"				\
	".rept 8\n\t"						\
	".byte 0xc4, 0xe2, " op ", 0x4b, tile_modrm, 8\n\t"	\
	"add %[size], %%rax\n\t"				\
	".set tile_modrm, tile_modrm + 8\n\t"			\
	".endr"

/* tileloadd (%rax,%rcx), %tmmN */
void tile_load(const u8 *tiles)
{
	asm volatile(EACH_TILE("0x7b") : "+a" (tiles)
		     : "c" ((long)XREGS_TILE_ROW), [size] "i" (XREGS_TILE_SIZE)
		     : "memory", "cc");
}

/* tilestored %tmmN, (%rax,%rcx) */
void tile_store(u8 *tiles)
{
	asm volatile(EACH_TILE("0x7a") : "+a" (tiles)
		     : "c" ((long)XREGS_TILE_ROW), [size] "i" (XREGS_TILE_SIZE)
		     : "memory", "cc");
}

/* The guest's tiles are those of @r.  One vCPU of the VM at a time may look. */
void guest_expect_tiles(const struct xregs *r, const char *when)
{
	static u8 config[XREGS_TILECFG_SIZE], tiles[XREGS_TILES * XREGS_TILE_SIZE];
	const u8 *wanted = r->tile[0];
	u32 i;

	tile_store_config(config);
	i = xarea_differ(r->tilecfg, config, sizeof(config));
	__GUEST_ASSERT(i == sizeof(config), "XTILE_CFG lost %s: byte %u wanted %x got %x",
		       when, i, r->tilecfg[i], config[i]);
	tile_store(tiles);
	i = xarea_differ(wanted, tiles, sizeof(tiles));
	__GUEST_ASSERT(i == sizeof(tiles), "XTILE_DATA lost %s: byte %u wanted %x got %x",
		       when, i, wanted[i], tiles[i]);
}
