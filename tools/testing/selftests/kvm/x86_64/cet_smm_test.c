// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET and XSAVE state over system management mode, which KVM emulates: SMI
 * saves SSP to SMRAM and clears CR4, RSM brings both back ("State Save Map" in
 * the SDM's chapter on SMM). All other CET MSRs, and the XSAVE state, are
 * nobody's business but the handler's.
 */
#include "xregs.h"

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

static void guest_code(void)
{
	for (;;)
		asm volatile("outb %%al, %0" : : "i" (PORT_GUEST));
}

FIXTURE(cet_smm) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xregs regs, other;	/* what the vCPU begins with, and other values */
	u64 components;
	struct kvm_sregs before;
};

XSTATE_SUITE(cet_smm);

FIXTURE_VARIANT_ADD(cet_smm, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(cet_smm, none_noamx_shstk) { .combo = { PERM_NONE, NOAMX, SHSTK } };
FIXTURE_VARIANT_ADD(cet_smm, none_noamx_ibt) { .combo = { PERM_NONE, NOAMX, IBT } };
FIXTURE_VARIANT_ADD(cet_smm, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(cet_smm, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

/* Let the guest begin with all its registers loaded, and with CR4.CET. */
FIXTURE_SETUP(cet_smm)
{
	struct kvm_sregs *sregs = &self->before;

	if (!xstate_begin(_metadata, &variant->combo) || !xstate_need_refusals(_metadata))
		return;
	if (!kvm_check_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");

	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_code);
	vm_userspace_mem_region_add(self->vm, VM_MEM_SRC_ANONYMOUS, SMRAM, SMRAM_SLOT,
				    SMRAM_PAGES, 0);
	vcpu_set_msr(self->vcpu, MSR_IA32_SMBASE, SMRAM);

	vcpu_sregs_get(self->vcpu, sregs);
	/* RSM sets CR0.ET, as it is hardwired to 1. */
	sregs->cr0 |= X86_CR0_WP | X86_CR0_ET;
	if (vcpu_has_cet_msr(self->vcpu, MSR_IA32_S_CET))
		sregs->cr4 |= X86_CR4_CET;
	vcpu_sregs_set(self->vcpu, sregs);
	vcpu_run(self->vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(self->vcpu, KVM_EXIT_IO);
	vcpu_sregs_get(self->vcpu, sregs);

	self->components = xregs_mask(vcpu_xcr0_mask(self->vcpu));
	xregs_fill(&self->regs, self->vcpu, 0);
	xregs_fill(&self->other, self->vcpu, 1);
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->components);
}

static int run(struct kvm_vcpu *vcpu)
{
	return _vcpu_run(vcpu) ? errno : 0;
}

/* KVM_RUN, which returned @error, got to the OUT of the guest or of its SMM handler. */
static bool expect_out(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu, int error,
		       u16 port)
{
	struct kvm_run *run = vcpu->run;
	bool smm = run->flags & KVM_RUN_X86_SMM;

	return EXPECT_ERRNO(0, error, "KVM_RUN up to OUT to port %#x", port) &&
	       EXPECT_THAT(run->exit_reason == KVM_EXIT_IO && run->io.port == port &&
			   smm == (port == PORT_SMM),
			   "wanted OUT to port %#x got exit %s, %sin SMM, port %#x", port,
			   exit_reason_str(run->exit_reason), smm ? "" : "not ",
			   run->exit_reason == KVM_EXIT_IO ? run->io.port : 0);
}

/* Go from the guest to the OUT of @handler: CR4 is 0, and CET is as it was. */
static void enter_smm(struct __test_metadata *const _metadata, FIXTURE_DATA(cet_smm) * const self,
		      const u8 *handler, size_t size)
{
	struct kvm_sregs sregs;

	memcpy(addr_gpa2hva(self->vm, SMM_HANDLER), handler, size);
	ASSERT_EQ(0, ioctl(self->vcpu->fd, KVM_SMI));
	ASSERT_TRUE(expect_out(_metadata, self->vcpu, run(self->vcpu), PORT_SMM));
	vcpu_sregs_get(self->vcpu, &sregs);
	EXPECT_SAME(0, sregs.cr4, "CR4 in SMM");
	expect_cet(_metadata, self->vcpu, &self->regs, "SMI");
}

/* RSM, by a KVM_RUN that returned @error: the guest goes on with all that it had. */
static void expect_return(struct __test_metadata *const _metadata,
			  FIXTURE_DATA(cet_smm) * const self, int error)
{
	struct kvm_sregs after;

	if (!expect_out(_metadata, self->vcpu, error, PORT_GUEST))
		return;
	vcpu_sregs_get(self->vcpu, &after);
	EXPECT_SAME(self->before.cr4, after.cr4, "CR4 after RSM");
	EXPECT_SAME(self->before.cr0, after.cr0, "CR0 after RSM");
	expect_xregs(_metadata, self->vcpu, &self->regs, self->components, "SMI and RSM");
}

/* Verify that SMI and RSM, with exits between, leave all state as it was. */
TEST_F(cet_smm, rsm)
{
	int i;

	for (i = 0; i < 2; i++) {
		th_case("SMI %d", i);
		enter_smm(_metadata, self, handler_plain, sizeof(handler_plain));
		use_kernel_fpu();
		expect_return(_metadata, self, run(self->vcpu));
	}
}

/*
 * Verify that what is written in SMM is there after RSM, but for SSP, which
 * comes back from SMRAM: that has no other CET.
 */
TEST_F(cet_smm, written_in_smm)
{
	struct xregs wanted = self->other;

	wanted.ssp = self->regs.ssp;
	enter_smm(_metadata, self, handler_plain, sizeof(handler_plain));
	vcpu_set_xregs(_metadata, self->vcpu, &self->other, self->components);
	ASSERT_TRUE(expect_out(_metadata, self->vcpu, run(self->vcpu), PORT_GUEST));
	expect_xregs(_metadata, self->vcpu, &wanted, self->components, "RSM");
}

/*
 * Whether RSM has ended in shutdown where known kernels do so: it has left SMM
 * and loaded GDTR, but neither CR4 nor CR0.
 */
static bool rsm_failed_at_cr4(struct kvm_vcpu *vcpu, const struct kvm_sregs *before)
{
	struct kvm_sregs now;

	vcpu_sregs_get(vcpu, &now);
	return before->cr4 & X86_CR4_CET && vcpu->run->exit_reason == KVM_EXIT_SHUTDOWN &&
	       !(vcpu->run->flags & KVM_RUN_X86_SMM) && now.gdt.base == before->gdt.base &&
	       !now.cr4 && !(now.cr0 & (X86_CR0_PE | X86_CR0_WP));
}

/*
 * Verify that RSM takes CR0.WP and CR4.CET back together, whatever CR0 the
 * handler leaves.
 */
TEST_F(cet_smm, cr0_wp)
{
	struct kvm_sregs in_smm;
	int error;

	enter_smm(_metadata, self, handler_clears_wp, sizeof(handler_clears_wp));
	vcpu_sregs_get(self->vcpu, &in_smm);
	EXPECT_SAME(0, in_smm.cr0 & X86_CR0_WP, "CR0.WP in SMM");
	error = run(self->vcpu);
	XFAIL_IF(!error && rsm_failed_at_cr4(self->vcpu, &self->before),
		 "RSM sets CR4.CET before CR0.WP and fails") {
		expect_return(_metadata, self, error);
	}
}

/* RSM with @ssp in SMRAM: shutdown, if the guest has shadow stacks at all */
static void rsm_with(struct __test_metadata *const _metadata, FIXTURE_DATA(cet_smm) * const self,
		     u64 ssp)
{
	enter_smm(_metadata, self, handler_plain, sizeof(handler_plain));
	memcpy(addr_gpa2hva(self->vm, SMRAM_SSP), &ssp, sizeof(ssp));
	if (!vcpu_has_shstk(self->vcpu)) {
		expect_return(_metadata, self, run(self->vcpu));
		return;
	}
	EXPECT_ERRNO(0, run(self->vcpu), "KVM_RUN up to RSM");
	EXPECT_THAT(self->vcpu->run->exit_reason == KVM_EXIT_SHUTDOWN,
		    "RSM with SSP %#lx: wanted SHUTDOWN got %s", (unsigned long)ssp,
		    exit_reason_str(self->vcpu->run->exit_reason));
}

/*
 * Verify that RSM shuts down, as for any state that no guest can have, if the
 * SSP in SMRAM is not a multiple of 4; nobody minds who has no shadow stacks.
 */
TEST_F(cet_smm, ssp_misaligned)
{
	rsm_with(_metadata, self, self->other.ssp | 1);
}

/* Verify the same of an SSP that is not canonical. */
TEST_F(cet_smm, ssp_not_canonical)
{
	rsm_with(_metadata, self, BIT_ULL(62));
}

/*
 * Verify that RSM takes every SSP that is valid just so, and that the guest has it.
 * Without shadow stacks it has none, whatever SMRAM says.
 */
TEST_F(cet_smm, ssp_edges)
{
	const u64 half = address_end(), had = self->regs.ssp;
	const u64 ssps[] = { 0, 4, half - 4, -half, -4ull };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ssps); i++) {
		th_case("SSP %#llx", (unsigned long long)ssps[i]);
		enter_smm(_metadata, self, handler_plain, sizeof(handler_plain));
		memcpy(addr_gpa2hva(self->vm, SMRAM_SSP), &ssps[i], sizeof(ssps[i]));
		if (vcpu_has_shstk(self->vcpu))
			self->regs.ssp = ssps[i];
		expect_return(_metadata, self, run(self->vcpu));
		/* Above 4 GiB, the CPU may refuse the next entry to SMM. */
		self->regs.ssp = had;
		vcpu_set_cet(_metadata, self->vcpu, &self->regs);
	}
}

/* Verify that RSM shuts down for the last SSP before what is canonical. */
TEST_F(cet_smm, ssp_beyond_edge)
{
	rsm_with(_metadata, self, address_end());
}

XSTATE_HARNESS_MAIN
