// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the tests of XSAVE state and of its permissions share, see xcomp.h.
 */
#define _GNU_SOURCE

#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#include "xcomp.h"

/* "FD PID": where to write, and the process that was to execute the program */
#define EXEC_VARIABLE	"XCOMP_EXEC_FD"

/* Seconds that the first use of AMX may take */
#define USE_TIMEOUT	5

/*
 * Start the program.  One that a test executes anew comes here too, and then not
 * into the harness: a variable in the environment says so, and @after_exec writes
 * to its @fd what the test, which waits in another process, is to judge.
 */
void xcomp_main(int argc, char **argv, void (*after_exec)(int fd))
{
	const char *text = getenv(EXEC_VARIABLE);
	int fd, pid;

	/* Any other process has the variable from who started the whole test. */
	if (after_exec && text && sscanf(text, "%d %d", &fd, &pid) == 2 &&
	    (pid == getpid() || pid == getppid())) {
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

/* Whether the kernel lets programs use AMX */
bool xcomp_have_amx(void)
{
	return xf_xcr0() & XFEATURE_MASK_XTILE_DATA;
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

/* The masks are what the CPU and the permissions in @perm make of them. */
void xcomp_expect_masks(struct __test_metadata *const _metadata, const struct xcomp_perm *perm,
			const char *when)
{
	uint64_t supp, host, guest;

	EXPECT_ERRNO(0, xf_get_mask(ARCH_GET_XCOMP_SUPP, &supp), "ARCH_GET_XCOMP_SUPP, %s", when);
	EXPECT_ERRNO(0, xf_get_mask(ARCH_GET_XCOMP_PERM, &host), "ARCH_GET_XCOMP_PERM, %s", when);
	EXPECT_ERRNO(0, xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &guest),
		     "ARCH_GET_XCOMP_GUEST_PERM, %s", when);

	/* No XCR0 has a supervisor component, nor the kernel's flag of a lock. */
	EXPECT_SAME_MASK(xf_names, xf_xcr0() | XFEATURE_MASK_FPSSE, supp,
			 "ARCH_GET_XCOMP_SUPP, %s", when);
	EXPECT_SAME_MASK(xf_names, xf_permitted(perm->host), host,
			 "ARCH_GET_XCOMP_PERM, %s", when);
	EXPECT_SAME_MASK(xf_names, xf_permitted(perm->guest), guest,
			 "ARCH_GET_XCOMP_GUEST_PERM, %s", when);
}

/* Ask for XTILE_DATA and verify the answer and the masks after it. */
void xcomp_request_host(struct __test_metadata *const _metadata, struct xcomp_perm *perm)
{
	xcomp_expect_request(_metadata, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA,
			     xcomp_have_amx() ? 0 : EOPNOTSUPP, "AMX");
	perm->host = xcomp_have_amx();
	xcomp_expect_masks(_metadata, perm, "after the host's request");
}

void xcomp_request_guest(struct __test_metadata *const _metadata, struct xcomp_perm *perm)
{
	xcomp_expect_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILE_DATA,
			     xcomp_have_amx() ? 0 : EOPNOTSUPP, "AMX");
	perm->guest = xcomp_have_amx();
	xcomp_expect_masks(_metadata, perm, "after the guest's request");
}

/*
 * Use AMX, and leave no tile in use; SIGILL where there is no permission.  Tile 0
 * of palette 1 has one row of 64 bytes.
 */
void xcomp_touch_amx(void)
{
	static const uint8_t config[64] = { [0] = 1, [16] = 64, [48] = 1 };

	/* ldtilecfg (%rax); tilezero %tmm0; tilerelease */
	asm volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00\n\t"
		     ".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0\n\t"
		     ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0"
		     : : "a" (config) : "memory");
}

static sigjmp_buf use_env;
static pid_t use_tid;

static void use_ended(int sig)
{
	/* The alarm is the process's: it may come to another thread. */
	if (syscall(SYS_gettid) != use_tid)
		syscall(SYS_tgkill, getpid(), use_tid, sig);
	else
		siglongjmp(use_env, sig);
}

/*
 * Use AMX; return 0, or the signal that it raised, SIGALRM if it did not come back.
 *
 * A kernel that does not enable AMX, nor send a signal, lets the instruction
 * fault for ever.  Each time it returns to user space an alarm can come through.
 */
int xcomp_try_amx(void)
{
	static const int signals[] = { SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGALRM };
	const struct sigaction action = { .sa_handler = use_ended };
	struct sigaction old[ARRAY_SIZE(signals)];
	unsigned int i;
	int sig;

	use_tid = syscall(SYS_gettid);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, &old[i]);
	sig = sigsetjmp(use_env, 1);
	if (!sig) {
		alarm(USE_TIMEOUT);
		xcomp_touch_amx();
	}
	alarm(0);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &old[i], NULL);
	return sig;
}

void xcomp_use_amx(struct __test_metadata *const _metadata, const char *when)
{
	int sig = xcomp_try_amx();

	EXPECT_THAT(sig != SIGALRM, "the first use of AMX did not come back within %d s, %s",
		    USE_TIMEOUT, when);
	EXPECT_THAT(!sig || sig == SIGALRM, "the first use of AMX raised signal %d (%s), %s", sig,
		    strsignal(sig), when);
}

/* Fork; the child dies with its parent, and ends by xcomp_exit(). */
pid_t xcomp_fork(struct __test_metadata *const _metadata)
{
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	ASSERT_LE(0, pid)
		TH_ROW_LOG("fork(): %s", strerror(errno));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(KSFT_FAIL);
	}
	return pid;
}

void xcomp_exit(void)
{
	fflush(stdout);
	_exit(0);
}

/*
 * Wait for the end of a child; return the status for waitpid()'s macros, or -1,
 * which is none of them, if there is none in time.
 */
int xcomp_wait(struct __test_metadata *const _metadata, pid_t pid, const char *what)
{
	struct pollfd p = { .events = POLLIN };
	int status = -1, ready;

	/* Never -1, by which kill() means every process. */
	ASSERT_LT(0, pid);
	p.fd = syscall(SYS_pidfd_open, pid, 0);
	ASSERT_LE(0, p.fd);
	do {
		ready = poll(&p, 1, XCOMP_TIMEOUT * 1000);
	} while (ready < 0 && errno == EINTR);
	close(p.fd);
	if (!EXPECT_THAT(ready == 1, "%s: no end within %d s", what, XCOMP_TIMEOUT))
		kill(pid, SIGKILL);
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	return ready == 1 ? status : -1;
}

/* Wait for the end of a child, which must be in time and without a fault. */
void xcomp_join(struct __test_metadata *const _metadata, pid_t pid, const char *what)
{
	int status = xcomp_wait(_metadata, pid, what);

	EXPECT_THAT(!WIFSIGNALED(status), "%s: ended by signal %d (%s)", what, WTERMSIG(status),
		    strsignal(WTERMSIG(status)));
	EXPECT_THAT(!WIFEXITED(status) || !WEXITSTATUS(status), "%s: exit status %d", what,
		    WEXITSTATUS(status));
}

/* End a child, which must not have ended before. */
void xcomp_kill(struct __test_metadata *const _metadata, pid_t pid)
{
	int status = 0;

	ASSERT_LT(0, pid);
	EXPECT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_THAT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		    "a child that is killed has ended before, by wait status %#x", status);
}

void xcomp_in_child(struct __test_metadata *const _metadata, const char *what, xcomp_fn fn,
		    void *arg)
{
	pid_t pid = xcomp_fork(_metadata);

	if (!pid) {
		fn(_metadata, arg);
		xcomp_exit();
	}
	xcomp_join(_metadata, pid, what);
}

static void *run_thread(void *arg)
{
	struct xcomp_thread *t = arg;

	t->fn(t->metadata, t->arg);
	return NULL;
}

void xcomp_start_thread(struct __test_metadata *const _metadata, struct xcomp_thread *t,
			xcomp_fn fn, void *arg)
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
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += XCOMP_TIMEOUT;
	ASSERT_EQ(0, pthread_clockjoin_np(t->thread, NULL, CLOCK_MONOTONIC, &end))
		TH_ROW_LOG("%s: no end within %d s", what, XCOMP_TIMEOUT);
}

void xcomp_in_thread(struct __test_metadata *const _metadata, const char *what, xcomp_fn fn,
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
void xcomp_in_new_program(struct __test_metadata *const _metadata, const char *what, xcomp_fn fn,
			  void *arg, void *buf, size_t size)
{
	char text[32];
	int fd[2];
	pid_t pid;

	ASSERT_EQ(0, pipe(fd));
	pid = xcomp_fork(_metadata);
	if (!pid) {
		snprintf(text, sizeof(text), "%d %d", fd[1], getpid());
		setenv(EXEC_VARIABLE, text, 1);
		fn(_metadata, arg);
		xcomp_exec(_metadata, NULL);
		xcomp_exit();
	}
	close(fd[1]);
	xcomp_join(_metadata, pid, what);
	/* Whoever is left of the child's own children may have the other end. */
	ASSERT_EQ(0, fcntl(fd[0], F_SETFL, O_NONBLOCK));
	memset(buf, 0, size);
	EXPECT_SAME(size, read(fd[0], buf, size), "%s: bytes from the new program", what);
	close(fd[0]);
}

/* Stay on the CPU that this runs on, with all children to come; return it. */
int xcomp_pin(struct __test_metadata *const _metadata)
{
	/* A kernel may have 8192 CPUs, which is eight times what fits into one of them. */
	cpu_set_t sets[8] = { };
	int cpu = sched_getcpu();

	ASSERT_LE(0, cpu);
	CPU_SET_S(cpu, sizeof(sets), sets);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(sets), sets));
	return cpu;
}

/* In a class of real time a task that never sleeps would leave nothing for anybody. */
void xcomp_leave_real_time(void)
{
	const struct sched_param param = { 0 };

	sched_setscheduler(0, SCHED_OTHER, &param);
}

/*
 * Start a process that keeps this CPU busy until xcomp_kill(), so that whoever
 * sleeps here finds its registers gone when it wakes up: the idle task would have
 * kept them.
 */
pid_t xcomp_hog(struct __test_metadata *const _metadata)
{
	pid_t pid = xcomp_fork(_metadata);

	if (!pid) {
		xcomp_leave_real_time();
		for (;;)
			asm volatile("pause");
	}
	return pid;
}

/* Sleep while such a process runs. */
void xcomp_lose_cpu(struct __test_metadata *const _metadata)
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	pid_t hog = xcomp_hog(_metadata);
	int i;

	for (i = 0; i < 3; i++)
		nanosleep(&nap, NULL);
	xcomp_kill(_metadata, hog);
}
