// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a page allows: protection keys, and code that is modified.
 */
#include "cpu_user.h"

#include <errno.h>

#define PF_WRITE	BIT(1)
#define PF_PK		BIT(5)

/* Return a page with a key of its own, and that key. */
static char *key_page(int *key)
{
	char *page;

	read_cpu();
	catch_faults();
	if (!(cpu.xcr0 & BIT(PKRU)))
		skip("no protection keys");
	*key = syscall(SYS_pkey_alloc, 0, 0);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*key <= 0 || page == MAP_FAILED)
		skip("no protection keys");
	memset(page, 1, 4096);
	if (syscall(SYS_pkey_mprotect, page, 4096, PROT_READ | PROT_WRITE, *key))
		skip("no protection keys");
	return page;
}

static void check_key(char *page, __u32 pkru, int write, int faults)
{
	__u32 old = rdpkru();

	if (write)
		TRY("wrpkru\n\tmovb $1, (%[p])", [p] "r" (page), "a" (pkru), "c" (0), "d" (0));
	else
		TRY("wrpkru\n\tmov (%[p]), %%r10", [p] "r" (page), "a" (pkru), "c" (0), "d" (0));
	wrpkru(old);
	check((fault.signo == SIGSEGV) == faults, "PKRU %#x, %s: wanted %s, got signal %d", pkru,
	      write ? "write" : "read", faults ? "#PF" : "no fault", fault.signo);
	if (!faults)
		return;
	check_eq(fault.vector, PF_VECTOR, "vector");
	check_eq(fault.error & (PF_PK | PF_WRITE), PF_PK | (write ? PF_WRITE : 0),
		 "PK and W of the error code");
	check_eq(fault.address, (__u64)page, "address of the fault");
}

/* Verify that AD stops reads and writes of a user page, WD only writes. */
static void pkru_user_page(void)
{
	char *page;
	int key, n;

	page = key_page(&key);
	for (n = 1; n < 16; n++) {
		check_key(page, 1U << 2 * n, 0, n == key);
		check_key(page, 1U << 2 * n, 1, n == key);
		check_key(page, 2U << 2 * n, 0, 0);
		check_key(page, 2U << 2 * n, 1, n == key);
	}
	check_key(page, ~3U, 0, 1);
	check_key(page, ~3U, 1, 1);
	check_key(page, ~3U & ~(3U << 2 * key), 1, 0);
}

/* Run @pkru for a load from @page, or with no @page for a system call. */
static int child_with_pkru(__u32 pkru, char *page)
{
	sigset_t set;
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		/* A blocked fault kills, and with a handler set it is not logged. */
		sigemptyset(&set);
		sigaddset(&set, SIGSEGV);
		sigprocmask(SIG_BLOCK, &set, NULL);
		alarm(20);
		if (page)
			TRY("wrpkru\n\tmov (%[p]), %%r10\n\txor %%eax, %%eax\n\twrpkru",
			    [p] "r" (page), "a" (pkru), "c" (0), "d" (0));
		else
			/* SYSCALL overwrites RCX and R11. */
			TRY("wrpkru\n\tmov %[nr], %%eax\n\tsyscall\n\txor %%eax, %%eax\n\t"
			    "xor %%ecx, %%ecx\n\txor %%edx, %%edx\n\twrpkru",
			    "a" (pkru), "c" (0), "d" (0), [nr] "i" (SYS_getppid));
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/*
 * Verify that PKRU -1 stops data accesses to user pages, key 0 included, but
 * neither instruction fetches nor the kernel's accesses to its own pages.
 */
static void pkru_all_ones(void)
{
	static char byte[4096];
	int key;

	key_page(&key);
	check_eq(child_with_pkru(~0U, NULL), 0, "signal in a system call");
	check_eq(child_with_pkru(~0U, byte), SIGSEGV, "signal at a load");
	check_eq(child_with_pkru(0, byte), 0, "signal at a load with PKRU 0");
}

/* Verify that PKRU holds for the kernel's accesses to user pages. */
static void pkru_kernel_access(void)
{
	int key, fds[2], wrote, got;
	__u32 old;
	char *page;

	page = key_page(&key);
	if (pipe(fds))
		skip("no pipe");
	old = rdpkru();
	wrpkru(old | 1U << 2 * key);
	errno = 0;
	wrote = write(fds[1], page, 16);
	check(wrote < 0 && errno == EFAULT, "read by the kernel, AD: wanted EFAULT, got %d", wrote);
	wrpkru((old & ~(3U << 2 * key)) | 2U << 2 * key);
	wrote = write(fds[1], page, 16);
	check(wrote == 16, "read by the kernel, WD: wanted 16, got %d", wrote);
	errno = 0;
	got = read(fds[0], page, 16);
	check(got < 0 && errno == EFAULT, "write by the kernel, WD: wanted EFAULT, got %d", got);
	wrpkru(old & ~(3U << 2 * key));
	if (write(fds[1], page, 16) == 16)
		got = read(fds[0], page, 16);
	check(got == 16, "write by the kernel, PKRU 0: wanted 16, got %d", got);
	wrpkru(old);
}

/* Verify the faults of RDPKRU and WRPKRU, and that RDPKRU clears EDX. */
static void pkru_instructions(void)
{
	__u64 edx = ~0ULL;
	int key;

	key_page(&key);
	TRY("rdpkru", "a" (0), "c" (1), "d" (0));
	check_eq(fault.vector, GP_VECTOR, "vector of RDPKRU with ECX 1");
	TRY("wrpkru", "a" (0), "c" (1), "d" (0));
	check_eq(fault.vector, GP_VECTOR, "vector of WRPKRU with ECX 1");
	TRY("wrpkru", "a" (0), "c" (0), "d" (1));
	check_eq(fault.vector, GP_VECTOR, "vector of WRPKRU with EDX 1");
	asm volatile("rdpkru" : "+d" (edx) : "c" (0) : "rax");
	check_eq(edx, 0, "RDX after RDPKRU");
	wrpkru(0x5a5a5a58);
	check_eq(rdpkru(), 0x5a5a5a58, "RDPKRU after WRPKRU");
	wrpkru(0);
}

/* Store "mov $value, %eax; ret" at @to. */
static void put_code(char *to, int value)
{
	to[0] = 0xb8;
	memcpy(to + 1, &value, 4);
	to[5] = 0xc3;
}

/*
 * Verify that modified code is executed as modified, wherever in a page it is,
 * written where it is executed or through another mapping, before and after the
 * first use of AMX.
 */
static void self_modifying_code(void)
{
	char *code, *alias;
	int (*function)(void);
	int fd, at, value;
	__u64 mask = 0;

	fd = memfd_create("code", 0);
	if (fd < 0 || ftruncate(fd, 4096))
		skip("no memfd");
	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, 0);
	alias = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (code == MAP_FAILED || alias == MAP_FAILED)
		skip("no writable code");
	do {
		for (at = 0; at < 4096; at += 32) {
			for (value = 1; value < 5; value++) {
				put_code((value & 1 ? code : alias) + at, value);
				/* Code written under another address: serialize. */
				asm volatile("cpuid" : : "a" (0) : "rbx", "rcx", "rdx", "memory");
				function = (int (*)(void))(code + at);
				check_eq(function(), value, "result of the code");
			}
		}
		if (mask)
			break;
		mask = setup(0);
		if (mask & BIT(TILEDATA))
			asm volatile("ldtilecfg (%0)\n\ttilezero %%tmm0" : : "r" (op.in.tilecfg));
	} while (mask & BIT(TILEDATA));
}

static const struct cpu_test memory_tests_list[] = {
	{ "pkru_user_page", "Intel SDM vol. 3, Protection Keys", pkru_user_page },
	{ "pkru_all_ones", "Intel SDM vol. 3, Protection Keys", pkru_all_ones },
	{ "pkru_kernel_access", "Intel SDM vol. 3, Protection Keys", pkru_kernel_access },
	{ "pkru_instructions", "Intel SDM vol. 2, RDPKRU and WRPKRU", pkru_instructions },
	{ "self_modifying_code", "Intel SDM vol. 3, Self-Modifying Code", self_modifying_code },
};

TEST_GROUP(memory_tests);
