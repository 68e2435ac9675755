// SPDX-License-Identifier: GPL-2.0-only
/* The registers of a host task as XSAVE stores them, see xregs.h. */
#define _GNU_SOURCE

#include <assert.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "xregs.h"

#ifdef __x86_64__
#define XSAVE	"xsave64"
#define XRSTOR	"xrstor64"
#else
#define XSAVE	"xsave"
#define XRSTOR	"xrstor"
#endif

static_assert(offsetof(struct xregs, st) == 32, "layout of the FXSAVE area");
static_assert(offsetof(struct xregs, xmm) == 160, "layout of the FXSAVE area");
static_assert(offsetof(struct xregs, sw) == 464, "layout of the FXSAVE area");
static_assert(XREGS_FX_SIZE == XF_HEADER_OFFSET, "layout of the XSAVE area");
static_assert(offsetof(struct xregs, extended) == XF_BASE_SIZE, "layout of the XSAVE area");

/* Of component @nr: what belongs to registers that this program has */
static uint32_t component_size(int nr)
{
	uint32_t size = xf_cpuid(0xd, nr).eax;

	if ((1ULL << nr) & (XFEATURE_MASK_YMM | XFEATURE_MASK_ZMM_Hi256))
		size = size * XREGS_COUNT / 16;
	return size;
}

uint64_t xregs_mask(void)
{
	return xf_xcr0() & ~XREGS_NOT_HERE &
	       (XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM | XFEATURE_MASK_AVX512 |
		XFEATURE_MASK_PKRU);
}

struct xregs *xregs_alloc(void)
{
	struct xregs *regs = (void *)xf_guarded((xf_standard_size(xf_xcr0()) + 63) & ~63u, 0);

	regs->fcw = XREGS_INITIAL_FCW;
	regs->mxcsr = XREGS_INITIAL_MXCSR;
	return regs;
}

INTEGER_ONLY void *xregs_at(const struct xregs *regs, uint64_t bit)
{
	return (uint8_t *)regs + xf_cpuid(0xd, __builtin_ctzll(bit)).ebx;
}

void xregs_set(struct xregs *regs, uint64_t mask, uint8_t fill)
{
	int i;

	for (i = 2; i < 63; i++)
		if (mask & 1ULL << i)
			memset(xregs_at(regs, 1ULL << i), fill, xf_cpuid(0xd, i).eax);
}

/* Eight tiles, each of as many rows and columns as palette 1 has */
static void configure_tiles(uint8_t *config)
{
	struct xf_regs palette = xf_cpuid(0x1d, 1);
	uint32_t i, names = palette.ebx >> 16;

	memset(config, 0, 64);
	config[0] = 1;
	for (i = 0; i < names && i < 8; i++) {
		config[16 + 2 * i] = palette.ebx & 0xffff;
		config[48 + i] = palette.ecx & 0xffff;
	}
}

struct xregs *xregs_pattern(uint64_t mask)
{
	struct xregs *regs = xregs_alloc();
	uint8_t *component;
	uint32_t i, j;

	regs->fcw = 0x77f;
	regs->ftw = 0xff;	/* no x87 register is empty */
	regs->mxcsr = 0x3f80;
	for (i = 0; i < 8; i++)
		memset(regs->st[i], 0x31 + i, 10);
	for (i = 0; i < 16 * XREGS_COUNT; i++)
		regs->xmm[i / 16][i % 16] = 0x80 + i * 5;
	for (i = 2; i < 63; i++) {
		if (!(mask & ~XFEATURE_MASK_PKRU & 1ULL << i))
			continue;
		component = xregs_at(regs, 1ULL << i);
		for (j = 0; j < xf_cpuid(0xd, i).eax; j++)
			component[j] = i * 17 + j * 3 + 1;
	}
	if (mask & XFEATURE_MASK_PKRU)
		*(uint32_t *)xregs_at(regs, XFEATURE_MASK_PKRU) = 0xaaaaaaa8;
	if (mask & XFEATURE_MASK_XTILE_CFG)
		configure_tiles(xregs_at(regs, XFEATURE_MASK_XTILE_CFG));
	regs->xstate_bv = mask;
	return regs;
}

INTEGER_ONLY void xregs_save(struct xregs *regs, uint64_t mask)
{
	asm volatile(XSAVE " (%0)" : : "r" (regs), "a" ((uint32_t)mask),
		     "d" ((uint32_t)(mask >> 32)) : "memory");
}

INTEGER_ONLY void xregs_load(const struct xregs *regs, uint64_t mask)
{
	asm volatile(XRSTOR " (%0)" : : "r" (regs), "a" ((uint32_t)mask),
		     "d" ((uint32_t)(mask >> 32)) : "memory");
}

INTEGER_ONLY long xregs_syscall(long nr, long arg1, long arg2, long arg3)
{
#ifdef __x86_64__
	asm volatile("syscall" : "+a" (nr) : "D" (arg1), "S" (arg2), "d" (arg3)
		     : "rcx", "r11", "memory");
#else
	asm volatile("int $0x80" : "+a" (nr) : "b" (arg1), "c" (arg2), "d" (arg3) : "memory");
#endif
	return nr;
}

/* The registers of a thread while it has others loaded */
static __thread struct xregs *own;

/*
 * Load the components of xregs_mask() and of XSTATE_BV, and store all registers after the
 * system calls.  The registers are then as they were.
 */
INTEGER_ONLY void xregs_calls_between(const struct xregs *loaded, struct xregs *saved,
				      struct xregs_call *calls, unsigned int nr)
{
	uint64_t mask = xregs_mask() | loaded->xstate_bv, all = xf_xcr0();
	unsigned int i;

	own = own ?: xregs_alloc();
	xregs_save(own, mask);
	xregs_load(loaded, mask);
	for (i = 0; i < nr; i++)
		calls[i].got = xregs_syscall(calls[i].nr, calls[i].args[0], calls[i].args[1],
					     calls[i].args[2]);
	xregs_save(saved, all);
	xregs_load(own, mask);
}

/* Return what the system call returns. */
long xregs_call_between(const struct xregs *loaded, struct xregs *saved, long nr, long arg1,
			long arg2, long arg3)
{
	struct xregs_call call = { .nr = nr, .args = { arg1, arg2, arg3 } };

	xregs_calls_between(loaded, saved, &call, 1);
	return call.got;
}

int xregs_faults;
int xregs_handler_flags = SA_SIGINFO;

/* Where nobody has a use for a SIGSEGV, it comes again and again. */
static void on_fault(int sig)
{
	if (xregs_faults++)
		_exit(sig);
}

struct xregs *xregs_take_signal(struct __test_metadata *const _metadata,
				const struct xregs *loaded,
				void (*handler)(int sig, siginfo_t *info, void *context),
				void *stack, size_t size)
{
	const struct sigaction action = {
		.sa_sigaction = handler,
		.sa_flags = xregs_handler_flags | SA_ONSTACK,
	};
	const stack_t ss = { .ss_sp = stack, .ss_size = size };
	struct xregs *saved = xregs_alloc();

	xregs_faults = 0;
	EXPECT_EQ(0, sigaltstack(&ss, NULL));
	EXPECT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	signal(SIGSEGV, on_fault);
	/* Another thread could take one that is sent to the process. */
	EXPECT_EQ(0, xregs_call_between(loaded, saved, SYS_tkill, syscall(SYS_gettid), SIGUSR1,
					0));
	return saved;
}

void (*xregs_keyed_handler)(int sig, siginfo_t *info, void *context);
uint32_t xregs_keyed_pkru;

#ifdef __x86_64__
#define SAVE_CONTEXT	"mov %rdx, %r8\n\t"
#define LOAD_CONTEXT	"mov %r8, %rdx\n\t"
#define VARIABLE(name)	name "(%rip)"
#else
#define SAVE_CONTEXT	""
#define LOAD_CONTEXT	""
#define VARIABLE(name)	name
#endif

asm(".pushsection .text\n"
	"xregs_open_keys:\n\t"
	SAVE_CONTEXT
	"xor %ecx, %ecx\n\t"
	"rdpkru\n\t"
	"mov %eax, " VARIABLE("xregs_keyed_pkru") "\n\t"
	"xor %eax, %eax\n\t"
	"xor %edx, %edx\n\t"
	"wrpkru\n\t"
	LOAD_CONTEXT
	"jmp *" VARIABLE("xregs_keyed_handler") "\n"
	".globl xregs_open_keys\n"
	".popsection");

/* Add to @text which of @size bytes of @what is the first that differs, if one does. */
void xregs_compare(char *text, const char *what, const void *wanted, const void *got, size_t size)
{
	const uint8_t *w = wanted, *g = got;
	size_t i, len = strlen(text);

	for (i = 0; i < size && w[i] == g[i]; i++)
		;
	if (i < size)
		snprintf(text + len, XREGS_TEXT_SIZE - len,
			 ":%s byte %zu of %zu: wanted %#x got %#x", what, i, size, w[i], g[i]);
}

/* The first byte that differs of each register or component, valid until the next call */
const char *xregs_difference(uint64_t mask, const struct xregs *wanted, const struct xregs *got)
{
	static char text[XREGS_TEXT_SIZE];
	char name[32];
	int i;

	text[0] = '\0';
	if (mask & XFEATURE_MASK_FP) {
		xregs_compare(text, " FCW", &wanted->fcw, &got->fcw, 2);
		xregs_compare(text, " FTW", &wanted->ftw, &got->ftw, 1);
		for (i = 0; i < 8; i++) {
			snprintf(name, sizeof(name), " ST%d", i);
			xregs_compare(text, name, wanted->st[i], got->st[i], 10);
		}
	}
	if (mask & (XFEATURE_MASK_SSE | XFEATURE_MASK_YMM))
		xregs_compare(text, " MXCSR", &wanted->mxcsr, &got->mxcsr, 4);
	if (mask & XFEATURE_MASK_SSE)
		xregs_compare(text, " XMM", wanted->xmm, got->xmm, 16 * XREGS_COUNT);
	for (i = 2; i < 63; i++)
		if (mask & 1ULL << i)
			xregs_compare(text, xf_names(1ULL << i, name, sizeof(name)),
				      xregs_at(wanted, 1ULL << i), xregs_at(got, 1ULL << i),
				      component_size(i));
	return text;
}

/* XRSTOR of that format loads MXCSR from memory along with AVX, whatever XSTATE_BV says. */
bool xregs_are_standard(void)
{
	return !xf_cpuinfo_flag("xsavec") && !xf_cpuinfo_flag("xsaves");
}

int xregs_set_regset(pid_t pid, int type, const void *from, size_t size)
{
	struct iovec iov = { (void *)from, size };

	return ptrace(PTRACE_SETREGSET, pid, type, &iov) ? errno : 0;
}

int xregs_get_regset(pid_t pid, int type, void *to, size_t size)
{
	struct iovec iov = { to, size };

	if (ptrace(PTRACE_GETREGSET, pid, type, &iov))
		return errno;
	return iov.iov_len == size ? 0 : ENODATA;
}

/*
 * The next stop of a child, or its end.  One that has ended stays to be waited for, so that
 * its pid is nobody else's, whoever kills it later.  No file descriptor becomes ready by a stop.
 */
int xregs_wait(struct __test_metadata *const _metadata, pid_t pid)
{
	const struct timespec nap = { .tv_nsec = 1000 * 1000 };
	siginfo_t info = { };
	int i;

	for (i = 0; i < XF_TIMEOUT * 1000; i++) {
		/* Of a traced task waitid() tells stops, too, whether or not it is asked to. */
		ASSERT_EQ(0, waitid(P_PID, pid, &info, WSTOPPED | WEXITED | WNOHANG | WNOWAIT));
		if (info.si_pid == pid && (info.si_code == CLD_STOPPED ||
					   info.si_code == CLD_TRAPPED)) {
			ASSERT_EQ(0, waitid(P_PID, pid, &info, WSTOPPED | WNOHANG));
			return info.si_status << 8 | 0x7f;
		}
		if (info.si_pid == pid)
			return info.si_code == CLD_EXITED ? info.si_status << 8 :
			       info.si_status | (info.si_code == CLD_DUMPED ? 0x80 : 0);
		nanosleep(&nap, NULL);
	}
	kill(pid, SIGKILL);
	ASSERT_LT(i, XF_TIMEOUT * 1000)
		TH_ROW_LOG("a traced child neither stopped nor ended within %d s", XF_TIMEOUT);
	return -1;
}

pid_t xregs_trace(struct __test_metadata *const _metadata, xf_fn fn, void *arg)
{
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(KSFT_SKIP);
		fn(_metadata, arg);
		xf_exit();
	}
	status = xregs_wait(_metadata, pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		return 0;
	ASSERT_TRUE(WIFSTOPPED(status))
		TH_ROW_LOG("a child that is to stop has wait status %#x", status);
	return pid;
}

int xregs_go_on(struct __test_metadata *const _metadata, pid_t pid, long sig)
{
	ASSERT_EQ(0, ptrace(PTRACE_CONT, pid, NULL, sig));
	return xregs_wait(_metadata, pid);
}

uint16_t xregs_fcw(void)
{
	uint16_t fcw;

	asm volatile("fnstcw %0" : "=m" (fcw));
	return fcw;
}

uint32_t xregs_mxcsr(void)
{
	uint32_t mxcsr;

	asm volatile("stmxcsr %0" : "=m" (mxcsr));
	return mxcsr;
}

bool xregs_has_pkru(void)
{
	return xf_xcr0() & XFEATURE_MASK_PKRU;
}

uint32_t xregs_pkru(void)
{
	uint32_t eax, edx;

	asm volatile("rdpkru" : "=a" (eax), "=d" (edx) : "c" (0));
	return eax;
}

void xregs_set_pkru(uint32_t pkru)
{
	asm volatile("wrpkru" : : "a" (pkru), "c" (0), "d" (0) : "memory");
}

#ifndef __x86_64__
/* The pattern with x87 registers that are zero, normal, denormal, infinite, unnormal and empty */
struct xregs *xregs_x87(uint16_t fsw)
{
	struct xregs *regs = xregs_pattern(xregs_mask());

	regs->fsw = fsw;
	regs->ftw = 0xb7;
	memset(regs->st[0], 0, 10);
	regs->st[1][7] = 0x80;
	memset(regs->st[2] + 8, 0, 2);
	memset(regs->st[3], 0, 10);
	regs->st[3][7] = 0x80;
	regs->st[3][8] = 0xff;
	regs->st[3][9] = 0x7f;
	return regs;
}

/* The x87 state is initial after that. */
INTEGER_ONLY void xregs_fnsave(const struct xregs *regs, void *image)
{
	xregs_load(regs, XFEATURE_MASK_FP);
	asm volatile("fnsave (%0)" : : "r" (image) : "memory");
}
#endif

#ifdef __x86_64__
/* The configuration and all tiles of a pattern, by the instructions of AMX; they stay in use. */
INTEGER_ONLY void xregs_load_tiles(const struct xregs *regs)
{
	void *data = xregs_at(regs, XFEATURE_MASK_XTILE_DATA);

	asm volatile("ldtilecfg (%1)\n\t"
		     ".irp n, 0, 1, 2, 3, 4, 5, 6, 7\n\t"
		     "tileloadd (%0,%2,1), %%tmm\\n\n\t"
		     "add $1024, %0\n\t"
		     ".endr"
		     : "+&r" (data)
		     : "r" (xregs_at(regs, XFEATURE_MASK_XTILE_CFG)), "r" (64L) : "memory");
}

INTEGER_ONLY void xregs_release_tiles(void)
{
	asm volatile("tilerelease");
}

/* As the CPU sees it */
bool xregs_tiles_in_use(void)
{
	struct xregs *regs = xregs_alloc();

	xregs_save(regs, XFEATURE_MASK_XTILE_DATA);
	return regs->xstate_bv & XFEATURE_MASK_XTILE_DATA;
}

__noreturn void xregs_no_shadow_stack(struct __test_metadata *const _metadata)
{
	EXPECT_THAT(!xf_cpuinfo_flag("user_shstk"),
		    "ARCH_SHSTK_ENABLE is refused, though the kernel lists user_shstk");
	fflush(stdout);
	_exit(KSFT_SKIP);
}

bool xregs_on_shadow_stack(struct __test_metadata *const _metadata, const char *what, xf_fn fn,
			   void *arg)
{
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid) {
		if (!xregs_enable_shadow_stack())
			xregs_no_shadow_stack(_metadata);
		fn(_metadata, arg);
		xf_exit();
	}
	status = xf_wait_briefly(_metadata, pid, what);
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return false, "no user shadow stacks");
	if (status != -1)
		EXPECT_SAME(0, status, "wait status on a shadow stack, %s", what);
	return status != -1;
}
#endif
