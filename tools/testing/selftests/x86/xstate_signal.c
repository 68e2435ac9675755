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

#include "xregs.h"

#define FRAME_FCW		0xb7f
#define FRAME_MXCSR		0x5f80
#define FRAME_PKRU		0x55555554
#define FRAME_FILL		0x3c

/* Room for a frame, and for what is above it */
#define STACK_SIZE		(32 * 4096)
#define ABOVE			4096

/* No CPU has a use for it. */
#define RESERVED_MXCSR		0x80000000

/* What the handler does with the XSAVE area of its frame; from XCOMP_BV on, that is refused. */
enum {
	NOTHING, VALUES, NO_BV, NO_XFEATURES, NO_MAGIC1, NO_MAGIC2, TOO_LARGE, TOO_SMALL,
	BEYOND_EXTENDED, TILE, XCOMP_BV, RESERVED_BYTE, UNKNOWN, SUPERVISOR, MXCSR,
};

static const char * const edits[] = {
	[NOTHING] = "no change",
	[VALUES] = "other values",
	[NO_BV] = "no bits in XSTATE_BV",
	[NO_XFEATURES] = "no bits in xfeatures",
	[NO_MAGIC1] = "no magic1",
	[NO_MAGIC2] = "no magic2",
	[TOO_LARGE] = "too large a size",
	[TOO_SMALL] = "too small a size",
	[BEYOND_EXTENDED] = "a size beyond extended_size",
	[TILE] = "XTILE_DATA",
	[XCOMP_BV] = "XCOMP_BV without bit 63",
	[RESERVED_BYTE] = "a reserved byte in the header",
	[UNKNOWN] = "an unknown component",
	[SUPERVISOR] = "PASID and CET",
	[MXCSR] = "a reserved bit in MXCSR",
};

static int edit;
#ifdef __x86_64__
static bool leaves_tiles, handler_has_tiles;
#endif

static void write_values(struct xregs *regs)
{
	regs->fcw = FRAME_FCW;
	regs->mxcsr = FRAME_MXCSR;
	memset(regs->xmm, FRAME_FILL, 16 * XREGS_COUNT);
	xregs_set(regs, xregs_mask() & ~XFEATURE_MASK_PKRU, FRAME_FILL);
	if (xf_xcr0() & XFEATURE_MASK_PKRU)
		*(uint32_t *)xregs_at(regs, XFEATURE_MASK_PKRU) = FRAME_PKRU;
}

/* Have another size, with a magic number where that puts it. */
static void resize(struct xregs *frame, uint32_t size)
{
	uint8_t *bytes = (void *)frame;

	memmove(bytes + size, bytes + frame->sw.xstate_size, FP_XSTATE_MAGIC2_SIZE);
	frame->sw.extended_size += size - frame->sw.xstate_size;
	frame->sw.xstate_size = size;
}

static void edit_frame(struct xregs *frame)
{
	const uint64_t supervisor = XFEATURE_MASK_PASID | XFEATURE_MASK_CET;

	switch (edit) {
	case VALUES:
		write_values(frame);
		/* FSAVE's registers, where a frame has them, are those that count. */
		*(uint16_t *)((uint8_t *)frame - XREGS_IN_FRAME) = FRAME_FCW;
		break;
	case NO_BV:
		frame->xstate_bv &= XFEATURE_MASK_FPSSE;
		break;
	case NO_XFEATURES:
		frame->sw.xfeatures &= XFEATURE_MASK_FPSSE;
		break;
	case NO_MAGIC1:
		frame->sw.magic1 = 0;
		break;
	case NO_MAGIC2:
		memset((uint8_t *)frame + frame->sw.xstate_size, 0, FP_XSTATE_MAGIC2_SIZE);
		break;
	case TOO_LARGE:
		resize(frame, frame->sw.xstate_size + 64);
		break;
	case TOO_SMALL:
		resize(frame, XF_HEADER_OFFSET);
		break;
	case BEYOND_EXTENDED:
		frame->sw.extended_size = frame->sw.xstate_size - 4;
		break;
	case TILE:
		frame->sw.xfeatures |= XFEATURE_MASK_XTILE_DATA;
		frame->xstate_bv |= XFEATURE_MASK_XTILE_DATA;
		break;
	case XCOMP_BV:
		/* With bit 63 it would be a compacted area, which XRSTOR takes. */
		frame->xcomp_bv = xf_xcr0();
		break;
	case RESERVED_BYTE:
		frame->reserved4[0] = 1;
		break;
	case UNKNOWN:
		frame->xstate_bv |= 1ULL << 62;
		break;
	case SUPERVISOR:
		frame->sw.xfeatures |= supervisor;
		frame->xstate_bv |= supervisor;
		break;
	case MXCSR:
		frame->mxcsr = RESERVED_MXCSR;
		break;
	}
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	edit_frame((void *)((uint8_t *)uc->uc_mcontext.fpregs + XREGS_IN_FRAME));
#ifdef __x86_64__
	/* Last of all, as the handler leaves its registers behind */
	if (leaves_tiles) {
		xregs_load_tiles(xregs_pattern(XFEATURE_MASK_XTILE));
		handler_has_tiles = xregs_tiles_in_use();
	}
#endif
}

/*
 * The registers after sigreturn(2), which were @loaded before the signal.  Zeros
 * on the stack are no magic number, wherever the kernel looks for one.
 */
static struct xregs *registers_after(struct __test_metadata *const _metadata,
				     const struct xregs *loaded)
{
	return xregs_take_signal(_metadata, loaded, on_signal, xf_guarded(STACK_SIZE + ABOVE, 0),
				 STACK_SIZE);
}

/* The same with the pattern: the registers are @wanted after it. */
static void expect_after(struct __test_metadata *const _metadata, const struct xregs *wanted)
{
	struct xregs *saved = registers_after(_metadata, xregs_pattern(xregs_mask()));

	EXPECT_XREGS(xregs_mask(), wanted, saved, "after a frame with %s", edits[edit]);
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

/* Verify that what a handler writes to its frame is what the task gets. */
TEST_F(xstate_signal, values)
{
	struct xregs *wanted = xregs_pattern(xregs_mask());

	edit = VALUES;
	write_values(wanted);
	expect_after(_metadata, wanted);
}

/* Known kernels bring in those of the frame first, and then make the others initial. */
static void expect_only_fpsse(struct __test_metadata *const _metadata, void *arg)
{
	struct xregs *wanted = xregs_pattern(xregs_mask());
	struct xregs *saved = registers_after(_metadata, wanted);
	bool reset = edit != NO_BV && xregs_are_standard() &&
		     saved->mxcsr == XREGS_INITIAL_MXCSR;

	(void)arg;
	xregs_set(wanted, xregs_mask(), 0);
	if (reset)
		wanted->mxcsr = saved->mxcsr;
	EXPECT_XREGS(xregs_mask(), wanted, saved, "after a frame with %s", edits[edit]);
	XFAIL_IF(reset, "MXCSR of a frame without AVX is lost to the standard format")
		EXPECT_THAT(!reset, "MXCSR after a frame with %s is initial", edits[edit]);
}

/*
 * Verify that components that a handler takes out of XSTATE_BV or xfeatures are
 * reset, and that of a frame that does not say, in every way it has to, that it
 * is an XSAVE area of this task only the x87 and SSE state is taken.
 */
TEST_F(xstate_signal, left_out)
{
	for (edit = NO_BV; edit <= BEYOND_EXTENDED; edit++)
		xf_in_child(_metadata, edits[edit], expect_only_fpsse, NULL);
}

/*
 * Verify that programs that know nothing of XSTATE_BV can change x87 and SSE
 * registers that were initial.
 */
TEST_F(xstate_signal, fpsse)
{
	struct xregs *loaded = xregs_pattern(xregs_mask()), *wanted = xregs_alloc(), *saved;

	loaded->xstate_bv &= ~XFEATURE_MASK_FPSSE;
	/* XRSTOR loads it along with AVX, and XSAVE takes others for SSE. */
	loaded->mxcsr = XREGS_INITIAL_MXCSR;
	edit = VALUES;
	saved = registers_after(_metadata, loaded);
	write_values(wanted);
	EXPECT_XREGS(XFEATURE_MASK_FPSSE, wanted, saved, "what was initial");
}

#ifdef __x86_64__
static void tile_by_frame(struct __test_metadata *const _metadata, void *when)
{
	th_case("%s", (char *)when);
	edit = TILE;
	expect_after(_metadata, xregs_pattern(xregs_mask()));
	EXPECT_THAT(!xregs_tiles_in_use(), "tiles in use after a frame with XTILE_DATA");
}

/*
 * Verify that a frame with XTILE_DATA does not give it to a task that has not
 * used it, whether that has the permission or not.
 */
TEST_F(xstate_signal, tile)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xf_in_child(_metadata, "no permission", tile_by_frame, "without permission");
	xcomp_request_guest(_metadata, &self->perm);
	xf_in_child(_metadata, "guest's permission", tile_by_frame, "guest's permission");
	xcomp_request_host(_metadata, &self->perm);
	xf_in_child(_metadata, "both permissions", tile_by_frame, "both permissions");
}

static void expect_no_tiles(struct __test_metadata *const _metadata, void *used)
{
	th_case("AMX used before: %s", used ? "yes" : "no");
	leaves_tiles = true;
	if (used)
		xf_touch_amx();
	registers_after(_metadata, xregs_pattern(xregs_mask()));
	EXPECT_THAT(handler_has_tiles, "no tiles in use in the handler");
	EXPECT_THAT(!xregs_tiles_in_use(), "tiles in use after a frame with %s", edits[edit]);
}

/*
 * Verify that tiles that a handler leaves loaded are gone if its frame has none,
 * even if that is because the handler was the first to use them.
 */
TEST_F(xstate_signal, tile_left)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	for (edit = NOTHING; edit <= BEYOND_EXTENDED; edit++) {
		xf_in_child(_metadata, "a first use by the handler", expect_no_tiles, NULL);
		xf_in_child(_metadata, "a second use by the handler", expect_no_tiles, self);
	}
}
#endif /* __x86_64__ */

/* A child that takes a signal with such a frame is killed. */
static void expect_killed(struct __test_metadata *const _metadata)
{
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		/* No core dump */
		prctl(PR_SET_DUMPABLE, 0);
		registers_after(_metadata, xregs_pattern(xregs_mask()));
		xf_exit();
	}
	status = xf_wait(_metadata, pid, edits[edit]);
	EXPECT_SAME(SIGSEGV, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
		    "signal that ends a task whose frame has %s", edits[edit]);
}

/* Verify that a task is killed for a frame that XRSTOR would fault on. */
TEST_F(xstate_signal, refused)
{
	for (edit = XCOMP_BV; edit <= SUPERVISOR; edit++)
		expect_killed(_metadata);
}

static void end_quietly(int sig)
{
	_exit(sig);
}

static bool xrstor_faults(struct __test_metadata *const _metadata)
{
	pid_t pid = xf_fork(_metadata);
	struct xregs *regs;

	if (!pid) {
		signal(SIGSEGV, end_quietly);
		regs = xregs_pattern(xregs_mask());
		regs->mxcsr = RESERVED_MXCSR;
		xregs_load(regs, xregs_mask());
		xf_exit();
	}
	return xf_wait(_metadata, pid, "XRSTOR of a reserved bit in MXCSR");
}

/* Verify the same of a reserved bit in MXCSR, which not every emulator faults on. */
TEST_F(xstate_signal, refused_mxcsr)
{
	if (!xrstor_faults(_metadata))
		SKIP(return, "XRSTOR takes reserved bits of MXCSR");
	edit = MXCSR;
	expect_killed(_metadata);
}

/* Verify that supervisor state, which no frame has, is kept. */
TEST_F(xstate_signal, pasid)
{
	if (!xf_pasid_need(_metadata))
		return;
	for (edit = VALUES; edit <= BEYOND_EXTENDED; edit++) {
		xf_pasid_give(_metadata);
		registers_after(_metadata, xregs_pattern(xregs_mask()));
		xf_pasid_expect_kept(_metadata, edits[edit]);
	}
}

XCOMP_HARNESS_MAIN
