/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * XSTATE_BV and XCOMP_BV of the fpstates of a thread and of the vCPUs that it
 * runs, as tracepoints show them.  Tracepoints are no stable interface and take
 * root: who cannot use them skips.
 */
#ifndef SELFTEST_KVM_FPU_TRACE_H
#define SELFTEST_KVM_FPU_TRACE_H

#include "xstate.h"

/* The header of an fpstate at the moment it went into the registers */
struct fpstate_header {
	u64 xstate_bv, xcomp_bv;
};

/* One stay of the guest's fpstate in the registers: it, and the host's after it */
struct fpstate_run {
	struct fpstate_header guest, host;
};

struct fpu_trace {
	int events[2];			/* of perf: an activation, and kvm_fpu */
	void *ring;
};

bool fpu_trace_need(struct __test_metadata *const _metadata);
void fpu_trace_begin(struct __test_metadata *const _metadata, struct fpu_trace *t, pid_t tid);
bool fpu_trace_last(struct __test_metadata *const _metadata, struct fpu_trace *t,
		    struct fpstate_header *last);
bool fpu_trace_runs(struct __test_metadata *const _metadata, struct fpu_trace *t,
		    struct fpstate_run *runs, int nr);
void expect_fpstate(struct __test_metadata *const _metadata, bool guest, bool amx,
		    const struct fpstate_header *got, const char *whose);

#endif /* SELFTEST_KVM_FPU_TRACE_H */
