// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a debugger can read and set of a task's XSAVE state, by NT_X86_XSTATE and by the
 * sets for x87 and SSE: which sizes, headers and values are refused, and that these
 * change nothing; which ones at the edge of that are taken, and what the task goes on
 * with; and that setting what was read changes nothing, wherever the task has stopped.
 */
#define _GNU_SOURCE

#include <sched.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "xregs.h"

/* As in elf.h: the set of FXSAVE's registers, for 64 and 32 bits; what its members have */
#ifdef __x86_64__
#define NT_FX			NT_PRFPREG
#define FX_UNIT			8
#else
#define NT_FX			0x46e62b7f
#define FX_UNIT			4
#define I387_SIZE		108
#endif
#define XSTATE_UNIT		8

#define MAX_CPUS		8192

#define POISON			0x5a
#define OTHER_FILL		0x3c
#define OTHER_FCW		0xb7f
#define OTHER_MXCSR		0x5f80
#define OTHER_PKRU		0x55550000

static size_t xstate_size(void)
{
	return xf_standard_size(xf_xcr0());
}

/* The child loads what is in shared memory, stops, and stores there what it has then. */
struct shared {
	struct xregs *loaded, *saved;
};

FIXTURE(xstate_ptrace) {
	struct shared shared;
	struct xregs *regs;		/* room for one */
	uint64_t mask;			/* components of the child's registers */
	uint64_t permitted;		/* components that it has, whatever is in the registers */
	pid_t pid;
};

FIXTURE_VARIANT(xstate_ptrace) {
	bool amx;
};

FIXTURE_VARIANT_ADD(xstate_ptrace, plain) { };
#ifdef __x86_64__
FIXTURE_VARIANT_ADD(xstate_ptrace, amx) { .amx = true };
#endif

static struct xregs *map_shared(struct __test_metadata *const _metadata)
{
	struct xregs *regs = mmap(NULL, xstate_size(), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, (void *)regs);
	return regs;
}

static void stop_again(struct __test_metadata *const _metadata, void *arg)
{
	struct xregs *initial = xregs_alloc(), *saved = xregs_alloc();
	const struct shared *s = arg;
	struct xcomp_perm perm = { };

	if (s->loaded->xstate_bv & XFEATURE_MASK_XTILE_DATA) {
		xcomp_request_host(_metadata, &perm);
		xf_use_amx(_metadata);
	}
	for (;;) {
		/* XSAVE writes nothing for what is initial. */
		memcpy(saved, initial, xstate_size());
		xregs_call_between(s->loaded, saved, SYS_tkill, syscall(SYS_gettid), SIGSTOP, 0);
		memcpy(s->saved, saved, xstate_size());
	}
}

FIXTURE_SETUP(xstate_ptrace)
{
	xcomp_begin(_metadata, variant);
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	if (variant->amx && !xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	self->regs = xregs_alloc();
	self->mask = xregs_mask() | (variant->amx ? XFEATURE_MASK_XTILE : 0);
	self->permitted = xf_permitted(variant->amx) | XFEATURE_MASK_FPSSE;
	self->shared.loaded = map_shared(_metadata);
	self->shared.saved = map_shared(_metadata);
	memcpy(self->shared.loaded, xregs_pattern(self->mask), xstate_size());
	self->pid = xregs_trace(_metadata, stop_again, &self->shared);
	if (!self->pid)
		SKIP(return, XREGS_NO_PTRACE);
}

FIXTURE_TEARDOWN(xstate_ptrace)
{
	xf_kill(_metadata, self->pid);
	xcomp_end(_metadata);
}

/* Let the child go on until it stops again; what it has stored before that is its own. */
static void go_on(struct __test_metadata *const _metadata, pid_t pid)
{
	int status = xregs_go_on(_metadata, pid, 0);

	ASSERT_TRUE(EXPECT_THAT(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP,
				"the child is to stop, has wait status %#x", status));
}

/* Registers of all components in @mask that are not those of xregs_pattern() */
static struct xregs *other_pattern(uint64_t mask)
{
	struct xregs *regs = xregs_pattern(mask);
	uint8_t *tiles;

	regs->fcw = OTHER_FCW;
	regs->mxcsr = OTHER_MXCSR;
	memset(regs->xmm, OTHER_FILL, 16 * XREGS_COUNT);
	xregs_set(regs, mask & ~(XFEATURE_MASK_PKRU | XFEATURE_MASK_XTILE), OTHER_FILL);
	if (mask & XFEATURE_MASK_PKRU)
		*(uint32_t *)xregs_at(regs, XFEATURE_MASK_PKRU) = OTHER_PKRU;
	if (mask & XFEATURE_MASK_XTILE_DATA) {
		tiles = xregs_at(regs, XFEATURE_MASK_XTILE_DATA);
		memset(tiles, OTHER_FILL, xf_cpuid(0xd, XFEATURE_XTILE_DATA).eax);
	}
	return regs;
}

static void get_xstate(struct __test_metadata *const _metadata, pid_t pid, void *regs)
{
	EXPECT_ERRNO(0, xregs_get_regset(pid, NT_X86_XSTATE, regs, xstate_size()),
		     "reading NT_X86_XSTATE");
}

/* A child that is to have the same registers as ever, whatever was tried */
static void expect_unchanged(struct __test_metadata *const _metadata,
			     FIXTURE_DATA(xstate_ptrace) * const self, const struct xregs *before)
{
	/* XRSTOR may fault on what should have been. */
	if (_metadata->exit_code == KSFT_FAIL)
		return;
	get_xstate(_metadata, self->pid, self->regs);
	EXPECT_BYTES(before, self->regs, xstate_size(), "NT_X86_XSTATE after what was refused");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(self->mask, self->shared.loaded, self->shared.saved,
		     "of the task after what was refused");
}

/* Set @size bytes, of which iov_len tells the kernel; return an errno, and iov_len after it. */
static int set_bytes(pid_t pid, int type, const void *from, size_t *size)
{
	struct iovec iov = { (void *)from, *size };
	int error = ptrace(PTRACE_SETREGSET, pid, type, &iov) ? errno : 0;

	*size = iov.iov_len;
	return error;
}

/* Every size but the right one, from nothing on: too small, no multiple, no memory */
static void expect_sizes(struct __test_metadata *const _metadata, pid_t pid, int type,
			 const char *name, const void *other, size_t right, size_t unit,
			 int short_errno)
{
	uint8_t *large = xf_guarded(2 * right, 0);
	size_t size, len;

	memcpy(large, other, right);
	for (size = 0; size < right; size += unit) {
		len = size;
		if (!EXPECT_ERRNO(short_errno, set_bytes(pid, type, other, &len),
				  "%s: setting %zu bytes of %zu", name, size, right))
			break;
	}
	for (size = right - unit; size <= right + unit; size++) {
		if (size % unit == 0)
			continue;
		len = size;
		EXPECT_ERRNO(EINVAL, set_bytes(pid, type, large, &len),
			     "%s: setting %zu bytes, no multiple of %zu", name, size, unit);
	}
	len = right;
	EXPECT_ERRNO(EFAULT, set_bytes(pid, type, large + right + unit, &len),
		     "%s: setting what ends beyond its memory", name);
	EXPECT_ERRNO(EFAULT, set_bytes(pid, type, NULL, &len), "%s: setting from nowhere", name);
}

/* Verify that a set is taken whole or not at all, and what is refused changes nothing. */
TEST_F(xstate_ptrace, sizes)
{
	struct xregs *other = other_pattern(self->mask), *before = xregs_alloc();

	/* Nothing beyond the first page, for which a kernel that errs might look there. */
	other->xstate_bv = XFEATURE_MASK_FPSSE;
	get_xstate(_metadata, self->pid, before);
	EXPECT_XREGS(self->mask, self->shared.loaded, before, "that a debugger sees");
	expect_sizes(_metadata, self->pid, NT_X86_XSTATE, "NT_X86_XSTATE", other, xstate_size(),
		     XSTATE_UNIT, EFAULT);
	expect_sizes(_metadata, self->pid, NT_FX, "FX", other, XREGS_FX_SIZE, FX_UNIT, EINVAL);
#ifndef __x86_64__
	expect_sizes(_metadata, self->pid, NT_PRFPREG, "NT_PRFPREG", other, I387_SIZE, FX_UNIT,
		     EINVAL);
#endif
	expect_unchanged(_metadata, self, before);
}

/* Verify that what is behind the set is ignored, and iov_len tells what was taken. */
TEST_F(xstate_ptrace, larger)
{
	static const size_t more[] = { 0, XSTATE_UNIT, 64, 4096 };
	struct xregs *wanted[] = { other_pattern(self->mask), xregs_pattern(self->mask) };
	uint8_t *large;
	unsigned int i;
	size_t size;

	for (i = 0; i < ARRAY_SIZE(more); i++) {
		large = xf_guarded(xstate_size() + more[i], POISON);
		memcpy(large, wanted[i % 2], xstate_size());
		size = xstate_size() + more[i];
		EXPECT_ERRNO(0, set_bytes(self->pid, NT_X86_XSTATE, large, &size),
			     "setting NT_X86_XSTATE of %zu bytes and %zu", xstate_size(), more[i]);
		EXPECT_SAME(xstate_size(), size, "iov_len after that");
		go_on(_metadata, self->pid);
		EXPECT_XREGS(self->mask, wanted[i % 2], self->shared.saved,
			     "of the task, %zu bytes too many", more[i]);
	}
}

static void expect_prefix(struct __test_metadata *const _metadata, pid_t pid, int type,
			  const char *name, size_t right, size_t unit)
{
	uint8_t *whole = xf_guarded(right, 0), *part;
	struct iovec iov;
	size_t size, i;

	EXPECT_ERRNO(0, xregs_get_regset(pid, type, whole, right), "%s: reading", name);
	for (size = 0; size <= right + 64; size += size < 128 || right - size < 64 ? unit : 64) {
		part = xf_guarded(right + 64, POISON);
		iov = (struct iovec) { part, size };
		EXPECT_ERRNO(0, ptrace(PTRACE_GETREGSET, pid, type, &iov) ? errno : 0,
			     "%s: reading %zu bytes of %zu", name, size, right);
		EXPECT_SAME(size < right ? size : right, iov.iov_len,
			    "%s: iov_len after reading %zu bytes", name, size);
		EXPECT_BYTES(whole, part, iov.iov_len, "%s: %zu bytes of %zu", name, size, right);
		for (i = size; i < right + 64 && part[i] == POISON; i++)
			;
		EXPECT_SAME(right + 64, i, "%s: bytes behind %zu as they were", name, size);
		munmap((void *)((unsigned long)part & -4096ul), right + 64 + 4096);
	}
	iov = (struct iovec) { whole, right - 1 };
	EXPECT_ERRNO(EINVAL, ptrace(PTRACE_GETREGSET, pid, type, &iov) ? errno : 0,
		     "%s: reading %zu bytes, no multiple of %zu", name, right - 1, unit);
	iov = (struct iovec) { whole + unit, right };
	EXPECT_ERRNO(EFAULT, ptrace(PTRACE_GETREGSET, pid, type, &iov) ? errno : 0,
		     "%s: reading to what ends beyond its memory", name);
}

/* Verify that a short read has the first bytes of a whole one, and not one more. */
TEST_F(xstate_ptrace, short_read)
{
	expect_prefix(_metadata, self->pid, NT_X86_XSTATE, "NT_X86_XSTATE", xstate_size(),
		      XSTATE_UNIT);
	expect_prefix(_metadata, self->pid, NT_FX, "FX", XREGS_FX_SIZE, FX_UNIT);
}

static int set_xstate(pid_t pid, const struct xregs *regs)
{
	return xregs_set_regset(pid, NT_X86_XSTATE, regs, xstate_size());
}

/*
 * Verify that a header is refused that says what the task cannot have: a component that
 * is unknown, the supervisor's, or not the task's; a compacted area; a byte that is
 * reserved.  Nothing is changed by it.
 */
TEST_F(xstate_ptrace, header)
{
	struct xregs *other = other_pattern(self->mask), *before = xregs_alloc();
	unsigned int i;

	get_xstate(_metadata, self->pid, before);
	for (i = 0; i < 64; i++) {
		if (!(self->permitted >> i & 1)) {
			other->xstate_bv = self->mask | 1ULL << i;
			EXPECT_ERRNO(EINVAL, set_xstate(self->pid, other),
				     "setting %s in XSTATE_BV", xf_name(i));
			other->xstate_bv = 1ULL << i;
			EXPECT_ERRNO(EINVAL, set_xstate(self->pid, other),
				     "setting %s alone in XSTATE_BV", xf_name(i));
		}
		other->xstate_bv = self->mask;
		other->xcomp_bv = 1ULL << i;
		EXPECT_ERRNO(EINVAL, set_xstate(self->pid, other), "setting bit %u of XCOMP_BV", i);
		other->xcomp_bv = 0;
	}
	other->xcomp_bv = 1ULL << 63 | self->mask;
	EXPECT_ERRNO(EINVAL, set_xstate(self->pid, other), "setting a compacted area");
	other->xcomp_bv = 0;
	for (i = 0; i < sizeof(other->reserved4); i++) {
		other->reserved4[i] = 1;
		EXPECT_ERRNO(EINVAL, set_xstate(self->pid, other),
			     "setting reserved byte %u of the header", i);
		other->reserved4[i] = 0;
	}
	expect_unchanged(_metadata, self, before);
}

/* SDM, "Guidelines for Writing to the MXCSR Register" */
static uint32_t supported_mxcsr(void)
{
	struct xregs *fx = xregs_alloc();

	asm volatile("fxsave (%0)" : : "r" (fx) : "memory");
	return fx->mxcsr_mask ?: 0xffbf;
}

/*
 * Verify that a reserved bit of MXCSR is refused with any component that goes with it,
 * and does not matter with none of them, when MXCSR becomes initial.
 */
TEST_F(xstate_ptrace, mxcsr)
{
	static const uint64_t masks[] = {
		XFEATURE_MASK_FP, XFEATURE_MASK_SSE, XFEATURE_MASK_YMM, XFEATURE_MASK_FPSSE,
	};
	struct xregs *other = other_pattern(self->mask), *before = xregs_alloc();
	const uint32_t bad = ~supported_mxcsr();
	unsigned int i, bit;

	get_xstate(_metadata, self->pid, before);
	for (i = 0; i < ARRAY_SIZE(masks); i++)
		for (bit = 0; bit < 32; bit++) {
			if (masks[i] & ~xf_xcr0() || !(bad & 1u << bit))
				continue;
			other->xstate_bv = masks[i];
			other->mxcsr = OTHER_MXCSR | 1u << bit;
			EXPECT_ERRNO(EINVAL, set_xstate(self->pid, other),
				     "setting bit %u of MXCSR with XSTATE_BV %#llx", bit,
				     (unsigned long long)masks[i]);
			EXPECT_ERRNO(EINVAL, xregs_set_regset(self->pid, NT_FX, other,
							      XREGS_FX_SIZE),
				     "setting bit %u of MXCSR by FX", bit);
		}
	expect_unchanged(_metadata, self, before);

	other->xstate_bv = 0;
	other->mxcsr = bad;
	EXPECT_ERRNO(0, set_xstate(self->pid, other), "setting MXCSR without what goes with it");
	get_xstate(_metadata, self->pid, self->regs);
	EXPECT_SAME(XREGS_INITIAL_MXCSR, self->regs->mxcsr, "MXCSR after that");
}

/* Components that are in XSTATE_BV though they are initial: CPUs need not track that. */
static uint64_t always_in_use(uint64_t mask)
{
	struct xregs *initial = xregs_alloc(), *saved = xregs_alloc();
	uint32_t pkru = xregs_has_pkru() ? xregs_pkru() : 0;

	xregs_load(initial, mask);
	xregs_save(saved, mask);
	if (xregs_has_pkru())
		xregs_set_pkru(pkru);
	return saved->xstate_bv;
}

/* Verify that all components at once, and each of them alone, are taken and become the task's. */
TEST_F(xstate_ptrace, all)
{
	uint64_t tracked = self->mask & ~XFEATURE_MASK_SSE & ~always_in_use(self->mask);
	struct xregs *other = other_pattern(self->mask);
	unsigned int i;

	EXPECT_ERRNO(0, set_xstate(self->pid, other), "setting all components");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(self->mask, other, self->shared.saved, "of the task, all set");
	EXPECT_SAME_MASK(xf_names, self->mask, self->shared.saved->xstate_bv & self->mask,
			 "XSTATE_BV of the task");
	other->mxcsr = supported_mxcsr() & ~0x3f;
	EXPECT_ERRNO(0, set_xstate(self->pid, other), "setting all bits of MXCSR");
	go_on(_metadata, self->pid);
	EXPECT_SAME(other->mxcsr, self->shared.saved->mxcsr, "MXCSR of the task");
	for (i = 0; i < 63; i++) {
		if (!(self->permitted >> i & 1))
			continue;
		other->xstate_bv = 1ULL << i;
		EXPECT_ERRNO(0, set_xstate(self->pid, other), "setting %s alone", xf_name(i));
		go_on(_metadata, self->pid);
		if (i < 2 || !(self->mask >> i & 1))
			continue;
		/* See below for that along with AVX. */
		other->mxcsr = self->shared.saved->mxcsr;
		EXPECT_XREGS(1ULL << i, other, self->shared.saved, "of the task, %s set alone",
			     xf_name(i));
		EXPECT_SAME_MASK(xf_names, 1ULL << i & tracked,
				 self->shared.saved->xstate_bv & tracked, "XSTATE_BV of the task");
	}
}

/* Verify that no bits in XSTATE_BV make all initial: what is read then, and the task has. */
TEST_F(xstate_ptrace, none)
{
	struct xregs *other = other_pattern(self->mask), *wanted = xregs_alloc(), *got = self->regs;
	bool old_mxcsr;

	other->xstate_bv = 0;
	other->mxcsr = XREGS_INITIAL_MXCSR;
	EXPECT_ERRNO(0, set_xstate(self->pid, other), "setting nothing");
	memset(got, POISON, xstate_size());
	get_xstate(_metadata, self->pid, got);
	/* All of it is zero, but for these. */
	wanted->xcr0 = xf_xcr0() | XFEATURE_MASK_FPSSE;
	wanted->mxcsr_mask = got->mxcsr_mask;
	EXPECT_THAT(!got->mxcsr_mask || got->mxcsr_mask == supported_mxcsr(), "MXCSR_MASK is %#x",
		    got->mxcsr_mask);
	EXPECT_BYTES(wanted, got, xstate_size(), "NT_X86_XSTATE of a task with initial registers");
	go_on(_metadata, self->pid);
	wanted->xcr0 = 0;
	/* XRSTOR of the standard format loads MXCSR whatever XSTATE_BV is. */
	old_mxcsr = xregs_are_standard() && self->shared.saved->mxcsr == self->shared.loaded->mxcsr;
	XFAIL_IF(old_mxcsr, "MXCSR of a task that a debugger has made initial is an old one") {
		EXPECT_THAT(!old_mxcsr, "MXCSR of the task is that of before");
		wanted->mxcsr = self->shared.saved->mxcsr;
	}
	EXPECT_XREGS(self->mask, wanted, self->shared.saved, "of the task");
}

static void expect_same_again(struct __test_metadata *const _metadata,
			      FIXTURE_DATA(xstate_ptrace) * const self, const char *what)
{
	struct xregs *once = xregs_alloc(), *loaded = self->shared.loaded;
	uint64_t mask = self->mask;
	struct xregs *fx;

	th_case("%s", what);
	/* The first stop is still that of the registers before. */
	go_on(_metadata, self->pid);
	get_xstate(_metadata, self->pid, once);
	EXPECT_XREGS(mask, loaded, once, "that a debugger sees");
	EXPECT_ERRNO(0, set_xstate(self->pid, once), "setting what was read");
	get_xstate(_metadata, self->pid, self->regs);
	EXPECT_BYTES(once, self->regs, xstate_size(), "NT_X86_XSTATE once more");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(mask, loaded, self->shared.saved, "of a task that has had its own set");
	EXPECT_SAME_MASK(xf_names, once->xstate_bv & mask & ~XFEATURE_MASK_FPSSE,
			 self->shared.saved->xstate_bv & mask & ~XFEATURE_MASK_FPSSE,
			 "in use in the task");

	fx = xregs_alloc();
	EXPECT_ERRNO(0, xregs_get_regset(self->pid, NT_FX, fx, XREGS_FX_SIZE), "reading FX");
	EXPECT_XREGS(XFEATURE_MASK_FPSSE, loaded, fx, "in FX");
	EXPECT_ERRNO(0, xregs_set_regset(self->pid, NT_FX, fx, XREGS_FX_SIZE),
		     "setting FX as it was read");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(mask, loaded, self->shared.saved, "of a task that has had its FX set");
	th_no_case();
}

/*
 * Verify that setting what was read changes nothing, with all registers in use, none, each
 * alone and all but each.
 */
TEST_F(xstate_ptrace, same)
{
	const struct xregs *pattern = xregs_pattern(self->mask), *initial = xregs_alloc();
	struct xregs *loaded = self->shared.loaded;
	uint32_t size, nr;
	char text[64];
	int i;

	expect_same_again(_metadata, self, "all in use");
	for (i = 2; i < 63; i++) {
		/* There are no tiles without a configuration. */
		if (!((self->mask & ~XFEATURE_MASK_XTILE_CFG) >> i & 1))
			continue;
		nr = xf_cpuid(0xd, i).ebx;
		size = xf_cpuid(0xd, i).eax;
		loaded->xstate_bv = self->mask & ~(1ULL << i);
		memset((uint8_t *)loaded + nr, 0, size);
		snprintf(text, sizeof(text), "all but %s in use", xf_name(i));
		expect_same_again(_metadata, self, text);

		memcpy(loaded, initial, xstate_size());
		memcpy((uint8_t *)loaded + nr, (const uint8_t *)pattern + nr, size);
		loaded->xstate_bv = 1ULL << i;
		snprintf(text, sizeof(text), "%s alone in use", xf_name(i));
		if (i > XFEATURE_YMM && i < XFEATURE_XTILE_CFG)
			expect_same_again(_metadata, self, text);
		memcpy(loaded, pattern, xstate_size());
	}
	memcpy(loaded, initial, xstate_size());
	expect_same_again(_metadata, self, "none in use");
}

/*
 * Verify that MXCSR is right where AVX is in use and SSE is not.  XSAVES and XSAVEC take it
 * for a part of SSE, and kernels do not: what they read is what was in memory before, and
 * what they set is not loaded.
 */
TEST_F(xstate_ptrace, avx_alone)
{
	struct xregs *loaded = self->shared.loaded, *initial = xregs_alloc();
	const uint32_t old_mxcsr = loaded->mxcsr;
	bool compacted = !xregs_are_standard();
	void *ymm;

	if (!(xf_xcr0() & XFEATURE_MASK_YMM))
		SKIP(return, "no AVX");
	ymm = xregs_at(loaded, XFEATURE_MASK_YMM);
	memcpy(xregs_at(initial, XFEATURE_MASK_YMM), ymm, xf_cpuid(0xd, XFEATURE_YMM).eax);
	initial->xstate_bv = XFEATURE_MASK_YMM;
	memcpy(loaded, initial, xstate_size());
	go_on(_metadata, self->pid);
	get_xstate(_metadata, self->pid, self->regs);
	XFAIL_IF(compacted && self->regs->mxcsr == old_mxcsr,
		 "MXCSR beside AVX alone is an old one")
		EXPECT_SAME(XREGS_INITIAL_MXCSR, self->regs->mxcsr, "MXCSR that a debugger sees");
	EXPECT_ERRNO(0, set_xstate(self->pid, self->regs), "setting what was read");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(self->mask, initial, self->shared.saved,
		     "of a task that has had its own set");

	self->regs->mxcsr = OTHER_MXCSR;
	EXPECT_ERRNO(0, set_xstate(self->pid, self->regs), "setting MXCSR along with AVX");
	go_on(_metadata, self->pid);
	XFAIL_IF(compacted && self->shared.saved->mxcsr == XREGS_INITIAL_MXCSR,
		 "MXCSR set beside AVX alone is not loaded")
		EXPECT_SAME(OTHER_MXCSR, self->shared.saved->mxcsr, "MXCSR that was set with AVX");
}

/*
 * Verify that what a debugger on another CPU sets is what the task goes on with, and not
 * what its own CPU still has in the registers.
 */
TEST_F(xstate_ptrace, other_cpu)
{
	struct xregs *other = other_pattern(self->mask);
	/* A kernel may have 8192 CPUs, which is eight times what fits into one of them. */
	cpu_set_t here[8] = { }, there[8] = { };
	int cpu = 0;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(here), here));
	while (cpu < MAX_CPUS &&
	       (cpu == sched_getcpu() || !CPU_ISSET_S(cpu, sizeof(here), here)))
		cpu++;
	if (cpu == MAX_CPUS)
		SKIP(return, "one CPU only");
	CPU_SET_S(cpu, sizeof(there), there);
	ASSERT_EQ(0, sched_setaffinity(self->pid, sizeof(there), there));
	CPU_CLR_S(cpu, sizeof(here), here);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(here), here));
	go_on(_metadata, self->pid);
	EXPECT_ERRNO(0, set_xstate(self->pid, other), "setting NT_X86_XSTATE");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(self->mask, other, self->shared.saved, "of a task on another CPU");
	EXPECT_ERRNO(0, xregs_set_regset(self->pid, NT_FX, other, XREGS_FX_SIZE), "setting FX");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(XFEATURE_MASK_FPSSE, other, self->shared.saved,
		     "of a task on another CPU, by FX");
}

#ifdef __x86_64__
/* struct user_fpregs_struct, by the older requests */
#define PTRACE_GET_OLD		PTRACE_GETFPREGS
#define PTRACE_SET_OLD		PTRACE_SETFPREGS
#else
#define PTRACE_GET_OLD		PTRACE_GETFPXREGS
#define PTRACE_SET_OLD		PTRACE_SETFPXREGS
#endif

/* Verify that the requests from before there were sets do the same, and refuse the same. */
TEST_F(xstate_ptrace, old_requests)
{
	struct xregs *other = other_pattern(self->mask), *fx = xregs_alloc();
	const uint32_t bad = ~supported_mxcsr();
	unsigned int bit;

	EXPECT_ERRNO(0, ptrace(PTRACE_GET_OLD, self->pid, 0, fx) ? errno : 0, "reading");
	EXPECT_XREGS(XFEATURE_MASK_FPSSE, self->shared.loaded, fx, "that a debugger sees");
	for (bit = 0; bit < 32; bit++) {
		if (!(bad & 1u << bit))
			continue;
		other->mxcsr = OTHER_MXCSR | 1u << bit;
		EXPECT_ERRNO(EINVAL, ptrace(PTRACE_SET_OLD, self->pid, 0, other) ? errno : 0,
			     "setting bit %u of MXCSR", bit);
	}
	EXPECT_ERRNO(EFAULT, ptrace(PTRACE_SET_OLD, self->pid, 0, NULL) ? errno : 0,
		     "setting from nowhere");
	EXPECT_ERRNO(EFAULT, ptrace(PTRACE_GET_OLD, self->pid, 0, NULL) ? errno : 0,
		     "reading to nowhere");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(self->mask, self->shared.loaded, self->shared.saved,
		     "of the task after what was refused");
	other->mxcsr = OTHER_MXCSR;
	EXPECT_ERRNO(0, ptrace(PTRACE_SET_OLD, self->pid, 0, other) ? errno : 0, "setting");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(XFEATURE_MASK_FPSSE, other, self->shared.saved, "of the task");
	EXPECT_XREGS(self->mask & ~(XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM), self->shared.loaded,
		     self->shared.saved, "of the task, which these requests have not");
}

#ifndef __x86_64__
/* Verify that the set of FSAVE's registers changes these and no others. */
TEST_F(xstate_ptrace, fsave)
{
	uint8_t *regs = xf_guarded(I387_SIZE, 0);
	struct iovec iov = { regs, I387_SIZE };
	uint16_t fcw = OTHER_FCW;

	EXPECT_ERRNO(0, ptrace(PTRACE_GETREGSET, self->pid, NT_PRFPREG, &iov) ? errno : 0,
		     "reading NT_PRFPREG");
	EXPECT_SAME(I387_SIZE, iov.iov_len, "size of NT_PRFPREG");
	EXPECT_SAME(self->shared.loaded->fcw, *(uint16_t *)regs, "FCW");
	EXPECT_ERRNO(0, ptrace(PTRACE_SETREGSET, self->pid, NT_PRFPREG, &iov) ? errno : 0,
		     "setting what was read");
	go_on(_metadata, self->pid);
	EXPECT_XREGS(self->mask, self->shared.loaded, self->shared.saved,
		     "of a task that has had its own set");
	memcpy(regs, &fcw, sizeof(fcw));
	EXPECT_ERRNO(0, ptrace(PTRACE_SETREGSET, self->pid, NT_PRFPREG, &iov) ? errno : 0,
		     "setting NT_PRFPREG");
	go_on(_metadata, self->pid);
	EXPECT_SAME(OTHER_FCW, self->shared.saved->fcw, "FCW that a debugger has set");
	EXPECT_XREGS(self->mask & ~XFEATURE_MASK_FP, self->shared.loaded, self->shared.saved,
		     "of the task, which that has not");
}
#endif

/* Verify that there is no other set that would have any of this. */
TEST_F(xstate_ptrace, unknown_set)
{
	static const int types[] = { 0, 3, 0x201, 0x203, 0x206, 0x2ff, -1 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		/* NT_386_IOPERM is one of a task that has asked for ports. */
		if (types[i] == 0x201)
			continue;
		EXPECT_ERRNO(EINVAL, xregs_get_regset(self->pid, types[i], self->regs, 512),
			     "reading set %#x", types[i]);
		EXPECT_ERRNO(EINVAL, xregs_set_regset(self->pid, types[i], self->regs, 512),
			     "setting set %#x", types[i]);
	}
}

/* ---- other stops: what was read there is set, and what the task goes on with ---- */

/* What a task finds that the C library does not change */
struct found {
	uint16_t fcw;
	uint32_t mxcsr, pkru;
};

static struct found look(void)
{
	return (struct found) {
		.fcw = xregs_fcw(), .mxcsr = xregs_mxcsr(),
		.pkru = xregs_has_pkru() ? xregs_pkru() : 0,
	};
}

static void change(void)
{
	const uint32_t mxcsr = OTHER_MXCSR;
	const uint16_t fcw = OTHER_FCW;

	asm volatile("fldcw %0; ldmxcsr %1" : : "m" (fcw), "m" (mxcsr));
	if (xregs_has_pkru())
		xregs_set_pkru(OTHER_PKRU);
}

static void expect_found(struct __test_metadata *const _metadata, const struct found *wanted,
			 const struct found *got, const char *whose)
{
	EXPECT_SAME(wanted->fcw, got->fcw, "FCW of %s", whose);
	EXPECT_SAME(wanted->mxcsr, got->mxcsr, "MXCSR of %s", whose);
	EXPECT_SAME(wanted->pkru, got->pkru, "PKRU of %s", whose);
}

/* What a debugger reads and sets at a stop; whether PKRU is 0 there that is not */
static bool set_same(struct __test_metadata *const _metadata, pid_t pid,
		     const struct found *wanted, const char *whose)
{
	struct xregs *regs = xregs_alloc();
	struct found read = { };
	bool is_lost;

	get_xstate(_metadata, pid, regs);
	read.fcw = regs->fcw;
	read.mxcsr = regs->mxcsr;
	if (xregs_has_pkru())
		read.pkru = *(uint32_t *)xregs_at(regs, XFEATURE_MASK_PKRU);
	is_lost = xregs_has_pkru() && wanted->pkru && !read.pkru;
	if (is_lost)
		read.pkru = wanted->pkru;
	expect_found(_metadata, wanted, &read, whose);
	EXPECT_ERRNO(0, set_xstate(pid, regs), "setting what was read");
	return is_lost;
}

FIXTURE(xstate_ptrace_stop) {
	struct found initial;
	struct stop {
		struct found found;	/* by the task, after the stop */
		struct found wanted;
		bool is_lost;
		bool is_ptrace_forbidden;
	} *stop;
};

FIXTURE_SETUP(xstate_ptrace_stop)
{
	xcomp_begin(_metadata, variant);
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	self->initial = (struct found) { XREGS_INITIAL_FCW, XREGS_INITIAL_MXCSR, look().pkru };
	self->stop = mmap(NULL, sizeof(*self->stop), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->stop);
	self->stop->wanted = self->initial;
}

FIXTURE_TEARDOWN(xstate_ptrace_stop)
{
	xcomp_end(_metadata);
}

static void expect_kept(struct __test_metadata *const _metadata, const struct stop *stop,
			const char *whose, bool is_new_program)
{
	struct found found = stop->found;

	/* PKRU is initial in the register at once, and not in memory, until the program runs. */
	XFAIL_IF(stop->is_lost && is_new_program && !found.pkru,
		 "a debugger finds no PKRU in a new program, and sets none") {
		EXPECT_THAT(!stop->is_lost, "PKRU that a debugger sees of %s: wanted %#x got 0",
			    whose, stop->wanted.pkru);
		EXPECT_SAME(stop->wanted.pkru, found.pkru, "PKRU of %s", whose);
		found.pkru = stop->wanted.pkru;
	}
	expect_found(_metadata, &stop->wanted, &found, whose);
}

static void stop_and_exec(struct __test_metadata *const _metadata, void *arg)
{
	raise(SIGSTOP);
	change();
	xcomp_exec(_metadata, arg);
}

static void trace_exec(struct __test_metadata *const _metadata, void *arg)
{
	pid_t pid = xregs_trace(_metadata, stop_and_exec, NULL);
	struct stop *stop = arg;
	int status;

	stop->is_ptrace_forbidden = !pid;
	if (!pid)
		xf_exit();
	EXPECT_EQ(0, ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL));
	status = xregs_go_on(_metadata, pid, 0);
	if (EXPECT_SAME(SIGTRAP | PTRACE_EVENT_EXEC << 8, status >> 8, "stop of execve()"))
		stop->is_lost = set_same(_metadata, pid, &stop->wanted, "a new program");
	EXPECT_SAME(0, xregs_go_on(_metadata, pid, 0), "wait status of a new program");
	xf_exit();
}

static void after_exec(int fd)
{
	struct found found = look();

	if (write(fd, &found, sizeof(found)) != sizeof(found))
		exit(KSFT_FAIL);
}

/* Verify that a new program starts with initial registers, whether they were set or not. */
TEST_F(xstate_ptrace_stop, exec)
{
	pid_t pid = xregs_trace(_metadata, stop_and_exec, NULL);

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	xf_kill(_metadata, pid);
	xcomp_in_new_program(_metadata, "a new program", trace_exec, self->stop,
			     &self->stop->found, sizeof(self->stop->found));
	expect_kept(_metadata, self->stop, "a new program", true);
}

static void stop_and_fork(struct __test_metadata *const _metadata, void *arg)
{
	struct stop *stop = arg;
	pid_t pid;

	raise(SIGSTOP);
	change();
	pid = xregs_syscall(SYS_fork, 0, 0, 0);
	if (!pid) {
		stop->found = look();
		_exit(0);
	}
	xf_join(_metadata, pid, "a child that nobody has stopped");
}

/* Verify that a child goes on with its parent's registers after its very first stop. */
TEST_F(xstate_ptrace_stop, fork)
{
	pid_t pid = xregs_trace(_metadata, stop_and_fork, self->stop);
	unsigned long child;
	int status;

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	self->stop->wanted = (struct found) { OTHER_FCW, OTHER_MXCSR,
					      xregs_has_pkru() ? OTHER_PKRU : 0 };
	ASSERT_EQ(0, ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEFORK | PTRACE_O_EXITKILL));
	EXPECT_SAME(SIGTRAP | PTRACE_EVENT_FORK << 8, xregs_go_on(_metadata, pid, 0) >> 8,
		    "stop of fork()");
	ASSERT_EQ(0, ptrace(PTRACE_GETEVENTMSG, pid, 0, &child));
	status = xregs_wait(_metadata, child);
	ASSERT_TRUE(EXPECT_THAT(WIFSTOPPED(status), "a new child is to stop, has wait status %#x",
				status));
	self->stop->is_lost = set_same(_metadata, child, &self->stop->wanted, "a new child");
	EXPECT_SAME(0, xregs_go_on(_metadata, child, 0), "wait status of a new child");
	expect_kept(_metadata, self->stop, "a new child", false);
	xf_kill(_metadata, pid);
}

static struct stop *stop_of_handler;

static void on_signal(int sig)
{
	(void)sig;
	stop_of_handler->found = look();
}

static void stop_for_signal(struct __test_metadata *const _metadata, void *arg)
{
	(void)_metadata;
	stop_of_handler = arg;
	signal(SIGUSR1, on_signal);
	change();
	raise(SIGSTOP);
	/* What the handler has interrupted */
	stop_of_handler->wanted = look();
	raise(SIGSTOP);
}

/* Verify the same of a handler that has not executed anything, and of what it returns to. */
TEST_F(xstate_ptrace_stop, handler)
{
	pid_t pid = xregs_trace(_metadata, stop_for_signal, self->stop);
	const struct found other = { OTHER_FCW, OTHER_MXCSR, xregs_has_pkru() ? OTHER_PKRU : 0 };
	int status;

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	/* It stops as it enters the handler. */
	ASSERT_EQ(0, ptrace(PTRACE_SINGLESTEP, pid, 0, SIGUSR1));
	status = xregs_wait(_metadata, pid);
	ASSERT_TRUE(EXPECT_THAT(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP,
				"stepping into a handler gives wait status %#x", status));
	self->stop->is_lost = set_same(_metadata, pid, &self->initial, "a handler");
	status = xregs_go_on(_metadata, pid, 0);
	EXPECT_SAME(SIGSTOP, WIFSTOPPED(status) ? WSTOPSIG(status) : 0, "signal of the next stop");
	expect_found(_metadata, &other, &self->stop->wanted, "what the handler has interrupted");
	self->stop->wanted = self->initial;
	expect_kept(_metadata, self->stop, "a handler", false);
	xf_kill(_metadata, pid);
}

XCOMP_EXEC_HARNESS_MAIN(after_exec)
