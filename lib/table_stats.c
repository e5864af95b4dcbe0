// SPDX-License-Identifier: Apache-2.0
#include "lib/table_stats.h"

#include <endian.h>
#include <float.h>
#include <math.h>
#include <strings.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "lib/json.h"

#define DIGITS_MAX 18  /* any such integer is an int64_t */
#define VALUE_MAX  19  /* ... and any such one a uint64_t */
#define NUMBER_MAX 300 /* bytes of a number's text */

/* na_values of pandas.read_csv (pandas 1.5, "Working with text data"). */
static const char *const missing_words[] = {
	"#N/A", "#N/A N/A", "#NA",     "-1.#IND", "-1.#QNAN", "-NaN",
	"-nan", "1.#IND",   "1.#QNAN", "<NA>",	  "N/A",      "NA",
	"NULL", "NaN",	    "None",    "n/a",	  "nan",      "null",
};

static bool is_missing(const char *s, size_t n)
{
	if (!n)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(missing_words); i++)
		if (n == strlen(missing_words[i]) &&
		    !memcmp(s, missing_words[i], n))
			return true;
	return false;
}

static bool is_infinite(const char *s, size_t n)
{
	if (n && (*s == '-' || *s == '+')) {
		s++;
		n--;
	}
	return (n == 3 && !strncasecmp(s, "inf", 3)) ||
	       (n == 8 && !strncasecmp(s, "infinity", 8));
}

/* What stands in the text of a decimal number. */
struct decimal {
	bool negative;
	uint64_t digits; /* without the point; valid for up to VALUE_MAX */
	size_t n_digits; /* leading zeros count */
	int exponent;	 /* of ten */
	bool integer;	 /* no point, no exponent */
};

/*
 * How many of the eight bytes of text in x are digits before another comes,
 * and the number that they make.  A byte is none if its upper half is not
 * that of '0', or becomes another one by adding six.  Neighbours are then
 * added up in pairs, the first at ten, a hundred and ten thousand times.
 */
static inline unsigned eight_digits(uint64_t x, uint64_t *ret)
{
	const uint64_t high = 0xf0f0f0f0f0f0f0f0u, zero = 0x3030303030303030u;
	uint64_t other =
	    ((x & high) ^ zero) | (((x + 0x0606060606060606u) & high) ^ zero);
	unsigned n = other ? (unsigned)__builtin_ctzll(other) / 8 : 8;

	*ret = 0;
	if (!n)
		return 0;
	x = (x & 0x0f0f0f0f0f0f0f0fu) << (64 - 8 * n);
	x = (x * 10 + (x >> 8)) & 0x00ff00ff00ff00ffu;
	x = (x * 100 + (x >> 16)) & 0x0000ffff0000ffffu;
	*ret = (x * 10000 + (x >> 32)) & 0xffffffffu;
	return n;
}

static const uint64_t places[] = { 1,	   10,	    100,      1000,	10000,
				   100000, 1000000, 10000000, 100000000 };

static inline unsigned next_digits(const char *s, uint64_t *ret)
{
	uint64_t x;

	memcpy(&x, s, 8);
	return eight_digits(le64toh(x), ret);
}

static const char *take_digits(struct decimal *d, const char *s,
			       const char *end)
{
	unsigned n = 8;

	while (n == 8 && end - s >= 8) {
		uint64_t v;

		n = next_digits(s, &v);
		d->digits = d->digits * places[n] + v;
		d->n_digits += n;
		s += n;
	}
	for (; n == 8 && s < end && *s >= '0' && *s <= '9'; s++, d->n_digits++)
		d->digits = d->digits * 10 + (uint64_t)(*s - '0');
	return s;
}

static const char *take_exponent(struct decimal *d, const char *s,
				 const char *end)
{
	bool negative = false;
	const char *first;
	int x = 0;

	if (++s < end && (*s == '-' || *s == '+'))
		negative = *s++ == '-';
	first = s;
	for (; s < end && *s >= '0' && *s <= '9'; s++)
		x = MIN(x * 10 + (*s - '0'), 100000);
	d->exponent += negative ? -x : x;
	return s == first ? NULL : s;
}

/* The number that text begins with: its end, NULL: it begins with none. */
static const char *take_decimal(struct decimal *d, const char *s,
				const char *end)
{
	const char *point;

	*d = (struct decimal){ .integer = true };
	if (s < end && (*s == '-' || *s == '+'))
		d->negative = *s++ == '-';
	s = take_digits(d, s, end);
	if (s < end && *s == '.') {
		point = ++s;
		s = take_digits(d, s, end);
		d->exponent = -(int)(s - point);
		d->integer = false;
	}
	if (!d->n_digits)
		return NULL;
	if (s < end && (*s == 'e' || *s == 'E')) {
		s = take_exponent(d, s, end);
		d->integer = false;
	}
	return s;
}

static bool scan_decimal(struct decimal *d, const char *s, size_t n)
{
	return n <= NUMBER_MAX && take_decimal(d, s, s + n) == s + n;
}

/*
 * Both the digits and the power of ten are doubles without rounding: one
 * operation on them rounds correctly (Clinger, How to read floating point
 * numbers accurately, PLDI 1990, section 4).
 */
static bool exact(const struct decimal *d, double *ret)
{
	static const double tens[] = {
		1e0,  1e1,  1e2,  1e3,	1e4,  1e5,  1e6,  1e7,
		1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
		1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
	};
	double v;

	if (d->digits > 1ull << 53 || d->exponent < -22 || d->exponent > 22)
		return false;
	v = (double)d->digits;
	v = d->exponent < 0 ? v / tens[-d->exponent] : v * tens[d->exponent];
	*ret = d->negative ? -v : v;
	return true;
}

/*
 * The same with 64 bits of mantissa, which hold all digits and powers of ten up
 * to the 27th.  Rounding the result to a double's 53 is rounding twice, which
 * differs from once only if the first ended half way between two doubles: only
 * then the 11 bits that go are a one and ten zeros.
 */
static bool extended(const struct decimal *d, double *ret)
{
#if LDBL_MANT_DIG == 64 && defined(__x86_64__)
	static const long double tens[] = {
		1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,
		1e7L,  1e8L,  1e9L,  1e10L, 1e11L, 1e12L, 1e13L,
		1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L, 1e20L,
		1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L,
	};
	uint64_t mantissa;
	long double v;

	if (d->exponent < -27 || d->exponent > 27)
		return false;
	v = (long double)d->digits;
	v = d->exponent < 0 ? v / tens[-d->exponent] : v * tens[d->exponent];
	memcpy(&mantissa, &v, sizeof(mantissa));
	if ((mantissa & 0x7ff) == 0x400)
		return false;
	*ret = d->negative ? -(double)v : (double)v;
	return true;
#else
	(void)d, (void)ret;
	return false;
#endif
}

static bool decimal_value(const struct decimal *d, double *ret)
{
	return d->n_digits <= VALUE_MAX && (exact(d, ret) || extended(d, ret));
}

bool text_number(const char *s, size_t n, double *ret)
{
	struct decimal d;

	if (scan_decimal(&d, s, n))
		return decimal_value(&d, ret) || num_parse(s, n, ret);
	if (is_missing(s, n)) {
		*ret = NAN;
		return true;
	}
	if (!is_infinite(s, n))
		return false;
	*ret = *s == '-' ? -INFINITY : INFINITY;
	return true;
}

/* What most numbers are: up to seven digits, a point, up to seven more, with a
 * comma behind it.  NULL: it is not that. */
static inline const char *short_field(const char *s, const char *end,
				      double *ret)
{
	static const double powers[] = { 1,   1e1, 1e2, 1e3, 1e4,
					 1e5, 1e6, 1e7, 1e8 };
	uint64_t whole, part;
	unsigned n, m;
	bool negative;

	if (end - s < 18)
		return NULL;
	negative = *s == '-';
	s += negative;
	n = next_digits(s, &whole);
	m = next_digits(s + n + 1, &part);
	if (!n || n == 8 || s[n] != '.' || m == 8 || s[n + 1 + m] != ',')
		return NULL;
	*ret = (double)(whole * places[m] + part) / powers[m];
	*ret = negative ? -*ret : *ret;
	return s + n + 1 + m;
}

const char *text_field_number(const char *s, const char *end, double *ret)
{
	const char *to = short_field(s, end, ret);
	struct decimal d;

	if (to)
		return to;
	to = take_decimal(&d, s, end);
	if (to && (to == end || *to == ',') && to - s <= NUMBER_MAX &&
	    decimal_value(&d, ret))
		return to;
	to = memchr(s, ',', (size_t)(end - s));
	to = to ? to : end;
	return text_number(s, (size_t)(to - s), ret) ? to : NULL;
}

int64_t text_integer(const char *s, size_t n)
{
	struct decimal d;

	if (!scan_decimal(&d, s, n) || d.n_digits > DIGITS_MAX)
		return 0;
	return d.negative ? -(int64_t)d.digits : (int64_t)d.digits;
}

void text_stats_add(struct text_stats *st, const char *s, size_t n)
{
	struct decimal d;

	st->width = MAX(st->width, (uint32_t)n);
	if (st->not_number)
		return;
	if (scan_decimal(&d, s, n)) {
		st->not_integer |= !d.integer || d.n_digits > DIGITS_MAX;
		return;
	}
	st->not_integer = true;
	st->not_number = !is_missing(s, n) && !is_infinite(s, n);
}

/* ---- of a table -------------------------------------------------------- */

struct table_stats *table_stats_new(const struct table_schema *s)
{
	struct table_stats *st = xcalloc(1, sizeof(*st));

	st->columns = xcalloc(s->n_columns + 1, sizeof(*st->columns));
	return st;
}

void table_stats_free(struct table_stats *st)
{
	if (!st)
		return;
	free(st->columns);
	free(st);
}

void table_stats_add(struct table_stats *st, const struct table_schema *s,
		     size_t key_len, const struct cell *cells)
{
	st->id.width = MAX(st->id.width, (uint32_t)key_len);
	for (size_t i = 0; i < s->n_columns; i++)
		if (s->columns[i].type == CELL_STRING)
			text_stats_add(&st->columns[i], cells[i].str,
				       cells[i].len);
}

/*
 * The end of a number without exponent at p, of up to 16 bytes with its sign;
 * NULL: it is not that, or has to be looked at more closely.
 */
static const char *short_number(const char *p, const char *end, bool *ret_int)
{
#ifdef __SSE2__
	const __m128i nine = _mm_set1_epi8(9);
	unsigned other, at;
	__m128i v;

	p += p < end && *p == '-';
	v = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(const void *)p),
			 _mm_set1_epi8('0'));
	v = _mm_cmpeq_epi8(_mm_min_epu8(v, nine), v);
	other = ~(unsigned)_mm_movemask_epi8(v) & 0xffff;
	if (end - p < 16)
		other |= 1u << (end - p);
	if (!other)
		return NULL;
	at = (unsigned)__builtin_ctz(other);
	*ret_int = true;
	if (at && p + at < end && p[at] == '.') {
		*ret_int = false;
		other &= other - 1;
		if (!other)
			return NULL;
		at = (unsigned)__builtin_ctz(other);
	}
	return at && (p + at == end || p[at] == ',') ? p + at : NULL;
#else
	(void)p, (void)end, (void)ret_int;
	return NULL;
#endif
}

bool table_stats_add_text(struct table_stats *st, const struct table_schema *s,
			  size_t key_len, const char *text, size_t n)
{
	const char *p = text, *end = text + n;

	st->id.width = MAX(st->id.width, (uint32_t)key_len);
	for (size_t i = 0; i < s->n_columns; i++) {
		struct text_stats *x = &st->columns[i];
		const char *next = NULL;
		bool integer;

		if (p < end && *p == '"')
			return false;
		if (!x->not_number)
			next = short_number(p, end, &integer);
		if (next) {
			x->not_integer |= !integer;
			x->width = MAX(x->width, (uint32_t)(next - p));
		} else {
			next = memchr(p, ',', (size_t)(end - p));
			next = next ? next : end;
			text_stats_add(x, p, (size_t)(next - p));
		}
		if ((next == end) != (i + 1 == s->n_columns))
			return false;
		p = next + 1;
	}
	return true;
}

static void text_stats_merge(struct text_stats *st,
			     const struct text_stats *other)
{
	st->width = MAX(st->width, other->width);
	st->not_number |= other->not_number;
	st->not_integer |= other->not_integer;
}

void table_stats_merge(struct table_stats *st, const struct table_schema *s,
		       const struct table_stats *other)
{
	text_stats_merge(&st->id, &other->id);
	for (size_t i = 0; i < s->n_columns; i++)
		text_stats_merge(&st->columns[i], &other->columns[i]);
}

struct table_stats *table_stats_dup(const struct table_stats *st,
				    const struct table_schema *s)
{
	struct table_stats *d;

	if (!st)
		return NULL;
	d = table_stats_new(s);
	table_stats_merge(d, s, st);
	return d;
}

void table_stats_to_json(const struct table_stats *st,
			 const struct table_schema *s, json_t *meta)
{
	json_t *columns = json_object_get(meta, "columns"), *o;

	if (!st)
		return;
	json_object_set_new(meta, "id_width", json_integer(st->id.width));
	for (size_t i = 0; i < s->n_columns; i++) {
		const struct text_stats *x = &st->columns[i];

		if (s->columns[i].type != CELL_STRING)
			continue;
		o = json_array_get(columns, i);
		json_object_set_new(o, "width", json_integer(x->width));
		json_object_set_new(o, "holds",
				    json_string(x->not_number	 ? "text"
						: x->not_integer ? "numbers"
								 : "integers"));
	}
}

struct table_stats *table_stats_from_json(const json_t *meta,
					  const struct table_schema *s)
{
	const json_t *columns = json_object_get(meta, "columns"), *o;
	struct table_stats *st;

	if (!json_is_integer(json_object_get(meta, "id_width")))
		return NULL;
	st = table_stats_new(s);
	st->id.width = (uint32_t)json_int_or(meta, "id_width", 0);
	for (size_t i = 0; i < s->n_columns; i++) {
		const char *holds;

		o = json_array_get(columns, i);
		holds = json_str_or(o, "holds", "text");
		st->columns[i] = (struct text_stats){
			.width = (uint32_t)json_int_or(o, "width", 0),
			.not_number = !strcmp(holds, "text"),
			.not_integer = strcmp(holds, "integers") != 0,
		};
	}
	return st;
}
