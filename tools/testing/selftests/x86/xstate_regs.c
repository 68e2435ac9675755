// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of a task that AMX is permitted to, or to its guests: what its
 * tile instructions do, what its first use of AMX leaves alone, what children
 * and threads get of its tiles and of its shadow stack, and what debuggers and
 * core dumps see.  A permission for guests changes nothing of that.
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

#include "xregs.h"

/* More than a core dump of this program takes */
#define CORE_SIZE	(64ul << 20)

FIXTURE(xstate_regs) {
	struct xcomp_perm perm;
};

FIXTURE_SETUP(xstate_regs)
{
	xcomp_begin(_metadata, variant);
}

FIXTURE_TEARDOWN(xstate_regs)
{
	xcomp_end(_metadata);
}

static sigjmp_buf after_sigill;
static siginfo_t sigill;
static unsigned long sigill_ip;

static void on_sigill(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	sigill = *info;
	sigill_ip = uc->uc_mcontext.gregs[REG_RIP];
	siglongjmp(after_sigill, sig);
}

/* Whether AMX works; if not, the signal must say what CPU or kernel refuse. */
static void expect_amx(struct __test_metadata *const _metadata, bool works, const char *when)
{
	const struct sigaction action = { .sa_sigaction = on_sigill, .sa_flags = SA_SIGINFO };
	int sig = xcomp_try_amx();

	EXPECT_SAME(works ? 0 : SIGILL, sig, "signal that the use of AMX raises, %s", when);
	if (sig != SIGILL)
		return;
	EXPECT_EQ(0, sigaction(SIGILL, &action, NULL));
	if (!sigsetjmp(after_sigill, 1))
		xcomp_touch_amx();
	EXPECT_SAME(xcomp_have_amx() ? ILL_ILLOPC : ILL_ILLOPN, sigill.si_code,
		    "si_code of SIGILL, %s", when);
	EXPECT_SAME(sigill_ip, (unsigned long)sigill.si_addr, "si_addr of SIGILL, %s", when);
}

static void amx_in_thread(struct __test_metadata *const _metadata, void *works)
{
	expect_amx(_metadata, *(bool *)works, "in a thread");
}

static void amx_in_child(struct __test_metadata *const _metadata, void *works)
{
	xcomp_in_thread(_metadata, "thread of a child", amx_in_thread, works);
	expect_amx(_metadata, *(bool *)works, "in a child");
}

/*
 * Verify that AMX raises SIGILL until the host's permission is there, with that
 * of the guest or without, and then works for threads and children too.
 */
TEST_F(xstate_regs, sigill)
{
	expect_amx(_metadata, false, "without permission");
	xcomp_in_thread(_metadata, "thread", amx_in_thread, &self->perm.host);
	xcomp_request_guest(_metadata, &self->perm);
	expect_amx(_metadata, false, "with the guest's permission");
	xcomp_in_thread(_metadata, "thread", amx_in_thread, &self->perm.host);
	xcomp_request_host(_metadata, &self->perm);
	xcomp_in_child(_metadata, "child", amx_in_child, &self->perm.host);
	xcomp_in_thread(_metadata, "thread", amx_in_thread, &self->perm.host);
	expect_amx(_metadata, self->perm.host, "with the host's permission");
}

/*
 * Load the state of @loaded, use AMX, and save all state at once, and again
 * after three sleeps.  From the first load on no compiled code may run, as it
 * would use the registers.  In the end all is as it was.
 */
static void use_between(const struct xregs *loaded, struct xregs *saved[2])
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	const struct {
		uint64_t mask, all;
		const void *own, *loaded, *config, *data, *saved[2], *nap;
	} c = {
		.mask = xregs_mask(), .all = xf_xcr0(), .own = xregs_alloc(), .loaded = loaded,
		.config = xregs_at(loaded, XFEATURE_MASK_XTILE_CFG),
		.data = xregs_at(loaded, XFEATURE_MASK_XTILE_DATA),
		.saved = { saved[0], saved[1] }, .nap = &nap,
	};

	asm volatile("mov 0(%%rbx), %%eax\n\t"
		     "mov 4(%%rbx), %%edx\n\t"
		     "mov 16(%%rbx), %%rdi\n\t"
		     "xsave64 (%%rdi)\n\t"
		     "mov 24(%%rbx), %%rdi\n\t"
		     "xrstor64 (%%rdi)\n\t"
		     "mov 32(%%rbx), %%rax\n\t"
		     "mov 40(%%rbx), %%rdi\n\t"
		     XREGS_LOAD_TILES
		     "mov 8(%%rbx), %%eax\n\t"
		     "mov 12(%%rbx), %%edx\n\t"
		     "mov 48(%%rbx), %%rdi\n\t"
		     "xsave64 (%%rdi)\n\t"
		     "mov $3, %%r12d\n"
		     "1:\n\t"
		     "mov %[nanosleep], %%eax\n\t"
		     "mov 64(%%rbx), %%rdi\n\t"
		     "xor %%esi, %%esi\n\t"
		     "syscall\n\t"
		     "dec %%r12d\n\t"
		     "jnz 1b\n\t"
		     "mov 8(%%rbx), %%eax\n\t"
		     "mov 12(%%rbx), %%edx\n\t"
		     "mov 56(%%rbx), %%rdi\n\t"
		     "xsave64 (%%rdi)\n\t"
		     "tilerelease\n\t"
		     "mov 0(%%rbx), %%eax\n\t"
		     "mov 4(%%rbx), %%edx\n\t"
		     "mov 16(%%rbx), %%rdi\n\t"
		     "xrstor64 (%%rdi)\n\t"
		     : : "b" (&c), [nanosleep] "i" (SYS_nanosleep)
		     : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "r12", "memory");
}

/*
 * Verify that the first use of AMX changes no other register, and that they and
 * the tiles are still there once another task has had the CPU.
 */
TEST_F(xstate_regs, first_use)
{
	struct xregs *saved[2] = { xregs_alloc(), xregs_alloc() }, *pattern;
	uint64_t mask = xregs_mask() | XFEATURE_MASK_XTILE;
	pid_t hog;

	if (!xcomp_have_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	pattern = xregs_pattern(mask);
	xcomp_pin(_metadata);
	hog = xcomp_hog(_metadata);
	use_between(pattern, saved);
	xcomp_kill(_metadata, hog);

	EXPECT_SAME_MASK(xf_names, mask, saved[0]->xstate_bv & mask,
			 "in use right after the first use of AMX");
	EXPECT_XREGS(mask, pattern, saved[0], "right after the first use of AMX");
	EXPECT_SAME_MASK(xf_names, mask, saved[1]->xstate_bv & mask,
			 "in use once another task has run");
	EXPECT_XREGS(mask, pattern, saved[1], "once another task has run");
}

/* Does not return, as its caller has no shadow stack. */
static __noreturn void use_on_shadow_stack(struct __test_metadata *const _metadata)
{
	uint64_t ssp = xregs_ssp();

	EXPECT_THAT(ssp, "no shadow stack once it was enabled");
	xregs_load_tiles(xregs_pattern(XFEATURE_MASK_XTILE));
	EXPECT_SAME(ssp, xregs_ssp(), "SSP right after the first use of AMX");
	xregs_release_tiles();
	xcomp_lose_cpu(_metadata);
	EXPECT_SAME(ssp, xregs_ssp(), "SSP once another task has run");
	fflush(stdout);
	_exit(KSFT_PASS);
}

/* Wait for a child that enables a shadow stack; false if there are none. */
static bool join_on_shadow_stack(struct __test_metadata *const _metadata, pid_t pid)
{
	int status = xcomp_wait(_metadata, pid, "child on a shadow stack");

	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		return false;
	EXPECT_SAME(0, status, "wait status of a child on a shadow stack");
	return true;
}

/* Verify that CET_USER of a task is kept over its first use of AMX. */
TEST_F(xstate_regs, first_use_shstk)
{
	pid_t pid;

	if (!xcomp_have_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	xcomp_pin(_metadata);
	pid = xcomp_fork(_metadata);
	if (!pid) {
		if (!xregs_enable_shadow_stack())
			xregs_no_shadow_stack(_metadata);
		use_on_shadow_stack(_metadata);
	}
	if (!join_on_shadow_stack(_metadata, pid))
		SKIP(return, "no user shadow stacks");
}

/* Tell the parent, whose memory this is, where the shadow stack is. */
static int tell_ssp(void *arg)
{
	*(uint64_t *)arg = xregs_ssp();
	return 0;
}

/* Does not return, as its caller has no shadow stack. */
static __noreturn void clone_on_shadow_stack(struct __test_metadata *const _metadata)
{
	static uint8_t stack[64 * 1024];
	uint64_t ssp = xregs_ssp(), theirs = 0;
	pid_t pid;

	if (xcomp_have_amx())
		xcomp_touch_amx();
	pid = clone(tell_ssp, stack + sizeof(stack), CLONE_VM | SIGCHLD, &theirs);
	EXPECT_THAT(pid > 0, "clone(): %s", strerror(errno));
	if (pid > 0)
		xcomp_join(_metadata, pid, "child on its parent's memory");
	EXPECT_THAT(theirs, "no shadow stack in a child on its parent's memory");
	EXPECT_THAT(theirs - ssp + sizeof(stack) > 2 * sizeof(stack),
		    "SSP of the child %#llx, of its parent %#llx", (unsigned long long)theirs,
		    (unsigned long long)ssp);
	fflush(stdout);
	_exit(KSFT_PASS);
}

/*
 * Verify that a child that shares its parent's memory does not share its shadow
 * stack, whose pointer the kernel sets in the child's fpstate.  That one is
 * smaller than its parent's if the parent has used AMX.
 */
TEST_F(xstate_regs, clone_shstk)
{
	pid_t pid;

	xcomp_request_host(_metadata, &self->perm);
	pid = xcomp_fork(_metadata);
	if (!pid) {
		if (!xregs_enable_shadow_stack())
			xregs_no_shadow_stack(_metadata);
		clone_on_shadow_stack(_metadata);
	}
	if (!join_on_shadow_stack(_metadata, pid))
		SKIP(return, "no user shadow stacks");
}

static void has_no_tiles(struct __test_metadata *const _metadata, void *whose)
{
	EXPECT_THAT(!xregs_tiles_in_use(), "tiles in use in %s", (char *)whose);
}

/*
 * Verify that neither a child nor a thread starts with its creator's tiles, and
 * that the creator keeps them.
 */
TEST_F(xstate_regs, tile_not_inherited)
{
	struct xregs *pattern, *saved = xregs_alloc();

	if (!xcomp_have_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	pattern = xregs_pattern(XFEATURE_MASK_XTILE);
	xregs_load_tiles(pattern);
	EXPECT_THAT(xregs_tiles_in_use(), "no tiles in use in the task that has loaded them");
	xcomp_in_child(_metadata, "child", has_no_tiles, "a child");
	xcomp_in_thread(_metadata, "thread", has_no_tiles, "a thread");
	xregs_save(saved, XFEATURE_MASK_XTILE);
	EXPECT_XREGS(XFEATURE_MASK_XTILE, pattern, saved, "of their creator");
	xregs_release_tiles();
}

/* The registers of a stopped child: their size, their mask, what can be set */
static void expect_regset(struct __test_metadata *const _metadata, pid_t pid, bool used,
			  const char *when)
{
	uint64_t mask = xf_xcr0() & ~(used ? 0 : XFEATURE_MASK_XTILE_DATA), bv;
	uint32_t size = xf_standard_size(xf_xcr0()), room = size + 4096;
	struct xregs *regs = (void *)xf_guarded(room, 0x5a);
	struct iovec iov = { regs, room };
	int i;

	mask |= XFEATURE_MASK_FPSSE;
	ASSERT_EQ(0, ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &iov));
	EXPECT_SAME(size, iov.iov_len, "size of NT_X86_XSTATE, %s", when);
	EXPECT_SAME_MASK(xf_names, xf_xcr0(), regs->xcr0, "mask in NT_X86_XSTATE, %s",
			 when);
	bv = regs->xstate_bv;
	EXPECT_SAME_MASK(xf_names, 0, bv & ~mask,
			 "XSTATE_BV beyond the task's components, %s", when);

	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_XSTATE, regs, size),
		     "setting what was read, %s", when);
	for (i = 0; i < 64; i++) {
		if (mask >> i & 1)
			continue;
		regs->xstate_bv = bv | 1ULL << i;
		EXPECT_ERRNO(EINVAL, xregs_set_regset(pid, NT_X86_XSTATE, regs, size),
			     "setting %s, which the task has not, %s", xf_name(i), when);
	}
	regs->xstate_bv = bv;
	EXPECT_ERRNO(EFAULT, xregs_set_regset(pid, NT_X86_XSTATE, regs, size - 8),
		     "setting less than all, %s", when);
}

static void stop(struct __test_metadata *const _metadata, void *used)
{
	if (used)
		xcomp_use_amx(_metadata, "in a traced child");
	raise(SIGSTOP);
}

/* Of a child that has used AMX or not */
static void expect_traced(struct __test_metadata *const _metadata, bool used, const char *when)
{
	pid_t pid = xregs_trace(_metadata, stop, used ? &used : NULL);

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	expect_regset(_metadata, pid, used, when);
	xcomp_kill(_metadata, pid);
}

/*
 * Verify what a debugger sees and may set: all of XCR0 in size and mask,
 * whatever is permitted, but no XTILE_DATA.
 */
TEST_F(xstate_regs, ptrace)
{
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	expect_traced(_metadata, false, "without permission");
	xcomp_request_guest(_metadata, &self->perm);
	expect_traced(_metadata, false, "with the guest's permission");
	xcomp_request_host(_metadata, &self->perm);
	expect_traced(_metadata, false, "with both permissions");
}

/* Verify the same of a task that has used AMX, which has XTILE_DATA too. */
TEST_F(xstate_regs, ptrace_amx)
{
	if (!xcomp_have_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	expect_traced(_metadata, true, "once AMX was used");
}

/* An ELF file, as far as it takes to find its notes: see elf.h */
#define ELF_PHOFF	32
#define ELF_PHNUM	56

struct segment {
	uint32_t type, flags;
	uint64_t offset, virtual, physical, file_size, size, align;
};

struct note {
	uint32_t name_size, size, type;
};

/* A core dump: what ELF says of its notes, and where memory starts after them */
struct core {
	uint8_t *bytes;
	size_t size, notes, notes_end, memory;
};

/* A component in NT_X86_XSAVE_LAYOUT */
struct layout {
	uint32_t type, size, offset, flags;
};

static bool core_parse(struct core *core)
{
	struct segment *s = (void *)(core->bytes + *(uint64_t *)(core->bytes + ELF_PHOFF));
	int i, nr = *(uint16_t *)(core->bytes + ELF_PHNUM);

	core->memory = core->size;
	for (i = 0; i < nr; i++) {
		if (s[i].type == PT_NOTE) {
			core->notes = s[i].offset;
			core->notes_end = s[i].offset + s[i].file_size;
		} else if (s[i].file_size && s[i].offset < core->memory) {
			core->memory = s[i].offset;
		}
	}
	return core->notes && core->notes_end <= core->size;
}

/* The note of @type, NULL if there is none */
static void *core_note(const struct core *core, uint32_t type, uint32_t *len)
{
	size_t at = core->notes;
	struct note *n;

	while (at + sizeof(*n) <= core->notes_end) {
		n = (void *)(core->bytes + at);
		at += sizeof(*n) + ((n->name_size + 3) & ~3u);
		*len = n->size;
		if (n->type == type)
			return at + *len <= core->notes_end ? core->bytes + at : NULL;
		at += (n->size + 3) & ~3u;
	}
	return NULL;
}

/* Dump core in @folder, with a pattern in the registers. */
static __noreturn void dump_core(const char *folder)
{
	struct rlimit limit;

	if (chdir(folder) || getrlimit(RLIMIT_CORE, &limit))
		_exit(KSFT_FAIL);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_CORE, &limit);
	prctl(PR_SET_DUMPABLE, 1);
	signal(SIGABRT, SIG_DFL);
	xregs_call_between(xregs_pattern(xregs_mask()), xregs_alloc(), SYS_kill, getpid(),
			   SIGABRT);
	_exit(KSFT_FAIL);
}

/* Take the whole of the only file in @folder, if there is one, and remove both. */
static void core_take(struct __test_metadata *const _metadata, struct core *core,
		      const char *folder)
{
	DIR *dir = opendir(folder);
	char path[512] = "";
	struct dirent *d;
	FILE *f;

	ASSERT_NE(NULL, dir);
	while ((d = readdir(dir)))
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
			snprintf(path, sizeof(path), "%s/%s", folder, d->d_name);
	closedir(dir);
	f = fopen(path, "re");
	if (f) {
		fseek(f, 0, SEEK_END);
		core->size = ftell(f);
		rewind(f);
		core->bytes = malloc(core->size + 1);
		EXPECT_EQ(core->size, fread(core->bytes, 1, core->size, f));
		fclose(f);
		unlink(path);
	}
	EXPECT_EQ(0, rmdir(folder));
}

/* Let a child dump core, which nothing limits; false, and the test has ended, without one. */
static bool core_get(struct __test_metadata *const _metadata, struct core *core)
{
	char folder[] = "/tmp/xstate_regs.XXXXXX";
	int status;
	pid_t pid;

	if (!mkdtemp(folder))
		SKIP(return false, "no folder for a core dump");
	pid = xcomp_fork(_metadata);
	if (!pid)
		dump_core(folder);
	status = xcomp_wait(_metadata, pid, "child that dumps core");
	core_take(_metadata, core, folder);
	EXPECT_SAME(SIGABRT, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
		    "signal that ends a child that dumps core");
	return EXPECT_THAT(WCOREDUMP(status), "the kernel has dumped no core") &&
	       EXPECT_THAT(core->bytes, "no core dump where the child was");
}

/* Tell in @old_pkru if PKRU is that of the last task switch. */
static void expect_registers(struct __test_metadata *const _metadata, const struct core *core,
			     bool *old_pkru, const char *when)
{
	struct xregs *wanted = xregs_pattern(xregs_mask()), *got = xregs_alloc();
	uint32_t size = xf_standard_size(xf_xcr0()), len = 0;
	uint64_t pkru = xregs_mask() & XFEATURE_MASK_PKRU;
	void *note = core_note(core, NT_X86_XSTATE, &len);

	if (!EXPECT_THAT(note, "no NT_X86_XSTATE, %s", when) ||
	    !EXPECT_SAME(size, len, "size of NT_X86_XSTATE, %s", when))
		return;
	memcpy(got, note, size);
	EXPECT_SAME_MASK(xf_names, xf_xcr0(), got->xcr0, "mask in NT_X86_XSTATE, %s",
			 when);
	EXPECT_XREGS(xregs_mask() & ~pkru, wanted, got, "in the core dump, %s", when);
	/* The child had the PKRU of its parent when it was switched to. */
	if (pkru && *(uint32_t *)xregs_at(got, pkru) == xregs_pkru())
		*old_pkru = true;
	else
		EXPECT_XREGS(pkru, wanted, got, "in the core dump, %s", when);
}

/* Nothing but padding follows the notes, up to where the memory starts. */
static void expect_padding(struct __test_metadata *const _metadata, const struct core *core,
			   const char *when)
{
	size_t at = core->notes_end;

	while (at < core->memory && !core->bytes[at])
		at++;
	EXPECT_SAME(core->memory, at, "end of the padding after the notes, %s", when);
}

/* One record for each user component, and it says what the CPU says */
static void expect_layout(struct __test_metadata *const _metadata, const struct core *core,
			  const char *when)
{
	uint64_t seen = 0;
	struct layout *l;
	struct xf_regs r;
	uint32_t len;

	l = core_note(core, NT_X86_XSAVE_LAYOUT, &len);
	if (!l) {
		EXPECT_THAT(xcomp_before(6, 12), "no NT_X86_XSAVE_LAYOUT, %s", when);
		return;
	}
	for (; len >= sizeof(*l); l++, len -= sizeof(*l)) {
		if (!EXPECT_THAT(l->type < 64, "type %#x in the layout, %s", l->type, when))
			return;
		seen |= 1ULL << l->type;
		r = xf_cpuid(0xd, l->type);
		EXPECT_SAME(r.eax, l->size, "size of %s, %s", xf_name(l->type), when);
		EXPECT_SAME(r.ebx, l->offset, "offset of %s, %s", xf_name(l->type), when);
		EXPECT_SAME(0, l->flags, "flags of %s, %s", xf_name(l->type), when);
	}
	EXPECT_SAME_MASK(xf_names, xf_xcr0() & ~XFEATURE_MASK_FPSSE, seen,
			 "components in the layout, %s", when);
}

static bool expect_core(struct __test_metadata *const _metadata, bool *old_pkru,
			const char *when)
{
	struct core core = { 0 };

	if (!core_get(_metadata, &core))
		return false;
	if (EXPECT_THAT(core_parse(&core), "a core dump of %zu bytes without notes, %s", core.size,
			when)) {
		expect_registers(_metadata, &core, old_pkru, when);
		expect_padding(_metadata, &core, when);
		expect_layout(_metadata, &core, when);
	}
	free(core.bytes);
	return true;
}

/*
 * Whether something limits core dumps, or sends them elsewhere; then the test is
 * skipped.  Only with CONFIG_ELF_CORE there is a filter.
 */
static bool core_is_limited(struct __test_metadata *const _metadata)
{
	struct rlimit core, file;
	struct statvfs fs;
	char pattern[256];

	if (xf_read_file("/proc/sys/kernel/core_pattern", pattern, sizeof(pattern)) <= 0 ||
	    pattern[0] == '\n' || strpbrk(pattern, "|/@"))
		SKIP(return true, "core dumps go elsewhere");
	ASSERT_EQ(0, getrlimit(RLIMIT_CORE, &core));
	ASSERT_EQ(0, getrlimit(RLIMIT_FSIZE, &file));
	if (statvfs("/tmp", &fs))
		SKIP(return true, "no folder for a core dump");
	/* Some file systems in memory count no blocks. */
	if (core.rlim_max < CORE_SIZE || file.rlim_cur < CORE_SIZE ||
	    (fs.f_blocks && fs.f_bavail * fs.f_frsize < CORE_SIZE) ||
	    access("/proc/self/coredump_filter", F_OK))
		SKIP(return true, "core dumps are limited");
	return false;
}

/*
 * Verify that a core dump has the registers as they were, and the same notes
 * whatever is permitted.  Each twice: a task switch in time hides that PKRU is
 * an old one.
 */
TEST_F(xstate_regs, core)
{
	static const char * const when[] = {
		"without permission", "with the guest's permission", "with both permissions",
	};
	bool old_pkru = false;
	int i;

	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	if (core_is_limited(_metadata))
		return;
	for (i = 0; i < 6; i++) {
		if (i == 2)
			xcomp_request_guest(_metadata, &self->perm);
		if (i == 4)
			xcomp_request_host(_metadata, &self->perm);
		if (!expect_core(_metadata, &old_pkru, when[i / 2]))
			return;
	}
	XFAIL_IF(old_pkru, "PKRU in a core dump is that of the last task switch")
		EXPECT_THAT(!old_pkru, "PKRU in a core dump is %#x, but it was changed since",
			    xregs_pkru());
}

XCOMP_HARNESS_MAIN
