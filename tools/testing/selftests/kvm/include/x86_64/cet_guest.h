/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Guests with CET: code that reads and writes the CET MSRs of its vCPU, and what the
 * host tells it about them; programs for user mode that offend against CET; shadow
 * stacks, and whether it is safe to give a guest any.  No such guest has branch
 * tracking in its kernel: the exception entry of libkvm has no ENDBR.
 */
#ifndef SELFTEST_KVM_CET_GUEST_H
#define SELFTEST_KVM_CET_GUEST_H

#include "xregs.h"

/* Error codes of #CP */
#define CP_NEAR_RET	1
#define CP_ENDBRANCH	3

/* Two programs that offend against CET, on a page of their own */
extern const char user_ret[], user_ret_called[], user_ret_fault[], user_ret_on[], user_ret_end[],
		  user_jmp[], user_jmp_fault[], user_jmp_on[], user_jmp_end[];

/* Make a page of the guest a shadow stack, of user mode if it is open to that. */
void vm_make_shstk(struct kvm_vm *vm, gva_t page);
/* Open a page that is mapped for the guest's kernel for user mode. */
void vcpu_open_page(struct kvm_vcpu *vcpu, const void *va);

/* In the guest's memory, for the guest and for the host */
struct cet_guest {
	u8 vector[NR_CET_MSRS];	/* what access to each of cet_msrs[] raises, or 0 */
	struct xregs regs[2];
};

/* The host's side: what the vCPU has, and two sets of values. */
void cet_guest_init(struct cet_guest *g, struct kvm_vcpu *vcpu, u32 seed0, u32 seed1);

/* The guest's side: all MSRs hold set @set, and access to others raises #GP. */
void cet_guest_expect(const struct cet_guest *g, int set, const char *when);
void cet_guest_write(const struct cet_guest *g, int set);

bool expect_host_keeps_s_cet(struct __test_metadata *const _metadata,
			     const struct xstate_combo *combo);

#endif /* SELFTEST_KVM_CET_GUEST_H */
