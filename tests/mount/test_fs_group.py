# SPDX-License-Identifier: Apache-2.0
"""A mount of a group (-o allow_other, `group` in the configuration): what its
members can do, what they see of each other, and what nobody else does."""
import itertools
import os
import shlex
import signal
import subprocess

import pytest
from conftest import SLOW, eventually

numbers = itertools.count()
ALICE, BOB, EVE = 2001, 2002, 2003
CSV = "id,x,y\n" + "".join("%03d,%d,%g\n" % (i, i, i / 7) for i in range(50))


@pytest.fixture(scope="module")
def p(sandboxes):
    p = sandboxes("9999", "10000")["9999"]
    os.kill(p.pid("rollfs"), signal.SIGTERM)
    eventually(lambda: not p.pids("rollfs") and not p.pids("rollsite"), 20)
    with open(p.conf, encoding="utf-8") as f:
        text = f.read().replace("[rollfs]\n", "[rollfs]\ngroup = users\n")
    with open(p.conf, "w", encoding="utf-8") as f:
        f.write(text)
    subprocess.run([os.path.join(p.sandbox.env["B"], "rollfs"), p.conf, p.mount, "-o",
                    "allow_other"], check=True, timeout=60 * SLOW)
    at = p.mount
    while at != "/":  # directories of tests are for their owner only
        at = os.path.dirname(at)
        os.chmod(at, os.stat(at).st_mode | 0o011)
    return p


@pytest.fixture
def ns(p):
    """A namespace of Alice's with her table t."""
    name = "tables/n%d" % next(numbers)
    good(p, ALICE, "mkdir -p %s/t && cat >%s/t/data.csv" % (name, name), CSV)
    return name


def run(p, uid, script, text=None):
    groups = ["--clear-groups"] if uid == EVE else ["--groups", "100"]
    return subprocess.run(["setpriv", "--reuid", str(uid), "--regid", str(uid), *groups,
                           "bash", "-c", script], cwd=p.mount, input=text, text=True,
                          errors="replace", stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60 * SLOW, check=False)


def good(p, uid, script, text=None):
    r = run(p, uid, script, text)
    assert r.returncode == 0, (script, r.stdout)
    return r.stdout


@pytest.fixture
def source(tmp_path):
    """A folder with a file, on a disk, that all may read."""
    for at in (tmp_path, *list(tmp_path.parents)[:-1]):
        at.chmod(at.stat().st_mode | 0o055)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("data.csv", "sub/more.csv"):
        (tmp_path / "in" / name).write_text(CSV)
        (tmp_path / "in" / name).chmod(0o644)
        os.utime(tmp_path / "in" / name, (10**9, 10**9))
    return tmp_path / "in"


COPIES = ["cp -p {s}/data.csv {d}/data.csv", "install -m 640 {s}/data.csv {d}/data.csv",
          "rsync -a {s}/data.csv {d}/data.csv", "rsync -a --inplace {s}/data.csv {d}/data.csv",
          "tar c -C {s} data.csv | tar x -C {d}"]


@pytest.mark.parametrize("how", COPIES)
def test_a_member_copies_into_his_table(p, ns, source, how):
    good(p, ALICE, "rm %s/t/data.csv" % ns)
    good(p, ALICE, how.format(s=source, d=ns + "/t"))
    assert p.read(ns, "t/data.csv") == CSV
    assert os.stat(p.path(ns, "t/data.csv")).st_uid == ALICE


@pytest.mark.parametrize("how", COPIES + [
    "rsync -a {s}/ {d}/", "cp -a {s}/sub {d}/ && cp {s}/data.csv {d}/",
    "cp {s}/data.csv {d}/ && touch -d 2001-09-09 {d}/data.csv",
    "cp {s}/data.csv {d}/ && sed -i s/nothing/else/ {d}/data.csv"])
def test_a_member_copies_into_the_folder_of_a_partner(p, source, how):
    d = "federation/10000/f%d" % next(numbers)
    good(p, ALICE, "mkdir %s" % d)
    good(p, ALICE, how.format(s=source, d=d))
    for at in (d, d + "/data.csv"):
        assert os.stat(p.path(at)).st_uid == ALICE
    good(p, BOB, "rm -r %s" % d)  # it is the group's


@pytest.mark.parametrize("how", ["cp -a t u", "cp -r t u", "rsync -a t/ u", "tar c t | tar x "
                                 "--transform=s,^t,u,"])
def test_a_member_copies_the_table_of_another(p, ns, how):
    good(p, ALICE, "echo '{}' >%s/t/upload.json" % ns)
    good(p, BOB, "cd %s && %s" % (ns, how))
    assert p.read(ns, "u/data.csv") == CSV
    assert os.stat(p.path(ns, "u/data.csv")).st_uid == BOB


@pytest.mark.parametrize("where", ["t/data.csv", "t"])
def test_rows_that_are_private_are_private_in_every_file(p, ns, where):
    """Also to who has read them before, and while a copy is open to all."""
    files = ("count", "schema.json", "data.csv", "data.npy", "columns/id.npy", "columns/y.npy",
             "parts/0.csv", "rows/007", "upload.json")
    good(p, ALICE, "echo '{}' >%s/t/upload.json" % ns)
    good(p, ALICE, "cp -r %s/t %s/u" % (ns, ns))
    for f in files:
        good(p, BOB, "cat %s/t/%s" % (ns, f))
    good(p, ALICE, "chmod go-rwx %s/%s" % (ns, where))
    open_to_bob = [f for f in files if run(p, BOB, "cat %s/t/%s" % (ns, f)).returncode == 0]
    assert not open_to_bob
    for f in files:
        good(p, BOB, "cat %s/u/%s" % (ns, f))
        assert run(p, BOB, "cat %s/t/%s" % (ns, f)).returncode
        good(p, ALICE, "cat %s/t/%s" % (ns, f))


def test_nobody_else_sees_anything_of_them(p, ns):
    good(p, ALICE, "cp %s/t/data.csv federation/10000/mine" % ns)
    for f in (ns + "/t/count", "federation/10000/mine", "jobs/queue", "parties/10000/allow"):
        assert "Permission denied" in run(p, EVE, shlex.join(["cat", f])).stdout
    assert run(p, EVE, "echo x >%s/t/data.csv" % ns).returncode
    assert run(p, EVE, "mkdir tables/eve").returncode


def test_each_reads_his_own_refusals(p, ns):
    assert run(p, BOB, "printf 'id,a\\n1\\n' | cat >%s/t/data.csv" % ns).returncode
    assert "line 2" in good(p, BOB, "cat errors")
    assert "line 2" not in good(p, EVE, "cat errors")
