// SPDX-License-Identifier: GPL-2.0-only
/*
 * Control protection in a guest.
 *
 * Its user mode returns to an address that the shadow stack has not, and jumps
 * to an instruction that is no ENDBRANCH. The #CP must reach the guest's kernel
 * with the right error code, and user mode must be able to go on. The state
 * that it takes, U_CET and PL3_SSP, is in the guest's fpstate, and the host
 * puts it there. The guest's kernel has neither shadow stacks nor branch
 * tracking: the exception entry of libkvm is made for neither.
 *
 * Instructions that KVM has to carry out itself, because their operand is in
 * MMIO, have no #CP: KVM's emulator knows neither shadow stacks nor branch
 * tracking, so it must not touch CALL, RET and indirect JMP where CET would act
 * on them. A shadow stack that misses one return address is the guest's end.
 * KVM must say so to user space, and do as ever where CET is off.
 */
#include "cet_guest.h"

/* Segments of the guest's user mode, behind those of libkvm */
#define USER_DS			(6 * 8 | 3)
#define USER_CS			(7 * 8 | 3)
#define USER_DS_DESCRIPTOR	0x00cff3000000ffffull
#define USER_CS_DESCRIPTOR	0x00affb000000ffffull

/* The stacks of both modes: that of the kernel is for what interrupts user mode. */
static u8 user_stack[4096] __aligned(4096), kernel_stack[8192] __aligned(4096);
static u8 user_shstk[4096] __aligned(4096), kernel_shstk[4096] __aligned(4096);

#define USER_STACK_TOP		((u64)user_stack + sizeof(user_stack))
#define USER_SHSTK_TOP		((u64)user_shstk + sizeof(user_shstk))
#define KERNEL_STACK_TOP	((u64)kernel_stack + sizeof(kernel_stack))

/* What user mode is to do, and the #CP that this raises */
static const struct offence {
	const char *name, *begin, *fault, *on, *end;
	u64 error;
	u8 half;			/* of CET, that minds */
} offences[] = {
	{ "RET", user_ret, user_ret_fault, user_ret_on, user_ret_end, CP_NEAR_RET, SHSTK },
	{ "JMP", user_jmp, user_jmp_fault, user_jmp_on, user_jmp_end, CP_ENDBRANCH, IBT },
};

enum { RET, JMP };

/* What the guest is told, and what its handlers find */
static struct cp {
	bool shstk, tiles;
	u64 count, error, rip, end, u_cet, pl3_ssp;
} cp;

/* What the host gives the guest, and tiles that the guest loads itself */
static struct xregs loaded;

static void guest_cp_handler(struct ex_regs *regs)
{
	const struct offence *o = &offences[regs->rip != (u64)user_ret_fault];

	cp.count++;
	cp.error = regs->error_code;
	cp.rip = regs->rip;
	cp.u_cet = rdmsr(MSR_IA32_U_CET);
	if (cp.shstk)
		cp.pl3_ssp = rdmsr(MSR_IA32_PL3_SSP);
	GUEST_SYNC(0);

	__GUEST_ASSERT(rdmsr(MSR_IA32_U_CET) == cp.u_cet,
		       "IA32_U_CET over an exit in #CP: wanted %lx got %lx",
		       cp.u_cet, rdmsr(MSR_IA32_U_CET));
	__GUEST_ASSERT(!cp.shstk || rdmsr(MSR_IA32_PL3_SSP) == cp.pl3_ssp,
		       "IA32_PL3_SSP over an exit in #CP: wanted %lx got %lx",
		       cp.pl3_ssp, rdmsr(MSR_IA32_PL3_SSP));
	/* Have the tracker wait no longer. */
	wrmsr(MSR_IA32_U_CET, cp.u_cet & ~(CET_WAIT_ENDBR | CET_SUPPRESS));
	regs->rip = (u64)o->on;
}

static void guest_end_handler(struct ex_regs *regs)
{
	cp.end = regs->rip;
	if (cp.tiles)
		guest_expect_tiles(&loaded, "by user mode and #CP");
	GUEST_DONE();
}

/* Leave the guest's kernel for good: only an exception gets there again. */
static void guest_cp_code(u64 rip)
{
	if (cp.tiles) {
		tile_load_config(loaded.tilecfg);
		tile_load(loaded.tile[0]);
	}
	asm volatile("push %0\n\tpush %1\n\tpushfq\n\tpush %2\n\tpush %3\n\t"
		     "iretq"
		     : : "r" ((u64)USER_DS), "r" (USER_STACK_TOP), "r" ((u64)USER_CS), "r" (rip)
		     : "memory");
}

/* Give the guest, which libkvm keeps in its kernel, a user mode and what that raises. */
static void add_user_mode(struct kvm_vcpu *vcpu, const struct kvm_sregs *sregs)
{
	u64 *gdt = addr_gva2hva(vcpu->vm, sregs->gdt.base), rsp0 = KERNEL_STACK_TOP;
	struct idt_entry *idt = addr_gva2hva(vcpu->vm, sregs->idt.base);

	gdt[USER_DS / 8] = USER_DS_DESCRIPTOR;
	gdt[USER_CS / 8] = USER_CS_DESCRIPTOR;
	memcpy(addr_gva2hva(vcpu->vm, sregs->tr.base + 4), &rsp0, sizeof(rsp0));
	vcpu_open_page(vcpu, user_ret);
	vcpu_open_page(vcpu, user_stack);
	vcpu_open_page(vcpu, user_shstk);
	vm_make_shstk(vcpu->vm, (gva_t)user_shstk);
	/* libkvm expects no error code with #CP, but with #AC. */
	idt[CP_VECTOR] = idt[AC_VECTOR];
	vm_install_exception_handler(vcpu->vm, AC_VECTOR, guest_cp_handler);
	vm_install_exception_handler(vcpu->vm, UD_VECTOR, guest_end_handler);
}

FIXTURE(cet_cp) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct kvm_sregs sregs;		/* in the kernel, with CR0.WP */
	struct xregs *regs;		/* these two in the guest's memory */
	struct cp *cp;
	u64 has;			/* what U_CET and S_CET can enable */
};

XSTATE_SUITE(cet_cp);

FIXTURE_VARIANT_ADD(cet_cp, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(cet_cp, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(cet_cp, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(cet_cp, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(cet_cp, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(cet_cp)
{
	struct kvm_vcpu *vcpu;

	if (!xstate_begin(_metadata, &variant->combo) || !xstate_need_refusals(_metadata))
		return;
	vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_cp_code);
	self->vcpu = vcpu;
	self->cp = addr_gva2hva(self->vm, (gva_t)&cp);
	self->regs = addr_gva2hva(self->vm, (gva_t)&loaded);
	self->has = (vcpu_has_shstk(vcpu) ? CET_SHSTK_EN : 0) |
		    (vcpu_has_ibt(vcpu) ? CET_ENDBR_EN : 0);
	xregs_fill(self->regs, vcpu, 0);
	vcpu_set_xregs(_metadata, vcpu, self->regs, xregs_mask(vcpu_xcr0_mask(vcpu)));
	vcpu_sregs_get(vcpu, &self->sregs);
	self->sregs.cr0 |= X86_CR0_WP;
	add_user_mode(vcpu, &self->sregs);
}

/* Have the next run of the guest start with @o, with CET set by the host. */
static void prepare(FIXTURE_DATA(cet_cp) * const self, const struct offence *o, bool cr4_cet,
		    u64 u_cet)
{
	struct kvm_sregs sregs = self->sregs;

	sregs.cr4 |= cr4_cet && self->has ? X86_CR4_CET : 0;
	vcpu_sregs_set(self->vcpu, &sregs);
	memset(self->cp, 0, sizeof(*self->cp));
	self->cp->shstk = vcpu_has_shstk(self->vcpu);
	self->cp->tiles = vcpu_has_amx(self->vcpu);
	if (self->has)
		vcpu_set_msr(self->vcpu, MSR_IA32_U_CET, u_cet);
	if (self->cp->shstk)
		vcpu_set_msr(self->vcpu, MSR_IA32_PL3_SSP, USER_SHSTK_TOP);
	vcpu_arch_set_entry_point(self->vcpu, guest_cp_code);
	vcpu_args_set(self->vcpu, 1, (u64)o->begin);
}

/* User mode gets to its end, and nothing is raised. */
static void expect_no_cp(struct __test_metadata *const _metadata, FIXTURE_DATA(cet_cp) * const self,
			 const struct offence *o, const char *when)
{
	xstate_run(self->vcpu, UCALL_DONE);
	EXPECT_SAME(0, self->cp->count, "#CP by %s %s", o->name, when);
	EXPECT_SAME((u64)o->end, self->cp->end, "RIP of #UD after %s %s", o->name, when);
}

/* The CET MSRs hold what they were given, but for what user mode has changed. */
static void expect_cet_but(struct __test_metadata *const _metadata,
			   FIXTURE_DATA(cet_cp) * const self, u64 u_cet, const char *when)
{
	self->regs->cet[I_U_CET] = u_cet;
	self->regs->cet[I_PL3] = self->cp->pl3_ssp;
	expect_cet(_metadata, self->vcpu, self->regs, when);
}

/* User mode commits @o, which raises #CP, and then goes on. */
static void expect_cp(struct __test_metadata *const _metadata, FIXTURE_DATA(cet_cp) * const self,
		      const struct offence *o, u64 u_cet)
{
	u64 ssp = o->half == SHSTK ? USER_SHSTK_TOP - sizeof(u64) : USER_SHSTK_TOP;
	struct cp *c = self->cp;

	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_SAME(1, c->count, "#CP by %s", o->name);
	EXPECT_SAME(o->error, c->error, "error code of #CP by %s", o->name);
	EXPECT_SAME((u64)o->fault, c->rip, "RIP of #CP by %s", o->name);
	EXPECT_SAME(u_cet, c->u_cet & ~(CET_WAIT_ENDBR | CET_SUPPRESS), "IA32_U_CET in #CP by %s",
		    o->name);
	if (o->half == SHSTK)
		EXPECT_SAME((u64)user_ret_called,
			    *(u64 *)addr_gva2hva(self->vm, USER_SHSTK_TOP - sizeof(u64)),
			    "return address on the shadow stack");
	if (vcpu_has_shstk(self->vcpu))
		EXPECT_SAME(ssp, c->pl3_ssp, "IA32_PL3_SSP in #CP by %s", o->name);
	expect_cet_but(_metadata, self, c->u_cet, "#CP");
	use_kernel_fpu();

	xstate_run(self->vcpu, UCALL_DONE);
	EXPECT_SAME(1, c->count, "#CP by %s and by what is right", o->name);
	EXPECT_SAME((u64)o->end, c->end, "RIP of #UD after #CP by %s", o->name);
	expect_cet_but(_metadata, self, u_cet, "return from #CP");
}

/* With all of CET on, @o raises #CP exactly if the guest has the half that minds. */
static void commit(struct __test_metadata *const _metadata, FIXTURE_DATA(cet_cp) * const self,
		   const struct xstate_combo *combo, const struct offence *o)
{
	const bool minds = combo->cet & o->half;
	const struct xstate_combo need = { .cet = minds ? o->half : combo->cet };

	if (!xstate_need_cet(_metadata, &need))
		return;
	prepare(self, o, true, self->has);
	if (minds)
		expect_cp(_metadata, self, o, self->has);
	else
		expect_no_cp(_metadata, self, o, "with at most the other half of CET");
}

/*
 * Verify that a return to another address than that of the call raises #CP in a
 * guest with shadow stacks, and not in one with branch tracking alone.
 */
TEST_F(cet_cp, near_ret)
{
	commit(_metadata, self, &variant->combo, &offences[RET]);
}

/*
 * Verify that a jump to what is no ENDBRANCH raises #CP in a guest with branch
 * tracking, and not in one with shadow stacks alone.
 */
TEST_F(cet_cp, endbranch)
{
	commit(_metadata, self, &variant->combo, &offences[JMP]);
}

/*
 * Verify that neither raises #CP with CR4.CET clear, with all of U_CET clear,
 * or with just the other half of CET.
 */
TEST_F(cet_cp, off)
{
	const struct offence *o;
	u64 other;

	if (!self->has && !xstate_need_cet(_metadata, &variant->combo))
		return;
	for (o = offences; o < offences + ARRAY_SIZE(offences); o++) {
		other = self->has & ~(o->half == SHSTK ? CET_SHSTK_EN : CET_ENDBR_EN);
		prepare(self, o, false, self->has);
		expect_no_cp(_metadata, self, o, "without CR4.CET");
		prepare(self, o, true, 0);
		expect_no_cp(_metadata, self, o, "with nothing in IA32_U_CET");
		prepare(self, o, true, other);
		expect_no_cp(_metadata, self, o, "with the other half in IA32_U_CET");
	}
}

/* ---- instructions with an operand in MMIO ---- */

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
	{ "CR4.CET off", false, CET_SHSTK_EN | CET_ENDBR_EN, CET_SHSTK_EN | CET_ENDBR_EN },
	{ "nothing but CR4.CET", true, 0, 0 },
	{ "S_CET.SH_STK_EN",	true, CET_SHSTK_EN, 0 },
	{ "S_CET.ENDBR_EN",	true, CET_ENDBR_EN, 0 },
	{ "U_CET.SH_STK_EN",	true, 0, CET_SHSTK_EN },
	{ "U_CET.ENDBR_EN",	true, 0, CET_ENDBR_EN },
};

/*
 * Have the next KVM_RUN begin with @in, in kernel or user mode, and with what @s
 * says and the guest has of CET. There is a shadow stack of either mode, with
 * room on both sides: nothing but MMIO keeps the CPU from going on.
 */
static void set_up(struct __test_metadata *const _metadata, FIXTURE_DATA(cet_cp) * const self,
		   const struct insn *in, const struct setting *s, bool user)
{
	u64 stack = user ? USER_STACK_TOP : KERNEL_STACK_TOP;
	struct kvm_regs regs = {
		.rip = (u64)in->rip,
		.rax = MMIO,
		.rsp = in->on_stack ? MMIO_STACK : stack,
		.rflags = 2,
	};
	struct kvm_sregs sregs = self->sregs;

	vcpu_regs_set(self->vcpu, &regs);
	if (user) {
		sregs.cs.selector = USER_CS;
		sregs.ss.selector = USER_DS;
		sregs.cs.dpl = 3;
		sregs.ss.dpl = 3;
	}
	sregs.cr4 |= s->cr4_cet ? X86_CR4_CET : 0;
	vcpu_sregs_set(self->vcpu, &sregs);
	self->regs->cet[I_S_CET] = s->s_cet & self->has;
	self->regs->cet[I_U_CET] = s->u_cet & self->has;
	self->regs->ssp = (u64)(user ? user_shstk : kernel_shstk) + sizeof(user_shstk) / 2;
	vcpu_set_cet(_metadata, self->vcpu, self->regs);
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

/* KVM emulates @in, or says that it does not, and CET is as it was. */
static void expect_judged(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(cet_cp) * const self, const struct insn *in,
			  const struct setting *s, bool user)
{
	u64 active = in->far ? s->u_cet | s->s_cet : user ? s->u_cet : s->s_cet;
	bool refused = s->cr4_cet && (active & self->has & in->cet);
	u32 reason, wanted = refused ? KVM_EXIT_INTERNAL_ERROR : KVM_EXIT_MMIO;
	struct kvm_run *run = self->vcpu->run;
	int error;

	set_up(_metadata, self, in, s, user);
	error = _vcpu_run(self->vcpu) ? errno : 0;
	if (!EXPECT_ERRNO(0, error, "KVM_RUN of %s at (MMIO) in %s mode with %s", in->name,
			  user ? "user" : "kernel", s->name))
		return;
	reason = run->exit_reason;
	EXPECT_THAT(reason == wanted &&
		    (!refused || run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION),
		    "%s at (MMIO) in %s mode with %s: wanted %s got %s", in->name,
		    user ? "user" : "kernel", s->name, exit_reason_str(wanted),
		    exit_reason_str(reason));
	if (reason == KVM_EXIT_MMIO)
		settle(self->vcpu);
	expect_cet(_metadata, self->vcpu, self->regs, in->name);
	expect_kept_elsewhere(_metadata, self->vcpu, self->regs, in->name);
}

/*
 * Verify that KVM refuses to emulate what CET would act on, at the privilege
 * level that counts, and nothing else; and that the CET state of the guest is
 * what it was.
 */
TEST_F(cet_cp, mmio)
{
	unsigned int i, s, user;

	if (!expect_host_keeps_s_cet(_metadata, &variant->combo))
		return;
	vm_enable_cap(self->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	virt_map(self->vm, MMIO, MMIO, 1);
	vm_make_shstk(self->vm, (gva_t)kernel_shstk);
	for (i = 0; i < ARRAY_SIZE(insns); i++)
		vcpu_open_page(self->vcpu, insns[i].rip);
	vcpu_open_page(self->vcpu, (void *)MMIO);
	for (s = 0; s < (self->has ? ARRAY_SIZE(settings) : 1); s++)
		for (i = 0; i < ARRAY_SIZE(insns); i++)
			for (user = 0; user < 2; user++)
				expect_judged(_metadata, self, &insns[i], &settings[s], user);
}

XSTATE_HARNESS_MAIN
