# SPDX-License-Identifier: Apache-2.0
"""What is computed, submitted and waited for: sizes, one writer never in the way
of another, parties, start and end of the daemon."""
import contextlib
import errno
import os
import select
import signal
import subprocess
import threading
import time

import pytest
from conftest import BUILD, SLOW, eventually, job_files, processes
from test_jobs import breast

UMOUNT = ["umount"] if os.getuid() == 0 else ["fusermount3", "-u"]


@pytest.fixture(scope="module")
def running(three):
    """A job that goes on for long."""
    job = three[9999].submit(*breast(max_iter=10000, tol=1e-30))
    yield job
    with open(three[9999].path("jobs", job, "ctl"), "w", encoding="utf-8") as f:
        f.write("cancel\n")
    three[9999].wait(job, 20)


def timed(*args, seconds=60):
    return subprocess.run(args, capture_output=True, text=True, timeout=seconds * SLOW,
                          check=False)


def test_listed_sizes_are_the_sizes_read(three):
    p = three[9999]
    job = p.run(*job_files("add"))
    moving = {"metrics", "transfers", "ping", "queue"}
    for top in (p.path("jobs", job), p.path("parties"), p.path("components")):
        for d, _, names in os.walk(top):
            for n in names:
                f = os.path.join(d, n)
                if os.path.islink(f) or n in moving:
                    continue
                with open(f, "rb") as i:
                    assert len(i.read()) == os.stat(f).st_size, f


def test_text_files_end_in_one_newline(three):
    p = three[9999]
    job = p.run(*job_files("add"))
    for f in ("version", "errors", "jobs/queue", "jobs/%s/status" % job,
              "jobs/%s/progress" % job, "parties/10000/ping", "parties/10000/address"):
        text = p.read(f)
        assert text == "" or (text.endswith("\n") and not text.endswith("\n\n")), f


def test_foreign_attributes_are_absent_and_not_unknown(three):
    for f in ("version", "jobs/new", "tables", "federation/10000"):
        with pytest.raises(OSError) as e:
            os.getxattr(three[9999].path(f), "user.other")
        assert e.value.errno == errno.ENODATA
        assert isinstance(os.listxattr(three[9999].path(f)), list)


@pytest.mark.parametrize("name", ["security.capability", "security.selinux", "trusted.x"])
def test_ls_hears_that_there_are_only_user_attributes(three, name):
    """Then it does not ask for those of each file."""
    with pytest.raises(OSError) as e:
        os.getxattr(three[9999].path("tables"), name)
    assert e.value.errno == errno.EOPNOTSUPP


def test_df_and_access(three):
    s = os.statvfs(three[9999].mount)
    assert s.f_blocks > 0 and s.f_namemax == 255
    assert os.access(three[9999].path("jobs/new"), os.W_OK)
    assert not os.stat(three[9999].path("jobs")).st_mode & 0o022


def test_status_is_not_written(three):
    job = three[9999].run(*job_files("add"))
    with pytest.raises(OSError) as e:
        os.open(three[9999].path("jobs", job, "status"), os.O_WRONLY)
    assert e.value.errno in (errno.EACCES, errno.EPERM)


def test_inodes_are_unique_and_stay(three):
    p = three[9999]
    seen = {}
    for d, dirs, names in os.walk(p.mount):
        for n in dirs + names:
            f = os.path.join(d, n)
            ino = os.lstat(f).st_ino
            # Copies of a table share the inode of their data.
            assert n == "data.csv" or seen.setdefault(ino, f) == f, (f, seen[ino])


# ---- jobs/new ------------------------------------------------------------

def jobs(p):
    return {x for x in os.listdir(p.path("jobs")) if x.isdigit()}


def text():
    import json
    return "".join(json.dumps(x) + "\n" for x in job_files("add")).encode()


def test_new_reads_as_empty_and_touch_is_nothing(three):
    p, before = three[9999], jobs(three[9999])
    assert p.read("jobs/new") == ""
    assert timed("touch", p.path("jobs/new")).returncode == 0
    assert timed("truncate", "-s", "0", p.path("jobs/new")).returncode == 0
    assert jobs(p) == before


def test_fsync_submits_and_close_not_again(three):
    p, before = three[9999], jobs(three[9999])
    fd = os.open(p.path("jobs/new"), os.O_RDWR)
    os.write(fd, text())
    assert jobs(p) == before
    os.fsync(fd)
    os.fsync(fd)
    job = os.read(fd, 100).decode().strip()
    assert os.read(fd, 100) == b""
    os.close(fd)
    assert jobs(p) - before == {job}
    p.wait(job)


def test_the_id_comes_in_pieces(three):
    p = three[9999]
    fd = os.open(p.path("jobs/new"), os.O_RDWR)
    os.write(fd, text())
    got = b""
    while True:
        c = os.read(fd, 1)
        if not c:
            break
        got += c
    os.close(fd)
    assert got.endswith(b"\n") and got[:-1].isdigit()
    p.wait(got[:-1].decode())


def test_children_do_not_submit_and_the_opener_does(three):
    p, before = three[9999], jobs(three[9999])
    fd = os.open(p.path("jobs/new"), os.O_WRONLY)
    t = text()
    os.write(fd, t[:50])
    if os.fork() == 0:
        os.close(fd)
        os._exit(0)
    os.wait()
    os.write(fd, t[50:])
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    assert jobs(p) == before
    os.close(fd)
    made = jobs(p) - before
    assert len(made) == 1
    p.wait(made.pop())


def test_a_killed_submitter_submits_nothing(three):
    p, before = three[9999], jobs(three[9999])
    pid = os.fork()
    if pid == 0:
        fd = os.open(p.path("jobs/new"), os.O_WRONLY)
        os.write(fd, text())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.3)
    assert jobs(p) == before


def test_bytes_one_at_a_time(three):
    p = three[9999]
    fd = os.open(p.path("jobs/new"), os.O_RDWR)
    for i in text():
        os.write(fd, bytes([i]))
    job = os.read(fd, 100).decode().strip()
    os.close(fd)
    assert p.wait(job) == "success"


def test_refusals_are_told_on_the_descriptor(three):
    fd = os.open(three[9999].path("jobs/new"), os.O_RDWR)
    with pytest.raises(OSError):
        os.write(fd, b'{"dsl": {"components": {}}, "conf": {}}')
    with pytest.raises(OSError) as e:
        os.read(fd, 4096)
    assert e.value.errno == errno.EINVAL
    assert b"#/" in os.read(fd, 1 << 16)
    try:
        os.close(fd)
    except OSError:
        pass


def test_a_signal_during_the_check_does_not_stick(sandboxes):
    """The partner is stopped, so the check takes its full time; the writer's
    alarm goes off meanwhile, and the writer (which tries again) ends."""
    s = sandboxes("9999", "10000")
    stopped = s[10000].pids("rollsite") + s[10000].pids("rollfs")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        r = subprocess.run(
            ["python3", "-c", """
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *a: None)
signal.setitimer(signal.ITIMER_REAL, 0.5)
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    os.write(fd, sys.stdin.buffer.read())
    print("accepted")
except OSError as e:
    print(e.errno)
os._exit(0)
""", s[9999].path("jobs/new")], input=text(), capture_output=True, timeout=30 * SLOW,
            check=False)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert int(r.stdout) in (errno.EHOSTUNREACH, errno.ETIMEDOUT), r.stdout


def test_two_submitters_do_not_wait_for_each_other(sandboxes):
    """A check that a stopped partner delays holds up its own writer only."""
    s = sandboxes("9999", "10000")
    stopped = s[10000].pids("rollsite") + s[10000].pids("rollfs")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    checked = threading.Event()

    def submit():
        with contextlib.suppress(OSError), open(s[9999].path("jobs/new"), "wb", buffering=0) as g:
            g.write(text())
        checked.set()
    slow = threading.Thread(target=submit)
    try:
        with open(s[9999].path("jobs/new"), "wb", buffering=0) as f:
            slow.start()
            time.sleep(0.5)
            with pytest.raises(OSError) as e:
                f.write(b"{nonsense}")
            assert e.value.errno == errno.EINVAL
            assert not checked.is_set()
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        slow.join()


# ---- waiting -------------------------------------------------------------

def test_three_hundred_waiters_block_nobody_and_die_at_once(three, running):
    path = three[9999].path("jobs", running, "wait")
    cats = [subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL) for _ in range(300)]
    try:
        time.sleep(1)
        assert all(c.poll() is None for c in cats)
        assert timed("ls", "-l", three[9999].path("jobs", running)).returncode == 0
    finally:
        for i, c in enumerate(cats):
            c.send_signal((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[i % 3])
    deadline = time.monotonic() + 60 * SLOW
    for c in cats:
        c.wait(max(0.1, deadline - time.monotonic()))


def test_waiters_hear_the_end(three):
    p = three[9999]
    job = p.submit(*breast(max_iter=10000, tol=1e-30))
    cats = [subprocess.Popen(["cat", p.path("jobs", job, "wait")], stdout=subprocess.PIPE,
                             text=True) for _ in range(40)]
    fd = os.open(p.path("jobs", job, "wait"), os.O_RDONLY)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(200) == []
    with open(p.path("jobs", job, "ctl"), "w", encoding="utf-8") as f:
        f.write("cancel\n")
    assert poll.poll(10000 * SLOW) == [(fd, select.POLLIN)]
    assert os.read(fd, 100) == b"canceled\n" and os.read(fd, 100) == b""
    os.close(fd)
    for c in cats:
        out, _ = c.communicate(timeout=60 * SLOW)
        assert out == "canceled\n"


def test_a_running_job_is_not_removed(three, running):
    r = timed("rm", "-r", three[9999].path("jobs", running))
    assert r.returncode != 0 and "busy" in r.stderr.lower()
    assert three[9999].status(running) == "running"


def test_a_stopped_rollsite_stops_no_listing(sandboxes):
    """What asks rollsite may wait for it; the rest of the mount may not, and
    ping gives what is known."""
    s = sandboxes("9999", "10000")
    p = s[9999]
    pids = p.pids("rollsite")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    cats = []
    try:
        cats = [subprocess.Popen(["cat", p.path("parties/10000", n)], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
                for n in ("ping", "version", "transfers", "certificate.pem") * 4]
        time.sleep(0.5)
        try:
            assert timed("ls", p.path("jobs")).returncode == 0
            assert timed("cat", p.path("jobs/queue")).returncode == 0
        except subprocess.TimeoutExpired:
            pytest.fail("the mount hangs while rollsite is stopped")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for c in cats:
            c.wait(30 * SLOW)


def test_who_waits_in_sync_holds_up_nobody(sandboxes):
    """The partner is stopped, so sync waits; the kernel locks what it syncs."""
    s = sandboxes("1", "2")
    f = s[1].path("federation/2/x")
    stopped = s[2].pids("rollsite")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    started = []

    def go(*args):
        started.append(subprocess.Popen(args, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL))
        return started[-1]

    try:
        put(f, "first")
        sync = go("sync", f)
        time.sleep(0.5)
        assert sync.poll() is None
        for args in (["ls", "-l", os.path.dirname(f)], ["cat", f], ["cp", "/etc/hostname", f],
                     ["rm", f], ["ls", "-l", os.path.dirname(f)]):
            assert go(*args).wait(60 * SLOW) == 0, args
        again = s[1].path("federation/2/again")
        put(again, "second")
        sync = go("sync", again)
        time.sleep(0.5)
        assert sync.poll() is None
        sync.send_signal(signal.SIGINT)
        assert sync.wait(60 * SLOW) == -signal.SIGINT
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        for c in started:
            c.wait(30 * SLOW)


# ---- parties -------------------------------------------------------------

def put(path, t):
    with open(path, "w", encoding="utf-8") as f:
        f.write(t)


def test_address_and_allow_are_checked_and_kept(sandboxes):
    s = sandboxes("9999")
    p = s[9999]
    os.mkdir(p.path("parties/77"))
    for name, bad in (("address", "ftp://x\n"), ("allow", "modul *\n")):
        with pytest.raises(OSError) as e:
            put(p.path("parties/77", name), bad)
        assert e.value.errno == errno.EINVAL
        assert bad.split()[0] in p.read("errors")
    put(p.path("parties/77/address"), "https://127.0.0.1:1\n")
    put(p.path("parties/77/allow"), "# none yet\nmodule *\n")
    p.kill("rollfs")
    p.start()
    assert p.read("parties/77/address") == "https://127.0.0.1:1\n"
    assert p.read("parties/77/allow") == "# none yet\nmodule *\n"
    for bad in ("0", "x", "12345678901", "007"):
        with pytest.raises(OSError) as e:
            os.mkdir(p.path("parties", bad))
        assert e.value.errno == errno.EINVAL
    with pytest.raises(FileExistsError):
        os.mkdir(p.path("parties/77"))


def test_routes_and_limits_are_checked_and_kept(sandboxes):
    s = sandboxes("9999")
    p = s[9999]
    os.mkdir(p.path("parties/77"))
    os.mkdir(p.path("parties/78"))
    for good in ("reverse", "via 77", "https://[::1]:9", "https://a.example:1"):
        put(p.path("parties/78/address"), good)  # judged when it is closed
        assert p.read("parties/78/address") == good + "\n"
        put(p.path("parties/78/address"), good + "\n")
        assert p.read("parties/78/address") == good + "\n"
    put(p.path("parties/78/address"), "via 77\n")
    for name, bad, why in (
            ("77/address", "via 78", "leads through itself"),
            ("77/address", "via 79", "party 79 is not known here"),
            ("77/address", "via 9999", "that is this party"),
            ("77/address", "https://a.example", "the port is missing"),
            ("77/address", "https://a:1\nvia 78", "expected one line"),
            ("77/address", "", "https://host:port"),
            ("77/allow", "relay all", "'relay ID|*'"),
            ("77/allow", "push *\n\nlimit size 1 K", "line 3: limit size: expected a number from 1"),
            ("77/allow", "limit size 9999999999T", "K, M, G or T"),
            ("77/allow", "limit speed 1K", "size|quota|rate|floor|transfers"),
            ("77/allow", "limit rate 1M\nlimit rate 2M", "line 2: limit rate stands twice")):
        before = p.read("parties", name)
        for end in ("\n", ""):  # told by write, or else by close
            if not bad and not end:
                continue
            with pytest.raises(OSError) as e:
                put(p.path("parties", name), bad + end)
            assert e.value.errno == errno.EINVAL
            first = "".join(p.read("errors").splitlines(True)[:2])
            assert "parties/" + name in first and why in first, first
            assert p.read("parties", name) == before
    rules = "relay 78\nrelay *\nlimit size 5G # of one\nlimit floor 0\n"
    put(p.path("parties/77/allow"), rules)
    with open(p.path("parties/77/allow"), "a", encoding="utf-8") as f:
        f.write("limit rate 10M\n")
    assert p.read("parties/77/allow") == rules + "limit rate 10M\n"
    with pytest.raises(OSError):  # with what stands there already
        with open(p.path("parties/77/allow"), "a", encoding="utf-8") as f:
            f.write("limit rate 11M\n")
    p.kill("rollfs")
    p.start()
    assert p.read("parties/77/allow") == rules + "limit rate 10M\n"
    assert p.read("parties/78/address") == "via 77\n"


# ---- start and end -------------------------------------------------------

def rollfs(p, mount, *args, seconds=20):
    return subprocess.run([os.path.join(BUILD, "rollfs"), p.conf, mount, *args],
                          capture_output=True, text=True, timeout=seconds * SLOW, check=False)


def test_a_second_daemon_is_refused(three, tmp_path):
    r = rollfs(three[9999], str(tmp_path), "-f")
    assert r.returncode == 1 and three[9999].state in r.stderr


def test_it_comes_back_over_a_dead_mount_and_detaches(sandboxes):
    """Without -f it returns when the mount works, takes the place of a dead
    one, and understands what mount(8) passes on."""
    s = sandboxes("9999")
    p = s[9999]
    p.kill("rollfs")
    with pytest.raises(OSError) as e:
        os.listdir(p.mount)
    assert e.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    r = rollfs(p, p.mount, "-o", "rw,noatime,_netdev,nofail,x-systemd.automount,dev,suid")
    assert r.returncode == 0, r.stderr
    assert "jobs" in os.listdir(p.mount)
    argv = [a for _, a in processes(s.dir) if os.path.basename(a[0]) == "rollfs"]
    assert argv == [["rollfs", p.conf, p.mount]] or argv[0][:3] == ["rollfs", p.conf, p.mount]
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        line = [x for x in f if x.split()[4] == p.mount]
    assert len(line) == 1 and " fuse.rollfs rollfs " in line[0]
    subprocess.run([*UMOUNT, p.mount], check=True)
    eventually(lambda: not processes(s.dir), 5)


@pytest.mark.parametrize("args, word", [([], "usage"), (["/nonexistent.conf", "/tmp"], "nonexistent")])
def test_a_wrong_call_is_told(args, word):
    r = subprocess.run([os.path.join(BUILD, "rollfs"), *args], capture_output=True, text=True,
                       timeout=20, check=False)
    assert r.returncode != 0 and word in r.stderr.lower()


def test_sigterm_unmounts_under_an_open_file(sandboxes):
    s = sandboxes("9999", "10000")
    p = s[9999]
    job = p.run(*job_files("add"))
    # What is open when the connection ends is left to exit; LeakSanitizer minds.
    fd = os.open(p.path("jobs", job, "status"), os.O_RDONLY) if SLOW == 1 else -1
    os.kill(p.pid("rollfs"), signal.SIGTERM)
    eventually(lambda: not p.pids("rollfs") and not p.pids("rollsite"), 10)
    with pytest.raises(OSError):
        os.read(fd, 1)
    if fd >= 0:
        os.close(fd)
    assert p.mount not in s.mounts()
    p.start()
    assert p.status(job) == "success"
