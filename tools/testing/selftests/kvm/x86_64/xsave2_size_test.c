// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_GET_XSAVE, KVM_GET_XSAVE2 and KVM_SET_XSAVE: how many bytes they move,
 * which components they show and take, and that a call that fails changes
 * nothing. The size depends on the CPUID that the vCPU was given, the
 * capability on the permission of the process.
 */
#include "xstate_util.h"

/* A buffer with an inaccessible page on both sides of its pages */
#define GUARDED_PAGES	5

#define XSTATE_MXCSR_MASK	28
#define XSTATE_SW_BYTES		464

/* In the header: XCOMP_BV, and all that follows it, must be 0. */
#define XSTATE_XCOMP_BV		(XF_HEADER_OFFSET + 8)
#define XSTATE_RESERVED_BYTES	56

FIXTURE(xsave2_size) {
	struct xcomp x;
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	uint64_t taint;
};

FIXTURE_VARIANT(xsave2_size) {
	const char *name;
};

FIXTURE_SETUP(xsave2_size)
{
	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(&self->x, variant->name));
	if (self->x.perm != XCOMP_NONE && !self->x.have_amx)
		SKIP(return, "no AMX on this machine");
	if (xkvm_cap(self->x.kvm, KVM_CAP_XSAVE2) <= 0)
		SKIP(return, "no KVM_CAP_XSAVE2");
	self->vm = vm_create_barebones();
	self->vcpu = xstate_add_vcpu(&self->x, self->vm, 0);
	ASSERT_TRUE(xstate_fill(&self->x, 0));
}

FIXTURE_TEARDOWN(xsave2_size)
{
	if (self->vm)
		kvm_vm_free(self->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

XSTATE_VARIANT(xsave2_size, none_noamx_cet);
XSTATE_VARIANT(xsave2_size, host_noamx_cet);
XSTATE_VARIANT(xsave2_size, guest_noamx_cet);
XSTATE_VARIANT(xsave2_size, guest_amx_cet);
XSTATE_VARIANT(xsave2_size, both_amx_nocet);

/* The size of an image of all components that this process may give a vCPU */
static uint32_t offered_size(struct xcomp *x)
{
	return xf_standard_size(xcomp_known_xcr0(x) &
				~(x->guest_granted ? 0 : XF_XTILE));
}

/* The smallest buffer that does for every vCPU of this process */
static uint32_t promised_size(struct xcomp *x)
{
	uint32_t size = offered_size(x);

	return size > XKVM_XSAVE_SIZE ? size : XKVM_XSAVE_SIZE;
}

static int xsave_errno(struct xcomp *x, unsigned long cmd, void *buf)
{
	return ioctl(x->vcpu, cmd, buf) ? errno : 0;
}

/* Anonymous pages between two that nobody may touch */
static uint8_t *map_guarded(struct __test_metadata *_metadata, uint8_t poison)
{
	size_t page = getpagesize(), len = GUARDED_PAGES * page;
	uint8_t *p;

	p = mmap(NULL, len + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		 -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, mprotect(p + page, len, PROT_READ | PROT_WRITE));
	memset(p + page, poison, len);
	return p + page;
}

/* Whether two images show the same components with the same contents */
static bool same_image(struct xcomp *x, const uint8_t *want, const uint8_t *got)
{
	bool ok = xcomp_same(x, "XSTATE_BV", xstate_bv(want), xstate_bv(got));
	int i;

	for (i = 0; i < 63; i++) {
		if (!(xstate_bv(want) & XF_BIT(i)) ||
		    xstate_same_component(want, got, i))
			continue;
		ksft_print_msg("%s: component %d changed\n", x->name, i);
		ok = false;
	}
	return ok;
}

/* Whether all of @size bytes are @poison */
static bool is_poison(const uint8_t *p, uint8_t poison, size_t size)
{
	return !size || (*p == poison && !memcmp(p, p + 1, size - 1));
}

/*
 * Verify that the capability is what the permission allows, on /dev/kvm and on
 * the VM alike, whatever this vCPU's CPUID has, and that it agrees with CPUID.
 */
TEST_F(xsave2_size, capability)
{
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(self->x.kvm);
	int size = promised_size(&self->x);

	EXPECT_EQ(size, xkvm_cap(self->x.kvm, KVM_CAP_XSAVE2));
	EXPECT_EQ(size, xkvm_cap(self->vm->fd, KVM_CAP_XSAVE2));
	ASSERT_NE(NULL, c);
	EXPECT_EQ(xkvm_cpuid(c, 0xd, 0).ebx, xkvm_cpuid(c, 0xd, 0).ecx);
	EXPECT_EQ(offered_size(&self->x), xkvm_cpuid(c, 0xd, 0).ecx);
	free(c);
}

/*
 * Verify that each ioctl writes exactly its bytes and not one before or after,
 * wherever the buffer lies, and gives the same at every address.
 */
TEST_F(xsave2_size, bytes_written)
{
	static const size_t offsets[] = { 0, 1, 3, 8, 63, 64, 100, 4095 };
	uint32_t size = xcomp_xsave_size(&self->x);
	uint8_t *same = xstate_read_image(&self->x);
	size_t i, poison, len = GUARDED_PAGES * getpagesize();
	uint8_t *p;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		for (poison = 0x11; poison <= 0xee; poison += 0xdd) {
			p = map_guarded(_metadata, poison);
			EXPECT_EQ(0, xsave_errno(&self->x, KVM_GET_XSAVE2,
						 p + offsets[i]));
			EXPECT_TRUE(is_poison(p, poison, offsets[i]));
			EXPECT_EQ(0, memcmp(p + offsets[i], same, size));
			EXPECT_TRUE(is_poison(p + offsets[i] + size, poison,
					      len - offsets[i] - size)) {
				ksft_print_msg("%s: KVM_GET_XSAVE2 wrote beyond %u bytes\n",
					       self->x.name, size);
			}
		}
	}
}

/* Verify that KVM_GET_XSAVE does up to 4 KiB the same, and beyond nothing. */
TEST_F(xsave2_size, get_xsave)
{
	uint32_t size = xcomp_xsave_size(&self->x);
	uint8_t *same = xstate_read_image(&self->x);
	uint8_t *p = map_guarded(_metadata, 0x5a);
	int wanted = size > XKVM_XSAVE_SIZE ? EINVAL : 0;

	EXPECT_EQ(wanted, xsave_errno(&self->x, KVM_GET_XSAVE, p));
	size = wanted ? 0 : size;
	EXPECT_EQ(0, memcmp(p, same, size));
	EXPECT_TRUE(is_poison(p + size, 0x5a,
			      GUARDED_PAGES * getpagesize() - size));
}

/*
 * Verify that KVM_SET_XSAVE reads exactly its bytes, at any address, up to the
 * end of what is mapped, and from memory that can only be read.
 */
TEST_F(xsave2_size, bytes_read)
{
	static const size_t offsets[] = { 0, 1, 7, 32, 64, 65 };
	size_t i, len = GUARDED_PAGES * getpagesize();
	struct xcomp *x = &self->x;
	uint32_t size = xcomp_xsave_size(x);
	uint8_t *p, *image;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		image = xstate_image(x, xstate_filled(x), i + 1);
		p = map_guarded(_metadata, 0xff);
		/* All else is set, so that a read from there is refused. */
		memcpy(p + len - size - offsets[i], image, size);
		ASSERT_EQ(0, mprotect(p, len, PROT_READ));
		ASSERT_TRUE(xstate_fill(x, 7));
		EXPECT_EQ(0, xsave_errno(x, KVM_SET_XSAVE,
					 p + len - size - offsets[i]));
		EXPECT_TRUE(same_image(x, image, xstate_read_image(x)));
		EXPECT_TRUE(xstate_cet_kept(x, 7, "KVM_SET_XSAVE"));
	}
}

/* Verify that addresses that cannot be used give EFAULT and change nothing. */
TEST_F(xsave2_size, bad_addresses)
{
	size_t i, page = getpagesize(), len = GUARDED_PAGES * page;
	uint8_t *p = map_guarded(_metadata, 0), *gone, *read_only;
	struct xcomp *x = &self->x;
	uint32_t size = xcomp_xsave_size(x);
	uint8_t *before = xstate_read_image(x);

	gone = p + len + page - size / 2;
	read_only = map_guarded(_metadata, 0);
	memcpy(read_only, before, size);
	ASSERT_EQ(0, mprotect(read_only, len, PROT_READ));
	uint8_t *const bad_get[] = {
		NULL, p - page, p - 1, p + len - size + 1, p + len - 1, gone,
		read_only, (uint8_t *)XF_BIT(63), (uint8_t *)~0ul,
	};

	for (i = 0; i < ARRAY_SIZE(bad_get); i++) {
		EXPECT_EQ(EFAULT, xsave_errno(x, KVM_GET_XSAVE2, bad_get[i]));
		EXPECT_EQ(size > XKVM_XSAVE_SIZE ? EINVAL : EFAULT,
			  xsave_errno(x, KVM_GET_XSAVE, bad_get[i]));
		if (bad_get[i] != read_only)
			EXPECT_EQ(EFAULT, xsave_errno(x, KVM_SET_XSAVE,
						      bad_get[i]));
	}
	EXPECT_EQ(0, memcmp(before, xstate_read_image(x), size));
	EXPECT_TRUE(xstate_kept(x, 0, "ioctls that failed with EFAULT"));
}

/*
 * Verify, bit by bit, which components KVM_SET_XSAVE takes: what the host knows
 * for a guest, in its CPUID or not, but XTILE_DATA only with the fpstate that
 * AMX in CPUID brings. What is refused changes nothing, what is taken comes
 * back only if the guest has it. The components are in their init state.
 */
TEST_F(xsave2_size, header_bits)
{
	uint64_t bv, taken, shown;
	struct xcomp *x = &self->x;
	uint8_t *image;
	int i;

	taken = xcomp_known_xcr0(x) | XF_FPSSE;
	if (!x->amx_on)
		taken &= ~XF_BIT(XF_XTILE_DATA);
	shown = xcomp_guest_xcr0(x) | XF_FPSSE;

	for (i = 0; i < 64; i++) {
		bv = XF_BIT(i);
		ASSERT_TRUE(xstate_fill(x, i));
		image = xstate_init_image(x);
		memcpy(image + XF_HEADER_OFFSET, &bv, sizeof(bv));
		EXPECT_EQ(taken & bv ? 0 : EINVAL,
			  xsave_errno(x, KVM_SET_XSAVE, image)) {
			ksft_print_msg("%s: XSTATE_BV bit %d\n", x->name, i);
		}
		if (!(taken & bv)) {
			EXPECT_TRUE(xstate_kept(x, i, "a refused XSTATE_BV"));
			continue;
		}
		EXPECT_EQ(bv & shown, xstate_bv(xstate_read_image(x))) {
			ksft_print_msg("%s: XSTATE_BV bit %d shown\n", x->name,
				       i);
		}
		EXPECT_TRUE(xstate_cet_kept(x, i, "KVM_SET_XSAVE"));
	}
}

/* What FXSAVE tells about this CPU's MXCSR; 0 stands for a fixed mask. */
static uint32_t mxcsr_mask(void)
{
	static uint8_t fx[512] __aligned(16);
	uint32_t mask;

	asm volatile("fxsave64 %0" : "=m" (fx));
	memcpy(&mask, fx + XSTATE_MXCSR_MASK, sizeof(mask));
	return mask ?: 0xffbf;
}

/*
 * Verify that each bit of XCOMP_BV and of the reserved bytes of the header is
 * refused alone, and changes nothing.
 */
TEST_F(xsave2_size, reserved_bytes)
{
	struct xcomp *x = &self->x;
	uint8_t *image = xstate_image(x, xstate_filled(x), 1);
	unsigned int bit, byte;

	for (bit = 0; bit < 8 * XSTATE_RESERVED_BYTES; bit++) {
		byte = XSTATE_XCOMP_BV + bit / 8;
		image[byte] ^= 1 << bit % 8;
		EXPECT_EQ(EINVAL, xsave_errno(x, KVM_SET_XSAVE, image)) {
			ksft_print_msg("%s: bit %u of byte %u\n", x->name,
				       bit % 8, byte);
		}
		image[byte] ^= 1 << bit % 8;
	}
	EXPECT_TRUE(xstate_kept(x, 0, "refused XSAVE headers"));
	EXPECT_EQ(0, xsave_errno(x, KVM_SET_XSAVE, image));
}

/*
 * Verify that each bit of MXCSR is taken, and comes back, if this CPU has it,
 * and else is refused and changes nothing. MXCSR does not matter where
 * XSTATE_BV has none of x87, SSE and AVX.
 */
TEST_F(xsave2_size, mxcsr)
{
	struct xcomp *x = &self->x;
	uint8_t *image = xstate_image(x, xstate_filled(x), 1);
	uint32_t value, got, i;
	bool taken;

	for (i = 0; i < 32; i++) {
		ASSERT_TRUE(xstate_fill(x, 0));
		value = XSTATE_MXCSR_INIT ^ XF_BIT(i);
		taken = mxcsr_mask() & XF_BIT(i);
		memcpy(image + XSTATE_MXCSR, &value, sizeof(value));
		EXPECT_EQ(taken ? 0 : EINVAL,
			  xsave_errno(x, KVM_SET_XSAVE, image)) {
			ksft_print_msg("%s: MXCSR bit %u\n", x->name, i);
		}
		if (!taken) {
			EXPECT_TRUE(xstate_kept(x, 0, "a refused MXCSR"));
			continue;
		}
		EXPECT_TRUE(xkvm_run_immediate_exit(x->kvm, x->vcpu));
		memcpy(&got, xstate_read_image(x) + XSTATE_MXCSR, sizeof(got));
		EXPECT_EQ(value, got);
	}

	/* It goes with AVX too, whatever was there before. */
	if (xstate_filled(x) & XF_BIT(XF_YMM)) {
		image = xstate_image(x, XF_BIT(XF_YMM), 1);
		value = XSTATE_MXCSR_INIT ^ XF_BIT(13) ^ XF_BIT(14);
		memcpy(image + XSTATE_MXCSR, &value, sizeof(value));
		EXPECT_EQ(0, xsave_errno(x, KVM_SET_XSAVE, image));
		memcpy(&got, xstate_read_image(x) + XSTATE_MXCSR, sizeof(got));
		EXPECT_EQ(value, got);
	}

	image = xstate_image(x, xstate_filled(x) & XF_BIT(XF_PKRU), 1);
	memset(image + XSTATE_MXCSR, 0xff, 4);
	EXPECT_EQ(0, xsave_errno(x, KVM_SET_XSAVE, image));
}

/*
 * Verify that components with a clear bit return to their init values, all but
 * PKRU, which stays what it was.
 */
TEST_F(xsave2_size, init_values)
{
	uint8_t *init = xstate_init_image(&self->x), *got, *all;
	uint64_t pkru = xstate_filled(&self->x) & XF_BIT(XF_PKRU);
	struct xcomp *x = &self->x;
	uint32_t size = xcomp_xsave_size(x);

	ASSERT_EQ(0, xsave_errno(x, KVM_SET_XSAVE, init));
	got = xstate_read_image(x);
	EXPECT_EQ(0, xstate_bv(got));
	/* What KVM tells about the host */
	memcpy(init + XSTATE_MXCSR_MASK, &(uint32_t){ mxcsr_mask() }, 4);
	memcpy(init + XSTATE_SW_BYTES, &(uint64_t){ xf_xcr0() }, 8);
	EXPECT_EQ(0, memcmp(init, got, size));

	all = xstate_read_all(x);
	EXPECT_EQ(pkru, xstate_bv(all) & pkru);
	EXPECT_TRUE(!pkru ||
		    xstate_same_component(xstate_image(x, pkru, 0), all,
					  XF_PKRU)) {
		ksft_print_msg("%s: PKRU lost though its bit was clear\n",
			       x->name);
	}
	EXPECT_TRUE(xstate_cet_kept(x, 0, "KVM_SET_XSAVE of init state"));
}

/* Verify that what the guest's CPUID hides is not shown, though it was set. */
TEST_F(xsave2_size, hidden_components)
{
	struct xcomp *x = &self->x;
	struct kvm_cpuid2 *c = xkvm_supported_cpuid(x->kvm);
	uint8_t *image = xstate_image(x, xstate_filled(x), 2);
	uint64_t xcr0 = XF_FPSSE | XF_BIT(XF_YMM);
	struct kvm_vcpu *other;

	ASSERT_NE(NULL, c);
	other = __vm_vcpu_add(self->vm, 1);
	xcomp_shape_cpuid(x, c, x->amx_on);
	xkvm_cpuid_entry(c, 0xd, 0)->eax = xcr0;
	vcpu_init_cpuid(other, c);
	/* Without AMX in CPUID 4 KiB are read of the larger image. */
	ASSERT_EQ(0, ioctl(other->fd, KVM_SET_XSAVE, image));
	x->vcpu = other->fd;
	x->amx_on = false;
	image = xstate_read_image(x);
	EXPECT_EQ(xcr0 & xcomp_known_xcr0(x), xstate_bv(image)) {
		ksft_print_msg("%s: components that guest CPUID hides are shown\n",
			       x->name);
	}
	EXPECT_TRUE(is_poison(image + xf_standard_size(xcr0), 0,
			      xcomp_xsave_size(x) - xf_standard_size(xcr0)));
	free(c);
}

/*
 * Verify that a vCPU that once had AMX keeps its size when another CPUID takes
 * AMX away, and its state, and does not show XTILE any more.
 */
TEST_F(xsave2_size, sticky_growth)
{
	struct xcomp *x = &self->x, off;
	uint8_t *before, *after;
	uint32_t size = xcomp_xsave_size(x);

	before = xstate_read_image(x);
	off = *x;
	ASSERT_EQ(0, xcomp_set_cpuid(&off, x->vcpu, false));
	after = xstate_read_image(x);
	EXPECT_EQ(0, memcmp(before, after, size));
	EXPECT_EQ(0, xstate_bv(after) & XF_XTILE);
	EXPECT_EQ(size > XKVM_XSAVE_SIZE ? EINVAL : 0,
		  xsave_errno(x, KVM_GET_XSAVE, before));
	EXPECT_EQ(EFAULT, xsave_errno(x, KVM_GET_XSAVE2,
				      xf_guarded(size - 1, 0)));
	EXPECT_EQ((int)promised_size(x),
		  xkvm_cap(self->vm->fd, KVM_CAP_XSAVE2));
}

/*
 * Verify that 4 KiB, with nothing after them, do for a vCPU until the CPUID
 * that brings AMX: KVM_GET_XSAVE then gives EINVAL, the others EFAULT, and
 * nothing changes by that.
 */
TEST_F(xsave2_size, growth)
{
	static const unsigned long cmds[] = {
		KVM_GET_XSAVE, KVM_GET_XSAVE2, KVM_SET_XSAVE,
	};
	uint8_t *p = map_guarded(_metadata, 0), *before;
	struct xcomp x = self->x;
	size_t i;

	p += GUARDED_PAGES * getpagesize() - XKVM_XSAVE_SIZE;
	x.amx_on = false;
	xstate_add_vcpu(&x, self->vm, 1);
	for (i = 0; i < ARRAY_SIZE(cmds); i++)
		EXPECT_EQ(0, xsave_errno(&x, cmds[i], p));

	x.amx_on = self->x.amx_on;
	ASSERT_EQ(0, xcomp_set_cpuid(&x, x.vcpu, x.amx_on));
	ASSERT_TRUE(xstate_fill(&x, 1));
	before = xstate_read_image(&x);
	memset(p, 0, XKVM_XSAVE_SIZE);
	for (i = 0; i < ARRAY_SIZE(cmds); i++)
		EXPECT_EQ(!x.amx_on ? 0 : i ? EFAULT : EINVAL,
			  xsave_errno(&x, cmds[i], p));
	EXPECT_EQ(0, memcmp(before, xstate_read_image(&x),
			    xcomp_xsave_size(&x)));
	EXPECT_TRUE(xstate_kept(&x, 1, "ioctls on 4 KiB"));
}

/* Tiles and their configuration, that is XTILE_DATA and XTILE_CFG */
static uint8_t *tile_image(struct xcomp *x)
{
	uint8_t *image = xstate_image(x, xstate_filled(x) | XF_XTILE, 1);
	uint32_t i, data = xf_cpuid(0xd, XF_XTILE_DATA).ebx;

	xstate_tile_config(image + xf_cpuid(0xd, XF_XTILE_CFG).ebx);
	for (i = 0; i < xf_cpuid(0xd, XF_XTILE_DATA).eax; i++)
		image[data + i] = i * 13 + i / 251;
	return image;
}

/*
 * Verify that all tiles and their configuration come back byte for byte, over
 * KVM_RUN and CET MSRs too, and are gone once their bits are clear. IA32_XFD
 * is 0, as it must be in the image of a vCPU with live tiles.
 */
TEST_F(xsave2_size, tiles)
{
	struct xcomp *x = &self->x;
	uint8_t *want, *got;
	int i;

	if (!x->amx_on) {
		/* The image has 4 KiB, and no room for the tiles. */
		got = xstate_init_image(x);
		memcpy(got + XF_HEADER_OFFSET, &(uint64_t){ XF_XTILE }, 8);
		EXPECT_EQ(EINVAL, xsave_errno(x, KVM_SET_XSAVE, got));
		EXPECT_TRUE(xstate_kept(x, 0, "a refused image with tiles"));
		return;
	}
	want = tile_image(x);
	ASSERT_EQ(0, xsave_errno(x, KVM_SET_XSAVE, want));
	for (i = 0; i < 2; i++) {
		got = xstate_read_image(x);
		EXPECT_EQ(XF_XTILE, xstate_bv(got) & XF_XTILE);
		EXPECT_TRUE(xstate_same_component(want, got, XF_XTILE_CFG));
		EXPECT_TRUE(xstate_same_component(want, got, XF_XTILE_DATA));
		EXPECT_TRUE(xkvm_run_immediate_exit(x->kvm, x->vcpu));
		EXPECT_TRUE(xstate_cet_kept(x, 0, "KVM_SET_XSAVE of tiles"));
	}
	ASSERT_EQ(0, xsave_errno(x, KVM_SET_XSAVE, xstate_init_image(x)));
	got = xstate_read_image(x);
	EXPECT_EQ(0, xstate_bv(got) & XF_XTILE);
	EXPECT_TRUE(xstate_same_component(xstate_init_image(x), got,
					  XF_XTILE_DATA));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
