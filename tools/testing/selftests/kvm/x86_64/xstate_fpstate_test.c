// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fpstates of a task that may have vCPUs: which components its own carries
 * as permissions, the use of AMX, vCPUs, children, threads and new programs
 * come, that larger ones are freed, and that nothing of a guest's stays in the
 * CPU.  PASID and CET_USER are always there if CPU and kernel have them,
 * XTILE_DATA once the thread itself has used AMX, and CET_KERNEL, which only
 * guests have, never.
 *
 * What the fpstates of vCPUs carry is verified by xstate_perm_test, in each
 * combination of permission and guest CPUID.
 */
#include <fcntl.h>
#include <pthread.h>

#include "fpu_trace.h"
#include "host_msr.h"
#include "host_task.h"

/* Enough for what is lost to stand out from what the kernel needs anyway */
#define ROUNDS		64
#define TRIES		5

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

/* Verify that the host's permission alone does not change the fpstate. */
TEST_F(xstate_fpstate, host)
{
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	expect_own(_metadata, false, "a task with the host's permission");
}

/*
 * Verify that the first use of AMX adds XTILE_DATA and drops nothing, and that
 * this stays so when the guest's permission comes and when other tasks run.
 */
TEST_F(xstate_fpstate, use)
{
	if (!host_has_amx())
		SKIP(return, "no AMX on this machine");
	ASSERT_LE(0, host_pin());
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	use_amx(_metadata);
	expect_own(_metadata, true, "a task that has used AMX");
	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	expect_own(_metadata, true, "the same with both permissions");
	host_lose_cpu(_metadata);
	expect_own(_metadata, true, "the same once another task has run");
}

static void *use_in_thread(void *arg)
{
	struct __test_metadata *const _metadata = arg;

	expect_own(_metadata, false, "a new thread");
	use_amx(_metadata);
	expect_own(_metadata, true, "a thread that has used AMX");
	return NULL;
}

/* Verify that each thread gets XTILE_DATA by its own first use. */
TEST_F(xstate_fpstate, thread)
{
	pthread_t thread;

	if (!host_has_amx())
		SKIP(return, "no AMX on this machine");
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	ASSERT_EQ(0, pthread_create(&thread, NULL, use_in_thread, _metadata));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	expect_own(_metadata, false, "a task of which a thread has used AMX");
	use_amx(_metadata);
	ASSERT_EQ(0, pthread_create(&thread, NULL, use_in_thread, _metadata));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	expect_own(_metadata, true, "a task that has used AMX");
}

/* Verify that a child starts with a small fpstate, and that it can grow. */
TEST_F(xstate_fpstate, fork)
{
	pid_t pid;

	if (!host_has_amx())
		SKIP(return, "no AMX on this machine");
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	use_amx(_metadata);
	pid = host_fork(_metadata);
	if (!pid) {
		expect_own(_metadata, false, "a child of a task that has used AMX");
		use_amx(_metadata);
		expect_own(_metadata, true, "a child that has used AMX");
		host_exit();
	}
	host_join(_metadata, pid, KSFT_PASS, "a child that uses AMX");
	expect_own(_metadata, true, "the parent");
}

/* Execute this program, to list its tests, once somebody has written to @go. */
static void exec_after_use(struct __test_metadata *const _metadata, int go)
{
	char c;

	EXPECT_EQ(1, read(go, &c, 1));
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	if (host_has_amx())
		use_amx(_metadata);
	expect_own(_metadata, host_has_amx(), "a task before execve()");
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
	pid_t pid;
	int go[2];

	ASSERT_EQ(0, pipe(go));
	pid = host_fork(_metadata);
	if (!pid)
		exec_after_use(_metadata, go[0]);
	fpu_trace_begin(_metadata, &t, pid);
	ASSERT_EQ(1, write(go[1], "", 1));
	host_join(_metadata, pid, KSFT_SKIP, "a new program that lists its tests");
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

FIXTURE(xstate_fpstate_left) {
	struct kvm_vm *vm;
};

FIXTURE_SETUP(xstate_fpstate_left)
{
	xstate_begin_unpermitted(_metadata, variant);
}

FIXTURE_TEARDOWN(xstate_fpstate_left)
{
	xstate_end(_metadata, self->vm);
}

/* KiB that the kernel has taken from vmalloc(); 0 if it does not say */
static long vmalloc_used(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	long used = 0;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "VmallocUsed:", 12))
			used = atol(line + 12);
	if (f)
		fclose(f);
	return used;
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
	pid_t pid = host_fork(_metadata);

	if (!pid) {
		use_amx(_metadata);
		host_exit();
	}
	host_join(_metadata, pid, KSFT_PASS, "a child that uses AMX");
}

/* Verify that larger fpstates are freed along with their tasks. */
TEST_F(xstate_fpstate_left, tasks)
{
	if (!host_has_amx())
		SKIP(return, "no AMX on this machine");
	if (!vmalloc_used())
		SKIP(return, "no VmallocUsed in /proc/meminfo");
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
	if (!host_has_amx())
		SKIP(return, "no AMX on this machine");
	if (!vmalloc_used())
		SKIP(return, "no VmallocUsed in /proc/meminfo");
	xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	expect_freed(_metadata, make_vcpu_and_free,
		     xf_compacted_size(xf_xcr0() & ~XFEATURE_MASK_XTILE_DATA), "vCPUs with AMX");
}

/*
 * Verify that nothing of a guest's CET_KERNEL is left in the CPU once its vCPU
 * is: no host task has that component, and none may find it there.
 */
TEST_F(xstate_fpstate_left, guest_ssp)
{
	const struct xstate_combo shstk = { .cet = SHSTK };
	struct kvm_vcpu *vcpu;
	struct xregs regs;
	u32 msr;
	int fd;

	if (!xstate_need_cet(_metadata, &shstk))
		return;
	fd = host_msr_open(O_RDONLY);
	if (fd < 0)
		SKIP(return, "no /dev/cpu/N/msr");
	vcpu = xstate_new_vcpu(&self->vm, &shstk);
	xregs_fill(&regs, vcpu, 0);
	vcpu_set_cet(_metadata, vcpu, &regs);
	xstate_run_immediate_exit(vcpu);
	for (msr = MSR_IA32_PL0_SSP; msr <= MSR_IA32_PL2_SSP; msr++)
		EXPECT_SAME(0, host_msr_read(fd, msr), "%s of the host", msr_name(msr));
}

XSTATE_IOCTL_HARNESS_MAIN
