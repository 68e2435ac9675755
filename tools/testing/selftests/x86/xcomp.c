// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the tests of XSAVE state and of its permissions share, see xcomp.h.
 */
#define _GNU_SOURCE

#include <assert.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "xcomp.h"

/* "FD PID": where to write, and the process that was to execute the program */
#define EXEC_VARIABLE	"XCOMP_EXEC_FD"

/* Any other process has the variable from who started the whole test. */
static bool is_executed_by_test(int fd, pid_t pid)
{
	struct stat st;

	/* A parent that has failed may be gone. */
	return pid == getpid() || pid == getppid() || (!fstat(fd, &st) && S_ISFIFO(st.st_mode));
}

/*
 * Start the program.  One that a test executes anew comes here too, and then not
 * into the harness: a variable in the environment says so, and @after_exec writes
 * to its @fd what the test, which waits in another process, is to judge.
 */
void xcomp_main(int argc, char **argv, void (*after_exec)(int fd))
{
	const char *text = getenv(EXEC_VARIABLE);
	int fd, pid;

	if (after_exec && text && sscanf(text, "%d %d", &fd, &pid) == 2 &&
	    is_executed_by_test(fd, pid)) {
		after_exec(fd);
		exit(KSFT_PASS);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2 || strcmp(argv[1], "-l"))
		xf_print_machine();
}

/* Learn the name of the row, end along with the harness, and note warnings. */
void xcomp_begin(struct __test_metadata *const _metadata, const void *variant)
{
	th_begin(variant);
	ASSERT_EQ(0, prctl(PR_SET_PDEATHSIG, SIGKILL));
	xf_note_warnings();
}

/* Fail the test if the kernel has warned since. */
void xcomp_end(struct __test_metadata *const _metadata)
{
	xf_expect_no_warning(_metadata);
}

/* Whether the kernel's release is older than that; false if there is no telling */
bool xcomp_before(unsigned int major, unsigned int minor)
{
	unsigned int has_major, has_minor;
	struct utsname name;

	uname(&name);
	return sscanf(name.release, "%u.%u", &has_major, &has_minor) == 2 &&
	       (has_major < major || (has_major == major && has_minor < minor));
}

/* Whether the kernel predates the guest's permission, which newer ones must have */
bool xcomp_too_old(void)
{
	uint64_t mask;

	return xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &mask) == EINVAL && xcomp_before(5, 17);
}

/* What ARCH_REQ_XCOMP_PERM and ARCH_REQ_XCOMP_GUEST_PERM answer to @nr: @wanted */
void xcomp_expect_request(struct __test_metadata *const _metadata, int option, unsigned long nr,
			  int wanted, const char *when)
{
	EXPECT_ERRNO(wanted, xf_request(option, nr), "%s for component %lu, %s",
		     option == ARCH_REQ_XCOMP_PERM ? "ARCH_REQ_XCOMP_PERM" :
						     "ARCH_REQ_XCOMP_GUEST_PERM", nr, when);
}

void xcomp_expect_masks(struct __test_metadata *const _metadata, const struct xcomp_perm *perm,
			const char *when)
{
	xf_expect_permissions(_metadata, perm->host, perm->guest, when);
}

/* Ask for XTILE_DATA and verify the answer and the masks after it. */
void xcomp_request_host(struct __test_metadata *const _metadata, struct xcomp_perm *perm)
{
	xcomp_expect_request(_metadata, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA,
			     xf_has_amx() ? 0 : EOPNOTSUPP, "AMX");
	perm->host = xf_has_amx();
	xcomp_expect_masks(_metadata, perm, "after the host's request");
}

void xcomp_request_guest(struct __test_metadata *const _metadata, struct xcomp_perm *perm)
{
	xcomp_expect_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILE_DATA,
			     xf_has_amx() ? 0 : EOPNOTSUPP, "AMX");
	perm->guest = xf_has_amx();
	xcomp_expect_masks(_metadata, perm, "after the guest's request");
}

struct xcomp_cpus xcomp_only_cpu(int cpu)
{
	struct xcomp_cpus cpus = { };

	static_assert(sizeof(cpus) == XCOMP_MAX_CPUS / 8, "room for that many CPUs");
	CPU_SET_S(cpu, sizeof(cpus), cpus.sets);
	return cpus;
}

void xcomp_run_on(struct __test_metadata *const _metadata, int cpu)
{
	struct xcomp_cpus cpus = xcomp_only_cpu(cpu);

	EXPECT_ERRNO(0, sched_setaffinity(0, sizeof(cpus), cpus.sets) ? errno : 0,
		     "sched_setaffinity() to CPU %d", cpu);
	EXPECT_SAME(cpu, sched_getcpu(), "CPU that this runs on");
}

static void *run_thread(void *arg)
{
	struct xcomp_thread *t = arg;

	t->fn(t->metadata, t->arg);
	return NULL;
}

void xcomp_start_thread(struct __test_metadata *const _metadata, struct xcomp_thread *t,
			xf_fn fn, void *arg)
{
	int error;

	t->metadata = _metadata;
	t->fn = fn;
	t->arg = arg;
	error = pthread_create(&t->thread, NULL, run_thread, t);
	ASSERT_EQ(0, error)
		TH_ROW_LOG("pthread_create(): %s", strerror(error));
}

void xcomp_join_thread(struct __test_metadata *const _metadata, struct xcomp_thread *t,
		       const char *what)
{
	xf_join_thread(_metadata, t->thread, what);
}

void xcomp_in_thread(struct __test_metadata *const _metadata, const char *what, xf_fn fn,
		     void *arg)
{
	struct xcomp_thread t;

	xcomp_start_thread(_metadata, &t, fn, arg);
	xcomp_join_thread(_metadata, &t, what);
}

/* Execute this program anew, for xcomp_in_new_program(). */
void xcomp_exec(struct __test_metadata *const _metadata, void *arg)
{
	(void)arg;
	execl("/proc/self/exe", program_invocation_name, NULL);
	EXPECT_THAT(false, "execve(): %s", strerror(errno));
}

/*
 * Call @fn in a child, execute this program anew there, and take from what its
 * main() calls then, see xcomp_main(), the @size bytes for @buf.  @fn may execute
 * the program itself, by xcomp_exec() or in other ways.
 */
void xcomp_in_new_program(struct __test_metadata *const _metadata, const char *what, xf_fn fn,
			  void *arg, void *buf, size_t size)
{
	char text[32];
	int fd[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(fd));
	pid = xf_fork(_metadata);
	if (!pid) {
		snprintf(text, sizeof(text), "%d %d", fd[1], getpid());
		setenv(EXEC_VARIABLE, text, 1);
		fn(_metadata, arg);
		xcomp_exec(_metadata, NULL);
		xf_exit();
	}
	close(fd[1]);
	xf_join(_metadata, pid, what);
	/* Whoever is left of the child's own children may have the other end. */
	ASSERT_EQ(0, fcntl(fd[0], F_SETFL, O_NONBLOCK));
	memset(buf, 0, size);
	EXPECT_SAME(size, read(fd[0], buf, size), "%s: bytes from the new program", what);
	close(fd[0]);
}
