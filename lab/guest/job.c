// SPDX-License-Identifier: GPL-2.0-only
/*
 * Inside the host: ask the emulator for this machine's job, or end the machine.
 *
 *	job		write the job, a cpio archive, to stdout.  The emulator answers
 *			the first question of a copy of the machine; the machine itself
 *			never gets an answer.
 *	job end		wait until stdout, a serial port, is empty, and stop
 *
 * The emulator's CPUID leaf for that is BX_LAB_LEAF of the fork server's patch.
 * There is no libc here, for this is a part of every initramfs.
 */

#include <asm/unistd.h>

#define LAB_LEAF	0x4c414200
#define LAB_READ	0
#define LAB_END		1

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

static int copy_job(void)
{
	long size, done, n;

	while ((size = lab(LAB_READ, buffer, sizeof(buffer)))) {
		for (done = 0; done < size; done += n) {
			n = syscall3(__NR_write, 1, (long)buffer + done, size - done);
			if (n <= 0)
				return 1;
		}
	}
	return 0;
}

/* The kernel enters here: RSP points to argc, and argv behind it. */
void start(long *stack);
void start(long *stack)
{
	int status = 0;

	if (stack[0] > 1) {
		syscall3(__NR_ioctl, 1, TCSBRK, 1);
		lab(LAB_END, buffer, 0);
		status = 1;
	} else {
		status = copy_job();
	}
	syscall3(__NR_exit_group, status, 0, 0);
	__builtin_unreachable();
}

asm(".globl _start\n"
	"_start:\n"
	"mov %rsp, %rdi\n"
	"and $-16, %rsp\n"
	"call start\n");
