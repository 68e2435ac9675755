// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest's guest (L2) that runs on a shadow stack, while the guest itself (L1)
 * has none: the SSP that VM entry loads is the one in use, exits to L1 and to
 * user space keep it, and #CP goes to whom L1 says.
 */
#include "xstate_host_msr.h"
#include "xstate_nested.h"

#define CP_VECTOR		21
#define CP_NEAR_RET		1

/* Some error code that RET does not raise */
#define CP_INJECTED		3

/* A hardware exception with an error code */
#define INTR_INFO(vector)	(BIT(31) | BIT(11) | 3 << 8 | (vector))

#define S_CET_SH_STK_EN		BIT(0)

/* Bits of an entry of a page table */
#define PTE_WRITABLE		BIT(1)
#define PTE_USER		BIT(2)
#define PTE_ACCESSED		BIT(5)
#define PTE_DIRTY		BIT(6)

/* The port by which L2 exits to user space */
#define EXIT_PORT		0x1c0

/* There are entries above and below where L2 begins. */
#define SHSTK_START		2048

static struct nested {
	u64 ssp;			/* where L2 begins */
	bool intercept;			/* #CP exits to L1 */
	u64 inject;			/* L1 injects #CP */
	struct nested_exit exit;
	u64 error_code;			/* of an exit by an exception */
	u64 vmcs_ssp, l1_rdssp;		/* afterwards */

	u64 rdssp[2];			/* in L2, before and after a call */
	u64 rdssp_in_call;
	u64 return_address;
	u64 vector, vector_error;	/* what the handler in L2 got */
} nested;

/* RDSSP leaves the register as it is where there is no shadow stack. */
static __always_inline u64 rdssp(void)
{
	u64 ssp = 0;

	asm volatile("rdsspq %0" : "+r" (ssp));
	return ssp;
}

/* Exit to user space without a call, which would change the shadow stack. */
static __always_inline void l2_leave(void)
{
	asm volatile("outb %%al, %%dx"
		     : : "a" (0), "d" (EXIT_PORT) : "memory");
}

static noinline void l2_called(void)
{
	nested.rdssp_in_call = rdssp();
	nested.return_address = (u64)__builtin_return_address(0);
}

/* End with a return address on the shadow stack. */
static noinline void l2_called_end(void)
{
	l2_end();
}

static void l2_code(void)
{
	nested.rdssp[0] = rdssp();
	l2_called();
	l2_leave();
	nested.rdssp[1] = rdssp();
	l2_called_end();
	/* Keep the compiler from jumping there instead. */
	barrier();
}

/* Return to an address that is on the stack, and not on the shadow stack. */
static void l2_bad_return_code(void)
{
	asm volatile("lea 1f(%%rip), %%rax\n\t"
		     "push %%rax\n\t"
		     "ret\n\t"
		     "1:"
		     : : : "rax", "memory");
	l2_end();
}

static void l2_handler(struct ex_regs *regs)
{
	nested.vector = regs->vector;
	/* A libkvm that knows of no error code for #CP takes it for RIP. */
	nested.vector_error = regs->error_code ?: regs->rip;
	l2_end();
}

static void l1_code(struct vmx_pages *vmx)
{
	const struct nested_cet l2 = {
		.s_cet = S_CET_SH_STK_EN,
		.ssp = nested.ssp,
	};
	const struct nested_cet l1 = { 0 };
	void *code = l2_code;

	l1_begin(vmx);
	l1_control(VM_ENTRY_CONTROLS, VM_ENTRY_LOAD_CET_STATE, true);
	l1_control(VM_EXIT_CONTROLS, VM_EXIT_LOAD_CET_STATE, true);
	l1_write_cet(HOST_S_CET, &l1);
	vmwrite(GUEST_CR0, vmreadz(GUEST_CR0) | X86_CR0_WP);
	vmwrite(GUEST_CR4, vmreadz(GUEST_CR4) | XSTATE_CR4_CET);
	for (;;) {
		l1_write_cet(GUEST_S_CET, &l2);
		vmwrite(EXCEPTION_BITMAP,
			nested.intercept ? BIT(CP_VECTOR) : 0);
		vmwrite(VM_ENTRY_INTR_INFO_FIELD, nested.inject);
		vmwrite(VM_ENTRY_EXCEPTION_ERROR_CODE, CP_INJECTED);
		nested.exit = l1_run(code);
		nested.l1_rdssp = rdssp();
		nested.vmcs_ssp = vmreadz(GUEST_SSP);
		nested.error_code = vmreadz(VM_EXIT_INTR_ERROR_CODE);
		GUEST_SYNC(0);
		code = l2_bad_return_code;
	}
}

FIXTURE(nested_shstk) {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct nested *n;
	u64 *shstk;		/* the page as the host sees it */
	uint64_t taint;
};

FIXTURE_VARIANT(nested_shstk) {
	const char *name;
};

XSTATE_VARIANT(nested_shstk, none_noamx_shstk);
XSTATE_VARIANT(nested_shstk, guest_amx_cet);

FIXTURE_SETUP(nested_shstk)
{
	struct xcomp *x = &self->x;
	gva_t vmx, page;
	u64 *pte;

	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (nested_missing(x, true))
		SKIP(return, "%s", nested_missing(x, true));
	ASSERT_TRUE(xstate_host_is_safe(x));
	self->vcpu = nested_guest(x, l1_code, &vmx);
	self->n = addr_gva2hva(self->vcpu->vm, (gva_t)&nested);
	vm_install_exception_handler(self->vcpu->vm, CP_VECTOR, l2_handler);

	/* What makes a page a supervisor shadow stack: not writable but dirty */
	page = vm_alloc_page(self->vcpu->vm);
	self->shstk = addr_gva2hva(self->vcpu->vm, page);
	pte = vm_get_pte(self->vcpu->vm, page);
	*pte = (*pte & ~(PTE_WRITABLE | PTE_USER)) | PTE_ACCESSED | PTE_DIRTY;
	self->n->ssp = page + SHSTK_START;
}

FIXTURE_TEARDOWN(nested_shstk)
{
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

static u64 host_ssp(struct xcomp *x)
{
	u64 ssp;

	nested_ssp(x, KVM_GET_ONE_REG, &ssp);
	return ssp;
}

/* Run L2 once over a call, an exit to user space, and perhaps a new VM. */
static bool call_ok(struct xcomp *x, struct kvm_vcpu **vcpu, struct nested *n,
		    u64 *shstk, bool move)
{
	bool ok;

	vcpu_run(*vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(*vcpu, KVM_EXIT_IO);
	ok = xcomp_same(x, "port", EXIT_PORT, (*vcpu)->run->io.port);
	ok &= xcomp_same(x, "SSP on VM entry", n->ssp, n->rdssp[0]);
	ok &= xcomp_same(x, "SSP in a call", n->ssp - 8, n->rdssp_in_call);
	ok &= xcomp_same(x, "return address", n->return_address,
			 shstk[SHSTK_START / 8 - 1]);
	ok &= xcomp_same(x, "SSP with L2 active", n->ssp, host_ssp(x));
	if (move)
		*vcpu = nested_move(x, *vcpu, false);
	xstate_run(*vcpu, UCALL_SYNC);
	ok &= xcomp_same(x, "SSP over an exit", n->ssp, n->rdssp[1]);
	ok &= xcomp_same(x, "exit reason", EXIT_REASON_VMCALL, n->exit.reason);
	ok &= xcomp_same(x, "SSP in the VMCS", n->ssp - 8, n->vmcs_ssp);
	ok &= xcomp_same(x, "RDSSP in L1", 0, n->l1_rdssp);
	return ok & xcomp_same(x, "SSP of L1", 0, host_ssp(x));
}

/*
 * Verify that L2 has its calls and returns on the shadow stack at GUEST_SSP,
 * and that L1 has none.
 */
TEST_F(nested_shstk, call)
{
	EXPECT_TRUE(call_ok(&self->x, &self->vcpu, self->n, self->shstk,
			    false));
}

/* Verify the same when the vCPU moves to another VM with L2 active. */
TEST_F(nested_shstk, call_moved)
{
	EXPECT_TRUE(call_ok(&self->x, &self->vcpu, self->n, self->shstk, true));
}

/*
 * Verify that a return to another address than that on the shadow stack raises
 * #CP in L2, or exits to L1 if L1 asks for that, and that L1 can inject #CP.
 */
TEST_F(nested_shstk, control_protection)
{
	struct nested *n = self->n;
	struct xcomp *x = &self->x;

	ASSERT_TRUE(call_ok(x, &self->vcpu, n, self->shstk, false));
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_TRUE(xcomp_same(x, "vector", CP_VECTOR, n->vector));
	EXPECT_EQ(CP_NEAR_RET, n->vector_error);
	EXPECT_EQ(EXIT_REASON_VMCALL, n->exit.reason);

	n->intercept = true;
	n->vector = 0;
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_TRUE(xcomp_same(x, "exit reason", EXIT_REASON_EXCEPTION_NMI,
			       n->exit.reason));
	EXPECT_TRUE(xcomp_same(x, "VM-exit interruption information",
			       INTR_INFO(CP_VECTOR), n->exit.intr_info));
	EXPECT_EQ(CP_NEAR_RET, n->error_code);
	EXPECT_EQ(0, n->vector);
	EXPECT_TRUE(xcomp_same(x, "SSP in the VMCS", n->ssp, n->vmcs_ssp));

	n->inject = INTR_INFO(CP_VECTOR);
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_TRUE(xcomp_same(x, "vector", CP_VECTOR, n->vector));
	EXPECT_EQ(CP_INJECTED, n->vector_error);
	EXPECT_EQ(EXIT_REASON_VMCALL, n->exit.reason);
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
