// SPDX-License-Identifier: GPL-2.0-only
/*
 * The components of a host task's fpstate, as the tracepoint
 * x86_fpu:x86_fpu_regs_activated shows them: PASID and CET_USER always, if CPU
 * and kernel have them, XTILE_DATA once the thread itself has used AMX, and
 * CET_KERNEL, which only guests have, never.
 *
 * The fpstates of vCPUs, and those of the host around KVM_RUN, are looked at
 * by xcomp_check_xcomp_bv() in xcomp_vcpu_checks.h, which the KVM selftest
 * xstate_perm_test and xcomp_guest_perm run in each combination. They stay
 * there since what they must be depends on guest CPUID, of which those programs
 * have every combination. Here is what takes no vCPU: all but one row of this
 * program run without KVM. Needs root and tracefs.
 */
#define _GNU_SOURCE

#include "xcomp_host.h"
#include "xcomp_vcpu_checks.h"

static void on_signal(int sig)
{
	(void)sig;
}

static int begin(struct xcomp *x)
{
	if (!xf_trace_dir[0])
		return xcomp_skip(x, xf_trace_reason);
	if (!xf_cpuinfo_flag("xsaves"))
		return xcomp_skip(x, "the kernel does not use XSAVES");
	signal(SIGUSR1, on_signal);
	return KSFT_PASS;
}

/*
 * Compare the calling thread's fpstate with what it must carry. To deliver a
 * signal the kernel resets registers, and says of which fpstate.
 */
static bool fpstate_is(struct xcomp *x, const char *whose, bool used)
{
	struct xf_traced got;
	bool done;

	if (xf_trace_record_task(true)) {
		xcomp_error(x, "recording a trace");
		return false;
	}
	raise(SIGUSR1);
	xf_trace_record_task(false);
	done = !xf_trace_last(&got);
	return xcomp_same(x, "fpstate in the trace", true, done) &&
	       xcomp_same_fpstate(x, whose, false, used, &got);
}

/* Verify the fpstate before and after the guest's permission. */
static int check_guest(struct xcomp *x)
{
	int result = begin(x);
	bool ok;

	if (result)
		return result;
	ok = fpstate_is(x, "a task without permission", false);
	ok &= xcomp_request(x, true);
	ok &= fpstate_is(x, "a task with the guest's permission", false);
	return xcomp_verdict(xcomp_rule(x, ok,
		"the guest's permission leaves the host's fpstate alone"));
}

/* Verify that the host's permission alone does not change the fpstate. */
static int check_host(struct xcomp *x)
{
	int result = begin(x);
	bool ok;

	if (result)
		return result;
	ok = xcomp_request(x, false);
	ok &= fpstate_is(x, "a task with the host's permission", false);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a permission that is not used leaves the fpstate alone"));
}

/*
 * Verify that the first use of AMX adds XTILE_DATA and drops nothing, and that
 * this stays so when the guest's permission comes and when other tasks run.
 */
static int check_use(struct xcomp *x)
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	int result = begin(x);
	pid_t hog;
	bool ok;

	if (!result && !x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (result)
		return result;
	xcomp_pin();
	ok = xcomp_request(x, false);
	xf_use_amx();
	ok &= fpstate_is(x, "a task that has used AMX", true);
	ok &= xcomp_request(x, true);
	ok &= fpstate_is(x, "the same with both permissions", true);
	hog = xcomp_hog();
	nanosleep(&nap, NULL);
	nanosleep(&nap, NULL);
	xcomp_kill_hog(hog);
	ok &= fpstate_is(x, "the same once another task has run", true);
	return xcomp_verdict(xcomp_rule(x, ok,
		"the fpstate grows by XTILE_DATA and loses nothing"));
}

struct thread_result {
	struct xcomp *x;
	bool ok;
};

static void *use_in_thread(void *arg)
{
	struct thread_result *r = arg;

	r->ok = fpstate_is(r->x, "a new thread", false);
	xf_use_amx();
	r->ok &= fpstate_is(r->x, "a thread that has used AMX", true);
	return NULL;
}

/* Verify that each thread gets XTILE_DATA by its own first use. */
static int check_thread(struct xcomp *x)
{
	struct thread_result r = { .x = x };
	int result = begin(x);
	bool ok;

	if (!result && !x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (result)
		return result;
	ok = xcomp_request(x, false);
	ok &= xcomp_thread(x, use_in_thread, &r) && r.ok;
	ok &= fpstate_is(x, "a task of which a thread has used AMX", false);
	xf_use_amx();
	ok &= xcomp_thread(x, use_in_thread, &r) && r.ok;
	ok &= fpstate_is(x, "a task that has used AMX", true);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a thread's fpstate grows when that thread uses AMX"));
}

static int use_in_child(struct xcomp *x)
{
	bool ok = fpstate_is(x, "a child of a task that has used AMX", false);

	xf_use_amx();
	return xcomp_verdict(ok & fpstate_is(x, "a child that has used AMX",
					     true));
}

/* Verify that a child starts with a small fpstate, and that it can grow. */
static int check_fork(struct xcomp *x)
{
	int result = begin(x);
	bool ok;

	if (!result && !x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (result)
		return result;
	ok = xcomp_request(x, false);
	xf_use_amx();
	ok &= xcomp_sub(x, use_in_child);
	ok &= fpstate_is(x, "the parent", true);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a child's fpstate is small until it uses AMX"));
}

static int check_after_exec(struct xcomp *x)
{
	int result = begin(x);

	return result ?: xcomp_verdict(fpstate_is(x, "a new program", false));
}

static const struct xcomp_check exec_check = { "exec", check_after_exec };

static int exec_after_use(struct xcomp *x, const struct xcomp_check *check,
			  int fd)
{
	if (!xcomp_request(x, false))
		return KSFT_FAIL;
	if (x->have_amx)
		xf_use_amx();
	return xcomp_exec(x, check, fd);
}

/* Verify that a new program starts with a small fpstate. */
static int check_exec(struct xcomp *x)
{
	int result = begin(x);

	if (!result)
		result = xcomp_fork(x, &exec_check, exec_after_use);
	xcomp_rule(x, result != KSFT_FAIL, "execve() makes the fpstate small");
	return result;
}

/* Verify that a vCPU with AMX and CET leaves its task's fpstate alone. */
static int check_vcpu(struct xcomp *x)
{
	int result = begin(x);
	bool ok;

	if (result)
		return result;
	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	x->amx = x->have_amx;
	ok = xcomp_request(x, true);
	result = xcomp_vcpu(x);
	if (result)
		return result;
	ok &= xcomp_write_msrs(x);
	ok &= fpstate_is(x, "the task of a vCPU with AMX and CET", false);
	ok &= xkvm_run_immediate_exit(x->kvm, x->vcpu);
	ok &= fpstate_is(x, "the same after KVM_RUN", false);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a vCPU leaves its task's fpstate alone"));
}

static const struct xcomp_check checks[] = {
	{ "guest", check_guest },
	{ "host", check_host },
	{ "use", check_use },
	{ "thread", check_thread },
	{ "fork", check_fork },
	{ "exec", check_exec },
	{ "vcpu", check_vcpu },
};

static const struct xcomp_check *const after_exec[] = { &exec_check, NULL };

int main(int argc, char **argv)
{
	xf_trace_tasks_only = true;
	return xcomp_host_main(argc, argv, checks, ARRAY_SIZE(checks),
			       after_exec, true);
}
