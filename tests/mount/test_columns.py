# SPDX-License-Identifier: Apache-2.0
"""data.npy and columns/*.npy: tables as numpy maps them, against what pandas
reads from data.csv."""
import errno
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import SLOW, eventually

TEXT = """id,n,x,missing,big,t,wide,sci
10,1,0.5,,123456789012345678,one,%s,1e3
2,-7,.25,NA,5,"two, too",w,-2.5E-7
33,007,3.,1,-6,drei \u00fc,w,inf
""" % ("w" * 300)


@pytest.fixture(scope="module")
def p(sandboxes):
    return sandboxes("9999")["9999"]


def table(p, name, text):
    p.upload("npy", name, text)
    return p.path("tables/npy", name)


def frame(d, **kw):
    """What pandas makes of the text; round_trip: the nearest double."""
    return pd.read_csv(d + "/data.csv", float_precision="round_trip", **kw)


def numbers(rows, columns, rng):
    """Decimal texts of all sorts, integers in every third column."""
    kinds = (lambda: "%d" % rng.randrange(-10 ** 9, 10 ** 9),
             lambda: "%.6f" % rng.uniform(-1e3, 1e3),
             lambda: repr(rng.gauss(0, 1) * 10 ** rng.randrange(-30, 30)))
    head = "id," + ",".join("c%d" % c for c in range(columns)) + "\n"
    ids = rng.sample(range(10 ** 7), rows)
    return head + "".join("%d,%s\n" % (i, ",".join(kinds[c % 3]() for c in range(columns)))
                          for i in ids)


def test_each_column_is_the_one_pandas_reads(p):
    d = table(p, "kinds", TEXT)
    want = frame(d)
    assert sorted(os.listdir(d + "/columns")) == sorted(
        c + ".npy" for c in ("id", "n", "x", "missing", "big", "t", "sci"))
    for c in ("n", "x", "missing", "big", "sci"):
        got = np.load("%s/columns/%s.npy" % (d, c))
        assert got.dtype == want[c].dtype, c
        np.testing.assert_array_equal(got, want[c], c)
    for c in ("t", "id"):
        got = np.load("%s/columns/%s.npy" % (d, c))
        assert got.dtype.kind == "S"
        assert [x.decode() for x in got] == [str(x) for x in want[c]]
    assert "data.npy" not in os.listdir(d)
    with pytest.raises(FileNotFoundError):
        np.load(d + "/data.npy")
    with pytest.raises(FileNotFoundError):
        np.load(d + "/columns/wide.npy")


def test_a_table_of_numbers_is_a_matrix(p, rng):
    d = table(p, "matrix", numbers(3000, 11, rng))
    want = frame(d, index_col=0)
    whole, mapped = np.load(d + "/data.npy"), np.load(d + "/data.npy", mmap_mode="r")
    assert whole.dtype == np.float64 and whole.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(whole, want.to_numpy(dtype=float))
    np.testing.assert_array_equal(mapped, whole)
    np.testing.assert_array_equal(mapped[1234], whole[1234])
    as_frame = pd.DataFrame(mapped, columns=want.columns)
    assert as_frame["c4"].sum() == want["c4"].reset_index(drop=True).sum()
    for c in want.columns:
        col = np.load("%s/columns/%s.npy" % (d, c), mmap_mode="r")
        assert col.dtype == want[c].dtype
        np.testing.assert_array_equal(col, want[c])


def test_sizes_are_exact_and_every_way_of_reading_agrees(p, rng, tmp_path):
    d = table(p, "sizes", numbers(2000, 4, rng))
    for name in ("data.npy", "columns/c0.npy", "columns/id.npy"):
        path = os.path.join(d, name)
        with open(path, "rb") as f:
            text = f.read()
        assert len(text) == os.stat(path).st_size
        out = tmp_path / "x.npy"
        for how in ("cat '%s' >'%s'", "cp '%s' '%s'", "dd if='%s' of='%s' bs=777 2>/dev/null",
                    "rsync -a '%s' '%s'"):
            subprocess.run(how % (path, out), shell=True, check=True, timeout=30 * SLOW)
            assert out.read_bytes() == text, how
            out.unlink()
        fd = os.open(path, os.O_RDONLY)
        for _ in range(50):
            at, n = rng.randrange(len(text) + 5), rng.randrange(1, 5000)
            assert os.pread(fd, n, at) == text[at:at + n]
        os.close(fd)


def test_the_matrix_is_mapped_while_it_is_replaced_and_dropped(p, rng):
    d = table(p, "replaced", numbers(2000, 5, rng))
    want = np.ascontiguousarray(frame(d, index_col=0).to_numpy(dtype=float))
    child = subprocess.Popen([sys.executable, "-c", """
import numpy as np, sys
m = np.load(sys.argv[1] + "/data.npy", mmap_mode="r")
c = np.load(sys.argv[1] + "/columns/c1.npy", mmap_mode="r")
print("mapped", flush=True)
sys.stdin.readline()
sys.stdout.write("%r %r %r" % (float(np.sum(m)), float(np.sum(c)), m.shape))
""", d], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "mapped\n"
    with open(d + "/data.csv", "w", encoding="utf-8") as f:
        f.write("id,a\n1,2\n")
    assert np.load(d + "/data.npy").tolist() == [[2.0]]
    assert os.listdir(d + "/columns") == ["id.npy", "a.npy"]
    shutil.rmtree(d)
    out, _ = child.communicate("\n", timeout=30 * SLOW)
    assert child.returncode == 0
    assert out == "%r %r %r" % (float(np.sum(want)), float(np.sum(want[:, 1].copy())), want.shape)


def test_writing_an_array_does_not_touch_who_has_it_mapped(p):
    d = table(p, "written", "id,a,b\n1,2,3\n4,5,6\n")
    m = np.load(d + "/data.npy", mmap_mode="r")
    for name in ("data.npy", "columns/a.npy"):
        with open(os.path.join(d, name), "wb") as f:
            f.write(b"nonsense")
    assert m.tolist() == [[2, 3], [5, 6]]
    assert np.load(d + "/data.npy").tolist() == [[2, 3], [5, 6]]
    assert np.load(d + "/columns/a.npy").tolist() == [2, 5]
    with pytest.raises(OSError) as e:
        with open(d + "/columns/a.txt", "wb"):
            pass
    assert e.value.errno == errno.EPERM
    os.unlink(d + "/columns/a.npy")  # to who did that it is gone for a moment
    assert subprocess.run(["cmp", d + "/columns/a.npy", d + "/columns/a.npy"],
                          check=False).returncode == 0
    eventually(lambda: os.path.exists(d + "/columns/a.npy"))
    assert np.load(d + "/columns/a.npy").tolist() == [2, 5]


@pytest.mark.parametrize("how", ["cp -r {a} {b}", "cp -a {a} {b}", "rsync -a {a}/ {b}/",
                                 "mkdir {b}; tar -C {a} -cf - . | tar -C {b} -xf -"])
def test_a_table_goes_out_and_comes_in_again(p, how, tmp_path, rng):
    name = "out" + "".join(c for c in how if c.isalpha())
    d = table(p, name, numbers(300, 3, rng))
    disk, back = str(tmp_path / "t"), d + ".back"
    for a, b in ((d, disk), (disk, back), (d, d + ".inside")):
        r = subprocess.run(["bash", "-c", how.format(a=a, b=b)], capture_output=True, text=True,
                           timeout=60 * SLOW, check=False)
        assert r.returncode == 0 and not r.stderr, r.stderr
    np.testing.assert_array_equal(np.load(disk + "/data.npy"), np.load(d + "/data.npy"))
    for b in (back, d + ".inside"):
        for f in ("data.csv", "data.npy", "columns/c1.npy", "columns/id.npy", "parts/0.csv"):
            with open(os.path.join(b, f), "rb") as x, open(os.path.join(d, f), "rb") as y:
                assert x.read() == y.read(), f
        assert not [x for x in os.listdir(b) if x.startswith(".")]
        shutil.rmtree(b)
        assert not os.path.exists(b)


def test_tar_over_a_table(p, tmp_path):
    d = table(p, "over", "id,a\n1,2\n")
    os.makedirs(p.path("tables/npy/source"), exist_ok=True)
    table(p, "source", "id,a\n3,4\n")
    tar = str(tmp_path / "t.tar")
    for c in (["tar", "-C", p.path("tables/npy/source"), "-cf", tar, "."],
              ["tar", "-C", d, "-xf", tar]):
        r = subprocess.run(c, capture_output=True, text=True, timeout=30 * SLOW, check=False)
        assert r.returncode == 0 and not r.stderr, r.stderr
    assert np.load(d + "/data.npy").tolist() == [[4]]


def test_a_removed_derived_file_is_no_trouble_to_rmtree(p):
    d = table(p, "rmtree", "id,a\n1,2\n")
    os.unlink(d + "/data.npy")
    os.unlink(d + "/columns/a.npy")
    shutil.rmtree(d)
    assert not os.path.exists(d)


def test_many_readers_of_one_table_at_once(p, rng):
    d = table(p, "many", numbers(4000, 9, rng))
    script = "import numpy as np, sys; print(repr(float(np.load(sys.argv[1]).sum())))"
    files = ["data.npy"] + ["columns/c%d.npy" % c for c in range(0, 9, 3)]
    children = [subprocess.Popen([sys.executable, "-c", script, os.path.join(d, f)],
                                 stdout=subprocess.PIPE, text=True) for f in files]
    for f, c in zip(files, children):
        out, _ = c.communicate(timeout=60 * SLOW)
        assert c.returncode == 0 and float(out) == np.load(os.path.join(d, f)).sum()


def test_a_reader_that_is_killed_holds_nothing_up(p, rng):
    d = table(p, "killed", numbers(20000, 20, rng))
    for sig in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        for f in ("data.npy", "columns/c3.npy"):
            c = subprocess.Popen(["cat", os.path.join(d, f)], stdout=subprocess.DEVNULL)
            c.send_signal(sig)
            c.wait(20 * SLOW)
    want = frame(d, index_col=0)
    np.testing.assert_array_equal(np.load(d + "/columns/c3.npy"), want["c3"])


def test_what_a_component_made_is_typed(p):
    table(p, "typed", "id,y,a,b\n" + "".join("%d,%d,%r,\n" % (i, i % 2, i / 7) for i in range(50)))
    dsl = {"components": {
        "reader_0": {"module": "Reader", "output": {"data": ["data"]}},
        "data_transform_0": {"module": "DataTransform", "input": {"data": {"data": [
            "reader_0.data"]}}, "output": {"data": ["data"], "model": ["model"]}}}}
    conf = {"dsl_version": 2, "initiator": {"role": "guest", "party_id": 9999},
            "role": {"guest": [9999]}, "job_parameters": {"common": {"job_type": "train"}},
            "component_parameters": {"common": {
                "reader_0": {"table": {"namespace": "npy", "name": "typed"}},
                "data_transform_0": {"with_label": True, "label_name": "y",
                                     "missing_fill": True, "missing_fill_method": "designated",
                                     "default_value": 0, "output_format": "dense"}}}}
    job = p.run(dsl, conf)
    d = p.path("jobs", job, "guest/data_transform_0/out/data")
    got, want = np.load(d + "/data.npy", mmap_mode="r"), frame(d, index_col=0)
    np.testing.assert_array_equal(got, want.to_numpy(dtype=float))
    assert np.load(p.path("jobs", job, "guest/reader_0/out/data/columns/a.npy")).dtype == "f8"


def test_an_empty_table_has_none(p):
    os.makedirs(p.path("tables/npy/empty"))
    assert os.listdir(p.path("tables/npy/empty")) == []
    d = table(p, "norows", "id,a\n")
    assert np.load(d + "/data.npy").shape == (0, 1)
    assert np.load(d + "/columns/a.npy").shape == (0,)


def test_the_daemon_goes_while_a_pass_runs(sandboxes, rng):
    s = sandboxes("10000")
    d = table(s["10000"], "going", numbers(30000, 20, rng))
    readers = [subprocess.Popen(["cat", d + "/columns/c%d.npy" % i], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL) for i in range(3)]
    os.kill(s["10000"].pid("rollfs"), signal.SIGTERM)
    eventually(lambda: not s["10000"].pids("rollfs"))
    for r in readers:
        r.wait(30 * SLOW)
    s["10000"].start()
    eventually(lambda: os.path.exists(d + "/data.npy"))
    assert np.load(d + "/columns/c0.npy").shape == (30000,)
