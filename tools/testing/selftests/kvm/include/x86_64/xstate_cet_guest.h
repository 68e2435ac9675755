/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Guest code that reads and writes the CET MSRs of its vCPU, and what the host
 * tells it about them.
 *
 * No guest switches branch tracking on: the exception entry of libkvm has no
 * ENDBR.
 */
#ifndef SELFTEST_KVM_XSTATE_CET_GUEST_H
#define SELFTEST_KVM_XSTATE_CET_GUEST_H

#include "xstate_util.h"

/* Values that the MSRs refuse even where the guest has them */
static const struct {
	uint32_t msr;
	uint64_t value;
} cet_bad_values[] = {
	{ XF_MSR_U_CET, XF_BIT(6) },	{ XF_MSR_U_CET, XF_BIT(7) },
	{ XF_MSR_U_CET, XF_BIT(8) },	{ XF_MSR_U_CET, XF_BIT(9) },
	{ XF_MSR_S_CET, XF_BIT(6) },	{ XF_MSR_S_CET, XF_BIT(7) },
	{ XF_MSR_S_CET, XF_BIT(8) },	{ XF_MSR_S_CET, XF_BIT(9) },
	/* The tracker can not both wait and be suppressed. */
	{ XF_MSR_U_CET, XF_BIT(10) | XF_BIT(11) },
	{ XF_MSR_S_CET, XF_BIT(10) | XF_BIT(11) },
	/* Not aligned, or not canonical */
	{ XF_MSR_PL0_SSP, 0x1001 },	{ XF_MSR_PL0_SSP, 0x1002 },
	{ XF_MSR_PL1_SSP, 0x1001 },	{ XF_MSR_PL1_SSP, 0x1002 },
	{ XF_MSR_PL2_SSP, 0x1003 },	{ XF_MSR_PL2_SSP, 0x1002 },
	{ XF_MSR_PL3_SSP, 0x1001 },	{ XF_MSR_PL3_SSP, 0x1002 },
	{ XF_MSR_PL0_SSP, XF_BIT(63) },	{ XF_MSR_PL1_SSP, XF_BIT(63) },
	{ XF_MSR_PL2_SSP, XF_BIT(63) },	{ XF_MSR_PL3_SSP, XF_BIT(63) },
	{ XF_MSR_INT_SSP_TAB, XF_BIT(63) },
};

/* A CET MSR of a guest, with the vector that access to it raises, or 0 */
struct guest_msr {
	u32 index;
	u8 vector;
	u64 value[2];
};

/* What a guest does, and how far it got */
struct guest {
	struct guest_msr msrs[ARRAY_SIZE(xcomp_cet_msrs)];
	u64 cr4_cet;
	u64 loops;
	u32 stop;
	u8 config[XSTATE_TILECFG_SIZE];
	u8 config_back[XSTATE_TILECFG_SIZE];
	u8 tiles[XSTATE_TILES_SIZE];
	u8 tiles_back[XSTATE_TILES_SIZE];
};

static struct guest guests[2];

static inline void guest_read(const struct guest *g, int set, const char *when)
{
	const struct guest_msr *m;
	u64 value;
	u8 vector;

	for (m = g->msrs; m < g->msrs + ARRAY_SIZE(g->msrs); m++) {
		value = m->value[set];
		vector = rdmsr_safe(m->index, &value);
		__GUEST_ASSERT(vector == m->vector,
			       "RDMSR of %x %s: wanted vector %u got %u",
			       m->index, when, m->vector, vector);
		__GUEST_ASSERT(vector || value == m->value[set],
			       "MSR %x lost %s: wanted %lx got %lx", m->index,
			       when, m->value[set], value);
	}
}

static inline void guest_write(const struct guest *g, int set)
{
	const struct guest_msr *m;
	u8 vector;

	for (m = g->msrs; m < g->msrs + ARRAY_SIZE(g->msrs); m++) {
		vector = wrmsr_safe(m->index, m->value[set]);
		__GUEST_ASSERT(vector == m->vector,
			       "WRMSR of %x: wanted vector %u got %u",
			       m->index, m->vector, vector);
	}
}

static inline void guest_check_tiles(struct guest *g, const char *when)
{
	unsigned int i;

	xstate_sttilecfg(g->config_back);
	for (i = 0; i < sizeof(g->config); i++)
		__GUEST_ASSERT(g->config[i] == g->config_back[i],
			       "XTILE_CFG lost %s: byte %u wanted %u got %u",
			       when, i, g->config[i], g->config_back[i]);
	xstate_store_tiles(g->tiles_back);
	for (i = 0; i < sizeof(g->tiles); i++)
		__GUEST_ASSERT(g->tiles[i] == g->tiles_back[i],
			       "XTILE_DATA lost %s: byte %u wanted %u got %u",
			       when, i, g->tiles[i], g->tiles_back[i]);
}

/*
 * Write what is bad whatever CPUID says. The address of the legacy bitmap must
 * be canonical as well, which is the CPU's to say: it lets the guest write.
 */
static inline void guest_write_bad(const struct guest *g)
{
	unsigned int i;
	u8 vector;

	for (i = 0; i < ARRAY_SIZE(cet_bad_values); i++) {
		vector = wrmsr_safe(cet_bad_values[i].msr,
				    cet_bad_values[i].value);
		__GUEST_ASSERT(vector == GP_VECTOR,
			       "WRMSR of %lx to %x: wanted #GP got %u",
			       cet_bad_values[i].value, cet_bad_values[i].msr,
			       vector);
	}
	vector = wrmsr_safe(XF_MSR_U_CET, XF_BIT(63));
	__GUEST_ASSERT(vector == GP_VECTOR,
		       "WRMSR of a bad bitmap to IA32_U_CET: wanted #GP got %u",
		       vector);
	vector = wrmsr_safe(XF_MSR_S_CET, XF_BIT(63));
	__GUEST_ASSERT(vector == GP_VECTOR,
		       "WRMSR of a bad bitmap to IA32_S_CET: wanted #GP got %u",
		       vector);
	guest_read(g, 0, "by a WRMSR that raised #GP");
}

/* Tell guest @nr what its MSRs hold, and return where the host finds it. */
static inline struct guest *guest_begin(struct xcomp *x,
					struct kvm_vcpu *vcpu, int nr)
{
	struct guest *g = addr_gva2hva(vcpu->vm, (gva_t)&guests[nr]);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(g->msrs); i++) {
		g->msrs[i].index = xcomp_cet_msrs[i];
		g->msrs[i].vector = xcomp_has_msr(x, xcomp_cet_msrs[i]) ?
				    0 : GP_VECTOR;
		g->msrs[i].value[0] = xstate_msr_value(x, xcomp_cet_msrs[i],
						       nr);
		g->msrs[i].value[1] = xstate_msr_value(x, xcomp_cet_msrs[i],
						       nr + 5);
	}
	g->cr4_cet = x->shstk_on || x->ibt_on ? XSTATE_CR4_CET : 0;
	xstate_tile_config(g->config);
	for (i = 0; i < sizeof(g->tiles); i++)
		g->tiles[i] = i * 7 + i / 256 + nr + 1;
	vcpu_args_set(vcpu, 1, nr);
	return g;
}

/* The guest of a host that reads, and at last writes, between the exits */
static inline void guest_exits_code(int nr)
{
	struct guest *g = &guests[nr];

	guest_read(g, 0, "on the way in");
	guest_write(g, 1);
	GUEST_SYNC(0);
	guest_read(g, 1, "over an exit");
	guest_write(g, 0);
	GUEST_SYNC(1);
	guest_read(g, 1, "by KVM_SET_MSRS");
	GUEST_DONE();
}

/* A running guest of a combination; what a fixture of it consists of */
struct cet_guest {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	struct guest *guest;
	uint64_t taint;
};

static inline void cet_guest_set_up(struct __test_metadata *_metadata,
				    struct cet_guest *f, const char *name,
				    void *code)
{
	f->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(&f->x, name));
	if (f->x.amx && !f->x.have_amx)
		SKIP(return, "no AMX on this machine");
	if (!xkvm_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	f->vcpu = xstate_guest(&f->x, code);
	f->guest = guest_begin(&f->x, f->vcpu, 0);
	ASSERT_TRUE(xstate_fill(&f->x, 0));
}

static inline void cet_guest_tear_down(struct __test_metadata *_metadata,
				       struct cet_guest *f)
{
	if (f->vcpu)
		kvm_vm_free(f->vcpu->vm);
	EXPECT_FALSE(xstate_warned(f->taint));
}

/* Have the kernel use the FPU on this CPU: it hashes what it is given. */
static inline void use_kernel_fpu(void)
{
	static const char text[256];
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		TEST_ASSERT_EQ(write(fd, text, sizeof(text)), sizeof(text));
		close(fd);
	}
}

#endif /* SELFTEST_KVM_XSTATE_CET_GUEST_H */
