/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paillier encryption of fixed-point vectors (Paillier 1999; g = n + 1;
 * randomiser by Damgard, Jurik, Nielsen 2010: h^a with h = -y^2 raised to n,
 * a of |n|/2 bits, from a fixed-base table).  A faster engine may come behind
 * this header, so every function takes vectors.
 *
 * One scale per vector: a real v is round(v * 2^scale), negatives are
 * n - |m|; the middle third of Z_n is an overflow error at decryption.
 * Ciphertexts travel as fixed-width big-endian records of cipher_width()
 * bytes; records that are 0, >= n^2 or not coprime to n are refused.
 *
 * Okamoto-Uchiyama (Okamoto, Uchiyama 1998) is a second kind of key for the
 * same functions: n = p^2 q, a ciphertext of m is g^(m + n r) mod n, half as
 * long as Paillier's; r has 64 bits more than the order of g^n, so that
 * g^(n r) is within 2^-64 of uniform. Decryption gives m mod p. Who learns
 * M mod p for an M >= p of its choice learns a multiple of p, M - (M mod p),
 * and factors n: the chosen ciphertext attack in their proof that decryption is
 * as hard as factoring, and an owner who returns what it decrypts answers it.
 * So only |m| < 2^(|p| - 129) is accepted, everything else is -ERANGE: who
 * does not know p gets an M >= p in there with probability 2^-127, whatever M
 * it takes. The refusal tells nothing. Sums and products must stay below the
 * same bound.
 *
 * "threads" below: functions split work over up to that many threads.
 * Constant time where a secret decides: decryption, docs/crypto.md.
 */
#ifndef COMPONENTS_CRYPTO_PAILLIER_H
#define COMPONENTS_CRYPTO_PAILLIER_H

#include "lib/err.h"
#include "lib/strbuf.h"

struct paillier_public;
struct paillier_private; /* holds its public key too; zeroed when freed */
struct cipher_vec;	 /* n ciphertexts under one key with one scale */

enum paillier_scheme { SCHEME_PAILLIER, SCHEME_OU }; /* also on the wire */

int paillier_keygen(unsigned bits, struct paillier_private **ret,
		    struct err *e) MUST_CHECK;
/* A key of Okamoto and Uchiyama: 1024 to 8192 bits, p of a third of them. */
int ou_keygen(unsigned bits, struct paillier_private **ret,
	      struct err *e) MUST_CHECK;
void paillier_private_free(struct paillier_private *k);
const struct paillier_public *paillier_public(const struct paillier_private *k);
/* Wire form of the public key: n and the randomiser base, length-prefixed;
 * Okamoto-Uchiyama: a length of 0, the scheme, n and g. Reading checks sizes
 * (512..8192 bits; 1024..8192), oddness and ranges. */
int paillier_public_write(const struct paillier_public *k, struct strbuf *sb);
int paillier_public_read(const void *data, size_t n,
			 struct paillier_public **ret,
			 struct err *e) MUST_CHECK;
void paillier_public_free(struct paillier_public *k); /* not of a private */
unsigned paillier_bits(const struct paillier_public *k);
enum paillier_scheme paillier_scheme(const struct paillier_public *k);
size_t cipher_width(const struct paillier_public *k); /* bytes */

struct cipher_vec *cipher_vec_new(const struct paillier_public *k, size_t n,
				  unsigned scale);
void cipher_vec_free(struct cipher_vec *v);
size_t cipher_vec_len(const struct cipher_vec *v);
unsigned cipher_vec_scale(const struct cipher_vec *v);
/* n * cipher_width() bytes, to and from the wire. */
void cipher_vec_export(const struct cipher_vec *v, uint8_t *out,
		       unsigned threads);
int cipher_vec_import(const struct paillier_public *k, const uint8_t *in,
		      size_t n, unsigned scale, unsigned threads,
		      struct cipher_vec **ret, struct err *e) MUST_CHECK;

/* Encrypts n reals; finite and |v| * 2^scale < n / 3 (2^(|p| - 129)) or
 * -ERANGE. */
int paillier_encrypt(const struct paillier_public *k, const double *v, size_t n,
		     unsigned scale, unsigned threads, struct cipher_vec **ret,
		     struct err *e) MUST_CHECK;
/* With r^n for a uniform r, which is what Paillier 1999 and FATE do: no
 * assumption beyond theirs, some ten times slower. */
int paillier_encrypt_exact(const struct paillier_public *k, const double *v,
			   size_t n, unsigned scale, unsigned threads,
			   struct cipher_vec **ret, struct err *e) MUST_CHECK;
/* The owner encrypts with its CRT, twice as fast; Okamoto-Uchiyama: no
 * faster than others. */
int paillier_encrypt_owner(const struct paillier_private *k, const double *v,
			   size_t n, unsigned scale, unsigned threads,
			   struct cipher_vec **ret, struct err *e) MUST_CHECK;
/* CRT decryption, checked; -ERANGE on overflow. out has cipher_vec_len. */
int paillier_decrypt(const struct paillier_private *k,
		     const struct cipher_vec *v, double *out, unsigned threads,
		     struct err *e) MUST_CHECK;

/*
 * From now on up to n randomisers (at most 4 MiB of them) are made ahead by a
 * thread of the lowest priority, for paillier_encrypt, _encrypt_packed without
 * an owner and cipher_rerandomise: a party's waits become its encryptions.
 * Until the key is freed; a second call does nothing.
 */
void paillier_ahead(const struct paillier_public *k, size_t n,
		    unsigned threads);

/* a += b (same key, length and scale). */
int cipher_add(struct cipher_vec *a, const struct cipher_vec *b,
	       unsigned threads, struct err *e) MUST_CHECK;
/* a_i += v_i; no new randomness: call cipher_rerandomise before sending. */
int cipher_add_plain(struct cipher_vec *a, const double *v, unsigned threads,
		     struct err *e) MUST_CHECK;
/* a_i *= v_i with v at vscale bits; the scale of a grows by vscale. */
int cipher_mul_plain(struct cipher_vec *a, const double *v, unsigned vscale,
		     unsigned threads, struct err *e) MUST_CHECK;
/* Multiplies every element by fresh randomness. */
int cipher_rerandomise(struct cipher_vec *a, unsigned threads,
		       struct err *e) MUST_CHECK;
/* Elements idx[0..n-1] of a, in that order, as a new vector. */
struct cipher_vec *cipher_gather(const struct cipher_vec *a,
				 const uint32_t *idx, size_t n);
/* b behind a as a new vector (same key and scale). */
struct cipher_vec *cipher_concat(const struct cipher_vec *a,
				 const struct cipher_vec *b);
/*
 * The gradient: ret_j = sum_i x[i * cols + j] * d_i for j < cols, x row-major
 * of rows x cols at xscale bits, d of rows ciphertexts. Scale of ret = scale
 * of d + xscale. Multi-exponentiation (Straus / Pippenger), signed scalars
 * by one offset or by two accumulators, no per-element inversion.
 */
int cipher_matvec(const struct cipher_vec *d, const double *x, size_t rows,
		  size_t cols, unsigned xscale, unsigned threads,
		  struct cipher_vec **ret, struct err *e) MUST_CHECK;

/*
 * Several numbers in one plaintext, `per` of them with `bits` bits each: one
 * encryption, one ciphertext on the wire and one decryption for all. Numbers
 * are signed and at their scale below 2^(bits - 1) in magnitude, and so must
 * be every sum that is made of them: a larger one spills into its neighbour,
 * which nobody notices. So bits are those of the largest number, one for the
 * sign, and log2 of the most that are added. Vectors of n numbers have
 * ceil(n / per) ciphertexts; cipher_add, _rerandomise and _histogram work on
 * them, and _mul_plain and _matvec with factors that are integers (scale 0).
 */
struct packing {
	unsigned bits, per;
};
/* The most numbers of so many bits: (key's bits - 2) / bits; (|p| - 128) /
 * bits. */
unsigned paillier_pack_most(const struct paillier_public *k, unsigned bits);
/* Before encryption; owner NULL: with the public key k. */
int paillier_encrypt_packed(const struct paillier_public *k,
			    const struct paillier_private *owner,
			    const double *v, size_t n, unsigned scale,
			    const struct packing *p, unsigned threads,
			    struct cipher_vec **ret, struct err *e) MUST_CHECK;
/* After aggregation: ciphertexts of one number each become few. */
int cipher_pack(const struct cipher_vec *a, const struct packing *p,
		unsigned threads, struct cipher_vec **ret,
		struct err *e) MUST_CHECK;
/* n numbers out of ceil(n / per) ciphertexts. */
int paillier_decrypt_packed(const struct paillier_private *k,
			    const struct cipher_vec *v, const struct packing *p,
			    double *out, size_t n, unsigned threads,
			    struct err *e) MUST_CHECK;

/*
 * Inner products with packed vectors: what cipher_matvec does, for d that
 * paillier_encrypt_packed made of `rows` numbers (or sums of such), `per` rows
 * to a ciphertext: an encryption, a record on the wire and a table of powers
 * for `per` rows. Each |d_i| and each column's sums of |x_ij d_k| over pairs of
 * rows, no row in two pairs, plain_j included, are below 2^(bits - 1) at their
 * scales; a larger one spoils its neighbours, which nobody notices. Per is at
 * most paillier_dot_most().
 *
 * Only cipher_dot_end makes ret fit to be sent: it adds plain_j, hides what
 * the plaintext holds beside the product, and gives fresh randomness.
 * paillier_decrypt_dot gives the products; one in 2^40 and fewer is one off in
 * its last place (cipher_dot.c).
 */
unsigned paillier_dot_most(const struct paillier_public *k, unsigned bits);
int cipher_dot(const struct cipher_vec *d, const struct packing *p,
	       const double *x, size_t rows, size_t cols, unsigned xscale,
	       unsigned threads, struct cipher_vec **ret,
	       struct err *e) MUST_CHECK;
int cipher_dot_end(struct cipher_vec *a, const struct packing *p,
		   const double *plain, unsigned threads,
		   struct err *e) MUST_CHECK;
int paillier_decrypt_dot(const struct paillier_private *k,
			 const struct cipher_vec *v, const struct packing *p,
			 double *out, unsigned threads,
			 struct err *e) MUST_CHECK;

/*
 * Histogram sums (as SecureBoost, Cheng et al. 2019, makes them of gradients):
 * element f * bins + b of ret is the sum of the d_i whose row i has bin b of
 * feature f, bin[i * features + f] = b. Rows with a bin >= bins are left out
 * (a missing value). Bins decide which memory is touched: not constant time
 * in them, who calls it owns them. An empty bin is an encryption of 0 without
 * randomness: call cipher_rerandomise before sending.
 */
int cipher_histogram(const struct cipher_vec *d, const uint16_t *bin,
		     size_t rows, size_t features, unsigned bins,
		     unsigned threads, struct cipher_vec **ret,
		     struct err *e) MUST_CHECK;
/* a -= b: the bins of one child out of those of the parent and the other. */
int cipher_sub(struct cipher_vec *a, const struct cipher_vec *b,
	       unsigned threads, struct err *e) MUST_CHECK;

#endif
