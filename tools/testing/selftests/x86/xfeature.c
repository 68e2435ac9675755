// SPDX-License-Identifier: GPL-2.0-only
/* XSAVE state components and the machine that has them, see xfeature.h. */
#define _GNU_SOURCE

#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

#include "xfeature.h"

#define CPUID_1_ECX_OSXSAVE	XF_BIT(27)
#define CPUID_D_N_ECX_ALIGN	XF_BIT(1)
#define TAINT_WARN		XF_BIT(9)

/* Seconds that the first use of AMX may take */
#define USE_TIMEOUT	5

/* How often to read or write an MSR before the driver counts as one that loses values */
#define MSR_TRIES	60

/* ---- CPUID leaf 0xD ---- */

INTEGER_ONLY struct xf_regs xf_cpuid(uint32_t leaf, uint32_t subleaf)
{
	struct xf_regs r;

	asm volatile("cpuid"
		     : "=a" (r.eax), "=b" (r.ebx), "=c" (r.ecx), "=d" (r.edx)
		     : "0" (leaf), "2" (subleaf));
	return r;
}

uint64_t xf_xcr0(void)
{
	uint32_t lo, hi;

	if (!(xf_cpuid(1, 0).ecx & CPUID_1_ECX_OSXSAVE))
		return 0;

	asm volatile("xgetbv" : "=a" (lo), "=d" (hi) : "c" (0));
	return (uint64_t)hi << 32 | lo;
}

uint64_t xf_cpu_user_mask(void)
{
	struct xf_regs r = xf_cpuid(0xd, 0);

	return (uint64_t)r.edx << 32 | r.eax;
}

uint64_t xf_cpu_supervisor_mask(void)
{
	struct xf_regs r = xf_cpuid(0xd, 1);

	return (uint64_t)r.edx << 32 | r.ecx;
}

uint32_t xf_standard_size(uint64_t mask)
{
	uint32_t size = XF_BASE_SIZE;
	struct xf_regs r;
	int i;

	for (i = 2; i < 63; i++) {
		if (!(mask & XF_BIT(i)))
			continue;
		r = xf_cpuid(0xd, i);
		if (r.ebx + r.eax > size)
			size = r.ebx + r.eax;
	}
	return size;
}

uint32_t xf_compacted_offset(uint64_t mask, int nr)
{
	uint32_t offset = XF_BASE_SIZE;
	struct xf_regs r;
	int i;

	for (i = 2; i < 63; i++) {
		if (!(mask & XF_BIT(i)) && i != nr)
			continue;
		r = xf_cpuid(0xd, i);
		if (r.ecx & CPUID_D_N_ECX_ALIGN)
			offset = (offset + 63) & ~63u;
		if (i == nr)
			break;
		offset += r.eax;
	}
	return offset;
}

uint32_t xf_compacted_size(uint64_t mask)
{
	int i;

	for (i = 62; i >= 2; i--)
		if (mask & XF_BIT(i))
			return xf_compacted_offset(mask, i) + xf_cpuid(0xd, i).eax;
	return XF_BASE_SIZE;
}

/* ---- permissions ---- */

uint64_t xf_permitted(bool granted)
{
	/* Without XSAVE there are no components to permit, not even the two of FXSAVE. */
	return granted ? xf_xcr0() : xf_xcr0() & ~XFEATURE_MASK_XTILE_DATA;
}

int xf_request(int option, unsigned long nr)
{
	return syscall(SYS_arch_prctl, option, nr) ? errno : 0;
}

int xf_get_mask(int option, uint64_t *mask)
{
	*mask = 0;
	return syscall(SYS_arch_prctl, option, mask) ? errno : 0;
}

/* The masks of arch_prctl(2) are what the CPU and these permissions make of them. */
void xf_expect_permissions(struct __test_metadata *const _metadata, bool host, bool guest,
			   const char *when)
{
	uint64_t supp, host_mask, guest_mask;

	EXPECT_ERRNO(0, xf_get_mask(ARCH_GET_XCOMP_SUPP, &supp), "ARCH_GET_XCOMP_SUPP, %s", when);
	EXPECT_ERRNO(0, xf_get_mask(ARCH_GET_XCOMP_PERM, &host_mask),
		     "ARCH_GET_XCOMP_PERM, %s", when);
	EXPECT_ERRNO(0, xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &guest_mask),
		     "ARCH_GET_XCOMP_GUEST_PERM, %s", when);

	/* No XCR0 has a supervisor component, nor the kernel's flag of a lock. */
	EXPECT_SAME_MASK(xf_names, xf_xcr0() | XFEATURE_MASK_FPSSE, supp,
			 "ARCH_GET_XCOMP_SUPP, %s", when);
	EXPECT_SAME_MASK(xf_names, xf_permitted(host), host_mask,
			 "ARCH_GET_XCOMP_PERM, %s", when);
	EXPECT_SAME_MASK(xf_names, xf_permitted(guest), guest_mask,
			 "ARCH_GET_XCOMP_GUEST_PERM, %s", when);
}

/* ---- names ---- */

const char *xf_name(int nr)
{
	static const char * const names[] = {
		"x87", "SSE", "AVX", "BNDREGS", "BNDCSR", "OPMASK", "ZMM_Hi256", "Hi16_ZMM", "PT",
		"PKRU", "PASID", "CET_USER", "CET_KERNEL", "HDC", "UINTR", "LBR", "HWP",
		"XTILE_CFG", "XTILE_DATA", "APX", [63] = "compacted",
	};
	static char number[16];

	if (names[nr])
		return names[nr];
	snprintf(number, sizeof(number), "bit %d", nr);
	return number;
}

const char *xf_names(uint64_t mask, char *buf, size_t size)
{
	size_t len = 0;
	int i;

	snprintf(buf, size, " none");
	for (i = 0; i < 64 && len < size; i++)
		if (mask & XF_BIT(i))
			len += snprintf(buf + len, size - len, " %s", xf_name(i));
	return buf;
}

/* ---- the machine and its kernel ---- */

ssize_t xf_read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0)
		return -1;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len >= 0)
		buf[len] = '\0';
	return len;
}

char xf_param(const char *module, const char *name)
{
	char path[128], value[16];

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, name);
	return xf_read_file(path, value, sizeof(value)) > 0 ? value[0] : 0;
}

/* Whether the command line of the kernel has @text in it, or cannot be read */
bool xf_cmdline_may_have(const char *text)
{
	char words[4096];

	return xf_read_file("/proc/cmdline", words, sizeof(words)) <= 0 || strstr(words, text);
}

bool xf_cpuinfo_flag(const char *flag)
{
	static char flags[8192];
	char key[64];
	FILE *f;

	if (!flags[0]) {
		f = fopen("/proc/cpuinfo", "re");
		while (f && fgets(flags, sizeof(flags), f))
			if (!strncmp(flags, "flags", 5))
				break;
		if (f)
			fclose(f);
		flags[strcspn(flags, "\n")] = ' ';
	}
	snprintf(key, sizeof(key), " %s ", flag);
	return strstr(flags, key);
}

static void print_parameters(void)
{
	static const char * const parameters[][2] = {
		{ "kvm", "ignore_msrs" },
		{ "kvm_intel", "ept" },
		{ "kvm_intel", "unrestricted_guest" },
		{ "kvm_intel", "nested" },
		{ "kvm_intel", "cet" },
		{ "kvm_amd", "npt" },
		{ "kvm_amd", "nested" },
	};
	char text[256] = "", value;
	unsigned int i;
	size_t len = 0;

	for (i = 0; i < ARRAY_SIZE(parameters); i++) {
		value = xf_param(parameters[i][0], parameters[i][1]);
		if (value && len < sizeof(text))
			len += snprintf(text + len, sizeof(text) - len, " %s.%s=%c",
					parameters[i][0], parameters[i][1], value);
	}
	if (len)
		ksft_print_msg("parameters:%s\n", text);
}

void xf_print_machine(void)
{
	char user[256], supervisor[256];
	uint32_t model[13] = { 0 };
	struct utsname name;
	struct xf_regs r;
	int i;

	for (i = 0; i < 3; i++) {
		r = xf_cpuid(0x80000002 + i, 0);
		memcpy(model + 4 * i, &r, sizeof(r));
	}
	uname(&name);
	ksft_print_msg("Linux %s %s, %zu-bit program, uid %u, euid %u\n", name.release,
		       name.machine, 8 * sizeof(long), getuid(), geteuid());
	ksft_print_msg("CPU: %s, CPUID.1:EAX %#x\n", (char *)model, xf_cpuid(1, 0).eax);
	ksft_print_msg("XCR0 %#llx:%s\n", (unsigned long long)xf_xcr0(),
		       xf_names(xf_xcr0(), user, sizeof(user)));
	ksft_print_msg("supervisor components of the CPU:%s\n",
		       xf_names(xf_cpu_supervisor_mask(), supervisor, sizeof(supervisor)));
	ksft_print_msg("CPUID.0xD sizes: %u for XCR0, %u for XCR0 | IA32_XSS, at most %u\n",
		       xf_cpuid(0xd, 0).ebx, xf_cpuid(0xd, 1).ebx, xf_cpuid(0xd, 0).ecx);
	print_parameters();
}

#define WARN_COUNT	"/sys/kernel/warn_count"

/* The kernel's warnings since boot; without a count, whether there was any */
static unsigned long long warnings(void)
{
	char buf[32];

	if (xf_read_file(WARN_COUNT, buf, sizeof(buf)) > 0)
		return strtoull(buf, NULL, 10);
	if (xf_read_file("/proc/sys/kernel/tainted", buf, sizeof(buf)) > 0)
		return strtoull(buf, NULL, 10) & TAINT_WARN;
	return 0;
}

static unsigned long long warnings_before;
/* The kernel's log from then on; -1 where it cannot be read */
static int kernel_log = -1;

void xf_note_warnings(void)
{
	warnings_before = warnings();
	if (warnings_before && access(WARN_COUNT, R_OK))
		TH_ROW_LOG("the kernel has warned before: a new warning does not show");
	kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(kernel_log, 0, SEEK_END);
	errno = 0;
}

/*
 * Whether a warning is of somebody else: the log, of which nothing is lost, has it, and
 * neither there nor in its trace is this program, KVM, or code for extended state.  The
 * list of modules, which has KVM in any case, tells nothing.
 */
static bool others_warning(void)
{
	char line[8192], comm[16], *head;
	bool found = false;
	ssize_t len;

	prctl(PR_GET_NAME, comm);
	while ((len = read(kernel_log, line, sizeof(line) - 1)) > 0) {
		line[len] = '\0';
		head = strstr(line, "WARNING: ");
		if (head)
			TH_ROW_LOG("%.*s", (int)strcspn(head, "\n"), head);
		found |= !!head;
		if ((head || strstr(line, "Comm: ") || strstr(line, "+0x")) &&
		    (strstr(line, comm) || strstr(line, "kvm") || strstr(line, "fpu") ||
		     strstr(line, "xstate")))
			return false;
	}
	return found && errno == EAGAIN;
}

void xf_expect_no_warning(struct __test_metadata *const _metadata)
{
	unsigned long long now = warnings();

	if (now == warnings_before || !others_warning())
		EXPECT_SAME(warnings_before, now, "warnings in the kernel's log");
	close(kernel_log);
}

/* ---- memory ---- */

/* All of it is there: who takes a page away wants the first fault to be after that. */
uint8_t *xf_guarded(size_t size, uint8_t poison)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t len = (size + page - 1) / page * page;
	uint8_t *p;

	p = mmap(NULL, len + page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p == MAP_FAILED || mprotect(p + len, page, PROT_NONE))
		ksft_exit_fail_perror("cannot map a guarded buffer");
	p += len - size;
	/* libkvm has a memset() of its own, for guests, which is slow. */
	if (poison)
		memset(p, poison, size);
	return p;
}

/* False where the kernel does not list them. */
bool xf_shadow_stacks(struct xf_shadow_stacks *s, uint64_t at)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long long start = 0, end = 0, from, to;
	char line[256];

	memset(s, 0, sizeof(*s));
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx-%llx ", &from, &to) == 2) {
			start = from;
			end = to;
		}
		if (strncmp(line, "VmFlags:", 8) || !strstr(line, " ss"))
			continue;
		s->nr++;
		s->bytes += end - start;
		if (start < at && at <= end) {
			s->start = start;
			s->end = end;
		}
	}
	if (f)
		fclose(f);
	return f;
}

/* ---- AMX ---- */

/* Whether the kernel lets programs use AMX */
bool xf_has_amx(void)
{
	return xf_xcr0() & XFEATURE_MASK_XTILE_DATA;
}

/*
 * Use AMX, and leave no tile in use; SIGILL where there is no permission.  Tile 0
 * of palette 1 has one row of 64 bytes.
 */
static void touch_amx(void)
{
	static const uint8_t config[64] = { [0] = 1, [16] = 64, [48] = 1 };

	/* ldtilecfg (%rax); tilezero %tmm0; tilerelease */
	asm volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00\n\t"
		     ".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0\n\t"
		     ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0"
		     : : "a" (config) : "memory");
}

#ifdef __x86_64__
#define REG_IP		REG_RIP
#else
#define REG_IP		REG_EIP
#endif

static sigjmp_buf use_env;
static pid_t use_tid;
/* What a signal has said, and where it has come */
static siginfo_t use_info;
static unsigned long use_ip;

static void use_ended(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	/* The alarm is the process's: it may come to another thread. */
	if (syscall(SYS_gettid) != use_tid) {
		syscall(SYS_tgkill, getpid(), use_tid, sig);
		return;
	}
	use_info = *info;
	use_ip = uc->uc_mcontext.gregs[REG_IP];
	siglongjmp(use_env, sig);
}

/*
 * Use AMX; return 0, or the signal that it raised, SIGALRM if it did not come back.
 *
 * A kernel that does not enable AMX, nor send a signal, lets the instruction
 * fault for ever.  Each time it returns to user space an alarm can come through.
 */
static int try_amx(void)
{
	static const int signals[] = { SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGALRM };
	const struct sigaction action = { .sa_sigaction = use_ended, .sa_flags = SA_SIGINFO };
	struct sigaction old[ARRAY_SIZE(signals)];
	unsigned int i;
	int sig;

	use_tid = syscall(SYS_gettid);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, &old[i]);
	sig = sigsetjmp(use_env, 1);
	if (!sig) {
		alarm(USE_TIMEOUT);
		touch_amx();
	}
	alarm(0);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &old[i], NULL);
	return sig;
}

static void touch_ended(int sig)
{
	(void)sig;
	xf_end_row("the first use of AMX does not come back");
}

/* For children and handlers that cannot go on without: if it does not come back, they end. */
void xf_touch_amx(void)
{
	const struct sigaction action = { .sa_handler = touch_ended };
	struct sigaction old;

	sigaction(SIGALRM, &action, &old);
	alarm(USE_TIMEOUT);
	touch_amx();
	alarm(0);
	sigaction(SIGALRM, &old, NULL);
}

/* Whether AMX works; if not, the signal must say what CPU or kernel refuse. */
void xf_expect_amx(struct __test_metadata *const _metadata, bool works, const char *when)
{
	int sig = try_amx();

	if (!EXPECT_THAT(sig != SIGALRM, "the first use of AMX did not come back within %d s, %s",
			 USE_TIMEOUT, when))
		return;
	EXPECT_SAME(works ? 0 : SIGILL, sig, "signal that AMX raises %s", when);
	if (sig != SIGILL)
		return;
	EXPECT_SAME(xf_has_amx() ? ILL_ILLOPC : ILL_ILLOPN, use_info.si_code,
		    "si_code of SIGILL %s", when);
	EXPECT_SAME(use_ip, (unsigned long)use_info.si_addr, "si_addr of SIGILL %s", when);
}

void xf_use_amx(struct __test_metadata *const _metadata)
{
	xf_expect_amx(_metadata, true, "with permission");
}

/* ---- children, threads and the CPU they share ---- */

/* Fork; the child dies with its parent, and ends by xf_exit(). */
pid_t xf_fork(struct __test_metadata *const _metadata)
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

void xf_exit(void)
{
	fflush(stdout);
	_exit(0);
}

/* CPU time that a process has taken, in seconds */
static time_t cpu_seconds(pid_t pid)
{
	struct timespec time = { };
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &time))
		return 0;
	return time.tv_sec;
}

/* Wait for the end of a child, but not longer than @limit seconds of CPU time, if not 0. */
static int wait_within(struct __test_metadata *const _metadata, pid_t pid, time_t limit,
		       const char *what)
{
	struct pollfd p = { .events = POLLIN };
	int status = -1, ready = 0, i;
	bool loops = false;

	/* Never -1, by which kill() means every process. */
	ASSERT_LT(0, pid);
	p.fd = syscall(SYS_pidfd_open, pid, 0);
	ASSERT_LE(0, p.fd)
		TH_ROW_LOG("%s: pidfd_open(): %s", what, strerror(errno));
	for (i = 0; i < XF_TIMEOUT * 10 && ready != 1 && !loops; i++) {
		ready = poll(&p, 1, 100);
		loops = limit && cpu_seconds(pid) >= limit;
	}
	close(p.fd);
	if (ready == 1) {
		EXPECT_EQ(pid, waitpid(pid, &status, 0));
		return status;
	}
	if (loops)
		EXPECT_THAT(false, "%s: loops, without an end, for %d s of CPU time", what,
			    (int)limit);
	else
		EXPECT_THAT(false, "%s: no end within %d s", what, XF_TIMEOUT);
	/* Even that may find it stuck in the kernel, so nobody waits for it any more. */
	kill(pid, SIGKILL);
	return -1;
}

/*
 * Wait for the end of a child; return the status for waitpid()'s macros, or -1,
 * which is none of them, if there is none in time.
 */
int xf_wait(struct __test_metadata *const _metadata, pid_t pid, const char *what)
{
	return wait_within(_metadata, pid, 0, what);
}

/* The same of one with next to nothing to do, so that it must be in a loop if it takes long. */
int xf_wait_briefly(struct __test_metadata *const _metadata, pid_t pid, const char *what)
{
	return wait_within(_metadata, pid, XF_CPU_LIMIT, what);
}

static bool expect_success(struct __test_metadata *const _metadata, int status, const char *what)
{
	EXPECT_THAT(!WIFSIGNALED(status), "%s: ended by signal %d (%s)", what, WTERMSIG(status),
		    strsignal(WTERMSIG(status)));
	EXPECT_THAT(!WIFEXITED(status) || !WEXITSTATUS(status), "%s: exit status %d", what,
		    WEXITSTATUS(status));
	return status != -1;
}

/* Wait for the end of a child, which must be in time and without a fault. */
void xf_join(struct __test_metadata *const _metadata, pid_t pid, const char *what)
{
	expect_success(_metadata, xf_wait(_metadata, pid, what), what);
}

/* End a child, which must not have ended before. */
void xf_kill(struct __test_metadata *const _metadata, pid_t pid)
{
	int status;

	ASSERT_LT(0, pid);
	EXPECT_EQ(0, kill(pid, SIGKILL));
	status = xf_wait(_metadata, pid, "a child that is killed");
	EXPECT_THAT(status == -1 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL),
		    "a child that is killed has ended before, by wait status %#x", status);
}

void xf_in_child(struct __test_metadata *const _metadata, const char *what, xf_fn fn, void *arg)
{
	pid_t pid = xf_fork(_metadata);

	if (!pid) {
		fn(_metadata, arg);
		xf_exit();
	}
	xf_join(_metadata, pid, what);
}

/*
 * The same where a loop in the kernel is what may go wrong: say so after XF_CPU_LIMIT seconds
 * of CPU time, and return false.  The child is left alone then, as nothing may end it, so
 * the caller should not start more of them.
 */
bool xf_in_child_briefly(struct __test_metadata *const _metadata, const char *what, xf_fn fn,
			 void *arg)
{
	pid_t pid = xf_fork(_metadata);

	if (!pid) {
		fn(_metadata, arg);
		xf_exit();
	}
	return expect_success(_metadata, xf_wait_briefly(_metadata, pid, what), what);
}

/* End a row by a signal handler, which may call next to nothing. */
__noreturn void xf_end_row(const char *why)
{
	const char * const texts[] = { "# ", th_row, ": ", why, "\n" };
	unsigned int i;
	ssize_t n;

	for (i = 0; i < ARRAY_SIZE(texts); i++)
		n = write(STDOUT_FILENO, texts[i], strlen(texts[i]));
	(void)n;
	_exit(KSFT_FAIL);
}

/*
 * Start a process that calls @restore, which returns whether that worked, at xf_unguard()
 * or once nobody is left who could call it.  Whoever ends the test, with all of its process
 * group, does not end this.  It is there when this returns.  @arg is there until xf_unguard().
 */
void xf_guard(struct __test_metadata *const _metadata, struct xf_guard *g,
	      bool (*restore)(const void *arg), const void *arg)
{
	int in[2], out[2];
	char c = 0;

	ASSERT_EQ(0, pipe2(in, O_CLOEXEC));
	ASSERT_EQ(0, pipe2(out, O_CLOEXEC));
	g->restore = restore;
	g->arg = arg;
	g->pid = xf_fork(_metadata);
	if (!g->pid) {
		close(in[1]);
		close(out[0]);
		prctl(PR_SET_PDEATHSIG, 0);
		setsid();
		signal(SIGTERM, SIG_IGN);
		signal(SIGINT, SIG_IGN);
		signal(SIGHUP, SIG_IGN);
		if (write(out[1], &c, 1) != 1)
			_exit(KSFT_FAIL);
		close(out[1]);
		while (read(in[0], &c, 1) < 0 && errno == EINTR)
			;
		_exit(restore(arg) ? 0 : KSFT_FAIL);
	}
	close(in[0]);
	close(out[1]);
	g->alive = in[1];
	ASSERT_EQ(1, read(out[0], &c, 1));
	close(out[0]);
}

/*
 * A child that is left over may have the other end as well, so that closing it tells nothing.
 * Should the guard be the one who was killed, this restores.
 */
void xf_unguard(struct __test_metadata *const _metadata, struct xf_guard *g, const char *what)
{
	int status;

	signal(SIGPIPE, SIG_IGN);
	EXPECT_EQ(1, write(g->alive, "", 1));
	close(g->alive);
	status = xf_wait(_metadata, g->pid, what);
	expect_success(_metadata, status, what);
	if (status)
		g->restore(g->arg);
}

/* Wait for the end of a thread, but not for ever: a test that is stuck ends there. */
void xf_join_thread(struct __test_metadata *const _metadata, pthread_t thread, const char *what)
{
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += XF_TIMEOUT;
	ASSERT_EQ(0, pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &end))
		TH_ROW_LOG("%s: no end within %d s", what, XF_TIMEOUT);
}

/* Stay on the CPU that this runs on, with all children to come; return it. */
int xf_pin(struct __test_metadata *const _metadata)
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
void xf_leave_real_time(void)
{
	const struct sched_param param = { 0 };

	sched_setscheduler(0, SCHED_OTHER, &param);
}

/*
 * Start a process that keeps this CPU busy until xf_kill(), so that whoever
 * sleeps here finds its registers gone when it wakes up: the idle task would have
 * kept them.
 */
pid_t xf_hog(struct __test_metadata *const _metadata)
{
	pid_t pid = xf_fork(_metadata);

	if (!pid) {
		xf_leave_real_time();
		for (;;)
			asm volatile("pause");
	}
	return pid;
}

/* Sleep while such a process runs. */
void xf_lose_cpu(struct __test_metadata *const _metadata)
{
	const struct timespec nap = { .tv_nsec = 20 * 1000 * 1000 };
	pid_t hog = xf_hog(_metadata);
	int i;

	for (i = 0; i < 3; i++)
		nanosleep(&nap, NULL);
	xf_kill(_metadata, hog);
}

/* ---- MSRs of the host ---- */

/* Stay on this CPU and open its MSRs by the msr driver, which takes root; -1 without it. */
int xf_open_msrs(struct __test_metadata *const _metadata, int flags)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", xf_pin(_metadata));
	fd = open(path, flags | O_CLOEXEC);
	/* libkvm takes an EACCES that is left over for the reason of its next failure. */
	errno = 0;
	return fd;
}

/*
 * @msr of this task.  One that is preempted inside of the driver goes on there
 * without its own MSRs, so that one reading proves nothing: this is what was read
 * three times in a row.
 */
uint64_t xf_read_msr(struct __test_metadata *const _metadata, int fd, uint32_t msr)
{
	uint64_t value, last = 0;
	int i, same = 0;

	for (i = 0; i < MSR_TRIES && same < 3; i++) {
		if (!EXPECT_THAT(pread(fd, &value, sizeof(value), msr) == sizeof(value),
				 "reading MSR %#x: %s", msr, strerror(errno)))
			return 0;
		same = i && value == last ? same + 1 : 1;
		last = value;
	}
	EXPECT_THAT(same == 3, "MSR %#x was never the same three times in a row", msr);
	return last;
}

/*
 * ---- PASID of the calling task, by the msr driver: only an ENQCMD with shared
 * virtual addressing makes the kernel write it, for which few machines have the
 * devices.  On the task's own CPU, with the task's state in the registers, it
 * becomes part of that state. ----
 */

static int pasid_msrs = -1;

/* Why a test cannot see the PASID of a task; NULL if it can */
static const char *pasid_missing(void)
{
	if (!(xf_cpu_supervisor_mask() & XFEATURE_MASK_PASID))
		return "no PASID state on this CPU";
	if (!xf_cpuinfo_flag("enqcmd") || !xf_cpuinfo_flag("xsaves"))
		return "the kernel does not use PASID state";
	return geteuid() ? "needs root" : NULL;
}

/*
 * Stay on this CPU and open its MSRs.  Where there is no PASID state, or only
 * root can tell, the test is skipped, and this is false.
 */
bool xf_pasid_need(struct __test_metadata *const _metadata)
{
	const char *missing = pasid_missing();

	if (missing)
		SKIP(return false, "%s", missing);
	pasid_msrs = xf_open_msrs(_metadata, O_RDWR);
	if (pasid_msrs < 0)
		SKIP(return false, "no /dev/cpu/N/msr");
	/* Writing no bytes is refused where writing is. */
	if (pwrite(pasid_msrs, "", 0, MSR_IA32_PASID) < 0 && errno == EPERM)
		SKIP(return false, "the msr driver takes no writes");
	return true;
}

uint64_t xf_pasid_read(struct __test_metadata *const _metadata)
{
	return xf_read_msr(_metadata, pasid_msrs, MSR_IA32_PASID);
}

void xf_pasid_write(struct __test_metadata *const _metadata, uint64_t value)
{
	int i;

	/* The msr driver may write another task's, as it may read that. */
	for (i = 0; i < MSR_TRIES; i++) {
		if (!EXPECT_THAT(pwrite(pasid_msrs, &value, sizeof(value), MSR_IA32_PASID) ==
				 sizeof(value), "writing IA32_PASID: %s", strerror(errno)) ||
		    xf_pasid_read(_metadata) == value)
			return;
	}
	EXPECT_SAME(value, xf_pasid_read(_metadata), "IA32_PASID back in user space");
}

/*
 * Give this task XF_PASID_MINE, in the register alone: its fpstate in memory has
 * XF_PASID_THEIRS, which shows if that is what is kept.
 */
void xf_pasid_give(struct __test_metadata *const _metadata)
{
	xf_pasid_write(_metadata, XF_PASID_THEIRS);
	xf_lose_cpu(_metadata);
	xf_pasid_write(_metadata, XF_PASID_MINE);
}

/* Now, and once other tasks have run, the PASID is the one that was given. */
void xf_pasid_expect_kept(struct __test_metadata *const _metadata, const char *when)
{
	EXPECT_SAME(XF_PASID_MINE, xf_pasid_read(_metadata), "IA32_PASID %s", when);
	xf_lose_cpu(_metadata);
	EXPECT_SAME(XF_PASID_MINE, xf_pasid_read(_metadata),
		    "IA32_PASID %s, once another task has run", when);
}
