// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/local_task.h"

#define HEAD   "id,label,predict_result,predict_score,predict_detail,type\n"
#define COMMON "'pos_label': 1, 'eval_type': "

static int evaluate(const char *table, const char *params)
{
	return local_run("Evaluation", "guest", table, params, false);
}

static json_t *measures(const char *type)
{
	json_t *all = local_json("summary.json");
	json_t *o = json_object_get(json_object_get(all, "maker_0"), type);

	assert_non_null(o);
	json_incref(o);
	json_decref(all);
	return o;
}

static double value(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	assert_true(json_is_number(v));
	return json_number_value(v);
}

static void upload_binary(void)
{
	/* pairs: a and c above b and d, but b ties with c */
	local_upload("p", HEAD "a,1,1,0.9,\"{\"\"1\"\": 0.9}\",train\n"
			       "b,0,0,0.4,,train\n"
			       "c,1,0,0.4,,train\n"
			       "d,0,0,0.1,,train\n"
			       "e,1,1,0.8,,validate\n"
			       "f,0,0,0.7,,validate\n");
}

static void binary_gives_auc_and_both_ks_for_each_type(void **state)
{
	json_t *o;

	(void)state;
	upload_binary();
	assert_int_equal(evaluate("p", "{" COMMON "'binary'}"), 0);
	o = measures("train");
	assert_float_equal(value(o, "auc"), 3.5 / 4, 1e-12);
	assert_float_equal(value(o, "ks"), .5, 1e-12);
	assert_float_equal(value(o, "ks_exact"), .5, 1e-12);
	assert_int_equal(json_object_size(o), 3);
	json_decref(o);
	o = measures("validate");
	assert_float_equal(value(o, "auc"), 1, 1e-12);
	json_decref(o);
}

static void the_rows_are_handed_on(void **state)
{
	(void)state;
	upload_binary();
	assert_int_equal(evaluate("p", "{" COMMON "'binary'}"), 0);
	assert_non_null(strstr(local_csv(), "\nc,1,0,0.4,,train\n"));
}

static void another_label_may_be_the_positive_one(void **state)
{
	json_t *o;

	(void)state;
	upload_binary();
	assert_int_equal(
	    evaluate("p", "{'pos_label': '0', 'eval_type': 'binary'}"), 0);
	o = measures("train");
	assert_float_equal(value(o, "auc"), .5 / 4, 1e-12);
	json_decref(o);
}

static void one_class_gives_null_and_an_event(void **state)
{
	json_t *o;

	(void)state;
	local_upload("p", HEAD "a,1,1,0.9,,train\nb,1,0,0.4,,train\n");
	assert_int_equal(evaluate("p", "{" COMMON "'binary'}"), 0);
	o = measures("train");
	assert_true(json_is_null(json_object_get(o, "auc")));
	assert_true(json_is_null(json_object_get(o, "ks")));
	assert_true(json_is_null(json_object_get(o, "ks_exact")));
	json_decref(o);
	assert_non_null(strstr(local_text("events"), "auc is not defined"));
	assert_null(strstr(local_text("summary.json"), "nan"));
}

static void curves_come_when_they_are_named(void **state)
{
	static const char *const names[] = {
		"ks_curve", "roc",	"lift",	    "gain",	  "precision",
		"recall",   "accuracy", "f1_score", "quantile_pr"
	};
	const json_t *roc;
	json_t *o;

	(void)state;
	upload_binary();
	assert_int_equal(
	    evaluate("p", "{" COMMON "'binary', 'metrics': ['ks', 'roc', "
			  "'lift', 'gain', 'precision', 'recall', 'acc', "
			  "'f1_score', 'confusion_mat', 'quantile_pr']}"),
	    0);
	o = measures("train");
	assert_null(json_object_get(o, "auc"));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_true(json_array_size(json_object_get(
				json_object_get(o, names[i]), "thresholds")) >
			    1);
	roc = json_object_get(o, "roc");
	assert_int_equal(json_array_size(json_object_get(roc, "tpr")),
			 json_array_size(json_object_get(roc, "fpr")));
	assert_int_equal(json_array_size(json_object_get(
			     json_object_get(o, "confusion_mat"), "tn")),
			 100);
	json_decref(o);
}

static void multi_counts_each_class(void **state)
{
	json_t *o;

	(void)state;
	local_upload("m",
		     HEAD "a,0,0,0.6,\"{'0': 0.6, '1': 0.3, '2': 0.1}\",train\n"
			  "b,1,1,0.5,\"{'0': 0.2, '1': 0.5, '2': 0.3}\",train\n"
			  "c,2,1,0.5,\"{'0': 0.1, '1': 0.5, '2': 0.4}\",train\n"
			  "d,1,1.0,0.9,\"{\"\"1\"\": 0.9}\",train\n");
	assert_int_equal(evaluate("m", "{" COMMON "'multi', "
				       "'unfold_multi_result': true}"),
			 0);
	o = measures("train");
	assert_float_equal(value(o, "accuracy"), .75, 1e-12);
	assert_float_equal(value(json_object_get(o, "precision"), "1"), 2. / 3,
			   1e-12);
	assert_true(json_is_null(
	    json_object_get(json_object_get(o, "precision"), "2")));
	assert_float_equal(value(json_object_get(o, "recall"), "2"), 0, 1e-12);
	assert_float_equal(
	    value(json_object_get(json_object_get(o, "one_vs_rest"), "2"),
		  "auc"),
	    1, 1e-12);
	json_decref(o);
}

static void regression_measures_the_distance(void **state)
{
	json_t *o;

	(void)state;
	local_upload("r", HEAD "a,3,2.5,2.5,,train\nb,-0.5,0,0,,train\n"
			       "c,2,2,2,,train\nd,7,8,8,,train\n");
	assert_int_equal(evaluate("r", "{" COMMON "'regression'}"), 0);
	o = measures("train");
	assert_float_equal(value(o, "rmse"), sqrt(.375), 1e-12);
	assert_float_equal(value(o, "mae"), .5, 1e-12);
	assert_int_equal(json_object_size(o), 2);
	json_decref(o);
	assert_int_equal(evaluate("r", "{" COMMON "'regression', 'metrics': "
				       "['r2', 'l2', 'median_ae']}"),
			 0);
	o = measures("train");
	assert_float_equal(value(o, "mse"), .375, 1e-12);
	assert_float_equal(value(o, "median_ae"), .5, 1e-12);
	json_decref(o);
}

static void a_row_without_a_score_is_refused(void **state)
{
	(void)state;
	local_upload("p", HEAD "a,1,1,nan,,train\n");
	assert_int_equal(evaluate("p", "{" COMMON "'binary'}"), -EINVAL);
	assert_string_equal(local_err.text, "predictions of maker_0: a row "
					    "without a score");
}

static void a_table_of_something_else_is_refused(void **state)
{
	(void)state;
	local_upload("x", "id,x0\na,1\n");
	assert_int_equal(evaluate("x", "{" COMMON "'binary'}"), -EINVAL);
}

static void without_predictions_there_is_nothing_to_do(void **state)
{
	(void)state;
	assert_int_equal(local_run("Evaluation", "host", NULL, "{}", false), 0);
	/* wired, but the role of the maker has no such output */
	assert_int_equal(local_run("Evaluation", "host", "absent", "{}", false),
			 0);
}

static void note(void *arg, const char *pointer, const char *text)
{
	struct strbuf *sb = arg;

	(void)text;
	sb_addf(sb, "%s ", pointer);
}

static void metrics_that_do_not_fit_are_refused_at_submission(void **state)
{
	static const char text[] =
	    "{\"eval_type\": \"binary\", \"pos_label\": [], \"metrics\": "
	    "[\"auc\", \"mae\", \"aucc\", \"psi\", 3, \"KS\"], "
	    "\"run_clustering_arbiter_metric\": true}";
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
	json_t *p = json_parse(text, strlen(text), NULL);

	(void)state;
	component_find("Evaluation")->check(p, NULL, "guest", note, &sb);
	assert_string_equal(sb.buf, "pos_label run_clustering_arbiter_metric "
				    "metrics/1 metrics/2 metrics/3 metrics/4 ");
	json_decref(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(binary_gives_auc_and_both_ks_for_each_type),
		cmocka_unit_test(the_rows_are_handed_on),
		cmocka_unit_test(another_label_may_be_the_positive_one),
		cmocka_unit_test(one_class_gives_null_and_an_event),
		cmocka_unit_test(curves_come_when_they_are_named),
		cmocka_unit_test(multi_counts_each_class),
		cmocka_unit_test(regression_measures_the_distance),
		cmocka_unit_test(a_row_without_a_score_is_refused),
		cmocka_unit_test(a_table_of_something_else_is_refused),
		cmocka_unit_test(without_predictions_there_is_nothing_to_do),
		cmocka_unit_test(
		    metrics_that_do_not_fit_are_refused_at_submission),
	};

	return cmocka_run_group_tests(tests, local_setup, local_teardown);
}
