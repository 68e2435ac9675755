/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The registers of a host task as XSAVE stores them: a pattern for all of
 * them, a system call that is made with the pattern loaded, and a comparison by
 * component.  Pointers to this are what fits the CPU, see xregs_alloc().
 */
#ifndef SELFTESTS_X86_XREGS_H
#define SELFTESTS_X86_XREGS_H

#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

#include "xcomp.h"

/* As in elf.h, of which old ones lack the last two */
#define NT_PRFPREG		2
#define NT_X86_XSTATE		0x202
#define NT_X86_SHSTK		0x204
#define NT_X86_XSAVE_LAYOUT	0x205

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

/* The XSAVE and XRSTOR instructions, and a system call that changes none of these registers */
void xregs_save(struct xregs *regs, uint64_t mask);
void xregs_load(const struct xregs *regs, uint64_t mask);
long xregs_syscall(long nr, long arg1, long arg2, long arg3);

/* Make a system call with @loaded in the registers, and store them to @saved after it. */
long xregs_call_between(const struct xregs *loaded, struct xregs *saved, long nr, long arg1,
			long arg2, long arg3);

/* The same with several of them */
struct xregs_call {
	const char *what;
	long nr, args[3];
	long wanted, got;
};

void xregs_calls_between(const struct xregs *loaded, struct xregs *saved,
			 struct xregs_call *calls, unsigned int nr);

/*
 * The same with a signal to this thread, and @handler on the stack of @size bytes at @stack.
 * A SIGSEGV for it, if the kernel cannot write or read the frame, is counted in xregs_faults,
 * and the task goes on.
 */
struct xregs *xregs_take_signal(struct __test_metadata *const _metadata,
				const struct xregs *loaded,
				void (*handler)(int sig, siginfo_t *info, void *context),
				void *stack, size_t size);
extern int xregs_faults;

/*
 * SA_SIGINFO, unless a 32-bit program wants the frame of a handler without it.  There is no
 * @context there: the sigcontext, which is mcontext_t, is behind @sig on the stack.
 */
extern int xregs_handler_flags;
#define XREGS_OLD_CONTEXT()	((mcontext_t *)((uint8_t *)__builtin_frame_address(0) + 12))

#ifndef __x86_64__
/* x87 registers of every kind, and what FNSAVE makes of those in @regs: tags, and all of ST */
struct xregs *xregs_x87(uint16_t fsw);
void xregs_fnsave(const struct xregs *regs, void *image);
#define XREGS_FSAVE_SIZE	108
#endif

/*
 * A handler on a stack with a protection key.  Handlers start with the PKRU that execve()
 * leaves, by which they cannot use that stack before they have changed it.
 */
void xregs_open_keys(int sig, siginfo_t *info, void *context);
/* Goes on there, and PKRU as it was before */
extern void (*xregs_keyed_handler)(int sig, siginfo_t *info, void *context);
extern uint32_t xregs_keyed_pkru;

/* EXPECT_XREGS(mask, wanted, got, fmt, ...): the same in all components of @mask */
#define EXPECT_XREGS(mask, wanted, got, fmt, ...) ({				\
	const char *__text = xregs_difference(mask, wanted, got);		\
										\
	EXPECT_THAT(!*__text, fmt "%s", ##__VA_ARGS__, __text);			\
})

/* EXPECT_BYTES(wanted, got, size, fmt, ...): the same bytes of memory */
#define EXPECT_BYTES(wanted, got, size, fmt, ...) ({				\
	char __text[XREGS_TEXT_SIZE] = "";					\
										\
	xregs_compare(__text, "", wanted, got, size);				\
	EXPECT_THAT(!*__text, fmt "%s", ##__VA_ARGS__, __text);			\
})

#define XREGS_TEXT_SIZE		512

const char *xregs_difference(uint64_t mask, const struct xregs *wanted, const struct xregs *got);
void xregs_compare(char *text, const char *what, const void *wanted, const void *got, size_t size);

/* Whether the kernel has the standard format of XSAVE areas for its own, too */
bool xregs_are_standard(void);

/* 0 or an errno.  Reading gives ENODATA if the set has another size. */
int xregs_set_regset(pid_t pid, int type, const void *from, size_t size);
int xregs_get_regset(pid_t pid, int type, void *to, size_t size);

/* Start a child that calls @fn as a traced task, and stops; 0 for XREGS_NO_PTRACE. */
#define XREGS_NO_PTRACE		"ptrace is forbidden"

pid_t xregs_trace(struct __test_metadata *const _metadata, xf_fn fn, void *arg);
/* Wait until it stops or ends, which leaves a zombie; return the status for waitpid()'s macros. */
int xregs_wait(struct __test_metadata *const _metadata, pid_t pid);
/* Let it run, with a signal or 0, until then. */
int xregs_go_on(struct __test_metadata *const _metadata, pid_t pid, long sig);

uint16_t xregs_fcw(void);
uint32_t xregs_mxcsr(void);
bool xregs_has_pkru(void);
uint32_t xregs_pkru(void);
void xregs_set_pkru(uint32_t pkru);

#ifdef __x86_64__
/* AMX, for processes that have the permission; others get SIGILL. */
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

/*
 * Call @fn in a child on a shadow stack; false if the test is skipped, or to end as the child
 * loops.  Such a child cannot return from where it got that.
 */
bool xregs_on_shadow_stack(struct __test_metadata *const _metadata, const char *what, xf_fn fn,
			   void *arg);
#endif

#endif /* SELFTESTS_X86_XREGS_H */
