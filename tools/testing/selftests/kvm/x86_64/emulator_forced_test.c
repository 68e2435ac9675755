// SPDX-License-Identifier: GPL-2.0-only
/*
 * Instructions that KVM carries out itself, against the same by the CPU.
 *
 * With kvm.force_emulation_prefix, KVM's emulator takes each instruction behind a
 * certain invalid one.  A guest executes each of a table twice, with all that its
 * outcome depends on the same: the exception, registers, XSAVE state, XCR0,
 * control registers, MSRs and memory must be the same, too.  What XSETBV does is
 * given by a rule besides, so that both ways can be wrong.
 *
 * This takes root, to switch the parameter on.  A process of its own switches it
 * off again, whatever becomes of the test.  Until then every guest of this host can
 * have KVM's emulator take any instruction: run it where no other guests are that one
 * would not trust with that.
 */
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "cet_guest.h"

#define PARAMETER	"/sys/module/kvm/parameters/force_emulation_prefix"

/* Seconds to wait for another instance, of the 30 that a row may take */
#define LOCK_TIMEOUT	15

#ifndef X86_CR4_PKE
#define X86_CR4_PKE	BIT(22)
#endif

/* Of the error code of a #PF: a write, to a page that is not there if it is alone */
#define PF_WRITE	BIT(1)

/* Where the guest leaves: after the instruction, and in the handler of a vector */
#define PORT_END	0x70
#define PORT_VECTOR	0x80
#define NO_VECTOR	0xff

/* A stub is an instruction as it is, and the same behind the prefix. */
#define STUB_FORCED	32
#define FEP_SIZE	5

#define STUB(name, insn)					\
static __attribute__((naked)) __aligned(64) void name(void)	\
{								\
	asm volatile(".irp forced,0,1\n"			\
		     "\t.balign 32\n"				\
		     "\t.if \\forced\n"			\
		     "\tud2\n\t.ascii \"kvm\"\n"		\
		     "\t.endif\n"				\
		     "\t" insn "\n"				\
		     "\toutb %al, $0x70\n"			\
		     ".endr");					\
}

STUB(i_movaps_load, "movaps (%rbx), %xmm3")
STUB(i_movaps_store, "movaps %xmm12, (%rbx)")
STUB(i_movups_load, "movups (%rbx), %xmm15")
STUB(i_movups_store, "movups %xmm0, (%rbx)")
STUB(i_movdqa_load, "movdqa (%rbx), %xmm8")
STUB(i_movntdq, "movntdq %xmm9, (%rbx)")
STUB(i_movntps, "movntps %xmm1, (%rbx)")
STUB(i_movntdqa, "movntdqa (%rbx), %xmm2")
STUB(i_movq_load, "movq (%rbx), %mm5")
STUB(i_movq_store, "movq %mm6, (%rbx)")
/* REX.R, which MMX registers are too few for */
STUB(i_movq_rex, ".byte 0x44, 0x0f, 0x6f, 0x33")
STUB(i_fnstcw, "fnstcw (%rbx)")
STUB(i_fnstsw, "fnstsw (%rbx)")
STUB(i_fninit, "fninit")
STUB(i_vmovaps_load, "vmovaps (%rbx), %ymm4")
STUB(i_vmovups_store, "vmovups %ymm11, (%rbx)")
STUB(i_vmovdqa_x, "vmovdqa (%rbx), %xmm7")
STUB(i_clts, "clts")
STUB(i_xsetbv, "xsetbv")
STUB(i_mov_cr4, "mov %rax, %cr4")
STUB(i_rdmsr, "rdmsr")
STUB(i_wrmsr, "wrmsr")

/* An exception leaves at the port that is its vector. */
static __attribute__((naked)) __aligned(64) void vector_stubs(void)
{
	asm volatile(".set vector, 0\n\t"
		     ".rept 32\n\t"
		     ".balign 16\n\t"
		     "endbr64\n\t"
		     "outb %al, $0x80 + vector\n\t"
		     ".set vector, vector + 1\n\t"
		     ".endr");
}

/* Where branches go */
static __attribute__((naked)) void landing(void)
{
	asm volatile("endbr64\n\toutb %al, $0x70");
}

static u8 operand_page[4096] __aligned(4096), kernel_stack[4096] __aligned(4096);
static u8 kernel_shstk[4096] __aligned(4096);

/* There is room for what a return takes. */
#define STACK_TOP	((u64)kernel_stack + sizeof(kernel_stack) - 64)

struct insn {
	const char *name;
	void (*stub)(void);
	bool avx;		/* encoded by VEX */
	bool newer;		/* an emulator that knows AVX knows it */
};

static const struct insn insns[] = {
	{ .name = "MOVAPS from memory", .stub = i_movaps_load },
	{ .name = "MOVAPS to memory", .stub = i_movaps_store },
	{ .name = "MOVUPS from memory", .stub = i_movups_load },
	{ .name = "MOVUPS to memory", .stub = i_movups_store },
	{ .name = "MOVDQA from memory", .stub = i_movdqa_load },
	{ .name = "MOVNTDQ", .stub = i_movntdq },
	{ .name = "MOVNTPS", .stub = i_movntps },
	{ .name = "MOVNTDQA", .stub = i_movntdqa, .newer = true },
	{ .name = "MOVQ from memory", .stub = i_movq_load },
	{ .name = "MOVQ to memory", .stub = i_movq_store },
	{ .name = "MOVQ with REX.R", .stub = i_movq_rex },
	{ .name = "FNSTCW", .stub = i_fnstcw },
	{ .name = "FNSTSW", .stub = i_fnstsw },
	{ .name = "FNINIT", .stub = i_fninit },
	{ .name = "VMOVAPS from memory", .stub = i_vmovaps_load, .avx = true, .newer = true },
	{ .name = "VMOVUPS to memory", .stub = i_vmovups_store, .avx = true, .newer = true },
	{ .name = "VMOVDQA, 128 bits", .stub = i_vmovdqa_x, .avx = true, .newer = true },
	{ .name = "CLTS", .stub = i_clts },
};

/* What the outcome may depend on */
struct setting {
	const char *name;
	u64 cr0, cr4_set, cr4_clear, xcr0_clear;
	u64 rax, rcx, rdx;
	u32 offset;		/* of the operand in its page */
	bool user;
};

static const struct setting settings[] = {
	{ .name = "nothing special" },
	{ .name = "an operand at 1", .offset = 1 },
	{ .name = "an operand at 8", .offset = 8 },
	{ .name = "an operand at 16", .offset = 16 },
	{ .name = "CR0.TS", .cr0 = X86_CR0_TS },
	{ .name = "CR0.EM", .cr0 = X86_CR0_EM },
	{ .name = "CR0.TS and CR0.EM", .cr0 = X86_CR0_TS | X86_CR0_EM },
	{ .name = "CR0.MP and CR0.TS", .cr0 = X86_CR0_MP | X86_CR0_TS },
	{ .name = "CR0.TS, an operand at 1", .cr0 = X86_CR0_TS, .offset = 1 },
	{ .name = "CR4.OSFXSR off", .cr4_clear = X86_CR4_OSFXSR },
	{ .name = "CR4.OSXSAVE off", .cr4_clear = X86_CR4_OSXSAVE },
	{ .name = "CR4.OSXSAVE off, CR0.TS", .cr4_clear = X86_CR4_OSXSAVE, .cr0 = X86_CR0_TS },
	{ .name = "no AVX in XCR0", .xcr0_clear = XFEATURE_MASK_YMM | XFEATURE_MASK_AVX512 |
						 XFEATURE_MASK_XTILE },
	{ .name = "user mode", .user = true },
	{ .name = "user mode, CR0.TS", .user = true, .cr0 = X86_CR0_TS },
};

/* ---- the parameter ---- */

/* What it is, or -1 if it is not there */
static int read_parameter(void)
{
	char text[16];

	return xf_read_file(PARAMETER, text, sizeof(text)) > 0 ? atoi(text) : -1;
}

static bool write_parameter(int value)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", value);
	int fd = open(PARAMETER, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, n) == n;

	if (fd >= 0)
		close(fd);
	errno = 0;
	return done;
}

static bool restore_parameter(const void *value)
{
	return write_parameter(*(const int *)value);
}

FIXTURE(emulator_forced) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct kvm_sregs sregs;
	struct xregs regs;
	u64 mask, xcr0;
	u8 *operand;			/* in the guest's memory */
	u8 far[10];			/* what is there, if it is a far pointer */
	int parameter;			/* what it was */
	struct xf_guard guard;
};

FIXTURE_VARIANT(emulator_forced) { struct xstate_combo combo; };

FIXTURE_VARIANT_ADD(emulator_forced, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(emulator_forced, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(emulator_forced, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(emulator_forced, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

/*
 * Have the parameter alone among all instances of this test, until this process and the
 * guard, which inherits that, have ended.
 */
static bool lock_parameter(void)
{
	const struct timespec nap = { .tv_nsec = 10 * 1000 * 1000 };
	int fd = open(PARAMETER, O_RDONLY | O_CLOEXEC), i;

	for (i = 0; fd >= 0 && i < LOCK_TIMEOUT * 100; i++) {
		if (!flock(fd, LOCK_EX | LOCK_NB))
			return true;
		nanosleep(&nap, NULL);
	}
	errno = 0;
	return fd < 0;
}

/* Switch the prefix on; false where that cannot be. */
static bool force_emulation(struct __test_metadata *const _metadata,
			    FIXTURE_DATA(emulator_forced) * const self)
{
	self->parameter = read_parameter();
	if (self->parameter > 0)
		return true;
	if (self->parameter < 0 || !write_parameter(self->parameter))
		return false;
	xf_guard(_metadata, &self->guard, restore_parameter, &self->parameter);
	return write_parameter(1);
}

/* Have exceptions leave to the host, whatever instructions the guest can use. */
static void set_vectors(FIXTURE_DATA(emulator_forced) * const self)
{
	struct idt_entry *idt = addr_gva2hva(self->vm, self->sregs.idt.base);
	u64 at = (u64)vector_stubs, rsp0 = (u64)kernel_stack + sizeof(kernel_stack);
	int i;

	for (i = 0; i < 32; i++, at += 16) {
		idt[i].offset0 = at;
		idt[i].offset1 = at >> 16;
		idt[i].offset2 = at >> 32;
	}
	memcpy(addr_gva2hva(self->vm, self->sregs.tr.base + 4), &rsp0, sizeof(rsp0));
}

static void guest_code(void)
{
}

FIXTURE_SETUP(emulator_forced)
{
	unsigned int i;

	if (!xstate_begin(_metadata, &variant->combo) || !xstate_need_guests(_metadata) ||
	    !xstate_need_cet(_metadata, &variant->combo))
		return;
	if (!lock_parameter())
		SKIP(return, "kvm.force_emulation_prefix is in use");
	if (!force_emulation(_metadata, self))
		SKIP(return, "cannot set kvm.force_emulation_prefix");
	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_code);
	self->operand = addr_gva2hva(self->vm, (gva_t)operand_page);
	self->xcr0 = vcpu_xcr0_mask(self->vcpu);
	/* IA32_XFD is written below. */
	self->mask = xregs_mask(self->xcr0) & ~XFEATURE_MASK_XTILE;
	xregs_fill(&self->regs, self->vcpu, 0);
	vcpu_sregs_get(self->vcpu, &self->sregs);
	/* ET is hardwired: CLTS would set it otherwise. */
	self->sregs.cr0 |= X86_CR0_WP | X86_CR0_ET;
	set_vectors(self);
	for (i = 0; i < ARRAY_SIZE(insns); i++)
		vcpu_open_page(self->vcpu, insns[i].stub);
	vcpu_open_page(self->vcpu, i_xsetbv);
	vcpu_open_page(self->vcpu, operand_page);
}

FIXTURE_TEARDOWN(emulator_forced)
{
	if (self->guard.pid)
		xf_unguard(_metadata, &self->guard, "the one who restores the parameter");
	xstate_end(_metadata, self->vm);
}

/* ---- what becomes of an instruction ---- */

struct outcome {
	u8 vector;
	u64 error, rip;			/* of the exception; RIP from the instruction on */
	struct kvm_regs regs;
	u64 cr0, cr4, xcr0;
	u8 operand[64];
	u8 *area;
};

static bool has_error_code(u8 vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

static void start(struct __test_metadata *const _metadata,
		  FIXTURE_DATA(emulator_forced) * const self, u64 rip, const struct setting *s)
{
	struct kvm_sregs sregs = self->sregs;
	struct kvm_regs regs = {
		.rax = s->rax, .rbx = (u64)operand_page + s->offset, .rcx = s->rcx, .rdx = s->rdx,
		.rsi = (u64)landing, .rdi = 0xd1, .rbp = 0xb9, .r8 = 8, .r15 = 15, .rip = rip,
		.rsp = STACK_TOP,
		/* Bit 1, and IOPL 3 for OUT in user mode */
		.rflags = 2 | 3 << 12,
	};
	u32 i;

	if (s->user) {
		sregs.cs.selector |= 3;
		sregs.cs.dpl = 3;
		sregs.ss.selector = sregs.ds.selector | 3;
		sregs.ss = sregs.ds;
		sregs.ss.selector |= 3;
		sregs.ss.dpl = 3;
	}
	sregs.cr0 |= s->cr0;
	sregs.cr4 = (sregs.cr4 | s->cr4_set) & ~s->cr4_clear;
	vcpu_sregs_set(self->vcpu, &sregs);
	vcpu_regs_set(self->vcpu, &regs);
	vcpu_set_xregs_area(_metadata, self->vcpu, &self->regs, self->mask);
	EXPECT_THAT(vcpu_takes_xcr0(self->vcpu, self->xcr0 & ~s->xcr0_clear),
		    "KVM_SET_XCRS: not taken");
	for (i = 0; i < 64; i++)
		self->operand[i] = 0x80 + i;
	if (self->far[0] | self->far[1] | self->far[2] | self->far[3])
		memcpy(self->operand, self->far, sizeof(self->far));
}

static void finish(FIXTURE_DATA(emulator_forced) * const self, u64 rip, struct outcome *o)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	struct kvm_sregs sregs;
	u64 *frame;

	vcpu_regs_get(vcpu, &o->regs);
	vcpu_sregs_get(vcpu, &sregs);
	o->cr0 = sregs.cr0;
	o->cr4 = sregs.cr4;
	o->xcr0 = vcpu_xcr0(vcpu);
	memcpy(o->operand, self->operand, sizeof(o->operand));
	o->area = vcpu_area(vcpu);
	o->regs.rip = 0;
	if (o->vector == NO_VECTOR)
		return;
	frame = addr_gva2hva(vcpu->vm, o->regs.rsp);
	if (has_error_code(o->vector))
		o->error = *frame++;
	o->rip = *frame - rip;
}

/* Execute the instruction of @stub, natively or emulated. */
static bool execute(struct __test_metadata *const _metadata,
		    FIXTURE_DATA(emulator_forced) * const self, void (*stub)(void), bool forced,
		    const struct setting *s, struct outcome *o)
{
	u64 rip = (u64)stub + (forced ? STUB_FORCED : 0);
	struct kvm_run *run = self->vcpu->run;

	*o = (struct outcome) { };
	start(_metadata, self, rip, s);
	vcpu_run(self->vcpu);
	if (!EXPECT_THAT(run->exit_reason == KVM_EXIT_IO, "%s: exit %s",
			 forced ? "emulated" : "native", exit_reason_str(run->exit_reason)))
		return false;
	o->vector = run->io.port == PORT_END ? NO_VECTOR : run->io.port - PORT_VECTOR;
	finish(self, rip + (forced ? FEP_SIZE : 0), o);
	return true;
}

static const char *outcome_name(u8 vector)
{
	return vector_name(vector == NO_VECTOR ? 0 : vector);
}

static void expect_same(struct __test_metadata *const _metadata,
			FIXTURE_DATA(emulator_forced) * const self, const struct outcome *n,
			const struct outcome *e)
{
	const u8 *a = (const u8 *)&n->regs, *b = (const u8 *)&e->regs;
	size_t i;

	if (!EXPECT_THAT(n->vector == e->vector, "the CPU raises %s, KVM %s",
			 outcome_name(n->vector), outcome_name(e->vector)))
		return;
	EXPECT_SAME(n->error, e->error, "error code");
	EXPECT_SAME(n->rip, e->rip, "RIP of the exception, from the instruction on");
	i = xarea_differ(a, b, sizeof(n->regs));
	if (i < sizeof(n->regs))
		EXPECT_SAME(a[i], b[i], "byte %zu of struct kvm_regs", i);
	EXPECT_SAME(n->cr0, e->cr0, "CR0");
	EXPECT_SAME(n->cr4, e->cr4, "CR4");
	EXPECT_XFEATURES(n->xcr0, e->xcr0, "XCR0");
	i = xarea_differ(n->operand, e->operand, sizeof(n->operand));
	if (i < sizeof(n->operand))
		EXPECT_SAME(n->operand[i], e->operand[i], "byte %zu of memory", i);
	expect_same_area(_metadata, n->area, e->area, vcpu_xsave_size(self->vcpu), "XSAVE state");
}

static void expect_both(struct __test_metadata *const _metadata,
			FIXTURE_DATA(emulator_forced) * const self, void (*stub)(void),
			const struct setting *s)
{
	struct outcome native, emulated;

	if (!execute(_metadata, self, stub, false, s, &native))
		return;
	if (execute(_metadata, self, stub, true, s, &emulated)) {
		expect_same(_metadata, self, &native, &emulated);
		munmap(emulated.area, XAREA_SIZE);
	}
	munmap(native.area, XAREA_SIZE);
}

/* Of SDM's exceptions of class 1, the one by CR0.EM is for what VEX does not encode. */
static void expect_avx_em(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(emulator_forced) * const self, void (*stub)(void),
			  const struct setting *s)
{
	struct outcome native, emulated;

	if (!execute(_metadata, self, stub, false, s, &native) ||
	    !execute(_metadata, self, stub, true, s, &emulated))
		return;
	XFAIL_IF(native.vector != UD_VECTOR && emulated.vector == UD_VECTOR,
		 "KVM emulates AVX with CR0.EM as #UD") {
		expect_same(_metadata, self, &native, &emulated);
	}
}

/*
 * An older emulator knows nothing that VEX encodes: to it all of that is invalid, without
 * anything special.  One that knows some is to know all of it.
 */
static bool need_avx(struct __test_metadata *const _metadata,
		     FIXTURE_DATA(emulator_forced) * const self)
{
	struct outcome emulated = { };
	unsigned int i;

	if (!(self->mask & XFEATURE_MASK_YMM))
		SKIP(return false, "no AVX");
	for (i = 0; i < ARRAY_SIZE(insns); i++) {
		if (!insns[i].avx)
			continue;
		th_case("%s", insns[i].name);
		if (!execute(_metadata, self, insns[i].stub, true, settings, &emulated))
			return false;
		munmap(emulated.area, XAREA_SIZE);
		if (emulated.vector != UD_VECTOR)
			return true;
	}
	SKIP(return false, "KVM does not emulate AVX");
}

/* An emulated CPU takes #NM by CR0.TS before the #UD by CR0.EM, which it has. */
static bool raises_nm_first(struct __test_metadata *const _metadata,
			    FIXTURE_DATA(emulator_forced) * const self)
{
	static const struct setting em[] = {
		{ .cr0 = X86_CR0_EM }, { .cr0 = X86_CR0_TS | X86_CR0_EM },
	};
	struct outcome o[2];
	int i;

	for (i = 0; i < 2; i++) {
		if (!execute(_metadata, self, i_movaps_load, false, &em[i], &o[i]))
			return false;
		munmap(o[i].area, XAREA_SIZE);
	}
	return o[0].vector == UD_VECTOR && o[1].vector == NM_VECTOR && xregs_cpu_of_software();
}

static void expect_insns(struct __test_metadata *const _metadata,
			 FIXTURE_DATA(emulator_forced) * const self, bool newer)
{
	bool nm_first = raises_nm_first(_metadata, self);
	const u64 both = X86_CR0_TS | X86_CR0_EM;
	unsigned int i, s;

	th_no_case();
	if (nm_first)
		TH_ROW_LOG("left out: CR0.TS with CR0.EM, for which this CPU raises #NM, not #UD");
	for (i = 0; i < ARRAY_SIZE(insns); i++) {
		for (s = 0; s < ARRAY_SIZE(settings) && insns[i].newer == newer; s++) {
			if (nm_first && !insns[i].avx && (settings[s].cr0 & both) == both)
				continue;
			th_case("%s with %s", insns[i].name, settings[s].name);
			if (insns[i].avx && settings[s].cr0 & X86_CR0_EM)
				expect_avx_em(_metadata, self, insns[i].stub, &settings[s]);
			else
				expect_both(_metadata, self, insns[i].stub, &settings[s]);
		}
	}
}

/*
 * Verify that instructions on vector, MMX and x87 registers do the same, and
 * raise the same exceptions: #UD, #NM and #GP, in the order that the CPU has.
 */
TEST_F(emulator_forced, vectors)
{
	expect_insns(_metadata, self, false);
}

/* Verify the same of AVX, and of MOVNTDQA, which KVM knows if it knows AVX. */
TEST_F(emulator_forced, avx)
{
	if (need_avx(_metadata, self))
		expect_insns(_metadata, self, true);
}

/* ---- XSETBV ---- */

/* What must come of it, by the SDM: the vector, or NO_VECTOR */
static u8 xsetbv_vector(struct kvm_vcpu *vcpu, const struct setting *s, u64 value)
{
	if (s->cr4_clear & X86_CR4_OSXSAVE)
		return UD_VECTOR;
	if (s->user || (u32)s->rcx || !xcr0_is_legal(value) || value & ~vcpu_xcr0_mask(vcpu))
		return GP_VECTOR;
	return NO_VECTOR;
}

static void expect_xsetbv(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(emulator_forced) * const self, struct setting *s, u64 value,
			  bool forced)
{
	u8 wanted = xsetbv_vector(self->vcpu, s, value);
	struct outcome o;
	u64 xcr0;

	/* Neither instruction looks at the upper halves. */
	s->rax = (u32)value | 0xeeeeeeee00000000ull;
	s->rdx = value >> 32 | 0xdddddddd00000000ull;
	th_case("%s XSETBV of %#lx, ECX %#x, CPL %u, CR4.OSXSAVE %u",
		forced ? "emulated" : "native", (unsigned long)value, (u32)s->rcx, s->user * 3,
		!s->cr4_clear);
	if (!execute(_metadata, self, i_xsetbv, forced, s, &o))
		return;
	xcr0 = wanted == NO_VECTOR ? value : self->xcr0;
	XFAIL_IF(forced && s->user && s->cr4_clear && o.vector == GP_VECTOR,
		 "KVM emulates the #GP of XSETBV before its #UD") {
		EXPECT_THAT(o.vector == wanted, "wanted %s got %s", outcome_name(wanted),
			    outcome_name(o.vector));
	}
	EXPECT_XFEATURES(xcr0, o.xcr0, "XCR0");
	EXPECT_SAME(0, o.error, "error code");
	EXPECT_SAME(xf_standard_size(o.xcr0),
		    cpuid_regs(vcpu_current_cpuid(self->vcpu), 0xd, 0).ebx,
		    "CPUID.(0xd,0).EBX");
	EXPECT_SAME(s->rax, o.regs.rax, "RAX");
	EXPECT_SAME(s->rdx, o.regs.rdx, "RDX");
	munmap(o.area, XAREA_SIZE);
}

/*
 * KVM takes no value that the CPU would not: with one in XCR0, VM entry is an
 * oops of the host.
 */
static bool expect_refused(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			   u64 value)
{
	bool valid = xcr0_is_legal(value) && !(value & ~vcpu_xcr0_mask(vcpu));

	return EXPECT_THAT(valid || !vcpu_takes_xcr0(vcpu, value),
			   "KVM_SET_XCRS of %#lx: taken", (unsigned long)value);
}

/*
 * SKIP where XSETBV of guests does not exit: what is written then is XCR0 of the host, and
 * nothing more may be.
 */
static bool need_xsetbv_exit(struct __test_metadata *const _metadata,
			     FIXTURE_DATA(emulator_forced) * const self)
{
	struct setting s = { .rax = (u32)self->xcr0, .xcr0_clear = ~XFEATURE_MASK_FP };
	struct outcome o;

	if (!execute(_metadata, self, i_xsetbv, false, &s, &o))
		return false;
	if (o.vector != NO_VECTOR || o.xcr0 != XFEATURE_MASK_FP || self->xcr0 == o.xcr0)
		return true;
	if (xregs_cpu_of_software())
		SKIP(return false, "this CPU executes XSETBV of guests without an exit");
	return EXPECT_XFEATURES(self->xcr0, o.xcr0, "XCR0 of the guest after XSETBV");
}

/*
 * Verify that XSETBV takes the same values, and raises the same exceptions, by
 * the CPU and its exit and by the emulator.
 */
TEST_F(emulator_forced, xsetbv)
{
	u64 all = self->xcr0;
	const u64 values[] = {
		all, XFEATURE_MASK_FP, XFEATURE_MASK_FPSSE, 0, XFEATURE_MASK_SSE, all & ~3ull,
		XFEATURE_MASK_FP | XFEATURE_MASK_YMM, all & ~XFEATURE_MASK_AVX512,
		all ^ XFEATURE_MASK_OPMASK, all ^ XFEATURE_MASK_PKRU,
		all ^ XFEATURE_MASK_XTILE_CFG, all ^ XFEATURE_MASK_XTILE, all | XFEATURE_MASK_CET,
		all | XFEATURE_MASK_PASID, all | BIT_ULL(62), all | BIT_ULL(63), all | BIT_ULL(32),
	};
	const u64 indices[] = { 0, 1, 0x80000000, 0xffffffff, BIT_ULL(32) };
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(values); i++)
		if (!expect_refused(_metadata, self->vcpu, values[i]))
			return;
	if (!need_xsetbv_exit(_metadata, self))
		return;
	for (i = 0; i < 8; i++) {
		struct setting s = {
			.user = i & 1, .cr4_clear = i & 2 ? X86_CR4_OSXSAVE : 0,
		};

		/* That with both faults is known to be another one: once is enough. */
		for (j = 0; j < ((i & 3) == 3 ? 1 : ARRAY_SIZE(values)); j++)
			expect_xsetbv(_metadata, self, &s, values[j], i & 4);
		if ((i & 3) == 3)
			continue;
		for (j = 0; j < ARRAY_SIZE(indices); j++) {
			s.rcx = indices[j];
			expect_xsetbv(_metadata, self, &s, XFEATURE_MASK_FPSSE, i & 4);
		}
	}
}

/* ---- CR4 and MSRs ---- */

/*
 * Verify that MOV to CR4 takes the same bits, those that come with extended state,
 * and CPUID shows them.
 */
TEST_F(emulator_forced, cr4)
{
	const u64 bits[] = { X86_CR4_OSXSAVE, X86_CR4_PKE, X86_CR4_CET, X86_CR4_OSFXSR, BIT(31) };
	unsigned int i, wp;

	for (wp = 0; wp < 2; wp++) {
		self->sregs.cr0 = (self->sregs.cr0 & ~X86_CR0_WP) | (wp ? X86_CR0_WP : 0);
		for (i = 0; i < ARRAY_SIZE(bits); i++) {
			struct setting s = { .rax = self->sregs.cr4 ^ bits[i] };

			th_case("MOV of %#lx to CR4, CR0.WP %u", (unsigned long)s.rax, wp);
			expect_both(_metadata, self, i_mov_cr4, &s);
			s.user = true;
			th_case("MOV of %#lx to CR4, in user mode", (unsigned long)s.rax);
			vcpu_open_page(self->vcpu, i_mov_cr4);
			expect_both(_metadata, self, i_mov_cr4, &s);
		}
	}
}

/* WRMSR of @value, then RDMSR, twice: the vCPU begins with 0 each time. */
static void expect_msr(struct __test_metadata *const _metadata,
		       FIXTURE_DATA(emulator_forced) * const self, u32 msr, u64 value)
{
	struct setting s = { .rax = (u32)value, .rdx = value >> 32, .rcx = msr };
	struct outcome o[2];
	u64 left[2] = { };
	int i;

	th_case("WRMSR of %#lx to %s", (unsigned long)value, msr_name(msr));
	for (i = 0; i < 2; i++) {
		vcpu_takes_msr(self->vcpu, msr, 0);
		if (!execute(_metadata, self, i_wrmsr, i, &s, &o[i]))
			return;
		vcpu_reads_msr(self->vcpu, msr, &left[i]);
	}
	expect_same(_metadata, self, &o[0], &o[1]);
	EXPECT_SAME(left[0], left[1], "the MSR afterwards");
	th_case("RDMSR of %s", msr_name(msr));
	expect_both(_metadata, self, i_rdmsr, &s);
	vcpu_takes_msr(self->vcpu, msr, 0);
}

/* Verify that RDMSR and WRMSR have the same MSRs of extended state, and values. */
TEST_F(emulator_forced, msrs)
{
	const u32 others[] = { MSR_IA32_XSS, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_PASID };
	const u64 values[] = {
		0, 1, XFEATURE_MASK_CET, XFEATURE_MASK_XTILE_DATA, XFEATURE_MASK_PASID,
		XFEATURE_MASK_CET_USER,
	};
	unsigned int i, j;

	if (!xstate_need_refusals(_metadata))
		return;
	for (i = 0; i < NR_CET_MSRS; i++) {
		expect_msr(_metadata, self, cet_msrs[i],
			   cet_msr_value(self->vcpu, cet_msrs[i], 0));
		expect_msr(_metadata, self, cet_msrs[i], BIT_ULL(6) | BIT_ULL(63));
	}
	for (i = 0; i < ARRAY_SIZE(others); i++)
		for (j = 0; j < ARRAY_SIZE(values); j++)
			expect_msr(_metadata, self, others[i], values[j]);
}

/* ---- branches ---- */

STUB(b_jmp_rel, "jmp 1f\n1:")
STUB(b_jcc, "jz 1f\n1:")
STUB(b_loop, "loop 1f\n1:")
STUB(b_jmp_reg, "jmp *%rsi")
STUB(b_call_rel, "call 1f\n1:")
STUB(b_call_reg, "call *%rsi")
STUB(b_ret, "ret")
STUB(b_ret_imm, "ret $8")
STUB(b_ret_far, "lretq")
STUB(b_jmp_far, "ljmp *(%rbx)")
STUB(b_call_far, "lcall *(%rbx)")
STUB(b_syscall, "syscall")

/* The halves of CET that act on each; with a far one, of either mode */
static const struct branch {
	const char *name;
	void (*stub)(void);
	u64 cet;
	bool far;
} branches[] = {
	{ "JMP rel",	b_jmp_rel,	0, false },
	{ "Jcc",	b_jcc,		0, false },
	{ "LOOP",	b_loop,		0, false },
	{ "JMP reg",	b_jmp_reg,	CET_ENDBR_EN, false },
	{ "CALL rel",	b_call_rel,	CET_SHSTK_EN, false },
	{ "CALL reg",	b_call_reg,	CET_SHSTK_EN | CET_ENDBR_EN, false },
	{ "RET",	b_ret,		CET_SHSTK_EN, false },
	{ "RET imm",	b_ret_imm,	CET_SHSTK_EN, false },
	{ "far RET",	b_ret_far,	CET_SHSTK_EN, true },
	{ "far JMP",	b_jmp_far,	CET_ENDBR_EN, true },
	{ "far CALL",	b_call_far,	CET_SHSTK_EN | CET_ENDBR_EN, true },
	{ "SYSCALL",	b_syscall,	CET_SHSTK_EN | CET_ENDBR_EN, true },
};

static const struct cet_setting {
	const char *name;
	bool cr4_cet;
	u64 u_cet, s_cet;
} cet_settings[] = {
	{ "CR4.CET off", false, CET_SHSTK_EN | CET_ENDBR_EN, CET_SHSTK_EN | CET_ENDBR_EN },
	{ "nothing but CR4.CET", true, 0, 0 },
	{ "U_CET.SH_STK_EN", true, CET_SHSTK_EN, 0 },
	{ "U_CET.ENDBR_EN", true, CET_ENDBR_EN, 0 },
	{ "S_CET.SH_STK_EN", true, 0, CET_SHSTK_EN },
	{ "S_CET.ENDBR_EN", true, 0, CET_ENDBR_EN },
};

/* Memory for the next branch, and CET of the vCPU */
static void prepare_branch(FIXTURE_DATA(emulator_forced) * const self,
			   const struct cet_setting *c, u64 has)
{
	u64 *stack = addr_gva2hva(self->vm, STACK_TOP);
	u64 ssp = (u64)kernel_shstk + sizeof(kernel_shstk) / 2;

	stack[0] = (u64)landing;
	stack[1] = self->sregs.cs.selector;
	if (has) {
		vcpu_set_msr(self->vcpu, MSR_IA32_U_CET, c->u_cet & has);
		vcpu_set_msr(self->vcpu, MSR_IA32_S_CET, c->s_cet & has);
	}
	if (has & CET_SHSTK_EN)
		vcpu_one_reg_ssp(self->vcpu, KVM_SET_ONE_REG, &ssp);
}

/* KVM takes the branch, or refuses it, which is an #UD behind the prefix. */
static void expect_branch(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(emulator_forced) * const self, const struct branch *b,
			  const struct cet_setting *c, u64 has)
{
	struct setting s = { .rcx = 2, .cr4_set = c->cr4_cet && has ? X86_CR4_CET : 0 };
	u64 active = b->far ? c->u_cet | c->s_cet : c->s_cet;
	bool refused = c->cr4_cet && active & has & b->cet;
	struct outcome native = { }, emulated;

	th_case("%s with %s", b->name, c->name);
	prepare_branch(self, c, has);
	if (!refused && !execute(_metadata, self, b->stub, false, &s, &native))
		return;
	prepare_branch(self, c, has);
	if (!execute(_metadata, self, b->stub, true, &s, &emulated))
		return;
	if (!refused) {
		EXPECT_SAME(NO_VECTOR, native.vector, "vector by the CPU");
		/* CALL and SYSCALL keep where they were. */
		native.regs.rcx = emulated.regs.rcx;
		expect_same(_metadata, self, &native, &emulated);
	} else if (EXPECT_THAT(emulated.vector == UD_VECTOR, "wanted #UD got %s",
			       outcome_name(emulated.vector))) {
		EXPECT_SAME(0, emulated.rip, "RIP of the #UD, from the instruction on");
	}
}

/* An emulated CPU takes SP for RSP where a far CALL of 64-bit code pushes: #PF there. */
static bool far_call_faults(struct __test_metadata *const _metadata,
			    FIXTURE_DATA(emulator_forced) * const self, u64 has)
{
	const struct setting plain = { .rcx = 2 };
	struct kvm_sregs sregs;
	struct outcome o;

	prepare_branch(self, cet_settings, has);
	if (!execute(_metadata, self, b_call_far, false, &plain, &o))
		return false;
	munmap(o.area, XAREA_SIZE);
	vcpu_sregs_get(self->vcpu, &sregs);
	return o.vector == PF_VECTOR && o.error == PF_WRITE &&
	       sregs.cr2 == (u16)(STACK_TOP - 4) && xregs_cpu_of_software();
}

/*
 * Verify that the emulator refuses the branches that CET would act on, and takes
 * all others as the CPU does: those whose operand is no memory, and SYSCALL.
 */
TEST_F(emulator_forced, branches)
{
	u64 has = (vcpu_has_shstk(self->vcpu) ? CET_SHSTK_EN : 0) |
		  (vcpu_has_ibt(self->vcpu) ? CET_ENDBR_EN : 0);
	struct kvm_sregs *sregs = &self->sregs;
	unsigned int i, c;
	u8 far[10] = { };
	bool no_call;

	if (!expect_host_keeps_s_cet(_metadata, &variant->combo))
		return;
	vm_make_shstk(self->vm, (gva_t)kernel_shstk);
	vcpu_set_msr(self->vcpu, MSR_STAR, (u64)sregs->cs.selector << 32);
	vcpu_set_msr(self->vcpu, MSR_LSTAR, (u64)landing);
	sregs->efer |= EFER_SCE;
	*(u32 *)far = (u64)landing;
	*(u16 *)(far + 4) = sregs->cs.selector;
	memcpy(self->far, far, sizeof(far));
	no_call = far_call_faults(_metadata, self, has);
	if (no_call)
		TH_ROW_LOG("left out: far CALL, which raises #PF in 64-bit code on this CPU");
	for (i = 0; i < ARRAY_SIZE(branches); i++)
		for (c = 0; c < (has ? ARRAY_SIZE(cet_settings) : 1); c++)
			if (!no_call || branches[i].stub != b_call_far)
				expect_branch(_metadata, self, &branches[i], &cet_settings[c],
					      has);
}

/* ---- instructions whose memory KVM has to wait for ---- */

#define PAGE		4096

/* The prefix at the end of a page, and the instruction on the next one */
#define SPLIT_STUB(name, insn)					\
static __attribute__((naked)) __aligned(4096) void name(void)	\
{								\
	asm volatile(".skip 4096 - 5\n"			\
		     "\tud2\n\t.ascii \"kvm\"\n"		\
		     "\t" insn "\n"				\
		     "\toutb %al, $0x70\n"			\
		     ".balign 4096");				\
}

SPLIT_STUB(w_movaps, "movaps %xmm12, (%rbx)")
SPLIT_STUB(w_movq, "movq %mm6, (%rbx)")
SPLIT_STUB(w_fnstcw, "fnstcw (%rbx)")
SPLIT_STUB(w_vmovups, "vmovups %ymm11, (%rbx)")

/* What waits for its operand, or for its own bytes */
static const struct wait {
	const char *name;
	void (*native)(void);
	void (*split)(void);
	bool avx;
} waits[] = {
	{ "MOVAPS from memory", i_movaps_load, NULL, false },
	{ "MOVQ from memory", i_movq_load, NULL, false },
	{ "VMOVAPS from memory", i_vmovaps_load, NULL, true },
	{ "MOVAPS to memory", i_movaps_store, w_movaps, false },
	{ "MOVQ to memory", i_movq_store, w_movq, false },
	{ "FNSTCW", i_fnstcw, w_fnstcw, false },
	{ "VMOVUPS to memory", i_vmovups_store, w_vmovups, true },
};

/* A page of the guest that is not there, and who has it */
struct absent {
	struct __test_metadata *metadata;
	u8 *page, *content;
	const struct xregs *regs;	/* that this one has loaded */
	u64 mask;
	int uffd;
	bool given;
};

static bool take_away(struct absent *a)
{
	struct uffdio_register reg = {
		.range = { (u64)a->page, PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_api api = { .api = UFFD_API };

	a->content = xf_guarded(PAGE, 0);
	xarea_copy(a->content, a->page, PAGE);
	a->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	return a->uffd >= 0 && !ioctl(a->uffd, UFFDIO_API, &api) &&
	       !ioctl(a->uffd, UFFDIO_REGISTER, &reg) && !madvise(a->page, PAGE, MADV_DONTNEED);
}

/* Give it back to whoever waits, with other registers than the guest's. */
static void *give_back(void *arg)
{
	struct absent *a = arg;
	struct __test_metadata *const _metadata = a->metadata;
	struct uffdio_copy copy = {
		.dst = (u64)a->page, .src = (u64)a->content, .len = PAGE,
	};
	struct uffd_msg msg;

	EXPECT_SAME(sizeof(msg), read(a->uffd, &msg, sizeof(msg)), "a fault that is told");
	a->given = true;
	guest_load_xregs(a->regs, a->mask);
	EXPECT_SAME(0, ioctl(a->uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
	asm volatile("fninit\n\tldmxcsr %0" : : "m" ((u32){ MXCSR_INIT }));
	return NULL;
}

/* The outcome of @w is that of the CPU, though it slept while another task had the FPU. */
static void expect_waits(struct __test_metadata *const _metadata,
			 FIXTURE_DATA(emulator_forced) * const self, const struct wait *w,
			 struct absent *a)
{
	void (*stub)(void) = w->split ?: w->native;
	u64 rip = w->split ? (u64)w->split + PAGE - FEP_SIZE : (u64)w->native + STUB_FORCED;
	struct outcome native, emulated = { };
	pthread_t thread;

	th_case("%s", w->name);
	if (!execute(_metadata, self, w->native, false, settings, &native))
		return;
	start(_metadata, self, rip, settings);
	a->page = w->split ? addr_gva2hva(self->vm, (u64)stub + PAGE) : self->operand;
	if (!take_away(a))
		SKIP(return, "no userfaultfd");
	a->given = false;
	ASSERT_EQ(0, pthread_create(&thread, NULL, give_back, a));
	vcpu_run(self->vcpu);
	EXPECT_THAT(a->given, "KVM did not have to wait for memory");
	/* Whoever still waits for a fault gets one. */
	asm volatile("testb $0, %0" : : "m" (*a->page) : "cc");
	xf_join_thread(_metadata, thread, "who has the page");
	close(a->uffd);
	munmap(a->content, PAGE);
	if (!EXPECT_THAT(self->vcpu->run->exit_reason == KVM_EXIT_IO, "exit %s",
			 exit_reason_str(self->vcpu->run->exit_reason)))
		return;
	emulated.vector = self->vcpu->run->io.port == PORT_END ? NO_VECTOR :
			  self->vcpu->run->io.port - PORT_VECTOR;
	finish(self, rip + FEP_SIZE, &emulated);
	expect_same(_metadata, self, &native, &emulated);
}

static void expect_all_wait(struct __test_metadata *const _metadata,
			    FIXTURE_DATA(emulator_forced) * const self, bool avx)
{
	static struct xregs theirs;
	struct absent absent = {
		.metadata = _metadata, .regs = &theirs,
		.mask = self->mask & (XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM |
				      XFEATURE_MASK_AVX512),
	};
	unsigned int i;

	xf_pin(_metadata);
	xregs_fill(&theirs, self->vcpu, 1);
	for (i = 0; i < ARRAY_SIZE(waits); i++)
		if (waits[i].avx == avx)
			expect_waits(_metadata, self, &waits[i], &absent);
}

/*
 * Verify the same of instructions whose operand, or whose own bytes, KVM has to
 * wait for: another task has run by then, and its registers are in the CPU.
 */
TEST_F(emulator_forced, waits)
{
	expect_all_wait(_metadata, self, false);
}

TEST_F(emulator_forced, avx_waits)
{
	if (need_avx(_metadata, self))
		expect_all_wait(_metadata, self, true);
}

XSTATE_HARNESS_MAIN
