// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest that runs a guest: what KVM can only do right if the CPU does.
 */
#include "cpu_guest.h"

#define CR4_VMXE		BIT(13)

#define MSR_FEATURE_CONTROL	0x3a
#define MSR_VMX_BASIC		0x480

#define VMXON_REGION		OWN_LARGE_PAGE
#define VMCS			(OWN_LARGE_PAGE + 0x1000)
#define MSR_AREA		(OWN_LARGE_PAGE + 0x2000)

#define EXIT_VMCALL		18
#define TSC_OFFSET		BIT(40)

static GUEST void write_vmcs(__u64 field, __u64 value)
{
	asm volatile("vmwrite %1, %0" : : "r" (field), "r" (value) : "cc", "memory");
}

static GUEST __u64 read_vmcs(__u64 field)
{
	__u64 value;

	asm volatile("vmread %1, %0" : "=r" (value) : "r" (field) : "cc");
	return value;
}

static GUEST __u64 rdtsc(void)
{
	__u32 lo, hi;

	asm volatile("rdtsc" : "=a" (lo), "=d" (hi) : : "memory");
	return lo | (__u64)hi << 32;
}

/* Have the inner guest be what the outer one is, and the outer one after a VM exit too. */
static GUEST void put_state(void)
{
	/* ES, CS, SS, DS, FS, GS, LDTR (not usable), TR */
	static const __u32 rights[] = {
		0xc093, 0xa09b, 0xc093, 0xc093, 0xc093, 0xc093, 0x10000, 0x8b
	};
	__u64 cr[3], i;

	asm volatile("mov %%cr0, %0\n\tmov %%cr3, %1\n\tmov %%cr4, %2"
		     : "=r" (cr[0]), "=r" (cr[1]), "=r" (cr[2]));
	for (i = 0; i < 3; i++) {
		write_vmcs(0x6800 + 2 * i, cr[i]);
		write_vmcs(0x6c00 + 2 * i, cr[i]);
	}
	for (i = 0; i < 8; i++) {
		write_vmcs(0x800 + 2 * i, i == 1 ? 8 : 16);
		write_vmcs(0x4800 + 2 * i, i == 7 ? 0x67 : 0xffffffff);
		write_vmcs(0x4814 + 2 * i, rights[i]);
		if (i < 7)			/* the host has no LDTR there */
			write_vmcs(0xc00 + 2 * i, i == 1 ? 8 : 16);
	}
	write_vmcs(0x6814, TSS);
	write_vmcs(0x6c0a, TSS);
	write_vmcs(0x4810, GDT_LIMIT);
	write_vmcs(0x6816, GDT);
	write_vmcs(0x6c0c, GDT);
	write_vmcs(0x4812, 0xfff);
	write_vmcs(0x6818, IDT);
	write_vmcs(0x6c0e, IDT);
	write_vmcs(0x6820, BIT(1));		/* RFLAGS */
	write_vmcs(0x2800, ~0ULL);			/* VMCS link pointer */
	write_vmcs(0x4000, (__u32)rdmsr(MSR_VMX_BASIC + 1));
	write_vmcs(0x4002, (__u32)rdmsr(MSR_VMX_BASIC + 2));
	write_vmcs(0x400c, (__u32)rdmsr(MSR_VMX_BASIC + 3) | BIT(9));	/* 64-bit host */
	write_vmcs(0x4012, (__u32)rdmsr(MSR_VMX_BASIC + 4) | BIT(9));	/* 64-bit guest */
}

static GUEST void guest_tsc_store(void)
{
	__u64 vmxon = VMXON_REGION, vmcs = VMCS;
	__u64 *msr = (__u64 *)MSR_AREA;

	wrmsr(MSR_FEATURE_CONTROL, BIT(0) | BIT(2));
	*(__u32 *)VMXON_REGION = rdmsr(MSR_VMX_BASIC);
	*(__u32 *)VMCS = rdmsr(MSR_VMX_BASIC);
	asm volatile("vmxon %0\n\tvmclear %1\n\tvmptrld %1"
		     : : "m" (vmxon), "m" (vmcs) : "cc", "memory");
	put_state();
	write_vmcs(0x4002, read_vmcs(0x4002) | BIT(3));	/* use TSC offsetting */
	write_vmcs(0x2010, TSC_OFFSET);
	msr[0] = 0x10;					/* IA32_TIME_STAMP_COUNTER */
	write_vmcs(0x400e, 1);				/* VM-exit MSR-store count */
	write_vmcs(0x2006, MSR_AREA);
	guest.out[0] = rdtsc();
	asm volatile("vmwrite %%rsp, %[host_rsp]\n\t"
		     "lea 2f(%%rip), %%rax\n\tvmwrite %%rax, %[host_rip]\n\t"
		     "lea 1f(%%rip), %%rax\n\tvmwrite %%rax, %[rip]\n\t"
		     "vmlaunch\n\tjmp 2f\n"
		     "1:\tvmcall\n2:"
		     : : [host_rsp] "r" (0x6c14UL), [host_rip] "r" (0x6c16UL), [rip] "r" (0x681eUL)
		     : "rax", "cc", "memory");
	guest.out[1] = rdtsc();
	guest.out[2] = msr[1];
	guest.out[3] = read_vmcs(0x4402);			/* exit reason */
}

/*
 * Verify that the TSC which a VM exit stores is that of the host, without TSC offset: KVM
 * has the CPU store it for a guest that runs a guest and asks for it.
 */
static void test_tsc_store(void)
{
	__u64 *out;

	setup();
	if (!(cpuid_entry(1, 0)->ecx & BIT(5)))
		skip("no VMX in guests");
	out = run_guest_cr4(guest_tsc_store, CR4_VMXE);
	check_eq(out[3], EXIT_VMCALL, "exit reason of the inner guest");
	check(out[2] > out[0] && out[2] < out[1],
	      "TSC at the VM exit: wanted %#llx to %#llx, got %#llx", out[0], out[1], out[2]);
}

static const struct cpu_test guest_nested_tests_list[] = {
	{ "tsc_store", "Linux, nested_vmx_get_vmexit_msr_value() of KVM", test_tsc_store },
};

TEST_GROUP(guest_nested_tests);
