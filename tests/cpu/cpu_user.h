/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of cpu_user share. */
#ifndef CPU_USER_H
#define CPU_USER_H

#include "cpu_xsave.h"

#define ARCH_GET_XCOMP_PERM	0x1022
#define ARCH_REQ_XCOMP_PERM	0x1023

extern struct op op;
extern struct regs other;
extern int write_msrs;

/* Return the components to test, with the permission to use AMX. */
__u64 setup(__u32 features);
void need_amx(__u64 mask);

/* Run one instruction on @op. */
void run(enum xsave_insn insn, __u64 rfbm);

/* XRSTOR the components @bv of @other from a @xcomp_bv area; check the result. */
int restore(enum xsave_insn insn, __u64 rfbm, __u64 bv, __u64 xcomp_bv);

extern const struct test_group cpuid_tests, xsave_tests, amx_tests, memory_tests, msr_tests;

#endif /* CPU_USER_H */
