// SPDX-License-Identifier: GPL-2.0-only
/*
 * The XSAVE state of a guest (L1) and of its guest (L2), which share it:
 *
 * - MSRs: what L2 reads and writes, and when that exits to L1;
 * - XSAVES and XRSTORS: when they exit to L1, and when they fault;
 * - IA32_XFD and IA32_XFD_ERR: who gets the #NM, and what is in them then;
 * - live registers, tiles and CET included, on the way to L2 and back;
 * - a shadow stack of L2, while L1 has none.
 */
#include "cet_guest.h"
#include "nested.h"

#define NO_VECTOR	0xff

#define XFD_TILE	XFEATURE_MASK_XTILE_DATA

/* ---- MSRs ---- */

/* What L1 and L2 do with an MSR, and what comes of it */
static struct msr_shared {
	u32 msr;
	u64 old, new;			/* what L1 and L2 write */
	bool read_exits, write_exits;
	bool by_host;			/* the host writes in place of L1 */
	u64 l1, l2;			/* what they read */
	u64 vector;			/* of WRMSR in L2 */
	struct nested_exit exit;
} msrs;

static void l2_rdmsr_code(void)
{
	msrs.l2 = rdmsr(msrs.msr);
	l2_end();
}

static void l2_wrmsr_code(void)
{
	msrs.vector = wrmsr_safe(msrs.msr, msrs.new);
	GUEST_SYNC(0);
	l2_end();
}

/* L1 writes, L2 reads and writes, L1 reads. */
static void l1_msr_code(void *pages)
{
	l1_begin(pages);
	for (;;) {
		GUEST_SYNC(1);
		l1_intercept_msr(msrs.msr, msrs.read_exits, msrs.write_exits);
		if (!msrs.by_host)
			wrmsr(msrs.msr, msrs.old);
		msrs.exit = l1_run(l2_rdmsr_code);
		GUEST_SYNC(2);
		msrs.exit = l1_run(l2_wrmsr_code);
		msrs.l1 = rdmsr(msrs.msr);
	}
}

FIXTURE(nested_msr) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct msr_shared *n;
};

XSTATE_SUITE(nested_msr);

FIXTURE_VARIANT_ADD(nested_msr, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(nested_msr, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(nested_msr, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(nested_msr, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(nested_msr, guest_amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(nested_msr, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(nested_msr)
{
	if (!nested_begin(_metadata, &variant->combo, true))
		return;
	self->vcpu = nested_new_guest(&self->vm, &variant->combo, l1_msr_code);
	self->n = addr_gva2hva(self->vm, (gva_t)&msrs);
	xstate_run(self->vcpu, UCALL_SYNC);
}

/* L1 writes n->old, L2 reads it and writes n->new, which is refused if it is @bad. */
static void expect_access(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			  struct msr_shared *n, bool bad)
{
	u64 wanted = n->write_exits || bad ? n->old : n->new;

	n->l2 = XAREA_POISON;
	n->vector = NO_VECTOR;
	xstate_run(vcpu, UCALL_SYNC);
	EXPECT_SAME(n->read_exits ? EXIT_REASON_MSR_READ : EXIT_REASON_VMCALL, n->exit.reason,
		    "exit of RDMSR");
	EXPECT_SAME(n->read_exits ? XAREA_POISON : n->old, n->l2, "what L1 wrote, as L2 reads it");

	xstate_run(vcpu, UCALL_SYNC);
	if (!n->write_exits) {
		EXPECT_SAME(wanted, vcpu_get_msr(vcpu, n->msr), "the MSR with L2 active");
		xstate_run(vcpu, UCALL_SYNC);
	}
	EXPECT_SAME(n->write_exits ? EXIT_REASON_MSR_WRITE : EXIT_REASON_VMCALL, n->exit.reason,
		    "exit of WRMSR");
	EXPECT_SAME(n->write_exits ? NO_VECTOR : bad ? GP_VECTOR : 0, n->vector,
		    "vector of WRMSR");
	EXPECT_SAME(wanted, n->l1, "the MSR as L1 reads it");
	EXPECT_SAME(wanted, vcpu_get_msr(vcpu, n->msr), "the MSR as the host reads it");
}

/* Each of RDMSR and WRMSR of L2 exits to L1, or does not. */
static void expect_msr(struct __test_metadata *const _metadata,
		       FIXTURE_DATA(nested_msr) * const self, u32 msr, u64 old, u64 new, bool bad)
{
	/* Of bits that are refused, one with all four says enough. */
	u32 i, nr = bad && !(new >> 63) ? 1 : 4;

	self->n->msr = msr;
	self->n->old = old;
	self->n->new = new;
	for (i = 0; i < nr && !_metadata->exit_code; i++) {
		self->n->read_exits = i & 1;
		self->n->write_exits = i & 2;
		th_case("%s, %#lx over %#lx, RDMSR exits: %d, WRMSR exits: %d", msr_name(msr),
			(long)new, (long)old, i & 1, i >> 1);
		expect_access(_metadata, self->vcpu, self->n, bad);
	}
}

/* L2 writes each bit, of which the guest has those in @all. */
static void expect_bits(struct __test_metadata *const _metadata,
			FIXTURE_DATA(nested_msr) * const self, u32 msr, u64 all)
{
	u32 bit;

	for (bit = 0; bit < 64; bit++)
		expect_msr(_metadata, self, msr, bit & 1 ? all : 0, BIT_ULL(bit),
			   !(all & BIT_ULL(bit)));
}

/*
 * Verify that L1 and L2 have one IA32_XSS, and one of each MSR of CET, that what
 * L2 does with them exits to L1 as the MSR bitmap has it, and that bits of
 * IA32_XSS which the guest's CPUID lacks raise #GP in L2.
 */
TEST_F(nested_msr, xss_and_cet)
{
	u32 i, msr;

	expect_bits(_metadata, self, MSR_IA32_XSS, vcpu_xss_mask(self->vcpu));
	for (i = 0; i < NR_CET_MSRS; i++) {
		msr = cet_msrs[i];
		/* Those that no component carries are in the VMCB, if there is one. */
		if (vcpu_has_cet_msr(self->vcpu, msr) &&
		    (cet_msr_component(msr) >= 0 || !kvm_cpu_has(X86_FEATURE_SVM)))
			expect_msr(_metadata, self, msr, cet_msr_value(self->vcpu, msr, 0),
				   cet_msr_value(self->vcpu, msr, 5), false);
	}
}

/* The host sets an MSR while L1 is active, and L2 reads it, and clears it. */
static void expect_set_by_host(struct __test_metadata *const _metadata,
			       FIXTURE_DATA(nested_msr) * const self, u32 msr)
{
	self->n->msr = msr;
	self->n->by_host = true;
	vcpu_set_msr(self->vcpu, msr, XFD_TILE);
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_SAME(XFD_TILE, self->n->l2, "%s of the host, as L2 reads it", msr_name(msr));
	self->n->new = 0;
	xstate_run(self->vcpu, UCALL_SYNC);
	xstate_run(self->vcpu, UCALL_SYNC);
}

/* Verify the same of IA32_XFD and IA32_XFD_ERR, and that L2 reads what the host has set. */
TEST_F(nested_msr, xfd)
{
	u64 all = vcpu_has_amx(self->vcpu) ? XFD_TILE : 0;

	if (!kvm_cpu_has(X86_FEATURE_XFD))
		SKIP(return, "XFD is not in guest CPUID");
	expect_bits(_metadata, self, MSR_IA32_XFD, all);
	expect_bits(_metadata, self, MSR_IA32_XFD_ERR, all);
	if (!all)
		return;
	th_no_case();
	self->n->read_exits = false;
	self->n->write_exits = false;
	expect_set_by_host(_metadata, self, MSR_IA32_XFD);
	expect_set_by_host(_metadata, self, MSR_IA32_XFD_ERR);
}

/* ---- XSAVES and XRSTORS ---- */

/* xsaves64 (%rdi) and xrstors64 (%rdi) */
#define XSAVES_CODE	0x2fc70f48
#define XRSTORS_CODE	0x1fc70f48

/* What L1 and L2 are told to do, and what comes of it */
static struct xss_shared {
	u64 bitmap, rfbm;
	bool enable;			/* "enable XSAVES/XRSTORS" */
	bool restore, sync;		/* XRSTORS; exit to user space before it */
	u64 vector;
	struct nested_exit exit;
	u32 code;			/* the instruction that exited */

	u8 area[XAREA_SIZE] __aligned(64);
} xss;

static void l2_xsaves_code(void)
{
	u32 low = xss.rfbm, high = xss.rfbm >> 32;

	if (xss.sync)
		GUEST_SYNC(0);
	if (xss.restore)
		xss.vector = kvm_asm_safe("xrstors64 (%%rdi)", "D" (xss.area), "a" (low),
					  "d" (high));
	else
		xss.vector = kvm_asm_safe("xsaves64 (%%rdi)", "D" (xss.area), "a" (low),
					  "d" (high));
	l2_end();
}

/* Run L2 once and again with whatever the host has changed. */
static void l1_xsaves_code(void *pages)
{
	l1_begin(pages);
	for (;;) {
		GUEST_SYNC(1);
		l1_control(SECONDARY_VM_EXEC_CONTROL, SECONDARY_EXEC_ENABLE_XSAVES, xss.enable);
		GUEST_ASSERT(!vmwrite(XSS_EXIT_BITMAP, xss.bitmap));
		xss.exit = l1_run(l2_xsaves_code);
		xss.code = *(u32 *)xss.exit.rip;
	}
}

FIXTURE(nested_xss) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xss_shared *n;
	struct xregs regs;
	u64 all;		/* of IA32_XSS */
};

XSTATE_SUITE(nested_xss);

FIXTURE_VARIANT_ADD(nested_xss, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(nested_xss, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(nested_xss, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(nested_xss)
{
	if (!nested_begin(_metadata, &variant->combo, true) || !nested_need_vmx(_metadata))
		return;
	self->vcpu = nested_new_guest(&self->vm, &variant->combo, l1_xsaves_code);
	self->n = addr_gva2hva(self->vm, (gva_t)&xss);
	self->n->enable = true;
	self->n->rfbm = ~0ull;
	self->all = vcpu_xss_mask(self->vcpu);
	xregs_fill(&self->regs, self->vcpu, 0);
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs,
		       xregs_mask(vcpu_xcr0_mask(self->vcpu)) & ~XFEATURE_MASK_XTILE);
	xstate_run(self->vcpu, UCALL_SYNC);
}

/*
 * Prepare IA32_XSS, the components of CET, and an area for the next run.
 * XRSTORS of an area that has no component makes them all initial.
 */
static void xss_prepare(struct __test_metadata *const _metadata,
			struct _test_data_nested_xss *self, u64 value, bool restore)
{
	struct xss_shared *n = self->n;

	th_case("%s with IA32_XSS %#lx, bitmap %#lx, RFBM %#lx", restore ? "XRSTORS" : "XSAVES",
		(long)value, (long)n->bitmap, (long)n->rfbm);
	vcpu_set_cet(_metadata, self->vcpu, &self->regs);
	vcpu_set_msr(self->vcpu, MSR_IA32_XSS, value);
	n->restore = restore;
	n->vector = XAREA_POISON;
	xarea_fill(n->area, restore ? 0 : XAREA_POISON, XAREA_SIZE);
	if (restore)
		xarea_set_header(n->area, 1, XCOMP_BV_COMPACTED);
}

/*
 * How the last run of L2 ended: by an exit to L1 at the instruction, which has
 * then done nothing, or at the end of L2 after an exception or without.
 */
static void xss_expect(struct __test_metadata *const _metadata, struct _test_data_nested_xss *self,
		       u64 value, bool exits, u8 vector)
{
	struct xss_shared *n = self->n;
	u64 rfbm = n->rfbm & (vcpu_xcr0_mask(self->vcpu) | value), poison;
	u64 reason = n->restore ? EXIT_REASON_XRSTORS : EXIT_REASON_XSAVES;
	struct xregs regs = self->regs;
	bool done = !exits && !vector;
	int i, nr;

	EXPECT_SAME(0, n->exit.error, "VM-instruction error");
	EXPECT_SAME(exits ? reason : EXIT_REASON_VMCALL, n->exit.reason, "exit reason");
	EXPECT_SAME(exits ? XAREA_POISON : vector, n->vector, "vector");
	if (exits)
		EXPECT_SAME(n->restore ? XRSTORS_CODE : XSAVES_CODE, n->code,
			    "instruction that exited");
	if (!n->restore) {
		memset(&poison, XAREA_POISON, sizeof(poison));
		EXPECT_XFEATURES(done ? rfbm | XCOMP_BV_COMPACTED : poison,
				 xarea_header(n->area, 1), "XCOMP_BV");
		EXPECT_XFEATURES((done ? rfbm & value : poison) & XFEATURE_MASK_CET,
				 xarea_header(n->area, 0) & XFEATURE_MASK_CET,
				 "XSTATE_BV of CET");
		return;
	}
	for (i = 0; i < NR_CET_MSRS; i++) {
		nr = cet_msr_component(cet_msrs[i]);
		if (done && nr >= 0 && rfbm & BIT_ULL(nr))
			regs.cet[i] = 0;
	}
	expect_cet(_metadata, self->vcpu, &regs, "XRSTORS");
}

/*
 * Verify that XSAVES and XRSTORS exit to L1 exactly if they ask for a component
 * that is both in IA32_XSS and in the bitmap, and that they have then done
 * nothing; and that they work otherwise.
 */
TEST_F(nested_xss, bitmap)
{
	/* Each subset of two bits, as far as the guest may set it */
	static const u64 masks[] = {
		0, XFEATURE_MASK_CET_USER, XFEATURE_MASK_CET_KERNEL, XFEATURE_MASK_CET,
		~XFEATURE_MASK_CET, ~0ull,
	};
	u32 i, nr = ARRAY_SIZE(masks);
	u64 value;

	for (i = 0; i < nr * nr * 8 && !_metadata->exit_code; i++) {
		value = masks[i / (2 * nr * nr)];
		if (value & ~self->all)
			continue;
		self->n->bitmap = masks[i / 2 / nr % nr];
		self->n->rfbm = masks[i / 2 % nr];
		xss_prepare(_metadata, self, value, i & 1);
		xstate_run(self->vcpu, UCALL_SYNC);
		xss_expect(_metadata, self, value, self->n->rfbm & value & self->n->bitmap, 0);
	}
}

/*
 * Verify that L1 may enable XSAVES and XRSTORS for L2, and that they raise #UD
 * if it does not.
 */
TEST_F(nested_xss, not_enabled)
{
	u64 control = SECONDARY_EXEC_ENABLE_XSAVES;
	u32 i;

	EXPECT_SAME(control << 32, vcpu_get_msr(self->vcpu, MSR_IA32_VMX_PROCBASED_CTLS2) &
		    (control << 32 | control), "XSAVES in IA32_VMX_PROCBASED_CTLS2");
	self->n->enable = false;
	for (i = 0; i < 4; i++) {
		self->n->bitmap = i & 2 ? ~0ull : 0;
		xss_prepare(_metadata, self, self->all, i & 1);
		xstate_run(self->vcpu, UCALL_SYNC);
		xss_expect(_metadata, self, self->all, false, UD_VECTOR);
	}
}

/*
 * Verify that the bitmap holds after an exit from L2 to user space, and in
 * another VM to which the vCPU is moved from there.
 */
TEST_F(nested_xss, moved)
{
	u32 i;

	self->n->sync = true;
	for (i = 0; i < 8; i++) {
		self->n->bitmap = i & 2 ? self->all : ~self->all;
		xss_prepare(_metadata, self, self->all, i & 1);
		xstate_run(self->vcpu, UCALL_SYNC);
		EXPECT_SAME(self->all, vcpu_get_msr(self->vcpu, MSR_IA32_XSS),
			    "IA32_XSS with L2 active, turn %u", i);
		self->vcpu = nested_move(self->vcpu, i & 4 ? CET_FIRST : NOWHERE);
		xstate_run(self->vcpu, UCALL_SYNC);
		xss_expect(_metadata, self, self->all, self->all && i & 2, 0);
	}
}

/* ---- IA32_XFD, IA32_XFD_ERR and #NM ---- */

enum level { HOST, L1, L2 };

/* What L1 and L2 are told to do, and what they find */
static struct xfd_shared {
	enum level setter;		/* who sets IA32_XFD, to this: */
	u64 xfd;
	u64 l1_xfd;			/* what L1 sets it to after L2 has run */
	bool intercept;			/* #NM exits to L1 */
	bool ts;			/* L2 has CR0.TS, and uses x87 */
	struct nested_exit exit;
	struct {
		u64 vector, cr0, xfd, err, kept_err;
	} l1, l2;

	u8 tilecfg[XREGS_TILECFG_SIZE];
} xfd;

/* tilezero %tmm0 */
static u8 use_tile(void)
{
	return kvm_asm_safe(".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0");
}

/* Use AMX, or x87 while CR0.TS is set, and look at what that does. */
static void l2_nm_code(void)
{
	if (xfd.setter == L2)
		wrmsr(MSR_IA32_XFD, xfd.xfd);
	if (xfd.ts)
		asm volatile("fnop");
	else
		xfd.l2.vector = use_tile();
	xfd.l2.cr0 = get_cr0();
	xfd.l2.xfd = rdmsr(MSR_IA32_XFD);
	xfd.l2.err = rdmsr(MSR_IA32_XFD_ERR);
	GUEST_SYNC(2);
	xfd.l2.kept_err = rdmsr(MSR_IA32_XFD_ERR);
	l2_end();
}

/* L1 uses AMX after L2 has, with an IA32_XFD of its own, as a hypervisor does. */
static void l1_nm_code(void *pages)
{
	u64 cr0;

	tile_load_config(xfd.tilecfg);
	l1_begin(pages);
	cr0 = vmreadz(GUEST_CR0);
	for (;;) {
		GUEST_SYNC(0);
		if (xfd.setter == L1)
			wrmsr(MSR_IA32_XFD, xfd.xfd);
		l1_intercept_vector(NM_VECTOR, xfd.intercept);
		vmwrite(GUEST_CR0, cr0 | (xfd.ts ? X86_CR0_TS : 0));
		xfd.exit = l1_run(l2_nm_code);
		xfd.l1.xfd = rdmsr(MSR_IA32_XFD);
		xfd.l1.err = rdmsr(MSR_IA32_XFD_ERR);
		GUEST_SYNC(1);
		xfd.l1.kept_err = rdmsr(MSR_IA32_XFD_ERR);
		wrmsr(MSR_IA32_XFD_ERR, 0);
		wrmsr(MSR_IA32_XFD, xfd.l1_xfd);
		xfd.l1.vector = use_tile();
		/* The host must not disarm tiles that are in use. */
		tile_release();
		tile_load_config(xfd.tilecfg);
		GUEST_SYNC(3);
		wrmsr(MSR_IA32_XFD_ERR, 0);
	}
}

/* L2 sets IA32_XFD, perhaps as the first of all, and L1 then uses AMX. */
static void l2_set_xfd_code(void)
{
	wrmsr(MSR_IA32_XFD, XFD_TILE);
	l2_end();
}

static void l1_nm_of_l1_code(void *pages)
{
	tile_load_config(xfd.tilecfg);
	l1_begin(pages);
	if (xfd.setter == L1)
		wrmsr(MSR_IA32_XFD, XFD_TILE);
	l1_run_to_end(l2_set_xfd_code);
	xfd.l1.vector = use_tile();
	xfd.l1.err = rdmsr(MSR_IA32_XFD_ERR);
	GUEST_SYNC(0);
	xfd.l1.kept_err = rdmsr(MSR_IA32_XFD_ERR);
	GUEST_DONE();
}

FIXTURE(nested_xfd_nm) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xfd_shared *n;
};

XSTATE_SUITE(nested_xfd_nm);

FIXTURE_VARIANT_ADD(nested_xfd_nm, guest_amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(nested_xfd_nm, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(nested_xfd_nm)
{
	if (!nested_begin(_metadata, &variant->combo, true))
		return;
	self->vcpu = nested_new_guest(&self->vm, &variant->combo, NULL);
	self->n = addr_gva2hva(self->vm, (gva_t)&xfd);
	tile_config(self->n->tilecfg);
}

/* What L2 and the host find where the #NM does not exit to L1 */
static void expect_nm_in_l2(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			    struct xfd_shared *n)
{
	EXPECT_SAME(n->xfd ? NM_VECTOR : 0, n->l2.vector, "vector in L2");
	EXPECT_SAME(0, n->l2.cr0 & X86_CR0_TS, "CR0.TS in L2");
	EXPECT_SAME(n->xfd, n->l2.xfd, "IA32_XFD in L2");
	EXPECT_SAME(n->xfd, n->l2.err, "IA32_XFD_ERR in L2");
	EXPECT_SAME(n->xfd, vcpu_get_msr(vcpu, MSR_IA32_XFD), "IA32_XFD with L2 active");
	EXPECT_SAME(n->xfd, vcpu_get_msr(vcpu, MSR_IA32_XFD_ERR),
		    "IA32_XFD_ERR with L2 active");
	xstate_run(vcpu, UCALL_SYNC);
	EXPECT_SAME(n->xfd, n->l2.kept_err, "IA32_XFD_ERR over an exit from L2");
	EXPECT_SAME(EXIT_REASON_VMCALL, n->exit.reason, "exit reason");
}

/* One use of AMX or x87 in L2 by l2_nm_code(), and one of AMX in L1, as the host has told */
static void expect_nm(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		      struct xfd_shared *n)
{
	u64 err = n->ts ? 0 : n->xfd;

	th_case("IA32_XFD %#lx, #NM exits: %d, CR0.TS %d, then %#lx in L1", (long)n->xfd,
		n->intercept, n->ts, (long)n->l1_xfd);
	n->l2.vector = NO_VECTOR;
	if (n->setter == HOST)
		vcpu_set_msr(vcpu, MSR_IA32_XFD, n->xfd);
	xstate_run(vcpu, UCALL_SYNC);
	if (n->intercept && (n->ts || n->xfd)) {
		EXPECT_SAME(NO_VECTOR, n->l2.vector, "vector in L2");
		EXPECT_SAME(EXIT_REASON_EXCEPTION_NMI, n->exit.reason, "exit reason");
		EXPECT_SAME(INTR_INFO_EXCEPTION(NM_VECTOR), n->exit.intr_info,
			    "VM-exit interruption information");
	} else {
		expect_nm_in_l2(_metadata, vcpu, n);
	}
	EXPECT_SAME(n->xfd, n->l1.xfd, "IA32_XFD in L1");
	EXPECT_SAME(err, n->l1.err, "IA32_XFD_ERR in L1");
	EXPECT_SAME(err, vcpu_get_msr(vcpu, MSR_IA32_XFD_ERR),
		    "IA32_XFD_ERR as the host reads it");
	xstate_run(vcpu, UCALL_SYNC);
	EXPECT_SAME(err, n->l1.kept_err, "IA32_XFD_ERR over an exit from L1");

	EXPECT_SAME(n->l1_xfd ? NM_VECTOR : 0, n->l1.vector, "vector in L1");
	EXPECT_SAME(n->l1_xfd, vcpu_get_msr(vcpu, MSR_IA32_XFD), "IA32_XFD of L1");
	EXPECT_SAME(n->l1_xfd, vcpu_get_msr(vcpu, MSR_IA32_XFD_ERR), "IA32_XFD_ERR of L1");
	xstate_run(vcpu, UCALL_SYNC);
}

static void expect_all_nm(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			  struct xfd_shared *n, enum level setter)
{
	u32 i;

	n->setter = setter;
	vcpu_arch_set_entry_point(vcpu, l1_nm_code);
	xstate_run(vcpu, UCALL_SYNC);
	/*
	 * IA32_XFD is set in the first round.  Where L2 was first to set it there is no
	 * #NM in L1: see of_l1_after_l2.
	 */
	for (i = 0; i < (setter == L2 ? 8 : 16); i++) {
		n->xfd = i & 4 ? 0 : XFD_TILE;
		n->l1_xfd = i & 8 ? XFD_TILE : 0;
		n->intercept = i & 1;
		n->ts = i & 2;
		/* A handler in L2 could not use SSE. */
		if (!n->ts || n->intercept)
			expect_nm(_metadata, vcpu, n);
	}
}

/*
 * Verify that L2 gets #NM for AMX that IA32_XFD disarms, or L1 if it asks for
 * that, with IA32_XFD_ERR set, and that IA32_XFD_ERR is left alone by the #NM
 * that CR0.TS raises; and that L1 gets #NM by an IA32_XFD of its own afterwards.
 * L1 sets IA32_XFD.
 */
TEST_F(nested_xfd_nm, set_by_l1)
{
	expect_all_nm(_metadata, self->vcpu, self->n, L1);
}

/* Verify the same if L2 sets IA32_XFD, before anybody else has. */
TEST_F(nested_xfd_nm, set_by_l2)
{
	expect_all_nm(_metadata, self->vcpu, self->n, L2);
}

/* Verify the same if the host sets IA32_XFD. */
TEST_F(nested_xfd_nm, set_by_host)
{
	expect_all_nm(_metadata, self->vcpu, self->n, HOST);
}

/* L1 gets #NM for the IA32_XFD that L2 has set, @first being the first to set it. */
static void expect_nm_of_l1(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			    struct xfd_shared *n, enum level first)
{
	u64 err;

	n->setter = first;
	vcpu_arch_set_entry_point(vcpu, l1_nm_of_l1_code);
	xstate_run(vcpu, UCALL_SYNC);
	EXPECT_SAME(NM_VECTOR, n->l1.vector, "vector in L1");
	EXPECT_SAME(XFD_TILE, n->l1.err, "IA32_XFD_ERR in L1");
	err = vcpu_get_msr(vcpu, MSR_IA32_XFD_ERR);
	xstate_run(vcpu, UCALL_DONE);
	EXPECT_SAME(0, n->l1.kept_err & ~XFD_TILE, "other bits of IA32_XFD_ERR over an exit");
	XFAIL_IF(!err && first == L2,
		 "IA32_XFD_ERR of L1 is lost if L2 was first to set IA32_XFD") {
		EXPECT_SAME(XFD_TILE, err, "IA32_XFD_ERR as the host reads it");
		EXPECT_SAME(XFD_TILE, n->l1.kept_err, "IA32_XFD_ERR over an exit from L1");
	}
}

/*
 * Verify that L1 gets #NM, and the host IA32_XFD_ERR, for the IA32_XFD that L2
 * has set after L1 has done so.
 */
TEST_F(nested_xfd_nm, of_l1)
{
	expect_nm_of_l1(_metadata, self->vcpu, self->n, L1);
}

/*
 * Verify the same for an L2 that sets IA32_XFD before anybody else has. KVM
 * intercepts #NM in the VMCS that was active at that time alone.
 */
TEST_F(nested_xfd_nm, of_l1_after_l2)
{
	expect_nm_of_l1(_metadata, self->vcpu, self->n, L2);
}

/* ---- live registers ---- */

static struct regs_shared {
	u64 mask;		/* components that are in use */
	struct xregs regs[2];
	int l2_set;		/* which of them L2 loads */
	u8 area[XAREA_SIZE] __aligned(64);
} regs;

static __always_inline INTEGER_ONLY void guest_save(void)
{
	asm volatile("xsaves64 %0" : "+m" (regs.area) : "a" (-1), "d" (-1));
	guest_leave();
}

/* Leave the other set than L1 did. */
static INTEGER_ONLY void l2_regs_code(void)
{
	guest_save();
	guest_load_xregs(&regs.regs[regs.l2_set], regs.mask);
	guest_leave();
	l2_exit();
}

/* Nothing that a compiler might use other registers for comes in between. */
static INTEGER_ONLY void l1_run_twice(void)
{
	bool failed;

	guest_load_xregs(&regs.regs[0], regs.mask);
	regs.l2_set = 1;
	failed = l1_enter();
	guest_save();
	l1_set_entry(l2_regs_code);
	regs.l2_set = 0;
	failed |= l1_enter();
	guest_save();
	GUEST_ASSERT(!failed);
}

static void l1_regs_code(void *pages)
{
	guest_enable_xstate(regs.mask & XREGS_USER);
	l1_begin(pages);
	l1_control(SECONDARY_VM_EXEC_CONTROL, SECONDARY_EXEC_ENABLE_XSAVES, true);
	l1_set_entry(l2_regs_code);
	l1_run_twice();
	GUEST_DONE();
}

FIXTURE(nested_regs) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct regs_shared *n;
};

XSTATE_SUITE(nested_regs);

FIXTURE_VARIANT_ADD(nested_regs, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(nested_regs, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(nested_regs, guest_amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(nested_regs, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(nested_regs)
{
	if (!nested_begin(_metadata, &variant->combo, true))
		return;
	self->vcpu = nested_new_guest(&self->vm, &variant->combo, l1_regs_code);
	self->n = addr_gva2hva(self->vm, (gva_t)&regs);
	self->n->mask = xregs_guest_mask(self->vcpu) | xregs_mask(vcpu_xss_mask(self->vcpu));
	xregs_fill(&self->n->regs[0], self->vcpu, 2);
	xregs_fill(&self->n->regs[1], self->vcpu, 4);
	vcpu_set_msr(self->vcpu, MSR_IA32_XSS, vcpu_xss_mask(self->vcpu));
}

/* Run up to the next XSAVES, which must find the registers of one set. */
static void expect_saved(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			 struct regs_shared *n, const char *what, int set)
{
	xarea_fill(n->area, XAREA_POISON, XAREA_SIZE);
	xregs_run(vcpu);
	EXPECT_XFEATURES(n->mask, xarea_header(n->area, 0), "XSTATE_BV, %s", what);
	expect_area(_metadata, n->area, &n->regs[set], n->mask, n->mask | XCOMP_BV_COMPACTED,
		    what);
}

/*
 * Run L2 twice with all components in use. Each of L1 and L2 must find what the
 * other one left, also when L2 moves to another VM meanwhile.
 */
static void expect_live(struct __test_metadata *const _metadata,
			struct _test_data_nested_regs *self, enum nested_move how)
{
	expect_saved(_metadata, self->vcpu, self->n, "L2 after L1", 0);
	self->vcpu = nested_move(self->vcpu, how);
	xregs_run(self->vcpu);
	self->vcpu = nested_move(self->vcpu, how);
	expect_saved(_metadata, self->vcpu, self->n, "L1 after L2", 1);
	self->vcpu = nested_move(self->vcpu, how);
	expect_saved(_metadata, self->vcpu, self->n, "L2 after L1 after L2", 1);
	xregs_run(self->vcpu);
	expect_saved(_metadata, self->vcpu, self->n, "L1 after L2 again", 0);
	xstate_run(self->vcpu, UCALL_DONE);
}

/*
 * Verify that L1 and L2 share all components that XSAVES saves, tiles and CET
 * included, and that exits from L2 to user space leave them alone.
 */
TEST_F(nested_regs, live)
{
	expect_live(_metadata, self, NOWHERE);
}

/* Verify the same when the vCPU moves to another VM with L2 active. */
TEST_F(nested_regs, moved)
{
	expect_live(_metadata, self, CET_FIRST);
}

/* ---- a shadow stack of L2 ---- */

/* Some error code that RET does not raise */
#define CP_INJECTED		3

#define INTR_INFO_CP		(INTR_INFO_EXCEPTION(CP_VECTOR) | INTR_INFO_ERROR_CODE)

static u8 l2_shstk[4096] __aligned(4096);

/* L2 begins where there are entries above and below. */
#define L2_SSP			((u64)l2_shstk + 2048)

static struct shstk_shared {
	bool intercept;			/* #CP exits to L1 */
	u64 inject;			/* L1 injects #CP */
	struct nested_exit exit;
	u64 vmcs_ssp, l1_rdssp;		/* afterwards */

	u64 rdssp[2];			/* in L2, before and after a call */
	u64 rdssp_in_call;
	u64 return_address, pushed;	/* on the stack, on the shadow stack */
	u64 vector, vector_error;	/* what the handler in L2 got */
} shstk;

/* RDSSP leaves the register as it is where there is no shadow stack. */
static __always_inline u64 rdssp(void)
{
	u64 ssp = 0;

	asm volatile("rdsspq %0" : "+r" (ssp));
	return ssp;
}

static noinline void l2_called(void)
{
	shstk.rdssp_in_call = rdssp();
	shstk.return_address = (u64)__builtin_return_address(0);
	shstk.pushed = *(u64 *)(L2_SSP - 8);
}

/* Exit to user space without a call, which would change the shadow stack. */
static void l2_shstk_code(void)
{
	shstk.rdssp[0] = rdssp();
	l2_called();
	asm volatile("outb %%al, %%dx" : : "a" (0), "d" (XREGS_EXIT_PORT) : "memory");
	shstk.rdssp[1] = rdssp();
	l2_end();
	/* Keep the compiler from jumping there: its return address is to be on the stack. */
	barrier();
}

/* Return to an address that is on the stack, and not on the shadow stack. */
static void l2_bad_return_code(void)
{
	asm volatile("lea 1f(%%rip), %%rax\n\t"
		     "push %%rax\n\t"
		     "ret\n\t"
		     "1:"
		     : : : "rax", "memory");
	l2_end();
}

static void l2_cp_handler(struct ex_regs *r)
{
	shstk.vector = r->vector;
	/* A libkvm that knows of no error code for #CP takes it for RIP. */
	shstk.vector_error = r->error_code ?: r->rip;
	l2_end();
}

static void l1_shstk_code(void *pages)
{
	const struct nested_cet value[2] = { [ON_ENTRY] = { CET_SHSTK_EN, L2_SSP, 0 } };
	const bool load[2] = { true, true };
	void *code = l2_shstk_code;

	l1_begin(pages);
	l1_set_crs(get_cr0() | X86_CR0_WP, get_cr4() | X86_CR4_CET);
	for (;;) {
		l1_set_cet(load, value);
		l1_intercept_vector(CP_VECTOR, shstk.intercept);
		l1_inject(shstk.inject, CP_INJECTED);
		shstk.exit = l1_run(code);
		shstk.l1_rdssp = rdssp();
		shstk.vmcs_ssp = l1_cet_fields().ssp;
		GUEST_SYNC(0);
		code = l2_bad_return_code;
	}
}

FIXTURE(nested_shstk) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct shstk_shared *n;
};

XSTATE_SUITE(nested_shstk);

FIXTURE_VARIANT_ADD(nested_shstk, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(nested_shstk, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(nested_shstk)
{
	if (!nested_begin(_metadata, &variant->combo, true) ||
	    !expect_host_keeps_s_cet(_metadata, &variant->combo))
		return;
	self->vcpu = nested_new_guest(&self->vm, &variant->combo, l1_shstk_code);
	self->n = addr_gva2hva(self->vm, (gva_t)&shstk);
	vm_install_exception_handler(self->vm, CP_VECTOR, l2_cp_handler);
	vm_make_shstk(self->vm, (gva_t)l2_shstk);
}

/* Run L2 once over a call, an exit to user space, and perhaps a new VM. */
static void expect_call(struct __test_metadata *const _metadata,
			struct _test_data_nested_shstk *self, enum nested_move how)
{
	struct shstk_shared *n = self->n;

	xregs_run(self->vcpu);
	EXPECT_SAME(L2_SSP, n->rdssp[0], "SSP on VM entry");
	EXPECT_SAME(L2_SSP - 8, n->rdssp_in_call, "SSP in a call");
	EXPECT_SAME(n->return_address, n->pushed, "return address on the shadow stack");
	EXPECT_SAME(L2_SSP, nested_get_ssp(self->vcpu), "SSP with L2 active");
	self->vcpu = nested_move(self->vcpu, how);
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_SAME(L2_SSP, n->rdssp[1], "SSP over an exit");
	EXPECT_SAME(EXIT_REASON_VMCALL, n->exit.reason, "exit reason");
	EXPECT_SAME(L2_SSP - 8, n->vmcs_ssp, "SSP in the VMCS");
	EXPECT_SAME(0, n->l1_rdssp, "RDSSP in L1");
	EXPECT_SAME(0, nested_get_ssp(self->vcpu), "SSP of L1");
}

/*
 * Verify that L2 has its calls and returns on the shadow stack at GUEST_SSP, and
 * that L1 has none, when the vCPU moves to another VM with L2 active.
 */
TEST_F(nested_shstk, call_moved)
{
	expect_call(_metadata, self, CET_FIRST);
}

/*
 * Verify the same without a move; that a return to another address than that on
 * the shadow stack raises #CP in L2, or exits to L1 if L1 asks for that; and
 * that L1 can inject #CP.
 */
TEST_F(nested_shstk, control_protection)
{
	struct shstk_shared *n = self->n;

	expect_call(_metadata, self, NOWHERE);
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_SAME(CP_VECTOR, n->vector, "vector in L2");
	EXPECT_SAME(CP_NEAR_RET, n->vector_error, "error code in L2");
	EXPECT_SAME(EXIT_REASON_VMCALL, n->exit.reason, "exit reason after #CP in L2");

	n->intercept = true;
	n->vector = 0;
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_SAME(EXIT_REASON_EXCEPTION_NMI, n->exit.reason, "exit reason of #CP");
	EXPECT_SAME(INTR_INFO_CP, n->exit.intr_info, "VM-exit interruption information of #CP");
	EXPECT_SAME(CP_NEAR_RET, n->exit.error_code, "error code of the exit");
	EXPECT_SAME(0, n->vector, "vector in L2 where #CP exits");
	EXPECT_SAME(L2_SSP, n->vmcs_ssp, "SSP in the VMCS after #CP");

	n->inject = INTR_INFO_CP;
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_SAME(CP_VECTOR, n->vector, "vector that L1 injects");
	EXPECT_SAME(CP_INJECTED, n->vector_error, "error code that L1 injects");
	EXPECT_SAME(EXIT_REASON_VMCALL, n->exit.reason, "exit reason after an injected #CP");
}

XSTATE_HARNESS_MAIN
