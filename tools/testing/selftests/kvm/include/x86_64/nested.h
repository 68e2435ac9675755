/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest (L1) that runs a guest of its own (L2), by SVM if KVM offers that, else by
 * VMX, for tests of the state that the two share and of the state that the VMCS or the
 * VMCB switches.  What is said of the VMCS goes for the VMCB; exits have the names and
 * numbers of VMX.
 *
 * Each run of L2 begins at the start of a function, on a fresh stack: what
 * general registers are worth over a nested exit depends on libkvm's version.
 */
#ifndef SELFTEST_KVM_NESTED_H
#define SELFTEST_KVM_NESTED_H

#include "xregs.h"
#include "svm_util.h"
#include "vmx.h"

/* SDM: "Field Encoding in VMCS", "Virtual Machine Control Structures" */
#define GUEST_S_CET			0x6828
#define GUEST_SSP			0x682a
#define GUEST_INTR_SSP_TABLE		0x682c
#define HOST_S_CET			0x6c18
#ifndef VM_ENTRY_LOAD_CET_STATE
#define VM_ENTRY_LOAD_CET_STATE		0x00100000
#define VM_EXIT_LOAD_CET_STATE		0x10000000
#endif
#ifndef SECONDARY_EXEC_ENABLE_XSAVES
#define SECONDARY_EXEC_ENABLE_XSAVES	0x00100000
#endif

/* VM-exit interruption information of a hardware exception */
#define INTR_INFO_EXCEPTION(vector)	(BIT(31) | 3 << 8 | (vector))
#define INTR_INFO_ERROR_CODE		BIT(11)

/* SDM: "VM-Instruction Error Numbers" */
#define NESTED_ERROR_CONTROLS		7
#define NESTED_ERROR_HOST_STATE		8
#define NESTED_ERROR_FIELD		12

/* How the last run of L2 ended */
struct nested_exit {
	u64 error;		/* VM-instruction error, 0 if there was none */
	u64 reason;
	u64 qualification;
	u64 intr_info, error_code;
	u64 rip;
};

/* The CET registers that the VMCS switches, in the order of their fields, as in the VMCB */
struct nested_cet {
	u64 s_cet, ssp, tab;
};

/*
 * When the VMCS has them loaded, from the fields of the guest and of the host.  SVM
 * always loads on entry, and on exit what L1 had.
 */
enum { ON_ENTRY, ON_EXIT };

/* ---- L1 ---- */

/* What libkvm has for L1 with SVM; NULL with VMX */
extern struct svm_test_data *l1_svm;

void l1_begin(void *pages);
void l1_control(u32 field, u32 mask, bool set);
void l1_intercept_msr(u32 msr, bool rd, bool wr);
void l1_intercept_vector(u8 vector, bool exits);
void l1_inject(u32 intr_info, u32 error_code);
void l1_set_crs(u64 cr0, u64 cr4);
void l1_set_cet(const bool load[2], const struct nested_cet *value);
struct nested_cet l1_cet_fields(void);
INTEGER_ONLY void l1_set_entry(void *code);
INTEGER_ONLY bool l1_enter(void);
struct nested_exit l1_run(void *code);
void l1_run_to_end(void *code);

/* ---- L2 ---- */

/* Without a call, which would change the shadow stack. */
static inline void l2_exit(void) { l1_svm ? vmmcall() : vmcall(); }
void l2_end(void);

/* ---- host ---- */

/* Whether the CET registers that the VMCS switches move before the nested state */
enum nested_move { NOWHERE, CET_FIRST, CET_LAST };

bool nested_begin(struct __test_metadata *const _metadata, const struct xstate_combo *combo,
		  bool state);
bool nested_need_vmx(struct __test_metadata *const _metadata);
struct kvm_vcpu *nested_new_guest(struct kvm_vm **vm, const struct xstate_combo *combo,
				  void *code);
struct kvm_vcpu *nested_move(struct kvm_vcpu *vcpu, enum nested_move how);
u64 nested_get_ssp(struct kvm_vcpu *vcpu);
void nested_set_ssp(struct kvm_vcpu *vcpu, u64 ssp);

#endif /* SELFTEST_KVM_NESTED_H */
