// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that is a shadow stack: where map_shadow_stack(2) puts it, what is in it, the gap
 * below it, and that nothing but the CPU's own way writes there: neither programs nor
 * system calls, nor whoever provides pages with userfaultfd.
 */
#define _GNU_SOURCE

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "xpage.h"
#include "xshstk.h"

#define PAGE		XSHSTK_PAGE

/* Where nothing of a program is */
#define FREE		(20 * XSHSTK_4G)

static long map(uint64_t addr, uint64_t size, unsigned int flags)
{
	return xshstk_call(SYS_map_shadow_stack, addr, size, flags);
}

static uint64_t *map_pages(struct __test_metadata *const _metadata, unsigned int nr)
{
	long addr = map(0, nr * PAGE, 0);

	ASSERT_TRUE(EXPECT_THAT(addr > 0, "map_shadow_stack(): %s", strerror(-addr)));
	return (uint64_t *)addr;
}

FIXTURE(xstate_shstk_map) {
};

FIXTURE_SETUP(xstate_shstk_map)
{
	long addr;

	xcomp_begin(_metadata, variant);
	addr = map(0, PAGE, 0);
	if (addr < 0 && !xf_cpuinfo_flag("user_shstk"))
		SKIP(return, "no user shadow stacks");
	ASSERT_TRUE(EXPECT_THAT(addr > 0, "map_shadow_stack(): %s", strerror(-addr)));
	munmap((void *)addr, PAGE);
}

FIXTURE_TEARDOWN(xstate_shstk_map)
{
	xcomp_end(_metadata);
}

/* A shadow stack of @size bytes at @addr, of which the process had @nr before */
static void expect_mapped(struct __test_metadata *const _metadata, uint64_t addr, uint64_t size,
			  unsigned int nr, const char *what)
{
	struct xf_shadow_stacks s;

	if (!xf_shadow_stacks(&s, addr + size))
		return;
	EXPECT_SAME(nr + 1, s.nr, "shadow stacks with %s", what);
	EXPECT_SAME(addr, s.start, "where %s starts", what);
	EXPECT_SAME(addr + size, s.end, "where %s ends", what);
}

static const struct {
	uint64_t addr, size;
	unsigned int flags;
	int wanted;
	uint64_t mapped, token_at;
} requests[] = {
	{ 0, PAGE, 0, 0, PAGE, 0 },
	{ 0, 1, 0, 0, PAGE, 0 },
	{ 0, PAGE + 1, 0, 0, 2 * PAGE, 0 },
	{ 0, 0, 0, EINVAL, 0, 0 },
	{ 0, PAGE, 2, EINVAL, 0, 0 },
	{ 0, PAGE, 1u << 31, EINVAL, 0, 0 },
	{ 0, PAGE, SHADOW_STACK_SET_TOKEN | 4, EINVAL, 0, 0 },
	{ 0, 0, SHADOW_STACK_SET_TOKEN, ENOSPC, 0, 0 },
	{ 0, 7, SHADOW_STACK_SET_TOKEN, ENOSPC, 0, 0 },
	{ 0, 8, SHADOW_STACK_SET_TOKEN, 0, PAGE, 8 },
	{ 0, 12, SHADOW_STACK_SET_TOKEN, EINVAL, 0, 0 },
	{ 0, PAGE, SHADOW_STACK_SET_TOKEN, 0, PAGE, PAGE },
	{ 0, PAGE + 8, SHADOW_STACK_SET_TOKEN, 0, 2 * PAGE, PAGE + 8 },
	{ 0, PAGE + 1, SHADOW_STACK_SET_TOKEN, EINVAL, 0, 0 },
	{ 0, 5 * PAGE - 8, SHADOW_STACK_SET_TOKEN, 0, 5 * PAGE, 5 * PAGE - 8 },
	{ 0, -1, 0, EOVERFLOW, 0, 0 },
	{ 0, -1, SHADOW_STACK_SET_TOKEN, EOVERFLOW, 0, 0 },
	{ 0, -PAGE, 0, ENOMEM, 0, 0 },
	{ 1, PAGE, 0, ERANGE, 0, 0 },
	{ PAGE, PAGE, 0, ERANGE, 0, 0 },
	{ XSHSTK_4G - PAGE, PAGE, 0, ERANGE, 0, 0 },
	{ XSHSTK_4G, PAGE, 0, 0, PAGE, 0 },
	{ FREE, 2 * PAGE, SHADOW_STACK_SET_TOKEN, 0, 2 * PAGE, 2 * PAGE },
	{ FREE + 8, PAGE, 0, EINVAL, 0, 0 },
	{ -PAGE, PAGE, 0, ENOMEM, 0, 0 },
};

/* Verify what map_shadow_stack() takes, and what it makes: its size, place and token. */
TEST_F(xstate_shstk_map, requests)
{
	struct xf_shadow_stacks before, after;
	uint64_t *bytes, i, j;
	long addr;

	for (i = 0; i < ARRAY_SIZE(requests); i++) {
		th_case("%#llx bytes at %#llx, flags %#x", (unsigned long long)requests[i].size,
			(unsigned long long)requests[i].addr, requests[i].flags);
		xf_shadow_stacks(&before, 0);
		addr = map(requests[i].addr, requests[i].size, requests[i].flags);
		if (!EXPECT_ERRNO(requests[i].wanted, addr < 0 ? -addr : 0, "result") ||
		    addr < 0) {
			xf_shadow_stacks(&after, 0);
			EXPECT_SAME(before.nr, after.nr, "shadow stacks after what was refused");
			continue;
		}
		if (requests[i].addr)
			EXPECT_SAME(requests[i].addr, addr, "address");
		EXPECT_THAT((uint64_t)addr >= XSHSTK_4G, "address %#lx", addr);
		expect_mapped(_metadata, addr, requests[i].mapped, before.nr, "what it makes");
		bytes = (uint64_t *)addr;
		for (j = 0; j < requests[i].mapped / 8; j++)
			EXPECT_SAME(j + 1 == requests[i].token_at / 8 ?
				    (addr + requests[i].token_at) | 1 : 0, bytes[j],
				    "slot %llu", (unsigned long long)j);
		EXPECT_EQ(0, munmap(bytes, requests[i].mapped));
		xf_shadow_stacks(&after, 0);
		EXPECT_SAME(before.nr, after.nr, "shadow stacks after munmap()");
	}
	th_no_case();
}

/* Verify that it takes the place of nothing that is there. */
TEST_F(xstate_shstk_map, occupied)
{
	uint64_t *pages = map_pages(_metadata, 2);
	uint8_t *others = xf_guarded(PAGE, 1);

	EXPECT_ERRNO(EEXIST, -map((unsigned long)others, PAGE, 0), "on other memory");
	EXPECT_ERRNO(EEXIST, -map((unsigned long)others - PAGE, 2 * PAGE, 0),
		     "partly on other memory");
	EXPECT_SAME(1, others[0], "what was there");
	EXPECT_ERRNO(EEXIST, -map((unsigned long)pages + PAGE, PAGE, 0), "on a shadow stack");
}

/* Nothing moves SSP over a page that is not there. */
static void expect_gap(struct __test_metadata *const _metadata, uint64_t *stack, const char *what)
{
	uint8_t *below = (uint8_t *)stack - PAGE;
	unsigned char in_core;

	errno = 0;
	EXPECT_THAT(mincore(below, PAGE, &in_core) && errno == ENOMEM,
		    "something is mapped right below %s", what);
}

/*
 * Verify that there is a page of nothing below each shadow stack, whether that or
 * other memory was there first, unless somebody insists.
 */
TEST_F(xstate_shstk_map, gap)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
	uint64_t *stacks[64], *stack;
	uint8_t *p, *area;
	unsigned int i;

	/* A free page between others, which is not enough */
	area = mmap(NULL, 8 * PAGE, PROT_NONE, flags, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_EQ(0, munmap(area + PAGE, PAGE));
	for (i = 0; i < ARRAY_SIZE(stacks); i++) {
		stacks[i] = map_pages(_metadata, 1);
		mmap(NULL, PAGE, prot, flags, -1, 0);
	}
	for (i = 0; i < ARRAY_SIZE(stacks); i++)
		expect_gap(_metadata, stacks[i], "a shadow stack");

	/* Other memory, three free pages, a shadow stack */
	area = mmap(NULL, 8 * PAGE, PROT_NONE, flags, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_EQ(0, munmap(area + PAGE, 4 * PAGE));
	stack = (uint64_t *)(area + 4 * PAGE);
	ASSERT_EQ((long)stack, map((unsigned long)stack, PAGE, 0));
	/* What is refused there is put elsewhere, and may be in the way. */
	p = mmap(area + 3 * PAGE, PAGE, prot, flags, -1, 0);
	EXPECT_THAT(p != area + 3 * PAGE, "memory where the gap has to be, by a hint");
	munmap(p, PAGE);
	p = mmap(area + 2 * PAGE, 2 * PAGE, prot, flags, -1, 0);
	EXPECT_THAT(p != area + 2 * PAGE, "memory that ends where the stack starts, by a hint");
	munmap(p, 2 * PAGE);
	p = mmap(area + 2 * PAGE, PAGE, prot, flags, -1, 0);
	EXPECT_THAT(p == area + 2 * PAGE, "no memory right below the gap, by a hint");
	expect_gap(_metadata, stack, "a shadow stack in a hole");
	p = mmap(area + 3 * PAGE, PAGE, prot, flags | MAP_FIXED_NOREPLACE, -1, 0);
	EXPECT_THAT(p == area + 3 * PAGE, "no memory in the gap for who insists: %s",
		    strerror(errno));
	EXPECT_SAME(0, *stack, "what is on the stack");
}

static void end_quietly(int sig)
{
	_exit(sig);
}

/* Whether a write or read of it by the program raises SIGSEGV, in a child */
static bool raises(struct __test_metadata *const _metadata, uint64_t *at, bool write)
{
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid) {
		signal(SIGSEGV, end_quietly);
		if (write)
			__atomic_store_n(at, 0x5a, __ATOMIC_RELAXED);
		_exit(__atomic_load_n(at, __ATOMIC_RELAXED) == 0x5a ? KSFT_FAIL : 0);
	}
	status = xf_wait_briefly(_metadata, pid, "a write to a shadow stack");
	return WIFEXITED(status) && WEXITSTATUS(status) == SIGSEGV;
}

static void expect_not_written(struct __test_metadata *const _metadata, uint64_t *stack,
			       const char *which)
{
	static const uint64_t value = 0x5a5a;
	struct iovec from = { (void *)&value, 8 }, to = { stack, 8 };
	uint64_t got = -1;
	int pipes[2];

	EXPECT_THAT(raises(_metadata, stack, true), "no SIGSEGV for a write, %s", which);
	EXPECT_THAT(!raises(_metadata, stack, false), "SIGSEGV for reading, %s", which);
	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ(8, write(pipes[1], &value, 8));
	EXPECT_ERRNO(EFAULT, read(pipes[0], stack, 8) < 0 ? errno : 0, "read() to %s", which);
	/* Not all kernels have these. */
	EXPECT_THAT(process_vm_writev(getpid(), &from, 1, &to, 1, 0) < 0,
		    "process_vm_writev() to %s", which);
	from.iov_base = &got;
	if (process_vm_readv(getpid(), &from, 1, &to, 1, 0) == 8)
		EXPECT_SAME(0, got, "what process_vm_readv() finds, %s", which);
	EXPECT_SAME(0, *stack, "what is there, %s", which);
	close(pipes[0]);
	close(pipes[1]);
}

/*
 * Verify that a program can read a shadow stack but not write to it, nor have the kernel do
 * so, whether anybody has used its pages before or not.
 */
TEST_F(xstate_shstk_map, write)
{
	uint64_t *stack = map_pages(_metadata, 2);

	expect_not_written(_metadata, stack, "an unused page");
	expect_not_written(_metadata, stack, "a page that was read");
	munmap(stack, 2 * PAGE);
	stack = (uint64_t *)map(0, PAGE, SHADOW_STACK_SET_TOKEN);
	expect_not_written(_metadata, stack, "the page of a token");
	EXPECT_SAME(((unsigned long)stack + PAGE) | 1, stack[511], "the token");
}

/* In a child on a shadow stack: WRSS to @at of another one, which may raise SIGSEGV */
static void write_by_cpu(struct __test_metadata *const _metadata, void *at)
{
	(void)_metadata;
	signal(SIGSEGV, end_quietly);
	xshstk_request(ARCH_SHSTK_ENABLE, ARCH_SHSTK_WRSS);
	xshstk_write(at, 0x77);
	xshstk_call(SYS_exit_group, *(uint64_t *)at == 0x77 ? 0 : KSFT_FAIL, 0, 0);
}

/* False if it faults without an end, so that there should be no more of that. */
static bool expect_cpu_write(struct __test_metadata *const _metadata, void *at, bool works,
			     const char *when)
{
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid) {
		if (!xregs_enable_shadow_stack())
			xregs_no_shadow_stack(_metadata);
		write_by_cpu(_metadata, at);
	}
	status = xf_wait_briefly(_metadata, pid, when);
	if (status != -1)
		EXPECT_SAME(works ? 0 : SIGSEGV, WIFEXITED(status) ? WEXITSTATUS(status) : -1,
			    "exit status, or SIGSEGV, of WRSS, %s", when);
	return status != -1;
}

/*
 * Verify that shadow stack accesses of the CPU work on shadow stacks that may be written,
 * used by nobody before, and nowhere else, whatever mprotect() and mremap() have made of
 * both kinds of memory.
 */
TEST_F(xstate_shstk_map, protection)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
	uint64_t *stack = map_pages(_metadata, 1), *moved;
	uint8_t *others = mmap(NULL, PAGE, prot, flags, -1, 0);
	struct xf_shadow_stacks before, after;

	xf_shadow_stacks(&before, 0);
	if (!expect_cpu_write(_metadata, stack, true, "unused") ||
	    !expect_cpu_write(_metadata, others, false, "on other memory, unused"))
		return;
	others[0] = 1;
	expect_cpu_write(_metadata, others, false, "on other memory, used");
	EXPECT_EQ(0, mprotect(others, PAGE, PROT_READ));
	expect_cpu_write(_metadata, others, false, "on other memory, to be read only");
	EXPECT_EQ(0, mprotect(others, PAGE, prot));
	expect_cpu_write(_metadata, others, false, "on other memory, to be written again");
	EXPECT_EQ(0, mprotect(stack, PAGE, PROT_READ));
	expect_cpu_write(_metadata, stack, false, "to be read only");
	EXPECT_THAT(raises(_metadata, stack, true), "no SIGSEGV for a write, to be read only");
	EXPECT_EQ(0, mprotect(stack, PAGE, PROT_NONE));
	expect_cpu_write(_metadata, stack, false, "with no access");
	EXPECT_EQ(0, mprotect(stack, PAGE, prot));
	expect_cpu_write(_metadata, stack, true, "to be written again");
	expect_not_written(_metadata, stack, "a page to be written again");
	xf_shadow_stacks(&after, 0);
	EXPECT_SAME(before.nr, after.nr, "shadow stacks after mprotect()");
	moved = mremap(stack, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, FREE);
	if (moved == MAP_FAILED)
		return;
	expect_cpu_write(_metadata, moved, true, "moved");
	expect_not_written(_metadata, moved, "a page that was moved");
}

static void wait_to_be_written(struct __test_metadata *const _metadata, void *arg)
{
	(void)_metadata;
	(void)arg;
	raise(SIGSTOP);
}

/* Verify that a debugger can write to a shadow stack, and to no copy but the task's own. */
TEST_F(xstate_shstk_map, debugger)
{
	uint64_t *stack = map_pages(_metadata, 1);
	pid_t pid = xregs_trace(_metadata, wait_to_be_written, NULL);

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	EXPECT_SAME(0, ptrace(PTRACE_PEEKDATA, pid, stack, NULL), "what a debugger reads");
	EXPECT_EQ(0, ptrace(PTRACE_POKEDATA, pid, stack, (void *)0x77));
	EXPECT_SAME(0x77, ptrace(PTRACE_PEEKDATA, pid, stack, NULL), "what a debugger has written");
	EXPECT_SAME(0, *stack, "what its parent has there");
	xf_kill(_metadata, pid);
}

/* No page goes from @stack to the memory at @to, which takes others. */
static void expect_not_moved(struct __test_metadata *const _metadata, int fd,
			     const uint64_t *stack, uint64_t to)
{
	uint64_t *others = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0);
	struct uffdio_move move = { .dst = to, .src = (unsigned long)stack, .len = PAGE };

	if (!EXPECT_ERRNO(EINVAL, ioctl(fd, UFFDIO_MOVE, &move) ? errno : 0,
			  "UFFDIO_MOVE from a shadow stack"))
		return;
	EXPECT_SAME(0, *stack, "what is on the stack that was not moved");
	*others = 0x55;
	move.src = (unsigned long)others;
	EXPECT_ERRNO(0, ioctl(fd, UFFDIO_MOVE, &move) ? errno : 0, "UFFDIO_MOVE from others");
	EXPECT_SAME(0x55, *(uint64_t *)to, "what was moved");
}

/* Verify that nobody can provide the pages of a shadow stack, or take them away. */
TEST_F(xstate_shstk_map, userfaultfd)
{
	static const struct {
		const char *name;
		uint64_t mode;
	} modes[] = {
		{ "UFFDIO_REGISTER_MODE_MISSING", UFFDIO_REGISTER_MODE_MISSING },
		{ "UFFDIO_REGISTER_MODE_WP", UFFDIO_REGISTER_MODE_WP },
		{ "both", UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP },
	};
	uint8_t *others = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			       0);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { };
	uint64_t *stack = map_pages(_metadata, 1);
	struct uffdio_copy copy = {
		.dst = (unsigned long)stack, .src = (unsigned long)others, .len = PAGE,
	};
	unsigned int i;
	int fd;

	fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		SKIP(return, XPAGE_NO_UFFD);
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		reg.range.start = (unsigned long)stack;
		reg.range.len = PAGE;
		reg.mode = modes[i].mode;
		/* Who reads such a page waits for ever; without the descriptor it is as before. */
		if (!EXPECT_ERRNO(EINVAL, ioctl(fd, UFFDIO_REGISTER, &reg) ? errno : 0, "%s",
				  modes[i].name)) {
			close(fd);
			return;
		}
	}
	/* Nor along with memory that may be */
	ASSERT_EQ((long)FREE, map(FREE, PAGE, 0));
	ASSERT_EQ((void *)(FREE + PAGE), mremap(others, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
						FREE + PAGE));
	reg.range.start = FREE;
	reg.range.len = 2 * PAGE;
	reg.mode = UFFDIO_REGISTER_MODE_MISSING;
	if (!EXPECT_ERRNO(EINVAL, ioctl(fd, UFFDIO_REGISTER, &reg) ? errno : 0,
			  "along with others")) {
		close(fd);
		return;
	}
	copy.src = FREE + PAGE;
	EXPECT_ERRNO(ENOENT, ioctl(fd, UFFDIO_COPY, &copy) ? errno : 0, "UFFDIO_COPY");
	EXPECT_SAME(0, *stack, "what is on the stack");
	reg.range.start = FREE + PAGE;
	reg.range.len = PAGE;
	EXPECT_ERRNO(0, ioctl(fd, UFFDIO_REGISTER, &reg) ? errno : 0, "the others alone");
	if (reg.ioctls & XF_BIT(_UFFDIO_MOVE))
		expect_not_moved(_metadata, fd, stack, FREE + PAGE);
	close(fd);
}

static void call_deep(unsigned int depth)
{
	if (depth)
		call_deep(depth - 1);
	asm volatile("" : : : "memory");
}

/* Change to a shadow stack by its token, and to the first one by the token left there. */
static void change_stack(struct __test_metadata *const _metadata, void *arg)
{
	uint64_t ssp = xregs_ssp(), there;
	long base = map(0, 4 * PAGE, SHADOW_STACK_SET_TOKEN);

	(void)arg;
	asm volatile("rstorssp (%0)\n\t"
		     "saveprevssp" : : "r" (base + 4 * PAGE - 8) : "memory");
	there = xregs_ssp();
	call_deep(600);
	asm volatile("rstorssp (%0)\n\t"
		     "saveprevssp" : : "r" (ssp - 8) : "memory");
	EXPECT_SAME(base + 4 * PAGE, there, "SSP on the other stack");
	EXPECT_SAME(ssp, xregs_ssp(), "SSP, back again");
}

/* Verify that the token is one by which the CPU changes to that stack. */
TEST_F(xstate_shstk_map, token)
{
	xregs_on_shadow_stack(_metadata, "changing to another one", change_stack, NULL);
}

XCOMP_HARNESS_MAIN
