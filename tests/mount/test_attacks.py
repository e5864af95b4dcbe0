# SPDX-License-Identifier: Apache-2.0
"""A partner with a valid certificate that means harm, somebody without one, and
other users of the machine: what they can use up, and what they can learn.

Party 3 is the one that is attacked, party 1 the attacker, party 2 a partner
that must not notice."""
import concurrent.futures
import contextlib
import os
import resource
import socket
import stat
import struct
import time

import pytest
from conftest import SLOW, eventually
from net import (MIB, Peer, Socket, compact, content, digest_header, file_doc, lab, labs,
                 message_doc, tid_of)

_ = lab, labs  # fixtures


@pytest.fixture(scope="module")
def x(labs):
    """Of 1 and 2 only the certificates are used."""
    y = labs({"1": {"alone": True, "mount": False}, "2": {"alone": True, "mount": False},
              "3": {"alone": True, "mount": False}}, start=False)
    # As on most machines: the hard limit is higher.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, soft), hard))
    try:
        y["3"].start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    y.pid = y["3"].pid("rollsite")
    yield y
    assert y["3"].pid("rollsite") == y.pid, "it died"


@pytest.fixture
def one(x):
    return Peer(x, "3", as_party="1")


@pytest.fixture
def two(x):
    return Peer(x, "3", as_party="2")


@contextlib.contextmanager
def allowing(x, party, text):
    """Party 3 has these rules for the party, as if written through its mount."""
    d = os.path.join(x["3"].state, "parties", party)
    for p in (os.path.dirname(d), d):
        with contextlib.suppress(FileExistsError):
            os.mkdir(p, 0o700)
    with open(os.path.join(d, "allow"), "w", encoding="ascii") as f:
        f.write(text)
    try:
        yield
    finally:
        os.unlink(os.path.join(d, "allow"))


def raw(peer, data=b""):
    """A connection after its handshake, with some bytes sent."""
    s = peer.tls.wrap_socket(socket.create_connection((peer.host, peer.port)))
    s.settimeout(20 * SLOW)
    with contextlib.suppress(OSError):  # answered and closed before the end
        s.sendall(data)
    return s


def in_parallel(fn, items):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(fn, items))


def answer(s):
    """Everything until the other end closes."""
    out = b""
    with contextlib.suppress(OSError):
        while True:
            got = s.recv(65536)
            if not got:
                break
            out += got
    s.close()
    return out


def request(method, target, *headers):
    return ("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (
        method, target, "".join(h + "\r\n" for h in headers))).encode()


def partner_is_served(x, two, name):
    """A whole transfer of party 2."""
    data = content(name, 1, 3 * MIB)
    doc = file_doc("2", "3", name, size=len(data))
    assert two.push(doc, data).code == 200
    assert two.ask("GET", "/v1/hello", fresh=True).code == 200
    with Socket(x["3"]) as s:
        assert s.ask({"op": "hello"})["status"] == 0


# ---- what can be used up ---------------------------------------------------


def test_a_thousand_announcements_leave_files_to_be_opened(x, one, two):
    docs = [file_doc("1", "3", "many/%d" % i) for i in range(1001)]
    codes = sorted(in_parallel(lambda d: one.announce(d).code, docs))
    try:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most > 5000:
            assert codes == [201] * 1000 + [503]
        assert set(codes) <= {201, 503}
        partner_is_served(x, two, "many")
        doc = file_doc("2", "3", "credit")
        assert two.announce(doc).json["credit"] == 16
        two.abort(doc)
    finally:
        in_parallel(one.abort, docs)


def test_connections_of_one_party_shut_nobody_out(x, one, two):
    held = []
    try:
        for i in range(250):
            c = one.connection()
            c.request("GET", "/v1/hello")
            r = c.getresponse()
            r.read()
            held.append(c)
            if r.status == 503:
                assert r.headers["Rollfs-Retry-Ms"]
                break
        assert 32 < i < 200
        partner_is_served(x, two, "held")
    finally:
        for c in held:
            c.close()
    eventually(lambda: one.ask("GET", "/v1/hello", fresh=True).code == 200, 10)


def test_connections_of_nobody_shut_nobody_out(x, two):
    """TCP only; nobody has shown a certificate."""
    held = [socket.create_connection((two.host, two.port)) for _ in range(450)]
    try:
        partner_is_served(x, two, "nobody")
    finally:
        for s in held:
            s.close()


def test_slow_bodies_leave_room_for_those_of_others(lab):
    """Large sealed requests are few at a time; one party has not all of them."""
    y = lab({"1": {"alone": True, "mount": False}, "2": {"alone": True, "mount": False},
             "3": {"alone": True, "mount": False, "allow": {
                 "1": ["push *", "relay *"], "2": ["push *", "relay *"]}}}, start=False)
    y["3"].start()
    one, two = Peer(y, "3", as_party="1"), Peer(y, "3", as_party="2")
    slow = [raw(one, request("POST", "/v1/relay/2", "Content-Length: 5000000") + b"x" * 1000)
            for _ in range(16)]
    try:
        eventually(lambda: one.ask("POST", "/v1/relay/3", b"x" * 500000).code == 503)
        r = two.ask("POST", "/v1/relay/3", b"x" * 500000)
        assert r.code == 400, r.data  # read, and found to be no envelope
        r = one.ask("POST", "/v1/relay/3", b"x" * 500000)
        assert (r.code, r.json["code"]) == (503, "try_later")
    finally:
        for s in slow:
            s.close()
    eventually(lambda: one.ask("POST", "/v1/relay/3", b"x" * 500000).code == 400, 10)


def test_a_body_that_may_not_be_carried_is_not_taken_in(x, one):
    """No rule allows it: refused before 5 MB are read."""
    s = raw(one, request("POST", "/v1/relay/2", "Content-Length: 5000000"))
    assert b" 403 " in s.recv(4096)
    s.close()


def disk_free(x):
    v = os.statvfs(x["3"].state)
    return v.f_bavail * v.f_frsize


def test_streams_allocate_nothing_below_the_floor(x, one):
    """Space is taken ahead of a stream, but not of what has to stay free."""
    docs = [file_doc("1", "3", "ahead/%d" % i, chunk_size=256 << 10) for i in range(20)]
    chunk = b"x" * (256 << 10)
    free = disk_free(x)
    with allowing(x, "1", "push *\nlimit floor %d\n" % (free - 600 * MIB)):
        for d in docs:
            assert one.announce(d).code == 201
            assert one.chunk(d, 0, chunk).code == 201
        taken = sum(os.stat(os.path.join(x["3"].state, "transfer/partial", tid_of(d) + ".data"))
                    .st_blocks * 512 for d in docs)
    for d in docs:
        one.abort(d)
    assert taken < 20 * MIB


def test_a_quota_counts_what_was_announced(x, one):
    with allowing(x, "1", "push *\nlimit quota 10M\n"):
        docs = [file_doc("1", "3", "quota/%d" % i, size=6 * MIB) for i in range(3)]
        assert [one.announce(d).code for d in docs] == [201, 507, 507]
        one.abort(docs[0])
        assert one.announce(docs[1]).code == 201
        one.abort(docs[1])


def test_a_quota_counts_empty_files_and_folders(x, one):
    """Each takes an inode, and the memory of a receipt."""
    before = sum(len(d) + len(f) for _, d, f in os.walk(os.path.join(x["3"].state,
                                                                     "federation/1/in")))
    with allowing(x, "1", "push *\nlimit quota %d\n" % (before * 4096 + 300000)):
        codes = [one.commit(file_doc("1", "3", "empty%d/" % i + "d/" * 60 + "f", size=0), b"",
                            inline=True).code for i in range(4)]
    assert codes[0] == 200 and codes[-1] == 507, codes


def test_a_quota_bounds_streams_together(x, one):
    """Announced open, then with a size: neither makes it boundless."""
    with allowing(x, "1", "push *\nlimit quota 3M\n"):
        docs = [file_doc("1", "3", "open/%d" % i) for i in range(20)]
        for d in docs:
            assert one.announce(d).code == 201
            assert one.announce(dict(d, size=MIB)).code == 200
        codes = [one.chunk(d, 0, b"x" * MIB).code for d in docs]
        assert codes[0] == 201 and codes[-1] == 507, codes
        assert codes.count(201) <= 14
        for d in docs:
            one.abort(d)


def test_refusals_do_not_fill_the_log(x, one):
    """Written down, but not every one of very many."""
    bad = dict(file_doc("1", "3", "refused", size=1), src="2")
    before = len(x["3"].site_log)
    in_parallel(lambda _: one.announce(bad).code, range(3000))
    grown = len(x["3"].site_log) - before
    assert 10000 < grown < 1500 * 300, grown


def test_asking_for_many_digests_holds_up_nobody(x, one, two):
    """8 MiB each time."""
    doc = file_doc("1", "3", "sparse", chunk_size=256 << 10)
    assert one.announce(doc).code == 201
    assert one.chunk(doc, 262143, b"x" * (256 << 10)).code == 201
    r = one.state(doc, "?digests")
    assert len(r.data) == 262144 * 32 and not r.data[:-32].strip(b"\0") and r.data[-32:].strip(b"\0")
    stop = []

    def ask(_):
        while not stop:
            assert one.state(doc, "?digests").code in (200, 503)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, i) for i in range(8)]
        took = []
        for _ in range(20):
            t = time.monotonic()
            assert two.ask("GET", "/v1/hello").code == 200
            took.append(time.monotonic() - t)
        stop.append(True)
        for f in asked:
            f.result()
    assert sorted(took)[10] < 5 * SLOW
    one.abort(doc)


# ---- what can be learnt ----------------------------------------------------


def test_transfers_of_others_do_not_exist(x, one, two):
    """Whether there is one shows in no answer, and nothing happens to it."""
    data = content("secret", 1, MIB)
    arriving, done = [file_doc("2", "3", n, size=MIB) for n in ("secret", "done")]
    unknown = file_doc("2", "3", "unknown", size=MIB)
    assert two.announce(arriving).code == 201
    assert two.push(done, data).code == 200
    told = []
    for doc in (arriving, done, unknown):
        told.append([(r.code, r.json["code"] if r.data else "") for r in (
            one.state(doc), one.state(doc, "?digests"), one.chunk(doc, 0, data), one.abort(doc),
            one.announce(doc), one.commit(doc, data))])
    assert told[0] == told[1] == told[2], told
    assert [c for c, _ in told[0]] == [404, 404, 404, 204, 403, 403]
    assert two.chunk(arriving, 0, data).code == 201
    assert two.commit(arriving, data).code == 200
    assert two.state(done).json["state"] == "committed"


def test_a_manifest_counts_for_its_own_path_only(x, one, two):
    data = b"small"
    doc, other = [file_doc("1", "3", n, size=len(data)) for n in ("mine", "elsewhere")]
    m = one.manifest(doc, data)
    text = compact(m)
    body = struct.pack("<I", len(text)) + text + data
    assert one.ask("POST", "/v1/transfers/%s/commit" % tid_of(other), body).code == 400
    assert two.ask("POST", "/v1/transfers/%s/commit" % tid_of(doc), body).code == 403
    stolen = dict(m, src="2")
    assert two.commit(dict(doc, src="2"), data, inline=True, manifest=stolen).code == 422
    assert not os.path.exists(os.path.join(x["3"].state, "federation/1/in/elsewhere"))


def test_messages_of_no_job_are_refused_alike(x, one):
    """Neither the job nor the session nor the role can be guessed at."""
    key = ["20261123120000123456009999_a_0_0", "name", "t", "guest", "1", "host", "3"]
    codes = {one.announce(message_doc(key, 100000)).code}
    for i, v in ((0, "20261123120000123456009998_a_0_0"), (3, "host"), (5, "arbiter")):
        codes.add(one.announce(message_doc(key[:i] + [v] + key[i + 1:], 100000)).code)
    assert codes == {403}


# ---- paths -----------------------------------------------------------------


def test_links_in_the_inbox_are_not_followed(x, one, tmp_path):
    """The user of party 3 put them there."""
    inbox = os.path.join(x["3"].state, "federation/1/in")
    assert one.commit(file_doc("1", "3", "first", size=1), b"x", inline=True).code == 200
    assert os.path.isdir(inbox)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    os.symlink(outside, os.path.join(inbox, "folder"))
    os.symlink(outside / "kept", os.path.join(inbox, "link"))
    os.symlink("../../../../etc", os.path.join(inbox, "up"))
    codes = {}
    for path in ("folder/new", "folder/a/b", "up/x", "link"):
        data = path.encode()
        doc = file_doc("1", "3", path, size=len(data))
        codes[path] = one.commit(doc, data, inline=True).code
    assert codes == {"folder/new": 403, "folder/a/b": 403, "up/x": 403, "link": 200}
    assert os.listdir(outside) == ["kept"] and (outside / "kept").read_bytes() == b"kept"
    assert not os.path.islink(os.path.join(inbox, "link"))
    for n in ("folder", "up"):
        os.unlink(os.path.join(inbox, n))


@pytest.mark.parametrize("path, code", [
    ("n" * 255, 200), ("n" * 256, 400), ("/".join(["d"] * 64), 200), ("/".join(["e"] * 65), 400),
    ("..", 400), ("a/../../b", 400), ("/etc/x", 400), ("a//b", 400), ("a/", 400), (".", 400),
    ("a\0b", 400), ("a\nb", 400), ("a\x7fb", 400), ("\u00e9", 200), ("e\u0301", 200), ("Case", 200),
    ("case", 200), ("a\\b", 200), ("%2e%2e/x", 200)])
def test_names(x, one, path, code):
    data = path.encode()
    r = one.commit(file_doc("1", "3", path, size=len(data)), data, inline=True)
    assert r.code == code, (path, r.data)
    if code == 200:
        with open(os.path.join(x["3"].state, "federation/1/in", path), "rb") as f:
            assert f.read() == data


def test_a_file_never_replaces_a_folder(x, one):
    def put(path, generation=1):
        return one.commit(file_doc("1", "3", path, generation, size=1), b"x", inline=True).code
    assert put("tree/leaf") == 200
    assert put("tree") == 409
    assert put("tree/leaf/below") == 403
    # Until the folder is gone.
    os.unlink(os.path.join(x["3"].state, "federation/1/in/tree/leaf"))
    os.rmdir(os.path.join(x["3"].state, "federation/1/in/tree"))
    assert put("tree") == 200


@pytest.mark.parametrize("change, code", [
    ({"generation": 1 << 62}, 200), ({"generation": 1 << 63}, 400), ({"generation": -1}, 400),
    ({"generation": 0}, 400), ({"generation": 1.5}, 400), ({"generation": "1"}, 400),
    ({"created": 1 << 61}, 200), ({"created": -1}, 400), ({"deadline": 1}, 200),
    ({"deadline": 1 << 64}, 400), ({"chunk_size": 1 << 62}, 400), ({"v": 2}, 400)])
def test_numbers(one, change, code):
    doc = file_doc("1", "3", "number %s" % change, size=1, **change) if "generation" not in change \
        else dict(file_doc("1", "3", "number %s" % change, size=1), **change)
    r = one.commit(doc, b"x", inline=True)
    assert r.code in ((200,) if code == 200 else (400, 422)), r.data


# ---- other users of the machine --------------------------------------------


def test_nothing_of_the_state_is_open_to_others(x, one):
    one.push(file_doc("1", "3", "mode", size=MIB), content("mode", 1, MIB))
    one.announce(file_doc("1", "3", "mode2"))
    for top, dirs, files in os.walk(x["3"].state):
        for n in dirs + files:
            m = os.lstat(os.path.join(top, n)).st_mode
            assert stat.S_ISLNK(m) or not m & 0o077, (top, n, oct(m))
    one.abort(file_doc("1", "3", "mode2"))


def test_no_secret_in_arguments_environment_or_log(x):
    with open(os.path.join(x.etc, "3.key"), encoding="ascii") as f:
        secret = f.read().splitlines()[1][:40]
    for name in ("cmdline", "environ"):
        with open("/proc/%d/%s" % (x.pid, name), "rb") as f:
            assert secret.encode() not in f.read()
    assert secret not in x["3"].site_log


# ---- HTTP ------------------------------------------------------------------

CLOSE = "Connection: close"
HTTP = {
    "unknown method": (request("FOO", "/v1/hello", CLOSE), 404),
    "HTTP/1.0": (b"GET /v1/hello HTTP/1.0\r\n\r\n", 200),
    "HTTP/9.9": (b"GET /v1/hello HTTP/9.9\r\nHost: x\r\n\r\n", 505),
    "length below 0": (request("POST", "/v1/messages", "Content-Length: -5", CLOSE), 400),
    "length of 26 digits": (request("POST", "/v1/messages", "Content-Length: " + "9" * 26), 413),
    "length of 18 digits": (request("POST", "/v1/messages", "Content-Length: " + "9" * 18), 413),
    "header of 2 MB": (request("GET", "/v1/hello", "X: " + "a" * 2000000), 431),
    "100000 headers": (request("GET", "/v1/hello", *["X: a"] * 100000), 431),
    "query of 12 KB": (request("GET", "/v1/hello?" + "a=b&" * 3000, CLOSE), 200),
    "target of 100 KB": (request("GET", "/v1/" + "a" * 100000, CLOSE), 404),
    "a folder up": (request("GET", "/v1/transfers/../hello", CLOSE), 404),
    "another host": (request("GET", "https://other/v1/hello", CLOSE), 404),
    "another party's name": (request("GET", "/v1/hello", "Rollfs-Src: 2", CLOSE), 403),
    "an expectation": (request("POST", "/v1/messages", "Expect: x", "Content-Length: 1", CLOSE)
                       + b"x", 400),
    "no chunks": (request("POST", "/v1/messages", "Transfer-Encoding: chunked") + b"ZZ\r\n", 400),
    "two ways to end": (request("POST", "/v1/messages", "Content-Length: 5",
                                "Transfer-Encoding: chunked", CLOSE) + b"0\r\n\r\n", 400),
}


@pytest.mark.parametrize("case", sorted(HTTP))
def test_http(x, one, case):
    data, code = HTTP[case]
    got = answer(raw(one, data))
    assert got.split(b" ", 2)[1] == b"%d" % code, got[:300]
    assert x["3"].pid("rollsite") == x.pid


def test_requests_one_after_the_other_without_waiting(one):
    got = answer(raw(one, request("GET", "/v1/hello") * 20 + request("GET", "/v1/hello", CLOSE)))
    assert got.count(b"HTTP/1.1 200 OK") == 21


def test_a_connection_is_good_after_an_error(one):
    for _ in range(3):
        assert one.ask("PUT", "/v1/transfers/x", b"{}").code == 404
        assert one.ask("POST", "/v1/messages", b"\0\0\0\0").code == 400
        assert one.ask("GET", "/v1/hello").code == 200


@pytest.mark.parametrize("body", [
    b"[" * 16000, b'{"a":' * 2000 + b"1" + b"}" * 2000, b'{"v":1,"v":1}', b'{"v":1e999}',
    b'{"v":' + b"9" * 15000 + b"}", b'{"path":"\\u0000"}', b'{"path":"\xff"}', b"", b"null"])
def test_documents_that_burst(x, one, body):
    assert one.ask("PUT", "/v1/transfers/" + "0" * 64, body).code == 400
    assert x["3"].pid("rollsite") == x.pid


def test_chunks_that_do_not_fit_their_digest(one):
    doc, data = file_doc("1", "3", "digest", size=5), b"12345"
    assert one.announce(doc).code == 201
    sha = digest_header(data)["Content-Digest"]
    for h in ("", sha.replace("sha-256", "md5"), sha.replace("sha-256", "sha-512"), sha + ", " + sha,
              sha[:-2], "sha-256=::"):
        assert one.chunk(doc, 0, data, headers={"Content-Digest": h}).code == 400, h
    assert one.chunk(doc, 0, data, headers=digest_header(b"other")).code == 422
    for index in ("1", "99999999999999999999", "0x0", "-1", "00000000"):
        assert one.chunk(doc, index, data).code in (404, 416), index
    one.abort(doc)
