// SPDX-License-Identifier: GPL-2.0-only
/* Allocations of the kernel that fail, see xfault.h. */
#define _GNU_SOURCE

#include "xfault.h"

#define DEBUGFS		"/sys/kernel/debug/"
#define NO_FAULTS	"no fault injection in this kernel"

/* More faults than any call has */
#define LIMIT		1000

/* What is lost by each of so many walks is lost for good. */
#define WALKS		4

/* Lines of /proc/allocinfo */
#define MAX_SITES	16384

/*
 * By default no allocation fails that may wait, as nearly all do.  Each fault is taken off
 * "times", and told in the kernel's log, by which the lab knows that what follows there was
 * asked for.  Without a probability, which has to be 0, nobody else gets any.
 */
static const char * const settings[][2] = {
	{ "failslab/ignore-gfp-wait", "N" },
	{ "failslab/verbose", "1" },
	{ "failslab/times", "1000000" },
	{ "fail_page_alloc/ignore-gfp-wait", "N" },
	{ "fail_page_alloc/ignore-gfp-highmem", "N" },
	{ "fail_page_alloc/min-order", "0" },
	{ "fail_page_alloc/verbose", "1" },
	{ "fail_page_alloc/times", "1000000" },
	{ "fail_usercopy/verbose", "1" },
	{ "fail_usercopy/times", "1000000" },
};

static char settings_before[ARRAY_SIZE(settings)][16];

/* A setting as it is; 0 where there is none */
static int read_setting(const char *name, char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), DEBUGFS "%s", name);
	return xf_read_file(path, text, size) > 0 ? atoi(text) : 0;
}

static bool write_setting(const char *name, const char *value)
{
	ssize_t len = strlen(value);
	char path[64];
	bool done;
	int fd;

	snprintf(path, sizeof(path), DEBUGFS "%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	done = fd >= 0 && write(fd, value, len) == len;
	if (fd >= 0)
		close(fd);
	return done;
}

/* SKIP where no allocation can be made to fail; else xfault_end() is to follow. */
bool xfault_need(struct __test_metadata *const _metadata)
{
	static const char * const probabilities[] = {
		"failslab/probability", "fail_page_alloc/probability", "fail_usercopy/probability",
	};
	const char *verbose = getenv("XFAULT_VERBOSE");
	const char *name, *value;
	unsigned int i;
	char text[16];

	if (access("/proc/thread-self/fail-nth", F_OK))
		SKIP(return false, NO_FAULTS);
	if (geteuid())
		SKIP(return false, "needs root");
	if (access(DEBUGFS "failslab/times", F_OK) ||
	    access(DEBUGFS "fail_page_alloc/times", F_OK))
		SKIP(return false, NO_FAULTS);
	for (i = 0; i < ARRAY_SIZE(probabilities); i++)
		if (read_setting(probabilities[i], text, sizeof(text)))
			SKIP(return false, "faults are injected already");
	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		name = settings[i][0];
		value = verbose && strstr(name, "verbose") ? verbose : settings[i][1];
		read_setting(name, settings_before[i], sizeof(settings_before[i]));
		if (settings_before[i][0])
			EXPECT_THAT(write_setting(name, value), "cannot set %s", name);
	}
	return _metadata->exit_code != KSFT_FAIL;
}

void xfault_end(struct __test_metadata *const _metadata)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (settings_before[i][0])
			EXPECT_THAT(write_setting(settings[i][0], settings_before[i]),
				    "cannot reset %s", settings[i][0]);
}

/* ---- one fault ---- */

INTEGER_ONLY void xfault_arm(struct xfault *f)
{
	int error = errno;

	f->armed = true;
	syscall(SYS_write, f->fd, f->nth, f->len);
	errno = error;
}

/*
 * 0 is left of a fault that has come.  To read and to write that takes two copies, in which
 * one may come that has not: then nothing can be read, or nothing is left to write.
 */
INTEGER_ONLY void xfault_disarm(struct xfault *f)
{
	int error = errno;
	char left = '-';

	if (!f->armed)
		return;
	f->armed = false;
	f->injected = syscall(SYS_pread64, f->fd, &left, 1L, 0L, 0L) == 1 && left == '0';
	syscall(SYS_write, f->fd, "0", 1L);
	errno = error;
}

void xfault_expect_errno(struct __test_metadata *const _metadata, struct xfault *f, int error,
			 const char *what)
{
	f->noticed = error;
	if (error && f->injected)
		EXPECT_THAT(error == ENOMEM || error == EFAULT || error == EAGAIN,
			    "%s: wanted ENOMEM, EFAULT or EAGAIN got %s (%d)", what,
			    th_errno_name(error), error);
	else
		EXPECT_ERRNO(0, error, "%s, without a fault", what);
}

static void try_here(struct __test_metadata *const _metadata, struct xfault *f,
		     const struct xfault_call *call)
{
	f->fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (!EXPECT_THAT(f->fd >= 0, "fail-nth: %s", strerror(errno)))
		return;
	call->try(_metadata, f, call->arg);
	close(f->fd);
}

static void try_in_child(struct __test_metadata *const _metadata, struct xfault *f,
			 const struct xfault_call *call)
{
	pid_t pid = xf_fork(_metadata);

	if (!pid) {
		try_here(_metadata, f, call);
		xf_exit();
	}
	xf_join(_metadata, pid, "the child that gets a fault");
}

/* ---- all of them ---- */

static unsigned int read_times(const char *name)
{
	char text[16];

	return read_setting(name, text, sizeof(text));
}

/* The first fault, each @step'th after it, until there is none; return how many there were. */
static unsigned int walk(struct __test_metadata *const _metadata, const struct xfault_call *call,
			 unsigned int step, unsigned int *noticed)
{
	struct xfault *f;
	unsigned int nth;

	f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, f);
	*noticed = 0;
	for (nth = 1; nth <= LIMIT; nth += step) {
		th_case("%s, fault %u", call->what, nth);
		memset(f, 0, sizeof(*f));
		f->len = snprintf(f->nth, sizeof(f->nth), "%u", nth);
		(call->here ? try_here : try_in_child)(_metadata, f, call);
		if (!f->injected || _metadata->exit_code == KSFT_FAIL)
			break;
		if (getenv("XFAULT_VERBOSE"))
			TH_ROW_LOG("%s", f->noticed ? "noticed" : "not noticed");
		*noticed += f->noticed;
	}
	EXPECT_THAT(nth <= LIMIT, "and there are more");
	th_no_case();
	munmap(f, sizeof(*f));
	return nth - 1;
}

void xfault_walk(struct __test_metadata *const _metadata, const struct xfault_call *call)
{
	unsigned int slab = read_times("failslab/times");
	unsigned int pages = read_times("fail_page_alloc/times");
	unsigned int faults, noticed;

	faults = walk(_metadata, call, 1, &noticed);
	slab -= read_times("failslab/times");
	pages -= read_times("fail_page_alloc/times");
	/* Copies are what is left: of those counted one was not the call's, see xfault_disarm(). */
	ksft_print_msg("%s: %s: %u in slab, %u in pages, %u in copies, %u noticed\n", th_row,
		       call->what, slab, pages, faults - slab - pages, noticed);
	EXPECT_THAT(noticed >= call->least || _metadata->exit_code == KSFT_SKIP,
		    "%s has failed %u times, which is less than %u", call->what, noticed,
		    call->least);
}

/* ---- what is left ---- */

/* What is allocated, by the line of the kernel's source that has */
struct site {
	char *text;
	unsigned long long before, now;
	bool stays;			/* once it had no more */
};

/*
 * What allocators have for themselves, and give back when they find the time or need it: pages
 * of slabs, addresses for vmalloc() and page tables of these.  A leak of what is there shows in
 * another line.
 */
static bool is_allocator(const char *line)
{
	static const char * const functions[] = {
		"func:alloc_slab_page", "func:alloc_slab_obj_exts", "func:alloc_vmap_area",
		"func:preload_this_cpu_lock", "func:__pte_alloc_kernel",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(functions); i++)
		if (strstr(line, functions[i]))
			return true;
	return false;
}

static unsigned int read_sites(struct site *sites)
{
	FILE *f = fopen("/proc/allocinfo", "re");
	unsigned int nr = 0;
	char *line = NULL;
	size_t size = 0;
	int at;

	while (f && nr < MAX_SITES && getline(&line, &size, f) > 0) {
		if (sscanf(line, "%*u %llu %n", &sites[nr].now, &at) != 1 || is_allocator(line))
			continue;
		line[strcspn(line, "\n")] = '\0';
		sites[nr].text = sites[nr].text ?: strdup(line + at);
		nr++;
	}
	if (f)
		fclose(f);
	free(line);
	return nr;
}

/* How many have more than before, each time until now */
static unsigned int growing(const struct site *sites, unsigned int nr)
{
	unsigned int i, found = 0;

	for (i = 0; i < nr; i++)
		found += !sites[i].stays && sites[i].now > sites[i].before;
	return found;
}

/* What is to be freed some time may wait for that for five seconds, unless memory is short. */
#define FREE_TRIES	100

static void free_soon(struct __test_metadata *const _metadata)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	EXPECT_THAT(write(fd, "2", 1) == 1, "drop_caches: %s", strerror(errno));
	close(fd);
}

/* Nothing is left over: no line of the kernel's source has more after each of some walks. */
void xfault_expect_freed(struct __test_metadata *const _metadata, const struct xfault_call *call)
{
	struct site *sites = calloc(MAX_SITES, sizeof(*sites));
	unsigned int nr, i, try, walks, noticed;

	ASSERT_NE(NULL, sites);
	nr = read_sites(sites);
	if (!nr)
		SKIP(return, NO_FAULTS);
	/* The first one fills caches. */
	for (walks = 0; walks <= WALKS; walks++) {
		read_sites(sites);
		for (i = 0; i < nr; i++)
			sites[i].before = sites[i].now;
		walk(_metadata, call, call->step ?: 1, &noticed);
		if (!walks)
			continue;
		free_soon(_metadata);
		for (try = 0; try < FREE_TRIES; try++) {
			usleep(100 * 1000);
			if (read_sites(sites) != nr || !growing(sites, nr) ||
			    _metadata->exit_code == KSFT_FAIL)
				return;
		}
		for (i = 0; i < nr; i++)
			sites[i].stays |= sites[i].now <= sites[i].before;
	}
	for (i = 0; i < nr; i++)
		EXPECT_THAT(sites[i].stays, "%llu more than before: %s",
			    sites[i].now - sites[i].before, sites[i].text);
}
