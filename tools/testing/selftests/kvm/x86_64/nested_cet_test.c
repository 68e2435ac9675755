// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET of a guest (L1) that runs a guest of its own (L2):
 *
 * - what VM entry and VM exit load and save, what the two share, and what the
 *   host sees and moves to another VM while either of them is active;
 * - the VMX capability MSRs and the consistency checks of VM entry: the controls
 *   and CR4.CET exist exactly if KVM offers CET, and a bad value in a CET field
 *   fails VM entry exactly if that field is to be loaded.
 */
#include "cet_guest.h"
#include "nested.h"

/* ---- state ---- */

/* What a test asks of L1 and L2, and what they find */
static struct state_shared {
	bool shstk;			/* they have these */
	bool load[2];			/* on VM entry, on VM exit */
	struct nested_cet value[2];	/* what L1 writes to the VMCS */
	struct nested_cet wrmsr;	/* what L2 writes */
	struct nested_cet l1, l2, fields;	/* what L1 and L2 read */
	u64 cr0_clear, cr4_set;		/* in L2 */
	struct nested_exit exit;

	struct cet_guest cet;		/* what L1 has, and what L2 leaves */
	u8 area[4096] __aligned(64);	/* for XSAVES of L1 */
} state;

static void guest_read_cet(struct nested_cet *c)
{
	c->s_cet = rdmsr(MSR_IA32_S_CET);
	if (state.shstk)
		c->tab = rdmsr(MSR_IA32_INT_SSP_TAB);
}

static void guest_write_cet(const struct nested_cet *c)
{
	wrmsr(MSR_IA32_S_CET, c->s_cet);
	if (state.shstk)
		wrmsr(MSR_IA32_INT_SSP_TAB, c->tab);
}

/* L2 changes all that it can, the host has SSP changed meanwhile. */
static void l2_switch_code(void)
{
	guest_read_cet(&state.l2);
	GUEST_SYNC(0);
	guest_write_cet(&state.wrmsr);
	GUEST_SYNC(1);
	l2_end();
}

static void l1_switch_code(void *pages)
{
	l1_begin(pages);
	l1_set_cet(state.load, state.value);
	for (;;) {
		guest_read_cet(&state.l1);
		GUEST_SYNC(2);
		l1_run_to_end(l2_switch_code);
		state.fields = l1_cet_fields();
	}
}

static void l2_read_code(void)
{
	guest_read_cet(&state.l2);
	l2_end();
}

/* One VMRUN after the other, as the host tells */
static void l1_vmrun_code(void *pages)
{
	l1_begin(pages);
	for (;;) {
		guest_read_cet(&state.l1);
		GUEST_SYNC(0);
		l1_set_cet(state.load, state.value);
		l1_set_crs((get_cr0() | X86_CR0_WP) & ~state.cr0_clear,
			   get_cr4() | state.cr4_set);
		state.exit = l1_run(l2_read_code);
		state.fields = l1_cet_fields();
	}
}

static void l2_share_code(void)
{
	cet_guest_expect(&state.cet, 0, "on the way to L2");
	GUEST_SYNC(0);
	cet_guest_expect(&state.cet, 0, "over an exit from L2");
	cet_guest_write(&state.cet, 1);
	GUEST_SYNC(1);
	l2_end();
}

/* Let L2 change all that it shares with L1, which saves what XSAVES saves. */
static void l1_share_code(void *pages)
{
	u32 mask = XFEATURE_MASK_CET;

	l1_begin(pages);
	l1_set_cet(state.load, state.value);
	asm volatile("xsaves64 %0" : "+m" (state.area) : "a" (mask), "d" (0));
	l1_run_to_end(l2_share_code);
	/* SVM has given L1 back what the VMCB switches: have it as L2 left it. */
	if (this_cpu_has(X86_FEATURE_SVM))
		guest_write_cet(&state.value[ON_EXIT]);
	cet_guest_expect(&state.cet, 1, "on the way back to L1");
	asm volatile("xrstors64 %0" : : "m" (state.area), "a" (mask), "d" (0));
	GUEST_DONE();
}

FIXTURE(nested_cet) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct state_shared *n;
};

XSTATE_SUITE(nested_cet);

FIXTURE_VARIANT_ADD(nested_cet, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(nested_cet, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(nested_cet, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(nested_cet, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(nested_cet)
{
	if (!nested_begin(_metadata, &variant->combo, true))
		return;
	self->vcpu = nested_new_guest(&self->vm, &variant->combo, NULL);
	self->n = addr_gva2hva(self->vm, (gva_t)&state);
	self->n->shstk = vcpu_has_shstk(self->vcpu);
	cet_guest_init(&self->n->cet, self->vcpu, 0, 5);
	vcpu_set_cet(_metadata, self->vcpu, &self->n->cet.regs[0]);
}

/* The values of @seed of what the VMCS switches */
static struct nested_cet cet_of(struct kvm_vcpu *vcpu, u32 seed)
{
	struct nested_cet c = { 0 };

	if (vcpu_has_cet_msr(vcpu, MSR_IA32_S_CET))
		c.s_cet = cet_msr_value(vcpu, MSR_IA32_S_CET, seed);
	if (vcpu_has_shstk(vcpu)) {
		c.ssp = ssp_value(seed);
		c.tab = cet_msr_value(vcpu, MSR_IA32_INT_SSP_TAB, seed);
	}
	return c;
}

/* The guest read, or the VMCS holds, the values of @seed. */
static void expect_switched(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			    const struct nested_cet *got, u32 seed, const char *what)
{
	struct nested_cet c = cet_of(vcpu, seed);

	EXPECT_SAME(c.s_cet, got->s_cet, "S_CET %s", what);
	EXPECT_SAME(c.tab, got->tab, "INT_SSP_TAB %s", what);
}

/* The host sees the values of @seed, of whichever level is active. */
static void expect_host_sees(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			     u32 seed, const char *when)
{
	struct nested_cet c = cet_of(vcpu, seed);

	EXPECT_SAME(c.s_cet, vcpu_get_msr(vcpu, MSR_IA32_S_CET), "S_CET %s", when);
	if (vcpu_has_shstk(vcpu))
		EXPECT_SAME(c.tab, vcpu_get_msr(vcpu, MSR_IA32_INT_SSP_TAB), "INT_SSP_TAB %s",
			    when);
	EXPECT_SAME(c.ssp, nested_get_ssp(vcpu), "SSP %s", when);
	EXPECT_XFEATURES(vcpu_xss_mask(vcpu), vcpu_get_msr(vcpu, MSR_IA32_XSS), "IA32_XSS %s",
			 when);
}

/*
 * What was written to these registers with L2 active is exactly as it was before: KVM
 * clears the clean bit for CET in the VMCB of L1, not in that of L2.
 */
#define LOST_WRITES	"SVM: writes to S_CET, SSP and the SSP table with L2 active are lost"

static bool svm_lost_writes(struct kvm_vcpu *vcpu, u32 seed)
{
	struct nested_cet c = cet_of(vcpu, seed);

	return kvm_cpu_has(X86_FEATURE_SVM) && nested_get_ssp(vcpu) == c.ssp &&
	       vcpu_get_msr(vcpu, MSR_IA32_S_CET) == c.s_cet &&
	       vcpu_get_msr(vcpu, MSR_IA32_INT_SSP_TAB) == c.tab;
}

/* Run up to the next GUEST_SYNC(), which must come from L1 or L2. */
static void run_to(struct kvm_vcpu *vcpu, int level)
{
	bool l2;

	xstate_run(vcpu, UCALL_SYNC);
	l2 = vcpu->run->flags & KVM_RUN_X86_GUEST_MODE;
	TEST_ASSERT(l2 == (level == 2), "active level: wanted L%u got L%u", level, l2 + 1);
}

/*
 * Run L2 twice. What it finds comes from the VMCS or from L1, what L1 finds
 * afterwards from the VMCS or from L2, and the VMCS has what L2 left.
 */
static void expect_switches(struct __test_metadata *const _metadata,
			    struct _test_data_nested_cet *self, bool on_entry, bool on_exit,
			    enum nested_move how)
{
	u32 round, in_l1 = 0, in_vmcs = 1, host = 2, left, wrote;
	struct state_shared *n = self->n;
	bool lost;

	n->load[ON_ENTRY] = on_entry;
	n->load[ON_EXIT] = on_exit;
	n->value[ON_ENTRY] = cet_of(self->vcpu, in_vmcs);
	n->value[ON_EXIT] = cet_of(self->vcpu, host);
	vcpu_arch_set_entry_point(self->vcpu, l1_switch_code);
	run_to(self->vcpu, 1);
	for (round = 0; round < 2; round++) {
		th_case("round %u", round);
		expect_switched(_metadata, self->vcpu, &n->l1, in_l1, "as L1 reads it");
		expect_host_sees(_metadata, self->vcpu, in_l1, "in L1");
		self->vcpu = nested_move(self->vcpu, how);

		run_to(self->vcpu, 2);
		left = on_entry ? in_vmcs : in_l1;
		expect_switched(_metadata, self->vcpu, &n->l2, left, "as L2 reads it");
		expect_host_sees(_metadata, self->vcpu, left, "in L2");
		wrote = 3 + round;
		nested_set_ssp(self->vcpu, ssp_value(wrote));
		n->wrmsr = cet_of(self->vcpu, wrote);
		run_to(self->vcpu, 2);
		lost = svm_lost_writes(self->vcpu, left);
		XFAIL_IF(lost, LOST_WRITES)
			expect_host_sees(_metadata, self->vcpu, wrote, "in L2 that wrote it");
		left = lost ? left : wrote;
		self->vcpu = nested_move(self->vcpu, how);
		expect_host_sees(_metadata, self->vcpu, left, "in L2, after a move");

		run_to(self->vcpu, 1);
		expect_switched(_metadata, self->vcpu, &n->fields, left, "in the VMCS");
		EXPECT_SAME(cet_of(self->vcpu, left).ssp, n->fields.ssp, "SSP in the VMCS");
		in_vmcs = left;
		if (kvm_cpu_has(X86_FEATURE_VMX))
			in_l1 = on_exit ? host : left;
	}
	expect_switched(_metadata, self->vcpu, &n->l1, in_l1, "as L1 reads it at last");
	expect_host_sees(_metadata, self->vcpu, in_l1, "in L1 at last");
}

/* Verify that VM entry and VM exit load what the VMCS has, and save it. */
TEST_F(nested_cet, load_both)
{
	expect_switches(_metadata, self, true, true, NOWHERE);
}

/* Verify that VM exit keeps what L2 left if it is not to load, and saves it. */
TEST_F(nested_cet, load_on_entry)
{
	if (nested_need_vmx(_metadata))
		expect_switches(_metadata, self, true, false, NOWHERE);
}

/* Verify that L2 begins with what L1 has if VM entry is not to load. */
TEST_F(nested_cet, load_on_exit)
{
	if (nested_need_vmx(_metadata))
		expect_switches(_metadata, self, false, true, NOWHERE);
}

/* Verify that L1 and L2 share the registers if nothing is to load them. */
TEST_F(nested_cet, load_neither)
{
	if (nested_need_vmx(_metadata))
		expect_switches(_metadata, self, false, false, NOWHERE);
}

/*
 * Verify all of it when the vCPU moves to another VM each time that L1 or L2
 * exits to user space, and the nested state comes last there.
 */
TEST_F(nested_cet, moved)
{
	expect_switches(_metadata, self, true, true, CET_FIRST);
}

/* Verify the same when the CET registers get there after the nested state. */
TEST_F(nested_cet, moved_cet_last)
{
	expect_switches(_metadata, self, true, true, CET_LAST);
}

/* Verify the same where L1 and L2 share all registers. */
TEST_F(nested_cet, moved_load_neither)
{
	if (nested_need_vmx(_metadata))
		expect_switches(_metadata, self, false, false, CET_FIRST);
}

/*
 * Verify that L1 and L2 share the MSRs that XSAVES saves, each of them as the
 * other one left it, and that L1 gets back what it saved.
 */
TEST_F(nested_cet, shared)
{
	const struct xregs *regs = self->n->cet.regs;
	struct xregs wanted = regs[1];
	int i;

	if (!vcpu_has_shstk(self->vcpu) && !xstate_need_refusals(_metadata))
		return;
	self->n->value[ON_ENTRY] = cet_of(self->vcpu, 0);
	self->n->value[ON_EXIT] = cet_of(self->vcpu, 5);
	vcpu_arch_set_entry_point(self->vcpu, l1_share_code);
	run_to(self->vcpu, 2);
	expect_cet(_metadata, self->vcpu, &regs[0], "KVM_RUN that ends in L2");
	run_to(self->vcpu, 2);
	XFAIL_IF(kvm_cpu_has(X86_FEATURE_SVM) && vcpu_holds_cet(self->vcpu, &regs[1], &regs[0]),
		 LOST_WRITES)
		expect_cet(_metadata, self->vcpu, &regs[1], "KVM_RUN of an L2 that wrote it");
	xstate_run(self->vcpu, UCALL_DONE);
	for (i = 0; i < NR_CET_MSRS; i++)
		if (cet_msr_component(cet_msrs[i]) >= 0)
			wanted.cet[i] = regs[0].cet[i];
	expect_cet(_metadata, self->vcpu, &wanted, "XRSTORS of L1");
}

/* Let L1 run L2, which VMRUN refuses, and leaves L1 and the VMCB alone, or which reads @l2. */
static void expect_vmrun(struct __test_metadata *const _metadata,
			 struct _test_data_nested_cet *self, const struct nested_cet *l2)
{
	u64 refused = EXIT_REASON_INVALID_STATE | EXIT_REASON_FAILED_VMENTRY;
	struct state_shared *n = self->n;

	memset(&n->l2, 0xff, sizeof(n->l2));
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_SAME(l2 ? EXIT_REASON_VMCALL : refused, n->exit.reason, "exit reason");
	expect_switched(_metadata, self->vcpu, &n->l1, 0, "of L1 afterwards");
	EXPECT_SAME(l2 ? l2->s_cet : -1ull, n->l2.s_cet, "S_CET of L2");
	EXPECT_SAME(l2 ? l2->tab : -1ull, n->l2.tab, "INT_SSP_TAB of L2");
	if (!l2)
		l2 = &n->value[ON_ENTRY];
	EXPECT_SAME(l2->s_cet, n->fields.s_cet, "S_CET in the VMCB");
	EXPECT_SAME(l2->ssp, n->fields.ssp, "SSP in the VMCB");
	EXPECT_SAME(l2->tab, n->fields.tab, "INT_SSP_TAB in the VMCB");
}

/*
 * Verify that VMRUN is refused for a reserved bit of S_CET, and for CR4.CET without
 * CR0.WP, and that it makes SSP and the SSP table canonical.
 */
TEST_F(nested_cet, vmrun)
{
	struct nested_cet good = cet_of(self->vcpu, 1);
	struct state_shared *n = self->n;
	u32 bit;

	if (!kvm_cpu_has(X86_FEATURE_SVM))
		SKIP(return, "KVM offers no SVM to guests");
	vcpu_arch_set_entry_point(self->vcpu, l1_vmrun_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	n->value[ON_ENTRY] = good;
	for (bit = 0; bit < 64; bit++) {
		th_case("S_CET[%u]", bit);
		good.s_cet = BIT_ULL(bit);
		n->value[ON_ENTRY].s_cet = good.s_cet;
		expect_vmrun(_metadata, self, bit < 2 ? &good : NULL);
	}
	n->value[ON_ENTRY].s_cet = 0;
	good.s_cet = 0;
	for (bit = 0; bit < 4; bit++) {
		n->cr0_clear = bit & 1 ? X86_CR0_WP : 0;
		n->cr4_set = bit & 2 ? X86_CR4_CET : 0;
		th_case("without CR0.WP: %u, with CR4.CET: %u", bit & 1, bit >> 1);
		expect_vmrun(_metadata, self, bit < 3 ? &good : NULL);
	}
	n->cr0_clear = 0;
	for (bit = 0; bit < 2; bit++) {
		th_case("SSP and INT_SSP_TAB at the %s", bit ? "start of the upper half" :
			"end of the lower half");
		good.ssp = bit ? -address_end() : address_end() - 4;
		good.tab = bit ? -address_end() : address_end() - 1;
		n->value[ON_ENTRY] = good;
		expect_vmrun(_metadata, self, &good);
	}
	th_case("SSP and INT_SSP_TAB not canonical");
	good = cet_of(self->vcpu, 1);
	good.s_cet = 0;
	n->value[ON_ENTRY] = good;
	n->value[ON_ENTRY].ssp ^= BIT_ULL(62);
	n->value[ON_ENTRY].tab ^= BIT_ULL(62);
	expect_vmrun(_metadata, self, &good);
}

/* ---- checks ---- */

/* What L1 tries, and what comes of it */
static struct checks_shared {
	bool load[2];			/* on VM entry, on VM exit */
	struct nested_cet value[2];	/* of the fields for guest and host */
	u64 cr0_clear[2], cr4_set[2];
	bool read_s_cet;		/* L1 has it */

	u64 field_error;		/* of VMWRITE to a CET field, or 0 */
	struct nested_exit exit;
	struct nested_cet fields;	/* those of the guest, afterwards */
	u64 s_cet;			/* what L1 has afterwards */
} checks;

/* One try after the other, as the host tells */
static void l1_checks_code(void *pages)
{
	u64 cr0, cr4, value;

	l1_begin(pages);
	cr0 = get_cr0() | X86_CR0_WP;
	cr4 = get_cr4();
	if (vmwrite(GUEST_S_CET, 0))
		checks.field_error = vmreadz(VM_INSTRUCTION_ERROR);
	GUEST_ASSERT(!checks.field_error == !vmread(GUEST_S_CET, &value));

	for (;;) {
		GUEST_SYNC(0);
		l1_set_cet(checks.load, checks.field_error ? NULL : checks.value);
		vmwrite(GUEST_CR0, cr0 & ~checks.cr0_clear[ON_ENTRY]);
		vmwrite(GUEST_CR4, cr4 | checks.cr4_set[ON_ENTRY]);
		vmwrite(HOST_CR0, cr0 & ~checks.cr0_clear[ON_EXIT]);
		vmwrite(HOST_CR4, cr4 | checks.cr4_set[ON_EXIT]);
		checks.exit = l1_run(l2_end);
		checks.fields = l1_cet_fields();
		if (checks.read_s_cet)
			checks.s_cet = rdmsr(MSR_IA32_S_CET);
	}
}

FIXTURE(nested_cet_checks) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct checks_shared *n;
	bool offered;		/* CET, by KVM */
	u8 cet;			/* what of it the guest has, SHSTK and IBT */
};

XSTATE_SUITE(nested_cet_checks);

FIXTURE_VARIANT_ADD(nested_cet_checks, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(nested_cet_checks, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(nested_cet_checks, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(nested_cet_checks, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(nested_cet_checks, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(nested_cet_checks)
{
	if (!nested_begin(_metadata, &variant->combo, false) || !nested_need_vmx(_metadata))
		return;
	self->offered = kvm_offered_xss();
	self->vcpu = nested_new_guest(&self->vm, &variant->combo, l1_checks_code);
	self->cet = (vcpu_has_shstk(self->vcpu) ? SHSTK : 0) |
		    (vcpu_has_ibt(self->vcpu) ? IBT : 0);
	self->n = addr_gva2hva(self->vm, (gva_t)&checks);
	self->n->read_s_cet = self->cet;
}

/*
 * The controls and their capability MSRs, of which the first is made from the
 * second and cannot be written by user space
 */
static const struct {
	const char *name;
	u64 control;
	u32 msr, true_msr;
} controls[] = {
	{ "VM entry", VM_ENTRY_LOAD_CET_STATE, MSR_IA32_VMX_ENTRY_CTLS,
	  MSR_IA32_VMX_TRUE_ENTRY_CTLS },
	{ "VM exit", VM_EXIT_LOAD_CET_STATE, MSR_IA32_VMX_EXIT_CTLS,
	  MSR_IA32_VMX_TRUE_EXIT_CTLS },
};

/* Both MSRs say that control @i may be set or not, and need not be. */
static void expect_control(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu, u32 i,
			   bool allowed, const char *when)
{
	u64 bits = controls[i].control << 32 | controls[i].control;
	u64 wanted = allowed ? controls[i].control << 32 : 0;

	EXPECT_SAME(wanted, vcpu_get_msr(vcpu, controls[i].msr) & bits, "%s controls %s",
		    controls[i].name, when);
	EXPECT_SAME(wanted, vcpu_get_msr(vcpu, controls[i].true_msr) & bits,
		    "true %s controls %s", controls[i].name, when);
}

/*
 * Verify that the controls may be set exactly if KVM offers CET, and need never
 * be; that user space may withhold them and not add them; that CR4.CET may be
 * set exactly if the guest's CPUID has CET; and that the fields are there if
 * the controls are.
 */
TEST_F(nested_cet_checks, capabilities)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	u64 msr, bit;
	u32 i, nr;

	for (i = 0; i < ARRAY_SIZE(controls); i++) {
		nr = controls[i].true_msr;
		bit = controls[i].control << 32;
		expect_control(_metadata, vcpu, i, self->offered, "at first");
		msr = vcpu_get_msr(vcpu, nr);
		EXPECT_SAME(self->offered, vcpu_takes_msr(vcpu, nr, msr | bit),
			    "%s control added by user space", controls[i].name);
		vcpu_set_msr(vcpu, nr, msr & ~bit);
		expect_control(_metadata, vcpu, i, false, "withheld");
		vcpu_set_msr(vcpu, nr, msr);
		expect_control(_metadata, vcpu, i, self->offered, "given back");
	}
	msr = vcpu_get_msr(vcpu, MSR_IA32_VMX_CR4_FIXED1);
	/* KVM follows CPUID here even if user space asks for too much. */
	if (self->cet == variant->combo.cet)
		EXPECT_SAME(self->cet ? X86_CR4_CET : 0, msr & X86_CR4_CET, "CR4.CET may be 1");
	msr = vcpu_get_msr(vcpu, MSR_IA32_VMX_CR4_FIXED0);
	EXPECT_SAME(0, msr & X86_CR4_CET, "CR4.CET must be 1");

	xstate_run(vcpu, UCALL_SYNC);
	if (self->offered || self->n->field_error)
		EXPECT_SAME(self->offered ? 0 : NESTED_ERROR_FIELD, self->n->field_error,
			    "VM-instruction error of VMWRITE to GUEST_S_CET");
}

enum end { L2_RUNS, BAD_CONTROLS, BAD_HOST, BAD_GUEST };

/* How L1's try to run L2 must end, with which error and exit reason of the SDM */
static const struct {
	u64 error, reason;
} ends[] = {
	[L2_RUNS] = { 0, EXIT_REASON_VMCALL },
	[BAD_CONTROLS] = { NESTED_ERROR_CONTROLS, 0 },
	[BAD_HOST] = { NESTED_ERROR_HOST_STATE, 0 },
	[BAD_GUEST] = { 0, EXIT_REASON_INVALID_STATE | EXIT_REASON_FAILED_VMENTRY },
};

/* Let L1 try, and check how that ends, and that nothing else has happened. */
static void expect_end(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		       struct checks_shared *n, enum end end, const char *what)
{
	memset(&n->exit, 0xff, sizeof(n->exit));
	xstate_run(vcpu, UCALL_SYNC);
	EXPECT_SAME(ends[end].error, n->exit.error, "VM-instruction error, %s", what);
	EXPECT_SAME(ends[end].reason, n->exit.reason, "exit reason, %s", what);
	EXPECT_SAME(0, n->exit.qualification, "exit qualification, %s", what);
}

/*
 * Verify that a control that the capability MSR withholds fails VM entry, and
 * that VM entry without it works.
 */
TEST_F(nested_cet_checks, control_withheld)
{
	u32 i, nr;

	for (i = 0; i < ARRAY_SIZE(controls); i++) {
		nr = controls[i].true_msr;
		vcpu_set_msr(self->vcpu, nr,
			     vcpu_get_msr(self->vcpu, nr) & ~(controls[i].control << 32));
	}
	xstate_run(self->vcpu, UCALL_SYNC);
	for (i = 0; i < 4; i++) {
		self->n->load[ON_ENTRY] = i & 1;
		self->n->load[ON_EXIT] = i & 2;
		th_case("set for VM entry: %d, for VM exit: %d", i & 1, i >> 1);
		expect_end(_metadata, self->vcpu, self->n, i ? BAD_CONTROLS : L2_RUNS,
			   "control withheld");
	}
}

/* Values that a field must not have, of guests that lack or have SHSTK or IBT */
static const struct bad {
	const char *name;
	struct nested_cet value;
	u8 lacks, has;
} bads[] = {
	{ "S_CET[6]", { .s_cet = BIT_ULL(6) }, 0, 0 },
	{ "S_CET[9]", { .s_cet = BIT_ULL(9) }, 0, 0 },
	{ "S_CET, SUPPRESS and WAIT_FOR_ENDBRANCH", { .s_cet = BIT_ULL(10) | BIT_ULL(11) }, 0, 0 },
	{ "S_CET, bitmap not canonical", { .s_cet = BIT_ULL(62) }, 0, 0 },
	{ "S_CET.SH_STK_EN", { .s_cet = CET_SHSTK_EN }, SHSTK, 0 },
	{ "S_CET.WR_SHSTK_EN", { .s_cet = CET_WRSS_EN }, SHSTK, 0 },
	{ "S_CET.NO_TRACK_EN", { .s_cet = CET_NO_TRACK_EN }, IBT, 0 },
	{ "S_CET, bitmap", { .s_cet = BIT_ULL(45) }, IBT, 0 },
	{ "SSP[0]", { .ssp = 1 }, 0, SHSTK },
	{ "SSP[1]", { .ssp = 2 }, 0, SHSTK },
	{ "SSP not canonical", { .ssp = BIT_ULL(62) }, 0, SHSTK },
	{ "SSP table not canonical", { .tab = BIT_ULL(62) }, 0, SHSTK },
};

/* Valid values for both fields, and S_CET of L1 itself */
static void good_values(struct kvm_vcpu *vcpu, struct checks_shared *n)
{
	n->value[ON_ENTRY] = cet_of(vcpu, 1);
	n->value[ON_EXIT] = cet_of(vcpu, 2);
	if (n->read_s_cet)
		vcpu_set_msr(vcpu, MSR_IA32_S_CET, cet_of(vcpu, 0).s_cet);
}

/* Let L1 try with a bad value in the fields of guest or host. */
static void expect_bad_field(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			     struct checks_shared *n, const struct bad *b, int which)
{
	u64 left;

	th_case("%s in a field of the %s", b->name, which == ON_ENTRY ? "guest" : "host");
	good_values(vcpu, n);
	n->load[ON_ENTRY] = true;
	n->load[ON_EXIT] = true;
	n->value[which] = b->value;
	expect_end(_metadata, vcpu, n, which == ON_ENTRY ? BAD_GUEST : BAD_HOST, "loaded");
	left = which == ON_ENTRY ? n->value[ON_EXIT].s_cet : cet_of(vcpu, 0).s_cet;
	if (n->read_s_cet)
		EXPECT_SAME(left, n->s_cet, "S_CET of L1 after the failure");
	EXPECT_SAME(n->value[ON_ENTRY].s_cet, n->fields.s_cet, "S_CET in the VMCS");
	EXPECT_SAME(n->value[ON_ENTRY].ssp, n->fields.ssp, "SSP in the VMCS");
	EXPECT_SAME(n->value[ON_ENTRY].tab, n->fields.tab, "SSP table in the VMCS");

	n->load[which] = false;
	expect_end(_metadata, vcpu, n, L2_RUNS, "not loaded");
	left = n->value[!which].s_cet;
	if (n->read_s_cet)
		EXPECT_SAME(left, n->s_cet, "S_CET of L1 where it is not loaded");
}

/*
 * Verify that VM entry fails for a bad value in a field, and works if the field
 * is not to be loaded. If the failure is due to a field of the guest, L1 has
 * what the host fields say, else what it had, and the VMCS is as it was.
 */
TEST_F(nested_cet_checks, fields)
{
	const struct bad *b;

	if (!self->offered)
		SKIP(return, "KVM offers no guest CET");
	xstate_run(self->vcpu, UCALL_SYNC);
	for (b = bads; b < bads + ARRAY_SIZE(bads); b++) {
		if (self->cet & b->lacks || b->has & ~self->cet)
			continue;
		expect_bad_field(_metadata, self->vcpu, self->n, b, ON_ENTRY);
		expect_bad_field(_metadata, self->vcpu, self->n, b, ON_EXIT);
	}
	th_no_case();
	good_values(self->vcpu, self->n);
	self->n->load[ON_ENTRY] = true;
	expect_end(_metadata, self->vcpu, self->n, L2_RUNS, "good values");
}

/* Values that a field may just have, or that have all bits at once, for guests with SHSTK or IBT */
struct good {
	const char *name;
	struct nested_cet value;
	u8 has;
};

#define NR_GOODS	12

static void make_goods(struct good goods[NR_GOODS], u8 cet)
{
	u64 half = address_end(), unit = BIT_ULL(14);
	/* CET of the guest's kernel stays off: its exception entry has no ENDBR. */
	u64 all = (half - unit) | (cet & SHSTK ? CET_WRSS_EN : 0) | CET_NO_TRACK_EN |
		  CET_SUPPRESS_DISABLE | CET_SUPPRESS | CET_WAIT_ENDBR | BIT_ULL(3);
	const struct good values[NR_GOODS] = {
		{ "nothing", { }, 0 },
		{ "SSP 4", { .ssp = 4 }, SHSTK },
		{ "SSP at the end of the lower half", { .ssp = half - 4 }, SHSTK },
		{ "SSP at the start of the upper half", { .ssp = -half }, SHSTK },
		{ "SSP at the end", { .ssp = -4ull }, SHSTK },
		{ "SSP table at the end of the lower half", { .tab = half - 1 }, SHSTK },
		{ "SSP table at the start of the upper half", { .tab = -half }, SHSTK },
		{ "SSP table at the end", { .tab = -1ull }, SHSTK },
		{ "S_CET, bitmap at the end", { .s_cet = -unit }, IBT },
		{ "S_CET, bitmap at the start of the upper half", { .s_cet = -half }, IBT },
		{ "S_CET, all bits but SUPPRESS", { .s_cet = all & ~CET_SUPPRESS }, IBT },
		{ "S_CET, all bits but WAIT_ENDBR", { .s_cet = all & ~CET_WAIT_ENDBR }, IBT },
	};

	memcpy(goods, values, sizeof(values));
}

/* The CET registers of L1 that VM exit loads, as the host finds them */
static void expect_l1(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		      const struct nested_cet *wanted)
{
	EXPECT_SAME(wanted->s_cet, vcpu_get_msr(vcpu, MSR_IA32_S_CET), "S_CET of L1");
	if (!vcpu_has_shstk(vcpu))
		return;
	EXPECT_SAME(wanted->ssp, nested_get_ssp(vcpu), "SSP of L1");
	EXPECT_SAME(wanted->tab, vcpu_get_msr(vcpu, MSR_IA32_INT_SSP_TAB), "SSP table of L1");
}

/*
 * Verify that VM entry takes what is just valid, that L2 has and leaves it, and L1 has
 * what the fields of the host say.
 */
TEST_F(nested_cet_checks, edges)
{
	struct checks_shared *n = self->n;
	struct good goods[NR_GOODS], *g;

	if (!self->offered)
		SKIP(return, "KVM offers no guest CET");
	make_goods(goods, self->cet);
	xstate_run(self->vcpu, UCALL_SYNC);
	n->load[ON_ENTRY] = true;
	n->load[ON_EXIT] = true;
	for (g = goods; g < goods + NR_GOODS; g++) {
		if (g->has & ~self->cet)
			continue;
		th_case("%s", g->name);
		good_values(self->vcpu, n);
		n->value[ON_ENTRY] = g->value;
		expect_end(_metadata, self->vcpu, n, L2_RUNS, "in a field of the guest");
		EXPECT_SAME(g->value.s_cet, n->fields.s_cet, "S_CET that L2 leaves");
		EXPECT_SAME(g->value.ssp, n->fields.ssp, "SSP that L2 leaves");
		EXPECT_SAME(g->value.tab, n->fields.tab, "SSP table that L2 leaves");
		expect_l1(_metadata, self->vcpu, &n->value[ON_EXIT]);

		good_values(self->vcpu, n);
		n->value[ON_EXIT] = g->value;
		expect_end(_metadata, self->vcpu, n, L2_RUNS, "in a field of the host");
		expect_l1(_metadata, self->vcpu, &g->value);
	}
}

/* ---- L2 active in a vCPU that is restored ---- */

static void l2_sync_code(void)
{
	GUEST_SYNC(0);
	l2_end();
}

static void l1_restored_code(void *pages)
{
	l1_begin(pages);
	l1_set_cet(checks.load, checks.value);
	l1_run_to_end(l2_sync_code);
	GUEST_DONE();
}

/*
 * Where KVM has the fields of the host in the state that it saves, with those of the
 * guest behind them: what L1 has written is there once.
 */
static struct nested_cet *saved_fields(struct kvm_x86_state *state, const struct nested_cet *host)
{
	u8 *p = (u8 *)&state->nested, *found = NULL;
	u32 i;

	for (i = 0; i + 2 * sizeof(*host) <= state->nested.size; i += 8) {
		if (memcmp(p + i, host, sizeof(*host)))
			continue;
		TEST_ASSERT(!found, "two VMCSs in the nested state");
		found = p + i;
	}
	TEST_ASSERT(found, "no VMCS with the fields of the host in the nested state");
	return (struct nested_cet *)found;
}

/* A vCPU with all of @state but the nested one */
static struct kvm_vcpu *recreate_unnested(struct kvm_vcpu *vcpu, struct kvm_x86_state *state)
{
	u32 size = state->nested.size;

	vcpu = xstate_recreate(vcpu);
	state->nested.size = 0;
	vcpu_load_state(vcpu, state);
	state->nested.size = size;
	return vcpu;
}

static int set_nested(struct kvm_vcpu *vcpu, struct kvm_x86_state *state)
{
	return vcpu_errno(vcpu, KVM_SET_NESTED_STATE, &state->nested);
}

/* The state of a vCPU with L2 active, whose VMCS has CET loaded or not */
static struct kvm_x86_state *save_with_l2(struct _test_data_nested_cet_checks *self,
					  const struct xstate_combo *combo, bool load,
					  struct nested_cet **fields)
{
	struct kvm_x86_state *state;

	kvm_vm_free(self->vm);
	self->vcpu = nested_new_guest(&self->vm, combo, l1_restored_code);
	self->n = addr_gva2hva(self->vm, (gva_t)&checks);
	good_values(self->vcpu, self->n);
	/* Valid without shadow stacks as well, and nothing else looks like it. */
	self->n->value[ON_EXIT].ssp = ssp_value(7);
	self->n->value[ON_EXIT].tab = 0x123456789000;
	self->n->load[ON_ENTRY] = load;
	self->n->load[ON_EXIT] = load;
	run_to(self->vcpu, 2);
	state = vcpu_save_state(self->vcpu);
	*fields = saved_fields(state, &self->n->value[ON_EXIT]);
	return state;
}

/*
 * Verify that KVM_SET_NESTED_STATE refuses a VMCS with a bad value in a field that is to
 * be loaded, and takes it mended; and that L2 goes on then.
 */
TEST_F(nested_cet_checks, nested_state)
{
	struct nested_cet *fields, had;
	struct kvm_x86_state *state;
	const struct bad *b;
	int which;

	if (!self->offered)
		SKIP(return, "KVM offers no guest CET");
	state = save_with_l2(self, &variant->combo, true, &fields);
	self->vcpu = recreate_unnested(self->vcpu, state);
	for (b = bads; b < bads + ARRAY_SIZE(bads); b++) {
		if (self->cet & b->lacks || b->has & ~self->cet)
			continue;
		for (which = ON_ENTRY; which <= ON_EXIT; which++) {
			/* Whether the bitmap of L2 is canonical, the CPU looks. */
			if (which == ON_ENTRY && b->value.s_cet == BIT_ULL(62))
				continue;
			th_case("%s in a field of the %s", b->name,
				which == ON_ENTRY ? "guest" : "host");
			had = fields[which == ON_ENTRY];
			fields[which == ON_ENTRY] = b->value;
			EXPECT_ERRNO(EINVAL, set_nested(self->vcpu, state), "KVM_SET_NESTED_STATE");
			fields[which == ON_ENTRY] = had;
		}
	}
	th_no_case();
	EXPECT_ERRNO(0, set_nested(self->vcpu, state), "KVM_SET_NESTED_STATE with good values");
	if (!_metadata->exit_code)
		xstate_run(self->vcpu, UCALL_DONE);
	kvm_x86_state_cleanup(state);
}

/* Verify that bad values do not matter in fields that are not to be loaded. */
TEST_F(nested_cet_checks, nested_state_not_loaded)
{
	const struct nested_cet bad = { BIT_ULL(6) | BIT_ULL(9), 3, BIT_ULL(62) };
	struct kvm_x86_state *state;
	struct nested_cet *fields;

	if (!self->offered)
		SKIP(return, "KVM offers no guest CET");
	state = save_with_l2(self, &variant->combo, false, &fields);
	self->vcpu = recreate_unnested(self->vcpu, state);
	fields[0] = bad;
	fields[1] = bad;
	EXPECT_ERRNO(0, set_nested(self->vcpu, state), "KVM_SET_NESTED_STATE");
	if (!_metadata->exit_code)
		xstate_run(self->vcpu, UCALL_DONE);
	kvm_x86_state_cleanup(state);
}

/*
 * Verify that CR4.CET fails VM entry without CR0.WP, or if the guest's CPUID
 * has no CET, in the fields of guest and host alike and whatever is loaded.
 */
TEST_F(nested_cet_checks, cr4)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	struct checks_shared *n = self->n;
	enum end bad;
	u32 i, load;

	xstate_run(vcpu, UCALL_SYNC);
	for (i = 0; i < 4; i++) {
		bad = i & 1 ? BAD_HOST : BAD_GUEST;
		load = self->offered && i & 2;
		th_case("CR4 of the %s, CET loaded: %u", i & 1 ? "host" : "guest", load);
		good_values(vcpu, n);
		n->load[ON_ENTRY] = load;
		n->load[ON_EXIT] = load;
		n->cr0_clear[i & 1] = X86_CR0_WP;
		expect_end(_metadata, vcpu, n, L2_RUNS, "no CR0.WP");
		n->cr4_set[i & 1] = X86_CR4_CET;
		expect_end(_metadata, vcpu, n, bad, "CR4.CET without CR0.WP");
		n->cr0_clear[i & 1] = 0;
		expect_end(_metadata, vcpu, n, self->cet ? L2_RUNS : bad, "CR4.CET with CR0.WP");
		n->cr4_set[i & 1] = 0;
	}
}

XSTATE_HARNESS_MAIN
