// SPDX-License-Identifier: Apache-2.0
/* Doubles as text. */
#include <ctype.h>
#include <float.h>
#include <math.h>

#include "lib/json.h"

/* ---- the short way --------------------------------------------------------
 */

/*
 * As "%.*g" with 15, 16 or 17 digits, the first that reads back to the same
 * double, for numbers from 1e-11 to 1e15.  With 64 bits of mantissa, which hold
 * all powers of ten up to the 27th, a number times such a power has an error of
 * half a unit in the last of 64 bits.  So many bits behind the point are left
 * that the digits are known, unless they end close to a half; and a decimal
 * divided by the power tells what it reads back to, unless it ends half way
 * between two doubles (see extended() of table_stats.c).  Then nothing is
 * said, and the long way is taken.
 */
#if LDBL_MANT_DIG == 64 && defined(__x86_64__)
#define EXPONENT_MIN (-11)
#define EXPONENT_MAX 14

static const long double tens[] = {
	1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,	 1e7L,	1e8L,  1e9L,
	1e10L, 1e11L, 1e12L, 1e13L, 1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L,
	1e20L, 1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L,
};

/* The exponent of ten of a number in the range. */
static int exponent_of(double a)
{
	static const double from[] = {
		1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3,
		1e-2,  1e-1,  1e0,  1e1,  1e2,	1e3,  1e4,  1e5,  1e6,
		1e7,   1e8,   1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
	};
	int binary, x;

	(void)frexp(a, &binary);
	/* log10(2) is 1233 / 4096 and a little. */
	x = ((binary - 1) * 1233) >> 12;
	x = MIN(MAX(x, EXPONENT_MIN), EXPONENT_MAX);
	while (x < EXPONENT_MAX && a >= from[x + 1 - EXPONENT_MIN])
		x++;
	while (x > EXPONENT_MIN && a < from[x - EXPONENT_MIN])
		x--;
	return x;
}

/* The integer next to a * 10^p; false: another one is as near, or almost. */
static bool scaled(double a, int p, uint64_t *ret)
{
	long double t = (long double)a * tens[p], part;

	*ret = (uint64_t)t;
	part = t - (long double)*ret;
	*ret += part > 0.5L;
	return part < 0.484L || part > 0.516L;
}

/* What m / 10^p reads back to. */
static bool reads_back(uint64_t m, int p, double *ret)
{
	long double v = (long double)m / tens[p];
	uint64_t mantissa;

	memcpy(&mantissa, &v, sizeof(mantissa));
	*ret = (double)v;
	return (mantissa & 0x7ff) != 0x400;
}

/* a is about m / 10^p, with so many digits; 0: not known. */
static int shortest(double a, uint64_t *ret_m, int *ret_p)
{
	static const uint64_t least[] = { 100000000000000u, 1000000000000000u,
					  10000000000000000u };
	int x = exponent_of(a);
	double back;

	for (int digits = 15; digits <= 17; digits++) {
		*ret_p = digits - 1 - x;
		if (!scaled(a, *ret_p, ret_m) || *ret_m < least[digits - 15])
			return 0;
		if (digits == 17)
			break;
		if (!reads_back(*ret_m, *ret_p, &back))
			return 0;
		if (back == a)
			return digits;
	}
	return 17;
}

static char *put_zeros(char *to, int n)
{
	while (n-- > 0)
		*to++ = '0';
	return to;
}

/* m / 10^p as %g writes it with so many digits. */
static size_t put_number(char *buf, bool negative, uint64_t m, int p,
			 int digits)
{
	char text[24], *s = text + sizeof(text), *to = buf;
	int n, x;

	for (; m % 10000 == 0; m /= 10000)
		p -= 4;
	for (; m % 10 == 0; m /= 10)
		p--;
	for (; m; m /= 10)
		*--s = (char)('0' + m % 10);
	n = (int)(text + sizeof(text) - s);
	x = n - 1 - p; /* of the first digit */
	if (negative)
		*to++ = '-';
	if (x < -4 || x >= digits) {
		*to++ = *s;
		if (n > 1)
			*to++ = '.';
		memcpy(to, s + 1, (size_t)n - 1);
		to += n - 1;
		to += snprintf(to, 5, "e%c%02d", x < 0 ? '-' : '+', abs(x));
	} else if (x < 0) {
		*to++ = '0';
		*to++ = '.';
		to = put_zeros(to, -x - 1);
		memcpy(to, s, (size_t)n);
		to += n;
	} else {
		int whole = MIN(n, x + 1);

		memcpy(to, s, (size_t)whole);
		to = put_zeros(to + whole, x + 1 - n);
		if (n > whole)
			*to++ = '.';
		memcpy(to, s + whole, (size_t)(n - whole));
		to += n - whole;
	}
	*to = '\0';
	return (size_t)(to - buf);
}

static size_t format_short(char *buf, double v)
{
	double a = fabs(v);
	int digits, p;
	uint64_t m;

	if (!(a >= 1e-11 && a < 1e15))
		return 0;
	digits = shortest(a, &m, &p);
	return digits ? put_number(buf, v < 0, m, p, digits) : 0;
}
#else
static size_t format_short(char *buf, double v)
{
	(void)buf, (void)v;
	return 0;
}
#endif

/* ---- any number ------------------------------------------------------------
 */

size_t num_format(char *buf, double v)
{
	size_t done;
	int n = 0;

	if (isnan(v))
		return (size_t)snprintf(buf, NUM_MAX, "nan");
	if (isinf(v))
		return (size_t)snprintf(buf, NUM_MAX, v < 0 ? "-inf" : "inf");
	done = format_short(buf, v);
	if (done)
		return done;
	/* Fifteen digits always survive, but a denormal number has fewer. */
	for (int digits = fabs(v) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
		n = snprintf(buf, NUM_MAX, "%.*g", digits, v);
		if (digits == 17 || strtod(buf, NULL) == v)
			break;
	}
	return (size_t)n;
}

bool num_parse(const char *s, size_t n, double *ret)
{
	char copy[400], *end;

	while (n && isspace((unsigned char)*s)) {
		s++;
		n--;
	}
	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	if (!n || n >= sizeof(copy))
		return false;
	/* strtod also knows hexadecimal, which no data set means. */
	for (size_t i = 0; i < n; i++)
		if (s[i] == 'x' || s[i] == 'X' || !s[i])
			return false;
	memcpy(copy, s, n);
	copy[n] = '\0';
	*ret = strtod(copy, &end);
	return *end == '\0';
}
