/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of what kernel, KVM and CPU promise about permissions, guest CPUID and
 * extended state: what is taken or refused, and what each register holds then.
 *
 * It is a structure and functions of it, which know nothing but CPUID leaf 0xD and
 * what struct xm_machine says.  A step is one call or one instruction of a guest:
 * xm_allows() tells whether anything is promised about it, xm_take() changes the
 * model as it must change the machine, and returns what the caller must be told.
 * What a component holds is the number of a set of values; 0 is its initial state.
 */
#ifndef SELFTEST_KVM_XSTATE_MODEL_H
#define SELFTEST_KVM_XSTATE_MODEL_H

#include "xregs.h"

#define XM_VCPUS	2
#define XM_SETS		4
#define XM_COMPONENTS	19

/* Guest CPUID: a combination of AMX and CET, as an index; a vCPU starts with none */
#define XM_KIND(amx, cet)	((amx) | (cet) << 1)
#define XM_KINDS		8
#define XM_NO_CPUID		(-1)

/* MSRs by number: cet_msrs[], then these */
enum { XM_XSS = NR_CET_MSRS, XM_XFD, XM_XFD_ERR, XM_PASID, XM_MSRS };

u32 xm_msr(int nr);

/* ---- rules ---- */

/*
 * Each decision that the model takes, by name: turned round by XSTATE_MODEL_FAULT, it
 * must make the test fail.
 */
#define XM_RULES(R)								\
	R(NUMBER_EXISTS) R(NUMBER_DYNAMIC) R(REQUEST_REPEATED) R(REQUEST_LOCKED)	\
	R(REQUEST_ALTSTACK) R(ALTSTACK_SIZE) R(MASK_HOST) R(MASK_GUEST)			\
	R(FORK_HOST) R(FORK_GUEST) R(FORK_LOCK) R(EXEC_HOST) R(EXEC_GUEST) R(EXEC_LOCK)	\
	R(AMX_NEEDS_PERMISSION) R(FRAME_DYNAMIC) R(OFFERED_AMX)				\
	R(CPUID_PERMISSION) R(CPUID_AFTER_RUN) R(CPUID_DROPS) R(SIZE_GROWS)		\
	R(XSAVE_UNKNOWN) R(XSAVE_RESERVED) R(XSAVE_NEEDS_CPUID) R(XSAVE_DISARMED)	\
	R(XSAVE_KEEPS_PKRU) R(XSAVE_INITIAL) R(XSAVE_HIDES) R(XCR0_LEGAL) R(XCR0_CPUID)	\
	R(MSR_CET) R(MSR_LISTED) R(MSR_CONTROL) R(MSR_ADDRESS) R(MSR_XSS) R(MSR_XFD)	\
	R(SSP_EXISTS) R(SSP_VALUE) R(CR4_CET) R(CR4_PKE)				\
	R(INIT_CET) R(INIT_SPARES) R(INIT_ELSEWHERE) R(MOVED_HIDDEN)			\
	R(GUEST_OSXSAVE) R(GUEST_PKE) R(GUEST_XTILE) R(GUEST_XFD) R(GUEST_XFD_MSR)	\
	R(GUEST_RELEASE) R(GUEST_CET) R(GUEST_XSS) R(XSETBV_LEGAL) R(XSAVES_XSS)	\
	R(XRSTOR_REFUSED) R(XRSTOR_INITIAL) R(SIZE_XSS)

#define XM_ENUM(name)	XM_##name,
enum xm_rule { XM_RULES(XM_ENUM) XM_NR_RULES };

extern const char * const xm_rule_names[XM_NR_RULES];

/* ---- the machine ---- */

/* What was found out by trying, once, in a process that did nothing else */
struct xm_machine {
	u64 xcr0;			/* user components that KVM knows */
	u64 xss;			/* supervisor components that it offers */
	u64 address_end;		/* of the lower half of what is canonical */
	bool amx, shstk, ibt, pku, xfd, xsaves, xsavec;
	bool one_reg, sregs2, run_sregs, ignores_msrs;
	bool half_amx;			/* XTILE_CFG is offered without permission */
	bool drops_fpstate;		/* by the first CPUID with AMX */
	bool init_is_half;		/* S_CET, SSP and the SSP table stay */
	bool no_xsetbv;			/* XSETBV of guests does not exit */
	u32 listed;			/* MSRs that KVM lists */
	u32 pkru[XM_SETS];		/* what the sets have */
	enum xm_rule fault;		/* which rule is turned round; XM_NR_RULES is none */
};

/* ---- the state ---- */

struct xm_vcpu {
	s8 kind;
	bool exists, ran, grown;
	bool long_mode;			/* its guest can run */
	bool exact;			/* its FPU was not loaded since KVM_SET_XSAVE */
	bool pkru_shown;		/* KVM_GET_XSAVE2 must have PKRU */
	bool tiles_touched;		/* XTILE_DATA may be in memory */
	u8 set[XM_COMPONENTS];
	u64 unknown;			/* components that hold nothing promised */
	u64 bv;				/* XSTATE_BV in memory, if exact */
	u64 xcr0, cr4;
	u64 msr[XM_MSRS], ssp;
};

enum xm_altstack { XM_NO_ALTSTACK, XM_SMALL_ALTSTACK, XM_LARGE_ALTSTACK };

struct xm {
	const struct xm_machine *machine;
	bool host, guest, locked;	/* permissions, and the lock */
	bool used_amx;			/* by the first thread */
	u8 altstack, forks, execs;
	struct xm_vcpu vcpu[XM_VCPUS];
};

/* ---- steps ---- */

enum xm_op {
	/* of the process */
	XM_REQUEST,		/* how: option, value: number */
	XM_ALTSTACK,		/* how: enum xm_altstack */
	XM_SIGNAL,		/* deliver one, look at the frame */
	XM_USE_AMX,
	XM_OFFERED,		/* look at KVM_GET_SUPPORTED_CPUID and KVM_CAP_XSAVE2 */
	XM_FORK, XM_EXEC,	/* go on in a child, or in a new program */
	/* of a vCPU */
	XM_CREATE, XM_DESTROY,
	XM_CPUID,		/* set: kind */
	XM_SREGS,		/* how: enum xm_sregs, value: bits of CR4 */
	XM_XCRS,		/* value */
	XM_XSAVE,		/* how: enum xm_xsave, set, mask: XSTATE_BV */
	XM_SET_MSR, XM_GET_MSR,	/* how: by KVM_SET_ONE_REG or not, nr, value */
	XM_SSP,			/* value */
	XM_INIT,
	XM_IMMEDIATE,		/* KVM_RUN with immediate_exit */
	XM_PENDING,		/* KVM_RUN with a signal pending */
	XM_MOVE,		/* to another VM; how: order */
	XM_GUEST,		/* nr: enum xm_insn */
	XM_NR_OPS
};

enum xm_sregs { XM_BY_SREGS, XM_BY_SREGS2, XM_BY_RUN };
enum xm_xsave { XM_PLAIN, XM_SHORT, XM_XCOMP_BV, XM_RESERVED, XM_BAD_MXCSR };

/* Instructions of a guest */
enum xm_insn {
	XM_LOAD,		/* set, mask: by instructions of each component */
	XM_WRPKRU, XM_RDPKRU,
	XM_TILES, XM_TILERELEASE,
	XM_INSN_XSAVE, XM_INSN_XSAVEC, XM_INSN_XSAVES,	/* mask: RFBM */
	XM_INSN_XRSTOR, XM_INSN_XRSTORS,		/* set, mask: RFBM, value: XSTATE_BV */
	XM_XSETBV,		/* value */
	XM_WRMSR, XM_RDMSR,	/* how: number of the MSR, value */
	XM_INSN_CPUID,
	XM_NR_INSNS
};

#define XM_BY_THREAD	BIT(0)	/* by a thread of its own */
#define XM_LIVE		BIT(1)	/* with all registers of the host in use */
#define XM_JOINED	BIT(2)	/* in the same KVM_RUN as the instruction before */
#define XM_LOOK		BIT(3)	/* at MSRs, SREGS and CPUID as well */

struct xm_step {
	u8 op, vcpu, flags, how, nr, set;
	u64 mask, value;
};

/* What a call or an instruction gives: an errno or a vector, and what was read */
struct xm_answer {
	u32 result;
	bool any_result;	/* not promised */
	u64 read[2];
};

void xm_start(struct xm *m, const struct xm_machine *machine);
bool xm_allows(const struct xm *m, const struct xm_step *s);
struct xm_answer xm_take(struct xm *m, const struct xm_step *s);

/* ---- what is to be seen ---- */

bool xm_rule(const struct xm *m, enum xm_rule rule, bool holds);
bool xm_kind_amx(int kind);
u64 xm_cpuid_xcr0(const struct xm *m, const struct xm_vcpu *v);
bool xm_has_shstk(const struct xm *m, const struct xm_vcpu *v);
bool xm_has_ibt(const struct xm *m, const struct xm_vcpu *v);
u64 xm_cet_value(const struct xm *m, const struct xm_vcpu *v, int nr, int set);
u32 xm_area_size(const struct xm_vcpu *v);
u64 xm_shown(const struct xm *m, const struct xm_vcpu *v);
u64 xm_in_use(const struct xm_vcpu *v);
u64 xm_saved(const struct xm *m, const struct xm_vcpu *v, const struct xm_step *s);
u64 xm_offered_xcr0(const struct xm *m);
u64 xm_frame_mask(const struct xm *m, const struct xm_step *s);
u64 xm_host_mask(const struct xm *m);
u32 xm_compacted_size(const struct xm *m, const struct xm_vcpu *v);

#endif /* SELFTEST_KVM_XSTATE_MODEL_H */
