// SPDX-License-Identifier: GPL-2.0-only
/*
 * A KVM_SET_CPUID2 that comes late: after the state that needs it, or after the
 * vCPU has run.
 */
#include "../../x86/xcomp_guest.h"
#include "xstate_snapshot.h"

FIXTURE(xstate_late_cpuid) {
	struct xcomp x;
	struct kvm_vm *vm;
	struct snapshot *known;
	u64 taint;
};

FIXTURE_VARIANT(xstate_late_cpuid) {
	const char *name;
};

FIXTURE_VARIANT_ADD(xstate_late_cpuid, none) { .name = "none_noamx_nocet" };
FIXTURE_VARIANT_ADD(xstate_late_cpuid, cet) { .name = "none_noamx_cet" };
FIXTURE_VARIANT_ADD(xstate_late_cpuid, permitted) { .name = "guest_noamx_cet" };
FIXTURE_VARIANT_ADD(xstate_late_cpuid, amx) { .name = "guest_amx_nocet" };
FIXTURE_VARIANT_ADD(xstate_late_cpuid, amx_cet) { .name = "guest_amx_cet" };

FIXTURE_SETUP(xstate_late_cpuid)
{
	ASSERT_TRUE(xstate_begin(&self->x, variant->name));
	if (missing(&self->x, true))
		SKIP(return, "%s", missing(&self->x, true));
	self->taint = xf_taint();
	self->known = new_snapshot();
	make_snapshot(&self->x, self->known, 1, 0);
	self->vm = vm_create_barebones();
	xstate_add_vcpu(&self->x, self->vm, 1 << NR_STEPS);
}

FIXTURE_TEARDOWN(xstate_late_cpuid)
{
	EXPECT_FALSE(xstate_warned(self->taint));
	if (self->vm)
		kvm_vm_free(self->vm);
}

/* Whether a vCPU without CPUID must refuse a step: it has nothing of that yet. */
static bool refused_early(const struct snapshot *s, enum step step)
{
	u32 i;

	switch (step) {
	case STEP_XSAVE:
		return s->bv & XFD_TILE;
	case STEP_XCRS:
		return s->xcr0 != XF_BIT(XF_FP);
	case STEP_MSRS:
		for (i = 0; i < s->nr_msrs; i++)
			if (s->msrs[i].data)
				return true;
		return false;
	default:
		return s->has_ssp;
	}
}

/* Take out of @s what a refused step has not set: what it would be at reset. */
static void without_step(struct snapshot *s, enum step step)
{
	u32 i;

	switch (step) {
	case STEP_XSAVE:
		s->bv = 0;
		break;
	case STEP_XCRS:
		s->xcr0 = XF_BIT(XF_FP);
		break;
	case STEP_MSRS:
		for (i = 0; i < s->nr_msrs; i++)
			s->msrs[i].data = 0;
		break;
	default:
		s->ssp = 0;
		break;
	}
}

/* The steps in @early, then CPUID, then the others */
static bool late_cpuid_ok(struct xcomp *x, struct kvm_vm *vm, u32 early,
			  struct snapshot *s)
{
	struct snapshot *wanted = new_snapshot();
	bool refused, ok = true;
	enum step step;
	char what[64];

	snprintf(what, sizeof(what), "steps %#x before KVM_SET_CPUID2", early);
	xarea_copy(wanted, s, sizeof(*s));
	add_bare_vcpu(x, vm, early);
	for (step = 0; step < NR_STEPS; step++) {
		if (!(early & 1u << step))
			continue;
		refused = refused_early(s, step);
		ok &= xarea_same(what, step_names[step], refused ? EINVAL : 0,
				 do_step(x, s, step));
		if (refused)
			without_step(wanted, step);
	}
	ok &= cpuid_taken(x, what);
	for (step = 0; step < NR_STEPS; step++)
		if (!(early & 1u << step))
			ok &= xarea_same(what, step_names[step], 0,
					 do_step(x, s, step));

	/* Whether initial x87 and SSE state counts as in use is up to the CPU. */
	ok &= holds(x, what, wanted, wanted->bv ? ~0ull : ~XF_FPSSE);
	munmap(wanted, sizeof(*wanted));
	return ok;
}

/*
 * Verify what comes of state that is restored before CPUID: that of XSAVE is
 * taken, unless there are tiles, and kept; all else needs CPUID, is refused
 * without, and leaves the vCPU as after reset.
 */
TEST_F(xstate_late_cpuid, after_state)
{
	u32 early;

	if (!xkvm_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	for (early = 0; early < 1 << NR_STEPS; early++)
		EXPECT_TRUE(late_cpuid_ok(&self->x, self->vm, early,
					  self->known));
}

/* Whether the vCPU's CPUID has not changed, nor the size of its XSAVE state */
static bool cpuid_kept(struct xcomp *x, const struct kvm_cpuid2 *before)
{
	static u8 image[XKVM_XSAVE_SIZE];
	struct kvm_cpuid2 *now = xkvm_vcpu_cpuid(x->vcpu);
	int error = ioctl(x->vcpu, KVM_GET_XSAVE, image) ? errno : 0;
	bool same = now && now->nent == before->nent &&
		    !memcmp(now->entries, before->entries,
			    before->nent * sizeof(before->entries[0]));

	if (!same)
		ksft_print_msg("%s: wanted CPUID as it was, got another\n",
			       x->name);
	free(now);
	return xarea_same(x->name, "errno of KVM_GET_XSAVE",
			  xcomp_xsave_size(x) > sizeof(image) ? EINVAL : 0,
			  error) && same;
}

/* Whether KVM_SET_CPUID2 refuses @c, which has @bits changed */
static bool change_refused(struct xcomp *x, const char *what, u32 bits,
			   struct kvm_cpuid2 *c)
{
	int error = ioctl(x->vcpu, KVM_SET_CPUID2, c) ? errno : 0;

	if (error == EINVAL)
		return true;
	ksft_print_msg("%s: KVM_SET_CPUID2, %s, bits %#x changed: wanted %s got %s\n",
		       x->name, what, bits, strerror(EINVAL),
		       error ? strerror(error) : "success");
	return false;
}

/* Offer CPUID with each bit of @mask in one register the other way round. */
static bool changes_refused(struct xcomp *x, const char *what,
			    struct kvm_cpuid2 *c, u32 *reg, u32 mask)
{
	bool ok = true;
	int i;

	for (i = 0; i < 32; i++) {
		if (!(mask & 1u << i))
			continue;
		*reg ^= 1u << i;
		ok &= change_refused(x, what, 1u << i, c);
		*reg ^= 1u << i;
	}
	return ok;
}

/* The same without the entry of one sub-leaf of 0xD, if there is one */
static bool loss_refused(struct xcomp *x, const struct kvm_cpuid2 *before,
			 u32 subleaf)
{
	struct kvm_cpuid2 *c = xkvm_alloc_cpuid();
	bool ok = true;

	memcpy(c, before, sizeof(*c) + before->nent * sizeof(c->entries[0]));
	xkvm_cpuid_drop(c, 0xd, subleaf);
	if (c->nent != before->nent)
		ok = change_refused(x, "no sub-leaf of 0xD", XF_BIT(subleaf), c);
	free(c);
	return ok;
}

/*
 * Verify that once the vCPU has run no bit of its CPUID that AMX, CET or XSAVE
 * depend on can change, neither come nor go, that the attempt costs it nothing,
 * and that the CPUID that it has is still taken.
 */
TEST_F(xstate_late_cpuid, bits_after_run)
{
	struct kvm_cpuid2 *before, *c;
	struct kvm_cpuid_entry2 *e;
	struct xcomp *x = &self->x;
	struct xcomp_guest g;
	u64 value;
	u32 i;

	if (xcomp_guest_missing())
		SKIP(return, "%s", xcomp_guest_missing());
	ASSERT_TRUE(xcomp_guest_start(x, &g));
	ASSERT_EQ(XCOMP_GUEST_DONE,
		  xcomp_guest_rdmsr(x, &g, MSR_IA32_TSC, &value));
	for (i = 0; i < NR_STEPS; i++)
		ASSERT_EQ(0, do_step(x, self->known, i));
	before = xkvm_vcpu_cpuid(x->vcpu);
	c = xkvm_vcpu_cpuid(x->vcpu);
	ASSERT_TRUE(before && c);

	e = xkvm_cpuid_entry(c, 0xd, 0);
	EXPECT_TRUE(changes_refused(x, "0xD.0 EAX", c, &e->eax, ~0u));
	EXPECT_TRUE(changes_refused(x, "0xD.0 EDX", c, &e->edx, ~0u));
	e->eax ^= XF_XTILE;
	EXPECT_TRUE(change_refused(x, "0xD.0 EAX", XF_XTILE, c));
	e->eax ^= XF_XTILE;
	e = xkvm_cpuid_entry(c, 0xd, 1);
	EXPECT_TRUE(changes_refused(x, "0xD.1 EAX", c, &e->eax, ~0u));
	EXPECT_TRUE(changes_refused(x, "0xD.1 ECX", c, &e->ecx, ~0u));
	EXPECT_TRUE(changes_refused(x, "0xD.1 EDX", c, &e->edx, ~0u));
	e = xkvm_cpuid_entry(c, 7, 0);
	EXPECT_TRUE(changes_refused(x, "7.0 ECX", c, &e->ecx,
				    XCOMP_CPUID_7_ECX_SHSTK));
	EXPECT_TRUE(changes_refused(x, "7.0 EDX", c, &e->edx,
				    XCOMP_CPUID_7_EDX_IBT |
				    XCOMP_CPUID_7_EDX_AMX));
	for (i = 0; i < 63; i++)
		EXPECT_TRUE(loss_refused(x, before, i));

	EXPECT_TRUE(cpuid_kept(x, before));
	EXPECT_TRUE(holds(x, "after refused KVM_SET_CPUID2", self->known, ~0ull));
	EXPECT_EQ(0, ioctl(x->vcpu, KVM_SET_CPUID2, c) ? errno : 0);
	EXPECT_TRUE(cpuid_kept(x, before));
	EXPECT_TRUE(holds(x, "after the same KVM_SET_CPUID2", self->known, ~0ull));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
