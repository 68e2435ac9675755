// SPDX-License-Identifier: GPL-2.0-only
/*
 * Check the CPU from the inside of a small guest: XSS, XSAVES and XRSTORS, XFD,
 * protection keys, 5-level paging, supervisor CET and SMAP.
 *
 * The guest runs functions of this program: a copy of the image of the program
 * lies in guest memory at its own addresses. KVM is used as it is, without
 * libkvm. Protection keys for supervisor pages are left out, as KVM does not
 * offer them to guests.
 */
#include "cpu_guest.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#define ARCH_REQ_XCOMP_GUEST_PERM	0x1025

/* More of the guest's memory, see cpu_guest.h. */
#define PML5		0x1000UL
#define PML4		0x2000UL
#define PDPT		0x3000UL
#define PD		0x4000UL
#define PT		0x5000UL

#define PTE_PRESENT	BIT(0)
#define PTE_WRITE	BIT(1)
#define PTE_USER	BIT(2)
#define PTE_ACCESSED	BIT(5)
#define PTE_DIRTY	BIT(6)
#define PTE_LARGE	BIT(7)

#define CR4_OSXSAVE	BIT(18)
#define CR4_PKE		BIT(22)

struct guest_de guest_de;
__u64 guest_irqs;

struct fault fault;
static_assert(offsetof(struct fault, resume) == 0 && offsetof(struct fault, vector) == 8 &&
	      offsetof(struct fault, error) == 16 && offsetof(struct fault, rip) == 24 &&
	      offsetof(struct fault, address) == 32 && offsetof(struct fault, clear_s_cet) == 40,
	      "cpu_guest.S has other offsets");

struct report *report;
struct cpu cpu;
struct guest guest;
struct op op;
struct regs other;

#define MAX_CPUID	256

static struct kvm_cpuid2 *kvm_cpuid;
static int kvm_fd;

const struct kvm_cpuid_entry2 *cpuid_entry(__u32 leaf, __u32 index)
{
	static const struct kvm_cpuid_entry2 none;
	__u32 i;

	for (i = 0; i < kvm_cpuid->nent; i++)
		if (kvm_cpuid->entries[i].function == leaf && kvm_cpuid->entries[i].index == index)
			return &kvm_cpuid->entries[i];
	return &none;
}

static int kvm(int fd, unsigned long request, void *arg, const char *what)
{
	int ret = ioctl(fd, request, arg);

	if (ret < 0) {
		check(0, "%s: %s", what, strerror(errno));
		exit(EXIT_FAILURE);
	}
	return ret;
}

void setup(void)
{
	read_cpu();
	kvm_fd = open("/dev/kvm", O_RDWR);
	if (kvm_fd < 0)
		skip("no access to /dev/kvm");
	syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM, TILEDATA);
	kvm_cpuid = calloc(1, sizeof(*kvm_cpuid) + MAX_CPUID * sizeof(kvm_cpuid->entries[0]));
	if (!kvm_cpuid)
		skip("no memory");
	kvm_cpuid->nent = MAX_CPUID;
	kvm(kvm_fd, KVM_GET_SUPPORTED_CPUID, kvm_cpuid, "KVM_GET_SUPPORTED_CPUID");
	if (cpuid_entry(1, 0)->ecx & BIT(26)) {
		guest.xcr0 = cpuid_entry(0xd, 0)->eax & KNOWN_MASK;
		guest.xss = cpuid_entry(0xd, 1)->ecx & CET_MASK;
		cpu.xcr0 = guest.xcr0;
		init_op(&op);
	}
	op.load = guest.xcr0 | guest.xss;
	op.fill = op.load;
	op.supervisor = 1;
	fill_regs(&op.in, 1);
	fill_regs(&other, 0);
	catch_faults();
}

static void put_page_tables(struct vm *vm)
{
	__u64 *pml5 = (void *)(vm->memory + PML5), *pml4 = (void *)(vm->memory + PML4);
	__u64 *pdpt = (void *)(vm->memory + PDPT), *pd = (void *)(vm->memory + PD);
	__u64 flags = PTE_PRESENT | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY;
	__u64 *pt = (void *)(vm->memory + PT);
	int i;

	/* With 5 levels all is mapped a second time, from 2^48 on. */
	pml5[0] = PML4 | PTE_USER | flags;
	pml5[1] = PML4 | PTE_USER | flags;
	pml4[0] = PDPT | PTE_USER | flags;
	pdpt[0] = PD | PTE_USER | flags;
	pd[0] = PT | PTE_USER | flags;
	for (i = 1; i < 4; i++)
		pd[i] = i << 21 | PTE_LARGE | flags;
	for (i = 0; i < 512; i++)
		pt[i] = i << 12 | flags;
	pt[USER_PAGE >> 12] |= PTE_USER;
	pt[SHADOW_STACK >> 12] &= ~PTE_WRITE;
}

void put_gate(struct vm *vm, int vector, __u64 handler)
{
	__u64 *gate = (__u64 *)(vm->memory + IDT) + 2 * vector;

	gate[0] = (handler & 0xffff) | 8 << 16 | 0x8e00ULL << 32 | (handler >> 16 & 0xffff) << 48;
	gate[1] = handler >> 32;
}

static void put_idt(struct vm *vm)
{
	__u64 *gdt = (void *)(vm->memory + GDT);
	int i;

	gdt[1] = 0x00af9b000000ffff;		/* 64-bit code */
	gdt[2] = 0x00cf93000000ffff;		/* data */
	gdt[3] = 0x00cff3000000ffff;		/* data of the user */
	gdt[4] = 0x00affb000000ffff;		/* 64-bit code of the user */
	for (i = 0; i < 32; i++)
		put_gate(vm, i, (__u64)guest_vectors + 16 * i);
}

static void put_image(struct vm *vm)
{
	unsigned char resident;
	char *page;

	if ((__u64)__executable_start < 0x400000 || (__u64)_end > MEMORY_SIZE) {
		check(0, "the program is linked to another address than the guest expects");
		exit(EXIT_FAILURE);
	}
	for (page = __executable_start; page < _end; page += 4096)
		if (!mincore(page, 4096, &resident))
			memcpy(vm->memory + (__u64)page, page, 4096);
}

static void put_sregs(struct vm *vm, __u64 cr4)
{
	struct kvm_segment code = { .limit = ~0U, .selector = 8, .type = 11, .present = 1, .s = 1,
				    .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0U, .selector = 16, .type = 3, .present = 1, .s = 1,
				    .db = 1, .g = 1 };
	struct kvm_segment tss = { .base = TSS, .limit = 0x67, .type = 11, .present = 1 };
	struct kvm_sregs sregs;

	kvm(vm->vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = data;
	sregs.es = data;
	sregs.fs = data;
	sregs.gs = data;
	sregs.ss = data;
	sregs.tr = tss;
	sregs.gdt.base = GDT;
	sregs.gdt.limit = GDT_LIMIT;
	sregs.idt.base = IDT;
	sregs.idt.limit = 0xfff;
	sregs.cr0 = 0x80000033 | CR0_WP;
	sregs.cr3 = cr4 & CR4_LA57 ? PML5 : PML4;
	sregs.cr4 = 0x620 | cr4;
	sregs.efer = 0x500;
	if (guest.xcr0)
		sregs.cr4 |= CR4_OSXSAVE;
	if (cpuid_entry(7, 0)->ecx & BIT(3))		/* PKU */
		sregs.cr4 |= CR4_PKE;
	kvm(vm->vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
}

struct vm start(void (*fn)(void), __u64 cr4, int irqchip)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE };
	struct kvm_regs regs = { .rip = (__u64)fn, .rsp = STACK_TOP - 8, .rflags = 2 };
	struct vm vm;

	vm.fd = kvm(kvm_fd, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xfffbd000UL);
	if (irqchip && ioctl(vm.fd, KVM_CREATE_IRQCHIP, 0))
		skip("no interrupt controller in KVM");
	vm.memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	if (vm.memory == MAP_FAILED) {
		check(0, "no memory for the guest");
		exit(EXIT_FAILURE);
	}
	region.userspace_addr = (__u64)vm.memory;
	kvm(vm.fd, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	put_page_tables(&vm);
	put_idt(&vm);
	put_image(&vm);
	*(__u64 *)(vm.memory + STACK_TOP - 8) = (__u64)guest_exit;
	*(__u64 *)(vm.memory + TOKEN) = TOKEN;
	vm.vcpu = kvm(vm.fd, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
	vm.run = mmap(NULL, kvm(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE"),
		      PROT_READ | PROT_WRITE, MAP_SHARED, vm.vcpu, 0);
	if (vm.run == MAP_FAILED) {
		check(0, "cannot map the vCPU");
		exit(EXIT_FAILURE);
	}
	kvm(vm.vcpu, KVM_SET_CPUID2, kvm_cpuid, "KVM_SET_CPUID2");
	put_sregs(&vm, cr4);
	kvm(vm.vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
	return vm;
}

int enter(struct vm *vm)
{
	struct fault *f = in_guest(vm, &fault);

	kvm(vm->vcpu, KVM_RUN, NULL, "KVM_RUN");
	if (vm->run->exit_reason == KVM_EXIT_IO && vm->run->io.port != PORT_FAULT)
		return check(1, " ") ? vm->run->io.port : 0;
	if (vm->run->exit_reason == KVM_EXIT_IO)
		check(0, "guest: unexpected vector %lld, error code %#llx, RIP %#llx, CR2 %#llx",
		      f->vector, f->error, f->rip, f->address);
	else if (vm->run->exit_reason == KVM_EXIT_FAIL_ENTRY)
		check(0, "VM entry failed: hardware reason %#llx",
		      vm->run->fail_entry.hardware_entry_failure_reason);
	else
		check(0, "unexpected exit %u of the guest", vm->run->exit_reason);
	exit(EXIT_FAILURE);
}

__u64 *run_guest_cr4(void (*fn)(void), __u64 cr4)
{
	struct vm vm = start(fn, cr4, 0);

	while (enter(&vm) != PORT_DONE)
		;
	return ((struct guest *)in_guest(&vm, &guest))->out;
}

__u64 *run_guest(void (*fn)(void))
{
	return run_guest_cr4(fn, 0);
}

static GUEST void guest_ops(void)
{
	guest_xsave_on();
	for (;;) {
		run_op(&op);
		guest.out[0] = op.xfd ? rdmsr(MSR_XFD_ERR) : 0;
		if (guest.out[0])
			wrmsr(MSR_XFD_ERR, 0);
		guest_sync();
	}
}

struct vm start_ops(__u64 xss)
{
	setup();
	if (!(guest.xcr0 & BIT(AVX)) || !(cpuid_entry(0xd, 1)->eax & HAS_XSAVES))
		skip("no XSAVES in guests");
	if ((guest.xss & xss) != xss)
		skip("no CET in guests");
	return start(guest_ops, 0, 0);
}

struct op *do_op(struct vm *vm, enum xsave_insn insn, __u64 rfbm)
{
	struct op *guest_op = in_guest(vm, &op);

	guest_op->insn = insn;
	guest_op->rfbm = rfbm;
	enter(vm);
	return guest_op;
}

static GUEST void guest_faults(void)
{
	TRY("ud2", "r" (0));
	guest.out[0] = fault.vector;
	guest.out[1] = fault.error;
	TRY("mov (%[p]), %%r10", [p] "r" (BIT(62)));
	guest.out[2] = fault.vector;
	TRY("movb $1, (%[p])", [p] "r" (3 * MEMORY_SIZE));
	guest.out[3] = fault.vector;
	guest.out[4] = fault.error;
	guest.out[5] = fault.address;
	TRY("movb $1, (%[p])", [p] "r" (SHADOW_STACK));
	guest.out[6] = fault.vector;
	guest.out[7] = fault.error;
}

/* Verify that faults reach the guest's handlers: all other tests need it. */
static void test_faults(void)
{
	__u64 *out;

	setup();
	out = run_guest(guest_faults);
	check_eq(out[0], UD_VECTOR, "vector of UD2");
	check_eq(out[1], 0, "error code of UD2");
	check_eq(out[2], GP_VECTOR, "vector of a load from a non-canonical address");
	check_eq(out[3], PF_VECTOR, "vector of a store to an unmapped page");
	check_eq(out[4], 2, "error code of a store to an unmapped page");
	check_eq(out[5], 3 * MEMORY_SIZE, "CR2");
	check_eq(out[6], PF_VECTOR, "vector of a store to a read-only page");
	check_eq(out[7], 3, "error code of a store to a read-only page");
}

static GUEST void guest_div(void)
{
	asm volatile("mov %%rsp, %0\n\tdiv %%ecx\n\tmov %%rsp, %1"
		     : "=&r" (guest.out[0]), "=&r" (guest.out[1])
		     : "a" (0), "c" (0), "d" (0) : "memory");
}

/*
 * Verify that a VM exit before the first instruction of an exception handler leaves
 * the exception delivered: KVM maps the page of that handler when it is first executed.
 * KVM does not intercept #DE, so that the CPU has delivered it.
 */
static void test_exit_at_handler(void)
{
	struct guest_de *de;
	struct vm vm;
	__u64 *out;

	setup();
	vm = start(guest_div, 0, 0);
	memcpy(vm.memory + OWN_LARGE_PAGE, guest_de_entry, guest_de_end - guest_de_entry);
	put_gate(&vm, DE_VECTOR, OWN_LARGE_PAGE);
	check_eq(enter(&vm), PORT_DONE, "port");
	out = ((struct guest *)in_guest(&vm, &guest))->out;
	de = in_guest(&vm, &guest_de);
	check_eq(de->entries, 1, "exceptions that arrived");
	check_eq(de->frame_rsp, out[0], "RSP in the exception frame");
	check_eq(de->rsp, (out[0] & ~0xfULL) - 40, "RSP of the handler");
	check_eq(out[1], out[0], "RSP after IRET");
}

static const struct cpu_test guest_tests_list[] = {
	{ "guest_faults", "Intel SDM vol. 3, Exception and Interrupt Reference", test_faults },
	{ "exit_at_handler", "Intel SDM vol. 3, Saving RIP, RSP, RFLAGS, and SSP",
	  test_exit_at_handler },
};

TEST_GROUP(guest_tests);

static const struct test_group *const groups[] = {
	&guest_tests, &guest_xsave_tests, &guest_xfd_tests, &guest_paging_tests,
	&guest_cet_tests, &guest_smap_tests, &guest_events_tests, &guest_nested_tests, NULL,
};

int main(int argc, char **argv)
{
	if (argc > 1) {
		fprintf(stderr, "%s: unknown argument \"%s\": use none\n", argv[0], argv[1]);
		return 2;
	}
	return run_tests(groups);
}
