// SPDX-License-Identifier: GPL-2.0-only
/*
 * User mode for a guest, programs for it, and shadow stacks: see cet_user.h.
 */
#include "cet_user.h"

#define USER_DS_DESCRIPTOR	0x00cff3000000ffffull
#define USER_CS_DESCRIPTOR	0x00affb000000ffffull

/* Bits of an entry of a page table */
#define PTE_WRITABLE		BIT_ULL(1)
#define PTE_USER		BIT_ULL(2)
#define PTE_ACCESSED		BIT_ULL(5)
#define PTE_DIRTY		BIT_ULL(6)

u8 user_stack[4096] __aligned(4096);
u8 user_shstk[4096] __aligned(4096);
u8 user_kernel_stack[8192] __aligned(4096);

/* A CALL of the next instruction would push nothing on the shadow stack. */
asm(".pushsection .text\n"
	".globl user_page, user_ret, user_ret_called, user_ret_fault, user_ret_on\n"
	".globl user_ret_end, user_jmp, user_jmp_fault, user_jmp_on, user_jmp_end\n"
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

/* Set @bits in the entries of all levels, and return that of the page. */
static u64 *walk(struct kvm_vcpu *vcpu, u64 va, u64 bits)
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
		*pte |= bits;
		table = *pte;
	}
	return pte;
}

void vcpu_open_page(struct kvm_vcpu *vcpu, u64 va)
{
	walk(vcpu, va, PTE_USER);
}

/* Not writable but dirty: that is what tells a shadow stack from other pages. */
void vcpu_make_shstk(struct kvm_vcpu *vcpu, u64 va)
{
	u64 *pte = walk(vcpu, va, 0);

	*pte = (*pte & ~PTE_WRITABLE) | PTE_ACCESSED | PTE_DIRTY;
}

void vcpu_add_user_mode(struct kvm_vcpu *vcpu)
{
	const u64 rsp0 = (u64)user_kernel_stack + sizeof(user_kernel_stack);
	struct kvm_sregs sregs;
	u64 *gdt;

	vcpu_sregs_get(vcpu, &sregs);
	gdt = addr_gva2hva(vcpu->vm, sregs.gdt.base);
	gdt[USER_DS / 8] = USER_DS_DESCRIPTOR;
	gdt[USER_CS / 8] = USER_CS_DESCRIPTOR;
	memcpy(addr_gva2hva(vcpu->vm, sregs.tr.base + 4), &rsp0, sizeof(rsp0));
	vcpu_open_page(vcpu, (u64)user_page);
	vcpu_open_page(vcpu, (u64)user_stack);
	vcpu_open_page(vcpu, (u64)user_shstk);
	vcpu_make_shstk(vcpu, (u64)user_shstk);
}

void guest_enter_user(u64 rip)
{
	asm volatile("push %0\n\tpush %1\n\tpushfq\n\tpush %2\n\tpush %3\n\t"
		     "iretq"
		     : : "r" ((u64)USER_DS), "r" (USER_STACK_TOP), "r" ((u64)USER_CS), "r" (rip)
		     : "memory");
}
