// SPDX-License-Identifier: GPL-2.0-only
/*
 * IA32_XFD and IA32_XFD_ERR of a guest that uses AMX: the #NM that they are
 * there for, and that neither switching AMX off and on nor another vCPU costs
 * a guest any other state, CET included. What the MSRs take is asserted by
 * xfd_msrs_test.
 */
#include "xstate_xfd.h"

/* AMX instructions, those that IA32_XFD must not disarm at first */
enum amx { LDTILECFG, STTILECFG, TILEZERO, TILELOADD, TILESTORED, TDPBF16PS,
	   XRSTOR, TILERELEASE, NR_AMX };

static const char * const amx_names[] = {
	"LDTILECFG", "STTILECFG", "TILEZERO", "TILELOADD", "TILESTORED",
	"TDPBF16PS", "XRSTOR of component 18", "TILERELEASE",
};

static bool amx_disarmed(enum amx amx)
{
	return amx >= TILEZERO && amx <= XRSTOR;
}

/* What one guest is told and what it finds, one for each vCPU */
struct guest {
	u64 xcr0, xss;
	u64 msr_values[2];
	struct {
		u64 vector, xfd_err, kept_err, cr0;
	} amx[NR_AMX];
	u64 nm_count, nm_xfd_err;
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct guest guests[2];

static u8 guest_amx(struct guest *g, enum amx amx)
{
	switch (amx) {
	case LDTILECFG:
		return kvm_asm_safe("ldtilecfg (%[p])", [p] "r" (g->regs.tilecfg));
	case STTILECFG:
		return kvm_asm_safe("sttilecfg (%[p])", [p] "r" (g->area));
	case TILEZERO:
		return kvm_asm_safe("tilezero %%tmm0");
	case TILELOADD:
		return kvm_asm_safe("tileloadd (%[p],%[s],1), %%tmm0",
				    [p] "r" (g->regs.tile), [s] "r" (64ul));
	case TILESTORED:
		return kvm_asm_safe("tilestored %%tmm0, (%[p],%[s],1)",
				    [p] "r" (g->area), [s] "r" (64ul));
	case TDPBF16PS:
		return kvm_asm_safe("tdpbf16ps %%tmm2, %%tmm1, %%tmm0");
	case XRSTOR:
		return kvm_asm_safe("xrstor64 (%[p])", [p] "r" (g->area),
				    "a" ((u32)XFD_TILE), "d" (0));
	default:
		return kvm_asm_safe("tilerelease");
	}
}

static void guest_nm_code(void)
{
	struct guest *g = guests;
	u32 i;

	guest_enable(g->xcr0);
	guest_amx(g, LDTILECFG);
	for (i = 0; i < NR_AMX; i++) {
		wrmsr(MSR_IA32_XFD, XFD_TILE);
		guest_leave();
		g->amx[i].vector = guest_amx(g, i);
		g->amx[i].xfd_err = rdmsr(MSR_IA32_XFD_ERR);
		g->amx[i].cr0 = get_cr0();
		guest_leave();
		g->amx[i].kept_err = rdmsr(MSR_IA32_XFD_ERR);
		wrmsr(MSR_IA32_XFD_ERR, 0);
		wrmsr(MSR_IA32_XFD, 0);
	}
	GUEST_DONE();
}

static void guest_nm_handler(struct ex_regs *regs)
{
	struct guest *g = guests;

	GUEST_ASSERT(g->nm_count++ < 3);
	g->nm_xfd_err = rdmsr(MSR_IA32_XFD_ERR);
	wrmsr(MSR_IA32_XFD_ERR, 0);
	wrmsr(MSR_IA32_XFD, 0);
	(void)regs;
}

/* As an operating system does it: the handler gives AMX, the program goes on. */
static void guest_lazy_code(void)
{
	struct guest *g = guests;

	guest_enable(g->xcr0);
	wrmsr(MSR_IA32_XFD, XFD_TILE);
	asm volatile("ldtilecfg %0" : : "m" (g->regs.tilecfg));
	asm volatile("tileloadd (%0,%1,1), %%tmm0\n\t"
		     "tilestored %%tmm0, (%2,%1,1)"
		     : : "r" (g->regs.tile), "r" (64ul), "r" (g->area)
		     : "memory");
	GUEST_DONE();
}

static GUEST_INTEGER_ONLY void guest_live(struct guest *g, bool toggle,
					  u64 xfd)
{
	guest_load_xregs(&g->regs, g->xcr0 | g->xss);
	for (;; xfd ^= toggle ? XFD_TILE : 0) {
		wrmsr(MSR_IA32_XFD, xfd);
		guest_leave();
		asm volatile("xsaves64 %0"
			     : "+m" (g->area) : "a" (-1), "d" (-1));
		guest_leave();
	}
}

/* All registers live: IA32_XFD toggles, or differs between two vCPUs. */
static void guest_live_code(u64 id, u64 toggle, u64 xfd)
{
	struct guest *g = guests + id;

	guest_enable(g->xcr0);
	if (g->xss)
		wrmsr(XF_MSR_XSS, g->xss);
	guest_live(g, toggle, xfd);
}

static void guest_read_code(void)
{
	struct guest *g = guests;
	u32 m;

	for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++)
		g->msr_values[m] = rdmsr(xfd_msrs[m]);
	guest_leave();
	guest_enable(g->xcr0);
	wrmsr(MSR_IA32_XFD, 0);
	guest_leave();
	GUEST_DONE();
}

FIXTURE(xfd) {
	struct xcomp x;
	struct kvm_vm *vm;
	u64 taint;
};

FIXTURE_VARIANT(xfd) {
	const char *name;
};

FIXTURE_VARIANT_ADD(xfd, amx) { .name = "guest_amx_nocet" };
FIXTURE_VARIANT_ADD(xfd, amx_cet) { .name = "guest_amx_cet" };

FIXTURE_SETUP(xfd)
{
	struct xcomp *x = &self->x;

	ASSERT_TRUE(xstate_begin(x, variant->name));
	if (!x->amx_on)
		SKIP(return, "no AMX on this machine");
	if (x->shstk && !x->shstk_on)
		SKIP(return, "KVM offers no guest CET");
	self->taint = xf_taint();
}

FIXTURE_TEARDOWN(xfd)
{
	EXPECT_FALSE(xstate_warned(self->taint));
	if (self->vm)
		kvm_vm_free(self->vm);
}

/* Set up the memory that host and guest share. */
static void share(struct xcomp *x, struct kvm_vm *vm, struct guest **shared)
{
	struct guest *g = addr_gva2hva(vm, (gva_t)&guests);
	u32 i;

	for (i = 0; i < ARRAY_SIZE(guests); i++) {
		g[i].xcr0 = xregs_guest_xcr0(x);
		g[i].xss = xregs_mask(xcomp_guest_xss(x));
		xregs_fill(&g[i].regs, i + 1);
	}
	*shared = g;
}

/* Run one AMX instruction of guest_nm_code(), and look at the MSRs meanwhile. */
static bool nm_ok(struct kvm_vcpu *vcpu, struct guest *g, enum amx amx)
{
	const char *name = amx_names[amx];
	u64 err = amx_disarmed(amx) ? XFD_TILE : 0;
	bool ok;

	xregs_run(vcpu);
	memset(g->area, 0, XF_BASE_SIZE);
	xarea_set_header(g->area, 0, XFD_TILE);
	ok = xfd_msr_is(vcpu, MSR_IA32_XFD, name, XFD_TILE);
	ok &= xfd_msr_is(vcpu, MSR_IA32_XFD_ERR, "before the instruction", 0);
	xregs_run(vcpu);

	ok &= xarea_same(name, "vector", err ? NM_VECTOR : 0,
			 g->amx[amx].vector);
	ok &= xarea_same(name, "IA32_XFD_ERR as the guest reads it", err,
			 g->amx[amx].xfd_err);
	ok &= xarea_same(name, "CR0.TS", 0, g->amx[amx].cr0 & X86_CR0_TS);
	return ok & xarea_same(name, "IA32_XFD_ERR as the host reads it", err,
			       vcpu_get_msr(vcpu, MSR_IA32_XFD_ERR));
}

/*
 * Verify, for each AMX instruction, whether it raises #NM while bit 18 of XFD
 * is set, with the right IA32_XFD_ERR, which an exit does not change.
 */
TEST_F(xfd, nm)
{
	struct kvm_vcpu *vcpu;
	struct guest *g;
	u32 i;

	vcpu = xstate_guest(&self->x, guest_nm_code);
	self->vm = vcpu->vm;
	share(&self->x, self->vm, &g);
	for (i = 0; i < NR_AMX; i++)
		EXPECT_TRUE(nm_ok(vcpu, g, i));
	xstate_run(vcpu, UCALL_DONE);
	for (i = 0; i < NR_AMX; i++)
		EXPECT_TRUE(xarea_same(amx_names[i], "IA32_XFD_ERR after an exit",
				       amx_disarmed(i) ? XFD_TILE : 0,
				       g->amx[i].kept_err));
}

/*
 * Verify that a guest which clears IA32_XFD in its handler gets #NM exactly
 * once, and that the instruction then does what it should.
 */
TEST_F(xfd, nm_once)
{
	struct kvm_vcpu *vcpu;
	struct guest *g;

	vcpu = xstate_guest(&self->x, guest_lazy_code);
	self->vm = vcpu->vm;
	share(&self->x, self->vm, &g);
	vm_install_exception_handler(self->vm, NM_VECTOR, guest_nm_handler);
	xstate_run(vcpu, UCALL_DONE);
	EXPECT_TRUE(xarea_same("TILELOADD", "times #NM was raised", 1,
			       g->nm_count));
	EXPECT_TRUE(xarea_same("TILELOADD", "IA32_XFD_ERR", XFD_TILE,
			       g->nm_xfd_err));
	EXPECT_EQ(XREGS_TILE_SIZE, xarea_differ(g->area, g->regs.tile[0],
						XREGS_TILE_SIZE));
	EXPECT_TRUE(xfd_msr_is(vcpu, MSR_IA32_XFD, "after the handler", 0));
	EXPECT_TRUE(xfd_msr_is(vcpu, MSR_IA32_XFD_ERR, "after the handler", 0));
}

/*
 * One round of guest_live_code(): all components but the disarmed one hold
 * what was loaded. Tile data that was disarmed once may be gone or be there.
 */
static bool live_ok(struct kvm_vcpu *vcpu, struct guest *g, const char *what,
		    u64 xfd, bool may_lose)
{
	u64 all = g->xcr0 | g->xss, bv, kept;
	bool ok;

	xregs_run(vcpu);
	ok = xfd_msr_is(vcpu, MSR_IA32_XFD, what, xfd);
	if (g->xss)
		ok &= xf_msr_kept(what, XF_MSR_U_CET, "a write of IA32_XFD",
				  g->regs.cet_user[0],
				  vcpu_get_msr(vcpu, XF_MSR_U_CET));
	xregs_run(vcpu);

	bv = xarea_header(g->area, 0);
	kept = xfd ? all & ~XFD_TILE : all;
	if (!xfd && may_lose && !(bv & XFD_TILE))
		kept &= ~XFD_TILE;
	ok &= xarea_same(what, "XSTATE_BV of XSAVES", kept, bv);
	return ok && xarea_has(what, g->area, &g->regs, kept,
			       all | XF_COMPACTED);
}

/*
 * Verify that a guest which switches AMX off and on, with CET, AVX-512 and
 * tiles in use, loses nothing but tile data, in exits to user space as well.
 */
TEST_F(xfd, toggle)
{
	struct kvm_vcpu *vcpu;
	struct guest *g;
	u32 i;

	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	vcpu = xstate_guest(&self->x, guest_live_code);
	self->vm = vcpu->vm;
	share(&self->x, self->vm, &g);
	vcpu_args_set(vcpu, 3, 0ul, 1ul, 0ul);
	for (i = 0; i < 8; i++)
		ASSERT_TRUE(live_ok(vcpu, g, "toggled IA32_XFD",
				    i & 1 ? XFD_TILE : 0, i));
}

/*
 * Verify that two vCPUs on one thread, one with bit 18 of XFD set and one with
 * live tiles, each keep their own IA32_XFD and their own state.
 */
TEST_F(xfd, two_vcpus)
{
	struct kvm_vcpu *vcpus[2];
	struct guest *g;
	u32 i;

	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	xstate_libkvm_cpuid(&self->x);
	self->vm = vm_create_with_vcpus(2, guest_live_code, vcpus);
	share(&self->x, self->vm, &g);
	for (i = 0; i < 2; i++) {
		xstate_enable(&self->x, vcpus[i]);
		vcpu_args_set(vcpus[i], 3, (u64)i, 0ul, i ? 0 : XFD_TILE);
	}
	for (i = 0; i < 8; i++)
		ASSERT_TRUE(live_ok(vcpus[i & 1], g + (i & 1),
				    i & 1 ? "vCPU with tiles" :
				    "vCPU with XFD", i & 1 ? 0 : XFD_TILE,
				    false));
}

/*
 * Verify that both MSRs move to another vCPU and reach its guest, and that tile
 * data restored while bit 18 is set is dropped without an error, never loaded.
 */
TEST_F(xfd, restore)
{
	u32 size = xcomp_xsave_size(&self->x), m;
	struct kvm_vcpu *vcpu;
	struct guest *g;
	u8 *image;

	vcpu = xstate_guest(&self->x, guest_read_code);
	self->vm = vcpu->vm;
	share(&self->x, self->vm, &g);
	image = calloc(1, XAREA_SIZE);
	TEST_ASSERT(image, "calloc() failed");

	/* IA32_XFD goes first: never after an image with tile data. */
	for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++)
		ASSERT_EQ(1, _vcpu_set_msr(vcpu, xfd_msrs[m], XFD_TILE));
	xarea_put(image, &g->regs, g->xcr0, 0);
	ASSERT_EQ(0, ioctl(vcpu->fd, KVM_SET_XSAVE, image));
	xarea_fill(image, XAREA_POISON, size);
	vcpu_xsave2_get(vcpu, (struct kvm_xsave *)image);
	/* Kernels that keep the tile data panic as soon as they load it. */
	ASSERT_TRUE(xarea_same("KVM_GET_XSAVE2 with IA32_XFD set", "XSTATE_BV[18]",
			       0, xarea_header(image, 0) & XFD_TILE));

	xregs_run(vcpu);
	for (m = 0; m < ARRAY_SIZE(xfd_msrs); m++)
		EXPECT_TRUE(xarea_same(xfd_msr_name(xfd_msrs[m]),
				       "as the guest reads it", XFD_TILE,
				       g->msr_values[m]));
	xregs_run(vcpu);
	vcpu_xsave2_get(vcpu, (struct kvm_xsave *)image);
	EXPECT_TRUE(xarea_same("tile data dropped by KVM_SET_XSAVE",
			       "XSTATE_BV[18] once IA32_XFD is 0", 0,
			       xarea_header(image, 0) & XFD_TILE));
	EXPECT_TRUE(xarea_has("the rest of that image", image, &g->regs,
			      g->xcr0 & XF_BIT(XF_XTILE_CFG), 0));
	free(image);
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
