// SPDX-License-Identifier: Apache-2.0
/* Intersection: the side that answers with its key. */
#include <string.h>

#include "components/intersection.h"

static int send_key(struct psi_reply *r, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
	const char *name = psi_names(r->p, r->share)->key;

	if (!name)
		return 0; /* a method without public keys */
	if (psi_public(r->side, &sb) < 0)
		return err_set(e, ENOMEM, "a public key");
	return ctx_send_bytes(r->p->c, r->role, r->index, name, "", sb.buf,
			      sb.len, e);
}

int psi_reply_open(struct psi_reply *r, struct err *e)
{
	struct psi *p = r->p;
	size_t width;
	int rc = 0;

	if (!r->side)
		rc = psi_answerer(p->method, p->bits, p->salt, &r->side, e);
	if (rc == 0)
		rc = send_key(r, e);
	if (rc < 0)
		return rc;
	width = psi_width(r->side);
	r->reader.share = r->share;
	r->own = p->share[r->share];
	r->block = psi_block_new(psi_piece(p, width));
	if (!r->list)
		r->list = psi_spool(p, PSI_RECORD, PSI_TAG);
	if (p->cardinality)
		r->mixed = psi_spool(p, width, width);
	return 0;
}

void psi_reply_end(struct psi_reply *r)
{
	psi_reader_end(&r->reader);
	psi_block_free(r->block);
	psi_free(r->side);
	spool_free(r->list);
	spool_free(r->mixed);
}

size_t psi_reply_steps(const struct psi_reply *r)
{
	size_t width = psi_width(r->side);
	size_t own = r->listed ? 0 : psi_pieces(r->p, width, r->own);

	return MAX(own, psi_pieces(r->p, width, r->count));
}

static int answer_piece(struct psi_reply *r, size_t k, struct err *e)
{
	struct psi *p = r->p;
	const struct psi_names *names = psi_names(p, r->share);
	size_t width = psi_width(r->side);
	size_t n = psi_piece_len(p, width, r->count, k);
	_cleanup_free_ uint8_t *v = NULL;
	int rc;

	if (n == 0)
		return 0;
	rc = psi_recv_piece(p, r->role, r->index, names->ask, k, width, n, &v,
			    e);
	if (rc == 0)
		rc = psi_answer(r->side, v, n, p->cores, v, e);
	if (rc < 0)
		return rc;
	return r->mixed ? spool_add(r->mixed, v, n, e)
			: psi_send_piece(p, r->role, r->index, names->answer, k,
					 v, width, n, e);
}

static int list_piece(struct psi_reply *r, struct err *e)
{
	struct psi *p = r->p;
	struct psi_block *b = r->block;
	_cleanup_free_ uint8_t *tags = xmalloc(b->room * PSI_TAG);
	_cleanup_free_ uint8_t *records = xmalloc(b->room * PSI_RECORD);
	int rc = psi_read(p, &r->reader, b, e);

	if (rc == 0)
		rc = psi_tags(r->side, &b->ids, p->cores, tags, e);
	for (size_t j = 0; rc == 0 && j < b->ids.n; j++) {
		uint8_t *to = records + j * PSI_RECORD;

		memcpy(to, tags + j * PSI_TAG, PSI_TAG);
		memcpy(to + PSI_TAG, &b->row[j], sizeof(uint32_t));
	}
	return rc < 0 ? rc : spool_add(r->list, records, b->ids.n, e);
}

int psi_reply_step(struct psi_reply *r, size_t k, struct err *e)
{
	int rc = answer_piece(r, k, e);

	if (rc == 0 && !r->listed && spool_count(r->list) < r->own)
		rc = list_piece(r, e);
	return rc;
}

/* The first `width` bytes of a spool's records, all of them in its order. */
static int send_all(struct psi_reply *r, struct spool *s, const char *name,
		    size_t width, struct err *e)
{
	struct psi *p = r->p;
	size_t count = (size_t)spool_count(s);
	_cleanup_free_ uint8_t *v = xmalloc(psi_piece(p, width) * width);
	int rc = spool_rewind(s, e);

	for (size_t k = 0; k < psi_pieces(p, width, count) && rc == 0; k++) {
		size_t n = psi_piece_len(p, width, count, k);
		const void *record;

		for (size_t j = 0; j < n; j++) {
			rc = spool_next(s, &record, e);
			if (rc < 0)
				return rc;
			if (rc > 0)
				memcpy(v + j * width, record, width);
		}
		rc = psi_send_piece(p, r->role, r->index, name, k, v, width, n,
				    e);
	}
	return rc;
}

int psi_reply_finish(struct psi_reply *r, bool list, struct err *e)
{
	const struct psi_names *names = psi_names(r->p, r->share);
	int rc = 0;

	if (r->mixed)
		rc =
		    send_all(r, r->mixed, names->answer, psi_width(r->side), e);
	if (rc == 0 && list)
		rc = send_all(r, r->list, names->list, PSI_TAG, e);
	return rc;
}

/* Walks the list to a place and keeps the row that stands there. */
static int keep_places(struct psi_reply *r, const uint32_t *place, size_t n,
		       uint64_t *at, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		const void *record = NULL;
		uint32_t row;

		if (place[i] >= spool_count(r->list) || place[i] < *at)
			return psi_fail(r->p, e,
					"a place that is not in the list");
		while (*at <= place[i]) {
			int rc = spool_next(r->list, &record, e);

			if (rc <= 0)
				return rc < 0 ? rc
					      : err_set(e, EIO,
							"the list is short");
			(*at)++;
		}
		memcpy(&row, (const uint8_t *)record + PSI_TAG, sizeof(row));
		r->p->keep[row]++;
	}
	return 0;
}

int psi_reply_hear(struct psi_reply *r, uint32_t *count, struct err *e)
{
	struct psi *p = r->p;
	size_t room = psi_piece(p, sizeof(uint32_t)), n = room;
	uint64_t at = 0;
	int rc = spool_rewind(r->list, e);

	*count = 0;
	for (size_t k = 0; rc == 0 && n == room; k++) {
		_cleanup_free_ uint32_t *place = NULL;
		char tag[24];

		(void)snprintf(tag, sizeof(tag), "%zu", k);
		rc = ctx_recv_u32(p->c, r->role, r->index,
				  psi_names(p, r->share)->places, tag, room,
				  &place, &n, e);
		if (rc == 0)
			rc = keep_places(r, place, n, &at, e);
		if (rc == 0)
			*count += (uint32_t)n;
	}
	return rc;
}
