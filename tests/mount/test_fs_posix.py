# SPDX-License-Identifier: Apache-2.0
"""What POSIX asks of the calls that make, name and remove files, in every place
that can be written: the groups of pjdfstest, written anew for our trees.

Left out, because a tree answers one of them in the same way everywhere, which
test_what_is_made_nowhere sees: link (no hard links), mkfifo and mknod of
devices and sockets, symlink (but in a table's parents/), chflags and rename
with RENAME_EXCHANGE or RENAME_WHITEOUT.  Left out, because it is not kept
here: modes, owners, set-id and sticky bits of files (docs/mount.md; those of
tables are in test_fs_programs.py), the ctime that a call leaves, holes and
fallocate, ENOSPC (test_disk_full.py), EROFS (test_fs_load.py), ETXTBSY,
quotas, and mount points in the way.  granular and nfsv4 ACLs do not exist.
ELOOP and symlinks in a path are the kernel's: no tree has directories behind
links."""
import ctypes
import errno
import os
import re
import socket
import stat
import time

import pytest

# Where, and what names begin with.
PLACES = {"table": ("tables/posix/t", "."), "sent": ("federation/10000/posix", ""),
          "kept": ("federation/10000/.posix", ""), "party": ("parties/10000", ".")}
FOLDERS = ("table", "sent", "kept")
# Names that cannot be made: no file there, no file at all.
CLOSED = ("", "jobs", "tables", "tables/posix", "tables/posix/t", "models", "parties",
          "components", "federation", "federation/10000/inbox", "federation/10000/pull")


@pytest.fixture(scope="module")
def p(sandboxes):
    p = sandboxes("9999", "10000")["9999"]
    p.upload("posix", "t", "id,v\n1,2\n")
    os.makedirs(p.path("federation/10000/.posix"))
    return p


class Place:
    def __init__(self, directory, prefix):
        self.dir, self.prefix, self.made = directory, prefix, 0

    def name(self, name=None):
        self.made += 1
        return os.path.join(self.dir, self.prefix + (name or "n%d" % self.made))

    def file(self, text=b""):
        path = self.name()
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        if text:
            os.write(fd, text)
        os.close(fd)
        return path

    def folder(self):
        path = self.name()
        os.mkdir(path)
        return path


@pytest.fixture(params=PLACES)
def place(p, request):
    where, prefix = PLACES[request.param]
    name = re.sub(r"\W", "", request.node.name.replace("test_", ""))
    if request.param in ("sent", "kept"):
        where = os.path.join(where, name)
        os.makedirs(p.path(where), exist_ok=True)
    yield Place(p.path(where), prefix + (name if prefix else ""))
    for x in os.listdir(p.path(where)):
        if x.startswith("." + name):
            remove(p.path(where, x))


@pytest.fixture(params=FOLDERS)
def folders(p, request):
    where, prefix = PLACES[request.param]
    name = re.sub(r"\W", "", request.node.name.replace("test_", "")) + "d"
    if not prefix:
        where = os.path.join(where, name)
        os.makedirs(p.path(where), exist_ok=True)
    return Place(p.path(where), prefix + (name if prefix else ""))


def remove(path):
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for x in os.listdir(path):
            remove(os.path.join(path, x))
        os.rmdir(path)
    else:
        os.unlink(path)


def refused(call, *args, **kw):
    with pytest.raises(OSError) as e:
        call(*args, **kw)
    return errno.errorcode[e.value.errno]


def make(path, flags=0):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | flags, 0o644))


# ---- open, creat --------------------------------------------------------------

def test_open_makes_what_is_missing_and_nothing_else(place):
    f = place.name()
    assert refused(os.open, f, os.O_RDONLY) == "ENOENT"
    assert refused(os.open, f, os.O_WRONLY) == "ENOENT"
    make(f, os.O_EXCL)
    assert stat.S_ISREG(os.lstat(f).st_mode) and os.stat(f).st_size == 0
    assert refused(make, f, os.O_EXCL) == "EEXIST"
    make(f)
    assert refused(os.open, f, os.O_RDONLY | os.O_DIRECTORY) == "ENOTDIR"
    assert refused(os.open, f + "/x", os.O_RDONLY) == "ENOTDIR"
    assert refused(make, f + "/x") == "ENOTDIR"
    assert refused(os.stat, f + "/") == "ENOTDIR"


def test_open_truncates_and_appends(place):
    f = place.file(b"0123456789")
    fd = os.open(f, os.O_WRONLY | os.O_APPEND)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"ab")
    os.close(fd)
    with open(f, "rb") as x:
        assert x.read() == b"0123456789ab"
    os.close(os.open(f, os.O_WRONLY | os.O_TRUNC))
    assert os.stat(f).st_size == 0


def test_open_of_a_folder(folders):
    d = folders.folder()
    for flags in os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC:
        assert refused(os.open, d, flags) == "EISDIR"
    assert refused(make, d) == "EISDIR"
    assert refused(make, d, os.O_EXCL) == "EEXIST"
    fd = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
    assert refused(os.read, fd, 1) == "EISDIR"
    os.close(fd)


def test_names_have_255_bytes_at_most(place):
    room = 255 - len(place.prefix)
    longest, longer = place.name("x" * room), place.name("x" * (room + 1))
    make(longest)
    assert refused(make, longer) == "ENAMETOOLONG"
    for call in os.mkdir, os.unlink, os.rmdir, os.stat, os.mkfifo:
        assert refused(call, longer) == "ENAMETOOLONG"
    assert refused(os.rename, longest, longer) == "ENAMETOOLONG"
    assert refused(os.rename, longer, longest) == "ENAMETOOLONG"
    assert refused(os.truncate, longer, 0) == "ENAMETOOLONG"
    os.unlink(longest)
    assert refused(os.stat, place.dir + "/" + "a/" * 2100) == "ENAMETOOLONG"


# ---- mkdir, rmdir ---------------------------------------------------------------

def test_mkdir(folders):
    d = folders.folder()
    assert stat.S_ISDIR(os.lstat(d).st_mode) and os.listdir(d) == []
    assert refused(os.mkdir, d) == "EEXIST"
    f = folders.file()
    assert refused(os.mkdir, f) == "EEXIST"
    assert refused(os.mkdir, f + "/x") == "ENOTDIR"
    assert refused(os.mkdir, folders.name() + "/x") == "ENOENT"
    for again in ".", "..":
        assert refused(os.mkdir, os.path.join(d, again)) == "EEXIST"


def test_rmdir(folders):
    d = folders.folder()
    inner = os.path.join(d, "x")
    make(inner)
    assert refused(os.rmdir, d) == "ENOTEMPTY"
    assert refused(os.rmdir, inner) == "ENOTDIR"
    assert refused(os.rmdir, inner + "/y") == "ENOTDIR"
    os.unlink(inner)
    os.mkdir(inner)
    assert refused(os.rmdir, d) == "ENOTEMPTY"
    os.rmdir(inner)
    assert refused(os.rmdir, d + "/.") == "EINVAL"
    assert refused(os.rmdir, d + "/..") in ("ENOTEMPTY", "EINVAL")
    os.rmdir(d)
    assert refused(os.rmdir, d) == "ENOENT"
    assert refused(os.rmdir, d + "/x") == "ENOENT"


# ---- unlink ---------------------------------------------------------------------

def test_unlink(place):
    f = place.file(b"abc")
    assert refused(os.unlink, f + "/x") == "ENOTDIR"
    fd = os.open(f, os.O_RDONLY)
    os.unlink(f)
    assert refused(os.lstat, f) == "ENOENT"
    assert refused(os.unlink, f) == "ENOENT"
    assert os.fstat(fd).st_nlink == 0 and os.pread(fd, 10, 0) == b"abc"
    make(f, os.O_EXCL)  # another file
    assert os.stat(f).st_size == 0 and os.pread(fd, 10, 0) == b"abc"
    os.close(fd)


def test_unlink_of_a_folder(folders):
    d = folders.folder()
    assert refused(os.unlink, d) == "EISDIR"
    assert os.path.isdir(d)


# ---- rename ----------------------------------------------------------------------

def test_rename_of_files(place):
    a, b, missing = place.file(b"a"), place.file(b"bb"), place.name()
    os.rename(a, a)
    assert os.stat(a).st_size == 1
    assert refused(os.rename, missing, a) == "ENOENT"
    assert refused(os.rename, a, missing + "/x") in ("ENOENT", "EPERM")
    assert refused(os.rename, a + "/x", b) == "ENOTDIR"
    assert refused(os.rename, a, b + "/x") == "ENOTDIR"
    fd = os.open(b, os.O_RDONLY)
    os.rename(a, b)
    assert refused(os.lstat, a) == "ENOENT"
    with open(b, "rb") as f:
        assert f.read() == b"a"
    assert os.pread(fd, 10, 0) == b"bb" and os.fstat(fd).st_nlink == 0
    os.close(fd)


def test_rename_of_files_and_folders(folders):
    f, d = folders.file(), folders.folder()
    assert refused(os.rename, f, d) == "EISDIR"
    assert refused(os.rename, d, f) == "ENOTDIR"
    assert refused(os.rename, d, d + "/x") == "EINVAL"
    if "tables" in d:  # into a folder under a temporary name: mv copies
        assert refused(os.rename, f, d + "/f") == "EXDEV"
        make(d + "/f")
    else:
        os.rename(f, d + "/f")
        assert os.listdir(d) == ["f"]
    full = folders.folder()
    make(full + "/x")
    assert refused(os.rename, full, d) in ("ENOTEMPTY", "EXDEV")  # mv copies what is sent
    assert refused(os.rename, full, folders.file()) == "ENOTDIR"
    assert refused(os.rename, d, d + "/.") in ("EBUSY", "EINVAL")


RENAMEAT2 = ctypes.CDLL(None, use_errno=True).renameat2


def renameat2(a, b, flags):
    if RENAMEAT2(-100, os.fsencode(a), -100, os.fsencode(b), flags):
        raise OSError(ctypes.get_errno(), a)


def test_rename_that_replaces_nothing_and_that_exchanges(place):
    a, b, c = place.file(b"a"), place.file(b"b"), place.name()
    assert refused(renameat2, a, b, 1) == "EEXIST"
    renameat2(a, c, 1)
    assert os.path.exists(c) and not os.path.exists(a)
    assert refused(renameat2, b, c, 2) == "EINVAL"
    with open(b, "rb") as f:
        assert f.read() == b"b"


# ---- truncate ----------------------------------------------------------------------

@pytest.mark.parametrize("by", ["path", "descriptor"])
def test_truncate(place, by):
    f = place.file(b"0123456789")
    fd = os.open(f, os.O_RDWR)
    what = f if by == "path" else fd
    for size in 10000, 4096, 3, 0, 1:
        with open(f, "rb") as x:
            before = x.read()
        os.truncate(what, size)
        assert os.stat(f).st_size == size
        if by == "path":  # a sent file is another one now; who has it open keeps the former
            with open(f, "rb") as x:
                data = x.read()
        else:
            assert os.fstat(fd).st_size == size
            data = os.pread(fd, size + 1, 0)
        assert len(data) == size and data.startswith(before[:size])
        assert not data[len(before):].strip(b"\0")
    assert refused(os.truncate, what, -1) == "EINVAL"
    os.close(fd)
    assert refused(os.truncate, f + "/x", 0) == "ENOTDIR"
    assert refused(os.truncate, place.name(), 0) == "ENOENT"
    fd = os.open(f, os.O_RDONLY)
    assert refused(os.truncate, fd, 0) == "EINVAL"
    os.close(fd)


def test_truncate_of_a_folder(folders):
    assert refused(os.truncate, folders.folder(), 0) == "EISDIR"


# ---- utimensat, chmod, chown ---------------------------------------------------------

def test_utimensat_has_nanoseconds_and_leaves_out(place):
    f = place.file(b"x")
    os.utime(f, ns=(1000000001, 2000000003))
    assert os.stat(f).st_mtime_ns == 2000000003
    os.utime(f, ns=(0, (1 << 32) * 10 ** 9 + 7))  # beyond 2038 and 2106
    assert os.stat(f).st_mtime_ns == (1 << 32) * 10 ** 9 + 7
    before = time.time()
    os.utime(f)
    assert before - 1 < os.stat(f).st_mtime < time.time() + 1
    assert refused(os.utime, place.name()) == "ENOENT"
    assert refused(os.utime, f + "/x") == "ENOTDIR"
    fd = os.open(f, os.O_WRONLY)
    os.utime(fd, ns=(5, 6))
    assert os.fstat(fd).st_mtime_ns == 6
    os.close(fd)


def test_chmod_and_chown_are_no_errors_and_not_kept(place):
    """But for the mode of what may become a table's data."""
    f = place.file()
    was = os.stat(f)
    os.chmod(f, 0o400)
    os.chown(f, 65534, 65534)
    now = os.stat(f)
    assert stat.S_IMODE(now.st_mode) == (0o400 if "/tables/" in f else stat.S_IMODE(was.st_mode))
    assert (now.st_uid, now.st_gid) == (was.st_uid, was.st_gid)
    for call, args in (os.chmod, (0o600,)), (os.chown, (0, 0)):
        assert refused(call, f + "/x", *args) == "ENOTDIR"
        assert refused(call, place.name(), *args) == "ENOENT"


# ---- tables and namespaces, which are folders of their own kind ------------------------

def test_tables_and_namespaces_as_folders(p):
    ns, other = p.path("tables/posix_ns"), p.path("tables/posix_other")
    os.mkdir(ns)
    assert refused(os.mkdir, ns) == "EEXIST"
    os.mkdir(ns + "/a")
    assert refused(os.mkdir, ns + "/a") == "EEXIST"
    assert refused(os.rmdir, ns) == "ENOTEMPTY"
    assert refused(os.unlink, ns) == refused(os.unlink, ns + "/a") == "EISDIR"
    assert refused(os.rename, ns, ns + "/b") == "EINVAL"
    assert refused(os.rename, ns + "/a", ns + "/a/b") == "EINVAL"
    assert refused(os.rename, ns + "/missing", ns + "/b") == "ENOENT"
    assert refused(os.rename, p.path("tables/posix/t/data.csv"), ns + "/a/x") in ("EXDEV", "EPERM")
    assert refused(os.mkdir, ns + "/" + "x" * 256) == "ENAMETOOLONG"
    assert refused(os.mkdir, p.path("tables", "x" * 256)) == "ENAMETOOLONG"
    assert refused(os.mkdir, p.path("tables/posix_missing/x")) == "ENOENT"
    os.mkdir(other)
    os.mkdir(other + "/b")
    assert refused(os.rename, ns, other) == "ENOTEMPTY"
    os.rename(other + "/b", ns + "/a")  # over an empty one
    assert os.listdir(ns) == ["a"]
    os.rename(ns, other)
    assert refused(os.lstat, ns) == "ENOENT" and os.listdir(other) == ["a"]
    assert refused(os.rmdir, other + "/a/.") == "EINVAL"
    os.rmdir(other + "/a")
    os.rmdir(other)
    assert refused(os.rmdir, other) == "ENOENT"


def test_the_data_of_a_table(p):
    d = p.path("tables/posix/t/")
    assert refused(make, d + "data.csv", os.O_EXCL) == "EEXIST"
    assert refused(os.mkdir, d + "data.csv") == "EEXIST"
    assert refused(os.rmdir, d + "data.csv") == "ENOTDIR"
    assert refused(os.open, d + "data.csv/x", os.O_RDONLY) == "ENOTDIR"
    assert refused(os.truncate, d + "data.csv", -1) == "EINVAL"
    for size in 1, 9:
        assert refused(os.truncate, d + "data.csv", size) == "EPERM"
    assert p.read("tables/posix/t/data.csv") == "id,v\n1,2\n"


# ---- what is made nowhere ----------------------------------------------------------------

@pytest.mark.parametrize("where", CLOSED)
def test_what_is_made_nowhere(p, where):
    d = p.path(where)
    listed = os.listdir(d)
    x = os.path.join(d, "posix_x")
    assert refused(make, x) in ("EPERM", "EACCES", "EINVAL")
    no = ("EPERM", "EACCES", "EEXIST" if "pull" in where else "")  # each name is found there
    assert refused(os.mkfifo, x) in no
    assert refused(os.mknod, x, stat.S_IFCHR | 0o600, os.makedev(1, 3)) in no
    assert refused(os.symlink, "a", x) in no
    assert refused(os.link, p.path("version"), x) in no
    with socket.socket(socket.AF_UNIX) as s, pytest.raises(OSError):
        os.chdir(d)
        s.bind("posix_x")
    os.chdir("/")
    assert os.listdir(d) == listed
    lines = p.read("errors").splitlines()
    assert "posix_x" in lines[0], lines[:2]


@pytest.mark.parametrize("where", PLACES)
def test_no_special_files_where_files_are_made(p, where):
    top, prefix = PLACES[where]
    x, f = p.path(top, prefix + "x"), p.path(top, prefix + "real")

    def told(words):
        lines = p.read("errors").splitlines()
        assert "/%sx: " % prefix in lines[0] and words in lines[1], lines[:2]
    os.makedirs(p.path(top), exist_ok=True)
    make(f)
    assert refused(os.mkfifo, x) == "EPERM"
    told("no pipe")
    assert refused(os.mknod, x, stat.S_IFBLK | 0o600, os.makedev(7, 0)) == "EPERM"
    assert refused(os.symlink, "a", x) == "EPERM"
    assert refused(os.link, f, x) == "EPERM"
    told("no hard links")
    os.mknod(x, stat.S_IFREG | 0o600)
    assert stat.S_ISREG(os.lstat(x).st_mode)
    os.unlink(x)
    os.unlink(f)
