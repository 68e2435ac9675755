/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Read and write IA32_PASID of the calling task through the msr driver, and
 * verify that it is kept over something that the task does.
 */
#ifndef SELFTESTS_X86_XSTATE_PASID_H
#define SELFTESTS_X86_XSTATE_PASID_H

#include "xcomp_host.h"

#define PASID_MSR	0xd93

/* Bits 19:0 are the PASID, bit 31 says that it is valid. */
#define PASID_MINE	0x12345
#define PASID_THEIRS	0xabcde

#define PASID_WRITES	60
#define PASID_TURNS	8

static int pasid_msr = -1;

/* Why this machine cannot tell, or NULL */
static inline const char *pasid_missing(void)
{
	if (!(xf_cpu_supervisor_mask() & XF_BIT(XF_PASID)))
		return "no PASID state on this CPU";
	if (!xf_cpuinfo_flag("enqcmd") || !xf_cpuinfo_flag("xsaves"))
		return "the kernel does not use PASID state";
	if (geteuid())
		return "needs root";
	return NULL;
}

/* Stay on this CPU, and open its MSRs. */
static inline int pasid_begin(struct xcomp *x)
{
	if (pasid_missing())
		return xcomp_skip(x, pasid_missing());
	if (xcomp_pin() < 0)
		return xcomp_error(x, "sched_setaffinity");
	pasid_msr = xcomp_open_msrs(O_RDWR);
	if (pasid_msr < 0)
		return xcomp_skip(x, "no /dev/cpu/N/msr");
	return KSFT_PASS;
}

static inline uint64_t pasid_read(void)
{
	return xcomp_read_msr(pasid_msr, PASID_MSR);
}

/*
 * Give this task the PASID @value. The driver may lose it, see xcomp_read_msr(),
 * so try more than once.
 */
static inline int pasid_write(struct xcomp *x, uint64_t value)
{
	int i;

	for (i = 0; i < PASID_WRITES; i++) {
		if (pwrite(pasid_msr, &value, sizeof(value), PASID_MSR) != 8)
			return errno == EPERM ?
			       xcomp_skip(x, "the msr driver takes no writes") :
			       xcomp_error(x, "writing IA32_PASID");
		if (pasid_read() == value)
			return KSFT_PASS;
	}
	ksft_print_msg("%s: broken: a PASID outlives the return to user space\n",
		       x->name);
	return KSFT_FAIL;
}

static inline bool pasid_is(struct xcomp *x, uint64_t wanted, const char *when)
{
	uint64_t got = pasid_read();

	if (got != wanted)
		ksft_print_msg("%s: IA32_PASID %s: wanted %#llx got %#llx\n",
			       x->name, when, (unsigned long long)wanted,
			       (unsigned long long)got);
	return got == wanted;
}

/* Sleep while another process has this CPU, and its state the registers. */
static inline void pasid_lose_cpu(void)
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	pid_t hog = xcomp_hog();
	int i;

	for (i = 0; i < 3; i++)
		nanosleep(&nap, NULL);
	xcomp_kill_hog(hog);
}

/*
 * Set up by @prepare, if there is any, then verify that the PASID is there
 * after @act, and still is once other tasks have run. Memory has another one
 * before @act, so that it shows whether that of the register is kept.
 */
static inline int pasid_keeps(struct xcomp *x, int (*prepare)(struct xcomp *x),
			      int (*act)(struct xcomp *x), const char *rule)
{
	int result = pasid_begin(x);
	bool ok;

	if (!result && prepare)
		result = prepare(x);
	if (!result)
		result = pasid_write(x, PASID_THEIRS);
	if (result)
		return result;
	pasid_lose_cpu();
	result = pasid_write(x, PASID_MINE);
	if (result)
		return result;

	result = act(x);
	if (result)
		return result;
	ok = pasid_is(x, PASID_MINE, "afterwards");
	pasid_lose_cpu();
	ok &= pasid_is(x, PASID_MINE, "once another task has run");
	return xcomp_verdict(xcomp_rule(x, ok, rule));
}

static inline int pasid_permit_host(struct xcomp *x)
{
	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	return xcomp_verdict(xcomp_request(x, false));
}

static inline int pasid_use_amx(struct xcomp *x)
{
	(void)x;
	xf_use_amx();
	return KSFT_PASS;
}

#endif /* SELFTESTS_X86_XSTATE_PASID_H */
