// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_GET_XSAVE, KVM_GET_XSAVE2 and KVM_SET_XSAVE: how many bytes they move,
 * which components they show and take, and that a call that fails changes
 * nothing.  The size depends on the CPUID that the vCPU was given, the
 * capability on the permission of the process.
 */
#include "xregs.h"

#define XSAVE_SIZE	sizeof(struct kvm_xsave)

/* What KVM tells about the host in an image */
#define XAREA_MXCSR_MASK	28
#define XAREA_SW_BYTES		464

/* In the header, XCOMP_BV and all that follows it must be 0. */
#define XAREA_XCOMP_BV		(XF_HEADER_OFFSET + 8)
#define RESERVED_BYTES		(XF_BASE_SIZE - XAREA_XCOMP_BV)

#define image_mxcsr(image)	(*(u32 *)((image) + XAREA_MXCSR))

/* An image with @bv, of exactly the bytes that KVM may read */
static u8 *new_image(struct kvm_vcpu *vcpu, const struct xregs *regs, u64 bv)
{
	u8 *image = xf_guarded(vcpu_xsave_size(vcpu), 0);
	static u8 area[XAREA_SIZE];

	xregs_to_area(regs, area, bv, 0);
	xarea_copy(image, area, vcpu_xsave_size(vcpu));
	return image;
}

/* The image of a vCPU right after reset, but for @bv */
static u8 *init_image(struct kvm_vcpu *vcpu, u64 bv)
{
	u8 *image = xf_guarded(vcpu_xsave_size(vcpu), 0);

	*(u16 *)(image + XAREA_FCW) = FCW_INIT;
	image_mxcsr(image) = MXCSR_INIT;
	xarea_set_header(image, 0, bv);
	return image;
}

static void expect_bytes(struct __test_metadata *const _metadata, const u8 *p, u8 wanted,
			 size_t size, const char *what)
{
	size_t n = 0;

	while (n < size && p[n] == wanted)
		n++;
	EXPECT_THAT(n == size, "%s, byte %zu: wanted %#x got %#x", what, n, wanted, p[n]);
}

FIXTURE(xsave2_size) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xregs regs;	/* what the vCPU holds */
	u64 mask;		/* the components of that */
	u32 size;
};

XSTATE_SUITE(xsave2_size);

FIXTURE_VARIANT_ADD(xsave2_size, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xsave2_size, host_noamx_cet) { .combo = { PERM_HOST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xsave2_size, guest_noamx_cet) { .combo = { PERM_GUEST, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xsave2_size, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };
FIXTURE_VARIANT_ADD(xsave2_size, both_amx_nocet) { .combo = { PERM_BOTH, AMX, NOCET } };

FIXTURE_SETUP(xsave2_size)
{
	if (!xstate_begin(_metadata, &variant->combo))
		return;
	self->vcpu = xstate_new_vcpu(&self->vm, &variant->combo);
	self->mask = xregs_mask(vcpu_xcr0_mask(self->vcpu));
	self->size = vcpu_xsave_size(self->vcpu);
	xregs_fill(&self->regs, self->vcpu, 0);
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
}

/* Read an image in the midst of memory that is all @poison. */
static void expect_written(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			   const u8 *wanted, size_t offset, u8 poison)
{
	size_t size = vcpu_xsave_size(vcpu), page = getpagesize();
	size_t len = 3 * page + size / page * page;
	u8 *p = xf_guarded(len, poison);
	char when[64];

	offset += page;
	snprintf(when, sizeof(when), "KVM_GET_XSAVE2 to page + %zu among %#x", offset, poison);
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_GET_XSAVE2, p + offset), "%s", when);
	expect_same_area(_metadata, wanted, p + offset, size, when);
	strcat(when, ", before");
	expect_bytes(_metadata, p, poison, offset, when);
	strcat(when, " or after");
	expect_bytes(_metadata, p + offset + size, poison, len - offset - size, when);
}

/*
 * Verify that KVM_GET_XSAVE2 writes exactly its bytes and not one before or
 * after, wherever the buffer lies, and gives the same at every address.
 */
TEST_F(xsave2_size, bytes_written)
{
	static const size_t offsets[] = { 0, 1, 3, 8, 63, 64, 100, 4095 };
	u8 *wanted = vcpu_area(self->vcpu);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		expect_written(_metadata, self->vcpu, wanted, offsets[i], 0x11);
		expect_written(_metadata, self->vcpu, wanted, offsets[i], 0xee);
	}
}

/* Verify that KVM_GET_XSAVE does up to 4 KiB the same, and beyond nothing. */
TEST_F(xsave2_size, get_xsave)
{
	bool fits = self->size <= XSAVE_SIZE;
	u8 *wanted = vcpu_area(self->vcpu);
	u8 *p = xf_guarded(4 * XSAVE_SIZE, XAREA_POISON);
	size_t written = fits ? self->size : 0;

	EXPECT_ERRNO(fits ? 0 : EINVAL, vcpu_errno(self->vcpu, KVM_GET_XSAVE, p),
		     "KVM_GET_XSAVE of %u bytes", self->size);
	expect_same_area(_metadata, wanted, p, written, "KVM_GET_XSAVE");
	expect_bytes(_metadata, p + written, XAREA_POISON, 4 * XSAVE_SIZE - written,
		     "after KVM_GET_XSAVE");
}

/*
 * Verify that KVM_SET_XSAVE reads exactly its bytes, at any address, up to the
 * end of what is mapped, and from memory that can only be read.  All else is
 * set in there, so that a read from it is refused.  All components come back byte
 * for byte, over KVM_RUN too, eight full tiles as well: IA32_XFD is 0, as it must
 * be in the image of a vCPU with live tiles.
 */
TEST_F(xsave2_size, bytes_read)
{
	static const size_t offsets[] = { 0, 1, 7, 32, 64, 65 };
	size_t i, page = getpagesize(), len = self->size / page * page + 2 * page;
	struct xregs set;
	u8 *p, *got, *at;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		p = xf_guarded(len, 0xff);
		at = p + len - self->size - offsets[i];
		xregs_fill(&set, self->vcpu, i + 1);
		xarea_copy(at, new_image(self->vcpu, &set, self->mask), self->size);
		ASSERT_EQ(0, mprotect(p, len, PROT_READ));

		vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
		EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_XSAVE, at),
			     "KVM_SET_XSAVE %zu bytes before the end", offsets[i]);
		got = vcpu_area(self->vcpu);
		EXPECT_XFEATURES(self->mask, xarea_header(got, 0),
				 "XSTATE_BV of an image %zu bytes before the end", offsets[i]);
		expect_area(_metadata, got, &set, self->mask, 0, "KVM_SET_XSAVE");
		xstate_run_immediate_exit(self->vcpu);
		expect_area(_metadata, vcpu_area(self->vcpu), &set, self->mask, 0, "KVM_RUN");
		expect_cet(_metadata, self->vcpu, &self->regs, "KVM_SET_XSAVE");
	}
}

/* No ioctl goes on from there, but that KVM_SET_XSAVE may read what is read-only. */
static void expect_bad_address(struct __test_metadata *const _metadata,
			       FIXTURE_DATA(xsave2_size) * const self, u8 *address,
			       const char *what, bool readable)
{
	EXPECT_ERRNO(EFAULT, vcpu_errno(self->vcpu, KVM_GET_XSAVE2, address),
		     "KVM_GET_XSAVE2 to %s", what);
	EXPECT_ERRNO(self->size <= XSAVE_SIZE ? EFAULT : EINVAL,
		     vcpu_errno(self->vcpu, KVM_GET_XSAVE, address), "KVM_GET_XSAVE to %s", what);
	if (!readable)
		EXPECT_ERRNO(EFAULT, vcpu_errno(self->vcpu, KVM_SET_XSAVE, address),
			     "KVM_SET_XSAVE from %s", what);
}

/* Verify that addresses that cannot be used give EFAULT and change nothing. */
TEST_F(xsave2_size, bad_addresses)
{
	size_t i, page = getpagesize(), len = self->size / page * page + 2 * page;
	u8 *p = xf_guarded(len + page, 0) + page;
	u8 *read_only = xf_guarded(len, 0);
	const struct {
		const char *what;
		u8 *address;
	} bad[] = {
		{ "NULL", NULL },
		{ "a page before memory", p - page },
		{ "a byte before memory", p - 1 },
		{ "a byte too close to the end of memory", p + len - self->size + 1 },
		{ "the last byte of memory", p + len - 1 },
		{ "half a page after memory", p + len + page / 2 },
		{ "a non-canonical address", (u8 *)BIT_ULL(63) },
		{ "the last byte of all", (u8 *)~0ul },
		{ "read-only memory", read_only },
	};
	u8 *before = vcpu_area(self->vcpu);

	ASSERT_EQ(0, mprotect(p - page, page, PROT_NONE));
	ASSERT_EQ(0, mprotect(read_only, len, PROT_READ));
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		expect_bad_address(_metadata, self, bad[i].address, bad[i].what,
				   bad[i].address == read_only);
	expect_same_area(_metadata, before, vcpu_area(self->vcpu), self->size, "bad addresses");
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "bad addresses");
}

/*
 * XSTATE_BV of an area that KVM has written.  PKRU that was left out of KVM_SET_XSAVE stays
 * what it was, which known kernels show after KVM_RUN alone.
 */
static u64 header_without_old_pkru(struct __test_metadata *const _metadata, const u8 *area,
				   const struct xregs *regs)
{
	u64 bv = xarea_header(area, 0);

	if (bv & XFEATURE_MASK_PKRU)
		expect_area(_metadata, area, regs, XFEATURE_MASK_PKRU, 0, "its bit was clear");
	return bv & ~XFEATURE_MASK_PKRU;
}

/*
 * Verify, bit by bit, which components KVM_SET_XSAVE takes: what the host knows
 * for a guest, in its CPUID or not, but XTILE_DATA only with the fpstate that
 * AMX in CPUID brings.  What is refused changes nothing, what is taken comes
 * back only if the guest has it.  The components are in their init state.
 */
TEST_F(xsave2_size, header_bits)
{
	u64 shown = vcpu_xcr0_mask(self->vcpu) | XFEATURE_MASK_FPSSE;
	u64 taken = kvm_known_xcr0() | XFEATURE_MASK_FPSSE, bv, got;
	char when[32];
	u8 *area;
	int i;

	if (!vcpu_has_amx(self->vcpu))
		taken &= ~XFEATURE_MASK_XTILE_DATA;
	for (i = 0; i < 64; i++) {
		bv = BIT_ULL(i);
		snprintf(when, sizeof(when), "XSTATE_BV bit %d", i);
		xregs_fill(&self->regs, self->vcpu, i);
		vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
		EXPECT_ERRNO(taken & bv ? 0 : EINVAL,
			     vcpu_errno(self->vcpu, KVM_SET_XSAVE, init_image(self->vcpu, bv)),
			     "KVM_SET_XSAVE of %s", when);
		if (!(taken & bv)) {
			expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, when);
			continue;
		}
		area = vcpu_area(self->vcpu);
		got = bv & XFEATURE_MASK_PKRU ? xarea_header(area, 0) :
		      header_without_old_pkru(_metadata, area, &self->regs);
		EXPECT_XFEATURES(bv & shown, got, "%s", when);
		expect_cet(_metadata, self->vcpu, &self->regs, when);
	}
}

/*
 * Verify that each bit of XCOMP_BV and of the reserved bytes of the header is
 * refused alone, and changes nothing.
 */
TEST_F(xsave2_size, reserved_bytes)
{
	u8 *image, *byte;
	unsigned int bit;
	struct xregs set;

	xregs_fill(&set, self->vcpu, 1);
	image = new_image(self->vcpu, &set, self->mask);
	for (bit = 0; bit < 8 * RESERVED_BYTES; bit++) {
		byte = image + XAREA_XCOMP_BV + bit / 8;
		*byte ^= 1 << bit % 8;
		EXPECT_ERRNO(EINVAL, vcpu_errno(self->vcpu, KVM_SET_XSAVE, image),
			     "KVM_SET_XSAVE with bit %u of byte %u", bit % 8,
			     XAREA_XCOMP_BV + bit / 8);
		*byte ^= 1 << bit % 8;
	}
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "refused XSAVE headers");
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_XSAVE, image),
		     "KVM_SET_XSAVE without those bits");
}

/* What FXSAVE tells about MXCSR of this CPU; 0 stands for a fixed mask. */
static u32 mxcsr_mask(void)
{
	static u8 fx[512] __aligned(16);

	asm volatile("fxsave64 %0" : "=m" (fx));
	return *(u32 *)(fx + XAREA_MXCSR_MASK) ?: 0xffbf;
}

/*
 * Verify that each bit of MXCSR, none and all that this CPU has at once are taken, and
 * come back, and that each other bit is refused and changes nothing.
 */
TEST_F(xsave2_size, mxcsr)
{
	u8 *image = new_image(self->vcpu, &self->regs, self->mask);
	u32 i, value, mask = mxcsr_mask();
	char when[32];

	for (i = 0; i < 34; i++) {
		value = i < 32 ? MXCSR_INIT ^ BIT(i) : i == 32 ? 0 : mask;
		snprintf(when, sizeof(when), "MXCSR %#x", value);
		vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
		image_mxcsr(image) = value;
		EXPECT_ERRNO(value & ~mask ? EINVAL : 0,
			     vcpu_errno(self->vcpu, KVM_SET_XSAVE, image),
			     "KVM_SET_XSAVE of %s", when);
		if (value & ~mask) {
			expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, when);
			continue;
		}
		xstate_run_immediate_exit(self->vcpu);
		EXPECT_SAME(value, image_mxcsr(vcpu_area(self->vcpu)), "%s", when);
	}
}

/* Verify that MXCSR goes with AVX too, whatever was there before. */
TEST_F(xsave2_size, mxcsr_with_avx)
{
	u32 value = MXCSR_INIT ^ BIT(13) ^ BIT(14);
	u8 *image;

	if (!(self->mask & XFEATURE_MASK_YMM))
		SKIP(return, "no AVX");
	image = new_image(self->vcpu, &self->regs, XFEATURE_MASK_YMM);
	image_mxcsr(image) = value;
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_XSAVE, image), "KVM_SET_XSAVE of AVX");
	EXPECT_SAME(value, image_mxcsr(vcpu_area(self->vcpu)), "MXCSR");
}

/* Verify that MXCSR does not matter where XSTATE_BV has none of x87, SSE and AVX. */
TEST_F(xsave2_size, mxcsr_ignored)
{
	u8 *image = new_image(self->vcpu, &self->regs, self->mask & XFEATURE_MASK_PKRU);

	image_mxcsr(image) = ~0u;
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_XSAVE, image),
		     "KVM_SET_XSAVE without x87, SSE and AVX, but MXCSR");
}

/*
 * Verify that components with a clear bit return to their init values, all but
 * PKRU, which stays what it was.
 */
TEST_F(xsave2_size, init_values)
{
	u8 *init = init_image(self->vcpu, 0), *got;
	u64 pkru = self->mask & XFEATURE_MASK_PKRU;

	xstate_run_immediate_exit(self->vcpu);
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_SET_XSAVE, init), "KVM_SET_XSAVE of no bits");
	got = vcpu_area(self->vcpu);
	*(u32 *)(init + XAREA_MXCSR_MASK) = mxcsr_mask();
	*(u64 *)(init + XAREA_SW_BYTES) = xf_xcr0();
	EXPECT_XFEATURES(0, header_without_old_pkru(_metadata, got, &self->regs), "XSTATE_BV");
	if (xarea_header(got, 0) & pkru) {
		xarea_set_header(got, 0, 0);
		*(u32 *)(got + xarea_offset(0, XFEATURE_PKRU)) = 0;
	}
	expect_same_area(_metadata, init, got, self->size, "init values");

	got = vcpu_area_with_pkru(self->vcpu);
	EXPECT_XFEATURES(pkru, xarea_header(got, 0) & pkru, "XSTATE_BV after KVM_RUN");
	expect_area(_metadata, got, &self->regs, pkru, 0, "its bit was clear");
	expect_cet(_metadata, self->vcpu, &self->regs, "KVM_SET_XSAVE of init values");
}

/*
 * Verify that what guest CPUID hides is not shown, though it was set, and that
 * a vCPU without AMX reads 4 KiB of an image that is larger, but none with tiles,
 * for which it has no room.
 */
TEST_F(xsave2_size, hidden_components)
{
	u8 *image = new_image(self->vcpu, &self->regs, self->mask & ~XFEATURE_MASK_XTILE);
	u64 has = XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM, shown = has & kvm_known_xcr0();
	struct kvm_cpuid2 *cpuid = xstate_cpuid(&variant->combo);
	struct kvm_vcpu *other = __vm_vcpu_add(self->vm, 1);
	u8 *got = xf_guarded(XSAVE_SIZE, XAREA_POISON);

	cpuid_entry(cpuid, 0xd, 0)->eax = has;
	vcpu_init_cpuid(other, cpuid);
	EXPECT_ERRNO(0, vcpu_errno(other, KVM_SET_XSAVE, image), "KVM_SET_XSAVE");
	image = init_image(self->vcpu, XFEATURE_MASK_XTILE);
	EXPECT_ERRNO(EINVAL, vcpu_errno(other, KVM_SET_XSAVE, image), "KVM_SET_XSAVE of tiles");
	EXPECT_ERRNO(0, vcpu_errno(other, KVM_GET_XSAVE2, got), "KVM_GET_XSAVE2");
	EXPECT_XFEATURES(shown, xarea_header(got, 0), "XSTATE_BV");
	expect_area(_metadata, got, &self->regs, shown, 0, "KVM_SET_XSAVE");
	expect_bytes(_metadata, got + xf_standard_size(has), 0, XSAVE_SIZE - xf_standard_size(has),
		     "behind what CPUID has");
}

/*
 * Verify that a CPUID without AMX leaves a vCPU its size, though it once had AMX,
 * and its state, and that it does not show XTILE any more.
 */
TEST_F(xsave2_size, sticky_growth)
{
	u64 mask = self->mask & ~XFEATURE_MASK_XTILE;
	static const struct xregs none;
	u8 *got;

	vcpu_init_cpuid(self->vcpu, xstate_cpuid_with(&variant->combo, false));
	got = vcpu_area(self->vcpu);
	EXPECT_XFEATURES(mask, xarea_header(got, 0), "XSTATE_BV without AMX");
	expect_area(_metadata, got, &self->regs, mask, 0, "a CPUID without AMX");
	expect_area(_metadata, got, &none, self->mask & XFEATURE_MASK_XTILE, 0,
		    "a CPUID without AMX");
	EXPECT_ERRNO(self->size > XSAVE_SIZE ? EINVAL : 0,
		     vcpu_errno(self->vcpu, KVM_GET_XSAVE, got), "KVM_GET_XSAVE");
	EXPECT_ERRNO(0, vcpu_errno(self->vcpu, KVM_GET_XSAVE2, xf_guarded(self->size, 0)),
		     "KVM_GET_XSAVE2 of %u bytes", self->size);
	EXPECT_ERRNO(EFAULT, vcpu_errno(self->vcpu, KVM_GET_XSAVE2, xf_guarded(self->size - 1, 0)),
		     "KVM_GET_XSAVE2 of %u bytes", self->size - 1);
}

/*
 * Verify that 4 KiB, with nothing after them, do for a vCPU until the CPUID
 * that brings AMX: KVM_GET_XSAVE then gives EINVAL, the others EFAULT, and
 * nothing changes by that.
 */
TEST_F(xsave2_size, growth)
{
	static const struct {
		const char *name;
		unsigned long cmd;
		int error;
	} calls[] = {
		{ "KVM_GET_XSAVE", KVM_GET_XSAVE, EINVAL },
		{ "KVM_GET_XSAVE2", KVM_GET_XSAVE2, EFAULT },
		{ "KVM_SET_XSAVE", KVM_SET_XSAVE, EFAULT },
	};
	struct xstate_combo combo = { variant->combo.perm, NOAMX, variant->combo.cet };
	struct kvm_vcpu *other = xstate_add_vcpu(self->vm, 1, &combo);
	u8 *p = xf_guarded(XSAVE_SIZE, 0), *before;
	bool fits = self->size <= XSAVE_SIZE;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(calls); i++)
		EXPECT_ERRNO(0, vcpu_errno(other, calls[i].cmd, p), "%s on 4 KiB without AMX",
			     calls[i].name);

	vcpu_init_cpuid(other, xstate_cpuid(&variant->combo));
	vcpu_set_xregs(_metadata, other, &self->regs, self->mask);
	before = vcpu_area(other);
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		EXPECT_ERRNO(fits ? 0 : calls[i].error, vcpu_errno(other, calls[i].cmd, p),
			     "%s on 4 KiB after KVM_SET_CPUID2", calls[i].name);
	expect_same_area(_metadata, before, vcpu_area(other), self->size, "ioctls on 4 KiB");
	expect_xregs(_metadata, other, &self->regs, self->mask, "ioctls on 4 KiB");
}

XSTATE_IOCTL_HARNESS_MAIN
