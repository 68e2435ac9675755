// SPDX-License-Identifier: GPL-2.0-only
/* Allocations of the kernel that fail, see xfault.h. */
#define _GNU_SOURCE

#include "xfault.h"

#define DEBUGFS		"/sys/kernel/debug/"
#define NO_FAULTS	"no fault injection in this kernel"

/* More faults than any call has */
#define LIMIT		1000

/* What is lost by each of so many walks is lost for good. */
#define WALKS		5

/* Lines of /proc/allocinfo */
#define MAX_SITES	16384

/* The kinds of faults, the last of which a kernel may lack */
static const char * const kinds[] = { "failslab", "fail_page_alloc", "fail_usercopy" };

#define NR_KINDS	ARRAY_SIZE(kinds)
#define MANY_TIMES	1000000

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

/* A number; 0 where there is none */
static int read_kind(unsigned int kind, const char *name)
{
	char path[64], text[16];

	snprintf(path, sizeof(path), DEBUGFS "%s/%s", kinds[kind], name);
	return xf_read_file(path, text, sizeof(text)) > 0 ? atoi(text) : 0;
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
	const char *verbose = getenv("XFAULT_VERBOSE");
	const char *name, *value;
	unsigned int i;
	char path[64];

	if (access("/proc/thread-self/fail-nth", F_OK))
		SKIP(return false, NO_FAULTS);
	if (geteuid())
		SKIP(return false, "needs root");
	if (access(DEBUGFS "failslab/times", F_OK) ||
	    access(DEBUGFS "fail_page_alloc/times", F_OK))
		SKIP(return false, NO_FAULTS);
	for (i = 0; i < NR_KINDS; i++)
		if (read_kind(i, "probability"))
			SKIP(return false, "faults are injected already");
	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		name = settings[i][0];
		value = verbose && strstr(name, "verbose") ? verbose : settings[i][1];
		snprintf(path, sizeof(path), DEBUGFS "%s", name);
		if (xf_read_file(path, settings_before[i], sizeof(settings_before[i])) > 0)
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

/* The first fault, the second, and so on until there is none; return how many were noticed. */
static unsigned int walk(struct __test_metadata *const _metadata, const struct xfault_call *call)
{
	unsigned int nth, noticed = 0;
	struct xfault *f;

	f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, f);
	for (nth = 1; nth <= LIMIT; nth++) {
		th_case("%s, fault %u", call->what, nth);
		memset(f, 0, sizeof(*f));
		f->len = snprintf(f->nth, sizeof(f->nth), "%u", nth);
		(call->here ? try_here : try_in_child)(_metadata, f, call);
		if (!f->injected || _metadata->exit_code == KSFT_FAIL)
			break;
		noticed += f->noticed;
	}
	EXPECT_THAT(nth <= LIMIT, "and there are more");
	th_no_case();
	munmap(f, sizeof(*f));
	return noticed;
}

void xfault_walk(struct __test_metadata *const _metadata, const struct xfault_call *call)
{
	unsigned int noticed, kind, faults[NR_KINDS];

	for (kind = 0; kind < NR_KINDS; kind++)
		faults[kind] = read_kind(kind, "times");
	noticed = walk(_metadata, call);
	for (kind = 0; kind < NR_KINDS; kind++)
		faults[kind] -= read_kind(kind, "times");
	ksft_print_msg("%s: %s: %u failslab, %u fail_page_alloc, %u fail_usercopy; %u noticed\n",
		       th_row, call->what, faults[0], faults[1], faults[2], noticed);
	EXPECT_THAT(noticed >= call->least || _metadata->exit_code == KSFT_SKIP,
		    "%s has failed %u times, which is less than %u", call->what, noticed,
		    call->least);
}

/* ---- what is left ---- */

/* What is allocated, by the line of the kernel's source that has */
static struct site {
	char *text;
	unsigned long long before, now;
	bool stays;			/* once it had no more */
} sites[MAX_SITES];

static unsigned int read_sites(void)
{
	FILE *f = fopen("/proc/allocinfo", "re");
	unsigned int nr = 0;
	char *line = NULL;
	size_t size = 0;
	int at;

	while (f && nr < MAX_SITES && getline(&line, &size, f) > 0) {
		if (sscanf(line, "%*u %llu %n", &sites[nr].now, &at) != 1)
			continue;
		sites[nr].text = sites[nr].text ?: strdup(line + at);
		nr++;
	}
	if (f)
		fclose(f);
	free(line);
	return nr;
}

/* How many have more than before, each time until now */
static unsigned int growing(unsigned int nr)
{
	unsigned int i, found = 0;

	for (i = 0; i < nr; i++)
		found += !sites[i].stays && sites[i].now > sites[i].before;
	return found;
}

/*
 * Nothing is left over: no line of the kernel's source has more after each of some walks, and
 * a second, as the kernel frees much of it when it finds the time.
 */
void xfault_expect_freed(struct __test_metadata *const _metadata, const struct xfault_call *call)
{
	unsigned int nr = read_sites(), i, try, walks;

	if (!nr)
		SKIP(return, NO_FAULTS);
	for (walks = 0; walks < WALKS; walks++) {
		for (i = 0; i < nr; i++)
			sites[i].before = sites[i].now;
		walk(_metadata, call);
		for (try = 0; try < 20; try++) {
			usleep(50 * 1000);
			if (read_sites() != nr || !growing(nr) ||
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
