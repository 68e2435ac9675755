/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checks of the registers of a guest that stay in the CPU for too long, or are
 * in memory when KVM changes IA32_XFD.
 */
#ifndef SELFTESTS_X86_XSTATE_TASK_GUEST_H
#define SELFTESTS_X86_XSTATE_TASK_GUEST_H

#include "xcomp_guest.h"
#include "xcomp_regs.h"
#include "xcomp_uffd.h"

#define TASK_MSR_XFD		0x1c4
#define TASK_FEP		"/sys/module/kvm/parameters/force_emulation_prefix"

/* "ud2; kvm", with which KVM emulates what follows, and a WRMSR cut in two */
#define TASK_GUEST_CODE		(XCOMP_PAGE - 6)

/*
 * Verify that nothing of a guest's CET_KERNEL is left in the CPU once its vCPU
 * is: no host task has that component, and none may find it there.
 */
static inline int task_check_guest_ssp(struct xcomp *x)
{
	uint64_t value;
	char path[32];
	int cpu, fd, i, result;
	bool ok;

	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (!xcomp_offers_shstk())
		return xcomp_skip(x, "no guest shadow stacks");
	cpu = xcomp_pin();
	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return xcomp_skip(x, "no /dev/cpu/N/msr");
	x->shstk = true;
	result = xcomp_vcpu(x);
	if (result)
		return result;
	ok = xcomp_write_msrs(x);
	ok &= xkvm_run_immediate_exit(x->kvm, x->vcpu);
	for (i = XF_MSR_PL0_SSP; i <= XF_MSR_PL2_SSP; i++) {
		if (pread(fd, &value, 8, i) != 8)
			return xcomp_error(x, "reading a CET MSR");
		ok &= xcomp_same(x, xf_msr_name(i), 0, value);
	}
	return xcomp_verdict(xcomp_rule(x, ok,
		"the host runs without its guests' CET_KERNEL"));
}

static inline bool task_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) > 0;

	if (fd >= 0)
		close(fd);
	return done;
}

/*
 * Let KVM emulate a WRMSR of which the second half is in a page that is not
 * there: KVM sleeps, with the guest's registers saved to memory, and changes
 * IA32_XFD only then.
 */
static inline int task_run_disarming(struct xcomp *x, struct xcomp_away *a)
{
	static const uint8_t code[] = { 0x0f, 0x0b, 'k', 'v', 'm', 0x0f };
	struct kvm_userspace_memory_region more = {
		.slot = 1, .guest_phys_addr = XCOMP_PAGE,
		.memory_size = XCOMP_PAGE,
		.userspace_addr = (unsigned long)a->page,
	};
	struct kvm_regs regs = {
		.rip = TASK_GUEST_CODE, .rcx = TASK_MSR_XFD,
		.rax = XF_BIT(XF_XTILE_DATA), .rflags = 2,
	};
	struct xcomp_guest g;
	char before[8] = "";

	if (!xcomp_guest_start(x, &g) ||
	    ioctl(x->vm, KVM_SET_USER_MEMORY_REGION, &more) ||
	    ioctl(x->vcpu, KVM_SET_REGS, &regs) || !xcomp_wait_for_fault(a))
		return xcomp_error(x, "setting up a guest");
	memcpy(g.memory + TASK_GUEST_CODE, code, sizeof(code));
	a->content[0] = 0x30;
	a->content[1] = XCOMP_GUEST_HLT;
	if (xf_read_file(TASK_FEP, before, sizeof(before)) <= 0 ||
	    !task_write_file(TASK_FEP, "1"))
		return xcomp_skip(x, "no forced emulation");
	if (ioctl(x->vcpu, KVM_RUN, 0) || ioctl(x->vcpu, KVM_GET_REGS, &regs))
		return xcomp_error(x, "KVM_RUN");
	task_write_file(TASK_FEP, before);
	return xcomp_verdict(xcomp_same(x, "KVM waited for the instruction",
					true, xcomp_was_waited_for(a)) &
			     xcomp_same(x, "where the guest stopped",
					XCOMP_PAGE + 2, regs.rip));
}

/*
 * Verify that a guest which disarms AMX while its registers are in memory loses
 * its tiles at most, and that the host can load what is left.
 */
static inline int task_check_xfd_asleep(struct xcomp *x)
{
	static struct xcomp_away away;
	uint8_t *buf, *got, *tile, *page;
	uint64_t bv, xfd;
	int result;
	bool ok;

	if (!x->have_amx)
		return xcomp_skip(x, XCOMP_NO_AMX);
	if (!xcomp_open_kvm(x))
		return KSFT_SKIP;
	if (xcomp_guest_missing())
		return xcomp_skip(x, xcomp_guest_missing());
	page = mmap(NULL, XCOMP_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || !xcomp_watch(&away, page))
		return xcomp_skip(x, "no userfaultfd");
	x->amx = true;
	if (!xcomp_request(x, true))
		return KSFT_FAIL;
	result = xcomp_vcpu(x);
	if (result)
		return result;
	if (!(xkvm_cpuid(x->cpuid, 0xd, 1).eax & XCOMP_CPUID_D_1_EAX_XFD))
		return xcomp_skip(x, "KVM offers no XFD");
	buf = xcomp_tile_state(x, &tile);
	memset(buf + XCOMP_XMM_OFFSET, 0x3c, XCOMP_XMM_SIZE);
	if (!xkvm_set_xcr0(x->vcpu, xcomp_guest_xcr0(x)) ||
	    ioctl(x->vcpu, KVM_SET_XSAVE, buf))
		return xcomp_error(x, "setting up a tile");
	result = task_run_disarming(x, &away);
	if (result)
		return result;

	got = xf_guarded(xcomp_xsave_size(x), 0);
	ok = !ioctl(x->vcpu, KVM_GET_XSAVE2, got);
	memcpy(&bv, got + XF_HEADER_OFFSET, sizeof(bv));
	ok &= xcomp_same(x, "XTILE_DATA in use", 0,
			 bv & XF_BIT(XF_XTILE_DATA));
	ok &= xcomp_same_bytes(x, "XMM", "of a guest that disarmed AMX",
			       buf + XCOMP_XMM_OFFSET, got + XCOMP_XMM_OFFSET,
			       XCOMP_XMM_SIZE);
	ok &= xkvm_get_msr(x->vcpu, TASK_MSR_XFD, &xfd);
	ok &= xcomp_same(x, "IA32_XFD", XF_BIT(XF_XTILE_DATA), xfd);
	return xcomp_verdict(xcomp_rule(x, ok,
		"a guest can disarm AMX whether its registers are loaded or not"));
}

#endif /* SELFTESTS_X86_XSTATE_TASK_GUEST_H */
