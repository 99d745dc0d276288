/*
 * Raw system calls through every entry that one x86_64 program can use: the native one, x32 (a bit in the native
 * number), and the 32-bit one through `int $0x80`, which 64-bit code may execute too.
 *
 * All six argument words are passed whole, on the 32-bit entry as well: the kernel drops the high halves there,
 * but a seccomp filter sees them, and that difference is one of the things we probe.
 */
#ifndef ABI_H
#define ABI_H

#include <stdint.h>

#define X32_BIT 0x40000000L
#define DIRTY_HIGH 0x100000000L /* what no `int` argument of the kernel ever sees */

enum abi { X86_64, X32, I386 };

static inline long native_call(long nr, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = 0;
	long ret;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

/* The sixth argument would be in ebp; none of our calls has one. */
static inline long compat_call(long nr, long a, long b, long c, long d, long e)
{
	long ret;
	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
			 : "r8", "r9", "r10", "r11", "memory");
	return (int32_t)ret;
}

static inline long call(enum abi abi, long nr, long a, long b, long c, long d, long e)
{
	if (abi == I386)
		return compat_call(nr, a, b, c, d, e);
	return native_call(abi == X32 ? nr | X32_BIT : nr, a, b, c, d, e);
}

#endif
