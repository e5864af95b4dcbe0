# SPDX-License-Identifier: Apache-2.0
"""HeteroPoisson between real parties against the recurrence: counts like the
visits to a doctor, with the time of observation as exposure."""
import json

import linear_reference as ref
import numpy as np
import pytest
from conftest import Refused
from linear_jobs import Lab, far, like, make


@pytest.fixture(scope="module")
def lab(sandboxes):
    lab = Lab(sandboxes("9999", "10000", "10001", "10002"))
    visits = make(4, rows=90, guest=4, hosts=(4,), kind="count")
    lab.upload("visits", visits)
    zero = visits.part(range(90))
    zero.extra["days"] = np.where(np.arange(90) % 9 == 4, 0., zero.extra["days"])
    lab.upload("zero", zero)
    # Without the column of days.
    plain = make(5, rows=90, guest=4, hosts=(4,), kind="count")
    plain.extra = {}
    lab.upload("plain", plain)
    return lab


def run(lab, name="visits", **how):
    if name != "plain":
        how.setdefault("exposure_colname", "days")
    return lab.run("HeteroPoisson", name, **how)


def offset(data):
    return ref.offset_of(data.extra["days"]) if data.extra else 0.


def test_weights_and_loss_follow_the_recurrence(lab):
    r = run(lab, max_iter=5)
    r.agrees(like(ref.Poisson, r.data, offset=offset(r.data), iterations=5))
    assert "days" not in r.summary()["coef"]


def test_without_exposure(lab):
    r = run(lab, "plain", max_iter=4)
    r.agrees(like(ref.Poisson, r.data, iterations=4))


def test_an_exposure_of_zero_counts_as_almost_nothing(lab):
    r = run(lab, "zero", max_iter=3)
    assert np.isclose(offset(r.data).min(), np.log(1e-7))
    r.agrees(like(ref.Poisson, r.data, offset=offset(r.data)))
    scores = r.scores()
    assert far(scores, ref.score(ref.Poisson, r.data.x, r.weights(), offset(r.data))) < 1e-9


def test_predictions_are_counts_over_the_exposure(lab):
    r = run(lab, max_iter=6)
    want = ref.score(ref.Poisson, r.data.x, r.weights(), offset(r.data))
    assert far(r.scores(), want) < 1e-9
    for row in r.rows().values():
        assert row["predict_result"] == row["predict_score"] and row["type"] == "train"
        assert json.loads(row["predict_detail"]) == {"label": float(row["predict_score"])}


# All of them with each other: test_linear_trainer.py.
@pytest.mark.parametrize("optimizer, penalty", [
    ("rmsprop", "L1"), ("adagrad", "L2"), ("adam", "None"), ("nesterov_momentum_sgd", "L2")])
def test_optimizers_and_penalties_follow_the_recurrence(lab, optimizer, penalty):
    how = {"optimizer": optimizer, "penalty": penalty}
    r = run(lab, max_iter=3, learning_rate=.05, **how)
    r.agrees(like(ref.Poisson, r.data, offset=offset(r.data), rate=.05, **how))


def test_batches_follow_the_order_of_the_keys(lab):
    r = run(lab, batch_size=35, shuffle=False, max_iter=2)
    r.agrees(like(ref.Poisson, r.data, offset=offset(r.data), batch_size=35, iterations=2))


@pytest.mark.parametrize("stop, tol", [("diff", .01), ("abs", .75), ("weight_diff", .02)])
def test_it_stops_where_the_recurrence_stops(lab, stop, tol):
    r = run(lab, early_stop=stop, tol=tol, max_iter=30)
    fit = like(ref.Poisson, r.data, offset=offset(r.data), early_stop=stop, tol=tol,
               iterations=30)
    assert 1 < fit.iterations < 30 and fit.converged
    r.agrees(fit)


def test_start_values(lab):
    r = run(lab, init_param={"init_method": "random_uniform", "random_seed": 3}, max_iter=2)
    r.agrees(like(ref.Poisson, r.data, offset=offset(r.data), iterations=2,
                  w0=ref.seeded(3, (4, 4))))


def test_two_hosts_are_refused(lab):
    lab.upload("two", make(6, guest=3, hosts=(2, 2), kind="count"))
    with pytest.raises(Refused) as e:
        lab.guest.submit(*lab.job("HeteroPoisson", "two"))
    assert "host" in e.value.text


def test_sqn_is_refused(lab):
    with pytest.raises(Refused) as e:
        lab.guest.submit(*lab.job("HeteroPoisson", "visits", optimizer="sqn"))
    assert "optimizer" in e.value.text and "sqn" in e.value.text


def test_an_exposure_column_that_is_not_there_is_named(lab):
    job = lab.guest.submit(*lab.job("HeteroPoisson", "visits", exposure_colname="weeks"))
    assert lab.guest.wait(job) == "failed"
    assert "weeks" in lab.guest.error(job)


def test_negative_counts_fail_by_name(lab):
    data = make(7, rows=30, kind="count")
    data.y = data.y - 5
    lab.upload("negative", data)
    job = lab.guest.submit(*lab.job("HeteroPoisson", "negative", exposure_colname="days"))
    assert lab.guest.wait(job) == "failed"
    assert "negative" in lab.guest.error(job)
