# A kernel in the form of Linux's boot protocol that never leaves real mode. It
# writes its command line and the size of its initrd to the serial port first.
# Build: as --32 -o kernel.o kernel.S && objcopy -O binary kernel.o kernel.bin
	.code16
	.org	0x1f1
	.byte	2			# sectors of real-mode code after the first
	.org	0x1fe
	.word	0xaa55
	jmp	start
	.ascii	"HdrS"
	.word	0x204			# version of the protocol
	.org	0x211
	.byte	1			# loaded high
	.org	0x22c
	.long	0x37ffffff		# highest address of an initrd
	.org	0x240
start:	cld
	sti
	movl	0x228, %eax		# command line
	shrl	$4, %eax
	movw	%ax, %es
	xorw	%di, %di
1:	movb	%es:(%di), %al
	testb	%al, %al
	jz	2f
	call	put
	incw	%di
	jmp	1b
2:	call	newline
	movl	0x21c, %eax		# size of the initrd
	call	hex
	call	newline
	.include "count.inc"
	.org	0x7ff
	.byte	0
