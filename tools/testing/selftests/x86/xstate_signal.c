// SPDX-License-Identifier: GPL-2.0-only
/*
 * What sigreturn(2) makes of a frame that the handler has changed: which of it
 * becomes state of the task, what becomes initial, and what is refused.  A frame
 * is all that a task can hand to XRSTOR as it likes, so components that it does
 * not have must not get in.
 */
#define _GNU_SOURCE

#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "xpasid.h"
#include "xregs.h"

#define FRAME_MXCSR		0x5f80
#define FRAME_FCW		0x77f
#define FRAME_PKRU		0x55555554
#define FRAME_FILL		0x3c

/* Room for a frame, and for what is above it */
#define STACK_SIZE		(32 * 4096)
#define ABOVE			4096

/* No CPU has a use for it. */
#define RESERVED_MXCSR		0x80000000

/* What the handler does with the XSAVE area of its frame */
typedef void (*edit_fn)(struct xregs *frame);

static edit_fn edit;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	edit((void *)((uint8_t *)uc->uc_mcontext.fpregs + XREGS_IN_FRAME));
}

static uint64_t after_sse(void)
{
	return xregs_mask() & ~XFEATURE_MASK_FPSSE;
}

/*
 * Take a signal with @loaded in the registers and a handler that changes its
 * frame by @fn.  Return the registers after sigreturn(2).
 */
static struct xregs *registers_after(struct __test_metadata *const _metadata,
				     const struct xregs *loaded, edit_fn fn)
{
	const struct sigaction action = {
		.sa_sigaction = on_signal,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	stack_t ss = { .ss_size = STACK_SIZE };
	struct xregs *saved = xregs_alloc();

	/* Zeros are no magic number, wherever the kernel looks for one. */
	ss.ss_sp = xf_guarded(STACK_SIZE + ABOVE, 0);
	edit = fn;
	EXPECT_EQ(0, sigaltstack(&ss, NULL));
	EXPECT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	EXPECT_EQ(0, xregs_call_between(loaded, saved, SYS_kill, getpid(), SIGUSR1));
	return saved;
}

/* The same with the pattern: the registers are @wanted after it. */
static void expect_after(struct __test_metadata *const _metadata, const struct xregs *wanted,
			 edit_fn fn, const char *when)
{
	struct xregs *saved = registers_after(_metadata, xregs_pattern(xregs_mask()), fn);

	EXPECT_XREGS(xregs_mask(), wanted, saved, "%s", when);
}

/* The pattern with all but x87 and SSE as it is initially */
static struct xregs *only_fpsse(void)
{
	struct xregs *regs = xregs_pattern(xregs_mask());

	xregs_set(regs, after_sse(), 0);
	return regs;
}

FIXTURE(xstate_signal) {
	struct xcomp_perm perm;
};

FIXTURE_SETUP(xstate_signal)
{
	xcomp_begin(_metadata, variant);
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
}

FIXTURE_TEARDOWN(xstate_signal)
{
	xcomp_end(_metadata);
}

static void edit_values(struct xregs *frame)
{
	frame->mxcsr = FRAME_MXCSR;
	memset(frame->xmm, FRAME_FILL, 16 * XREGS_COUNT);
	xregs_set(frame, after_sse() & ~XFEATURE_MASK_PKRU, FRAME_FILL);
	if (xf_xcr0() & XFEATURE_MASK_PKRU)
		*(uint32_t *)xregs_at(frame, XFEATURE_MASK_PKRU) = FRAME_PKRU;
}

/* Verify that what a handler writes to its frame is what the task gets. */
TEST_F(xstate_signal, values)
{
	struct xregs *wanted = xregs_pattern(xregs_mask());

	edit_values(wanted);
	expect_after(_metadata, wanted, edit_values, "as written to the frame");
}

static void edit_bv(struct xregs *frame)
{
	frame->xstate_bv &= XFEATURE_MASK_FPSSE;
}

/* Verify that components that a handler takes out of XSTATE_BV are reset. */
TEST_F(xstate_signal, bv)
{
	expect_after(_metadata, only_fpsse(), edit_bv, "without their bits in XSTATE_BV");
}

static void edit_xfeatures(struct xregs *frame)
{
	frame->sw.xfeatures &= XFEATURE_MASK_FPSSE;
}

/* Verify the same of components that a handler takes out of xfeatures. */
TEST_F(xstate_signal, xfeatures)
{
	expect_after(_metadata, only_fpsse(), edit_xfeatures, "without their bits in xfeatures");
}

static uint32_t *magic2(struct xregs *frame)
{
	return (uint32_t *)((uint8_t *)frame + frame->sw.xstate_size);
}

static void edit_magic1(struct xregs *frame)
{
	frame->sw.magic1 = 0;
}

static void edit_magic2(struct xregs *frame)
{
	*magic2(frame) = 0;
}

/* Larger than any, with a magic number where that size puts it */
static void edit_larger(struct xregs *frame)
{
	uint32_t magic = *magic2(frame);

	frame->sw.xstate_size += 64;
	frame->sw.extended_size += 64;
	*magic2(frame) = magic;
}

static void edit_smaller(struct xregs *frame)
{
	uint32_t magic = *magic2(frame);

	frame->sw.xstate_size = XF_HEADER_OFFSET;
	*magic2(frame) = magic;
}

static void edit_extended(struct xregs *frame)
{
	frame->sw.extended_size = frame->sw.xstate_size - 4;
}

struct change {
	const char *when;
	edit_fn fn;
};

static void expect_only_fpsse(struct __test_metadata *const _metadata, void *arg)
{
	const struct change *c = arg;

	expect_after(_metadata, only_fpsse(), c->fn, c->when);
}

/*
 * Verify that of a frame that does not say, in every way it has to, that it is
 * an XSAVE area of this task only the x87 and SSE state is taken.
 */
TEST_F(xstate_signal, legacy)
{
	static struct change changes[] = {
		{ "without magic1", edit_magic1 },
		{ "without magic2", edit_magic2 },
		{ "with too large a size", edit_larger },
		{ "with too small a size", edit_smaller },
		{ "with a size beyond extended_size", edit_extended },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(changes); i++)
		xcomp_in_child(_metadata, changes[i].when, expect_only_fpsse, &changes[i]);
}

static void edit_fpsse(struct xregs *frame)
{
	edit_values(frame);
	/* FSAVE's registers, where a frame has them, are those that count. */
	*(uint16_t *)((uint8_t *)frame - XREGS_IN_FRAME) = FRAME_FCW;
}

/*
 * Verify that programs that know nothing of XSTATE_BV can change x87 and SSE
 * registers that were initial.
 */
TEST_F(xstate_signal, fpsse)
{
	struct xregs *regs = xregs_pattern(xregs_mask()), *saved;

	regs->xstate_bv &= ~XFEATURE_MASK_FPSSE;
	/* XRSTOR loads it along with AVX, and XSAVE takes others for SSE. */
	regs->mxcsr = XREGS_INITIAL_MXCSR;
	saved = registers_after(_metadata, regs, edit_fpsse);

	edit_values(regs);
	EXPECT_SAME(FRAME_MXCSR, saved->mxcsr, "MXCSR that was initial");
	EXPECT_SAME(FRAME_FCW, saved->fcw, "FCW that was initial");
	EXPECT_BYTES(regs->xmm, saved->xmm, 16 * XREGS_COUNT, "XMM that was initial");
}

#ifdef __x86_64__
static void edit_tile(struct xregs *frame)
{
	frame->sw.xfeatures |= XFEATURE_MASK_XTILE_DATA;
	frame->xstate_bv |= XFEATURE_MASK_XTILE_DATA;
}

static void tile_by_frame(struct __test_metadata *const _metadata, void *when)
{
	expect_after(_metadata, xregs_pattern(xregs_mask()), edit_tile, when);
	EXPECT_THAT(!xregs_tiles_in_use(), "tiles in use %s", (char *)when);
}

/*
 * Verify that a frame with XTILE_DATA does not give it to a task that has not
 * used it, whether that has the permission or not.
 */
TEST_F(xstate_signal, tile)
{
	if (!xcomp_have_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_in_child(_metadata, "no permission", tile_by_frame,
		       "with XTILE_DATA in the frame, without permission");
	xcomp_request_guest(_metadata, &self->perm);
	xcomp_in_child(_metadata, "guest's permission", tile_by_frame,
		       "with XTILE_DATA in the frame and the guest's permission");
	xcomp_request_host(_metadata, &self->perm);
	xcomp_in_child(_metadata, "host's permission", tile_by_frame,
		       "with XTILE_DATA in the frame and both permissions");
}

static bool handler_has_tiles;

/* Last of all, as the handler leaves its registers behind */
static void leave_tiles(struct xregs *frame)
{
	(void)frame;
	xregs_load_tiles(xregs_pattern(XFEATURE_MASK_XTILE));
	handler_has_tiles = xregs_tiles_in_use();
}

static void leave_tiles_xfeatures(struct xregs *frame)
{
	frame->sw.xfeatures &= ~XFEATURE_MASK_XTILE_DATA;
	leave_tiles(frame);
}

static void leave_tiles_legacy(struct xregs *frame)
{
	edit_magic1(frame);
	leave_tiles(frame);
}

static void expect_no_tiles(struct __test_metadata *const _metadata, void *arg)
{
	const struct change *c = arg;

	registers_after(_metadata, xregs_pattern(xregs_mask()), c->fn);
	EXPECT_THAT(handler_has_tiles, "no tiles in use in the handler, %s", c->when);
	EXPECT_THAT(!xregs_tiles_in_use(), "tiles in use after the handler, %s", c->when);
}

static void use_amx_first(struct __test_metadata *const _metadata, void *arg)
{
	xcomp_touch_amx();
	expect_no_tiles(_metadata, arg);
}

/*
 * Verify that tiles that a handler leaves loaded are gone if its frame has none,
 * even if that is because the handler was the first to use them.
 */
TEST_F(xstate_signal, tile_left)
{
	static struct change first = { "which was the first to use them", leave_tiles };
	static struct change changes[] = {
		{ "with tiles that are not in XSTATE_BV", leave_tiles },
		{ "with tiles that are not in xfeatures", leave_tiles_xfeatures },
		{ "with a frame without magic1", leave_tiles_legacy },
	};
	unsigned int i;

	if (!xcomp_have_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	xcomp_in_child(_metadata, first.when, expect_no_tiles, &first);
	for (i = 0; i < ARRAY_SIZE(changes); i++)
		xcomp_in_child(_metadata, changes[i].when, use_amx_first, &changes[i]);
}
#endif /* __x86_64__ */

/* A child that takes a signal with such a frame is killed. */
static void expect_killed(struct __test_metadata *const _metadata, edit_fn fn, const char *what)
{
	pid_t pid = xcomp_fork(_metadata);
	int status;

	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		/* No core dump */
		prctl(PR_SET_DUMPABLE, 0);
		registers_after(_metadata, xregs_pattern(xregs_mask()), fn);
		xcomp_exit();
	}
	status = xcomp_wait(_metadata, pid, what);
	EXPECT_SAME(SIGSEGV, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
		    "signal that ends a task whose frame has %s", what);
}

/* With bit 63 it would be a compacted area, which XRSTOR takes. */
static void edit_xcomp_bv(struct xregs *frame)
{
	frame->xcomp_bv = xf_xcr0();
}

static void edit_reserved(struct xregs *frame)
{
	frame->reserved4[0] = 1;
}

static void edit_unknown(struct xregs *frame)
{
	frame->xstate_bv |= 1ULL << 62;
}

static void edit_supervisor(struct xregs *frame)
{
	frame->sw.xfeatures |= XFEATURE_MASK_PASID | XFEATURE_MASK_CET;
	frame->xstate_bv |= XFEATURE_MASK_PASID | XFEATURE_MASK_CET;
}

/* Verify that a task is killed for a frame that XRSTOR would fault on. */
TEST_F(xstate_signal, refused)
{
	expect_killed(_metadata, edit_xcomp_bv, "XCOMP_BV without bit 63");
	expect_killed(_metadata, edit_reserved, "a reserved byte in the header");
	expect_killed(_metadata, edit_unknown, "an unknown component");
	expect_killed(_metadata, edit_supervisor, "PASID and CET in XSTATE_BV");
}

static void edit_mxcsr(struct xregs *frame)
{
	frame->mxcsr = RESERVED_MXCSR;
}

static void end_quietly(int sig)
{
	_exit(sig);
}

static bool xrstor_faults(struct __test_metadata *const _metadata)
{
	pid_t pid = xcomp_fork(_metadata);
	struct xregs *regs;

	if (!pid) {
		signal(SIGSEGV, end_quietly);
		regs = xregs_pattern(xregs_mask());
		regs->mxcsr = RESERVED_MXCSR;
		xregs_call_between(regs, xregs_alloc(), SYS_getpid, 0, 0);
		xcomp_exit();
	}
	return xcomp_wait(_metadata, pid, "XRSTOR of a reserved bit in MXCSR");
}

/* Verify the same of a reserved bit in MXCSR, which not every emulator faults on. */
TEST_F(xstate_signal, refused_mxcsr)
{
	if (!xrstor_faults(_metadata))
		SKIP(return, "XRSTOR takes reserved bits of MXCSR");
	expect_killed(_metadata, edit_mxcsr, "a reserved bit in MXCSR");
}

/* Verify that supervisor state, which no frame has, is kept. */
TEST_F(xstate_signal, pasid)
{
	static const struct change changes[] = {
		{ "after sigreturn() of a changed frame", edit_values },
		{ "after sigreturn() without bits in XSTATE_BV", edit_bv },
		{ "after sigreturn() without bits in xfeatures", edit_xfeatures },
		{ "after sigreturn() without magic2", edit_magic2 },
	};
	unsigned int i;

	if (!xpasid_need(_metadata))
		return;
	for (i = 0; i < ARRAY_SIZE(changes); i++) {
		xpasid_give(_metadata);
		registers_after(_metadata, xregs_pattern(xregs_mask()), changes[i].fn);
		xpasid_expect_kept(_metadata, changes[i].when);
	}
}

XCOMP_HARNESS_MAIN
