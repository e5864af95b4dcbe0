# SPDX-License-Identifier: Apache-2.0
"""Files from party to party."""
import contextlib
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import BUILD, SLOW, eventually
from fake_site import FakeSite

MIB = 1 << 20


def put(p, to, path, data):
    f = p.path("federation", to, path)
    os.makedirs(os.path.dirname(f), exist_ok=True)
    with open(f, "wb") as out:
        out.write(data)
    return f


def got(p, sender, path):
    f = p.path("federation", sender, "inbox", path)
    try:
        with open(f, "rb") as i:
            return i.read()
    except FileNotFoundError:
        return None


def test_what_one_writes_the_other_reads(two):
    put(two[9999], "10000", "f", b"hello\n")
    assert eventually(lambda: got(two[10000], "9999", "f")) == b"hello\n"


def test_paths_and_emptiness(two):
    put(two[9999], "10000", "a/b/c", b"deep")
    put(two[9999], "10000", "empty", b"")
    assert eventually(lambda: got(two[10000], "9999", "a/b/c")) == b"deep"
    eventually(lambda: got(two[10000], "9999", "empty") is not None)


def test_a_large_file_arrives_whole(two):
    data = os.urandom(1 << 20) * 24
    put(two[9999], "10000", "big", data)
    seen = eventually(lambda: got(two[10000], "9999", "big"), 30)
    assert hashlib.sha256(seen).digest() == hashlib.sha256(data).digest()


def test_a_file_that_is_still_written_cannot_be_synced_by_another(two):
    f = two[9999].path("federation/10000/written")
    writer = os.open(f, os.O_WRONLY | os.O_CREAT)
    os.write(writer, b"first half, ")
    other = subprocess.run(["sync", f], capture_output=True, text=True, check=False)
    assert other.returncode == 1 and "busy" in other.stderr
    assert "written: Device or resource busy\nit is still written" in two[9999].read("errors")
    os.write(writer, b"second half")
    os.close(writer)
    subprocess.run(["sync", f], check=True)
    assert got(two[10000], "9999", "written") == b"first half, second half"


def test_fsync_returns_after_the_commit(two):
    fd = os.open(two[9999].path("federation/10000/sync"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"durable")
    os.fsync(fd)
    os.close(fd)
    assert got(two[10000], "9999", "sync") == b"durable"


def test_writing_again_replaces(two):
    put(two[9999], "10000", "r", b"one")
    eventually(lambda: got(two[10000], "9999", "r") == b"one")
    put(two[9999], "10000", "r", b"second")
    eventually(lambda: got(two[10000], "9999", "r") == b"second")


def test_the_sent_file_stays_readable_until_rm(two):
    f = put(two[9999], "10000", "keep", b"mine")
    eventually(lambda: got(two[10000], "9999", "keep"))
    with open(f, "rb") as i:
        assert i.read() == b"mine"
    os.unlink(f)
    assert not os.path.exists(f)


@pytest.mark.parametrize("name", ["x.tmp", ".hidden", "x~", "x.part", "x.swp"])
def test_unfinished_names_are_not_sent_until_renamed(two, name):
    f = put(two[9999], "10000", name, b"body " + name.encode())
    final = "final-" + "".join(c for c in name if c.isalpha())
    os.rename(f, two[9999].path("federation/10000", final))
    eventually(lambda: got(two[10000], "9999", final))
    assert got(two[10000], "9999", name) is None


def tree(top):
    """{path: contents} of the files below."""
    out = {}
    for d, _, names in os.walk(top):
        for n in names:
            f = os.path.join(d, n)
            with open(f, "rb") as i:
                out[os.path.relpath(f, top)] = i.read()
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("folder"))
    os.makedirs(d + "/x/y")
    for path, data in (("empty", b""), ("x/y/one", b"1\n"), ("x/big", os.urandom(5 * MIB + 7))):
        with open(os.path.join(d, path), "wb") as f:
            f.write(data)
        os.utime(os.path.join(d, path), (1500000000, 1500000000))
    return d


@pytest.mark.parametrize("how", [
    "cp -r {src} {dst}",
    "cp -a {src} {dst}",
    "rsync -a {src}/ {dst}/",
    "rsync -a --inplace {src}/ {dst}/",
    "cp -r {src} {tmp} && mv {tmp} {dst}",
    "mkdir {dst} && tar c -C {src} . | tar x -C {dst}",
    "cp -r {src} {dst}.moved && mv {dst}.moved {dst}",
], ids=lambda how: how.translate({ord(c): None for c in "{}./&|"}))
def test_a_folder_arrives(two, folder, tmp_path, how):
    name = "folder-%d" % (hash(how) % 10**9)
    dst = two[9999].path("federation/10000", name)
    cmd = how.format(src=folder, dst=dst, tmp=str(tmp_path / "t"))
    subprocess.run(cmd, shell=True, check=True, timeout=60 * SLOW)
    there = two[10000].path("federation/9999/inbox", name)
    eventually(lambda: tree(there) == tree(folder), 20)
    assert tree(dst) == tree(folder)


@pytest.mark.parametrize("inplace", [[], ["--inplace"]])
def test_a_second_rsync_sends_nothing(two, folder, inplace):
    dst = two[9999].path("federation/10000/twice%d" % len(inplace))
    cmd = ["rsync", "-a", "--stats", *inplace, folder + "/", dst + "/"]
    first = subprocess.run(cmd, capture_output=True, text=True, check=True).stdout
    again = subprocess.run(cmd, capture_output=True, text=True, check=True).stdout
    assert "files transferred: 3" in first
    assert "files transferred: 0" in again


@pytest.mark.parametrize("how", ["cat > {}", "tee {} > /dev/null", "dd of={} bs=64k conv=fsync"])
def test_a_stream_through_a_pipe_arrives(two, how):
    data = os.urandom(MIB) * 9
    name = "pipe-" + how.split()[0]
    subprocess.run(how.format(two[9999].path("federation/10000", name)), shell=True, input=data,
                   check=True, stderr=subprocess.DEVNULL)
    eventually(lambda: got(two[10000], "9999", name) == data)


def test_touch_of_a_sent_file_changes_nothing(two):
    f = put(two[9999], "10000", "touched", b"same")
    eventually(lambda: got(two[10000], "9999", "touched"))
    inode = os.stat(os.path.join(two[9999].state, "federation/10000/out/touched")).st_ino
    with open(f, "r+b"):
        os.utime(f)
    assert os.stat(os.path.join(two[9999].state,
                                "federation/10000/out/touched")).st_ino == inode


def test_a_file_changed_while_it_leaves_arrives_as_it_is_in_the_end(two):
    data = bytearray(os.urandom(24 * MIB))
    fd = os.open(two[9999].path("federation/10000/changed"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, data)
    for at in (0, 4 * MIB - 3, 9 * MIB, 24 * MIB - 5):
        data[at:at + 5] = b"other"
        os.pwrite(fd, b"other", at)
        time.sleep(0.05)
    del data[22 * MIB + 1:]
    os.ftruncate(fd, len(data))
    os.fsync(fd)
    os.close(fd)
    assert got(two[10000], "9999", "changed") == bytes(data)


def test_rollsite_may_die_while_a_file_is_written_and_changed(two):
    data = bytearray(os.urandom(24 * MIB))
    fd = os.open(two[9999].path("federation/10000/survived"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, data[:13 * MIB])
    time.sleep(0.1)
    two[9999].kill("rollsite")
    data[:6] = b"header"
    os.pwrite(fd, b"header", 0)
    os.write(fd, data[13 * MIB:])
    os.fsync(fd)
    os.close(fd)
    assert got(two[10000], "9999", "survived") == bytes(data)


@pytest.mark.skipif(os.path.basename(BUILD) == "release", reason="a release has no hooks")
@pytest.mark.parametrize("point", ["put-written", "put-placed"])
def test_rollsite_may_die_while_it_takes_a_file_over(sandboxes, point):
    s = sandboxes("3", "4", ROLLFS_HOOK_DIE=point + ":1")
    put(s[3], "4", "once", b"only once")
    assert eventually(lambda: got(s[4], "3", "once")) == b"only once"
    eventually(lambda: os.listdir(os.path.join(s[3].state, "federation/4/spool")) == [])


@pytest.mark.parametrize("how", ["killed", "removed", "daemon"])
def test_what_will_not_come_leaves_nothing_at_the_partner(two, how):
    name = two[9999].path("federation/10000/vain-" + how)
    code = "import os, time; f = os.open(%r, os.O_WRONLY | os.O_CREAT)\n" \
           "os.write(f, os.urandom(13 << 20)); time.sleep(600)" % name
    w = subprocess.Popen([sys.executable, "-c", code])

    def acknowledged():
        try:
            return int(os.getxattr(name, "user.rollfs.acknowledged"))
        except OSError:
            return 0

    def kept():
        d, n = os.path.join(two[10000].state, "transfer"), 0
        for t, _, fs in os.walk(d):
            for f in fs:
                with contextlib.suppress(FileNotFoundError):
                    n += os.path.getsize(os.path.join(t, f))
        return n

    before = kept()
    eventually(lambda: acknowledged() >= 12 * MIB)
    assert kept() >= before + 12 * MIB
    if how == "removed":
        os.unlink(name)
    elif how == "daemon":
        two[9999].kill("rollfs")
    w.kill()
    w.wait()
    if how == "daemon":
        two[9999].start()
    eventually(lambda: kept() < before + MIB)
    assert not os.path.exists(name)
    assert got(two[10000], "9999", "vain-" + how) is None
    assert "vain" not in two[9999].read("parties/10000/transfers")


def test_what_is_being_written_leaves_already(two):
    f = two[9999].path("federation/10000/leaving")
    fd = os.open(f, os.O_WRONLY | os.O_CREAT)
    os.write(fd, os.urandom(13 * MIB))
    eventually(lambda: int(os.getxattr(f, "user.rollfs.acknowledged")) >= 12 * MIB)
    assert got(two[10000], "9999", "leaving") is None
    os.close(fd)
    eventually(lambda: len(got(two[10000], "9999", "leaving") or b"") == 13 * MIB)


def test_a_sent_file_has_its_receipt_and_a_deadline(two):
    f = put(two[9999], "10000", "receipt", b"12345")
    eventually(lambda: got(two[10000], "9999", "receipt"))
    eventually(lambda: os.getxattr(f, "user.rollfs.state") == b"committed")
    r = json.loads(os.getxattr(f, "user.rollfs.receipt"))
    assert (r["size"], r["receiver"]) == (5, "10000") and r["signature"]
    assert os.getxattr(f, "user.rollfs.deadline") == b"0"


def test_a_deadline_ends_the_waiting(sandboxes):
    s = sandboxes("3", "4")
    s[4].kill("rollfs")
    s[4].kill("rollsite")
    f = put(s[3], "4", "late", b"x")
    os.setxattr(f, "user.rollfs.deadline", b"1")
    fd = os.open(f, os.O_RDONLY)
    with pytest.raises(OSError) as e:
        os.fsync(fd)
    os.close(fd)
    assert e.value.errno == errno.ETIMEDOUT
    assert os.getxattr(f, "user.rollfs.state") == b"failed"
    s[4].start()


def test_mv_to_another_party_takes_the_deadline_along(sandboxes):
    s = sandboxes("7", "8", "9")
    for down in (8, 9):
        s[down].kill("rollfs")
        s[down].kill("rollsite")
    f = put(s[7], "8", "late", b"x")
    os.setxattr(f, "user.rollfs.deadline", b"3600")
    to = s[7].path("federation/9/late")
    r = subprocess.run(["mv", f, to], capture_output=True, text=True, check=True)
    assert r.stderr == "" and not os.path.exists(f)
    assert os.getxattr(to, "user.rollfs.deadline").startswith(b"20")
    s[8].start()
    s[9].start()


# ---- pull: who comes before the file --------------------------------------


def reader(p, sender, name):
    return subprocess.Popen(["cat", p.path("federation", sender, "pull", name)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_an_open_waits_for_the_file(two):
    r = reader(two[10000], "9999", "awaited")
    with pytest.raises(subprocess.TimeoutExpired):
        r.wait(0.5)
    put(two[9999], "10000", "awaited", b"at last")
    assert r.communicate(timeout=60 * SLOW)[0] == b"at last"


def test_an_opened_file_has_its_size(two):
    data = os.urandom(3 * MIB + 5)
    name = two[10000].path("federation/9999/pull/sized")
    assert os.stat(name).st_size == 0
    code = "import os; f = os.open(%r, 0); print(os.fstat(f).st_size)" % name
    r = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    put(two[9999], "10000", "sized", data)
    assert int(r.communicate(timeout=60 * SLOW)[0]) == len(data)
    assert os.stat(name).st_size == len(data)


def test_what_has_come_opens_at_once(two):
    put(two[9999], "10000", "there", b"now")
    eventually(lambda: got(two[10000], "9999", "there"))
    with open(two[10000].path("federation/9999/pull/there"), "rb") as f:
        assert f.read() == b"now"


def test_a_path_into_folders_to_come_is_encoded(two):
    r = reader(two[10000], "9999", "fold%2Fer%2F100%25")
    put(two[9999], "10000", "fold/er/100%", b"deep")
    assert r.communicate(timeout=60 * SLOW)[0] == b"deep"
    assert os.listdir(two[10000].path("federation/9999/pull/fold/er")) == ["100%25"]
    with open(two[10000].path("federation/9999/pull/fold/er/100%25"), "rb") as f:
        assert f.read() == b"deep"


def test_a_waiting_open_obeys_signals(two):
    r = subprocess.run(["timeout", "1", "cat", two[10000].path("federation/9999/pull/never")],
                       check=False, timeout=60 * SLOW)
    assert r.returncode == 124
    r = reader(two[10000], "9999", "never")
    time.sleep(0.2)
    r.send_signal(signal.SIGINT)
    assert r.wait(60 * SLOW) == -signal.SIGINT


def test_an_open_that_may_not_wait_does_not(two):
    with pytest.raises(BlockingIOError):
        os.open(two[10000].path("federation/9999/pull/never"), os.O_RDONLY | os.O_NONBLOCK)


def test_waiting_opens_hold_up_nobody(two):
    many = [reader(two[10000], "9999", "crowd%d" % (i % 20)) for i in range(60)]
    assert two[10000].read("version")
    for i in range(20):
        put(two[9999], "10000", "crowd%d" % i, b"%d" % i)
    for i, r in enumerate(many):
        assert r.communicate(timeout=60 * SLOW)[0] == b"%d" % (i % 20)


def test_a_waiting_open_outlives_rollsite(two):
    r = reader(two[10000], "9999", "after-death")
    time.sleep(0.2)
    two[10000].kill("rollsite")
    put(two[9999], "10000", "after-death", b"still")
    assert r.communicate(timeout=60 * SLOW)[0] == b"still"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_waiting_open_ends_with_the_mount(sandboxes, sig):
    s = sandboxes("3", "4")
    waiting = [reader(s[3], "4", "w%d" % (i % 2)) for i in range(5)]
    time.sleep(0.3)
    os.kill(s[3].pid("rollfs"), sig)
    for r in waiting:
        r.communicate(timeout=60 * SLOW)
        assert r.returncode == 1
    eventually(lambda: not s[3].pids("rollfs"))


def test_pull_lists_what_has_come_and_never_blocks(two):
    put(two[9999], "10000", "li/st/ed", b"x")
    eventually(lambda: got(two[10000], "9999", "li/st/ed"))
    pull, inbox = (two[10000].path("federation/9999", n) for n in ("pull", "inbox"))
    assert "pull" in os.listdir(os.path.dirname(pull))
    assert os.path.isdir(pull + "/li/st")
    r = subprocess.run(["find", pull, "-type", "f"], capture_output=True, text=True, check=True,
                       timeout=60 * SLOW)
    want = {f.replace("%", "%25") for f in tree(inbox)}
    assert {os.path.relpath(f, pull) for f in r.stdout.split("\n")[:-1]} == want
    subprocess.run(["grep", "-rq", "x", pull], check=True, timeout=60 * SLOW)
    subprocess.run(["ls", "-lR", pull], check=True, timeout=60 * SLOW, stdout=subprocess.DEVNULL)


def test_pull_cannot_be_written(two):
    put(two[9999], "10000", "ro", b"x")
    eventually(lambda: got(two[10000], "9999", "ro"))
    pull = two[10000].path("federation/9999/pull")
    for name in ("ro", "other"):
        with pytest.raises(PermissionError):
            os.open(os.path.join(pull, name), os.O_WRONLY | os.O_CREAT)
    for call in (lambda: os.unlink(pull + "/ro"), lambda: os.rename(pull + "/ro", pull + "/r2"),
                 lambda: os.rmdir(pull + "/ro") if os.path.isdir(pull + "/ro") else
                 os.unlink(pull + "/ro")):
        with pytest.raises(PermissionError):
            call()
    assert got(two[10000], "9999", "ro") == b"x"


@pytest.mark.parametrize("name", [".git", "x.tmp", "bad%zz", "a%2F..%2Fb", "%2Fetc", "new%0Aline"])
def test_names_that_cannot_come(two, name):
    with pytest.raises(FileNotFoundError):
        os.stat(two[10000].path("federation/9999/pull", name))


# ---- what rollsite is told -------------------------------------------------


@pytest.fixture(scope="module")
def told(sandboxes):
    """A party whose rollsite is a fake that notes what it hears."""
    s = sandboxes("5", "6")
    p = s[5]
    p.kill("rollfs")
    p.kill("rollsite")
    p.site = FakeSite(p.state)
    p.start()
    yield p
    p.site.stop()


@pytest.fixture
def site(told):
    told.site.gate.set()
    told.site.refuse = 0
    with told.site.changed:
        told.site.events.clear()
    return told.site


def opened(told, name):
    return os.open(told.path("federation/6", name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def test_a_file_is_announced_while_it_is_written(told, site):
    fd = opened(told, "stream")
    for _ in range(9):
        os.write(fd, os.urandom(MIB))
    last = eventually(lambda: [e for e in site.of("file_stream") if e["bytes"] >= 8 * MIB])[-1]
    assert (last["party"], last["path"], last["rewritten"]) == ("6", "stream", False)
    assert os.path.getsize(last["spool"]) >= last["bytes"]
    os.close(fd)
    assert [e["op"] for e in site.events if e["op"] != "file_stream"] == ["file_put"]
    assert site.events[-1]["op"] == "file_put"
    assert site.events[-1]["spool"] == last["spool"]


def test_a_gap_is_not_announced(told, site):
    fd = opened(told, "gap")
    os.pwrite(fd, os.urandom(MIB), 0)
    os.pwrite(fd, os.urandom(8 * MIB), 3 * MIB)
    os.close(fd)
    assert site.of("file_stream") == []
    assert len(site.of("file_put")) == 1


def test_a_small_file_is_not_announced(told, site):
    put(told, "6", "small", os.urandom(3 * MIB))
    assert [e["op"] for e in site.events] == ["file_put"]


def test_news_is_replaced_by_newer_and_comes_before_the_put(told, site):
    site.gate.clear()
    fd = opened(told, "slow")
    os.write(fd, os.urandom(5 * MIB))
    eventually(lambda: site.of("file_stream"))
    os.write(fd, os.urandom(20 * MIB))  # never waits for rollsite
    os.pwrite(fd, b"header", 0)
    site.gate.set()
    os.close(fd)
    first, second = site.of("file_stream")
    assert not first["rewritten"] and second["rewritten"] and second["bytes"] == 0
    assert [e["op"] for e in site.events] == ["file_stream", "file_stream", "file_put"]


def test_news_of_the_lowest_change_is_not_lost(told, site):
    site.gate.clear()
    fd = opened(told, "low")
    os.write(fd, os.urandom(5 * MIB))
    eventually(lambda: site.of("file_stream"))
    os.write(fd, os.urandom(20 * MIB))
    os.pwrite(fd, b"x" * (MIB // 8), 4 * MIB - 10)  # the first chunk's end
    os.pwrite(fd, os.urandom(16 * MIB), 4 * MIB)
    site.gate.set()
    os.close(fd)
    assert [(e["rewritten"], e["bytes"]) for e in site.of("file_stream")[1:]] == \
        [(True, 4 * MIB - 10)]


def test_a_truncated_file_is_rewritten(told, site):
    fd = opened(told, "cut")
    os.write(fd, os.urandom(6 * MIB))
    eventually(lambda: site.of("file_stream"))
    os.ftruncate(fd, MIB)
    last = eventually(lambda: [e for e in site.of("file_stream") if e["rewritten"]])[-1]
    assert last["bytes"] == MIB
    os.close(fd)


def test_a_killed_writer_takes_its_file_back(told, site):
    code = "import os, time; f = os.open(%r, os.O_WRONLY | os.O_CREAT)\n" \
           "os.write(f, bytes(6 << 20)); time.sleep(600)" % told.path("federation/6/killed")
    w = subprocess.Popen([sys.executable, "-c", code])
    spool = eventually(lambda: site.of("file_stream"))[0]["spool"]
    w.kill()
    w.wait()
    assert eventually(lambda: site.of("file_drop"))[0]["spool"] == spool
    assert site.of("file_put") == []
    assert not os.path.exists(spool)
    assert not os.path.exists(told.path("federation/6/killed"))


def test_a_file_removed_while_it_is_written_is_dropped(told, site):
    fd = opened(told, "gone")
    os.write(fd, os.urandom(6 * MIB))
    spool = eventually(lambda: site.of("file_stream"))[0]["spool"]
    os.unlink(told.path("federation/6/gone"))
    assert eventually(lambda: site.of("file_drop"))[0]["spool"] == spool
    os.write(fd, os.urandom(6 * MIB))
    os.close(fd)
    time.sleep(0.2)
    assert site.of("file_put") == []
    assert len(site.of("file_stream")) == 1


def test_a_file_renamed_while_it_is_written_goes_under_its_last_name(told, site):
    data = os.urandom(12 * MIB)
    fd = opened(told, "first")
    os.write(fd, data[:6 * MIB])
    spool = eventually(lambda: site.of("file_stream"))[0]["spool"]
    os.rename(told.path("federation/6/first"), told.path("federation/6/last"))
    os.write(fd, data[6 * MIB:])
    os.close(fd)
    (end,) = site.of("file_put")
    assert end["path"] == "last" and end["spool"] != spool
    assert eventually(lambda: site.of("file_drop"))[0]["spool"] == spool
    with open(told.path("federation/6/last"), "rb") as f:
        assert f.read() == data
    assert not os.path.exists(told.path("federation/6/first"))


def test_a_file_renamed_to_a_temporary_name_is_dropped(told, site):
    fd = opened(told, "will-be")
    os.write(fd, bytes(6 * MIB))
    spool = eventually(lambda: site.of("file_stream"))[0]["spool"]
    os.rename(told.path("federation/6/will-be"), told.path("federation/6/will-be.part"))
    os.write(fd, b"end")
    os.close(fd)
    assert eventually(lambda: site.of("file_drop"))[0]["spool"] == spool
    assert site.of("file_put") == []
    assert os.path.getsize(told.path("federation/6/will-be.part")) == 6 * MIB + 3


def kept(told, name):
    return os.path.join(told.state, "mount-tmp/peer-6", name)


def sent(told, name):
    return os.path.join(told.state, "federation/6/out", name)


def test_a_temporary_file_becomes_final_without_a_copy(told, site):
    f = put(told, "6", ".big.XXXX", os.urandom(MIB))
    os.utime(f, (1500000000, 1500000000))
    inode = os.stat(kept(told, ".big.XXXX")).st_ino
    os.rename(f, told.path("federation/6/big"))
    assert os.stat(sent(told, "big")).st_ino == inode
    assert os.stat(told.path("federation/6/big")).st_mtime == 1500000000
    assert not os.path.exists(kept(told, ".big.XXXX"))


def test_a_temporary_file_stays_when_nobody_takes_it(told, site):
    f = put(told, "6", "refused.tmp", b"kept")
    site.refuse = errno.EACCES
    with pytest.raises(PermissionError):
        os.rename(f, told.path("federation/6/refused"))
    site.refuse = 0
    with open(f, "rb") as i:
        assert i.read() == b"kept"
    assert os.listdir(os.path.join(told.state, "federation/6/spool")) == []
    os.rename(f, told.path("federation/6/refused"))
    with open(sent(told, "refused"), "rb") as i:
        assert i.read() == b"kept"


def test_close_tells_that_nobody_took_the_file(told, site):
    fd = opened(told, "untaken")
    os.write(fd, b"x")
    site.refuse = errno.EHOSTUNREACH
    with pytest.raises(OSError) as e:
        os.close(fd)
    site.refuse = 0
    assert e.value.errno == errno.EHOSTUNREACH
    assert "refused by the test" in told.read("errors")
    eventually(lambda: not os.path.exists(told.path("federation/6/untaken")))
    assert len(site.of("file_put")) == 1


def test_a_temporary_file_that_is_being_written_is_copied(told, site):
    fd = opened(told, "open.part")
    os.write(fd, b"as of now")
    inode = os.stat(kept(told, "open.part")).st_ino
    os.rename(told.path("federation/6/open.part"), told.path("federation/6/open"))
    assert os.stat(sent(told, "open")).st_ino != inode
    with open(sent(told, "open"), "rb") as f:
        assert f.read() == b"as of now"
    os.write(fd, b", and more")
    os.close(fd)
    assert len(site.of("file_put")) == 2
    with open(sent(told, "open"), "rb") as f:
        assert f.read() == b"as of now, and more"


def test_a_sent_file_gets_another_name_without_a_copy(told, site):
    f = put(told, "6", "name1", b"x")
    inode = os.stat(sent(told, "name1")).st_ino
    os.rename(f, told.path("federation/6/dir-less"))
    assert os.stat(sent(told, "dir-less")).st_ino == inode


def test_truncate_by_name_is_a_new_generation(told, site):
    f = put(told, "6", "trunc", b"0123456789")
    os.truncate(f, 4)
    os.truncate(f, 6)
    with open(f, "rb") as i:
        assert i.read() == b"0123\0\0"
    os.truncate(f, 0)
    assert os.path.getsize(f) == 0
    assert len(site.of("file_put")) == 4


def test_a_write_after_fsync_is_a_new_generation(told, site):
    fd = opened(told, "twice")
    os.write(fd, b"one")
    os.fsync(fd)
    inode = os.stat(sent(told, "twice")).st_ino
    os.write(fd, b", two")
    os.close(fd)
    assert len(site.of("file_put")) == 2
    assert os.stat(sent(told, "twice")).st_ino != inode
    with open(sent(told, "twice"), "rb") as f:
        assert f.read() == b"one, two"


def test_the_attributes_of_a_sent_file(told, site):
    f = put(told, "6", "attr", b"x")
    assert os.getxattr(f, "user.rollfs.receipt") == b'{"size":1,"tid":"00"}'
    assert os.getxattr(f, "user.rollfs.deadline") == b"0"
    os.setxattr(f, "user.rollfs.deadline", b"3600")
    os.setxattr(f, "user.rollfs.deadline", b"2030-01-02T03:04:05.5+01:00")
    os.removexattr(f, "user.rollfs.deadline")
    a, b, c = site.of("file_deadline")
    assert abs(a["deadline"] / 1000 - time.time() - 3600) < 30
    assert (b["deadline"], c["deadline"]) == (1893549845500, 0)
    assert (b["party"], b["path"]) == ("6", "attr")


@pytest.mark.parametrize("name,value,no", [
    ("deadline", b"soon", errno.EINVAL), ("deadline", b"", errno.EINVAL),
    ("deadline", b"-5", errno.EINVAL), ("deadline", b"99999999999999999999", errno.EINVAL)])
def test_attributes_that_cannot_be_set(told, site, name, value, no):
    f = put(told, "6", "attr", b"x")
    with pytest.raises(OSError) as e:
        os.setxattr(f, "user.rollfs." + name, value)
    assert e.value.errno == no
    assert site.of("file_deadline") == []


def test_what_tells_of_a_transfer_is_made_anew_and_not_set(told, site):
    f = put(told, "6", "attr", b"x")
    os.setxattr(f, "user.rollfs.receipt", b"forged")
    assert os.getxattr(f, "user.rollfs.receipt") == b'{"size":1,"tid":"00"}'
    assert site.of("file_deadline") == []


def test_a_folder_is_moved_within_a_party_without_a_word(two):
    f = put(two[9999], "10000", "was/deep/file", b"moved")
    eventually(lambda: os.getxattr(f, "user.rollfs.state") == b"committed")
    d = two[9999].path("federation/10000")
    r = subprocess.run(["mv", d + "/was", d + "/is"], capture_output=True, text=True, check=True)
    assert (r.stdout, r.stderr) == ("", "")
    assert os.listdir(d + "/is/deep") == ["file"]
    eventually(lambda: got(two[10000], "9999", "is/deep/file") == b"moved")


def test_a_full_disk_here_sends_nothing_half(told, site):
    top = os.path.join(told.state, "federation")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "rollfs-test", top], check=True)
    try:
        fd = opened(told, "toobig")
        with pytest.raises(OSError) as e:
            for _ in range(16):
                os.write(fd, os.urandom(MIB))
        assert e.value.errno == errno.ENOSPC
        with pytest.raises(OSError) as e:
            os.close(fd)
        assert e.value.errno == errno.ENOSPC
        eventually(lambda: not os.path.exists(told.path("federation/6/toobig")))
        assert site.of("file_put") == []
        eventually(lambda: os.listdir(os.path.join(top, "6/spool")) == [])
        eventually(lambda: os.statvfs(top).f_bavail * os.statvfs(top).f_bsize > MIB)
        put(told, "6", "fits", b"x")
        assert len(site.of("file_put")) == 1
    finally:
        eventually(lambda: subprocess.run(["umount", top], check=False).returncode == 0)


def test_what_a_dead_rollfs_left_is_dropped(told, site):
    code = "import os, time; f = os.open(%r, os.O_WRONLY | os.O_CREAT)\n" \
           "os.write(f, bytes(6 << 20)); time.sleep(600)" % told.path("federation/6/orphan")
    w = subprocess.Popen([sys.executable, "-c", code])
    spool = eventually(lambda: site.of("file_stream"))[0]["spool"]
    told.kill("rollfs")
    w.kill()
    w.wait()
    told.start()
    assert eventually(lambda: site.of("file_drop"))[0]["spool"] == spool
    assert site.of("file_put") == []
    assert not os.path.exists(spool)


@pytest.mark.parametrize("name", ["inbox", "pull"])
def test_reserved_names(two, name):
    with pytest.raises(OSError) as e:
        with open(two[9999].path("federation/10000", name), "w") as f:
            f.write("x")
    assert e.value.errno in (errno.EPERM, errno.EISDIR)


@pytest.mark.parametrize("make, why", [
    (lambda d: os.symlink("x", d + "/link"), "cp -rL"),
    (lambda d: os.mkdir(d + "/inbox/folder"), "it can be read and removed"),
    (lambda d: open(d + "/inbox/file", "w"), "it can be read and removed"),
    (lambda d: os.rename(d + "/pull", d + "/x"), "inbox and pull"),
    (lambda d: os.mkdir(d + "/a\nb"), "UTF-8"),
], ids=["symlink", "folder", "file", "rename", "name"])
def test_why_nothing_can_be_made_there_is_in_errors(two, make, why):
    put(two[9999], "10000", "sent", b"x")
    with pytest.raises(OSError) as e:
        make(two[9999].path("federation/10000"))
    assert e.value.errno in (errno.EPERM, errno.EINVAL, errno.EISDIR)
    assert why in two[9999].read("errors").split("\n20")[0]


def test_transfers_say_what_happened(two):
    f = put(two[9999], "10000", "told", b"12345")
    eventually(lambda: got(two[10000], "9999", "told"))
    eventually(lambda: "told" in two[9999].read("parties/10000/transfers"))
    assert os.listxattr(f)
    # The partner shows it before its receipt is here.
    eventually(lambda: os.getxattr(f, "user.rollfs.chunks") == b"0")


def test_transfers_are_what_is_now(two):
    for i in range(3):
        f = put(two[9999], "10000", "now%d" % i, os.urandom(9 << 20))
        two[9999].read("parties/10000/transfers")
        fd = os.open(f, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        lines = two[9999].read("parties/10000/transfers").splitlines()
        assert [s for s in lines if s.endswith("now%d" % i)][0].split()[1] == "committed"
        assert os.getxattr(f, "user.rollfs.chunks") == b"0-2"


@pytest.mark.skipif(os.path.basename(BUILD) == "release", reason="a release has no hooks")
def test_chunks_leave_while_a_file_gets_its_place(sandboxes):
    """Between the rename of the spool file and the end of the close."""
    s = sandboxes("5", "6", ROLLFS_HOOK_PAUSE="put-placed:700")
    data = os.urandom(40 << 20)
    f = put(s[5], "6", "placed", data)
    fd = os.open(f, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    assert got(s[6], "5", "placed") == data


def test_a_party_that_may_not_push_is_refused(sandboxes):
    s = sandboxes("1", "2")
    with open(s[2].path("parties/1/allow"), "w") as f:
        f.write("module *\n")
    fd = os.open(s[1].path("federation/2/no"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"x")
    with pytest.raises(OSError) as e:
        os.fsync(fd)
    os.close(fd)
    assert e.value.errno == errno.EACCES
    assert got(s[2], "1", "no") is None


def test_touch_tries_a_failed_file_again(sandboxes):
    s = sandboxes("1", "2")
    with open(s[2].path("parties/1/allow"), "w") as f:
        f.write("module *\n")
    path = put(s[1], "2", "again", b"x")
    eventually(lambda: os.getxattr(path, "user.rollfs.state") == b"failed")
    with open(s[2].path("parties/1/allow"), "a") as f:
        f.write("push *\n")
    os.utime(path)
    assert eventually(lambda: got(s[2], "1", "again")) == b"x"
    eventually(lambda: os.getxattr(path, "user.rollfs.state") == b"committed")
