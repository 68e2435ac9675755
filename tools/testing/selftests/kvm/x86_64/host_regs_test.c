// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registers that host and guest have in turn, and that no VM entry or exit
 * switches by itself: PKRU, XCR0 and IA32_XSS.
 *
 * A guest reaches PKRU by RDPKRU and WRPKRU if CR4.PKE is set, and by XSAVE and
 * XRSTOR if XCR0 has the component.  Whichever of the two it has, it must find
 * its own value after each exit, and the thread that runs it must keep the
 * thread's: all of its memory has key 0, which no value here closes.
 */
#include <pthread.h>

#include "cet_guest.h"

#ifndef X86_CR4_PKE
#define X86_CR4_PKE		BIT(22)
#endif

/* XCR0 of a guest may have PKRU. */
#define X86_FEATURE_XCR0_PKRU	KVM_X86_CPU_FEATURE(0xd, 0, EAX, XFEATURE_PKRU)

/* PKRU of the thread while nothing is tried, and what the kernel starts tasks with */
#define PKRU_PLAIN		0x55555554

/* Bits of PKRU for a key, those of a #PF, and where an entry of a page table has its key */
#define PKRU_AD(key)		BIT(2 * (key))
#define PKRU_WD(key)		BIT(2 * (key) + 1)
#define PF_PRESENT		BIT(0)
#define PF_WRITE		BIT(1)
#define PF_KEY			BIT(5)
#define PTE_KEY_SHIFT		59

/* Not in any memory slot */
#define MMIO			0xc0000000ull

/* ---- the guest ---- */

/* What one turn of the guest is to do beside reading PKRU, and what it finds */
static struct turn {
	bool pke, xcr0;		/* by which PKRU can be reached */
	bool write;		/* PKRU := @next, and then */
	bool cpuid;		/* an exit that KVM handles itself */
	bool set_crs;		/* CR4 and XCR0 as below, at last */
	u64 cr4, new_xcr0;
	u32 next;
	u32 seen, kept;		/* PKRU at the beginning and at the end */
	u32 offset;		/* of PKRU in an area */
	u8 area[XAREA_SIZE] __aligned(64);
} turns[2];

static INTEGER_ONLY u32 guest_pkru(struct turn *t)
{
	if (t->pke)
		return xregs_rdpkru();
	asm volatile("xsave (%0)"
		     : : "r" (t->area), "a" ((u32)XFEATURE_MASK_PKRU), "d" (0) : "memory");
	/* What is initial need not be written. */
	return t->area[XF_HEADER_OFFSET + 1] & (XFEATURE_MASK_PKRU >> 8) ?
	       *(u32 *)(t->area + t->offset) : 0;
}

static INTEGER_ONLY void guest_set_pkru(struct turn *t)
{
	if (t->pke) {
		xregs_wrpkru(t->next);
		return;
	}
	*(u64 *)(t->area + XF_HEADER_OFFSET) = XFEATURE_MASK_PKRU;
	*(u32 *)(t->area + t->offset) = t->next;
	asm volatile("xrstor (%0)"
		     : : "r" (t->area), "a" ((u32)XFEATURE_MASK_PKRU), "d" (0) : "memory");
}

/* CPUID always exits, and KVM handles it itself. */
static INTEGER_ONLY void guest_exit_to_kvm(void)
{
	u32 eax = 0, ecx = 0;

	asm volatile("cpuid" : "+a" (eax), "+c" (ecx) : : "rbx", "rdx", "memory");
}

static INTEGER_ONLY void guest_pkru_code(struct turn *t)
{
	bool reaches;

	for (;;) {
		reaches = t->pke || t->xcr0;
		if (reaches)
			t->seen = guest_pkru(t);
		if (reaches && t->write)
			guest_set_pkru(t);
		if (t->cpuid)
			guest_exit_to_kvm();
		if (reaches)
			t->kept = guest_pkru(t);
		if (t->set_crs) {
			set_cr4(t->cr4);
			xsetbv(0, t->new_xcr0);
		}
		guest_leave();
	}
}

/* ---- PKRU ---- */

static const struct xstate_combo plain = { PERM_NONE, NOAMX, NOCET };

FIXTURE(pkru) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct turn *turn;	/* in the guest's memory */
	u32 last;		/* PKRU of the guest by now */
};

/* What lets the guest reach PKRU, and what CPUID hides */
FIXTURE_VARIANT(pkru) {
	bool pke, xcr0;
	bool no_pku, no_component;
};

FIXTURE_VARIANT_ADD(pkru, pke_xcr0) { .pke = true, .xcr0 = true };
FIXTURE_VARIANT_ADD(pkru, pke) { .pke = true };
FIXTURE_VARIANT_ADD(pkru, xcr0) { .xcr0 = true };
FIXTURE_VARIANT_ADD(pkru, neither) { };
FIXTURE_VARIANT_ADD(pkru, pke_no_component) { .pke = true, .no_component = true };
FIXTURE_VARIANT_ADD(pkru, xcr0_no_pku) { .xcr0 = true, .no_pku = true };
FIXTURE_VARIANT_ADD(pkru, hidden) { .no_pku = true, .no_component = true };

static int set_pke(struct kvm_vcpu *vcpu, bool set)
{
	struct kvm_sregs sregs;

	vcpu_sregs_get(vcpu, &sregs);
	sregs.cr4 = (sregs.cr4 & ~X86_CR4_PKE) | (set ? X86_CR4_PKE : 0);
	return vcpu_errno(vcpu, KVM_SET_SREGS, &sregs);
}

static u64 xcr0_with(struct kvm_vcpu *vcpu, bool pkru)
{
	return (vcpu_xcr0_mask(vcpu) & ~XFEATURE_MASK_PKRU) | (pkru ? XFEATURE_MASK_PKRU : 0);
}

/* Give the guest, by ioctls, what it can reach PKRU by. */
static void set_ways(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		     struct turn *t, bool pke, bool xcr0)
{
	EXPECT_ERRNO(0, set_pke(vcpu, pke), "KVM_SET_SREGS with%s CR4.PKE", pke ? "" : "out");
	EXPECT_THAT(vcpu_takes_xcr0(vcpu, xcr0_with(vcpu, xcr0)), "KVM_SET_XCRS of %#lx: not taken",
		    (unsigned long)xcr0_with(vcpu, xcr0));
	t->pke = pke;
	t->xcr0 = xcr0;
}

/* A vCPU that is to run turns[@i], with the CPUID of a variant */
static struct turn *prepare(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu, int i,
			    const FIXTURE_VARIANT(pkru) * const variant)
{
	struct turn *t = (struct turn *)addr_gva2hva(vcpu->vm, (gva_t)turns) + i;

	EXPECT_THAT(vcpu_takes_xcr0(vcpu, xcr0_with(vcpu, false)), "KVM_SET_XCRS: not taken");
	if (variant->no_pku)
		vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_PKU);
	if (variant->no_component)
		vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_XCR0_PKRU);
	vcpu_args_set(vcpu, 1, (u64)(turns + i));
	t->offset = xarea_offset(0, XFEATURE_PKRU);
	set_ways(_metadata, vcpu, t, variant->pke, variant->xcr0);
	return t;
}

FIXTURE_SETUP(pkru)
{
	xstate_begin_unpermitted(_metadata, variant);
	if (!xstate_need_guests(_metadata))
		return;
	if (!(xf_xcr0() & XFEATURE_MASK_PKRU))
		SKIP(return, "no protection keys");
	/* It needs EPT or NPT for that. */
	if (variant->pke && !kvm_cpu_has(X86_FEATURE_PKU))
		SKIP(return, "KVM offers no protection keys");
	self->vcpu = xstate_new_guest(&self->vm, &plain, guest_pkru_code);
	self->turn = prepare(_metadata, self->vcpu, 0, variant);
}

FIXTURE_TEARDOWN(pkru)
{
	xregs_wrpkru(PKRU_PLAIN);
	xstate_end(_metadata, self->vm);
}

/* KVM_RUN by a thread with @host in PKRU, which must be there afterwards */
static bool run_as(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu, u32 host,
		   u32 reason)
{
	u32 after;
	int error;

	xregs_wrpkru(host);
	error = __vcpu_run(vcpu) ? errno : 0;
	after = xregs_rdpkru();
	xregs_wrpkru(PKRU_PLAIN);
	EXPECT_SAME(host, after, "PKRU of the host after KVM_RUN");
	return EXPECT_ERRNO(0, error, "KVM_RUN") &&
	       EXPECT_THAT(vcpu->run->exit_reason == reason, "KVM_RUN: wanted %s got %s",
			   exit_reason_str(reason), exit_reason_str(vcpu->run->exit_reason));
}

/*
 * One turn of a guest whose PKRU is @*last, and which sets it to @next if it
 * can; both sides keep theirs.
 */
static bool take_turn(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
		      struct turn *t, u32 host, u32 *last, u32 next)
{
	t->write = true;
	t->next = next;
	if (!run_as(_metadata, vcpu, host, KVM_EXIT_IO))
		return false;
	if (!t->pke && !t->xcr0)
		return true;
	EXPECT_SAME(*last, t->seen, "PKRU of the guest after an exit");
	EXPECT_SAME(next, t->kept, "PKRU of the guest that has written it");
	*last = next;
	return true;
}

/* Initial, no value of any other use, and what the kernel has as its default */
static const u32 values[] = { 0, 0x4, PKRU_PLAIN, 0xfffffffc, 0x12345670 };

/*
 * Verify that each side has its own PKRU over KVM_RUN, whatever the two values
 * are, with an exit that KVM handles itself between.
 */
TEST_F(pkru, both_sides)
{
	unsigned int host, guest;

	for (guest = 0; guest < ARRAY_SIZE(values); guest++) {
		for (host = 0; host < ARRAY_SIZE(values); host++) {
			th_case("host %#x, guest %#x", values[host], values[guest]);
			self->turn->cpuid = host & 1;
			if (!take_turn(_metadata, self->vcpu, self->turn, values[host],
				       &self->last, values[guest]))
				return;
		}
	}
}

/*
 * Verify that CR4.PKE and PKRU in XCR0 need what CPUID says: not one of them
 * can be set if that hides it, and the other one can.
 */
TEST_F(pkru, cpuid)
{
	bool pku = kvm_cpu_has(X86_FEATURE_PKU) && !variant->no_pku;

	EXPECT_ERRNO(pku ? 0 : EINVAL, set_pke(self->vcpu, true), "KVM_SET_SREGS with CR4.PKE");
	EXPECT_SAME(!variant->no_component,
		    vcpu_takes_xcr0(self->vcpu, xcr0_with(self->vcpu, true)),
		    "KVM_SET_XCRS takes PKRU");
	EXPECT_ERRNO(0, set_pke(self->vcpu, false), "KVM_SET_SREGS without CR4.PKE");
	EXPECT_THAT(vcpu_takes_xcr0(self->vcpu, xcr0_with(self->vcpu, false)),
		    "KVM_SET_XCRS without PKRU: not taken");
}

/*
 * Verify that neither CR4.PKE nor XCR0 change PKRU, set by KVM_SET_SREGS and
 * KVM_SET_XCRS or by the guest: with none of them it cannot be reached, and is
 * there again with either.
 */
TEST_F(pkru, toggled)
{
	static const u8 order[] = { 0, 1, 2, 3, 0, 2, 1, 3, 1, 0, 3, 2, 0, 3, 0 };
	bool can_pke = kvm_cpu_has(X86_FEATURE_PKU) && !variant->no_pku, pke, xcr0;
	struct turn *t = self->turn;
	unsigned int i, nr = 2 * ARRAY_SIZE(order);
	struct kvm_sregs sregs;

	if (!xregs_any_xsetbv_exits(_metadata)) {
		TH_ROW_LOG("left out: XSETBV of the guest, which does not exit on this CPU");
		nr = ARRAY_SIZE(order);
	}
	for (i = 0; i < nr && !_metadata->exit_code; i++) {
		pke = order[i % ARRAY_SIZE(order)] & 1 && can_pke;
		xcr0 = order[i % ARRAY_SIZE(order)] & 2 && !variant->no_component;
		th_case("turn %u, then CR4.PKE %u, PKRU %u in XCR0", i, pke, xcr0);
		vcpu_sregs_get(self->vcpu, &sregs);
		t->set_crs = i >= ARRAY_SIZE(order);
		t->cr4 = (sregs.cr4 & ~X86_CR4_PKE) | (pke ? X86_CR4_PKE : 0);
		t->new_xcr0 = xcr0_with(self->vcpu, xcr0);
		if (!take_turn(_metadata, self->vcpu, t, values[i % 4], &self->last,
			       0x10000 * i + 4))
			return;
		if (!t->set_crs)
			set_ways(_metadata, self->vcpu, t, pke, xcr0);
		t->pke = pke;
		t->xcr0 = xcr0;
	}
}

/* Verify that an INIT leaves PKRU alone, as it does XCR0. */
TEST_F(pkru, init)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (!take_turn(_metadata, self->vcpu, self->turn, 4, &self->last, 0x1230))
		return;
	vcpu_sregs_get(self->vcpu, &sregs);
	vcpu_regs_get(self->vcpu, &regs);
	xstate_send_init(self->vcpu);
	expect_init_taken(_metadata, self->vcpu);
	EXPECT_XFEATURES(xcr0_with(self->vcpu, variant->xcr0), vcpu_xcr0(self->vcpu),
			 "XCR0 after INIT");
	vcpu_sregs_set(self->vcpu, &sregs);
	vcpu_regs_set(self->vcpu, &regs);
	take_turn(_metadata, self->vcpu, self->turn, 4, &self->last, 0);
}

/* KVM_SET_XSAVE by a thread with @host in PKRU */
static void set_area(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu, u8 *area,
		     u32 host, u32 value)
{
	*(u32 *)(area + xarea_offset(0, XFEATURE_PKRU)) = value;
	xarea_set_header(area, 0, xarea_header(area, 0) | XFEATURE_MASK_PKRU);
	xregs_wrpkru(host);
	EXPECT_ERRNO(0, vcpu_errno(vcpu, KVM_SET_XSAVE, area), "KVM_SET_XSAVE");
	EXPECT_SAME(host, xregs_rdpkru(), "PKRU of the host after KVM_SET_XSAVE");
	xregs_wrpkru(PKRU_PLAIN);
}

/*
 * Verify that KVM_GET_XSAVE2 has the guest's PKRU, and that the guest has the
 * one of KVM_SET_XSAVE, whatever the thread itself has.
 */
TEST_F(pkru, saved)
{
	u32 offset = xarea_offset(0, XFEATURE_PKRU);
	unsigned int i;
	u64 bv;
	u8 *area;

	if (variant->no_component || (!variant->pke && !variant->xcr0))
		return;
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		th_case("host %#x", values[i]);
		if (!take_turn(_metadata, self->vcpu, self->turn, values[i], &self->last,
			       0x770 + 4 * i))
			return;
		xregs_wrpkru(values[i]);
		area = vcpu_area(self->vcpu);
		xregs_wrpkru(PKRU_PLAIN);
		bv = xarea_header(area, 0);
		XFAIL_IF(!values[i] && !(bv & XFEATURE_MASK_PKRU),
			 "KVM_GET_XSAVE2 leaves out PKRU if that of the host is 0") {
			EXPECT_XFEATURES(XFEATURE_MASK_PKRU, bv & XFEATURE_MASK_PKRU, "XSTATE_BV");
			EXPECT_SAME(self->last, *(u32 *)(area + offset), "PKRU in the area");
		}
		self->last = 0x990 + 4 * i;
		set_area(_metadata, self->vcpu, area, values[i], self->last);
		if (!take_turn(_metadata, self->vcpu, self->turn, values[i], &self->last, 4))
			return;
	}
}

/* ---- one thread and two vCPUs, one vCPU and two threads ---- */

struct runner {
	struct __test_metadata *metadata;
	struct kvm_vcpu *vcpu;
	struct turn *turn;
	u32 *last, host, next;
};

static void *runner_thread(void *arg)
{
	struct runner *r = arg;

	take_turn(r->metadata, r->vcpu, r->turn, r->host, r->last, r->next);
	return NULL;
}

/* Verify that PKRU goes with the vCPU, of which a thread runs two, and to another thread. */
TEST_F(pkru, vcpus_and_threads)
{
	struct kvm_vcpu *vcpus[] = { self->vcpu, xstate_add_guest(self->vm, 1, &plain,
								 guest_pkru_code) };
	struct turn *t[] = { self->turn, prepare(_metadata, vcpus[1], 1, variant) };
	u32 last[2] = { }, i, nr;

	for (i = 0; i < 16; i++) {
		struct runner r = {
			.metadata = _metadata, .vcpu = vcpus[i & 1], .turn = t[i & 1],
			.last = &last[i & 1], .host = values[i % 5], .next = 0x100 * i + 8,
		};
		pthread_t thread;

		nr = i / 2;
		th_case("turn %u of vCPU %u", nr, i & 1);
		if (nr % 4 < 2) {
			runner_thread(&r);
			continue;
		}
		ASSERT_EQ(0, pthread_create(&thread, NULL, runner_thread, &r));
		xf_join_thread(_metadata, thread, "a thread that runs a vCPU");
	}
}

/* ---- what PKRU denies the guest ---- */

static u8 keyed_page[4096] __aligned(4096);

/* How the guest gets at its page: the third is done by KVM, as its operand is MMIO. */
enum { BY_READ, BY_WRITE, BY_MOVS, NR_ACCESSES };

static const char * const access_names[NR_ACCESSES] = {
	"a read of the page", "a write to the page", "MOVS from MMIO to the page",
};

static struct keyed {
	u32 pkru, access;
	u64 vector, error;
} keyed;

static u8 guest_access(u32 access, u64 *error)
{
	void *to = keyed_page, *from = (void *)MMIO;
	u8 vector;

	if (access == BY_READ)
		return kvm_asm_safe_ec("movb (%[page]), %%al", *error, [page] "r" (keyed_page),
				       "a" (0));
	if (access == BY_WRITE)
		return kvm_asm_safe_ec("movb %%al, (%[page])", *error, [page] "r" (keyed_page),
				       "a" (0));
	asm volatile(KVM_ASM_SAFE("movsb")
		     : KVM_ASM_SAFE_OUTPUTS(vector, *error), "+D" (to), "+S" (from)
		     : : KVM_ASM_SAFE_CLOBBERS, "memory");
	return vector;
}

static void guest_keyed_code(void)
{
	for (;;) {
		xregs_wrpkru(keyed.pkru);
		/* KVM has the value of the guest from an exit, and gives it back. */
		guest_leave();
		keyed.vector = guest_access(keyed.access, &keyed.error);
		guest_leave();
	}
}

/* The #PF of @access with @pkru, or 0 */
static u64 keyed_fault(u32 access, u32 pkru)
{
	if (access == BY_READ)
		return pkru & PKRU_AD(1) ? PF_PRESENT | PF_KEY : 0;
	return pkru & (PKRU_AD(1) | PKRU_WD(1)) ? PF_PRESENT | PF_WRITE | PF_KEY : 0;
}

static void expect_access(struct __test_metadata *const _metadata, FIXTURE_DATA(pkru) * const self,
			  struct keyed *k, u32 host)
{
	u64 error = keyed_fault(k->access, k->pkru);

	th_case("%s, PKRU of the guest %#x, of the host %#x", access_names[k->access], k->pkru,
		host);
	if (!run_as(_metadata, self->vcpu, host, KVM_EXIT_IO))
		return;
	if (k->access == BY_MOVS && !run_as(_metadata, self->vcpu, host, KVM_EXIT_MMIO))
		return;
	if (!run_as(_metadata, self->vcpu, host, KVM_EXIT_IO))
		return;
	if (EXPECT_THAT(k->vector == (error ? PF_VECTOR : 0), "wanted %s got %s",
			vector_name(error ? PF_VECTOR : 0), vector_name(k->vector)) && error)
		EXPECT_SAME(error, k->error, "error code of #PF");
}

/*
 * Verify that it is the guest's PKRU that decides what the guest may do, whether
 * the CPU looks or KVM, and that the thread's has no say.
 */
TEST_F(pkru, enforced)
{
	const u32 pkru[] = { 0, PKRU_AD(1), PKRU_WD(1), PKRU_AD(1) | PKRU_WD(1), ~0u & ~0xc };
	struct keyed *k = addr_gva2hva(self->vm, (gva_t)&keyed);
	struct kvm_sregs sregs;
	unsigned int i, host;

	if (!variant->pke)
		return;
	vcpu_sregs_get(self->vcpu, &sregs);
	sregs.cr0 |= X86_CR0_WP;
	vcpu_sregs_set(self->vcpu, &sregs);
	virt_map(self->vm, MMIO, MMIO, 1);
	vcpu_open_page(self->vcpu, keyed_page);
	*vm_get_pte(self->vm, (gva_t)keyed_page) |= 1ull << PTE_KEY_SHIFT;
	vcpu_arch_set_entry_point(self->vcpu, guest_keyed_code);
	for (k->access = 0; k->access < NR_ACCESSES; k->access++) {
		for (i = 0; i < ARRAY_SIZE(pkru); i++) {
			for (host = 0; host < 2; host++) {
				k->pkru = pkru[i];
				expect_access(_metadata, self, k, host ? PKRU_AD(1) : 0);
			}
		}
	}
}

/* ---- XCR0 and IA32_XSS ---- */

static u64 guest_xcr0;

static INTEGER_ONLY void guest_xcr0_code(void)
{
	for (;;) {
		guest_xcr0 = get_cr4() & X86_CR4_OSXSAVE ? xgetbv(0) : 0;
		guest_leave();
	}
}

FIXTURE(xcr0) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	u64 *seen;
	u64 host_xcr0, host_xss;
	int msrs;		/* of the host, or -1 */
};

XSTATE_SUITE(xcr0);

FIXTURE_VARIANT_ADD(xcr0, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(xcr0, none_noamx_cet) { .combo = { PERM_NONE, NOAMX, CET } };
FIXTURE_VARIANT_ADD(xcr0, guest_amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(xcr0, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(xcr0)
{
	u64 xss;

	if (!xstate_begin(_metadata, &variant->combo) || !xstate_need_guests(_metadata) ||
	    !xstate_need_cet(_metadata, &variant->combo))
		return;
	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_xcr0_code);
	self->seen = addr_gva2hva(self->vm, (gva_t)&guest_xcr0);
	self->host_xcr0 = xgetbv(0);
	self->msrs = xf_open_msrs(_metadata, O_RDONLY);
	if (self->msrs >= 0 && pread(self->msrs, &xss, sizeof(xss), MSR_IA32_XSS) != sizeof(xss))
		self->msrs = -1;
	if (self->msrs >= 0)
		self->host_xss = xf_read_msr(_metadata, self->msrs, MSR_IA32_XSS);
}

static void run_xcr0(struct __test_metadata *const _metadata, FIXTURE_DATA(xcr0) * const self,
		     bool osxsave, u64 xcr0)
{
	struct kvm_sregs sregs;

	vcpu_sregs_get(self->vcpu, &sregs);
	sregs.cr4 = (sregs.cr4 & ~X86_CR4_OSXSAVE) | (osxsave ? X86_CR4_OSXSAVE : 0);
	vcpu_sregs_set(self->vcpu, &sregs);
	xregs_run(self->vcpu);
	EXPECT_XFEATURES(self->host_xcr0, xgetbv(0), "XCR0 of the host after KVM_RUN");
	if (self->msrs >= 0)
		EXPECT_XFEATURES(self->host_xss,
				 xf_read_msr(_metadata, self->msrs, MSR_IA32_XSS),
				 "IA32_XSS of the host after KVM_RUN");
	EXPECT_XFEATURES(osxsave ? xcr0 : 0, *self->seen, "XGETBV of the guest");
	EXPECT_XFEATURES(xcr0, vcpu_xcr0(self->vcpu), "KVM_GET_XCRS");
}

/*
 * Verify that the host has its own XCR0 and IA32_XSS after a guest with any XCR0
 * and IA32_XSS, that of a guest without CR4.OSXSAVE included, which keeps its
 * own, too.
 */
TEST_F(xcr0, both_sides)
{
	u64 mask = vcpu_xcr0_mask(self->vcpu), xss = vcpu_xss_mask(self->vcpu), xcr0;

	for (xcr0 = mask; xcr0; xcr0 = (xcr0 - 1) & mask) {
		if (!xcr0_is_legal(xcr0))
			continue;
		th_case("XCR0 of the guest %#lx", (unsigned long)xcr0);
		EXPECT_THAT(vcpu_takes_xcr0(self->vcpu, xcr0), "KVM_SET_XCRS: not taken");
		if (xss)
			vcpu_set_msr(self->vcpu, MSR_IA32_XSS, xcr0 & XFEATURE_MASK_SSE ? xss : 0);
		run_xcr0(_metadata, self, true, xcr0);
		run_xcr0(_metadata, self, false, xcr0);
		if (_metadata->exit_code)
			return;
	}
	run_xcr0(_metadata, self, true, XFEATURE_MASK_FP);
}

XSTATE_HARNESS_MAIN
