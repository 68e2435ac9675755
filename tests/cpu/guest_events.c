// SPDX-License-Identifier: GPL-2.0-only
/*
 * Events in a guest: interrupts of the host, virtual interrupts of the guest itself, the
 * single-step trap around SYSCALL and SYSRET, and the breakpoint that MOV SS puts off.
 */
#include "cpu_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

#define MSR_APIC_BASE		0x1b
#define MSR_X2APIC_SVR		0x80f
#define MSR_X2APIC_SELF_IPI	0x83f
#define MSR_EFER		0xc0000080
#define MSR_STAR		0xc0000081
#define MSR_LSTAR		0xc0000082
#define MSR_FMASK		0xc0000084

#define RFLAGS_FIXED		BIT(1)
#define RFLAGS_TF		BIT(8)
#define WATCH_DR1		0x00f0040cUL	/* DR7: loads and stores of 4 bytes */

#define IRQ_VECTOR		0x40
#define USER_CODE		(USER_PAGE + 0x100)
#define NOP_UD2			0x0b0f90
#define SYSCALL_UD2		0x0b0f050f

/* The loop has an end, in case no interrupt comes. */
static GUEST void spin(__u64 turns)
{
	asm volatile("1:\tdec %0\n\tjnz 1b" : "+r" (turns));
}

static GUEST void guest_spin(void)
{
	spin(1 << 26);
}

static void nothing(int signo)
{
	(void)signo;
}

/* Verify that RFLAGS.IF of a guest, 0 from VM entry on, holds off no interrupt of the host. */
static void test_host_interrupt(void)
{
	struct itimerval soon = { .it_value.tv_usec = 20000 };
	struct sigaction sa = { .sa_handler = nothing };
	struct vm vm;
	int ret;

	setup();
	vm = start(guest_spin, 0, 0);
	sigaction(SIGPROF, &sa, NULL);
	setitimer(ITIMER_PROF, &soon, NULL);
	ret = ioctl(vm.vcpu, KVM_RUN, NULL);
	check(ret < 0 && errno == EINTR, "KVM_RUN: wanted EINTR, got %d, exit reason %u", ret,
	      vm.run->exit_reason);
}

/* Start @fn with an interrupt controller that the CPU serves, and a handler. */
static struct vm start_apicv(void (*fn)(void))
{
	struct vm vm;
	char on = 0;
	int fd;

	setup();
	fd = open("/sys/module/kvm_intel/parameters/enable_apicv", O_RDONLY);
	if (fd < 0 || read(fd, &on, 1) != 1 || on != 'Y')
		skip("no APIC virtualization");
	vm = start(fn, 0, 1);
	put_gate(&vm, IRQ_VECTOR, (__u64)guest_irq);
	put_gate(&vm, DE_VECTOR, (__u64)guest_de_entry);
	return vm;
}

static GUEST void guest_x2apic_on(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BIT(10));
	wrmsr(MSR_X2APIC_SVR, 0x1ff);
}

static GUEST void guest_irq_masked(void)
{
	guest_x2apic_on();
	/* Have IF change in the guest: VM entry is not what is tested here. */
	asm volatile("sti\n\tnop\n\tcli");
	wrmsr(MSR_X2APIC_SELF_IPI, IRQ_VECTOR);
	spin(1 << 21);
	guest.out[0] = guest_irqs;
	asm volatile("sti\n\tnop\n\tcli");
	guest.out[1] = guest_irqs;
}

/*
 * Verify that a virtual interrupt waits for RFLAGS.IF while interrupts of the host, such
 * as its timer, arrive all the time.
 */
static void test_irq_masked(void)
{
	struct vm vm = start_apicv(guest_irq_masked);
	__u64 *out;

	check_eq(enter(&vm), PORT_DONE, "port");
	out = ((struct guest *)in_guest(&vm, &guest))->out;
	check_eq(out[0], 0, "interrupts while IF is 0");
	check_eq(out[1], 1, "interrupts once IF is 1");
}

static GUEST void guest_irq_exit(void)
{
	guest_x2apic_on();
	asm volatile("mov %1, (%0)" : : "r" (TSS_IST1), "r" (OWN_LARGE_PAGE + 0x1000) : "memory");
	asm volatile("movb $1, 4(%0)" : : "r" (IDT + 16 * IRQ_VECTOR) : "memory");
	/* The last event that was delivered; two NOPs in case it comes again. */
	asm volatile("div %%ecx" : : "a" (0), "c" (0), "d" (0));
	asm volatile("sti\n\twrmsr\n\tnop\n\tnop\n\tcli"
		     : : "c" (MSR_X2APIC_SELF_IPI), "a" (IRQ_VECTOR), "d" (0) : "memory");
}

/*
 * Verify that a VM exit during the delivery of a virtual interrupt tells of that interrupt:
 * KVM maps the handler's stack when it is first used, and delivers what the CPU told.
 */
static void test_irq_exit(void)
{
	struct vm vm = start_apicv(guest_irq_exit);
	struct guest_de *de;

	check_eq(enter(&vm), PORT_DONE, "port");
	de = in_guest(&vm, &guest_de);
	check_eq(*(__u64 *)in_guest(&vm, &guest_irqs), 1, "interrupts that arrived");
	check_eq(de->entries, 1, "#DE that arrived");
}

/* Verify that VM entry takes a posted-interrupt descriptor that is 64-byte aligned. */
static void test_apicv(void)
{
	struct vm vm = start_apicv(guest_x2apic_on);

	check_eq(enter(&vm), PORT_DONE, "port");
}

static GUEST void user_code(__u32 code)
{
	asm volatile("mov %1, (%0)" : : "r" (USER_CODE), "r" (code) : "memory");
	fault.vector = NO_FAULT;
	fault.rip = 0;
}

static GUEST void guest_step(void)
{
	asm volatile("mov %1, (%0)" : : "r" (TSS_RSP0), "r" (STACK_TOP - 0x1000) : "memory");
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
	wrmsr(MSR_STAR, (USER_CS - 16ULL) << 48 | 8ULL << 32);
	wrmsr(MSR_LSTAR, (__u64)guest_user_end);
	user_code(NOP_UD2);
	guest_user_iret(USER_CODE, RFLAGS_FIXED | RFLAGS_TF);
	guest.out[0] = fault.vector;
	guest.out[1] = fault.rip;
	user_code(NOP_UD2);
	guest_user_sysret(USER_CODE, RFLAGS_FIXED | RFLAGS_TF);
	guest.out[2] = fault.vector;
	guest.out[3] = fault.rip;
	wrmsr(MSR_FMASK, RFLAGS_TF);
	user_code(SYSCALL_UD2);
	guest_user_iret(USER_CODE, RFLAGS_FIXED | RFLAGS_TF);
	guest.out[4] = fault.vector;
	wrmsr(MSR_FMASK, 0);
	user_code(SYSCALL_UD2);
	guest_user_iret(USER_CODE, RFLAGS_FIXED | RFLAGS_TF);
	guest.out[5] = fault.vector;
	guest.out[6] = fault.rip;
}

/*
 * Verify that the single-step trap after SYSCALL and SYSRET goes by the TF that they
 * leave, where IRET that sets TF has it wait for one more instruction.
 */
static void test_step(void)
{
	__u64 *out;

	setup();
	out = run_guest(guest_step);
	check_eq(out[0], DB_VECTOR, "vector after IRET that sets TF");
	check_eq(out[1], USER_CODE + 1, "RIP of the trap after IRET that sets TF");
	check_eq(out[2], DB_VECTOR, "vector after SYSRET that sets TF");
	check_eq(out[3], USER_CODE, "RIP of the trap after SYSRET that sets TF");
	check_eq(out[4], NO_FAULT, "vector after SYSCALL with TF set that clears TF");
	check_eq(out[5], DB_VECTOR, "vector after SYSCALL that leaves TF set");
	check_eq(out[6], (__u64)guest_user_end, "RIP of the trap after SYSCALL");
}

static GUEST void guest_movss(void)
{
	static __u32 ss = 16;

	asm volatile("mov %0, %%dr1\n\tmov %1, %%dr7" : : "r" (&ss), "r" (WATCH_DR1));
	asm volatile("mov %0, %%ss\n\tnop" : : "m" (ss) : "memory");
	guest.out[0] = guest_irqs;
	asm volatile("mov %0, %%ss\n\tint3" : : "m" (ss) : "memory");
	guest.out[1] = guest_irqs;
	asm volatile("mov %0, %%ss\n\tint $1" : : "m" (ss) : "memory");
	guest.out[2] = guest_irqs;
	asm volatile("mov %0, %%ss\n\t.byte 0xf1" : : "m" (ss) : "memory");
	guest.out[3] = guest_irqs;
	asm volatile("mov %0, %%dr7" : : "r" (BIT(10)));
}

/*
 * Verify that a breakpoint on the operand of MOV SS, which waits for the next instruction,
 * comes after that: with INT n as a second exception, with INT1 (ICEBP) as one.
 */
static void test_movss(void)
{
	static const char *const names[] = { "NOP", "INT3", "INT 1", "INT1" };
	static const __u64 wanted[] = { 1, 3, 5, 6 };
	struct vm vm;
	__u64 *out;
	int i;

	setup();
	vm = start(guest_movss, 0, 0);
	put_gate(&vm, DB_VECTOR, (__u64)guest_irq);
	put_gate(&vm, BP_VECTOR, (__u64)guest_irq);
	check_eq(enter(&vm), PORT_DONE, "port");
	out = ((struct guest *)in_guest(&vm, &guest))->out;
	for (i = 0; i < 4; i++)
		check(out[i] == wanted[i], "exceptions up to MOV SS and %s: wanted %lld, got %lld",
		      names[i], wanted[i], out[i]);
}

static GUEST void guest_read_cr2(void)
{
	asm volatile("mov %%cr2, %0" : "=r" (guest.out[0]));
	guest_sync();
	asm volatile("mov %%cr2, %0" : "=r" (guest.out[1]));
}

/* Verify that CR2 is the guest's from VM entry on, wherever the host has faulted. */
static void test_cr2(void)
{
	struct kvm_sregs sregs;
	struct vm vm;
	__u64 *out;
	char *page;
	int ret;

	setup();
	vm = start(guest_read_cr2, 0, 0);
	ret = ioctl(vm.vcpu, KVM_GET_SREGS, &sregs);
	sregs.cr2 = 0x123456789abc;
	check(!ret && !ioctl(vm.vcpu, KVM_SET_SREGS, &sregs), "no KVM_SET_SREGS");
	check_eq(enter(&vm), PORT_SYNC, "port");
	/* The first access is a fault of the host. */
	page = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*page = 1;
	check_eq(enter(&vm), PORT_DONE, "port");
	out = ((struct guest *)in_guest(&vm, &guest))->out;
	check_eq(out[0], sregs.cr2, "CR2 of the guest");
	check_eq(out[1], sregs.cr2, "CR2 of the guest after a fault of the host");
}

static const struct cpu_test guest_events_tests_list[] = {
	{ "host_interrupt", "Intel SDM vol. 3, Event Blocking (VMX non-root operation)",
	  test_host_interrupt },
	{ "apicv_entry", "Intel SDM vol. 3, Checks on VMX Controls (posted interrupts)",
	  test_apicv },
	{ "virtual_interrupt_masked", "Intel SDM vol. 3, Virtual-Interrupt Delivery",
	  test_irq_masked },
	{ "virtual_interrupt_exit",
	  "Intel SDM vol. 3, Information for VM Exits During Event Delivery", test_irq_exit },
	{ "syscall_single_step", "Linux, exc_debug_kernel() and do_syscall_64()",
	  test_step },
	{ "guest_cr2", "AMD64 manual vol. 2, VMRUN Instruction (Loading Guest State)", test_cr2 },
	{ "movss_breakpoint", "Intel SDM vol. 3, Masking Exceptions When Switching Stacks",
	  test_movss },
};

TEST_GROUP(guest_events_tests);
