// SPDX-License-Identifier: Apache-2.0
/* The store of models without a scheduler: names, what a predict job runs, and
 * what may come from outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "lib/fileio.h"
#include "scheduler/check_priv.h"
#include "scheduler/engine.h"
#include "scheduler/model_priv.h"

#define ID	"arbiter-10001#guest-9999#host-10000#model"
#define VERSION "202611231200001234569999"

/* JSON with ' for ". */
static json_t *doc(const char *text)
{
	_cleanup_free_ char *copy = xstrdup(text);
	json_error_t why;
	json_t *o;

	for (char *p = copy; *p; p++)
		if (*p == '\'')
			*p = '"';
	o = json_loads(copy, 0, &why);
	if (!o)
		fail_msg("%s: %s", copy, why.text);
	return o;
}

static void same(json_t *got, const char *want)
{
	json_t *w = doc(want);
	_cleanup_free_ char *a = json_text(got, false);
	_cleanup_free_ char *b = json_text(w, false);

	assert_string_equal(a, b);
	json_decref(got);
	json_decref(w);
}

/* ---- names ----------------------------------------------------------------
 */

static void ids_are_those_of_fate(void **state)
{
	json_t *roles = doc("{'host': ['10002', '9003', '10000'],"
			    " 'guest': ['9001'], 'arbiter': ['9002']}");
	_cleanup_free_ char *id = model_id_of(roles);

	(void)state;
	assert_string_equal(
	    id, "arbiter-9002#guest-9001#host-9003_10000_10002#model");
	assert_true(model_id_valid(id));
	json_decref(roles);
}

static void names_that_are_none_are_refused(void **state)
{
	static const char *const ids[] = {
		"",
		"model",
		"#model",
		"guest-9999",
		"guest-9999#",
		"guest-9999#Model",
		"guest-9999#host-#model",
		"guest-9999#host-1_#model",
		"guest-9999#host-12345678901#model",
		"../guest-9999#model",
		"guest-9999/x#model",
		"guest-9999#model#model",
	};
	static const char *const files[] = {
		"",
		"info.json/",
		"train/other.json",
		"guest-9999/meta.json",
		"guest-9999/a/b/meta.json",
		"guest-9999/../meta.json",
		"guest-9999/a b/meta.json",
		"guest-9999/a/checkpoints/meta.json",
		"guest-9999/a/checkpoints/x/meta.json",
		"guest-9999/a/checkpoints/12345678/meta.json",
		"guest-1_2/a/meta.json",
		"guest/a/meta.json",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		if (model_id_valid(ids[i]))
			fail_msg("%s", ids[i]);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (model_file_name_valid(files[i]))
			fail_msg("%s", files[i]);
	assert_true(model_file_name_valid("info.json"));
	assert_true(model_file_name_valid("guest-9999/a_0/param.json"));
	assert_true(
	    model_file_name_valid("host-1/a_0/checkpoints/12/meta.json"));
	assert_true(model_version_valid(VERSION));
	assert_false(model_version_valid("2026112312000012345"));
	assert_false(model_version_valid("20261123120000123456999x"));
}

/* ---- what a predict job runs ------------------------------------------------
 */

static const char spine[] =
    "{'components': {"
    "'read_0': {'module': 'Reader', 'output': {'data': ['raw']}},"
    "'prep_0': {'module': 'DataTransform',"
    " 'input': {'data': {'data': ['read_0.raw']}},"
    " 'output': {'data': ['feat'], 'model': ['prep']}},"
    "'psi_0': {'module': 'Intersection',"
    " 'input': {'data': {'data': ['prep_0.feat']}},"
    " 'output': {'data': ['common'], 'cache': ['keys']}},"
    "'bin_0': {'module': 'HeteroFeatureBinning',"
    " 'input': {'data': {'data': ['psi_0.common']}},"
    " 'output': {'data': ['binned'], 'model': ['bins']}},"
    "'sel_0': {'module': 'HeteroFeatureSelection',"
    " 'input': {'data': {'data': ['bin_0.binned']},"
    "           'isometric_model': ['bin_0.bins']},"
    " 'output': {'data': ['chosen'], 'model': ['mask']}},"
    "'lr_0': {'module': 'HeteroLR',"
    " 'input': {'data': {'train_data': ['sel_0.chosen'],"
    "                    'validate_data': ['psi_0.common']}},"
    " 'output': {'data': ['score'], 'model': ['w']}},"
    "'lr_1': {'module': 'HeteroLR',"
    " 'input': {'data': {'eval_data': ['sel_0.chosen']},"
    "           'model': ['lr_0.w']},"
    " 'output': {'data': ['score']}},"
    "'eval_0': {'module': 'Evaluation',"
    " 'input': {'data': {'data': ['lr_0.score', 'lr_1.score']}},"
    " 'output': {'data': ['report']}}}}";

static json_t *deduced(const char *words)
{
	json_t *dsl = doc(spine), *chosen = doc(words), *ret, *in;

	predict_add_readers(dsl, chosen);
	ret = predict_dsl_deduce(dsl, chosen);
	in = json_incref(json_object_get(ret, "components"));
	json_decref(dsl);
	json_decref(chosen);
	json_decref(ret);
	return in;
}

static void models_become_inputs_and_training_data_test_data(void **state)
{
	(void)state;
	same(deduced("['read_0', 'prep_0', 'psi_0', 'bin_0', 'sel_0', 'lr_0']"),
	     "{'read_0': {'module': 'Reader', 'output': {'data': ['raw']}},"
	     "'prep_0': {'module': 'DataTransform',"
	     " 'input': {'data': {'data': ['read_0.raw']},"
	     "           'model': ['pipeline.prep_0.prep']},"
	     " 'output': {'data': ['feat']}},"
	     "'psi_0': {'module': 'Intersection',"
	     " 'input': {'data': {'data': ['prep_0.feat']}},"
	     " 'output': {'data': ['common'], 'cache': ['keys']}},"
	     "'bin_0': {'module': 'HeteroFeatureBinning',"
	     " 'input': {'data': {'data': ['psi_0.common']},"
	     "           'model': ['pipeline.bin_0.bins']},"
	     " 'output': {'data': ['binned']}},"
	     "'sel_0': {'module': 'HeteroFeatureSelection',"
	     " 'input': {'data': {'data': ['bin_0.binned']},"
	     "           'model': ['pipeline.sel_0.mask']},"
	     " 'output': {'data': ['chosen']}},"
	     "'lr_0': {'module': 'HeteroLR',"
	     " 'input': {'data': {'test_data': ['sel_0.chosen']},"
	     "           'model': ['pipeline.lr_0.w']},"
	     " 'output': {'data': ['score']}}}");
}

static void what_is_left_out_is_bypassed(void **state)
{
	(void)state;
	/* The Reader comes along unasked. */
	same(deduced("['prep_0', 'lr_0']"),
	     "{'read_0': {'module': 'Reader', 'output': {'data': ['raw']}},"
	     "'prep_0': {'module': 'DataTransform',"
	     " 'input': {'data': {'data': ['read_0.raw']},"
	     "           'model': ['pipeline.prep_0.prep']},"
	     " 'output': {'data': ['feat']}},"
	     "'lr_0': {'module': 'HeteroLR',"
	     " 'input': {'data': {'test_data': ['prep_0.feat']},"
	     "           'model': ['pipeline.lr_0.w']},"
	     " 'output': {'data': ['score']}}}");
	same(deduced("['lr_0']"),
	     "{'read_0': {'module': 'Reader', 'output': {'data': ['raw']}},"
	     "'lr_0': {'module': 'HeteroLR',"
	     " 'input': {'data': {'test_data': ['read_0.raw']},"
	     "           'model': ['pipeline.lr_0.w']},"
	     " 'output': {'data': ['score']}}}");
}

static void eval_data_is_lost_and_a_given_model_is_kept(void **state)
{
	json_t *all = deduced("['lr_0', 'lr_1', 'eval_0']"), *o;

	(void)state;
	o = json_incref(json_object_get(all, "lr_1"));
	same(o, "{'module': 'HeteroLR',"
		" 'input': {'model': ['pipeline.lr_0.w']},"
		" 'output': {'data': ['score']}}");
	o = json_incref(json_object_get(all, "eval_0"));
	same(o, "{'module': 'Evaluation',"
		" 'input': {'data': {'data': ['lr_0.score', 'lr_1.score']}},"
		" 'output': {'data': ['report']}}");
	json_decref(all);
}

static const char describe[] =
    "{'components': [{'module': 'Reader', 'needs_roles': []},"
    " {'module': 'HeteroLR', 'needs_roles': ['guest', 'host', 'arbiter']}]}";
static const char predicts[] =
    "{'components': {"
    "'read_0': {'module': 'Reader', 'output': {'data': ['raw']}},"
    "'lr_0': {'module': 'HeteroLR',"
    " 'input': {'data': {'test_data': ['read_0.raw']},"
    "           'model': ['pipeline.lr_0.w']}}}}";
static const char conf[] =
    "{'dsl_version': 2, 'initiator': {'role': 'guest', 'party_id': 1},"
    " 'role': {'guest': [1], 'host': [2, 3], 'arbiter': [4]},"
    " 'job_parameters': {'common': {'job_type': 'train', 'task_cores': 3,"
    "                               'model_id': 'x'}},"
    " 'component_parameters': {"
    "  'common': {'lr_0': {'alpha': 1, 'cv_param': {'need_cv': true}},"
    "             'other_0': {'a': 1}},"
    "  'role': {'guest': {'0': {'read_0': {'table': {'name': 'a',"
    "                                                'namespace': 'n'}}}},"
    "           'host': {'all': {'lr_0': {'alpha': 2}},"
    "                    '0|1': {'lr_0': {'beta': 5}},"
    "                    '1': {'lr_0': {'alpha': 3},"
    "                          'read_0': {'table': {'name': 'b'},"
    "                                     'x': 1}}}}}}";

static json_t *template_of(const char *text)
{
	json_t *train = doc(text), *dsl = doc(predicts), *known = doc(describe);
	json_t *ret = predict_template(train, dsl, known, ID, VERSION);

	json_decref(train);
	json_decref(dsl);
	json_decref(known);
	return ret;
}

#define TABLE                                                  \
	"{'read_0': {'table': {'name': 'name_to_be_filled_0'," \
	" 'namespace': 'namespace_to_be_filled_0'}}}"

static void the_template_has_a_blank_for_every_table(void **state)
{
	(void)state;
	same(template_of(conf),
	     "{'dsl_version': 2, 'initiator': {'role': 'guest', 'party_id': 1},"
	     " 'role': {'guest': [1], 'host': [2, 3]},"
	     " 'job_parameters': {'common': {'job_type': 'predict',"
	     "  'task_cores': 3, 'model_id': '" ID "',"
	     "  'model_version': '" VERSION "'}},"
	     " 'component_parameters': {'role': {"
	     "  'guest': {'0': " TABLE "},"
	     "  'host': {'0': " TABLE ", '1': " TABLE "}}}}");
}

static void the_arbiter_is_needed_to_hide_scores(void **state)
{
	json_t *with = doc(conf), *o;
	_cleanup_free_ char *text = NULL;

	(void)state;
	json_object_set_new(
	    json_object_get(
		json_object_get(json_object_get(with, "component_parameters"),
				"common"),
		"lr_0"),
	    "predict_param", doc("{'hide_scores': true}"));
	text = json_text(with, false);
	o = template_of(text);
	assert_non_null(json_object_get(json_object_get(o, "role"), "arbiter"));
	json_decref(o);
	json_decref(with);
}

static void the_training_is_below_the_conf(void **state)
{
	json_t *train = doc(conf), *dsl = doc(predicts), *now, *merged;

	(void)state;
	/* The hosts in another order. */
	now = doc("{'role': {'guest': [1], 'host': [3, 2]},"
		  " 'component_parameters': {"
		  "  'common': {'lr_0': {'gamma': 9}},"
		  "  'role': {'host': {'all': {'lr_0': {'alpha': 7}},"
		  "                    '0': {'lr_0': {'alpha': 8}},"
		  "                    '5': {'lr_0': {'alpha': 9}}}}}}");
	merged = predict_conf_merge(train, now, dsl);
	same(json_incref(json_object_get(merged, "component_parameters")),
	     "{'common': {'lr_0': {'alpha': 1, 'gamma': 9}},"
	     " 'role': {'guest': {'0': {'read_0': {}}},"
	     "  'host': {'0': {'lr_0': {'alpha': 8, 'beta': 5},"
	     "                 'read_0': {'x': 1}},"
	     "           '1': {'lr_0': {'alpha': 7, 'beta': 5}},"
	     "           '5': {'lr_0': {'alpha': 9}}}}}");
	json_decref(merged);
	json_decref(now);
	json_decref(train);
	json_decref(dsl);
}

/* ---- what comes from outside -----------------------------------------------
 */

struct box {
	char state[64];
	char *dir;
};

static void put(const struct box *b, const char *name, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", b->dir, name);
	char *slash = strrchr(path, '/');
	json_t *o = doc(text);
	struct err e;

	*slash = '\0';
	assert_int_equal(mkdir_p(path, 0700, &e), 0);
	*slash = '/';
	assert_int_equal(json_write_file(path, o, 0600, false, &e), 0);
	json_decref(o);
}

static json_t *make_info(const struct box *b)
{
	json_t *info = doc(
	    "{'version': 1, 'model_id': '" ID "', 'model_version': '" VERSION
	    "', 'party': '9999', 'roles': {'guest': ['9999'],"
	    " 'host': ['10000'], 'arbiter': ['10001']},"
	    " 'initiator': {'role': 'guest', 'party': '9999'},"
	    " 'deployed': false, 'parent': null,"
	    " 'components': {'lr_0': {'module': 'HeteroLR',"
	    "                         'roles': ['guest'], 'output': 'w'}},"
	    " 'files': {}}");
	struct err e;

	assert_int_equal(
	    model_list_files(b->dir, json_object_get(info, "files"), &e), 0);
	return info;
}

static void write_info(const struct box *b, json_t *info)
{
	_cleanup_free_ char *path = xasprintf("%s/info.json", b->dir);
	struct err e;

	assert_int_equal(json_write_file(path, info, 0600, false, &e), 0);
}

static int begin(void **state)
{
	struct box *b = xcalloc(1, sizeof(*b));

	(void)snprintf(b->state, sizeof(b->state), "/tmp/rollfs-model-XXXXXX");
	assert_non_null(mkdtemp(b->state));
	b->dir = model_import_path(b->state, ID, VERSION);
	put(b, "train/dsl.json", "{'components': {}}");
	put(b, "train/conf.json", "{}");
	put(b, "guest-9999/lr_0/meta.json",
	    "{'module': 'HeteroLR', 'meta': {}}");
	put(b, "guest-9999/lr_0/param.json", "{'weight': [1, 2]}");
	*state = b;
	return 0;
}

static int finish(void **state)
{
	struct box *b = *state;

	(void)remove_tree(b->state, NULL);
	free(b->dir);
	free(b);
	return 0;
}

static int try(const struct box *b, const char *party, const char **why)
{
	static struct err e;
	int r = model_import_try(NULL, b->state, party, ID, VERSION, &e);

	*why = e.text;
	return r;
}

static void a_whole_import_takes_its_place(void **state)
{
	const struct box *b = *state;
	_cleanup_free_ char *param =
	    xasprintf("%s/guest-9999/lr_0/param.json", b->dir);
	json_t *info = make_info(b), *o;
	const char *why;
	char **list;

	assert_int_equal(try(b, "9999", &why), 0); /* no info.json yet */
	assert_int_equal(unlink(param), 0);
	write_info(b, info);
	assert_int_equal(try(b, "9999", &why), 0); /* one is missing */
	put(b, "guest-9999/lr_0/param.json", "{'weight': [1, 2]}");
	put(b, "predict/dsl.json", "{}"); /* waited for a deploy */
	assert_int_equal(try(b, "9999", &why), 1);
	assert_true(model_exists(b->state, ID, VERSION));
	assert_null(model_read(b->state, ID, VERSION, MODEL_DSL_PATH, NULL));
	assert_int_not_equal(access(b->dir, F_OK), 0);
	list = model_versions(b->state, ID);
	assert_string_equal(list[0], VERSION);
	assert_null(list[1]);
	model_names_free(list);
	list = model_ids(b->state);
	assert_string_equal(list[0], ID);
	model_names_free(list);
	assert_int_equal(try(b, "9999", &why), -EEXIST);
	o = model_read(b->state, ID, VERSION, "guest-9999/lr_0/param.json",
		       NULL);
	same(o, "{'weight': [1, 2]}");
	json_decref(info);
}

static void a_tampered_import_is_refused(void **state)
{
	const struct box *b = *state;
	json_t *info = make_info(b);
	const char *why;

	write_info(b, info);
	put(b, "guest-9999/lr_0/param.json", "{'weight': [1, 3]}");
	assert_int_equal(try(b, "9999", &why), -EBADMSG);
	assert_string_equal(why, "guest-9999/lr_0/param.json is not what "
				 "info.json says (SHA-256)");
	assert_false(model_exists(b->state, ID, VERSION));
	json_decref(info);
}

static void what_info_does_not_list_is_refused(void **state)
{
	const struct box *b = *state;
	json_t *info = make_info(b);
	const char *why;

	write_info(b, info);
	put(b, "guest-9999/lr_1/param.json", "{}");
	assert_int_equal(try(b, "9999", &why), -EBADMSG);
	assert_string_equal(why,
			    "guest-9999/lr_1/param.json is not in info.json");
	json_decref(info);
}

static void a_foreign_import_is_refused(void **state)
{
	const struct box *b = *state;
	json_t *info = make_info(b);
	const char *why;

	write_info(b, info);
	assert_int_equal(try(b, "10000", &why), -EACCES);
	assert_string_equal(why, "this is the part of party 9999; this mount "
				 "is party 10000");
	json_object_set_new(info, "party", json_string("10000"));
	write_info(b, info);
	assert_int_equal(try(b, "10000", &why), -EACCES);
	assert_non_null(strstr(why, "is not of party 10000"));
	json_object_set_new(info, "roles",
			    doc("{'guest': ['9999'], 'host': ['10000']}"));
	write_info(b, info);
	assert_int_equal(try(b, "10000", &why), -EBADMSG);
	json_decref(info);
}

static void a_model_of_another_module_is_refused(void **state)
{
	const struct box *b = *state;
	json_t *info;
	const char *why;

	put(b, "guest-9999/lr_0/meta.json",
	    "{'module': 'HeteroLinR', 'meta': {}}");
	info = make_info(b);
	write_info(b, info);
	assert_int_equal(try(b, "9999", &why), -EBADMSG);
	assert_string_equal(why, "guest-9999/lr_0/meta.json: not a model of "
				 "HeteroLR");
	json_decref(info);
}

/* A version that was replaced (.old-) when all ended: before the new one had
 * its name, or after. */
static void the_old_version_is_there_until_the_new_one_is(void **state)
{
	const struct box *b = *state;
	_cleanup_free_ char *id = model_path(b->state, ID, NULL);
	_cleanup_free_ char *final = model_path(b->state, ID, VERSION);
	_cleanup_free_ char *old =
	    xasprintf("%s/models/.old-%s", b->state, VERSION);
	struct conf c = { .state = (char *)b->state };
	struct sched s = { .o.conf = &c, .party = "9999" };
	json_t *info = make_info(b), *o;
	struct err e;

	write_info(b, info);
	assert_int_equal(mkdir_p(id, 0700, &e), 0);
	assert_int_equal(rename(b->dir, old), 0);
	model_sweep(&s);
	assert_true(model_exists(b->state, ID, VERSION));
	assert_int_not_equal(access(old, F_OK), 0);

	assert_int_equal(rename(final, old), 0);
	put(b, "train/conf.json", "{'new': 1}");
	write_info(b, info);
	assert_int_equal(rename(b->dir, final), 0);
	model_sweep(&s);
	assert_int_not_equal(access(old, F_OK), 0);
	o = model_read(b->state, ID, VERSION, "train/conf.json", NULL);
	same(o, "{'new': 1}");
	json_decref(info);
}

int main(void)
{
	const struct CMUnitTest t[] = {
		cmocka_unit_test(ids_are_those_of_fate),
		cmocka_unit_test(names_that_are_none_are_refused),
		cmocka_unit_test(
		    models_become_inputs_and_training_data_test_data),
		cmocka_unit_test(what_is_left_out_is_bypassed),
		cmocka_unit_test(eval_data_is_lost_and_a_given_model_is_kept),
		cmocka_unit_test(the_template_has_a_blank_for_every_table),
		cmocka_unit_test(the_arbiter_is_needed_to_hide_scores),
		cmocka_unit_test(the_training_is_below_the_conf),
		cmocka_unit_test_setup_teardown(a_whole_import_takes_its_place,
						begin, finish),
		cmocka_unit_test_setup_teardown(a_tampered_import_is_refused,
						begin, finish),
		cmocka_unit_test_setup_teardown(
		    what_info_does_not_list_is_refused, begin, finish),
		cmocka_unit_test_setup_teardown(a_foreign_import_is_refused,
						begin, finish),
		cmocka_unit_test_setup_teardown(
		    a_model_of_another_module_is_refused, begin, finish),
		cmocka_unit_test_setup_teardown(
		    the_old_version_is_there_until_the_new_one_is, begin,
		    finish),
	};

	return cmocka_run_group_tests(t, NULL, NULL);
}
