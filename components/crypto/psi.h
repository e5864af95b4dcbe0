/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private set intersection: what one party computes on its own side.  The
 * messages between them are the Intersection component's.
 *
 * RSA (blind signatures). The host holds a key. Its tag of an id is
 * SHA-256(FDH(id)^d). The guest blinds FDH(id) with r^e, r uniform in Z_n^*,
 * has it signed, divides by r and hashes: the same tag, and the host has seen
 * a uniform number. FDH is SHAKE256 to 128 bits more than n, reduced: no
 * product of hashes is a hash.
 *
 * ECDH (curve25519). The tag of an id is (ab) H(id), a and b one secret
 * scalar of each party, by X25519. H is RFC 9380's
 * curve25519_XMD:SHA-512_ELL2_NU_ without its sign (X25519 knows only u, and
 * its clamped scalars clear the cofactor): nobody knows logarithms between
 * hashes.
 *
 * Both hash salt || id; the salt is the job's and no one party chose it.
 */
#ifndef COMPONENTS_CRYPTO_PSI_H
#define COMPONENTS_CRYPTO_PSI_H

#include "lib/err.h"
#include "lib/strbuf.h"

#define PSI_TAG	 32 /* bytes of a tag, a point, a salt */
#define PSI_SALT 32

/* The ids of a block, one behind the other. */
struct psi_ids {
	const char *text;
	const uint32_t *end; /* of id i in text; it begins at end[i - 1] */
	size_t n;
};

struct psi_rsa; /* the key, private at the host and public at the guest */

int psi_rsa_keygen(unsigned bits, struct psi_rsa **ret,
		   struct err *e) MUST_CHECK;
/* The modulus, big endian, as it travels (e is 65537). */
int psi_rsa_public(const struct psi_rsa *k, struct strbuf *sb) MUST_CHECK;
/* A modulus from a peer: 1024..8192 bits, odd, no small factor. */
int psi_rsa_read(const void *n, size_t len, struct psi_rsa **ret,
		 struct err *e) MUST_CHECK;
void psi_rsa_free(struct psi_rsa *k);
size_t psi_rsa_width(const struct psi_rsa *k); /* bytes of a number */
/* Host: n tags of its own ids. */
int psi_rsa_tags(const struct psi_rsa *k, const uint8_t salt[PSI_SALT],
		 const struct psi_ids *ids, unsigned threads, uint8_t *tags,
		 struct err *e) MUST_CHECK;
/* Host: n numbers of a guest signed; in may be out. -EPROTO for 0 or >= n. */
int psi_rsa_sign(const struct psi_rsa *k, const uint8_t *in, size_t n,
		 unsigned threads, uint8_t *out, struct err *e) MUST_CHECK;
/* Guest: blinded numbers into out, and into secret what unblind needs, both
 * n * width. */
int psi_rsa_blind(const struct psi_rsa *k, const uint8_t salt[PSI_SALT],
		  const struct psi_ids *ids, unsigned threads, uint8_t *out,
		  uint8_t *secret, struct err *e) MUST_CHECK;
/* Guest: tags from the signatures, each of which is verified (-EPROTO). */
int psi_rsa_unblind(const struct psi_rsa *k, const uint8_t salt[PSI_SALT],
		    const struct psi_ids *ids, const uint8_t *signature,
		    const uint8_t *secret, unsigned threads, uint8_t *tags,
		    struct err *e) MUST_CHECK;

/* u-coordinate of H(salt || id). */
void psi_hash_to_curve(const uint8_t *salt, size_t salt_len, const char *id,
		       size_t id_len, const char *dst, uint8_t ret[PSI_TAG]);
/* key = a fresh secret scalar. */
void psi_ecdh_key(uint8_t key[PSI_TAG]);
/* key * H(id) for every id. */
int psi_ecdh_ids(const uint8_t key[PSI_TAG], const uint8_t salt[PSI_SALT],
		 const struct psi_ids *ids, unsigned threads, uint8_t *out,
		 struct err *e) MUST_CHECK;
/* key * P for n points; -EPROTO when one is of small order. in may be out. */
int psi_ecdh_points(const uint8_t key[PSI_TAG], const uint8_t *in, size_t n,
		    unsigned threads, uint8_t *out, struct err *e) MUST_CHECK;

#endif
