// SPDX-License-Identifier: GPL-2.0-only
/*
 * CET of the supervisor of a guest: CR4.CET, indirect branches, shadow stack.
 */
#include "cpu_guest.h"

#define S_CET_ENDBR_EN		BIT(2)
#define S_CET_NO_TRACK_EN	BIT(4)

#define MSR_SSP_TABLE	0x6a8

#define INT_VECTOR	31		/* in cpu_guest.S too */

/* A table of shadow stacks for interrupts, of which the first is in use */
#define SSP_TABLE	0x22000UL
#define IST_STACK	0x14000UL
#define IST_TOKEN	(SHADOW_STACK + 0x400)

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

/* Run @vm up to its next exit, and then another guest. */
static void enter_two(struct vm *vm, struct vm *other)
{
	check_eq(enter(vm), PORT_SYNC, "port");
	check_eq(enter(other), PORT_SYNC, "port of another guest");
}

static GUEST void guest_s_cet(void)
{
	wrmsr(MSR_S_CET, guest.in);
	guest_sync();
	guest.out[0] = rdmsr(MSR_S_CET);
}

/* Verify that two guests that run in turn have an IA32_S_CET each. */
static void test_switch_s_cet(void)
{
	struct vm vms[2];
	int i;

	setup();
	need_shstk();
	for (i = 0; i < 2; i++) {
		vms[i] = start(guest_s_cet, 0, 0);
		/* WRSS is allowed, were there a shadow stack. */
		((struct guest *)in_guest(&vms[i], &guest))->in = i ? 0 : BIT(1);
	}
	enter_two(&vms[0], &vms[1]);
	for (i = 0; i < 2; i++) {
		check_eq(enter(&vms[i]), PORT_DONE, "port");
		check_eq(((struct guest *)in_guest(&vms[i], &guest))->out[0], i ? 0 : BIT(1),
			 "IA32_S_CET after another guest's");
	}
}

static GUEST void guest_switch_call(void)
{
	guest_shadow_stack_on();
	wrmsr(MSR_PL0_SSP, guest.in);
	guest_call_sync(guest.out);
}

/* Verify that two guests that run in turn have an SSP each. */
static void test_switch_ssp(void)
{
	static const __u64 tokens[] = { TOKEN, IST_TOKEN };
	struct vm vms[2];
	__u64 *out;
	int i;

	setup();
	need_shstk();
	for (i = 0; i < 2; i++) {
		vms[i] = start(guest_switch_call, 0, 0);
		((struct guest *)in_guest(&vms[i], &guest))->in = tokens[i];
		*(__u64 *)(vms[i].memory + tokens[i]) = tokens[i];
	}
	enter_two(&vms[0], &vms[1]);
	for (i = 0; i < 2; i++) {
		check_eq(enter(&vms[i]), PORT_DONE, "port");
		out = ((struct guest *)in_guest(&vms[i], &guest))->out;
		check_eq(out[0], tokens[i] - 8, "SSP in the function, after another guest's");
		check_eq(out[1], tokens[i], "SSP after the return");
	}
}

static GUEST void guest_switch_table(void)
{
	guest_shadow_stack_on();
	wrmsr(MSR_SSP_TABLE, SSP_TABLE);
	guest_int_sync(guest.out);
	guest.out[2] = load(IST_TOKEN);
	guest.out[3] = load(IST_TOKEN - 24);
}

/*
 * Verify that an interrupt with a stack of its own takes its shadow stack from the table,
 * and gives it back, after an exit and a run of another guest.
 */
static void test_switch_ssp_table(void)
{
	__u64 *out, *gate, handler = (__u64)guest_int_entry;
	struct vm vm, none;

	setup();
	need_shstk();
	vm = start(guest_switch_table, 0, 0);
	none = start(guest_s_cet, 0, 0);
	gate = (__u64 *)(vm.memory + IDT) + 2 * INT_VECTOR;
	gate[0] = (handler & 0xffff) | 8 << 16 | 0x8e01ULL << 32 | (handler >> 16 & 0xffff) << 48;
	gate[1] = handler >> 32;
	memcpy(vm.memory + TSS_IST1, &(__u64){ IST_STACK }, 8);
	*(__u64 *)(vm.memory + SSP_TABLE + 8) = IST_TOKEN;
	*(__u64 *)(vm.memory + IST_TOKEN) = IST_TOKEN;
	enter_two(&vm, &none);
	check_eq(enter(&vm), PORT_DONE, "port");
	out = ((struct guest *)in_guest(&vm, &guest))->out;
	check_eq(out[0], TOKEN, "SSP after an exit");
	check_eq(out[1], TOKEN, "SSP after the handler");
	check_eq(out[2], IST_TOKEN, "token, not busy any more");
	check_eq(out[3], TOKEN, "SSP that the interrupt saved");
}

static const struct cpu_test guest_cet_tests_list[] = {
	{ "cr4_cet_wp", "Intel SDM vol. 3, Control Registers (CR4.CET)", test_cet_wp },
	{ "ibt_jump", "Intel SDM vol. 1, Indirect Branch Tracking", test_ibt },
	{ "shadow_stack_call", "Intel SDM vol. 1, Shadow Stacks", test_shadow_stack },
	{ "shadow_stack_bad_return", "Intel SDM vol. 3, Control Protection Exception (#CP)",
	  test_bad_return },
	{ "shadow_stack_busy_token", "Intel SDM vol. 2, SETSSBSY", test_busy_token },
	{ "switch_s_cet", "AMD64 manual vol. 2, VMRUN Instruction; Intel SDM vol. 3, Loading MSRs",
	  test_switch_s_cet },
	{ "switch_ssp", "AMD64 manual vol. 2, VMRUN Instruction; Intel SDM vol. 3, Loading MSRs",
	  test_switch_ssp },
	{ "switch_ssp_table", "AMD64 manual vol. 2, Shadow Stack Switching; Layout of VMCB",
	  test_switch_ssp_table },
};

TEST_GROUP(guest_cet_tests);
