// SPDX-License-Identifier: GPL-2.0-only
/*
 * Save AMX, CET and XSAVE state of one vCPU and restore it into another one.
 *
 * VMMs restore XSAVE state, XCR0, MSRs and registers in different orders, all
 * after CPUID; each order must give the same vCPU. A target that cannot take a
 * part of the state must refuse it, and be left with what it had.
 *
 * Never restore IA32_XFD with bit 18 set after an image with tile data.
 */
#include <sys/wait.h>

#include "xstate_guest.h"
#include "xstate_util.h"

#define XFD_TILE	XF_BIT(XF_XTILE_DATA)

enum step { STEP_XSAVE, STEP_XCRS, STEP_MSRS, STEP_REG, NR_STEPS };

static const char * const step_names[] = {
	"KVM_SET_XSAVE", "KVM_SET_XCRS", "KVM_SET_MSRS", "KVM_SET_ONE_REG",
};

/* All that is saved of a vCPU; lies in memory that processes share */
struct snapshot {
	u64 xcr0, ssp, bv;
	u32 nr_msrs;
	bool has_ssp;
	struct kvm_msr_entry msrs[XKVM_MAX_MSRS];
	u8 image[XAREA_SIZE];
};

static struct snapshot *new_snapshot(void)
{
	struct snapshot *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(s != MAP_FAILED, "mmap() failed: %s", strerror(errno));
	return s;
}

static void add_msr(struct snapshot *s, u32 index, u64 value)
{
	s->msrs[s->nr_msrs].index = index;
	s->msrs[s->nr_msrs++].data = value;
}

/* What the vCPU of a combination should hold, by our own account */
static void make_snapshot(struct xcomp *x, struct snapshot *s, u32 seed, u64 xfd)
{
	struct xregs regs;
	unsigned int i;

	xregs_fill(&regs, seed);
	s->xcr0 = xcomp_guest_xcr0(x);
	s->bv = xregs_mask(s->xcr0) & ~xfd;
	xarea_put(s->image, &regs, s->bv, 0);
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++)
		if (xcomp_has_msr(x, xcomp_cet_msrs[i]))
			add_msr(s, xcomp_cet_msrs[i],
				xstate_msr_value(x, xcomp_cet_msrs[i], seed));
	if (xcomp_guest_xss(x))
		add_msr(s, XF_MSR_XSS, xcomp_guest_xss(x));
	if (x->amx_on) {
		add_msr(s, MSR_IA32_XFD, xfd);
		add_msr(s, MSR_IA32_XFD_ERR, xfd);
	}
	s->has_ssp = x->shstk_on;
	s->ssp = xstate_ssp_value(seed);
}

/* 0 or the errno of one ioctl; EINVAL for an MSR that is not taken */
static int do_step(struct xcomp *x, struct snapshot *s, enum step step)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = s->xcr0 };

	switch (step) {
	case STEP_XSAVE:
		return ioctl(x->vcpu, KVM_SET_XSAVE, s->image) ? errno : 0;
	case STEP_XCRS:
		return ioctl(x->vcpu, KVM_SET_XCRS, &xcrs) ? errno : 0;
	case STEP_MSRS:
		if (!s->nr_msrs)
			return 0;
		return xkvm_set_msrs(x->vcpu, s->msrs, s->nr_msrs) ==
		       (int)s->nr_msrs ? 0 : EINVAL;
	default:
		if (!s->has_ssp)
			return 0;
		return xkvm_one_reg(x->vcpu, KVM_SET_ONE_REG,
				    XKVM_REG_GUEST_SSP, &s->ssp);
	}
}

/* Read from the vCPU what @like lists. */
static void save(struct xcomp *x, const struct snapshot *like,
		 struct snapshot *s)
{
	struct kvm_xcrs xcrs;

	xarea_copy(s, like, sizeof(*s));
	xarea_fill(s->image, 0, sizeof(s->image));
	TEST_ASSERT(!ioctl(x->vcpu, KVM_GET_XSAVE2, s->image),
		    "KVM_GET_XSAVE2: wanted success got %s", strerror(errno));
	s->bv = xarea_header(s->image, 0);
	TEST_ASSERT(!ioctl(x->vcpu, KVM_GET_XCRS, &xcrs),
		    "KVM_GET_XCRS: wanted success got %s", strerror(errno));
	s->xcr0 = xcrs.xcrs[0].value;
	TEST_ASSERT(!s->nr_msrs || xkvm_get_msrs(x->vcpu, s->msrs, s->nr_msrs) ==
		    (int)s->nr_msrs, "KVM_GET_MSRS: wanted %u MSRs", s->nr_msrs);
	TEST_ASSERT(!s->has_ssp ||
		    !xkvm_one_reg(x->vcpu, KVM_GET_ONE_REG, XKVM_REG_GUEST_SSP,
				  &s->ssp), "KVM_GET_ONE_REG: wanted success");
}

/* Compare the components of @mask; those absent from XSTATE_BV count as 0. */
static bool same_image(const char *what, const struct snapshot *got,
		       const struct snapshot *wanted, u64 mask)
{
	struct xf_regs r;
	bool ok = true;
	size_t n;
	int i;

	/* XSTATE_BV[9] is that of the host once the guest FPU was loaded. */
	ok &= xarea_same(what, "XSTATE_BV", wanted->bv & mask & ~XF_BIT(XF_PKRU),
			 got->bv & mask & ~XF_BIT(XF_PKRU));
	for (i = 0; i < 63 && ok; i++) {
		if (!(wanted->bv & mask & XF_BIT(i)) || i == XF_SSE)
			continue;
		r = xf_cpuid(0xd, i);
		if (i == XF_FP)
			ok &= xstate_same_component(got->image, wanted->image,
						    XF_SSE);
		n = i == XF_FP ? xstate_same_component(got->image,
						       wanted->image, i) :
		    xarea_differ(got->image + r.ebx, wanted->image + r.ebx,
				 i == XF_PKRU ? 4 : r.eax) ==
		    (i == XF_PKRU ? 4 : r.eax);
		if (!n)
			ksft_print_msg("%s: component %d is not what was saved\n",
				       what, i);
		ok &= n;
	}
	return ok;
}

/* Whether the vCPU holds all of @wanted, of the XSAVE image only @mask */
static bool holds(struct xcomp *x, const char *what,
		  const struct snapshot *wanted, u64 mask)
{
	struct snapshot *got = new_snapshot();
	bool ok = true;
	u32 i;

	save(x, wanted, got);
	ok &= same_image(what, got, wanted, mask);
	ok &= xarea_same(what, "XCR0", wanted->xcr0, got->xcr0);
	for (i = 0; i < wanted->nr_msrs; i++)
		if (wanted->msrs[i].data != got->msrs[i].data) {
			ksft_print_msg("%s: MSR %#x, %s: wanted %#llx got %#llx\n",
				       what, wanted->msrs[i].index,
				       xf_msr_name(wanted->msrs[i].index),
				       wanted->msrs[i].data, got->msrs[i].data);
			ok = false;
		}
	if (wanted->has_ssp)
		ok &= xarea_same(what, "SSP", wanted->ssp, got->ssp);
	munmap(got, sizeof(*got));
	return ok;
}

/* A new VM with one vCPU, and @s restored into it in the order of @steps */
static bool restore_ok(struct xcomp *x, struct snapshot *s,
		       const enum step *steps)
{
	struct kvm_vm *vm = vm_create_barebones();
	char what[128];
	bool ok = true;
	int i;

	xstate_add_vcpu(x, vm, 0);
	snprintf(what, sizeof(what), "%s, %s, %s, %s", step_names[steps[0]],
		 step_names[steps[1]], step_names[steps[2]],
		 step_names[steps[3]]);
	for (i = 0; i < NR_STEPS; i++)
		ok &= xarea_same(what, step_names[steps[i]], 0,
				 do_step(x, s, steps[i]));
	ok = ok && holds(x, what, s, ~0ull);
	kvm_vm_free(vm);
	return ok;
}

/* Every order of the steps, each into a VM of its own */
static bool every_order_ok(struct xcomp *x, struct snapshot *s)
{
	enum step steps[NR_STEPS];
	bool ok = true;
	u32 n, used, i;

	for (n = 0; n < 256; n++) {
		used = 0;
		for (i = 0; i < NR_STEPS; i++) {
			steps[i] = n >> (2 * i) & 3;
			used |= 1u << steps[i];
		}
		if (used == 15)
			ok &= restore_ok(x, s, steps);
	}
	return ok;
}

/* ---- one process ---- */

FIXTURE(xstate_restore) {
	struct xcomp x;
	u64 taint;
};

FIXTURE_VARIANT(xstate_restore) {
	const char *name;
};

FIXTURE_VARIANT_ADD(xstate_restore, none) { .name = "none_noamx_nocet" };
FIXTURE_VARIANT_ADD(xstate_restore, cet) { .name = "none_noamx_cet" };
FIXTURE_VARIANT_ADD(xstate_restore, amx) { .name = "guest_amx_nocet" };
FIXTURE_VARIANT_ADD(xstate_restore, amx_ibt) { .name = "guest_amx_ibt" };
FIXTURE_VARIANT_ADD(xstate_restore, amx_shstk) { .name = "guest_amx_shstk" };
FIXTURE_VARIANT_ADD(xstate_restore, amx_cet) { .name = "guest_amx_cet" };

/* Why a vCPU of the combination cannot be had here, NULL if it can */
static const char *missing(const struct xcomp *x, bool need_cet)
{
	if (x->amx && !x->have_amx)
		return "no AMX on this machine";
	if (need_cet && ((x->shstk && !x->shstk_on) ||
			 (x->ibt && !x->shstk && !x->ibt_on)))
		return "KVM offers no guest CET";
	return NULL;
}

FIXTURE_SETUP(xstate_restore)
{
	ASSERT_TRUE(xstate_begin(&self->x, variant->name));
	if (missing(&self->x, true))
		SKIP(return, "%s", missing(&self->x, true));
	self->taint = xf_taint();
}

FIXTURE_TEARDOWN(xstate_restore)
{
	EXPECT_FALSE(xstate_warned(self->taint));
}

/*
 * Verify that state saved from one vCPU, live tiles included, is complete in
 * another one, whatever the order in which it is restored.
 */
TEST_F(xstate_restore, every_order)
{
	static const enum step steps[] = {
		STEP_XCRS, STEP_MSRS, STEP_XSAVE, STEP_REG,
	};
	struct snapshot *known = new_snapshot(), *saved = new_snapshot();
	struct kvm_vm *vm = vm_create_barebones();
	u32 i;

	xstate_add_vcpu(&self->x, vm, 0);
	make_snapshot(&self->x, known, 1, 0);
	for (i = 0; i < NR_STEPS; i++)
		ASSERT_EQ(0, do_step(&self->x, known, steps[i]));
	ASSERT_TRUE(holds(&self->x, "the source", known, ~0ull));
	save(&self->x, known, saved);
	kvm_vm_free(vm);
	EXPECT_TRUE(every_order_ok(&self->x, saved));
}

/*
 * Verify the same for a vCPU that has bit 18 of IA32_XFD set. Its image has no
 * tile data, so that no order can have the host load any against IA32_XFD.
 */
TEST_F(xstate_restore, every_order_xfd)
{
	struct snapshot *known = new_snapshot();

	if (!self->x.amx_on)
		SKIP(return, "the combination has no AMX");
	make_snapshot(&self->x, known, 1, XFD_TILE);
	ASSERT_EQ(0, xarea_header(known->image, 0) & XFD_TILE);
	EXPECT_TRUE(every_order_ok(&self->x, known));
}

/* Load all registers; find them again in what may be another VM by then. */
struct guest {
	u64 xcr0, xss;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct guest guest;

static GUEST_INTEGER_ONLY void guest_live(struct guest *g)
{
	guest_load_xregs(&g->regs, g->xcr0 | g->xss);
	guest_leave();
	asm volatile("xsaves64 %0" : "+m" (g->area) : "a" (-1), "d" (-1));
	guest_leave();
}

static void guest_code(void)
{
	guest_enable(guest.xcr0);
	if (guest.xss)
		wrmsr(XF_MSR_XSS, guest.xss);
	guest_live(&guest);
}

/* As libkvm restores, or with XSAVE before XCR0 and MSRs as most VMMs do */
static void load_state(struct kvm_vcpu *vcpu, struct kvm_x86_state *state,
		       bool xsave_first)
{
	if (!xsave_first) {
		vcpu_load_state(vcpu, state);
		return;
	}
	vcpu_sregs_set(vcpu, &state->sregs);
	vcpu_xsave_set(vcpu, state->xsave);
	vcpu_xcrs_set(vcpu, &state->xcrs);
	vcpu_msrs_set(vcpu, &state->msrs);
	vcpu_events_set(vcpu, &state->events);
	vcpu_mp_state_set(vcpu, &state->mp_state);
	vcpu_regs_set(vcpu, &state->regs);
}

/*
 * Verify that a guest goes on in a new VM with all its registers: AVX-512,
 * PKRU, tiles and CET. IA32_XFD is 0 all the time.
 */
static void check_guest_goes_on(struct __test_metadata *_metadata,
				struct xcomp *x, bool xsave_first)
{
	struct kvm_vcpu *vcpu = xstate_guest(x, guest_code);
	struct kvm_x86_state *state;
	struct guest *g;
	u64 all;

	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	g = addr_gva2hva(vcpu->vm, (gva_t)&guest);
	g->xcr0 = xregs_mask(xcomp_guest_xcr0(x));
	g->xss = x->shstk_on ? xregs_mask(xcomp_guest_xss(x)) : 0;
	xregs_fill(&g->regs, 3);
	all = g->xcr0 | g->xss;
	xregs_run(vcpu);

	state = vcpu_save_state(vcpu);
	kvm_vm_release(vcpu->vm);
	vcpu = vm_recreate_with_one_vcpu(vcpu->vm);
	load_state(vcpu, state, xsave_first);
	kvm_x86_state_cleanup(state);

	xregs_run(vcpu);
	EXPECT_TRUE(xarea_same("after the restore", "XSTATE_BV of XSAVES", all,
			       xarea_header(g->area, 0)));
	EXPECT_TRUE(xarea_has("after the restore", g->area, &g->regs, all,
			      all | XF_COMPACTED));
	kvm_vm_free(vcpu->vm);
}

TEST_F(xstate_restore, guest_xsave_last)
{
	check_guest_goes_on(_metadata, &self->x, false);
}

TEST_F(xstate_restore, guest_xsave_first)
{
	check_guest_goes_on(_metadata, &self->x, true);
}

/* ---- from one process into another ---- */

FIXTURE(xstate_transfer) {
	struct xcomp x;
	struct snapshot *from, *had;
	struct kvm_vm *vm;
	u64 taint;
};

FIXTURE_VARIANT(xstate_transfer) {
	const char *from, *to;
};

FIXTURE_VARIANT_ADD(xstate_transfer, same) {
	.from = "guest_amx_cet", .to = "guest_amx_cet",
};

FIXTURE_VARIANT_ADD(xstate_transfer, to_unpermitted) {
	.from = "guest_amx_cet", .to = "none_amx_cet",
};

FIXTURE_VARIANT_ADD(xstate_transfer, to_noamx) {
	.from = "guest_amx_cet", .to = "guest_noamx_cet",
};

FIXTURE_VARIANT_ADD(xstate_transfer, to_nocet) {
	.from = "guest_amx_shstk", .to = "guest_amx_nocet",
};

FIXTURE_VARIANT_ADD(xstate_transfer, to_ibt) {
	.from = "guest_amx_shstk", .to = "guest_amx_ibt",
};

FIXTURE_VARIANT_ADD(xstate_transfer, to_amx) {
	.from = "none_noamx_cet", .to = "guest_amx_cet",
};

FIXTURE_VARIANT_ADD(xstate_transfer, cet_to_nocet) {
	.from = "none_noamx_cet", .to = "none_noamx_nocet",
};

FIXTURE_VARIANT_ADD(xstate_transfer, plain) {
	.from = "none_noamx_nocet", .to = "none_noamx_nocet",
};

/*
 * A combination that names CET does without it where KVM has none, unless CET
 * is what source and target differ in.
 */
static bool need_cet(const char *from, const char *to)
{
	return strcmp(strrchr(from, '_'), strrchr(to, '_'));
}

/* In a child: make a vCPU, give it state, save that. Return an exit status. */
static int save_in_child(const char *name, struct snapshot *s, bool cet)
{
	struct snapshot *known = new_snapshot();
	struct xcomp x;
	int i;

	if (!xstate_begin(&x, name))
		return KSFT_FAIL;
	if (missing(&x, cet))
		return KSFT_SKIP;
	xstate_add_vcpu(&x, vm_create_barebones(), 0);
	make_snapshot(&x, known, 1, 0);
	for (i = 0; i < NR_STEPS; i++)
		if (!xarea_same("the source", step_names[i], 0,
				do_step(&x, known, i)))
			return KSFT_FAIL;
	save(&x, known, s);
	return holds(&x, "the source", known, ~0ull) ? KSFT_PASS : KSFT_FAIL;
}

FIXTURE_SETUP(xstate_transfer)
{
	bool cet = need_cet(variant->from, variant->to);
	pid_t child;
	int i, status;

	self->taint = xf_taint();
	self->from = new_snapshot();
	self->had = new_snapshot();
	fflush(stdout);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		status = save_in_child(variant->from, self->from, cet);
		fflush(stdout);
		_exit(status);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_TRUE(xstate_begin(&self->x, variant->to));
	if (WEXITSTATUS(status) == KSFT_SKIP || missing(&self->x, cet))
		SKIP(return, "this machine lacks AMX or guest CET");
	ASSERT_EQ(KSFT_PASS, WEXITSTATUS(status));

	/* The target has state of its own, which a refused step must keep. */
	self->vm = vm_create_barebones();
	xstate_add_vcpu(&self->x, self->vm, 0);
	make_snapshot(&self->x, self->had, 2, 0);
	for (i = 0; i < NR_STEPS; i++)
		ASSERT_EQ(0, do_step(&self->x, self->had, i));
}

FIXTURE_TEARDOWN(xstate_transfer)
{
	EXPECT_FALSE(xstate_warned(self->taint));
	if (self->vm)
		kvm_vm_free(self->vm);
}

/* Verify that CPUID with AMX is refused where the permission is missing. */
TEST_F(xstate_transfer, cpuid)
{
	bool from_amx = self->from->xcr0 & XFD_TILE;
	int wanted = from_amx && !self->x.guest_granted ? EPERM : 0;

	EXPECT_TRUE(xarea_same("KVM_SET_CPUID2", "errno", wanted,
			       xcomp_set_cpuid(&self->x, self->x.vcpu,
					       from_amx)));
	if (wanted)
		EXPECT_TRUE(holds(&self->x, "after a refused KVM_SET_CPUID2",
				  self->had, ~0ull));
}

/*
 * Verify that an image with tile data is refused by a vCPU without AMX, which
 * then has all of its old state, and taken by all others. A smaller image,
 * with nothing mapped behind it, must not be read beyond its end.
 */
TEST_F(xstate_transfer, xsave)
{
	bool ok = !(self->from->bv & XFD_TILE) || self->x.amx_on;
	u32 size = xcomp_xsave_size(&self->x);
	u8 *image = xf_guarded(size - 1, 0);

	xarea_copy(image, self->from->image, size - 1);
	EXPECT_EQ(EFAULT, ioctl(self->x.vcpu, KVM_SET_XSAVE, image) ? errno : 0);
	EXPECT_TRUE(holds(&self->x, "after a KVM_SET_XSAVE of one byte less",
			  self->had, ~0ull));

	EXPECT_TRUE(xarea_same("KVM_SET_XSAVE", "errno", ok ? 0 : EINVAL,
			       do_step(&self->x, self->from, STEP_XSAVE)));
	xarea_copy(self->had->image, ok ? self->from->image : self->had->image,
		   XAREA_SIZE);
	self->had->bv = ok ? self->from->bv : self->had->bv;
	EXPECT_TRUE(holds(&self->x, "after KVM_SET_XSAVE", self->had, ~0ull));
}

/* Verify that XCR0 is taken if guest CPUID has all of it, and else refused. */
TEST_F(xstate_transfer, xcrs)
{
	bool ok = !(self->from->xcr0 & ~xcomp_guest_xcr0(&self->x));

	EXPECT_TRUE(xarea_same("KVM_SET_XCRS", "errno", ok ? 0 : EINVAL,
			       do_step(&self->x, self->from, STEP_XCRS)));
	self->had->xcr0 = ok ? self->from->xcr0 : self->had->xcr0;
	EXPECT_TRUE(holds(&self->x, "after KVM_SET_XCRS", self->had, ~0ull));
}

/* Whether the target must take this MSR of the source */
static bool msr_fits(struct xcomp *x, const struct kvm_msr_entry *e)
{
	u64 bits = XCOMP_CET_WRSS_EN;

	switch (e->index) {
	case XF_MSR_XSS:
		return !(e->data & ~xcomp_guest_xss(x));
	case MSR_IA32_XFD:
	case MSR_IA32_XFD_ERR:
		return !e->data || x->amx_on;
	case XF_MSR_U_CET:
	case XF_MSR_S_CET:
		return !(e->data & (x->shstk_on ? 0 : bits)) &&
		       !(e->data & (x->ibt_on ? 0 : ~bits));
	}
	return xcomp_has_msr(x, e->index) || !e->data;
}

/*
 * Verify that each MSR is taken if the target has it, and refused otherwise;
 * and that a refused one leaves the target with all it had.
 */
TEST_F(xstate_transfer, msrs)
{
	struct kvm_msr_entry *e, *h;
	bool ok;

	for (e = self->from->msrs; e < self->from->msrs + self->from->nr_msrs;
	     e++) {
		ok = msr_fits(&self->x, e);
		EXPECT_TRUE(xarea_same(xf_msr_name(e->index),
				       "KVM_SET_MSRS took", ok,
				       xkvm_set_msr(self->x.vcpu, e->index,
						    e->data)));
		for (h = self->had->msrs;
		     h < self->had->msrs + self->had->nr_msrs; h++)
			if (h->index == e->index && ok)
				h->data = e->data;
	}
	EXPECT_TRUE(holds(&self->x, "after KVM_SET_MSRS", self->had, ~0ull));
}

/* Verify that the shadow stack pointer needs a target with shadow stacks. */
TEST_F(xstate_transfer, ssp)
{
	int wanted = self->x.shstk_on || !self->from->has_ssp ? 0 : EINVAL;

	EXPECT_TRUE(xarea_same("KVM_SET_ONE_REG of SSP", "errno", wanted,
			       do_step(&self->x, self->from, STEP_REG)));
	if (self->had->has_ssp && self->from->has_ssp)
		self->had->ssp = self->from->ssp;
	EXPECT_TRUE(holds(&self->x, "after KVM_SET_ONE_REG", self->had, ~0ull));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
