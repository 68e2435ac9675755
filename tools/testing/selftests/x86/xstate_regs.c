// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of a task that AMX is permitted to, or to its guests: what its
 * tile instructions do, what its first use of AMX leaves alone, what children
 * and threads get of its tiles and of its shadow stack, and what debuggers and
 * core dumps see.  A permission for guests changes nothing of that.
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <linux/elf.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

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

static void amx_in_thread(struct __test_metadata *const _metadata, void *works)
{
	xf_expect_amx(_metadata, *(bool *)works, "in a thread");
}

static void amx_in_child(struct __test_metadata *const _metadata, void *works)
{
	xcomp_in_thread(_metadata, "thread of a child", amx_in_thread, works);
	xf_expect_amx(_metadata, *(bool *)works, "in a child");
}

/*
 * Verify that AMX raises SIGILL until the host's permission is there, with that
 * of the guest or without, and then works for threads and children too.
 */
TEST_F(xstate_regs, sigill)
{
	xf_expect_amx(_metadata, false, "without permission");
	xcomp_in_thread(_metadata, "thread", amx_in_thread, &self->perm.host);
	xcomp_request_guest(_metadata, &self->perm);
	xf_expect_amx(_metadata, false, "with the guest's permission");
	xcomp_in_thread(_metadata, "thread", amx_in_thread, &self->perm.host);
	xcomp_request_host(_metadata, &self->perm);
	xf_in_child(_metadata, "child", amx_in_child, &self->perm.host);
	xcomp_in_thread(_metadata, "thread", amx_in_thread, &self->perm.host);
	xf_expect_amx(_metadata, self->perm.host, "with the host's permission");
}

/* Load @loaded, tiles last, and save all registers at once, and again after three sleeps. */
static __attribute_noinline__ INTEGER_ONLY
void use_between(const struct xregs *loaded, struct xregs *saved[2])
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	uint64_t mask = xregs_mask(), all = xf_xcr0();
	struct xregs *own = xregs_alloc();
	int i;

	xregs_save(own, mask);
	xregs_load(loaded, mask);
	xregs_load_tiles(loaded);
	xregs_save(saved[0], all);
	for (i = 0; i < 3; i++)
		xregs_syscall(SYS_nanosleep, (long)&nap, 0, 0);
	xregs_save(saved[1], all);
	xregs_release_tiles();
	xregs_load(own, mask);
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

	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	pattern = xregs_pattern(mask);
	xf_pin(_metadata);
	hog = xf_hog(_metadata);
	use_between(pattern, saved);
	xf_kill(_metadata, hog);

	EXPECT_SAME_MASK(xf_names, mask, saved[0]->xstate_bv & mask,
			 "in use right after the first use of AMX");
	EXPECT_XREGS(mask, pattern, saved[0], "right after the first use of AMX");
	EXPECT_SAME_MASK(xf_names, mask, saved[1]->xstate_bv & mask,
			 "in use once another task has run");
	EXPECT_XREGS(mask, pattern, saved[1], "once another task has run");
}

static void use_on_shadow_stack(struct __test_metadata *const _metadata, void *arg)
{
	uint64_t ssp = xregs_ssp();

	(void)arg;
	EXPECT_THAT(ssp, "no shadow stack once it was enabled");
	xregs_load_tiles(xregs_pattern(XFEATURE_MASK_XTILE));
	EXPECT_SAME(ssp, xregs_ssp(), "SSP right after the first use of AMX");
	xregs_release_tiles();
	xf_lose_cpu(_metadata);
	EXPECT_SAME(ssp, xregs_ssp(), "SSP once another task has run");
}

/* Verify that CET_USER of a task is kept over its first use of AMX. */
TEST_F(xstate_regs, first_use_shstk)
{
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	xf_pin(_metadata);
	xregs_on_shadow_stack(_metadata, "the first use of AMX", use_on_shadow_stack, NULL);
}

/* Tell the parent, whose memory this is, where the shadow stack is. */
static int tell_ssp(void *arg)
{
	*(uint64_t *)arg = xregs_ssp();
	return 0;
}

static void clone_on_shadow_stack(struct __test_metadata *const _metadata, void *arg)
{
	static uint8_t stack[64 * 1024];
	uint64_t ssp = xregs_ssp(), theirs = 0;
	pid_t pid;

	(void)arg;
	if (xf_has_amx())
		xf_touch_amx();
	pid = clone(tell_ssp, stack + sizeof(stack), CLONE_VM | SIGCHLD, &theirs);
	if (!EXPECT_THAT(pid > 0, "clone(): %s", strerror(errno)))
		return;
	xf_join(_metadata, pid, "child on its parent's memory");
	EXPECT_THAT(theirs, "no shadow stack in a child on its parent's memory");
	EXPECT_THAT(theirs - ssp + sizeof(stack) > 2 * sizeof(stack),
		    "SSP of the child %#llx, of its parent %#llx", (unsigned long long)theirs,
		    (unsigned long long)ssp);
}

/*
 * Verify that a child that shares its parent's memory does not share its shadow
 * stack, whose pointer the kernel sets in the child's fpstate.  That one is
 * smaller than its parent's if the parent has used AMX.
 */
TEST_F(xstate_regs, clone_shstk)
{
	xcomp_request_host(_metadata, &self->perm);
	xregs_on_shadow_stack(_metadata, "clone()", clone_on_shadow_stack, NULL);
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

	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	pattern = xregs_pattern(XFEATURE_MASK_XTILE);
	xregs_load_tiles(pattern);
	EXPECT_THAT(xregs_tiles_in_use(), "no tiles in use in the task that has loaded them");
	xf_in_child(_metadata, "child", has_no_tiles, "a child");
	xcomp_in_thread(_metadata, "thread", has_no_tiles, "a thread");
	xregs_save(saved, XFEATURE_MASK_XTILE);
	EXPECT_XREGS(XFEATURE_MASK_XTILE, pattern, saved, "of their creator");
	xregs_release_tiles();
}

static void stop(struct __test_metadata *const _metadata, void *used)
{
	if (*(bool *)used)
		xf_use_amx(_metadata);
	raise(SIGSTOP);
}

/* The registers of a child that has used AMX or not: their size, their mask, what can be set */
static void expect_traced(struct __test_metadata *const _metadata, bool used, const char *when)
{
	uint64_t mask = xf_permitted(used) | XFEATURE_MASK_FPSSE, bv;
	pid_t pid = xregs_trace(_metadata, stop, &used);
	uint32_t size = xf_standard_size(xf_xcr0());
	struct iovec iov = { .iov_len = size + 4096 };
	struct xregs *regs;
	int i;

	if (!pid)
		SKIP(return, XREGS_NO_PTRACE);
	th_case("%s", when);
	iov.iov_base = xf_guarded(iov.iov_len, 0x5a);
	regs = iov.iov_base;
	ASSERT_EQ(0, ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &iov));
	EXPECT_SAME(size, iov.iov_len, "size of NT_X86_XSTATE");
	EXPECT_SAME_MASK(xf_names, xf_xcr0(), regs->xcr0, "mask in NT_X86_XSTATE");
	bv = regs->xstate_bv;
	EXPECT_SAME_MASK(xf_names, 0, bv & ~mask, "XSTATE_BV beyond the task's components");

	EXPECT_ERRNO(0, xregs_set_regset(pid, NT_X86_XSTATE, regs, size), "setting what was read");
	for (i = 0; i < 64; i++) {
		if (mask >> i & 1)
			continue;
		regs->xstate_bv = bv | 1ULL << i;
		EXPECT_ERRNO(EINVAL, xregs_set_regset(pid, NT_X86_XSTATE, regs, size),
			     "setting %s, which the task has not", xf_name(i));
	}
	th_no_case();
	xf_kill(_metadata, pid);
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
	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	xcomp_request_host(_metadata, &self->perm);
	expect_traced(_metadata, true, "once AMX was used");
}

/* A core dump: where its notes are, and where memory starts after them */
struct core {
	uint8_t *bytes;
	size_t size, notes, notes_end, memory;
};

static bool core_parse(struct core *core)
{
	const struct elf64_hdr *header = (void *)core->bytes;
	const struct elf64_phdr *s = (void *)(core->bytes + header->e_phoff);
	int i;

	core->memory = core->size;
	for (i = 0; i < header->e_phnum; i++) {
		if (s[i].p_type == PT_NOTE) {
			core->notes = s[i].p_offset;
			core->notes_end = s[i].p_offset + s[i].p_filesz;
		} else if (s[i].p_filesz && s[i].p_offset < core->memory) {
			core->memory = s[i].p_offset;
		}
	}
	return core->notes && core->notes_end <= core->size;
}

/* The note of @type, NULL if there is none */
static void *core_note(const struct core *core, uint32_t type, uint32_t *len)
{
	size_t at = core->notes;
	struct elf64_note *n;

	while (at + sizeof(*n) <= core->notes_end) {
		n = (void *)(core->bytes + at);
		at += sizeof(*n) + ((n->n_namesz + 3) & ~3u);
		*len = n->n_descsz;
		if (n->n_type == type)
			return at + *len <= core->notes_end ? core->bytes + at : NULL;
		at += (*len + 3) & ~3u;
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
			   SIGABRT, 0);
	_exit(KSFT_FAIL);
}

/* Remove the folder, and the core dump of a test that was killed. */
static bool remove_folder(const void *arg)
{
	DIR *dir = opendir(arg);
	struct dirent *d;

	while (dir && (d = readdir(dir)))
		unlinkat(dirfd(dir), d->d_name, 0);
	if (dir)
		closedir(dir);
	return !rmdir(arg);
}

/* Map the only file in @folder, if there is one, and remove it. */
static void core_take(struct __test_metadata *const _metadata, struct core *core,
		      const char *folder)
{
	DIR *dir = opendir(folder);
	char path[512] = "";
	struct dirent *d;
	int fd;

	ASSERT_NE(NULL, dir);
	while ((d = readdir(dir)))
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
			snprintf(path, sizeof(path), "%s/%s", folder, d->d_name);
	closedir(dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	unlink(path);
	if (!EXPECT_THAT(fd >= 0, "no core dump where the child was"))
		return;
	core->size = lseek(fd, 0, SEEK_END);
	core->bytes = mmap(NULL, core->size, PROT_READ, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, core->bytes);
	close(fd);
}

/* Let a child dump core in @folder, which nothing limits; false, and it has failed, without one. */
static bool core_get(struct __test_metadata *const _metadata, struct core *core,
		     const char *folder)
{
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid)
		dump_core(folder);
	status = xf_wait(_metadata, pid, "child that dumps core");
	EXPECT_SAME(SIGABRT, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
		    "signal that ends a child that dumps core");
	EXPECT_THAT(WCOREDUMP(status), "the kernel has dumped no core");
	core_take(_metadata, core, folder);
	return core->bytes &&
	       EXPECT_THAT(core_parse(core), "a core dump of %zu bytes without notes", core->size);
}

/* Whether a core dump has had a PKRU of the last task switch */
static bool old_pkru;

static void expect_registers(struct __test_metadata *const _metadata, const struct core *core)
{
	uint64_t pkru = xregs_mask() & XFEATURE_MASK_PKRU, others = xregs_mask() & ~pkru;
	struct xregs *wanted = xregs_pattern(xregs_mask()), *got = xregs_alloc();
	uint32_t size = xf_standard_size(xf_xcr0()), len = 0;
	void *note = core_note(core, NT_X86_XSTATE, &len);

	if (!EXPECT_THAT(note, "no NT_X86_XSTATE") ||
	    !EXPECT_SAME(size, len, "size of NT_X86_XSTATE"))
		return;
	memcpy(got, note, size);
	EXPECT_SAME_MASK(xf_names, xf_xcr0(), got->xcr0, "mask in NT_X86_XSTATE");
	EXPECT_XREGS(others, wanted, got, "in the core dump");
	/* The child had the PKRU of its parent when it was switched to. */
	if (pkru && *(uint32_t *)xregs_at(got, pkru) == xregs_pkru())
		old_pkru = true;
	else
		EXPECT_XREGS(pkru, wanted, got, "in the core dump");
}

/* One record for each user component, and it says what the CPU says */
static void expect_layout(struct __test_metadata *const _metadata, const struct core *core)
{
	uint64_t seen = 0;
	struct xf_regs r;
	uint32_t len = 0;
	struct {
		uint32_t type, size, offset, flags;
	} *l = core_note(core, NT_X86_XSAVE_LAYOUT, &len);

	if (!EXPECT_THAT(l || xcomp_before(6, 12), "no NT_X86_XSAVE_LAYOUT") || !l)
		return;
	for (; len >= sizeof(*l); l++, len -= sizeof(*l)) {
		if (!EXPECT_THAT(l->type < 64, "type %#x in the layout", l->type))
			return;
		seen |= 1ULL << l->type;
		r = xf_cpuid(0xd, l->type);
		EXPECT_SAME(r.eax, l->size, "size of %s", xf_name(l->type));
		EXPECT_SAME(r.ebx, l->offset, "offset of %s", xf_name(l->type));
		EXPECT_SAME(0, l->flags, "flags of %s", xf_name(l->type));
	}
	EXPECT_SAME_MASK(xf_names, xf_xcr0() & ~XFEATURE_MASK_FPSSE, seen, "layout of components");
}

/* Registers and layout; nothing but padding follows the notes, up to where the memory starts. */
static bool expect_core(struct __test_metadata *const _metadata, const char *folder)
{
	struct core core = { 0 };
	size_t at;

	if (!core_get(_metadata, &core, folder))
		return false;
	expect_registers(_metadata, &core);
	expect_layout(_metadata, &core);
	for (at = core.notes_end; at < core.memory && !core.bytes[at]; at++)
		;
	EXPECT_SAME(core.memory, at, "end of the padding after the notes");
	munmap(core.bytes, core.size);
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
	char folder[] = "/tmp/xstate_regs.XXXXXX";
	struct xf_guard guard;
	bool dumped = true;
	int i;

	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	if (core_is_limited(_metadata))
		return;
	if (!mkdtemp(folder))
		SKIP(return, "no folder for a core dump");
	xf_guard(_metadata, &guard, remove_folder, folder);
	for (i = 0; i < 6 && dumped; i++) {
		th_case("%s", when[i / 2]);
		if (i == 2)
			xcomp_request_guest(_metadata, &self->perm);
		if (i == 4)
			xcomp_request_host(_metadata, &self->perm);
		dumped = expect_core(_metadata, folder);
	}
	th_no_case();
	xf_unguard(_metadata, &guard, "the one who removes the folder");
	XFAIL_IF(old_pkru, "PKRU in a core dump is that of the last task switch")
		EXPECT_THAT(!old_pkru, "PKRU in a core dump is %#x, but it was changed since",
			    xregs_pkru());
}

XCOMP_HARNESS_MAIN
