# SPDX-License-Identifier: Apache-2.0
"""Random operations on every place of the mount that can be written, each
compared with a model in memory, as fsx does it.  SOAK=1: fifty times as many."""
import errno
import mmap
import os
import random
import shutil
import time

import pytest
from conftest import eventually

TIMES = 50 if os.environ.get("SOAK") else 1
SEED = int(os.environ.get("SEED", "20112"))


@pytest.fixture(scope="module")
def p(sandboxes):
    return sandboxes("9999", "10000")["9999"]


def slurp(path):
    with open(path, "rb") as f:
        return f.read()


# ---- files: federation, temporary names --------------------------------------

class Files:
    """A directory with files; the model is name -> bytes."""
    LARGEST = 300000

    def __init__(self, rng, top, names):
        self.rng, self.top, self.names = rng, top, names
        self.model, self.open, self.log = {}, {}, []

    def path(self, name):
        return os.path.join(self.top, name)

    def blob(self):
        return self.rng.randbytes(self.rng.choice((0, 1, 10, 4095, 4096, 70000)))

    def write(self, name):
        """At any place of a file that is (or becomes) there, by one descriptor."""
        fd = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o644)
        now = bytearray(self.model.get(name, b""))
        for _ in range(self.rng.randrange(1, 4)):
            at, data = self.rng.randrange(len(now) + 5000), self.blob()
            if at + len(data) > self.LARGEST:
                continue
            assert os.pwrite(fd, data, at) == len(data)
            if data:
                now.extend(b"\0" * (at - len(now)))
                now[at:at + len(data)] = data
            n = self.rng.randrange(10000)
            at = self.rng.randrange(len(now) + 100)
            assert os.pread(fd, n, at) == bytes(now[at:at + n])
            assert os.fstat(fd).st_size == len(now)
        os.close(fd)
        self.model[name] = bytes(now)

    def replace(self, name):
        data = self.blob()
        with open(self.path(name), "wb") as f:
            f.write(data)
        self.model[name] = data

    def append(self, name):
        data = self.blob()
        if len(self.model.get(name, b"")) + len(data) <= self.LARGEST:
            with open(self.path(name), "ab") as f:
                f.write(data)
            self.model[name] = self.model.get(name, b"") + data

    def truncate(self, name):
        if name in self.model:
            size = self.rng.choice((0, 1, len(self.model[name]) // 2, len(self.model[name]) + 777))
            os.truncate(self.path(name), min(size, self.LARGEST))
            self.model[name] = self.model[name][:size].ljust(min(size, self.LARGEST), b"\0")

    def read(self, name):
        if name in self.model:
            assert slurp(self.path(name)) == self.model[name]
            assert os.stat(self.path(name)).st_size == len(self.model[name])
        else:
            with pytest.raises(FileNotFoundError):
                os.stat(self.path(name))

    def mapped(self, name):
        if self.model.get(name):
            with open(self.path(name), "rb") as f, \
                    mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as m:
                assert m[:] == self.model[name]

    def unlink(self, name):
        if name in self.model:
            os.unlink(self.path(name))
            del self.model[name]

    def rename(self, name):
        to = self.rng.choice(self.names)
        if name in self.model and to != name:
            os.rename(self.path(name), self.path(to))
            self.model[to] = self.model.pop(name)

    def exclusive(self, name):
        if name in self.model:
            with pytest.raises(FileExistsError):
                os.open(self.path(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY)

    def listing(self, _):
        mine = {n for n in os.listdir(self.top) if n in self.names}
        assert mine == set(self.model)

    def held(self, name):
        """A reader keeps what it has opened, whatever becomes of the name."""
        if name in self.model and len(self.open) < 8:
            self.open[os.open(self.path(name), os.O_RDONLY)] = None
        elif self.open:
            os.close(self.open.popitem()[0])

    OPERATIONS = ("write", "write", "replace", "append", "truncate", "read", "read", "mapped",
                  "unlink", "rename", "exclusive", "listing", "held")

    def run(self, steps):
        try:
            for _ in range(steps):
                op, name = self.rng.choice(self.OPERATIONS), self.rng.choice(self.names)
                self.log.append((op, name))
                getattr(self, op)(name)
            for name in self.names:
                self.read(name)
        except BaseException:
            print("seed %d, the last of %d steps: %s" % (SEED, len(self.log), self.log[-15:]))
            raise
        finally:
            for fd in self.open:
                os.close(fd)


def test_files_under_temporary_names(p):
    """Kept here, in a partner's folder, in a table and beside a policy."""
    p.upload("model", "beside", "id,a\n1,2\n")
    for k, top in enumerate(("federation/10000/.scratch", "tables/model/beside", "parties/10000",
                             "tables/model/beside/.ipynb_checkpoints")):
        os.makedirs(p.path(top), exist_ok=True)
        Files(random.Random(SEED + k), p.path(top), [".a", "b~", "c.tmp", ".d.swp"]).run(200 * TIMES)


def test_files_that_are_sent(p):
    os.makedirs(p.path("federation/10000/model"))
    f = Files(random.Random(SEED), p.path("federation/10000/model"), ["a", "b.csv", "c c", "d"])
    f.run(250 * TIMES)
    there = p.sandbox["10000"].path("federation/9999/inbox/model")
    # The partner has in the end what is here, and no other state of it.
    for name, want in f.model.items():
        eventually(lambda n=name, w=want: os.path.exists(there + "/" + n) and
                   slurp(there + "/" + n) == w, 60)


def test_a_sent_file_that_is_removed_or_renamed_at_once_does_not_come_back(p):
    """An empty one is handed over when its close has returned already."""
    top = p.path("federation/10000/brief")
    os.makedirs(top)
    for i in range(60):
        for name in ("gone", "old"):
            with open(os.path.join(top, name), "wb") as f:
                f.write(b"x" * (i % 2))  # there was another one, and there was not
            with open(os.path.join(top, name), "wb"):
                pass
        os.unlink(os.path.join(top, "gone"))
        os.rename(os.path.join(top, "old"), os.path.join(top, "new"))
        assert os.listdir(top) == ["new"]
    time.sleep(0.5)
    assert os.listdir(top) == ["new"]
    there = p.sandbox["10000"].path("federation/9999/inbox/brief")
    eventually(lambda: slurp(os.path.join(there, "new")) == b"", 60)


def test_a_time_that_is_set_at_once_is_kept(p):
    """As rsync sets it: of an empty file, too, which is being handed over just then."""
    top = p.path("federation/10000/times")
    os.makedirs(top)
    lost = 0
    for i in range(200):
        f = os.path.join(top, "t%d" % (i % 10))
        with open(f, "wb"):
            pass
        os.utime(f, ns=(0, 10 ** 18 + i))
        time.sleep(0.005)
        lost += os.stat(f).st_mtime_ns != 10 ** 18 + i
    assert not lost


# ---- tables --------------------------------------------------------------------

class Tables:
    """Namespaces with tables; the model is (namespace, name) -> rows or None."""
    NAMES = [(ns, t) for ns in ("m1", "m2") for t in ("a", "b", "c d")]

    def __init__(self, rng, p):
        self.rng, self.p, self.model, self.notes, self.log = rng, p, {}, {}, []
        self.held = []
        for ns, _ in self.NAMES:
            os.makedirs(p.path("tables", ns), exist_ok=True)

    def path(self, at, *rest):
        return self.p.path("tables", *at, *rest)

    def rows(self):
        n = self.rng.choice((1, 3, 50, 3000))
        keys = self.rng.sample(range(10 ** 6), n)
        return {"k%06d" % k: self.rng.choice(("x", "1.5", "", "a,b", 'q"q')) * self.rng.randrange(3)
                for k in keys}

    @staticmethod
    def quoted(v):
        return '"%s"' % v.replace('"', '""') if set(v) & set(',"') else v

    def text(self, rows, ordered):
        keys = sorted(rows) if ordered else list(rows)
        return "id,v\n" + "".join("%s,%s\n" % (k, self.quoted(rows[k])) for k in keys)

    def upload(self, at):
        rows = self.rows()
        self.p.upload(*at, self.text(rows, False))
        if at not in self.model:
            self.notes[at] = None
        self.model[at] = rows

    def spoiled(self, at):
        """A refused upload changes nothing."""
        if self.model.get(at):
            with pytest.raises(OSError) as e:
                self.p.upload(*at, "id,v\n1,2\n1,3\n")
            assert e.value.errno in (errno.EINVAL, errno.EEXIST)

    def read(self, at):
        rows = self.model.get(at)
        if rows is None:
            assert not os.path.exists(self.path(at, "data.csv"))
            assert os.path.isdir(self.path(at)) == (at in self.model)
            return
        want = self.text(rows, True).encode()
        assert slurp(self.path(at, "data.csv")) == want
        assert os.stat(self.path(at, "data.csv")).st_size == len(want)
        assert self.p.read("tables", *at, "count") == "%d\n" % len(rows)
        fd = os.open(self.path(at, "data.csv"), os.O_RDONLY)
        for _ in range(5):
            i, n = self.rng.randrange(len(want) + 10), self.rng.randrange(5000)
            assert os.pread(fd, n, i) == want[i:i + n]
        os.close(fd)

    def row(self, at):
        for k in self.rng.sample(sorted(self.model.get(at) or {}), 1) if self.model.get(at) else ():
            assert self.p.read("tables", *at, "rows", k) == \
                "%s,%s\n" % (k, self.quoted(self.model[at][k]))
            assert not os.path.exists(self.path(at, "rows", k + "x"))

    def mkdir(self, at):
        if at in self.model:
            with pytest.raises(FileExistsError):
                os.mkdir(self.path(at))
        else:
            os.mkdir(self.path(at))
            self.model[at] = self.notes[at] = None

    def empty(self, at):
        if self.model.get(at) is not None:
            os.unlink(self.path(at, "data.csv"))
            self.model[at] = None

    def drop(self, at):
        if at in self.model:
            shutil.rmtree(self.path(at))
            del self.model[at], self.notes[at]

    def rename(self, at):
        to = self.rng.choice(self.NAMES)
        if at in self.model and to != at:
            os.rename(self.path(at), self.path(to))
            self.model[to], self.notes[to] = self.model.pop(at), self.notes.pop(at)

    def copy(self, at):
        to = self.rng.choice(self.NAMES)
        if self.model.get(at) is not None and to not in self.model:
            shutil.copytree(self.path(at), self.path(to))
            self.model[to], self.notes[to] = self.model[at], self.notes[at]

    def note(self, at):
        if at in self.model:
            self.notes[at] = self.rng.randbytes(self.rng.randrange(1, 3000))
            os.setxattr(self.path(at), "user.note", self.notes[at])

    def noted(self, at):
        if at in self.model:
            if self.notes[at] is None:
                with pytest.raises(OSError):
                    os.getxattr(self.path(at), "user.note")
            else:
                assert os.getxattr(self.path(at), "user.note") == self.notes[at]

    def listing(self, _):
        for ns in ("m1", "m2"):
            want = {t for n, t in self.model if n == ns}
            assert set(os.listdir(self.p.path("tables", ns))) == want
            assert {e.name for e in os.scandir(self.p.path("tables", ns)) if e.is_dir()} == want

    def hold(self, at):
        if self.model.get(at) is not None and len(self.held) < 6:
            fd = os.open(self.path(at, "data.csv"), os.O_RDONLY)
            self.held.append((fd, self.text(self.model[at], True).encode()))
        elif self.held:
            fd, want = self.held.pop(self.rng.randrange(len(self.held)))
            assert os.pread(fd, len(want) + 1, 0) == want
            os.close(fd)

    OPERATIONS = ("upload", "upload", "spoiled", "read", "read", "row", "row", "mkdir", "empty",
                  "drop", "rename", "rename", "copy", "note", "noted", "listing", "hold", "hold")

    def run(self, steps):
        try:
            for _ in range(steps):
                op, at = self.rng.choice(self.OPERATIONS), self.rng.choice(self.NAMES)
                self.log.append((op, at))
                getattr(self, op)(at)
            for at in self.NAMES:
                self.read(at)
        except BaseException:
            print("seed %d, the last of %d steps: %s" % (SEED, len(self.log), self.log[-15:]))
            raise
        finally:
            for fd, _ in self.held:
                os.close(fd)


def test_tables(p):
    t = Tables(random.Random(SEED), p)
    t.run(250 * TIMES)
    # What was published is there after a restart, and nothing else.
    p.kill("rollfs")
    p.start()
    for at in t.NAMES:
        t.read(at)
    assert os.listdir(p.state + "/tables/building") == []


# ---- small documents -------------------------------------------------------------

def test_options_and_policies(p):
    """upload.json, allow, address: a whole valid text replaces, all else is refused
    and changes nothing (but an upload.json, which is seen to be wrong), however it is cut
    into writes."""
    rng = random.Random(SEED)
    os.makedirs(p.path("tables/model/options"), exist_ok=True)
    places = {
        "tables/model/options/upload.json":
            ([b'{"head": 1}\n', b'{"id_delimiter": ";"}\n', b'{"partition": 7, "head": 0}\n'],
             [b'{"head": "x"}\n', b"[]\n", b'{"nonsense": 1}\n', b'{"head": 1', b"\x00\xff"]),
        "parties/10000/allow":
            ([b"module *\n", b"table a/*\nrole host\n", b"# none\n", b"push *\nmodule *\n"],
             [b"nonsense\n", b"module\n", b"role emperor\n"])}
    for place, (good, bad) in places.items():
        path, now = p.path(place), None
        for _ in range(50 * TIMES):
            text = rng.choice(good + bad)
            failed = False
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                try:
                    for i in range(0, len(text), 5):
                        os.write(fd, text[i:i + 5])
                finally:
                    os.close(fd)
            except OSError as e:
                assert e.errno == errno.EINVAL
                failed = True
            assert failed == (text in bad), text
            if failed and "upload" in place:
                # It stays, and rows are refused, until it is mended or removed.
                assert text.startswith(slurp(path))
                now = None
            elif not failed:
                now = text
            if now is not None:
                assert slurp(path) == now
            if rng.random() < 0.1 and "upload" in place and now:
                os.unlink(path)
                now = None
                assert not os.path.exists(path)
