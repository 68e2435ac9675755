// SPDX-License-Identifier: GPL-2.0-only
/*
 * IA32_XFD and IA32_XFD_ERR of a guest that uses AMX: the #NM that they are
 * there for, and that neither switching AMX off and on nor another vCPU costs
 * a guest any other state, CET included.  IA32_XFD_ERR belongs to its guest: it
 * is saved with the #NM that it explains, however IA32_XFD was changed before,
 * and no other vCPU sees it.
 */
#include "xregs.h"

/* AMX instructions, those that IA32_XFD must not disarm at first */
enum amx { LDTILECFG, STTILECFG, TILEZERO, TILELOADD, TILESTORED, TDPBF16PS,
	   XRSTOR, TILERELEASE, NR_AMX };

static const char * const amx_names[] = {
	"LDTILECFG", "STTILECFG", "TILEZERO", "TILELOADD", "TILESTORED",
	"TDPBF16PS", "XRSTOR of XTILE_DATA", "TILERELEASE",
};

/* What IA32_XFD_ERR holds after the instruction, IA32_XFD being set: 0 is for no #NM. */
static u64 amx_err(enum amx amx)
{
	return amx >= TILEZERO && amx <= XRSTOR ? XFEATURE_MASK_XTILE_DATA : 0;
}

static const u32 xfd_msrs[] = { MSR_IA32_XFD, MSR_IA32_XFD_ERR };

/* What one guest is told and what it finds, one for each vCPU */
struct guest {
	u64 xcr0, xss, xfd;
	enum amx amx;
	u64 vector, xfd_err, kept_err, cr0, nm_count;
	u64 msrs[ARRAY_SIZE(xfd_msrs)];
	struct xregs regs;
	u8 area[XAREA_SIZE] __aligned(64);
};

static struct guest guests[2];

/* ---- guests ---- */

/* By opcodes, for assemblers without AMX: memory operands are at RAX, 64 bytes a row. */
#define AMX_SAFE(opcode, p)	kvm_asm_safe(".byte 0xc4, 0xe2, " opcode, "a" (p), "c" (64ul))

static u8 guest_amx(struct guest *g, enum amx amx)
{
	switch (amx) {
	case LDTILECFG:
		return AMX_SAFE("0x78, 0x49, 0x00", g->regs.tilecfg);
	case STTILECFG:
		return AMX_SAFE("0x79, 0x49, 0x00", g->area);
	case TILEZERO:
		return AMX_SAFE("0x7b, 0x49, 0xc0", NULL);
	case TILELOADD:
		return AMX_SAFE("0x7b, 0x4b, 0x04, 0x08", g->regs.tile);
	case TILESTORED:
		return AMX_SAFE("0x7a, 0x4b, 0x04, 0x08", g->area);
	case TDPBF16PS:
		return AMX_SAFE("0x6a, 0x5c, 0xc1", NULL);
	case XRSTOR:
		return kvm_asm_safe("xrstor64 (%[p])", [p] "r" (g->area),
				    "a" ((u32)XFEATURE_MASK_XTILE_DATA), "d" (0));
	default:
		return AMX_SAFE("0x78, 0x49, 0xc0", NULL);
	}
}

static void guest_nm_code(struct guest *g)
{
	guest_enable_xstate(g->xcr0);
	guest_amx(g, LDTILECFG);
	for (;;) {
		wrmsr(MSR_IA32_XFD, XFEATURE_MASK_XTILE_DATA);
		guest_leave();
		g->vector = guest_amx(g, g->amx);
		g->xfd_err = rdmsr(MSR_IA32_XFD_ERR);
		g->cr0 = get_cr0();
		guest_leave();
		g->kept_err = rdmsr(MSR_IA32_XFD_ERR);
		wrmsr(MSR_IA32_XFD_ERR, 0);
		wrmsr(MSR_IA32_XFD, 0);
		guest_leave();
	}
}

static void guest_nm_handler(struct ex_regs *regs __maybe_unused)
{
	struct guest *g = guests;

	GUEST_ASSERT(g->nm_count++ < 3);
	g->xfd_err = rdmsr(MSR_IA32_XFD_ERR);
	wrmsr(MSR_IA32_XFD_ERR, 0);
	wrmsr(MSR_IA32_XFD, 0);
}

/* As an operating system does it: the handler gives AMX, the program goes on. */
static void guest_lazy_code(struct guest *g)
{
	guest_enable_xstate(g->xcr0);
	wrmsr(MSR_IA32_XFD, XFEATURE_MASK_XTILE_DATA);
	tile_load_config(g->regs.tilecfg);
	tile_load(g->regs.tile[0]);
	guest_expect_tiles(&g->regs, "after #NM of TILELOADD");
	GUEST_DONE();
}

static INTEGER_ONLY void guest_live(struct guest *g)
{
	guest_load_xregs(&g->regs, g->xcr0 | g->xss);
	for (;;) {
		wrmsr(MSR_IA32_XFD, g->xfd);
		guest_leave();
		asm volatile("xsaves64 %0" : "+m" (g->area) : "a" (-1), "d" (-1));
		guest_leave();
	}
}

/* All registers live: IA32_XFD toggles, or differs between two vCPUs. */
static void guest_live_code(struct guest *g)
{
	guest_enable_xstate(g->xcr0);
	if (g->xss)
		wrmsr(MSR_IA32_XSS, g->xss);
	guest_live(g);
}

static void guest_read_code(struct guest *g)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(xfd_msrs); i++)
		g->msrs[i] = rdmsr(xfd_msrs[i]);
	guest_leave();
	guest_enable_xstate(g->xcr0);
	wrmsr(MSR_IA32_XFD, 0);
	guest_leave();
}

/* Between two exits: AMX is switched off, and missed at once. */
static void guest_missing_code(struct guest *g)
{
	guest_enable_xstate(g->xcr0);
	tile_load_config(g->regs.tilecfg);
	wrmsr(MSR_IA32_XFD, XFEATURE_MASK_XTILE_DATA);
	for (;;) {
		wrmsr(MSR_IA32_XFD, 0);
		guest_leave();
		wrmsr(MSR_IA32_XFD, XFEATURE_MASK_XTILE_DATA);
		g->vector = guest_amx(g, TILEZERO);
		guest_leave();
		g->xfd_err = rdmsr(MSR_IA32_XFD_ERR);
		wrmsr(MSR_IA32_XFD_ERR, 0);
	}
}

static void guest_watch_code(struct guest *g)
{
	for (;;) {
		g->xfd_err = rdmsr(MSR_IA32_XFD_ERR);
		guest_leave();
	}
}

/* ---- tests ---- */

/* Two vCPUs, of which most tests run one, and what they share with the host */
FIXTURE(xfd) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[2];
	struct guest *g;
};

XSTATE_SUITE(xfd);

FIXTURE_VARIANT_ADD(xfd, amx) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xfd, amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(xfd)
{
	struct kvm_vcpu *vcpu;
	u32 i;

	if (!xstate_begin(_metadata, &variant->combo))
		return;
	if (variant->combo.cet && !kvm_cpu_has(X86_FEATURE_SHSTK))
		SKIP(return, "KVM offers no guest CET");
	self->vcpus[0] = xstate_new_guest(&self->vm, &variant->combo, guest_nm_code);
	self->vcpus[1] = xstate_add_guest(self->vm, 1, &variant->combo, guest_watch_code);
	self->g = addr_gva2hva(self->vm, (gva_t)&guests);
	for (i = 0; i < ARRAY_SIZE(guests); i++) {
		vcpu = self->vcpus[i];
		vcpu_args_set(vcpu, 1, &guests[i]);
		self->g[i].xcr0 = xregs_guest_mask(vcpu);
		self->g[i].xss = xregs_mask(vcpu_xss_mask(vcpu));
		/* Even seeds: with others IA32_U_CET is 0 where there is no IBT. */
		xregs_fill(&self->g[i].regs, vcpu, 2 * i + 2);
	}
}

/* Run one AMX instruction of guest_nm_code(), and look at the MSRs meanwhile. */
static void expect_nm(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		      struct guest *g, enum amx amx)
{
	u64 err = amx_err(amx);

	th_case("%s", amx_names[amx]);
	g->amx = amx;
	xregs_run(vcpu);
	xarea_fill(g->area, 0, XF_BASE_SIZE);
	xarea_set_header(g->area, 0, XFEATURE_MASK_XTILE_DATA);
	EXPECT_SAME(XFEATURE_MASK_XTILE_DATA, vcpu_get_msr(vcpu, MSR_IA32_XFD),
		    "IA32_XFD as the host reads it");
	EXPECT_SAME(0, vcpu_get_msr(vcpu, MSR_IA32_XFD_ERR), "IA32_XFD_ERR before it");
	xregs_run(vcpu);

	EXPECT_SAME(err ? NM_VECTOR : 0, g->vector, "vector");
	EXPECT_SAME(err, g->xfd_err, "IA32_XFD_ERR as the guest reads it");
	EXPECT_SAME(0, g->cr0 & X86_CR0_TS, "CR0.TS");
	EXPECT_SAME(err, vcpu_get_msr(vcpu, MSR_IA32_XFD_ERR), "IA32_XFD_ERR as the host reads it");
	xregs_run(vcpu);
	EXPECT_SAME(err, g->kept_err, "IA32_XFD_ERR after an exit");
}

/*
 * Verify, for each AMX instruction, whether it raises #NM while bit 18 of XFD
 * is set, with the right IA32_XFD_ERR, which an exit does not change.
 */
TEST_F(xfd, nm)
{
	enum amx amx;

	for (amx = 0; amx < NR_AMX; amx++)
		expect_nm(_metadata, self->vcpus[0], self->g, amx);
}

/*
 * Verify that a guest which clears IA32_XFD in its handler gets #NM exactly
 * once, and that the instruction then does what it should.
 */
TEST_F(xfd, nm_once)
{
	struct kvm_vcpu *vcpu = self->vcpus[0];
	struct guest *g = self->g;
	u32 i;

	vcpu_arch_set_entry_point(vcpu, guest_lazy_code);
	vm_install_exception_handler(self->vm, NM_VECTOR, guest_nm_handler);
	xstate_run(vcpu, UCALL_DONE);
	EXPECT_SAME(1, g->nm_count, "how often TILELOADD raised #NM");
	EXPECT_SAME(XFEATURE_MASK_XTILE_DATA, g->xfd_err, "IA32_XFD_ERR in the handler");
	for (i = 0; i < ARRAY_SIZE(xfd_msrs); i++)
		EXPECT_SAME(0, vcpu_get_msr(vcpu, xfd_msrs[i]), "%s after the handler",
			    msr_name(xfd_msrs[i]));
}

/*
 * One round of guest_live_code(): all components but the one that @xfd disarms
 * hold what was loaded.  Tile data that was disarmed once may be gone or be there.
 */
static void expect_live(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			struct guest *g, u64 xfd, bool may_lose)
{
	u64 all = g->xcr0 | g->xss, kept = all & ~xfd, bv;

	th_case("vCPU %u with IA32_XFD %#lx", vcpu->id, xfd);
	g->xfd = xfd;
	xregs_run(vcpu);
	EXPECT_SAME(xfd, vcpu_get_msr(vcpu, MSR_IA32_XFD), "IA32_XFD");
	if (g->xss)
		EXPECT_SAME(g->regs.cet[0], vcpu_get_msr(vcpu, cet_msrs[0]),
			    "%s after a write of IA32_XFD", msr_name(cet_msrs[0]));
	xregs_run(vcpu);

	bv = xarea_header(g->area, 0);
	if (may_lose && !(bv & XFEATURE_MASK_XTILE_DATA))
		kept &= ~XFEATURE_MASK_XTILE_DATA;
	if (EXPECT_XFEATURES(kept, bv, "XSTATE_BV as the guest saves it"))
		expect_area(_metadata, g->area, &g->regs, kept, all | XCOMP_BV_COMPACTED,
			    "saved by the guest");
}

/*
 * Verify that a guest which switches AMX off and on, with CET, AVX-512 and
 * tiles in use, loses nothing but tile data, in exits to user space as well.
 */
TEST_F(xfd, toggle)
{
	u32 i;

	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	vcpu_arch_set_entry_point(self->vcpus[0], guest_live_code);
	/* One round that failed says enough. */
	for (i = 0; i < 8 && !_metadata->exit_code; i++)
		expect_live(_metadata, self->vcpus[0], &self->g[0],
			    i & 1 ? XFEATURE_MASK_XTILE_DATA : 0, i);
}

/*
 * Verify that two vCPUs on one thread, one with bit 18 of XFD set and one with
 * live tiles, each keep their own IA32_XFD and their own state.
 */
TEST_F(xfd, two_vcpus)
{
	u32 i;

	if (!kvm_cpu_has(X86_FEATURE_XSAVES))
		SKIP(return, "XSAVES is not in guest CPUID");
	vcpu_arch_set_entry_point(self->vcpus[0], guest_live_code);
	vcpu_arch_set_entry_point(self->vcpus[1], guest_live_code);
	for (i = 0; i < 16 && !_metadata->exit_code; i++)
		expect_live(_metadata, self->vcpus[i & 1], &self->g[i & 1],
			    i & 1 ? 0 : XFEATURE_MASK_XTILE_DATA, false);
}

/* Restore tiles while IA32_XFD disarms them: KVM drops them, and nothing else. */
static void expect_tiles_dropped(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
				 const struct guest *g)
{
	u8 *area;
	u32 i;

	/* IA32_XFD goes first: never after an image with tile data. */
	for (i = 0; i < ARRAY_SIZE(xfd_msrs); i++)
		EXPECT_THAT(vcpu_takes_msr(vcpu, xfd_msrs[i], XFEATURE_MASK_XTILE_DATA),
			    "KVM_SET_MSRS of bit 18 to %s: not taken", msr_name(xfd_msrs[i]));
	vcpu_set_xregs_area(_metadata, vcpu, &g->regs, g->xcr0);
	area = vcpu_area(vcpu);
	EXPECT_SAME(0, xarea_header(area, 0) & XFEATURE_MASK_XTILE_DATA,
		    "XSTATE_BV[18] of KVM_GET_XSAVE2 with IA32_XFD set");
	/* PKRU is shown only once the guest has run. */
	expect_area(_metadata, area, &g->regs,
		    g->xcr0 & ~(XFEATURE_MASK_XTILE_DATA | XFEATURE_MASK_PKRU), 0,
		    "the rest of that image");
}

/*
 * Verify that both MSRs move to another vCPU and reach its guest, and that tile
 * data restored while bit 18 is set is dropped without an error, never loaded.
 */
TEST_F(xfd, restore)
{
	struct kvm_vcpu *vcpu = self->vcpus[0];
	struct guest *g = self->g;
	u8 *area;
	u32 i;

	vcpu_arch_set_entry_point(vcpu, guest_read_code);
	expect_tiles_dropped(_metadata, vcpu, g);
	/* Kernels that keep the tile data panic as soon as they load it. */
	if (_metadata->exit_code)
		return;

	xregs_run(vcpu);
	for (i = 0; i < ARRAY_SIZE(xfd_msrs); i++)
		EXPECT_SAME(XFEATURE_MASK_XTILE_DATA, g->msrs[i], "%s as the guest reads it",
			    msr_name(xfd_msrs[i]));
	xregs_run(vcpu);
	area = vcpu_area(vcpu);
	EXPECT_SAME(0, xarea_header(area, 0) & XFEATURE_MASK_XTILE_DATA,
		    "XSTATE_BV[18] once IA32_XFD is 0, after KVM_SET_XSAVE dropped tile data");
	expect_area(_metadata, area, &g->regs, g->xcr0 & XFEATURE_MASK_XTILE_CFG, 0,
		    "the rest of that image");
}

/*
 * Verify that a #NM which comes with no exit after the change of IA32_XFD that
 * causes it leaves IA32_XFD_ERR for the host and the guest to read, and that a
 * vCPU which runs next on the same CPU has 0 there.
 */
TEST_F(xfd, err_is_own)
{
	struct kvm_vcpu *nm = self->vcpus[0], *watch = self->vcpus[1];
	struct guest *g = self->g;
	u32 i;

	vcpu_arch_set_entry_point(nm, guest_missing_code);
	for (i = 0; i < 4; i++) {
		th_case("round %u", i);
		xregs_run(nm);
		EXPECT_SAME(i ? XFEATURE_MASK_XTILE_DATA : 0, g[0].xfd_err,
			    "IA32_XFD_ERR as the guest reads it");
		EXPECT_SAME(0, vcpu_get_msr(nm, MSR_IA32_XFD_ERR),
			    "IA32_XFD_ERR cleared by the guest");
		xregs_run(nm);
		EXPECT_SAME(NM_VECTOR, g[0].vector, "vector of TILEZERO");
		EXPECT_SAME(XFEATURE_MASK_XTILE_DATA, vcpu_get_msr(nm, MSR_IA32_XFD_ERR),
			    "IA32_XFD_ERR after #NM");
		g[1].xfd_err = ~0ull;
		xregs_run(watch);
		EXPECT_SAME(0, g[1].xfd_err, "IA32_XFD_ERR as another guest reads it");
		EXPECT_SAME(0, vcpu_get_msr(watch, MSR_IA32_XFD_ERR),
			    "IA32_XFD_ERR of another vCPU");
		EXPECT_SAME(XFEATURE_MASK_XTILE_DATA, vcpu_get_msr(nm, MSR_IA32_XFD_ERR),
			    "IA32_XFD_ERR after another vCPU ran");
	}
}

XSTATE_HARNESS_MAIN
