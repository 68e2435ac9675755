/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The registers of a host task as XSAVE stores them: a pattern for all of
 * them, a system call that is made with the pattern loaded, and a comparison by
 * component.  Pointers to this are what fits the CPU, see xregs_alloc().
 */
#ifndef SELFTESTS_X86_XREGS_H
#define SELFTESTS_X86_XREGS_H

#include <elf.h>
#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

#include "xcomp.h"

#ifndef NT_X86_SHSTK
#define NT_X86_SHSTK		0x204
#endif
#ifndef NT_X86_XSAVE_LAYOUT
#define NT_X86_XSAVE_LAYOUT	0x205
#endif
#ifndef ARCH_SHSTK_ENABLE
#define ARCH_SHSTK_ENABLE	0x5001
#define ARCH_SHSTK_SHSTK	1
#endif

/* What FCW and MXCSR are initially: SDM, "x87 State" and "SSE State" */
#define XREGS_INITIAL_FCW	0x37f
#define XREGS_INITIAL_MXCSR	0x1f80

/*
 * A 32-bit program has half of the registers, and none of ZMM16 to ZMM31.  Its
 * signal frames have the registers of FSAVE before the XSAVE area.
 */
#ifdef __x86_64__
#define XREGS_COUNT		16
#define XREGS_NOT_HERE		0
#define XREGS_IN_FRAME		0
#else
#define XREGS_COUNT		8
#define XREGS_NOT_HERE		XFEATURE_MASK_Hi16_ZMM
#define XREGS_IN_FRAME		112
#endif

/* An XSAVE area in the standard format; NT_PRFPREG is its first 512 bytes. */
struct xregs {
	uint16_t fcw, fsw;
	uint8_t ftw, reserved1;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16];
	uint8_t xmm[16][16];
	uint8_t reserved2[48];
	union {
		/* What the kernel says of a signal frame ... */
		struct {
			uint32_t magic1, extended_size;
			uint64_t xfeatures;
			uint32_t xstate_size;
		} sw;
		/* ... and in NT_X86_XSTATE of the task */
		uint64_t xcr0;
		uint8_t reserved3[48];
	};
	/* The header */
	uint64_t xstate_bv, xcomp_bv;
	uint8_t reserved4[48];
	uint8_t extended[];
};

#define XREGS_FX_SIZE		offsetof(struct xregs, xstate_bv)

/* Components that this task has registers for, but for tiles */
uint64_t xregs_mask(void);

/* All initial, or with a value of its own in each register of @mask */
struct xregs *xregs_alloc(void);
struct xregs *xregs_pattern(uint64_t mask);

/* The component of @regs whose mask is @bit, from XFEATURE_MASK_YMM on */
void *xregs_at(const struct xregs *regs, uint64_t bit);

/* Fill the components of @mask but x87 and SSE; they are initial with 0. */
void xregs_set(struct xregs *regs, uint64_t mask, uint8_t fill);

/* The XSAVE instruction */
void xregs_save(struct xregs *regs, uint64_t mask);

/*
 * Make the system call @nr with the components of xregs_mask() and of
 * XSTATE_BV loaded from @loaded, and store all registers to @saved when it
 * returns.  Return what it returns.  The registers are then as they were.
 */
long xregs_call_between(const struct xregs *loaded, struct xregs *saved, long nr, long arg1,
			long arg2);

/* EXPECT_XREGS(mask, wanted, got, fmt, ...): the same in all components of @mask */
#define EXPECT_XREGS(mask, wanted, got, ...) \
	__xregs_expect(_metadata, XREGS_FILE, __LINE__, mask, wanted, got, __VA_ARGS__)

/* EXPECT_BYTES(wanted, got, size, fmt, ...): the same bytes of memory */
#define EXPECT_BYTES(wanted, got, size, ...) \
	__xregs_expect_bytes(_metadata, XREGS_FILE, __LINE__, wanted, got, size, __VA_ARGS__)

#define XREGS_FILE	(strrchr("/" __FILE__, '/') + 1)

void __printf(7, 8)
__xregs_expect(struct __test_metadata *const _metadata, const char *file, int line,
	       uint64_t mask, const struct xregs *wanted, const struct xregs *got,
	       const char *fmt, ...);
void __printf(7, 8)
__xregs_expect_bytes(struct __test_metadata *const _metadata, const char *file, int line,
		     const void *wanted, const void *got, size_t size, const char *fmt, ...);

/* 0 or an errno.  Reading gives ENODATA if the set has another size. */
int xregs_set_regset(pid_t pid, int type, const void *from, size_t size);
int xregs_get_regset(pid_t pid, int type, void *to, size_t size);

/*
 * Start a child that calls @fn as a traced task, and wait until it stops there.
 * Return 0 where ptrace(2) is forbidden.  xregs_go_on() lets it run until it
 * stops or ends, and returns the status for waitpid()'s macros.
 */
#define XREGS_NO_PTRACE		"ptrace is forbidden"

pid_t xregs_trace(struct __test_metadata *const _metadata, xcomp_fn fn, void *arg);
int xregs_go_on(struct __test_metadata *const _metadata, pid_t pid);

/*
 * Stay on this CPU and open its MSRs by the msr driver, which takes root; -1 if
 * there is none.  A task that is preempted inside of the driver goes on there
 * without its own, so that reading takes what it finds three times in a row.
 */
int xregs_open_msrs(struct __test_metadata *const _metadata, int flags);
uint64_t xregs_read_msr(struct __test_metadata *const _metadata, int fd, uint32_t msr);

uint16_t xregs_fcw(void);
uint32_t xregs_mxcsr(void);
uint32_t xregs_pkru(void);
void xregs_set_pkru(uint32_t pkru);

#ifdef __x86_64__
/*
 * AMX, for processes that have the permission; others get SIGILL.  Loading
 * takes the configuration and all tiles from a pattern with both, by the
 * instructions of AMX, and leaves them in use.
 */
#define XREGS_LOAD_TILES				\
	"ldtilecfg (%%rax)\n\t"				\
	"mov $64, %%ecx\n\t"				\
	".irp n, 0, 1, 2, 3, 4, 5, 6, 7\n\t"		\
	"tileloadd (%%rdi,%%rcx,1), %%tmm\\n\n\t"	\
	"add $1024, %%rdi\n\t"				\
	".endr\n\t"

void xregs_load_tiles(const struct xregs *regs);
void xregs_release_tiles(void);
bool xregs_tiles_in_use(void);

/* The shadow stack pointer in RAX, which stays as it is where there is none */
#define XREGS_RDSSP		"rdsspq %%rax\n\t"

static __always_inline uint64_t xregs_ssp(void)
{
	uint64_t ssp = 0;

	asm volatile(XREGS_RDSSP : "+a" (ssp));
	return ssp;
}

/*
 * Switch on shadow stacks.  Not a function of its own, as what returns must
 * have been called before; nor may the caller return.
 */
static __always_inline bool xregs_enable_shadow_stack(void)
{
	long error = SYS_arch_prctl;

	asm volatile("syscall" : "+a" (error) : "D" (ARCH_SHSTK_ENABLE), "S" (ARCH_SHSTK_SHSTK)
		     : "rcx", "r11", "memory");
	return !error;
}

/* End a child that could not, with KSFT_SKIP, which its parent is to take for a skip. */
__noreturn void xregs_no_shadow_stack(struct __test_metadata *const _metadata);
#endif

#endif /* SELFTESTS_X86_XREGS_H */
