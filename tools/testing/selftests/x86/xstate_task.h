/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the checks of a task's XSAVE state share, and the check of what is left
 * of it once the task is gone.
 */
#ifndef SELFTESTS_X86_XSTATE_TASK_H
#define SELFTESTS_X86_XSTATE_TASK_H

#include "xcomp_regs.h"
#include "xcomp_vcpu.h"

#define TASK_PKRU_MINE		0x55555500
#define TASK_PKRU_THEIRS	0xaaaaaa00

/* Not the initial one: flush to zero, and another rounding mode */
#define TASK_MXCSR		0xbf80
#define TASK_MXCSR_THEIRS	0xdf80

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
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
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
	if (xcomp_open_whole_kvm(x)) {
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
