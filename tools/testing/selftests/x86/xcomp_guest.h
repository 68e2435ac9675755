/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest of one page that executes one RDMSR or WRMSR for each KVM_RUN, and a
 * check with it. It takes a fraction of the time that the library of the KVM
 * selftests needs to set up a guest, and runs on every kernel.
 */
#ifndef SELFTESTS_X86_XCOMP_GUEST_H
#define SELFTESTS_X86_XCOMP_GUEST_H

#include "xcomp_vcpu.h"

#define XCOMP_GUEST_IVT_GP	(13 * 4)
#define XCOMP_GUEST_RDMSR	0x500
#define XCOMP_GUEST_WRMSR	0x510
#define XCOMP_GUEST_FAULT	0x520
#define XCOMP_GUEST_STACK	0x800

#define XCOMP_GUEST_HLT		0xf4

struct xcomp_guest {
	int vcpu;
	struct kvm_run *run;
	uint8_t *memory;
};

/*
 * The guest runs in real mode, where no page table and no descriptor is
 * needed: an instruction and a HLT after it, and a HLT for #GP to end at.
 */
static inline void xcomp_guest_code(uint8_t *page)
{
	static const uint8_t rdmsr[] = { 0x0f, 0x32, XCOMP_GUEST_HLT };
	static const uint8_t wrmsr[] = { 0x0f, 0x30, XCOMP_GUEST_HLT };
	static const uint16_t vector[] = { XCOMP_GUEST_FAULT, 0 };

	memcpy(page + XCOMP_GUEST_IVT_GP, vector, sizeof(vector));
	memcpy(page + XCOMP_GUEST_RDMSR, rdmsr, sizeof(rdmsr));
	memcpy(page + XCOMP_GUEST_WRMSR, wrmsr, sizeof(wrmsr));
	page[XCOMP_GUEST_FAULT] = XCOMP_GUEST_HLT;
}

/* Give the combination's VM its page and its vCPU a code segment at 0. */
static inline bool xcomp_guest_start(struct xcomp *x, struct xcomp_guest *g)
{
	size_t page = sysconf(_SC_PAGESIZE);
	struct kvm_userspace_memory_region region = { .memory_size = page };
	struct kvm_sregs sregs;
	uint8_t *memory;

	memory = mmap(NULL, page, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	g->run = mmap(NULL, ioctl(x->kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
		      PROT_READ | PROT_WRITE, MAP_SHARED, x->vcpu, 0);
	if (memory == MAP_FAILED || g->run == MAP_FAILED)
		return false;

	g->vcpu = x->vcpu;
	g->memory = memory;
	xcomp_guest_code(memory);
	region.userspace_addr = (unsigned long)memory;
	if (ioctl(x->vm, KVM_SET_USER_MEMORY_REGION, &region) ||
	    ioctl(g->vcpu, KVM_GET_SREGS, &sregs))
		return false;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	return !ioctl(g->vcpu, KVM_SET_SREGS, &sregs);
}

/* State with one tile of AMX that is not empty, which is at @tile */
static inline uint8_t *xcomp_tile_state(struct xcomp *x, uint8_t **tile)
{
	const uint64_t bv = XF_FPSSE | XF_XTILE;
	const uint32_t mxcsr = 0x1f80;
	uint8_t *buf = xf_guarded(xcomp_xsave_size(x), 0);
	uint8_t *config = buf + xf_cpuid(0xd, XF_XTILE_CFG).ebx;

	memcpy(buf + 24, &mxcsr, sizeof(mxcsr));
	memcpy(buf + XF_HEADER_OFFSET, &bv, sizeof(bv));
	/* Palette 1, tile 0 has 16 rows of 64 bytes. */
	config[0] = 1;
	config[16] = 64;
	config[48] = 16;
	*tile = buf + xf_cpuid(0xd, XF_XTILE_DATA).ebx;
	memset(*tile, 0x5c, 16 * 64);
	return buf;
}

/* What became of one instruction */
enum xcomp_guest_result { XCOMP_GUEST_DONE, XCOMP_GUEST_GP, XCOMP_GUEST_LOST };

static inline enum xcomp_guest_result
xcomp_guest_step(struct xcomp *x, struct xcomp_guest *g, uint32_t code,
		 uint32_t msr, uint64_t *value)
{
	struct kvm_regs regs = {
		.rip = code, .rcx = msr, .rax = (uint32_t)*value,
		.rdx = *value >> 32, .rsp = XCOMP_GUEST_STACK, .rflags = 2,
	};

	if (ioctl(g->vcpu, KVM_SET_REGS, &regs) ||
	    ioctl(g->vcpu, KVM_RUN, 0) ||
	    ioctl(g->vcpu, KVM_GET_REGS, &regs)) {
		xcomp_error(x, "KVM_RUN");
		return XCOMP_GUEST_LOST;
	}
	if (g->run->exit_reason == KVM_EXIT_HLT && regs.rip == code + 3) {
		*value = regs.rdx << 32 | (uint32_t)regs.rax;
		return XCOMP_GUEST_DONE;
	}
	if (g->run->exit_reason == KVM_EXIT_HLT &&
	    regs.rip == XCOMP_GUEST_FAULT + 1)
		return XCOMP_GUEST_GP;

	ksft_print_msg("%s: the guest stopped at %#llx, exit reason %u\n",
		       x->name, regs.rip, g->run->exit_reason);
	return XCOMP_GUEST_LOST;
}

static inline enum xcomp_guest_result
xcomp_guest_rdmsr(struct xcomp *x, struct xcomp_guest *g, uint32_t msr,
		  uint64_t *value)
{
	*value = 0;
	return xcomp_guest_step(x, g, XCOMP_GUEST_RDMSR, msr, value);
}

static inline enum xcomp_guest_result
xcomp_guest_wrmsr(struct xcomp *x, struct xcomp_guest *g, uint32_t msr,
		  uint64_t value)
{
	return xcomp_guest_step(x, g, XCOMP_GUEST_WRMSR, msr, &value);
}

/* The guest reads what the host wrote, or gets #GP, and writes a new value. */
static inline bool xcomp_guest_first(struct xcomp *x, struct xcomp_guest *g,
				     uint32_t msr)
{
	bool present = xcomp_has_msr(x, msr), ok;
	uint64_t value;

	ok = xcomp_same(x, xf_msr_name(msr),
			present ? XCOMP_GUEST_DONE : XCOMP_GUEST_GP,
			xcomp_guest_rdmsr(x, g, msr, &value));
	if (ok && present)
		ok &= xf_msr_kept(x->name, msr,
				  "KVM_SET_MSRS, as the guest reads it",
				  xcomp_msr_value(x, msr, 0), value);
	return ok & xcomp_same(x, xf_msr_name(msr),
			       present ? XCOMP_GUEST_DONE : XCOMP_GUEST_GP,
			       xcomp_guest_wrmsr(x, g, msr,
						 xcomp_msr_value(x, msr, 1)));
}

/* After more runs of the guest, it and the host still read that new value. */
static inline bool xcomp_guest_second(struct xcomp *x, struct xcomp_guest *g,
				      uint32_t msr)
{
	uint64_t wanted = xcomp_msr_value(x, msr, 1), value = 0;
	bool ok;

	if (!xcomp_has_msr(x, msr))
		return true;
	ok = xcomp_guest_rdmsr(x, g, msr, &value) == XCOMP_GUEST_DONE;
	ok &= xf_msr_kept(x->name, msr, "KVM_RUN, as the guest reads it",
			  wanted, value);
	ok &= xkvm_get_msr(x->vcpu, msr, &value);
	return ok & xf_msr_kept(x->name, msr,
				"KVM_RUN of a guest that wrote it", wanted,
				value);
}

/* The guest may set CET in IA32_XSS if its CPUID says so, and PASID never. */
static inline bool xcomp_guest_xss_bits(struct xcomp *x, struct xcomp_guest *g)
{
	uint64_t value, wanted = xcomp_guest_xss(x);
	bool ok = true;
	int i;

	if (!(xkvm_cpuid(x->cpuid, 0xd, 1).eax & XCOMP_CPUID_D_1_EAX_XSAVES))
		return true;
	for (i = 0; i < 64; i++)
		ok &= xcomp_same(x, "IA32_XSS, one bit written by the guest",
				 wanted & XF_BIT(i) ? XCOMP_GUEST_DONE :
						      XCOMP_GUEST_GP,
				 xcomp_guest_wrmsr(x, g, XF_MSR_XSS,
						   XF_BIT(i)));
	ok &= xcomp_guest_wrmsr(x, g, XF_MSR_XSS, wanted) == XCOMP_GUEST_DONE;
	ok &= xcomp_guest_rdmsr(x, g, XF_MSR_XSS, &value) == XCOMP_GUEST_DONE;
	return ok & xf_msr_kept(x->name, XF_MSR_XSS, "KVM_RUN", wanted, value);
}

/* Why this machine cannot run the guest, NULL if it can */
static inline const char *xcomp_guest_missing(void)
{
	if (!xkvm_refuses_msrs())
		return "ignore_msrs hides what is refused";
	if (!xkvm_runs_guests())
		return "guests run without VMX or SVM";
	if (xf_param("kvm_intel", "unrestricted_guest") == 'N')
		return "no unrestricted guest";
	return NULL;
}

/*
 * Verify, by a guest that runs, that it finds in the CET MSRs what the host
 * wrote, that what it writes outlives an exit and reaches the host, that MSRs
 * not in its CPUID raise #GP, and that IA32_XSS takes CET but never PASID.
 */
static inline int xcomp_check_guest_msrs(struct xcomp *x)
{
	int result = xcomp_vcpu(x);
	struct xcomp_guest g;
	unsigned int i;
	bool ok;

	if (result)
		return result;
	if (xcomp_guest_missing())
		return xcomp_skip(x, xcomp_guest_missing());
	if (!xcomp_guest_start(x, &g))
		return xcomp_error(x, "setting up a guest");

	ok = xcomp_write_msrs(x);
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++)
		ok &= xcomp_guest_first(x, &g, xcomp_cet_msrs[i]);
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++)
		ok &= xcomp_guest_second(x, &g, xcomp_cet_msrs[i]);
	ok &= xcomp_guest_xss_bits(x, &g);
	return xcomp_verdict(ok);
}

#endif /* SELFTESTS_X86_XCOMP_GUEST_H */
