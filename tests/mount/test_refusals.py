# SPDX-License-Identifier: Apache-2.0
"""Malformed jobs are refused at close, each with the exact place, and no job
directory appears."""
import copy
import errno
import json
import os

import pytest
from conftest import Refused, eventually, job_files

ADD = job_files("add")
BREAST = job_files("breast")


def dsl(change):
    d, c = copy.deepcopy(BREAST)
    change(d["components"])
    return json.dumps(d) + json.dumps(c)


def conf(change):
    d, c = copy.deepcopy(BREAST)
    change(c)
    return json.dumps(d) + json.dumps(c)


def lr(key, value):
    return conf(lambda c: c["component_parameters"]["common"]["hetero_lr_0"].update({key: value}))


def add_task(components):
    components["a_0"] = {"module": "DataTransform", "input": {"data": {"data": ["b_0.data"]}},
                         "output": {"data": ["data"]}}
    components["b_0"] = {"module": "DataTransform", "input": {"data": {"data": ["a_0.data"]}},
                         "output": {"data": ["data"]}}


P = "conf#/component_parameters/common/hetero_lr_0/"
CASES = {
    "syntax": ('{"components": {]}', ["line 1 column"]),
    "syntax_in_the_second": (json.dumps(ADD[0]) + "\n{nonsense}", ["line 2 column"]),
    "not_an_object": ("[1, 2]", ["line 1"]),
    "third_document": (json.dumps(ADD[0]) + json.dumps(ADD[1]) + "{}", ["line 1"]),
    "duplicate_key": ('{"components": {}, "components": {}}' + json.dumps(ADD[1]), ["components"]),
    "unknown_module": (dsl(lambda c: c["hetero_lr_0"].update(module="HeteroLRR")),
                       ["dsl#/components/hetero_lr_0/module:", "HeteroLRR", "HeteroLR?"]),
    "no_module": (dsl(lambda c: c["reader_0"].pop("module")), ["dsl#/components/reader_0"]),
    "dangling_input": (dsl(lambda c: c["intersection_0"]["input"]["data"].update(
        data=["data_transform_7.data"])), ["dsl#/components/intersection_0/input/data/data",
                                           "data_transform_7"]),
    "unknown_output": (dsl(lambda c: c["intersection_0"]["input"]["data"].update(
        data=["data_transform_0.dada"])), ["dsl#/components/intersection_0/input/data/data", "dada"]),
    "cycle": (dsl(add_task), ["dsl#/components/", "a_0", "b_0"]),
    "misspelt_parameter": (lr("learning_rat", 0.1), [P + "learning_rat:", "learning_rate"]),
    "wrong_type": (lr("max_iter", "thirty"), [P + "max_iter:"]),
    "alpha_below_zero": (lr("alpha", -0.5), [P + "alpha:"]),
    "not_a_choice": (lr("penalty", "L3"), [P + "penalty:", "L3"]),
    "nested_parameter": (lr("encrypt_param", {"key_lenth": 2048}),
                         [P + "encrypt_param/key_lenth:", "key_length"]),
    "unknown_component_in_conf": (conf(lambda c: c["component_parameters"]["common"].update(
        {"hetero_lr_1": {}})), ["conf#/component_parameters/common/hetero_lr_1:"]),
    "missing_table": (conf(lambda c: c["component_parameters"]["role"]["guest"]["0"]["reader_0"]
                           ["table"].update(name="nothing")),
                      ["conf#/component_parameters/role/guest/0/reader_0/table"]),
    "partner_table_missing": (conf(lambda c: c["component_parameters"]["role"]["host"]["0"]
                                   ["reader_0"]["table"].update(name="nothing")),
                              ["10000"]),
    "selector_of_nobody": (conf(lambda c: c["component_parameters"]["role"]["host"].update(
        {"7": {"data_transform_0": {"with_label": False}}})),
        ["conf#/component_parameters/role/host/7:"]),
    "role_missing": (conf(lambda c: c["role"].pop("arbiter")), ["arbiter"]),
    "not_the_initiator": (conf(lambda c: c["initiator"].update(party_id=10000)),
                          ["conf#/initiator"]),
    "unknown_party": (conf(lambda c: c["role"].update(host=[4711])), ["4711"]),
    "dsl_version": (conf(lambda c: c.update(dsl_version=7)), ["conf#/dsl_version:"]),
    "too_many_cores": (conf(lambda c: c["job_parameters"]["common"].update(task_cores=100000)),
                       ["conf#/job_parameters/common/task_cores"]),
    "unknown_job_parameter": (conf(lambda c: c["job_parameters"]["common"].update(job_typ="train")),
                              ["conf#/job_parameters/common/job_typ:", "job_type"]),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_refused_with_the_exact_place(three, case):
    text, words = CASES[case]
    p = three[9999]
    before = [set(os.listdir(q.path("jobs"))) for q in three.parties.values()]
    with pytest.raises(Refused) as e:
        p.submit_text(text)
    for w in words:
        assert w in e.value.text, e.value.text
    want = (errno.EHOSTUNREACH, errno.EINVAL) if case == "unknown_party" else (errno.EINVAL,)
    assert e.value.errno in want
    assert [set(os.listdir(q.path("jobs"))) for q in three.parties.values()] == before
    shown = p.read("errors")
    assert words[0] in shown


def test_all_defects_at_once(three):
    d, c = copy.deepcopy(BREAST)
    d["components"]["evaluation_0"]["module"] = "Evalution"
    c["component_parameters"]["common"]["hetero_lr_0"].update(alpha=-1, tool=3)
    with pytest.raises(Refused) as e:
        three[9999].submit(d, c)
    lines = e.value.text.strip().splitlines()
    for w in ("evaluation_0/module", "hetero_lr_0/alpha", "hetero_lr_0/tool"):
        assert sum(w in x for x in lines) == 1, lines


def test_an_unfinished_text_is_refused_at_close(three):
    fd = os.open(three[9999].path("jobs/new"), os.O_WRONLY)
    os.write(fd, json.dumps(ADD[0]).encode())
    with pytest.raises(OSError) as e:
        os.close(fd)
    assert e.value.errno == errno.EINVAL


def test_echo_of_a_shell_hears_the_refusal(three):
    import subprocess
    r = subprocess.run(["bash", "-c", "echo '{\"dsl\": {}, \"conf\": {}}' > jobs/new"],
                       cwd=three[9999].mount, capture_output=True, text=True, check=False)
    assert r.returncode != 0


def test_partner_down_is_no_route(sandboxes):
    s = sandboxes("9999", "10000", LEASE=5)
    s.run("up", s.dir, "9999", "10000")
    import subprocess
    subprocess.run(["umount", s[10000].mount] if os.getuid() == 0 else
                   ["fusermount3", "-u", s[10000].mount], check=True)
    eventually(lambda: not s[10000].pids("rollfs") and not s[10000].pids("rollsite"))
    with pytest.raises(Refused) as e:
        s[9999].submit(*ADD)
    assert e.value.errno == errno.EHOSTUNREACH and "10000" in e.value.text


def test_policy_denies_by_default(sandboxes):
    s = sandboxes("9999", "10000")
    with open(s[10000].path("parties/9999/allow"), "w") as f:
        f.write("# nothing\n")
    with pytest.raises(Refused) as e:
        s[9999].submit(*ADD)
    assert e.value.errno == errno.EACCES
    with open(s[10000].path("parties/9999/allow"), "w") as f:
        f.write("module SecureAddExample\nrole host\n")
    s[9999].run(*ADD)


def test_absent_and_withheld_tables_look_the_same(sandboxes):
    s = sandboxes("9999", "10000", "10001")
    s.upload_breast()
    with open(s[10000].path("parties/9999/allow"), "w") as f:
        f.write("module *\nrole *\ntable other/*\n")
    said = []
    for name in ("breast_host", "nothing"):
        d, c = copy.deepcopy(BREAST)
        c["component_parameters"]["role"]["host"]["0"]["reader_0"]["table"]["name"] = name
        with pytest.raises(Refused) as e:
            s[9999].submit(d, c)
        # errors shows the newest refusal first; the older ones follow.
        line = [x for x in e.value.text.splitlines() if x.startswith("conf#")][0]
        said.append((e.value.errno, line.replace(name, "NAME")))
    assert said[0] == said[1]
