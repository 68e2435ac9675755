/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * MSRs of the host, as the msr driver shows them to root.
 */
#ifndef SELFTEST_KVM_HOST_MSR_H
#define SELFTEST_KVM_HOST_MSR_H

#include "xregs.h"

/* Stay on this CPU and open its MSRs; -1 where that cannot be done. */
int host_msr_open(int flags);
/*
 * @msr of this task.  A task that is preempted inside of the driver goes on there
 * without its own, so that one reading proves nothing: this is what was read three
 * times in a row.  The test has failed if there is no such value.
 */
u64 host_msr_read(struct __test_metadata *const _metadata, int fd, u32 msr);
/* For the same reason, write @msr until it reads back. */
void host_msr_write(struct __test_metadata *const _metadata, int fd, u32 msr, u64 value);

/*
 * The host keeps its IA32_S_CET over KVM_RUN of guests with other values, none
 * of which switches anything on.  If it does not, a guest with shadow stacks in
 * its kernel is the end of the host: then do not go on, nor where it cannot be
 * told, which is a SKIP.
 */
bool expect_host_keeps_s_cet(struct __test_metadata *const _metadata,
			     const struct xstate_combo *combo);

#endif /* SELFTEST_KVM_HOST_MSR_H */
