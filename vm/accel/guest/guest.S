# The guest that proves an accelerator: what an operating system's kernel needs
# in its first second, and nothing else. It is in the form of Linux's boot
# protocol, so that QEMU and its firmware start it the way they start Linux.
#
# It writes one letter to the serial port before each stage, and OK after the
# last; a stage that finds something wrong writes "!" and stops.
#
#   R real mode            L long mode with paging     C cpuid, tsc, msr, cmpxchg16b, SSE
#   X exceptions           . 4 million kernel instructions, 64 times
#   P page faults, remapping, copy on write            I timer of the board
#   T timer of the CPU, hlt   U user mode, syscalls, ticks   S second CPU, IPIs
#
# Memory: 0x10000 this header, 0x8000 start of the second CPU, 0x100000 code,
# 0x200000 page tables, 0x210000 IDT, 0x220000 TSS, 0x230000-0x280000 stacks,
# 0x280000 variables, 16 to 32 MiB pages given out by the page fault handler.
#
# Build (only to change it; the result is in git):
#   as -o guest.o guest.S && ld -Ttext 0 -e 0 -o guest.elf guest.o &&
#   objcopy -O binary -j .text guest.elf guest.bin

	.set	PML4, 0x200000
	.set	IDT, 0x210000
	.set	TSS, 0x220000
	.set	VARS, 0x280000
	.set	ticks, VARS + 0
	.set	faults, VARS + 8		# pages given out
	.set	traps, VARS + 16
	.set	shared, VARS + 24		# counted by both CPUs
	.set	alive, VARS + 32		# second CPU: 1 runs, 2 done
	.set	ipis, VARS + 40
	.set	copies, VARS + 48		# writes to read-only pages
	# VARS + 64 and + 80 are scratch
	.set	LAZY, 0x4000000000		# 16 MiB without pages
	.set	PT, PML4 + 0x7000		# page tables of LAZY
	.set	POOL, 0x1000000
	.set	APIC, 0xfee00000
	.set	APSTART, 0x8000
	.set	COM1, 0x3f8

	.macro	say letter
	mov	$\letter, %al
	call	put
	.endm
	.macro	must condition			# else the stage failed
	j\condition	99f
	jmp	bad
99:
	.endm
	.macro	gate vector, handler
	mov	$\vector, %edi
	lea	\handler(%rip), %rax
	call	setgate
	.endm

	.code16
	.org	0x1f1
	.byte	1			# sectors of real-mode code after the first
	.org	0x1fe
	.word	0xaa55
	jmp	real
	.ascii	"HdrS"
	.word	0x204			# version of the protocol
	.org	0x211
	.byte	1			# loaded high
	.org	0x22c
	.long	0x37ffffff		# highest address of an initrd
	.org	0x240
real:	cli
	cld
	movb	$'R', %al
	movw	$COM1, %dx
	outb	%al, %dx
	movw	$0x1000, %ax
	movw	%ax, %ds
	lgdtl	gdtr
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$0x18, $0x100000
	.balign 8
gdtr:	.word	gdtend - gdt - 1
	.long	gdt - payload + 0x100000

	.org	0x400
	.code32
payload:
	mov	$0x10, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	$0x240000, %esp
	mov	$PML4, %edi		# everything below POOL that is ours is zero
	xor	%eax, %eax
	mov	$0x90000 / 4, %ecx
	rep stosl
	movl	$PML4 + 0x1007, PML4
	mov	$PML4 + 0x2007, %eax	# 4 GiB, address as it is, 2 MiB pages
	mov	$PML4 + 0x1000, %edi
1:	mov	%eax, (%edi)
	add	$8, %edi
	add	$0x1000, %eax
	cmp	$PML4 + 0x6007, %eax
	jb	1b
	mov	$0x87, %eax
	mov	$PML4 + 0x2000, %edi
1:	mov	%eax, (%edi)
	add	$8, %edi
	add	$0x200000, %eax
	cmp	$PML4 + 0x6000, %edi
	jb	1b
	orl	$0x18, PML4 + 0x5000 + (APIC - 0xc0000000) / 0x200000 * 8	# uncached
	movl	$PML4 + 0x6007, PML4 + 0x1000 + 256 * 8		# LAZY
	mov	$PT + 7, %eax
	mov	$PML4 + 0x6000, %edi
1:	mov	%eax, (%edi)
	add	$8, %edi
	add	$0x1000, %eax
	cmp	$PT + 0x8007, %eax
	jb	1b
	call	tolong
	ljmp	$8, $long - payload + 0x100000

tolong:	mov	$0x620, %eax		# PAE, SSE
	mov	%eax, %cr4
	mov	$PML4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx	# EFER: long mode, syscall
	rdmsr
	or	$0x101, %eax
	wrmsr
	mov	$0x80010033, %eax	# paging, write protection for the kernel too
	mov	%eax, %cr0
	ret

	.code64
long:	mov	$0x240000, %esp
	mov	$APIC, %r14d
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	say	'L'
	mov	$255, %ebp		# every vector that is not ours is an error
1:	mov	%ebp, %edi
	lea	bad(%rip), %rax
	call	setgate
	dec	%ebp
	jns	1b
	gate	3, breakpoint
	gate	6, undefined
	gate	14, pagefault
	gate	0x20, boardtick
	gate	0x40, tick
	gate	0x41, ipi
	movl	$0x250000, TSS + 4	# stack of interrupts in user mode
	movw	$104, TSS + 102
	lidt	idtr(%rip)
	mov	$0x38, %eax
	ltr	%ax

	say	'C'
	mov	$1000, %ebp
	rdtsc
	shl	$32, %rdx
	lea	(%rax, %rdx), %r12
1:	xor	%eax, %eax
	cpuid
	cmp	$1, %eax
	must	ae
	mov	$1, %eax
	cpuid
	bt	$9, %edx		# an APIC
	must	c
	rdtsc
	shl	$32, %rdx
	add	%rdx, %rax
	cmp	%r12, %rax		# time goes on
	must	ae
	mov	%rax, %r12
	dec	%ebp
	jnz	1b
	mov	$0xc0000080, %ecx
	rdmsr
	bt	$10, %eax		# long mode is active
	must	c
	mov	$0xc0000102, %ecx	# kernel GS base
	mov	$0x12345678, %eax
	mov	%eax, %edx
	wrmsr
	xor	%eax, %eax
	rdmsr
	cmp	$0x12345678, %eax
	must	e
	mov	$VARS + 80, %edi	# what Linux's allocator uses, locked
	mov	$5, %eax
	mov	%rax, (%rdi)
	mov	%rax, 8(%rdi)
	mov	%rax, %rdx
	mov	$6, %ebx
	mov	$7, %ecx
	lock cmpxchg16b (%rdi)
	must	e
	cmpq	$7, 8(%rdi)
	must	e
	movq	%r12, %xmm0
	movdqa	%xmm0, %xmm15
	paddq	%xmm15, %xmm0
	movq	%xmm0, %rax
	shr	%rax
	shl	%r12
	shr	%r12
	cmp	%r12, %rax
	must	e

	say	'X'
	mov	$100, %ebp
1:	int3
	ud2
	dec	%ebp
	jnz	1b
	cmpq	$200, traps
	must	e

	mov	$64, %ebx
1:	mov	$500000, %ecx
2:	add	%rcx, %rax
	xor	%rax, %rdx
	mov	%rdx, VARS + 64
	add	VARS + 64, %rsi
	rol	$3, %rsi
	test	%rsi, %rsi
	dec	%ecx
	jnz	2b
	say	'.'
	dec	%ebx
	jnz	1b

	say	'P'
	mov	$LAZY, %r8
	xor	%ecx, %ecx
1:	mov	%ecx, %edi
	shl	$12, %rdi
	mov	%rcx, 8(%r8, %rdi)
	inc	%ecx
	cmp	$4096, %ecx
	jb	1b
	cmpq	$4096, faults
	must	e
	xor	%ecx, %ecx
1:	mov	%ecx, %edi
	shl	$12, %rdi
	cmp	%rcx, 8(%r8, %rdi)
	must	e
	inc	%ecx
	cmp	$4096, %ecx
	jb	1b
	xor	%ecx, %ecx		# each two pages change places, read-only
1:	mov	PT(, %rcx, 8), %rax
	mov	PT + 8(, %rcx, 8), %rdx
	and	$~2, %rax
	and	$~2, %rdx
	mov	%rdx, PT(, %rcx, 8)
	mov	%rax, PT + 8(, %rcx, 8)
	mov	%ecx, %edi
	shl	$12, %rdi
	add	%r8, %rdi
	invlpg	(%rdi)
	invlpg	4096(%rdi)
	lea	1(%ecx), %eax
	cmp	%rax, 8(%rdi)
	must	e
	cmp	%rcx, 4096 + 8(%rdi)
	must	e
	mov	%rcx, 8(%rdi)		# faults
	add	$2, %ecx
	cmp	$512, %ecx
	jb	1b
	cmpq	$256, copies
	must	e
	mov	%cr3, %rax
	mov	%rax, %cr3
	xor	%ecx, %ecx
1:	mov	%ecx, %edi
	shl	$12, %rdi
	add	%r8, %rdi
	cmp	%rcx, 8(%rdi)
	must	e
	cmp	%rcx, 4096 + 8(%rdi)
	must	e
	add	$2, %ecx
	cmp	$512, %ecx
	jb	1b

	say	'I'
	movl	$0x1ff, 0xf0(%r14)	# on
	movl	$0x700, 0x350(%r14)	# takes what the old controller says
	mov	$0x11, %al		# interrupts of the board: vectors from 0x20
	out	%al, $0x20
	out	%al, $0xa0
	mov	$0x20, %al
	out	%al, $0x21
	mov	$0x28, %al
	out	%al, $0xa1
	mov	$4, %al
	out	%al, $0x21
	mov	$2, %al
	out	%al, $0xa1
	mov	$1, %al
	out	%al, $0x21
	out	%al, $0xa1
	mov	$0xfe, %al
	out	%al, $0x21
	mov	$0xff, %al
	out	%al, $0xa1
	mov	$0x34, %al		# 1 kHz
	out	%al, $0x43
	mov	$1193 & 255, %al
	out	%al, $0x40
	mov	$1193 >> 8, %al
	out	%al, $0x40
	mov	$5, %ebx
	call	await
	mov	$0xff, %al
	out	%al, $0x21
	movl	$0x10700, 0x350(%r14)

	say	'T'
	call	clockon
	mov	$5, %ebx
	call	await

	say	'U'
	mov	$0xc0000081, %ecx	# STAR: selectors of user and kernel
	xor	%eax, %eax
	mov	$0x00230008, %edx
	wrmsr
	inc	%ecx			# LSTAR
	lea	fromuser(%rip), %rax
	xor	%edx, %edx
	wrmsr
	inc	%ecx
	inc	%ecx			# syscalls begin with interrupts off
	mov	$0x200, %eax
	wrmsr
	xor	%ebp, %ebp
	movq	$0, ticks
	lea	user(%rip), %rcx
	mov	$0x202, %r11d
	sysretq
user:	mov	$200, %ebx		# syscalls
1:	syscall
	dec	%ebx
	jnz	1b
2:	cmpq	$3, ticks		# interrupted
	jb	2b
	mov	$1, %ebx		# the last one does not come back here
	xor	%r15d, %r15d
	dec	%r15
	syscall
fromuser:
	inc	%ebp
	cmp	$-1, %r15
	je	1f
	sysretq
1:	cmp	$201, %ebp
	must	e
	mov	$0x240000, %esp

	say	'S'
	lea	apstart(%rip), %rsi
	mov	$APSTART, %edi
	mov	$apend - apstart, %ecx
	rep movsb
	movl	$0xc4500, 0x300(%r14)	# all but this one: INIT
	mov	$10, %ebx
	call	await
	movl	$0xc4608, 0x300(%r14)	# start at page 8
	mov	$2, %ebx
	call	await
	cmpq	$0, alive
	jne	1f
	movl	$0xc4608, 0x300(%r14)
1:	movq	$0, ticks
	sti
2:	pause
	cmpq	$1500, ticks		# it does not come
	must	b
	cmpq	$1, alive
	jb	2b
	cli
	mov	$10000, %ecx
1:	lock incq shared
	dec	%ecx
	jnz	1b
2:	cli
	cmpq	$1, ipis
	jae	3f
	sti
	hlt
	jmp	2b
3:	cmpq	$20000, shared
	must	e
	call	clockoff

	say	'O'
	say	'K'
	say	'\n'
stop:	cli
	hlt
	jmp	stop

# await lets %ebx interrupts of a clock come, asleep between them.
await:	movq	$0, ticks
1:	cli
	cmp	%rbx, ticks
	jae	2f
	sti
	hlt
	jmp	1b
2:	ret

clockon:
	movl	$0xb, 0x3e0(%r14)	# CPU's timer, 1 GHz by one, each 1 ms
	movl	$0x20040, 0x320(%r14)
	movl	$1000000, 0x380(%r14)
	ret
clockoff:
	movl	$0x10040, 0x320(%r14)
	movl	$0, 0x380(%r14)
	ret

put:	push	%rdx
	push	%rax
	mov	$COM1 + 5, %edx
1:	in	%dx, %al
	test	$0x20, %al
	jz	1b
	pop	%rax
	mov	$COM1, %edx
	out	%al, %dx
	pop	%rdx
	ret

setgate:				# %edi vector, %rax handler below 4 GiB
	shl	$4, %edi
	movw	%ax, IDT(%rdi)
	movw	$8, IDT + 2(%rdi)
	movw	$0xee00, IDT + 4(%rdi)
	shr	$16, %eax
	movw	%ax, IDT + 6(%rdi)
	ret

bad:	mov	$0x270000, %esp
	say	'!'
	jmp	stop
breakpoint:
	incq	traps
	iretq
undefined:
	incq	traps
	addq	$2, (%rsp)		# after ud2
	iretq
pagefault:
	push	%rax
	push	%rdx
	mov	%cr2, %rax
	mov	$LAZY, %rdx
	sub	%rdx, %rax
	shr	$12, %rax
	cmp	$4096, %rax
	jae	bad
	testb	$1, PT(, %rax, 8)
	jnz	1f
	mov	faults, %rdx		# not there: the next free page
	shl	$12, %rdx
	add	$POOL + 7, %rdx
	mov	%rdx, PT(, %rax, 8)
	incq	faults
	jmp	2f
1:	testb	$2, 16(%rsp)		# there but read-only: a write
	jz	bad
	orq	$2, PT(, %rax, 8)
	incq	copies
	mov	%cr2, %rax
	invlpg	(%rax)
2:	pop	%rdx
	pop	%rax
	add	$8, %rsp		# error code
	iretq
boardtick:
	push	%rax
	mov	$0x20, %al
	out	%al, $0x20
	pop	%rax
	incq	ticks
	iretq
tick:	incq	ticks
	movl	$0, 0xb0(%r14)
	iretq
ipi:	incq	ipis
	movl	$0, 0xb0(%r14)
	iretq

# The second CPU begins here, copied to APSTART.
	.code16
apstart:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	APSTART + apgdtr - apstart
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$0x18, $ap32 - payload + 0x100000
	.balign 8
apgdtr:	.word	gdtend - gdt - 1
	.long	gdt - payload + 0x100000
apend:
	.code32
ap32:	mov	$0x10, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	$0x260000, %esp
	call	tolong
	ljmp	$8, $ap64 - payload + 0x100000
	.code64
ap64:	mov	$APIC, %r14d
	movq	$1, alive
	mov	$10000, %ecx
1:	lock incq shared
	dec	%ecx
	jnz	1b
	movq	$2, alive
	movl	$0x1ff, 0xf0(%r14)
	movl	$0, 0x310(%r14)	# to the first CPU
	movl	$0x41, 0x300(%r14)
	jmp	stop

	.balign 8
gdt:	.quad	0
	.quad	0x00af9b000000ffff	# 08 kernel code
	.quad	0x00cf93000000ffff	# 10 kernel data
	.quad	0x00cf9b000000ffff	# 18 32-bit code
	.quad	0x00cffb000000ffff	# 20 32-bit user code
	.quad	0x00cff3000000ffff	# 28 user data
	.quad	0x00affb000000ffff	# 30 user code
	.word	103, TSS & 0xffff	# 38 TSS
	.byte	TSS >> 16, 0x89, 0, 0
	.quad	0
gdtend:
idtr:	.word	0xfff
	.quad	IDT
