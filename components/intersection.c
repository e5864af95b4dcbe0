// SPDX-License-Identifier: Apache-2.0
/*
 * Intersection: the rows whose ids every party has, and no party learns more
 * of the others' ids.  docs/components/intersection.md has the messages and
 * what each party learns; components/crypto/psi.h the mathematics.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <strings.h>

#include "components/intersection.h"
#include "lib/json.h"

/* Writes the rows kept; digest = HMAC over their ids in key order. */
static int output(struct psi *p, uint8_t digest[32], struct err *e)
{
	struct table_schema *s = schema_dup(table_schema(p->t));
	struct table_schema *out = s;
	struct table_iter *it = NULL;
	struct table_build *b = NULL;
	const struct cell *cells;
	const char *key;
	size_t len;
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t ids[32];
	uint32_t row = 0;
	int rc;

	if (p->only_key) {
		out = schema_new();
		free(out->id);
		out->id = xstrdup(s->id ? s->id : "id");
		out->partitions = s->partitions;
	}
	if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL))
		abort();
	rc = table_build_begin(ctx_store(p->c), out, &b, e);
	if (rc == 0)
		rc = table_scan(p->t, NULL, 0, &it, e);
	while (rc == 0 && row < p->rows) {
		uint32_t n;

		rc = table_next(it, &key, &len, &cells, e);
		if (rc <= 0)
			break;
		rc = 0;
		if (!p->keep[row++])
			continue;
		n = (uint32_t)len;
		(void)EVP_DigestUpdate(md, &n, sizeof(n));
		(void)EVP_DigestUpdate(md, key, len);
		rc = table_build_add(b, key, len, cells, e);
	}
	if (it)
		table_scan_end(it);
	(void)EVP_DigestFinal_ex(md, ids, NULL);
	EVP_MD_CTX_free(md);
	(void)HMAC(EVP_sha256(), ctx_secret(p->c), 32, ids, sizeof(ids), digest,
		   NULL);
	if (rc == 0)
		rc = ctx_put_table(p->c, 0, TAKE_PTR(b), e);
	if (b)
		table_build_abort(b);
	if (out != s)
		schema_free(out);
	schema_free(s);
	return rc;
}

/* Count and digest of the ids, exchanged and compared by every pair of the
 * guest and a host. */
static int compare(struct psi *p, uint32_t count, const uint8_t digest[32],
		   struct err *e)
{
	bool guest = strcmp(ctx_role(p->c), "guest") == 0;
	const char *peer = guest ? "host" : "guest";
	uint8_t own[36];
	int rc = 0;

	for (size_t i = 0; i < 4; i++)
		own[i] = (uint8_t)(count >> (8 * i));
	memcpy(own + 4, digest, 32);
	for (size_t i = 0; i < ctx_count(p->c, peer) && rc == 0; i++)
		rc = ctx_send_bytes(p->c, peer, i, "digest", "", own,
				    sizeof(own), e);
	for (size_t i = 0; i < ctx_count(p->c, peer) && rc == 0; i++) {
		_cleanup_free_ void *got = NULL;
		size_t n;

		rc = ctx_recv_bytes(p->c, peer, i, "digest", "", sizeof(own),
				    &got, &n, e);
		if (rc == 0 &&
		    (n != sizeof(own) || CRYPTO_memcmp(own, got, n) != 0))
			rc = psi_fail(p, e, "the parties hold different rows");
	}
	return rc;
}

static int summary(struct psi *p, uint32_t count, struct err *e)
{
	bool known = p->cardinality ? p->sync_cardinality : p->sync;
	double rate = p->rows ? (double)count / p->rows : 0;
	json_t *v = json_pack("{s:s,s:i}", "intersect_method",
			      psi_method_name(p), "input_count", (int)p->rows);
	int rc;

	if (known || strcmp(ctx_role(p->c), "guest") == 0)
		(void)json_object_update_new(
		    v, json_pack("{s:i,s:f,s:i,s:f}", "intersect_count",
				 (int)count, "intersect_rate", rate,
				 "unmatched_count", (int)(p->rows - count),
				 "unmatched_rate", p->rows ? 1 - rate : 0));
	rc = ctx_put_summary(p->c, v, e);
	json_decref(v);
	return rc;
}

/* What is replaced by something safer, or weak, is said. */
static void warn(struct psi *p, const char *method)
{
	if (strcasecmp(method, "raw") == 0)
		ctx_event(p->c, "intersect_method raw would show ids: ecdh is "
				"used instead");
	if (p->method == PSI_DH && p->bits < 2048) {
		ctx_event(p->c,
			  "dh_params.key_length %u is too short: 2048 is used",
			  p->bits);
		p->bits = 2048;
	}
	if (p->method == PSI_RSA && p->bits < 2048) {
		ctx_event(p->c, "warning: RSA key of %u bits: fewer than 2048",
			  p->bits);
		ctx_log(p->c, "warning: RSA key of %u bits: fewer than 2048",
			p->bits);
	}
}

static void setup(struct psi *p)
{
	const json_t *params = ctx_params(p->c);
	const char *method = json_str_or(params, "intersect_method", "rsa");
	const json_t *sub;

	p->cardinality = json_bool_or(params, "cardinality_only", false);
	/* Whose numbers come back in another order is ecdh's alone. */
	if (p->cardinality)
		method = "ecdh";
	p->method = strcasecmp(method, "rsa") == 0  ? PSI_RSA
		    : strcasecmp(method, "dh") == 0 ? PSI_DH
						    : PSI_ECDH;
	sub = json_object_get(params, p->method == PSI_RSA  ? "rsa_params"
				      : p->method == PSI_DH ? "dh_params"
							    : "ecdh_params");
	p->param_salt = json_str_or(sub, "salt", "");
	p->bits = (unsigned)json_int_or(sub, "key_length", 2048);
	p->split = p->method == PSI_RSA &&
		   json_bool_or(sub, "split_calculation", false);
	p->sync =
	    !p->cardinality && json_bool_or(params, "sync_intersect_ids", true);
	p->sync_cardinality =
	    p->cardinality && json_bool_or(params, "sync_cardinality", false);
	p->cached = json_bool_or(params, "run_cache", false);
	p->only_key = json_bool_or(params, "only_output_key", false);
	p->cores = ctx_cores(p->c);
	warn(p, method);
}

int intersection_run(struct ctx *c, const struct psi_limits *limits,
		     struct err *e)
{
	struct psi p = { .c = c, .limits = limits };
	uint8_t digest[32];
	uint32_t count = 0;
	int rc;

	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	p.t = ctx_input(c, "data", 0);
	if (table_rows(p.t) > COUNT_MAX)
		return err_set(e, E2BIG, "more than %d rows", COUNT_MAX);
	p.rows = (uint32_t)table_rows(p.t);
	p.share[ASKED_BY_GUEST] = p.rows;
	setup(&p);
	p.keep = xcalloc((size_t)p.rows + 1, 1);
	rc = strcmp(ctx_role(c), "guest") == 0
		 ? intersection_guest(&p, &count, e)
		 : intersection_host(&p, &count, e);
	if (rc == 0)
		rc = output(&p, digest, e);
	if (rc == 0 && p.sync)
		rc = compare(&p, count, digest, e);
	if (rc == 0)
		rc = summary(&p, count, e);
	if (rc == 0) {
		ctx_log(c, "%u of %u rows in the intersection", count, p.rows);
		if (count == 0 && !p.cardinality)
			ctx_event(c, "warning: no id is common to all parties");
		ctx_progress(c, 1);
	}
	free(p.keep);
	return rc;
}

static int run(struct ctx *c, struct err *e)
{
	return intersection_run(c, &psi_limits_default, e);
}

/* Parameters that are known but of which only the default is offered. */
static const char *const later[][3] = {
	{ "join_method", "\"inner_join\"",
	  "only inner_join: Union joins the rows that are missing" },
	{ "new_sample_id", "false", "only false: ids stay as they are" },
	{ "run_preprocess", "false",
	  "only false: a filter would let a dictionary be tried on the ids; "
	  "take run_cache for a large host" },
	{ "sample_id_generator", "\"guest\"",
	  "only guest: both parties keep the ids of their tables" },
	{ "with_encode", "false",
	  "only false: ids are never sent, encoded or not" },
	{ "with_sample_id", "false",
	  "only false: give the table its match id as its id" },
	{ "allow_info_share", "false",
	  "only false: columns are not shared, use Union or a table in "
	  "/federation" },
	{ "repeated_id_process", "false",
	  "only false: a table has every id once" },
};

struct defects {
	void (*fn)(void *arg, const char *pointer, const char *text);
	void *arg;
};

static void check_later(const json_t *params, const struct defects *d)
{
	for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
		const json_t *v = json_object_get(params, later[i][0]);
		json_t *def = json_loads(later[i][1], JSON_DECODE_ANY, NULL);

		if (v && !json_is_null(v) && !json_equal(v, def))
			d->fn(d->arg, later[i][0], later[i][2]);
		json_decref(def);
	}
}

static void check_key_length(const json_t *params, const struct defects *d)
{
	const char *method = json_str_or(params, "intersect_method", "rsa");
	int64_t rsa = json_int_or(json_object_get(params, "rsa_params"),
				  "key_length", 2048);
	int64_t dh = json_int_or(json_object_get(params, "dh_params"),
				 "key_length", 2048);

	if (strcasecmp(method, "rsa") == 0 && rsa % 128)
		d->fn(d->arg, "rsa_params/key_length",
		      "must be a multiple of 128: take 2048 or 3072");
	if (strcasecmp(method, "dh") == 0 && dh > 2048 && dh != 3072 &&
	    dh != 4096 && dh != 6144 && dh != 8192)
		d->fn(d->arg, "dh_params/key_length",
		      "there is no such group: take 2048, 3072, 4096, 6144 or "
		      "8192");
}

static void check_split(const json_t *params, size_t hosts,
			const struct defects *d)
{
	const char *at = "rsa_params/split_calculation";

	if (hosts > 1)
		d->fn(d->arg, at,
		      "with several hosts each would learn what the others "
		      "have not: turn it off");
	if (!json_bool_or(params, "sync_intersect_ids", true))
		d->fn(d->arg, at,
		      "the host asks for half of the ids, so it learns them: "
		      "turn it off or sync_intersect_ids on");
	if (json_bool_or(params, "run_cache", false))
		d->fn(d->arg, at,
		      "the lists of a split run cannot be kept: turn it or "
		      "run_cache off");
}

static void check(const json_t *params, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	const struct defects d = { defect, arg };
	size_t hosts = json_array_size(json_object_get(roles, "host"));
	const json_t *rsa = json_object_get(params, "rsa_params");
	bool only = json_bool_or(params, "cardinality_only", false);

	(void)role;
	check_later(params, &d);
	check_key_length(params, &d);
	if (!only &&
	    strcasecmp(json_str_or(params, "intersect_method", "rsa"), "rsa") ==
		0 &&
	    json_bool_or(rsa, "split_calculation", false))
		check_split(params, hosts, &d);
	if (only && hosts > 1)
		defect(arg, "cardinality_only",
		       "with one host only: sizes for several would show which "
		       "ids match; ask them one by one");
	if (only && json_bool_or(params, "run_cache", false))
		defect(arg, "run_cache",
		       "not with cardinality_only: turn one of them off");
}

#define HASHES "none|md5|sha1|sha224|sha256|sha384|sha512|sm3"

static const struct param rsa_params[] = {
	{ "salt", PARAM_STRING, "\"\"", .help = "goes into every hash" },
	{ "hash_method", PARAM_ENUM, "\"sha256\"", .choices = HASHES,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE,
	  .help = "a full-domain hash (SHAKE256) is used" },
	{ "final_hash_method", PARAM_ENUM, "\"sha256\"", .choices = HASHES,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE, .help = "SHA-256 is used" },
	{ "split_calculation", PARAM_BOOL, "false",
	  .help = "guest and host each sign for half of the ids; one host" },
	{ "random_base_fraction", PARAM_NUMBER, NULL,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE,
	  .help = "every id has its own blinding" },
	{ "key_length", PARAM_INT, "2048", 1024, 8192,
	  .help = "bits of the hosts' RSA keys; below 2048 warns" },
	{ "random_bit", PARAM_INT, "128", .flags = PARAM_IGNORED,
	  .help = "the blinding has full size" },
	{ .name = NULL },
};

static const struct param dh_params[] = {
	{ "salt", PARAM_STRING, "\"\"", .help = "goes into every hash" },
	{ "hash_method", PARAM_ENUM, "\"sha256\"", .choices = HASHES,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE,
	  .help = "ids are hashed into the group by SHAKE256" },
	{ "key_length", PARAM_INT, "2048", 1024, 8192,
	  .help = "bits of the prime (RFC 3526); below 2048, 2048 is used" },
	{ .name = NULL },
};

static const struct param ecdh_params[] = {
	{ "salt", PARAM_STRING, "\"\"", .help = "goes into every hash" },
	{ "hash_method", PARAM_ENUM, "\"sha256\"", .choices = HASHES,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE,
	  .help = "ids are hashed to the curve (RFC 9380)" },
	{ "curve", PARAM_ENUM, "\"curve25519\"", .choices = "curve25519",
	  .help = "the curve" },
	{ .name = NULL },
};

#define LATER(n, d)                                                    \
	{                                                              \
		n, PARAM_ANY, d, .flags = PARAM_NULLABLE,              \
				 .help = "only the default is offered" \
	}
#define UNUSED(n)                                                            \
	{                                                                    \
		n, PARAM_ANY, NULL, .flags = PARAM_IGNORED | PARAM_NULLABLE, \
				    .help = "belongs to what is not offered" \
	}

static const struct param params_table[] = {
	LATER("allow_info_share", "false"),
	{ "cardinality_only", PARAM_BOOL, "false",
	  .help = "the guest learns how many ids are common, and no more" },
	{ "cardinality_method", PARAM_ENUM, "\"ecdh\"",
	  .choices = "rsa|ecdh|dh", .flags = PARAM_IGNORED,
	  .help = "ecdh is used" },
	{ "dh_params", PARAM_OBJECT, "{}", .sub = dh_params,
	  .help = "of method dh" },
	{ "ecdh_params", PARAM_OBJECT, "{}", .sub = ecdh_params,
	  .help = "of method ecdh" },
	UNUSED("encode_params"),
	UNUSED("info_owner"),
	UNUSED("intersect_cache_param"),
	{ "intersect_method", PARAM_ENUM, "\"rsa\"",
	  .choices = "rsa|ecdh|dh|raw",
	  .help = "rsa, ecdh or dh; raw is turned into ecdh" },
	UNUSED("intersect_preprocess_params"),
	LATER("join_method", "\"inner_join\""),
	UNUSED("join_role"),
	LATER("new_sample_id", "false"),
	{ "only_output_key", PARAM_BOOL, "false",
	  .help = "the output has ids only" },
	{ "random_bit", PARAM_INT, "128", .flags = PARAM_IGNORED,
	  .help = "the blinding has full size" },
	UNUSED("raw_params"),
	UNUSED("repeated_id_owner"),
	LATER("repeated_id_process", "false"),
	{ "rsa_params", PARAM_OBJECT, "{}", .sub = rsa_params,
	  .help = "of method rsa" },
	{ "run_cache", PARAM_BOOL, "false",
	  .help = "hosts keep their lists and keys for the next run with the "
		  "same ids" },
	LATER("run_preprocess", "false"),
	LATER("sample_id_generator", "\"guest\""),
	{ "sync_cardinality", PARAM_BOOL, "false",
	  .help = "with cardinality_only, the host learns the number, too" },
	{ "sync_intersect_ids", PARAM_BOOL, "true",
	  .help = "the hosts learn the intersection and output it, too" },
	LATER("with_encode", "false"),
	LATER("with_sample_id", "false"),
	{ .name = NULL },
};

static const char *const inputs[] = { "data", NULL };

const struct component component_intersection = {
	.module = "Intersection",
	.roles = ROLE_GUEST | ROLE_HOST,
	.needs_roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = inputs,
	.data_outputs = 1,
	.params = params_table,
	.help = "keeps the rows whose ids every party has; nobody learns other "
		"ids",
	.check = check,
	.run = run,
};
