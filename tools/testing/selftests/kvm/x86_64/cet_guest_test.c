// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET of a guest that runs: it must find in its CET MSRs what it or the host
 * wrote there, over exits, with live AMX tiles, while it is scheduled out, and
 * on another CPU.
 */
#include <pthread.h>
#include <sched.h>

#include "xstate_cet_guest.h"

#define NR_HOPS		12

FIXTURE(cet_guest) {
	struct cet_guest f;
};

FIXTURE_VARIANT(cet_guest) {
	const char *name;
};

FIXTURE_SETUP(cet_guest)
{
	cet_guest_set_up(_metadata, &self->f, variant->name, NULL);
}

FIXTURE_TEARDOWN(cet_guest)
{
	cet_guest_tear_down(_metadata, &self->f);
}

XSTATE_VARIANT(cet_guest, none_noamx_nocet);
XSTATE_VARIANT(cet_guest, none_noamx_shstk);
XSTATE_VARIANT(cet_guest, none_noamx_ibt);
XSTATE_VARIANT(cet_guest, none_noamx_cet);
XSTATE_VARIANT(cet_guest, guest_amx_cet);

/*
 * Verify that the guest finds what the host wrote, that the host finds what the
 * guest wrote, that both outlive an exit, and that the guest gets #GP for what
 * is not in its CPUID.
 */
TEST_F(cet_guest, exits)
{
	struct xcomp *x = &self->f.x;

	vcpu_arch_set_entry_point(self->f.vcpu, guest_exits_code);
	xstate_run(self->f.vcpu, UCALL_SYNC);
	EXPECT_TRUE(xstate_cet_kept(x, 5, "KVM_RUN of a guest that wrote it"));
	xstate_run(self->f.vcpu, UCALL_SYNC);
	EXPECT_TRUE(xstate_cet_kept(x, 0, "KVM_RUN of a guest that wrote it"));
	EXPECT_TRUE(xstate_ssp_kept(x, 0, "KVM_RUN"));
	ASSERT_TRUE(xstate_fill(x, 5));
	xstate_run(self->f.vcpu, UCALL_DONE);
	EXPECT_TRUE(xstate_cet_kept(x, 5, "KVM_RUN"));
	EXPECT_TRUE(xstate_ssp_kept(x, 5, "KVM_RUN"));
}

static void guest_bad_values_code(int nr)
{
	guest_write_bad(&guests[nr]);
	GUEST_SYNC(0);
	guest_write_bad(&guests[nr]);
	GUEST_DONE();
}

/*
 * Verify that bad values raise #GP in the guest, and change nothing that the
 * guest or the host sees.
 */
TEST_F(cet_guest, bad_values)
{
	struct xcomp *x = &self->f.x;

	vcpu_arch_set_entry_point(self->f.vcpu, guest_bad_values_code);
	xstate_run(self->f.vcpu, UCALL_SYNC);
	EXPECT_TRUE(xstate_cet_kept(x, 0, "WRMSR that raised #GP"));
	xstate_run(self->f.vcpu, UCALL_DONE);
	EXPECT_TRUE(xstate_cet_kept(x, 0, "WRMSR that raised #GP"));
}

/* Set a control register, and return the vector that this raises, or 0. */
static u8 set_cr0_safe(u64 value)
{
	return kvm_asm_safe("mov %[v], %%cr0", [v] "r" (value));
}

static u8 set_cr4_safe(u64 value)
{
	return kvm_asm_safe("mov %[v], %%cr4", [v] "r" (value));
}

/* CR4.CET needs CET in CPUID and CR0.WP, and CR0.WP then stays. */
static void guest_cr4_code(int nr)
{
	u64 cr0 = get_cr0(), cr4 = get_cr4(), cet = guests[nr].cr4_cet;
	u8 wanted = cet ? 0 : GP_VECTOR, vector;

	GUEST_ASSERT(!set_cr0_safe(cr0 & ~X86_CR0_WP));
	vector = set_cr4_safe(cr4 | XSTATE_CR4_CET);
	__GUEST_ASSERT(vector == GP_VECTOR,
		       "CR4.CET without CR0.WP: wanted #GP got %u", vector);
	/* KVM intercepts a change of CR4.OSXSAVE, or of CR0.AM below. */
	vector = set_cr4_safe((cr4 | XSTATE_CR4_CET) ^ X86_CR4_OSXSAVE);
	__GUEST_ASSERT(vector == GP_VECTOR,
		       "CR4.CET and CR4.OSXSAVE without CR0.WP: wanted #GP got %u",
		       vector);
	GUEST_ASSERT(!set_cr0_safe(cr0 | X86_CR0_WP));
	vector = set_cr4_safe(cr4 | XSTATE_CR4_CET);
	__GUEST_ASSERT(vector == wanted, "CR4.CET: wanted vector %u got %u",
		       wanted, vector);
	vector = set_cr0_safe(cr0 & ~X86_CR0_WP);
	__GUEST_ASSERT(vector == (cet ? GP_VECTOR : 0),
		       "CR0.WP off with CR4.CET: wanted vector %u got %u",
		       cet ? GP_VECTOR : 0, vector);
	vector = set_cr0_safe((cr0 & ~X86_CR0_WP) ^ X86_CR0_AM);
	__GUEST_ASSERT(vector == (cet ? GP_VECTOR : 0),
		       "CR0.WP and CR0.AM with CR4.CET: wanted vector %u got %u",
		       cet ? GP_VECTOR : 0, vector);
	GUEST_SYNC(0);
	__GUEST_ASSERT((get_cr4() & XSTATE_CR4_CET) == cet,
		       "CR4.CET over an exit: wanted %lx got %lx", cet,
		       get_cr4() & XSTATE_CR4_CET);
	guest_read(&guests[nr], 0, "with CR4.CET");
	GUEST_DONE();
}

/*
 * Verify that the guest can set CR4.CET exactly if its CPUID has CET, that
 * CR4.CET and CR0.WP depend on each other, and that the CET MSRs do not depend
 * on it.
 */
TEST_F(cet_guest, cr4)
{
	struct kvm_sregs sregs;

	vcpu_arch_set_entry_point(self->f.vcpu, guest_cr4_code);
	xstate_run(self->f.vcpu, UCALL_SYNC);
	vcpu_sregs_get(self->f.vcpu, &sregs);
	EXPECT_EQ(self->f.guest->cr4_cet, sregs.cr4 & XSTATE_CR4_CET);
	xstate_run(self->f.vcpu, UCALL_DONE);
	EXPECT_TRUE(xstate_cet_kept(&self->f.x, 0, "KVM_RUN with CR4.CET"));
}

/*
 * Verify that KVM_SET_SREGS refuses CR4.CET without CR0.WP and changes nothing,
 * with CET in CPUID or without. Known kernels take it and leave it to the CPU
 * to refuse VM entry: no guest ever runs like that, and it can be mended.
 */
TEST_F(cet_guest, sregs)
{
	struct kvm_vcpu *vcpu = self->f.vcpu;
	struct kvm_sregs sregs, old, now;
	bool taken;

	vcpu_arch_set_entry_point(vcpu, guest_exits_code);
	vcpu_sregs_get(vcpu, &old);
	sregs = old;
	sregs.cr0 &= ~X86_CR0_WP;
	sregs.cr4 |= XSTATE_CR4_CET;
	taken = !_vcpu_sregs_set(vcpu, &sregs);
	vcpu_sregs_get(vcpu, &now);
	EXPECT_EQ(taken ? sregs.cr4 : old.cr4, now.cr4);
	EXPECT_EQ(taken ? sregs.cr0 : old.cr0, now.cr0);
	EXPECT_TRUE(xstate_kept(&self->f.x, 0, "KVM_SET_SREGS"));
	if (taken) {
		EXPECT_NE(0, self->f.guest->cr4_cet);
		EXPECT_EQ(0, _vcpu_run(vcpu));
		EXPECT_EQ(KVM_EXIT_FAIL_ENTRY, vcpu->run->exit_reason);
		vcpu_sregs_set(vcpu, &old);
	}
	xstate_run(vcpu, UCALL_SYNC);
	EXPECT_TRUE(xstate_cet_kept(&self->f.x, 5, "KVM_SET_SREGS"));
	if (taken && __test_passed(_metadata))
		xstate_xfail(_metadata,
			     "KVM_SET_SREGS takes CR4.CET without CR0.WP");
}

static void guest_loop_code(int nr)
{
	struct guest *g = &guests[nr];

	do {
		guest_read(g, 0, "within KVM_RUN");
		WRITE_ONCE(g->loops, g->loops + 1);
	} while (!READ_ONCE(g->stop));
	GUEST_DONE();
}

/* A thread that serves one vCPU */
struct server {
	struct kvm_vcpu *vcpu;
	struct guest *guest;
	pthread_t thread;
	pid_t tid;
};

static void *serve(void *arg)
{
	struct server *s = arg;

	WRITE_ONCE(s->tid, syscall(SYS_gettid));
	xstate_run(s->vcpu, UCALL_DONE);
	return NULL;
}

/* Whether the guest gets on; the bound is generous, the step is small. */
static bool gets_on(struct guest *g)
{
	u64 loops = READ_ONCE(g->loops);
	int i;

	for (i = 0; i < 20000; i++) {
		if (READ_ONCE(g->loops) > loops)
			return true;
		usleep(200);
	}
	return false;
}

/* Put @tid on the @nr-th of the CPUs of @all. */
static void put_on_cpu(pid_t tid, const cpu_set_t *all, int nr)
{
	int cpu = -1;
	cpu_set_t set;

	nr %= CPU_COUNT(all);
	do {
		nr -= CPU_ISSET(++cpu, all);
	} while (nr >= 0);
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	TEST_ASSERT(!sched_setaffinity(tid, sizeof(set), &set),
		    "sched_setaffinity: %s", strerror(errno));
}

/*
 * Run two guests with different values on a thread each, all of them on one
 * CPU with this thread, or from one CPU to the next.
 */
static void run_servers(struct __test_metadata *_metadata, struct xcomp *x,
			struct kvm_vcpu *first, bool migrate)
{
	struct server s[2] = { { .vcpu = first } };
	struct xcomp xs[2] = { *x, *x };
	cpu_set_t all;
	int i, hop;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	if (migrate && CPU_COUNT(&all) < 2)
		SKIP(return, "one CPU only");

	s[1].vcpu = vm_vcpu_add(first->vm, 1, guest_loop_code);
	xstate_enable(&xs[1], s[1].vcpu);
	put_on_cpu(0, &all, 0);
	for (i = 0; i < 2; i++) {
		s[i].guest = guest_begin(x, s[i].vcpu, i);
		ASSERT_TRUE(xstate_fill(&xs[i], i));
		vcpu_arch_set_entry_point(s[i].vcpu, guest_loop_code);
		ASSERT_EQ(0, pthread_create(&s[i].thread, NULL, serve, &s[i]));
	}
	for (hop = 0; hop < NR_HOPS; hop++) {
		for (i = 0; i < 2; i++)
			EXPECT_TRUE(gets_on(s[i].guest)) {
				ksft_print_msg("the guest does not get on\n");
			}
		use_kernel_fpu();
		for (i = 0; migrate && i < 2; i++)
			put_on_cpu(READ_ONCE(s[i].tid), &all, hop + i);
	}
	for (i = 0; i < 2; i++)
		WRITE_ONCE(s[i].guest->stop, 1);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_join(s[i].thread, NULL));
		EXPECT_TRUE(xstate_cet_kept(&xs[i], i, "KVM_RUN on a thread"));
	}
}

/*
 * Verify that the guest keeps its CET while it is scheduled out in the middle
 * of KVM_RUN, in favour of another guest with other values and of the kernel's
 * own use of the FPU.
 */
TEST_F(cet_guest, scheduled_out)
{
	run_servers(_metadata, &self->f.x, self->f.vcpu, false);
}

/* Verify the same when the threads are moved to another CPU in KVM_RUN. */
TEST_F(cet_guest, migrated)
{
	run_servers(_metadata, &self->f.x, self->f.vcpu, true);
}

/* A guest that uses AMX */
FIXTURE(cet_amx_guest) {
	struct cet_guest f;
};

FIXTURE_VARIANT(cet_amx_guest) {
	const char *name;
};

FIXTURE_SETUP(cet_amx_guest)
{
	cet_guest_set_up(_metadata, &self->f, variant->name, NULL);
}

FIXTURE_TEARDOWN(cet_amx_guest)
{
	cet_guest_tear_down(_metadata, &self->f);
}

XSTATE_VARIANT(cet_amx_guest, guest_amx_nocet);
XSTATE_VARIANT(cet_amx_guest, guest_amx_shstk);
XSTATE_VARIANT(cet_amx_guest, guest_amx_ibt);
XSTATE_VARIANT(cet_amx_guest, guest_amx_cet);

static void guest_tiles_code(int nr)
{
	struct guest *g = &guests[nr];

	xstate_ldtilecfg(g->config);
	xstate_load_tiles(g->tiles);
	guest_read(g, 0, "by use of AMX");
	GUEST_SYNC(0);
	guest_check_tiles(g, "over an exit");
	guest_read(g, 0, "over an exit with live tiles");
	guest_write(g, 1);
	GUEST_SYNC(1);
	guest_check_tiles(g, "with a change of CET");
	guest_read(g, 1, "over an exit with live tiles");
	xstate_tilerelease();
	GUEST_SYNC(2);
	guest_read(g, 1, "by TILERELEASE");
	GUEST_DONE();
}

/*
 * Verify that live tiles and CET do not cost each other anything: they are
 * neighbours in the guest's fpstate, and there is another vCPU.
 */
TEST_F(cet_amx_guest, live_tiles)
{
	struct kvm_vcpu *vcpu = self->f.vcpu;
	struct xcomp *x = &self->f.x, other = *x;

	xstate_add_vcpu(&other, vcpu->vm, 1);
	ASSERT_TRUE(xstate_fill(&other, 3));
	vcpu_arch_set_entry_point(vcpu, guest_tiles_code);

	xstate_run(vcpu, UCALL_SYNC);
	EXPECT_TRUE(xstate_cet_kept(x, 0, "KVM_RUN with live tiles"));
	EXPECT_TRUE(xkvm_run_immediate_exit(x->kvm, other.vcpu));
	xstate_run(vcpu, UCALL_SYNC);
	EXPECT_TRUE(xstate_cet_kept(x, 5, "KVM_RUN with live tiles"));
	xstate_run(vcpu, UCALL_SYNC);
	EXPECT_TRUE(xstate_cet_kept(x, 5, "TILERELEASE"));
	xstate_run(vcpu, UCALL_DONE);
	EXPECT_TRUE(xstate_kept(&other, 3, "tiles of another vCPU"));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
