// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMX permissions and the state of vCPUs, with several threads at it at once.
 *
 * Requests, vCPUs, forks and CPUID race with each other: whichever thread wins,
 * the outcome must be one of those that the two would have one after the other.
 * Guests run on threads of their own with all registers in use, CET and tiles
 * included, while the threads are moved and interrupted and the host writes
 * IA32_XFD.
 *
 * All loops are bounded, and all delays come from a seed: XSTATE_RACE_SEED in
 * the environment repeats a run.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

#include "xregs.h"

#define ITERATIONS	12
#define NR_VCPUS	3

/* More signals than a KVM_RUN ever gets */
#define MAX_STOPS	1000000

/* ---- delays ---- */

static unsigned int race_seed;
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

/* Take the seed from the environment, or else from the clock. */
static void race_begin(struct __test_metadata *const _metadata)
{
	const char *seed = getenv("XSTATE_RACE_SEED");
	char *end = NULL;

	race_seed = seed ? strtoul(seed, &end, 0) : (unsigned int)time(NULL);
	race_state = race_seed;
	EXPECT_THAT(!seed || (*seed && !*end), "XSTATE_RACE_SEED='%s' is no number", seed);
	TH_ROW_LOG("XSTATE_RACE_SEED=%u", race_seed);
}

/* ---- two threads at once ---- */

/* Grows by one for each thread, so that all have delays of their own. */
static unsigned int race_count;

struct racer {
	void (*fn)(struct __test_metadata *const _metadata, struct racer *r);
	struct __test_metadata *_metadata;
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	u64 value;			/* IA32_U_CET at first, 0 for none */
	pthread_barrier_t *start;
	unsigned int nr;
	int error;
	bool late;			/* it began when the other had ended */
};

static void *race_thread(void *arg)
{
	struct racer *r = arg;

	race_state = race_seed + r->nr * 2654435761u;
	pthread_barrier_wait(r->start);
	race_delay();
	r->fn(r->_metadata, r);
	return NULL;
}

/* Call both functions at once, each in a thread of its own. */
static void race(struct __test_metadata *const _metadata, struct racer *a, struct racer *b)
{
	struct racer *racers[2] = { a, b };
	pthread_barrier_t start;
	pthread_t threads[2];
	int i;

	pthread_barrier_init(&start, NULL, 2);
	for (i = 0; i < 2; i++) {
		racers[i]->_metadata = _metadata;
		racers[i]->start = &start;
		racers[i]->nr = ++race_count;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, race_thread, racers[i]));
	}
	xf_join_thread(_metadata, threads[0], "the first racer");
	xf_join_thread(_metadata, threads[1], "the second racer");
	pthread_barrier_destroy(&start);
}

/* Call @fn in a new process: permissions and their lock cannot be undone. */
static void in_child(struct __test_metadata *const _metadata,
		     void (*fn)(struct __test_metadata *const _metadata), const char *what)
{
	pid_t pid;

	race_count += 2;
	pid = xf_fork(_metadata);
	if (!pid) {
		fn(_metadata);
		xf_exit();
	}
	xf_join(_metadata, pid, what);
}

/* In a new process each time, until one fails */
static void race_often(struct __test_metadata *const _metadata,
		       void (*fn)(struct __test_metadata *const _metadata))
{
	int i;

	for (i = 0; i < ITERATIONS && !_metadata->exit_code; i++)
		in_child(_metadata, fn, "the child with two threads");
}

/* Whether this process has the permission for guests, by the kernel's word */
static bool permitted(void)
{
	u64 mask;

	xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &mask);
	return mask & XFEATURE_MASK_XTILE_DATA;
}

static int ask(void)
{
	return xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILE_DATA);
}

/* What vCPUs have, and what they have at first or where there is no AMX */
static const struct xstate_combo amx_cet = { PERM_GUEST, AMX, CET };
static const struct xstate_combo noamx_cet = { PERM_NONE, NOAMX, CET };

static int set_amx_cpuid(struct kvm_vcpu *vcpu)
{
	struct kvm_cpuid2 *cpuid = xstate_cpuid_with(&amx_cet, true);
	int error = vcpu_errno(vcpu, KVM_SET_CPUID2, cpuid);

	free(cpuid);
	return error;
}

/* KVM_SET_CPUID2 with AMX must do what the permission says. */
static void expect_cpuid_follows(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
				 bool permission)
{
	EXPECT_ERRNO(permission ? 0 : EPERM, set_amx_cpuid(vcpu),
		     "KVM_SET_CPUID2 with AMX, permission %d", permission);
}

/* Set once KVM_CREATE_VCPU has returned, one vCPU for each process */
static bool vcpu_made;

static void race_ask(struct __test_metadata *const _metadata __maybe_unused, struct racer *r)
{
	r->late = __atomic_load_n(&vcpu_made, __ATOMIC_ACQUIRE);
	r->error = ask();
}

static void race_create_vcpu(struct __test_metadata *const _metadata __maybe_unused,
			     struct racer *r)
{
	r->vcpu = __vm_vcpu_add(r->vm, 0);
	__atomic_store_n(&vcpu_made, true, __ATOMIC_RELEASE);
}

FIXTURE(xstate_race) {
};

FIXTURE_SETUP(xstate_race)
{
	xstate_begin_unpermitted(_metadata, variant);
	race_begin(_metadata);
}

FIXTURE_TEARDOWN(xstate_race)
{
	xstate_end(_metadata, NULL);
}

static void request_or_vcpu(struct __test_metadata *const _metadata)
{
	struct racer a = { .fn = race_ask }, b = { .fn = race_create_vcpu };

	b.vm = vm_create_barebones();
	race(_metadata, &a, &b);
	/* A request that began after the vCPU was there has lost for certain. */
	if (xf_has_amx())
		EXPECT_THAT(a.error == EBUSY || (!a.error && !a.late),
			    "the request, begun %s: wanted %sEBUSY got %s (%d)",
			    a.late ? "once there was a vCPU" : "before or while one was made",
			    a.late ? "" : "success or ", th_errno_name(a.error), a.error);
	else
		EXPECT_ERRNO(EOPNOTSUPP, a.error, "the request");
	EXPECT_SAME(!a.error, permitted(), "permission after that");
	EXPECT_ERRNO(a.error, ask(), "another request, once there is a vCPU");
	expect_cpuid_follows(_metadata, b.vcpu, !a.error);
}

/*
 * Verify that a request against KVM_CREATE_VCPU is granted or refused for good,
 * and that CPUID with AMX is taken in the first case only.
 */
TEST_F(xstate_race, request_against_vcpu)
{
	race_often(_metadata, request_or_vcpu);
}

static void forked(struct __test_metadata *const _metadata)
{
	expect_cpuid_follows(_metadata, __vm_vcpu_add(vm_create_barebones(), 0), permitted());
}

static void forked_after(struct __test_metadata *const _metadata)
{
	EXPECT_SAME(xf_has_amx(), permitted(), "permission of a child forked after the request");
	forked(_metadata);
}

static void race_fork(struct __test_metadata *const _metadata, struct racer *r __maybe_unused)
{
	in_child(_metadata, forked, "the child forked during the request");
}

static void request_or_fork(struct __test_metadata *const _metadata)
{
	struct racer a = { .fn = race_ask }, b = { .fn = race_fork };

	race(_metadata, &a, &b);
	EXPECT_ERRNO(xf_has_amx() ? 0 : EOPNOTSUPP, a.error, "the request");
	in_child(_metadata, forked_after, "the child forked after the request");
}

/*
 * Verify that a child forked during a request has the permission or has it
 * not, and that CPUID with AMX follows what the child reads.
 */
TEST_F(xstate_race, request_against_fork)
{
	race_often(_metadata, request_or_fork);
}

static void race_amx_cpuid(struct __test_metadata *const _metadata, struct racer *r)
{
	EXPECT_ERRNO(0, set_amx_cpuid(r->vcpu), "KVM_SET_CPUID2 with AMX");
}

/* Read the vCPU while its fpstate may be replaced: one size or the other. */
static void race_read(struct __test_metadata *const _metadata, struct racer *r)
{
	u32 small = sizeof(struct kvm_xsave), size = xf_standard_size(kvm_known_xcr0()), i, tail;
	u8 *buf = xf_guarded(size, 0);
	u64 value, last = r->value;

	for (i = 0; i < 20 && !_metadata->exit_code; i++) {
		xarea_fill(buf, XAREA_POISON, size);
		EXPECT_ERRNO(0, vcpu_errno(r->vcpu, KVM_GET_XSAVE2, buf), "KVM_GET_XSAVE2");
		for (tail = size; tail > small; tail--)
			if (buf[tail - 1] != XAREA_POISON)
				break;
		EXPECT_THAT(tail == small || tail == size,
			    "bytes from KVM_GET_XSAVE2: wanted %u or %u got %u", small, size, tail);
		if (!r->value)
			continue;
		/* What the new fpstate lost never comes back. */
		value = vcpu_get_msr(r->vcpu, MSR_IA32_U_CET);
		EXPECT_THAT(!value || value == last, "IA32_U_CET: wanted %#lx%s got %#lx",
			    (unsigned long)last, last ? " or 0" : "", (unsigned long)value);
		last = value;
	}
}

static void cpuid_or_read(struct __test_metadata *const _metadata)
{
	struct racer a = { .fn = race_amx_cpuid }, b = { .fn = race_read };
	struct xregs regs;

	EXPECT_ERRNO(0, ask(), "ARCH_REQ_XCOMP_GUEST_PERM");
	a.vcpu = xstate_add_vcpu(vm_create_barebones(), 0, &noamx_cet);
	b.vcpu = a.vcpu;
	/* An even seed: with others IA32_U_CET is 0 where there is no IBT. */
	xregs_fill(&regs, a.vcpu, 2);
	vcpu_set_cet(_metadata, a.vcpu, &regs);
	b.value = regs.cet[I_U_CET];
	race(_metadata, &a, &b);
}

/*
 * Verify that KVM_GET_XSAVE2 and MSR reads see the vCPU before the first
 * KVM_SET_CPUID2 with AMX or after it, and nothing else.
 */
TEST_F(xstate_race, cpuid_against_read)
{
	if (!xf_has_amx())
		SKIP(return, "no AMX on this machine");
	race_often(_metadata, cpuid_or_read);
}

/* Make vCPUs with AMX where that is, give each state, and destroy them. */
static void race_create_many(struct __test_metadata *const _metadata,
			     struct racer *r __maybe_unused)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct xregs regs;
	u64 mask;
	int i;

	for (i = 0; i < ITERATIONS && !_metadata->exit_code; i++) {
		vcpu = xstate_new_vcpu(&vm, &amx_cet);
		mask = xregs_mask(vcpu_xcr0_mask(vcpu));
		xregs_fill(&regs, vcpu, race_random() % 64);
		vcpu_set_xregs(_metadata, vcpu, &regs, mask);
		race_delay();
		expect_xregs(_metadata, vcpu, &regs, mask, "other vCPUs came and went");
		kvm_vm_free(vm);
	}
}

static void two_creators(struct __test_metadata *const _metadata)
{
	struct racer a = { .fn = race_create_many }, b = a;

	EXPECT_ERRNO(xf_has_amx() ? 0 : EOPNOTSUPP, ask(), "ARCH_REQ_XCOMP_GUEST_PERM");
	/* libkvm keeps this, and is not made for threads. */
	kvm_get_supported_cpuid();
	race(_metadata, &a, &b);
}

/* Verify that vCPUs made and destroyed by two threads each keep their state. */
TEST_F(xstate_race, create_and_destroy)
{
	in_child(_metadata, two_creators, "the child with two threads that make vCPUs");
}

/* ---- guests on threads ---- */

/* What a guest is told, and what one that looks at its IA32_XFD finds */
struct guest {
	u64 xcr0, xss;
	u64 xfd, xfd_later, vector;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct guest guests[NR_VCPUS];

/* Save the registers again and again; only the host ever looks at them. */
static INTEGER_ONLY void guest_save(struct guest *g)
{
	int i;

	for (i = 0; i < 20; i++)
		asm volatile("xsaves64 %0" : "+m" (g->area) : "a" (-1), "d" (-1));
}

static void guest_begin(struct guest *g)
{
	guest_enable_xstate(g->xcr0);
	if (g->xss)
		wrmsr(MSR_IA32_XSS, g->xss);
}

static INTEGER_ONLY void guest_live(struct guest *g)
{
	guest_load_xregs(&g->regs, g->xcr0 | g->xss);
	for (;;) {
		guest_save(g);
		guest_leave();
	}
}

static void guest_code(struct guest *g)
{
	guest_begin(g);
	guest_live(g);
}

static INTEGER_ONLY void guest_load_and_save(struct guest *g, u64 mask)
{
	guest_load_xregs(&g->regs, mask);
	guest_save(g);
	tile_release();
}

/*
 * Look at IA32_XFD, which only the host writes, and use AMX if it may.  There is
 * no tile data whenever the host gets at the vCPU.
 */
static void guest_xfd_code(struct guest *g)
{
	u64 mask;

	guest_begin(g);
	for (;;) {
		g->xfd = rdmsr(MSR_IA32_XFD);
		tile_load_config(g->regs.tilecfg);
		/* tilezero %tmm0 */
		g->vector = kvm_asm_safe(".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0");
		wrmsr(MSR_IA32_XFD_ERR, 0);
		mask = (g->xcr0 | g->xss) & ~(g->vector ? XFEATURE_MASK_XTILE_DATA : 0);
		guest_load_and_save(g, mask);
		g->xfd_later = rdmsr(MSR_IA32_XFD);
		guest_leave();
	}
}

/* A thread that serves one vCPU */
struct runner {
	struct __test_metadata *_metadata;
	pthread_barrier_t *start;
	pthread_t thread;
	pid_t tid;
	struct kvm_vcpu *vcpu;
	struct guest *g;
	pthread_mutex_t between_exits;
	bool looks_at_xfd;
};

/* Threads stay for as long as they may be moved. */
static bool disturbed;

static void on_signal(int sig __maybe_unused)
{
}

static void run_once(struct __test_metadata *const _metadata, struct runner *r)
{
	u64 all = r->g->xcr0 | r->g->xss, format = all | XCOMP_BV_COMPACTED, xfd;
	int i, error;

	/* Whatever stops a process has KVM_RUN return in the middle of the guest's code. */
	pthread_mutex_lock(&r->between_exits);
	for (i = 0; i < MAX_STOPS; i++) {
		error = __vcpu_run(r->vcpu) ? errno : 0;
		if (error != EINTR)
			break;
	}
	pthread_mutex_unlock(&r->between_exits);
	if (!EXPECT_ERRNO(0, error, "KVM_RUN of vCPU %u", r->vcpu->id) ||
	    !EXPECT_SAME(KVM_EXIT_IO, r->vcpu->run->exit_reason, "exit reason of vCPU %u",
			 r->vcpu->id) ||
	    !EXPECT_SAME(XREGS_EXIT_PORT, r->vcpu->run->io.port, "port of vCPU %u", r->vcpu->id))
		return;
	if (r->looks_at_xfd) {
		/* One value all along, which did what it says */
		xfd = r->g->xfd;
		EXPECT_SAME(0, xfd & ~XFEATURE_MASK_XTILE_DATA, "other bits of IA32_XFD");
		EXPECT_SAME(xfd, r->g->xfd_later, "IA32_XFD later in KVM_RUN");
		EXPECT_SAME(xfd ? NM_VECTOR : 0, r->g->vector, "vector of TILEZERO, IA32_XFD %#lx",
			    (unsigned long)xfd);
		all &= ~xfd;
	}
	if (EXPECT_XFEATURES(all, xarea_header(r->g->area, 0), "XSTATE_BV of vCPU %u", r->vcpu->id))
		expect_area(_metadata, r->g->area, &r->g->regs, all, format, "a disturbed guest");
	if (r->g->xss)
		EXPECT_SAME(r->g->regs.cet[I_PL0], vcpu_get_msr(r->vcpu, MSR_IA32_PL0_SSP),
			    "%s of vCPU %u after KVM_RUN", msr_name(MSR_IA32_PL0_SSP), r->vcpu->id);
}

static void *run_vcpu(void *arg)
{
	struct runner *r = arg;
	int i;

	r->tid = gettid();
	pthread_barrier_wait(r->start);
	for (i = 0; i < 4 * ITERATIONS && !r->_metadata->exit_code; i++)
		run_once(r->_metadata, r);
	while (!__atomic_load_n(&disturbed, __ATOMIC_ACQUIRE))
		usleep(1000);
	return NULL;
}

static void move(struct __test_metadata *const _metadata __maybe_unused, struct runner *r)
{
	host_put_on_cpu(r->tid, race_random() % host_nr_cpus());
}

static void interrupt(struct __test_metadata *const _metadata __maybe_unused, struct runner *r)
{
	pthread_kill(r->thread, SIGUSR1);
}

/*
 * Have the host write IA32_XFD of a vCPU that another thread serves.  It must not
 * get in between where KVM_RUN was interrupted, for there may be tile data then,
 * which the host would load against IA32_XFD: the guest exits without any.
 */
static void write_xfd(struct __test_metadata *const _metadata, struct runner *r)
{
	u64 value = race_random() & 1 ? XFEATURE_MASK_XTILE_DATA : 0;

	if (!r->looks_at_xfd)
		return;
	pthread_mutex_lock(&r->between_exits);
	EXPECT_THAT(vcpu_takes_msr(r->vcpu, MSR_IA32_XFD, value),
		    "KVM_SET_MSRS of %#lx to IA32_XFD of vCPU %u: not taken", (unsigned long)value,
		    r->vcpu->id);
	pthread_mutex_unlock(&r->between_exits);
	race_delay();
	EXPECT_SAME(value, vcpu_get_msr(r->vcpu, MSR_IA32_XFD),
		    "IA32_XFD of vCPU %u as the host reads it", r->vcpu->id);
}

FIXTURE(xstate_race_guest) {
	struct xstate_combo combo;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(xstate_race_guest)
{
	self->combo = xf_has_amx() ? amx_cet : noamx_cet;
	if (!xstate_begin(_metadata, &self->combo) || !xstate_need_guests(_metadata))
		return;
	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	race_begin(_metadata);
	signal(SIGUSR1, on_signal);
}

FIXTURE_TEARDOWN(xstate_race_guest)
{
	xstate_end(_metadata, self->vm);
}

/* Run several vCPUs, with different values in all registers, and disturb. */
static struct kvm_vm *disturb_guests(struct __test_metadata *const _metadata,
				     const struct xstate_combo *combo,
				     void (*disturb)(struct __test_metadata *const _metadata,
						     struct runner *r))
{
	struct runner runners[NR_VCPUS] = { }, *r;
	pthread_barrier_t start;
	struct kvm_vm *vm;
	int i;

	pthread_barrier_init(&start, NULL, NR_VCPUS + 1);
	for (i = 0; i < NR_VCPUS; i++) {
		r = &runners[i];
		r->_metadata = _metadata;
		r->start = &start;
		r->vcpu = i ? xstate_add_guest(vm, i, combo, guest_code) :
			      xstate_new_guest(&vm, combo, guest_code);
		pthread_mutex_init(&r->between_exits, NULL);
		vcpu_args_set(r->vcpu, 1, (u64)&guests[i]);
		r->g = addr_gva2hva(vm, (gva_t)&guests[i]);
		r->g->xcr0 = xregs_guest_mask(r->vcpu);
		r->g->xss = vcpu_has_shstk(r->vcpu) ? xregs_mask(vcpu_xss_mask(r->vcpu)) : 0;
		xregs_fill(&r->g->regs, r->vcpu, i + 1);
		r->looks_at_xfd = disturb == write_xfd && i;
		if (r->looks_at_xfd)
			vcpu_arch_set_entry_point(r->vcpu, guest_xfd_code);
	}
	for (r = runners; r < runners + NR_VCPUS; r++)
		ASSERT_EQ(0, pthread_create(&r->thread, NULL, run_vcpu, r));
	pthread_barrier_wait(&start);
	for (i = 0; i < 8 * ITERATIONS && !_metadata->exit_code; i++) {
		race_delay();
		disturb(_metadata, &runners[race_random() % NR_VCPUS]);
	}
	__atomic_store_n(&disturbed, true, __ATOMIC_RELEASE);
	for (r = runners; r < runners + NR_VCPUS; r++)
		xf_join_thread(_metadata, r->thread, "the thread of a vCPU");
	return vm;
}

/*
 * Verify that guests on threads that take turns on a CPU, and move to others if
 * there are any, keep their registers, CET and tiles included, and never find
 * those of another one.
 */
TEST_F(xstate_race_guest, moved_vcpus)
{
	self->vm = disturb_guests(_metadata, &self->combo, move);
}

/* Verify the same for threads that signals take out of KVM_RUN. */
TEST_F(xstate_race_guest, interrupted_vcpus)
{
	self->vm = disturb_guests(_metadata, &self->combo, interrupt);
}

/*
 * Verify that an IA32_XFD which the host writes from another thread reaches its
 * guest between two KVM_RUN, whoever else is on the CPU, and no other guest.
 */
TEST_F(xstate_race_guest, written_xfd)
{
	if (!xf_has_amx())
		SKIP(return, "no AMX on this machine");
	self->vm = disturb_guests(_metadata, &self->combo, write_xfd);
}

XSTATE_IOCTL_HARNESS_MAIN
