// SPDX-License-Identifier: GPL-2.0-only
/*
 * IA32_XFD and IA32_XFD_ERR of a guest's guest (L2), which shares them with the
 * guest that runs it (L1): who gets the #NM, and what IA32_XFD_ERR is then worth.
 */
#include "xstate_nested.h"

#define XFD_TILE		XF_BIT(XF_XTILE_DATA)

/* A hardware exception without an error code */
#define INTR_INFO(vector)	(BIT(31) | 3 << 8 | (vector))

/* What has no vector */
#define NO_VECTOR		0xff

static const u32 xfd_msrs[] = { MSR_IA32_XFD, MSR_IA32_XFD_ERR };

enum level { HOST, L1, L2 };

/* What L1 and L2 are told to do, and what they find */
static struct nested {
	enum level setter;		/* who sets IA32_XFD, to this: */
	u64 xfd, l1_xfd;
	bool intercept;			/* #NM exits to L1 */
	bool ts;			/* L2 has CR0.TS, and uses x87 */
	struct nested_exit exit;
	struct {
		u64 vector, cr0, xfd, err, kept_err;
	} l1, l2;

	u32 msr;
	bool read_exits, write_exits;
	u64 value;			/* what L2 writes */
	u64 read;

	u8 tilecfg[XSTATE_TILECFG_SIZE];
} nested;

static void l2_read_code(void)
{
	nested.read = rdmsr(nested.msr);
	l2_end();
}

static void l2_write_code(void)
{
	nested.l2.vector = wrmsr_safe(nested.msr, nested.value);
	l2_end();
}

/* L2 reads and writes one MSR, the host has set it before. */
static void l1_msr_code(struct vmx_pages *vmx)
{
	l1_begin(vmx);
	for (;;) {
		GUEST_SYNC(0);
		l1_intercept_msr(vmx, nested.msr, nested.read_exits,
				 nested.write_exits);
		nested.exit = l1_run(l2_read_code);
		GUEST_SYNC(1);
		nested.exit = l1_run(l2_write_code);
		nested.read = rdmsr(nested.msr);
	}
}

static u8 use_tile(void)
{
	return kvm_asm_safe("tilezero %%tmm0");
}

/* Use AMX, or x87 while CR0.TS is set, and look at what that does. */
static void l2_nm_code(void)
{
	if (nested.setter == L2)
		wrmsr(MSR_IA32_XFD, nested.xfd);
	if (nested.ts)
		asm volatile("fnop");
	else
		nested.l2.vector = use_tile();
	nested.l2.cr0 = get_cr0();
	nested.l2.xfd = rdmsr(MSR_IA32_XFD);
	nested.l2.err = rdmsr(MSR_IA32_XFD_ERR);
	GUEST_SYNC(2);
	nested.l2.kept_err = rdmsr(MSR_IA32_XFD_ERR);
	l2_end();
}

static void l1_nm_code(struct vmx_pages *vmx)
{
	u64 cr0;

	xstate_ldtilecfg(nested.tilecfg);
	l1_begin(vmx);
	cr0 = vmreadz(GUEST_CR0);
	for (;;) {
		GUEST_SYNC(0);
		if (nested.setter == L1)
			wrmsr(MSR_IA32_XFD, nested.xfd);
		vmwrite(EXCEPTION_BITMAP,
			nested.intercept ? BIT(NM_VECTOR) : 0);
		vmwrite(GUEST_CR0, cr0 | (nested.ts ? X86_CR0_TS : 0));
		nested.exit = l1_run(l2_nm_code);
		nested.l1.xfd = rdmsr(MSR_IA32_XFD);
		nested.l1.err = rdmsr(MSR_IA32_XFD_ERR);
		GUEST_SYNC(1);
		nested.l1.kept_err = rdmsr(MSR_IA32_XFD_ERR);
		wrmsr(MSR_IA32_XFD_ERR, 0);
		wrmsr(MSR_IA32_XFD, 0);
	}
}

/* L2 sets IA32_XFD, perhaps as the first of all, and L1 then uses AMX. */
static void l2_set_code(void)
{
	wrmsr(MSR_IA32_XFD, nested.xfd);
	l2_end();
}

static void l1_nm_of_l1_code(struct vmx_pages *vmx)
{
	xstate_ldtilecfg(nested.tilecfg);
	l1_begin(vmx);
	if (nested.setter == L1)
		wrmsr(MSR_IA32_XFD, nested.xfd);
	l1_run_to_end(l2_set_code);
	nested.l1.vector = use_tile();
	nested.l1.err = rdmsr(MSR_IA32_XFD_ERR);
	GUEST_SYNC(0);
	nested.l1.kept_err = rdmsr(MSR_IA32_XFD_ERR);
	GUEST_DONE();
}

static void l2_own_code(void)
{
	nested.l2.vector = use_tile();
	GUEST_SYNC(2);
	wrmsr(MSR_IA32_XFD_ERR, 0);
	l2_end();
}

/* L1 gives L2 an IA32_XFD of its own, as a hypervisor does. */
static void l1_own_code(struct vmx_pages *vmx)
{
	xstate_ldtilecfg(nested.tilecfg);
	l1_begin(vmx);
	for (;;) {
		GUEST_SYNC(0);
		wrmsr(MSR_IA32_XFD, nested.xfd);
		l1_run_to_end(l2_own_code);
		wrmsr(MSR_IA32_XFD, nested.l1_xfd);
		nested.l1.vector = use_tile();
		GUEST_SYNC(1);
		wrmsr(MSR_IA32_XFD_ERR, 0);
	}
}

FIXTURE(nested_xfd) {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct nested *n;
	uint64_t taint;
};

FIXTURE_VARIANT(nested_xfd) {
	const char *name;
};

XSTATE_VARIANT(nested_xfd, none_noamx_cet);
XSTATE_VARIANT(nested_xfd, guest_amx_nocet);
XSTATE_VARIANT(nested_xfd, guest_amx_cet);

FIXTURE_SETUP(nested_xfd)
{
	struct xcomp *x = &self->x;
	gva_t vmx;

	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (nested_missing(x, x->amx))
		SKIP(return, "%s", nested_missing(x, x->amx));
	self->vcpu = nested_guest(x, NULL, &vmx);
	self->n = addr_gva2hva(self->vcpu->vm, (gva_t)&nested);
	xstate_tile_config(self->n->tilecfg);
}

FIXTURE_TEARDOWN(nested_xfd)
{
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

static void start(struct kvm_vcpu *vcpu, void *code)
{
	vcpu_arch_set_entry_point(vcpu, code);
	xstate_run(vcpu, UCALL_SYNC);
}

/*
 * Verify that L1 and L2 have one IA32_XFD and one IA32_XFD_ERR, that accesses
 * of L2 exit to L1 as the MSR bitmap has it, and that L2 gets #GP for a bit
 * that the guest has not.
 */
TEST_F(nested_xfd, msrs)
{
	u64 all = self->x.amx_on ? XFD_TILE : 0, old, wanted;
	struct xcomp *x = &self->x;
	struct nested *n = self->n;
	u32 i, bit;
	bool bad;

	if (!(xkvm_cpuid(xkvm_supported_cpuid(x->kvm), 0xd, 1).eax & BIT(4)))
		SKIP(return, "XFD is not in guest CPUID");
	start(self->vcpu, l1_msr_code);
	for (i = 0; i < 2 * 4 * 64; i++) {
		bit = i / 8;
		n->msr = xfd_msrs[i & 1];
		n->read_exits = i & 2;
		n->write_exits = i & 4;
		old = bit & 1 ? all : 0;
		vcpu_set_msr(self->vcpu, n->msr, old);
		n->read = ~0ull;
		xstate_run(self->vcpu, UCALL_SYNC);
		ASSERT_TRUE(xcomp_same(x, "exit of RDMSR",
				       n->read_exits ? EXIT_REASON_MSR_READ :
				       EXIT_REASON_VMCALL, n->exit.reason));
		ASSERT_TRUE(xcomp_same(x, "MSR as L2 reads it",
				       n->read_exits ? ~0ull : old, n->read));

		bad = BIT_ULL(bit) & ~all;
		wanted = n->write_exits || bad ? old : BIT_ULL(bit);
		n->value = BIT_ULL(bit);
		n->l2.vector = NO_VECTOR;
		xstate_run(self->vcpu, UCALL_SYNC);
		ASSERT_TRUE(xcomp_same(x, "exit of WRMSR",
				       n->write_exits ? EXIT_REASON_MSR_WRITE :
				       EXIT_REASON_VMCALL, n->exit.reason));
		ASSERT_TRUE(xcomp_same(x, "vector of WRMSR",
				       n->write_exits ? NO_VECTOR :
				       bad ? GP_VECTOR : 0, n->l2.vector));
		ASSERT_TRUE(xcomp_same(x, "MSR as L1 reads it", wanted,
				       n->read));
		ASSERT_TRUE(xcomp_same(x, "MSR as the host reads it", wanted,
				       xstate_msr(x, n->msr)));
		vcpu_set_msr(self->vcpu, n->msr, 0);
	}
}

/* One use of AMX or x87 in L2 by l2_nm_code(), as the host has told. */
static bool nm_ok(struct xcomp *x, struct kvm_vcpu *vcpu, struct nested *n)
{
	bool fault = n->ts || n->xfd, to_l1 = fault && n->intercept, ok;
	u64 err = n->ts ? 0 : n->xfd;

	n->l2.vector = NO_VECTOR;
	if (n->setter == HOST)
		vcpu_set_msr(vcpu, MSR_IA32_XFD, n->xfd);
	xstate_run(vcpu, UCALL_SYNC);
	if (!to_l1) {
		ok = xcomp_same(x, "vector", fault ? NM_VECTOR : 0,
				n->l2.vector);
		ok &= xcomp_same(x, "CR0.TS in L2", 0, n->l2.cr0 & X86_CR0_TS);
		ok &= xcomp_same(x, "IA32_XFD in L2", n->xfd, n->l2.xfd);
		ok &= xcomp_same(x, "IA32_XFD_ERR in L2", err, n->l2.err);
		ok &= xcomp_same(x, "IA32_XFD with L2 active", n->xfd,
				 xstate_msr(x, MSR_IA32_XFD));
		ok &= xcomp_same(x, "IA32_XFD_ERR with L2 active", err,
				 xstate_msr(x, MSR_IA32_XFD_ERR));
		xstate_run(vcpu, UCALL_SYNC);
		ok &= xcomp_same(x, "IA32_XFD_ERR over an exit from L2", err,
				 n->l2.kept_err);
		ok &= xcomp_same(x, "exit reason", EXIT_REASON_VMCALL,
				 n->exit.reason);
	} else {
		ok = xcomp_same(x, "vector in L2", NO_VECTOR, n->l2.vector);
		ok &= xcomp_same(x, "exit reason", EXIT_REASON_EXCEPTION_NMI,
				 n->exit.reason);
		ok &= xcomp_same(x, "VM-exit interruption information",
				 INTR_INFO(NM_VECTOR), n->exit.intr_info);
	}
	ok &= xcomp_same(x, "IA32_XFD in L1", n->xfd, n->l1.xfd);
	ok &= xcomp_same(x, "IA32_XFD_ERR in L1", err, n->l1.err);
	ok &= xcomp_same(x, "IA32_XFD_ERR as the host reads it", err,
			 xstate_msr(x, MSR_IA32_XFD_ERR));
	xstate_run(vcpu, UCALL_SYNC);
	ok &= xcomp_same(x, "IA32_XFD_ERR over an exit from L1", err,
			 n->l1.kept_err);
	if (!ok)
		ksft_print_msg("with IA32_XFD %#lx, #NM %sintercepted, CR0.TS %d\n",
			       (long)n->xfd, n->intercept ? "" : "not ", n->ts);
	return ok;
}

static bool all_nm_ok(struct xcomp *x, struct kvm_vcpu *vcpu, struct nested *n,
		      enum level setter)
{
	bool ok = true;
	u32 i;

	n->setter = setter;
	start(vcpu, l1_nm_code);
	/* IA32_XFD is set from the first round on, until it does not matter. */
	for (i = 0; i < 8; i++) {
		n->xfd = i & 4 ? 0 : XFD_TILE;
		n->intercept = i & 1;
		n->ts = i & 2;
		/* A handler in L2 could not use SSE. */
		if (n->ts && !n->intercept)
			continue;
		ok &= nm_ok(x, vcpu, n);
	}
	return ok;
}

/*
 * Verify that L2 gets #NM for AMX that IA32_XFD disarms, or L1 if it asks for
 * that, with IA32_XFD_ERR set, and that IA32_XFD_ERR is left alone by the #NM
 * that CR0.TS raises. L1 sets IA32_XFD.
 */
TEST_F(nested_xfd, nm_set_by_l1)
{
	if (!self->x.amx_on)
		SKIP(return, "the combination has no AMX");
	EXPECT_TRUE(all_nm_ok(&self->x, self->vcpu, self->n, L1));
}

/* Verify the same if L2 sets IA32_XFD, before anybody else has. */
TEST_F(nested_xfd, nm_set_by_l2)
{
	if (!self->x.amx_on)
		SKIP(return, "the combination has no AMX");
	EXPECT_TRUE(all_nm_ok(&self->x, self->vcpu, self->n, L2));
}

/* Verify the same if the host sets IA32_XFD. */
TEST_F(nested_xfd, nm_set_by_host)
{
	if (!self->x.amx_on)
		SKIP(return, "the combination has no AMX");
	EXPECT_TRUE(all_nm_ok(&self->x, self->vcpu, self->n, HOST));
}

/* An #NM of L1 after L2 has set IA32_XFD; what the host then has of it */
static bool nm_of_l1_ok(struct xcomp *x, struct kvm_vcpu *vcpu,
			struct nested *n, enum level setter, u64 *host_err)
{
	bool ok;

	n->setter = setter;
	n->xfd = XFD_TILE;
	start(vcpu, l1_nm_of_l1_code);
	ok = xcomp_same(x, "vector", NM_VECTOR, n->l1.vector);
	ok &= xcomp_same(x, "IA32_XFD_ERR in L1", XFD_TILE, n->l1.err);
	*host_err = xstate_msr(x, MSR_IA32_XFD_ERR);
	xstate_run(vcpu, UCALL_DONE);
	return ok;
}

/*
 * Verify that L1 gets #NM, and the host IA32_XFD_ERR, for the IA32_XFD that L2
 * has set after L1 has done so.
 */
TEST_F(nested_xfd, nm_of_l1)
{
	u64 host_err;

	if (!self->x.amx_on)
		SKIP(return, "the combination has no AMX");
	EXPECT_TRUE(nm_of_l1_ok(&self->x, self->vcpu, self->n, L1, &host_err));
	EXPECT_EQ(XFD_TILE, host_err);
	EXPECT_EQ(XFD_TILE, self->n->l1.kept_err);
}

/* Verify the same for an L2 that sets IA32_XFD before anybody else has. */
TEST_F(nested_xfd, nm_of_l1_after_l2)
{
	u64 host_err;

	if (!self->x.amx_on)
		SKIP(return, "the combination has no AMX");
	ASSERT_TRUE(nm_of_l1_ok(&self->x, self->vcpu, self->n, L2, &host_err));
	if (host_err) {
		EXPECT_EQ(XFD_TILE, host_err);
		EXPECT_EQ(XFD_TILE, self->n->l1.kept_err);
		return;
	}
	/* KVM intercepts #NM in the VMCS that was active at that time alone. */
	xstate_xfail(_metadata,
		     "IA32_XFD_ERR of L1 is lost if L2 was first to set IA32_XFD");
}

/*
 * Verify that L1 and L2 each get #NM by the IA32_XFD of their own if L1 writes
 * it before VM entry and after VM exit.
 */
TEST_F(nested_xfd, two_values)
{
	struct nested *n = self->n;
	struct xcomp *x = &self->x;
	u32 i;

	if (!x->amx_on)
		SKIP(return, "the combination has no AMX");
	start(self->vcpu, l1_own_code);
	for (i = 0; i < 8; i++) {
		n->l1_xfd = i & 1 ? XFD_TILE : 0;
		n->xfd = i & 2 ? XFD_TILE : 0;
		xstate_run(self->vcpu, UCALL_SYNC);
		EXPECT_EQ(n->xfd ? NM_VECTOR : 0, n->l2.vector);
		EXPECT_EQ(n->xfd, xstate_msr(x, MSR_IA32_XFD));
		EXPECT_EQ(n->xfd, xstate_msr(x, MSR_IA32_XFD_ERR));
		xstate_run(self->vcpu, UCALL_SYNC);
		EXPECT_EQ(n->l1_xfd ? NM_VECTOR : 0, n->l1.vector);
		EXPECT_EQ(n->l1_xfd, xstate_msr(x, MSR_IA32_XFD));
		EXPECT_EQ(n->l1_xfd, xstate_msr(x, MSR_IA32_XFD_ERR));
		xstate_run(self->vcpu, UCALL_SYNC);
	}
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
