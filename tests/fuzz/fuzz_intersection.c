// SPDX-License-Identifier: Apache-2.0
/*
 * A partner of an intersection that says something else than it should.  Both
 * parties run; one message of one of them is changed on its way:
 *
 *	0     which parameters
 *	1     which party (the top bit: the host), and which of its messages
 *	2, 3  bytes that stay at its front (little endian)
 *	4     bytes that are left out after these
 *	5..   bytes that stand there instead
 */
#include "components/intersection.h"
#include "tests/unit/id_tables.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct {
	const char *params;
	bool same; /* both parties learn the same number */
} runs[] = {
	{ "{\"intersect_method\": \"ecdh\"}", true },
	{ "{\"intersect_method\": \"ecdh\", \"sync_intersect_ids\": false}",
	  false },
	{ "{\"cardinality_only\": true, \"sync_cardinality\": true}", false },
	{ "{\"intersect_method\": \"rsa\", \"rsa_params\": "
	  "{\"key_length\": 1024}}",
	  true },
	{ "{\"intersect_method\": \"rsa\", \"rsa_params\": "
	  "{\"key_length\": 1024, \"split_calculation\": true}}",
	  true },
	{ "{\"intersect_method\": \"dh\"}", true },
};

#define ROWS 20
static const struct ids ids[] = { { 0, ROWS, 1 }, { 10, 10 + ROWS, 1 } };

static struct table *tables[2];
static struct ctx ctx[2];
static const uint8_t *input;
static size_t input_n;

/* Pieces of a few ids, so that there are several. */
static int run_small(struct ctx *c, struct err *e)
{
	static const struct psi_limits small = { .bytes = 256,
						 .window = 2,
						 .memory = 200 };

	return intersection_run(c, &small, e);
}

static void change(const struct ctx *c, void **data, size_t *n)
{
	size_t keep = MIN(input[2] | (size_t)input[3] << 8, *n);
	size_t skip = MIN((size_t)input[4], *n - keep), more = input_n - 5;
	uint8_t *v;

	if (c != &ctx[input[1] >> 7] || c->sent != (input[1] & 127))
		return;
	v = xmalloc(*n + more + 1);
	memcpy(v, *data, keep);
	memcpy(v + keep, input + 5, more);
	memcpy(v + keep + more, (uint8_t *)*data + keep + skip,
	       *n - keep - skip);
	*n += more - skip;
	free(*data);
	*data = v;
}

static void leave(void)
{
	table_unref(tables[0]);
	table_unref(tables[1]);
	(void)harness_teardown(NULL);
}

static int64_t counted(const struct ctx *c)
{
	return json_int_or(c->summary, "intersect_count", -1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct component small = { .run = run_small };
	size_t which;

	if (n < 5)
		return 0;
	if (!store) {
		if (harness_setup(NULL) < 0)
			abort();
		tables[0] = make_table("a", &ids[0]);
		tables[1] = make_table("b", &ids[1]);
		(void)atexit(leave);
	}
	input = data;
	input_n = n;
	which = data[0] % ARRAY_SIZE(runs);
	memset(ctx, 0, sizeof(ctx));
	bus.hosts = 1;
	bus.edit = change;
	for (size_t k = 0; k < 2; k++) {
		ctx[k].role = k ? "host" : "guest";
		ctx[k].params = json_loads(runs[which].params, 0, NULL);
		ctx[k].table = table_ref(tables[k]);
	}
	parties_run(ctx, 2, &small);
	for (size_t k = 0; k < 2; k++)
		if (ctx[k].status < 0 ? !ctx[k].err.text[0]
				      : counted(&ctx[k]) > ROWS)
			abort();
	if (ctx[0].status == 0 && ctx[1].status == 0 && runs[which].same &&
	    counted(&ctx[0]) != counted(&ctx[1]))
		abort();
	parties_end(ctx, 2);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
