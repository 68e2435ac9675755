/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * User mode for a guest, which libkvm does not have, and shadow stacks for both
 * of the guest's modes.
 */
#ifndef SELFTEST_KVM_CET_USER_H
#define SELFTEST_KVM_CET_USER_H

#include "xregs.h"

/* Segments of the guest's user mode, behind those of libkvm */
#define USER_DS		(6 * 8 | 3)
#define USER_CS		(7 * 8 | 3)

/* The stacks of user mode, and the one for what interrupts it */
extern u8 user_stack[4096], user_shstk[4096], user_kernel_stack[8192];

#define USER_STACK_TOP	((u64)user_stack + sizeof(user_stack))
#define USER_SHSTK_TOP	((u64)user_shstk + sizeof(user_shstk))

/*
 * Two programs for user mode, on a page of their own.  Each offends against CET,
 * by RET and by JMP at user_*_fault, and goes on from user_*_on to user_*_end if
 * the handler lets it.  Without CET it gets straight to user_*_end, an UD2.
 */
extern const char user_page[], user_ret[], user_ret_called[], user_ret_fault[],
		  user_ret_on[], user_ret_end[], user_jmp[], user_jmp_fault[],
		  user_jmp_on[], user_jmp_end[];

/* Give the guest a user mode that may use these stacks and programs. */
void vcpu_add_user_mode(struct kvm_vcpu *vcpu);
/* Open the page at @va, which is mapped for the guest's kernel, for user mode. */
void vcpu_open_page(struct kvm_vcpu *vcpu, u64 va);
/* Make it a shadow stack, of user mode if it is open, or else of the kernel. */
void vcpu_make_shstk(struct kvm_vcpu *vcpu, u64 va);

/* Leave the guest's kernel for good: only an exception gets there again. */
void guest_enter_user(u64 rip);

#endif /* SELFTEST_KVM_CET_USER_H */
