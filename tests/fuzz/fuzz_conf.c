// SPDX-License-Identifier: Apache-2.0
/* The configuration file and the rules of a party. */
#include "lib/conf_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *text = strndup((const char *)data, n);
	struct conf *c = NULL;
	struct err e = { 0 };

	if (!text)
		return 0;
	if (conf_parse("/fuzz/a.conf", (const char *)data, n, false, &c, &e)) {
		if (!e.text[0])
			abort();
	} else {
		for (size_t i = 0; i < c->n_parties; i++)
			if (allow_check(c->parties[i].allow, NULL) ||
			    (c->parties[i].url &&
			     address_check(c->parties[i].url, NULL)))
				abort();
		conf_free(c);
	}
	if (!allow_check(text, &e)) {
		uint64_t v = 0;

		(void)allow_permits(text, "table", "experiment/breast");
		if (allow_limit(text, "size", &v) && (!v || v > INT64_MAX))
			abort();
	}
	e = (struct err){ 0 };
	if (address_check(text, &e) && !e.text[0])
		abort();
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
