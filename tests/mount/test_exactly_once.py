# SPDX-License-Identifier: Apache-2.0
"""Every file arrives, whole, once, whoever dies on the way or says the same
thing twice."""
import concurrent.futures
import contextlib
import fcntl
import os
import random
import signal
import socket
import struct
import threading
import time

import pytest
from conftest import BUILD, SLOW, eventually, read
from net import (MIB, SOAK, Peer, Proxy, chunks_of, content, content_check, digest_header,
                 file_doc, lab, labs, tid_of)

_ = lab, labs  # fixtures

hooks = pytest.mark.skipif(os.path.basename(BUILD) == "release", reason="a release has no hooks")


# ---- the same thing said twice, by hand ------------------------------------


@pytest.fixture(scope="module")
def receiver(labs):
    """Party 2; party 1 is only its certificate."""
    x = labs({"1": {"alone": True, "mount": False}, "2": {}}, start=False)
    x["2"].start()
    return x


@pytest.fixture
def peer(receiver):
    return Peer(receiver, "2", as_party="1")


def inbox(x, path):
    return x["2"].got("1", path)


class Looking:
    """Reads a file of the inbox all the time: it is whole or not there."""

    def __init__(self, x, path, want):
        self.x, self.path, self.want = x, path, want
        self.stop, self.bad, self.seen = False, [], 0

    def __enter__(self):
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.stop:
            data = inbox(self.x, self.path)
            if data is not None:
                self.seen += 1
                if data != self.want:
                    self.bad.append(len(data))

    def __exit__(self, *_):
        self.stop = True
        self.thread.join()
        assert not self.bad, "bytes seen of %d: %s" % (len(self.want), self.bad[:10])


def until(ask, codes, busy=(503,), seconds=60):
    """Repeats a request while the answer is "busy"."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        r = ask()
        if r.code not in busy:
            assert r.code in codes, (r.code, r.data)
            return r
        assert time.monotonic() < deadline, r.data
        time.sleep(0.01)


def in_parallel(n, fn):
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        return [f.result() for f in [pool.submit(fn, i) for i in range(n)]]


def receipts(answers):
    """The one receipt of them all."""
    all_of_them = [r.json["receipt"] for r in answers]
    assert all(r == all_of_them[0] for r in all_of_them), all_of_them
    return all_of_them[0]


def once(x, doc):
    """One commit in the audit trail, nothing left over."""
    lines = eventually(lambda: [li for li in x["2"].audit(tid_of(doc)[:16])
                                if "commit" in li.split("audit", 1)[1] and "refused" not in li])
    assert len(lines) == 1, lines
    eventually(lambda: not x["2"].leftovers())


def test_a_storm_of_whole_transfers(receiver, peer):
    data = content("storm/chunked", 1, 5 * MIB + 17)
    doc = file_doc("1", "2", "storm/chunked", size=len(data))
    parts = chunks_of(data, doc["chunk_size"])

    def all_of_it(i):
        rng, p = random.Random(i), Peer(receiver, "2", as_party="1")
        for _again in range(2):
            until(lambda: p.announce(doc), (200, 201))
            order = list(range(len(parts))) * 2
            rng.shuffle(order)
            for k in order:
                # After the commit there is nothing that takes chunks.
                until(lambda k=k: p.chunk(doc, k, parts[k]), (200, 201, 404))
            last = until(lambda: p.commit(doc, data), (200,))
        return last
    with Looking(receiver, "storm/chunked", data):
        answers = in_parallel(6, all_of_it)
        eventually(lambda: inbox(receiver, "storm/chunked") == data)
    assert receipts(answers)["size"] == len(data)
    assert receipts([peer.announce(doc), peer.state(doc), *answers[:1]])
    once(receiver, doc)


@pytest.mark.parametrize("size", [0, 1, 65536])
def test_a_storm_of_inline_commits(receiver, size):
    path = "storm/inline%d" % size
    data = content(path, 1, size)
    doc = file_doc("1", "2", path, size=len(data))
    manifest = Peer(receiver, "2", as_party="1").manifest(doc, data)

    def commit(_i):
        p = Peer(receiver, "2", as_party="1")
        for _again in range(20):
            last = until(lambda: p.commit(doc, data, inline=True, manifest=manifest), (200,))
        return last
    with Looking(receiver, path, data):
        answers = in_parallel(8, commit)
        eventually(lambda: inbox(receiver, path) == data)
    receipts(answers)
    once(receiver, doc)


def test_other_content_under_the_same_key_never_wins(receiver):
    """Two contents race, inline: one is committed, the other refused for ever,
    and what is visible is what the receipt says."""
    for turn in range(10):
        path = "race%d" % turn
        both = [content(path, 1, 60000), content(path, 2, 60000)]
        doc = file_doc("1", "2", path, size=60000)

        def commit(i):
            p = Peer(receiver, "2", as_party="1")
            return until(lambda: p.commit(doc, both[i % 2], inline=True), (200, 409))
        answers = in_parallel(4, commit)
        good = [i for i, r in enumerate(answers) if r.code == 200]
        assert {i % 2 for i in good} in ({0}, {1}), [r.code for r in answers]
        receipts([answers[i] for i in good])
        assert inbox(receiver, path) == both[good[0] % 2]
        once(receiver, doc)


def test_the_same_generation_with_other_content_is_refused(receiver, peer):
    data = content("other", 1, 3 * MIB)
    doc = file_doc("1", "2", "other", size=len(data))
    first = peer.push(doc, data)
    assert first.code == 200
    changed = b"x" + data[1:]
    r = peer.commit(doc, changed)
    assert r.code == 409 and r.json["code"], r.data
    assert r.headers["Content-Type"] == "application/problem+json"
    assert inbox(receiver, "other") == data
    assert peer.commit(doc, data).json["receipt"] == first.json["receipt"]


def test_an_older_generation_never_replaces_a_newer_one(receiver, peer):
    new, old = content("gen", 7, 300000), content("gen", 5, 300000)
    assert peer.push(file_doc("1", "2", "gen", 7, len(new)), new).code == 200
    doc = file_doc("1", "2", "gen", 5, len(old))
    r = peer.announce(doc)
    assert r.code == 410, (r.code, r.data)
    r = peer.commit(doc, old)
    assert r.code == 410, (r.code, r.data)
    assert inbox(receiver, "gen") == new
    eventually(lambda: not receiver["2"].leftovers())


def test_an_older_generation_that_was_under_way_is_given_up(receiver, peer):
    old, new = content("slow", 1, 2 * MIB), content("slow", 2, 2 * MIB)
    first = file_doc("1", "2", "slow", 1, len(old))
    assert peer.announce(first).code == 201
    for i, c in enumerate(chunks_of(old, MIB)):
        assert peer.chunk(first, i, c).code == 201
    assert peer.push(file_doc("1", "2", "slow", 2, len(new)), new).code == 200
    r = peer.commit(first, old)
    assert r.code == 410, (r.code, r.data)
    assert inbox(receiver, "slow") == new
    assert peer.abort(first).code in (200, 204)
    eventually(lambda: not receiver["2"].leftovers())


def test_wrong_digests_and_places_of_chunks(receiver, peer):
    data = content("places", 1, 2 * MIB + 5)
    doc = file_doc("1", "2", "places", size=len(data))
    parts = chunks_of(data, MIB)
    assert peer.announce(doc).code == 201
    assert peer.chunk(doc, 0, parts[0], digest_header(parts[1])).code == 422
    assert peer.chunk(doc, 0, parts[0], {"Content-Digest": "md5=:x:"}).code == 400
    assert peer.chunk(doc, 0, parts[0], {"X": "y"}).code == 400
    assert peer.chunk(doc, 0, parts[0][:-1]).code == 400
    assert peer.chunk(doc, 2, parts[0]).code in (400, 413)
    for index in ("3", "262144", "4294967296", "99999999999999999999", "-1", "x", "", "0x0",
                  "+1", "1.0", "1/2"):
        r = peer.chunk(doc, index, parts[2])
        assert r.code in (400, 404, 416), (index, r.code)
    assert peer.chunk(doc, 3, parts[2]).code == 416
    assert peer.state(doc).json["have"] == ""
    assert peer.chunk(doc, 2, parts[2]).code == 201
    assert peer.state(doc).json["have"] == "2"
    r = peer.commit(doc, data)
    assert r.code == 409 and r.json["missing"] == "0-1", r.data
    assert peer.chunk(doc, 1, parts[1]).code == 201
    assert peer.chunk(doc, 1, parts[1]).code == 200
    r = peer.commit(doc, data)
    assert r.code == 409 and r.json["missing"] == "0", r.data
    # Other bytes for a chunk that is there: the commit says so, and they can
    # be replaced.
    assert peer.chunk(doc, 0, parts[1]).code == 201
    r = peer.commit(doc, data)
    assert r.code == 409 and r.json["code"] == "root_mismatch", r.data
    assert inbox(receiver, "places") is None
    assert peer.chunk(doc, 0, parts[0]).code == 201
    assert peer.commit(doc, data).code == 200
    assert inbox(receiver, "places") == data
    once(receiver, doc)


def test_a_manifest_of_somebody_else_is_refused(receiver, peer):
    data = content("forged", 1, 1000)
    doc = file_doc("1", "2", "forged", size=len(data))
    good = peer.manifest(doc, data)
    forged = Peer(receiver, "2", as_party="1")
    forged.key = os.path.join(receiver.etc, "2.key")
    for manifest in (dict(good, signature=""), dict(good, signature="AAAA"),
                     dict(good, created=good["created"] + 1), forged.manifest(doc, data),
                     {k: v for k, v in good.items() if k != "signature"}):
        r = peer.commit(doc, data, inline=True, manifest=manifest)
        assert r.code in (400, 403, 422), (r.code, r.data)
    assert inbox(receiver, "forged") is None
    assert peer.commit(doc, data, inline=True, manifest=good).code == 200


def test_withdrawn_and_announced_again(receiver, peer):
    data = content("again", 1, 2 * MIB)
    doc = file_doc("1", "2", "again", size=len(data))
    for _turn in range(5):
        assert peer.announce(doc).code == 201
        assert peer.chunk(doc, 0, data[:MIB]).code == 201
        assert peer.abort(doc).code in (200, 204)
        assert peer.abort(doc).code in (200, 204, 404)
        assert peer.chunk(doc, 1, data[MIB:]).code == 404
        assert peer.state(doc).code == 404
        eventually(lambda: not receiver["2"].leftovers())
    assert peer.push(doc, data).code == 200
    assert inbox(receiver, "again") == data
    r = peer.abort(doc)
    assert r.code == 409, (r.code, r.data)
    assert inbox(receiver, "again") == data


def test_withdrawals_and_announcements_at_once(receiver):
    """Whatever the order: a receipt means that the file is there."""
    data = content("flicker", 1, 300000)
    doc = file_doc("1", "2", "flicker", size=len(data))
    stop = time.monotonic() + 2 * SLOW

    def push(_i):
        p = Peer(receiver, "2", as_party="1")
        while time.monotonic() < stop:
            p.announce(doc)
            p.chunk(doc, 0, data)
            if p.commit(doc, data).code == 200:
                assert inbox(receiver, "flicker") == data
                return True
        return False

    def abort(_i):
        p = Peer(receiver, "2", as_party="1")
        while time.monotonic() < stop:
            if p.abort(doc).code == 409:
                return
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        aborts = [pool.submit(abort, i) for i in range(2)]
        pool.submit(push, 0).result()
        stop = 0
        for f in aborts:
            f.result()
    p = Peer(receiver, "2", as_party="1")
    if p.state(doc).code != 200 or p.state(doc).json["state"] != "committed":
        p.push(doc, data)
    assert inbox(receiver, "flicker") == data
    eventually(lambda: not receiver["2"].leftovers())


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"v":1}', b"[" * 100000, b"{" * 15000,
    b'{"v":1,"v":1}'], ids=lambda b: "%d-%.6s" % (len(b), b.hex()))
def test_documents_that_are_none(receiver, peer, body):
    tid = "a" * 64
    assert peer.ask("PUT", "/v1/transfers/" + tid, body).code in (400, 413)
    framed = len(body).to_bytes(4, "little") + body
    assert peer.ask("POST", "/v1/transfers/%s/commit" % tid, framed).code in (400, 413)
    assert peer.ask("POST", "/v1/transfers/%s/commit" % tid, body).code in (400, 413)
    eventually(lambda: not receiver["2"].leftovers())


@pytest.mark.parametrize("change", [
    {"chunk_size": 1}, {"chunk_size": 3 * MIB}, {"chunk_size": 1 << 40}, {"size": -2},
    {"size": 1 << 62}, {"size": "1"}, {"generation": 0}, {"generation": -1}, {"v": 2},
    {"kind": "x"}, {"path": "../x"}, {"path": "/x"}, {"path": ""}, {"path": "a//b"},
    {"path": "a/../b"}, {"path": "a\0b"}, {"path": "a\nb"}, {"path": "x/" * 70 + "y"},
    {"path": "n" * 256}, {"path": None}, {"src": "01"}, {"src": ""}, {"dst": "2/../3"}],
    ids=lambda c: "%s-%.9s" % next((k, ascii(v)) for k, v in c.items()))
def test_announcements_with_something_wrong(receiver, peer, change):
    doc = file_doc("1", "2", "wrong", size=1000)
    bad = dict(doc, **change)
    try:
        target = tid_of(bad)
    except TypeError:
        target = tid_of(doc)
    r = peer.ask("PUT", "/v1/transfers/" + target, bad)
    assert r.code in (400, 403, 413), (r.code, r.data)
    eventually(lambda: not receiver["2"].leftovers())


@pytest.mark.parametrize("target", ["", "0", "A" * 64, "g" * 64, "0" * 63, "0" * 65, "../hello",
                                    "0" * 64 + "/chunks", "0" * 64 + "/commit/x"],
                         ids=range(9))
def test_addresses_of_nothing(peer, target):
    for method in ("GET", "PUT", "POST", "DELETE"):
        r = peer.ask(method, "/v1/transfers/" + target, {} if method[0] == "P" else None)
        assert r.code in (400, 404, 405), (method, r.code)


def test_unknown_transfers(peer):
    doc = file_doc("1", "2", "never", size=2 * MIB)
    assert peer.state(doc).code == 404
    assert peer.chunk(doc, 0, b"x" * MIB).code == 404
    assert peer.commit(doc, b"x" * 2 * MIB).code == 404
    assert peer.abort(doc).code in (200, 204, 404)


def test_bodies_that_are_too_large(receiver, peer):
    """Refused by their announced length, without reading them."""
    big = 100 * MIB
    for method, target in (("PUT", "/v1/transfers/" + "b" * 64),
                           ("POST", "/v1/transfers/%s/commit" % ("b" * 64)),
                           ("POST", "/v1/messages"), ("POST", "/v1/rpc/x")):
        c = peer.connection()
        c.putrequest(method, target)
        c.putheader("Content-Length", str(big))
        c.putheader("Expect", "100-continue")
        c.endheaders()
        with contextlib.suppress(OSError):
            c.send(b"x" * 65536)
        try:
            r = c.getresponse()
            assert r.status in (400, 413), (target, r.status)
        except (ConnectionError, socket.timeout) as e:
            assert not isinstance(e, socket.timeout), target
        c.close()
    doc = file_doc("1", "2", "toolong", size=10 * MIB)
    assert peer.announce(doc).code == 201
    with contextlib.suppress(OSError):  # it may hang up before it has all
        assert Peer(receiver, "2", as_party="1").chunk(doc, 0, b"x" * 9 * MIB).code in (400, 413)
    assert peer.abort(doc).code in (200, 204)
    assert receiver["2"].peak_kib() < 64 * 1024 * SLOW
    eventually(lambda: not receiver["2"].leftovers())


def test_a_half_sent_chunk_does_not_block_the_next_attempt(receiver, peer):
    """The first connection hangs (a pulled cable); the sender comes back on
    another one long before the first is given up."""
    data = content("half", 1, MIB)
    doc = file_doc("1", "2", "half", size=len(data))
    assert peer.announce(doc).code == 201
    c = peer.connection()
    c.putrequest("PUT", "/v1/transfers/%s/chunks/0" % tid_of(doc))
    for k, v in dict(digest_header(data), **{"Content-Length": str(MIB)}).items():
        c.putheader(k, v)
    c.endheaders()
    c.send(data[:MIB // 2])
    try:
        until(lambda: peer.chunk(doc, 0, data), (200, 201), seconds=8)
        assert peer.commit(doc, data).code == 200
        # The first one wakes up with other bytes: nobody sees them.
        with contextlib.suppress(OSError):
            c.send(b"x" * (MIB - MIB // 2))
            c.getresponse().read()
    finally:
        c.close()
    assert inbox(receiver, "half") == data
    once(receiver, doc)


def test_limits_hold_for_files_of_unknown_size(receiver, peer):
    allow = receiver["2"].path("parties/1/allow")
    with open(allow, encoding="ascii") as f:
        before = f.read()
    with open(allow, "w") as f:
        f.write("push *\nlimit size 2M\n")
    try:
        data = content("stream", 1, 6 * MIB)
        doc = file_doc("1", "2", "stream", size=-1)
        assert peer.announce(dict(doc, size=len(data))).code in (403, 413)
        assert peer.announce(doc).code == 201
        codes = [peer.chunk(doc, i, c).code for i, c in enumerate(chunks_of(data, MIB))]
        assert codes[:2] == [201, 201] and set(codes[2:]) & {403, 413}, codes
        assert peer.commit(doc, data).code in (403, 409, 413)
        assert inbox(receiver, "stream") is None
        peer.abort(doc)
    finally:
        with open(allow, "w") as f:
            f.write(before)
    eventually(lambda: not receiver["2"].leftovers())


def allowing(receiver, text):
    """A context in which parties/1/allow is this."""
    @contextlib.contextmanager
    def change():
        allow = receiver["2"].path("parties/1/allow")
        with open(allow, encoding="ascii") as f:
            before = f.read()
        with open(allow, "w") as f:
            f.write(text)
        try:
            yield
        finally:
            with open(allow, "w") as f:
                f.write(before)
    return change()


def test_a_quota_holds_for_files_that_arrive_together(receiver, peer):
    """Each of them alone would have room."""
    docs = [file_doc("1", "2", "together/%d" % i, size=-1) for i in range(3)]
    data = content("together", 1, 2 * MIB)
    size = inbox_bytes(receiver)
    with allowing(receiver, "push *\nlimit quota %d\n" % (size + 3 * MIB)):
        for doc in docs:
            assert peer.announce(doc).code == 201
        for doc in docs:
            for i, c in enumerate(chunks_of(data, MIB)):
                r = peer.chunk(doc, i, c)
                assert r.code == 201, (r.code, r.data)
        codes = [peer.commit(doc, data).code for doc in docs]
        assert codes == [200, 507, 507], codes
        for doc in docs[1:]:
            peer.abort(doc)
    eventually(lambda: not receiver["2"].leftovers())


def inbox_bytes(receiver):
    total = 0
    for top, _dirs, files in os.walk(os.path.join(receiver["2"].state, "federation/1/in")):
        total += sum(os.path.getsize(os.path.join(top, f)) for f in files)
    return total


def test_a_late_chunk_never_changes_what_is_committed(receiver, peer):
    """A request of long ago brings other bytes while the transfer is being
    committed: the commit fails, or the bytes are not seen."""
    committed = 0
    for turn in range(40):
        data = content("late", turn, MIB)
        doc = file_doc("1", "2", "late/%d" % turn, size=len(data))
        assert peer.announce(doc).code == 201
        assert peer.chunk(doc, 0, data).code == 201
        late = Peer(receiver, "2", as_party="1")
        late.ask("GET", "/v1/hello")  # so that it is connected
        other = content("other", turn, MIB)

        def rewrite(late=late, doc=doc, other=other):
            with contextlib.suppress(OSError):
                late.chunk(doc, 0, other)
        t = threading.Thread(target=rewrite)
        t.start()
        time.sleep(random.Random(turn).random() * 0.005)
        r = peer.commit(doc, data)
        t.join()
        if r.code == 200:
            committed += 1
            assert inbox(receiver, "late/%d" % turn) == data
        else:
            assert r.code in (409, 503), (r.code, r.data)
            peer.abort(doc)
    print("committed %d of 40" % committed)
    eventually(lambda: not receiver["2"].leftovers())


def test_an_inline_commit_and_an_announcement_at_once(receiver, peer):
    """They have one key, and no file in common."""
    for turn in range(20):
        data = content("both", turn, 50000)
        doc = file_doc("1", "2", "both/%d" % turn, size=len(data))
        second = Peer(receiver, "2", as_party="1")

        def announce(second=second, doc=doc, data=data):
            if second.announce(doc).code == 201:
                second.chunk(doc, 0, bytes(len(data)))
        t = threading.Thread(target=announce)
        t.start()
        r = peer.commit(doc, data, inline=True)
        t.join()
        second.chunk(doc, 0, bytes(len(data)))
        if r.code == 200:
            assert inbox(receiver, "both/%d" % turn) == data
        peer.abort(doc)
    until(lambda: peer.ask("GET", "/v1/hello"), (200,))


def test_chunks_far_ahead_take_little_memory(receiver, peer):
    """The last chunk first, in many transfers."""
    docs = [file_doc("1", "2", "far/%d" % i, size=-1, chunk_size=MIB // 4) for i in range(40)]
    codes = []
    for doc in docs:
        assert peer.announce(doc).code == 201
        codes.append(peer.chunk(doc, (1 << 18) - 1, b"x").code)
    assert set(codes) == {201, 503}, codes
    assert receiver["2"].peak_kib() < 192 * 1024 * SLOW
    for doc in docs:
        assert peer.abort(doc).code in (200, 204)
    eventually(lambda: not receiver["2"].leftovers())


# ---- death at every step ----------------------------------------------------


@pytest.fixture(scope="module")
def pair(labs):
    """1 and 2, each with a rollsite that the test starts."""
    return labs({"1": {"alone": True}, "2": {"alone": True}}).ready()


# Which side dies where; how many chunks may have to be sent a second time
# because nobody knows that they had arrived.
POINTS = {
    "put-written": "1", "put-placed": "1",
    "out-announced": "1", "out-chunk-acked": "1", "out-before-commit": "1", "out-committed": "1",
    "in-chunk-written": "2", "in-chunk-synced": "2", "in-before-receipt": "2",
    "in-receipt-written": "2", "in-renamed": "2", "in-answered": "2",
}


@hooks
@pytest.mark.parametrize("size", [100, 13 * MIB])
@pytest.mark.parametrize("point", POINTS)
def test_death_at(pair, point, size):
    chunked = "announced" in point or "chunk" in point
    if chunked and size < MIB:
        size = 300000
    size += list(POINTS).index(point)  # finds its line in the audit trail
    side = POINTS[point]
    path = "die/%s-%d" % (point, size)
    data = content(path, 1, size)
    pair[side].kill("rollsite")
    doomed = pair[side].start_site(ROLLFS_HOOK_DIE="%s:%d" % (
        point, 2 if "chunk" in point and size > MIB else 1))
    pair.ready(("1", "2"), ("2", "1"))
    before = pair["2" if side == "1" else "1"]
    survivor = before.pid("rollsite")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        # close() waits for a rollsite that takes the file over.
        put = pool.submit(pair["1"].put, "2", path, data)
        try:
            eventually(lambda: doomed.poll() is not None, 15)
            assert doomed.returncode == -signal.SIGKILL, doomed.returncode
            seen = pair["2"].got("1", path)
            assert seen in (None, data)
        finally:
            pair[side].start()
        put.result()
    eventually(lambda: pair["2"].got("1", path) == data, 20)
    eventually(lambda: pair["1"].state_of("2", path) == "committed", 20)
    for p in "1", "2":
        eventually(lambda p=p: not pair[p].leftovers(), 5)
    assert before.pid("rollsite") == survivor
    # At most what was under way and not acknowledged is sent again.
    if side == "1":
        assert pair["2"].metric("rollfs_chunks_again_total") <= 4
    commits = [x for x in pair["2"].audit("commit") if x.endswith("bytes=%d" % size)
               and "refused" not in x]
    assert len(commits) <= 1, commits


def test_a_rollfs_that_meets_a_dying_rollsite_waits_for_its_end(lab):
    """The old one holds the state directory and answers no more."""
    x = lab({"1": {}, "2": {}}, start=False)
    fd = os.open(os.path.join(x["1"].state, "rollsite.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    # F_OFD_SETLK, a write lock on all of it.
    fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    refused = []

    def dies():
        refused.append(eventually(lambda: "another rollsite" in x["1"].site_log, 20))
        os.close(fd)
    end = threading.Thread(target=dies)
    end.start()
    x["1"].start()
    end.join()
    assert refused
    x["2"].start()
    x.ready()


# ---- random deaths -----------------------------------------------------------


class Writer(threading.Thread):
    """Writes its files as a patient user does: what fails is done again."""

    def __init__(self, party, plan, seed):
        super().__init__()
        self.party, self.plan, self.rng = party, plan, random.Random(seed)
        self.last, self.failed, self.bytes = {}, None, 0

    def run(self):
        try:
            for path, size, how in self.plan:
                self.write(path, size, how)
        except BaseException as e:
            self.failed = e

    def write(self, path, size, how):
        deadline = time.monotonic() + 60 * SLOW
        while True:
            generation = self.last.get(path, 0) + 1
            self.last[path] = generation
            data = content(path, generation, size)
            try:
                fd = os.open(self.party.place("2", path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                try:
                    step = len(data) or 1
                    if how == "stream":
                        step = max(len(data) // 5, 1)
                    for i in range(0, len(data), step):
                        part = memoryview(data)[i:i + step]
                        while part:
                            part = part[os.write(fd, part):]
                        if how == "stream":
                            time.sleep(self.rng.random() * 0.05)
                finally:
                    os.close(fd)
                self.bytes += size
                return
            except OSError:
                # rollfs is down; it comes back.
                assert time.monotonic() < deadline, path
                time.sleep(0.02)


class Reader(threading.Thread):
    """Looks at the inbox all the time: everything in it is whole, and nothing
    is replaced by something older."""

    def __init__(self, party, paths, seed):
        super().__init__()
        self.party, self.paths, self.rng = party, list(paths), random.Random(seed)
        self.stop, self.seen, self.bad, self.looks = False, {}, [], 0

    def run(self):
        while not self.stop:
            self.look(self.rng.choice(self.paths))
            time.sleep(0.002)

    def look(self, path):
        try:
            data = self.party.got("1", path)
        except OSError:
            return  # rollfs is down
        if data is None:
            return
        self.looks += 1
        try:
            name, generation = content_check(data)
            assert name == path, name
            assert generation >= self.seen.get(path, 0), "%s: %d after %d" % (
                path, generation, self.seen[path])
            self.seen[path] = generation
        except (AssertionError, ValueError) as e:
            self.bad.append("%s: %s" % (path, e))


def make_plan(rng, n, most):
    out, paths = [], []
    for i in range(n):
        size = rng.choice([0, rng.randrange(1, 100), rng.randrange(65536), 65536, 65537,
                           rng.randrange(MIB), rng.randrange(8 * MIB), rng.randrange(most)])
        # So large that it says what it is.
        size = max(size, 40)
        path = "d%d/%s/f%d" % (rng.randrange(3), "/".join("x" * rng.randrange(3)) or "y", i)
        paths.append(path)
        out.append((path, size, rng.choice(["whole", "stream"])))
        if rng.random() < 0.3:  # again, while it is in flight or after
            out.append((rng.choice(paths), rng.randrange(40, 2 * MIB), "whole"))
    return out, paths


def chaos(x, proxy, kills, n, most, rng, victims, pause, seconds):
    """Runs writers, a reader and kills; then everything must have arrived."""
    plan, paths = make_plan(rng, n, most)
    # A path has one writer: its generations have an order.
    writers = [Writer(x["1"], [p for p in plan if hash_of(p[0]) % 3 == k], rng.random())
               for k in range(3)]
    reader = Reader(x["2"], paths, rng.random())
    for t in (*writers, reader):
        t.start()
    again, done = Again(x["2"]), {}
    try:
        while sum(done.values()) < kills or any(w.is_alive() for w in writers):
            if sum(done.values()) < kills:
                kind = rng.choice(victims)
                if kind == "network":
                    proxy.sever()
                    done[kind] = done.get(kind, 0) + 1
                elif x[kind[0]].kill(kind[1]):
                    done[kind] = done.get(kind, 0) + 1
                for p in x.parties.values():
                    if not p.pids("rollfs" if p.o.get("mount") is not False else "rollsite"):
                        p.start()
            again.look()
            time.sleep(rng.random() * pause)
            assert not any(w.failed for w in writers), [w.failed for w in writers]
        last = {k: v for w in writers for k, v in w.last.items()}
        size = {p: s for p, s, _how in plan}
        for path in last:
            want = content(path, last[path], size[path])
            eventually(lambda path=path, want=want: quiet(x["2"].got, "1", path) == want, seconds)
        eventually(lambda: all(" committed " in li for li in x["1"].transfers("2")), seconds)
        again.look()
    except AssertionError:
        print(x.tell(40))
        for path in last if "last" in locals() else ():
            data = quiet(x["2"].got, "1", path)
            if data != content(path, last[path], size[path]):
                print("%s: generation %d (%d bytes) is not there but %s" % (
                    path, last[path], size[path], data and (len(data), data[:60])))
        raise
    finally:
        reader.stop = True
        for t in (*writers, reader):
            t.join()
    assert not reader.bad, reader.bad[:5]
    listed = [os.path.relpath(os.path.join(top, f), x["2"].path("federation/1/inbox"))
              for top, _dirs, names in os.walk(x["2"].path("federation/1/inbox")) for f in names]
    assert sorted(listed) == sorted(last)
    try:
        eventually(lambda: not any(p.leftovers() for p in x.parties.values()), 10)
    except AssertionError:
        print(x.tell(4), [(f, read(os.path.join(p.state, f))) for p in x.parties.values()
                          for f in p.leftovers() if f.endswith(".json")])
        raise
    return {"killed": {str(k): v for k, v in done.items()}, "files": len(paths),
            "written": sum(w.bytes for w in writers), "sent": proxy.bytes_up,
            "again": again.total, "connections": proxy.connections, "looks": reader.looks}


def quiet(fn, *args):
    try:
        return fn(*args)
    except OSError:
        return None


def hash_of(path):
    return sum(path.encode())


class Again:
    """How often the receiver was sent a chunk that it had acknowledged; its
    counter begins anew with each of its processes."""

    def __init__(self, party):
        self.party, self.total, self.last = party, 0, (None, 0)

    def look(self):
        try:
            pid = (self.party.pids("rollsite") or [None])[0]
            n = self.party.metric("rollfs_chunks_again_total")
        except OSError:
            return
        self.total += int(n - (self.last[1] if self.last[0] == pid else 0))
        self.last = (pid, n)


VICTIMS = [("1", "rollsite"), ("2", "rollsite")] * 4 + [("1", "rollfs"), ("2", "rollfs"),
                                                        "network", "network"]


def test_random_kills(lab, rng):
    made = []

    def way(x):
        made.append(Proxy(x["2"].port))
        x.cleanup.append(made[0].close)
        x["1"].o["to"] = {"2": made[0].address}
        x["1"].write_conf()
    x = lab({"1": {}, "2": {}}, setup=way).ready()
    rng = random.SystemRandom() if SOAK else rng
    kills = 1000 if SOAK else 30
    report = chaos(x, made[0], kills, 400 if SOAK else 14, 30 * MIB if SOAK else 12 * MIB, rng,
                   VICTIMS, 0.25, 120 if SOAK else 30)
    print(report)
    # What was not acknowledged may come again: what four workers had under
    # way, at each death.
    assert report["again"] <= 4 * kills
    assert report["sent"] <= 1.05 * report["written"] + (kills + 1) * 16 * MIB
