# SPDX-License-Identifier: Apache-2.0
"""Files from party to party."""
import errno
import hashlib
import os

import pytest
from conftest import eventually


def put(p, to, path, data):
    f = p.path("federation", to, path)
    os.makedirs(os.path.dirname(f), exist_ok=True)
    with open(f, "wb") as out:
        out.write(data)
    return f


def got(p, sender, path):
    f = p.path("federation", sender, "inbox", path)
    try:
        with open(f, "rb") as i:
            return i.read()
    except FileNotFoundError:
        return None


def test_what_one_writes_the_other_reads(two):
    put(two[9999], "10000", "f", b"hello\n")
    assert eventually(lambda: got(two[10000], "9999", "f")) == b"hello\n"


def test_paths_and_emptiness(two):
    put(two[9999], "10000", "a/b/c", b"deep")
    put(two[9999], "10000", "empty", b"")
    assert eventually(lambda: got(two[10000], "9999", "a/b/c")) == b"deep"
    eventually(lambda: got(two[10000], "9999", "empty") is not None)


def test_a_large_file_arrives_whole(two):
    data = os.urandom(1 << 20) * 24
    put(two[9999], "10000", "big", data)
    seen = eventually(lambda: got(two[10000], "9999", "big"), 30)
    assert hashlib.sha256(seen).digest() == hashlib.sha256(data).digest()


def test_fsync_returns_after_the_commit(two):
    fd = os.open(two[9999].path("federation/10000/sync"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"durable")
    os.fsync(fd)
    os.close(fd)
    assert got(two[10000], "9999", "sync") == b"durable"


def test_writing_again_replaces(two):
    put(two[9999], "10000", "r", b"one")
    eventually(lambda: got(two[10000], "9999", "r") == b"one")
    put(two[9999], "10000", "r", b"second")
    eventually(lambda: got(two[10000], "9999", "r") == b"second")


def test_the_sent_file_stays_readable_until_rm(two):
    f = put(two[9999], "10000", "keep", b"mine")
    eventually(lambda: got(two[10000], "9999", "keep"))
    with open(f, "rb") as i:
        assert i.read() == b"mine"
    os.unlink(f)
    assert not os.path.exists(f)


@pytest.mark.parametrize("name", ["x.tmp", ".hidden", "x~", "x.part", "x.swp"])
def test_unfinished_names_are_not_sent_until_renamed(two, name):
    f = put(two[9999], "10000", name, b"body " + name.encode())
    final = "final-" + "".join(c for c in name if c.isalpha())
    os.rename(f, two[9999].path("federation/10000", final))
    eventually(lambda: got(two[10000], "9999", final))
    assert got(two[10000], "9999", name) is None


@pytest.mark.parametrize("name", ["inbox", "pull"])
def test_reserved_names(two, name):
    with pytest.raises(OSError) as e:
        with open(two[9999].path("federation/10000", name), "w") as f:
            f.write("x")
    assert e.value.errno in (errno.EPERM, errno.EISDIR)


def test_transfers_say_what_happened(two):
    f = put(two[9999], "10000", "told", b"12345")
    eventually(lambda: got(two[10000], "9999", "told"))
    eventually(lambda: "told" in two[9999].read("parties/10000/transfers"))
    assert os.listxattr(f)


def test_a_party_that_may_not_push_is_refused(sandboxes):
    s = sandboxes("1", "2")
    with open(s[2].path("parties/1/allow"), "w") as f:
        f.write("module *\n")
    fd = os.open(s[1].path("federation/2/no"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"x")
    with pytest.raises(OSError) as e:
        os.fsync(fd)
    os.close(fd)
    assert e.value.errno == errno.EACCES
    assert got(s[2], "1", "no") is None
