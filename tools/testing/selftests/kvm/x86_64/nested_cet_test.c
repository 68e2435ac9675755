// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET of a guest (L1) that runs a guest of its own (L2): what VM entry and VM
 * exit load and save, what the two share, and what the host sees and moves to
 * another VM while either of them is active.
 */
#include "xstate_cet_guest.h"
#include "xstate_nested.h"

/* What a test asks of L1 and L2, and what they find */
static struct nested {
	bool s_cet, shstk;		/* registers that they have */
	bool load[2];			/* on VM entry, on VM exit */
	struct nested_cet guest, host;	/* what L1 writes to the VMCS */
	struct nested_cet wrmsr;	/* what L2 writes */
	struct nested_cet l1, l2, fields;	/* what L1 and L2 read */
	bool tiles;			/* L1 and L2 use AMX */
	u32 msr;			/* the MSR that L2 accesses */
	u64 value;
	u8 area[4096] __aligned(64);	/* for XSAVES of L1 */
} nested;

static void guest_read_cet(struct nested_cet *c)
{
	if (nested.s_cet)
		c->s_cet = rdmsr(MSR_IA32_S_CET);
	if (nested.shstk)
		c->tab = rdmsr(MSR_IA32_INT_SSP_TAB);
}

static void guest_write_cet(const struct nested_cet *c)
{
	if (nested.s_cet)
		wrmsr(MSR_IA32_S_CET, c->s_cet);
	if (nested.shstk)
		wrmsr(MSR_IA32_INT_SSP_TAB, c->tab);
}

static void l1_write_fields(void)
{
	l1_control(VM_ENTRY_CONTROLS, VM_ENTRY_LOAD_CET_STATE,
		   nested.load[ON_ENTRY]);
	l1_control(VM_EXIT_CONTROLS, VM_EXIT_LOAD_CET_STATE,
		   nested.load[ON_EXIT]);
	l1_write_cet(GUEST_S_CET, &nested.guest);
	l1_write_cet(HOST_S_CET, &nested.host);
}

/* L2 changes all that it can, the host has SSP changed meanwhile. */
static void l2_switch_code(void)
{
	guest_read_cet(&nested.l2);
	GUEST_SYNC(0);
	guest_write_cet(&nested.wrmsr);
	GUEST_SYNC(1);
	l2_end();
}

static void l1_switch_code(struct vmx_pages *vmx)
{
	l1_begin(vmx);
	l1_write_fields();
	for (;;) {
		guest_read_cet(&nested.l1);
		GUEST_SYNC(2);
		l1_run_to_end(l2_switch_code);
		nested.fields = l1_cet_fields();
	}
}

static void guest_load_tiles(int nr)
{
	xstate_ldtilecfg(guests[nr].config);
	xstate_load_tiles(guests[nr].tiles);
}

static void l2_share_code(void)
{
	guest_read(guests, 0, "on the way to L2");
	if (nested.tiles)
		guest_check_tiles(guests, "on the way to L2");
	GUEST_SYNC(0);
	guest_read(guests, 0, "over an exit from L2");
	guest_write(guests, 1);
	if (nested.tiles) {
		guest_check_tiles(guests, "over an exit from L2");
		guest_load_tiles(1);
	}
	GUEST_SYNC(1);
	l2_end();
}

/* Let L2 change all that it shares with L1, which saves what XSAVES saves. */
static void l1_share_code(struct vmx_pages *vmx)
{
	l1_begin(vmx);
	if (nested.tiles)
		guest_load_tiles(0);
	asm volatile("xsaves64 %0"
		     : "+m" (nested.area) : "a" ((u32)XF_CET), "d" (0));
	l1_run_to_end(l2_share_code);
	guest_read(guests, 1, "on the way back to L1");
	if (nested.tiles)
		guest_check_tiles(guests + 1, "on the way back to L1");
	asm volatile("xrstors64 %0"
		     : : "m" (nested.area), "a" ((u32)XF_CET), "d" (0));
	GUEST_SYNC(2);
	if (nested.tiles)
		guest_check_tiles(guests + 1, "by XRSTORS of other components");
	GUEST_DONE();
}

static void l2_rdmsr_code(void)
{
	nested.value = rdmsr(nested.msr);
	l2_end();
}

static void l2_wrmsr_code(void)
{
	wrmsr(nested.msr, nested.value);
	l2_end();
}

/* Run L2, which is to access an MSR, and see whether it gets to its end. */
static void l1_run_msr(void *code, bool exits, u32 reason)
{
	struct nested_exit e = l1_run(code);

	if (!exits)
		reason = EXIT_REASON_VMCALL;
	__GUEST_ASSERT(!e.error && e.reason == reason,
		       "access to MSR %x, %s: wanted exit %u got %lx",
		       nested.msr, exits ? "intercepted" : "not intercepted",
		       reason, e.reason);
}

/* Each MSR with reads and writes that exit to L1, or do not */
static void l1_msr_code(struct vmx_pages *vmx)
{
	const struct guest_msr *m;
	u64 value;
	u32 i;

	l1_begin(vmx);
	for (i = 0; i < 4 * ARRAY_SIZE(guests->msrs); i++) {
		m = guests->msrs + i / 4;
		if (m->vector)
			continue;
		nested.msr = m->index;
		l1_intercept_msr(vmx, m->index, i & 1, i & 2);
		wrmsr(m->index, m->value[0]);
		l1_run_msr(l2_rdmsr_code, i & 1, EXIT_REASON_MSR_READ);
		__GUEST_ASSERT(i & 1 || nested.value == m->value[0],
			       "MSR %x as L2 reads it: wanted %lx got %lx",
			       m->index, m->value[0], nested.value);
		nested.value = m->value[1];
		l1_run_msr(l2_wrmsr_code, i & 2, EXIT_REASON_MSR_WRITE);
		value = rdmsr(m->index);
		__GUEST_ASSERT(value == m->value[!(i & 2)],
			       "MSR %x that L2 wrote: wanted %lx got %lx",
			       m->index, m->value[!(i & 2)], value);
	}
	GUEST_DONE();
}

FIXTURE(nested_cet) {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct nested *n;
	gva_t vmx;
	uint64_t taint;
};

FIXTURE_VARIANT(nested_cet) {
	const char *name;
};

XSTATE_VARIANT(nested_cet, none_noamx_shstk);
XSTATE_VARIANT(nested_cet, none_noamx_ibt);
XSTATE_VARIANT(nested_cet, none_noamx_cet);
XSTATE_VARIANT(nested_cet, guest_amx_cet);

FIXTURE_SETUP(nested_cet)
{
	struct xcomp *x = &self->x;

	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (nested_missing(x, true))
		SKIP(return, "%s", nested_missing(x, true));
	self->vcpu = nested_guest(x, NULL, &self->vmx);
	self->n = addr_gva2hva(self->vcpu->vm, (gva_t)&nested);
	self->n->s_cet = x->shstk_on || x->ibt_on;
	self->n->shstk = x->shstk_on;
	ASSERT_TRUE(xstate_fill(x, 0));
}

FIXTURE_TEARDOWN(nested_cet)
{
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

static struct nested_cet cet_value(const struct xcomp *x, unsigned int seed)
{
	struct nested_cet c = { 0 };

	if (x->shstk_on || x->ibt_on)
		c.s_cet = xstate_msr_value(x, XF_MSR_S_CET, seed);
	if (x->shstk_on) {
		c.ssp = xstate_ssp_value(seed);
		c.tab = xstate_msr_value(x, XF_MSR_INT_SSP_TAB, seed);
	}
	return c;
}

/* Whether the guest read, or the VMCS holds, the values of @seed */
static bool cet_is(struct xcomp *x, const char *what, struct nested_cet got,
		   unsigned int seed, bool ssp)
{
	struct nested_cet c = cet_value(x, seed);
	bool ok;

	ok = !xcomp_has_msr(x, XF_MSR_S_CET) ||
	     xf_msr_kept(x->name, XF_MSR_S_CET, what, c.s_cet, got.s_cet);
	if (!x->shstk_on)
		return ok;
	ok &= xf_msr_kept(x->name, XF_MSR_INT_SSP_TAB, what, c.tab, got.tab);
	return ok & (!ssp || xcomp_same(x, what, c.ssp, got.ssp));
}

/* Whether the host sees the values of @seed */
static bool host_sees(struct xcomp *x, const char *when, unsigned int seed)
{
	bool ok = xstate_msrs_kept(x, seed, when, false);

	return ok & xstate_ssp_kept(x, seed, when);
}

/* Run up to the next GUEST_SYNC(), which must come from L1 or L2. */
static void run_to(struct kvm_vcpu *vcpu, int level)
{
	bool l2;

	xstate_run(vcpu, UCALL_SYNC);
	l2 = vcpu->run->flags & KVM_RUN_X86_GUEST_MODE;
	TEST_ASSERT(l2 == (level == 2), "active level: wanted L%u got L%u",
		    level, l2 + 1);
}

/* Where a test moves the vCPU to another VM */
enum move { NOWHERE, CET_FIRST, CET_LAST };

static void move(struct xcomp *x, struct kvm_vcpu **vcpu, enum move how)
{
	if (how == NOWHERE)
		return;
	*vcpu = nested_move(x, *vcpu, how == CET_LAST);
}

/*
 * Run L2 twice. What it finds comes from the VMCS or from L1, what L1 finds
 * afterwards from the VMCS or from L2, and the VMCS has what L2 left.
 */
static bool switched(struct xcomp *x, struct kvm_vcpu **vcpu, struct nested *n,
		     bool on_entry, bool on_exit, enum move how)
{
	unsigned int round, in_l1 = 0, in_vmcs = 1, host = 2, left;
	bool ok = true;
	u64 ssp;

	n->load[ON_ENTRY] = on_entry;
	n->load[ON_EXIT] = on_exit;
	n->guest = cet_value(x, in_vmcs);
	n->host = cet_value(x, host);
	vcpu_arch_set_entry_point(*vcpu, l1_switch_code);
	run_to(*vcpu, 1);
	for (round = 0; round < 2; round++) {
		ok &= cet_is(x, "as L1 reads it", n->l1, in_l1, false);
		ok &= host_sees(x, "in L1", in_l1);
		move(x, vcpu, how);

		run_to(*vcpu, 2);
		left = on_entry ? in_vmcs : in_l1;
		ok &= cet_is(x, "as L2 reads it", n->l2, left, false);
		ok &= host_sees(x, "in L2", left);
		left = 3 + round;
		ssp = xstate_ssp_value(left);
		nested_ssp(x, KVM_SET_ONE_REG, &ssp);
		n->wrmsr = cet_value(x, left);
		run_to(*vcpu, 2);
		ok &= host_sees(x, "in L2 that wrote it", left);
		move(x, vcpu, how);
		ok &= host_sees(x, "in L2", left);

		run_to(*vcpu, 1);
		ok &= cet_is(x, "in the VMCS", n->fields, left, true);
		in_vmcs = left;
		in_l1 = on_exit ? host : left;
	}
	ok &= cet_is(x, "as L1 reads it", n->l1, in_l1, false);
	return ok & host_sees(x, "in L1", in_l1);
}

/* Verify that VM entry and VM exit load what the VMCS has, and save it. */
TEST_F(nested_cet, load_both)
{
	EXPECT_TRUE(switched(&self->x, &self->vcpu, self->n, true, true,
			     NOWHERE));
}

/* Verify that VM exit keeps what L2 left if it is not to load, and saves it. */
TEST_F(nested_cet, load_on_entry)
{
	EXPECT_TRUE(switched(&self->x, &self->vcpu, self->n, true, false,
			     NOWHERE));
}

/* Verify that L2 begins with what L1 has if VM entry is not to load. */
TEST_F(nested_cet, load_on_exit)
{
	EXPECT_TRUE(switched(&self->x, &self->vcpu, self->n, false, true,
			     NOWHERE));
}

/* Verify that L1 and L2 share the registers if nothing is to load them. */
TEST_F(nested_cet, load_neither)
{
	EXPECT_TRUE(switched(&self->x, &self->vcpu, self->n, false, false,
			     NOWHERE));
}

/*
 * Verify all of it when the vCPU moves to another VM each time that L1 or L2
 * exits to user space, and the nested state comes last there.
 */
TEST_F(nested_cet, moved)
{
	EXPECT_TRUE(switched(&self->x, &self->vcpu, self->n, true, true,
			     CET_FIRST));
}

/* Verify the same when the CET registers get there after the nested state. */
TEST_F(nested_cet, moved_cet_last)
{
	EXPECT_TRUE(switched(&self->x, &self->vcpu, self->n, true, true,
			     CET_LAST));
}

/* Verify the same where L1 and L2 share all registers. */
TEST_F(nested_cet, moved_load_neither)
{
	EXPECT_TRUE(switched(&self->x, &self->vcpu, self->n, false, false,
			     CET_FIRST));
}

/*
 * Verify that L1 and L2 share the MSRs that XSAVES saves, and tiles in use,
 * each of them as the other one left it, and that L1 gets back what it saved.
 */
TEST_F(nested_cet, shared)
{
	struct xcomp *x = &self->x;

	if (!x->shstk_on && !xkvm_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	guest_begin(x, self->vcpu, 0);
	guest_begin(x, self->vcpu, 1);
	vcpu_args_set(self->vcpu, 1, self->vmx);
	self->n->tiles = x->amx_on;
	vcpu_arch_set_entry_point(self->vcpu, l1_share_code);
	run_to(self->vcpu, 2);
	EXPECT_TRUE(xstate_cet_kept(x, 0, "KVM_RUN that ends in L2"));
	run_to(self->vcpu, 2);
	EXPECT_TRUE(xstate_cet_kept(x, 5, "KVM_RUN of an L2 that wrote it"));
	run_to(self->vcpu, 1);
	EXPECT_TRUE(xstate_msrs_kept(x, 0, "XRSTORS of L1", true));
	EXPECT_TRUE(xstate_msrs_kept(x, 5, "XRSTORS of L1", false));
	xstate_run(self->vcpu, UCALL_DONE);
}

/* Verify that accesses of L2 exit to L1 as the MSR bitmap of L1 has it. */
TEST_F(nested_cet, msr_bitmap)
{
	guest_begin(&self->x, self->vcpu, 0);
	vcpu_args_set(self->vcpu, 1, self->vmx);
	vcpu_arch_set_entry_point(self->vcpu, l1_msr_code);
	xstate_run(self->vcpu, UCALL_DONE);
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
