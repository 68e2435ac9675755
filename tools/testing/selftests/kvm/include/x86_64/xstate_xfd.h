/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * IA32_XFD and IA32_XFD_ERR, as the host sees them.
 */
#ifndef SELFTEST_KVM_XSTATE_XFD_H
#define SELFTEST_KVM_XSTATE_XFD_H

#include "xstate_guest.h"
#include "xstate_util.h"

/* The one bit that either MSR has */
#define XFD_TILE	XF_BIT(XF_XTILE_DATA)

static const u32 xfd_msrs[] = { MSR_IA32_XFD, MSR_IA32_XFD_ERR };

static inline const char *xfd_msr_name(u32 msr)
{
	return msr == MSR_IA32_XFD ? "IA32_XFD" : "IA32_XFD_ERR";
}

static inline bool xfd_msr_is(struct kvm_vcpu *vcpu, u32 msr, const char *when,
			      u64 wanted)
{
	return xarea_same(xfd_msr_name(msr), when, wanted,
			  vcpu_get_msr(vcpu, msr));
}

#endif /* SELFTEST_KVM_XSTATE_XFD_H */
