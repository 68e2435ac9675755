/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * XSAVE state components as the CPU enumerates them, the arch_prctl(2) permissions
 * that go with them, and the task that has both: AMX, children, MSRs, PASID, its kernel.
 *
 * Sizes, offsets and masks are computed here from CPUID leaf 0xD and XCR0 alone,
 * so that what the kernel reports can be compared with a value that the kernel
 * had no part in.  The tests of x86/ and those of kvm/ share this and xfault.h.
 */
#ifndef SELFTESTS_X86_XFEATURE_H
#define SELFTESTS_X86_XFEATURE_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <asm/prctl.h>

#include "kselftest_harness_ext.h"

#define XF_BIT(i)			(UINT64_C(1) << (i))

/*
 * State component numbers, which arch_prctl(2) and CPUID leaf 0xD take.  The names
 * are those of upstream's enum xfeature, which is not exported.
 */
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
	XFEATURE_XTILE_CFG	= 17,
	XFEATURE_XTILE_DATA	= 18,
};

/* Upstream's names, for x86/: libkvm has all of them, and more. */
#ifndef XFEATURE_MASK_FP
#define XFEATURE_MASK_FP		XF_BIT(0)
#define XFEATURE_MASK_SSE		XF_BIT(1)
#define XFEATURE_MASK_YMM		XF_BIT(2)
#define XFEATURE_MASK_OPMASK		XF_BIT(5)
#define XFEATURE_MASK_ZMM_Hi256		XF_BIT(6)
#define XFEATURE_MASK_Hi16_ZMM		XF_BIT(7)
#define XFEATURE_MASK_PKRU		XF_BIT(9)
#define XFEATURE_MASK_PASID		XF_BIT(10)
#define XFEATURE_MASK_CET_USER		XF_BIT(11)
#define XFEATURE_MASK_CET_KERNEL	XF_BIT(12)
#define XFEATURE_MASK_XTILE_CFG		XF_BIT(17)
#define XFEATURE_MASK_XTILE_DATA	XF_BIT(18)
#define XFEATURE_MASK_AVX512		(XFEATURE_MASK_OPMASK | XFEATURE_MASK_ZMM_Hi256 | \
					 XFEATURE_MASK_Hi16_ZMM)
#define XFEATURE_MASK_XTILE		(XFEATURE_MASK_XTILE_CFG | XFEATURE_MASK_XTILE_DATA)
#define MSR_IA32_PASID			0xd93
#define MSR_IA32_XSS			0xda0
#endif
#define XFEATURE_MASK_FPSSE		(XFEATURE_MASK_FP | XFEATURE_MASK_SSE)
#define XFEATURE_MASK_MPX		(XFEATURE_MASK_BNDREGS | XFEATURE_MASK_BNDCSR)
#define XFEATURE_MASK_APX		XF_BIT(19)
#define XFEATURE_MASK_CET		(XFEATURE_MASK_CET_USER | XFEATURE_MASK_CET_KERNEL)

/* The legacy area and the XSAVE header precede all extended components. */
#define XF_HEADER_OFFSET	512
#define XF_BASE_SIZE		576

/* For functions to which no compiler may add a use of x87, SSE or later registers */
#define INTEGER_ONLY		__attribute__((target("general-regs-only")))

struct xf_regs {
	uint32_t eax, ebx, ecx, edx;
};

struct xf_regs xf_cpuid(uint32_t leaf, uint32_t subleaf);

/* XCR0 is what the kernel switched on for user space; 0 without XSAVE. */
uint64_t xf_xcr0(void);
/* Components that the CPU has, enabled or not */
uint64_t xf_cpu_user_mask(void);
uint64_t xf_cpu_supervisor_mask(void);

/* Size of an XSAVE area for the components in @mask: SDM, "Extended Region of an XSAVE Area" */
uint32_t xf_standard_size(uint64_t mask);
uint32_t xf_compacted_size(uint64_t mask);
/* Where component @nr starts in an area compacted for @mask */
uint32_t xf_compacted_offset(uint64_t mask, int nr);

/*
 * The mask of ARCH_GET_XCOMP_PERM and ARCH_GET_XCOMP_GUEST_PERM, with and without
 * permission for XTILE_DATA.
 */
uint64_t xf_permitted(bool granted);
void xf_expect_permissions(struct __test_metadata *const _metadata, bool host, bool guest,
			   const char *when);
/* 0 or the errno of an arch_prctl() that asks for component @nr, or reads a mask */
int xf_request(int option, unsigned long nr);
int xf_get_mask(int option, uint64_t *mask);

/* The name of component @nr, and " NAME NAME" of those in @mask, " none" if there are none */
const char *xf_name(int nr);
const char *xf_names(uint64_t mask, char *buf, size_t size);

/* Read a small file; the result ends in a NUL.  Return its length or -1. */
ssize_t xf_read_file(const char *path, char *buf, size_t size);
/* First character of a module's parameter, e.g. 'Y'; 0 where there is none */
char xf_param(const char *module, const char *name);
/*
 * Whether the kernel lists @flag among the features of the first CPU.  The list
 * says what the kernel's feature code settled on before its FPU code ran.
 */
bool xf_cpuinfo_flag(const char *flag);
bool xf_cmdline_may_have(const char *text);

/* AMX: touch it, or expect that it works, or that it raises SIGILL */
bool xf_has_amx(void);
void xf_touch_amx(void);
void xf_expect_amx(struct __test_metadata *const _metadata, bool works, const char *when);
void xf_use_amx(struct __test_metadata *const _metadata);

/* Seconds that anything may take before it counts as hung */
#define XF_TIMEOUT		20

/* Seconds of CPU time that a child may take which has next to nothing to do */
#define XF_CPU_LIMIT		2

/* Children: xf_join(), xf_wait() or xf_kill() takes the end of each. */
typedef void (*xf_fn)(struct __test_metadata *const _metadata, void *arg);

pid_t xf_fork(struct __test_metadata *const _metadata);
void xf_exit(void);
int xf_wait(struct __test_metadata *const _metadata, pid_t pid, const char *what);
int xf_wait_briefly(struct __test_metadata *const _metadata, pid_t pid, const char *what);
void xf_join(struct __test_metadata *const _metadata, pid_t pid, const char *what);
void xf_kill(struct __test_metadata *const _metadata, pid_t pid);
void xf_in_child(struct __test_metadata *const _metadata, const char *what, xf_fn fn, void *arg);
bool xf_in_child_briefly(struct __test_metadata *const _metadata, const char *what, xf_fn fn,
			 void *arg);
void xf_join_thread(struct __test_metadata *const _metadata, pthread_t thread, const char *what);
__noreturn void xf_end_row(const char *why);

/* Who restores what a test changes of the whole machine, however the test ends */
struct xf_guard {
	pid_t pid;			/* 0 if there is none */
	int alive;
	bool (*restore)(const void *arg);
	const void *arg;
};

void xf_guard(struct __test_metadata *const _metadata, struct xf_guard *g,
	      bool (*restore)(const void *arg), const void *arg);
void xf_unguard(struct __test_metadata *const _metadata, struct xf_guard *g, const char *what);

/* The CPU that this runs on: stay there, keep it busy, lose it to another process */
int xf_pin(struct __test_metadata *const _metadata);
void xf_leave_real_time(void);
pid_t xf_hog(struct __test_metadata *const _metadata);
void xf_lose_cpu(struct __test_metadata *const _metadata);

/* MSRs of the host */
int xf_open_msrs(struct __test_metadata *const _metadata, int flags);
uint64_t xf_read_msr(struct __test_metadata *const _metadata, int fd, uint32_t msr);

/* PASID of this task: bits 19:0 of IA32_PASID, here never marked valid */
#define XF_PASID_MINE		0x12345
#define XF_PASID_THEIRS		0xabcde

bool xf_pasid_need(struct __test_metadata *const _metadata);
uint64_t xf_pasid_read(struct __test_metadata *const _metadata);
void xf_pasid_write(struct __test_metadata *const _metadata, uint64_t value);
void xf_pasid_give(struct __test_metadata *const _metadata);
void xf_pasid_expect_kept(struct __test_metadata *const _metadata, const char *when);

/* The shadow stacks of this process, and the one on which an SSP of @at is */
struct xf_shadow_stacks {
	unsigned int nr;
	uint64_t bytes, start, end;
};

bool xf_shadow_stacks(struct xf_shadow_stacks *s, uint64_t at);

/* What whoever reads the log of a failure asks for first */
void xf_print_machine(void);
/* Take note of the kernel's warnings until now; fail if there have been more since. */
void xf_note_warnings(void);
void xf_expect_no_warning(struct __test_metadata *const _metadata);

/*
 * A buffer of @size bytes, all @poison, that ends at an inaccessible page: one
 * byte more makes the kernel return EFAULT.  It lives as long as the process.
 */
uint8_t *xf_guarded(size_t size, uint8_t poison);

#endif /* SELFTESTS_X86_XFEATURE_H */
