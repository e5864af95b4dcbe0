# SPDX-License-Identifier: Apache-2.0
"""/models as files: what a job trained is listed, copied to a fresh mount of the
same party by tar, cp and rsync, refused when it is not what it says, removed."""
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import threading
import time

import pytest
from conftest import SLOW, eventually, read
from test_jobs import breast

ID = "arbiter-10001#guest-9999#host-10000#model"


def sh(script, *args, cwd="/", ok=True, seconds=30):
    r = subprocess.run(["bash", "-c", "set -o pipefail; " + script, "-", *args], cwd=cwd,
                       capture_output=True, text=True, timeout=seconds * SLOW, check=False)
    assert not ok or r.returncode == 0, r.stderr
    return r


@pytest.fixture(scope="module")
def trained(three):
    """(sandbox, version): a logistic regression of three parties."""
    return three, three["9999"].run(*breast(max_iter=3))


@pytest.fixture(scope="module")
def source(trained, tmp_path_factory):
    """The guest's part as a plain folder: {name: bytes}."""
    s, version = trained
    top = s["9999"].path("models", ID, version)
    out = {}
    for d, _, names in os.walk(top):
        for n in names:
            f = os.path.join(d, n)
            if n != "ctl" and not os.path.islink(f):
                with open(f, "rb") as i:
                    out[os.path.relpath(f, top)] = i.read()
    return out


@pytest.fixture(scope="module")
def fresh(sandboxes):
    """Another mount of the guest."""
    return sandboxes("9999", "10000", "10001")["9999"]


@pytest.fixture
def target(fresh, trained):
    """(party, the version's directory there), gone afterwards."""
    top = fresh.path("models", ID)
    yield fresh, os.path.join(top, trained[1])
    if os.path.exists(top):
        sh('rm -r "$1"', top)
    assert os.listdir(fresh.path("models")) == []


def put(directory, name, data, flags=os.O_CREAT | os.O_TRUNC):
    """Writes a file as cp does; the error of its close counts."""
    f = os.path.join(directory, name)
    os.makedirs(os.path.dirname(f), exist_ok=True)
    fd = os.open(f, os.O_WRONLY | flags, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
    finally:
        os.close(fd)


def begin(directory):
    os.makedirs(directory)


def refused(code, what, *args, **kw):
    with pytest.raises(OSError) as e:
        what(*args, **kw)
    assert e.value.errno == code, e.value


def last_error(party):
    """The newest refusal: its first line and its text."""
    out = []
    for line in party.read("errors").splitlines():
        if out and line[:2] == "20" and "T" in line[:20]:
            break
        out.append(line)
    return "\n".join(out)


def whole(directory):
    return os.path.exists(directory + "/ctl") and not os.path.exists(directory + "/missing")


def same(directory, files):
    for name, data in files.items():
        with open(os.path.join(directory, name), "rb") as f:
            assert f.read() == data, name


def edited(came, **changes):
    """info.json with members changed."""
    return json.dumps({**json.loads(came["info.json"]), **changes}).encode()


# ---- what a job leaves -----------------------------------------------------

def test_a_version_is_listed_as_it_is(trained):
    s, version = trained
    for party, role in (("9999", "guest"), ("10000", "host"), ("10001", "arbiter")):
        p = s[party]
        assert os.listdir(p.path("models")) == [ID]
        top = p.path("models", ID, version)
        names = os.listdir(top)
        assert names[0] == "info.json" and "ctl" in names and "deployed" not in names
        own = {n for n in names if "-" in n}
        assert own <= {role + "-" + party}
        info = p.read_json("models", ID, version, "info.json")
        assert info["party"] == party and info["model_version"] == version
        for name, of in info["files"].items():
            with open(os.path.join(top, name), "rb") as f:
                data = f.read()
            st = os.stat(os.path.join(top, name))
            assert len(data) == of["size"] == st.st_size
            assert hashlib.sha256(data).hexdigest() == of["sha256"]
            if name.endswith(("param.json", "meta.json")):
                assert stat.S_IMODE(st.st_mode) == 0o600
        assert read(top, "ctl") == ""


@pytest.mark.parametrize("script", [
    "find . -type f -size +0", "grep -r nothing-has-this . ; true", "du -s .", "ls -lR .",
    "tar cf - . | tar tf - | grep param.json", 'cp -r . "$1/cp"', 'rsync -a . "$1/rsync/"',
    "find . -exec getfattr -d {} +"])
def test_tools_over_all_models_finish(trained, tmp_path, script):
    sh(script, str(tmp_path), cwd=trained[0]["9999"].path("models"), seconds=10)


def test_nothing_is_written_into_a_version(trained, source):
    s, version = trained
    top = s["9999"].path("models", ID, version)
    for name in ("x.json", "train/x.json", "guest-9999/hetero_lr_0/more.json"):
        refused(errno.EEXIST, put, top, name, b"{}")
    refused(errno.EEXIST, os.mkdir, top + "/guest-9999/other")
    refused(errno.EPERM, os.rename, top + "/train/dsl.json", top + "/train/conf.json")
    refused(errno.EPERM, os.link, top + "/info.json", top + "/train/link.json")
    refused(errno.EPERM, os.symlink, "x", top + "/link")
    refused(errno.EEXIST, os.truncate, top + "/info.json", 3)
    refused(errno.EPERM, put, s["9999"].path("models"), "file", b"x")
    same(top, source)


def test_inode_numbers_survive_a_restart(target, source):
    p, d = target
    begin(d)
    for name, data in source.items():
        put(d, name, data)
    assert whole(d)
    files = [os.path.dirname(d), d, d + "/ctl"] + [os.path.join(d, n) for n in source]
    before = [os.stat(f).st_ino for f in files]
    listed = {e.inode() for e in os.scandir(d)}
    assert listed <= {os.lstat(os.path.join(d, n)).st_ino for n in os.listdir(d)}
    p.kill("rollfs")
    p.start()
    assert [os.stat(f).st_ino for f in files] == before


# ---- from one mount to another ---------------------------------------------

WAYS = {
    "tar in models": 'tar c "models/$3/$4" | (cd "$2/models" && tar x)',
    "tar at the top": 'tar c "models/$3/$4" | tar x -C "$2"',
    "tar one model": 'tar c -C models "$3/$4" | tar x -C "$2/models"',
    "tar, the last first": 'tar c -C models $(cd models && find "$3/$4" ! -type d | sort -r)'
                           ' | tar x -C "$2/models"',
    "cp -r": 'cp -r "models/$3" "$2/models/"',
    "cp -a": 'cp -a "models/$3" "$2/models/"',
    "rsync -a": 'rsync -a "models/$3" "$2/models/"',
    "rsync --inplace": 'rsync -a --inplace "models/$3" "$2/models/"',
    "rsync --checksum": 'rsync -rc "models/$3" "$2/models/"',
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_the_same_and_twice_is_once(trained, target, source, way):
    s, version = trained
    p, d = target
    args = (s["9999"].mount, p.mount, ID, version)
    for _ in range(2):
        sh('cd "$1"; ' + WAYS[way], *args)
        assert whole(d)
        same(d, source)
        assert os.listdir(d) == os.listdir(s["9999"].path("models", ID, version))
        assert os.listdir(p.path("models")) == [ID]
    if way == "rsync -a":
        r = sh('rsync -ai "$1/models/$3" "$2/models/" | grep ^[.]*[\\>]f; true', *args)
        assert r.stdout == ""
    left = os.path.join(p.state, "models", ".import")
    assert not os.path.exists(left) or os.listdir(left) == []


def test_python_copies_a_model(trained, target, source):
    s, version = trained
    shutil.copytree(s["9999"].path("models", ID, version), target[1], symlinks=True)
    assert whole(target[1])
    same(target[1], source)


def test_it_comes_in_any_order_and_missing_says_what_is_due(target, source, rng):
    p, d = target
    for _ in range(4):
        begin(d)
        order = list(source)
        rng.shuffle(order)
        due = set(source) - {"info.json"}
        for i, name in enumerate(order):
            assert not whole(d) and "ctl" not in os.listdir(d)
            text = read(d, "missing")
            assert os.stat(d + "/missing").st_size == len(text)
            if "info.json" in order[:i]:
                assert text.split() == sorted(due)
            else:
                assert text == "info.json\n"
            # What has come is seen; it is no version yet.
            assert {n for n in order[:i] if os.path.exists(os.path.join(d, n))} == set(order[:i])
            put(d, name, source[name])
            due.discard(name)
        assert whole(d)
        same(d, source)
        sh('rm -r "$1"', os.path.dirname(d))
    assert os.listdir(p.path("models")) == []


def test_many_writers_and_readers_at_once(target, source):
    p, d = target
    for _ in range(5):
        begin(d)
        stop, bad = threading.Event(), []

        def look(stop=stop, bad=bad):
            while not stop.is_set():
                r = sh('ls -lR "$1"; find "$1"; cat "$2/missing"', p.path("models"), d, ok=False,
                       seconds=60)
                if "Input/output" in r.stderr or "Bad address" in r.stderr:
                    bad.append(r.stderr)

        def write(name, bad=bad):
            try:
                put(d, name, source[name])
            except OSError as e:
                bad.append("%s: %s" % (name, e))

        readers = [threading.Thread(target=look) for _ in range(2)]
        writers = [threading.Thread(target=write, args=(n,)) for n in source]
        for n in source:
            os.makedirs(os.path.dirname(os.path.join(d, n)), exist_ok=True)
        for t in readers + writers:
            t.start()
        for t in writers:
            t.join(60 * SLOW)
        stop.set()
        for t in readers:
            t.join(60 * SLOW)
        assert not bad
        assert whole(d)
        same(d, source)
        sh('rm -r "$1"', d)


# ---- refused ----------------------------------------------------------------

def test_a_tampered_file_is_refused_when_it_is_closed(target, source):
    p, d = target
    name = "guest-9999/hetero_lr_0/param.json"
    data = source[name]
    begin(d)
    put(d, "info.json", source["info.json"])
    for bad, why in ((data.replace(b"1", b"2", 1), "SHA-256"), (data[:-1], "bytes"),
                     (data + b"\n", "bytes")):
        refused(errno.EBADMSG, put, d, name, bad)
        assert name in last_error(p) and why in last_error(p)
        assert not os.path.exists(os.path.join(d, name))
        assert name in read(d, "missing").split()
    for n in source:
        put(d, n, source[n])
    assert whole(d)
    same(d, source)


def test_a_tampered_file_is_refused_when_info_json_comes_last(target, source):
    p, d = target
    begin(d)
    bad = ["train/conf.json", "guest-9999/hetero_lr_0/meta.json"]
    for n in source:
        if n != "info.json":
            put(d, n, source[n] + b" " if n in bad else source[n])
    refused(errno.EBADMSG, put, d, "info.json", source["info.json"])
    assert all(n in last_error(p) for n in bad)
    assert read(d, "missing").split() == sorted(bad)
    for n in bad:
        put(d, n, source[n])
    assert whole(d)
    same(d, source)


def test_tar_ends_with_an_error_for_a_tampered_model(trained, target, source, tmp_path):
    s, version = trained
    p, d = target
    sh('cp -r "$1" "$2"', s["9999"].path("models", ID), str(tmp_path))
    with open(str(tmp_path / ID / version / "guest-9999/hetero_lr_0/param.json"), "ab") as f:
        f.write(b" ")
    r = sh('tar c -C "$1" "$3" | tar x -C "$2"', str(tmp_path), p.path("models"), ID, ok=False)
    assert r.returncode != 0 and "Bad message" in r.stderr, r.stderr
    assert "param.json" in last_error(p)
    assert not whole(d)
    assert read(d, "missing") == "guest-9999/hetero_lr_0/param.json\n"


def test_a_forged_info_json_is_refused(target, source):
    p, d = target
    begin(d)
    info = json.loads(source["info.json"])
    other = {**info["files"], "guest-10000/hetero_lr_0/param.json": info["files"]["train/dsl.json"]}
    out = {**info["files"], "../../x.json": info["files"]["train/dsl.json"]}
    big = {**info["files"], "train/dsl.json": {"size": 1 << 40, "sha256": "0" * 64}}
    for text, code, why in (
            (b"{", errno.EINVAL, "line"),
            (b"[]\n", errno.EINVAL, "object"),
            (source["info.json"] + b"{}", errno.EINVAL, "line"),
            (edited(source, model_version="1" * 24), errno.EBADMSG, "model_version"),
            (edited(source, model_id=ID.replace("10000", "10002")), errno.EBADMSG, "model_id"),
            (edited(source, roles={"guest": ["9999"]}), errno.EBADMSG, "roles"),
            (edited(source, party="10000"), errno.EACCES, "party 10000"),
            (edited(source, files=other), errno.EACCES, "guest-10000"),
            (edited(source, files=out), errno.EINVAL, "../../x.json"),
            (edited(source, files=big), errno.EINVAL, "train/dsl.json"),
            (edited(source, files={}), errno.EINVAL, "files"),
            (edited(source, version=2), errno.EINVAL, "version")):
        refused(code, put, d, "info.json", text)
        assert "info.json" in last_error(p) and why in last_error(p), last_error(p)
        assert not os.path.exists(d + "/info.json")
    assert read(d, "missing") == "info.json\n"


def test_a_file_that_is_no_json_is_refused_though_its_digest_is_right(target, source):
    _, d = target
    begin(d)
    name, data = "guest-9999/hetero_lr_0/param.json", b'{"a": NaN}\n'
    files = dict(json.loads(source["info.json"])["files"])
    files[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    put(d, "info.json", edited(source, files=files))
    refused(errno.EBADMSG, put, d, name, data)


def test_a_foreign_model_is_refused(trained, target):
    """The host's part in the guest's mount; a model of other parties."""
    s, version = trained
    p, d = target
    r = sh('tar c -C "$1" "$3" | tar x -C "$2"', s["10000"].path("models"), p.path("models"), ID,
           ok=False)
    assert r.returncode != 0
    assert "party 10000" in p.read("errors") and "party 9999" in p.read("errors")
    assert not whole(d)
    sh('rm -r "$1"', os.path.dirname(d))
    for name, code in (("guest-9998#host-10000#model", errno.EACCES), ("model", errno.EINVAL),
                       ("x", errno.EINVAL), ("guest-9999#host-10000", errno.EINVAL),
                       (".hidden", errno.EINVAL)):
        refused(code, os.mkdir, p.path("models", name))
        assert "models/" + name in last_error(p)


def test_only_names_of_a_model_come(target):
    p, d = target
    os.mkdir(os.path.dirname(d))
    for v in ("1", "x" * 24, "1" * 41):
        refused(errno.EINVAL, os.mkdir, os.path.join(os.path.dirname(d), v))
    refused(errno.EPERM, put, os.path.dirname(d), "file", b"x")
    os.mkdir(d)
    for name, code in (("x.json", errno.EPERM), ("train/x.json", errno.EPERM),
                       ("guest-9999/lr/x.json", errno.EPERM)):
        refused(code, put, d, name, b"{}")
        assert name in last_error(p)
    refused(errno.EPERM, os.mkdir, d + "/other")
    refused(errno.EACCES, os.mkdir, d + "/guest-10000")
    refused(errno.EPERM, os.symlink, "/etc/passwd", d + "/train/dsl.json")
    refused(errno.EPERM, os.symlink, "/etc/passwd", d + "/deployed")
    put(d, "info.json~", b"an editor's copy")
    assert not whole(d)


def test_sizes_are_bounded(target):
    p, d = target
    begin(d)
    for name, mib in (("info.json", 16), ("train/dsl.json", 64)):
        os.makedirs(os.path.dirname(os.path.join(d, name)), exist_ok=True)
        fd = os.open(os.path.join(d, name), os.O_WRONLY | os.O_CREAT)
        try:
            refused(errno.EFBIG, os.pwrite, fd, b"x", mib << 20)
            assert "%d MiB" % mib in last_error(p)
        finally:
            try:
                os.close(fd)
            except OSError as e:
                assert e.errno == errno.EFBIG


def test_other_bytes_do_not_replace_a_version(trained, target, source, tmp_path):
    p, d = target
    begin(d)
    for n in source:
        put(d, n, source[n])
    name = "guest-9999/hetero_lr_0/param.json"
    for bad in (source[name][:-1], source[name] + b" ", source[name].replace(b"1", b"2", 1)):
        refused(errno.EEXIST, put, d, name, bad)
        assert name in last_error(p) and "other bytes" in last_error(p)
    put(d, name, source[name])
    sh('cp -r "$1" "$2"', d, str(tmp_path))
    v = os.path.basename(d)
    with open(str(tmp_path / v / name), "ab") as f:
        f.write(b" ")
    for way in ('cp -r "$1" "$2/"', 'rsync -a "$1" "$2/"',
                'tar c -C "$(dirname "$1")" "$(basename "$1")" | tar x -C "$2"'):
        r = sh(way, str(tmp_path / v), os.path.dirname(d), ok=False)
        assert r.returncode != 0 and "param.json" in r.stderr, (way, r.stderr)
        same(d, source)
    assert whole(d)


# ---- unfinished ---------------------------------------------------------------

def test_a_truncated_archive_is_kept_and_finished_later(trained, target, source, tmp_path):
    s, version = trained
    _, d = target
    a = str(tmp_path / "a.tar")
    sh('tar cf "$2" -C "$1" "$3"', s["9999"].path("models"), a, ID + "/" + version)
    size = os.stat(a).st_size
    for cut in (size // 3, size // 2):
        sh('head -c "$3" "$1" | tar x -C "$2" || true', a, os.path.dirname(os.path.dirname(d)),
           str(cut))
        assert not whole(d)
        assert read(d, "missing") != ""
    sh('tar xf "$1" -C "$2"', a, os.path.dirname(os.path.dirname(d)))
    assert whole(d)
    same(d, source)


def test_an_unfinished_import_is_removed(target, source):
    p, d = target
    begin(d)
    for n in list(source)[:3]:
        put(d, n, source[n])
    refused(errno.ENOTEMPTY, os.rmdir, d)
    sh('rm -r "$1"', d)
    assert os.listdir(os.path.dirname(d)) == []
    os.rmdir(os.path.dirname(d))
    begin(d)
    assert os.listdir(d) == ["missing"]


def test_a_file_may_come_again_and_go_again(target, source):
    _, d = target
    begin(d)
    for n in source:
        if n != "train/dsl.json":
            put(d, n, source[n])
    assert read(d, "missing") == "train/dsl.json\n"
    os.unlink(d + "/train/conf.json")
    assert read(d, "missing") == "train/conf.json\ntrain/dsl.json\n"
    fd = os.open(d + "/info.json", os.O_WRONLY | os.O_TRUNC)
    put(d, "train/dsl.json", source["train/dsl.json"])
    put(d, "train/conf.json", source["train/conf.json"])
    assert not whole(d)  # info.json is written anew just now
    os.write(fd, source["info.json"])
    os.close(fd)
    assert whole(d)
    same(d, source)


def test_a_killed_writer_finishes_nothing(target, source):
    _, d = target
    begin(d)
    for n in source:
        if n != "train/dsl.json":
            put(d, n, source[n])
    pid = os.fork()
    if pid == 0:
        fd = os.open(d + "/train/dsl.json", os.O_WRONLY | os.O_CREAT)
        os.write(fd, source["train/dsl.json"])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.3)
    assert not whole(d) and read(d, "missing") == "train/dsl.json\n"


def test_rollfs_is_killed_in_the_midst_of_an_import(target, source):
    p, d = target
    begin(d)
    names = sorted(source, key=lambda n: n != "info.json")
    half = len(names) // 2
    for n in names[:half]:
        put(d, n, source[n])
    fd = os.open(os.path.join(d, "train/dsl.json"), os.O_WRONLY | os.O_CREAT) \
        if os.path.isdir(d + "/train") else None
    p.kill("rollfs")
    eventually(lambda: not p.pids("rollfs"), 10)
    if fd is not None:
        try:
            os.close(fd)
        except OSError:
            pass
    p.start()
    assert not whole(d)
    assert set(read(d, "missing").split()) >= set(names[half:])
    for n in names[:half]:
        if n != "train/dsl.json":
            assert os.path.exists(os.path.join(d, n)), n
    for n in names[half:] + ["train/dsl.json"]:
        if not whole(d):
            put(d, n, source[n])
    assert whole(d)
    same(d, source)


def test_a_whole_that_rollfs_did_not_see_is_taken_over(target, source):
    """It died between the last byte and its close; and a half-written file is
    due again."""
    p, d = target
    begin(d)
    name = "guest-9999/hetero_lr_0/param.json"
    for n in source:
        if n != name:
            put(d, n, source[n])
    p.kill("rollfs")
    disk = os.path.join(p.state, "models/.import", ID, os.path.basename(d), name)
    with open(disk, "wb") as f:
        f.write(source[name][:20])
    p.start()
    assert read(d, "missing") == name + "\n"
    p.kill("rollfs")
    with open(disk, "wb") as f:
        f.write(source[name])
    p.start()
    os.listdir(d)
    eventually(lambda: not os.path.exists(d + "/missing"), 5)
    assert whole(d)
    same(d, source)


def test_a_removed_version_is_gone(trained, target, source):
    p, d = target
    begin(d)
    for n in source:
        put(d, n, source[n])
    with open(d + "/info.json", "rb") as f:
        sh('rm -r "$1"', d)
        assert f.read() == source["info.json"]  # who has it open keeps it
    assert not os.path.exists(d)
    assert not os.path.exists(os.path.join(p.state, "models", ID, os.path.basename(d)))
    begin(d)
    for n in source:
        put(d, n, source[n])
    shutil.rmtree(os.path.dirname(d))
    assert os.listdir(p.path("models")) == []


# ---- ctl, deployed, predict/dsl.json ------------------------------------------

def test_ctl_refuses_what_it_does_not_know(trained):
    s, version = trained
    top = s["9999"].path("models", ID, version)
    r = sh('echo "depoly x" > "$1"', top + "/ctl", ok=False)
    assert r.returncode != 0 and "Invalid argument" in r.stderr
    assert "depoly" in last_error(s["9999"])
    r = sh('echo "deploy no_such_0" > "$1"', top + "/ctl", ok=False)
    assert r.returncode != 0 and "no_such_0" in last_error(s["9999"])
    r = sh('echo deploy > "$1"', s["10000"].path("models", ID, version, "ctl"), ok=False)
    assert r.returncode != 0 and "not permitted" in r.stderr, r.stderr
    assert not os.path.lexists(top + "/deployed")


def test_a_deployed_version_is_seen_and_moves(trained, target, source):
    s, version = trained
    p, d = target
    g = s["9999"]
    for party in ("9999", "10000", "10001"):
        assert os.listdir(s[party].path("models", ID)) == [version]
    sh('echo "deploy data_transform_0 hetero_lr_0" > "$1"', g.path("models", ID, version, "ctl"))
    link = os.readlink(g.path("models", ID, version, "deployed"))
    child = link[3:]
    assert link == "../" + child and child != version
    assert os.lstat(g.path("models", ID, version, "deployed")).st_size == len(link)
    top = g.path("models", ID, version, "deployed/")
    assert os.path.samefile(top, g.path("models", ID, child))
    for party in ("9999", "10000", "10001"):
        assert os.listdir(s[party].path("models", ID)) == [version, child]
    info = g.read_json("models", ID, child, "info.json")
    assert info["deployed"] and info["parent"] == version
    assert "predict/dsl.json" in info["files"]
    refused(errno.EEXIST, put, g.path("models", ID, child), "predict/dsl.json", b'{"a": 1}')
    # Both move, with the link between them; twice.
    for way in ('tar c "models/$3" | (cd "$2/models" && tar x)', 'cp -a "models/$3" "$2/models/"',
                'rsync -a "models/$3" "$2/models/"'):
        for _ in range(2):
            sh('cd "$1"; ' + way, g.mount, p.mount, ID)
            assert os.listdir(p.path("models", ID)) == [version, child]
            assert os.readlink(d + "/deployed") == link
            same(d, source)
            assert sh('diff -r "$1" "$2"', g.path("models", ID, child),
                      p.path("models", ID, child)).stdout == ""
        sh('rm -r "$1"', p.path("models", ID))
        assert os.listdir(p.path("models")) == []


def test_what_a_cut_archive_left_of_deployed_is_no_hindrance(trained, target, tmp_path):
    s, version = trained
    g, (p, _) = s["9999"], target
    if not os.path.lexists(g.path("models", ID, version, "deployed")):
        sh('echo "deploy data_transform_0 hetero_lr_0" > "$1"',
           g.path("models", ID, version, "ctl"))
    a = str(tmp_path / "a.tar")
    sh('tar cf "$2" -C "$1" "$3"', g.path("models"), a, ID + "/" + version)
    sh('head -c 6000 "$1" | tar x -C "$2" || true', a, p.path("models"))
    for _ in range(2):
        sh('tar xf "$1" -C "$2"', a, p.path("models"))
        assert os.listdir(p.path("models", ID)) == [version]


def test_a_version_in_use_is_whole_after_a_refused_removal(trained, tmp_path):
    s, version = trained
    g = s["9999"]
    if not os.path.lexists(g.path("models", ID, version, "deployed")):
        sh('echo "deploy data_transform_0 hetero_lr_0" > "$1"',
           g.path("models", ID, version, "ctl"))
    top = os.path.realpath(g.path("models", ID, version, "deployed"))
    sh('cp -r "$1" "$2"', top, str(tmp_path / "copy"))
    conf = g.read_json("models", ID, os.path.basename(top), "predict/conf.template.json")
    for role, ns in (("guest", "breast_guest"), ("host", "breast_host")):
        conf["component_parameters"]["role"][role]["0"]["reader_0"]["table"] = {
            "namespace": "experiment", "name": ns}
    stopped = s["10000"].pids("rollsite")
    job = g.submit_text(json.dumps(conf))
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        r = sh('rm -r "$1"', top, ok=False)
        assert r.returncode != 0 and "busy" in r.stderr, r.stderr
        assert "used" in last_error(g)
        assert sh('diff -r "$1" "$2"', top, str(tmp_path / "copy")).stdout == ""
        assert os.listdir(top) == os.listdir(g.path("models", ID, version, "deployed"))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert g.wait(job) == "success", g.error(job)
    sh('rm -r "$1"', top)
    assert not os.path.lexists(g.path("models", ID, version, "deployed"))
    assert os.listdir(g.path("models", ID)) == [version]


def test_an_own_predict_dsl_is_checked_and_kept(trained, tmp_path):
    s, version = trained
    g = s["9999"]
    f = g.path("models", ID, version, "predict/dsl.json")
    assert not os.path.exists(f)
    for bad in ('{"components": {"x": {"module": "NoSuch"}}}', "{nonsense}", "{}"):
        with open(str(tmp_path / "bad.json"), "w", encoding="utf-8") as o:
            o.write(bad)
        assert sh('cp "$1" "$2"', str(tmp_path / "bad.json"), f, ok=False).returncode != 0
        assert "predict/dsl.json" in last_error(g)
    assert not os.path.exists(f)
    r = sh("""echo '{"components": {"x": {"module": "NoSuch"}}}' > "$1" """, f, ok=False)
    assert r.returncode != 0  # the shell's own echo, told by write
    sh('echo "deploy data_transform_0 hetero_lr_0" > "$1"',
       g.path("models", ID, version, "ctl"))
    good = g.read("models", ID, version, "deployed/predict/dsl.json")
    with open(str(tmp_path / "good.json"), "w", encoding="utf-8") as o:
        o.write(good)
    for way in ('cp "$1" "$2"', 'cat "$1" > "$2"', 'rsync "$1" "$2"'):
        sh(way, str(tmp_path / "good.json"), f)
        assert json.loads(read(f)) == json.loads(good)
        os.unlink(f)
        assert not os.path.exists(f)


def test_a_random_storm_ends_with_the_model(target, source):
    """Files written, cut, removed and renamed in any order by two writers;
    what stands at the end is whole exactly when everything is right."""
    p, d = target
    rnd = random.Random(4)
    begin(d)
    names = sorted(source)
    for _ in range(150):
        n = rnd.choice(names)
        f = os.path.join(d, n)
        act = rnd.randrange(5)
        try:
            if act == 0:
                put(d, n, source[n][:rnd.randrange(len(source[n]))])
            elif act == 1 and os.path.exists(f):
                os.unlink(f)
            elif act == 2:
                put(d, os.path.dirname(n) + "/.tmp-x" if "/" in n else ".tmp-x", source[n])
                os.rename(os.path.join(d, os.path.dirname(n), ".tmp-x"), f)
            elif act == 3:
                read(d, "missing")
            elif n != "train/dsl.json":
                put(d, n, source[n])
        except OSError as e:
            assert e.errno in (errno.EBADMSG, errno.EINVAL, errno.ENOENT), e
        if whole(d):
            same(d, source)
            sh('rm -r "$1"', d)
            begin(d)
    for n in names:
        if not whole(d):
            put(d, n, source[n])
    assert whole(d)
    same(d, source)
