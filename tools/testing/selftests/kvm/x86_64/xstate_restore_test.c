// SPDX-License-Identifier: GPL-2.0-only
/*
 * Save AMX, CET and XSAVE state of one vCPU and restore it into another one.
 *
 * VMMs restore XSAVE state, XCR0, MSRs and registers in different orders, all
 * after CPUID; each order must give the same vCPU.
 *
 * Never restore IA32_XFD with bit 18 set after an image with tile data.
 */
#include "xstate_snapshot.h"

/* A new vCPU, and @s restored into it in the order of @steps */
static bool restore_ok(struct xcomp *x, struct kvm_vm *vm, int id,
		       struct snapshot *s, const enum step *steps)
{
	char what[128];
	bool ok;
	int i;

	snprintf(what, sizeof(what), "%s, %s, %s, %s", step_names[steps[0]],
		 step_names[steps[1]], step_names[steps[2]],
		 step_names[steps[3]]);
	add_bare_vcpu(x, vm, id);
	ok = cpuid_taken(x, what);
	for (i = 0; i < NR_STEPS; i++)
		ok &= xarea_same(what, step_names[steps[i]], 0,
				 do_step(x, s, steps[i]));
	return ok && holds(x, what, s, ~0ull);
}

/* Every order of the steps, each into a vCPU of its own, in a new VM */
static bool every_order_ok(struct xcomp *x, struct snapshot *s)
{
	struct kvm_vm *vm = vm_create_barebones();
	enum step steps[NR_STEPS];
	bool ok = true;
	u32 n, used, i;

	xstate_add_vcpu(x, vm, 256);
	for (n = 0; n < 256; n++) {
		used = 0;
		for (i = 0; i < NR_STEPS; i++) {
			steps[i] = n >> (2 * i) & 3;
			used |= 1u << steps[i];
		}
		if (used == 15)
			ok &= restore_ok(x, vm, n, s, steps);
	}
	kvm_vm_free(vm);
	return ok;
}

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
 * Verify the same for a vCPU with bit 18 of IA32_XFD set. Its image has no
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

/*
 * Load all registers; find them again in what is another VM by then. Twice: the
 * host restores in another order the second time.
 */
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
	for (;;)
		guest_live(&guest);
}

/* XSAVE before XCR0 and MSRs, as most VMMs have it and libkvm does not */
static void load_xsave_first(struct kvm_vcpu *vcpu, struct kvm_x86_state *state)
{
	vcpu_sregs_set(vcpu, &state->sregs);
	vcpu_xsave_set(vcpu, state->xsave);
	vcpu_xcrs_set(vcpu, &state->xcrs);
	vcpu_msrs_set(vcpu, &state->msrs);
	vcpu_events_set(vcpu, &state->events);
	vcpu_mp_state_set(vcpu, &state->mp_state);
	vcpu_regs_set(vcpu, &state->regs);
}

/* Run @vcpu up to its exit with live registers; go on with them in a new VM. */
static struct kvm_vcpu *
move_guest(struct kvm_vcpu *vcpu, u32 seed,
	   void (*load)(struct kvm_vcpu *vcpu, struct kvm_x86_state *state))
{
	struct guest *g = addr_gva2hva(vcpu->vm, (gva_t)&guest);
	struct kvm_x86_state *state;

	xregs_fill(&g->regs, seed);
	xregs_run(vcpu);

	state = vcpu_save_state(vcpu);
	kvm_vm_release(vcpu->vm);
	vcpu = vm_recreate_with_one_vcpu(vcpu->vm);
	load(vcpu, state);
	kvm_x86_state_cleanup(state);

	xregs_run(vcpu);
	return vcpu;
}

static bool guest_has(struct kvm_vcpu *vcpu, const char *what)
{
	struct guest *g = addr_gva2hva(vcpu->vm, (gva_t)&guest);
	u64 all = g->xcr0 | g->xss;

	return xarea_same(what, "XSTATE_BV of XSAVES", all,
			  xarea_header(g->area, 0)) &&
	       xarea_has(what, g->area, &g->regs, all, all | XF_COMPACTED);
}

/*
 * Verify that a guest goes on in a new VM with all its registers: AVX-512,
 * PKRU, tiles and CET, restored with XSAVE last or first. IA32_XFD is 0 all the
 * time.
 */
TEST_F(xstate_restore, guest)
{
	struct xcomp *x = &self->x;
	struct kvm_vcpu *vcpu;
	struct guest *g;

	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	vcpu = xstate_guest(x, guest_code);
	g = addr_gva2hva(vcpu->vm, (gva_t)&guest);
	g->xcr0 = xregs_guest_xcr0(x);
	g->xss = x->shstk_on ? xregs_mask(xcomp_guest_xss(x)) : 0;

	vcpu = move_guest(vcpu, 3, vcpu_load_state);
	EXPECT_TRUE(guest_has(vcpu, "restored with XSAVE last"));
	vcpu = move_guest(vcpu, 4, load_xsave_first);
	EXPECT_TRUE(guest_has(vcpu, "restored with XSAVE first"));
	kvm_vm_free(vcpu->vm);
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
