// SPDX-License-Identifier: GPL-2.0-only
/*
 * IA32_XFD_ERR of a guest belongs to that guest: it is saved with the #NM that
 * it explains, however IA32_XFD was changed before, and no other vCPU sees it.
 */
#include "xstate_xfd.h"

/* What one guest is told and what it finds, one for each vCPU */
struct guest {
	u64 xcr0;
	u64 xfd_err;
	u8 vector;
	u8 tilecfg[XSTATE_TILECFG_SIZE];
};

static struct guest guests[2];

/* Between two exits: AMX is switched off, and missed at once. */
static void guest_nm_code(void)
{
	struct guest *g = &guests[0];

	guest_enable(g->xcr0);
	xstate_ldtilecfg(g->tilecfg);
	wrmsr(MSR_IA32_XFD, XFD_TILE);
	for (;;) {
		wrmsr(MSR_IA32_XFD, 0);
		guest_leave();
		wrmsr(MSR_IA32_XFD, XFD_TILE);
		g->vector = kvm_asm_safe("tilezero %%tmm0");
		guest_leave();
		g->xfd_err = rdmsr(MSR_IA32_XFD_ERR);
		wrmsr(MSR_IA32_XFD_ERR, 0);
	}
}

static void guest_watch_code(void)
{
	struct guest *g = &guests[1];

	for (;;) {
		g->xfd_err = rdmsr(MSR_IA32_XFD_ERR);
		guest_leave();
	}
}

FIXTURE(xfd_err) {
	struct xcomp x;
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[2];
	struct guest *guests;
	u64 taint;
};

FIXTURE_SETUP(xfd_err)
{
	struct xcomp *x = &self->x;

	ASSERT_TRUE(xstate_begin(x, "guest_amx_cet"));
	if (!x->amx_on)
		SKIP(return, "no AMX on this machine");
	self->taint = xf_taint();
	xstate_libkvm_cpuid(x);
	self->vm = vm_create_with_vcpus(2, guest_nm_code, self->vcpus);
	vcpu_arch_set_entry_point(self->vcpus[1], guest_watch_code);
	xstate_enable(x, self->vcpus[1]);
	xstate_enable(x, self->vcpus[0]);
	self->guests = addr_gva2hva(self->vm, (gva_t)&guests);
	self->guests->xcr0 = xregs_guest_xcr0(x);
	xstate_tile_config(self->guests->tilecfg);
}

FIXTURE_TEARDOWN(xfd_err)
{
	EXPECT_FALSE(xstate_warned(self->taint));
	if (self->vm)
		kvm_vm_free(self->vm);
}

static bool xfd_err_is(struct kvm_vcpu *vcpu, const char *when, u64 wanted)
{
	return xarea_same("IA32_XFD_ERR", when, wanted,
			  vcpu_get_msr(vcpu, MSR_IA32_XFD_ERR));
}

/*
 * Verify that a #NM which comes with no exit after the change of IA32_XFD that
 * causes it leaves IA32_XFD_ERR for the host and the guest to read, and that a
 * vCPU which runs next on the same CPU has 0 there.
 */
TEST_F(xfd_err, own)
{
	struct kvm_vcpu *nm = self->vcpus[0], *watch = self->vcpus[1];
	struct guest *g = self->guests;
	u32 i;

	for (i = 0; i < 4; i++) {
		xregs_run(nm);
		EXPECT_TRUE(!i || xarea_same("IA32_XFD_ERR",
					     "as the guest reads it", XFD_TILE,
					     g[0].xfd_err));
		EXPECT_TRUE(xfd_err_is(nm, "cleared by the guest", 0));
		xregs_run(nm);
		EXPECT_EQ(NM_VECTOR, g[0].vector);
		EXPECT_TRUE(xfd_err_is(nm, "after #NM", XFD_TILE));
		g[1].xfd_err = ~0ull;
		xregs_run(watch);
		EXPECT_TRUE(xarea_same("IA32_XFD_ERR", "of another guest", 0,
				       g[1].xfd_err));
		EXPECT_TRUE(xfd_err_is(watch, "of another vCPU", 0));
		EXPECT_TRUE(xfd_err_is(nm, "after another vCPU ran",
				       XFD_TILE));
	}
}

/* Verify that KVM lists both MSRs for saving. */
TEST_F(xfd_err, listed)
{
	EXPECT_TRUE(kvm_msr_is_in_save_restore_list(MSR_IA32_XFD));
	EXPECT_TRUE(kvm_msr_is_in_save_restore_list(MSR_IA32_XFD_ERR));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
