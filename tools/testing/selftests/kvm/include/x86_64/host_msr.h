/* SPDX-License-Identifier: GPL-2.0-only */
/* MSRs of the host, and whether it is safe to give a guest supervisor shadow stacks */
#ifndef SELFTEST_KVM_HOST_MSR_H
#define SELFTEST_KVM_HOST_MSR_H

#include "xregs.h"

int host_msr_open(int flags);
u64 host_msr_read(struct __test_metadata *const _metadata, int fd, u32 msr);
void host_msr_write(struct __test_metadata *const _metadata, int fd, u32 msr, u64 value);
bool expect_host_keeps_s_cet(struct __test_metadata *const _metadata,
			     const struct xstate_combo *combo);

#endif /* SELFTEST_KVM_HOST_MSR_H */
