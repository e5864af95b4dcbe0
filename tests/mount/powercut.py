# SPDX-License-Identifier: Apache-2.0
"""What a disk holds when the power goes.  strace notes every system call of the
daemons that changes files below a directory; a Disk makes them again in memory,
up to any of them, and writes down what a disk may then hold, and no more:

  commit   names as of the last fsync of anything, contents as of each file's own:
           a journaling file system that was slow
  names    all names, contents as of each file's own fsync: one that was quick with
           names (new files are empty)
  zeros    the same, but the files have their lengths; what was not synced is zeros
  torn     the same, but of what was not synced the first half of the writes is there
  all      nothing is lost: a process was killed, the machine was not
  strict   of each directory the names as of its own fsync, and those of files that
           were synced themselves: file systems without one journal for all

A rename is on the disk in both directories or in none."""
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import time

WAYS = ("commit", "names", "zeros", "torn", "strict")
CALLS = ("open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,"
         "lseek,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,"
         "mkdirat,rmdir,fsync,fdatasync,sync,syncfs,copy_file_range,sendfile,splice,mmap,"
         "clone,clone3,fork,vfork")
LONGEST = 1 << 20  # bytes of one write

LINE = re.compile(r"(\d+)\s+(\d+\.\d+) (.*)")
HEX = r"(?:\\x[0-9a-f]{2})*"
TOKEN = re.compile(r'"(?P<text>%s)"(?P<cut>\.\.\.)?'
                   r"|(?P<fd>AT_FDCWD|-?\d+)<(?P<path>[^>]*)>(?P<gone>\(deleted\))?"
                   r"|(?P<word>[^,\s\[\]{}()]+)" % HEX)


def plain(text):
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


class Event:
    """A call that succeeded; begin: where it stands among all lines, as end does."""

    def __init__(self, tid, name, args, ret, begin, end, at):
        self.tid, self.name, self.ret = tid, name, ret
        self.begin, self.end, self.at = begin, end, at
        self.texts, self.fds, self.words = [], [], []
        for m in TOKEN.finditer(args):
            assert not m["cut"], "a write of more than LONGEST"
            if m["text"] is not None:
                self.texts.append(plain(m["text"]))
            elif m["fd"] is not None:
                self.fds.append((m["fd"], plain(m["path"]), bool(m["gone"])))
            else:
                self.words.append(m["word"])

    def __repr__(self):
        return "%s(%s)" % (self.name, ", ".join(
            [os.fsdecode(p) for _, p, _ in self.fds] +
            [os.fsdecode(t[:400]) for t in self.texts] + self.words))


def events(trace):
    """Of a trace, in the order in which they ended."""
    open_calls, out = {}, []
    with open(trace, encoding="latin-1") as f:
        for n, line in enumerate(f):
            m = LINE.match(line)
            if not m:
                continue
            tid, at, text = int(m[1]), float(m[2]), m[3]
            if text.endswith("<unfinished ...>"):
                open_calls[tid] = n, text[:-len("<unfinished ...>")]
                continue
            begin = n
            m = re.match(r"<\.\.\. \w+ resumed>(.*)", text)
            if m:
                begin, first = open_calls.pop(tid)
                text = first + m[1]
            m = re.match(r"(\w+)\((.*)\)\s+= (\d+)(?:<.*>)?(?: .*)?$", text)
            if m:
                out.append(Event(tid, m[1], m[2], int(m[3]), begin, n, at))
    return out


class Recorder:
    """Traces processes that run, from now until stop(); they rest until they are traced.
    roots: the directories; where: a new one, for what they were and for the trace."""

    def __init__(self, pids, roots, where):
        os.mkdir(where)
        self.trace = os.path.join(where, "trace")
        self.before = {r: os.path.join(where, str(i)) for i, r in enumerate(roots)}
        for root, copy in self.before.items():
            shutil.copytree(root, copy, symlinks=True, ignore=lambda d, names: [
                n for n in names if stat.S_ISSOCK(os.lstat(os.path.join(d, n)).st_mode)])
        self.threads = {int(t): p for p in pids for t in os.listdir("/proc/%d/task" % p)}
        argv = ["strace", "-f", "-ttt", "-y", "-xx", "-s", str(LONGEST), "-e", "trace=" + CALLS,
                "-e", "signal=none", "-o", self.trace]
        for p in pids:
            argv += ["-p", str(p)]
        self.p = subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True)
        left = set(self.threads)
        deadline = time.monotonic() + 30
        while left:
            assert time.monotonic() < deadline and self.p.poll() is None, "strace: %s" % left
            for t in list(left):
                try:
                    with open("/proc/%d/status" % t, encoding="ascii") as f:
                        if re.search(r"^TracerPid:\s*[1-9]", f.read(), re.M):
                            left.discard(t)
                except OSError:
                    left.discard(t)
            time.sleep(0.01)

    def disks(self):
        """As they were before."""
        return [Disk(copy, self.threads, root) for root, copy in self.before.items()]

    def stop(self):
        self.p.send_signal(signal.SIGINT)
        self.p.wait(timeout=30)
        out = events(self.trace)
        # A thread may be quicker than the answer to who made it.
        for e in sorted((e for e in out if e.name.startswith("clone")), key=lambda e: e.begin):
            if "CLONE_THREAD" in " ".join(e.words):
                self.threads[e.ret] = self.threads.get(e.tid, e.tid)
        return out

    def check(self, happened):
        """After all events the model has what the directories have."""
        disks = self.disks()
        for _ in cuts(disks, happened):
            pass
        wrong = [x for d in disks for x in d.differences()]
        assert not wrong, "\n".join(wrong)


class Node:
    def __init__(self, kind, mode):
        self.kind, self.mode = kind, mode
        self.data = bytearray()  # of a file: as programs see it,
        self.synced = b""        # and as of its last fsync;
        self.writes = []         # since then: (at, bytes), or (size, None)
        self.names, self.durable = {}, {}


def write_to(data, at, b):
    if b is None:
        del data[at:]
        data.extend(bytes(at - len(data)))
        return
    if len(data) < at:
        data.extend(bytes(at - len(data)))
    data[at:at + len(b)] = b


class Disk:
    """before: a copy of the directory; threads: {tid: pid}; root: where it is."""

    def __init__(self, before, threads, root):
        self.root = os.fsencode(root)
        self.threads = dict(threads)
        self.linked = {}    # (device, inode): those with several names
        self.offsets = {}   # (pid, fd): offset, or None for O_APPEND
        self.gone = {}      # path: what was there last
        self.pending = []   # changes of names: [(directory, name, node or None), ...]
        self.at_begin = {}  # fsyncs that run
        self.top = self._load(os.fsencode(before))
        self.committed = self._all_names()

    def _load(self, path):
        st = os.lstat(path)
        if stat.S_ISDIR(st.st_mode):
            n = Node("d", stat.S_IMODE(st.st_mode))
            for name in os.listdir(path):
                x = self._load(os.path.join(path, name))
                if x:
                    n.names[name] = x
            n.durable = dict(n.names)
            return n
        if stat.S_ISLNK(st.st_mode):
            return self._link_to(os.readlink(path))
        if not stat.S_ISREG(st.st_mode):
            return None  # a socket
        key = st.st_dev, st.st_ino
        if key in self.linked:
            return self.linked[key]
        n = Node("f", stat.S_IMODE(st.st_mode))
        with open(path, "rb") as f:
            n.synced = f.read()
        n.data = bytearray(n.synced)
        if st.st_nlink > 1:
            self.linked[key] = n
        return n

    @staticmethod
    def _link_to(target):
        n = Node("l", 0o777)
        n.data, n.synced = bytearray(target), target
        return n

    # -- names

    def _inside(self, path):
        path = os.path.normpath(path)
        if path == self.root:
            return []
        if path.startswith(self.root + b"/"):
            return path[len(self.root) + 1:].split(b"/")
        return None

    def _find(self, path):
        n, parts = self.top, self._inside(path)
        if parts is None:
            return None
        for p in parts:
            n = n.names.get(p) if n.kind == "d" else None
            if n is None:
                return None
        return n

    def _of_fd(self, fd):
        _, path, gone = fd
        return self.gone.get(path) if gone else self._find(path)

    def _paths(self, e):
        """The full path of each name, by the directories before them."""
        out, dirs = [], [p for _, p, _ in e.fds]
        for i, t in enumerate(e.texts):
            if t.startswith(b"/"):
                out.append(t)
            elif dirs:
                out.append(os.path.join(dirs[min(i, len(dirs) - 1)], t))
            else:
                out.append(b"?")
        return out

    def _change(self, *parts):
        """parts: (path, node or None); one transaction."""
        done = []
        for path, node in parts:
            where = self._find(os.path.dirname(path))
            if where is None:
                continue
            name = os.path.basename(path)
            old = where.names.get(name)
            if node is None:
                where.names.pop(name, None)
            else:
                where.names[name] = node
            if old is not None and old is not node:
                self.gone[path] = old
            done.append((where, name, node))
        if done:
            self.pending.append(done)

    def _all_names(self):
        out, todo = {}, [self.top]
        while todo:
            n = todo.pop()
            if n.kind == "d" and n not in out:
                out[n] = dict(n.names)
                todo += n.names.values()
        return out

    # -- calls

    def begin(self, e):
        """An fsync sees what was there when it began."""
        if e.name in ("fsync", "fdatasync") and e.fds:
            n = self._of_fd(e.fds[0])
            if n is not None:
                self.at_begin[e] = (n, bytes(n.data), len(n.writes), self._all_names(),
                                    len(self.pending))

    def end(self, e):
        """True when the disk has changed by it."""
        f = getattr(self, "_" + {"pwrite64": "pwrite", "fdatasync": "fsync", "open": "openat",
                                 "creat": "openat", "renameat": "rename", "renameat2": "rename",
                                 "linkat": "link", "unlinkat": "unlink", "rmdir": "unlink",
                                 "mkdirat": "mkdir", "symlinkat": "symlink", "clone3": "clone"}.get(e.name, e.name), None)
        return bool(f and f(e))

    def _pid(self, tid):
        return self.threads.setdefault(tid, tid)

    def _clone(self, e):
        child, parent = self._pid(e.ret), self._pid(e.tid)
        if child != parent:  # it has the same descriptors
            for (p, fd), at in list(self.offsets.items()):
                if p == parent:
                    self.offsets.setdefault((child, fd), at)

    _fork = _vfork = _clone

    def _openat(self, e):
        flags = " ".join(e.words)
        self.offsets[self._pid(e.tid), str(e.ret)] = None if "O_APPEND" in flags else 0
        path = self._paths(e)[-1]
        if self._inside(path) is None or "O_DIRECTORY" in flags or "O_TMPFILE" in flags:
            return False
        n = self._find(path)
        if n is None and ("O_CREAT" in flags or e.name == "creat"):
            n = Node("f", int(e.words[-1], 8))
            self._change((path, n))
            return True
        if n is not None and n.kind == "f" and ("O_TRUNC" in flags or e.name == "creat"):
            self._put(n, 0, None)
            return True
        return False

    @staticmethod
    def _put(n, at, b):
        write_to(n.data, at, b)
        n.writes.append((at, b))
        return True

    def _write(self, e):
        n = self._of_fd(e.fds[0])
        if n is None or n.kind != "f":
            return False
        key = self._pid(e.tid), e.fds[0][0]
        at = self.offsets.get(key)
        if at is None:
            at = len(n.data)
        else:
            self.offsets[key] = at + e.ret
        return self._put(n, at, b"".join(e.texts)[:e.ret])

    _writev = _write

    def _pwrite(self, e):
        n = self._of_fd(e.fds[0])
        return n is not None and n.kind == "f" and self._put(
            n, int(e.words[-1]), b"".join(e.texts)[:e.ret])

    def _pwritev(self, e):
        return self._pwrite(e)

    def _other(self, e):
        """Calls that the daemons do not make on these files, or the model must learn them."""
        assert not any(self._inside(p) is not None for _, p, _ in e.fds[1:] or e.fds), e

    _pwritev2 = _copy_file_range = _splice = _truncate = _other

    def _symlink(self, e):
        target, path = e.texts[0], self._paths(e)[1]
        if self._inside(path) is None:
            return False
        self._change((path, self._link_to(target)))
        return True

    def _sendfile(self, e):
        assert self._inside(e.fds[0][1]) is None, e

    def _mmap(self, e):
        assert "MAP_SHARED" not in " ".join(e.words) or "PROT_WRITE" not in " ".join(e.words) or \
            not e.fds or self._inside(e.fds[0][1]) is None, e

    def _syncfs(self, _):
        """Of all that there is."""
        self.committed = self._all_names()
        todo = list(self.committed)
        for n in todo:
            n.durable = dict(n.names)
            for x in n.names.values():
                x.synced, x.writes = bytes(x.data), []
        self.pending = []
        return True

    def _lseek(self, e):
        key = self._pid(e.tid), e.fds[0][0]
        if self.offsets.get(key) is not None:
            self.offsets[key] = e.ret

    def _ftruncate(self, e):
        n = self._of_fd(e.fds[0])
        return n is not None and self._put(n, int(e.words[-1]), None)

    def _fallocate(self, e):
        n = self._of_fd(e.fds[0])
        if n is None or "KEEP_SIZE" in " ".join(e.words):
            return False
        size = int(e.words[-2]) + int(e.words[-1])
        return size > len(n.data) and self._put(n, size, None)

    def _mkdir(self, e):
        path = self._paths(e)[0]
        if self._inside(path) is None:
            return False
        self._change((path, Node("d", int(e.words[-1], 8) & 0o700)))
        return True

    def _unlink(self, e):
        path = self._paths(e)[0]
        if self._inside(path) is None:
            return False
        self._change((path, None))
        return True

    def _link(self, e):
        a, b = self._paths(e)
        if self._inside(b) is None:
            return False
        self._change((b, self._find(a)))
        return True

    def _rename(self, e):
        a, b = self._paths(e)
        if self._inside(b) is None and self._inside(a) is None:
            return False
        n = self._find(a)
        assert n is not None and "EXCHANGE" not in " ".join(e.words), e
        if n is not self._find(b):
            self._change((b, n), (a, None))
        return True

    def _fsync(self, e):
        if e not in self.at_begin:
            return False
        n, data, writes, names, pending = self.at_begin.pop(e)
        self.committed = names
        if n.kind == "f":
            n.synced = data
            del n.writes[:writes]
        first, rest = self.pending[:pending], self.pending[pending:]
        left = []
        for change in first:
            if not any(n in (d, node) for d, _, node in change):
                left.append(change)
                continue
            for d, name, node in change:
                if node is None:
                    d.durable.pop(name, None)
                else:
                    d.durable[name] = node
                # What was to come to that name before has been overtaken.
                left = [[x for x in c if (x[0], x[1]) != (d, name)] for c in left]
        self.pending = [c for c in left if c] + rest
        return True

    # -- what is left

    def _content(self, n, way):
        if way == "all":
            return bytes(n.data)
        if way in ("commit", "names", "strict") or not n.writes:
            return n.synced
        out = bytearray(n.synced)
        for at, b in n.writes[:(len(n.writes) + 1) // 2] if way == "torn" else []:
            write_to(out, at, b)
        if way == "zeros":
            write_to(out, len(n.data), None)
        return bytes(out)

    def _names(self, n, way):
        return n.durable if way == "strict" else \
            self.committed.get(n, {}) if way == "commit" else n.names

    def digest(self, way):
        """Of what write() would write."""
        h = hashlib.sha256()

        def add(n):
            if n.kind != "d":
                h.update(b"f%d\n" % len(self._content(n, way)) + self._content(n, way))
                return
            names = self._names(n, way)
            h.update(b"d%d\n" % len(names))
            for name in sorted(names):
                h.update(name + b"\n")
                add(names[name])
        add(self.top)
        return h.digest()

    def write(self, way, where):
        """A new directory with what the disk holds."""
        if os.path.exists(where):
            shutil.rmtree(where)
        self._write_node(self.top, way, os.fsencode(where), {})

    def _write_node(self, n, way, path, written):
        if n in written:  # a hard link
            os.link(written[n], path)
            return
        if n.kind == "l":
            os.symlink(bytes(n.data), path)
            return
        if n.kind == "f":
            written[n] = path
            with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as f:
                f.write(self._content(n, way))
            os.chmod(path, n.mode)
            return
        os.mkdir(path, 0o700)
        for name, x in self._names(n, way).items():
            self._write_node(x, way, os.path.join(path, name), written)
        os.chmod(path, n.mode)

    def differences(self):
        """From the directory as it is: what the model got wrong."""
        other = Disk(self.root, {}, self.root)
        out = []

        def look(a, b, path):
            for name in sorted(set(a.names) | set(b.names)):
                x, y, at = a.names.get(name), b.names.get(name), os.path.join(path, name)
                if x is None or y is None or x.kind != y.kind:
                    out.append("%s: %s, %s in the model" % (os.fsdecode(at), y and y.kind,
                                                            x and x.kind))
                elif x.kind == "d":
                    look(x, y, at)
                elif x.data != y.data:
                    out.append("%s: %d bytes, %d in the model" % (os.fsdecode(at), len(y.data),
                                                                  len(x.data)))
        look(self.top, other.top, b"")
        return out


def cuts(disks, happened):
    """Each event that changed one of the disks, which are then as it left them."""
    steps = sorted([(e.begin, 0, e) for e in happened] + [(e.end, 1, e) for e in happened],
                   key=lambda x: x[:2])
    for _, ended, e in steps:
        if not ended:
            for d in disks:
                d.begin(e)
        elif any([d.end(e) for d in disks]):
            yield e
