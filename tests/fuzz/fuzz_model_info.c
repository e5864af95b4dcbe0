// SPDX-License-Identifier: Apache-2.0
/* A model that comes from outside: its info.json, and the shape of the others:
 * what jansson takes as an object has that shape. */
#include "fs/models_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define ID	"arbiter-10001#guest-9999#host-10000#model"
#define VERSION "202611231800000000009999"

static void check(const struct model_files *f)
{
	for (size_t i = 0; i < f->n; i++) {
		const char *path = f->of[i].path;

		if (!model_file_name_valid(path) || path[0] == '/' ||
		    strstr(path, "..") || f->of[i].size > MODEL_FILE_MAX ||
		    strlen(f->of[i].sha256) != 64 ||
		    model_files_find(f, path) != &f->of[i])
			abort();
	}
	if (!f->n || model_files_find(f, "no such") ||
	    (f->deployed && !model_files_find(f, MODEL_DSL_PATH)))
		abort();
}

/* As many as the scanner takes. */
static unsigned depth(const json_t *v)
{
	const char *key;
	unsigned d = 0, k;
	json_t *x;
	size_t i;

	if (!json_is_object(v) && !json_is_array(v))
		return 0;
	json_object_foreach ((json_t *)v, key, x) {
		k = depth(x);
		d = MAX(d, k);
	}
	json_array_foreach (v, i, x) {
		k = depth(x);
		d = MAX(d, k);
	}
	return d + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct model_files *f = NULL;
	struct err e = { 0 };
	const char *text = (const char *)data;
	bool shaped = json_object_shaped(text, n);
	json_t *o = json_loadb(text, n, 0, NULL);

	if (json_is_object(o) && !shaped && depth(o) <= 512)
		abort();
	json_decref(o);
	if (model_files_parse(text, n, "9999", ID, VERSION, &f, &e)) {
		if (!e.no || !e.text[0] || f)
			abort();
	} else {
		if (!shaped)
			abort();
		check(f);
	}
	model_files_free(f);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
