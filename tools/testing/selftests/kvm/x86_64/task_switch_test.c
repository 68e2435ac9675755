// SPDX-License-Identifier: GPL-2.0-only
/*
 * Task switches, which KVM has to carry out, next to CET.
 *
 * A guest in protected mode goes from one TSS to another: by JMP, CALL, IRET, a
 * task gate for INT or for an exception.  KVM's emulator knows neither shadow
 * stacks nor branch tracking, which act on the old task or on the new one: with
 * CR4.CET and either of them, in U_CET or in S_CET, it must say so to user space
 * and touch neither task.  With nothing of that in use it must do its work.
 */
#include "xregs.h"

/* Physical memory, which is all that there is: no paging */
enum {
	GDT = 0x1000, IDT = 0x2000, TSS_A = 0x3000, TSS_B = 0x3800, CODE_A = 0x4000,
	CODE_B = 0x5000, STACK_A = 0x7000, STACK_B = 0x8000, SHADOW = 0x9000,
	MEMORY_END = 0xa000,
};

/* Selectors */
enum { CS_SEL = 0x08, DS_SEL = 0x10, TSS_A_SEL = 0x18, TSS_B_SEL = 0x20, GATE_SEL = 0x28 };

/* Where the guest leaves: from the old task, and from the new one */
#define PORT_A			0x50
#define PORT_B			0x51

#define INT_VECTOR		0x30
#define EFLAGS_NT		BIT(14)

/* Types of descriptors; a TSS in use is busy. */
#define DESC_CODE		0x9b
#define DESC_DATA		0x93
#define DESC_TSS		0x89
#define DESC_TSS_BUSY		BIT(1)
#define DESC_TASK_GATE		0x85

/* SDM: "32-Bit Task-State Segment (TSS)" */
struct tss32 {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
	u32 eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt, io_map;
	u32 ssp;
};

/* ---- ways from one task to another ---- */

/* Each is followed by OUT to PORT_A. */
static const u8 jmp_tss[] = { 0xea, 0, 0, 0, 0, TSS_B_SEL, 0 };
static const u8 jmp_gate[] = { 0xea, 0, 0, 0, 0, GATE_SEL, 0 };
static const u8 call_tss[] = { 0x9a, 0, 0, 0, 0, TSS_B_SEL, 0 };
static const u8 int_gate[] = { 0xcd, INT_VECTOR };
static const u8 iret[] = { 0xcf };
static const u8 ud2[] = { 0x0f, 0x0b };
/* mov $0x1000, %ax; mov %ax, %fs: #GP, with an error code */
static const u8 bad_segment[] = { 0x66, 0xb8, 0x00, 0x10, 0x8e, 0xe0 };

static const struct way {
	const char *name;
	const u8 *code;
	u32 size, fault;		/* where it faults, or its size */
	bool nests, nested;		/* begins a nested task, or ends one */
	bool has_error;
	u32 error;
} ways[] = {
	{ "JMP to a TSS", jmp_tss, sizeof(jmp_tss), sizeof(jmp_tss), .nests = false },
	{ "JMP to a task gate", jmp_gate, sizeof(jmp_gate), sizeof(jmp_gate), .nests = false },
	{ "CALL of a TSS", call_tss, sizeof(call_tss), sizeof(call_tss), .nests = true },
	{ "INT", int_gate, sizeof(int_gate), sizeof(int_gate), .nests = true },
	{ "IRET", iret, sizeof(iret), sizeof(iret), .nested = true },
	{ "#UD", ud2, sizeof(ud2), 0, .nests = true },
	{ "#GP", bad_segment, sizeof(bad_segment), 4, .nests = true, .has_error = true,
	  .error = 0x1000 },
};

/* What is on of CET */
static const struct setting {
	const char *name;
	bool cr4_cet;
	u64 u_cet, s_cet;
	bool refused;
} settings[] = {
	{ "CR4.CET off", false, CET_SHSTK_EN | CET_ENDBR_EN, CET_SHSTK_EN | CET_ENDBR_EN, false },
	{ "nothing but CR4.CET", true, 0, 0, false },
	{ "all but what enables CET", true, ~(CET_SHSTK_EN | CET_ENDBR_EN),
	  ~(CET_SHSTK_EN | CET_ENDBR_EN), false },
	{ "U_CET.SH_STK_EN", true, CET_SHSTK_EN, 0, true },
	{ "U_CET.ENDBR_EN", true, CET_ENDBR_EN, 0, true },
	{ "S_CET.SH_STK_EN", true, 0, CET_SHSTK_EN, true },
	{ "S_CET.ENDBR_EN", true, 0, CET_ENDBR_EN, true },
	{ "SH_STK_EN of U_CET, ENDBR_EN of S_CET", true, CET_SHSTK_EN, CET_ENDBR_EN, true },
	{ "all of CET", true, CET_SHSTK_EN | CET_ENDBR_EN, CET_SHSTK_EN | CET_ENDBR_EN, true },
};

/* Bits that neither enable anything nor are reserved, of each half of CET */
#define HARMLESS_SHSTK		CET_WRSS_EN
#define HARMLESS_IBT		CET_NO_TRACK_EN

FIXTURE(task_switch) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xregs regs;
	u8 *memory;
	u64 has;			/* what U_CET and S_CET may enable */
	u64 harmless;			/* and other bits of them */
};

XSTATE_SUITE(task_switch);

FIXTURE_VARIANT_ADD(task_switch, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(task_switch, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(task_switch, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(task_switch, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };

static void guest_code(void)
{
}

FIXTURE_SETUP(task_switch)
{
	if (!xstate_begin(_metadata, &variant->combo) || !xstate_need_guests(_metadata) ||
	    !xstate_need_cet(_metadata, &variant->combo))
		return;
	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_code);
	self->memory = addr_gpa2hva(self->vm, 0);
	self->has = (vcpu_has_shstk(self->vcpu) ? CET_SHSTK_EN : 0) |
		    (vcpu_has_ibt(self->vcpu) ? CET_ENDBR_EN : 0);
	self->harmless = (vcpu_has_shstk(self->vcpu) ? HARMLESS_SHSTK : 0) |
			 (vcpu_has_ibt(self->vcpu) ? HARMLESS_IBT : 0);
	vm_enable_cap(self->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
}

/* ---- the two tasks ---- */

static u64 descriptor(u32 base, u32 limit, u8 type, u8 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)type << 40 |
	       (u64)(limit >> 16 & 0xf) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

static u8 tss_type(const u8 *memory, u32 selector)
{
	return memory[GDT + selector + 5];
}

static void write_memory(u8 *memory, const struct way *w)
{
	const u8 out_a[] = { 0xe6, PORT_A }, out_b[] = { 0xe6, PORT_B };
	u64 *gdt = (u64 *)(memory + GDT), *idt = (u64 *)(memory + IDT);
	u64 gate = (u64)TSS_B_SEL << 16 | (u64)DESC_TASK_GATE << 40;
	struct tss32 *a = (struct tss32 *)(memory + TSS_A);
	struct tss32 *b = (struct tss32 *)(memory + TSS_B);
	u32 limit = sizeof(*a) - 1;

	memset(memory + GDT, 0, MEMORY_END - GDT);
	gdt[CS_SEL / 8] = descriptor(0, 0xfffff, DESC_CODE, 0xc);
	gdt[DS_SEL / 8] = descriptor(0, 0xfffff, DESC_DATA, 0xc);
	gdt[TSS_A_SEL / 8] = descriptor(TSS_A, limit, DESC_TSS | DESC_TSS_BUSY, 0);
	gdt[TSS_B_SEL / 8] = descriptor(TSS_B, limit,
					DESC_TSS | (w->nested ? DESC_TSS_BUSY : 0), 0);
	gdt[GATE_SEL / 8] = gate;
	idt[INT_VECTOR] = gate;
	idt[UD_VECTOR] = gate;
	idt[GP_VECTOR] = gate;
	a->link = TSS_B_SEL;
	*b = (struct tss32) {
		.link = 0x5a5a, .eip = CODE_B, .eflags = 2,
		.eax = 0xb0, .ecx = 0xb1, .edx = 0xb2, .ebx = 0xb3,
		.esp = STACK_B, .ebp = 0xb5, .esi = 0xb6, .edi = 0xb7,
		.es = DS_SEL, .cs = CS_SEL, .ss = DS_SEL, .ds = DS_SEL, .fs = DS_SEL, .gs = DS_SEL,
		.io_map = 0xffff,
	};
	memcpy(memory + CODE_A, w->code, w->size);
	memcpy(memory + CODE_A + w->size, out_a, sizeof(out_a));
	memcpy(memory + CODE_B, out_b, sizeof(out_b));
}

static struct kvm_segment segment(u16 selector, u8 type, u32 base, u32 limit)
{
	return (struct kvm_segment) {
		.selector = selector, .base = base, .limit = limit, .type = type & 0xf,
		.s = type >> 4 & 1, .present = 1, .db = type >> 4 & 1, .g = type >> 4 & 1,
	};
}

/* The old task is about to do it. */
static void enter_old_task(struct kvm_vcpu *vcpu, const struct way *w, const struct setting *s)
{
	struct kvm_segment data = segment(DS_SEL, DESC_DATA, 0, ~0u);
	struct kvm_regs regs = {
		.rax = 0xa0, .rcx = 0xa1, .rdx = 0xa2, .rbx = 0xa3, .rsp = STACK_A, .rbp = 0xa5,
		.rsi = 0xa6, .rdi = 0xa7, .rip = CODE_A, .rflags = 2 | (w->nested ? EFLAGS_NT : 0),
	};
	struct kvm_sregs sregs;

	vcpu_sregs_get(vcpu, &sregs);
	sregs.cs = segment(CS_SEL, DESC_CODE, 0, ~0u);
	sregs.ds = data;
	sregs.es = data;
	sregs.fs = data;
	sregs.gs = data;
	sregs.ss = data;
	sregs.tr = segment(TSS_A_SEL, DESC_TSS | DESC_TSS_BUSY, TSS_A, sizeof(struct tss32) - 1);
	sregs.ldt = (struct kvm_segment) { .unusable = 1 };
	sregs.gdt = (struct kvm_dtable) { .base = GDT, .limit = GATE_SEL + 7 };
	sregs.idt = (struct kvm_dtable) { .base = IDT, .limit = 0x7ff };
	sregs.cr0 = X86_CR0_PE | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET;
	sregs.cr4 = s->cr4_cet ? X86_CR4_CET : 0;
	sregs.cr3 = 0;
	sregs.efer = 0;
	vcpu_sregs_set(vcpu, &sregs);
	vcpu_regs_set(vcpu, &regs);
}

/* KVM_SET_MSRS and KVM_SET_ONE_REG of what @s says and the vCPU has */
static void set_cet(struct __test_metadata *const _metadata,
		    FIXTURE_DATA(task_switch) * const self, const struct setting *s)
{
	xregs_fill(&self->regs, self->vcpu, 0);
	self->regs.cet[I_U_CET] = s->u_cet & (self->has | self->harmless);
	self->regs.cet[I_S_CET] = s->s_cet & (self->has | self->harmless);
	/* Addresses that are valid outside of long mode */
	self->regs.cet[I_PL0] = self->has & CET_SHSTK_EN ? SHADOW + 0x800 : 0;
	if (self->has & CET_SHSTK_EN)
		self->regs.ssp = SHADOW + 0x400;
	vcpu_set_cet(_metadata, self->vcpu, &self->regs);
}

/* ---- what became of them ---- */

static void expect_old_task(struct __test_metadata *const _metadata, const u8 *memory,
			    const struct way *w)
{
	const struct tss32 *a = (const struct tss32 *)(memory + TSS_A);
	bool busy = w->nests;

	EXPECT_SAME(CODE_A + w->fault, a->eip, "EIP of the old task");
	EXPECT_SAME(0xa3, a->ebx, "EBX of the old task");
	EXPECT_SAME(0xa1, a->ecx, "ECX of the old task");
	EXPECT_SAME(0xa7, a->edi, "EDI of the old task");
	EXPECT_SAME(STACK_A, a->esp, "ESP of the old task");
	EXPECT_SAME(CS_SEL, a->cs, "CS of the old task");
	EXPECT_SAME(0, a->eflags & EFLAGS_NT, "EFLAGS.NT of the old task");
	EXPECT_SAME(busy ? DESC_TSS | DESC_TSS_BUSY : DESC_TSS, tss_type(memory, TSS_A_SEL),
		    "type of the old TSS");
}

/* The new task is at its OUT, and the old one is in its TSS. */
static void expect_switched(struct __test_metadata *const _metadata,
			    FIXTURE_DATA(task_switch) * const self, const struct way *w)
{
	const struct tss32 *b = (const struct tss32 *)(self->memory + TSS_B);
	u32 esp = STACK_B - (w->has_error ? 4 : 0);
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	vcpu_sregs_get(self->vcpu, &sregs);
	vcpu_regs_get(self->vcpu, &regs);
	EXPECT_SAME(TSS_B_SEL, sregs.tr.selector, "selector of TR");
	EXPECT_SAME(TSS_B, sregs.tr.base, "base of TR");
	EXPECT_SAME(DS_SEL, sregs.ss.selector, "selector of SS");
	EXPECT_SAME(X86_CR0_TS, sregs.cr0 & X86_CR0_TS, "CR0.TS");
	EXPECT_SAME(0xb0, regs.rax, "EAX");
	EXPECT_SAME(0xb1, regs.rcx, "ECX");
	EXPECT_SAME(0xb7, regs.rdi, "EDI");
	EXPECT_SAME(esp, regs.rsp, "ESP");
	EXPECT_SAME(w->nests ? EFLAGS_NT : 0, regs.rflags & EFLAGS_NT, "EFLAGS.NT");
	EXPECT_SAME(w->nests ? TSS_A_SEL : 0x5a5a, b->link, "link of the new TSS");
	EXPECT_SAME(DESC_TSS | DESC_TSS_BUSY, tss_type(self->memory, TSS_B_SEL),
		    "type of the new TSS");
	if (w->has_error)
		EXPECT_SAME(w->error, *(u32 *)(self->memory + esp), "error code");
	expect_old_task(_metadata, self->memory, w);
}

/* Neither task has changed, and it is the old one that is there. */
static void expect_refused(struct __test_metadata *const _metadata,
			   FIXTURE_DATA(task_switch) * const self, const u8 *before)
{
	struct kvm_run *run = self->vcpu->run;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	size_t n;

	EXPECT_SAME(KVM_INTERNAL_ERROR_EMULATION, run->internal.suberror, "suberror");
	vcpu_sregs_get(self->vcpu, &sregs);
	vcpu_regs_get(self->vcpu, &regs);
	EXPECT_SAME(TSS_A_SEL, sregs.tr.selector, "selector of TR");
	EXPECT_SAME(0, sregs.cr0 & X86_CR0_TS, "CR0.TS");
	EXPECT_SAME(0xa1, regs.rcx, "ECX");
	EXPECT_SAME(STACK_A, regs.rsp, "ESP");
	n = xarea_differ(before + GDT, self->memory + GDT, MEMORY_END - GDT);
	if (n < MEMORY_END - GDT)
		EXPECT_SAME(before[GDT + n], self->memory[GDT + n], "byte %#zx of memory",
			    GDT + n);
}

static void expect_switch(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(task_switch) * const self, const struct way *w,
			  const struct setting *s)
{
	bool refused = s->refused && (s->u_cet | s->s_cet) & self->has;
	u32 wanted = refused ? KVM_EXIT_INTERNAL_ERROR : KVM_EXIT_IO;
	struct kvm_vcpu_events events = { };
	static u8 before[MEMORY_END];
	struct kvm_run *run = self->vcpu->run;

	th_case("%s with %s", w->name, s->name);
	write_memory(self->memory, w);
	memcpy(before, self->memory, MEMORY_END);
	enter_old_task(self->vcpu, w, s);
	set_cet(_metadata, self, s);
	if (!EXPECT_ERRNO(0, _vcpu_run(self->vcpu) ? errno : 0, "KVM_RUN") ||
	    !EXPECT_THAT(run->exit_reason == wanted, "wanted %s got %s", exit_reason_str(wanted),
			 exit_reason_str(run->exit_reason)))
		return;
	if (refused)
		expect_refused(_metadata, self, before);
	else if (EXPECT_SAME(PORT_B, run->io.port, "port of OUT"))
		expect_switched(_metadata, self, w);
	expect_cet(_metadata, self->vcpu, &self->regs, "a task switch");
	expect_kept_elsewhere(_metadata, self->vcpu, &self->regs, "a task switch");
	/* Nothing of it is left for the next one. */
	events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
	vcpu_events_set(self->vcpu, &events);
}

/* How often the vCPU has left the guest */
static u64 count_exits(struct kvm_vcpu *vcpu)
{
	int fd = vcpu_get_stats_fd(vcpu);
	struct kvm_stats_header header;
	struct kvm_stats_desc *all, *d;
	u64 exits = 0;
	u32 i;

	read_stats_header(fd, &header);
	all = read_stats_descriptors(fd, &header);
	for (i = 0; i < header.num_desc; i++) {
		d = get_stats_descriptor(all, i, &header);
		if (!strcmp(d->name, "exits"))
			read_stat_data(fd, &header, d, &exits, 1);
	}
	free(all);
	close(fd);
	return exits;
}

/*
 * SKIP where an emulated CPU switches tasks of guests itself: OUT of the new task is the only
 * exit then.  Interrupts of the host exit as well, but not each time.  Whatever else comes of
 * it is for the test.
 */
static bool need_task_switch_exit(struct __test_metadata *const _metadata,
				  FIXTURE_DATA(task_switch) * const self)
{
	struct kvm_run *run = self->vcpu->run;
	u64 before, fewest = ~0ull;
	struct kvm_sregs sregs;
	int i;

	for (i = 0; i < 10; i++) {
		write_memory(self->memory, ways);
		enter_old_task(self->vcpu, ways, settings);
		before = count_exits(self->vcpu);
		if (_vcpu_run(self->vcpu) || run->exit_reason != KVM_EXIT_IO ||
		    run->io.port != PORT_B)
			return true;
		vcpu_sregs_get(self->vcpu, &sregs);
		if (sregs.tr.selector != TSS_B_SEL || sregs.tr.base != TSS_B)
			return true;
		fewest = min(fewest, count_exits(self->vcpu) - before);
	}
	if (fewest < 2 && xregs_cpu_of_software())
		SKIP(return false, "this CPU switches tasks of guests without an exit");
	return true;
}

/*
 * Verify that KVM switches tasks exactly if neither half of CET is on in U_CET or
 * in S_CET, or if CR4.CET is off, and that CET is what it was.
 */
TEST_F(task_switch, ways)
{
	unsigned int i, s;

	if (!need_task_switch_exit(_metadata, self))
		return;
	for (i = 0; i < ARRAY_SIZE(ways); i++)
		for (s = 0; s < (self->has ? ARRAY_SIZE(settings) : 1); s++)
			expect_switch(_metadata, self, &ways[i], &settings[s]);
}

XSTATE_HARNESS_MAIN
