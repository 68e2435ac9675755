// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CET MSRs as user space sees them: which bits they take, in lists of any
 * order, with a refused one among them, and as "KVM registers", whose numbers
 * have reserved fields. The guest's SSP is such a register and no MSR. What user
 * space denies to the guest by a filter, the guest does not have.
 */
#include "xstate_util.h"

/* An MSR as a "KVM register" */
#define REG_MSR(msr)		(0x2030000200000000ull | (msr))

/* Bits of U_CET and S_CET; the address of the legacy bitmap begins at 12. */
#define CET_RESERVED_FIRST	6
#define CET_RESERVED_LAST	9
#define CET_BITMAP		12
#define CET_BITMAP_ALIGNED	14

/* Addresses of this width are canonical on every CPU. */
#define CET_BITMAP_END		47

/* The MSRs of KVM itself lie here, those it has at the beginning. */
#define KVM_MSR_UNUSED		0x4b564d80
#define KVM_MSR_LAST		0x4b564dff

FIXTURE(cet_msrs) {
	struct xcomp x;
	struct kvm_vm *vm;
	uint64_t taint;
};

FIXTURE_VARIANT(cet_msrs) {
	const char *name;
};

FIXTURE_SETUP(cet_msrs)
{
	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(&self->x, variant->name));
	if (self->x.amx && !self->x.have_amx)
		SKIP(return, "no AMX on this machine");
	if (!xkvm_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	self->vm = vm_create_barebones();
	xstate_add_vcpu(&self->x, self->vm, 0);
	ASSERT_TRUE(xstate_fill(&self->x, 0));
}

FIXTURE_TEARDOWN(cet_msrs)
{
	if (self->vm)
		kvm_vm_free(self->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

XSTATE_VARIANT(cet_msrs, none_noamx_nocet);
XSTATE_VARIANT(cet_msrs, none_noamx_shstk);
XSTATE_VARIANT(cet_msrs, none_noamx_ibt);
XSTATE_VARIANT(cet_msrs, none_noamx_cet);
XSTATE_VARIANT(cet_msrs, guest_amx_cet);

/* Whether U_CET and S_CET of this guest have bit @nr */
static bool has_bit(const struct xcomp *x, int nr)
{
	if (nr < 2)
		return x->shstk_on;
	if ((nr >= CET_RESERVED_FIRST && nr <= CET_RESERVED_LAST) ||
	    (nr >= CET_BITMAP && nr < CET_BITMAP_ALIGNED))
		return false;
	return x->ibt_on;
}

/*
 * Verify, bit by bit, that U_CET and S_CET take what belongs to the half of CET
 * that the guest has, and that a refused value leaves them as they were.
 */
TEST_F(cet_msrs, bits)
{
	const uint32_t msrs[] = { XF_MSR_U_CET, XF_MSR_S_CET };
	struct xcomp *x = &self->x;
	uint64_t kept;
	unsigned int i;
	int nr;

	for (i = 0; i < ARRAY_SIZE(msrs); i++) {
		kept = xcomp_has_msr(x, msrs[i]) ? xstate_msr(x, msrs[i]) : 0;
		for (nr = 0; nr < CET_BITMAP_END; nr++) {
			EXPECT_EQ(has_bit(x, nr),
				  xkvm_set_msr(x->vcpu, msrs[i], XF_BIT(nr))) {
				ksft_print_msg("%s: %s, bit %d\n", x->name,
					       xf_msr_name(msrs[i]), nr);
			}
			if (has_bit(x, nr))
				kept = XF_BIT(nr);
			if (xcomp_has_msr(x, msrs[i]))
				EXPECT_EQ(kept, xstate_msr(x, msrs[i]));
		}
	}
}

/*
 * A list of the MSRs that the guest has, and how many: those in the fpstate
 * between others, the latter first, or all the other way round.
 */
static int fill_list(struct xcomp *x, struct kvm_msr_entry *list,
		     unsigned int seed, bool reverse)
{
	static const uint32_t mixed[] = {
		XF_MSR_S_CET, XF_MSR_U_CET, XF_MSR_INT_SSP_TAB, XF_MSR_PL0_SSP,
		XF_MSR_PL3_SSP, XF_MSR_PL1_SSP, XF_MSR_PL2_SSP,
	};
	unsigned int i;
	uint32_t msr;
	int nr = 0;

	for (i = 0; i < ARRAY_SIZE(mixed); i++) {
		msr = mixed[reverse ? ARRAY_SIZE(mixed) - 1 - i : i];
		if (!xcomp_has_msr(x, msr))
			continue;
		list[nr].index = msr;
		list[nr++].data = xstate_msr_value(x, msr, seed);
	}
	return nr;
}

/* Verify that the order of a list does not matter to what is set and read. */
TEST_F(cet_msrs, order)
{
	struct kvm_msr_entry list[ARRAY_SIZE(xcomp_cet_msrs)] = { 0 };
	struct xcomp *x = &self->x;
	int i, j, nr;

	for (i = 1; i < 5; i++) {
		nr = fill_list(x, list, i, i & 1);
		ASSERT_EQ(nr, nr ? xkvm_set_msrs(x->vcpu, list, nr) : 0);
		EXPECT_TRUE(xstate_cet_kept(x, i, "KVM_SET_MSRS of a list"));
		nr = fill_list(x, list, 0, i & 2);
		ASSERT_EQ(nr, nr ? xkvm_get_msrs(x->vcpu, list, nr) : 0);
		for (j = 0; j < nr; j++)
			EXPECT_EQ(xstate_msr_value(x, list[j].index, i),
				  list[j].data);
	}
}

/*
 * Verify that KVM_SET_MSRS ends at the first MSR that it refuses: those before
 * it are set, those after it keep what they had, as does all other state.
 */
TEST_F(cet_msrs, refused_within)
{
	struct kvm_msr_entry list[ARRAY_SIZE(xcomp_cet_msrs)] = { 0 };
	struct xcomp *x = &self->x;
	unsigned int seed;
	int i, j, nr;

	nr = fill_list(x, list, 0, false);
	for (i = 0; i < nr; i++) {
		ASSERT_TRUE(xstate_fill(x, 0));
		fill_list(x, list, 2, false);
		/* Reserved in the one kind of MSR, not canonical in the other */
		list[i].data = XF_BIT(63) | XF_BIT(CET_RESERVED_FIRST);
		EXPECT_EQ(i, xkvm_set_msrs(x->vcpu, list, nr));
		for (j = 0; j < nr; j++) {
			seed = j < i ? 2 : 0;
			EXPECT_TRUE(xf_msr_kept(x->name, list[j].index,
						"a list with a refused MSR",
				xstate_msr_value(x, list[j].index, seed),
				xstate_msr(x, list[j].index)));
		}
	}
}

/*
 * Verify that a register with any other type, size or architecture, or with a
 * reserved bit, is no register: it can be neither read nor written.
 */
TEST_F(cet_msrs, one_reg_ids)
{
	const uint64_t ids[] = { REG_MSR(XF_MSR_U_CET), XKVM_REG_GUEST_SSP };
	struct xcomp *x = &self->x;
	uint64_t id, value[2];
	unsigned int i;
	int bit;

	if (xkvm_cap(x->kvm, KVM_CAP_ONE_REG) <= 0)
		SKIP(return, "no KVM_CAP_ONE_REG");
	for (i = 0; i < ARRAY_SIZE(ids); i++)
		/* With bit 32 the one type is the other. */
		for (bit = 33; bit < 64; bit++) {
			id = ids[i] ^ XF_BIT(bit);
			value[0] = XCOMP_GUEST_SSP - 16;
			value[1] = 0x5a;
			EXPECT_EQ(EINVAL, xkvm_one_reg(x->vcpu, KVM_GET_ONE_REG,
						       id, value)) {
				ksft_print_msg("%s: register %#lx read\n",
					       x->name, id);
			}
			EXPECT_EQ(EINVAL, xkvm_one_reg(x->vcpu, KVM_SET_ONE_REG,
						       id, value)) {
				ksft_print_msg("%s: register %#lx written\n",
					       x->name, id);
			}
			EXPECT_EQ(XCOMP_GUEST_SSP - 16, value[0]);
			EXPECT_EQ(0x5a, value[1]);
		}
	EXPECT_TRUE(xstate_kept(x, 0, "refused KVM registers"));
}

/*
 * Verify that a refused value leaves a register as it was, and the vCPU in a
 * state in which all others can be read.
 */
TEST_F(cet_msrs, one_reg_refused)
{
	struct xcomp *x = &self->x;
	uint64_t bad = XF_BIT(63) | XF_BIT(CET_RESERVED_FIRST);
	unsigned int i;

	if (xkvm_cap(x->kvm, KVM_CAP_ONE_REG) <= 0)
		SKIP(return, "no KVM_CAP_ONE_REG");
	ASSERT_TRUE(xstate_fill(x, 0));
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		EXPECT_EQ(EINVAL, xkvm_one_reg(x->vcpu, KVM_SET_ONE_REG,
					       REG_MSR(xcomp_cet_msrs[i]),
					       &bad));
		EXPECT_TRUE(xstate_kept(x, 0, "a refused register"));
	}
}

/*
 * Verify that KVM_GET_REG_LIST tells how many registers there are to who has no
 * room for them, and writes none, and that it is not there without its
 * capability.
 */
TEST_F(cet_msrs, reg_list_size)
{
	struct {
		struct kvm_reg_list head;
		uint64_t ids[2];
	} list = { .ids = { 0x5a, 0x5a } };
	struct xcomp *x = &self->x;

	errno = 0;
	if (xkvm_cap(x->kvm, KVM_CAP_ONE_REG) <= 0) {
		ASSERT_EQ(-1, ioctl(x->vcpu, KVM_GET_REG_LIST, &list));
		ASSERT_NE(E2BIG, errno);
		SKIP(return, "no KVM_CAP_ONE_REG");
	}
	EXPECT_EQ(x->shstk_on ? -1 : 0,
		  ioctl(x->vcpu, KVM_GET_REG_LIST, &list));
	EXPECT_EQ(x->shstk_on ? E2BIG : 0, errno);
	EXPECT_EQ(x->shstk_on, list.head.n);
	EXPECT_EQ(0x5a, list.ids[0]);
	EXPECT_EQ(0x5a, list.ids[1]);
}

static void guest_kvm_msrs_code(void)
{
	u64 value;
	u8 vector;
	u32 msr;

	for (msr = KVM_MSR_UNUSED; msr <= KVM_MSR_LAST; msr++) {
		vector = rdmsr_safe(msr, &value);
		__GUEST_ASSERT(vector == GP_VECTOR,
			       "RDMSR of %x: wanted #GP got %u", msr, vector);
		vector = wrmsr_safe(msr, XCOMP_GUEST_SSP);
		__GUEST_ASSERT(vector == GP_VECTOR,
			       "WRMSR of %x: wanted #GP got %u", msr, vector);
	}
	GUEST_DONE();
}

/*
 * Verify that no MSR of KVM gives the guest its SSP, or anything else that it
 * has other instructions for.
 */
TEST_F(cet_msrs, no_kvm_msr)
{
	struct kvm_vcpu *vcpu;

	kvm_vm_free(self->vm);
	vcpu = xstate_guest(&self->x, guest_kvm_msrs_code);
	self->vm = vcpu->vm;
	ASSERT_TRUE(xstate_fill(&self->x, 0));
	xstate_run(vcpu, UCALL_DONE);
	EXPECT_TRUE(xstate_ssp_kept(&self->x, 0, "refused WRMSR"));
}

/* What the guest writes to each MSR, what it reads, and the vectors that it meets */
struct filtered {
	u64 written[ARRAY_SIZE(xcomp_cet_msrs)];
	u64 read[ARRAY_SIZE(xcomp_cet_msrs)];
	u8 vectors[ARRAY_SIZE(xcomp_cet_msrs)][2];
};

static struct filtered filtered;

static void guest_filtered_code(void)
{
	struct filtered *f = &filtered;
	u32 i;

	for (;;) {
		for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
			f->vectors[i][0] = rdmsr_safe(xcomp_cet_msrs[i],
						      &f->read[i]);
			f->vectors[i][1] = wrmsr_safe(xcomp_cet_msrs[i],
						      f->written[i]);
		}
		GUEST_SYNC(0);
	}
}

/* Deny @access, KVM_MSR_FILTER_READ, _WRITE, both or none, to all MSRs of CET. */
static void deny_cet_msrs(struct kvm_vm *vm, u32 access)
{
	u64 allowed = 0;
	struct kvm_msr_filter filter = {
		.ranges[0] = {
			.flags = access,
			.base = XF_MSR_U_CET,
			.nmsrs = access ? XF_MSR_INT_SSP_TAB - XF_MSR_U_CET + 1 : 0,
			.bitmap = (u8 *)&allowed,
		},
	};

	vm_ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter);
}

static bool filtered_is(const struct xcomp *x, u32 msr, const char *what,
			u64 wanted, u64 got)
{
	if (wanted != got)
		ksft_print_msg("%s: %s with a filter: %s: wanted %#lx got %#lx\n",
			       x->name, xf_msr_name(msr), what,
			       (unsigned long)wanted, (unsigned long)got);
	return wanted == got;
}

/*
 * Run the guest with @denied once. Whether it had the MSRs but for that, and what
 * it and the host read is what was last written: of @seed before, of @next after
 * writes that are allowed.
 */
static bool filtered_ok(struct xcomp *x, struct kvm_vcpu *vcpu, u32 denied,
			unsigned int seed, unsigned int next)
{
	struct filtered *f = addr_gva2hva(vcpu->vm, (gva_t)&filtered);
	bool has, reads, writes, ok = true;
	u32 i, msr;

	deny_cet_msrs(vcpu->vm, denied);
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++)
		f->written[i] = xstate_msr_value(x, xcomp_cet_msrs[i], next);
	xstate_run(vcpu, UCALL_SYNC);

	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++) {
		msr = xcomp_cet_msrs[i];
		has = xcomp_has_msr(x, msr);
		reads = has && !(denied & KVM_MSR_FILTER_READ);
		writes = has && !(denied & KVM_MSR_FILTER_WRITE);
		ok &= filtered_is(x, msr, "vector of RDMSR",
				  reads ? 0 : GP_VECTOR, f->vectors[i][0]);
		ok &= filtered_is(x, msr, "vector of WRMSR",
				  writes ? 0 : GP_VECTOR, f->vectors[i][1]);
		if (reads)
			ok &= filtered_is(x, msr, "what the guest reads",
					  xstate_msr_value(x, msr, seed),
					  f->read[i]);
		if (has)
			ok &= xf_msr_kept(x->name, msr, "WRMSR with a filter",
					  xstate_msr_value(x, msr, writes ? next : seed),
					  xstate_msr(x, msr));
	}
	return ok;
}

/*
 * Verify that a filter that user space sets while the guest uses the MSRs holds
 * for the next RDMSR or WRMSR, that it leaves the values alone, and that the
 * guest has the MSRs again once it is gone.
 */
TEST_F(cet_msrs, filtered)
{
	const u32 both = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
	struct xcomp *x = &self->x;
	struct kvm_vcpu *vcpu;

	if (xkvm_cap(x->kvm, KVM_CAP_X86_MSR_FILTER) <= 0)
		SKIP(return, "no KVM_CAP_X86_MSR_FILTER");
	kvm_vm_free(self->vm);
	vcpu = xstate_guest(x, guest_filtered_code);
	self->vm = vcpu->vm;
	ASSERT_TRUE(xstate_fill(x, 0));
	EXPECT_TRUE(filtered_ok(x, vcpu, 0, 0, 1));
	EXPECT_TRUE(filtered_ok(x, vcpu, KVM_MSR_FILTER_READ, 1, 2));
	EXPECT_TRUE(filtered_ok(x, vcpu, KVM_MSR_FILTER_WRITE, 2, 3));
	EXPECT_TRUE(filtered_ok(x, vcpu, both, 2, 3));
	EXPECT_TRUE(filtered_ok(x, vcpu, 0, 2, 5));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
