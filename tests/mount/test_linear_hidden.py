# SPDX-License-Identifier: Apache-2.0
"""predict_param.hide_scores: the guest gets rounded scores, nobody the hosts'
shares."""
import json
import os
import struct

import linear_reference as ref
import numpy as np
import pytest
from conftest import BUILD
from linear_jobs import Lab, far, make

FAMILIES = {"HeteroLR": ref.Logistic, "HeteroLinR": ref.Linear, "HeteroPoisson": ref.Poisson}


class Hidden:
    def __init__(self, sandboxes, directory):
        self.directory = directory
        self.lab = Lab(sandboxes("9999", "10000", "10001", "10002", ROLLFS_HOOK_WIRE=directory))
        for name, d in (("binary", make(50)), ("binary_two", make(51, hosts=(2, 3))),
                        ("three", make(52, kind="three")),
                        ("regression", make(53, kind="regression")),
                        ("count", make(54, kind="count"))):
            self.lab.upload(name, d)

    def crossed(self):
        return b"".join((self.directory / n).read_bytes()
                        for n in sorted(os.listdir(self.directory)))


@pytest.fixture(scope="module")
def hidden(sandboxes, tmp_path_factory):
    return Hidden(sandboxes, tmp_path_factory.mktemp("hidden"))


def params(digits):
    return {"predict_param": {"hide_scores": True, "score_digits": digits}}


@pytest.mark.parametrize("module, table, digits", [
    ("HeteroLR", "binary", 2), ("HeteroLR", "binary_two", 4), ("HeteroLR", "binary", 0),
    ("HeteroLinR", "regression", 3), ("HeteroPoisson", "count", 1)])
def test_scores_are_those_of_the_model_rounded(hidden, module, table, digits):
    more = {"exposure_colname": "days"} if module == "HeteroPoisson" else {}
    r = hidden.lab.run(module, table, max_iter=3, **params(digits), **more,
                       label_type="float" if table == "regression" else "int")
    offset = {"offset": np.log(r.data.extra["days"])} if more else {}
    want = ref.score(FAMILIES[module], r.data.x, r.weights(), **offset)
    # A score in the middle of two may go either way.
    assert far(r.scores(), want) <= .5 * 10 ** -digits + 1e-6
    assert all(abs(v * 10 ** digits - round(v * 10 ** digits)) < 1e-6 for v in r.scores())


@pytest.mark.skipif(os.path.basename(BUILD) == "release", reason="a release has no hooks")
@pytest.mark.parametrize("table", ["binary", "binary_two"])
def test_no_share_and_no_sum_crosses(hidden, table):
    r = hidden.lab.run("HeteroLR", table, max_iter=2, **params(2))
    w = r.weights()
    at, shares = 0, []
    for names in r.data.names:
        shares.append(r.data.x[:, at:at + len(names)] @ w[at:at + len(names)])
        at += len(names)
    shares += [shares[0] + w[-1], sum(shares) + w[-1]]
    crossed = hidden.crossed()
    assert len(crossed) > 20000, "the hook recorded next to nothing"
    assert b"host_prob" not in crossed
    for z in np.concatenate(shares):
        assert struct.pack("<d", z) not in crossed
        assert struct.pack("<q", int(np.rint(z * 2 ** 24))) not in crossed


def test_three_classes_are_told_apart_by_rounded_scores(hidden):
    r = hidden.lab.run("HeteroLR", "three", max_iter=3, **params(3))
    for row in r.rows().values():
        detail = json.loads(row["predict_detail"])
        best = max(detail.values())
        assert float(row["predict_score"]) == best
        assert detail[row["predict_result"]] == best


def test_a_deployed_model_predicts_hidden_with_the_arbiter(hidden):
    r = hidden.lab.run("HeteroLR", "binary", max_iter=3, **params(3))
    p = hidden.lab.predict(hidden.lab.deploy(r), "binary")
    assert far(p.scores(), r.scores()) == 0
    assert b"masked_score" in hidden.crossed()
