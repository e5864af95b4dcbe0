# SPDX-License-Identifier: Apache-2.0
"""Much and large: memory that does not grow with what is carried, messages by
the thousand, ends of jobs in the midst of them.  make soak makes them longer."""
import concurrent.futures
import contextlib
import errno
import hashlib
import os
import struct
import tempfile
import threading
import time

import pytest
from conftest import BUILD, SLOW, eventually
from net import MIB, SOAK, Proxy, Socket, compact, lab, labs

_ = lab, labs  # fixtures

MEMORY_KIB = 64 * 1024
# Sanitizers keep what was freed.
SANITIZED = SLOW > 1


# ---- one large file ------------------------------------------------------------


def pattern(i):
    """A block of 1 MiB that is like no other."""
    return hashlib.shake_128(struct.pack("<Q", i)).digest(65536) * 16


def test_a_large_file_in_little_memory(lab):
    x = lab({"1": {}, "2": {}}).ready()
    blocks = 10 * 1024 if SOAK else 512
    want, began = hashlib.sha256(), time.monotonic()
    with open(x["1"].path("federation/2/large"), "wb", buffering=0) as f:
        for i in range(blocks):
            b = pattern(i)
            want.update(b)
            assert f.write(b) == len(b)
        os.fsync(f.fileno())
    took = time.monotonic() - began
    got = hashlib.sha256()
    with open(x["2"].path("federation/1/inbox/large"), "rb", buffering=0) as f:
        while True:
            b = f.read(MIB)
            if not b:
                break
            got.update(b)
    assert got.digest() == want.digest()
    peaks = {p: x[p].peak_kib() for p in ("1", "2")}
    daemons = {p: x[p].peak_kib("rollfs") for p in ("1", "2")}
    print("%d MiB in %.1f s, peaks of rollsite %s, of rollfs %s KiB" % (
        blocks, took, peaks, daemons))
    if not SANITIZED:
        assert max(peaks.values()) < MEMORY_KIB, peaks
        assert max(daemons.values()) < 2 * MEMORY_KIB, daemons
    assert x["2"].metric("rollfs_chunks_again_total") == 0
    eventually(lambda: not x["1"].leftovers() and not x["2"].leftovers(), 5)


def test_large_files_both_ways_at_once_in_little_memory(lab):
    """Eight of them, so that all buffers are in use."""
    x = lab({"1": {}, "2": {}}).ready()
    size = (1024 if SOAK else 24) * MIB
    data = pattern(7) * (size // MIB)

    def put(a, b, i):
        with open(x[a].path("federation", b, "f%d" % i), "wb", buffering=0) as f:
            for at in range(0, size, 8 * MIB):
                f.write(memoryview(data)[at:at + 8 * MIB])
            os.fsync(f.fileno())
    jobs = [threading.Thread(target=put, args=(a, b, i)) for i in range(4)
            for a, b in (("1", "2"), ("2", "1"))]
    for t in jobs:
        t.start()
    for t in jobs:
        t.join()
    for a, b in ("1", "2"), ("2", "1"):
        for i in range(4):
            assert os.path.getsize(x[b].path("federation", a, "inbox/f%d" % i)) == size
    peaks = {p: x[p].peak_kib() for p in ("1", "2")}
    print(peaks)
    if not SANITIZED:
        assert max(peaks.values()) < MEMORY_KIB, peaks


# ---- messages of tasks -----------------------------------------------------------


ROLES = {"guest": ["1"], "host": ["2"]}


@pytest.fixture(scope="module")
def two_sites(labs):
    """Two rollsites without mounts; the test speaks for rollfs and the tasks."""
    return labs({"1": {"mount": False}, "2": {"mount": False}})


def job_open(x, job):
    for p in ("1", "2"):
        with Socket(x[p]) as s:
            assert s.ask({"op": "job_open", "job": job, "roles": ROLES})["status"] == 0


def job_close(x, job):
    for p in ("1", "2"):
        with Socket(x[p]) as s:
            assert s.ask({"op": "job_close", "job": job})["status"] == 0


_jobs = [20261123120000000000000001]


@pytest.fixture
def job(two_sites):
    _jobs[0] += 1
    name = str(_jobs[0])
    job_open(two_sites, name)
    yield name
    for p in ("1", "2"):
        two_sites[p].start()
    job_close(two_sites, name)


def key_of(job, name, tag, src="1", dst="2", task="task_0_0"):
    roles = {"1": "guest", "2": "host"}
    return [job + "_" + task, name, tag, roles[src], src, roles[dst], dst]


def digest(key, data):
    return hashlib.sha256(compact(key) + b"\n" + data).hexdigest()


def send(s, key, data):
    head = {"op": "send", "key": key, "sha256": digest(key, data), "size": len(data)}
    if len(data) <= 256 << 10:
        return s.ask(head, data)
    with tempfile.TemporaryFile() as f:
        f.write(data)
        f.flush()
        return s.ask(head, fd=f.fileno())


def recv(s, key, had=None):
    """had: data whose drop was perhaps heard by a rollsite that died before it answered."""
    r = s.ask({"op": "recv", "key": key})
    if r["status"] == -errno.ESTALE and had:
        return r, had[0]
    if r["status"]:
        return r, None
    data = s.body
    if s.fds:
        with os.fdopen(s.fds[0], "rb") as f:
            f.seek(r.get("offset", 0))
            data = f.read(r["size"])
    assert len(data) == r["size"] and digest(key, data) == r["sha256"], key
    if had is not None:
        had[:] = [data]
    assert s.ask({"op": "drop", "key": key})["status"] == 0
    return r, data


def payload(i, size):
    return hashlib.shake_128(struct.pack("<Q", i)).digest(size)


def leftovers(x):
    """Whatever messages left in the state directories."""
    out = []
    for p in ("1", "2"):
        d = os.path.join(x[p].state, "transfer")
        for top, _dirs, names in os.walk(d):
            for n in names:
                f = os.path.join(top, n)
                # An emptied journal may stay.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.getsize(f) and not n.endswith(".receipts"):
                        out.append(os.path.relpath(f, x[p].state))
    return out


def nothing_left(x):
    try:
        eventually(lambda: leftovers(x) == [] and not any(
            x[p].leftovers() for p in ("1", "2")), 10)
    except AssertionError:
        raise AssertionError("left: %s\n%s" % (leftovers(x), x.tell())) from None


@pytest.mark.parametrize("senders", [1, 4])
def test_messages_of_1_kib(two_sites, job, senders):
    x, total = two_sites, 200000 if SOAK else 10000
    # One that sends waits for the disk each time.
    n = total // senders if senders > 1 else total // 10

    def go(fn, k):
        try:
            fn(k)
        except BaseException as e:
            failed.append(e)
    failed = []

    def sender(k):
        with Socket(x["1"]) as s:
            for i in range(n):
                r = send(s, key_of(job, "m%d" % k, str(i)), payload(i, 1024))
                assert r["status"] == 0, r

    def receiver(k):
        with Socket(x["2"], 60) as s:
            for i in range(n):
                r, data = recv(s, key_of(job, "m%d" % k, str(i)))
                assert data == payload(i, 1024), (i, r)
    threads = [threading.Thread(target=go, args=(fn, k)) for k in range(senders)
               for fn in (sender, receiver)]
    began = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    took = time.monotonic() - began
    assert not failed, failed[:3]
    print("%d messages from %d in %.1f s: %.0f/s" % (senders * n, senders, took,
                                                   senders * n / took))
    for p in "1", "2":
        assert SANITIZED or x[p].peak_kib() < MEMORY_KIB


@pytest.mark.skipif(os.path.basename(BUILD) == "release", reason="a release has no hooks")
@pytest.mark.parametrize("point,n,size", [
    ("message-written", 1, 1000), ("message-written", 3, 1000), ("message-synced", 1, 1000),
    ("message-synced", 3, 1000), ("message-placed", 1, 9 * MIB), ("in-chunk-written", 2, 9 * MIB), ("in-chunk-synced", 2, 9 * MIB),
    ("out-announced", 1, 9 * MIB), ("out-chunk-acked", 2, 9 * MIB),
    ("out-before-commit", 1, 9 * MIB), ("out-committed", 1, 9 * MIB)])
def test_death_at(two_sites, job, point, n, size):
    """Each message is there once after the death, as it was sent."""
    x, side = two_sites, "1" if point.startswith("out") else "2"
    x[side].kill("rollsite")
    doomed = x[side].start_site(ROLLFS_HOOK_DIE="%s:%d" % (point, n))
    sent = []

    def send_all():
        # One sync may serve several messages: as many as the death needs.
        while not sent or (size < MIB and doomed.poll() is None):
            i = len(sent)
            def sent_it(i=i):
                with contextlib.suppress(OSError), Socket(x["1"]) as s:
                    return send(s, key_of(job, point, str(i)), payload(i, 50) * (size // 50))
                return None
            r = eventually(sent_it, every=0.1)  # as a channel does it
            assert r["status"] == 0, r
            sent.append(i)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sender = pool.submit(send_all)
        try:
            eventually(lambda: doomed.poll() is not None, 15)
        finally:
            doomed.kill()  # the sender ends with it
            x[side].start()
        sender.result()
    with Socket(x["2"]) as r:
        for i in sent:
            assert recv(r, key_of(job, point, str(i)))[1] == payload(i, 50) * (size // 50)
        # Taken is taken: it does not come a second time.
        again, data = recv(r, key_of(job, point, "0"))
        assert again["status"] < 0 and data is None


@pytest.mark.skipif(os.path.basename(BUILD) == "release", reason="a release has no hooks")
def test_a_large_message_that_was_taken_at_a_death_is_known_as_such(two_sites, job):
    """Its file has gone: there is nothing to be taken again."""
    x, key = two_sites, key_of(job, "dropped", "-")
    with Socket(x["1"]) as s:
        assert send(s, key, payload(1, 50) * 6000)["status"] == 0
    with Socket(x["2"]) as s:
        assert s.ask({"op": "recv", "key": key})["status"] == 0
    x["2"].kill("rollsite")
    doomed = x["2"].start_site(ROLLFS_HOOK_DIE="message-dropped:1")
    with Socket(x["2"]) as s, pytest.raises(OSError):
        s.ask({"op": "drop", "key": key})
    assert doomed.wait(60)
    x["2"].start()
    with Socket(x["2"]) as s:
        assert s.ask({"op": "recv", "key": key})["status"] == -errno.ESTALE


@pytest.mark.skipif(os.path.basename(BUILD) == "release", reason="a release has no hooks")
@pytest.mark.parametrize("point", ["", "journal-written", "journal-placed"])
def test_the_journal_of_what_came_is_written_anew(two_sites, job, point):
    """Without what was taken; by a release when that is 32 MiB, here from 64 KiB on."""
    x, n = two_sites, 300
    log = os.path.join(x["2"].state, "transfer/in", job, "log")
    with Socket(x["1"]) as s:
        for i in range(n):
            assert send(s, key_of(job, "w", str(i)), payload(i, 1000))["status"] == 0
    eventually(lambda: os.path.getsize(log) > n * 1000, 20)
    if point:
        x["2"].kill("rollsite")
        doomed = x["2"].start_site(ROLLFS_HOOK_DIE=point + ":1")
    for i in range(n):
        had = []
        for _again in range(2):
            try:
                with Socket(x["2"]) as r:
                    recv(r, key_of(job, "w", str(i)), had)
                break
            except OSError:
                assert point and doomed.wait(60) != 0
                x["2"].start()
        assert had == [payload(i, 1000)]
    with Socket(x["2"]) as r:
        for i in range(n):
            got, data = recv(r, key_of(job, "w", str(i)))
            # Marks that were not written yet went with the process.
            assert got["status"] < 0 or (point == "journal-written" and data == payload(i, 1000)), i
    eventually(lambda: os.path.getsize(log) < n * 1000 and
               os.listdir(os.path.dirname(log)) == ["log"])


def test_messages_survive_deaths_of_both(two_sites, job, rng):
    """Each is taken once, whole, while either rollsite dies now and then."""
    x, n, failed = two_sites, 20000 if SOAK else 1500, []
    done = threading.Event()

    def patient(party, fn):
        """Repeats what a dead rollsite did not answer, as a channel does."""
        while not failed:
            try:
                with Socket(x[party], 30) as s:
                    return fn(s)
            except OSError:
                time.sleep(0.01)
        return None

    def each(party, fn):
        i = [0]

        def rest(s):
            while i[0] < n:
                fn(s, i[0])
                i[0] += 1
        try:
            patient(party, rest)
        except BaseException as e:
            failed.append(e)

    def send_one(s, i):
        size = 1024 if i % 50 else 300000
        r = send(s, key_of(job, "k", str(i)), payload(i, size))
        assert r["status"] == 0, (i, r)

    had = {}

    def receive_one(s, i):
        key = key_of(job, "k", str(i))
        r, data = recv(s, key, had.setdefault(i, []))
        assert data == payload(i, 1024 if i % 50 else 300000), (i, r)
    threads = [threading.Thread(target=each, args=a) for a in
               (("1", send_one), ("2", receive_one))]
    for t in threads:
        t.start()
    kills = 0
    while any(t.is_alive() for t in threads) and not failed:
        p = rng.choice("12")
        x[p].kill("rollsite")
        kills += 1
        x[p].start()
        done.wait(rng.random() * 0.4)
    for t in threads:
        t.join()
    assert not failed, failed[:3]
    print("%d messages, %d deaths" % (n, kills))
    assert kills >= 3


@pytest.mark.parametrize("where", ["1", "2", "both"])
@pytest.mark.parametrize("what", ["job_close", "session_close"])
def test_an_end_in_the_midst_of_a_large_message_leaves_nothing(lab, what, where):
    proxies = []

    def slow(x):
        proxies.append(Proxy(x["2"].port, limit=6 * MIB))
        x.cleanup.append(proxies[0].close)
        x["1"].o["to"] = {"2": proxies[0].address}
        x["1"].write_conf()
    x = lab({"1": {"mount": False}, "2": {"mount": False}}, setup=slow)
    job = "20261123130000000000000001"
    job_open(x, job)
    key = key_of(job, "large", "-")
    with Socket(x["1"]) as s:
        assert send(s, key, payload(1, 65536) * 640)["status"] == 0
        for i in range(20):
            assert send(s, key_of(job, "small", str(i)), payload(i, 1024))["status"] == 0

    def arriving():
        d = os.path.join(x["2"].state, "transfer/partial")
        return any(n.endswith(".have") and os.path.getsize(os.path.join(d, n))
                   for n in os.listdir(d)) if os.path.isdir(d) else False
    eventually(arriving, 10, 0.005)
    end = {"op": what, "job": job} if what == "job_close" else \
        {"op": what, "session": key[0]}
    for p in ("1", "2") if where == "both" else (where,):
        with Socket(x[p]) as s:
            assert s.ask(end)["status"] == 0
    if where != "both":
        # The other side learns of it by its own scheduler, a little later.
        with Socket(x["2" if where == "1" else "1"]) as s:
            assert s.ask(end)["status"] == 0
    with Socket(x["2"]) as s:
        assert s.ask({"op": "recv", "key": key})["status"] < 0
    for p in "1", "2":
        eventually(lambda p=p: not x[p].leftovers(), 5)
    sent = proxies[0].bytes_up
    if what == "job_close":
        nothing_left(x)
    # And nothing of it is sent any more.
    assert proxies[0].bytes_up - sent < 8 * MIB


@pytest.mark.parametrize("dead", ["1", "2"])
def test_an_end_while_the_other_side_is_dead_leaves_nothing(lab, dead):
    """It died in the midst, the job was closed there when it came back."""
    x = lab({"1": {"mount": False}, "2": {"mount": False}})
    job = "20261123140000000000000001"
    job_open(x, job)
    with Socket(x["1"]) as s:
        assert send(s, key_of(job, "large", "-"), payload(1, 65536) * 320)["status"] == 0
    x[dead].kill("rollsite")
    with Socket(x["2" if dead == "1" else "1"]) as s:
        assert s.ask({"op": "job_close", "job": job})["status"] == 0
    x[dead].start()
    with Socket(x[dead]) as s:
        assert s.ask({"op": "job_close", "job": job})["status"] == 0
    nothing_left(x)


def test_a_small_message_does_not_wait_for_large_ones(lab):
    """Priority: with 120 MiB under way over a line that takes long for it,
    small ones go by."""
    proxies = []

    def slow(x):
        proxies.append(Proxy(x["2"].port, limit=5 * MIB))
        x.cleanup.append(proxies[0].close)
        x["1"].o["to"] = {"2": proxies[0].address}
        x["1"].write_conf()
    x = lab({"1": {"mount": False}, "2": {"mount": False}}, setup=slow)
    job = "20261123150000000000000001"
    job_open(x, job)
    with Socket(x["1"]) as s, Socket(x["2"]) as r:
        for i in range(3):
            assert send(s, key_of(job, "large", str(i)), payload(i, 65536) * 640)["status"] == 0
        eventually(lambda: proxies[0].bytes_up > 4 * MIB, 10)
        took = []
        for i in range(10):
            began = time.monotonic()
            assert send(s, key_of(job, "small", str(i)), payload(i, 1000))["status"] == 0
            assert recv(r, key_of(job, "small", str(i)))[1] == payload(i, 1000)
            took.append(time.monotonic() - began)
        assert proxies[0].bytes_up < 110 * MIB
        proxies[0].limit = 0
        for i in range(3):
            assert recv(r, key_of(job, "large", str(i)))[1] == payload(i, 65536) * 640
    print("small ones took", " ".join("%.0f ms" % (t * 1000) for t in took))


def test_a_message_said_twice_and_one_changed(two_sites, job):
    x = two_sites
    for size in (100, 5 * MIB):
        # Other content fails the sender's session: one for each.
        task = "task_%d_0" % size
        key, data = key_of(job, "twice", "-", task=task), payload(1, 50) * (size // 50)
        with Socket(x["1"]) as s, Socket(x["2"]) as r:
            assert send(s, key, data)["status"] == 0
            assert send(s, key, data)["status"] == 0
            assert recv(r, key)[1] == data
            # Also when it has been taken already.
            assert send(s, key, data)["status"] == 0
            other = send(s, key, data[:-1] + b"!")
            # The sender's own rollsite may know, or the answer comes later.
            if other["status"] == 0:
                eventually(lambda: send(s, key_of(job, "next", "0", task=task),
                                        b"x")["status"] < 0, 10)
