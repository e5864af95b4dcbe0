# SPDX-License-Identifier: Apache-2.0
"""The recurrences that the federated runs are compared with, against what is
known apart from them."""
import lr_reference
import linear_reference as ref
import numpy as np
import pytest
from conftest import DATA
from linear_jobs import far, make, motor, plus_minus

pytestmark = pytest.mark.numbers  # no program of rollfs runs here

FAMILIES = {"binary": ref.Logistic, "regression": ref.Linear, "count": ref.Poisson}


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adagrad", "adam",
                                       "nesterov_momentum_sgd"])
@pytest.mark.parametrize("penalty", ["L1", "L2", "None"])
def test_two_programs_agree(optimizer, penalty):
    _, x, y, _ = lr_reference.load(DATA + "/breast_guest.csv", DATA + "/breast_host.csv")
    x, y = [row[:6] for row in x[:80]], y[:80]
    w, loss = lr_reference.train(x, y, optimizer, .15, .01, 4, penalty)
    f = ref.fit(ref.Logistic, np.array(x), np.array(y, float), optimizer, .15, .01, 4, penalty)
    assert far(f.w, w) < 1e-12 and far(f.loss, loss) < 1e-12


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_step_is_the_slope_of_the_loss(kind):
    """Central differences of the loss, with weights of rows, L2 and offsets."""
    d = make(1, kind=kind)
    y = plus_minus(d.y) if kind == "binary" else d.y.astype(float)
    w0 = np.random.RandomState(3).randn(8) / 4
    s = np.random.RandomState(4).rand(60)
    offset = ref.offset_of(d.extra["days"]) if d.extra else 0.

    def one(w):
        return ref.fit(FAMILIES[kind], d.x, y, rate=1., alpha=.3, iterations=1, w0=w, weights=s,
                       offset=offset)

    slope = [(one(w0 + e).loss[0] - one(w0 - e).loss[0]) / 2e-5 for e in 1e-5 * np.eye(8)]
    assert far(w0 - one(w0).w, slope) < 1e-6


def test_the_logistic_loss_is_a_series_at_zero():
    z = np.linspace(-.01, .01, 5)
    for y in (-1., 1.):
        assert far(ref.Logistic.loss(z, y, 0), np.log1p(np.exp(-y * z))) < 1e-9


def test_motor_is_known():
    d = motor()
    f = ref.fit(ref.Linear, d.x, d.y, rate=.15, decay=0, iterations=20)
    assert far(f.loss[:5] + f.loss[-1:],
               [.509833, .325278, .238665, .183356, .145807, .055310]) < 1e-6
    p = ref.score(ref.Linear, d.x, f.w)
    assert abs(ref.rmse(d.y, p) - .320494) < 1e-6 and abs(ref.r2(d.y, p) - .899092) < 1e-6


def test_a_quasi_newton_estimate_holds_on_the_last_pair():
    d = make(1, kind="regression")
    x = np.hstack([d.x, np.ones((60, 1))])
    hessian = x.T @ x / 60
    q = ref.QuasiNewton(hessian, 2, 5)
    estimate = None
    for _ in range(12):
        q.look(np.random.RandomState(q.k).randn(8))
        estimate = q.renew(estimate)
    s, y = q.pairs[-1]
    assert len(q.pairs) == 5 and far(estimate @ y, s) < 1e-9


def test_folds_are_those_of_scikit_learn():
    """KFold(3, shuffle=True, random_state=5).split(range(10)), written down."""
    assert [t.tolist() for _, t in ref.folds(10, 3, True, 5)] == \
        [[2, 4, 5, 9], [0, 1, 7], [3, 6, 8]]
    assert [t.tolist() for _, t in ref.folds(7, 2, False, 1)] == [[0, 1, 2, 3], [4, 5, 6]]


def test_metrics_of_small_cases():
    y = [1, 0, 1, 0]
    assert ref.auc(y, [.9, .1, .8, .2]) == 1 and ref.auc(y, [.5] * 4) == .5
    assert ref.ks(y, [.9, .1, .8, .2]) == 1
    assert ref.best_epoch([[1, 3, 2, 2, 2, 9]], 2, [True]) == (1, 3)
    assert ref.best_epoch([[3, 2, 1]], 2, [False]) == (None, 2)
