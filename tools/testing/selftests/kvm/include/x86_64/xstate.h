/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tests of vCPUs with each combination of AMX permission, AMX and CET in guest
 * CPUID: how a test begins and ends, what CPUID a vCPU gets, and what follows
 * from it for XCR0, IA32_XSS, sizes and MSRs.
 *
 * A permission cannot be given back, and the first vCPU freezes that of the
 * guest.  The harness runs each test in a process of its own, so that its
 * parent must neither ask for a permission nor make a vCPU, nor have libkvm
 * read what KVM supports, which libkvm reads once and keeps.
 */
#ifndef SELFTEST_KVM_XSTATE_H
#define SELFTEST_KVM_XSTATE_H

#include "kvm_compat.h"
#include "../../../x86/xfeature.h"

/* How a process comes by the permission for XTILE_DATA */
enum xstate_perm {
	PERM_NONE,		/* nothing was asked for */
	PERM_HOST,		/* ARCH_REQ_XCOMP_PERM */
	PERM_GUEST,		/* ARCH_REQ_XCOMP_GUEST_PERM */
	PERM_BOTH,		/* both of them */
	PERM_LATE,		/* guest, asked for after the first vCPU */
	PERM_INHERITED,		/* guest, granted before fork() */
	PERM_EXEC,		/* both, granted and then lost by execve() */
};

/* What guest CPUID is to have */
enum { NOAMX, AMX };
enum { NOCET = 0, SHSTK = 1, IBT = 2, CET = SHSTK | IBT };

struct xstate_combo {
	enum xstate_perm perm;
	bool amx;
	u8 cet;			/* SHSTK and IBT as bits */
};

/*
 * A suite of tests runs once for each of its combinations:
 *
 *	FIXTURE(foo) {
 *		struct kvm_vm *vm;
 *		struct kvm_vcpu *vcpu;
 *	};
 *
 *	FIXTURE_VARIANT(foo) {
 *		struct xstate_combo combo;	// comes first
 *	};
 *
 *	FIXTURE_VARIANT_ADD(foo, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };
 *
 *	FIXTURE_SETUP(foo)
 *	{
 *		if (xstate_begin(_metadata, &variant->combo))
 *			self->vcpu = xstate_new_guest(&self->vm, &variant->combo, code);
 *	}
 *
 *	FIXTURE_TEARDOWN(foo)
 *	{
 *		xstate_end(_metadata, self->vm);
 *	}
 */

/*
 * Begin a test: ask for the permissions of the combination, and come by them as
 * it says.  False if it cannot be done here; the test is a SKIP or a failure by
 * then.  Who is to ask late does so itself, by xstate_request_locked().
 */
bool xstate_begin(struct __test_metadata *const _metadata, const struct xstate_combo *combo);
/* The part of that for a test that asks for its permissions itself */
void xstate_begin_unpermitted(struct __test_metadata *const _metadata, const void *variant);
/* Ask for XTILE_DATA by @option of arch_prctl(2), and verify the answer. */
void xstate_request(struct __test_metadata *const _metadata, int option);
/* The same for the guest when there is a vCPU, which must be refused */
void xstate_request_locked(struct __test_metadata *const _metadata);
/* What a combination has been granted by xstate_begin() */
bool xstate_host_granted(const struct xstate_combo *combo);
bool xstate_guest_granted(const struct xstate_combo *combo);
/* The masks of arch_prctl(2) are what the CPU and these permissions make of them. */
void expect_permissions(struct __test_metadata *const _metadata, bool host, bool guest,
			const char *when);
/*
 * Have a child go on with the test, or the same program executed anew, which
 * begins it once more: then xstate_is_after_exec().  The calling process passes
 * the result on and ends.
 */
void xstate_go_on_in_child(struct __test_metadata *const _metadata);
void xstate_go_on_after_exec(struct __test_metadata *const _metadata);
bool xstate_is_after_exec(void);
/* End a test: free @vm, unless it is NULL, and fail if the kernel has warned. */
void xstate_end(struct __test_metadata *const _metadata, struct kvm_vm *vm);

/* SKIP if the combination has CET that KVM does not offer, or IBT of that. */
bool xstate_need_cet(struct __test_metadata *const _metadata, const struct xstate_combo *combo);
/* SKIP if kvm.ignore_msrs hides what KVM refuses. */
bool xstate_need_refusals(struct __test_metadata *const _metadata);
/* SKIP if libkvm cannot run guest code on this kernel, see XSTATE_IOCTL_HARNESS_MAIN. */
bool xstate_need_guests(struct __test_metadata *const _metadata);

/*
 * main() of programs whose tests all run guest code, and of others.  Both print
 * what the machine is, and exit with 4 where nothing can run.
 */
#define XSTATE_HARNESS_MAIN								\
	int main(int argc, char **argv)							\
	{										\
		xstate_require(true);							\
		exit(test_harness_run(argc, argv));					\
	}
#define XSTATE_IOCTL_HARNESS_MAIN							\
	int main(int argc, char **argv)							\
	{										\
		xstate_require(false);							\
		exit(test_harness_run(argc, argv));					\
	}
void xstate_require(bool guest_code);

/* ---- what the host has, and what a vCPU has by its CPUID ---- */

/* The kernel lets user space use AMX. */
static inline bool host_has_amx(void)
{
	return xf_xcr0() & XFEATURE_MASK_XTILE_DATA;
}

/* KVM refuses MSRs that it does not know, or that the guest has not. */
bool kvm_refuses_msrs(void);
/* How many CPUs this process may use; put a thread on number @nr of them, modulo */
int host_nr_cpus(void);
void host_put_on_cpu(pid_t tid, int nr);
/* KVM_X86_XCOMP_GUEST_SUPP; 0 or an errno */
int kvm_xcomp_guest_supp(u64 *mask);

bool vcpu_has_amx(struct kvm_vcpu *vcpu);
bool vcpu_has_shstk(struct kvm_vcpu *vcpu);
bool vcpu_has_ibt(struct kvm_vcpu *vcpu);
/* Whether guest CPUID has @msr, one of cet_msrs[] */
bool vcpu_has_cet_msr(struct kvm_vcpu *vcpu, u32 msr);

/* What XCR0 and IA32_XSS may hold: from the host's XCR0 and guest CPUID */
u64 vcpu_xcr0_mask(struct kvm_vcpu *vcpu);
u64 vcpu_xss_mask(struct kvm_vcpu *vcpu);
/* Bytes that KVM_GET_XSAVE2 and KVM_SET_XSAVE must move */
u32 vcpu_xsave_size(struct kvm_vcpu *vcpu);

/* The architecture allows @xcr0, given that the CPU has all of it. */
bool xcr0_is_legal(u64 xcr0);

/* User components that KVM must know if the host has switched them on */
u64 kvm_known_xcr0(void);
/* IA32_XSS bits that KVM must offer: those of CET, or none */
u64 kvm_offered_xss(void);

/* ---- vCPUs ---- */

/* AMX in CPUID.(7,0).EDX */
#define CPUID_7_EDX_AMX		(BIT(X86_FEATURE_AMX_TILE.bit) | BIT(X86_FEATURE_AMX_BF16.bit) | \
				 BIT(X86_FEATURE_AMX_INT8.bit))

/*
 * The CPUID of a combination, a copy of what KVM supports.  CET that KVM does
 * not offer is set all the same: it must have no effect.  AMX is left out where
 * the permission for it is missing, see xstate_cpuid_with().
 */
struct kvm_cpuid2 *xstate_cpuid(const struct xstate_combo *combo);
struct kvm_cpuid2 *xstate_cpuid_with(const struct xstate_combo *combo, bool amx);
struct kvm_cpuid_entry2 *cpuid_entry(struct kvm_cpuid2 *cpuid, u32 function, u32 index);
/* Registers of an entry, all 0 if it is absent, as a guest reads it */
struct xf_regs cpuid_regs(const struct kvm_cpuid2 *cpuid, u32 function, u32 index);
void cpuid_drop(struct kvm_cpuid2 *cpuid, u32 function, u32 index);
struct kvm_cpuid2 *cpuid_copy(const struct kvm_cpuid2 *from);
/* As the vCPU has it now */
struct kvm_cpuid2 *vcpu_current_cpuid(struct kvm_vcpu *vcpu);
/* A leaf of CPUID is the same, and all of a vCPU's, which had @wanted before. */
void expect_leaf(struct __test_metadata *const _metadata, u32 function, u32 index,
		 struct xf_regs wanted, struct xf_regs got);
void expect_same_cpuid(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		       const struct kvm_cpuid2 *wanted, const char *when);

/* A VM for ioctls alone with a vCPU of the combination, which has no memory */
struct kvm_vcpu *xstate_new_vcpu(struct kvm_vm **vm, const struct xstate_combo *combo);
struct kvm_vcpu *xstate_add_vcpu(struct kvm_vm *vm, u32 id, const struct xstate_combo *combo);
/*
 * A VM with one vCPU of the combination that runs @code, with XSAVE on and all
 * its components in XCR0.  libkvm gives a vCPU the CPUID that KVM supports, so
 * that the VM is made twice, the second time with the CPUID of the combination
 * as the first that its vCPU sees.
 */
struct kvm_vcpu *xstate_new_guest(struct kvm_vm **vm, const struct xstate_combo *combo,
				  void *code);
/* The same with another CPUID, which is freed */
struct kvm_vcpu *xstate_new_guest_with(struct kvm_vm **vm, struct kvm_cpuid2 *cpuid, void *code);
/* One more vCPU of such a VM */
struct kvm_vcpu *xstate_add_guest(struct kvm_vm *vm, u32 id, const struct xstate_combo *combo,
				  void *code);
/* The same VM made anew, as on the other side of a migration, CPUID included */
struct kvm_vcpu *xstate_recreate(struct kvm_vcpu *vcpu);

/* Run the guest up to its next GUEST_SYNC() or GUEST_DONE(). */
void xstate_run(struct kvm_vcpu *vcpu, u64 ucall);
/* Run a vCPU that has no memory: its first instruction ends KVM_RUN.  False if it did not run. */
bool xstate_run_without_memory(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu);
/* KVM_RUN that returns right before it would enter the guest */
void xstate_run_immediate_exit(struct kvm_vcpu *vcpu);
/*
 * INIT takes an APIC in KVM, for vCPUs to come.  The vCPU finds the INIT when it
 * is next asked for its mp_state, or runs; its RIP tells that it has.
 */
void xstate_create_apic(struct kvm_vm *vm);
void xstate_send_init(struct kvm_vcpu *vcpu);
void expect_init_taken(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu);

/* 0 or the errno of an ioctl of the vCPU; @arg may be of any type, or wrong */
#define vcpu_errno(vcpu, cmd, arg)	(ioctl((vcpu)->fd, cmd, arg) ? errno : 0)

/* Whether the vCPU takes @value for XCR0, or for @msr; whether @msr can be read */
bool vcpu_takes_xcr0(struct kvm_vcpu *vcpu, u64 value);
bool vcpu_takes_msr(struct kvm_vcpu *vcpu, u32 msr, u64 value);
bool vcpu_reads_msr(struct kvm_vcpu *vcpu, u32 msr, u64 *value);
u64 vcpu_xcr0(struct kvm_vcpu *vcpu);
/* 0 or the errno of KVM_GET_ONE_REG or KVM_SET_ONE_REG of the guest's SSP */
int vcpu_one_reg_ssp(struct kvm_vcpu *vcpu, unsigned long cmd, u64 *ssp);

/* ---- names ---- */

const char *msr_name(u32 msr);
const char *vector_name(u8 vector);

#define EXPECT_XFEATURES(wanted, got, fmt, ...) \
	EXPECT_SAME_MASK(xf_names, wanted, got, fmt, ##__VA_ARGS__)

#endif /* SELFTEST_KVM_XSTATE_H */
