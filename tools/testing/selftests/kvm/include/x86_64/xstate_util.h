/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The state that a test gives a vCPU by ioctls, and what is left of that state
 * later on.
 *
 * All values depend on a seed, so that no two vCPUs hold the same, and none of
 * them does harm should it end up in the host's registers.
 */
#ifndef SELFTEST_KVM_XSTATE_UTIL_H
#define SELFTEST_KVM_XSTATE_UTIL_H

#include "xstate_tile.h"
#include "xstate_vcpu.h"

/* Offsets in the legacy area of an XSAVE image */
#define XSTATE_FCW		0
#define XSTATE_FTW		4
#define XSTATE_MXCSR		24
#define XSTATE_ST		32
#define XSTATE_XMM		160
#define XSTATE_XMM_SIZE		256

/* An x87 register has ten bytes, each in a slot of sixteen. */
#define XSTATE_ST_BYTES		10
#define XSTATE_ST_SLOT		16

#define XSTATE_FCW_INIT		0x37f
#define XSTATE_MXCSR_INIT	0x1f80

/* The components of which xstate_fill() gives a vCPU contents */
#define XSTATE_FILLED	(XF_FPSSE | XF_BIT(XF_YMM) | XF_AVX512 | \
			 XF_BIT(XF_PKRU))

/* The component that carries @msr; -1 if none does */
static inline int xstate_msr_component(uint32_t msr)
{
	switch (msr) {
	case XF_MSR_U_CET:
	case XF_MSR_PL3_SSP:
		return XF_CET_USER;
	case XF_MSR_PL0_SSP:
	case XF_MSR_PL1_SSP:
	case XF_MSR_PL2_SSP:
		return XF_CET_KERNEL;
	}
	return -1;
}

/*
 * The value of a CET MSR. With shadow stacks alone U_CET and S_CET have only
 * one harmless bit, with branch tracking the address of the legacy bitmap,
 * which nothing uses as long as the bit for it is clear.
 */
static inline uint64_t xstate_msr_value(const struct xcomp *x, uint32_t msr,
					unsigned int seed)
{
	uint64_t n = msr - XF_MSR_U_CET, value = 0;

	if (msr != XF_MSR_U_CET && msr != XF_MSR_S_CET)
		return 0x100000000000 + n * 0x10001000 + seed * 0x1008;

	if (x->shstk_on && !(seed & 1))
		value |= XCOMP_CET_WRSS_EN;
	/* VM entry outside of long mode may refuse a higher bitmap in S_CET. */
	if (x->ibt_on)
		value |= XCOMP_CET_NO_TRACK_EN |
			 (msr == XF_MSR_S_CET && seed < 2 ? 0x20000000 :
							    0x200000000000) |
			 (n * 0x10000000 + seed * 0x4000);
	return value;
}

/* Below 4 GiB: a higher one is invalid outside of long mode. */
static inline uint64_t xstate_ssp_value(unsigned int seed)
{
	return XCOMP_GUEST_SSP + seed * 8;
}

/* Never deny access by key 0, which all memory has. */
static inline uint32_t xstate_pkru_value(unsigned int seed)
{
	return 0x10101010 * (seed % 14 + 1);
}

/* The components that the vCPU has and xstate_fill() fills */
static inline uint64_t xstate_filled(struct xcomp *x)
{
	return xcomp_guest_xcr0(x) & XSTATE_FILLED;
}

/*
 * An XSAVE image, in the standard format, with contents in the components of
 * @mask. It lives as long as the process.
 */
static inline uint8_t *xstate_image(struct xcomp *x, uint64_t mask,
				    unsigned int seed)
{
	uint8_t *buf = xf_guarded(xcomp_xsave_size(x), 0);
	uint32_t pkru = xstate_pkru_value(seed);
	/* Exception flags that are already set raise no exception. */
	uint32_t mxcsr = XSTATE_MXCSR_INIT | (seed % 63 + 1);
	uint16_t fcw = XSTATE_FCW_INIT ^ 0x300;
	struct xf_regs r;
	unsigned int i;

	memcpy(buf + XF_HEADER_OFFSET, &mask, sizeof(mask));
	memcpy(buf + XSTATE_FCW, &fcw, sizeof(fcw));
	buf[XSTATE_FTW] = 0xff;
	memcpy(buf + XSTATE_MXCSR, &mxcsr, sizeof(mxcsr));
	for (i = 0; i < 8; i++)
		memset(buf + XSTATE_ST + i * XSTATE_ST_SLOT,
		       0x10 + 8 * seed + i, XSTATE_ST_BYTES);
	for (i = 0; i < XSTATE_XMM_SIZE; i++)
		buf[XSTATE_XMM + i] = 0x21 + seed + i;

	for (i = XF_YMM; i < 63; i++) {
		if (!(mask & XF_BIT(i)))
			continue;
		r = xf_cpuid(0xd, i);
		if (i == XF_PKRU)
			memcpy(buf + r.ebx, &pkru, sizeof(pkru));
		else
			memset(buf + r.ebx, 0x40 + 0x10 * i + seed, r.eax);
	}
	return buf;
}

/* What KVM_GET_XSAVE2 returns. It lives as long as the process. */
static inline uint8_t *xstate_read_image(struct xcomp *x)
{
	uint8_t *buf = xf_guarded(xcomp_xsave_size(x), 0xa5);
	int r = ioctl(x->vcpu, KVM_GET_XSAVE2, buf);

	TEST_ASSERT(!r, "KVM_GET_XSAVE2: wanted success got %s",
		    strerror(errno));
	return buf;
}

static inline uint64_t xstate_bv(const uint8_t *image)
{
	uint64_t bv;

	memcpy(&bv, image + XF_HEADER_OFFSET, sizeof(bv));
	return bv;
}

/* Whether two images hold the same in component @nr */
static inline bool xstate_same_component(const uint8_t *a, const uint8_t *b,
					 int nr)
{
	struct xf_regs r;
	int i;

	switch (nr) {
	case XF_FP:
		for (i = XSTATE_ST; i < XSTATE_XMM; i += XSTATE_ST_SLOT)
			if (memcmp(a + i, b + i, XSTATE_ST_BYTES))
				return false;
		return !memcmp(a + XSTATE_FCW, b + XSTATE_FCW, 5);
	case XF_SSE:
		return !memcmp(a + XSTATE_MXCSR, b + XSTATE_MXCSR, 4) &&
		       !memcmp(a + XSTATE_XMM, b + XSTATE_XMM, XSTATE_XMM_SIZE);
	case XF_PKRU:
		r = xf_cpuid(0xd, nr);
		return !memcmp(a + r.ebx, b + r.ebx, sizeof(uint32_t));
	}
	r = xf_cpuid(0xd, nr);
	return !memcmp(a + r.ebx, b + r.ebx, r.eax);
}

/* An image of a vCPU right after reset: init values and nothing else */
static inline uint8_t *xstate_init_image(struct xcomp *x)
{
	uint8_t *buf = xf_guarded(xcomp_xsave_size(x), 0);
	const uint32_t mxcsr = XSTATE_MXCSR_INIT;
	const uint16_t fcw = XSTATE_FCW_INIT;

	memcpy(buf + XSTATE_FCW, &fcw, sizeof(fcw));
	memcpy(buf + XSTATE_MXCSR, &mxcsr, sizeof(mxcsr));
	return buf;
}

/*
 * Read the vCPU's XSAVE state, PKRU included: KVM keeps it elsewhere and shows
 * it only once the guest's fpstate was loaded.
 */
static inline uint8_t *xstate_read_all(struct xcomp *x)
{
	uint8_t *buf = xstate_read_image(x);

	if (xcomp_guest_xcr0(x) & ~xstate_bv(buf) & XF_BIT(XF_PKRU)) {
		TEST_ASSERT(xkvm_run_immediate_exit(x->kvm, x->vcpu),
			    "KVM_RUN with immediate_exit: wanted EINTR");
		buf = xstate_read_image(x);
	}
	return buf;
}

/* Give the vCPU XCR0, XSAVE state and all CET that it has, by many ioctls. */
static inline bool xstate_fill(struct xcomp *x, unsigned int seed)
{
	uint64_t ssp = xstate_ssp_value(seed);
	unsigned int i;
	bool ok = true;
	uint8_t *image;
	uint32_t msr;

	image = xstate_image(x, xstate_filled(x), seed);
	ok &= xcomp_same(x, "XCR0 taken", true,
			 xkvm_set_xcr0(x->vcpu, xcomp_guest_xcr0(x)));
	ok &= xcomp_same_errno(x, "KVM_SET_XSAVE", 0,
			       ioctl(x->vcpu, KVM_SET_XSAVE, image) ? errno : 0);
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		msr = xcomp_cet_msrs[i];
		if (xcomp_has_msr(x, msr))
			ok &= xcomp_same(x, xf_msr_name(msr), true,
					 xkvm_set_msr(x->vcpu, msr,
						      xstate_msr_value(x, msr,
								       seed)));
	}
	if (xcomp_guest_xss(x))
		ok &= xcomp_same(x, "IA32_XSS taken", true,
				 xkvm_set_msr(x->vcpu, XF_MSR_XSS,
					      xcomp_guest_xss(x)));
	if (x->shstk_on)
		ok &= xcomp_same_errno(x, "KVM_SET_ONE_REG of SSP", 0,
				       xkvm_one_reg(x->vcpu, KVM_SET_ONE_REG,
						    XKVM_REG_GUEST_SSP, &ssp));
	return ok;
}

/* What the vCPU has now in @msr, by an ioctl of its own */
static inline uint64_t xstate_msr(struct xcomp *x, uint32_t msr)
{
	uint64_t value;

	TEST_ASSERT(xkvm_get_msr(x->vcpu, msr, &value),
		    "KVM_GET_MSRS of %s: wanted success", xf_msr_name(msr));
	return value;
}

/* Compare the CET MSRs that are carried by components, or by none, and XSS. */
static inline bool xstate_msrs_kept(struct xcomp *x, unsigned int seed,
				    const char *when, bool in_component)
{
	unsigned int i;
	bool ok = true;
	uint32_t msr;

	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		msr = xcomp_cet_msrs[i];
		if (!xcomp_has_msr(x, msr) ||
		    in_component != (xstate_msr_component(msr) >= 0))
			continue;
		ok &= xf_msr_kept(x->name, msr, when,
				  xstate_msr_value(x, msr, seed),
				  xstate_msr(x, msr));
	}
	if (!in_component && xcomp_guest_xss(x))
		ok &= xf_msr_kept(x->name, XF_MSR_XSS, when,
				  xcomp_guest_xss(x),
				  xstate_msr(x, XF_MSR_XSS));
	return ok;
}

/* Whether the vCPU holds in all its CET MSRs what xstate_fill() gave it */
static inline bool xstate_cet_kept(struct xcomp *x, unsigned int seed,
				   const char *when)
{
	bool ok = xstate_msrs_kept(x, seed, when, true);

	return xstate_msrs_kept(x, seed, when, false) && ok;
}

/* Whether SSP, where the guest has it, holds what xstate_fill() gave it */
static inline bool xstate_ssp_kept(struct xcomp *x, unsigned int seed,
				   const char *when)
{
	uint64_t ssp = 0;
	int error;

	if (!x->shstk_on)
		return true;
	error = xkvm_one_reg(x->vcpu, KVM_GET_ONE_REG, XKVM_REG_GUEST_SSP,
			     &ssp);
	if (!error && ssp == xstate_ssp_value(seed))
		return true;
	ksft_print_msg("%s: SSP lost after %s: wanted %#lx got %#lx\n", x->name,
		       when, xstate_ssp_value(seed), ssp);
	return false;
}

/* Whether all of the vCPU's CET MSRs are 0 */
static inline bool xstate_cet_is_zero(struct xcomp *x, const char *when)
{
	uint64_t ssp = 0;
	unsigned int i;
	bool ok = true;

	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++)
		if (xcomp_has_msr(x, xcomp_cet_msrs[i]))
			ok &= xcomp_same(x, xf_msr_name(xcomp_cet_msrs[i]), 0,
					 xstate_msr(x, xcomp_cet_msrs[i]));
	if (x->shstk_on) {
		ok &= !xkvm_one_reg(x->vcpu, KVM_GET_ONE_REG,
				    XKVM_REG_GUEST_SSP, &ssp);
		ok &= xcomp_same(x, "SSP of the guest", 0, ssp);
	}
	if (!ok)
		ksft_print_msg("%s: CET is not 0 %s\n", x->name, when);
	return ok;
}

/* Whether the registers that no component carries hold what they were given */
static inline bool xstate_kept_elsewhere(struct xcomp *x, unsigned int seed,
					 const char *when)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };
	bool ok = xstate_msrs_kept(x, seed, when, false);

	ok &= xstate_ssp_kept(x, seed, when);
	ok &= !ioctl(x->vcpu, KVM_GET_XCRS, &xcrs);
	return ok & xcomp_same(x, "XCR0", xcomp_guest_xcr0(x),
			       xcrs.xcrs[0].value);
}

/*
 * Sort the vCPU's components into those that hold what they were given and
 * those in their initial state. Garbage, or half of each, is in neither mask.
 */
static inline void xstate_sort(struct xcomp *x, unsigned int seed,
			       uint64_t *kept, uint64_t *initial)
{
	uint8_t *want = xstate_image(x, xstate_filled(x), seed);
	uint8_t *init = xstate_init_image(x), *got = xstate_read_all(x);
	uint64_t value;
	unsigned int i;
	int nr;

	*kept = 0;
	for (i = 0; i < 63; i++)
		if ((xstate_filled(x) & XF_BIT(i)) &&
		    xstate_same_component(want, got, i))
			*kept |= XF_BIT(i) & xstate_bv(got);
	*initial = 0;
	for (i = 0; i < 63; i++)
		if ((xstate_filled(x) & XF_BIT(i)) &&
		    xstate_same_component(init, got, i))
			*initial |= XF_BIT(i);

	/* A component counts if all registers in it that the vCPU has agree. */
	if (x->shstk_on || x->ibt_on) {
		*kept |= XF_BIT(XF_CET_USER);
		*initial |= XF_BIT(XF_CET_USER);
	}
	if (x->shstk_on) {
		*kept |= XF_BIT(XF_CET_KERNEL);
		*initial |= XF_BIT(XF_CET_KERNEL);
	}
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		nr = xstate_msr_component(xcomp_cet_msrs[i]);
		if (nr < 0 || !xcomp_has_msr(x, xcomp_cet_msrs[i]))
			continue;
		value = xstate_msr(x, xcomp_cet_msrs[i]);
		if (value != xstate_msr_value(x, xcomp_cet_msrs[i], seed))
			*kept &= ~XF_BIT(nr);
		if (value)
			*initial &= ~XF_BIT(nr);
	}
}

/* All components that xstate_sort() sorts */
static inline uint64_t xstate_sorted(struct xcomp *x)
{
	uint64_t mask = xstate_filled(x);

	if (x->shstk_on || x->ibt_on)
		mask |= XF_BIT(XF_CET_USER);
	if (x->shstk_on)
		mask |= XF_BIT(XF_CET_KERNEL);
	return mask;
}

/* Whether the vCPU holds all of what xstate_fill() gave it */
static inline bool xstate_kept(struct xcomp *x, unsigned int seed,
			       const char *when)
{
	bool ok = xstate_msrs_kept(x, seed, when, true);
	uint64_t kept, initial;
	char names[128];

	ok &= xstate_kept_elsewhere(x, seed, when);
	xstate_sort(x, seed, &kept, &initial);
	if (kept == xstate_sorted(x))
		return ok;
	ksft_print_msg("%s: lost after %s: wanted components %#lx got %#lx, lost:%s\n",
		       x->name, when, xstate_sorted(x), kept,
		       xf_names(xstate_sorted(x) & ~kept, names,
				sizeof(names)));
	return false;
}

#endif /* SELFTEST_KVM_XSTATE_UTIL_H */
