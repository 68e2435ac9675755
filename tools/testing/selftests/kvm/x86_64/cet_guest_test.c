// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET of a guest that runs: it must find in its CET MSRs what it or the host
 * wrote there, over exits, with live AMX tiles, while it is scheduled out, and
 * on another CPU.
 *
 * A host process may have CET and AMX state of its own meanwhile: a user shadow
 * stack, live tiles, all other registers. KVM_RUN swaps all of it with the state
 * of the guest, and must give both sides back what they had, whatever happens:
 * a signal, another thread, another guest.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/time.h>

#include "cet_guest.h"

#define NR_GUESTS		2
#define HOPS			12
#define ROUNDS			8

/* What a guest is told, what it does, and how far it got */
static struct guest {
	struct cet_guest cet;
	u64 cr4_cet;
	bool amx;
	u64 loops;
	u32 stop;
} guests[NR_GUESTS];

/* Give the vCPU the values of @r in all that it has. */
static void set_all(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		    const struct xregs *r)
{
	vcpu_set_xregs(_metadata, vcpu, r, xregs_mask(vcpu_xcr0_mask(vcpu)));
}

/* The same for set 0 of guest @nr; return where the host finds what that is told. */
static struct guest *load_guest(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
				int nr)
{
	struct guest *g = addr_gva2hva(vcpu->vm, (gva_t)&guests[nr]);

	cet_guest_init(&g->cet, vcpu, nr, nr + 5);
	g->cr4_cet = vcpu_has_cet_msr(vcpu, MSR_IA32_S_CET) ? X86_CR4_CET : 0;
	g->amx = vcpu_has_amx(vcpu);
	set_all(_metadata, vcpu, &g->cet.regs[0]);
	vcpu_args_set(vcpu, 1, (u64)&guests[nr]);
	return g;
}

/* With live tiles, too, if it may use AMX; they are neighbours of CET in its fpstate. */
static void guest_exits_code(const struct guest *g)
{
	const struct xregs *tiles = &g->cet.regs[1];

	cet_guest_expect(&g->cet, 0, "on the way in");
	if (g->amx) {
		tile_load_config(tiles->tilecfg);
		tile_load(tiles->tile[0]);
		cet_guest_expect(&g->cet, 0, "by use of AMX");
	}
	GUEST_SYNC(0);
	if (g->amx)
		guest_expect_tiles(tiles, "over an exit");
	cet_guest_expect(&g->cet, 0, "over an exit");
	cet_guest_write(&g->cet, 1);
	GUEST_SYNC(1);
	if (g->amx)
		guest_expect_tiles(tiles, "with a change of CET");
	cet_guest_expect(&g->cet, 1, "over an exit");
	cet_guest_write(&g->cet, 0);
	if (g->amx)
		tile_release();
	GUEST_SYNC(2);
	cet_guest_expect(&g->cet, 1, "by KVM_SET_MSRS");
	GUEST_DONE();
}

FIXTURE(cet_guest) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct guest *guest;
};

XSTATE_SUITE(cet_guest);

FIXTURE_VARIANT_ADD(cet_guest, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(cet_guest, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(cet_guest, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(cet_guest, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(cet_guest, guest_amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(cet_guest, guest_amx_shstk) { .combo = { PERM_GUEST, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(cet_guest, guest_amx_ibt) { .combo = { PERM_GUEST, AMX, IBT } };
FIXTURE_VARIANT_ADD(cet_guest, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(cet_guest)
{
	if (!xstate_begin(_metadata, &variant->combo) || !xstate_need_refusals(_metadata))
		return;
	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_exits_code);
	self->guest = load_guest(_metadata, self->vcpu, 0);
}

/*
 * Verify that the guest finds what the host wrote, that the host finds what the
 * guest wrote, that both outlive an exit and another vCPU, which keeps its own,
 * and that live tiles and CET cost each other nothing.  Verify that the guest
 * gets #GP for what is not in its CPUID.
 */
TEST_F(cet_guest, exits)
{
	struct kvm_vcpu *other = xstate_add_vcpu(self->vm, 1, &variant->combo);
	u64 xcr0 = xregs_mask(vcpu_xcr0_mask(other));
	const struct xregs *regs = self->guest->cet.regs;
	struct xregs others;

	xregs_fill(&others, other, 3);
	set_all(_metadata, other, &others);
	xstate_run(self->vcpu, UCALL_SYNC);
	expect_cet(_metadata, self->vcpu, &regs[0], "KVM_RUN of a guest that found set 0");
	xstate_run_immediate_exit(other);
	xstate_run(self->vcpu, UCALL_SYNC);
	expect_cet(_metadata, self->vcpu, &regs[1], "KVM_RUN of a guest that wrote set 1");
	xstate_run(self->vcpu, UCALL_SYNC);
	expect_cet(_metadata, self->vcpu, &regs[0], "KVM_RUN of a guest that wrote set 0");
	expect_kept_elsewhere(_metadata, self->vcpu, &regs[0], "KVM_RUN");
	set_all(_metadata, self->vcpu, &regs[1]);
	xstate_run(self->vcpu, UCALL_DONE);
	expect_cet(_metadata, self->vcpu, &regs[1], "KVM_RUN of a guest that wrote nothing");
	expect_kept_elsewhere(_metadata, self->vcpu, &regs[1], "KVM_RUN");
	expect_xregs(_metadata, other, &others, xcr0, "KVM_RUN of another vCPU");
}

static void guest_sync_code(void)
{
	for (;;)
		GUEST_SYNC(0);
}

/*
 * Verify that each CET register that the host writes alone, to a vCPU that has run, is what
 * the guest goes on with, and that the others stay.
 */
TEST_F(cet_guest, one_by_one)
{
	const struct xregs *other = &self->guest->cet.regs[1];
	struct xregs regs = self->guest->cet.regs[0];
	int i;

	vcpu_arch_set_entry_point(self->vcpu, guest_sync_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	for (i = 0; i <= NR_CET_MSRS; i++) {
		th_case("%s", i < NR_CET_MSRS ? msr_name(cet_msrs[i]) : "SSP");
		if (i < NR_CET_MSRS && vcpu_has_cet_msr(self->vcpu, cet_msrs[i])) {
			regs.cet[i] = other->cet[i];
			vcpu_set_msr(self->vcpu, cet_msrs[i], regs.cet[i]);
		} else if (i == NR_CET_MSRS && vcpu_has_shstk(self->vcpu)) {
			regs.ssp = other->ssp;
			EXPECT_ERRNO(0, vcpu_one_reg_ssp(self->vcpu, KVM_SET_ONE_REG, &regs.ssp),
				     "KVM_SET_ONE_REG of SSP");
		}
		xstate_run(self->vcpu, UCALL_SYNC);
		expect_cet(_metadata, self->vcpu, &regs, "KVM_RUN");
		expect_kept_elsewhere(_metadata, self->vcpu, &regs, "KVM_RUN");
	}
}

static void guest_set_cr(int nr, u64 value, u8 wanted, const char *what)
{
	u8 vector = nr ? kvm_asm_safe("mov %[v], %%cr4", [v] "r" (value)) :
			 kvm_asm_safe("mov %[v], %%cr0", [v] "r" (value));

	__GUEST_ASSERT(vector == wanted, "%s: wanted vector %u got %u", what, wanted, vector);
}

/* CR4.CET needs CET in CPUID and CR0.WP, and CR0.WP then stays. */
static void guest_cr4_code(const struct guest *g)
{
	u64 cr0 = get_cr0(), cr4 = get_cr4(), cet = g->cr4_cet;

	guest_set_cr(0, cr0 & ~X86_CR0_WP, 0, "CR0.WP off");
	guest_set_cr(4, cr4 | X86_CR4_CET, GP_VECTOR, "CR4.CET without CR0.WP");
	/* KVM intercepts a change of CR4.OSXSAVE, or of CR0.AM below. */
	guest_set_cr(4, (cr4 | X86_CR4_CET) ^ X86_CR4_OSXSAVE, GP_VECTOR,
		     "CR4.CET and CR4.OSXSAVE without CR0.WP");
	guest_set_cr(0, cr0 | X86_CR0_WP, 0, "CR0.WP");
	guest_set_cr(4, cr4 | X86_CR4_CET, cet ? 0 : GP_VECTOR, "CR4.CET");
	guest_set_cr(0, cr0 & ~X86_CR0_WP, cet ? GP_VECTOR : 0, "CR0.WP off with CR4.CET");
	guest_set_cr(0, (cr0 & ~X86_CR0_WP) ^ X86_CR0_AM, cet ? GP_VECTOR : 0,
		     "CR0.WP and CR0.AM with CR4.CET");
	GUEST_SYNC(0);
	__GUEST_ASSERT((get_cr4() & X86_CR4_CET) == cet,
		       "CR4.CET over an exit: wanted %lx got %lx", cet, get_cr4() & X86_CR4_CET);
	cet_guest_expect(&g->cet, 0, "with CR4.CET");
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

	vcpu_arch_set_entry_point(self->vcpu, guest_cr4_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	vcpu_sregs_get(self->vcpu, &sregs);
	EXPECT_SAME(self->guest->cr4_cet, sregs.cr4 & X86_CR4_CET, "CR4.CET");
	xstate_run(self->vcpu, UCALL_DONE);
	expect_cet(_metadata, self->vcpu, &self->guest->cet.regs[0], "KVM_RUN with CR4.CET");
}

/*
 * Verify that KVM_SET_SREGS refuses CR4.CET without CR0.WP and changes nothing,
 * with CET in CPUID or without. Known kernels take it and leave it to the CPU
 * to refuse VM entry: no guest ever runs like that, and it can be mended.
 */
TEST_F(cet_guest, sregs)
{
	const struct xregs *regs = self->guest->cet.regs;
	u64 xcr0 = xregs_mask(vcpu_xcr0_mask(self->vcpu));
	struct kvm_sregs sregs, old, now;
	bool taken;

	vcpu_sregs_get(self->vcpu, &old);
	sregs = old;
	sregs.cr0 &= ~X86_CR0_WP;
	sregs.cr4 |= X86_CR4_CET;
	taken = !_vcpu_sregs_set(self->vcpu, &sregs);
	vcpu_sregs_get(self->vcpu, &now);
	EXPECT_SAME(taken ? sregs.cr4 : old.cr4, now.cr4, "CR4 after KVM_SET_SREGS");
	EXPECT_SAME(taken ? sregs.cr0 : old.cr0, now.cr0, "CR0 after KVM_SET_SREGS");
	expect_xregs(_metadata, self->vcpu, &regs[0], xcr0, "KVM_SET_SREGS");
	if (taken) {
		EXPECT_ERRNO(0, _vcpu_run(self->vcpu) ? errno : 0, "KVM_RUN without CR0.WP");
		EXPECT_THAT(self->vcpu->run->exit_reason == KVM_EXIT_FAIL_ENTRY,
			    "KVM_RUN without CR0.WP: wanted FAIL_ENTRY got %s",
			    exit_reason_str(self->vcpu->run->exit_reason));
	}
	if (taken)
		vcpu_sregs_set(self->vcpu, &old);
	xstate_run(self->vcpu, UCALL_SYNC);
	expect_cet(_metadata, self->vcpu, &regs[0], "KVM_SET_SREGS");
	XFAIL_IF(taken && self->guest->cr4_cet, "KVM_SET_SREGS takes CR4.CET without CR0.WP") {
		EXPECT_THAT(!taken, "KVM_SET_SREGS takes CR4.CET without CR0.WP");
	}
}

static void guest_loop_code(struct guest *g)
{
	do {
		cet_guest_expect(&g->cet, 0, "within KVM_RUN");
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

	WRITE_ONCE(s->tid, gettid());
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

/*
 * Run two guests with different values, the first by @vcpu, on a thread each, all
 * of them on one CPU with this thread, or from one CPU to the next.
 */
static void run_servers(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			const struct xstate_combo *combo, bool migrate)
{
	struct server s[NR_GUESTS] = {
		{ .vcpu = vcpu },
		{ .vcpu = xstate_add_guest(vcpu->vm, 1, combo, guest_loop_code) },
	};
	int i, hop;

	host_put_on_cpu(0, 0);
	for (i = 0; i < NR_GUESTS; i++) {
		s[i].guest = load_guest(_metadata, s[i].vcpu, i);
		vcpu_arch_set_entry_point(s[i].vcpu, guest_loop_code);
		ASSERT_EQ(0, pthread_create(&s[i].thread, NULL, serve, &s[i]));
	}
	for (hop = 0; hop < HOPS; hop++) {
		for (i = 0; i < NR_GUESTS; i++) {
			ASSERT_TRUE(gets_on(s[i].guest)) {
				TH_LOG("guest %d does not get on after hop %d", i, hop);
			}
		}
		use_kernel_fpu();
		for (i = 0; migrate && i < NR_GUESTS; i++)
			host_put_on_cpu(READ_ONCE(s[i].tid), hop + i);
	}
	for (i = 0; i < NR_GUESTS; i++)
		WRITE_ONCE(s[i].guest->stop, 1);
	for (i = 0; i < NR_GUESTS; i++) {
		xf_join_thread(_metadata, s[i].thread, "the thread of a guest that was stopped");
		expect_cet(_metadata, s[i].vcpu, &s[i].guest->cet.regs[0], "KVM_RUN on a thread");
	}
}

/*
 * Verify that the guest keeps its CET while it is scheduled out in the middle
 * of KVM_RUN, in favour of another guest with other values and of the kernel's
 * own use of the FPU.
 */
TEST_F(cet_guest, scheduled_out)
{
	run_servers(_metadata, self->vcpu, &variant->combo, false);
}

/* Verify the same when the threads are moved to another CPU in KVM_RUN. */
TEST_F(cet_guest, migrated)
{
	if (host_nr_cpus() < 2)
		SKIP(return, "one CPU only");
	run_servers(_metadata, self->vcpu, &variant->combo, true);
}

/* ---- a host that uses CET and AMX ---- */

/* A guest with all registers loaded, which saves them before it exits */
static struct busy {
	u64 xcr0, xss;
	u32 spin;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
} busy[NR_GUESTS];

static INTEGER_ONLY void guest_busy(struct busy *b)
{
	guest_load_xregs(&b->regs, b->xcr0 | b->xss);
	for (;;) {
		while (__atomic_load_n(&b->spin, __ATOMIC_RELAXED))
			cpu_relax();
		asm volatile("xsaves64 %0" : "+m" (b->area) : "a" (-1), "d" (-1));
		guest_leave();
	}
}

static void guest_busy_code(struct busy *b)
{
	guest_enable_xstate(b->xcr0);
	guest_busy(b);
}

/* A thread of the host, and what it has live while it serves a guest */
static struct host {
	struct __test_metadata *metadata;
	struct kvm_vcpu *vcpu;
	struct busy *busy;
	void (*serve)(struct __test_metadata *const _metadata, struct host *h);
	struct xregs regs;
	u64 mask;
	bool no_shstk;
	u8 area[XAREA_SIZE] __aligned(64);
} hosts[NR_GUESTS];

static u64 host_ssp(void)
{
	u64 ssp = 0;

	/* rdsspq %rax does nothing without a shadow stack. */
	asm volatile(".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8" : "+a" (ssp));
	return ssp;
}

/* wrssq %rax, (%rdx): SIGILL unless U_CET of the thread says that it may */
static void host_wrss(u64 *to, u64 value)
{
	asm volatile(".byte 0x48, 0x0f, 0x38, 0xf6, 0x02" : : "a" (value), "d" (to) : "memory");
}

/* Not a function: none may return that began without a shadow stack. */
#define host_shstk(option, feature)					\
({									\
	long ret = SYS_arch_prctl;					\
									\
	asm volatile("syscall" : "+a" (ret)				\
		     : "D" ((long)(option)), "S" ((long)(feature))	\
		     : "rcx", "r11", "memory");				\
	ret;								\
})

/* Return with a wrong shadow stack pointer, and the process ends. */
static void *host_thread(void *arg)
{
	struct host *h = arg;
	struct __test_metadata *const _metadata = h->metadata;
	u64 left = -1ull;

	h->no_shstk = host_shstk(ARCH_SHSTK_ENABLE, ARCH_SHSTK_SHSTK);
	if (!h->no_shstk)
		host_shstk(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS);
	else
		EXPECT_THAT(!xf_cpuinfo_flag("user_shstk"),
			    "ARCH_SHSTK_ENABLE is refused, though the kernel lists user_shstk");
	h->serve(_metadata, h);
	if (!h->no_shstk) {
		host_shstk(ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK);
		/* WRSS is nothing without a shadow stack, and goes with it. */
		host_shstk(ARCH_SHSTK_STATUS, &left);
		EXPECT_SAME(0, left, "features after ARCH_SHSTK_DISABLE");
	}
	return NULL;
}

/* Have this thread, and another one if @nr is 2, call @serve. */
static void run_hosts(struct __test_metadata *const _metadata, int nr,
		      void (*serve)(struct __test_metadata *const _metadata, struct host *h))
{
	pthread_t thread;
	int i;

	for (i = 0; i < nr; i++) {
		hosts[i].metadata = _metadata;
		hosts[i].serve = serve;
	}
	if (nr > 1)
		ASSERT_EQ(0, pthread_create(&thread, NULL, host_thread, &hosts[1]));
	host_thread(&hosts[0]);
	if (nr > 1)
		xf_join_thread(_metadata, thread, "a thread of the host");
}

/* Give host thread @nr and its guest values of their own for all registers. */
static void set_up_host(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			const struct xstate_combo *combo, int nr)
{
	struct busy *b = addr_gva2hva(vcpu->vm, (gva_t)&busy[nr]);
	struct host *h = &hosts[nr];

	h->vcpu = vcpu;
	h->busy = b;
	h->mask = xregs_mask(xf_xcr0()) & ~(xstate_host_granted(combo) ? 0 : XFEATURE_MASK_XTILE);
	xregs_fill(&h->regs, vcpu, 2 * nr + 1);
	vcpu_args_set(vcpu, 1, (u64)&busy[nr]);
	b->xcr0 = xregs_guest_mask(vcpu);
	xregs_fill(&b->regs, vcpu, 2 * nr + 2);
	vcpu_set_cet(_metadata, vcpu, &b->regs);
	/* The second guest has nothing in IA32_XSS, unlike the host. */
	if (vcpu_has_shstk(vcpu) && !nr)
		b->xss = xregs_mask(vcpu_xss_mask(vcpu));
	else if (vcpu_xss_mask(vcpu))
		vcpu_set_msr(vcpu, MSR_IA32_XSS, 0);
}

FIXTURE(cet_host) {
	struct kvm_vm *vm;
};

XSTATE_SUITE(cet_host);

FIXTURE_VARIANT_ADD(cet_host, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(cet_host, host_noamx_cet) { .combo = { PERM_HOST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(cet_host, both_amx_cet) { .combo = { PERM_BOTH, AMX, CET } };

FIXTURE_SETUP(cet_host)
{
	struct kvm_vcpu *vcpu;

	if (!xstate_begin(_metadata, &variant->combo))
		return;
	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_busy_code);
	set_up_host(_metadata, vcpu, &variant->combo, 0);
}

/* KVM_RUN with all registers of the host loaded, and saved afterwards */
static INTEGER_ONLY long host_run(struct host *h)
{
	const u32 mxcsr = MXCSR_INIT;
	long ret = SYS_ioctl;

	guest_load_xregs(&h->regs, h->mask);
	asm volatile("syscall"
		     : "+a" (ret)
		     : "D" ((long)h->vcpu->fd), "S" ((long)KVM_RUN), "d" (0l)
		     : "rcx", "r11", "memory");
	asm volatile("xsave64 %0" : "+m" (h->area) : "a" (-1), "d" (-1));
	asm volatile("fninit\n\tldmxcsr %0" : : "m" (mxcsr));
	return ret;
}

/* Run the guest up to guest_leave(), and look at both sides. */
static void expect_both(struct __test_metadata *const _metadata, struct host *h, const char *when)
{
	u64 all = h->busy->xcr0 | h->busy->xss, ssp = host_ssp(), *unused = (u64 *)ssp - 16;

	EXPECT_ERRNO(0, -host_run(h), "KVM_RUN by %s", when);
	EXPECT_SAME(KVM_EXIT_IO, h->vcpu->run->exit_reason, "exit reason of KVM_RUN by %s", when);
	EXPECT_SAME(ssp, host_ssp(), "SSP of %s", when);
	if (!h->no_shstk) {
		host_wrss(unused, ssp);
		EXPECT_SAME(ssp, *unused, "what WRSS wrote of %s", when);
	}
	expect_area(_metadata, h->area, &h->regs, h->mask, 0, when);
	EXPECT_XFEATURES(all, xarea_header(h->busy->area, 0), "XSTATE_BV of the guest of %s", when);
	expect_area(_metadata, h->busy->area, &h->busy->regs, all, all | XCOMP_BV_COMPACTED,
		    "the guest");
	expect_cet(_metadata, h->vcpu, &h->busy->regs, "KVM_RUN by a busy host");
}

static noinline void serve_busy(struct __test_metadata *const _metadata, struct host *h)
{
	int i;

	for (i = 0; i < ROUNDS && !_metadata->exit_code; i++) {
		expect_both(_metadata, h, "the busy host");
		use_kernel_fpu();
		sched_yield();
	}
}

/*
 * Verify that a host thread with a shadow stack of its own keeps it, and may
 * write to it as before, over KVM_RUN, and all other registers as well, and that
 * the guest keeps its CET.
 */
TEST_F(cet_host, own_state)
{
	run_hosts(_metadata, 1, serve_busy);
	if (hosts[0].no_shstk)
		SKIP(return, "no shadow stacks for user space");
}

/*
 * Verify the same of two host threads on one CPU and their guests, which differ in
 * IA32_XSS too.
 */
TEST_F(cet_host, two_threads)
{
	host_put_on_cpu(0, 0);
	set_up_host(_metadata, xstate_add_guest(self->vm, 1, &variant->combo, guest_busy_code),
		    &variant->combo, 1);
	run_hosts(_metadata, NR_GUESTS, serve_busy);
}

/* What the frame of a signal in KVM_RUN held, and the thread that waits for it */
static u8 frame[XAREA_SIZE] __aligned(64);
static u32 frame_size;
static bool waiting;

static void on_alarm(int sig __maybe_unused, siginfo_t *info __maybe_unused, void *context)
{
	const ucontext_t *uc = context;
	const u8 *fpregs = (u8 *)uc->uc_mcontext.fpregs;

	if (!READ_ONCE(waiting) || uc->uc_mcontext.gregs[REG_RAX] != -EINTR)
		return;
	WRITE_ONCE(waiting, false);
	/* What the kernel says in software-reserved bytes: magic, sizes, mask */
	memcpy(&frame_size, fpregs + 464 + 16, sizeof(frame_size));
	xarea_copy(frame, fpregs, frame_size < sizeof(frame) ? frame_size : sizeof(frame));
}

static noinline void serve_alarm(struct __test_metadata *const _metadata, struct host *h)
{
	const struct itimerval every = {
		.it_interval.tv_usec = 10000, .it_value.tv_usec = 10000,
	};
	const struct sigaction sa = { .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO };
	const struct itimerval never = {};
	u64 ssp = host_ssp();

	WRITE_ONCE(h->busy->spin, 1);
	sigaction(SIGALRM, &sa, NULL);
	WRITE_ONCE(waiting, true);
	setitimer(ITIMER_REAL, &every, NULL);
	EXPECT_ERRNO(EINTR, -host_run(h), "KVM_RUN of a guest that spins");
	setitimer(ITIMER_REAL, &never, NULL);
	EXPECT_SAME(ssp, host_ssp(), "SSP of the host after a signal in KVM_RUN");
	EXPECT_THAT(!READ_ONCE(waiting), "KVM_RUN was not interrupted by a signal");
	expect_area(_metadata, h->area, &h->regs, h->mask, 0,
		    "the host after a signal in KVM_RUN");
	EXPECT_THAT(frame_size >= xf_standard_size(h->mask),
		    "a frame of %u bytes has not all components", frame_size);
	expect_area(_metadata, frame, &h->regs, h->mask, 0, "the frame of a signal in KVM_RUN");
	WRITE_ONCE(h->busy->spin, 0);
	expect_both(_metadata, h, "the host after a signal");
}

/*
 * Verify that a signal that ends KVM_RUN finds the registers of the host, not
 * those of the guest, in its frame, and that both sides go on with theirs.
 */
TEST_F(cet_host, signal_frame)
{
	run_hosts(_metadata, 1, serve_alarm);
}

static noinline void serve_first(struct __test_metadata *const _metadata, struct host *h)
{
	struct xf_shadow_stacks before, with;
	u64 ssp = host_ssp();

	xf_shadow_stacks(&before, ssp);
	expect_both(_metadata, h, "a host whose VM has not run before");
	if (!xf_shadow_stacks(&with, ssp))
		return;
	EXPECT_SAME(before.start, with.start, "where the shadow stack of the host starts");
	EXPECT_SAME(before.end, with.end, "where the shadow stack of the host ends");
	XFAIL_IF(with.nr == before.nr + 1, "a worker thread of KVM gets a shadow stack")
		EXPECT_SAME(before.nr, with.nr, "shadow stacks with KVM's worker thread");
}

/*
 * Verify that threads which KVM starts in the process for its own work leave the shadow
 * stack of their creator alone, have none, and leave none behind.
 */
TEST_F(cet_host, workers)
{
	struct xf_shadow_stacks left;

	run_hosts(_metadata, 1, serve_first);
	if (hosts[0].no_shstk)
		SKIP(return, "no shadow stacks for user space");
	kvm_vm_free(self->vm);
	self->vm = NULL;
	xf_shadow_stacks(&left, 0);
	EXPECT_SAME(0, left.nr, "shadow stacks once the VM is gone");
}

XSTATE_HARNESS_MAIN
