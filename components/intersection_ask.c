// SPDX-License-Identifier: Apache-2.0
/* Intersection: the side that asks which of its ids others have. */
#include <string.h>

#include "components/intersection.h"

struct match {
	uint32_t row, place;
};

void psi_asking_begin(struct psi_asking *a, struct psi *p, struct psi_ask *ask,
		      size_t n)
{
	memset(a, 0, sizeof(*a));
	a->p = p;
	a->ask = ask;
	a->n = n;
	a->reader.share = ask->share;
	a->width = psi_width(ask->side);
	a->pieces = psi_pieces(p, a->width, p->share[ask->share]);
	/* Answers that lose their order come when all has been asked. */
	a->window = p->cardinality ? a->pieces : p->limits->window;
	a->ahead = p->cardinality ? 1 : a->window + 1;
	a->ring = xcalloc(a->ahead, sizeof(struct psi_block *));
	for (size_t i = 0; i < a->ahead; i++)
		a->ring[i] = psi_block_new(psi_piece(p, a->width));
	for (size_t i = 0; i < n; i++) {
		size_t secret =
		    psi_piece(p, a->width) * psi_secret_width(ask[i].side);

		ask[i].tags = psi_spool(p, PSI_RECORD, PSI_TAG);
		ask[i].secret = xcalloc(a->ahead, secret);
	}
}

void psi_asking_end(struct psi_asking *a)
{
	for (size_t i = 0; a->ring && i < a->ahead; i++)
		psi_block_free(a->ring[i]);
	free(a->ring);
	psi_reader_end(&a->reader);
}

size_t psi_asking_steps(const struct psi_asking *a)
{
	return a->pieces ? a->pieces + a->window : 0;
}

static uint8_t *secrets(const struct psi_asking *a, const struct psi_ask *ask,
			size_t k)
{
	return ask->secret + k % a->ahead * psi_piece(a->p, a->width) *
				 psi_secret_width(ask->side);
}

static int ask_piece(struct psi_asking *a, size_t k, struct err *e)
{
	struct psi_block *b = a->ring[k % a->ahead];
	_cleanup_free_ uint8_t *out = xmalloc(b->room * a->width);
	int rc = psi_read(a->p, &a->reader, b, e);

	for (size_t i = 0; i < a->n && rc == 0; i++) {
		struct psi_ask *ask = &a->ask[i];

		/* Who shares another's side is sent the same elements. */
		if (!ask->borrowed)
			rc = psi_blind(ask->side, &b->ids, a->p->cores, out,
				       secrets(a, ask, k), e);
		if (rc == 0)
			rc = psi_send_piece(a->p, ask->role, ask->index,
					    psi_names(a->p, ask->share)->ask, k,
					    out, a->width, b->ids.n, e);
	}
	return rc;
}

static int take_answer(struct psi_asking *a, struct psi_ask *ask, size_t k,
		       struct err *e)
{
	struct psi *p = a->p;
	struct psi_block *b = a->ring[k % a->ahead];
	size_t n = psi_piece_len(p, a->width, p->share[ask->share], k);
	_cleanup_free_ uint8_t *v = NULL, *tags = xmalloc(n * PSI_TAG + 1);
	_cleanup_free_ uint8_t *records = xmalloc(n * PSI_RECORD + 1);
	struct psi_ids ids = b->ids;
	int rc = psi_recv_piece(p, ask->role, ask->index,
				psi_names(p, ask->share)->answer, k, a->width,
				n, &v, e);

	ids.n = n;
	if (rc == 0)
		rc = psi_unblind(ask->side, &ids, v, secrets(a, ask, k),
				 p->cores, tags, e);
	if (rc < 0)
		return rc;
	for (size_t j = 0; j < n; j++) {
		uint8_t *r = records + j * PSI_RECORD;

		memcpy(r, tags + j * PSI_TAG, PSI_TAG);
		memcpy(r + PSI_TAG, p->cardinality ? &b->row[0] : &b->row[j],
		       sizeof(uint32_t));
	}
	return spool_add(ask->tags, records, n, e);
}

int psi_asking_step(struct psi_asking *a, size_t k, struct err *e)
{
	int rc = k < a->pieces ? ask_piece(a, k, e) : 0;

	for (size_t i = 0; i < a->n && rc == 0 && k >= a->window; i++)
		rc = take_answer(a, &a->ask[i], k - a->window, e);
	return rc;
}

/* ---- joining ------------------------------------------------------------- */

static int take_match(struct psi_ask *a, const uint8_t *record, uint32_t place,
		      struct err *e)
{
	struct match m = { .place = place };

	a->matched++;
	if (a->p->cardinality)
		return 0;
	memcpy(&m.row, record + PSI_TAG, sizeof(m.row));
	a->p->keep[m.row]++;
	return spool_add(a->matches, &m, 1, e);
}

/* A piece of the answerer's list against the own tags, which *own points
 * into (NULL when they are through). Both ascend. */
static int join_piece(struct psi_ask *a, const uint8_t *list, size_t n,
		      uint32_t place, const uint8_t **own, struct err *e)
{
	for (size_t j = 0; j < n && *own; j++) {
		int order = 1;

		while (*own && (order = memcmp(*own, list + j * PSI_TAG,
					       PSI_TAG)) <= 0) {
			const void *next;
			int rc = 0;

			if (order == 0)
				rc =
				    take_match(a, *own, place + (uint32_t)j, e);
			if (rc == 0)
				rc = spool_next(a->tags, &next, e);
			if (rc < 0)
				return rc;
			*own = rc > 0 ? next : NULL;
		}
	}
	return 0;
}

static int sorted(struct psi *p, uint8_t last[PSI_TAG], const uint8_t *list,
		  size_t n, bool first, struct err *e)
{
	for (size_t j = 0; j < n; j++) {
		if ((j || !first) && memcmp(j ? list + (j - 1) * PSI_TAG : last,
					    list + j * PSI_TAG, PSI_TAG) >= 0)
			return psi_fail(p, e, "a list that is not sorted");
	}
	if (n)
		memcpy(last, list + (n - 1) * PSI_TAG, PSI_TAG);
	return 0;
}

static int next_piece(struct psi_ask *a, struct spool *known, size_t k,
		      size_t n, uint8_t **ret, struct err *e)
{
	size_t got = 0;
	int rc;

	if (!known)
		return psi_recv_piece(a->p, a->role, a->index,
				      psi_names(a->p, a->share)->list, k,
				      PSI_TAG, n, ret, e);
	*ret = xmalloc(n * PSI_TAG + 1);
	rc = spool_read(known, *ret, n, &got, e);
	return rc == 0 && got != n ? err_set(e, EIO, "the cached list is short")
				   : rc;
}

int psi_ask_join(struct psi_ask *a, struct spool *known, struct spool *copy,
		 struct err *e)
{
	struct psi *p = a->p;
	uint8_t last[PSI_TAG];
	const void *first = NULL;
	const uint8_t *own;
	int rc = spool_next(a->tags, &first, e);

	own = rc > 0 ? first : NULL;
	a->matches = psi_spool(p, sizeof(struct match), 0);
	for (size_t k = 0; k < psi_pieces(p, PSI_TAG, a->count) && rc >= 0;
	     k++) {
		size_t n = psi_piece_len(p, PSI_TAG, a->count, k);
		_cleanup_free_ uint8_t *list = NULL;

		rc = next_piece(a, known, k, n, &list, e);
		if (rc == 0)
			rc = sorted(p, last, list, n, k == 0, e);
		if (rc == 0)
			rc = join_piece(a, list, n,
					(uint32_t)(k * psi_piece(p, PSI_TAG)),
					&own, e);
		if (rc == 0 && copy)
			rc = spool_add(copy, list, n, e);
	}
	spool_free(a->tags);
	a->tags = NULL;
	return rc < 0 ? rc : 0;
}

static int send_places(struct psi_ask *a, size_t k, const uint32_t *place,
		       size_t n, struct err *e)
{
	char tag[24];

	(void)snprintf(tag, sizeof(tag), "%zu", k);
	return ctx_send_u32(a->p->c, a->role, a->index,
			    psi_names(a->p, a->share)->places, tag, place, n,
			    e);
}

/* The last message is one that is not full. */
int psi_ask_tell(struct psi_ask *a, unsigned need, struct err *e)
{
	struct psi *p = a->p;
	size_t room = psi_piece(p, sizeof(uint32_t)), n = 0, k = 0;
	_cleanup_free_ uint32_t *place = xcalloc(room, sizeof(*place));
	const void *m;
	int rc;

	while ((rc = spool_next(a->matches, &m, e)) > 0) {
		struct match match;

		memcpy(&match, m, sizeof(match));
		if (p->keep[match.row] != need)
			continue;
		place[n++] = match.place;
		if (n < room)
			continue;
		rc = send_places(a, k++, place, n, e);
		if (rc < 0)
			return rc;
		n = 0;
	}
	return rc < 0 ? rc : send_places(a, k, place, n, e);
}

void psi_ask_end(struct psi_ask *a)
{
	if (!a->borrowed)
		psi_free(a->side);
	free(a->secret);
	spool_free(a->tags);
	spool_free(a->matches);
}
