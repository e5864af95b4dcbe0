# SPDX-License-Identifier: Apache-2.0
"""Table directories as editors, shells and copying programs use them."""
import errno
import mmap
import os
import signal
import shutil
import subprocess
import sys

import pytest
from conftest import SLOW, eventually

OLD = "id,a\n1,x\n2,y\n"
NEW = "id,b\n7,q\n"


@pytest.fixture(scope="module")
def p(sandboxes):
    return sandboxes("9999")["9999"]


@pytest.fixture
def d(p, request):
    """The directory of a table of its own, holding OLD."""
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    p.upload("fs", name, OLD)
    return p.path("tables/fs", name)


def data(d):
    with open(d + "/data.csv", encoding="utf-8") as f:
        return f.read()


def sh(d, script, shell="bash"):
    return subprocess.run([shell, "-c", script], cwd=d, capture_output=True, text=True,
                          timeout=30 * SLOW, check=False)


def sent(d):
    """Reads by sendfile, which trusts the size."""
    fd, out = os.open(d + "/data.csv", os.O_RDONLY), os.memfd_create("x")
    try:
        while os.sendfile(out, fd, None, 1 << 20):
            pass
        os.lseek(out, 0, os.SEEK_SET)
        return os.read(out, 1 << 20).decode()
    finally:
        os.close(fd)
        os.close(out)


def test_sendfile_and_mmap_give_every_byte(d):
    assert sent(d) == OLD
    with open(d + "/data.csv", "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        assert m[:] == OLD.encode()


def test_replacing_a_mapped_table_does_not_kill_its_reader(d):
    child = subprocess.Popen([sys.executable, "-c", """
import mmap, sys
f = open(sys.argv[1], "rb")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
print("mapped", flush=True)
sys.stdin.readline()
sys.stdout.write(m[:].decode())
""", d + "/data.csv"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "mapped\n"
    r = sh(d, "printf '%s' >data.csv '" + NEW + "'")
    assert r.returncode == 0, r.stderr
    out, _ = child.communicate("\n", timeout=60 * SLOW)
    assert child.returncode == 0 and out == OLD
    assert data(d) == NEW


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_builtin_and_its_early_close(d, shell):
    r = sh(d, "{ echo id,b; echo 7,q; } >data.csv", shell)
    assert r.returncode == 0, r.stderr
    assert data(d) == NEW


def test_closes_of_children_do_not_publish(d):
    r = sh(d, "exec 3>data.csv; echo id,b >&3; (true); /bin/true; cat <<<7,q >&3; exec 3>&-")
    assert r.returncode == 0, r.stderr
    assert data(d) == NEW


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_writer_publishes_nothing(d, sig):
    w = subprocess.Popen([sys.executable, "-c", """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)
os.write(fd, b"id,b\\n7,q\\n")
print("written", flush=True)
time.sleep(60)
""", d + "/data.csv"], stdout=subprocess.PIPE, text=True)
    assert w.stdout.readline() == "written\n"
    assert data(d) == OLD
    w.send_signal(sig)
    w.wait(60 * SLOW)
    w.stdout.close()
    assert data(d) == OLD


def test_readers_see_the_old_rows_until_the_close(d):
    fd = os.open(d + "/data.csv", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, NEW.encode())
    assert data(d) == OLD and os.stat(d + "/data.csv").st_size == len(OLD)
    os.close(fd)
    assert data(d) == NEW and os.stat(d + "/data.csv").st_size == len(NEW)


def test_fsync_publishes_nothing(d):
    with open(d + "/data.csv", "w", encoding="utf-8") as f:
        for line in NEW.splitlines(keepends=True):
            f.write(line)
            f.flush()
            os.fsync(f.fileno())
            assert data(d) == OLD
    assert data(d) == NEW


def test_appending_is_refused_and_changes_nothing(d):
    r = sh(d, "/bin/echo 9,z >>data.csv")
    assert r.returncode != 0
    assert data(d) == OLD


def test_writing_over_a_part_is_refused_and_changes_nothing(d, p):
    with pytest.raises(OSError) as e:
        with open(d + "/data.csv", "r+", encoding="utf-8") as f:
            f.write("id")
    assert e.value.errno == errno.EINVAL and data(d) == OLD
    assert "the first 2 of its %d bytes were written" % len(OLD) in p.read("errors")


def test_writing_over_all_of_it_replaces_it(d):
    with open(d + "/data.csv", "r+", encoding="utf-8") as f:
        f.write(NEW)
        f.truncate()  # rsync --inplace
    assert data(d) == NEW


def test_truncate_alone_is_refused_and_changes_nothing(d):
    assert "failed to close" in sh(d, "truncate -s 0 data.csv").stderr
    fd = os.open(d + "/data.csv", os.O_WRONLY)
    os.ftruncate(fd, 0)
    with pytest.raises(OSError) as e:
        os.close(fd)
    assert e.value.errno == errno.EINVAL and data(d) == OLD


def test_touch_changes_nothing(d):
    assert sh(d, "touch data.csv").returncode == 0
    assert data(d) == OLD


def test_an_editor_that_writes_in_place(d):
    """vim: open without O_TRUNC, ftruncate, write, fsync, chmod, close."""
    shutil.copyfile(d + "/data.csv", d + "/data.csv~")
    fd = os.open(d + "/data.csv", os.O_WRONLY | os.O_CREAT, 0o600)
    os.ftruncate(fd, 0)
    os.write(fd, NEW.encode())
    os.fsync(fd)
    os.fchmod(fd, 0o600)
    os.close(fd)
    assert data(d) == NEW
    with open(d + "/data.csv~", encoding="utf-8") as f:
        assert f.read() == OLD
    os.unlink(d + "/data.csv~")


@pytest.mark.parametrize("name", [".data.csv.Xa81bQ", "data.csv.tmp", "data.csv.part", ".x.swp"])
def test_a_file_renamed_over_the_data(d, name):
    fd = os.open(os.path.join(d, name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, NEW.encode())
    os.fchmod(fd, 0o644)
    os.close(fd)
    assert data(d) == OLD
    assert name in os.listdir(d)
    os.rename(os.path.join(d, name), d + "/data.csv")
    assert data(d) == NEW and name not in os.listdir(d)


def test_a_bad_file_renamed_over_the_data_is_refused(d, p):
    with open(d + "/.bad", "w", encoding="utf-8") as f:
        f.write("id,b\n1\n")
    with pytest.raises(OSError) as e:
        os.rename(d + "/.bad", d + "/data.csv")
    assert e.value.errno == errno.EINVAL
    assert data(d) == OLD and "line 2" in p.read("errors")


def test_rsync_into_a_table_twice(d, tmp_path):
    (tmp_path / "data.csv").write_text(NEW)
    for _ in range(2):
        r = sh(d, "rsync -a %s/data.csv ." % tmp_path)
        assert r.returncode == 0, r.stderr
    assert data(d) == NEW


@pytest.mark.parametrize("how", ["cp -r", "cp -a"])
def test_a_whole_table_is_copied(d, how):
    to = d + ".copy"
    r = sh(d, "%s %s %s" % (how, d, to))
    assert r.returncode == 0 and not r.stderr, r.stderr
    assert data(to) == OLD
    for name in ("schema.json", "count"):
        with open(os.path.join(to, name), encoding="utf-8") as a, \
                open(os.path.join(d, name), encoding="utf-8") as b:
            assert a.read() == b.read()
    shutil.rmtree(to)
    assert not os.path.exists(to) and data(d) == OLD


def test_copy_file_range_copies_the_rows(d):
    os.mkdir(d + ".cfr")
    a = os.open(d + "/data.csv", os.O_RDONLY)
    b = os.open(d + ".cfr/data.csv", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    left = os.fstat(a).st_size
    while left:
        n = os.copy_file_range(a, b, left)
        assert n > 0
        left -= n
    os.close(b)
    os.close(a)
    assert data(d + ".cfr") == OLD


def test_half_a_copy_is_no_table(d):
    os.mkdir(d + ".half")
    a = os.open(d + "/data.csv", os.O_RDONLY)
    b = os.open(d + ".half/data.csv", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.copy_file_range(a, b, 6)
    except OSError:
        os.write(b, OLD[:6].encode())
    os.close(a)
    with pytest.raises(OSError) as e:
        os.close(b)
    assert e.value.errno == errno.EINVAL
    with pytest.raises(OSError):
        data(d + ".half")


def test_mv_over_another_table_and_to_another_namespace(d, p):
    p.upload("fs", "target", NEW)
    # -T: the name itself, not into the directory.
    assert sh(d, "mv -T %s %s" % (d, p.path("tables/fs/target"))).returncode == 0
    assert p.read("tables/fs/target/data.csv") == OLD and not os.path.exists(d)
    os.makedirs(p.path("tables/elsewhere"), exist_ok=True)
    os.rename(p.path("tables/fs/target"), p.path("tables/elsewhere/t"))
    assert p.read("tables/elsewhere/t/data.csv") == OLD
    assert not os.path.exists(p.path("tables/fs/target"))


def test_rm_of_the_data_empties_and_rmdir_drops(d):
    os.unlink(d + "/data.csv")
    assert os.path.isdir(d)
    with pytest.raises(OSError):
        data(d)
    with open(d + "/data.csv", "w", encoding="utf-8") as f:
        f.write(NEW)
    assert data(d) == NEW
    os.unlink(d + "/count")
    assert data(d) == NEW
    shutil.rmtree(d)
    assert not os.path.exists(d)


def test_a_namespace_with_tables_stays(d):
    with pytest.raises(OSError) as e:
        os.rmdir(os.path.dirname(d))
    assert e.value.errno == errno.ENOTEMPTY


def test_a_removed_table_is_read_to_its_end(d):
    with open(d + "/data.csv", encoding="utf-8") as f:
        shutil.rmtree(d)
        assert f.read() == OLD


def test_exclusive_creation_meets_the_data(d):
    with pytest.raises(FileExistsError):
        os.open(d + "/data.csv", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_other_names_are_not_made(d, p):
    for where in (d, p.path("tables/fs"), p.path("tables"), p.path("jobs"), p.mount):
        with pytest.raises(OSError) as e:
            os.open(where + "/other.txt", os.O_WRONLY | os.O_CREAT)
        assert e.value.errno == errno.EPERM, where
    for call in (lambda: os.symlink("x", d + "/link"), lambda: os.link(d + "/data.csv", d + "/hard"),
                 lambda: os.mkfifo(d + "/fifo")):
        with pytest.raises(OSError) as e:
            call()
        assert e.value.errno == errno.EPERM


def test_names_with_odd_characters(p):
    for name in ("with space", "ünï", "a%2Fb", "x" * 200):
        p.upload("odd ns", name, OLD)
        assert p.read("tables/odd ns", name, "data.csv") == OLD
        assert name in os.listdir(p.path("tables/odd ns"))


def test_many_readers_while_it_is_replaced(d):
    script = "for i in $(seq 60); do cat data.csv; done | sort | uniq -c | awk '{print $2}'"
    readers = [subprocess.Popen(["bash", "-c", script], cwd=d, stdout=subprocess.PIPE, text=True)
               for _ in range(4)]
    for i in range(20):
        r = sh(d, "printf '%s' '" + (NEW if i % 2 == 0 else OLD) + "' >data.csv")
        assert r.returncode == 0, r.stderr
    allowed = set((OLD + NEW).splitlines())
    for r in readers:
        out, _ = r.communicate(timeout=60 * SLOW)
        assert r.returncode == 0 and set(out.splitlines()) <= allowed, out
    eventually(lambda: data(d) == OLD)


@pytest.mark.parametrize("block", [1, 7, 512, 65536])
def test_pieces_of_any_size_at_any_place(p, block, rng):
    text = "id,v\n" + "".join("%06d,%s\n" % (i, "v" * rng.randrange(40)) for i in range(3000))
    p.upload("fs", "pieces", text)
    want = text.encode()
    fd = os.open(p.path("tables/fs/pieces/data.csv"), os.O_RDONLY)
    try:
        for _ in range(100):
            at = rng.randrange(len(want) + 10)
            assert os.pread(fd, block, at) == want[at:at + block]
    finally:
        os.close(fd)
