/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checks of what the kernel hands to a debugger of a task's XSAVE state and
 * takes from it: NT_X86_XSTATE, NT_PRFPREG and NT_X86_SHSTK.
 */
#ifndef SELFTESTS_X86_XSTATE_TASK_PTRACE_H
#define SELFTESTS_X86_XSTATE_TASK_PTRACE_H

#include "xcomp_frame_regs.h"
#include "xstate_task.h"

#define TASK_NT_PRFPREG		2
#define TASK_NT_SHSTK		0x204

/* FXSAVE's area: SDM, "Layout of the FXSAVE Area" */
#define TASK_FX_SIZE		512

/* What a child that is traced finds after each stop, in shared memory */
struct task_traced {
	uint32_t pkru;
	uint32_t mxcsr;
	uint64_t ssp;
};

static inline void task_is_traced(struct xcomp *x, struct task_traced *t)
{
	(void)x;
	if (task_has_pkru())
		task_wrpkru(TASK_PKRU_MINE);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(KSFT_SKIP);
	for (;;) {
		raise(SIGSTOP);
		t->pkru = task_has_pkru() ? task_rdpkru() : 0;
		t->mxcsr = task_mxcsr();
	}
}

/*
 * Start a child that is @body, and wait until it stops. Return -1 if that fails,
 * and 0 if the child must not be traced.
 */
static inline pid_t task_trace(struct xcomp *x, struct task_traced **t,
			       void (*body)(struct xcomp *x,
					    struct task_traced *t))
{
	int status;
	pid_t pid;

	*t = mmap(NULL, sizeof(**t), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (*t == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body(x, *t);
	}
	if (pid > 0 && waitpid(pid, &status, 0) == pid) {
		if (WIFSTOPPED(status))
			return pid;
		if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
			return 0;
	}
	xcomp_error(x, "waiting for a child to stop");
	return -1;
}

static inline bool task_regset(struct xcomp *x, pid_t pid, bool set,
			       uint8_t *area)
{
	size_t size = xf_standard_size(xf_xcr0());
	int error = set ? xcomp_set_regset(pid, XCOMP_NT_XSTATE, area, size) :
			  xcomp_get_regset(pid, XCOMP_NT_XSTATE, area, size);

	return xcomp_same_errno(x, set ? "setting NT_X86_XSTATE" :
				"reading NT_X86_XSTATE", 0, error);
}

/* Let the child run until it stops or ends, and say its wait status. */
static inline int task_go_on(pid_t pid)
{
	int status = 0;

	ptrace(PTRACE_CONT, pid, NULL, NULL);
	waitpid(pid, &status, 0);
	return status;
}

/* Let the child set XSTATE_BV and go on to its next stop. */
static inline bool task_step(struct xcomp *x, pid_t pid, uint8_t *area,
			     uint64_t bv)
{
	memcpy(area + XF_HEADER_OFFSET, &bv, sizeof(bv));
	return task_regset(x, pid, true, area) && WIFSTOPPED(task_go_on(pid));
}

static inline void task_end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/*
 * Verify that a debugger sees the PKRU of a task, that what it sets is what the
 * task goes on with, and that PKRU that is not in XSTATE_BV becomes 0.
 */
static inline int task_check_ptrace_pkru(struct xcomp *x)
{
	uint32_t pkru = 0, theirs = TASK_PKRU_THEIRS;
	struct task_traced *t;
	uint8_t *area, *at;
	uint64_t bv;
	bool ok;
	pid_t pid;

	if (!task_has_pkru())
		return xcomp_skip(x, "no protection keys");
	area = xcomp_area();
	at = area + xf_cpuid(0xd, XF_PKRU).ebx;
	pid = task_trace(x, &t, task_is_traced);
	if (!pid)
		return xcomp_skip(x, XCOMP_NO_PTRACE);
	ok = pid > 0 && task_regset(x, pid, false, area);
	memcpy(&bv, area + XF_HEADER_OFFSET, sizeof(bv));
	memcpy(&pkru, at, sizeof(pkru));
	ok &= xcomp_same(x, "PKRU that a debugger sees", TASK_PKRU_MINE, pkru);
	memcpy(at, &theirs, sizeof(theirs));
	ok = ok && task_step(x, pid, area, bv | XF_BIT(XF_PKRU));
	ok &= xcomp_same(x, "PKRU that a debugger has set", theirs, t->pkru);
	ok = ok && task_step(x, pid, area, bv & ~XF_BIT(XF_PKRU));
	ok &= xcomp_same(x, "PKRU that a debugger has left out", 0, t->pkru);
	if (pid > 0)
		task_end(pid);
	return xcomp_verdict(xcomp_rule(x, ok,
		"NT_X86_XSTATE shows and sets PKRU as XSAVE and XRSTOR do"));
}

/* Verify that MXCSR goes with SSE and AVX state, with x87 state or without. */
static inline int task_check_ptrace_mxcsr(struct xcomp *x)
{
	const uint32_t initial = XCOMP_INITIAL_MXCSR, wanted = TASK_MXCSR;
	const uint32_t another = TASK_MXCSR_THEIRS;
	uint32_t got = 0;
	struct task_traced *t;
	uint8_t *area;
	bool ok;
	pid_t pid;

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	area = xcomp_area();
	pid = task_trace(x, &t, task_is_traced);
	if (!pid)
		return xcomp_skip(x, XCOMP_NO_PTRACE);
	ok = pid > 0;
	memcpy(area + XCOMP_MXCSR_OFFSET, &wanted, sizeof(wanted));
	ok = ok && task_step(x, pid, area, XF_BIT(XF_SSE));
	ok &= xcomp_same(x, "MXCSR set along with SSE", wanted, t->mxcsr);
	ok = ok && task_step(x, pid, area, 0);
	ok &= xcomp_same(x, "MXCSR left out", initial, t->mxcsr);
	if (xf_xcr0() & XF_BIT(XF_YMM)) {
		uint64_t bv = XF_BIT(XF_YMM);

		/* Memory may still have what was set along with SSE. */
		memcpy(area + XCOMP_MXCSR_OFFSET, &another, sizeof(another));
		memcpy(area + XF_HEADER_OFFSET, &bv, sizeof(bv));
		ok = ok && task_regset(x, pid, true, area) &&
		     task_regset(x, pid, false, area);
		memcpy(&got, area + XCOMP_MXCSR_OFFSET, sizeof(got));
		ok &= xcomp_same(x, "MXCSR set along with AVX", another, got);
	}
	if (pid > 0)
		task_end(pid);
	return xcomp_verdict(xcomp_rule(x, ok,
		"MXCSR belongs to SSE and AVX state"));
}

/* @pattern with every component but @nr as it is initially; PKRU is left out. */
static inline void task_only(uint8_t *area, const uint8_t *pattern, int nr)
{
	const uint32_t mxcsr = XCOMP_INITIAL_MXCSR;
	const uint16_t fcw = XCOMP_INITIAL_FCW;
	uint64_t bv = XF_BIT(nr);
	struct xf_regs r;

	memset(area, 0, xf_standard_size(xf_xcr0()));
	memcpy(area, &fcw, sizeof(fcw));
	memcpy(area + XCOMP_MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
	memcpy(area + XF_HEADER_OFFSET, &bv, sizeof(bv));
	if (nr == XF_SSE || nr == XF_YMM)
		memcpy(area + XCOMP_MXCSR_OFFSET, pattern + XCOMP_MXCSR_OFFSET,
		       sizeof(mxcsr));
	if (nr == XF_FP) {
		memcpy(area, pattern, XCOMP_MXCSR_OFFSET);
		memcpy(area + XCOMP_ST_OFFSET, pattern + XCOMP_ST_OFFSET,
		       XCOMP_XMM_OFFSET - XCOMP_ST_OFFSET);
	} else if (nr == XF_SSE) {
		memcpy(area + XCOMP_XMM_OFFSET, pattern + XCOMP_XMM_OFFSET,
		       XCOMP_XMM_SIZE);
	} else {
		r = xf_cpuid(0xd, nr);
		memcpy(area + r.ebx, pattern + r.ebx, r.eax);
	}
}

/*
 * Verify of each component that it can be the only one in XSTATE_BV: a debugger
 * sees it, and all others as they are initially, whatever they were before.
 */
static inline int task_check_ptrace_initial(struct xcomp *x)
{
	uint64_t mask = xcomp_pattern_mask() & ~XF_BIT(XF_PKRU), bv;
	uint8_t *pattern, *wanted, *got;
	struct task_traced *t;
	bool ok;
	pid_t pid;
	int i;

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	pattern = xcomp_pattern();
	wanted = xcomp_area();
	got = xcomp_area();
	pid = task_trace(x, &t, task_is_traced);
	if (!pid)
		return xcomp_skip(x, XCOMP_NO_PTRACE);
	ok = pid > 0;
	for (i = 0; i < 63 && ok; i++) {
		if (!(mask & XF_BIT(i)))
			continue;
		task_only(wanted, pattern, i);
		ok = task_regset(x, pid, true, pattern) &&
		     task_regset(x, pid, true, wanted) &&
		     task_regset(x, pid, false, got);
		memcpy(&bv, got + XF_HEADER_OFFSET, sizeof(bv));
		ok &= xcomp_same(x, "XSTATE_BV that a debugger sees",
				 XF_BIT(i), bv & mask);
		ok &= xcomp_same_state_of(x, mask, "that a debugger sees",
					  wanted, got);
	}
	if (pid > 0)
		task_end(pid);
	return xcomp_verdict(xcomp_rule(x, ok,
		"NT_X86_XSTATE shows initial values of what is not in XSTATE_BV"));
}

/*
 * Verify that a debugger's NT_PRFPREG is the x87 and SSE state that
 * NT_X86_XSTATE has too, and sets that and nothing else.
 */
static inline int task_check_ptrace_fx(struct xcomp *x)
{
	const uint32_t wanted = TASK_MXCSR;
	uint8_t xmm[XCOMP_XMM_SIZE], fx[TASK_FX_SIZE], *area;
	uint64_t bv = XF_BIT(XF_YMM);
	struct task_traced *t;
	bool ok;
	pid_t pid;

	if (!(xf_xcr0() & bv))
		return xcomp_skip(x, "no AVX");
	area = xcomp_area();
	memset(xmm, 0x5e, sizeof(xmm));
	memset(area + xf_cpuid(0xd, XF_YMM).ebx, 0xc3, XCOMP_XMM_SIZE);
	pid = task_trace(x, &t, task_is_traced);
	if (!pid)
		return xcomp_skip(x, XCOMP_NO_PTRACE);
	/* Only AVX is in use, x87 and SSE are initial. */
	ok = pid > 0 && task_step(x, pid, area, 0);
	memcpy(area + XF_HEADER_OFFSET, &bv, sizeof(bv));
	ok = ok && task_regset(x, pid, true, area);
	ok &= xcomp_same_errno(x, "PTRACE_GETREGSET of NT_PRFPREG", 0,
			       xcomp_get_regset(pid, TASK_NT_PRFPREG, fx,
						sizeof(fx)));
	memcpy(fx + XCOMP_MXCSR_OFFSET, &wanted, sizeof(wanted));
	memcpy(fx + XCOMP_XMM_OFFSET, xmm, sizeof(xmm));
	ok &= xcomp_same_errno(x, "PTRACE_SETREGSET of NT_PRFPREG", 0,
			       xcomp_set_regset(pid, TASK_NT_PRFPREG, fx,
						sizeof(fx)));
	memset(fx, 0, sizeof(fx));
	xcomp_get_regset(pid, TASK_NT_PRFPREG, fx, sizeof(fx));
	ok &= xcomp_same_bytes(x, "XMM", "in NT_PRFPREG", xmm,
			       fx + XCOMP_XMM_OFFSET, sizeof(xmm));
	ok = ok && task_regset(x, pid, false, area);
	memcpy(&bv, area + XF_HEADER_OFFSET, sizeof(bv));
	ok &= xcomp_same(x, "XSTATE_BV", XF_FPSSE | XF_BIT(XF_YMM),
			 bv & (XF_FPSSE | XF_BIT(XF_YMM)));
	ok &= xcomp_same_bytes(x, "XMM", "in NT_X86_XSTATE", xmm,
			       area + XCOMP_XMM_OFFSET, sizeof(xmm));
	ok &= xcomp_same(x, "YMM0 as before", 0xc3,
			 area[xf_cpuid(0xd, XF_YMM).ebx]);
	ok = ok && WIFSTOPPED(task_go_on(pid));
	ok &= xcomp_same(x, "MXCSR that a debugger has set", wanted, t->mxcsr);
	if (pid > 0)
		task_end(pid);
	return xcomp_verdict(xcomp_rule(x, ok,
		"NT_PRFPREG is the x87 and SSE state of NT_X86_XSTATE"));
}

/* SDM, "Guidelines for Writing to the MXCSR Register" */
static inline uint32_t task_mxcsr_mask(void)
{
	uint8_t *fx = xcomp_area();
	uint32_t mask;

	asm volatile("fxsave (%0)" : : "r" (fx) : "memory");
	memcpy(&mask, fx + XCOMP_MXCSR_OFFSET + 4, sizeof(mask));
	return mask ? mask : 0xffbf;
}

/*
 * A regset with each reserved bit of MXCSR, with all others, with fewer bytes, and
 * as it was
 */
static inline bool task_refuses(struct xcomp *x, pid_t pid, int type,
				uint8_t *area, size_t size, int short_errno)
{
	uint32_t supported = task_mxcsr_mask(), mxcsr, bad, now;
	bool ok = true;
	int i;

	memcpy(&mxcsr, area + XCOMP_MXCSR_OFFSET, sizeof(mxcsr));
	for (i = 0; i < 32; i++) {
		bad = mxcsr | 1u << i;
		if (supported & 1u << i)
			continue;
		memcpy(area + XCOMP_MXCSR_OFFSET, &bad, sizeof(bad));
		ok &= xcomp_same_errno(x, "setting a reserved bit of MXCSR",
				       EINVAL,
				       xcomp_set_regset(pid, type, area, size));
	}
	memcpy(area + XCOMP_MXCSR_OFFSET, &supported, sizeof(supported));
	ok &= xcomp_same_errno(x, "setting all other bits of MXCSR", 0,
			       xcomp_set_regset(pid, type, area, size));
	memcpy(area + XCOMP_MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
	ok &= xcomp_same_errno(x, "setting what was there", 0,
			       xcomp_set_regset(pid, type, area, size));
	ok &= xcomp_same_errno(x, "setting less than all", short_errno,
			       xcomp_set_regset(pid, type, area, size - 8));
	ok &= xcomp_same_errno(x, "PTRACE_GETREGSET", 0,
			       xcomp_get_regset(pid, type, area, size));
	memcpy(&now, area + XCOMP_MXCSR_OFFSET, sizeof(now));
	return ok & xcomp_same(x, "MXCSR after what was refused", mxcsr, now);
}

/*
 * Verify that no reserved bit of MXCSR gets in: XRSTOR would fault on it when
 * the task runs again.
 */
static inline int task_check_ptrace_refused(struct xcomp *x)
{
	size_t size = xf_standard_size(xf_xcr0());
	struct task_traced *t;
	uint8_t *area;
	uint64_t bv;
	bool ok;
	pid_t pid;

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	area = xcomp_area();
	pid = task_trace(x, &t, task_is_traced);
	if (!pid)
		return xcomp_skip(x, XCOMP_NO_PTRACE);
	ok = pid > 0 && task_regset(x, pid, false, area);
	memcpy(&bv, area + XF_HEADER_OFFSET, sizeof(bv));
	bv |= XF_BIT(XF_SSE);
	memcpy(area + XF_HEADER_OFFSET, &bv, sizeof(bv));
	ok = ok && task_refuses(x, pid, XCOMP_NT_XSTATE, area, size, EFAULT) &&
	     task_refuses(x, pid, TASK_NT_PRFPREG, area, TASK_FX_SIZE, EINVAL);
	if (pid > 0)
		task_end(pid);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a debugger sets any state but one that XRSTOR would fault on"));
}

/*
 * Tell the SSP at each stop. Does not return, as its caller has no shadow stack,
 * and calls nothing, as it may run on another one after a stop.
 */
static inline __noreturn void task_trap_on_shadow_stack(struct task_traced *t)
{
	for (;;)
		asm volatile("xor %%eax, %%eax\n\t"
			     XCOMP_RDSSP
			     "mov %%rax, (%0)\n\t"
			     "int3"
			     : : "r" (&t->ssp) : "rax", "memory");
}

static inline void task_traced_with_ssp(struct xcomp *x, struct task_traced *t)
{
	if (x->have_amx && !xcomp_request(x, false))
		_exit(KSFT_FAIL);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(KSFT_SKIP);
	raise(SIGSTOP);
	if (!xcomp_enable_shadow_stack())
		_exit(KSFT_SKIP);
	if (x->have_amx)
		xf_use_amx();
	task_trap_on_shadow_stack(t);
}

/* A child that has stopped with a shadow stack: what can be read and set */
static inline bool task_ssp_is(struct xcomp *x, pid_t pid, struct task_traced *t)
{
	const uint64_t ssp = t->ssp, bad[] = {
		ssp + 1, ssp + 4, 1ull << 63, ~0ull << 47 & ~7ull, ~7ull
	};
	uint64_t value = 0, next = ssp - 8;
	uint8_t *area = xcomp_area();
	unsigned int i;
	bool ok;

	ok = xcomp_same_errno(x, "reading NT_X86_SHSTK", 0,
			      xcomp_get_regset(pid, TASK_NT_SHSTK, &value, 8));
	ok &= xcomp_same(x, "SSP that a debugger sees", ssp, value);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		value = bad[i];
		ok &= xcomp_same_errno(x, "setting an SSP that cannot be",
				       EINVAL,
				       xcomp_set_regset(pid, TASK_NT_SHSTK,
							&value, 8));
	}
	xcomp_get_regset(pid, TASK_NT_SHSTK, &value, 8);
	ok &= xcomp_same(x, "SSP after what was refused", ssp, value);

	ok &= xcomp_same_errno(x, "setting NT_X86_SHSTK", 0,
			       xcomp_set_regset(pid, TASK_NT_SHSTK, &next, 8));
	ok &= xcomp_same(x, "the child stops again", SIGTRAP,
			 WSTOPSIG(task_go_on(pid)));
	ok &= xcomp_same(x, "SSP that a debugger has set", next, t->ssp);
	/* XSTATE_BV is 0: all that XCR0 has becomes initial. */
	ok &= task_regset(x, pid, true, area);
	ok &= xcomp_same(x, "the child stops once more", SIGTRAP,
			 WSTOPSIG(task_go_on(pid)));
	return ok & xcomp_same(x, "SSP after NT_X86_XSTATE was set", next,
			       t->ssp);
}

/*
 * Verify that a debugger sees and sets the SSP in a task's CET_USER, but none
 * that would fault in the kernel, that a task without shadow stack has none, and
 * that NT_X86_XSTATE leaves CET_USER alone. The task has used AMX, if it can.
 */
static inline int task_check_ptrace_ssp(struct xcomp *x)
{
	struct task_traced *t;
	uint64_t value;
	bool ok = true;
	int status;
	pid_t pid;

	pid = task_trace(x, &t, task_traced_with_ssp);
	if (!pid)
		return xcomp_skip(x, XCOMP_NO_PTRACE);
	if (pid < 0)
		return KSFT_FAIL;
	status = xcomp_get_regset(pid, TASK_NT_SHSTK, &value, 8);
	if (status != EINVAL)
		ok &= xcomp_same_errno(x, "reading NT_X86_SHSTK without one",
				       ENODEV, status);
	status = task_go_on(pid);
	if (ok && WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		return xcomp_skip(x, "no user shadow stacks");
	ok &= xcomp_same(x, "the child stops with a shadow stack", SIGTRAP,
			 WIFSTOPPED(status) ? WSTOPSIG(status) : 0);
	ok = ok && task_ssp_is(x, pid, t);
	task_end(pid);
	return xcomp_verdict(xcomp_rule(x, ok,
		"NT_X86_SHSTK is the SSP of a task with a shadow stack"));
}

#endif /* SELFTESTS_X86_XSTATE_TASK_PTRACE_H */
