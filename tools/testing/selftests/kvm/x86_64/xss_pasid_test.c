// SPDX-License-Identifier: GPL-2.0-only
/*
 * IA32_XSS takes exactly the supervisor components that the guest's CPUID and
 * KVM have, CET_USER and CET_KERNEL or none. PASID is not one of them: it is
 * part of the host's, and even of the guest's fpstate, but neither the host nor
 * the guest may reach it through KVM, whatever was permitted.
 */
#include "xstate_util.h"

#define MSR_PASID	0xd93
#define PASID_VALID	XF_BIT(31)

/* A VM of a combination */
struct fixture {
	struct xcomp x;
	struct kvm_vm *vm;
	uint64_t taint;
};

FIXTURE(xss_pasid) {
	struct fixture f;
};

FIXTURE_VARIANT(xss_pasid) {
	const char *name;
};

/* Not yet a vCPU; false if the combination or its MSRs cannot be tested. */
static bool set_up(struct __test_metadata *_metadata, struct fixture *f,
		   const char *name)
{
	f->taint = xf_taint();
	if (!xstate_begin(&f->x, name)) {
		EXPECT_TRUE(false);
		return false;
	}
	if (f->x.perm != XCOMP_NONE && !f->x.have_amx)
		SKIP(return false, "no AMX on this machine");
	if (!xkvm_refuses_msrs())
		SKIP(return false, "ignore_msrs hides what is refused");
	return true;
}

static void tear_down(struct __test_metadata *_metadata, struct fixture *f)
{
	if (f->vm)
		kvm_vm_free(f->vm);
	EXPECT_FALSE(xstate_warned(f->taint));
}

FIXTURE_SETUP(xss_pasid)
{
	if (!set_up(_metadata, &self->f, variant->name))
		return;
	self->f.vm = vm_create_barebones();
	xstate_add_vcpu(&self->f.x, self->f.vm, 0);
}

FIXTURE_TEARDOWN(xss_pasid)
{
	tear_down(_metadata, &self->f);
}

XSTATE_VARIANT(xss_pasid, none_noamx_nocet);
XSTATE_VARIANT(xss_pasid, none_noamx_shstk);
XSTATE_VARIANT(xss_pasid, none_noamx_ibt);
XSTATE_VARIANT(xss_pasid, host_noamx_cet);
XSTATE_VARIANT(xss_pasid, guest_noamx_cet);
XSTATE_VARIANT(xss_pasid, guest_amx_cet);
XSTATE_VARIANT(xss_pasid, both_amx_nocet);

/* The same, and a guest that runs */
FIXTURE(xss_pasid_guest) {
	struct fixture f;
	struct kvm_vcpu *vcpu;
};

FIXTURE_VARIANT(xss_pasid_guest) {
	const char *name;
};

FIXTURE_SETUP(xss_pasid_guest)
{
	if (!set_up(_metadata, &self->f, variant->name))
		return;
	self->vcpu = xstate_guest(&self->f.x, NULL);
	self->f.vm = self->vcpu->vm;
}

FIXTURE_TEARDOWN(xss_pasid_guest)
{
	tear_down(_metadata, &self->f);
}

XSTATE_VARIANT(xss_pasid_guest, none_noamx_nocet);
XSTATE_VARIANT(xss_pasid_guest, none_noamx_shstk);
XSTATE_VARIANT(xss_pasid_guest, none_noamx_ibt);
XSTATE_VARIANT(xss_pasid_guest, guest_amx_cet);

static bool kvm_has_xsaves(void)
{
	return xkvm_cpuid(xcomp_unpermitted, 0xd, 1).eax &
	       XCOMP_CPUID_D_1_EAX_XSAVES;
}

/*
 * Verify that the host may set exactly those bits of IA32_XSS that CPUID has,
 * each alone and all at once, and that a refused write changes nothing.
 */
TEST_F(xss_pasid, host_bits)
{
	uint64_t allowed = xcomp_guest_xss(&self->f.x), wanted = 0;
	int i, vcpu = self->f.x.vcpu;

	/* Without any such bit the MSR need not be there for the host. */
	if (allowed)
		EXPECT_EQ(0, xstate_msr(&self->f.x, XF_MSR_XSS));
	for (i = 0; i < 64; i++) {
		if (allowed & XF_BIT(i))
			wanted = XF_BIT(i);
		EXPECT_EQ(!!(allowed & XF_BIT(i)),
			  xkvm_set_msr(vcpu, XF_MSR_XSS, XF_BIT(i))) {
			ksft_print_msg("IA32_XSS bit %d by the host\n", i);
		}
		if (allowed)
			EXPECT_EQ(wanted, xstate_msr(&self->f.x, XF_MSR_XSS));
	}
	if (!allowed)
		return;
	EXPECT_TRUE(xkvm_set_msr(vcpu, XF_MSR_XSS, allowed));
	for (i = 0; i < 64; i++)
		if (!(allowed & XF_BIT(i)))
			EXPECT_FALSE(xkvm_set_msr(vcpu, XF_MSR_XSS,
						  allowed | XF_BIT(i)));
	EXPECT_EQ(allowed, xstate_msr(&self->f.x, XF_MSR_XSS));
}

static void guest_try_pasid(void)
{
	u8 vector;
	u64 value;

	vector = rdmsr_safe(MSR_PASID, &value);
	__GUEST_ASSERT(vector == GP_VECTOR,
		       "RDMSR of IA32_PASID: wanted #GP got %u", vector);
	vector = wrmsr_safe(MSR_PASID, PASID_VALID | 1);
	__GUEST_ASSERT(vector == GP_VECTOR,
		       "WRMSR of IA32_PASID: wanted #GP got %u", vector);
	vector = wrmsr_safe(XF_MSR_XSS, XF_BIT(XF_PASID));
	__GUEST_ASSERT(vector == GP_VECTOR,
		       "PASID in IA32_XSS: wanted #GP got %u", vector);
}

static void guest_pasid_code(void)
{
	guest_try_pasid();
	GUEST_DONE();
}

/* What the guest may set in IA32_XSS, and whether it has the MSR at all */
static u64 guest_xss;
static bool guest_has_xss;

static void guest_xss_code(void)
{
	u8 vector, wanted;
	u64 value;
	int i;

	vector = rdmsr_safe(XF_MSR_XSS, &value);
	__GUEST_ASSERT(vector == (guest_has_xss ? 0 : GP_VECTOR),
		       "RDMSR of IA32_XSS: got vector %u", vector);
	for (i = 0; i < 64; i++) {
		wanted = guest_has_xss && (guest_xss & XF_BIT(i)) ?
			 0 : GP_VECTOR;
		vector = wrmsr_safe(XF_MSR_XSS, XF_BIT(i));
		__GUEST_ASSERT(vector == wanted,
			       "IA32_XSS bit %u: wanted vector %u got %u", i,
			       wanted, vector);
	}
	GUEST_SYNC(0);
	guest_try_pasid();
	if (guest_has_xss) {
		wrmsr(XF_MSR_XSS, guest_xss);
		vector = wrmsr_safe(XF_MSR_XSS,
				    guest_xss | XF_BIT(XF_PASID));
		__GUEST_ASSERT(vector == GP_VECTOR,
			       "PASID on top in IA32_XSS: wanted #GP got %u",
			       vector);
		value = rdmsr(XF_MSR_XSS);
		__GUEST_ASSERT(value == guest_xss,
			       "IA32_XSS: wanted %lx got %lx", guest_xss,
			       value);
	}
	GUEST_DONE();
}

/*
 * Verify that the guest may set the same bits, and gets #GP for others and for
 * IA32_PASID.
 */
TEST_F(xss_pasid_guest, guest_bits)
{
	struct xcomp *x = &self->f.x;

	guest_xss = xcomp_guest_xss(x);
	guest_has_xss = kvm_has_xsaves();
	sync_global_to_guest(self->vcpu->vm, guest_xss);
	sync_global_to_guest(self->vcpu->vm, guest_has_xss);
	vcpu_arch_set_entry_point(self->vcpu, guest_xss_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	if (guest_xss)
		EXPECT_EQ(XF_BIT(XF_CET_KERNEL), xstate_msr(x, XF_MSR_XSS));
	xstate_run(self->vcpu, UCALL_DONE);
	if (guest_xss)
		EXPECT_EQ(guest_xss, xstate_msr(x, XF_MSR_XSS));
}

/* Whether KVM_GET_MSR_INDEX_LIST has @msr */
static bool is_listed(struct xcomp *x, uint32_t msr)
{
	struct {
		struct kvm_msr_list head;
		uint32_t indices[1024];
	} list = { .head.nmsrs = 1024 };
	uint32_t i;

	TEST_ASSERT(!ioctl(x->kvm, KVM_GET_MSR_INDEX_LIST, &list),
		    "KVM_GET_MSR_INDEX_LIST: wanted success got %s",
		    strerror(errno));
	for (i = 0; i < list.head.nmsrs; i++)
		if (list.indices[i] == msr)
			return true;
	return false;
}

/*
 * Verify that KVM lists IA32_XSS for saving if a bit of it can be set, and that
 * CPUID offers CET_USER and CET_KERNEL with all that belongs to them, or
 * nothing. It does not depend on the permission.
 */
TEST_F(xss_pasid, offered)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->f.x.kvm);
	uint64_t xss = xcomp_offered_xss();
	struct xf_regs r, cpu;
	int i;

	ASSERT_NE(NULL, c);
	EXPECT_EQ(!!xss, is_listed(&self->f.x, XF_MSR_XSS));
	r = xkvm_cpuid(c, 0xd, 1);
	EXPECT_EQ(xss, (uint64_t)r.edx << 32 | r.ecx);
	for (i = XF_PASID; i <= XF_CET_KERNEL; i++) {
		r = xkvm_cpuid(c, 0xd, i);
		cpu = xf_cpuid(0xd, i);
		EXPECT_EQ(xss & XF_BIT(i) ? cpu.eax : 0, r.eax);
		EXPECT_EQ(0, r.ebx);
		EXPECT_EQ(xss & XF_BIT(i) ? cpu.ecx : 0, r.ecx);
	}
	free(c);
}

/*
 * Verify that PASID is offered to no guest: no ENQCMD, no component, no MSR,
 * and that the host can neither read nor write the MSR for the guest.
 */
TEST_F(xss_pasid, pasid_not_offered)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->f.x.kvm);
	int vcpu = self->f.x.vcpu;
	uint64_t supp, value;

	ASSERT_NE(NULL, c);
	EXPECT_EQ(0, xkvm_cpuid(c, 7, 0).ecx & XCOMP_CPUID_7_ECX_ENQCMD);
	EXPECT_EQ(0, xkvm_cpuid(c, 0xd, 1).ecx & XF_BIT(XF_PASID));
	EXPECT_EQ(0, xkvm_cpuid(c, 0xd, XF_PASID).eax);
	ASSERT_EQ(0, xkvm_guest_supp(self->f.x.kvm, &supp));
	EXPECT_EQ(0, supp & XF_NEVER);
	EXPECT_FALSE(is_listed(&self->f.x, MSR_PASID));
	EXPECT_FALSE(xkvm_get_msr(vcpu, MSR_PASID, &value));
	EXPECT_FALSE(xkvm_set_msr(vcpu, MSR_PASID, 0));
	EXPECT_FALSE(xkvm_set_msr(vcpu, MSR_PASID, PASID_VALID | 1));
	free(c);
}

/* Put into CPUID all that would announce PASID. */
static void stuff_pasid(struct kvm_cpuid2 *c)
{
	struct kvm_cpuid_entry2 *e;

	xkvm_cpuid_entry(c, 7, 0)->ecx |= XCOMP_CPUID_7_ECX_ENQCMD;
	e = xkvm_cpuid_entry(c, 0xd, 1);
	if (e)
		e->ecx |= XF_BIT(XF_PASID);
	e = &c->entries[c->nent++];
	memset(e, 0, sizeof(*e));
	e->function = 0xd;
	e->index = XF_PASID;
	e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
	e->eax = 8;
	e->ecx = 1;
}

/*
 * Verify that a guest CPUID with ENQCMD and PASID in it has no effect: neither
 * the host nor the guest can set the bit or use the MSR, and CET still works.
 */
TEST_F(xss_pasid_guest, pasid_stuffed)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->f.x.kvm);
	struct xcomp *x = &self->f.x;
	int vcpu = self->vcpu->fd;
	uint64_t value;

	ASSERT_NE(NULL, c);
	xcomp_shape_cpuid(x, c, x->amx_on);
	stuff_pasid(c);
	ASSERT_EQ(0, ioctl(vcpu, KVM_SET_CPUID2, c));

	EXPECT_FALSE(xkvm_set_msr(vcpu, XF_MSR_XSS, XF_BIT(XF_PASID)));
	EXPECT_FALSE(xkvm_set_msr(vcpu, MSR_PASID, PASID_VALID | 1));
	EXPECT_FALSE(xkvm_get_msr(vcpu, MSR_PASID, &value));
	ASSERT_TRUE(xstate_fill(x, 0));
	vcpu_arch_set_entry_point(self->vcpu, guest_pasid_code);
	xstate_run(self->vcpu, UCALL_DONE);
	EXPECT_TRUE(xstate_cet_kept(x, 0, "a guest that tried for PASID"));
	free(c);
}

/*
 * Verify that KVM_SET_XSAVE refuses each supervisor component, alone or with
 * those of the user, and that KVM_GET_XSAVE2 shows none.
 */
TEST_F(xss_pasid, supervisor_in_image)
{
	struct xcomp *x = &self->f.x;
	uint64_t bv;
	uint8_t *image;
	int i;

	ASSERT_TRUE(xstate_fill(x, 0));
	for (i = 0; i < 64; i++) {
		if (!(XF_NEVER & XF_BIT(i)))
			continue;
		image = xstate_image(x, xstate_filled(x), 1);
		bv = xstate_bv(image) | XF_BIT(i);
		memcpy(image + XF_HEADER_OFFSET, &bv, sizeof(bv));
		EXPECT_EQ(-1, ioctl(x->vcpu, KVM_SET_XSAVE, image)) {
			ksft_print_msg("%s: XSTATE_BV bit %d\n", x->name, i);
		}
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_TRUE(xstate_kept(x, 0, "refused supervisor components"));
	EXPECT_EQ(0, xstate_bv(xstate_read_image(x)) & XF_NEVER);
}

/*
 * Verify that without XSAVES in its CPUID neither the guest nor the host can
 * set a bit of IA32_XSS, although KVM knows the MSR.
 */
TEST_F(xss_pasid_guest, without_xsaves)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->f.x.kvm);
	struct xcomp *x = &self->f.x;
	int i, vcpu = self->vcpu->fd;

	ASSERT_NE(NULL, c);
	xcomp_shape_cpuid(x, c, x->amx_on);
	if (xkvm_cpuid_entry(c, 0xd, 1))
		xkvm_cpuid_entry(c, 0xd, 1)->eax &= ~XCOMP_CPUID_D_1_EAX_XSAVES;
	ASSERT_EQ(0, ioctl(vcpu, KVM_SET_CPUID2, c));
	for (i = 0; i < 64; i++)
		EXPECT_FALSE(xkvm_set_msr(vcpu, XF_MSR_XSS, XF_BIT(i))) {
			ksft_print_msg("IA32_XSS bit %d without XSAVES\n", i);
		}
	if (xcomp_offered_xss())
		EXPECT_EQ(0, xstate_msr(x, XF_MSR_XSS));

	guest_xss = 0;
	guest_has_xss = false;
	sync_global_to_guest(self->vcpu->vm, guest_xss);
	sync_global_to_guest(self->vcpu->vm, guest_has_xss);
	vcpu_arch_set_entry_point(self->vcpu, guest_xss_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	xstate_run(self->vcpu, UCALL_DONE);
	free(c);
}

/* An XSAVE area, in its compacted format, and a U_CET that is not 0 */
static u8 guest_area[XF_BASE_SIZE + 64] __aligned(64);
static u64 guest_u_cet;

static u8 guest_xrstors(void)
{
	return kvm_asm_safe("xrstors64 (%[area])", [area] "r" (guest_area),
			    "a" ((u32)XF_CET), "d" (0));
}

/* Save CET, or where there is none, forge the header that would result. */
static void guest_save_cet(void)
{
	u64 *xcomp_bv = (u64 *)(guest_area + XF_HEADER_OFFSET + 8);

	*xcomp_bv = XF_COMPACTED | XF_CET;
	if (!guest_xss)
		return;
	wrmsr(XF_MSR_XSS, guest_xss);
	wrmsr(XF_MSR_U_CET, guest_u_cet);
	asm volatile("xsaves64 (%[area])"
		     : : [area] "r" (guest_area), "a" ((u32)XF_CET), "d" (0)
		     : "memory");
	__GUEST_ASSERT(*xcomp_bv == (XF_COMPACTED | XF_CET),
		       "XCOMP_BV: wanted %lx got %lx", XF_COMPACTED | XF_CET,
		       *xcomp_bv);
	wrmsr(XF_MSR_U_CET, 0);
}

static void guest_restore_code(void)
{
	u8 refused = guest_has_xss ? GP_VECTOR : UD_VECTOR;
	u8 vector, wanted = guest_xss ? 0 : refused;
	u64 value;

	guest_save_cet();
	GUEST_SYNC(0);
	vector = guest_xrstors();
	__GUEST_ASSERT(vector == refused,
		       "XRSTORS of CET, IA32_XSS 0: wanted vector %u got %u",
		       refused, vector);
	GUEST_SYNC(1);
	vector = guest_xrstors();
	__GUEST_ASSERT(vector == wanted,
		       "XRSTORS of CET, IA32_XSS back: wanted vector %u got %u",
		       wanted, vector);
	if (guest_xss) {
		value = rdmsr(XF_MSR_U_CET);
		__GUEST_ASSERT(value == guest_u_cet,
			       "U_CET by XRSTORS: wanted %lx got %lx",
			       guest_u_cet, value);
	}
	GUEST_DONE();
}

/*
 * Verify that IA32_XSS must be back before a guest that was saved can run on:
 * XRSTORS of a supervisor component that is not in it raises #GP. That is what
 * became of snapshots whose IA32_XSS nobody saved.
 */
TEST_F(xss_pasid_guest, xss_before_xrstors)
{
	struct xcomp *x = &self->f.x;

	guest_xss = xcomp_guest_xss(x);
	if (guest_xss && !xcomp_has_msr(x, XF_MSR_U_CET))
		SKIP(return, "KVM offers no guest IBT");
	guest_has_xss = kvm_has_xsaves();
	if (!guest_has_xss && host_cpu_is_amd)
		SKIP(return, "SVM lets guests use XSAVES without asking");
	guest_u_cet = xstate_msr_value(x, XF_MSR_U_CET, 0);
	sync_global_to_guest(self->vcpu->vm, guest_xss);
	sync_global_to_guest(self->vcpu->vm, guest_has_xss);
	sync_global_to_guest(self->vcpu->vm, guest_u_cet);
	vcpu_arch_set_entry_point(self->vcpu, guest_restore_code);

	xstate_run(self->vcpu, UCALL_SYNC);
	if (guest_xss) {
		EXPECT_EQ(0, xstate_msr(x, XF_MSR_U_CET));
		EXPECT_EQ(guest_xss, xstate_msr(x, XF_MSR_XSS));
		EXPECT_TRUE(xkvm_set_msr(x->vcpu, XF_MSR_XSS, 0));
	}
	xstate_run(self->vcpu, UCALL_SYNC);
	if (guest_xss)
		EXPECT_TRUE(xkvm_set_msr(x->vcpu, XF_MSR_XSS, guest_xss));
	xstate_run(self->vcpu, UCALL_DONE);
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
