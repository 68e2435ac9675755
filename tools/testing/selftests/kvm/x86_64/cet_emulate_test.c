// SPDX-License-Identifier: GPL-2.0-only
/*
 * Instructions that KVM has to carry out itself because their operand is in
 * MMIO, in guests that use shadow stacks or branch tracking. KVM's emulator
 * knows neither, so it must not touch CALL, RET and indirect JMP where CET
 * would act on them: a shadow stack that misses one return address is the
 * guest's end. It must say so to user space, and do as ever where CET is off.
 *
 * Each instruction is the first one that the vCPU runs. Nothing in the guest
 * gets as far as to a shadow stack.
 */
#include "xstate_cet_guest.h"
#include "xstate_cet_user.h"
#include "xstate_host_msr.h"

/* Not in any memory slot */
#define MMIO		0xc0000000ull
#define MMIO_STACK	(MMIO + 0x100)

/* Instructions with an operand at (%rax) or on a stack that are both MMIO */
#define MMIO_INSN(name, insn)					\
static __attribute__((naked)) void mmio_##name(void)		\
{								\
	asm volatile(insn);					\
}

MMIO_INSN(mov, "mov (%rax), %rbx")
MMIO_INSN(jmp, "jmp *(%rax)")
MMIO_INSN(call, "call *(%rax)")
MMIO_INSN(call_rel, "call .+5")
MMIO_INSN(call_reg, "call *%rax")
MMIO_INSN(ret, "ret")
MMIO_INSN(ret_imm, "ret $8")
/* Far JMP and CALL with REX.W, which assemblers spell in different ways */
MMIO_INSN(ljmp, ".byte 0x48, 0xff, 0x28")
MMIO_INSN(lcall, ".byte 0x48, 0xff, 0x18")
MMIO_INSN(lret, "lretq")
MMIO_INSN(lret_imm, "lretq $8")

/*
 * The halves of CET that act on each, see "Shadow Stacks" and "Indirect Branch
 * Tracking" in the SDM. A far transfer may end at another privilege level.
 */
static const struct insn {
	const char *name;
	void (*rip)(void);
	u64 cet;
	bool on_stack, far;
} insns[] = {
	{ "MOV",	mmio_mov,	0, false, false },
	{ "JMP",	mmio_jmp,	CET_ENDBR_EN, false, false },
	{ "CALL",	mmio_call,	CET_SHSTK_EN | CET_ENDBR_EN, false, false },
	{ "CALL rel",	mmio_call_rel,	CET_SHSTK_EN, true, false },
	{ "CALL reg",	mmio_call_reg,	CET_SHSTK_EN | CET_ENDBR_EN, true, false },
	{ "RET",	mmio_ret,	CET_SHSTK_EN, true, false },
	{ "RET imm",	mmio_ret_imm,	CET_SHSTK_EN, true, false },
	{ "far JMP",	mmio_ljmp,	CET_ENDBR_EN, false, true },
	{ "far CALL",	mmio_lcall,	CET_SHSTK_EN | CET_ENDBR_EN, false, true },
	{ "far RET",	mmio_lret,	CET_SHSTK_EN, true, true },
	{ "far RET imm", mmio_lret_imm,	CET_SHSTK_EN, true, true },
};

/* What is on when the vCPU comes to the instruction */
static const struct setting {
	const char *name;
	bool cr4_cet;
	u64 s_cet, u_cet;
} settings[] = {
	{ "CR4.CET off", false, CET_SHSTK_EN | CET_ENDBR_EN,
	  CET_SHSTK_EN | CET_ENDBR_EN },
	{ "nothing but CR4.CET", true, 0, 0 },
	{ "S_CET.SH_STK_EN",	true, CET_SHSTK_EN, 0 },
	{ "S_CET.ENDBR_EN",	true, CET_ENDBR_EN, 0 },
	{ "U_CET.SH_STK_EN",	true, 0, CET_SHSTK_EN },
	{ "U_CET.ENDBR_EN",	true, 0, CET_ENDBR_EN },
};

FIXTURE(cet_emulate) {
	struct cet_guest f;
	struct kvm_sregs kernel;
};

FIXTURE_VARIANT(cet_emulate) {
	const char *name;
};

FIXTURE_SETUP(cet_emulate)
{
	struct kvm_vcpu *vcpu;
	unsigned int i;

	cet_guest_set_up(_metadata, &self->f, variant->name, mmio_mov);
	vcpu = self->f.vcpu;
	if (!vcpu)
		return;
	ASSERT_TRUE(xstate_host_is_safe(&self->f.x));
	if (!kvm_check_cap(KVM_CAP_EXIT_ON_EMULATION_FAILURE))
		SKIP(return, "no KVM_CAP_EXIT_ON_EMULATION_FAILURE");
	vm_enable_cap(vcpu->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	virt_map(vcpu->vm, MMIO, MMIO, 1);
	set_up_user_mode(vcpu);
	for (i = 0; i < ARRAY_SIZE(insns); i++)
		open_page(vcpu, (u64)insns[i].rip, false);
	open_page(vcpu, MMIO, false);
	vcpu_sregs_get(vcpu, &self->kernel);
	self->kernel.cr0 |= X86_CR0_WP;
}

FIXTURE_TEARDOWN(cet_emulate)
{
	cet_guest_tear_down(_metadata, &self->f);
}

XSTATE_VARIANT(cet_emulate, none_noamx_nocet);
XSTATE_VARIANT(cet_emulate, none_noamx_shstk);
XSTATE_VARIANT(cet_emulate, none_noamx_ibt);
XSTATE_VARIANT(cet_emulate, none_noamx_cet);
XSTATE_VARIANT(cet_emulate, guest_amx_cet);

/* Have the next KVM_RUN begin with @in, in kernel or user mode. */
static void set_regs(struct kvm_vcpu *vcpu, const struct insn *in, bool user)
{
	u8 *stack = user ? user_stack : kernel_stack;
	struct kvm_regs regs = {
		.rip = (u64)in->rip,
		.rax = MMIO,
		.rsp = in->on_stack ? MMIO_STACK : (u64)stack + sizeof(user_stack),
		.rflags = 2,
	};

	vcpu_regs_set(vcpu, &regs);
}

/* Switch on what @s says and the guest has. */
static void set_cet(struct kvm_vcpu *vcpu, const struct kvm_sregs *kernel,
		    const struct setting *s, bool user, u64 has)
{
	struct kvm_sregs sregs = *kernel;

	if (user) {
		sregs.cs.selector = USER_CS;
		sregs.ss.selector = USER_DS;
		sregs.cs.dpl = 3;
		sregs.ss.dpl = 3;
	}
	sregs.cr4 |= s->cr4_cet ? XSTATE_CR4_CET : 0;
	vcpu_sregs_set(vcpu, &sregs);
	if (has) {
		vcpu_set_msr(vcpu, XF_MSR_S_CET, s->s_cet & has);
		vcpu_set_msr(vcpu, XF_MSR_U_CET, s->u_cet & has);
	}
}

/* Bring what KVM began to an end, and forget what came of it. */
static void settle(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events;
	int i;

	vcpu->run->immediate_exit = 1;
	for (i = 0; i < 8 && !__vcpu_run(vcpu); i++)
		memset(vcpu->run->mmio.data, 0, sizeof(vcpu->run->mmio.data));
	vcpu->run->immediate_exit = 0;

	vcpu_events_get(vcpu, &events);
	memset(&events.exception, 0, sizeof(events.exception));
	vcpu_events_set(vcpu, &events);
}

/* Run @in and judge who carries it out. */
static bool judge(struct cet_guest *f, const struct kvm_sregs *kernel,
		  const struct insn *in, const struct setting *s, bool user,
		  u64 has)
{
	u32 reason, wanted = KVM_EXIT_MMIO;
	u64 active = user ? s->u_cet : s->s_cet;

	if (in->far)
		active = s->u_cet | s->s_cet;
	if (s->cr4_cet && (active & has & in->cet))
		wanted = KVM_EXIT_INTERNAL_ERROR;

	set_regs(f->vcpu, in, user);
	set_cet(f->vcpu, kernel, s, user, has);
	if (_vcpu_run(f->vcpu)) {
		ksft_print_msg("KVM_RUN: %s\n", strerror(errno));
		return false;
	}
	reason = f->vcpu->run->exit_reason;
	if (reason == KVM_EXIT_MMIO)
		settle(f->vcpu);
	if (reason == wanted &&
	    (reason == KVM_EXIT_MMIO ||
	     f->vcpu->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION))
		return true;
	ksft_print_msg("%s: %s at (MMIO) in %s mode with %s: wanted %s got %s\n",
		       f->x.name, in->name, user ? "user" : "kernel", s->name,
		       exit_reason_str(wanted), exit_reason_str(reason));
	return false;
}

/*
 * Verify that KVM refuses to emulate what CET would act on, at the privilege
 * level that counts, and nothing else; and that the CET state of the guest is
 * what it was.
 */
TEST_F(cet_emulate, mmio)
{
	struct cet_guest *f = &self->f;
	u64 has = (f->x.shstk_on ? CET_SHSTK_EN : 0) |
		  (f->x.ibt_on ? CET_ENDBR_EN : 0);
	unsigned int i, s, user;

	for (s = 0; s < (has ? ARRAY_SIZE(settings) : 1); s++) {
		for (i = 0; i < ARRAY_SIZE(insns); i++)
			for (user = 0; user < 2; user++)
				EXPECT_TRUE(judge(f, &self->kernel, &insns[i],
						  &settings[s], user, has));
		if (has) {
			EXPECT_EQ(settings[s].u_cet & has,
				  xstate_msr(&f->x, XF_MSR_U_CET));
			EXPECT_EQ(settings[s].s_cet & has,
				  xstate_msr(&f->x, XF_MSR_S_CET));
		}
		EXPECT_TRUE(xstate_ssp_kept(&f->x, 0, "emulation"));
	}
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
