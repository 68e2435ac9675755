// SPDX-License-Identifier: GPL-2.0-only
/*
 * VMs for the steps of the model, cheap ones: their memory is the program itself and what
 * all processes share, at the addresses of the process, so that nothing is loaded or copied.
 */
#include "xstate_steps.h"

static struct xs_memory *const mem = XS_MEMORY;

/* ---- what the guest executes ---- */

/* A vector for an instruction at (%rax), with RCX for the rows of tiles and EDX:EAX for masks */
#define AMX_SAFE(opcode, p) \
	kvm_asm_safe(".byte 0xc4, 0xe2, " opcode, "a" (p), "c" (64ul))
#define XSAVE_SAFE(insn, area, lo, hi) \
	kvm_asm_safe(insn " (%[p])", [p] "r" (area), "a" (lo), "d" (hi))

static INTEGER_ONLY u8 guest_tiles(const struct xregs *r)
{
	u8 vector = AMX_SAFE("0x78, 0x49, 0x00", r->tilecfg);

	vector = vector ?: AMX_SAFE("0x7b, 0x4b, 0x04, 0x08", r->tile);
	if (!vector)
		tile_load(r->tile[0]);
	return vector;
}

static INTEGER_ONLY u8 guest_pkru(struct xs_insn *i, u32 pkru)
{
	u8 vector = 0;

	if (i->nr == XM_WRPKRU)
		vector = kvm_asm_safe(".byte 0x0f, 0x01, 0xef", "a" (pkru), "c" (0), "d" (0));
	vector = vector ?: kvm_asm_safe(".byte 0x0f, 0x01, 0xee", "c" (0));
	if (!vector)
		i->read[0] = xregs_rdpkru();
	return vector;
}

static INTEGER_ONLY u8 guest_msr(struct xs_insn *i)
{
	u8 vector = i->nr == XM_WRMSR ? wrmsr_safe(i->msr, i->value) : 0;

	return vector ?: rdmsr_safe(i->msr, &i->read[0]);
}

static INTEGER_ONLY u8 guest_cpuid(struct xs_insn *i)
{
	u64 cr4 = (xf_cpuid(1, 0).ecx & BIT(27) ? X86_CR4_OSXSAVE : 0) |
		  (xf_cpuid(7, 0).ecx & BIT(4) ? X86_CR4_PKE : 0);

	i->read[0] = xf_cpuid(0xd, 0).ebx | cr4 << 32;
	i->read[1] = xf_cpuid(0xd, 1).ebx;
	return 0;
}

static INTEGER_ONLY u8 guest_insn(struct xs_insn *i, u8 *area)
{
	const struct xregs *r = &mem->sets[i->set];
	u32 lo = i->mask, hi = i->mask >> 32;

	switch (i->nr) {
	case XM_LOAD:
		guest_load_xregs(r, i->mask);
		return 0;
	case XM_WRPKRU:
	case XM_RDPKRU:
		return guest_pkru(i, r->pkru);
	case XM_TILES:
		return guest_tiles(r);
	case XM_TILERELEASE:
		return AMX_SAFE("0x78, 0x49, 0xc0", 0);
	case XM_INSN_XSAVE:
		return XSAVE_SAFE("xsave64", area, lo, hi);
	case XM_INSN_XSAVEC:
		return XSAVE_SAFE("xsavec64", area, lo, hi);
	case XM_INSN_XSAVES:
		return XSAVE_SAFE("xsaves64", area, lo, hi);
	case XM_INSN_XRSTOR:
		return XSAVE_SAFE("xrstor64", area, lo, hi);
	case XM_INSN_XRSTORS:
		return XSAVE_SAFE("xrstors64", area, lo, hi);
	case XM_XSETBV:
		return xsetbv_safe(0, i->value);
	case XM_INSN_CPUID:
		return guest_cpuid(i);
	default:
		return guest_msr(i);
	}
}

static INTEGER_ONLY void guest_code(void)
{
	u64 i;

	for (i = 0; i < mem->nr_insns; i++)
		mem->insns[i].vector = guest_insn(&mem->insns[i], mem->areas[i]);
	guest_leave();
}

/*
 * What kvm_asm_safe() asks of the handlers of exceptions, 16 bytes for each, which touch no
 * other register: those of libkvm are compiled, and use SSE.  The bits are vectors that
 * come with an error code.
 */
asm(".pushsection .text\n"
	".balign 16\n"
	"xs_guest_handlers:\n"
	".set vector, 0\n"
	".rept 32\n"
	".balign 16\n"
	".if !(0x227d00 >> vector & 1)\n"
	"\tpush $0\n"
	".endif\n"
	"\tmov $vector, %r9d\n"
	"\tjmp xs_guest_handler\n"
	".set vector, vector + 1\n"
	".endr\n"
	"xs_guest_handler:\n"
	"\tcmp %r10, 8(%rsp)\n"
	"\tjne 1f\n"
	"\tpop %r10\n"
	"\tmov %r11, (%rsp)\n"
	"\tiretq\n"
	"1:\tmov %r9d, %eax\n"
	"\toutb %al, $0xee\n"
	"\tjmp 1b\n"
	".popsection");

/* ---- what the host makes of it ---- */

/*
 * Three levels of paging, the last with pages of 2 MiB, for the first GiB and that of the
 * shared memory; a segment for code, and one for data.
 */
void xs_make_guest_tables(void)
{
	u64 i, handler;

	mem->page_tables[0][0] = (u64)mem->page_tables[1] | 0x23;
	mem->page_tables[1][0] = (u64)mem->page_tables[2] | 0x23;
	mem->page_tables[1][(u64)mem >> 30] = (u64)mem->page_tables[3] | 0x23;
	for (i = 0; i < 512; i++) {
		mem->page_tables[2][i] = i << 21 | 0xe3;
		mem->page_tables[3][i] = ((u64)mem & GENMASK_ULL(47, 30)) | i << 21 | 0xe3;
	}
	mem->gdt[1] = 0x00af9b000000ffff;
	mem->gdt[2] = 0x00cf93000000ffff;
	for (i = 0; i < ARRAY_SIZE(mem->idt); i++) {
		handler = (u64)xs_guest_handlers + 16 * i;
		mem->idt[i] = (struct idt_entry) {
			.offset0 = handler, .offset1 = handler >> 16, .selector = 8,
			.type = 14, .p = 1,
		};
	}
}

void xs_fill_sregs(struct kvm_sregs *sregs, u64 cr4)
{
	const struct kvm_segment data = {
		.selector = 16, .type = 3, .limit = ~0u, .present = 1, .s = 1, .g = 1, .db = 1,
	};

	sregs->ds = data;
	sregs->es = data;
	sregs->ss = data;
	sregs->cs = data;
	sregs->cs.selector = 8;
	sregs->cs.type = 11;
	sregs->cs.l = 1;
	sregs->cs.db = 0;
	sregs->tr = (struct kvm_segment) { .type = 11, .limit = 0x67, .present = 1 };
	sregs->ldt = (struct kvm_segment) { .unusable = 1 };
	sregs->gdt.base = (u64)mem->gdt;
	sregs->gdt.limit = sizeof(mem->gdt) - 1;
	sregs->idt.base = (u64)mem->idt;
	sregs->idt.limit = sizeof(mem->idt) - 1;
	sregs->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
	sregs->cr3 = (u64)mem->page_tables[0];
	sregs->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | cr4;
	sregs->efer = EFER_LME | EFER_LMA;
}

/* A VM that has this program and the shared memory, and its vCPU */
struct kvm_vcpu *xs_new_vcpu(void)
{
	u64 start = (u64)__executable_start & -4096ul, end = ((u64)_end + 4095) & -4096ul;
	struct kvm_vm *vm = vm_create_barebones();

	TEST_ASSERT(end <= BIT_ULL(30), "the program ends at %#lx", (unsigned long)end);
	vm_set_user_memory_region(vm, 0, 0, start, end - start, (void *)start);
	vm_set_user_memory_region(vm, 1, 0, (u64)mem, (sizeof(*mem) + 4095) & -4096ul, mem);
	xstate_create_apic(vm);
	return __vm_vcpu_add(vm, 0);
}

void xs_set_guest_regs(struct kvm_vcpu *vcpu)
{
	struct kvm_regs regs = {
		.rip = (u64)guest_code, .rflags = 2,
		.rsp = (u64)mem->stack + sizeof(mem->stack) - 8,
	};

	vcpu_regs_set(vcpu, &regs);
}
