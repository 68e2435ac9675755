// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET in the VMX capability MSRs and in the consistency checks of VM entry: the
 * controls and CR4.CET exist exactly if KVM offers CET, and a bad value in a
 * CET field fails VM entry exactly if that field is to be loaded.
 */
#include "xstate_nested.h"

/* What L1 tries, and what comes of it */
static struct nested {
	bool load[2];			/* on VM entry, on VM exit */
	struct nested_cet value[2];		/* of the fields for guest and host */
	u64 cr0_clear[2], cr4_set[2];
	bool read_s_cet;

	bool no_field;			/* VMWRITE of a CET field fails */
	u64 field_error;
	struct nested_exit exit;
	struct nested_cet fields;		/* those of the guest, afterwards */
	u64 s_cet;			/* what L1 has afterwards */
} nested;

static void l2_code(void)
{
	l2_end();
}

/* One try after the other, as the host tells */
static void l1_code(struct vmx_pages *vmx)
{
	u64 cr0[2], cr4[2], value;

	l1_begin(vmx);
	cr0[ON_ENTRY] = vmreadz(GUEST_CR0) | X86_CR0_WP;
	cr4[ON_ENTRY] = vmreadz(GUEST_CR4);
	cr0[ON_EXIT] = vmreadz(HOST_CR0) | X86_CR0_WP;
	cr4[ON_EXIT] = vmreadz(HOST_CR4);
	nested.no_field = vmwrite(GUEST_S_CET, 0);
	if (nested.no_field)
		nested.field_error = vmreadz(VM_INSTRUCTION_ERROR);
	GUEST_ASSERT(nested.no_field == !!vmread(GUEST_S_CET, &value));

	for (;;) {
		GUEST_SYNC(0);
		l1_control(VM_ENTRY_CONTROLS, VM_ENTRY_LOAD_CET_STATE,
			   nested.load[ON_ENTRY]);
		l1_control(VM_EXIT_CONTROLS, VM_EXIT_LOAD_CET_STATE,
			   nested.load[ON_EXIT]);
		if (!nested.no_field) {
			l1_write_cet(GUEST_S_CET, &nested.value[ON_ENTRY]);
			l1_write_cet(HOST_S_CET, &nested.value[ON_EXIT]);
		}
		vmwrite(GUEST_CR0, cr0[ON_ENTRY] & ~nested.cr0_clear[ON_ENTRY]);
		vmwrite(GUEST_CR4, cr4[ON_ENTRY] | nested.cr4_set[ON_ENTRY]);
		vmwrite(HOST_CR0, cr0[ON_EXIT] & ~nested.cr0_clear[ON_EXIT]);
		vmwrite(HOST_CR4, cr4[ON_EXIT] | nested.cr4_set[ON_EXIT]);
		nested.exit = l1_run(l2_code);
		nested.fields = l1_cet_fields();
		if (nested.read_s_cet)
			nested.s_cet = rdmsr(MSR_IA32_S_CET);
	}
}

FIXTURE(nested_cet_checks) {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct nested *n;
	bool offered, has;	/* CET: by KVM at all, by the guest */
	uint64_t taint;
};

FIXTURE_VARIANT(nested_cet_checks) {
	const char *name;
};

XSTATE_VARIANT(nested_cet_checks, none_noamx_nocet);
XSTATE_VARIANT(nested_cet_checks, none_noamx_shstk);
XSTATE_VARIANT(nested_cet_checks, none_noamx_ibt);
XSTATE_VARIANT(nested_cet_checks, none_noamx_cet);
XSTATE_VARIANT(nested_cet_checks, guest_amx_cet);

FIXTURE_SETUP(nested_cet_checks)
{
	struct xcomp *x = &self->x;
	gva_t vmx;

	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (nested_missing(x, false))
		SKIP(return, "%s", nested_missing(x, false));
	self->offered = xcomp_offers_shstk() || xcomp_offers_ibt();
	self->has = x->shstk_on || x->ibt_on;
	self->vcpu = nested_guest(x, l1_code, &vmx);
	self->n = addr_gva2hva(self->vcpu->vm, (gva_t)&nested);
	self->n->read_s_cet = self->has;
}

FIXTURE_TEARDOWN(nested_cet_checks)
{
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

/*
 * The controls and their capability MSRs, of which the first is made from the
 * second and cannot be written by user space
 */
static const struct {
	const char *name;
	u32 control;
	u32 msr, true_msr;
} controls[] = {
	{ "VM entry", VM_ENTRY_LOAD_CET_STATE, MSR_IA32_VMX_ENTRY_CTLS,
	  MSR_IA32_VMX_TRUE_ENTRY_CTLS },
	{ "VM exit", VM_EXIT_LOAD_CET_STATE, MSR_IA32_VMX_EXIT_CTLS,
	  MSR_IA32_VMX_TRUE_EXIT_CTLS },
};

/* Whether both MSRs say that control @i may be set or not, and need not be */
static bool control_is(struct xcomp *x, u32 i, const char *when, bool allowed)
{
	u64 bits = ((u64)controls[i].control << 32) | controls[i].control;
	u64 wanted = allowed ? (u64)controls[i].control << 32 : 0;
	bool ok;

	ok = xcomp_same(x, when, wanted,
			xstate_msr(x, controls[i].msr) & bits);
	return ok & xcomp_same(x, controls[i].name, wanted,
			       xstate_msr(x, controls[i].true_msr) & bits);
}

/*
 * Verify that the controls may be set exactly if KVM offers CET, and need never
 * be; that user space may withhold them and not add them; that CR4.CET may be
 * set exactly if the guest's CPUID has CET; and that the fields are there if
 * the controls are.
 */
TEST_F(nested_cet_checks, capabilities)
{
	struct xcomp *x = &self->x;
	u64 msr, bit;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(controls); i++) {
		bit = (u64)controls[i].control << 32;
		EXPECT_TRUE(control_is(x, i, "at first", self->offered));
		msr = xstate_msr(x, controls[i].true_msr);
		EXPECT_TRUE(xcomp_same(x, "control added", self->offered,
				       xkvm_set_msr(x->vcpu,
						    controls[i].true_msr,
						    msr | bit)));
		EXPECT_TRUE(xkvm_set_msr(x->vcpu, controls[i].true_msr,
					 msr & ~bit));
		EXPECT_TRUE(control_is(x, i, "withheld", false));
		EXPECT_TRUE(xkvm_set_msr(x->vcpu, controls[i].true_msr, msr));
		EXPECT_TRUE(control_is(x, i, "given back", self->offered));
	}
	msr = vcpu_get_msr(self->vcpu, MSR_IA32_VMX_CR4_FIXED1);
	/* KVM follows CPUID here even if user space asks for too much. */
	if (x->shstk == x->shstk_on && x->ibt == x->ibt_on)
		EXPECT_TRUE(xcomp_same(x, "CR4.CET may be 1", self->has,
				       !!(msr & XSTATE_CR4_CET)));
	msr = vcpu_get_msr(self->vcpu, MSR_IA32_VMX_CR4_FIXED0);
	EXPECT_EQ(0, msr & XSTATE_CR4_CET);

	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_FALSE(self->offered && self->n->no_field);
	if (self->n->no_field)
		EXPECT_EQ(NESTED_ERROR_FIELD, self->n->field_error);
}

/* How L1's try to run L2 must end */
enum end { L2_RUNS, BAD_CONTROLS, BAD_HOST, BAD_GUEST };

/* Let L1 try, and check how that ends, and that nothing else has happened. */
static bool ends(struct xcomp *x, struct kvm_vcpu *vcpu, struct nested *n,
		 const char *what, enum end end)
{
	/* The errors and exit reasons of the SDM; 0 and none otherwise */
	static const u64 errors[] = {
		[BAD_CONTROLS] = NESTED_ERROR_CONTROLS,
		[BAD_HOST] = NESTED_ERROR_HOST_STATE,
		[BAD_GUEST] = 0,
	};
	static const u64 reasons[] = {
		[L2_RUNS] = EXIT_REASON_VMCALL,
		[BAD_GUEST] = EXIT_REASON_INVALID_STATE |
			      EXIT_REASON_FAILED_VMENTRY,
	};
	bool ok;

	memset(&n->exit, 0xff, sizeof(n->exit));
	xstate_run(vcpu, UCALL_SYNC);
	ok = xcomp_same(x, what, errors[end], n->exit.error);
	if (errors[end])
		return ok;
	ok &= xcomp_same(x, what, reasons[end], n->exit.reason);
	return ok & xcomp_same(x, what, 0, n->exit.qualification);
}

/*
 * Verify that a control that the capability MSR withholds fails VM entry, and
 * that VM entry without it works.
 */
TEST_F(nested_cet_checks, control_withheld)
{
	u64 entry = vcpu_get_msr(self->vcpu, MSR_IA32_VMX_TRUE_ENTRY_CTLS);
	u64 exit = vcpu_get_msr(self->vcpu, MSR_IA32_VMX_TRUE_EXIT_CTLS);
	struct nested *n = self->n;
	u32 i;

	vcpu_set_msr(self->vcpu, MSR_IA32_VMX_TRUE_ENTRY_CTLS,
		     entry & ~((u64)VM_ENTRY_LOAD_CET_STATE << 32));
	vcpu_set_msr(self->vcpu, MSR_IA32_VMX_TRUE_EXIT_CTLS,
		     exit & ~((u64)VM_EXIT_LOAD_CET_STATE << 32));
	xstate_run(self->vcpu, UCALL_SYNC);
	for (i = 0; i < 4; i++) {
		n->load[ON_ENTRY] = i & 1;
		n->load[ON_EXIT] = i & 2;
		EXPECT_TRUE(ends(&self->x, self->vcpu, n, "control withheld",
				 i ? BAD_CONTROLS : L2_RUNS));
	}
}

/* Values that a field must not have, and what the guest must lack or have */
static const struct bad {
	const char *name;
	struct nested_cet value;
	enum { ANY, NO_SHSTK, NO_IBT, SHSTK } guest;
} bads[] = {
	{ "S_CET[6]", { .s_cet = BIT_ULL(6) }, ANY },
	{ "S_CET[9]", { .s_cet = BIT_ULL(9) }, ANY },
	{ "S_CET, SUPPRESS and WAIT_FOR_ENDBRANCH",
	  { .s_cet = BIT_ULL(10) | BIT_ULL(11) }, ANY },
	{ "S_CET, bitmap not canonical", { .s_cet = BIT_ULL(62) }, ANY },
	{ "S_CET.SH_STK_EN", { .s_cet = BIT_ULL(0) }, NO_SHSTK },
	{ "S_CET.WR_SHSTK_EN", { .s_cet = XCOMP_CET_WRSS_EN }, NO_SHSTK },
	{ "S_CET.NO_TRACK_EN", { .s_cet = XCOMP_CET_NO_TRACK_EN }, NO_IBT },
	{ "S_CET, bitmap", { .s_cet = BIT_ULL(45) }, NO_IBT },
	{ "SSP[0]", { .ssp = 1 }, SHSTK },
	{ "SSP[1]", { .ssp = 2 }, SHSTK },
	{ "SSP not canonical", { .ssp = BIT_ULL(62) }, SHSTK },
	{ "SSP table not canonical", { .tab = BIT_ULL(62) }, SHSTK },
};

static bool bad_for(const struct xcomp *x, const struct bad *b)
{
	switch (b->guest) {
	case NO_SHSTK:
		return !x->shstk_on;
	case NO_IBT:
		return !x->ibt_on;
	case SHSTK:
		return x->shstk_on;
	default:
		return true;
	}
}

/* Valid values for both fields, and S_CET of L1 itself */
static void good_values(struct xcomp *x, struct nested *n)
{
	int i;

	memset(n->value, 0, sizeof(n->value));
	for (i = 0; i < 2; i++) {
		if (x->shstk_on || x->ibt_on)
			n->value[i].s_cet = xstate_msr_value(x, XF_MSR_S_CET,
							     1 + i);
		if (x->shstk_on)
			n->value[i].ssp = xstate_ssp_value(1 + i);
	}
	if (n->read_s_cet)
		TEST_ASSERT(xkvm_set_msr(x->vcpu, XF_MSR_S_CET,
					 xstate_msr_value(x, XF_MSR_S_CET, 0)),
			    "KVM_SET_MSRS of S_CET failed");
}

/* Whether L1 has the S_CET that it must have after its last try */
static bool s_cet_is(struct xcomp *x, struct nested *n, u64 wanted)
{
	return !n->read_s_cet ||
	       xcomp_same(x, "S_CET of L1", wanted, n->s_cet);
}

/* Let L1 try with a bad value in the fields of guest or host. */
static bool bad_field(struct xcomp *x, struct kvm_vcpu *vcpu, struct nested *n,
		      const struct bad *b, int which)
{
	u64 own = xstate_msr_value(x, XF_MSR_S_CET, 0);
	bool ok;

	good_values(x, n);
	n->load[ON_ENTRY] = true;
	n->load[ON_EXIT] = true;
	n->value[which] = b->value;
	if (which == ON_ENTRY) {
		ok = ends(x, vcpu, n, b->name, BAD_GUEST);
		ok &= s_cet_is(x, n, n->value[ON_EXIT].s_cet);
	} else {
		ok = ends(x, vcpu, n, b->name, BAD_HOST);
		ok &= s_cet_is(x, n, own);
	}
	ok &= xcomp_same(x, "S_CET in the VMCS", n->value[ON_ENTRY].s_cet,
			 n->fields.s_cet);
	ok &= xcomp_same(x, "SSP in the VMCS", n->value[ON_ENTRY].ssp,
			 n->fields.ssp);
	ok &= xcomp_same(x, "SSP table in the VMCS", n->value[ON_ENTRY].tab,
			 n->fields.tab);

	n->load[which] = false;
	ok &= ends(x, vcpu, n, b->name, L2_RUNS);
	if (!ok)
		ksft_print_msg("with %s\n", b->name);
	return ok & s_cet_is(x, n, n->value[!which].s_cet);
}

/*
 * Verify that VM entry fails for a bad value in a field, and works if the field
 * is not to be loaded. If the failure is due to a field of the guest, L1 has
 * what the host fields say, else what it had, and the VMCS is as it was.
 */
TEST_F(nested_cet_checks, fields)
{
	struct xcomp *x = &self->x;
	const struct bad *b;

	if (!self->offered)
		SKIP(return, "KVM offers no guest CET");
	xstate_run(self->vcpu, UCALL_SYNC);
	for (b = bads; b < bads + ARRAY_SIZE(bads); b++) {
		if (!bad_for(x, b))
			continue;
		EXPECT_TRUE(bad_field(x, self->vcpu, self->n, b, ON_ENTRY));
		EXPECT_TRUE(bad_field(x, self->vcpu, self->n, b, ON_EXIT));
	}
	good_values(x, self->n);
	self->n->load[ON_ENTRY] = true;
	EXPECT_TRUE(ends(x, self->vcpu, self->n, "good values", L2_RUNS));
}

/*
 * Verify that CR4.CET fails VM entry without CR0.WP, or if the guest's CPUID
 * has no CET, in the fields of guest and host alike and whatever is loaded.
 */
TEST_F(nested_cet_checks, cr4)
{
	static const enum end bad[] = { BAD_GUEST, BAD_HOST };
	struct xcomp *x = &self->x;
	struct nested *n = self->n;
	u32 i, load;

	xstate_run(self->vcpu, UCALL_SYNC);
	for (i = 0; i < 4; i++) {
		load = self->offered && i & 2;
		good_values(x, n);
		n->load[ON_ENTRY] = load;
		n->load[ON_EXIT] = load;
		n->cr0_clear[i & 1] = X86_CR0_WP;
		EXPECT_TRUE(ends(x, self->vcpu, n, "no CR0.WP", L2_RUNS));
		n->cr4_set[i & 1] = XSTATE_CR4_CET;
		EXPECT_TRUE(ends(x, self->vcpu, n, "CR4.CET without CR0.WP",
				 bad[i & 1]));
		n->cr0_clear[i & 1] = 0;
		EXPECT_TRUE(ends(x, self->vcpu, n, "CR4.CET with CR0.WP",
				 self->has ? L2_RUNS : bad[i & 1]));
		n->cr4_set[i & 1] = 0;
	}
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
