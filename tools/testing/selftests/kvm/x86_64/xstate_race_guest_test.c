// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guests on threads of their own, all registers in use, CET and tiles included,
 * while the threads are moved and interrupted and the host writes IA32_XFD.
 *
 * All loops are bounded, and all delays come from a seed: XSTATE_RACE_SEED in
 * the environment repeats a run.
 */
#include <pthread.h>
#include <signal.h>

#include "xstate_race.h"
#include "xstate_xfd.h"

#define ITERATIONS	12
#define NR_VCPUS	3

/* What a guest is told, and what one that looks at its IA32_XFD finds */
struct guest {
	u64 xcr0, xss;
	u64 xfd, xfd_later, vector;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct guest guests[NR_VCPUS];

/* Save the registers again and again; only the host ever looks at them. */
static GUEST_INTEGER_ONLY void guest_save(struct guest *g)
{
	int i;

	for (i = 0; i < 20; i++)
		asm volatile("xsaves64 %0"
			     : "+m" (g->area) : "a" (-1), "d" (-1));
}

static GUEST_INTEGER_ONLY void guest_live(struct guest *g)
{
	guest_load_xregs(&g->regs, g->xcr0 | g->xss);
	for (;;) {
		guest_save(g);
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

static GUEST_INTEGER_ONLY void guest_load_and_save(struct guest *g, u64 mask)
{
	guest_load_xregs(&g->regs, mask);
	guest_save(g);
	asm volatile("tilerelease");
}

/*
 * Look at IA32_XFD, which only the host writes, and use AMX if it may. There is
 * no tile data whenever the host gets at the vCPU.
 */
static void guest_xfd_code(u64 id)
{
	struct guest *g = &guests[id];
	u64 mask;

	guest_enable(g->xcr0);
	if (g->xss)
		wrmsr(XF_MSR_XSS, g->xss);
	for (;;) {
		g->xfd = rdmsr(MSR_IA32_XFD);
		guest_load_xregs(&g->regs, XF_BIT(XF_XTILE_CFG));
		g->vector = kvm_asm_safe("tilezero %%tmm0");
		wrmsr(MSR_IA32_XFD_ERR, 0);
		mask = (g->xcr0 | g->xss) & ~(g->vector ? XFD_TILE : 0);
		guest_load_and_save(g, mask);
		g->xfd_later = rdmsr(MSR_IA32_XFD);
		guest_leave();
	}
}

/* A thread that serves one vCPU */
struct runner {
	pthread_t thread;
	struct kvm_vcpu *vcpu;
	struct guest *g;
	u32 rounds;
	bool looks_at_xfd;
	bool bad;
};

static void on_signal(int sig)
{
	(void)sig;
}

static bool same(const char *what, u64 wanted, u64 got)
{
	return xarea_same("a disturbed guest", what, wanted, got);
}

/* Whether IA32_XFD was one value all along, and did what it says */
static bool xfd_ok(const struct guest *g)
{
	u64 got = g->xfd;

	return same("other bits of IA32_XFD", 0, got & ~XFD_TILE) &&
	       same("IA32_XFD later in KVM_RUN", got, g->xfd_later) &&
	       same("vector of TILEZERO", got ? NM_VECTOR : 0, g->vector);
}

static bool run_once(struct runner *r)
{
	u64 all = r->g->xcr0 | r->g->xss;
	bool ok;

	while (__vcpu_run(r->vcpu) && errno == EINTR)
		;
	ok = same("exit reason", KVM_EXIT_IO, r->vcpu->run->exit_reason) &&
	     same("port", XREGS_EXIT_PORT, r->vcpu->run->io.port);
	if (ok && r->looks_at_xfd) {
		ok = xfd_ok(r->g);
		all &= ~r->g->xfd;
	}
	ok = ok && same("XSTATE_BV", all, xarea_header(r->g->area, 0));
	ok = ok && xarea_has("a disturbed guest", r->g->area, &r->g->regs, all,
			     (all | (r->g->xcr0 & XFD_TILE)) | XF_COMPACTED);
	if (r->g->xss)
		ok &= xf_msr_kept("a disturbed guest", XF_MSR_PL0_SSP,
				  "KVM_RUN", r->g->regs.cet_kernel[0],
				  vcpu_get_msr(r->vcpu, XF_MSR_PL0_SSP));
	return ok;
}

static void *run_vcpu(void *arg)
{
	struct runner *r = arg;
	u32 i;

	for (i = 0; i < r->rounds && !r->bad; i++)
		r->bad = !run_once(r);
	return NULL;
}

/* Move a thread to one of the CPUs. */
static void move(struct runner *r)
{
	cpu_set_t all, one;
	int cpu;

	sched_getaffinity(0, sizeof(all), &all);
	do {
		cpu = race_random() % CPU_SETSIZE;
	} while (!CPU_ISSET(cpu, &all));
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	pthread_setaffinity_np(r->thread, sizeof(one), &one);
}

static void interrupt(struct runner *r)
{
	pthread_kill(r->thread, SIGUSR1);
}

/*
 * Have the host write IA32_XFD of a vCPU that another thread serves. The write
 * waits for the vCPU to leave KVM_RUN, which it does without tile data.
 */
static void write_xfd(struct runner *r)
{
	u64 value = race_random() & 1 ? XFD_TILE : 0;

	if (!r->looks_at_xfd)
		return;
	r->bad |= !same("KVM_SET_MSRS of IA32_XFD", 1,
			_vcpu_set_msr(r->vcpu, MSR_IA32_XFD, value));
	race_delay();
	r->bad |= !same("IA32_XFD as the host reads it", value,
			vcpu_get_msr(r->vcpu, MSR_IA32_XFD));
}

FIXTURE(xstate_race_guest) {
	struct xcomp x;
	u64 taint;
};

FIXTURE_SETUP(xstate_race_guest)
{
	struct xcomp *x = &self->x;

	self->taint = xf_taint();
	ASSERT_TRUE(xcomp_parse(x, "none_amx_cet"));
	ASSERT_TRUE(xstate_begin(x, x->have_amx ? "guest_amx_cet" :
						  "none_noamx_cet"));
	ksft_print_msg("XSTATE_RACE_SEED=%u\n", race_seed);
}

FIXTURE_TEARDOWN(xstate_race_guest)
{
	EXPECT_FALSE(xstate_warned(self->taint));
}

/* Run several vCPUs, with different values in all registers, and disturb. */
static void check_disturbed(struct __test_metadata *_metadata, struct xcomp *x,
			    void (*disturb)(struct runner *r))
{
	struct runner runners[NR_VCPUS] = {};
	struct kvm_vcpu *vcpus[NR_VCPUS];
	struct kvm_vm *vm;
	struct guest *g;
	u32 i, n;

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
		g[i].xcr0 = xregs_guest_xcr0(x);
		g[i].xss = x->shstk_on ? xregs_mask(xcomp_guest_xss(x)) : 0;
		xregs_fill(&g[i].regs, i + 1);
		runners[i].vcpu = vcpus[i];
		runners[i].g = g + i;
		runners[i].rounds = 4 * ITERATIONS;
		runners[i].looks_at_xfd = disturb == write_xfd && i;
		if (runners[i].looks_at_xfd)
			vcpu_arch_set_entry_point(vcpus[i], guest_xfd_code);
	}
	for (i = 0; i < NR_VCPUS; i++)
		ASSERT_EQ(0, pthread_create(&runners[i].thread, NULL, run_vcpu,
					    &runners[i]));
	for (n = 0; n < 8 * ITERATIONS; n++) {
		race_delay();
		disturb(&runners[race_random() % NR_VCPUS]);
	}
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
TEST_F(xstate_race_guest, moved_vcpus)
{
	check_disturbed(_metadata, &self->x, move);
}

/* Verify the same for threads that signals take out of KVM_RUN. */
TEST_F(xstate_race_guest, interrupted_vcpus)
{
	check_disturbed(_metadata, &self->x, interrupt);
}

/*
 * Verify that an IA32_XFD which the host writes from another thread reaches its
 * guest between two KVM_RUN, whoever else is on the CPU, and no other guest.
 */
TEST_F(xstate_race_guest, written_xfd)
{
	if (!self->x.amx_on)
		SKIP(return, "no AMX on this machine");
	check_disturbed(_metadata, &self->x, write_xfd);
}

int main(int argc, char **argv)
{
	return race_main(argc, argv);
}
