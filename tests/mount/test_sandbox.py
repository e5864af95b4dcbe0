# SPDX-License-Identifier: Apache-2.0
"""tools/sandbox, the processes of a party, and what stands in a mount."""
import os
import stat
import subprocess

from conftest import BUILD, SANDBOX, SLOW, eventually, processes


def test_every_party_answers_every_other(three):
    for p in three.parties.values():
        for q in three.parties:
            if q != p.id:
                assert p.read("parties", q, "ping").startswith("ok")


def test_up_again_changes_nothing(three):
    before = sorted(pid for pid, a in processes(three.dir) if a[0].endswith("rollfs"))
    out = three.run("up", three.dir, *three.parties)
    assert out.count("\n") == 3
    assert sorted(pid for pid, a in processes(three.dir) if a[0].endswith("rollfs")) == before


def test_each_party_is_one_rollfs_and_one_rollsite(three):
    for p in three.parties.values():
        assert len(p.pids("rollfs")) == 1
        assert len(p.pids("rollsite")) == 1


def test_only_rollsite_links_the_network_and_rollfs_no_component():
    needed = {x: subprocess.run(["ldd", os.path.join(BUILD, x)], capture_output=True,
                                text=True, check=True).stdout
              for x in ("rollfs", "rollsite", "rollfs-task")}
    assert "rocksdb" not in needed["rollsite"]
    assert "microhttpd" not in needed["rollfs"]
    assert "microhttpd" not in needed["rollfs-task"] and "libcurl" not in needed["rollfs-task"]


def test_keys_and_state_are_private(three):
    for p in three.parties.values():
        assert stat.S_IMODE(os.stat(p.state).st_mode) == 0o700
        key = os.path.join(three.dir, "etc", p.id + ".key")
        assert stat.S_IMODE(os.stat(key).st_mode) & 0o077 == 0


def test_top_of_the_mount(three):
    names = set(os.listdir(three[9999].mount))
    assert {"jobs", "tables", "federation", "parties", "components", "errors", "version"} <= names


def test_components_describe_themselves(three):
    have = set(os.listdir(three[9999].path("components")))
    for module in ("Reader", "DataTransform", "Intersection", "HeteroLR", "Evaluation",
                   "SecureAddExample"):
        assert module + ".json" in have
        assert three[9999].read_json("components", module + ".json")


def test_two_sandboxes_at_once_and_down_twice(sandboxes):
    a, b = sandboxes("1", "2"), sandboxes("1", "2")
    for s in a, b:
        eventually(lambda s=s: s[1].read("parties/2/ping").startswith("ok"))
    a.run("down", a.dir)
    a.run("down", a.dir)
    assert not a.mounts() and not processes(a.dir)
    eventually(lambda: b[1].read("parties/2/ping").startswith("ok"))


def test_umount_alone_stops_everything(sandboxes):
    s = sandboxes("7")
    subprocess.run(["umount" if os.getuid() == 0 else "fusermount3",
                    *([] if os.getuid() == 0 else ["-u"]), s[7].mount], check=True)
    eventually(lambda: not processes(s.dir), 5)


def test_bad_party_is_refused(tmp_path):
    r = subprocess.run([SANDBOX, "up", str(tmp_path / "x"), "nine"], capture_output=True,
                       text=True, check=False)
    assert r.returncode == 1 and "nine" in r.stderr


def run_rollfs(tmp_path, text, key_mode=0o600):
    conf = tmp_path / "p.conf"
    conf.write_text(text)
    for name in ("p.pem", "ca.pem"):
        (tmp_path / name).write_text("no certificate")
    key = tmp_path / "p.key"
    key.write_text("no key")
    key.chmod(key_mode)
    (tmp_path / "m").mkdir(exist_ok=True)
    r = subprocess.run([os.path.join(BUILD, "rollfs"), str(conf), str(tmp_path / "m"), "-f"],
                       capture_output=True, text=True, timeout=60 * SLOW, check=False)
    assert r.returncode != 0
    return r.stderr


GOOD = """[rollfs]
party = 9
federation = f
state = %s
listen = 127.0.0.1:1
certificate = p.pem
key = p.key
ca = ca.pem
"""


def test_unknown_key_is_refused_with_file_and_line(tmp_path):
    text = GOOD % (tmp_path / "state") + "colour = red\n"
    err = run_rollfs(tmp_path, text)
    assert "p.conf:9:" in err and "colour" in err


def test_bad_value_is_refused_with_file_and_line(tmp_path):
    err = run_rollfs(tmp_path, GOOD.replace("party = 9", "party = nine") % (tmp_path / "state"))
    assert "p.conf:2:" in err


def test_readable_key_is_refused(tmp_path):
    err = run_rollfs(tmp_path, GOOD % (tmp_path / "state"), key_mode=0o640)
    assert "p.key" in err and "p.conf:" in err
