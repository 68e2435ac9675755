// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_SET_CPUID2, KVM_GET_CPUID2 and KVM_SET_CPUID as VMMs use them, before and after
 * the first KVM_RUN.
 *
 * Some of CPUID is KVM's own: OSXSAVE, OSPKE, APIC, MONITOR and the sizes in leaf 0xD
 * follow other registers, whoever writes those.  What a VMM says of them does not matter,
 * so that it may set again what it once gave, or what it has read since.  Anything else
 * that differs is refused once the vCPU has run, and costs the vCPU nothing.
 */
#include "xregs.h"

#ifndef MSR_IA32_MISC_ENABLE_MWAIT
#define MSR_IA32_MISC_ENABLE_MWAIT	BIT_ULL(18)
#endif
#ifndef KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT
#define KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT	BIT(4)
#endif

/* "up to KVM_MAX_CPUID_ENTRIES" of Documentation/virt/kvm/api.rst, which has no uAPI name */
#define MAX_ENTRIES		256

/* ---- what follows other registers ---- */

enum own { OSXSAVE, OSPKE, APIC, MONITOR, SIZE, COMPACTED_SIZE, NR_OWN };

#define OWN_STATES		BIT(NR_OWN)

/* Neighbours differ in one bit, the first and the last as well. */
static u32 nth_state(u32 i)
{
	i %= OWN_STATES;
	return i ^ i >> 1;
}

/* Where that is in CPUID, and what it follows */
static const struct {
	const char *name;
	u32 function, index, reg, mask;
} own[NR_OWN] = {
	[OSXSAVE]	 = { "CR4.OSXSAVE", 1, 0, KVM_CPUID_ECX, BIT(27) },
	[OSPKE]		 = { "CR4.PKE", 7, 0, KVM_CPUID_ECX, BIT(4) },
	[APIC]		 = { "IA32_APIC_BASE", 1, 0, KVM_CPUID_EDX, BIT(9) },
	[MONITOR]	 = { "IA32_MISC_ENABLE", 1, 0, KVM_CPUID_ECX, BIT(3) },
	[SIZE]		 = { "XCR0", 0xd, 0, KVM_CPUID_EBX, ~0u },
	[COMPACTED_SIZE] = { "IA32_XSS", 0xd, 1, KVM_CPUID_EBX, ~0u },
};

/* What a vCPU can have of these */
struct able {
	u64 xcr0, xss;
	bool pku, ospke, monitor, compacted;
};

static struct able vcpu_able(struct kvm_vcpu *vcpu)
{
	return (struct able) {
		.xcr0 = vcpu_xcr0_mask(vcpu),
		.xss = vcpu_cpuid_has(vcpu, X86_FEATURE_XSAVES) ? vcpu_xss_mask(vcpu) : 0,
		.pku = vcpu_cpuid_has(vcpu, X86_FEATURE_PKU),
		/* KVM once left it alone where the host has none. */
		.ospke = this_cpu_has(X86_FEATURE_OSPKE),
		.monitor = kvm_check_cap(KVM_CAP_DISABLE_QUIRKS2) &
			   KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT,
		.compacted = vcpu_cpuid_has(vcpu, X86_FEATURE_XSAVES) ||
			     vcpu_cpuid_has(vcpu, X86_FEATURE_XSAVEC),
	};
}

static u64 state_xcr0(const struct able *able, u32 state)
{
	return state & BIT(SIZE) ? able->xcr0 : XFEATURE_MASK_FP;
}

static u64 state_xss(const struct able *able, u32 state)
{
	return state & BIT(COMPACTED_SIZE) ? able->xss : 0;
}

/* CPUID of state @state in the register that @nr is in, the rest of which is @rest */
static u32 own_value(const struct able *able, enum own nr, u32 state, u32 rest)
{
	bool set = state & BIT(nr);

	switch (nr) {
	case SIZE:
		return xf_standard_size(state_xcr0(able, state));
	case COMPACTED_SIZE:
		if (!able->compacted)
			return rest;
		return xf_compacted_size(state_xcr0(able, state) | state_xss(able, state));
	case OSPKE:
		set &= able->pku;
		break;
	case MONITOR:
		if (!able->monitor)
			return rest;
		break;
	default:
		break;
	}
	return set ? rest | own[nr].mask : rest & ~own[nr].mask;
}

/* Have KVM keep MONITOR, too; libkvm does not. */
static void follow_misc_enable(struct kvm_vm *vm, const struct able *able)
{
	if (able->monitor)
		vm_enable_cap(vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT);
}

/* The host writes what CPUID follows; it may not read CPUID here. */
static void host_set_state(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			   const struct able *able, u32 state)
{
	struct kvm_sregs sregs;
	u64 misc;

	vcpu_sregs_get(vcpu, &sregs);
	sregs.cr4 &= ~(X86_CR4_OSXSAVE | X86_CR4_PKE);
	sregs.cr4 |= state & BIT(OSXSAVE) ? X86_CR4_OSXSAVE : 0;
	sregs.cr4 |= state & BIT(OSPKE) && able->pku ? X86_CR4_PKE : 0;
	sregs.apic_base &= ~MSR_IA32_APICBASE_ENABLE;
	sregs.apic_base |= state & BIT(APIC) ? MSR_IA32_APICBASE_ENABLE : 0;
	vcpu_sregs_set(vcpu, &sregs);
	EXPECT_THAT(vcpu_takes_xcr0(vcpu, state_xcr0(able, state)), "KVM_SET_XCRS: not taken");
	if (able->xss)
		EXPECT_THAT(vcpu_takes_msr(vcpu, MSR_IA32_XSS, state_xss(able, state)),
			    "KVM_SET_MSRS of IA32_XSS: not taken");
	if (!able->monitor)
		return;
	vcpu_reads_msr(vcpu, MSR_IA32_MISC_ENABLE, &misc);
	misc &= ~MSR_IA32_MISC_ENABLE_MWAIT;
	misc |= state & BIT(MONITOR) ? MSR_IA32_MISC_ENABLE_MWAIT : 0;
	EXPECT_THAT(vcpu_takes_msr(vcpu, MSR_IA32_MISC_ENABLE, misc),
		    "KVM_SET_MSRS of IA32_MISC_ENABLE: not taken");
}

/* What KVM_GET_CPUID2 must give of @given in that state */
static struct kvm_cpuid2 *cpuid_of_state(const struct kvm_cpuid2 *given, const struct able *able,
					 u32 state)
{
	struct kvm_cpuid2 *c = cpuid_copy(given);
	struct kvm_cpuid_entry2 *e;
	enum own nr;
	u32 *reg;

	for (nr = 0; nr < NR_OWN; nr++) {
		e = cpuid_entry(c, own[nr].function, own[nr].index);
		if (!e)
			continue;
		reg = &e->eax + own[nr].reg;
		*reg = own_value(able, nr, state, *reg);
	}
	return c;
}

/* The same CPUID with all that is KVM's own wrong */
static struct kvm_cpuid2 *cpuid_own_wrong(const struct kvm_cpuid2 *given, const struct able *able)
{
	struct kvm_cpuid2 *c = cpuid_copy(given);
	struct kvm_cpuid_entry2 *e;
	enum own nr;

	for (nr = 0; nr < NR_OWN; nr++) {
		e = cpuid_entry(c, own[nr].function, own[nr].index);
		if (e && (nr != OSPKE || able->ospke) && (nr != MONITOR || able->monitor) &&
		    (nr != COMPACTED_SIZE || able->compacted))
			(&e->eax)[own[nr].reg] ^= own[nr].mask;
	}
	return c;
}

/*
 * In this state KVM takes @given, @given with KVM's own bits wrong, and what it has
 * said before of the vCPU; and what it says now is right.  Nothing before the first
 * KVM_SET_CPUID2 reads CPUID: KVM may bring it up to date only then.
 */
static void expect_same_taken(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			      const struct kvm_cpuid2 *given, const struct able *able, u32 state,
			      struct kvm_cpuid2 *read_before)
{
	struct kvm_cpuid2 *wanted = cpuid_of_state(given, able, state);
	struct kvm_cpuid2 *wrong = cpuid_own_wrong(given, able);

	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID2, given), "KVM_SET_CPUID2 as given first");
	expect_same_cpuid(_metadata, vcpu, wanted, "as given first");
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID2, wrong),
		     "KVM_SET_CPUID2 with KVM's own bits wrong");
	expect_same_cpuid(_metadata, vcpu, wanted, "after KVM's own bits were wrong");
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID2, read_before),
		     "KVM_SET_CPUID2 as read in the state before");
	expect_same_cpuid(_metadata, vcpu, wanted, "as read in the state before");
	memcpy(read_before, wanted, sizeof(*wanted) + wanted->nent * sizeof(wanted->entries[0]));
	free(wanted);
	free(wrong);
}

/* ---- ioctls ---- */

FIXTURE(set_cpuid) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct kvm_cpuid2 *given;
	struct able able;
	struct xregs regs;
	u64 mask;
};

XSTATE_SUITE(set_cpuid);

FIXTURE_VARIANT_ADD(set_cpuid, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(set_cpuid, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(set_cpuid, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(set_cpuid)
{
	if (!xstate_begin(_metadata, &variant->combo))
		return;
	self->vcpu = xstate_new_vcpu(&self->vm, &variant->combo);
	self->given = xstate_cpuid(&variant->combo);
	self->able = vcpu_able(self->vcpu);
	self->mask = xregs_mask(self->able.xcr0);
	xregs_fill(&self->regs, self->vcpu, 0);
}

/*
 * All states, by a vCPU that has run or not.  CPUID is set first in each of them, and the
 * second time read: either must bring it up to date.
 */
static void expect_states(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(set_cpuid) * const self)
{
	struct kvm_cpuid2 *read = cpuid_copy(self->given), *wanted;
	u32 i, state;

	for (i = 0; i < 2 * OWN_STATES && !_metadata->exit_code; i++) {
		state = nth_state(i);
		th_case("state %#x", state);
		host_set_state(_metadata, self->vcpu, &self->able, state);
		if (i >= OWN_STATES) {
			wanted = cpuid_of_state(self->given, &self->able, state);
			expect_same_cpuid(_metadata, self->vcpu, wanted, "as read first");
			free(wanted);
		}
		expect_same_taken(_metadata, self->vcpu, self->given, &self->able, state, read);
	}
	th_no_case();
	free(read);
}

/*
 * Verify that KVM's own part of CPUID follows what the host writes, in KVM_GET_CPUID2
 * at once, and that it takes the same CPUID in all its forms.
 */
TEST_F(set_cpuid, states)
{
	follow_misc_enable(self->vm, &self->able);
	expect_states(_metadata, self);
}

/* Verify the same once the vCPU has run, and that this changes nothing else. */
TEST_F(set_cpuid, states_after_run)
{
	follow_misc_enable(self->vm, &self->able);
	if (!xstate_run_without_memory(_metadata, self->vcpu))
		return;
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
	expect_states(_metadata, self);
	/* The last state is one with all of XSS, and without XCR0. */
	vcpu_takes_xcr0(self->vcpu, self->able.xcr0);
	if (self->able.xss)
		vcpu_set_msr(self->vcpu, MSR_IA32_XSS, self->able.xss);
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "the same KVM_SET_CPUID2");
}

/* Other CPUIDs, which no vCPU takes that has run */
enum other { FEWER, MORE, SWAPPED, FUNCTION, INDEX, FLAGS, BRAND, NONE, NR_OTHER };

static const char * const other_names[] = {
	"one entry less", "one entry more", "two entries swapped", "another function",
	"another index", "another flag", "another register", "no entry",
};

static struct kvm_cpuid2 *other_cpuid(const struct kvm_cpuid2 *given, enum other other)
{
	struct kvm_cpuid2 *c = allocate_kvm_cpuid2(given->nent + 1);
	struct kvm_cpuid_entry2 *last = &c->entries[given->nent - 1];

	memcpy(c, given, sizeof(*c) + given->nent * sizeof(*last));
	switch (other) {
	case FEWER:
		c->nent--;
		break;
	case MORE:
		c->nent++;
		last[1] = (struct kvm_cpuid_entry2) { .function = 0x8fffffff };
		break;
	case SWAPPED:
		last[1] = c->entries[0];
		c->entries[0] = *last;
		*last = last[1];
		break;
	case FUNCTION:
		last->function ^= BIT(20);
		break;
	case INDEX:
		last->index ^= BIT(20);
		break;
	case FLAGS:
		last->flags ^= KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		break;
	case BRAND:
		c->entries[0].ebx ^= BIT(0);
		break;
	default:
		c->nent = 0;
	}
	return c;
}

/*
 * Verify that a vCPU that has run refuses every other CPUID, and is left with the
 * one that it has, and with all its state.
 */
TEST_F(set_cpuid, other_after_run)
{
	struct kvm_cpuid2 *before, *c;
	enum other other;

	if (!xstate_run_without_memory(_metadata, self->vcpu))
		return;
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
	before = vcpu_current_cpuid(self->vcpu);
	for (other = 0; other < NR_OTHER; other++) {
		th_case("%s", other_names[other]);
		c = other_cpuid(before, other);
		EXPECT_ERRNO(EINVAL, vcpu_errno(self->vcpu, KVM_SET_CPUID2, c), "KVM_SET_CPUID2");
		expect_same_cpuid(_metadata, self->vcpu, before, "after a refusal");
		free(c);
	}
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "refused KVM_SET_CPUID2");
	th_no_case();
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_CPUID2, before), "KVM_SET_CPUID2 as read");
}

/* KVM_GET_CPUID2 with room for @room of @has entries; return the errno. */
static int expect_room(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu, u32 room,
		       u32 has, u32 *told)
{
	u32 size = (has + 1) * sizeof(struct kvm_cpuid_entry2), i;
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + size);
	u8 *bytes = (u8 *)c->entries;
	int error;

	th_case("room for %u of %u entries", room, has);
	xarea_fill(bytes, XAREA_POISON, size);
	c->nent = room;
	error = vcpu_errno(vcpu, KVM_GET_CPUID2, c);
	EXPECT_ERRNO(room < has ? E2BIG : 0, error, "KVM_GET_CPUID2");
	for (i = room < has ? 0 : has * sizeof(c->entries[0]); i < size; i++)
		if (!EXPECT_SAME(XAREA_POISON, bytes[i], "byte %u of what is not an entry", i))
			break;
	*told = c->nent;
	free(c);
	th_no_case();
	return error;
}

/*
 * Verify that KVM_GET_CPUID2 wants room for all entries, writes them and no more, and
 * says how many there are.
 */
TEST_F(set_cpuid, get_sizes)
{
	u32 has = self->given->nent, told;
	struct kvm_cpuid2 *c;

	expect_room(_metadata, self->vcpu, 0, has, &told);
	expect_room(_metadata, self->vcpu, has - 1, has, &told);
	expect_room(_metadata, self->vcpu, has, has, &told);
	EXPECT_SAME(has, told, "entries that there are");

	c = (void *)xf_guarded(sizeof(*c) + (has - 1) * sizeof(c->entries[0]), 0);
	c->nent = has;
	EXPECT_ERRNO(EFAULT, vcpu_errno(self->vcpu, KVM_GET_CPUID2, c),
		     "KVM_GET_CPUID2 to memory that ends too soon");
	c->nent = has - 1;
	EXPECT_ERRNO(E2BIG, vcpu_errno(self->vcpu, KVM_GET_CPUID2, c),
		     "KVM_GET_CPUID2 to memory for one entry less");

	expect_room(_metadata, self->vcpu, has + 1, has, &told);
	XFAIL_IF(told == has + 1, "KVM_GET_CPUID2 does not say how many entries there are") {
		EXPECT_SAME(has, told, "entries that there are, with room for more");
	}
}

/* Both ioctls that set CPUID, which differ in the size of an entry */
static int set_entries(struct kvm_vcpu *vcpu, bool old, void *arg)
{
	return old ? vcpu_errno(vcpu, KVM_SET_CPUID, arg) : vcpu_errno(vcpu, KVM_SET_CPUID2, arg);
}

/*
 * Verify that both ioctls take as many entries as KVM has room for and not one more,
 * none as well, and change nothing if they cannot read them.
 */
TEST_F(set_cpuid, set_sizes)
{
	struct kvm_cpuid_entry2 *e;
	struct kvm_cpuid2 *c;
	u32 old, size, told;

	for (old = 0; old < 2; old++) {
		th_case("KVM_SET_CPUID%s", old ? "" : "2");
		size = old ? sizeof(struct kvm_cpuid_entry) : sizeof(*e);
		ASSERT_EQ(0, vcpu_errno(self->vcpu, KVM_SET_CPUID2, self->given));
		c = (void *)xf_guarded(sizeof(*c) + MAX_ENTRIES * size, 0);

		c->nent = MAX_ENTRIES + 1;
		EXPECT_ERRNO(E2BIG, set_entries(self->vcpu, old, c), "one entry too many");
		c->nent = -1u;
		EXPECT_ERRNO(E2BIG, set_entries(self->vcpu, old, c), "4 billion entries");
		c = (void *)((u8 *)c + size);
		c->nent = MAX_ENTRIES;
		EXPECT_ERRNO(EFAULT, set_entries(self->vcpu, old, c), "memory ends too soon");
		EXPECT_ERRNO(EFAULT, set_entries(self->vcpu, old, NULL), "no memory");
		c = (void *)((u8 *)c - size);
		expect_room(_metadata, self->vcpu, self->given->nent, self->given->nent, &told);

		c->nent = MAX_ENTRIES;
		EXPECT_ERRNO(0, set_entries(self->vcpu, old, c), "as many as there is room for");
		expect_room(_metadata, self->vcpu, MAX_ENTRIES, MAX_ENTRIES, &told);
		c->nent = 0;
		EXPECT_ERRNO(0, set_entries(self->vcpu, old, c), "none");
		expect_room(_metadata, self->vcpu, 0, 0, &told);
	}
}

/* ---- KVM_SET_CPUID, whose entries have no index ---- */

/*
 * The first entry of each leaf, 0xD among them or not.  Without a flag it stands for all
 * indexes.  SGX, leaf 0x12, follows XCR0 on old kernels.
 */
static struct kvm_cpuid *old_cpuid(const struct kvm_cpuid2 *given, bool leaf_0xd)
{
	struct kvm_cpuid *c = calloc(1, sizeof(*c) + given->nent * sizeof(c->entries[0]));
	const struct kvm_cpuid_entry2 *e;

	for (e = given->entries; e < given->entries + given->nent; e++)
		if (!e->index && e->function != 0x12 && (e->function != 0xd || leaf_0xd))
			c->entries[c->nent++] = (struct kvm_cpuid_entry) {
				.function = e->function,
				.eax = e->eax, .ebx = e->ebx, .ecx = e->ecx, .edx = e->edx,
			};
	return c;
}

/* What KVM_GET_CPUID2 must make of it, KVM's own part left out */
static void expect_old_cpuid(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			     const struct kvm_cpuid *set)
{
	struct kvm_cpuid2 *got = allocate_kvm_cpuid2(set->nent);
	const struct kvm_cpuid_entry *w = set->entries;
	const struct kvm_cpuid_entry2 *e = got->entries;
	u32 i, ecx, edx;

	if (!EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_GET_CPUID2, got), "KVM_GET_CPUID2"))
		return;
	/* One failure is enough. */
	for (i = 0; i < set->nent && !_metadata->exit_code; i++, w++, e++) {
		ecx = w->function == 1 ? own[OSXSAVE].mask | own[MONITOR].mask :
		      w->function == 7 ? own[OSPKE].mask : 0;
		edx = w->function == 1 ? own[APIC].mask : 0;
		EXPECT_SAME(w->function, e->function, "function of entry %u", i);
		EXPECT_SAME(0, e->index, "index of CPUID leaf %#x", w->function);
		EXPECT_SAME(0, e->flags, "flags of CPUID leaf %#x", w->function);
		EXPECT_SAME(w->eax, e->eax, "CPUID.%#x.EAX", w->function);
		EXPECT_SAME(w->ecx & ~ecx, e->ecx & ~ecx, "CPUID.%#x.ECX", w->function);
		EXPECT_SAME(w->edx & ~edx, e->edx & ~edx, "CPUID.%#x.EDX", w->function);
		if (w->function != 0xd)
			EXPECT_SAME(w->ebx, e->ebx, "CPUID.%#x.EBX", w->function);
	}
	free(got);
}

/*
 * Verify that a vCPU that KVM_SET_CPUID gave no leaf 0xD has x87 in XCR0 and no more,
 * nothing in IA32_XSS, and saves and restores x87 and SSE in 4 KiB; and that after
 * KVM_RUN it takes the same CPUID by either ioctl, and no other one.
 */
TEST_F(set_cpuid, old_without_leaf_0xd)
{
	struct kvm_cpuid *c = old_cpuid(self->given, false);
	struct kvm_vcpu *vcpu = __vm_vcpu_add(self->vm, 1);
	struct kvm_cpuid2 *read;
	int i;

	ASSERT_EQ(0, vcpu_errno(vcpu, KVM_SET_CPUID, c));
	expect_old_cpuid(_metadata, vcpu, c);
	vcpu_set_xregs_area(_metadata, vcpu, &self->regs, XFEATURE_MASK_FPSSE);
	for (i = 1; i < 64; i++)
		EXPECT_THAT(!vcpu_takes_xcr0(vcpu, XFEATURE_MASK_FP | BIT_ULL(i)),
			    "XCR0 takes bit %d without leaf 0xD", i);
	EXPECT_THAT(vcpu_takes_xcr0(vcpu, XFEATURE_MASK_FP), "XCR0 does not take x87");
	for (i = 0; i < 64 && kvm_refuses_msrs(); i++)
		EXPECT_THAT(!vcpu_takes_msr(vcpu, MSR_IA32_XSS, BIT_ULL(i)),
			    "IA32_XSS takes bit %d without leaf 0xD", i);
	expect_area(_metadata, vcpu_area(vcpu), &self->regs, XFEATURE_MASK_FPSSE, 0,
		    "KVM_GET_XSAVE2 without leaf 0xD");
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_GET_XSAVE, xf_guarded(sizeof(struct kvm_xsave), 0)),
		     "KVM_GET_XSAVE without leaf 0xD");

	if (!xstate_run_without_memory(_metadata, vcpu))
		return;
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID, c), "the same KVM_SET_CPUID");
	read = allocate_kvm_cpuid2(c->nent);
	ASSERT_EQ(0, vcpu_errno(vcpu, KVM_GET_CPUID2, read));
	/* libkvm knows nothing of it yet. */
	vcpu->cpuid = cpuid_copy(read);
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_CPUID2, read), "KVM_SET_CPUID2 as read");
	EXPECT_ERRNO(EINVAL, vcpu_errno(vcpu, KVM_SET_CPUID2, self->given),
		     "KVM_SET_CPUID2 with indexes");
	c->entries[0].ebx ^= 1;
	EXPECT_ERRNO(EINVAL, vcpu_errno(vcpu, KVM_SET_CPUID, c), "another KVM_SET_CPUID");
	expect_same_cpuid(_metadata, vcpu, read, "after a refusal");
}

/*
 * Verify that KVM_SET_CPUID with a leaf 0xD gives what is in there to XCR0, AMX only
 * by permission, without which the old CPUID stays: EPERM.
 */
TEST_F(set_cpuid, old_with_leaf_0xd)
{
	bool granted = xstate_guest_granted(&variant->combo);
	struct kvm_cpuid *c = old_cpuid(self->given, true);
	struct kvm_cpuid_entry *e = c->entries;
	struct kvm_cpuid2 *before;

	while (e->function != 0xd)
		e++;
	before = vcpu_current_cpuid(self->vcpu);
	e->eax |= XFEATURE_MASK_XTILE;
	EXPECT_ERRNO(granted ? 0 : EPERM, vcpu_errno(self->vcpu, KVM_SET_CPUID, c),
		     "KVM_SET_CPUID with AMX");
	if (granted)
		expect_old_cpuid(_metadata, self->vcpu, c);
	else
		expect_same_cpuid(_metadata, self->vcpu, before, "after EPERM");

	if (!granted)
		e->eax &= ~XFEATURE_MASK_XTILE;
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_CPUID, c), "KVM_SET_CPUID");
	expect_old_cpuid(_metadata, self->vcpu, c);
	EXPECT_THAT(vcpu_takes_xcr0(self->vcpu, self->able.xcr0), "KVM_SET_XCRS of %#lx: not taken",
		    (unsigned long)self->able.xcr0);
	EXPECT_XFEATURES(self->able.xcr0, vcpu_xcr0(self->vcpu), "XCR0");
	vcpu_set_xregs_area(_metadata, self->vcpu, &self->regs, self->mask);
	expect_area(_metadata, vcpu_area(self->vcpu), &self->regs, self->mask, 0,
		    "KVM_GET_XSAVE2 after KVM_SET_CPUID");
}

/* ---- a guest that changes it ---- */

/* What the guest is to have, and then what CPUID says there */
static struct guest {
	struct able able;
	u64 cr4, xcr0, xss, apic_base, misc;
	u32 cpuid[NR_OWN];
} guest;

static void guest_read(struct guest *g)
{
	u32 regs[4], nr;

	for (nr = 0; nr < NR_OWN; nr++) {
		__cpuid(own[nr].function, own[nr].index, &regs[KVM_CPUID_EAX],
			&regs[KVM_CPUID_EBX], &regs[KVM_CPUID_ECX], &regs[KVM_CPUID_EDX]);
		g->cpuid[nr] = regs[own[nr].reg] & own[nr].mask;
	}
}

/* Write @bits of @mask to an MSR that has others. */
static void guest_change(u32 msr, u64 mask, u64 bits)
{
	u64 old = rdmsr(msr);

	if ((old & mask) != bits)
		wrmsr(msr, (old & ~mask) | bits);
}

/* Write what changes and nothing else, which could bring CPUID up to date by chance. */
static void guest_code(struct guest *g)
{
	u64 cr4, xcr0 = 0;

	for (;;) {
		if (xcr0 != g->xcr0) {
			set_cr4(get_cr4() | X86_CR4_OSXSAVE);
			xsetbv(0, g->xcr0);
			xcr0 = g->xcr0;
		}
		if (g->able.xss)
			guest_change(MSR_IA32_XSS, ~0ull, g->xss);
		guest_change(MSR_IA32_APICBASE, MSR_IA32_APICBASE_ENABLE, g->apic_base);
		if (g->able.monitor)
			guest_change(MSR_IA32_MISC_ENABLE, MSR_IA32_MISC_ENABLE_MWAIT, g->misc);
		cr4 = (get_cr4() & ~(X86_CR4_OSXSAVE | X86_CR4_PKE)) | g->cr4;
		if (cr4 != get_cr4())
			set_cr4(cr4);
		GUEST_SYNC(0);
		guest_read(g);
		GUEST_SYNC(1);
	}
}

/* Let the guest have @state. */
static void guest_set_state(struct guest *g, u32 state)
{
	const struct able *able = &g->able;

	g->cr4 = (state & BIT(OSXSAVE) ? X86_CR4_OSXSAVE : 0) |
		 (state & BIT(OSPKE) && able->pku ? X86_CR4_PKE : 0);
	g->xcr0 = state_xcr0(able, state);
	g->xss = state_xss(able, state);
	g->apic_base = state & BIT(APIC) ? MSR_IA32_APICBASE_ENABLE : 0;
	g->misc = state & BIT(MONITOR) ? MSR_IA32_MISC_ENABLE_MWAIT : 0;
}

/*
 * Verify that the same CPUID is taken whatever the guest has written since, in each
 * state, and that CPUID of the guest then still says what it has written.
 */
TEST_F(set_cpuid, states_of_guest)
{
	struct kvm_cpuid2 *read = cpuid_copy(self->given), *wanted;
	struct kvm_vcpu *vcpu;
	struct guest *g;
	u32 i, state, nr;

	if (!xstate_need_guests(_metadata))
		return;
	if (!xregs_any_xsetbv_exits(_metadata))
		SKIP(return, "this CPU executes XSETBV of guests without an exit");
	kvm_vm_free(self->vm);
	vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_code);
	vcpu_args_set(vcpu, 1, &guest);
	follow_misc_enable(self->vm, &self->able);
	g = addr_gva2hva(self->vm, (gva_t)&guest);
	g->able = self->able;
	for (i = 0; i < 2 * OWN_STATES && !_metadata->exit_code; i++) {
		state = nth_state(i);
		th_case("state %#x", state);
		guest_set_state(g, state);
		xstate_run(vcpu, UCALL_SYNC);
		/* The second time, only the guest reads CPUID. */
		if (i < OWN_STATES)
			expect_same_taken(_metadata, vcpu, self->given, &self->able, state, read);
		xstate_run(vcpu, UCALL_SYNC);
		wanted = cpuid_of_state(self->given, &self->able, state);
		for (nr = 0; nr < NR_OWN; nr++)
			EXPECT_SAME((&cpuid_entry(wanted, own[nr].function, own[nr].index)->eax)
				    [own[nr].reg] & own[nr].mask, g->cpuid[nr],
				    "CPUID in the guest that follows %s", own[nr].name);
		free(wanted);
	}
}

XSTATE_IOCTL_HARNESS_MAIN
