# SPDX-License-Identifier: Apache-2.0
"""What crosses between the parties of a linear model, recorded in the clear by
a hook of the test builds: no id, label, feature, weight of a row or of a
model."""
import os
import struct

import numpy as np
import pytest
from conftest import BUILD, eventually
from linear_jobs import GUEST, HOSTS, Lab, make

pytestmark = pytest.mark.skipif(os.path.basename(BUILD) == "release",
                                reason="a release has no hooks")
# Start values that are not 0: a step of sgd from 0 is the weight.
START = {"init_method": "random_uniform", "random_seed": 11}
KEEP = {"callbacks": ["ModelCheckpoint", "PerformanceEvaluate"], "validation_freqs": 1}
CASES = {
    "LinR": ("HeteroLinR", "regression", {}),
    "LinR of two hosts": ("HeteroLinR", "regression_two", {}),
    "LinR in batches": ("HeteroLinR", "regression", {"batch_size": 20}),
    "LinR by sqn": ("HeteroLinR", "regression", {
        "optimizer": "sqn", "max_iter": 6, "sqn_param": {"update_interval_L": 1}}),
    "LinR in folds": ("HeteroLinR", "regression", {"cv_param": {"need_cv": True, "n_splits": 2}}),
    "Poisson": ("HeteroPoisson", "count", {"exposure_colname": "days"}),
    "LR by weight": ("HeteroLR", "weighted", {"before": ("SampleWeight", {
        "sample_weight_name": "s"})}),
    "LR by sqn": ("HeteroLR", "binary", {
        "optimizer": "sqn", "max_iter": 6, "sqn_param": {"update_interval_L": 1}}),
    "LR of three classes": ("HeteroLR", "three", {}),
    "LR in masked batches": ("HeteroLR", "binary", {"batch_size": 20, "masked_rate": 1}),
    "LR by steps": ("HeteroLR", "binary", {"stepwise_param": {"need_stepwise": True,
                                                              "max_step": 1}}),
    "LR in folds": ("HeteroLR", "binary", {"cv_param": {"need_cv": True, "n_splits": 2}}),
}


def tables():
    out = {"binary": make(30), "three": make(31, kind="three"), "weighted": make(32),
           "regression": make(33, kind="regression"), "count": make(34, kind="count"),
           "regression_two": make(35, hosts=(2, 3), kind="regression")}
    out["weighted"].extra = {"s": np.round(.2 + 3 * np.random.RandomState(1).rand(60), 4)}
    for d in out.values():
        d.ids = ["person-%07d@example.org" % i for i in range(len(d.ids))]
    return out


class Wire:
    def __init__(self, sandboxes, directory):
        self.directory = directory
        self.lab = Lab(sandboxes("9999", "10000", "10001", "10002", ROLLFS_HOOK_WIRE=directory))
        for name, d in tables().items():
            self.lab.upload(name, d)
        self.done = {}

    def sizes(self):
        return {n: os.path.getsize(self.directory / n) for n in os.listdir(self.directory)}

    def case(self, name):
        """(what crossed, the job) of a case, which runs once."""
        if name not in self.done:
            module, table, how = CASES[name]
            how = dict({"max_iter": 3}, **how)
            if "cv_param" not in how and "stepwise_param" not in how:
                how["callback_param"] = dict(KEEP)
            before = self.sizes()
            r = self.lab.run(module, table, init_param=START,
                             label_type="float" if "regression" in table else "int", **how)
            bodies = b"".join((self.directory / n).read_bytes()[before.get(n, 0):]
                              for n in os.listdir(self.directory))
            assert len(bodies) > 60 * 256, "the hook recorded next to nothing"
            self.done[name] = bodies, r
        return self.done[name]


@pytest.fixture(scope="module")
def wire(sandboxes, tmp_path_factory):
    return Wire(sandboxes, tmp_path_factory.mktemp("wire"))


def forms(v):
    """A number as it could be written."""
    v = float(v)
    yield struct.pack("<d", v)
    yield struct.pack(">d", v)
    for text in ("%.17g" % v, "%.4f" % v, repr(v)):
        if len(text) > 6:
            yield text.encode()


def runs(values):
    """Whole numbers of many rows in a row, as they could be written."""
    values = [int(v) for v in values]
    for width in "bihqdf":
        for end in "<>":
            yield struct.pack("%s%d%s" % (end, len(values), width), *values)
    for sep in (",", ", ", " "):
        yield sep.join(map(str, values)).encode()


@pytest.mark.parametrize("case", CASES)
def test_no_id_and_no_cell_crosses(wire, case):
    bodies, r = wire.case(case)
    assert b"@example.org" not in bodies
    for v in r.data.x.ravel()[::7]:
        assert not any(f in bodies for f in forms(v)), v
    for values in r.data.extra.values():
        n = values * len(values) / values.sum()
        for v in list(values) + list(n) + list(np.log(values)):
            assert not any(f in bodies for f in forms(v)), v


@pytest.mark.parametrize("case", CASES)
def test_no_label_crosses(wire, case):
    bodies, r = wire.case(case)
    y = r.data.y
    if y.dtype.kind == "f":
        for v in y:
            assert not any(f in bodies for f in forms(v)), v
        return
    for part in (y[20:40], 2 * y[20:40] - 1, y[20:40] == 1, 2 * (y[20:40] == 1) - 1):
        assert not any(f in bodies for f in runs(part))


def numbers(o):
    if isinstance(o, dict):
        for v in o.values():
            yield from numbers(v)
    elif isinstance(o, list):
        for v in o:
            yield from numbers(v)
    elif isinstance(o, float):
        yield o


@pytest.mark.parametrize("case", CASES)
def test_no_weight_of_a_model_crosses(wire, case):
    bodies, r = wire.case(case)
    found = 0
    for party, role in ((GUEST, "guest"),) + tuple((h, "host") for h in
                                                   HOSTS[:len(r.data.names) - 1]):
        top = "%s/linear_0" % role
        texts = [] if "folds" in case else [r.json(top + "/model/model.json", party)["param"]]
        at = wire.lab.s[party].path("jobs", r.number, top, "checkpoints")
        if os.path.isdir(at):
            texts += [r.json(top + "/checkpoints/" + n, party)["param"] for n in os.listdir(at)]
        for t in texts:
            for part in t.get("one_vs_rest", {"": t}).values():
                for v in list(numbers(part.get("coef"))) + [part.get("intercept")]:
                    if v:
                        found += 1
                        assert not any(f in bodies for f in forms(v)), v
    assert found or "folds" in case


@pytest.mark.parametrize("case", ["LinR", "Poisson", "LR by weight"])
def test_the_guests_scores_do_not_cross(wire, case):
    """x.w of the guest and what follows from it: only hosts send theirs."""
    bodies, r = wire.case(case)
    w = r.weights()
    z = r.data.x[:, :3] @ w[:3] + w[-1]
    for v in list(z)[::5] + list(r.scores())[::5]:
        assert not any(f in bodies for f in forms(v)), v
    # The test can see what does cross: the host's part of the scores.
    u = r.data.x[:, 3:] @ w[3:-1]
    at = 0
    for v in u:
        at += any(struct.pack("<d", x) in bodies
                  for x in (v, np.nextafter(v, 9), np.nextafter(v, -9)))
    assert at > len(u) / 2


@pytest.mark.parametrize("module, table, message", [
    ("HeteroLinR", "regression", "host_gradient"), ("HeteroLinR", "regression", "fore_gradient"),
    ("HeteroPoisson", "count", "guest_gradient")])
def test_one_changed_byte_fails_the_job_with_a_reason(sandboxes, module, table, message):
    s = sandboxes("9999", "10000", "10001", ROLLFS_HOOK_FLIP=message, LEASE=10)
    lab = Lab(s)
    lab.upload(table, tables()[table])
    job = lab.guest.submit(*lab.job(module, table,
                                    label_type="float" if table == "regression" else "int"))
    assert lab.guest.wait(job, 60) == "failed"
    assert "linear_0" in lab.guest.error(job)
    eventually(lambda: not lab.guest.pids("rollfs-task"), 10)
    s.run("down", s.dir)
