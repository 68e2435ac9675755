/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * XCOMP_BV and XSTATE_BV of the fpstates of a running vCPU, read from the
 * tracepoint x86_fpu:x86_fpu_regs_activated.
 *
 * KVM swaps the guest's fpstate in and the host's back in around KVM_RUN and
 * marks each as activated, then says "load" or "unload" with kvm:kvm_fpu. The
 * activation right before a "load" is the guest's, the one right before an
 * "unload" is the host's.
 *
 * Tracepoints are no stable interface and need root: who cannot use them skips.
 */
#ifndef SELFTESTS_X86_XFEATURE_TRACE_H
#define SELFTESTS_X86_XFEATURE_TRACE_H

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "xfeature.h"

#define XF_TRACE_PREFIX	"xfeature."

/* The headers of one fpstate at the moment it was activated */
struct xf_traced {
	uint64_t xstate_bv;
	uint64_t xcomp_bv;
};

/* One stay of the guest's fpstate in the registers */
struct xf_traced_run {
	struct xf_traced guest;
	struct xf_traced host;
};

/* The private instance; empty where there is none, then the reason says why */
static char xf_trace_dir[128];
static const char *xf_trace_reason = "tracefs was not looked for";

/* For programs that look at fpstates of tasks only, and need no KVM */
static bool xf_trace_tasks_only;

static inline int xf_trace_write(const char *file, const char *text)
{
	size_t len = strlen(text);
	char path[256];
	ssize_t done;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", xf_trace_dir, file);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -1;
	done = len ? write(fd, text, len) : 0;
	close(fd);
	return done == (ssize_t)len ? 0 : -1;
}

/* Remove what a process that was killed left behind. */
static inline void xf_trace_sweep(const char *instances)
{
	size_t prefix = strlen(XF_TRACE_PREFIX);
	DIR *dir = opendir(instances);
	struct dirent *d;
	char path[512];
	int pid;

	while (dir && (d = readdir(dir))) {
		if (strncmp(d->d_name, XF_TRACE_PREFIX, prefix))
			continue;
		pid = atoi(d->d_name + prefix);
		if (pid > 0 && kill(pid, 0) && errno == ESRCH) {
			snprintf(path, sizeof(path), "%s/%s", instances,
				 d->d_name);
			rmdir(path);
		}
	}
	if (dir)
		closedir(dir);
}

/* Remove the instance. Safe in a signal handler. */
static inline void xf_trace_close(void)
{
	const struct timespec nap = { .tv_nsec = 10 * 1000 * 1000 };
	int i;

	/* The instance stays busy while a dying child holds one of its files. */
	for (i = 0; xf_trace_dir[0] && i < 200; i++) {
		if (!rmdir(xf_trace_dir) || errno != EBUSY)
			break;
		nanosleep(&nap, NULL);
	}
	xf_trace_dir[0] = '\0';
}

static inline bool xf_trace_enable(void)
{
	static const char nobody[] = "common_pid == 0";

	/* A few pages are enough for one KVM_RUN and quick to allocate. */
	xf_trace_write("buffer_size_kb", "16");

	xf_trace_reason = "no tracepoint x86_fpu_regs_activated";
	if (xf_trace_write("events/x86_fpu/x86_fpu_regs_activated/filter",
			   nobody) ||
	    xf_trace_write("events/x86_fpu/x86_fpu_regs_activated/enable", "1"))
		return false;

	if (xf_trace_tasks_only)
		return true;

	xf_trace_reason = "no tracepoint kvm_fpu";
	if (xf_trace_write("events/kvm/kvm_fpu/filter", nobody) ||
	    xf_trace_write("events/kvm/kvm_fpu/enable", "1"))
		return false;

	return true;
}

/*
 * Make an instance of tracefs that belongs to this process and those it forks.
 * Whoever opens it closes it.
 */
static inline void xf_trace_open(void)
{
	static const char * const roots[] = {
		"/sys/kernel/tracing/instances",
		"/sys/kernel/debug/tracing/instances",
	};
	unsigned int i;

	xf_trace_reason = "no tracefs, or no permission to use it";
	for (i = 0; i < ARRAY_SIZE(roots); i++) {
		if (access(roots[i], W_OK))
			continue;
		xf_trace_sweep(roots[i]);
		snprintf(xf_trace_dir, sizeof(xf_trace_dir), "%s/%s%d",
			 roots[i], XF_TRACE_PREFIX, getpid());
		if (!mkdir(xf_trace_dir, 0700))
			break;
		xf_trace_dir[0] = '\0';
	}
	if (xf_trace_dir[0] && !xf_trace_enable())
		xf_trace_close();
}

/* Forget what was recorded and record this process, or none if @on is false. */
static inline int xf_trace_record(bool on)
{
	char filter[64];

	snprintf(filter, sizeof(filter), "common_pid == %d", on ? getpid() : 0);
	if (xf_trace_write("events/x86_fpu/x86_fpu_regs_activated/filter",
			   filter) ||
	    xf_trace_write("events/kvm/kvm_fpu/filter", filter))
		return -1;
	return on ? xf_trace_write("trace", "") : 0;
}

/*
 * Read up to @max runs that were recorded. Return their number, or -1 if the
 * records cannot be read or do not come in the order that KVM gives them.
 */
static inline int xf_trace_runs(struct xf_traced_run *runs, int max)
{
	struct xf_traced last = { 0, 0 }, guest = { 0, 0 };
	bool activated = false, loaded = false;
	unsigned long bv, comp;
	char line[512], *p;
	int nr = 0;
	FILE *f;

	snprintf(line, sizeof(line), "%s/trace", xf_trace_dir);
	f = fopen(line, "re");
	if (!f)
		return -1;

	while (nr < max && fgets(line, sizeof(line), f)) {
		p = strstr(line, "xfeatures: ");
		if (p && sscanf(p, "xfeatures: %lx xcomp_bv: %lx", &bv,
				&comp) == 2) {
			last.xstate_bv = bv;
			last.xcomp_bv = comp;
			activated = true;
		} else if (strstr(line, "kvm_fpu: load") && activated) {
			guest = last;
			loaded = true;
			activated = false;
		} else if (strstr(line, "kvm_fpu: unload") && loaded &&
			   activated) {
			runs[nr].guest = guest;
			runs[nr].host = last;
			nr++;
			loaded = false;
			activated = false;
		} else if (strstr(line, "kvm_fpu: ")) {
			nr = -1;
			break;
		}
	}
	fclose(f);
	return nr;
}

/* Forget what was recorded and record the calling thread's fpstates, or none. */
static inline int xf_trace_record_task(bool on)
{
	char filter[64];

	snprintf(filter, sizeof(filter), "common_pid == %ld",
		 on ? syscall(SYS_gettid) : 0);
	if (xf_trace_write("events/x86_fpu/x86_fpu_regs_activated/filter",
			   filter))
		return -1;
	return on ? xf_trace_write("trace", "") : 0;
}

/* The fpstate that was activated last. Return -1 if none was. */
static inline int xf_trace_last(struct xf_traced *last)
{
	unsigned long bv, comp;
	char line[512], *p;
	int result = -1;
	FILE *f;

	snprintf(line, sizeof(line), "%s/trace", xf_trace_dir);
	f = fopen(line, "re");
	while (f && fgets(line, sizeof(line), f)) {
		p = strstr(line, "xfeatures: ");
		if (p && sscanf(p, "xfeatures: %lx xcomp_bv: %lx", &bv,
				&comp) == 2) {
			last->xstate_bv = bv;
			last->xcomp_bv = comp;
			result = 0;
		}
	}
	if (f)
		fclose(f);
	return result;
}

#endif /* SELFTESTS_X86_XFEATURE_TRACE_H */
