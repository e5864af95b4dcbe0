// SPDX-License-Identifier: Apache-2.0
/* /components/<Module>.json: what may stand in a DSL. */
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/fs.h"

/* The scheduler's list is an array or an object of descriptions. */
static json_t *module_at(size_t i, const char **ret_name)
{
	const json_t *all = sched_modules(fs.sched);
	json_t *v = NULL;

	if (json_is_array(all)) {
		v = json_array_get(all, i);
		*ret_name = json_str_or(v, "module", NULL);
	} else if (json_is_object(all)) {
		const char *key;
		json_t *o = (json_t *)all;
		json_t *x;
		size_t at = 0;

		json_object_foreach (o, key, x)
			if (at++ == i) {
				*ret_name = key;
				v = x;
			}
	}
	return v && *ret_name ? v : NULL;
}

static size_t module_count(void)
{
	const json_t *all = sched_modules(fs.sched);

	return json_is_array(all) ? json_array_size(all)
				  : json_object_size(all);
}

static int component_getattr(const struct who *w, struct nid n,
			     struct attr *ret)
{
	const char *name;
	json_t *v = module_at(n.number, &name);
	_cleanup_free_ char *text = v ? json_text(v, true) : NULL;

	(void)w;
	if (!text)
		return -ENOENT;
	attr_fill(ret, nid_ino(K_COMPONENT, n.number, 0), S_IFREG | 0444,
		  strlen(text), 0);
	ret->entry_s = ret->attr_s = 3600; /* constant after start */
	return 0;
}

int component_lookup(const char *name, struct attr *ret)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < module_count(); i++) {
		const char *module;

		if (module_at(i, &module) && len == strlen(module) + 5 &&
		    !strncmp(name, module, len - 5) &&
		    !strcmp(name + len - 5, ".json"))
			return component_getattr(
			    NULL, (struct nid){ K_COMPONENT, i, 0 }, ret);
	}
	return -ENOENT;
}

int components_list(struct listing *l)
{
	for (size_t i = 0; i < module_count(); i++) {
		const char *module;
		char name[256];

		if (!module_at(i, &module))
			continue;
		(void)snprintf(name, sizeof(name), "%s.json", module);
		listing_add(l, name, nid_ino(K_COMPONENT, i, 0), S_IFREG);
	}
	return 0;
}

static int component_open(const struct who *w, struct nid n, int flags,
			  struct handle **ret)
{
	const char *name;
	json_t *v = module_at(n.number, &name);

	if (!v)
		return -ENOENT;
	return open_text(w, n, flags, json_text(v, true), ret);
}

const struct tree tree_components = {
	.getattr = component_getattr,
	.open = component_open,
};
