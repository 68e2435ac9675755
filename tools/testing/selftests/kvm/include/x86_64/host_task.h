/* SPDX-License-Identifier: GPL-2.0-only */
/* The host's task that runs a vCPU, its children and threads, and the CPU they share. */
#ifndef SELFTEST_KVM_HOST_TASK_H
#define SELFTEST_KVM_HOST_TASK_H

#include <pthread.h>

#include "kselftest_harness_ext.h"

/* Stay on the CPU that this runs on, with all children to come; -1 if that fails. */
int host_pin(void);

/* Fork, end the child, and wait for it: for any end, or for exit status @code */
pid_t host_fork(struct __test_metadata *const _metadata);
void host_exit(void);
int host_wait(struct __test_metadata *const _metadata, pid_t pid, const char *what);
void host_join(struct __test_metadata *const _metadata, pid_t pid, int code, const char *what);

/* Wait for the end of @thread, but not for ever: a test that is stuck ends there. */
void host_join_thread(struct __test_metadata *const _metadata, pthread_t thread, const char *what);

/* Start a process that keeps this CPU busy until it is killed. */
pid_t host_hog(struct __test_metadata *const _metadata);
/* Sleep while another process has this CPU, and its state the registers. */
void host_lose_cpu(struct __test_metadata *const _metadata);

#endif /* SELFTEST_KVM_HOST_TASK_H */
