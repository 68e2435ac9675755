// SPDX-License-Identifier: GPL-2.0-only
/*
 * ioctls of a vCPU with memory that is not there, that ends too soon, or that
 * cannot be written: EFAULT, and the vCPU is as it was.
 *
 * A table has each ioctl that reads or writes registers, with its argument and a
 * byte in there that makes another state of it: if any of a refused argument got
 * through, that would show in what the ioctls that read say afterwards.
 */
#include "xregs.h"
#include "../../../x86/xfault.h"

#ifndef KVM_VCPU_TSC_CTRL
#define KVM_VCPU_TSC_CTRL	0
#define KVM_VCPU_TSC_OFFSET	0
#endif

#define POISON			0x5a

/* Any argument fits into this, in pages between two that are not there. */
#define ARG_SIZE		(2 * XAREA_SIZE)

/* ---- the table ---- */

FIXTURE(ioctl_fault) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xregs regs;
	u8 *arg, *fence;		/* ARG_SIZE bytes, and the page behind them */
	u8 *before;			/* what all of the table read */
};

XSTATE_SUITE(ioctl_fault);

FIXTURE_VARIANT_ADD(ioctl_fault, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(ioctl_fault, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(ioctl_fault, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(ioctl_fault, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

/* What is changed by an argument, with the bits @change in the byte at @at */
static const struct row {
	const char *name;
	unsigned long get, set;
	u32 size;			/* 0 if it is not always the same */
	u32 at;
	u8 change;
} rows[] = {
	{ "REGS", KVM_GET_REGS, KVM_SET_REGS,
	  sizeof(struct kvm_regs), offsetof(struct kvm_regs, rbx), 1 },
	{ "SREGS", KVM_GET_SREGS, KVM_SET_SREGS,
	  sizeof(struct kvm_sregs), offsetof(struct kvm_sregs, cr2), 1 },
	{ "SREGS2", KVM_GET_SREGS2, KVM_SET_SREGS2,
	  sizeof(struct kvm_sregs2), offsetof(struct kvm_sregs2, cr2), 1 },
	{ "FPU", KVM_GET_FPU, KVM_SET_FPU,
	  sizeof(struct kvm_fpu), offsetof(struct kvm_fpu, xmm), 1 },
	{ "XSAVE", KVM_GET_XSAVE, KVM_SET_XSAVE, 0, XAREA_XMM, 1 },
	{ "XSAVE2", KVM_GET_XSAVE2, KVM_SET_XSAVE, 0, XAREA_XMM, 1 },
	{ "XCRS", KVM_GET_XCRS, KVM_SET_XCRS,
	  sizeof(struct kvm_xcrs), offsetof(struct kvm_xcrs, xcrs[0].value), XFEATURE_MASK_SSE },
	{ "MSRS", KVM_GET_MSRS, KVM_SET_MSRS,
	  0, offsetof(struct kvm_msrs, entries[0].data), 1 },
	{ "CPUID2", KVM_GET_CPUID2, KVM_SET_CPUID2,
	  0, offsetof(struct kvm_cpuid2, entries[0].ebx), 1 },
	{ "VCPU_EVENTS", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
	  sizeof(struct kvm_vcpu_events), offsetof(struct kvm_vcpu_events, nmi.masked), 1 },
	{ "DEBUGREGS", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS,
	  sizeof(struct kvm_debugregs), offsetof(struct kvm_debugregs, db[0]), 1 },
	{ "MP_STATE", KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state), 0, 0 },
	{ "NESTED_STATE", KVM_GET_NESTED_STATE, KVM_SET_NESTED_STATE,
	  sizeof(struct kvm_nested_state), 0, 0 },
	{ "REG_LIST", KVM_GET_REG_LIST, 0, 0, 0, 0 },
};

#define NR_ROWS		ARRAY_SIZE(rows)

/* This vCPU of this KVM has it. */
static bool row_works(struct kvm_vcpu *vcpu, const struct row *r)
{
	switch (r->get) {
	case KVM_GET_XSAVE:
		return !vcpu_has_amx(vcpu);
	case KVM_GET_REG_LIST:
		return kvm_check_cap(KVM_CAP_ONE_REG) > 0;
	case KVM_GET_NESTED_STATE:
		return kvm_check_cap(KVM_CAP_NESTED_STATE) > 0;
	}
	return true;
}

/* Two or three MSRs, the last one in the fpstate */
static u32 fill_msrs(struct kvm_vcpu *vcpu, struct kvm_msrs *list)
{
	list->nmsrs = vcpu_has_cet_msr(vcpu, MSR_IA32_U_CET) ? 3 : 2;
	list->entries[0].index = MSR_STAR;
	list->entries[1].index = MSR_IA32_XFD_ERR;
	list->entries[2].index = MSR_IA32_U_CET;
	return sizeof(*list) + list->nmsrs * sizeof(list->entries[0]);
}

static u32 fill_cpuid(struct kvm_vcpu *vcpu, struct kvm_cpuid2 *cpuid)
{
	cpuid->nent = vcpu->cpuid->nent;
	return sizeof(*cpuid) + cpuid->nent * sizeof(cpuid->entries[0]);
}

static u32 fill_reg_list(struct kvm_vcpu *vcpu, struct kvm_reg_list *list)
{
	u64 none = 0;

	vcpu_errno(vcpu, KVM_GET_REG_LIST, &none);
	list->n = none;
	return sizeof(*list) + list->n * sizeof(list->reg[0]);
}

/*
 * Fill ARG_SIZE bytes with what the ioctl that reads @r wants to have in its
 * argument, and say how large that is.
 */
static u32 fill(struct kvm_vcpu *vcpu, const struct row *r, u8 *arg)
{
	xarea_fill(arg, 0, ARG_SIZE);
	switch (r->get) {
	case KVM_GET_XSAVE:
	case KVM_GET_XSAVE2:
		return vcpu_xsave_size(vcpu);
	case KVM_GET_MSRS:
		return fill_msrs(vcpu, (struct kvm_msrs *)arg);
	case KVM_GET_CPUID2:
		return fill_cpuid(vcpu, (struct kvm_cpuid2 *)arg);
	case KVM_GET_REG_LIST:
		return fill_reg_list(vcpu, (struct kvm_reg_list *)arg);
	case KVM_GET_NESTED_STATE:
		/* Without a nested guest there is no more than this. */
		((struct kvm_nested_state *)arg)->size = r->size;
	}
	return r->size;
}

FIXTURE_SETUP(ioctl_fault)
{
	if (!xstate_begin(_metadata, &variant->combo) ||
	    !xstate_need_cet(_metadata, &variant->combo))
		return;
	self->vm = vm_create_barebones();
	xstate_create_apic(self->vm);
	self->vcpu = xstate_add_vcpu(self->vm, 0, &variant->combo);
	xregs_fill(&self->regs, self->vcpu, 0);
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs,
		       xregs_mask(vcpu_xcr0_mask(self->vcpu)));
	/* SSE is the change of XCR0: AVX may not be there. */
	EXPECT_THAT(vcpu_takes_xcr0(self->vcpu, XFEATURE_MASK_FP), "KVM_SET_XCRS: not taken");
	self->arg = xf_guarded(ARG_SIZE, POISON);
	self->fence = self->arg + ARG_SIZE;
	self->before = calloc(NR_ROWS, ARG_SIZE);
	ASSERT_NE(NULL, self->before);
}

/* The result of an ioctl that may return a number */
static int try(struct kvm_vcpu *vcpu, unsigned long cmd, void *arg)
{
	return ioctl(vcpu->fd, cmd, arg) < 0 ? errno : 0;
}

/* Read @r to @to, of ARG_SIZE bytes, and return its size. */
static u32 read_row(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		    const struct row *r, u8 *to)
{
	u32 size = fill(vcpu, r, to);

	EXPECT_ERRNO(0, try(vcpu, r->get, to), "KVM_GET_%s", r->name);
	return size;
}

static void read_all(struct __test_metadata *const _metadata,
		     FIXTURE_DATA(ioctl_fault) * const self)
{
	unsigned int i;

	for (i = 0; i < NR_ROWS; i++)
		if (row_works(self->vcpu, &rows[i]))
			read_row(_metadata, self->vcpu, &rows[i], self->before + i * ARG_SIZE);
}

/* All that can be read is what read_all() has read. */
static void expect_unchanged(struct __test_metadata *const _metadata,
			     FIXTURE_DATA(ioctl_fault) * const self)
{
	static u8 now[ARG_SIZE];
	const u8 *before;
	unsigned int i;
	size_t n;

	for (i = 0; i < NR_ROWS; i++) {
		if (!row_works(self->vcpu, &rows[i]))
			continue;
		before = self->before + i * ARG_SIZE;
		read_row(_metadata, self->vcpu, &rows[i], now);
		n = xarea_differ(before, now, ARG_SIZE);
		if (n < ARG_SIZE)
			EXPECT_SAME(before[n], now[n], "byte %zu of KVM_GET_%s afterwards", n,
				    rows[i].name);
	}
}

/* Memory that cannot hold the argument, of which @size bytes are in @self->arg */
static void expect_faults(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(ioctl_fault) * const self, unsigned long cmd,
			  const u8 *value, u32 size)
{
	const u32 there[] = { 0, 1, size / 2, size - 1 };
	unsigned int i;
	u8 *arg;

	EXPECT_ERRNO(EFAULT, try(self->vcpu, cmd, NULL), "argument NULL");
	EXPECT_ERRNO(EFAULT, try(self->vcpu, cmd, (void *)BIT_ULL(63)), "argument 1 << 63");
	for (i = 0; i < ARRAY_SIZE(there); i++) {
		arg = self->fence - there[i];
		xarea_copy(arg, value, there[i]);
		EXPECT_ERRNO(EFAULT, try(self->vcpu, cmd, arg), "%u of %u bytes", there[i], size);
	}
	expect_unchanged(_metadata, self);
}

/* The very edge of what is there; @writable if KVM is to write it */
static void expect_edge(struct __test_metadata *const _metadata,
			FIXTURE_DATA(ioctl_fault) * const self, unsigned long cmd,
			const u8 *value, u32 size, bool writes)
{
	u8 *arg = self->fence - size;

	xarea_copy(arg, value, size);
	EXPECT_ERRNO(0, try(self->vcpu, cmd, arg), "all of %u bytes", size);
	xarea_copy(arg, value, size);
	mprotect(self->arg, ARG_SIZE, PROT_READ);
	EXPECT_ERRNO(writes ? EFAULT : 0, try(self->vcpu, cmd, arg), "read-only memory");
	mprotect(self->arg, ARG_SIZE, PROT_READ | PROT_WRITE);
	expect_unchanged(_metadata, self);
}

/* Verify that what reads registers takes no memory but what it can write. */
TEST_F(ioctl_fault, get)
{
	static u8 value[ARG_SIZE];
	const struct row *r;
	u32 size;

	read_all(_metadata, self);
	for (r = rows; r < rows + NR_ROWS; r++) {
		if (!row_works(self->vcpu, r))
			continue;
		th_case("KVM_GET_%s", r->name);
		size = fill(self->vcpu, r, value);
		expect_faults(_metadata, self, r->get, value, size);
		expect_edge(_metadata, self, r->get, value, size, true);
	}
}

/*
 * Verify that what sets registers takes no memory but what it can read, and then
 * sets none; that it writes none, and takes what was read.
 */
TEST_F(ioctl_fault, set)
{
	static u8 value[ARG_SIZE];
	const struct row *r;
	u32 size;

	read_all(_metadata, self);
	for (r = rows; r < rows + NR_ROWS; r++) {
		if (!r->set || !row_works(self->vcpu, r))
			continue;
		th_case("KVM_SET_%s", r->name);
		size = read_row(_metadata, self->vcpu, r, value);
		value[r->at] ^= r->change;
		expect_faults(_metadata, self, r->set, value, size);
		value[r->at] ^= r->change;
		expect_edge(_metadata, self, r->set, value, size, false);
	}
}

/* Verify that the changes above are some: without a fault, the ioctls that read show them. */
TEST_F(ioctl_fault, change)
{
	static u8 value[ARG_SIZE], now[ARG_SIZE];
	const struct row *r;

	for (r = rows; r < rows + NR_ROWS; r++) {
		if (!r->change || !row_works(self->vcpu, r))
			continue;
		th_case("KVM_SET_%s", r->name);
		read_row(_metadata, self->vcpu, r, value);
		value[r->at] ^= r->change;
		EXPECT_ERRNO(0, try(self->vcpu, r->set, value), "another state");
		read_row(_metadata, self->vcpu, r, now);
		EXPECT_SAME(value[r->at], now[r->at], "byte %u of it", r->at);
		value[r->at] ^= r->change;
		EXPECT_ERRNO(0, try(self->vcpu, r->set, value), "the state that it had");
	}
}

/* One of the ioctls of a row, to read or to set */
struct attempt {
	FIXTURE_DATA(ioctl_fault) * const self;
	const struct row *row;
	unsigned int set;		/* or 0 */
};

/* A fault of it, in the kernel's memory, or in that of the argument */
static void attempt(struct __test_metadata *const _metadata, struct xfault *f, const void *arg)
{
	static u8 value[ARG_SIZE];
	const struct attempt *a = arg;
	const struct row *r = a->row;
	struct kvm_vcpu *vcpu = a->self->vcpu;
	int error;

	if (a->set)
		read_row(_metadata, vcpu, r, value);
	else
		fill(vcpu, r, value);
	value[r->at] ^= a->set ? r->change : 0;
	xfault_arm(f);
	error = try(vcpu, a->set ? r->set : r->get, value);
	xfault_disarm(f);
	xfault_expect_errno(_metadata, f, error, "the ioctl");
	value[r->at] ^= a->set ? r->change : 0;
	if (a->set && !error)
		EXPECT_ERRNO(0, try(vcpu, r->set, value), "the state that it had");
	expect_unchanged(_metadata, a->self);
}

/* Verify the same of each of them that has no memory, or cannot copy, in the kernel. */
TEST_F_TIMEOUT(ioctl_fault, alloc, 120)
{
	struct attempt a = { .self = self };
	struct xfault_call call = { .try = attempt, .arg = &a, .here = true };
	char what[64];

	if (!xfault_need(_metadata))
		return;
	read_all(_metadata, self);
	call.what = what;
	for (a.row = rows; a.row < rows + NR_ROWS; a.row++)
		for (a.set = 0; a.set <= !!a.row->set; a.set++) {
			if (!row_works(self->vcpu, a.row))
				continue;
			snprintf(what, sizeof(what), "KVM_%s_%s", a.set ? "SET" : "GET",
				 a.row->name);
			xfault_walk(_metadata, &call);
		}
	xfault_end(_metadata);
}

/* ---- arguments that say where there is memory ---- */

struct indirect {
	const char *name;
	unsigned long get, set;
	union {
		struct kvm_one_reg reg;
		struct kvm_device_attr attr;
	};
	u64 *addr;			/* of the memory, in one of them */
	u8 change;
};

/* Eight bytes of memory that @in points to: bad ones, the last ones, read-only ones */
static void expect_indirect(struct __test_metadata *const _metadata,
			    FIXTURE_DATA(ioctl_fault) * const self, struct indirect *in)
{
	u64 bad[] = { 0, BIT_ULL(63), (u64)self->fence, (u64)self->fence - 1,
		      (u64)self->fence - 7 };
	u64 *edge = (u64 *)(self->fence - 8), value = 0;
	unsigned int i;

	*in->addr = (u64)&value;
	EXPECT_ERRNO(0, try(self->vcpu, in->get, &in->reg), "KVM_GET of it");
	memset(self->fence - 16, value ^ in->change, 16);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		*in->addr = bad[i];
		EXPECT_ERRNO(EFAULT, try(self->vcpu, in->get, &in->reg), "KVM_GET to %#lx",
			     (unsigned long)bad[i]);
		EXPECT_ERRNO(EFAULT, try(self->vcpu, in->set, &in->reg), "KVM_SET from %#lx",
			     (unsigned long)bad[i]);
	}
	*in->addr = (u64)edge;
	EXPECT_ERRNO(0, try(self->vcpu, in->get, &in->reg), "KVM_GET to the last bytes");
	EXPECT_SAME(value, *edge, "what was read, after faults");
	mprotect(self->arg, ARG_SIZE, PROT_READ);
	EXPECT_ERRNO(EFAULT, try(self->vcpu, in->get, &in->reg), "KVM_GET to read-only memory");
	EXPECT_ERRNO(0, try(self->vcpu, in->set, &in->reg), "KVM_SET from read-only memory");
	mprotect(self->arg, ARG_SIZE, PROT_READ | PROT_WRITE);
	*edge = 0;
	EXPECT_ERRNO(0, try(self->vcpu, in->get, &in->reg), "KVM_GET to the last bytes");
	EXPECT_SAME(value, *edge, "what was read after KVM_SET of it");
	expect_unchanged(_metadata, self);
}

/* The argument itself may be missing, too. */
static void expect_direct(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(ioctl_fault) * const self, struct indirect *in, u32 size)
{
	u64 value = 0;

	*in->addr = (u64)&value;
	expect_faults(_metadata, self, in->get, (u8 *)&in->reg, size);
	expect_faults(_metadata, self, in->set, (u8 *)&in->reg, size);
	EXPECT_SAME(0, value, "memory of an argument that is not there");
}

/*
 * Verify that KVM_GET_ONE_REG and KVM_SET_ONE_REG tell if they cannot write or
 * read a register, in the fpstate or elsewhere, SSP included.
 */
TEST_F(ioctl_fault, one_reg)
{
	u32 msrs[NR_CET_MSRS + 3] = { MSR_STAR, MSR_IA32_XFD, MSR_IA32_XFD_ERR }, nr = 3, i;
	struct indirect in = {
		.get = KVM_GET_ONE_REG, .set = KVM_SET_ONE_REG, .change = 8,
	};

	if (kvm_check_cap(KVM_CAP_ONE_REG) <= 0)
		SKIP(return, "no KVM_CAP_ONE_REG");
	in.addr = (u64 *)&in.reg.addr;
	read_all(_metadata, self);
	for (i = 0; i < NR_CET_MSRS; i++)
		if (vcpu_has_cet_msr(self->vcpu, cet_msrs[i]))
			msrs[nr++] = cet_msrs[i];
	for (i = 0; i < nr; i++) {
		th_case("%s by ONE_REG", msr_name(msrs[i]));
		in.reg.id = KVM_X86_REG_MSR(msrs[i]);
		expect_indirect(_metadata, self, &in);
		expect_direct(_metadata, self, &in, sizeof(in.reg));
	}
	if (!vcpu_has_shstk(self->vcpu))
		return;
	th_case("SSP by ONE_REG");
	in.reg.id = KVM_X86_REG_KVM(KVM_REG_GUEST_SSP);
	expect_indirect(_metadata, self, &in);
	expect_direct(_metadata, self, &in, sizeof(in.reg));
	th_no_case();
	expect_cet(_metadata, self->vcpu, &self->regs, "KVM_SET_ONE_REG");
}

/* Verify the same of an attribute of the vCPU. */
TEST_F(ioctl_fault, vcpu_attr)
{
	struct indirect in = {
		.get = KVM_GET_DEVICE_ATTR, .set = KVM_SET_DEVICE_ATTR,
		.attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET },
	};
	u64 offset[2];
	unsigned int i;

	th_case("the offset of the TSC");
	in.addr = (u64 *)&in.attr.addr;
	/* KVM makes up for a TSC of the host that is not reliable. */
	for (i = 0; i < ARRAY_SIZE(offset); i++) {
		*in.addr = (u64)&offset[i];
		EXPECT_ERRNO(0, try(self->vcpu, in.get, &in.attr), "KVM_GET_DEVICE_ATTR");
	}
	if (offset[0] != offset[1])
		SKIP(return, "the offset of the TSC changes by itself");
	read_all(_metadata, self);
	expect_indirect(_metadata, self, &in);
	expect_direct(_metadata, self, &in, sizeof(in.attr));
}

/* ---- /dev/kvm ---- */

/* The argument of an ioctl of /dev/kvm, whose first word says how many entries there are */
static void expect_system(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(ioctl_fault) * const self, int kvm, unsigned long cmd,
			  const char *name, u32 header, u32 entry)
{
	u32 size = header, nr, there;

	memset(self->fence - ARG_SIZE, 0, ARG_SIZE);
	EXPECT_ERRNO(E2BIG, ioctl(kvm, cmd, self->arg) < 0 ? errno : 0, "%s, room for none", name);
	/* One of them does not say how many there are. */
	for (nr = *(u32 *)self->arg; nr < 1024; nr++) {
		size = header + nr * entry;
		*(u32 *)(self->fence - size) = nr;
		if (ioctl(kvm, cmd, self->fence - size) >= 0)
			break;
	}
	nr = *(u32 *)(self->fence - size);
	size = header + nr * entry;
	for (there = 0; there < size; there += there < 8 ? 1 : 31) {
		memcpy(self->fence - there, &nr, min(there, 4u));
		EXPECT_ERRNO(EFAULT, ioctl(kvm, cmd, self->fence - there) < 0 ? errno : 0,
			     "%s, %u of %u bytes", name, there, size);
	}
	EXPECT_ERRNO(EFAULT, ioctl(kvm, cmd, NULL) < 0 ? errno : 0, "%s to NULL", name);
	*(u32 *)(self->fence - size) = nr;
	EXPECT_ERRNO(0, ioctl(kvm, cmd, self->fence - size) < 0 ? errno : 0, "%s, all of %u bytes",
		     name, size);
}

/* Verify the same of what /dev/kvm lists. */
TEST_F(ioctl_fault, system)
{
	int kvm = open_kvm_dev_path_or_exit();

	expect_system(_metadata, self, kvm, KVM_GET_MSR_INDEX_LIST, "KVM_GET_MSR_INDEX_LIST", 4, 4);
	expect_system(_metadata, self, kvm, KVM_GET_MSR_FEATURE_INDEX_LIST,
		      "KVM_GET_MSR_FEATURE_INDEX_LIST", 4, 4);
	expect_system(_metadata, self, kvm, KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID",
		      sizeof(struct kvm_cpuid2), sizeof(struct kvm_cpuid_entry2));
	close(kvm);
}

XSTATE_IOCTL_HARNESS_MAIN
