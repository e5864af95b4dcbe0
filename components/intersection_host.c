// SPDX-License-Identifier: Apache-2.0
/* Intersection at a host. */
#include <string.h>

#include "components/crypto/util.h"
#include "components/intersection.h"

static int host_hello(struct psi *p, uint32_t *guest_rows, struct err *e)
{
	size_t n = ctx_count(p->c, "host") + 1, got = 0;
	uint8_t own[PSI_SALT], guest[PSI_SALT];
	_cleanup_free_ uint8_t *all = NULL;
	json_t *v;
	int rc;

	crypto_random(own, sizeof(own));
	v = psi_hello(p, own);
	rc = ctx_send_json(p->c, "guest", 0, "host_hello", "", v, e);
	json_decref(v);
	v = NULL;
	if (rc == 0)
		rc = ctx_recv_json(p->c, "guest", 0, "guest_hello", "", &v, e);
	if (rc == 0)
		rc = psi_read_hello(p, v, guest, guest_rows, e);
	json_decref(v);
	if (rc == 0)
		rc = ctx_recv_fixed(p->c, "guest", 0, "salts", "", PSI_SALT, n,
				    &all, &got, e);
	if (rc < 0)
		return rc;
	if (!all || got != n || memcmp(all, guest, PSI_SALT) != 0 ||
	    memcmp(all + (ctx_index(p->c) + 1) * PSI_SALT, own, PSI_SALT) != 0)
		return psi_fail(p, e, "the guest changed a salt");
	psi_mix_salt(p, all, n);
	return 0;
}

/* Signs exactly as many numbers as the guest announced ids. */
static int host_rsa(struct psi *p, uint32_t guest_rows, struct tag **own,
		    struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1024);
	struct psi_rsa *key = NULL;
	char tag[24];
	int rc = psi_rsa_keygen(p->key_length, &key, e);

	if (rc == 0)
		rc = psi_rsa_public(key, &sb);
	if (rc == 0)
		rc = ctx_send_bytes(p->c, "guest", 0, "host_pubkey", "", sb.buf,
				    sb.len, e);
	for (size_t k = 0; k < psi_blocks(guest_rows) && rc == 0; k++) {
		_cleanup_free_ uint8_t *v = NULL;
		size_t n = psi_block_len(guest_rows, k);

		rc = psi_recv_exact(p, "guest", 0, "guest_pubkey_ids", k,
				    psi_rsa_width(key), n, &v, e);
		if (rc == 0)
			rc = psi_rsa_sign(key, v, n, p->cores, v, e);
		if (rc == 0)
			rc = ctx_send_fixed(
			    p->c, "guest", 0, "host_sign_guest_ids",
			    psi_block_tag(tag, k), v, psi_rsa_width(key), n, e);
		ctx_progress(p->c,
			     0.45 * (double)k / (double)psi_blocks(guest_rows));
	}
	p->done = 0.45;
	if (rc == 0)
		rc = psi_own_tags(p, key, own, 0.45, e);
	if (rc == 0)
		rc = psi_send_tags(p, "guest", 0, "host_prvkey_ids", *own, e);
	psi_rsa_free(key);
	return rc;
}

static int host_ecdh(struct psi *p, uint32_t guest_rows, struct tag **own,
		     struct err *e)
{
	uint8_t last[PSI_TAG] = { 0 };
	char tag[24];
	int rc = psi_own_tags(p, NULL, own, 0.45, e);

	if (rc == 0)
		rc = psi_send_tags(p, "guest", 0, "id_ciphertext_exchange_h2g",
				   *own, e);
	for (size_t k = 0; k < psi_blocks(guest_rows) && rc == 0; k++) {
		_cleanup_free_ uint8_t *v = NULL;
		size_t n = psi_block_len(guest_rows, k);

		rc = psi_recv_exact(p, "guest", 0, "id_ciphertext_exchange_g2h",
				    k, PSI_TAG, n, &v, e);
		/* Sorted and without repetitions, or it is no set of ids. */
		for (size_t j = 0; rc == 0 && j < n; j++) {
			if ((k || j) &&
			    memcmp(last, v + j * PSI_TAG, PSI_TAG) >= 0)
				rc =
				    psi_fail(p, e, "a list that is not sorted");
			memcpy(last, v + j * PSI_TAG, PSI_TAG);
		}
		if (rc == 0)
			rc = psi_ecdh_points(p->key, v, n, p->cores, v, e);
		if (rc == 0)
			rc = ctx_send_fixed(
			    p->c, "guest", 0, "doubly_encrypted_id",
			    psi_block_tag(tag, k), v, PSI_TAG, n, e);
		ctx_progress(p->c, 0.45 + 0.45 * (double)k /
					      (double)psi_blocks(guest_rows));
	}
	return rc;
}

static int host_match(struct psi *p, const struct tag *own, uint32_t guest_rows,
		      uint32_t *count, struct err *e)
{
	_cleanup_free_ uint32_t *place = NULL;
	size_t n;
	int rc;

	*count = 0;
	if (!p->sync)
		return 0;
	rc = ctx_recv_u32(p->c, "guest", 0, "intersect_ids", "",
			  MIN(p->rows, guest_rows), &place, &n, e);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		if (place[i] >= p->rows || (i > 0 && place[i] <= place[i - 1]))
			rc = psi_fail(p, e, "a place that is not in the list");
		else
			p->keep[own[place[i]].at] = 1;
	}
	if (rc == 0)
		*count = (uint32_t)n;
	return rc;
}

int intersection_host(struct psi *p, uint32_t *count, struct err *e)
{
	_cleanup_free_ struct tag *own = NULL;
	uint32_t guest_rows;
	int rc = host_hello(p, &guest_rows, e);

	if (rc == 0)
		rc = p->rsa ? host_rsa(p, guest_rows, &own, e)
			    : host_ecdh(p, guest_rows, &own, e);
	return rc < 0 ? rc : host_match(p, own, guest_rows, count, e);
}
