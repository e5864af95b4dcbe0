# SPDX-License-Identifier: Apache-2.0
"""The mount itself: what ordinary tools see and do, blocking, signals,
start and end of the daemon."""
import copy
import errno
import json
import mmap
import os
import select
import shutil
import signal
import subprocess
import threading
import time

import pytest
from conftest import BUILD, DATA, SLOW, TOP, eventually, job_files, processes

CSV = "id,x\n1,2\n2,3\n"


def sh(p, script, **env):
    return subprocess.run(["bash", "-c", script], cwd=p.mount, capture_output=True, text=True,
                          env=dict(os.environ, **env), timeout=60 * SLOW, check=False)


@pytest.fixture(scope="module")
def two(three):
    return three


@pytest.fixture(scope="module")
def p(two):
    return two[9999]


def secure_add():
    return job_files("add")


@pytest.fixture(scope="module")
def done(two):
    """A job that has ended."""
    dsl, conf = secure_add()
    return two[9999].run(dsl, conf)


@pytest.fixture
def running(two):
    """A job that does not end by itself; cancelled afterwards."""
    p = two[9999]
    dsl, conf = job_files("breast")
    conf = copy.deepcopy(conf)
    conf["component_parameters"]["common"]["hetero_lr_0"].update(
        {"max_iter": 10000, "tol": 1e-30, "encrypt_param": {"key_length": 1024}})
    number = p.submit(dsl, conf)
    yield number
    try:
        with open(p.path("jobs", number, "ctl"), "w") as f:
            f.write("cancel\n")
    except OSError:
        pass
    p.wait(number)


# ---- every file of the manual page is there ------------------------------

def test_the_manual_names_every_file(p, done):
    with open(os.path.join(TOP, "docs/mount.md"), encoding="utf-8") as f:
        manual = f.read()
    for d in (".", "jobs", os.path.join("jobs", done), "parties/10000"):
        for name in os.listdir(p.path(d)):
            if name not in (done, "guest", "host") and not name.isdigit():
                assert "`" + name in manual or "/" + name in manual, name


def test_files_end_in_a_newline_and_have_their_size(p, done):
    for top, _, names in os.walk(p.path("jobs", done)):
        for n in names:
            f = os.path.join(top, n)
            with open(f, "rb") as i:
                text = i.read()
            assert os.stat(f).st_size == len(text), f
            assert not text or text.endswith(b"\n"), f


# ---- ordinary tools -------------------------------------------------------

@pytest.mark.parametrize("script", [
    "find . -type f -size +0 >/dev/null",
    "grep -r nothing-has-this . ; true",
    "du -s . >/dev/null",
    "tar cf - . | tar tf - >/dev/null",
    "rsync -a . $OUT/",
    "cp -r jobs parties components $OUT/",
    "ls -lR . >/dev/null",
    "find . -exec getfattr -d {} + >/dev/null",
])
def test_tools_over_the_whole_mount_finish(p, done, tmp_path, script):
    p.upload("tools", "t", CSV)
    r = sh(p, "set -o pipefail; " + script, OUT=str(tmp_path))
    assert r.returncode == 0, r.stderr


def test_wait_is_found_but_not_listed(p, done):
    assert "wait" not in os.listdir(p.path("jobs", done))
    assert p.read("jobs", done, "wait") == "success\n"


def test_inode_numbers_survive_a_restart(sandboxes):
    s = sandboxes("1")
    s[1].upload("ns", "t", CSV)
    files = ["tables/ns", "tables/ns/t", "tables/ns/t/data.csv", "tables/ns/t/count", "jobs/new"]
    before = [os.stat(s[1].path(f)).st_ino for f in files]
    s[1].kill("rollfs")
    s[1].start()
    assert [os.stat(s[1].path(f)).st_ino for f in files] == before


@pytest.mark.skipif(os.path.basename(BUILD) in ("asan", "tsan"),
                    reason="a sanitizer keeps what was freed")
def test_memory_does_not_grow_with_lookups(p):
    p.upload("many", "t", CSV)

    def rss():
        with open("/proc/%d/status" % p.pid("rollfs"), encoding="ascii") as f:
            return int([x for x in f if x.startswith("VmRSS")][0].split()[1])

    sh(p, "find . >/dev/null")
    before = rss()
    for _ in range(20):
        sh(p, "find . -newer version >/dev/null")
    assert rss() - before < 4096 * SLOW


# ---- refusals -------------------------------------------------------------

@pytest.mark.parametrize("path", ["x", "jobs/x", "parties/10000/x", "components/x",
                                  "tables/x", "federation/x"])
def test_no_files_where_none_belong(p, path):
    with pytest.raises(OSError) as e:
        open(p.path(path), "w")
    assert e.value.errno == errno.EPERM


def test_every_refusal_stands_in_errors(p):
    assert sh(p, "echo 'modul *' >parties/10000/allow").returncode == 1
    assert "parties/10000/allow" in p.read("errors").splitlines()[0]
    assert p.read("parties/10000/allow").startswith("module")
    assert sh(p, "echo ftp://x >parties/10000/address").returncode == 1


def test_allow_is_kept(two):
    p = two["10000"]
    text = p.read("parties/9999/allow")
    with open(p.path("parties/9999/allow"), "a") as f:
        f.write("# a remark\n")
    assert p.read("parties/9999/allow") == text + "# a remark\n"
    # Written over in part it would be no text of anybody's.
    with pytest.raises(OSError) as e:
        with open(p.path("parties/9999/allow"), "r+") as f:
            f.write("# x\n")
    assert e.value.errno == errno.EINVAL
    assert p.read("parties/9999/allow") == text + "# a remark\n"


def test_mkdir_adds_a_party(p):
    os.mkdir(p.path("parties/424242"))
    with open(p.path("parties/424242/address"), "w") as f:
        f.write("https://127.0.0.1:1\n")
    assert p.read("parties/424242/address") == "https://127.0.0.1:1\n"
    assert "424242" in os.listdir(p.path("federation"))
    shutil.rmtree(p.path("parties/424242"))
    assert "424242" not in os.listdir(p.path("parties"))
    with pytest.raises(OSError):
        os.mkdir(p.path("parties/x"))


# ---- waiting --------------------------------------------------------------

def test_wait_obeys_signals(p, running):
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        c = subprocess.Popen(["cat", p.path("jobs", running, "wait")])
        time.sleep(0.1)
        assert c.poll() is None
        c.send_signal(sig)
        assert c.wait(timeout=60) == -sig


def test_many_waiters_block_nobody(p, running):
    waiters = [subprocess.Popen(["cat", p.path("jobs", running, "wait")],
                                stdout=subprocess.PIPE) for _ in range(60)]
    time.sleep(0.3)
    assert os.listdir(p.mount) and p.read("version")
    assert all(w.poll() is None for w in waiters)
    with open(p.path("jobs", running, "ctl"), "w") as f:
        f.write("cancel\n")
    for w in waiters:
        assert w.communicate(timeout=20 * SLOW)[0] == b"canceled\n"


def test_wait_does_not_block_a_nonblocking_reader(p, running):
    fd = os.open(p.path("jobs", running, "wait"), os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.read(fd, 100)
    os.close(fd)


def test_poll_tells_the_end(p, running):
    fd = os.open(p.path("jobs", running, "wait"), os.O_RDONLY)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(100) == []
    with open(p.path("jobs", running, "ctl"), "w") as f:
        f.write("cancel\n")
    assert poll.poll(10000 * SLOW)
    assert os.read(fd, 100) == b"canceled\n"
    assert os.read(fd, 100) == b""
    os.close(fd)


# ---- submitting -----------------------------------------------------------

def test_a_flush_of_a_child_submits_nothing(p):
    before = os.listdir(p.path("jobs"))
    dsl, conf = secure_add()
    text = json.dumps({"dsl": dsl, "conf": conf})
    fd = os.open(p.path("jobs/new"), os.O_RDWR)
    os.write(fd, text.encode())
    pid = os.fork()
    if not pid:
        os.close(fd)
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.listdir(p.path("jobs")) == before
    number = os.read(fd, 100).decode().strip()
    os.close(fd)
    assert p.wait(number) == "success"
    assert os.readlink(p.path("jobs/latest")) == number


def test_a_killed_writer_submits_nothing(p):
    before = os.listdir(p.path("jobs"))
    dsl, conf = secure_add()
    text = json.dumps({"dsl": dsl, "conf": conf})
    pid = os.fork()
    if not pid:
        fd = os.open(p.path("jobs/new"), os.O_WRONLY)
        os.write(fd, text.encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.3)
    assert os.listdir(p.path("jobs")) == before


def test_a_removed_job_is_gone(p):
    dsl, conf = secure_add()
    number = p.run(dsl, conf)
    assert sh(p, "rm -r jobs/" + number).returncode == 0
    assert number not in os.listdir(p.path("jobs"))


def test_the_tables_of_a_running_job_are_busy(p, running):
    d = p.path("tables/output_data_" + running)
    name = eventually(lambda: os.path.isdir(d) and os.listdir(d), 60)[0]
    p.upload("busy", "t", CSV)
    for call in (lambda: os.rmdir(d + "/" + name), lambda: os.rename(d + "/" + name, d + "/x"),
                 lambda: os.unlink(d + "/" + name + "/data.csv"),
                 lambda: os.rename(d, p.path("tables/elsewhere")), lambda: os.rmdir(d),
                 lambda: os.rename(p.path("tables/busy/t"), d + "/" + name)):
        with pytest.raises(OSError) as e:
            call()
        assert e.value.errno == errno.EBUSY
    assert "wait for its end" in p.read("errors")


def test_a_running_job_cannot_be_removed(p, running):
    with pytest.raises(OSError) as e:
        os.rmdir(p.path("jobs", running))
    assert e.value.errno == errno.EBUSY


# ---- tables ---------------------------------------------------------------

def test_a_killed_writer_publishes_nothing(p):
    p.upload("kill", "t", CSV)
    pid = os.fork()
    if not pid:
        fd = os.open(p.path("tables/kill/t/data.csv"), os.O_WRONLY | os.O_TRUNC)
        os.write(fd, b"id,x\n9,9\n")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.2)
    assert p.read("tables/kill/t/data.csv") == CSV


def test_a_reader_keeps_what_it_opened(p):
    p.upload("keep", "t", CSV)
    f = p.path("tables/keep/t/data.csv")
    with open(f, "rb") as i:
        m = mmap.mmap(i.fileno(), 0, access=mmap.ACCESS_READ)
        p.upload("keep", "t", "id,x\n5,5\n")
        assert m[:] == CSV.encode() and i.read() == CSV.encode()
        m.close()
    assert p.read("tables/keep/t/data.csv") == "id,x\n5,5\n"


def test_a_temporary_name_becomes_the_data_by_rename(p):
    d = p.path("tables/temp/t")
    os.makedirs(d)
    with open(d + "/.data.csv.abc", "w") as f:
        f.write(CSV)
    assert os.listdir(d) == [".data.csv.abc"]
    os.rename(d + "/.data.csv.abc", d + "/data.csv")
    assert p.read("tables/temp/t/data.csv") == CSV
    assert ".data.csv.abc" not in os.listdir(d)
    with open(d + "/bad.tmp", "w") as f:
        f.write("id,x\n1\n")
    with pytest.raises(OSError) as e:
        os.rename(d + "/bad.tmp", d + "/data.csv")
    assert e.value.errno == errno.EINVAL
    assert p.read("tables/temp/t/data.csv") == CSV


def test_rsync_and_sed_in_place(p, tmp_path):
    p.upload("rs", "t", CSV)
    (tmp_path / "n.csv").write_text("id,x\n7,8\n8,9\n9,10\n")
    r = sh(p, "rsync -a $N tables/rs/t/data.csv", N=str(tmp_path / "n.csv"))
    assert r.returncode == 0, r.stderr
    assert p.read("tables/rs/t/count") == "3\n"


def test_names_with_strange_letters(p):
    os.makedirs(p.path("tables/sp ace/ü"))
    p.upload("sp ace", "ü", CSV)
    assert p.read("tables/sp ace/ü/data.csv") == CSV


def test_a_copy_is_cheap_and_its_own(p):
    p.upload_file("cow", "a", DATA + "/breast_guest.csv")
    assert sh(p, "cp -r tables/cow/a tables/cow/b").returncode == 0
    a, b = (p.path("tables/cow", x, "data.csv") for x in "ab")
    # The same rows, and yet another file: modes and times are its own.
    assert os.getxattr(a, "user.rollfs.generation") == os.getxattr(b, "user.rollfs.generation")
    assert os.stat(a).st_ino != os.stat(b).st_ino
    p.upload("cow", "b", CSV)
    assert p.read("tables/cow/a/count") == "569\n" and p.read("tables/cow/b/count") == "2\n"


def test_rename_between_namespaces_and_over(p):
    p.upload("from", "t", CSV)
    p.upload("to", "u", "id,y\n1,1\n")
    os.rename(p.path("tables/from/t"), p.path("tables/to/u"))
    assert p.read("tables/to/u/data.csv") == CSV
    assert os.listdir(p.path("tables/from")) == []
    os.rmdir(p.path("tables/from"))


def test_rm_of_the_data_leaves_an_empty_table(p):
    p.upload("rm", "t", CSV)
    os.unlink(p.path("tables/rm/t/data.csv"))
    assert os.listdir(p.path("tables/rm/t")) == []
    p.upload("rm", "t", CSV)
    assert sh(p, "rm -r tables/rm").returncode == 0
    assert not os.path.exists(p.path("tables/rm"))


def test_writing_in_the_middle_is_refused(p):
    p.upload("mid", "t", CSV)
    fd = os.open(p.path("tables/mid/t/data.csv"), os.O_WRONLY)
    with pytest.raises(OSError) as e:
        os.pwrite(fd, b"9", 3)
    assert e.value.errno == errno.EINVAL
    os.close(fd)
    assert p.read("tables/mid/t/data.csv") == CSV


def test_parallel_readers_and_writers(p):
    p.upload("par", "t", CSV)
    bad = []

    def write(k):
        try:
            for i in range(20):
                p.upload("par", "t", "id,x\n%d,%d\n" % (k, i))
        except OSError as e:
            bad.append(e)

    def look():
        for _ in range(100):
            try:
                text = p.read("tables/par/t/data.csv")
            except OSError as e:
                text = str(e)
            if not text.startswith("id,x\n") or not text.endswith("\n"):
                bad.append(text)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(3)] + \
        [threading.Thread(target=look) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad


# ---- federation files -----------------------------------------------------

def test_appending_sends_the_whole_file(two):
    f = two[9999].path("federation/10000/app")
    for text in ("one\n", "two\n"):
        with open(f, "a") as o:
            o.write(text)
    got = two["10000"].path("federation/9999/inbox/app")
    eventually(lambda: os.path.exists(got) and open(got).read() == "one\ntwo\n")


def test_a_killed_writer_sends_nothing(two):
    pid = os.fork()
    if not pid:
        fd = os.open(two[9999].path("federation/10000/dead"), os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.5)
    assert not os.path.exists(two["10000"].path("federation/9999/inbox/dead"))
    assert "dead" not in os.listdir(two[9999].path("federation/10000"))


def test_rsync_and_mv_into_federation(two, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("body\n")
    r = sh(two[9999], "rsync -a $D/ federation/10000/tree/ && "
                      "mv federation/10000/tree/f federation/10000/tree/g", D=str(tmp_path / "d"))
    assert r.returncode == 0, r.stderr
    got = two["10000"].path("federation/9999/inbox/tree/g")
    eventually(lambda: os.path.exists(got))
    assert open(got).read() == "body\n"


def test_the_inbox_can_be_read_and_cleared_only(two):
    with open(two[9999].path("federation/10000/in1"), "w") as f:
        f.write("x")
    got = two["10000"].path("federation/9999/inbox/in1")
    eventually(lambda: os.path.exists(got))
    with pytest.raises(OSError):
        open(got, "w")
    with pytest.raises(OSError):
        open(got + "2", "w")
    os.unlink(got)
    assert not os.path.exists(got)


# ---- the daemon -----------------------------------------------------------

def test_ps_and_mount_tell_whose_it_is(p):
    assert [a for pid, a in processes(p.sandbox.dir) if a[0] == "rollfs" and a[1] == p.conf
            and a[2] == p.mount]
    with open("/proc/self/mounts", encoding="utf-8") as f:
        line = [x for x in f if x.split()[1] == p.mount][0]
    assert line.startswith("rollfs ") and " fuse.rollfs " in line
    assert os.statvfs(p.mount).f_blocks == os.statvfs(p.state).f_blocks


def test_a_second_daemon_is_refused(p, tmp_path):
    r = subprocess.run([os.path.join(BUILD, "rollfs"), p.conf, str(tmp_path)],
                       capture_output=True, text=True, check=False, timeout=20 * SLOW)
    assert r.returncode == 1 and "mounted already" in r.stderr
    assert not os.path.ismount(tmp_path)


def test_it_daemonises_from_a_relative_path_and_umount_stops_all(sandboxes):
    s = sandboxes("3")
    p = s[3]
    subprocess.run(["umount", p.mount], check=True)
    eventually(lambda: not processes(s.dir))
    r = subprocess.run([os.path.join(BUILD, "rollfs"), "etc/3.conf", "3", "-o",
                        "rw,_netdev,nofail,x-systemd.automount"], cwd=s.dir,
                       capture_output=True, text=True, check=False, timeout=20 * SLOW)
    assert r.returncode == 0, r.stderr
    assert p.read("version").startswith("rollfs ")
    assert p.pids("rollfs")
    os.kill(p.pid("rollfs"), signal.SIGTERM)
    eventually(lambda: not processes(s.dir))
    assert not os.path.ismount(p.mount)
    p.start()


def test_it_is_mounted_at_directories_only(p, tmp_path):
    (tmp_path / "file").write_text("x")
    r = subprocess.run([os.path.join(BUILD, "rollfs"), p.conf, str(tmp_path / "file")],
                       capture_output=True, text=True, check=False, timeout=20 * SLOW)
    assert r.returncode != 0 and "not a directory" in r.stderr


def test_many_tables_are_open_at_once_where_few_files_may_be(sandboxes):
    """Of services the soft limit is 1024, here less; the hard one counts."""
    p = sandboxes("9999")["9999"]
    subprocess.run(["umount", p.mount], check=True)
    eventually(lambda: not p.pids("rollfs") and not p.pids("rollsite"))
    subprocess.run(["bash", "-c", "ulimit -Sn 40 && exec \"$@\"", "-",
                    os.path.join(p.sandbox.env["B"], "rollfs"), p.conf, p.mount], check=True,
                   timeout=60 * SLOW)
    files = []
    for k in range(60):
        p.upload("many", "t%d" % k, CSV)
        files.append(open(p.path("tables/many/t%d/data.csv" % k), encoding="utf-8"))
    for f in files:
        assert f.read() == CSV
        f.close()


def test_a_killed_daemon_is_replaced_over_its_dead_mount(sandboxes):
    s = sandboxes("4")
    s[4].upload("ns", "t", CSV)
    s[4].kill("rollfs")
    with pytest.raises(OSError) as e:
        os.listdir(s[4].mount)
    assert e.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    s[4].start()
    assert s[4].read("tables/ns/t/data.csv") == CSV
    assert len([m for m in s.mounts() if m == s[4].mount]) == 1


def test_umount_answers_waiters(sandboxes):
    s = sandboxes("5")
    r = subprocess.run(["umount", s[5].mount], check=False)
    assert r.returncode == 0
    eventually(lambda: not processes(s.dir))
    s[5].start()


def test_unknown_options_are_refused(p, tmp_path):
    r = subprocess.run([os.path.join(BUILD, "rollfs"), p.conf, str(tmp_path), "-o", "nonsense"],
                       capture_output=True, text=True, check=False, timeout=20 * SLOW)
    assert r.returncode == 1 and "nonsense" in r.stderr
