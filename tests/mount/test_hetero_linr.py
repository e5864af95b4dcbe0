# SPDX-License-Identifier: Apache-2.0
"""HeteroLinR between real parties against known results and the recurrence on
the pooled columns."""
import json

import linear_reference as ref
import numpy as np
import pytest
from conftest import Refused
from linear_jobs import HOSTS, Lab, far, like, make, motor

MOTOR = {"learning_rate": .15, "decay": 0, "decay_sqrt": False, "max_iter": 20, "tol": 1e-3,
         "label_type": "float"}
PLAIN = {"rate": .15, "decay": 0, "decay_sqrt": False, "iterations": 20, "tol": 1e-3}


@pytest.fixture(scope="module")
def lab(sandboxes):
    lab = Lab(sandboxes("9999", "10000", "10001", "10002"))
    lab.upload("motor", motor())
    lab.upload("motor_two", motor(2))
    lab.upload("small", make(1, kind="regression"))
    lab.upload("small_two", make(2, hosts=(2, 3), kind="regression"))
    return lab


def run(lab, name="small", **how):
    return lab.run("HeteroLinR", name, label_type="float", **how)


def test_motor_gives_the_golden_numbers(lab):
    r = lab.run("HeteroLinR", "motor", seconds=120, **MOTOR,
                evaluation={"eval_type": "regression", "metrics": ["rmse", "r2"]})
    g, h = r.parts()
    golden = [.509833, .325278, .238665, .183356, .145807]
    assert far(g["loss_history"][:5], golden) < 1e-6
    assert abs(g["loss_history"][-1] - .055310) < 1e-6 and len(g["loss_history"]) == 20
    assert g["iterations"] == 20 and not g["is_converged"]
    for have, want in ((g["coef"]["pm"], .1181346788), (g["intercept"], .0127955193),
                       (h["coef"]["u_q"], .5810629162), (h["coef"]["i_d"], -.5339795729)):
        assert abs(have - want) < 1e-6
    e = r.json("guest/evaluation_0/summary.json")["linear_0"]["train"]
    assert abs(e["rmse"] - .320494) < 1e-6 and abs(e["r2"] - .899092) < 1e-6
    assert "intercept" not in h and "loss_history" not in h
    r.agrees(like(ref.Linear, r.data, **PLAIN))


def test_motor_over_two_hosts_is_the_pooled_recurrence(lab):
    r = lab.run("HeteroLinR", "motor_two", seconds=120, **MOTOR)
    r.agrees(like(ref.Linear, r.data, **PLAIN))
    assert far(r.scores(), ref.score(ref.Linear, r.data.x, r.weights())) < 1e-9


def test_predictions_are_the_pooled_product(lab):
    r = run(lab)
    want = ref.score(ref.Linear, r.data.x, r.weights())
    assert far(r.scores(), want) < 1e-9
    for i, row in r.rows().items():
        assert row["predict_result"] == row["predict_score"] and row["type"] == "train"
        assert json.loads(row["predict_detail"]) == {"label": float(row["predict_score"])}
        assert float(row["label"]) == r.data.y[r.data.ids.index(i)]


# All of them with each other: test_linear_trainer.py.
@pytest.mark.parametrize("optimizer, penalty", [
    ("sgd", "L1"), ("rmsprop", "L2"), ("adagrad", "None"), ("adam", "L1"),
    ("nesterov_momentum_sgd", "L2")])
def test_optimizers_and_penalties_follow_the_recurrence(lab, optimizer, penalty):
    r = run(lab, optimizer=optimizer, penalty=penalty, max_iter=4)
    r.agrees(like(ref.Linear, r.data, optimizer=optimizer, penalty=penalty, iterations=4))


def test_sqn_follows_the_recurrence(lab):
    r = run(lab, optimizer="sqn", max_iter=13,
            sqn_param={"update_interval_L": 2, "memory_M": 3, "sample_size": 5000})
    fit = like(ref.Linear, r.data, optimizer="sqn", iterations=13, interval=2, memory=3)
    # The curvature was used: sgd is elsewhere.
    assert far(fit.w, like(ref.Linear, r.data, iterations=13).w) > 1e-3
    r.agrees(fit)


@pytest.mark.parametrize("name", ["small", "small_two"])
def test_batches_follow_the_order_of_the_keys(lab, name):
    r = run(lab, name, batch_size=25, shuffle=False, max_iter=2)
    r.agrees(like(ref.Linear, r.data, batch_size=25, iterations=2))


def test_shuffled_batches_cover_all_rows(lab):
    r = run(lab, batch_size=25, max_iter=30)
    fit = like(ref.Linear, r.data, batch_size=25, iterations=30)
    assert far(r.weights(), fit.w) < .2
    assert abs(r.summary()["loss_history"][-1] - fit.loss[-1]) < .2 * fit.loss[0]


def test_two_hosts_follow_the_recurrence(lab):
    r = run(lab, "small_two", optimizer="adam", max_iter=4)
    r.agrees(like(ref.Linear, r.data, optimizer="adam", iterations=4))


@pytest.mark.parametrize("stop, tol", [("diff", .02), ("abs", 1.), ("weight_diff", .1)])
def test_it_stops_where_the_recurrence_stops(lab, stop, tol):
    r = run(lab, early_stop=stop, tol=tol, max_iter=40)
    fit = like(ref.Linear, r.data, early_stop=stop, tol=tol, iterations=40)
    assert 2 < fit.iterations < 40 and fit.converged
    r.agrees(fit)


def test_two_hosts_have_no_loss_to_stop_by(lab):
    with pytest.raises(Refused) as e:
        lab.guest.submit(*lab.job("HeteroLinR", "small_two", early_stop="diff"))
    assert "early_stop" in e.value.text


@pytest.mark.parametrize("init, start", [
    ({"init_method": "random_uniform", "random_seed": 7}, ref.seeded(7, (3, 4))),
    ({"init_method": "random_normal", "random_seed": 8}, ref.seeded(8, (3, 4), "randn")),
    ({"init_method": "ones"}, np.ones(8)),
    ({"init_method": "const", "init_const": -.25}, np.full(8, -.25))])
def test_start_values(lab, init, start):
    r = run(lab, init_param=init, max_iter=2)
    r.agrees(like(ref.Linear, r.data, w0=start, iterations=2))


def test_without_an_intercept(lab):
    r = run(lab, init_param={"init_method": "zeros", "fit_intercept": False})
    fit = like(ref.Linear, r.data, intercept=False)
    r.agrees(fit)
    assert fit.w[-1] == 0


def test_the_model_of_each_party_is_its_own(lab):
    r = run(lab)
    for party, role, names in (("9999", "guest", r.data.names[0]),
                               (HOSTS[0], "host", r.data.names[1])):
        m = r.json(role + "/linear_0/model/model.json", party)
        assert m["module"] == "HeteroLinR" and m["meta"]["learning_rate"] == .15
        assert sorted(m["param"]["coef"]) == sorted(names)
        assert m["param"]["coef"] == r.summary(party)["coef"]
    assert r.metric("train", "loss") == list(enumerate(r.summary()["loss_history"]))


def test_a_label_of_text_is_refused(lab):
    data = make(3, kind="regression")
    lab.upload("words", data)
    rows = data.csv(0).splitlines()
    lab.guest.upload("linear", "words", "\n".join(
        rows[:1] + [",".join([x.split(",")[0], "red"] + x.split(",")[2:])
                    for x in rows[1:]]) + "\n")
    job = lab.guest.submit(*lab.job("HeteroLinR", "words", label_type="str"))
    assert lab.guest.wait(job) == "failed"
    assert "linear_0" in lab.guest.error(job)
    assert "red" not in lab.s["10000"].error(job)
