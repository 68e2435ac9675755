/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A vCPU of each combination of AMX permissions, AMX and CET in guest CPUID,
 * and the state that the checks give it.
 *
 * CPUID is always set before state: the KVM_SET_CPUID2 that brings AMX gives
 * the vCPU a new fpstate and drops what the old one held.
 */
#ifndef SELFTESTS_X86_XCOMP_VCPU_H
#define SELFTESTS_X86_XCOMP_VCPU_H

#include "xcomp_checks.h"

/* Bits of IA32_U_CET and IA32_S_CET that do nothing on their own */
#define XCOMP_CET_WRSS_EN	XF_BIT(1)
#define XCOMP_CET_NO_TRACK_EN	XF_BIT(4)
#define XCOMP_CET_SUPPRESS_DIS	XF_BIT(5)

/* A shadow stack pointer; one above 4 GiB is invalid outside of long mode. */
#define XCOMP_GUEST_SSP		0x10002000

static const uint32_t xcomp_cet_msrs[] = {
	XF_MSR_U_CET, XF_MSR_S_CET, XF_MSR_PL0_SSP, XF_MSR_PL1_SSP,
	XF_MSR_PL2_SSP, XF_MSR_PL3_SSP, XF_MSR_INT_SSP_TAB,
};

/*
 * Shape @c to the combination, with or without AMX. Bits that KVM does not
 * offer are set all the same: they must have no effect.
 */
static inline void xcomp_shape_cpuid(const struct xcomp *x,
				     struct kvm_cpuid2 *c, bool amx)
{
	struct kvm_cpuid_entry2 *e;
	unsigned int i;

	for (i = 0; i < c->nent; i++) {
		e = &c->entries[i];
		if (e->function == 7 && e->index == 0) {
			e->ecx &= ~XCOMP_CPUID_7_ECX_SHSTK;
			e->edx &= ~XCOMP_CPUID_7_EDX_IBT;
			if (x->shstk)
				e->ecx |= XCOMP_CPUID_7_ECX_SHSTK;
			if (x->ibt)
				e->edx |= XCOMP_CPUID_7_EDX_IBT;
			if (!amx)
				e->edx &= ~XCOMP_CPUID_7_EDX_AMX;
		} else if (e->function == 0xd && e->index == 0) {
			e->eax &= ~XF_XTILE;
			if (amx)
				e->eax |= XF_XTILE;
		} else if (e->function == 0xd && e->index == 1) {
			e->ecx &= ~XF_CET;
			if (x->shstk || x->ibt)
				e->ecx |= XF_CET;
		}
	}
	if (!amx) {
		xkvm_cpuid_drop(c, 0xd, XF_XTILE_CFG);
		xkvm_cpuid_drop(c, 0xd, XF_XTILE_DATA);
	}
	if (!x->shstk && !x->ibt) {
		xkvm_cpuid_drop(c, 0xd, XF_CET_USER);
		xkvm_cpuid_drop(c, 0xd, XF_CET_KERNEL);
	}
}

/* 0 or the errno of a KVM_SET_CPUID2 that fits the combination */
static inline int xcomp_set_cpuid(struct xcomp *x, int vcpu, bool amx)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(x->kvm);
	int error;

	if (!c)
		return errno;
	xcomp_shape_cpuid(x, c, amx);
	error = ioctl(vcpu, KVM_SET_CPUID2, c) ? errno : 0;
	if (error)
		free(c);
	else
		x->cpuid = c;
	return error;
}

/*
 * Make the vCPU of the combination. Where the permission is missing, AMX is
 * refused and the vCPU stays one without AMX.
 */
static inline int xcomp_vcpu(struct xcomp *x)
{
	struct kvm_cpuid2 *supported;
	int result;

	result = xcomp_supported(x, &supported);
	if (result)
		return result;
	free(supported);
	x->amx_on = x->amx && x->guest_granted;
	x->shstk_on = x->shstk && xcomp_offers_shstk();
	x->ibt_on = x->ibt && xcomp_offers_ibt();
	if (x->amx && !x->have_amx &&
	    (x->perm == XCOMP_GUEST || x->perm == XCOMP_BOTH ||
	     x->perm == XCOMP_INHERITED))
		return xcomp_skip(x, "no AMX on this machine");

	if (!xcomp_make_vm(x, true))
		return KSFT_FAIL;
	if (!xcomp_same_errno(x, "KVM_SET_CPUID2", 0,
			      xcomp_set_cpuid(x, x->vcpu, x->amx_on)))
		return KSFT_FAIL;
	if (x->amx && !x->amx_on &&
	    !xcomp_same_errno(x, "KVM_SET_CPUID2 with AMX", EPERM,
			      xcomp_set_cpuid(x, x->vcpu, true)))
		return KSFT_FAIL;
	return KSFT_PASS;
}

/* Whether the guest has @msr */
static inline bool xcomp_has_msr(const struct xcomp *x, uint32_t msr)
{
	if (msr == XF_MSR_U_CET || msr == XF_MSR_S_CET)
		return x->shstk_on || x->ibt_on;
	return x->shstk_on;
}

/*
 * A valid value of a CET MSR, distinct for each and for each @set. Should one
 * end up in the host's registers, it does no harm there.
 */
static inline uint64_t xcomp_msr_value(const struct xcomp *x, uint32_t msr,
				       int set)
{
	uint64_t n = msr - XF_MSR_PL0_SSP;

	if (msr != XF_MSR_U_CET && msr != XF_MSR_S_CET)
		return set ? 0x600020000000 + n * 0x2010 :
			     0x700010000000 + n * 0x1008;
	if (set)
		return x->ibt_on ? XCOMP_CET_SUPPRESS_DIS : 0;
	return (x->shstk_on ? XCOMP_CET_WRSS_EN : 0) |
	       (x->ibt_on ? XCOMP_CET_NO_TRACK_EN : 0);
}

/* IA32_XSS bits that this guest may set */
static inline uint64_t xcomp_guest_xss(const struct xcomp *x)
{
	return x->shstk || x->ibt ? xcomp_offered_xss() : 0;
}

/* XCR0 bits that this guest may set */
static inline uint64_t xcomp_guest_xcr0(struct xcomp *x)
{
	return xcomp_known_xcr0(x) & ~(x->amx_on ? 0 : XF_XTILE);
}

/*
 * Write, in one ioctl, all CET MSRs that the guest has, and IA32_XSS; besides
 * the guest's shadow stack pointer, which exists only with shadow stacks.
 */
static inline bool xcomp_write_msrs(struct xcomp *x)
{
	struct kvm_msr_entry e[ARRAY_SIZE(xcomp_cet_msrs) + 1] = { 0 };
	uint64_t ssp = XCOMP_GUEST_SSP;
	unsigned int i, nr = 0;
	bool ok;

	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		if (!xcomp_has_msr(x, xcomp_cet_msrs[i]))
			continue;
		e[nr].index = xcomp_cet_msrs[i];
		e[nr++].data = xcomp_msr_value(x, xcomp_cet_msrs[i], 0);
	}
	if (xcomp_guest_xss(x)) {
		e[nr].index = XF_MSR_XSS;
		e[nr++].data = xcomp_guest_xss(x);
	}
	ok = xcomp_same(x, "MSRs that KVM_SET_MSRS took", nr,
			nr ? xkvm_set_msrs(x->vcpu, e, nr) : 0);

	/* Kernels without guest CET do not even have the ioctl. */
	if (x->shstk_on || xkvm_cap(x->kvm, KVM_CAP_ONE_REG) > 0)
		ok &= xcomp_same_errno(x, "KVM_SET_ONE_REG of the guest's SSP",
				       x->shstk_on ? 0 : EINVAL,
				       xkvm_one_reg(x->vcpu, KVM_SET_ONE_REG,
						    XKVM_REG_GUEST_SSP, &ssp));
	return ok;
}

/* Read back, in ioctls of their own, what xcomp_write_msrs() wrote. */
static inline bool xcomp_msrs_kept(struct xcomp *x, const char *when)
{
	struct kvm_msr_entry e[ARRAY_SIZE(xcomp_cet_msrs) + 1] = { 0 };
	unsigned int i, nr = 0;
	uint64_t ssp = 0;
	bool ok = true;

	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++)
		if (xcomp_has_msr(x, xcomp_cet_msrs[i]))
			e[nr++].index = xcomp_cet_msrs[i];
	if (xcomp_guest_xss(x))
		e[nr++].index = XF_MSR_XSS;
	if (nr && !xcomp_same(x, "MSRs that KVM_GET_MSRS read", nr,
			      xkvm_get_msrs(x->vcpu, e, nr)))
		return false;

	for (i = 0; i < nr; i++)
		ok &= xf_msr_kept(x->name, e[i].index, when,
				  e[i].index == XF_MSR_XSS ?
				  xcomp_guest_xss(x) :
				  xcomp_msr_value(x, e[i].index, 0), e[i].data);
	if (x->shstk_on) {
		ok &= !xkvm_one_reg(x->vcpu, KVM_GET_ONE_REG,
				    XKVM_REG_GUEST_SSP, &ssp);
		ok &= xcomp_same(x, "SSP of the guest", XCOMP_GUEST_SSP, ssp);
	}
	return ok;
}

/* Bytes that KVM_GET_XSAVE2 and KVM_SET_XSAVE must move for this vCPU */
static inline uint32_t xcomp_xsave_size(struct xcomp *x)
{
	uint32_t size = xf_standard_size(xcomp_guest_xcr0(x));

	return x->amx_on && size > XKVM_XSAVE_SIZE ? size : XKVM_XSAVE_SIZE;
}

/* Give the vCPU x87, SSE and AVX state that is not the initial one. */
static inline bool xcomp_write_xsave(struct xcomp *x)
{
	uint8_t *buf = xf_guarded(xcomp_xsave_size(x), 0);
	uint64_t bv = xcomp_guest_xcr0(x) & (XF_FPSSE | XF_BIT(XF_YMM));
	struct xf_regs ymm = xf_cpuid(0xd, XF_YMM);
	const uint32_t mxcsr = 0x1f80;
	const uint16_t fcw = 0x37f;

	memcpy(buf, &fcw, sizeof(fcw));
	memcpy(buf + 24, &mxcsr, sizeof(mxcsr));
	memset(buf + 160, 0x3c, 16 * 16);
	memcpy(buf + XF_HEADER_OFFSET, &bv, sizeof(bv));
	if (bv & XF_BIT(XF_YMM))
		memset(buf + ymm.ebx, 0xc3, ymm.eax);
	return xcomp_same_errno(x, "KVM_SET_XSAVE", 0,
				ioctl(x->vcpu, KVM_SET_XSAVE, buf) ? errno : 0);
}

#endif /* SELFTESTS_X86_XCOMP_VCPU_H */
