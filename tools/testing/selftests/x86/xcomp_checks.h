/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checks of what a process sees in each combination of AMX permissions: the
 * permission masks, KVM's sizes and the CPUID that KVM offers.
 */
#ifndef SELFTESTS_X86_XCOMP_CHECKS_H
#define SELFTESTS_X86_XCOMP_CHECKS_H

#include "xcomp_combo.h"

/* User components that every KVM offers if the host has switched them on */
#define XCOMP_KVM_USER	(XF_FPSSE | XF_BIT(XF_YMM) | XF_AVX512 | \
			 XF_BIT(XF_PKRU) | XF_XTILE)

#define XCOMP_CPUID_1_ECX_XSAVE		XF_BIT(26)
#define XCOMP_CPUID_7_ECX_PKU		XF_BIT(3)
#define XCOMP_CPUID_7_ECX_SHSTK		XF_BIT(7)
#define XCOMP_CPUID_7_ECX_ENQCMD	XF_BIT(29)
#define XCOMP_CPUID_7_EDX_IBT		XF_BIT(20)
#define XCOMP_CPUID_7_EDX_AMX		(XF_BIT(22) | XF_BIT(24) | XF_BIT(25))
#define XCOMP_CPUID_D_1_EAX_XSAVEC	XF_BIT(1)
#define XCOMP_CPUID_D_1_EAX_XSAVES	XF_BIT(3)
#define XCOMP_CPUID_D_1_EAX_XFD		XF_BIT(4)

static inline bool xcomp_offers_shstk(void)
{
	return xcomp_unpermitted && xkvm_cpuid(xcomp_unpermitted, 7, 0).ecx &
				    XCOMP_CPUID_7_ECX_SHSTK;
}

static inline bool xcomp_offers_ibt(void)
{
	return xcomp_unpermitted && xkvm_cpuid(xcomp_unpermitted, 7, 0).edx &
				    XCOMP_CPUID_7_EDX_IBT;
}

/* IA32_XSS bits that KVM must offer: those of CET, or none at all */
static inline uint64_t xcomp_offered_xss(void)
{
	return xcomp_offers_shstk() || xcomp_offers_ibt() ? XF_CET : 0;
}

/* User components that KVM must know, whatever is permitted */
static inline uint64_t xcomp_known_xcr0(struct xcomp *x)
{
	uint64_t supp = 0;

	/* MPX needs support in VMX besides, ask KVM about that. */
	xkvm_guest_supp(x->kvm, &supp);
	return xf_xcr0() & (XCOMP_KVM_USER | (supp & XF_MPX));
}

/*
 * Kernels before 6.4 offer XTILE_CFG without XTILE_DATA where the permission
 * is missing. A later capability tells newer kernels for certain.
 */
static inline bool xcomp_offers_half_amx(struct xcomp *x,
					 struct kvm_cpuid2 *supported)
{
	return x->have_amx && !x->guest_granted &&
	       xkvm_cap(x->kvm, KVM_CAP_USER_MEMORY2) <= 0 &&
	       (xkvm_cpuid(supported, 0xd, 0).eax & XF_BIT(XF_XTILE_CFG));
}

/* User components that KVM must offer in this combination */
static inline uint64_t xcomp_offered_xcr0(struct xcomp *x,
					  struct kvm_cpuid2 *supported)
{
	uint64_t mask = xcomp_known_xcr0(x);

	if (!x->guest_granted)
		mask &= ~XF_XTILE;
	if (xcomp_offers_half_amx(x, supported))
		mask |= XF_BIT(XF_XTILE_CFG);
	return mask;
}

/* Open /dev/kvm if what KVM offers can be told from what the host has. */
static inline bool xcomp_open_whole_kvm(struct xcomp *x)
{
	x->reason = xcomp_half_kvm;
	return !x->reason && xcomp_open_kvm(x);
}

/* Open /dev/kvm and get CPUID as this process is offered it. */
static inline int xcomp_supported(struct xcomp *x, struct kvm_cpuid2 **c)
{
	if (!xcomp_open_whole_kvm(x))
		return KSFT_SKIP;
	*c = xkvm_supported_cpuid(x->kvm);
	if (!*c)
		return xcomp_error(x, "KVM_GET_SUPPORTED_CPUID");
	if (!xkvm_cpuid_entry(*c, 0xd, 0))
		return xcomp_skip(x, "KVM offers no XSAVE");
	return KSFT_PASS;
}

/*
 * Verify that the masks of arch_prctl() are exactly what was granted, that
 * host and guest permission do not mix, and that no supervisor component and
 * no flag of the kernel shows in them.
 */
static inline int xcomp_check_masks(struct xcomp *x)
{
	uint64_t supp, perm, guest;
	bool ok = true;

	if (xf_get_mask(ARCH_GET_XCOMP_SUPP, &supp))
		return xcomp_error(x, "ARCH_GET_XCOMP_SUPP");
	if (xf_get_mask(ARCH_GET_XCOMP_PERM, &perm))
		return xcomp_error(x, "ARCH_GET_XCOMP_PERM");
	if (xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &guest))
		return xcomp_error(x, "ARCH_GET_XCOMP_GUEST_PERM");

	ok &= xcomp_same(x, "ARCH_GET_XCOMP_SUPP", xf_xcr0() | XF_FPSSE, supp);
	ok &= xcomp_same(x, "ARCH_GET_XCOMP_PERM",
			 xf_permitted(x->host_granted), perm);
	ok &= xcomp_same(x, "ARCH_GET_XCOMP_GUEST_PERM",
			 xf_permitted(x->guest_granted), guest);
	ok &= xcomp_same(x, "supervisor components or flags in a mask", 0,
			 (supp | perm | guest) & XF_NEVER);
	return xcomp_verdict(ok);
}

/*
 * Verify what requests answer: the one for XTILE_DATA once more, and those for
 * what can never be asked for, which must not change anything. After execve()
 * the guest permission is granted anew.
 */
static inline int xcomp_check_request(struct xcomp *x)
{
	static const struct {
		unsigned long nr;
		int error;
	} never[] = {
		{ XF_PASID, EOPNOTSUPP },	{ XF_CET_USER, EOPNOTSUPP },
		{ XF_CET_KERNEL, EOPNOTSUPP },	{ XF_XTILE_CFG, EOPNOTSUPP },
		{ 63, EINVAL },			{ 64, EINVAL },
	};
	bool ok = true;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(never); i++) {
		ok &= xcomp_same_errno(x, "host request for a wrong feature",
			never[i].error,
			xf_request(ARCH_REQ_XCOMP_PERM, never[i].nr));
		ok &= xcomp_same_errno(x, "guest request for a wrong feature",
			never[i].error,
			xf_request(ARCH_REQ_XCOMP_GUEST_PERM, never[i].nr));
	}
	ok &= xcomp_check_masks(x) == KSFT_PASS;

	ok &= xcomp_ask(x, true);
	x->guest_granted = x->have_amx && x->perm != XCOMP_LATE;
	ok &= xcomp_check_masks(x) == KSFT_PASS;
	return xcomp_verdict(ok);
}

/*
 * Verify that KVM_X86_XCOMP_GUEST_SUPP is what the host has switched on and
 * KVM knows, that it does not depend on the permission, that KVM says that it
 * has it, and that there is none in another group or by another number.
 */
static inline int xcomp_check_guest_supp(struct xcomp *x)
{
	uint64_t supp, xcr0 = xf_xcr0() & xf_cpu_user_mask();
	bool ok = true;

	if (!xcomp_open_whole_kvm(x))
		return KSFT_SKIP;
	if (xkvm_guest_supp(x->kvm, &supp))
		return errno == ENXIO || errno == ENOTTY ?
		       xcomp_skip(x, "no KVM_X86_XCOMP_GUEST_SUPP") :
		       xcomp_error(x, "KVM_X86_XCOMP_GUEST_SUPP");

	ok &= xcomp_same(x, "components that the host has not switched on", 0,
			 supp & ~xcr0);
	ok &= xcomp_same(x, "components that KVM must know",
			 xcr0 & XCOMP_KVM_USER, supp & XCOMP_KVM_USER);
	ok &= xcomp_same(x, "supervisor components", 0, supp & XF_NEVER);
	ok &= xcomp_same_errno(x, "attribute to where nothing can be written",
			       EFAULT,
			       xkvm_attr(x->kvm, 0, KVM_X86_XCOMP_GUEST_SUPP,
					 (uint64_t *)8) ? errno : 0);
	ok &= xcomp_same_errno(x, "attribute in no known group", ENXIO,
			       xkvm_attr(x->kvm, 0xffff, 0, &supp) ? errno : 0);
	ok &= xcomp_same_errno(x, "attribute of no known number", ENXIO,
			       xkvm_attr(x->kvm, 0, 0xffff, &supp) ? errno : 0);
	ok &= xcomp_same_errno(x, "KVM_HAS_DEVICE_ATTR", 0,
			       xkvm_has_attr(x->kvm, 0,
					     KVM_X86_XCOMP_GUEST_SUPP) ?
			       errno : 0);
	ok &= xcomp_same_errno(x, "KVM_HAS_DEVICE_ATTR of no known number",
			       ENXIO,
			       xkvm_has_attr(x->kvm, 0, 0xffff) ? errno : 0);
	return xcomp_verdict(ok);
}

/* Verify KVM_CAP_XSAVE2, of /dev/kvm and of a VM, against the own sum. */
static inline int xcomp_check_cap_xsave2(struct xcomp *x)
{
	struct kvm_cpuid2 *supported;
	uint32_t size;
	int result;
	bool ok;

	result = xcomp_supported(x, &supported);
	if (result)
		return result;
	if (xkvm_cap(x->kvm, KVM_CAP_XSAVE2) <= 0)
		return xcomp_skip(x, "no KVM_CAP_XSAVE2");
	if (!xcomp_make_vm(x, false))
		return KSFT_FAIL;

	size = xf_standard_size(xcomp_offered_xcr0(x, supported));
	if (size < XKVM_XSAVE_SIZE)
		size = XKVM_XSAVE_SIZE;
	ok = xcomp_same(x, "KVM_CAP_XSAVE2 of /dev/kvm", size,
			xkvm_cap(x->kvm, KVM_CAP_XSAVE2));
	ok &= xcomp_same(x, "KVM_CAP_XSAVE2 of a VM", size,
			 xkvm_cap(x->vm, KVM_CAP_XSAVE2));
	return xcomp_verdict(ok);
}

/*
 * Verify that CPUID.(0xD,0) has XTILE_CFG and XTILE_DATA where the guest may
 * use them and neither where not, and the standard size of just that.
 */
static inline int xcomp_check_cpuid_0xd_0(struct xcomp *x)
{
	struct kvm_cpuid2 *supported;
	uint64_t mask;
	struct xf_regs r;
	int result;
	bool ok;

	result = xcomp_supported(x, &supported);
	if (result)
		return result;

	mask = xcomp_offered_xcr0(x, supported);
	r = xkvm_cpuid(supported, 0xd, 0);
	ok = xcomp_same(x, "CPUID.(0xD,0).EDX:EAX", mask,
			(uint64_t)r.edx << 32 | r.eax);
	ok &= xcomp_same(x, "CPUID.(0xD,0).EBX", xf_standard_size(mask), r.ebx);
	ok &= xcomp_same(x, "CPUID.(0xD,0).ECX", xf_standard_size(mask), r.ecx);
	if (ok && xcomp_offers_half_amx(x, supported)) {
		x->reason = "XTILE_CFG without XTILE_DATA, fixed in Linux 6.4";
		return KSFT_XFAIL;
	}
	return xcomp_verdict(ok);
}

/*
 * Verify that CPUID.(0xD,1) offers the supervisor components of CET and no
 * other, PASID least of all, and the compacted size of them and of what the
 * guest may use.
 */
static inline int xcomp_check_cpuid_0xd_1(struct xcomp *x)
{
	struct kvm_cpuid2 *supported;
	uint32_t size = 0;
	struct xf_regs r;
	uint64_t mask;
	int result;
	bool ok;

	result = xcomp_supported(x, &supported);
	if (result)
		return result;

	mask = xcomp_offered_xcr0(x, supported) | xcomp_offered_xss();
	r = xkvm_cpuid(supported, 0xd, 1);
	if (r.eax & (XCOMP_CPUID_D_1_EAX_XSAVEC | XCOMP_CPUID_D_1_EAX_XSAVES))
		size = xf_compacted_size(mask);
	ok = xcomp_same(x, "CPUID.(0xD,1).EDX:ECX", xcomp_offered_xss(),
			(uint64_t)r.edx << 32 | r.ecx);
	ok &= xcomp_same(x, "CPUID.(0xD,1).EBX", size, r.ebx);
	ok &= xcomp_same(x, "CPUID.(0xD,1).EAX beyond the CPU's", 0,
			 r.eax & ~xf_cpuid(0xd, 1).eax);
	return xcomp_verdict(ok);
}

static inline bool xcomp_same_regs(struct xcomp *x, int subleaf,
				   struct xf_regs *wanted, struct xf_regs *got)
{
	if (!memcmp(wanted, got, sizeof(*wanted)))
		return true;

	ksft_print_msg("%s: CPUID.(0xD,%d): wanted %#x %#x %#x %#x got %#x %#x %#x %#x\n",
		       x->name, subleaf, wanted->eax, wanted->ebx, wanted->ecx,
		       wanted->edx, got->eax, got->ebx, got->ecx, got->edx);
	return false;
}

/*
 * Verify that exactly the offered components have a sub-leaf, and that it says
 * what the CPU says. PASID (10) never has one.
 */
static inline int xcomp_check_cpuid_subleaves(struct xcomp *x)
{
	struct kvm_cpuid2 *supported;
	struct xf_regs wanted, got;
	bool xfd, ok = true;
	uint64_t mask;
	int i, result;

	result = xcomp_supported(x, &supported);
	if (result)
		return result;

	mask = xcomp_offered_xcr0(x, supported) | xcomp_offered_xss();
	xfd = xkvm_cpuid(supported, 0xd, 1).eax & XCOMP_CPUID_D_1_EAX_XFD;
	for (i = 2; i < 64; i++) {
		memset(&wanted, 0, sizeof(wanted));
		if (mask & XF_BIT(i)) {
			wanted = xf_cpuid(0xd, i);
			wanted.ecx &= ~(xfd ? 0 : XF_BIT(2));
		}
		got = xkvm_cpuid(supported, 0xd, i);
		ok &= xcomp_same_regs(x, i, &wanted, &got);
		if (!!(mask & XF_BIT(i)) == !!got.eax &&
		    !!(xcomp_offered_xss() & XF_BIT(i)) == (got.ecx & 1))
			continue;
		ksft_print_msg("%s: CPUID.(0xD,%d) of the wrong kind\n",
			       x->name, i);
		ok = false;
	}
	return xcomp_verdict(ok);
}

/*
 * Verify that a permission changes nothing else in CPUID: AMX instructions,
 * CET, XSAVES and the supervisor components are offered as to a process
 * without permission, and ENQCMD, which goes with PASID, never is.
 */
static inline int xcomp_check_cpuid_constant(struct xcomp *x)
{
	static const uint32_t same[][2] = {
		{ 7, 0 }, { 7, 1 }, { 0x1d, 0 }, { 0x1d, 1 }, { 0x1e, 0 },
		{ 0x1e, 1 }, { 0xd, 10 }, { 0xd, 11 }, { 0xd, 12 },
	};
	struct kvm_cpuid2 *supported;
	struct xf_regs a, b;
	bool ok = true;
	unsigned int i;
	char what[64];
	int result;

	result = xcomp_supported(x, &supported);
	if (result)
		return result;

	for (i = 0; i < ARRAY_SIZE(same); i++) {
		snprintf(what, sizeof(what), "CPUID.(0x%x,%u) differs",
			 same[i][0], same[i][1]);
		a = xkvm_cpuid(xcomp_unpermitted, same[i][0], same[i][1]);
		b = xkvm_cpuid(supported, same[i][0], same[i][1]);
		ok &= xcomp_same(x, what, 0, !!memcmp(&a, &b, sizeof(a)));
	}
	a = xkvm_cpuid(xcomp_unpermitted, 0xd, 1);
	b = xkvm_cpuid(supported, 0xd, 1);
	ok &= xcomp_same(x, "CPUID.(0xD,1).EAX", a.eax, b.eax);
	ok &= xcomp_same(x, "CPUID.(0xD,1).ECX", a.ecx, b.ecx);
	ok &= xcomp_same(x, "ENQCMD in CPUID", 0,
			 xkvm_cpuid(supported, 7, 0).ecx &
			 XCOMP_CPUID_7_ECX_ENQCMD);
	return xcomp_verdict(ok);
}

/* Why VMX may keep KVM from offering guest CET, NULL if it does not */
static inline const char *xcomp_vmx_prerequisites(void)
{
	uint64_t basic, exit, entry;
	bool done;
	int fd;

	fd = open("/dev/cpu/0/msr", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return "cannot tell: no /dev/cpu/0/msr";
	done = pread(fd, &basic, 8, 0x480) == 8 &&
	       pread(fd, &exit, 8, 0x483) == 8 &&
	       pread(fd, &entry, 8, 0x484) == 8;
	close(fd);
	if (!done)
		return "cannot tell: no VMX capability MSRs";

	/*
	 * The upper half of a control MSR says what may be set: "load CET
	 * state" on VM exit and on VM entry. VMX_BASIC[56] says that an
	 * injected #CP needs no error code.
	 */
	if (!(exit & XF_BIT(32 + 28)) || !(entry & XF_BIT(32 + 20)) ||
	    !(basic & XF_BIT(56)))
		return "VMX lacks what guest CET needs";
	return NULL;
}

/* Why guest CET may rightly be missing, NULL if it must be there */
static inline const char *xcomp_cet_prerequisites(struct xcomp *x)
{
	if (xkvm_cap(x->kvm, KVM_CAP_ONE_REG) <= 0)
		return "KVM is older than guest CET";
	if (!(xf_cpuid(7, 0).ecx & XCOMP_CPUID_7_ECX_SHSTK))
		return "no CET on this CPU";
	if ((xf_cpu_supervisor_mask() & XF_CET) != XF_CET)
		return "no CET state in this CPU's XSAVES";
	if (!xf_cpuinfo_flag("user_shstk"))
		return "cannot tell: the kernel does not use shadow stacks";
	if (xkvm_cap(x->kvm, KVM_CAP_SMALLER_MAXPHYADDR))
		return "cannot tell: KVM emulates MAXPHYADDR";
	if (xf_param("kvm_amd", "npt") == 'Y')
		return NULL;
	if (xf_param("kvm_intel", "ept") != 'Y' ||
	    xf_param("kvm_intel", "unrestricted_guest") != 'Y')
		return "cannot tell: no EPT or no unrestricted guest";
	if (xf_param("kvm_intel", "cet") == 'N')
		return "kvm_intel.cet is off";
	return xcomp_vmx_prerequisites();
}

/* Verify that guest CET is offered where nothing stands in its way. */
static inline int xcomp_check_cet_offered(struct xcomp *x)
{
	struct kvm_cpuid2 *supported;
	const char *missing;
	int result;
	bool ok;

	result = xcomp_supported(x, &supported);
	if (result)
		return result;
	missing = xcomp_cet_prerequisites(x);
	if (missing)
		return xcomp_skip(x, missing);

	ok = xcomp_same(x, "shadow stacks in CPUID", XCOMP_CPUID_7_ECX_SHSTK,
			xkvm_cpuid(supported, 7, 0).ecx &
			XCOMP_CPUID_7_ECX_SHSTK);
	if (xf_cpuinfo_flag("ibt") && xf_param("kvm_intel", "ept") == 'Y')
		ok &= xcomp_same(x, "indirect branch tracking in CPUID",
				 XCOMP_CPUID_7_EDX_IBT,
				 xkvm_cpuid(supported, 7, 0).edx &
				 XCOMP_CPUID_7_EDX_IBT);
	ok &= xcomp_same(x, "CET in CPUID.(0xD,1).ECX", XF_CET,
			 xkvm_cpuid(supported, 0xd, 1).ecx);
	return xcomp_verdict(ok);
}

#endif /* SELFTESTS_X86_XCOMP_CHECKS_H */
