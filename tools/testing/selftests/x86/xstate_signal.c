// SPDX-License-Identifier: GPL-2.0-only
/*
 * What sigreturn(2) makes of a frame that the handler has changed: which of it
 * becomes state of the task, what becomes initial, and what is refused.  A frame
 * is all that a task can hand to XRSTOR as it likes, so components that it does
 * not have must not get in.
 */
#define _GNU_SOURCE

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "xregs.h"

#define FRAME_FCW		0xb7f
#define FRAME_MXCSR		0x5f80
#define FRAME_PKRU		0x55555554
#define FRAME_FILL		0x3c
#define HANDLER_FILL		0xc3
#define HANDLER_PKRU		0x44444444

#define PAGE			4096

/* Room for a frame, and for what is above it */
#define STACK_SIZE		(32 * PAGE)
#define ABOVE			PAGE

/* No CPU has a use for it. */
#define RESERVED_MXCSR		0x80000000

/* What the handler does with the XSAVE area of its frame: XCOMP_BV to MXCSR are refused. */
enum {
	NOTHING, VALUES, NO_BV, NO_XFEATURES, NO_MAGIC1, NO_MAGIC2, TOO_LARGE, TOO_SMALL,
	BEYOND_EXTENDED, NO_AREA, XCOMP_BV, RESERVED_BYTE, UNKNOWN, SUPERVISOR, OF_KERNEL,
	OF_NOBODY, MXCSR, TILE, SIZES, UNALIGNED,
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
	[NO_AREA] = "no XSAVE area",
	[XCOMP_BV] = "XCOMP_BV without bit 63",
	[RESERVED_BYTE] = "a reserved byte in the header",
	[UNKNOWN] = "an unknown component",
	[SUPERVISOR] = "PASID and CET",
	[OF_KERNEL] = "an XSAVE area of the kernel",
	[OF_NOBODY] = "an XSAVE area that is not mapped",
	[MXCSR] = "a reserved bit in MXCSR",
	[TILE] = "XTILE_DATA",
	[SIZES] = "sizes of its own",
	[UNALIGNED] = "an XSAVE area that is not aligned",
};

static int edit;
/* What the frame says for SIZES */
static uint32_t xstate_size, extended_size;

/* If not 0, how many bytes of the XSAVE area are before a page that the handler protects so */
static uint32_t protected_at;
static int protection;
static uint8_t *protected_page;

#define UNMAPPED		-1

/* Where to the handler moves the XSAVE area, with what is below it */
static uint8_t *moved;

/* What the handler of a 32-bit program writes there, if anything */
static const uint8_t *fsave;
static size_t fsave_size;

/* As the program starts, as the handler leaves them, and as the handler leaves its frame */
static struct xregs *initial, *of_handler, *in_frame;

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

/* Have another size, with the magic number where that puts it, unless it is far away. */
static void resize(struct xregs *frame, uint32_t size)
{
	const uint32_t magic2 = FP_XSTATE_MAGIC2;
	uint8_t *bytes = (void *)frame;

	/* Kernels that look for the old one are to take the frame, if they can read it. */
	if (!protected_at)
		memset(bytes + frame->sw.xstate_size, 0, sizeof(magic2));
	if (size < frame->sw.xstate_size + ABOVE)
		memcpy(bytes + size, &magic2, sizeof(magic2));
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
	case TILE:
		frame->sw.xfeatures |= XFEATURE_MASK_XTILE_DATA;
		frame->xstate_bv |= XFEATURE_MASK_XTILE_DATA;
		break;
	case SIZES:
		resize(frame, xstate_size);
		frame->sw.extended_size = extended_size;
		break;
	}
}

/* No program has memory there, of either kind. */
#define KERNEL_MEMORY		((void *)(-2L * PAGE))

static void edit_pointer(mcontext_t *context, uint32_t size)
{
	uint8_t *area = (void *)context->fpregs, *to = NULL;

	switch (edit) {
	case NO_AREA:
		context->fpregs = NULL;
		break;
	case OF_KERNEL:
		context->fpregs = KERNEL_MEMORY;
		break;
	case OF_NOBODY:
		munmap(moved, PAGE);
		context->fpregs = (void *)moved;
		break;
	case NOTHING:
		to = moved;
		break;
	case UNALIGNED:
		to = area + 8;
		break;
	}
	if (!to)
		return;
	memmove(to, area, XREGS_IN_FRAME + size + FP_XSTATE_MAGIC2_SIZE);
	context->fpregs = (void *)to;
}

static void edit_context(mcontext_t *context)
{
	struct xregs *frame = (void *)((uint8_t *)context->fpregs + XREGS_IN_FRAME);
	uint32_t size = frame->sw.xstate_size;

	edit_frame(frame);
	if (fsave)
		memcpy(context->fpregs, fsave, fsave_size);
	memcpy(in_frame, frame, xf_standard_size(xregs_mask()));
	edit_pointer(context, size);
	if (protected_page && protection == UNMAPPED)
		munmap(protected_page, PAGE);
	else if (protected_page)
		mprotect(protected_page, PAGE, protection);
	/* Last of all, as the handler leaves its registers behind */
	xregs_load(of_handler, xregs_mask());
#ifdef __x86_64__
	if (leaves_tiles) {
		xregs_load_tiles(xregs_pattern(XFEATURE_MASK_XTILE));
		handler_has_tiles = xregs_tiles_in_use();
	}
#endif
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	edit_context(&uc->uc_mcontext);
}

#ifndef __x86_64__
static void on_old_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	edit_context(XREGS_OLD_CONTEXT());
}
#endif

static void (*handler)(int sig, siginfo_t *info, void *context) = on_signal;

/*
 * The registers after sigreturn(2), which were @loaded before the signal.  Zeros
 * on the stack are no magic number, wherever the kernel looks for one.  What is
 * refused raises SIGSEGV, and that is all that does.
 */
static struct xregs *registers_after(struct __test_metadata *const _metadata,
				     const struct xregs *loaded)
{
	bool has_tiles = loaded->xstate_bv & XFEATURE_MASK_XTILE_DATA;
	uint8_t *stack = xf_guarded(STACK_SIZE + ABOVE, 0);
	bool refused = (edit >= XCOMP_BV && edit <= MXCSR) ||
		       (edit == UNALIGNED && sizeof(long) == 8);
	size_t size = STACK_SIZE;
	struct xregs *saved;

	if (protected_at) {
		protected_page = stack + STACK_SIZE / 2;
		size = STACK_SIZE / 2 - protected_at + FP_XSTATE_MAGIC2_SIZE +
		       xf_standard_size(xf_permitted(has_tiles));
	}
	if (protected_page)
		refused = protection != PROT_READ;
	saved = xregs_take_signal(_metadata, loaded, handler, stack, size);
	EXPECT_SAME(refused, xregs_faults, "SIGSEGV for a frame with %s", edits[edit]);
	return saved;
}

/* Load the pattern of @mask and take the signal; the registers are @wanted after it. */
static void expect_after(struct __test_metadata *const _metadata, uint64_t mask,
			 const struct xregs *wanted)
{
	struct xregs *saved = registers_after(_metadata, xregs_pattern(mask));

	EXPECT_XREGS(mask, wanted, saved, "after a frame with %s", edits[edit]);
}

FIXTURE(xstate_signal) {
	struct xcomp_perm perm;
};

FIXTURE_SETUP(xstate_signal)
{
	xcomp_begin(_metadata, variant);
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	initial = xregs_alloc();
	in_frame = xregs_alloc();
	of_handler = xregs_pattern(xregs_mask());
	memset(of_handler->xmm, HANDLER_FILL, sizeof(of_handler->xmm));
	xregs_set(of_handler, xregs_mask() & ~XFEATURE_MASK_PKRU, HANDLER_FILL);
	if (!(xf_xcr0() & XFEATURE_MASK_PKRU))
		return;
	*(uint32_t *)xregs_at(initial, XFEATURE_MASK_PKRU) = xregs_pkru();
	*(uint32_t *)xregs_at(of_handler, XFEATURE_MASK_PKRU) = HANDLER_PKRU;
}

FIXTURE_TEARDOWN(xstate_signal)
{
	xcomp_end(_metadata);
}

static void expect_values(struct __test_metadata *const _metadata, void *arg)
{
	struct xregs *wanted = xregs_pattern(xregs_mask());

	(void)arg;
	edit = VALUES;
	write_values(wanted);
	expect_after(_metadata, xregs_mask(), wanted);
}

/* Verify that what a handler writes to its frame is what the task gets. */
TEST_F(xstate_signal, values)
{
	xf_in_child_briefly(_metadata, "a frame with other values", expect_values, NULL);
}

/* Known kernels bring in those of the frame first, and then make the others initial. */
static bool is_mxcsr_lost(const struct xregs *saved)
{
	return xregs_are_standard() && saved->mxcsr == XREGS_INITIAL_MXCSR;
}

#define LOST_MXCSR	"MXCSR of a frame without AVX is lost to the standard format"

static void expect_only_fpsse(struct __test_metadata *const _metadata, void *arg)
{
	struct xregs *wanted = xregs_pattern(xregs_mask());
	struct xregs *saved = registers_after(_metadata, wanted);
	bool reset = edit != NO_BV && is_mxcsr_lost(saved);

	(void)arg;
	xregs_set(wanted, xregs_mask(), 0);
	if (reset)
		wanted->mxcsr = saved->mxcsr;
	EXPECT_XREGS(xregs_mask(), wanted, saved, "after a frame with %s", edits[edit]);
	XFAIL_IF(reset, LOST_MXCSR)
		EXPECT_THAT(!reset, "MXCSR after a frame with %s is initial", edits[edit]);
}

/*
 * Verify that components that a handler takes out of XSTATE_BV or xfeatures are
 * reset, and that of a frame that does not say, in every way it has to, that it
 * is an XSAVE area of this task only the x87 and SSE state is taken.
 */
TEST_F(xstate_signal, left_out)
{
	for (edit = NO_BV; edit <= TOO_SMALL; edit++)
		if (!xf_in_child_briefly(_metadata, edits[edit], expect_only_fpsse, NULL))
			break;
}

static void expect_initial(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	if (edit == OF_NOBODY)
		moved = xf_guarded(PAGE, 0);
	expect_after(_metadata, xregs_mask(), initial);
}

/* Verify that all registers are reset if the handler takes the XSAVE area away. */
TEST_F(xstate_signal, no_area)
{
	edit = NO_AREA;
	xf_in_child_briefly(_metadata, edits[edit], expect_initial, NULL);
}

static void expect_unaligned(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	/* Frames of 32-bit programs are copied, all others are for XRSTOR. */
	expect_after(_metadata, xregs_mask(),
		     sizeof(long) == 4 ? xregs_pattern(xregs_mask()) : initial);
}

/* Verify that XRSTOR's alignment is for those frames only that it reads. */
TEST_F(xstate_signal, unaligned)
{
	edit = UNALIGNED;
	xf_in_child_briefly(_metadata, edits[edit], expect_unaligned, NULL);
}

/*
 * Take a frame of @xstate_size and @extended_size.  Kernels from 6.16.3 to 6.18.15
 * look at neither, but for the magic number where a frame of this task ends, as the
 * @first shows.  There, a component is of the frame or initial, as it is everywhere.
 */
static void expect_by_sizes(struct __test_metadata *const _metadata, bool first)
{
	static bool by_task;
	struct xregs *pattern = xregs_pattern(xregs_mask()), *fpsse = xregs_alloc(), *saved;
	bool whole = xstate_size >= XF_BASE_SIZE && xstate_size <= extended_size &&
		     xstate_size <= xf_standard_size(xf_permitted(false)), reset;
	int i;

	th_case("xstate_size %#x, extended_size %#x", xstate_size, extended_size);
	saved = registers_after(_metadata, pattern);
	memcpy(fpsse, in_frame, XREGS_FX_SIZE);
	reset = is_mxcsr_lost(saved);
	if (reset)
		fpsse->mxcsr = saved->mxcsr;
	XFAIL_IF(reset, LOST_MXCSR)
		EXPECT_THAT(!reset, "MXCSR is initial");
	if (first)
		by_task = whole && !*xregs_difference(xregs_mask(), fpsse, saved);
	if (!by_task)
		EXPECT_XREGS(xregs_mask(), whole ? in_frame : fpsse, saved, "after the signal");
	for (i = 0; i < 63; i++)
		if (xregs_mask() & 1ULL << i && *xregs_difference(1ULL << i, fpsse, saved))
			EXPECT_XREGS(1ULL << i, in_frame, saved, "neither initial nor");
}

static void expect_sizes(struct __test_metadata *const _metadata, void *arg)
{
	const uint32_t own = xf_standard_size(xf_permitted(false)), sizes[] = {
		own - 64, XF_HEADER_OFFSET - 4, XF_HEADER_OFFSET, XF_BASE_SIZE - 4, XF_BASE_SIZE,
		own, own + 4, own + 64, INT32_MAX, UINT32_MAX,
	};
	unsigned int i;

	(void)arg;
	edit = SIZES;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		xstate_size = sizes[i];
		extended_size = xstate_size;
		expect_by_sizes(_metadata, !i);
		extended_size--;
		expect_by_sizes(_metadata, false);
	}
}

/*
 * Verify that a frame is as large as it says, if there is room for the header and
 * no more than this task has, and if not only x87 and SSE state is taken.
 */
TEST_F(xstate_signal, sizes)
{
	xf_in_child_briefly(_metadata, "frames with sizes of their own", expect_sizes, NULL);
}

static void expect_fpsse(struct __test_metadata *const _metadata, void *arg)
{
	struct xregs *loaded = xregs_pattern(xregs_mask()), *wanted = xregs_alloc(), *saved;

	(void)arg;
	loaded->xstate_bv &= ~XFEATURE_MASK_FPSSE;
	/* XRSTOR loads it along with AVX, and XSAVE takes others for SSE. */
	loaded->mxcsr = XREGS_INITIAL_MXCSR;
	edit = VALUES;
	saved = registers_after(_metadata, loaded);
	write_values(wanted);
	EXPECT_XREGS(XFEATURE_MASK_FPSSE, wanted, saved, "what was initial");
}

/*
 * Verify that programs that know nothing of XSTATE_BV can change x87 and SSE
 * registers that were initial.
 */
TEST_F(xstate_signal, fpsse)
{
	xf_in_child_briefly(_metadata, "a frame with other values", expect_fpsse, NULL);
}

#ifdef __x86_64__
static void tile_by_frame(struct __test_metadata *const _metadata, void *when)
{
	th_case("%s", (char *)when);
	edit = TILE;
	expect_after(_metadata, xregs_mask(), xregs_pattern(xregs_mask()));
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
	xf_in_child_briefly(_metadata, "no permission", tile_by_frame, "without permission");
	xcomp_request_guest(_metadata, &self->perm);
	xf_in_child_briefly(_metadata, "guest's permission", tile_by_frame, "guest's permission");
	xcomp_request_host(_metadata, &self->perm);
	xf_in_child_briefly(_metadata, "both permissions", tile_by_frame, "both permissions");
}

static void expect_no_tiles(struct __test_metadata *const _metadata, void *used)
{
	struct xregs *pattern = xregs_pattern(xregs_mask()), *saved;

	th_case("AMX used before: %s", used ? "yes" : "no");
	leaves_tiles = true;
	if (edit == OF_NOBODY)
		moved = xf_guarded(PAGE, 0);
	if (used)
		xf_touch_amx();
	saved = registers_after(_metadata, pattern);
	if (edit == NOTHING)
		EXPECT_XREGS(xregs_mask(), pattern, saved, "after the handler");
	EXPECT_THAT(handler_has_tiles, "no tiles in use in the handler");
	EXPECT_THAT(!xregs_tiles_in_use(), "tiles in use after a frame with %s", edits[edit]);
}

/*
 * Verify that tiles that a handler leaves loaded are gone if its frame has none,
 * even if that is because the handler was the first to use them, and that the
 * smaller frame which it has then is as good as any.
 */
TEST_F(xstate_signal, tile_left)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	for (edit = NOTHING; edit < MXCSR; edit++)
		if (!xf_in_child_briefly(_metadata, "a first use by the handler", expect_no_tiles,
					 NULL) ||
		    !xf_in_child_briefly(_metadata, "a second use by the handler",
					 expect_no_tiles, self))
			break;
}
#endif /* __x86_64__ */

/*
 * Verify that a frame that XRSTOR would fault on raises SIGSEGV, with nothing left of it
 * in the registers, nor of the handler.
 */
TEST_F(xstate_signal, refused)
{
	for (edit = XCOMP_BV; edit < MXCSR; edit++)
		if (!xf_in_child_briefly(_metadata, edits[edit], expect_initial, NULL))
			break;
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
	xf_in_child_briefly(_metadata, edits[edit], expect_initial, NULL);
}

static void expect_protected(struct __test_metadata *const _metadata, void *arg)
{
	uint64_t mask = *(uint64_t *)arg;

	if (mask & XFEATURE_MASK_XTILE)
		xf_touch_amx();
	expect_after(_metadata, mask, protection == PROT_READ ? xregs_pattern(mask) : initial);
}

/* Return from a frame with that page, at each of these, in a child. */
static bool protect(struct __test_metadata *const _metadata, uint64_t mask, const char *what)
{
	static const int protections[] = { PROT_READ, PROT_NONE, UNMAPPED };
	unsigned int i;

	edit = NOTHING;
	for (i = 0; i < ARRAY_SIZE(protections); i++) {
		protection = protections[i];
		if (!xf_in_child_briefly(_metadata, what, expect_protected, &mask))
			return false;
	}
	return true;
}

/* Protect a page with a part of an XSAVE area, for each part. */
static void protect_parts(struct __test_metadata *const _metadata, uint64_t mask, uint32_t step)
{
	uint32_t size = xf_standard_size(xf_permitted(mask & XFEATURE_MASK_XTILE_DATA));

	for (protected_at = size & ~63u; protected_at && protected_at <= size;
	     protected_at -= step) {
		th_case("a page behind byte %u", protected_at);
		if (!protect(_metadata, mask, "a frame on such a page"))
			return;
		edit = SIZES;
		xstate_size = protected_at - 64;
		extended_size = size;
		if (xstate_size >= XF_BASE_SIZE && protected_at < xf_standard_size(mask) &&
		    !xf_in_child_briefly(_metadata, "a smaller frame", expect_protected, &mask))
			return;
	}
}

/* The same with an area that is moved so that @before bytes of it are before a page. */
static void protect_pages(struct __test_metadata *const _metadata, uint64_t mask,
			  const uint32_t before)
{
	uint32_t size = XREGS_IN_FRAME + FP_XSTATE_MAGIC2_SIZE +
			xf_standard_size(xf_permitted(mask & XFEATURE_MASK_XTILE_DATA));
	uint8_t *pages = xf_guarded(size + 2 * PAGE, 0), *page;

	pages = (uint8_t *)((unsigned long)pages & -PAGE);
	moved = pages + PAGE - before;
	for (page = before ? pages : pages + PAGE; page < moved + size; page += PAGE) {
		th_case("page %d of a frame with %u bytes before one", (int)((page - pages) / PAGE),
			before);
		protected_page = page;
		if (!protect(_metadata, mask, "a frame on such a page"))
			break;
	}
}

/*
 * Verify the same of a frame that cannot be read as a whole, whatever size it says.  One
 * that can only be read is good.
 */
TEST_F(xstate_signal, protected)
{
	protect_parts(_metadata, xregs_mask(), 192);
}

/*
 * Verify the same of an area elsewhere: its first page alone, which has nothing of it but
 * what FSAVE writes, or one of those behind it.
 */
TEST_F(xstate_signal, protected_page)
{
	protect_pages(_metadata, xregs_mask(), XREGS_IN_FRAME);
	protect_pages(_metadata, xregs_mask(), XREGS_IN_FRAME + 64);
	protect_pages(_metadata, xregs_mask(), XREGS_IN_FRAME + XF_HEADER_OFFSET);
	protect_pages(_metadata, xregs_mask(), XREGS_IN_FRAME + XF_BASE_SIZE);
}

/* The stack pointer at the end of a handler, whose frame has the ucontext so far behind it */
#ifdef __x86_64__
#define CONTEXT_AT		0
#define RETURN			"mov %0, %%rsp\n\tsyscall"
#else
#define CONTEXT_AT		140
#define RETURN			"mov %0, %%esp\n\tint $0x80"
#endif

/* All of the ucontext that sigreturn(2) reads, and what of it there is, before @context_end */
#define CONTEXT_SIZE		(offsetof(ucontext_t, uc_sigmask) + 8)

static uint8_t *context_end;
static size_t context_size;

static void return_from_copy(int sig, siginfo_t *info, void *context)
{
	uint8_t *to = context_end - CONTEXT_AT - context_size;

	(void)sig;
	(void)info;
	if (context_size)
		memcpy(to, (uint8_t *)context - CONTEXT_AT, CONTEXT_AT + context_size);
	asm volatile(RETURN : : "r" (to), "a" (SYS_rt_sigreturn) : "memory");
}

static void end_by_fault(int sig)
{
	_exit(sig);
}

static void take_from_copy(struct __test_metadata *const _metadata, const char *what, bool refused)
{
	const struct sigaction action = {
		.sa_sigaction = return_from_copy, .sa_flags = SA_SIGINFO,
	};
	const struct sigaction fault = { .sa_handler = end_by_fault, .sa_flags = SA_ONSTACK };
	const stack_t ss = { .ss_sp = xf_guarded(STACK_SIZE, 0), .ss_size = STACK_SIZE };
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid) {
		sigaltstack(&ss, NULL);
		sigaction(SIGUSR1, &action, NULL);
		sigaction(SIGSEGV, &fault, NULL);
		raise(SIGUSR1);
		_exit(0);
	}
	status = xf_wait_briefly(_metadata, pid, what);
	if (status != -1)
		EXPECT_SAME(refused ? SIGSEGV : 0, WIFEXITED(status) ? WEXITSTATUS(status) : -1,
			    "exit status, or SIGSEGV, after a frame with %s", what);
}

/*
 * Verify that a frame is refused if the part of it with all other registers is not there, or
 * ends too early, and taken if nothing but what is read is there.
 */
TEST_F(xstate_signal, context)
{
	uint8_t *page = xf_guarded(PAGE, 0);

	context_end = page + PAGE;
	for (context_size = 4; context_size < CONTEXT_SIZE; context_size += 24) {
		th_case("%zu of %zu bytes", context_size, CONTEXT_SIZE);
		take_from_copy(_metadata, "a part of the ucontext", true);
	}
	context_size = CONTEXT_SIZE;
	take_from_copy(_metadata, "all of the ucontext", false);
	th_no_case();
	context_size = 0;
	take_from_copy(_metadata, "a ucontext on a protected page", true);
	context_end = KERNEL_MEMORY;
	take_from_copy(_metadata, "a ucontext of the kernel", true);
	context_end = (uint8_t *)(long)CONTEXT_AT;
	take_from_copy(_metadata, "a ucontext at NULL", true);
}

#ifndef __x86_64__
/* Verify all of this of handlers without SA_SIGINFO, which have frames of another kind. */
TEST_F(xstate_signal, no_siginfo)
{
	xregs_handler_flags = 0;
	handler = on_old_signal;
	xf_in_child_briefly(_metadata, "a frame with other values", expect_values, NULL);
	xf_in_child_briefly(_metadata, "frames with sizes of their own", expect_sizes, NULL);
	for (edit = NO_BV; edit <= TOO_SMALL; edit++)
		if (!xf_in_child_briefly(_metadata, edits[edit], expect_only_fpsse, NULL))
			return;
	for (edit = NO_AREA; edit < MXCSR; edit++)
		if (!xf_in_child_briefly(_metadata, edits[edit], expect_initial, NULL))
			return;
	protect_pages(_metadata, xregs_mask(), XREGS_IN_FRAME);
	protect_pages(_metadata, xregs_mask(), XREGS_IN_FRAME + XF_BASE_SIZE);
}

static void expect_fsave(struct __test_metadata *const _metadata, void *arg)
{
	uint8_t image[XREGS_FSAVE_SIZE];
	struct xregs *pattern = xregs_pattern(xregs_mask()), *x87, *saved;

	/* The top of the stack at another register, and flags */
	x87 = xregs_x87(0x7d00);
	x87->fcw = FRAME_FCW;
	xregs_fnsave(x87, image);
	fsave = image;
	fsave_size = sizeof(image);
	edit = arg ? NO_MAGIC1 : NOTHING;
	saved = registers_after(_metadata, pattern);
	EXPECT_XREGS(XFEATURE_MASK_FP, x87, saved, "by FSAVE's part of a frame with %s",
		     edits[edit]);
	EXPECT_SAME(x87->fsw, saved->fsw, "FSW by that");
	EXPECT_XREGS(XFEATURE_MASK_SSE, pattern, saved, "beside that");
}

/*
 * Verify that of a frame with x87 state in two forms that of FSAVE counts, which programs
 * are older than the other, also if there is no XSAVE area.
 */
TEST_F(xstate_signal, fsave)
{
	xf_in_child_briefly(_metadata, "other x87 state", expect_fsave, NULL);
	xf_in_child_briefly(_metadata, "other x87 state, no XSAVE", expect_fsave, self);
}
#endif

#ifdef __x86_64__
/* Verify the same of tiles; a page between two others may be the one. */
TEST_F(xstate_signal, protected_amx)
{
	struct xcomp_perm perm = { };

	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &perm);
	protect_parts(_metadata, xregs_mask() | XFEATURE_MASK_XTILE, 448);
	protected_at = 0;
	protect_pages(_metadata, xregs_mask() | XFEATURE_MASK_XTILE, 0);
	protect_pages(_metadata, xregs_mask() | XFEATURE_MASK_XTILE, XF_BASE_SIZE);
}

/* What a debugger forges, in memory that is no shadow stack */
static uint64_t forged;

/* Return from a handler without its own return address, so that SSP may be anywhere. */
static void stop_and_return(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	asm volatile("mov %0, %%rsp\n\t"
		     "int3\n\t"
		     "syscall"
		     : : "r" (context), "a" (SYS_rt_sigreturn) : "memory");
}

static void return_on_shadow_stack(struct __test_metadata *const _metadata, void *arg)
{
	const struct sigaction action = { .sa_sigaction = stop_and_return, .sa_flags = SA_SIGINFO };
	long tid = syscall(SYS_gettid);

	(void)arg;
	EXPECT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	raise(SIGSTOP);
	if (!xregs_enable_shadow_stack())
		xregs_no_shadow_stack(_metadata);
	for (;;)
		xregs_syscall(SYS_tkill, tid, SIGUSR1, 0);
}

/* Let the child go on to the end of its next handler, with @ssp then, and return from it. */
static int return_with(struct __test_metadata *const _metadata, pid_t pid, bool forge)
{
	uint64_t ssp = 0;
	int status = xregs_go_on(_metadata, pid, SIGUSR1);

	ASSERT_TRUE(EXPECT_THAT(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP,
				"at its end a handler has wait status %#x", status));
	EXPECT_ERRNO(0, xregs_get_regset(pid, NT_X86_SHSTK, &ssp, 8), "reading NT_X86_SHSTK");
	/* Behind the address to return to is the token. */
	ssp += 8;
	if (forge) {
		EXPECT_EQ(0, ptrace(PTRACE_POKEDATA, pid, &forged,
				    ptrace(PTRACE_PEEKDATA, pid, ssp, NULL)));
		ssp = (unsigned long)&forged;
	}
	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_SHSTK, &ssp, 8), "setting NT_X86_SHSTK");
	return xregs_go_on(_metadata, pid, 0);
}

/*
 * Verify that sigreturn() takes the shadow stack pointer from a shadow stack only, as
 * anybody can write what is elsewhere.
 */
TEST_F(xstate_signal, token)
{
	pid_t pid = xregs_trace(_metadata, return_on_shadow_stack, NULL);
	int status;

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	status = xregs_go_on(_metadata, pid, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return, "no user shadow stacks");
	status = return_with(_metadata, pid, false);
	EXPECT_SAME(SIGUSR1, WIFSTOPPED(status) ? WSTOPSIG(status) : 0,
		    "next signal after a token on the shadow stack");
	status = return_with(_metadata, pid, true);
	EXPECT_SAME(SIGSEGV, WIFSTOPPED(status) ? WSTOPSIG(status) : 0,
		    "next signal after a token elsewhere");
	xf_kill(_metadata, pid);
}
#endif

/* Verify that supervisor state, which no frame has, is kept. */
TEST_F(xstate_signal, pasid)
{
	if (!xf_pasid_need(_metadata))
		return;
	moved = xf_guarded(PAGE, 0);
	for (edit = VALUES; edit < MXCSR; edit++) {
		xf_pasid_give(_metadata);
		registers_after(_metadata, xregs_pattern(xregs_mask()));
		xf_pasid_expect_kept(_metadata, edits[edit]);
	}
}

XCOMP_HARNESS_MAIN
