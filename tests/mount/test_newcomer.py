# SPDX-License-Identifier: Apache-2.0
"""What somebody meets who sends files with a shell for the first time."""
import errno
import os
import subprocess

import pytest
from conftest import eventually, read


def shell(text, *args, code=0):
    r = subprocess.run(["bash", "-c", text, "-", *args], capture_output=True, text=True,
                       timeout=60, check=False)
    assert r.returncode == code, r.stderr
    return r.stdout + r.stderr


def got(p, party, name):
    path = p.path("federation", party, "inbox", name)
    return read(path) if os.path.exists(path) else None


@pytest.mark.parametrize("how", [">", ">>"])
def test_an_empty_file_never_replaces_what_was_written_after_it(two, how):
    """: >f hands over late; it used to win now and then."""
    n = 60
    name = "after" + how.replace(">", "w")
    base = two[9999].path("federation/10000", name)
    shell('for i in $(seq $2); do : >"$1$i"; echo $i %s"$1$i"; sync "$1$i"; done' % how,
          base, str(n))
    wrong = [i for i in range(1, n + 1) if read("%s%d" % (base, i)) != "%d\n" % i]
    assert wrong == []
    for i in range(1, n + 1):
        eventually(lambda i=i: got(two[10000], "9999", "%s%d" % (name, i)) == "%d\n" % i)


def test_an_empty_file_can_be_synced_at_once(two):
    base = two[9999].path("federation/10000/empty")
    shell('for i in $(seq 40); do : >"$1$i"; sync "$1$i" || exit 1; done', base)
    assert all(got(two[10000], "9999", "empty%d" % i) == "" for i in range(1, 41))


def test_a_file_that_is_written_for_the_first_time_can_be_read(two):
    path = two[9999].path("federation/10000/growing")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"so far\n")
    assert read(path) == "so far\n"
    os.close(fd)
    eventually(lambda: got(two[10000], "9999", "growing") == "so far\n")


def test_a_failed_sync_is_explained_in_errors(sandboxes):
    s = sandboxes("1", "2")
    allow = s[2].path("parties/1/allow")
    for rules, why, no in (
            ("module *\n", "not allowed: parties/1/allow of party 2 has no 'push *'",
             errno.EACCES),
            ("push *\nlimit size 10\n", "larger than the 10 bytes allowed", errno.EFBIG)):
        with open(allow, "w", encoding="utf-8") as f:
            f.write(rules)
        fd = os.open(s[1].path("federation/2/no%d" % no), os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"more than ten bytes")
        with pytest.raises(OSError) as e:
            os.fsync(fd)
        os.close(fd)
        assert e.value.errno == no
        first, second = s[1].read("errors").splitlines()[:2]
        assert "federation/2/no%d: %s" % (no, os.strerror(no)) in first
        assert why in second


def test_a_wrong_party_id_is_named_in_errors(two):
    with pytest.raises(OSError):
        os.mkdir(two[9999].path("parties/bank"))
    assert "parties/bank: Invalid argument" in two[9999].read("errors")


def test_a_party_without_an_address_is_told_so(two):
    p = two[9999]
    os.mkdir(p.path("parties/77"))
    try:
        shell('echo x >"$1"', p.path("federation/77/x"))
        eventually(lambda: "parties/77/address is empty" in
                   os.getxattr(p.path("federation/77/x"), "user.rollfs.error").decode())
    finally:
        shell('rm -r "$1"', p.path("parties/77"))
