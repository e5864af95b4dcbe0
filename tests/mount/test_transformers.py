# SPDX-License-Identifier: Apache-2.0
"""FeatureScale, LabelTransform, HeteroDataSplit, FederatedSample, SampleWeight and Union between
real parties, against the same done with numpy here."""
import csv
import hashlib
import json
import math
import os
import random
import struct

import numpy as np
import pytest
from conftest import Refused

ROWS, COMMON = 330, 300
SPLIT = {"random_state": 7, "train_size": .6, "validate_size": .2, "test_size": .2, "stratified": True}


# ---- the same in numpy

class Seed:
    """The two sources of components/math/sampling.h: numpy's RandomState, or a key."""

    def __init__(self, seed=None, key=None, stage=0):
        self.mt = None if seed is None else np.random.RandomState(seed)
        self.key, self.stage, self.block, self.words = key, stage, 0, []

    def upto(self, most):
        if most == 0:
            return 0
        mask = (1 << int(most).bit_length()) - 1
        while True:
            if not self.words:
                text = self.key + struct.pack("<IQ", self.stage, self.block)
                self.words = list(struct.unpack("<8I", hashlib.sha256(text).digest()))
                self.block += 1
            v = self.words.pop(0) & mask
            if v <= most:
                return v

    def shuffle(self, v):
        if self.mt is not None:
            self.mt.shuffle(v)
            return
        for i in range(len(v) - 1, 0, -1):
            k = self.upto(i)
            v[i], v[k] = v[k], v[i]

    def permutation(self, n):
        v = list(range(n))
        self.shuffle(v)
        return v


def likely(counts, draws, rng):
    """scikit-learn's _approximate_mode"""
    x = np.array(counts) / np.sum(counts) * draws if sum(counts) else np.zeros(len(counts))
    out = np.floor(x)
    need, rest = int(draws - out.sum()), x - out
    for value in np.sort(np.unique(rest))[::-1]:
        if need <= 0:
            break
        (at,) = np.where(rest == value)
        for i in rng.permutation(len(at))[:min(len(at), need)]:
            out[at[i]] += 1
        need -= min(len(at), need)
    return [int(v) for v in out]


def split(ids, first, labels, rng):
    """StratifiedShuffleSplit: (train, test)"""
    classes = sorted({labels[i] for i in ids})
    groups = [[i for i in ids if labels[i] == c] for c in classes]
    front = likely([len(g) for g in groups], first, rng)
    likely([len(g) - f for g, f in zip(groups, front)], len(ids) - first, rng)
    train, test = [], []
    for g, f in zip(groups, front):
        p = rng.permutation(len(g))
        train += [g[i] for i in p[:f]]
        test += [g[i] for i in p[f:]]
    rng.shuffle(train)
    rng.shuffle(test)
    return train, test


def rows_key(keys, cells, seed):
    """rows_key(): of the whole table; a cell is an int or a float."""
    h = hashlib.sha256()
    for k, row in zip(keys, cells):
        h.update(struct.pack("<I", len(k)) + k.encode())
        for v in row:
            h.update(struct.pack("<q" if isinstance(v, int) else "<d", v))
    return hashlib.sha256(b"rollfs rows 1\0" + h.digest() + struct.pack("<Q", seed)).digest()


# ---- the job

def person(i):
    return "person-%05d@example.org" % i


def tables():
    rng = random.Random(4)
    words = {}
    guest, host = ["id,y,g0,g1"], ["id,h0"]
    for i in range(ROWS):
        words[person(i)] = rng.choice(["benign", "benign", "malignant"])
        guest.append("%s,%s,%r,%r" % (person(i), words[person(i)], rng.gauss(5, 3),
                                      rng.uniform(-9, 9)))
    for i in range(ROWS - COMMON, 2 * ROWS - COMMON):
        host.append("%s,%r" % (person(i), rng.gauss(0, 40)))
    return words, "\n".join(guest) + "\n", "\n".join(host) + "\n"


def component(module, data, outputs=("data",), model=None, keep=False):
    out = {"module": module, "output": {"data": list(outputs)}}
    if data:
        out["input"] = {"data": data if isinstance(data, dict) else {"data": data}}
    if model:
        out["input"]["model"] = [model]
    if keep:
        out["output"]["model"] = ["model"]
    return out


def job():
    parts = ("train_data", "validate_data", "test_data")
    dsl = {"components": {
        "reader_0": component("Reader", None),
        "data_transform_0": component("DataTransform", ["reader_0.data"], keep=True),
        "intersection_0": component("Intersection", ["data_transform_0.data"]),
        "label_transform_0": component("LabelTransform", ["intersection_0.data"], keep=True),
        "feature_scale_0": component("FeatureScale", ["label_transform_0.data"], keep=True),
        "feature_scale_1": component("FeatureScale", ["label_transform_0.data"],
                                     model="feature_scale_0.model"),
        "hetero_data_split_0": component("HeteroDataSplit", ["feature_scale_0.data"], parts),
        "union_0": component("Union", ["hetero_data_split_0." + p for p in parts]),
        "federated_sample_0": component("FederatedSample", ["hetero_data_split_0.validate_data"]),
        "federated_sample_1": component("FederatedSample", ["hetero_data_split_0.train_data"]),
        "sample_weight_0": component("SampleWeight", ["hetero_data_split_0.test_data"], keep=True),
        "federated_sample_2": component("FederatedSample", ["sample_weight_0.data"]),
        "hetero_lr_0": component("HeteroLR", {"train_data": ["hetero_data_split_0.train_data"]},
                                 keep=True),
        "label_transform_1": component("LabelTransform", ["hetero_lr_0.data"],
                                       model="label_transform_0.model")}}

    def read(name):
        return {"table": {"namespace": "experiment", "name": name}}

    conf = {
        "dsl_version": 2, "initiator": {"role": "guest", "party_id": 9999},
        "role": {"guest": [9999], "host": [10000], "arbiter": [10001]},
        "job_parameters": {"common": {"task_cores": 1}},
        "component_parameters": {
            "common": {
                "intersection_0": {"intersect_method": "ecdh"},
                "feature_scale_0": {"method": "min_max_scale", "mode": "cap", "feat_lower": .05,
                                    "feat_upper": .95},
                "hetero_data_split_0": SPLIT,
                "federated_sample_0": {"method": "upsample", "fractions": 1.5, "random_state": 11},
                "federated_sample_1": {"mode": "stratified", "fractions": [[0, .5], [1, 1]],
                                       "random_state": 11},
                "sample_weight_0": {"class_weight": {"0": 1, "1": 2.5}},
                "federated_sample_2": {"mode": "exact_by_weight"},
                "hetero_lr_0": {"max_iter": 2, "encrypt_param": {"key_length": 1024}}},
            "role": {
                "guest": {"0": {"reader_0": read("guest"),
                                "data_transform_0": {"with_label": True, "label_type": "str"}}},
                "host": {"0": {"reader_0": read("host")}}}}}
    return dsl, conf


@pytest.fixture(scope="module")
def done(sandboxes, tmp_path_factory):
    d = tmp_path_factory.mktemp("wire")
    s = sandboxes("9999", "10000", "10001", ROLLFS_HOOK_WIRE=d)
    s.words, guest, host = tables()
    s.raw = {"guest": guest, "host": host}
    s[9999].upload("experiment", "guest", guest)
    s[10000].upload("experiment", "host", host)
    s.job = s[9999].run(*job(), seconds=120)
    s.wire = b"".join((d / n).read_bytes() for n in os.listdir(d))
    return s


def output(s, role, name, what="data"):
    """{id: {column: text}} in the order of the table"""
    text = s["9999" if role == "guest" else "10000"].read(
        "jobs", s.job, role, name, "out", what, "data.csv")
    return {r["id"]: r for r in csv.DictReader(text.splitlines())}


def summary(s, role, name):
    return s["9999" if role == "guest" else "10000"].read_json(
        "jobs", s.job, role, name, "summary.json")


def raw(s, role):
    return {r["id"]: r for r in csv.DictReader(s.raw[role].splitlines())}


def test_labels_are_the_numbers_of_their_words(done):
    got = output(done, "guest", "label_transform_0")
    assert len(got) == COMMON
    for i, r in got.items():
        assert r["y"] == {"benign": "0", "malignant": "1"}[done.words[i]]
    assert output(done, "host", "label_transform_0") == output(done, "host", "intersection_0")


@pytest.mark.parametrize("role,columns", [("guest", ("g0", "g1")), ("host", ("h0",))])
def test_features_are_scaled_between_their_quantiles(done, role, columns):
    got, before = output(done, role, "feature_scale_0"), raw(done, role)
    for c in columns:
        x = np.array([float(before[i][c]) for i in got])
        low, high = (np.sort(x)[math.ceil(q * len(x)) - 1] for q in (.05, .95))
        want = (np.clip(x, low, high) - low) / (high - low)
        assert np.abs(want - [float(r[c]) for r in got.values()]).max() < 1e-12
    assert output(done, role, "feature_scale_1") == got


def test_the_split_is_the_same_at_both_and_stratified(done):
    table = output(done, "guest", "feature_scale_0")
    keys = list(table)
    assert keys == sorted(keys)
    labels = [int(r["y"]) for r in table.values()]
    key = rows_key(keys, [(int(r["y"]), float(r["g0"]), float(r["g1"])) for r in table.values()],
                   SPLIT["random_state"])
    train, rest = split(list(range(COMMON)), COMMON * 6 // 10, labels, Seed(key=key))
    validate, test = split(rest, COMMON * 2 // 10, labels, Seed(key=key, stage=1))
    for name, rows in (("train_data", train), ("validate_data", validate), ("test_data", test)):
        want = [keys[i] for i in sorted(rows)]
        for role in ("guest", "host"):
            assert list(output(done, role, "hetero_data_split_0", name)) == want
    s = summary(done, "guest", "hetero_data_split_0")
    assert (s["train_count"], s["validate_count"], s["test_count"]) == (180, 60, 60)
    share = sum(labels) / COMMON
    for part, rows in (("train", train), ("validate", validate), ("test", test)):
        got = s["labels"][part]["1"]
        assert got["count"] == sum(labels[i] for i in rows)
        assert abs(got["share"] - share) < 1.01 / len(rows)
    assert "labels" not in summary(done, "host", "hetero_data_split_0")


def test_the_union_of_the_parts_is_the_table(done):
    for role in ("guest", "host"):
        assert output(done, role, "union_0") == output(done, role, "feature_scale_0")
        assert summary(done, role, "union_0")["inputs"] == {
            "hetero_data_split_0": 180, "hetero_data_split_0.1": 60, "hetero_data_split_0.2": 60}


def test_upsampled_rows_are_those_that_randint_draws(done):
    drawn = np.random.RandomState(11).randint(0, 60, size=90)
    for role in ("guest", "host"):
        before = output(done, role, "hetero_data_split_0", "validate_data")
        after = output(done, role, "federated_sample_0")
        keys = list(before)
        assert len(after) == 90
        for k, r in after.items():
            assert {**r, "id": ""} == {**before[keys[drawn[int(k)]]], "id": ""}


def test_classes_are_downsampled_by_their_shares(done):
    before = output(done, "guest", "hetero_data_split_0", "train_data")
    after = output(done, "guest", "federated_sample_1")
    ones = {i for i, r in before.items() if r["y"] == "1"}
    assert {i for i, r in after.items() if r["y"] == "1"} == ones
    assert len(after) == len(ones) + (180 - len(ones)) // 2
    host = output(done, "host", "federated_sample_1")
    assert list(host) == list(after)
    all_host = output(done, "host", "feature_scale_0")
    assert all(all_host[i] == r for i, r in host.items())


def test_weights_by_class_become_copies(done):
    before = output(done, "guest", "hetero_data_split_0", "test_data")
    weighed = output(done, "guest", "sample_weight_0")
    assert {i: float(r.pop("weight")) for i, r in weighed.items()} == \
        {i: 2.5 if r["y"] == "1" else 1 for i, r in before.items()}
    assert weighed == before
    schema = done[9999].read_json("jobs", done.job, "guest/sample_weight_0/out/data/schema.json")
    assert schema["weight"] == "weight"
    host = output(done, "host", "hetero_data_split_0", "test_data")
    assert output(done, "host", "sample_weight_0") == host
    copies = output(done, "guest", "federated_sample_2")
    copies_host = output(done, "host", "federated_sample_2")
    assert list(copies) == list(copies_host) and all(len(k) == 36 for k in copies)
    pairs = {(r["g0"], host[i]["h0"]): 3 if r["y"] == "1" else 1 for i, r in before.items()}
    got = {}
    for k, r in copies.items():
        assert "weight" not in r
        pair = (r["g0"], copies_host[k]["h0"])
        got[pair] = got.get(pair, 0) + 1
    assert got == pairs


def test_predictions_get_their_words_back(done):
    before = output(done, "guest", "hetero_lr_0")
    after = output(done, "guest", "label_transform_1")
    assert len(after) == 180
    for i, r in after.items():
        assert r["label"] == done.words[i]
        assert r["predict_result"] == ["benign", "malignant"][int(before[i]["predict_result"])]
        assert r["predict_score"] == before[i]["predict_score"]
        d = json.loads(r["predict_detail"])
        assert d["malignant"] == json.loads(before[i]["predict_detail"])["1"] and len(d) == 2


def test_only_row_numbers_cross(done):
    keys = list(output(done, "guest", "feature_scale_0"))
    train = output(done, "guest", "hetero_data_split_0", "train_data")
    numbers = [i for i, k in enumerate(keys) if k in train]
    assert struct.pack("<%dI" % len(numbers), *numbers) in done.wire
    assert b"example.org" not in done.wire
    # FATE's predictions tell the guest x.w of the host, no feature.
    for role, columns in (("guest", ("g0", "g1")), ("host", ("h0",))):
        for rows in (raw(done, role), output(done, role, "feature_scale_0")):
            for r in rows.values():
                for v in (float(r[c]) for c in columns):
                    if v not in (0, 1): # the bounds of the scale
                        assert struct.pack("<d", v) not in done.wire
                        assert struct.pack(">d", v) not in done.wire
    assert b"malignant" not in done.wire and b"benign" not in done.wire
    labels = [int(r["y"]) for r in output(done, "guest", "feature_scale_0").values()]
    for y in (labels, [labels[i] for i in numbers]):
        for code in "bhiqdf":
            for end in "<>":
                assert struct.pack(end + "40" + code, *y[50:90]) not in done.wire
    assert not any(k.encode() in done.wire for k in output(done, "guest", "federated_sample_2"))


def test_deployed_transformers_prepare_new_rows(done):
    """Rows without labels, columns in another order, get the scores of the training."""
    guest = [[r["g1"], i, r["g0"]] for i, r in raw(done, "guest").items()]
    text = "id,g1,g0\n" + "".join("%s,%s,%s\n" % (i, b, a) for b, i, a in guest)
    done[9999].upload("experiment", "new", text)
    done[10000].upload("experiment", "new", done.raw["host"])
    model = {"model_id": "arbiter-10001#guest-9999#host-10000#model", "model_version": done.job}
    at = done[9999].path("models", model["model_id"], done.job)
    with open(at + "/ctl", "w", encoding="utf-8") as f:
        f.write("deploy data_transform_0 intersection_0 label_transform_0 feature_scale_0 "
                "hetero_lr_0 label_transform_1\n")
    model["model_version"] = os.path.basename(os.readlink(at + "/deployed"))
    table = {"reader_0": {"table": {"namespace": "experiment", "name": "new"}}}
    conf = {"dsl_version": 2, "initiator": {"role": "guest", "party_id": 9999},
            "role": {"guest": [9999], "host": [10000], "arbiter": [10001]},
            "job_parameters": {"common": dict(model, job_type="predict")},
            "component_parameters": {"role": {"guest": {"0": table}, "host": {"0": table}}}}
    job_id = done[9999].submit_text(json.dumps(conf))
    assert done[9999].wait(job_id, 60) == "success", done[9999].error(job_id)
    got = {r["id"]: r for r in csv.DictReader(done[9999].read(
        "jobs", job_id, "guest/label_transform_1/out/data/data.csv").splitlines())}
    assert len(got) == COMMON
    for i, r in output(done, "guest", "label_transform_1").items():
        assert got[i]["predict_score"] == r["predict_score"]
        assert got[i]["predict_result"] == r["predict_result"]
        assert got[i]["label"] == "" and got[i]["type"] == "predict"


def test_what_cannot_work_is_refused_with_a_sentence(done):
    dsl, conf = job()
    common = conf["component_parameters"]["common"]
    common["hetero_data_split_0"] = {"train_size": .8, "test_size": 100}
    common["federated_sample_0"] = {"method": "downsample", "fractions": 1.5}
    common["feature_scale_0"]["feat_lower"] = -3
    common["sample_weight_0"] = {"class_weight": "even"}
    with pytest.raises(Refused) as e:
        done[9999].submit(dsl, conf)
    for words in ("hetero_data_split_0/train_size: sizes are all shares",
                  "federated_sample_0/fractions: expected the share of rows to keep",
                  "feature_scale_0/feat_lower: with mode cap it is a quantile",
                  "sample_weight_0/class_weight: expected \"balanced\""):
        assert words in e.value.text
    assert e.value.text.count("hetero_data_split_0") == 1
