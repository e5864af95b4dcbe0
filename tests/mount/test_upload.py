# SPDX-License-Identifier: Apache-2.0
"""Tables as files: uploading, reading, copying, refusing."""
import errno
import os
import subprocess

import pytest
from conftest import DATA, read

SMALL = "id,y,x0\n1,1,0.5\n2,0,-1\n10,1,3e-7\n"
SORTED = "id,y,x0\n1,1,0.5\n10,1,3e-7\n2,0,-1\n"


@pytest.fixture(scope="module")
def p(sandboxes):
    return sandboxes("9999")["9999"]


def sh(p, script, **env):
    r = subprocess.run(["bash", "-c", script], cwd=p.mount, capture_output=True, text=True,
                       timeout=60, env=dict(os.environ, DATA=DATA, **env), check=False)
    return r


def test_cp_uploads_and_reads_back(p):
    r = sh(p, "mkdir -p tables/experiment/g && cp $DATA/breast_guest.csv tables/experiment/g/data.csv")
    assert r.returncode == 0, r.stderr
    lines = read(DATA, "breast_guest.csv").splitlines(keepends=True)
    want = lines[0] + "".join(sorted(lines[1:], key=lambda x: x.split(",")[0].encode()))
    assert p.read("tables/experiment/g/data.csv") == want
    assert p.read("tables/experiment/g/count") == "569\n"


def test_tools_agree_on_the_size(p):
    p.upload("experiment", "t", SMALL)
    f = p.path("tables/experiment/t/data.csv")
    assert os.stat(f).st_size == len(SORTED)
    r = sh(p, "cd tables/experiment/t; wc -l <data.csv; head -1 data.csv; tail -c 8 data.csv;"
              "cp data.csv /tmp/rollfs-t-$$ && cmp data.csv /tmp/rollfs-t-$$ && rm /tmp/rollfs-t-$$")
    assert r.returncode == 0, r.stderr
    assert r.stdout == "4\nid,y,x0\n\n2,0,-1\n"


@pytest.mark.parametrize("how", ["cat >", "tee", "dd of=", "rsync"])
def test_ways_to_write(p, how):
    script = {"cat >": "cat $DATA/breast_host.csv >$T/data.csv",
              "tee": "tee $T/data.csv <$DATA/breast_host.csv >/dev/null",
              "dd of=": "dd if=$DATA/breast_host.csv of=$T/data.csv bs=1000 status=none",
              "rsync": "cp $DATA/breast_host.csv /tmp/rollfs-$$.csv; "
                       "rsync /tmp/rollfs-$$.csv $T/data.csv; s=$?; rm /tmp/rollfs-$$.csv; exit $s"}
    r = sh(p, "mkdir -p $T && " + script[how], T="tables/ways/" + how.split()[0])
    assert r.returncode == 0, r.stderr
    assert p.read("tables/ways", how.split()[0], "count") == "569\n"


@pytest.mark.parametrize("name, text, words", [
    ("ragged", "id,a,b\n1,2,3\n4,5\n", ["3"]),
    ("too_many", "id,a\n1,2\n4,5,6\n", ["3"]),
    ("duplicate_id", "id,a\n1,2\n3,4\n1,5\n", ["4"]),
    ("not_utf8", b"id,a\n1,\xff\xfe\n", ["2"]),
    ("no_header", "1,2\n3,4\n", ["1"]),
    ("open_quote", 'id,a\n1,"2\n', ["2"]),
    ("empty_id", "id,a\n,2\n", ["2"]),
    ("duplicate_column", "id,a,a\n1,2,3\n", ["1"]),
    ("semicolons", "id;y;x\n1;2;3\n", ["1", "write \"id_delimiter\": \";\" into upload.json"]),
])
def test_a_malformed_upload_leaves_the_old_table(p, name, text, words):
    p.upload("bad", name, SMALL)
    with pytest.raises(OSError) as e:
        p.upload("bad", name, text)
    assert e.value.errno == errno.EINVAL
    said = p.read("errors").splitlines()[0:3]
    assert any("bad/" + name in x for x in said), said
    for w in words:
        assert any(w in x for x in said)
    if words:
        assert "line" in " ".join(said)
    assert p.read("tables/bad", name, "data.csv") == SORTED


def test_cp_itself_fails_on_a_malformed_row(p):
    r = sh(p, "mkdir -p tables/bad/cp; printf 'id,a\\n1\\n' >/tmp/rollfs-$$; "
              "cp /tmp/rollfs-$$ tables/bad/cp/data.csv; s=$?; rm /tmp/rollfs-$$; exit $s")
    assert r.returncode != 0 and "Invalid argument" in r.stderr


def test_replacing_shows_the_new_rows(p):
    p.upload("experiment", "again", SMALL)
    p.upload("experiment", "again", "id,q\na,1\n")
    assert p.read("tables/experiment/again/data.csv") == "id,q\na,1\n"


def test_a_reader_keeps_the_generation_it_opened(p):
    p.upload("experiment", "held", SMALL)
    with open(p.path("tables/experiment/held/data.csv"), encoding="utf-8") as f:
        p.upload("experiment", "held", "id,q\na,1\n")
        assert f.read() == SORTED


def test_mv_renames_and_rm_drops(p):
    p.upload("experiment", "old", SMALL)
    r = sh(p, "cd tables/experiment; mv old new && test ! -e old && cat new/data.csv && rm -r new && test ! -e new")
    assert r.returncode == 0 and r.stdout == SORTED, r.stderr


def test_what_cp_r_wrote_stays_when_the_kernel_forgets_the_table(p):
    """It makes schema.json before data.csv and sets its times afterwards."""
    t = p.path("tables/copies/slow")
    os.makedirs(t + "/parts")
    with open(t + "/schema.json", "x", encoding="utf-8") as f:
        f.write("{}\n")
    with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as f:
        f.write("2\n")
    os.utime(t + "/schema.json")
    assert os.path.isdir(t + "/parts")
    with open(t + "/data.csv", "x", encoding="utf-8") as f:
        f.write("id,x\n1,2\n")
    assert p.read_json("tables/copies/slow/schema.json")["count"] == 1


def test_cp_r_copies_a_table(p):
    p.upload("experiment", "src", SMALL)
    r = sh(p, "cd tables/experiment; cp -r src dst && cat dst/data.csv && rm -r dst")
    assert r.returncode == 0 and r.stdout == SORTED, r.stderr


def test_schema_says_what_the_table_is(p):
    p.upload("experiment", "s", SMALL)
    s = p.read_json("tables/experiment/s/schema.json")
    assert s["id"] == "id" and s["count"] == 3
    assert [c["name"] for c in s["columns"]] == ["y", "x0"]


def test_rows_are_looked_up_and_the_first_are_listed(p):
    p.upload("experiment", "r", 'id,v\na/b,1\nplain,"x,y"\n')
    assert sorted(os.listdir(p.path("tables/experiment/r/rows"))) == ["a%2Fb", "plain"]
    assert "rows" not in os.listdir(p.path("tables/experiment/r"))
    assert "x,y" in p.read("tables/experiment/r/rows/plain")
    assert "1" in p.read("tables/experiment/r/rows/a%2Fb")
    with pytest.raises(FileNotFoundError):
        p.read("tables/experiment/r/rows/none")


def test_a_row_is_found_by_all_of_its_key(p):
    p.upload("t", "keys", "id,v\n1,2\n")
    assert p.read("tables/t/keys/rows/%31") == "1,2\n"
    for key in ("1%00", "1%002", "%001", "1%0"):
        assert not os.path.exists(p.path("tables/t/keys/rows", key)), key


def test_parts_together_are_the_table(p):
    p.upload_file("experiment", "parts", DATA + "/breast_host.csv")
    d = p.path("tables/experiment/parts/parts")
    rows = []
    for n in sorted(os.listdir(d), key=lambda x: int(x.split(".")[0])):
        text = read(d, n)
        assert os.stat(os.path.join(d, n)).st_size == len(text)
        rows += text.splitlines()[1:]
    assert rows == p.read("tables/experiment/parts/data.csv").splitlines()[1:]


def test_unusual_upload_options(p):
    os.makedirs(p.path("tables/experiment/opts"))
    with open(p.path("tables/experiment/opts/upload.json"), "w") as f:
        f.write('{"head": 1, "id_delimiter": ";", "partition": 3}')
    with open(p.path("tables/experiment/opts/data.csv"), "w") as f:
        f.write("id;a\n1;2\n3;4\n")
    assert p.read("tables/experiment/opts/data.csv") == "id,a\n1,2\n3,4\n"


def test_what_is_wrong_in_upload_json_is_told_once(p):
    p.upload("options", "tab", SMALL)
    with pytest.raises(OSError):
        with open(p.path("tables/options/tab/upload.json"), "w", encoding="utf-8") as f:
            f.write('{"id_delimiter": "tab"}')
    with pytest.raises(OSError):
        p.upload("options", "tab", SMALL)
    text = 'upload.json#/id_delimiter: expected one character (a tab is "\\t")'
    assert p.read("errors").splitlines()[1] == text


def test_bom_and_crlf_are_understood(p):
    p.upload("experiment", "dos", b"\xef\xbb\xbfid,a\r\n1,2\r\n")
    assert p.read("tables/experiment/dos/data.csv") == "id,a\n1,2\n"


def test_walking_tools_finish(p, tmp_path):
    p.upload("experiment", "walk", SMALL)
    for cmd in ("find .", "grep -r nothing-like-this .; test $? = 1", "du -s .",
                "tar cf - . | cat >/dev/null", "rsync -a ./ " + str(tmp_path / "copy")):
        r = sh(p, "timeout 60 bash -c %r" % cmd)
        assert r.returncode == 0, (cmd, r.stderr)
    assert read(tmp_path, "copy/tables/experiment/walk/data.csv") == SORTED
