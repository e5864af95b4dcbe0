# SPDX-License-Identifier: Apache-2.0
"""The life of a model as the scheduler sees it: kept at the end of a training,
deployed, used by predict jobs, loaded and inherited by other jobs."""
import csv
import json
import os
import subprocess
import time

import pytest
from conftest import SLOW, Refused, eventually, read_json
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
    return deploy(three, trained, "data_transform_0 intersection_0 hetero_lr_0")


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
                "input": {"data": {"data": ["data_transform_0.data"]}}},
            "hetero_lr_0": {
                "module": "HeteroLR", "output": {"data": ["data"]},
                "input": {"data": {"test_data": ["intersection_0.data"]},
                          "model": ["pipeline.hetero_lr_0.model"]}}}}
    assert sorted(os.listdir(store(three[9999], deployed, "guest-9999"))) == \
        ["data_transform_0", "hetero_lr_0"]


def scores(p, job):
    with open(p.path(os.path.realpath(p.path("jobs", job, "guest/hetero_lr_0/out/data")),
                     "data.csv"), encoding="utf-8") as f:
        return [{k: r[k] for k in ("id", "predict_score")} for r in csv.DictReader(f)]


def test_a_predict_job_says_what_the_training_said(three, trained, deployed):
    conf = predict_conf(three, deployed)
    assert "arbiter" not in conf["role"]
    p = three[9999]
    start = time.monotonic()
    job = p.submit_text(json.dumps(conf))
    assert p.wait(job, 60) == "success", p.error(job)
    print("predicted in %.3f s" % (time.monotonic() - start))
    assert scores(p, job) == scores(p, trained)
    assert not os.path.exists(store(p, job)) # a predict job trains nothing
    ctl(p, job, "rerun force")
    assert p.wait(job, 60) == "success", p.error(job)


def test_a_dsl_beside_the_conf_is_not_used(three, deployed):
    dsl, _ = breast()
    p = three[9999]
    job = p.submit_text(json.dumps(dsl) + json.dumps(predict_conf(three, deployed)))
    assert "dsl#: not used (a predict job runs the DSL of its model)" in \
        p.read("jobs", job, "events")
    assert p.wait(job, 60) == "success", p.error(job)


def refused(p, text):
    with pytest.raises(Refused) as e:
        p.submit_text(text if isinstance(text, str) else json.dumps(text))
    return e.value.text


def test_a_trained_version_says_how_to_deploy_it(three, trained, deployed):
    conf = predict_conf(three, deployed)
    job = conf["job_parameters"]["common"]
    job["model_version"] = trained
    assert deployed in refused(three[9999], conf)
    job["model_version"] = deployed[:-1] + "8"
    assert "did you mean %s?" % deployed in refused(three[9999], conf)
    job["model_id"] = ID.replace("9999", "9998")
    assert "did you mean %s?" % ID in refused(three[9999], conf)
    del job["model_version"]
    assert "conf#/job_parameters/common/model_version: a predict job needs it" in \
        refused(three[9999], conf)


def test_scores_are_hidden_with_the_arbiter(three, trained, deployed):
    conf = predict_conf(three, deployed)
    common = conf["component_parameters"]["common"] = {
        "hetero_lr_0": {"predict_param": {"hide_scores": True}}}
    p = three[9999]
    assert "conf#/role: no arbiter, which HeteroLR (hetero_lr_0) needs" in refused(p, conf)
    conf["role"]["arbiter"] = [10001]
    job = p.submit_text(json.dumps(conf))
    assert p.wait(job, 60) == "success", p.error(job)
    for a, b in zip(scores(p, job), scores(p, trained)):
        assert a["id"] == b["id"]
        assert float(a["predict_score"]) == pytest.approx(float(b["predict_score"]), abs=.006)
    assert os.path.exists(three[10001].path("jobs", job, "arbiter/hetero_lr_0"))
    conf["component_parameters"]["role"]["guest"]["0"]["hetero_lr_0"] = common.pop("hetero_lr_0")
    assert "hetero_lr_0/predict_param/hide_scores: must be the same for all parties" in \
        refused(p, conf)


def test_an_arbiter_that_is_not_needed_has_no_task(three, trained, deployed):
    conf = predict_conf(three, deployed)
    conf["role"]["arbiter"] = ["10001"]
    p = three[9999]
    job = p.submit_text(json.dumps(conf))
    assert p.wait(job, 60) == "success", p.error(job)
    assert scores(p, job) == scores(p, trained)
    assert not os.path.exists(three[10001].path("jobs", job, "arbiter"))


def test_predict_jobs_need_their_tables_and_parties(three, deployed):
    conf = predict_conf(three, deployed)
    del conf["component_parameters"]["role"]["host"]
    assert ("conf#/component_parameters/role/host/0/reader_0: the parameter table is needed\n"
            in refused(three[9999], conf))
    conf = predict_conf(three, deployed)
    conf["role"]["host"] = [10001]
    del conf["component_parameters"]["role"]["host"]
    assert "not the parties of the training" in refused(three[9999], conf)


def test_a_partner_predicts_with_nothing(three, deployed):
    conf = predict_conf(three, deployed)
    conf["initiator"] = {"role": "host", "party_id": 10000}
    text = refused(three[10000], conf)
    assert "only the initiator of the training may use the model" in text
    assert "party 9999 has no such model of yours, or does not allow it" in text


def test_a_changed_part_is_refused(three, deployed):
    p = three[10000]
    path = store(p, deployed, "host-10000", "data_transform_0", "param.json")
    text = open(path).read()
    os.rename(path, path + ".was")
    try:
        with open(path, "w") as f:
            f.write(text.replace("0", "1", 1))
        said = refused(three[9999], predict_conf(three, deployed))
        assert "party 10000 has a part of this model that was changed or damaged" in said
    finally:
        os.rename(path + ".was", path)


@pytest.mark.parametrize("words, said", [
    ("data_transform_1", 'no component "data_transform_1" (did you mean data_transform_0?)'),
    ("data_transform_0:checkpoint-3", "data_transform_0 has no checkpoint 3, nor any other"),
    ("data_transform_0:best", "expected data_transform_0:checkpoint-NUMBER"),
    ("data_transform_0 data_transform_0", "is named twice"),
    ("dsl", "write predict/dsl.json first"),
    ('dsl {"components": {"a": {"module": "Reder"}}}', "did you mean Reader?"),
])
def test_what_cannot_be_deployed(three, trained, words, said):
    before = versions(three[9999])
    with pytest.raises(OSError):
        ctl(three[9999], trained, "deploy " + words)
    assert said in three[9999].read("errors").split("\n\n")[0]
    for p in three.parties.values():
        assert versions(p) == before or p.id != "9999"
        assert not [x for x in os.listdir(os.path.dirname(store(p))) if x.startswith(".new")]


def test_only_the_initiator_deploys(three, trained):
    with pytest.raises(PermissionError):
        ctl(three[10000], trained, "deploy")
    assert "party 9999 (guest)" in three[10000].read("errors")


def test_an_own_predict_dsl(three, trained):
    dsl = {"components": {
        "reader_0": {"module": "Reader", "output": {"data": ["data"]}},
        "data_transform_0": {"module": "DataTransform", "output": {"data": ["data"]},
                             "input": {"data": {"data": ["reader_0.data"]},
                                       "model": ["pipeline.data_transform_0.model"]}}}}
    new = deploy(three, trained, "dsl " + json.dumps(dsl))
    assert read_json(store(three[10000], new, "predict", "dsl.json")) == dsl
    p = three[9999]
    job = p.submit_text(json.dumps(predict_conf(three, new)))
    assert p.wait(job) == "success", p.error(job)


def test_all_accept_or_nothing_stays(three, trained):
    away = store(three[10001], trained)
    os.rename(away, away + ".away")
    try:
        before = versions(three[9999])
        with pytest.raises(OSError):
            ctl(three[9999], trained, "deploy data_transform_0")
        assert "party 10001 has no such model of yours" in three[9999].read("errors")
        assert versions(three[9999]) == before
        assert versions(three[10000]) == before
    finally:
        os.rename(away + ".away", away)


def test_a_partner_that_is_away_is_named(three, trained):
    before = {q.id: versions(q) for q in three.parties.values()}
    three[10001].kill("rollfs")
    three[10001].kill("rollsite")
    try:
        start = time.monotonic()
        with pytest.raises(OSError):
            ctl(three[9999], trained, "deploy data_transform_0")
        assert time.monotonic() - start < 16 * SLOW + 60  # it does not hang
        assert "10001" in three[9999].read("errors").split("jobs/")[1]
    finally:
        three[10001].start()
    for q in three.parties.values():
        assert versions(q) == before[q.id]
        assert not [x for x in os.listdir(os.path.dirname(store(q))) if x.startswith(".new")]
    deploy(three, trained, "data_transform_0")


def test_the_model_outlives_its_job(three, deployed):
    dsl, conf = breast(max_iter=1)
    p = three[9999]
    job = p.run(dsl, quick_keys(conf))
    subprocess.run(["rm", "-r", p.path("jobs", job)], check=True)
    assert os.path.exists(store(p, job, "guest-9999", "hetero_lr_0", "param.json"))


def test_components_are_inherited(three, trained):
    dsl, conf = breast(max_iter=2)
    quick_keys(conf)
    conf["job_parameters"]["common"]["inheritance_info"] = {
        "job_id": trained,
        "component_list": ["reader_0", "data_transform_0", "intersection_0"]}
    p = three[9999]
    job = p.run(dsl, conf)
    for q in (p, three[10000]):
        assert "inherited from job " + trained in q.read("jobs", job, "events")
        role = "guest" if q is p else "host"
        assert q.read("jobs", job, role, "intersection_0/status") == "success\n"
        assert not os.path.exists(os.path.join(q.state, "jobs", job, role, "intersection_0/.task/0"))
        new = q.path("jobs", job, role, "intersection_0/out/data")
        old = q.path("jobs", trained, role, "intersection_0/out/data")
        assert q.read(new, "data.csv") == q.read(old, "data.csv")
    assert read_json(store(p, job, "info.json"))["components"].keys() == \
        {"data_transform_0", "hetero_lr_0"}
    subprocess.run(["rm", "-r", p.path("jobs", job)], check=True)
    assert p.read("jobs", trained, "guest/intersection_0/out/data/count")


@pytest.mark.parametrize("names, change, said", [
    (["intersection_0"], {}, "intersection_0 reads from data_transform_0, which is not in the list"),
    (["reader_0", "data_transform_0", "intersection_0"], {"random_bit": 64},
     "/2: its parameters are others than in the former job"),
    (["reader_9"], {}, "no such component in the DSL"),
])
def test_what_cannot_be_inherited(three, trained, names, change, said):
    dsl, conf = breast(max_iter=2)
    quick_keys(conf)
    conf["component_parameters"]["common"]["intersection_0"]["rsa_params"].update(change)
    conf["job_parameters"]["common"]["inheritance_info"] = {"job_id": trained,
                                                            "component_list": names}
    assert said in refused(three[9999], json.dumps(dsl) + json.dumps(conf))


def test_a_loaded_model_is_applied(three, trained):
    dsl, conf = breast()
    for name in ("hetero_lr_0", "evaluation_0", "intersection_0"):
        del dsl["components"][name]
        for part in (conf["component_parameters"]["common"],):
            part.pop(name, None)
    for section in conf["component_parameters"]["role"].values():
        for one in section.values():
            for name in ("hetero_lr_0", "evaluation_0", "intersection_0"):
                one.pop(name, None)
    dsl["components"]["model_loader_0"] = {"module": "ModelLoader", "output": {"model": ["model"]}}
    dsl["components"]["data_transform_0"]["input"]["model"] = ["model_loader_0.model"]
    conf["component_parameters"]["common"]["model_loader_0"] = load = {
        "model_id": ID, "model_version": trained, "component_name": "data_transform_0"}
    p = three[9999]
    job = p.run(dsl, conf)
    assert p.read_json("jobs", job, "guest/model_loader_0/model/model.json")["module"] == \
        "DataTransform"
    assert read_json(store(three[10000], job, "info.json"))["components"]["model_loader_0"] == \
        {"module": "DataTransform", "output": "model", "roles": ["host"]}
    load["component_name"] = "hetero_lr_0"
    text = json.dumps(dsl) + json.dumps(conf)
    assert "model_loader_0 loads a model of HeteroLR, not of DataTransform" in refused(p, text)
    load["component_name"] = "hetero_lr_1"
    assert "did you mean hetero_lr_0?" in refused(p, json.dumps(dsl) + json.dumps(conf))


# ---- ends in the midst -----------------------------------------------------------


def lr_checkpoints(iterations=4, **job):
    dsl, conf = breast(max_iter=iterations, tol=1e-30,
                       callback_param={"callbacks": ["ModelCheckpoint"]})
    conf["job_parameters"]["common"].update(job)
    return dsl, quick_keys(conf)


def test_a_checkpoint_is_deployed_in_place_of_the_model(three):
    p = three[9999]
    job = p.run(*lr_checkpoints())
    steps = os.listdir(store(p, job, "guest-9999/hetero_lr_0/checkpoints"))
    assert len(steps) >= 3
    with pytest.raises(OSError):
        ctl(p, job, "deploy hetero_lr_0:checkpoint-9")
    assert "no checkpoint 9, but 4 from 0 to 3" in p.read("errors").split("\n\n")[0]
    assert "state" not in p.read(store(p, job, "guest-9999/hetero_lr_0/checkpoints", steps[0],
                                       "param.json"))
    new = deploy(three, job, "data_transform_0 hetero_lr_0:checkpoint-%s" % min(steps))
    for q, part in ((p, "guest-9999"), (three[10000], "host-10000")):
        assert read_json(store(q, new, part, "hetero_lr_0/param.json")) == \
            read_json(store(q, job, part, "hetero_lr_0/checkpoints", min(steps), "param.json"))
        assert sorted(os.listdir(store(q, new, part, "hetero_lr_0"))) == \
            ["meta.json", "param.json"]
    assert read_json(store(p, new, "info.json"))["components"]["hetero_lr_0"]["checkpoint"] == \
        int(min(steps))


def test_a_forced_rerun_begins_without_the_checkpoints(three):
    p = three[9999]
    job = p.run(*lr_checkpoints())
    before = read_json(store(p, job, "guest-9999/hetero_lr_0/param.json"))
    marks = [os.path.join(q.state, "jobs", job, role, "hetero_lr_0/checkpoints/mark")
             for q, role in ((p, "guest"), (three[10000], "host"))]
    for mark in marks:
        with open(mark, "w", encoding="utf-8"):
            pass
    ctl(p, job, "rerun hetero_lr_0 force")
    assert p.wait(job) == "success", p.error(job)
    for mark in marks:
        assert not os.path.exists(mark) and os.listdir(os.path.dirname(mark))
    assert read_json(store(p, job, "guest-9999/hetero_lr_0/param.json")) == before


def test_a_version_that_a_job_uses_is_not_removed(three, trained):
    new = deploy(three, trained, "data_transform_0 intersection_0 hetero_lr_0")
    p = three[9999]
    job = p.submit_text(json.dumps(predict_conf(three, new)))
    r = subprocess.run(["rm", "-r", p.path("models", ID, new)], capture_output=True, text=True)
    assert r.returncode and "busy" in r.stderr, r.stderr
    assert p.wait(job) == "success", p.error(job)
    subprocess.run(["rm", "-r", p.path("models", ID, new)], check=True)
    assert new not in versions(p)
    assert new in versions(three[10000])


def test_a_model_that_has_gone_is_not_left_out(three, trained):
    new = deploy(three, trained, "data_transform_0 intersection_0")
    p = three[9999]
    job = p.submit_text(json.dumps(predict_conf(three, new)))
    assert p.wait(job) == "success", p.error(job)
    subprocess.run(["rm", "-r", three[10000].path("models", ID, new)], check=True)
    ctl(p, job, "rerun force")
    assert p.wait(job) == "failed" # and does not fit anew
    assert "the task could not be started" in p.error(job)
    assert "no info.json in model" in three[10000].error(job)


def test_nobody_makes_a_version_in_the_name_of_another(three, trained):
    """A partner's own training with our version's number does not replace it."""
    before = three[10000].read(store(three[10000], trained, "info.json"))
    dsl, conf = breast(max_iter=1)
    conf["initiator"] = {"role": "host", "party_id": 10000}
    job = three[10000].run(dsl, quick_keys(conf))
    path = store(three[9999], job, "info.json")
    info = read_json(path)
    assert info["initiator"]["party"] == "10000"
    info["initiator"] = {"role": "guest", "party": "9999"} # as if it were ours
    os.unlink(path)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(info, f)
    ctl(three[10000], job, "rerun hetero_lr_0 force")
    assert three[10000].wait(job) == "success"
    eventually(lambda: "the model was not kept: the store has another version" in
               three[9999].error(job), 10)
    assert read_json(path) == info
    assert three[10000].read(store(three[10000], trained, "info.json")) == before


def test_a_failed_job_leaves_what_had_succeeded(three):
    p = three[9999]
    job = p.submit(*lr_checkpoints(10000))
    log = os.path.join(p.state, "jobs", job, "guest/hetero_lr_0/log")
    eventually(lambda: os.path.exists(log) and "iteration" in open(log).read(), 60)
    os.kill(three[10000].pid("rollfs-task"), 9)
    assert p.wait(job) == "failed"
    for q in three.parties.values():
        eventually(lambda q=q: os.path.exists(store(q, job, "info.json")))
    info = read_json(store(p, job, "info.json"))
    assert info["status"] == "failed" and list(info["components"]) == ["data_transform_0"]
    with pytest.raises(OSError):
        ctl(p, job, "deploy")
    assert "this version has no model of hetero_lr_0" in p.read("errors")
    deploy(three, job, "data_transform_0 intersection_0")


@pytest.mark.parametrize("party", ["9999", "10000"])
def test_a_kill_at_the_end_loses_no_model(three, party):
    p = three[9999]
    for _ in range(3):
        job = p.submit(*lr_checkpoints(1))
        events = os.path.join(three[party].state, "jobs", job, "events")
        what = "hetero_lr_0 %s-%s success" % ("guest" if party == "9999" else "host", party)
        eventually(lambda: os.path.exists(events) and what in open(events).read(), 60, every=.001)
        three[party].kill("rollfs")
        three[party].start()
        assert p.wait(job, 60) == "success", p.error(job)
        for q in three.parties.values():
            eventually(lambda: q.status(job) == "success", 20)
            assert os.path.exists(store(q, job, "info.json")), q.id
            assert not [x for x in os.listdir(os.path.dirname(store(q))) if x.startswith(".new")]


def test_rows_are_handed_on_by_any_module(three):
    dsl, conf = breast()
    for name in ("hetero_lr_0", "evaluation_0"):
        del dsl["components"][name]
        conf["component_parameters"]["common"].pop(name, None)
        for section in conf["component_parameters"]["role"].values():
            for one in section.values():
                one.pop(name, None)
    conf["component_parameters"]["common"].setdefault("intersection_0", {})["need_run"] = False
    p = three[9999]
    job = p.run(dsl, conf)
    for q, role in ((p, "guest"), (three[10000], "host")):
        assert q.read("jobs", job, role, "intersection_0/status") == "pass\n"
        assert q.read(q.path("jobs", job, role, "intersection_0/out/data"), "count") == \
            q.read(q.path("jobs", job, role, "data_transform_0/out/data"), "count")
