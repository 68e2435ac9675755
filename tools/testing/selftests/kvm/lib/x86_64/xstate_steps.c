// SPDX-License-Identifier: GPL-2.0-only
/* Steps of the model, carried out: see xstate_steps.h. */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "xstate_steps.h"

#ifndef X86_CR4_PKE
#define X86_CR4_PKE	BIT(22)
#endif

#define PKRU_PLAIN	0x55555554
#define ALTSTACK_SMALL	8192
#define ALTSTACK_LARGE	65536

/* Where a new program finds the memory that is shared */
#define RESUME		"XSTATE_MODEL_RESUME"

/* What this process has of each vCPU, and the step that it carries out */
static struct {
	struct __test_metadata *_metadata;
	struct xm model;
	struct kvm_vcpu *vcpu[XM_VCPUS];
	const struct xm_step *s;
	struct xm_answer want;
	struct xm_vcpu then[XS_MAX_JOINED];	/* after each instruction */
	struct xm_answer wants[XS_MAX_JOINED];
} run;

static int memory_fd = -1;

/* Say what a failure to come is about, where it is told at all. */
static void begin_case(const struct xm_step *s)
{
	if (!XS_MEMORY->silent)
		th_case("%s", xs_describe(s));
}

static void map_memory(void)
{
	void *p = mmap(XS_MEMORY, sizeof(struct xs_memory), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED_NOREPLACE, memory_fd, 0);

	TEST_ASSERT(p == XS_MEMORY, "mmap(): %s", strerror(errno));
}

/* ---- guests ---- */

#define INSN_SAFE(insn, area, mask) \
	kvm_asm_safe(insn " (%[p])", [p] "r" (area), "a" ((u32)(mask)), "d" ((u32)((mask) >> 32)))

/* ldtilecfg (%rax), tileloadd (%rax,%rcx), %tmm0 */
#define TILE_SAFE(opcode, p) \
	kvm_asm_safe(".byte 0xc4, 0xe2, " opcode, "a" (p), "c" (64ul))

static INTEGER_ONLY u8 guest_tiles(const struct xregs *r)
{
	u8 vector = TILE_SAFE("0x78, 0x49, 0x00", r->tilecfg);

	if (!vector)
		vector = TILE_SAFE("0x7b, 0x4b, 0x04, 0x08", r->tile);
	if (!vector)
		tile_load(r->tile[0]);
	return vector;
}

static INTEGER_ONLY u8 guest_pkru(struct xs_insn *i, const struct xregs *r)
{
	u32 pkru = r->pkru;
	u8 vector = 0;

	if (i->nr == XM_WRPKRU)
		vector = kvm_asm_safe(".byte 0x0f, 0x01, 0xef", "a" (pkru), "c" (0), "d" (0));
	if (!vector)
		vector = kvm_asm_safe(".byte 0x0f, 0x01, 0xee", "c" (0));
	if (!vector)
		i->read[0] = xregs_rdpkru();
	return vector;
}

static INTEGER_ONLY u8 guest_msr(struct xs_insn *i)
{
	u8 vector = 0;

	if (i->nr == XM_WRMSR)
		vector = wrmsr_safe(i->msr, i->value);
	return vector ?: rdmsr_safe(i->msr, &i->read[0]);
}

static INTEGER_ONLY void guest_cpuid(struct xs_insn *i)
{
	i->read[0] = xf_cpuid(0xd, 0).ebx;
	i->read[0] |= xf_cpuid(1, 0).ecx & BIT(27) ? BIT_ULL(32) : 0;
	i->read[0] |= xf_cpuid(7, 0).ecx & BIT(4) ? BIT_ULL(33) : 0;
	i->read[1] = xf_cpuid(0xd, 1).ebx;
}

static INTEGER_ONLY u8 guest_insn(struct xs_insn *i, u8 *area)
{
	const struct xregs *r = &XS_MEMORY->sets[i->set];

	switch (i->nr) {
	case XM_LOAD:
		guest_load_xregs(r, i->mask);
		return 0;
	case XM_WRPKRU:
	case XM_RDPKRU:
		return guest_pkru(i, r);
	case XM_TILES:
		return guest_tiles(r);
	case XM_TILERELEASE:
		return kvm_asm_safe(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0");
	case XM_INSN_XSAVE:
		return INSN_SAFE("xsave64", area, i->mask);
	case XM_INSN_XSAVEC:
		return INSN_SAFE("xsavec64", area, i->mask);
	case XM_INSN_XSAVES:
		return INSN_SAFE("xsaves64", area, i->mask);
	case XM_INSN_XRSTOR:
		return INSN_SAFE("xrstor64", area, i->mask);
	case XM_INSN_XRSTORS:
		return INSN_SAFE("xrstors64", area, i->mask);
	case XM_XSETBV:
		return xsetbv_safe(0, i->value);
	case XM_INSN_CPUID:
		guest_cpuid(i);
		return 0;
	default:
		return guest_msr(i);
	}
}

static INTEGER_ONLY void guest_code(void)
{
	struct xs_memory *mem = XS_MEMORY;
	u64 i;

	for (i = 0; i < mem->nr_insns; i++)
		mem->insns[i].vector = guest_insn(&mem->insns[i], mem->areas[i]);
	guest_leave();
}

/*
 * What kvm_asm_safe() asks of handlers of exceptions, without a use of any register that
 * is live: those of libkvm are compiled, and use SSE.  16 bytes for each vector.
 */
extern const char guest_handlers[];

asm(".pushsection .text\n"
    ".balign 16\n"
    "guest_handlers:\n"
    ".set vector, 0\n"
    ".rept 32\n"
    ".balign 16\n"
    ".if !(0x227d00 >> vector & 1)\n"
    "\tpush $0\n"
    ".endif\n"
    "\tmov $vector, %r9d\n"
    "\tjmp guest_handler\n"
    ".set vector, vector + 1\n"
    ".endr\n"
    "guest_handler:\n"
    "\tcmp %r10, 8(%rsp)\n"
    "\tjne 1f\n"
    "\tpop %r10\n"
    "\tmov %r11, (%rsp)\n"
    "\tiretq\n"
    "1:\tmov %r9d, %eax\n"
    "\toutb %al, $0xee\n"
    "\tjmp 1b\n"
    ".popsection");

/* The first GiB is mapped to itself. */
static void make_guest_tables(struct xs_memory *mem)
{
	u64 i, handler;

	mem->page_tables[0][0] = (u64)mem->page_tables[1] | 0x23;
	mem->page_tables[1][0] = (u64)mem->page_tables[2] | 0x23;
	for (i = 0; i < 512; i++)
		mem->page_tables[2][i] = i << 21 | 0xe3;
	mem->gdt[1] = 0x00af9b000000ffff;
	mem->gdt[2] = 0x00cf93000000ffff;
	for (i = 0; i < ARRAY_SIZE(mem->idt); i++) {
		handler = (u64)guest_handlers + 16 * i;
		mem->idt[i] = (struct idt_entry) {
			.offset0 = handler, .offset1 = handler >> 16, .selector = 8,
			.type = 14, .p = 1,
		};
	}
}

static struct kvm_segment segment(u16 selector, u8 type, bool code)
{
	return (struct kvm_segment) {
		.selector = selector, .type = type, .limit = ~0u, .present = 1,
		.s = !!selector, .g = 1, .l = code, .db = !code && selector,
	};
}

static void fill_sregs(struct kvm_sregs *sregs, u64 cr4)
{
	struct xs_memory *mem = XS_MEMORY;

	sregs->cs = segment(8, 11, true);
	sregs->ds = segment(16, 3, false);
	sregs->es = sregs->ds;
	sregs->fs = sregs->ds;
	sregs->gs = sregs->ds;
	sregs->ss = sregs->ds;
	sregs->tr = segment(0, 11, false);
	sregs->tr.g = 0;
	sregs->tr.limit = 0x67;
	sregs->ldt = (struct kvm_segment) { .unusable = 1 };
	sregs->gdt.base = (u64)mem->gdt;
	sregs->gdt.limit = sizeof(mem->gdt) - 1;
	sregs->idt.base = (u64)mem->idt;
	sregs->idt.limit = sizeof(mem->idt) - 1;
	sregs->cr0 = X86_CR0_PE | X86_CR0_NE | X86_CR0_PG | X86_CR0_WP | X86_CR0_ET;
	sregs->cr3 = (u64)mem->page_tables[0];
	sregs->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | cr4;
	sregs->efer = EFER_LME | EFER_LMA;
}

/* A VM with this program and the shared memory in it, and a vCPU */
static struct kvm_vcpu *new_vcpu(void)
{
	extern char __executable_start[], _end[];
	u64 start = (u64)__executable_start & -4096ul, end = ((u64)_end + 4095) & -4096ul;
	struct kvm_vm *vm = vm_create_barebones();

	TEST_ASSERT(end < (u64)XS_MEMORY, "the program ends at %#lx", (unsigned long)end);
	vm_set_user_memory_region(vm, 0, 0, start, end - start, (void *)start);
	vm_set_user_memory_region(vm, 1, 0, (u64)XS_MEMORY,
				  (sizeof(struct xs_memory) + 4095) & -4096ul, XS_MEMORY);
	xstate_create_apic(vm);
	return __vm_vcpu_add(vm, 0);
}

static void free_vcpu(struct kvm_vcpu *vcpu)
{
	kvm_vm_free(vcpu->vm);
}

static void set_guest_regs(struct kvm_vcpu *vcpu)
{
	struct xs_memory *mem = XS_MEMORY;
	struct kvm_regs regs = {
		.rip = (u64)guest_code,
		.rsp = (u64)mem->stack + sizeof(mem->stack) - 8,
		.rflags = 2,
	};

	vcpu_regs_set(vcpu, &regs);
}

/* ---- calls, with registers of the host in use or not ---- */

static u8 host_area[XAREA_SIZE] __aligned(64);

static INTEGER_ONLY long syscall_live(long nr, long a, long b, void *c, const struct xregs *r,
				      u64 mask)
{
	guest_load_xregs(r, mask);
	asm volatile("syscall" : "+a" (nr) : "D" (a), "S" (b), "d" (c)
		     : "rcx", "r11", "memory");
	asm volatile("xsave64 (%0)" : : "r" (host_area), "a" ((u32)mask), "d" (0) : "memory");
	if (mask & XFEATURE_MASK_XTILE)
		tile_release();
	asm volatile("fninit\n\tldmxcsr %0" : : "m" ((u32) { MXCSR_INIT }));
	return nr;
}

static void plain_pkru(void)
{
	if (xf_xcr0() & XFEATURE_MASK_PKRU)
		xregs_wrpkru(PKRU_PLAIN);
}

/* A system call, in which the host keeps its registers; a negative result is an errno. */
static long call(long nr, long a, long b, void *c)
{
	struct __test_metadata *const _metadata = run._metadata;
	const struct xregs *r = &XS_MEMORY->sets[1 + XS_MEMORY->at % (XM_SETS - 1)];
	u64 mask = xm_host_mask(&run.model);
	long ret;

	if (!(run.s->flags & XM_LIVE)) {
		ret = syscall(nr, a, b, c);
		return ret < 0 ? -errno : ret;
	}
	xarea_set_header(host_area, 0, 0);
	ret = syscall_live(nr, a, b, c, r, mask);
	plain_pkru();
	EXPECT_XFEATURES(mask, xarea_header(host_area, 0), "components in use by the host");
	expect_area(_metadata, host_area, r, mask, 0, "registers of the host");
	return ret;
}

static long vcpu_call(struct kvm_vcpu *vcpu, unsigned long cmd, void *arg)
{
	return call(SYS_ioctl, vcpu->fd, cmd, arg);
}

static void expect_result(long got)
{
	struct __test_metadata *const _metadata = run._metadata;

	if (!run.want.any_result)
		EXPECT_ERRNO(run.want.result, got < 0 ? -got : 0, "result");
}

/* ---- what is seen after each step ---- */

static void look_at_process(void)
{
	struct __test_metadata *const _metadata = run._metadata;
	const struct xm *m = &run.model;

	xf_expect_permissions(_metadata, xm_rule(m, XM_MASK_HOST, m->host),
			      xm_rule(m, XM_MASK_GUEST, m->guest), "after the step");
}

/* What KVM_GET_XSAVE2 must write.  What is not promised is taken from @got. */
static void make_wanted(const struct xm *m, const struct xm_vcpu *v, u8 *wanted, const u8 *got,
			u32 size)
{
	u64 shown = xm_shown(m, v), mask, free = v->unknown;
	u32 i, set;

	xarea_fill(wanted, 0, XAREA_SIZE);
	xregs_into_area(&XS_MEMORY->sets[0], wanted, XFEATURE_MASK_FPSSE, 0);
	for (set = 1; set < XM_SETS; set++) {
		for (mask = 0, i = 0; i < XM_COMPONENTS; i++)
			mask |= v->set[i] == set ? BIT_ULL(i) : 0;
		xregs_into_area(&XS_MEMORY->sets[set], wanted,
				mask & shown & ~XFEATURE_MASK_PKRU, 0);
	}
	if (xarea_header(got, 0) & XFEATURE_MASK_PKRU)
		xregs_into_area(&XS_MEMORY->sets[v->set[XFEATURE_PKRU]], wanted,
				XFEATURE_MASK_PKRU, 0);
	/* x87 instructions leave addresses behind, and the kernel says what it supports. */
	if (v->set[XFEATURE_FP])
		xarea_copy(wanted + 5, got + 5, XAREA_MXCSR - 5);
	xarea_copy(wanted + XAREA_MXCSR + 4, got + XAREA_MXCSR + 4, 4);
	/* Beside AVX without SSE, known kernels show an old MXCSR, which is in no component. */
	if (v->set[XFEATURE_YMM] && !v->set[XFEATURE_SSE])
		xarea_copy(wanted + XAREA_MXCSR, got + XAREA_MXCSR, 4);
	xarea_copy(wanted + 464, got + 464, XF_HEADER_OFFSET - 464);
	if (free & shown)
		xarea_copy(wanted + xarea_offset(0, XFEATURE_XTILE_DATA),
			   got + xarea_offset(0, XFEATURE_XTILE_DATA),
			   size - xarea_offset(0, XFEATURE_XTILE_DATA));
	xarea_set_header(wanted, 0, xarea_header(got, 0));
}

static void look_at_xsave(struct kvm_vcpu *vcpu, const struct xm_vcpu *v)
{
	struct __test_metadata *const _metadata = run._metadata;
	const struct xm *m = &run.model;
	static u8 got[XAREA_SIZE], wanted[XAREA_SIZE];
	u64 shown = xm_shown(m, v), bv, must, may;
	u32 size = xm_area_size(v);

	xarea_fill(got, XAREA_POISON, sizeof(got));
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_GET_XSAVE2, got), "KVM_GET_XSAVE2");
	bv = xarea_header(got, 0);
	must = v->exact ? v->bv & shown : xm_in_use(v) & XREGS_USER & shown;
	may = v->exact ? must : shown & m->machine->xcr0;
	if (v->pkru_shown)
		must |= XFEATURE_MASK_PKRU & shown;
	else
		must &= ~XFEATURE_MASK_PKRU;
	may |= XFEATURE_MASK_PKRU & shown;
	if (!EXPECT_XFEATURES(must, bv & must, "XSTATE_BV of KVM_GET_XSAVE2") ||
	    !EXPECT_XFEATURES(0, bv & ~may, "XSTATE_BV of KVM_GET_XSAVE2 beyond it"))
		return;
	make_wanted(m, v, wanted, got, size);
	xarea_fill(wanted + size, XAREA_POISON, XAREA_SIZE - size);
	expect_same_area(_metadata, wanted, got, XAREA_SIZE, "KVM_GET_XSAVE2");
}

/* All MSRs that can be read, in one call, in an order of its own for each step */
static void look_at_msrs(struct kvm_vcpu *vcpu, const struct xm_vcpu *v)
{
	struct __test_metadata *const _metadata = run._metadata;
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entries[XM_MSRS];
	} list = { };
	struct xm_answer wants[XM_MSRS];
	struct xm_step read = { .op = XM_GET_MSR, .vcpu = v - run.model.vcpu };
	struct xm scratch = run.model;
	u32 i, n = 0;

	for (i = 0; i < XM_MSRS; i++) {
		read.nr = (i + XS_MEMORY->at) % XM_MSRS;
		if (!xm_allows(&scratch, &read))
			continue;
		wants[n] = xm_take(&scratch, &read);
		if (!wants[n].result)
			list.entries[n++].index = xm_msr(read.nr);
	}
	list.header.nmsrs = n;
	EXPECT_SAME(n, ioctl(vcpu->fd, KVM_GET_MSRS, &list), "KVM_GET_MSRS");
	for (i = 0; i < n; i++)
		EXPECT_SAME(wants[i].read[0], list.entries[i].data, "%s",
			    msr_name(list.entries[i].index));
}

static void look_at_cpuid(struct kvm_vcpu *vcpu, const struct xm_vcpu *v)
{
	struct __test_metadata *const _metadata = run._metadata;
	const struct xm_machine *machine = run.model.machine;
	static typeof(XS_MEMORY->cpuids[0]) got;

	if (v->kind == XM_NO_CPUID)
		return;
	got.header.nent = XS_MEMORY->cpuids[v->kind].header.nent;
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_GET_CPUID2, &got), "KVM_GET_CPUID2");
	EXPECT_SAME(xf_standard_size(v->xcr0), cpuid_regs(&got.header, 0xd, 0).ebx,
		    "CPUID.(0xD,0).EBX");
	if (machine->xsaves || machine->xsavec)
		EXPECT_SAME(xm_compacted_size(&run.model, v), cpuid_regs(&got.header, 0xd, 1).ebx,
			    "CPUID.(0xD,1).EBX");
	EXPECT_SAME(!!(v->cr4 & X86_CR4_OSXSAVE), cpuid_regs(&got.header, 1, 0).ecx >> 27 & 1,
		    "OSXSAVE in CPUID");
	if (machine->pku)
		EXPECT_SAME(!!(v->cr4 & X86_CR4_PKE), cpuid_regs(&got.header, 7, 0).ecx >> 4 & 1,
			    "OSPKE in CPUID");
}

static void look_at_vcpu(int nr, bool more)
{
	struct __test_metadata *const _metadata = run._metadata;
	const u64 bits = X86_CR4_OSXSAVE | X86_CR4_PKE | X86_CR4_CET;
	const struct xm_vcpu *v = &run.model.vcpu[nr];
	struct kvm_vcpu *vcpu = run.vcpu[nr];
	u32 size = xm_area_size(v);
	static struct kvm_xsave area;
	struct kvm_sregs sregs;
	u64 ssp;

	look_at_xsave(vcpu, v);
	EXPECT_XFEATURES(v->xcr0, vcpu_xcr0(vcpu), "XCR0");
	if (!more)
		return;
	look_at_msrs(vcpu, v);
	run.model.vcpu[nr].exact = false;
	look_at_cpuid(vcpu, v);
	vcpu_sregs_get(vcpu, &sregs);
	EXPECT_SAME(v->cr4, sregs.cr4 & bits, "bits of CR4");
	EXPECT_ERRNO(size > sizeof(area) ? EINVAL : 0, vcpu_errno(vcpu, KVM_GET_XSAVE, &area),
		     "KVM_GET_XSAVE");
	if (xm_has_shstk(&run.model, v)) {
		EXPECT_ERRNO(0, vcpu_one_reg_ssp(vcpu, KVM_GET_ONE_REG, &ssp),
			     "KVM_GET_ONE_REG of SSP");
		EXPECT_SAME(v->ssp, ssp, "SSP");
	}
}

/* ---- steps of the process ---- */

static void do_request(void)
{
	expect_result(-xf_request(run.s->how ? ARCH_REQ_XCOMP_GUEST_PERM : ARCH_REQ_XCOMP_PERM,
				  run.s->value));
}

static void do_altstack(void)
{
	static u8 *stacks[3];
	stack_t ss = { .ss_flags = SS_DISABLE };

	if (run.s->how != XM_NO_ALTSTACK) {
		if (!stacks[run.s->how])
			stacks[run.s->how] = xf_guarded(ALTSTACK_LARGE, 0);
		ss = (stack_t) {
			.ss_sp = stacks[run.s->how],
			.ss_size = run.s->how == XM_SMALL_ALTSTACK ? ALTSTACK_SMALL :
								     ALTSTACK_LARGE,
		};
	}
	expect_result(sigaltstack(&ss, NULL) ? -errno : 0);
}

static struct {
	int count;
	struct _fpx_sw_bytes sw;
	u64 bv, xcomp_bv;
	u32 magic2;
} frame;

static void on_signal(int sig __maybe_unused, siginfo_t *info __maybe_unused, void *context)
{
	const u8 *area = (u8 *)((ucontext_t *)context)->uc_mcontext.fpregs;

	memcpy(&frame.sw, area + XF_HEADER_OFFSET - sizeof(frame.sw), sizeof(frame.sw));
	frame.bv = xarea_header(area, 0);
	frame.xcomp_bv = xarea_header(area, 1);
	memcpy(&frame.magic2, area + frame.sw.xstate_size, sizeof(frame.magic2));
	frame.count++;
}

static void do_signal(void)
{
	struct __test_metadata *const _metadata = run._metadata;
	const struct sigaction action = {
		.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	u64 mask = xm_frame_mask(&run.model, run.s);
	u64 live = run.s->flags & XM_LIVE ? xm_host_mask(&run.model) : 0;
	u32 size = xf_standard_size(mask);

	frame.count = 0;
	sigaction(SIGUSR1, &action, NULL);
	call(SYS_tgkill, getpid(), syscall(SYS_gettid), (void *)SIGUSR1);
	EXPECT_SAME(1, frame.count, "signals");
	EXPECT_SAME(FP_XSTATE_MAGIC1, frame.sw.magic1, "magic1 of the frame");
	EXPECT_SAME(FP_XSTATE_MAGIC2, frame.magic2, "magic2 of the frame");
	EXPECT_XFEATURES(mask, frame.sw.xstate_bv, "xfeatures of the frame");
	EXPECT_SAME(size, frame.sw.xstate_size, "xstate_size of the frame");
	EXPECT_XFEATURES(live, frame.bv & live, "XSTATE_BV of the frame");
	EXPECT_XFEATURES(0, frame.bv & ~mask, "XSTATE_BV of the frame beyond xfeatures");
	EXPECT_SAME(0, frame.xcomp_bv, "XCOMP_BV of the frame");
}

static void do_use_amx(void)
{
	xf_expect_amx(run._metadata, !run.want.result, "in this step");
}

static void do_offered(void)
{
	struct __test_metadata *const _metadata = run._metadata;
	u64 xcr0 = xm_offered_xcr0(&run.model);
	u32 size = xf_standard_size(xcr0);
	static typeof(XS_MEMORY->cpuids[0]) got;
	int kvm = open_kvm_dev_path_or_exit();

	got.header.nent = XS_MAX_CPUID;
	EXPECT_ERRNO(0, ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &got) ? errno : 0,
		     "KVM_GET_SUPPORTED_CPUID");
	EXPECT_XFEATURES(xcr0, cpuid_regs(&got.header, 0xd, 0).eax, "CPUID.(0xD,0).EAX offered");
	EXPECT_SAME(size, cpuid_regs(&got.header, 0xd, 0).ecx, "CPUID.(0xD,0).ECX offered");
	EXPECT_XFEATURES(run.model.machine->xss, cpuid_regs(&got.header, 0xd, 1).ecx,
			 "CPUID.(0xD,1).ECX offered");
	EXPECT_SAME(size < 4096 ? 4096 : size, ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2),
		    "KVM_CAP_XSAVE2");
	close(kvm);
}

static void run_from(u32 at);

static __noreturn void end_process(void)
{
	fflush(stdout);
	_exit(run._metadata->exit_code);
}

/* The child goes on; this process has what it had before. */
static void do_fork(const struct xm *before)
{
	struct __test_metadata *const _metadata = run._metadata;
	struct kvm_mp_state mp_state;
	pid_t pid = xf_fork(_metadata);
	int i, status;

	if (pid) {
		status = xf_wait(_metadata, pid, "the child that goes on");
		run.model = *before;
		if (!EXPECT_THAT(!status, "wait status of the child: %#x", status))
			end_process();
		look_at_process();
		for (i = 0; i < XM_VCPUS; i++)
			if (before->vcpu[i].exists)
				look_at_vcpu(i, true);
		end_process();
	}
	for (i = 0; i < XM_VCPUS; i++)
		if (before->vcpu[i].exists)
			EXPECT_ERRNO(EIO, vcpu_errno(run.vcpu[i], KVM_GET_MP_STATE, &mp_state),
				     "the parent's vCPU %d", i);
	look_at_process();
	run_from(XS_MEMORY->at + 1);
	end_process();
}

static void do_exec(void)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", memory_fd);
	setenv(RESUME, number, 1);
	XS_MEMORY->model = run.model;
	fflush(stdout);
	execl("/proc/self/exe", program_invocation_name, NULL);
	_exit(KSFT_FAIL);
}

/* What main() does instead of all else in a program that do_exec() has begun */
void xs_resume(void)
{
	static struct __test_metadata metadata;
	const char *number = getenv(RESUME);

	if (!number)
		return;
	memory_fd = atoi(number);
	map_memory();
	plain_pkru();
	run._metadata = &metadata;
	run.model = XS_MEMORY->model;
	snprintf(th_row, sizeof(th_row), "%s", XS_MEMORY->row);
	look_at_process();
	run_from(XS_MEMORY->at + 1);
	end_process();
}

/* ---- steps of a vCPU ---- */

static void do_cpuid(struct kvm_vcpu *vcpu)
{
	expect_result(vcpu_call(vcpu, KVM_SET_CPUID2, &XS_MEMORY->cpuids[run.s->set]));
}

/* KVM_RUN that takes what is dirty, and no more */
static long run_immediately(struct kvm_vcpu *vcpu, u64 dirty)
{
	long got;

	vcpu->run->kvm_dirty_regs = dirty;
	vcpu->run->immediate_exit = 1;
	got = vcpu_call(vcpu, KVM_RUN, NULL);
	vcpu->run->immediate_exit = 0;
	vcpu->run->kvm_dirty_regs = 0;
	return got;
}

static long set_sregs(struct kvm_vcpu *vcpu, const struct kvm_sregs *sregs)
{
	struct kvm_sregs2 sregs2 = { };
	long got;

	switch (run.s->how) {
	case XM_BY_SREGS2:
		memcpy(&sregs2, sregs, offsetof(struct kvm_sregs, interrupt_bitmap));
		return vcpu_call(vcpu, KVM_SET_SREGS2, &sregs2);
	case XM_BY_RUN:
		vcpu->run->s.regs.sregs = *sregs;
		got = run_immediately(vcpu, KVM_SYNC_X86_SREGS);
		return got == -EINTR ? 0 : got;
	default:
		return vcpu_call(vcpu, KVM_SET_SREGS, (void *)sregs);
	}
}

static void do_sregs(struct kvm_vcpu *vcpu)
{
	struct kvm_sregs sregs;

	vcpu_sregs_get(vcpu, &sregs);
	fill_sregs(&sregs, run.s->value);
	expect_result(set_sregs(vcpu, &sregs));
}

static long set_xcr0(struct kvm_vcpu *vcpu, u64 value)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = value };

	return vcpu_call(vcpu, KVM_SET_XCRS, &xcrs);
}

/* The image ends where memory does: not a byte more may be read. */
static void do_xsave(struct kvm_vcpu *vcpu)
{
	u32 size = xm_area_size(&run.model.vcpu[run.s->vcpu]);
	static u8 *end, image[XAREA_SIZE];

	if (!end)
		end = xf_guarded(XAREA_SIZE, 0) + XAREA_SIZE;
	xregs_to_area(&XS_MEMORY->sets[run.s->set], image, run.s->mask, 0);
	if (!(run.s->mask & XFEATURE_MASK_FP))
		*(u16 *)(image + XAREA_FCW) = FCW_INIT;
	if (!(run.s->mask & XFEATURE_MASK_SSE))
		*(u32 *)(image + XAREA_MXCSR) = MXCSR_INIT;
	if (run.s->how == XM_XCOMP_BV)
		xarea_set_header(image, 1, XCOMP_BV_COMPACTED | run.s->mask);
	if (run.s->how == XM_RESERVED)
		xarea_set_header(image, 2 + XS_MEMORY->at % 6, 1);
	if (run.s->how == XM_BAD_MXCSR)
		*(u32 *)(image + XAREA_MXCSR) |= BIT(31);
	xarea_copy(end - size, image, size);
	expect_result(vcpu_call(vcpu, KVM_SET_XSAVE, end - size + (run.s->how == XM_SHORT)));
}

static long access_msr(struct kvm_vcpu *vcpu, bool set, u32 msr, u64 *value)
{
	struct kvm_one_reg reg = { .id = KVM_X86_REG_MSR(msr), .addr = (unsigned long)value };
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} list = { .header.nmsrs = 1, .entry.index = msr, .entry.data = *value };
	long done;

	if (run.s->how)
		return vcpu_call(vcpu, set ? KVM_SET_ONE_REG : KVM_GET_ONE_REG, &reg);
	done = vcpu_call(vcpu, set ? KVM_SET_MSRS : KVM_GET_MSRS, &list);
	*value = list.entry.data;
	return done == 1 ? 0 : done ? done : -EINVAL;
}

static void do_msr(struct kvm_vcpu *vcpu)
{
	struct __test_metadata *const _metadata = run._metadata;
	bool set = run.s->op == XM_SET_MSR;
	u64 value = set ? run.s->value : ~0ull;

	expect_result(access_msr(vcpu, set, xm_msr(run.s->nr), &value));
	if (!set && !run.want.result)
		EXPECT_SAME(run.want.read[0], value, "%s", msr_name(xm_msr(run.s->nr)));
}

static void do_ssp(struct kvm_vcpu *vcpu)
{
	struct kvm_one_reg reg = {
		.id = KVM_X86_REG_KVM(KVM_REG_GUEST_SSP), .addr = (unsigned long)&run.s->value,
	};

	expect_result(vcpu_call(vcpu, KVM_SET_ONE_REG, &reg));
}

static void do_init(struct kvm_vcpu *vcpu)
{
	struct kvm_mp_state mp_state;

	xstate_send_init(vcpu);
	expect_result(vcpu_call(vcpu, KVM_GET_MP_STATE, &mp_state));
	expect_init_taken(run._metadata, vcpu);
}

/* KVM_RUN lets a signal through that is blocked otherwise. */
static void do_pending(struct kvm_vcpu *vcpu)
{
	struct __test_metadata *const _metadata = run._metadata;
	struct {
		struct kvm_signal_mask header;
		u64 set;
	} mask = { .header.len = sizeof(mask.set) };
	const struct timespec now = { };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR2);
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_SIGNAL_MASK, &mask), "KVM_SET_SIGNAL_MASK");
	set_guest_regs(vcpu);
	expect_result(vcpu_call(vcpu, KVM_RUN, NULL));
	EXPECT_SAME(SIGUSR2, sigtimedwait(&set, NULL, &now), "signal that was pending");
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_SIGNAL_MASK, NULL), "KVM_SET_SIGNAL_MASK");
}

/* All that there is to save of a vCPU */
struct saved {
	struct kvm_sregs sregs;
	u64 xcr0, ssp, msr[XM_MSRS];
	bool has[XM_MSRS];
	u8 area[XAREA_SIZE];
};

static void save(struct kvm_vcpu *vcpu, struct saved *saved, bool shstk)
{
	struct __test_metadata *const _metadata = run._metadata;
	int i;

	/* PKRU is in the image only then. */
	EXPECT_ERRNO(EINTR, -run_immediately(vcpu, 0), "KVM_RUN with immediate_exit");
	vcpu_sregs_get(vcpu, &saved->sregs);
	vcpu_xsave2_get(vcpu, (struct kvm_xsave *)saved->area);
	saved->xcr0 = vcpu_xcr0(vcpu);
	for (i = 0; i < XM_PASID; i++)
		saved->has[i] = vcpu_reads_msr(vcpu, xm_msr(i), &saved->msr[i]);
	if (shstk)
		EXPECT_ERRNO(0, vcpu_one_reg_ssp(vcpu, KVM_GET_ONE_REG, &saved->ssp),
			     "KVM_GET_ONE_REG of SSP");
}

static void restore_msrs(struct kvm_vcpu *vcpu, const struct saved *saved)
{
	struct __test_metadata *const _metadata = run._metadata;
	int i, nr;

	for (i = 0; i < XM_PASID; i++) {
		nr = run.s->how & 2 ? XM_PASID - 1 - i : i;
		if (saved->has[nr])
			EXPECT_THAT(vcpu_takes_msr(vcpu, xm_msr(nr), saved->msr[nr]),
				    "%s: %#lx not taken", msr_name(xm_msr(nr)), saved->msr[nr]);
	}
}

/* In any order; the step is none where IA32_XFD goes with tiles. */
static struct kvm_vcpu *do_move(struct kvm_vcpu *vcpu, const struct xm_vcpu *v)
{
	struct __test_metadata *const _metadata = run._metadata;
	bool shstk = xm_has_shstk(&run.model, v);
	struct kvm_vcpu *old = vcpu;
	static struct saved saved;
	int i;

	save(vcpu, &saved, shstk);
	vcpu = new_vcpu();
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID2, &XS_MEMORY->cpuids[v->kind]),
		     "KVM_SET_CPUID2");
	if (v->long_mode)
		vcpu_sregs_set(vcpu, &saved.sregs);
	for (i = 0; i < 2; i++) {
		if (i == (run.s->how & 1))
			EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_XSAVE, saved.area),
				     "KVM_SET_XSAVE");
		else
			restore_msrs(vcpu, &saved);
	}
	EXPECT_ERRNO(0, -set_xcr0(vcpu, saved.xcr0), "KVM_SET_XCRS");
	if (shstk)
		EXPECT_ERRNO(0, vcpu_one_reg_ssp(vcpu, KVM_SET_ONE_REG, &saved.ssp),
			     "KVM_SET_ONE_REG of SSP");
	free_vcpu(old);
	return vcpu;
}

/* ---- guests: prepare instructions, run them, compare ---- */

/* What the CET registers of a set hold depends on the vCPU. */
static struct xregs *with_cet(const struct xm_vcpu *v, int set)
{
	static struct xregs r;
	int i;

	xarea_copy(&r, &XS_MEMORY->sets[set], sizeof(r));
	for (i = 0; i < NR_CET_MSRS; i++)
		r.cet[i] = xm_cet_value(&run.model, v, i, set);
	return &r;
}

/* The instruction, with an area to save to or restore from, for @v as it is before */
static void prepare_insn(u32 i, const struct xm_vcpu *v, const struct xm_step *s)
{
	bool restore = s->nr == XM_INSN_XRSTOR || s->nr == XM_INSN_XRSTORS;
	struct xs_memory *mem = XS_MEMORY;
	u8 *area = mem->areas[i];
	u64 format = 0;

	mem->insns[i] = (struct xs_insn) {
		.nr = s->nr, .msr = xm_msr(s->how), .set = s->set, .mask = s->mask,
		.value = s->value,
	};
	if (s->nr == XM_INSN_XRSTORS)
		format = XCOMP_BV_COMPACTED | s->value | v->xcr0 | v->msr[XM_XSS];
	if (restore)
		xregs_to_area(with_cet(v, s->set), area, s->value, format);
	if (restore && !(s->value & XFEATURE_MASK_SSE))
		*(u32 *)(area + XAREA_MXCSR) = MXCSR_INIT;
	if (restore || s->nr < XM_INSN_XSAVE || s->nr > XM_INSN_XSAVES)
		return;
	xarea_fill(area, XAREA_POISON, XAREA_SIZE);
	xarea_set_header(area, 0, 0);
}

static void expect_saved(const struct xm_vcpu *v, const struct xm_step *s, u8 *area)
{
	struct __test_metadata *const _metadata = run._metadata;
	u64 saved = xm_saved(&run.model, v, s), bv = xarea_header(area, 0), mask;
	u64 format = s->nr == XM_INSN_XSAVE ? 0 : saved | XCOMP_BV_COMPACTED;
	struct xregs *r;
	int set, i;

	EXPECT_XFEATURES(saved & xm_in_use(v), bv & xm_in_use(v), "XSTATE_BV that was saved");
	EXPECT_XFEATURES(0, bv & ~saved, "XSTATE_BV beyond what was asked for");
	if (format)
		EXPECT_XFEATURES(format, xarea_header(area, 1), "XCOMP_BV");
	for (set = 0; set < XM_SETS; set++) {
		for (mask = 0, i = 0; i < XM_COMPONENTS; i++)
			mask |= v->set[i] == set ? BIT_ULL(i) : 0;
		mask &= ~v->unknown & ~XFEATURE_MASK_CET & bv & XREGS_USER;
		expect_area(_metadata, area, &XS_MEMORY->sets[set], mask, format, "saved");
	}
	r = with_cet(v, 0);
	memcpy(r->cet, v->msr, sizeof(r->cet));
	expect_area(_metadata, area, r, bv & XFEATURE_MASK_CET, format, "saved");
	expect_poison(_metadata, area, format ? bv : saved, format, "saved");
}

static void expect_insn(u32 i, const struct xm_step *s)
{
	struct __test_metadata *const _metadata = run._metadata;
	const struct xm_machine *machine = run.model.machine;
	const struct xm_answer *want = &run.wants[i];
	const struct xs_insn *insn = &XS_MEMORY->insns[i];

	if (want->any_result)
		return;
	if (!EXPECT_THAT(want->result == insn->vector, "vector: wanted %s got %s",
			 vector_name(want->result), vector_name(insn->vector)) || want->result)
		return;
	switch (s->nr) {
	case XM_INSN_XSAVE:
	case XM_INSN_XSAVEC:
	case XM_INSN_XSAVES:
		expect_saved(&run.then[i], s, XS_MEMORY->areas[i]);
		break;
	case XM_WRMSR:
	case XM_RDMSR:
	case XM_WRPKRU:
	case XM_RDPKRU:
	case XM_INSN_CPUID:
		EXPECT_SAME(want->read[0], insn->read[0], "what was read");
		if (machine->xsaves || machine->xsavec)
			EXPECT_SAME(want->read[1], insn->read[1], "size read");
	}
}

/* With what follows in the same KVM_RUN; the model goes along. */
static void collect_insns(void)
{
	const struct xm_step *s = run.s;
	u32 n = 0;

	do {
		prepare_insn(n, &run.model.vcpu[s->vcpu], s);
		run.wants[n] = xm_take(&run.model, s);
		run.then[n++] = run.model.vcpu[s->vcpu];
		s++;
	} while (n < XS_MAX_JOINED && s < XS_MEMORY->steps + XS_MEMORY->nr_steps &&
		 s->op == XM_GUEST && s->vcpu == run.s->vcpu && s->flags & XM_JOINED &&
		 xm_allows(&run.model, s));
	XS_MEMORY->nr_insns = n;
}

static void do_guest(struct kvm_vcpu *vcpu)
{
	struct __test_metadata *const _metadata = run._metadata;
	u32 i, at = XS_MEMORY->at;

	collect_insns();
	set_guest_regs(vcpu);
	EXPECT_ERRNO(0, -vcpu_call(vcpu, KVM_RUN, NULL), "KVM_RUN");
	if (!EXPECT_THAT(vcpu->run->exit_reason == KVM_EXIT_IO &&
			 vcpu->run->io.port == XREGS_EXIT_PORT, "exit: wanted %s got %s",
			 exit_reason_str(KVM_EXIT_IO), exit_reason_str(vcpu->run->exit_reason)))
		return;
	for (i = 0; i < XS_MEMORY->nr_insns && !_metadata->exit_code; i++) {
		XS_MEMORY->at = at + i;
		begin_case(run.s + i);
		expect_insn(i, run.s + i);
	}
}

/* ---- all steps ---- */

static void take_step(const struct xm *before)
{
	const struct xm_step *s = run.s;
	struct kvm_vcpu **vcpu = &run.vcpu[s->vcpu];

	switch (s->op) {
	case XM_REQUEST:
		return do_request();
	case XM_ALTSTACK:
		return do_altstack();
	case XM_SIGNAL:
		return do_signal();
	case XM_USE_AMX:
		return do_use_amx();
	case XM_OFFERED:
		return do_offered();
	case XM_FORK:
		return do_fork(before);
	case XM_EXEC:
		return do_exec();
	case XM_CREATE:
		*vcpu = new_vcpu();
		break;
	case XM_DESTROY:
		return free_vcpu(*vcpu);
	case XM_CPUID:
		return do_cpuid(*vcpu);
	case XM_SREGS:
		return do_sregs(*vcpu);
	case XM_XCRS:
		return expect_result(set_xcr0(*vcpu, s->value));
	case XM_XSAVE:
		return do_xsave(*vcpu);
	case XM_SET_MSR:
	case XM_GET_MSR:
		return do_msr(*vcpu);
	case XM_SSP:
		return do_ssp(*vcpu);
	case XM_INIT:
		return do_init(*vcpu);
	case XM_IMMEDIATE:
		return expect_result(run_immediately(*vcpu, 0));
	case XM_PENDING:
		return do_pending(*vcpu);
	case XM_MOVE:
		*vcpu = do_move(*vcpu, &before->vcpu[s->vcpu]);
		break;
	case XM_GUEST:
		return do_guest(*vcpu);
	}
}

static void *take_step_in_thread(void *before)
{
	take_step(before);
	return NULL;
}

static void look(const struct xm_step *s)
{
	bool more = s->flags & XM_LOOK;
	int i;

	look_at_process();
	for (i = 0; i < XM_VCPUS; i++)
		if (run.model.vcpu[i].exists && (more || (s->op >= XM_CREATE && i == s->vcpu)))
			look_at_vcpu(i, more);
}

/* Carry out all steps from @at on, up to the first failure; leave out what is not promised. */
static void run_from(u32 at)
{
	struct __test_metadata *const _metadata = run._metadata;
	struct xs_memory *mem = XS_MEMORY;
	struct xm before;
	pthread_t thread;

	for (mem->at = at; mem->at < mem->nr_steps && !_metadata->exit_code; mem->at++) {
		run.s = &mem->steps[mem->at];
		if (!xm_allows(&run.model, run.s))
			continue;
		begin_case(run.s);
		before = run.model;
		if (run.s->op != XM_GUEST)
			run.want = xm_take(&run.model, run.s);
		if (!(run.s->flags & XM_BY_THREAD)) {
			take_step(&before);
		} else {
			EXPECT_SAME(0, pthread_create(&thread, NULL, take_step_in_thread, &before),
				    "pthread_create()");
			pthread_join(thread, NULL);
		}
		if (!_metadata->exit_code)
			look(&mem->steps[mem->at]);
	}
}

/*
 * Carry out the list of steps that is in the shared memory, in a child.  True if all is as
 * the model has it; if not, the step that failed is in the memory too.
 */
bool xs_run(struct __test_metadata *const _metadata, bool silent)
{
	static struct __test_metadata metadata;
	struct xs_memory *mem = XS_MEMORY;
	int status, fd;
	pid_t pid;

	mem->silent = silent;
	snprintf(mem->row, sizeof(mem->row), "%s", th_row);
	pid = xf_fork(_metadata);
	if (!pid) {
		fd = silent ? open("/dev/null", O_WRONLY) : STDOUT_FILENO;
		dup2(fd, STDOUT_FILENO);
		dup2(silent ? fd : STDERR_FILENO, STDERR_FILENO);
		run._metadata = &metadata;
		xm_start(&run.model, &mem->machine);
		run_from(0);
		end_process();
	}
	status = xf_wait(_metadata, pid, "a sequence of steps");
	return !status;
}

/* ---- what the machine is like ---- */

static struct kvm_vcpu *new_vcpu_of_kind(int kind)
{
	struct kvm_vcpu *vcpu = new_vcpu();

	vcpu_ioctl(vcpu, KVM_SET_CPUID2, &XS_MEMORY->cpuids[kind].header);
	return vcpu;
}

static u64 xsave_bv(struct kvm_vcpu *vcpu)
{
	static u8 area[XAREA_SIZE];

	vcpu_xsave2_get(vcpu, (struct kvm_xsave *)area);
	return xarea_header(area, 0);
}

static bool probe_drops(void)
{
	struct kvm_vcpu *vcpu = new_vcpu_of_kind(XM_KIND(NOAMX, NOCET));
	static u8 area[XAREA_SIZE];
	bool drops;

	xregs_to_area(&XS_MEMORY->sets[1], area, XFEATURE_MASK_FPSSE, 0);
	vcpu_xsave_set(vcpu, (struct kvm_xsave *)area);
	vcpu_ioctl(vcpu, KVM_SET_CPUID2, &XS_MEMORY->cpuids[XM_KIND(AMX, NOCET)].header);
	drops = !xsave_bv(vcpu);
	free_vcpu(vcpu);
	return drops;
}

static bool probe_init_is_half(struct __test_metadata *const _metadata)
{
	struct kvm_vcpu *vcpu = new_vcpu_of_kind(XM_KIND(NOAMX, SHSTK));
	u64 left;

	vcpu_set_msr(vcpu, MSR_IA32_S_CET, CET_WRSS_EN);
	xstate_send_init(vcpu);
	expect_init_taken(_metadata, vcpu);
	left = vcpu_get_msr(vcpu, MSR_IA32_S_CET);
	free_vcpu(vcpu);
	return left;
}

static bool probe_no_xsetbv(void)
{
	struct kvm_vcpu *vcpu = new_vcpu_of_kind(XM_KIND(NOAMX, NOCET));
	struct xs_memory *mem = XS_MEMORY;
	struct kvm_sregs sregs;
	bool none;

	vcpu_sregs_get(vcpu, &sregs);
	fill_sregs(&sregs, X86_CR4_OSXSAVE);
	vcpu_sregs_set(vcpu, &sregs);
	set_guest_regs(vcpu);
	mem->insns[0] = (struct xs_insn) {
		.nr = XM_XSETBV, .value = mem->machine.xcr0 & ~XFEATURE_MASK_XTILE,
	};
	mem->nr_insns = 1;
	vcpu_run(vcpu);
	none = !mem->insns[0].vector && vcpu_xcr0(vcpu) == XFEATURE_MASK_FP;
	free_vcpu(vcpu);
	return none;
}

/* The CPUID that KVM offers with permission, in all kinds */
static void probe_cpuid(struct xs_memory *mem)
{
	struct kvm_cpuid2 *cpuid;
	struct xstate_combo combo = { };
	int kind;

	for (kind = 0; kind < XM_KINDS; kind++) {
		combo.cet = kind >> 1;
		cpuid = xstate_cpuid_with(&combo, kind & 1);
		TEST_ASSERT(cpuid->nent <= XS_MAX_CPUID, "%u CPUID entries", cpuid->nent);
		memcpy(&mem->cpuids[kind], cpuid,
		       sizeof(*cpuid) + cpuid->nent * sizeof(cpuid->entries[0]));
		free(cpuid);
	}
}

/* Without permission: what libkvm reads, it keeps. */
static bool probe_half_amx(struct xs_memory *mem)
{
	int kvm = open_kvm_dev_path_or_exit();
	struct kvm_cpuid2 *cpuid = &mem->cpuids[0].header;

	cpuid->nent = XS_MAX_CPUID;
	TEST_ASSERT(!ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID: %s",
		    strerror(errno));
	close(kvm);
	return (cpuid_regs(cpuid, 0xd, 0).eax & XFEATURE_MASK_XTILE) == XFEATURE_MASK_XTILE_CFG;
}

static void probe_sets(struct xs_memory *mem)
{
	struct kvm_vcpu *vcpu = new_vcpu();
	int i;

	vcpu_init_cpuid(vcpu, &mem->cpuids[0].header);
	for (i = 0; i < XM_SETS; i++) {
		if (i)
			xregs_fill(&mem->sets[i], vcpu, i);
		else
			mem->sets[i] = (struct xregs) { .fcw = FCW_INIT, .mxcsr = MXCSR_INIT };
		mem->machine.pkru[i] = mem->sets[i].pkru;
	}
	free_vcpu(vcpu);
}

static void probe(struct __test_metadata *const _metadata, void *arg __maybe_unused)
{
	const int sync = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	struct xs_memory *mem = XS_MEMORY;
	struct xm_machine *m = &mem->machine;
	int i;

	m->half_amx = probe_half_amx(mem);
	m->amx = xf_has_amx();
	xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILE_DATA);
	probe_cpuid(mem);
	m->xcr0 = kvm_known_xcr0();
	m->xss = kvm_offered_xss();
	m->address_end = address_end();
	m->shstk = kvm_cpu_has(X86_FEATURE_SHSTK);
	m->ibt = kvm_cpu_has(X86_FEATURE_IBT);
	m->pku = kvm_cpu_has(X86_FEATURE_PKU);
	m->xfd = kvm_cpu_has(X86_FEATURE_XFD);
	m->xsaves = kvm_cpu_has(X86_FEATURE_XSAVES);
	m->xsavec = kvm_cpu_has(X86_FEATURE_XSAVEC);
	m->one_reg = kvm_check_cap(KVM_CAP_ONE_REG) > 0;
	m->sregs2 = kvm_check_cap(KVM_CAP_SREGS2) > 0;
	m->run_sregs = (kvm_check_cap(KVM_CAP_SYNC_REGS) & sync) == sync;
	m->ignores_msrs = !kvm_refuses_msrs();
	for (i = 0; i < NR_CET_MSRS; i++)
		m->listed |= kvm_msr_is_in_save_restore_list(xm_msr(i)) ? BIT(i) : 0;

	probe_sets(mem);
	m->drops_fpstate = m->amx && probe_drops();
	m->init_is_half = m->shstk && xf_cpuinfo_flag("svm") && probe_init_is_half(_metadata);
	m->no_xsetbv = probe_no_xsetbv();
	m->fault = XM_NR_RULES;
}

/* Make the memory, and find out about the machine in a child. */
void xs_prepare(struct __test_metadata *const _metadata)
{
	memory_fd = memfd_create("xstate_model", 0);
	TEST_ASSERT(memory_fd >= 0 && !ftruncate(memory_fd, sizeof(struct xs_memory)),
		    "memfd_create(): %s", strerror(errno));
	map_memory();
	make_guest_tables(XS_MEMORY);
	xf_in_child(_metadata, "the child that tries out the machine", probe, NULL);
}

/* ---- names ---- */

static const char *mask_names(u64 mask)
{
	static char text[2][256];
	static int i;

	i = !i;
	return xf_names(mask, text[i], sizeof(text[i])) + 1;
}

static const char *kind_name(int kind)
{
	static const char * const cets[] = { "no CET", "SHSTK", "IBT", "CET" };
	static char text[32];

	snprintf(text, sizeof(text), "%sAMX, %s", kind & 1 ? "" : "no ", cets[kind >> 1]);
	return text;
}

static const char *cr4_names(u64 cr4)
{
	static char text[64];

	snprintf(text, sizeof(text), "CR4%s%s%s", cr4 & X86_CR4_OSXSAVE ? " OSXSAVE" : "",
		 cr4 & X86_CR4_PKE ? " PKE" : "", cr4 & X86_CR4_CET ? " CET" : "");
	return text;
}

static void describe_insn(const struct xm_step *s, char *text, size_t size)
{
	static const char * const names[XM_NR_INSNS] = {
		[XM_LOAD] = "load", [XM_WRPKRU] = "WRPKRU", [XM_RDPKRU] = "RDPKRU",
		[XM_TILES] = "LDTILECFG, TILELOADD", [XM_TILERELEASE] = "TILERELEASE",
		[XM_INSN_XSAVE] = "XSAVE", [XM_INSN_XSAVEC] = "XSAVEC",
		[XM_INSN_XSAVES] = "XSAVES", [XM_INSN_XRSTOR] = "XRSTOR",
		[XM_INSN_XRSTORS] = "XRSTORS", [XM_XSETBV] = "XSETBV", [XM_WRMSR] = "WRMSR",
		[XM_RDMSR] = "RDMSR", [XM_INSN_CPUID] = "CPUID",
	};
	const char *name = names[s->nr];

	switch (s->nr) {
	case XM_LOAD:
		snprintf(text, size, "load set %d: %s", s->set, mask_names(s->mask));
		break;
	case XM_WRPKRU:
	case XM_TILES:
		snprintf(text, size, "%s of set %d", name, s->set);
		break;
	case XM_INSN_XSAVE:
	case XM_INSN_XSAVEC:
	case XM_INSN_XSAVES:
		snprintf(text, size, "%s, RFBM %#lx", name, (unsigned long)s->mask);
		break;
	case XM_INSN_XRSTOR:
	case XM_INSN_XRSTORS:
		snprintf(text, size, "%s of set %d, RFBM %#lx, XSTATE_BV %#lx", name, s->set,
			 (unsigned long)s->mask, (unsigned long)s->value);
		break;
	case XM_XSETBV:
		snprintf(text, size, "XSETBV %#lx", (unsigned long)s->value);
		break;
	case XM_WRMSR:
		snprintf(text, size, "WRMSR %s, %#lx", msr_name(xm_msr(s->how)),
			 (unsigned long)s->value);
		break;
	case XM_RDMSR:
		snprintf(text, size, "RDMSR %s", msr_name(xm_msr(s->how)));
		break;
	default:
		snprintf(text, size, "%s", name);
	}
}

static void describe_vcpu_step(const struct xm_step *s, char *text, size_t size)
{
	static const char * const sregs[] = { "KVM_SET_SREGS", "KVM_SET_SREGS2",
					      "KVM_RUN with SREGS" };
	static const char * const images[] = { "", ", a byte short", ", XCOMP_BV",
					       ", a reserved word", ", bad MXCSR" };
	unsigned long value = s->value;

	switch (s->op) {
	case XM_CREATE:
		snprintf(text, size, "KVM_CREATE_VM, KVM_CREATE_VCPU");
		break;
	case XM_DESTROY:
		snprintf(text, size, "close");
		break;
	case XM_CPUID:
		snprintf(text, size, "KVM_SET_CPUID2: %s", kind_name(s->set));
		break;
	case XM_SREGS:
		snprintf(text, size, "%s: long mode, %s", sregs[s->how], cr4_names(value));
		break;
	case XM_XCRS:
		snprintf(text, size, "KVM_SET_XCRS: %#lx", value);
		break;
	case XM_XSAVE:
		snprintf(text, size, "KVM_SET_XSAVE of set %d%s: %s", s->set, images[s->how],
			 mask_names(s->mask));
		break;
	case XM_SET_MSR:
		snprintf(text, size, "%s: %s, %#lx", s->how ? "KVM_SET_ONE_REG" : "KVM_SET_MSRS",
			 msr_name(xm_msr(s->nr)), value);
		break;
	case XM_GET_MSR:
		snprintf(text, size, "%s: %s", s->how ? "KVM_GET_ONE_REG" : "KVM_GET_MSRS",
			 msr_name(xm_msr(s->nr)));
		break;
	case XM_SSP:
		snprintf(text, size, "KVM_SET_ONE_REG: SSP, %#lx", value);
		break;
	case XM_INIT:
		snprintf(text, size, "INIT");
		break;
	case XM_IMMEDIATE:
		snprintf(text, size, "KVM_RUN, immediate_exit");
		break;
	case XM_PENDING:
		snprintf(text, size, "KVM_RUN, signal pending");
		break;
	case XM_MOVE:
		snprintf(text, size, "move to another VM, XSAVE %s MSRs %s",
			 s->how & 1 ? "after" : "before", s->how & 2 ? "from the last" : "");
		break;
	default:
		describe_insn(s, text, size);
	}
}

/* A step in words, up to the next call */
const char *xs_describe(const struct xm_step *s)
{
	static const char * const altstacks[] = { "none", "small", "large" };
	static char text[512];
	size_t n = 0;

	if (s->op >= XM_CREATE) {
		n = snprintf(text, sizeof(text), "vCPU %d: %s", s->vcpu,
			     s->op == XM_GUEST ? s->flags & XM_JOINED ? "same KVM_RUN: " :
			     "KVM_RUN: " : "");
		describe_vcpu_step(s, text + n, sizeof(text) - n);
	} else if (s->op == XM_REQUEST) {
		snprintf(text, sizeof(text), "arch_prctl(ARCH_REQ_XCOMP_%s, %#lx)",
			 s->how ? "GUEST_PERM" : "PERM", (unsigned long)s->value);
	} else {
		snprintf(text, sizeof(text), "%s%s",
			 s->op == XM_ALTSTACK ? "sigaltstack: " :
			 s->op == XM_SIGNAL ? "a signal" : s->op == XM_USE_AMX ? "use of AMX" :
			 s->op == XM_OFFERED ? "KVM_GET_SUPPORTED_CPUID" :
			 s->op == XM_FORK ? "fork(), go on in the child" :
			 "execve(), go on in the new program",
			 s->op == XM_ALTSTACK ? altstacks[s->how] : "");
	}
	n = strlen(text);
	snprintf(text + n, sizeof(text) - n, "%s%s",
		 s->flags & XM_BY_THREAD ? ", by a thread" : "",
		 s->flags & XM_LIVE ? ", registers of the host in use" : "");
	return text;
}
