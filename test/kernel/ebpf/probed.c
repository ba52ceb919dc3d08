/*
 * A program with USDT probes whose arguments are wherever a compiler may put them, marked as
 * systemtap's sys/sdt.h does it. Hits each once for every byte on stdin, and answers with the
 * number of those that watch `kinds`. `idle` is hit only while somebody does.
 */
#include <unistd.h>

#define NOTE(name, semaphore, args)                                            \
	".pushsection .note.stapsdt,\"?\",\"note\"\n"                          \
	".balign 4\n"                                                          \
	".4byte 992f-991f, 994f-993f, 3\n"                                     \
	"991: .asciz \"stapsdt\"\n"                                            \
	"992: .balign 4\n"                                                     \
	"993: .8byte 990b, _.stapsdt.base, " semaphore "\n"                    \
	".asciz \"bpftoken\"\n"                                                \
	".asciz \"" name "\"\n"                                                \
	".asciz \"" args "\"\n"                                                \
	"994: .balign 4\n"                                                     \
	".popsection\n"

__asm__(".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"
	".weak _.stapsdt.base\n"
	".hidden _.stapsdt.base\n"
	"_.stapsdt.base: .space 1\n"
	".size _.stapsdt.base, 1\n"
	".popsection\n");

unsigned short watched_kinds __attribute__((section(".probes"), used));
unsigned short watched_idle __attribute__((section(".probes"), used));

static long table[8] = { 100, 101, 102, 103, 104, 105, 106, 107 };

__attribute__((noinline)) static void kinds(void)
{
	/* A constant, registers of each size with and without sign, memory, and an element of a table. */
	__asm__ volatile("movq $0x1122334455667788, %%rbx\n"
			 "movl $-5, %%eax\n"
			 "movq $3, %%rcx\n"
			 "subq $256, %%rsp\n"
			 "movw $-7, 128(%%rsp)\n"
			 "990: nop\n" NOTE("kinds", "watched_kinds",
					   "-4@$-9 8@%%rbx 4@%%ebx 2@%%bx 1@%%bl -4@%%eax -2@128(%%rsp) 8@(%0) 8@8(%0,%%rcx,8)")
			 "addq $256, %%rsp\n"
			 :
			 : "r"(table)
			 : "rax", "rbx", "rcx", "memory");
}

/* The same probe at two places, and one without arguments or semaphore. */
__attribute__((noinline)) static void places(void)
{
	__asm__ volatile("990: nop\n" NOTE("place", "0", "4@$1"));
	__asm__ volatile("990: nop\n" NOTE("place", "0", "4@$2"));
	__asm__ volatile("990: nop\n" NOTE("bare", "0", ""));
	/* Not understood: a symbol. */
	__asm__ volatile("990: nop\n" NOTE("odd", "0", "8@table(%%rip)") ::);
}

int main(void)
{
	char byte;

	while (read(0, &byte, 1) == 1) {
		kinds();
		places();
		if (*(volatile unsigned short *)&watched_idle)
			__asm__ volatile("990: nop\n" NOTE("idle", "watched_idle", "4@$3"));
		byte = '0' + *(volatile unsigned short *)&watched_kinds;
		if (write(1, &byte, 1) != 1)
			return 1;
	}
	return 0;
}
