# SPDX-License-Identifier: Apache-2.0
"""Tables that need more than one arena of rows: what comes out, what it takes,
and deaths in the midst of it.  SOAK=1: ten million rows and many deaths."""
import ctypes
import errno
import glob
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import SLOW, eventually, read

SOAK = os.environ.get("SOAK")
ROWS = 10000000 if SOAK else 60000
COLUMNS = 20
DEATHS = 200 if SOAK else 8
SORT_BYTES = {} if SOAK else {"ROLLFS_TEST_SORT_BYTES": "400000"}
HEADER = "id" + "".join(",x%d" % i for i in range(COLUMNS)) + "\n"


@pytest.fixture(scope="module")
def p(sandboxes):
    return sandboxes("9999", **SORT_BYTES)["9999"]


def cells(i):
    return "".join(",%d.%06d" % (i >> k & 7, i * (k + 3) % 1000000) for k in range(COLUMNS))


def sample(path, rows, seed=1):
    """Rows of all ids below rows, in random order."""
    ids = list(range(rows))
    random.Random(seed).shuffle(ids)
    with open(path, "w", encoding="utf-8") as f:
        f.write(HEADER)
        for i in ids:
            f.write("k%08d%s\n" % (i, cells(i)))
    return path


def peak_mib(pid):
    return next(int(x.split()[1]) / 1024 for x in read("/proc", str(pid), "status").splitlines()
                if x.startswith("VmHWM:"))


def leftovers(p):
    """What is half-built, and generations that no name stands for."""
    state = os.path.join(p.sandbox.dir, "state/9999/tables")
    named = set()
    for name in glob.glob(state + "/names/*/*"):
        named.add(read(name).split('"')[3])
    there = {os.path.relpath(x, state + "/data") for x in glob.glob(state + "/data/*/*")}
    # Half-written ones have these names; namespaces have a number.
    torn = [x for x in glob.glob(state + "/**", recursive=True, include_hidden=True)
            if re.search(r"/\.\d+\.\d+\.tmp$", x)] + \
        [x for x in glob.glob(state + "/names/*") if not os.path.exists(x + "/.id")]
    return os.listdir(state + "/building") + sorted(there - named) + torn


def test_a_large_table_in_random_order(p, tmp_path, rng):
    source = sample(str(tmp_path / "source.csv"), ROWS)
    d = p.path("tables/scale/t")
    os.makedirs(d)
    subprocess.run(["cp", source, d + "/data.csv"], check=True)
    assert subprocess.run(["wc", "-l", d + "/data.csv"], check=True, capture_output=True,
                          text=True).stdout.split()[0] == str(ROWS + 1)
    r = subprocess.run(["bash", "-c", "(head -n1 $0; tail -n+2 $0 | LC_ALL=C sort) | cmp - $1",
                        source, d + "/data.csv"], check=False, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout
    for _ in range(1000 if SOAK else 200):
        i = rng.randrange(ROWS)
        assert read(d, "rows/k%08d" % i) == "k%08d%s\n" % (i, cells(i))
    assert peak_mib(p.pid("rollfs")) < 256 * SLOW
    assert leftovers(p) == []
    os.unlink(source)


def test_the_progress_of_an_upload_is_read_while_it_runs(p):
    d = p.path("tables/scale/progress")
    os.makedirs(d)
    fd = os.open(d + "/data.csv", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"id,x\n" + b"".join(b"k%06d,1\n" % i for i in range(9000)))
    assert os.getxattr(d, "user.rollfs.upload") == b"taken 8192 rows"
    os.close(fd)
    with pytest.raises(OSError) as e:
        os.getxattr(d, "user.rollfs.upload")
    assert e.value.errno == errno.ENODATA
    assert read(d, "count") == "9000\n"


def test_who_asks_how_long_an_attribute_is_gets_that_value(p):
    """mv and rsync ask twice, and say that something is wrong when it has become longer."""
    d, name = p.path("tables/scale/asked"), "user.rollfs.upload"
    os.makedirs(d)
    fd = os.open(d + "/data.csv", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"id,x\n")
    libc, value = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(100)

    def ask(n):
        return libc.getxattr(d.encode(), name.encode(), value if n else None, n)
    n = ask(0)
    assert n == len("taken 0 rows")
    os.write(fd, b"".join(b"k%06d,1\n" % i for i in range(9000)))
    assert ask(n) == n and value.value == b"taken 0 rows"
    assert os.getxattr(d, name) == b"taken 8192 rows"
    n = ask(0)
    os.close(fd)
    assert ask(n) == n and value.value == b"taken 8192 rows"
    assert ask(n) == -1 and ctypes.get_errno() == errno.ENODATA


WRITER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
source, to, chunk = sys.argv[1], sys.argv[2], int(sys.argv[3])
fd = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
with open(source, "rb") as f:
    while data := f.read(chunk):
        os.write(fd, data)
print("written", flush=True)
os.close(fd)
"""


def test_an_interrupted_close_publishes_all_or_nothing(p, tmp_path, rng):
    source = sample(str(tmp_path / "source.csv"), 40000)
    d = p.path("tables/scale/interrupted")
    os.makedirs(d)
    for _ in range(3):
        with open(d + "/data.csv", "w", encoding="utf-8") as f:
            f.write("id,x\nold,1\n")
        w = subprocess.Popen([sys.executable, "-c", WRITER, source, d + "/data.csv", "1000000"],
                             stdout=subprocess.PIPE, text=True)
        assert w.stdout.readline() == "written\n"
        time.sleep(rng.random() * 0.2)
        w.send_signal(signal.SIGINT)
        assert w.wait(60 * SLOW) in (0, -signal.SIGINT)
        w.stdout.close()
        eventually(lambda: not leftovers(p), 20)
        assert read(d, "count") in ("1\n", "40000\n")
        if w.returncode == 0:
            assert read(d, "count") == "40000\n"


def contents(d):
    try:
        return read(d, "data.csv")
    except FileNotFoundError:
        return None


def test_deaths_in_the_midst_leave_the_old_or_the_new(p, tmp_path, rng):
    """Uploads, drops, renames go on by themselves while rollfs is killed at any moment."""
    texts = [read(sample(str(tmp_path / ("s%d.csv" % k)), n)) for k, n in ((0, 3000), (1, 9000))]
    want = [HEADER + "".join(sorted(x.splitlines(keepends=True)[1:])) for x in texts]
    d = p.path("tables/deaths/t")
    script = """
d=$0
while :; do
    mkdir -p $d; cp $1 $d/data.csv; cp $2 $d/data.csv; chmod 700 $d
    mv $d $d.b; rm -r $d.b; rmdir ${d%/*}
done 2>/dev/null"""
    for _ in range(DEATHS):
        w = subprocess.Popen(["bash", "-c", script, d, str(tmp_path / "s0.csv"),
                              str(tmp_path / "s1.csv")], start_new_session=True)
        time.sleep(0.1 + rng.random() * 0.7 * SLOW)
        p.kill("rollfs", [w])
        p.start()
        assert leftovers(p) == []
        for ns in os.listdir(p.path("tables")):
            assert os.path.isdir(p.path("tables", ns))
        for name in (d, d + ".b"):
            if os.path.isdir(name):
                assert contents(name) in (None, *want)
                subprocess.run(["rm", "-r", name], check=True)
