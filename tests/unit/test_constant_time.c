// SPDX-License-Identifier: Apache-2.0
/*
 * That secrets decide neither a branch nor an address (Langley's ctgrind): the
 * program runs each case below again under valgrind with the secrets marked as
 * undefined memory, and memcheck reports every jump and every address that
 * depends on them. Valgrind 3.19 has no AVX-512, so this is the portable path;
 * the vector kernels have no branch that looks at a number.
 *
 * With SOAK=1 the path of this processor is timed, too, for a fixed and for
 * random secrets in turns, as dudect does it (Reparaz, Balasch, Verbauwhede,
 * DATE 2017): Welch's t of the two sets of times must stay below 10.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <valgrind/memcheck.h>

#include "components/crypto/curve25519.h"
#include "components/crypto/modexp.h"
#include "components/crypto/power.h"
#include "components/crypto/util.h"

#define BITS  512
#define LIMBS (BITS / 64)
#define COUNT 3
#define FOUND 99 /* exit code of valgrind with errors */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static char self[4096];

/* ---- what is looked at --------------------------------------------------- */

static void odd(mpz_t n)
{
	crypto_random_bits(n, BITS);
	mpz_setbit(n, BITS - 1);
	mpz_setbit(n, 0);
}

/* All that a ring keeps of a secret modulus. */
static void hide_ring(const struct ring *g)
{
	const size_t words = ring_group(g) * sizeof(uint64_t);

	(void)VALGRIND_MAKE_MEM_UNDEFINED(g->digits, g->h * sizeof(uint64_t));
	(void)VALGRIND_MAKE_MEM_UNDEFINED(&g->inv, sizeof(g->inv));
	(void)VALGRIND_MAKE_MEM_UNDEFINED(g->one, words);
	(void)VALGRIND_MAKE_MEM_UNDEFINED(g->rr, 4 * words);
	(void)VALGRIND_MAKE_MEM_UNDEFINED(g->m->_mp_d,
					  (size_t)g->limbs * sizeof(mp_limb_t));
}

static void show_ring(const struct ring *g)
{
	const size_t words = ring_group(g) * sizeof(uint64_t);

	(void)VALGRIND_MAKE_MEM_DEFINED(g->digits, g->h * sizeof(uint64_t));
	(void)VALGRIND_MAKE_MEM_DEFINED(&g->inv, sizeof(g->inv));
	(void)VALGRIND_MAKE_MEM_DEFINED(g->one, words);
	(void)VALGRIND_MAKE_MEM_DEFINED(g->rr, 4 * words);
	(void)VALGRIND_MAKE_MEM_DEFINED(g->m->_mp_d,
					(size_t)g->limbs * sizeof(mp_limb_t));
}

/* A power of secret numbers, by a secret exponent, modulo a secret. */
static void power(unsigned flags)
{
	mp_limb_t v[2 * LIMBS * COUNT], e[LIMBS];
	const size_t limbs = flags & RING_SQUARE ? 2 * LIMBS : LIMBS;
	struct ring *g;
	uint64_t *r;
	mpz_t n;

	mpz_init(n);
	odd(n);
	g = ring_new(n, flags | RING_SECRET);
	r = ring_alloc(COUNT * g->k);
	crypto_random(v, sizeof(v));
	for (size_t i = 0; i < COUNT; i++) /* below the modulus */
		v[(i + 1) * limbs - 1] &= UINT64_MAX >> 2;
	crypto_random(e, sizeof(e));
	(void)VALGRIND_MAKE_MEM_UNDEFINED(v, sizeof(v));
	(void)VALGRIND_MAKE_MEM_UNDEFINED(e, sizeof(e));
	hide_ring(g);
	ring_enter(g, r, v, limbs, COUNT);
	ring_pow(g, r, r, COUNT, e, BITS);
	ring_mul(g, r, r, r, 1, COUNT);
	ring_leave(g, v, r, COUNT);
	show_ring(g);
	ring_wipe(r, COUNT * g->k);
	ring_free(g);
	mpz_clear(n);
}

static void power_flat(void)
{
	power(0);
}

static void power_pair(void)
{
	power(RING_SQUARE);
}

/* The randomiser of an encryption, with the owner's secret modulus; modulo n
 * that of Okamoto-Uchiyama. */
static void fixed_base(unsigned flags)
{
	const bool square = flags & RING_SQUARE;
	struct fixed_base f = { 0 };
	mp_limb_t e[LIMBS * COUNT], x[LIMBS * COUNT];
	struct ring *g;
	uint64_t *r;
	mpz_t n, b;

	mpz_inits(n, b, NULL);
	odd(n);
	mpz_set_ui(b, 2);
	g = ring_new(n, flags | RING_SECRET);
	r = ring_alloc(COUNT * g->k);
	fixed_base_make(&f, g, b, BITS, 1);
	crypto_random(e, sizeof(e));
	crypto_random(x, sizeof(x));
	for (size_t i = 1; i <= COUNT; i++)
		x[i * LIMBS - 1] &= UINT64_MAX >> 1;
	(void)VALGRIND_MAKE_MEM_UNDEFINED(e, sizeof(e));
	(void)VALGRIND_MAKE_MEM_UNDEFINED(x, sizeof(x));
	hide_ring(g);
	fixed_base_pow(&f, g, r, square ? g->rr : g->one, e, LIMBS,
		       square ? x : NULL, COUNT);
	show_ring(g);
	fixed_base_free(&f, g);
	ring_wipe(r, COUNT * g->k);
	ring_free(g);
	mpz_clears(n, b, NULL);
}

static void fixed_base_flat(void)
{
	fixed_base(0);
}

static void fixed_base_pair(void)
{
	fixed_base(RING_SQUARE);
}

/* What a blind signature is made of. */
static void signature(void)
{
	mp_limb_t wide[2 * LIMBS * COUNT], v[LIMBS * COUNT];
	struct modexp *x;
	mpz_t n, e;

	mpz_inits(n, e, NULL);
	odd(n);
	odd(e);
	if (modexp_new(n, MODEXP_SECRET, &x, NULL) < 0)
		abort();
	crypto_random(wide, sizeof(wide));
	(void)VALGRIND_MAKE_MEM_UNDEFINED(wide, sizeof(wide));
	(void)VALGRIND_MAKE_MEM_UNDEFINED(e->_mp_d, LIMBS * sizeof(mp_limb_t));
	modexp_reduce(x, v, wide, 2 * LIMBS, COUNT);
	modexp_pow(x, v, v, COUNT, e, BITS);
	modexp_mul(x, v, v, v, 1, COUNT);
	modexp_sub(x, v, v, v, COUNT);
	modexp_free(x);
	(void)VALGRIND_MAKE_MEM_DEFINED(e->_mp_d, LIMBS * sizeof(mp_limb_t));
	mpz_clears(n, e, NULL);
}

/* Steps that follow the bits: this one must be found. */
static void leaks(void)
{
	struct ring *g;
	mp_limb_t v[LIMBS] = { 3 };
	uint64_t *r;
	mpz_t n, e;

	mpz_inits(n, e, NULL);
	odd(n);
	odd(e);
	g = ring_new(n, 0);
	r = ring_alloc(g->k);
	ring_enter(g, r, v, LIMBS, 1);
	(void)VALGRIND_MAKE_MEM_UNDEFINED(e->_mp_d, LIMBS * sizeof(mp_limb_t));
	ring_pow_public(g, r, r, 1, e);
	(void)VALGRIND_MAKE_MEM_DEFINED(e->_mp_d, LIMBS * sizeof(mp_limb_t));
	ring_wipe(r, g->k);
	ring_free(g);
	mpz_clears(n, e, NULL);
}

static const struct {
	const char *name;
	void (*fn)(void);
} cases[] = {
	{ "power_flat", power_flat },
	{ "power_pair", power_pair },
	{ "fixed_base_flat", fixed_base_flat },
	{ "fixed_base_pair", fixed_base_pair },
	{ "signature", signature },
	{ "leaks", leaks },
};

/* ---- under valgrind ------------------------------------------------------ */

static int under_valgrind(const char *name)
{
	int status;
	pid_t pid;

	pid = fork(); /* one thread */
	if (pid == 0) {
		(void)execlp("valgrind", "valgrind", "-q",
			     "--error-exitcode=99",
			     "--child-silent-after-fork=yes",
			     "--log-file=/dev/null", self, name, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static void powers_modulo_a_secret(void **state)
{
	(void)state;
	assert_int_equal(under_valgrind("power_flat"), 0);
}

static void powers_modulo_the_square_of_a_secret(void **state)
{
	(void)state;
	assert_int_equal(under_valgrind("power_pair"), 0);
}

static void randomisers_of_ciphertexts(void **state)
{
	(void)state;
	assert_int_equal(under_valgrind("fixed_base_pair"), 0);
	assert_int_equal(under_valgrind("fixed_base_flat"), 0);
}

static void signatures(void **state)
{
	(void)state;
	assert_int_equal(under_valgrind("signature"), 0);
}

static void a_leak_is_found(void **state)
{
	(void)state;
	assert_int_equal(under_valgrind("leaks"), FOUND);
}

/* ---- by the clock -------------------------------------------------------- */

#define ROUNDS 20000

static uint64_t ticks(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Welch's t of times below the 80th percentile: what is above is the machine's.
 */
static double welch(const uint64_t *time, const bool *fixed, size_t n)
{
	_cleanup_free_ uint64_t *sorted = xcalloc(n, sizeof(*sorted));
	double count[2] = { 0 }, mean[2] = { 0 }, m2[2] = { 0 };

	memcpy(sorted, time, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), by_value);
	for (size_t i = 0; i < n; i++) {
		const double v = (double)time[i];
		const int k = fixed[i];
		double d;

		if (time[i] > sorted[n * 8 / 10])
			continue;
		d = v - mean[k];
		mean[k] += d / ++count[k];
		m2[k] += d * (v - mean[k]);
	}
	return (mean[0] - mean[1]) / sqrt(m2[0] / (count[0] - 1) / count[0] +
					  m2[1] / (count[1] - 1) / count[1]);
}

static double timed(void (*fn)(void *arg, const mp_limb_t *e), void *arg)
{
	_cleanup_free_ uint64_t *time = xcalloc(ROUNDS, sizeof(*time));
	_cleanup_free_ bool *fixed = xcalloc(ROUNDS, sizeof(*fixed));
	mp_limb_t e[LIMBS];

	for (size_t i = 0; i < ROUNDS; i++) {
		uint8_t coin;

		crypto_random(&coin, 1);
		fixed[i] = coin & 1;
		crypto_random(e, sizeof(e));
		if (fixed[i]) { /* few bits: what a leak would be quick at */
			memset(e, 0, sizeof(e));
			e[LIMBS - 1] = UINT64_C(1) << 63;
		}
		time[i] = ticks();
		fn(arg, e);
		time[i] = ticks() - time[i];
	}
	return welch(time, fixed, ROUNDS);
}

struct timing {
	struct ring *g;
	uint64_t *r;
	struct fixed_base f;
};

static void timed_power(void *arg, const mp_limb_t *e)
{
	struct timing *t = arg;

	ring_pow(t->g, t->r, t->r, t->g->lanes, e, BITS);
}

static void timed_fixed_base(void *arg, const mp_limb_t *e)
{
	struct timing *t = arg;

	fixed_base_pow(&t->f, t->g, t->r, t->g->rr, e, LIMBS, NULL, 1);
}

static void timed_leak(void *arg, const mp_limb_t *e)
{
	struct timing *t = arg;
	mpz_t in;

	ring_pow_public(t->g, t->r, t->r, 1,
			mpz_roinit_n(in, e, (mp_size_t)LIMBS));
}

static void timed_curve(void *arg, const mp_limb_t *e)
{
	uint8_t points[RING_LANES * CURVE_POINT];

	(void)arg;
	memset(points, 9, sizeof(points));
	(void)!curve25519_best()->mul((const uint8_t *)e, points, RING_LANES,
				      points);
}

static void times_do_not_depend_on_secrets(void **state)
{
	struct timing t = { 0 };
	mpz_t n, b;

	(void)state;
	if (!getenv("SOAK")) {
		print_message("timed with SOAK=1 only\n");
		return;
	}
	mpz_inits(n, b, NULL);
	odd(n);
	mpz_set_ui(b, 2);
	t.g = ring_new(n, RING_SQUARE | RING_SECRET);
	t.r = ring_alloc(RING_LANES * t.g->k);
	for (size_t i = 0; i < t.g->lanes; i++)
		for (size_t w = 0; w < t.g->k; w++)
			t.r[i * t.g->k + w] = t.g->rr[w * t.g->lanes];
	fixed_base_make(&t.f, t.g, b, BITS, 1);
	assert_true(fabs(timed(timed_leak, &t)) > 10);
	assert_true(fabs(timed(timed_power, &t)) < 10);
	assert_true(fabs(timed(timed_fixed_base, &t)) < 10);
	assert_true(fabs(timed(timed_curve, &t)) < 10);
	fixed_base_free(&t.f, t.g);
	ring_wipe(t.r, RING_LANES * t.g->k);
	ring_free(t.g);
	mpz_clears(n, b, NULL);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(powers_modulo_a_secret),
		cmocka_unit_test(powers_modulo_the_square_of_a_secret),
		cmocka_unit_test(randomisers_of_ciphertexts),
		cmocka_unit_test(signatures),
		cmocka_unit_test(a_leak_is_found),
		cmocka_unit_test(times_do_not_depend_on_secrets),
	};
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return 1;
	self[n] = '\0';
	if (SANITIZED) { /* which valgrind does not run */
		print_message("1..1 # the build without sanitizers has these\n"
			      "ok 1 - nothing to do # skip sanitized\n");
		return 0;
	}
	if (argc < 2)
		return cmocka_run_group_tests(tests, NULL, NULL);
	ring_force_portable(true);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (!strcmp(argv[1], cases[i].name)) {
			cases[i].fn();
			return 0;
		}
	return 1;
}
