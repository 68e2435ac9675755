/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All AMX, CET and XSAVE state of a vCPU, as VMMs save and restore it: made up
 * by the test, read from a vCPU, or written to one step by step.
 */
#ifndef SELFTEST_KVM_XSTATE_SNAPSHOT_H
#define SELFTEST_KVM_XSTATE_SNAPSHOT_H

#include "xstate_guest.h"
#include "xstate_util.h"

#define XFD_TILE	XF_BIT(XF_XTILE_DATA)

enum step { STEP_XSAVE, STEP_XCRS, STEP_MSRS, STEP_REG, NR_STEPS };

static const char * const step_names[] = {
	"KVM_SET_XSAVE", "KVM_SET_XCRS", "KVM_SET_MSRS", "KVM_SET_ONE_REG",
};

/* All that is saved of a vCPU; lies in memory that processes share */
struct snapshot {
	u64 xcr0, ssp, bv;
	u32 nr_msrs;
	bool has_ssp;
	struct kvm_msr_entry msrs[XKVM_MAX_MSRS];
	u8 image[XAREA_SIZE];
};

static inline struct snapshot *new_snapshot(void)
{
	struct snapshot *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(s != MAP_FAILED, "mmap() failed: %s", strerror(errno));
	return s;
}

static inline void add_msr(struct snapshot *s, u32 index, u64 value)
{
	s->msrs[s->nr_msrs].index = index;
	s->msrs[s->nr_msrs++].data = value;
}

/* What the vCPU of a combination should hold, by our own account */
static inline void make_snapshot(struct xcomp *x, struct snapshot *s, u32 seed,
				 u64 xfd)
{
	struct xregs regs;
	unsigned int i;

	xregs_fill(&regs, seed);
	s->xcr0 = xcomp_guest_xcr0(x);
	s->bv = xregs_mask(s->xcr0) & ~xfd;
	xarea_put(s->image, &regs, s->bv, 0);
	for (i = 0; i < ARRAY_SIZE(xcomp_cet_msrs); i++)
		if (xcomp_has_msr(x, xcomp_cet_msrs[i]))
			add_msr(s, xcomp_cet_msrs[i],
				xstate_msr_value(x, xcomp_cet_msrs[i], seed));
	if (xcomp_guest_xss(x))
		add_msr(s, XF_MSR_XSS, xcomp_guest_xss(x));
	if (x->amx_on) {
		add_msr(s, MSR_IA32_XFD, xfd);
		add_msr(s, MSR_IA32_XFD_ERR, xfd);
	}
	s->has_ssp = x->shstk_on;
	s->ssp = xstate_ssp_value(seed);
}

/* 0 or the errno of one ioctl; EINVAL for an MSR that is not taken */
static inline int do_step(struct xcomp *x, struct snapshot *s, enum step step)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = s->xcr0 };

	switch (step) {
	case STEP_XSAVE:
		return ioctl(x->vcpu, KVM_SET_XSAVE, s->image) ? errno : 0;
	case STEP_XCRS:
		return ioctl(x->vcpu, KVM_SET_XCRS, &xcrs) ? errno : 0;
	case STEP_MSRS:
		if (!s->nr_msrs)
			return 0;
		return xkvm_set_msrs(x->vcpu, s->msrs, s->nr_msrs) ==
		       (int)s->nr_msrs ? 0 : EINVAL;
	default:
		if (!s->has_ssp)
			return 0;
		return xkvm_one_reg(x->vcpu, KVM_SET_ONE_REG,
				    XKVM_REG_GUEST_SSP, &s->ssp);
	}
}

/* Read from the vCPU what @like lists. */
static inline void save(struct xcomp *x, const struct snapshot *like,
			struct snapshot *s)
{
	struct kvm_xcrs xcrs;

	xarea_copy(s, like, sizeof(*s));
	xarea_fill(s->image, 0, sizeof(s->image));
	TEST_ASSERT(!ioctl(x->vcpu, KVM_GET_XSAVE2, s->image),
		    "KVM_GET_XSAVE2: wanted success got %s", strerror(errno));
	s->bv = xarea_header(s->image, 0);
	TEST_ASSERT(!ioctl(x->vcpu, KVM_GET_XCRS, &xcrs),
		    "KVM_GET_XCRS: wanted success got %s", strerror(errno));
	s->xcr0 = xcrs.xcrs[0].value;
	TEST_ASSERT(!s->nr_msrs || xkvm_get_msrs(x->vcpu, s->msrs, s->nr_msrs) ==
		    (int)s->nr_msrs, "KVM_GET_MSRS: wanted %u MSRs", s->nr_msrs);
	TEST_ASSERT(!s->has_ssp ||
		    !xkvm_one_reg(x->vcpu, KVM_GET_ONE_REG, XKVM_REG_GUEST_SSP,
				  &s->ssp), "KVM_GET_ONE_REG: wanted success");
}

/* Compare the components of @mask; those absent from XSTATE_BV count as 0. */
static inline bool same_image(const char *what, const struct snapshot *got,
			      const struct snapshot *wanted, u64 mask)
{
	bool same, ok = true;
	struct xf_regs r;
	int i;

	/* XSTATE_BV[9] is that of the host once the guest FPU was loaded. */
	ok &= xarea_same(what, "XSTATE_BV", wanted->bv & mask & ~XF_BIT(XF_PKRU),
			 got->bv & mask & ~XF_BIT(XF_PKRU));
	for (i = 0; i < 63 && ok; i++) {
		if (!(wanted->bv & mask & XF_BIT(i)))
			continue;
		r = xf_cpuid(0xd, i);
		if (i < XF_YMM || i == XF_PKRU)
			same = xstate_same_component(got->image, wanted->image,
						     i);
		else
			same = xarea_differ(got->image + r.ebx,
					    wanted->image + r.ebx,
					    r.eax) == r.eax;
		if (!same)
			ksft_print_msg("%s: component %d is not what was saved\n",
				       what, i);
		ok &= same;
	}
	return ok;
}

/* Whether the vCPU holds all of @wanted, of the XSAVE image only @mask */
static inline bool holds(struct xcomp *x, const char *what,
			 const struct snapshot *wanted, u64 mask)
{
	struct snapshot *got = new_snapshot();
	bool ok = true;
	u32 i;

	save(x, wanted, got);
	ok &= same_image(what, got, wanted, mask);
	ok &= xarea_same(what, "XCR0", wanted->xcr0, got->xcr0);
	for (i = 0; i < wanted->nr_msrs; i++)
		if (wanted->msrs[i].data != got->msrs[i].data) {
			ksft_print_msg("%s: MSR %#x, %s: wanted %#llx got %#llx\n",
				       what, wanted->msrs[i].index,
				       xf_msr_name(wanted->msrs[i].index),
				       wanted->msrs[i].data, got->msrs[i].data);
			ok = false;
		}
	if (wanted->has_ssp)
		ok &= xarea_same(what, "SSP", wanted->ssp, got->ssp);
	munmap(got, sizeof(*got));
	return ok;
}

/* A vCPU that has no CPUID yet */
static inline void add_bare_vcpu(struct xcomp *x, struct kvm_vm *vm, int id)
{
	x->vm = vm->fd;
	x->vcpu = __vm_vcpu_add(vm, id)->fd;
}

/* The CPUID of the combination, as it was first given to another vCPU */
static inline bool cpuid_taken(struct xcomp *x, const char *what)
{
	return xarea_same(what, "KVM_SET_CPUID2", 0,
			  ioctl(x->vcpu, KVM_SET_CPUID2, x->cpuid) ? errno : 0);
}

/* Why a vCPU of the combination cannot be had here, NULL if it can */
static inline const char *missing(const struct xcomp *x, bool need_cet)
{
	if (x->amx && !x->have_amx)
		return "no AMX on this machine";
	if (need_cet && x->shstk && !x->shstk_on)
		return "KVM offers no guest CET";
	if (need_cet && x->ibt && !x->shstk && !x->ibt_on)
		return "KVM offers no guest IBT";
	return NULL;
}

#endif /* SELFTEST_KVM_XSTATE_SNAPSHOT_H */
