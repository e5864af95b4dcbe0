/* SPDX-License-Identifier: Apache-2.0 */
/* psi*.c only: what a method of intersection is made of. */
#ifndef COMPONENTS_CRYPTO_PSI_PRIV_H
#define COMPONENTS_CRYPTO_PSI_PRIV_H

#include <gmp.h>
#include <openssl/types.h>

#include "components/crypto/modexp.h"
#include "components/crypto/psi.h"

#define PSI_BITS_MAX 8192 /* of numbers that are elements */
#define PSI_BATCH    512 /* ids that go through a method's functions together */

/* All functions of batches: n <= PSI_BATCH on the calling thread; 0, -EPROTO
 * or -EIO. */
struct psi_ops {
	bool verifies; /* unblind looks at the hashes of the ids again */
	int (*keygen)(struct psi_side *s, unsigned bits, struct err *e);
	int (*asker)(struct psi_side *s, unsigned bits, const void *public,
		     size_t len, struct err *e);
	int (*load)(struct psi_side *s, unsigned bits, const void *key,
		    size_t len, struct err *e);
	int (*save)(const struct psi_side *s, struct strbuf *sb);
	int (*public)(const struct psi_side *s, struct strbuf *sb);
	void (*free)(struct psi_side *s);
	/* H of ids lo .. lo + n - 1 as elements. */
	void (*hash)(const struct psi_side *s, EVP_MD_CTX *md,
		     const struct psi_ids *ids, size_t lo, size_t n,
		     uint8_t *out);
	/* Elements hashed to elements for the wire. */
	int (*blind)(const struct psi_side *s, const uint8_t *hashed, size_t n,
		     uint8_t *out, uint8_t *secret);
	int (*answer)(const struct psi_side *s, const uint8_t *in, size_t n,
		      uint8_t *out);
	/* hashed is NULL unless the method verifies. */
	int (*unblind)(const struct psi_side *s, const uint8_t *hashed,
		       const uint8_t *in, const uint8_t *secret, size_t n,
		       uint8_t *out);
};

struct psi_side {
	const struct psi_ops *ops;
	uint8_t salt[PSI_SALT];
	size_t width, secret_width;
	void *k; /* the method's */
};

extern const struct psi_ops psi_rsa_ops, psi_ecdh_ops, psi_dh_ops;

/* SHAKE256(domain || salt || id), `width` + 16 bytes: a number that modulo one
 * of width bytes is as good as uniform. */
void psi_wide_hash(const struct psi_side *s, EVP_MD_CTX *md, const char *domain,
		   const struct psi_ids *ids, size_t i, uint8_t *out);

/* The same of ids lo .. lo + n - 1, modulo m, as modexp.h's numbers. */
void psi_hash_numbers(const struct psi_side *s, const struct modexp *m,
		      EVP_MD_CTX *md, const char *domain,
		      const struct psi_ids *ids, size_t lo, size_t n,
		      mp_limb_t *v);
/* Numbers of `limbs` limbs each as elements, and back. */
void psi_numbers_out(const struct psi_side *s, const mp_limb_t *v, size_t limbs,
		     uint8_t *out, size_t n);
void psi_numbers_in(const struct psi_side *s, mp_limb_t *v, size_t limbs,
		    const uint8_t *in, size_t n);

#endif
