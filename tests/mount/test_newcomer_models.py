# SPDX-License-Identifier: Apache-2.0
"""What a newcomer to models stumbled over."""
import json
import os
import subprocess

import pytest
from conftest import Refused
from linear_jobs import GUEST, HOSTS, Lab, make


@pytest.fixture(scope="module")
def lab(sandboxes):
    lab = Lab(sandboxes("9999", "10000", "10001"))
    lab.upload("binary", make(60))
    return lab


@pytest.mark.parametrize("role, component", [("host", "linear_0"), ("guest", "intersection_0")])
def test_leaving_out_one_side_of_a_component_is_refused(lab, role, component):
    dsl, conf = lab.job("HeteroLR", "binary", max_iter=1)
    section = conf["component_parameters"]["role"][role]
    section.setdefault("0", {})[component] = {"need_run": False}
    with pytest.raises(Refused) as e:
        lab.guest.submit(dsl, conf)
    assert component + "/need_run" in e.value.text


def test_a_component_that_works_alone_may_be_left_out_at_one_party(lab):
    dsl, conf = lab.job("HeteroLR", "binary", max_iter=1)
    dsl["components"]["scale_0"] = {"module": "FeatureScale",
                                    "input": {"data": {"data": ["data_transform_0.data"]}},
                                    "output": {"data": ["data"]}}
    dsl["components"]["intersection_0"]["input"]["data"]["data"] = ["scale_0.data"]
    conf["component_parameters"]["role"]["host"].setdefault("0", {})["scale_0"] = {
        "need_run": False}
    r = lab.submit(dsl, conf, "binary")
    assert lab.s[HOSTS[0]].read("jobs", r.number, "host/scale_0/status") == "pass\n"
    assert lab.guest.read("jobs", r.number, "guest/scale_0/status") == "success\n"


def test_a_shell_hears_that_its_upload_json_was_refused(lab):
    d = lab.s[GUEST].path("tables/linear/options")
    os.makedirs(d)
    for shell in "bash", "dash":
        r = subprocess.run([shell, "-c", "echo '{\"id_delimter\": \" \"}' > upload.json"], cwd=d,
                           check=False, capture_output=True)
        assert r.returncode != 0
    subprocess.run(["sh", "-c", "echo '{\"id_delimiter\": \" \"}' > upload.json"], cwd=d, check=True)
    with open(d + "/data.csv", "w", encoding="utf-8") as f:
        f.write("a b\n1 2\n")
    assert lab.s[GUEST].read("tables/linear/options/count") == "1\n"


def test_rows_are_refused_while_their_upload_json_is_wrong(lab):
    d = lab.s[GUEST].path("tables/linear/wrong")
    os.makedirs(d)

    def sh(line):
        return subprocess.run(["sh", "-c", line], cwd=d, check=False,
                              capture_output=True).returncode

    assert sh("echo '{\"id_delimter\": \" \"}' > upload.json")
    assert sh("printf 'a b\\n1 2\\n' > data.csv")
    assert not os.path.exists(d + "/data.csv") or not os.path.getsize(d + "/data.csv")
    said = lab.guest.read("errors").split("\n20")[0]
    assert "data.csv" in said and "upload.json#/id_delimter" in said
    assert not sh("rm upload.json && printf 'a,b\\n1,2\\n' > data.csv")
    assert lab.guest.read("tables/linear/wrong/count") == "1\n"


OWN_DSL = {"components": {
    "reader_0": {"module": "Reader", "output": {"data": ["data"]}},
    "linear_0": {"module": "HeteroLR", "input": {"data": {"test_data": ["reader_0.data"]},
                                                 "model": ["pipeline.linear_0.model"]},
                 "output": {"data": ["data"]}}}}


def test_what_has_no_model_is_not_deployed(lab):
    r = lab.run("HeteroLR", "binary", max_iter=1,
                cv_param={"need_cv": True, "n_splits": 2})
    with pytest.raises(OSError):
        lab.deploy(r, "dsl " + json.dumps(OWN_DSL))
    assert "no model of linear_0" in lab.guest.read("errors").splitlines()[1]
    for components in "linear_0", "data_transform_0 linear_0", "intersection_0":
        with pytest.raises(OSError):
            lab.deploy(r, components)
        assert "model" in lab.guest.read("errors").splitlines()[1]


def test_a_file_of_another_name_in_a_table_says_what_to_do(lab):
    d = lab.s[GUEST].path("tables/linear/misnamed")
    os.makedirs(d)
    for path in d + "/rows.csv", os.path.dirname(d) + "/rows.csv":
        with pytest.raises(PermissionError):
            with open(path, "w", encoding="utf-8") as f:
                f.write("id,x\n1,2\n")
        assert "data.csv" in lab.s[GUEST].read("errors").splitlines()[1]


@pytest.mark.parametrize("scales", ["guest", "host"])
def test_a_model_is_deployed_that_one_side_alone_has(lab, scales):
    """The other side's rows went through unscaled, and go so when it predicts."""
    dsl, conf = lab.job("HeteroLR", "binary", max_iter=2)
    dsl["components"]["scale_0"] = {"module": "FeatureScale",
                                    "input": {"data": {"data": ["data_transform_0.data"]}},
                                    "output": {"data": ["data"], "model": ["model"]}}
    dsl["components"]["intersection_0"]["input"]["data"]["data"] = ["scale_0.data"]
    other = "host" if scales == "guest" else "guest"
    section = conf["component_parameters"]["role"][other]
    section.setdefault("0", {})["scale_0"] = {"need_run": False}
    r = lab.submit(dsl, conf, "binary")
    model = lab.deploy(r, "data_transform_0 scale_0 intersection_0 linear_0")
    p = lab.predict(model, "binary")
    assert (p.scores() == r.scores()).all()


def failure(lab, data, at, module="HeteroLR"):
    """What a job on the data says at the guest, and at the party itself."""
    name = "x%d" % len(lab.data)
    lab.upload(name, data)
    job = lab.guest.submit(*lab.job(module, name, max_iter=1))
    assert lab.guest.wait(job, 60) == "failed"
    return lab.guest.error(job), lab.s[at].read("jobs", job, {GUEST: "guest"}.get(at, "host"),
                                               "linear_0/error")


def test_fewer_rows_than_columns_are_not_blamed_on_the_batch_size(lab):
    """Either side may be the first to see it."""
    said, own = failure(lab, make(1, rows=4, hosts=(6,)), GUEST)
    assert "batch must have more rows" in said or "4 rows are too few" in said
    assert "batch_size" not in said + own
    assert own in ("", "4 rows are too few: host 10000 needs at least 7, "
                   "more than it has columns\n")


def test_a_partner_without_features_says_so_to_all(lab):
    said, own = failure(lab, make(2, hosts=(0,)), HOSTS[0])
    assert "host 10000: linear_0: the party's table has no feature column" in said
    assert "id_delimiter" in own


def test_tables_without_a_common_id_are_named_as_the_reason(lab):
    data = make(3)
    name = lab.upload("apart", data)
    lab.s[HOSTS[0]].upload("linear", name, "id,h0_0\nq1,1\nq2,2\n")
    job = lab.guest.submit(*lab.job("HeteroLR", name, max_iter=1))
    assert lab.guest.wait(job, 60) == "failed"
    assert "do the tables have ids in common?" in lab.guest.error(job)


def test_another_delimiter_is_guessed_when_the_label_is_not_found(lab):
    data = make(4)
    name = lab.upload("semicolons", data)
    with open(lab.guest.path("tables/linear", name, "upload.json"), "w", encoding="ascii") as f:
        f.write('{"id_delimiter": ","}\n')  # or the upload would ask
    lab.guest.upload("linear", name, "id;y\n1;0\n2;1\n")
    job = lab.guest.submit(*lab.job("HeteroLR", name, max_iter=1))
    assert lab.guest.wait(job, 60) == "failed"
    assert "there is no label column y (the table has only ids" in lab.guest.error(job)
    assert "id_delimiter" in lab.guest.error(job)


def test_a_partner_without_a_label_says_so_to_all(lab):
    dsl, conf = lab.job("HeteroLR", "binary", max_iter=1)
    conf["component_parameters"]["role"]["host"]["all"]["data_transform_0"]["with_label"] = True
    job = lab.guest.submit(dsl, conf)
    assert lab.guest.wait(job, 60) == "failed"
    assert "host 10000: data_transform_0: that party's table has no label" in lab.guest.error(job)


def test_a_partner_that_lacks_a_column_to_predict_says_so_to_all(lab):
    r = lab.submit(*lab.job("HeteroLR", "binary", max_iter=1), "binary")
    model = lab.deploy(r)
    lab.upload("lacking", make(60))
    lab.s[HOSTS[0]].upload("linear", "lacking", "id,h0_0\n1,1\n2,2\n")
    job = lab.guest.submit_text(lab.predict_text(model, "lacking"))
    assert lab.guest.wait(job, 60) == "failed"
    assert "host 10000: data_transform_0: that party's table lacks a column" in lab.guest.error(job)


def test_removing_a_job_that_runs_says_to_cancel_it(lab):
    job = lab.guest.submit(*lab.job("HeteroLR", "binary", max_iter=5000, tol=1e-30))
    r = subprocess.run(["rm", "-r", lab.guest.path("jobs", job)], check=False,
                       capture_output=True, text=True)
    assert r.returncode == 1 and "busy" in r.stderr
    assert "jobs/%s: " % job in lab.guest.read("errors").splitlines()[0]
    assert "echo cancel" in lab.guest.read("errors").splitlines()[1]
    with open(lab.guest.path("jobs", job, "ctl"), "w", encoding="utf-8") as f:
        f.write("cancel\n")
    assert lab.guest.wait(job) == "canceled"
    subprocess.run(["rm", "-r", lab.guest.path("jobs", job)], check=True)
