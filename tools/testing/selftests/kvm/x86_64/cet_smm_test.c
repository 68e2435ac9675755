// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET and XSAVE state over system management mode, which KVM emulates: SMI
 * saves SSP to SMRAM and clears CR4, RSM brings both back ("State Save Map" in
 * the SDM's chapter on SMM). All other CET MSRs, and the XSAVE state, are
 * nobody's business but the handler's.
 */
#include "xstate_cet_guest.h"

/* Memory that there is in SMM only, the other address space of KVM */
#define SMRAM		0x1000000
#define SMRAM_SLOT	(BIT(16) | 1)
#define SMRAM_PAGES	16

/* Where the handler begins, and where KVM keeps SSP (CHECK_SMRAM64_OFFSET) */
#define SMM_HANDLER	(SMRAM + 0x8000)
#define SMRAM_SSP	(SMRAM + 0xff18)

#define PORT_GUEST	0x55
#define PORT_SMM	0x56

/* In real mode: OUT, and RSM */
static const u8 handler_plain[] = { 0xe6, PORT_SMM, 0x0f, 0xaa };

/* The same behind a MOV that clears CR0.WP, as an AND of EAX leaves it */
static const u8 handler_clears_wp[] = {
	0x0f, 0x20, 0xc0,			/* mov %cr0, %eax */
	0x66, 0x25, 0xff, 0xff, 0xfe, 0xff,	/* and $~WP, %eax */
	0x0f, 0x22, 0xc0,			/* mov %eax, %cr0 */
	0xe6, PORT_SMM, 0x0f, 0xaa,
};

static void guest_smm_code(void)
{
	for (;;)
		asm volatile("outb %%al, %0" : : "i" (PORT_GUEST));
}

FIXTURE(cet_smm) {
	struct cet_guest f;
};

FIXTURE_VARIANT(cet_smm) {
	const char *name;
};

FIXTURE_SETUP(cet_smm)
{
	cet_guest_set_up(_metadata, &self->f, variant->name, guest_smm_code);
	if (!self->f.vcpu)
		return;
	if (!kvm_check_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");
	vm_userspace_mem_region_add(self->f.vcpu->vm, VM_MEM_SRC_ANONYMOUS,
				    SMRAM, SMRAM_SLOT, SMRAM_PAGES, 0);
	vcpu_set_msr(self->f.vcpu, MSR_IA32_SMBASE, SMRAM);
}

FIXTURE_TEARDOWN(cet_smm)
{
	cet_guest_tear_down(_metadata, &self->f);
}

XSTATE_VARIANT(cet_smm, none_noamx_nocet);
XSTATE_VARIANT(cet_smm, none_noamx_shstk);
XSTATE_VARIANT(cet_smm, none_noamx_ibt);
XSTATE_VARIANT(cet_smm, none_noamx_cet);
XSTATE_VARIANT(cet_smm, guest_amx_cet);

/* Whether the guest, or its SMM handler, runs up to its OUT to @port */
static bool run_to(struct kvm_vcpu *vcpu, u16 port)
{
	struct kvm_run *run = vcpu->run;
	bool smm = port == PORT_SMM;
	int error = _vcpu_run(vcpu) ? errno : 0;

	if (!error && run->exit_reason == KVM_EXIT_IO && run->io.port == port &&
	    smm == !!(run->flags & KVM_RUN_X86_SMM))
		return true;
	ksft_print_msg("wanted OUT to port %#x got errno %d, exit %s\n", port,
		       error, exit_reason_str(run->exit_reason));
	return false;
}

/* Let the guest begin with CR4.CET, and with all the state of @seed. */
static void begin(struct __test_metadata *_metadata, struct cet_guest *f,
		  const u8 *handler, size_t size, unsigned int seed)
{
	struct kvm_sregs sregs;

	memcpy(addr_gpa2hva(f->vcpu->vm, SMM_HANDLER), handler, size);
	vcpu_sregs_get(f->vcpu, &sregs);
	/* RSM sets CR0.ET, as it is hardwired to 1. */
	sregs.cr0 |= X86_CR0_WP | X86_CR0_ET;
	sregs.cr4 |= f->guest->cr4_cet;
	vcpu_sregs_set(f->vcpu, &sregs);
	ASSERT_TRUE(run_to(f->vcpu, PORT_GUEST));
	ASSERT_TRUE(xstate_fill(&f->x, seed));
}

/* Whether the vCPU is in SMM as it must be, with its CET MSRs as they were */
static bool smm_is_right(struct cet_guest *f, unsigned int seed)
{
	struct kvm_sregs sregs;
	bool ok;

	vcpu_sregs_get(f->vcpu, &sregs);
	ok = xcomp_same(&f->x, "CR4 in SMM", 0, sregs.cr4);
	return xstate_cet_kept(&f->x, seed, "SMI") && ok;
}

/*
 * Verify that SMI and RSM, with exits between, leave all state as it was, and
 * that SSP comes back from SMRAM: the host has changed it meanwhile.
 */
TEST_F(cet_smm, rsm)
{
	struct cet_guest *f = &self->f;
	struct kvm_sregs before, after;
	u64 other = xstate_ssp_value(1);
	int i;

	begin(_metadata, f, handler_plain, sizeof(handler_plain), 0);
	vcpu_sregs_get(f->vcpu, &before);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, ioctl(f->vcpu->fd, KVM_SMI));
		ASSERT_TRUE(run_to(f->vcpu, PORT_SMM));
		EXPECT_TRUE(smm_is_right(f, 0));
		use_kernel_fpu();
		if (f->x.shstk_on && i)
			EXPECT_EQ(0, xkvm_one_reg(f->x.vcpu, KVM_SET_ONE_REG,
						  XKVM_REG_GUEST_SSP, &other));
		ASSERT_TRUE(run_to(f->vcpu, PORT_GUEST));
		vcpu_sregs_get(f->vcpu, &after);
		EXPECT_EQ(before.cr4, after.cr4);
		EXPECT_EQ(before.cr0, after.cr0);
		EXPECT_TRUE(xstate_kept(&f->x, 0, "SMI and RSM"));
	}
}

/*
 * Verify that what the handler writes is there after RSM, but for SSP: SMRAM
 * has no other CET.
 */
TEST_F(cet_smm, written_in_smm)
{
	struct cet_guest *f = &self->f;

	begin(_metadata, f, handler_plain, sizeof(handler_plain), 0);
	ASSERT_EQ(0, ioctl(f->vcpu->fd, KVM_SMI));
	ASSERT_TRUE(run_to(f->vcpu, PORT_SMM));
	ASSERT_TRUE(xstate_fill(&f->x, 1));
	ASSERT_TRUE(run_to(f->vcpu, PORT_GUEST));
	EXPECT_TRUE(xstate_cet_kept(&f->x, 1, "RSM"));
	EXPECT_TRUE(xstate_ssp_kept(&f->x, 0, "RSM"));
}

/*
 * Verify that RSM takes CR0.WP and CR4.CET back together, whatever CR0 the
 * handler leaves.
 */
TEST_F(cet_smm, cr0_wp)
{
	struct cet_guest *f = &self->f;
	struct kvm_sregs before, after;
	bool taken;

	begin(_metadata, f, handler_clears_wp, sizeof(handler_clears_wp), 0);
	vcpu_sregs_get(f->vcpu, &before);
	ASSERT_EQ(0, ioctl(f->vcpu->fd, KVM_SMI));
	ASSERT_TRUE(run_to(f->vcpu, PORT_SMM));
	vcpu_sregs_get(f->vcpu, &after);
	EXPECT_EQ(0, after.cr0 & X86_CR0_WP);
	EXPECT_TRUE(smm_is_right(f, 0));
	taken = run_to(f->vcpu, PORT_GUEST);
	if (!taken && f->vcpu->run->exit_reason == KVM_EXIT_SHUTDOWN &&
	    f->guest->cr4_cet && __test_passed(_metadata)) {
		xstate_xfail(_metadata, "RSM sets CR4.CET before CR0.WP and fails");
		return;
	}
	EXPECT_TRUE(taken);
	vcpu_sregs_get(f->vcpu, &after);
	EXPECT_EQ(before.cr4, after.cr4);
	EXPECT_EQ(before.cr0, after.cr0);
	EXPECT_TRUE(xstate_kept(&f->x, 0, "SMI and RSM"));
}

/* RSM with @ssp in SMRAM: shutdown, if the guest has shadow stacks at all */
static void rsm_with(struct __test_metadata *_metadata, struct cet_guest *f,
		     u64 ssp)
{
	begin(_metadata, f, handler_plain, sizeof(handler_plain), 0);
	ASSERT_EQ(0, ioctl(f->vcpu->fd, KVM_SMI));
	ASSERT_TRUE(run_to(f->vcpu, PORT_SMM));
	memcpy(addr_gpa2hva(f->vcpu->vm, SMRAM_SSP), &ssp, sizeof(ssp));
	if (!f->x.shstk_on) {
		ASSERT_TRUE(run_to(f->vcpu, PORT_GUEST));
		EXPECT_TRUE(xstate_kept(&f->x, 0, "RSM"));
		return;
	}
	ASSERT_EQ(0, _vcpu_run(f->vcpu));
	EXPECT_EQ(KVM_EXIT_SHUTDOWN, f->vcpu->run->exit_reason);
}

/*
 * Verify that RSM shuts down, as for any state that no guest can have, if the
 * SSP in SMRAM is not a multiple of 4; nobody minds who has no shadow stacks.
 */
TEST_F(cet_smm, ssp_misaligned)
{
	rsm_with(_metadata, &self->f, xstate_ssp_value(1) | 1);
}

/* Verify the same of an SSP that is not canonical. */
TEST_F(cet_smm, ssp_not_canonical)
{
	rsm_with(_metadata, &self->f, BIT_ULL(62));
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
