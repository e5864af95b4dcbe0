# SPDX-License-Identifier: Apache-2.0
"""Every state that a transfer can be in, and the reason that cat shows.  The
partner is a server of the test, which answers what it is told."""
import contextlib
import errno
import os
import threading

import pytest
from conftest import eventually
from net import MIB, Fake, content, labs, problem

_ = labs  # a fixture


@pytest.fixture(scope="module")
def x(labs):
    lab = labs({"1": {}, "2": {"mount": False}}, start=False)
    lab["1"].start()
    lab.fake = Fake(lab, "2")
    return lab.ready(("1", "2"))


@pytest.fixture(autouse=True)
def usual(x):
    """Each test begins and ends with a partner that takes everything."""
    x.fake.say, x.gate = None, threading.Event()
    x["1"].ping = lambda: open(x["1"].path("parties/2/ping"), "w").close()
    yield
    x.gate.set()
    x.fake.say = None
    with contextlib.suppress(OSError):
        for top, _dirs, names in os.walk(x["1"].path("federation/2")):
            if "inbox" not in top and "pull" not in top:
                for n in names:
                    os.unlink(os.path.join(top, n))
    eventually(lambda: not x["1"].leftovers(), 5)


def becomes(x, path, state, seconds=10, line=False):
    eventually(lambda: x["1"].state_of("2", path) == state, seconds)
    if line:
        eventually(lambda: " %s " % state in x["1"].line("2", path), 3)
    return x["1"].attributes("2", path)


def held(x, what):
    """The partner does not answer these until the gate opens."""
    def say(q):
        if q.what == what:
            x.gate.wait(120)
    x.fake.say = say


def refusing(x, what, code, word, detail, times=1 << 30):
    left = [times]

    def say(q):
        if q.what in what and left[0] > 0:
            left[0] -= 1
            return code, problem(code, word, detail)
        return None
    x.fake.say = say


def test_queued_behind_a_way_that_does_not_work(x):
    x.fake.close()
    try:
        x["1"].put("2", "first", content("first", 1, 5000))
        a = becomes(x, "first", "parked", line=True)
        assert a["error"] and "2" in a["error"], a
        x["1"].put("2", "second", content("second", 1, 5000))
        eventually(lambda: x["1"].state_of("2", "second") in ("queued", "parked"), 5)
        a = x["1"].attributes("2", "second")
        assert a["error"] and a["acknowledged"] == "0", a
    finally:
        x.fake.__init__(x, "2")
    becomes(x, "first", "committed", 20)
    becomes(x, "second", "committed", 20)


def test_announced_while_it_waits_for_its_writer(x):
    data = content("written", 1, 9 * MIB)
    fd = os.open(x["1"].path("federation/2/written"), os.O_WRONLY | os.O_CREAT)
    try:
        os.write(fd, data[:5 * MIB])
        eventually(lambda: x.fake.count("chunk"), 10)
        eventually(lambda: x["1"].line("2", "written"), 5)
        line = eventually(lambda: " announced " in x["1"].line("2", "written") and
                          x["1"].line("2", "written"), 10)
        assert " 4194304/" in line, line
        assert not x.fake.count("commit", x.fake.requests[-1].tid)
        os.write(fd, data[5 * MIB:])
    finally:
        os.close(fd)
    becomes(x, "written", "committed")
    manifest = [q for q in x.fake.requests if q.what == "commit"][-1].doc
    assert manifest["size"] == len(data)


def test_sending(x):
    held(x, "chunk")
    x["1"].put("2", "sending", content("sending", 1, 9 * MIB))
    a = becomes(x, "sending", "sending", line=True)
    assert a["acknowledged"] == "0" and a["size"] == str(9 * MIB)
    x.gate.set()
    a = becomes(x, "sending", "committed")
    assert a["acknowledged"] == str(9 * MIB)


def test_committing(x):
    held(x, "commit")
    x["1"].put("2", "committing", content("committing", 1, 300000))
    a = becomes(x, "committing", "committing", line=True)
    assert a["acknowledged"] == "300000"
    x.gate.set()
    becomes(x, "committing", "committed")


def test_committed_with_the_receipt_of_the_partner(x):
    x["1"].put("2", "done", content("done", 1, 100))
    a = becomes(x, "done", "committed", line=True)
    assert '"receiver":"2"' in a["receipt"].replace(" ", "") and "signature" in a["receipt"]
    assert a["error"] == ""


@pytest.mark.parametrize("change", [{"root": "0" * 64}, {"size": 7}, {"receiver": "3"}])
def test_a_receipt_for_something_else_is_not_believed(x, change):
    name = "lie-" + next(iter(change))

    def say(q):
        if q.what == "commit":
            return 200, {"state": "committed", "receipt": x.fake.receipt(q.doc, **change)}
        return None
    x.fake.say = say
    x["1"].put("2", name, content(name, 1, 100))
    eventually(lambda: x.fake.count("commit"), 5)
    eventually(lambda: x["1"].state_of("2", name) in ("parked", "failed"), 10)
    assert x["1"].attributes("2", name)["error"]


def test_parked_for_space_and_continued(x):
    refusing(x, ("announce",), 507, "no_space", "no space: 300000 bytes are needed")
    x["1"].put("2", "parked", content("parked", 1, 300000))
    a = becomes(x, "parked", "parked", line=True)
    assert "no space" in a["error"] and float(a["next_try"]) >= 0, a
    eventually(lambda: "no space" in x["1"].line("2", "parked"), 3)
    x.fake.say = None
    becomes(x, "parked", "committed", 20)


@pytest.mark.parametrize("code,word", [(503, "busy"), (500, "failed"), (507, "no_space"),
                                       (429, "busy")])
@pytest.mark.parametrize("what", ["announce", "chunk", "commit"])
def test_passing_trouble_is_tried_again(x, code, word, what):
    name = "passing-%s-%d" % (what, code)
    refusing(x, (what,), code, word, "not now", 1 if code == 507 else 2)
    x["1"].put("2", name, content(name, 1, 300000))
    becomes(x, name, "committed", 20)


@pytest.mark.parametrize("code,word,no", [
    (403, "not_allowed", errno.EACCES), (409, "key_conflict", errno.EEXIST),
    (413, "too_large", errno.EFBIG), (400, "invalid", errno.EINVAL)])
@pytest.mark.parametrize("what", ["announce", "chunk", "commit"])
def test_failed_for_good(x, code, word, no, what):
    name = "refused-%s-%d" % (what, code)
    refusing(x, (what,), code, word, "the reason of the partner")
    fd = os.open(x["1"].path("federation/2", name), os.O_WRONLY | os.O_CREAT)
    try:
        os.write(fd, content(name, 1, 300000))
        with pytest.raises(OSError) as e:
            os.fsync(fd)
        assert e.value.errno == no, e.value
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
    a = becomes(x, name, "failed")
    assert "the reason of the partner" in a["error"], a
    if (what, code) == ("announce", 403):
        eventually(lambda: "the reason of the partner" in x["1"].line("2", name), 3)
    n = len(x.fake.requests)
    x["1"].put("2", name + "-next", content("n", 1, 100))
    becomes(x, name + "-next", "failed" if what == "commit" else "committed")
    assert all(q.tid != x.fake.requests[n - 1].tid for q in x.fake.requests[n:]
               if q.what in ("announce", "chunk", "commit"))


def test_damaged_on_the_way_is_sent_again_but_not_for_ever(x):
    refusing(x, ("chunk",), 422, "digest_mismatch", "the digest does not match", 2)
    x["1"].put("2", "flip", content("flip", 1, 300000))
    becomes(x, "flip", "committed")
    refusing(x, ("chunk",), 422, "digest_mismatch", "the digest does not match")
    n = x.fake.count("chunk")
    x["1"].put("2", "flips", content("flips", 1, 300000))
    a = becomes(x, "flips", "failed", line=True)
    assert "digest" in a["error"] and 3 <= x.fake.count("chunk") - n <= 10


def test_withdrawn_while_it_is_sent(x):
    held(x, "chunk")
    f = x["1"].put("2", "withdrawn", content("withdrawn", 1, 9 * MIB))
    becomes(x, "withdrawn", "sending")
    tid = x["1"].attributes("2", "withdrawn")["tid"]
    os.unlink(f)
    eventually(lambda: x["1"].line("2", "withdrawn") == "", 3)
    x.gate.set()
    eventually(lambda: x.fake.count("abort", tid), 10)
    assert not x.fake.count("commit", tid)


def test_withdrawn_while_it_is_parked(x):
    refusing(x, ("announce",), 507, "no_space", "no space")
    f = x["1"].put("2", "withdrawn2", content("withdrawn2", 1, 300000))
    tid = becomes(x, "withdrawn2", "parked")["tid"]
    os.unlink(f)
    x.fake.say = None
    eventually(lambda: x["1"].line("2", "withdrawn2") == "", 3)
    x["1"].put("2", "after", content("after", 1, 300000))
    becomes(x, "after", "committed")
    assert not x.fake.count("commit", tid)


def test_replaced_while_it_is_sent(x):
    """The older generation is withdrawn, the newer one arrives."""
    held(x, "chunk")
    x["1"].put("2", "replaced", content("replaced", 1, 9 * MIB))
    old = becomes(x, "replaced", "sending")["tid"]
    new = content("replaced", 2, 5 * MIB)
    x["1"].put("2", "replaced", new)
    x.gate.set()
    a = becomes(x, "replaced", "committed", 15)
    assert a["size"] == str(len(new)) and a["tid"] != old
    assert not x.fake.count("commit", old)
    eventually(lambda: x.fake.count("abort", old), 10)


def test_its_deadline_has_passed(x):
    refusing(x, ("announce",), 507, "no_space", "no space: as always")
    f = x["1"].put("2", "late", content("late", 1, 300000))
    becomes(x, "late", "parked")
    os.setxattr(f, "user.rollfs.deadline", b"1")
    a = becomes(x, "late", "failed")
    assert "no space: as always" in a["error"] or "deadline" in a["error"], a
    fd = os.open(f, os.O_RDONLY)
    with pytest.raises(OSError) as e:
        os.fsync(fd)
    os.close(fd)
    assert e.value.errno == errno.ETIMEDOUT


def test_a_deadline_holds_also_when_the_party_is_away(x):
    x.fake.close()
    try:
        # The way has failed some times: its next try is some time away.
        f = x["1"].put("2", "away", content("away", 1, 300000))
        eventually(lambda: int(x["1"].attributes("2", "away")["attempts"]) >= 3 or
                   float(x["1"].attributes("2", "away")["next_try"]) > 1, 15)
        os.setxattr(f, "user.rollfs.deadline", b"1")
        tried = int(x["1"].attributes("2", "away")["attempts"])
        a = becomes(x, "away", "failed", 4)
        assert int(a["attempts"]) >= tried
    finally:
        x.fake.__init__(x, "2")
    x.ready(("1", "2"))


def test_a_way_that_fails_is_seen_by_ping_at_once(x):
    x.ready(("1", "2"))
    x.fake.close()
    try:
        x["1"].put("2", "seen", content("seen", 1, 300000))
        becomes(x, "seen", "parked")
        # The transfer's word, before the next ping.
        eventually(lambda: x["1"].read("parties/2/ping").startswith("failed"), 5)
    finally:
        x.fake.__init__(x, "2")
    a = becomes(x, "seen", "committed", 20)
    assert int(a["attempts"]) >= 2


def test_a_partner_that_forgot_gets_everything_again(x):
    """404 for a chunk: announced anew, nothing taken for granted."""
    refusing(x, ("chunk", "commit"), 404, "unknown_transfer", "no such transfer", 1)
    x["1"].put("2", "forgot", content("forgot", 1, 9 * MIB))
    a = becomes(x, "forgot", "committed")
    tid = a["tid"]
    assert x.fake.count("announce", tid) == 2
    chunks = {q.index for q in x.fake.requests if q.tid == tid and q.what == "chunk"}
    assert chunks == {0, 1, 2}


def test_what_is_there_already_is_not_sent(x):
    """The partner has chunk 1 of an earlier life of ours."""
    import hashlib
    data = content("there", 1, 9 * MIB)
    digest = hashlib.sha256(data[4 * MIB:8 * MIB]).digest()

    def say(q):
        if q.what == "announce":
            return 200, {"state": "receiving", "have": "1", "credit": 16}
        if q.what == "state" and "digests" in q.target:
            return 200, Raw(bytes(32) + digest)
        return None
    x.fake.say = say
    x["1"].put("2", "there", data)
    tid = becomes(x, "there", "committed")["tid"]
    assert {q.index for q in x.fake.requests if q.tid == tid and q.what == "chunk"} == {0, 2}


class Raw(bytes):
    """A body that is no JSON."""


def test_one_that_waits_holds_up_no_other(x):
    """No space for one file; the next ones go by."""
    def say(q):
        if q.what == "announce" and q.doc["path"] == "big":
            return 507, problem(507, "no_space", "no space")
        return None
    x.fake.say = say
    x["1"].put("2", "big", content("big", 1, 9 * MIB))
    becomes(x, "big", "parked")
    for i in range(5):
        x["1"].put("2", "small%d" % i, content("small%d" % i, 1, 300000))
    for i in range(5):
        becomes(x, "small%d" % i, "committed", 5)
    assert x["1"].state_of("2", "big") == "parked"
