# A boot sector. Build: as --32 -o disk.o disk.S && objcopy -O binary disk.o disk.bin
	.code16
	.org	0
	ljmp	$0x7c0, $start
start:	movw	%cs, %ax
	movw	%ax, %ds
	xorw	%ax, %ax
	movw	%ax, %ss
	movw	$0x7c00, %sp
	cld
	sti
	.include "count.inc"
	.org	510
	.word	0xaa55
