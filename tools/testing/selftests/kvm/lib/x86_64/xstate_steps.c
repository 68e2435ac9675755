// SPDX-License-Identifier: GPL-2.0-only
/* Steps of the model, carried out: see xstate_steps.h. */
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include "xstate_steps.h"

#define PKRU_PLAIN	0x55555554
#define ALTSTACK_SMALL	8192
#define ALTSTACK_LARGE	65536

/* Where a new program finds the shared memory */
#define RESUME		"XSTATE_MODEL_RESUME"

static struct xs_memory *const mem = XS_MEMORY;
static int memory_fd, output_fd;

/* This process: what it has of each vCPU, and the step that it carries out */
static struct __test_metadata *_metadata;
static struct xm model;
static struct kvm_vcpu *vcpus[XM_VCPUS];
static const struct xm_step *step;
static struct xm_answer want;

/* Say what the failures to come are about, where anybody listens. */
static void begin_case(const struct xm_step *s)
{
	if (!mem->silent)
		th_case("%s", xs_describe(s));
}

static void plain_pkru(void)
{
	if (xf_xcr0() & XFEATURE_MASK_PKRU)
		xregs_wrpkru(PKRU_PLAIN);
}

/* ---- calls, with the registers of the host in use or not ---- */

static INTEGER_ONLY long syscall_live(long nr, long a, long b, void *c, const struct xregs *r,
				      u64 mask)
{
	const u32 mxcsr = MXCSR_INIT;

	guest_load_xregs(r, mask);
	asm volatile("syscall" : "+a" (nr) : "D" (a), "S" (b), "d" (c)
		     : "rcx", "r11", "memory");
	asm volatile("xsave64 (%0)" : : "r" (mem->host_area), "a" ((u32)mask), "d" (0) : "memory");
	if (mask & XFEATURE_MASK_XTILE)
		tile_release();
	asm volatile("fninit\n\tldmxcsr %0" : : "m" (mxcsr));
	return nr;
}

/* What it returns, or a negative errno */
static long call(long nr, long a, long b, void *c)
{
	const struct xregs *r = &mem->sets[1 + mem->at % (XM_SETS - 1)];
	u64 mask = xm_host_mask(&model);
	long ret;

	if (!(step->flags & XM_LIVE)) {
		ret = syscall(nr, a, b, c);
		return ret < 0 ? -errno : ret;
	}
	xarea_set_header(mem->host_area, 0, 0);
	ret = syscall_live(nr, a, b, c, r, mask);
	plain_pkru();
	EXPECT_XFEATURES(mask, xarea_header(mem->host_area, 0), "in use by the host");
	expect_area(_metadata, mem->host_area, r, mask, 0, "registers of the host");
	return ret;
}

static long vcpu_call(struct kvm_vcpu *vcpu, unsigned long cmd, const void *arg)
{
	return call(SYS_ioctl, vcpu->fd, cmd, (void *)arg);
}

static void expect_result(long got)
{
	if (!want.any)
		EXPECT_ERRNO(want.result, got < 0 ? -got : 0, "result");
}

/* ---- what is seen after a step ---- */

static void look_at_process(void)
{
	xf_expect_permissions(_metadata, xm_rule(&model, "MASK_HOST", model.host),
			      xm_rule(&model, "MASK_GUEST", model.guest), "after it");
}

/* What KVM_GET_XSAVE2 must write; of what is not promised, what it has written */
static void make_wanted(const struct xm_vcpu *v, u8 *wanted, const u8 *got, u32 size)
{
	u64 bv = xarea_header(got, 0), mask = xm_shown(&model, v);
	u32 data = xarea_offset(0, XFEATURE_XTILE_DATA);
	int set;

	xarea_fill(wanted, 0, size);
	xarea_fill(wanted + size, XAREA_POISON, XAREA_SIZE - size);
	xregs_into_area(&mem->sets[0], wanted, XFEATURE_MASK_FPSSE, 0);
	mask &= bv & XFEATURE_MASK_PKRU ? ~0ull : ~XFEATURE_MASK_PKRU;
	for (set = 1; set < XM_SETS; set++)
		xregs_into_area(&mem->sets[set], wanted, v->holds[set] & mask, 0);
	xarea_set_header(wanted, 0, bv);
	/* MXCSR_MASK, and what the kernel supports */
	xarea_copy(wanted + XAREA_MXCSR + 4, got + XAREA_MXCSR + 4, 4);
	xarea_copy(wanted + XF_HEADER_OFFSET - 48, got + XF_HEADER_OFFSET - 48, 48);
	/* x87 instructions leave addresses behind. */
	if (!(v->holds[0] & XFEATURE_MASK_FP))
		xarea_copy(wanted + 5, got + 5, XAREA_MXCSR - 5);
	/* Beside AVX without SSE, known kernels show an MXCSR of before; some, beside none. */
	if (v->holds[0] & XFEATURE_MASK_SSE &&
	    (model.machine->old_mxcsr || !(v->holds[0] & XFEATURE_MASK_YMM)))
		xarea_copy(wanted + XAREA_MXCSR, got + XAREA_MXCSR, 4);
	if (v->unknown & mask)
		xarea_copy(wanted + data, got + data, size - data);
}

static void look_at_xsave(struct kvm_vcpu *vcpu, const struct xm_vcpu *v)
{
	u64 shown = xm_shown(&model, v), pkru = shown & XFEATURE_MASK_PKRU, bv, must, may;
	u8 *got = mem->got, *wanted = mem->wanted;

	xarea_fill(got, XAREA_POISON, XAREA_SIZE);
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_GET_XSAVE2, got), "KVM_GET_XSAVE2");
	bv = xarea_header(got, 0);
	must = (v->exact ? v->bv : xm_in_use(v)) & shown & ~XFEATURE_MASK_CET;
	must = (must & ~pkru) | (v->pkru_shown ? pkru : 0);
	may = (v->exact ? must : shown) | pkru;
	if (!v->tiles_touched)
		may &= ~XFEATURE_MASK_XTILE_DATA;
	if (!EXPECT_XFEATURES(must, bv & must, "XSTATE_BV of KVM_GET_XSAVE2") ||
	    !EXPECT_XFEATURES(0, bv & ~may, "XSTATE_BV of KVM_GET_XSAVE2 beyond that"))
		return;
	make_wanted(v, wanted, got, xm_area_size(v));
	expect_same_area(_metadata, wanted, got, XAREA_SIZE, "KVM_GET_XSAVE2");
}

/* All MSRs and SSP, each by a call of its own, in an order of its own for each step */
static void look_at_msrs(struct kvm_vcpu *vcpu, const struct xm_vcpu *v)
{
	struct xm_answer a;
	u64 value;
	int i, nr;

	for (i = 0; i < XM_MSRS; i++) {
		nr = (i + mem->at) % XM_MSRS;
		a = xm_read_msr(&model, v, nr);
		if (a.any || (nr == XM_SSP && a.result))
			continue;
		value = 0;
		EXPECT_SAME(!a.result, nr == XM_SSP ?
			    !vcpu_one_reg_ssp(vcpu, KVM_GET_ONE_REG, &value) :
			    vcpu_reads_msr(vcpu, xm_msr(nr), &value), "%s is read",
			    nr == XM_SSP ? "SSP" : msr_name(xm_msr(nr)));
		if (!a.result)
			EXPECT_SAME(a.read[0], value, "%s",
				    nr == XM_SSP ? "SSP" : msr_name(xm_msr(nr)));
	}
}

static void look_at_cpuid(struct kvm_vcpu *vcpu, const struct xm_vcpu *v)
{
	struct kvm_cpuid2 *got = &mem->cpuid.header;

	if (v->kind == XM_NO_CPUID)
		return;
	got->nent = mem->cpuids[v->kind].header.nent;
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_GET_CPUID2, got), "KVM_GET_CPUID2");
	EXPECT_SAME(xf_standard_size(v->xcr0), cpuid_regs(got, 0xd, 0).ebx,
		    "CPUID.(0xD,0).EBX");
	if (model.machine->xsaves || model.machine->xsavec)
		EXPECT_SAME(xm_compacted_size(&model, v), cpuid_regs(got, 0xd, 1).ebx,
			    "CPUID.(0xD,1).EBX");
	EXPECT_SAME(!!(v->cr4 & X86_CR4_OSXSAVE), cpuid_regs(got, 1, 0).ecx >> 27 & 1,
		    "OSXSAVE in CPUID");
	if (model.machine->pku)
		EXPECT_SAME(!!(v->cr4 & X86_CR4_PKE), cpuid_regs(got, 7, 0).ecx >> 4 & 1,
			    "OSPKE in CPUID");
}

static void look_at_vcpu(int nr, bool more)
{
	struct xm_vcpu *v = &model.vcpu[nr];
	struct kvm_sregs sregs;

	look_at_xsave(vcpus[nr], v);
	EXPECT_XFEATURES(v->xcr0, vcpu_xcr0(vcpus[nr]), "XCR0");
	/* The rest may load its FPU: not one that is not as it should be. */
	if (!more || _metadata->exit_code)
		return;
	look_at_msrs(vcpus[nr], v);
	v->exact = false;
	look_at_cpuid(vcpus[nr], v);
	vcpu_sregs_get(vcpus[nr], &sregs);
	EXPECT_SAME(v->cr4, sregs.cr4 & (X86_CR4_OSXSAVE | X86_CR4_PKE | X86_CR4_CET), "CR4");
	EXPECT_ERRNO(xm_area_size(v) > sizeof(struct kvm_xsave) ? EINVAL : 0,
		     vcpu_errno(vcpus[nr], KVM_GET_XSAVE, mem->got), "KVM_GET_XSAVE");
}

/* ---- steps of the process ---- */

static long set_altstack(void)
{
	static u8 *stack;
	stack_t ss = { .ss_flags = SS_DISABLE };

	stack = stack ?: xf_guarded(ALTSTACK_LARGE, 0);
	if (step->how != XM_NO_ALTSTACK)
		ss = (stack_t) {
			.ss_sp = stack,
			.ss_size = step->how == XM_SMALL_ALTSTACK ? ALTSTACK_SMALL : ALTSTACK_LARGE,
		};
	return sigaltstack(&ss, NULL) ? -errno : 0;
}

/* Of the last frame, which the handler has copied */
static struct {
	int count;
	struct _fpx_sw_bytes sw;
	u64 header[2];
	u32 magic2;
} frame;

static void on_signal(int sig __maybe_unused, siginfo_t *info __maybe_unused, void *context)
{
	const u8 *area = (u8 *)((ucontext_t *)context)->uc_mcontext.fpregs;

	memcpy(&frame.sw, area + XF_HEADER_OFFSET - sizeof(frame.sw), sizeof(frame.sw));
	memcpy(frame.header, area + XF_HEADER_OFFSET, sizeof(frame.header));
	memcpy(&frame.magic2, area + frame.sw.xstate_size, sizeof(frame.magic2));
	frame.count++;
}

static void deliver_signal(void)
{
	const struct sigaction action = {
		.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	u64 mask = xm_frame_mask(&model, step);
	u64 live = step->flags & XM_LIVE ? xm_host_mask(&model) : 0;

	frame.count = 0;
	sigaction(SIGUSR1, &action, NULL);
	call(SYS_tgkill, getpid(), syscall(SYS_gettid), (void *)SIGUSR1);
	EXPECT_SAME(1, frame.count, "signals");
	EXPECT_SAME(FP_XSTATE_MAGIC1, frame.sw.magic1, "magic1 of the frame");
	EXPECT_SAME(FP_XSTATE_MAGIC2, frame.magic2, "magic2 of the frame");
	EXPECT_XFEATURES(mask, frame.sw.xstate_bv, "xfeatures of the frame");
	EXPECT_SAME(xf_standard_size(mask), frame.sw.xstate_size, "xstate_size of the frame");
	EXPECT_XFEATURES(live, frame.header[0] & live, "XSTATE_BV of the frame");
	EXPECT_XFEATURES(0, frame.header[0] & ~mask, "XSTATE_BV of the frame beyond that");
	EXPECT_SAME(0, frame.header[1], "XCOMP_BV of the frame");
}

static void look_at_offer(void)
{
	u64 xcr0 = xm_offered_xcr0(&model);
	u32 size = xf_standard_size(xcr0);
	int kvm = open_kvm_dev_path_or_exit();
	struct kvm_cpuid2 *got = &mem->cpuid.header;

	got->nent = XS_MAX_CPUID;
	EXPECT_ERRNO(0, ioctl(kvm, KVM_GET_SUPPORTED_CPUID, got) ? errno : 0,
		     "KVM_GET_SUPPORTED_CPUID");
	EXPECT_XFEATURES(xcr0, cpuid_regs(got, 0xd, 0).eax, "CPUID.(0xD,0).EAX offered");
	EXPECT_SAME(size, cpuid_regs(got, 0xd, 0).ecx, "CPUID.(0xD,0).ECX offered");
	EXPECT_XFEATURES(model.machine->xss, cpuid_regs(got, 0xd, 1).ecx,
			 "CPUID.(0xD,1).ECX offered");
	EXPECT_SAME(size < 4096 ? 4096 : size, ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2),
		    "KVM_CAP_XSAVE2");
	close(kvm);
}

static void run_from(u32 at);

static __noreturn void end_process(void)
{
	fflush(stdout);
	_exit(_metadata->exit_code);
}

static __noreturn void run_rest(void)
{
	look_at_process();
	run_from(mem->at + 1);
	end_process();
}

/* The child goes on.  Afterwards this process has what it had before. */
static void fork_and_go_on(const struct xm *before)
{
	struct kvm_mp_state mp_state;
	pid_t pid = xf_fork(_metadata);
	int i, status;

	if (!pid) {
		for (i = 0; i < XM_VCPUS; i++)
			if (before->vcpu[i].exists)
				EXPECT_ERRNO(EIO, vcpu_errno(vcpus[i], KVM_GET_MP_STATE, &mp_state),
					     "the parent's vCPU");
		run_rest();
	}
	status = xf_wait(_metadata, pid, "the child that goes on");
	EXPECT_THAT(!status, "wait status of the child: %#x", status);
	model = *before;
	look_at_process();
	for (i = 0; i < XM_VCPUS && !_metadata->exit_code; i++)
		if (before->vcpu[i].exists)
			look_at_vcpu(i, true);
	end_process();
}

static void execute_program(void)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", memory_fd);
	setenv(RESUME, number, 1);
	mem->model = model;
	fflush(stdout);
	execl("/proc/self/exe", program_invocation_name, NULL);
	_exit(KSFT_FAIL);
}

static void map_memory(void)
{
	void *p = mmap(mem, sizeof(*mem), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
		       memory_fd, 0);

	TEST_ASSERT(p == mem, "mmap(): %s", strerror(errno));
}

/* What main() does in a program that execute_program() has begun */
void xs_resume(void)
{
	static struct __test_metadata metadata;
	const char *number = getenv(RESUME);

	if (!number)
		return;
	memory_fd = atoi(number);
	map_memory();
	plain_pkru();
	_metadata = &metadata;
	model = mem->model;
	snprintf(th_row, sizeof(th_row), "%s", mem->row);
	run_rest();
}

/* ---- steps of a vCPU ---- */

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

static long set_sregs(struct kvm_vcpu *vcpu)
{
	struct kvm_sregs2 sregs2 = { };
	struct kvm_sregs sregs;
	long got;

	vcpu_sregs_get(vcpu, &sregs);
	xs_fill_sregs(&sregs, step->value);
	switch (step->how) {
	case XM_BY_SREGS2:
		memcpy(&sregs2, &sregs, offsetof(struct kvm_sregs, interrupt_bitmap));
		return vcpu_call(vcpu, KVM_SET_SREGS2, &sregs2);
	case XM_BY_RUN:
		vcpu->run->s.regs.sregs = sregs;
		got = run_immediately(vcpu, KVM_SYNC_X86_SREGS);
		return got == -EINTR ? 0 : got;
	default:
		return vcpu_call(vcpu, KVM_SET_SREGS, &sregs);
	}
}

/* From where memory ends, so that not a byte more can be read, or by one byte too far */
static long set_xsave(struct kvm_vcpu *vcpu)
{
	u32 size = xm_area_size(&model.vcpu[step->vcpu]);
	u8 *image = mem->wanted;
	static u8 *end;

	end = end ?: xf_guarded(XAREA_SIZE, 0) + XAREA_SIZE;
	xregs_to_area(&mem->sets[step->set], image, step->mask, 0);
	if (!(step->mask & XFEATURE_MASK_SSE))
		*(u32 *)(image + XAREA_MXCSR) = MXCSR_INIT;
	if (step->how == XM_BAD_MXCSR)
		*(u32 *)(image + XAREA_MXCSR) = BIT(31);
	if (step->how == XM_XCOMP_BV)
		xarea_set_header(image, 1, XCOMP_BV_COMPACTED | step->mask);
	if (step->how == XM_RESERVED)
		xarea_set_header(image, 2 + mem->at % 6, 1);
	xarea_copy(end - size, image, size);
	return vcpu_call(vcpu, KVM_SET_XSAVE, end - size + (step->how == XM_SHORT));
}

/*
 * Some hosts do not survive tiles that IA32_XFD disarms in memory.  The model has none there,
 * and this is to be sure of it, whatever the kernel has done.
 */
static bool expect_no_tiles(u64 xfd, struct kvm_vcpu *vcpu)
{
	if (!xfd || !xf_has_amx())
		return true;
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_GET_XSAVE2, mem->got), "KVM_GET_XSAVE2");
	return EXPECT_XFEATURES(0, xarea_header(mem->got, 0) & XFEATURE_MASK_XTILE_DATA,
				"XSTATE_BV before IA32_XFD is set");
}

static long set_msr(struct kvm_vcpu *vcpu)
{
	u32 msr = xm_msr(step->nr);
	struct kvm_one_reg reg = {
		.id = msr ? KVM_X86_REG_MSR(msr) : KVM_X86_REG_KVM(KVM_REG_GUEST_SSP),
		.addr = (unsigned long)&step->value,
	};
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} list = { .header.nmsrs = 1, .entry.index = msr, .entry.data = step->value };
	long done;

	if (step->nr == XM_XFD && !expect_no_tiles(step->value, vcpu))
		return 0;
	if (step->how)
		return vcpu_call(vcpu, KVM_SET_ONE_REG, &reg);
	done = vcpu_call(vcpu, KVM_SET_MSRS, &list);
	return done == 1 ? 0 : done ?: -EINVAL;
}

/* KVM_RUN lets a signal through that is blocked otherwise. */
static long run_with_signal(struct kvm_vcpu *vcpu)
{
	struct {
		struct kvm_signal_mask header;
		u64 set;
	} mask = { .header.len = sizeof(mask.set) };
	const struct timespec now = { };
	sigset_t set;
	long got;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR2);
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_SIGNAL_MASK, &mask), "KVM_SET_SIGNAL_MASK");
	xs_set_guest_regs(vcpu);
	got = vcpu_call(vcpu, KVM_RUN, NULL);
	EXPECT_SAME(SIGUSR2, sigtimedwait(&set, NULL, &now), "signal that was pending");
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_SIGNAL_MASK, NULL), "KVM_SET_SIGNAL_MASK");
	return got;
}

/* libkvm saves what belongs to no CET, and does without SSP. */
static struct kvm_vcpu *move(struct kvm_vcpu *old, const struct xm_vcpu *v)
{
	bool has_ssp = !xm_read_msr(&model, v, XM_SSP).result;
	struct kvm_x86_state *state;
	struct kvm_vcpu *vcpu;
	u64 ssp = 0;

	/* PKRU is in the image only then. */
	EXPECT_ERRNO(EINTR, -run_immediately(old, 0), "KVM_RUN with immediate_exit");
	if (!expect_no_tiles(v->msr[XM_XFD], old))
		return old;
	state = vcpu_save_state(old);
	if (has_ssp)
		EXPECT_ERRNO(0, vcpu_one_reg_ssp(old, KVM_GET_ONE_REG, &ssp), "KVM_GET_ONE_REG");
	vcpu = xs_new_vcpu();
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID2, &mem->cpuids[v->kind]), "KVM_SET_CPUID2");
	if (step->how)
		vcpu_xsave_set(vcpu, state->xsave);
	vcpu_sregs_set(vcpu, &state->sregs);
	vcpu_msrs_set(vcpu, &state->msrs);
	vcpu_xcrs_set(vcpu, &state->xcrs);
	if (!step->how)
		vcpu_xsave_set(vcpu, state->xsave);
	vcpu_mp_state_set(vcpu, &state->mp_state);
	if (has_ssp)
		EXPECT_ERRNO(0, vcpu_one_reg_ssp(vcpu, KVM_SET_ONE_REG, &ssp), "KVM_SET_ONE_REG");
	kvm_x86_state_cleanup(state);
	kvm_vm_free(old->vm);
	return vcpu;
}

/* ---- instructions: prepare them, run them, compare ---- */

/* What the CET registers of a set hold depends on the vCPU. */
static struct xregs *with_cet(const struct xm_vcpu *v, int set)
{
	struct xregs *r = &mem->regs;
	int i;

	xarea_copy(r, &mem->sets[set], sizeof(*r));
	for (i = 0; i < NR_CET_MSRS; i++)
		r->cet[i] = xm_cet_value(&model, v, i, set);
	return r;
}

static bool is_save(const struct xm_step *s)
{
	return s->nr >= XM_INSN_XSAVE && s->nr <= XM_INSN_XSAVES;
}

/* With an area to save to or restore from, for @v as it is before */
static void prepare_insn(u32 i, const struct xm_vcpu *v, const struct xm_step *s)
{
	u8 *area = mem->areas[i];
	u64 format = 0;

	mem->insns[i] = (struct xs_insn) {
		.nr = s->nr, .msr = xm_msr(s->how), .set = s->set, .mask = s->mask,
		.value = s->value,
	};
	if (is_save(s)) {
		xarea_fill(area, XAREA_POISON, XAREA_SIZE);
		xarea_set_header(area, 0, 0);
	}
	if (s->nr != XM_INSN_XRSTOR && s->nr != XM_INSN_XRSTORS)
		return;
	if (s->nr == XM_INSN_XRSTORS)
		format = XCOMP_BV_COMPACTED | s->value | v->xcr0 | v->msr[XM_XSS];
	xregs_to_area(with_cet(v, s->set), area, s->value, format);
	if (!(s->value & XFEATURE_MASK_SSE))
		*(u32 *)(area + XAREA_MXCSR) = MXCSR_INIT;
}

static void expect_saved(const struct xm_vcpu *v, const struct xm_step *s, u8 *area)
{
	u64 saved = xm_saved(&model, v, s), bv = xarea_header(area, 0), must = xm_in_use(v) & saved;
	u64 format = s->nr == XM_INSN_XSAVE ? 0 : saved | XCOMP_BV_COMPACTED;
	u64 vague = v->unknown;
	struct xregs *r;
	int set;

	if (model.machine->old_mxcsr)
		vague |= v->holds[0] & XFEATURE_MASK_SSE;
	EXPECT_XFEATURES(must, bv & must, "XSTATE_BV that was saved");
	EXPECT_XFEATURES(0, bv & ~saved, "XSTATE_BV beyond what was asked for");
	if (format)
		EXPECT_XFEATURES(format, xarea_header(area, 1), "XCOMP_BV");
	for (set = 0; set < XM_SETS; set++)
		expect_area(_metadata, area, &mem->sets[set],
			    v->holds[set] & bv & ~vague, format, "saved");
	r = with_cet(v, 0);
	memcpy(r->cet, v->msr, sizeof(r->cet));
	expect_area(_metadata, area, r, bv & XFEATURE_MASK_CET, format, "saved");
	expect_poison(_metadata, area, format ? bv : saved, format, "saved");
}

static void expect_insn(const struct xm_vcpu *v, const struct xm_answer *a, u32 i)
{
	const struct xs_insn *insn = &mem->insns[i];
	int set;

	if (a->any)
		return;
	if (!EXPECT_THAT(a->result == insn->vector, "vector: wanted %s got %lu",
			 vector_name(a->result), (unsigned long)insn->vector) || a->result)
		return;
	switch (insn->nr) {
	case XM_WRPKRU:
	case XM_RDPKRU:
		for (set = 0; set < XM_SETS; set++)
			if (v->holds[set] & XFEATURE_MASK_PKRU)
				EXPECT_SAME(mem->sets[set].pkru, insn->read[0], "PKRU");
		break;
	case XM_INSN_CPUID:
	case XM_WRMSR:
	case XM_RDMSR:
		EXPECT_SAME(a->read[0], insn->read[0], "read");
		/* Without either, the size is not KVM's, and the model has 0 for MSRs. */
		if (model.machine->xsaves || model.machine->xsavec)
			EXPECT_SAME(a->read[1], insn->read[1], "CPUID.(0xD,1).EBX");
	}
}

/* Run one instruction and what follows in the same KVM_RUN; the model goes along. */
static void run_insns(struct kvm_vcpu *vcpu)
{
	struct xm_vcpu *v = &model.vcpu[step->vcpu], then[XS_MAX_JOINED];
	struct xm_answer answers[XS_MAX_JOINED];
	const struct xm_step *s = step;
	u32 n = 0, i;

	do {
		prepare_insn(n, v, s);
		answers[n] = xm_take(&model, s++);
		then[n++] = *v;
	} while (n < XS_MAX_JOINED && mem->at + n < mem->nr_steps && s->op == XM_GUEST &&
		 s->vcpu == step->vcpu && s->flags & XM_JOINED && xm_allows(&model, s));
	mem->nr_insns = n;
	xs_set_guest_regs(vcpu);
	EXPECT_ERRNO(0, -vcpu_call(vcpu, KVM_RUN, NULL), "KVM_RUN");
	if (!EXPECT_THAT(vcpu->run->exit_reason == KVM_EXIT_IO &&
			 vcpu->run->io.port == XREGS_EXIT_PORT, "exit: %s, port %#x if any",
			 exit_reason_str(vcpu->run->exit_reason), vcpu->run->io.port)) {
		mem->at += n - 1;
		return;
	}
	for (i = 0; i < n && !_metadata->exit_code; i++) {
		mem->at += !!i;
		begin_case(step + i);
		expect_insn(&then[i], &answers[i], i);
		if (is_save(step + i) && !answers[i].result)
			expect_saved(&then[i], step + i, mem->areas[i]);
	}
}

/* ---- all steps ---- */

static void take_vcpu_step(struct kvm_vcpu **vcpu, const struct xm_vcpu *before)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = step->value };
	struct kvm_mp_state mp_state;

	switch (step->op) {
	case XM_CREATE:
		*vcpu = xs_new_vcpu();
		break;
	case XM_DESTROY:
		kvm_vm_free((*vcpu)->vm);
		break;
	case XM_CPUID:
		return expect_result(vcpu_call(*vcpu, KVM_SET_CPUID2, &mem->cpuids[step->set]));
	case XM_SREGS:
		return expect_result(set_sregs(*vcpu));
	case XM_XCRS:
		return expect_result(vcpu_call(*vcpu, KVM_SET_XCRS, &xcrs));
	case XM_XSAVE:
		return expect_result(set_xsave(*vcpu));
	case XM_SET_MSR:
		return expect_result(set_msr(*vcpu));
	case XM_INIT:
		xstate_send_init(*vcpu);
		expect_result(vcpu_call(*vcpu, KVM_GET_MP_STATE, &mp_state));
		return expect_init_taken(_metadata, *vcpu);
	case XM_IMMEDIATE:
		return expect_result(run_immediately(*vcpu, 0));
	case XM_PENDING:
		return expect_result(run_with_signal(*vcpu));
	case XM_MOVE:
		*vcpu = move(*vcpu, before);
		break;
	case XM_GUEST:
		return run_insns(*vcpu);
	}
}

static void *take_step(void *arg)
{
	const struct xm *before = arg;

	switch (step->op) {
	case XM_REQUEST:
		expect_result(-xf_request(step->how ? ARCH_REQ_XCOMP_GUEST_PERM :
						      ARCH_REQ_XCOMP_PERM, step->value));
		break;
	case XM_ALTSTACK:
		expect_result(set_altstack());
		break;
	case XM_SIGNAL:
		deliver_signal();
		break;
	case XM_USE_AMX:
		xf_expect_amx(_metadata, !want.result, "in this step");
		break;
	case XM_OFFERED:
		look_at_offer();
		break;
	case XM_FORK:
		fork_and_go_on(before);
		break;
	case XM_EXEC:
		execute_program();
		break;
	default:
		take_vcpu_step(&vcpus[step->vcpu], &before->vcpu[step->vcpu]);
	}
	return NULL;
}

static void look(void)
{
	bool more = step->flags & XM_LOOK;
	int i;

	look_at_process();
	for (i = 0; i < XM_VCPUS && !_metadata->exit_code; i++)
		if (model.vcpu[i].exists && (more || (step->op >= XM_CREATE && i == step->vcpu)))
			look_at_vcpu(i, more);
}

static void run_step(void)
{
	struct xm before = model;
	pthread_t thread;

	begin_case(step);
	if (step->op != XM_GUEST)
		want = xm_take(&model, step);
	if (!(step->flags & XM_BY_THREAD))
		take_step(&before);
	else if (EXPECT_SAME(0, pthread_create(&thread, NULL, take_step, &before), "a thread"))
		pthread_join(thread, NULL);
	if (!_metadata->exit_code)
		look();
}

/* Carry out the steps from @at on, up to the first failure; leave out what is not promised. */
static void run_from(u32 at)
{
	for (mem->at = at; mem->at < mem->nr_steps; mem->at++) {
		step = &mem->steps[mem->at];
		if (xm_allows(&model, step))
			run_step();
		if (_metadata->exit_code)
			return;
	}
}

/*
 * Carry out the list of steps that is in the shared memory, in a child.  True if all is as
 * the model has it; otherwise the memory has the step that failed, too.
 */
bool xs_run(struct __test_metadata *const parent, bool silent)
{
	static struct __test_metadata metadata;
	pid_t pid;

	mem->silent = silent;
	snprintf(mem->row, sizeof(mem->row), "%s", th_row);
	TEST_ASSERT(!ftruncate(output_fd, 0), "ftruncate(): %s", strerror(errno));
	lseek(output_fd, 0, SEEK_SET);
	pid = xf_fork(parent);
	if (pid)
		return !xf_wait(parent, pid, "a sequence of steps");
	if (silent) {
		dup2(output_fd, STDOUT_FILENO);
		dup2(output_fd, STDERR_FILENO);
	}
	_metadata = &metadata;
	xm_start(&model, &mem->machine);
	mem->at = -1;
	run_rest();
}

/* What has been said in the last silent run */
ssize_t xs_output(char *text, size_t size)
{
	ssize_t n = pread(output_fd, text, size - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return n;
}

/* ---- what the machine is like ---- */

/* What KVM offers with permission; before it, libkvm must not look, as it keeps what it sees. */
static void ask_machine(struct __test_metadata *const parent __maybe_unused,
			void *arg __maybe_unused)
{
	const int sync = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	struct xm_machine *m = &mem->machine;
	struct xstate_combo combo = { };
	struct kvm_cpuid2 *cpuid;
	struct kvm_vcpu *vcpu;
	int i;

	xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILE_DATA);
	*m = (struct xm_machine) {
		.xcr0 = kvm_known_xcr0(), .xss = kvm_offered_xss(), .amx = xf_has_amx(),
		.address_end = address_end(),
		.shstk = kvm_cpu_has(X86_FEATURE_SHSTK), .ibt = kvm_cpu_has(X86_FEATURE_IBT),
		.pku = kvm_cpu_has(X86_FEATURE_PKU), .xfd = kvm_cpu_has(X86_FEATURE_XFD),
		.xsaves = kvm_cpu_has(X86_FEATURE_XSAVES),
		.xsavec = kvm_cpu_has(X86_FEATURE_XSAVEC),
		.one_reg = kvm_check_cap(KVM_CAP_ONE_REG) > 0,
		.sregs2 = kvm_check_cap(KVM_CAP_SREGS2) > 0,
		.run_sregs = (kvm_check_cap(KVM_CAP_SYNC_REGS) & sync) == sync,
		.ignores_msrs = !kvm_refuses_msrs(),
	};
	for (i = 0; i < NR_CET_MSRS; i++)
		m->listed |= kvm_msr_is_in_save_restore_list(xm_msr(i)) ? BIT(i) : 0;
	for (i = 0; i < XM_KINDS; i++) {
		combo.cet = i >> 1;
		cpuid = xstate_cpuid_with(&combo, i & 1);
		TEST_ASSERT(cpuid->nent <= XS_MAX_CPUID, "%u CPUID entries", cpuid->nent);
		memcpy(&mem->cpuids[i], cpuid,
		       sizeof(*cpuid) + cpuid->nent * sizeof(cpuid->entries[0]));
	}
	vcpu = xs_new_vcpu();
	vcpu_init_cpuid(vcpu, &mem->cpuids[0].header);
	for (i = 1; i < XM_SETS; i++)
		xregs_fill(&mem->sets[i], vcpu, i);
	mem->sets[0] = (struct xregs) { .fcw = FCW_INIT, .mxcsr = MXCSR_INIT };
}

/*
 * What known kernels and CPUs do otherwise than they should, and steps that show it: it is
 * so if these fail without it, and all is as the model has it with it.
 */
static void try_quirk(struct __test_metadata *const parent, bool *quirk,
		      const struct xm_step *steps, u32 nr)
{
	memcpy(mem->steps, steps, nr * sizeof(*steps));
	mem->nr_steps = nr;
	*quirk = false;
	if (xs_run(parent, true))
		return;
	*quirk = true;
	*quirk = xs_run(parent, true);
}

#define TRY_QUIRK(quirk, ...) do {						\
	const struct xm_step __steps[] = { __VA_ARGS__ };			\
										\
	try_quirk(parent, &mem->machine.quirk, __steps, ARRAY_SIZE(__steps));	\
} while (0)

void xs_prepare(struct __test_metadata *const parent)
{
	const struct xm_step create = { .op = XM_CREATE };
	const struct xm_step plain = { .op = XM_CPUID, .set = XM_KIND(NOAMX, NOCET) };
	const struct xm_step shstk = { .op = XM_CPUID, .set = XM_KIND(NOAMX, SHSTK) };
	const struct xm_step amx = { .op = XM_CPUID, .set = XM_KIND(AMX, NOCET) };
	const struct xm_step sregs = { .op = XM_SREGS, .value = X86_CR4_OSXSAVE };
	const struct xm_step request = {
		.op = XM_REQUEST, .how = true, .value = XFEATURE_XTILE_DATA,
	};
	u64 xcr0;

	memory_fd = memfd_create("xstate_model", 0);
	output_fd = memfd_create("xstate_model_output", MFD_CLOEXEC);
	TEST_ASSERT(memory_fd >= 0 && output_fd >= 0 && !ftruncate(memory_fd, sizeof(*mem)),
		    "memfd_create(): %s", strerror(errno));
	map_memory();
	xs_make_guest_tables();
	xf_in_child(parent, "the child that asks what the machine has", ask_machine, NULL);
	if (parent->exit_code)
		return;
	TRY_QUIRK(half_amx, { .op = XM_OFFERED });
	TRY_QUIRK(drops_fpstate, request, create, plain,
		  { .op = XM_XSAVE, .set = 1, .mask = XFEATURE_MASK_FPSSE }, amx);
	TRY_QUIRK(init_is_half, create, shstk,
		  { .op = XM_SET_MSR, .nr = I_S_CET, .value = CET_WRSS_EN },
		  { .op = XM_INIT, .flags = XM_LOOK });
	TRY_QUIRK(old_mxcsr, create, plain,
		  { .op = XM_XSAVE, .set = 1, .mask = XFEATURE_MASK_FPSSE },
		  { .op = XM_XSAVE }, { .op = XM_IMMEDIATE });
	xcr0 = mem->machine.xcr0 & ~XFEATURE_MASK_XTILE;
	TRY_QUIRK(no_xsetbv, create, plain, sregs,
		  { .op = XM_GUEST, .nr = XM_XSETBV, .value = xcr0 });
	mem->machine.init_is_half &= xf_cpuinfo_flag("svm");
}

/* ---- names ---- */

/* Arguments: h is how, k a kind, s a set, m a mask, v a value, r a register by nr or R by how */
struct words {
	const char *name, *args;
};

static const struct words op_words[XM_NR_OPS] = {
	[XM_REQUEST] = { "arch_prctl", "hv" }, [XM_ALTSTACK] = { "sigaltstack", "h" },
	[XM_SIGNAL] = { "a signal", "" }, [XM_USE_AMX] = { "use of AMX", "" },
	[XM_OFFERED] = { "KVM_GET_SUPPORTED_CPUID", "" },
	[XM_FORK] = { "fork(), and go on in the child", "" },
	[XM_EXEC] = { "execve(), and go on in the new program", "" },
	[XM_CREATE] = { "KVM_CREATE_VM, KVM_CREATE_VCPU", "" }, [XM_DESTROY] = { "close()", "" },
	[XM_CPUID] = { "KVM_SET_CPUID2", "k" }, [XM_SREGS] = { "long mode", "hv" },
	[XM_XCRS] = { "KVM_SET_XCRS", "v" }, [XM_XSAVE] = { "KVM_SET_XSAVE", "hsm" },
	[XM_SET_MSR] = { "set", "hrv" }, [XM_INIT] = { "INIT", "" },
	[XM_IMMEDIATE] = { "KVM_RUN with immediate_exit", "" },
	[XM_PENDING] = { "KVM_RUN with a signal pending", "" },
	[XM_MOVE] = { "move to another VM", "h" },
};

static const struct words insn_words[XM_NR_INSNS] = {
	[XM_LOAD] = { "load", "sm" }, [XM_WRPKRU] = { "WRPKRU", "s" },
	[XM_RDPKRU] = { "RDPKRU", "" }, [XM_TILES] = { "LDTILECFG, TILELOADD", "s" },
	[XM_TILERELEASE] = { "TILERELEASE", "" }, [XM_INSN_XSAVE] = { "XSAVE", "m" },
	[XM_INSN_XSAVEC] = { "XSAVEC", "m" }, [XM_INSN_XSAVES] = { "XSAVES", "m" },
	[XM_INSN_XRSTOR] = { "XRSTOR", "smv" }, [XM_INSN_XRSTORS] = { "XRSTORS", "smv" },
	[XM_XSETBV] = { "XSETBV", "v" }, [XM_WRMSR] = { "WRMSR", "Rv" },
	[XM_RDMSR] = { "RDMSR", "R" }, [XM_INSN_CPUID] = { "CPUID", "" },
};

static const char *how_word(const struct xm_step *s)
{
	static const char * const words[XM_NR_OPS][5] = {
		[XM_REQUEST] = { "ARCH_REQ_XCOMP_PERM", "ARCH_REQ_XCOMP_GUEST_PERM" },
		[XM_ALTSTACK] = { "none", "small", "large" },
		[XM_SREGS] = { "KVM_SET_SREGS", "KVM_SET_SREGS2", "KVM_RUN" },
		[XM_XSAVE] = { "good", "a byte short", "XCOMP_BV", "reserved bytes", "bad MXCSR" },
		[XM_SET_MSR] = { "KVM_SET_MSRS", "KVM_SET_ONE_REG" },
		[XM_MOVE] = { "XSAVE last", "XSAVE first" },
	};

	return words[s->op][s->how];
}

static const char *word(const struct xm_step *s, char arg)
{
	static const char * const cets[] = { "no CET", "SHSTK", "IBT", "CET" };
	int nr = arg == 'r' ? s->nr : s->how;
	static char text[256];

	switch (arg) {
	case 'h':
		return how_word(s);
	case 'k':
		snprintf(text, sizeof(text), "%s, %s", s->set & 1 ? "AMX" : "no AMX",
			 cets[s->set >> 1]);
		break;
	case 's':
		snprintf(text, sizeof(text), "set %d", s->set);
		break;
	case 'm':
		return xf_names(s->mask, text, sizeof(text)) + 1;
	case 'v':
		snprintf(text, sizeof(text), "%#lx", (unsigned long)s->value);
		break;
	default:
		return nr == XM_SSP ? "SSP" : msr_name(xm_msr(nr));
	}
	return text;
}

/* A step in words, up to the next call */
const char *xs_describe(const struct xm_step *s)
{
	const struct words *w = s->op == XM_GUEST ? &insn_words[s->nr] : &op_words[s->op];
	static char text[512];
	const char *arg;
	size_t n = 0;

#define ADD(...) (n += snprintf(text + n, sizeof(text) - n, __VA_ARGS__))
	if (s->op >= XM_CREATE)
		ADD("vCPU %d: ", s->vcpu);
	if (s->op == XM_GUEST)
		ADD(s->flags & XM_JOINED ? "and " : "KVM_RUN: ");
	ADD("%s", w->name);
	for (arg = w->args; *arg; arg++)
		ADD("%s%s", arg == w->args ? " (" : ", ", word(s, *arg));
	ADD("%s%s%s%s", *w->args ? ")" : "", s->flags & XM_BY_THREAD ? ", by a thread" : "",
	    s->flags & XM_LIVE ? ", registers of the host in use" : "",
	    s->flags & XM_LOOK ? ", look" : "");
#undef ADD
	return text;
}
