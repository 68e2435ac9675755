// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fpstates by the tracepoints x86_fpu:x86_fpu_regs_activated and kvm:kvm_fpu.
 *
 * KVM swaps the guest's fpstate in and the host's back in around KVM_RUN and
 * marks each as activated, then says "load" or "unload" with kvm_fpu.  The
 * activation right before a "load" is the guest's, the one right before an
 * "unload" is the host's.
 *
 * The records come by perf events of the calling thread, which end with their
 * file descriptors, whatever becomes of the process, and need no PID to filter
 * by, which would be another one in a PID namespace.
 */
#include <linux/perf_event.h>

#include "fpu_trace.h"

/* Room for some hundred records */
#define RING_PAGES	8

/* A tracepoint: its number, and where its records have those two fields */
struct tracepoint {
	const char *name;
	const char *fields[2];
	u32 id;
	struct {
		u32 offset, size;
	} at[2];
};

static struct tracepoint activated = {
	.name = "x86_fpu/x86_fpu_regs_activated",
	.fields = { " xfeatures;", " xcomp_bv;" },
};

static struct tracepoint kvm_fpu = {
	.name = "kvm/kvm_fpu",
	.fields = { " load;" },
};

/* In the order of fpu_trace.events[] */
static struct tracepoint *const tracepoints[] = { &activated, &kvm_fpu };

/* Lines are "ID: 42" and "field:u64 xcomp_bv; offset:32; size:8; signed:0;". */
static bool read_format(const char *root, struct tracepoint *t)
{
	char path[256], text[4096];
	const char *p;
	int i;

	snprintf(path, sizeof(path), "%s/events/%s/format", root, t->name);
	if (xf_read_file(path, text, sizeof(text)) < 0)
		return false;
	p = strstr(text, "ID: ");
	t->id = p ? atoi(p + 4) : 0;
	for (i = 0; i < 2 && t->fields[i]; i++) {
		p = strstr(text, t->fields[i]);
		if (!p || sscanf(p + strlen(t->fields[i]), " offset:%u; size:%u;",
				 &t->at[i].offset, &t->at[i].size) != 2)
			return false;
	}
	return t->id;
}

/* @t in the thread @tid, or in the calling one if that is 0 */
static int open_event(const struct tracepoint *t, pid_t tid)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.config = t->id,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_RAW,
		.disabled = 1,
	};

	return syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

/* SKIP if fpstates cannot be traced here, or have no XCOMP_BV; true if they can. */
bool fpu_trace_need(struct __test_metadata *const _metadata)
{
	const char *root = "/sys/kernel/tracing";
	int fd;

	if (access("/sys/kernel/tracing/events", R_OK))
		root = "/sys/kernel/debug/tracing";
	if (access(root, R_OK))
		SKIP(return false, "no tracefs, or no permission to use it");
	if (!read_format(root, &activated))
		SKIP(return false, "no tracepoint x86_fpu_regs_activated");
	if (!read_format(root, &kvm_fpu))
		SKIP(return false, "no tracepoint kvm_fpu");
	fd = open_event(&activated, 0);
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		SKIP(return false, "no tracefs, or no permission to use it");
	close(fd);
	if (!xf_cpuinfo_flag("xsaves"))
		SKIP(return false, "the kernel does not use XSAVES");
	return true;
}

/* Record the fpstates of a thread, 0 for the calling one, until one of the functions below. */
void fpu_trace_begin(struct __test_metadata *const _metadata, struct fpu_trace *t, pid_t tid)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(tracepoints); i++) {
		t->events[i] = open_event(tracepoints[i], tid);
		ASSERT_LE(0, t->events[i])
			TH_ROW_LOG("perf_event_open() of %s: %s", tracepoints[i]->name,
				   strerror(errno));
	}
	t->ring = mmap(NULL, (1 + RING_PAGES) * getpagesize(), PROT_READ | PROT_WRITE,
		       MAP_SHARED, t->events[0], 0);
	ASSERT_NE(MAP_FAILED, t->ring)
		TH_ROW_LOG("mmap() of the ring for the trace: %s", strerror(errno));
	/* One ring for both, so that they stand in the order in which they came */
	ASSERT_EQ(0, ioctl(t->events[1], PERF_EVENT_IOC_SET_OUTPUT, t->events[0]));
	for (i = 0; i < ARRAY_SIZE(tracepoints); i++)
		ASSERT_EQ(0, ioctl(t->events[i], PERF_EVENT_IOC_ENABLE, 0));
}

/* A record of perf, and in it one of a tracepoint, which begins with its number */
struct record {
	struct perf_event_header header;
	u32 size;
	u8 raw[];
};

/* The record at @at; NULL at the end.  Nobody makes room, so that no record wraps. */
static const struct record *next_record(const struct fpu_trace *t, u64 *at)
{
	const struct perf_event_mmap_page *page = t->ring;
	const struct record *r = t->ring + page->data_offset + *at;

	if (*at >= __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE))
		return NULL;
	*at += r->header.size;
	return r;
}

static bool record_is(const struct record *r, const struct tracepoint *t)
{
	u16 type;

	if (r->header.type != PERF_RECORD_SAMPLE)
		return false;
	memcpy(&type, r->raw, sizeof(type));
	return type == t->id;
}

static u64 record_field(const struct record *r, const struct tracepoint *t, int field)
{
	u64 value = 0;

	memcpy(&value, r->raw + t->at[field].offset, t->at[field].size);
	return value;
}

/* Whether @r is of an fpstate that was activated; then it is in @header. */
static bool record_header(const struct record *r, struct fpstate_header *header)
{
	if (!record_is(r, &activated))
		return false;
	header->xstate_bv = record_field(r, &activated, 0);
	header->xcomp_bv = record_field(r, &activated, 1);
	return true;
}

/*
 * Stop.  False, and the test has failed, if the kernel has counted more than the ring
 * has: where that is full it drops records, and may find no room to say so either.
 */
static bool trace_stop(struct __test_metadata *const _metadata, struct fpu_trace *t)
{
	const struct record *r;
	u64 at, found, counted;
	bool complete = true;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(tracepoints); i++) {
		EXPECT_EQ(0, ioctl(t->events[i], PERF_EVENT_IOC_DISABLE, 0));
		EXPECT_EQ(sizeof(counted), read(t->events[i], &counted, sizeof(counted)));
		at = 0;
		found = 0;
		while ((r = next_record(t, &at)))
			found += record_is(r, tracepoints[i]);
		complete &= EXPECT_SAME(counted, found, "records of %s that the trace still has",
					tracepoints[i]->name);
	}
	return complete;
}

static void trace_free(struct fpu_trace *t)
{
	u32 i;

	munmap(t->ring, (1 + RING_PAGES) * getpagesize());
	for (i = 0; i < ARRAY_SIZE(tracepoints); i++)
		close(t->events[i]);
}

/* The fpstate that was activated last; false, and the test has failed, if that cannot be told */
bool fpu_trace_last(struct __test_metadata *const _metadata, struct fpu_trace *t,
		    struct fpstate_header *last)
{
	bool complete = trace_stop(_metadata, t), any = false;
	const struct record *r;
	u64 at = 0;

	while ((r = next_record(t, &at)))
		any |= record_header(r, last);
	trace_free(t);
	return EXPECT_THAT(any, "no fpstate in the trace") && complete;
}

/* The fpstates of @nr KVM_RUNs; false, and the test has failed, if there were not as many */
bool fpu_trace_runs(struct __test_metadata *const _metadata, struct fpu_trace *t,
		    struct fpstate_run *runs, int nr)
{
	bool complete = trace_stop(_metadata, t), in_order = true;
	bool fresh = false, loaded = false, load;
	struct fpstate_header last = { }, guest = { };
	const struct record *r;
	u64 at = 0;
	int n = 0;

	while ((r = next_record(t, &at))) {
		fresh |= record_header(r, &last);
		if (!record_is(r, &kvm_fpu))
			continue;
		load = record_field(r, &kvm_fpu, 0);
		in_order &= fresh && load != loaded;
		if (load)
			guest = last;
		else if (loaded && n++ < nr)
			runs[n - 1] = (struct fpstate_run){ guest, last };
		loaded = load;
		fresh = false;
	}
	trace_free(t);
	return EXPECT_THAT(in_order, "fpstates of guest and host do not take turns") &&
	       EXPECT_SAME(nr, n, "KVM_RUNs in the trace") && complete;
}

/*
 * @got carries what an fpstate of a guest or of a host must: PASID and CET_USER
 * in both, CET_KERNEL in a guest's, and XTILE_DATA if @amx says so.
 */
void expect_fpstate(struct __test_metadata *const _metadata, bool guest, bool amx,
		    const struct fpstate_header *got, const char *whose)
{
	u64 wanted = xf_xcr0() & ~XFEATURE_MASK_XTILE_DATA, known = ~XFEATURE_MASK_CET;
	u64 cpu = xf_cpu_supervisor_mask();

	if (amx)
		wanted |= XFEATURE_MASK_XTILE_DATA;
	if (xf_cpuinfo_flag("enqcmd"))
		wanted |= cpu & XFEATURE_MASK_PASID;
	wanted |= cpu & XFEATURE_MASK_CET_USER;
	if (guest)
		wanted |= cpu & XFEATURE_MASK_CET_KERNEL;

	/* A kernel that does not offer guest CET may know its state, or not. */
	if (kvm_offered_xss() || xf_cpuinfo_flag("user_shstk") || !(cpu & XFEATURE_MASK_CET_USER))
		known |= XFEATURE_MASK_CET_USER;
	if (kvm_offered_xss() || !guest || !(cpu & XFEATURE_MASK_CET_KERNEL))
		known |= XFEATURE_MASK_CET_KERNEL;

	EXPECT_XFEATURES((wanted | BIT_ULL(63)) & known, got->xcomp_bv & known, "XCOMP_BV of %s",
			 whose);
	EXPECT_XFEATURES(0, got->xstate_bv & ~got->xcomp_bv, "XSTATE_BV beyond XCOMP_BV of %s",
			 whose);
}
