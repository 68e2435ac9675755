// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMX permissions, guest CET and the XSAVE state that KVM keeps for a guest.
 *
 * A request for AMX must not cost a guest, or the host, any other state. Run
 * the same checks for every way to come by the permission, with AMX and CET
 * in guest CPUID or not. What a check wants is computed from the CPU's own
 * CPUID and from the permission, see the headers.
 */
#include "../../x86/xcomp_guest.h"
#include "../../x86/xcomp_vcpu_checks.h"
#include "xstate_page_guest.h"

/* A CET MSR as the guest finds it, writes it, and finds it after an exit */
struct guest_msr {
	u32 index;
	u64 written;
	u64 seen[2];
	u8 vectors[3];
};

static struct guest_msr guest_msrs[ARRAY_SIZE(xcomp_cet_msrs)];

static void guest_msr_code(void)
{
	struct guest_msr *m, *end = guest_msrs + ARRAY_SIZE(guest_msrs);

	for (m = guest_msrs; m < end; m++) {
		m->vectors[0] = rdmsr_safe(m->index, &m->seen[0]);
		m->vectors[1] = wrmsr_safe(m->index, m->written);
	}
	GUEST_SYNC(0);

	for (m = guest_msrs; m < end; m++)
		m->vectors[2] = rdmsr_safe(m->index, &m->seen[1]);
	GUEST_DONE();
}

/* A guest of libkvm with the CPUID of the combination from the beginning */
static struct kvm_vcpu *make_guest(struct xcomp *x)
{
	struct kvm_vcpu *vcpu;
	unsigned int i;

	xstate_libkvm_cpuid(x);
	vm_create_with_one_vcpu(&vcpu, guest_msr_code);
	x->vcpu = vcpu->fd;

	for (i = 0; i < ARRAY_SIZE(guest_msrs); i++) {
		guest_msrs[i].index = xcomp_cet_msrs[i];
		guest_msrs[i].written = xcomp_msr_value(x, xcomp_cet_msrs[i], 1);
	}
	sync_global_to_guest(vcpu->vm, guest_msrs);
	return vcpu;
}

/* Judge what the guest saw of one MSR, and what is left of what it wrote. */
static bool judge_guest_msr(struct xcomp *x, const struct guest_msr *m)
{
	bool present = xcomp_has_msr(x, m->index), ok = true;
	u64 value = 0;
	int i;

	for (i = 0; i < 3; i++)
		ok &= xcomp_same(x, xf_msr_name(m->index),
				 present ? 0 : GP_VECTOR, m->vectors[i]);
	if (!present || !ok)
		return ok;

	ok &= xf_msr_kept(x->name, m->index,
			  "KVM_SET_MSRS, as the guest reads it",
			  xcomp_msr_value(x, m->index, 0), m->seen[0]);
	ok &= xf_msr_kept(x->name, m->index, "an exit, as the guest reads it",
			  m->written, m->seen[1]);
	ok &= xkvm_get_msr(x->vcpu, m->index, &value);
	return ok & xf_msr_kept(x->name, m->index,
				"KVM_RUN of a guest that wrote it",
				m->written, value);
}

/*
 * Verify that a guest in long mode, whose own code uses the FPU, finds its CET
 * MSRs as the host wrote them, and the host finds them as the guest did. The
 * guest has AMX where the permission allows it.
 */
static int check_long_mode_guest(struct xcomp *x)
{
	struct kvm_vcpu *vcpu;
	bool ok = true;
	unsigned int i;
	int result;

	x->amx = x->have_amx;
	strcat(x->name, x->amx ? "_amx_cet" : "_noamx_cet");
	result = xcomp_vcpu(x);
	if (result)
		return result;
	if (xkvm_cap(x->kvm, KVM_CAP_USER_MEMORY2) <= 0)
		return xcomp_skip(x, "libkvm needs KVM_SET_USER_MEMORY_REGION2");
	if (xcomp_guest_missing())
		return xcomp_skip(x, xcomp_guest_missing());

	vcpu = make_guest(x);
	ok &= xcomp_write_msrs(x);
	xstate_run(vcpu, UCALL_SYNC);
	xstate_run(vcpu, UCALL_DONE);
	sync_global_from_guest(vcpu->vm, guest_msrs);

	for (i = 0; i < ARRAY_SIZE(guest_msrs); i++)
		ok &= judge_guest_msr(x, &guest_msrs[i]);
	return xcomp_verdict(ok);
}

/*
 * Restore what a vCPU has into another one, which has the same CPUID, and
 * leave that one as the vCPU of the combination.
 */
static bool move_state(struct xcomp *x, const struct xregs *r)
{
	u8 *image = xf_guarded(XAREA_SIZE, 0);
	bool ok;

	ok = !ioctl(x->vcpu, KVM_GET_XSAVE2, image);
	x->vcpu = ioctl(x->vm, KVM_CREATE_VCPU, 1);
	if (!ok || x->vcpu < 0)
		return !xcomp_error(x, "KVM_GET_XSAVE2 or KVM_CREATE_VCPU");
	ok = xcomp_same_errno(x, "KVM_SET_CPUID2 of another vCPU", 0,
			      ioctl(x->vcpu, KVM_SET_CPUID2, x->cpuid) ?
			      errno : 0);
	ok &= page_guest_load(x, r, image);
	return ok & page_guest_kept(x, r, "a restore into another vCPU");
}

/*
 * Verify what xcomp_check_guest_msrs() does; and that the guest has all state
 * that the host gave its vCPU, tiles and CET included: XSAVES writes each
 * component where CPUID says, and not one byte more. Then the host must find
 * all of it, and another vCPU must take it.
 */
static int check_guest(struct xcomp *x)
{
	int result = xcomp_check_guest_msrs(x);
	struct page_guest g;
	struct xregs regs;
	bool ok;

	if (result)
		return result;
	if (!(xkvm_cpuid(x->cpuid, 0xd, 1).eax & XCOMP_CPUID_D_1_EAX_XSAVES))
		return KSFT_PASS;
	if (!page_guest_start(x, &g))
		return xcomp_error(x, "setting up a guest");

	page_guest_values(x, &regs, 1);
	ok = page_guest_load(x, &regs, page_guest_image(x, &regs)) &&
	     page_guest_saves(x, &g, &regs) &&
	     page_guest_kept(x, &regs, "XSAVES in the guest") &&
	     move_state(x, &regs);
	return xcomp_verdict(ok);
}

/* Every check that a test below runs, for the process that execve() begins */
static const struct xcomp_check *all_checks[32];

static void run_check(struct __test_metadata *_metadata, const char *combo,
		      const struct xcomp_check *check)
{
	struct xcomp x;
	int result;

	ASSERT_TRUE(xcomp_parse(&x, combo));
	result = xcomp_grant(&x, check, -1);
	if (result == KSFT_SKIP)
		SKIP(return, "%s", x.reason);
	if (result == KSFT_XFAIL)
		xstate_xfail(_metadata, x.reason);
	else
		EXPECT_EQ(KSFT_PASS, result);
}

#define XSTATE_PERM_TEST(fixture, test, function)			\
static const struct xcomp_check test##_of_##fixture = {		\
	.name = #fixture "." #test,					\
	.run = function,						\
};									\
									\
static void __attribute__((constructor)) add_##test##_of_##fixture(void) \
{									\
	int i = 0;							\
									\
	while (all_checks[i])						\
		i++;							\
	all_checks[i] = &test##_of_##fixture;				\
}									\
									\
TEST_F(fixture, test)							\
{									\
	run_check(_metadata, variant->name, &test##_of_##fixture);	\
}

/* What depends on the permission alone */
FIXTURE(xstate_perm_proc) {
};

FIXTURE_VARIANT(xstate_perm_proc) {
	const char *name;
};

FIXTURE_SETUP(xstate_perm_proc)
{
}

FIXTURE_TEARDOWN(xstate_perm_proc)
{
}

#define PROC_VARIANT(perm)						\
static_assert(sizeof(#perm) <= XCOMP_NAME_SIZE, "name too long");	\
FIXTURE_VARIANT_ADD(xstate_perm_proc, perm) { .name = #perm }

PROC_VARIANT(none);
PROC_VARIANT(host);
PROC_VARIANT(guest);
PROC_VARIANT(both);
PROC_VARIANT(late);
PROC_VARIANT(inherited);
PROC_VARIANT(exec);

XSTATE_PERM_TEST(xstate_perm_proc, masks, xcomp_check_masks)
XSTATE_PERM_TEST(xstate_perm_proc, request, xcomp_check_request)
XSTATE_PERM_TEST(xstate_perm_proc, guest_supp, xcomp_check_guest_supp)
XSTATE_PERM_TEST(xstate_perm_proc, cap_xsave2, xcomp_check_cap_xsave2)
XSTATE_PERM_TEST(xstate_perm_proc, cpuid_0xd_0, xcomp_check_cpuid_0xd_0)
XSTATE_PERM_TEST(xstate_perm_proc, cpuid_0xd_1, xcomp_check_cpuid_0xd_1)
XSTATE_PERM_TEST(xstate_perm_proc, cpuid_subleaves, xcomp_check_cpuid_subleaves)
XSTATE_PERM_TEST(xstate_perm_proc, cpuid_constant, xcomp_check_cpuid_constant)
XSTATE_PERM_TEST(xstate_perm_proc, cet_offered, xcomp_check_cet_offered)
XSTATE_PERM_TEST(xstate_perm_proc, long_mode_guest, check_long_mode_guest)

/* What depends on guest CPUID as well */
FIXTURE(xstate_perm) {
};

FIXTURE_VARIANT(xstate_perm) {
	const char *name;
};

FIXTURE_SETUP(xstate_perm)
{
}

FIXTURE_TEARDOWN(xstate_perm)
{
}

#define VCPU_VARIANTS(perm)						\
static_assert(sizeof(#perm "_noamx_shstk") <= XCOMP_NAME_SIZE, "too long"); \
FIXTURE_VARIANT_ADD(xstate_perm, perm##_noamx_nocet) {			\
	.name = #perm "_noamx_nocet"					\
};									\
FIXTURE_VARIANT_ADD(xstate_perm, perm##_noamx_shstk) {			\
	.name = #perm "_noamx_shstk"					\
};									\
FIXTURE_VARIANT_ADD(xstate_perm, perm##_noamx_ibt) {			\
	.name = #perm "_noamx_ibt"					\
};									\
FIXTURE_VARIANT_ADD(xstate_perm, perm##_noamx_cet) {			\
	.name = #perm "_noamx_cet"					\
};									\
FIXTURE_VARIANT_ADD(xstate_perm, perm##_amx_nocet) {			\
	.name = #perm "_amx_nocet"					\
};									\
FIXTURE_VARIANT_ADD(xstate_perm, perm##_amx_shstk) {			\
	.name = #perm "_amx_shstk"					\
};									\
FIXTURE_VARIANT_ADD(xstate_perm, perm##_amx_ibt) {			\
	.name = #perm "_amx_ibt"					\
};									\
FIXTURE_VARIANT_ADD(xstate_perm, perm##_amx_cet) {			\
	.name = #perm "_amx_cet"					\
}

VCPU_VARIANTS(none);
VCPU_VARIANTS(host);
VCPU_VARIANTS(guest);
VCPU_VARIANTS(both);
VCPU_VARIANTS(late);
VCPU_VARIANTS(inherited);
VCPU_VARIANTS(exec);

XSTATE_PERM_TEST(xstate_perm, set_cpuid, xcomp_check_set_cpuid)
XSTATE_PERM_TEST(xstate_perm, xsave2, xcomp_check_xsave2)
XSTATE_PERM_TEST(xstate_perm, runtime_size, xcomp_check_runtime_size)
XSTATE_PERM_TEST(xstate_perm, xss, xcomp_check_xss)
XSTATE_PERM_TEST(xstate_perm, cet_msrs, xcomp_check_cet_msrs)
XSTATE_PERM_TEST(xstate_perm, guest, check_guest)
XSTATE_PERM_TEST(xstate_perm, xcomp_bv, xcomp_check_xcomp_bv)

int main(int argc, char **argv)
{
	xcomp_init();
	if (argc > 1 && !strcmp(argv[1], XCOMP_AFTER_EXEC))
		return xcomp_after_exec(argc, argv, all_checks);

	xcomp_tidy();
	xf_trace_open();
	return xcomp_listed(test_harness_run(argc, argv));
}
