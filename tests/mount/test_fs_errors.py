# SPDX-License-Identifier: Apache-2.0
"""Each refusal has its line in errors: which path, and what can be done."""
import errno
import os
import resource
import subprocess

import pytest
from conftest import SLOW

CSV = "id,x\n1,2\n"


@pytest.fixture(scope="module")
def p(sandboxes):
    p = sandboxes("9999", "10000")["9999"]
    p.upload("ns", "t", CSV)
    with open(p.path("federation/10000/sent"), "w", encoding="utf-8") as f:
        f.write("x\n")
    return p


def sh(p, script):
    return subprocess.run(["bash", "-c", script], cwd=p.mount, capture_output=True, text=True,
                          timeout=60 * SLOW, check=False)


def newest(p):
    lines = p.read("errors").splitlines()
    return (lines[0].split(" ", 1)[1], lines[1]) if lines else ("", "")


@pytest.mark.parametrize("command, path, words", [
    ("mv jobs/new x", "jobs/new", "it cannot be renamed to x"),
    ("rm jobs/new", "jobs/new", "it cannot be removed"),
    ("mkdir jobs/x", "jobs/x", "no such directory can be made"),
    ("rm version", "version", "it cannot be removed"),
    ("touch x", "x", "no such file can be made"),
    ("mkfifo tables/ns/t/x", "tables/ns/t/x", "no pipe, socket or device can be made"),
    ("ln tables/ns/t/data.csv tables/ns/t/x", "tables/ns/t/x", "there are no hard links"),
    ("ln -s t tables/ns/x", "tables/ns/x", "no symbolic link can be made"),
    ("mv tables/ns/t/data.csv tables/ns/t/x", "tables/ns/t/data.csv",
     "it cannot be renamed to tables/ns/t/x"),
    ("mkdir tables/ns/a%b", "tables/ns/a%b", "%25 stands for a percent sign"),
    ("mkdir tables/.hidden", "tables/.hidden", "%2E for a dot in front"),
    ("mv tables/ns tables/.ns", "tables/.ns", "%2E for a dot in front"),
    ("mv tables/ns/t tables/ns/t%", "tables/ns/t%", "%25 stands for a percent sign"),
    ("mkdir tables/ns/t/x", "tables/ns/t/x", "a table's rows are its data.csv"),
    ("touch tables/ns/x", "tables/ns/x", "a table is a directory"),
    ("truncate -s 1 tables/ns/t/data.csv", "tables/ns/t/data.csv", "it cannot be changed so"),
    ("setfattr -n user.x -v 1 tables/ns/t/count", "tables/ns/t/count",
     "such an attribute cannot be set"),
    ("setfattr -n user.x -v 1 jobs", "jobs", "such an attribute cannot be set"),
    ("mv federation/10000 federation/x", "federation/10000", "renamed to federation/x"),
    ("rmdir federation/10000", "federation/10000", "it cannot be removed"),
    ("rmdir federation/10000/inbox", "federation/10000/inbox", "inbox and pull are not yours"),
    ("ln -s x federation/10000/x", "federation/10000/x", "links are not sent"),
    ("mkdir federation/5", "federation/5", "no such directory can be made"),
    ("rm parties/10000/allow", "parties/10000/allow", "it cannot be removed"),
    ("mv parties/10000 parties/3", "parties/10000", "renamed to parties/3"),
    ("touch components/x", "components/x", "no such file can be made"),
    ("mkdir models/x", "models/x", "expected the id of a model"),
])
def test_what_is_refused_is_explained(p, command, path, words):
    r = sh(p, command)
    assert r.returncode and r.stderr
    what, text = newest(p)
    assert what.startswith(path + ": ") and words in text, (what, text)


@pytest.mark.parametrize("command", [
    "mkdir tables", "mkdir -p tables/ns/t", "rmdir tables/ns", "cat tables/nothing", "ls nothing",
    "rm tables/ns/t", "mv tables/ns/t/data.csv federation/10000/moved",
    "getfattr -n user.x tables/ns/t", "cat tables/ns/t/data.csv/x"])
def test_errors_that_programs_ask_for_are_not_told(p, command):
    p.upload("ns", "t", CSV)
    before = p.read("errors")
    sh(p, command)
    assert p.read("errors") == before


@pytest.fixture(scope="module")
def full(sandboxes):
    """A mount whose state has no block left on its disk."""
    s = sandboxes("1", "2")
    p = s["1"]
    p.kill("rollfs")
    p.kill("rollsite")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "rollfs-test", p.state],
                   check=True)
    try:
        p.start()
        for name in ("t", "u", "v"):
            p.upload("ns", name, CSV)
        os.mkdir(p.path("federation/2/folder"))
        room = os.statvfs(p.state)
        assert room.f_blocks * room.f_frsize == 8 << 20
        with open(os.path.join(p.state, "fill"), "wb", buffering=0) as f:
            with pytest.raises(OSError):
                while f.write(bytes(4096)):
                    pass
        yield p
    finally:
        s.run("down", s.dir)
        subprocess.run(["umount", p.state], check=False, capture_output=True)


@pytest.mark.parametrize("command, path", [
    ("mkdir tables/full", "tables/full"),
    ("mkdir tables/ns/full", "tables/ns/full"),
    ("printf 'id,x\n1,3\n' >tables/ns/t/data.csv", "tables/ns/t/data.csv"),
    ("cp tables/ns/t/data.csv tables/ns/t/data.csv.tmp", "tables/ns/t/data.csv.tmp"),
    ("cp tables/ns/t/data.csv federation/2/folder/file", "federation/2/folder/file"),
    ("echo 'push *' >parties/2/allow", "parties/2/allow"),
    ("mkdir parties/3; echo https://a:1 >parties/3/address", "parties/3"),
    ("setfattr -n user.x -v 1 tables/ns/t", "tables/ns/t"),
])
def test_a_full_disk_is_named(full, command, path):
    sh(full, command)
    what, text = newest(full)
    assert what.startswith(path), what
    assert "No space left on device" in what + text, (what, text)
    assert full.read("tables/ns/t/data.csv") == CSV


def test_tables_are_removed_from_a_full_disk(full):
    """Last of those with this disk: it has some room afterwards."""
    r = subprocess.run("rm -r tables/ns/u && rm tables/ns/v/data.csv", shell=True, cwd=full.mount,
                       capture_output=True, text=True, check=False)
    assert r.returncode == 0, r.stderr
    assert os.listdir(full.path("tables/ns/v")) == [] and not os.path.exists(full.path("tables/ns/u"))
    full.upload("ns", "w", CSV)
    assert full.read("tables/ns/w/data.csv") == CSV


def test_out_of_descriptors_is_no_damage(p):
    """Whatever number is left when a table is built and read: never that the disk is at fault."""
    pid = p.pid("rollfs")
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    for n in range(12):
        p.upload("few", "t%d" % n, CSV)
    seen = set()
    for left in range(2, 24):
        # Tables that nobody reads are open for a while.
        have = len(os.listdir("/proc/%d/fd" % pid))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (have + left, hard))
        try:
            for call in (lambda: p.upload("few", "new", CSV),
                         lambda n=left: p.read("tables/few/t%d/data.csv" % (n % 12))):
                try:
                    call()
                except OSError as e:
                    seen.add(e.errno)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert seen == {errno.EMFILE}
    assert any("Too many open files" in x for x in p.read("errors").splitlines())
    p.upload("few", "new", CSV)
    assert p.read("tables/few/new/data.csv") == p.read("tables/few/t1/data.csv") == CSV
