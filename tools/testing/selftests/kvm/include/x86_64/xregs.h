/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One model of the registers of a guest that state components carry, and of
 * those that belong to the same features but are kept elsewhere: known values,
 * how the host and the guest load them, where an XSAVE area must hold them, and
 * a comparison that names component, offset and both bytes.
 *
 * All values depend on a seed, so that no two vCPUs hold the same, and none of
 * them does harm should it end up in the host's registers.
 */
#ifndef SELFTEST_KVM_XREGS_H
#define SELFTEST_KVM_XREGS_H

#include "xstate.h"

/* Larger than any area, or xstate_require() skips all */
#define XAREA_SIZE		16384
#define XAREA_POISON		0xa5

/* Offsets in an XSAVE area: SDM, "Legacy Region of an XSAVE Area" and after it */
#define XAREA_FCW		0
#define XAREA_MXCSR		24
#define XAREA_ST		32
#define XAREA_XMM		160

#define FCW_INIT		0x37f
#define MXCSR_INIT		0x1f80

/* Bit 63 of XCOMP_BV */
#define XCOMP_BV_COMPACTED	BIT_ULL(63)

/* What no interface to user space ever shows: supervisor components, flags */
#define XFEATURE_MASK_HIDDEN	(XFEATURE_MASK_PASID | XFEATURE_MASK_CET |		\
				 XFEATURE_MASK_LBR | BIT_ULL(63))

/* The components that struct xregs has values for */
#define XREGS_USER		(XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM |		\
				 XFEATURE_MASK_AVX512 | XFEATURE_MASK_PKRU |		\
				 XFEATURE_MASK_XTILE)
#define XREGS_ALL		(XREGS_USER | XFEATURE_MASK_CET)

/* What AMX has room for: eight tiles of 16 rows of 64 bytes */
#define XREGS_TILES		8
#define XREGS_TILE_ROWS		16
#define XREGS_TILE_ROW		64
#define XREGS_TILE_SIZE		(XREGS_TILE_ROWS * XREGS_TILE_ROW)
#define XREGS_TILECFG_SIZE	64

/* Bits of IA32_U_CET and IA32_S_CET that do nothing on their own */
#define CET_WRSS_EN		BIT_ULL(1)
#define CET_NO_TRACK_EN		BIT_ULL(4)
#define CET_SUPPRESS_DISABLE	BIT_ULL(5)

/* The order of cet_msrs[] and of xregs.cet[] */
enum { I_U_CET, I_S_CET, I_PL0, I_PL1, I_PL2, I_PL3, I_TAB, NR_CET_MSRS };

extern const u32 cet_msrs[NR_CET_MSRS];
int cet_msr_component(u32 msr);

struct xregs {
	u8 st[8][16];
	u8 zmm[32][64];
	u64 k[8];
	u32 pkru;
	u32 mxcsr;
	u16 fcw;
	u16 fsw;			/* what is left of it after eight FLDs: 0 */
	u8 ftw;				/* no x87 register is empty */
	u64 cet[NR_CET_MSRS];		/* 0 where the vCPU has none */
	u64 ssp;
	u8 tilecfg[XREGS_TILECFG_SIZE] __aligned(64);
	u8 tile[XREGS_TILES][XREGS_TILE_SIZE] __aligned(64);
};

/* ---- values ---- */

void xregs_fill(struct xregs *r, struct kvm_vcpu *vcpu, u32 seed);
/* The one of a CET MSR that the vCPU has */
u64 cet_msr_value(struct kvm_vcpu *vcpu, u32 msr, u32 seed);
/* Below 4 GiB: a higher one is invalid outside of long mode. */
static inline u64 ssp_value(u32 seed) { return 0x10002000 + seed * 8; }

/* Those components of @mask that struct xregs has values for */
static inline u64 xregs_mask(u64 mask) { return mask & XREGS_ALL; }
u64 xregs_guest_mask(struct kvm_vcpu *vcpu);

/* ---- areas ---- */

void xarea_fill(void *to, u8 value, size_t size);
void xarea_copy(void *to, const void *from, size_t size);
size_t xarea_differ(const u8 *a, const u8 *b, size_t size);
u32 xarea_offset(u64 format, int nr);
/* Word @word of the XSAVE header: 0 is XSTATE_BV, 1 is XCOMP_BV */
u64 xarea_header(const u8 *area, int word);
void xarea_set_header(u8 *area, int word, u64 value);
void xregs_into_area(const struct xregs *r, u8 *area, u64 bv, u64 format);
void xregs_to_area(const struct xregs *r, u8 *area, u64 bv, u64 format);
void expect_area(struct __test_metadata *const _metadata, const u8 *area,
		 const struct xregs *r, u64 mask, u64 format, const char *when);
void expect_poison(struct __test_metadata *const _metadata, u8 *area, u64 bv, u64 format,
		   const char *when);
bool xarea_same_component(const u8 *a, const u8 *b, int nr);
void expect_same_area(struct __test_metadata *const _metadata, const u8 *wanted, const u8 *got,
		      size_t size, const char *when);

/* ---- the host's side of a vCPU ---- */

void vcpu_set_xregs(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		    const struct xregs *r, u64 mask);
void vcpu_set_xregs_area(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			 const struct xregs *r, u64 mask);
void vcpu_set_cet(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		  const struct xregs *r);
u8 *vcpu_area(struct kvm_vcpu *vcpu);
u8 *vcpu_area_with_pkru(struct kvm_vcpu *vcpu);
void expect_xregs(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		  const struct xregs *r, u64 mask, const char *when);
void expect_cet(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		const struct xregs *r, const char *when);
void expect_kept_elsewhere(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			   const struct xregs *r, const char *when);
bool vcpu_holds_cet(struct kvm_vcpu *vcpu, const struct xregs *in, const struct xregs *out);
void expect_no_cet(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		   const char *when);
void vcpu_sort_xregs(struct kvm_vcpu *vcpu, const struct xregs *r, u64 mask, u64 *kept,
		     u64 *initial);
u64 vcpu_sorted(struct kvm_vcpu *vcpu, u64 mask);
void use_kernel_fpu(void);

/* ---- instructions, for guest and host ---- */

INTEGER_ONLY void xregs_wrpkru(u32 pkru);
INTEGER_ONLY u32 xregs_rdpkru(void);
void guest_enable_xstate(u64 xcr0);
INTEGER_ONLY void guest_load_xregs(const struct xregs *r, u64 mask);

/* Palette 1 with all tiles at their full size, in XREGS_TILECFG_SIZE bytes */
void tile_config(u8 *config);
INTEGER_ONLY void tile_load_config(const u8 *config);
INTEGER_ONLY void tile_store_config(u8 *config);
INTEGER_ONLY void tile_load(const u8 *tiles);
INTEGER_ONLY void tile_store(u8 *tiles);
INTEGER_ONLY void tile_release(void);
void guest_expect_tiles(const struct xregs *r, const char *when);

/* The guest leaves at this port with all registers loaded. */
#define XREGS_EXIT_PORT		0x1c0
INTEGER_ONLY void guest_leave(void);
void xregs_run(struct kvm_vcpu *vcpu);
bool xregs_xsetbv_exits(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			const u64 *read);
bool xregs_need_xsetbv_exit(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			    const u64 *read);
bool xregs_any_xsetbv_exits(struct __test_metadata *const _metadata);
bool xregs_cpu_of_software(void);

#endif /* SELFTEST_KVM_XREGS_H */
