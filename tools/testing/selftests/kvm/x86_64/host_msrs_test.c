// SPDX-License-Identifier: GPL-2.0-only
/*
 * MSRs of the host that a guest has values of its own for: KVM_RUN must put
 * back what they held, or CET, PASID and AMX of other tasks are at stake. Takes
 * root and the msr driver.
 */
#include <sys/klog.h>

#include "xstate_cet_guest.h"
#include "xstate_guest.h"
#include "xstate_host_msr.h"

static const struct {
	u32 index;
	const char *name;
} host_msrs[] = {
	{ XF_MSR_XSS, "IA32_XSS" },
	{ MSR_IA32_XFD, "IA32_XFD" },
	{ MSR_IA32_XFD_ERR, "IA32_XFD_ERR" },
	{ XF_MSR_U_CET, "IA32_U_CET" },
	{ XF_MSR_PL3_SSP, "IA32_PL3_SSP" },
	{ XF_MSR_S_CET, "IA32_S_CET" },
	{ XF_MSR_PL0_SSP, "IA32_PL0_SSP" },
	{ XF_MSR_PL1_SSP, "IA32_PL1_SSP" },
	{ XF_MSR_PL2_SSP, "IA32_PL2_SSP" },
	{ XF_MSR_INT_SSP_TAB, "IA32_INT_SSP_TAB" },
};

#define NR_MSRS		ARRAY_SIZE(host_msrs)
#define HOST_S_CET	5

/* The MSRs of the CPU that this runs on; those that it has not are 0. */
static bool read_host(u64 *values)
{
	int fd = xcomp_open_msrs(O_RDONLY);
	size_t i;

	if (fd < 0)
		return false;
	for (i = 0; i < NR_MSRS; i++)
		values[i] = xstate_host_msr(fd, host_msrs[i].index);
	close(fd);
	return true;
}

FIXTURE(host_msrs) {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	u64 before[NR_MSRS];
	u64 taint;
};

FIXTURE_VARIANT(host_msrs) {
	const char *name;
};

FIXTURE_SETUP(host_msrs)
{
	self->taint = xf_taint();
	ASSERT_LE(0, xcomp_pin());
	if (!read_host(self->before))
		SKIP(return, "cannot read MSRs of the host");
	ASSERT_TRUE(xstate_begin(&self->x, variant->name));
	if (self->x.amx && !self->x.have_amx)
		SKIP(return, "no AMX on this machine");
	if (!xkvm_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	self->vcpu = xstate_guest(&self->x, NULL);
	guest_begin(&self->x, self->vcpu, 0);
	ASSERT_TRUE(xstate_fill(&self->x, 0));
}

FIXTURE_TEARDOWN(host_msrs)
{
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

XSTATE_VARIANT(host_msrs, none_noamx_nocet);
XSTATE_VARIANT(host_msrs, none_noamx_cet);
XSTATE_VARIANT(host_msrs, guest_amx_cet);

static bool host_is(const u64 *before, const char *when)
{
	u64 now[NR_MSRS];
	bool ok;
	size_t i;

	ok = read_host(now);
	for (i = 0; i < NR_MSRS; i++)
		ok &= xarea_same(host_msrs[i].name, when, before[i], now[i]);
	return ok;
}

/* Verify that no ioctl leaves a value of the guest in the CPU. */
TEST_F(host_msrs, ioctls)
{
	struct xcomp *x = &self->x;

	EXPECT_TRUE(host_is(self->before, "after KVM_SET_MSRS"));
	EXPECT_TRUE(xstate_kept(x, 0, "KVM_SET_MSRS"));
	EXPECT_TRUE(host_is(self->before, "after KVM_GET_MSRS"));
	EXPECT_TRUE(xkvm_run_immediate_exit(x->kvm, x->vcpu));
	EXPECT_TRUE(host_is(self->before, "after KVM_RUN without a run"));
}

/* Verify the same for a guest that runs, and changes its CET. */
TEST_F(host_msrs, run)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_exits_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_TRUE(host_is(self->before, "after KVM_RUN"));
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_TRUE(host_is(self->before, "after another KVM_RUN"));
}

/* Whether the kernel said at boot that it uses branch tracking itself */
static bool kernel_tracks_branches(void)
{
	/* "Read all messages remaining in the ring buffer", see syslog(2) */
	const int read_all = 3, size = 1 << 20;
	char *log = calloc(1, size);
	bool found;

	/* On the heap: a guest's memory holds all that is static. */
	found = log && klogctl(read_all, log, size - 1) > 0 &&
		strstr(log, "Indirect Branch Tracking enabled");
	free(log);
	return found;
}

/*
 * Verify that a kernel that tracks branches still does after KVM_RUN. What
 * IA32_S_CET held before does not tell: this may not be the first guest.
 */
TEST_F(host_msrs, kernel_ibt)
{
	u64 now[NR_MSRS];

	if (!kernel_tracks_branches())
		SKIP(return, "cannot tell: no word of the kernel on branch tracking");
	vcpu_arch_set_entry_point(self->vcpu, guest_exits_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	ASSERT_TRUE(read_host(now));
	EXPECT_EQ(CET_ENDBR_EN, now[HOST_S_CET] & CET_ENDBR_EN) {
		ksft_print_msg("IA32_S_CET of the host after KVM_RUN: wanted ENDBR_EN got %#lx\n",
			       now[HOST_S_CET]);
	}
}

static void guest_nm_code(int nr)
{
	struct guest *g = &guests[nr];

	xstate_ldtilecfg(g->config);
	wrmsr(MSR_IA32_XFD, XF_BIT(XF_XTILE_DATA));
	GUEST_ASSERT_EQ(kvm_asm_safe("tilezero %%tmm0"), NM_VECTOR);
	GUEST_SYNC(0);
	wrmsr(MSR_IA32_XFD_ERR, 0);
	wrmsr(MSR_IA32_XFD, 0);
	xstate_load_tiles(g->tiles);
	GUEST_SYNC(1);
}

/* Verify the same for one that switches AMX off, misses it, and uses it. */
TEST_F(host_msrs, amx)
{
	if (!self->x.amx_on)
		SKIP(return, "the combination has no AMX");
	vcpu_arch_set_entry_point(self->vcpu, guest_nm_code);
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_TRUE(host_is(self->before, "after #NM in the guest"));
	xstate_run(self->vcpu, UCALL_SYNC);
	EXPECT_TRUE(host_is(self->before, "after use of AMX in the guest"));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
