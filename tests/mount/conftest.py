# SPDX-License-Identifier: Apache-2.0
"""Real parties on this machine for the tests: tools/sandbox with throw-away
keys.  B says which build (make check sets it); hooks are in every build but
the release one."""
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

# A shell that starts us in the background ignores Ctrl-C for us and for all that
# we start; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(TOP, "tests", "data")
BUILD = os.path.abspath(os.environ.get("B") or os.path.join(TOP, "build", "test"))
SANDBOX = os.path.join(TOP, "tools", "sandbox")
# Sanitizer builds are slower; every deadline is multiplied.
SLOW = 4 if os.path.basename(BUILD) in ("asan", "tsan", "cov") else 1
ENDED = ("success", "failed", "canceled", "timeout")


def pytest_configure(config):
    config.addinivalue_line("markers", "numbers: long for its numbers, with no code that a shorter "
                            "test does not run: not repeated under sanitizers")


def pytest_collection_modifyitems(config, items):
    if SLOW > 1:
        left_out = [x for x in items if x.get_closest_marker("numbers")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [x for x in items if x not in left_out]


def eventually(what, seconds=10.0, every=0.02, busy=60.0):
    """Waits until what() is true and gives its value.  seconds: more than it takes on a machine
    that does nothing else; busy: what others may take of it meanwhile."""
    seconds = seconds * SLOW + busy
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, "did not happen within %g s" % seconds
        time.sleep(every)


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def read_json(*path):
    return json.loads(read(*path))


def processes(needle):
    """(pid, argv) of live processes with an argument below the directory."""
    out = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                argv = [os.fsdecode(a) for a in f.read().split(b"\0")[:-1]]
        except OSError:
            continue
        if argv and os.path.basename(argv[0]) in ("rollfs", "rollsite", "rollfs-task") and \
                any(a.startswith(needle + "/") for a in argv[1:]):
            out.append((int(pid), argv))
    return out


def first_over(pid):
    """The first thread of a killed process has ended: it is not listed any more."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as f:
            return f.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def over(pid):
    """A killed process: its files are closed, its locks are gone; the last thread has ended, not
    only the first."""
    try:
        return first_over(pid) and len(os.listdir("/proc/%d/task" % pid)) <= 1
    except OSError:
        return True


def job_files(name):
    """The documents of tests/data/jobs/<name>_{dsl,conf}.json."""
    return (read_json(DATA, "jobs", name + "_dsl.json"),
            read_json(DATA, "jobs", name + "_conf.json"))


PKI = os.path.join(TOP, "tools", "rollfs-pki")
# Of the federation "sandbox", made once for all tests: openssl would take most of
# the time that a sandbox needs.
with open(PKI, "rb") as _pki:
    KEYS = os.path.join(TOP, "build", "test-keys", hashlib.sha256(_pki.read()).hexdigest()[:16])


def have_keys(*parties):
    """A directory with the authority and the parties' certificates and keys."""
    os.makedirs(KEYS, mode=0o700, exist_ok=True)
    with open(os.path.join(KEYS, ".lock"), "a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("ca", *parties):
            if not os.path.exists(os.path.join(KEYS, name + ".pem")):
                subprocess.run([PKI, "ca", KEYS, "sandbox"] if name == "ca" else
                               [PKI, "party", KEYS, "sandbox", name],
                               check=True, capture_output=True)
    return KEYS


def take_keys(etc, *parties):
    """Copies of them, which a test may change."""
    for name in ("ca", *parties):
        for end in (".pem", ".key"):
            shutil.copy(os.path.join(have_keys(*parties), name + end), etc)


_ports = []


def take_ports(n):
    """Below the range that outgoing connections take theirs from, and of this process until it
    ends, also while nothing listens there: every test takes its ports in this way (sites.h)."""
    out = []
    while len(out) < n:
        port = random.SystemRandom().randrange(15000, 32000)
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind("\0rollfs-test-port-%d" % port)
            with socket.socket() as s:
                s.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        _ports.append(mark)
        out.append(port)
    return out


class Refused(Exception):
    def __init__(self, errno, text):
        super().__init__("%s: %s" % (os.strerror(errno), text))
        self.errno, self.text = errno, text


class Party:
    def __init__(self, sandbox, party):
        self.sandbox, self.id = sandbox, party
        self.mount = os.path.join(sandbox.dir, party)
        self.state = os.path.join(sandbox.dir, "state", party)
        self.conf = os.path.join(sandbox.dir, "etc", party + ".conf")

    def path(self, *p):
        return os.path.join(self.mount, *p)

    def read(self, *p):
        return read(self.mount, *p)

    def read_json(self, *p):
        return read_json(self.mount, *p)

    def upload(self, namespace, name, text):
        d = self.path("tables", namespace, name)
        os.makedirs(d, exist_ok=True)
        with open(os.path.join(d, "data.csv"), "wb") as f:
            f.write(text if isinstance(text, bytes) else text.encode())

    def upload_file(self, namespace, name, source):
        with open(source, "rb") as f:
            self.upload(namespace, name, f.read())

    def submit_text(self, text):
        """Writes jobs/new and reads the id back from the same descriptor.  A partner has 5 s for
        its check, in which it starts a program: on a busy machine it is asked again."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.submit_once(text)
            except Refused as e:
                if ": no answer" not in e.text.split("\n20")[0] or time.monotonic() > deadline:
                    raise

    def submit_once(self, text):
        fd = os.open(self.path("jobs/new"), os.O_RDWR)
        try:
            data = text if isinstance(text, bytes) else text.encode()
            try:
                while data:
                    data = data[os.write(fd, data):]
                answer = os.read(fd, 4096)
            except OSError as e:
                try:
                    why = os.read(fd, 1 << 20).decode()
                except OSError:
                    why = self.read("errors")
                raise Refused(e.errno, why) from None
        finally:
            try:
                os.close(fd)
            except OSError:
                pass
        assert answer.endswith(b"\n") and answer[:-1].isdigit(), answer
        return answer[:-1].decode()

    def submit(self, dsl, conf):
        return self.submit_text(json.dumps(dsl) + "\n" + json.dumps(conf) + "\n")

    def status(self, job):
        return self.read("jobs", job, "status").strip()

    def wait(self, job, seconds=60):
        """Reads jobs/<id>/wait in a child so that a hang fails the test; a machine that is busy
        with other things does not."""
        r = subprocess.run(["cat", self.path("jobs", job, "wait")], capture_output=True,
                           text=True, timeout=seconds * SLOW + 240, check=True)
        return r.stdout.strip()

    def error(self, job):
        return self.read("jobs", job, "error")

    def run(self, dsl, conf, seconds=60):
        """Submits, waits for success, gives the id."""
        job = self.submit(dsl, conf)
        status = self.wait(job, seconds)
        assert status == "success", "%s: %s" % (status, self.error(job))
        return job

    def pids(self, program):
        """rollfs and rollsite by their configuration, tasks by their state."""
        return [pid for pid, argv in processes(self.sandbox.dir)
                if os.path.basename(argv[0]) == program and
                (self.conf in argv or any(a.startswith(self.state + "/") for a in argv))]

    def pid(self, program):
        return eventually(lambda: self.pids(program))[0]

    def kill(self, program, users=()):
        """SIGKILL, and its end: what looks like it runs is not started again.  users: processes
        whose groups are killed after it, for what they wait for may hold it up."""
        pid = self.pid(program)
        os.kill(pid, signal.SIGKILL)
        for x in users:
            os.killpg(x.pid, signal.SIGKILL)
            x.wait(60)
        # One of its threads may wait in the kernel for who waits for it: start() ends that.
        patience = time.monotonic() + 5
        eventually(lambda: over(pid) or time.monotonic() > patience and first_over(pid), 10, 0.002)
        return pid

    def start(self):
        self.sandbox.run("start", self.sandbox.dir, self.id)


class Sandbox:
    def __init__(self, directory, env):
        self.dir = directory
        self.env = dict(os.environ, B=BUILD, READY=str(20 * SLOW + 60), KEYS=KEYS, **env)
        self.parties = {}

    def run(self, *args):
        r = subprocess.run([SANDBOX, *args], capture_output=True, text=True, env=self.env,
                           timeout=120 * SLOW + 60, check=False)
        assert r.returncode == 0, "sandbox %s: %s%s" % (args[0], r.stderr, r.stdout)
        return r.stdout

    def up(self, *parties):
        have_keys(*parties)
        self.env["PORTS"] = " ".join(str(x) for x in take_ports(len(parties)))
        out = self.run("up", self.dir, *parties)
        self.parties = {p: Party(self, p) for p in parties}
        return out

    def __getitem__(self, party):
        return self.parties[str(party)]

    def upload_breast(self):
        self["9999"].upload_file("experiment", "breast_guest", DATA + "/breast_guest.csv")
        self["10000"].upload_file("experiment", "breast_host", DATA + "/breast_host.csv")

    def mounts(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            return [x.split()[4] for x in f if x.split()[4].startswith(self.dir + "/")]

    def complaints(self):
        """What a sanitizer said in the logs of this sandbox."""
        out = []
        for top, _, names in os.walk(self.dir):
            for n in names:
                if not (n == "log" or n.endswith(".log")):
                    continue
                try:
                    text = read(top, n)
                except (OSError, UnicodeDecodeError):
                    continue
                m = re.search(r"(Address|Leak|Thread)Sanitizer|runtime error:", text)
                if m:
                    out.append(os.path.join(top, n) + "\n" + text[m.start():][:6000])
        return out


def _sandbox():
    made = []

    def make(*parties, **env):
        d = os.path.realpath(tempfile.mkdtemp(prefix="rollfs-test-"))
        s = Sandbox(d, {k: str(v) for k, v in env.items()})
        made.append(s)
        s.up(*parties)
        return s

    yield make
    problems = []
    for s in made:
        try:
            s.run("down", s.dir)
        except Exception as e:  # the leak check below says more
            problems.append(str(e))
        if s.mounts():
            problems.append("still mounted: %s" % s.mounts())
        left = processes(s.dir)
        if left:
            problems.append("still running: %s" % left)
            for pid, _ in left:
                os.kill(pid, signal.SIGKILL)
        problems += s.complaints()
        if not os.environ.get("KEEP_SANDBOX"):
            shutil.rmtree(s.dir, ignore_errors=True)
        else:
            print("kept", s.dir, file=sys.stderr)
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module")
def sandboxes():
    """A factory: sandboxes(party..., LEASE=n, ROLLFS_HOOK_X=...)."""
    if not os.path.exists("/dev/fuse"):
        pytest.fail("no /dev/fuse: the mount tests need it", pytrace=False)
    yield from _sandbox()


@pytest.fixture(scope="module")
def three(sandboxes):
    """Guest 9999, host 10000, arbiter 10001, with the breast tables."""
    s = sandboxes("9999", "10000", "10001")
    s.upload_breast()
    return s


@pytest.fixture(scope="module")
def two(sandboxes):
    return sandboxes("9999", "10000")


@pytest.fixture
def rng():
    return random.Random(20111)
