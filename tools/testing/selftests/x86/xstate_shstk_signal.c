// SPDX-License-Identifier: GPL-2.0-only
/*
 * SSP over signals, sigreturn(2) and debuggers: what is put on the shadow stack, what is
 * taken from there and what is refused; where SSP is when there is no room; and what a
 * debugger may do.
 */
#define _GNU_SOURCE

#include <sys/ptrace.h>
#include <sys/wait.h>

#include "xshstk.h"

/* As in asm/ptrace-abi.h, which does not go together with glibc's */
#define ARCH_PRCTL_BY_PTRACE	30

#define PAGE			XSHSTK_PAGE
/* Bit 63 of what signals put there is set, and of no address of a program. */
#define TOKEN			XF_BIT(63)

FIXTURE(xstate_shstk_signal) {
};

FIXTURE_SETUP(xstate_shstk_signal)
{
	xcomp_begin(_metadata, variant);
}

FIXTURE_TEARDOWN(xstate_shstk_signal)
{
	xcomp_end(_metadata);
}

/* What a handler finds, and with how many halves of a slot less it returns, by which token */
static struct {
	uint64_t before, ssp, slots[2], after, token;
	uint32_t halves;
	int faults;
} *sig;

/* The token is behind the address to which the handler would return. */
static void return_from(int nr, siginfo_t *info, void *context)
{
	uint64_t *ssp = (uint64_t *)xregs_ssp();

	(void)nr;
	(void)info;
	sig->ssp = (unsigned long)ssp;
	sig->slots[0] = ssp[0];
	sig->slots[1] = ssp[1];
	if (sig->token && sig->halves == 1) {
		/* Half of it in each slot, where that finds it if it does not ask for a slot */
		xshstk_write(&ssp[0], sig->token << 32);
		xshstk_write(&ssp[1], sig->token >> 32);
	} else if (sig->token) {
		xshstk_write(&ssp[1], sig->token);
	}
	asm volatile("incsspd %0\n\t"
		     "mov %1, %%rsp\n\t"
		     "syscall"
		     : : "r" (sig->halves), "r" (context), "a" (SYS_rt_sigreturn) : "memory");
}

static void count_fault(int nr)
{
	if (sig->faults++)
		_exit(nr);
}

static void return_by_token(struct __test_metadata *const _metadata, void *arg)
{
	const struct sigaction action = { .sa_sigaction = return_from, .sa_flags = SA_SIGINFO };
	long tid = syscall(SYS_gettid);

	(void)arg;
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS), "enabling WRSS");
	EXPECT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	signal(SIGSEGV, count_fault);
	sig->before = xregs_ssp();
	xshstk_call(SYS_tkill, tid, SIGUSR1, 0);
	sig->after = xregs_ssp();
	xshstk_call(SYS_exit_group, 0, 0, 0);
}

/* Return by @token, or the kernel's with 0, with SSP @halves of a slot above the handler's. */
static void expect_return(struct __test_metadata *const _metadata, uint64_t token,
			  uint32_t halves, bool accepted, const char *what)
{
	pid_t pid;
	int end;

	memset(sig, 0, sizeof(*sig));
	sig->token = token;
	sig->halves = halves;
	pid = xf_fork(_metadata);
	if (!pid) {
		if (!xregs_enable_shadow_stack())
			xregs_no_shadow_stack(_metadata);
		return_by_token(_metadata, NULL);
	}
	end = xf_wait_briefly(_metadata, pid, what);
	if (end == -1)
		return;
	if (accepted) {
		EXPECT_SAME(0, end, "wait status after %s", what);
		EXPECT_SAME(0, sig->faults, "SIGSEGV after %s", what);
		EXPECT_SAME(token ? token & ~TOKEN : sig->before, sig->after, "SSP after %s", what);
	} else {
		EXPECT_THAT(sig->faults || (WIFSIGNALED(end) && WTERMSIG(end) == SIGSEGV),
			    "no SIGSEGV after %s, SSP was %#llx, is %#llx", what,
			    (unsigned long long)sig->ssp, (unsigned long long)sig->after);
	}
}

static void do_nothing(struct __test_metadata *const _metadata, void *arg)
{
	(void)_metadata;
	(void)arg;
}

/* Whether children get a shadow stack; else the test is skipped. */
static bool have_shadow_stacks(struct __test_metadata *const _metadata)
{
	return xregs_on_shadow_stack(_metadata, "enabling", do_nothing, NULL) &&
	       xf_cpuinfo_flag("user_shstk");
}

/*
 * Verify that a signal puts SSP in the form of a token and the address to return to on the
 * shadow stack, and that sigreturn() takes the token, from there only, aligned, in
 * that form, and of an address that a program can have.
 */
TEST_F(xstate_shstk_signal, sigreturn)
{
	const int bits = xf_cpuinfo_flag("la57") ? 56 : 47;
	const uint64_t end = (1ull << bits) - PAGE;

	if (!have_shadow_stacks(_metadata))
		return;
	sig = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect_return(_metadata, 0, 2, true, "the token of the kernel");
	EXPECT_SAME(sig->before - 16, sig->ssp, "SSP of the handler");
	EXPECT_SAME(sig->before | TOKEN, sig->slots[1], "the token of the kernel");
	EXPECT_THAT(sig->slots[0] && !(sig->slots[0] & TOKEN), "no address to return to");
	expect_return(_metadata, 0, 0, false, "an address in place of a token");
	expect_return(_metadata, 0, 1, false, "a token that starts in the middle of a slot");
	expect_return(_metadata, sig->before | TOKEN, 1, false, "a token across two slots");
	expect_return(_metadata, 0, 3, false, "a token that ends in the middle of a slot");
	expect_return(_metadata, 0, 4, false, "what is behind the token");
	expect_return(_metadata, (end - 8) | TOKEN, 2, true, "a token of the last address");
	expect_return(_metadata, end | TOKEN, 2, false, "a token beyond the last address");
	expect_return(_metadata, 1ull << bits | TOKEN, 2, false, "a token of no address");
	expect_return(_metadata, -PAGE, 2, false, "a token of the kernel's memory");
	expect_return(_metadata, sig->before | 4 | TOKEN, 2, false, "a token of half a slot");
	expect_return(_metadata, sig->before | 1 | TOKEN, 2, false, "a token with its bit 0");
	expect_return(_metadata, sig->before, 2, false, "a token without its bit 63");
	expect_return(_metadata, sig->before | 1, 2, false, "a token for RSTORSSP");
}

/* A shadow stack on which @slots slots are free of @pages pages, and what is done to them */
struct room {
	unsigned int slots;
	int protection;
	bool fits;
	const char *name;
};

#define UNMAPPED	-1

static void stop_in_handler(int nr, siginfo_t *info, void *context)
{
	(void)nr;
	(void)info;
	asm volatile("int3\n\t"
		     "mov $2, %%eax\n\t"
		     "incsspd %%eax\n\t"
		     "mov %0, %%rsp\n\t"
		     "mov %1, %%eax\n\t"
		     "syscall"
		     : : "r" (context), "i" (SYS_rt_sigreturn) : "memory");
}

/* Never return: SSP is moved. */
static void take_on_small_stack(struct __test_metadata *const _metadata, void *arg)
{
	const struct sigaction action = { .sa_sigaction = stop_in_handler,
					  .sa_flags = SA_SIGINFO };
	long tid = syscall(SYS_gettid), base;
	struct room *room = arg;
	unsigned long token;

	EXPECT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	signal(SIGSEGV, count_fault);
	raise(SIGSTOP);
	if (!xregs_enable_shadow_stack())
		xregs_no_shadow_stack(_metadata);
	token = 8 * room->slots;
	base = xshstk_call(SYS_map_shadow_stack, 0, token + 8, SHADOW_STACK_SET_TOKEN);
	asm volatile("rstorssp (%0)" : : "r" (base + token) : "memory");
	if (room->protection == UNMAPPED)
		xshstk_call(SYS_munmap, base, token + 8, 0);
	else
		xshstk_call(SYS_mprotect, base, token + 8, room->protection);
	asm volatile("int3");
	xshstk_call(SYS_tkill, tid, SIGUSR1, 0);
	asm volatile("int3");
	xshstk_call(SYS_exit_group, 0, 0, 0);
}

static uint64_t read_ssp(struct __test_metadata *const _metadata, pid_t pid)
{
	uint64_t ssp = 0;

	EXPECT_ERRNO(0, xregs_get_regset(pid, NT_X86_SHSTK, &ssp, 8), "reading NT_X86_SHSTK");
	return ssp;
}

static bool expect_stop(struct __test_metadata *const _metadata, int wanted, int wait_status,
			const char *what)
{
	return EXPECT_SAME(wanted, WIFSTOPPED(wait_status) ? WSTOPSIG(wait_status) : 0,
			   "signal that stops a task %s", what);
}

/* Take a signal on such a stack.  False where there are none. */
static bool take_traced(struct __test_metadata *const _metadata, struct room *room)
{
	pid_t pid = xregs_trace(_metadata, take_on_small_stack, room);
	uint64_t ssp;
	int stop;

	if (!pid)
		SKIP(return false, XREGS_NO_PTRACE);
	stop = xregs_go_on(_metadata, pid, 0);
	if (WIFEXITED(stop) && WEXITSTATUS(stop) == KSFT_SKIP)
		SKIP(return false, "no user shadow stacks");
	if (!expect_stop(_metadata, SIGTRAP, stop, "on a stack that it has mapped")) {
		if (WIFSTOPPED(stop))
			xf_kill(_metadata, pid);
		return false;
	}
	ssp = read_ssp(_metadata, pid);
	expect_stop(_metadata, SIGUSR1, xregs_go_on(_metadata, pid, 0), "before its handler");
	stop = xregs_go_on(_metadata, pid, SIGUSR1);
	expect_stop(_metadata, room->fits ? SIGTRAP : SIGSEGV, stop, "in its handler");
	EXPECT_SAME(room->fits ? ssp - 16 : ssp, read_ssp(_metadata, pid), "SSP then");
	/* Nor does SIGSEGV find room, though it has a handler. */
	stop = xregs_go_on(_metadata, pid, room->fits ? 0 : SIGSEGV);
	if (room->fits) {
		expect_stop(_metadata, SIGTRAP, stop, "behind its handler");
		EXPECT_SAME(ssp, read_ssp(_metadata, pid), "SSP after sigreturn()");
		xf_kill(_metadata, pid);
		return true;
	}
	if (WIFSTOPPED(stop)) {
		expect_stop(_metadata, SIGSEGV, stop, "that has nowhere to take SIGSEGV");
		EXPECT_SAME(ssp, read_ssp(_metadata, pid), "SSP at its end");
		stop = xregs_go_on(_metadata, pid, SIGSEGV);
	}
	if (!EXPECT_THAT(WIFSIGNALED(stop) && WTERMSIG(stop) == SIGSEGV,
			 "wait status %#x of a task that has nowhere to take SIGSEGV", stop) &&
	    WIFSTOPPED(stop))
		xf_kill(_metadata, pid);
	return true;
}

/*
 * Verify that a signal takes two slots, to the last ones, in pages that nobody has used
 * before as well, and that without them SSP stays, and SIGSEGV ends the task.
 */
TEST_F(xstate_shstk_signal, full)
{
	static struct room rooms[] = {
		{ 0, PROT_READ | PROT_WRITE, false, "no slot" },
		{ 1, PROT_READ | PROT_WRITE, false, "one slot" },
		{ 2, PROT_READ | PROT_WRITE, true, "two slots" },
		{ 512, PROT_READ | PROT_WRITE, true, "a page" },
		{ 513, PROT_READ | PROT_WRITE, true, "a page and a slot" },
		{ 513, PROT_READ, false, "memory to read" },
		{ 64, PROT_NONE, false, "protected memory" },
		{ 64, UNMAPPED, false, "no memory" },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rooms); i++) {
		th_case("%s", rooms[i].name);
		if (!take_traced(_metadata, &rooms[i]))
			return;
	}
	th_no_case();
}

static void stop_with_and_without(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	raise(SIGSTOP);
	if (!xregs_enable_shadow_stack())
		xregs_no_shadow_stack(_metadata);
	asm volatile("int3");
	xshstk_call(SYS_arch_prctl, ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK, 0);
	for (;;)
		asm volatile("int3");
}

static void expect_no_regset(struct __test_metadata *const _metadata, pid_t pid,
			     const char *when)
{
	uint64_t ssp = 0;

	EXPECT_ERRNO(ENODEV, xregs_get_regset(pid, NT_X86_SHSTK, &ssp, 8),
		     "reading NT_X86_SHSTK %s", when);
	EXPECT_ERRNO(ENODEV, xregs_set_regset(pid, NT_X86_SHSTK, &ssp, 8),
		     "setting NT_X86_SHSTK %s", when);
}

static void expect_regset(struct __test_metadata *const _metadata, pid_t pid)
{
	uint64_t ssp = read_ssp(_metadata, pid), two[2] = { ssp, -1 }, last;
	unsigned int size;

	for (size = 1; size < 8; size++) {
		EXPECT_ERRNO(EINVAL, xregs_get_regset(pid, NT_X86_SHSTK, two, size),
			     "reading %u bytes of NT_X86_SHSTK", size);
		EXPECT_ERRNO(EINVAL, xregs_set_regset(pid, NT_X86_SHSTK, two, size),
			     "setting %u bytes of NT_X86_SHSTK", size);
	}
	EXPECT_ERRNO(EINVAL, xregs_set_regset(pid, NT_X86_SHSTK, two, 0),
		     "setting no bytes of NT_X86_SHSTK");
	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_SHSTK, two, 16), "setting 16 bytes");
	EXPECT_SAME(ssp, read_ssp(_metadata, pid), "SSP after all that");
	EXPECT_ERRNO(EFAULT, xregs_set_regset(pid, NT_X86_SHSTK, NULL, 8), "setting it from NULL");
	EXPECT_SAME(ssp, read_ssp(_metadata, pid), "SSP set from NULL");
	/* The last one that a program can have */
	last = (1ull << (xf_cpuinfo_flag("la57") ? 56 : 47)) - PAGE - 8;
	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_SHSTK, &last, 8), "setting the last SSP");
	EXPECT_SAME(last, read_ssp(_metadata, pid), "the last SSP");
	last += 8;
	EXPECT_ERRNO(EINVAL, xregs_set_regset(pid, NT_X86_SHSTK, &last, 8), "setting one beyond");
	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_SHSTK, &ssp, 8), "setting SSP back");
}

/*
 * Verify that NT_X86_SHSTK of a task without a shadow stack, before or after it has had one,
 * cannot be read nor set, and else takes each SSP that a program can have, in one size.
 */
TEST_F(xstate_shstk_signal, regset)
{
	pid_t pid = xregs_trace(_metadata, stop_with_and_without, NULL);
	int stop;

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	if (xf_cpuinfo_flag("user_shstk"))
		expect_no_regset(_metadata, pid, "before");
	stop = xregs_go_on(_metadata, pid, 0);
	if (WIFEXITED(stop) && WEXITSTATUS(stop) == KSFT_SKIP)
		SKIP(return, "no user shadow stacks");
	expect_stop(_metadata, SIGTRAP, stop, "with a shadow stack");
	expect_regset(_metadata, pid);
	stop = xregs_go_on(_metadata, pid, 0);
	expect_stop(_metadata, SIGTRAP, stop, "that has disabled it");
	expect_no_regset(_metadata, pid, "after");
	xf_kill(_metadata, pid);
}

static int by_debugger(pid_t pid, int option, unsigned long arg)
{
	return ptrace(ARCH_PRCTL_BY_PTRACE, pid, arg, option) ? errno : 0;
}

/* It tells whether it could disable WRSS, at each stop. */
static void try_at_each_stop(struct __test_metadata *const _metadata, void *arg)
{
	raise(SIGSTOP);
	if (!xregs_enable_shadow_stack())
		xregs_no_shadow_stack(_metadata);
	xshstk_call(SYS_arch_prctl, ARCH_SHSTK_LOCK, ARCH_SHSTK_WRSS, 0);
	for (;;) {
		*(int *)arg = xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS);
		asm volatile("int3");
	}
}

/* Verify that a debugger can lock, and unlock, but not enable or disable. */
TEST_F(xstate_shstk_signal, debugger)
{
	uint64_t features = 0;
	int *error, stop, unlocks;
	pid_t pid;

	error = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, error);
	pid = xregs_trace(_metadata, try_at_each_stop, error);
	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	stop = xregs_go_on(_metadata, pid, 0);
	if (WIFEXITED(stop) && WEXITSTATUS(stop) == KSFT_SKIP)
		SKIP(return, "no user shadow stacks");
	EXPECT_ERRNO(EPERM, *error, "enabling what is locked");
	EXPECT_ERRNO(0, by_debugger(pid, ARCH_SHSTK_STATUS, (unsigned long)&features),
		     "ARCH_SHSTK_STATUS by a debugger");
	EXPECT_SAME(ARCH_SHSTK_SHSTK, features, "features that a debugger sees");
	/* What these did else, they did to the debugger: it may not survive the next one. */
	if (!EXPECT_ERRNO(EINVAL, by_debugger(pid, ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS),
			  "ARCH_SHSTK_ENABLE by a debugger") ||
	    !EXPECT_ERRNO(EINVAL, by_debugger(pid, ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK),
			  "ARCH_SHSTK_DISABLE by a debugger")) {
		xf_kill(_metadata, pid);
		return;
	}
	/* Kernels without CONFIG_CHECKPOINT_RESTORE refuse that. */
	unlocks = by_debugger(pid, ARCH_SHSTK_UNLOCK, ARCH_SHSTK_SHSTK);
	EXPECT_THAT(!unlocks || unlocks == EINVAL, "ARCH_SHSTK_UNLOCK by a debugger: %s",
		    strerror(unlocks));
	xregs_go_on(_metadata, pid, 0);
	EXPECT_ERRNO(EPERM, *error, "enabling what is locked, after another was unlocked");
	by_debugger(pid, ARCH_SHSTK_UNLOCK, ARCH_SHSTK_WRSS);
	xregs_go_on(_metadata, pid, 0);
	EXPECT_ERRNO(unlocks ? EPERM : 0, *error, "enabling what a debugger has unlocked");
	EXPECT_ERRNO(0, by_debugger(pid, ARCH_SHSTK_LOCK, ARCH_SHSTK_WRSS),
		     "ARCH_SHSTK_LOCK by a debugger");
	xregs_go_on(_metadata, pid, 0);
	EXPECT_ERRNO(EPERM, *error, "enabling what a debugger has locked");
	xf_kill(_metadata, pid);
}

XCOMP_HARNESS_MAIN
