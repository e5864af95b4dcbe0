# SPDX-License-Identifier: Apache-2.0
"""/metrics: every line is Prometheus' text format, and the numbers move."""
import os
import re
import time

import pytest

from conftest import eventually

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(r"(%s)(?:\{(%s(?:,%s)*)\})? (\S+)" % (NAME, LABEL, LABEL))
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]Inf|NaN")


def parse(text):
    """{name: {labels: value}}; what promtool would refuse fails here."""
    assert text.endswith("\n")
    kind, helped, out, last = {}, set(), {}, None
    for line in text[:-1].split("\n"):
        m = re.fullmatch(r"# (HELP|TYPE) (%s) (.+)" % NAME, line)
        if m and m.group(1) == "HELP":
            assert m.group(2) not in helped, "two HELP: " + line
            helped.add(m.group(2))
            continue
        if m:
            assert m.group(2) not in kind, "two TYPE: " + line
            assert m.group(2) not in out, "TYPE behind its samples: " + line
            assert m.group(3) in ("counter", "gauge"), line
            kind[m.group(2)] = m.group(3)
            continue
        m = SAMPLE.fullmatch(line)
        assert m, "no sample: %r" % line
        name, labels, value = m.groups()
        assert NUMBER.fullmatch(value), line
        assert name in kind and name in helped, "neither HELP nor TYPE: " + line
        assert (kind[name] == "counter") == name.endswith("_total"), line
        assert name == last or name not in out, "torn apart: " + line
        labels = tuple(sorted((labels or "").split(",")))
        assert labels not in out.setdefault(name, {}), "twice: " + line
        out[name][labels] = float(value)
        last = name
    return out


def value(p, name, *labels):
    """The sum of the series that have these labels."""
    series = parse(p.read("metrics")).get(name, {})
    return sum(v for k, v in series.items() if all(x in k for x in labels))


@pytest.fixture(scope="module")
def pair(sandboxes):
    return sandboxes("9999", "10000")


def to(n):
    return 'party="%s"' % n


def push(p, other, name, data):
    path = p.path("federation", other, name)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
        os.fsync(fd)  # committed there
    finally:
        os.close(fd)


def test_every_line_parses(pair):
    for p in pair.parties.values():
        m = parse(p.read("metrics"))
        for name in ("rollfs_jobs", "rollfs_cores_free", "rollfs_transfers",
                     "rollfs_transfers_started_total", "rollfs_chunks_sent_total",
                     "rollfs_messages_sent_total", "rollfs_retries_total",
                     "rollfs_requests_in_flight", "rollfs_party_up",
                     "rollfs_certificate_expiry_timestamp_seconds"):
            assert name in m, name
        assert parse(p.read("metrics")).keys() >= m.keys()


def test_a_file_moves_the_counters_of_both(pair):
    a, b = pair[9999], pair[10000]
    data = os.urandom(9 << 20)  # three chunks
    push(a, "10000", "three.bin", data)
    one = to(10000)
    eventually(lambda: value(a, "rollfs_transfers_committed_total", one) >= 1)
    assert value(a, "rollfs_transfers_started_total", one) >= 1
    assert value(a, "rollfs_transfers_failed_total", one) == 0
    assert value(a, "rollfs_chunks_sent_total", one) >= 3
    assert value(a, "rollfs_transfer_bytes_sent_total", one) >= len(data)
    eventually(lambda: value(a, "rollfs_transfers", one) == 0)  # nothing is under way
    other = to(9999)
    eventually(lambda: value(b, "rollfs_transfers_received_total", other) >= 1)
    assert value(b, "rollfs_chunks_received_total", other) >= 3
    assert value(b, "rollfs_transfer_bytes_received_total", other) >= len(data)


def test_small_files_count_at_both_ends(pair):
    a, b = pair[9999], pair[10000]
    sent = value(a, "rollfs_transfer_bytes_sent_total", to(10000))
    taken = value(b, "rollfs_transfer_bytes_received_total", to(9999))
    for i in range(3):
        push(a, "10000", "small-%d" % i, b"0123456789")
    eventually(lambda: value(a, "rollfs_transfer_bytes_sent_total", to(10000)) == sent + 30)
    eventually(lambda: value(b, "rollfs_transfer_bytes_received_total", to(9999)) == taken + 30)


def test_refusals_have_a_code(pair):
    a, b = pair[9999], pair[10000]
    with open(b.path("parties/9999/allow"), "w", encoding="utf-8") as f:
        f.write("role *\n")
    try:
        with pytest.raises(OSError):
            push(a, "10000", "refused.bin", b"x")
        eventually(lambda: value(b, "rollfs_refusals_total", to(9999),
                                 'code="not_allowed"') >= 1)
        eventually(lambda: value(a, "rollfs_transfers_failed_total", to(10000)) >= 1)
    finally:
        with open(b.path("parties/9999/allow"), "w", encoding="utf-8") as f:
            f.write("module *\ntable *\nrole *\npush *\n")


def test_parties_and_certificates(pair):
    a = pair[9999]
    eventually(lambda: value(a, "rollfs_party_up", to(10000)) == 1, 20)
    eventually(lambda: value(a, "rollfs_party_reaches_us", to(10000)) == 1, 40)
    assert 0 < value(a, "rollfs_party_rtt_seconds", to(10000)) < 60
    assert abs(value(a, "rollfs_party_clock_skew_seconds", to(10000))) < 60
    for party in (9999, 10000):
        end = value(a, "rollfs_certificate_expiry_timestamp_seconds", to(party))
        assert time.time() + 86400 < end < time.time() + 86400 * 365 * 100


def test_what_waits_for_a_party_that_is_away_is_seen(sandboxes):
    s = sandboxes("1", "2")
    with open(s[1].path("parties/2/address"), "w", encoding="utf-8") as f:
        f.write("https://127.0.0.1:1\n")
    with open(s[1].path("federation/2/waits"), "w", encoding="utf-8") as f:
        f.write("x")
    eventually(lambda: value(s[1], "rollfs_transfers", to(2)) == 1, 10)
    eventually(lambda: value(s[1], "rollfs_party_up", to(2)) == 0 and
               value(s[1], "rollfs_retries_total", to(2)) >= 1, 30)
    parse(s[1].read("metrics"))
