// SPDX-License-Identifier: GPL-2.0-only
/*
 * vCPUs with each combination of AMX permission, AMX and CET in guest CPUID.
 * What they must have is computed from CPUID leaf 0xD, the host's XCR0 and the
 * permission.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include "xstate.h"
#include "xregs.h"

#define RIP_RESET	0xfff0
#define IOAPIC_PINS	24

/* User components that every KVM offers if the host has switched them on */
#define KVM_XCR0	(XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM | XFEATURE_MASK_AVX512 |	\
			 XFEATURE_MASK_PKRU | XFEATURE_MASK_XTILE)

/* ---- the host ---- */

/* The CPUs that this process may use, of which there may be more than in a cpu_set_t */
static cpu_set_t *cpus;
static size_t cpus_size;

int host_nr_cpus(void)
{
	size_t size = sizeof(*cpus);

	while (!cpus) {
		cpus = calloc(1, size);
		cpus_size = size;
		if (!sched_getaffinity(0, size, cpus))
			break;
		TEST_ASSERT(errno == EINVAL && size < 1 << 20, "sched_getaffinity: %s",
			    strerror(errno));
		free(cpus);
		cpus = NULL;
		size *= 2;
	}
	return CPU_COUNT_S(cpus_size, cpus);
}

/* Put a thread on number @nr, modulo, of the CPUs that this process may use. */
void host_put_on_cpu(pid_t tid, int nr)
{
	int cpu = -1, left = nr % host_nr_cpus();
	cpu_set_t *one = calloc(1, cpus_size);

	while (left >= 0)
		left -= !!CPU_ISSET_S(++cpu, cpus_size, cpus);
	CPU_SET_S(cpu, cpus_size, one);
	TEST_ASSERT(!sched_setaffinity(tid, cpus_size, one), "sched_setaffinity to CPU %d: %s",
		    cpu, strerror(errno));
	free(one);
}

/* By an ioctl of its own: libkvm would keep what it reads before a request. */
static bool kvm_offers_xsave(int kvm)
{
	struct kvm_cpuid2 *cpuid = allocate_kvm_cpuid2(256);
	struct kvm_cpuid_entry2 *e;
	bool offered;

	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid))
		ksft_exit_fail_perror("KVM_GET_SUPPORTED_CPUID");
	e = cpuid_entry(cpuid, 1, 0);
	/* "noxsave" leaves leaf 0xD. */
	offered = e && e->ecx & BIT(X86_FEATURE_XSAVE.bit) && cpuid_entry(cpuid, 0xd, 0);
	free(cpuid);
	return offered;
}

/* The harness forks twice for each test; whoever kills it kills all of them. */
static void die_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void xstate_require(bool guest_code)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	u64 mask;

	pthread_atfork(NULL, NULL, die_with_parent);
	xf_print_machine();
	/* What -march of the KVM selftests asks for; any of it may be compiled in. */
	if (!__builtin_cpu_supports("popcnt") || !__builtin_cpu_supports("sse4.2"))
		ksft_exit_skip("compiled for x86-64-v2, which this CPU is not\n");
	if (kvm < 0 && (errno == EACCES || errno == EPERM))
		ksft_exit_skip("no permission to use /dev/kvm\n");
	if (kvm < 0)
		ksft_exit_skip("no /dev/kvm\n");
	/* Some guests end in emulation errors then, and a test cannot tell why. */
	if (!xf_cpuinfo_flag("vmx") && !xf_cpuinfo_flag("svm"))
		ksft_exit_skip("guests run without VMX or SVM\n");
	if (!kvm_offers_xsave(kvm)) {
		if (xf_xcr0())
			ksft_exit_fail_msg("KVM offers no XSAVE, which the host uses\n");
		ksft_exit_skip("KVM offers no XSAVE\n");
	}
	if (xf_standard_size(xf_xcr0()) >= XAREA_SIZE ||
	    xf_compacted_size(xf_xcr0() | XFEATURE_MASK_CET) >= XAREA_SIZE)
		ksft_exit_skip("this CPU has larger XSAVE areas than the tests\n");
	/* They came together.  One without the other is a failure to be seen. */
	if (xf_get_mask(ARCH_GET_XCOMP_GUEST_PERM, &mask) == EINVAL &&
	    ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2) <= 0)
		ksft_exit_skip("no ARCH_GET_XCOMP_GUEST_PERM\n");
	if (guest_code && ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY2) <= 0)
		ksft_exit_skip("libkvm needs KVM_SET_USER_MEMORY_REGION2\n");
	close(kvm);
}

/* ---- tests that go on in another process ---- */

#define AFTER_EXEC	"XSTATE_PERMISSIONS_LOST_BY_EXECVE"

/*
 * Have a child go on with the test, or the same program executed anew, which
 * begins it once more: then xstate_is_after_exec().  The calling process passes
 * the result on and ends.
 */
void xstate_go_on_in_child(struct __test_metadata *const _metadata)
{
	pid_t pid = xf_fork(_metadata);

	if (!pid)
		return;
	/* What the child has to say is in *_metadata, which all processes share. */
	xf_join(_metadata, pid, "the child that runs the test");
	xf_exit();
}

bool xstate_is_after_exec(void)
{
	return getenv(AFTER_EXEC);
}

/* Take over a line "ok 1 NAME # SKIP why", or "XFAIL", or "not ok 1 NAME". */
static bool take_result(struct __test_metadata *const _metadata, char *line)
{
	const char *skip = strstr(line, " # SKIP "), *xfail = strstr(line, " # XFAIL ");
	const char *reason = skip ? skip + 8 : xfail ? xfail + 9 : "";

	if (strncmp(line, "ok ", 3) && strncmp(line, "not ok ", 7))
		return false;
	if (line[0] == 'n')
		_metadata->exit_code = KSFT_FAIL;
	line[strcspn(line, "\n")] = '\0';
	if (_metadata->exit_code == KSFT_PASS && (skip || xfail))
		_metadata->exit_code = skip ? KSFT_SKIP : KSFT_XFAIL;
	snprintf(_metadata->results->reason, sizeof(_metadata->results->reason), "%s", reason);
	return true;
}

/*
 * execve() ends this program with all that it knows of the test.  The new one
 * runs the test of that name from the beginning, in a harness of its own, whose
 * output ends up in a pipe.  Its result becomes the one here, and what it says
 * in between: "# " and no more blanks, which is how the harness begins its own.
 */
void xstate_go_on_after_exec(struct __test_metadata *const _metadata)
{
	bool running = false, ended = false;
	char line[1024];
	int fd[2], status;
	pid_t pid;
	FILE *f;

	ASSERT_EQ(0, pipe2(fd, O_CLOEXEC));
	pid = xf_fork(_metadata);
	if (!pid) {
		dup2(fd[1], STDOUT_FILENO);
		setenv(AFTER_EXEC, "1", 1);
		execl("/proc/self/exe", program_invocation_name, "-r", th_row, NULL);
		_exit(KSFT_FAIL);
	}
	status = xf_wait(_metadata, pid, "the program after execve()");

	/* A process that hangs may still have the other end. */
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	close(fd[1]);
	f = fdopen(fd[0], "r");
	while (!ended && fgets(line, sizeof(line), f)) {
		running |= !strncmp(line, "#  RUN ", 7);
		if (running && line[0] == '#' && line[2] != ' ')
			fputs(line, stdout);
		ended = take_result(_metadata, line);
	}
	EXPECT_THAT(ended && WIFEXITED(status), "%s after execve(), wait status %#x",
		    ended ? "no clean end" : "no result", status);
	xf_exit();
}

/* ---- beginning and end of a test ---- */

/* Begin a test that asks for its permissions itself, or for none. */
void xstate_begin_unpermitted(struct __test_metadata *const _metadata, const void *variant)
{
	th_begin(variant);
	xf_note_warnings();
	/* Where init_pkru is 0, XSAVE would not find PKRU in use. */
	if (xf_xcr0() & XFEATURE_MASK_PKRU)
		xregs_wrpkru(0x55555554);
}

/* Ask for XTILE_DATA by @option of arch_prctl(2), and verify the answer. */
void xstate_request(struct __test_metadata *const _metadata, int option)
{
	EXPECT_ERRNO(xf_has_amx() ? 0 : EOPNOTSUPP, xf_request(option, XFEATURE_XTILE_DATA),
		     "%s", option == ARCH_REQ_XCOMP_PERM ? "ARCH_REQ_XCOMP_PERM" :
							   "ARCH_REQ_XCOMP_GUEST_PERM");
}

/* The same for the guest when there is a vCPU, which must be refused */
void xstate_request_locked(struct __test_metadata *const _metadata)
{
	EXPECT_ERRNO(xf_has_amx() ? EBUSY : EOPNOTSUPP,
		     xf_request(ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILE_DATA),
		     "ARCH_REQ_XCOMP_GUEST_PERM after the first vCPU");
}

bool xstate_host_granted(const struct xstate_combo *combo)
{
	return xf_has_amx() && (combo->perm == PERM_HOST || combo->perm == PERM_BOTH);
}

static bool asks_for_guest(const struct xstate_combo *combo)
{
	return combo->perm == PERM_GUEST || combo->perm == PERM_BOTH ||
	       combo->perm == PERM_INHERITED;
}

bool xstate_guest_granted(const struct xstate_combo *combo)
{
	return xf_has_amx() && asks_for_guest(combo);
}

/*
 * Begin a test: ask for the permissions of the combination, and come by them as
 * it says.  False if it cannot be done here; the test is a SKIP or a failure by
 * then.  Who is to ask late does so itself, by xstate_request_locked().
 */
bool xstate_begin(struct __test_metadata *const _metadata, const struct xstate_combo *combo)
{
	xstate_begin_unpermitted(_metadata, combo);
	if (combo->perm == PERM_EXEC && xstate_is_after_exec())
		return true;
	if (combo->perm == PERM_HOST || combo->perm == PERM_BOTH || combo->perm == PERM_EXEC)
		xstate_request(_metadata, ARCH_REQ_XCOMP_PERM);
	if (asks_for_guest(combo) || combo->perm == PERM_EXEC)
		xstate_request(_metadata, ARCH_REQ_XCOMP_GUEST_PERM);
	if (_metadata->exit_code)
		return false;
	if (combo->perm == PERM_INHERITED)
		xstate_go_on_in_child(_metadata);
	if (combo->perm == PERM_EXEC)
		xstate_go_on_after_exec(_metadata);
	if (combo->amx && !xf_has_amx() && asks_for_guest(combo))
		SKIP(return false, "no AMX on this machine");
	return true;
}

/* End a test: free @vm, unless it is NULL, and fail if the kernel has warned. */
void xstate_end(struct __test_metadata *const _metadata, struct kvm_vm *vm)
{
	if (vm)
		kvm_vm_free(vm);
	th_no_case();
	xf_expect_no_warning(_metadata);
}

/* SKIP if the combination has CET that KVM does not offer, or IBT of that. */
bool xstate_need_cet(struct __test_metadata *const _metadata, const struct xstate_combo *combo)
{
	if (combo->cet & SHSTK && !kvm_cpu_has(X86_FEATURE_SHSTK))
		SKIP(return false, "KVM offers no guest CET");
	if (combo->cet & IBT && !kvm_cpu_has(X86_FEATURE_IBT))
		SKIP(return false, "KVM offers no guest IBT");
	return true;
}

/* SKIP if kvm.ignore_msrs hides what KVM refuses. */
bool xstate_need_refusals(struct __test_metadata *const _metadata)
{
	if (!kvm_refuses_msrs())
		SKIP(return false, "ignore_msrs hides what is refused");
	return true;
}

/* SKIP if libkvm cannot run guest code on this kernel, see XSTATE_IOCTL_HARNESS_MAIN. */
bool xstate_need_guests(struct __test_metadata *const _metadata)
{
	if (kvm_check_cap(KVM_CAP_USER_MEMORY2) <= 0)
		SKIP(return false, "libkvm needs KVM_SET_USER_MEMORY_REGION2");
	return true;
}

/* ---- what KVM offers, and what a vCPU has ---- */

/* One MSR in the form that ioctls take */
union one_msr {
	struct kvm_msrs header;
	u8 bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

/* Where the parameter cannot be read, ask for an MSR that no CPU has. */
bool kvm_refuses_msrs(void)
{
	union one_msr msr = { .header.nmsrs = 1 };
	char param = xf_param("kvm", "ignore_msrs");
	int kvm, done;

	if (param)
		return param == 'N';
	msr.header.entries[0].index = 0xffffffff;
	kvm = open_kvm_dev_path_or_exit();
	done = ioctl(kvm, KVM_GET_MSRS, &msr);
	close(kvm);
	return done != 1;
}

/* KVM_X86_XCOMP_GUEST_SUPP; 0 or an errno */
int kvm_xcomp_guest_supp(u64 *mask)
{
	struct kvm_device_attr attr = {
		.attr = KVM_X86_XCOMP_GUEST_SUPP,
		.addr = (unsigned long)mask,
	};
	int kvm = open_kvm_dev_path_or_exit();
	int error = ioctl(kvm, KVM_GET_DEVICE_ATTR, &attr) ? errno : 0;

	close(kvm);
	return error;
}

/* User components that KVM must know if the host has switched them on */
u64 kvm_known_xcr0(void)
{
	u64 supp = 0;

	/* MPX needs support in VMX besides, and APX in KVM: ask that about them. */
	if (kvm_xcomp_guest_supp(&supp))
		supp = 0;
	return xf_xcr0() & (KVM_XCR0 | (supp & (XFEATURE_MASK_MPX | XFEATURE_MASK_APX)));
}

/* IA32_XSS bits that KVM must offer: those of CET, or none */
u64 kvm_offered_xss(void)
{
	if (kvm_cpu_has(X86_FEATURE_SHSTK) || kvm_cpu_has(X86_FEATURE_IBT))
		return XFEATURE_MASK_CET;
	return 0;
}

/*
 * Where the lower half of what is canonical ends.  In MSRs, linear addresses have all that
 * the CPU has, whatever CR4.LA57 says.
 */
u64 address_end(void)
{
	return xf_cpuid(7, 0).ecx & BIT(16) ? BIT_ULL(56) : BIT_ULL(47);
}

bool vcpu_has_amx(struct kvm_vcpu *vcpu)
{
	return vcpu_cpuid_has(vcpu, X86_FEATURE_XTILEDATA);
}

bool vcpu_has_shstk(struct kvm_vcpu *vcpu)
{
	return kvm_cpu_has(X86_FEATURE_SHSTK) && vcpu_cpuid_has(vcpu, X86_FEATURE_SHSTK);
}

bool vcpu_has_ibt(struct kvm_vcpu *vcpu)
{
	return kvm_cpu_has(X86_FEATURE_IBT) && vcpu_cpuid_has(vcpu, X86_FEATURE_IBT);
}

/* Whether guest CPUID has @msr, one of cet_msrs[] */
bool vcpu_has_cet_msr(struct kvm_vcpu *vcpu, u32 msr)
{
	if (msr == MSR_IA32_U_CET || msr == MSR_IA32_S_CET)
		return vcpu_has_shstk(vcpu) || vcpu_has_ibt(vcpu);
	return vcpu_has_shstk(vcpu);
}

u64 vcpu_xcr0_mask(struct kvm_vcpu *vcpu)
{
	return kvm_known_xcr0() & ~(vcpu_has_amx(vcpu) ? 0 : XFEATURE_MASK_XTILE);
}

u64 vcpu_xss_mask(struct kvm_vcpu *vcpu)
{
	if (vcpu_cpuid_has(vcpu, X86_FEATURE_SHSTK) || vcpu_cpuid_has(vcpu, X86_FEATURE_IBT))
		return kvm_offered_xss();
	return 0;
}

/* The architecture allows @xcr0, given that the CPU has all of it. */
bool xcr0_is_legal(u64 xcr0)
{
	u64 avx512 = xcr0 & XFEATURE_MASK_AVX512, mpx = xcr0 & XFEATURE_MASK_MPX;
	u64 xtile = xcr0 & XFEATURE_MASK_XTILE;

	if (!(xcr0 & XFEATURE_MASK_FP))
		return false;
	if (xcr0 & XFEATURE_MASK_YMM && !(xcr0 & XFEATURE_MASK_SSE))
		return false;
	if (avx512 && (avx512 != XFEATURE_MASK_AVX512 || !(xcr0 & XFEATURE_MASK_YMM)))
		return false;
	return (!mpx || mpx == XFEATURE_MASK_MPX) && (!xtile || xtile == XFEATURE_MASK_XTILE);
}

/* Bytes that KVM_GET_XSAVE2 and KVM_SET_XSAVE must move */
u32 vcpu_xsave_size(struct kvm_vcpu *vcpu)
{
	u32 size = xf_standard_size(vcpu_xcr0_mask(vcpu));

	if (!vcpu_has_amx(vcpu) || size < sizeof(struct kvm_xsave))
		return sizeof(struct kvm_xsave);
	return size;
}

/* ---- CPUID ---- */

struct kvm_cpuid_entry2 *cpuid_entry(struct kvm_cpuid2 *cpuid, u32 function, u32 index)
{
	unsigned int i;

	for (i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
			return &cpuid->entries[i];
	return NULL;
}

struct xf_regs cpuid_regs(const struct kvm_cpuid2 *cpuid, u32 function, u32 index)
{
	struct kvm_cpuid_entry2 *e = cpuid_entry((struct kvm_cpuid2 *)cpuid, function, index);

	return e ? (struct xf_regs) { e->eax, e->ebx, e->ecx, e->edx } : (struct xf_regs) { };
}

void cpuid_drop(struct kvm_cpuid2 *cpuid, u32 function, u32 index)
{
	struct kvm_cpuid_entry2 *e = cpuid_entry(cpuid, function, index);

	if (!e)
		return;
	cpuid->nent--;
	memmove(e, e + 1, (char *)(cpuid->entries + cpuid->nent) - (char *)e);
}

static void set_bits(u32 *reg, u32 bits, bool set)
{
	*reg = set ? *reg | bits : *reg & ~bits;
}

static void shape_features(struct kvm_cpuid_entry2 *e, bool amx, u8 cet)
{
	set_bits(&e->ecx, BIT(X86_FEATURE_SHSTK.bit), cet & SHSTK);
	set_bits(&e->edx, BIT(X86_FEATURE_IBT.bit), cet & IBT);
	if (!amx)
		e->edx &= ~CPUID_7_EDX_AMX;
}

struct kvm_cpuid2 *cpuid_copy(const struct kvm_cpuid2 *from)
{
	struct kvm_cpuid2 *c = allocate_kvm_cpuid2(from->nent);

	memcpy(c, from, sizeof(*c) + from->nent * sizeof(c->entries[0]));
	return c;
}

/*
 * The CPUID of a combination, a copy of what KVM supports.  CET that KVM does
 * not offer is set all the same: it must have no effect.  Whether it has AMX
 * is up to @amx.
 */
struct kvm_cpuid2 *xstate_cpuid_with(const struct xstate_combo *combo, bool amx)
{
	struct kvm_cpuid2 *c = cpuid_copy(kvm_get_supported_cpuid());
	struct kvm_cpuid_entry2 *e;

	e = cpuid_entry(c, 7, 0);
	if (e)
		shape_features(e, amx, combo->cet);
	e = cpuid_entry(c, 0xd, 0);
	if (e)
		set_bits(&e->eax, XFEATURE_MASK_XTILE, amx);
	e = cpuid_entry(c, 0xd, 1);
	if (e)
		set_bits(&e->ecx, XFEATURE_MASK_CET, combo->cet);
	/* By FRED there is an IA32_PL0_SSP without shadow stacks. */
	e = cpuid_entry(c, 7, 1);
	if (e)
		e->eax &= ~BIT(X86_FEATURE_FRED.bit);
	if (!amx) {
		cpuid_drop(c, 0xd, XFEATURE_XTILE_CFG);
		cpuid_drop(c, 0xd, XFEATURE_XTILE_DATA);
	}
	if (!combo->cet) {
		cpuid_drop(c, 0xd, XFEATURE_CET_USER);
		cpuid_drop(c, 0xd, XFEATURE_CET_KERNEL);
	}
	return c;
}

/* The same, with AMX left out where the permission for it is missing */
struct kvm_cpuid2 *xstate_cpuid(const struct xstate_combo *combo)
{
	return xstate_cpuid_with(combo, combo->amx && xstate_guest_granted(combo));
}

/* Old kernels do not say how many entries there are. */
struct kvm_cpuid2 *vcpu_current_cpuid(struct kvm_vcpu *vcpu)
{
	struct kvm_cpuid2 *cpuid = allocate_kvm_cpuid2(vcpu->cpuid->nent);

	vcpu_ioctl(vcpu, KVM_GET_CPUID2, cpuid);
	return cpuid;
}

void expect_leaf(struct __test_metadata *const _metadata, u32 function, u32 index,
		 struct xf_regs wanted, struct xf_regs got)
{
	EXPECT_SAME(wanted.eax, got.eax, "CPUID.(%#x,%u).EAX", function, index);
	EXPECT_SAME(wanted.ebx, got.ebx, "CPUID.(%#x,%u).EBX", function, index);
	EXPECT_SAME(wanted.ecx, got.ecx, "CPUID.(%#x,%u).ECX", function, index);
	EXPECT_SAME(wanted.edx, got.edx, "CPUID.(%#x,%u).EDX", function, index);
}

void expect_same_cpuid(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		       const struct kvm_cpuid2 *wanted, const char *when)
{
	struct kvm_cpuid2 *got = vcpu_current_cpuid(vcpu);
	const u8 *a = (u8 *)wanted->entries, *b = (u8 *)got->entries;
	const struct kvm_cpuid_entry2 *e;
	size_t n;

	if (!EXPECT_SAME(wanted->nent, got->nent, "CPUID entries of the vCPU %s", when))
		return;
	n = xarea_differ(a, b, wanted->nent * sizeof(*e));
	e = &wanted->entries[n / sizeof(*e)];
	if (e < &wanted->entries[wanted->nent])
		EXPECT_SAME(a[n], b[n], "byte %zu of CPUID.(%#x,%u) of the vCPU %s",
			    n % sizeof(*e), e->function, e->index, when);
	free(got);
}

/* ---- vCPUs ---- */

/* KVM_SET_CPUID2 with @cpuid, which is freed */
static struct kvm_vcpu *add_vcpu(struct kvm_vm *vm, u32 id, struct kvm_cpuid2 *cpuid)
{
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm, id);

	vcpu_init_cpuid(vcpu, cpuid);
	free(cpuid);
	return vcpu;
}

struct kvm_vcpu *xstate_add_vcpu(struct kvm_vm *vm, u32 id, const struct xstate_combo *combo)
{
	return add_vcpu(vm, id, xstate_cpuid(combo));
}

/* A VM for ioctls alone with a vCPU of the combination, which has no memory */
struct kvm_vcpu *xstate_new_vcpu(struct kvm_vm **vm, const struct xstate_combo *combo)
{
	*vm = vm_create_barebones();
	return xstate_add_vcpu(*vm, 0, combo);
}

/*
 * A VM with one vCPU of the combination that runs @code, with XSAVE on and all
 * its components in XCR0.  libkvm gives a vCPU the CPUID that KVM supports, so
 * that the VM is made twice, the second time with the CPUID of the combination
 * as the first that its vCPU sees.
 */
struct kvm_vcpu *xstate_new_guest(struct kvm_vm **vm, const struct xstate_combo *combo,
				  void *code)
{
	return xstate_new_guest_with(vm, xstate_cpuid(combo), code);
}

/* XSAVE on, and all components in XCR0 */
static void enable_xsave(struct kvm_vcpu *vcpu, struct kvm_sregs *sregs)
{
	sregs->cr4 |= X86_CR4_OSXSAVE;
	vcpu_sregs_set(vcpu, sregs);
	TEST_ASSERT(vcpu_takes_xcr0(vcpu, vcpu_xcr0_mask(vcpu)), "KVM_SET_XCRS: %#lx not taken",
		    (unsigned long)vcpu_xcr0_mask(vcpu));
}

/* xstate_new_guest() with another CPUID, which is freed */
struct kvm_vcpu *xstate_new_guest_with(struct kvm_vm **vm, struct kvm_cpuid2 *cpuid, void *code)
{
	struct kvm_mp_state mp_state;
	struct kvm_sregs sregs;
	struct kvm_vcpu *vcpu;
	struct kvm_regs regs;

	*vm = vm_create_with_one_vcpu(&vcpu, code);
	vcpu_sregs_get(vcpu, &sregs);
	vcpu_regs_get(vcpu, &regs);
	vcpu_mp_state_get(vcpu, &mp_state);

	kvm_vm_release(*vm);
	kvm_vm_restart(*vm);
	vcpu = add_vcpu(*vm, 0, cpuid);
	enable_xsave(vcpu, &sregs);
	vcpu_regs_set(vcpu, &regs);
	vcpu_mp_state_set(vcpu, &mp_state);
	return vcpu;
}

/* One more vCPU of such a VM */
struct kvm_vcpu *xstate_add_guest(struct kvm_vm *vm, u32 id, const struct xstate_combo *combo,
				  void *code)
{
	struct kvm_cpuid2 *cpuid = xstate_cpuid(combo);
	struct kvm_vcpu *vcpu = vm_vcpu_add(vm, id, code);
	struct kvm_sregs sregs;

	vcpu_init_cpuid(vcpu, cpuid);
	free(cpuid);
	vcpu_sregs_get(vcpu, &sregs);
	enable_xsave(vcpu, &sregs);
	return vcpu;
}

/* The same VM made anew, as on the other side of a migration, CPUID included */
struct kvm_vcpu *xstate_recreate(struct kvm_vcpu *vcpu)
{
	struct kvm_cpuid2 *cpuid = cpuid_copy(vcpu->cpuid);
	struct kvm_vm *vm = vcpu->vm;

	kvm_vm_release(vm);
	kvm_vm_restart(vm);
	return add_vcpu(vm, 0, cpuid);
}

/* Seconds of CPU time that a guest may take to its next exit, of which it needs next to none */
#define RUN_TIMEOUT	10

static void run_ended(int sig __maybe_unused)
{
	xf_end_row("KVM_RUN does not come back, the guest is in a loop");
}

/*
 * KVM_RUN up to the next exit, or the test ends: what a guest does that gets one fault
 * for ever, no limit of a program explains.  By a signal and timers that no test uses.
 */
void vcpu_run_bounded(struct kvm_vcpu *vcpu)
{
	const struct sigaction action = { .sa_handler = run_ended };
	const struct itimerspec end = { .it_value.tv_sec = RUN_TIMEOUT };
	struct sigevent event = {
		.sigev_notify = SIGEV_SIGNAL,
		.sigev_signo = SIGVTALRM,
	};
	timer_t timer = NULL;

	TEST_ASSERT(!sigaction(SIGVTALRM, &action, NULL) &&
		    !timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) &&
		    !timer_settime(timer, 0, &end, NULL), "a timer: %s", strerror(errno));
	vcpu_run(vcpu);
	timer_delete(timer);
}

/* Run the guest up to its next GUEST_SYNC() or GUEST_DONE(). */
void xstate_run(struct kvm_vcpu *vcpu, u64 ucall)
{
	struct ucall uc;
	u64 cmd;

	vcpu_run_bounded(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	cmd = get_ucall(vcpu, &uc);
	if (cmd != ucall)
		TH_ROW_LOG("the guest of vCPU %u has failed", vcpu->id);
	if (cmd == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(cmd, ucall);
}

/*
 * Run a vCPU that has no memory: its first instruction ends KVM_RUN.  False if it
 * did not run.  Some MMUs have no room for a root until told.
 */
bool xstate_run_without_memory(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	vm_ioctl(vcpu->vm, KVM_SET_NR_MMU_PAGES, (void *)64ul);
	return EXPECT_ERRNO(0, __vcpu_run(vcpu) ? errno : 0, "KVM_RUN without memory") &&
	       EXPECT_SAME(KVM_EXIT_INTERNAL_ERROR, vcpu->run->exit_reason,
			   "exit reason of KVM_RUN without memory");
}

/* KVM_RUN that returns right before it would enter the guest */
void xstate_run_immediate_exit(struct kvm_vcpu *vcpu)
{
	int r;

	vcpu->run->immediate_exit = 1;
	r = __vcpu_run(vcpu);
	vcpu->run->immediate_exit = 0;
	TEST_ASSERT(r == -1 && errno == EINTR, "KVM_RUN with immediate_exit: %d, %s", r,
		    strerror(errno));
}

/*
 * INIT takes an APIC in KVM, for vCPUs to come: a split one, as KVM may be built
 * without an I/O APIC.
 */
void xstate_create_apic(struct kvm_vm *vm)
{
	vm_enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, IOAPIC_PINS);
}

/*
 * The vCPU finds the INIT when it is next asked for its mp_state, or runs; its RIP
 * tells that it has.
 */
void xstate_send_init(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events;
	struct kvm_regs regs;

	vcpu_regs_get(vcpu, &regs);
	regs.rip = 0;
	vcpu_regs_set(vcpu, &regs);

	vcpu_events_get(vcpu, &events);
	events.flags = KVM_VCPUEVENT_VALID_SMM;
	events.smi.latched_init = 1;
	vcpu_events_set(vcpu, &events);
}

void expect_init_taken(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu)
{
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;

	/* This is when KVM looks for a latched INIT. */
	vcpu_mp_state_get(vcpu, &mp_state);
	vcpu_regs_get(vcpu, &regs);
	EXPECT_SAME(RIP_RESET, regs.rip, "RIP after INIT");
}

bool vcpu_takes_xcr0(struct kvm_vcpu *vcpu, u64 value)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = value };

	return !__vcpu_ioctl(vcpu, KVM_SET_XCRS, &xcrs);
}

u64 vcpu_xcr0(struct kvm_vcpu *vcpu)
{
	struct kvm_xcrs xcrs = { };

	vcpu_xcrs_get(vcpu, &xcrs);
	return xcrs.xcrs[0].value;
}

bool vcpu_takes_msr(struct kvm_vcpu *vcpu, u32 msr, u64 value)
{
	return _vcpu_set_msr(vcpu, msr, value) == 1;
}

bool vcpu_reads_msr(struct kvm_vcpu *vcpu, u32 msr, u64 *value)
{
	union one_msr buf = { .header.nmsrs = 1 };
	bool done;

	buf.header.entries[0].index = msr;
	/* What is not read must not look like a 0 that is. */
	buf.header.entries[0].data = ~0ull;
	done = ioctl(vcpu->fd, KVM_GET_MSRS, &buf) == 1;
	*value = buf.header.entries[0].data;
	return done;
}

/* 0 or the errno of KVM_GET_ONE_REG or KVM_SET_ONE_REG of the guest's SSP */
int vcpu_one_reg_ssp(struct kvm_vcpu *vcpu, unsigned long cmd, u64 *ssp)
{
	struct kvm_one_reg reg = {
		.id = KVM_X86_REG_KVM(KVM_REG_GUEST_SSP),
		.addr = (unsigned long)ssp,
	};

	return ioctl(vcpu->fd, cmd, &reg) ? errno : 0;
}

/* ---- names ---- */

const char *msr_name(u32 msr)
{
	static char number[16];

	switch (msr) {
	case MSR_IA32_U_CET:		return "IA32_U_CET (CET_USER)";
	case MSR_IA32_S_CET:		return "IA32_S_CET (in no component)";
	case MSR_IA32_PL0_SSP:		return "IA32_PL0_SSP (CET_KERNEL)";
	case MSR_IA32_PL1_SSP:		return "IA32_PL1_SSP (CET_KERNEL)";
	case MSR_IA32_PL2_SSP:		return "IA32_PL2_SSP (CET_KERNEL)";
	case MSR_IA32_PL3_SSP:		return "IA32_PL3_SSP (CET_USER)";
	case MSR_IA32_INT_SSP_TAB:	return "IA32_INT_SSP_TAB (in no component)";
	case MSR_IA32_XSS:		return "IA32_XSS (in no component)";
	case MSR_IA32_XFD:		return "IA32_XFD";
	case MSR_IA32_XFD_ERR:		return "IA32_XFD_ERR";
	case MSR_IA32_PASID:		return "IA32_PASID (PASID)";
	}
	snprintf(number, sizeof(number), "MSR %#x", msr);
	return number;
}

const char *vector_name(u8 vector)
{
	static char number[16];

	switch (vector) {
	case 0:			return "no exception";
	case UD_VECTOR:		return "#UD";
	case NM_VECTOR:		return "#NM";
	case SS_VECTOR:		return "#SS";
	case GP_VECTOR:		return "#GP";
	case PF_VECTOR:		return "#PF";
	case CP_VECTOR:		return "#CP";
	}
	snprintf(number, sizeof(number), "vector %u", vector);
	return number;
}
