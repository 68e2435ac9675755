// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a VMM does with a vCPU that uses extended state, beside XSAVE state and MSRs
 * themselves:
 *
 * - it writes CR4.OSXSAVE, CR4.PKE and CR4.CET by KVM_SET_SREGS, KVM_SET_SREGS2 or the
 *   registers of struct kvm_run, which must agree;
 * - it saves and restores events, #CP among them;
 * - it saves all MSRs that KVM lists with everything else, restores them in another
 *   process, in orders of its own, and resets a vCPU by writing back what it had first;
 * - it has hundreds of vCPUs.
 */
#include <sys/resource.h>
#include <time.h>

#include "xregs.h"

#define ALL_SYNC_REGS	(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)

/* ---- SREGS, SREGS2 and struct kvm_run ---- */

enum way { BY_SREGS, BY_SREGS2, BY_RUN, NR_WAYS };

static const char * const way_names[] = { "KVM_SET_SREGS", "KVM_SET_SREGS2", "kvm_run" };

static bool has_way(enum way way)
{
	switch (way) {
	case BY_SREGS2:
		return kvm_check_cap(KVM_CAP_SREGS2) > 0;
	case BY_RUN:
		return (kvm_check_cap(KVM_CAP_SYNC_REGS) & ALL_SYNC_REGS) == ALL_SYNC_REGS;
	default:
		return true;
	}
}

/* KVM_RUN that takes what is dirty in struct kvm_run, and ends before the guest begins */
static int run_dirty(struct kvm_vcpu *vcpu, u64 dirty)
{
	int error;

	vcpu->run->kvm_dirty_regs = dirty;
	vcpu->run->immediate_exit = 1;
	error = __vcpu_run(vcpu) ? errno : 0;
	vcpu->run->immediate_exit = 0;
	vcpu->run->kvm_dirty_regs = 0;
	return error == EINTR ? 0 : error;
}

/* All but the bitmap of interrupts, which only struct kvm_sregs has */
#define SREGS_COMMON	offsetof(struct kvm_sregs, interrupt_bitmap)

static int set_sregs(struct kvm_vcpu *vcpu, enum way way, const struct kvm_sregs *sregs)
{
	struct kvm_sregs2 sregs2 = { };

	switch (way) {
	case BY_SREGS2:
		memcpy(&sregs2, sregs, SREGS_COMMON);
		return vcpu_errno(vcpu, KVM_SET_SREGS2, &sregs2);
	case BY_RUN:
		vcpu->run->s.regs.sregs = *sregs;
		return run_dirty(vcpu, KVM_SYNC_X86_SREGS);
	default:
		return vcpu_errno(vcpu, KVM_SET_SREGS, sregs);
	}
}

/* The vCPU has @wanted, as all ways to read it say. */
static void expect_sregs(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			 const struct kvm_sregs *wanted)
{
	struct kvm_sregs2 sregs2 = { };
	struct kvm_sregs got;
	size_t n;

	vcpu_sregs_get(vcpu, &got);
	EXPECT_SAME(wanted->cr0, got.cr0, "CR0");
	EXPECT_SAME(wanted->cr4, got.cr4, "CR4");
	EXPECT_SAME(wanted->efer, got.efer, "EFER");
	n = xarea_differ((u8 *)wanted, (u8 *)&got, sizeof(got));
	EXPECT_SAME(sizeof(got), n, "the first byte of KVM_GET_SREGS that differs");
	if (has_way(BY_SREGS2)) {
		vcpu_ioctl(vcpu, KVM_GET_SREGS2, &sregs2);
		n = xarea_differ((u8 *)wanted, (u8 *)&sregs2, SREGS_COMMON);
		EXPECT_SAME(SREGS_COMMON, n, "the first byte of KVM_GET_SREGS2 that differs");
	}
	if (has_way(BY_RUN)) {
		vcpu->run->kvm_valid_regs = KVM_SYNC_X86_SREGS;
		/* KVM writes registers, and no bytes between them. */
		vcpu->run->s.regs.sregs = (struct kvm_sregs) {
			.cr0 = ~0ull, .cr2 = ~0ull, .cr3 = ~0ull, .cr4 = ~0ull, .efer = ~0ull,
		};
		xstate_run_immediate_exit(vcpu);
		vcpu->run->kvm_valid_regs = 0;
		n = xarea_differ((u8 *)wanted, (u8 *)&vcpu->run->s.regs.sregs, sizeof(got));
		EXPECT_SAME(sizeof(got), n, "the first byte of kvm_run's SREGS that differs");
	}
}

/* What is tried: a bit of CR0 that changes, bits that are added, and what CPUID they take */
enum needs { ANY, XSAVE, PKU, SOME_CET, NEVER };

static const struct sregs_case {
	const char *name;
	u64 cr0, cr4, efer;
	enum needs needs;
} sregs_cases[] = {
	{ "nothing", 0, 0, 0, ANY },
	{ "CR4.OSXSAVE", 0, X86_CR4_OSXSAVE, 0, XSAVE },
	{ "CR4.PKE", 0, X86_CR4_PKE, 0, PKU },
	{ "CR4.CET", 0, X86_CR4_CET, 0, SOME_CET },
	{ "CR4.PKS, which KVM has not", 0, BIT_ULL(24), 0, NEVER },
	{ "CR4[63]", 0, BIT_ULL(63), 0, NEVER },
	{ "CR0[32]", BIT_ULL(32), 0, 0, NEVER },
	{ "CR0.PG without CR0.PE", X86_CR0_PG, 0, 0, NEVER },
	{ "CR0.NW without CR0.CD, which is set at reset", X86_CR0_CD, 0, 0, NEVER },
	{ "EFER.LMA without EFER.LME", 0, 0, EFER_LMA, NEVER },
};

static bool vcpu_has(struct kvm_vcpu *vcpu, enum needs needs)
{
	switch (needs) {
	case XSAVE:
		return vcpu_cpuid_has(vcpu, X86_FEATURE_XSAVE);
	case PKU:
		return kvm_cpu_has(X86_FEATURE_PKU) && vcpu_cpuid_has(vcpu, X86_FEATURE_PKU);
	case SOME_CET:
		return vcpu_has_shstk(vcpu) || vcpu_has_ibt(vcpu);
	default:
		return needs == ANY;
	}
}

/* All bits of CR4 that the cases are about and that the vCPU can have */
static u64 possible_cr4(struct kvm_vcpu *vcpu)
{
	return (vcpu_has(vcpu, XSAVE) ? X86_CR4_OSXSAVE : 0) |
	       (vcpu_has(vcpu, PKU) ? X86_CR4_PKE : 0) |
	       (vcpu_has(vcpu, SOME_CET) ? X86_CR4_CET : 0);
}

FIXTURE(xstate_vmm) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct kvm_sregs sregs;		/* of reset, with CR0.WP */
	struct xregs regs;
	u64 mask;
};

XSTATE_SUITE(xstate_vmm);

FIXTURE_VARIANT_ADD(xstate_vmm, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_vmm, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_vmm, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_vmm, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_vmm, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(xstate_vmm)
{
	if (!xstate_begin(_metadata, &variant->combo))
		return;
	self->vcpu = xstate_new_vcpu(&self->vm, &variant->combo);
	vcpu_sregs_get(self->vcpu, &self->sregs);
	self->sregs.cr0 |= X86_CR0_WP;
	vcpu_sregs_set(self->vcpu, &self->sregs);
	self->mask = xregs_mask(vcpu_xcr0_mask(self->vcpu));
	xregs_fill(&self->regs, self->vcpu, 0);
}

/* Try one case on top of @base: it is taken whole, or refused and nothing has changed. */
static void expect_sregs_case(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			      enum way way, const struct sregs_case *c,
			      const struct kvm_sregs *had, u64 cr4)
{
	bool taken = vcpu_has(vcpu, c->needs);
	struct kvm_sregs sregs = *had;

	/* Change all that could be half taken. */
	sregs.cr0 ^= c->cr0;
	sregs.cr4 = cr4 | c->cr4;
	sregs.efer |= c->efer;
	sregs.cr3 ^= 0x1000;
	sregs.cr2 ^= 0x1000;
	EXPECT_ERRNO(taken ? 0 : EINVAL, set_sregs(vcpu, way, &sregs), "%s", way_names[way]);
	expect_sregs(_metadata, vcpu, taken ? &sregs : had);
	EXPECT_ERRNO(0, set_sregs(vcpu, way, had), "%s of what there was", way_names[way]);
	expect_sregs(_metadata, vcpu, had);
}

static void expect_sregs_cases(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			       const struct kvm_sregs *base, const char *has)
{
	u64 all = possible_cr4(vcpu);
	const struct sregs_case *c;
	struct kvm_sregs had;
	enum way way;
	int i;

	for (way = 0; way < NR_WAYS; way++) {
		for (i = 0; i < 4 && has_way(way); i++) {
			/* Bits that come and go are as good as one that stays. */
			had = *base;
			had.cr4 |= i & 1 ? all : 0;
			ASSERT_EQ(0, set_sregs(vcpu, way, &had));
			/* One failure is enough. */
			for (c = sregs_cases; c < sregs_cases + ARRAY_SIZE(sregs_cases) &&
			     !_metadata->exit_code; c++) {
				th_case("%s, %s, %s, had CR4 %#llx", way_names[way], has, c->name,
					had.cr4);
				expect_sregs_case(_metadata, vcpu, way, c, &had,
						  base->cr4 | (i & 2 ? all : 0));
			}
		}
	}
	th_no_case();
}

/*
 * Verify that CR4.OSXSAVE, CR4.PKE and CR4.CET are taken exactly if guest CPUID has
 * what they enable, by each way to write SREGS; that a bad register has none of them
 * changed; and that none of this touches other state.
 */
TEST_F(xstate_vmm, sregs)
{
	struct kvm_cpuid2 *cpuid = xstate_cpuid(&variant->combo);
	struct kvm_vcpu *without = __vm_vcpu_add(self->vm, 1);
	struct kvm_sregs sregs;

	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
	expect_sregs_cases(_metadata, self->vcpu, &self->sregs, "own CPUID");
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "writes of SREGS");

	/* The same without XSAVE, PKU and CET */
	cpuid_entry(cpuid, 1, 0)->ecx &= ~BIT(X86_FEATURE_XSAVE.bit);
	cpuid_entry(cpuid, 7, 0)->ecx &= ~(BIT(X86_FEATURE_PKU.bit) | BIT(X86_FEATURE_SHSTK.bit));
	cpuid_entry(cpuid, 7, 0)->edx &= ~BIT(X86_FEATURE_IBT.bit);
	vcpu_init_cpuid(without, cpuid);
	vcpu_sregs_get(without, &sregs);
	expect_sregs_cases(_metadata, without, &sregs, "no XSAVE, PKU, CET in CPUID");
	free(cpuid);
}

/* Verify that none of these ways takes CR4.CET without CR0.WP: that two of them differ, least. */
TEST_F(xstate_vmm, sregs_without_wp)
{
	bool taken[NR_WAYS], any = false;
	struct kvm_sregs sregs = self->sregs;
	enum way way;

	sregs.cr0 &= ~X86_CR0_WP;
	sregs.cr4 |= X86_CR4_CET;
	for (way = 0; way < NR_WAYS; way++) {
		th_case("%s", way_names[way]);
		taken[way] = has_way(way) ? !set_sregs(self->vcpu, way, &sregs) : taken[BY_SREGS];
		EXPECT_SAME(taken[BY_SREGS], taken[way], "CR4.CET without CR0.WP is taken");
		expect_sregs(_metadata, self->vcpu, taken[way] ? &sregs : &self->sregs);
		any |= taken[way];
		ASSERT_EQ(0, set_sregs(self->vcpu, BY_SREGS, &self->sregs));
	}
	th_no_case();
	XFAIL_IF(any && vcpu_has(self->vcpu, SOME_CET),
		 "KVM_SET_SREGS takes CR4.CET without CR0.WP") {
		EXPECT_THAT(!any, "CR4.CET is taken without CR0.WP");
	}
}

/* Verify that KVM_SET_SREGS2 takes no flag but PDPTRS_VALID, and that only with PAE paging. */
TEST_F(xstate_vmm, sregs2_flags)
{
	struct kvm_sregs2 sregs2 = { };
	int bit;

	if (!has_way(BY_SREGS2))
		SKIP(return, "no KVM_CAP_SREGS2");
	vcpu_ioctl(self->vcpu, KVM_GET_SREGS2, &sregs2);
	EXPECT_SAME(0, sregs2.flags, "flags of KVM_GET_SREGS2");
	sregs2.cr4 |= possible_cr4(self->vcpu);
	for (bit = 0; bit < 64; bit++) {
		sregs2.flags = BIT_ULL(bit);
		EXPECT_ERRNO(EINVAL, vcpu_errno(self->vcpu, KVM_SET_SREGS2, &sregs2),
			     "KVM_SET_SREGS2 with bit %d of flags", bit);
	}
	expect_sregs(_metadata, self->vcpu, &self->sregs);
}

/* Whether KVM_RUN takes SREGS, which are then given back, with another set dirty or valid */
static bool run_takes_set(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			  const struct kvm_sregs *had, u64 dirty, u64 valid)
{
	struct kvm_run *run = vcpu->run;
	bool taken;

	run->s.regs.sregs = *had;
	run->s.regs.sregs.cr4 |= possible_cr4(vcpu);
	run->kvm_valid_regs = valid;
	taken = !run_dirty(vcpu, KVM_SYNC_X86_SREGS | dirty);
	run->kvm_valid_regs = 0;
	if (taken)
		ASSERT_EQ(0, set_sregs(vcpu, BY_SREGS, had));
	return taken;
}

/*
 * Verify that KVM_RUN takes no sets of registers but those that KVM_CAP_SYNC_REGS has,
 * and with an unknown one nothing at all.
 */
TEST_F(xstate_vmm, run_sets)
{
	u64 sets = kvm_check_cap(KVM_CAP_SYNC_REGS), dirty = 0, valid = 0;
	int bit;

	if (!has_way(BY_RUN))
		SKIP(return, "no KVM_CAP_SYNC_REGS");
	for (bit = 0; bit < 64; bit++) {
		if (sets & BIT_ULL(bit))
			continue;
		if (run_takes_set(_metadata, self->vcpu, &self->sregs, BIT_ULL(bit), 0))
			dirty |= BIT_ULL(bit);
		if (run_takes_set(_metadata, self->vcpu, &self->sregs, 0, BIT_ULL(bit)))
			valid |= BIT_ULL(bit);
	}
	expect_sregs(_metadata, self->vcpu, &self->sregs);
	XFAIL_IF(dirty == valid && dirty == GENMASK_ULL(63, 32),
		 "KVM_RUN ignores bits 32 to 63 of sets of registers") {
		EXPECT_SAME(0, dirty, "unknown sets taken as dirty");
		EXPECT_SAME(0, valid, "unknown sets taken as valid");
	}
}

/* ---- XCRs, and MSRs that a vCPU lacks ---- */

/* Verify that KVM_GET_XCRS gives XCR0 and nothing else, which KVM_SET_XCRS takes as it is. */
TEST_F(xstate_vmm, xcrs)
{
	u64 xcr0[] = { XFEATURE_MASK_FP, vcpu_xcr0_mask(self->vcpu) };
	struct kvm_xcrs xcrs;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(xcr0); i++) {
		EXPECT_THAT(vcpu_takes_xcr0(self->vcpu, xcr0[i]), "KVM_SET_XCRS of %#lx: not taken",
			    (unsigned long)xcr0[i]);
		xarea_fill(&xcrs, XAREA_POISON, sizeof(xcrs));
		vcpu_xcrs_get(self->vcpu, &xcrs);
		EXPECT_SAME(1, xcrs.nr_xcrs, "registers of KVM_GET_XCRS");
		EXPECT_SAME(0, xcrs.flags, "flags of KVM_GET_XCRS");
		EXPECT_SAME(0, xcrs.xcrs[0].xcr, "number of the register");
		EXPECT_XFEATURES(xcr0[i], xcrs.xcrs[0].value, "XCR0");
		EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_XCRS, &xcrs),
			     "KVM_SET_XCRS of what was read");
		EXPECT_XFEATURES(xcr0[i], vcpu_xcr0(self->vcpu), "XCR0 in the end");
	}
}

static const u32 xstate_msrs[] = {
	MSR_IA32_U_CET, MSR_IA32_S_CET, MSR_IA32_PL0_SSP, MSR_IA32_PL1_SSP, MSR_IA32_PL2_SSP,
	MSR_IA32_PL3_SSP, MSR_IA32_INT_SSP_TAB, MSR_IA32_XSS, MSR_IA32_XFD, MSR_IA32_XFD_ERR,
};

/* What is hidden in guest CPUID: bits of CPUID.(7,0) and CPUID.(0xD,1) */
static const struct less {
	const char *name;
	u32 ecx_7, edx_7, eax_d;
} lesses[] = {
	{ "nothing", 0, 0, 0 },
	{ "XSAVES", 0, 0, BIT(3) },
	{ "XFD", 0, 0, BIT(4) },
	{ "shadow stacks", BIT(7), 0, 0 },
	{ "branch tracking", 0, BIT(20), 0 },
	{ "CET, XSAVES and XFD", BIT(7), BIT(20), BIT(3) | BIT(4) },
};

static void expect_listed(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	u64 value;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(xstate_msrs); i++) {
		if (!kvm_msr_is_in_save_restore_list(xstate_msrs[i]))
			continue;
		if (EXPECT_THAT(vcpu_reads_msr(vcpu, xstate_msrs[i], &value),
				"KVM_GET_MSRS of %s: not read", msr_name(xstate_msrs[i])))
			EXPECT_SAME(0, value, "%s after reset", msr_name(xstate_msrs[i]));
		EXPECT_THAT(vcpu_takes_msr(vcpu, xstate_msrs[i], 0),
			    "KVM_SET_MSRS of 0 to %s: not taken", msr_name(xstate_msrs[i]));
	}
}

/*
 * Verify that what KVM lists can be read of each vCPU, and be restored, whatever its
 * CPUID hides, and before there is any.
 */
TEST_F(xstate_vmm, listed_msrs)
{
	struct kvm_vcpu *vcpu = __vm_vcpu_add(self->vm, 1);
	struct kvm_cpuid_entry2 *e;
	struct kvm_cpuid2 *cpuid;
	u32 i;

	th_case("no CPUID");
	expect_listed(_metadata, vcpu);
	for (i = 0; i < ARRAY_SIZE(lesses); i++) {
		th_case("%s hidden", lesses[i].name);
		cpuid = xstate_cpuid(&variant->combo);
		e = cpuid_entry(cpuid, 7, 0);
		if (e) {
			e->ecx &= ~lesses[i].ecx_7;
			e->edx &= ~lesses[i].edx_7;
		}
		e = cpuid_entry(cpuid, 0xd, 1);
		if (e)
			e->eax &= ~lesses[i].eax_d;
		vcpu = __vm_vcpu_add(self->vm, 2 + i);
		vcpu_init_cpuid(vcpu, cpuid);
		expect_listed(_metadata, vcpu);
		free(cpuid);
	}
	th_no_case();
}

/* ---- events ---- */

static int set_events(struct kvm_vcpu *vcpu, enum way way, const struct kvm_vcpu_events *events)
{
	if (way != BY_RUN)
		return vcpu_errno(vcpu, KVM_SET_VCPU_EVENTS, events);
	vcpu->run->s.regs.events = *events;
	return run_dirty(vcpu, KVM_SYNC_X86_EVENTS);
}

/* An exception that user space has for the vCPU, as it injects it or as the vCPU does */
static struct kvm_vcpu_events exception(u8 nr, bool pending, bool has_error, u32 error)
{
	return (struct kvm_vcpu_events) {
		.flags = pending ? KVM_VCPUEVENT_VALID_PAYLOAD : 0,
		.exception.injected = !pending,
		.exception.pending = pending,
		.exception.nr = nr,
		.exception.has_error_code = has_error,
		.exception.error_code = error,
	};
}

static void expect_same_exception(struct __test_metadata *const _metadata,
				  const struct kvm_vcpu_events *wanted,
				  const struct kvm_vcpu_events *got, const char *how)
{
	EXPECT_SAME(wanted->exception.injected, got->exception.injected, "injected, %s", how);
	EXPECT_SAME(wanted->exception.pending, got->exception.pending, "pending, %s", how);
	EXPECT_SAME(wanted->exception.nr, got->exception.nr, "vector, %s", how);
	EXPECT_SAME(wanted->exception.has_error_code, got->exception.has_error_code,
		    "whether there is an error code, %s", how);
	EXPECT_SAME(wanted->exception.error_code, got->exception.error_code, "error code, %s",
		    how);
	EXPECT_SAME(0, got->exception_has_payload, "whether there is a payload, %s", how);
}

/* The vCPU has @wanted, as both ways to read it say. */
static void expect_exception(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			     const struct kvm_vcpu_events *wanted)
{
	struct kvm_vcpu_events got;

	vcpu_events_get(vcpu, &got);
	expect_same_exception(_metadata, wanted, &got, "KVM_GET_VCPU_EVENTS");
	if (!has_way(BY_RUN))
		return;
	xarea_fill(&vcpu->run->s.regs.events, XAREA_POISON, sizeof(got));
	vcpu->run->kvm_valid_regs = KVM_SYNC_X86_EVENTS;
	xstate_run_immediate_exit(vcpu);
	vcpu->run->kvm_valid_regs = 0;
	expect_same_exception(_metadata, wanted, &vcpu->run->s.regs.events, "kvm_run");
}

/* Vectors that the vCPU can have waiting, and that it cannot */
static const struct {
	u8 nr;
	bool has_error, taken;
	u32 error;
} exceptions[] = {
	{ CP_VECTOR, true, true, 1 },
	{ CP_VECTOR, true, true, 0x7fff },
	{ NM_VECTOR, false, true, 0 },
	{ 31, false, true, 0 },
	{ 32, false, false, 0 },
	{ 2, false, false, 0 },		/* NMI is none. */
	{ 255, true, false, 1 },
};

static void expect_exceptions(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			      enum way way, bool pending)
{
	struct kvm_vcpu_events had = exception(GP_VECTOR, pending, true, 0x5a), e;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(exceptions); i++) {
		th_case("by %s, %s, vector %u, error code %#x",
			way == BY_RUN ? "kvm_run" : "KVM_SET_VCPU_EVENTS",
			pending ? "pending" : "injected", exceptions[i].nr, exceptions[i].error);
		ASSERT_EQ(0, set_events(vcpu, BY_SREGS, &had));
		e = exception(exceptions[i].nr, pending, exceptions[i].has_error,
			      exceptions[i].error);
		EXPECT_ERRNO(exceptions[i].taken ? 0 : EINVAL, set_events(vcpu, way, &e), "events");
		expect_exception(_metadata, vcpu, exceptions[i].taken ? &e : &had);
	}
	th_no_case();
}

/*
 * Verify that #CP and its error code come back as they were saved, that vectors which are
 * no exceptions are refused, and that a refusal leaves what there was.
 */
TEST_F(xstate_vmm, events)
{
	struct kvm_vcpu_events e = exception(CP_VECTOR, true, true, 1), had;
	enum way way;

	had = exception(GP_VECTOR, false, true, 0x5a);
	ASSERT_EQ(0, set_events(self->vcpu, BY_SREGS, &had));
	EXPECT_ERRNO(EINVAL, set_events(self->vcpu, BY_SREGS, &e),
		     "a payload without KVM_CAP_EXCEPTION_PAYLOAD");
	expect_exception(_metadata, self->vcpu, &had);
	for (way = BY_SREGS; way < NR_WAYS; way += BY_RUN)
		if (has_way(way))
			expect_exceptions(_metadata, self->vcpu, way, false);
	if (kvm_check_cap(KVM_CAP_EXCEPTION_PAYLOAD) <= 0)
		return;
	vm_enable_cap(self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1);
	for (way = BY_SREGS; way < NR_WAYS; way += BY_RUN)
		if (has_way(way))
			expect_exceptions(_metadata, self->vcpu, way, true);
}

/* What the handler has seen */
static struct seen {
	u64 count, error;
} seen;

static void guest_cp_handler(struct ex_regs *regs)
{
	seen.count++;
	seen.error = regs->error_code;
}

static void guest_sync_code(void)
{
	for (;;)
		GUEST_SYNC(0);
}

/*
 * Verify that a guest gets the #CP that user space injects or has pending, once, with its
 * error code; without CET #AC, which has one on every CPU.
 */
TEST_F(xstate_vmm, events_of_guest)
{
	struct kvm_vcpu_events e;
	struct kvm_sregs sregs;
	struct idt_entry *idt;
	struct kvm_vcpu *vcpu;
	struct seen *s;
	u32 i;

	if (!xstate_need_cet(_metadata, &variant->combo) || !xstate_need_guests(_metadata))
		return;
	kvm_vm_free(self->vm);
	vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_sync_code);
	vm_enable_cap(self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1);
	s = addr_gva2hva(self->vm, (gva_t)&seen);
	xstate_run(vcpu, UCALL_SYNC);
	/* libkvm expects no error code with #CP, but with #AC. */
	vcpu_sregs_get(vcpu, &sregs);
	idt = addr_gva2hva(self->vm, sregs.idt.base);
	idt[CP_VECTOR] = idt[AC_VECTOR];
	vm_install_exception_handler(self->vm, AC_VECTOR, guest_cp_handler);
	for (i = 0; i < 4; i++) {
		th_case("%s, by %s", i & 1 ? "pending" : "injected",
			i & 2 ? "kvm_run" : "KVM_SET_VCPU_EVENTS");
		if (i & 2 && !has_way(BY_RUN))
			continue;
		vcpu_run_complete_io(vcpu);
		e = exception(variant->combo.cet ? CP_VECTOR : AC_VECTOR, i & 1, true, i + 1);
		s->count = 0;
		EXPECT_ERRNO(0, set_events(vcpu, i & 2 ? BY_RUN : BY_SREGS, &e), "events");
		xstate_run(vcpu, UCALL_SYNC);
		EXPECT_SAME(1, s->count, "how often the guest got it");
		EXPECT_SAME(i + 1, s->error, "error code");
		xstate_run(vcpu, UCALL_SYNC);
		EXPECT_SAME(1, s->count, "how often it got it, one exit later");
	}
}

/* ---- all of a vCPU, in another process ---- */

/* What the guest loads into all registers, and then finds there */
static struct guest {
	u64 xcr0, xss;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
} guest;

/* Like guest_leave(), but without a stack: that is not saved and restored. */
static __always_inline INTEGER_ONLY void leave_here(void)
{
	asm volatile("outb %%al, %%dx" : : "a" (0), "d" (XREGS_EXIT_PORT) : "memory");
}

static INTEGER_ONLY void guest_live(void)
{
	guest_load_xregs(&guest.regs, guest.xcr0 | guest.xss);
	for (;;) {
		leave_here();
		asm volatile("xsaves64 %0" : "+m" (guest.area) : "a" (-1), "d" (-1));
		leave_here();
	}
}

static void guest_code(void)
{
	guest_enable_xstate(guest.xcr0);
	if (guest.xss)
		wrmsr(MSR_IA32_XSS, guest.xss);
	guest_live();
}

/* libkvm's state, and SSP, which it leaves out */
struct whole {
	struct kvm_x86_state *state;
	u64 ssp;
};

static struct whole save_whole(struct kvm_vcpu *vcpu)
{
	struct whole w = { .state = vcpu_save_state(vcpu) };

	if (vcpu_has_shstk(vcpu))
		TEST_ASSERT(!vcpu_one_reg_ssp(vcpu, KVM_GET_ONE_REG, &w.ssp),
			    "KVM_GET_ONE_REG of SSP: %s", strerror(errno));
	return w;
}

/* The parts whose order VMMs do not agree on */
enum part { MSRS, SSP, XCRS, XSAVE_AREA, SREGS, NR_PARTS };

static const struct order {
	const char *name;
	enum part part[NR_PARTS];
} orders[] = {
	{ "MSRs first", { MSRS, SSP, XCRS, SREGS, XSAVE_AREA } },
	{ "XSAVE first", { XSAVE_AREA, XCRS, SREGS, MSRS, SSP } },
	{ "XSAVE and MSRs first", { XSAVE_AREA, MSRS, SSP, SREGS, XCRS } },
	{ "SREGS first", { SREGS, XSAVE_AREA, XCRS, SSP, MSRS } },
};

static void load_part(struct kvm_vcpu *vcpu, struct whole *w, enum part part)
{
	switch (part) {
	case MSRS:
		vcpu_msrs_set(vcpu, &w->state->msrs);
		break;
	case SSP:
		if (vcpu_has_shstk(vcpu))
			TEST_ASSERT(!vcpu_one_reg_ssp(vcpu, KVM_SET_ONE_REG, &w->ssp),
				    "KVM_SET_ONE_REG of SSP: %s", strerror(errno));
		break;
	case XCRS:
		vcpu_xcrs_set(vcpu, &w->state->xcrs);
		break;
	case XSAVE_AREA:
		vcpu_xsave_set(vcpu, w->state->xsave);
		break;
	default:
		vcpu_sregs_set(vcpu, &w->state->sregs);
	}
}

static void load_whole(struct kvm_vcpu *vcpu, struct whole *w, const struct order *order)
{
	int i;

	for (i = 0; i < NR_PARTS; i++)
		load_part(vcpu, w, order->part[i]);
	vcpu_events_set(vcpu, &w->state->events);
	vcpu_mp_state_set(vcpu, &w->state->mp_state);
	vcpu_debugregs_set(vcpu, &w->state->debugregs);
	vcpu_regs_set(vcpu, &w->state->regs);
}

static void expect_part(struct __test_metadata *const _metadata, const void *wanted,
			const void *got, size_t size, const char *name)
{
	EXPECT_SAME(size, xarea_differ(wanted, got, size), "the first byte of %s that differs",
		    name);
}

/* MSRs that go on by themselves; Hyper-V's names are in no header of the uAPI. */
static bool is_clock(u32 msr)
{
	return msr == MSR_IA32_TSC || msr == 0x40000010 || msr == 0x40000020;
}

/* The vCPU has all that was saved, time left out. */
static void expect_whole(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			 const struct whole *w, u64 components)
{
	const struct kvm_msr_entry *e = w->state->msrs.entries;
	const struct kvm_x86_state *wanted = w->state, *got;
	struct whole now = save_whole(vcpu);
	u32 i;

	got = now.state;
	EXPECT_SAME(wanted->msrs.nmsrs, got->msrs.nmsrs, "MSRs that KVM lists");
	for (i = 0; i < wanted->msrs.nmsrs; i++, e++)
		if (!is_clock(e->index))
			EXPECT_SAME(e->data, got->msrs.entries[i].data, "%s (%#x)",
				    msr_name(e->index), e->index);
	EXPECT_SAME(w->ssp, now.ssp, "SSP");
	EXPECT_XFEATURES(wanted->xcrs.xcrs[0].value, got->xcrs.xcrs[0].value, "XCR0");
	for (i = 0; i < 64; i++)
		if (components & BIT_ULL(i))
			EXPECT_THAT(xarea_same_component((u8 *)wanted->xsave, (u8 *)got->xsave, i),
				    "%s is not as it was saved", xf_name(i));
	EXPECT_SAME(wanted->sregs.cr4, got->sregs.cr4, "CR4");
	expect_part(_metadata, &wanted->sregs, &got->sregs, sizeof(got->sregs), "sregs");
	expect_part(_metadata, &wanted->regs, &got->regs, sizeof(got->regs), "regs");
	expect_part(_metadata, &wanted->events, &got->events, sizeof(got->events), "events");
	expect_part(_metadata, &wanted->debugregs, &got->debugregs, sizeof(got->debugregs),
		    "debugregs");
	expect_part(_metadata, &wanted->mp_state, &got->mp_state, sizeof(got->mp_state),
		    "mp_state");
	kvm_x86_state_cleanup(now.state);
}

/* One step of the guest: it has saved all that it had loaded. */
static void expect_live(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	struct guest *g = addr_gva2hva(vcpu->vm, (gva_t)&guest);
	u64 all = g->xcr0 | g->xss;

	xarea_fill(g->area, 0, XAREA_SIZE);
	xregs_run(vcpu);
	EXPECT_XFEATURES(all, xarea_header(g->area, 0), "XSTATE_BV of XSAVES");
	expect_area(_metadata, g->area, &g->regs, all, all | XCOMP_BV_COMPACTED,
		    "registers of the guest");
}

FIXTURE(xstate_whole) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	u64 components;
	struct whole live;
};

XSTATE_SUITE(xstate_whole);

FIXTURE_VARIANT_ADD(xstate_whole, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_whole, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_whole, guest_amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_whole, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

/* A guest with all registers loaded, CR4.CET set and S_CET, SSP and the SSP table in use */
FIXTURE_SETUP(xstate_whole)
{
	struct kvm_sregs sregs;
	struct guest *g;

	if (!xstate_begin(_metadata, &variant->combo) || !xstate_need_guests(_metadata))
		return;
	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_code);
	g = addr_gva2hva(self->vm, (gva_t)&guest);
	g->xcr0 = xregs_guest_mask(self->vcpu);
	g->xss = vcpu_has_shstk(self->vcpu) ? xregs_mask(vcpu_xss_mask(self->vcpu)) : 0;
	/* An even seed: with others IA32_U_CET is 0 where there is no IBT. */
	xregs_fill(&g->regs, self->vcpu, 2);
	vcpu_set_cet(_metadata, self->vcpu, &g->regs);
	vcpu_sregs_get(self->vcpu, &sregs);
	sregs.cr0 |= X86_CR0_WP;
	if (vcpu_has_cet_msr(self->vcpu, MSR_IA32_S_CET))
		sregs.cr4 |= X86_CR4_CET;
	vcpu_sregs_set(self->vcpu, &sregs);
	self->components = g->xcr0;
	xregs_run(self->vcpu);
	self->live = save_whole(self->vcpu);
}

/*
 * Verify that all that KVM lists and more, restored in another process in any order,
 * is there, for the host and for the guest, which goes on; and that to save it was
 * nothing to the guest that it was saved from.
 */
TEST_F(xstate_whole, other_process)
{
	const struct order *order;
	struct kvm_vcpu *vcpu;
	pid_t pid;

	for (order = orders; order < orders + ARRAY_SIZE(orders); order++) {
		th_case("%s", order->name);
		pid = xf_fork(_metadata);
		if (pid) {
			xf_join(_metadata, pid, "the process that restores");
			continue;
		}
		vcpu = xstate_recreate(self->vcpu);
		load_whole(vcpu, &self->live, order);
		expect_whole(_metadata, vcpu, &self->live, self->components);
		expect_live(_metadata, vcpu);
		xf_exit();
	}
	th_case("the vCPU that was saved");
	expect_whole(_metadata, self->vcpu, &self->live, self->components);
	expect_live(_metadata, self->vcpu);
}

/* The image of a vCPU after reset, with PKRU, which KVM keeps if it is not in there */
static void reset_pkru(struct kvm_x86_state *state, u64 components)
{
	u8 *area = (u8 *)state->xsave;

	xarea_set_header(area, 0, xarea_header(area, 0) | (components & XFEATURE_MASK_PKRU));
}

/*
 * Verify that a vCPU with a guest that has used everything is as after reset once user
 * space has written back what it had then, in any order; and that a guest that is put
 * there afterwards, and is restored once more, finds all of its registers.
 */
TEST_F(xstate_whole, reset_by_host)
{
	struct kvm_vcpu *vcpu = xstate_recreate(self->vcpu);
	struct whole reset = save_whole(vcpu);
	const struct order *order;

	reset_pkru(reset.state, self->components);
	EXPECT_XFEATURES(XFEATURE_MASK_FP, reset.state->xcrs.xcrs[0].value, "XCR0 after reset");
	for (order = orders; order < orders + ARRAY_SIZE(orders); order++) {
		th_case("%s", order->name);
		load_whole(vcpu, &self->live, order);
		expect_live(_metadata, vcpu);
		vcpu_run_complete_io(vcpu);
		load_whole(vcpu, &reset, order);
		expect_whole(_metadata, vcpu, &reset, self->components);
		expect_no_cet(_metadata, vcpu, "a reset by the host");
	}
}

/* ---- many vCPUs ---- */

#define MANY_VCPUS	500
/* As many as can be made in that time */
#define MANY_SECONDS	5

FIXTURE(xstate_many) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[MANY_VCPUS];
};

XSTATE_SUITE(xstate_many);

FIXTURE_VARIANT_ADD(xstate_many, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(xstate_many)
{
	struct rlimit files;

	if (!xstate_begin(_metadata, &variant->combo))
		return;
	/* Each takes one. */
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	self->vm = vm_create_barebones();
}

/* Verify that each of hundreds of vCPUs has AMX, CET and registers of its own. */
TEST_F(xstate_many, registers)
{
	u32 nr = min_t(u32, MANY_VCPUS, kvm_check_cap(KVM_CAP_MAX_VCPUS)), i;
	time_t end = time(NULL) + MANY_SECONDS;
	struct kvm_vcpu **vcpus = self->vcpus;
	struct xregs regs;
	u64 mask = 0;

	for (i = 0; i < nr && time(NULL) <= end && !_metadata->exit_code; i++) {
		th_case("vCPU %u", i);
		vcpus[i] = xstate_add_vcpu(self->vm, i, &variant->combo);
		mask = xregs_mask(vcpu_xcr0_mask(vcpus[i]));
		xregs_fill(&regs, vcpus[i], i);
		vcpu_set_xregs(_metadata, vcpus[i], &regs, mask);
	}
	for (nr = i, i = 0; i < nr && !_metadata->exit_code; i++) {
		th_case("vCPU %u of %u", i, nr);
		xregs_fill(&regs, vcpus[i], i);
		expect_xregs(_metadata, vcpus[i], &regs, mask, "all others had theirs");
	}
}

XSTATE_IOCTL_HARNESS_MAIN
