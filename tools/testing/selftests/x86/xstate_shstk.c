// SPDX-License-Identifier: GPL-2.0-only
/*
 * The shadow stacks of a task: what enables and locks them, who gets one of its own, how
 * large, and when that is freed; what a child or thread that could not be made leaves
 * behind.
 */
#define _GNU_SOURCE

#include <assert.h>
#include <linux/sched.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "xshstk.h"

#define ALL			(ARCH_SHSTK_SHSTK | ARCH_SHSTK_WRSS)
#define PAGE			XSHSTK_PAGE
#define GIB			(XSHSTK_4G / 4)
#define NO_CLONE3		"no clone3()"

static uint64_t status(void)
{
	uint64_t features = -1;

	/* What is refused writes nothing. */
	xshstk_request(ARCH_SHSTK_STATUS, (unsigned long)&features);
	return features;
}

FIXTURE(xstate_shstk) {
};

FIXTURE_SETUP(xstate_shstk)
{
	xcomp_begin(_metadata, variant);
}

FIXTURE_TEARDOWN(xstate_shstk)
{
	xcomp_end(_metadata);
}

/* ---- enabling, locking ---- */

/* Shadow stacks, what the kernel needs for them, and no word that takes them away */
static bool shstk_is_due(void)
{
	return xf_cpuid(7, 0).ecx & 1u << 7 && xf_cpuid(0xd, 1).eax & 1u << 3 &&
	       xf_cpu_supervisor_mask() & XFEATURE_MASK_CET_USER &&
	       !xf_cmdline_may_have("noxsave") && !xf_cmdline_may_have("clearcpuid") &&
	       !xf_cmdline_may_have("nousershstk");
}

/*
 * Verify that a kernel that was built with shadow stacks does not lose them, without which
 * most is not tested: map_shadow_stack() of a flag that there is not is EINVAL then.
 */
TEST_F(xstate_shstk, offered)
{
	long said = xshstk_call(SYS_map_shadow_stack, 0, 0, ~0u);

	/* EOPNOTSUPP of a call that the kernel has, and no longer wants to do */
	if ((said != -EOPNOTSUPP && !xf_cpuinfo_flag("user_shstk")) || !shstk_is_due())
		SKIP(return, "no user shadow stacks");
	EXPECT_ERRNO(EINVAL, -said, "map_shadow_stack() with all flags");
	EXPECT_THAT(xf_cpuinfo_flag("user_shstk"), "no user_shstk in /proc/cpuinfo");
}

static const struct {
	int option;
	unsigned long features;
	int wanted, with;
} requests[] = {
	/* Without a shadow stack, and with one */
	{ ARCH_SHSTK_ENABLE, 0, EINVAL, EINVAL },
	{ ARCH_SHSTK_ENABLE, ALL, EINVAL, EINVAL },
	{ ARCH_SHSTK_ENABLE, 4, EINVAL, EINVAL },
	{ ARCH_SHSTK_ENABLE, 1ul << 63, EINVAL, EINVAL },
	{ ARCH_SHSTK_ENABLE, 5, EINVAL, EINVAL },
	{ ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS, EPERM, 0 },
	{ ARCH_SHSTK_DISABLE, 0, EINVAL, EINVAL },
	{ ARCH_SHSTK_DISABLE, ALL, EINVAL, EINVAL },
	{ ARCH_SHSTK_DISABLE, 4, EINVAL, EINVAL },
	{ ARCH_SHSTK_DISABLE, ARCH_SHSTK_WRSS, EPERM, 0 },
	{ ARCH_SHSTK_STATUS, 0, EFAULT, EFAULT },
	{ ARCH_SHSTK_STATUS, -PAGE, EFAULT, EFAULT },
};

static void expect_requests(struct __test_metadata *const _metadata, bool with)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(requests); i++)
		EXPECT_ERRNO(with ? requests[i].with : requests[i].wanted,
			     xshstk_request(requests[i].option, requests[i].features),
			     "option %#x for %#lx, %s shadow stack", requests[i].option,
			     requests[i].features, with ? "with a" : "without");
	EXPECT_SAME(with ? ARCH_SHSTK_SHSTK : 0, status(), "ARCH_SHSTK_STATUS after these");
}

static void expect_options(struct __test_metadata *const _metadata, void *arg)
{
	struct xf_shadow_stacks before, now;
	uint64_t ssp = xregs_ssp();

	(void)arg;
	EXPECT_SAME(ARCH_SHSTK_SHSTK, status(), "ARCH_SHSTK_STATUS with a shadow stack");
	if (!xf_shadow_stacks(&before, ssp))
		SKIP(return, XSHSTK_NO_SMAPS);
	expect_requests(_metadata, true);
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_SHSTK),
		     "ARCH_SHSTK_ENABLE again");
	xf_shadow_stacks(&now, ssp);
	EXPECT_SAME(before.nr, now.nr, "shadow stacks, enabled twice");
	EXPECT_SAME(ssp, xregs_ssp(), "SSP, enabled twice");
	/* Nothing may return or be called without one but what begins and ends there. */
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK), "ARCH_SHSTK_DISABLE");
	EXPECT_SAME(0, xregs_ssp(), "SSP, disabled");
	EXPECT_SAME(0, status(), "ARCH_SHSTK_STATUS, disabled");
	xf_shadow_stacks(&now, ssp);
	EXPECT_SAME(before.nr - 1, now.nr, "shadow stacks, disabled");
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK),
		     "ARCH_SHSTK_DISABLE again");
	expect_requests(_metadata, false);
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_SHSTK),
		     "ARCH_SHSTK_ENABLE later");
	EXPECT_THAT(xregs_ssp(), "no shadow stack, enabled later");
	xf_shadow_stacks(&now, xregs_ssp());
	EXPECT_SAME(before.nr, now.nr, "shadow stacks, enabled later");
	/* A stack of its own and no caller to return to */
	xf_exit();
}

/* Verify that there is one shadow stack or none, as was asked for, and what may be asked. */
TEST_F(xstate_shstk, options)
{
	if (!xf_cpuinfo_flag("user_shstk"))
		SKIP(return, "no user shadow stacks");
	expect_requests(_metadata, false);
	xregs_on_shadow_stack(_metadata, "enabling and disabling", expect_options, NULL);
}

static sig_atomic_t raised;

/* Behind the WRSS, whose length is that of its five bytes */
static void skip_wrss(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)info;
	raised = sig;
	uc->uc_mcontext.gregs[REG_RIP] += 5;
}

static int try_wrss(uint64_t *at, uint64_t value)
{
	const struct sigaction action = { .sa_sigaction = skip_wrss, .sa_flags = SA_SIGINFO };

	raised = 0;
	sigaction(SIGILL, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	/* wrssq %rax, (%rdi) */
	asm volatile(".byte 0x48, 0x0f, 0x38, 0xf6, 0x07" : : "D" (at), "a" (value) : "memory");
	return raised;
}

static void expect_wrss(struct __test_metadata *const _metadata, void *arg)
{
	uint64_t *unused = (uint64_t *)xregs_ssp() - 64, elsewhere = 0;

	(void)arg;
	EXPECT_SAME(SIGILL, try_wrss(unused, 1), "signal that WRSS raises at first");
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS), "enabling WRSS");
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS), "enabling WRSS again");
	EXPECT_SAME(ALL, status(), "ARCH_SHSTK_STATUS with WRSS");
	EXPECT_SAME(0, try_wrss(unused, 2), "signal that WRSS raises, enabled");
	EXPECT_SAME(2, *unused, "what WRSS has written");
	EXPECT_SAME(SIGSEGV, try_wrss(&elsewhere, 2), "signal that WRSS raises elsewhere");
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_DISABLE, ARCH_SHSTK_WRSS), "disabling WRSS");
	EXPECT_SAME(ARCH_SHSTK_SHSTK, status(), "ARCH_SHSTK_STATUS without WRSS");
	EXPECT_SAME(SIGILL, try_wrss(unused, 3), "signal that WRSS raises, disabled");
	EXPECT_SAME(2, *unused, "what WRSS has written, disabled");
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_DISABLE, ARCH_SHSTK_WRSS),
		     "disabling WRSS again");
}

/* Verify that WRSS works while it is enabled, on shadow stacks only. */
TEST_F(xstate_shstk, wrss)
{
	xregs_on_shadow_stack(_metadata, "WRSS", expect_wrss, NULL);
}

static void expect_listed(struct __test_metadata *const _metadata, const char *key,
			  const char *wanted)
{
	char text[8192], *at;

	EXPECT_THAT(xf_read_file("/proc/self/status", text, sizeof(text)) > 0, "no status");
	at = strstr(text, key);
	if (!EXPECT_THAT(at, "no %s in /proc/self/status", key))
		return;
	at += strlen(key);
	at[strcspn(at, "\n")] = '\0';
	EXPECT_THAT(!strcmp(wanted, at), "%s'%s' in /proc/self/status, wanted '%s'", key, at,
		    wanted);
}

#define LISTED		"x86_Thread_features:\t"
#define LISTED_LOCKED	"x86_Thread_features_locked:\t"

static void expect_locked(struct __test_metadata *const _metadata, void *who)
{
	uint64_t ssp = xregs_ssp();

	EXPECT_ERRNO(EPERM, xshstk_request(ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK),
		     "disabling what is locked, by %s", (char *)who);
	EXPECT_ERRNO(EPERM, xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_SHSTK),
		     "enabling what is locked, by %s", (char *)who);
	EXPECT_ERRNO(EPERM, xshstk_request(ARCH_SHSTK_UNLOCK, ARCH_SHSTK_SHSTK),
		     "unlocking, by %s", (char *)who);
	EXPECT_ERRNO(EPERM, xshstk_request(ARCH_SHSTK_DISABLE, ALL),
		     "disabling what is partly locked, by %s", (char *)who);
	EXPECT_SAME(ssp, xregs_ssp(), "SSP of %s", (char *)who);
	EXPECT_SAME(ARCH_SHSTK_SHSTK, status(), "ARCH_SHSTK_STATUS of %s", (char *)who);
}

static void expect_lock(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	expect_listed(_metadata, LISTED, "shstk ");
	expect_listed(_metadata, LISTED_LOCKED, "");
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_LOCK, 0), "ARCH_SHSTK_LOCK of nothing");
	expect_listed(_metadata, LISTED_LOCKED, "");
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_LOCK, ARCH_SHSTK_SHSTK), "ARCH_SHSTK_LOCK");
	expect_locked(_metadata, "the task");
	expect_listed(_metadata, LISTED_LOCKED, "shstk ");
	xf_in_child(_metadata, "a child", expect_locked, "its child");
	xcomp_in_thread(_metadata, "a thread", expect_locked, "its thread");
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS),
		     "enabling what is not locked");
	expect_listed(_metadata, LISTED, "shstk wrss ");
	/* Also what no kernel knows yet */
	EXPECT_ERRNO(0, xshstk_request(ARCH_SHSTK_LOCK, -1), "ARCH_SHSTK_LOCK of all");
	expect_listed(_metadata, LISTED_LOCKED, "shstk wrss ");
	EXPECT_ERRNO(EPERM, xshstk_request(ARCH_SHSTK_DISABLE, ARCH_SHSTK_WRSS),
		     "disabling WRSS, locked");
	EXPECT_ERRNO(EPERM, xshstk_request(ARCH_SHSTK_UNLOCK, -1), "unlocking all");
	EXPECT_ERRNO(EPERM, xshstk_request(ARCH_SHSTK_ENABLE, 4),
		     "a feature of the future, locked");
	EXPECT_SAME(ALL, status(), "ARCH_SHSTK_STATUS, all locked");
}

/*
 * Verify that what is locked stays as it is, for children and threads as well, and that no
 * task can unlock itself.
 */
TEST_F(xstate_shstk, lock)
{
	xregs_on_shadow_stack(_metadata, "locking", expect_lock, NULL);
}

/* The entry for programs of 32 bits, by which a task has no shadow stacks */
static long call_32(long nr, long arg1, long arg2)
{
	asm volatile("int $0x80" : "+a" (nr) : "b" (arg1), "c" (arg2)
		     : "r8", "r9", "r10", "r11", "memory");
	return (int)nr;
}

/* Without IA32 emulation there is no such entry, and a filter may refuse what comes by it. */
static bool has_calls_32(struct __test_metadata *const _metadata)
{
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid) {
		prctl(PR_SET_DUMPABLE, 0);
		signal(SIGSEGV, SIG_DFL);
		/* getpid() */
		_exit(call_32(20, 0, 0) == getpid() ? 0 : KSFT_SKIP);
	}
	status = xf_wait(_metadata, pid, "getpid() by a system call of 32 bits");
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

/* Verify that system calls of 32-bit programs enable none; they could not run on it. */
TEST_F(xstate_shstk, compat)
{
	int error, end;
	pid_t pid;

	if (!has_calls_32(_metadata))
		SKIP(return, "no system calls of 32-bit programs");
	pid = xf_fork(_metadata);
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		error = -call_32(384, ARCH_SHSTK_ENABLE, ARCH_SHSTK_SHSTK);
		/* Whoever has one cannot return any more. */
		_exit(xregs_ssp() ? 0 : error);
	}
	end = xf_wait(_metadata, pid, "ARCH_SHSTK_ENABLE by a system call of 32 bits");
	if (EXPECT_THAT(WIFEXITED(end), "wait status %#x of a system call of 32 bits", end))
		EXPECT_ERRNO(EINVAL, WEXITSTATUS(end),
			     "ARCH_SHSTK_ENABLE by a system call of 32 bits");
}

/* Verify that ARCH_SHSTK_UNLOCK, which is for debuggers, does nothing for the task itself. */
TEST_F(xstate_shstk, unlock)
{
	uint64_t features;
	int error, end;
	bool enables;
	pid_t pid;

	/* A filter of system calls would refuse both. */
	error = xshstk_request(ARCH_SHSTK_STATUS, (unsigned long)&features);
	EXPECT_THAT(!error || error == EINVAL, "ARCH_SHSTK_STATUS: %s", strerror(error));
	pid = xf_fork(_metadata);
	if (!pid) {
		error = xshstk_request(ARCH_SHSTK_UNLOCK, ARCH_SHSTK_SHSTK);
		/* Whoever has one cannot return any more. */
		_exit(xregs_ssp() ? KSFT_XFAIL : error ? 0 : KSFT_FAIL);
	}
	end = xf_wait_briefly(_metadata, pid, "ARCH_SHSTK_UNLOCK");
	enables = WIFEXITED(end) && WEXITSTATUS(end) == KSFT_XFAIL;
	XFAIL_IF(enables, "ARCH_SHSTK_UNLOCK of a task for itself is ARCH_SHSTK_ENABLE")
		EXPECT_SAME(0, end, "wait status after ARCH_SHSTK_UNLOCK of nothing locked");
}

/* What a new program finds */
struct found {
	uint64_t status;
	unsigned int stacks;
	int enabled, with_wrss;
};

static void after_exec(int fd)
{
	struct xf_shadow_stacks s = { };
	struct found found = { };

	found.status = status();
	xf_shadow_stacks(&s, 0);
	found.stacks = s.nr;
	/* What was locked would be refused. */
	found.enabled = xshstk_request(ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK);
	found.with_wrss = xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS);
	if (write(fd, &found, sizeof(found)) != sizeof(found))
		_exit(KSFT_FAIL);
}

static void lock_and_exec(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	if (!xregs_enable_shadow_stack())
		xregs_no_shadow_stack(_metadata);
	xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS);
	xshstk_request(ARCH_SHSTK_LOCK, -1);
	xcomp_exec(_metadata, NULL);
	xf_exit();
}

/* Verify that a new program starts without any, and without a lock. */
TEST_F(xstate_shstk, exec)
{
	struct found found;

	if (!xf_cpuinfo_flag("user_shstk"))
		SKIP(return, "no user shadow stacks");
	xcomp_in_new_program(_metadata, "execve()", lock_and_exec, NULL, &found, sizeof(found));
	EXPECT_SAME(0, found.status, "ARCH_SHSTK_STATUS of a new program");
	EXPECT_SAME(0, found.stacks, "shadow stacks of a new program");
	EXPECT_ERRNO(0, found.enabled, "disabling in a new program");
	EXPECT_ERRNO(EPERM, found.with_wrss, "WRSS without a shadow stack in a new program");
}

/* ---- children and threads ---- */

/* What a child tells, what it reads before it ends, and what it calls if it has a stack */
struct child {
	uint64_t ssp;
	int fd;
	char byte;
	pid_t tid;
	int started;
	void (*fn)(struct child *c);
	const char *how;
};

static_assert(offsetof(struct child, fd) == 8 && offsetof(struct child, byte) == 12 &&
	      offsetof(struct child, started) == 20 && offsetof(struct child, fn) == 24,
	      "struct child of start_child()");

/* Start a child of any kind, with no call between its SSP and that of the caller. */
static __always_inline long start_child(struct clone_args *args, size_t size, struct child *c)
{
	long nr = SYS_clone3;

	asm volatile("syscall\n\t"
		     "test %%rax, %%rax\n\t"
		     "jnz 1f\n\t"
		     XREGS_RDSSP
		     "mov %%rax, (%%rbx)\n\t"
		     "movl $1, 20(%%rbx)\n\t"
		     "mov 24(%%rbx), %%rax\n\t"
		     "test %%rax, %%rax\n\t"
		     "jz 2f\n\t"
		     "mov %%rbx, %%rdi\n\t"
		     "call *%%rax\n"
		     "2:\n\t"
		     "xor %%eax, %%eax\n\t"
		     "mov 8(%%rbx), %%edi\n\t"
		     "lea 12(%%rbx), %%rsi\n\t"
		     "mov $1, %%edx\n\t"
		     "syscall\n\t"
		     "mov $60, %%eax\n\t"
		     "xor %%edi, %%edi\n\t"
		     "syscall\n"
		     "1:"
		     : "+a" (nr), "+D" (args), "+S" (size)
		     : "b" (c)
		     : "rcx", "rdx", "r11", "memory");
	return nr;
}

#define THREAD	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)

/* Containers may forbid it.  Of arguments any kernel refuses a size of 0. */
static bool has_clone3(void)
{
	return xshstk_call(SYS_clone3, 0, 0, 0) == -EINVAL;
}

/* Wait until it tells, but for half of the time only that the test waits for the caller. */
static uint64_t its_ssp(struct __test_metadata *const _metadata, struct child *c)
{
	int i;

	for (i = 0; !__atomic_load_n(&c->started, __ATOMIC_ACQUIRE) &&
	     i < XF_TIMEOUT * 500; i++)
		usleep(1000);
	EXPECT_THAT(c->started, "a child has not started within %d ms", i);
	return c->ssp;
}

static void wait_for_child(struct __test_metadata *const _metadata, struct child *c, long pid,
			   bool is_thread)
{
	int i;

	for (i = 0; is_thread && __atomic_load_n(&c->tid, __ATOMIC_RELAXED) &&
	     i < XF_TIMEOUT * 1000; i++)
		usleep(1000);
	if (is_thread)
		EXPECT_SAME(0, c->tid, "thread that does not end");
	else
		xf_join(_metadata, pid, "a child");
}

static const struct {
	const char *name;
	uint64_t flags;
	/* A shadow stack of its own, its parent's, or a copy in memory of its own */
	bool own, waits;
} kinds[] = {
	{ "a thread", THREAD, true, false },
	{ "a child on its parent's memory", CLONE_VM, true, false },
	{ "a vfork() child", CLONE_VM | CLONE_VFORK, false, true },
	{ "a fork() child", 0, false, false },
	{ "a fork() child for which its parent waits", CLONE_VFORK, false, true },
};

static void expect_child(struct __test_metadata *const _metadata, void *kind)
{
	struct xf_shadow_stacks before, with, after;
	uint64_t flags = kinds[(long)kind].flags;
	bool is_thread = flags & CLONE_THREAD;
	bool own = kinds[(long)kind].own, waits = kinds[(long)kind].waits;
	struct child *c = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			       0);
	struct clone_args args = {
		.flags = flags | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID,
		.exit_signal = is_thread ? 0 : SIGCHLD, .child_tid = (unsigned long)&c->tid,
	};
	uint64_t ssp = xregs_ssp();
	int pipes[2];
	long pid;

	if (!xf_shadow_stacks(&before, ssp))
		SKIP(return, XSHSTK_NO_SMAPS);
	EXPECT_SAME(1, before.nr, "shadow stacks at first");
	EXPECT_EQ(0, pipe(pipes));
	c->fd = waits ? -1 : pipes[0];
	pid = start_child(&args, sizeof(args), c);
	if (!EXPECT_THAT(pid > 0, "clone3(): %s", strerror(-pid)))
		return;
	xf_shadow_stacks(&with, its_ssp(_metadata, c));
	EXPECT_SAME(before.nr + own, with.nr, "shadow stacks with it");
	if (own) {
		EXPECT_SAME(with.end, c->ssp, "its SSP at first, at the end of its own");
		EXPECT_SAME(before.end - before.start, with.end - with.start,
			    "size of its own, by the limit of its parent's");
	} else {
		EXPECT_SAME(ssp, c->ssp, "its SSP at first, that of its parent");
	}
	EXPECT_EQ(1, write(pipes[1], "", 1));
	wait_for_child(_metadata, c, pid, is_thread);
	xf_shadow_stacks(&after, ssp);
	EXPECT_SAME(before.nr, after.nr, "shadow stacks after it");
	EXPECT_SAME(before.start, after.start, "where that of the parent starts after it");
	EXPECT_SAME(before.end, after.end, "where that of the parent ends after it");
	EXPECT_SAME(ssp, xregs_ssp(), "SSP of the parent after it");
}

/*
 * Verify that a child that shares memory, and for which its parent does not wait, has a
 * shadow stack of its own for as long as it lives, and all others their parent's.
 */
TEST_F(xstate_shstk, children)
{
	long i;

	if (!has_clone3())
		SKIP(return, NO_CLONE3);
	for (i = 0; i < (long)ARRAY_SIZE(kinds); i++) {
		th_case("%s", kinds[i].name);
		if (!xregs_on_shadow_stack(_metadata, kinds[i].name, expect_child, (void *)i))
			break;
	}
	th_no_case();
}

static const char * const nothing[] = { NULL };

/* In a vfork() child, on its parent's shadow stack but on another stack */
static void end_by(struct child *c)
{
	if (strstr(c->how, "nothing")) {
		execve("/nowhere", (char **)nothing, (char **)nothing);
	} else if (strstr(c->how, "execve")) {
		/* Nobody is to see its list of tests. */
		close(STDOUT_FILENO);
		close(STDERR_FILENO);
		execl("/proc/self/exe", program_invocation_name, "-l", NULL);
	} else if (strstr(c->how, "SIGKILL")) {
		kill(getpid(), SIGKILL);
	}
}

static void vfork_and(struct __test_metadata *const _metadata, void *how)
{
	static long double stack[4096];
	struct child c = { .fd = -1, .fn = end_by, .how = how };
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD,
		.stack = (unsigned long)stack, .stack_size = sizeof(stack),
	};
	struct xf_shadow_stacks before, after;
	uint64_t ssp = xregs_ssp();
	pid_t pid;

	if (!xf_shadow_stacks(&before, ssp))
		SKIP(return, XSHSTK_NO_SMAPS);
	if (!strncmp(how, "posix_spawn", 11)) {
		EXPECT_ERRNO(ENOENT, posix_spawn(&pid, "/nowhere", NULL, NULL, (char **)nothing,
						 (char **)nothing), "%s", (char *)how);
	} else {
		pid = start_child(&args, sizeof(args), &c);
		EXPECT_THAT(pid > 0, "clone3(): %s", strerror(-pid));
		EXPECT_EQ(pid, waitpid(pid, NULL, 0));
		EXPECT_SAME(ssp, c.ssp, "SSP of a vfork() child, that of its parent");
	}
	xf_shadow_stacks(&after, ssp);
	EXPECT_SAME(before.nr, after.nr, "shadow stacks after %s", (char *)how);
	EXPECT_SAME(before.start, after.start, "where the parent's starts after %s", (char *)how);
	EXPECT_SAME(before.end, after.end, "where the parent's ends after %s", (char *)how);
	EXPECT_SAME(ssp, xregs_ssp(), "SSP after %s", (char *)how);
}

/* Verify that however a vfork() child ends, its parent's shadow stack is left alone. */
TEST_F(xstate_shstk, vfork)
{
	static char * const ways[] = {
		"vfork() and exit()", "vfork() and execve()", "vfork() and SIGKILL",
		"vfork() and execve() of nothing", "posix_spawn() of nothing",
	};
	unsigned int i;

	if (!has_clone3())
		SKIP(return, NO_CLONE3);
	for (i = 0; i < ARRAY_SIZE(ways); i++)
		if (!xregs_on_shadow_stack(_metadata, ways[i], vfork_and, ways[i]))
			break;
}

/* A child that cannot be made, by what clone3() finds too late, or early */
enum failure {
	NO_DESCRIPTOR, NO_PID, NO_CGROUP, NO_TLS, NO_SIGHAND, NO_SIGNAL, NO_ARGS, NO_PROCESS,
};

static const struct {
	const char *name;
	int wanted;
} failures[] = {
	[NO_DESCRIPTOR] = { "without a descriptor for its pidfd", EMFILE },
	[NO_PID] = { "with the id of another", EEXIST },
	[NO_CGROUP] = { "in no cgroup", EBADF },
	[NO_TLS] = { "with a TLS of the kernel", EPERM },
	[NO_SIGHAND] = { "with half of what threads share", EINVAL },
	[NO_SIGNAL] = { "with an exit signal that does not exist", EINVAL },
	[NO_ARGS] = { "with unknown arguments", E2BIG },
	[NO_PROCESS] = { "beyond RLIMIT_NPROC", EAGAIN },
};

struct failing {
	int kind;
	enum failure failure;
};

/* The errno to expect; where two are right, @error tells which one it is. */
static int wanted_error(const struct failing *f, int error)
{
	bool is_thread = kinds[f->kind].flags & CLONE_THREAD;
	int wanted = failures[f->failure].wanted;

	/* Whoever may not choose an id is not told whether it is free. */
	if (f->failure == NO_PID && error == EPERM)
		wanted = EPERM;
	/* Before Linux 6.9 threads have no pidfd. */
	if (f->failure == NO_DESCRIPTOR && is_thread && error == EINVAL)
		wanted = EINVAL;
	return wanted;
}

/* The soft limit, so that it can be lifted again */
static void limit_descriptors(rlim_t nr)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = nr;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* Return the size of the arguments, or 0 where it cannot be made to fail. */
static size_t make_it_fail(struct clone_args *args, enum failure failure)
{
	static const struct rlimit none = { 0, 0 };
	static pid_t mine;
	static int fd;

	switch (failure) {
	case NO_DESCRIPTOR:
		limit_descriptors(0);
		args->flags |= CLONE_PIDFD;
		args->pidfd = (unsigned long)&fd;
		break;
	case NO_PID:
		mine = getpid();
		args->set_tid = (unsigned long)&mine;
		args->set_tid_size = 1;
		break;
	case NO_CGROUP:
		args->flags |= CLONE_INTO_CGROUP;
		args->cgroup = 1 << 20;
		break;
	case NO_TLS:
		args->flags |= CLONE_SETTLS;
		args->tls = -PAGE;
		break;
	case NO_SIGHAND:
		args->flags |= CLONE_THREAD;
		args->flags &= ~CLONE_SIGHAND;
		break;
	case NO_SIGNAL:
		args->exit_signal = 255;
		break;
	case NO_ARGS:
		return sizeof(*args) + 8;
	case NO_PROCESS:
		setrlimit(RLIMIT_NPROC, &none);
		/* Root has no such limit; another user it may not have in its namespace. */
		if (!getuid() && setresuid(12345, 12345, 12345))
			return 0;
		break;
	}
	return sizeof(*args);
}

static void expect_failure(struct __test_metadata *const _metadata, void *arg)
{
	struct failing *f = arg;
	struct xf_shadow_stacks before, after;
	uint64_t flags = kinds[f->kind].flags;
	struct {
		struct clone_args args;
		uint64_t unknown;
	} a = {
		.args = { .flags = flags, .exit_signal = flags & CLONE_THREAD ? 0 : SIGCHLD },
		.unknown = 1,
	};
	struct child *c = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			       0);
	uint64_t ssp = xregs_ssp();
	size_t size;
	long pid;

	c->fd = -1;
	if (!xf_shadow_stacks(&before, ssp))
		SKIP(return, XSHSTK_NO_SMAPS);
	size = make_it_fail(&a.args, f->failure);
	if (!size) {
		TH_ROW_LOG("left out: no other user");
		return;
	}
	pid = start_child(&a.args, size, c);
	/* For /proc/self/smaps */
	if (f->failure == NO_DESCRIPTOR)
		limit_descriptors(64);
	if (pid > 0 && f->failure == NO_CGROUP && access("/proc/self/cgroup", F_OK)) {
		TH_ROW_LOG("left out: the kernel has no cgroups");
		return;
	}
	EXPECT_ERRNO(wanted_error(f, -pid), pid < 0 ? -pid : 0, "clone3()");
	EXPECT_SAME(ssp, xregs_ssp(), "SSP after clone3() has failed");
	xf_shadow_stacks(&after, ssp);
	/* What clone3() has done before it looks at the TLS stays. */
	XFAIL_IF(f->failure == NO_TLS && kinds[f->kind].own && after.nr == before.nr + 1,
		 "a thread without TLS leaves a shadow stack behind")
		EXPECT_SAME(before.nr, after.nr, "shadow stacks after clone3() has failed");
	EXPECT_SAME(before.start, after.start, "where the caller's starts");
	EXPECT_SAME(before.end, after.end, "where the caller's ends");
}

/*
 * Verify that a child or thread that could not be made leaves no shadow stack behind, and
 * the caller its own.
 */
TEST_F(xstate_shstk, failing_clone)
{
	unsigned int kind, failure;
	struct failing f;

	if (!has_clone3())
		SKIP(return, NO_CLONE3);
	for (kind = 0; kind < ARRAY_SIZE(kinds); kind++)
		for (failure = 0; failure < ARRAY_SIZE(failures); failure++) {
			th_case("%s %s", kinds[kind].name, failures[failure].name);
			f = (struct failing) { kind, failure };
			if (!xregs_on_shadow_stack(_metadata, "clone3() fails", expect_failure,
						   &f))
				return;
		}
	th_no_case();
}

static void expect_size(struct __test_metadata *const _metadata, uint64_t stack_size,
			uint64_t wanted)
{
	static uint8_t stack[PAGE];
	struct child *c = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			       0);
	struct clone_args args = {
		.flags = CLONE_VM, .exit_signal = SIGCHLD, .stack_size = stack_size,
		.stack = stack_size ? (unsigned long)stack : 0,
	};
	struct xf_shadow_stacks with;
	int pipes[2];
	long pid;

	EXPECT_EQ(0, pipe(pipes));
	c->fd = pipes[0];
	pid = start_child(&args, sizeof(args), c);
	/* So much memory may be too much. */
	if (wanted < GIB || pid != -ENOMEM)
		EXPECT_THAT(pid > 0, "clone3() with a stack of %#llx bytes: %s",
			    (unsigned long long)stack_size, strerror(-pid));
	if (pid > 0) {
		if (xf_shadow_stacks(&with, its_ssp(_metadata, c))) {
			EXPECT_SAME(wanted, with.end - with.start,
				    "size of the shadow stack for a stack of %#llx bytes",
				    (unsigned long long)stack_size);
			EXPECT_THAT(with.start >= XSHSTK_4G, "a shadow stack at %#llx",
				    (unsigned long long)with.start);
		}
		EXPECT_EQ(1, write(pipes[1], "", 1));
		xf_join(_metadata, pid, "a child");
	}
	munmap(c, PAGE);
	close(pipes[0]);
	close(pipes[1]);
}

/* Set RLIMIT_STACK; false beyond the hard limit, which not everybody may raise. */
static bool limit_stack(struct __test_metadata *const _metadata, uint64_t size)
{
	struct rlimit limit;

	EXPECT_EQ(0, getrlimit(RLIMIT_STACK, &limit));
	if (size > limit.rlim_max) {
		TH_ROW_LOG("left out: RLIMIT_STACK of %#llx", (unsigned long long)size);
		return false;
	}
	limit.rlim_cur = size;
	return EXPECT_THAT(!setrlimit(RLIMIT_STACK, &limit), "setrlimit() to %#llx: %s",
			   (unsigned long long)size, strerror(errno));
}

static void expect_sizes(struct __test_metadata *const _metadata, void *arg)
{
	static const uint64_t sizes[] = {
		1, 8, PAGE - 1, PAGE, PAGE + 1, 256 * PAGE, GIB / 64 + 9
	};
	static const uint64_t large[] = { XSHSTK_4G - 1, 16 * XSHSTK_4G, RLIM_INFINITY };
	unsigned int i;

	(void)arg;
	if (!has_clone3())
		SKIP(return, NO_CLONE3);
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		expect_size(_metadata, sizes[i], (sizes[i] + PAGE - 1) & -PAGE);
	if (limit_stack(_metadata, 300 * PAGE)) {
		expect_size(_metadata, 0, 300 * PAGE);
		expect_size(_metadata, PAGE, PAGE);
		expect_size(_metadata, 301 * PAGE, 301 * PAGE);
	}
	if (limit_stack(_metadata, 300 * PAGE + 1))
		expect_size(_metadata, 0, 301 * PAGE);
	for (i = 0; i < ARRAY_SIZE(large); i++)
		if (limit_stack(_metadata, large[i]))
			expect_size(_metadata, 0, XSHSTK_4G);
}

static void expect_own_size(struct __test_metadata *const _metadata, void *limit)
{
	uint64_t size = *(uint64_t *)limit, ssp;
	struct xf_shadow_stacks s;

	if (!limit_stack(_metadata, size))
		return;
	if (!xregs_enable_shadow_stack())
		xregs_no_shadow_stack(_metadata);
	ssp = xregs_ssp();
	if (xf_shadow_stacks(&s, ssp))
		EXPECT_SAME((size + PAGE - 1) & -PAGE, s.end - s.start,
			    "size of the shadow stack with RLIMIT_STACK %#llx",
			    (unsigned long long)size);
	EXPECT_SAME(1, s.nr, "shadow stacks");
	xf_exit();
}

/*
 * Verify that a shadow stack has the size of the stack that clone3() names, and else of
 * RLIMIT_STACK, up to 4 GiB, in whole pages.
 */
TEST_F(xstate_shstk, size)
{
	uint64_t limits[] = { 300 * PAGE, 300 * PAGE + 1, 8192 * PAGE - 1 };
	struct xf_shadow_stacks s;
	unsigned int i;
	bool go_on;

	go_on = xregs_on_shadow_stack(_metadata, "stacks of other sizes", expect_sizes, NULL);
	if (!go_on || !xf_cpuinfo_flag("user_shstk"))
		return;
	if (!xf_shadow_stacks(&s, 0))
		SKIP(return, XSHSTK_NO_SMAPS);
	for (i = 0; i < ARRAY_SIZE(limits); i++)
		xf_in_child_briefly(_metadata, "a limit", expect_own_size, &limits[i]);
}

static void do_nothing(struct __test_metadata *const _metadata, void *arg)
{
	(void)_metadata;
	(void)arg;
}

static void expect_no_leak(struct __test_metadata *const _metadata, void *arg)
{
	struct xf_shadow_stacks before, after;
	uint64_t ssp = xregs_ssp();
	int i;

	(void)arg;
	/* The C library keeps stacks, but no shadow stack. */
	xcomp_in_thread(_metadata, "a thread", do_nothing, NULL);
	if (!xf_shadow_stacks(&before, ssp))
		SKIP(return, XSHSTK_NO_SMAPS);
	for (i = 0; i < 32; i++) {
		xcomp_in_thread(_metadata, "a thread", do_nothing, NULL);
		xf_in_child(_metadata, "a child", do_nothing, NULL);
	}
	xf_shadow_stacks(&after, ssp);
	EXPECT_SAME(before.nr, after.nr, "shadow stacks after many threads");
	EXPECT_SAME(before.bytes, after.bytes, "bytes of shadow stacks after many threads");
}

/* Verify that threads of the C library leave none behind, and children take none away. */
TEST_F(xstate_shstk, threads)
{
	xregs_on_shadow_stack(_metadata, "many threads", expect_no_leak, NULL);
}

static void disable_and_end(struct __test_metadata *const _metadata, void *arg)
{
	/* By system calls alone, as nothing of the thread can return any more */
	if (xshstk_request(ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK))
		*(int *)arg = KSFT_FAIL;
	else if (xregs_ssp())
		*(int *)arg = KSFT_SKIP;
	(void)_metadata;
}

static void expect_other_kept(struct __test_metadata *const _metadata, void *arg)
{
	struct xf_shadow_stacks before, after;
	uint64_t ssp = xregs_ssp();
	static int result;

	(void)arg;
	if (!xf_shadow_stacks(&before, ssp))
		SKIP(return, XSHSTK_NO_SMAPS);
	xcomp_in_thread(_metadata, "a thread that disables its own", disable_and_end, &result);
	EXPECT_SAME(0, result, "what it could not do");
	xf_shadow_stacks(&after, ssp);
	EXPECT_SAME(before.nr, after.nr, "shadow stacks after it");
	EXPECT_SAME(ssp, xregs_ssp(), "SSP of the other thread");
	EXPECT_SAME(ARCH_SHSTK_SHSTK, status(), "ARCH_SHSTK_STATUS of the other thread");
}

/* Verify that a thread that disables its shadow stack leaves others theirs. */
TEST_F(xstate_shstk, disabled_by_thread)
{
	xregs_on_shadow_stack(_metadata, "two threads", expect_other_kept, NULL);
}

XCOMP_EXEC_HARNESS_MAIN(after_exec)
