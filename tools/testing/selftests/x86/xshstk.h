/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of a task's shadow stacks share.  Where SSP may be anywhere nothing may be
 * called, nor return, so all of this is inline.
 */
#ifndef SELFTESTS_X86_XSHSTK_H
#define SELFTESTS_X86_XSHSTK_H

#include "xregs.h"

/* What older headers lack */
#ifndef ARCH_SHSTK_UNLOCK
#define ARCH_SHSTK_UNLOCK	0x5004
#endif
#ifndef ARCH_SHSTK_STATUS
#define ARCH_SHSTK_STATUS	0x5005
#endif
#ifndef SHADOW_STACK_SET_TOKEN
#define SHADOW_STACK_SET_TOKEN	1
#endif
#ifndef SYS_map_shadow_stack
#define SYS_map_shadow_stack	453
#endif

#define XSHSTK_PAGE		4096ull
#define XSHSTK_4G		XF_BIT(32)
#define XSHSTK_NO_SMAPS		"no /proc/self/smaps"

static __always_inline long xshstk_call(long nr, long arg1, long arg2, long arg3)
{
	asm volatile("syscall" : "+a" (nr) : "D" (arg1), "S" (arg2), "d" (arg3)
		     : "rcx", "r11", "memory");
	return nr;
}

static __always_inline void xshstk_write(void *at, uint64_t value)
{
	asm volatile("wrssq %1, (%0)" : : "r" (at), "r" (value) : "memory");
}

/* The errno of ARCH_SHSTK_*, or 0 */
static __always_inline int xshstk_request(int option, unsigned long features)
{
	return -xshstk_call(SYS_arch_prctl, option, features, 0);
}

#endif /* SELFTESTS_X86_XSHSTK_H */
