# SPDX-License-Identifier: Apache-2.0
"""Large features, labels, weights and exposures: what a linear trainer takes
comes out as the recurrence says, what it cannot take ends the job."""
import linear_reference as ref
import numpy as np
import pytest
from linear_jobs import Lab, like, make


@pytest.fixture(scope="module")
def lab(sandboxes):
    return Lab(sandboxes("9999", "10000", "10001", "10002"))


def check(r, fit):
    """Up to rounding of numbers of any size."""
    np.testing.assert_allclose(r.weights(), fit.w, rtol=1e-6)
    if len(r.data.names) == 2:
        np.testing.assert_allclose(r.summary()["loss_history"], fit.loss, rtol=1e-6)


def large_columns(seed, hosts):
    """A column at each host close to the largest feature, all of one sign; the
    guest's is an ordinary one."""
    d = make(seed, guest=1, hosts=(1,) * hosts, kind="regression")
    d.x[:, 1:] = np.round(1e8 - 1e3 * np.abs(d.x[:, 1:]))
    return d


def constant(value):
    return {"init_method": "const", "init_const": value}


def test_labels_of_1e9(lab):
    d = make(1, kind="regression")
    d.y = np.round(d.y * 1e9 / np.abs(d.y).max())
    lab.upload("far_labels", d)
    r = lab.run("HeteroLinR", "far_labels", label_type="float")
    check(r, like(ref.Linear, d))


@pytest.mark.parametrize("how", ["weighted", "masked"])
def test_labels_of_1e7_where_the_guest_picks_rows(lab, how):
    d = make(2, kind="regression")
    d.y = np.round(d.y * 1e7)
    # 39 rows: halves and factors do not end with a ciphertext.
    params, known = {"batch_size": 20, "shuffle": False, "masked_rate": .95}, {"batch_size": 20}
    if how == "weighted":
        d.extra = {"s": np.where(np.arange(60) < 3, 2000., 1.)}
        params = {"before": ("SampleWeight", {"sample_weight_name": "s"})}
        known = {"weights": d.extra["s"]}
    lab.upload(how, d)
    r = lab.run("HeteroLinR", how, label_type="float", **params)
    check(r, like(ref.Linear, d, **known))


def test_exposures_of_1e6(lab):
    d = make(3, kind="count")
    d.extra["days"] = np.round(d.extra["days"] * 1e6)
    d.y = np.random.RandomState(3).poisson(d.extra["days"] * np.exp(d.x.sum(axis=1) / 4))
    lab.upload("exposed", d)
    r = lab.run("HeteroPoisson", "exposed", exposure_colname="days", learning_rate=1e-7)
    check(r, like(ref.Poisson, d, rate=1e-7, offset=ref.offset_of(d.extra["days"])))


def test_two_hosts_with_the_largest_features_and_residuals(lab):
    """Residuals beyond what each of the three may add to them."""
    d = large_columns(4, 2)
    d.y = np.full(60, -8e9)
    lab.upload("large_two", d)
    r = lab.run("HeteroLinR", "large_two", label_type="float", max_iter=1, learning_rate=1e-17,
                init_param=constant(85))
    check(r, like(ref.Linear, d, iterations=1, rate=1e-17, w0=np.full(4, 85.)))


@pytest.mark.parametrize("name, hosts, start, label", [
    ("a share", 2, 90, 0), ("half a residual", 2, 1, -9e9), ("the host's loss", 1, 21, -1.3e8),
    ("the guest's loss", 1, 1, 2e9)])
def test_what_is_too_large_is_told(lab, name, hosts, start, label):
    d = large_columns(5, hosts)
    d.y = np.full(60, float(label))
    lab.upload(name.replace(" ", "_").replace("'", ""), d)
    job = lab.guest.submit(*lab.job("HeteroLinR", list(lab.data)[-1], label_type="float",
                                    max_iter=1, learning_rate=1e-17, init_param=constant(start)))
    assert lab.guest.wait(job, 60) == "failed"
    assert "diverged" in lab.guest.error(job)
