// SPDX-License-Identifier: GPL-2.0-only
/*
 * MSRs that belong to extended state: those of CET, IA32_XSS, IA32_XFD and
 * IA32_XFD_ERR, and IA32_PASID, which no vCPU has.
 *
 * A table says which vCPUs have each of them and what it takes.  Host and guest
 * try that: KVM_SET_MSRS, KVM_SET_ONE_REG and WRMSR must agree.  Tests of their
 * own look at lists of MSRs and registers, filters, CPUID, and at what the host
 * has in its own MSRs afterwards.
 */
#include <sys/klog.h>

#include "xregs.h"

#ifndef X86_FEATURE_ENQCMD
#define X86_FEATURE_ENQCMD	KVM_X86_CPU_FEATURE(0x7, 0, ECX, 29)
#endif

/* Addresses of this width are canonical on every CPU. */
#define ADDRESS			GENMASK_ULL(46, 0)

/* U_CET and S_CET; KVM wants the legacy bitmap, from bit 12 on, to be aligned. */
#define CET_SHSTK_BITS		(CET_SHSTK_EN | CET_WRSS_EN)
#define CET_BITMAP_UNIT		BIT_ULL(14)
#define CET_IBT_BITS		(ADDRESS & ~(CET_SHSTK_BITS | CET_RESERVED | GENMASK_ULL(13, 12)))
/* Reserved in the one kind of CET MSR, not canonical in the other */
#define CET_BAD			(BIT_ULL(63) | BIT_ULL(6))

/* MSRs of KVM itself begin before these, which no KVM has. */
#define KVM_MSR_UNUSED		0x4b564d80
#define KVM_MSR_LAST		0x4b564dff

/* ---- the table ---- */

/* How a register is reached, and what a refusal is then */
enum way { BY_MSRS, BY_ONE_REG, BY_GUEST };

static const struct {
	const char *set, *get;
	int refusal;
} ways[] = {
	/* KVM_SET_MSRS says that it has done none; see take_step(). */
	[BY_MSRS]	= { "KVM_SET_MSRS", "KVM_GET_MSRS", EINVAL },
	[BY_ONE_REG]	= { "KVM_SET_ONE_REG", "KVM_GET_ONE_REG", EINVAL },
	[BY_GUEST]	= { "WRMSR", "RDMSR", GP_VECTOR },
};

/* tilezero %tmm0 */
#define TILEZERO		".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0"

struct msr_row {
	u32 msr;		/* 0 for SSP, a register of KVM_SET_ONE_REG alone */
	u64 shstk, ibt, amx;	/* bits that it takes if the vCPU has that */
	u64 tried;		/* bits that are valid, or not, on every CPU alike */
	u64 bad[3];		/* values that break another rule, up to a 0 */
};

/* The tracker cannot both wait and be suppressed. */
#define CET_CONTROL(index) {							\
	.msr = index, .shstk = CET_SHSTK_BITS, .ibt = CET_IBT_BITS,		\
	.tried = ADDRESS, .bad = { CET_BAD, CET_SUPPRESS | CET_WAIT_ENDBR },	\
}

#define CET_ADDRESS(index, aligned, ...) {					\
	.msr = index, .shstk = ADDRESS & ~((aligned) - 1ull),			\
	.tried = ADDRESS | BIT_ULL(63), .bad = { CET_BAD, ##__VA_ARGS__ },	\
}

/* In an order in which those in the fpstate are between others: that of lists, too */
static const struct msr_row rows[] = {
	CET_CONTROL(MSR_IA32_S_CET),
	CET_CONTROL(MSR_IA32_U_CET),
	CET_ADDRESS(MSR_IA32_INT_SSP_TAB, 1),
	CET_ADDRESS(MSR_IA32_PL0_SSP, 4, 0x1001, 0x1002),
	CET_ADDRESS(MSR_IA32_PL3_SSP, 4, 0x1001, 0x1002),
	CET_ADDRESS(0, 4, 0x1003, 0x1002),
	CET_ADDRESS(MSR_IA32_PL1_SSP, 4, 0x1001, 0x1002),
	/* What it takes is in CPUID: row_valid(). */
	{ .msr = MSR_IA32_XSS, .tried = ~0ull },
	CET_ADDRESS(MSR_IA32_PL2_SSP, 4, 0x1003, 0x1002),
	{ .msr = MSR_IA32_XFD, .amx = XFEATURE_MASK_XTILE_DATA, .tried = ~0ull },
	{ .msr = MSR_IA32_XFD_ERR, .amx = XFEATURE_MASK_XTILE_DATA, .tried = ~0ull },
	{ .msr = MSR_IA32_PASID, .tried = ~0ull, .bad = { MSR_IA32_PASID_VALID | 1 } },
};

#define END_OF_ROWS		(rows + ARRAY_SIZE(rows))

static const struct msr_row *row_of(u32 msr)
{
	const struct msr_row *m = rows;

	while (m->msr != msr)
		m++;
	return m;
}

static const char *row_name(u32 msr)
{
	return msr ? msr_name(msr) : "SSP";
}

/* All bits that it takes, each of them alone */
static u64 row_valid(struct kvm_vcpu *vcpu, const struct msr_row *m)
{
	if (m->msr == MSR_IA32_XSS)
		return vcpu_cpuid_has(vcpu, X86_FEATURE_XSAVES) ? vcpu_xss_mask(vcpu) : 0;
	return (vcpu_has_shstk(vcpu) ? m->shstk : 0) | (vcpu_has_ibt(vcpu) ? m->ibt : 0) |
	       (vcpu_has_amx(vcpu) ? m->amx : 0);
}

static bool row_exists(struct kvm_vcpu *vcpu, enum way way, const struct msr_row *m)
{
	switch (m->msr) {
	case MSR_IA32_XSS:
		/* Where no bit can be set, the host need not have it. */
		if (way == BY_GUEST)
			return vcpu_cpuid_has(vcpu, X86_FEATURE_XSAVES);
		break;
	case MSR_IA32_XFD:
	case MSR_IA32_XFD_ERR:
		/* What the host has saved it can restore, even if CPUID hides XFD. */
		return way != BY_GUEST || vcpu_cpuid_has(vcpu, X86_FEATURE_XFD);
	}
	return row_valid(vcpu, m);
}

static bool is_listed(u32 msr)
{
	return msr && kvm_msr_is_in_save_restore_list(msr);
}

/*
 * A valid value: with seed 0 what the vCPU has when nothing is tried, that is
 * what struct xregs says, and no component that is disarmed.
 */
static u64 row_value(struct kvm_vcpu *vcpu, const struct msr_row *m, u32 seed)
{
	if (!m->msr)
		return ssp_value(seed);
	if (m->shstk)
		return cet_msr_value(vcpu, m->msr, seed);
	return m->amx && !seed ? 0 : row_valid(vcpu, m);
}

/* ---- what is tried ---- */

struct step {
	u64 value;		/* to write; what is read then */
	u64 read;
	u32 msr;
	bool write;
	bool taken, readable;	/* what must become of it */
	int set, get;		/* 0, an errno, or the vector in the guest */
};

/* The script of host or guest */
static struct step steps[320];
static u32 nr_steps;

static void add_step(u32 msr, u64 value, bool taken, bool readable)
{
	TEST_ASSERT(nr_steps < ARRAY_SIZE(steps), "the script of %s is too long", row_name(msr));
	steps[nr_steps++] = (struct step) {
		.msr = msr, .value = value, .write = true, .taken = taken, .readable = readable,
	};
}

static void add_read(u32 msr, bool readable)
{
	add_step(msr, 0, false, readable);
	steps[nr_steps - 1].write = false;
}

/*
 * The last values on either side of what is not canonical, and the first ones there;
 * of U_CET and S_CET, all bits at once as well.  That the bitmap is canonical, the CPU
 * sees to, if the guest writes it.
 */
static void add_edges(struct kvm_vcpu *vcpu, enum way way, const struct msr_row *m)
{
	u64 half = address_end(), unit = m->shstk & -m->shstk, all;
	bool exists = row_exists(vcpu, way, m), mapped = exists && vcpu_has_ibt(vcpu);

	if (!m->ibt) {
		add_step(m->msr, half - unit, exists, exists);
		add_step(m->msr, half, false, exists);
		add_step(m->msr, -half, exists, exists);
		add_step(m->msr, -half - unit, false, exists);
		add_step(m->msr, -unit, exists, exists);
		return;
	}
	all = exists ? row_valid(vcpu, m) : m->shstk | m->ibt;
	if (way == BY_GUEST)
		all &= ~(CET_SHSTK_EN | CET_ENDBR_EN);
	add_step(m->msr, all & ~CET_SUPPRESS, exists, exists);
	add_step(m->msr, all & ~CET_WAIT_ENDBR, exists, exists);
	add_step(m->msr, all, exists && !mapped, exists);
	if (way == BY_GUEST && exists && !mapped)
		return;
	add_step(m->msr, half - CET_BITMAP_UNIT, mapped, exists);
	add_step(m->msr, -half, mapped, exists);
	add_step(m->msr, -CET_BITMAP_UNIT, mapped, exists);
	if (way == BY_GUEST)
		add_step(m->msr, half, false, exists);
}

/* Each bit alone, and what is invalid on top of a valid value as well */
static void add_tries(struct kvm_vcpu *vcpu, enum way way, const struct msr_row *m)
{
	bool exists = row_exists(vcpu, way, m), guest_cet = way == BY_GUEST && m->ibt;
	u64 valid = exists ? row_valid(vcpu, m) : 0, tried = m->tried, bit;
	unsigned int i;

	/*
	 * With one half of CET, the CPU lets the guest set what belongs to the
	 * other one.  CET that is on would be the end of a host that loses its own.
	 */
	if (guest_cet && exists)
		tried = (valid & ~(CET_SHSTK_EN | CET_ENDBR_EN)) | CET_RESERVED;
	for (i = 0; i < 64; i++) {
		bit = BIT_ULL(i);
		if (!(tried & bit))
			continue;
		add_step(m->msr, bit, valid & bit, exists);
		if (!(valid & bit))
			add_step(m->msr, row_value(vcpu, m, 2) | bit, false, exists);
	}
	for (i = 0; i < ARRAY_SIZE(m->bad) && m->bad[i]; i++)
		add_step(m->msr, m->bad[i], false, exists);
	if (m->msr == MSR_IA32_PASID)
		add_step(m->msr, 0, false, exists);
	/* What user space saves of any vCPU, it can restore. */
	if (!exists && way != BY_GUEST && is_listed(m->msr))
		add_step(m->msr, 0, true, false);
	/* Whether the bitmap is canonical, the CPU looks if the guest writes. */
	if (guest_cet)
		add_step(m->msr, BIT_ULL(63), false, exists);
	if (m->shstk)
		add_edges(vcpu, way, m);
}

static u64 step_reg(const struct step *s)
{
	return s->msr ? KVM_X86_REG_MSR(s->msr) : KVM_X86_REG_KVM(KVM_REG_GUEST_SSP);
}

static void take_step(struct kvm_vcpu *vcpu, enum way way, struct step *s)
{
	if (way == BY_ONE_REG) {
		if (s->write)
			s->set = __vcpu_set_reg(vcpu, step_reg(s), s->value) ? errno : 0;
		s->get = __vcpu_get_reg(vcpu, step_reg(s), &s->read) ? errno : 0;
		return;
	}
	if (s->write)
		s->set = vcpu_takes_msr(vcpu, s->msr, s->value) ? 0 : EINVAL;
	s->get = vcpu_reads_msr(vcpu, s->msr, &s->read) ? 0 : EINVAL;
}

static void guest_steps(void)
{
	struct step *s;

	for (s = steps; s < steps + nr_steps; s++) {
		if (s->write)
			s->set = wrmsr_safe(s->msr, s->value);
		s->get = rdmsr_safe(s->msr, &s->read);
	}
}

static void guest_steps_code(void)
{
	for (;;) {
		guest_steps();
		GUEST_SYNC(0);
	}
}

static void take_steps(struct kvm_vcpu *vcpu, enum way way)
{
	u32 i;

	if (way == BY_GUEST) {
		sync_global_to_guest(vcpu->vm, steps);
		sync_global_to_guest(vcpu->vm, nr_steps);
		xstate_run(vcpu, UCALL_SYNC);
		sync_global_from_guest(vcpu->vm, steps);
	}
	for (i = 0; i < nr_steps && way != BY_GUEST; i++)
		take_step(vcpu, way, &steps[i]);
}

static const char *result_name(enum way way, int result)
{
	return way == BY_GUEST ? vector_name(result) : th_errno_name(result);
}

/*
 * Step @i has read what it must.  Where the vCPU has not the register, the host
 * reads a 0 of each MSR that KVM lists, so that it can copy all of them from vCPU to
 * vCPU, and may of IA32_XSS.
 */
static void expect_read(struct __test_metadata *const _metadata, enum way way, u32 i, u64 kept)
{
	const struct step *s = &steps[i];
	bool listed = way != BY_GUEST && is_listed(s->msr);
	bool may = listed || (s->msr && !kvm_refuses_msrs()) || s->msr == MSR_IA32_XSS;
	int wanted = s->readable || listed ? 0 : ways[way].refusal;
	const char *name = row_name(s->msr);

	if (way != BY_GUEST && !s->readable && !s->get && may)
		EXPECT_SAME(0, s->read, "%s of %s, which the vCPU has not", ways[way].get, name);
	else if (EXPECT_THAT(s->get == wanted, "step %u: %s of %s: wanted %s got %s", i,
			     ways[way].get, name, result_name(way, wanted),
			     result_name(way, s->get)) && !wanted)
		EXPECT_SAME(kept, s->read, "step %u: %s of %s after %s of %#lx", i,
			    ways[way].get, name, s->write ? ways[way].set : "no write", s->value);
}

/*
 * What was taken and refused is as the steps say, and what was read is what was
 * taken last, or @kept at first.
 */
static void expect_steps(struct __test_metadata *const _metadata, enum way way, u64 kept)
{
	const struct step *s;
	int wanted;
	u32 i;

	for (i = 0; i < nr_steps; i++) {
		s = &steps[i];
		wanted = s->taken ? 0 : ways[way].refusal;
		if (s->write)
			EXPECT_THAT(s->set == wanted, "step %u: %s of %#lx to %s: wanted %s got %s",
				    i, ways[way].set, s->value, row_name(s->msr),
				    result_name(way, wanted), result_name(way, s->set));
		if (s->write && !s->set)
			kept = s->value;
		expect_read(_metadata, way, i, kept);
	}
}

/*
 * Try all of a row, twice: KVM may intercept an MSR until the guest has used it.
 * The register holds the value of seed 0 before and after that.
 */
static void expect_row(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		       enum way way, const struct msr_row *m)
{
	int i;

	nr_steps = 0;
	for (i = 0; i < 2; i++) {
		add_tries(vcpu, way, m);
		if (row_exists(vcpu, way, m))
			add_step(m->msr, row_value(vcpu, m, i ? 0 : 2), true, true);
	}
	take_steps(vcpu, way);
	expect_steps(_metadata, way, row_value(vcpu, m, 0));
}

/* Nothing else may change: @mask of the components, CET, SSP, IA32_XSS, XCR0. */
static void expect_table(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			 enum way way, const struct xregs *regs, u64 mask)
{
	const struct msr_row *m;
	char when[64];

	for (m = rows; m < END_OF_ROWS; m++) {
		if (!m->msr && way != BY_ONE_REG)
			continue;
		expect_row(_metadata, vcpu, way, m);
		snprintf(when, sizeof(when), "%s to %s", ways[way].set, row_name(m->msr));
		expect_xregs(_metadata, vcpu, regs, mask, when);
	}
}

/* ---- tests of ioctls ---- */

FIXTURE(xstate_msrs) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xregs regs;
	u64 mask;		/* components that the vCPU holds contents in */
};

XSTATE_SUITE(xstate_msrs);

FIXTURE_VARIANT_ADD(xstate_msrs, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_msrs, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_msrs, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_msrs, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_msrs, host_noamx_cet) { .combo = { PERM_HOST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_msrs, guest_noamx_cet) { .combo = { PERM_GUEST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_msrs, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_msrs, both_amx_nocet) { .combo = { PERM_BOTH, AMX, NOCET } };

FIXTURE_SETUP(xstate_msrs)
{
	if (!xstate_begin(_metadata, &variant->combo))
		return;
	/* Where there is no permission to be had, this is none_* once more. */
	if (variant->combo.perm != PERM_NONE && !xf_has_amx())
		SKIP(return, "no AMX on this machine");
	self->vcpu = xstate_new_vcpu(&self->vm, &variant->combo);
	/* Tile data that IA32_XFD disarms would be the end of some hosts. */
	self->mask = xregs_mask(vcpu_xcr0_mask(self->vcpu)) & ~XFEATURE_MASK_XTILE;
	xregs_fill(&self->regs, self->vcpu, 0);
}

/* Verify that all registers are 0 after reset, those that the vCPU has not included. */
TEST_F(xstate_msrs, reset)
{
	const struct msr_row *m;

	for (m = rows; m < END_OF_ROWS; m++)
		if (m->msr)
			add_read(m->msr, row_exists(self->vcpu, BY_MSRS, m));
	take_steps(self->vcpu, BY_MSRS);
	th_case("after reset");
	expect_steps(_metadata, BY_MSRS, 0);
}

/*
 * Verify that KVM_SET_MSRS takes what the table says, bit by bit, and that a
 * refused value changes nothing.
 */
TEST_F(xstate_msrs, values)
{
	if (!xstate_need_refusals(_metadata))
		return;
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
	expect_table(_metadata, self->vcpu, BY_MSRS, &self->regs, self->mask);
}

/* SKIP if KVM is too old; guest CET came after it, and needs it for SSP. */
static bool has_one_reg(struct __test_metadata *const _metadata)
{
	if (kvm_check_cap(KVM_CAP_ONE_REG) > 0)
		return true;
	EXPECT_THAT(!kvm_cpu_has(X86_FEATURE_SHSTK), "shadow stacks, but no KVM_CAP_ONE_REG");
	SKIP(return false, "no KVM_CAP_ONE_REG");
}

/* Verify that KVM_SET_ONE_REG takes the same, and the values of SSP. */
TEST_F(xstate_msrs, values_one_reg)
{
	if (!has_one_reg(_metadata) || !xstate_need_refusals(_metadata))
		return;
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
	expect_table(_metadata, self->vcpu, BY_ONE_REG, &self->regs, self->mask);
}

/*
 * Verify that a register with any other type, size or architecture, or with a
 * reserved bit, is no register: it can be neither read nor written.
 */
TEST_F(xstate_msrs, one_reg_ids)
{
	const u64 ids[] = { KVM_X86_REG_MSR(MSR_IA32_U_CET), KVM_X86_REG_KVM(KVM_REG_GUEST_SSP) };
	u64 value[2] = { ssp_value(1), 0x5a };
	unsigned int i;
	int bit;

	if (!has_one_reg(_metadata))
		return;
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		/* With bit 32 the one type is the other. */
		for (bit = 33; bit < 64; bit++) {
			struct kvm_one_reg reg = {
				.id = ids[i] ^ BIT_ULL(bit), .addr = (unsigned long)value,
			};

			th_case("register %#llx", reg.id);
			EXPECT_ERRNO(EINVAL, vcpu_errno(self->vcpu, KVM_GET_ONE_REG, &reg),
				     "KVM_GET_ONE_REG");
			EXPECT_ERRNO(EINVAL, vcpu_errno(self->vcpu, KVM_SET_ONE_REG, &reg),
				     "KVM_SET_ONE_REG");
			EXPECT_SAME(ssp_value(1), value[0], "memory for the register");
			EXPECT_SAME(0x5a, value[1], "memory behind the register");
		}
	}
	th_no_case();
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "refused KVM registers");
}

/* Whether there is @msr, by CPUID of the CPU or by what KVM offers, which @has looks at */
static bool has_msr(bool (*has)(struct kvm_x86_cpu_feature feature), u32 msr)
{
	switch (msr) {
	case 0:
	case MSR_IA32_PASID:
		return false;
	case MSR_IA32_U_CET:
	case MSR_IA32_S_CET:
		return has(X86_FEATURE_SHSTK) || has(X86_FEATURE_IBT);
	case MSR_IA32_XSS:
		return has == this_cpu_has ? has(X86_FEATURE_XSAVES) : kvm_offered_xss();
	case MSR_IA32_XFD:
	case MSR_IA32_XFD_ERR:
		return has(X86_FEATURE_XFD);
	case MSR_IA32_PL0_SSP:
		return has(X86_FEATURE_SHSTK) || has(X86_FEATURE_FRED);
	}
	return has(X86_FEATURE_SHSTK);
}

/* Verify that KVM lists for saving what guests may have, whatever is permitted. */
TEST_F(xstate_msrs, msr_list)
{
	const struct msr_row *m;

	for (m = rows; m < END_OF_ROWS; m++)
		if (m->msr)
			EXPECT_SAME(has_msr(kvm_cpu_has, m->msr),
				    kvm_msr_is_in_save_restore_list(m->msr),
				    "%s in KVM_GET_MSR_INDEX_LIST", msr_name(m->msr));
}

/*
 * Verify that KVM_GET_REG_LIST tells how many registers there are to who has no
 * room for them, and writes none; that it lists SSP exactly if the vCPU has
 * shadow stacks; and that it is not there without its capability.
 */
TEST_F(xstate_msrs, reg_list)
{
	struct kvm_reg_list *list = calloc(1, sizeof(*list) + 64 * sizeof(list->reg[0]));
	u64 found = 0;
	int error;
	u32 i;

	ASSERT_NE(NULL, list);
	for (i = 0; i < 64; i++)
		list->reg[i] = 0x5a;
	error = vcpu_errno(self->vcpu, KVM_GET_REG_LIST, list);
	if (kvm_check_cap(KVM_CAP_ONE_REG) <= 0) {
		EXPECT_THAT(error && error != E2BIG, "KVM_GET_REG_LIST without a capability: %s",
			    th_errno_name(error));
		SKIP(return, "no KVM_CAP_ONE_REG");
	}
	EXPECT_ERRNO(list->n ? E2BIG : 0, error, "KVM_GET_REG_LIST, no room for %llu", list->n);
	EXPECT_THAT(list->n >= vcpu_has_shstk(self->vcpu), "KVM_GET_REG_LIST counts no register");
	for (i = 0; i < 64; i++)
		EXPECT_SAME(0x5a, list->reg[i], "entry %u of a list that has none", i);

	ASSERT_GE(64, list->n);
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_GET_REG_LIST, list), "KVM_GET_REG_LIST");
	for (i = 0; i < list->n; i++)
		found += list->reg[i] == KVM_X86_REG_KVM(KVM_REG_GUEST_SSP);
	EXPECT_SAME(vcpu_has_shstk(self->vcpu), found, "SSP in KVM_GET_REG_LIST");
	free(list);
}

/* Verify the same of the host's view where CPUID hides XFD from the guest. */
TEST_F(xstate_msrs, hidden_xfd)
{
	if (!kvm_cpu_has(X86_FEATURE_XFD))
		SKIP(return, "XFD is not in guest CPUID");
	vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_XFD);
	expect_row(_metadata, self->vcpu, BY_MSRS, row_of(MSR_IA32_XFD));
	expect_row(_metadata, self->vcpu, BY_MSRS, row_of(MSR_IA32_XFD_ERR));
}

/* ---- lists of MSRs ---- */

/* Those that the vCPU has, in the order of the table or the other way round */
static struct kvm_msrs *new_list(struct kvm_vcpu *vcpu, u32 seed, bool reverse)
{
	struct kvm_msrs *list = calloc(1, sizeof(*list) +
				       ARRAY_SIZE(rows) * sizeof(*list->entries));
	const struct msr_row *m;
	unsigned int i;

	TEST_ASSERT(list, "no memory for a list of MSRs");
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		m = reverse ? END_OF_ROWS - 1 - i : rows + i;
		if (m->msr && row_exists(vcpu, BY_MSRS, m))
			list->entries[list->nmsrs++] = (struct kvm_msr_entry) {
				.index = m->msr, .data = row_value(vcpu, m, seed),
			};
	}
	return list;
}

/* Verify that the order of a list does not matter to what is set and read. */
TEST_F(xstate_msrs, list_order)
{
	struct kvm_msrs *set, *got;
	u32 i, seed, msr;
	u64 wanted;

	for (seed = 1; seed < 5; seed++) {
		th_case("list %u", seed);
		set = new_list(self->vcpu, seed, seed & 1);
		got = new_list(self->vcpu, 0, seed & 2);
		EXPECT_SAME(set->nmsrs, __vcpu_ioctl(self->vcpu, KVM_SET_MSRS, set),
			    "KVM_SET_MSRS");
		EXPECT_SAME(got->nmsrs, __vcpu_ioctl(self->vcpu, KVM_GET_MSRS, got),
			    "KVM_GET_MSRS");
		for (i = 0; i < got->nmsrs; i++) {
			msr = got->entries[i].index;
			wanted = row_value(self->vcpu, row_of(msr), seed);
			EXPECT_SAME(wanted, got->entries[i].data, "KVM_GET_MSRS of a list: %s",
				    msr_name(msr));
			EXPECT_SAME(wanted, vcpu_get_msr(self->vcpu, msr),
				    "%s after KVM_SET_MSRS of a list", msr_name(msr));
		}
		free(set);
		free(got);
	}
}

/*
 * Verify that KVM_SET_MSRS ends at the first MSR that it refuses: those before
 * it are set, those after it keep what they had.
 */
TEST_F(xstate_msrs, list_refused_within)
{
	struct kvm_msrs *had = new_list(self->vcpu, 0, false), *list;
	u32 i, j;

	for (i = 0; i < had->nmsrs; i++) {
		th_case("a list with a bad value at %u", i);
		EXPECT_SAME(had->nmsrs, __vcpu_ioctl(self->vcpu, KVM_SET_MSRS, had),
			    "KVM_SET_MSRS of good values");
		list = new_list(self->vcpu, 2, false);
		list->entries[i].data = CET_BAD;
		EXPECT_SAME(i, __vcpu_ioctl(self->vcpu, KVM_SET_MSRS, list), "KVM_SET_MSRS");
		for (j = 0; j < had->nmsrs; j++)
			EXPECT_SAME((j < i ? list : had)->entries[j].data,
				    vcpu_get_msr(self->vcpu, had->entries[j].index), "%s",
				    msr_name(had->entries[j].index));
		free(list);
	}
}

/* ---- tests of guests ---- */

FIXTURE(xstate_msrs_guest) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xregs regs;
};

XSTATE_SUITE(xstate_msrs_guest);

FIXTURE_VARIANT_ADD(xstate_msrs_guest, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_msrs_guest, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_msrs_guest, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_msrs_guest, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_msrs_guest, guest_noamx_cet) { .combo = { PERM_GUEST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_msrs_guest, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(xstate_msrs_guest)
{
	if (!xstate_begin(_metadata, &variant->combo) || !xstate_need_refusals(_metadata) ||
	    !xstate_need_guests(_metadata))
		return;
	if (variant->combo.perm != PERM_NONE && !xf_has_amx())
		SKIP(return, "no AMX on this machine");
	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_steps_code);
	xregs_fill(&self->regs, self->vcpu, 0);
}

/* Verify that WRMSR of the guest takes the same, and that a #GP changes nothing. */
TEST_F(xstate_msrs_guest, values)
{
	vcpu_set_cet(_metadata, self->vcpu, &self->regs);
	expect_table(_metadata, self->vcpu, BY_GUEST, &self->regs, 0);
}

/* Verify that a guest whose CPUID hides XFD has neither of its MSRs. */
TEST_F(xstate_msrs_guest, hidden_xfd)
{
	vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_XFD);
	expect_row(_metadata, self->vcpu, BY_GUEST, row_of(MSR_IA32_XFD));
	expect_row(_metadata, self->vcpu, BY_GUEST, row_of(MSR_IA32_XFD_ERR));
}

/*
 * Verify that without XSAVES in its CPUID neither the guest nor the host can
 * set a bit of IA32_XSS, although KVM knows the MSR.
 */
TEST_F(xstate_msrs_guest, without_xsaves)
{
	vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_XSAVES);
	expect_row(_metadata, self->vcpu, BY_MSRS, row_of(MSR_IA32_XSS));
	if (kvm_offered_xss())
		EXPECT_SAME(0, vcpu_get_msr(self->vcpu, MSR_IA32_XSS), "IA32_XSS without XSAVES");
	expect_row(_metadata, self->vcpu, BY_GUEST, row_of(MSR_IA32_XSS));
	expect_row(_metadata, self->vcpu, BY_GUEST, row_of(MSR_IA32_PASID));
}

/* Put into CPUID all that would announce PASID. */
static void stuff_pasid(struct kvm_vcpu *vcpu)
{
	struct kvm_cpuid2 *c = allocate_kvm_cpuid2(vcpu->cpuid->nent + 1);
	struct kvm_cpuid_entry2 *e;

	memcpy(c->entries, vcpu->cpuid->entries, vcpu->cpuid->nent * sizeof(*e));
	c->entries[vcpu->cpuid->nent] = (struct kvm_cpuid_entry2) {
		.function = 0xd, .index = XFEATURE_PASID,
		.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		.eax = 8, .ecx = 1,
	};
	cpuid_entry(c, 7, 0)->ecx |= BIT(X86_FEATURE_ENQCMD.bit);
	e = cpuid_entry(c, 0xd, 1);
	if (e)
		e->ecx |= XFEATURE_MASK_PASID;
	vcpu_init_cpuid(vcpu, c);
	free(c);
}

/*
 * Verify that a guest CPUID with ENQCMD and PASID in it has no effect: neither
 * the host nor the guest can set the bit or use the MSR, and CET still works.
 */
TEST_F(xstate_msrs_guest, pasid_stuffed)
{
	struct kvm_vcpu *vcpu = self->vcpu;

	stuff_pasid(vcpu);
	vcpu_set_cet(_metadata, vcpu, &self->regs);
	expect_row(_metadata, vcpu, BY_MSRS, row_of(MSR_IA32_PASID));
	expect_row(_metadata, vcpu, BY_MSRS, row_of(MSR_IA32_XSS));
	expect_row(_metadata, vcpu, BY_GUEST, row_of(MSR_IA32_PASID));
	expect_row(_metadata, vcpu, BY_GUEST, row_of(MSR_IA32_XSS));
	expect_xregs(_metadata, vcpu, &self->regs, 0, "a guest that tried for PASID");
}

/*
 * Verify that no MSR of KVM gives the guest its SSP, or anything else that it
 * has other instructions for.
 */
TEST_F(xstate_msrs_guest, no_kvm_msr)
{
	u32 msr;

	vcpu_set_cet(_metadata, self->vcpu, &self->regs);
	for (msr = KVM_MSR_UNUSED; msr <= KVM_MSR_LAST; msr++)
		add_step(msr, ssp_value(1), false, false);
	take_steps(self->vcpu, BY_GUEST);
	expect_steps(_metadata, BY_GUEST, 0);
	expect_xregs(_metadata, self->vcpu, &self->regs, 0, "refused WRMSR");
}

/* Deny @access, KVM_MSR_FILTER_READ, _WRITE, both or none, to all MSRs of CET. */
static void deny_cet_msrs(struct kvm_vm *vm, u32 access)
{
	u64 allowed = 0;
	struct kvm_msr_filter filter = {
		.ranges[0] = {
			.flags = access,
			.base = MSR_IA32_U_CET,
			.nmsrs = access ? MSR_IA32_INT_SSP_TAB - MSR_IA32_U_CET + 1 : 0,
			.bitmap = (u8 *)&allowed,
		},
	};

	vm_ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter);
}

/*
 * With @denied, the guest has the MSRs but for that, and what it and the host
 * read is what was last written: of @seed before, of @next after writes that
 * are allowed.
 */
static void expect_filtered(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			    u32 denied, u32 seed, u32 next)
{
	bool may_read = !(denied & KVM_MSR_FILTER_READ), has;
	bool may_write = !(denied & KVM_MSR_FILTER_WRITE);
	u64 old, new;
	u32 msr;
	int i;

	th_case("reads %s, writes %s", may_read ? "allowed" : "denied",
		may_write ? "allowed" : "denied");
	deny_cet_msrs(vcpu->vm, denied);
	for (i = 0; i < NR_CET_MSRS; i++) {
		msr = cet_msrs[i];
		old = cet_msr_value(vcpu, msr, seed);
		new = cet_msr_value(vcpu, msr, next);
		has = vcpu_has_cet_msr(vcpu, msr);
		nr_steps = 0;
		add_read(msr, has && may_read);
		add_step(msr, new, has && may_write, has && may_read);
		take_steps(vcpu, BY_GUEST);
		expect_steps(_metadata, BY_GUEST, old);
		if (has)
			EXPECT_SAME(may_write ? new : old, vcpu_get_msr(vcpu, msr), "%s",
				    msr_name(msr));
	}
}

/*
 * Verify that a filter that user space sets while the guest uses the MSRs holds
 * for the next RDMSR or WRMSR, that it leaves the values alone, and that the
 * guest has the MSRs again once it is gone.
 */
TEST_F(xstate_msrs_guest, filtered)
{
	const u32 both = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;

	vcpu_set_cet(_metadata, self->vcpu, &self->regs);
	expect_filtered(_metadata, self->vcpu, 0, 0, 1);
	expect_filtered(_metadata, self->vcpu, KVM_MSR_FILTER_READ, 1, 2);
	expect_filtered(_metadata, self->vcpu, KVM_MSR_FILTER_WRITE, 2, 3);
	expect_filtered(_metadata, self->vcpu, both, 2, 3);
	expect_filtered(_metadata, self->vcpu, 0, 2, 5);
}

static u8 guest_vector;

/* XRSTORS of an area that has CET in its initial state, again and again */
static void guest_xrstors_code(void)
{
	static u8 area[XF_BASE_SIZE + 64] __aligned(64);

	*(u64 *)(area + XF_HEADER_OFFSET + 8) = XCOMP_BV_COMPACTED | XFEATURE_MASK_CET;
	for (;;) {
		guest_vector = kvm_asm_safe("xrstors64 (%[area])", [area] "r" (area),
					    "a" ((u32)XFEATURE_MASK_CET), "d" (0));
		GUEST_SYNC(0);
	}
}

/*
 * Verify that IA32_XSS must be back before a guest that was saved can run on:
 * XRSTORS of a supervisor component that is not in it raises #GP.  That is what
 * became of snapshots whose IA32_XSS nobody saved.
 */
TEST_F(xstate_msrs_guest, xss_before_xrstors)
{
	u64 all = vcpu_xss_mask(self->vcpu), xss[] = { all, 0, all };
	bool has_xss = kvm_cpu_has(X86_FEATURE_XSAVES);
	u8 wanted;
	u32 i;

	if (!has_xss && host_cpu_is_amd)
		SKIP(return, "SVM lets guests use XSAVES without asking");
	vcpu_arch_set_entry_point(self->vcpu, guest_xrstors_code);
	for (i = 0; i < ARRAY_SIZE(xss); i++) {
		wanted = xss[i] ? 0 : has_xss ? GP_VECTOR : UD_VECTOR;
		if (all)
			vcpu_set_msr(self->vcpu, MSR_IA32_XSS, xss[i]);
		xstate_run(self->vcpu, UCALL_SYNC);
		sync_global_from_guest(self->vm, guest_vector);
		EXPECT_THAT(wanted == guest_vector,
			    "XRSTORS of CET, turn %u, IA32_XSS %#lx: wanted %s got %s", i,
			    (unsigned long)xss[i], vector_name(wanted), vector_name(guest_vector));
	}
}

/* ---- what the host has in its MSRs ---- */

/*
 * The script of the guest below: it changes all of CET, and IA32_XSS.  Values
 * of CET do no harm in MSRs of the host.
 */
static void script_all(struct kvm_vcpu *vcpu)
{
	const struct msr_row *m;

	for (m = rows; m < END_OF_ROWS; m++)
		if (m->msr && !m->amx && row_exists(vcpu, BY_GUEST, m))
			add_step(m->msr, row_value(vcpu, m, 1), true, true);
	sync_global_to_guest(vcpu->vm, steps);
	sync_global_to_guest(vcpu->vm, nr_steps);
}

/* Where it has exited, by the turns of the loop in TEST_F(xstate_msrs_guest, host_keeps) */
static const char * const host_turns[] = {
	"WRMSR of the guest", "another run", "#NM in the guest", "use of AMX in the guest",
};

static struct xregs guest_tiles;

static void guest_all_code(void)
{
	guest_steps();
	GUEST_SYNC(0);
	guest_steps();
	GUEST_SYNC(1);
	if (!(xgetbv(0) & XFEATURE_MASK_XTILE_DATA))
		GUEST_DONE();

	/* Switch AMX off, miss it, and use it. */
	tile_load_config(guest_tiles.tilecfg);
	wrmsr(MSR_IA32_XFD, XFEATURE_MASK_XTILE_DATA);
	GUEST_ASSERT_EQ(kvm_asm_safe(TILEZERO), NM_VECTOR);
	GUEST_SYNC(2);
	wrmsr(MSR_IA32_XFD_ERR, 0);
	wrmsr(MSR_IA32_XFD, 0);
	tile_load(guest_tiles.tile[0]);
	GUEST_SYNC(3);
	GUEST_DONE();
}

/* What the host had in its MSRs before the guest had values of its own */
static u64 host_values[ARRAY_SIZE(rows)];

/* Take note of that, and prepare the guest.  Return where MSRs of the host are read, or -1. */
static int begin_host(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		      const struct xregs *regs)
{
	int fd = xf_open_msrs(_metadata, O_RDONLY);
	const struct msr_row *m;

	for (m = rows; m < END_OF_ROWS; m++) {
		if (fd < 0 || (has_msr(this_cpu_has, m->msr) &&
			       pread(fd, &host_values[m - rows], 8, m->msr) != 8))
			SKIP(return -1, "cannot read MSRs of the host");
		if (has_msr(this_cpu_has, m->msr))
			host_values[m - rows] = xf_read_msr(_metadata, fd, m->msr);
	}
	vcpu_arch_set_entry_point(vcpu, guest_all_code);
	guest_tiles = *regs;
	sync_global_to_guest(vcpu->vm, guest_tiles);
	vcpu_set_xregs(_metadata, vcpu, regs,
		       xregs_mask(vcpu_xcr0_mask(vcpu)) & ~XFEATURE_MASK_XTILE);
	script_all(vcpu);
	return fd;
}

static void expect_host(struct __test_metadata *const _metadata, int fd, const char *when)
{
	const struct msr_row *m;

	for (m = rows; m < END_OF_ROWS; m++)
		if (has_msr(this_cpu_has, m->msr))
			EXPECT_SAME(host_values[m - rows], xf_read_msr(_metadata, fd, m->msr),
				    "%s of the host after %s", msr_name(m->msr), when);
}

/*
 * Verify that no ioctl leaves a value of the guest in the CPU, nor does a guest
 * that runs and changes its CET, and if it has AMX, switches that off, misses it,
 * and uses it.
 */
TEST_F(xstate_msrs_guest, host_keeps)
{
	int fd = begin_host(_metadata, self->vcpu, &self->regs);
	int i, nr = vcpu_has_amx(self->vcpu) ? 4 : 2;

	if (fd < 0)
		return;
	expect_host(_metadata, fd, "KVM_SET_MSRS");
	expect_cet(_metadata, self->vcpu, &self->regs, "KVM_SET_MSRS");
	expect_host(_metadata, fd, "KVM_GET_MSRS");
	xstate_run_immediate_exit(self->vcpu);
	expect_host(_metadata, fd, "KVM_RUN without a run");
	for (i = 0; i < nr; i++) {
		xstate_run(self->vcpu, UCALL_SYNC);
		expect_host(_metadata, fd, host_turns[i]);
	}
	xstate_run(self->vcpu, UCALL_DONE);
	/* That it did. */
	sync_global_from_guest(self->vm, steps);
	expect_steps(_metadata, BY_GUEST, 0);
}

/* The kernel said at boot that it uses branch tracking itself. */
static bool kernel_tracks_branches(void)
{
	/* "Read all messages remaining in the ring buffer", see syslog(2) */
	const int read_all = 3, size = 1 << 20;
	char *log = calloc(1, size);
	bool found;

	/* On the heap: a guest's memory holds all that is static. */
	found = log && klogctl(read_all, log, size - 1) > 0 &&
		strstr(log, "Indirect Branch Tracking enabled");
	free(log);
	return found;
}

/*
 * Verify that a kernel that tracks branches still does after KVM_RUN.  What
 * IA32_S_CET held before does not tell: this may not be the first guest.
 */
TEST_F(xstate_msrs_guest, host_kernel_ibt)
{
	int fd = begin_host(_metadata, self->vcpu, &self->regs);

	if (fd < 0)
		return;
	if (!kernel_tracks_branches())
		SKIP(return, "cannot tell: no word of the kernel on branch tracking");
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_SAME(CET_ENDBR_EN, xf_read_msr(_metadata, fd, MSR_IA32_S_CET) & CET_ENDBR_EN,
		    "ENDBR_EN in IA32_S_CET of the host after KVM_RUN");
}

XSTATE_IOCTL_HARNESS_MAIN
