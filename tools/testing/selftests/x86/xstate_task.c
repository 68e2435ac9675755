// SPDX-License-Identifier: GPL-2.0-only
/*
 * What becomes of a task's XSAVE state, PKRU included, when the task forks,
 * executes a new program, takes a signal, is scheduled out or is debugged, and
 * what an #NM leaves behind.  It takes no guest, but it is the same code that
 * KVM and the AMX permissions rely on.
 */
#define _GNU_SOURCE

#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

#include "xregs.h"

#define PKRU_MINE		0x55555500
#define PKRU_THEIRS		0xaaaaaa00
/* All but key 0, which the program needs */
#define PKRU_CLOSED		0xfffffffc

/* Not the initial one: flush to zero, and another rounding mode */
#define MXCSR_MINE		0xbf80
#define MXCSR_THEIRS		0xdf80
#define FCW_MINE		0x77f

#define MSR_IA32_XFD_ERR	0x1c5

/*
 * Copying page tables of that much memory takes longer than a turn of the CPU, and so does it
 * with less of it on a machine that is so slow that filling it takes that long.
 */
#define BUSY_MEMORY		(48ul << 20)
#define BUSY_FILL_MS		600
/* So often, and until fork() was preempted so often, unless that takes too long */
#define BUSY_FORKS		12
#define BUSY_SWITCHES		4
#define BUSY_SECONDS		10

#define TURNS			8

static bool has_pkru(void)
{
	return xf_xcr0() & XFEATURE_MASK_PKRU;
}

FIXTURE(xstate_task) {
	uint32_t initial_pkru;		/* as execve() leaves it */
};

FIXTURE_SETUP(xstate_task)
{
	xcomp_begin(_metadata, variant);
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	if (has_pkru())
		self->initial_pkru = xregs_pkru();
}

FIXTURE_TEARDOWN(xstate_task)
{
	xcomp_end(_metadata);
}

/*
 * Fork with a pattern in the registers, and compare them in child and parent.
 * Return how often the parent was preempted meanwhile.
 */
static long fork_with_pattern(struct __test_metadata *const _metadata)
{
	struct xregs *pattern = xregs_pattern(xregs_mask()), *saved = xregs_alloc();
	struct rusage before, after;
	long pid;

	fflush(stdout);
	getrusage(RUSAGE_SELF, &before);
	pid = xregs_call_between(pattern, saved, SYS_fork, 0, 0, 0);
	if (!pid) {
		EXPECT_XREGS(xregs_mask(), pattern, saved, "of a new child");
		xf_exit();
	}
	getrusage(RUSAGE_SELF, &after);
	ASSERT_LT(0, pid)
		TH_ROW_LOG("fork(): %s", strerror(-pid));
	EXPECT_XREGS(xregs_mask(), pattern, saved, "of its parent");
	xf_join(_metadata, pid, "a child that compares registers");
	return after.ru_nivcsw - before.ru_nivcsw;
}

/* Verify that a child starts with the registers of its parent. */
TEST_F(xstate_task, fork)
{
	fork_with_pattern(_metadata);
}

/* CPU time that this process has taken */
static long cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What is not filled has no page tables. */
static void fill_memory(uint8_t *p)
{
	const size_t unit = 1ul << 20;
	long end = cpu_ms() + BUSY_FILL_MS;
	size_t at;

	for (at = 0; at < BUSY_MEMORY && cpu_ms() < end; at += unit)
		memset(p + at, 1, unit);
}

/* Verify the same where other tasks have the CPU while fork() is at work. */
TEST_F(xstate_task, fork_busy)
{
	long switches = 0;
	time_t end;
	uint8_t *p;
	pid_t hog;
	int i;

	xf_pin(_metadata);
	p = mmap(NULL, BUSY_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	madvise(p, BUSY_MEMORY, MADV_NOHUGEPAGE);
	hog = xf_hog(_metadata);
	fill_memory(p);
	end = time(NULL) + BUSY_SECONDS;
	for (i = 0; (i < BUSY_FORKS || switches < BUSY_SWITCHES) && time(NULL) < end; i++) {
		switches += fork_with_pattern(_metadata);
		if (_metadata->exit_code)
			break;
	}
	xf_kill(_metadata, hog);
	if (!_metadata->exit_code && !switches)
		SKIP(return, "fork() was never preempted");
}

/* Registers that neither compiler nor library touch */
struct untouched {
	uint16_t fcw;
	uint32_t mxcsr;
	uint32_t pkru;
};

static struct untouched read_untouched(void)
{
	struct untouched u = { .fcw = xregs_fcw(), .mxcsr = xregs_mxcsr() };

	if (has_pkru())
		u.pkru = xregs_pkru();
	return u;
}

static void expect_initial(struct __test_metadata *const _metadata, const struct untouched *got,
			   uint32_t pkru, const char *whose)
{
	EXPECT_SAME(XREGS_INITIAL_FCW, got->fcw, "FCW of %s", whose);
	EXPECT_SAME(XREGS_INITIAL_MXCSR, got->mxcsr, "MXCSR of %s", whose);
	EXPECT_SAME(pkru, got->pkru, "PKRU of %s", whose);
}

static void change_registers(struct __test_metadata *const _metadata, void *arg)
{
	const uint32_t mxcsr = MXCSR_MINE;
	const uint16_t fcw = FCW_MINE;

	(void)_metadata;
	(void)arg;
	asm volatile("fldcw %0; ldmxcsr %1" : : "m" (fcw), "m" (mxcsr));
	if (has_pkru())
		xregs_set_pkru(PKRU_MINE);
}

/* The new program tells what it has found. */
static void after_exec(int fd)
{
	struct untouched u = read_untouched();

	if (write(fd, &u, sizeof(u)) != sizeof(u))
		exit(KSFT_FAIL);
}

/* Verify that execve() resets the registers. */
TEST_F(xstate_task, exec)
{
	struct untouched got;

	xcomp_in_new_program(_metadata, "a new program", change_registers, NULL, &got, sizeof(got));
	expect_initial(_metadata, &got, self->initial_pkru, "a new program");
}

/* What a signal handler finds */
static struct untouched in_handler;
static uint32_t pkru_in_frame;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	in_handler = read_untouched();
	if (has_pkru())
		memcpy(&pkru_in_frame, xregs_at((void *)uc->uc_mcontext.fpregs,
						XFEATURE_MASK_PKRU), sizeof(pkru_in_frame));
}

/*
 * Verify that a handler starts with initial registers, finds in its frame the
 * PKRU of what it interrupts, and that nothing of that is changed afterwards.
 */
TEST_F(xstate_task, signal)
{
	struct xregs *pattern = xregs_pattern(xregs_mask()), *saved = xregs_alloc();
	const struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	EXPECT_EQ(0, xregs_call_between(pattern, saved, SYS_kill, getpid(), SIGUSR1, 0));
	EXPECT_XREGS(xregs_mask(), pattern, saved, "once a handler has run");
	expect_initial(_metadata, &in_handler, self->initial_pkru, "a handler");
	if (has_pkru())
		EXPECT_SAME(*(uint32_t *)xregs_at(pattern, XFEATURE_MASK_PKRU), pkru_in_frame,
			    "PKRU in the frame");
}

static int allocated;

static void on_alloc(int sig)
{
	(void)sig;
	allocated = syscall(SYS_pkey_alloc, 0, 0);
	in_handler = read_untouched();
}

/*
 * Verify that pkey_alloc() sets the rights to its key alone, and in a handler for no
 * longer than that runs.
 */
TEST_F(xstate_task, pkey_alloc)
{
	uint32_t wanted, got, rights;
	int key;

	if (!has_pkru())
		SKIP(return, "no protection keys");
	signal(SIGUSR1, on_alloc);
	for (rights = 0; rights <= (PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE); rights++) {
		xregs_set_pkru(PKRU_CLOSED);
		key = syscall(SYS_pkey_alloc, 0, rights);
		got = xregs_pkru();
		ASSERT_LT(0, key);
		wanted = (PKRU_CLOSED & ~(3u << 2 * key)) | rights << 2 * key;
		EXPECT_SAME(wanted, got, "PKRU after pkey_alloc() with rights %u", rights);
		raise(SIGUSR1);
		EXPECT_SAME(0, in_handler.pkru >> 2 * allocated & 3,
			    "rights in a handler to the key that it allocates");
		EXPECT_SAME(wanted, xregs_pkru(), "PKRU after that");
		syscall(SYS_pkey_free, allocated);
	}
}

/* Verify that two tasks on one CPU each have a PKRU of their own. */
TEST_F(xstate_task, two_tasks)
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	pid_t pid;
	int i;

	if (!has_pkru())
		SKIP(return, "no protection keys");
	xf_pin(_metadata);
	pid = xf_fork(_metadata);
	if (!pid) {
		/* Keep the CPU until killed. */
		xf_leave_real_time();
		xregs_set_pkru(PKRU_THEIRS);
		while (xregs_pkru() == PKRU_THEIRS)
			;
		EXPECT_THAT(false, "PKRU of the other task has changed");
		xf_exit();
	}
	for (i = 0; i < TURNS; i++) {
		xregs_set_pkru(PKRU_MINE + i * 4);
		nanosleep(&nap, NULL);
		EXPECT_SAME(PKRU_MINE + i * 4, xregs_pkru(), "PKRU beside another task, turn %d",
			    i);
	}
	xf_kill(_metadata, pid);
}

/*
 * Verify that an #NM leaves nothing in IA32_XFD_ERR, whether the task gets
 * SIGILL or AMX: the next task, or guest, would find it there.
 */
TEST_F(xstate_task, xfd_err)
{
	struct xcomp_perm perm = { };
	int fd;

	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	fd = xf_open_msrs(_metadata, O_RDONLY);
	if (fd < 0)
		SKIP(return, "no /dev/cpu/N/msr");
	xf_expect_amx(_metadata, false, "without permission");
	EXPECT_SAME(0, xf_read_msr(_metadata, fd, MSR_IA32_XFD_ERR),
		    "IA32_XFD_ERR after SIGILL");
	xcomp_request_host(_metadata, &perm);
	xf_use_amx(_metadata);
	EXPECT_SAME(0, xf_read_msr(_metadata, fd, MSR_IA32_XFD_ERR),
		    "IA32_XFD_ERR after a first use of AMX");
}

/*
 * A child that is debugged, and its registers as its debugger reads and sets
 * them: NT_X86_XSTATE, NT_PRFPREG and NT_X86_SHSTK.
 */
FIXTURE(xstate_task_ptrace) {
	pid_t pid;
	/* What the child finds after each stop, in memory that it shares */
	struct found {
		uint32_t pkru;
		uint32_t mxcsr;
		uint64_t ssp;
	} *found;
	struct xregs *regs;
};

static void stop_and_look(struct __test_metadata *const _metadata, void *arg)
{
	struct found *found = arg;

	(void)_metadata;
	if (has_pkru())
		xregs_set_pkru(PKRU_MINE);
	for (;;) {
		raise(SIGSTOP);
		found->pkru = has_pkru() ? xregs_pkru() : 0;
		found->mxcsr = xregs_mxcsr();
	}
}

FIXTURE_SETUP(xstate_task_ptrace)
{
	xcomp_begin(_metadata, variant);
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	self->regs = xregs_alloc();
	self->found = mmap(NULL, sizeof(*self->found), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->found);
	self->pid = xregs_trace(_metadata, stop_and_look, self->found);
	if (!self->pid)
		SKIP(return, XREGS_NO_PTRACE);
}

FIXTURE_TEARDOWN(xstate_task_ptrace)
{
	xf_kill(_metadata, self->pid);
	xcomp_end(_metadata);
}

static void get_xstate(struct __test_metadata *const _metadata, pid_t pid, struct xregs *regs)
{
	EXPECT_ERRNO(0, xregs_get_regset(pid, NT_X86_XSTATE, regs, xf_standard_size(xf_xcr0())),
		     "reading NT_X86_XSTATE");
}

/* Set XSTATE_BV to @bv and the rest to @regs. */
static void set_xstate(struct __test_metadata *const _metadata, pid_t pid, struct xregs *regs,
		       uint64_t bv)
{
	regs->xstate_bv = bv;
	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_XSTATE, regs, xf_standard_size(xf_xcr0())),
		     "setting NT_X86_XSTATE with XSTATE_BV %#llx", (unsigned long long)bv);
}

/* Let the child run until it stops again, by @sig. */
static void go_on(struct __test_metadata *const _metadata, pid_t pid, int sig)
{
	int status = xregs_go_on(_metadata, pid, 0);

	ASSERT_TRUE(EXPECT_THAT(WIFSTOPPED(status) && WSTOPSIG(status) == sig,
				"the child is to stop by signal %d, has wait status %#x", sig,
				status));
}

/*
 * Verify that a debugger sees the PKRU of a task, that what it sets is what the
 * task goes on with, and that PKRU that is not in XSTATE_BV becomes 0.
 */
TEST_F(xstate_task_ptrace, pkru)
{
	uint32_t *pkru;
	uint64_t bv;

	if (!has_pkru())
		SKIP(return, "no protection keys");
	pkru = xregs_at(self->regs, XFEATURE_MASK_PKRU);
	get_xstate(_metadata, self->pid, self->regs);
	EXPECT_SAME(PKRU_MINE, *pkru, "PKRU that a debugger sees");

	bv = self->regs->xstate_bv;
	*pkru = PKRU_THEIRS;
	set_xstate(_metadata, self->pid, self->regs, bv | XFEATURE_MASK_PKRU);
	go_on(_metadata, self->pid, SIGSTOP);
	EXPECT_SAME(PKRU_THEIRS, self->found->pkru, "PKRU that a debugger has set");
	set_xstate(_metadata, self->pid, self->regs, bv & ~XFEATURE_MASK_PKRU);
	go_on(_metadata, self->pid, SIGSTOP);
	EXPECT_SAME(0, self->found->pkru, "PKRU that a debugger has left out");
}

/*
 * Verify that MXCSR goes with SSE and AVX state, with x87 state or without.
 * Where the kernel has the standard format, by which XRSTOR loads MXCSR whatever
 * XSTATE_BV says, one that is left out may stay: an old flaw of every kernel.
 */
TEST_F(xstate_task_ptrace, mxcsr)
{
	uint32_t left = XREGS_INITIAL_MXCSR;

	self->regs->mxcsr = MXCSR_MINE;
	set_xstate(_metadata, self->pid, self->regs, XFEATURE_MASK_SSE);
	go_on(_metadata, self->pid, SIGSTOP);
	EXPECT_SAME(MXCSR_MINE, self->found->mxcsr, "MXCSR set along with SSE");
	set_xstate(_metadata, self->pid, self->regs, 0);
	go_on(_metadata, self->pid, SIGSTOP);
	if (xregs_are_standard() && self->found->mxcsr == MXCSR_MINE)
		left = MXCSR_MINE;
	EXPECT_SAME(left, self->found->mxcsr, "MXCSR left out");

	if (!(xf_xcr0() & XFEATURE_MASK_YMM))
		return;
	/* Memory may still have what was set along with SSE. */
	self->regs->mxcsr = MXCSR_THEIRS;
	set_xstate(_metadata, self->pid, self->regs, XFEATURE_MASK_YMM);
	self->regs->mxcsr = 0;
	get_xstate(_metadata, self->pid, self->regs);
	EXPECT_SAME(MXCSR_THEIRS, self->regs->mxcsr, "MXCSR set along with AVX");
}

/* The pattern of the component @bit, with all others as they are initially */
static struct xregs *only(uint64_t bit)
{
	struct xregs *regs = xregs_pattern(bit), *initial = xregs_alloc();

	if (!(bit & XFEATURE_MASK_FP)) {
		memcpy(regs, initial, offsetof(struct xregs, mxcsr));
		memcpy(regs->st, initial->st, sizeof(regs->st));
	}
	if (!(bit & XFEATURE_MASK_SSE))
		memcpy(regs->xmm, initial->xmm, sizeof(regs->xmm));
	if (!(bit & (XFEATURE_MASK_SSE | XFEATURE_MASK_YMM)))
		regs->mxcsr = initial->mxcsr;
	return regs;
}

/*
 * Verify of each component that it can be the only one in XSTATE_BV: a debugger
 * sees it, and all others as they are initially, whatever they were before.  SSE
 * may be there with AVX: in the compacted format it has the MXCSR of both.
 */
TEST_F(xstate_task_ptrace, initial)
{
	uint64_t mask = xregs_mask() & ~XFEATURE_MASK_PKRU, seen;
	struct xregs *pattern = xregs_pattern(xregs_mask()), *wanted, *got = self->regs;
	int i;

	for (i = 0; i < 63; i++) {
		if (!(mask >> i & 1))
			continue;
		wanted = only(1ULL << i);
		set_xstate(_metadata, self->pid, pattern, pattern->xstate_bv);
		set_xstate(_metadata, self->pid, wanted, 1ULL << i);
		get_xstate(_metadata, self->pid, got);
		seen = got->xstate_bv & mask;
		if (1ULL << i == XFEATURE_MASK_YMM)
			seen &= ~XFEATURE_MASK_SSE;
		EXPECT_SAME_MASK(xf_names, 1ULL << i, seen, "XSTATE_BV that a debugger sees");
		EXPECT_XREGS(mask, wanted, got, "with %s alone in XSTATE_BV", xf_name(i));
	}
}

/*
 * Verify that a debugger's NT_PRFPREG is the x87 and SSE state that
 * NT_X86_XSTATE has too, and sets that and nothing else.
 */
TEST_F(xstate_task_ptrace, fx)
{
	const uint64_t three = XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM;
	struct xregs *regs = self->regs, *fx = xregs_alloc();
	uint8_t xmm[sizeof(fx->xmm)], *ymm;

	if (!(xf_xcr0() & XFEATURE_MASK_YMM))
		SKIP(return, "no AVX");
	memset(xmm, 0x5e, sizeof(xmm));
	ymm = memset(xregs_at(regs, XFEATURE_MASK_YMM), 0xc3, sizeof(xmm));
	/* Only AVX is in use, x87 and SSE are initial. */
	set_xstate(_metadata, self->pid, regs, 0);
	go_on(_metadata, self->pid, SIGSTOP);
	set_xstate(_metadata, self->pid, regs, XFEATURE_MASK_YMM);

	EXPECT_ERRNO(0, xregs_get_regset(self->pid, NT_PRFPREG, fx, XREGS_FX_SIZE),
		     "PTRACE_GETREGSET of NT_PRFPREG");
	fx->mxcsr = MXCSR_MINE;
	memcpy(fx->xmm, xmm, sizeof(xmm));
	EXPECT_ERRNO(0, xregs_set_regset(self->pid, NT_PRFPREG, fx, XREGS_FX_SIZE),
		     "PTRACE_SETREGSET of NT_PRFPREG");
	memset(fx, 0, XREGS_FX_SIZE);
	EXPECT_ERRNO(0, xregs_get_regset(self->pid, NT_PRFPREG, fx, XREGS_FX_SIZE),
		     "PTRACE_GETREGSET of NT_PRFPREG once more");
	EXPECT_BYTES(xmm, fx->xmm, sizeof(xmm), "XMM in NT_PRFPREG");

	get_xstate(_metadata, self->pid, regs);
	EXPECT_SAME_MASK(xf_names, three, regs->xstate_bv & three, "XSTATE_BV");
	EXPECT_BYTES(xmm, regs->xmm, sizeof(xmm), "XMM in NT_X86_XSTATE");
	EXPECT_SAME(0xc3, ymm[0], "first byte of AVX, as before");
	go_on(_metadata, self->pid, SIGSTOP);
	EXPECT_SAME(MXCSR_MINE, self->found->mxcsr, "MXCSR that a debugger has set");
}

/* SDM, "Guidelines for Writing to the MXCSR Register" */
static uint32_t supported_mxcsr(void)
{
	struct xregs *fx = xregs_alloc();

	asm volatile("fxsave (%0)" : : "r" (fx) : "memory");
	return fx->mxcsr_mask ?: 0xffbf;
}

/*
 * Set a regset with each reserved bit of MXCSR, with all others, with fewer
 * bytes, which is @short_errno, and as it was.
 */
static void expect_refusals(struct __test_metadata *const _metadata, pid_t pid, int type,
			    struct xregs *regs, size_t size, int short_errno)
{
	const char *name = type == NT_PRFPREG ? "NT_PRFPREG" : "NT_X86_XSTATE";
	const uint32_t supported = supported_mxcsr(), mxcsr = regs->mxcsr;
	int i;

	for (i = 0; i < 32; i++) {
		if (supported & 1u << i)
			continue;
		regs->mxcsr = mxcsr | 1u << i;
		EXPECT_ERRNO(EINVAL, xregs_set_regset(pid, type, regs, size),
			     "%s: setting reserved bit %d of MXCSR", name, i);
	}
	regs->mxcsr = supported;
	EXPECT_ERRNO(0, xregs_set_regset(pid, type, regs, size),
		     "%s: setting all other bits of MXCSR", name);
	regs->mxcsr = mxcsr;
	EXPECT_ERRNO(0, xregs_set_regset(pid, type, regs, size), "%s: setting what was there",
		     name);
	EXPECT_ERRNO(short_errno, xregs_set_regset(pid, type, regs, size - 8),
		     "%s: setting less than all", name);
	EXPECT_ERRNO(0, xregs_get_regset(pid, type, regs, size), "%s: PTRACE_GETREGSET", name);
	EXPECT_SAME(mxcsr, regs->mxcsr, "%s: MXCSR after what was refused", name);
}

/*
 * Verify that no reserved bit of MXCSR gets in: XRSTOR would fault on it when
 * the task runs again.
 */
TEST_F(xstate_task_ptrace, refused)
{
	get_xstate(_metadata, self->pid, self->regs);
	self->regs->xstate_bv |= XFEATURE_MASK_SSE;
	expect_refusals(_metadata, self->pid, NT_X86_XSTATE, self->regs,
			xf_standard_size(xf_xcr0()), EFAULT);
	expect_refusals(_metadata, self->pid, NT_PRFPREG, self->regs, XREGS_FX_SIZE, EINVAL);
}

/*
 * Tell the SSP at each stop.  Does not return, as its caller has no shadow stack,
 * and calls nothing, as it may run on another one after a stop.
 */
static void __noreturn trap_on_shadow_stack(struct found *found)
{
	for (;;)
		asm volatile("xor %%eax, %%eax\n\t"
			     XREGS_RDSSP
			     "mov %%rax, (%0)\n\t"
			     "int3"
			     : : "r" (&found->ssp) : "rax", "memory");
}

static void stop_with_ssp(struct __test_metadata *const _metadata, void *arg)
{
	struct xcomp_perm perm = { };
	struct found *found = arg;

	if (xf_has_amx())
		xcomp_request_host(_metadata, &perm);
	found->ssp = xregs_ssp();
	raise(SIGSTOP);
	if (!xregs_enable_shadow_stack())
		xregs_no_shadow_stack(_metadata);
	if (xf_has_amx())
		xf_touch_amx();
	trap_on_shadow_stack(found);
}

/* A child has stopped with a shadow stack: what can be read and set */
static void expect_ssp_set(struct __test_metadata *const _metadata, pid_t pid,
			   struct found *found)
{
	const uint64_t ssp = found->ssp, next = ssp - 8, bad[] = {
		ssp + 1, ssp + 4, 1ull << 63, ~0ull << 47 & ~7ull, ~7ull
	};
	uint64_t value = 0;
	unsigned int i;

	EXPECT_ERRNO(0, xregs_get_regset(pid, NT_X86_SHSTK, &value, 8), "reading NT_X86_SHSTK");
	EXPECT_SAME(ssp, value, "SSP that a debugger sees");
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_ERRNO(EINVAL, xregs_set_regset(pid, NT_X86_SHSTK, &bad[i], 8),
			     "setting an SSP of %#llx, which cannot be",
			     (unsigned long long)bad[i]);
	EXPECT_ERRNO(0, xregs_get_regset(pid, NT_X86_SHSTK, &value, 8), "reading NT_X86_SHSTK");
	EXPECT_SAME(ssp, value, "SSP after what was refused");

	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_SHSTK, &next, 8), "setting NT_X86_SHSTK");
	go_on(_metadata, pid, SIGTRAP);
	EXPECT_SAME(next, found->ssp, "SSP that a debugger has set");
	/* All that XCR0 has becomes initial. */
	set_xstate(_metadata, pid, xregs_alloc(), 0);
	go_on(_metadata, pid, SIGTRAP);
	EXPECT_SAME(next, found->ssp, "SSP after NT_X86_XSTATE was set");
}

/*
 * Verify that a debugger sees and sets the SSP in a task's CET_USER, but none
 * that would fault in the kernel, that a task without shadow stack has none, and
 * that NT_X86_XSTATE leaves CET_USER alone.  The task has used AMX, if it can.
 */
TEST_F(xstate_task_ptrace, ssp)
{
	pid_t pid = xregs_trace(_metadata, stop_with_ssp, self->found);
	int status, error;
	uint64_t value;

	/* Programs may have a shadow stack from the start, kernels may know of none. */
	error = xregs_get_regset(pid, NT_X86_SHSTK, &value, 8);
	if (!self->found->ssp && (error != EINVAL || xf_cpuinfo_flag("user_shstk")))
		EXPECT_ERRNO(ENODEV, error, "reading NT_X86_SHSTK without one");
	status = xregs_go_on(_metadata, pid, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return, "no user shadow stacks");
	ASSERT_TRUE(EXPECT_THAT(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP,
				"with a shadow stack the child has wait status %#x", status));
	expect_ssp_set(_metadata, pid, self->found);
	xf_kill(_metadata, pid);
}

XCOMP_EXEC_HARNESS_MAIN(after_exec)
