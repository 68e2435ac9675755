// SPDX-License-Identifier: GPL-2.0-only
/*
 * Run a program in surroundings that it was not written for, and look what it leaves:
 *
 *	hostile [WORD...] -- PROGRAM [ARGUMENT...]
 *
 *	nofile=N  as=MIB  memlock=KIB	RLIMIT_NOFILE, RLIMIT_AS, RLIMIT_MEMLOCK
 *	tmp=full  tmp=ro		/tmp is full, or read-only
 *	kvm=0600  kvm=gone  kvm=MS	/dev/kvm is root's, is not there, goes after MS milliseconds
 *	refuse=CALL:ERRNO		a seccomp filter refuses CALL, of those below, as by EPERM
 *	ns=pid  ns=user			a PID namespace with a /proc of its own, a user namespace
 *	pids=N  memory=MIB		pids.max and memory.max of a cgroup
 *	user=UID			another user
 *	kill=N  kill-any=N		run it N times more, and kill it, or any process of it, at
 *					a moment drawn at random; nothing is printed of these runs
 *	seed=N				what is drawn at random follows from that
 *	limit=S				seconds until it counts as hung (100)
 *
 * What the program prints goes through.  Lines "# hostile: WHAT" say what it was refused, and
 * what it has left of processes, files, mounts, tracing, CPUs offline, and values of sysctl
 * and of module parameters.  The exit status is that of the program; 125 if something was left
 * or it had no end, and 126 where the surroundings cannot be had.
 *
 * It changes the whole machine, so that it runs in those of the lab alone, or where HOSTILE=1
 * says that nobody misses this one.
 */
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define BAD		125
#define CANNOT		126
#define CGROUP		"/run/hostile"

/* Seconds that what a program has left may take to go */
#define PATIENCE	15

static struct {
	long nofile, as, memlock, user, pids, memory, kvm_after, limit;
	const char *tmp, *kvm, *ns;
	int kills;
	bool any;
} words = {
	.nofile = -1, .as = -1, .memlock = -1, .user = -1, .pids = -1, .memory = -1, .limit = 100,
};

static bool bad;

static void say(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* In one piece, for the program writes there too. */
	dprintf(STDOUT_FILENO, "# hostile: %s\n", text);
}

static void cannot(const char *what)
{
	say("no such surroundings: %s: %s", what, strerror(errno));
	exit(CANNOT);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void nap(double seconds)
{
	const struct timespec t = { seconds, (seconds - (time_t)seconds) * 1e9 };

	nanosleep(&t, NULL);
}

static unsigned long long drawn = 1;

/* A number in [0, 1) */
static double draw(void)
{
	drawn ^= drawn << 13;
	drawn ^= drawn >> 7;
	drawn ^= drawn << 17;
	return (drawn >> 11) / (double)(1ull << 53);
}

static void write_file(const char *path, const char *fmt, ...)
{
	char text[64];
	va_list ap;
	int fd, n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, n) != n)
		cannot(path);
	close(fd);
}

/* ---- the state of the machine, as lines of "WHAT VALUE" ---- */

struct state {
	char **lines;
	size_t nr;
};

/* They change by themselves, or when they are read. */
static const char * const restless[] = {
	"/proc/sys/kernel/random/", "/proc/sys/fs/file-nr", "/proc/sys/fs/inode-",
	"/proc/sys/fs/aio-nr", "/proc/sys/fs/dentry-state", "/proc/sys/kernel/ns_last_pid",
	"/proc/sys/kernel/pty/nr", "/proc/sys/kernel/perf_event_max_sample_rate",
	"/proc/sys/vm/stat_refresh", "/proc/sys/net/netfilter/nf_conntrack_count",
	"/proc/sys/fs/binfmt_misc", "/proc/sys/fs/quota", "/proc/sys/kernel/tainted",
};

static bool is_restless(const char *path)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(restless); i++)
		if (!strncmp(path, restless[i], strlen(restless[i])))
			return true;
	return false;
}

static void add(struct state *s, const char *what, const char *value)
{
	char *line;

	if (asprintf(&line, "%s %s", what, value) < 0)
		abort();
	if (!(s->nr % 256)) {
		s->lines = realloc(s->lines, (s->nr + 256) * sizeof(*s->lines));
		if (!s->lines)
			abort();
	}
	s->lines[s->nr++] = line;
}

static void add_file(struct state *s, const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char text[4096], *end;
	ssize_t n;

	if (fd < 0)
		return;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n < 0)
		return;
	text[n] = '\0';
	for (end = text; *end; end++)
		if (*end == '\n')
			*end = ';';
	add(s, path, text);
}

/* What is in a folder: its files by what they say, if @values, or by mode and device */
static void add_folder(struct state *s, const char *folder, bool values)
{
	char path[PATH_MAX], value[64];
	DIR *dir = opendir(folder);
	struct dirent *e;
	struct stat st;

	while (dir && (e = readdir(dir))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (is_restless(path) || lstat(path, &st))
			continue;
		/* Whose end is not the program's doing */
		if (words.kvm_after && !strcmp(path, "/dev/kvm"))
			continue;
		if (values && S_ISDIR(st.st_mode)) {
			add_folder(s, path, true);
		} else if (values) {
			add_file(s, path);
		} else {
			snprintf(value, sizeof(value), "%o %u:%u", st.st_mode, major(st.st_rdev),
				 minor(st.st_rdev));
			add(s, path, value);
		}
	}
	if (dir)
		closedir(dir);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char **)a, *(char **)b);
}

static void take(struct state *s)
{
	static const char * const files[] = {
		"/proc/mounts", "/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg",
		"/sys/devices/system/cpu/online", "/sys/kernel/tracing/set_event",
		"/sys/kernel/tracing/current_tracer", "/sys/kernel/tracing/tracing_on",
		"/sys/kernel/tracing/kprobe_events", "/sys/kernel/tracing/uprobe_events",
	};
	static const char * const values[] = {
		"/proc/sys", "/sys/module/kvm/parameters", "/sys/module/kvm_intel/parameters",
		"/sys/module/kvm_amd/parameters",
	};
	static const char * const folders[] = {
		"/tmp", "/dev", "/dev/shm", "/run", ".", "/sys/kernel/tracing/instances",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(files); i++)
		add_file(s, files[i]);
	for (i = 0; i < ARRAY_SIZE(values); i++)
		add_folder(s, values[i], true);
	for (i = 0; i < ARRAY_SIZE(folders); i++)
		add_folder(s, folders[i], false);
	qsort(s->lines, s->nr, sizeof(*s->lines), by_text);
}

static void compare(const struct state *before, const struct state *after)
{
	size_t i = 0, j = 0;
	int order;

	while (i < before->nr || j < after->nr) {
		order = i == before->nr ? 1 : j == after->nr ? -1 :
			strcmp(before->lines[i], after->lines[j]);
		if (order) {
			say("left: %s %s", order < 0 ? "was" : "is",
			    order < 0 ? before->lines[i] : after->lines[j]);
			bad = true;
		}
		i += order <= 0;
		j += order >= 0;
	}
}

/* ---- processes: all that the program starts are or become this one's children ---- */

/* Name and state of a process, "" if there is none; its parent */
static pid_t look_at(pid_t pid, char *text, size_t size)
{
	char path[64], line[256], state = 0, name[64] = "";
	pid_t parent = 0;
	FILE *f;

	text[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fgets(line, sizeof(line), f) &&
	    sscanf(line, "%*d (%63[^)]) %c %d", name, &state, &parent) == 3)
		snprintf(text, size, "%s, %c", name, state);
	fclose(f);
	return parent;
}

static bool descends(pid_t pid, pid_t from)
{
	char text[80];
	int i;

	for (i = 0; pid > 1 && i < 100; i++) {
		if (pid == from)
			return true;
		pid = look_at(pid, text, sizeof(text));
	}
	return false;
}

/* All processes below this one, at most @max of them */
static int descendants(pid_t *pids, int max)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	int nr = 0;
	pid_t pid;

	while (dir && nr < max && (e = readdir(dir))) {
		pid = atoi(e->d_name);
		if (pid > 0 && pid != getpid() && descends(pid, getpid()))
			pids[nr++] = pid;
	}
	if (dir)
		closedir(dir);
	return nr;
}

static void end_all(const char *why)
{
	char text[80];
	pid_t pids[64];
	int i, nr;

	nr = descendants(pids, ARRAY_SIZE(pids));
	for (i = 0; i < nr; i++) {
		look_at(pids[i], text, sizeof(text));
		if (!text[0] || strstr(text, ", Z"))
			continue;
		say("%s: process %d (%s)", why, pids[i], text);
		bad = true;
	}
	for (i = 0; i < nr; i++)
		kill(pids[i], SIGKILL);
	/* Who has ended leaves children to this one. */
	while (waitpid(-1, NULL, 0) > 0)
		;
}

/* ---- a filter that refuses a system call, and asks this process about it ---- */

static const struct call {
	const char *name;
	unsigned int nr, nr_32;
} calls[] = {
	{ "arch_prctl", 158, 384 },
	{ "ptrace", 101, 26 },
	{ "userfaultfd", 323, 374 },
	{ "perf_event_open", 298, 336 },
	{ "pidfd_open", 434, 434 },
	{ "clone3", 435, 435 },
	{ "sched_setaffinity", 203, 241 },
	{ "timer_create", 222, 259 },
};

static const struct call *refused;
static int refusal;

/*
 * Of arch_prctl() the options of XSTATE and of shadow stacks alone: a libc cannot begin
 * without those for FS.
 */
static int install_filter(void)
{
	const bool options = refused->nr == 158;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused->nr, 3, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused->nr_32, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, options ? 0x1021 : 0, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, options ? 0x3000 : ~0u, 2, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, options ? 0x5001 : ~0u, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { ARRAY_SIZE(code), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		cannot("PR_SET_NO_NEW_PRIVS");
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
		       &program);
}

static void refuse_one(int listener)
{
	struct seccomp_notif request = { };
	struct seccomp_notif_resp answer = { };

	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request))
		return;
	say("refused %s(%#llx)", refused->name, request.data.args[0]);
	answer.id = request.id;
	answer.error = -refusal;
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

/* ---- surroundings ---- */

static void limit(int what, long value, const char *name)
{
	const struct rlimit r = { value, value };

	if (value >= 0 && setrlimit(what, &r))
		cannot(name);
}

static void prepare_tmp(void)
{
	static const char zeros[4096];
	int fd;

	if (mount("hostile", "/tmp", "tmpfs", 0, "size=64k"))
		cannot("a file system on /tmp");
	if (!strcmp(words.tmp, "ro")) {
		if (mount(NULL, "/tmp", NULL, MS_REMOUNT | MS_RDONLY, NULL))
			cannot("a read-only file system on /tmp");
		return;
	}
	fd = open("/tmp/full", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, zeros, sizeof(zeros)) > 0)
		;
	close(fd);
}

static void prepare_cgroup(void)
{
	mkdir(CGROUP, 0755);
	if (mount("none", CGROUP, "cgroup2", 0, NULL))
		cannot("cgroup v2");
	write_file(CGROUP "/cgroup.subtree_control", "+pids +memory");
	if (mkdir(CGROUP "/all", 0755))
		cannot("a cgroup");
	if (words.pids >= 0)
		write_file(CGROUP "/all/pids.max", "%ld", words.pids);
	if (words.memory >= 0)
		write_file(CGROUP "/all/memory.max", "%ld", words.memory << 20);
}

/* What is the machine's, before its state is taken */
static void prepare(void)
{
	if (access("/lab/job", X_OK) && !getenv("HOSTILE")) {
		errno = EPERM;
		cannot("this is no machine of the lab");
	}
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
		cannot("PR_SET_CHILD_SUBREAPER");
	if (words.tmp)
		prepare_tmp();
	if (words.pids >= 0 || words.memory >= 0)
		prepare_cgroup();
	if (words.user >= 0 && !words.kvm)
		chmod("/dev/kvm", 0666);
	if (words.kvm && !strcmp(words.kvm, "0600"))
		chmod("/dev/kvm", 0600);
	if (words.kvm && !strcmp(words.kvm, "gone"))
		unlink("/dev/kvm");
}

/* In a namespace of users this one is root of nothing else. */
static void enter_user_namespace(void)
{
	uid_t uid = getuid();
	gid_t gid = getgid();

	if (unshare(CLONE_NEWUSER))
		cannot("a user namespace");
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", "0 %u 1", uid);
	write_file("/proc/self/gid_map", "0 %u 1", gid);
}

/* The first process of a PID namespace, which is not the program: it has to take orphans. */
static void enter_pid_namespace(void)
{
	int status;
	pid_t pid;

	if (unshare(CLONE_NEWPID | CLONE_NEWNS))
		cannot("a PID namespace");
	pid = fork();
	if (pid) {
		waitpid(pid, &status, 0);
		exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("proc", "/proc", "proc", 0, NULL))
		cannot("a /proc");
	pid = fork();
	if (!pid)
		return;
	while (wait(&status) != pid)
		;
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void become(char **argv, int ready, int go)
{
	int listener = -1;

	if (words.pids >= 0 || words.memory >= 0)
		write_file(CGROUP "/all/cgroup.procs", "0");
	if (words.ns && !strcmp(words.ns, "pid"))
		enter_pid_namespace();
	if (refused) {
		listener = install_filter();
		if (listener < 0)
			cannot("a filter of system calls");
	}
	if (write(ready, &listener, sizeof(listener)) != sizeof(listener) ||
	    read(go, &listener, 1) != 1)
		exit(CANNOT);
	if (refused)
		close(listener);
	if (words.user >= 0 &&
	    (setgroups(0, NULL) || setresgid(words.user, words.user, words.user) ||
	     setresuid(words.user, words.user, words.user)))
		cannot("another user");
	if (words.ns && !strcmp(words.ns, "user"))
		enter_user_namespace();
	limit(RLIMIT_MEMLOCK, words.memlock < 0 ? -1 : words.memlock << 10, "RLIMIT_MEMLOCK");
	limit(RLIMIT_AS, words.as < 0 ? -1 : words.as << 20, "RLIMIT_AS");
	limit(RLIMIT_NOFILE, words.nofile, "RLIMIT_NOFILE");
	execv(argv[0], argv);
	cannot(argv[0]);
}

/* ---- a run ---- */

struct run {
	pid_t pid;
	int pidfd, listener;
	double began;
	int status;
	bool ended;
};

static void start(struct run *r, char **argv, int out)
{
	int ready[2], go[2], fd;

	if (pipe2(ready, O_CLOEXEC) || pipe2(go, O_CLOEXEC))
		cannot("a pipe");
	r->began = now();
	r->ended = false;
	r->pid = fork();
	if (r->pid < 0)
		cannot("fork()");
	if (!r->pid) {
		if (out >= 0) {
			dup2(out, STDOUT_FILENO);
			dup2(out, STDERR_FILENO);
		}
		close(ready[0]);
		close(go[1]);
		become(argv, ready[1], go[0]);
	}
	close(ready[1]);
	close(go[0]);
	r->listener = -1;
	r->pidfd = syscall(SYS_pidfd_open, r->pid, 0);
	if (read(ready[0], &fd, sizeof(fd)) == sizeof(fd)) {
		if (refused) {
			r->listener = syscall(SYS_pidfd_getfd, r->pidfd, fd, 0);
			if (r->listener < 0)
				cannot("the listener of a filter");
		}
		if (write(go[1], "", 1) != 1)
			cannot("a pipe");
	}
	close(ready[0]);
	close(go[1]);
}

/* Serve it until it ends, or @end o'clock */
static void serve(struct run *r, double end)
{
	struct pollfd p[] = {
		{ .fd = r->pidfd, .events = POLLIN },
		{ .fd = r->listener, .events = POLLIN },
	};
	double left;

	while (!r->ended) {
		left = end - now();
		if (left <= 0)
			return;
		if (poll(p, 2, left < 1 ? left * 1000 + 1 : 1000) <= 0)
			continue;
		if (p[1].revents & POLLIN)
			refuse_one(r->listener);
		if (p[0].revents & POLLIN)
			r->ended = waitpid(r->pid, &r->status, 0) == r->pid;
	}
}

/* Until what it has started has ended as well */
static void serve_orphans(struct run *r)
{
	struct pollfd p = { .fd = r->listener, .events = POLLIN };
	double end = now() + PATIENCE;
	pid_t pid = 0;

	while (now() < end) {
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0)
			break;
		if (poll(&p, 1, 50) > 0 && p.revents & POLLIN)
			refuse_one(r->listener);
	}
	if (!pid)
		end_all("left");
	if (r->listener >= 0)
		close(r->listener);
	close(r->pidfd);
}

static int finish(struct run *r)
{
	serve(r, r->began + words.limit);
	if (!r->ended) {
		say("hang: no end within %ld s", words.limit);
		bad = true;
		end_all("hang");
		r->status = SIGKILL;
	}
	serve_orphans(r);
	return WIFEXITED(r->status) ? WEXITSTATUS(r->status) : 128 + WTERMSIG(r->status);
}

/* That the last line of @out is that of a program which went on to its end */
static bool has_end(int out)
{
	char text[512];
	off_t size = lseek(out, 0, SEEK_END), at = size < 500 ? 0 : size - 500;
	ssize_t n = pread(out, text, sizeof(text) - 1, at);

	text[n < 0 ? 0 : n] = '\0';
	return strstr(text, "\n# Totals: ") || strstr(text, "SKIP");
}

/* One run that is killed @at seconds after its begin; whether all is well */
static bool kill_one(char **argv, double at)
{
	int out = syscall(SYS_memfd_create, "hostile", 1 /* MFD_CLOEXEC */), nr, status;
	pid_t pids[64], victim;
	char name[80] = "";
	char buf[4096];
	struct run r;
	ssize_t n;
	bool good;

	start(&r, argv, out);
	serve(&r, r.began + at);
	victim = r.pid;
	if (words.any && !r.ended) {
		nr = descendants(pids, ARRAY_SIZE(pids));
		if (nr > 1)
			victim = pids[1 + (int)(draw() * (nr - 1))];
	}
	if (!r.ended) {
		look_at(victim, name, sizeof(name));
		kill(victim, SIGKILL);
	}
	status = finish(&r);
	good = !bad;
	/* Who loses a child fails, and goes on. */
	if (victim != r.pid && (status > 4 || !has_end(out))) {
		say("killed one of its processes, and it ended with status %d", status);
		good = false;
	}
	if (!good) {
		say("that was after SIGKILL to process %d (%s) of %d at %.3f s", victim, name,
		    r.pid, at);
		lseek(out, 0, SEEK_SET);
		while ((n = read(out, buf, sizeof(buf))) > 0)
			if (write(STDOUT_FILENO, buf, n) != n)
				break;
	}
	close(out);
	return good;
}

static void lose_kvm(void)
{
	if (fork())
		return;
	nap(words.kvm_after / 1e3);
	unlink("/dev/kvm");
	_exit(0);
}

static long number(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || end == text || n < 0) {
		errno = EINVAL;
		cannot(text);
	}
	return n;
}

static void read_refusal(const char *text)
{
	size_t len = strcspn(text, ":");
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(calls); i++)
		if (len == strlen(calls[i].name) && !strncmp(text, calls[i].name, len))
			refused = &calls[i];
	for (i = 1; i < 134 && !refusal; i++)
		if (text[len] && !strcmp(text + len + 1, strerrorname_np(i) ?: ""))
			refusal = i;
	errno = EINVAL;
	if (!refused || !refusal)
		cannot(text);
}

static void read_word(char *word)
{
	char *value = strchr(word, '=');

	errno = EINVAL;
	if (!value)
		cannot(word);
	*value++ = '\0';
	if (!strcmp(word, "nofile"))
		words.nofile = number(value);
	else if (!strcmp(word, "as"))
		words.as = number(value);
	else if (!strcmp(word, "memlock"))
		words.memlock = number(value);
	else if (!strcmp(word, "user"))
		words.user = number(value);
	else if (!strcmp(word, "pids"))
		words.pids = number(value);
	else if (!strcmp(word, "memory"))
		words.memory = number(value);
	else if (!strcmp(word, "limit"))
		words.limit = number(value);
	else if (!strcmp(word, "tmp"))
		words.tmp = value;
	else if (!strcmp(word, "kvm"))
		words.kvm = value;
	else if (!strcmp(word, "ns"))
		words.ns = value;
	else if (!strcmp(word, "refuse"))
		read_refusal(value);
	else if (!strcmp(word, "seed"))
		drawn = number(value) * 0x9e3779b97f4a7c15ull + 1;
	else if (!strcmp(word, "kill") || !strcmp(word, "kill-any"))
		words.kills = number(value);
	else
		cannot(word);
	words.any |= !strcmp(word, "kill-any");
	if (words.kvm && strcmp(words.kvm, "0600") && strcmp(words.kvm, "gone"))
		words.kvm_after = number(words.kvm);
}

int main(int argc, char **argv)
{
	struct state before = { }, after = { };
	int i, status, killed = 0;
	struct run r;
	double took;

	for (i = 1; i < argc && strcmp(argv[i], "--"); i++)
		read_word(argv[i]);
	if (i + 1 >= argc) {
		fprintf(stderr, "hostile: use: hostile [WORD...] -- PROGRAM [ARGUMENT...]\n");
		return CANNOT;
	}
	argv += i + 1;
	prepare();
	take(&before);
	if (words.kvm_after)
		lose_kvm();
	start(&r, argv, -1);
	status = finish(&r);
	took = now() - r.began;
	for (i = 0; i < words.kills && !bad; i++, killed++)
		if (!kill_one(argv, draw() * took))
			bad = true;
	if (words.kills)
		say("killed %d times within %.1f s", killed, took);
	take(&after);
	compare(&before, &after);
	say("the end, status %d", status);
	return bad ? BAD : status;
}
