/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identities and secrets of rollsite: who a certificate speaks for, signatures
 * by the party's TLS key, and sealing for a party that is reached through
 * others (secure.c: certificates and signatures, seal.c: HPKE, base64.c).
 *
 * All functions may be called from any thread.
 */
#ifndef TRANSFER_SECURE_H
#define TRANSFER_SECURE_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "lib/conf.h"
#include "lib/err.h"
#include "lib/strbuf.h"

/*
 * The certificate, key and CA of the configuration, read again whenever one
 * of the three files has changed (device, inode, size, mtime, ctime); a set
 * that does not fit together, is not of this party, or is not valid now is
 * refused with a log line and the old one stays in use.  Only at the start is
 * a certificate taken that has expired, with a warning.  conf outlives it.
 */
struct identity;
int identity_open(const struct conf *c, struct identity **ret,
		  struct err *e) MUST_CHECK;
void identity_close(struct identity *id);
/* Looks at the files; true when a new set was taken into use (the same bytes
 * in a new file are no new set).  Cheap: three stats. */
bool identity_refresh(struct identity *id);
/* Grows with every set that was taken into use; connections of an older one
 * are not used again. */
uint64_t identity_generation(struct identity *id);
/* The PEM texts in use (certificate chain, key, CA); the caller frees with
 * sb_free; key is wiped by the caller (explicit_bzero).  What the buffers held
 * is overwritten, not freed. */
int identity_pem(struct identity *id, struct strbuf *cert, struct strbuf *key,
		 struct strbuf *ca, struct err *e) MUST_CHECK;
/* notAfter of our own certificate, Unix ms. */
int64_t identity_expires_ms(struct identity *id);

/*
 * The party that a certificate speaks for: the chain (DER, leaf first, at most
 * 8) leads to the CA, is valid now, may serve both ends of TLS and signatures,
 * and carries exactly one rollfs: URI, rollfs://<federation>/party/<id>.
 * *ret_party (16 bytes) is "" otherwise and the error (-EACCES) says why.
 * ret_cert (may be NULL) gets the leaf, the caller's to X509_free;
 * ret_expires_ms (may be NULL) its notAfter.
 */
struct der {
	const void *data;
	size_t n;
};
int identity_verify(struct identity *id, const struct der *chain, size_t n,
		    char ret_party[16], X509 **ret_cert,
		    int64_t *ret_expires_ms, struct err *e) MUST_CHECK;
/* The same for PEM text (leaf first, at most 64 KiB). */
int identity_verify_pem(struct identity *id, const char *pem,
			char ret_party[16], X509 **ret_cert,
			int64_t *ret_expires_ms, struct err *e) MUST_CHECK;

/* Signature by the key of our certificate (ECDSA or RSA-PSS with SHA-256,
 * Ed25519) over domain, LF and the data; base64 text, the caller frees. */
int identity_sign(struct identity *id, const char *domain, const void *data,
		  size_t n, char **ret, struct err *e) MUST_CHECK;
/* 0, or -EBADMSG when it is not the signature of the certificate's key. */
int signature_check(X509 *cert, const char *domain, const void *data, size_t n,
		    const char *signature, struct err *e) MUST_CHECK;

/* ---- HPKE (RFC 9180), base mode ---------------------------------------- */
/*
 * DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.  One message per
 * context (sequence number 0), and one exported secret for the answer.
 */
#define SEAL_KEY      32 /* public key, private key, shared secrets */
#define SEAL_OVERHEAD 16 /* tag of AES-256-GCM */

int seal_keypair(uint8_t priv[SEAL_KEY], uint8_t pub[SEAL_KEY]) MUST_CHECK;
/*
 * Seals n bytes to pub.  ret_enc is the encapsulated key; out has room for
 * n + SEAL_OVERHEAD bytes and may be the same memory as data.  ret_answer gets
 * 32 bytes exported with the context "rollfs answer" (the receiver gets the
 * same): the key for seal_answer.  -EINVAL: pub is no key that anything could
 * be sealed to; -EIO only when OpenSSL fails.
 */
int seal(const uint8_t pub[SEAL_KEY], const void *info, size_t info_n,
	 const void *aad, size_t aad_n, const void *data, size_t n,
	 uint8_t ret_enc[SEAL_KEY], void *out,
	 uint8_t ret_answer[SEAL_KEY]) MUST_CHECK;
/* The reverse: n includes the tag, out has room for n - SEAL_OVERHEAD (in
 * place allowed; wiped on failure).  -EBADMSG: not sealed to this key, or
 * changed. */
int seal_open(const uint8_t priv[SEAL_KEY], const uint8_t pub[SEAL_KEY],
	      const uint8_t enc[SEAL_KEY], const void *info, size_t info_n,
	      const void *aad, size_t aad_n, const void *data, size_t n,
	      void *out, uint8_t ret_answer[SEAL_KEY]) MUST_CHECK;
/* AES-256-GCM under the exported key with nonce 0: exactly one answer may
 * ever be sealed under it (RFC 9180 section 9.8). */
int seal_answer(const uint8_t key[SEAL_KEY], const void *data, size_t n,
		void *out) MUST_CHECK;
int seal_open_answer(const uint8_t key[SEAL_KEY], const void *data, size_t n,
		     void *out) MUST_CHECK;

/* ---- small things ------------------------------------------------------ */

/* Standard base64 with padding; decode gives the length or -EINVAL (also when
 * it would not fit into max, or has other characters). */
char *base64_encode(const void *data, size_t n);
ssize_t base64_decode(const char *text, void *out, size_t max) MUST_CHECK;

#endif
