# SPDX-License-Identifier: Apache-2.0
"""Directories of tables as ordinary programs use them: copies, moves, modes,
owners, times, attributes, editors.  Everything is kept over a restart."""
import errno
import os
import shutil
import stat
import subprocess
import tempfile

import pytest
from conftest import SLOW, Refused, eventually

CSV = "id,x,y\n" + "".join("%03d,v%d,\"a,%d\"\n" % (i, i, i) for i in range(200))
NEW = "id,z\n1,2\n"


@pytest.fixture(scope="module")
def p(sandboxes):
    return sandboxes("9999", "10000")["9999"]


@pytest.fixture
def ns(p, request):
    """A namespace of its own with the table t."""
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    p.upload(name, "t", CSV)
    return p.path("tables", name)


def sh(where, script):
    return subprocess.run(["bash", "-c", script], cwd=where, capture_output=True, text=True,
                          timeout=60 * SLOW, check=False)


def good(where, script):
    r = sh(where, script)
    assert r.returncode == 0 and not r.stderr, r.stderr
    return r.stdout


def data(d):
    with open(d + "/data.csv", encoding="utf-8") as f:
        return f.read()


def refused(call, *args):
    with pytest.raises(OSError) as e:
        call(*args)
    return e.value.errno


# ---- copies ------------------------------------------------------------------

@pytest.mark.parametrize("how", [
    "cp -r t u", "cp -a t u", "rsync -a t/ u", "rsync -aHAX t/ u", "cp -rT t u",
    "/usr/bin/python3 -c 'import shutil; shutil.copytree(\"t\", \"u\")'",
    "tar c t | tar x --transform=s,^t,u,", "mkdir u && cp t/data.csv u", "cp -r --sparse=always t u"])
def test_a_table_is_copied_whole(ns, how):
    good(ns, how)
    assert data(ns + "/u") == CSV
    assert set(os.listdir(ns + "/u")) == set(os.listdir(ns + "/t")) > {"data.csv", "parts"}
    with open(ns + "/u/count", encoding="utf-8") as f:
        assert f.read() == "200\n"
    assert os.listdir(ns + "/u/parts") == os.listdir(ns + "/t/parts")
    good(ns, "rm -r u")
    assert os.listdir(ns) == ["t"] and data(ns + "/t") == CSV


def test_a_second_rsync_sends_nothing(ns):
    good(ns, "rsync -a t/ u")
    out = good(ns, "rsync -ai t/ u")
    assert not [x for x in out.splitlines() if x.startswith(">f") and "schema" not in x], out


def test_a_table_with_parents_is_copied(p, ns):
    job = p.run({"components": {"reader_0": {"module": "Reader", "output": {"data": ["data"]}}}},
                conf_of(os.path.basename(ns), "t"))
    out = p.path("jobs", job, "guest/reader_0/out")
    table = os.path.join(out, os.listdir(out)[0])
    assert os.readlink(os.path.join(table, "parents", os.listdir(table + "/parents")[0]))
    for i, how in enumerate(("cp -r", "cp -a", "rsync -a")):
        to = os.path.join(ns, "copy%d" % i)
        good(ns, "%s %s/ %s" % (how, table, to))
        assert data(to) == data(table)


def test_copies_have_modes_of_their_own(ns):
    good(ns, "cp -r t u; chmod 600 u/data.csv; chmod 750 u")
    assert stat.S_IMODE(os.stat(ns + "/u/data.csv").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(ns + "/t/data.csv").st_mode) == 0o644
    assert stat.S_IMODE(os.stat(ns + "/t").st_mode) == 0o755


# ---- moves -------------------------------------------------------------------

def test_mv_into_a_partner_s_folder_copies_and_empties(p, ns):
    name = os.path.basename(ns) + ".csv"
    good(ns, "mv t/data.csv %s" % p.path("federation/10000", name))
    assert p.read("federation/10000", name) == CSV and os.listdir(ns + "/t") == []
    good(ns, "mv %s t/data.csv" % p.path("federation/10000", name))
    assert data(ns + "/t") == CSV
    assert name not in os.listdir(p.path("federation/10000"))


def test_mv_of_a_whole_table_to_a_disk_and_back(ns, tmp_path):
    good(ns, "mv t %s/" % tmp_path)
    assert os.listdir(ns) == [] and (tmp_path / "t" / "data.csv").read_text() == CSV
    good(ns, "mv %s/t ." % tmp_path)
    assert data(ns + "/t") == CSV


@pytest.mark.parametrize("order", [("data.csv", "count", "parts", "parents", "schema.json"),
                                   ("schema.json", "parents", "parts", "count", "data.csv")])
@pytest.mark.parametrize("how", ["cp -r %s/t .", "mv %s/t .", "cp -a %s/t .", "rsync -a %s/t ."])
def test_a_table_comes_from_a_disk_in_any_order(ns, tmp_path, how, order):
    """cp goes by inode numbers and insists on making all that it copies."""
    (tmp_path / "t").mkdir()
    for name in order:
        good(ns, "cp -r t/%s %s/t/" % (name, tmp_path))
    good(ns, "rm -r t")
    good(ns, how % tmp_path)
    assert data(ns + "/t") == CSV and set(order) <= set(os.listdir(ns + "/t"))


def test_rename_between_trees_is_exdev(p, ns):
    assert refused(os.rename, ns + "/t", p.path("federation/10000/t")) == errno.EXDEV
    assert refused(os.rename, ns + "/t", p.path("jobs/t")) == errno.EPERM


def test_a_namespace_is_renamed_with_its_tables(p, ns):
    with open(ns + "/t/data.csv", encoding="utf-8") as f:
        os.rename(ns, ns + "_new")
        assert not os.path.exists(ns) and data(ns + "_new/t") == CSV
        assert f.read() == CSV
    os.mkdir(ns)
    os.rename(ns + "_new", ns)  # over an empty one
    assert data(ns + "/t") == CSV
    p.upload(os.path.basename(ns) + "_other", "t", NEW)
    assert refused(os.rename, ns, ns + "_other") == errno.ENOTEMPTY


def test_an_upload_goes_where_its_table_goes(ns):
    fd = os.open(ns + "/t/data.csv", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, NEW.encode())
    os.rename(ns + "/t", ns + "/u")
    os.rename(ns, ns + "_moved")
    os.close(fd)
    assert data(ns + "_moved/u") == NEW


# ---- modes, owners, times ----------------------------------------------------

def conf_of(namespace, name):
    return {"dsl_version": 2, "initiator": {"role": "guest", "party_id": 9999},
            "role": {"guest": [9999]}, "component_parameters": {"role": {"guest": {"0": {
                "reader_0": {"table": {"namespace": namespace, "name": name}}}}}}}


def test_a_table_that_nobody_may_read_is_hidden_from_components(p, ns):
    dsl = {"components": {"reader_0": {"module": "Reader", "output": {"data": ["data"]}}}}
    conf = conf_of(os.path.basename(ns), "t")
    for name in ("t", "t/data.csv"):
        good(ns, "chmod a-r " + name)
        with pytest.raises(Refused) as e:
            p.submit(dsl, conf)
        assert e.value.errno == errno.EACCES and "chmod a+r" in e.value.text
        good(ns, "chmod u+r " + name)
    p.run(dsl, conf)


def test_modes_owners_times_and_attributes_outlive_a_restart(p, ns):
    d = ns + "/t"
    os.chmod(d, 0o2751)
    os.chmod(d + "/data.csv", 0o640)
    os.chown(d, 1234, 4321)
    os.chmod(ns, 0o700)
    os.chown(ns, 77, -1)
    os.utime(d + "/data.csv", ns=(10**18, 1234567890 * 10**9 + 5))
    os.setxattr(d, "user.note", b"\x00\xff=\n")
    os.setxattr(ns, "user.of", b"namespace")

    def look():
        a, b, c = (os.stat(x) for x in (d, d + "/data.csv", ns))
        return (stat.S_IMODE(a.st_mode), stat.S_IMODE(b.st_mode), stat.S_IMODE(c.st_mode),
                a.st_uid, a.st_gid, b.st_uid, c.st_uid, b.st_mtime_ns,
                os.stat(d + "/schema.json").st_mtime_ns,
                os.getxattr(d, "user.note"), os.getxattr(ns, "user.of"), os.listxattr(ns))
    want = (0o2751, 0o640, 0o700, 1234, 4321, 1234, 77, 1234567890000000005, 1234567890000000005,
            b"\x00\xff=\n", b"namespace", ["user.of"])
    assert look() == want
    p.kill("rollfs")
    p.start()
    assert look() == want
    os.rename(d, ns + "/u")
    os.rename(ns + "/u", d)
    assert look() == want


def test_data_has_the_time_of_its_publishing_and_what_programs_set(ns, tmp_path):
    before = os.stat(ns + "/t/data.csv").st_mtime_ns
    assert abs(before - os.stat(ns + "/t").st_mtime_ns) < 10**9
    (tmp_path / "new.csv").write_text(NEW)
    os.utime(tmp_path / "new.csv", (10**9, 10**9))
    good(ns, "cp %s/new.csv t/data.csv" % tmp_path)
    assert os.stat(ns + "/t/data.csv").st_mtime_ns > before
    good(ns, "cp -p %s/new.csv t/data.csv" % tmp_path)
    assert os.stat(ns + "/t/data.csv").st_mtime == 10**9
    p = good(ns, "cat t/data.csv")
    assert p == NEW
    good(ns, "touch t/data.csv")
    assert os.stat(ns + "/t/data.csv").st_mtime_ns > before


def test_what_is_made_has_the_mode_that_was_asked_for(ns):
    good(ns, "umask 077; mkdir private; cp t/data.csv private/")
    assert stat.S_IMODE(os.stat(ns + "/private").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(ns + "/private/data.csv").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(ns + "/private/schema.json").st_mode) == 0o600


@pytest.mark.parametrize("how", ["rsync -a", "cp -p", "rsync -a --inplace"])
@pytest.mark.parametrize("mode", [0o600, 0o444])
def test_modes_come_with_the_file(ns, tmp_path, how, mode):
    """Into a table without rows, and over rows with another mode."""
    (tmp_path / "data.csv").write_text(NEW)
    (tmp_path / "data.csv").chmod(mode)
    good(ns, "mkdir u")
    for name in ("u", "t"):
        good(ns, "%s %s/data.csv %s/data.csv" % (how, tmp_path, name))
        assert data(ns + "/" + name) == NEW
        assert stat.S_IMODE(os.stat("%s/%s/data.csv" % (ns, name)).st_mode) == mode


def test_attributes_are_bounded_and_go_with_the_table(p, ns):
    d = ns + "/t"
    for k in range(3):
        os.setxattr(d, "user.k%d" % k, b"x" * 20000)
    assert refused(os.setxattr, d, "user.more", b"x" * 20000) == errno.ENOSPC
    assert refused(os.setxattr, d, "user.k0", b"", os.XATTR_CREATE) == errno.EEXIST
    assert refused(os.setxattr, d, "user.none", b"", os.XATTR_REPLACE) == errno.ENODATA
    assert refused(os.removexattr, d, "user.none") == errno.ENODATA
    os.removexattr(d, "user.k0")
    os.setxattr(d, "user.more", b"")
    assert os.getxattr(d, "user.more") == b"" and len(os.getxattr(d, "user.k1")) == 20000
    assert sorted(x for x in os.listxattr(d) if "rollfs" not in x) == \
        ["user.k1", "user.k2", "user.more"]
    good(ns, "cp -a t u")
    assert os.getxattr(ns + "/u", "user.k2") == b"x" * 20000
    before = set(os.listdir(p.state + "/tables/attrs"))
    good(ns, "rm -r t u")
    eventually(lambda: len(set(os.listdir(p.state + "/tables/attrs"))) <= len(before) - 2)


def keeps_attributes(directory):
    """tmpfs does only since Linux 6.6."""
    path = os.path.join(directory, "attributes-probe")
    with open(path, "w", encoding="utf-8"):
        pass
    try:
        os.setxattr(path, "user.x", b"1")
    except OSError as e:
        assert e.errno == errno.EOPNOTSUPP
        return False
    finally:
        os.unlink(path)
    return True


@pytest.mark.parametrize("top", ["tables", "federation/10000/.kept", "parties/10000"])
def test_temporary_files_have_attributes(p, ns, top):
    f = ns + "/t/.x" if top == "tables" else p.path(top, ".x")
    os.makedirs(os.path.dirname(f), exist_ok=True)
    with open(f, "w", encoding="utf-8") as x:
        x.write(NEW)
    if not keeps_attributes(p.state):
        assert refused(os.setxattr, f, "user.b", b"") == errno.EOPNOTSUPP
        return
    for name in "user.b", "user.a":
        os.setxattr(f, name, b"\0\xff" * 500)
    os.setxattr(f, "user.a", b"short")
    assert sorted(x for x in os.listxattr(f) if "rollfs" not in x) == ["user.a", "user.b"]
    assert os.getxattr(f, "user.b") == b"\0\xff" * 500 and os.getxattr(f, "user.a") == b"short"
    assert refused(os.setxattr, f, "user.a", b"", os.XATTR_CREATE) == errno.EEXIST
    assert refused(os.setxattr, f, "user.c", b"", os.XATTR_REPLACE) == errno.ENODATA
    os.removexattr(f, "user.b")
    assert refused(os.getxattr, f, "user.b") == errno.ENODATA
    os.rename(f, f + "y")
    assert os.getxattr(f + "y", "user.a") == b"short"
    if top == "tables":
        os.rename(f + "y", ns + "/t/data.csv")
        assert os.getxattr(ns + "/t/data.csv", "user.a") == b"short" and data(ns + "/t") == NEW
    else:
        os.unlink(f + "y")


@pytest.mark.parametrize("how", [
    "cp -a {src}/f {dst}", "cp -a {src} {dst}s && mv {dst}s/f {dst}", "rsync -aX {src}/f {dst}",
    "mv {src}/f {dst}", "cp -a {src}/f {dir}/.hidden && mv {dir}/.hidden {dst}",
    "cp {src}/f {dst} && sync {dst} && setfattr -n user.from -v disk {dst}",
    "cp -a {src}/f {dst} && sync {dst} && cp /dev/null {dst} && echo again >{dst}",
    "cp -a {src}/f {dst} && sync {dst} && echo more >>{dst}",
    "cp -a {src}/f {dst}0 && sync {dst}0 && mv {dst}0 {dst}"])
def test_sent_files_have_attributes_which_stay_here(p, ns, tmp_path, how):
    if not keeps_attributes(p.state) or not keeps_attributes(tmp_path):
        return  # there are none to keep
    (tmp_path / "f").write_text("sent\n")
    os.setxattr(tmp_path / "f", "user.from", b"disk")
    name = os.path.basename(ns)
    dst = p.path("federation/10000", name)
    good(p.mount, how.format(src=tmp_path, dst=dst, dir=os.path.dirname(dst)))
    good(p.mount, "sync " + dst)
    assert os.getxattr(dst, "user.from") == b"disk"
    assert "user.from" in os.listxattr(dst)
    got = p.sandbox["10000"].path("federation/9999/inbox", name)
    assert "user.from" not in os.listxattr(got)
    assert refused(os.setxattr, got, "user.x", b"") == errno.EPERM
    os.removexattr(dst, "user.from")
    assert refused(os.getxattr, dst, "user.from") == errno.ENODATA


def test_rsync_takes_attributes_along(p, ns, tmp_path):
    if not keeps_attributes(p.state) or not keeps_attributes(tmp_path):
        return  # there are none to take
    (tmp_path / "data.csv").write_text(NEW)
    os.setxattr(tmp_path / "data.csv", "user.from", b"a disk")
    good(ns, "rsync -aX %s/data.csv t/data.csv" % tmp_path)
    assert os.getxattr(ns + "/t/data.csv", "user.from") == b"a disk" and data(ns + "/t") == NEW
    good(ns, "rsync -aX t/data.csv %s/back.csv" % tmp_path)
    assert os.getxattr(tmp_path / "back.csv", "user.from") == b"a disk"


def test_other_users_come_as_far_as_modes_let_them(p, ns):
    """The kernel checks; only root may chown."""
    assert "default_permissions" in open("/proc/mounts", encoding="utf-8").read()
    os.chown(ns + "/t", 1234, -1)
    assert os.stat(ns + "/t/data.csv").st_uid == 1234
    assert p.read("tables", os.path.basename(ns), "t", "count") == "200\n"


# ---- editors -----------------------------------------------------------------

@pytest.mark.parametrize("command", [
    "perl -pi -e s/v7/seven/ data.csv",
    "/usr/bin/python3 -c 'import os, tempfile\n"
    "f = tempfile.NamedTemporaryFile(\"w\", dir=\".\", delete=False)\n"
    "f.write(open(\"data.csv\").read().replace(\"v7,\", \"seven,\"))\n"
    "f.close()\nos.replace(f.name, \"data.csv\")'"],
    ids=["perl", "tempfile"])
def test_files_that_mkstemp_made_become_the_data(ns, command):
    listed = os.listdir(ns + "/t")
    good(ns + "/t", command)
    assert "007,seven," in data(ns + "/t") and os.listdir(ns + "/t") == listed


def test_files_that_mkstemp_made_can_be_removed(ns):
    fd, name = tempfile.mkstemp(dir=ns + "/t")
    os.close(fd)
    assert os.path.basename(name) in os.listdir(ns + "/t")
    os.unlink(name)
    assert not os.path.exists(name)


def test_sed_in_place_and_checkpoints_in_a_table(ns):
    good(ns, "sed -i s/v7,/w7,/ t/data.csv")
    assert data(ns + "/t") == CSV.replace("v7,", "w7,")
    good(ns, "mkdir t/.ipynb_checkpoints && echo '{}' >t/.ipynb_checkpoints/upload-checkpoint.json"
             " && touch t/.nfs0001 t/4913 && rm t/4913")
    assert {".ipynb_checkpoints", ".nfs0001"} <= set(os.listdir(ns + "/t"))
    good(ns, "rm -r t")


@pytest.mark.parametrize("how,kept", [
    ("cp -b n t/data.csv", "data.csv~"), ("mv -b n t/data.csv", "data.csv~"),
    ("install -b n t/data.csv", "data.csv~"),
    ("cp --backup=numbered n t/data.csv", "data.csv.~1~"),
    ("cat n >t/.n && mv t/data.csv t/data.csv.old && mv t/.n t/data.csv", "data.csv.old"),
    ("sed -i.bak s/v7,/w7,/ t/data.csv; cp n t/data.csv", "data.csv.bak"),
    ("perl -i.orig -pe 's/v7,/w7,/' t/data.csv; cp n t/data.csv", "data.csv.orig"),
    ("rsync -aI --backup n t/data.csv", "data.csv~"),
    ("rsync -aI --backup --suffix=.bak --delay-updates n t/data.csv", "data.csv.bak")])
def test_programs_keep_what_was_there_under_another_name(ns, tmp_path, how, kept):
    good(ns, "chmod 640 t/data.csv && touch -d 2001-02-03 t/data.csv")
    (tmp_path / "n").write_text(NEW)
    good(ns, how.replace(" n ", " %s/n " % tmp_path))
    assert data(ns + "/t") == NEW
    st = os.stat(ns + "/t/" + kept)
    with open(ns + "/t/" + kept, encoding="utf-8") as f:
        assert f.read() == CSV and st.st_size == len(CSV)
    assert stat.S_IMODE(st.st_mode) == 0o640 and st.st_mtime == 981158400
    good(ns, "mv t/%s t/data.csv" % kept)
    assert data(ns + "/t") == CSV and kept not in os.listdir(ns + "/t")


def test_a_backup_comes_back_when_the_new_rows_are_refused(ns, tmp_path):
    (tmp_path / "n").write_text("id,x\n1\n")
    assert sh(ns, "cp -b %s/n t/data.csv" % tmp_path).returncode == 1
    assert data(ns + "/t") == CSV and "data.csv~" not in os.listdir(ns + "/t")


def test_who_has_the_data_open_reads_it_after_it_was_renamed(ns):
    with open(ns + "/t/data.csv", encoding="utf-8") as f:
        os.rename(ns + "/t/data.csv", ns + "/t/data.csv~")
        assert not os.path.exists(ns + "/t/data.csv")
        assert f.read() == CSV


def test_files_in_a_folder_beside_a_table_become_its_own(ns):
    good(ns, "mkdir u && rsync -a --delay-updates t/ u/ && cmp t/data.csv u/data.csv")
    assert sorted(os.listdir(ns + "/u")) == sorted(os.listdir(ns + "/t"))
    good(ns, "mkdir t/.d && echo id,z >t/.d/a && echo 1,2 >>t/.d/a && mv t/.d/a t/data.csv && rmdir t/.d")
    assert data(ns + "/t") == NEW


def test_a_dropped_table_leaves_no_temporary_files(p, ns):
    number = os.stat(ns + "/t").st_ino >> 12 & (1 << 44) - 1
    good(ns, "touch t/.x t/parts/.0.csv.abc && rmdir t")
    left = os.listdir(p.state + "/mount-tmp")
    assert not [x for x in left if x.endswith("-%d" % number)], left


def jupyter_save(path, text):
    """Its atomic writing: the old file aside, in place, the old one removed."""
    aside = os.path.join(os.path.dirname(path), ".~" + os.path.basename(path))
    if os.path.exists(path):
        shutil.copyfile(path, aside)
        shutil.copystat(path, aside)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    if os.path.exists(aside):
        os.remove(aside)


@pytest.mark.parametrize("file,old,new", [
    ("t/data.csv", CSV, NEW), ("t/upload.json", "{}\n", '{"head": 1}\n')], ids=["data", "options"])
def test_jupyter_saves(ns, file, old, new):
    path = os.path.join(ns, file)
    for text in (old, new, old):
        jupyter_save(path, text)
        with open(path, encoding="utf-8") as f:
            assert f.read() == text
    assert not [x for x in os.listdir(ns + "/t") if x.startswith(".")]


def test_policies_are_edited_in_place_and_by_renaming(p):
    d = p.path("parties/10000")
    good(d, "sed -i 's/^role.*/role guest/' allow")
    assert "role guest\n" in p.read("parties/10000/allow")
    good(d, "cp allow allow~ && printf 'module *\\n' >.allow.swp && mv .allow.swp allow && rm allow~")
    assert p.read("parties/10000/allow") == "module *\n"
    with open(d + "/.bad", "w", encoding="utf-8") as f:
        f.write("nonsense\n")
    assert refused(os.rename, d + "/.bad", d + "/allow") == errno.EINVAL
    assert p.read("parties/10000/allow") == "module *\n"
    os.unlink(d + "/.bad")
    jupyter_save(d + "/allow", "module *\ntable *\nrole *\npush *\n")
    assert "push *" in p.read("parties/10000/allow")


# ---- what is listed ----------------------------------------------------------

def test_rows_of_a_large_table_are_listed_in_part_and_say_so(p, ns):
    p.upload(os.path.basename(ns), "large", "id,v\n" + "".join("k%05d,%d\n" % (i, i)
                                                               for i in range(5000)))
    names = os.listdir(ns + "/large/rows")
    notice = [n for n in names if n.startswith("~")]
    assert len(names) == 1001 and len(notice) == 1 and "5000" in notice[0]
    with open(os.path.join(ns, "large/rows", notice[0]), encoding="utf-8") as f:
        assert f.read() == notice[0] + "\n"
    with open(ns + "/large/rows/k04999", encoding="utf-8") as f:
        assert f.read() == "k04999,4999\n"
    p.upload(os.path.basename(ns), "large", "id,v\nk04999,new\n")
    with open(ns + "/large/rows/k04999", encoding="utf-8") as f:
        assert f.read() == "k04999,new\n"
    assert not os.path.exists(ns + "/large/rows/k00001")


def test_what_the_scheduler_drops_is_gone_for_everybody(p, ns):
    dsl = {"components": {"reader_0": {"module": "Reader", "output": {"data": ["data"]}}}}
    job = p.run(dsl, conf_of(os.path.basename(ns), "t"))
    d = p.path("tables", "output_data_" + job)
    names = os.listdir(d)
    assert names and all(os.path.isdir(os.path.join(d, n)) for n in names)
    good(p.mount, "rm -r jobs/" + job)
    eventually(lambda: not os.path.exists(os.path.join(d, names[0])), 2)
    eventually(lambda: not os.path.exists(d), 2)
    os.mkdir(d)  # the kernel must not believe that it is there
    os.rmdir(d)
