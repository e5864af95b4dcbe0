// SPDX-License-Identifier: Apache-2.0
/*
 * What the cryptography costs on one core, against one mpz_powm with 2048-bit
 * base, exponent and modulus in the same process (R = its time / ours),
 * measured in turns with each row: a processor's clock changes within seconds.
 * Time is what the thread got of a processor, so that others do not count, but
 * for the rows of two threads, whose ratio is the time of one over that of two.
 */
#include <time.h>

#include "components/crypto/curve25519.h"
#include "components/crypto/paillier.h"
#include "components/crypto/psi.h"
#include "components/crypto/ring.h"
#include "components/crypto/util.h"

#define AGAINST "mpz_powm_2048"

#define ROUNDS	9

static double clock_now(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define now() clock_now(CLOCK_THREAD_CPUTIME_ID)

static mpz_t powm_b, powm_x, powm_m;

static void powm_init(void)
{
	mpz_inits(powm_b, powm_x, powm_m, NULL);
	crypto_random_bits(powm_m, 2048);
	mpz_setbit(powm_m, 2047);
	mpz_setbit(powm_m, 0);
	crypto_random_below(powm_b, powm_m);
	crypto_random_bits(powm_x, 2048);
	mpz_setbit(powm_x, 2047);
}

static double powm_time(void)
{
	double t = now();

	mpz_powm(powm_b, powm_b, powm_x, powm_m);
	mpz_powm(powm_b, powm_b, powm_x, powm_m);
	return (now() - t) / 2;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The best time of nine, as noise only ever adds, and the median of the ratios
 * to the yardstick just before. */
#define MEASURE(name, n, code)                                        \
	do {                                                          \
		double best_ = 1e9, r_[ROUNDS];                       \
		for (int k_ = 0; k_ < ROUNDS; k_++) {                 \
			double powm_ = powm_time(), t_ = now();       \
			code;                                         \
			t_ = (now() - t_) / (double)(n);              \
			r_[k_] = powm_ / t_;                          \
			best_ = MIN(best_, t_);                       \
		}                                                     \
		qsort(r_, ROUNDS, sizeof(r_[0]), ascending);          \
		printf("%s\t%.3f\tus\t%.3f\t%s\n", name, best_ * 1e6, \
		       r_[ROUNDS / 2], AGAINST);                      \
	} while (0)

/* By the clock on the wall, `code` with `threads` of one and of two. */
#define MEASURE_TWO(name, n, code)                                         \
	do {                                                               \
		double best_[] = { 1e9, 1e9 };                             \
		for (int k_ = 0; k_ < 2 * ROUNDS; k_++) {                  \
			const unsigned threads = 1 + (unsigned)k_ % 2;     \
			double t_ = clock_now(CLOCK_MONOTONIC);            \
			code;                                              \
			t_ = clock_now(CLOCK_MONOTONIC) - t_;              \
			best_[k_ % 2] = MIN(best_[k_ % 2], t_);            \
		}                                                          \
		printf("%s_2_threads\t%.3f\tus\t%.3f\t1 thread\n", name,   \
		       best_[1] * 1e6 / (double)(n), best_[0] / best_[1]); \
	} while (0)

static void must(int rc)
{
	if (rc < 0) {
		(void)fprintf(stderr, "bench_crypto: %s\n", strerror(-rc));
		exit(1);
	}
}

/* Valid until the next call. */
static const char *named(const char *prefix, const char *name)
{
	static char label[64];

	(void)snprintf(label, sizeof(label), "%s%s", prefix, name);
	return label;
}

#define NAMED(name) named(prefix, name)

/* Rows of the portable path have a prefix. */
static void bench_paillier(const char *prefix, unsigned rows)
{
	enum { N = 1024, COLS = 64, F = 10, BINS = 32 };
	static uint16_t bin[N * F];
	const struct packing p = { 64, 31 };
	static double v[N], x[N * COLS], out[N];
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);
	struct paillier_private *k;
	struct paillier_public *pub;
	struct cipher_vec *c = NULL, *few_c, *o = NULL, *g = NULL;
	_cleanup_free_ uint8_t *wire = NULL;
	unsigned few = rows / 8;

	must(paillier_keygen(2048, &k, NULL));
	must(paillier_public_write(paillier_public(k), &sb));
	must(paillier_public_read(sb.buf, sb.len, &pub, NULL));
	for (unsigned i = 0; i < rows; i++)
		v[i] = i / 7.0 - 30;
	/* 53 bits and a sign at 52. */
	for (unsigned i = 0; i < rows * COLS; i++)
		x[i] = 4 * (drand48() - 0.5);
	must(paillier_encrypt(pub, v, 1, 40, 1, &c, NULL));
	MEASURE(NAMED("paillier2048/encrypt_djn_public"), rows, {
		cipher_vec_free(c);
		must(paillier_encrypt(pub, v, rows, 40, 1, &c, NULL));
	});
	must(paillier_encrypt_owner(k, v, 1, 40, 1, &o, NULL));
	MEASURE(NAMED("paillier2048/encrypt_djn_owner"), rows, {
		cipher_vec_free(o);
		must(paillier_encrypt_owner(k, v, rows, 40, 1, &o, NULL));
	});
	MEASURE(NAMED("paillier2048/encrypt_exact"), few, {
		cipher_vec_free(g);
		must(paillier_encrypt_exact(pub, v, few, 40, 1, &g, NULL));
	});
	MEASURE(NAMED("paillier2048/decrypt"), few,
		must(paillier_decrypt(k, g, out, 1, NULL)));
	MEASURE(NAMED("paillier2048/add"), rows,
		must(cipher_add(o, o, 1, NULL)));
	MEASURE(NAMED("paillier2048/scalar_mul_53"), few, {
		/* The scale grows; what is inside does not matter here. */
		must(cipher_mul_plain(g, x, 51, 1, NULL));
	});
	MEASURE(NAMED("paillier2048/rerandomise"), rows,
		must(cipher_rerandomise(c, 1, NULL)));
	wire = xmalloc(rows * cipher_width(pub));
	MEASURE(NAMED("paillier2048/export"), rows,
		cipher_vec_export(o, wire, 1));
	MEASURE(NAMED("paillier2048/import"), rows, {
		cipher_vec_free(g);
		must(cipher_vec_import(pub, wire, rows, 40, 1, &g, NULL));
	});
	MEASURE(NAMED("paillier2048/dot_53"), rows * COLS, {
		cipher_vec_free(g);
		must(cipher_matvec(o, x, rows, COLS, 51, 1, &g, NULL));
	});
	MEASURE(NAMED("paillier2048/dot_24_10_columns"), rows * F, {
		cipher_vec_free(g);
		must(cipher_matvec(o, x, rows, F, 22, 1, &g, NULL));
	});
	for (unsigned i = 0; i < rows * F; i++)
		bin[i] = (uint16_t)(lrand48() % BINS);
	MEASURE(NAMED("paillier2048/histogram_add"), rows * F, {
		cipher_vec_free(g);
		must(cipher_histogram(o, bin, rows, F, BINS, 1, &g, NULL));
	});
	must(cipher_vec_import(pub, wire, few, 40, 1, &few_c, NULL));
	MEASURE(NAMED("paillier2048/pack_64"), few, {
		cipher_vec_free(g);
		must(cipher_pack(few_c, &p, 1, &g, NULL));
	});
	cipher_vec_free(few_c);
	cipher_vec_free(c);
	cipher_vec_free(o);
	cipher_vec_free(g);
	paillier_public_free(pub);
	paillier_private_free(k);
}

/* Several rows to a ciphertext, as a linear model has them; and threads. */
static void bench_packed(const char *prefix, unsigned rows)
{
	enum { N = 1024, F = 10 };
	const struct packing p = { 138, 7 };
	static double v[N], x[N * F];
	const double plain[F] = { 0 };
	struct paillier_private *k;
	struct cipher_vec *c = NULL, *g = NULL;

	must(paillier_keygen(2048, &k, NULL));
	for (unsigned i = 0; i < rows; i++)
		v[i] = i / 7.0 - 30;
	for (unsigned i = 0; i < rows * F; i++)
		x[i] = 4 * (drand48() - 0.5);
	must(paillier_encrypt(paillier_public(k), v, 1, 40, 1, &c, NULL));
	MEASURE(NAMED("paillier2048/encrypt_7_rows"), rows, {
		cipher_vec_free(c);
		must(paillier_encrypt_packed(paillier_public(k), NULL, v, rows,
					     40, &p, 1, &c, NULL));
	});
	MEASURE(NAMED("paillier2048/dot_24_10_columns_7_rows"), rows * F, {
		cipher_vec_free(g);
		must(cipher_dot(c, &p, x, rows, F, 22, 1, &g, NULL));
		must(cipher_dot_end(g, &p, plain, 1, NULL));
	});
	cipher_vec_free(c);
	must(paillier_encrypt(paillier_public(k), v, rows, 40, 1, &c, NULL));
	MEASURE_TWO(NAMED("paillier2048/encrypt_djn_public"), rows, {
		cipher_vec_free(c);
		must(paillier_encrypt(paillier_public(k), v, rows, 40, threads,
				      &c, NULL));
	});
	MEASURE_TWO(NAMED("paillier2048/dot_24_10_columns"), rows * F, {
		cipher_vec_free(g);
		must(cipher_matvec(c, x, rows, F, 22, threads, &g, NULL));
	});
	cipher_vec_free(c);
	cipher_vec_free(g);
	paillier_private_free(k);
}

static void bench_ou(const char *prefix, unsigned rows)
{
	enum { N = 1024, COLS = 64 };
	static double v[N], x[N * COLS], out[N];
	struct paillier_private *k;
	struct cipher_vec *c = NULL, *g = NULL;

	must(ou_keygen(2048, &k, NULL));
	for (unsigned i = 0; i < rows; i++)
		v[i] = i / 7.0 - 30;
	for (unsigned i = 0; i < rows * COLS; i++)
		x[i] = 4 * (drand48() - 0.5);
	must(paillier_encrypt(paillier_public(k), v, 1, 40, 1, &c, NULL));
	MEASURE(NAMED("ou2048/encrypt"), rows, {
		cipher_vec_free(c);
		must(paillier_encrypt(paillier_public(k), v, rows, 40, 1, &c,
				      NULL));
	});
	MEASURE(NAMED("ou2048/decrypt"), rows,
		must(paillier_decrypt(k, c, out, 1, NULL)));
	MEASURE(NAMED("ou2048/dot_53"), rows * COLS, {
		cipher_vec_free(g);
		must(cipher_matvec(c, x, rows, COLS, 51, 1, &g, NULL));
	});
	MEASURE(NAMED("ou2048/add"), rows, must(cipher_add(c, c, 1, NULL)));
	cipher_vec_free(c);
	cipher_vec_free(g);
	paillier_private_free(k);
}

/* One method as both sides see it; `answer` is the row's name of what the
 * key's owner does for each id, twice. */
static void bench_method(enum psi_method method, const char *name,
			 const char *answer, const struct psi_ids *ids)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
	static const uint8_t salt[PSI_SALT] = { 0 };
	_cleanup_free_ uint8_t *a = xcalloc(ids->n, 256);
	_cleanup_free_ uint8_t *b = xcalloc(ids->n, 256);
	_cleanup_free_ uint8_t *t = xcalloc(ids->n, 256);
	struct psi_side *host, *guest;
	char text[64];

	must(psi_answerer(method, 2048, salt, &host, NULL));
	must(psi_public(host, &sb));
	must(psi_asker(method, 2048, salt, sb.buf, sb.len, &guest, NULL));
	(void)snprintf(text, sizeof(text), "psi/%s_blind", name);
	MEASURE(text, ids->n, must(psi_blind(guest, ids, 1, a, b, NULL)));
	MEASURE(answer, ids->n, must(psi_answer(host, a, ids->n, 1, t, NULL)));
	(void)snprintf(text, sizeof(text), "psi/%s_unblind", name);
	MEASURE(text, ids->n, must(psi_unblind(guest, ids, t, b, 1, a, NULL)));
	psi_free(host);
	psi_free(guest);
}

static void bench_psi(void)
{
	enum { N = 4096, FEW = N / 8 };
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(1u << 20);
	static uint8_t t[N * CURVE_POINT];
	static uint32_t end[N];
	uint8_t key[CURVE_POINT];
	struct psi_ids ids = { .end = end, .n = N };

	for (unsigned i = 0; i < N; i++) {
		must(sb_addf(&text, "%016u", i));
		end[i] = (uint32_t)text.len;
	}
	ids.text = text.buf;
	crypto_random(key, sizeof(key));
	crypto_random(t, sizeof(t));
	MEASURE("x25519/batch", N, (void)curve25519_best()->mul(key, t, N, t));
	MEASURE("portable/x25519/batch", FEW,
		(void)curve25519_portable.mul(key, t, FEW, t));
	bench_method(PSI_ECDH, "ecdh", "psi/ecdh_answer", &ids);
	ids.n = 512;
	bench_method(PSI_RSA, "rsa2048", "rsa2048/private_batch", &ids);
	bench_method(PSI_DH, "dh2048", "psi/dh2048_answer", &ids);
}

int main(void)
{
	powm_init();
	MEASURE(AGAINST, 2, (void)powm_time());
	bench_paillier("", 1024);
	bench_packed("", 1024);
	bench_ou("", 1024);
	ring_force_portable(true);
	bench_paillier("portable/", 64);
	bench_packed("portable/", 64);
	bench_ou("portable/", 64);
	ring_force_portable(false);
	bench_psi();
	return 0;
}
