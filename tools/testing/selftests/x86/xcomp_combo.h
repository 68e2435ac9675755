/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Run a check in a process with a given combination of AMX permissions and
 * guest CPUID.
 *
 * A permission cannot be given back, and the first vCPU freezes the guest
 * permission, so that every check needs a process of its own, and its parent
 * must never have asked for a permission or made a vCPU.
 */
#ifndef SELFTESTS_X86_XCOMP_COMBO_H
#define SELFTESTS_X86_XCOMP_COMBO_H

#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "xcomp_kvm.h"
#include "xfeature_trace.h"

/* The first argument of a program that xcomp_exec() has started anew */
#define XCOMP_AFTER_EXEC	"--after-exec"

#define XCOMP_TIMEOUT_MS	20000

enum xcomp_perm {
	XCOMP_NONE,		/* nothing was asked for */
	XCOMP_HOST,		/* ARCH_REQ_XCOMP_PERM */
	XCOMP_GUEST,		/* ARCH_REQ_XCOMP_GUEST_PERM */
	XCOMP_BOTH,		/* both of them */
	XCOMP_LATE,		/* guest, asked for after the first vCPU */
	XCOMP_INHERITED,	/* guest, granted before fork() */
	XCOMP_EXEC,		/* both, granted and then lost by execve() */
};

#define XCOMP_NAME_SIZE		40

/* What a check gets to see */
struct xcomp {
	char name[XCOMP_NAME_SIZE];	/* the combination, e.g. guest_amx_cet */
	enum xcomp_perm perm;
	bool amx;		/* guest CPUID is to have AMX ... */
	bool shstk;		/* ... shadow stacks ... */
	bool ibt;		/* ... and indirect branch tracking */

	bool have_amx;		/* the kernel lets user space use AMX */
	bool guest_granted;	/* what must have come of the requests */
	bool host_granted;

	int kvm, vm, vcpu;	/* -1 where not open */
	struct kvm_cpuid2 *cpuid;	/* what the vCPU was given */
	bool amx_on;		/* what the guest got of what it was to have */
	bool shstk_on;
	bool ibt_on;
	const char *reason;	/* why a check was skipped or known to fail */
	char text[128];
};

/* Return KSFT_PASS, KSFT_FAIL, or KSFT_SKIP or KSFT_XFAIL with a reason. */
struct xcomp_check {
	const char *name;
	int (*run)(struct xcomp *x);
};

/* CPUID as KVM offers it to a process without permission; NULL without KVM */
static struct kvm_cpuid2 *xcomp_unpermitted;
static const char *xcomp_no_kvm;

/* Why no rule on AMX guests holds for this KVM; xcomp_init() finds out */
static const char *xcomp_half_kvm;

static inline int xcomp_skip(struct xcomp *x, const char *reason)
{
	x->reason = reason;
	return KSFT_SKIP;
}

static inline int xcomp_verdict(bool ok)
{
	return ok ? KSFT_PASS : KSFT_FAIL;
}

/* Report a call that had to work. */
static inline int xcomp_error(const struct xcomp *x, const char *what)
{
	ksft_print_msg("%s: %s failed: %s\n", x->name, what, strerror(errno));
	return KSFT_FAIL;
}

static inline bool xcomp_same(const struct xcomp *x, const char *what,
			      uint64_t wanted, uint64_t got)
{
	if (wanted == got)
		return true;

	ksft_print_msg("%s: %s: wanted %#llx got %#llx\n", x->name, what,
		       (unsigned long long)wanted, (unsigned long long)got);
	return false;
}

static inline bool xcomp_same_errno(const struct xcomp *x, const char *what,
				    int wanted, int got)
{
	if (wanted == got)
		return true;

	ksft_print_msg("%s: %s: wanted %s got %s\n", x->name, what,
		       wanted ? strerror(wanted) : "success",
		       got ? strerror(got) : "success");
	return false;
}

/* Open /dev/kvm. Once open it stays so until the process ends. */
static inline bool xcomp_open_kvm(struct xcomp *x)
{
	if (x->kvm < 0)
		x->kvm = xkvm_open();
	if (x->kvm < 0)
		x->reason = xkvm_absent();
	return x->kvm >= 0;
}

/* Make a VM and, if @vcpu is set, its first vCPU. */
static inline bool xcomp_make_vm(struct xcomp *x, bool vcpu)
{
	if (x->vm < 0)
		x->vm = ioctl(x->kvm, KVM_CREATE_VM, 0);
	if (x->vm < 0) {
		xcomp_error(x, "KVM_CREATE_VM");
		return false;
	}
	if (vcpu && x->vcpu < 0)
		x->vcpu = ioctl(x->vm, KVM_CREATE_VCPU, 0);
	if (vcpu && x->vcpu < 0) {
		xcomp_error(x, "KVM_CREATE_VCPU");
		return false;
	}
	return true;
}

/* What a request for XTILE_DATA must answer in this combination */
static inline int xcomp_wanted_errno(const struct xcomp *x, bool guest)
{
	int wanted = EOPNOTSUPP;

	if (x->have_amx)
		wanted = guest && x->perm == XCOMP_LATE ? EBUSY : 0;
	return wanted;
}

static inline bool xcomp_ask(const struct xcomp *x, bool guest)
{
	if (guest)
		return xcomp_same_errno(x, "ARCH_REQ_XCOMP_GUEST_PERM",
			xcomp_wanted_errno(x, true),
			xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XF_XTILE_DATA));
	return xcomp_same_errno(x, "ARCH_REQ_XCOMP_PERM",
			xcomp_wanted_errno(x, false),
			xf_request(ARCH_REQ_XCOMP_PERM, XF_XTILE_DATA));
}

/*
 * Read a combination from its name: permission, then guest AMX, then guest
 * CET. A short name means no AMX, and all of CET.
 */
static inline bool xcomp_parse(struct xcomp *x, const char *name)
{
	static const char * const perms[] = {
		[XCOMP_NONE] = "none",	[XCOMP_HOST] = "host",
		[XCOMP_GUEST] = "guest", [XCOMP_BOTH] = "both",
		[XCOMP_LATE] = "late",	[XCOMP_INHERITED] = "inherited",
		[XCOMP_EXEC] = "exec",
	};
	char perm[12] = "", amx[8] = "noamx", cet[8] = "cet";
	unsigned int i;

	memset(x, 0, sizeof(*x));
	x->kvm = -1;
	x->vm = -1;
	x->vcpu = -1;
	snprintf(x->name, sizeof(x->name), "%s", name);
	if (sscanf(name, "%11[a-z]_%7[a-z]_%7[a-z]", perm, amx, cet) < 1)
		return false;
	x->amx = !strcmp(amx, "amx");
	x->shstk = !strcmp(cet, "shstk") || !strcmp(cet, "cet");
	x->ibt = !strcmp(cet, "ibt") || !strcmp(cet, "cet");
	x->have_amx = xf_xcr0() & XF_BIT(XF_XTILE_DATA);

	for (i = 0; i < ARRAY_SIZE(perms); i++) {
		if (strcmp(perm, perms[i]))
			continue;
		x->perm = i;
		x->host_granted = x->have_amx &&
				  (i == XCOMP_HOST || i == XCOMP_BOTH);
		x->guest_granted = x->have_amx &&
				   (i == XCOMP_GUEST || i == XCOMP_BOTH ||
				    i == XCOMP_INHERITED);
		return true;
	}
	return false;
}

/* Run the check, and fail it if the kernel warned meanwhile. */
static inline int xcomp_body(struct xcomp *x, const struct xcomp_check *check,
			     int fd)
{
	uint64_t before = xf_taint() & XF_TAINT_WARN;
	int result = check->run(x);

	(void)fd;
	if (!before && xf_taint() & XF_TAINT_WARN) {
		ksft_print_msg("%s: the kernel warned, see its log\n", x->name);
		return KSFT_FAIL;
	}
	return result;
}

/* Replace this process by the same program, which then runs the check. */
static inline int xcomp_exec(struct xcomp *x, const struct xcomp_check *check,
			     int fd)
{
	int null = open("/dev/null", O_WRONLY), out = dup(STDOUT_FILENO);
	char fds[32];

	/* What a library prints when the program starts is no test output. */
	fflush(stdout);
	dup2(null, STDOUT_FILENO);
	snprintf(fds, sizeof(fds), "%d %d", out, fd);
	setenv("XCOMP_TRACE_DIR", xf_trace_dir, 1);
	setenv("XCOMP_TRACE_REASON", xf_trace_reason, 1);
	execl("/proc/self/exe", program_invocation_name, XCOMP_AFTER_EXEC,
	      x->name, check->name, fds, NULL);
	dup2(out, STDOUT_FILENO);
	return xcomp_error(x, "execve");
}

/* Tell the waiting parent why; return what to exit with. */
static inline int xcomp_pass_on(const struct xcomp *x, int result, int fd)
{
	fflush(stdout);
	if (x->reason && write(fd, x->reason, strlen(x->reason)) < 0)
		return KSFT_FAIL;
	return result;
}

/* Wait for a child until it ends, and take its result and its reason. */
static inline int xcomp_wait(struct xcomp *x, pid_t child, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t len = 0;
	int status;

	if (poll(&p, 1, XCOMP_TIMEOUT_MS) == 1) {
		len = read(fd, x->text, sizeof(x->text) - 1);
	} else {
		ksft_print_msg("%s: no result in time\n", x->name);
		kill(child, SIGKILL);
	}
	if (waitpid(child, &status, 0) != child)
		return xcomp_error(x, "waitpid");
	if (!WIFEXITED(status)) {
		ksft_print_msg("%s: ended by signal %d\n", x->name,
			       WTERMSIG(status));
		return KSFT_FAIL;
	}
	if (len > 0)
		x->reason = x->text;
	return WEXITSTATUS(status);
}

/* Call @fn in a child, and take the result and the reason that it gives. */
static inline int xcomp_fork(struct xcomp *x, const struct xcomp_check *check,
			     int (*fn)(struct xcomp *x,
				       const struct xcomp_check *check, int fd))
{
	int fd[2], result;
	pid_t child;

	if (pipe(fd))
		return xcomp_error(x, "pipe");
	fflush(stdout);
	child = fork();
	if (child < 0)
		return xcomp_error(x, "fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fd[0]);
		_exit(xcomp_pass_on(x, fn(x, check, fd[1]), fd[1]));
	}
	close(fd[1]);
	result = xcomp_wait(x, child, fd[0]);
	close(fd[0]);
	return result;
}

/*
 * Whether the kernel predates guest permissions, which came along with
 * KVM_CAP_XSAVE2. One without the other is a failure to be seen.
 */
static inline bool xcomp_too_old(void)
{
	uint64_t mask;
	bool old;
	int kvm;

	if (xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &mask) != EINVAL)
		return false;
	kvm = xkvm_open();
	old = kvm < 0 || xkvm_cap(kvm, KVM_CAP_XSAVE2) <= 0;
	if (kvm >= 0)
		close(kvm);
	return old;
}

/*
 * Ask for the permissions of the combination, then run the check. The calling
 * process is spent after that: it holds the permissions.
 */
static inline int xcomp_grant(struct xcomp *x, const struct xcomp_check *check,
			      int fd)
{
	if (xcomp_too_old())
		return xcomp_skip(x, "no ARCH_GET_XCOMP_GUEST_PERM");

	switch (x->perm) {
	case XCOMP_NONE:
		break;
	case XCOMP_HOST:
		if (!xcomp_ask(x, false))
			return KSFT_FAIL;
		break;
	case XCOMP_LATE:
		if (!xcomp_open_kvm(x))
			return KSFT_SKIP;
		if (!xcomp_make_vm(x, true) || !xcomp_ask(x, true))
			return KSFT_FAIL;
		break;
	case XCOMP_GUEST:
		if (!xcomp_ask(x, true))
			return KSFT_FAIL;
		break;
	case XCOMP_INHERITED:
		if (!xcomp_ask(x, true))
			return KSFT_FAIL;
		return xcomp_fork(x, check, xcomp_body);
	case XCOMP_BOTH:
		if (!xcomp_ask(x, false) || !xcomp_ask(x, true))
			return KSFT_FAIL;
		break;
	case XCOMP_EXEC:
		if (!xcomp_ask(x, false) || !xcomp_ask(x, true))
			return KSFT_FAIL;
		return xcomp_fork(x, check, xcomp_exec);
	}
	return xcomp_body(x, check, fd);
}

/* Go on after xcomp_exec(): main() calls this when its arguments say so. */
static inline int xcomp_after_exec(int argc, char **argv,
				   const struct xcomp_check *const *checks)
{
	struct xcomp x;
	int out, fd;

	if (argc != 5 || !xcomp_parse(&x, argv[2]) ||
	    sscanf(argv[4], "%d %d", &out, &fd) != 2) {
		fprintf(stderr, "%s is not for use by hand\n", argv[1]);
		return KSFT_FAIL;
	}
	while (*checks && strcmp((*checks)->name, argv[3]))
		checks++;
	if (!*checks) {
		fprintf(stderr, "no check %s\n", argv[3]);
		return KSFT_FAIL;
	}

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(out, STDOUT_FILENO);
	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(xf_trace_dir, sizeof(xf_trace_dir), "%s",
		 getenv("XCOMP_TRACE_DIR") ?: "");
	xf_trace_reason = getenv("XCOMP_TRACE_REASON") ?: "no tracefs";

	return xcomp_pass_on(&x, xcomp_body(&x, *checks, fd), fd);
}

/* Learn, without any permission, what KVM offers. Never makes a vCPU. */
static inline void xcomp_init(void)
{
	int kvm = xkvm_open();
	uint64_t supp = 0;

	if (kvm < 0) {
		xcomp_no_kvm = xkvm_absent();
		return;
	}
	xcomp_unpermitted = xkvm_supported_cpuid(kvm);
	if (!xcomp_unpermitted)
		xcomp_no_kvm = "KVM_GET_SUPPORTED_CPUID does not work";
	/* With VMX or SVM, KVM has to know all of AMX that the host uses. */
	if (!xkvm_runs_guests() && !xkvm_guest_supp(kvm, &supp) &&
	    xf_xcr0() & ~supp & XF_XTILE) {
		xcomp_half_kvm = "KVM without VMX or SVM knows no AMX";
		xcomp_no_kvm = xcomp_half_kvm;
	}
	close(kvm);
}

#endif /* SELFTESTS_X86_XCOMP_COMBO_H */
