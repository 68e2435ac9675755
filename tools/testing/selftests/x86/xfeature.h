/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * XSAVE state components as the CPU enumerates them, and the arch_prctl(2)
 * permissions that go with them.
 *
 * Sizes, offsets and masks are computed here from CPUID leaf 0xD and XCR0
 * alone, so that what the kernel reports can be compared with a value that the
 * kernel had no part in.
 */
#ifndef SELFTESTS_X86_XFEATURE_H
#define SELFTESTS_X86_XFEATURE_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <asm/prctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "kselftest.h"

#ifndef ARCH_GET_XCOMP_SUPP
#define ARCH_GET_XCOMP_SUPP		0x1021
#endif
#ifndef ARCH_GET_XCOMP_PERM
#define ARCH_GET_XCOMP_PERM		0x1022
#endif
#ifndef ARCH_REQ_XCOMP_PERM
#define ARCH_REQ_XCOMP_PERM		0x1023
#endif
#ifndef ARCH_GET_XCOMP_GUEST_PERM
#define ARCH_GET_XCOMP_GUEST_PERM	0x1024
#endif
#ifndef ARCH_REQ_XCOMP_GUEST_PERM
#define ARCH_REQ_XCOMP_GUEST_PERM	0x1025
#endif

/* Upstream's names, for folders and trees that have none of them */
#ifndef XFEATURE_MASK_FP
#define XFEATURE_MASK_FP		XF_BIT(0)
#define XFEATURE_MASK_SSE		XF_BIT(1)
#define XFEATURE_MASK_YMM		XF_BIT(2)
#define XFEATURE_MASK_BNDREGS		XF_BIT(3)
#define XFEATURE_MASK_BNDCSR		XF_BIT(4)
#define XFEATURE_MASK_OPMASK		XF_BIT(5)
#define XFEATURE_MASK_ZMM_Hi256		XF_BIT(6)
#define XFEATURE_MASK_Hi16_ZMM		XF_BIT(7)
#define XFEATURE_MASK_PKRU		XF_BIT(9)
#define XFEATURE_MASK_PASID		XF_BIT(10)
#define XFEATURE_MASK_CET_USER		XF_BIT(11)
#define XFEATURE_MASK_CET_KERNEL	XF_BIT(12)
#define XFEATURE_MASK_LBR		XF_BIT(15)
#define XFEATURE_MASK_XTILE_CFG		XF_BIT(17)
#define XFEATURE_MASK_XTILE_DATA	XF_BIT(18)
#define XFEATURE_MASK_AVX512		(XFEATURE_MASK_OPMASK | XFEATURE_MASK_ZMM_Hi256 | \
					 XFEATURE_MASK_Hi16_ZMM)
#define XFEATURE_MASK_XTILE		(XFEATURE_MASK_XTILE_CFG | XFEATURE_MASK_XTILE_DATA)
#endif
#define XFEATURE_MASK_FPSSE		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)
#define XFEATURE_MASK_MPX		(XFEATURE_MASK_BNDREGS | XFEATURE_MASK_BNDCSR)
#define XFEATURE_MASK_CET		(XFEATURE_MASK_CET_USER | XFEATURE_MASK_CET_KERNEL)

#ifndef MSR_IA32_U_CET
#define MSR_IA32_U_CET			0x6a0
#define MSR_IA32_S_CET			0x6a2
#define MSR_IA32_PL0_SSP		0x6a4
#define MSR_IA32_PL1_SSP		0x6a5
#define MSR_IA32_PL2_SSP		0x6a6
#define MSR_IA32_PL3_SSP		0x6a7
#define MSR_IA32_INT_SSP_TAB		0x6a8
#endif
#ifndef MSR_IA32_PASID
#define MSR_IA32_PASID			0xd93
#define MSR_IA32_PASID_VALID		XF_BIT(31)
#endif

/*
 * State component numbers.  Numbers without a mask are what arch_prctl(2) and
 * CPUID leaf 0xD take; upstream's enum xfeature is not exported.
 */
enum {
	XF_FP		= 0,
	XF_SSE		= 1,
	XF_YMM		= 2,
	XF_BNDREGS	= 3,
	XF_BNDCSR	= 4,
	XF_OPMASK	= 5,
	XF_ZMM_HI256	= 6,
	XF_HI16_ZMM	= 7,
	XF_PKRU		= 9,
	XF_PASID	= 10,
	XF_CET_USER	= 11,
	XF_CET_KERNEL	= 12,
	XF_LBR		= 15,
	XF_XTILE_CFG	= 17,
	XF_XTILE_DATA	= 18,
};

/* The same by their upstream names */
enum {
	XFEATURE_FP		= 0,
	XFEATURE_SSE		= 1,
	XFEATURE_YMM		= 2,
	XFEATURE_OPMASK		= 5,
	XFEATURE_ZMM_Hi256	= 6,
	XFEATURE_Hi16_ZMM	= 7,
	XFEATURE_PKRU		= 9,
	XFEATURE_PASID		= 10,
	XFEATURE_CET_USER	= 11,
	XFEATURE_CET_KERNEL	= 12,
	XFEATURE_LBR		= 15,
	XFEATURE_XTILE_CFG	= 17,
	XFEATURE_XTILE_DATA	= 18,
};

/* Registers that live in a state component, or belong to the same features */
enum {
	XF_MSR_U_CET		= 0x6a0,
	XF_MSR_S_CET		= 0x6a2,
	XF_MSR_PL0_SSP		= 0x6a4,
	XF_MSR_PL1_SSP		= 0x6a5,
	XF_MSR_PL2_SSP		= 0x6a6,
	XF_MSR_PL3_SSP		= 0x6a7,
	XF_MSR_INT_SSP_TAB	= 0x6a8,
	XF_MSR_XSS		= 0xda0,
};

#define XF_BIT(i)	(UINT64_C(1) << (i))
#define XF_FPSSE	(XF_BIT(XF_FP) | XF_BIT(XF_SSE))
#define XF_MPX		(XF_BIT(XF_BNDREGS) | XF_BIT(XF_BNDCSR))
#define XF_AVX512	(XF_BIT(XF_OPMASK) | XF_BIT(XF_ZMM_HI256) | \
			 XF_BIT(XF_HI16_ZMM))
#define XF_XTILE	(XF_BIT(XF_XTILE_CFG) | XF_BIT(XF_XTILE_DATA))
#define XF_CET		(XF_BIT(XF_CET_USER) | XF_BIT(XF_CET_KERNEL))

/* Bit 63 of XCOMP_BV says "compacted", of a permission it is a kernel flag. */
#define XF_COMPACTED	XF_BIT(63)

/* What no interface to user space ever shows: supervisor components, flags. */
#define XF_NEVER	(XF_BIT(XF_PASID) | XF_CET | XF_BIT(XF_LBR) | \
			 XF_BIT(63))

/* The legacy area and the XSAVE header precede all extended components. */
#define XF_HEADER_OFFSET	512
#define XF_BASE_SIZE		576

struct xf_regs {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct xf_regs xf_cpuid(uint32_t leaf, uint32_t subleaf)
{
	struct xf_regs r;

	asm volatile("cpuid"
		     : "=a" (r.eax), "=b" (r.ebx), "=c" (r.ecx), "=d" (r.edx)
		     : "0" (leaf), "2" (subleaf));
	return r;
}

/* XCR0 is what the kernel switched on for user space; 0 without XSAVE. */
static inline uint64_t xf_xcr0(void)
{
	uint32_t lo, hi;

	if (!(xf_cpuid(1, 0).ecx & XF_BIT(27)))
		return 0;

	asm volatile("xgetbv" : "=a" (lo), "=d" (hi) : "c" (0));
	return (uint64_t)hi << 32 | lo;
}

/*
 * The mask of ARCH_GET_XCOMP_PERM and ARCH_GET_XCOMP_GUEST_PERM, with and
 * without permission for XTILE_DATA. A kernel that does without XSAVE has no
 * components to permit, not even the two of FXSAVE.
 */
static inline uint64_t xf_permitted(bool granted)
{
	uint64_t xcr0 = xf_xcr0();

	return granted ? xcr0 : xcr0 & ~XF_BIT(XF_XTILE_DATA);
}

/* User components that the CPU has, enabled or not */
static inline uint64_t xf_cpu_user_mask(void)
{
	struct xf_regs r = xf_cpuid(0xd, 0);

	return (uint64_t)r.edx << 32 | r.eax;
}

/* Supervisor components that the CPU has, enabled or not */
static inline uint64_t xf_cpu_supervisor_mask(void)
{
	struct xf_regs r = xf_cpuid(0xd, 1);

	return (uint64_t)r.edx << 32 | r.ecx;
}

/* Size of an XSAVE area in the standard format for the components in @mask */
static inline uint32_t xf_standard_size(uint64_t mask)
{
	uint32_t size = XF_BASE_SIZE;
	struct xf_regs r;
	int i;

	for (i = 2; i < 63; i++) {
		if (!(mask & XF_BIT(i)))
			continue;
		r = xf_cpuid(0xd, i);
		if (r.ebx + r.eax > size)
			size = r.ebx + r.eax;
	}
	return size;
}

/* Where component @nr starts in an area compacted for @mask */
static inline uint32_t xf_compacted_offset(uint64_t mask, int nr)
{
	uint32_t offset = XF_BASE_SIZE;
	struct xf_regs r;
	int i;

	for (i = 2; i < 63; i++) {
		if (!(mask & XF_BIT(i)) && i != nr)
			continue;
		r = xf_cpuid(0xd, i);
		if (r.ecx & XF_BIT(1))
			offset = (offset + 63) & ~63u;
		if (i == nr)
			break;
		offset += r.eax;
	}
	return offset;
}

/* Size of an XSAVE area compacted for the components in @mask */
static inline uint32_t xf_compacted_size(uint64_t mask)
{
	int i;

	for (i = 62; i >= 2; i--)
		if (mask & XF_BIT(i))
			return xf_compacted_offset(mask, i) +
			       xf_cpuid(0xd, i).eax;
	return XF_BASE_SIZE;
}

/* 0 or the errno of an arch_prctl() that asks for component @nr */
static inline int xf_request(int option, unsigned long nr)
{
	return syscall(SYS_arch_prctl, option, nr) ? errno : 0;
}

/* 0 or the errno of an arch_prctl() that reads a mask */
static inline int xf_get_mask(int option, uint64_t *mask)
{
	*mask = 0;
	return syscall(SYS_arch_prctl, option, mask) ? errno : 0;
}

/* Read a small file; the result ends in a NUL. Return its length or -1. */
static inline ssize_t xf_read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0)
		return -1;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len >= 0)
		buf[len] = '\0';
	return len;
}

/* First character of a module's parameter, e.g. 'Y'; 0 where there is none */
static inline char xf_param(const char *module, const char *name)
{
	char path[128], value[16];

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module,
		 name);
	return xf_read_file(path, value, sizeof(value)) > 0 ? value[0] : 0;
}

/*
 * Whether the kernel lists @flag among the features of the first CPU. The
 * list says what the kernel's feature code settled on before its FPU code ran.
 */
static inline bool xf_cpuinfo_flag(const char *flag)
{
	static char flags[8192];
	char key[64];
	FILE *f;

	if (!flags[0]) {
		f = fopen("/proc/cpuinfo", "re");
		while (f && fgets(flags, sizeof(flags), f))
			if (!strncmp(flags, "flags", 5))
				break;
		if (f)
			fclose(f);
		flags[strcspn(flags, "\n")] = ' ';
	}
	snprintf(key, sizeof(key), " %s ", flag);
	return strstr(flags, key);
}

/* Why a test cannot see the PASID of a task; NULL if it can */
static inline const char *xf_pasid_missing(void)
{
	if (!(xf_cpu_supervisor_mask() & XFEATURE_MASK_PASID))
		return "no PASID state on this CPU";
	if (!xf_cpuinfo_flag("enqcmd") || !xf_cpuinfo_flag("xsaves"))
		return "the kernel does not use PASID state";
	return geteuid() ? "needs root" : NULL;
}

#define XF_TAINT_WARN	XF_BIT(9)

/* The kernel's taint flags; 0 where they cannot be read */
static inline uint64_t xf_taint(void)
{
	char buf[32];

	if (xf_read_file("/proc/sys/kernel/tainted", buf, sizeof(buf)) <= 0)
		return 0;
	return strtoull(buf, NULL, 10);
}

/*
 * A buffer of @size bytes, all @poison, that ends at an inaccessible page: one
 * byte more makes the kernel return EFAULT. It lives as long as the process.
 */
static inline uint8_t *xf_guarded(size_t size, uint8_t poison)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t len = (size + page - 1) / page * page;
	uint8_t *p;

	p = mmap(NULL, len + page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || mprotect(p + len, page, PROT_NONE))
		ksft_exit_fail_perror("cannot map a guarded buffer");
	p += len - size;
	memset(p, poison, size);
	return p;
}

/*
 * Use AMX, so that the kernel gives this task an fpstate with XTILE_DATA. Only
 * for a process with ARCH_REQ_XCOMP_PERM; others get SIGILL.
 */
static inline void xf_use_amx(void)
{
	/* Palette 1, tile 0 has one row of 64 bytes. */
	uint8_t config[64] = { [0] = 1, [16] = 64, [48] = 1 };

	/* ldtilecfg (%rax); tilezero %tmm0; tilerelease */
	asm volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00\n\t"
		     ".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0\n\t"
		     ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0"
		     : : "a" (config) : "memory");
}

/* The components in @mask by name, those that matter here */
static inline const char *xf_names(uint64_t mask, char *buf, size_t size)
{
	static const char * const names[] = {
		[XF_PASID] = "PASID", [XF_CET_USER] = "CET_USER",
		[XF_CET_KERNEL] = "CET_KERNEL", [XF_XTILE_CFG] = "XTILE_CFG",
		[XF_XTILE_DATA] = "XTILE_DATA",
	};
	size_t len = 0;
	unsigned int i;

	for (i = 0; i < 64 && len < size; i++) {
		if (!(mask & XF_BIT(i)))
			continue;
		if (i < ARRAY_SIZE(names) && names[i])
			len += snprintf(buf + len, size - len, " %s", names[i]);
		else
			len += snprintf(buf + len, size - len, " %u", i);
	}
	return mask ? buf : " none";
}

/* Name an MSR and the state component that carries it. */
static inline const char *xf_msr_name(uint32_t msr)
{
	switch (msr) {
	case XF_MSR_U_CET:
		return "IA32_U_CET (CET_USER)";
	case XF_MSR_S_CET:
		return "IA32_S_CET (in no component)";
	case XF_MSR_PL0_SSP:
		return "IA32_PL0_SSP (CET_KERNEL)";
	case XF_MSR_PL1_SSP:
		return "IA32_PL1_SSP (CET_KERNEL)";
	case XF_MSR_PL2_SSP:
		return "IA32_PL2_SSP (CET_KERNEL)";
	case XF_MSR_PL3_SSP:
		return "IA32_PL3_SSP (CET_USER)";
	case XF_MSR_INT_SSP_TAB:
		return "IA32_INT_SSP_TAB (in no component)";
	case XF_MSR_XSS:
		return "IA32_XSS (in no component)";
	}
	return "unknown MSR";
}

/* Compare a register with what was written; say which component was lost. */
static inline bool xf_msr_kept(const char *combo, uint32_t msr,
			       const char *when, uint64_t wanted, uint64_t got)
{
	if (wanted == got)
		return true;

	ksft_print_msg("%s: %s lost after %s: wanted %#llx got %#llx\n", combo,
		       xf_msr_name(msr), when, (unsigned long long)wanted,
		       (unsigned long long)got);
	return false;
}

#endif /* SELFTESTS_X86_XFEATURE_H */
