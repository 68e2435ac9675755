// SPDX-License-Identifier: GPL-2.0-only
/*
 * A CPU that goes offline and comes back has XCR0, IA32_XSS, IA32_XFD and the
 * bits of CR0 and CR4 that XSAVE, protection keys and shadow stacks take, as it
 * had them before and as other CPUs have them.  Tasks that ran there, and those that come
 * there, have their registers, and AMX where they may use it.
 *
 * One CPU that is not CPU 0 is switched off and on.  A process of a session of its own
 * switches it on should the test end in whatever way.  Needs root.
 */
#define _GNU_SOURCE

#include <mntent.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "xregs.h"

#define MSR_IA32_XFD		0x1c4
#define MSR_IA32_XFD_ERR	0x1c5
#define MSR_IA32_S_CET		0x6a2

#define NO_SWITCH		"no CPU that can go offline"

#define CPUID_1_ECX_OSXSAVE	XF_BIT(27)
#define CPUID_7_ECX_OSPKE	XF_BIT(4)

/* The exception of MXCSR that is not to be masked: division by zero */
#define MXCSR_ZM		XF_BIT(9)

struct plug {
	int cpu;			/* not CPU 0 */
	int online;			/* its file in sysfs */
	int home;			/* another CPU */
};

FIXTURE(xstate_hotplug) {
	struct plug plug;
	struct xf_guard guard;
};

/* The last CPU that this may run on and that has a switch, if it may run on another one too */
static bool find_cpu(struct plug *plug)
{
	struct xcomp_cpus cpus = { };
	char path[64];
	int cpu;

	if (sched_getaffinity(0, sizeof(cpus), cpus.sets))
		return false;
	for (plug->home = 0; plug->home < XCOMP_MAX_CPUS - 1; plug->home++)
		if (CPU_ISSET_S(plug->home, sizeof(cpus), cpus.sets))
			break;
	for (cpu = XCOMP_MAX_CPUS - 1; cpu > plug->home; cpu--) {
		if (!CPU_ISSET_S(cpu, sizeof(cpus), cpus.sets))
			continue;
		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", cpu);
		plug->online = open(path, O_WRONLY | O_CLOEXEC);
		plug->cpu = cpu;
		if (plug->online >= 0)
			return true;
	}
	return false;
}

/* Whether a CPU that goes offline is lost to cpusets, as in those of cgroup v1 */
static bool cpusets_lose_cpus(void)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	const struct mntent *m;
	bool found = false;

	while (f && !found && (m = getmntent(f)))
		found = !strcmp(m->mnt_type, "cgroup") && hasmntopt(m, "cpuset");
	if (f)
		endmntent(f);
	return found;
}

/* Between tries */
static const struct timespec nap = { .tv_nsec = 100 * 1000 * 1000 };

static int try_switch(int fd, const char *value)
{
	return pwrite(fd, value, 1, 0) == 1 ? 0 : errno;
}

/* Return 0 or an errno.  For a while something else may keep all CPUs as they are. */
static int write_switch(int fd, const char *value)
{
	int i, error = try_switch(fd, value);

	for (i = 0; i < 20 && error == EBUSY; i++) {
		nanosleep(&nap, NULL);
		error = try_switch(fd, value);
	}
	return error;
}

/* Something may need all CPUs, or there is no room for its interrupts on the others. */
static bool stays_online(int error)
{
	return error == EBUSY || error == EPERM || error == ENOSPC;
}

/* Should it stay online, the test is skipped, but what it expects holds as well. */
static void switch_off(struct __test_metadata *const _metadata, const struct plug *plug)
{
	int error = write_switch(plug->online, "0");

	if (stays_online(error))
		SKIP(return, NO_SWITCH);
	EXPECT_ERRNO(0, error, "switching CPU %d off", plug->cpu);
}

static void switch_on(struct __test_metadata *const _metadata, const struct plug *plug)
{
	EXPECT_ERRNO(0, write_switch(plug->online, "1"), "switching CPU %d on", plug->cpu);
}

/* For half of the time that the test waits for who does that */
static bool restore_cpu(const void *arg)
{
	const struct plug *plug = arg;
	int i, error = try_switch(plug->online, "1");

	for (i = 0; error && i < XF_TIMEOUT * 5; i++) {
		nanosleep(&nap, NULL);
		error = try_switch(plug->online, "1");
	}
	return !error;
}

/* Switch it off and on, from another CPU. */
static void off_and_on(struct __test_metadata *const _metadata, const struct plug *plug)
{
	xcomp_run_on(_metadata, plug->home);
	switch_off(_metadata, plug);
	switch_on(_metadata, plug);
}

FIXTURE_SETUP(xstate_hotplug)
{
	xcomp_begin(_metadata, variant);
	if (!xf_xcr0())
		SKIP(return, "no XSAVE");
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU only");
	if (geteuid())
		SKIP(return, "needs root");
	if (cpusets_lose_cpus())
		SKIP(return, "cpusets of cgroup v1 would lose the CPU");
	if (!find_cpu(&self->plug))
		SKIP(return, NO_SWITCH);
	xf_guard(_metadata, &self->guard, restore_cpu, &self->plug);
	off_and_on(_metadata, &self->plug);
}

FIXTURE_TEARDOWN(xstate_hotplug)
{
	xf_unguard(_metadata, &self->guard, "the one who switches the CPU on");
	xcomp_end(_metadata);
}

/* What a CPU has that the kernel sets up as it comes online */
static const struct {
	const char *name;
	uint32_t msr;
} cpu_msrs[] = {
	{ "IA32_XSS", MSR_IA32_XSS },
	{ "IA32_XFD_ERR", MSR_IA32_XFD_ERR },
	{ "IA32_S_CET", MSR_IA32_S_CET },
};

struct cpu_state {
	uint64_t xcr0;
	uint32_t osxsave, ospke;
	uint32_t pkru;
	int errors[ARRAY_SIZE(cpu_msrs)];
	uint64_t msrs[ARRAY_SIZE(cpu_msrs)];
};

static void read_cpu(struct __test_metadata *const _metadata, int cpu, struct cpu_state *s)
{
	unsigned int i;
	int fd;

	xcomp_run_on(_metadata, cpu);
	memset(s, 0, sizeof(*s));
	s->xcr0 = xf_xcr0();
	s->osxsave = xf_cpuid(1, 0).ecx & CPUID_1_ECX_OSXSAVE;
	s->ospke = xf_cpuid(7, 0).ecx & CPUID_7_ECX_OSPKE;
	if (s->ospke)
		s->pkru = xregs_pkru();
	fd = xf_open_msrs(_metadata, O_RDONLY);
	for (i = 0; fd >= 0 && i < ARRAY_SIZE(cpu_msrs); i++)
		if (pread(fd, &s->msrs[i], sizeof(s->msrs[i]), cpu_msrs[i].msr) < 0)
			s->errors[i] = errno;
	if (fd >= 0)
		close(fd);
}

static void expect_same_state(struct __test_metadata *const _metadata,
			      const struct cpu_state *wanted, const struct cpu_state *got,
			      const char *whose)
{
	unsigned int i;

	EXPECT_SAME_MASK(xf_names, wanted->xcr0, got->xcr0, "XCR0 of %s", whose);
	EXPECT_SAME(wanted->osxsave, got->osxsave, "OSXSAVE of %s", whose);
	EXPECT_SAME(wanted->ospke, got->ospke, "OSPKE of %s", whose);
	EXPECT_SAME(wanted->pkru, got->pkru, "PKRU on %s", whose);
	for (i = 0; i < ARRAY_SIZE(cpu_msrs); i++) {
		EXPECT_ERRNO(wanted->errors[i], got->errors[i], "reading %s of %s",
			     cpu_msrs[i].name, whose);
		EXPECT_SAME(wanted->msrs[i], got->msrs[i], "%s of %s", cpu_msrs[i].name, whose);
	}
}

/* Verify that the CPU has all that another one has, before and after. */
TEST_F(xstate_hotplug, state)
{
	struct cpu_state other, before, after;

	read_cpu(_metadata, self->plug.home, &other);
	read_cpu(_metadata, self->plug.cpu, &before);
	off_and_on(_metadata, &self->plug);
	read_cpu(_metadata, self->plug.cpu, &after);
	expect_same_state(_metadata, &other, &before, "a CPU that has been offline");
	expect_same_state(_metadata, &before, &after, "it once it has been offline again");
}

static void divide(struct __test_metadata *const _metadata, void *cpu)
{
	const uint32_t mxcsr = XREGS_INITIAL_MXCSR & ~MXCSR_ZM;
	const float one = 1, zero = 0;

	prctl(PR_SET_DUMPABLE, 0);
	xcomp_run_on(_metadata, *(int *)cpu);
	asm volatile("ldmxcsr %0\n\t"
		     "movss %1, %%xmm0\n\t"
		     "divss %2, %%xmm0"
		     : : "m" (mxcsr), "m" (one), "m" (zero) : "xmm0");
}

/* The signal that ends a child there, or 0 */
static int signal_of_division(struct __test_metadata *const _metadata, int cpu)
{
	pid_t pid = xf_fork(_metadata);
	int status;

	if (!pid) {
		divide(_metadata, &cpu);
		xf_exit();
	}
	status = xf_wait(_metadata, pid, "a child that divides by zero");
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* Verify that SSE raises exceptions there, and not that of an unknown instruction. */
TEST_F(xstate_hotplug, exception)
{
	if (!signal_of_division(_metadata, self->plug.home))
		SKIP(return, "SSE raises no exceptions on this CPU");
	off_and_on(_metadata, &self->plug);
	EXPECT_SAME(SIGFPE, signal_of_division(_metadata, self->plug.cpu),
		    "signal of a division by zero on the CPU");
}

static void use_shadow_stack(struct __test_metadata *const _metadata, void *cpu)
{
	xcomp_run_on(_metadata, *(int *)cpu);
	EXPECT_THAT(xregs_ssp(), "no shadow stack on CPU %d", *(int *)cpu);
}

/* Verify that tasks have their shadow stack there. */
TEST_F(xstate_hotplug, shadow_stack)
{
	off_and_on(_metadata, &self->plug);
	xregs_on_shadow_stack(_metadata, "on the CPU", use_shadow_stack, &self->plug.cpu);
}

/* Verify that a task has its PASID there. */
TEST_F(xstate_hotplug, pasid)
{
	xcomp_run_on(_metadata, self->plug.cpu);
	if (!xf_pasid_need(_metadata))
		return;
	xf_pasid_give(_metadata);
	off_and_on(_metadata, &self->plug);
	xcomp_run_on(_metadata, self->plug.cpu);
	EXPECT_SAME(XF_PASID_MINE, xf_pasid_read(_metadata),
		    "IA32_PASID once the CPU has been offline");
}

/* What a task has done with AMX before it comes to the CPU */
enum use { NO_PERMISSION, PERMISSION, USED };

struct visit {
	const struct plug *plug;
	enum use last;			/* who was there before it went offline */
	enum use next;			/* who comes there */
};

static void prepare(struct __test_metadata *const _metadata, enum use use)
{
	struct xcomp_perm perm = { };

	if (use >= PERMISSION)
		xcomp_request_host(_metadata, &perm);
	if (use == USED)
		xf_use_amx(_metadata);
}

static void visit_before(struct __test_metadata *const _metadata, void *arg)
{
	const struct visit *v = arg;

	xcomp_run_on(_metadata, v->plug->cpu);
	prepare(_metadata, v->last);
}

static void visit_after(struct __test_metadata *const _metadata, void *arg)
{
	const uint64_t armed = xf_xcr0() & ~xf_permitted(false);
	const struct visit *v = arg;
	int msrs;

	prepare(_metadata, v->next);
	off_and_on(_metadata, v->plug);
	xcomp_run_on(_metadata, v->plug->cpu);
	msrs = xf_open_msrs(_metadata, O_RDONLY);
	if (msrs >= 0 &&
	    !EXPECT_SAME_MASK(xf_names, v->next == USED ? 0 : armed,
			      xf_read_msr(_metadata, msrs, MSR_IA32_XFD),
			      "IA32_XFD of a task that comes there"))
		return;
	xf_expect_amx(_metadata, v->next != NO_PERMISSION, "on a CPU that was offline");
	if (msrs >= 0)
		EXPECT_SAME_MASK(xf_names, v->next == NO_PERMISSION ? armed : 0,
				 xf_read_msr(_metadata, msrs, MSR_IA32_XFD),
				 "IA32_XFD after that");
}

/*
 * Verify that IA32_XFD is what the task takes, whoever was on the CPU before it
 * went offline.  No tile is in use: where the kernel errs it would take an #NM
 * itself.
 */
TEST_F(xstate_hotplug, xfd)
{
	static const char * const words[] = { "no permission", "permission", "use" };
	struct visit v = { .plug = &self->plug };

	if (!xf_has_amx())
		SKIP(return, XCOMP_NO_AMX);
	for (v.last = NO_PERMISSION; v.last <= USED; v.last++)
		for (v.next = NO_PERMISSION; v.next <= USED; v.next++) {
			th_case("%s of AMX before, %s after", words[v.last], words[v.next]);
			xf_in_child(_metadata, "a task before", visit_before, &v);
			xf_in_child(_metadata, "a task after", visit_after, &v);
		}
	th_no_case();
}

/* Registers for tasks that move, with tiles; NULL if the kernel would take an #NM for them */
static struct xregs *get_pattern(struct __test_metadata *const _metadata,
				 const struct plug *plug)
{
	struct visit v = { .plug = plug, .last = USED, .next = USED };
	uint64_t mask = xregs_mask();

	if (xf_has_amx()) {
		xf_in_child(_metadata, "a task before", visit_before, &v);
		xf_in_child(_metadata, "a task after", visit_after, &v);
		if (_metadata->exit_code == KSFT_FAIL)
			return NULL;
		prepare(_metadata, USED);
		mask |= XFEATURE_MASK_XTILE;
	}
	return xregs_pattern(mask);
}

/* Verify that a task that goes away from the CPU and comes back keeps all registers. */
TEST_F(xstate_hotplug, back)
{
	struct xcomp_cpus there = xcomp_only_cpu(self->plug.cpu);
	struct xcomp_cpus here = xcomp_only_cpu(self->plug.home);
	struct xregs_call calls[] = {
		{ "going away", SYS_sched_setaffinity, { 0, sizeof(here), (long)&here }, 0, -1 },
		{ "switching off", SYS_write, { self->plug.online, (long)"0", 1 }, 1, -1 },
		{ "switching on", SYS_write, { self->plug.online, (long)"1", 1 }, 1, -1 },
		{ "coming back", SYS_sched_setaffinity, { 0, sizeof(there), (long)&there },
		  0, -1 },
	};
	struct xregs *pattern = get_pattern(_metadata, &self->plug), *saved = xregs_alloc();
	unsigned int i;

	if (!pattern)
		return;
	xcomp_run_on(_metadata, self->plug.cpu);
	xregs_calls_between(pattern, saved, calls, ARRAY_SIZE(calls));
	if (stays_online(-calls[1].got))
		SKIP(return, NO_SWITCH);
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		EXPECT_SAME(calls[i].wanted, calls[i].got, "%s", calls[i].what);
	EXPECT_XREGS(pattern->xstate_bv, pattern, saved, "back on the CPU");
}

/* A task on the CPU while that goes offline */
struct left {
	const struct plug *plug;
	const struct xregs *pattern;
	int wake[2];			/* a pipe */
	int *run;			/* shared: 1 once it runs, 0 to end that */
	bool back;			/* the CPU comes back before that ends */
};

static void sleep_there(struct __test_metadata *const _metadata, void *arg)
{
	struct xregs *saved = xregs_alloc();
	struct left *l = arg;
	char c;

	prepare(_metadata, xf_has_amx() ? USED : NO_PERMISSION);
	xcomp_run_on(_metadata, l->plug->cpu);
	__atomic_store_n(l->run, 1, __ATOMIC_RELEASE);
	EXPECT_SAME(1, xregs_call_between(l->pattern, saved, SYS_read, l->wake[0], (long)&c, 1),
		    "bytes of a pipe");
	EXPECT_XREGS(l->pattern->xstate_bv, l->pattern, saved,
		     "of a task whose CPU has gone while it slept");
	if (l->back)
		EXPECT_SAME(l->plug->cpu, sched_getcpu(), "CPU that the task wakes up on");
}

static INTEGER_ONLY void spin(const struct xregs *pattern, struct xregs *saved, struct xregs *own,
			      int *run)
{
	xregs_save(own, pattern->xstate_bv);
	xregs_load(pattern, pattern->xstate_bv);
	__atomic_store_n(run, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(run, __ATOMIC_ACQUIRE))
		;
	xregs_save(saved, pattern->xstate_bv);
	xregs_load(own, pattern->xstate_bv);
}

static void run_there(struct __test_metadata *const _metadata, void *arg)
{
	struct xregs *saved = xregs_alloc();
	struct left *l = arg;

	prepare(_metadata, xf_has_amx() ? USED : NO_PERMISSION);
	xcomp_run_on(_metadata, l->plug->cpu);
	xf_leave_real_time();
	spin(l->pattern, saved, xregs_alloc(), l->run);
	EXPECT_XREGS(l->pattern->xstate_bv, l->pattern, saved,
		     "of a task whose CPU has gone while it ran");
}

/* Take the CPU away from a child that has @fn, and give it back @back before that ends or after. */
static void take_away(struct __test_metadata *const _metadata, const struct plug *plug, xf_fn fn,
		      bool back)
{
	struct left l = { .plug = plug, .pattern = get_pattern(_metadata, plug), .back = back };
	pid_t pid;
	int i;

	if (!l.pattern)
		return;
	ASSERT_EQ(0, pipe(l.wake));
	l.run = mmap(NULL, sizeof(*l.run), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	ASSERT_NE(MAP_FAILED, l.run);
	xcomp_run_on(_metadata, plug->home);
	pid = xf_fork(_metadata);
	if (!pid) {
		fn(_metadata, &l);
		xf_exit();
	}
	for (i = 0; i < XF_TIMEOUT * 10 && !__atomic_load_n(l.run, __ATOMIC_ACQUIRE); i++)
		nanosleep(&nap, NULL);
	nanosleep(&nap, NULL);
	switch_off(_metadata, plug);
	if (back)
		switch_on(_metadata, plug);
	__atomic_store_n(l.run, 0, __ATOMIC_RELEASE);
	EXPECT_EQ(1, write(l.wake[1], "", 1));
	xf_join(_metadata, pid, "a task whose CPU has gone");
	switch_on(_metadata, plug);
}

/* Verify that a task keeps all registers if its CPU goes away while it sleeps. */
TEST_F(xstate_hotplug, asleep)
{
	take_away(_metadata, &self->plug, sleep_there, false);
}

/* Verify the same if the CPU is back before it wakes up there, with registers of nobody. */
TEST_F(xstate_hotplug, asleep_until_back)
{
	take_away(_metadata, &self->plug, sleep_there, true);
}

/* Verify the same of one that runs in user mode. */
TEST_F(xstate_hotplug, running)
{
	take_away(_metadata, &self->plug, run_there, false);
}

XCOMP_HARNESS_MAIN
