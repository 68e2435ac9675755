// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET of the supervisor of a guest: CR4.CET, indirect branches, shadow stack.
 */
#include "cpu_guest.h"

#define S_CET_ENDBR_EN		BIT(2)
#define S_CET_NO_TRACK_EN	BIT(4)

#define CP_NEAR_RET	1
#define CP_ENDBRANCH	3
#define CP_SETSSBSY	5

static int has_shstk(void)
{
	return cpuid_entry(7, 0)->ecx >> 7 & 1;
}

static int has_ibt(void)
{
	return cpuid_entry(7, 0)->edx >> 20 & 1;
}

static GUEST __u64 read_cr4(void)
{
	__u64 value;

	asm volatile("mov %%cr4, %0" : "=r" (value));
	return value;
}

static GUEST __u64 read_cr0(void)
{
	__u64 value;

	asm volatile("mov %%cr0, %0" : "=r" (value));
	return value;
}

static GUEST void guest_cet_wp(void)
{
	asm volatile("mov %0, %%cr0" : : "r" (read_cr0() & ~CR0_WP) : "memory");
	TRY("mov %[v], %%cr4", [v] "r" (read_cr4() | CR4_CET));
	guest.out[0] = fault.vector;
	asm volatile("mov %0, %%cr0" : : "r" (read_cr0() | CR0_WP) : "memory");
	TRY("mov %[v], %%cr4", [v] "r" (read_cr4() | CR4_CET));
	guest.out[1] = fault.vector;
	guest.out[2] = read_cr4() & CR4_CET;
	TRY("mov %[v], %%cr0", [v] "r" (read_cr0() & ~CR0_WP));
	guest.out[3] = fault.vector;
	guest.out[4] = read_cr0() & CR0_WP;
}

/* Verify that CR4.CET and CR0.WP can only be set in that order. */
static void test_cet_wp(void)
{
	__u64 *out;

	setup();
	if (!has_shstk() && !has_ibt())
		skip("no CET in guests");
	out = run_guest(guest_cet_wp);
	check_eq(out[0], GP_VECTOR, "vector of setting CR4.CET, CR0.WP 0");
	check_eq(out[1], NO_FAULT, "vector of setting CR4.CET, CR0.WP 1");
	check_eq(out[2], CR4_CET, "CR4.CET");
	check_eq(out[3], GP_VECTOR, "vector of clearing CR0.WP, CR4.CET 1");
	check_eq(out[4], CR0_WP, "CR0.WP");
}

#define TRY_JUMP(jump, target)							\
	TRY("lea 2f(%%rip), %%r10\n\tmov %%r10, %[to]\n\t" jump " *%%r10\n\t"	\
	    "ud2\n2:\t" target, [to] "m" (guest.out[79]))

static GUEST void guest_ibt(void)
{
	fault.clear_s_cet = 1;
	asm volatile("mov %0, %%cr4" : : "r" (read_cr4() | CR4_CET) : "memory");
	wrmsr(MSR_S_CET, S_CET_ENDBR_EN);
	TRY_JUMP("jmp", "endbr64");
	guest.out[0] = fault.vector;
	TRY_JUMP("jmp", "nop");
	guest.out[1] = fault.vector;
	guest.out[2] = fault.error;
	guest.out[3] = fault.rip - guest.out[79];
	wrmsr(MSR_S_CET, S_CET_ENDBR_EN);
	TRY_JUMP("notrack jmp", "nop");
	guest.out[4] = fault.vector;
	wrmsr(MSR_S_CET, S_CET_ENDBR_EN | S_CET_NO_TRACK_EN);
	TRY_JUMP("notrack jmp", "nop");
	guest.out[5] = fault.vector;
	TRY("ud2", "r" (0));
	guest.out[6] = fault.vector;
	wrmsr(MSR_S_CET, 0);
	TRY_JUMP("jmp", "nop");
	guest.out[7] = fault.vector;
}

/* Verify that with IBT an indirect jump must end at ENDBR64. */
static void test_ibt(void)
{
	__u64 *out;

	setup();
	if (!has_ibt())
		skip("no IBT in guests");
	out = run_guest(guest_ibt);
	check_eq(out[0], NO_FAULT, "vector of a jump to ENDBR64");
	check_eq(out[1], CP_VECTOR, "vector of a jump to another instruction");
	check_eq(out[2], CP_ENDBRANCH, "error code of #CP");
	check_eq(out[3], 0, "distance of RIP to the target");
	check_eq(out[4], CP_VECTOR, "vector of a NOTRACK jump, NO_TRACK_EN 0");
	check_eq(out[5], NO_FAULT, "vector of a NOTRACK jump, NO_TRACK_EN 1");
	check_eq(out[6], UD_VECTOR, "vector of UD2, IBT on");
	check_eq(out[7], NO_FAULT, "vector of a jump, IBT off");
}

static GUEST void guest_shadow_stack_on(void)
{
	fault.clear_s_cet = 1;
	asm volatile("mov %0, %%cr4" : : "r" (read_cr4() | CR4_CET) : "memory");
	wrmsr(MSR_PL0_SSP, TOKEN);
}

static GUEST void guest_good_return(void)
{
	guest_shadow_stack_on();
	guest_call(guest.out);
	guest.out[4] = load(TOKEN);
	guest.out[5] = load(TOKEN - 8);
}

static void need_shstk(void)
{
	if (!has_shstk())
		skip("no shadow stack in guests");
}

/* Verify that SETSSBSY takes the token, and that CALL and RET move SSP. */
static void test_shadow_stack(void)
{
	__u64 *out;

	setup();
	need_shstk();
	out = run_guest(guest_good_return);
	check_eq(out[0], TOKEN, "SSP after SETSSBSY");
	check_eq(out[1], TOKEN - 8, "SSP in the function");
	check_eq(out[2], TOKEN, "SSP after the return");
	check_eq(out[4], TOKEN | 1, "token, busy now");
	check_eq(out[5], out[3], "return address on the shadow stack");
}

static GUEST void guest_wrong_return(void)
{
	guest_shadow_stack_on();
	fault.vector = NO_FAULT;
	guest_bad_return(guest.out);
	guest.out[1] = fault.vector;
	guest.out[2] = fault.error;
	guest.out[3] = fault.rip;
}

/* Verify that a RET to another address than the shadow stack's raises #CP. */
static void test_bad_return(void)
{
	__u64 *out;

	setup();
	need_shstk();
	out = run_guest(guest_wrong_return);
	check_eq(out[1], CP_VECTOR, "vector of RET");
	check_eq(out[2], CP_NEAR_RET, "error code of #CP");
	check_eq(out[3], out[0], "RIP of #CP: the RET");
}

static GUEST void guest_busy_token(void)
{
	guest_shadow_stack_on();
	/* The first SETSSBSY gives the fault of the second one a shadow stack. */
	TRY("mov %[s_cet], %%ecx\n\tmov $1, %%eax\n\txor %%edx, %%edx\n\twrmsr\n\tsetssbsy\n\t"
	    "mov %[ssp], %%ecx\n\tmov %[busy], %%eax\n\twrmsr\n\tsetssbsy",
	    [s_cet] "i" (MSR_S_CET), [ssp] "i" (MSR_PL0_SSP), [busy] "i" (BUSY_TOKEN),
	    "a" (0), "c" (0), "d" (0));
	guest.out[0] = fault.vector;
	guest.out[1] = fault.error;
	guest.out[2] = load(TOKEN);
}

/* Verify that SETSSBSY refuses a token that is busy already. */
static void test_busy_token(void)
{
	struct vm vm;
	__u64 *out;

	setup();
	need_shstk();
	vm = start(guest_busy_token, 0, 0);
	*(__u64 *)(vm.memory + BUSY_TOKEN) = BUSY_TOKEN | 1;
	check_eq(enter(&vm), PORT_DONE, "port");
	out = ((struct guest *)in_guest(&vm, &guest))->out;
	check_eq(out[0], CP_VECTOR, "vector of SETSSBSY");
	check_eq(out[1], CP_SETSSBSY, "error code of #CP");
	check_eq(out[2], TOKEN | 1, "token of the first SETSSBSY");
}

static const struct cpu_test guest_cet_tests_list[] = {
	{ "cr4_cet_wp", "Intel SDM vol. 3, Control Registers (CR4.CET)", test_cet_wp },
	{ "ibt_jump", "Intel SDM vol. 1, Indirect Branch Tracking", test_ibt },
	{ "shadow_stack_call", "Intel SDM vol. 1, Shadow Stacks", test_shadow_stack },
	{ "shadow_stack_bad_return", "Intel SDM vol. 3, Control Protection Exception (#CP)",
	  test_bad_return },
	{ "shadow_stack_busy_token", "Intel SDM vol. 2, SETSSBSY", test_busy_token },
};

TEST_GROUP(guest_cet_tests);
