// SPDX-License-Identifier: GPL-2.0-only
/*
 * What becomes of a task's XSAVE state, PKRU included, when the task forks,
 * executes a new program, takes a signal, is scheduled out, is debugged or
 * ends, and what an #NM or a vCPU leaves behind. Most of it takes no guest, but
 * it is the same code that KVM and the AMX permissions rely on.
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <ucontext.h>

#include "xstate_task.h"
#include "xstate_task_guest.h"
#include "xstate_task_ptrace.h"

/* Copying page tables of that much memory takes longer than a turn of the CPU. */
#define BUSY_MEMORY	(48ul << 20)
#define BUSY_FORKS	12

#define TURNS		8

/* PKRU as execve() leaves it: that of this program when it started */
static uint32_t initial_pkru;

/*
 * Fork with a pattern in the registers. The child compares, and prints nothing
 * if all is well.
 */
static bool fork_with_pattern(struct xcomp *x)
{
	uint8_t *pattern = xcomp_pattern(), *saved = xcomp_area();
	int status;
	long pid;
	bool ok;

	fflush(stdout);
	pid = xcomp_call_between(pattern, saved, SYS_fork, 0, 0);
	if (!pid) {
		ok = xcomp_same_state(x, "of a new child", pattern, saved);
		fflush(stdout);
		_exit(xcomp_verdict(ok));
	}
	if (pid < 0) {
		errno = -pid;
		xcomp_error(x, "fork");
		return false;
	}
	ok = xcomp_same_state(x, "of its parent", pattern, saved);
	return ok & (waitpid(pid, &status, 0) == pid && !status);
}

/* Verify that a child starts with the registers of its parent. */
static int check_fork(struct xcomp *x)
{
	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	return xcomp_verdict(xcomp_rule(x, fork_with_pattern(x),
		"a child starts with its parent's registers"));
}

/* Verify the same where other tasks have the CPU while fork() is at work. */
static int check_fork_busy(struct xcomp *x)
{
	bool ok = true;
	uint8_t *p;
	pid_t hog;
	int i;

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	if (xcomp_pin() < 0)
		return xcomp_error(x, "sched_setaffinity");
	p = mmap(NULL, BUSY_MEMORY, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return xcomp_error(x, "mmap");
	madvise(p, BUSY_MEMORY, MADV_NOHUGEPAGE);
	hog = xcomp_hog();
	memset(p, 1, BUSY_MEMORY);
	for (i = 0; i < BUSY_FORKS && ok; i++)
		ok = fork_with_pattern(x);
	xcomp_kill_hog(hog);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a child starts with no other task's registers"));
}

static uint16_t read_fcw(void)
{
	uint16_t fcw;

	asm volatile("fnstcw %0" : "=m" (fcw));
	return fcw;
}

/* The registers that neither compiler nor library touch are initial. */
static bool is_initial(struct xcomp *x, const char *whose)
{
	bool ok;

	ok = xcomp_same(x, "FCW", XCOMP_INITIAL_FCW, read_fcw());
	ok &= xcomp_same(x, "MXCSR", XCOMP_INITIAL_MXCSR, task_mxcsr());
	if (task_has_pkru())
		ok &= xcomp_same(x, "PKRU", initial_pkru, task_rdpkru());
	return xcomp_rule(x, ok, whose);
}

static int check_after_exec(struct xcomp *x)
{
	const char *pkru = getenv("XSTATE_TASK_PKRU");

	/* What PKRU was when this program started is what is to be tested. */
	if (task_has_pkru() && pkru) {
		if (!xcomp_same(x, "PKRU of a new program", atol(pkru),
				initial_pkru))
			return KSFT_FAIL;
	}
	return xcomp_verdict(is_initial(x, "a new program starts afresh"));
}

static const struct xcomp_check exec_check = { "exec", check_after_exec };

static int exec_with_state(struct xcomp *x, const struct xcomp_check *check,
			   int fd)
{
	const uint32_t mxcsr = TASK_MXCSR;
	const uint16_t fcw = 0x77f;
	char text[16];

	snprintf(text, sizeof(text), "%u", initial_pkru);
	setenv("XSTATE_TASK_PKRU", text, 1);
	asm volatile("fldcw %0; ldmxcsr %1" : : "m" (fcw), "m" (mxcsr));
	if (task_has_pkru())
		task_wrpkru(TASK_PKRU_MINE);
	return xcomp_exec(x, check, fd);
}

/* Verify that execve() resets the registers. */
static int check_exec(struct xcomp *x)
{
	return xcomp_fork(x, &exec_check, exec_with_state);
}

static struct {
	uint16_t fcw;
	uint32_t mxcsr;
	uint32_t pkru;
	uint32_t pkru_in_frame;
} seen;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint8_t *area = (uint8_t *)uc->uc_mcontext.fpregs;

	(void)sig;
	(void)info;
	seen.fcw = read_fcw();
	seen.mxcsr = task_mxcsr();
	if (task_has_pkru()) {
		seen.pkru = task_rdpkru();
		memcpy(&seen.pkru_in_frame, area + xf_cpuid(0xd, XF_PKRU).ebx,
		       4);
	}
}

/*
 * Verify that a handler starts with initial registers, finds in its frame the
 * PKRU of what it interrupts, and that nothing of that is changed afterwards.
 */
static int check_signal(struct xcomp *x)
{
	const struct sigaction action = {
		.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO,
	};
	uint8_t *pattern, *saved;
	uint32_t pkru = 0;
	bool ok;

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	pattern = xcomp_pattern();
	saved = xcomp_area();
	sigaction(SIGUSR1, &action, NULL);
	xcomp_call_between(pattern, saved, SYS_kill, getpid(), SIGUSR1);
	ok = xcomp_same_state(x, "once a handler has run", pattern, saved);
	ok &= xcomp_same(x, "FCW of a handler", XCOMP_INITIAL_FCW, seen.fcw);
	ok &= xcomp_same(x, "MXCSR of a handler", XCOMP_INITIAL_MXCSR, seen.mxcsr);
	if (task_has_pkru()) {
		memcpy(&pkru, pattern + xf_cpuid(0xd, XF_PKRU).ebx,
		       sizeof(pkru));
		ok &= xcomp_same(x, "PKRU of a handler", initial_pkru,
				 seen.pkru);
		ok &= xcomp_same(x, "PKRU in the frame", pkru,
				 seen.pkru_in_frame);
	}
	return xcomp_verdict(xcomp_rule(x, ok,
		"a signal changes no register, and its handler starts afresh"));
}

/* Keep the CPU and watch PKRU, until killed. */
static void hold_pkru(void)
{
	task_wrpkru(TASK_PKRU_THEIRS);
	while (task_rdpkru() == TASK_PKRU_THEIRS)
		;
	_exit(KSFT_FAIL);
}

/* Verify that two tasks on one CPU each have a PKRU of their own. */
static int check_two_tasks(struct xcomp *x)
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	bool ok = true;
	int i, status;
	pid_t pid;

	if (!task_has_pkru())
		return xcomp_skip(x, "no protection keys");
	if (xcomp_pin() < 0)
		return xcomp_error(x, "sched_setaffinity");
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return xcomp_error(x, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		hold_pkru();
	}
	for (i = 0; i < TURNS; i++) {
		task_wrpkru(TASK_PKRU_MINE + i * 4);
		nanosleep(&nap, NULL);
		ok &= xcomp_same(x, "PKRU beside another task",
				 TASK_PKRU_MINE + i * 4, task_rdpkru());
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	ok &= xcomp_same(x, "the other task kept its PKRU", true,
			 WIFSIGNALED(status));
	return xcomp_verdict(xcomp_rule(x, ok,
		"a task has its own PKRU, whoever has the CPU meanwhile"));
}

static sigjmp_buf after_sigill;

static void on_sigill(int sig)
{
	(void)sig;
	siglongjmp(after_sigill, 1);
}

/*
 * Verify that an #NM leaves nothing in IA32_XFD_ERR, whether the task gets AMX
 * or SIGILL: the next task, or guest, would find it there.
 */
static int check_xfd_err(struct xcomp *x)
{
	uint64_t refused, granted;
	bool ok;
	int fd;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	fd = xcomp_open_msrs(O_RDONLY);
	if (fd < 0)
		return xcomp_skip(x, "no /dev/cpu/N/msr");
	signal(SIGILL, on_sigill);
	if (!sigsetjmp(after_sigill, 1))
		xf_use_amx();
	ok = pread(fd, &refused, 8, TASK_MSR_XFD_ERR) == 8;
	ok &= xcomp_request(x, false);
	xf_use_amx();
	ok &= pread(fd, &granted, 8, TASK_MSR_XFD_ERR) == 8;
	if (!ok)
		return xcomp_error(x, "reading IA32_XFD_ERR");
	ok &= xcomp_same(x, "IA32_XFD_ERR after SIGILL", 0, refused);
	ok &= xcomp_same(x, "IA32_XFD_ERR after a first use of AMX", 0,
			 granted);
	return xcomp_verdict(xcomp_rule(x, ok, "#NM leaves IA32_XFD_ERR clear"));
}

static const struct xcomp_check checks[] = {
	{ "fork", check_fork },
	{ "fork_busy", check_fork_busy },
	{ "exec", check_exec },
	{ "signal", check_signal },
	{ "two_tasks", check_two_tasks },
	{ "ptrace_pkru", task_check_ptrace_pkru },
	{ "ptrace_mxcsr", task_check_ptrace_mxcsr },
	{ "ptrace_initial", task_check_ptrace_initial },
	{ "ptrace_fx", task_check_ptrace_fx },
	{ "ptrace_refused", task_check_ptrace_refused },
	{ "ptrace_ssp", task_check_ptrace_ssp },
	{ "xfd_err", check_xfd_err },
	{ "guest_ssp", task_check_guest_ssp },
	{ "freed", task_check_freed },
};

static const struct xcomp_check *const after_exec[] = { &exec_check, NULL };

int main(int argc, char **argv)
{
	if (task_has_pkru())
		initial_pkru = task_rdpkru();
	return xcomp_host_main(argc, argv, checks, ARRAY_SIZE(checks),
			       after_exec, false);
}
