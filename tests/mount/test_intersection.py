# SPDX-License-Identifier: Apache-2.0
"""Intersections of 100,000 ids are exactly the true ones."""
import random

import pytest
from conftest import SLOW, job_files

ROWS = 100000 if SLOW == 1 else 5000


def ids(rng, shared, own, tag):
    rows = ["%s" % i for i in shared] + ["%s%d" % (tag, i) for i in range(own)]
    rng.shuffle(rows)
    return rows


def table(rows, column):
    return "id,%s\n" % column + "".join("%s,%d\n" % (r, i) for i, r in enumerate(rows))


@pytest.fixture(scope="module")
def s(sandboxes):
    rng = random.Random(37)
    x = sandboxes("9999", "10000", "10001")
    n = ROWS * 37 // 100
    shared = ["both-%x" % v for v in rng.sample(range(1 << 40), n)]
    x.shared = set(shared)
    x.third = set(rng.sample(shared, n // 2))
    x[9999].upload("set", "t", table(ids(rng, shared, ROWS - n, "guest"), "a"))
    x[10000].upload("set", "t", table(ids(rng, shared, ROWS - n, "host"), "b"))
    x[10001].upload("set", "t", table(ids(rng, sorted(x.third), ROWS - n // 2, "third"), "c"))
    return x


def job(method, hosts):
    dsl, conf = job_files("breast")
    for c in ("hetero_lr_0", "evaluation_0"):
        del dsl["components"][c]
        del conf["component_parameters"]["common"][c]
    del conf["role"]["arbiter"]
    conf["role"]["host"] = hosts
    p = conf["component_parameters"]["common"]["intersection_0"]
    p["intersect_method"] = method
    p["rsa_params"]["key_length"] = 1024
    read = {"reader_0": {"table": {"namespace": "set", "name": "t"}},
            "data_transform_0": {"with_label": False}}
    conf["component_parameters"]["role"] = {
        "guest": {"0": read}, "host": {"|".join(str(i) for i in range(len(hosts))): read}}
    return dsl, conf


def keys(p, name, role):
    text = p.read("jobs", name, role, "intersection_0/out/data/data.csv")
    rows = [x.split(",")[0] for x in text.splitlines()[1:]]
    assert rows == sorted(rows, key=str.encode)
    return rows


@pytest.mark.parametrize("method", ["rsa", "ecdh"])
@pytest.mark.parametrize("hosts", [[10000], [10000, 10001]], ids=["two", "three"])
def test_exactly_the_true_set(s, method, hosts):
    name = s[9999].run(*job(method, hosts), seconds=600)
    want = s.shared if len(hosts) == 1 else s.third
    have = keys(s[9999], name, "guest")
    assert set(have) == want and len(have) == len(want)
    for h in hosts:
        assert keys(s[h], name, "host") == have


def test_without_a_common_id_a_warning_says_so(s):
    s[9999].upload("set", "alone", table(["only-%d" % i for i in range(50)], "a"))
    dsl, conf = job("ecdh", [10000])
    role = conf["component_parameters"]["role"]
    role["guest"] = {"0": dict(role["guest"]["0"],
                               reader_0={"table": {"namespace": "set", "name": "alone"}})}
    name = s[9999].run(dsl, conf)
    assert keys(s[9999], name, "guest") == []
    for p in (9999, 10000):
        assert "no id is common to all parties" in s[p].read("jobs", name, "events")
