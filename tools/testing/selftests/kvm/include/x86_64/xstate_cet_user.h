/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * User mode for a guest, of which libkvm has none, with a shadow stack, and two
 * programs for it that offend against CET.
 */
#ifndef SELFTEST_KVM_XSTATE_CET_USER_H
#define SELFTEST_KVM_XSTATE_CET_USER_H

#include "kvm_compat.h"
#include "../../../x86/xfeature.h"

#define PTE_W			XF_BIT(1)
#define PTE_US			XF_BIT(2)
#define PTE_D			XF_BIT(6)

/* Segments of the guest's user mode, behind those of libkvm */
#define USER_DS			(6 * 8 | 3)
#define USER_CS			(7 * 8 | 3)
#define USER_DS_DESCRIPTOR	0x00cff3000000ffffull
#define USER_CS_DESCRIPTOR	0x00affb000000ffffull

static u8 user_stack[4096] __aligned(4096);
static u8 shadow_stack[4096] __aligned(4096);
static u8 kernel_stack[8192] __aligned(4096);

/*
 * Two programs for user mode, on a page of their own. Each does its offence,
 * and goes on from user_*_on to user_*_end if the handler lets it. Without CET
 * it gets straight to user_*_end. A CALL of the next instruction would push
 * nothing on the shadow stack.
 */
asm(".pushsection .text\n"
	".balign 4096\n"
	"user_page:\n"
	"user_ret:\n"
	"\tcall 1f\n"
	"user_ret_called:\n"
	"\tud2\n"
	"1:\n"
	"\tlea user_ret_end(%rip), %rax\n"
	"\tmov %rax, (%rsp)\n"
	"user_ret_fault:\n"
	"\tret\n"
	"user_ret_on:\n"
	"\tcall 2f\n"
	"\tjmp user_ret_end\n"
	"2:\tret\n"
	"user_ret_end:\n"
	"\tud2\n"
	"user_jmp:\n"
	"\tlea user_jmp_fault(%rip), %rax\n"
	"\tjmp *%rax\n"
	"user_jmp_fault:\n"
	"\tjmp user_jmp_end\n"
	"user_jmp_on:\n"
	"\tendbr64\n"
	"\tlea 3f(%rip), %rax\n"
	"\tjmp *%rax\n"
	"3:\tendbr64\n"
	"user_jmp_end:\n"
	"\tud2\n"
	".balign 4096\n"
	".popsection");

extern const char user_page[], user_ret[], user_ret_called[], user_ret_fault[],
		  user_ret_on[], user_ret_end[], user_jmp[], user_jmp_fault[],
		  user_jmp_on[], user_jmp_end[];

/* Open the page at @va for user mode, as a shadow stack or as it is. */
static inline void open_page(struct kvm_vcpu *vcpu, u64 va, bool shadow)
{
	struct kvm_sregs sregs;
	u64 table, *pte = NULL;
	int level;

	vcpu_sregs_get(vcpu, &sregs);
	table = sregs.cr3;
	for (level = sregs.cr4 & X86_CR4_LA57 ? 4 : 3; level >= 0; level--) {
		table &= GENMASK_ULL(51, 12);
		pte = addr_gpa2hva(vcpu->vm, table);
		pte += (va >> (12 + 9 * level)) & 511;
		*pte |= PTE_US;
		table = *pte;
	}
	if (shadow)
		*pte = (*pte & ~PTE_W) | PTE_D;
}

/* Give the guest a user mode, and a stack for what interrupts it. */
static inline void set_up_user_mode(struct kvm_vcpu *vcpu)
{
	const u64 rsp0 = (u64)kernel_stack + sizeof(kernel_stack);
	struct kvm_sregs sregs;
	u64 *gdt;

	vcpu_sregs_get(vcpu, &sregs);
	gdt = addr_gva2hva(vcpu->vm, sregs.gdt.base);
	gdt[USER_DS / 8] = USER_DS_DESCRIPTOR;
	gdt[USER_CS / 8] = USER_CS_DESCRIPTOR;
	memcpy(addr_gva2hva(vcpu->vm, sregs.tr.base + 4), &rsp0, sizeof(rsp0));
	open_page(vcpu, (u64)user_page, false);
	open_page(vcpu, (u64)user_stack, false);
	open_page(vcpu, (u64)shadow_stack, true);
}

/* Leave the guest's kernel for good: only an exception gets there again. */
static inline void guest_enter_user(u64 rip)
{
	asm volatile("push %0\n\tpush %1\n\tpushfq\n\tpush %2\n\tpush %3\n\t"
		     "iretq"
		     : : "r" ((u64)USER_DS),
			 "r" ((u64)user_stack + sizeof(user_stack)),
			 "r" ((u64)USER_CS), "r" (rip) : "memory");
}

#endif /* SELFTEST_KVM_XSTATE_CET_USER_H */
