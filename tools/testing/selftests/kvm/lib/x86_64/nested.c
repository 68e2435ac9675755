// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest (L1) that runs a guest of its own (L2): see nested.h.
 */
#include "nested.h"

#define L2_STACK_SIZE	8192

static u8 l2_stack[L2_STACK_SIZE] __aligned(16);

/* The VMCS of L2 has been launched. */
static bool launched;

static struct vmx_pages *vmx;
struct svm_test_data *l1_svm;

/* AMD's manual: "Layout of VMCB", "VMCB Clean Field" */
#define VMCB_CET		0x5e0
#define VMCB_CLEAN_CET		BIT(12)

/* ---- L1 ---- */

static struct nested_cet *vmcb_cet(void)
{
	return (struct nested_cet *)((u8 *)l1_svm->vmcb + VMCB_CET);
}

/* Have a VMCS or VMCB by which L2 has the same registers as L1, but for CET in the VMCB. */
void l1_begin(void *pages)
{
	if (this_cpu_has(X86_FEATURE_SVM)) {
		l1_svm = pages;
#ifdef VMX_SWITCH_GPRS_ASM
		generic_svm_setup(l1_svm, NULL);
#else
		generic_svm_setup(l1_svm, NULL, NULL);
#endif
		l1_svm->vmcb->control.intercept |= BIT_ULL(INTERCEPT_MSR_PROT);
		return;
	}
	vmx = pages;
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
#ifdef VMX_SWITCH_GPRS_ASM
	prepare_vmcs(vmx, NULL);
#else
	prepare_vmcs(vmx, NULL, NULL);
#endif
	vmwrite(CPU_BASED_VM_EXEC_CONTROL, vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
		CPU_BASED_USE_MSR_BITMAPS);
	launched = false;
}

/* Set or clear the bits @mask of a field with controls, of which SVM has none of that kind. */
void l1_control(u32 field, u32 mask, bool set)
{
	u32 value;

	if (l1_svm)
		return;
	value = vmreadz(field);
	GUEST_ASSERT(!vmwrite(field, set ? value | mask : value & ~mask));
}

/* Have RDMSR and WRMSR of @msr exit to L1, or not. */
void l1_intercept_msr(u32 msr, bool rd, bool wr)
{
	u32 bit = msr & 0x1fff, low = msr >> 31 ? 1024 : 0;
	u8 *bitmap = l1_svm ? l1_svm->msr : vmx->msr;

	if (l1_svm) {
		bitmap += 2 * low + bit / 4;
		bit = 2 * (bit % 4);
		*bitmap = (*bitmap & ~(3 << bit)) | rd << bit | wr << (bit + 1);
		return;
	}
	bitmap[low + bit / 8] &= ~BIT(bit % 8);
	bitmap[low + bit / 8] |= rd << bit % 8;
	bitmap[low + 2048 + bit / 8] &= ~BIT(bit % 8);
	bitmap[low + 2048 + bit / 8] |= wr << bit % 8;
}

/* Have exceptions with @vector exit to L1, or not. */
void l1_intercept_vector(u8 vector, bool exits)
{
	u32 bitmap = exits ? BIT(vector) : 0;

	if (l1_svm)
		l1_svm->vmcb->control.intercept_exceptions = bitmap;
	else
		vmwrite(EXCEPTION_BITMAP, bitmap);
}

/* Have the next VM entry inject an event, or not if there is none. */
void l1_inject(u32 intr_info, u32 error_code)
{
	if (l1_svm) {
		l1_svm->vmcb->control.event_inj = intr_info;
		l1_svm->vmcb->control.event_inj_err = error_code;
		return;
	}
	vmwrite(VM_ENTRY_INTR_INFO_FIELD, intr_info);
	vmwrite(VM_ENTRY_EXCEPTION_ERROR_CODE, error_code);
}

/* What L2 has in CR0 and CR4 */
void l1_set_crs(u64 cr0, u64 cr4)
{
	if (l1_svm) {
		l1_svm->vmcb->save.cr0 = cr0;
		l1_svm->vmcb->save.cr4 = cr4;
		return;
	}
	vmwrite(GUEST_CR0, cr0);
	vmwrite(GUEST_CR4, cr4);
}

/* Have VM entry and VM exit load CET or not, from @value if there are such fields. */
void l1_set_cet(const bool load[2], const struct nested_cet *value)
{
	static const u32 fields[] = { [ON_ENTRY] = GUEST_S_CET, [ON_EXIT] = HOST_S_CET };
	u32 i;

	if (l1_svm) {
		*vmcb_cet() = value[ON_ENTRY];
		l1_svm->vmcb->control.clean = 0;
		return;
	}
	l1_control(VM_ENTRY_CONTROLS, VM_ENTRY_LOAD_CET_STATE, load[ON_ENTRY]);
	l1_control(VM_EXIT_CONTROLS, VM_EXIT_LOAD_CET_STATE, load[ON_EXIT]);
	for (i = 0; value && i < ARRAY_SIZE(fields); i++) {
		GUEST_ASSERT(!vmwrite(fields[i], value[i].s_cet));
		GUEST_ASSERT(!vmwrite(fields[i] + 2, value[i].ssp));
		GUEST_ASSERT(!vmwrite(fields[i] + 4, value[i].tab));
	}
}

/* The fields of the guest */
struct nested_cet l1_cet_fields(void)
{
	if (l1_svm)
		return *vmcb_cet();
	return (struct nested_cet) {
		.s_cet = vmreadz(GUEST_S_CET),
		.ssp = vmreadz(GUEST_SSP),
		.tab = vmreadz(GUEST_INTR_SSP_TABLE),
	};
}

/* Let L2 begin at the start of @code. */
void l1_set_entry(void *code)
{
	u64 rip = (u64)code, rsp = (u64)(l2_stack + L2_STACK_SIZE - 8);

	if (l1_svm) {
		l1_svm->vmcb->save.rip = rip;
		l1_svm->vmcb->save.rsp = rsp;
		return;
	}
	GUEST_ASSERT(!vmwrite(GUEST_RIP, rip));
	GUEST_ASSERT(!vmwrite(GUEST_RSP, rsp));
}

/* Enter L2, which has a VM-instruction error if that fails. */
bool l1_enter(void)
{
	bool failed;

	if (l1_svm) {
		run_guest(l1_svm->vmcb, l1_svm->vmcb_gpa);
		/* Until l1_set_cet() changes it. */
		l1_svm->vmcb->control.clean = VMCB_CLEAN_CET;
		return false;
	}
	failed = launched ? vmresume() : vmlaunch();
	if (!failed && !(vmreadz(VM_EXIT_REASON) & EXIT_REASON_FAILED_VMENTRY))
		launched = true;
	return failed;
}

/* How SVM has told it, in words of VMX; it has none for there being an error code. */
static struct nested_exit svm_exit(void)
{
	const struct vmcb_control_area *c = &l1_svm->vmcb->control;
	struct nested_exit e = { .rip = l1_svm->vmcb->save.rip, .reason = -1ul };
	u64 vector = c->exit_code - SVM_EXIT_EXCP_BASE;

	if (c->exit_code == SVM_EXIT_VMMCALL) {
		e.reason = EXIT_REASON_VMCALL;
	} else if (c->exit_code == SVM_EXIT_MSR) {
		e.reason = c->exit_info_1 ? EXIT_REASON_MSR_WRITE : EXIT_REASON_MSR_READ;
	} else if ((u32)c->exit_code == (u32)SVM_EXIT_ERR) {
		e.reason = EXIT_REASON_INVALID_STATE | EXIT_REASON_FAILED_VMENTRY;
	} else if (vector < 32) {
		e.reason = EXIT_REASON_EXCEPTION_NMI;
		e.error_code = c->exit_info_1;
		e.intr_info = INTR_INFO_EXCEPTION(vector);
		if (vector == CP_VECTOR)
			e.intr_info |= INTR_INFO_ERROR_CODE;
	}
	return e;
}

/* Run L2 from the start of @code until it exits. */
struct nested_exit l1_run(void *code)
{
	bool failed;

	l1_set_entry(code);
	failed = l1_enter();
	/* L2 has used these, which libkvm does not tell the compiler. */
	asm volatile("" : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
		     "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
		     "xmm13", "xmm14", "xmm15");
	if (l1_svm)
		return svm_exit();
	if (failed)
		return (struct nested_exit) { .error = vmreadz(VM_INSTRUCTION_ERROR) };
	return (struct nested_exit) {
		.reason = vmreadz(VM_EXIT_REASON),
		.qualification = vmreadz(EXIT_QUALIFICATION),
		.intr_info = vmreadz(VM_EXIT_INTR_INFO),
		.error_code = vmreadz(VM_EXIT_INTR_ERROR_CODE),
		.rip = vmreadz(GUEST_RIP),
	};
}

/* Run L2 from the start of @code until it ends. */
void l1_run_to_end(void *code)
{
	struct nested_exit e = l1_run(code);

	__GUEST_ASSERT(!e.error, "VM entry: wanted success got error %lu", e.error);
	__GUEST_ASSERT(e.reason == EXIT_REASON_VMCALL,
		       "exit of L2: wanted reason %u got %lx at %lx",
		       EXIT_REASON_VMCALL, e.reason, e.rip);
}

/* ---- L2 ---- */

/* Exit to L1, which goes on with something else. */
void l2_end(void)
{
	l2_exit();
	GUEST_ASSERT(!"resumed after its end");
}

/* ---- host ---- */

/*
 * xstate_begin(), and SKIP if there can be no nested guest of the combination, nor
 * what the tests of its @state need: its CET, and XSAVES.
 */
bool nested_begin(struct __test_metadata *const _metadata, const struct xstate_combo *combo,
		  bool state)
{
	if (!xstate_begin(_metadata, combo) || (state && !xstate_need_cet(_metadata, combo)))
		return false;
	if (!kvm_cpu_has(X86_FEATURE_VMX) && !kvm_cpu_has(X86_FEATURE_SVM))
		SKIP(return false, "KVM offers neither VMX nor SVM to guests");
	if (state && !kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return false, "XSAVES is not in guest CPUID");
	return true;
}

/* For what only VMX has */
bool nested_need_vmx(struct __test_metadata *const _metadata)
{
	if (!kvm_cpu_has(X86_FEATURE_VMX))
		SKIP(return false, "KVM offers no VMX to guests");
	return true;
}

/* A VM with one vCPU of the combination that runs @code as L1 */
struct kvm_vcpu *nested_new_guest(struct kvm_vm **vm, const struct xstate_combo *combo,
				  void *code)
{
	struct kvm_vcpu *vcpu = xstate_new_guest(vm, combo, code);
	gva_t pages;

	if (kvm_cpu_has(X86_FEATURE_SVM))
		vcpu_alloc_svm(*vm, &pages);
	else
		vcpu_alloc_vmx(*vm, &pages);
	vcpu_args_set(vcpu, 1, pages);
	return vcpu;
}

/* SSP, that is what the active level has for it; 0 without shadow stacks */
u64 nested_get_ssp(struct kvm_vcpu *vcpu)
{
	u64 ssp = 0;

	if (vcpu_has_shstk(vcpu))
		TEST_ASSERT(!vcpu_one_reg_ssp(vcpu, KVM_GET_ONE_REG, &ssp),
			    "KVM_GET_ONE_REG of SSP: %s", strerror(errno));
	return ssp;
}

void nested_set_ssp(struct kvm_vcpu *vcpu, u64 ssp)
{
	if (vcpu_has_shstk(vcpu))
		TEST_ASSERT(!vcpu_one_reg_ssp(vcpu, KVM_SET_ONE_REG, &ssp),
			    "KVM_SET_ONE_REG of SSP: %s", strerror(errno));
}

/* Move the vCPU, L2 perhaps active, to a new VM. */
struct kvm_vcpu *nested_move(struct kvm_vcpu *vcpu, enum nested_move how)
{
	u64 ssp = nested_get_ssp(vcpu);
	struct kvm_msr_entry *e, late[2];
	struct kvm_x86_state *state;
	int i, nr = 0;

	if (how == NOWHERE)
		return vcpu;
	state = vcpu_save_state(vcpu);
	for (i = 0; how == CET_LAST && i < (int)state->msrs.nmsrs; i++) {
		e = &state->msrs.entries[i];
		if (e->index != MSR_IA32_S_CET && e->index != MSR_IA32_INT_SSP_TAB)
			continue;
		late[nr++] = *e;
		e->data = 0;
	}

	vcpu = xstate_recreate(vcpu);
	if (how == CET_FIRST)
		nested_set_ssp(vcpu, ssp);
	vcpu_load_state(vcpu, state);
	kvm_x86_state_cleanup(state);
	for (i = 0; i < nr; i++)
		vcpu_set_msr(vcpu, late[i].index, late[i].data);
	if (how == CET_LAST)
		nested_set_ssp(vcpu, ssp);
	return vcpu;
}
