# SPDX-License-Identifier: Apache-2.0
"""Intersections are exactly the true ones, of 100,000 ids too."""
import os
import random
import time

import pytest
from conftest import SLOW, Refused, eventually, job_files

ROWS = 8000 if SLOW == 1 else 2000
MANY = 100000


def ids(rng, shared, own, tag):
    rows = ["%s" % i for i in shared] + ["%s%d" % (tag, i) for i in range(own)]
    rng.shuffle(rows)
    return rows


def table(rows, column):
    return "id,%s\n" % column + "".join("%s,%d\n" % (r, i) for i, r in enumerate(rows))


def fill(x, name, rows):
    """Tables of so many rows; what all parties share, and the guest and the first host."""
    rng = random.Random(37)
    n = rows * 37 // 100
    shared = ["both-%x" % v for v in rng.sample(range(1 << 40), n)]
    third = set(rng.sample(shared, n // 2))
    x[9999].upload("set", name, table(ids(rng, shared, rows - n, "guest"), "a"))
    x[10000].upload("set", name, table(ids(rng, shared, rows - n, "host"), "b"))
    x[10001].upload("set", name, table(ids(rng, sorted(third), rows - n // 2, "third"), "c"))
    return third, set(shared)


@pytest.fixture(scope="module")
def s(sandboxes):
    x = sandboxes("9999", "10000", "10001")
    x.third, x.shared = fill(x, "t", ROWS)
    return x


def job(method, hosts, name="t"):
    dsl, conf = job_files("breast")
    for c in ("hetero_lr_0", "evaluation_0"):
        del dsl["components"][c]
        del conf["component_parameters"]["common"][c]
    del conf["role"]["arbiter"]
    conf["role"]["host"] = hosts
    p = conf["component_parameters"]["common"]["intersection_0"]
    p["intersect_method"] = method
    p["rsa_params"]["key_length"] = 1024
    read = {"reader_0": {"table": {"namespace": "set", "name": name}},
            "data_transform_0": {"with_label": False}}
    conf["component_parameters"]["role"] = {
        "guest": {"0": read}, "host": {"|".join(str(i) for i in range(len(hosts))): read}}
    return dsl, conf


def keys(p, name, role):
    text = p.read("jobs", name, role, "intersection_0/out/data/data.csv")
    rows = [x.split(",")[0] for x in text.splitlines()[1:]]
    assert rows == sorted(rows, key=str.encode)
    return rows


@pytest.mark.parametrize("method", ["rsa", "ecdh", "dh"])
@pytest.mark.parametrize("hosts", [[10000], [10000, 10001]], ids=["two", "three"])
def test_exactly_the_true_set(s, method, hosts):
    name = s[9999].run(*job(method, hosts), seconds=600)
    want = s.shared if len(hosts) == 1 else s.third
    have = keys(s[9999], name, "guest")
    assert set(have) == want and len(have) == len(want)
    for h in hosts:
        assert keys(s[h], name, "host") == have


@pytest.mark.numbers
def test_of_many_ids_too(s):
    _, want = fill(s, "many", MANY)
    name = s[9999].run(*job("ecdh", [10000], "many"), seconds=600)
    have = keys(s[9999], name, "guest")
    assert set(have) == want and len(have) == len(want)
    assert keys(s[10000], name, "host") == have


@pytest.mark.parametrize("method", ["ecdh", "dh"])
def test_without_a_common_id_a_warning_says_so(s, method):
    s[9999].upload("set", "alone", table(["only-%d" % i for i in range(50)], "a"))
    dsl, conf = job(method, [10000])
    role = conf["component_parameters"]["role"]
    role["guest"] = {"0": dict(role["guest"]["0"],
                               reader_0={"table": {"namespace": "set", "name": "alone"}})}
    name = s[9999].run(dsl, conf)
    assert keys(s[9999], name, "guest") == []
    for p in (9999, 10000):
        assert "no id is common to all parties" in s[p].read("jobs", name, "events")


def changed(method, hosts, **params):
    dsl, conf = job(method, hosts)
    conf["component_parameters"]["common"]["intersection_0"].update(params)
    return dsl, conf


def test_only_the_number_is_told(s):
    name = s[9999].run(*changed("rsa", [10000], cardinality_only=True, sync_cardinality=True),
                       seconds=300)
    for p, role in ((9999, "guest"), (10000, "host")):
        summary = s[p].read_json("jobs", name, role, "intersection_0/summary.json")
        assert summary["intersect_count"] == len(s.shared)
        assert keys(s[p], name, role) == []


def kept_lists(s, *parties):
    dirs = [os.path.join(s.dir, "state", p, "cache/intersection") for p in parties]
    return {os.path.join(d, x): os.stat(os.path.join(d, x)).st_ino
            for d in dirs if os.path.isdir(d) for x in os.listdir(d)}


def age(files, days):
    when = time.time() - days * 86400
    for x in files:
        os.utime(x, (when, when))


def test_a_kept_list_serves_the_next_jobs_until_it_is_old(s):
    before = {}
    for days, same in ((0, False), (29, True), (31, False)):
        age(before, days)
        name = s[9999].run(*changed("ecdh", [10000], run_cache=True), seconds=300)
        assert set(keys(s[9999], name, "guest")) == s.shared
        after = kept_lists(s, "9999", "10000")
        assert len(after) == 2 and set(before) <= set(after)
        assert (after == before) == same
        before = after


def test_an_old_list_goes_without_a_job(s):
    s[9999].run(*changed("ecdh", [10000], run_cache=True), seconds=300)
    assert kept_lists(s, "10000")
    age(kept_lists(s, "10000"), 31)
    s[10000].kill("rollfs")
    s[10000].start()
    eventually(lambda: not kept_lists(s, "10000"), 30)


def test_a_host_that_dies_leaves_nothing_behind(s):
    dsl, conf = changed("rsa", [10000], rsa_params={"key_length": 4096})
    name = s[9999].submit(dsl, conf)
    eventually(lambda: os.path.exists(s[10000].path("jobs", name, "host/intersection_0")) and
               s[10000].read("jobs", name, "host/intersection_0/status") == "running\n", 60)
    os.kill(s[10000].pid("rollfs-task"), 9)
    assert s[9999].wait(name, 120) == "failed"
    assert "intersection_0" in s[9999].error(name)
    for p, role in (("9999", "guest"), ("10000", "host")):
        eventually(lambda: not s[int(p)].pids("rollfs-task"), 15)
        left = os.listdir(os.path.join(s.dir, "state", p, "jobs", name, role, "intersection_0"))
        assert not [x for x in left if "spool" in x or "tmp" in x]


@pytest.mark.parametrize("hosts, params, word", [
    ([10000, 10001], {"cardinality_only": True}, "cardinality_only"),
    ([10000, 10001], {"rsa_params": {"split_calculation": True}}, "split_calculation"),
    ([10000], {"rsa_params": {"key_length": 2000}}, "multiple of 128"),
    ([10000], {"intersect_method": "dh", "dh_params": {"key_length": 2500}}, "no such group"),
    ([10000], {"run_cache": True, "cardinality_only": True}, "run_cache"),
    ([10000], {"join_method": "left_join"}, "Union"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_what_cannot_be_is_refused_when_submitted(s, hosts, params, word):
    with pytest.raises(Refused) as r:
        s[9999].submit(*changed("rsa", hosts, **params))
    assert word in r.value.text


def test_rules_are_told_beside_other_defects(s):
    dsl, conf = changed("dh", [10000], dh_params={"key_length": 2500})
    conf["component_parameters"]["common"]["data_transform_0"] = {"nothing": 1}
    with pytest.raises(Refused) as r:
        s[9999].submit(dsl, conf)
    assert "no such group" in r.value.text and "data_transform_0/nothing" in r.value.text
