// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fpstates of a task that may have vCPUs: which components its own carries
 * as permissions, the use of AMX, vCPUs, children, threads and new programs
 * come, that larger ones are freed, and that nothing of a guest's stays in the
 * CPU.  PASID and CET_USER are always there if CPU and kernel have them,
 * XTILE_DATA once the thread itself has used AMX, and CET_KERNEL, which only
 * guests have, never.
 *
 * Of a task with a vCPU besides what it sees itself: its signal frames, its tile
 * instructions, and its other registers when it uses AMX.
 *
 * What the fpstates of vCPUs carry is verified by xstate_perm_test, in each
 * combination of permission and guest CPUID.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "fpu_trace.h"
#include "xregs.h"

/* Enough for what is lost to stand out from what the kernel needs anyway */
#define ROUNDS		64
#define TRIES		5

/* What is in a signal frame but the XSAVE area, and more */
#define FRAME_REST	(64 * 1024)

static const struct xstate_combo whole = { .perm = PERM_GUEST, .amx = true, .cet = CET };

static void on_signal(int sig __maybe_unused)
{
}

/*
 * The calling thread's own fpstate is what it must be, with XTILE_DATA if it has
 * used AMX.  To deliver a signal the kernel resets registers, and says of which
 * fpstate.
 */
static void expect_own(struct __test_metadata *const _metadata, bool used, const char *whose)
{
	struct fpstate_header got;
	struct fpu_trace t;

	fpu_trace_begin(_metadata, &t, 0);
	raise(SIGUSR1);
	if (fpu_trace_last(_metadata, &t, &got))
		expect_fpstate(_metadata, false, used, &got, whose);
}

FIXTURE(xstate_fpstate) {
	struct kvm_vm *vm;
};

FIXTURE_SETUP(xstate_fpstate)
{
	xstate_begin_unpermitted(_metadata, variant);
	if (fpu_trace_need(_metadata))
		signal(SIGUSR1, on_signal);
}

FIXTURE_TEARDOWN(xstate_fpstate)
{
	xstate_end(_metadata, self->vm);
}

/* Verify that the guest's permission leaves the fpstate of the task alone. */
TEST_F(xstate_fpstate, guest)
{
	expect_own(_metadata, false, "a task without permission");
	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	expect_own(_metadata, false, "a task with the guest's permission");
}

/*
 * Verify that not the host's permission but the first use of AMX adds XTILE_DATA
 * and drops nothing, and that this stays so when the guest's permission comes and
 * when other tasks run.
 */
TEST_F(xstate_fpstate, use)
{
	if (!xf_has_amx())
		SKIP(return, "no AMX on this machine");
	xf_pin(_metadata);
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	expect_own(_metadata, false, "a task with the host's permission");
	xf_use_amx(_metadata);
	expect_own(_metadata, true, "a task that has used AMX");
	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	expect_own(_metadata, true, "the same with both permissions");
	xf_lose_cpu(_metadata);
	expect_own(_metadata, true, "the same once another task has run");
}

static void *use_in_thread(void *metadata)
{
	expect_own(metadata, false, "a new thread");
	xf_use_amx(metadata);
	expect_own(metadata, true, "a thread that has used AMX");
	return NULL;
}

static void expect_thread(struct __test_metadata *const _metadata, void *(*fn)(void *metadata))
{
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, fn, _metadata));
	xf_join_thread(_metadata, thread, "a thread that tries AMX");
}

/* Verify that each thread gets XTILE_DATA by its own first use. */
TEST_F(xstate_fpstate, thread)
{
	if (!xf_has_amx())
		SKIP(return, "no AMX on this machine");
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	expect_thread(_metadata, use_in_thread);
	expect_own(_metadata, false, "a task of which a thread has used AMX");
	xf_use_amx(_metadata);
	expect_thread(_metadata, use_in_thread);
	expect_own(_metadata, true, "a task that has used AMX");
}

/* Verify that a child starts with a small fpstate, and that it can grow. */
TEST_F(xstate_fpstate, fork)
{
	pid_t pid;

	if (!xf_has_amx())
		SKIP(return, "no AMX on this machine");
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	xf_use_amx(_metadata);
	pid = xf_fork(_metadata);
	if (!pid) {
		expect_own(_metadata, false, "a child of a task that has used AMX");
		xf_use_amx(_metadata);
		expect_own(_metadata, true, "a child that has used AMX");
		xf_exit();
	}
	xf_join(_metadata, pid, "a child that uses AMX");
	expect_own(_metadata, true, "the parent");
}

/* Execute this program, to list its tests, once somebody has written to @go. */
static void exec_after_use(struct __test_metadata *const _metadata, int go)
{
	char c;

	EXPECT_EQ(1, read(go, &c, 1));
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	if (xf_has_amx())
		xf_use_amx(_metadata);
	expect_own(_metadata, xf_has_amx(), "a task before execve()");
	fflush(stdout);
	close(STDOUT_FILENO);
	execl("/proc/self/exe", program_invocation_name, "-l", NULL);
	_exit(KSFT_FAIL);
}

/* Verify that a new program starts with a small fpstate. */
TEST_F(xstate_fpstate, exec)
{
	struct fpstate_header got;
	struct fpu_trace t;
	int go[2], status;
	pid_t pid;

	ASSERT_EQ(0, pipe(go));
	pid = xf_fork(_metadata);
	if (!pid)
		exec_after_use(_metadata, go[0]);
	fpu_trace_begin(_metadata, &t, pid);
	ASSERT_EQ(1, write(go[1], "", 1));
	status = xf_wait(_metadata, pid, "a new program that lists its tests");
	EXPECT_THAT(WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP,
		    "a new program that lists its tests: wait status %#x", status);
	if (fpu_trace_last(_metadata, &t, &got))
		expect_fpstate(_metadata, false, false, &got, "a new program");
}

/* Verify that a vCPU with AMX and CET leaves the fpstate of its task alone. */
TEST_F(xstate_fpstate, vcpu)
{
	struct kvm_vcpu *vcpu;
	struct xregs regs;

	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	vcpu = xstate_new_vcpu(&self->vm, &whole);
	xregs_fill(&regs, vcpu, 0);
	vcpu_set_xregs(_metadata, vcpu, &regs, xregs_mask(vcpu_xcr0_mask(vcpu)));
	expect_own(_metadata, false, "the task of a vCPU with AMX and CET");
	xstate_run_immediate_exit(vcpu);
	expect_own(_metadata, false, "the same after KVM_RUN");
}

/* KiB that the kernel has taken from vmalloc(); 0 if it does not say */
static long vmalloc_used(void)
{
	static const char name[] = "VmallocUsed:";
	char text[4096], *p = NULL;

	if (xf_read_file("/proc/meminfo", text, sizeof(text)) >= 0)
		p = strstr(text, name);
	return p ? atol(p + strlen(name)) : 0;
}

FIXTURE(xstate_fpstate_left) {
};

FIXTURE_SETUP(xstate_fpstate_left)
{
	xstate_begin_unpermitted(_metadata, variant);
	if (!xf_has_amx())
		SKIP(return, "no AMX on this machine");
	if (!vmalloc_used())
		SKIP(return, "no VmallocUsed in /proc/meminfo");
}

FIXTURE_TEARDOWN(xstate_fpstate_left)
{
	xstate_end(_metadata, NULL);
}

/*
 * Call @fn again and again.  If each call left @size bytes behind, the kernel
 * would have taken that much more each time.  What others do at the same time may
 * look like that once, and what is freed may take a while.
 */
static void expect_freed(struct __test_metadata *const _metadata,
			 void (*fn)(struct __test_metadata *const _metadata), u32 size,
			 const char *what)
{
	const long limit = (long)size * ROUNDS / 1024 / 2;
	long before, grown = 0;
	int i, try;

	for (try = 0; try < TRIES; try++) {
		before = vmalloc_used();
		for (i = 0; i < ROUNDS; i++)
			fn(_metadata);
		if (_metadata->exit_code)
			return;
		for (i = 0; i < 10; i++) {
			grown = vmalloc_used() - before;
			if (grown < limit)
				return;
			usleep(50 * 1000);
		}
	}
	EXPECT_THAT(false, "VmallocUsed grows by %ld KiB with %d %s, which is freed if below %ld",
		    grown, ROUNDS, what, limit);
}

static void use_amx_and_exit(struct __test_metadata *const _metadata)
{
	pid_t pid = xf_fork(_metadata);

	if (!pid) {
		xf_use_amx(_metadata);
		xf_exit();
	}
	xf_join(_metadata, pid, "a child that uses AMX");
}

/* Verify that larger fpstates are freed along with their tasks. */
TEST_F(xstate_fpstate_left, tasks)
{
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	expect_freed(_metadata, use_amx_and_exit, xf_compacted_size(xf_xcr0()),
		     "tasks that have used AMX");
}

static void make_vcpu_and_free(struct __test_metadata *const _metadata __maybe_unused)
{
	struct kvm_vm *vm;

	xstate_new_vcpu(&vm, &whole);
	kvm_vm_free(vm);
}

/* Verify that fpstates which KVM_SET_CPUID2 replaces are freed, and larger ones too. */
TEST_F(xstate_fpstate_left, vcpus)
{
	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	expect_freed(_metadata, make_vcpu_and_free,
		     xf_compacted_size(xf_xcr0() & ~XFEATURE_MASK_XTILE_DATA), "vCPUs with AMX");
}

/* A task that runs a vCPU with AMX, if there is AMX, and CET */
FIXTURE(xstate_fpstate_task) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(xstate_fpstate_task)
{
	xstate_begin_unpermitted(_metadata, variant);
	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	self->vcpu = xstate_new_vcpu(&self->vm, &whole);
	xstate_run_immediate_exit(self->vcpu);
}

FIXTURE_TEARDOWN(xstate_fpstate_task)
{
	xstate_end(_metadata, self->vm);
}

/*
 * Verify that nothing of a guest's CET_KERNEL is left in the CPU once its vCPU
 * is: no host task has that component, and none may find it there.
 */
TEST_F(xstate_fpstate_task, guest_ssp)
{
	struct xregs regs;
	u32 msr;
	int fd;

	if (!vcpu_has_shstk(self->vcpu))
		SKIP(return, "no guest shadow stacks");
	fd = xf_open_msrs(_metadata, O_RDONLY);
	if (fd < 0)
		SKIP(return, "no /dev/cpu/N/msr");
	xregs_fill(&regs, self->vcpu, 0);
	vcpu_set_cet(_metadata, self->vcpu, &regs);
	xstate_run_immediate_exit(self->vcpu);
	for (msr = MSR_IA32_PL0_SSP; msr <= MSR_IA32_PL2_SSP; msr++)
		EXPECT_SAME(0, xf_read_msr(_metadata, fd, msr), "%s of the host", msr_name(msr));
}

/* The frame of the last signal: it stays in memory after sigreturn(2). */
static ucontext_t *frame;

static void keep_frame(int sig __maybe_unused, siginfo_t *info __maybe_unused, void *context)
{
	frame = context;
}

/* Verify that the frames of a task with a vCPU have what XCR0 has but XTILE_DATA. */
TEST_F(xstate_fpstate_task, frame)
{
	const struct sigaction action = {
		.sa_sigaction = keep_frame, .sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	u64 mask = (xf_xcr0() & ~XFEATURE_MASK_XTILE_DATA) | XFEATURE_MASK_FPSSE;
	size_t min = getauxval(AT_MINSIGSTKSZ), size = xf_standard_size(mask);
	stack_t ss = { .ss_size = (min + FRAME_REST) & -64ul };
	u8 *top, *area, *magic2;
	struct _fpx_sw_bytes *sw;

	ss.ss_sp = xf_guarded(ss.ss_size, 0);
	top = (u8 *)ss.ss_sp + ss.ss_size;
	ASSERT_EQ(0, sigaltstack(&ss, NULL));
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_EQ(0, raise(SIGUSR1));
	area = (u8 *)frame->uc_mcontext.fpregs;
	sw = (struct _fpx_sw_bytes *)(area + XF_HEADER_OFFSET) - 1;
	magic2 = area + sw->xstate_size;
	EXPECT_SAME(FP_XSTATE_MAGIC1, sw->magic1, "magic1");
	EXPECT_XFEATURES(mask, sw->xstate_bv, "xfeatures");
	EXPECT_SAME(size, sw->xstate_size, "xstate_size");
	EXPECT_SAME(size + FP_XSTATE_MAGIC2_SIZE, sw->extended_size, "extended_size");
	EXPECT_SAME(FP_XSTATE_MAGIC2, *(u32 *)magic2, "magic2");
	EXPECT_XFEATURES(0, xarea_header(area, 0) & ~mask, "XSTATE_BV beyond xfeatures");
	EXPECT_SAME(0, xarea_header(area, 1), "XCOMP_BV");
	EXPECT_SAME((u64)(top - size - FP_XSTATE_MAGIC2_SIZE) & ~63ull, (u64)area,
		    "place of the XSAVE area");
	EXPECT_THAT(!min || (size_t)(top - (u8 *)frame) <= min,
		    "AT_MINSIGSTKSZ %zu, but a frame of %zu", min, top - (u8 *)frame);
}

static void *sigill_in_thread(void *metadata)
{
	xf_expect_amx(metadata, false, "in a thread");
	return NULL;
}

/* Verify that a vCPU with AMX gives its task no AMX. */
TEST_F(xstate_fpstate_task, sigill)
{
	expect_thread(_metadata, sigill_in_thread);
	xf_expect_amx(_metadata, false, "in the task of a vCPU with AMX");
}

/* No compiled code that uses the registers may run between the load and the saves. */
static INTEGER_ONLY void use_between(const struct xregs *regs, u64 mask, u8 *areas[2])
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	const u32 mxcsr = MXCSR_INIT;
	long ret;
	int i;

	guest_load_xregs(regs, mask);
	asm volatile("xsave64 (%0)" : : "r" (areas[0]), "a" (-1), "d" (-1) : "memory");
	for (i = 0; i < 3; i++) {
		ret = SYS_nanosleep;
		asm volatile("syscall" : "+a" (ret) : "D" (&nap), "S" (0l)
			     : "rcx", "r11", "memory");
	}
	asm volatile("xsave64 (%0)" : : "r" (areas[1]), "a" (-1), "d" (-1) : "memory");
	tile_release();
	asm volatile("fninit\n\tldmxcsr %0" : : "m" (mxcsr));
}

/*
 * Verify that the first use of AMX by a task with a vCPU changes no other
 * register, and that all are still there once another task has had the CPU.
 */
TEST_F(xstate_fpstate_task, first_use)
{
	u64 mask = xregs_mask(xf_xcr0());
	static struct xregs regs;
	u8 *areas[2];
	pid_t hog;
	int i;

	if (!xf_has_amx())
		SKIP(return, "no AMX on this machine");
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	xregs_fill(&regs, self->vcpu, 1);
	areas[0] = xf_guarded(XAREA_SIZE, 0);
	areas[1] = xf_guarded(XAREA_SIZE, 0);
	xf_pin(_metadata);
	hog = xf_hog(_metadata);
	use_between(&regs, mask, areas);
	xf_kill(_metadata, hog);
	for (i = 0; i < 2; i++) {
		th_case("%s", i ? "once another task has run" : "right after it");
		EXPECT_XFEATURES(mask, xarea_header(areas[i], 0) & mask, "in use");
		expect_area(_metadata, areas[i], &regs, mask, 0, "saved");
	}
}

XSTATE_IOCTL_HARNESS_MAIN
