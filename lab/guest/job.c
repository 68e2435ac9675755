// SPDX-License-Identifier: GPL-2.0-only
/*
 * Inside the host: ask the emulator for this machine's job, or end the machine.
 *
 *	job		write the job, a cpio archive, to stdout.  The emulator answers
 *			the first question of a copy of the machine; the machine itself
 *			never gets an answer.
 *	job end		wait until stdout, a serial port, is empty, and stop
 *
 * The emulator's CPUID leaf for that is BX_LAB_LEAF of the fork server's patch.  Under
 * QEMU the job is a file of its firmware configuration device (docs/specs/fw_cfg there),
 * empty in the machine that boots; lab/py/qemu.py gives it ports to say that it is ready,
 * and to end by.
 *
 * There is no libc here, for this is a part of every initramfs.
 */

#include <asm/unistd.h>

#define LAB_LEAF	0x4c414200
#define LAB_READ	0
#define LAB_END		1

#define FW_CFG_SELECTOR		0x510
#define FW_CFG_DATA		0x511
#define FW_CFG_SIGNATURE	0
#define FW_CFG_FILE_DIR		0x19
#define FW_CFG_JOB		"opt/lab/job"
#define QEMU_READY		0xe9
#define QEMU_EXIT		0xf4

#define TCSBRK		0x5409

static char buffer[4096];

static long lab(unsigned int function, char *data, unsigned int size)
{
	unsigned int eax = LAB_LEAF, ebx, ecx = function, edx = size;

	asm volatile("cpuid"
		     : "+a" (eax), "=b" (ebx), "+c" (ecx), "+d" (edx)
		     : "D" (data)
		     : "memory");
	return eax;
}

static long syscall3(long number, long a, long b, long c)
{
	long ret;

	asm volatile("syscall"
		     : "=a" (ret)
		     : "a" (number), "D" (a), "S" (b), "d" (c)
		     : "rcx", "r11", "memory");
	return ret;
}

static int write_out(long size)
{
	long done, n;

	for (done = 0; done < size; done += n) {
		n = syscall3(__NR_write, 1, (long)buffer + done, size - done);
		if (n <= 0)
			return 1;
	}
	return 0;
}

static int copy_job(void)
{
	long size;

	while ((size = lab(LAB_READ, buffer, sizeof(buffer))))
		if (write_out(size))
			return 1;
	return 0;
}

/* ---- QEMU ---- */

static void out8(unsigned short port, unsigned char value)
{
	asm volatile("outb %0, %1" : : "a" (value), "Nd" (port));
}

static void fw_cfg_select(unsigned short key)
{
	asm volatile("outw %0, %1" : : "a" (key), "Nd" ((unsigned short)FW_CFG_SELECTOR));
}

static void fw_cfg_read(void *to, unsigned long size)
{
	asm volatile("rep insb" : "+D" (to), "+c" (size) : "d" (FW_CFG_DATA) : "memory");
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* Where there is no such device, all bits read as 1. */
static int is_qemu(void)
{
	if (syscall3(__NR_iopl, 3, 0, 0))
		return 0;
	fw_cfg_select(FW_CFG_SIGNATURE);
	fw_cfg_read(buffer, 4);
	buffer[4] = 0;
	return same(buffer, "QEMU");
}

/* Select the job; its size, 0 if there is none (yet). */
static unsigned int find_job(void)
{
	struct {
		unsigned int size;		/* big-endian, as the next one */
		unsigned short key, reserved;
		char name[56];
	} file;
	unsigned int count;

	fw_cfg_select(FW_CFG_FILE_DIR);
	fw_cfg_read(&count, sizeof(count));
	for (count = __builtin_bswap32(count); count; count--) {
		fw_cfg_read(&file, sizeof(file));
		if (same(file.name, FW_CFG_JOB)) {
			fw_cfg_select(__builtin_bswap16(file.key));
			return __builtin_bswap32(file.size);
		}
	}
	return 0;
}

/* The machine is saved when it has said that it is ready; what goes on is a copy of it. */
static int copy_job_of_qemu(void)
{
	static const long nap[2] = { 0, 1000 * 1000 };
	unsigned int left, n;

	out8(QEMU_READY, '!');
	/* A file of one byte stands for none. */
	while ((left = find_job()) <= 1)
		syscall3(__NR_nanosleep, (long)nap, 0, 0);
	for (; left; left -= n) {
		n = left < sizeof(buffer) ? left : sizeof(buffer);
		fw_cfg_read(buffer, n);
		if (write_out(n))
			return 1;
	}
	return 0;
}

/* The kernel enters here: RSP points to argc, and argv behind it. */
void start(long *stack);
void start(long *stack)
{
	int status = 1, qemu = is_qemu();

	if (stack[0] > 1) {
		syscall3(__NR_ioctl, 1, TCSBRK, 1);
		if (qemu)
			out8(QEMU_EXIT, 0);
		else
			lab(LAB_END, buffer, 0);
	} else {
		status = qemu ? copy_job_of_qemu() : copy_job();
	}
	syscall3(__NR_exit_group, status, 0, 0);
	__builtin_unreachable();
}

asm(".globl _start\n"
	"_start:\n"
	"mov %rsp, %rdi\n"
	"and $-16, %rsp\n"
	"call start\n");
