// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel writes to a signal frame, and where: the same whatever was on
 * the stack before, nothing below the stack, and the state of the task itself
 * even if it had to wait for the memory of its frame.
 */
#define _GNU_SOURCE

#include <ucontext.h>

#include "xcomp_perm_altstack.h"
#include "xcomp_uffd.h"
#ifdef __x86_64__
#include "xcomp_frame_regs.h"
#else
#include "xcomp_regs.h"
#endif

/* UC_FP_XSTATE of asm/ucontext.h, which does not go together with glibc's */
#define FRAME_FP_XSTATE	1

#define FRAME_PR_GET_MDWE	66

#define HEADER_SIZE	64
/* magic2 of the kernel, which ends a frame */
#define MAGIC2_SIZE	4
/* Pages of a signal stack for all that is below the XSAVE area */
#define REST_PAGES	16

#define POISON		0x5a
#define MSR_XFD		0x1c4

/* More frames than fit on any of the signal stacks here */
#define MAX_DEPTH	64

/* What the handler finds */
static struct {
	uint16_t fcw;
	uint32_t mxcsr;
	uint64_t xfd;
	unsigned long uc_flags;
	uint8_t *at, *area;
} seen;

static uint32_t area_size;
static int msrs = -1;

/* The page that is away, and whether only sigreturn(2) is to wait for it */
static struct xcomp_away away;
static bool in_sigreturn;

static void take_away(void)
{
	memcpy(away.content, away.page, XCOMP_PAGE);
	madvise(away.page, XCOMP_PAGE, MADV_DONTNEED);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	asm volatile("fnstcw %0; stmxcsr %1"
		     : "=m" (seen.fcw), "=m" (seen.mxcsr));
	if (msrs >= 0)
		seen.xfd = xcomp_read_msr(msrs, MSR_XFD);
	seen.uc_flags = uc->uc_flags;
	seen.at = (uint8_t *)uc->uc_mcontext.fpregs + XCOMP_FRAME_AREA;
	memcpy(seen.area, seen.at, area_size);
	if (in_sigreturn)
		take_away();
}

/*
 * Set up a signal stack full of @poison that puts an XSAVE area with the
 * components of @mask at the start of a page, and return that page.
 */
static uint8_t *signal_stack(uint64_t mask, uint8_t poison)
{
	struct sigaction action = {
		.sa_sigaction = on_signal,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	stack_t ss = { 0 };
	size_t len;

	area_size = xf_standard_size(mask);
	ss.ss_size = REST_PAGES * XCOMP_PAGE + area_size + MAGIC2_SIZE;
	len = ss.ss_size + XCOMP_PAGE;
	ss.ss_sp = mmap(NULL, len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ss.ss_sp == MAP_FAILED || sigaltstack(&ss, NULL) ||
	    sigaction(SIGUSR1, &action, NULL))
		ksft_exit_fail_perror("cannot set up a signal stack");
	memset(ss.ss_sp, poison, len);
	memset(&seen, 0, sizeof(seen));
	seen.area = xcomp_area();
	return (uint8_t *)ss.ss_sp + REST_PAGES * XCOMP_PAGE;
}

/* Take a signal with @loaded in the registers; they come back in @saved. */
static bool take_signal(struct xcomp *x, const uint8_t *loaded, uint8_t *saved)
{
	/* The other thread would take a signal to the process as well. */
	if (!xcomp_call_between(loaded, saved, SYS_tkill, syscall(SYS_gettid),
				SIGUSR1))
		return true;
	xcomp_error(x, "taking a signal");
	return false;
}

/* Components of a frame of a task that does not use AMX */
static uint64_t frame_mask(void)
{
	return xf_xcr0() & ~XF_BIT(XF_XTILE_DATA);
}

/* Verify that a header is XSTATE_BV and zeros, whatever was on the stack. */
static int check_header(struct xcomp *x)
{
	static const uint8_t zeros[HEADER_SIZE];
	uint8_t *page = signal_stack(frame_mask(), POISON);
	uint8_t *header = seen.area + XF_HEADER_OFFSET;
	uint64_t bv;
	bool ok;

	ok = take_signal(x, xcomp_pattern(), xcomp_area());
	memcpy(&bv, header, sizeof(bv));
	ok &= xcomp_same(x, "place of the XSAVE area in its page", 0,
			 seen.at - page);
	ok &= xcomp_same(x, "XSTATE_BV beyond the task's components", 0,
			 bv & ~(frame_mask() | XF_FPSSE));
	ok &= xcomp_same_bytes(x, "header", "after XSTATE_BV", zeros,
			       header + sizeof(bv), HEADER_SIZE - sizeof(bv));
	ok &= xcomp_same(x, "UC_FP_XSTATE in uc_flags", FRAME_FP_XSTATE,
			 seen.uc_flags & FRAME_FP_XSTATE);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a frame says that it has an XSAVE area, with a header of zeros but XSTATE_BV"));
}

/*
 * Verify that initial components are in a frame as zeros: programs that are
 * older than XSTATE_BV look there. Only XTILE_DATA may be left out.
 */
static int check_initial(struct xcomp *x)
{
	uint64_t bv = XF_FPSSE, after = xcomp_pattern_mask() & ~XF_FPSSE;
	uint8_t *loaded = xcomp_pattern();
	struct xf_regs r;
	bool ok;
	int i;

	signal_stack(frame_mask(), POISON);
	memcpy(loaded + XF_HEADER_OFFSET, &bv, sizeof(bv));
	for (i = XF_YMM; i < 63; i++) {
		r = xf_cpuid(0xd, i);
		if (after & XF_BIT(i))
			memset(loaded + r.ebx, 0, r.eax);
	}
	ok = take_signal(x, loaded, xcomp_area());
	ok &= xcomp_same_state(x, "in the frame", loaded, seen.area);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a frame has initial components too, as zeros"));
}

static void signal_again(int sig)
{
	static int depth;

	/*
	 * A kernel that does not notice starts at the top again and again. What
	 * is below was overwritten then, so do not return.
	 */
	if (++depth == MAX_DEPTH)
		_exit(KSFT_PASS);
	raise(sig);
}

/*
 * Take signals on a stack of @size bytes with poison below it, until one does
 * not fit any more: whether that ends the process, and nothing else.
 */
static bool overflow(struct xcomp *x, const char *what, size_t size)
{
	struct sigaction action = {
		.sa_handler = signal_again,
		.sa_flags = SA_ONSTACK | SA_NODEFER,
	};
	size_t below = 4 * XCOMP_PAGE, len = below + size, i;
	stack_t ss = { .ss_size = size };
	int status = 0;
	uint8_t *p;
	pid_t pid;
	bool ok;

	p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) {
		xcomp_error(x, "mmap");
		return false;
	}
	memset(p, POISON, len);
	ss.ss_sp = p + below;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_DUMPABLE, 0);
		signal(SIGSEGV, SIG_DFL);
		if (sigaltstack(&ss, NULL))
			_exit(KSFT_SKIP);
		sigaction(SIGUSR1, &action, NULL);
		raise(SIGUSR1);
		_exit(KSFT_PASS);
	}
	ok = xcomp_same(x, "child", pid, waitpid(pid, &status, 0));
	/* With strict_sas_size such a small one cannot be set up at all. */
	if (size == XCOMP_OLD_MINSIGSTKSZ && WIFEXITED(status) &&
	    WEXITSTATUS(status) == KSFT_SKIP)
		return ok;
	ok &= xcomp_same(x, what, SIGSEGV,
			 WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	for (i = 0; i < below && p[i] == POISON; i++)
		;
	return ok & xcomp_same(x, "bytes below the stack as they were", below,
			       i);
}

/*
 * Kernels for 64 bits had code of their own for frames of 32-bit programs until
 * Linux 6.2, and it did not look at the stack. PR_GET_MDWE is of Linux 6.3.
 */
static bool old_compat_frames(void)
{
	return sizeof(long) == 4 && prctl(FRAME_PR_GET_MDWE, 0, 0, 0, 0) < 0;
}

/*
 * Verify that nothing is written below a signal stack on which the frame does
 * not fit, neither if it is the first there nor if others are.
 */
static int check_overflow(struct xcomp *x)
{
	uint32_t area = xf_standard_size(frame_mask());
	size_t fits = xcomp_minsigstksz() ?: area + XCOMP_PAGE;
	bool ok = true;

	if (area > XCOMP_OLD_MINSIGSTKSZ)
		ok = overflow(x, "signal on too small a stack",
			      XCOMP_OLD_MINSIGSTKSZ);
	ok &= overflow(x, "signals on a stack for one", fits + XCOMP_PAGE);
	if (!ok && old_compat_frames()) {
		x->reason = "frames of 32-bit programs overflow, fixed in Linux 6.2";
		return KSFT_XFAIL;
	}
	return xcomp_verdict(xcomp_rule(x, ok,
		"no frame is written below the signal stack"));
}

/*
 * Let the kernel wait for the page of @page_nr, counted from that of the XSAVE
 * area, when it delivers a signal, or when the handler returns. Another thread
 * provides it, on this CPU, so that its state is in the registers meanwhile.
 */
static int wait_for_page(struct xcomp *x, uint64_t mask, int page_nr,
			 bool returning)
{
	uint8_t *pattern = xcomp_pattern(), *saved = xcomp_area();
	uint8_t *page = signal_stack(mask, 0);
	bool ok;

	if (xcomp_pin() < 0)
		return xcomp_error(x, "sched_setaffinity");
	if (!xcomp_watch(&away, page + page_nr * XCOMP_PAGE))
		return xcomp_skip(x, "no userfaultfd");
	away.given_back = false;
	in_sigreturn = returning;
	if (!returning)
		take_away();
	ok = xcomp_wait_for_fault(&away) && take_signal(x, pattern, saved);
	ok &= xcomp_same(x, "the kernel waited for the frame", true,
			 xcomp_was_waited_for(&away));
	close(away.uffd);
	ok &= xcomp_same_state(x, "in the frame", pattern, seen.area);
	ok &= xcomp_same(x, "FCW of the handler", XCOMP_INITIAL_FCW, seen.fcw);
	ok &= xcomp_same(x, "MXCSR of the handler", XCOMP_INITIAL_MXCSR,
			 seen.mxcsr);
	if (msrs >= 0)
		ok &= xcomp_same(x, "IA32_XFD of the handler", 0, seen.xfd);
	ok &= xcomp_same_state(x, "after sigreturn()", pattern, saved);
	return xcomp_verdict(ok);
}

/* At each of the places where a frame may make the kernel wait */
static int wait_for_pages(struct xcomp *x, uint64_t mask)
{
	static const struct {
		int page_nr;
		bool returning;
	} rows[] = { { 0, false }, { -1, false }, { 0, true } };
	int result = KSFT_PASS, r;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		r = wait_for_page(x, mask, rows[i].page_nr, rows[i].returning);
		if (r == KSFT_SKIP)
			return r;
		if (r != KSFT_PASS)
			result = r;
	}
	return result;
}

/*
 * Verify that a frame has the task's own registers, the handler initial ones and
 * the task its own afterwards, if other tasks run while the frame is written or
 * read.
 */
static int check_waits(struct xcomp *x)
{
	int result = wait_for_pages(x, frame_mask());

	xcomp_rule(x, result != KSFT_FAIL,
		   "a task that waits for its frame keeps its registers");
	return result;
}

#ifdef __x86_64__
/* Verify the same of tiles and of IA32_XFD, which the other thread has armed. */
static int check_waits_amx(struct xcomp *x)
{
	struct xcomp_tile t, wanted;
	int result;
	bool ok;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (!xcomp_request(x, false))
		return KSFT_FAIL;
	msrs = xcomp_open_msrs(O_RDONLY);
	xcomp_tile_init(&wanted, 0x7c);
	t = wanted;
	xcomp_tile_load(&t);
	result = wait_for_pages(x, xf_xcr0());
	memset(t.data, 0, sizeof(t.data));
	xcomp_tile_store(&t);
	xcomp_tile_release();
	if (result == KSFT_SKIP)
		return result;
	ok = result == KSFT_PASS;
	ok &= xcomp_same_bytes(x, "tile", "afterwards", wanted.data, t.data,
			       sizeof(t.data));
	return xcomp_verdict(xcomp_rule(x, ok,
		"a task that waits for its frame keeps its tiles and IA32_XFD"));
}
#endif

static const struct xcomp_check checks[] = {
	{ "header", check_header },
	{ "initial", check_initial },
	{ "overflow", check_overflow },
	{ "waits", check_waits },
#ifdef __x86_64__
	{ "waits_amx", check_waits_amx },
#endif
};

int main(int argc, char **argv)
{
	if (!xf_xcr0())
		ksft_exit_skip("no XSAVE\n");
	return xcomp_host_main(argc, argv, checks, ARRAY_SIZE(checks), NULL,
			       false);
}
