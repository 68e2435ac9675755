// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a task does that has to do with AMX, on a kernel that runs out of memory at each moment
 * of it in turn: requests, the first use of tiles, fork(), signals, debuggers.  That ends in a
 * clean errno or in SIGSEGV, the task keeps its registers, nothing is left over, and the same
 * works right afterwards.
 *
 * Needs root and a kernel with fault injection.  XFAULT_VERBOSE=2 in the environment brings the
 * place of each fault into the kernel's log.
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "xfault.h"
#include "xregs.h"

/* With room for the frame of a task that uses tiles, and for one of a SIGSEGV below it */
#define STACK_SIZE	(256 * 1024)

FIXTURE(xstate_alloc) {
};

FIXTURE_VARIANT(xstate_alloc) {
	struct xfault_call call;
};

FIXTURE_SETUP(xstate_alloc)
{
	xcomp_begin(_metadata, variant);
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xfault_need(_metadata);
}

FIXTURE_TEARDOWN(xstate_alloc)
{
	xfault_end(_metadata);
	xcomp_end(_metadata);
}

/* ---- requests ---- */

static void try_request(struct __test_metadata *const _metadata, struct xfault *f,
			const void *arg)
{
	const int option = (long)arg;
	const bool host = option == ARCH_REQ_XCOMP_PERM;
	int error;

	xfault_arm(f);
	error = xf_request(option, XFEATURE_XTILE_DATA);
	xfault_disarm(f);
	xfault_expect_errno(_metadata, f, error, "a request");
	if (error) {
		xf_expect_permissions(_metadata, false, false, "after a request that failed");
		EXPECT_ERRNO(0, xf_request(option, XFEATURE_XTILE_DATA), "once more");
	}
	xf_expect_permissions(_metadata, host, !host, "after a request");
}

FIXTURE_VARIANT_ADD(xstate_alloc, host_request) {
	.call = { .what = "ARCH_REQ_XCOMP_PERM", .try = try_request,
		  .arg = (void *)ARCH_REQ_XCOMP_PERM },
};

FIXTURE_VARIANT_ADD(xstate_alloc, guest_request) {
	.call = { .what = "ARCH_REQ_XCOMP_GUEST_PERM", .try = try_request,
		  .arg = (void *)ARCH_REQ_XCOMP_GUEST_PERM },
};

/* ---- first use of tiles ---- */

/* The fault that is due, the SIGSEGVs so far, and the registers in the frame of the last one */
static struct xfault *due;
static unsigned int segvs;
static struct xregs *at_segv;

static void on_segv(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)info;
	xfault_disarm(due);
	if (segvs++)
		_exit(sig);
	memcpy(at_segv, uc->uc_mcontext.fpregs,
	       xf_standard_size(xf_xcr0() & ~XFEATURE_MASK_XTILE_DATA));
}

static void handle(int sig, void (*handler)(int sig, siginfo_t *info, void *context))
{
	const struct sigaction action = {
		.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK,
	};

	sigaction(sig, &action, NULL);
}

static void catch_segv(struct xfault *f)
{
	due = f;
	at_segv = xregs_alloc();
	handle(SIGSEGV, on_segv);
}

/* If there was a SIGSEGV, the fault was the reason, and the task had its registers. */
static void expect_segv(struct __test_metadata *const _metadata, struct xfault *f,
			const struct xregs *wanted)
{
	f->noticed |= segvs;
	EXPECT_SAME(0, segvs && !f->injected, "SIGSEGV without a fault");
	if (segvs)
		EXPECT_XREGS(wanted->xstate_bv & ~XFEATURE_MASK_XTILE, wanted, at_segv,
			     "at SIGSEGV");
}

/* Use tiles with @loaded in all registers, and store these to @saved after it. */
static INTEGER_ONLY void use_with_fault(struct xfault *f, const struct xregs *loaded,
					struct xregs *saved, struct xregs *own)
{
	const uint64_t mask = xregs_mask();

	xregs_save(own, mask);
	xregs_load(loaded, mask);
	xfault_arm(f);
	xregs_load_tiles(loaded);
	xfault_disarm(f);
	xregs_save(saved, xf_xcr0());
	xregs_release_tiles();
	xregs_load(own, mask);
}

/* The instruction that has raised SIGSEGV is tried once more when its handler returns. */
static void try_first_use(struct __test_metadata *const _metadata, struct xfault *f,
			  const void *arg)
{
	struct xregs *pattern = xregs_pattern(xregs_mask() | XFEATURE_MASK_XTILE);
	struct xregs *saved = xregs_alloc();
	struct xcomp_perm perm = { };

	(void)arg;
	xcomp_request_host(_metadata, &perm);
	catch_segv(f);
	use_with_fault(f, pattern, saved, xregs_alloc());
	expect_segv(_metadata, f, pattern);
	EXPECT_XREGS(pattern->xstate_bv, pattern, saved, "after the first use of tiles");
	xcomp_expect_masks(_metadata, &perm, "after the first use of tiles");
}

FIXTURE_VARIANT_ADD(xstate_alloc, first_use) {
	.call = { .what = "first use of tiles", .try = try_first_use, .least = 1 },
};

/* ---- fork ---- */

/* xregs_call_between() with a fault.  A child has none, and its parent's would be in its way. */
static INTEGER_ONLY long call_with_fault(struct xfault *f, const struct xregs *loaded,
					 struct xregs *saved, struct xregs *own, long nr,
					 long arg1, long arg2, long arg3)
{
	long ret;

	xregs_save(own, loaded->xstate_bv);
	xregs_load(loaded, loaded->xstate_bv);
	xfault_arm(f);
	ret = xregs_syscall(nr, arg1, arg2, arg3);
	if (ret || nr != SYS_fork)
		xfault_disarm(f);
	xregs_save(saved, xf_xcr0());
	xregs_load(own, loaded->xstate_bv);
	return ret;
}

/* A pattern for all registers of a task that has used AMX, tiles included */
static struct xregs *large_pattern(struct __test_metadata *const _metadata)
{
	struct xcomp_perm perm = { };

	xcomp_request_host(_metadata, &perm);
	xf_use_amx(_metadata);
	return xregs_pattern(xregs_mask() | XFEATURE_MASK_XTILE);
}

static void use_amx(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	xf_use_amx(_metadata);
}

/*
 * The task may get its child and SIGSEGV: the page that tells it its CPU (rseq) is to be copied
 * after that, and is written on the way back.
 */
static void try_fork(struct __test_metadata *const _metadata, struct xfault *f, const void *arg)
{
	struct xregs *pattern = large_pattern(_metadata), *saved = xregs_alloc();
	long pid;

	(void)arg;
	catch_segv(f);
	pid = call_with_fault(f, pattern, saved, xregs_alloc(), SYS_fork, 0, 0, 0);
	if (!pid) {
		EXPECT_XREGS(xregs_mask(), pattern, saved, "of a new child");
		xf_exit();
	}
	xfault_expect_errno(_metadata, f, pid < 0 ? -pid : 0, "fork()");
	expect_segv(_metadata, f, pattern);
	EXPECT_XREGS(pattern->xstate_bv, pattern, saved, "of a task that forks");
	if (pid > 0) {
		xf_join(_metadata, pid, "a child");
		return;
	}
	EXPECT_ERRNO(ECHILD, waitpid(-1, NULL, WNOHANG) < 0 ? errno : 0, "a child of no fork()");
	xf_in_child(_metadata, "a child afterwards", use_amx, NULL);
}

FIXTURE_VARIANT_ADD(xstate_alloc, fork) {
	.call = { .what = "fork()", .try = try_fork, .least = 1 },
};

/* ---- signals ---- */

static unsigned int handled;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	xfault_disarm(due);
	handled++;
}

/* Memory for signal frames that the kernel has yet to provide */
static void use_new_stack(struct __test_metadata *const _metadata)
{
	stack_t ss = { .ss_size = STACK_SIZE };

	ss.ss_sp = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			0);
	ASSERT_NE(MAP_FAILED, ss.ss_sp);
	madvise(ss.ss_sp, STACK_SIZE, MADV_NOHUGEPAGE);
	ASSERT_EQ(0, sigaltstack(&ss, NULL));
}

/* A signal that cannot be delivered is lost, and SIGSEGV comes in its place. */
static void try_signal(struct __test_metadata *const _metadata, struct xfault *f,
		       const void *arg)
{
	struct xregs *pattern = large_pattern(_metadata), *saved = xregs_alloc();
	long error;

	(void)arg;
	/* The PKRU of handlers is not what this is about. */
	pattern->xstate_bv &= ~XFEATURE_MASK_PKRU;
	catch_segv(f);
	handle(SIGUSR1, on_signal);
	use_new_stack(_metadata);
	error = call_with_fault(f, pattern, saved, xregs_alloc(), SYS_tgkill, getpid(),
				syscall(SYS_gettid), SIGUSR1);
	EXPECT_ERRNO(0, -error, "a signal to this thread");
	EXPECT_SAME(1, handled + segvs, "handlers that have run");
	expect_segv(_metadata, f, pattern);
	EXPECT_XREGS(pattern->xstate_bv, pattern, saved, "after a signal");
	raise(SIGUSR1);
	EXPECT_SAME(2, handled + segvs, "handlers that have run afterwards");
	xf_use_amx(_metadata);
}

FIXTURE_VARIANT_ADD(xstate_alloc, signal) {
	.call = { .what = "signal", .try = try_signal, .least = 1 },
};

static void arm_on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	if (!handled++)
		xfault_arm(due);
}

static sigjmp_buf before_signal;

static void leave_on_segv(int sig, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	xfault_disarm(due);
	if (segvs++)
		_exit(sig);
	siglongjmp(before_signal, 1);
}

/* What sigreturn(2) cannot read ends in SIGSEGV; the frame is lost, the task is not. */
static void try_sigreturn(struct __test_metadata *const _metadata, struct xfault *f,
			  const void *arg)
{
	struct xregs *pattern = large_pattern(_metadata), *saved = xregs_alloc();
	const long tid = syscall(SYS_gettid);

	(void)arg;
	due = f;
	handle(SIGUSR1, arm_on_signal);
	handle(SIGSEGV, leave_on_segv);
	use_new_stack(_metadata);
	if (!sigsetjmp(before_signal, 1)) {
		xregs_call_between(pattern, saved, SYS_tkill, tid, SIGUSR1, 0);
		xfault_disarm(f);
		EXPECT_XREGS(pattern->xstate_bv, pattern, saved, "after a signal");
	}
	f->noticed = segvs;
	EXPECT_SAME(0, segvs && !f->injected, "SIGSEGV without a fault");
	EXPECT_SAME(1, handled, "handlers that have run");
	xregs_call_between(pattern, saved, SYS_tkill, tid, SIGUSR1, 0);
	EXPECT_SAME(2, handled, "handlers that have run afterwards");
	EXPECT_XREGS(pattern->xstate_bv, pattern, saved, "after a signal afterwards");
}

FIXTURE_VARIANT_ADD(xstate_alloc, sigreturn) {
	.call = { .what = "sigreturn()", .try = try_sigreturn, .least = 1 },
};

/* ---- debuggers ---- */

static void stop_with_pattern(struct __test_metadata *const _metadata, void *arg)
{
	struct xregs *pattern = large_pattern(_metadata);

	(void)arg;
	xregs_call_between(pattern, xregs_alloc(), SYS_tkill, syscall(SYS_gettid), SIGSTOP, 0);
}

static void get_regset(struct __test_metadata *const _metadata, pid_t pid, struct xregs *regs)
{
	EXPECT_ERRNO(0, xregs_get_regset(pid, NT_X86_XSTATE, regs, xf_standard_size(xf_xcr0())),
		     "reading NT_X86_XSTATE");
}

/* A debugger reads, or sets to others without tiles, all registers of a task with tiles. */
static void try_regset(struct __test_metadata *const _metadata, struct xfault *f,
		       const void *arg)
{
	struct xregs *before = xregs_alloc(), *after = xregs_alloc();
	struct xregs *other = xregs_pattern(xregs_mask());
	const uint32_t size = xf_standard_size(xf_xcr0());
	const bool set = arg;
	pid_t pid = xregs_trace(_metadata, stop_with_pattern, NULL);
	int error;

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	memset(other->xmm, 0x5a, sizeof(other->xmm));
	get_regset(_metadata, pid, before);
	xfault_arm(f);
	error = set ? xregs_set_regset(pid, NT_X86_XSTATE, other, size) :
		      xregs_get_regset(pid, NT_X86_XSTATE, other, size);
	xfault_disarm(f);
	xfault_expect_errno(_metadata, f, error, "a regset");
	get_regset(_metadata, pid, after);
	EXPECT_XREGS(xf_xcr0(), error ? before : other, after, "of a task that is debugged");
	if (set && error) {
		EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_XSTATE, before, size),
			     "setting what was there");
		get_regset(_metadata, pid, after);
		EXPECT_XREGS(xf_xcr0(), before, after, "of a task that is debugged");
	}
	xf_kill(_metadata, pid);
}

FIXTURE_VARIANT_ADD(xstate_alloc, regset_get) {
	.call = { .what = "PTRACE_GETREGSET", .try = try_regset, .least = 1 },
};

FIXTURE_VARIANT_ADD(xstate_alloc, regset_set) {
	.call = { .what = "PTRACE_SETREGSET", .try = try_regset, .arg = (void *)true, .least = 1 },
};

/* ---- the tests ---- */

/* Verify that each fault has the effect that it may have, and no other. */
TEST_F_TIMEOUT(xstate_alloc, fails, 120)
{
	xfault_walk(_metadata, &variant->call);
}

/* Verify that nothing stays allocated of what fails. */
TEST_F_TIMEOUT(xstate_alloc, frees, 240)
{
	xfault_expect_freed(_metadata, &variant->call);
}

XCOMP_HARNESS_MAIN
