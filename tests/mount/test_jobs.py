# SPDX-License-Identifier: Apache-2.0
"""Jobs from jobs/new to their results."""
import copy
import csv
import io
import os
import signal
import subprocess
import time

import pytest
from conftest import SLOW, Refused, eventually, job_files, read_json

LOSS = [0.693147, 78.875554, 5.695061, 1.478556, 0.733014, 0.532544]


def breast(**lr):
    dsl, conf = job_files("breast")
    conf["component_parameters"]["common"]["hetero_lr_0"].update(lr)
    return dsl, conf


def quick_keys(conf, bits=1024):
    common = conf["component_parameters"]["common"]
    common["hetero_lr_0"]["encrypt_param"] = {"key_length": bits}
    common["intersection_0"]["rsa_params"]["key_length"] = bits
    return conf


# The breast job of the demo; a sanitizer sees as much with short keys.
GOLDEN = job_files("breast")
if SLOW > 1:
    quick_keys(GOLDEN[1])


@pytest.fixture(scope="module")
def golden(three):
    """Run once."""
    return three[9999].run(*GOLDEN, seconds=120)


def test_secure_add_succeeds_on_both_sides(three):
    job = three[9999].run(*job_files("add"))
    assert three[9999].status(job) == "success"
    eventually(lambda: three[10000].status(job) == "success")
    assert three[9999].read("jobs", job, "progress") == "100\n"
    assert three[9999].error(job) == ""


def test_shell_reads_the_id_from_the_same_descriptor(three):
    from conftest import DATA
    r = subprocess.run(
        ["bash", "-c", "exec 3<>jobs/new; cat $D/add_dsl.json $D/add_conf.json >&3; read id <&3;"
         "exec 3>&-; echo $id; readlink jobs/latest; cat jobs/$id/wait"],
        cwd=three[9999].mount, env=dict(os.environ, D=DATA + "/jobs"), capture_output=True,
        text=True, timeout=60 * SLOW, check=True)
    job, latest, status = r.stdout.split()
    assert job.isdigit() and os.path.basename(latest) == job and status == "success"


def test_cat_into_new_submits_at_close(three):
    from conftest import DATA
    before = set(os.listdir(three[9999].path("jobs")))
    subprocess.run("cat $D/add_conf.json $D/add_dsl.json >jobs/new", shell=True, check=True,
                   cwd=three[9999].mount, env=dict(os.environ, D=DATA + "/jobs"))
    job = os.path.basename(os.readlink(three[9999].path("jobs/latest")))
    assert job not in before
    assert three[9999].wait(job) == "success"


@pytest.mark.parametrize("names", [("dsl", "conf"), ("job_dsl", "job_runtime_conf")])
def test_one_object_holds_both(three, names):
    import json
    dsl, conf = job_files("add")
    job = three[9999].submit_text(json.dumps({names[0]: dsl, names[1]: conf}))
    assert three[9999].wait(job) == "success"


def test_documents_read_back_as_submitted(three, golden):
    dsl, conf = GOLDEN
    assert three[9999].read_json("jobs", golden, "dsl.json") == dsl
    assert three[9999].read_json("jobs", golden, "conf.json") == conf


def test_golden_loss(three, golden):
    s = three[9999].read_json("jobs", golden, "guest/hetero_lr_0/summary.json")
    assert len(s["loss_history"]) == 30 and s["iterations"] == 30
    for want, have in zip(LOSS, s["loss_history"]):
        assert have == pytest.approx(want, abs=1.5e-6)
    assert s["loss_history"][-1] == pytest.approx(0.354564, abs=1.5e-6)


def test_golden_evaluation(three, golden):
    e = three[9999].read_json("jobs", golden, "guest/evaluation_0/summary.json")
    e = e["hetero_lr_0"]["train"]
    assert e["auc"] == pytest.approx(0.987448, abs=2e-5)
    assert e["ks"] == pytest.approx(0.905066, abs=1e-4)
    assert e["ks_exact"] == pytest.approx(0.913469, abs=1e-4)


def test_host_has_neither_intercept_nor_loss(three, golden):
    s = three[10000].read_json("jobs", golden, "host/hetero_lr_0/summary.json")
    assert len(s["coef"]) == 20
    assert not s.get("loss_history") and s.get("intercept") is None


def test_predictions_are_a_table(three, golden):
    p = three[9999]
    rows = list(csv.DictReader(io.StringIO(
        p.read("jobs", golden, "guest/hetero_lr_0/out/data/data.csv"))))
    assert len(rows) == 569
    assert list(rows[0]) == ["id", "label", "predict_result", "predict_score",
                             "predict_detail", "type"]
    right = sum(r["label"] == r["predict_result"] for r in rows)
    assert right > 520


def test_host_and_arbiter_at_one_party(three):
    dsl, conf = breast(max_iter=2)
    conf["role"]["arbiter"] = [10000]
    job = three[9999].run(dsl, quick_keys(conf), seconds=120)
    assert "label" in three[10000].read("jobs", job, "events")
    assert os.path.isdir(three[10000].path("jobs", job, "arbiter/hetero_lr_0"))


def two_hosts(three, **lr):
    """The host's columns over the two other parties."""
    rows = [r.split(",") for r in
            three[10000].read("tables/experiment/breast_host/data.csv").splitlines()]
    three[10000].upload("experiment", "half",
                        "".join(",".join(r[:11]) + "\n" for r in rows))
    three[10001].upload("experiment", "half",
                        "".join(",".join(r[:1] + r[11:]) + "\n" for r in rows))
    dsl, conf = breast(**lr)
    conf["role"]["host"] = [10000, 10001]
    host = conf["component_parameters"]["role"].pop("host")["0"]
    host["reader_0"]["table"]["name"] = "half"
    conf["component_parameters"]["role"]["host"] = {"0": host, "1": copy.deepcopy(host)}
    return dsl, quick_keys(conf)


def test_two_hosts_refuse_early_stop_diff(three):
    with pytest.raises(Refused) as e:
        three[9999].submit(*two_hosts(three, early_stop="diff"))
    assert "early_stop" in e.value.text


def test_cancel_ends_the_job_everywhere(three):
    job = three[9999].submit(*breast(max_iter=10000, tol=1e-30))
    eventually(lambda: os.path.exists(three[9999].path("jobs", job, "guest/hetero_lr_0/log")), 30)
    eventually(lambda: three[9999].read("jobs", job, "guest/hetero_lr_0/status") == "running\n", 30)
    with open(three[9999].path("jobs", job, "ctl"), "w") as f:
        f.write("cancel\n")
    for p in three.parties.values():
        eventually(lambda: p.status(job) == "canceled")
        eventually(lambda: not p.pids("rollfs-task"))


def test_ctl_repeats_bad_words(three):
    job = three[9999].run(*job_files("add"))
    with pytest.raises(OSError):
        with open(three[9999].path("jobs", job, "ctl"), "w") as f:
            f.write("explode\n")
    assert "explode" in three[9999].read("errors")


def test_wait_obeys_an_interrupt(three):
    job = three[9999].submit(*breast(max_iter=10000, tol=1e-30))
    with subprocess.Popen(["cat", three[9999].path("jobs", job, "wait")],
                          stdout=subprocess.PIPE) as cat:
        time.sleep(0.3)
        assert cat.poll() is None
        cat.send_signal(signal.SIGINT)
        cat.wait(30 * SLOW)
    with open(three[9999].path("jobs", job, "ctl"), "w") as f:
        f.write("cancel\n")
    assert three[9999].wait(job, 10) == "canceled"


def test_wait_is_not_listed_and_does_not_block_on_request(three):
    job = three[9999].submit(*breast(max_iter=10000, tol=1e-30))
    try:
        assert "wait" not in os.listdir(three[9999].path("jobs", job))
        fd = os.open(three[9999].path("jobs", job, "wait"), os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(BlockingIOError):
            os.read(fd, 10)
        os.close(fd)
        r = subprocess.run(["timeout", "300", "grep", "-r", "no such thing",
                            three[9999].path("jobs", job)], check=False)
        assert r.returncode == 1
    finally:
        with open(three[9999].path("jobs", job, "ctl"), "w") as f:
            f.write("cancel\n")
        three[9999].wait(job, 10)


def test_log_follows_with_tail(three):
    with subprocess.Popen(["sleep", "0"]):
        pass
    dsl, conf = breast(max_iter=3)
    job = three[9999].submit(dsl, quick_keys(conf))
    with subprocess.Popen(["tail", "-n", "+1", "-s", "0.1", "-f",
                           three[9999].path("jobs", job, "log")],
                          stdout=subprocess.PIPE, text=True) as tail:
        assert three[9999].wait(job, 60) == "success"
        want = three[9999].read("jobs", job, "log")
        out = ""
        while len(out) < len(want):
            out += tail.stdout.read(1)
        tail.terminate()
        out += tail.stdout.read()
    assert out.startswith(want) and three[9999].read("jobs", job, "log").startswith(out)
    assert "iteration" in out or "intersection" in out


def test_a_failing_task_fails_the_job_with_its_cause_on_every_side(three):
    three[9999].upload("experiment", "text", "id,y,x0\n0,1,red\n1,0,blue\n2,1,red\n")
    dsl, conf = breast()
    conf["component_parameters"]["role"]["guest"]["0"]["reader_0"]["table"]["name"] = "text"
    job = three[9999].submit(dsl, conf)
    assert three[9999].wait(job, 60) == "failed"
    assert "data_transform_0" in three[9999].error(job)
    for p in (three[10000], three[10001]):
        eventually(lambda: p.status(job) == "failed", 5)
        said = p.error(job)
        assert "data_transform_0" in said and "red" not in said and "blue" not in said
    assert three[9999].read("jobs", job, "guest/hetero_lr_0/status") == "skipped\n"
    for p in three.parties.values():
        eventually(lambda: not p.pids("rollfs-task"), 5)


def test_rerun_goes_on_after_the_cause_is_gone(three):
    three[9999].upload("experiment", "text", "id,y,x0\n0,1,red\n1,0,blue\n2,1,red\n")
    dsl, conf = breast(max_iter=1)
    conf["component_parameters"]["role"]["guest"]["0"]["reader_0"]["table"]["name"] = "text"
    job = three[9999].submit(dsl, quick_keys(conf))
    assert three[9999].wait(job, 60) == "failed"
    three[9999].upload_file("experiment", "text", os.path.join(
        os.path.dirname(__file__), "../data/breast_guest.csv"))
    with open(three[9999].path("jobs", job, "ctl"), "w") as f:
        f.write("rerun reader_0 force\n")
    eventually(lambda: three[9999].status(job) != "failed", 5)
    assert three[9999].wait(job, 60) == "success", three[9999].error(job)


def test_rm_deletes_an_ended_job(three):
    job = three[9999].run(*job_files("add"))
    subprocess.run(["rm", "-r", three[9999].path("jobs", job)], check=True)
    assert not os.path.exists(three[9999].path("jobs", job))


def test_the_arbiter_keeps_no_weights_and_others_no_private_key(three, golden):
    for p, words in ((three[10001], ("coef", "intercept")),
                     (three[9999], ("lambda", "private")), (three[10000], ("lambda", "private"))):
        base = os.path.join(p.state, "jobs", golden)
        for top, _, names in os.walk(base):
            for n in names:
                if os.path.islink(os.path.join(top, n)):
                    continue # in/ and out/ point into the mount
                with open(os.path.join(top, n), "rb") as f:
                    text = f.read()
                if n in ("dsl.json", "conf.json", "params.json", "task.json"):
                    continue
                for w in words:
                    assert b'"' + w.encode() not in text, (top, n)


def test_five_components_beside_each_other(three):
    names = ["add_%d" % i for i in range(5)]
    _, conf = job_files("add")
    conf["component_parameters"] = {"common": {n: {"data_num": 1} for n in names}}
    job = three[9999].submit({"components": {n: {"module": "SecureAddExample"}
                                             for n in names}}, conf)
    assert three[9999].wait(job) == "success"
    for n in names:
        assert three[9999].read("jobs", job, "guest", n, "status") == "success\n"
