// SPDX-License-Identifier: GPL-2.0-only
/*
 * First process of a small guest of a real VMM: hold known state in the registers, and
 * say whether it is still there.
 *
 * The VMM's user talks to it over the first serial port, one letter at a time:
 *
 *	a	hold the state of all that there is, AMX in use
 *	i	the same without AMX in use: IA32_XFD is armed
 *
 * The guest answers "held" and spins in user mode, with all of it live in the registers
 * of the CPU.  Meanwhile it may be stopped, saved, and go on elsewhere.  Then:
 *
 *	=	check it
 *	other	change one thing first, see spoil()
 *
 * A line for each thing that was held: "kept NAME" or "lost NAME: wanted ..., got ...",
 * and "done" behind them.
 */
#include <asm/prctl.h>
#include <cpuid.h>
#include <fcntl.h>
#include <linux/types.h>
#include <signal.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#ifndef ARCH_GET_XCOMP_SUPP
#define ARCH_GET_XCOMP_SUPP	0x1021
#endif
#ifndef ARCH_REQ_XCOMP_PERM
#define ARCH_REQ_XCOMP_PERM	0x1023
#endif
#ifndef ARCH_SHSTK_ENABLE
#define ARCH_SHSTK_ENABLE	0x5001
#define ARCH_SHSTK_SHSTK	1
#endif

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define BIT(n)		(1UL << (n))
#define TILEDATA	18
#define PKRU		0xaaaaaaa8	/* key 0 all, the others no writes */
#define MXCSR		0x9fc0		/* FTZ and DAZ, all exceptions masked */

/* Nothing of it is in the registers that the compiler uses between load() and store(). */
#define INTEGER_ONLY	__attribute__((target("general-regs-only")))

#define TILES		"0,1,2,3,4,5,6,7"
#define LOW_ZMM		"0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define HIGH_ZMM	"16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

/* What this guest's CPU and kernel have. */
static struct {
	int amx, avx512, pku, shstk;
} has;

/* MSRs to read before and after, by the driver, and what has to be there for that. */
static const struct {
	const char *name;
	__u32 number;
	const int *needs;
} msrs[] = {
	{ "IA32_XFD", 0x1c4, &has.amx },
	{ "IA32_XFD_ERR", 0x1c5, &has.amx },
	{ "IA32_U_CET", 0x6a0, &has.shstk },
	{ "IA32_S_CET", 0x6a2, &has.shstk },
	{ "IA32_PL3_SSP", 0x6a7, &has.shstk },
	{ "IA32_INTERRUPT_SSP_TABLE", 0x6a8, &has.shstk },
	{ "IA32_XSS", 0xda0, &has.shstk },
};

#define MSRS		((int)ARRAY_SIZE(msrs))
#define MSR_XFD		0		/* in that table */
/* The kernel does not use it, and no task switch changes it, as it does PL0_SSP to PL2_SSP. */
#define MSR_SSP_TABLE	0x6a8
#define SSP_TABLE	0xffff888012345678

struct regs {
	alignas(64) __u8 zmm[32][64];
	__u8 tilecfg[64];
	__u8 tile[8][1024];
	__u8 x87[8][16];
	__u64 k[8], ssp, shadow[4], xcr0, msr[MSRS];
	__u32 pkru, mxcsr;
};

static struct regs want, got;

/* ---- The console ---- */

#define say(format, ...)	dprintf(1, format "\n", ##__VA_ARGS__)

/* Without printf(), for the registers are full. */
static INTEGER_ONLY void announce(void)
{
	if (write(1, "held\n", 5) != 5)
		_exit(1);
}

/* The next letter.  Nearly all the time this is in user mode, with the registers live. */
static INTEGER_ONLY char wait_for_letter(void)
{
	char letter;
	int i;

	while (read(0, &letter, 1) != 1) {
		for (i = 0; i < 1000000; i++)
			asm volatile("" : : : "memory");
	}
	return letter;
}

static int set_up_console(void)
{
	struct termios t;

	if (tcgetattr(0, &t))
		return 1;
	cfmakeraw(&t);
	t.c_oflag |= OPOST | ONLCR;
	return tcsetattr(0, TCSANOW, &t) || fcntl(0, F_SETFL, O_RDWR | O_NONBLOCK);
}

/* ---- MSRs ---- */

static void read_msrs(__u64 *values)
{
	int fd = open("/msr", O_RDONLY), i;

	for (i = 0; i < MSRS; i++) {
		if (*msrs[i].needs && pread(fd, &values[i], sizeof(*values), msrs[i].number) < 0)
			say("lost %s: it cannot be read", msrs[i].name);
	}
	close(fd);
}

static void write_msr(__u32 number, __u64 value)
{
	int fd = open("/msr", O_WRONLY);

	if (pwrite(fd, &value, sizeof(value), number) != sizeof(value))
		say("# MSR %#x does not take %#llx", number, value);
	close(fd);
}

/* ---- The registers ---- */

static INTEGER_ONLY __u64 xgetbv(__u32 index)
{
	__u32 lo, hi;

	asm volatile("xgetbv" : "=a" (lo), "=d" (hi) : "c" (index));
	return lo | (__u64)hi << 32;
}

static INTEGER_ONLY void load(int with_amx)
{
	int i;

	for (i = 0; i < 8; i++)
		asm volatile("fldt %0" : : "m" (want.x87[7 - i]));
	asm volatile("ldmxcsr %0" : : "m" (want.mxcsr));
	if (has.avx512)
		asm volatile(".irp n," LOW_ZMM "," HIGH_ZMM "\n\t"
			     "vmovdqu64 64*\\n(%0), %%zmm\\n\n\t.endr\n\t"
			     ".irp n," TILES "\n\tkmovq 8*\\n(%1), %%k\\n\n\t.endr"
			     : : "r" (want.zmm), "r" (want.k) : "memory");
	if (has.pku)
		asm volatile("wrpkru" : : "a" (want.pkru), "c" (0), "d" (0) : "memory");
	if (with_amx)
		asm volatile("ldtilecfg %0\n\t.irp n," TILES "\n\t"
			     "tileloadd 1024*\\n(%1,%2,1), %%tmm\\n\n\t.endr"
			     : : "m" (want.tilecfg), "r" (want.tile), "r" (64UL) : "memory");
}

static INTEGER_ONLY void store(int with_amx)
{
	int i;

	if (with_amx)
		asm volatile("sttilecfg %0" : "=m" (got.tilecfg));
	got.xcr0 = xgetbv(0);
	if (with_amx)
		asm volatile(".irp n," TILES "\n\ttilestored %%tmm\\n, 1024*\\n(%0,%1,1)\n\t.endr"
			     : : "r" (got.tile), "r" (64UL) : "memory");
	if (has.pku)
		asm volatile("rdpkru" : "=a" (got.pkru) : "c" (0) : "rdx");
	if (has.avx512)
		asm volatile(".irp n," LOW_ZMM "," HIGH_ZMM "\n\t"
			     "vmovdqu64 %%zmm\\n, 64*\\n(%0)\n\t.endr\n\t"
			     ".irp n," TILES "\n\tkmovq %%k\\n, 8*\\n(%1)\n\t.endr"
			     : : "r" (got.zmm), "r" (got.k) : "memory");
	asm volatile("stmxcsr %0" : "=m" (got.mxcsr));
	for (i = 0; i < 8; i++)
		asm volatile("fstpt %0" : "=m" (got.x87[i]));
}

/* Of the caller's frame: no call in between. */
static __always_inline INTEGER_ONLY void read_shadow_stack(struct regs *regs)
{
	__u64 ssp = 0;
	int i;

	asm volatile("rdsspq %0" : "+r" (ssp));
	regs->ssp = ssp;
	for (i = 0; ssp && i < 4; i++)
		asm volatile("mov (%1), %0" : "=r" (regs->shadow[i]) : "r" (ssp + 8 * i));
}

static void fill(void)
{
	__u8 *byte = (__u8 *)&want;
	unsigned int i;

	/* No two rows of it are equal. */
	for (i = 0; i < sizeof(want); i++)
		byte[i] = i * 7 + i / 64 * 3 + 1;
	memset(want.tilecfg, 0, sizeof(want.tilecfg));
	want.tilecfg[0] = 1;
	for (i = 0; i < 8; i++) {
		want.tilecfg[16 + 2 * i] = 64;
		want.tilecfg[48 + i] = 16;
		/* Normal numbers of 80 bits. */
		want.x87[i][7] |= 0x80;
		want.x87[i][9] = 0x40 + i;
		memset(want.x87[i] + 10, 0, 6);
	}
	want.pkru = PKRU;
	want.mxcsr = MXCSR;
	want.xcr0 = xgetbv(0);
	memset(&got, 0, sizeof(got));
}

/* Change what the letter says; the check must tell. */
static INTEGER_ONLY void spoil(char letter)
{
	switch (letter) {
	case 't':
		asm volatile("tilezero %tmm7");
		break;
	case 'c':
		want.tilecfg[48 + 3] = 5;
		asm volatile("ldtilecfg %0" : : "m" (want.tilecfg));
		want.tilecfg[48 + 3] = 16;
		break;
	case 'z':
		asm volatile("vpxorq %zmm31, %zmm31, %zmm31");
		break;
	case 'p':
		asm volatile("wrpkru" : : "a" (want.pkru ^ BIT(31)), "c" (0), "d" (0) : "memory");
		break;
	case 'm':
		write_msr(MSR_SSP_TABLE, SSP_TABLE + 8);
		break;
	}
}

/* ---- The check ---- */

/* Of several registers of one kind, each @size bytes. */
static void compare(const char *name, int count, const void *wanted, const void *found, int size)
{
	const __u8 *a = wanted, *b = found;
	int i, lost = 0;

	for (i = 0; i < count * size; i++) {
		if (a[i] == b[i])
			continue;
		say("lost %s, number %d of %d, byte %d: wanted %#x, got %#x", name, i / size, count,
		    i % size, a[i], b[i]);
		lost = 1;
		i += size - i % size - 1;
	}
	if (!lost)
		say("kept %s", name);
}

static void compare_value(const char *name, __u64 wanted, __u64 found)
{
	if (wanted == found)
		say("kept %s: %#llx", name, found);
	else
		say("lost %s: wanted %#llx, got %#llx", name, wanted, found);
}

/* Verify that a task without the permission still gets SIGILL of a tile instruction. */
static void check_nm(void)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		asm volatile("tilezero %tmm0");
		_exit(0);
	}
	if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
	    WTERMSIG(status) == SIGILL)
		say("kept #NM");
	else
		say("lost #NM: wanted SIGILL, got status %#x", status);
}

static void check(int with_amx)
{
	int i;

	if (with_amx) {
		compare("TMM", 8, want.tile, got.tile, 1024);
		compare("TILECFG", 1, want.tilecfg, got.tilecfg, 64);
	}
	if (has.avx512) {
		compare("ZMM", 32, want.zmm, got.zmm, 64);
		compare("K", 8, want.k, got.k, 8);
	}
	compare("ST", 8, want.x87, got.x87, 16);
	compare_value("MXCSR", want.mxcsr, got.mxcsr);
	compare_value("XCR0", want.xcr0, got.xcr0);
	if (has.pku)
		compare_value("PKRU", want.pkru, got.pkru);
	if (has.shstk) {
		compare_value("SSP", want.ssp, got.ssp);
		compare("frames", 4, want.shadow, got.shadow, 8);
	}
	for (i = 0; i < MSRS; i++) {
		if (*msrs[i].needs)
			compare_value(msrs[i].name, want.msr[i], got.msr[i]);
	}
	if (has.amx && !with_amx)
		check_nm();
}

/* ---- A round: hold, wait, check; in a process of its own ---- */

static INTEGER_ONLY void hold(int with_amx)
{
	char letter;

	read_msrs(want.msr);
	/* The kernel arms it for a task without the permission. */
	want.msr[MSR_XFD] = has.amx && !with_amx ? BIT(TILEDATA) : 0;
	read_shadow_stack(&want);
	load(with_amx);
	announce();
	letter = wait_for_letter();
	if (letter == 's')
		asm volatile("incsspq %0" : : "r" (1UL));
	else if (letter != '=')
		spoil(letter);
	store(with_amx);
	read_shadow_stack(&got);
	read_msrs(got.msr);
	check(with_amx);
}

/* Some frames for the shadow stack. */
static __attribute_noinline__ void deep(int levels, int with_amx)
{
	if (levels)
		deep(levels - 1, with_amx);
	else
		hold(with_amx);
	asm volatile("");
}

static void round_of(int with_amx)
{
	long ret = 0;

	fill();
	if (with_amx && has.amx && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILEDATA))
		say("# no permission for AMX");
	/* This function cannot return any more. */
	if (has.shstk)
		asm volatile("syscall" : "=a" (ret)
			     : "a" (SYS_arch_prctl), "D" (ARCH_SHSTK_ENABLE), "S" (ARCH_SHSTK_SHSTK)
			     : "rcx", "r11", "memory");
	if (ret)
		say("# no shadow stack: %ld", ret);
	deep(4, with_amx && has.amx);
	say("done");
	_exit(0);
}

/* ---- What there is ---- */

static int can_enable_shstk(void)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		long ret;

		asm volatile("syscall" : "=a" (ret)
			     : "a" (SYS_arch_prctl), "D" (ARCH_SHSTK_ENABLE), "S" (ARCH_SHSTK_SHSTK)
			     : "rcx", "r11", "memory");
		_exit(!!ret);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

static void find_features(void)
{
	__u32 a, b, c, d;
	__u64 supported = 0;

	__cpuid_count(7, 0, a, b, c, d);
	has.pku = !!(c & BIT(4));
	has.avx512 = !!(b & BIT(30)) && (xgetbv(0) & 0xe0) == 0xe0;
	syscall(SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &supported);
	has.amx = !!(supported & BIT(TILEDATA));
	has.shstk = can_enable_shstk();
}

static void load_msr_driver(void)
{
	int fd = open("/msr.ko", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || syscall(SYS_finit_module, fd, "allow_writes=on", 0) ||
	    mknod("/msr", S_IFCHR | 0600, makedev(202, 0)))
		say("# no MSR driver");
	close(fd);
	if (has.shstk)
		write_msr(MSR_SSP_TABLE, SSP_TABLE);
}

int main(void)
{
	pid_t pid;
	char letter;

	if (set_up_console())
		return 1;
	find_features();
	load_msr_driver();
	say("ready%s%s%s%s", has.amx ? " amx" : "", has.avx512 ? " avx512" : "",
	    has.pku ? " pku" : "", has.shstk ? " shstk" : "");
	for (;;) {
		int status = 0;

		letter = wait_for_letter();
		if (letter == 'q')
			reboot(RB_AUTOBOOT);
		pid = fork();
		if (!pid)
			round_of(letter == 'a');
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			say("died with status %#x", status);
	}
}
