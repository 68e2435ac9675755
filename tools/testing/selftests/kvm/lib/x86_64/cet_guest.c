// SPDX-License-Identifier: GPL-2.0-only
/* CET in a guest: see cet_guest.h. */
#include "cet_guest.h"

/* Bits of an entry of a page table */
#define PTE_WRITABLE		BIT_ULL(1)
#define PTE_USER		BIT_ULL(2)
#define PTE_ACCESSED		BIT_ULL(5)
#define PTE_DIRTY		BIT_ULL(6)

/* Not writable but dirty: that is what tells a shadow stack from other pages. */
void vm_make_shstk(struct kvm_vm *vm, gva_t page)
{
	u64 *pte = vm_get_pte(vm, page);

	*pte = (*pte & ~PTE_WRITABLE) | PTE_ACCESSED | PTE_DIRTY;
}

/* Open the page at @va, which is mapped for the guest's kernel, for user mode. */
void vcpu_open_page(struct kvm_vcpu *vcpu, const void *va)
{
	struct kvm_sregs sregs;
	u64 table, *pte;
	int level;

	vcpu_sregs_get(vcpu, &sregs);
	table = sregs.cr3;
	for (level = sregs.cr4 & X86_CR4_LA57 ? 4 : 3; level >= 0; level--) {
		pte = addr_gpa2hva(vcpu->vm, table & GENMASK_ULL(51, 12));
		pte += ((u64)va >> (12 + 9 * level)) & 511;
		*pte |= PTE_USER;
		table = *pte;
	}
}

/*
 * Two programs for user mode, on a page of their own. Each offends against CET,
 * by RET and by JMP at user_*_fault, and goes on from user_*_on to user_*_end if
 * the handler lets it. Without CET it gets straight to user_*_end, an UD2.
 * A CALL of the next instruction would push nothing on the shadow stack.
 */
asm(".pushsection .text\n"
	".globl user_ret, user_ret_called, user_ret_fault, user_ret_on, user_ret_end\n"
	".globl user_jmp, user_jmp_fault, user_jmp_on, user_jmp_end\n"
	".balign 4096\n"
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

/*
 * The host keeps its IA32_S_CET over KVM_RUN of guests with other values, none
 * of which switches anything on.  If it does not, a guest with shadow stacks in
 * its kernel is the end of the host: then do not go on, nor where it cannot be
 * told, which is a SKIP.
 */
bool expect_host_keeps_s_cet(struct __test_metadata *const _metadata,
			     const struct xstate_combo *combo)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u64 before, value;
	int fd, i;

	fd = xf_open_msrs(_metadata, O_RDONLY);
	if (fd < 0)
		SKIP(return false, "no /dev/cpu/N/msr");
	vcpu = xstate_new_vcpu(&vm, combo);
	before = xf_read_msr(_metadata, fd, MSR_IA32_S_CET);
	for (i = 0; i < 2 && vcpu_has_cet_msr(vcpu, MSR_IA32_S_CET); i++) {
		value = i ? 0 : vcpu_has_ibt(vcpu) ? CET_SUPPRESS_DISABLE : CET_WRSS_EN;
		vcpu_set_msr(vcpu, MSR_IA32_S_CET, value);
		xstate_run_without_memory(_metadata, vcpu);
		EXPECT_SAME(before, xf_read_msr(_metadata, fd, MSR_IA32_S_CET),
			    "IA32_S_CET of the host after KVM_RUN with %#lx", value);
	}
	kvm_vm_free(vm);
	close(fd);
	return !_metadata->exit_code;
}
