/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checks of what the kernel hands to a debugger of a task's XSAVE state and
 * takes from it, and of what it keeps to itself once the task is gone.
 */
#ifndef SELFTESTS_X86_XSTATE_TASK_H
#define SELFTESTS_X86_XSTATE_TASK_H

#include <sys/ptrace.h>
#include <sys/uio.h>

#include "xcomp_regs.h"
#include "xcomp_vcpu.h"

#define TASK_NT_XSTATE		0x202

#define TASK_PKRU_MINE		0x55555500
#define TASK_PKRU_THEIRS	0xaaaaaa00

/* Not the initial one: flush to zero, and another rounding mode */
#define TASK_MXCSR		0xbf80

#define TASK_MSR_XFD_ERR	0x1c5

/* Enough for what is lost to stand out from what the kernel needs anyway */
#define TASK_ROUNDS		64
#define TASK_TRIES		5

static inline bool task_has_pkru(void)
{
	return xf_xcr0() & XF_BIT(XF_PKRU);
}

static inline uint32_t task_rdpkru(void)
{
	uint32_t eax, edx;

	asm volatile(".byte 0x0f, 0x01, 0xee"
		     : "=a" (eax), "=d" (edx) : "c" (0));
	return eax;
}

static inline void task_wrpkru(uint32_t pkru)
{
	asm volatile(".byte 0x0f, 0x01, 0xef"
		     : : "a" (pkru), "c" (0), "d" (0) : "memory");
}

static inline uint32_t task_mxcsr(void)
{
	uint32_t mxcsr;

	asm volatile("stmxcsr %0" : "=m" (mxcsr));
	return mxcsr;
}

/* What a child that is traced finds after each stop, in shared memory */
struct task_traced {
	uint32_t pkru;
	uint32_t mxcsr;
};

static inline void task_is_traced(struct task_traced *t)
{
	if (task_has_pkru())
		task_wrpkru(TASK_PKRU_MINE);
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	for (;;) {
		raise(SIGSTOP);
		t->pkru = task_has_pkru() ? task_rdpkru() : 0;
		t->mxcsr = task_mxcsr();
	}
}

/* Start such a child, and wait until it stops. */
static inline pid_t task_trace(struct xcomp *x, struct task_traced **t)
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
		task_is_traced(*t);
	}
	if (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
		return pid;
	xcomp_error(x, "waiting for a child to stop");
	return -1;
}

static inline bool task_regset(struct xcomp *x, pid_t pid, bool set,
			       uint8_t *area)
{
	struct iovec iov = { area, xf_standard_size(xf_xcr0()) };

	if (!ptrace(set ? PTRACE_SETREGSET : PTRACE_GETREGSET, pid,
		    TASK_NT_XSTATE, &iov))
		return true;
	xcomp_error(x, set ? "PTRACE_SETREGSET" : "PTRACE_GETREGSET");
	return false;
}

/* Let the child set XSTATE_BV and go on to its next stop. */
static inline bool task_step(struct xcomp *x, pid_t pid, uint8_t *area,
			     uint64_t bv)
{
	int status;

	memcpy(area + XF_HEADER_OFFSET, &bv, sizeof(bv));
	return task_regset(x, pid, true, area) &&
	       !ptrace(PTRACE_CONT, pid, NULL, NULL) &&
	       waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);
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
	pid = task_trace(x, &t);
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
	const uint32_t initial = 0x1f80, wanted = TASK_MXCSR;
	uint32_t got = 0;
	struct task_traced *t;
	uint8_t *area;
	bool ok;
	pid_t pid;

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	area = xcomp_area();
	pid = task_trace(x, &t);
	ok = pid > 0;
	memcpy(area + XCOMP_MXCSR_OFFSET, &wanted, sizeof(wanted));
	ok = ok && task_step(x, pid, area, XF_BIT(XF_SSE));
	ok &= xcomp_same(x, "MXCSR set along with SSE", wanted, t->mxcsr);
	ok = ok && task_step(x, pid, area, 0);
	ok &= xcomp_same(x, "MXCSR left out", initial, t->mxcsr);
	if (xf_xcr0() & XF_BIT(XF_YMM)) {
		uint64_t bv = XF_BIT(XF_YMM);

		memcpy(area + XF_HEADER_OFFSET, &bv, sizeof(bv));
		ok = ok && task_regset(x, pid, true, area) &&
		     task_regset(x, pid, false, area);
		memcpy(&got, area + XCOMP_MXCSR_OFFSET, sizeof(got));
		ok &= xcomp_same(x, "MXCSR set along with AVX", wanted, got);
	}
	if (pid > 0)
		task_end(pid);
	return xcomp_verdict(xcomp_rule(x, ok,
		"MXCSR belongs to SSE and AVX state"));
}

/* KiB that the kernel has taken from vmalloc(), or -1 */
static inline long task_vmalloc(void)
{
	char buf[4096], *p;

	if (xf_read_file("/proc/meminfo", buf, sizeof(buf)) <= 0)
		return -1;
	p = strstr(buf, "VmallocUsed:");
	return p ? strtol(p + strlen("VmallocUsed:"), NULL, 10) : -1;
}

/*
 * Call @fn again and again. If each call left @size bytes behind, the kernel
 * would have taken that much more each time. What others do at the same time may
 * look like that once, and what is freed may take a while.
 */
static inline bool task_frees(struct xcomp *x, int (*fn)(struct xcomp *x),
			      uint32_t size, const char *what)
{
	const long limit = (long)size * TASK_ROUNDS / 1024 / 2;
	const struct timespec nap = { .tv_nsec = 50 * 1000 * 1000 };
	long before, grown = 0;
	int i, try;

	for (try = 0; try < TASK_TRIES; try++) {
		before = task_vmalloc();
		for (i = 0; i < TASK_ROUNDS; i++)
			if (fn(x))
				return false;
		for (i = 0; i < 10; i++) {
			grown = task_vmalloc() - before;
			if (grown < limit)
				return true;
			nanosleep(&nap, NULL);
		}
	}
	ksft_print_msg("%s: VmallocUsed grows by %ld KiB with %d %s\n", x->name,
		       grown, TASK_ROUNDS, what);
	return false;
}

static inline int task_use_amx_and_exit(struct xcomp *x)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		xf_use_amx();
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		return xcomp_error(x, "a child that uses AMX");
	return KSFT_PASS;
}

static inline int task_make_vcpu_and_close(struct xcomp *x)
{
	int result = xcomp_vcpu(x);

	close(x->vcpu);
	close(x->vm);
	free(x->cpuid);
	x->vcpu = -1;
	x->vm = -1;
	return result;
}

/* Verify that larger fpstates are freed along with their tasks and vCPUs. */
static inline int task_check_freed(struct xcomp *x)
{
	uint32_t larger, smaller;
	bool ok;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (task_vmalloc() <= 0)
		return xcomp_skip(x, "no VmallocUsed in /proc/meminfo");
	larger = xf_compacted_size(xf_xcr0());
	smaller = xf_compacted_size(xf_xcr0() & ~XF_BIT(XF_XTILE_DATA));
	ok = xcomp_request(x, false);
	ok &= task_frees(x, task_use_amx_and_exit, larger,
			 "tasks that have used AMX");
	if (xcomp_open_kvm(x)) {
		x->amx = true;
		ok &= xcomp_request(x, true);
		ok &= task_frees(x, task_make_vcpu_and_close, smaller,
				 "vCPUs with AMX");
	}
	x->reason = NULL;
	return xcomp_verdict(xcomp_rule(x, ok,
		"what tasks and vCPUs leave behind is freed"));
}

#endif /* SELFTESTS_X86_XSTATE_TASK_H */
