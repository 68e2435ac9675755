// SPDX-License-Identifier: GPL-2.0-only
/*
 * PASID is state of the host's task. The kernel must keep it through whatever
 * happens to the task's fpstate: AMX permissions, the larger fpstate that comes
 * with AMX, vCPUs with AMX and CET, and KVM_RUN, which swaps fpstates. It must
 * not hand it to children, to other tasks, or to the guest.
 *
 * Only an ENQCMD with shared virtual addressing makes the kernel write
 * IA32_PASID, for which few machines have the devices. Here the msr driver
 * writes it: on the task's own CPU, with the task's state in the registers, it
 * becomes part of that state. The value is not marked valid, so that ENQCMD
 * would refuse it. Needs root, and a CPU and a kernel with PASID state.
 */
#define _GNU_SOURCE

#include <sys/ptrace.h>
#include <sys/uio.h>

#include "xstate_pasid_kvm.h"
#include "xstate_pasid_signal.h"

#define NT_XSTATE	0x202

/* Verify that the kernel saves and restores PASID at all. */
static int check_xss(struct xcomp *x)
{
	int result = pasid_begin(x);
	uint64_t xss;

	if (result)
		return result;
	if (pread(pasid_msr, &xss, sizeof(xss), XF_MSR_XSS) != 8)
		return xcomp_error(x, "reading IA32_XSS");
	return xcomp_verdict(xcomp_same(x, "PASID in the host's IA32_XSS",
					XF_BIT(XF_PASID),
					xss & XF_BIT(XF_PASID)));
}

static int do_nothing(struct xcomp *x)
{
	(void)x;
	return KSFT_PASS;
}

static int check_scheduled(struct xcomp *x)
{
	return pasid_keeps(x, NULL, do_nothing, "a task keeps its PASID");
}

static uint64_t seen_by_handler;

static void on_signal(int sig)
{
	(void)sig;
	seen_by_handler = pasid_read();
}

static int take_signals(struct xcomp *x)
{
	bool ok = true;
	int i;

	signal(SIGUSR1, on_signal);
	for (i = 0; i < PASID_TURNS; i++) {
		raise(SIGUSR1);
		ok &= xcomp_same(x, "IA32_PASID in the handler", PASID_MINE,
				 seen_by_handler);
	}
	return xcomp_verdict(ok);
}

static int check_signal(struct xcomp *x)
{
	return pasid_keeps(x, NULL, take_signals,
			   "signals do not touch the PASID");
}

static int traced(struct xcomp *x)
{
	int result = pasid_write(x, PASID_MINE);

	if (result)
		return KSFT_FAIL;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return KSFT_SKIP;
	raise(SIGSTOP);
	return xcomp_verdict(pasid_is(x, PASID_MINE, "after PTRACE_SETREGSET"));
}

/* Verify that a debugger that writes the XSAVE state leaves PASID alone. */
static int check_ptrace(struct xcomp *x)
{
	struct iovec iov = { .iov_len = xf_standard_size(xf_xcr0()) };
	int status, result = pasid_begin(x);
	bool ok = true;
	pid_t pid;

	if (result)
		return result;
	iov.iov_base = xf_guarded(iov.iov_len, 0);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return xcomp_error(x, "fork");
	if (!pid) {
		result = traced(x);
		fflush(stdout);
		_exit(result);
	}
	if (waitpid(pid, &status, 0) != pid)
		return xcomp_error(x, "waitpid");
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		return xcomp_skip(x, XCOMP_NO_PTRACE);
	if (!WIFSTOPPED(status))
		return xcomp_error(x, "waiting for a child to stop");
	if (ptrace(PTRACE_GETREGSET, pid, NT_XSTATE, &iov) ||
	    ptrace(PTRACE_SETREGSET, pid, NT_XSTATE, &iov) ||
	    ptrace(PTRACE_CONT, pid, NULL, NULL)) {
		xcomp_error(x, "ptrace");
		ok = false;
		kill(pid, SIGKILL);
	}
	waitpid(pid, &status, 0);
	return xcomp_verdict(xcomp_rule(x, ok && !status,
		"NT_X86_XSTATE does not touch the PASID"));
}

static int request_host(struct xcomp *x)
{
	return xcomp_verdict(xcomp_request(x, false));
}

static int request_guest(struct xcomp *x)
{
	return xcomp_verdict(xcomp_request(x, true));
}

static int check_host_request(struct xcomp *x)
{
	return pasid_keeps(x, NULL, request_host,
			   "the host's permission does not drop PASID");
}

static int check_guest_request(struct xcomp *x)
{
	return pasid_keeps(x, NULL, request_guest,
			   "the guest's permission does not drop PASID");
}

/* Verify the PASID when the task's own fpstate is replaced by a larger one. */
static int check_host_amx(struct xcomp *x)
{
	return pasid_keeps(x, pasid_permit_host, pasid_use_amx,
			   "the fpstate with XTILE_DATA carries PASID");
}

static int has_none(struct xcomp *x)
{
	return xcomp_verdict(pasid_is(x, 0, "of a new task"));
}

/* Verify that a child starts without PASID and its parent keeps it. */
static int check_fork(struct xcomp *x)
{
	int result = pasid_begin(x);
	bool ok;

	if (!result)
		result = pasid_write(x, PASID_MINE);
	if (result)
		return result;
	ok = xcomp_sub(x, has_none);
	ok &= pasid_is(x, PASID_MINE, "of the parent after fork()");
	return xcomp_verdict(xcomp_rule(x, ok, "a child has no PASID"));
}

static void *thread_reads(void *arg)
{
	*(uint64_t *)arg = pasid_read();
	return NULL;
}

/* Verify the same for a thread, which shares all memory with its creator. */
static int check_thread(struct xcomp *x)
{
	int result = pasid_begin(x);
	uint64_t value = 1;
	bool ok;

	if (!result)
		result = pasid_write(x, PASID_MINE);
	if (result)
		return result;
	ok = xcomp_thread(x, thread_reads, &value);
	ok &= xcomp_same(x, "IA32_PASID of a new thread", 0, value);
	ok &= pasid_is(x, PASID_MINE, "of the creator of a thread");
	return xcomp_verdict(xcomp_rule(x, ok, "a thread has no PASID"));
}

static int check_after_exec(struct xcomp *x)
{
	int result = pasid_begin(x);

	return result ?: has_none(x);
}

static const struct xcomp_check exec_check = { "exec", check_after_exec };

static int exec_with_pasid(struct xcomp *x, const struct xcomp_check *check,
			   int fd)
{
	int result = pasid_begin(x);

	if (!result)
		result = pasid_write(x, PASID_MINE);
	return result ?: xcomp_exec(x, check, fd);
}

/* Verify that a PASID goes with the address space that it stands for. */
static int check_exec(struct xcomp *x)
{
	int result = xcomp_fork(x, &exec_check, exec_with_pasid);

	xcomp_rule(x, result != KSFT_FAIL, "execve() takes the PASID away");
	return result;
}

/* Hold a PASID of its own and the CPU, until killed. */
static int hold(struct xcomp *x, int ready)
{
	int result = pasid_begin(x);

	if (!result)
		result = pasid_write(x, PASID_THEIRS);
	if (result || write(ready, "", 1) != 1)
		return KSFT_FAIL;
	while (pasid_is(x, PASID_THEIRS, "of a task beside another one"))
		;
	fflush(stdout);
	return KSFT_FAIL;
}

/*
 * Verify that of two tasks on one CPU each sees its own PASID: the one that
 * has none no other, and the one that has one no other either.
 */
static int check_two_tasks(struct xcomp *x)
{
	const struct timespec nap = { .tv_nsec = 5 * 1000 * 1000 };
	int i, ready[2], result = pasid_begin(x), status;
	bool ok = true;
	char c;
	pid_t pid;

	if (result)
		return result;
	if (pipe(ready))
		return xcomp_error(x, "pipe");
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return xcomp_error(x, "fork");
	if (!pid)
		_exit(hold(x, ready[1]));
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		return xcomp_error(x, "a task with another PASID");
	for (i = 0; i < 2 * PASID_TURNS; i++) {
		if (i == PASID_TURNS && pasid_write(x, PASID_MINE))
			return KSFT_FAIL;
		nanosleep(&nap, NULL);
		ok &= pasid_is(x, i < PASID_TURNS ? 0 : PASID_MINE,
			       "beside another task");
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	ok &= xcomp_same(x, "the other task lived until it was killed", true,
			 WIFSIGNALED(status));
	return xcomp_verdict(xcomp_rule(x, ok,
		"a task sees no PASID but its own"));
}

static const struct xcomp_check checks[] = {
	{ "xss", check_xss },
	{ "scheduled", check_scheduled },
	{ "signal", check_signal },
	{ "sigreturn_waits", pasid_check_sigreturn_waits },
	{ "ptrace", check_ptrace },
	{ "host_request", check_host_request },
	{ "host_amx", check_host_amx },
	{ "guest_request", check_guest_request },
	{ "create_vcpu", pasid_check_create_vcpu },
	{ "set_cpuid", pasid_check_set_cpuid },
	{ "msrs", pasid_check_msrs },
	{ "run", pasid_check_run },
	{ "run_tile", pasid_check_run_tile },
	{ "run_tile_host_amx", pasid_check_run_tile_host_amx },
	{ "guest_interfaces", pasid_check_guest_interfaces },
	{ "guest_fpstate", pasid_check_guest_fpstate },
	{ "fork", check_fork },
	{ "thread", check_thread },
	{ "exec", check_exec },
	{ "two_tasks", check_two_tasks },
};

static const struct xcomp_check *const after_exec[] = { &exec_check, NULL };

int main(int argc, char **argv)
{
	return xcomp_host_main(argc, argv, checks, ARRAY_SIZE(checks),
			       after_exec, !pasid_missing());
}
