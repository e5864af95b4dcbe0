// SPDX-License-Identifier: Apache-2.0
/*
 * SecureAddExample: guest and host add vectors without showing them, by
 * additive shares in the integers mod 2^64.  The smoke test of a federation;
 * docs/components/secure_add_example.md.
 */
#include <endian.h>
#include <math.h>
#include <sys/random.h>

#include "components/component.h"
#include "lib/json.h"

#define SCALE_BITS 30 /* of a value behind the binary point */

static const struct param params[] = {
	{ .name = "seed",
	  .type = PARAM_INT,
	  .flags = PARAM_NULLABLE | PARAM_IGNORED,
	  .help = "shares come from the system's generator" },
	{ .name = "partition",
	  .type = PARAM_INT,
	  .def = "1",
	  .min = 1,
	  .max = 1000,
	  .flags = PARAM_IGNORED,
	  .help = "the vectors stay in memory" },
	{ .name = "data_num",
	  .type = PARAM_INT,
	  .def = "1000",
	  .min = 1,
	  .max = 10000000,
	  .help = "how many numbers each side adds" },
	{ 0 },
};

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	(void)p;
	(void)role;
	if (json_array_size(json_object_get(roles, "host")) > 1 ||
	    json_array_size(json_object_get(roles, "guest")) > 1)
		defect(arg, "", "needs exactly one guest and one host");
}

static int random_fill(uint8_t *p, size_t n, struct err *e)
{
	while (n > 0) {
		ssize_t got = getrandom(p, MIN(n, (size_t)256), 0);

		if (got < 0 && errno != EINTR)
			return err_sys(e, errno, "getrandom");
		if (got > 0) {
			p += got;
			n -= (size_t)got;
		}
	}
	return 0;
}

static int run(struct ctx *c, struct err *e)
{
	bool guest = strcmp(ctx_role(c), "guest") == 0;
	const char *peer = guest ? "host" : "guest";
	size_t n = (size_t)json_int_or(ctx_params(c), "data_num", 1000);
	_cleanup_free_ uint64_t *sent = xcalloc(n, sizeof(*sent));
	_cleanup_free_ uint8_t *got = NULL, *total = NULL;
	uint64_t sum = 0, other;
	double value;
	json_t *o;
	size_t m;
	int r;

	r = random_fill((uint8_t *)sent, n * sizeof(*sent), e);
	if (r < 0)
		return r;
	/* Every value is 1: what is kept is 1 minus what is sent. */
	for (size_t i = 0; i < n; i++)
		sum += (UINT64_C(1) << SCALE_BITS) - le64toh(sent[i]);
	r = ctx_send_fixed(c, peer, 0, guest ? "guest_share" : "host_share", "",
			   sent, 8, n, e);
	if (r < 0)
		return r;
	r = ctx_recv_fixed(c, peer, 0, guest ? "host_share" : "guest_share", "",
			   8, n, &got, &m, e);
	if (r < 0)
		return r;
	if (m != n)
		return err_set(e, EPROTO, "%zu shares, expected %zu", m, n);
	for (size_t i = 0; i < n; i++) {
		memcpy(&other, got + 8 * i, 8);
		sum += le64toh(other);
	}
	ctx_progress(c, .5);
	if (!guest) {
		sum = htole64(sum);
		return ctx_send_fixed(c, peer, 0, "host_sum", "", &sum, 8, 1,
				      e);
	}
	r = ctx_recv_fixed(c, peer, 0, "host_sum", "", 8, 1, &total, &m, e);
	if (r < 0)
		return r;
	if (m != 1)
		return err_set(e, EPROTO, "no sum came");
	memcpy(&other, total, 8);
	sum += le64toh(other);
	value = ldexp((double)(int64_t)sum, -SCALE_BITS);
	ctx_log(c, "the sum is %.6f", value);
	if (fabs(value - 2 * (double)n) > 1e-6) {
		ctx_fail_code(c, "wrong_sum", "the sum is wrong");
		return err_set(e, EBADMSG, "the sum is %.6f, expected %zu",
			       value, 2 * n);
	}
	o = json_pack("{s:f, s:f}", "sum", value, "expected", 2 * (double)n);
	r = ctx_put_summary(c, o, e);
	json_decref(o);
	return r;
}

extern const struct component component_secure_add_example;
const struct component component_secure_add_example = {
	.module = "SecureAddExample",
	.roles = ROLE_GUEST | ROLE_HOST,
	.needs_roles = ROLE_GUEST | ROLE_HOST,
	.params = params,
	.help = "guest and host add random shares: the smoke test",
	.check = check,
	.run = run,
};
