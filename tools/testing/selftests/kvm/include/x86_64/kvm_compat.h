/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The selftests library of Linux 7.x and that of 6.12, made to look alike. The
 * newer names are the ones to use.
 */
#ifndef SELFTEST_KVM_COMPAT_H
#define SELFTEST_KVM_COMPAT_H

#include "kvm_util.h"
#include "processor.h"

/* The split-off of kvm_syscalls.h is the sign of the newer library. */
#if !__has_include("kvm_syscalls.h")
#define gva_t		vm_vaddr_t
#define gpa_t		vm_paddr_t
#define vm_alloc	vm_vaddr_alloc
#define vm_alloc_page	vm_vaddr_alloc_page
#define vm_alloc_pages	vm_vaddr_alloc_pages
#define vm_get_pte	vm_get_page_table_entry
#endif

#endif /* SELFTEST_KVM_COMPAT_H */
