/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KVM by plain ioctls, for what needs no guest memory: capabilities, CPUID,
 * MSRs, XSAVE areas, and a KVM_RUN that never enters the guest.
 */
#ifndef SELFTESTS_X86_XCOMP_KVM_H
#define SELFTESTS_X86_XCOMP_KVM_H

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "xfeature.h"

/* KVM_GET_XSAVE and the smallest KVM_GET_XSAVE2 */
#define XKVM_XSAVE_SIZE		4096

#define XKVM_MAX_CPUID		256
#define XKVM_MAX_MSRS		16

#ifndef KVM_CAP_XSAVE2
#define KVM_CAP_XSAVE2		208
#endif
#ifndef KVM_CAP_USER_MEMORY2
#define KVM_CAP_USER_MEMORY2	231
#endif
#ifndef KVM_GET_XSAVE2
#define KVM_GET_XSAVE2		_IOR(KVMIO, 0xcf, struct kvm_xsave)
#endif
#ifndef KVM_X86_XCOMP_GUEST_SUPP
#define KVM_X86_XCOMP_GUEST_SUPP	0
#endif

/* The guest's shadow stack pointer is no MSR but a "KVM register". */
#define XKVM_REG_GUEST_SSP	0x2030000300000000ull

static inline const char *xkvm_absent(void)
{
	if (errno == EACCES || errno == EPERM)
		return "no permission to use /dev/kvm";
	return "no /dev/kvm";
}

static inline int xkvm_open(void)
{
	return open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

static inline int xkvm_cap(int fd, unsigned long cap)
{
	return ioctl(fd, KVM_CHECK_EXTENSION, cap);
}

/* Attribute @nr in @group of /dev/kvm */
static inline int xkvm_attr(int kvm, uint32_t group, uint64_t nr,
			    uint64_t *value)
{
	struct kvm_device_attr attr = {
		.group = group,
		.attr = nr,
		.addr = (unsigned long)value,
	};

	return ioctl(kvm, KVM_GET_DEVICE_ATTR, &attr);
}

/* Whether KVM says that it has the attribute; 0 or -1 and errno */
static inline int xkvm_has_attr(int kvm, uint32_t group, uint64_t nr)
{
	struct kvm_device_attr attr = { .group = group, .attr = nr };

	return ioctl(kvm, KVM_HAS_DEVICE_ATTR, &attr);
}

/* KVM_X86_XCOMP_GUEST_SUPP of /dev/kvm */
static inline int xkvm_guest_supp(int kvm, uint64_t *mask)
{
	return xkvm_attr(kvm, 0, KVM_X86_XCOMP_GUEST_SUPP, mask);
}

static inline struct kvm_cpuid2 *xkvm_alloc_cpuid(void)
{
	struct kvm_cpuid2 *c;

	c = calloc(1, sizeof(*c) + XKVM_MAX_CPUID * sizeof(c->entries[0]));
	if (!c)
		ksft_exit_fail_perror("cannot allocate CPUID entries");
	c->nent = XKVM_MAX_CPUID;
	return c;
}

/* CPUID as KVM offers it to the calling process; NULL if that fails */
static inline struct kvm_cpuid2 *xkvm_supported_cpuid(int kvm)
{
	struct kvm_cpuid2 *c = xkvm_alloc_cpuid();

	if (!ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c))
		return c;
	free(c);
	return NULL;
}

/* CPUID as the vCPU has it now; NULL if that fails */
static inline struct kvm_cpuid2 *xkvm_vcpu_cpuid(int vcpu)
{
	struct kvm_cpuid2 *c = xkvm_alloc_cpuid();

	if (!ioctl(vcpu, KVM_GET_CPUID2, c))
		return c;
	free(c);
	return NULL;
}

static inline struct kvm_cpuid_entry2 *
xkvm_cpuid_entry(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t subleaf)
{
	unsigned int i;

	for (i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf &&
		    c->entries[i].index == subleaf)
			return &c->entries[i];
	return NULL;
}

/* Registers of an entry, all 0 if the entry is absent, as a guest reads it */
static inline struct xf_regs xkvm_cpuid(struct kvm_cpuid2 *c, uint32_t leaf,
					uint32_t subleaf)
{
	struct kvm_cpuid_entry2 *e = xkvm_cpuid_entry(c, leaf, subleaf);
	struct xf_regs r = { 0, 0, 0, 0 };

	if (e) {
		r.eax = e->eax;
		r.ebx = e->ebx;
		r.ecx = e->ecx;
		r.edx = e->edx;
	}
	return r;
}

static inline void xkvm_cpuid_drop(struct kvm_cpuid2 *c, uint32_t leaf,
				   uint32_t subleaf)
{
	struct kvm_cpuid_entry2 *e = xkvm_cpuid_entry(c, leaf, subleaf);
	struct kvm_cpuid_entry2 *end = c->entries + c->nent;

	if (e) {
		memmove(e, e + 1, (char *)end - (char *)(e + 1));
		c->nent--;
	}
}

static inline int xkvm_msr_io(int vcpu, unsigned long cmd,
			      struct kvm_msr_entry *entries, unsigned int nr)
{
	uint64_t buf[(sizeof(struct kvm_msrs) +
		      XKVM_MAX_MSRS * sizeof(*entries)) / 8];
	struct kvm_msrs *msrs = (struct kvm_msrs *)buf;
	int done;

	memset(buf, 0, sizeof(buf));
	msrs->nmsrs = nr;
	memcpy(msrs->entries, entries, nr * sizeof(*entries));
	done = ioctl(vcpu, cmd, msrs);
	memcpy(entries, msrs->entries, nr * sizeof(*entries));
	return done;
}

/* Write @nr MSRs in one ioctl. Return how many were taken. */
static inline int xkvm_set_msrs(int vcpu, struct kvm_msr_entry *entries,
				unsigned int nr)
{
	return xkvm_msr_io(vcpu, KVM_SET_MSRS, entries, nr);
}

/* Read @nr MSRs in one ioctl. Return how many were read. */
static inline int xkvm_get_msrs(int vcpu, struct kvm_msr_entry *entries,
				unsigned int nr)
{
	return xkvm_msr_io(vcpu, KVM_GET_MSRS, entries, nr);
}

/* Whether the vCPU takes @value for @msr */
static inline bool xkvm_set_msr(int vcpu, uint32_t msr, uint64_t value)
{
	struct kvm_msr_entry e = { .index = msr, .data = value };

	return xkvm_set_msrs(vcpu, &e, 1) == 1;
}

/* Whether @msr can be read */
static inline bool xkvm_get_msr(int vcpu, uint32_t msr, uint64_t *value)
{
	struct kvm_msr_entry e = { .index = msr };
	bool done = xkvm_get_msrs(vcpu, &e, 1) == 1;

	*value = e.data;
	return done;
}

/*
 * Whether KVM refuses MSRs that it does not know, or that the guest has not:
 * kvm.ignore_msrs is off. Where the parameter cannot be read, ask /dev/kvm for
 * an MSR that no CPU has.
 */
static inline bool xkvm_refuses_msrs(void)
{
	char param = xf_param("kvm", "ignore_msrs");
	uint64_t value;
	bool read;
	int kvm;

	if (param)
		return param == 'N';
	kvm = xkvm_open();
	read = xkvm_get_msr(kvm, 0xffffffff, &value);
	close(kvm);
	return !read;
}

/* 0 or the errno of KVM_GET_ONE_REG or KVM_SET_ONE_REG */
static inline int xkvm_one_reg(int vcpu, unsigned long cmd, uint64_t id,
			       uint64_t *value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (unsigned long)value };

	return ioctl(vcpu, cmd, &reg) ? errno : 0;
}

/* Whether the vCPU takes @value for XCR0 */
static inline bool xkvm_set_xcr0(int vcpu, uint64_t value)
{
	struct kvm_xcrs xcrs;

	memset(&xcrs, 0, sizeof(xcrs));
	xcrs.nr_xcrs = 1;
	xcrs.xcrs[0].value = value;
	return !ioctl(vcpu, KVM_SET_XCRS, &xcrs);
}

/*
 * KVM_RUN that returns right before it would enter the guest: it needs no
 * guest memory, yet loads the guest's fpstate and puts the host's back.
 */
static inline bool xkvm_run_immediate_exit(int kvm, int vcpu)
{
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run;
	bool done;

	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return false;
	run->immediate_exit = 1;
	done = ioctl(vcpu, KVM_RUN, 0) && errno == EINTR;
	munmap(run, size);
	return done;
}

/*
 * Whether KVM has VMX or SVM to run guests with. Without them some guests end
 * in emulation errors, and a test cannot tell why.
 */
static inline bool xkvm_runs_guests(void)
{
	if (access("/sys/module", F_OK))
		return xf_cpuinfo_flag("vmx") || xf_cpuinfo_flag("svm");
	return !access("/sys/module/kvm_intel", F_OK) ||
	       !access("/sys/module/kvm_amd", F_OK);
}

#endif /* SELFTESTS_X86_XCOMP_KVM_H */
