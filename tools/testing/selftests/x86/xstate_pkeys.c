// SPDX-License-Identifier: GPL-2.0-only
/*
 * Protection keys: who can have one and with what rights, what PKRU is in threads,
 * children and new programs, what a key keeps out and how a task is told, mappings
 * that are only for execution, and signals on stacks that PKRU closes.
 */
#define _GNU_SOURCE

#include <pthread.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "xregs.h"

#define PAGE			4096
#define STACK_SIZE		(32 * PAGE)
#define TOP_SIZE		(4 * PAGE)

/* PKRU has two bits for each of them: SDM, "Protection Keys" */
#define NR_KEYS			16
#define ALL_RIGHTS		(PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE)

#define PKRU_MINE		0x12345540
#define PKRU_OF(key, rights)	((uint32_t)(rights) << 2 * (key))

#define NO_KEYS			"no protection keys"
#define NO_SMAPS		"no /proc/self/smaps"

#ifndef SEGV_PKUERR
#define SEGV_PKUERR		4
#endif

/* The key, or a negative errno */
static int alloc_key(unsigned long flags, unsigned long rights)
{
	int key = syscall(SYS_pkey_alloc, flags, rights);

	return key < 0 ? -errno : key;
}

static int alloc_errno(unsigned long flags, unsigned long rights)
{
	int key = alloc_key(flags, rights);

	return key < 0 ? -key : 0;
}

static int free_key(int key)
{
	return syscall(SYS_pkey_free, key) ? errno : 0;
}

static int set_key(void *p, size_t size, int prot, int key)
{
	return syscall(SYS_pkey_mprotect, p, size, prot, key) ? errno : 0;
}

/* The errno of a system call that does not exist */
static int no_syscall(void)
{
	return syscall(-1) ? errno : 0;
}

/* How many keys there are to be had; they are given back. */
static unsigned int count_keys(void)
{
	unsigned int nr = 0, i;
	int keys[NR_KEYS + 1];

	while (nr < NR_KEYS + 1 && (keys[nr] = alloc_key(0, 0)) >= 0)
		nr++;
	for (i = 0; i < nr; i++)
		free_key(keys[i]);
	return nr;
}

#define MAX_DEPTH		3

/* What handlers have seen, in memory that children share */
static struct handled {
	unsigned int nr;		/* how many have run */
	unsigned int depth;		/* inside of how many others */
	struct seen {
		uint32_t start;		/* PKRU as it started */
		uint32_t frame;		/* and of what it has interrupted */
		uint32_t after;		/* PKRU after a signal inside of it */
		uint8_t *context, *area;
	} seen[MAX_DEPTH];		/* the outermost first */
} *handled;

FIXTURE(xstate_pkeys) {
	uint32_t initial_pkru;		/* as execve() leaves it */
};

FIXTURE_SETUP(xstate_pkeys)
{
	xcomp_begin(_metadata, variant);
	handled = mmap(NULL, sizeof(*handled), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	ASSERT_NE(MAP_FAILED, handled);
	/* A kernel without them may have PKRU in XCR0, but no such system call. */
	if (set_key(NULL, 0, PROT_READ, -1) == no_syscall())
		SKIP(return, NO_KEYS);
	if (xregs_has_pkru())
		self->initial_pkru = xregs_pkru();
}

FIXTURE_TEARDOWN(xstate_pkeys)
{
	xcomp_end(_metadata);
}

/*
 * Verify that flags and rights that do not exist are refused and cost no key, and
 * that without keys there are none to be had.
 */
TEST_F(xstate_pkeys, refused)
{
	unsigned int nr = count_keys(), bit;
	uint32_t pkru = 0;

	EXPECT_SAME(xregs_has_pkru() ? NR_KEYS - 1 : 0, nr, "keys to be had");
	if (xregs_has_pkru()) {
		xregs_set_pkru(PKRU_MINE);
		pkru = PKRU_MINE;
	} else {
		EXPECT_ERRNO(ENOSPC, alloc_errno(0, 0), "pkey_alloc() without protection keys");
	}
	/* Each that is taken costs a key, for want of which others are refused. */
	for (bit = 0; bit < 8 * sizeof(long); bit++)
		if (!EXPECT_ERRNO(EINVAL, alloc_errno(1ul << bit, 0),
				  "pkey_alloc() with flag %u", bit))
			break;
	for (bit = 0; bit < 8 * sizeof(long); bit++)
		if (!(1ul << bit & ALL_RIGHTS) &&
		    !EXPECT_ERRNO(EINVAL, alloc_errno(0, 1ul << bit | PKEY_DISABLE_WRITE),
				  "pkey_alloc() with bit %u in rights", bit))
			break;
	EXPECT_SAME(nr, count_keys(), "keys to be had after what was refused");
	if (xregs_has_pkru())
		EXPECT_SAME(pkru & 3, xregs_pkru() & 3, "rights to key 0 after what was refused");
}

/* Verify that nobody can use or give back a key that was not allocated, or is none. */
TEST_F(xstate_pkeys, not_allocated)
{
	static const int none[] = { 1, NR_KEYS - 1, NR_KEYS, NR_KEYS + 1, 31, 32, 64, -2, 1 << 30 };
	uint8_t *page = xf_guarded(PAGE, 0);
	unsigned int i;
	int key;

	for (i = 0; i < ARRAY_SIZE(none); i++) {
		EXPECT_ERRNO(EINVAL, free_key(none[i]), "pkey_free() of %d", none[i]);
		EXPECT_ERRNO(EINVAL, set_key(page, PAGE, PROT_READ, none[i]),
			     "pkey_mprotect() with key %d", none[i]);
	}
	EXPECT_ERRNO(EINVAL, free_key(-1), "pkey_free() of -1");
	EXPECT_ERRNO(0, set_key(page, PAGE, PROT_READ | PROT_WRITE, -1),
		     "pkey_mprotect() with no key");
	page[0] = 1;
	if (!xregs_has_pkru())
		return;
	key = alloc_key(0, 0);
	ASSERT_LT(0, key);
	EXPECT_ERRNO(0, set_key(page, PAGE, PROT_READ | PROT_WRITE, key), "pkey_mprotect()");
	EXPECT_ERRNO(0, free_key(key), "pkey_free()");
	EXPECT_ERRNO(EINVAL, free_key(key), "pkey_free() once more");
	EXPECT_ERRNO(EINVAL, set_key(page, PAGE, PROT_READ, key), "pkey_mprotect() after that");
}

/* Verify that all keys can be had, each once, with the rights to it and no other change. */
TEST_F(xstate_pkeys, all)
{
	uint32_t wanted, pkru, taken = 1;
	unsigned int i, rights;
	int key;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	xregs_set_pkru(PKRU_MINE);
	wanted = PKRU_MINE;
	for (i = 1; i < NR_KEYS; i++) {
		rights = i % (ALL_RIGHTS + 1);
		key = alloc_key(0, rights);
		pkru = xregs_pkru();
		ASSERT_TRUE(EXPECT_THAT(key > 0 && key < NR_KEYS && !(taken & 1u << key),
					"key %d, with 0x%x taken", key, taken));
		taken |= 1u << key;
		wanted = (wanted & ~PKRU_OF(key, 3)) | PKRU_OF(key, rights);
		EXPECT_SAME(wanted, pkru, "PKRU after pkey_alloc() of %d with rights %u", key,
			    rights);
	}
	EXPECT_ERRNO(ENOSPC, alloc_errno(0, 0), "pkey_alloc() with all keys taken");
	EXPECT_SAME(wanted, xregs_pkru(), "PKRU after that");
	/* Any of them can come back, and is the one that is there then. */
	for (i = 1; i < NR_KEYS; i++) {
		EXPECT_ERRNO(0, free_key(i), "pkey_free() of %u", i);
		EXPECT_SAME(wanted, xregs_pkru(), "PKRU after pkey_free() of %u", i);
		EXPECT_SAME(i, alloc_key(0, wanted >> 2 * i & ALL_RIGHTS),
			    "the only key that is free");
		EXPECT_SAME(wanted, xregs_pkru(), "PKRU with that once more");
	}
}

/* ---- what a key keeps out ---- */

static sigjmp_buf fault_env;
static siginfo_t fault_info;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	fault_info = *info;
	siglongjmp(fault_env, sig);
}

/* Read or write a byte with @pkru; return the signal that it raises, or 0. */
static int try_access(uint8_t *p, bool write, uint32_t pkru)
{
	const struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	uint32_t before = xregs_pkru();
	int sig;

	sigaction(SIGSEGV, &action, NULL);
	memset(&fault_info, 0, sizeof(fault_info));
	sig = sigsetjmp(fault_env, 1);
	if (!sig) {
		xregs_set_pkru(pkru);
		if (write)
			asm volatile("movb $1, (%0)" : : "r" (p) : "memory");
		else
			asm volatile("cmpb $0, (%0)" : : "r" (p) : "cc");
	}
	xregs_set_pkru(before);
	signal(SIGSEGV, SIG_DFL);
	return sig;
}

static void expect_access(struct __test_metadata *const _metadata, uint8_t *p, bool write,
			  uint32_t pkru, int key, bool allowed)
{
	const char *what = write ? "a write" : "a read";
	int sig = try_access(p, write, pkru);

	if (!EXPECT_SAME(allowed ? 0 : SIGSEGV, sig, "signal of %s with PKRU %#x", what, pkru) ||
	    allowed)
		return;
	EXPECT_SAME(SEGV_PKUERR, fault_info.si_code, "si_code of %s", what);
	EXPECT_SAME(key, fault_info.si_pkey, "si_pkey of %s", what);
	EXPECT_SAME((unsigned long)p, (unsigned long)fault_info.si_addr, "si_addr of %s", what);
}

/* The kernel on behalf of the task: read() writes to @p, write() reads from there. */
static int try_syscall(int *pipe_fd, uint8_t *p, bool write_there, uint32_t pkru)
{
	uint32_t before = xregs_pkru();
	long error;

	if (write_there && write(pipe_fd[1], "x", 1) != 1)
		return errno;
	xregs_set_pkru(pkru);
	error = xregs_syscall(write_there ? SYS_read : SYS_write, pipe_fd[!write_there], (long)p,
			      1);
	xregs_set_pkru(before);
	return error < 0 ? -error : 0;
}

/*
 * Verify of each key that PKRU lets the task, and the kernel for it, read and write
 * as its rights say, and that the signal names the key.
 */
TEST_F(xstate_pkeys, access)
{
	uint8_t *page = xf_guarded(PAGE, 0);
	unsigned int i, rights;
	int fd[2], key;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	ASSERT_EQ(0, pipe(fd));
	for (i = 1; i < NR_KEYS; i++) {
		key = alloc_key(0, 0);
		ASSERT_LT(0, key);
		ASSERT_EQ(0, set_key(page, PAGE, PROT_READ | PROT_WRITE, key));
		for (rights = 0; rights <= ALL_RIGHTS; rights++) {
			const uint32_t pkru = PKRU_OF(key, rights);
			bool can_read = !(rights & PKEY_DISABLE_ACCESS), can_write = !rights;

			th_case("key %d, rights %u", key, rights);
			expect_access(_metadata, page, false, pkru, key, can_read);
			expect_access(_metadata, page, true, pkru, key, can_write);
			EXPECT_ERRNO(can_read ? 0 : EFAULT, try_syscall(fd, page, false, pkru),
				     "write() from there");
			EXPECT_ERRNO(can_write ? 0 : EFAULT, try_syscall(fd, page, true, pkru),
				     "read() to there");
			if (!can_write)
				EXPECT_EQ(1, read(fd[0], (char []) { 0 }, 1));
			if (can_read)
				EXPECT_EQ(1, read(fd[0], (char []) { 0 }, 1));
		}
	}
	th_no_case();
}

#define SMAPS			"/proc/self/smaps"

/* ProtectionKey of a mapping; -1 if there is none */
static int shown_key(void *p)
{
	FILE *f = fopen(SMAPS, "re");
	unsigned long begin, end;
	bool found = false;
	int key = -1, got;
	char line[512];

	while (f && key < 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			found = (unsigned long)p >= begin && (unsigned long)p < end;
		else if (found && sscanf(line, "ProtectionKey: %d", &got) == 1)
			key = got;
	}
	if (f)
		fclose(f);
	return key;
}

static void expect_shown(struct __test_metadata *const _metadata, void *arg)
{
	EXPECT_SAME(*(int *)arg, shown_key(arg), "ProtectionKey in a child");
}

/* Verify that a mapping keeps its key: over mprotect(), part of it, and in a child. */
TEST_F(xstate_pkeys, mapping)
{
	uint8_t *p = xf_guarded(3 * PAGE, 0);
	int key, other;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	if (access(SMAPS, R_OK))
		SKIP(return, NO_SMAPS);
	xregs_set_pkru(0);
	key = alloc_key(0, 0);
	other = alloc_key(0, 0);
	ASSERT_LT(0, key);
	ASSERT_LT(0, other);
	EXPECT_SAME(0, shown_key(p), "ProtectionKey of a new mapping");
	ASSERT_EQ(0, set_key(p, 3 * PAGE, PROT_READ | PROT_WRITE, key));
	EXPECT_SAME(key, shown_key(p), "ProtectionKey");
	ASSERT_EQ(0, mprotect(p, 3 * PAGE, PROT_READ));
	EXPECT_SAME(key, shown_key(p), "ProtectionKey after mprotect()");
	ASSERT_EQ(0, set_key(p, 3 * PAGE, PROT_READ | PROT_WRITE, -1));
	EXPECT_SAME(key, shown_key(p), "ProtectionKey after pkey_mprotect() with no key");
	ASSERT_EQ(0, set_key(p + PAGE, PAGE, PROT_READ | PROT_WRITE, other));
	EXPECT_SAME(key, shown_key(p), "ProtectionKey of the page before");
	EXPECT_SAME(other, shown_key(p + PAGE), "ProtectionKey of a page in the middle");
	EXPECT_SAME(key, shown_key(p + 2 * PAGE), "ProtectionKey of the page behind");
	memcpy(p, &key, sizeof(key));
	xf_in_child(_metadata, "a child", expect_shown, p);
	ASSERT_EQ(0, set_key(p, 3 * PAGE, PROT_READ | PROT_WRITE, 0));
	EXPECT_SAME(0, shown_key(p + PAGE), "ProtectionKey after pkey_mprotect() with key 0");
}

/* ---- threads, children, programs ---- */

struct hand_over {
	int key;
	uint32_t wanted;		/* PKRU to start with */
};

static void in_thread(struct __test_metadata *const _metadata, void *arg)
{
	struct hand_over *h = arg;
	int key;

	EXPECT_SAME(h->wanted, xregs_pkru(), "PKRU of a new thread");
	key = alloc_key(0, PKEY_DISABLE_ACCESS);
	EXPECT_SAME((h->wanted & ~PKRU_OF(key, 3)) | PKRU_OF(key, PKEY_DISABLE_ACCESS),
		    xregs_pkru(), "PKRU of a thread that allocates a key");
	EXPECT_ERRNO(0, free_key(h->key), "pkey_free() of another thread's key");
	h->key = key;
}

/*
 * Verify that a thread starts with the PKRU of its creator, that the keys are those
 * of the process, and the rights to a new one those of the thread that asks.
 */
TEST_F(xstate_pkeys, thread)
{
	uint8_t *page = xf_guarded(PAGE, 0);
	struct hand_over h;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	h.key = alloc_key(0, PKEY_DISABLE_WRITE);
	ASSERT_LT(0, h.key);
	h.wanted = PKRU_MINE;
	xregs_set_pkru(PKRU_MINE);
	xcomp_in_thread(_metadata, "a thread", in_thread, &h);
	EXPECT_SAME(PKRU_MINE, xregs_pkru(), "PKRU of its creator");
	EXPECT_ERRNO(0, set_key(page, PAGE, PROT_READ, h.key), "using the key of a thread");
	EXPECT_SAME(NR_KEYS - 2, count_keys(), "keys to be had");
}

static void in_child(struct __test_metadata *const _metadata, void *arg)
{
	struct hand_over *h = arg;

	EXPECT_SAME(h->wanted, xregs_pkru(), "PKRU of a new child");
	EXPECT_SAME(NR_KEYS - 2, count_keys(), "keys that a child can have");
	EXPECT_ERRNO(0, free_key(h->key), "pkey_free() of a key from before fork()");
	EXPECT_SAME(NR_KEYS - 1, count_keys(), "keys that it can have then");
}

/* Verify that a child has PKRU and keys of its parent, and both go their own ways. */
TEST_F(xstate_pkeys, fork)
{
	struct hand_over h;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	h.key = alloc_key(0, PKEY_DISABLE_WRITE);
	ASSERT_LT(0, h.key);
	h.wanted = PKRU_MINE;
	xregs_set_pkru(PKRU_MINE);
	xf_in_child(_metadata, "a child", in_child, &h);
	EXPECT_SAME(PKRU_MINE, xregs_pkru(), "PKRU of the parent");
	EXPECT_SAME(NR_KEYS - 2, count_keys(), "keys that the parent can have");
}

/* What a new program finds */
struct found {
	uint32_t pkru;
	unsigned int keys;
};

static void after_exec(int fd)
{
	struct found f = { .pkru = xregs_has_pkru() ? xregs_pkru() : 0, .keys = count_keys() };

	if (write(fd, &f, sizeof(f)) != sizeof(f))
		exit(KSFT_FAIL);
}

static void take_keys(struct __test_metadata *const _metadata, void *arg)
{
	uint8_t *page = xf_guarded(PAGE, 0);
	int i;

	(void)arg;
	for (i = 1; i < NR_KEYS - 1; i++)
		EXPECT_LT(0, alloc_key(0, PKEY_DISABLE_ACCESS));
	EXPECT_EQ(0, mprotect(page, PAGE, PROT_EXEC));
	xregs_set_pkru(PKRU_MINE);
}

/* Verify that a new program has all keys, and the PKRU that every program starts with. */
TEST_F(xstate_pkeys, exec)
{
	struct found f;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	xcomp_in_new_program(_metadata, "a new program", take_keys, NULL, &f, sizeof(f));
	EXPECT_SAME(self->initial_pkru, f.pkru, "PKRU of a new program");
	EXPECT_SAME(NR_KEYS - 1, f.keys, "keys that it can have");
}

/* "0x55555554" of debugfs; false where that cannot be read */
static bool read_default(uint32_t *pkru)
{
	char text[32];

	if (xf_read_file("/sys/kernel/debug/x86/init_pkru", text, sizeof(text)) <= 0)
		return false;
	*pkru = strtoul(text, NULL, 0);
	return true;
}

/*
 * Verify that programs start with the PKRU that debugfs tells, where all keys but 0
 * are closed unless the command line says otherwise.
 */
TEST_F(xstate_pkeys, initial)
{
	uint32_t pkru, key;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	EXPECT_SAME(0, self->initial_pkru & 3, "rights to key 0 of a new program");
	if (read_default(&pkru))
		EXPECT_SAME(pkru, self->initial_pkru, "PKRU of a new program");
	if (xf_cmdline_may_have("init_pkru"))
		return;
	for (key = 1; key < NR_KEYS && !geteuid(); key++)
		EXPECT_THAT(self->initial_pkru >> 2 * key & PKEY_DISABLE_ACCESS,
			    "a new program has access by key %u", key);
}

/* ---- mappings that are only for execution ---- */

/* mov $42, %eax; ret */
static const uint8_t code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };

static uint8_t *map_code(void)
{
	uint8_t *p = xf_guarded(PAGE, 0);

	memcpy(p, code, sizeof(code));
	return p;
}

static int run_code(uint8_t *p)
{
	int (*fn)(void) = (int (*)(void))(unsigned long)p;

	return fn();
}

/* The code runs and nobody can read it; return its key. */
static int expect_exec_only(struct __test_metadata *const _metadata, uint8_t *p)
{
	int sig = try_access(p, false, xregs_pkru()), key = fault_info.si_pkey, fd[2];

	EXPECT_SAME(42, run_code(p), "what the code returns");
	if (!EXPECT_SAME(SIGSEGV, sig, "signal of a read"))
		return 0;
	EXPECT_SAME(SEGV_PKUERR, fault_info.si_code, "si_code of a read");
	EXPECT_THAT(key > 0 && key < NR_KEYS, "si_pkey is %d", key);
	EXPECT_SAME(PKEY_DISABLE_ACCESS, xregs_pkru() >> 2 * key & PKEY_DISABLE_ACCESS,
		    "access in PKRU by key %d", key);
	ASSERT_EQ(0, pipe(fd));
	EXPECT_ERRNO(EFAULT, try_syscall(fd, p, false, xregs_pkru()), "write() from there");
	return key;
}

/*
 * Verify that mprotect() to PROT_EXEC alone takes a key that nobody else can have, one for
 * all such mappings, closes it in PKRU, and that the mapping is readable again if it says so.
 */
TEST_F(xstate_pkeys, exec_only)
{
	uint8_t *first = map_code(), *second = map_code();
	uint32_t pkru;
	int key;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	xregs_set_pkru(0);
	ASSERT_EQ(0, mprotect(first, PAGE, PROT_EXEC));
	pkru = xregs_pkru();
	key = expect_exec_only(_metadata, first);
	if (!key)
		return;
	EXPECT_SAME(PKRU_OF(key, PKEY_DISABLE_ACCESS), pkru, "PKRU after mprotect()");
	EXPECT_ERRNO(EINVAL, free_key(key), "pkey_free() of the kernel's key");
	EXPECT_ERRNO(EINVAL, set_key(second, PAGE, PROT_READ, key),
		     "pkey_mprotect() with the kernel's key");
	EXPECT_SAME(NR_KEYS - 2, count_keys(), "keys that are left");

	/* Who has opened it meanwhile finds it closed again. */
	xregs_set_pkru(0);
	ASSERT_EQ(0, mprotect(second, PAGE, PROT_EXEC));
	EXPECT_SAME(key, expect_exec_only(_metadata, second), "key of another such mapping");
	expect_exec_only(_metadata, first);
	EXPECT_SAME(NR_KEYS - 2, count_keys(), "keys that are left");

	ASSERT_EQ(0, mprotect(first, PAGE, PROT_READ | PROT_EXEC));
	EXPECT_SAME(0, try_access(first, false, xregs_pkru()), "signal of a read of what is to be");
	EXPECT_SAME(42, run_code(first), "what the code returns");
	expect_exec_only(_metadata, second);
}

/* Verify that a key that the program has given to a mapping stays, if only for execution. */
TEST_F(xstate_pkeys, exec_only_by_key)
{
	uint8_t *p = map_code();
	int key;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	xregs_set_pkru(0);
	key = alloc_key(0, 0);
	ASSERT_LT(0, key);
	ASSERT_EQ(0, set_key(p, PAGE, PROT_EXEC, key));
	EXPECT_SAME(42, run_code(p), "what the code returns");
	if (!access(SMAPS, R_OK))
		EXPECT_SAME(key, shown_key(p), "ProtectionKey");
	EXPECT_SAME(0, xregs_pkru(), "PKRU");
	xregs_set_pkru(PKRU_OF(key, PKEY_DISABLE_ACCESS));
	EXPECT_SAME(42, run_code(p), "what the code returns, its key closed");
}

/* Verify that without a free key such a mapping can be had, and read. */
TEST_F(xstate_pkeys, exec_only_without_key)
{
	uint8_t *p = map_code();
	int i;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	xregs_set_pkru(0);
	for (i = 1; i < NR_KEYS; i++)
		ASSERT_LT(0, alloc_key(0, 0));
	EXPECT_ERRNO(0, mprotect(p, PAGE, PROT_EXEC) ? errno : 0, "mprotect()");
	EXPECT_SAME(0, xregs_pkru(), "PKRU after mprotect()");
	EXPECT_SAME(42, run_code(p), "what the code returns");
	EXPECT_SAME(0, try_access(p, false, 0), "signal of a read");
}

/* ---- signals on stacks that PKRU closes ---- */

/* Rights to the stack while a handler takes another signal there */
static uint32_t inner_pkru;
static unsigned int max_depth;

/*
 * Take a signal with that PKRU, by which the stack may be closed, and return PKRU after it.
 * The stack is not touched, and open again in the end.  Not a function of its own, of which
 * compilers would think that they know all that it can change.
 */
static __always_inline uint32_t signal_with_pkru(uint32_t pkru, long tid, int sig)
{
	uint32_t after, ecx = 0, edx = 0;

#ifdef __x86_64__
	register uint32_t r9 asm("r9");

	asm volatile("wrpkru\n\t"
		     "mov %[nr], %%eax\n\t"
		     "syscall\n\t"
		     "xor %%ecx, %%ecx\n\t"
		     "rdpkru\n\t"
		     "mov %%eax, %%r9d\n\t"
		     "xor %%eax, %%eax\n\t"
		     "xor %%edx, %%edx\n\t"
		     "wrpkru"
		     : "+a" (pkru), "+c" (ecx), "+d" (edx), "=&r" (r9)
		     : "D" (tid), "S" ((long)sig), [nr] "i" (SYS_tkill)
		     : "r11", "memory");
	after = r9;
#else
	asm volatile("wrpkru\n\t"
		     "mov %[nr], %%eax\n\t"
		     "mov %%esi, %%ecx\n\t"
		     "int $0x80\n\t"
		     "xor %%ecx, %%ecx\n\t"
		     "rdpkru\n\t"
		     "mov %%eax, %%edi\n\t"
		     "xor %%eax, %%eax\n\t"
		     "xor %%edx, %%edx\n\t"
		     "wrpkru"
		     : "+a" (pkru), "+c" (ecx), "+d" (edx), "=&D" (after)
		     : "b" (tid), "S" (sig), [nr] "i" (SYS_tkill)
		     : "memory");
#endif
	return after;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	struct seen *s = &handled->seen[handled->depth];

	(void)info;
	s->start = xregs_keyed_pkru;
	s->context = context;
	s->area = (uint8_t *)uc->uc_mcontext.fpregs + XREGS_IN_FRAME;
	s->frame = *(uint32_t *)xregs_at((void *)s->area, XFEATURE_MASK_PKRU);
	handled->nr++;
	if (handled->depth + 1 < max_depth) {
		handled->depth++;
		s->after = signal_with_pkru(inner_pkru, syscall(SYS_gettid), sig);
		handled->depth--;
	}
}

static void prepare_signals(unsigned int nested, int flags)
{
	const struct sigaction action = {
		.sa_sigaction = xregs_open_keys,
		.sa_flags = SA_SIGINFO | SA_NODEFER | flags,
	};

	prctl(PR_SET_DUMPABLE, 0);
	/* One that was before may have died in a handler. */
	memset(handled, 0, sizeof(*handled));
	xregs_keyed_handler = on_signal;
	max_depth = nested;
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGSEGV, SIG_DFL);
}

/* The signals were taken, by handlers with initial PKRU, and all have returned. */
static void expect_taken(struct __test_metadata *const _metadata, uint32_t initial, uint32_t pkru,
			 uint32_t after)
{
	unsigned int i;

	EXPECT_SAME(max_depth, handled->nr, "signals taken");
	EXPECT_SAME(pkru, after, "PKRU after the signal");
	for (i = 0; i < max_depth; i++) {
		EXPECT_SAME(initial, handled->seen[i].start, "PKRU of handler %u", i);
		EXPECT_SAME(i ? inner_pkru : pkru, handled->seen[i].frame, "PKRU in frame %u", i);
		if (i + 1 < max_depth)
			EXPECT_SAME(inner_pkru, handled->seen[i].after,
				    "PKRU of handler %u, after %u", i, i + 1);
	}
}

struct closed {
	uint32_t initial, pkru;
	unsigned int nested;		/* signals, one inside of the other */
	int key, flags;
	uint8_t *stack;			/* without SA_ONSTACK the one of a thread */
};

static void take_signals(struct __test_metadata *const _metadata, void *arg)
{
	struct closed *c = arg;
	uint32_t after;

	prepare_signals(c->nested, c->flags);
	inner_pkru = c->pkru;
	xregs_set_pkru(0);
	after = signal_with_pkru(c->pkru, syscall(SYS_gettid), SIGUSR1);
	expect_taken(_metadata, c->initial, c->pkru, after);
}

static void take_on_alternate_stack(struct __test_metadata *const _metadata, void *arg)
{
	struct closed *c = arg;
	const stack_t ss = { .ss_sp = c->stack, .ss_size = STACK_SIZE };

	EXPECT_EQ(0, sigaltstack(&ss, NULL));
	take_signals(_metadata, c);
}

/* Far enough below what the C library has at the top of the stack, which stays open */
static void *take_on_thread(void *arg)
{
	uint8_t gap[2 * TOP_SIZE];
	void **args = arg;

	asm volatile("" : : "r" (gap) : "memory");
	take_signals(args[0], args[1]);
	return NULL;
}

static void take_on_own_stack(struct __test_metadata *const _metadata, void *arg)
{
	struct closed *c = arg;
	void *args[] = { _metadata, c };
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	ASSERT_EQ(0, pthread_attr_setstack(&attr, c->stack, STACK_SIZE));
	ASSERT_EQ(0, pthread_create(&thread, &attr, take_on_thread, args));
	xf_join_thread(_metadata, thread, "a thread whose stack has a key");
}

/* In a child, which ends by SIGSEGV where a frame can be neither written nor read. */
static void expect_signals(struct __test_metadata *const _metadata, struct closed *c)
{
	bool returning;
	pid_t pid;
	int status;

	xregs_set_pkru(0);
	pid = xf_fork(_metadata);
	if (!pid) {
		if (c->flags & SA_ONSTACK)
			take_on_alternate_stack(_metadata, c);
		else
			take_on_own_stack(_metadata, c);
		xf_exit();
	}
	status = xf_wait(_metadata, pid, "a child that takes signals");
	/* Those of 32 bits read the frame after they have loaded PKRU from there. */
	returning = handled->nr == c->nested;
	XFAIL_IF(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV &&
		 (returning ? sizeof(long) == 4 : xcomp_before(6, 12)),
		 returning ? "sigreturn() of 32-bit programs reads what it has closed" :
		 "no signals on stacks that PKRU closes, fixed in Linux 6.12")
		EXPECT_SAME(0, status, "wait status of a child that takes signals");
}

/* Where a frame is on the stack, which has no key yet */
static void find_frame(struct __test_metadata *const _metadata, struct closed *c)
{
	const stack_t ss = { .ss_sp = c->stack, .ss_size = STACK_SIZE }, none = {
		.ss_flags = SS_DISABLE
	};

	prepare_signals(1, SA_ONSTACK);
	EXPECT_EQ(0, sigaltstack(&ss, NULL));
	raise(SIGUSR1);
	EXPECT_EQ(0, sigaltstack(&none, NULL));
	EXPECT_SAME(1, handled->nr, "signals taken on a stack without key");
}

/*
 * Verify that a task takes signals on an alternate stack that its PKRU closes, all of
 * that or one page of the frame, and one inside of another.
 */
TEST_F(xstate_pkeys, alternate_stack)
{
	static const char * const parts[] = { "all", "the XSAVE area", "what is below it" };
	struct closed c = { .initial = self->initial_pkru, .flags = SA_ONSTACK };
	unsigned int part;
	uint8_t *from;
	size_t size;

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	c.key = alloc_key(0, 0);
	ASSERT_LT(0, c.key);
	for (part = 0; part < ARRAY_SIZE(parts); part++) {
		c.stack = xf_guarded(STACK_SIZE, 0);
		find_frame(_metadata, &c);
		from = part == 1 ? handled->seen[0].area : handled->seen[0].context;
		from = part ? (uint8_t *)((unsigned long)from & -PAGE) : c.stack;
		size = part ? PAGE : STACK_SIZE;
		ASSERT_EQ(0, set_key(from, size, PROT_READ | PROT_WRITE, c.key));
		for (c.nested = 1; c.nested <= MAX_DEPTH; c.nested++) {
			th_case("%s closed, %u signals", parts[part], c.nested);
			c.pkru = PKRU_OF(c.key, PKEY_DISABLE_ACCESS);
			expect_signals(_metadata, &c);
			c.pkru = PKRU_OF(c.key, PKEY_DISABLE_WRITE);
			expect_signals(_metadata, &c);
		}
	}
	th_no_case();
}

/* Verify the same of the stack that the task is on. */
TEST_F(xstate_pkeys, own_stack)
{
	struct closed c = { .initial = self->initial_pkru };

	if (!xregs_has_pkru())
		SKIP(return, NO_KEYS);
	c.key = alloc_key(0, 0);
	ASSERT_LT(0, c.key);
	c.stack = xf_guarded(STACK_SIZE, 0);
	ASSERT_EQ(0, set_key(c.stack, STACK_SIZE - TOP_SIZE, PROT_READ | PROT_WRITE, c.key));
	for (c.nested = 1; c.nested <= MAX_DEPTH; c.nested++) {
		th_case("%u signals", c.nested);
		c.pkru = PKRU_OF(c.key, PKEY_DISABLE_ACCESS);
		expect_signals(_metadata, &c);
		c.pkru = PKRU_OF(c.key, PKEY_DISABLE_WRITE);
		expect_signals(_metadata, &c);
	}
	th_no_case();
}

XCOMP_EXEC_HARNESS_MAIN(after_exec)
