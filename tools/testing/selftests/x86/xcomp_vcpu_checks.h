/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checks of one vCPU in each combination of AMX permissions, AMX and CET in
 * guest CPUID: what it accepts, what it keeps, and the fpstate it runs on.
 */
#ifndef SELFTESTS_X86_XCOMP_VCPU_CHECKS_H
#define SELFTESTS_X86_XCOMP_VCPU_CHECKS_H

#include "xcomp_vcpu.h"

/*
 * Verify that the CET MSRs that guest CPUID has outlive KVM_SET_MSRS,
 * KVM_SET_XSAVE, KVM_RUN and the same KVM_SET_CPUID2 once more, each read back
 * by an ioctl of its own, and that those that it has not cannot be written.
 * IA32_S_CET, IA32_XSS and SSP are kept elsewhere and must be there as well.
 */
static inline int xcomp_check_cet_msrs(struct xcomp *x)
{
	int result = xcomp_vcpu(x);
	bool ok = true, refuses;
	unsigned int i;
	uint64_t value;

	if (result)
		return result;

	ok &= xcomp_write_msrs(x);
	ok &= xcomp_msrs_kept(x, x->amx_on ? "KVM_SET_CPUID2 with AMX and KVM_SET_MSRS" :
					     "KVM_SET_MSRS");
	ok &= xcomp_write_xsave(x);
	ok &= xcomp_msrs_kept(x, "KVM_SET_XSAVE");
	ok &= xcomp_same(x, "KVM_RUN that exits at once", true,
			 xkvm_run_immediate_exit(x->kvm, x->vcpu));
	ok &= xcomp_msrs_kept(x, "KVM_RUN");
	ok &= xcomp_same_errno(x, "the same KVM_SET_CPUID2 again", 0,
			ioctl(x->vcpu, KVM_SET_CPUID2, x->cpuid) ? errno : 0);
	ok &= xcomp_msrs_kept(x, "the same KVM_SET_CPUID2 again");

	/* With ignore_msrs KVM drops writes to unknown MSRs silently. */
	refuses = xkvm_refuses_msrs();
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		if (xcomp_has_msr(x, xcomp_cet_msrs[i]))
			continue;
		if (refuses)
			ok &= xcomp_same(x, xf_msr_name(xcomp_cet_msrs[i]),
					 false,
					 xkvm_set_msr(x->vcpu,
						      xcomp_cet_msrs[i], 8));
		if (xkvm_get_msr(x->vcpu, xcomp_cet_msrs[i], &value))
			ok &= xcomp_same(x, xf_msr_name(xcomp_cet_msrs[i]), 0,
					 value);
	}
	return xcomp_verdict(ok);
}

/*
 * Verify that the vCPU takes exactly those bits of IA32_XSS that its CPUID and
 * KVM have: CET_USER and CET_KERNEL or none, never PASID.
 */
static inline int xcomp_check_xss(struct xcomp *x)
{
	int i, result = xcomp_vcpu(x);
	uint64_t wanted, taken = 0, value;
	bool ok = true;

	if (result)
		return result;

	wanted = xcomp_guest_xss(x);
	for (i = 0; i < 64; i++) {
		if (!xkvm_set_msr(x->vcpu, XF_MSR_XSS, XF_BIT(i)))
			continue;
		taken |= XF_BIT(i);
		xkvm_get_msr(x->vcpu, XF_MSR_XSS, &value);
		ok &= xcomp_same(x, "IA32_XSS", XF_BIT(i), value);
	}
	if (!wanted && !xkvm_refuses_msrs())
		return xcomp_skip(x, "ignore_msrs hides what is refused");
	ok &= xcomp_same(x, "bits that IA32_XSS takes", wanted, taken);

	if (wanted) {
		ok &= xcomp_same(x, "all of them together", true,
				 xkvm_set_msr(x->vcpu, XF_MSR_XSS, wanted));
		ok &= xcomp_same(x, "PASID on top of them", false,
				 xkvm_set_msr(x->vcpu, XF_MSR_XSS,
					      wanted | XF_BIT(XF_PASID)));
		xkvm_get_msr(x->vcpu, XF_MSR_XSS, &value);
		ok &= xcomp_same(x, "IA32_XSS in the end", wanted, value);
	}
	return xcomp_verdict(ok);
}

/* Whether GET_XSAVE2 gives @size bytes now and not one more */
static inline bool xcomp_xsave_moves(struct xcomp *x, uint32_t size,
				     uint32_t promised)
{
	uint8_t *a = xf_guarded(promised, 0x5a);
	uint8_t *b = xf_guarded(promised, 0xa5);
	uint8_t *shorter = xf_guarded(size - 1, 0);
	uint32_t i, written = 0;
	bool ok = true;

	ok &= !ioctl(x->vcpu, KVM_GET_XSAVE2, a);
	ok &= !ioctl(x->vcpu, KVM_GET_XSAVE2, b);
	if (!ok) {
		xcomp_error(x, "KVM_GET_XSAVE2");
		return false;
	}

	/* What is the same over two kinds of poison was written. */
	while (written < promised && a[written] == b[written])
		written++;
	for (i = written; i < promised && a[i] == 0x5a && b[i] == 0xa5; i++)
		;
	ok &= xcomp_same(x, "bytes that KVM_GET_XSAVE2 wrote", size, written);
	ok &= xcomp_same(x, "end of what it left alone", promised, i);

	ok &= xcomp_same_errno(x, "KVM_GET_XSAVE2 into one byte less", EFAULT,
			ioctl(x->vcpu, KVM_GET_XSAVE2, shorter) ? errno : 0);
	ok &= xcomp_same_errno(x, "KVM_SET_XSAVE of one byte less", EFAULT,
			ioctl(x->vcpu, KVM_SET_XSAVE, shorter) ? errno : 0);
	return ok;
}

/*
 * No supervisor component, nor any other bit that user space never sees, comes
 * in by an image, and none of it is taken then.
 */
static inline bool xcomp_refuses_supervisor(struct xcomp *x, const uint8_t *old,
					    uint32_t size)
{
	uint8_t *image = xf_guarded(size, 0), *now = xf_guarded(size, 0);
	uint64_t bv, wrong;
	bool ok = true;
	int i;

	for (i = 0; i < 64; i++) {
		if (!(XF_NEVER & XF_BIT(i)))
			continue;
		memcpy(&bv, old + XF_HEADER_OFFSET, sizeof(bv));
		wrong = bv | XF_BIT(i);
		memcpy(image + XF_HEADER_OFFSET, &wrong, sizeof(wrong));
		ok &= xcomp_same_errno(x, "KVM_SET_XSAVE with a supervisor component",
				EINVAL,
				ioctl(x->vcpu, KVM_SET_XSAVE, image) ? errno : 0);
	}
	ok &= !ioctl(x->vcpu, KVM_GET_XSAVE2, now);
	return ok & xcomp_same(x, "XSAVE state differs after that", 0,
			       !!memcmp(now, old, size));
}

/*
 * KVM_SET_XSAVE takes what the host has even if guest CPUID has it not, such
 * as an XTILE_CFG of all zeros; KVM_GET_XSAVE2 must not show it.
 */
static inline bool xcomp_hides_xtile_cfg(struct xcomp *x, uint8_t *buf)
{
	uint64_t bv = XF_FPSSE | XF_BIT(XF_XTILE_CFG);

	if (!x->have_amx || x->amx_on)
		return true;

	memcpy(buf + XF_HEADER_OFFSET, &bv, sizeof(bv));
	if (!xcomp_same_errno(x, "KVM_SET_XSAVE with XTILE_CFG", 0,
			      ioctl(x->vcpu, KVM_SET_XSAVE, buf) ? errno : 0) ||
	    ioctl(x->vcpu, KVM_GET_XSAVE2, buf))
		return false;
	memcpy(&bv, buf + XF_HEADER_OFFSET, sizeof(bv));
	return xcomp_same(x, "XSTATE_BV with XTILE_CFG", 0,
			  bv & XF_BIT(XF_XTILE_CFG));
}

/*
 * Verify that KVM_GET_XSAVE2 writes exactly the bytes that this vCPU's CPUID
 * calls for, that KVM_GET_XSAVE works up to 4 KiB and not beyond, and that
 * the XSAVE header shows user components of the guest only.
 */
static inline int xcomp_check_xsave2(struct xcomp *x)
{
	uint32_t size, promised;
	uint64_t header[8], bv;
	int result = xcomp_vcpu(x);
	uint8_t *buf, *old;
	bool ok;

	if (result)
		return result;
	if (xkvm_cap(x->vm, KVM_CAP_XSAVE2) <= 0)
		return xcomp_skip(x, "no KVM_CAP_XSAVE2");

	size = xcomp_xsave_size(x);
	promised = xkvm_cap(x->vm, KVM_CAP_XSAVE2);
	ok = xcomp_write_msrs(x) && xcomp_write_xsave(x) &&
	     xcomp_xsave_moves(x, size, promised > size ? promised : size);
	if (!ok)
		return KSFT_FAIL;

	buf = xf_guarded(size, 0);
	old = xf_guarded(XKVM_XSAVE_SIZE, 0x77);
	ok &= !ioctl(x->vcpu, KVM_GET_XSAVE2, buf);
	ok &= xcomp_same_errno(x, "KVM_GET_XSAVE",
			       size > XKVM_XSAVE_SIZE ? EINVAL : 0,
			       ioctl(x->vcpu, KVM_GET_XSAVE, old) ? errno : 0);
	if (size == XKVM_XSAVE_SIZE)
		ok &= xcomp_same(x, "KVM_GET_XSAVE differs from GET_XSAVE2", 0,
				 !!memcmp(buf, old, size));

	memcpy(header, buf + XF_HEADER_OFFSET, sizeof(header));
	ok &= xcomp_same(x, "XSTATE_BV beyond the guest's components", 0,
			 header[0] & ~(xcomp_guest_xcr0(x) | XF_FPSSE));
	bv = xcomp_guest_xcr0(x) & (XF_BIT(XF_SSE) | XF_BIT(XF_YMM));
	ok &= xcomp_same(x, "XSTATE_BV, what was set", bv, header[0] & bv);
	ok &= xcomp_same(x, "XCOMP_BV in the standard format", 0, header[1]);
	ok &= xcomp_refuses_supervisor(x, buf, size);
	ok &= xcomp_hides_xtile_cfg(x, buf);
	return xcomp_verdict(ok);
}

/* Whether two CPUIDs are the same to the last bit */
static inline bool xcomp_same_cpuid(const struct xcomp *x,
				    const struct kvm_cpuid2 *a,
				    const struct kvm_cpuid2 *b)
{
	bool same = a && b && a->nent == b->nent &&
		    !memcmp(a->entries, b->entries,
			    a->nent * sizeof(a->entries[0]));

	if (!same)
		ksft_print_msg("%s: the vCPU's CPUID changed\n", x->name);
	return same;
}

/*
 * Verify that KVM_SET_CPUID2 with AMX needs the permission and changes nothing
 * without it: not CPUID, not sizes, no MSR, no byte of XSAVE state. Where
 * there is nothing to refuse the same CPUID once more must change nothing.
 */
static inline int xcomp_check_set_cpuid(struct xcomp *x)
{
	struct kvm_cpuid2 *before, *after;
	uint8_t *xsave[2];
	int result = xcomp_vcpu(x);
	uint32_t size;
	bool ok;
	int i;

	if (result)
		return result;

	before = xkvm_vcpu_cpuid(x->vcpu);
	ok = xcomp_same(x, "XTILE in the vCPU's CPUID",
			x->amx_on ? XF_XTILE : 0,
			before ? xkvm_cpuid(before, 0xd, 0).eax & XF_XTILE : 0);
	ok &= xcomp_write_msrs(x) && xcomp_msrs_kept(x, "KVM_SET_MSRS") &&
	      xcomp_write_xsave(x);
	before = xkvm_vcpu_cpuid(x->vcpu);

	size = xcomp_xsave_size(x);
	for (i = 0; i < 2; i++) {
		xsave[i] = xf_guarded(size, i);
		ok &= !ioctl(x->vcpu, KVM_GET_XSAVE2, xsave[i]);
		if (i)
			break;
		if (x->amx && !x->amx_on)
			ok &= xcomp_same_errno(x, "KVM_SET_CPUID2 with AMX",
				EPERM, xcomp_set_cpuid(x, x->vcpu, true));
		else
			ok &= !ioctl(x->vcpu, KVM_SET_CPUID2, x->cpuid);
	}

	after = xkvm_vcpu_cpuid(x->vcpu);
	ok &= xcomp_same_cpuid(x, before, after);
	ok &= xcomp_same(x, "XSAVE state differs", 0,
			 !!memcmp(xsave[0], xsave[1], size));
	ok &= xcomp_msrs_kept(x, "KVM_SET_CPUID2");
	ok &= xcomp_check_masks(x) == KSFT_PASS;
	return xcomp_verdict(ok);
}

/*
 * Verify that the sizes in the vCPU's own CPUID leaf 0xD follow its XCR0 and
 * IA32_XSS, and that half of AMX is refused in XCR0.
 */
static inline int xcomp_check_runtime_size(struct xcomp *x)
{
	const uint64_t groups[] = {
		XF_BIT(XF_FP), XF_BIT(XF_SSE), XF_BIT(XF_YMM), XF_MPX,
		XF_AVX512, XF_BIT(XF_PKRU), XF_XTILE,
	};
	const uint64_t xss[] = { 0, XF_BIT(XF_CET_USER), XF_BIT(XF_CET_KERNEL),
				 XF_CET };
	uint64_t guest, xcr0 = 0;
	struct kvm_cpuid2 *c;
	int result = xcomp_vcpu(x);
	struct xf_regs r;
	unsigned int i, j;
	bool ok = true;

	if (result)
		return result;

	guest = xcomp_guest_xcr0(x);
	for (i = 0; i < ARRAY_SIZE(groups); i++) {
		if ((guest & groups[i]) != groups[i])
			continue;
		xcr0 |= groups[i];
		ok &= xcomp_same(x, "XCR0 taken", true,
				 xkvm_set_xcr0(x->vcpu, xcr0));
		for (j = 0; j < ARRAY_SIZE(xss); j++) {
			if (xss[j] & ~xcomp_guest_xss(x))
				continue;
			if (xcomp_guest_xss(x))
				xkvm_set_msr(x->vcpu, XF_MSR_XSS, xss[j]);
			c = xkvm_vcpu_cpuid(x->vcpu);
			if (!c)
				return xcomp_error(x, "KVM_GET_CPUID2");
			ok &= xcomp_same(x, "CPUID.(0xD,0).EBX of the vCPU",
					 xf_standard_size(xcr0),
					 xkvm_cpuid(c, 0xd, 0).ebx);
			r = xkvm_cpuid(c, 0xd, 1);
			if (r.eax & (XCOMP_CPUID_D_1_EAX_XSAVEC |
				     XCOMP_CPUID_D_1_EAX_XSAVES))
				ok &= xcomp_same(x,
					"CPUID.(0xD,1).EBX of the vCPU",
					xf_compacted_size(xcr0 | xss[j]),
					r.ebx);
			free(c);
		}
	}

	xcr0 &= ~XF_XTILE;
	ok &= xcomp_same(x, "XCR0 with XTILE_CFG alone taken", false,
		xkvm_set_xcr0(x->vcpu, xcr0 | XF_BIT(XF_XTILE_CFG)));
	ok &= xcomp_same(x, "XCR0 with XTILE_DATA alone taken", false,
		xkvm_set_xcr0(x->vcpu, xcr0 | XF_BIT(XF_XTILE_DATA)));
	ok &= xcomp_same(x, "XCR0 with XTILE taken", x->amx_on,
		xkvm_set_xcr0(x->vcpu, xcr0 | XF_XTILE));
	return xcomp_verdict(ok);
}

/*
 * The components that an fpstate must have, and in @known those of which this
 * can be told: a kernel that does not offer guest CET may know its state.
 */
static inline uint64_t xcomp_fpstate(bool guest, bool amx, uint64_t *known)
{
	uint64_t mask = xf_xcr0() & ~XF_BIT(XF_XTILE_DATA);
	uint64_t cpu = xf_cpu_supervisor_mask();

	if (amx)
		mask |= XF_BIT(XF_XTILE_DATA);
	if (xf_cpuinfo_flag("enqcmd"))
		mask |= cpu & XF_BIT(XF_PASID);

	*known = ~XF_CET;
	if (xcomp_offered_xss() || xf_cpuinfo_flag("user_shstk") ||
	    !(cpu & XF_BIT(XF_CET_USER))) {
		*known |= XF_BIT(XF_CET_USER);
		mask |= cpu & XF_BIT(XF_CET_USER);
	}
	if (xcomp_offered_xss() || !guest ||
	    !(cpu & XF_BIT(XF_CET_KERNEL))) {
		*known |= XF_BIT(XF_CET_KERNEL);
		mask |= guest ? cpu & XF_BIT(XF_CET_KERNEL) : 0;
	}
	return mask | XF_COMPACTED;
}

/* Compare the headers of an fpstate with what it must carry. */
static inline bool xcomp_same_fpstate(const struct xcomp *x, const char *whose,
				      bool guest, bool amx,
				      const struct xf_traced *got)
{
	uint64_t known, wanted = xcomp_fpstate(guest, amx, &known);
	uint64_t wrong = (got->xcomp_bv ^ wanted) & known;
	char lost[128], extra[128];

	if (wrong) {
		ksft_print_msg("%s: XCOMP_BV of %s: wanted %#lx got %#lx\n",
			       x->name, whose, wanted, got->xcomp_bv);
		ksft_print_msg("%s: lost:%s, too many:%s\n", x->name,
			       xf_names(wrong & wanted, lost, sizeof(lost)),
			       xf_names(wrong & ~wanted, extra, sizeof(extra)));
	}
	return !wrong & xcomp_same(x, "XSTATE_BV beyond XCOMP_BV", 0,
				   got->xstate_bv & ~got->xcomp_bv);
}

/*
 * Verify, on the tracepoint, which components the fpstates of guest and host
 * carry: PASID and CET_USER in both, CET_KERNEL in the guest's only, XTILE_DATA
 * after it was permitted and asked for, by guest CPUID or by use. A second
 * vCPU that has no AMX comes first, for comparison.
 */
static inline int xcomp_check_xcomp_bv(struct xcomp *x)
{
	struct xf_traced_run run[3];
	int other, nr, result = xcomp_vcpu(x);
	bool ok;

	if (result)
		return result;
	if (!xf_trace_dir[0])
		return xcomp_skip(x, xf_trace_reason);
	if (!xf_cpuinfo_flag("xsaves"))
		return xcomp_skip(x, "the kernel does not use XSAVES");

	other = ioctl(x->vm, KVM_CREATE_VCPU, 1);
	if (other < 0)
		return xcomp_error(x, "KVM_CREATE_VCPU");
	ok = xcomp_same_errno(x, "KVM_SET_CPUID2 of the other vCPU", 0,
			      xcomp_set_cpuid(x, other, false));
	ok &= xcomp_write_msrs(x);
	if (x->host_granted)
		xf_use_amx();

	if (xf_trace_record(true))
		return xcomp_error(x, "recording a trace");
	ok &= xkvm_run_immediate_exit(x->kvm, other);
	ok &= xkvm_run_immediate_exit(x->kvm, x->vcpu);
	xf_trace_record(false);
	nr = xf_trace_runs(run, ARRAY_SIZE(run));
	if (!xcomp_same(x, "KVM_RUNs in the trace", 2, nr) || !ok)
		return KSFT_FAIL;

	ok &= xcomp_same_fpstate(x, "a guest without AMX", true, false,
				 &run[0].guest);
	ok &= xcomp_same_fpstate(x, "the guest", true, x->amx_on,
				 &run[1].guest);
	ok &= xcomp_same_fpstate(x, "the host", false, x->host_granted,
				 &run[1].host);
	ok &= xcomp_same(x, "CET in the guest, set against one without AMX",
			 run[0].guest.xcomp_bv & XF_CET,
			 run[1].guest.xcomp_bv & XF_CET);
	ok &= xcomp_same(x, "CET_USER in the guest, set against the host",
			 run[1].host.xcomp_bv & XF_BIT(XF_CET_USER),
			 run[1].guest.xcomp_bv & XF_BIT(XF_CET_USER));
	if (x->shstk_on)
		ok &= xcomp_same(x, "XSTATE_BV with both CET components in use",
				 XF_CET, run[1].guest.xstate_bv & XF_CET);
	return xcomp_verdict(ok);
}

#endif /* SELFTESTS_X86_XCOMP_VCPU_CHECKS_H */
