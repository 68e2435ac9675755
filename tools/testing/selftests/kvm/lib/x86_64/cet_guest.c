// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest code that reads and writes the CET MSRs of its vCPU: see cet_guest.h.
 */
#include "cet_guest.h"

void cet_guest_init(struct cet_guest *g, struct kvm_vcpu *vcpu, u32 seed0, u32 seed1)
{
	int i;

	for (i = 0; i < NR_CET_MSRS; i++)
		g->vector[i] = vcpu_has_cet_msr(vcpu, cet_msrs[i]) ? 0 : GP_VECTOR;
	xregs_fill(&g->regs[0], vcpu, seed0);
	xregs_fill(&g->regs[1], vcpu, seed1);
}

void cet_guest_expect(const struct cet_guest *g, int set, const char *when)
{
	u64 wanted, value;
	u8 vector;
	int i;

	for (i = 0; i < NR_CET_MSRS; i++) {
		wanted = g->regs[set].cet[i];
		value = wanted;
		vector = rdmsr_safe(cet_msrs[i], &value);
		__GUEST_ASSERT(vector == g->vector[i],
			       "RDMSR of %x %s: wanted vector %u got %u",
			       cet_msrs[i], when, g->vector[i], vector);
		__GUEST_ASSERT(vector || value == wanted,
			       "MSR %x lost %s: wanted %lx got %lx",
			       cet_msrs[i], when, wanted, value);
	}
}

void cet_guest_write(const struct cet_guest *g, int set)
{
	u8 vector;
	int i;

	for (i = 0; i < NR_CET_MSRS; i++) {
		vector = wrmsr_safe(cet_msrs[i], g->regs[set].cet[i]);
		__GUEST_ASSERT(vector == g->vector[i],
			       "WRMSR of %lx to %x: wanted vector %u got %u",
			       g->regs[set].cet[i], cet_msrs[i], g->vector[i], vector);
	}
}
