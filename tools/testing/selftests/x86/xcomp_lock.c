// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lock: the first vCPU of a process freezes its guest permission for good,
 * and nothing else does.
 *
 * Where there is no AMX every request is refused, locked or not. The checks
 * run all the same, for what must not change, but the lock cannot be told.
 */
#define _GNU_SOURCE

#include "xcomp_host.h"

#define XCOMP_CHILD_STACK	(64 * 1024)
#define XCOMP_RACES	16

struct xcomp_asker {
	struct xcomp *x;
	bool guest;
	bool ok;
};

static void *xcomp_asker(void *arg)
{
	struct xcomp_asker *a = arg;

	a->ok = xcomp_request(a->x, a->guest);
	return NULL;
}

static bool xcomp_ask_in_thread(struct xcomp *x, bool guest)
{
	struct xcomp_asker a = { .x = x, .guest = guest };

	return xcomp_thread(x, xcomp_asker, &a) && a.ok;
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

static int xcomp_look(void *arg)
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
static bool xcomp_clone(struct xcomp *x, int flags, bool asks,
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

/* What runs after execve(), see main() */
static const struct xcomp_check xcomp_exec_check = {
	"request", xcomp_check_request,
};

/* From now on the guest permission stays what it is. */
static void xcomp_locked(struct xcomp *x)
{
	if (!x->guest_granted)
		x->perm = XCOMP_LATE;
}

static int xcomp_lock_verdict(struct xcomp *x, bool ok, const char *rule)
{
	if (xcomp_rule(x, ok, rule) && !x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	return xcomp_verdict(ok);
}

/*
 * Verify that the masks are after a vCPU what they were before, host and
 * guest, granted or not, and do not show the kernel's flag for the lock.
 */
static int xcomp_check_vcpu_masks(struct xcomp *x)
{
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_make_vm(x, true))
		return KSFT_FAIL;
	xcomp_locked(x);
	ok = xcomp_check_masks(x) == KSFT_PASS;
	ok &= xcomp_request(x, false);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a vCPU changes no mask and no host permission"));
}

/* Verify that the first vCPU makes guest requests fail, each of them. */
static int xcomp_check_lock(struct xcomp *x)
{
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_make_vm(x, true))
		return KSFT_FAIL;
	xcomp_locked(x);
	ok = xcomp_request(x, true) && xcomp_request(x, true);
	ok &= xcomp_request(x, false) && xcomp_request(x, true);
	return xcomp_lock_verdict(x, ok,
		"the first vCPU locks the guest permission, not the host's");
}

/* Verify that a VM without vCPU locks nothing. */
static int xcomp_check_lock_not_by_vm(struct xcomp *x)
{
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_make_vm(x, false))
		return KSFT_FAIL;
	ok = xcomp_request(x, true);
	return xcomp_lock_verdict(x, ok, "KVM_CREATE_VM locks nothing");
}

/* Verify that a vCPU that could not be made locks nothing. */
static int xcomp_check_lock_not_by_failure(struct xcomp *x)
{
	int error;
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_make_vm(x, false))
		return KSFT_FAIL;
	error = ioctl(x->vm, KVM_CREATE_VCPU, 0x7fffffff) < 0 ? errno : 0;
	ok = xcomp_same_errno(x, "KVM_CREATE_VCPU with an absurd id", EINVAL,
			      error);
	ok &= xcomp_request(x, true);
	return xcomp_lock_verdict(x, ok, "a KVM_CREATE_VCPU that fails locks nothing");
}

/* Verify that the lock does not take back what was granted before. */
static int xcomp_check_lock_granted(struct xcomp *x)
{
	bool ok = xcomp_request(x, true);

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_make_vm(x, true))
		return KSFT_FAIL;
	xcomp_locked(x);
	ok &= xcomp_check_masks(x) == KSFT_PASS;
	if (x->have_amx)
		ok &= xcomp_request(x, true);
	ok &= xcomp_request(x, false);
	return xcomp_lock_verdict(x, ok,
		"what is permitted is granted once more, locked or not");
}

static void *xcomp_make_vcpu(void *arg)
{
	struct xcomp *x = arg;

	xcomp_make_vm(x, true);
	return NULL;
}

/* Verify that a thread's vCPU locks the permission of the whole process. */
static int xcomp_check_lock_by_thread(struct xcomp *x)
{
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_make_vm(x, false) ||
	    !xcomp_thread(x, xcomp_make_vcpu, x) || x->vcpu < 0)
		return KSFT_FAIL;
	xcomp_locked(x);
	ok = xcomp_request(x, true);
	ok &= xcomp_ask_in_thread(x, true);
	return xcomp_lock_verdict(x, ok, "a vCPU of any thread locks the whole process");
}

/* Verify that the lock stays when vCPU, VM and /dev/kvm are closed. */
static int xcomp_check_lock_survives_close(struct xcomp *x)
{
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_make_vm(x, true))
		return KSFT_FAIL;
	xcomp_locked(x);
	close(x->vcpu);
	ok = xcomp_request(x, true);
	close(x->vm);
	ok &= xcomp_request(x, true);
	close(x->kvm);
	ok &= xcomp_request(x, true);
	return xcomp_lock_verdict(x, ok, "closing the vCPU does not unlock");
}

static int xcomp_ask_both(struct xcomp *x)
{
	return xcomp_verdict(xcomp_request(x, true) && xcomp_request(x, false));
}

/* Verify that a child of a locked process is locked, and its child as well. */
static int xcomp_check_lock_fork(struct xcomp *x)
{
	struct xcomp_found f;
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_make_vm(x, true))
		return KSFT_FAIL;
	xcomp_locked(x);
	ok = xcomp_sub(x, xcomp_ask_both);
	ok &= xcomp_clone(x, CLONE_VM, true, &f);
	ok &= xcomp_same_errno(x, "guest request of a child on this memory",
			       x->have_amx ? EBUSY : EOPNOTSUPP, f.error[1]);
	return xcomp_lock_verdict(x, ok, "fork() copies the lock");
}

static int xcomp_lock_child(struct xcomp *x)
{
	if (!xcomp_make_vm(x, true))
		return KSFT_FAIL;
	xcomp_locked(x);
	return xcomp_verdict(xcomp_request(x, true));
}

/* Verify that a child's vCPU does not lock its parent. */
static int xcomp_check_lock_not_by_child(struct xcomp *x)
{
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	ok = xcomp_sub(x, xcomp_lock_child);
	ok &= xcomp_request(x, true);
	return xcomp_lock_verdict(x, ok, "a child's vCPU does not lock its parent");
}

static int xcomp_exec_locked(struct xcomp *x,
			     const struct xcomp_check *check, int fd)
{
	if (!xcomp_make_vm(x, true))
		return KSFT_FAIL;
	xcomp_locked(x);
	if (!xcomp_request(x, true))
		return KSFT_FAIL;
	snprintf(x->name, sizeof(x->name), "exec");
	return xcomp_exec(x, check, fd);
}

/* Verify that execve() unlocks. */
static int xcomp_check_lock_exec(struct xcomp *x)
{
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	ok = xcomp_fork(x, &xcomp_exec_check, xcomp_exec_locked) == KSFT_PASS;
	return xcomp_lock_verdict(x, ok, "execve() takes the lock away");
}

struct xcomp_racer {
	struct xcomp *x;
	pthread_barrier_t start;
};

/* How often the one that asks lets the other thread go first */
static int xcomp_race_turns;

static void *xcomp_race_vcpu(void *arg)
{
	struct xcomp_racer *r = arg;

	pthread_barrier_wait(&r->start);
	xcomp_make_vm(r->x, true);
	return NULL;
}

/* A request while another thread makes the first vCPU, then AMX for it */
static int xcomp_race(struct xcomp *x)
{
	struct xcomp_racer r = { .x = x };
	pthread_t thread;
	int error, i;
	bool ok;

	if (!xcomp_make_vm(x, false))
		return KSFT_FAIL;
	pthread_barrier_init(&r.start, NULL, 2);
	errno = pthread_create(&thread, NULL, xcomp_race_vcpu, &r);
	if (errno)
		return xcomp_error(x, "pthread_create");
	pthread_barrier_wait(&r.start);
	for (i = 0; i < xcomp_race_turns; i++)
		sched_yield();
	error = xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XF_XTILE_DATA);
	pthread_join(thread, NULL);
	if (x->vcpu < 0)
		return KSFT_FAIL;

	x->guest_granted = !error;
	ok = xcomp_same_errno(x, "request during KVM_CREATE_VCPU",
			      error ? EBUSY : 0, error);
	ok &= xcomp_same_errno(x, "KVM_SET_CPUID2 with AMX",
			       error ? EPERM : 0,
			       xcomp_set_cpuid(x, x->vcpu, true));
	return xcomp_verdict(ok & (xcomp_check_masks(x) == KSFT_PASS));
}

/*
 * Verify that a request that races with the first vCPU is granted or refused,
 * and that KVM holds to that when AMX comes.
 */
static int xcomp_check_lock_race(struct xcomp *x)
{
	bool ok = true;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	for (xcomp_race_turns = 0; xcomp_race_turns < XCOMP_RACES && ok;
	     xcomp_race_turns++)
		ok = xcomp_sub(x, xcomp_race);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a request during KVM_CREATE_VCPU is granted or refused, not both"));
}

static const struct xcomp_check checks[] = {
	{ "vcpu_masks", xcomp_check_vcpu_masks },
	{ "lock", xcomp_check_lock },
	{ "lock_not_by_vm", xcomp_check_lock_not_by_vm },
	{ "lock_not_by_failure", xcomp_check_lock_not_by_failure },
	{ "lock_granted", xcomp_check_lock_granted },
	{ "lock_by_thread", xcomp_check_lock_by_thread },
	{ "lock_survives_close", xcomp_check_lock_survives_close },
	{ "lock_fork", xcomp_check_lock_fork },
	{ "lock_not_by_child", xcomp_check_lock_not_by_child },
	{ "lock_exec", xcomp_check_lock_exec },
	{ "lock_race", xcomp_check_lock_race },
};

static const struct xcomp_check *const after_exec[] = {
	&xcomp_exec_check, NULL,
};

int main(int argc, char **argv)
{
	return xcomp_host_main(argc, argv, checks, ARRAY_SIZE(checks),
			       after_exec, false);
}
