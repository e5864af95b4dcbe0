/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of documents and frames between parties share. */
#ifndef TESTS_UNIT_DOCUMENTS_H
#define TESTS_UNIT_DOCUMENTS_H

#include "lib/json.h"

#define HEX64 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define ZERO64 \
	"0000000000000000000000000000000000000000000000000000000000000000"
#define PEM    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
#define DIGEST "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"

/* JSON of a test: apostrophes stand for quotes. */
static inline json_t *doc(const char *text)
{
	_cleanup_free_ char *s = xstrdup(text);
	struct err e = { 0 };
	json_t *d;

	for (char *p = s; *p; p++)
		if (*p == '\'')
			*p = '"';
	d = json_parse(s, strlen(s), &e);
	if (!d)
		fail_msg("%s: %s", text, e.text);
	return d;
}

/* The document with members of another one put over its own. */
static inline json_t *with(const char *text, const char *other)
{
	json_t *d = doc(text), *o = doc(other);

	assert_int_equal(json_object_update(d, o), 0);
	json_decref(o);
	return d;
}

#endif
