// SPDX-License-Identifier: GPL-2.0-only
/*
 * A host process that has CET and AMX state of its own while it runs a guest:
 * a user shadow stack, live tiles, all other registers. KVM_RUN swaps all of it
 * with the state of the guest, and must give both sides back what they had,
 * whatever happens meanwhile: a signal, another thread, another guest.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/time.h>

#include "xstate_cet_guest.h"
#include "xstate_guest.h"

#ifndef ARCH_SHSTK_ENABLE
#define ARCH_SHSTK_ENABLE	0x5001
#define ARCH_SHSTK_DISABLE	0x5002
#define ARCH_SHSTK_STATUS	0x5005
#define ARCH_SHSTK_SHSTK	1
#define ARCH_SHSTK_WRSS		2
#endif

#define NR_HOSTS		2
#define ROUNDS			8

/* A guest with all registers loaded, which saves them before it exits */
static struct busy {
	u64 xcr0, xss;
	u32 spin;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
} busy[NR_HOSTS];

static GUEST_INTEGER_ONLY void guest_busy(struct busy *b)
{
	guest_load_xregs(&b->regs, b->xcr0 | b->xss);
	for (;;) {
		while (__atomic_load_n(&b->spin, __ATOMIC_RELAXED))
			cpu_relax();
		asm volatile("xsaves64 %0"
			     : "+m" (b->area) : "a" (-1), "d" (-1));
		guest_leave();
	}
}

static void guest_busy_code(u64 nr)
{
	guest_enable(busy[nr].xcr0);
	if (busy[nr].xss)
		wrmsr(XF_MSR_XSS, busy[nr].xss);
	guest_busy(&busy[nr]);
}

FIXTURE(cet_host) {
	struct cet_guest f;
};

FIXTURE_VARIANT(cet_host) {
	const char *name;
};

FIXTURE_SETUP(cet_host)
{
	cet_guest_set_up(_metadata, &self->f, variant->name, guest_exits_code);
}

FIXTURE_TEARDOWN(cet_host)
{
	cet_guest_tear_down(_metadata, &self->f);
}

XSTATE_VARIANT(cet_host, none_noamx_cet);
XSTATE_VARIANT(cet_host, host_noamx_cet);
XSTATE_VARIANT(cet_host, both_amx_cet);

/* A thread of the host, what it has live while it serves a guest, its verdict */
struct host {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct busy *busy;
	void (*serve)(struct host *h);
	pthread_t thread;
	struct xregs regs;
	u64 mask;
	bool no_shstk, bad;
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct host hosts[NR_HOSTS];

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
	asm volatile(".byte 0x48, 0x0f, 0x38, 0xf6, 0x02"
		     : : "a" (value), "d" (to) : "memory");
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

static bool same(const char *what, u64 wanted, u64 got)
{
	return xarea_same("the host", what, wanted, got);
}

/* Return with a wrong shadow stack pointer, and the process ends. */
static void *host_thread(void *arg)
{
	struct host *h = arg;
	u64 left = -1ull;

	h->no_shstk = host_shstk(ARCH_SHSTK_ENABLE, ARCH_SHSTK_SHSTK);
	if (!h->no_shstk)
		host_shstk(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS);
	h->serve(h);
	if (!h->no_shstk) {
		host_shstk(ARCH_SHSTK_DISABLE, ARCH_SHSTK_SHSTK);
		/* WRSS is nothing without a shadow stack, and goes with it. */
		host_shstk(ARCH_SHSTK_STATUS, &left);
		if (!same("features after ARCH_SHSTK_DISABLE", 0, left))
			h->bad = true;
	}
	return NULL;
}

/* Have @nr threads of the host call @serve; false if one met what is wrong. */
static bool run_hosts(int nr, void (*serve)(struct host *h))
{
	bool ok = true;
	int i;

	for (i = 0; i < nr; i++) {
		hosts[i].serve = serve;
		TEST_ASSERT(!pthread_create(&hosts[i].thread, NULL, host_thread,
					    &hosts[i]),
			    "pthread_create() failed");
	}
	for (i = 0; i < nr; i++) {
		pthread_join(hosts[i].thread, NULL);
		ok &= !hosts[i].bad;
	}
	return ok;
}

static noinline void serve_exits(struct host *h)
{
	u64 ssp = host_ssp(), *unused;
	bool ok;

	xstate_run(h->vcpu, UCALL_SYNC);
	use_kernel_fpu();
	xstate_run(h->vcpu, UCALL_SYNC);
	ok = xstate_cet_kept(&h->x, 0, "KVM_RUN by a busy host");
	ok &= xstate_fill(&h->x, 5);
	xstate_run(h->vcpu, UCALL_DONE);
	ok &= same("SSP after KVM_RUN", ssp, host_ssp());
	if (!h->no_shstk) {
		unused = (u64 *)ssp - 16;
		host_wrss(unused, ssp);
		ok &= same("what WRSS wrote after KVM_RUN", ssp, *unused);
	}
	h->bad = !ok;
}

/*
 * Verify that a host thread with a shadow stack of its own keeps it, and may
 * write to it as before, over KVM_RUN, and that the guest keeps its CET.
 */
TEST_F(cet_host, own_state)
{
	hosts[0].x = self->f.x;
	hosts[0].vcpu = self->f.vcpu;
	ASSERT_TRUE(run_hosts(1, serve_exits));
	if (hosts[0].no_shstk)
		SKIP(return, "no shadow stacks for user space");
}

/* Give host thread @nr and its guest values of their own for all registers. */
static void set_up_host(struct cet_guest *f, int nr)
{
	struct host *h = &hosts[nr];

	h->x = f->x;
	h->vcpu = nr ? vm_vcpu_add(f->vcpu->vm, nr, guest_busy_code) : f->vcpu;
	xstate_enable(&h->x, h->vcpu);
	vcpu_arch_set_entry_point(h->vcpu, guest_busy_code);
	vcpu_args_set(h->vcpu, 1, (u64)nr);
	h->busy = addr_gva2hva(f->vcpu->vm, (gva_t)&busy[nr]);
	h->busy->xcr0 = xregs_guest_xcr0(&h->x);
	/* The second guest leaves IA32_XSS alone, unlike the host. */
	if (h->x.shstk_on && !nr)
		h->busy->xss = xregs_mask(xcomp_guest_xss(&h->x));
	xregs_fill(&h->busy->regs, 2 * nr + 1);

	h->mask = xregs_mask(xf_xcr0());
	if (!h->x.host_granted)
		h->mask &= ~XF_XTILE;
	xregs_fill(&h->regs, 2 * nr + 2);
}

/* KVM_RUN with all registers of the host loaded, and saved afterwards */
static GUEST_INTEGER_ONLY long host_run(struct host *h)
{
	const u32 mxcsr = XSTATE_MXCSR_INIT;
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
static bool host_runs(struct host *h, const char *when)
{
	u64 all = h->busy->xcr0 | h->busy->xss, ssp = host_ssp();
	bool ok;

	ok = same("KVM_RUN", 0, host_run(h));
	ok &= same("exit reason", KVM_EXIT_IO, h->vcpu->run->exit_reason);
	ok &= same("SSP", ssp, host_ssp());
	ok &= xarea_has(when, h->area, &h->regs, h->mask, 0);
	ok &= same("XSTATE_BV of the guest", all,
		   xarea_header(h->busy->area, 0));
	return ok && xarea_has("the guest", h->busy->area, &h->busy->regs, all,
			       all | XF_COMPACTED);
}

static noinline void serve_busy(struct host *h)
{
	int i;

	for (i = 0; i < ROUNDS && !h->bad; i++) {
		h->bad = !host_runs(h, "the host, with another at work");
		use_kernel_fpu();
		sched_yield();
	}
}

/*
 * Verify that two host threads on one CPU, each with a shadow stack and all
 * registers in use, and their guests, who differ in IA32_XSS too, all keep what
 * is theirs.
 */
TEST_F(cet_host, two_threads)
{
	cpu_set_t one;
	int i;

	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(one), &one));
	for (i = 0; i < NR_HOSTS; i++)
		set_up_host(&self->f, i);
	EXPECT_TRUE(run_hosts(NR_HOSTS, serve_busy));
}

/* What the frame of a signal in KVM_RUN held, and the thread that waits for it */
static u8 frame[XAREA_SIZE] __aligned(64);
static u32 frame_size;
static bool waiting;

static void on_alarm(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;
	const u8 *fpregs = (u8 *)uc->uc_mcontext.fpregs;
	u32 size;

	(void)sig;
	(void)info;
	if (!READ_ONCE(waiting) ||
	    uc->uc_mcontext.gregs[REG_RAX] != -EINTR)
		return;
	WRITE_ONCE(waiting, false);
	/* What the kernel says in software-reserved bytes: magic, sizes, mask */
	memcpy(&size, fpregs + 464 + 16, sizeof(size));
	xarea_copy(frame, fpregs, size < sizeof(frame) ? size : sizeof(frame));
	WRITE_ONCE(frame_size, size);
}

static noinline void serve_alarm(struct host *h)
{
	const struct itimerval every = {
		.it_interval.tv_usec = 10000, .it_value.tv_usec = 10000,
	};
	const struct itimerval never = {};
	const struct sigaction sa = {
		.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO,
	};
	u64 ssp = host_ssp();
	sigset_t set;
	bool ok;

	WRITE_ONCE(h->busy->spin, 1);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigaction(SIGALRM, &sa, NULL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	WRITE_ONCE(waiting, true);
	setitimer(ITIMER_REAL, &every, NULL);
	ok = same("KVM_RUN", EINTR, -host_run(h));
	setitimer(ITIMER_REAL, &never, NULL);
	ok &= same("SSP after a signal in KVM_RUN", ssp, host_ssp());
	ok &= same("signals in KVM_RUN", true, !READ_ONCE(waiting));
	ok &= xarea_has("the host after a signal in KVM_RUN", h->area, &h->regs,
			h->mask, 0);
	ok &= same("a frame with all components", true,
		   READ_ONCE(frame_size) >= xf_standard_size(h->mask));
	ok &= xarea_has("frame of a signal in KVM_RUN", frame, &h->regs,
			h->mask, 0);
	WRITE_ONCE(h->busy->spin, 0);
	h->bad = !(ok & host_runs(h, "the host after a signal"));
}

/*
 * Verify that a signal that ends KVM_RUN finds the registers of the host, not
 * those of the guest, in its frame, and that both sides go on with theirs.
 */
TEST_F(cet_host, signal_frame)
{
	sigset_t set;

	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
	set_up_host(&self->f, 0);
	EXPECT_TRUE(run_hosts(1, serve_alarm));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
