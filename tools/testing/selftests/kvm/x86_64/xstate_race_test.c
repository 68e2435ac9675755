// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMX permissions and the state of vCPUs, with two threads at it at once.
 *
 * Whichever thread wins, the outcome must be one of those that the two would
 * have one after the other. All loops are bounded, and all delays come from a
 * seed: XSTATE_RACE_SEED in the environment repeats a run.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "xstate_guest.h"
#include "xstate_race.h"

#define ITERATIONS	12

/* Grows by one for each thread, so that all have delays of their own. */
static unsigned int race_count;

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

int main(int argc, char **argv)
{
	return race_main(argc, argv);
}
