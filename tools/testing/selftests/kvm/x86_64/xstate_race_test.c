// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMX permissions and the state of vCPUs, with two threads at it at once.
 *
 * Whichever thread wins, the outcome must be one of those that the two would
 * have one after the other. All loops are bounded, and all delays come from a
 * seed: XSTATE_RACE_SEED in the environment repeats a run.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "xstate_guest.h"
#include "xstate_util.h"

#define ITERATIONS	12
#define NR_VCPUS	3

static unsigned int race_seed;

/* Grows by one for each thread, so that all have delays of their own. */
static unsigned int race_count;

static __thread u32 race_state;

static u32 race_random(void)
{
	race_state = race_state * 1664525 + 1013904223;
	return race_state >> 8;
}

/* Let the other thread in at a place that differs from time to time. */
static void race_delay(void)
{
	u32 i, n = race_random();

	if (n & 1)
		sched_yield();
	for (i = 0; i < (n >> 1) % 2000; i++)
		cpu_relax();
}

struct racer {
	void (*fn)(struct racer *r);
	struct xcomp *x;
	pthread_barrier_t *start;
	unsigned int nr;
	int result;
	bool bad, late;
};

static void *race_thread(void *arg)
{
	struct racer *r = arg;

	race_state = race_seed + r->nr * 2654435761u;
	pthread_barrier_wait(r->start);
	race_delay();
	r->fn(r);
	return NULL;
}

/* Call both functions at once, each in a thread of its own. */
static void race(struct racer *a, struct racer *b)
{
	pthread_barrier_t start;
	pthread_t threads[2];

	pthread_barrier_init(&start, NULL, 2);
	a->start = &start;
	b->start = &start;
	a->nr = ++race_count;
	b->nr = ++race_count;
	TEST_ASSERT(!pthread_create(&threads[0], NULL, race_thread, a) &&
		    !pthread_create(&threads[1], NULL, race_thread, b),
		    "pthread_create() failed");
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	pthread_barrier_destroy(&start);
}

/* Call @fn in a new process: permissions and their lock cannot be undone. */
static int in_child(struct xcomp *x, bool (*fn)(struct xcomp *x))
{
	int status;
	pid_t pid;

	fflush(stdout);
	race_count += 2;
	pid = fork();
	if (!pid) {
		status = fn(x) ? KSFT_PASS : KSFT_FAIL;
		fflush(stdout);
		_exit(status);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return KSFT_FAIL;
	return WEXITSTATUS(status);
}

static bool one_of(const char *what, int wanted, int or_wanted, int got)
{
	if (got == wanted || got == or_wanted)
		return true;
	ksft_print_msg("%s: wanted errno %d or %d got %d\n", what, wanted,
		       or_wanted, got);
	return false;
}

static bool same(const char *what, u64 wanted, u64 got)
{
	return xarea_same("race", what, wanted, got);
}

/* Whether this process has the permission for guests, by the kernel's word */
static bool permitted(void)
{
	u64 mask;

	xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &mask);
	return mask & XF_BIT(XF_XTILE_DATA);
}

/* KVM_SET_CPUID2 with AMX must do what the permission says. */
static bool cpuid_follows(struct xcomp *x, bool permission)
{
	return same("KVM_SET_CPUID2 with AMX, errno", permission ? 0 : EPERM,
		    xcomp_set_cpuid(x, x->vcpu, true));
}

/* Set once KVM_CREATE_VCPU has returned, one vCPU for each process */
static bool vcpu_made;

static void ask(struct racer *r)
{
	r->late = __atomic_load_n(&vcpu_made, __ATOMIC_ACQUIRE);
	r->result = xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XF_XTILE_DATA);
}

static void create_vcpu(struct racer *r)
{
	r->result = xcomp_make_vm(r->x, true) ? 0 : errno;
	__atomic_store_n(&vcpu_made, true, __ATOMIC_RELEASE);
}

FIXTURE(xstate_race) {
	struct xcomp x;
	u64 taint;
};

FIXTURE_SETUP(xstate_race)
{
	ASSERT_TRUE(xcomp_parse(&self->x, "none_amx_cet"));
	ASSERT_TRUE(xcomp_open_kvm(&self->x));
	self->taint = xf_taint();
	ksft_print_msg("XSTATE_RACE_SEED=%u\n", race_seed);
}

FIXTURE_TEARDOWN(xstate_race)
{
	EXPECT_FALSE(xstate_warned(self->taint));
}

static bool request_or_vcpu(struct xcomp *x)
{
	struct racer a = { .fn = ask, .x = x }, b = { .fn = create_vcpu, .x = x };
	bool ok;

	race(&a, &b);
	/* A request that began after the vCPU was there has lost for certain. */
	ok = x->have_amx ? one_of("the request", a.late ? EBUSY : 0, EBUSY,
				  a.result) :
			   same("the request, errno", EOPNOTSUPP, a.result);
	ok &= same("KVM_CREATE_VCPU, errno", 0, b.result);
	ok &= same("permission", !a.result, permitted());
	ok &= same("request once there is a vCPU, errno",
		   x->have_amx ? a.result : EOPNOTSUPP,
		   xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XF_XTILE_DATA));
	return ok & cpuid_follows(x, !a.result);
}

/*
 * Verify that a request against KVM_CREATE_VCPU is granted or refused for good,
 * and that CPUID with AMX is taken in the first case only.
 */
TEST_F(xstate_race, request_against_vcpu)
{
	int i;

	for (i = 0; i < ITERATIONS; i++)
		ASSERT_EQ(KSFT_PASS, in_child(&self->x, request_or_vcpu));
}

static bool two_requests(struct xcomp *x)
{
	struct racer a = { .fn = ask, .x = x }, b = { .fn = ask, .x = x };
	int wanted = x->have_amx ? 0 : EOPNOTSUPP;
	bool ok;

	race(&a, &b);
	ok = same("first request, errno", wanted, a.result);
	ok &= same("second request, errno", wanted, b.result);
	ok &= same("permission", x->have_amx, permitted());
	return ok && xcomp_make_vm(x, true) && cpuid_follows(x, x->have_amx);
}

/* Verify that two requests at once are both granted. */
TEST_F(xstate_race, request_against_request)
{
	int i;

	for (i = 0; i < ITERATIONS; i++)
		ASSERT_EQ(KSFT_PASS, in_child(&self->x, two_requests));
}

static bool forked(struct xcomp *x)
{
	return xcomp_make_vm(x, true) && cpuid_follows(x, permitted());
}

static bool forked_after(struct xcomp *x)
{
	return same("permission of a child forked after the request",
		    x->have_amx, permitted()) && forked(x);
}

static void fork_child(struct racer *r)
{
	struct xcomp x = *r->x;

	r->result = in_child(&x, forked);
}

static bool request_or_fork(struct xcomp *x)
{
	struct racer a = { .fn = ask, .x = x }, b = { .fn = fork_child, .x = x };
	bool ok;

	race(&a, &b);
	ok = same("the request, errno", x->have_amx ? 0 : EOPNOTSUPP, a.result);
	ok &= same("result of the child", KSFT_PASS, b.result);

	return ok & same("result of a later child", KSFT_PASS,
			 in_child(x, forked_after));
}

/*
 * Verify that a child forked during a request has the permission or has it
 * not, and that CPUID with AMX follows what the child reads.
 */
TEST_F(xstate_race, request_against_fork)
{
	int i;

	for (i = 0; i < ITERATIONS; i++)
		ASSERT_EQ(KSFT_PASS, in_child(&self->x, request_or_fork));
}

static void set_amx_cpuid(struct racer *r)
{
	r->result = xcomp_set_cpuid(r->x, r->x->vcpu, true);
}

/* Read the vCPU while its fpstate may be replaced: one size or the other. */
static void read_vcpu(struct racer *r)
{
	u32 size = xf_standard_size(xcomp_known_xcr0(r->x)), i, tail;
	u64 value, last = ~0ull, wanted;
	u8 *buf = malloc(size);

	wanted = xcomp_msr_value(r->x, XF_MSR_U_CET, 0);
	for (i = 0; i < 20 && !r->bad; i++) {
		xarea_fill(buf, XAREA_POISON, size);
		r->bad |= !!ioctl(r->x->vcpu, KVM_GET_XSAVE2, buf);
		for (tail = size; tail > 4096; tail--)
			if (buf[tail - 1] != XAREA_POISON)
				break;
		r->bad |= tail != 4096 && tail != size;
		if (r->bad)
			ksft_print_msg("KVM_GET_XSAVE2: wanted 4096 or %u bytes got %u\n",
				       size, tail);

		if (!xcomp_has_msr(r->x, XF_MSR_U_CET))
			continue;
		r->bad |= !xkvm_get_msr(r->x->vcpu, XF_MSR_U_CET, &value);
		/* What the new fpstate lost never comes back. */
		if (value != wanted && value)
			r->bad = true;
		if (!last && value)
			r->bad = true;
		if (r->bad)
			ksft_print_msg("IA32_U_CET: wanted %#lx or 0 got %#lx\n",
				       (unsigned long)wanted,
				       (unsigned long)value);
		last = value;
	}
	free(buf);
}

static bool cpuid_or_read(struct xcomp *x)
{
	struct racer a = { .fn = set_amx_cpuid, .x = x };
	struct racer b = { .fn = read_vcpu, .x = x };
	bool ok;

	if (!xcomp_ask(x, true) || !xcomp_make_vm(x, true))
		return false;
	x->shstk_on = x->shstk && xcomp_offers_shstk();
	x->ibt_on = x->ibt && xcomp_offers_ibt();
	ok = same("KVM_SET_CPUID2 without AMX, errno", 0,
		  xcomp_set_cpuid(x, x->vcpu, false));
	ok &= xcomp_write_msrs(x);
	race(&a, &b);
	ok &= same("KVM_SET_CPUID2 with AMX, errno", 0, a.result);
	ok &= same("reader met what it must not", false, b.bad);
	return ok;
}

/*
 * Verify that KVM_GET_XSAVE2 and MSR reads see the vCPU before the first
 * KVM_SET_CPUID2 with AMX or after it, and nothing else.
 */
TEST_F(xstate_race, cpuid_against_read)
{
	int i;

	if (!self->x.have_amx)
		SKIP(return, "no AMX on this machine");
	for (i = 0; i < ITERATIONS; i++)
		ASSERT_EQ(KSFT_PASS, in_child(&self->x, cpuid_or_read));
}

/* Make vCPUs with AMX where that is, give each state, and destroy them. */
static void create_many(struct racer *r)
{
	struct xcomp x = *r->x;
	u32 i, seed;

	x.amx_on = x.have_amx;
	for (i = 0; i < ITERATIONS; i++) {
		/* With larger ones xstate_image() may yield initial values. */
		seed = race_random() % 64;
		x.vm = -1;
		x.vcpu = -1;
		r->bad |= !xcomp_make_vm(&x, true);
		r->bad |= !!xcomp_set_cpuid(&x, x.vcpu, x.amx_on);
		r->bad |= !xstate_fill(&x, seed);
		race_delay();
		r->bad |= !xstate_kept(&x, seed, "other vCPUs came and went");
		close(x.vcpu);
		close(x.vm);
	}
}

static bool two_creators(struct xcomp *x)
{
	struct racer a = { .fn = create_many, .x = x };
	struct racer b = { .fn = create_many, .x = x };

	if (!xcomp_ask(x, true))
		return false;
	x->shstk_on = x->shstk && xcomp_offers_shstk();
	x->ibt_on = x->ibt && xcomp_offers_ibt();
	race(&a, &b);
	return !a.bad && !b.bad;
}

/* Verify that vCPUs made and destroyed by two threads each keep their state. */
TEST_F(xstate_race, create_and_destroy)
{
	ASSERT_EQ(KSFT_PASS, in_child(&self->x, two_creators));
}

/* ---- guests ---- */

struct guest {
	u64 xcr0, xss;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct guest guests[NR_VCPUS];

/* Save the registers again and again; only the host ever looks at them. */
static GUEST_INTEGER_ONLY void guest_live(struct guest *g)
{
	int i;

	guest_load_xregs(&g->regs, g->xcr0 | g->xss);
	for (;;) {
		for (i = 0; i < 20; i++)
			asm volatile("xsaves64 %0"
				     : "+m" (g->area) : "a" (-1), "d" (-1));
		guest_leave();
	}
}

static void guest_code(u64 id)
{
	guest_enable(guests[id].xcr0);
	if (guests[id].xss)
		wrmsr(XF_MSR_XSS, guests[id].xss);
	guest_live(&guests[id]);
}

struct runner {
	pthread_t thread;
	struct kvm_vcpu *vcpu;
	struct guest *g;
	u32 rounds;
	bool bad;
};

static void on_signal(int sig)
{
	(void)sig;
}

static void *run_vcpu(void *arg)
{
	struct runner *r = arg;
	u64 all = r->g->xcr0 | r->g->xss;
	u32 i;

	for (i = 0; i < r->rounds && !r->bad; i++) {
		while (__vcpu_run(r->vcpu) && errno == EINTR)
			;
		r->bad |= !xarea_same("KVM_RUN", "exit reason", KVM_EXIT_IO,
				      r->vcpu->run->exit_reason);
		r->bad |= !xarea_same("a guest on the move", "XSTATE_BV", all,
				      xarea_header(r->g->area, 0));
		r->bad |= !xarea_has("a guest on the move", r->g->area,
				     &r->g->regs, all, all | XF_COMPACTED);
		if (r->g->xss)
			r->bad |= !xf_msr_kept("a guest on the move",
					       XF_MSR_PL0_SSP, "KVM_RUN",
					       r->g->regs.cet_kernel[0],
					       vcpu_get_msr(r->vcpu,
							    XF_MSR_PL0_SSP));
	}
	return NULL;
}

/* Move a thread to one of the CPUs, or interrupt it. */
static void disturb(struct runner *r, bool signals)
{
	cpu_set_t all, one;
	int cpu;

	race_delay();
	if (signals) {
		pthread_kill(r->thread, SIGUSR1);
		return;
	}
	sched_getaffinity(0, sizeof(all), &all);
	do {
		cpu = race_random() % CPU_SETSIZE;
	} while (!CPU_ISSET(cpu, &all));
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	pthread_setaffinity_np(r->thread, sizeof(one), &one);
}

/* Run several vCPUs, with different values in all registers, and disturb. */
static void check_disturbed(struct __test_metadata *_metadata, struct xcomp *x,
			    bool signals)
{
	struct runner runners[NR_VCPUS] = {};
	struct kvm_vcpu *vcpus[NR_VCPUS];
	struct kvm_vm *vm;
	struct guest *g;
	u32 i, n;

	ASSERT_TRUE(xstate_begin(x, x->have_amx ? "guest_amx_cet" :
						  "none_noamx_cet"));
	xstate_libkvm_cpuid(x);
	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	signal(SIGUSR1, on_signal);
	race_state = race_seed;
	vm = vm_create_with_vcpus(NR_VCPUS, guest_code, vcpus);
	g = addr_gva2hva(vm, (gva_t)&guests);
	for (i = 0; i < NR_VCPUS; i++) {
		xstate_enable(x, vcpus[i]);
		vcpu_args_set(vcpus[i], 1, (u64)i);
		g[i].xcr0 = xregs_mask(xcomp_guest_xcr0(x));
		g[i].xss = x->shstk_on ? xregs_mask(xcomp_guest_xss(x)) : 0;
		xregs_fill(&g[i].regs, i + 1);
		runners[i].vcpu = vcpus[i];
		runners[i].g = g + i;
		runners[i].rounds = 4 * ITERATIONS;
		ASSERT_EQ(0, pthread_create(&runners[i].thread, NULL, run_vcpu,
					    &runners[i]));
	}
	for (n = 0; n < 8 * ITERATIONS; n++)
		disturb(&runners[race_random() % NR_VCPUS], signals);
	for (i = 0; i < NR_VCPUS; i++) {
		pthread_join(runners[i].thread, NULL);
		EXPECT_FALSE(runners[i].bad);
	}
	kvm_vm_free(vm);
}

/*
 * Verify that guests on threads that move from CPU to CPU keep their registers,
 * CET and tiles included, and never find those of another one.
 */
TEST_F(xstate_race, moved_vcpus)
{
	check_disturbed(_metadata, &self->x, false);
}

/* Verify the same for threads that signals take out of KVM_RUN. */
TEST_F(xstate_race, interrupted_vcpus)
{
	check_disturbed(_metadata, &self->x, true);
}

int main(int argc, char **argv)
{
	const char *seed = getenv("XSTATE_RACE_SEED");
	char *end;

	race_seed = time(NULL);
	if (seed) {
		race_seed = strtoul(seed, &end, 0);
		if (!*seed || *end) {
			fprintf(stderr, "XSTATE_RACE_SEED='%s' is no number\n",
				seed);
			return KSFT_FAIL;
		}
	}
	return xstate_main(argc, argv);
}
