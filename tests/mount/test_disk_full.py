# SPDX-License-Identifier: Apache-2.0
"""The receiver's disk: 64 MiB in a file, mounted as its state directory.  What
does not fit waits, says why, and goes on by itself; what is visible is whole."""
import concurrent.futures
import contextlib
import errno
import os
import subprocess

import pytest
from conftest import eventually
from net import MIB, Socket, content, lab, run
from test_soak import job_close, job_open, key_of, send

_ = lab  # a fixture


class Disk:
    """More than the size: the rest is a file that grow() cuts (not every root
    may resize a mounted file system)."""

    LARGEST = 256 * MIB

    def __init__(self, x, party, size):
        self.image, self.at = os.path.join(x.dir, party + ".img"), x[party].state
        with open(self.image, "wb") as f:
            f.truncate(self.LARGEST)
        run("mkfs.ext4", "-q", "-m", "0", "-E", "root_owner=%d:%d" % (os.getuid(), os.getgid()),
            self.image)
        self.loop = run("losetup", "--find", "--show", self.image).strip()
        x.cleanup.append(self.remove)
        run("mount", self.loop, self.at)
        os.rmdir(os.path.join(self.at, "lost+found"))
        os.chmod(self.at, 0o700)

        self.rest = os.path.join(self.at, "rest")
        with open(self.rest, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, max(1, self.free() - size))

    def grow(self, size):
        os.truncate(self.rest, max(0, os.path.getsize(self.rest) - (size - 64 * MIB)))

    def free(self):
        v = os.statvfs(self.at)
        return v.f_bavail * v.f_frsize

    def remove(self):
        subprocess.run(["umount", self.at], check=False, capture_output=True)
        subprocess.run(["losetup", "-d", self.loop], check=False, capture_output=True)


@pytest.fixture
def x(lab):
    disks = []
    made = lab({"1": {}, "2": {}}, setup=lambda x: disks.append(Disk(x, "2", 64 * MIB)))
    made.disk = disks[0]
    # The floor would be another reason; it has its own test.
    with open(made["2"].path("parties/1/allow"), "w") as f:
        f.write("push *\nlimit floor 1M\n")
    return made.ready()


def visible(x):
    d = x["2"].path("federation/1/inbox")
    return {n: os.path.getsize(os.path.join(d, n)) for n in os.listdir(d)}


def parked_for_space(x, path, seconds=15):
    def look():
        a = x["1"].attributes("2", path)
        return a["state"] == "parked" and "space" in a["error"] and \
            "no space" in x["1"].line("2", path) and a
    try:
        a = eventually(look, seconds)
    except AssertionError:
        print(x["1"].attributes("2", path), x.disk.free(), x.tell())
        raise
    return a


def test_a_file_larger_than_the_disk_waits_for_a_larger_disk(x):
    with open(x["2"].path("parties/1/allow"), "w") as f:
        f.write("push *\nlimit floor 20M\n")
    data = content("huge", 1, 100 * MIB)
    x["1"].put("2", "huge", data)
    a = parked_for_space(x, "huge")
    assert float(a["next_try"]) < 60
    assert visible(x) == {}
    # What came of it so far stays (nobody knew its size); the floor holds, but
    # for the chunks that are under way.
    assert x.disk.free() >= 4 * MIB
    small = content("small", 1, 3 * MIB)
    x["1"].put("2", "small", small)
    x.disk.grow(192 * MIB)
    eventually(lambda: x["1"].state_of("2", "huge") == "committed", 60)
    eventually(lambda: x["2"].got("1", "small") == small, 30)
    assert x["2"].got("1", "huge") == data
    assert sorted(visible(x)) == ["huge", "small"]
    eventually(lambda: not x["2"].leftovers())


def test_room_made_by_removing_what_came_before(x):
    first = content("first", 1, 34 * MIB)
    x["1"].put("2", "first", first)
    eventually(lambda: x["2"].got("1", "first") == first, 20)
    second = content("second", 1, 30 * MIB)
    x["1"].put("2", "second", second)
    parked_for_space(x, "second")
    assert visible(x) == {"first": 34 * MIB}
    os.unlink(x["2"].path("federation/1/inbox/first"))
    eventually(lambda: x["1"].state_of("2", "second") == "committed", 40)
    assert x["2"].got("1", "second") == second
    assert visible(x) == {"second": 30 * MIB}


def test_a_stream_that_fills_the_disk(x):
    """Nobody knew its size; when there is room it goes on, from where it was."""
    data = content("stream", 1, 70 * MIB)
    fd = os.open(x["1"].path("federation/2/stream"), os.O_WRONLY | os.O_CREAT)
    for i in range(0, len(data), 4 * MIB):
        os.write(fd, data[i:i + 4 * MIB])
    os.close(fd)
    parked_for_space(x, "stream")
    acknowledged = int(x["1"].attributes("2", "stream")["acknowledged"])
    assert visible(x) == {}
    x.disk.grow(160 * MIB)
    eventually(lambda: x["1"].state_of("2", "stream") == "committed", 60)
    assert x["2"].got("1", "stream") == data
    print("%d MiB were there when the disk was full" % (acknowledged // MIB))
    assert x["2"].metric("rollfs_chunks_again_total") == 0


def test_many_small_ones_and_no_space(x):
    """Inline files on a full disk: none is lost, none is empty."""
    with open(os.path.join(x["2"].state, "ballast"), "wb") as f:
        with contextlib.suppress(OSError):
            while True:
                f.write(b"x" * 65536)
                f.flush()
    files = {"s%d" % i: content("s%d" % i, 1, 40000) for i in range(8)}
    for path, data in files.items():
        x["1"].put("2", path, data)
    parked_for_space(x, "s0")
    for name, size in visible(x).items():
        assert size == len(files[name])
    os.unlink(os.path.join(x["2"].state, "ballast"))
    for path, data in files.items():
        eventually(lambda path=path, data=data: x["2"].got("1", path) == data, 40)
    eventually(lambda: not x["2"].leftovers())


def test_the_floor_that_stays_free(x):
    with open(x["2"].path("parties/1/allow"), "w") as f:
        f.write("push *\nlimit floor 40M\n")
    x["1"].put("2", "floor", content("floor", 1, 40 * MIB))
    parked_for_space(x, "floor")
    assert x.disk.free() > (40 - 4 * 4) * MIB
    with open(x["2"].path("parties/1/allow"), "w") as f:
        f.write("push *\nlimit floor 1M\n")
    eventually(lambda: x["1"].state_of("2", "floor") == "committed", 40)


def test_the_senders_disk(lab):
    """A file that does not fit here fails in the writer's hand."""
    disks = []
    x = lab({"1": {}, "2": {}}, setup=lambda x: disks.append(Disk(x, "1", 64 * MIB))).ready()
    with pytest.raises(OSError) as e:
        x["1"].put("2", "toolarge", content("toolarge", 1, 100 * MIB))
    assert e.value.errno in (errno.ENOSPC, errno.EDQUOT)
    # What could not be written whole is not sent, and takes no room.
    eventually(lambda: not x["1"].leftovers() and disks[0].free() > 40 * MIB, 10)
    data = content("fits", 1, 20 * MIB)
    x["1"].put("2", "fits", data)
    eventually(lambda: x["2"].got("1", "fits") == data, 20)
    eventually(lambda: not x["1"].leftovers(), 5)


def test_a_table_that_does_not_fit_leaves_the_old_one(x, rng):
    d = x["2"].path("tables/full/t")
    os.makedirs(d)
    with open(d + "/data.csv", "w", encoding="utf-8") as f:
        f.write("id,v\nold,1\n")
    free = x.disk.free()
    ids = list(range(400000))
    for in_order in (True, False):
        if not in_order:
            rng.shuffle(ids)
        rows = "".join("k%08d,%s\n" % (i, rng.randbytes(100).hex()) for i in ids)
        with pytest.raises(OSError) as e, open(d + "/data.csv", "wb", buffering=0) as f:
            f.write(b"id,v\n")
            for at in range(0, len(rows), MIB):
                f.write(rows[at:at + MIB].encode())
        assert e.value.errno == errno.ENOSPC
        assert "No space left" in x["2"].read("errors").splitlines()[0]
        with open(d + "/data.csv", encoding="utf-8") as f:
            assert f.read() == "id,v\nold,1\n"
        eventually(lambda: x.disk.free() > free - 2 * MIB and
                   os.listdir(os.path.join(x["2"].state, "tables/building")) == [])


def test_a_job_on_a_full_disk_says_so_and_can_be_run_again(x):
    with open(x["2"].path("parties/1/allow"), "w") as f:
        f.write("module *\ntable *\nrole *\npush *\nlimit floor 1M\n")
    names = ["add_%d" % i for i in range(40)]
    dsl = {"components": {n: {"module": "SecureAddExample"} for n in names}}
    conf = {"dsl_version": 2, "initiator": {"role": "guest", "party_id": 1},
            "role": {"guest": [1], "host": [2]},
            "component_parameters": {"common": {n: {"data_num": 1} for n in names}}}
    job = x["1"].submit(dsl, conf)
    eventually(lambda: "add_1 " in x["1"].read("jobs", job, "events"), 30)
    fill = os.path.join(x.disk.at, "fill")
    with open(fill, "wb", buffering=0) as f, contextlib.suppress(OSError):
        while f.write(bytes(64 << 10)):
            pass
    assert x["1"].wait(job, 300) == "failed"
    assert "the disk of that party is full" in x["1"].error(job)
    os.unlink(fill)
    with open(x["1"].path("jobs", job, "ctl"), "w") as f:
        f.write("rerun\n")
    assert x["1"].wait(job, 300) == "success", x["1"].error(job)


def test_messages_of_jobs_that_wait_for_the_disk_of_a_partner_are_seen_in_ping(x):
    job = "20261123120000000000009001"
    job_open(x, job)
    fill = os.path.join(x.disk.at, "fill")
    with open(fill, "wb", buffering=0) as f, contextlib.suppress(OSError):
        while f.write(bytes(64 << 10)):
            pass
    with concurrent.futures.ThreadPoolExecutor(1) as pool, Socket(x["1"], 240) as s:
        # More than the journals have room for in advance.
        sent = pool.submit(lambda: [send(s, key_of(job, "variable", str(i)), bytes(60000))["status"]
                                    for i in range(200)])
        try:
            eventually(lambda: "no disk for messages" in x["1"].read("parties/2/ping"), 20)
        finally:
            os.unlink(fill)
        assert set(sent.result(240)) == {0}
    eventually(lambda: "no disk" not in x["1"].read("parties/2/ping"), 20)
    job_close(x, job)
