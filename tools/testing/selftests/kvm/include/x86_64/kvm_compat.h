/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The selftests library and the headers of Linux 7.x and of 6.12, made to look
 * alike. The newer names are the ones to use.
 */
#ifndef SELFTEST_KVM_COMPAT_H
#define SELFTEST_KVM_COMPAT_H

#include "kvm_util.h"
#include "processor.h"

/* The split-off of kvm_syscalls.h is the sign of the newer library. */
#if !__has_include("kvm_syscalls.h")
#define gva_t		vm_vaddr_t
#define vm_alloc_page	vm_vaddr_alloc_page
#define vm_get_pte	vm_get_page_table_entry
#endif

/* 7.x: registers of the guest that are no MSRs, for KVM_{GET,SET}_ONE_REG */
#ifndef KVM_X86_REG_KVM
#define KVM_X86_REG_MSR(index)	(0x2030000200000000ull | (index))
#define KVM_X86_REG_KVM(index)	(0x2030000300000000ull | (index))
#define KVM_REG_GUEST_SSP	0
#endif

#ifndef CP_VECTOR
#define CP_VECTOR	21
#endif
#ifndef X86_CR4_CET
#define X86_CR4_CET		BIT(23)
#endif
#ifndef X86_FEATURE_AMX_BF16
#define X86_FEATURE_AMX_BF16	KVM_X86_CPU_FEATURE(0x7, 0, EDX, 22)
#endif
#ifndef X86_FEATURE_AMX_INT8
#define X86_FEATURE_AMX_INT8	KVM_X86_CPU_FEATURE(0x7, 0, EDX, 25)
#endif
#ifndef X86_FEATURE_FRED
#define X86_FEATURE_FRED	KVM_X86_CPU_FEATURE(0x7, 1, EAX, 17)
#endif
#ifndef X86_FEATURE_APX
#define X86_FEATURE_APX		KVM_X86_CPU_FEATURE(0x7, 1, EDX, 21)
#endif
#ifndef X86_FEATURE_XSAVEC
#define X86_FEATURE_XSAVEC	KVM_X86_CPU_FEATURE(0xD, 1, EAX, 1)
#endif

#endif /* SELFTEST_KVM_COMPAT_H */
