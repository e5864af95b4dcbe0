# SPDX-License-Identifier: Apache-2.0
"""The power goes while a model is trained, deployed, used, moved and removed; how it
is made to go stands in test_power_cut.py and powercut.py."""
import hashlib
import json
import os
import shutil
import time

from conftest import DATA, ENDED, eventually
from net import SOAK, labs
from powercut import WAYS, Recorder
from test_jobs import breast, quick_keys
from test_power_cut import (Steps, after_every_cut, at_every_cut, bytes_of, every, intersection,
                            stop_all)

_ = labs
ID = "guest-1#host-2#model"


def files_of(top):
    """Of a version as the mount shows it: {name: bytes}."""
    return {os.path.relpath(os.path.join(d, n), top): bytes_of(os.path.join(d, n))
            for d, _, names in os.walk(top) for n in names if n not in ("ctl", "deployed")}


def models(p):
    """{version: {name: bytes}} of those that are whole, as their info.json says."""
    seen = {}
    for m in os.listdir(p.path("models")):
        for v in os.listdir(p.path("models", m)):
            top = p.path("models", m, v)
            # Who asks for what is missing makes it a version when nothing is.
            if not os.path.exists(top + "/ctl") and os.path.exists(top + "/missing"):
                continue
            seen[v] = files_of(top)
            listed = json.loads(seen[v]["info.json"])["files"]
            assert set(seen[v]) - {"info.json", "predict/dsl.json"} == \
                set(listed) - {"predict/dsl.json"}, v
            for name, f in listed.items():
                assert hashlib.sha256(seen[v][name]).hexdigest() == f["sha256"], name
    return seen


def put(directory, name, data):
    f = os.path.join(directory, name)
    os.makedirs(os.path.dirname(f), exist_ok=True)
    with open(f, "wb") as out:
        out.write(data)


def test_models_that_are_brought_and_removed(labs):
    x = labs({"1": {}, "2": {}}).ready()
    p = x["1"]
    p.upload("experiment", "breast_guest", "id,y,x0\n1,0,2\n2,1,3\n")
    x["2"].upload("experiment", "breast_host", "id,h0\n1,4\n2,5\n")
    version = p.run(*intersection())
    x["2"].kill("rollfs")
    x["2"].kill("rollsite")
    top = p.path("models", ID, version)
    files = files_of(top)
    dsl = json.dumps({"components": {
        "reader_0": {"module": "Reader", "output": {"data": ["data"]}},
        "data_transform_0": {"module": "DataTransform", "output": {"data": ["data"]},
                             "input": {"data": {"data": ["reader_0.data"]},
                                       "model": ["pipeline.data_transform_0.model"]}}}}).encode()
    time.sleep(1)
    record = Recorder([p.pid("rollfs"), p.pid("rollsite")], [p.state],
                      os.path.join(x.dir, "record"))
    steps = Steps(p, models)
    own = "models/%s/%s/predict/dsl.json" % (ID, version)
    steps.put(own, dsl)
    steps.call(os.unlink, own)
    steps.call(shutil.rmtree, "models/%s/%s" % (ID, version))
    for name in files:
        put(top, name, files[name])
    steps.now("info.json comes first")
    steps.put("parties/2/allow", b"push *\n")  # so that there are cuts behind it
    steps.call(shutil.rmtree, "models/" + ID)
    put(top, "predict/dsl.json", dsl)
    for name in reversed(files):
        put(top, name, files[name])
    steps.now("info.json comes last")
    steps.put("parties/2/allow", b"# again\npush *\n")
    time.sleep(1)
    events = record.stop()
    p.kill("rollfs")
    p.kill("rollsite")
    record.check(events)
    assert [sorted(s) for s in steps.states] == \
        [[version]] * 3 + [[], [version], [version], [], [version], [version]]
    assert steps.states[1] == steps.states[-1]
    bad, n = after_every_cut(p, events, steps, record.disks()[0], WAYS, 23)
    print("%d states" % n)
    assert n > 300 and not bad, "\n".join(bad)


def two(x):
    """Parties 1 and 2 with the breast tables.  Leaks cannot be looked for in tasks that are
    traced."""
    env = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
    x = x({"1": {"env": env}, "2": {"env": env}}).ready()
    for p, role in (("1", "guest"), ("2", "host")):
        x[p].upload_file("experiment", "breast_" + role, DATA + "/breast_%s.csv" % role)
    return x


def ctl(p, job, line):
    with open(p.path("jobs", job, "ctl"), "w", encoding="utf-8") as f:
        f.write(line + "\n")


class Recording:
    """What both parties do from now on; answer() notes one, and until when."""

    def __init__(self, x):
        self.x, self.at = x, {}
        time.sleep(1)
        self.record = Recorder([x[p].pid(q) for p in "12" for q in ("rollfs", "rollsite")],
                               [x[p].state for p in "12"], os.path.join(x.dir, "record"))
        self.start = time.time()

    def answer(self, name):
        self.at[name] = time.time()

    def stop(self):
        time.sleep(1)
        self.events = self.record.stop()
        stop_all(self.x)
        self.record.check(self.events)

    def try_all(self, problem, one_of):
        return at_every_cut(self.x, self.record.disks(), self.events, self.start,
                            lambda at: sum(t <= at for t in self.at.values()), problem, one_of)

    def given(self, name, at):
        return self.at[name] <= at


def ended(p, job):
    eventually(lambda: p.status(job) in ENDED, 60)
    return p.status(job)


def again(p, job):
    """The job goes on and ends, at most with a rerun."""
    now = ended(p, job)
    if now == "success":
        return None
    reason = p.error(job)
    ctl(p, job, "rerun")
    then = ended(p, job)
    return None if then == "success" else "%s (%s), and again: %s (%s)" % (
        now, reason, then, p.error(job))


def test_a_training_leaves_its_models(labs):
    x = two(labs)
    dsl, conf = breast(max_iter=2, early_stop="weight_diff", callback_param={
        "callbacks": ["ModelCheckpoint"], "save_freq": 1})
    conf = json.loads(json.dumps(quick_keys(conf)).replace("9999", "1").replace(
        "10000", "2").replace("10001", "2"))
    del dsl["components"]["evaluation_0"], conf["component_parameters"]["common"]["evaluation_0"]
    r = Recording(x)
    job = x["1"].submit(dsl, conf)
    r.answer("accepted")
    assert x["1"].wait(job, 120) == "success", x["1"].error(job)
    r.answer("ended")
    eventually(lambda: x["2"].status(job) == "success", 10)
    want = [models(x[p]) for p in "12"]
    r.stop()
    assert [len(w[job]) for w in want] == [11, 11]

    def problem(at):
        if not os.path.exists(x["1"].path("jobs", job)):
            return "the job is lost" if r.given("accepted", at) else None
        if r.given("ended", at):
            if [models(x[p]) for p in "12"] != want or x["1"].status(job) != "success":
                return "it is not as it was"
        bad = again(x["1"], job)
        if bad:
            return bad
        eventually(lambda: x["2"].status(job) == "success", 20)
        for p, w in zip("12", want):
            if set(models(x[p])[job]) != set(w[job]):
                return "%s has %s" % (p, sorted(models(x[p])[job]))
        return None
    bad, n = r.try_all(problem, 61 if SOAK else every(2999))
    print("%d states" % n)
    assert n > 5000 and not bad, "\n".join(bad)


def deploy(x, trained):
    before = set(models(x["1"]))
    ctl(x["1"], trained, "deploy data_transform_0 intersection_0")
    return (set(models(x["1"])) - before).pop()


def test_a_deploy_is_at_both_or_at_none(labs):
    x = two(labs)
    trained = x["1"].run(*intersection())
    eventually(lambda: x["2"].status(trained) == "success", 10)
    r = Recording(x)
    version = deploy(x, trained)
    r.answer("deployed")
    made = [models(x[p]) for p in "12"]
    r.stop()

    def problem(at):
        now = [models(x[p]) for p in "12"]
        if r.given("deployed", at) and now != made:
            return "the deployed model is not as it was"
        if not all(trained in m for m in now):
            return "the trained model is lost"
        eventually(lambda: set(models(x["1"])) == set(models(x["2"])), 10)
        one = deploy(x, trained)
        return None if one in models(x["2"]) else "2 has no %s" % one
    bad, n = r.try_all(problem, every(97))
    print("%d states" % n)
    assert n > 1000 and not bad, "\n".join(bad)


def test_a_prediction_and_another_training(labs):
    x = two(labs)
    trained = x["1"].run(*intersection())
    eventually(lambda: x["2"].status(trained) == "success", 10)
    version = deploy(x, trained)

    def predict():
        conf = x["1"].read_json("models", ID, version, "predict/conf.template.json")
        for role, ns in (("guest", "breast_guest"), ("host", "breast_host")):
            conf["component_parameters"]["role"][role]["0"]["reader_0"]["table"] = {
                "namespace": "experiment", "name": ns}
        return x["1"].submit_text(json.dumps(conf))

    def rows(job):
        return x["1"].read("jobs", job, "guest/intersection_0/out/data/data.csv")
    r = Recording(x)
    job = predict()
    r.answer("accepted")
    assert x["1"].wait(job, 60) == "success", x["1"].error(job)
    r.answer("predicted")
    want = rows(job)
    ctl(x["1"], trained, "rerun force")
    assert x["1"].wait(trained, 60) == "success", x["1"].error(trained)
    r.answer("trained again")
    eventually(lambda: x["2"].status(trained) == "success", 10)
    r.stop()

    def problem(at):
        if not all(set(models(x[p])) == {trained, version} for p in "12"):
            return "%s" % [sorted(models(x[p])) for p in "12"]
        if not os.path.exists(x["1"].path("jobs", job)):
            return again(x["1"], predict()) if not r.given("accepted", at) else "the job is lost"
        if r.given("predicted", at) and rows(job) != want:
            return "what was predicted is lost"
        return again(x["1"], job) or again(x["1"], trained)
    bad, n = r.try_all(problem, 61 if SOAK else every(4001))
    print("%d states" % n)
    assert n > 5000 and not bad, "\n".join(bad)
