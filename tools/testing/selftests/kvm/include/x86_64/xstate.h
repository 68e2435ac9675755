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

bool xstate_begin(struct __test_metadata *const _metadata, const struct xstate_combo *combo);
void xstate_begin_unpermitted(struct __test_metadata *const _metadata, const void *variant);
void xstate_request(struct __test_metadata *const _metadata, int option);
void xstate_request_locked(struct __test_metadata *const _metadata);
bool xstate_host_granted(const struct xstate_combo *combo);
bool xstate_guest_granted(const struct xstate_combo *combo);
void xstate_go_on_in_child(struct __test_metadata *const _metadata);
void xstate_go_on_after_exec(struct __test_metadata *const _metadata);
bool xstate_is_after_exec(void);
void xstate_end(struct __test_metadata *const _metadata, struct kvm_vm *vm);
/*
 * To follow the FIXTURE() of a suite, which has a vm: its variants are combinations,
 * as FIXTURE_VARIANT_ADD() adds them, and it ends by xstate_end().
 */
#define XSTATE_SUITE(...)							\
	FIXTURE_VARIANT(__VA_ARGS__) { struct xstate_combo combo; };		\
	FIXTURE_TEARDOWN(__VA_ARGS__) { xstate_end(_metadata, self->vm); }	\
	struct xstate_combo

bool xstate_need_cet(struct __test_metadata *const _metadata, const struct xstate_combo *combo);
bool xstate_need_refusals(struct __test_metadata *const _metadata);
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

/* KVM refuses MSRs that it does not know, or that the guest has not. */
bool kvm_refuses_msrs(void);
int host_nr_cpus(void);
void host_put_on_cpu(pid_t tid, int nr);
int kvm_xcomp_guest_supp(u64 *mask);
bool vcpu_has_amx(struct kvm_vcpu *vcpu);
bool vcpu_has_shstk(struct kvm_vcpu *vcpu);
bool vcpu_has_ibt(struct kvm_vcpu *vcpu);
bool vcpu_has_cet_msr(struct kvm_vcpu *vcpu, u32 msr);

/* What XCR0 and IA32_XSS may hold: from the host's XCR0 and guest CPUID */
u64 vcpu_xcr0_mask(struct kvm_vcpu *vcpu);
u64 vcpu_xss_mask(struct kvm_vcpu *vcpu);
u32 vcpu_xsave_size(struct kvm_vcpu *vcpu);
bool xcr0_is_legal(u64 xcr0);
u64 kvm_known_xcr0(void);
u64 kvm_offered_xss(void);
u64 address_end(void);

/* ---- vCPUs ---- */

/* AMX in CPUID.(7,0).EDX */
#define CPUID_7_EDX_AMX		(BIT(X86_FEATURE_AMX_TILE.bit) | BIT(X86_FEATURE_AMX_BF16.bit) | \
				 BIT(X86_FEATURE_AMX_INT8.bit))

struct kvm_cpuid2 *xstate_cpuid(const struct xstate_combo *combo);
struct kvm_cpuid2 *xstate_cpuid_with(const struct xstate_combo *combo, bool amx);
struct kvm_cpuid_entry2 *cpuid_entry(struct kvm_cpuid2 *cpuid, u32 function, u32 index);
/* Registers of an entry, all 0 if it is absent, as a guest reads it */
struct xf_regs cpuid_regs(const struct kvm_cpuid2 *cpuid, u32 function, u32 index);
void cpuid_drop(struct kvm_cpuid2 *cpuid, u32 function, u32 index);
struct kvm_cpuid2 *cpuid_copy(const struct kvm_cpuid2 *from);
struct kvm_cpuid2 *vcpu_current_cpuid(struct kvm_vcpu *vcpu);
void expect_leaf(struct __test_metadata *const _metadata, u32 function, u32 index,
		 struct xf_regs wanted, struct xf_regs got);
void expect_same_cpuid(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		       const struct kvm_cpuid2 *wanted, const char *when);

struct kvm_vcpu *xstate_new_vcpu(struct kvm_vm **vm, const struct xstate_combo *combo);
struct kvm_vcpu *xstate_add_vcpu(struct kvm_vm *vm, u32 id, const struct xstate_combo *combo);
struct kvm_vcpu *xstate_new_guest(struct kvm_vm **vm, const struct xstate_combo *combo,
				  void *code);
struct kvm_vcpu *xstate_new_guest_with(struct kvm_vm **vm, struct kvm_cpuid2 *cpuid, void *code);
struct kvm_vcpu *xstate_add_guest(struct kvm_vm *vm, u32 id, const struct xstate_combo *combo,
				  void *code);
struct kvm_vcpu *xstate_recreate(struct kvm_vcpu *vcpu);

void vcpu_run_bounded(struct kvm_vcpu *vcpu);
void xstate_run(struct kvm_vcpu *vcpu, u64 ucall);
bool xstate_run_without_memory(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu);
void xstate_run_immediate_exit(struct kvm_vcpu *vcpu);
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
int vcpu_one_reg_ssp(struct kvm_vcpu *vcpu, unsigned long cmd, u64 *ssp);

/* ---- names ---- */

const char *msr_name(u32 msr);
const char *vector_name(u8 vector);

#define EXPECT_XFEATURES(wanted, got, fmt, ...) \
	EXPECT_SAME_MASK(xf_names, wanted, got, fmt, ##__VA_ARGS__)

#endif /* SELFTEST_KVM_XSTATE_H */
