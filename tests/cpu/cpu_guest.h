/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of cpu_guest share: the guest, and how it is run. */
#ifndef CPU_GUEST_H
#define CPU_GUEST_H

#include "cpu_xsave.h"

#include <linux/kvm.h>

/* Guest memory: one region from 0, mapped at the same addresses. */
#define MEMORY_SIZE	0x800000UL
#define GDT		0x6000UL
#define IDT		0x7000UL
#define TSS		0x8000UL
#define STACK_TOP	0x18000UL
#define USER_PAGE	0x20000UL
#define SHADOW_STACK	0x21000UL
#define TOKEN		(SHADOW_STACK + 0xff8)
#define BUSY_TOKEN	(SHADOW_STACK + 0x800)
#define OWN_LARGE_PAGE	0x200000UL	/* nothing else is in it */

#define GDT_LIMIT	(5 * 8 - 1)
#define USER_SS		(3 << 3 | 3)
#define USER_CS		(4 << 3 | 3)
#define TSS_RSP0	(TSS + 0x04)
#define TSS_IST1	(TSS + 0x24)

#define PORT_DONE	0xe0
#define PORT_FAULT	0xe1
#define PORT_SYNC	0xe2

#define CR0_WP		BIT(16)
#define CR4_LA57	BIT(12)
#define CR4_SMAP	BIT(21)
#define CR4_CET		BIT(23)

#define MSR_XFD_ERR	0x1c5
#define MSR_S_CET	0x6a2
#define MSR_XSS		0xda0

/* What host and guest tell each other, in the guest's copy of it. */
struct guest {
	__u64 xcr0, xss, in;
	__u64 out[80];
};

struct vm {
	__u8 *memory;
	struct kvm_run *run;
	int fd, vcpu;
};

/* In cpu_guest.S, and from the linker */
extern char guest_vectors[], guest_exit[], guest_de_entry[], guest_de_end[];
extern char guest_irq[], guest_user_end[];
extern char __executable_start[], _end[];
void guest_call(__u64 *out);
void guest_bad_return(__u64 *out);
void guest_call_sync(__u64 *out);
void guest_int_sync(__u64 *out);
extern char guest_int_entry[];
void guest_popf(__u64 rflags);
void guest_iret(__u64 rflags);
void guest_user_iret(__u64 rip, __u64 rflags);
void guest_user_sysret(__u64 rip, __u64 rflags);
extern char guest_user_code[];

/* What guest_de_entry and guest_irq note. */
extern struct guest_de {
	__u64 rsp, frame_rsp, entries;
} guest_de;
extern __u64 guest_irqs;

extern struct guest guest;
extern struct op op;
extern struct regs other;

/* See what KVM offers to guests; take all of it, AMX included. */
void setup(void);
const struct kvm_cpuid_entry2 *cpuid_entry(__u32 leaf, __u32 index);

/* Prepare a guest that runs @fn. It gets the host's variables as they are now. */
struct vm start(void (*fn)(void), __u64 cr4, int irqchip);

/* Have @handler called for @vector. */
void put_gate(struct vm *vm, int vector, __u64 handler);

/* Run up to the next exit that the guest asks for; return its port. */
int enter(struct vm *vm);

/* Run @fn to its end, @cr4 set too; return what it put into guest.out. */
__u64 *run_guest_cr4(void (*fn)(void), __u64 cr4);
__u64 *run_guest(void (*fn)(void));

/* Start a guest that runs one operation an entry, @xss enabled; run one. */
struct vm start_ops(__u64 xss);
struct op *do_op(struct vm *vm, enum xsave_insn insn, __u64 rfbm);

/* Where @address of the guest's copy of the program is. */
static inline void *in_guest(struct vm *vm, void *address)
{
	return vm->memory + (__u64)address;
}

/* Code of the guest: KVM starts it without SSE. */
#define GUEST INTEGER_ONLY

static GUEST __u64 load(__u64 address)
{
	__u64 value;

	asm volatile("mov (%1), %0" : "=r" (value) : "r" (address) : "memory");
	return value;
}

static inline void guest_sync(void)
{
	asm volatile("out %%al, $0xe2" : : : "memory");
}

static GUEST __u64 try_wrmsr(__u32 msr, __u64 value)
{
	TRY("wrmsr", "c" (msr), "a" ((__u32)value), "d" ((__u32)(value >> 32)));
	return fault.vector;
}

static GUEST void guest_xsave_on(void)
{
	asm volatile("xsetbv" : : "c" (0), "a" ((__u32)guest.xcr0), "d" (guest.xcr0 >> 32));
	if (guest.xss)
		wrmsr(MSR_XSS, guest.xss);
}

extern const struct test_group guest_tests, guest_xsave_tests, guest_xfd_tests;
extern const struct test_group guest_paging_tests, guest_cet_tests;
extern const struct test_group guest_smap_tests, guest_events_tests, guest_nested_tests;

#endif /* CPU_GUEST_H */
