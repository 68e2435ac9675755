/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Carry out the steps of xstate_model.h on the machine, and compare.
 *
 * Permissions cannot be taken back, so each list of steps has a process of its own,
 * which may fork, or execute the program anew, on the way.  All these processes share
 * one piece of memory at one address.  So do their guests, which run functions of
 * the program where these are: guest addresses are those of the process.
 */
#ifndef SELFTEST_KVM_XSTATE_STEPS_H
#define SELFTEST_KVM_XSTATE_STEPS_H

#include "xstate_model.h"

#define XS_MAX_STEPS		64
#define XS_MAX_CPUID		256
#define XS_MAX_JOINED		4	/* instructions of a guest from exit to exit */

/* One instruction for a guest, and what came of it */
struct xs_insn {
	u64 nr, msr, set, mask, value;
	u64 vector, read[2];
};

struct xs_cpuid {
	struct kvm_cpuid2 header;
	struct kvm_cpuid_entry2 entries[XS_MAX_CPUID];
};

struct xs_memory {
	/* for the guest */
	u64 page_tables[4][512];
	u64 gdt[4];
	struct idt_entry idt[32];
	u8 stack[4096] __aligned(16);
	struct xs_insn insns[XS_MAX_JOINED];
	u64 nr_insns;
	struct xregs sets[XM_SETS];
	u8 areas[XS_MAX_JOINED][XAREA_SIZE] __aligned(64);
	/* for all processes */
	struct xm_machine machine;
	struct xs_cpuid cpuids[XM_KINDS];
	struct xm model;		/* where a new program goes on */
	struct xm_step steps[XS_MAX_STEPS];
	u32 nr_steps, at;		/* and the one that is carried out */
	char row[TH_ROW_SIZE];
	bool silent;
	/* for whoever needs that much: guests of other tests are to stay as small as they are */
	u8 got[XAREA_SIZE], wanted[XAREA_SIZE];
	u8 host_area[XAREA_SIZE] __aligned(64);
	struct xregs regs;
	struct xs_cpuid cpuid;
};

/* Programs are in the first GiB, and their heap within another one behind them. */
#define XS_MEMORY		((struct xs_memory *)0x80000000)

/* xstate_guest.c, and where this program is */
extern const char xs_guest_handlers[], __executable_start[], _end[];
void xs_make_guest_tables(void);
struct kvm_vcpu *xs_new_vcpu(void);
void xs_fill_sregs(struct kvm_sregs *sregs, u64 cr4);
void xs_set_guest_regs(struct kvm_vcpu *vcpu);

/* xstate_steps.c */
void xs_prepare(struct __test_metadata *const _metadata);
bool xs_run(struct __test_metadata *const _metadata, bool silent);
void xs_resume(void);
ssize_t xs_output(char *text, size_t size);
const char *xs_describe(const struct xm_step *s);

#endif /* SELFTEST_KVM_XSTATE_STEPS_H */
