/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest side of the CPU self-test that C cannot express: exception entries,
 * which start with ENDBR64 so that supervisor IBT may be on, code that calls
 * and returns while the supervisor shadow stack is on, and code that loads RFLAGS.
 *
 * The offsets into struct fault and the ports are checked by cpu_guest.c.
 */
#define FAULT_RESUME	0
#define FAULT_VECTOR	8
#define FAULT_ERROR	16
#define FAULT_RIP	24
#define FAULT_ADDRESS	32
#define FAULT_CLEAR	40

#define MSR_S_CET	0x6a2
#define INT_VECTOR	31

	.text

	/* 32 entries, 16 bytes apart. */
	.globl	guest_vectors
	.balign	16
guest_vectors:
	vector = 0
	.rept	32
	.balign	16
	endbr64
	.if	((0x60227d00 >> vector) & 1) == 0	/* no error code */
	push	$0
	.endif
	push	$vector
	jmp	guest_fault
	vector = vector + 1
	.endr

/*
 * Note the fault and go on at fault.resume with the stack pointer of the
 * interrupted code. There is no IRET: it would want a matching shadow stack.
 */
guest_fault:
	push	%rax
	push	%rcx
	push	%rdx
	mov	24(%rsp), %rax
	mov	%rax, fault + FAULT_VECTOR
	mov	32(%rsp), %rax
	mov	%rax, fault + FAULT_ERROR
	mov	40(%rsp), %rax
	mov	%rax, fault + FAULT_RIP
	mov	%cr2, %rax
	mov	%rax, fault + FAULT_ADDRESS
	cmpq	$0, fault + FAULT_CLEAR
	je	1f
	mov	$MSR_S_CET, %ecx
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
1:	mov	fault + FAULT_RESUME, %r11
	test	%r11, %r11
	jz	2f
	pop	%rdx
	pop	%rcx
	pop	%rax
	mov	40(%rsp), %rsp
	jmp	*%r11
2:	out	%al, $0xe1		/* not expected */
	jmp	2b

	/*
	 * A handler of #DE that may be copied elsewhere: note in guest_de the stack
	 * pointer here and the one in the frame, count, and skip a DIV.
	 */
	.globl	guest_de_entry, guest_de_end
guest_de_entry:
	push	%rax
	lea	8(%rsp), %rax
	mov	%rax, guest_de
	mov	32(%rsp), %rax
	mov	%rax, guest_de + 8
	incq	guest_de + 16
	pop	%rax
	addq	$2, (%rsp)
	iretq
guest_de_end:

	/* A handler of an interrupt: count in guest_irqs. */
	.globl	guest_irq
guest_irq:
	incq	guest_irqs
	iretq

	/* Where a guest function returns to. */
	.globl	guest_exit
guest_exit:
	out	%al, $0xe0
	jmp	guest_exit

/*
 * guest_popf(rflags), guest_iret(rflags): load RFLAGS by POPF or, at the same
 * privilege level, by IRET.
 */
	.globl	guest_popf, guest_iret
guest_popf:
	push	%rdi
	popfq
	ret

guest_iret:
	pop	%rax
	mov	%rsp, %rcx
	push	$16
	push	%rcx
	push	%rdi
	push	$8
	push	%rax
	iretq

/*
 * guest_user_iret(rip, rflags), guest_user_sysret(rip, rflags): execute code of the user,
 * with the stack pointer as it is here, up to a fault or to SYSCALL.
 */
	.globl	guest_user_iret, guest_user_sysret, guest_user_end
guest_user_iret:
	movq	$guest_user_end, fault + FAULT_RESUME
	mov	%rsp, %rcx
	push	$0x1b
	push	%rcx
	push	%rsi
	push	$0x23
	push	%rdi
	iretq

guest_user_sysret:
	movq	$guest_user_end, fault + FAULT_RESUME
	mov	%rdi, %rcx
	mov	%rsi, %r11
	sysretq

guest_user_end:
	movq	$0, fault + FAULT_RESUME
	ret

	/* Eight bytes to be copied to a page of the user: load ES, return by a fault. */
	.globl	guest_user_code
guest_user_code:
	mov	%eax, %es
	ud2
	.balign	8

.macro write_s_cet value
	mov	$MSR_S_CET, %ecx
	mov	$\value, %eax
	xor	%edx, %edx
	wrmsr
.endm

/*
 * guest_call(out): with the shadow stack on, note SSP before a call, in the
 * called function and after it, and the address the call returns to.
 */
	.globl	guest_call
guest_call:
	write_s_cet 1
	setssbsy
	rdsspq	%rax
	mov	%rax, (%rdi)
	call	1f
0:	rdsspq	%rax
	mov	%rax, 16(%rdi)
	lea	0b(%rip), %rax
	mov	%rax, 24(%rdi)
	write_s_cet 0
	ret
1:	rdsspq	%rax
	mov	%rax, 8(%rdi)
	ret

/*
 * guest_call_sync(out): exit in a function called with the shadow stack on, note SSP
 * there and after the return. guest_int_sync(out): exit and note SSP, before an interrupt
 * and after it, whose handler is guest_int_entry.
 */
	.globl	guest_call_sync, guest_int_sync, guest_int_entry
guest_call_sync:
	write_s_cet 1
	setssbsy
	call	1f
	rdsspq	%rax
	mov	%rax, 8(%rdi)
	write_s_cet 0
	ret
1:	out	%al, $0xe2
	rdsspq	%rax
	mov	%rax, (%rdi)
	ret

guest_int_sync:
	write_s_cet 1
	setssbsy
	out	%al, $0xe2
	rdsspq	%rax
	mov	%rax, (%rdi)
	int	$INT_VECTOR
	rdsspq	%rax
	mov	%rax, 8(%rdi)
	write_s_cet 0
	ret
guest_int_entry:
	iretq

/*
 * guest_bad_return(out): with the shadow stack on, return to another address
 * than the call left there, and note where that RET is.
 */
	.globl	guest_bad_return
guest_bad_return:
	lea	1f(%rip), %rax
	mov	%rax, (%rdi)
	lea	2f(%rip), %rax
	mov	%rax, fault + FAULT_RESUME
	write_s_cet 1
	setssbsy
	call	0f
	nop
0:	lea	3f(%rip), %rax
	mov	%rax, (%rsp)
1:	ret
2:	add	$8, %rsp		/* the RET faulted */
3:	write_s_cet 0
	movq	$0, fault + FAULT_RESUME
	ret

	.section .note.GNU-stack, "", @progbits
