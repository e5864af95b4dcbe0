# SPDX-License-Identifier: Apache-2.0
"""The life of a linear model: checkpoints and deaths, going on from a model,
deployment, prediction."""
import contextlib
import json
import os
import random
import re
import signal
import subprocess

import linear_reference as ref
import numpy as np
import pytest
from conftest import Refused, eventually, processes
from linear_jobs import ARBITER, GUEST, HOSTS, Lab, far, like, make

RETRY = {"auto_retries": 1, "auto_retry_delay": 0}
KEEP = {"callbacks": ["ModelCheckpoint"], "save_freq": 1}
ROLES = {GUEST: "guest", HOSTS[0]: "host", ARBITER: "arbiter"}


@pytest.fixture(scope="module")
def lab(sandboxes):
    lab = Lab(sandboxes("9999", "10000", "10001", "10002"))
    lab.upload("binary", make(8))
    lab.upload("long", make(20, rows=150))
    lab.upload("regression", make(1, kind="regression"))
    lab.upload("regression_two", make(2, hosts=(2, 3), kind="regression"))
    lab.upload("three", make(10, kind="three"))
    lab.upload("counts", make(4, rows=60, kind="count"))
    return lab


# ---- checkpoints -----------------------------------------------------------


def task(lab, party, number):
    """Ids of the process of the trainer at a party."""
    at = "/jobs/%s/%s/linear_0/" % (number, ROLES[party])
    return [pid for pid, argv in processes(lab.s[party].state) if any(at in a for a in argv)]


def kill_in_epoch(lab, party, number, epoch):
    """SIGKILL when every party has its checkpoint of the epoch before this
    one (0 is the first); on a busy machine that may be in a later epoch, or
    after the last."""
    paths = [os.path.join(lab.s[p].state, "jobs", number, role, "linear_0/checkpoints/%d.json")
             for p, role in ROLES.items()]
    pid, = eventually(lambda: task(lab, party, number), 60)
    eventually(lambda: all(os.path.exists(p % (epoch - 1)) for p in paths), 60, every=.002)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def killed_in_epoch(lab, party, epoch, name, status="success", common=None, **how):
    """The job whose trainer died so; again when the machine was so busy that
    it had trained before."""
    for _ in range(8):
        number = lab.guest.submit(*lab.job("HeteroLR", name, common=common, **how))
        kill_in_epoch(lab, party, number, epoch)
        assert lab.guest.wait(number, 120) in (status, "success"), lab.guest.error(number)
        r = lab.submit_result(number, name)
        if lab.guest.status(number) == "failed" or \
                "attempt 1 " in r.file("guest/linear_0/events"):
            return r
    return pytest.fail("no kill came in time")


def went_on_from(result):
    """The checkpoint with which the second attempt began."""
    events = result.file("guest/linear_0/events")
    assert "attempt 1 " in events
    return int(re.search(r"from checkpoint (\d+)", events).group(1))


DIE = {"max_iter": 9, "optimizer": "rmsprop", "callback_param": KEEP,
       "early_stop": "diff", "encrypt_param": {"key_length": 2048},
       "init_param": {"init_method": "random_uniform", "random_seed": 5}}


@pytest.fixture(scope="module")
def undisturbed(lab):
    r = lab.run("HeteroLR", "long", **DIE)
    r.agrees(like(ref.Logistic, r.data, optimizer="rmsprop", iterations=9, early_stop="diff",
                  w0=ref.seeded(5, (3, 4))))
    return r.weights(), r.summary()["loss_history"]


@pytest.mark.parametrize("party", [GUEST, HOSTS[0], ARBITER])
def test_a_killed_task_goes_on_from_its_newest_checkpoint(lab, undisturbed, party):
    r = killed_in_epoch(lab, party, 7, "long", common=RETRY, **DIE)
    assert far(r.weights(), undisturbed[0]) < 1e-12
    assert far(r.summary()["loss_history"], undisturbed[1]) < 1e-12
    # It did not begin anew: the second attempt says where it went on, and no epoch was
    # trained twice.
    k = went_on_from(r)
    assert k >= 6
    assert "goes on with iteration %d," % (k + 1) in r.file("guest/linear_0/events")
    log = r.file("guest/linear_0/log")
    for epoch in range(9):
        assert len(re.findall("iteration %d: loss" % epoch, log)) == 1, (epoch, log)


EARLY = {"callbacks": ["PerformanceEvaluate", "EarlyStopping", "ModelCheckpoint"],
         "validation_freqs": 1, "early_stopping_rounds": 3, "metrics": ["auc"]}
# Whose task dies, on which table, before which epoch.
STATES = {
    "pairs of sqn": (HOSTS[0], "long", 8, {
        "optimizer": "sqn", "max_iter": 11, "callback_param": KEEP,
        "sqn_param": {"update_interval_L": 2, "memory_M": 3}}),
    "sums of sqn": (GUEST, "long", 7, {
        "optimizer": "sqn", "max_iter": 11, "callback_param": KEEP,
        "sqn_param": {"update_interval_L": 2, "memory_M": 3}}),
    "speed": (ARBITER, "long", 4, {
        "optimizer": "nesterov_momentum_sgd", "max_iter": 6, "callback_param": KEEP}),
    # Epoch 2 of the second class.
    "classes": (GUEST, "three", 7, {
        "optimizer": "adam", "max_iter": 5, "callback_param": KEEP}),
    # The best was epoch 5, it stops at 8.
    "the best so far": (HOSTS[0], "half", 7, {
        "optimizer": "adam", "max_iter": 20, "learning_rate": .1, "validate": "other_half",
        "callback_param": EARLY})}


UNDISTURBED = {}


def undisturbed_as(lab, state):
    _, name, _, how = STATES[state]
    if state not in UNDISTURBED:
        UNDISTURBED[state] = lab.run("HeteroLR", name, **how)
    return UNDISTURBED[state]


@pytest.mark.parametrize("state", STATES)
def test_what_a_trainer_knows_survives_a_death(lab, state):
    party, name, epoch, how = STATES[state]
    if name == "half" and name not in lab.data:
        d = make(28, noise=2.5)
        lab.upload("half", d.part(range(35)))
        lab.upload("other_half", d.part(range(35, 60)))
    have = killed_in_epoch(lab, party, epoch, name, common=RETRY,
                           **dict(how, encrypt_param={"key_length": 2048}))
    assert went_on_from(have) >= epoch - 1
    want = undisturbed_as(lab, state)
    for a, b in zip(have.parts(), want.parts()):
        assert a == b
    assert {i: r["predict_score"] for i, r in have.rows().items()} == \
        {i: r["predict_score"] for i, r in want.rows().items()}


def test_checkpoints_are_the_models_after_each_epoch(lab):
    r = lab.run("HeteroLR", "binary", max_iter=5, optimizer="adam",
                callback_param=dict(KEEP, save_freq=2))
    fit = like(ref.Logistic, r.data, optimizer="adam", iterations=5)
    names = sorted(os.listdir(lab.guest.path("jobs", r.number, "guest/linear_0/checkpoints")))
    assert len(names) >= 2
    for name in names:
        n = int(name.split(".")[0])
        g = r.json("guest/linear_0/checkpoints/" + name)
        h = r.json("host/linear_0/checkpoints/" + name, HOSTS[0])
        w = [g["param"]["coef"][x] for x in r.data.names[0]] + \
            [h["param"]["coef"][x] for x in r.data.names[1]] + [g["param"]["intercept"]]
        assert far(w, fit.trail[n]) < 1e-6
        assert "intercept" not in h["param"]


# ---- going on from a model -------------------------------------------------


def then(lab, dsl, conf, **params):
    """A second trainer that goes on from the first's model."""
    first = dsl["components"]["linear_0"]
    dsl["components"]["linear_1"] = dict(first, input=dict(first["input"],
                                                           model=["linear_0.model"]))
    common = conf["component_parameters"]["common"]
    common["linear_1"] = dict(common["linear_0"], **params)
    return dsl, conf


@pytest.mark.parametrize("module, family, name", [
    ("HeteroLR", ref.Logistic, "binary"), ("HeteroLinR", ref.Linear, "regression"),
    ("HeteroLinR", ref.Linear, "regression_two"), ("HeteroPoisson", ref.Poisson, "counts")])
def test_a_warm_start_goes_on(lab, module, family, name):
    extra = {"exposure_colname": "days"} if name == "counts" else {}
    dsl, conf = then(lab, *lab.job(module, name, max_iter=2, label_type="float"
                                   if "regression" in name else "int", **extra), max_iter=5)
    r = lab.submit(dsl, conf, name)
    offset = ref.offset_of(r.data.extra["days"]) if extra else 0.
    # sgd has no state but the epoch: as if it had never stopped.
    r.agrees(like(family, r.data, offset=offset, iterations=2))
    whole = like(family, r.data, offset=offset, iterations=5)
    assert far(r.weights("linear_1"), whole.w) < 1e-6
    assert r.summary(component="linear_1")["iterations"] == 5


def test_a_warm_start_begins_with_fresh_moments(lab):
    dsl, conf = then(lab, *lab.job("HeteroLR", "binary", max_iter=2, optimizer="adam"),
                     max_iter=4)
    r = lab.submit(dsl, conf, "binary")
    first = like(ref.Logistic, r.data, optimizer="adam", iterations=2)
    second = like(ref.Logistic, r.data, optimizer="adam", iterations=4, first=2, w0=first.w)
    assert far(r.weights("linear_1"), second.w) < 1e-6


def test_a_warm_start_of_three_classes(lab):
    dsl, conf = then(lab, *lab.job("HeteroLR", "three", max_iter=2), max_iter=4)
    r = lab.submit(dsl, conf, "three")
    want = ref.one_vs_rest(r.data.x, r.data.y, iterations=4)
    g = r.summary(component="linear_1")["one_vs_rest"]
    for c, fit in want.items():
        have = [g[str(c)]["coef"][n] for n in r.data.names[0]] + [g[str(c)]["intercept"]]
        assert far(have, np.append(fit.w[:3], fit.w[-1])) < 1e-6


def beside(dsl, conf, table):
    """The second trainer reads another table than the first."""
    for cpn, source in (("reader", None), ("data_transform", "reader_1.data"),
                        ("intersection", "data_transform_1.data")):
        dsl["components"][cpn + "_1"] = dict(dsl["components"][cpn + "_0"])
        if source:
            dsl["components"][cpn + "_1"]["input"] = {"data": {"data": [source]}}
        for role in conf["component_parameters"]["role"].values():
            for own in role.values():
                if cpn + "_0" in own:
                    own[cpn + "_1"] = dict(own[cpn + "_0"])
                if cpn == "reader":
                    own["reader_1"] = {"table": {"namespace": "linear", "name": table}}
    common = conf["component_parameters"]["common"]
    common["intersection_1"] = common["intersection_0"]
    dsl["components"]["linear_1"]["input"] = {"data": {"train_data": ["intersection_1.data"]},
                                              "model": ["linear_0.model"]}
    return dsl, conf


@pytest.mark.parametrize("first, second", [("binary", "wide"), ("wide", "binary")])
def test_a_column_more_or_less_than_the_models_is_named(lab, first, second):
    lab.upload("wide", make(21, guest=4))
    job = lab.guest.submit(*beside(*then(lab, *lab.job("HeteroLR", first, max_iter=1), max_iter=2),
                                   second))
    assert lab.guest.wait(job) == "failed"
    assert "linear_1" in lab.guest.error(job) and "x3" in lab.guest.error(job)
    assert "x3" not in lab.s[HOSTS[0]].error(job)


def test_a_stored_model_is_trained_on(lab):
    first = lab.run("HeteroLR", "binary", max_iter=2)
    model = lab.model_of(first)
    dsl, conf = lab.job("HeteroLR", "binary", max_iter=5)
    dsl["components"]["loader_0"] = {"module": "ModelLoader", "output": {"model": ["model"]}}
    dsl["components"]["linear_0"]["input"]["model"] = ["loader_0.model"]
    conf["component_parameters"]["common"]["loader_0"] = dict(model, component_name="linear_0")
    r = lab.submit(dsl, conf, "binary")
    assert far(r.weights(), like(ref.Logistic, r.data, iterations=5).w) < 1e-6


def test_a_stored_checkpoint_is_trained_on(lab):
    first = lab.run("HeteroLR", "binary", max_iter=5, callback_param=KEEP)
    model = lab.model_of(first)
    dsl, conf = lab.job("HeteroLR", "binary", max_iter=6)
    dsl["components"]["loader_0"] = {"module": "ModelLoader", "output": {"model": ["model"]}}
    dsl["components"]["linear_0"]["input"]["model"] = ["loader_0.model"]
    conf["component_parameters"]["common"]["loader_0"] = dict(
        model, component_name="linear_0", step_index=2)
    r = lab.submit(dsl, conf, "binary")
    # Epochs 0, 1, 2 are in the checkpoint, 3, 4, 5 are new.
    assert far(r.weights(), like(ref.Logistic, r.data, iterations=6).w) < 1e-6
    assert [x for x, _ in r.metric("train", "loss")] == [3, 4, 5]


# ---- deployment and prediction ---------------------------------------------


@pytest.mark.parametrize("module, name, label_type", [
    ("HeteroLR", "binary", "int"), ("HeteroLR", "three", "int"),
    ("HeteroLinR", "regression_two", "float"), ("HeteroPoisson", "counts", "int")])
def test_deployed_models_predict_the_training_rows_bit_for_bit(lab, module, name, label_type):
    extra = {"exposure_colname": "days"} if name == "counts" else {}
    r = lab.run(module, name, label_type=label_type, max_iter=3, **extra)
    p = lab.predict(lab.deploy(r), name)
    have, want = p.rows(), r.rows()
    assert set(have) == set(want)
    for i, row in have.items():
        assert row.pop("type") == "predict" and want[i].pop("type") == "train"
        assert row == want[i]
    # The order of columns and rows does not count, and labels are not needed.
    shuffled = lab.upload(name + "_shuffled", r.data, random.Random(3))
    assert lab.guest.read("tables/linear", shuffled, "data.csv") != \
        lab.guest.read("tables/linear", name, "data.csv")
    assert lab.predict(lab.deploy(r), shuffled).scores().tolist() == p.scores().tolist()


def test_a_missing_training_column_is_named(lab):
    r = lab.run("HeteroLR", "binary")
    model = lab.deploy(r)
    rows = [x.split(",") for x in r.data.csv(1).splitlines()]
    lab.upload("narrow", r.data)
    lab.s[HOSTS[0]].upload("linear", "narrow", "\n".join(",".join(x[:-1]) for x in rows) + "\n")
    job = lab.guest.submit_text(lab.predict_text(model, "narrow"))
    assert lab.guest.wait(job) == "failed"
    eventually(lambda: "h0_3" in lab.s[HOSTS[0]].error(job), 5)
    assert "h0_3" not in lab.guest.error(job)


def test_new_rows_are_predicted_by_the_pooled_product(lab):
    r = lab.run("HeteroLR", "binary")
    new = make(8, rows=100).part(range(40, 100))
    lab.upload("new", new)
    p = lab.predict(lab.deploy(r), "new")
    assert far(p.scores(), ref.score(ref.Logistic, new.x, r.weights())) < 1e-9


def test_what_was_not_deployed_says_what_to_type(lab):
    r = lab.run("HeteroLR", "binary")
    with pytest.raises(Refused) as e:
        lab.guest.submit_text(lab.predict_text(lab.model_of(r), "binary"))
    assert "deploy" in e.value.text


def test_a_thousand_new_rows_are_predicted(lab):
    # How fast: make bench B=jobs, predict_1000_rows.
    lab.upload("thousand", make(22, rows=1000))
    r = lab.run("HeteroLR", "binary")
    p = lab.predict(lab.deploy(r), "thousand")
    assert far(p.scores(), ref.score(ref.Logistic, p.data.x, r.weights())) < 1e-9


def test_a_model_moved_by_tar_predicts_the_same(lab, sandboxes):
    r = lab.run("HeteroLR", "binary")
    model = lab.deploy(r)
    want = lab.predict(model, "binary").rows()
    other = Lab(sandboxes(GUEST, HOSTS[0], ARBITER))
    other.upload("binary", r.data)
    at = "%s/%s" % (model["model_id"], model["model_version"])
    for party in (GUEST, HOSTS[0], ARBITER):
        subprocess.run(["bash", "-c", 'set -o pipefail; tar c -C "$1" "$3" | tar x -C "$2"', "-",
                        lab.s[party].path("models"), other.s[party].path("models"), at],
                       check=True)
    assert other.predict(model, "binary").rows() == want


def test_a_checkpoint_of_other_rows_is_not_used(lab):
    number = killed_in_epoch(lab, GUEST, 4, "long", "failed", max_iter=9, callback_param=KEEP,
                             early_stop="diff", encrypt_param={"key_length": 2048}).number
    d = os.path.join(lab.guest.state, "jobs", number, "guest/linear_0/checkpoints")
    for name in os.listdir(d):
        with open(os.path.join(d, name), encoding="utf-8") as f:
            o = json.load(f)
        o["state"]["rows"] = "00" + o["state"]["rows"][2:]
        with open(os.path.join(d, name), "w", encoding="utf-8") as f:
            json.dump(o, f)
    with open(lab.guest.path("jobs", number, "ctl"), "w", encoding="utf-8") as f:
        f.write("rerun\n")
    eventually(lambda: lab.guest.read("jobs", number, "status") != "failed\n", 10)
    assert lab.guest.wait(number, 60) == "success", lab.guest.error(number)
    r = lab.submit_result(number, "long")
    r.agrees(like(ref.Logistic, r.data, iterations=9, early_stop="diff"))
    assert "other rows" in r.file("guest/linear_0/events")
    assert len(r.metric("train", "loss")) == 9
