/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of what kernel, KVM and CPU promise about permissions, guest CPUID and
 * extended state: what is taken or refused, and what each register holds then.
 *
 * It is a structure and functions of it, which know CPUID leaf 0xD and what struct
 * xm_machine says, and no more.  A step is one call, or one instruction of a guest:
 * xm_allows() tells whether anything is promised of it, xm_take() changes the model as
 * it must change the machine, and returns what the caller must be told.  What a component
 * holds is a set of values, by number; 0 is its initial state.
 */
#ifndef SELFTEST_KVM_XSTATE_MODEL_H
#define SELFTEST_KVM_XSTATE_MODEL_H

#include "xregs.h"

#ifndef X86_CR4_PKE
#define X86_CR4_PKE	BIT(22)
#endif

#define XM_VCPUS	2
#define XM_SETS		4

/* Guest CPUID is a combination of AMX and CET; a new vCPU has none. */
#define XM_KIND(amx, cet)	((amx) | (cet) << 1)
#define XM_KINDS		8
#define XM_NO_CPUID		(-1)

/* Registers by number: cet_msrs[], SSP, which is no MSR, and more MSRs */
enum { XM_SSP = NR_CET_MSRS, XM_XSS, XM_XFD, XM_XFD_ERR, XM_PASID, XM_MSRS };

u32 xm_msr(int nr);

/* What the machine has, and what known kernels and CPUs do otherwise */
struct xm_machine {
	u64 xcr0, xss;			/* components that KVM knows */
	u64 address_end;		/* of the lower half of what is canonical */
	u32 listed;			/* registers that KVM lists as MSRs */
	bool amx, shstk, ibt, pku, xfd, xsaves, xsavec;
	bool one_reg, sregs2, run_sregs, ignores_msrs;
	bool half_amx;			/* XTILE_CFG is offered without permission */
	bool drops_fpstate;		/* by the first CPUID with AMX */
	bool init_is_half;		/* it leaves S_CET, SSP and the SSP table */
	bool no_xsetbv;			/* XSETBV of guests does not exit */
	bool old_mxcsr;			/* that of before beside initial SSE, without XSAVES */
	char fault[32];			/* the name of a rule that is turned round, and */
	bool fault_was_asked;		/* whether anybody has asked for it */
};

struct xm_vcpu {
	s8 kind;
	bool exists, ran, grown;
	bool long_mode;			/* its guest can run */
	bool exact;			/* nothing has loaded its FPU since KVM_SET_XSAVE */
	bool pkru_shown;		/* KVM_GET_XSAVE2 must have PKRU */
	bool tiles_touched;		/* XTILE_DATA may be in memory, initial or not */
	u64 holds[XM_SETS];		/* components, by the set that they hold */
	u64 unknown;			/* those of which nothing is promised */
	u64 bv;				/* XSTATE_BV in memory, if exact */
	u64 xcr0, cr4, msr[XM_MSRS];
};

enum xm_altstack { XM_NO_ALTSTACK, XM_SMALL_ALTSTACK, XM_LARGE_ALTSTACK };

struct xm {
	struct xm_machine *machine;
	bool host, guest, locked;	/* permissions, and the lock */
	bool used_amx;			/* by the first thread */
	u8 altstack, forks, execs;
	struct xm_vcpu vcpu[XM_VCPUS];
};

enum xm_op {
	/* of the process */
	XM_REQUEST,		/* how: for the guest, value: number */
	XM_ALTSTACK,		/* how */
	XM_SIGNAL, XM_USE_AMX,
	XM_OFFERED,		/* look at KVM_GET_SUPPORTED_CPUID and KVM_CAP_XSAVE2 */
	XM_FORK, XM_EXEC,	/* go on in the child, or in the new program */
	/* of a vCPU */
	XM_CREATE, XM_DESTROY,
	XM_CPUID,		/* set: kind */
	XM_SREGS,		/* how, value: bits of CR4 */
	XM_XCRS,		/* value */
	XM_XSAVE,		/* how, set, mask: XSTATE_BV */
	XM_SET_MSR,		/* how: by KVM_SET_ONE_REG, nr, value */
	XM_INIT,
	XM_IMMEDIATE,		/* KVM_RUN with immediate_exit */
	XM_PENDING,		/* KVM_RUN with a signal pending */
	XM_MOVE,		/* to another VM; how: XSAVE comes first */
	XM_GUEST,		/* nr: enum xm_insn */
	XM_NR_OPS
};

enum xm_sregs { XM_BY_SREGS, XM_BY_SREGS2, XM_BY_RUN };
enum xm_xsave { XM_PLAIN, XM_SHORT, XM_XCOMP_BV, XM_RESERVED, XM_BAD_MXCSR };

enum xm_insn {
	XM_LOAD,					/* set, mask: each component by its own */
	XM_WRPKRU, XM_RDPKRU, XM_TILES, XM_TILERELEASE,	/* set */
	XM_INSN_XSAVE, XM_INSN_XSAVEC, XM_INSN_XSAVES,	/* mask: RFBM */
	XM_INSN_XRSTOR, XM_INSN_XRSTORS,		/* set, mask: RFBM, value: XSTATE_BV */
	XM_XSETBV,					/* value */
	XM_WRMSR, XM_RDMSR,				/* how: number, value */
	XM_INSN_CPUID,
	XM_NR_INSNS
};

#define XM_BY_THREAD	BIT(0)	/* by a thread of its own */
#define XM_LIVE		BIT(1)	/* with all registers of the host in use */
#define XM_JOINED	BIT(2)	/* in the same KVM_RUN as the instruction before */
#define XM_LOOK		BIT(3)	/* at all of all vCPUs afterwards */

struct xm_step {
	u8 op, vcpu, flags, how, nr, set;
	u64 mask, value;
};

/* An errno or a vector, or nothing promised; and what was read */
struct xm_answer {
	u32 result;
	bool any;
	u64 read[2];
};

void xm_start(struct xm *m, struct xm_machine *machine);
bool xm_allows(const struct xm *m, const struct xm_step *s);
struct xm_answer xm_take(struct xm *m, const struct xm_step *s);

/* What is to be seen */
/* Each decision has a name, so that it can be turned round, to see whether that is noticed. */
bool xm_rule(const struct xm *m, const char *name, bool holds);
u64 xm_host_mask(const struct xm *m);
u64 xm_frame_mask(const struct xm *m, const struct xm_step *s);
u64 xm_offered_xcr0(const struct xm *m);
u32 xm_area_size(const struct xm_vcpu *v);
u32 xm_compacted_size(const struct xm *m, const struct xm_vcpu *v);
u64 xm_shown(const struct xm *m, const struct xm_vcpu *v);
u64 xm_in_use(const struct xm_vcpu *v);
u64 xm_saved(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s);
u64 xm_cet_value(const struct xm *m, const struct xm_vcpu *v, int nr, int set);
struct xm_answer xm_read_msr(const struct xm *m, const struct xm_vcpu *v, int nr);

#endif /* SELFTEST_KVM_XSTATE_MODEL_H */
