// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest's AMX permission changes nothing that the host's task sees: not its
 * signal frames, not its registers as a debugger or a core dump shows them,
 * not what its own tile instructions do. That takes the host's permission, and
 * for frames also that the task has used AMX. Checks of the registers around
 * that first use are in xcomp_frame_regs.h.
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <sys/auxv.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <ucontext.h>

#include "xcomp_frame_core.h"
#include "xcomp_frame_regs.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ	51
#endif

/* What the kernel puts where the CPU leaves room in the legacy area */
#define SW_MAGIC1	0x46505853
#define SW_MAGIC2	0x46505845
#define SW_MAGIC2_SIZE	4

/* What the handler finds of its frame */
static struct {
	struct xcomp_sw_bytes sw;
	uint32_t magic2;
	uint64_t xstate_bv, xcomp_bv;
	uint8_t *area, *context;
	uint8_t tile[XCOMP_TILE_SIZE];
} frame;

static void look_at_frame(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint8_t *area = (uint8_t *)uc->uc_mcontext.fpregs;

	(void)sig;
	(void)info;
	frame.area = area;
	frame.context = context;
	memcpy(&frame.sw, area + XCOMP_SW_OFFSET, sizeof(frame.sw));
	memcpy(&frame.xstate_bv, area + XF_HEADER_OFFSET, 8);
	memcpy(&frame.xcomp_bv, area + XF_HEADER_OFFSET + 8, 8);
	memcpy(&frame.magic2, area + frame.sw.xstate_size, 4);
	if (frame.xstate_bv & XF_BIT(XF_XTILE_DATA))
		memcpy(frame.tile, area + xf_cpuid(0xd, XF_XTILE_DATA).ebx,
		       sizeof(frame.tile));
}

/* Components of a frame: XTILE_DATA only once this task has used it */
static uint64_t frame_mask(bool used)
{
	return xf_xcr0() & ~(used ? 0 : XF_BIT(XF_XTILE_DATA));
}

/* Take a signal on an alternate stack that ends at @top. */
static bool take_signal(struct xcomp *x, uint8_t **top)
{
	size_t size = (getauxval(AT_MINSIGSTKSZ) + 64 * 1024) & ~4095ul;
	struct sigaction action = {
		.sa_sigaction = look_at_frame,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	stack_t ss = { .ss_size = size };

	ss.ss_sp = xf_guarded(size, 0);
	*top = (uint8_t *)ss.ss_sp + size;
	memset(&frame, 0, sizeof(frame));
	if (sigaltstack(&ss, NULL) || sigaction(SIGUSR1, &action, NULL) ||
	    raise(SIGUSR1)) {
		xcomp_error(x, "taking a signal");
		return false;
	}
	return true;
}

/*
 * A frame has the size that goes with its components, where that size puts it,
 * and says so. Below the XSAVE area it is always the same.
 */
static bool frame_is(struct xcomp *x, const char *when, bool used)
{
	uint64_t mask = frame_mask(used);
	uint32_t size = xf_standard_size(mask);
	size_t min = getauxval(AT_MINSIGSTKSZ);
	uint8_t *top, *area;
	bool ok;

	if (!take_signal(x, &top))
		return false;
	area = (uint8_t *)((unsigned long)(top - size - SW_MAGIC2_SIZE) & ~63ul);
	ok = xcomp_same(x, "magic1", SW_MAGIC1, frame.sw.magic1);
	ok &= xcomp_same(x, "xfeatures", mask | XF_FPSSE, frame.sw.xfeatures);
	ok &= xcomp_same(x, "xstate_size", size, frame.sw.xstate_size);
	ok &= xcomp_same(x, "extended_size", size + SW_MAGIC2_SIZE,
			 frame.sw.extended_size);
	ok &= xcomp_same(x, "magic2", SW_MAGIC2, frame.magic2);
	ok &= xcomp_same(x, "XSTATE_BV beyond xfeatures", 0,
			 frame.xstate_bv & ~(mask | XF_FPSSE));
	ok &= xcomp_same(x, "XCOMP_BV", 0, frame.xcomp_bv);
	ok &= xcomp_same(x, "room above the XSAVE area", top - area,
			 top - frame.area);
	if (min)
		ok &= xcomp_same(x, "AT_MINSIGSTKSZ is enough", true,
				 (size_t)(top - frame.context) <= min);
	return xcomp_rule(x, ok, when);
}

/* Verify the frames of a task whose permission is for guests only. */
static int check_frame_guest(struct xcomp *x)
{
	bool ok;

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	ok = frame_is(x, "a frame has what XCR0 has but XTILE_DATA", false);
	ok &= xcomp_request(x, true);
	ok &= frame_is(x, "the guest's permission leaves frames alone", false);
	return xcomp_verdict(ok);
}

static int run_vcpu(struct xcomp *x)
{
	int result;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	x->amx = x->have_amx;
	if (!xcomp_request(x, true))
		return KSFT_FAIL;
	result = xcomp_vcpu(x);
	if (result)
		return result;
	return xcomp_verdict(xkvm_run_immediate_exit(x->kvm, x->vcpu));
}

/* Verify them around the use of a vCPU with AMX. */
static int check_frame_vcpu(struct xcomp *x)
{
	int result = run_vcpu(x);

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	return result ?: xcomp_verdict(frame_is(x,
		"a vCPU with AMX leaves the frames of its task alone", false));
}

/*
 * Verify that the host's permission makes frames larger by XTILE_DATA from the
 * first use on and not before, and only those of the thread that used it.
 */
static int check_frame_host(struct xcomp *x)
{
	bool ok;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	ok = xcomp_request(x, false);
	ok &= frame_is(x, "frames do not grow before AMX is used", false);
	xf_use_amx();
	ok &= frame_is(x, "frames grow once AMX is used", true);
	ok &= xcomp_request(x, true);
	ok &= frame_is(x, "the guest's permission leaves such frames alone",
		       true);
	return xcomp_verdict(ok);
}

struct frame_thread {
	struct xcomp *x;
	bool ok;
};

static void *frame_of_thread(void *arg)
{
	struct frame_thread *t = arg;

	t->ok = frame_is(t->x, "a thread starts with small frames", false);
	xf_use_amx();
	t->ok &= frame_is(t->x, "frames of a thread grow once it uses AMX",
			  true);
	return NULL;
}

/* Verify that a thread's frames grow by its own use of AMX, and no other's. */
static int check_frame_thread(struct xcomp *x)
{
	struct frame_thread t = { .x = x };
	bool ok;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	ok = xcomp_request(x, false);
	ok &= xcomp_thread(x, frame_of_thread, &t) && t.ok;
	ok &= frame_is(x, "the use of AMX by a thread is that thread's", false);
	return xcomp_verdict(ok);
}

static int frame_of_child(struct xcomp *x)
{
	return xcomp_verdict(frame_is(x, "a child starts with small frames",
				      false));
}

/* Verify that a child's frames start small again. */
static int check_frame_fork(struct xcomp *x)
{
	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (!xcomp_request(x, false))
		return KSFT_FAIL;
	xf_use_amx();
	return xcomp_verdict(xcomp_sub(x, frame_of_child));
}

/* Verify that a frame carries a tile, and that sigreturn() brings it back. */
static int check_frame_tile(struct xcomp *x)
{
	struct xcomp_tile t, wanted;
	uint8_t *top;
	bool ok;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (!xcomp_request(x, false))
		return KSFT_FAIL;
	xcomp_tile_init(&wanted, 0xd3);
	t = wanted;
	xcomp_tile_load(&t);
	ok = take_signal(x, &top);
	memset(t.data, 0, sizeof(t.data));
	xcomp_tile_store(&t);
	xcomp_tile_release();
	ok &= xcomp_same(x, "XTILE_DATA in use in the frame",
			 XF_BIT(XF_XTILE_DATA),
			 frame.xstate_bv & XF_BIT(XF_XTILE_DATA));
	ok &= xcomp_same_bytes(x, "tile", "in the frame", wanted.data,
			       frame.tile, sizeof(frame.tile));
	ok &= xcomp_same_bytes(x, "tile", "after the handler", wanted.data,
			       t.data, sizeof(t.data));
	return xcomp_verdict(xcomp_rule(x, ok,
		"a signal keeps the tiles that were in use"));
}

/* 0 or the errno of a PTRACE_SETREGSET of @size bytes with XSTATE_BV @bv */
static int set_xstate(pid_t pid, uint8_t *area, size_t size, uint64_t bv)
{
	memcpy(area + XF_HEADER_OFFSET, &bv, sizeof(bv));
	return xcomp_set_regset(pid, XCOMP_NT_XSTATE, area, size);
}

/* The registers of a stopped child: their size, their mask, what can be set */
static bool regset_is(struct xcomp *x, pid_t pid, bool used)
{
	uint32_t size = xf_standard_size(xf_xcr0());
	uint8_t *area = xf_guarded(size + 4096, 0x5a);
	struct iovec iov = { .iov_base = area, .iov_len = size + 4096 };
	uint64_t mask, bv;
	bool ok;
	int i;

	if (ptrace(PTRACE_GETREGSET, pid, XCOMP_NT_XSTATE, &iov)) {
		xcomp_error(x, "PTRACE_GETREGSET");
		return false;
	}
	memcpy(&mask, area + XCOMP_SW_OFFSET, sizeof(mask));
	memcpy(&bv, area + XF_HEADER_OFFSET, sizeof(bv));
	ok = xcomp_same(x, "size of NT_X86_XSTATE", size, iov.iov_len);
	ok &= xcomp_same(x, "mask in NT_X86_XSTATE", xf_xcr0(), mask);
	ok &= xcomp_same(x, "XSTATE_BV beyond the task's components", 0,
			 bv & ~(frame_mask(used) | XF_FPSSE));

	ok &= xcomp_same_errno(x, "setting what was read", 0,
			       set_xstate(pid, area, size, bv));
	for (i = 0; i < 64; i++) {
		if ((frame_mask(used) | XF_FPSSE) & XF_BIT(i))
			continue;
		ok &= xcomp_same_errno(x, "setting a component it has not",
				       EINVAL,
				       set_xstate(pid, area, size,
						  bv | XF_BIT(i)));
	}
	ok &= xcomp_same_errno(x, "setting less than all", EFAULT,
			       set_xstate(pid, area, size - 8, bv));
	return ok;
}

/* Stop a child that has the permissions of @x, and has used AMX or not. */
static bool trace_child(struct xcomp *x, bool used)
{
	int status;
	bool ok;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (used)
			xf_use_amx();
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(KSFT_PASS);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
		xcomp_error(x, "waiting for a child to stop");
		return false;
	}
	ok = regset_is(x, pid, used);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return ok;
}

/*
 * Verify what a debugger sees and may set: all of XCR0 in size and mask,
 * whatever is permitted, but XTILE_DATA only if the task has used it.
 */
static int check_ptrace(struct xcomp *x)
{
	bool ok;

	if (!xf_xcr0())
		return xcomp_skip(x, "no XSAVE");
	ok = trace_child(x, false);
	ok &= xcomp_request(x, true);
	ok &= trace_child(x, false);
	ok &= xcomp_request(x, false);
	ok &= trace_child(x, false);
	if (x->have_amx)
		ok &= trace_child(x, true);
	return xcomp_verdict(xcomp_rule(x, ok,
		"NT_X86_XSTATE does not depend on permissions"));
}

static sigjmp_buf after_sigill;
static bool amx_done;
static siginfo_t sigill;
static unsigned long sigill_ip;

static void on_sigill(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	sigill = *info;
	sigill_ip = uc->uc_mcontext.gregs[REG_RIP];
	siglongjmp(after_sigill, 1);
}

/* Whether AMX works; if not, the signal must say what CPU or kernel refuse. */
static bool amx_works(struct xcomp *x, bool wanted)
{
	struct sigaction action = {
		.sa_sigaction = on_sigill, .sa_flags = SA_SIGINFO,
	};
	bool ok;

	amx_done = false;
	sigaction(SIGILL, &action, NULL);
	if (!sigsetjmp(after_sigill, 1)) {
		xf_use_amx();
		amx_done = true;
	}
	ok = xcomp_same(x, "tile instructions work", wanted, amx_done);
	if (amx_done)
		return ok;
	ok &= xcomp_same(x, "si_code of SIGILL",
			 x->have_amx ? ILL_ILLOPC : ILL_ILLOPN, sigill.si_code);
	return ok & xcomp_same(x, "si_addr of SIGILL", sigill_ip,
			       (unsigned long)sigill.si_addr);
}

static void *amx_in_thread(void *arg)
{
	struct xcomp *x = arg;

	return amx_works(x, x->host_granted) ? arg : NULL;
}

/* In the task itself, in a thread of it and in a child */
static int amx_by_all(struct xcomp *x)
{
	pthread_t thread;
	void *ok = NULL;

	if (!pthread_create(&thread, NULL, amx_in_thread, x))
		pthread_join(thread, &ok);
	return xcomp_verdict(ok && amx_works(x, x->host_granted));
}

/*
 * Verify that AMX raises SIGILL until the host's permission is there, with
 * that of the guest or without, and then works for threads and children too.
 */
static int check_sigill(struct xcomp *x)
{
	bool ok;

	ok = xcomp_rule(x, !amx_by_all(x), "AMX needs a permission");
	ok &= xcomp_request(x, true);
	ok &= xcomp_rule(x, !amx_by_all(x),
			 "the guest's permission gives its host no AMX");
	ok &= xcomp_request(x, false);
	ok &= xcomp_rule(x, xcomp_sub(x, amx_by_all),
			 "the host's permission gives children AMX");
	ok &= xcomp_rule(x, !amx_by_all(x), "the host's permission gives AMX");
	return xcomp_verdict(ok);
}

/* Verify the same of a task with a vCPU that has AMX. */
static int check_sigill_vcpu(struct xcomp *x)
{
	int result = run_vcpu(x);

	return result ?: xcomp_verdict(xcomp_rule(x, !amx_by_all(x),
		"a vCPU with AMX gives its host no AMX"));
}

static const struct xcomp_check checks[] = {
	{ "frame_guest", check_frame_guest },
	{ "frame_vcpu", check_frame_vcpu },
	{ "frame_host", check_frame_host },
	{ "frame_thread", check_frame_thread },
	{ "frame_fork", check_frame_fork },
	{ "frame_tile", check_frame_tile },
	{ "ptrace", check_ptrace },
	{ "core", xcomp_check_core },
	{ "sigill", check_sigill },
	{ "sigill_vcpu", check_sigill_vcpu },
	{ "first_use", xcomp_check_first_use },
	{ "first_use_vcpu", xcomp_check_first_use_vcpu },
	{ "first_use_shstk", xcomp_check_first_use_shstk },
	{ "clone_shstk", xcomp_check_clone_shstk },
	{ "tile_not_inherited", xcomp_check_tile_not_inherited },
};

int main(int argc, char **argv)
{
	return xcomp_host_main(argc, argv, checks, ARRAY_SIZE(checks), NULL,
			       false);
}
