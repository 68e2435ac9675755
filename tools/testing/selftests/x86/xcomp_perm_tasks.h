/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checks of whom an AMX permission belongs to: all threads of a process, and
 * copies of it that fork() makes, but nothing that execve() starts.
 */
#ifndef SELFTESTS_X86_XCOMP_PERM_TASKS_H
#define SELFTESTS_X86_XCOMP_PERM_TASKS_H

#include <semaphore.h>
#include <spawn.h>

#include "xcomp_host.h"

#define XCOMP_CHILD_STACK	(64 * 1024)

/* A thread that was there before anything was asked for */
struct xcomp_witness {
	struct xcomp *x;
	sem_t go;
	bool ok;
};

static inline void *xcomp_witness(void *arg)
{
	struct xcomp_witness *w = arg;

	sem_wait(&w->go);
	w->ok = xcomp_check_masks(w->x) == KSFT_PASS;
	return NULL;
}

struct xcomp_asker {
	struct xcomp *x;
	bool guest;
	bool ok;
};

static inline void *xcomp_asker(void *arg)
{
	struct xcomp_asker *a = arg;

	a->ok = xcomp_request(a->x, a->guest);
	return NULL;
}

static inline bool xcomp_ask_in_thread(struct xcomp *x, bool guest)
{
	struct xcomp_asker a = { .x = x, .guest = guest };

	return xcomp_thread(x, xcomp_asker, &a) && a.ok;
}

/*
 * Verify that what a thread is granted is granted to the process: its leader
 * and a thread that was there before see it, and it outlives the thread.
 */
static inline int xcomp_check_thread(struct xcomp *x)
{
	struct xcomp_witness w = { .x = x };
	pthread_t thread;
	bool ok;

	sem_init(&w.go, 0, 0);
	errno = pthread_create(&thread, NULL, xcomp_witness, &w);
	if (errno)
		return xcomp_error(x, "pthread_create");

	ok = xcomp_ask_in_thread(x, true);
	ok &= xcomp_check_masks(x) == KSFT_PASS;
	ok &= xcomp_ask_in_thread(x, false);
	ok &= xcomp_check_masks(x) == KSFT_PASS;
	sem_post(&w.go);
	pthread_join(thread, NULL);
	return xcomp_verdict(xcomp_rule(x, ok & w.ok,
		"a permission that any thread asks for is the process's"));
}

/* Verify that what the leader is granted is granted to its threads. */
static inline int xcomp_check_leader(struct xcomp *x)
{
	struct xcomp_witness before = { .x = x }, after = { .x = x };
	pthread_t thread;
	bool ok;

	sem_init(&before.go, 0, 0);
	sem_init(&after.go, 0, 1);
	errno = pthread_create(&thread, NULL, xcomp_witness, &before);
	if (errno)
		return xcomp_error(x, "pthread_create");

	ok = xcomp_request(x, false) && xcomp_request(x, true);
	sem_post(&before.go);
	pthread_join(thread, NULL);
	ok &= xcomp_thread(x, xcomp_witness, &after);
	return xcomp_verdict(xcomp_rule(x, ok & before.ok & after.ok,
		"the leader's permissions are those of all threads"));
}

/* Wait until the leader of this process is a zombie; false if it never is. */
static inline bool xcomp_leader_gone(void)
{
	const struct timespec nap = { .tv_nsec = 1000 * 1000 };
	char path[64], buf[512], *p;
	int i;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	for (i = 0; i < 5000; i++) {
		if (xf_read_file(path, buf, sizeof(buf)) <= 0)
			return false;
		p = strrchr(buf, ')');
		if (p && p[1] == ' ' && p[2] == 'Z')
			return true;
		nanosleep(&nap, NULL);
	}
	return false;
}

static inline void *xcomp_orphan(void *arg)
{
	struct xcomp *x = arg;
	bool ok;

	ok = xcomp_same(x, "leader that has ended", true, xcomp_leader_gone());
	ok &= xcomp_check_masks(x) == KSFT_PASS;
	ok &= xcomp_request(x, true) && xcomp_request(x, false);
	fflush(stdout);
	_exit(xcomp_verdict(ok));
}

static inline int xcomp_leave_orphan(struct xcomp *x)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, xcomp_orphan, x);
	if (errno)
		return xcomp_error(x, "pthread_create");
	pthread_exit(NULL);
}

/* Verify that a process whose leader has ended can still ask and be told. */
static inline int xcomp_check_exited_leader(struct xcomp *x)
{
	return xcomp_verdict(xcomp_rule(x, xcomp_sub(x, xcomp_leave_orphan),
		"permissions do not need the leader alive"));
}

/*
 * What a child finds, in memory that its parent reads. A child on its parent's
 * memory must not print.
 */
struct xcomp_found {
	bool asks;
	int error[2];
	uint64_t host[2], guest[2];
};

static inline int xcomp_look(void *arg)
{
	struct xcomp_found *f = arg;

	xf_get_mask(ARCH_GET_XCOMP_PERM, &f->host[0]);
	xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &f->guest[0]);
	if (f->asks) {
		f->error[0] = xf_request(ARCH_REQ_XCOMP_PERM, XF_XTILE_DATA);
		f->error[1] = xf_request(ARCH_REQ_XCOMP_GUEST_PERM,
					 XF_XTILE_DATA);
	}
	xf_get_mask(ARCH_GET_XCOMP_PERM, &f->host[1]);
	xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &f->guest[1]);
	return 0;
}

/* Let a child made by clone() with @flags look, and possibly ask. */
static inline bool xcomp_clone(struct xcomp *x, int flags, bool asks,
			       struct xcomp_found *f)
{
	char *stack = malloc(XCOMP_CHILD_STACK);
	int status;
	pid_t pid;

	if (!stack)
		ksft_exit_fail_perror("cannot allocate a stack");
	memset(f, 0, sizeof(*f));
	f->asks = asks;
	pid = clone(xcomp_look, stack + XCOMP_CHILD_STACK, flags | SIGCHLD, f);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
		xcomp_error(x, "clone");
		return false;
	}
	free(stack);
	return true;
}

/*
 * Verify that the child has its parent's permissions, each of them, and that
 * what the child asks for does not become the parent's.
 */
static inline bool xcomp_inherits(struct xcomp *x, int flags)
{
	struct xcomp_found *f;
	bool ok, asks;
	int step, wanted = x->have_amx ? 0 : EOPNOTSUPP;

	f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	ok = xcomp_check_masks(x) == KSFT_PASS;

	/* First the child asks, then the parent for the guest, then for itself. */
	for (step = 0; step < 3; step++) {
		if (step)
			ok &= xcomp_request(x, step == 1);
		asks = step == 0;
		if (!xcomp_clone(x, flags, asks, f))
			return false;
		ok &= xcomp_same(x, "host permission that the child starts with",
				 xf_permitted(x->host_granted), f->host[0]);
		ok &= xcomp_same(x, "guest permission that the child starts with",
				 xf_permitted(x->guest_granted), f->guest[0]);
		if (asks) {
			ok &= xcomp_same_errno(x, "host request of the child",
					       wanted, f->error[0]);
			ok &= xcomp_same_errno(x, "guest request of the child",
					       wanted, f->error[1]);
			ok &= xcomp_same(x, "host permission of the child",
					 xf_permitted(x->have_amx), f->host[1]);
			ok &= xcomp_same(x, "guest permission of the child",
					 xf_permitted(x->have_amx),
					 f->guest[1]);
		}
		ok &= xcomp_check_masks(x) == KSFT_PASS;
	}
	return xcomp_rule(x, ok, "a child gets a copy of both permissions, and only a copy");
}

static inline int xcomp_check_fork(struct xcomp *x)
{
	return xcomp_verdict(xcomp_inherits(x, 0));
}

static inline int xcomp_check_vfork(struct xcomp *x)
{
	return xcomp_verdict(xcomp_inherits(x, CLONE_VFORK | CLONE_VM));
}

static inline int xcomp_check_clone_vm(struct xcomp *x)
{
	return xcomp_verdict(xcomp_inherits(x, CLONE_VM | CLONE_FILES |
					    CLONE_FS));
}

static inline void *xcomp_inherits_from_thread(void *arg)
{
	struct xcomp_asker *a = arg;

	a->ok = xcomp_inherits(a->x, 0);
	return NULL;
}

/* Verify that a child of a thread gets what the process has. */
static inline int xcomp_check_fork_by_thread(struct xcomp *x)
{
	struct xcomp_asker a = { .x = x };

	return xcomp_verdict(xcomp_thread(x, xcomp_inherits_from_thread, &a) &&
			     a.ok);
}

/* What runs after execve(), see main() */
static const struct xcomp_check xcomp_exec_check = {
	"request", xcomp_check_request,
};

/* Ask for both permissions. The name is that of a combination from here on. */
static inline bool xcomp_before_exec(struct xcomp *x)
{
	bool ok = xcomp_request(x, false) && xcomp_request(x, true);

	snprintf(x->name, sizeof(x->name), "exec");
	return ok;
}

static inline int xcomp_exec_by_leader(struct xcomp *x,
				       const struct xcomp_check *check, int fd)
{
	if (!xcomp_before_exec(x))
		return KSFT_FAIL;
	return xcomp_exec(x, check, fd);
}

struct xcomp_exec_arg {
	struct xcomp *x;
	const struct xcomp_check *check;
	int fd;
};

static inline void *xcomp_exec_thread(void *arg)
{
	struct xcomp_exec_arg *a = arg;

	xcomp_exec(a->x, a->check, a->fd);
	return NULL;
}

static inline int xcomp_exec_by_thread(struct xcomp *x,
				       const struct xcomp_check *check, int fd)
{
	struct xcomp_exec_arg arg = { x, check, fd };

	if (xcomp_before_exec(x))
		xcomp_thread(x, xcomp_exec_thread, &arg);
	return KSFT_FAIL;
}

static inline int xcomp_spawn(struct xcomp *x, const struct xcomp_check *check,
			      int fd)
{
	char fds[32], name[] = "exec", after[] = XCOMP_AFTER_EXEC, run[40];
	char *args[6] = { program_invocation_name, after, name, run, fds };
	int status;
	pid_t pid;

	if (!xcomp_before_exec(x))
		return KSFT_FAIL;
	snprintf(run, sizeof(run), "%s", check->name);
	snprintf(fds, sizeof(fds), "%d %d", dup(STDOUT_FILENO), fd);
	fflush(stdout);
	errno = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, args, environ);
	if (errno)
		return xcomp_error(x, "posix_spawn");
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return xcomp_error(x, "waitpid");
	snprintf(x->name, sizeof(x->name), "posix_spawn");
	return xcomp_verdict(!WEXITSTATUS(status) &
			     (xcomp_check_masks(x) == KSFT_PASS));
}

static inline int xcomp_exec_forgets(struct xcomp *x,
				     int (*fn)(struct xcomp *x,
					       const struct xcomp_check *check,
					       int fd))
{
	return xcomp_verdict(xcomp_rule(x,
		xcomp_fork(x, &xcomp_exec_check, fn) == KSFT_PASS,
		"execve() takes both permissions away, and they can be had anew"));
}

static inline int xcomp_check_exec(struct xcomp *x)
{
	return xcomp_exec_forgets(x, xcomp_exec_by_leader);
}

static inline int xcomp_check_exec_by_thread(struct xcomp *x)
{
	return xcomp_exec_forgets(x, xcomp_exec_by_thread);
}

static inline int xcomp_check_posix_spawn(struct xcomp *x)
{
	return xcomp_exec_forgets(x, xcomp_spawn);
}

#endif /* SELFTESTS_X86_XCOMP_PERM_TASKS_H */
