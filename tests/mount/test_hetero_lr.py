# SPDX-License-Identifier: Apache-2.0
"""HeteroLR between real parties against FATE's figures and the recurrence."""
import copy
import csv
import json

import lr_reference
import pytest
from conftest import DATA, Refused, job_files

GUEST, HOST = DATA + "/breast_guest.csv", DATA + "/breast_host.csv"
LOSS = [0.693147, 78.875554, 5.695061, 1.478556, 0.733014, 0.532544]


def job(**params):
    dsl, conf = job_files("breast")
    conf = copy.deepcopy(conf)
    lr = conf["component_parameters"]["common"].setdefault("hetero_lr_0", {})
    lr.update({"penalty": "L2", "alpha": .01, "tol": 1e-5, "optimizer": "rmsprop",
               "learning_rate": .15, "batch_size": -1, "early_stop": "diff",
               "init_param": {"init_method": "zeros"}, "encrypt_param": {"key_length": 1024}})
    lr.update(params)
    return dsl, conf


def summaries(s, number, hosts=("10000",)):
    """(guest's summary, weights of guest, hosts, intercept in one list)."""
    g = s["9999"].read_json("jobs", number, "guest/hetero_lr_0/summary.json")
    hs = [s[h].read_json("jobs", number, "host/hetero_lr_0/summary.json") for h in hosts]
    for h in hs:
        assert "intercept" not in h and "loss_history" not in h
    w = []
    for c in [g["coef"]] + [h["coef"] for h in hs]:
        w += [c["x%d" % i] for i in range(len(c))]
    return g, w + [g["intercept"]]


def auc(s, number):
    e = s["9999"].read_json("jobs", number, "guest/evaluation_0/summary.json")
    return e["hetero_lr_0"]["train"]


def far(a, b):
    assert len(a) == len(b)
    return max(abs(p - q) for p, q in zip(a, b))


def test_eight_iterations_give_the_golden_weights(three):
    number = three["9999"].run(*job(max_iter=8), seconds=120)
    g, w = summaries(three, number)
    golden = {0: -.0311304561, 9: -.2528377446, 30: .5097870747, 10: -.0181881793,
              19: 1.4860218380, 29: -.2908181703}
    for i, v in golden.items():
        assert abs(w[i] - v) < 1e-6, i
    assert far(g["loss_history"][:6], LOSS) < 1e-6
    assert g["iterations"] == 8 and not g["is_converged"]
    _, x, y, _ = lr_reference.load(GUEST, HOST)
    assert far(w, lr_reference.train(x, y, "rmsprop", .15, .01, 8)[0]) < 1e-6


def test_okamoto_uchiyama_gives_the_same_model(three):
    number = three["9999"].run(*job(max_iter=3, encrypt_param={"method": "OU", "key_length": 1024}),
                               seconds=120)
    _, x, y, _ = lr_reference.load(GUEST, HOST)
    want, loss = lr_reference.train(x, y, "rmsprop", .15, .01, 3)
    g, w = summaries(three, number)
    assert far(w, want) < 1e-6 and far(g["loss_history"], loss) < 1e-6
    assert "replaced by Paillier" not in three["9999"].read("jobs", number, "events")


def test_a_key_of_another_scheme_is_refused(three):
    dsl, conf = job(max_iter=3)
    conf["component_parameters"]["role"]["arbiter"] = {
        "0": {"hetero_lr_0": {"encrypt_param": {"method": "OU", "key_length": 1024}}}}
    number = three["9999"].submit(dsl, conf)
    assert three["9999"].wait(number, 120) == "failed"
    # Who notices it first says it; the others are told where to look.
    errors = [three[p].error(number) for p in ("9999", "10000")]
    assert any("not of the scheme of encrypt_param/method" in e for e in errors), errors


@pytest.mark.numbers
def test_thirty_iterations_give_the_golden_loss_auc_and_ks(three):
    number = three["9999"].run(*job(max_iter=30), seconds=240)
    g, w = summaries(three, number)
    assert abs(g["loss_history"][-1] - .354564) < 1e-6
    m = auc(three, number)
    assert abs(m["auc"] - .987448) < 2e-5
    assert abs(m["ks"] - .905066) < 1e-6
    assert abs(m["ks_exact"] - .913469) < 1e-6
    ids, x, _, _ = lr_reference.load(GUEST, HOST)
    want = dict(zip(ids, lr_reference.score(x, w)))
    rows = list(csv.DictReader(three["9999"].read(
        "jobs", number, "guest/hetero_lr_0/out/data/data.csv").splitlines()))
    assert len(rows) == len(want)
    for r in rows:
        p = float(r["predict_score"])
        assert abs(p - want[r["id"]]) < 1e-9
        assert int(r["predict_result"]) == (p > .5) and r["type"] == "train"
        assert abs(json.loads(r["predict_detail"])["1"] - p) < 1e-12
    assert "iteration 3: loss 1.478556" in three["9999"].read("jobs", number, "log")


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam", "nesterov_momentum_sgd"])
def test_optimizers_follow_the_recurrence(three, optimizer):
    number = three["9999"].run(*job(max_iter=3, optimizer=optimizer), seconds=120)
    g, w = summaries(three, number)
    _, x, y, _ = lr_reference.load(GUEST, HOST)
    want, loss = lr_reference.train(x, y, optimizer, .15, .01, 3)
    assert far(w, want) < 1e-6 and far(g["loss_history"], loss) < 1e-6
    if optimizer == "sgd":
        # Golden: the loss, guest x0..x2 and the intercept.
        assert far(g["loss_history"][::2], [.69314718, .41521645]) < 1e-5
        assert far(w[:3] + w[30:], [-.09080283, -.05777293, -.09077630, .04245942]) < 1e-5


def test_penalty_l1_follows_the_recurrence(three):
    number = three["9999"].run(*job(max_iter=3, penalty="L1"), seconds=120)
    _, x, y, _ = lr_reference.load(GUEST, HOST)
    want, _ = lr_reference.train(x, y, "rmsprop", .15, .01, 3, "L1")
    assert far(summaries(three, number)[1], want) < 1e-6


@pytest.mark.numbers
def test_masked_minibatches_reach_the_expected_auc(three):
    number = three["9999"].run(*job(max_iter=30, batch_size=320, tol=1e-4), seconds=300)
    assert "1024" in three["9999"].read("jobs", number, "events")
    assert auc(three, number)["auc"] >= .983


def test_more_than_one_host(sandboxes):
    s = sandboxes("9999", "10000", "10001", "10002")
    with open(HOST, encoding="utf-8", newline="") as f:
        rows = list(csv.reader(f))
    for party, cut in (("10000", slice(1, 13)), ("10002", slice(13, 21))):
        names = ["x%d" % i for i in range(len(rows[0][cut]))]
        lines = [["id"] + names] + [[r[0]] + r[cut] for r in rows[1:]]
        s[party].upload("experiment", "breast_host", "".join(",".join(x) + "\n" for x in lines))
    s["9999"].upload_file("experiment", "breast_guest", GUEST)

    def two_hosts(**params):
        dsl, conf = job(**params)
        conf["role"]["host"] = [10000, 10002]
        role = conf["component_parameters"]["role"]
        role["host"] = {"0|1": next(iter(role["host"].values()))}
        return dsl, conf

    with pytest.raises(Refused) as e:
        s["9999"].submit(*two_hosts())
    assert "early_stop" in e.value.text
    number = s["9999"].run(*two_hosts(max_iter=4, early_stop="weight_diff"), seconds=120)
    _, w = summaries(s, number, ("10000", "10002"))
    _, x, y, _ = lr_reference.load(GUEST, HOST)
    assert far(w, lr_reference.train(x, y, "rmsprop", .15, .01, 4)[0]) < 1e-6
