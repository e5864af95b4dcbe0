# SPDX-License-Identifier: Apache-2.0
"""Partners, models and numbers that mean harm to trainers and the model
store."""
import concurrent.futures
import json
import os
import shutil

import numpy as np
import pytest
from conftest import Refused
from linear_jobs import HOSTS, Lab, far, make
from test_linear_life import DIE, kill_in_epoch, went_on_from


def allow(p, partner, text):
    with open(p.path("parties", str(partner), "allow"), "w", encoding="ascii") as f:
        f.write(text)


# ---- whose tables a partner reads -------------------------------------------


READING = {"components": {
    "reader_0": {"module": "Reader", "output": {"data": ["data"]}},
    "data_transform_0": {"module": "DataTransform", "input": {"data": {"data": ["reader_0.data"]}},
                         "output": {"data": ["data"], "model": ["model"]}}}}


def reading(common, *sections):
    """A conf whose host's table is put together from several places."""
    role = {"guest": {"0": {"reader_0": {"table": {"namespace": "experiment",
                                                   "name": "breast_guest"}}}},
            "host": {k: {"reader_0": {"table": t}} for k, t in sections}}
    return {"dsl_version": 2, "initiator": {"role": "guest", "party_id": 9999},
            "role": {"guest": [9999], "host": [10000]},
            "component_parameters": {"common": {"reader_0": {"table": common}} if common else {},
                                     "role": role}}


SECRET = {"namespace": "private", "name": "salaries"}
OPEN = {"namespace": "experiment", "name": "breast_host"}


@pytest.mark.parametrize("common, sections", [
    (None, [("0", SECRET)]),
    (SECRET, []),
    ({"namespace": "private"}, [("0", {"name": "salaries"})]),
    ({"name": "salaries"}, [("all", {"namespace": "private"})]),
    (None, [("all", {"namespace": "private"}), ("0", {"name": "salaries"})]),
    (SECRET, [("0", {})]),
    (OPEN, [("0", SECRET)]),
    (OPEN, [("all", SECRET), ("0", {})]),
    (OPEN, [("0", SECRET), ("all", {"namespace": "private"})])])
def test_a_table_that_is_not_allowed_is_not_read_in_pieces(three, common, sections):
    host = three[10000]
    host.upload("private", "salaries", "id,x\n1,2\n2,3\n")
    old = host.read("parties/9999/allow")
    allow(host, 9999, "role host\nmodule *\ntable experiment/*\n")
    try:
        with pytest.raises(Refused) as e:
            three[9999].submit(READING, reading(common, *sections))
        assert "no such table, or does not allow it" in e.value.text
        # The same pieces of a table that is allowed are.
        job = three[9999].run(READING, reading({"namespace": "experiment"},
                                               ("0", {"name": "breast_host"})))
        assert os.path.exists(host.path("jobs", job, "host/data_transform_0/out/data"))
    finally:
        allow(host, 9999, old)


# ---- trainings with odd numbers ----------------------------------------------


KEEP = {"callbacks": ["ModelCheckpoint"], "save_freq": 1}


@pytest.fixture(scope="module")
def linear(sandboxes):
    return Lab(sandboxes("9999", "10000", "10001", "10002"))


def test_many_checkpoints_cost_no_model(linear):
    linear.upload("binary", make(8))
    r = linear.run("HeteroLR", "binary", max_iter=2, callback_param=KEEP,
                   evaluation={"eval_type": "binary"})
    p = linear.guest
    here = os.path.join(p.state, "jobs", r.number, "guest/linear_0/checkpoints")
    for k in range(2, 2100):
        os.link(os.path.join(here, "1.json"), os.path.join(here, "%d.json" % k))
    with open(p.path("jobs", r.number, "ctl"), "w", encoding="ascii") as f:
        f.write("rerun evaluation_0 force\n")
    assert p.wait(r.number, 120) == "success"
    assert not p.error(r.number)
    model = linear.model_of(r)
    kept = p.path("models", model["model_id"], model["model_version"], "guest-9999/linear_0")
    assert sorted(int(k) for k in os.listdir(os.path.join(kept, "checkpoints"))) == \
        list(range(2100 - 2000 // 2, 2100))


def test_steps_and_rounds_without_end(linear):
    """2^32 is not 0: of save_freq that was a division by it."""
    d = make(8)
    linear.upload("first", d.part(range(40)))
    linear.upload("second", d.part(range(40, 60)))
    r = linear.run("HeteroLR", "first", max_iter=3, validate="second", callback_param={
        "callbacks": ["ModelCheckpoint", "EarlyStopping"], "save_freq": 2 ** 32,
        "validation_freqs": 1, "early_stopping_rounds": 2 ** 32})
    assert r.summary()["iterations"] == 3


def test_weights_whose_sum_is_no_number(linear):
    d = make(12)
    d.extra = {"s": np.full(60, 1e308)}
    linear.upload("heavy", d)
    number = linear.guest.submit(*linear.job(
        "HeteroLR", "heavy", before=("SampleWeight", {"sample_weight_name": "s"})))
    assert linear.guest.wait(number) == "failed"
    assert "weights are too large" in linear.guest.error(number)


def test_a_fold_without_a_measure_is_not_zero(linear):
    """All rows of class 0 are in one fold: it has no AUC."""
    d = make(8)
    d.y = np.array([0 if i < 20 else 1 for i in range(60)])
    linear.upload("sorted", d)
    r = linear.run("HeteroLR", "sorted", max_iter=2, cv_param={
        "need_cv": True, "n_splits": 3, "shuffle": False})
    s = r.summary()
    assert all(s["fold_%d" % k]["validate"]["auc"] is None for k in range(3))
    assert s["mean"]["validate"]["auc"] is None
    # The first fold's training rows are of one class too.
    have = [s["fold_%d" % k]["train"]["auc"] for k in (1, 2)]
    assert s["fold_0"]["train"]["auc"] is None
    assert abs(s["mean"]["train"]["auc"] - np.mean(have)) < 1e-9
    text = r.file("guest/linear_0/metrics/fold_0_validate/auc.tsv")
    assert text == "0\t\n"


def test_classes_that_differ_behind_15_digits(linear):
    d = make(10, kind="three")
    big = 9007199254740000
    d.y = np.array([big + v for v in d.y])
    linear.upload("big", d)
    r = linear.run("HeteroLR", "big", max_iter=2)
    assert len(r.summary()["one_vs_rest"]) == 3
    detail = json.loads(next(iter(r.rows().values()))["predict_detail"])
    assert sorted(detail) == [str(big + v) for v in (1, 3, 5)]


# ---- deploying ----------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(linear):
    linear.upload("deployed", make(8))
    return linear.run("HeteroLR", "deployed", max_iter=1)


def deploy_error(linear, trained):
    model = linear.model_of(trained)
    with pytest.raises(OSError):
        linear.deploy(trained)
    return linear.guest.read("errors").splitlines()[-1], model


def test_a_partner_cannot_leave_versions_without_end(linear, trained):
    host = linear.s["10000"]
    made = [os.path.join(host.state, "models", ".new-202001010000%08d9999" % k)
            for k in range(64)]
    for d in made:
        os.mkdir(d)
        with open(os.path.join(d, "info.json"), "w", encoding="ascii") as f:
            f.write("{}")
    text, _ = deploy_error(linear, trained)
    assert "too many versions" in text
    for d in made:
        os.utime(os.path.join(d, "info.json"), (0, 0))
    linear.deploy(trained)
    assert not any(os.path.exists(d) for d in made)


def test_where_files_are_is_told_to_nobody(linear, trained):
    host, model = linear.s["10000"], linear.model_of(trained)
    at = os.path.join(host.state, "models", model["model_id"], model["model_version"],
                      "train/conf.json")
    with open(at, "rb") as f:
        was = f.read()
    try:
        with open(at, "wb") as f:
            f.write(b"{")
        text, _ = deploy_error(linear, trained)
        assert "party 10000" in text and host.state not in text
    finally:
        with open(at, "wb") as f:
            f.write(was)
    linear.deploy(trained)


# ---- going on from a checkpoint -------------------------------------------------


def resumed(linear, name, epoch, **how):
    number = linear.guest.submit(*linear.job(
        "HeteroLR", name, common={"auto_retries": 1, "auto_retry_delay": 0}, **how))
    kill_in_epoch(linear, HOSTS[0], number, epoch)
    assert linear.guest.wait(number, 120) == "success", linear.guest.error(number)
    r = linear.submit_result(number, name)
    assert went_on_from(r) >= epoch - 1
    return r


def test_it_converges_where_an_undisturbed_training_does(linear):
    """In the first epoch after a checkpoint, by the loss before it."""
    linear.upload("long", make(20, rows=150))
    loss = linear.run("HeteroLR", "long", **DIE).summary()["loss_history"]
    step = np.abs(np.diff(loss))
    assert step[6] < step[5]
    tol = float(np.sqrt(step[5] * step[6]))
    first = next(i for i, v in enumerate(step) if v < tol)
    want = linear.run("HeteroLR", "long", **dict(DIE, tol=tol))
    assert want.summary()["iterations"] == first + 2
    have = resumed(linear, "long", first + 1, **dict(DIE, tol=tol))
    assert have.summary()["iterations"] == first + 2 and have.summary()["is_converged"]
    assert far(have.weights(), want.weights()) < 1e-12


# ---- scores that are hidden -------------------------------------------------------


@pytest.mark.parametrize("change, refused", [
    ({"hide_scores": False}, True), ({"score_digits": 3}, True), ({"score_digits": 1}, False)])
def test_a_predict_job_does_not_uncover_scores(linear, change, refused):
    if "hidden" not in linear.data:
        linear.upload("hidden", make(8))
        r = linear.run("HeteroLR", "hidden", max_iter=1,
                       predict_param={"hide_scores": True, "score_digits": 2})
        linear.hidden = linear.deploy(r)
    conf = json.loads(linear.predict_text(linear.hidden, "hidden"))
    conf["component_parameters"]["common"] = {"linear_0": {"predict_param": change}}
    if not refused:
        number = linear.guest.submit_text(json.dumps(conf))
        assert linear.guest.wait(number) == "success"
        return
    with pytest.raises(Refused) as e:
        linear.guest.submit_text(json.dumps(conf))
    assert "the model was trained with hide_scores" in e.value.text
    assert "party 10000 hides the scores of this model" in e.value.text


# ---- at the same time ---------------------------------------------------------------


def test_deploys_and_removals_at_once(linear):
    """Of one model: every version is whole at all parties or at none."""
    linear.upload("races", make(8))
    model = linear.model_of(linear.run("HeteroLR", "races", max_iter=1))
    top = linear.guest.path("models", model["model_id"])
    at = os.path.join(top, model["model_version"])

    def versions(party="9999"):
        d = os.path.join(linear.s[party].state, "models", model["model_id"])
        out = set()
        for v in os.listdir(d):
            with open(os.path.join(d, v, "info.json"), encoding="utf-8") as f:
                if json.load(f)["parent"] == model["model_version"]:
                    out.add(v)
        return out

    def deploy(_):
        try:
            with open(os.path.join(at, "ctl"), "w", encoding="ascii") as f:
                f.write("deploy\n")
            return True
        except OSError:
            return False

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(deploy, range(8)))
        assert len(versions()) == 8
        assert versions("10000") == versions("10001") == versions()
        # While the trained version goes, each deploy works or leaves nothing.
        done = pool.map(deploy, range(6))
        pool.submit(shutil.rmtree, at, True).result()
        done = sum(done)
    assert len(versions()) == 8 + done
    assert not os.path.exists(at)
    assert versions("10000") == versions("10001") == versions()
    for party in ("9999", "10000", "10001"):
        left = os.listdir(os.path.join(linear.s[party].state, "models"))
        assert not [n for n in left if n.startswith((".new-", ".gone-"))]


def test_a_list_of_components_has_an_end(linear):
    linear.upload("listed", make(8))
    first = linear.run("HeteroLR", "listed", max_iter=1)
    dsl, conf = linear.job("HeteroLR", "listed", max_iter=1, common={
        "inheritance_info": {"job_id": first.number, "component_list": ["reader_0"] * 100000}})
    with pytest.raises(Refused) as e:
        linear.guest.submit(dsl, conf)
    assert "more names than a DSL has components" in e.value.text
    conf["job_parameters"]["common"]["inheritance_info"]["component_list"] = ["reader_0"] * 2
    linear.submit(dsl, conf, "listed")
