// SPDX-License-Identifier: GPL-2.0-only
/*
 * SMAP in a guest: the supervisor's accesses to a page of the user, each after
 * others, since what one of them may do must not hold for the next.
 */
#include "cpu_guest.h"

#define RFLAGS_FIXED	BIT(1)
#define RFLAGS_AC	BIT(18)

/* A GDT that ends in the user page: there is its descriptor number 5. */
#define USER_GDT	(USER_PAGE - 5 * 8)
#define USER_LAST	(5 << 3 | 3)
#define USER_RIP	(USER_PAGE + 0x100)

static GUEST void stac(void)
{
	asm volatile("stac" : : : "memory", "cc");
}

static GUEST void store_qword(__u64 address, __u64 value)
{
	asm volatile("mov %1, (%0)" : : "r" (address), "r" (value) : "memory");
}

static GUEST void clac(void)
{
	asm volatile("clac" : : : "memory", "cc");
}

/* What a load, a store and both in one raise. */
static GUEST void try_access(__u64 *out)
{
	TRY("mov (%[p]), %%r10", [p] "r" (USER_PAGE));
	out[0] = fault.vector;
	out[1] = fault.error;
	TRY("movb $1, (%[p])", [p] "r" (USER_PAGE));
	out[2] = fault.vector;
	out[3] = fault.error;
	TRY("lock incl (%[p])", [p] "r" (USER_PAGE));
	out[4] = fault.vector;
	out[5] = fault.error;
}

static void check_access(const __u64 *out, int denied, const char *when)
{
	static const char *const names[] = { "load", "store", "increment" };
	__u64 vector = denied ? PF_VECTOR : NO_FAULT;
	__u64 error;
	int i;

	for (i = 0; i < 3; i++) {
		check(out[2 * i] == vector, "%s, %s: vector wanted %#llx, got %#llx",
		      names[i], when, vector, out[2 * i]);
		if (!denied)
			continue;
		error = i ? 3 : 1;
		check(out[2 * i + 1] == error, "%s, %s: error code wanted %#llx, got %#llx",
		      names[i], when, error, out[2 * i + 1]);
	}
}

static __u64 *run_smap(void (*fn)(void))
{
	setup();
	if (!(cpuid_entry(7, 0)->ebx & BIT(20)))
		skip("no SMAP in guests");
	return run_guest_cr4(fn, CR4_SMAP);
}

static GUEST void guest_stac(void)
{
	try_access(guest.out);
	stac();
	try_access(guest.out + 6);
	clac();
	try_access(guest.out + 12);
	stac();
	TRY("ud2", "r" (0));		/* delivery leaves AC as it is */
	try_access(guest.out + 18);
	guest_sync();
	try_access(guest.out + 24);
	clac();
	guest_sync();
	try_access(guest.out + 30);
}

/* Verify that RFLAGS.AC as STAC and CLAC leave it permits or denies the access. */
static void test_stac(void)
{
	__u64 *out = run_smap(guest_stac);

	check_access(out, 1, "AC clear from the start");
	check_access(out + 6, 0, "after STAC");
	check_access(out + 12, 1, "after CLAC");
	check_access(out + 18, 0, "after STAC and an exception");
	check_access(out + 24, 0, "AC set, after a VM exit");
	check_access(out + 30, 1, "AC clear, after a VM exit");
}

static GUEST void guest_rflags(void)
{
	guest_popf(RFLAGS_FIXED | RFLAGS_AC);
	try_access(guest.out);
	guest_popf(RFLAGS_FIXED);
	try_access(guest.out + 6);
	guest_iret(RFLAGS_FIXED | RFLAGS_AC);
	try_access(guest.out + 12);
	guest_iret(RFLAGS_FIXED);
	try_access(guest.out + 18);
}

/* Verify the same where POPF and IRET change RFLAGS.AC. */
static void test_rflags(void)
{
	__u64 *out = run_smap(guest_rflags);

	check_access(out, 0, "after POPF that sets AC");
	check_access(out + 6, 1, "after POPF that clears AC");
	check_access(out + 12, 0, "after IRET that sets AC");
	check_access(out + 18, 1, "after IRET that clears AC");
}

static GUEST void write_cr4(__u64 set, __u64 clear)
{
	__u64 cr4;

	asm volatile("mov %%cr4, %0" : "=r" (cr4));
	asm volatile("mov %0, %%cr4" : : "r" ((cr4 | set) & ~clear) : "memory");
}

static GUEST void guest_cr4_smap(void)
{
	write_cr4(0, CR4_SMAP);
	try_access(guest.out);
	write_cr4(CR4_SMAP, 0);
	try_access(guest.out + 6);
	stac();
	try_access(guest.out + 12);
	write_cr4(0, CR4_SMAP);
	clac();
	try_access(guest.out + 18);
	stac();
	write_cr4(CR4_SMAP, 0);
	clac();
	try_access(guest.out + 24);
}

/* Verify that CR4.SMAP holds from the instruction on that sets it, up to its end. */
static void test_cr4_smap(void)
{
	__u64 *out = run_smap(guest_cr4_smap);

	check_access(out, 0, "SMAP off");
	check_access(out + 6, 1, "SMAP on again");
	check_access(out + 12, 0, "SMAP on again, after STAC");
	check_access(out + 18, 0, "SMAP off, after CLAC");
	check_access(out + 24, 1, "SMAP on while AC was set, after CLAC");
}

static GUEST void guest_smap_pkru(void)
{
	stac();
	wrpkru(2);
	try_access(guest.out);
	wrpkru(0);
	try_access(guest.out + 30);
	clac();
	wrpkru(4);			/* no key of the page */
	try_access(guest.out + 6);
	wrpkru(2);
	stac();
	try_access(guest.out + 12);
	wrpkru(0);
	try_access(guest.out + 18);
	wrpkru(1);
	try_access(guest.out + 24);
}

/* Verify that PKRU denies what SMAP does not, and that it grants nothing. */
static void test_smap_pkru(void)
{
	__u64 *out;

	setup();
	if (!(cpuid_entry(7, 0)->ecx & BIT(3)))
		skip("no protection keys in guests");
	out = run_smap(guest_smap_pkru);
	check_eq(out[0], NO_FAULT, "vector of a load, AC set, WD");
	check_eq(out[2], PF_VECTOR, "vector of a store, AC set, WD");
	check_eq(out[3], 0x23, "error code of a store, AC set, WD");
	check_eq(out[4], PF_VECTOR, "vector of an increment, AC set, WD");
	check_access(out + 30, 0, "AC set, PKRU 0 again");
	check_access(out + 6, 1, "AC clear, other keys disabled");
	check_eq(out[12], NO_FAULT, "vector of a load, WD set while AC was clear");
	check_eq(out[14], PF_VECTOR, "vector of a store, WD set while AC was clear");
	check_eq(out[15], 0x23, "error code of a store, WD set while AC was clear");
	check_access(out + 18, 0, "AC set, PKRU 0");
	check_eq(out[24], PF_VECTOR, "vector of a load, AC set, AD");
	check_eq(out[25], 0x21, "error code of a load, AC set, AD");
}

/* Let #PF change to a stack of its own. */
static GUEST void use_fault_stack(void)
{
	store_qword(TSS_IST1, STACK_TOP - 0x1000);
	asm volatile("movb $1, 4(%0)" : : "r" (IDT + 16 * PF_VECTOR) : "memory");
}

static GUEST void guest_stack(void)
{
	use_fault_stack();
	stac();
	TRY("mov %%rsp, %%r10\n\tmov %[p], %%rsp\n\t"
	    "push %%r10\n\tpop %%r10\n\tpush %%r10\n"
	    "1:\tmov %%r10, %%rsp", [p] "r" (USER_PAGE + 0x800));
	guest.out[0] = fault.vector;
	TRY("mov %%rsp, %%r10\n\tmov %[p], %%rsp\n\t"
	    "push %%r10\n\tclac\n\tpush %%r10\n"
	    "1:\tmov %%r10, %%rsp", [p] "r" (USER_PAGE + 0x800));
	guest.out[1] = fault.vector;
	guest.out[2] = fault.error;
	guest.out[3] = fault.address;
	stac();
	TRY("mov %%rsp, %%r10\n\tmov %[p], %%rsp\n\t"
	    "push %%r10\n\tpush %%r10\n\tclac\n\tpop %%r11\n"
	    "1:\tmov %%r10, %%rsp", [p] "r" (USER_PAGE + 0x800));
	guest.out[4] = fault.vector;
	guest.out[5] = fault.error;
}

/* Verify that SMAP covers pushes and pops too, right after others that it let pass. */
static void test_stack(void)
{
	__u64 *out = run_smap(guest_stack);

	check_eq(out[0], NO_FAULT, "vector of pushes, AC set");
	check_eq(out[1], PF_VECTOR, "vector of a push after CLAC");
	check_eq(out[2], 3, "error code of a push after CLAC");
	check_eq(out[3], USER_PAGE + 0x800 - 16, "CR2 of a push after CLAC");
	check_eq(out[4], PF_VECTOR, "vector of a pop after CLAC");
	check_eq(out[5], 1, "error code of a pop after CLAC");
}

static GUEST void guest_pkru_stack(void)
{
	use_fault_stack();
	TRY("mov %%rsp, %%r10\n\tmov %[p], %%rsp\n\t"
	    "push %%r10\n\tpush %%r10\n\twrpkru\n\tpush %%r10\n"
	    "1:\tmov %%r10, %%rsp",
	    [p] "r" (USER_PAGE + 0x800), "a" (2), "c" (0), "d" (0));
	guest.out[0] = fault.vector;
	guest.out[1] = fault.error;
}

/* Verify that PKRU covers a push right after one that it let pass. */
static void test_pkru_stack(void)
{
	__u64 *out;

	setup();
	if (!(cpuid_entry(7, 0)->ecx & BIT(3)))
		skip("no protection keys in guests");
	out = run_guest(guest_pkru_stack);
	check_eq(out[0], PF_VECTOR, "vector of a push after WRPKRU, WD");
	check_eq(out[1], 0x23, "error code of a push after WRPKRU, WD");
}

static GUEST void guest_implicit(void)
{
	__u16 gdtr[5] = { 6 * 8 - 1, USER_GDT & 0xffff, USER_GDT >> 16 };
	int i;

	stac();
	store_qword(USER_GDT, 0);
	store_qword(USER_GDT + 8, 0x00af9b000000ffff);		/* 64-bit code */
	store_qword(USER_GDT + 16, 0x00cf93000000ffff);		/* data */
	store_qword(USER_GDT + 24, 0x00cff3000000ffff);		/* data of the user */
	store_qword(USER_GDT + 32, 0x00affb000000ffff);		/* 64-bit code of the user */
	store_qword(USER_PAGE, 0x00cff3000000ffff);
	store_qword(USER_RIP, load((__u64)guest_user_code));
	store_qword(TSS_RSP0, STACK_TOP - 0x1000);
	asm volatile("lgdt %0" : : "m" (gdtr));
	/* The first time the fetch may cause a VM exit, and with it a TLB flush. */
	for (i = 0; i < 2; i++) {
		stac();
		guest.out[4] = load(USER_PAGE);
		TRY("mov %%rsp, %%r10\n\tpush %[ss]\n\tpush %%r10\n\tpush %[rflags]\n\t"
		    "push %[cs]\n\tpush %[rip]\n\tiretq\n"
		    "1:\tmov %%r10, %%rsp",
		    "a" (USER_LAST), [ss] "i" (USER_SS), [cs] "i" (USER_CS),
		    [rflags] "r" (RFLAGS_FIXED | guest.in), [rip] "r" (USER_RIP));
	}
	guest.out[0] = fault.vector;
	guest.out[1] = fault.error;
	guest.out[2] = fault.address;
	guest.out[3] = fault.rip;
}

/*
 * Verify that the load of a descriptor in user mode is an access of the supervisor
 * to its page, and one that RFLAGS.AC of the user does not permit.
 */
static void test_implicit(void)
{
	__u64 *out;
	int i;

	for (i = 0; i < 2; i++) {
		guest.in = i ? RFLAGS_AC : 0;
		out = run_smap(guest_implicit);
		check_eq(out[4], 0x00cff3000000ffff, "the descriptor");
		check_eq(out[3], USER_RIP, "RIP of the fault");
		check_eq(out[0], PF_VECTOR, "vector of MOV to ES");
		check_eq(out[1], 1, "error code of MOV to ES");
		check_eq(out[2], USER_PAGE, "CR2 of MOV to ES");
	}
	out = run_guest(guest_implicit);
	check_eq(out[0], UD_VECTOR, "vector after MOV to ES, no SMAP");
}

static const struct cpu_test guest_smap_tests_list[] = {
	{ "smap_stac", "Intel SDM vol. 3, Determination of Access Rights", test_stac },
	{ "smap_rflags", "Intel SDM vol. 3, Determination of Access Rights", test_rflags },
	{ "smap_cr4", "Intel SDM vol. 3, Determination of Access Rights", test_cr4_smap },
	{ "smap_pkru", "Intel SDM vol. 3, Protection Keys", test_smap_pkru },
	{ "smap_stack", "Intel SDM vol. 3, Determination of Access Rights", test_stack },
	{ "smap_implicit", "Intel SDM vol. 3, Determination of Access Rights",
	  test_implicit },
	{ "pkru_stack", "Intel SDM vol. 3, Protection Keys", test_pkru_stack },
};

TEST_GROUP(guest_smap_tests);
