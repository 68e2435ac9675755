// SPDX-License-Identifier: GPL-2.0-only
/* MSRs of the host, as the msr driver shows them to root: see host_msr.h. */
#include "host_msr.h"
#include "host_task.h"

/* How often to read or write before the driver counts as one that loses values */
#define TRIES	60

/* Stay on this CPU and open its MSRs; -1 where that cannot be done. */
int host_msr_open(int flags)
{
	int cpu = host_pin(), fd;
	char path[32];

	if (cpu < 0)
		return -1;
	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
	fd = open(path, flags | O_CLOEXEC);
	/* libkvm takes an EACCES that is left over for the reason of its next failure. */
	errno = 0;
	return fd;
}

/*
 * @msr of this task.  A task that is preempted inside of the driver goes on there
 * without its own, so that one reading proves nothing: this is what was read three
 * times in a row.  The test has failed if there is no such value.
 */
u64 host_msr_read(struct __test_metadata *const _metadata, int fd, u32 msr)
{
	u64 value = 0, last = ~0ull;
	int i, same = 0;

	for (i = 0; i < TRIES && same < 3; i++) {
		if (!EXPECT_THAT(pread(fd, &value, sizeof(value), msr) == sizeof(value),
				 "reading %s of the host: %s", msr_name(msr), strerror(errno)))
			return 0;
		same = value == last ? same + 1 : 1;
		last = value;
	}
	EXPECT_THAT(same == 3, "%s of the host is never the same three times in a row",
		    msr_name(msr));
	return value;
}

/* For the same reason, write @msr until it reads back. */
void host_msr_write(struct __test_metadata *const _metadata, int fd, u32 msr, u64 value)
{
	int i;

	for (i = 0; i < TRIES; i++) {
		ASSERT_EQ(sizeof(value), pwrite(fd, &value, sizeof(value), msr))
			TH_ROW_LOG("writing %s: %s", msr_name(msr), strerror(errno));
		if (host_msr_read(_metadata, fd, msr) == value)
			return;
	}
	EXPECT_SAME(value, host_msr_read(_metadata, fd, msr), "%s back in user space",
		    msr_name(msr));
}

/*
 * The host keeps its IA32_S_CET over KVM_RUN of guests with other values, none
 * of which switches anything on.  If it does not, a guest with shadow stacks in
 * its kernel is the end of the host: then do not go on, nor where it cannot be
 * told, which is a SKIP.
 */
bool expect_host_keeps_s_cet(struct __test_metadata *const _metadata,
			     const struct xstate_combo *combo)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u64 before, value;
	int fd, i;

	fd = host_msr_open(O_RDONLY);
	if (fd < 0)
		SKIP(return false, "no /dev/cpu/N/msr");
	vcpu = xstate_new_vcpu(&vm, combo);
	before = host_msr_read(_metadata, fd, MSR_IA32_S_CET);
	for (i = 0; i < 2 && vcpu_has_cet_msr(vcpu, MSR_IA32_S_CET); i++) {
		value = i ? 0 : vcpu_has_ibt(vcpu) ? CET_SUPPRESS_DISABLE : CET_WRSS_EN;
		vcpu_set_msr(vcpu, MSR_IA32_S_CET, value);
		xstate_run_without_memory(_metadata, vcpu);
		EXPECT_SAME(before, host_msr_read(_metadata, fd, MSR_IA32_S_CET),
			    "IA32_S_CET of the host after KVM_RUN with %#lx", value);
	}
	kvm_vm_free(vm);
	close(fd);
	return !_metadata->exit_code;
}
