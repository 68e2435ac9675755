/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest of 64 KiB in long mode that executes one XSAVES, and what it must
 * have written: the state that the host gave it. It takes a fraction of the time
 * that libkvm needs to set up a guest, for use in every combination.
 */
#ifndef SELFTEST_KVM_XSTATE_PAGE_GUEST_H
#define SELFTEST_KVM_XSTATE_PAGE_GUEST_H

#include "xstate_guest.h"
#include "xstate_vcpu.h"

/* The same addresses physical and virtual, above those of xcomp_guest.h */
#define PAGE_GUEST_BASE		0x100000
#define PAGE_GUEST_PML4		0x1000
#define PAGE_GUEST_PDPT		0x2000
#define PAGE_GUEST_PD		0x3000
#define PAGE_GUEST_CODE		0x4000
#define PAGE_GUEST_AREA		0x8000
#define PAGE_GUEST_SIZE		0x10000

struct page_guest {
	struct kvm_run *run;
	u8 *memory;
};

/* Page tables with one large page, and the code */
static inline void page_guest_fill(u8 *memory)
{
	/* xsaves64 (%rdi); hlt */
	static const u8 code[] = { 0x48, 0x0f, 0xc7, 0x2f, 0xf4 };

	*(u64 *)(memory + PAGE_GUEST_PML4) = (PAGE_GUEST_BASE + PAGE_GUEST_PDPT) | 3;
	*(u64 *)(memory + PAGE_GUEST_PDPT) = (PAGE_GUEST_BASE + PAGE_GUEST_PD) | 3;
	*(u64 *)(memory + PAGE_GUEST_PD) = 0x83;
	xarea_copy(memory + PAGE_GUEST_CODE, code, sizeof(code));
	xarea_fill(memory + PAGE_GUEST_AREA, XAREA_POISON, XAREA_SIZE);
	xarea_set_header(memory + PAGE_GUEST_AREA, 0, 0);
}

/* Put the vCPU into long mode, right before the code. */
static inline bool page_guest_long_mode(int vcpu)
{
	struct kvm_segment segment = {
		.limit = ~0u, .present = 1, .s = 1, .g = 1,
	};
	struct kvm_regs regs = {
		.rip = PAGE_GUEST_BASE + PAGE_GUEST_CODE,
		.rdi = PAGE_GUEST_BASE + PAGE_GUEST_AREA,
		.rax = ~0u, .rdx = ~0u, .rflags = 2,
	};
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return false;
	sregs.cr0 |= X86_CR0_PE | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
	sregs.cr0 &= ~(X86_CR0_CD | X86_CR0_NW | X86_CR0_TS | X86_CR0_EM);
	sregs.cr3 = PAGE_GUEST_BASE + PAGE_GUEST_PML4;
	sregs.cr4 |= X86_CR4_PAE | X86_CR4_OSXSAVE;
	sregs.efer |= EFER_LME | EFER_LMA;
	segment.selector = 16;
	segment.type = 3;
	segment.db = 1;
	sregs.ds = segment;
	sregs.es = segment;
	sregs.fs = segment;
	sregs.gs = segment;
	sregs.ss = segment;
	segment.selector = 8;
	segment.type = 11;
	segment.db = 0;
	segment.l = 1;
	sregs.cs = segment;
	return !ioctl(vcpu, KVM_SET_SREGS, &sregs) &&
	       !ioctl(vcpu, KVM_SET_REGS, &regs);
}

static inline bool page_guest_start(struct xcomp *x, struct page_guest *g)
{
	struct kvm_userspace_memory_region region = {
		.slot = 1,
		.guest_phys_addr = PAGE_GUEST_BASE,
		.memory_size = PAGE_GUEST_SIZE,
	};

	g->memory = mmap(NULL, PAGE_GUEST_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	g->run = mmap(NULL, ioctl(x->kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
		      PROT_READ | PROT_WRITE, MAP_SHARED, x->vcpu, 0);
	if (g->memory == MAP_FAILED || g->run == MAP_FAILED)
		return false;
	page_guest_fill(g->memory);
	region.userspace_addr = (unsigned long)g->memory;
	return !ioctl(x->vm, KVM_SET_USER_MEMORY_REGION, &region) &&
	       page_guest_long_mode(x->vcpu);
}

/* Values for all registers of the combination, those that it lacks being 0 */
static inline void page_guest_values(struct xcomp *x, struct xregs *r, u32 seed)
{
	xregs_fill(r, seed);
	if (!x->shstk_on) {
		xarea_fill(r->cet_user, 0, sizeof(r->cet_user));
		xarea_fill(r->cet_kernel, 0, sizeof(r->cet_kernel));
	}
	if (x->ibt_on)
		r->cet_user[0] |= XCOMP_CET_NO_TRACK_EN;
}

/* The registers that carry the components of CET, and IA32_XSS */
static inline u32 page_guest_msrs(struct xcomp *x, const struct xregs *r,
				  struct kvm_msr_entry *e)
{
	const struct kvm_msr_entry all[] = {
		{ .index = XF_MSR_U_CET, .data = r->cet_user[0] },
		{ .index = XF_MSR_PL3_SSP, .data = r->cet_user[1] },
		{ .index = XF_MSR_PL0_SSP, .data = r->cet_kernel[0] },
		{ .index = XF_MSR_PL1_SSP, .data = r->cet_kernel[1] },
		{ .index = XF_MSR_PL2_SSP, .data = r->cet_kernel[2] },
	};
	u32 i, nr = 0;

	for (i = 0; i < ARRAY_SIZE(all); i++)
		if (xcomp_has_msr(x, all[i].index))
			e[nr++] = all[i];
	if (xcomp_guest_xss(x)) {
		e[nr].index = XF_MSR_XSS;
		e[nr++].data = xcomp_guest_xss(x);
	}
	return nr;
}

/* An image for KVM_SET_XSAVE with all components that XCR0 may have */
static inline u8 *page_guest_image(struct xcomp *x, const struct xregs *r)
{
	u8 *image = xf_guarded(XAREA_SIZE, 0);

	xarea_put(image, r, xregs_mask(xcomp_guest_xcr0(x)), 0);
	return image;
}

/* Whether the vCPU takes @image, the MSRs of @r, and all that XCR0 may have */
static inline bool page_guest_load(struct xcomp *x, const struct xregs *r,
				   const u8 *image)
{
	struct kvm_msr_entry e[XKVM_MAX_MSRS] = { };
	u32 nr = page_guest_msrs(x, r, e);
	bool ok;

	ok = xcomp_same_errno(x, "KVM_SET_XSAVE", 0,
			      ioctl(x->vcpu, KVM_SET_XSAVE, image) ? errno : 0);
	ok &= xcomp_same(x, "XCR0 taken", true,
			 xkvm_set_xcr0(x->vcpu,
				       xregs_mask(xcomp_guest_xcr0(x))));
	return ok & xcomp_same(x, "MSRs taken", nr,
			       nr ? xkvm_set_msrs(x->vcpu, e, nr) : 0);
}

/* Whether the host finds in the vCPU all of @r */
static inline bool page_guest_kept(struct xcomp *x, const struct xregs *r,
				   const char *what)
{
	struct kvm_msr_entry e[XKVM_MAX_MSRS] = { };
	u64 xcr0 = xregs_mask(xcomp_guest_xcr0(x));
	u8 *image = xf_guarded(XAREA_SIZE, 0);
	u32 i, nr = page_guest_msrs(x, r, e);
	u64 value;
	bool ok;

	ok = xcomp_same_errno(x, "KVM_GET_XSAVE2", 0,
			      ioctl(x->vcpu, KVM_GET_XSAVE2, image) ? errno : 0);
	ok &= xarea_has(what, image, r, xcr0, 0);
	for (i = 0; i < nr; i++) {
		ok &= xkvm_get_msr(x->vcpu, e[i].index, &value);
		ok &= xf_msr_kept(x->name, e[i].index, what, e[i].data, value);
	}
	return ok;
}

/* Run the guest and judge, byte by byte, the area that it has saved to. */
static inline bool page_guest_saves(struct xcomp *x, struct page_guest *g,
				    const struct xregs *r)
{
	u64 all = xregs_mask(xcomp_guest_xcr0(x) | xcomp_guest_xss(x));
	u8 *area = g->memory + PAGE_GUEST_AREA;
	u64 in_use = all;
	bool ok = true;

	/* Of a component without any register nothing can be in use. */
	if (!xcomp_has_msr(x, XF_MSR_U_CET))
		in_use &= ~XF_BIT(XF_CET_USER);
	if (!xcomp_has_msr(x, XF_MSR_PL0_SSP))
		in_use &= ~XF_BIT(XF_CET_KERNEL);
	if (ioctl(x->vcpu, KVM_RUN, 0) ||
	    g->run->exit_reason != KVM_EXIT_HLT) {
		ksft_print_msg("%s: wanted the guest to halt, got exit reason %u\n",
			       x->name, g->run->exit_reason);
		return false;
	}
	ok &= xarea_same(x->name, "XSTATE_BV of XSAVES", in_use,
			 xarea_header(area, 0));
	ok &= xarea_same(x->name, "XCOMP_BV of XSAVES", all | XF_COMPACTED,
			 xarea_header(area, 1));
	ok &= xarea_has(x->name, area, r, in_use, all | XF_COMPACTED);
	return ok && rest_kept(x->name, area, in_use, all | XF_COMPACTED);
}

#endif /* SELFTEST_KVM_XSTATE_PAGE_GUEST_H */
