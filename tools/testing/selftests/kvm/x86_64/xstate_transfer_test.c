// SPDX-License-Identifier: GPL-2.0-only
/*
 * Restore AMX, CET and XSAVE state into a vCPU unlike the one it was saved from.
 *
 * The source lives in another process, with permissions of its own. A target
 * that cannot take a part of the state must refuse it, and be left with what
 * it had.
 */
#include <sys/wait.h>

#include "xstate_snapshot.h"

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

/* Write each MSR of the source; a refused one must not reach the target. */
static bool msrs_ok(struct xcomp *x, struct snapshot *from,
		    struct snapshot *had)
{
	struct kvm_msr_entry *e, *h;
	bool fits, ok = true;

	for (e = from->msrs; e < from->msrs + from->nr_msrs; e++) {
		fits = msr_fits(x, e);
		ok &= xarea_same(xf_msr_name(e->index), "KVM_SET_MSRS took",
				 fits, xkvm_set_msr(x->vcpu, e->index, e->data));
		for (h = had->msrs; h < had->msrs + had->nr_msrs; h++)
			if (h->index == e->index && fits)
				h->data = e->data;
	}
	return ok;
}

/*
 * Verify that XCR0 is taken if guest CPUID has all of it, each MSR if the
 * target has it, the shadow stack pointer if it has shadow stacks; and that
 * what is refused leaves the target with all it had.
 */
TEST_F(xstate_transfer, registers)
{
	struct snapshot *from = self->from, *had = self->had;
	bool fits = !(from->xcr0 & ~xcomp_guest_xcr0(&self->x));

	if (from->has_ssp && !self->x.shstk_on && !xkvm_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	EXPECT_TRUE(xarea_same("KVM_SET_XCRS", "errno", fits ? 0 : EINVAL,
			       do_step(&self->x, from, STEP_XCRS)));
	had->xcr0 = fits ? from->xcr0 : had->xcr0;
	EXPECT_TRUE(holds(&self->x, "after KVM_SET_XCRS", had, ~0ull));

	EXPECT_TRUE(msrs_ok(&self->x, from, had));
	EXPECT_TRUE(holds(&self->x, "after KVM_SET_MSRS", had, ~0ull));

	fits = self->x.shstk_on || !from->has_ssp;
	EXPECT_TRUE(xarea_same("KVM_SET_ONE_REG of SSP", "errno",
			       fits ? 0 : EINVAL,
			       do_step(&self->x, from, STEP_REG)));
	if (had->has_ssp && from->has_ssp)
		had->ssp = from->ssp;
	EXPECT_TRUE(holds(&self->x, "after KVM_SET_ONE_REG", had, ~0ull));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
