// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lists of MSRs, as a VMM uses them: it reads all that KVM_GET_MSR_INDEX_LIST
 * has, from any vCPU and into memory with anything in it, and sets all of that
 * again.  What the vCPU lacks, because its CPUID does, is 0 and can be set to 0,
 * and to nothing else.  KVM_GET_MSRS and KVM_SET_MSRS end at the first MSR that
 * there is none of, and say which that is.
 */
#include "xregs.h"

#define POISON		0xa5a5a5a5a5a5a5a5ull

/* More than KVM moves at once */
#define TOO_MANY	BIT(30)

/* Among the MSRs of KVM itself, and none of them */
#define NO_MSR		0x4b564d80

/* What CPUID hides */
enum hidden { NOTHING, XSAVES, XSAVE, XFD, PKU, ALL };

/* Those that come with extended state */
static const u32 xstate_msrs[] = {
	MSR_IA32_U_CET, MSR_IA32_S_CET, MSR_IA32_PL0_SSP, MSR_IA32_PL1_SSP, MSR_IA32_PL2_SSP,
	MSR_IA32_PL3_SSP, MSR_IA32_INT_SSP_TAB, MSR_IA32_XSS, MSR_IA32_XFD, MSR_IA32_XFD_ERR,
};

FIXTURE(msr_list) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct kvm_msrs *list;		/* all that KVM lists, poisoned */
};

FIXTURE_VARIANT(msr_list) {
	struct xstate_combo combo;
	enum hidden hidden;
};

FIXTURE_VARIANT_ADD(msr_list, nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(msr_list, shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(msr_list, ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(msr_list, cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(msr_list, amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(msr_list, amx_cet) { .combo = { PERM_GUEST, AMX, CET } };
FIXTURE_VARIANT_ADD(msr_list, no_xsaves) { { PERM_NONE, NOAMX, CET }, XSAVES };
FIXTURE_VARIANT_ADD(msr_list, no_xsave) { { PERM_NONE, NOAMX, NOCET }, XSAVE };
FIXTURE_VARIANT_ADD(msr_list, no_xfd) { { PERM_GUEST, AMX, CET }, XFD };
FIXTURE_VARIANT_ADD(msr_list, no_pku) { { PERM_NONE, NOAMX, CET }, PKU };
FIXTURE_VARIANT_ADD(msr_list, bare) { { PERM_NONE, NOAMX, NOCET }, ALL };

static void hide(struct kvm_vcpu *vcpu, enum hidden hidden)
{
	if (hidden == XSAVES || hidden == ALL)
		vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_XSAVES);
	if (hidden == XSAVE || hidden == ALL)
		vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_XSAVE);
	if (hidden == XFD || hidden == ALL)
		vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_XFD);
	if (hidden == PKU || hidden == ALL)
		vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_PKU);
}

static struct kvm_msrs *new_list(u32 nr)
{
	struct kvm_msrs *list = calloc(1, sizeof(*list) + nr * sizeof(list->entries[0]));

	TEST_ASSERT(list, "no memory for a list of MSRs");
	list->nmsrs = nr;
	return list;
}

/* All of an index list, with the same data for each */
static struct kvm_msrs *list_of(const struct kvm_msr_list *indices, u64 data)
{
	struct kvm_msrs *list = new_list(indices->nmsrs);
	u32 i;

	for (i = 0; i < list->nmsrs; i++) {
		list->entries[i].index = indices->indices[i];
		list->entries[i].data = data;
	}
	return list;
}

FIXTURE_SETUP(msr_list)
{
	if (!xstate_begin(_metadata, &variant->combo) ||
	    !xstate_need_cet(_metadata, &variant->combo))
		return;
	/* Without an APIC in KVM, MSRs of its interrupts cannot even be set to 0. */
	self->vm = vm_create_barebones();
	xstate_create_apic(self->vm);
	self->vcpu = xstate_add_vcpu(self->vm, 0, &variant->combo);
	hide(self->vcpu, variant->hidden);
	self->list = list_of(kvm_get_msr_index_list(), POISON);
}

FIXTURE_TEARDOWN(msr_list)
{
	xstate_end(_metadata, self->vm);
}

/* The vCPU has the MSR, for the host, which has what it has saved of IA32_XFD. */
static bool has(struct kvm_vcpu *vcpu, u32 msr)
{
	switch (msr) {
	case MSR_IA32_XSS:
		return vcpu_cpuid_has(vcpu, X86_FEATURE_XSAVES) && vcpu_xss_mask(vcpu);
	case MSR_IA32_XFD:
	case MSR_IA32_XFD_ERR:
		return vcpu_has_amx(vcpu);
	}
	return vcpu_has_cet_msr(vcpu, msr);
}

/* A value for an MSR of the vCPU, and for one that it lacks */
static u64 value_of(struct kvm_vcpu *vcpu, u32 msr)
{
	switch (msr) {
	case MSR_IA32_XSS:
		return XFEATURE_MASK_CET;
	case MSR_IA32_XFD:
	case MSR_IA32_XFD_ERR:
		return XFEATURE_MASK_XTILE_DATA;
	}
	return has(vcpu, msr) ? cet_msr_value(vcpu, msr, 0) : 0x1000;
}

/* KVM_GET_MSRS or KVM_SET_MSRS of a list does @wanted entries of it. */
static bool expect_done(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			unsigned long cmd, struct kvm_msrs *list, u32 wanted)
{
	const char *name = cmd == KVM_GET_MSRS ? "KVM_GET_MSRS" : "KVM_SET_MSRS";
	int done = ioctl(vcpu->fd, cmd, list);

	if (done >= 0 && (u32)done < wanted)
		return EXPECT_THAT(false, "%s of %u MSRs ended at number %d: %s", name,
				   list->nmsrs, done, msr_name(list->entries[done].index));
	return EXPECT_SAME(wanted, done, "%s of %u MSRs", name, list->nmsrs);
}

/*
 * Verify that each MSR of the list can be read, into memory with anything in it:
 * the same is read then, and 0 where the vCPU has not the MSR.
 */
TEST_F(msr_list, one_by_one)
{
	struct kvm_msrs *one = new_list(1);
	u32 i, msr;
	u64 value;

	for (i = 0; i < self->list->nmsrs; i++) {
		msr = self->list->entries[i].index;
		th_case("%s", msr_name(msr));
		one->entries[0] = self->list->entries[i];
		if (!expect_done(_metadata, self->vcpu, KVM_GET_MSRS, one, 1))
			continue;
		EXPECT_THAT(one->entries[0].data != POISON, "the caller's value is still there");
		EXPECT_THAT(vcpu_reads_msr(self->vcpu, msr, &value), "cannot be read");
	}
	for (i = 0; i < ARRAY_SIZE(xstate_msrs); i++) {
		msr = xstate_msrs[i];
		th_case("%s", msr_name(msr));
		one->entries[0] = (struct kvm_msr_entry) { .index = msr, .data = POISON };
		if (kvm_msr_is_in_save_restore_list(msr) &&
		    expect_done(_metadata, self->vcpu, KVM_GET_MSRS, one, 1))
			EXPECT_SAME(0, one->entries[0].data, "value of a new vCPU");
	}
}

/*
 * Verify that KVM_SET_MSRS takes all of the list with what KVM_GET_MSRS gave,
 * and that the MSRs of extended state are the same again after that.
 */
TEST_F(msr_list, round_trip)
{
	struct kvm_msrs *again = list_of(kvm_get_msr_index_list(), ~POISON);
	u32 i, j, msr;

	for (i = 0; i < ARRAY_SIZE(xstate_msrs); i++)
		if (has(self->vcpu, xstate_msrs[i]))
			vcpu_set_msr(self->vcpu, xstate_msrs[i],
				     value_of(self->vcpu, xstate_msrs[i]));
	expect_done(_metadata, self->vcpu, KVM_GET_MSRS, self->list, self->list->nmsrs);
	expect_done(_metadata, self->vcpu, KVM_SET_MSRS, self->list, self->list->nmsrs);
	expect_done(_metadata, self->vcpu, KVM_GET_MSRS, again, again->nmsrs);
	for (i = 0; i < again->nmsrs; i++) {
		msr = again->entries[i].index;
		for (j = 0; j < ARRAY_SIZE(xstate_msrs) && xstate_msrs[j] != msr; j++)
			;
		if (j == ARRAY_SIZE(xstate_msrs))
			continue;
		EXPECT_SAME(has(self->vcpu, msr) ? value_of(self->vcpu, msr) : 0,
			    self->list->entries[i].data, "%s", msr_name(msr));
		EXPECT_SAME(self->list->entries[i].data, again->entries[i].data,
			    "%s after the round trip", msr_name(msr));
	}
}

/*
 * Verify that what is listed and the vCPU lacks can be set to 0, and to nothing
 * else, and that what it has takes its value.
 */
TEST_F(msr_list, zero)
{
	u32 i, msr;
	u64 value;

	if (!xstate_need_refusals(_metadata))
		return;
	for (i = 0; i < ARRAY_SIZE(xstate_msrs); i++) {
		msr = xstate_msrs[i];
		if (!kvm_msr_is_in_save_restore_list(msr))
			continue;
		th_case("%s", msr_name(msr));
		EXPECT_THAT(vcpu_takes_msr(self->vcpu, msr, 0), "KVM_SET_MSRS of 0: not taken");
		EXPECT_SAME(has(self->vcpu, msr),
			    vcpu_takes_msr(self->vcpu, msr, value_of(self->vcpu, msr)),
			    "KVM_SET_MSRS of %#lx is taken",
			    (unsigned long)value_of(self->vcpu, msr));
		EXPECT_THAT(vcpu_reads_msr(self->vcpu, msr, &value), "cannot be read");
		EXPECT_SAME(has(self->vcpu, msr) ? value_of(self->vcpu, msr) : 0, value, "value");
		EXPECT_THAT(vcpu_takes_msr(self->vcpu, msr, 0), "KVM_SET_MSRS of 0: not taken");
	}
}

/* A list of three known MSRs and one that nobody has as number @at */
static struct kvm_msrs *list_with_bad(u32 at, u64 data)
{
	const u32 good[] = { MSR_STAR, MSR_LSTAR, MSR_SYSCALL_MASK };
	struct kvm_msrs *list = new_list(4);
	u32 i, j = 0;

	for (i = 0; i < 4; i++) {
		list->entries[i].index = i == at ? NO_MSR : good[j++];
		list->entries[i].data = data + i;
	}
	return list;
}

/*
 * Verify that both ioctls end at the first MSR that there is none of: those
 * before it are done, those after it are not, and no memory of the kernel is
 * shown in its place.
 */
TEST_F(msr_list, ends_at_bad)
{
	struct kvm_msrs *list;
	u32 at, i;
	u64 data;

	if (!xstate_need_refusals(_metadata))
		return;
	for (at = 0; at < 4; at++) {
		th_case("number %u is bad", at);
		list = list_with_bad(4, 0x100);
		list->nmsrs = 3;
		expect_done(_metadata, self->vcpu, KVM_SET_MSRS, list, 3);
		free(list);
		list = list_with_bad(at, 0x200);
		expect_done(_metadata, self->vcpu, KVM_SET_MSRS, list, at);
		for (i = 0; i < 4; i++)
			if (i != at)
				EXPECT_SAME(i < at ? 0x200 + i : 0x100 + i - 1,
					    vcpu_get_msr(self->vcpu, list->entries[i].index),
					    "number %u after KVM_SET_MSRS", i);
		free(list);
		list = list_with_bad(at, POISON);
		expect_done(_metadata, self->vcpu, KVM_GET_MSRS, list, at);
		for (i = 0; i < 4; i++) {
			data = list->entries[i].data;
			if (i < at)
				EXPECT_SAME(0x200 + i, data, "number %u by KVM_GET_MSRS", i);
			else
				EXPECT_THAT(data == POISON + i || (i == at && !data),
					    "number %u, not read, is %#lx", i,
					    (unsigned long)data);
		}
		free(list);
	}
}

/* Verify that a list may be empty, and not too long. */
TEST_F(msr_list, lengths)
{
	struct kvm_msrs *list = new_list(1);

	list->nmsrs = 0;
	expect_done(_metadata, self->vcpu, KVM_GET_MSRS, list, 0);
	expect_done(_metadata, self->vcpu, KVM_SET_MSRS, list, 0);
	list->nmsrs = TOO_MANY;
	EXPECT_ERRNO(E2BIG, vcpu_errno(self->vcpu, KVM_GET_MSRS, list), "KVM_GET_MSRS");
	EXPECT_ERRNO(E2BIG, vcpu_errno(self->vcpu, KVM_SET_MSRS, list), "KVM_SET_MSRS");
}

/* ---- what /dev/kvm says ---- */

FIXTURE(msr_index) {
	int kvm;
};

FIXTURE_SETUP(msr_index)
{
	xstate_begin_unpermitted(_metadata, variant);
	self->kvm = open_kvm_dev_path_or_exit();
}

FIXTURE_TEARDOWN(msr_index)
{
	xstate_end(_metadata, NULL);
}

/* Both lists tell how long they are to who has no room for them, and write none. */
static struct kvm_msr_list *get_list(struct __test_metadata *const _metadata, int kvm,
				     unsigned long cmd, const char *name)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + 1024 * sizeof(list->indices[0]));
	u32 nr;

	ASSERT_NE(NULL, list);
	list->indices[0] = NO_MSR;
	EXPECT_ERRNO(E2BIG, ioctl(kvm, cmd, list) ? errno : 0, "%s with room for none", name);
	EXPECT_SAME(NO_MSR, list->indices[0], "%s with room for none has written", name);
	nr = list->nmsrs;
	ASSERT_LT(0, nr);
	ASSERT_GE(1024, nr);
	list->nmsrs = nr - 1;
	EXPECT_ERRNO(E2BIG, ioctl(kvm, cmd, list) ? errno : 0, "%s with one too few", name);
	EXPECT_SAME(nr, list->nmsrs, "%s with one too few", name);
	EXPECT_ERRNO(0, ioctl(kvm, cmd, list) ? errno : 0, "%s", name);
	EXPECT_SAME(nr, list->nmsrs, "%s", name);
	return list;
}

/* Verify the length of the list of MSRs. */
TEST_F(msr_index, list)
{
	free(get_list(_metadata, self->kvm, KVM_GET_MSR_INDEX_LIST, "KVM_GET_MSR_INDEX_LIST"));
}

/*
 * Verify that all feature MSRs can be read, into memory with anything in it, and
 * that it ends at one that is none.
 */
TEST_F(msr_index, features)
{
	struct kvm_msr_list *indices = get_list(_metadata, self->kvm,
						KVM_GET_MSR_FEATURE_INDEX_LIST,
						"KVM_GET_MSR_FEATURE_INDEX_LIST");
	struct kvm_msrs *a = list_of(indices, POISON), *b = list_of(indices, 0);
	u32 i;

	EXPECT_SAME(a->nmsrs, ioctl(self->kvm, KVM_GET_MSRS, a), "KVM_GET_MSRS of /dev/kvm");
	EXPECT_SAME(b->nmsrs, ioctl(self->kvm, KVM_GET_MSRS, b), "KVM_GET_MSRS of /dev/kvm");
	for (i = 0; i < a->nmsrs; i++)
		EXPECT_SAME(b->entries[i].data, a->entries[i].data, "%s",
			    msr_name(a->entries[i].index));
	if (!xstate_need_refusals(_metadata))
		return;
	for (i = 0; i < a->nmsrs; i++) {
		a->entries[i].index = NO_MSR;
		EXPECT_SAME(i, ioctl(self->kvm, KVM_GET_MSRS, a),
			    "KVM_GET_MSRS of /dev/kvm, with a bad one");
		a->entries[i].index = b->entries[i].index;
	}
}

XSTATE_IOCTL_HARNESS_MAIN
