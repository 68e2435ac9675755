// SPDX-License-Identifier: GPL-2.0-only
/*
 * Control protection exceptions in a guest: its user mode returns to an address
 * that the shadow stack has not, and jumps to an instruction that is no
 * ENDBRANCH. The #CP must reach the guest's kernel with the right error code,
 * and user mode must be able to go on. The state that it takes, U_CET and
 * PL3_SSP, is in the guest's fpstate, and the host puts it there.
 *
 * The guest's kernel has neither shadow stacks nor branch tracking: the
 * exception entry of libkvm is made for neither.
 */
#include "xstate_cet_guest.h"
#include "xstate_cet_user.h"

#define CP_VECTOR		21
#define CP_NEAR_RET		1
#define CP_ENDBRANCH		3

/* What user mode is to do, and the #CP that this raises */
static const struct offence {
	const char *name, *begin, *fault, *on, *end;
	u64 enable, error;
} offences[] = {
	{ "RET", user_ret, user_ret_fault, user_ret_on, user_ret_end,
	  CET_SHSTK_EN, CP_NEAR_RET },
	{ "JMP", user_jmp, user_jmp_fault, user_jmp_on, user_jmp_end,
	  CET_ENDBR_EN, CP_ENDBRANCH },
};

/* What the guest is told, and what its handlers find */
static struct cp {
	bool shstk, tiles;
	u64 count, error, rip, end, u_cet, pl3_ssp;
} cp;

static void guest_cp_handler(struct ex_regs *regs)
{
	const struct offence *o = offences;

	while (regs->rip != (u64)o->fault && o < offences + 1)
		o++;
	cp.count++;
	cp.error = regs->error_code;
	cp.rip = regs->rip;
	cp.u_cet = rdmsr(XF_MSR_U_CET);
	if (cp.shstk)
		cp.pl3_ssp = rdmsr(XF_MSR_PL3_SSP);
	GUEST_SYNC(0);

	__GUEST_ASSERT(rdmsr(XF_MSR_U_CET) == cp.u_cet,
		       "IA32_U_CET over an exit in #CP: wanted %lx got %lx",
		       cp.u_cet, rdmsr(XF_MSR_U_CET));
	__GUEST_ASSERT(!cp.shstk || rdmsr(XF_MSR_PL3_SSP) == cp.pl3_ssp,
		       "IA32_PL3_SSP over an exit in #CP: wanted %lx got %lx",
		       cp.pl3_ssp, rdmsr(XF_MSR_PL3_SSP));
	/* Have the tracker wait no longer. */
	wrmsr(XF_MSR_U_CET, cp.u_cet & ~(CET_WAIT_ENDBR | CET_SUPPRESS));
	regs->rip = (u64)o->on;
}

static void guest_end_handler(struct ex_regs *regs)
{
	cp.end = regs->rip;
	if (cp.tiles)
		guest_check_tiles(guests, "by user mode and #CP");
	GUEST_DONE();
}

static void guest_cp_code(u64 rip)
{
	if (cp.tiles) {
		xstate_ldtilecfg(guests->config);
		xstate_load_tiles(guests->tiles);
	}
	guest_enter_user(rip);
}

/* Give the guest handlers for what its user mode raises. */
static void set_up_handlers(struct kvm_vcpu *vcpu)
{
	struct idt_entry *idt;
	struct kvm_sregs sregs;

	/* libkvm expects no error code with #CP, but with #AC. */
	vcpu_sregs_get(vcpu, &sregs);
	idt = addr_gva2hva(vcpu->vm, sregs.idt.base);
	idt[CP_VECTOR] = idt[AC_VECTOR];
	vm_install_exception_handler(vcpu->vm, AC_VECTOR, guest_cp_handler);
	vm_install_exception_handler(vcpu->vm, UD_VECTOR, guest_end_handler);
}

FIXTURE(cet_cp) {
	struct cet_guest f;
};

FIXTURE_VARIANT(cet_cp) {
	const char *name;
};

FIXTURE_SETUP(cet_cp)
{
	cet_guest_set_up(_metadata, &self->f, variant->name, guest_cp_code);
}

FIXTURE_TEARDOWN(cet_cp)
{
	cet_guest_tear_down(_metadata, &self->f);
}

XSTATE_VARIANT(cet_cp, none_noamx_shstk);
XSTATE_VARIANT(cet_cp, none_noamx_ibt);
XSTATE_VARIANT(cet_cp, none_noamx_cet);
XSTATE_VARIANT(cet_cp, guest_amx_cet);

/* What U_CET can enable in this guest */
static u64 cet_enables(struct xcomp *x)
{
	return (x->shstk_on ? CET_SHSTK_EN : 0) | (x->ibt_on ? CET_ENDBR_EN : 0);
}

/* Have the next run of the guest start with @o, with CET set by the host. */
static struct cp *prepare(struct cet_guest *f, const struct offence *o,
			  bool cr4_cet, u64 u_cet)
{
	struct cp *c = addr_gva2hva(f->vcpu->vm, (gva_t)&cp);
	struct kvm_sregs sregs;

	set_up_user_mode(f->vcpu);
	set_up_handlers(f->vcpu);
	vcpu_sregs_get(f->vcpu, &sregs);
	sregs.cr0 |= X86_CR0_WP;
	sregs.cr4 &= ~XSTATE_CR4_CET;
	sregs.cr4 |= cr4_cet ? XSTATE_CR4_CET : 0;
	vcpu_sregs_set(f->vcpu, &sregs);
	memset(c, 0, sizeof(*c));
	c->shstk = f->x.shstk_on;
	c->tiles = f->x.amx_on;
	vcpu_set_msr(f->vcpu, XF_MSR_U_CET, u_cet);
	if (c->shstk)
		vcpu_set_msr(f->vcpu, XF_MSR_PL3_SSP,
			     (u64)shadow_stack + sizeof(shadow_stack));
	vcpu_arch_set_entry_point(f->vcpu, guest_cp_code);
	vcpu_args_set(f->vcpu, 1, (u64)o->begin);
	return c;
}

/* Whether the CET MSRs are what the handler found, and else what they were */
static bool cet_ok(struct cet_guest *f, const struct cp *c)
{
	bool ok = true;
	u64 wanted;
	u32 i, msr;

	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		msr = xcomp_cet_msrs[i];
		if (!xcomp_has_msr(&f->x, msr))
			continue;
		wanted = xstate_msr_value(&f->x, msr, 0);
		if (msr == XF_MSR_U_CET)
			wanted = c->u_cet;
		else if (msr == XF_MSR_PL3_SSP)
			wanted = c->pl3_ssp;
		ok &= xf_msr_kept(f->x.name, msr, "#CP", wanted,
				  xstate_msr(&f->x, msr));
	}
	return ok;
}

/* Have user mode commit @o, which must raise #CP, and then go on. */
static void check_cp(struct __test_metadata *_metadata, struct cet_guest *f,
		     const struct offence *o)
{
	u64 u_cet = cet_enables(&f->x), ssp, *top;
	struct cp *c;

	if (o->enable == CET_SHSTK_EN ? !f->x.shstk : !f->x.ibt)
		SKIP(return, "the combination has not this half of CET");
	if (o->enable == CET_SHSTK_EN && !f->x.shstk_on)
		SKIP(return, "KVM offers no guest CET");
	if (o->enable == CET_ENDBR_EN && !f->x.ibt_on)
		SKIP(return, "KVM offers no guest IBT");
	c = prepare(f, o, true, u_cet);
	top = addr_gva2hva(f->vcpu->vm, (gva_t)shadow_stack);
	top += sizeof(shadow_stack) / sizeof(*top) - 1;
	ssp = (u64)shadow_stack + sizeof(shadow_stack);

	xstate_run(f->vcpu, UCALL_SYNC);
	EXPECT_EQ(1, c->count);
	EXPECT_EQ(o->error, c->error);
	EXPECT_EQ((u64)o->fault, c->rip);
	EXPECT_EQ(u_cet, c->u_cet & ~(CET_WAIT_ENDBR | CET_SUPPRESS));
	if (o->begin == user_ret) {
		ssp -= sizeof(*top);
		EXPECT_EQ((u64)user_ret_called, *top);
	}
	if (f->x.shstk_on)
		EXPECT_EQ(ssp, c->pl3_ssp);
	EXPECT_TRUE(cet_ok(f, c));
	use_kernel_fpu();

	xstate_run(f->vcpu, UCALL_DONE);
	EXPECT_EQ(1, c->count);
	EXPECT_EQ((u64)o->end, c->end);
	c->u_cet = u_cet;
	EXPECT_TRUE(cet_ok(f, c));
}

/* Verify that a return to another address than that of the call raises #CP. */
TEST_F(cet_cp, near_ret)
{
	check_cp(_metadata, &self->f, &offences[0]);
}

/* Verify that a jump to what is no ENDBRANCH raises #CP. */
TEST_F(cet_cp, endbranch)
{
	check_cp(_metadata, &self->f, &offences[1]);
}

/*
 * Verify that neither raises #CP with CR4.CET clear, with all of U_CET clear,
 * or with just the other half of CET.
 */
TEST_F(cet_cp, off)
{
	u64 all = cet_enables(&self->f.x);
	const struct offence *o;
	struct cp *c;
	int i;

	if (!all && self->f.x.shstk)
		SKIP(return, "KVM offers no guest CET");
	if (!all)
		SKIP(return, "KVM offers no guest IBT");
	for (i = 0; i < 6; i++) {
		o = &offences[i & 1];
		c = prepare(&self->f, o, i >= 2,
			    i < 2 ? all : i < 4 ? 0 : all & ~o->enable);
		xstate_run(self->f.vcpu, UCALL_DONE);
		EXPECT_EQ(0, c->count);
		EXPECT_EQ((u64)o->end, c->end);
	}
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
