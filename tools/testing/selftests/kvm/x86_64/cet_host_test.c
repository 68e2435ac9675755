// SPDX-License-Identifier: GPL-2.0-only
/*
 * A host process that has CET and AMX state of its own while it runs a guest:
 * a user shadow stack, and live tiles. KVM_RUN swaps CET_USER and the tiles
 * with those of the guest, and must give both sides back what they had.
 */
#include <pthread.h>

#include "xstate_cet_guest.h"

#ifndef ARCH_SHSTK_ENABLE
#define ARCH_SHSTK_ENABLE	0x5001
#define ARCH_SHSTK_DISABLE	0x5002
#define ARCH_SHSTK_SHSTK	1
#endif

FIXTURE(cet_host) {
	struct xcomp x;
	struct kvm_vcpu *vcpu;
	uint64_t taint;
};

FIXTURE_VARIANT(cet_host) {
	const char *name;
};

FIXTURE_SETUP(cet_host)
{
	self->taint = xf_taint();
	ASSERT_TRUE(xstate_begin(&self->x, variant->name));
	if (self->x.amx && !self->x.have_amx)
		SKIP(return, "no AMX on this machine");
	if (!xstate_refuses_msrs())
		SKIP(return, "ignore_msrs hides what is refused");
	self->vcpu = xstate_guest(&self->x, guest_exits_code);
	guest_begin(&self->x, self->vcpu, 0);
	ASSERT_TRUE(xstate_fill(&self->x, 0));
}

FIXTURE_TEARDOWN(cet_host)
{
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
	EXPECT_FALSE(xstate_warned(self->taint));
}

XSTATE_VARIANT(cet_host, none_noamx_cet);
XSTATE_VARIANT(cet_host, host_noamx_cet);
XSTATE_VARIANT(cet_host, both_amx_cet);

/* What the host process has live while it serves the guest, and its verdict */
struct host {
	struct xcomp *x;
	struct kvm_vcpu *vcpu;
	bool no_shstk;
	bool tiles_kept;
	bool ssp_kept;
	bool guest_kept;
};

static u64 host_ssp(void)
{
	u64 ssp = 0;

	/* rdsspq %rax does nothing without a shadow stack. */
	asm volatile(".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8" : "+a" (ssp));
	return ssp;
}

/* Return from here with a wrong shadow stack pointer, and the process ends. */
static noinline void host_serves(struct host *h)
{
	static u8 config[XSTATE_TILECFG_SIZE], config_back[XSTATE_TILECFG_SIZE];
	static u8 tiles[XSTATE_TILES_SIZE], tiles_back[XSTATE_TILES_SIZE];
	u64 ssp = host_ssp();
	unsigned int i;

	if (h->x->host_granted) {
		for (i = 0; i < sizeof(tiles); i++)
			tiles[i] = i * 11 + 1;
		xstate_tile_config(config);
		xstate_ldtilecfg(config);
		xstate_load_tiles(tiles);
	}
	xstate_run(h->vcpu, UCALL_SYNC);
	use_kernel_fpu();
	xstate_run(h->vcpu, UCALL_SYNC);
	h->guest_kept = xstate_cet_kept(h->x, 0, "KVM_RUN by a busy host");
	h->guest_kept &= xstate_fill(h->x, 5);
	xstate_run(h->vcpu, UCALL_DONE);

	h->tiles_kept = true;
	if (h->x->host_granted) {
		xstate_sttilecfg(config_back);
		xstate_store_tiles(tiles_back);
		xstate_tilerelease();
		h->tiles_kept = !memcmp(config, config_back, sizeof(config)) &&
				!memcmp(tiles, tiles_back, sizeof(tiles));
	}
	h->ssp_kept = ssp && ssp == host_ssp();
}

/* Not a function: none may return that began without a shadow stack. */
#define host_shstk(option)						\
({									\
	long ret = SYS_arch_prctl;					\
									\
	asm volatile("syscall" : "+a" (ret)				\
		     : "D" ((long)(option)), "S" ((long)ARCH_SHSTK_SHSTK) \
		     : "rcx", "r11", "memory");				\
	ret;								\
})

static void *host_thread(void *arg)
{
	struct host *h = arg;

	h->no_shstk = host_shstk(ARCH_SHSTK_ENABLE);
	if (h->no_shstk)
		return NULL;
	host_serves(h);
	host_shstk(ARCH_SHSTK_DISABLE);
	return NULL;
}

/*
 * Verify that a host thread with a shadow stack of its own, and with live tiles
 * if it may, keeps both over KVM_RUN, and so does the guest with its CET.
 */
TEST_F(cet_host, own_state)
{
	struct host h = { .x = &self->x, .vcpu = self->vcpu };
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, host_thread, &h));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	if (h.no_shstk)
		SKIP(return, "no shadow stacks for user space");
	EXPECT_TRUE(h.guest_kept);
	EXPECT_TRUE(h.tiles_kept);
	EXPECT_TRUE(h.ssp_kept);
}

int main(int argc, char **argv)
{
	return xstate_main(argc, argv);
}
