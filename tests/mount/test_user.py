# SPDX-License-Identifier: Apache-2.0
"""What people and their programs do with a mount, and what went wrong."""
import errno
import json
import os
import shutil
import signal
import subprocess

import pytest
from conftest import DATA, eventually, read


@pytest.mark.parametrize("name", [b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80"])
def test_a_federation_name_that_is_no_utf8_is_refused(two, name):
    p = two[9999]
    d = os.fsencode(p.path("federation/10000"))
    with pytest.raises(OSError) as e:
        os.close(os.open(os.path.join(d, name), os.O_WRONLY | os.O_CREAT))
    assert e.value.errno == errno.EINVAL
    with pytest.raises(OSError):
        os.mkdir(os.path.join(d, name))
    assert "federation/10000/" + "".join("%%%02X" % b if b >= 0x80 else chr(b) for b in name) \
        in p.read("errors")


def test_emptying_allow_takes_every_right_away(two):
    p = two[10000]
    allow = p.path("parties/9999/allow")
    before = read(allow)
    try:
        for command in (": >$0", "truncate -s 0 $0", "cp /dev/null $0"):
            subprocess.run(["bash", "-c", "echo 'role host' >$0", allow], check=True)
            assert read(allow) == "role host\n"
            subprocess.run(["bash", "-c", command, allow], check=True)
            assert read(allow) == "", command
    finally:
        with open(allow, "w", encoding="utf-8") as f:
            f.write(before)
    assert read(allow) == before


def test_a_refused_allow_is_quoted_without_its_newline(two):
    p = two[10000]
    with pytest.raises(OSError):
        with open(p.path("parties/9999/allow"), "w", encoding="utf-8") as f:
            f.write("nonsense\n")
    assert "found 'nonsense'\n" in p.read("errors")


@pytest.mark.skipif(not shutil.which("vim"), reason="no vim")
def test_vim_saves_a_table(two):
    p = two[9999]
    p.upload_file("user", "vim", os.path.join(DATA, "breast_guest.csv"))
    data = p.path("tables/user/vim/data.csv")
    first = read(data).splitlines()[1]
    for backup in ("yes", "no", "auto"):
        subprocess.run(["vim", "-u", "NONE", "-es", "-c", "set backupcopy=" + backup,
                        "-c", "2s/^0,./0,7/", "-c", "w", "-c", "q", data],
                       stdin=subprocess.DEVNULL, check=True, timeout=120)
        assert read(data).splitlines()[1] == "0,7" + first[3:]
        p.upload_file("user", "vim", os.path.join(DATA, "breast_guest.csv"))


def test_a_file_sent_can_be_edited_in_place(two):
    f = two[9999].path("federation/10000/edited")
    with open(f, "w", encoding="utf-8") as out:
        out.write("one\n")
    subprocess.run(["sed", "-i", "s/one/two/", f], check=True)
    got = two[10000].path("federation/9999/inbox/edited")
    eventually(lambda: os.path.exists(got) and read(got) == "two\n")


def test_an_empty_object_is_refused_by_the_write(two):
    r = subprocess.run(["bash", "-c", "echo '{}' >jobs/new"], cwd=two[9999].mount,
                       stderr=subprocess.DEVNULL, check=False)
    assert r.returncode == 1
    assert "neither a dsl" in two[9999].read("errors")


def test_a_close_is_heard_beside_the_same_number_of_another_mount(sandboxes):
    s = sandboxes("1", "2")
    fds = []
    for party in 1, 2:
        s[party].upload("same", "t", "id,x\n1,2\n")
        fds.append(os.open(s[party].path("tables/same/t/data.csv"), os.O_WRONLY | os.O_TRUNC))
    assert os.fstat(fds[0]).st_ino == os.fstat(fds[1]).st_ino
    os.write(fds[0], b"id,x\n1,\"2")
    with pytest.raises(OSError) as e:
        os.close(fds[0])
    assert e.value.errno == errno.EINVAL
    os.write(fds[1], b"id,x\n3,4\n")
    os.close(fds[1])
    assert s[2].read("tables/same/t/data.csv") == "id,x\n3,4\n"


def test_the_rows_of_a_damaged_name_stay(two):
    p = two[9999]
    p.upload("user", "damaged", "id,x\n1,2\n")
    name = os.path.join(p.state, "tables/names/user/damaged")
    good = read(name)
    p.kill("rollfs")
    with open(name, "w", encoding="utf-8") as f:
        f.write("garbage")
    p.start()
    p.kill("rollfs")
    with open(name, "w", encoding="utf-8") as f:
        f.write(good)
    p.start()
    assert p.read("tables/user/damaged/data.csv") == "id,x\n1,2\n"


def error_of(call, *args):
    try:
        call(*args)
    except OSError as e:
        return e.errno
    return 0


def damage(p, ns, name, content):
    path = os.path.join(p.state, "tables/names", ns, name)
    with open(path + ".new", "wb") as f:
        f.write(content)
    os.rename(path + ".new", path)  # as rollfs would; so it is heard of


def test_a_damaged_name_is_told_and_can_be_removed_after_the_next_start(two):
    p = two[9999]
    for name in ("cut", "zero", "fine"):
        p.upload("hurt", name, "id,x\n1,2\n")
    p.kill("rollfs")
    damage(p, "hurt", "cut", read(p.state, "tables/names/hurt/cut")[:-4].encode())
    p.start()
    assert sorted(os.listdir(p.path("tables/hurt"))) == ["cut", "fine", "zero"]
    assert os.listdir(p.path("tables/hurt/cut")) == []
    said = p.read("errors")
    assert "table hurt/cut: the file that says where its rows are was damaged" in said
    assert p.read("tables/hurt/fine/data.csv") == "id,x\n1,2\n"
    # While it runs it is listed, and says what it is.
    damage(p, "hurt", "zero", bytes(40))
    eventually(lambda: error_of(os.stat, p.path("tables/hurt/zero")) == errno.EIO)
    assert "zero" in os.listdir(p.path("tables/hurt"))
    assert "names/hurt/zero: damaged: it is put aside when rollfs is started next" in p.read("errors")
    p.kill("rollfs")
    p.start()
    p.upload("hurt", "cut", "id,x\n3,4\n")
    assert p.read("tables/hurt/cut/data.csv") == "id,x\n3,4\n"
    subprocess.run(["rm", "-r", p.path("tables/hurt")], check=True)
    p.kill("rollfs")
    p.start()
    assert os.listdir(os.path.join(p.state, "tables/damaged")) == []


def test_a_namespace_whose_number_is_damaged_keeps_its_tables(two):
    p = two[9999]
    p.upload("unnumbered", "t", "id,x\n1,2\n")
    p.kill("rollfs")
    damage(p, "unnumbered", ".id", bytes(3))
    p.start()
    assert "namespace unnumbered: what was kept of its mode" in p.read("errors")
    assert p.read("tables/unnumbered/t/data.csv") == "id,x\n1,2\n"
    assert os.stat(p.path("tables/unnumbered")).st_mode & 0o777 == 0o700
    subprocess.run(["rm", "-r", p.path("tables/unnumbered")], check=True)


def test_what_lay_beside_a_table_goes_with_it_when_rollfs_dies_first(two):
    p = two[9999]
    for name in ("gone", "here"):
        p.upload("beside", name, "id,x\n1,2\n")
        for file in (".x", "parts/.y", "columns/.z"):
            with open(p.path("tables/beside", name, file), "w", encoding="utf-8") as f:
                f.write("text")
        with open(p.path("tables/beside", name, "upload.json"), "w", encoding="utf-8") as f:
            f.write("{}\n")
    at = json.loads(read(p.state, "tables/names/beside/gone"))["id"]
    here = json.loads(read(p.state, "tables/names/beside/here"))["id"]
    beside = os.path.join(p.state, "mount-tmp")
    left = ["columns-%d", "parts-%d", "table-%d", "upload-%d.json"]
    assert {x % at for x in left} <= set(os.listdir(beside))
    p.kill("rollfs")
    os.unlink(os.path.join(p.state, "tables/names/beside/gone"))  # no more had happened
    p.start()
    assert {x % here for x in left} == {x for x in os.listdir(beside) if "-%d" % here in x}
    assert not {x % at for x in left} & set(os.listdir(beside))
    assert p.read("tables/beside/here/.x") == "text"


def test_rows_are_new_when_more_has_changed_than_the_kernel_tells(two):
    p = two[9999]
    p.upload("flood", "t", "id,x\n1,old\n")
    p.upload("flood", "other", "id,x\n1,new\n")
    row = p.path("tables/flood/t/rows/1")
    assert read(row) == "1,old\n"
    names = os.path.join(p.state, "tables/names/flood")
    name, other = ({"path": os.path.join(names, n), **json.loads(read(names, n))}
                   for n in ("t", "other"))
    daemon = p.pid("rollfs")
    os.kill(daemon, signal.SIGSTOP)
    try:
        with open(os.path.join(names, ".a"), "w", encoding="ascii"):
            pass
        for _ in range(10000):  # two events each; the kernel keeps 16384
            os.rename(os.path.join(names, ".a"), os.path.join(names, ".b"))
            os.rename(os.path.join(names, ".b"), os.path.join(names, ".a"))
        with open(os.path.join(names, ".a"), "w", encoding="ascii") as f:
            json.dump({"data": other["data"], "id": name["id"]}, f, separators=(",", ":"))
        os.rename(os.path.join(names, ".a"), name["path"])
    finally:
        os.kill(daemon, signal.SIGCONT)
    eventually(lambda: read(row) == "1,new\n")
