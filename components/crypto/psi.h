/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private set intersection: what one party computes on its own side.  The
 * messages between them are the Intersection component's.
 *
 * One party asks which of its ids another one has; that one answers with a
 * key.  An element is what an id is mapped to and travels as:
 *
 *	asker				answerer
 *	blind(H(id))		->	answer() = its key applied
 *	unblind()		<-
 *	= key applied to H(id)		key applied to H(own id)
 *
 * Both sides' tags are hashes of these, equal where the ids are.  The
 * answerer has seen elements that say nothing of the ids, the asker knows
 * nothing of ids it does not have.
 *
 * RSA (Chaum's blind signatures): H is SHAKE256 to 128 bits more than n,
 * reduced (no product of hashes is a hash); the key is d; the blinding r^e
 * with a fresh r, uniform in Z_n^*, for each id.  The asker verifies.
 *
 * ECDH (curve25519): H is RFC 9380's curve25519_XMD:SHA-512_ELL2_NU_ without
 * its sign (X25519 knows only u, and its clamped scalars clear the cofactor);
 * the key is a scalar; the blinding a scalar r of the asker, for all ids, and
 * r^-1 takes it away.
 *
 * DH: in the squares modulo a safe prime of RFC 3526; the key is an exponent x,
 * 2^x is public; the blinding 2^r with a fresh r for each id, (2^x)^-r takes it
 * away (Jarecki, Krawczyk, Xu 2021).  x and r have twice the bits of the
 * group's strength (RFC 7919, 5.2): 2^r cannot be told from any square if logs
 * are as hard with such exponents as with others (Koshiba, Kurosawa 2004).
 *
 * H takes salt || id; the salt is the job's and no one party chose it.
 */
#ifndef COMPONENTS_CRYPTO_PSI_H
#define COMPONENTS_CRYPTO_PSI_H

#include "lib/err.h"
#include "lib/strbuf.h"

#define PSI_SALT    32
#define PSI_TAG	    16	 /* two of 10^8 random ones are equal: 2^-75 */
#define PSI_KEY_MAX 4096 /* bytes of a key as text of bytes, of either kind */

/* The ids of a block, one behind the other. */
struct psi_ids {
	const char *text;
	const uint32_t *end; /* of id i in text; it begins at end[i - 1] */
	size_t n;
};

enum psi_method { PSI_RSA, PSI_ECDH, PSI_DH };

struct psi_side; /* an asker or an answerer */

/* A fresh key; bits of the RSA modulus or the DH prime (-EINVAL if there is no
 * such group), not looked at by ECDH. */
int psi_answerer(enum psi_method method, unsigned bits,
		 const uint8_t salt[PSI_SALT], struct psi_side **ret,
		 struct err *e) MUST_CHECK;
/* With the answerer's public part, which for RSA is the modulus (-EPROTO
 * unless it has exactly `bits` bits, is odd and without small factors), for DH
 * 2^x (-EPROTO unless it is a square other than 1), for ECDH nothing. */
int psi_asker(enum psi_method method, unsigned bits,
	      const uint8_t salt[PSI_SALT], const void *public, size_t len,
	      struct psi_side **ret, struct err *e) MUST_CHECK;
/* Wipes. NULL is allowed. */
void psi_free(struct psi_side *s);
void psi_freep(struct psi_side **s);
int psi_public(const struct psi_side *s, struct strbuf *sb) MUST_CHECK;
/* The answerer's secret key, for a cache that its owner keeps; and back.
 * -EINVAL when it is none of this method and size. */
int psi_save(const struct psi_side *s, struct strbuf *sb) MUST_CHECK;
int psi_load(enum psi_method method, unsigned bits,
	     const uint8_t salt[PSI_SALT], const void *key, size_t len,
	     struct psi_side **ret, struct err *e) MUST_CHECK;

size_t psi_width(const struct psi_side *s); /* bytes of an element */
/* Bytes per id that the asker keeps between blind and unblind. */
size_t psi_secret_width(const struct psi_side *s);

/* Answerer: tags of its own ids. */
int psi_tags(const struct psi_side *s, const struct psi_ids *ids,
	     unsigned threads, uint8_t *tags, struct err *e) MUST_CHECK;
/* Answerer: n elements of an asker; in may be out. -EPROTO for what is no
 * element. */
int psi_answer(const struct psi_side *s, const uint8_t *in, size_t n,
	       unsigned threads, uint8_t *out, struct err *e) MUST_CHECK;
/* Asker: elements into out, what unblind needs into secret. */
int psi_blind(const struct psi_side *s, const struct psi_ids *ids,
	      unsigned threads, uint8_t *out, uint8_t *secret,
	      struct err *e) MUST_CHECK;
/* Asker: tags from answers. -EPROTO for one that cannot be (RSA: that is no
 * signature of the id; ids are not looked at by others). */
int psi_unblind(const struct psi_side *s, const struct psi_ids *ids,
		const uint8_t *answers, const uint8_t *secret, unsigned threads,
		uint8_t *tags, struct err *e) MUST_CHECK;

/* u-coordinate of RFC 9380's hash of salt || id. */
void psi_hash_to_curve(const uint8_t *salt, size_t salt_len, const char *id,
		       size_t id_len, const char *dst, uint8_t ret[32]);

#endif
