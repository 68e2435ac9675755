// SPDX-License-Identifier: GPL-2.0-only
/*
 * Instructions that move vector, MMX or x87 registers to and from MMIO.
 *
 * KVM carries them out itself, with the registers of the guest, which are in the
 * CPU or not: KVM_RUN has returned to user space in between, another task may
 * have run, the kernel may have used the FPU.  What is moved must be right, from
 * and to each register, and all others must keep what they have.
 */
#include "xregs.h"

/* Not in any memory slot */
#define MMIO		0xc0000000ull

/* Bytes between the stubs for two registers */
#define STUB_SIZE	16

/* Of the status word of x87 */
#define FSW_C0_C2_C3	0x4500

#define REGS_0_7	"0,1,2,3,4,5,6,7"
#define REGS_0_15	REGS_0_7 ",8,9,10,11,12,13,14,15"

/* @insn with register \\n, and an exit, for each of @regs */
#define STUBS(name, regs, insn)					\
static __attribute__((naked)) __aligned(64) void name(void)	\
{								\
	asm volatile(".irp n," regs "\n"			\
		     "\t.balign 16\n"				\
		     "\t" insn "\n"				\
		     "\toutb %al, %dx\n"			\
		     ".endr");					\
}

STUBS(movups_load, REGS_0_15, "movups (%rax), %xmm\\n")
STUBS(movups_store, REGS_0_15, "movups %xmm\\n, (%rax)")
STUBS(movupd_load, REGS_0_15, "movupd (%rax), %xmm\\n")
STUBS(movupd_store, REGS_0_15, "movupd %xmm\\n, (%rax)")
STUBS(movaps_load, REGS_0_15, "movaps (%rax), %xmm\\n")
STUBS(movaps_store, REGS_0_15, "movaps %xmm\\n, (%rax)")
STUBS(movapd_load, REGS_0_15, "movapd (%rax), %xmm\\n")
STUBS(movapd_store, REGS_0_15, "movapd %xmm\\n, (%rax)")
STUBS(movdqa_load, REGS_0_15, "movdqa (%rax), %xmm\\n")
STUBS(movdqa_store, REGS_0_15, "movdqa %xmm\\n, (%rax)")
STUBS(movdqu_load, REGS_0_15, "movdqu (%rax), %xmm\\n")
STUBS(movdqu_store, REGS_0_15, "movdqu %xmm\\n, (%rax)")
STUBS(movntps_store, REGS_0_15, "movntps %xmm\\n, (%rax)")
STUBS(movntpd_store, REGS_0_15, "movntpd %xmm\\n, (%rax)")
STUBS(movntdq_store, REGS_0_15, "movntdq %xmm\\n, (%rax)")
STUBS(movntdqa_load, REGS_0_15, "movntdqa (%rax), %xmm\\n")
STUBS(movq_load, REGS_0_7, "movq (%rax), %mm\\n")
STUBS(movq_store, REGS_0_7, "movq %mm\\n, (%rax)")
STUBS(fnstcw_store, "0", "fnstcw (%rax)")
STUBS(fnstsw_store, "0", "fnstsw (%rax)")
STUBS(vmovups_load, REGS_0_15, "vmovups (%rax), %xmm\\n")
STUBS(vmovups_store, REGS_0_15, "vmovups %xmm\\n, (%rax)")
STUBS(vmovaps_load, REGS_0_15, "vmovaps (%rax), %xmm\\n")
STUBS(vmovaps_store, REGS_0_15, "vmovaps %xmm\\n, (%rax)")
STUBS(vmovdqa_load, REGS_0_15, "vmovdqa (%rax), %xmm\\n")
STUBS(vmovdqa_store, REGS_0_15, "vmovdqa %xmm\\n, (%rax)")
STUBS(vmovups_y_load, REGS_0_15, "vmovups (%rax), %ymm\\n")
STUBS(vmovups_y_store, REGS_0_15, "vmovups %ymm\\n, (%rax)")
STUBS(vmovapd_y_load, REGS_0_15, "vmovapd (%rax), %ymm\\n")
STUBS(vmovapd_y_store, REGS_0_15, "vmovapd %ymm\\n, (%rax)")
STUBS(vmovdqa_y_load, REGS_0_15, "vmovdqa (%rax), %ymm\\n")
STUBS(vmovdqa_y_store, REGS_0_15, "vmovdqa %ymm\\n, (%rax)")
STUBS(vmovdqu_y_load, REGS_0_15, "vmovdqu (%rax), %ymm\\n")
STUBS(vmovdqu_y_store, REGS_0_15, "vmovdqu %ymm\\n, (%rax)")
STUBS(vmovntps_y_store, REGS_0_15, "vmovntps %ymm\\n, (%rax)")
STUBS(vmovntdq_y_store, REGS_0_15, "vmovntdq %ymm\\n, (%rax)")
STUBS(vmovntdqa_y_load, REGS_0_15, "vmovntdqa (%rax), %ymm\\n")

enum { SSE, AVX, MMX, FCW, FSW };

struct insn {
	const char *name;
	void (*stubs)(void);
	u8 kind, size;
	bool store;
};

#define LOAD(insn, kind, size)	{ #insn " load", insn##_load, kind, size, false }
#define STORE(insn, kind, size)	{ #insn " store", insn##_store, kind, size, true }

static const struct insn sse[] = {
	LOAD(movups, SSE, 16), STORE(movups, SSE, 16),
	LOAD(movupd, SSE, 16), STORE(movupd, SSE, 16),
	LOAD(movaps, SSE, 16), STORE(movaps, SSE, 16),
	LOAD(movapd, SSE, 16), STORE(movapd, SSE, 16),
	LOAD(movdqa, SSE, 16), STORE(movdqa, SSE, 16),
	LOAD(movdqu, SSE, 16), STORE(movdqu, SSE, 16),
	STORE(movntps, SSE, 16), STORE(movntpd, SSE, 16),
	STORE(movntdq, SSE, 16),
};

static const struct insn movntdqa[] = { LOAD(movntdqa, SSE, 16) };

static const struct insn mmx_load[] = { LOAD(movq, MMX, 8) };

static const struct insn x87[] = {
	STORE(movq, MMX, 8), STORE(fnstcw, FCW, 2), STORE(fnstsw, FSW, 2),
};

static const struct insn avx[] = {
	LOAD(vmovups, AVX, 16), STORE(vmovups, AVX, 16),
	LOAD(vmovaps, AVX, 16), STORE(vmovaps, AVX, 16),
	LOAD(vmovdqa, AVX, 16), STORE(vmovdqa, AVX, 16),
	LOAD(vmovups_y, AVX, 32), STORE(vmovups_y, AVX, 32),
	LOAD(vmovapd_y, AVX, 32), STORE(vmovapd_y, AVX, 32),
	LOAD(vmovdqa_y, AVX, 32), STORE(vmovdqa_y, AVX, 32),
	LOAD(vmovdqu_y, AVX, 32), STORE(vmovdqu_y, AVX, 32),
	STORE(vmovntps_y, AVX, 32), STORE(vmovntdq_y, AVX, 32),
	LOAD(vmovntdqa_y, AVX, 32),
};

/* ---- a vCPU that executes one of these at a time ---- */

static void guest_code(void)
{
}

FIXTURE(emulator_mmio) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct xregs regs;		/* what the vCPU must hold */
	u64 mask;			/* components that it holds */
};

XSTATE_SUITE(emulator_mmio);

FIXTURE_VARIANT_ADD(emulator_mmio, none_noamx_nocet) { .combo = { PERM_NONE, NOAMX, NOCET } };
FIXTURE_VARIANT_ADD(emulator_mmio, guest_amx_nocet) { .combo = { PERM_GUEST, AMX, NOCET } };
FIXTURE_VARIANT_ADD(emulator_mmio, guest_amx_cet) { .combo = { PERM_GUEST, AMX, CET } };

FIXTURE_SETUP(emulator_mmio)
{
	if (!xstate_begin(_metadata, &variant->combo) || !xstate_need_guests(_metadata) ||
	    !xstate_need_cet(_metadata, &variant->combo))
		return;
	self->vcpu = xstate_new_guest(&self->vm, &variant->combo, guest_code);
	self->mask = xregs_mask(vcpu_xcr0_mask(self->vcpu));
	virt_map(self->vm, MMIO, MMIO, 1);
	xregs_fill(&self->regs, self->vcpu, 0);
	vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
}

/* The register that @in moves, in what the vCPU must hold */
static u8 *operand(struct xregs *r, const struct insn *in, int nr)
{
	switch (in->kind) {
	case MMX:
		return r->st[nr];
	case FCW:
		return (u8 *)&r->fcw;
	case FSW:
		return (u8 *)&r->fsw;
	}
	return r->zmm[nr];
}

/* What a load of @data leaves in the registers: SDM, on VEX prefixes and on MMX */
static void load(struct xregs *r, const struct insn *in, int nr, const u8 *data)
{
	u8 *to = operand(r, in, nr);

	if (in->kind == AVX)
		memset(to, 0, sizeof(r->zmm[nr]));
	memcpy(to, data, in->size);
	if (in->kind == MMX)
		memset(to + 8, 0xff, 2);
}

static void start(struct kvm_vcpu *vcpu, const struct insn *in, int nr, struct kvm_regs *regs)
{
	*regs = (struct kvm_regs) {
		.rax = MMIO, .rbx = 0x1b1b, .rcx = 0x1c1c, .rdx = XREGS_EXIT_PORT,
		.rsi = 0x5151, .rdi = 0xd1d1, .rbp = 0xb9b9, .rsp = 0x5959, .r8 = 8, .r15 = 15,
		.rip = (u64)in->stubs + nr * STUB_SIZE, .rflags = 2,
	};
	vcpu_regs_set(vcpu, regs);
}

/* One of the accesses that KVM makes of the operand, of eight bytes at most */
static bool expect_mmio(struct __test_metadata *const _metadata, struct kvm_vcpu *vcpu,
			const struct insn *in, u32 done, u8 *data)
{
	struct kvm_run *run = vcpu->run;
	u32 len = min(in->size - done, 8u);
	u8 *moved = (u8 *)run->mmio.data;

	if (!EXPECT_THAT(run->exit_reason == KVM_EXIT_MMIO, "wanted MMIO got %s",
			 exit_reason_str(run->exit_reason)) ||
	    !EXPECT_SAME(MMIO + done, run->mmio.phys_addr, "address") ||
	    !EXPECT_SAME(len, run->mmio.len, "length") ||
	    !EXPECT_SAME(in->store, run->mmio.is_write, "direction"))
		return false;
	if (in->store)
		memcpy(data + done, moved, len);
	else
		memcpy(moved, data + done, len);
	return true;
}

/* Whether KVM says that it cannot do @in at all */
static bool is_emulated(struct kvm_vcpu *vcpu, const struct insn *in)
{
	struct kvm_regs regs;

	start(vcpu, in, 0, &regs);
	vcpu_run(vcpu);
	if (vcpu->run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		return false;
	/* Bring what KVM began to an end. */
	while (vcpu->run->exit_reason == KVM_EXIT_MMIO)
		vcpu_run(vcpu);
	return true;
}

/* @in moves register @nr, with other users of the FPU in between. */
static bool move_one(struct __test_metadata *const _metadata,
		     FIXTURE_DATA(emulator_mmio) * const self, const struct insn *in, int nr)
{
	struct kvm_regs before, after;
	u8 data[32] = { };
	u32 done;
	int i;

	th_case("%s, register %d", in->name, nr);
	for (i = 0; i < in->size && !in->store; i++)
		data[i] = 0x31 * i + 7 * nr + in->kind + 1;
	start(self->vcpu, in, nr, &before);
	for (done = 0; done < in->size; done += 8) {
		vcpu_run(self->vcpu);
		if (!expect_mmio(_metadata, self->vcpu, in, done, data))
			return false;
		use_kernel_fpu();
	}
	vcpu_run(self->vcpu);
	if (!EXPECT_THAT(self->vcpu->run->exit_reason == KVM_EXIT_IO, "the next exit: %s",
			 exit_reason_str(self->vcpu->run->exit_reason)))
		return false;

	if (!in->store)
		load(&self->regs, in, nr, data);
	for (i = 0; i < in->size && in->store; i++)
		if (!EXPECT_SAME(operand(&self->regs, in, nr)[i], data[i], "byte %d of the store",
				 i))
			break;
	vcpu_regs_get(self->vcpu, &after);
	before.rip = after.rip;
	EXPECT_THAT(!memcmp(&before, &after, sizeof(before)), "a general register has changed");
	return true;
}

/*
 * With half of the registers at a time: a load of all would leave nothing of what AVX
 * loads clear, and that would be initial.
 */
static void move_all(struct __test_metadata *const _metadata,
		     FIXTURE_DATA(emulator_mmio) * const self, const struct insn *in,
		     const struct insn *end)
{
	int nr, last;

	for (; in < end; in++) {
		last = in->kind == MMX ? 8 : in->kind == FCW || in->kind == FSW ? 1 : 16;
		for (nr = 0; nr < last; nr++) {
			if (nr % 8 == 0) {
				xregs_fill(&self->regs, self->vcpu, in->kind);
				/* Condition codes: FNSTSW is to have something to store. */
				self->regs.fsw = FSW_C0_C2_C3;
				vcpu_set_xregs(_metadata, self->vcpu, &self->regs, self->mask);
			}
			if (!move_one(_metadata, self, in, nr))
				return;
			if (nr % 8 == 7 || nr == last - 1)
				expect_xregs(_metadata, self->vcpu, &self->regs, self->mask,
					     in->name);
		}
	}
}

/* Verify that SSE instructions move each XMM register, and no more of it. */
TEST_F(emulator_mmio, sse)
{
	move_all(_metadata, self, sse, sse + ARRAY_SIZE(sse));
}

/* Whether this CPU does, what some emulated one does not: MMX writes ones to the exponent. */
static bool mmx_sets_exponents(void)
{
	u8 area[XF_HEADER_OFFSET] __aligned(16) = { };
	u64 value = 0;

	asm volatile("movq %1, %%mm0\n\t"
		     "fxsave %0\n\t"
		     "emms" : "+m" (area) : "m" (value) : "mm0");
	return area[XAREA_ST + 8] == 0xff && area[XAREA_ST + 9] == 0xff;
}

/* Verify the same of MMX and of the control and status words of x87. */
TEST_F(emulator_mmio, x87)
{
	if (mmx_sets_exponents())
		move_all(_metadata, self, mmx_load, mmx_load + ARRAY_SIZE(mmx_load));
	else
		TH_ROW_LOG("left out: movq load, which leaves exponents as they were on this CPU");
	move_all(_metadata, self, x87, x87 + ARRAY_SIZE(x87));
}

/* Verify the same of MOVNTDQA, which KVM knows if it knows AVX. */
TEST_F(emulator_mmio, movntdqa)
{
	if (!is_emulated(self->vcpu, movntdqa)) {
		EXPECT_THAT(!(self->mask & XFEATURE_MASK_YMM) || !is_emulated(self->vcpu, avx),
			    "AVX is emulated, but not MOVNTDQA");
		SKIP(return, "KVM does not emulate MOVNTDQA");
	}
	move_all(_metadata, self, movntdqa, movntdqa + ARRAY_SIZE(movntdqa));
}

/*
 * Verify that AVX instructions move each XMM and YMM register, and that a load
 * clears the rest of it.
 */
TEST_F(emulator_mmio, avx)
{
	if (!(self->mask & XFEATURE_MASK_YMM))
		SKIP(return, "no AVX");
	if (!is_emulated(self->vcpu, avx))
		SKIP(return, "KVM does not emulate AVX");
	move_all(_metadata, self, avx, avx + ARRAY_SIZE(avx));
}

/* ---- while other tasks run ---- */

/* Stores of XMM0 to XMM15 without end, and how often that was */
#define STORES		1200

static INTEGER_ONLY void guest_store_code(void)
{
	int i;

	for (i = 0; i < STORES / 16; i++)
		asm volatile(".irp n," REGS_0_15 "\n\tmovaps %%xmm\\n, (%0)\n\t.endr"
			     : : "r" (MMIO) : "memory");
	guest_leave();
}

/* What KVM has put into its ring must be what XMM registers hold, one after the other. */
static u32 drain(struct __test_metadata *const _metadata, struct kvm_coalesced_mmio_ring *ring,
		 const struct xregs *r, u32 half)
{
	const struct kvm_coalesced_mmio *m;
	u64 wanted, got;

	for (; ring->first != ring->last; half++) {
		m = &ring->coalesced_mmio[ring->first];
		memcpy(&wanted, r->zmm[half / 2 % 16] + half % 2 * 8, sizeof(wanted));
		memcpy(&got, m->data, sizeof(got));
		EXPECT_SAME(wanted, got, "store %u: XMM%u, half %u", half / 2, half / 2 % 16,
			    half % 2);
		ring->first = (ring->first + 1) % KVM_COALESCED_MMIO_MAX;
	}
	return half;
}

/*
 * Verify that a store has the guest's registers though its thread loses the CPU
 * at any point: KVM collects these stores without a return to user space, and
 * another process wants the same CPU.
 */
TEST_F(emulator_mmio, scheduled)
{
	struct kvm_coalesced_mmio_zone zone = { .addr = MMIO, .size = 4096 };
	struct kvm_coalesced_mmio_ring *ring;
	u32 half = 0;
	pid_t hog;

	/* The offset of the ring in pages, or nothing */
	if (kvm_check_cap(KVM_CAP_COALESCED_MMIO) <= 0)
		SKIP(return, "KVM does not coalesce MMIO");
	ring = (void *)self->vcpu->run + kvm_check_cap(KVM_CAP_COALESCED_MMIO) * getpagesize();
	vm_ioctl(self->vm, KVM_REGISTER_COALESCED_MMIO, &zone);
	vcpu_arch_set_entry_point(self->vcpu, guest_store_code);
	xf_pin(_metadata);
	hog = xf_hog(_metadata);
	do {
		vcpu_run(self->vcpu);
		half = drain(_metadata, ring, &self->regs, half);
		if (self->vcpu->run->exit_reason == KVM_EXIT_MMIO) {
			/* There was no room for this one, which is the next. */
			EXPECT_THAT(!memcmp(self->vcpu->run->mmio.data,
					    self->regs.zmm[half / 2 % 16] + half % 2 * 8, 8),
				    "store %u: XMM%u, half %u, by an exit", half / 2,
				    half / 2 % 16, half % 2);
			half++;
		}
	} while (self->vcpu->run->exit_reason == KVM_EXIT_MMIO && !_metadata->exit_code);
	xf_kill(_metadata, hog);
	EXPECT_SAME(STORES * 2, half, "halves of stores");
	EXPECT_THAT(self->vcpu->run->exit_reason == KVM_EXIT_IO, "the last exit: %s",
		    exit_reason_str(self->vcpu->run->exit_reason));
	expect_xregs(_metadata, self->vcpu, &self->regs, self->mask, "stores");
}

XSTATE_HARNESS_MAIN
