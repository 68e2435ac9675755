// SPDX-License-Identifier: GPL-2.0-only
/*
 * Protection keys and 5-level paging in a guest, and the host after it; what counts as
 * canonical where an address goes into a register.
 */
#include "cpu_guest.h"

#define CR4_FSGSBASE		BIT(16)

static void need_pku(void)
{
	if (!(cpuid_entry(7, 0)->ecx & BIT(3)))
		skip("no protection keys in guests");
}

static GUEST void guest_pkru_user(void)
{
	wrpkru(~0U);
	TRY("mov (%[p]), %%r10", [p] "r" (USER_PAGE));
	guest.out[0] = fault.vector;
	guest.out[1] = fault.error;
	guest.out[2] = fault.address;
	TRY("movb $1, (%[p])", [p] "r" (USER_PAGE));
	guest.out[3] = fault.vector;
	guest.out[4] = fault.error;
	wrpkru(2);
	TRY("mov (%[p]), %%r10", [p] "r" (USER_PAGE));
	guest.out[5] = fault.vector;
	TRY("movb $1, (%[p])", [p] "r" (USER_PAGE));
	guest.out[6] = fault.vector;
	guest.out[7] = fault.error;
	wrpkru(~3U);
	TRY("movb $1, (%[p])", [p] "r" (USER_PAGE));
	guest.out[8] = fault.vector;
}

/* Verify that PKRU holds for accesses of the supervisor to user pages. */
static void test_pkru_user(void)
{
	__u64 *out;

	setup();
	need_pku();
	out = run_guest(guest_pkru_user);
	check_eq(out[0], PF_VECTOR, "vector of a load, PKRU -1");
	check_eq(out[1], 0x21, "error code of a load, PKRU -1");
	check_eq(out[2], USER_PAGE, "CR2");
	check_eq(out[3], PF_VECTOR, "vector of a store, PKRU -1");
	check_eq(out[4], 0x23, "error code of a store, PKRU -1");
	check_eq(out[5], NO_FAULT, "vector of a load, WD");
	check_eq(out[6], PF_VECTOR, "vector of a store, WD");
	check_eq(out[7], 0x23, "error code of a store, WD");
	check_eq(out[8], NO_FAULT, "vector of a store, other keys disabled");
}

static GUEST void guest_pkru_supervisor(void)
{
	__u64 i;

	for (i = 0; i < 4; i++) {
		wrpkru(~0U);
		guest.out[0] = i + 1;
		guest_sync();
		guest.out[1] = rdpkru();
		TRY("push %%r10\n\tpop %%r10", "r" (0));
		guest.out[2] = fault.vector;
	}
}

/* Verify that PKRU -1 of a guest leaves its supervisor pages and the host alone. */
static void test_pkru_supervisor(void)
{
	struct vm vm;
	__u64 *out, i;
	__u32 pkru;

	setup();
	need_pku();
	pkru = rdpkru();
	vm = start(guest_pkru_supervisor, 0, 0);
	out = ((struct guest *)in_guest(&vm, &guest))->out;
	for (i = 0; i < 4; i++) {
		check_eq(enter(&vm), PORT_SYNC, "port");
		check_eq(out[0], i + 1, "what the guest stored");
		check_eq(rdpkru(), pkru, "PKRU of the host");
	}
	check_eq(enter(&vm), PORT_DONE, "port");
	check_eq(out[1], ~0U, "PKRU of the guest");
	check_eq(out[2], NO_FAULT, "vector of a push to a supervisor page");
}

static GUEST void guest_width(void)
{
	for (;;) {
		TRY("mov (%[p]), %%r10", [p] "r" (BIT(48) | USER_PAGE));
		guest.out[0] = fault.vector;
		TRY("mov (%[p]), %%r10", [p] "r" (BIT(56) | USER_PAGE));
		guest.out[1] = fault.vector;
		guest_sync();
	}
}

/* The fault of a load at @address: #GP if not canonical, else #PF. */
static __u64 load_fault(__u64 address)
{
	TRY("mov (%[p]), %%r10", [p] "r" (address));
	return fault.vector;
}

/*
 * Verify that a guest with 5-level paging has 57-bit addresses, one with 4 levels
 * has 48-bit ones, in turns, and that the host keeps its own width.
 */
static void test_la57(void)
{
	__u64 *out4, *out5, width;
	struct vm vm4, vm5;
	char *page;
	int n, i;

	setup();
	if (!(cpuid_entry(7, 0)->ecx & BIT(16)))
		skip("no 5-level paging in guests");
	width = load_fault(BIT(47));
	vm4 = start(guest_width, 0, 0);
	vm5 = start(guest_width, CR4_LA57, 0);
	out4 = ((struct guest *)in_guest(&vm4, &guest))->out;
	out5 = ((struct guest *)in_guest(&vm5, &guest))->out;
	for (n = 0; n < 4; n++) {
		enter(&vm5);
		check_eq(load_fault(BIT(47)), width, "host: vector of a load at 2^47");
		check_eq(load_fault(BIT(56)), GP_VECTOR, "host: vector of a load at 2^56");
		check_eq(out5[0], NO_FAULT, "5 levels: vector of a load above 2^48");
		check_eq(out5[1], GP_VECTOR, "5 levels: vector of a load above 2^56");
		enter(&vm4);
		check_eq(out4[0], GP_VECTOR, "4 levels: vector of a load above 2^48");
		check_eq(out4[1], GP_VECTOR, "4 levels: vector of a load above 2^56");
		/* Page faults of the host walk its own tables. */
		page = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
		for (i = 0; page != MAP_FAILED && i < 64; i++)
			page[4096 * i] = i;
		check(page != MAP_FAILED && page[4096 * 63] == 63, "host: memory is not usable");
		munmap(page, 64 * 4096);
	}
}

static const __u32 address_msrs[] = { 0xc0000100, 0xc0000101, 0xc0000102, 0x175, 0x176 };
static const char *const address_names[] = {
	"FS_BASE", "GS_BASE", "KERNEL_GS_BASE", "SYSENTER_ESP", "SYSENTER_EIP", "WRFSBASE",
	"WRGSBASE", "INVPCID", "LLDT", "LGDT", "LIDT",
};

/* What LGDT and LIDT take. */
struct table {
	__u16 limit, base[4];
};

static GUEST struct table table(__u16 limit, __u64 base)
{
	return (struct table){ limit, { base, base >> 16, base >> 32, base >> 48 } };
}

/* Put guest.in into all that takes an address, most of it into what VM entry checks. */
static GUEST void guest_addresses(void)
{
	struct table gdt = table(0xfff, GDT), idt = table(0xfff, IDT);
	struct table other = table(0xfff, guest.in);
	__u64 invpcid[2] = { 0, guest.in };
	__u64 *ldt = (__u64 *)GDT + 6, *out = guest.out;
	__u32 i;

	for (i = 0; i < ARRAY_SIZE(address_msrs); i++)
		*out++ = try_wrmsr(address_msrs[i], guest.in);
	TRY("wrfsbase %[v]", [v] "r" (guest.in));
	*out++ = fault.vector;
	TRY("wrgsbase %[v]", [v] "r" (guest.in));
	*out++ = fault.vector;
	TRY("invpcid %[d], %[t]", [d] "m" (invpcid), [t] "r" (0UL));
	*out++ = fault.vector;
	ldt[0] = 0x820000000fffULL | (guest.in & 0xff000000) << 32;
	ldt[1] = guest.in >> 32;
	asm volatile("lgdt %0" : : "m" (gdt));
	TRY("lldt %[s]", [s] "r" ((__u16)(6 * 8)));
	*out++ = fault.vector;
	guest_sync();
	TRY("lgdt %[t]", [t] "m" (other));
	*out++ = fault.vector;
	guest_sync();
	asm volatile("lgdt %0" : : "m" (gdt));
	TRY("lidt %[t]", [t] "m" (other));
	*out++ = fault.vector;
	guest_sync();
	asm volatile("lidt %0" : : "m" (idt));
}

static void check_addresses(__u64 address, __u64 cr4, __u64 vector)
{
	__u64 *out;
	__u32 i;

	guest.in = address;
	out = run_guest_cr4(guest_addresses, cr4 | CR4_FSGSBASE);
	for (i = 0; i < ARRAY_SIZE(address_names); i++)
		check(out[i] == vector, "%s %#llx, CR4.LA57 %d: vector wanted %lld, got %lld",
		      address_names[i], address, !!(cr4 & CR4_LA57), vector, out[i]);
}

/*
 * Verify that registers, and VM entry with them, take addresses of the width that the CPU
 * has, whether or not the guest has 5-level paging on.
 */
static void test_addresses(void)
{
	setup();
	if (!(cpuid_entry(7, 0)->ecx & BIT(16)))
		skip("no 5-level paging in guests");
	check_addresses(BIT(55), 0, NO_FAULT);
	check_addresses(BIT(56), 0, GP_VECTOR);
	check_addresses(BIT(55), CR4_LA57, NO_FAULT);
	check_addresses(BIT(56), CR4_LA57, GP_VECTOR);
}

static GUEST void guest_sysenter(void)
{
	__u32 i;

	for (i = 0; i < 2; i++) {
		guest.out[2 * i] = try_wrmsr(0x175 + i, 0x9234567890abcdef);
		guest.out[2 * i + 1] = rdmsr(0x175 + i);
	}
	guest_sync();
	guest.out[4] = rdmsr(0x175);
}

/* Verify that AMD's CPUs keep 32 bits of SYSENTER_ESP and SYSENTER_EIP. */
static void test_amd_sysenter(void)
{
	__u64 *out;
	__u32 a, b, c, d, i;

	setup();
	__cpuid(0, a, b, c, d);
	if (b != signature_AMD_ebx)
		skip("not an AMD CPU");
	out = run_guest(guest_sysenter);
	for (i = 0; i < 2; i++) {
		check_eq(out[2 * i], NO_FAULT, i ? "vector of SYSENTER_EIP" :
			 "vector of SYSENTER_ESP");
		check_eq(out[2 * i + 1], 0x90abcdef, i ? "SYSENTER_EIP" : "SYSENTER_ESP");
	}
	check_eq(out[4], 0x90abcdef, "SYSENTER_ESP after a VM exit");
}

static const struct cpu_test guest_paging_tests_list[] = {
	{ "pkru_user_page", "Intel SDM vol. 3, Protection Keys", test_pkru_user },
	{ "pkru_supervisor_page", "Intel SDM vol. 3, Protection Keys", test_pkru_supervisor },
	{ "la57", "Intel SDM vol. 3, Loading Guest and Host Control Registers",
	  test_la57 },
	{ "canonical_registers", "Linux, max_host_virt_addr_bits() of KVM", test_addresses },
	{ "amd_sysenter_msrs", "AMD APM vol. 2, SYSENTER and SYSEXIT MSRs", test_amd_sysenter },
};

TEST_GROUP(guest_paging_tests);
