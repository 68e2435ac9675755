// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel writes to a signal frame, and where: the components that the
 * task has, XTILE_DATA once the thread itself has used AMX and not before,
 * whatever is permitted; the same whatever was on the stack, nothing below the
 * stack, and the state of the task itself even if it had to wait for the memory
 * of its frame.  What cannot be written there changes nothing in the task.
 */
#define _GNU_SOURCE

#include <assert.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "xpage.h"
#include "xregs.h"

/* UC_FP_XSTATE of asm/ucontext.h, which does not go together with glibc's */
#define FRAME_FP_XSTATE		1

/* Room for any frame, and for all of one that is below the XSAVE area */
#define STACK_SIZE		(32 * XPAGE_SIZE)
#define REST_SIZE		(16 * XPAGE_SIZE)

/* Padding, and what frames of another kind have more: AT_MINSIGSTKSZ is for all. */
#define MINSIGSTKSZ_SLACK	1024

#define POISON			0x5a
#define UNMAPPED		-1
#define MSR_IA32_XFD		0x1c4

/* More frames than fit on any of the signal stacks here */
#define MAX_DEPTH		64

/* What the handler finds */
static struct {
	uint16_t fcw;
	uint32_t mxcsr;
	uint64_t xfd;
	unsigned long uc_flags;
	uint32_t magic2;
	uint8_t *context, *at;
	struct xregs *regs;		/* a copy of what is at @at */
	uint8_t fsave[XREGS_IN_FRAME + 1];
	uint64_t ssp_before, ssp;
} seen;

/* Where the handler reads IA32_XFD, if it is to */
static struct __test_metadata *handler_metadata;
static int msrs = -1;

/* The pages that are away */
static struct xpage away;

/* Where to the handler moves the XSAVE area, for sigreturn(2) to wait for it */
static uint8_t *moved;
/* The size that the area has then, and the smaller one that it says, if that is not 0 */
static uint32_t area_size, said_size;
static bool is_first_use;

static void say_size(struct xregs *frame)
{
	const uint32_t magic2 = FP_XSTATE_MAGIC2;

	frame->sw.xstate_size = said_size;
	memcpy((uint8_t *)frame + said_size, &magic2, sizeof(magic2));
}

static struct xregs *move(mcontext_t *context)
{
	struct xregs *frame = (void *)moved;

	memcpy(moved - XREGS_IN_FRAME, context->fpregs, XREGS_IN_FRAME + area_size);
	context->fpregs = (void *)(moved - XREGS_IN_FRAME);
	if (said_size)
		say_size(frame);
	return frame;
}

static void look_at_frame(mcontext_t *context)
{
	struct xregs *frame = (void *)((uint8_t *)context->fpregs + XREGS_IN_FRAME);
	uint32_t size = xf_standard_size(xf_xcr0());

	seen.fcw = xregs_fcw();
	seen.mxcsr = xregs_mxcsr();
	if (msrs >= 0)
		seen.xfd = xf_read_msr(handler_metadata, msrs, MSR_IA32_XFD);
	seen.at = (uint8_t *)frame;
	if (frame->sw.xstate_size <= size) {
		size = frame->sw.xstate_size;
		memcpy(&seen.magic2, seen.at + size, sizeof(seen.magic2));
	}
	memcpy(seen.fsave, context->fpregs, XREGS_IN_FRAME);
	if (moved)
		frame = move(context);
	memcpy(seen.regs, frame, size);
	/* With anything else in there sigreturn(2) would end the task before the test can tell. */
	frame->xstate_bv &= frame->sw.xfeatures;
	memset(&frame->xcomp_bv, 0, sizeof(frame->xcomp_bv) + sizeof(frame->reserved4));
	if (is_first_use)
		xf_touch_amx();
	if (moved)
		xpage_take_away(&away);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
#ifdef __x86_64__
	seen.ssp = xregs_ssp();
#endif
	look_at_frame(&uc->uc_mcontext);
	seen.uc_flags = uc->uc_flags;
	seen.context = context;
}

#ifndef __x86_64__
static void on_old_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	look_at_frame(XREGS_OLD_CONTEXT());
	seen.context = (uint8_t *)XREGS_OLD_CONTEXT();
}
#endif

static void (*handler)(int sig, siginfo_t *info, void *context) = on_signal;

/* Take a signal with @loaded in the registers; return them as they are after it. */
static struct xregs *take_signal(struct __test_metadata *const _metadata,
				 const struct xregs *loaded, uint8_t *stack, size_t size)
{
	memset(&seen, 0, sizeof(seen));
	seen.regs = xregs_alloc();
#ifdef __x86_64__
	seen.ssp_before = xregs_ssp();
#endif
	return xregs_take_signal(_metadata, loaded, handler, stack, size);
}

/*
 * A frame has the size that goes with its components, where that size puts it,
 * and says so.  Below the XSAVE area it is always the same.  The header is
 * XSTATE_BV and zeros, whatever was on the stack.
 */
static void expect_frame(struct __test_metadata *const _metadata, bool used, const char *when)
{
	static const uint8_t zeros[XF_BASE_SIZE - offsetof(struct xregs, xcomp_bv)];
	uint8_t *stack = xf_guarded(STACK_SIZE, POISON), *top = stack + STACK_SIZE;
	size_t needed, min = getauxval(AT_MINSIGSTKSZ);
	uint64_t mask = xf_permitted(used);
	uint32_t size = xf_standard_size(mask);
	uint8_t *at = (uint8_t *)((unsigned long)(top - size - FP_XSTATE_MAGIC2_SIZE) & ~63ul);
	struct xregs *frame;

	th_case("%s", when);
	take_signal(_metadata, xregs_pattern(xregs_mask()), stack, STACK_SIZE);
	frame = seen.regs;
	EXPECT_SAME(FP_XSTATE_MAGIC1, frame->sw.magic1, "magic1");
	EXPECT_SAME_MASK(xf_names, mask | XFEATURE_MASK_FPSSE, frame->sw.xfeatures, "xfeatures");
	EXPECT_SAME(size, frame->sw.xstate_size, "xstate_size");
	EXPECT_SAME(XREGS_IN_FRAME + size + FP_XSTATE_MAGIC2_SIZE, frame->sw.extended_size,
		    "extended_size");
	EXPECT_SAME(FP_XSTATE_MAGIC2, seen.magic2, "magic2");
	EXPECT_SAME_MASK(xf_names, 0, frame->xstate_bv & ~(mask | XFEATURE_MASK_FPSSE),
			 "XSTATE_BV beyond xfeatures");
	EXPECT_BYTES(zeros, &frame->xcomp_bv, sizeof(zeros), "header after XSTATE_BV");
	if (xregs_handler_flags)
		EXPECT_SAME(FRAME_FP_XSTATE, seen.uc_flags & FRAME_FP_XSTATE, "UC_FP_XSTATE");
	EXPECT_SAME(top - at, top - seen.at, "room above the XSAVE area");
	needed = top - seen.context;
	EXPECT_THAT(!min || needed <= min, "AT_MINSIGSTKSZ %zu, but a frame of %zu", min, needed);
	if (min && mask == xf_xcr0())
		EXPECT_THAT(needed + MINSIGSTKSZ_SLACK >= min,
			    "AT_MINSIGSTKSZ %zu for a frame of %zu", min, needed);
	th_no_case();
}

FIXTURE(xstate_frame) {
	struct xcomp_perm perm;
};

FIXTURE_SETUP(xstate_frame)
{
	xcomp_begin(_metadata, variant);
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
}

FIXTURE_TEARDOWN(xstate_frame)
{
	xcomp_end(_metadata);
}

/* Verify the frames of a task whose permission is for guests only. */
TEST_F(xstate_frame, guest)
{
	expect_frame(_metadata, false, "without permission");
	xcomp_request_guest(_metadata, &self->perm);
	expect_frame(_metadata, false, "with the guest's permission");
}

#ifdef __x86_64__
/*
 * Verify that the host's permission makes frames larger by XTILE_DATA from the
 * first use on and not before.
 */
TEST_F(xstate_frame, host)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	expect_frame(_metadata, false, "before AMX is used");
	xf_use_amx(_metadata);
	expect_frame(_metadata, true, "once AMX is used");
	xcomp_request_guest(_metadata, &self->perm);
	expect_frame(_metadata, true, "with the guest's permission as well");
}

static void use_in_thread(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	expect_frame(_metadata, false, "of a new thread");
	xf_use_amx(_metadata);
	expect_frame(_metadata, true, "of a thread that has used AMX");
}

/* Verify that a thread's frames grow by its own use of AMX, and no other's. */
TEST_F(xstate_frame, thread)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	xcomp_in_thread(_metadata, "thread that uses AMX", use_in_thread, NULL);
	expect_frame(_metadata, false, "once another thread has used AMX");
}

static void small_frame(struct __test_metadata *const _metadata, void *arg)
{
	expect_frame(_metadata, false, arg);
}

/* Verify that a child's frames start small again. */
TEST_F(xstate_frame, fork)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	xf_use_amx(_metadata);
	xf_in_child(_metadata, "child", small_frame, "of the child of a task that has used AMX");
}

/* Verify that a frame carries the tiles, and that sigreturn() brings them back. */
TEST_F(xstate_frame, tile)
{
	uint64_t mask = xregs_mask() | XFEATURE_MASK_XTILE;
	struct xregs *pattern, *saved;

	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	xf_use_amx(_metadata);
	pattern = xregs_pattern(mask);
	saved = take_signal(_metadata, pattern, xf_guarded(STACK_SIZE, POISON), STACK_SIZE);
	EXPECT_SAME_MASK(xf_names, mask, seen.regs->xstate_bv & mask, "in use in the frame");
	EXPECT_XREGS(mask, pattern, seen.regs, "in the frame");
	EXPECT_SAME_MASK(xf_names, mask, saved->xstate_bv & mask, "in use after the handler");
	EXPECT_XREGS(mask, pattern, saved, "after the handler");
}
#endif

/*
 * Verify that initial components are in a frame as zeros: programs that are
 * older than XSTATE_BV look there.  Only XTILE_DATA may be left out.
 */
TEST_F(xstate_frame, initial)
{
	struct xregs *loaded = xregs_pattern(xregs_mask());

	loaded->xstate_bv = XFEATURE_MASK_FPSSE;
	xregs_set(loaded, xregs_mask(), 0);
	take_signal(_metadata, loaded, xf_guarded(STACK_SIZE, POISON), STACK_SIZE);
	EXPECT_XREGS(xregs_mask(), loaded, seen.regs, "in the frame, initial in the task");
}

static void signal_again(int sig)
{
	static int depth;

	/*
	 * A kernel that does not notice starts at the top again and again.  What
	 * is below was overwritten then, so do not return.
	 */
	if (++depth == MAX_DEPTH)
		_exit(KSFT_PASS);
	raise(sig);
}

/* Take signals on @ss, inside of each other, until that ends the process. */
static void fill_stack(const stack_t *ss)
{
	const struct sigaction action = {
		.sa_handler = signal_again,
		.sa_flags = SA_ONSTACK | SA_NODEFER,
	};

	prctl(PR_SET_DUMPABLE, 0);
	signal(SIGSEGV, SIG_DFL);
	if (sigaltstack(ss, NULL))
		_exit(KSFT_SKIP);
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	_exit(KSFT_PASS);
}

/* On a stack of @size bytes, SIGSEGV ends that, and nothing below is changed. */
static void expect_overflow(struct __test_metadata *const _metadata, size_t size, const char *what)
{
	size_t below = 4 * XPAGE_SIZE, i;
	stack_t ss = { .ss_size = size };
	int status;
	uint8_t *p;
	pid_t pid;

	p = mmap(NULL, below + size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(p != MAP_FAILED);
	memset(p, POISON, below + size);
	ss.ss_sp = p + below;
	pid = xf_fork(_metadata);
	if (!pid)
		fill_stack(&ss);
	status = xf_wait(_metadata, pid, what);
	/* With strict_sas_size such a small one cannot be set up at all. */
	if (size == XCOMP_OLD_MINSIGSTKSZ && WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		return;
	for (i = 0; i < below && p[i] == POISON; i++)
		;
	/*
	 * Kernels for 64 bits had code of their own for frames of 32-bit programs
	 * until Linux 6.2, and it did not look at the stack.  So frames go on below
	 * it, from where the next signal starts at its top again, and nothing ends
	 * the process.
	 */
	XFAIL_IF(sizeof(long) == 4 && xcomp_before(6, 2) && !status && i < below,
		 "frames of 32-bit programs overflow, fixed in Linux 6.2") {
		EXPECT_SAME(SIGSEGV, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
			    "signal that ends %s", what);
		EXPECT_SAME(below, i, "bytes below the stack as they were after %s", what);
	}
}

/*
 * Verify that nothing is written below a signal stack on which the frame does
 * not fit, neither if it is the first there nor if others are.
 */
TEST_F(xstate_frame, overflow)
{
	uint32_t area = xf_standard_size(xf_permitted(false));
	size_t fits = getauxval(AT_MINSIGSTKSZ) ?: area + XPAGE_SIZE;

	if (area > XCOMP_OLD_MINSIGSTKSZ)
		expect_overflow(_metadata, XCOMP_OLD_MINSIGSTKSZ, "a signal on a small stack");
	expect_overflow(_metadata, fits + XPAGE_SIZE, "signals on a stack for one");
}

/* A frame with @at bytes of its XSAVE area before a page, and nothing behind its last page */
struct place {
	uint8_t *stack, *page;
	size_t size;			/* of the stack */
	unsigned int nr;		/* how many pages that is, from @page on */
};

static struct place place_frame(uint64_t mask, uint32_t at)
{
	uint32_t size = xf_standard_size(xf_permitted(mask & XFEATURE_MASK_XTILE_DATA));
	struct place p;

	area_size = size + FP_XSTATE_MAGIC2_SIZE;
	p.nr = (area_size - at + XPAGE_SIZE - 1) / XPAGE_SIZE;
	p.size = REST_SIZE + area_size - at;
	p.stack = xf_guarded(REST_SIZE + p.nr * XPAGE_SIZE, 0);
	p.page = p.stack + REST_SIZE;
	return p;
}

/*
 * Let the kernel wait for the pages with a frame, or that with an XSAVE area of which @at
 * bytes are before a page, when it delivers a signal or when the handler returns.  Another
 * thread provides them, on this CPU, so that its state is in the registers meanwhile.
 */
static bool wait_for_pages(struct __test_metadata *const _metadata, uint64_t mask, uint32_t at,
			   bool returning)
{
	struct xregs *pattern = xregs_pattern(mask), *saved;
	unsigned int before = at || XREGS_IN_FRAME > 0 || !returning;
	const char *what = returning ? "whose sigreturn() waited" : "which waited";
	struct place p = place_frame(mask, at);

	th_case("a page behind byte %u, %s", at, returning ? "returning" : "arriving");
	if (!xpage_watch(&away, p.page - before * XPAGE_SIZE, is_first_use ? 1 : before + p.nr))
		return false;
	moved = returning ? p.page - at : NULL;
	said_size = returning && at >= XF_BASE_SIZE + 64 ? at - 64 : 0;
	if (!returning)
		xpage_take_away(&away);
	xpage_wait_for_fault(_metadata, &away);
	saved = take_signal(_metadata, pattern,
			    returning ? xf_guarded(STACK_SIZE, 0) : p.stack,
			    returning ? STACK_SIZE : p.size);
	xpage_expect_fault(_metadata, &away, returning ? "sigreturn()" : "a signal");

	if (said_size)
		say_size(pattern);
	/* A few calls, a token and an address below that of the test, if there is any */
	EXPECT_THAT(seen.ssp_before - seen.ssp <= MAX_DEPTH * 8,
		    "SSP of the handler %#llx, of the test %#llx, %s",
		    (unsigned long long)seen.ssp, (unsigned long long)seen.ssp_before, what);
	EXPECT_XREGS(mask, pattern, seen.regs, "in the frame, %s", what);
	EXPECT_SAME(XREGS_INITIAL_FCW, seen.fcw, "FCW of the handler, %s", what);
	EXPECT_SAME(XREGS_INITIAL_MXCSR, seen.mxcsr, "MXCSR of the handler, %s", what);
	if (msrs >= 0)
		EXPECT_SAME(0, seen.xfd, "IA32_XFD of the handler, %s", what);
	/*
	 * Known kernels ask for as much memory as the task's next frame takes, and
	 * find none behind a frame from before the first use of AMX.
	 */
	XFAIL_IF(is_first_use && xregs_faults,
		 "known kernels cannot wait for a frame from before the first use of AMX") {
		EXPECT_SAME(0, xregs_faults, "SIGSEGV for a frame, %s", what);
		EXPECT_XREGS(mask, pattern, saved, "after sigreturn(), %s", what);
	}
	return true;
}

/* The components of a frame, and how many bytes of it are before a page */
struct step {
	uint64_t mask;
	uint32_t at;
};

typedef bool (*child_fn)(struct __test_metadata *const _metadata, const char *what, xf_fn fn,
			 void *arg);

/* Call @fn in children, with a page behind each part of the XSAVE area, and what is below it. */
static void at_each_page(struct __test_metadata *const _metadata, uint64_t mask, xf_fn fn,
			 child_fn in_child)
{
	struct step step = { .mask = mask };

	for (; step.at < xf_standard_size(mask); step.at += 448) {
		th_case("a page behind byte %u", step.at);
		if (!in_child(_metadata, "a signal", fn, &step) ||
		    _metadata->exit_code == KSFT_SKIP)
			break;
	}
	th_no_case();
}

static void expect_kept(struct __test_metadata *const _metadata, void *arg)
{
	struct step *step = arg;

	if (step->mask & XFEATURE_MASK_XTILE)
		xf_use_amx(_metadata);
	xf_pin(_metadata);
	if (!wait_for_pages(_metadata, step->mask, step->at, false) ||
	    !wait_for_pages(_metadata, step->mask, step->at, true))
		SKIP(return, XPAGE_NO_UFFD);
}

static void expect_kept_in_child(struct __test_metadata *const _metadata, uint64_t mask)
{
	at_each_page(_metadata, mask, expect_kept, xf_in_child_briefly);
}

/*
 * Verify that a frame has the task's own registers, the handler initial ones and
 * the task its own afterwards, if other tasks run while the frame is written or
 * read.
 */
TEST_F(xstate_frame, waits)
{
	expect_kept_in_child(_metadata, xregs_mask());
}

/* Take a signal whose frame cannot be written, and go on as if there had been none. */
static void expect_no_frame(struct __test_metadata *const _metadata, uint64_t mask, uint32_t at,
			    unsigned int before, int protection)
{
	struct xregs *pattern = xregs_pattern(mask), *saved;
	struct place p = place_frame(mask, at);
	uint8_t *page = p.page - before * XPAGE_SIZE;

	ASSERT_EQ(0, protection == UNMAPPED ? munmap(page, XPAGE_SIZE) :
					      mprotect(page, XPAGE_SIZE, protection));
	saved = take_signal(_metadata, pattern, p.stack, p.size);
	EXPECT_SAME(1, xregs_faults, "SIGSEGV for a signal");
	EXPECT_THAT(!seen.context, "the handler has run");
	/* Not PKRU, with a page that has nothing of the XSAVE area */
	if (before && !at)
		mask &= ~XFEATURE_MASK_PKRU;
	EXPECT_XREGS(mask, pattern, saved, "after the signal");
}

static void expect_no_frames(struct __test_metadata *const _metadata, void *arg)
{
	struct step *step = arg;
	unsigned int before;

	if (step->mask & XFEATURE_MASK_XTILE)
		xf_use_amx(_metadata);
	for (before = 0; before < 2; before++) {
		th_case("page %u behind byte %u", 1 - before, step->at);
		expect_no_frame(_metadata, step->mask, step->at, before, PROT_NONE);
		expect_no_frame(_metadata, step->mask, step->at, before, PROT_READ);
		expect_no_frame(_metadata, step->mask, step->at, before, UNMAPPED);
	}
}

static void expect_no_frames_in_child(struct __test_metadata *const _metadata, uint64_t mask)
{
	at_each_page(_metadata, mask, expect_no_frames, xf_in_child_briefly);
}

/*
 * Verify that a signal whose frame cannot be written raises SIGSEGV, and that the
 * task has its registers then.
 */
TEST_F(xstate_frame, protected)
{
	expect_no_frames_in_child(_metadata, xregs_mask());
}

#ifndef __x86_64__
/* Verify all of this of handlers without SA_SIGINFO, which have frames of another kind. */
TEST_F(xstate_frame, no_siginfo)
{
	xregs_handler_flags = 0;
	handler = on_old_signal;
	expect_frame(_metadata, false, "without SA_SIGINFO");
	expect_kept_in_child(_metadata, xregs_mask());
	expect_no_frames_in_child(_metadata, xregs_mask());
}

/* Verify that what FSAVE writes is in front of the XSAVE area, with the state of the task. */
TEST_F(xstate_frame, fsave)
{
	/* The top of the stack at several registers, and flags */
	const uint16_t fsw[] = { 0, 0x1800, 0x7d00 };
	struct {
		uint16_t cwd, r1, swd, r2, twd, r3;
		uint32_t pointers[4];
		uint8_t st[80];
		uint16_t status, magic;
	} wanted, got;
	unsigned int i;

	static_assert(sizeof(got) == XREGS_IN_FRAME, "layout of FSAVE in a frame");
	for (i = 0; i < ARRAY_SIZE(fsw); i++) {
		th_case("FSW %#x", fsw[i]);
		memset(&wanted, 0, sizeof(wanted));
		xregs_fnsave(xregs_x87(fsw[i]), &wanted);
		take_signal(_metadata, xregs_x87(fsw[i]), xf_guarded(STACK_SIZE, POISON),
			    STACK_SIZE);
		memcpy(&got, seen.fsave, sizeof(got));
		EXPECT_SAME(wanted.cwd, got.cwd, "control word");
		EXPECT_SAME(wanted.swd, got.swd, "status word");
		EXPECT_SAME(wanted.twd, got.twd, "tag word");
		EXPECT_BYTES(wanted.st, got.st, sizeof(got.st), "registers");
		EXPECT_SAME(wanted.swd, got.status, "status word of the frame");
		EXPECT_SAME(0, got.magic, "magic number of a frame with an FXSAVE area");
	}
	th_no_case();
}
#endif

/*
 * Verify that a task takes signals on a stack that its PKRU does not let it use, and
 * returns from there to that PKRU.
 */
TEST_F(xstate_frame, key)
{
	const uint32_t rights[] = { PKEY_DISABLE_ACCESS, PKEY_DISABLE_WRITE };
	struct xregs *pattern = xregs_pattern(xregs_mask()), *saved;
	uint8_t *stack = xf_guarded(STACK_SIZE, 0);
	unsigned int i;
	long key;

	if (!(xf_xcr0() & XFEATURE_MASK_PKRU))
		SKIP(return, "no protection keys");
	key = syscall(SYS_pkey_alloc, 0, 0);
	ASSERT_LT(0, key);
	ASSERT_EQ(0, syscall(SYS_pkey_mprotect, stack, STACK_SIZE, PROT_READ | PROT_WRITE, key));
	handler = xregs_open_keys;
	xregs_keyed_handler = on_signal;
	for (i = 0; i < ARRAY_SIZE(rights); i++) {
		*(uint32_t *)xregs_at(pattern, XFEATURE_MASK_PKRU) = rights[i] << 2 * key;
		saved = take_signal(_metadata, pattern, stack, STACK_SIZE);
		/* Those of 32 bits read the stack after they have loaded PKRU from there. */
		XFAIL_IF(xregs_faults && (seen.context ? sizeof(long) == 4 : xcomp_before(6, 12)),
			 seen.context ? "sigreturn() of 32-bit programs reads what it has closed" :
			 "no signals on stacks that PKRU closes, fixed in Linux 6.12")
			EXPECT_SAME(0, xregs_faults, "SIGSEGV for a signal on such a stack");
		EXPECT_XREGS(xregs_mask(), pattern, saved, "after it, rights %#x", rights[i]);
	}
}

#ifdef __x86_64__
/* Verify the same of tiles. */
TEST_F(xstate_frame, waits_amx)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	expect_kept_in_child(_metadata, xregs_mask() | XFEATURE_MASK_XTILE);
}

/* Verify of tiles that they are kept if a frame cannot be written. */
TEST_F(xstate_frame, protected_amx)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	expect_no_frames_in_child(_metadata, xregs_mask() | XFEATURE_MASK_XTILE);
}

/*
 * Verify that the shadow stack pointer is kept as well, without which nothing
 * could return.
 */
TEST_F(xstate_frame, protected_shadow_stack)
{
	at_each_page(_metadata, xregs_mask(), expect_no_frames, xregs_on_shadow_stack);
}

static void expect_kept_by_first_use(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	is_first_use = true;
	if (!wait_for_pages(_metadata, xregs_mask(), 448, true))
		SKIP(return, XPAGE_NO_UFFD);
}

/* Verify the same of a frame that is smaller than the next one: its handler has used AMX. */
TEST_F(xstate_frame, waits_first_use)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	xf_in_child_briefly(_metadata, "a signal that waits", expect_kept_by_first_use, NULL);
}

static void expect_kept_shadow_stack(struct __test_metadata *const _metadata, void *arg)
{
	uint64_t ssp = xregs_ssp();

	expect_kept(_metadata, arg);
	EXPECT_SAME(ssp, xregs_ssp(), "SSP after signals");
	EXPECT_THAT(seen.ssp || _metadata->exit_code, "no SSP in the handlers");
}

/*
 * Verify the same of the shadow stack pointer; whoever provides the pages has a shadow
 * stack of its own.
 */
TEST_F(xstate_frame, waits_shadow_stack)
{
	at_each_page(_metadata, xregs_mask(), expect_kept_shadow_stack, xregs_on_shadow_stack);
}

/* Verify that the handler runs with the task's IA32_XFD; the other thread has armed it. */
TEST_F(xstate_frame, waits_xfd)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	handler_metadata = _metadata;
	msrs = xf_open_msrs(_metadata, O_RDONLY);
	if (msrs < 0)
		SKIP(return, "no /dev/cpu/N/msr");
	xcomp_request_host(_metadata, &self->perm);
	expect_kept_in_child(_metadata, xregs_mask() | XFEATURE_MASK_XTILE);
}
#endif

XCOMP_HARNESS_MAIN
