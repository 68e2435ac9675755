// SPDX-License-Identifier: GPL-2.0-only
/* The host's task that runs a vCPU, see host_task.h. */
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "host_task.h"

/* Seconds that a child or a thread may take before it counts as hung */
#define TIMEOUT		20

int host_pin(void)
{
	int cpu = sched_getcpu();
	cpu_set_t *set;
	bool pinned;
	size_t size;

	if (cpu < 0)
		return -1;
	/* There may be more CPUs than a cpu_set_t has room for. */
	size = CPU_ALLOC_SIZE(cpu + 1);
	set = CPU_ALLOC(cpu + 1);
	CPU_ZERO_S(size, set);
	CPU_SET_S(cpu, size, set);
	pinned = !sched_setaffinity(0, size, set);
	CPU_FREE(set);
	return pinned ? cpu : -1;
}

/*
 * The child returns 0 and dies with its parent. It asserts by EXPECT_*() alone and
 * ends by host_exit(), with 0. The parent waits for that, or for another exit
 * status, but not for ever.
 */
pid_t host_fork(struct __test_metadata *const _metadata)
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

void host_exit(void)
{
	fflush(stdout);
	_exit(KSFT_PASS);
}

int host_wait(struct __test_metadata *const _metadata, pid_t pid, const char *what)
{
	struct pollfd p = { .events = POLLIN };
	int status = 0, ready;

	p.fd = syscall(SYS_pidfd_open, pid, 0);
	ASSERT_LE(0, p.fd);
	do {
		ready = poll(&p, 1, TIMEOUT * 1000);
	} while (ready < 0 && errno == EINTR);
	if (!EXPECT_THAT(ready == 1, "%s: no end within %d s", what, TIMEOUT))
		kill(pid, SIGKILL);
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	close(p.fd);
	return status;
}

void host_join(struct __test_metadata *const _metadata, pid_t pid, int code, const char *what)
{
	int status = host_wait(_metadata, pid, what);

	EXPECT_THAT(WIFEXITED(status) && WEXITSTATUS(status) == code,
		    "%s: wanted exit status %d got wait status %#x", what, code, status);
}

void host_join_thread(struct __test_metadata *const _metadata, pthread_t thread, const char *what)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += TIMEOUT;
	ASSERT_EQ(0, pthread_timedjoin_np(thread, NULL, &end))
		TH_ROW_LOG("%s: no end within %d s", what, TIMEOUT);
}

pid_t host_hog(struct __test_metadata *const _metadata)
{
	const struct sched_param param = { 0 };
	pid_t pid = host_fork(_metadata);

	if (!pid) {
		/* In a class of real time it would leave nothing for anybody. */
		sched_setscheduler(0, SCHED_OTHER, &param);
		for (;;)
			asm volatile("pause");
	}
	return pid;
}

/* Where nobody else wants the CPU, the registers of who sleeps stay in it. */
void host_lose_cpu(struct __test_metadata *const _metadata)
{
	pid_t pid = host_hog(_metadata);
	int i;

	for (i = 0; i < 3; i++)
		usleep(20 * 1000);
	EXPECT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(pid, waitpid(pid, NULL, 0));
}
