// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/PID/arch_status: the milliseconds since the kernel last saw AVX-512
 * registers of a task in use, when it took the CPU from that, or -1 if it never did.
 * One line for each task that has registers of its own, none for kernel threads,
 * nor for those that the kernel runs in a process, and none without AVX-512.
 *
 * The C library uses AVX-512 by itself.  So the tasks that this looks at run nothing
 * of it: they do as they are told by memory that they share with the test, and sleep.
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "xregs.h"

/* Flags of a task in /proc/PID/stat, of which some are not exported */
#define TASK_USER_WORKER	0x00004000
#define TASK_KTHREAD		0x00200000

#define NO_AVX512		"no AVX-512"

/* Instead of a time: no line at all, or none that may be there */
#define NO_LINE			(-2)
#define BAD_LINE		(-3)

/* The kernel counts in ticks of up to 10 ms, at both ends. */
#define SLACK_MS		25
#define WAIT_MS			80

#define STACK_SIZE		(64 * 1024)
#define MAX_STATUS		256
#define MAX_PATH		256

enum command { NOTHING, AVX, OPMASK, ZMM_UPPER, ZMM_16, RELEASE, LEAVE };

static const char * const command_names[] = {
	[AVX] = "YMM0", [OPMASK] = "k1", [ZMM_UPPER] = "the upper half of ZMM0",
	[ZMM_16] = "ZMM16",
};

/* What a task and the test share */
struct box {
	int command, done;
	pid_t parent;			/* 0 of a thread, which ends with its process */
	int status, leader_status;	/* file descriptors, which they share as well */
	const struct xregs *initial;
};

static uint64_t vector_mask(void)
{
	return xf_xcr0() & (XFEATURE_MASK_YMM | XFEATURE_MASK_AVX512);
}

static INTEGER_ONLY void obey(const struct box *box, int command, uint64_t vectors)
{
	switch (command) {
	case AVX:
		asm volatile("vpcmpeqd %ymm0, %ymm0, %ymm0");
		break;
	case OPMASK:
		asm volatile("kxnorw %k1, %k1, %k1");
		break;
	case ZMM_UPPER:
		asm volatile("vpternlogd $0xff, %zmm0, %zmm0, %zmm0");
		break;
	case ZMM_16:
		asm volatile("vpternlogd $0xff, %zmm16, %zmm16, %zmm16");
		break;
	case RELEASE:
		xregs_load(box->initial, vectors);
		break;
	case LEAVE:
		xregs_syscall(SYS_exit, 0, 0, 0);
	}
}

/* Until told to leave: each turn ends with a switch to another task. */
static INTEGER_ONLY void run_task(struct box *box)
{
	static const struct timespec nap = { .tv_nsec = 1000 * 1000 };
	uint64_t vectors = vector_mask();
	int command, status;

	if (box->parent) {
		xregs_syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0);
		if (xregs_syscall(SYS_getppid, 0, 0, 0) != box->parent)
			xregs_syscall(SYS_exit, 0, 0, 0);
	}
	box->leader_status = xregs_syscall(SYS_open, (long)"/proc/self/arch_status", O_RDONLY, 0);
	status = xregs_syscall(SYS_open, (long)"/proc/thread-self/arch_status", O_RDONLY, 0);
	__atomic_store_n(&box->status, status, __ATOMIC_RELEASE);
	for (;;) {
		command = __atomic_load_n(&box->command, __ATOMIC_ACQUIRE);
		if (command != NOTHING && !__atomic_load_n(&box->done, __ATOMIC_ACQUIRE)) {
			obey(box, command, vectors);
			xregs_syscall(SYS_nanosleep, (long)&nap, 0, 0);
			__atomic_store_n(&box->done, 1, __ATOMIC_RELEASE);
		}
		xregs_syscall(SYS_nanosleep, (long)&nap, 0, 0);
	}
}

/* clone(2) with initial vector registers, on a stack of its own */
static INTEGER_ONLY long start_task(unsigned long flags, struct box *box, uint8_t *stack,
				    struct xregs *own)
{
	register long r10 asm("r10") = 0;
	register long r8 asm("r8") = 0;
	uint64_t vectors = vector_mask();
	long pid = SYS_clone;

	xregs_save(own, vectors);
	xregs_load(box->initial, vectors);
	asm volatile("syscall\n\t"
		     "test %%rax, %%rax\n\t"
		     "jnz 1f\n\t"
		     "xor %%ebp, %%ebp\n\t"
		     "mov %[box], %%rdi\n\t"
		     "call *%[run]\n"
		     "1:"
		     : "+a" (pid)
		     : "D" (flags), "S" (stack + STACK_SIZE), "d" (0), "r" (r10), "r" (r8),
		       [box] "r" (box), [run] "r" (run_task)
		     : "rcx", "r11", "memory");
	xregs_load(own, vectors);
	return pid;
}

/* A process of its own, but for the memory and files that show what it does */
#define A_PROCESS	(CLONE_FILES | SIGCHLD)
#define A_THREAD	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | \
			 CLONE_SYSVSEM)

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void sleep_ms(unsigned int ms)
{
	const struct timespec nap = { .tv_nsec = ms * 1000l * 1000 };

	nanosleep(&nap, NULL);
}

/* Whether another task has not written there yet */
static bool is_unset(int *p, int value)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE) == value;
}

static pid_t start(struct __test_metadata *const _metadata, unsigned long flags, struct box **box)
{
	uint8_t *stack = xf_guarded(STACK_SIZE, 0);
	long pid;
	int i;

	*box = mmap(NULL, sizeof(**box), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		    0);
	ASSERT_NE(MAP_FAILED, *box);
	(*box)->initial = xregs_alloc();
	(*box)->status = -1;
	(*box)->parent = flags == A_PROCESS ? getpid() : 0;
	fflush(stdout);
	pid = start_task(flags, *box, stack, xregs_alloc());
	ASSERT_LT(0, pid)
		TH_ROW_LOG("clone(): %s", strerror(-pid));
	for (i = 0; i < XF_TIMEOUT * 1000 && is_unset(&(*box)->status, -1); i++)
		sleep_ms(1);
	ASSERT_LE(0, (*box)->status)
		TH_ROW_LOG("open(): %s", strerror(-(*box)->status));
	return pid;
}

static void tell(struct __test_metadata *const _metadata, struct box *box, enum command command)
{
	int i;

	box->done = 0;
	__atomic_store_n(&box->command, command, __ATOMIC_RELEASE);
	for (i = 0; i < XF_TIMEOUT * 1000 && is_unset(&box->done, 0); i++)
		sleep_ms(1);
	ASSERT_TRUE(box->done);
	box->command = NOTHING;
}

/* What @text of a file says; nothing but one line of a fixed form may be there. */
static long parse_status(struct __test_metadata *const _metadata, const char *text)
{
	char wanted[MAX_STATUS];
	long value;

	if (!*text)
		return NO_LINE;
	if (sscanf(text, "AVX512_elapsed_ms: %ld", &value) != 1)
		value = BAD_LINE;
	snprintf(wanted, sizeof(wanted), "AVX512_elapsed_ms:\t%ld\n", value);
	if (!EXPECT_THAT(value >= -1 && !strcmp(wanted, text), "arch_status is '%s'", text))
		return BAD_LINE;
	return value;
}

static long read_status(struct __test_metadata *const _metadata, int fd)
{
	char text[MAX_STATUS] = "";

	if (!EXPECT_ERRNO(0, pread(fd, text, sizeof(text) - 1, 0) < 0 ? errno : 0,
			  "reading arch_status"))
		return BAD_LINE;
	return parse_status(_metadata, text);
}

FIXTURE(xstate_proc) {
};

FIXTURE_SETUP(xstate_proc)
{
	xcomp_begin(_metadata, variant);
	if (access("/proc/self/arch_status", F_OK))
		SKIP(return, "no arch_status in /proc");
}

FIXTURE_TEARDOWN(xstate_proc)
{
	xcomp_end(_metadata);
}

static bool has_avx512(void)
{
	return (xf_xcr0() & XFEATURE_MASK_AVX512) == XFEATURE_MASK_AVX512 &&
	       xf_cpuinfo_flag("avx512f");
}

/* Until Linux 6.16 a new task had the time of its parent. */
static void expect_never(struct __test_metadata *const _metadata, int status, const char *whose)
{
	long ms = read_status(_metadata, status);

	XFAIL_IF(ms >= 0 && xcomp_before(6, 16),
		 "children have their parent's AVX-512 time, fixed in Linux 6.16")
		EXPECT_SAME(-1, ms, "AVX-512 time of %s", whose);
}

/* The last use was between two times, whenever this gets to read that. */
static void expect_between(struct __test_metadata *const _metadata, int status, double begin,
			   double end, const char *what)
{
	double from = now_ms() - end - SLACK_MS, to;
	long ms = read_status(_metadata, status);

	to = now_ms() - begin + SLACK_MS;
	EXPECT_THAT(ms >= from && ms <= to, "AVX-512 time %s: wanted %.0f to %.0f ms, got %ld",
		    what, from, to, ms);
}

/*
 * Of a task with AVX-512 in use, which it is anew each time that it goes to sleep, however
 * long it has to wait for its turn: return a time that is not after the last one.
 */
static double expect_in_use(struct __test_metadata *const _metadata, int status, const char *what)
{
	double begin = now_ms(), now, used;
	long ms;

	do {
		sleep_ms(10);
		now = now_ms();
		ms = read_status(_metadata, status);
		used = now - ms - SLACK_MS;
	} while (ms >= 0 && used <= begin && now - begin < XF_TIMEOUT * 1000);
	EXPECT_THAT(ms >= 0 && used > begin,
		    "AVX-512 time %s: wanted less than the %.0f ms since then, got %ld", what,
		    now - begin, ms);
	return used;
}

/* Use AVX-512, and some time after that no more. */
static void expect_counted(struct __test_metadata *const _metadata, struct box *box,
			   enum command command)
{
	double used, released;

	tell(_metadata, box, command);
	sleep_ms(WAIT_MS);
	used = expect_in_use(_metadata, box->status, "in use");
	tell(_metadata, box, RELEASE);
	released = now_ms();
	sleep_ms(WAIT_MS);
	expect_between(_metadata, box->status, used, released, "after it");
	sleep_ms(WAIT_MS);
	expect_between(_metadata, box->status, used, released, "some time later");
}

/*
 * Verify that a task has no time before it uses ZMM registers, and the time since
 * it has afterwards, whatever its debugger, here the test, does with them.
 */
TEST_F(xstate_proc, zmm)
{
	static const enum command commands[] = { ZMM_UPPER, ZMM_16 };
	struct box *box;
	unsigned int i;
	pid_t pid;

	if (!has_avx512())
		SKIP(return, NO_AVX512);
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		th_case("%s", command_names[commands[i]]);
		pid = start(_metadata, A_PROCESS, &box);
		asm volatile("vpternlogd $0xff, %%zmm0, %%zmm0, %%zmm0" : : : "xmm0");
		expect_never(_metadata, box->status, "a new task");
		expect_counted(_metadata, box, commands[i]);
		xf_kill(_metadata, pid);
	}
	th_no_case();
}

/* Verify that neither AVX nor mask registers are taken for AVX-512. */
TEST_F(xstate_proc, others)
{
	static const enum command commands[] = { AVX, OPMASK };
	struct box *box;
	unsigned int i;
	double begin, unused;
	pid_t pid;
	long ms;

	if (!has_avx512())
		SKIP(return, NO_AVX512);
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		th_case("%s", command_names[commands[i]]);
		pid = start(_metadata, A_PROCESS, &box);
		begin = now_ms();
		tell(_metadata, box, commands[i]);
		sleep_ms(WAIT_MS);
		unused = now_ms() - begin;
		ms = read_status(_metadata, box->status);
		EXPECT_THAT(ms == -1 || ms >= unused - SLACK_MS,
			    "AVX-512 time %ld ms of a task that has not used it", ms);
		xf_kill(_metadata, pid);
	}
	th_no_case();
}

/* Sleep without vector registers in use, and read a file before any can be. */
static INTEGER_ONLY long rest_and_read(const struct xregs *initial, struct xregs *own, int fd,
				       char *text, size_t size)
{
	static const struct timespec nap = { .tv_nsec = WAIT_MS * 1000l * 1000 };
	uint64_t vectors = vector_mask();
	long len;

	xregs_save(own, vectors);
	xregs_load(initial, vectors);
	xregs_syscall(SYS_nanosleep, (long)&nap, 0, 0);
	len = xregs_syscall(SYS_read, fd, (long)text, size);
	xregs_load(own, vectors);
	return len;
}

/*
 * Verify that threads have files and times of their own, and that the file of the
 * process has those of its leader.
 */
TEST_F(xstate_proc, threads)
{
	char text[MAX_STATUS] = "";
	struct box *user, *idle;
	long ms;

	if (!has_avx512())
		SKIP(return, NO_AVX512);
	start(_metadata, A_THREAD, &user);
	start(_metadata, A_THREAD, &idle);
	tell(_metadata, user, ZMM_UPPER);
	EXPECT_LT(0, rest_and_read(xregs_alloc(), xregs_alloc(), user->leader_status, text,
				   sizeof(text) - 1));
	ms = parse_status(_metadata, text);
	EXPECT_THAT(ms == -1 || ms >= WAIT_MS - SLACK_MS,
		    "AVX-512 time %ld ms of a leader that has not used it for %d ms", ms, WAIT_MS);
	expect_in_use(_metadata, user->status, "of its thread, which has");
	expect_never(_metadata, idle->status, "another thread, which never has");
	/* The threads end with the test. */
}

/* Verify that a task that has ended keeps its line until it is waited for, and no longer. */
TEST_F(xstate_proc, ended)
{
	char text[MAX_STATUS];
	struct box *box;
	siginfo_t info = { };
	pid_t pid;
	long ms;
	int i;

	if (!has_avx512())
		SKIP(return, NO_AVX512);
	pid = start(_metadata, A_PROCESS, &box);
	tell(_metadata, box, ZMM_UPPER);
	box->done = 0;
	__atomic_store_n(&box->command, LEAVE, __ATOMIC_RELEASE);
	for (i = 0; i < XF_TIMEOUT * 1000 && !info.si_pid; i++) {
		sleep_ms(1);
		ASSERT_EQ(0, waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT));
	}
	ASSERT_EQ(pid, info.si_pid);
	ms = read_status(_metadata, box->status);
	EXPECT_THAT(ms >= 0, "AVX-512 time %ld of a task that has used it and ended", ms);
	xf_join(_metadata, pid, "a task that is to end");
	EXPECT_ERRNO(ESRCH, pread(box->status, text, sizeof(text), 0) < 0 ? errno : 0,
		     "reading arch_status of a task that is gone");
}

static void after_exec(int fd)
{
	struct __test_results results;
	struct __test_metadata none = { .results = &results };
	int status = open("/proc/self/arch_status", O_RDONLY);
	long ms = read_status(&none, status);

	if (none.exit_code || write(fd, &ms, sizeof(ms)) != sizeof(ms))
		exit(KSFT_FAIL);
}

static void do_nothing(struct __test_metadata *const _metadata, void *arg)
{
	(void)_metadata;
	(void)arg;
}

/* Verify that there is a line after execve() too, exactly where the CPU has AVX-512. */
TEST_F(xstate_proc, exec)
{
	long ms = read_status(_metadata, open("/proc/self/arch_status", O_RDONLY));

	EXPECT_SAME(!has_avx512(), ms == NO_LINE, "whether the line is missing");
	xcomp_in_new_program(_metadata, "a new program", do_nothing, NULL, &ms, sizeof(ms));
	EXPECT_SAME(!has_avx512(), ms == NO_LINE, "whether the line of a new program is missing");
}

static void read_as_other(struct __test_metadata *const _metadata, const char *path)
{
	char text[MAX_STATUS];
	ssize_t len;
	int fd;

	/* A user namespace may have no other, and /proc hide what is another's. */
	if ((!geteuid() && setresuid(65534, 65534, 65534)) || access("/proc/1/stat", R_OK))
		_exit(KSFT_SKIP);
	fd = open(path, O_RDONLY);
	EXPECT_ERRNO(0, fd < 0 ? errno : 0, "opening %s of another user", path);
	len = read(fd, text, sizeof(text));
	EXPECT_ERRNO(0, len < 0 ? errno : 0, "reading %s of another user", path);
	EXPECT_SAME(has_avx512(), len > 0, "whether another user sees the line");
	EXPECT_ERRNO(EACCES, open(path, O_WRONLY) < 0 ? errno : 0, "opening %s to write",
		     path);
}

static bool is_readable_to_others(struct __test_metadata *const _metadata, const char *path)
{
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid) {
		read_as_other(_metadata, path);
		xf_exit();
	}
	status = xf_wait(_metadata, pid, "another user");
	if (status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return false, "cannot look at process 1 as another user");
	return EXPECT_SAME(0, status, "wait status of another user");
}

/* Verify that everybody may read the files, and nobody write them. */
TEST_F(xstate_proc, permissions)
{
	static const char * const paths[] = {
		"/proc/self/arch_status", "/proc/thread-self/arch_status",
	};
	struct stat st;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(paths); i++) {
		ASSERT_EQ(0, stat(paths[i], &st));
		EXPECT_SAME(S_IFREG | 0444, st.st_mode, "mode of %s", paths[i]);
	}
	/* Of the first process, which is root's and no kernel thread */
	if (is_readable_to_others(_metadata, "/proc/1/arch_status"))
		is_readable_to_others(_metadata, "/proc/1/task/1/arch_status");
}

/* Flags of the task with that folder in /proc; 0 if it is gone */
static unsigned int task_flags(const char *folder)
{
	char path[MAX_PATH], text[512], *end;
	unsigned int flags = 0;

	snprintf(path, sizeof(path), "%.200s/stat", folder);
	if (xf_read_file(path, text, sizeof(text)) <= 0)
		return 0;
	end = strrchr(text, ')');
	if (!end || sscanf(end, ") %*c %*d %*d %*d %*d %*d %u", &flags) != 1)
		return 0;
	return flags;
}

/*
 * Of all tasks in @folder that have one of @flags: none has a line.  Return how many
 * there are.
 */
static unsigned int expect_no_lines(struct __test_metadata *const _metadata, const char *folder,
				    unsigned int flags)
{
	char path[MAX_PATH], text[MAX_STATUS] = "", name[MAX_STATUS] = "";
	DIR *dir = opendir(folder);
	struct dirent *entry;
	unsigned int nr = 0;
	ssize_t len;

	ASSERT_TRUE(!!dir);
	while ((entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%.32s", folder, entry->d_name);
		if (!atoi(entry->d_name) || !(task_flags(path) & flags))
			continue;
		nr++;
		snprintf(path, sizeof(path), "%s/%.32s/comm", folder, entry->d_name);
		xf_read_file(path, name, sizeof(name));
		name[strcspn(name, "\n")] = '\0';
		snprintf(path, sizeof(path), "%s/%.32s/arch_status", folder, entry->d_name);
		len = xf_read_file(path, text, sizeof(text));
		if (!EXPECT_THAT(len <= 0, "arch_status of the kernel's task '%s' is '%s'", name,
				 text))
			break;
	}
	closedir(dir);
	return nr;
}

/* A thread that looks for huge pages of a VM, once that has run */
static void start_vm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, vcpu;
	struct kvm_run *run;

	vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	vcpu = vm < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return;
	run = mmap(NULL, sizeof(*run), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return;
	run->immediate_exit = 1;
	ioctl(vcpu, KVM_RUN, 0);
}

/* A thread that polls for requests of an io_uring */
static void start_io_uring(void)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 1 };

	syscall(SYS_io_uring_setup, 1, &params);
}

/* Tasks that the kernel has made for this process; false if there is a line of one */
static bool expect_no_line_of_workers(struct __test_metadata *const _metadata, unsigned int *nr)
{
	start_vm();
	start_io_uring();
	*nr = expect_no_lines(_metadata, "/proc/self/task", TASK_USER_WORKER);
	return _metadata->exit_code != KSFT_FAIL;
}

#define OLD_KERNEL	"kernels before 6.17 report AVX-512 of kernel threads"

/* Verify that a thread of the process that only runs the kernel's code has no line. */
TEST_F(xstate_proc, workers)
{
	unsigned int nr;

	if (xcomp_before(6, 17))
		SKIP(return, OLD_KERNEL);
	if (expect_no_line_of_workers(_metadata, &nr) && !nr)
		SKIP(return, "the kernel has no thread in this process");
}

/*
 * Verify that kernel threads have none either.  Those have no place for registers:
 * a kernel that would look there is known by the other ones, which have.
 */
TEST_F(xstate_proc, kernel_threads)
{
	unsigned int nr;

	if (xcomp_before(6, 17))
		SKIP(return, OLD_KERNEL);
	if (expect_no_line_of_workers(_metadata, &nr) &&
	    !expect_no_lines(_metadata, "/proc", TASK_KTHREAD))
		SKIP(return, "no kernel threads in /proc");
}

XCOMP_EXEC_HARNESS_MAIN(after_exec)
