# SPDX-License-Identifier: Apache-2.0
"""Bad networks: delay, loss, resets, a pulled cable, a party that is silent.
Nothing needs a hand, and little is sent twice."""
import contextlib
import json
import os
import threading
import time

import pytest
from conftest import SLOW, eventually, job_files
from net import (MIB, SOAK, Proxy, cable, content, lab, labs)

_ = cable, lab, labs  # fixtures


def two_ends(lab, c, **more):
    return lab({"1": dict({"netns": c.ns[0], "listen": c.hosts[0]}, **more),
                "2": {"netns": c.ns[1], "listen": c.hosts[1]}}).ready()


def progress(p, other, path):
    a = p.attributes(other, path)
    return int(a["acknowledged"]), a["state"]


def test_200_ms_and_1_percent_loss(lab, cable):
    """A floor of throughput, and small things in between do not wait for
    large ones."""
    c = cable(delay=0.1, loss=0.01)
    x = two_ends(lab, c)
    size = 64 * MIB if SOAK else MIB
    data = content("lossy", 1, size)
    began = time.monotonic()
    x["1"].put("2", "lossy", data)
    small = []
    for i in range(20 if SOAK else 3):
        at = time.monotonic()
        x["1"].put("2", "small%d" % i, content("small%d" % i, 1, 2000))
        eventually(lambda i=i: x["1"].state_of("2", "small%d" % i) == "committed", 30)
        small.append(time.monotonic() - at)
    eventually(lambda: x["2"].got("1", "lossy") == data, 600 if SOAK else 30)
    took = time.monotonic() - began
    counts = c.counts()
    print("took %.1f s, %.0f KiB/s, small %s, %s" % (took, size / took / 1024, small, counts))
    if SOAK:
        assert size / took > 100 * 1024 / SLOW
        assert sorted(small)[len(small) // 2] < 3 * SLOW
    assert counts["lost"] > 0
    # Nothing twice but what TCP repeats: 2 % loss, headers, acknowledgements.
    assert counts["bytes"] < 1.25 * size + 300000
    assert x["2"].metric("rollfs_chunks_again_total") == 0


if SOAK:
    def test_a_job_at_200_ms_and_1_percent_loss(lab, cable):
        c = cable(delay=0.1, loss=0.01)
        x = two_ends(lab, c)
        documents = [json.dumps(d).replace("9999", "1").replace("10000", "2")
                     for d in job_files("add")]
        x["1"].run(*map(json.loads, documents), seconds=300)


def through(labs, **options):
    """1 reaches 2 through a proxy."""
    made = []

    def setup(x):
        made.append(Proxy(x["2"].port, **options))
        x.cleanup.append(made[0].close)
        x["1"].o["to"] = {"2": made[0].address}
        x["1"].write_conf()
    x = labs({"1": {}, "2": {}}, setup=setup)
    return x.ready(), made[0]


def test_one_connection_in_five_is_reset(lab):
    x, proxy = through(lab, reset=0.2)
    n, size = (200, 20 * MIB) if SOAK else (12, 4 * MIB)
    files = {"r%d" % i: content("r%d" % i, 1, 1000 + i * 1234567 % size) for i in range(n)}
    total = sum(map(len, files.values()))
    for path, data in files.items():
        x["1"].put("2", path, data)
        # Connections are kept: new ones must be made to have some reset.
        proxy.sever()
    for path, data in files.items():
        eventually(lambda path=path, data=data: x["2"].got("1", path) == data, 30)
    breaks = proxy.resets + n
    print("%d connections, %d reset, %d bytes of %d" % (
        proxy.connections, proxy.resets, proxy.bytes_up, total))
    assert proxy.connections > 4
    assert proxy.bytes_up < 1.02 * total + (breaks + 1) * 4 * 4 * MIB
    eventually(lambda: not x["1"].leftovers() and not x["2"].leftovers(), 5)


def test_every_connection_is_reset_sooner_or_later(lab):
    """Progress, as long as a chunk gets through now and then."""
    x, proxy = through(lab, reset=1.0)
    data = content("stubborn", 1, (40 if SOAK else 6) * MIB)
    x["1"].put("2", "stubborn", data)
    try:
        eventually(lambda: x["2"].got("1", "stubborn") == data, 600 if SOAK else 60)
    finally:
        print(proxy.connections, "connections", proxy.resets, "reset", x["1"].line("2", "stubborn"))


@pytest.mark.parametrize("seconds", [60] if SOAK else [5])
def test_a_pulled_cable(lab, cable, seconds):
    """In the midst of a transfer; it goes on by itself when the cable is back,
    and what was acknowledged is not sent again."""
    c = cable(delay=0.005, rate=4e6)  # so that nobody is late to pull it
    x = two_ends(lab, c)
    size = 40 * MIB
    data = content("cable", 1, size)
    writer = threading.Thread(target=x["1"].put, args=("2", "cable", data))
    writer.start()

    def under_way():
        with contextlib.suppress(OSError, KeyError):  # it is not there yet
            return progress(x["1"], "2", "cable")[0] >= 8 * MIB
        return False
    eventually(under_way, 15)
    c.pull()
    writer.join()
    before = progress(x["1"], "2", "cable")[0]
    time.sleep(seconds)  # how long it is pulled is what is tested
    acknowledged, state = progress(x["1"], "2", "cable")
    assert before <= acknowledged < size and state in ("sending", "parked")
    bytes_then = c.counts()["bytes"]
    c.set(rate=0)
    c.plug()
    began = time.monotonic()
    eventually(lambda: x["2"].got("1", "cable") == data, 45)
    print("went on and ended after %.1f s" % (time.monotonic() - began))
    more = c.counts()["bytes"] - bytes_then
    # The rest, four chunks that were under way, and what TCP adds.
    assert more < 1.15 * (size - acknowledged + 4 * 4 * MIB), (more, acknowledged)
    assert x["2"].metric("rollfs_chunks_again_total") == 0
    eventually(lambda: not x["2"].leftovers(), 5)


def test_a_cable_that_is_pulled_while_nothing_is_under_way(lab, cable):
    """The kept connections are dead and nobody has said so."""
    c = cable(delay=0.001)
    x = two_ends(lab, c)
    x["1"].put("2", "one", content("one", 1, 5000))
    eventually(lambda: x["2"].got("1", "one"), 10)
    # The other end forgets its connections without a word reaching us.
    c.pull()
    x["2"].kill("rollsite")
    eventually(lambda: x["2"].pids("rollsite"), 10)
    c.plug()
    began = time.monotonic()
    data = content("two", 1, 300000)
    x["1"].put("2", "two", data)
    eventually(lambda: x["2"].got("1", "two") == data, 15)
    print("%.1f s" % (time.monotonic() - began))


def test_a_dead_party_slows_nobody(lab):
    """Four partners are silent (nothing comes back, nothing is refused), each
    with large files waiting; the fifth gets its own as always."""
    made = []

    def setup(x):
        for p in "3", "4", "5", "6":
            made.append(Proxy(x[p].port))
            x.cleanup.append(made[-1].close)
        x["1"].o["to"] = {p: made[i].address for i, p in enumerate(("3", "4", "5", "6"))}
        x["1"].write_conf()
    silent = {p: {"mount": False} for p in ("3", "4", "5", "6")}
    x = lab(dict({"1": {}, "2": {}}, **silent), setup=setup)
    x.ready(("1", "2"), *[("1", p) for p in silent])
    data = content("alive", 1, 24 * MIB)
    began = time.monotonic()
    x["1"].put("2", "before", data)
    eventually(lambda: x["1"].state_of("2", "before") == "committed", 20)
    usual = time.monotonic() - began
    for p in silent:
        # Announced and under way, then silence.
        x["1"].put(p, "dead", content("dead", 1, 40 * MIB))
    for proxy in made:
        proxy.cut()
    for p in silent:
        x["1"].put(p, "dead2", content("dead2", 1, 24 * MIB))
    began = time.monotonic()
    x["1"].put("2", "alive", data)
    # That is, before the silence of the others is taken for an end.
    eventually(lambda: x["1"].state_of("2", "alive") == "committed", 45, busy=0)
    took = time.monotonic() - began
    print("%.2f s alone, %.2f s beside the dead" % (usual, took))
    assert not SOAK or took < 5 * usual + 2
    for proxy in made:
        proxy.heal()
    for p in silent:
        eventually(lambda p=p: x["1"].state_of(p, "dead2") == "committed" and
                   x["1"].state_of(p, "dead") in ("committed", None), 60)


def test_a_party_whose_address_changes_while_a_file_waits(lab):
    """address is a file: what is written counts at once."""
    x = lab({"1": {"to": {"2": "https://127.0.0.1:1"}}, "2": {}})
    data = content("moved", 1, 300000)
    x["1"].put("2", "moved", data)
    eventually(lambda: x["1"].state_of("2", "moved") == "parked", 10)
    assert x["1"].attributes("2", "moved")["error"]
    with open(x["1"].path("parties/2/address"), "w") as f:
        f.write(x["2"].address + "\n")
    eventually(lambda: x["2"].got("1", "moved") == data, 10)


def test_a_partner_that_starts_late_finds_what_waits(lab):
    x = lab({"1": {}, "2": {}}, start=False)
    x["1"].start()
    data = content("early", 1, 300000)
    x["1"].put("2", "early", data)
    eventually(lambda: x["1"].state_of("2", "early") == "parked", 10)
    assert not os.path.exists(x["2"].path("federation"))
    x["2"].start()
    # Its pings reach 1, which need not wait for its own next try.
    eventually(lambda: x["2"].got("1", "early") == data, 15)
