# SPDX-License-Identifier: Apache-2.0
"""predict_param/hide_scores: predictions for which no host sends x.w."""
import os
import struct

import linear_reference as ref
import numpy as np
import pytest
from conftest import BUILD
from linear_jobs import Lab, far, like, make

CASES = {"binary": ("HeteroLR", ref.Logistic), "binary_two": ("HeteroLR", ref.Logistic),
         "regression": ("HeteroLinR", ref.Linear), "count": ("HeteroPoisson", ref.Poisson)}
START = {"init_method": "random_uniform", "random_seed": 11}


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    return tmp_path_factory.mktemp("wire")


@pytest.fixture(scope="module")
def lab(sandboxes, wire):
    lab = Lab(sandboxes("9999", "10000", "10001", "10002", ROLLFS_HOOK_WIRE=wire))
    for name in CASES:
        lab.upload(name, make(50, kind=name.split("_")[0],
                              hosts=(2, 3) if name.endswith("two") else (4,)))
    lab.upload("three", make(51, kind="three"))
    return lab


def run(lab, name, module=None, digits=6, **how):
    extra = {"exposure_colname": "days"} if name == "count" else {}
    return lab.run(module or CASES[name][0], name, init_param=START,
                   label_type="float" if name == "regression" else "int",
                   predict_param={"hide_scores": True, "score_digits": digits}, **extra, **how)


def offset(data):
    return ref.offset_of(data.extra["days"]) if data.extra else 0.


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("digits", [2, 6])
def test_scores_are_rounded(lab, name, digits):
    r = run(lab, name, digits=digits)
    want = ref.score(CASES[name][1], r.data.x, r.weights(), offset(r.data))
    have = r.scores()
    assert far(have, want) <= .5 * 10 ** -digits + 2e-6
    assert far(have, np.round(have, digits)) < 1e-12


def test_no_digits_are_classes(lab):
    r = run(lab, "binary", digits=0)
    p = ref.score(ref.Logistic, r.data.x, r.weights())
    assert set(r.scores().tolist()) == {0., 1.}
    assert far(r.scores(), np.round(p)) == 0
    assert all(int(x["predict_result"]) == int(float(x["predict_score"]))
               for x in r.rows().values())


def test_the_largest_of_three_classes(lab):
    r = run(lab, "three", module="HeteroLR", max_iter=4)
    g = r.summary()["one_vs_rest"]
    h = r.parts()[1]["one_vs_rest"]
    scores = []
    for (_, a), k in zip(g.items(), sorted(h, key=float)):
        w = [a["coef"][n] for n in r.data.names[0]] + \
            [h[k]["coef"][n] for n in r.data.names[1]] + [a["intercept"]]
        scores.append(ref.score(ref.Logistic, r.data.x, np.array(w)))
    assert far(r.scores(), np.max(scores, axis=0)) < 1e-5


def test_training_is_what_it_was(lab):
    r = run(lab, "binary", callback_param={"callbacks": ["PerformanceEvaluate"],
                                           "validation_freqs": 1, "metrics": ["auc"]})
    fit = like(ref.Logistic, r.data, w0=ref.seeded(11, (3, 4)))
    r.agrees(fit)
    assert far([y for _, y in r.metric("train", "auc")],
               [ref.auc(r.data.y, ref.score(ref.Logistic, r.data.x, w)) for w in fit.trail]) < .01


@pytest.mark.parametrize("name", ["binary", "count"])
def test_deployed_models_predict_the_same(lab, name):
    r = run(lab, name)
    assert lab.predict(lab.deploy(r), name).scores().tolist() == r.scores().tolist()


@pytest.mark.skipif(os.path.basename(BUILD) == "release", reason="a release has no hooks")
@pytest.mark.parametrize("name", CASES)
def test_no_share_of_a_score_crosses(lab, wire, name):
    r = run(lab, name, cv_param={"need_cv": False})
    w = r.weights()
    bodies = b"".join((wire / n).read_bytes() for n in os.listdir(wire))
    at = [list(range(3))] + [list(range(3 + sum(len(n) for n in r.data.names[1:k + 1]),
                                        3 + sum(len(n) for n in r.data.names[1:k + 2])))
                             for k in range(len(r.data.names) - 1)]
    for k, columns in enumerate(at):
        z = r.data.x[:, columns] @ w[columns] + (0 if k else w[-1] + offset(r.data))
        for v in z[::3]:
            for x in (v, np.nextafter(v, 99), np.nextafter(v, -99)):
                assert struct.pack("<d", x) not in bodies
            for bits in (24, 32, 40):
                for d in (-1, 0, 1):
                    assert struct.pack("<q", round(v * 2 ** bits) + d) not in bodies
