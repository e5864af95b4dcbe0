// SPDX-License-Identifier: Apache-2.0
#include <endian.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "components/crypto/util.h"
#include "lib/base.h"

void crypto_random(void *p, size_t n)
{
	uint8_t *at = p;

	while (n > 0) {
		ssize_t k = getrandom(at, n, 0);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0) {
			(void)fprintf(stderr, "no randomness: %m\n");
			abort();
		}
		at += k;
		n -= (size_t)k;
	}
}

void crypto_random_bits(mpz_t ret, unsigned bits)
{
	size_t n = (bits + 7) / 8;
	uint8_t buf[2048];

	if (n > sizeof(buf))
		abort();
	crypto_random(buf, n);
	mpz_import(ret, n, 1, 1, 0, 0, buf);
	mpz_fdiv_r_2exp(ret, ret, bits);
	explicit_bzero(buf, n);
}

void crypto_random_below(mpz_t ret, const mpz_t below)
{
	unsigned bits = (unsigned)mpz_sizeinbase(below, 2);

	do
		crypto_random_bits(ret, bits);
	while (mpz_cmp(ret, below) >= 0);
}

void crypto_wipe(mpz_t z)
{
	if (z->_mp_alloc > 0)
		explicit_bzero(z->_mp_d,
			       (size_t)z->_mp_alloc * sizeof(mp_limb_t));
	mpz_clear(z);
}

static void wiping_free(void *p, size_t n)
{
	explicit_bzero(p, n);
	free(p);
}

static void *wiping_realloc(void *p, size_t old, size_t n)
{
	void *q = xmalloc(n);

	memcpy(q, p, MIN(old, n));
	wiping_free(p, old);
	return q;
}

static void set_memory(void)
{
	mp_set_memory_functions(xmalloc, wiping_realloc, wiping_free);
}

void crypto_wipe_freed(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, set_memory);
}

struct share {
	pthread_t thread;
	void (*fn)(void *arg, size_t lo, size_t hi);
	void *arg;
	size_t lo, hi;
	bool started;
};

static void *share_run(void *p)
{
	struct share *s = p;

	s->fn(s->arg, s->lo, s->hi);
	return NULL;
}

void crypto_split(unsigned threads, size_t n,
		  void (*fn)(void *arg, size_t lo, size_t hi), void *arg)
{
	size_t shares = MIN(MAX(threads, 1u), MAX(n, (size_t)1));
	_cleanup_free_ struct share *s = xcalloc(shares, sizeof(*s));

	for (size_t i = 0; i < shares; i++) {
		s[i].fn = fn;
		s[i].arg = arg;
		s[i].lo = n * i / shares;
		s[i].hi = n * (i + 1) / shares;
		/* The last share, and what gets no thread, runs here. */
		if (i + 1 < shares)
			s[i].started = pthread_create(&s[i].thread, NULL,
						      share_run, &s[i]) == 0;
		if (!s[i].started)
			share_run(&s[i]);
	}
	for (size_t i = 0; i < shares; i++)
		if (s[i].started)
			(void)pthread_join(s[i].thread, NULL);
}

void limbs_export(const mp_limb_t *v, mp_size_t k, uint8_t *out, size_t width)
{
	size_t i = 0;

	for (; i + 8 <= width && i / 8 < (size_t)k; i += 8) {
		uint64_t x = htobe64(v[i / 8]);

		memcpy(out + width - 8 - i, &x, 8);
	}
	for (; i < width; i++)
		out[width - 1 - i] = i / 8 < (size_t)k
					 ? (uint8_t)(v[i / 8] >> (8 * (i % 8)))
					 : 0;
}

void limbs_import(mp_limb_t *v, mp_size_t k, const uint8_t *in, size_t width)
{
	size_t i = 0;

	mpn_zero(v, k);
	for (; i + 8 <= width; i += 8) {
		uint64_t x;

		memcpy(&x, in + width - 8 - i, 8);
		v[i / 8] = be64toh(x);
	}
	for (; i < width; i++)
		v[i / 8] |= (mp_limb_t)in[width - 1 - i] << (8 * (i % 8));
}

static struct {
	pthread_once_t once;
	EVP_MD *sha256, *sha512, *shake256;
} digests = { .once = PTHREAD_ONCE_INIT };

static void fetch_digests(void)
{
	digests.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	digests.sha512 = EVP_MD_fetch(NULL, "SHA512", NULL);
	digests.shake256 = EVP_MD_fetch(NULL, "SHAKE256", NULL);
	if (!digests.sha256 || !digests.sha512 || !digests.shake256)
		abort(); /* OpenSSL's default provider has them */
}

const EVP_MD *crypto_sha256(void)
{
	(void)pthread_once(&digests.once, fetch_digests);
	return digests.sha256;
}

const EVP_MD *crypto_sha512(void)
{
	(void)pthread_once(&digests.once, fetch_digests);
	return digests.sha512;
}

const EVP_MD *crypto_shake256(void)
{
	(void)pthread_once(&digests.once, fetch_digests);
	return digests.shake256;
}

struct primes {
	mpz_ptr p[2];
	unsigned bits[2];
};

static void prime_share(void *arg, size_t lo, size_t hi)
{
	struct primes *j = arg;

	for (size_t i = lo; i < hi; i++)
		do {
			crypto_random_bits(j->p[i], j->bits[i]);
			mpz_setbit(j->p[i], j->bits[i] - 1);
			mpz_setbit(j->p[i], j->bits[i] - 2);
			mpz_setbit(j->p[i], 0);
			mpz_setbit(j->p[i], 1);
		} while (!mpz_probab_prime_p(j->p[i], 40));
}

void crypto_random_primes(mpz_t p, unsigned p_bits, mpz_t q, unsigned q_bits)
{
	struct primes j = { { p, q }, { p_bits, q_bits } };

	crypto_split(2, 2, prime_share, &j);
}
