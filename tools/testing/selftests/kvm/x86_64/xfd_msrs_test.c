// SPDX-License-Identifier: GPL-2.0-only
/*
 * What IA32_XFD and IA32_XFD_ERR of a vCPU take, from host and guest, with AMX
 * and without, and with XFD hidden from the guest.
 *
 * No vCPU here ever has tile data when the host sets a bit of IA32_XFD.
 */
#include "xstate_xfd.h"

#define CPUID_D_1_EAX_XFD	BIT(4)

/* What the guest is told, and the vectors that it meets */
struct guest {
	u64 xcr0;
	u64 values[2];
	u8 vectors[2][2];
	u8 bit_vectors[2][2][64];
};

static struct guest guest;

/* Try each of 64 bits, with bit 18 set and writes passed through or without. */
static void guest_bits_code(void)
{
	struct guest *g = &guest;
	u32 m, i, set;

	guest_enable(g->xcr0);
	for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++) {
		g->vectors[m][0] = rdmsr_safe(xfd_msrs[m], &g->values[m]);
		g->vectors[m][1] = wrmsr_safe(xfd_msrs[m], 0);
	}
	for (set = 0; set < 2; set++) {
		for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++)
			for (i = 0; i < 64; i++)
				g->bit_vectors[set][m][i] =
					wrmsr_safe(xfd_msrs[m], BIT_ULL(i));
		wrmsr_safe(MSR_IA32_XFD, g->xcr0 & XFD_TILE);
	}
	wrmsr_safe(MSR_IA32_XFD_ERR, 0);
	GUEST_DONE();
}

FIXTURE(xfd_msrs) {
	struct xcomp x;
	struct kvm_vm *vm;
	u64 wanted;	/* bits that both MSRs take */
	u64 taint;
};

FIXTURE_VARIANT(xfd_msrs) {
	const char *name;
};

FIXTURE_SETUP(xfd_msrs)
{
	struct xcomp *x = &self->x;

	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (x->perm != XCOMP_NONE && !x->have_amx)
		SKIP(return, "no AMX on this machine");
	self->wanted = x->amx_on ? XFD_TILE : 0;
}

FIXTURE_TEARDOWN(xfd_msrs)
{
	if (self->vm)
		kvm_vm_free(self->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

XSTATE_VARIANT(xfd_msrs, none_noamx_cet);
XSTATE_VARIANT(xfd_msrs, guest_noamx_cet);
XSTATE_VARIANT(xfd_msrs, guest_amx_cet);

/* Take XFD out of @c; false if it is not there. */
static bool hide_xfd(struct kvm_cpuid2 *c)
{
	struct kvm_cpuid_entry2 *e = xkvm_cpuid_entry(c, 0xd, 1);

	TEST_ASSERT(e, "KVM_GET_SUPPORTED_CPUID: no leaf 0xD.1");
	if (!(e->eax & CPUID_D_1_EAX_XFD))
		return false;
	e->eax &= ~CPUID_D_1_EAX_XFD;
	return true;
}

/* Whether each MSR takes the bits of @bits from the host, and no other bit */
static bool host_bits_ok(struct kvm_vcpu *vcpu, u64 bits)
{
	const char *name;
	u64 wanted, old;
	bool ok = true;
	u32 m, i;

	for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++) {
		name = xfd_msr_name(xfd_msrs[m]);
		for (i = 0; i < 64; i++) {
			old = i & 1 ? bits : 0;
			wanted = bits & BIT_ULL(i);
			ok &= xarea_same(name, "earlier value taken", 1,
					 _vcpu_set_msr(vcpu, xfd_msrs[m], old));
			ok &= xarea_same(name, "writes of one bit taken",
					 !!wanted,
					 _vcpu_set_msr(vcpu, xfd_msrs[m],
						       BIT_ULL(i)));
			ok &= xfd_msr_is(vcpu, xfd_msrs[m],
					 "after a write of one bit",
					 wanted ?: old);
		}
		ok &= xarea_same(name, "0 taken", 1,
				 _vcpu_set_msr(vcpu, xfd_msrs[m], 0));
	}
	return ok;
}

/*
 * Verify that both MSRs are 0 after reset, that the host may set bit 18 if the
 * guest has AMX and no other bit ever, and that a refused write changes nothing.
 */
TEST_F(xfd_msrs, host_bits)
{
	struct kvm_vcpu *vcpu;
	u32 m;

	self->vm = vm_create_barebones();
	vcpu = xstate_add_vcpu(&self->x, self->vm, 0);
	for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++)
		EXPECT_TRUE(xfd_msr_is(vcpu, xfd_msrs[m], "after reset", 0));
	EXPECT_TRUE(host_bits_ok(vcpu, self->wanted));
}

/*
 * Verify that the host may do the same where CPUID hides XFD from the guest:
 * what it saved it can restore.
 */
TEST_F(xfd_msrs, host_bits_hidden)
{
	struct kvm_vcpu *vcpu;

	self->vm = vm_create_barebones();
	vcpu = xstate_add_vcpu(&self->x, self->vm, 0);
	if (!hide_xfd(self->x.cpuid))
		SKIP(return, "XFD is not in guest CPUID");
	ASSERT_EQ(0, ioctl(vcpu->fd, KVM_SET_CPUID2, self->x.cpuid));
	EXPECT_TRUE(host_bits_ok(vcpu, self->wanted));
}

/*
 * Verify that INIT leaves both MSRs as they are, whether the fpstate is loaded
 * or not when INIT is taken.
 */
TEST_F(xfd_msrs, init)
{
	struct kvm_mp_state mp_state;
	struct kvm_vcpu *vcpu;
	u32 i, m;

	if (!self->wanted)
		SKIP(return, "the combination has no AMX");
	self->vm = vm_create_barebones();
	__vm_ioctl(self->vm, KVM_CREATE_IRQCHIP, NULL);
	vcpu = xstate_add_vcpu(&self->x, self->vm, 0);
	for (i = 0; i < 4; i++) {
		for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++)
			EXPECT_EQ(1, _vcpu_set_msr(vcpu, xfd_msrs[m],
						   i & 1 ? self->wanted : 0));
		xstate_send_init(vcpu);
		/* There is no memory: the first instruction ends KVM_RUN. */
		if (i & 2)
			__vcpu_run(vcpu);
		vcpu_mp_state_get(vcpu, &mp_state);
		for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++)
			EXPECT_TRUE(xfd_msr_is(vcpu, xfd_msrs[m], "after INIT",
					       i & 1 ? self->wanted : 0));
	}
}

/* Run guest_bits_code(), and return what it found. */
static struct guest *run_guest(struct xcomp *x, struct kvm_vm **vm)
{
	struct kvm_vcpu *vcpu = xstate_guest(x, guest_bits_code);
	struct guest *g = addr_gva2hva(vcpu->vm, (gva_t)&guest);

	*vm = vcpu->vm;
	g->xcr0 = xregs_guest_xcr0(x);
	xstate_run(vcpu, UCALL_DONE);
	return g;
}

/* Whether the guest met a #GP for all bits but those of @bits */
static bool guest_bits_ok(const struct guest *g, u64 bits)
{
	bool ok = true;
	u32 m, i;

	for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++)
		for (i = 0; i < 128; i++)
			ok &= xarea_same(xfd_msr_name(xfd_msrs[m]),
					 "vector of a write of one bit",
					 bits & BIT_ULL(i % 64) ? 0 : GP_VECTOR,
					 g->bit_vectors[i / 64][m][i % 64]);
	return ok;
}

/*
 * Verify the same for the guest: other bits raise #GP, both before and after
 * the first use of IA32_XFD, when KVM stops to intercept the writes.
 */
TEST_F(xfd_msrs, guest_bits)
{
	struct guest *g;
	u32 m;

	if (!(xkvm_cpuid(xcomp_unpermitted, 0xd, 1).eax & CPUID_D_1_EAX_XFD))
		SKIP(return, "XFD is not in guest CPUID");
	g = run_guest(&self->x, &self->vm);
	for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++) {
		EXPECT_EQ(0, g->vectors[m][0]);
		EXPECT_EQ(0, g->vectors[m][1]);
		EXPECT_EQ(0, g->values[m]);
	}
	EXPECT_TRUE(guest_bits_ok(g, self->wanted));
}

/* Verify that a guest whose CPUID hides XFD has neither MSR. */
TEST_F(xfd_msrs, hidden)
{
	struct guest *g;
	u32 m;

	if (!xkvm_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	hide_xfd((struct kvm_cpuid2 *)kvm_get_supported_cpuid());
	g = run_guest(&self->x, &self->vm);
	for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++) {
		EXPECT_TRUE(xarea_same(xfd_msr_name(xfd_msrs[m]),
				       "vector of RDMSR", GP_VECTOR,
				       g->vectors[m][0]));
		EXPECT_TRUE(xarea_same(xfd_msr_name(xfd_msrs[m]),
				       "vector of WRMSR", GP_VECTOR,
				       g->vectors[m][1]));
	}
	EXPECT_TRUE(guest_bits_ok(g, 0));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
