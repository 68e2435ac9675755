// SPDX-License-Identifier: GPL-2.0-only
/*
 * What CPUID says and what it does: AMX is offered with all that belongs to it,
 * components that KVM does not know have no effect, the sizes follow XCR0 and
 * IA32_XSS, and a vCPU that has run keeps its CPUID and with it its fpstate.
 */
#include "xstate_util.h"
#include "../../x86/xcomp_vcpu_checks.h"

#define CPUID_AMX_PALETTES	0x1d
#define CPUID_AMX_TMUL		0x1e

FIXTURE(xstate_cpuid) {
	struct xcomp x;
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	uint64_t taint;
};

FIXTURE_VARIANT(xstate_cpuid) {
	const char *name;
};

FIXTURE_SETUP(xstate_cpuid)
{
	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(&self->x, variant->name));
	if (self->x.perm != XCOMP_NONE && !self->x.have_amx)
		SKIP(return, "no AMX on this machine");
	self->vm = vm_create_barebones();
	self->vcpu = xstate_add_vcpu(&self->x, self->vm, 0);
}

FIXTURE_TEARDOWN(xstate_cpuid)
{
	if (self->vm)
		kvm_vm_free(self->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

XSTATE_VARIANT(xstate_cpuid, none_noamx_cet);
XSTATE_VARIANT(xstate_cpuid, guest_noamx_cet);
XSTATE_VARIANT(xstate_cpuid, guest_amx_cet);
XSTATE_VARIANT(xstate_cpuid, guest_amx_nocet);

/*
 * Verify that guests are offered those variants of XSAVE and XGETBV that the
 * host uses. XSAVES takes more than the CPU and the host.
 */
TEST_F(xstate_cpuid, variants)
{
	static const struct {
		const char *flag;
		int bit;
	} rows[] = { { "xsaveopt", 0 }, { "xsavec", 1 }, { "xgetbv1", 2 } };
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->x.kvm);
	unsigned int i;

	ASSERT_NE(NULL, c);
	for (i = 0; i < ARRAY_SIZE(rows); i++)
		EXPECT_TRUE(xcomp_same(&self->x, rows[i].flag,
				       xf_cpuinfo_flag(rows[i].flag),
				       !!(xkvm_cpuid(c, 0xd, 1).eax &
					  XF_BIT(rows[i].bit))));
}

/* Whether the offered leaf has in @mask of its EDX what the CPU has */
static bool same_edx(struct xcomp *x, struct kvm_cpuid2 *c, uint32_t leaf,
		     uint32_t mask)
{
	char what[64];

	snprintf(what, sizeof(what), "CPUID.(%#x,0).EDX", leaf);
	return xcomp_same(x, what, xf_cpuid(leaf, 0).edx & mask,
			  xkvm_cpuid(c, leaf, 0).edx & mask);
}

/*
 * Verify that where the host uses XTILE_DATA, guests are offered the rest of
 * AMX as the CPU has it: instructions, IA32_XFD, palettes. Where the host does
 * not they are offered no palette.
 */
TEST_F(xstate_cpuid, amx_is_complete)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->x.kvm);
	struct xf_regs wanted = { 0 }, got;
	struct xcomp *x = &self->x;
	uint32_t i;

	ASSERT_NE(NULL, c);
	if (x->have_amx) {
		EXPECT_TRUE(same_edx(x, c, 7, XCOMP_CPUID_7_EDX_AMX));
		EXPECT_EQ(XCOMP_CPUID_D_1_EAX_XFD,
			  xkvm_cpuid(c, 0xd, 1).eax & XCOMP_CPUID_D_1_EAX_XFD);
		EXPECT_EQ(xf_cpuid(CPUID_AMX_TMUL, 0).ebx,
			  xkvm_cpuid(c, CPUID_AMX_TMUL, 0).ebx);
	}
	for (i = 0; i < 2; i++) {
		if (x->have_amx)
			wanted = xf_cpuid(CPUID_AMX_PALETTES, i);
		got = xkvm_cpuid(c, CPUID_AMX_PALETTES, i);
		EXPECT_EQ(0, memcmp(&wanted, &got, sizeof(got))) {
			ksft_print_msg("%s: CPUID.(0x1d,%u): wanted %#x %#x %#x got %#x %#x %#x\n",
				       x->name, i, wanted.eax, wanted.ebx,
				       wanted.ecx, got.eax, got.ebx, got.ecx);
		}
	}
	free(c);
}

/*
 * Verify that a CPUID with each and every component in it, less XTILE_DATA
 * where it needs a permission, lets XCR0 take none that KVM does not know.
 */
TEST_F(xstate_cpuid, unknown_components)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->x.kvm);
	uint64_t known = xcomp_known_xcr0(&self->x);
	struct xcomp *x = &self->x;
	struct kvm_cpuid_entry2 *e;
	int i;

	ASSERT_NE(NULL, c);
	xcomp_shape_cpuid(x, c, x->amx_on);
	e = xkvm_cpuid_entry(c, 0xd, 0);
	e->eax = ~(x->amx_on ? 0 : (uint32_t)XF_XTILE);
	e->edx = ~0u;
	ASSERT_EQ(0, ioctl(x->vcpu, KVM_SET_CPUID2, c));
	ASSERT_TRUE(xstate_fill(x, 0));
	for (i = 0; i < 64; i++) {
		if (known & XF_BIT(i))
			continue;
		EXPECT_FALSE(xkvm_set_xcr0(x->vcpu, xcomp_guest_xcr0(x) |
						    XF_BIT(i))) {
			ksft_print_msg("%s: XCR0 bit %d taken\n", x->name, i);
		}
	}
	EXPECT_TRUE(xstate_kept(x, 0, "refused bits of XCR0"));
	free(c);
}

/* Verify that XSAVEC alone is enough for the compacted size to follow XCR0. */
TEST_F(xstate_cpuid, size_for_xsavec)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->x.kvm);
	struct xcomp *x = &self->x;
	uint64_t xcr0[] = { XF_BIT(XF_FP), xcomp_guest_xcr0(x) };
	struct kvm_cpuid_entry2 *e;
	unsigned int i;

	ASSERT_NE(NULL, c);
	xcomp_shape_cpuid(x, c, x->amx_on);
	e = xkvm_cpuid_entry(c, 0xd, 1);
	if (!e || !(e->eax & XCOMP_CPUID_D_1_EAX_XSAVEC))
		SKIP(return, "XSAVEC is not in guest CPUID");
	e->eax &= ~XCOMP_CPUID_D_1_EAX_XSAVES;
	ASSERT_EQ(0, ioctl(x->vcpu, KVM_SET_CPUID2, c));
	free(c);
	for (i = 0; i < ARRAY_SIZE(xcr0); i++) {
		ASSERT_TRUE(xkvm_set_xcr0(x->vcpu, xcr0[i]));
		c = xkvm_vcpu_cpuid(x->vcpu);
		ASSERT_NE(NULL, c);
		EXPECT_EQ(xf_compacted_size(xcr0[i]),
			  xkvm_cpuid(c, 0xd, 1).ebx);
		free(c);
	}
}

/*
 * Verify that x87 and SSE state of a vCPU without XSAVE in CPUID, or without
 * any CPUID, comes back from KVM_GET_XSAVE2.
 */
TEST_F(xstate_cpuid, no_xsave)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->x.kvm);
	struct xcomp *x = &self->x, bare = *x;
	uint8_t *image, *got;
	unsigned int i;

	ASSERT_NE(NULL, c);
	for (i = 0; i < 64; i++)
		xkvm_cpuid_drop(c, 0xd, i);
	bare.amx_on = false;
	image = xstate_image(&bare, XF_FPSSE, 1);
	for (i = 0; i < 2; i++) {
		bare.vcpu = __vm_vcpu_add(self->vm, i + 1)->fd;
		if (i)
			ASSERT_EQ(0, ioctl(bare.vcpu, KVM_SET_CPUID2, c));
		ASSERT_EQ(0, ioctl(bare.vcpu, KVM_SET_XSAVE, image));
		got = xstate_read_image(&bare);
		EXPECT_EQ(XF_FPSSE, xstate_bv(got));
		EXPECT_TRUE(xstate_same_component(image, got, XF_FP));
		EXPECT_TRUE(xstate_same_component(image, got, XF_SSE));
	}
	free(c);
}

/* Whether KVM refuses another CPUID, and the vCPU keeps all that it has */
static bool refused(struct xcomp *x, struct kvm_cpuid2 *c, const char *what)
{
	struct kvm_cpuid2 *before = xkvm_vcpu_cpuid(x->vcpu), *after;
	bool ok;

	ok = xcomp_same_errno(x, what, EINVAL,
			      ioctl(x->vcpu, KVM_SET_CPUID2, c) ? errno : 0);
	after = xkvm_vcpu_cpuid(x->vcpu);
	ok &= xcomp_same_cpuid(x, before, after);
	free(before);
	free(after);
	return ok && xstate_kept(x, 0, what);
}

/*
 * Verify that once the vCPU has run, KVM_SET_CPUID2 takes the CPUID that it
 * has, whatever its XCR0 and IA32_XSS are meanwhile, and no other: neither one
 * with AMX added or taken away nor one with a different CET. Nothing is lost,
 * least of all the fpstate to one that might have grown.
 */
TEST_F(xstate_cpuid, after_run)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->x.kvm);
	struct xcomp *x = &self->x, other = *x;

	/* It takes an entry to the guest to have run. */
	if (xf_param("kvm_intel", "ept") == 'N')
		SKIP(return, "without EPT, KVM emulates a guest in real mode");
	/* There is no memory: the first instruction ends KVM_RUN. */
	__vcpu_run(self->vcpu);
	ASSERT_NE(KVM_EXIT_INTR, self->vcpu->run->exit_reason);

	ASSERT_TRUE(xkvm_set_xcr0(x->vcpu, XF_BIT(XF_FP)));
	EXPECT_EQ(0, ioctl(x->vcpu, KVM_SET_CPUID2, x->cpuid));
	ASSERT_TRUE(xstate_fill(x, 0));
	EXPECT_EQ(0, ioctl(x->vcpu, KVM_SET_CPUID2, x->cpuid));
	EXPECT_TRUE(xstate_kept(x, 0, "the same KVM_SET_CPUID2 after a run"));

	ASSERT_NE(NULL, c);
	xcomp_shape_cpuid(x, c, !x->amx_on);
	EXPECT_TRUE(refused(x, c, "KVM_SET_CPUID2 with another AMX"));
	free(c);
	c = xkvm_supported_cpuid(x->kvm);
	ASSERT_NE(NULL, c);
	other.shstk = !x->shstk;
	xcomp_shape_cpuid(&other, c, x->amx_on);
	EXPECT_TRUE(refused(x, c, "KVM_SET_CPUID2 with another CET"));
	free(c);
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
