/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checks of the registers of a host task around its first use of AMX, when the
 * kernel gives it a larger fpstate, and of what its children get of its tiles.
 */
#ifndef SELFTESTS_X86_XCOMP_FRAME_REGS_H
#define SELFTESTS_X86_XCOMP_FRAME_REGS_H

#include "xcomp_regs.h"

#ifndef ARCH_SHSTK_ENABLE
#define ARCH_SHSTK_ENABLE	0x5001
#endif
#define XCOMP_SHSTK		1

/* Tile 0: 16 rows of 64 bytes */
#define XCOMP_TILE_ROWS		16
#define XCOMP_TILE_ROW		64
#define XCOMP_TILE_SIZE		(XCOMP_TILE_ROWS * XCOMP_TILE_ROW)

/* What the instructions of AMX take and give */
struct xcomp_tile {
	uint8_t config[64];
	uint8_t data[XCOMP_TILE_SIZE];
};

static inline void xcomp_tile_init(struct xcomp_tile *t, uint8_t fill)
{
	memset(t, 0, sizeof(*t));
	t->config[0] = 1;
	t->config[16] = XCOMP_TILE_ROW;
	t->config[48] = XCOMP_TILE_ROWS;
	memset(t->data, fill, sizeof(t->data));
}

/* ldtilecfg (%rax); tileloadd (%rdi,%rcx,1),%tmm0 */
#define XCOMP_LDTILECFG		".byte 0xc4, 0xe2, 0x78, 0x49, 0x00\n\t"
#define XCOMP_TILELOADD		".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x0f\n\t"
/* tilestored %tmm0,(%rdi,%rcx,1); tilerelease */
#define XCOMP_TILESTORED	".byte 0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x0f\n\t"
#define XCOMP_TILERELEASE	".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0\n\t"

static inline void xcomp_tile_load(struct xcomp_tile *t)
{
	asm volatile(XCOMP_LDTILECFG XCOMP_TILELOADD
		     : : "a" (t->config), "D" (t->data),
			 "c" ((long)XCOMP_TILE_ROW) : "memory");
}

static inline void xcomp_tile_store(struct xcomp_tile *t)
{
	asm volatile(XCOMP_TILESTORED
		     : : "D" (t->data), "c" ((long)XCOMP_TILE_ROW) : "memory");
}

static inline void xcomp_tile_release(void)
{
	asm volatile(XCOMP_TILERELEASE);
}

/* Whether this task has something in its tiles, as the CPU sees it */
static inline bool xcomp_tile_in_use(void)
{
	uint8_t *area = xcomp_area();
	uint64_t bv;

	xcomp_xsave(area, XF_BIT(XF_XTILE_DATA));
	memcpy(&bv, area + XF_HEADER_OFFSET, sizeof(bv));
	return bv & XF_BIT(XF_XTILE_DATA);
}

static inline bool xcomp_tile_saved(struct xcomp *x, const uint8_t *area)
{
	uint64_t bv;

	memcpy(&bv, area + XF_HEADER_OFFSET, sizeof(bv));
	return xcomp_same(x, "XTILE_DATA in use", XF_BIT(XF_XTILE_DATA),
			  bv & XF_BIT(XF_XTILE_DATA));
}

/*
 * Load the state of @pattern, use AMX, and save all state at once, and again
 * after three sleeps. From the first load on no compiled code may run, as it
 * would use the registers. In the end all is as it was.
 */
static inline void xcomp_use_between(const uint8_t *pattern,
				     struct xcomp_tile *t, uint8_t *saved[2])
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	uint8_t *before = xcomp_area();
	uint64_t mask[2] = { xcomp_pattern_mask(), xf_xcr0() };
	const void *p[] = { pattern, t->config, t->data, saved[0], saved[1],
			    &nap, before };

	asm volatile("mov 0(%[mask]), %%eax\n\t"
		     "mov 4(%[mask]), %%edx\n\t"
		     "mov 48(%[p]), %%rdi\n\t"
		     "xsave64 (%%rdi)\n\t"
		     "mov 0(%[p]), %%rdi\n\t"
		     "xrstor64 (%%rdi)\n\t"
		     "mov 8(%[p]), %%rax\n\t"
		     "mov 16(%[p]), %%rdi\n\t"
		     "mov $64, %%ecx\n\t"
		     XCOMP_LDTILECFG
		     XCOMP_TILELOADD
		     "mov 8(%[mask]), %%eax\n\t"
		     "mov 12(%[mask]), %%edx\n\t"
		     "mov 24(%[p]), %%rdi\n\t"
		     "xsave64 (%%rdi)\n\t"
		     "mov $3, %%ebx\n"
		     "1:\n\t"
		     "mov %[nanosleep], %%eax\n\t"
		     "mov 40(%[p]), %%rdi\n\t"
		     "xor %%esi, %%esi\n\t"
		     "syscall\n\t"
		     "dec %%ebx\n\t"
		     "jnz 1b\n\t"
		     "mov 8(%[mask]), %%eax\n\t"
		     "mov 12(%[mask]), %%edx\n\t"
		     "mov 32(%[p]), %%rdi\n\t"
		     "xsave64 (%%rdi)\n\t"
		     "mov 16(%[p]), %%rdi\n\t"
		     "mov $64, %%ecx\n\t"
		     XCOMP_TILESTORED
		     XCOMP_TILERELEASE
		     "mov 0(%[mask]), %%eax\n\t"
		     "mov 4(%[mask]), %%edx\n\t"
		     "mov 48(%[p]), %%rdi\n\t"
		     "xrstor64 (%%rdi)\n\t"
		     : : [p] "r" (p), [mask] "r" (mask),
			 [nanosleep] "i" (SYS_nanosleep)
		     : "rax", "rbx", "rcx", "rdx", "rdi", "rsi", "r11",
		       "memory");
}

/*
 * Verify that the first use of AMX changes no other register, and that they
 * and the tile are still there once another task has had the CPU.
 */
static inline int xcomp_check_first_use(struct xcomp *x)
{
	uint8_t *saved[2] = { xcomp_area(), xcomp_area() };
	uint8_t *pattern = xcomp_pattern();
	struct xcomp_tile t, wanted;
	pid_t hog;
	bool ok;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (!xcomp_request(x, false) || xcomp_pin() < 0)
		return KSFT_FAIL;

	xcomp_tile_init(&wanted, 0xa7);
	t = wanted;
	hog = xcomp_hog();
	xcomp_use_between(pattern, &t, saved);
	xcomp_kill_hog(hog);

	ok = xcomp_same_state(x, "right after it", pattern, saved[0]);
	ok &= xcomp_tile_saved(x, saved[0]);
	ok &= xcomp_same_state(x, "once another task has run", pattern,
			       saved[1]);
	ok &= xcomp_tile_saved(x, saved[1]);
	ok &= xcomp_same_bytes(x, "tile", "once another task has run",
			       wanted.data, t.data, sizeof(t.data));
	return xcomp_verdict(xcomp_rule(x, ok,
		"the first use of AMX keeps all other registers"));
}

/* The same by a task that also has the guest's permission and runs a vCPU */
static inline int xcomp_check_first_use_vcpu(struct xcomp *x)
{
	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (!xcomp_open_whole_kvm(x))
		return KSFT_SKIP;
	x->amx = true;
	if (!xcomp_request(x, true) || xcomp_vcpu(x) ||
	    !xkvm_run_immediate_exit(x->kvm, x->vcpu))
		return KSFT_FAIL;
	return xcomp_check_first_use(x);
}

/* rdsspq %rax */
#define XCOMP_RDSSP		".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8\n\t"

/* 0 where shadow stacks are off */
static inline uint64_t xcomp_ssp(void)
{
	uint64_t ssp = 0;

	asm volatile(XCOMP_RDSSP : "+a" (ssp));
	return ssp;
}

/* What to do with a shadow stack; does not return, as its caller has none. */
static inline __noreturn void
xcomp_use_on_shadow_stack(struct xcomp *x)
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	uint64_t ssp = xcomp_ssp();
	struct xcomp_tile t;
	pid_t hog;
	bool ok;
	int i;

	ok = xcomp_same(x, "shadow stack is on", true, !!ssp);
	xcomp_tile_init(&t, 0xa7);
	xcomp_tile_load(&t);
	ok &= xcomp_same(x, "SSP right after the first use of AMX", ssp,
			 xcomp_ssp());
	xcomp_tile_release();
	hog = xcomp_hog();
	for (i = 0; i < 3; i++)
		nanosleep(&nap, NULL);
	xcomp_kill_hog(hog);
	ok &= xcomp_same(x, "SSP once another task has run", ssp, xcomp_ssp());
	xcomp_rule(x, ok, "the first use of AMX keeps the shadow stack");
	fflush(stdout);
	_exit(xcomp_verdict(ok));
}

/* Not a function of its own: what returns must have been called before. */
static __always_inline bool xcomp_enable_shadow_stack(void)
{
	long error;

	asm volatile("syscall"
		     : "=a" (error)
		     : "0" ((long)SYS_arch_prctl), "D" (ARCH_SHSTK_ENABLE),
		       "S" ((long)XCOMP_SHSTK)
		     : "rcx", "r11", "memory");
	return !error;
}

static inline int xcomp_first_use_with_shadow_stack(struct xcomp *x)
{
	if (!xcomp_request(x, false) || xcomp_pin() < 0)
		return KSFT_FAIL;
	if (!xcomp_enable_shadow_stack())
		return xcomp_skip(x, "no user shadow stacks");
	xcomp_use_on_shadow_stack(x);
}

/* Verify that CET_USER of a task is kept over its first use of AMX. */
static inline int xcomp_check_first_use_shstk(struct xcomp *x)
{
	const struct xcomp_check check = {
		x->name, xcomp_first_use_with_shadow_stack
	};

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	return xcomp_fork(x, &check, xcomp_body);
}

/* Tell the parent, whose memory this is, where the shadow stack is. */
static inline int xcomp_tell_ssp(void *arg)
{
	*(uint64_t *)arg = xcomp_ssp();
	return 0;
}

/* Does not return, as its caller has no shadow stack. */
static inline __noreturn void xcomp_clone_on_shadow_stack(struct xcomp *x)
{
	static uint8_t stack[64 * 1024];
	uint64_t ssp = xcomp_ssp(), theirs = 0;
	pid_t pid;
	bool ok;

	if (x->have_amx)
		xf_use_amx();
	pid = clone(xcomp_tell_ssp, stack + sizeof(stack), CLONE_VM | SIGCHLD,
		    &theirs);
	ok = xcomp_same(x, "child", pid, waitpid(pid, NULL, 0));
	ok &= xcomp_same(x, "the child has a shadow stack", true, !!theirs);
	ok &= xcomp_same(x, "it is away from that of its parent", true,
			 theirs - ssp + sizeof(stack) > 2 * sizeof(stack));
	xcomp_rule(x, ok,
		   "a child on its parent's memory gets a shadow stack of its own");
	fflush(stdout);
	_exit(xcomp_verdict(ok));
}

static inline int xcomp_clone_with_shadow_stack(struct xcomp *x)
{
	if (x->have_amx && !xcomp_request(x, false))
		return KSFT_FAIL;
	if (!xcomp_enable_shadow_stack())
		return xcomp_skip(x, "no user shadow stacks");
	xcomp_clone_on_shadow_stack(x);
}

/*
 * Verify that a child that shares its parent's memory does not share its shadow
 * stack, whose pointer the kernel sets in the child's fpstate. That one is
 * smaller than its parent's if the parent has used AMX.
 */
static inline int xcomp_check_clone_shstk(struct xcomp *x)
{
	const struct xcomp_check check = {
		x->name, xcomp_clone_with_shadow_stack
	};

	return xcomp_fork(x, &check, xcomp_body);
}

static inline int xcomp_has_no_tile(struct xcomp *x)
{
	return xcomp_verdict(xcomp_same(x, "tiles in use by a child", false,
					xcomp_tile_in_use()));
}

static inline void *xcomp_thread_tile(void *arg)
{
	*(bool *)arg = xcomp_tile_in_use();
	return NULL;
}

/*
 * Verify that neither a child nor a thread starts with its creator's tiles,
 * and that the creator keeps them.
 */
static inline int xcomp_check_tile_not_inherited(struct xcomp *x)
{
	struct xcomp_tile t, wanted;
	bool ok, thread = true;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	ok = xcomp_request(x, false);
	if (!ok)
		return KSFT_FAIL;
	xcomp_tile_init(&wanted, 0x6e);
	t = wanted;
	xcomp_tile_load(&t);
	ok = xcomp_same(x, "tiles in use by their owner", true,
			xcomp_tile_in_use());
	ok &= xcomp_sub(x, xcomp_has_no_tile);
	ok &= xcomp_thread(x, xcomp_thread_tile, &thread);
	ok &= xcomp_same(x, "tiles in use by a thread", false, thread);
	memset(t.data, 0, sizeof(t.data));
	xcomp_tile_store(&t);
	xcomp_tile_release();
	ok &= xcomp_same_bytes(x, "tile", "of the parent", wanted.data, t.data,
			       sizeof(t.data));
	return xcomp_verdict(xcomp_rule(x, ok, "XTILE_DATA is not inherited"));
}

#endif /* SELFTESTS_X86_XCOMP_FRAME_REGS_H */
