// SPDX-License-Identifier: GPL-2.0-only
/*
 * What sigreturn(2) makes of a frame that the handler has changed: which of it
 * becomes state of the task, what becomes initial, and what is refused. A frame
 * is all that a task can hand to XRSTOR as it likes, so components that it does
 * not have must not get in.
 */
#define _GNU_SOURCE

#include <ucontext.h>

#include "xstate_pasid.h"
#ifdef __x86_64__
#include "xcomp_frame_regs.h"
#else
#include "xcomp_regs.h"
#endif

#define FRAME_MXCSR		0x5f80
#define FRAME_FCW		0x77f
#define FRAME_PKRU		0x55555554
#define FRAME_FILL		0x3c

/* Room for a frame, and for what is above it */
#define STACK_PAGES		32
#define ABOVE			4096

#define COMPONENTS_AFTER_SSE	(xcomp_pattern_mask() & ~XF_FPSSE)

/* What the handler does with the XSAVE area of its frame */
static void (*edit)(uint8_t *area, struct xcomp_sw_bytes *sw);

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint8_t *area = (uint8_t *)uc->uc_mcontext.fpregs + XCOMP_FRAME_AREA;
	struct xcomp_sw_bytes sw;

	(void)sig;
	(void)info;
	memcpy(&sw, area + XCOMP_SW_OFFSET, sizeof(sw));
	edit(area, &sw);
	memcpy(area + XCOMP_SW_OFFSET, &sw, sizeof(sw));
}

static uint64_t get_bv(const uint8_t *area)
{
	uint64_t bv;

	memcpy(&bv, area + XF_HEADER_OFFSET, sizeof(bv));
	return bv;
}

static void set_bv(uint8_t *area, uint64_t bv)
{
	memcpy(area + XF_HEADER_OFFSET, &bv, sizeof(bv));
}

/* Fill the components of @mask; with 0 they are what they are initially. */
static void set_components(uint8_t *area, uint64_t mask, uint8_t fill)
{
	struct xf_regs r;
	int i;

	for (i = XF_YMM; i < 63; i++) {
		r = xf_cpuid(0xd, i);
		if (mask & XF_BIT(i))
			memset(area + r.ebx, fill, r.eax);
	}
}

/*
 * Take a signal with @loaded in the registers and a handler that changes its
 * frame by @fn. Return the registers after sigreturn(2), NULL on error.
 */
static uint8_t *registers_after(struct xcomp *x, const uint8_t *loaded,
				void (*fn)(uint8_t *area, struct xcomp_sw_bytes *sw))
{
	const struct sigaction action = {
		.sa_sigaction = on_signal,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	stack_t ss = { .ss_size = STACK_PAGES * 4096 };
	uint8_t *saved = xcomp_area();

	/* Zeros are no magic number, wherever the kernel looks for one. */
	ss.ss_sp = xf_guarded(ss.ss_size + ABOVE, 0);
	edit = fn;
	if (sigaltstack(&ss, NULL) || sigaction(SIGUSR1, &action, NULL) ||
	    xcomp_call_between(loaded, saved, SYS_kill, getpid(), SIGUSR1)) {
		xcomp_error(x, "taking a signal");
		return NULL;
	}
	return saved;
}

/* The same with the pattern, where the registers are to be @wanted after it. */
static int becomes(struct xcomp *x, const char *when, const uint8_t *wanted,
		   void (*fn)(uint8_t *area, struct xcomp_sw_bytes *sw),
		   const char *rule)
{
	uint8_t *saved = registers_after(x, xcomp_pattern(), fn);
	bool ok = saved && xcomp_same_state(x, when, wanted, saved);

	return xcomp_verdict(xcomp_rule(x, ok, rule));
}

static void fill_area(uint8_t *area)
{
	const uint32_t mxcsr = FRAME_MXCSR, pkru = FRAME_PKRU;

	memcpy(area + XCOMP_MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
	memset(area + XCOMP_XMM_OFFSET, FRAME_FILL, XCOMP_XMM_SIZE);
	set_components(area, COMPONENTS_AFTER_SSE & ~XF_BIT(XF_PKRU),
		       FRAME_FILL);
	if (xf_xcr0() & XF_BIT(XF_PKRU))
		memcpy(area + xf_cpuid(0xd, XF_PKRU).ebx, &pkru, sizeof(pkru));
}

static void edit_values(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	(void)sw;
	fill_area(area);
}

/* Verify that what a handler writes to its frame is what the task gets. */
static int check_values(struct xcomp *x)
{
	uint8_t *wanted = xcomp_pattern();

	fill_area(wanted);
	return becomes(x, "as written to the frame", wanted, edit_values,
		       "sigreturn() loads what the frame has");
}

static void edit_bv(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	(void)sw;
	set_bv(area, get_bv(area) & XF_FPSSE);
}

/* Verify that components that a handler takes out of XSTATE_BV are reset. */
static int check_bv(struct xcomp *x)
{
	uint8_t *wanted = xcomp_pattern();

	set_components(wanted, COMPONENTS_AFTER_SSE, 0);
	return becomes(x, "without their bits in XSTATE_BV", wanted, edit_bv,
		       "what is not in XSTATE_BV of a frame becomes initial");
}

static void edit_xfeatures(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	(void)area;
	sw->xfeatures &= XF_FPSSE;
}

/* Verify the same of components that a handler takes out of xfeatures. */
static int check_xfeatures(struct xcomp *x)
{
	uint8_t *wanted = xcomp_pattern();

	set_components(wanted, COMPONENTS_AFTER_SSE, 0);
	return becomes(x, "without their bits in xfeatures", wanted,
		       edit_xfeatures,
		       "what is not in xfeatures of a frame becomes initial");
}

static void edit_magic1(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	(void)area;
	sw->magic1 = 0;
}

static void edit_magic2(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	memset(area + sw->xstate_size, 0, sizeof(uint32_t));
}

/* Larger than any, with a magic number where that size puts it */
static void edit_larger(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	uint32_t magic2;

	memcpy(&magic2, area + sw->xstate_size, sizeof(magic2));
	sw->xstate_size += 64;
	sw->extended_size += 64;
	memcpy(area + sw->xstate_size, &magic2, sizeof(magic2));
}

static void edit_smaller(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	uint32_t magic2;

	memcpy(&magic2, area + sw->xstate_size, sizeof(magic2));
	sw->xstate_size = XF_HEADER_OFFSET;
	memcpy(area + sw->xstate_size, &magic2, sizeof(magic2));
}

static void edit_extended(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	(void)area;
	sw->extended_size = sw->xstate_size - 4;
}

/*
 * Verify that of a frame that does not say, in every way it has to, that it is
 * an XSAVE area of this task only the x87 and SSE state is taken.
 */
static int check_legacy(struct xcomp *x)
{
	static const struct {
		const char *when;
		void (*fn)(uint8_t *area, struct xcomp_sw_bytes *sw);
	} rows[] = {
		{ "without magic1", edit_magic1 },
		{ "without magic2", edit_magic2 },
		{ "with too large a size", edit_larger },
		{ "with too small a size", edit_smaller },
		{ "with a size beyond extended_size", edit_extended },
	};
	uint8_t *wanted = xcomp_pattern();
	int result = KSFT_PASS;
	unsigned int i;

	set_components(wanted, COMPONENTS_AFTER_SSE, 0);
	for (i = 0; i < ARRAY_SIZE(rows); i++)
		if (becomes(x, rows[i].when, wanted, rows[i].fn,
			    "a frame that is no XSAVE area has x87 and SSE only"))
			result = KSFT_FAIL;
	return result;
}

static void edit_fpsse(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	const uint16_t fcw = FRAME_FCW;

	edit_values(area, sw);
	/* FSAVE's registers, where a frame has them, are those that count. */
	memcpy(area - XCOMP_FRAME_AREA, &fcw, sizeof(fcw));
}

/*
 * Verify that programs that know nothing of XSTATE_BV can change x87 and SSE
 * registers that were initial.
 */
static int check_fpsse(struct xcomp *x)
{
	uint8_t *loaded = xcomp_pattern(), *saved;
	const uint32_t initial = XCOMP_INITIAL_MXCSR;
	uint32_t mxcsr;
	uint16_t fcw;
	bool ok;

	set_bv(loaded, get_bv(loaded) & ~XF_FPSSE);
	/* XRSTOR loads it along with AVX, and XSAVE takes others for SSE. */
	memcpy(loaded + XCOMP_MXCSR_OFFSET, &initial, sizeof(initial));
	saved = registers_after(x, loaded, edit_fpsse);
	ok = saved;
	if (saved) {
		fill_area(loaded);
		memcpy(&mxcsr, saved + XCOMP_MXCSR_OFFSET, sizeof(mxcsr));
		memcpy(&fcw, saved, sizeof(fcw));
		ok = xcomp_same(x, "MXCSR", FRAME_MXCSR, mxcsr);
		ok &= xcomp_same(x, "FCW", FRAME_FCW, fcw);
		ok &= xcomp_same_bytes(x, "XMM", "as written to the frame",
				       loaded + XCOMP_XMM_OFFSET,
				       saved + XCOMP_XMM_OFFSET,
				       XCOMP_XMM_SIZE);
	}
	return xcomp_verdict(xcomp_rule(x, ok,
		"XSTATE_BV of a frame always has x87 and SSE"));
}

#ifdef __x86_64__
static void edit_tile(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	sw->xfeatures |= XF_BIT(XF_XTILE_DATA);
	set_bv(area, get_bv(area) | XF_BIT(XF_XTILE_DATA));
}

static int tile_by_frame(struct xcomp *x)
{
	int result = becomes(x, "with XTILE_DATA in the frame",
			     xcomp_pattern(), edit_tile,
			     "a frame cannot bring XTILE_DATA to a task");

	if (!xcomp_same(x, "tiles in use", false, xcomp_tile_in_use()))
		return KSFT_FAIL;
	return result;
}

/*
 * Verify that a frame with XTILE_DATA does not give it to a task that has not
 * used it, whether that has the permission or not.
 */
static int check_tile(struct xcomp *x)
{
	bool ok;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	ok = xcomp_sub(x, tile_by_frame);
	ok &= xcomp_request(x, true);
	ok &= xcomp_sub(x, tile_by_frame);
	ok &= xcomp_request(x, false);
	return xcomp_verdict(ok & xcomp_sub(x, tile_by_frame));
}

static bool handler_has_tile;

/* Last of all, as the handler leaves its registers behind */
static void leave_tile(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	struct xcomp_tile t;

	(void)area;
	(void)sw;
	xcomp_tile_init(&t, FRAME_FILL);
	xcomp_tile_load(&t);
	handler_has_tile = xcomp_tile_in_use();
}

static void leave_tile_xfeatures(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	sw->xfeatures &= ~XF_BIT(XF_XTILE_DATA);
	leave_tile(area, sw);
}

static void leave_tile_legacy(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	edit_magic1(area, sw);
	leave_tile(area, sw);
}

/*
 * Verify that tiles that a handler leaves loaded are gone if its frame has none,
 * even if that is because the handler was the first to use them.
 */
static int check_tile_left(struct xcomp *x)
{
	static const struct {
		const char *what;
		void (*fn)(uint8_t *area, struct xcomp_sw_bytes *sw);
	} rows[] = {
		{ "tiles in use after the first use in a handler", leave_tile },
		{ "tiles in use that are not in XSTATE_BV", leave_tile },
		{ "tiles in use that are not in xfeatures", leave_tile_xfeatures },
		{ "tiles in use without magic1", leave_tile_legacy },
	};
	unsigned int i;
	bool ok = true;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (!xcomp_request(x, false))
		return KSFT_FAIL;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		handler_has_tile = false;
		if (!registers_after(x, xcomp_pattern(), rows[i].fn))
			return KSFT_FAIL;
		ok &= xcomp_same(x, "tiles in use in the handler", true,
				 handler_has_tile);
		ok &= xcomp_same(x, rows[i].what, false, xcomp_tile_in_use());
		xcomp_tile_release();
	}
	return xcomp_verdict(xcomp_rule(x, ok,
		"sigreturn() resets the tiles that the frame does not have"));
}

#endif /* __x86_64__ */

static void edit_mxcsr(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	const uint32_t mxcsr = 1u << 31;

	(void)sw;
	memcpy(area + XCOMP_MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
}

/* With bit 63 it would be a compacted area, which XRSTOR takes. */
static void edit_xcomp_bv(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	uint64_t xcomp_bv = xf_xcr0();

	(void)sw;
	memcpy(area + XF_HEADER_OFFSET + 8, &xcomp_bv, sizeof(xcomp_bv));
}

static void edit_reserved(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	(void)sw;
	area[XF_HEADER_OFFSET + 16] = 1;
}

static void edit_unknown(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	(void)sw;
	set_bv(area, get_bv(area) | XF_BIT(62));
}

static void edit_supervisor(uint8_t *area, struct xcomp_sw_bytes *sw)
{
	sw->xfeatures |= XF_BIT(XF_PASID) | XF_CET;
	set_bv(area, get_bv(area) | XF_BIT(XF_PASID) | XF_CET);
}

/* Verify that a task is killed for a frame that XRSTOR would fault on. */
static int check_refused(struct xcomp *x)
{
	static const struct {
		const char *what;
		void (*fn)(uint8_t *area, struct xcomp_sw_bytes *sw);
	} rows[] = {
		{ "reserved bit in MXCSR", edit_mxcsr },
		{ "XCOMP_BV without bit 63", edit_xcomp_bv },
		{ "reserved byte in the header", edit_reserved },
		{ "unknown component", edit_unknown },
		{ "PASID and CET in XSTATE_BV", edit_supervisor },
	};
	int status = 0;
	unsigned int i;
	bool ok = true;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		fflush(stdout);
		pid = fork();
		if (!pid) {
			signal(SIGSEGV, SIG_DFL);
			/* No core dump */
			prctl(PR_SET_DUMPABLE, 0);
			registers_after(x, xcomp_pattern(), rows[i].fn);
			_exit(KSFT_PASS);
		}
		ok &= xcomp_same(x, "child", pid, waitpid(pid, &status, 0));
		ok &= xcomp_same(x, rows[i].what, SIGSEGV,
				 WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	}
	return xcomp_verdict(xcomp_rule(x, ok,
		"sigreturn() refuses what XRSTOR would fault on"));
}

/* With the handler that is set already */
static int take_signal(struct xcomp *x)
{
	return xcomp_verdict(registers_after(x, xcomp_pattern(), edit));
}

/* Verify that supervisor state, which no frame has, is kept. */
static int check_pasid(struct xcomp *x)
{
	static void (*const edits[])(uint8_t *area, struct xcomp_sw_bytes *sw) = {
		edit_values, edit_bv, edit_xfeatures, edit_magic2,
	};
	int result = KSFT_PASS;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(edits) && !result; i++) {
		edit = edits[i];
		result = pasid_keeps(x, NULL, take_signal,
				     "sigreturn() keeps the PASID, whatever the frame");
	}
	return result;
}

static const struct xcomp_check checks[] = {
	{ "values", check_values },
	{ "bv", check_bv },
	{ "xfeatures", check_xfeatures },
	{ "legacy", check_legacy },
	{ "fpsse", check_fpsse },
#ifdef __x86_64__
	{ "tile", check_tile },
	{ "tile_left", check_tile_left },
#endif
	{ "refused", check_refused },
	{ "pasid", check_pasid },
};

int main(int argc, char **argv)
{
	if (!xf_xcr0())
		ksft_exit_skip("no XSAVE\n");
	return xcomp_host_main(argc, argv, checks, ARRAY_SIZE(checks), NULL,
			       false);
}
