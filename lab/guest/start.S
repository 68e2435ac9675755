/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Boot sector of the lab: enter a Linux kernel that is in memory already.
 *
 * The emulator preloads the kernel, the initramfs and the command line; the
 * firmware loads this sector and knows the memory map.  Fetch the map (INT 15h,
 * E820), switch to flat 32-bit protected mode and jump to ENTRY.
 *
 * Two protocols, chosen by PVH:
 *   1  PVH (include/xen/interface/hvm/start_info.h): EBX = struct hvm_start_info
 *   0  32-bit boot protocol (Documentation/arch/x86/boot.rst): ESI = struct
 *      boot_params at ZEROPAGE, preloaded except for the memory map
 *
 * Symbols given by the build: PVH, ENTRY, CMDLINE, INITRD, INITRD_SIZE.
 */
	.code16
	.globl	_start

	/* 4 KiB of low memory that the firmware leaves alone. */
	.set	ZEROPAGE, 0x8000
	.if	PVH
	.set	MAP, 0x9000			/* struct hvm_memmap_table_entry */
	.set	MAP_STRIDE, 24
	.else
	.set	MAP, ZEROPAGE + 0x2d0		/* boot_params.e820_table */
	.set	MAP_STRIDE, 20
	.endif
	.set	MAP_MAX, 64

_start:
	cli
	cld
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp

	.if	PVH == 0
	/* boot_params is preloaded above 1 MiB, where the firmware never writes. */
	movw	$copy_params, %bp
	jmp	to_flat
copy_params:
	.code32
	movl	$PARAMS, %esi
	movl	$ZEROPAGE, %edi
	movl	$1024, %ecx
	rep movsl
	/* Back to real mode for the firmware call. */
	ljmp	$0x20, $1f
1:
	.code16
	movl	%cr0, %eax
	andb	$0xfe, %al
	movl	%eax, %cr0
	ljmp	$0, $2f
2:
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	.endif

	xorl	%ebx, %ebx
	movw	$MAP, %di
	xorw	%si, %si
next:
	movl	$0xe820, %eax
	movl	$0x534d4150, %edx		/* "SMAP" */
	movl	$20, %ecx
	int	$0x15
	jc	mapped
	addw	$MAP_STRIDE, %di
	incw	%si
	cmpw	$MAP_MAX, %si
	jae	mapped
	testl	%ebx, %ebx
	jnz	next
mapped:
	movzwl	%si, %esi
	.if	PVH
	movl	%esi, map_entries
	.else
	movl	%esi, %eax
	movb	%al, ZEROPAGE + 0x1e8		/* boot_params.e820_entries */
	.endif

	cli
	movw	$enter, %bp
to_flat:
	inb	$0x92, %al			/* A20 */
	orb	$2, %al
	andb	$0xfe, %al
	outb	%al, $0x92
	lgdt	gdt_ptr
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmp	$0x10, $flat
	.code32
flat:
	movw	$0x18, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	xorl	%eax, %eax
	movw	%bp, %ax
	jmp	*%eax

enter:
	.if	PVH
	movl	$start_info, %ebx
	.else
	movl	$ZEROPAGE, %esi
	.endif
	xorl	%ebp, %ebp
	xorl	%edi, %edi
	movl	$ENTRY, %eax
	jmp	*%eax

	.balign	8
gdt:						/* __BOOT_CS 0x10, __BOOT_DS 0x18 */
	.quad	0, 0
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
	.quad	0x00009b000000ffff		/* 16-bit code, for the way back */
gdt_ptr:
	.word	. - gdt - 1
	.long	gdt

	.if	PVH
	.balign	8
start_info:
	.long	0x336ec578			/* XEN_HVM_START_MAGIC_VALUE */
	.long	1				/* version: with memory map */
	.long	0				/* flags */
	.long	1				/* nr_modules */
	.long	modlist, 0
	.quad	CMDLINE
	.quad	0				/* rsdp_paddr: found by scanning */
	.quad	MAP
map_entries:
	.long	0
	.long	0
modlist:
	.quad	INITRD
	.quad	INITRD_SIZE
	.quad	0, 0
	.endif

	.org	510
	.word	0xaa55
