# SPDX-License-Identifier: Apache-2.0
"""Ways through others: a relay that carries what it cannot read, a party that
only makes outgoing connections, and relays that do not do as they should."""
import os
import random
import re
import subprocess
import threading

import pytest
from conftest import BUILD, eventually, job_files
from net import (ALLOW, MIB, SOAK, Fake, Peer, Proxy, content, lab, labs, problem)
from test_exactly_once import chaos
from test_jobs import breast, quick_keys

_ = lab, labs  # fixtures

hooks = pytest.mark.skipif(os.path.basename(BUILD) == "release", reason="a release has no hooks")
CARRY = ["relay *"]


def star(parties, relay="3", **more):
    """Everybody through the relay, which has no mount and pushes nothing."""
    out = {relay: dict({"mount": False, "allow": {p: CARRY for p in parties}},
                       **more.pop("at_relay", {}))}
    for p in parties:
        out[p] = dict({"to": {q: "via " + relay for q in parties if q != p}}, **more)
    return out


def pairs(x, *parties):
    return x.ready(*[(a, b) for a in parties for b in parties if a != b])


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    return tmp_path_factory.mktemp("relay-wire")


@pytest.fixture(scope="module")
def x(labs, wire):
    """9999, 10000, 10001 around relay 3, whose traffic is recorded."""
    lab = labs(star(["9999", "10000", "10001"], at_relay={"env": {"ROLLFS_HOOK_WIRE": wire}}))
    pairs(lab, "9999", "10000", "10001")
    lab.upload_breast()
    return lab


def recorded(wire):
    return b"".join((wire / n).read_bytes() for n in os.listdir(wire))


def stands_still(a):
    """Attributes with a reason, and not in the midst of the next try."""
    return a.get("error") and a["state"] in ("parked", "failed") and a


def sent_and_seen(x, a, b, path, size, seconds=20):
    data = content(path, 1, size)
    x[a].put(b, path, data)
    eventually(lambda: x[b].got(a, path) == data, seconds)
    eventually(lambda: x[a].state_of(b, path) == "committed", 5)
    return data


@pytest.mark.parametrize("size", [0, 100, 65537, 9 * MIB])
def test_files_through_a_relay(x, size):
    sent_and_seen(x, "9999", "10000", "there/%d" % size, size)
    sent_and_seen(x, "10000", "9999", "back/%d" % size, size)


def test_a_job_through_a_relay(x):
    x["9999"].run(*job_files("add"), seconds=60)


def test_a_training_through_a_relay(x):
    dsl, conf = breast(max_iter=2)
    x["9999"].run(dsl, quick_keys(conf), seconds=120)


def test_the_relay_keeps_nothing(x):
    found = []
    for top, _dirs, names in os.walk(x["3"].state):
        found += [os.path.relpath(os.path.join(top, n), x["3"].state) for n in names]
    sizes = {n: os.path.getsize(os.path.join(x["3"].state, n)) for n in found
             if not n.endswith((".log", ".lock", ".sock", "lock"))}
    assert all(s == 0 for s in sizes.values()), sizes


@hooks
def test_the_relay_sees_nothing(x, wire):
    data = sent_and_seen(x, "9999", "10000", "confidential-path/secret-name", 5 * MIB)
    note = b"a sentence that nobody else may read " * 10
    x["9999"].put("10000", "confidential-path/note", note)
    eventually(lambda: x["10000"].got("9999", "confidential-path/note") == note, 10)
    all_of_it = recorded(wire)
    assert len(all_of_it) > 5 * MIB, "the hook recorded next to nothing"
    for word in (b"confidential-path", b"secret-name", b"a sentence that nobody", b"guest_forward",
                 b"paillier_pubkey", b"host_gradient", b"hetero_lr_0", b"secure_add",
                 b"create-job", b'"generation"', b"/v1/transfers/", b"/v1/messages"):
        assert word not in all_of_it, word
    for at in range(0, len(data) - 64, 65536):
        assert data[at:at + 64] not in all_of_it, at


@hooks
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_a_relay_that_flips_a_bit_is_caught(lab, n):
    x = lab(star(["1", "2"]), start=False)
    for p in "1", "2":
        x[p].start()
    x["3"].start_site(ROLLFS_HOOK_RELAY_FLIP=n)
    data = content("flipped", 1, 9 * MIB)
    x["1"].put("2", "flipped", data)
    small = content("flipped-too", 1, 100)
    x["1"].put("2", "flipped-too", small)
    eventually(lambda: x["2"].got("1", "flipped") == data, 25)
    eventually(lambda: x["2"].got("1", "flipped-too") == small, 10)
    for path in "flipped", "flipped-too":
        eventually(lambda path=path: x["1"].state_of("2", path) == "committed", 5)
    eventually(lambda: not x["2"].leftovers())


def test_a_loop_of_two_relays_is_refused(lab):
    x = lab({"1": {"to": {"2": "via 3"}, "allow": {}}, "2": {},
             "3": {"mount": False, "to": {"2": "via 4"}, "allow": {p: CARRY for p in "124"}},
             "4": {"mount": False, "to": {"2": "via 3"}, "allow": {p: CARRY for p in "123"}}})
    x["1"].put("2", "looped", content("looped", 1, 1000))
    a = eventually(lambda: stands_still(x["1"].attributes("2", "looped")), 10)
    assert "party 3" in a["error"], a
    # The same by hand: who finds out says so.
    r = Peer(x, "3", as_party="1").ask("POST", "/v1/relay/2", b"x" * 1000)
    assert r.code == 508 and r.json["hop"] == "4", (r.code, r.data)
    r = Peer(x, "3", as_party="4").ask("POST", "/v1/relay/2", b"x" * 1000,
                                       {"Rollfs-Via": "3,4"})
    assert r.code == 508 and r.json["hop"] == "3", (r.code, r.data)
    assert x["2"].got("1", "looped") is None
    # The way is mended: it goes on by itself.
    x["4"].kill("rollsite")
    x["4"].o["to"] = {}
    x["4"].write_conf()
    x["4"].start()
    with open(x["1"].path("parties/2/ping"), "w") as f:
        f.write("\n")
    eventually(lambda: x["2"].got("1", "looped") is not None, 25)


def test_two_relays_in_a_row(lab):
    x = lab({"1": {"to": {"2": "via 3"}},
             "2": {"to": {"1": "via 4"}},
             "3": {"mount": False, "to": {"2": "via 4"}, "allow": {p: CARRY for p in "124"}},
             "4": {"mount": False, "to": {"1": "via 3"}, "allow": {p: CARRY for p in "123"}}})
    pairs(x, "1", "2")
    sent_and_seen(x, "1", "2", "far", 5 * MIB)
    sent_and_seen(x, "2", "1", "back", 70000)


def test_more_hops_than_allowed(lab):
    """Five relays in a row are one too many."""
    ids = ["3", "4", "5", "6", "7"]
    options = {"1": {"to": {"2": "via 3"}}, "2": {"to": {"1": "via 7"}}}
    for i, r in enumerate(ids):
        options[r] = {"mount": False, "allow": {p: CARRY for p in ["1", "2", *ids]}, "to": {}}
        if i + 1 < len(ids):
            options[r]["to"]["2"] = "via " + ids[i + 1]
    x = lab(options)
    x["1"].put("2", "toofar", content("toofar", 1, 1000))
    eventually(lambda: stands_still(x["1"].attributes("2", "toofar")), 10)
    assert x["2"].got("1", "toofar") is None


def test_a_relay_carries_only_what_its_policy_allows(lab):
    options = star(["1", "2"], at_relay={"mount": True, "allow": {"1": list(ALLOW), "2": CARRY}})
    x = lab(options)
    x["1"].put("2", "policy", content("policy", 1, 1000))
    a = eventually(lambda: stands_still(x["1"].attributes("2", "policy")), 10)
    assert "3" in a["error"], a
    eventually(lambda: x["3"].audit("1"), 5)
    assert x["2"].got("1", "policy") is None
    with open(x["3"].path("parties/1/allow"), "w") as f:
        f.write("relay 2\n")
    x["1"].put("2", "policy", content("policy", 2, 1000))
    eventually(lambda: x["2"].got("1", "policy") == content("policy", 2, 1000), 15)
    # The relay itself may not push: it is nobody's partner.
    assert Peer(x, "2", as_party="3").ask("GET", "/v1/hello").code in (200, 403)


# ---- a relay in the hands of the test ---------------------------------------


class Crooked:
    """Party 3 as a relay that can do anything with what it carries."""

    def __init__(self, x):
        self.x, self.change, self.seen = x, None, []
        self.fake = Fake(x, "3", self.say)
        self.local = threading.local()

    def forward(self, to, target, body, headers=None):
        return self.ask(to, "POST", target, body, headers)

    def ask(self, to, method, target, body=None, headers=None):
        peers = self.local.__dict__.setdefault("peers", {})
        p = peers.setdefault(to, Peer(self.x, to, as_party="3"))
        return p.ask(method, target, body, headers)

    def say(self, q):
        m = re.match(r"/v1/(relay|card)/(\d+)$", q.target)
        if not m:
            return None
        if m.group(1) == "card":
            r = self.ask(m.group(2), "GET", q.target)
            return r.code, (Body(r.data), {})
        headers = {k: v for k, v in q.headers.items() if k.lower() in ("via", "rollfs-via")}
        headers = headers or {}
        body = q.body
        if self.change:
            body = self.change("request", m.group(2), body)
            if body is None:
                return 503, problem(503, "busy", "not now")
        self.seen.append((m.group(2), q.target, body, headers))
        try:
            r = self.forward(m.group(2), q.target, body, headers)
        except OSError:
            return 502, problem(502, "no_route", "no answer")
        data = r.data
        if self.change and r.code == 200:
            data = self.change("answer", m.group(2), data)
        keep = {k: v for k, v in r.headers.items() if k.lower().startswith("rollfs-")}
        keep["Content-Type"] = r.headers.get("Content-Type", "application/octet-stream")
        return r.code, (Body(data), keep)


class Body(bytes):
    """A body that is no JSON."""


@pytest.fixture(scope="module")
def crooked(labs):
    x = labs(star(["1", "2"]), start=False)
    c = Crooked(x)
    for p in "1", "2":
        x[p].start()
    c.x.ready(("1", "2"), ("2", "1"))
    return c


@pytest.fixture(autouse=True)
def honest(request):
    yield
    if "crooked" in request.fixturenames:
        request.getfixturevalue("crooked").change = None


def test_the_relay_of_the_test_is_one(crooked):
    sent_and_seen(crooked.x, "1", "2", "plain", 5 * MIB)


def test_what_was_carried_once_is_not_taken_again(crooked):
    """A file is sent; everything that went by is said again: refused, and
    nothing changes."""
    x = crooked.x
    del crooked.seen[:]
    data = sent_and_seen(x, "1", "2", "replayed", 3 * MIB)
    mine = [s for s in crooked.seen if s[0] == "2"]
    assert len(mine) >= 3
    os.unlink(x["2"].path("federation/1/inbox/replayed"))
    audits = len(x["2"].audit())
    for to, target, body, headers in mine:
        r = crooked.forward(to, target, body, headers)
        assert r.code in (400, 403, 409, 422), (r.code, r.data[:200])
    assert x["2"].got("1", "replayed") is None
    eventually(lambda: len(x["2"].audit()) > audits)
    eventually(lambda: not x["2"].leftovers())
    assert data


def test_bits_flipped_anywhere(crooked, rng):
    x, n = crooked.x, [0]

    def change(what, _to, body):
        n[0] += 1
        if n[0] % 3 or not body:
            return body
        at = rng.choice([rng.randrange(min(len(body), 300)), rng.randrange(len(body)),
                         len(body) - 1])
        return body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1:]
    crooked.change = change
    sent_and_seen(x, "1", "2", "bits", 9 * MIB, 40)
    assert n[0] > 5


def test_cut_and_grown_and_swapped(crooked, rng):
    x, last, n = crooked.x, {}, [0]

    def change(what, to, body):
        n[0] += 1
        kind = rng.randrange(8)
        old, last[what, to] = last.get((what, to)), body
        if kind == 0:
            return body[:rng.randrange(len(body) + 1)]
        if kind == 1:
            return body + b"\0" * 17
        if kind == 2 and old is not None:
            return old  # an older one in its place
        if kind == 3 and what == "request":
            return None  # not carried at all
        return body
    crooked.change = change
    sent_and_seen(x, "1", "2", "swapped", 9 * MIB, 40)


def test_an_envelope_for_another_is_refused(crooked):
    """What 1 sealed for 2 does not open at 1, and the relay cannot put its
    own name on it."""
    x = crooked.x
    del crooked.seen[:]
    sent_and_seen(x, "1", "2", "sealed", 1000)
    mine = [s for s in crooked.seen if s[0] == "2"]
    for _to, _target, body, headers in mine:
        r = crooked.forward("1", "/v1/relay/1", body, headers)
        assert r.code in (400, 403, 404, 409, 422), (r.code, r.data[:200])
        r = crooked.forward("2", "/v1/relay/2", body.replace(b'"src":"1"', b'"src":"3"'), headers)
        assert r.code in (400, 403, 409, 422), (r.code, r.data[:200])


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\2\0\0\0{}",
                                  b"\x10\0\0\0" + b"{" * 16, b"x" * 100000],
                         ids=range(6))
def test_envelopes_that_are_none(crooked, body):
    r = crooked.forward("2", "/v1/relay/2", body)
    assert r.code in (400, 403, 413, 422), (r.code, r.data[:200])


# ---- only outgoing connections ------------------------------------------------


def listening(p):
    """TCP ports that the party's rollsite listens on."""
    out = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    return [li for li in out.splitlines() if "pid=%d," % p.pid("rollsite") in li]


@pytest.fixture(scope="module")
def reverse(labs):
    """10000 cannot be connected to; 9999 is asked by it."""
    x = labs({"9999": {}, "10000": {"listen": "none"}})
    return pairs(x, "9999", "10000")


@pytest.mark.parametrize("size", [0, 100, 65537, 9 * MIB])
def test_files_to_and_from_a_party_that_only_asks(reverse, size):
    sent_and_seen(reverse, "9999", "10000", "r/%d" % size, size)
    sent_and_seen(reverse, "10000", "9999", "r/%d" % size, size)


def test_it_does_not_listen(reverse):
    assert listening(reverse["10000"]) == []
    assert len(listening(reverse["9999"])) == 1


def test_a_job_with_a_party_that_only_asks(reverse):
    reverse["9999"].run(*job_files("add"), seconds=60)


@pytest.mark.parametrize("victim", ["9999", "10000"])
def test_death_while_it_asks(reverse, victim):
    data = content("killed-" + victim, 1, 24 * MIB)
    reverse["9999"].put("10000", "killed-" + victim, data)
    eventually(lambda: int(reverse["9999"].attributes("10000", "killed-" + victim)
                           ["acknowledged"]) > 0 or
               reverse["9999"].state_of("10000", "killed-" + victim) == "committed", 10)
    reverse[victim].kill("rollsite")
    eventually(lambda: reverse["10000"].got("9999", "killed-" + victim) == data, 30)
    eventually(lambda: not reverse["10000"].leftovers(), 5)


def test_one_cannot_ask_for_what_is_anothers(reverse):
    """The poll of a party gives only its own requests: a stranger's none."""
    p = Peer(reverse, "9999")
    assert p.refused("POST", "/v1/reverse", b"")


def test_both_ends_only_ask(lab):
    """Neither can be connected to: the relay is asked by both."""
    x = lab({"1": {"listen": "none", "to": {"2": "via 3"}},
             "2": {"listen": "none", "to": {"1": "via 3"}},
             "3": {"mount": False, "allow": {p: CARRY for p in "12"}}})
    pairs(x, "1", "2")
    sent_and_seen(x, "1", "2", "both", 5 * MIB)
    sent_and_seen(x, "2", "1", "both", 70000)


# ---- death of the relay ---------------------------------------------------------


def test_kills_of_sender_receiver_and_relay(lab, rng):
    made = []

    def way(x):
        made.append(Proxy(x["3"].port))
        x.cleanup.append(made[0].close)
        x["1"].o["to"]["3"] = made[0].address
        x["1"].write_conf()
    x = pairs(lab(star(["1", "2"]), setup=way), "1", "2")
    rng = random.SystemRandom() if SOAK else rng
    kills = 1000 if SOAK else 12
    report = chaos(x, made[0], kills, 300 if SOAK else 6, 30 * MIB if SOAK else 8 * MIB, rng,
                   [("3", "rollsite")] * 3 + [("1", "rollsite"), ("2", "rollsite"), "network"],
                   0.3, 120 if SOAK else 30)
    print(report)
    assert report["again"] <= 4 * kills
    assert report["sent"] <= 1.05 * report["written"] + (kills + 1) * 16 * MIB
