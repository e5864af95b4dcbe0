# SPDX-License-Identifier: Apache-2.0
"""The life of a model as the scheduler sees it: kept at the end of a training,
deployed, used by predict jobs, loaded and inherited by other jobs."""
import json
import os
import time

import pytest
from conftest import Refused, eventually, read_json
from test_jobs import breast, quick_keys

ID = "arbiter-10001#guest-9999#host-10000#model"


def store(p, *path):
    return os.path.join(p.state, "models", ID, *path)


@pytest.fixture(scope="module")
def trained(three):
    dsl, conf = breast(max_iter=3)
    return three[9999].run(dsl, quick_keys(conf))


def test_a_training_leaves_a_version_at_every_party(three, trained):
    for p in three.parties.values():
        info = read_json(store(p, trained, "info.json"))
        assert info["model_id"] == ID and info["model_version"] == trained
        assert info["party"] == p.id and info["status"] == "success"
        assert info["initiator"] == {"role": "guest", "party": "9999"}
    assert not os.path.exists(store(three[9999], trained, "host-10000"))


def ctl(p, job, line):
    with open(p.path("jobs", job, "ctl"), "w", encoding="utf-8") as f:
        f.write(line + "\n")


def versions(p):
    return sorted(v for v in os.listdir(store(p)) if os.path.exists(store(p, v, "info.json")))


def deploy(s, job, words=""):
    before = versions(s[9999])
    ctl(s[9999], job, "deploy " + words)
    new = [v for v in versions(s[9999]) if v not in before]
    assert len(new) == 1
    return new[0]


@pytest.fixture(scope="module")
def deployed(three, trained):
    return deploy(three, trained, "data_transform_0 intersection_0")


def predict_conf(s, version):
    conf = read_json(store(s[9999], version, "predict", "conf.template.json"))
    for role, ns in (("guest", "breast_guest"), ("host", "breast_host")):
        conf["component_parameters"]["role"][role]["0"]["reader_0"]["table"] = {
            "namespace": "experiment", "name": ns}
    return conf


def test_a_deployed_version_is_at_every_party(three, trained, deployed):
    for p in three.parties.values():
        info = read_json(store(p, deployed, "info.json"))
        assert info["parent"] == trained and info["deployed"] is True
        dsl = read_json(store(p, deployed, "predict", "dsl.json"))
        assert dsl == {"components": {
            "reader_0": {"module": "Reader", "output": {"data": ["data"]}},
            "data_transform_0": {
                "module": "DataTransform", "output": {"data": ["data"]},
                "input": {"data": {"data": ["reader_0.data"]},
                          "model": ["pipeline.data_transform_0.model"]}},
            "intersection_0": {
                "module": "Intersection", "output": {"data": ["data"]},
                "input": {"data": {"data": ["data_transform_0.data"]}}}}}
    lr = store(three[9999], deployed, "guest-9999")
    assert os.listdir(lr) == ["data_transform_0"]


def test_a_predict_job_runs_it(three, deployed):
    conf = predict_conf(three, deployed)
    assert "arbiter" not in conf["role"]
    p = three[9999]
    start = time.monotonic()
    job = p.submit_text(json.dumps(conf))
    assert p.wait(job, 60) == "success", p.error(job)
    print("predicted in %.3f s" % (time.monotonic() - start))
    assert os.path.exists(p.path("jobs", job, "guest/data_transform_0/out/data"))
    assert "data_transform_0" in str(read_json(p.path("jobs", job, "dsl.json")))
