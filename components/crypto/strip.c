// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>

#include "components/crypto/strip.h"

#if defined(__x86_64__) && GMP_NUMB_BITS == 64
#include <cpuid.h>

bool strip_usable(mp_size_t n)
{
	const unsigned need = 1u << 8 | 1u << 19; /* BMI2, ADX */
	unsigned a, b, c, d;

	return n % STRIP == 0 && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
	       (b & need) == need;
}

/*
 * For every limb of b (n of them, a multiple of 8): the nine limbs of
 * r[j] + acc + a * b[j] are split into r[j] and the next acc; they cannot be
 * exceeded. MULX leaves the flags alone, so that the lower halves add up in
 * one chain of carries (CF) and the upper ones in another (OF). The register
 * whose limb has gone to r[j] takes the topmost of the next eight.
 */
void strip_rows(mp_limb_t *r, const mp_limb_t *a, const mp_limb_t *b,
		mp_size_t n, mp_limb_t acc[STRIP]);

/* clang-format off */
#define STEP(at, x, y)                                          \
	"mulx " at "(%rsi), %rax, %rbx\n\t"                     \
	"adcx %rax, %" x "\n\t"                                 \
	"adox %rbx, %" y "\n\t"
#define ROW(j, x0, x1, x2, x3, x4, x5, x6, x7)                  \
	"mov " j "(%rcx), %rdx\n\t"                             \
	"xor %eax, %eax\n\t"                                    \
	"adox " j "(%rdi), %" x0 "\n\t"                         \
	STEP("0", x0, x1)                                       \
	"mov %" x0 ", " j "(%rdi)\n\t"                          \
	STEP("8", x1, x2)                                       \
	STEP("16", x2, x3)                                      \
	STEP("24", x3, x4)                                      \
	STEP("32", x4, x5)                                      \
	STEP("40", x5, x6)                                      \
	STEP("48", x6, x7)                                      \
	"mulx 56(%rsi), %rax, %" x0 "\n\t"                      \
	"adcx %rax, %" x7 "\n\t"                                \
	"mov $0, %eax\n\t"                                      \
	"adox %rax, %" x0 "\n\t"                                \
	"adcx %rax, %" x0 "\n\t"

__asm__(".text\n\t"
	".p2align 5\n\t"
	".globl strip_rows\n\t"
	".hidden strip_rows\n\t"
	".type strip_rows, @function\n"
	"strip_rows:\n\t"
	"push %rbx\n\t"
	"push %rbp\n\t"
	"push %r12\n\t"
	"push %r13\n\t"
	"push %r14\n\t"
	"push %r15\n\t"
	"push %r8\n\t"
	"mov %rcx, %rbp\n\t"
	"mov %rdx, %rcx\n\t"
	"mov 8(%r8), %r9\n\t"
	"mov 16(%r8), %r10\n\t"
	"mov 24(%r8), %r11\n\t"
	"mov 32(%r8), %r12\n\t"
	"mov 40(%r8), %r13\n\t"
	"mov 48(%r8), %r14\n\t"
	"mov 56(%r8), %r15\n\t"
	"mov (%r8), %r8\n\t"
	".p2align 5\n"
	"1:\n\t"
	ROW("0", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
	ROW("8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "r8")
	ROW("16", "r10", "r11", "r12", "r13", "r14", "r15", "r8", "r9")
	ROW("24", "r11", "r12", "r13", "r14", "r15", "r8", "r9", "r10")
	ROW("32", "r12", "r13", "r14", "r15", "r8", "r9", "r10", "r11")
	ROW("40", "r13", "r14", "r15", "r8", "r9", "r10", "r11", "r12")
	ROW("48", "r14", "r15", "r8", "r9", "r10", "r11", "r12", "r13")
	ROW("56", "r15", "r8", "r9", "r10", "r11", "r12", "r13", "r14")
	"lea 64(%rcx), %rcx\n\t"
	"lea 64(%rdi), %rdi\n\t"
	"sub $8, %rbp\n\t"
	"jnz 1b\n\t"
	"pop %rax\n\t"
	"mov %r8, 0(%rax)\n\t"
	"mov %r9, 8(%rax)\n\t"
	"mov %r10, 16(%rax)\n\t"
	"mov %r11, 24(%rax)\n\t"
	"mov %r12, 32(%rax)\n\t"
	"mov %r13, 40(%rax)\n\t"
	"mov %r14, 48(%rax)\n\t"
	"mov %r15, 56(%rax)\n\t"
	"pop %r15\n\t"
	"pop %r14\n\t"
	"pop %r13\n\t"
	"pop %r12\n\t"
	"pop %rbp\n\t"
	"pop %rbx\n\t"
	"ret\n\t"
	".size strip_rows, . - strip_rows\n");

#define STEP1(at, in, out)                                      \
	"mulx " at "(%[a]), %[lo], %[" out "]\n\t"              \
	"adcx %[" in "], %[lo]\n\t"                             \
	"adox " at "(%[r]), %[lo]\n\t"                          \
	"mov %[lo], " at "(%[r])\n\t"

/* r += a * b, eight limbs; the carry is returned. */
static inline mp_limb_t strip_row(mp_limb_t *r, const mp_limb_t *a, mp_limb_t b)
{
	mp_limb_t carry = 0, lo, h, zero = 0;

	__asm__("xor %k[z], %k[z]\n\t"
		STEP1("0", "c", "h")
		STEP1("8", "h", "c")
		STEP1("16", "c", "h")
		STEP1("24", "h", "c")
		STEP1("32", "c", "h")
		STEP1("40", "h", "c")
		STEP1("48", "c", "h")
		STEP1("56", "h", "c")
		"adcx %[z], %[c]\n\t"
		"adox %[z], %[c]\n\t"
		: [c] "+&r"(carry), [lo] "=&r"(lo), [h] "=&r"(h),
		  [z] "+&r"(zero)
		: [a] "r"(a), [r] "r"(r), "d"(b)
		: "cc", "memory");
	return carry;
}
/* clang-format on */

void strip_mul(mp_limb_t *r, const mp_limb_t *a, const mp_limb_t *b,
	       mp_size_t n)
{
	mpn_zero(r, 2 * n);
	/* What is above the n rows of a strip is not there yet: 0. */
	for (mp_size_t i = 0; i < n; i += STRIP)
		strip_rows(r + i, a + i, b, n, r + i + n);
}

mp_limb_t strip_reduce(mp_limb_t *t, mp_limb_t *q, const mp_limb_t *m,
		       mp_size_t n, mp_limb_t inv)
{
	for (mp_size_t i = 0; i < n; i += STRIP) {
		mp_limb_t *u = t + i;

		/* Eight digits of q from the lowest limbs alone ... */
		for (mp_size_t j = 0; j < STRIP; j++) {
			q[i + j] = u[j] * inv;
			/* u[j] is 0 by now: keeps the carry. */
			u[j] = strip_row(u + j, m, q[i + j]);
		}
		/* ... then times the rest of m; the carries go in below and
		 * what comes out above waits in u for the last addition. */
		if (n > STRIP)
			strip_rows(u + STRIP, q + i, m + STRIP, n - STRIP, u);
	}
	return mpn_add_n(t + n, t + n, t, n);
}

#else

bool strip_usable(mp_size_t n)
{
	(void)n;
	return false;
}
void strip_mul(mp_limb_t *r, const mp_limb_t *a, const mp_limb_t *b,
	       mp_size_t n)
{
	(void)r, (void)a, (void)b, (void)n;
	abort();
}
mp_limb_t strip_reduce(mp_limb_t *t, mp_limb_t *q, const mp_limb_t *m,
		       mp_size_t n, mp_limb_t inv)
{
	(void)t, (void)q, (void)m, (void)n, (void)inv;
	abort();
}

#endif
