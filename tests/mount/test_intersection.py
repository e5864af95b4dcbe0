# SPDX-License-Identifier: Apache-2.0
"""Intersections are exactly the true ones, of 100,000 ids too."""
import random

import pytest
from conftest import SLOW, job_files

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


@pytest.mark.parametrize("method", ["rsa", "ecdh"])
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
