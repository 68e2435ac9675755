/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checks of the PASID of a task that has a vCPU: KVM loads the guest's fpstate
 * in its place and puts it back, and tells the guest nothing of it.
 */
#ifndef SELFTESTS_X86_XSTATE_PASID_KVM_H
#define SELFTESTS_X86_XSTATE_PASID_KVM_H

#include "xcomp_guest.h"
#include "xstate_pasid.h"

/* Permission, and a VM without vCPU */
static inline int pasid_prepare_vm(struct xcomp *x)
{
	if (!xcomp_open_whole_kvm(x))
		return KSFT_SKIP;
	x->amx = x->have_amx;
	return xcomp_verdict(xcomp_request(x, true) && xcomp_make_vm(x, false));
}

static inline int pasid_make_vcpu(struct xcomp *x)
{
	return xcomp_verdict(xcomp_make_vm(x, true));
}

static inline int pasid_check_create_vcpu(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_vm, pasid_make_vcpu,
			   "KVM_CREATE_VCPU does not drop PASID");
}

static inline int pasid_prepare_vcpu(struct xcomp *x)
{
	int result = pasid_prepare_vm(x);

	return result ?: pasid_make_vcpu(x);
}

static inline int pasid_set_cpuid(struct xcomp *x)
{
	return xcomp_vcpu(x);
}

/* Verify the PASID when the guest's fpstate is replaced by a larger one. */
static inline int pasid_check_set_cpuid(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_vcpu, pasid_set_cpuid,
			   "KVM_SET_CPUID2 with AMX and CET does not drop PASID");
}

static inline int pasid_prepare_guest(struct xcomp *x)
{
	int result = pasid_prepare_vcpu(x);

	return result ?: xcomp_vcpu(x);
}

static inline int pasid_set_and_get_msrs(struct xcomp *x)
{
	bool ok = true;
	int i;

	for (i = 0; i < PASID_TURNS; i++)
		ok &= xcomp_write_msrs(x) && xcomp_msrs_kept(x, "KVM_SET_MSRS");
	return xcomp_verdict(ok);
}

/* Verify the PASID over ioctls that load the guest's fpstate for its MSRs. */
static inline int pasid_check_msrs(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_guest, pasid_set_and_get_msrs,
			   "KVM_SET_MSRS of CET MSRs does not drop PASID");
}

static inline int pasid_run_at_once(struct xcomp *x)
{
	bool ok = true;
	int i;

	for (i = 0; i < PASID_TURNS; i++)
		ok &= xkvm_run_immediate_exit(x->kvm, x->vcpu);
	return xcomp_verdict(ok);
}

static inline int pasid_check_run(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_guest, pasid_run_at_once,
			   "KVM_RUN puts the host's PASID back");
}

/* The guest runs, cannot read IA32_PASID, and keeps its tile. */
static inline int pasid_run_with_tile(struct xcomp *x)
{
	uint8_t *tile, *buf = xcomp_tile_state(x, &tile);
	uint64_t value = 0;
	struct xcomp_guest g;
	bool ok = true;
	int i;

	if (!xcomp_guest_start(x, &g) ||
	    !xkvm_set_xcr0(x->vcpu, xcomp_guest_xcr0(x)) ||
	    ioctl(x->vcpu, KVM_SET_XSAVE, buf))
		return xcomp_error(x, "setting up a guest with a tile");
	for (i = 0; i < PASID_TURNS; i++) {
		ok &= xcomp_same(x, "IA32_PASID raises #GP in the guest",
				 XCOMP_GUEST_GP,
				 xcomp_guest_rdmsr(x, &g, PASID_MSR, &value));
		ok &= pasid_is(x, PASID_MINE, "between two KVM_RUNs");
	}
	memset(tile, 0, 16 * 64);
	ok &= !ioctl(x->vcpu, KVM_GET_XSAVE2, buf);
	for (i = 0; i < 16 * 64; i++)
		ok &= tile[i] == 0x5c;
	return xcomp_verdict(xcomp_rule(x, ok, "the guest keeps its tile"));
}

static inline int pasid_prepare_tile(struct xcomp *x)
{
	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (xcomp_guest_missing())
		return xcomp_skip(x, xcomp_guest_missing());
	return pasid_prepare_guest(x);
}

/* Verify the PASID around a guest that runs with XTILE_DATA in use. */
static inline int pasid_check_run_tile(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_tile, pasid_run_with_tile,
			   "KVM_RUN with a live tile puts the host's PASID back");
}

/* The same with the task's own fpstate enlarged as well */
static inline int pasid_prepare_both(struct xcomp *x)
{
	int result = pasid_permit_host(x);

	if (!result)
		result = pasid_use_amx(x);
	return result ?: pasid_prepare_tile(x);
}

static inline int pasid_check_run_tile_host_amx(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_both, pasid_run_with_tile,
			   "KVM_RUN puts PASID back into an fpstate with XTILE_DATA");
}

/* Whether KVM counts IA32_PASID among the MSRs to save and restore */
static inline bool pasid_in_msr_list(int kvm)
{
	struct kvm_msr_list *list;
	unsigned int i;
	bool found = false;

	list = calloc(1, sizeof(*list) + 4096 * sizeof(list->indices[0]));
	if (!list)
		ksft_exit_fail_perror("cannot allocate a list of MSRs");
	list->nmsrs = 4096;
	if (ioctl(kvm, KVM_GET_MSR_INDEX_LIST, list))
		ksft_exit_fail_perror("KVM_GET_MSR_INDEX_LIST");
	for (i = 0; i < list->nmsrs; i++)
		found |= list->indices[i] == PASID_MSR;
	free(list);
	return found;
}

static inline int pasid_look_at_vcpu(struct xcomp *x)
{
	uint8_t *buf = xf_guarded(xcomp_xsave_size(x), 0);
	bool ok = true, read;
	uint64_t value, bv;

	pasid_run_at_once(x);
	ok &= xcomp_same(x, "IA32_PASID in the list of MSRs", false,
			 pasid_in_msr_list(x->kvm));
	read = xkvm_get_msr(x->vcpu, PASID_MSR, &value);
	if (xkvm_refuses_msrs()) {
		ok &= xcomp_same(x, "IA32_PASID given by KVM_GET_MSRS", false,
				 read);
		ok &= xcomp_same(x, "IA32_PASID taken by KVM_SET_MSRS", false,
				 xkvm_set_msr(x->vcpu, PASID_MSR,
					      PASID_THEIRS));
	} else if (read) {
		ok &= xcomp_same(x, "IA32_PASID of the vCPU", 0, value);
	}
	ok &= !ioctl(x->vcpu, KVM_GET_XSAVE2, buf);
	memcpy(&bv, buf + XF_HEADER_OFFSET, sizeof(bv));
	ok &= xcomp_same(x, "PASID in XSTATE_BV of the vCPU", 0,
			 bv & XF_BIT(XF_PASID));
	return xcomp_verdict(ok);
}

/* Verify that no interface of KVM knows the PASID of the vCPU's task. */
static inline int pasid_check_guest_interfaces(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_guest, pasid_look_at_vcpu,
			   "KVM has no IA32_PASID for guests");
}

static inline int pasid_look_at_trace(struct xcomp *x)
{
	struct xf_traced_run run[PASID_TURNS];
	int i, nr, result;
	bool ok;

	if (xf_trace_record(true))
		return xcomp_error(x, "recording a trace");
	result = pasid_run_at_once(x);
	xf_trace_record(false);
	nr = xf_trace_runs(run, PASID_TURNS);
	ok = xcomp_same(x, "KVM_RUNs in the trace", PASID_TURNS, nr) && !result;
	for (i = 0; i < nr; i++) {
		ok &= xcomp_same(x, "PASID in use in the guest's fpstate", 0,
				 run[i].guest.xstate_bv & XF_BIT(XF_PASID));
		ok &= xcomp_same(x, "PASID in use in the host's fpstate",
				 XF_BIT(XF_PASID),
				 run[i].host.xstate_bv & XF_BIT(XF_PASID));
	}
	return xcomp_verdict(ok);
}

static inline int pasid_prepare_trace(struct xcomp *x)
{
	if (!xf_trace_dir[0])
		return xcomp_skip(x, xf_trace_reason);
	return pasid_prepare_guest(x);
}

/*
 * Verify, on the tracepoint, that the guest's fpstate has no PASID in use run
 * after run, and that the host's has.
 */
static inline int pasid_check_guest_fpstate(struct xcomp *x)
{
	return pasid_keeps(x, pasid_prepare_trace, pasid_look_at_trace,
			   "the guest runs without the host's PASID");
}

#endif /* SELFTESTS_X86_XSTATE_PASID_KVM_H */
