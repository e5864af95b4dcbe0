// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <strings.h>

#include "lib/json.h"

#include "components/linear.h"

/* ---- parameters ------------------------------------------------------- */

static bool is(const json_t *o, const char *key, const char *word)
{
	const char *s = json_str_or(o, key, NULL);

	return s && !strcasecmp(s, word);
}

/* Who holds the key and a side's data can decrypt what the other side sent. */
static void note_double_roles(struct ctx *c)
{
	const char *arbiter = ctx_member(c, "arbiter", 0);

	for (size_t i = 0; i < ctx_count(c, "host"); i++)
		if (!strcmp(arbiter, ctx_member(c, "host", i)))
			ctx_event(c,
				  "party %s is host and arbiter: it can read "
				  "the guest's labels",
				  arbiter);
	if (!strcmp(arbiter, ctx_member(c, "guest", 0)))
		ctx_event(c,
			  "party %s is guest and arbiter: it can read the "
			  "hosts' partial scores",
			  arbiter);
}

int linear_params_read(struct ctx *c, struct linear_params *ret, struct err *e)
{
	const json_t *o = ctx_params(c);
	const json_t *init = json_object_get(o, "init_param");
	const json_t *crypt = json_object_get(o, "encrypt_param");
	const json_t *predict = json_object_get(o, "predict_param");
	const char *method = json_str_or(crypt, "method", "Paillier");
	struct linear_params p = {
		.alpha = json_num_or(o, "alpha", 1),
		.tol = json_num_or(o, "tol", 1e-4),
		.threshold = json_num_or(predict, "threshold", .5),
		.batch_size = json_int_or(o, "batch_size", -1),
		.shuffle = json_bool_or(o, "shuffle", true),
		.random_batch = is(o, "batch_strategy", "random"),
		.masked_rate = json_num_or(o, "masked_rate", 5),
		.init_value = json_num_or(init, "init_const", 1),
		.seed = json_int_or(init, "random_seed", -1),
		.fit_intercept = json_bool_or(init, "fit_intercept", true),
		.max_iter = (unsigned)json_int_or(o, "max_iter", 100),
		.key_length = (unsigned)json_int_or(crypt, "key_length", 2048),
		/* null in FATE: no rounding; 40 bits are as good. */
		.feature_bits =
		    (unsigned)json_int_or(o, "floating_point_precision", 40),
	};
	int kind = optimizer_kind(json_str_or(o, "optimizer", "rmsprop"));
	int penalty = penalty_kind(json_str_or(o, "penalty", NULL));
	int start =
	    init_method(json_str_or(init, "init_method", "random_uniform"));

	if (kind < 0 || penalty < 0 || start < 0)
		return err_set(e, EINVAL,
			       "unknown optimizer, penalty or "
			       "init_method");
	p.rule.kind = (enum optimizer_kind)kind;
	p.rule.learning_rate = json_num_or(o, "learning_rate", .01);
	p.rule.decay = json_num_or(o, "decay", 1);
	p.rule.decay_sqrt = json_bool_or(o, "decay_sqrt", true);
	p.penalty = (enum penalty_kind)penalty;
	p.init = (enum init_method)start;
	p.early_stop = is(o, "early_stop", "weight_diff") ? STOP_WEIGHT_DIFF
		       : is(o, "early_stop", "abs")	  ? STOP_ABS
							  : STOP_DIFF;
	if (strcasecmp(method, "Paillier"))
		ctx_event(c, "encrypt_param/method %s is replaced by Paillier",
			  method);
	if (p.key_length < 2048) {
		ctx_log(c, "warning: a Paillier key of %u bits is short",
			p.key_length);
		ctx_event(c,
			  "warning: encrypt_param/key_length %u is below 2048",
			  p.key_length);
	}
	note_double_roles(c);
	*ret = p;
	return 0;
}

/* ---- rows ------------------------------------------------------------- */

static int cell_number(const struct cell *cell, double *ret)
{
	switch (cell->type) {
	case CELL_F64:
		*ret = cell->f64;
		return 0;
	case CELL_I64:
		*ret = (double)cell->i64;
		return 0;
	case CELL_STRING:
		break;
	}
	return num_parse(cell->str, cell->len, ret) ? 0 : -EINVAL;
}

static int digest_key(EVP_MAC_CTX *mac, const char *key, size_t n)
{
	uint8_t len[4] = { (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16),
			   (uint8_t)(n >> 24) };

	return EVP_MAC_update(mac, len, sizeof(len)) == 1 &&
		       EVP_MAC_update(mac, (const uint8_t *)key, n) == 1
		   ? 0
		   : -EIO;
}

static EVP_MAC_CTX *digest_begin(const uint8_t *secret)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
						 (char[]){ "SHA256" }, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *m = mac ? EVP_MAC_CTX_new(mac) : NULL;

	EVP_MAC_free(mac);
	if (m && EVP_MAC_init(m, secret, 32, params) != 1) {
		EVP_MAC_CTX_free(m);
		m = NULL;
	}
	return m;
}

static int read_row(struct linear_data *d, size_t row, const struct cell *cells,
		    bool with_label, struct err *e)
{
	const struct table_schema *s = table_schema(d->table);
	double *x = d->x + row * d->cols;
	double v;

	for (size_t i = 0; i < s->n_columns; i++) {
		bool label = i == d->label_column;

		if (label && !with_label)
			continue;
		if (cell_number(&cells[i], &v))
			return err_set(e, EINVAL,
				       "column %s is not a column of numbers",
				       s->columns[i].name);
		if (!isfinite(v))
			return err_set(e, EINVAL,
				       "column %s has missing values",
				       s->columns[i].name);
		if (label) {
			d->label[row] = v;
			continue;
		}
		if (fabs(v) > LINEAR_VALUE_MAX)
			return err_set(e, ERANGE,
				       "column %s has values beyond 1e8",
				       s->columns[i].name);
		*x++ = v;
	}
	return 0;
}

static int read_rows(struct linear_data *d, EVP_MAC_CTX *mac, bool with_label,
		     struct err *e)
{
	struct table_iter *it;
	const struct cell *cells;
	const char *key;
	size_t len;
	size_t n = 0;
	int r = table_scan(d->table, NULL, 0, &it, e);

	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		if (n == d->rows)
			r = err_set(e, EIO, "more rows than the table says");
		else if (digest_key(mac, key, len))
			r = err_set(e, EIO, "cannot digest the ids");
		else
			r = read_row(d, n++, cells, with_label, e);
		if (r < 0)
			break;
	}
	table_scan_end(it);
	if (!r && n != d->rows)
		r = err_set(e, EIO, "fewer rows than the table says");
	return r;
}

int linear_data_read(struct ctx *c, struct linear_data *ret, struct err *e)
{
	bool guest = !strcmp(ctx_role(c), "guest");
	struct table *t =
	    ctx_inputs(c, "train_data") ? ctx_input(c, "train_data", 0) : NULL;
	const struct table_schema *s = t ? table_schema(t) : NULL;
	struct linear_data d = { .table = t, .label_column = SIZE_MAX };
	size_t len = sizeof(d.digest);
	EVP_MAC_CTX *mac;
	int r;

	if (!t)
		return err_set(e, EINVAL, "there is no input train_data");
	d.rows = table_rows(t);
	if (!d.rows || d.rows > LINEAR_ROWS_MAX)
		return err_set(e, EINVAL, "train_data has %zu rows", d.rows);
	d.names = xcalloc(s->n_columns + 1, sizeof(*d.names));
	d.anonymous = xcalloc(s->n_columns + 1, sizeof(*d.anonymous));
	for (size_t i = 0; i < s->n_columns; i++) {
		if (s->label && !strcmp(s->label, s->columns[i].name)) {
			d.label_column = i;
			continue;
		}
		d.names[d.cols] = s->columns[i].name;
		d.anonymous[d.cols++] = s->columns[i].anonymous;
	}
	mac = digest_begin(ctx_secret(c));
	if (guest && d.label_column == SIZE_MAX)
		r = err_set(e, EINVAL, "train_data has no label column");
	else if (!guest && !d.cols)
		r = err_set(e, EINVAL, "train_data has no feature column");
	else if (!mac)
		r = err_set(e, EIO, "cannot set up HMAC-SHA256");
	else {
		d.x = xcalloc(d.rows * d.cols + 1, sizeof(*d.x));
		if (guest)
			d.label = xcalloc(d.rows, sizeof(*d.label));
		r = read_rows(&d, mac, guest, e);
	}
	if (!r && EVP_MAC_final(mac, d.digest, &len, len) != 1)
		r = err_set(e, EIO, "cannot digest the ids");
	EVP_MAC_CTX_free(mac);
	if (r < 0) {
		linear_data_free(&d);
		return err_wrap(e, "input train_data");
	}
	*ret = d;
	return 0;
}

void linear_data_free(struct linear_data *d)
{
	free(d->x);
	free(d->label);
	free(d->names);
	free(d->anonymous);
	*d = (struct linear_data){ 0 };
}

static int agree_recv(struct ctx *c, const char *role, size_t i,
		      const void *mine, size_t n, struct err *e)
{
	_cleanup_free_ void *theirs = NULL;
	size_t got;
	int r =
	    ctx_recv_bytes(c, role, i, "id_digest", "", n, &theirs, &got, e);

	if (r < 0)
		return r;
	if (got == n && !CRYPTO_memcmp(mine, theirs, n))
		return 0;
	ctx_fail_code(
	    c, "rows_differ",
	    "the parties do not hold the same rows in this component");
	return err_set(e, EINVAL,
		       "%s %s holds other rows than this party: both need the "
		       "output of one Intersection",
		       role, ctx_member(c, role, i));
}

int linear_data_agree(struct ctx *c, const struct linear_data *d, struct err *e)
{
	bool guest = !strcmp(ctx_role(c), "guest");
	size_t peers = guest ? ctx_count(c, "host") : 1;
	const char *role = guest ? "host" : "guest";
	uint8_t mine[8 + sizeof(d->digest)];
	int r = 0;

	for (size_t i = 0; i < 8; i++)
		mine[i] = (uint8_t)((uint64_t)d->rows >> (8 * i));
	memcpy(mine + 8, d->digest, sizeof(d->digest));
	for (size_t i = 0; i < peers && r >= 0; i++)
		r = ctx_send_bytes(c, role, i, "id_digest", "", mine,
				   sizeof(mine), e);
	for (size_t i = 0; i < peers && r >= 0; i++)
		r = agree_recv(c, role, i, mine, sizeof(mine), e);
	return r;
}

/* ---- batches ---------------------------------------------------------- */

static unsigned log2_ceil(size_t n)
{
	unsigned k = 0;

	while (((size_t)1 << k) < n)
		k++;
	return k;
}

void linear_plan_make(struct ctx *c, const struct linear_params *p, size_t rows,
		      unsigned models, struct linear_plan *ret)
{
	size_t hosts = ctx_count(c, "host");
	struct linear_plan s = { .rows = rows, .models = models };
	double masked;

	s.batch_size = p->batch_size < 0 || (uint64_t)p->batch_size > rows
			   ? rows
			   : (size_t)p->batch_size;
	s.batches = p->random_batch
			? 1
			: (unsigned)((rows + s.batch_size - 1) / s.batch_size);
	masked = round((1 + p->masked_rate) * (double)s.batch_size);
	s.masked_batch_size = masked < (double)rows ? (size_t)masked : rows;
	s.mutable_batches =
	    s.batch_size < rows && (p->shuffle || p->random_batch ||
				    s.masked_batch_size > s.batch_size);
	s.loss = hosts == 1;
	s.async = hosts == 1 && s.masked_batch_size == s.batch_size;
	s.x_scale = p->feature_bits + log2_ceil(s.batch_size);
	s.gradient_scale = LINEAR_SCALE + s.x_scale;
	*ret = s;
}

int linear_plan_send(struct ctx *c, const struct linear_plan *plan,
		     struct err *e)
{
	static const char *const roles[] = { "host", "arbiter" };
	json_t *o = json_pack(
	    "{s:I, s:I, s:I, s:I, s:b, s:b, s:I, s:I}", "rows",
	    (json_int_t)plan->rows, "batch_size", (json_int_t)plan->batch_size,
	    "masked_batch_size", (json_int_t)plan->masked_batch_size,
	    "batch_num", (json_int_t)plan->batches, "batch_mutable",
	    plan->mutable_batches, "use_async", plan->async, "models",
	    (json_int_t)plan->models, "gradient_scale",
	    (json_int_t)plan->gradient_scale);
	int r = o ? 0 : err_set(e, ENOMEM, "batch_info: out of memory");

	for (size_t k = 0; k < ARRAY_SIZE(roles); k++)
		for (size_t i = 0; i < ctx_count(c, roles[k]) && r >= 0; i++)
			r = ctx_send_json(c, roles[k], i, "batch_info", "", o,
					  e);
	json_decref(o);
	return r;
}

static int plan_get(const json_t *o, struct linear_plan *s, struct err *e)
{
	int64_t rows, size, masked, batches, models, scale;
	int r;

	if ((r = json_get_int(o, "rows", 1, LINEAR_ROWS_MAX, &rows, e)) < 0 ||
	    (r = json_get_int(o, "batch_size", 1, rows, &size, e)) < 0 ||
	    (r = json_get_int(o, "masked_batch_size", size, rows, &masked, e)) <
		0 ||
	    (r = json_get_int(o, "batch_num", 1, (rows + size - 1) / size,
			      &batches, e)) < 0 ||
	    (r = json_get_int(o, "models", 1, LINEAR_MODELS_MAX, &models, e)) <
		0 ||
	    (r = json_get_int(o, "gradient_scale", LINEAR_SCALE, 160, &scale,
			      e)) < 0)
		return r;
	*s = (struct linear_plan){
		.rows = (size_t)rows,
		.batch_size = (size_t)size,
		.masked_batch_size = (size_t)masked,
		.batches = (unsigned)batches,
		.models = (unsigned)models,
		.mutable_batches = json_bool_or(o, "batch_mutable", false),
		.async = json_bool_or(o, "use_async", false),
		.x_scale = (unsigned)scale - LINEAR_SCALE,
		.gradient_scale = (unsigned)scale,
	};
	return 0;
}

int linear_plan_recv(struct ctx *c, const struct linear_params *p, size_t rows,
		     struct linear_plan *ret, struct err *e)
{
	struct linear_plan s, own;
	json_t *o;
	int r = ctx_recv_json(c, "guest", 0, "batch_info", "", &o, e);

	if (r < 0)
		return r;
	r = plan_get(o, &s, e);
	json_decref(o);
	if (r < 0)
		return err_wrap(e, "batch_info");
	s.loss = ctx_count(c, "host") == 1;
	linear_plan_make(c, p, rows ? rows : s.rows, s.models, &own);
	if (own.rows != s.rows || own.batch_size != s.batch_size ||
	    own.masked_batch_size != s.masked_batch_size ||
	    own.batches != s.batches || own.async != s.async ||
	    own.mutable_batches != s.mutable_batches ||
	    own.gradient_scale != s.gradient_scale)
		return err_set(e, EPROTO,
			       "the guest's batches are not those that this "
			       "party's parameters give");
	*ret = s;
	return 0;
}

size_t linear_batch_true(const struct linear_plan *plan, unsigned b)
{
	return MIN(plan->batch_size, plan->rows - b * plan->batch_size);
}

size_t linear_batch_sent(const struct linear_plan *plan, unsigned b)
{
	return plan->masked_batch_size > plan->batch_size
		   ? plan->masked_batch_size
		   : linear_batch_true(plan, b);
}

bool linear_plan_legal(const struct linear_plan *plan, size_t cols)
{
	return linear_batch_sent(plan, plan->batches - 1) > cols;
}

void linear_tag(char *tag, const struct linear_plan *plan, unsigned model,
		unsigned epoch, unsigned batch)
{
	if (plan->models > 1)
		(void)snprintf(tag, LINEAR_TAG, "%u.%u.%u", model, epoch,
			       batch);
	else
		(void)snprintf(tag, LINEAR_TAG, "%u.%u", epoch, batch);
}

void linear_tag_epoch(char *tag, const struct linear_plan *plan, unsigned model,
		      unsigned epoch)
{
	if (plan->models > 1)
		(void)snprintf(tag, LINEAR_TAG, "%u.%u", model, epoch);
	else
		(void)snprintf(tag, LINEAR_TAG, "%u", epoch);
}

/* ---- ciphertexts ------------------------------------------------------ */

int linear_recv_key(struct ctx *c, const struct linear_params *p,
		    struct paillier_public **ret, struct err *e)
{
	_cleanup_free_ void *data = NULL;
	struct paillier_public *k;
	size_t n;
	int r = ctx_recv_bytes(c, "arbiter", 0, "paillier_pubkey", "", 16384,
			       &data, &n, e);

	if (r >= 0)
		r = paillier_public_read(data, n, ctx_cores(c), &k, e);
	if (r < 0)
		return r;
	if (paillier_bits(k) < p->key_length) {
		paillier_public_free(k);
		return err_set(e, EPROTO,
			       "the arbiter's key is shorter than "
			       "encrypt_param/key_length");
	}
	*ret = k;
	return 0;
}

int linear_recv(struct ctx *c, const struct paillier_public *k,
		const char *role, size_t i, const char *name, const char *tag,
		size_t n, unsigned scale, struct cipher_vec **ret,
		struct err *e)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t got;
	int r = ctx_recv_fixed(c, role, i, name, tag, cipher_width(k), n, &data,
			       &got, e);

	if (r < 0)
		return r;
	if (got != n)
		return err_set(e, EPROTO, "%s: %zu values where %zu are due",
			       name, got, n);
	r = cipher_vec_import(k, data, n, scale, ctx_cores(c), ret, e);
	return r < 0 ? err_wrap(e, "%s", name) : 0;
}

int linear_send(struct ctx *c, const struct paillier_public *k,
		const char *role, size_t i, const char *name, const char *tag,
		const struct cipher_vec *v, struct err *e)
{
	size_t n = cipher_vec_len(v);
	_cleanup_free_ uint8_t *out = xmalloc(n * cipher_width(k) + 1);

	cipher_vec_export(v, out, ctx_cores(c));
	return ctx_send_fixed(c, role, i, name, tag, out, cipher_width(k), n,
			      e);
}
