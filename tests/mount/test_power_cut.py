# SPDX-License-Identifier: Apache-2.0
"""The power goes: what has been answered is there afterwards, what has not is there
or is not, and nothing is half.  Of one recorded run every state that a disk can have
is made (powercut.py) and looked at through a new mount.  SOAK=1: after every change."""
import json
import os
import re
import time

from conftest import DATA, ENDED, SLOW, eventually
from net import SOAK, Socket, content, labs
from powercut import WAYS, Recorder, cuts
from test_jobs import breast, quick_keys
from test_soak import job_open, key_of, payload, recv, send

_ = labs


def every(n):
    """Of so many states one is looked at.  Primes: all ways take turns."""
    return 1 if SOAK else n * SLOW


def bytes_of(path):
    with open(path, "rb") as f:
        return f.read()


def look(p):
    """{path: what is there} of all that a user has made."""
    seen, top = {}, p.path("tables")
    for ns in os.listdir(top):
        seen["tables/" + ns] = True
        for t in os.listdir(os.path.join(top, ns)):
            at = os.path.join(top, ns, t)
            data = os.path.join(at, "data.csv")
            seen["tables/%s/%s" % (ns, t)] = (
                bytes_of(data) if os.path.exists(data) else None,
                oct(os.stat(at).st_mode), sorted(
                    (a, os.getxattr(at, a)) for a in os.listxattr(at)
                    if a.startswith("user.") and not a.startswith("user.rollfs.")))
    sent = p.path("federation/2")
    for d, dirs, files in os.walk(sent):
        if d == sent and "inbox" in dirs:
            dirs.remove("inbox")
        for f in files:
            at = os.path.join(d, f)
            seen[os.path.relpath(at, p.mount)] = bytes_of(at)
        for f in dirs:
            seen[os.path.relpath(os.path.join(d, f), p.mount)] = True
    seen["allow"] = p.read("parties/2/allow")
    return seen


class Steps:
    """Each is one answer to the user; states[k] is what was there after answer k, and
    between[k] what may be seen on the way to it, too."""

    def __init__(self, p, look=look):
        self.p, self.look = p, look
        self.times, self.states, self.names, self.between = [], [], [], []
        self.now("begin")

    def now(self, name, between=None):
        self.times.append(time.time())
        self.states.append(self.look(self.p))
        self.names.append(name)
        self.between.append(between and between(*self.states[-2:]))

    def put(self, path, data):
        with open(self.p.path(path), "wb") as f:
            f.write(data)
        self.now("put " + path)

    def call(self, function, *args, between=None):
        """A change of names, which is durable when the directories are."""
        paths = [self.p.path(a) for a in args if isinstance(a, str) and "/" in a]
        function(*paths, *args[len(paths):])
        for d in {os.path.dirname(x) for x in paths}:
            fd = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(fd)
            os.close(fd)
        self.now("%s %s" % (function.__name__, args), between)

    def allowed(self, k):
        """After answer k."""
        return [x for x in self.states[k:k + 2] + self.between[k + 1:k + 2] if x is not None]


def csv(n, value):
    return ("id,x\n" + "".join("k%05d,%s\n" % (i, value) for i in range(n))).encode()


def after(disk, way, p):
    """What the party finds.  The machine has started anew, unless nothing was lost."""
    disk.write(way, p.state)
    numbers = os.path.join(p.state, "tables/counter.lock")  # and its start's identity
    if way != "all" and os.path.exists(numbers):
        os.unlink(numbers)


def restore(p, disk, way):
    for program in ("rollfs", "rollsite"):
        p.kill(program)
    p.unmount()
    after(disk, way, p)
    p.start()


def differences(a, b):
    return ["%s: %.200r, %.200r" % (k, a.get(k), b.get(k)) for k in sorted(set(a) | set(b))
            if a.get(k) != b.get(k)]


def after_every_cut(p, events, steps, d, ways, one_of=83):
    """Looks at p after cuts; each state is that of the last answer, or of the next.
    Gives what was wrong and how many states there were."""
    bad, n, k, known = [], 0, 0, set()
    for e in cuts([d], events):
        while k + 1 < len(steps.times) and steps.times[k + 1] < e.at:
            k += 1
        for way in ways:
            n += 1
            if n % every(one_of):
                continue
            what = d.digest(way), k
            if what in known:
                continue
            known.add(what)
            restore(p, d, way)
            got, allowed = steps.look(p), steps.allowed(k)
            if got in allowed:
                continue
            bad.append("%s, %s: %r\n    %s" % (way, " -> ".join(steps.names[k:k + 2]), e,
                                               "\n    ".join(differences(allowed[0], got))))
            assert len(bad) < 20, "\n".join(bad)
    return bad, n


def test_tables_and_what_is_sent(labs):
    x = labs({"1": {}, "2": {"mount": False}})
    p = x["1"]
    x["2"].kill("rollsite")  # what is sent stays
    for ns in ("n", "gone"):
        os.mkdir(p.path("tables", ns))
    p.upload("n", "old", csv(3, "1.5"))
    p.upload("n", "other", csv(4, "2.5"))
    time.sleep(1)
    record = Recorder([p.pid("rollfs"), p.pid("rollsite")], [p.state],
                      os.path.join(x.dir, "record"))
    steps = Steps(p)
    steps.put("tables/n/old/data.csv", csv(5, "3.5"))
    steps.call(os.mkdir, "tables/new")
    steps.call(os.mkdir, "tables/new/t")
    steps.put("tables/new/t/data.csv", csv(6, "4.5"))
    steps.call(os.rename, "tables/n/other", "tables/n/moved")
    steps.call(os.rename, "tables/n/moved", "tables/n/old")
    steps.call(os.chmod, "tables/new/t", 0o700)
    steps.call(os.setxattr, "tables/new/t", "user.note", b"words")
    steps.put("federation/2/file", content("file", 1, 1000))
    steps.call(os.mkdir, "federation/2/d")
    steps.put("federation/2/d/large", content("large", 1, 300000))
    # What is sent is never without a name; an empty namespace that is replaced is.
    steps.call(os.rename, "federation/2/d/large", "federation/2/d/moved",
               between=lambda before, after: {**before, **after})
    steps.put("parties/2/allow", b"push *\n")
    steps.call(os.unlink, "federation/2/file")
    steps.call(os.rename, "tables/new", "tables/gone", between=lambda before, after: {
        n: x for n, x in before.items() if n != "tables/gone"})
    steps.call(os.rmdir, "tables/gone/t")
    steps.call(os.rmdir, "tables/gone")
    time.sleep(1)
    events = record.stop()
    p.kill("rollfs")
    p.kill("rollsite")
    record.check(events)
    bad, n = after_every_cut(p, events, steps, record.disks()[0], WAYS)
    print("%d states" % n)
    assert n > 500 and not bad, "\n".join(bad)


# ---- between two parties ---------------------------------------------------------


class Messages:
    """What 1 sends to 2 and when: [key, data, when it was accepted, when it was taken]."""

    def __init__(self, x, job):
        self.x, self.job, self.sent, self.files = x, job, [], []

    def send(self, size):
        m = [key_of(self.job, "m%d" % len(self.sent), "-"), payload(len(self.sent), size), 0, 0]
        with Socket(self.x["1"]) as s:
            assert send(s, m[0], m[1])["status"] == 0
        m[2] = time.time()
        self.sent.append(m)

    def take(self, i):
        m = self.sent[i]
        with Socket(self.x["2"]) as s:
            assert recv(s, m[0])[1] == m[1]
        m[3] = time.time()

    def put(self, path, size):
        data = content(path, len(self.files), size)
        self.x["1"].put("2", path, data)
        self.files.append((path, data, time.time()))

    def answers(self, at):
        """How many there were until then."""
        return sum(t <= at for t in [x[2] for x in self.sent + self.files] +
                   [x[3] or at + 1 for x in self.sent])

    def arrived(self, path):
        f = os.path.join(self.x["2"].state, "federation/1/in", path)
        return bytes_of(f) if os.path.exists(f) else None

    def problems(self, at, began):
        """After a cut at that time all comes that was accepted, and what was not is sent
        again, as whoever sends does it.  What was taken may come again: that it was is
        written with the next message, and no task asks twice.  began: {i: when its take
        began}."""
        problems = []
        with Socket(self.x["1"]) as s:
            for i, (key, data, accepted, _) in enumerate(self.sent):
                if accepted > at:
                    status = send(s, key, data)["status"]
                    if status:
                        problems.append("%d is not sent again: %d" % (i, status))
        for i, (key, data, _, taken) in enumerate(self.sent):
            with Socket(self.x["2"], 10) as r:
                try:
                    head, got = recv(r, key)
                except TimeoutError as e:
                    head, got = e, b"" if not taken or taken > at else None
                if taken and taken <= at:
                    if got not in (None, data):
                        problems.append("%d was taken, and comes with other bytes" % i)
                elif got != data and not (got is None and began.get(i, at) < at):
                    problems.append("%d is lost: %s" % (i, head))
        for path, data, accepted in self.files:
            if accepted <= at:
                try:
                    eventually(lambda p=path, d=data: self.arrived(p) == d, 15)
                except AssertionError:
                    problems.append("%s is lost" % path)
        return "; ".join(problems)


def stop_all(x):
    for p in ("1", "2"):
        for program in ("rollfs", "rollfs-task", "rollsite"):
            while x[p].kill(program):
                pass
        x[p].unmount()


def at_every_cut(x, disks, events, start, answers, problem, one_of):
    """The power goes at 1, at 2, or at both, after each event since start (of one_of states
    one is looked at).  answers(at) tells states with the same bytes apart by what was said
    until then; problem(at) gives what is wrong when all runs again, or None."""
    bad, n, known = [], 0, set()
    for e in cuts(disks, events):
        if e.at < start:
            continue
        for way in WAYS:
            for ways in ((way, "all"), ("all", way), (way, way)):
                n += 1
                if n % one_of:
                    continue
                what = (answers(e.at), *(d.digest(w) for d, w in zip(disks, ways)))
                if what in known:
                    continue
                known.add(what)
                stop_all(x)
                for p, d, w in zip(("1", "2"), disks, ways):
                    after(d, w, x[p])
                for p in ("1", "2"):
                    x[p].start()
                for p in ("1", "2"):
                    eventually(lambda p=p: speaks(x[p]), 20)
                try:
                    b = problem(e.at)
                except (AssertionError, OSError) as why:
                    b = str(why)
                if b:
                    bad.append("%s, %.300r: %s" % (ways, e, b))
                assert len(bad) < 10, "\n".join(bad)
    return bad, n


def speaks(p):
    try:
        with Socket(p) as s:
            return s.ask({"op": "hello"})["status"] == 0
    except OSError:
        return False


def test_messages_and_files_between_two(labs):
    """The power goes at the sender, at the receiver, or at both."""
    x = labs({"1": {}, "2": {"mount": False}}).ready()
    job = "20261130120000000000000001"
    job_open(x, job)
    m, began = Messages(x, job), {}
    eventually(lambda: not x["1"].leftovers(), 10)
    time.sleep(1)
    record = Recorder([x["1"].pid("rollfs"), x["1"].pid("rollsite"), x["2"].pid("rollsite")],
                      [x["1"].state, x["2"].state], os.path.join(x.dir, "record"))
    start = time.time()
    for i in range(4):
        m.send(100 + i)
    m.send(300000)
    m.put("f0", 2000)
    for i in range(2):
        began[i] = time.time()
        m.take(i)
    m.send(50)
    m.put("d/f1", 100000)
    began[4] = time.time()
    m.take(4)
    eventually(lambda: all(m.arrived(p) == d for p, d, _ in m.files), 30)
    time.sleep(1)
    events = record.stop()
    stop_all(x)
    record.check(events)
    bad, n = at_every_cut(x, record.disks(), events, start, m.answers,
                          lambda at: m.problems(at, began), every(307))
    print("%d states" % n)
    assert n > 500 and not bad, "\n".join(bad)


# ---- a job -----------------------------------------------------------------------


def intersection():
    """The first half of the job of the demo, of the parties 1 and 2."""
    dsl, conf = breast()
    text = json.dumps(quick_keys(conf)).replace('"9999"', '"1"').replace('"10000"', '"2"')
    conf = json.loads(re.sub(r"\b9999\b", "1", re.sub(r"\b10000\b", "2", text)))
    keep = ("reader_0", "data_transform_0", "intersection_0")
    dsl["components"] = {k: v for k, v in dsl["components"].items() if k in keep}
    conf["role"].pop("arbiter", None)
    common = conf["component_parameters"]["common"]
    for k in [k for k in common if k not in keep]:
        del common[k]
    return dsl, conf


def test_a_job(labs):
    """It ends, with the same status at both, and what it says it has made is there."""
    # Leaks cannot be looked for in tasks that are traced.
    env = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
    x = labs({"1": {"env": env}, "2": {"env": env}}).ready()
    x["1"].upload_file("experiment", "breast_guest", DATA + "/breast_guest.csv")
    x["2"].upload_file("experiment", "breast_host", DATA + "/breast_host.csv")
    time.sleep(1)
    record = Recorder([x[p].pid(q) for p in "12" for q in ("rollfs", "rollsite")],
                      [x["1"].state, x["2"].state], os.path.join(x.dir, "record"))
    start = time.time()
    job = x["1"].submit(*intersection())
    accepted = time.time()
    status = x["1"].wait(job, 120)
    ended = time.time()
    eventually(lambda: x["2"].status(job) == status, 10)
    time.sleep(1)
    events = record.stop()
    assert status == "success", x["1"].error(job)
    made = "guest/intersection_0/out/data/data.csv"
    want = x["1"].read("jobs", job, made)
    stop_all(x)
    record.check(events)

    def end():
        eventually(lambda: x["1"].status(job) in ENDED, 60)
        return x["1"].status(job)

    def problem(at):
        if not os.path.exists(x["1"].path("jobs", job)):
            return "the job is lost" if accepted <= at else None
        now = end()
        if ended <= at and now != "success":
            return "it was a success and is %s" % now
        seen.append(now)
        if now != "success":
            reason = x["1"].error(job)
            with open(x["1"].path("jobs", job, "ctl"), "w", encoding="utf-8") as f:
                f.write("rerun\n")
            again = end()
            if again != "success":
                return "%s (%s), and again: %s (%s)" % (now, reason, again, x["1"].error(job))
        if x["1"].read("jobs", job, made) != want:
            return "other rows"
        eventually(lambda: x["2"].status(job) == "success", 20)
        return None
    seen = []
    bad, n = at_every_cut(x, record.disks(), events, start, lambda at: at >= accepted,
                          problem, 61 if SOAK else every(2999))
    print("%d states, ends: %s" % (n, {s: seen.count(s) for s in seen}))
    assert n > 5000 and not bad, "\n".join(bad)
