# SPDX-License-Identifier: Apache-2.0
"""A disk that takes its time holds up those who wait for it, and nobody else: strace
stops rollfs in each fsync while a crowd calls."""
import os
import re
import subprocess

import pytest
from conftest import SLOW, eventually

CROWD = 24
SYNCS = ("74", "75", "306")  # fsync, fdatasync, syncfs on x86-64


def of_thread(pid, thread, name):
    try:
        with open("/proc/%s/task/%s/%s" % (pid, thread, name), encoding="ascii") as f:
            return f.read()
    except OSError:
        return ""


class SlowDisk:
    """All that rollfs gives to the disk takes ten minutes, or until the end."""

    def __init__(self, party):
        self.pid = party.pid("rollfs")

    def __enter__(self):
        names = "fsync,fdatasync,syncfs"
        self.strace = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + names,
             "-e", "inject=%s:delay_enter=600s" % names, "-p", str(self.pid)],
            start_new_session=True)
        eventually(lambda: all(re.search(r"^TracerPid:\s*[1-9]", of_thread(self.pid, t, "status"),
                                         re.M) for t in self._threads()))
        return self

    def _threads(self):
        return os.listdir("/proc/%d/task" % self.pid)

    def waiting(self):
        """How many threads are in such a call."""
        return sum(of_thread(self.pid, t, "syscall").startswith(tuple(n + " " for n in SYNCS))
                   for t in self._threads())

    def __exit__(self, *_):
        self.strace.terminate()
        self.strace.wait()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def close_sent(p, i):
    write(p.path("federation/10000/slow%d" % i), b"x" * 100)


def close_table(p, i):
    write(p.path("tables/slow/t%d/data.csv" % i), b"id,x\na,1\n")


def fsync_directory(p, i):
    fd = os.open(p.path("tables/slow/t%d" % i), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def make_table(p, i):
    os.mkdir(p.path("tables/slow%d/new" % i))


def chmod_table(p, i):
    os.chmod(p.path("tables/slow/t%d" % i), 0o700)


def close_options(p, i):
    write(p.path("tables/slow/t%d/upload.json" % i), b'{"partition": 2}\n')


def in_a_child(fn, *args):
    pid = os.fork()
    if not pid:
        try:
            fn(*args)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def asleep(pid):
    """In the kernel, which waits for rollfs (or for who does)."""
    return of_thread(pid, pid, "wchan") in ("request_wait_answer", "__fuse_simple_request")


@pytest.mark.parametrize("call", [close_sent, close_table, fsync_directory, make_table,
                                  chmod_table, close_options], ids=lambda c: c.__name__)
def test_others_are_answered(two, call):
    p = two[9999]
    for i in range(CROWD):
        os.makedirs(p.path("tables/slow/t%d" % i), exist_ok=True)
        os.makedirs(p.path("tables/slow%d" % i), exist_ok=True)
    p.upload("quick", "t", "id,x\na,1\n")
    with SlowDisk(p) as disk:
        crowd = [in_a_child(call, p, i) for i in range(CROWD)]
        eventually(lambda: disk.waiting() and all(asleep(c) for c in crowd))
        out = subprocess.run(["cat", p.path("version"), p.path("tables/quick/t/data.csv")],
                             capture_output=True, timeout=60 * SLOW, check=True).stdout
        assert out.endswith(b"id,x\na,1\n")
        assert all(asleep(c) for c in crowd), "the disk was not slow"
    assert [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in crowd] == [0] * CROWD
