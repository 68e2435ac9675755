// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMX permissions, guest CET and the XSAVE state that KVM keeps for a guest.
 *
 * A request for AMX must not cost a guest, or the host, any other state.  The
 * same tests run for every way to come by the permission, with AMX and CET in
 * guest CPUID or not.  What they want is computed from the CPU's own CPUID and
 * from the permission.
 *
 * Nearly all of it needs no guest memory, or a guest so small that plain ioctls
 * set it up: it runs on kernels that are too old for guests of libkvm, and the
 * many combinations take little time.
 */
#include <sys/utsname.h>

#include "fpu_trace.h"
#include "xregs.h"

/* XSAVEC and XSAVES in CPUID.(0xD,1).EAX: with one of them EBX is a size. */
#define COMPACTS	(BIT(X86_FEATURE_XSAVEC.bit) | BIT(X86_FEATURE_XSAVES.bit))

/* CPUID as KVM offers it to a process without permission */
static struct kvm_cpuid2 *unpermitted;

/* The registers of the vCPU under test */
static struct xregs regs;

/* ---- CPUID ---- */

/* As KVM offers it to this process now; libkvm keeps what it read first. */
static struct kvm_cpuid2 *supported_cpuid(void)
{
	struct kvm_cpuid2 *cpuid = allocate_kvm_cpuid2(256);
	int kvm = open_kvm_dev_path_or_exit();

	kvm_ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
	close(kvm);
	return cpuid;
}

/*
 * Kernels before 6.4 offer XTILE_CFG without XTILE_DATA where the permission is
 * missing.
 */
static bool offers_half_amx(const struct kvm_cpuid2 *supported, bool granted)
{
	unsigned int major, minor;
	struct utsname uts;

	uname(&uts);
	return sscanf(uts.release, "%u.%u", &major, &minor) == 2 && major * 100 + minor < 604 &&
	       xf_has_amx() && !granted &&
	       (cpuid_regs(supported, 0xd, 0).eax & XFEATURE_MASK_XTILE) == XFEATURE_MASK_XTILE_CFG;
}

/* User components that KVM must offer, those of kernels before 6.4 included */
static u64 offered_xcr0(const struct kvm_cpuid2 *supported, bool granted)
{
	if (granted)
		return kvm_known_xcr0();
	return (kvm_known_xcr0() & ~XFEATURE_MASK_XTILE) |
	       (offers_half_amx(supported, granted) ? XFEATURE_MASK_XTILE_CFG : 0);
}

/* KVM_CAP_XSAVE2: what does for every vCPU of a process, each of which takes 4 KiB or more */
static u32 promised_size(const struct kvm_cpuid2 *supported, bool granted)
{
	return max_t(u32, xf_standard_size(offered_xcr0(supported, granted)),
		     sizeof(struct kvm_xsave));
}

/* ---- what depends on the permission alone ---- */

FIXTURE(xstate_perm_proc) {
	struct kvm_vm *vm;		/* has a vCPU only where the request comes late */
	struct kvm_cpuid2 *supported;
	bool host, guest;		/* what was granted */
};

XSTATE_SUITE(xstate_perm_proc);

FIXTURE_VARIANT_ADD(xstate_perm_proc, none) { .combo = { .perm = PERM_NONE } };
FIXTURE_VARIANT_ADD(xstate_perm_proc, host) { .combo = { .perm = PERM_HOST } };
FIXTURE_VARIANT_ADD(xstate_perm_proc, guest) { .combo = { .perm = PERM_GUEST } };
FIXTURE_VARIANT_ADD(xstate_perm_proc, both) { .combo = { .perm = PERM_BOTH } };
FIXTURE_VARIANT_ADD(xstate_perm_proc, late) { .combo = { .perm = PERM_LATE } };
FIXTURE_VARIANT_ADD(xstate_perm_proc, inherited) { .combo = { .perm = PERM_INHERITED } };
FIXTURE_VARIANT_ADD(xstate_perm_proc, exec) { .combo = { .perm = PERM_EXEC } };

FIXTURE_SETUP(xstate_perm_proc)
{
	if (!xstate_begin(_metadata, &variant->combo))
		return;
	self->vm = vm_create_barebones();
	if (variant->combo.perm == PERM_LATE) {
		__vm_vcpu_add(self->vm, 0);
		xstate_request_locked(_metadata);
	}
	self->host = xstate_host_granted(&variant->combo);
	self->guest = xstate_guest_granted(&variant->combo);
	self->supported = supported_cpuid();
}

/*
 * Verify that the masks of arch_prctl() are exactly what was granted, that host
 * and guest permission do not mix, and that no supervisor component and no flag
 * of the kernel shows in them.
 */
TEST_F(xstate_perm_proc, masks)
{
	xf_expect_permissions(_metadata, self->host, self->guest, "after the requests");
}

/*
 * Verify what requests answer: those for what can never be asked for, which must
 * not change anything, and the one for XTILE_DATA once more.  After execve() the
 * guest permission is granted anew.
 */
TEST_F(xstate_perm_proc, request)
{
	static const struct {
		unsigned long nr;
		int error;
	} never[] = {
		{ XFEATURE_PASID, EOPNOTSUPP },		{ XFEATURE_CET_USER, EOPNOTSUPP },
		{ XFEATURE_CET_KERNEL, EOPNOTSUPP },	{ XFEATURE_XTILE_CFG, EOPNOTSUPP },
		{ 63, EINVAL },				{ 64, EINVAL },
	};
	bool late = variant->combo.perm == PERM_LATE;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(never); i++) {
		EXPECT_ERRNO(never[i].error, xf_request(ARCH_REQ_XCOMP_PERM, never[i].nr),
			     "host request for component %lu", never[i].nr);
		EXPECT_ERRNO(never[i].error, xf_request(ARCH_REQ_XCOMP_GUEST_PERM, never[i].nr),
			     "guest request for component %lu", never[i].nr);
	}
	xf_expect_permissions(_metadata, self->host, self->guest, "after requests for others");

	if (late)
		xstate_request_locked(_metadata);
	else
		xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	xf_expect_permissions(_metadata, self->host, xf_has_amx() && !late,
			      "after one more request");
}

/* 0 or the errno of an ioctl on attribute @nr in @group of /dev/kvm */
static int attr_errno(unsigned long cmd, u32 group, u64 nr, u64 addr)
{
	struct kvm_device_attr attr = { .group = group, .attr = nr, .addr = addr };
	int kvm = open_kvm_dev_path_or_exit();
	int error = ioctl(kvm, cmd, &attr) ? errno : 0;

	close(kvm);
	return error;
}

/*
 * Verify that KVM_X86_XCOMP_GUEST_SUPP is what the host has switched on and KVM
 * knows, that it does not depend on the permission, that KVM says that it has
 * it, and that there is none in another group or by another number.
 */
TEST_F(xstate_perm_proc, guest_supp)
{
	u64 supp = 0, other, xcr0 = xf_xcr0() & xf_cpu_user_mask();
	u64 known = xcr0 & kvm_known_xcr0() & ~XFEATURE_MASK_MPX;
	int error = kvm_xcomp_guest_supp(&supp);

	EXPECT_ERRNO(0, error, "KVM_X86_XCOMP_GUEST_SUPP");

	EXPECT_XFEATURES(0, supp & ~xcr0, "components that the host has not switched on");
	EXPECT_XFEATURES(known, supp & known, "components that KVM must know");
	EXPECT_XFEATURES(0, supp & XFEATURE_MASK_HIDDEN, "supervisor components");
	EXPECT_ERRNO(EFAULT, attr_errno(KVM_GET_DEVICE_ATTR, 0, KVM_X86_XCOMP_GUEST_SUPP, 8),
		     "attribute to where nothing can be written");
	EXPECT_ERRNO(ENXIO, attr_errno(KVM_GET_DEVICE_ATTR, 0xffff, 0, (u64)&other),
		     "attribute in no known group");
	EXPECT_ERRNO(ENXIO, attr_errno(KVM_GET_DEVICE_ATTR, 0, 0xffff, (u64)&other),
		     "attribute of no known number");
	EXPECT_ERRNO(0, attr_errno(KVM_HAS_DEVICE_ATTR, 0, KVM_X86_XCOMP_GUEST_SUPP, 0),
		     "KVM_HAS_DEVICE_ATTR");
	EXPECT_ERRNO(ENXIO, attr_errno(KVM_HAS_DEVICE_ATTR, 0, 0xffff, 0),
		     "KVM_HAS_DEVICE_ATTR of no known number");
}

/* Verify KVM_CAP_XSAVE2, of /dev/kvm and of a VM, against the own sum. */
TEST_F(xstate_perm_proc, cap_xsave2)
{
	u32 size = promised_size(self->supported, self->guest);

	EXPECT_SAME(size, kvm_check_cap(KVM_CAP_XSAVE2), "KVM_CAP_XSAVE2 of /dev/kvm");
	EXPECT_SAME(size, vm_check_cap(self->vm, KVM_CAP_XSAVE2), "KVM_CAP_XSAVE2 of a VM");
}

/*
 * Verify that CPUID.(0xD,0) has XTILE_CFG and XTILE_DATA where the guest may use
 * them and neither where not, and the standard size of just that.
 */
TEST_F(xstate_perm_proc, cpuid_0xd_0)
{
	u64 mask = offered_xcr0(self->supported, self->guest);
	struct xf_regs r = cpuid_regs(self->supported, 0xd, 0);

	EXPECT_XFEATURES(mask, (u64)r.edx << 32 | r.eax, "CPUID.(0xD,0).EDX:EAX");
	EXPECT_SAME(xf_standard_size(mask), r.ebx, "CPUID.(0xD,0).EBX");
	EXPECT_SAME(xf_standard_size(mask), r.ecx, "CPUID.(0xD,0).ECX");
	EXPECT_SAME(!!(mask & XFEATURE_MASK_APX),
		    cpuid_regs(self->supported, 7, 1).edx >> X86_FEATURE_APX.bit & 1,
		    "APX in CPUID.(7,1).EDX, as in XCR0");
	XFAIL_IF(offers_half_amx(self->supported, self->guest),
		 "XTILE_CFG without XTILE_DATA, fixed in Linux 6.4")
		EXPECT_XFEATURES(self->guest ? XFEATURE_MASK_XTILE : 0, r.eax & XFEATURE_MASK_XTILE,
				 "AMX in CPUID.(0xD,0).EAX");
}

/*
 * Verify that CPUID.(0xD,1) offers the supervisor components of CET and no other,
 * PASID least of all, the compacted size of them and of what the guest may use,
 * and XSAVES if the host uses it itself: each CPU that has it can let guests
 * execute it.  That of a machine that is a guest may be kept from it.
 */
TEST_F(xstate_perm_proc, cpuid_0xd_1)
{
	u64 mask = offered_xcr0(self->supported, self->guest) | kvm_offered_xss();
	struct xf_regs r = cpuid_regs(self->supported, 0xd, 1);

	EXPECT_XFEATURES(kvm_offered_xss(), (u64)r.edx << 32 | r.ecx, "CPUID.(0xD,1).EDX:ECX");
	EXPECT_SAME(r.eax & COMPACTS ? xf_compacted_size(mask) : 0, r.ebx, "CPUID.(0xD,1).EBX");
	EXPECT_SAME(0, r.eax & ~xf_cpuid(0xd, 1).eax, "CPUID.(0xD,1).EAX beyond the CPU's");
	if (xf_cpuinfo_flag("xsaves") && !xf_cpuinfo_flag("hypervisor"))
		EXPECT_THAT(r.eax & BIT(X86_FEATURE_XSAVES.bit),
			    "no XSAVES, which the host uses, in CPUID.(0xD,1).EAX %#x", r.eax);
}

/*
 * Verify that exactly the offered components have a sub-leaf, and that it says
 * what the CPU says.  PASID (10) never has one.
 */
TEST_F(xstate_perm_proc, cpuid_subleaves)
{
	u64 mask = offered_xcr0(self->supported, self->guest) | kvm_offered_xss();
	bool xfd = cpuid_regs(self->supported, 0xd, 1).eax & BIT(X86_FEATURE_XFD.bit);
	struct xf_regs wanted, got;
	int i;

	for (i = 2; i < 64; i++) {
		wanted = (struct xf_regs) { };
		if (mask & BIT_ULL(i)) {
			wanted = xf_cpuid(0xd, i);
			wanted.ecx &= ~(xfd ? 0 : BIT(2));
		}
		got = cpuid_regs(self->supported, 0xd, i);
		expect_leaf(_metadata, 0xd, i, wanted, got);
		EXPECT_SAME(!!(mask & BIT_ULL(i)), !!got.eax, "sub-leaf %d has a size", i);
	}
}

/*
 * Verify that a permission changes nothing else in CPUID: AMX instructions, CET
 * and XSAVES are offered as to a process without permission, and ENQCMD, which
 * goes with PASID, never is.  All that is expected of CET goes by what this
 * process is offered.
 */
TEST_F(xstate_perm_proc, cpuid_constant)
{
	static const u32 same[][2] = {
		{ 7, 0 }, { 7, 1 }, { 0x1d, 0 }, { 0x1d, 1 }, { 0x1e, 0 }, { 0x1e, 1 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(same); i++)
		expect_leaf(_metadata, same[i][0], same[i][1],
			    cpuid_regs(unpermitted, same[i][0], same[i][1]),
			    cpuid_regs(self->supported, same[i][0], same[i][1]));
	EXPECT_SAME(cpuid_regs(unpermitted, 0xd, 1).eax, cpuid_regs(self->supported, 0xd, 1).eax,
		    "CPUID.(0xD,1).EAX");
	EXPECT_SAME(0, cpuid_regs(self->supported, 7, 0).ecx & BIT(29), "ENQCMD in CPUID");
}

/* A capability, which is the same at any time; 0 if the CPU has it not */
static u64 vmx_capability(int fd, u32 msr)
{
	u64 value;

	return pread(fd, &value, sizeof(value), msr) == sizeof(value) ? value : 0;
}

/* Why VMX may keep KVM from offering guest CET, NULL if it does not */
static const char *vmx_prerequisites(struct __test_metadata *const _metadata)
{
	int fd = xf_open_msrs(_metadata, O_RDONLY);
	u64 basic, exit, entry;

	if (fd < 0)
		return "no /dev/cpu/N/msr";
	basic = vmx_capability(fd, MSR_IA32_VMX_BASIC);
	exit = vmx_capability(fd, MSR_IA32_VMX_EXIT_CTLS);
	entry = vmx_capability(fd, MSR_IA32_VMX_ENTRY_CTLS);
	close(fd);
	if (!basic || !exit || !entry)
		return "cannot tell: no VMX capability MSRs";

	/*
	 * The upper half of a control MSR says what may be set: "load CET state"
	 * on VM exit and on VM entry.  VMX_BASIC[56] says that an injected #CP
	 * needs no error code.  Hyper-V's form of a VMCS has no fields for CET.
	 */
	if (!(exit & BIT_ULL(32 + 28)) || !(entry & BIT_ULL(32 + 20)) || !(basic & BIT_ULL(56)) ||
	    xf_param("kvm_intel", "enlightened_vmcs") == 'Y')
		return "VMX lacks what guest CET needs";
	return NULL;
}

/* Why guest CET may rightly be missing, NULL if it must be there */
static const char *cet_prerequisites(struct __test_metadata *const _metadata)
{
	if (kvm_check_cap(KVM_CAP_ONE_REG) <= 0)
		return "KVM is older than guest CET";
	if (!this_cpu_has(X86_FEATURE_SHSTK))
		return "no CET on this CPU";
	if ((xf_cpu_supervisor_mask() & XFEATURE_MASK_CET) != XFEATURE_MASK_CET)
		return "no CET state in this CPU's XSAVES";
	if (!xf_cpuinfo_flag("user_shstk"))
		return "cannot tell: the kernel does not use shadow stacks";
	if (kvm_check_cap(KVM_CAP_SMALLER_MAXPHYADDR))
		return "cannot tell: KVM emulates MAXPHYADDR";
	/* A module that is built in has parameters on the CPUs of the other vendor, too. */
	if (xf_cpuinfo_flag("svm"))
		return xf_param("kvm_amd", "npt") == 'Y' ? NULL :
		       "cannot tell: no EPT or no unrestricted guest";
	if (xf_param("kvm_intel", "ept") != 'Y' ||
	    xf_param("kvm_intel", "unrestricted_guest") != 'Y')
		return "cannot tell: no EPT or no unrestricted guest";
	if (xf_param("kvm_intel", "cet") == 'N')
		return "kvm_intel.cet is off";
	return vmx_prerequisites(_metadata);
}

/* Verify that guest CET is offered where nothing stands in its way. */
TEST_F(xstate_perm_proc, cet_offered)
{
	struct xf_regs r = cpuid_regs(self->supported, 7, 0);
	const char *missing = cet_prerequisites(_metadata);

	if (missing)
		SKIP(return, "%s", missing);
	EXPECT_THAT(r.ecx & BIT(X86_FEATURE_SHSTK.bit), "no shadow stacks in CPUID.7.ECX %#x",
		    r.ecx);
	if (xf_cpuinfo_flag("ibt") && xf_cpuinfo_flag("vmx"))
		EXPECT_THAT(r.edx & BIT(X86_FEATURE_IBT.bit),
			    "no indirect branch tracking in CPUID.7.EDX %#x", r.edx);
	EXPECT_XFEATURES(XFEATURE_MASK_CET, cpuid_regs(self->supported, 0xd, 1).ecx,
			 "CET in CPUID.(0xD,1).ECX");
}

/* ---- what depends on guest CPUID as well ---- */

FIXTURE(xstate_perm) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

XSTATE_SUITE(xstate_perm);

FIXTURE_VARIANT_ADD(xstate_perm, none_noamx_nocet) { { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, none_noamx_shstk) { { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, none_noamx_ibt) { { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, none_noamx_cet) { { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, none_amx_nocet) { { PERM_NONE, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, none_amx_shstk) { { PERM_NONE, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, none_amx_ibt) { { PERM_NONE, AMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, none_amx_cet) { { PERM_NONE, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, host_noamx_nocet) { { PERM_HOST, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, host_noamx_shstk) { { PERM_HOST, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, host_noamx_ibt) { { PERM_HOST, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, host_noamx_cet) { { PERM_HOST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, host_amx_nocet) { { PERM_HOST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, host_amx_shstk) { { PERM_HOST, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, host_amx_ibt) { { PERM_HOST, AMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, host_amx_cet) { { PERM_HOST, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, guest_noamx_nocet) { { PERM_GUEST, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, guest_noamx_shstk) { { PERM_GUEST, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, guest_noamx_ibt) { { PERM_GUEST, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, guest_noamx_cet) { { PERM_GUEST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, guest_amx_nocet) { { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, guest_amx_shstk) { { PERM_GUEST, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, guest_amx_ibt) { { PERM_GUEST, AMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, guest_amx_cet) { { PERM_GUEST, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, both_noamx_nocet) { { PERM_BOTH, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, both_noamx_shstk) { { PERM_BOTH, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, both_noamx_ibt) { { PERM_BOTH, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, both_noamx_cet) { { PERM_BOTH, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, both_amx_nocet) { { PERM_BOTH, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, both_amx_shstk) { { PERM_BOTH, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, both_amx_ibt) { { PERM_BOTH, AMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, both_amx_cet) { { PERM_BOTH, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, late_noamx_nocet) { { PERM_LATE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, late_noamx_shstk) { { PERM_LATE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, late_noamx_ibt) { { PERM_LATE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, late_noamx_cet) { { PERM_LATE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, late_amx_nocet) { { PERM_LATE, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, late_amx_shstk) { { PERM_LATE, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, late_amx_ibt) { { PERM_LATE, AMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, late_amx_cet) { { PERM_LATE, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, inherited_noamx_nocet) { { PERM_INHERITED, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, inherited_noamx_shstk) { { PERM_INHERITED, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, inherited_noamx_ibt) { { PERM_INHERITED, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, inherited_noamx_cet) { { PERM_INHERITED, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, inherited_amx_nocet) { { PERM_INHERITED, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, inherited_amx_shstk) { { PERM_INHERITED, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, inherited_amx_ibt) { { PERM_INHERITED, AMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, inherited_amx_cet) { { PERM_INHERITED, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, exec_noamx_nocet) { { PERM_EXEC, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, exec_noamx_shstk) { { PERM_EXEC, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, exec_noamx_ibt) { { PERM_EXEC, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, exec_noamx_cet) { { PERM_EXEC, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_perm, exec_amx_nocet) { { PERM_EXEC, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_perm, exec_amx_shstk) { { PERM_EXEC, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_perm, exec_amx_ibt) { { PERM_EXEC, AMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_perm, exec_amx_cet) { { PERM_EXEC, AMX, CET } };

static void expect_amx_refused(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			       const struct xstate_combo *combo)
{
	struct kvm_cpuid2 *cpuid = xstate_cpuid_with(combo, true);

	EXPECT_ERRNO(EPERM, vcpu_errno(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2 with AMX");
	free(cpuid);
}

/*
 * Who asks late has a vCPU by then, the one under test.  CPUID comes before all
 * state: one with AMX gives the vCPU a new fpstate and drops what the old held.
 */
FIXTURE_SETUP(xstate_perm)
{
	const struct xstate_combo *combo = &variant->combo;
	struct kvm_cpuid2 *cpuid;

	if (!xstate_begin(_metadata, combo))
		return;
	self->vm = vm_create_barebones();
	self->vcpu = __vm_vcpu_add(self->vm, 0);
	if (combo->perm == PERM_LATE)
		xstate_request_locked(_metadata);

	cpuid = xstate_cpuid(combo);
	vcpu_init_cpuid(self->vcpu, cpuid);
	free(cpuid);
	if (combo->amx && !xstate_guest_granted(combo))
		expect_amx_refused(_metadata, self->vcpu, combo);
}

/* Give the vCPU a value in each of its registers.  Return the components of those. */
static u64 set_regs(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	u64 mask = xregs_guest_mask(vcpu);

	xregs_fill(&regs, vcpu, 0);
	vcpu_set_xregs(_metadata, vcpu, &regs, mask);
	return mask;
}

/*
 * Verify that KVM_SET_CPUID2 with AMX needs the permission and changes nothing
 * without it: not CPUID, not sizes, no MSR, no byte of XSAVE state.  Where there
 * is nothing to refuse the same CPUID once more must change nothing.
 */
TEST_F(xstate_perm, set_cpuid)
{
	u32 size = vcpu_xsave_size(self->vcpu);
	struct kvm_cpuid2 *before, *cpuid;
	u8 *area;
	u64 mask;

	EXPECT_SAME(vcpu_has_amx(self->vcpu) ? XFEATURE_MASK_XTILE : 0,
		    cpuid_regs(vcpu_current_cpuid(self->vcpu), 0xd, 0).eax & XFEATURE_MASK_XTILE,
		    "XTILE in the vCPU's CPUID");
	EXPECT_SAME(variant->combo.amx && xstate_guest_granted(&variant->combo),
		    vcpu_has_amx(self->vcpu), "AMX in the vCPU's CPUID");

	mask = set_regs(_metadata, self->vcpu);
	before = vcpu_current_cpuid(self->vcpu);
	area = vcpu_area(self->vcpu);

	if (variant->combo.amx && !vcpu_has_amx(self->vcpu)) {
		expect_amx_refused(_metadata, self->vcpu, &variant->combo);
	} else {
		cpuid = xstate_cpuid(&variant->combo);
		EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_CPUID2, cpuid),
			     "the same KVM_SET_CPUID2");
	}
	expect_same_cpuid(_metadata, self->vcpu, before, "after KVM_SET_CPUID2");
	expect_same_area(_metadata, area, vcpu_area(self->vcpu), size, "KVM_SET_CPUID2");
	expect_xregs(_metadata, self->vcpu, &regs, mask, "KVM_SET_CPUID2");
	xf_expect_permissions(_metadata, xstate_host_granted(&variant->combo),
			      xstate_guest_granted(&variant->combo), "after KVM_SET_CPUID2");
}

/*
 * What user space never sees does not come in by an image, nor does the rest of
 * that.  What the host has is taken even if guest CPUID has it not, such as an
 * XTILE_CFG of all zeros, but KVM_GET_XSAVE2 must not show it.
 */
static void expect_hidden(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			  const u8 *old, u32 size)
{
	u8 *image = xf_guarded(size, 0);
	int i;

	for (i = 0; i < 64; i++) {
		if (!(XFEATURE_MASK_HIDDEN & BIT_ULL(i)))
			continue;
		xarea_set_header(image, 0, xarea_header(old, 0) | BIT_ULL(i));
		EXPECT_ERRNO(EINVAL, vcpu_errno(vcpu, KVM_SET_XSAVE, image),
			     "KVM_SET_XSAVE with bit %d in XSTATE_BV", i);
	}
	expect_same_area(_metadata, old, vcpu_area(vcpu), size, "refused KVM_SET_XSAVE");

	if (!xf_has_amx() || vcpu_has_amx(vcpu))
		return;
	xarea_set_header(image, 0, XFEATURE_MASK_FPSSE | XFEATURE_MASK_XTILE_CFG);
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_XSAVE, image), "KVM_SET_XSAVE with XTILE_CFG");
	EXPECT_XFEATURES(0, xarea_header(vcpu_area(vcpu), 0) & XFEATURE_MASK_XTILE,
			 "AMX in XSTATE_BV after KVM_SET_XSAVE with XTILE_CFG");
}

/*
 * Verify that KVM_GET_XSAVE2 writes exactly the bytes that this vCPU's CPUID calls
 * for, that KVM_GET_XSAVE works up to 4 KiB and not beyond, that the capability
 * is still the permission's, and that the XSAVE header shows user components of
 * the guest only.
 */
TEST_F(xstate_perm, xsave2)
{
	u64 mask, bv, xcr0 = vcpu_xcr0_mask(self->vcpu);
	bool granted = xstate_guest_granted(&variant->combo);
	u32 size = vcpu_xsave_size(self->vcpu);
	u8 *area = xf_guarded(size, XAREA_POISON);
	u8 *shorter = xf_guarded(size - 1, 0);

	/* KVM keeps PKRU elsewhere. */
	mask = set_regs(_metadata, self->vcpu) & ~XFEATURE_MASK_PKRU;
	EXPECT_SAME(promised_size(kvm_get_supported_cpuid(), granted),
		    vm_check_cap(self->vm, KVM_CAP_XSAVE2), "KVM_CAP_XSAVE2 of a VM with a vCPU");
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_GET_XSAVE2, area), "KVM_GET_XSAVE2 to %u bytes",
		     size);
	EXPECT_ERRNO(EFAULT, vcpu_errno(self->vcpu, KVM_GET_XSAVE2, shorter),
		     "KVM_GET_XSAVE2 to one byte less than %u", size);
	EXPECT_ERRNO(EFAULT, vcpu_errno(self->vcpu, KVM_SET_XSAVE, shorter),
		     "KVM_SET_XSAVE of one byte less than %u", size);
	EXPECT_ERRNO(size > sizeof(struct kvm_xsave) ? EINVAL : 0,
		     vcpu_errno(self->vcpu, KVM_GET_XSAVE, xf_guarded(size, 0)), "KVM_GET_XSAVE");

	bv = xarea_header(area, 0);
	EXPECT_XFEATURES(0, bv & ~(xcr0 | XFEATURE_MASK_FPSSE),
			 "XSTATE_BV beyond the guest's components");
	EXPECT_XFEATURES(mask, bv & mask, "XSTATE_BV, what was set");
	EXPECT_SAME(0, xarea_header(area, 1), "XCOMP_BV in the standard format");
	expect_area(_metadata, area, &regs, mask, 0, "KVM_GET_XSAVE2");
	expect_hidden(_metadata, self->vcpu, area, size);
}

/* The sizes in the vCPU's CPUID are those of XCR0, which is @xcr0, and of any IA32_XSS. */
static void expect_sizes(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu, u64 xcr0)
{
	static const u64 xss[] = {
		0, XFEATURE_MASK_CET_USER, XFEATURE_MASK_CET_KERNEL, XFEATURE_MASK_CET,
	};
	u64 guest_xss = vcpu_xss_mask(vcpu);
	struct kvm_cpuid2 *cpuid;
	struct xf_regs r;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(xss); i++) {
		if (xss[i] & ~guest_xss)
			continue;
		th_case("XCR0 %#lx, IA32_XSS %#lx", xcr0, xss[i]);
		EXPECT_THAT(!guest_xss || vcpu_takes_msr(vcpu, MSR_IA32_XSS, xss[i]),
			    "IA32_XSS not taken");
		cpuid = vcpu_current_cpuid(vcpu);
		r = cpuid_regs(cpuid, 0xd, 1);
		EXPECT_SAME(xf_standard_size(xcr0), cpuid_regs(cpuid, 0xd, 0).ebx,
			    "CPUID.(0xD,0).EBX of the vCPU");
		if (r.eax & COMPACTS)
			EXPECT_SAME(xf_compacted_size(xcr0 | xss[i]), r.ebx,
				    "CPUID.(0xD,1).EBX of the vCPU");
		free(cpuid);
	}
	th_no_case();
}

/*
 * Verify that the sizes in the vCPU's own CPUID leaf 0xD follow its XCR0 and
 * IA32_XSS, and that AMX is refused in XCR0 where it is not in CPUID.
 */
TEST_F(xstate_perm, runtime_size)
{
	static const u64 groups[] = {
		XFEATURE_MASK_FP, XFEATURE_MASK_SSE, XFEATURE_MASK_YMM, XFEATURE_MASK_MPX,
		XFEATURE_MASK_AVX512, XFEATURE_MASK_PKRU, XFEATURE_MASK_XTILE,
	};
	u64 guest = vcpu_xcr0_mask(self->vcpu), xcr0 = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(groups); i++) {
		if ((guest & groups[i]) != groups[i])
			continue;
		xcr0 |= groups[i];
		EXPECT_THAT(vcpu_takes_xcr0(self->vcpu, xcr0), "XCR0 %#lx not taken", xcr0);
		expect_sizes(_metadata, self->vcpu, xcr0);
	}

	EXPECT_SAME(vcpu_has_amx(self->vcpu),
		    vcpu_takes_xcr0(self->vcpu, xcr0 | XFEATURE_MASK_XTILE),
		    "XCR0 with XTILE is taken");
}

/*
 * Verify that the vCPU takes exactly those bits of IA32_XSS that its CPUID and
 * KVM have: CET_USER and CET_KERNEL or none, never PASID.
 */
TEST_F(xstate_perm, xss)
{
	u64 wanted = vcpu_xss_mask(self->vcpu), taken = 0;
	int i;

	for (i = 0; i < 64; i++) {
		if (!vcpu_takes_msr(self->vcpu, MSR_IA32_XSS, BIT_ULL(i)))
			continue;
		taken |= BIT_ULL(i);
		EXPECT_SAME(BIT_ULL(i), vcpu_get_msr(self->vcpu, MSR_IA32_XSS),
			    "IA32_XSS with bit %d", i);
	}
	if (!wanted && !xstate_need_refusals(_metadata))
		return;
	EXPECT_XFEATURES(wanted, taken, "bits that IA32_XSS takes");
	if (!wanted)
		return;
	EXPECT_THAT(vcpu_takes_msr(self->vcpu, MSR_IA32_XSS, wanted),
		    "IA32_XSS: not all of them are taken together");
	EXPECT_THAT(!vcpu_takes_msr(self->vcpu, MSR_IA32_XSS, wanted | XFEATURE_MASK_PASID),
		    "IA32_XSS: PASID on top of them was taken");
	EXPECT_XFEATURES(wanted, vcpu_get_msr(self->vcpu, MSR_IA32_XSS), "IA32_XSS in the end");
}

/*
 * Verify that the CET MSRs that guest CPUID has outlive KVM_SET_MSRS,
 * KVM_SET_XSAVE and KVM_RUN, each read back by an ioctl of its own, and that those
 * that it has not cannot be written, nor hold anything.  IA32_S_CET, IA32_XSS and
 * SSP are kept elsewhere and must be there as well.
 */
TEST_F(xstate_perm, cet_msrs)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	u64 value, mask = set_regs(_metadata, vcpu);
	int i;

	expect_xregs(_metadata, vcpu, &regs, mask, "KVM_SET_MSRS");
	vcpu_set_xregs_area(_metadata, vcpu, &regs, mask);
	expect_xregs(_metadata, vcpu, &regs, mask, "KVM_SET_XSAVE");
	xstate_run_immediate_exit(vcpu);
	expect_xregs(_metadata, vcpu, &regs, mask, "KVM_RUN");

	for (i = 0; i < NR_CET_MSRS; i++) {
		if (vcpu_has_cet_msr(vcpu, cet_msrs[i]))
			continue;
		/* With ignore_msrs KVM drops writes to unknown MSRs silently. */
		EXPECT_THAT(!kvm_refuses_msrs() || !vcpu_takes_msr(vcpu, cet_msrs[i], 8),
			    "%s is absent, but takes a value", msr_name(cet_msrs[i]));
		if (vcpu_reads_msr(vcpu, cet_msrs[i], &value))
			EXPECT_SAME(0, value, "%s, which is absent", msr_name(cet_msrs[i]));
	}
}

/* ---- a guest of 64 KiB in long mode that executes one instruction per KVM_RUN ---- */

/* The same addresses physical and virtual */
#define GUEST_BASE	0x100000
#define GUEST_SIZE	0x10000

/* From there on */
#define GUEST_PML4	0x1000
#define GUEST_PDPT	0x2000
#define GUEST_PD	0x3000
#define GUEST_GDT	0x4000
#define GUEST_IDT	0x4100
#define GUEST_RDMSR	0x5000
#define GUEST_WRMSR	0x5010
#define GUEST_XSAVES	0x5020
#define GUEST_FAULT	0x5030
#define GUEST_STACK	0x7000
#define GUEST_AREA	0x8000

#define GUEST_CS	8

/* Page tables with one large page, descriptors, and the instructions */
static void fill_guest(u8 *memory)
{
	static const u8 rdmsr[] = { 0x0f, 0x32, 0xf4 /* hlt */ };
	static const u8 wrmsr[] = { 0x0f, 0x30, 0xf4 };
	static const u8 xsaves[] = { 0x48, 0x0f, 0xc7, 0x2f, 0xf4 };	/* xsaves64 (%rdi) */
	/* 64-bit interrupt gate, present, to an address below 4 GiB */
	static const u64 gate = ((GUEST_BASE + GUEST_FAULT) & 0xffff) | GUEST_CS << 16 |
				0x8e00ull << 32 | (u64)((GUEST_BASE + GUEST_FAULT) >> 16) << 48;

	*(u64 *)(memory + GUEST_PML4) = (GUEST_BASE + GUEST_PDPT) | 3;
	*(u64 *)(memory + GUEST_PDPT) = (GUEST_BASE + GUEST_PD) | 3;
	*(u64 *)(memory + GUEST_PD) = 0x83;
	*(u64 *)(memory + GUEST_GDT + GUEST_CS) = 0x00af9b000000ffff;
	*(u64 *)(memory + GUEST_IDT + 16 * GP_VECTOR) = gate;
	memcpy(memory + GUEST_RDMSR, rdmsr, sizeof(rdmsr));
	memcpy(memory + GUEST_WRMSR, wrmsr, sizeof(wrmsr));
	memcpy(memory + GUEST_XSAVES, xsaves, sizeof(xsaves));
	memory[GUEST_FAULT] = 0xf4;
	xarea_fill(memory + GUEST_AREA, XAREA_POISON, XAREA_SIZE);
	xarea_set_header(memory + GUEST_AREA, 0, 0);
}

/*
 * Give the vCPU its memory and put it into long mode, where the data segments of
 * a reset will do.  Return the memory.
 */
static u8 *start_guest(struct kvm_vcpu *vcpu)
{
	u8 *memory = xf_guarded(GUEST_SIZE, 0);
	struct kvm_sregs sregs;

	fill_guest(memory);
	vm_set_user_memory_region(vcpu->vm, 1, 0, GUEST_BASE, GUEST_SIZE, memory);

	vcpu_sregs_get(vcpu, &sregs);
	sregs.cr0 |= X86_CR0_PE | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
	sregs.cr0 &= ~(X86_CR0_CD | X86_CR0_NW | X86_CR0_TS | X86_CR0_EM);
	sregs.cr3 = GUEST_BASE + GUEST_PML4;
	sregs.cr4 |= X86_CR4_PAE | X86_CR4_OSXSAVE;
	sregs.efer |= EFER_LME | EFER_LMA;
	sregs.gdt.base = GUEST_BASE + GUEST_GDT;
	sregs.gdt.limit = GUEST_CS + 7;
	sregs.idt.base = GUEST_BASE + GUEST_IDT;
	sregs.idt.limit = 16 * GP_VECTOR + 15;
	sregs.cs.selector = GUEST_CS;
	sregs.cs.base = 0;
	sregs.cs.l = 1;
	vcpu_sregs_set(vcpu, &sregs);
	return memory;
}

/* Execute one instruction.  Return the vector of the exception that it raised, or 0. */
static u8 guest_step(struct kvm_vcpu *vcpu, u32 code, u32 msr, u64 *value)
{
	struct kvm_regs r = {
		.rip = GUEST_BASE + code, .rsp = GUEST_BASE + GUEST_STACK, .rflags = 2,
		.rcx = msr, .rax = (u32)*value, .rdx = *value >> 32,
		.rdi = GUEST_BASE + GUEST_AREA,
	};

	vcpu_regs_set(vcpu, &r);
	vcpu_run(vcpu);
	vcpu_regs_get(vcpu, &r);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_HLT);
	if (r.rip == GUEST_BASE + GUEST_FAULT + 1)
		return GP_VECTOR;
	TEST_ASSERT(r.rip > GUEST_BASE + code && r.rip < GUEST_BASE + code + 8,
		    "the guest began at %#x and halted at %#llx", GUEST_BASE + code, r.rip);
	*value = r.rdx << 32 | (u32)r.rax;
	return 0;
}

static void expect_guest_rdmsr(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			       u32 msr, bool present, u64 wanted, const char *when)
{
	u64 value = 0;
	u8 vector = guest_step(vcpu, GUEST_RDMSR, msr, &value);

	EXPECT_THAT(vector == (present ? 0 : GP_VECTOR), "RDMSR of %s after %s: %s",
		    msr_name(msr), when, vector_name(vector));
	if (present && !vector)
		EXPECT_SAME(wanted, value, "RDMSR of %s after %s", msr_name(msr), when);
}

static void expect_guest_wrmsr(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			       u32 msr, bool taken, u64 value)
{
	u64 written = value;
	u8 vector = guest_step(vcpu, GUEST_WRMSR, msr, &value);

	EXPECT_THAT(vector == (taken ? 0 : GP_VECTOR), "WRMSR of %#lx to %s: %s", written,
		    msr_name(msr), vector_name(vector));
}

/*
 * The guest finds what the host wrote, or gets #GP, and writes new values.  After
 * more runs it and the host still find those.
 */
static void expect_guest_cet(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	bool present;
	u64 value;
	int i;

	xregs_fill(&regs, vcpu, 0);
	vcpu_set_cet(_metadata, vcpu, &regs);
	for (i = 0; i < NR_CET_MSRS; i++) {
		present = vcpu_has_cet_msr(vcpu, cet_msrs[i]);
		value = present ? cet_msr_value(vcpu, cet_msrs[i], 1) : 8;
		expect_guest_rdmsr(_metadata, vcpu, cet_msrs[i], present, regs.cet[i],
				   "KVM_SET_MSRS");
		expect_guest_wrmsr(_metadata, vcpu, cet_msrs[i], present, value);
	}
	xregs_fill(&regs, vcpu, 1);
	for (i = 0; i < NR_CET_MSRS; i++)
		if (vcpu_has_cet_msr(vcpu, cet_msrs[i]))
			expect_guest_rdmsr(_metadata, vcpu, cet_msrs[i], true, regs.cet[i],
					   "KVM_RUN");
	expect_cet(_metadata, vcpu, &regs, "KVM_RUN of a guest that wrote it");
}

/* The guest may set CET in IA32_XSS if its CPUID says so, and PASID never. */
static void expect_guest_xss(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	u64 wanted = vcpu_xss_mask(vcpu);
	int i;

	for (i = 0; i < 64; i++)
		expect_guest_wrmsr(_metadata, vcpu, MSR_IA32_XSS, wanted & BIT_ULL(i), BIT_ULL(i));
	expect_guest_wrmsr(_metadata, vcpu, MSR_IA32_XSS, true, wanted);
	expect_guest_rdmsr(_metadata, vcpu, MSR_IA32_XSS, true, wanted, "WRMSR");
}

/*
 * XSAVES in the guest writes each component that the host gave the vCPU to where
 * CPUID says, and not one byte more.
 */
static void expect_guest_saves(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			       const struct xregs *r, u64 mask, u8 *area)
{
	u64 format = vcpu_xcr0_mask(vcpu) | vcpu_xss_mask(vcpu) | XCOMP_BV_COMPACTED;
	u64 all = ~0ull;

	/* Of a component without any register nothing can be in use. */
	if (vcpu_has_cet_msr(vcpu, MSR_IA32_U_CET))
		mask |= XFEATURE_MASK_CET_USER;
	if (vcpu_has_cet_msr(vcpu, MSR_IA32_PL0_SSP))
		mask |= XFEATURE_MASK_CET_KERNEL;
	guest_step(vcpu, GUEST_XSAVES, ~0u, &all);
	EXPECT_XFEATURES(mask, xarea_header(area, 0), "XSTATE_BV of XSAVES in the guest");
	EXPECT_XFEATURES(format, xarea_header(area, 1), "XCOMP_BV of XSAVES in the guest");
	expect_area(_metadata, area, r, mask, format, "XSAVES in the guest");
	expect_poison(_metadata, area, mask, format, "XSAVES in the guest");
}

/*
 * Verify, by a guest that runs, that it finds in the CET MSRs what the host wrote,
 * that what it writes outlives an exit and reaches the host, that MSRs not in its
 * CPUID raise #GP, and that IA32_XSS takes CET but never PASID.  Then, that it has
 * all state that the host gave its vCPU, tiles and CET included, that the host
 * finds all of it, and that another vCPU takes it.
 */
TEST_F(xstate_perm, guest)
{
	struct kvm_vcpu *vcpu = self->vcpu, *other;
	u8 *memory;
	u64 mask;

	if (!xstate_need_refusals(_metadata))
		return;
	memory = start_guest(vcpu);
	expect_guest_cet(_metadata, vcpu);
	if (!vcpu_cpuid_has(vcpu, X86_FEATURE_XSAVES)) {
		if (!_metadata->exit_code)
			SKIP(return, "XSAVES is not in guest CPUID");
		return;
	}
	expect_guest_xss(_metadata, vcpu);

	mask = set_regs(_metadata, vcpu);
	expect_guest_saves(_metadata, vcpu, &regs, mask, memory + GUEST_AREA);
	expect_xregs(_metadata, vcpu, &regs, mask, "XSAVES in the guest");

	other = xstate_add_vcpu(self->vm, 1, &variant->combo);
	EXPECT_ERRNO(0, vcpu_errno(other, KVM_SET_XSAVE, vcpu_area(vcpu)),
		     "KVM_SET_XSAVE of another vCPU");
	EXPECT_THAT(vcpu_takes_xcr0(other, vcpu_xcr0_mask(other)), "XCR0 not taken");
	vcpu_set_cet(_metadata, other, &regs);
	expect_xregs(_metadata, other, &regs, mask, "a restore into another vCPU");
}

/*
 * Verify, on the tracepoint, which components the fpstates of guest and host
 * carry: PASID and CET_USER in both, CET_KERNEL in the guest's only, XTILE_DATA
 * after it was permitted and asked for, by guest CPUID or by use.  Another vCPU
 * that has no AMX comes first, for comparison.
 */
TEST_F(xstate_perm, xcomp_bv)
{
	struct xstate_combo noamx = { variant->combo.perm, NOAMX, variant->combo.cet };
	bool host = xstate_host_granted(&variant->combo);
	struct fpstate_run run[2];
	struct fpu_trace trace;
	struct kvm_vcpu *other;

	if (!fpu_trace_need(_metadata))
		return;
	other = xstate_add_vcpu(self->vm, 1, &noamx);
	set_regs(_metadata, self->vcpu);
	if (host)
		xf_use_amx(_metadata);

	fpu_trace_begin(_metadata, &trace, 0);
	xstate_run_immediate_exit(other);
	xstate_run_immediate_exit(self->vcpu);
	if (!fpu_trace_runs(_metadata, &trace, run, 2))
		return;
	expect_fpstate(_metadata, true, false, &run[0].guest, "a guest without AMX");
	expect_fpstate(_metadata, true, vcpu_has_amx(self->vcpu), &run[1].guest, "the guest");
	expect_fpstate(_metadata, false, host, &run[1].host, "the host");
	EXPECT_XFEATURES(run[0].guest.xcomp_bv & XFEATURE_MASK_CET,
			 run[1].guest.xcomp_bv & XFEATURE_MASK_CET,
			 "CET in the guest, set against one without AMX");
	EXPECT_XFEATURES(run[1].host.xcomp_bv & XFEATURE_MASK_CET_USER,
			 run[1].guest.xcomp_bv & XFEATURE_MASK_CET_USER,
			 "CET_USER in the guest, set against the host");
	if (vcpu_has_shstk(self->vcpu))
		EXPECT_XFEATURES(XFEATURE_MASK_CET, run[1].guest.xstate_bv & XFEATURE_MASK_CET,
				 "XSTATE_BV of the guest, with both CET components in use");
}

int main(int argc, char **argv)
{
	xstate_require(false);
	unpermitted = supported_cpuid();
	exit(test_harness_run(argc, argv));
}
