// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lock of AMX permissions: the first vCPU of a process freezes its guest
 * permission for good, and nothing else does.
 *
 * Where there is no AMX every request is refused, locked or not.  The tests run
 * all the same, for what must not change, but the lock cannot be told.
 */
#include <pthread.h>

#include "xstate.h"

/* A process that asks, in the test's own memory: a child has a copy */
struct asker {
	struct __test_metadata *metadata;
	struct kvm_vm *vm;
	bool host, guest;	/* what was granted */
	bool locked;
	bool guest_asked;
};

FIXTURE(xcomp_lock) {
	struct asker asker;
};

FIXTURE_SETUP(xcomp_lock)
{
	xstate_begin_unpermitted(_metadata, variant);
	self->asker.metadata = _metadata;
	self->asker.vm = vm_create_barebones();
}

FIXTURE_TEARDOWN(xcomp_lock)
{
	xstate_end(_metadata, self->asker.vm);
	if (!_metadata->exit_code && !xf_has_amx() && self->asker.guest_asked)
		SKIP(return, "no AMX on this machine");
}

/* The masks stay as they are. libkvm would map a vCPU, and so keep it from being closed. */
static int make_vcpu(struct __test_metadata *const _metadata, struct asker *a)
{
	int fd = __vm_ioctl(a->vm, KVM_CREATE_VCPU, NULL);

	EXPECT_ERRNO(0, fd < 0 ? errno : 0, "KVM_CREATE_VCPU");
	a->locked = true;
	xf_expect_permissions(_metadata, a->host, a->guest, "after a vCPU was made");
	return fd;
}

static void ask_host(struct __test_metadata *const _metadata, struct asker *a)
{
	xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	a->host = xf_has_amx();
	xf_expect_permissions(_metadata, a->host, a->guest, "after the host's request");
}

/* What was granted before the lock is granted again after it. */
static void ask_guest(struct __test_metadata *const _metadata, struct asker *a)
{
	a->guest_asked = true;
	if (a->locked && !a->guest) {
		xstate_request_locked(_metadata);
	} else {
		xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
		a->guest = xf_has_amx();
	}
	xf_expect_permissions(_metadata, a->host, a->guest, "after the guest's request");
}

/*
 * Verify that the masks are after a vCPU what they were before, and do not show
 * the kernel's flag for the lock.
 */
TEST_F(xcomp_lock, vcpu_masks)
{
	make_vcpu(_metadata, &self->asker);
	ask_host(_metadata, &self->asker);
}

/* Verify that the first vCPU makes guest requests fail, each, and not the host's. */
TEST_F(xcomp_lock, request)
{
	make_vcpu(_metadata, &self->asker);
	ask_guest(_metadata, &self->asker);
	ask_guest(_metadata, &self->asker);
	ask_host(_metadata, &self->asker);
	ask_guest(_metadata, &self->asker);
}

/* Verify that neither a VM without a vCPU locks, nor a vCPU that could not be made. */
TEST_F(xcomp_lock, not_by_failure)
{
	int fd = __vm_ioctl(self->asker.vm, KVM_CREATE_VCPU, (void *)0x7fffffffl);

	EXPECT_ERRNO(EINVAL, fd < 0 ? errno : 0, "KVM_CREATE_VCPU with an absurd id");
	ask_guest(_metadata, &self->asker);
}

/* Verify that the lock does not take back what was granted before. */
TEST_F(xcomp_lock, granted)
{
	ask_guest(_metadata, &self->asker);
	make_vcpu(_metadata, &self->asker);
	ask_guest(_metadata, &self->asker);
	ask_host(_metadata, &self->asker);
}

/* The first thread makes a vCPU, another one asks. */
static void *lock_or_ask(void *arg)
{
	struct asker *a = arg;

	if (a->locked)
		ask_guest(a->metadata, a);
	else
		make_vcpu(a->metadata, a);
	return NULL;
}

/* Verify that a thread's vCPU locks the permission of the whole process. */
TEST_F(xcomp_lock, by_thread)
{
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, lock_or_ask, &self->asker));
	xf_join_thread(_metadata, thread, "a thread with a vCPU");
	ask_guest(_metadata, &self->asker);
	ASSERT_EQ(0, pthread_create(&thread, NULL, lock_or_ask, &self->asker));
	xf_join_thread(_metadata, thread, "a thread that asks");
}

/* Verify that the lock stays when vCPU, VM and /dev/kvm are closed. */
TEST_F(xcomp_lock, survives_close)
{
	struct kvm_vm *vm = self->asker.vm;

	close(make_vcpu(_metadata, &self->asker));
	ask_guest(_metadata, &self->asker);
	self->asker.vm = NULL;
	close(vm->fd);
	ask_guest(_metadata, &self->asker);
	close(vm->kvm_fd);
	ask_guest(_metadata, &self->asker);
}

/* A child on its parent's memory must not print, nor return by a local variable. */
static int vfork_and_ask_guest(struct __test_metadata *const _metadata)
{
	static int error;
	pid_t pid = vfork();

	if (!pid) {
		WRITE_ONCE(error, xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILE_DATA));
		_exit(KSFT_PASS);
	}
	ASSERT_LT(0, pid);
	xf_join(_metadata, pid, "a child on this memory");
	return READ_ONCE(error);
}

/* Verify that a child of a locked process is locked, and its child as well. */
TEST_F(xcomp_lock, fork)
{
	pid_t child, grandchild;

	make_vcpu(_metadata, &self->asker);
	child = xf_fork(_metadata);
	if (!child) {
		ask_guest(_metadata, &self->asker);
		ask_host(_metadata, &self->asker);
		grandchild = xf_fork(_metadata);
		if (!grandchild) {
			ask_guest(_metadata, &self->asker);
			xf_exit();
		}
		xf_join(_metadata, grandchild, "a child's child");
		xf_exit();
	}
	xf_join(_metadata, child, "a child");
	ask_guest(_metadata, &self->asker);
	EXPECT_ERRNO(xf_has_amx() ? EBUSY : EOPNOTSUPP, vfork_and_ask_guest(_metadata),
		     "guest request of a child on this memory");
}

/* Verify that a child's vCPU does not lock its parent. */
TEST_F(xcomp_lock, not_by_child)
{
	pid_t pid = xf_fork(_metadata);

	if (!pid) {
		/* A VM takes ioctls of the process alone that has made it. */
		self->asker.vm = vm_create_barebones();
		make_vcpu(_metadata, &self->asker);
		ask_guest(_metadata, &self->asker);
		xf_exit();
	}
	xf_join(_metadata, pid, "a child");
	ask_guest(_metadata, &self->asker);
}

/* Verify that execve() unlocks. */
TEST_F(xcomp_lock, exec)
{
	if (!xstate_is_after_exec()) {
		make_vcpu(_metadata, &self->asker);
		ask_guest(_metadata, &self->asker);
		xstate_go_on_after_exec(_metadata);
	}
	xf_expect_permissions(_metadata, false, false, "after execve()");
	ask_guest(_metadata, &self->asker);
}

XSTATE_IOCTL_HARNESS_MAIN
