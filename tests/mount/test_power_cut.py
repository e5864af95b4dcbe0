# SPDX-License-Identifier: Apache-2.0
"""The power goes: what has been answered is there afterwards, what has not is there
or is not, and nothing is half.  Of one recorded run every state that a disk can have
is made (powercut.py) and looked at through a new mount.  SOAK=1: after every change."""
import os
import time

from conftest import SLOW
from net import SOAK, content, labs
from powercut import WAYS, Recorder, cuts

_ = labs
EVERY = 1 if SOAK else 13 * SLOW


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

    def __init__(self, p):
        self.p, self.times, self.states, self.names, self.between = p, [], [], [], []
        self.now("begin")

    def now(self, name, between=None):
        self.times.append(time.time())
        self.states.append(look(self.p))
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


def restore(p, disk, way):
    p.kill("rollfs")
    p.kill("rollsite")
    p.unmount()
    disk.write(way, p.state)
    p.start()


def differences(a, b):
    return ["%s: %.200r, %.200r" % (k, a.get(k), b.get(k)) for k in sorted(set(a) | set(b))
            if a.get(k) != b.get(k)]


def after_every_cut(p, events, steps, disk, ways):
    """Looks at p after cuts; each state is that of the last answer, or of the next.
    Gives what was wrong and how many states there were."""
    bad, n, k, known = [], 0, 0, set()
    for d, e in cuts(disk, events):
        while k + 1 < len(steps.times) and steps.times[k + 1] < e.at:
            k += 1
        for way in ways:
            what = d.digest(way), k
            if what in known:
                continue
            known.add(what)
            n += 1
            if n % EVERY:
                continue
            restore(p, d, way)
            got, allowed = look(p), steps.allowed(k)
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
    record = Recorder([p.pid("rollfs"), p.pid("rollsite")], p.state,
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
    bad, n = after_every_cut(p, events, steps, record.disk, WAYS)
    print("%d states" % n)
    assert n > 200 and not bad, "\n".join(bad)
