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
	bool known = p->sync || strcmp(ctx_role(p->c), "guest") == 0;
	double rate = p->rows ? (double)count / p->rows : 0;
	json_t *v =
	    json_pack("{s:s,s:i}", "intersect_method", p->rsa ? "rsa" : "ecdh",
		      "input_count", (int)p->rows);
	int rc;

	if (known)
		(void)json_object_update_new(
		    v, json_pack("{s:i,s:f,s:i,s:f}", "intersect_count",
				 (int)count, "intersect_rate", rate,
				 "unmatched_count", (int)(p->rows - count),
				 "unmatched_rate", p->rows ? 1 - rate : 0));
	rc = ctx_put_summary(p->c, v, e);
	json_decref(v);
	return rc;
}

static void setup(struct psi *p)
{
	const json_t *params = ctx_params(p->c);
	const char *method = json_str_or(params, "intersect_method", "rsa");
	const json_t *sub;

	p->rsa = strcasecmp(method, "rsa") == 0;
	if (strcasecmp(method, "raw") == 0)
		ctx_event(p->c, "intersect_method raw would show ids: ecdh is "
				"used instead");
	sub = json_object_get(params, p->rsa ? "rsa_params" : "ecdh_params");
	p->param_salt = json_str_or(sub, "salt", "");
	p->key_length = (unsigned)json_int_or(sub, "key_length", 2048);
	p->sync = json_bool_or(params, "sync_intersect_ids", true);
	p->only_key = json_bool_or(params, "only_output_key", false);
	p->cores = ctx_cores(p->c);
	if (p->rsa && p->key_length < 2048) {
		ctx_event(p->c, "warning: RSA key of %u bits: fewer than 2048",
			  p->key_length);
		ctx_log(p->c, "warning: RSA key of %u bits: fewer than 2048",
			p->key_length);
	}
	psi_ecdh_key(p->key);
}

static int run(struct ctx *c, struct err *e)
{
	struct psi p = { .c = c };
	uint8_t digest[32];
	uint32_t count = 0;
	int rc;

	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	p.t = ctx_input(c, "data", 0);
	if (table_rows(p.t) > COUNT_MAX)
		return err_set(e, E2BIG, "more than %d rows", COUNT_MAX);
	p.rows = (uint32_t)table_rows(p.t);
	setup(&p);
	p.keep = xcalloc((size_t)p.rows + 1, 1);
	rc = strcmp(ctx_role(c), "guest") == 0
		 ? intersection_guest(&p, &count, e)
		 : intersection_host(&p, &count, e);
	if (p.it)
		table_scan_end(p.it);
	explicit_bzero(p.key, sizeof(p.key));
	if (rc == 0)
		rc = output(&p, digest, e);
	if (rc == 0 && p.sync)
		rc = compare(&p, count, digest, e);
	if (rc == 0)
		rc = summary(&p, count, e);
	if (rc == 0) {
		ctx_log(c, "%u of %u rows in the intersection", count, p.rows);
		if (count == 0)
			ctx_event(c, "warning: no id is common to all parties");
		ctx_progress(c, 1);
	}
	free(p.keep);
	return rc;
}

/* Parameters that are known but of which only the default is offered. */
static const char *const later[][2] = {
	{ "cardinality_only", "false" },
	{ "join_method", "\"inner_join\"" },
	{ "new_sample_id", "false" },
	{ "run_cache", "false" },
	{ "run_preprocess", "false" },
	{ "sample_id_generator", "\"guest\"" },
	{ "sync_cardinality", "false" },
	{ "with_encode", "false" },
	{ "with_sample_id", "false" },
	{ "allow_info_share", "false" },
	{ "repeated_id_process", "false" },
};

static void check(const json_t *params, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	(void)roles;
	(void)role;
	if (strcasecmp(json_str_or(params, "intersect_method", ""), "dh") == 0)
		defect(arg, "intersect_method",
		       "dh is not offered yet: use ecdh or rsa");
	for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
		const json_t *v = json_object_get(params, later[i][0]);
		json_t *def = json_loads(later[i][1], JSON_DECODE_ANY, NULL);

		if (v && !json_is_null(v) && !json_equal(v, def))
			defect(arg, later[i][0],
			       "not offered yet: only the default");
		json_decref(def);
	}
}

#define HASHES "none|md5|sha1|sha224|sha256|sha384|sha512|sm3"

static const struct param rsa_params[] = {
	{ "salt", PARAM_STRING, "\"\"", .help = "goes into every hash" },
	{ "hash_method", PARAM_ENUM, "\"sha256\"", .choices = HASHES,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE,
	  .help = "a full-domain hash (SHAKE256) is used" },
	{ "final_hash_method", PARAM_ENUM, "\"sha256\"", .choices = HASHES,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE, .help = "SHA-256 is used" },
	{ "split_calculation", PARAM_BOOL, "false", .flags = PARAM_IGNORED,
	  .help = "the hosts do all signing" },
	{ "random_base_fraction", PARAM_NUMBER, NULL,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE,
	  .help = "every id has its own blinding" },
	{ "key_length", PARAM_INT, "2048", 1024, 8192,
	  .help = "bits of the hosts' RSA keys; below 2048 warns" },
	{ "random_bit", PARAM_INT, "128", .flags = PARAM_IGNORED,
	  .help = "the blinding has full size" },
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

#define LATER(n, d)                                                          \
	{                                                                    \
		n, PARAM_ANY, d, .flags = PARAM_NULLABLE,                    \
				 .help = "not offered yet: only the default" \
	}
#define UNUSED(n)                                                \
	{                                                        \
		n, PARAM_ANY, NULL,                              \
		    .flags = PARAM_IGNORED | PARAM_NULLABLE,     \
		    .help = "belongs to what is not offered yet" \
	}

static const struct param params_table[] = {
	LATER("allow_info_share", "false"),
	LATER("cardinality_only", "false"),
	{ "cardinality_method", PARAM_ENUM, "\"ecdh\"",
	  .choices = "rsa|ecdh|dh", .flags = PARAM_IGNORED,
	  .help = "belongs to what is not offered yet" },
	UNUSED("dh_params"),
	{ "ecdh_params", PARAM_OBJECT, "{}", .sub = ecdh_params,
	  .help = "of method ecdh" },
	UNUSED("encode_params"),
	UNUSED("info_owner"),
	UNUSED("intersect_cache_param"),
	{ "intersect_method", PARAM_ENUM, "\"rsa\"",
	  .choices = "rsa|ecdh|dh|raw",
	  .help = "rsa or ecdh; raw is turned into ecdh" },
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
	LATER("run_cache", "false"),
	LATER("run_preprocess", "false"),
	LATER("sample_id_generator", "\"guest\""),
	LATER("sync_cardinality", "false"),
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
