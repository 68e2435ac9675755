// SPDX-License-Identifier: GPL-2.0-only
/*
 * PASID is state of the host's task.  The kernel must keep it through whatever
 * happens to the task's fpstate: signals, debuggers, AMX permissions, and the
 * larger fpstate that comes with AMX.  It must not hand it to children or to
 * other tasks.  What a task does with vCPUs is in kvm/x86_64/xstate_pasid_test.
 *
 * The msr driver writes the PASID.  If the test is preempted in there, it writes to
 * what the task that ran meanwhile has left in the register, and that one goes on
 * with it if it is the next to run, too.  That is harmless as the value is not marked
 * valid and nothing but ENQCMD reads it, which raises #GP then and reaches no address
 * space.  The kernel gives a task its own PASID for that; only one that had a PASID
 * before would take SIGSEGV.
 *
 * Needs root, and a CPU and a kernel with PASID state.
 */
#define _GNU_SOURCE

#include <time.h>
#include <ucontext.h>

#include "xpage.h"
#include "xregs.h"

#define TURNS		8

/* Room for what is in a signal frame below the XSAVE area, and what is behind that */
#define STACK_PAGES	16

FIXTURE(xstate_pasid) {
	struct xcomp_perm perm;
};

FIXTURE_SETUP(xstate_pasid)
{
	xcomp_begin(_metadata, variant);
	if (xcomp_too_old())
		SKIP(return, XCOMP_TOO_OLD);
	xf_pasid_need(_metadata);
}

FIXTURE_TEARDOWN(xstate_pasid)
{
	xcomp_end(_metadata);
}

/* Verify that the kernel saves PASID at all, and that a task that sleeps keeps its own. */
TEST_F(xstate_pasid, scheduled)
{
	int msrs = xf_open_msrs(_metadata, O_RDONLY);

	ASSERT_LE(0, msrs);
	EXPECT_SAME_MASK(xf_names, XFEATURE_MASK_PASID,
			 xf_read_msr(_metadata, msrs, MSR_IA32_XSS) & XFEATURE_MASK_PASID,
			 "IA32_XSS of the host");
	xf_pasid_give(_metadata);
	xf_pasid_expect_kept(_metadata, "of a task that does nothing");
}

static struct __test_metadata *handler_metadata;
static uint64_t seen_by_handler;

static void on_signal(int sig)
{
	(void)sig;
	seen_by_handler = xf_pasid_read(handler_metadata);
}

/* Verify that signals do not touch the PASID, and that handlers have it. */
TEST_F(xstate_pasid, signal)
{
	int i;

	handler_metadata = _metadata;
	signal(SIGUSR1, on_signal);
	xf_pasid_give(_metadata);
	for (i = 0; i < TURNS; i++) {
		raise(SIGUSR1);
		EXPECT_SAME(XF_PASID_MINE, seen_by_handler, "IA32_PASID in the handler, turn %d",
			    i);
	}
	xf_pasid_expect_kept(_metadata, "after signals");
}

/* The page with the XSAVE area of the frame */
static struct xpage away;

/* Take the page away from below the frame. */
static void take_away(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	if ((uint8_t *)uc->uc_mcontext.fpregs == away.page)
		xpage_take_away(&away);
}

/*
 * Verify that a sigreturn() that has to wait for the memory of its frame puts
 * the PASID back: other tasks run meanwhile, so that supervisor state, which is
 * not in the frame, has to be loaded anew along with what is.  The stack puts
 * the XSAVE area, and nothing but it, at the start of a page.
 */
TEST_F(xstate_pasid, sigreturn_waits)
{
	uint32_t area = xf_standard_size(xf_xcr0() & ~XFEATURE_MASK_XTILE_DATA);
	stack_t ss = { .ss_size = STACK_PAGES * XPAGE_SIZE + area + FP_XSTATE_MAGIC2_SIZE };
	const struct sigaction action = {
		.sa_sigaction = take_away,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	uint8_t *stack = xf_guarded((ss.ss_size + XPAGE_SIZE - 1) & -XPAGE_SIZE, 0);

	ss.ss_sp = stack;
	if (!xpage_watch(&away, stack + STACK_PAGES * XPAGE_SIZE, 1))
		SKIP(return, XPAGE_NO_UFFD);
	xf_pasid_give(_metadata);
	xpage_wait_for_fault(_metadata, &away);
	ASSERT_EQ(0, sigaltstack(&ss, NULL));
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_EQ(0, raise(SIGUSR1));
	xpage_expect_fault(_metadata, &away, "sigreturn()");
	xf_pasid_expect_kept(_metadata, "after a sigreturn() that waited");
}

static void stop_with_pasid(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	xf_pasid_write(_metadata, XF_PASID_MINE);
	raise(SIGSTOP);
	EXPECT_SAME(XF_PASID_MINE, xf_pasid_read(_metadata), "IA32_PASID after PTRACE_SETREGSET");
}

/* Verify that a debugger that writes the XSAVE state leaves PASID alone. */
TEST_F(xstate_pasid, ptrace)
{
	pid_t pid = xregs_trace(_metadata, stop_with_pasid, NULL);
	size_t size = xf_standard_size(xf_xcr0());
	struct xregs *regs = xregs_alloc();
	int status;

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	EXPECT_ERRNO(0, xregs_get_regset(pid, NT_X86_XSTATE, regs, size), "reading NT_X86_XSTATE");
	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_XSTATE, regs, size), "setting NT_X86_XSTATE");
	status = xregs_go_on(_metadata, pid, 0);
	EXPECT_SAME(0, status, "wait status of a child that was debugged");
}

/* Verify that neither permission drops PASID. */
TEST_F(xstate_pasid, requests)
{
	xf_pasid_give(_metadata);
	xcomp_request_guest(_metadata, &self->perm);
	xf_pasid_expect_kept(_metadata, "after the guest's request");
	xf_pasid_give(_metadata);
	xcomp_request_host(_metadata, &self->perm);
	xf_pasid_expect_kept(_metadata, "after the host's request");
}

/* Verify the same when the first use of AMX replaces the fpstate by a larger one. */
TEST_F(xstate_pasid, host_amx)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	xf_pasid_give(_metadata);
	xf_use_amx(_metadata);
	xf_pasid_expect_kept(_metadata, "after the first use of AMX");
}

static void expect_none(struct __test_metadata *const _metadata, void *whose)
{
	EXPECT_SAME(0, xf_pasid_read(_metadata), "IA32_PASID of %s", (char *)whose);
}

/* Verify that a child starts without PASID and its parent keeps it. */
TEST_F(xstate_pasid, fork)
{
	xf_pasid_give(_metadata);
	xf_in_child(_metadata, "a child", expect_none, "a child");
	xf_pasid_expect_kept(_metadata, "of the parent after fork()");
}

/* Verify the same for a thread, which shares all memory with its creator. */
TEST_F(xstate_pasid, thread)
{
	xf_pasid_give(_metadata);
	xcomp_in_thread(_metadata, "a thread", expect_none, "a new thread");
	xf_pasid_expect_kept(_metadata, "of the creator of a thread");
}

static void give_pasid(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	xf_pasid_give(_metadata);
}

/* The new program is no test: if it cannot tell, whoever waits gets nothing. */
static void after_exec(int fd)
{
	struct __test_results results;
	struct __test_metadata none = { .results = &results };
	uint64_t value;

	if (!xf_pasid_need(&none))
		exit(KSFT_FAIL);
	value = xf_pasid_read(&none);
	if (none.exit_code || write(fd, &value, sizeof(value)) != sizeof(value))
		exit(KSFT_FAIL);
}

/* Verify that a PASID goes with the address space that it stands for. */
TEST_F(xstate_pasid, exec)
{
	uint64_t value;

	xcomp_in_new_program(_metadata, "a new program", give_pasid, NULL, &value, sizeof(value));
	EXPECT_SAME(0, value, "IA32_PASID of a new program");
}

/* Hold a PASID of its own and the CPU, until killed. */
static void hold(struct __test_metadata *const _metadata, int ready)
{
	xf_leave_real_time();
	xf_pasid_write(_metadata, XF_PASID_THEIRS);
	EXPECT_EQ(1, write(ready, "", 1));
	while (xf_pasid_read(_metadata) == XF_PASID_THEIRS)
		;
	EXPECT_THAT(false, "IA32_PASID of the other task has changed");
	xf_exit();
}

/*
 * Verify that of two tasks on one CPU each sees its own PASID: the one that has
 * none no other, and the one that has one no other either.
 */
TEST_F(xstate_pasid, two_tasks)
{
	const struct timespec nap = { .tv_nsec = 5 * 1000 * 1000 };
	int i, ready[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(ready));
	pid = xf_fork(_metadata);
	if (!pid)
		hold(_metadata, ready[1]);
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &c, 1));
	for (i = 0; i < 2 * TURNS; i++) {
		if (i == TURNS)
			xf_pasid_write(_metadata, XF_PASID_MINE);
		nanosleep(&nap, NULL);
		EXPECT_SAME(i < TURNS ? 0 : XF_PASID_MINE, xf_pasid_read(_metadata),
			    "IA32_PASID beside another task, turn %d", i);
	}
	xf_kill(_metadata, pid);
}

XCOMP_EXEC_HARNESS_MAIN(after_exec)
