# SPDX-License-Identifier: Apache-2.0
"""parties/<id>/ping: one line, both directions, what is known of the party."""
import contextlib
import json
import os
import re
import signal
import time

import pytest

from conftest import eventually


def put(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def fields(line):
    return dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line))


@pytest.fixture(scope="module")
def pair(sandboxes):
    return sandboxes("9999", "10000")


def ping(p, other):
    line = p.read("parties", str(other), "ping")
    assert line.count("\n") == 1 and line.endswith("\n"), line
    return line[:-1]


def ask(p, other):
    put(p.path("parties", str(other), "ping"), "now\n")


def test_both_directions_and_what_is_known(pair):
    p = pair[9999]

    def whole():
        ask(p, 10000)
        ask(pair[10000], 9999)
        line = ping(p, 10000)
        return line.startswith("ok ") and fields(line).get("back") == "ok" and line

    line = eventually(whole, 20, every=0.3)
    assert re.match(r"ok \d+\.\d ms ", line), line
    f = fields(line)
    assert float(f["rtt"].removesuffix("ms")) >= 0
    assert f["version"] == json.loads(p.read("parties/10000/version"))["version"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", f["certificate"])
    assert abs(float(f["skew"].removesuffix("s"))) < 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", f["time"])
    doc = json.loads(p.read("parties/10000/version"))
    assert doc["party"] == "10000" and set(doc["features"]) >= {"chunks", "relay", "reverse"}
    assert p.read("parties/10000/certificate.pem").startswith("-----BEGIN CERTIFICATE-----")


def test_a_way_back_that_is_broken_is_seen_from_here(sandboxes):
    s = sandboxes("1", "2")
    eventually(lambda: ping(s[1], 2).startswith("ok "), 20)
    put(s[2].path("parties/1/address"), "https://127.0.0.1:1\n")

    def seen():
        ask(s[2], 1)
        ask(s[1], 2)
        f = fields(ping(s[1], 2))
        return f.get("back") == "failed" and f

    f = eventually(seen, 20, every=0.3)
    assert len(f["back_error"]) > 4
    assert ping(s[1], 2).startswith("ok ")  # this way is open


def test_what_waited_goes_with_the_first_answer(sandboxes):
    s = sandboxes("1", "2")
    a, b = s[1], s[2]
    b.kill("rollfs")
    eventually(lambda: not b.pids("rollfs"))
    for pid in b.pids("rollsite"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    put(a.path("federation/2/late"), "x\n")
    eventually(lambda: ping(a, 2).startswith("failed "), 20)
    time.sleep(12)  # by now everything is tried rarely
    b.start()
    ask(a, 2)
    eventually(lambda: ping(a, 2).startswith("ok "), 10)
    # With it, not when its own turn comes.
    eventually(lambda: "late" in os.listdir(b.path("federation/1/inbox")), 5, busy=0)


def test_a_party_that_went_and_came_back_is_asked_again(sandboxes):
    s = sandboxes("1", "2")
    p = s[1]
    url = s[2].read("parties/1/address")
    os.mkdir(p.path("parties/7"))
    # 2 answers there: another party's certificate.
    put(p.path("parties/7/address"), p.read("parties/2/address"))
    eventually(lambda: re.match("failed .*certificate is not accepted", ping(p, 7)), 10)
    os.rmdir(p.path("parties/7"))
    assert "7" not in os.listdir(p.path("parties"))
    os.mkdir(p.path("parties/7"))
    put(p.path("parties/7/address"), url)
    eventually(lambda: ping(p, 7).startswith("failed "), 10)


def test_failures_have_a_reason_and_end_by_themselves(sandboxes):
    s = sandboxes("1", "2")
    good = s[1].read("parties/2/address")
    put(s[1].path("parties/2/address"), "https://127.0.0.1:1\n")
    line = eventually(lambda: ping(s[1], 2).startswith("failed ") and ping(s[1], 2), 20)
    assert not re.match(r"failed (\w+=|$)", line), "no reason: " + line
    put(s[1].path("federation/2/late"), "x\n")
    time.sleep(1)
    put(s[1].path("parties/2/address"), good)
    # Asked again at once, and what waited goes with it.
    eventually(lambda: ping(s[1], 2).startswith("ok "), 10)
    eventually(lambda: "late" in os.listdir(s[2].path("federation/1/inbox")), 10)
    assert s[2].read("federation/1/inbox/late") == "x\n"
