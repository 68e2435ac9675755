/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest that loads known values into its state components and then executes
 * one of the XSAVE instructions, as often as the host tells it to.
 */
#ifndef SELFTEST_KVM_XSAVE_GUEST_H
#define SELFTEST_KVM_XSAVE_GUEST_H

#include "xstate_guest.h"
#include "xstate_vcpu.h"

enum insn { XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS };

static const char * const insn_names[] = {
	"XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR", "XRSTORS",
};

/* Bits of CPUID 0xD.1 EAX */
static const u32 insn_cpuid[] = {
	[XSAVE] = 0, [XSAVEOPT] = 1u << 0, [XSAVEC] = 1u << 1,
	[XSAVES] = 1u << 3, [XRSTOR] = 0, [XRSTORS] = 1u << 3,
};

/* One instruction: what it is given, what comes of it, and all memory of it */
struct op {
	u64 xcr0_max, xss_max;	/* all that the guest may set */
	u64 xcr0, xss, rfbm;
	u64 load;		/* components to load from regs first */
	u64 guest_xss;		/* IA32_XSS as it is */
	u64 sizes;		/* read CPUID right before */
	u64 leave;		/* exit to user space right before */
	u64 release;		/* TILERELEASE right before */
	u64 skew;		/* added to the address */
	u32 insn;
	u32 vector;
	u32 standard_size, compacted_size;
	struct xregs regs;
	u8 image[XAREA_SIZE] __aligned(64);
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct op op;

static GUEST_INTEGER_ONLY u8 guest_insn(u32 insn, void *area, u64 rfbm)
{
	u32 lo = rfbm, hi = rfbm >> 32;

	switch (insn) {
	case XSAVE:
		return kvm_asm_safe("xsave64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	case XSAVEOPT:
		return kvm_asm_safe("xsaveopt64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	case XSAVEC:
		return kvm_asm_safe("xsavec64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	case XSAVES:
		return kvm_asm_safe("xsaves64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	case XRSTOR:
		return kvm_asm_safe("xrstor64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	default:
		return kvm_asm_safe("xrstors64 (%[p])", [p] "r" (area),
				    "a" (lo), "d" (hi));
	}
}

/* Write only what changes: both writes exit to KVM, which takes its time. */
static GUEST_INTEGER_ONLY void guest_set_features(u64 xcr0, u64 xss)
{
	if (xgetbv(0) != xcr0)
		xsetbv(0, xcr0);
	if (op.guest_xss != xss)
		wrmsr(XF_MSR_XSS, xss);
	op.guest_xss = xss;
}

/* Nothing in here may touch the registers that were loaded. */
static GUEST_INTEGER_ONLY void guest_op(void)
{
	bool restore = op.insn >= XRSTOR;
	u32 eax, ecx, edx;

	guest_set_features(op.xcr0_max, op.xss_max);
	guest_load_xregs(&op.regs, op.load);
	if (op.release)
		asm volatile("tilerelease");
	guest_set_features(op.xcr0, op.xss);
	if (op.sizes) {
		__cpuid(0xd, 0, &eax, &op.standard_size, &ecx, &edx);
		__cpuid(0xd, 1, &eax, &op.compacted_size, &ecx, &edx);
	}
	if (op.leave)
		guest_leave();

	op.vector = guest_insn(op.insn, (restore ? op.image : op.area) +
			       op.skew, op.rfbm);

	guest_set_features(op.xcr0_max, op.xss_max);
	if (restore && !op.vector)
		guest_insn(XSAVES, op.area, ~0ull);
	guest_leave();
}

static void guest_code(void)
{
	guest_enable(op.xcr0_max);
	for (;;)
		guest_op();
}

/* The guest, what it may enable, and the taint of the kernel before it */
struct xsave_guest {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct op *op;
	u64 xcr0, xss;
	u32 insns;
	u64 taint;
};

/* Why the combination @name cannot be had here, NULL if it can */
static inline const char *xsave_guest_begin(struct xsave_guest *g,
					    const char *name)
{
	struct xcomp *x = &g->x;

	TEST_ASSERT(xstate_begin(x, name), "%s: wanted its permissions", name);
	if (x->amx && !x->amx_on)
		return "no AMX on this machine";
	if (x->shstk && !x->shstk_on)
		return "KVM offers no guest CET";
	g->taint = xf_taint();
	g->insns = xkvm_cpuid(xcomp_unpermitted, 0xd, 1).eax;
	g->xcr0 = xregs_guest_xcr0(x);
	g->xss = xregs_mask(xcomp_guest_xss(x));
	return NULL;
}

/* Make the guest. Until then libkvm's idea of guest CPUID may be changed. */
static inline void xsave_guest_make(struct xsave_guest *g)
{
	g->vcpu = xstate_guest(&g->x, guest_code);
	g->op = addr_gva2hva(g->vcpu->vm, (gva_t)&op);
	g->op->xcr0 = g->xcr0;
	g->op->xcr0_max = g->xcr0;
	g->op->xss = g->xss;
	g->op->xss_max = g->xss;
	g->op->rfbm = ~0ull;
	xregs_fill(&g->op->regs, 1);
}

static inline void xsave_guest_end(struct xsave_guest *g)
{
	if (g->vcpu)
		kvm_vm_free(g->vcpu->vm);
}

static inline bool insn_missing(struct xsave_guest *g, u32 insn)
{
	return insn_cpuid[insn] & ~g->insns;
}

/*
 * Have the guest execute the instruction. If it leaves before, with all its
 * registers loaded, have KVM put its FPU aside and load it again by an ioctl.
 */
static inline u32 run_op(struct xsave_guest *g)
{
	struct op *o = g->op;

	xarea_fill(o->area, XAREA_POISON, sizeof(o->area));
	xarea_set_header(o->area, 0, 0);
	if (o->leave) {
		xregs_run(g->vcpu);
		vcpu_get_msr(g->vcpu, o->xss_max ? XF_MSR_U_CET : MSR_EFER);
	}
	xregs_run(g->vcpu);
	return o->vector;
}

#endif /* SELFTEST_KVM_XSAVE_GUEST_H */
