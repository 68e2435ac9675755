// SPDX-License-Identifier: GPL-2.0-only
/*
 * Save AMX, CET and XSAVE state of one vCPU and restore it into another one.
 *
 * VMMs restore XSAVE state, XCR0, MSRs and registers in different orders, all
 * after CPUID; each order must give the same vCPU.  What comes before CPUID is
 * refused, or kept.  A vCPU unlike the one that was saved must refuse what it cannot
 * take, and be left with what it had.
 *
 * Never restore IA32_XFD with bit 18 set after an image with tile data.
 */
#include "xregs.h"

/* What there is to restore; this order and any other will do. */
enum step { SET_XCRS, SET_MSRS, SET_XSAVE, SET_SSP, NR_STEPS };

static const char * const step_names[] = {
	"KVM_SET_XCRS", "KVM_SET_MSRS", "KVM_SET_XSAVE", "KVM_SET_ONE_REG",
};

#define MSR_ENTRY(msr, value)	((struct kvm_msr_entry) { .index = (msr), .data = (value) })

/* All that is saved of a vCPU, and the values that it stands for */
struct snapshot {
	struct xregs regs;
	u64 bv;			/* components that hold what regs has for them */
	u64 xcr0;
	u64 ssp;		/* 0 where the vCPU has none */
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry[NR_CET_MSRS + 3];
	} msrs;
	u8 image[XAREA_SIZE];
};

/* What @vcpu is to hold, by our own account */
static void make_snapshot(struct snapshot *s, struct kvm_vcpu *vcpu, u32 seed, u64 xfd)
{
	struct kvm_msr_entry *e = s->msrs.entry;
	int i;

	xarea_fill(s, 0, sizeof(*s));
	xregs_fill(&s->regs, vcpu, seed);
	s->xcr0 = vcpu_xcr0_mask(vcpu);
	s->bv = xregs_mask(s->xcr0) & ~xfd;
	s->ssp = s->regs.ssp;
	xregs_to_area(&s->regs, s->image, s->bv, 0);
	for (i = 0; i < NR_CET_MSRS; i++)
		if (vcpu_has_cet_msr(vcpu, cet_msrs[i]))
			*e++ = MSR_ENTRY(cet_msrs[i], s->regs.cet[i]);
	if (vcpu_xss_mask(vcpu))
		*e++ = MSR_ENTRY(MSR_IA32_XSS, vcpu_xss_mask(vcpu));
	if (vcpu_has_amx(vcpu)) {
		*e++ = MSR_ENTRY(MSR_IA32_XFD, xfd);
		*e++ = MSR_ENTRY(MSR_IA32_XFD_ERR, xfd);
	}
	s->msrs.header.nmsrs = e - s->msrs.entry;
}

/* Restore a part of @s, to which KVM must answer @error; MSRs must all be taken. */
static void restore(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		    const struct snapshot *s, enum step nr, int error)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = s->xcr0 };
	u64 ssp = s->ssp;
	int done;

	switch (nr) {
	case SET_XCRS:
		EXPECT_ERRNO(error, vcpu_errno(vcpu, KVM_SET_XCRS, &xcrs), "KVM_SET_XCRS of %#lx",
			     s->xcr0);
		break;
	case SET_MSRS:
		done = ioctl(vcpu->fd, KVM_SET_MSRS, &s->msrs);
		EXPECT_THAT(done == (int)s->msrs.header.nmsrs, "KVM_SET_MSRS: %d of %u, not %s",
			    done, s->msrs.header.nmsrs,
			    msr_name(s->msrs.entry[done < 0 ? 0 : done].index));
		break;
	case SET_XSAVE:
		EXPECT_ERRNO(error, vcpu_errno(vcpu, KVM_SET_XSAVE, s->image), "KVM_SET_XSAVE");
		break;
	default:
		if (ssp)
			EXPECT_ERRNO(error, vcpu_one_reg_ssp(vcpu, KVM_SET_ONE_REG, &ssp),
				     "KVM_SET_ONE_REG of SSP");
	}
}

/* Read anew from the vCPU what @s has, but for the values that it stands for. */
static void save(struct kvm_vcpu *vcpu, struct snapshot *s)
{
	u32 i;

	xarea_fill(s->image, 0, sizeof(s->image));
	vcpu_xsave2_get(vcpu, (struct kvm_xsave *)s->image);
	s->xcr0 = vcpu_xcr0(vcpu);
	for (i = 0; i < s->msrs.header.nmsrs; i++)
		s->msrs.entry[i].data = XAREA_POISON;
	vcpu_msrs_get(vcpu, &s->msrs.header);
	TEST_ASSERT(!s->ssp || !vcpu_one_reg_ssp(vcpu, KVM_GET_ONE_REG, &s->ssp),
		    "KVM_GET_ONE_REG of SSP: %s", strerror(errno));
}

/* The vCPU holds all of @s. */
static void expect_snapshot(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			    const struct snapshot *s, const char *when)
{
	const struct kvm_msr_entry *e = s->msrs.entry;
	struct snapshot got;
	u32 i;

	xarea_copy(&got, s, sizeof(got));
	save(vcpu, &got);
	/* XSTATE_BV[9] is that of the host once the guest FPU was loaded. */
	EXPECT_XFEATURES(s->bv & ~XFEATURE_MASK_PKRU,
			 xarea_header(got.image, 0) & ~XFEATURE_MASK_PKRU, "XSTATE_BV after %s",
			 when);
	expect_area(_metadata, got.image, &s->regs, s->bv, 0, when);
	EXPECT_XFEATURES(s->xcr0, got.xcr0, "XCR0 after %s", when);
	for (i = 0; i < s->msrs.header.nmsrs; i++)
		EXPECT_SAME(e[i].data, got.msrs.entry[i].data, "%s after %s", msr_name(e[i].index),
			    when);
	EXPECT_SAME(s->ssp, got.ssp, "SSP after %s", when);
}

/* A vCPU that was given known state, with a snapshot of it in @s */
static struct kvm_vcpu *new_vcpu(struct __test_metadata *const _metadata, struct kvm_vm **vm,
				 const struct xstate_combo *combo, u32 seed, u64 xfd,
				 struct snapshot *s)
{
	struct kvm_vcpu *vcpu = xstate_new_vcpu(vm, combo);
	enum step step;

	make_snapshot(s, vcpu, seed, xfd);
	for (step = 0; step < NR_STEPS; step++)
		restore(_metadata, vcpu, s, step, 0);
	expect_snapshot(_metadata, vcpu, s, "the first restore");
	return vcpu;
}

/* What is read from such a vCPU.  With an odd seed IA32_U_CET may be 0. */
static void make_source(struct __test_metadata *const _metadata, const struct xstate_combo *combo,
			u64 xfd, struct snapshot *s)
{
	struct kvm_vm *vm;

	save(new_vcpu(_metadata, &vm, combo, 2, xfd, s), s);
	kvm_vm_free(vm);
}

/* SKIP if KVM offers no CET to a combination that has it; half of it will do. */
static bool need_some_cet(struct __test_metadata *const _metadata,
			  const struct xstate_combo *combo)
{
	const struct xstate_combo need = { .cet = combo->cet == CET ? SHSTK : combo->cet };

	return xstate_need_cet(_metadata, &need);
}

/* ---- all orders, and a guest ---- */

FIXTURE(xstate_restore) {
	struct kvm_vm *vm;
};

XSTATE_SUITE(xstate_restore);

FIXTURE_VARIANT_ADD(xstate_restore, none) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_restore, cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_restore, permitted) { .combo = { PERM_GUEST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_restore, amx) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_restore, amx_ibt) { .combo = { PERM_GUEST, AMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_restore, amx_shstk) { .combo = { PERM_GUEST, AMX, SHSTK } };
FIXTURE_VARIANT_ADD(xstate_restore, amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(xstate_restore)
{
	if (xstate_begin(_metadata, &variant->combo))
		need_some_cet(_metadata, &variant->combo);
}

/*
 * Restore the same state in every order of the steps, each time into a new vCPU;
 * but not what the source should not have had, which could do harm.
 */
static void expect_every_order(struct __test_metadata *const _metadata,
			       const struct xstate_combo *combo, u64 xfd)
{
	enum step steps[NR_STEPS];
	struct kvm_vcpu *vcpu;
	struct snapshot s;
	struct kvm_vm *vm;
	u32 n, used, i;

	make_source(_metadata, combo, xfd, &s);
	if (_metadata->exit_code)
		return;
	vm = vm_create_barebones();
	for (n = 0; n < 256; n++) {
		used = 0;
		for (i = 0; i < NR_STEPS; i++) {
			steps[i] = n >> (2 * i) & 3;
			used |= BIT(steps[i]);
		}
		if (used != BIT(NR_STEPS) - 1)
			continue;
		th_case("IA32_XFD %#lx; %s, %s, %s, %s", xfd, step_names[steps[0]],
			step_names[steps[1]], step_names[steps[2]], step_names[steps[3]]);
		vcpu = xstate_add_vcpu(vm, n, combo);
		for (i = 0; i < NR_STEPS; i++)
			restore(_metadata, vcpu, &s, steps[i], 0);
		expect_snapshot(_metadata, vcpu, &s, "all steps");
	}
	th_no_case();
	kvm_vm_free(vm);
}

/*
 * Verify that state saved from one vCPU, live tiles included, is complete in
 * another one, whatever the order in which it is restored.  The same with bit
 * 18 of IA32_XFD set: there is no tile data in the image then, so that no order
 * can have the host load any against IA32_XFD.
 */
TEST_F(xstate_restore, every_order)
{
	expect_every_order(_metadata, &variant->combo, 0);
	if (variant->combo.amx)
		expect_every_order(_metadata, &variant->combo, XFEATURE_MASK_XTILE_DATA);
}

/*
 * Try the steps in @early.  A vCPU without CPUID has nothing to restore but XSAVE
 * state, and that without tiles, and otherwise takes what it has at reset anyway.
 */
static void restore_early(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			  const struct snapshot *s, u32 early)
{
	const struct kvm_msr_entry *e = s->msrs.entry;
	u32 i;

	if (early & BIT(SET_XCRS))
		restore(_metadata, vcpu, s, SET_XCRS, s->xcr0 == XFEATURE_MASK_FP ? 0 : EINVAL);
	for (i = 0; early & BIT(SET_MSRS) && i < s->msrs.header.nmsrs; i++)
		EXPECT_THAT(vcpu_takes_msr(vcpu, e[i].index, e[i].data) == !e[i].data,
			    "KVM_SET_MSRS of %#llx to %s: %s", e[i].data, msr_name(e[i].index),
			    e[i].data ? "taken" : "not taken");
	if (early & BIT(SET_XSAVE))
		restore(_metadata, vcpu, s, SET_XSAVE,
			s->bv & XFEATURE_MASK_XTILE_DATA ? EINVAL : 0);
	if (early & BIT(SET_SSP))
		restore(_metadata, vcpu, s, SET_SSP, EINVAL);
}

/* The steps in @early, then CPUID, then all that was not taken until then */
static void expect_late_cpuid(struct __test_metadata *const _metadata, struct kvm_vm *vm,
			      const struct xstate_combo *combo, const struct snapshot *s, u32 early)
{
	bool kept = early & BIT(SET_XSAVE) && !(s->bv & XFEATURE_MASK_XTILE_DATA);
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm, early);
	struct kvm_cpuid2 *cpuid = xstate_cpuid(combo);
	struct snapshot got;
	enum step step;
	u32 i;

	restore_early(_metadata, vcpu, s, early);
	vcpu_init_cpuid(vcpu, cpuid);
	free(cpuid);

	xarea_copy(&got, s, sizeof(got));
	save(vcpu, &got);
	EXPECT_XFEATURES(XFEATURE_MASK_FP, got.xcr0, "XCR0 after KVM_SET_CPUID2");
	EXPECT_SAME(0, got.ssp, "SSP after KVM_SET_CPUID2");
	for (i = 0; i < got.msrs.header.nmsrs; i++)
		EXPECT_SAME(0, got.msrs.entry[i].data, "%s after KVM_SET_CPUID2",
			    msr_name(got.msrs.entry[i].index));
	/* Whether initial x87 and SSE state counts as in use is up to the CPU. */
	if (!kept)
		EXPECT_XFEATURES(0, xarea_header(got.image, 0) &
				    ~(XFEATURE_MASK_FPSSE | XFEATURE_MASK_PKRU),
				 "XSTATE_BV after KVM_SET_CPUID2");

	for (step = 0; step < NR_STEPS; step++)
		if (step != SET_XSAVE || !kept)
			restore(_metadata, vcpu, s, step, 0);
	expect_snapshot(_metadata, vcpu, s, "all steps");
}

/*
 * Verify what comes of state that is restored before CPUID: that of XSAVE is
 * taken, unless there are tiles, and kept; all else needs CPUID, is refused
 * without, leaves the vCPU as after reset, and can be restored then.
 */
TEST_F(xstate_restore, before_cpuid)
{
	struct snapshot s;
	u32 early;

	if (!xstate_need_refusals(_metadata))
		return;
	make_source(_metadata, &variant->combo, 0, &s);
	self->vm = vm_create_barebones();
	for (early = 0; early < BIT(NR_STEPS) && !_metadata->exit_code; early++) {
		th_case("steps %#x before KVM_SET_CPUID2", early);
		expect_late_cpuid(_metadata, self->vm, &variant->combo, &s, early);
	}
}

/* What the guest loads into all registers, and then finds there */
static struct guest {
	u64 xcr0, xss;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
} guest;

static INTEGER_ONLY void guest_code(void)
{
	guest_enable_xstate(guest.xcr0);
	if (guest.xss)
		wrmsr(MSR_IA32_XSS, guest.xss);
	for (;;) {
		guest_load_xregs(&guest.regs, guest.xcr0 | guest.xss);
		guest_leave();
		asm volatile("xsaves64 %0" : "+m" (guest.area) : "a" (-1), "d" (-1));
		guest_leave();
	}
}

/* XSAVE before XCR0 and MSRs, as most VMMs have it and libkvm does not */
static void load_xsave_first(struct kvm_vcpu *vcpu, struct kvm_x86_state *state)
{
	vcpu_sregs_set(vcpu, &state->sregs);
	vcpu_xsave_set(vcpu, state->xsave);
	vcpu_xcrs_set(vcpu, &state->xcrs);
	vcpu_msrs_set(vcpu, &state->msrs);
	vcpu_events_set(vcpu, &state->events);
	vcpu_mp_state_set(vcpu, &state->mp_state);
	vcpu_regs_set(vcpu, &state->regs);
}

/*
 * Move a guest with live registers to a new VM, where @load restores it, and
 * look at what it finds there.  Return its new vCPU.
 */
static struct kvm_vcpu *
expect_moved(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu, u32 seed,
	     void (*load)(struct kvm_vcpu *vcpu, struct kvm_x86_state *state), const char *when)
{
	struct guest *g = addr_gva2hva(vcpu->vm, (gva_t)&guest);
	u64 all = g->xcr0 | g->xss;
	struct kvm_x86_state *state;

	xregs_fill(&g->regs, vcpu, seed);
	xregs_run(vcpu);

	state = vcpu_save_state(vcpu);
	vcpu = xstate_recreate(vcpu);
	load(vcpu, state);
	kvm_x86_state_cleanup(state);

	xregs_run(vcpu);
	EXPECT_XFEATURES(all, xarea_header(g->area, 0), "XSTATE_BV of XSAVES, %s", when);
	expect_area(_metadata, g->area, &g->regs, all, all | XCOMP_BV_COMPACTED, when);
	return vcpu;
}

/*
 * Verify that a guest goes on in a new VM with all its registers: AVX-512,
 * PKRU, tiles and CET, restored with XSAVE last or first.  Twice: the host
 * restores in another order the second time.  IA32_XFD is 0 all the time.
 */
TEST_F(xstate_restore, guest)
{
	struct kvm_vcpu *vcpu;
	struct guest *g;

	if (!xstate_need_guests(_metadata))
		return;
	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_code);
	g = addr_gva2hva(self->vm, (gva_t)&guest);
	g->xcr0 = xregs_guest_mask(vcpu);
	g->xss = vcpu_has_shstk(vcpu) ? xregs_mask(vcpu_xss_mask(vcpu)) : 0;

	/* Even seeds: with others IA32_U_CET is 0 where there is no IBT. */
	vcpu = expect_moved(_metadata, vcpu, 2, vcpu_load_state, "restored with XSAVE last");
	expect_moved(_metadata, vcpu, 4, load_xsave_first, "restored with XSAVE first");
}

/* ---- into a vCPU unlike the one that was saved ---- */

FIXTURE(xstate_transfer) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct snapshot *from, had;
};

FIXTURE_VARIANT(xstate_transfer) {
	struct xstate_combo from, to;
};

FIXTURE_VARIANT_ADD(xstate_transfer, same)
	{ .from = { PERM_GUEST, AMX, CET }, .to = { PERM_GUEST, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_transfer, to_unpermitted)
	{ .from = { PERM_GUEST, AMX, CET }, .to = { PERM_NONE, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_transfer, to_noamx)
	{ .from = { PERM_GUEST, AMX, CET }, .to = { PERM_GUEST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xstate_transfer, to_nocet)
	{ .from = { PERM_GUEST, AMX, SHSTK }, .to = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_transfer, to_ibt)
	{ .from = { PERM_GUEST, AMX, SHSTK }, .to = { PERM_GUEST, AMX, IBT } };
FIXTURE_VARIANT_ADD(xstate_transfer, to_amx)
	{ .from = { PERM_NONE, NOAMX, CET }, .to = { PERM_GUEST, AMX, CET } };
FIXTURE_VARIANT_ADD(xstate_transfer, cet_to_nocet)
	{ .from = { PERM_NONE, NOAMX, CET }, .to = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xstate_transfer, plain)
	{ .from = { PERM_NONE, NOAMX, NOCET }, .to = { PERM_NONE, NOAMX, NOCET } };

/* Save in a child, which has permissions of its own, to memory that is shared with it. */
static struct snapshot *save_in_child(struct __test_metadata *const _metadata,
				      const struct xstate_combo *combo)
{
	struct snapshot *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	TEST_ASSERT(s != MAP_FAILED, "mmap(): %s", strerror(errno));
	pid = xf_fork(_metadata);
	if (!pid) {
		if (combo->perm == PERM_GUEST)
			xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
		make_source(_metadata, combo, 0, s);
		xf_exit();
	}
	xf_join(_metadata, pid, "the process of the source");
	return s;
}

/*
 * A combination with CET does without it where KVM has none, unless CET is what
 * source and target differ in.
 */
FIXTURE_SETUP(xstate_transfer)
{
	const struct xstate_combo *from = &variant->from, *to = &variant->to;

	xstate_begin_unpermitted(_metadata, variant);
	if ((from->amx || to->amx) && !xf_has_amx())
		SKIP(return, "no AMX on this machine");
	self->from = save_in_child(_metadata, from);
	if (to->perm == PERM_GUEST)
		xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	if (_metadata->exit_code)
		return;
	if (from->cet != to->cet &&
	    (!need_some_cet(_metadata, from) || !need_some_cet(_metadata, to)))
		return;

	/* The target has state of its own, which a refused step must keep. */
	self->vcpu = new_vcpu(_metadata, &self->vm, to, 1, 0, &self->had);
}

FIXTURE_TEARDOWN(xstate_transfer)
{
	xstate_end(_metadata, self->vm);
}

/*
 * Verify that an image with tile data is refused by a vCPU without AMX, which
 * then has all of its old state, and taken by all others.
 */
TEST_F(xstate_transfer, xsave)
{
	struct snapshot *from = self->from, *had = &self->had;
	bool fits = !(from->bv & XFEATURE_MASK_XTILE_DATA) || vcpu_has_amx(self->vcpu);

	restore(_metadata, self->vcpu, from, SET_XSAVE, fits ? 0 : EINVAL);
	if (fits) {
		had->regs = from->regs;
		had->bv = from->bv;
	}
	expect_snapshot(_metadata, self->vcpu, had, "KVM_SET_XSAVE");
}

/* The target can take this MSR of the source. */
static bool msr_fits(struct kvm_vcpu *vcpu, const struct kvm_msr_entry *e)
{
	switch (e->index) {
	case MSR_IA32_XSS:
		return !(e->data & ~vcpu_xss_mask(vcpu));
	case MSR_IA32_U_CET:
	case MSR_IA32_S_CET:
		return (vcpu_has_shstk(vcpu) || !(e->data & CET_WRSS_EN)) &&
		       (vcpu_has_ibt(vcpu) || !(e->data & ~CET_WRSS_EN));
	}
	return !e->data || vcpu_has_cet_msr(vcpu, e->index);
}

/* Write each MSR of the source; a refused one must not reach the target. */
static void expect_msrs(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			const struct snapshot *from, struct snapshot *had)
{
	const struct kvm_msr_entry *e;
	struct kvm_msr_entry *h;
	bool fits;

	for (e = from->msrs.entry; e < from->msrs.entry + from->msrs.header.nmsrs; e++) {
		fits = msr_fits(vcpu, e);
		EXPECT_THAT(vcpu_takes_msr(vcpu, e->index, e->data) == fits,
			    "KVM_SET_MSRS of %#llx to %s: %s", e->data, msr_name(e->index),
			    fits ? "not taken" : "taken");
		for (h = had->msrs.entry; h < had->msrs.entry + had->msrs.header.nmsrs; h++)
			if (h->index == e->index && fits)
				h->data = e->data;
	}
}

/*
 * Verify that XCR0 is taken if guest CPUID has all of it, each MSR if the
 * target has it, the shadow stack pointer if it has shadow stacks; and that
 * what is refused leaves the target with all it had.
 */
TEST_F(xstate_transfer, registers)
{
	struct snapshot *from = self->from, *had = &self->had;
	struct kvm_vcpu *vcpu = self->vcpu;
	bool fits = !(from->xcr0 & ~vcpu_xcr0_mask(vcpu));

	if (from->ssp && !vcpu_has_shstk(vcpu) && !xstate_need_refusals(_metadata))
		return;
	restore(_metadata, vcpu, from, SET_XCRS, fits ? 0 : EINVAL);
	if (fits)
		had->xcr0 = from->xcr0;
	expect_snapshot(_metadata, vcpu, had, "KVM_SET_XCRS");

	expect_msrs(_metadata, vcpu, from, had);
	expect_snapshot(_metadata, vcpu, had, "KVM_SET_MSRS");

	restore(_metadata, vcpu, from, SET_SSP, vcpu_has_shstk(vcpu) ? 0 : EINVAL);
	if (had->ssp && from->ssp)
		had->ssp = from->ssp;
	expect_snapshot(_metadata, vcpu, had, "KVM_SET_ONE_REG");
}

XSTATE_IOCTL_HARNESS_MAIN
