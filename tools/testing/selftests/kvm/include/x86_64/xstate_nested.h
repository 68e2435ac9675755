/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest (L1) that runs a guest of its own (L2) by VMX, for tests of the state
 * that the two share and of the state that the VMCS switches.
 *
 * Each run of L2 begins at the start of a function, on a fresh stack: what
 * general registers are worth over a nested exit depends on libkvm's version.
 */
#ifndef SELFTEST_KVM_XSTATE_NESTED_H
#define SELFTEST_KVM_XSTATE_NESTED_H

#include "xstate_util.h"
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
#define HOST_SSP			0x6c1a
#define HOST_INTR_SSP_TABLE		0x6c1c
#endif
#ifndef VM_ENTRY_LOAD_CET_STATE
#define VM_ENTRY_LOAD_CET_STATE		0x00100000
#define VM_EXIT_LOAD_CET_STATE		0x10000000
#endif
#ifndef SECONDARY_EXEC_ENABLE_XSAVES
#define SECONDARY_EXEC_ENABLE_XSAVES	0x00100000
#endif
#ifndef EXIT_REASON_FAILED_VMENTRY
#define EXIT_REASON_FAILED_VMENTRY	0x80000000
#endif

#define NESTED_ERROR_CONTROLS		7
#define NESTED_ERROR_HOST_STATE		8
#define NESTED_ERROR_FIELD		12

#define NESTED_STACK_SIZE		8192

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

static u8 nested_stack[NESTED_STACK_SIZE] __aligned(16);

/* The VMCS of L2 has been launched. */
static bool nested_launched;

/* ---- L1 ---- */

/* Enter VMX operation with a VMCS by which L2 has the same registers as L1. */
static inline void l1_begin(struct vmx_pages *vmx)
{
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
#ifdef VMX_SWITCH_GPRS_ASM
	prepare_vmcs(vmx, NULL);
#else
	prepare_vmcs(vmx, NULL, NULL);
#endif
	vmwrite(CPU_BASED_VM_EXEC_CONTROL, vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
		CPU_BASED_USE_MSR_BITMAPS);
	nested_launched = false;
}

/* Set or clear the bits @mask of a field with controls. */
static inline void l1_control(u32 field, u32 mask, bool set)
{
	u32 value = vmreadz(field);

	GUEST_ASSERT(!vmwrite(field, set ? value | mask : value & ~mask));
}

/* Have RDMSR and WRMSR of @msr exit to L1, or not. */
static inline void l1_intercept_msr(struct vmx_pages *vmx, u32 msr, bool rd,
				    bool wr)
{
	u32 bit = msr & 0x1fff, low = msr >> 31 ? 1024 : 0;
	u8 *bitmap = vmx->msr;

	bitmap[low + bit / 8] &= ~BIT(bit % 8);
	bitmap[low + bit / 8] |= rd << bit % 8;
	bitmap[low + 2048 + bit / 8] &= ~BIT(bit % 8);
	bitmap[low + 2048 + bit / 8] |= wr << bit % 8;
}

/* Write the fields from @first on: those of the guest, or those of the host. */
static inline void l1_write_cet(u32 first, const struct nested_cet *c)
{
	GUEST_ASSERT(!vmwrite(first, c->s_cet));
	GUEST_ASSERT(!vmwrite(first + 2, c->ssp));
	GUEST_ASSERT(!vmwrite(first + 4, c->tab));
}

/* The fields of the guest */
static inline struct nested_cet l1_cet_fields(void)
{
	return (struct nested_cet) {
		.s_cet = vmreadz(GUEST_S_CET),
		.ssp = vmreadz(GUEST_SSP),
		.tab = vmreadz(GUEST_INTR_SSP_TABLE),
	};
}

/* Let L2 begin at the start of @code. */
static inline void l1_set_entry(void *code)
{
	u64 stack = (u64)(nested_stack + NESTED_STACK_SIZE - 8);

	GUEST_ASSERT(!vmwrite(GUEST_RIP, (u64)code));
	GUEST_ASSERT(!vmwrite(GUEST_RSP, stack));
}

/* Run L2 from the start of @code until it exits. */
static inline struct nested_exit l1_run(void *code)
{
	struct nested_exit e = { 0 };
	int failed;

	l1_set_entry(code);
	failed = nested_launched ? vmresume() : vmlaunch();
	/* L2 has used these, which libkvm does not tell the compiler. */
	asm volatile("" : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
		     "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
		     "xmm13", "xmm14", "xmm15");
	if (failed) {
		e.error = vmreadz(VM_INSTRUCTION_ERROR);
		return e;
	}
	e.reason = vmreadz(VM_EXIT_REASON);
	e.qualification = vmreadz(EXIT_QUALIFICATION);
	e.intr_info = vmreadz(VM_EXIT_INTR_INFO);
	e.rip = vmreadz(GUEST_RIP);
	if (!(e.reason & EXIT_REASON_FAILED_VMENTRY))
		nested_launched = true;
	return e;
}

/* Run L2 from the start of @code until it ends with l2_end(). */
static inline void l1_run_to_end(void *code)
{
	struct nested_exit e = l1_run(code);

	__GUEST_ASSERT(!e.error, "VM entry: wanted success got error %lu",
		       e.error);
	__GUEST_ASSERT(e.reason == EXIT_REASON_VMCALL,
		       "exit of L2: wanted reason %u got %lx at %lx",
		       EXIT_REASON_VMCALL, e.reason, e.rip);
}

/* ---- L2 ---- */

/* Exit to L1, which goes on with something else. */
static inline void l2_end(void)
{
	vmcall();
	GUEST_ASSERT(!"resumed after its end");
}

/* ---- host ---- */

/*
 * Why there can be no nested guest of the combination, with its CET if the test
 * needs that; NULL if there can be. The permissions must have been asked for.
 */
static inline const char *nested_missing(const struct xcomp *x, bool cet)
{
	if (x->amx && !x->have_amx)
		return "no AMX on this machine";
	if (cet && x->shstk != x->shstk_on)
		return "KVM offers no guest CET";
	if (cet && x->ibt != x->ibt_on)
		return "KVM offers no guest IBT";
	if (!kvm_cpu_has(X86_FEATURE_VMX))
		return "KVM offers no VMX to guests";
	return NULL;
}

/* A VM with one vCPU of the combination that runs @code as L1, with @vmx */
static inline struct kvm_vcpu *nested_guest(struct xcomp *x, void *code,
					    gva_t *vmx)
{
	struct kvm_vcpu *vcpu = xstate_guest(x, code);

	vcpu_alloc_vmx(vcpu->vm, vmx);
	vcpu_args_set(vcpu, 1, *vmx);
	return vcpu;
}

/* SSP, that is what the active level has for it */
static inline void nested_ssp(struct xcomp *x, unsigned long cmd, u64 *ssp)
{
	if (x->shstk_on)
		TEST_ASSERT(!xkvm_one_reg(x->vcpu, cmd, XKVM_REG_GUEST_SSP,
					  ssp),
			    "KVM_GET_ONE_REG or KVM_SET_ONE_REG of SSP failed");
}

/*
 * Move the vCPU, L2 perhaps active, to a new VM. The CET registers that the
 * VMCS switches get there before the nested state, or not until it is there.
 */
static inline struct kvm_vcpu *nested_move(struct xcomp *x,
					   struct kvm_vcpu *vcpu, bool cet_last)
{
	struct kvm_msr_entry *e, late[2];
	struct kvm_vm *vm = vcpu->vm;
	struct kvm_x86_state *state;
	unsigned int i, nr = 0;
	u64 ssp = 0;

	nested_ssp(x, KVM_GET_ONE_REG, &ssp);
	state = vcpu_save_state(vcpu);
	for (i = 0; cet_last && i < state->msrs.nmsrs; i++) {
		e = &state->msrs.entries[i];
		if (e->index != XF_MSR_S_CET && e->index != XF_MSR_INT_SSP_TAB)
			continue;
		late[nr++] = *e;
		e->data = 0;
	}

	kvm_vm_release(vm);
	vcpu = vm_recreate_with_one_vcpu(vm);
	x->vm = vm->fd;
	x->vcpu = vcpu->fd;
	if (!cet_last)
		nested_ssp(x, KVM_SET_ONE_REG, &ssp);
	vcpu_load_state(vcpu, state);
	if (cet_last) {
		TEST_ASSERT(xkvm_set_msrs(vcpu->fd, late, nr) == (int)nr,
			    "KVM_SET_MSRS of S_CET or INT_SSP_TAB failed");
		nested_ssp(x, KVM_SET_ONE_REG, &ssp);
	}
	kvm_x86_state_cleanup(state);
	return vcpu;
}

#endif /* SELFTEST_KVM_XSTATE_NESTED_H */
