/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The registers of a host task as an XSAVE area: a pattern for all of them, a
 * system call that is made with the pattern loaded, and a comparison.
 */
#ifndef SELFTESTS_X86_XCOMP_REGS_H
#define SELFTESTS_X86_XCOMP_REGS_H

#include <sys/ptrace.h>
#include <sys/uio.h>

#include "xcomp_host.h"

/* The XSAVE area of a task, to its debugger and in a core dump */
#define XCOMP_NT_XSTATE		0x202

/* What FCW and MXCSR are initially: SDM, "x87 State" and "SSE State" */
#define XCOMP_INITIAL_FCW	0x37f
#define XCOMP_INITIAL_MXCSR	0x1f80

#define XCOMP_MXCSR_OFFSET	24
#define XCOMP_ST_OFFSET		32
#define XCOMP_XMM_OFFSET	160

/*
 * A 32-bit program has half of the registers, and none of ZMM16 to ZMM31. Its
 * signal frames have the registers of FSAVE before the XSAVE area.
 */
#ifdef __x86_64__
#define XCOMP_XSAVE		"xsave64"
#define XCOMP_REGISTERS		16
#define XCOMP_NOT_HERE		0
#define XCOMP_FRAME_AREA	0
#else
#define XCOMP_XSAVE		"xsave"
#define XCOMP_REGISTERS		8
#define XCOMP_NOT_HERE		XF_BIT(XF_HI16_ZMM)
#define XCOMP_FRAME_AREA	112
#endif
#define XCOMP_XMM_SIZE		(16 * XCOMP_REGISTERS)

/*
 * Where a signal frame has what the kernel says of it, and NT_X86_XSTATE the
 * mask of its components: struct _fpx_sw_bytes in the UAPI's asm/sigcontext.h.
 */
#define XCOMP_SW_OFFSET		464

struct xcomp_sw_bytes {
	uint32_t magic1;
	uint32_t extended_size;
	uint64_t xfeatures;
	uint32_t xstate_size;
};

/* 0 or the errno of setting register set @type of a stopped child */
static inline int xcomp_set_regset(pid_t pid, int type, void *from, size_t size)
{
	struct iovec iov = { from, size };

	return ptrace(PTRACE_SETREGSET, pid, type, &iov) ? errno : 0;
}

/* The same of reading it; ENODATA if it has another size */
static inline int xcomp_get_regset(pid_t pid, int type, void *to, size_t size)
{
	struct iovec iov = { to, size };

	if (ptrace(PTRACE_GETREGSET, pid, type, &iov))
		return errno;
	return iov.iov_len == size ? 0 : ENODATA;
}

static inline void xcomp_xsave(uint8_t *area, uint64_t mask)
{
	asm volatile(XCOMP_XSAVE " (%0)"
		     : : "r" (area), "a" ((uint32_t)mask),
			 "d" ((uint32_t)(mask >> 32)) : "memory");
}

/* An empty XSAVE area in the standard format, aligned as it must be */
static inline uint8_t *xcomp_area(void)
{
	return xf_guarded((xf_standard_size(xf_xcr0()) + 63) & ~63u, 0);
}

/* Components that a pattern can be put into */
static inline uint64_t xcomp_pattern_mask(void)
{
	return xf_xcr0() & ~XCOMP_NOT_HERE &
	       (XF_FPSSE | XF_BIT(XF_YMM) | XF_AVX512 | XF_BIT(XF_PKRU));
}

/* How many bytes of component @nr belong to registers that programs have */
static inline uint32_t xcomp_component_size(int nr)
{
	uint32_t size = xf_cpuid(0xd, nr).eax;

	if (nr == XF_YMM || nr == XF_ZMM_HI256)
		size = size * XCOMP_REGISTERS / 16;
	return size;
}

/* State in which each register has a value of its own */
static inline uint8_t *xcomp_pattern(void)
{
	const uint32_t pkru = 0xaaaaaaa8, mxcsr = 0x3f80;
	uint64_t mask = xcomp_pattern_mask();
	uint8_t *area = xcomp_area();
	const uint16_t fcw = 0x77f;
	struct xf_regs r;
	uint32_t i, j;

	memcpy(area, &fcw, sizeof(fcw));
	area[4] = 0xff;			/* no x87 register is empty */
	memcpy(area + XCOMP_MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
	for (i = 0; i < 8; i++)
		memset(area + XCOMP_ST_OFFSET + 16 * i, 0x31 + i, 10);
	for (i = 0; i < XCOMP_XMM_SIZE; i++)
		area[XCOMP_XMM_OFFSET + i] = 0x80 + i * 5;
	for (i = XF_YMM; i < 63; i++) {
		if (!(mask & XF_BIT(i)))
			continue;
		r = xf_cpuid(0xd, i);
		if (i == XF_PKRU)
			memcpy(area + r.ebx, &pkru, sizeof(pkru));
		else
			for (j = 0; j < r.eax; j++)
				area[r.ebx + j] = i * 17 + j * 3 + 1;
	}
	memcpy(area + XF_HEADER_OFFSET, &mask, sizeof(mask));
	return area;
}

static inline bool xcomp_same_bytes(struct xcomp *x, const char *what,
				    const char *when, const uint8_t *wanted,
				    const uint8_t *got, size_t size)
{
	size_t i;

	for (i = 0; i < size && wanted[i] == got[i]; i++)
		;
	if (i == size)
		return true;
	ksft_print_msg("%s: %s %s: byte %zu: wanted %#x got %#x\n", x->name,
		       what, when, i, wanted[i], got[i]);
	return false;
}

/* Compare those registers of a pattern that are in @mask. */
static inline bool xcomp_same_state_of(struct xcomp *x, uint64_t mask,
				       const char *when, const uint8_t *wanted,
				       const uint8_t *got)
{
	struct xf_regs r;
	char what[32];
	bool ok;
	int i;

	ok = xcomp_same_bytes(x, "FCW", when, wanted, got, 2);
	ok &= xcomp_same_bytes(x, "FTW", when, wanted + 4, got + 4, 1);
	ok &= xcomp_same_bytes(x, "MXCSR", when, wanted + XCOMP_MXCSR_OFFSET,
			       got + XCOMP_MXCSR_OFFSET, 4);
	for (i = 0; i < 8; i++)
		ok &= xcomp_same_bytes(x, "x87 register", when,
				       wanted + XCOMP_ST_OFFSET + 16 * i,
				       got + XCOMP_ST_OFFSET + 16 * i, 10);
	ok &= xcomp_same_bytes(x, "XMM", when, wanted + XCOMP_XMM_OFFSET,
			       got + XCOMP_XMM_OFFSET, XCOMP_XMM_SIZE);
	for (i = XF_YMM; i < 63; i++) {
		if (!(mask & XF_BIT(i)))
			continue;
		r = xf_cpuid(0xd, i);
		snprintf(what, sizeof(what), "component %d", i);
		ok &= xcomp_same_bytes(x, what, when, wanted + r.ebx,
				       got + r.ebx, xcomp_component_size(i));
	}
	return ok;
}

static inline bool xcomp_same_state(struct xcomp *x, const char *when,
				    const uint8_t *wanted, const uint8_t *got)
{
	return xcomp_same_state_of(x, xcomp_pattern_mask(), when, wanted, got);
}

/*
 * Make the system call @nr with the state of @pattern in the registers, and save
 * them to @saved when it returns. No compiled code runs in between, as it would
 * use the registers. In the end all is as it was.
 */
#ifdef __x86_64__
static inline long xcomp_call_between(const uint8_t *pattern, uint8_t *saved,
				      long nr, long arg1, long arg2)
{
	uint64_t mask[2] = { xcomp_pattern_mask(), xf_xcr0() };
	const void *p[] = { pattern, saved, xcomp_area() };
	long args[] = { nr, arg1, arg2 }, result;

	asm volatile("mov 0(%[mask]), %%eax\n\t"
		     "mov 4(%[mask]), %%edx\n\t"
		     "mov 16(%[p]), %%rdi\n\t"
		     "xsave64 (%%rdi)\n\t"
		     "mov 0(%[p]), %%rdi\n\t"
		     "xrstor64 (%%rdi)\n\t"
		     "mov 0(%[args]), %%rax\n\t"
		     "mov 8(%[args]), %%rdi\n\t"
		     "mov 16(%[args]), %%rsi\n\t"
		     "syscall\n\t"
		     "mov %%rax, %[result]\n\t"
		     "mov 8(%[mask]), %%eax\n\t"
		     "mov 12(%[mask]), %%edx\n\t"
		     "mov 8(%[p]), %%rdi\n\t"
		     "xsave64 (%%rdi)\n\t"
		     "mov 0(%[mask]), %%eax\n\t"
		     "mov 4(%[mask]), %%edx\n\t"
		     "mov 16(%[p]), %%rdi\n\t"
		     "xrstor64 (%%rdi)\n\t"
		     : [result] "=&r" (result)
		     : [p] "r" (p), [mask] "r" (mask), [args] "r" (args)
		     : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "memory");
	return result;
}
#else
static inline long xcomp_call_between(const uint8_t *pattern, uint8_t *saved,
				      long nr, long arg1, long arg2)
{
	struct {
		uint64_t pattern_mask, all;
		const void *pattern, *saved, *own;
		long nr, arg1, arg2, result;
	} c = {
		xcomp_pattern_mask(), xf_xcr0(), pattern, saved, xcomp_area(),
		nr, arg1, arg2, -1
	};

	asm volatile("push %%ebx\n\t"
		     "mov 0(%%esi), %%eax\n\t"
		     "mov 4(%%esi), %%edx\n\t"
		     "mov 24(%%esi), %%edi\n\t"
		     "xsave (%%edi)\n\t"
		     "mov 16(%%esi), %%edi\n\t"
		     "xrstor (%%edi)\n\t"
		     "mov 28(%%esi), %%eax\n\t"
		     "mov 32(%%esi), %%ebx\n\t"
		     "mov 36(%%esi), %%ecx\n\t"
		     "int $0x80\n\t"
		     "mov %%eax, 40(%%esi)\n\t"
		     "mov 8(%%esi), %%eax\n\t"
		     "mov 12(%%esi), %%edx\n\t"
		     "mov 20(%%esi), %%edi\n\t"
		     "xsave (%%edi)\n\t"
		     "mov 0(%%esi), %%eax\n\t"
		     "mov 4(%%esi), %%edx\n\t"
		     "mov 24(%%esi), %%edi\n\t"
		     "xrstor (%%edi)\n\t"
		     "pop %%ebx"
		     : : "S" (&c) : "eax", "ecx", "edx", "edi", "memory");
	return c.result;
}
#endif

#endif /* SELFTESTS_X86_XCOMP_REGS_H */
