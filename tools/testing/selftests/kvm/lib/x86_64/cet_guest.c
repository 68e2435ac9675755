// SPDX-License-Identifier: GPL-2.0-only
/* CET in a guest: see cet_guest.h. */
#include "cet_guest.h"

/* Bits of an entry of a page table */
#define PTE_WRITABLE		BIT_ULL(1)
#define PTE_ACCESSED		BIT_ULL(5)
#define PTE_DIRTY		BIT_ULL(6)

/* Not writable but dirty: that is what tells a shadow stack from other pages. */
void vm_make_shstk(struct kvm_vm *vm, gva_t page)
{
	u64 *pte = vm_get_pte(vm, page);

	*pte = (*pte & ~PTE_WRITABLE) | PTE_ACCESSED | PTE_DIRTY;
}

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
