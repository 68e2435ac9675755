// SPDX-License-Identifier: GPL-2.0-only
/*
 * All components of a guest (L1) and of its guest (L2), which share them: live
 * registers, tiles and CET included, must outlive the way from L1 to L2 and
 * back, exits to user space, and a move to another VM.
 */
#include "xstate_guest.h"
#include "xstate_nested.h"

static struct nested {
	u64 mask;		/* components that are in use */
	struct xregs regs[2];
	u8 area[XAREA_SIZE] __aligned(64);
} nested;

static __always_inline GUEST_INTEGER_ONLY void guest_save(void)
{
	asm volatile("xsaves64 %0"
		     : "+m" (nested.area) : "a" (-1), "d" (-1));
	guest_leave();
}

static GUEST_INTEGER_ONLY void l2_code(void)
{
	guest_save();
	guest_load_xregs(&nested.regs[1], nested.mask);
	guest_leave();
	vmcall();
}

static GUEST_INTEGER_ONLY void l2_again_code(void)
{
	guest_save();
	guest_load_xregs(&nested.regs[0], nested.mask);
	guest_leave();
	vmcall();
}

/* Nothing that a compiler might use other registers for comes in between. */
static GUEST_INTEGER_ONLY void l1_run_twice(void)
{
	bool failed;

	guest_load_xregs(&nested.regs[0], nested.mask);
	failed = vmlaunch();
	guest_save();
	l1_set_entry(l2_again_code);
	failed |= vmresume();
	guest_save();
	GUEST_ASSERT(!failed);
}

static void l1_code(struct vmx_pages *vmx)
{
	guest_enable(nested.mask & XREGS_USER);
	l1_begin(vmx);
	l1_control(SECONDARY_VM_EXEC_CONTROL, SECONDARY_EXEC_ENABLE_XSAVES,
		   true);
	l1_set_entry(l2_code);
	l1_run_twice();
	GUEST_DONE();
}

FIXTURE(nested_regs) {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct nested *n;
	uint64_t taint;
};

FIXTURE_VARIANT(nested_regs) {
	const char *name;
};

XSTATE_VARIANT(nested_regs, none_noamx_nocet);
XSTATE_VARIANT(nested_regs, none_noamx_cet);
XSTATE_VARIANT(nested_regs, guest_amx_nocet);
XSTATE_VARIANT(nested_regs, guest_amx_cet);

FIXTURE_SETUP(nested_regs)
{
	struct xcomp *x = &self->x;
	gva_t vmx;
	u32 i;

	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (nested_missing(x, true))
		SKIP(return, "%s", nested_missing(x, true));
	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	self->vcpu = nested_guest(x, l1_code, &vmx);
	self->n = addr_gva2hva(self->vcpu->vm, (gva_t)&nested);
	self->n->mask = xregs_guest_xcr0(x) | xregs_mask(xcomp_guest_xss(x));
	for (i = 0; i < ARRAY_SIZE(self->n->regs); i++)
		xregs_fill(&self->n->regs[i], i + 1);
	if (xcomp_guest_xss(x))
		vcpu_set_msr(self->vcpu, MSR_IA32_XSS, xcomp_guest_xss(x));
}

FIXTURE_TEARDOWN(nested_regs)
{
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

/* Run up to the next XSAVES, which must find the registers of one set. */
static bool saved(struct kvm_vcpu *vcpu, struct nested *n, const char *what,
		  int set)
{
	bool ok;

	xarea_fill(n->area, XAREA_POISON, XAREA_SIZE);
	xregs_run(vcpu);
	ok = xarea_same(what, "XSTATE_BV", n->mask, xarea_header(n->area, 0));
	return ok && xarea_has(what, n->area, &n->regs[set], n->mask,
			       n->mask | XF_COMPACTED);
}

/*
 * Run L2 twice with all components in use. Each of L1 and L2 must find what the
 * other one left, also when L2 moves to another VM meanwhile.
 */
static bool live_ok(struct xcomp *x, struct kvm_vcpu **vcpu, struct nested *n,
		    bool move)
{
	bool ok;

	ok = saved(*vcpu, n, "L2 after L1", 0);
	if (move)
		*vcpu = nested_move(x, *vcpu, false);
	xregs_run(*vcpu);
	if (move)
		*vcpu = nested_move(x, *vcpu, false);
	ok &= saved(*vcpu, n, "L1 after L2", 1);
	if (move)
		*vcpu = nested_move(x, *vcpu, false);
	ok &= saved(*vcpu, n, "L2 after L1 after L2", 1);
	xregs_run(*vcpu);
	ok &= saved(*vcpu, n, "L1 after L2 again", 0);
	xstate_run(*vcpu, UCALL_DONE);
	return ok;
}

/*
 * Verify that L1 and L2 share all components that XSAVES saves, tiles and CET
 * included, and that exits from L2 to user space leave them alone.
 */
TEST_F(nested_regs, live)
{
	EXPECT_TRUE(live_ok(&self->x, &self->vcpu, self->n, false));
}

/* Verify the same when the vCPU moves to another VM with L2 active. */
TEST_F(nested_regs, moved)
{
	EXPECT_TRUE(live_ok(&self->x, &self->vcpu, self->n, true));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
