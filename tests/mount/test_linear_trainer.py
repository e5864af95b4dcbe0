# SPDX-License-Identifier: Apache-2.0
"""What every coordinated linear trainer can do, against the same done in
plaintext: weights, sparse rows, classes, batches, validation, early stopping,
folds, stepwise search."""
import csv
import io
import json

import linear_reference as ref
import numpy as np
import pytest
from conftest import Refused
from linear_jobs import GUEST, HOSTS, Lab, far, like, make, plus_minus

EARLY = {"callbacks": ["PerformanceEvaluate", "EarlyStopping"], "validation_freqs": 1,
         "early_stopping_rounds": 3, "use_first_metric_only": True}


def steps_data(kind):
    """Two columns that count, two that count a little."""
    r = np.random.RandomState(71)
    d = make(71, rows=80, guest=3, hosts=(3,), kind=kind)
    order = [int(i) for i in d.ids]
    z = 1.2 * d.x[:, 1] - d.x[:, 4] + .3 * d.x[:, 0] + (r.randn(80) * .6)[order]
    d.y = np.round(z, 4) if kind == "regression" else (z > 0).astype(int)
    return d


@pytest.fixture(scope="module")
def lab(sandboxes):
    lab = Lab(sandboxes("9999", "10000", "10001", "10002"))
    lab.upload("binary", make(8))
    lab.upload("binary_two", make(9, hosts=(2, 3)))
    lab.upload("regression", make(1, kind="regression"))
    lab.upload("three", make(10, kind="three"))
    weighted = make(12)
    weighted.extra = {"s": np.round(.2 + 3 * np.random.RandomState(1).rand(60), 4)}
    lab.upload("weighted", weighted)
    return lab


# ---- logistic regression ---------------------------------------------------


PENALTIES = ["L1", "L2", "None"]
OPTIMIZERS = ["sgd", "rmsprop", "adagrad", "adam", "nesterov_momentum_sgd"]


@pytest.mark.parametrize("optimizer, penalty", [
    pytest.param(o, p, marks=[pytest.mark.numbers] if (i + k) % 3 else [])
    for i, o in enumerate(OPTIMIZERS) for k, p in enumerate(PENALTIES)])
def test_optimizers_and_penalties_follow_the_recurrence(lab, optimizer, penalty):
    r = lab.run("HeteroLR", "binary", optimizer=optimizer, penalty=penalty, max_iter=4)
    r.agrees(like(ref.Logistic, r.data, optimizer=optimizer, penalty=penalty, iterations=4))


@pytest.mark.parametrize("name", ["binary", "binary_two"])
def test_sqn_follows_the_recurrence(lab, name):
    r = lab.run("HeteroLR", name, optimizer="sqn", max_iter=13,
                sqn_param={"update_interval_L": 2, "memory_M": 3, "sample_size": 5000})
    fit = like(ref.Logistic, r.data, optimizer="sqn", iterations=13, interval=2, memory=3)
    assert far(fit.w, like(ref.Logistic, r.data, iterations=13).w) > 1e-3
    r.agrees(fit)


def test_sqn_counts_batches_over_the_epochs(lab):
    r = lab.run("HeteroLR", "binary", optimizer="sqn", max_iter=4, batch_size=20, shuffle=False,
                masked_rate=0, sqn_param={"update_interval_L": 3, "memory_M": 5})
    r.agrees(like(ref.Logistic, r.data, optimizer="sqn", iterations=4, batch_size=20))


def test_sqn_on_a_sample_of_rows_learns(lab):
    r = lab.run("HeteroLR", "binary", optimizer="sqn", max_iter=13,
                sqn_param={"update_interval_L": 2, "memory_M": 3, "sample_size": 30,
                           "random_seed": 1})
    loss = r.summary()["loss_history"]
    # Before the first estimate it is sgd; then some other way down.
    whole = like(ref.Logistic, r.data, optimizer="sqn", iterations=13, interval=2, memory=3)
    assert far(loss[:4], whole.loss[:4]) < 1e-6
    assert loss[-1] < like(ref.Logistic, r.data, iterations=13).loss[-1]


@pytest.mark.parametrize("masked_rate", [0, 1])
@pytest.mark.parametrize("name", ["binary", "binary_two"])
def test_batches_follow_the_order_of_the_keys_masked_or_not(lab, name, masked_rate):
    r = lab.run("HeteroLR", name, batch_size=25, shuffle=False, masked_rate=masked_rate,
                max_iter=2)
    r.agrees(like(ref.Logistic, r.data, batch_size=25, iterations=2))


@pytest.mark.parametrize("module, family, name", [
    ("HeteroLR", ref.Logistic, "binary"), ("HeteroLinR", ref.Linear, "regression")])
def test_a_random_batch_of_all_rows_is_a_full_batch(lab, module, family, name):
    r = lab.run(module, name, batch_strategy="random", batch_size=60,
                label_type="float" if name == "regression" else "int")
    r.agrees(like(family, r.data))


def test_a_random_batch_has_some_of_the_rows(lab):
    r = lab.run("HeteroLR", "binary", batch_strategy="random", batch_size=30, max_iter=20,
                masked_rate=0)
    s = r.summary()
    # One step an epoch, of other rows than all.
    assert s["iterations"] == 20
    assert far(r.weights(), like(ref.Logistic, r.data, iterations=20).w) > 1e-4
    assert ref.auc(r.data.y, r.scores()) > .85


@pytest.mark.parametrize("stop, tol", [("diff", .005), ("abs", .55), ("weight_diff", .04)])
def test_it_stops_where_the_recurrence_stops(lab, stop, tol):
    r = lab.run("HeteroLR", "binary", early_stop=stop, tol=tol, max_iter=40)
    fit = like(ref.Logistic, r.data, early_stop=stop, tol=tol, iterations=40)
    assert 1 < fit.iterations < 40 and fit.converged
    r.agrees(fit)


# ---- weights, sparse rows, classes -----------------------------------------


def balanced(y):
    count = {k: np.sum(y == k) for k in set(y.tolist())}
    return np.array([len(y) / (len(count) * count[k]) for k in y.tolist()])


@pytest.mark.parametrize("module, family", [("HeteroLR", ref.Logistic),
                                            ("HeteroLinR", ref.Linear)])
@pytest.mark.parametrize("how", ["column", "classes", "balanced"])
def test_weights_of_rows(lab, module, family, how):
    params = {"column": {"sample_weight_name": "s"}, "classes": {"class_weight": {"0": 1, "1": 3}},
              "balanced": {"class_weight": "balanced"}}[how]
    data = lab.data["weighted"]
    weights = {"column": data.extra["s"], "classes": np.where(data.y == 1, 3., 1.),
               "balanced": balanced(data.y)}[how]
    if how != "column":
        bare = data.part(range(len(data.ids)))
        bare.extra = {}
        lab.upload("bare", bare)
    r = lab.run(module, "weighted" if how == "column" else "bare",
                before=("SampleWeight", params), max_iter=4)
    fit = like(family, data, weights=weights, iterations=4)
    assert far(fit.w, like(family, data, iterations=4).w) > 1e-3
    r.agrees(fit)


def test_weights_of_rows_in_batches(lab):
    data = lab.data["weighted"]
    r = lab.run("HeteroLR", "weighted", before=("SampleWeight", {"sample_weight_name": "s"}),
                batch_size=25, shuffle=False, masked_rate=0, max_iter=2)
    r.agrees(like(ref.Logistic, data, weights=data.extra["s"], batch_size=25, iterations=2))


def test_poisson_does_not_use_weights_and_says_so(lab):
    d = make(16, kind="count")
    lab.upload("counts_weighted", d)
    r = lab.run("HeteroPoisson", "counts_weighted",
                before=("SampleWeight", {"sample_weight_name": "days"}))
    r.agrees(like(ref.Poisson, d))
    assert "weight" in r.file("guest/linear_0/events")


@pytest.mark.parametrize("module, family, name", [
    ("HeteroLR", ref.Logistic, "thin"), ("HeteroLinR", ref.Linear, "thin_regression"),
    ("HeteroPoisson", ref.Poisson, "thin")])
def test_sparse_rows(lab, module, family, name):
    if name not in lab.data:
        d = make(13, kind="regression" if "_" in name else "binary")
        d.x = d.x * (np.random.RandomState(2).rand(*d.x.shape) < .3)
        lab.upload(name, d)
    r = lab.run(module, name, transform={"output_format": "sparse"},
                label_type="float" if "_" in name else "int")
    y = r.data.y.astype(float)
    r.agrees(like(family, r.data, y=plus_minus(y) if module == "HeteroLR" else y))


def test_rows_of_svmlight(lab):
    d = make(13)
    d.x = d.x * (np.random.RandomState(2).rand(*d.x.shape) < .3)
    d.names = [["x%d" % i for i in range(len(n))] for n in d.names]
    d.label = "label"
    lab.upload_svmlight("svmlight", d)
    r = lab.run("HeteroLR", "svmlight",
                transform={"input_format": "sparse", "output_format": "sparse"})
    r.agrees(like(ref.Logistic, d))


def class_parts(r):
    """(classes, their summaries at each party): hosts need not know names."""
    parts = [s["one_vs_rest"] for s in r.parts()]
    classes = list(parts[0])
    return classes, [[p[k] for k in sorted(p, key=float)] for p in parts]


def class_weights(r, k):
    _, parts = class_parts(r)
    w = []
    for names, p in zip(r.data.names, parts):
        w += [p[k]["coef"][n] for n in names]
    return np.array(w + [parts[0][k]["intercept"]])


@pytest.mark.parametrize("how", [{}, {"batch_size": 25, "shuffle": False}])
def test_one_class_against_the_rest(lab, how):
    r = lab.run("HeteroLR", "three", max_iter=4, optimizer="rmsprop", **how)
    classes, parts = class_parts(r)
    assert classes == ["1", "3", "5"]
    want = ref.one_vs_rest(r.data.x, r.data.y, optimizer="rmsprop", iterations=4,
                           batch_size=how.get("batch_size", -1))
    scores = []
    for k, c in enumerate((1, 3, 5)):
        assert far(class_weights(r, k), want[c].w) < 1e-6
        assert far(parts[0][k]["loss_history"], want[c].loss) < 1e-6
        scores.append(ref.score(ref.Logistic, r.data.x, class_weights(r, k)))
    scores = np.array(scores)
    rows = r.rows()
    for at, i in enumerate(r.data.ids):
        detail = json.loads(rows[i]["predict_detail"])
        assert far([detail[c] for c in classes], scores[:, at]) < 1e-9
        assert int(rows[i]["predict_result"]) == (1, 3, 5)[int(scores[:, at].argmax())]
        assert abs(float(rows[i]["predict_score"]) - scores[:, at].max()) < 1e-9


# ---- train and validate ----------------------------------------------------


def halves(lab, seed, kind, overlap=0, **how):
    """Uploads rows to train and rows to validate on, which share some."""
    d = make(seed, rows=60, kind=kind, **how)
    names = ["half%d_%s_%s" % (seed, kind, x) for x in ("train", "validate")]
    parts = d.part(range(35)), d.part(range(35 - overlap, 60))
    for n, p in zip(names, parts):
        lab.upload(n, p)
    return names + list(parts)


def test_both_tables_are_predicted(lab):
    train, validate, d, v = halves(lab, 14, "binary", overlap=6)
    r = lab.run("HeteroLR", train, validate=validate,
                evaluation={"eval_type": "binary"})
    fit = like(ref.Logistic, d)
    r.agrees(fit)
    rows = r.rows()
    assert len(rows) == len(d.ids) + len(v.ids)
    for data, kind in ((d, "train"), (v, "validate")):
        p = ref.score(ref.Logistic, data.x, fit.w)
        for at, i in enumerate(data.ids):
            row = rows[i + "#validate" if kind == "validate" and i in d.ids else i]
            assert row["type"] == kind and int(row["label"]) == data.y[at]
            assert abs(float(row["predict_score"]) - p[at]) < 1e-6
        e = r.json("guest/evaluation_0/summary.json")["linear_0"][kind]
        assert abs(e["auc"] - ref.auc(data.y, p)) < 1e-9


@pytest.mark.parametrize("freqs", [1, 3, [2, 5]])
def test_metrics_of_both_tables_while_training(lab, freqs):
    train, validate, d, v = halves(lab, 14, "binary")
    r = lab.run("HeteroLR", train, validate=validate, max_iter=6, optimizer="adam",
                callback_param={"callbacks": ["PerformanceEvaluate"], "validation_freqs": freqs,
                                "metrics": ["auc", "ks"]})
    fit = like(ref.Logistic, d, optimizer="adam", iterations=6)
    r.agrees(fit)
    epochs = [t for t in range(6)
              if (t + 1 in freqs if isinstance(freqs, list) else (t + 1) % freqs == 0)]
    for data, kind in ((d, "train"), (v, "validate")):
        for name, of in (("auc", ref.auc), ("ks", ref.ks)):
            curve = r.metric(kind, name)
            assert [x for x, _ in curve] == epochs
            assert far([y for _, y in curve],
                       [of(data.y, ref.score(ref.Logistic, data.x, fit.trail[t]))
                        for t in epochs]) < 1e-9
    loss = r.metric("train", "loss")
    assert [x for x, _ in loss] == list(range(6)) and far([y for _, y in loss], fit.loss) < 1e-6


@pytest.mark.parametrize("module", ["HeteroLinR", "HeteroPoisson"])
def test_metrics_of_regressions_while_training(lab, module):
    kind = "regression" if module == "HeteroLinR" else "count"
    train, validate, d, v = halves(lab, 15, kind)
    family, extra, offsets = ref.Linear, {}, (0., 0.)
    if kind == "count":
        family, extra = ref.Poisson, {"exposure_colname": "days"}
        offsets = tuple(ref.offset_of(x.extra["days"]) for x in (d, v))
    r = lab.run(module, train, validate=validate, max_iter=3,
                label_type="int" if kind == "count" else "float",
                callback_param={"callbacks": ["PerformanceEvaluate"], "validation_freqs": 1,
                                "metrics": ["rmse", "mae"]}, **extra)
    fit = like(family, d, offset=offsets[0])
    r.agrees(fit)
    for data, offset, name in ((d, offsets[0], "train"), (v, offsets[1], "validate")):
        want = [ref.score(family, data.x, w, offset) for w in fit.trail]
        assert far([y for _, y in r.metric(name, "rmse")],
                   [ref.rmse(data.y, p) for p in want]) < 1e-6
        assert far([y for _, y in r.metric(name, "mae")],
                   [ref.mae(data.y, p) for p in want]) < 1e-6


@pytest.mark.parametrize("old_style", [False, True])
def test_early_stopping_gives_the_best_epoch(lab, old_style):
    train, validate, d, v = halves(lab, 28, "binary", noise=2.5)
    fit = like(ref.Logistic, d, optimizer="adam", rate=.1, iterations=20)
    curve = [ref.auc(v.y, ref.score(ref.Logistic, v.x, w)) for w in fit.trail]
    best, last = ref.best_epoch([curve], 3, [True])
    assert 3 <= best < last < 19
    how = {"callback_param": dict(EARLY, metrics=["auc"])}
    if old_style:
        how = {"validation_freqs": 1, "early_stopping_rounds": 3, "metrics": ["auc"],
               "use_first_metric_only": True}
    r = lab.run("HeteroLR", train, validate=validate, max_iter=20, optimizer="adam",
                learning_rate=.1, **how)
    s = r.summary()
    assert s["best_iteration"] == best
    assert far(r.weights(), fit.trail[best]) < 1e-6
    assert [x for x, _ in r.metric("validate", "auc")] == list(range(last + 1))
    # Predictions are those of the model that was kept.
    rows = r.rows()
    p = ref.score(ref.Logistic, d.x, fit.trail[best])
    assert far([float(rows[i]["predict_score"]) for i in d.ids], p) < 1e-6


def test_early_stopping_with_two_hosts(lab):
    train, validate, d, v = halves(lab, 28, "binary", noise=2.5, hosts=(2, 2))
    r = lab.run("HeteroLR", train, validate=validate, max_iter=20, optimizer="adam",
                learning_rate=.1, callback_param=dict(EARLY, metrics=["auc"]))
    fit = like(ref.Logistic, d, optimizer="adam", rate=.1, iterations=20)
    best, last = ref.best_epoch([[ref.auc(v.y, ref.score(ref.Logistic, v.x, w))
                                  for w in fit.trail]], 3, [True])
    assert best and last < 19
    assert [s["best_iteration"] for s in r.parts()] == [best] * 3
    assert far(r.weights(), fit.trail[best]) < 1e-6


def test_each_class_stops_by_itself(lab):
    train, validate, d, v = halves(lab, 40, "three", noise=2.5)
    r = lab.run("HeteroLR", train, validate=validate, max_iter=12, optimizer="adam",
                learning_rate=.1, callback_param=dict(EARLY, metrics=["auc"]))
    want = ref.one_vs_rest(d.x, d.y, optimizer="adam", rate=.1, iterations=12)
    ends = []
    for k, (c, fit) in enumerate(want.items()):
        curve = [ref.auc(v.y == c, ref.score(ref.Logistic, v.x, w)) for w in fit.trail]
        best, last = ref.best_epoch([curve], 3, [True])
        if best is None:
            best = int(np.argmax(curve))
        ends.append(last)
        assert far(class_weights(r, k), fit.trail[best]) < 1e-6
        assert far([y for _, y in r.metric("validate", "auc_class_%d" % k)],
                   curve[:last + 1]) < 1e-9
    assert min(ends) < 11


def test_early_stopping_of_a_regression(lab):
    train, validate, d, v = halves(lab, 32, "regression", noise=2.5)
    fit = like(ref.Linear, d, iterations=20)
    curve = [ref.rmse(v.y, ref.score(ref.Linear, v.x, w)) for w in fit.trail]
    best, _ = ref.best_epoch([curve], 3, [False])
    assert best == 3
    r = lab.run("HeteroLinR", train, validate=validate, max_iter=20, label_type="float",
                callback_param=dict(EARLY, metrics=["rmse"]))
    assert r.summary()["best_iteration"] == best
    assert far(r.weights(), fit.trail[best]) < 1e-6


def test_the_first_metric_that_stands_still_stops(lab):
    train, validate, d, v = halves(lab, 36, "binary", noise=2.5)
    fit = like(ref.Logistic, d, optimizer="adam", rate=.1, iterations=20)
    scores = [ref.score(ref.Logistic, v.x, w) for w in fit.trail]
    curves = [[of(v.y, p) for p in scores] for of in (ref.auc, ref.ks)]
    best, last = ref.best_epoch(curves, 3, [True, True])
    assert best != ref.best_epoch(curves[:1], 3, [True])[0]
    r = lab.run("HeteroLR", train, validate=validate, max_iter=20, optimizer="adam",
                learning_rate=.1, callback_param=dict(EARLY, metrics=["auc", "ks"],
                                                      use_first_metric_only=False))
    assert len(r.metric("validate", "auc")) == last + 1
    assert r.summary()["best_iteration"] == best
    assert far(r.weights(), fit.trail[best]) < 1e-6


@pytest.mark.parametrize("params, words", [
    ({"callback_param": dict(EARLY, validation_freqs=None)}, "validation_freqs"),
    ({"callback_param": dict(EARLY, metrics=["beauty"])}, "metrics"),
    ({"callback_param": {"callbacks": ["Applause"]}}, "callbacks"),
    ({"cv_param": {"need_cv": True}, "stepwise_param": {"need_stepwise": True}}, "need_")])
def test_what_does_not_go_together_is_refused(lab, params, words):
    train, validate, _, _ = halves(lab, 14, "binary")
    if "callback_param" in params:
        params = dict(params, validate=validate)
    with pytest.raises(Refused) as e:
        lab.guest.submit(*lab.job("HeteroLR", train, **params))
    assert words in e.value.text.splitlines()[1]


@pytest.mark.parametrize("params, words", [
    ({"cv_param": {"need_cv": True}}, "need_cv"),
    ({"stepwise_param": {"need_stepwise": True}}, "need_stepwise")])
def test_only_train_data_goes_with_folds_and_stepwise(lab, params, words):
    train, validate, _, _ = halves(lab, 14, "binary")
    with pytest.raises(Refused) as e:
        lab.guest.submit(*lab.job("HeteroLR", train, validate=validate, **params))
    assert words in e.value.text


def test_early_stopping_needs_rows_to_validate_on(lab):
    with pytest.raises(Refused) as e:
        lab.guest.submit(*lab.job("HeteroLR", "binary",
                                  callback_param=dict(EARLY, metrics=["auc"])))
    assert "validate" in e.value.text


# ---- cross validation ------------------------------------------------------


@pytest.mark.parametrize("module, family, name, metric, of", [
    ("HeteroLR", ref.Logistic, "binary", "auc", ref.auc),
    ("HeteroLR", ref.Logistic, "binary_two", "auc", ref.auc),
    ("HeteroLinR", ref.Linear, "regression", "rmse", ref.rmse),
    ("HeteroPoisson", ref.Poisson, "counts", "rmse", ref.rmse)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_folds_are_those_done_in_plaintext(lab, module, family, name, metric, of, shuffle):
    extra = {}
    if name == "counts":
        lab.upload(name, make(16, kind="count", rows=61))
        extra = {"exposure_colname": "days"}
    d = lab.data[name]
    r = lab.run(module, name, max_iter=4, label_type="float" if name == "regression" else "int",
                cv_param={"need_cv": True, "n_splits": 3, "shuffle": shuffle, "random_seed": 5},
                **extra)
    offset = ref.offset_of(d.extra["days"]) if d.extra else np.zeros(len(d.ids))
    rows, summary = r.rows(), r.summary()
    means = {"train": [], "validate": []}
    for k, (train, test) in enumerate(ref.folds(len(d.ids), 3, shuffle, 5)):
        fit = like(family, d.part(train), offset=offset[train], iterations=4)
        for kind, at in (("train", train), ("validate", test)):
            p = ref.score(family, d.x[at], fit.w, offset[at])
            have = [rows.pop("%s#fold%d#%s" % (d.ids[i], k, kind)) for i in at]
            assert far([float(h["predict_score"]) for h in have], p) < 1e-6
            assert {h["type"] for h in have} == {kind}
            want = of(d.y[at], p)
            means[kind].append(want)
            assert abs(summary["fold_%d" % k][kind][metric] - want) < 1e-6
            (x, y), = r.metric("fold_%d_%s" % (k, kind), metric)
            assert x == k and abs(y - want) < 1e-6
    assert not rows
    for kind, values in means.items():
        assert abs(summary["mean"][kind][metric] - np.mean(values)) < 1e-6


def test_without_history_each_row_has_its_validation_score(lab):
    r = lab.run("HeteroLR", "binary", cv_param={"need_cv": True, "n_splits": 4, "random_seed": 2,
                                                "output_fold_history": False})
    d = r.data
    want = np.zeros(len(d.ids))
    for train, test in ref.folds(len(d.ids), 4, True, 2):
        want[test] = ref.score(ref.Logistic, d.x[test], like(ref.Logistic, d.part(train)).w)
    assert far(r.scores(), want) < 1e-6


def test_folds_of_the_rows_themselves(lab):
    r = lab.run("HeteroLR", "binary", max_iter=1, cv_param={
        "need_cv": True, "n_splits": 2, "shuffle": False, "history_value_type": "instance"})
    d = r.data
    rows = list(csv.DictReader(io.StringIO(r.file("guest/linear_0/out/data/data.csv"))))
    rows = {x["id"]: x for x in rows}
    for k, (train, test) in enumerate(ref.folds(len(d.ids), 2, False, 0)):
        for kind, at in (("train", train), ("validate", test)):
            for i in at:
                row = rows.pop("%s#fold%d#%s" % (d.ids[i], k, kind))
                assert [float(row[n]) for n in d.names[0]] == d.x[i, :3].tolist()
                assert int(row["y"]) == d.y[i]
    assert not rows


def test_folds_of_three_classes(lab):
    r = lab.run("HeteroLR", "three", max_iter=3, cv_param={
        "need_cv": True, "n_splits": 2, "shuffle": True, "random_seed": 4})
    d, rows = r.data, r.rows()
    for k, (train, test) in enumerate(ref.folds(len(d.ids), 2, True, 4)):
        fits = ref.one_vs_rest(d.x[train], d.y[train], iterations=3)
        p = np.array([ref.score(ref.Logistic, d.x[test], f.w) for f in fits.values()])
        have = [rows["%s#fold%d#validate" % (d.ids[i], k)] for i in test]
        assert far([float(h["predict_score"]) for h in have], p.max(axis=0)) < 1e-6
        right = np.mean([h["label"] == h["predict_result"] for h in have])
        assert abs(r.summary()["fold_%d" % k]["validate"]["accuracy"] - right) < 1e-9


def test_folds_leave_no_model(lab):
    r = lab.run("HeteroLR", "binary", cv_param={"need_cv": True, "n_splits": 2, "shuffle": True})
    for party, role in ((GUEST, "guest"), (HOSTS[0], "host")):
        with pytest.raises(FileNotFoundError):
            r.file(role + "/linear_0/model/model.json", party)


# ---- stepwise --------------------------------------------------------------


def selected(r):
    """Chosen columns of the guest and of the host."""
    return [r.json(role + "/linear_0/model/model.json", party)["param"]["selected"]
            for role, party in (("guest", GUEST), ("host", HOSTS[0]))]


@pytest.mark.parametrize("module, direction, name", [
    ("HeteroLinR", "forward", "AIC"), ("HeteroLR", "both", "AIC"),
    ("HeteroPoisson", "backward", "AIC"),
    pytest.param("HeteroLinR", "backward", "AIC", marks=pytest.mark.numbers),
    pytest.param("HeteroLinR", "both", "BIC", marks=pytest.mark.numbers),
    pytest.param("HeteroLR", "backward", "BIC", marks=pytest.mark.numbers),
    pytest.param("HeteroLR", "forward", "BIC", marks=pytest.mark.numbers)])
def test_stepwise_picks_the_columns_of_a_plaintext_search(lab, module, direction, name):
    family = {"HeteroLinR": ref.Linear, "HeteroLR": ref.Logistic,
              "HeteroPoisson": ref.Poisson}[module]
    kind = "regression" if module == "HeteroLinR" else "binary"
    d = steps_data(kind)
    lab.upload("steps_" + kind, d)
    how = {"rate": .5, "alpha": 0., "iterations": 5, "decay": 0.}
    y = plus_minus(d.y) if module == "HeteroLR" else d.y.astype(float)
    want = ref.stepwise(family, d.x, y, direction, name, optimizer="sgd", **how)
    assert 0 < len(want) < 6
    r = lab.run(module, "steps_" + kind, seconds=120, max_iter=5, learning_rate=.5, alpha=0,
                decay=0, label_type="float" if kind == "regression" else "int",
                stepwise_param={"need_stepwise": True, "score_name": name,
                                "direction": direction})
    chosen = selected(r)
    names = sum(d.names, [])
    assert sorted(chosen[0] + chosen[1]) == sorted(names[j] for j in want)
    # The model is that of these columns, and so are the predictions.
    fit = ref.fit(family, d.x[:, want], y, optimizer="sgd", **how)
    coef = {n: w for s in r.parts() for n, w in s["coef"].items() if w}
    assert far([coef[names[j]] for j in want], fit.w[:-1]) < 1e-6 and len(coef) == len(want)
    assert far(r.scores(), ref.score(family, d.x[:, want], fit.w)) < 1e-6
    # Each step tells by what it was chosen; the losses are the model's.
    steps = r.summary()["steps"]
    values = [s["criterion"] for s in steps]
    end = ref.criterion(family, name, len(y), len(want), fit.loss[-1])
    assert values == sorted(values, reverse=True) and abs(values[-1] - end) < 1e-3
    assert r.metric("train", "criterion") == [(i, v) for i, v in enumerate(values)]
    assert far([v for _, v in r.metric("train", "loss")], fit.loss) < 1e-6


@pytest.mark.parametrize("bounds", [{"direction": "forward", "nvmax": 2},
                                    {"direction": "backward", "nvmin": 5}])
def test_stepwise_keeps_to_its_numbers_of_columns(lab, bounds):
    d = steps_data("regression")
    lab.upload("steps_regression", d)
    r = lab.run("HeteroLinR", "steps_regression", label_type="float", max_iter=4, seconds=120,
                learning_rate=.5, alpha=0, decay=0,
                stepwise_param=dict({"need_stepwise": True}, **bounds))
    want = ref.stepwise(ref.Linear, d.x, d.y, name="AIC", optimizer="sgd", rate=.5, alpha=0.,
                        iterations=4, decay=0., **bounds)
    assert len(want) == list(bounds.values())[1]
    names = sum(d.names, [])
    assert sorted(sum(selected(r), [])) == sorted(names[j] for j in want)


def test_stepwise_keeps_to_its_number_of_steps(lab):
    d = steps_data("regression")
    lab.upload("steps_regression", d)
    r = lab.run("HeteroLinR", "steps_regression", label_type="float", max_iter=4, seconds=120,
                learning_rate=.5, alpha=0, decay=0,
                stepwise_param={"need_stepwise": True, "direction": "forward", "max_step": 1})
    want = ref.stepwise(ref.Linear, d.x, d.y, "forward", "AIC", max_step=1, optimizer="sgd",
                        rate=.5, alpha=0., iterations=4, decay=0.)
    names = sum(d.names, [])
    assert sum(selected(r), []) == [names[j] for j in want]
    assert len(want) == 1


def test_a_class_that_a_fold_lacks_does_not_change_what_is_measured(lab):
    d = make(17, rows=30, kind="three")
    d.y[:] = [1, 3] * 15
    d.y[0] = 5 # in the validation rows of fold 0 only
    lab.upload("rare", d)
    r = lab.run("HeteroLR", "rare", max_iter=3,
                cv_param={"need_cv": True, "n_splits": 3, "shuffle": False})
    s = r.summary()
    folds = [s["fold_%d" % k] for k in range(3)]
    for kind in "train", "validate":
        assert all(set(f[kind]) == {"accuracy"} for f in folds)
        assert abs(s["mean"][kind]["accuracy"] -
                   np.mean([f[kind]["accuracy"] for f in folds])) < 1e-12


def test_a_metric_that_a_fold_does_not_define_is_left_out_of_the_mean(lab):
    d = make(18, rows=30)
    d.y[:10] = 0
    d.y[10:] = [0, 1] * 10
    lab.upload("one_sided", d)
    s = lab.run("HeteroLR", "one_sided", max_iter=2,
                cv_param={"need_cv": True, "n_splits": 3, "shuffle": False}).summary()
    assert s["fold_0"]["validate"]["auc"] is None
    have = [s["fold_%d" % k]["validate"]["auc"] for k in (1, 2)]
    assert abs(s["mean"]["validate"]["auc"] - np.mean(have)) < 1e-12


def test_more_folds_than_rows_are_named_to_all(lab):
    lab.upload("few", make(19, rows=20))
    job = lab.guest.submit(*lab.job("HeteroLR", "few",
                                    cv_param={"need_cv": True, "n_splits": 30}))
    assert lab.guest.wait(job) == "failed"
    assert "n_splits" in lab.guest.error(job)
