// SPDX-License-Identifier: GPL-2.0-only
/*
 * XSAVES, XRSTORS and IA32_XSS of a guest's guest (L2): when they exit to the
 * guest (L1), when they fault, and that IA32_XSS is one for both.
 */
#include "xstate_guest.h"
#include "xstate_nested.h"

/* The exit reason that asm/vmx.h of some libraries lacks */
#ifndef EXIT_REASON_XRSTORS
#define EXIT_REASON_XRSTORS	64
#endif

/* xsaves64 (%rdi) and xrstors64 (%rdi) */
#define XSAVES_CODE		0x2fc70f48
#define XRSTORS_CODE		0x1fc70f48

#define CPUID_D_1_EAX_XSAVES	BIT(3)

/* What L1 and L2 are told to do, and what comes of it */
static struct nested {
	u64 bitmap, rfbm;
	bool enable;			/* "enable XSAVES/XRSTORS" */
	bool restore, sync;		/* XRSTORS; exit to user space before it */
	u64 vector;
	struct nested_exit exit;
	u32 code;			/* the instruction that exited */

	u64 values[2], bit;
	u64 l1, l2;			/* IA32_XSS as L1 and L2 read it */
	bool read_exits, write_exits;

	u8 area[XAREA_SIZE] __aligned(64);
} nested;

static void l2_xsaves_code(void)
{
	u32 low = nested.rfbm, high = nested.rfbm >> 32;

	if (nested.sync)
		GUEST_SYNC(0);
	if (nested.restore)
		nested.vector = kvm_asm_safe("xrstors64 (%%rdi)",
					     "D" (nested.area), "a" (low),
					     "d" (high));
	else
		nested.vector = kvm_asm_safe("xsaves64 (%%rdi)",
					     "D" (nested.area), "a" (low),
					     "d" (high));
	l2_end();
}

/* Run L2 once and again with whatever the host has changed. */
static void l1_xsaves_code(struct vmx_pages *vmx)
{
	l1_begin(vmx);
	for (;;) {
		GUEST_SYNC(1);
		l1_control(SECONDARY_VM_EXEC_CONTROL,
			   SECONDARY_EXEC_ENABLE_XSAVES, nested.enable);
		GUEST_ASSERT(!vmwrite(XSS_EXIT_BITMAP, nested.bitmap));
		nested.exit = l1_run(l2_xsaves_code);
		nested.code = *(u32 *)nested.exit.rip;
	}
}

static void l2_read_code(void)
{
	nested.l2 = rdmsr(MSR_IA32_XSS);
	l2_end();
}

static void l2_write_code(void)
{
	nested.vector = wrmsr_safe(MSR_IA32_XSS, nested.values[1]);
	GUEST_SYNC(0);
	l2_end();
}

/* L1 writes, L2 reads and writes, L1 reads. */
static void l1_msr_code(struct vmx_pages *vmx)
{
	l1_begin(vmx);
	for (;;) {
		GUEST_SYNC(1);
		l1_intercept_msr(vmx, MSR_IA32_XSS, nested.read_exits,
				 nested.write_exits);
		wrmsr(MSR_IA32_XSS, nested.values[0]);
		nested.exit = l1_run(l2_read_code);
		GUEST_SYNC(2);
		nested.exit = l1_run(l2_write_code);
		nested.l1 = rdmsr(MSR_IA32_XSS);
	}
}

FIXTURE(nested_xss) {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct nested *n;
	uint64_t taint;
};

FIXTURE_VARIANT(nested_xss) {
	const char *name;
};

XSTATE_VARIANT(nested_xss, none_noamx_nocet);
XSTATE_VARIANT(nested_xss, none_noamx_cet);
XSTATE_VARIANT(nested_xss, guest_amx_cet);

FIXTURE_SETUP(nested_xss)
{
	struct xcomp *x = &self->x;
	gva_t vmx;

	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (nested_missing(x, true))
		SKIP(return, "%s", nested_missing(x, true));
	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	self->vcpu = nested_guest(x, NULL, &vmx);
	self->n = addr_gva2hva(self->vcpu->vm, (gva_t)&nested);
	ASSERT_TRUE(xstate_fill(x, 0));
}

FIXTURE_TEARDOWN(nested_xss)
{
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

/* Verify that L1 may enable XSAVES for L2, and need not. */
TEST_F(nested_xss, capability)
{
	u64 msr = xstate_msr(&self->x, MSR_IA32_VMX_PROCBASED_CTLS2);

	EXPECT_TRUE(xcomp_same(&self->x, "control for XSAVES",
			       (u64)SECONDARY_EXEC_ENABLE_XSAVES << 32,
			       msr & (SECONDARY_EXEC_ENABLE_XSAVES |
				      (u64)SECONDARY_EXEC_ENABLE_XSAVES << 32)));
}

/* Prepare IA32_XSS, the components of CET, and an area for the next run. */
static void prepare(struct xcomp *x, struct nested *n, u64 xss, bool restore)
{
	u32 msr;
	u32 i;

	TEST_ASSERT(xkvm_set_msr(x->vcpu, MSR_IA32_XSS, xss),
		    "KVM_SET_MSRS of IA32_XSS failed");
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		msr = xcomp_cet_msrs[i];
		if (xcomp_has_msr(x, msr))
			TEST_ASSERT(xkvm_set_msr(x->vcpu, msr,
						 xstate_msr_value(x, msr, 0)),
				    "KVM_SET_MSRS of %s failed",
				    xf_msr_name(msr));
	}

	/* XRSTORS of an area that has no component makes them all initial. */
	n->restore = restore;
	n->vector = XAREA_POISON;
	xarea_fill(n->area, restore ? 0 : XAREA_POISON, XAREA_SIZE);
	if (restore)
		xarea_set_header(n->area, 1, XF_COMPACTED);
}

/* Whether XSAVES or XRSTORS was executed, or not at all */
static bool executed(struct xcomp *x, struct nested *n, u64 xss, bool wanted)
{
	u64 rfbm = n->rfbm & (xcomp_guest_xcr0(x) | xss), poison;
	u64 u_cet = xstate_msr_value(x, XF_MSR_U_CET, 0);
	bool ok;

	if (n->restore) {
		if (!xcomp_has_msr(x, XF_MSR_U_CET))
			return true;
		if (wanted && rfbm & XF_BIT(XF_CET_USER))
			u_cet = 0;
		return xcomp_same(x, "IA32_U_CET after XRSTORS", u_cet,
				  xstate_msr(x, XF_MSR_U_CET));
	}
	memset(&poison, XAREA_POISON, sizeof(poison));
	ok = xcomp_same(x, "XCOMP_BV of XSAVES",
			wanted ? rfbm | XF_COMPACTED : poison,
			xarea_header(n->area, 1));
	return ok & xcomp_same(x, "supervisor part of XSTATE_BV of XSAVES",
			       wanted ? rfbm & xss : poison & XF_CET,
			       xarea_header(n->area, 0) & XF_CET);
}

/* How the last run of L2 must have ended: at an instruction or at its end */
static bool ended(struct xcomp *x, struct nested *n, bool at_instruction)
{
	u64 reason = EXIT_REASON_VMCALL;
	bool ok;

	if (at_instruction)
		reason = n->restore ? EXIT_REASON_XRSTORS : EXIT_REASON_XSAVES;
	ok = xcomp_same(x, "VM-instruction error", 0, n->exit.error);
	ok &= xcomp_same(x, "exit reason", reason, n->exit.reason);
	if (at_instruction)
		return ok & xcomp_same(x, "instruction that exited",
				       n->restore ? XRSTORS_CODE : XSAVES_CODE,
				       n->code);
	return ok;
}

static bool bitmap_works(struct xcomp *x, struct kvm_vcpu *vcpu,
			 struct nested *n, u64 xss, bool restore)
{
	bool exits = n->rfbm & xss & n->bitmap, ok;

	prepare(x, n, xss, restore);
	xstate_run(vcpu, UCALL_SYNC);
	ok = ended(x, n, exits);
	ok &= executed(x, n, xss, !exits);
	ok &= xcomp_same(x, "vector", exits ? XAREA_POISON : 0, n->vector);
	if (!ok)
		ksft_print_msg("with IA32_XSS %#lx, bitmap %#lx, RFBM %#lx\n",
			       (long)xss, (long)n->bitmap, (long)n->rfbm);
	return ok;
}

/*
 * Verify that XSAVES and XRSTORS exit to L1 exactly if they ask for a component
 * that is both in IA32_XSS and in the bitmap, and that they have then done
 * nothing; and that they work otherwise.
 */
TEST_F(nested_xss, bitmap)
{
	static const u64 masks[] = {
		0, XF_BIT(XF_CET_USER), XF_BIT(XF_CET_KERNEL), XF_CET,
		~XF_CET, ~0ull,
	};
	u64 all = xcomp_guest_xss(&self->x), xss;
	u32 i, nr = ARRAY_SIZE(masks);

	self->n->enable = true;
	vcpu_arch_set_entry_point(self->vcpu, l1_xsaves_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	for (i = 0; i < nr * nr * 8; i++) {
		/* Each subset of two bits, as far as the guest may set it */
		xss = masks[i / (2 * nr * nr)];
		if (xss & ~all)
			continue;
		self->n->bitmap = masks[i / 2 / nr % nr];
		self->n->rfbm = masks[i / 2 % nr];
		ASSERT_TRUE(bitmap_works(&self->x, self->vcpu, self->n, xss,
					 i & 1));
	}
}

/* Verify that XSAVES and XRSTORS raise #UD if L1 does not enable them. */
TEST_F(nested_xss, not_enabled)
{
	u64 xss = xcomp_guest_xss(&self->x);
	u32 i;

	self->n->rfbm = ~0ull;
	vcpu_arch_set_entry_point(self->vcpu, l1_xsaves_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	for (i = 0; i < 4; i++) {
		self->n->bitmap = i & 2 ? ~0ull : 0;
		prepare(&self->x, self->n, xss, i & 1);
		xstate_run(self->vcpu, UCALL_SYNC);
		EXPECT_TRUE(ended(&self->x, self->n, false));
		EXPECT_TRUE(executed(&self->x, self->n, xss, false));
		EXPECT_EQ(UD_VECTOR, self->n->vector);
	}
}

/*
 * Verify that the bitmap holds after an exit from L2 to user space, and in
 * another VM to which the vCPU is moved from there.
 */
TEST_F(nested_xss, moved)
{
	u64 xss = xcomp_guest_xss(&self->x);
	u32 i;

	self->n->enable = true;
	self->n->sync = true;
	self->n->rfbm = ~0ull;
	vcpu_arch_set_entry_point(self->vcpu, l1_xsaves_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	for (i = 0; i < 8; i++) {
		self->n->bitmap = i & 2 ? xss : ~xss;
		prepare(&self->x, self->n, xss, i & 1);
		xstate_run(self->vcpu, UCALL_SYNC);
		EXPECT_EQ(xss, xstate_msr(&self->x, MSR_IA32_XSS));
		if (i & 4)
			self->vcpu = nested_move(&self->x, self->vcpu, false);
		xstate_run(self->vcpu, UCALL_SYNC);
		EXPECT_TRUE(ended(&self->x, self->n, xss && i & 2));
		EXPECT_TRUE(executed(&self->x, self->n, xss,
				     !(xss && i & 2)));
	}
}

/*
 * Verify that L1 and L2 have one IA32_XSS, that what L2 does with it exits to
 * L1 as the MSR bitmap has it, and that bits which the guest's CPUID lacks
 * raise #GP in L2.
 */
TEST_F(nested_xss, msr)
{
	u64 all = xcomp_guest_xss(&self->x), wanted;
	struct xcomp *x = &self->x;
	struct nested *n = self->n;
	u32 i, bit;
	bool bad;

	vcpu_arch_set_entry_point(self->vcpu, l1_msr_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	for (i = 0; i < 4 * 64; i++) {
		bit = i / 4;
		n->read_exits = i & 1;
		n->write_exits = i & 2;
		n->values[0] = bit & 1 ? all : 0;
		n->values[1] = BIT_ULL(bit);
		n->l2 = XAREA_POISON;
		xstate_run(self->vcpu, UCALL_SYNC);
		ASSERT_TRUE(xcomp_same(x, "exit of RDMSR",
				       n->read_exits ? EXIT_REASON_MSR_READ :
				       EXIT_REASON_VMCALL, n->exit.reason));
		ASSERT_TRUE(xcomp_same(x, "IA32_XSS of L1, as L2 reads it",
				       n->read_exits ? XAREA_POISON :
				       n->values[0], n->l2));

		bad = BIT_ULL(bit) & ~all;
		wanted = n->write_exits || bad ? n->values[0] : BIT_ULL(bit);
		n->vector = XAREA_POISON;
		xstate_run(self->vcpu, UCALL_SYNC);
		if (!n->write_exits) {
			ASSERT_TRUE(xcomp_same(x, "vector of WRMSR",
					       bad ? GP_VECTOR : 0, n->vector));
			ASSERT_TRUE(xcomp_same(x, "IA32_XSS with L2 active",
					       wanted,
					       xstate_msr(x, MSR_IA32_XSS)));
			xstate_run(self->vcpu, UCALL_SYNC);
		}
		ASSERT_TRUE(xcomp_same(x, "exit of WRMSR",
				       n->write_exits ? EXIT_REASON_MSR_WRITE :
				       EXIT_REASON_VMCALL, n->exit.reason));
		ASSERT_TRUE(xcomp_same(x, "IA32_XSS, as L1 reads it", wanted,
				       n->l1));
	}
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
