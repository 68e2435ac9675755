/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest (L1) that runs a guest of its own (L2) by VMX, for tests of the state
 * that the two share and of the state that the VMCS switches.
 *
 * Each run of L2 begins at the start of a function, on a fresh stack: what
 * general registers are worth over a nested exit depends on libkvm's version.
 */
#ifndef SELFTEST_KVM_NESTED_H
#define SELFTEST_KVM_NESTED_H

#include "xregs.h"
#include "vmx.h"

/*
 * What libkvm has no name for: fields as in the appendix "Field Encoding in
 * VMCS" of the Intel SDM, controls and errors as in its chapters "Virtual
 * Machine Control Structures" and "VMX Instruction Reference".
 */
#ifndef GUEST_S_CET
#define GUEST_S_CET			0x6828
#define GUEST_SSP			0x682a
#define GUEST_INTR_SSP_TABLE		0x682c
#define HOST_S_CET			0x6c18
#endif
#ifndef VM_ENTRY_LOAD_CET_STATE
#define VM_ENTRY_LOAD_CET_STATE		0x00100000
#define VM_EXIT_LOAD_CET_STATE		0x10000000
#endif
#ifndef SECONDARY_EXEC_ENABLE_XSAVES
#define SECONDARY_EXEC_ENABLE_XSAVES	0x00100000
#endif
#ifndef EXIT_REASON_XRSTORS
#define EXIT_REASON_XRSTORS		64
#endif
#ifndef EXIT_REASON_FAILED_VMENTRY
#define EXIT_REASON_FAILED_VMENTRY	0x80000000
#endif

/* VM-exit interruption information of a hardware exception */
#define INTR_INFO_EXCEPTION(vector)	(BIT(31) | 3 << 8 | (vector))
#define INTR_INFO_ERROR_CODE		BIT(11)

#define NESTED_ERROR_CONTROLS		7
#define NESTED_ERROR_HOST_STATE		8
#define NESTED_ERROR_FIELD		12

/* How the last run of L2 ended */
struct nested_exit {
	u64 error;		/* VM-instruction error, 0 if there was none */
	u64 reason;
	u64 qualification;
	u64 intr_info;
	u64 rip;
};

/* The CET registers that the VMCS switches, in the order of their fields */
struct nested_cet {
	u64 s_cet, ssp, tab;
};

/* When the VMCS has them loaded */
enum { ON_ENTRY, ON_EXIT };

/* ---- L1 ---- */

/* Enter VMX operation with a VMCS by which L2 has the same registers as L1. */
void l1_begin(struct vmx_pages *vmx);
/* Set or clear the bits @mask of a field with controls. */
void l1_control(u32 field, u32 mask, bool set);
/* Have RDMSR and WRMSR of @msr exit to L1, or not. */
void l1_intercept_msr(struct vmx_pages *vmx, u32 msr, bool rd, bool wr);
/* Write the fields from @first on: those of the guest, or those of the host. */
void l1_write_cet(u32 first, const struct nested_cet *c);
/* The fields of the guest */
struct nested_cet l1_cet_fields(void);
/* Let L2 begin at the start of @code. */
INTEGER_ONLY void l1_set_entry(void *code);
/* Run L2 from the start of @code until it exits, or until it ends. */
struct nested_exit l1_run(void *code);
void l1_run_to_end(void *code);

/* ---- L2 ---- */

/* Exit to L1, which goes on with something else. */
void l2_end(void);

/* ---- host ---- */

/*
 * SKIP if there can be no nested guest of the combination, with its CET if the
 * test needs that.
 */
bool nested_need(struct __test_metadata *const _metadata, const struct xstate_combo *combo,
		 bool cet);
/* A VM with one vCPU of the combination that runs @code as L1 */
struct kvm_vcpu *nested_new_guest(struct kvm_vm **vm, const struct xstate_combo *combo,
				  void *code);
/*
 * Move the vCPU, L2 perhaps active, to a new VM.  The CET registers that the
 * VMCS switches get there before the nested state, or not until it is there.
 */
struct kvm_vcpu *nested_move(struct kvm_vcpu *vcpu, bool cet_last);
/* SSP, that is what the active level has for it; 0 without shadow stacks */
u64 nested_get_ssp(struct kvm_vcpu *vcpu);
void nested_set_ssp(struct kvm_vcpu *vcpu, u64 ssp);

#endif /* SELFTEST_KVM_NESTED_H */
