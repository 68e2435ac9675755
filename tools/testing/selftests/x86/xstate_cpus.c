// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registers of tasks on several CPUs.  A CPU keeps the registers of the task that it had last,
 * which need not be loaded again should that come back, and a task knows where it had its own
 * last: neither may be believed alone.  Nor is what one CPU has in IA32_XFD what another has.
 *
 * Two CPUs, called here and there, by turns the one and the other.  Nothing but what a test
 * does must run on them, or it proves less.
 */
#define _GNU_SOURCE

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "xregs.h"

/* Turns, of which some will find a CPU as another one has left it */
#define ROUNDS		16

FIXTURE(xstate_cpus) {
	int cpu[2];
};

FIXTURE_SETUP(xstate_cpus)
{
	struct xcomp_cpus cpus = { };
	unsigned int found = 0;
	int i;

	xcomp_begin(_metadata, variant);
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	ASSERT_EQ(0, sched_getaffinity(0, sizeof(cpus), cpus.sets));
	for (i = 0; i < XCOMP_MAX_CPUS && found < 2; i++)
		if (CPU_ISSET_S(i, sizeof(cpus), cpus.sets))
			self->cpu[found++] = i;
	if (found < 2)
		SKIP(return, "one CPU only");
}

FIXTURE_TEARDOWN(xstate_cpus)
{
	xcomp_end(_metadata);
}

/* Two patterns that differ in each register, with tiles if there are any */
static void get_patterns(struct __test_metadata *const _metadata, struct xregs *patterns[2])
{
	struct xcomp_perm perm = { };
	uint64_t mask = xregs_mask();
	unsigned int i;

	if (xf_has_amx()) {
		xcomp_request_host(_metadata, &perm);
		xf_use_amx(_metadata);
		mask |= XFEATURE_MASK_XTILE;
	}
	patterns[0] = xregs_pattern(mask);
	patterns[1] = xregs_pattern(mask);
	patterns[1]->fcw = XREGS_INITIAL_FCW;
	patterns[1]->mxcsr = XREGS_INITIAL_MXCSR;
	for (i = 0; i < 8; i++)
		memset(patterns[1]->st[i], 0x51 + i, 10);
	memset(patterns[1]->xmm, 0x5a, sizeof(patterns[1]->xmm));
	xregs_set(patterns[1], mask & ~(XFEATURE_MASK_PKRU | XFEATURE_MASK_XTILE_CFG), 0x5b);
	if (mask & XFEATURE_MASK_PKRU)
		*(uint32_t *)xregs_at(patterns[1], XFEATURE_MASK_PKRU) = 0x55555554;
}

/*
 * Verify that a task has the registers that it had last, not those from when it was last on
 * the CPU to which it comes back.
 */
TEST_F(xstate_cpus, comes_back)
{
	struct xregs *patterns[2], *saved = xregs_alloc();
	struct xcomp_cpus cpus[2];
	unsigned int turn;

	get_patterns(_metadata, patterns);
	cpus[0] = xcomp_only_cpu(self->cpu[0]);
	cpus[1] = xcomp_only_cpu(self->cpu[1]);
	xcomp_run_on(_metadata, self->cpu[0]);
	for (turn = 1; turn < ROUNDS && !_metadata->exit_code; turn++) {
		th_case("turn %u", turn);
		/* That CPU still has those of the turn before. */
		EXPECT_SAME(0, xregs_call_between(patterns[turn % 2], saved, SYS_sched_setaffinity,
						  0, sizeof(cpus[0]), (long)&cpus[turn % 2]),
			    "sched_setaffinity() to the other CPU");
		EXPECT_XREGS(patterns[0]->xstate_bv, patterns[turn % 2], saved,
			     "on the other CPU");
	}
	th_no_case();
}

/* Somebody who sleeps on a CPU with registers loaded until killed */
struct sleeper {
	const struct xregs *regs;
	int cpu, *there;
};

static void sleep_there(struct __test_metadata *const _metadata, const struct sleeper *s)
{
	xcomp_run_on(_metadata, s->cpu);
	__atomic_store_n(s->there, 1, __ATOMIC_RELEASE);
	xregs_call_between(s->regs, xregs_alloc(), SYS_pause, 0, 0, 0);
}

static const struct timespec nap = { .tv_nsec = 50 * 1000 * 1000 };

/*
 * Fork with a pattern in the registers, on this CPU with a child that may begin on another.
 * Return whether it has.
 */
static bool expect_own_registers(struct __test_metadata *const _metadata,
				 const struct xregs *pattern)
{
	struct xregs *saved = xregs_alloc();
	int status, cpu = sched_getcpu();
	long pid;

	fflush(stdout);
	pid = xregs_call_between(pattern, saved, SYS_fork, 0, 0, 0);
	if (!pid) {
		EXPECT_XREGS(xregs_mask(), pattern, saved, "of a child on another CPU");
		fflush(stdout);
		_exit(sched_getcpu() == cpu ? KSFT_SKIP : KSFT_PASS);
	}
	ASSERT_LT(0, pid)
		TH_ROW_LOG("fork(): %s", strerror(-pid));
	status = xf_wait(_metadata, pid, "a child that compares registers");
	EXPECT_THAT(WIFEXITED(status), "a child that compares registers: wait status %#x", status);
	return WIFEXITED(status) && WEXITSTATUS(status) == KSFT_PASS;
}

/*
 * Verify that a new task has no registers of one that has died on the CPU where it begins,
 * asleep, so that they are still loaded, and whose memory it has got.
 */
TEST_F(xstate_cpus, of_the_dead)
{
	struct xcomp_cpus both = xcomp_only_cpu(self->cpu[0]);
	struct xregs *patterns[2];
	struct sleeper s = { };
	unsigned int i, elsewhere = 0;
	int tries;
	pid_t pid;

	CPU_SET_S(self->cpu[1], sizeof(both), both.sets);
	get_patterns(_metadata, patterns);
	s.regs = patterns[1];
	s.there = mmap(NULL, sizeof(*s.there), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, s.there);
	for (i = 0; i < ROUNDS && !_metadata->exit_code; i++) {
		xcomp_run_on(_metadata, self->cpu[i % 2]);
		s.cpu = self->cpu[!(i % 2)];
		*s.there = 0;
		pid = xf_fork(_metadata);
		if (!pid) {
			sleep_there(_metadata, &s);
			xf_exit();
		}
		for (tries = 0; tries < 100 && !__atomic_load_n(s.there, __ATOMIC_ACQUIRE); tries++)
			nanosleep(&nap, NULL);
		nanosleep(&nap, NULL);
		EXPECT_EQ(0, kill(pid, SIGKILL));
		/* So that this CPU is the one that frees its memory, which takes a while. */
		nanosleep(&nap, NULL);
		xf_wait(_metadata, pid, "a child that is killed");
		nanosleep(&nap, NULL);
		ASSERT_EQ(0, sched_setaffinity(0, sizeof(both), both.sets));
		elsewhere += expect_own_registers(_metadata, patterns[0]);
	}
	ksft_print_msg("%s: %u of %u children have begun on another CPU\n", th_row, elsewhere, i);
}

/* A task that may use AMX, or not, on a CPU */
struct visit {
	int cpu;
	bool may;
};

static void visit(struct __test_metadata *const _metadata, void *arg)
{
	const struct visit *v = arg;
	struct xcomp_perm perm = { };

	if (v->may)
		xcomp_request_host(_metadata, &perm);
	xcomp_run_on(_metadata, v->cpu);
	xf_expect_amx(_metadata, v->may, "on the CPU");
}

/*
 * Verify that whoever has a CPU, AMX works for those who may use it, and for nobody else, in
 * each order of three such tasks.  They leave no tile in use: where the kernel errs it would
 * take an #NM itself.
 */
TEST_F(xstate_cpus, xfd)
{
	unsigned int order, i;
	struct visit v;

	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	for (order = 0; order < 4 * 4 * 4 && !_metadata->exit_code; order++)
		for (i = 0; i < 3; i++) {
			v.cpu = self->cpu[order >> 2 * i & 1];
			v.may = order >> 2 * i & 2;
			th_case("order %#x, task %u", order, i);
			xf_in_child(_metadata, "a task", visit, &v);
		}
	th_no_case();
}

/* ---- a debugger on another CPU ---- */

/* In memory that the two share; no return, as the caller has no shadow stack. */
static void __noreturn trap_with_ssp(uint64_t *ssp)
{
	for (;;)
		asm volatile("xor %%eax, %%eax\n\t"
			     XREGS_RDSSP
			     "mov %%rax, (%0)\n\t"
			     "int3"
			     : : "r" (ssp) : "rax", "memory");
}

static void trap_on_shadow_stack(struct __test_metadata *const _metadata, void *ssp)
{
	raise(SIGSTOP);
	if (!xregs_enable_shadow_stack())
		xregs_no_shadow_stack(_metadata);
	trap_with_ssp(ssp);
}

/*
 * Verify that an SSP which a debugger on another CPU sets is what the task goes on with, not
 * what its own CPU still has loaded.
 */
TEST_F(xstate_cpus, debugger_sets_ssp)
{
	struct xcomp_cpus there = xcomp_only_cpu(self->cpu[1]);
	uint64_t *ssp, next;
	int status;
	pid_t pid;

	ssp = mmap(NULL, sizeof(*ssp), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, ssp);
	xcomp_run_on(_metadata, self->cpu[0]);
	pid = xregs_trace(_metadata, trap_on_shadow_stack, ssp);
	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	ASSERT_EQ(0, sched_setaffinity(pid, sizeof(there), there.sets));
	status = xregs_go_on(_metadata, pid, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return, "no user shadow stacks");
	ASSERT_TRUE(EXPECT_THAT(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP,
				"with a shadow stack the child has wait status %#x", status));
	next = *ssp - 8;
	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_SHSTK, &next, sizeof(next)),
		     "setting NT_X86_SHSTK");
	status = xregs_go_on(_metadata, pid, 0);
	EXPECT_THAT(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP,
		    "after that the child has wait status %#x", status);
	EXPECT_SAME(next, *ssp, "SSP that a debugger has set");
	xf_kill(_metadata, pid);
}

XCOMP_HARNESS_MAIN
