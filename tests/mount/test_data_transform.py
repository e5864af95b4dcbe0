# SPDX-License-Identifier: Apache-2.0
"""DataTransform over tables as FATE's users have them, through a real mount.
What comes out is compared with a computation of its own, in plain Python."""
import csv
import io
import json
import math
import os
import random
import subprocess

import pytest
from conftest import SLOW, Refused, eventually, read

MISSING = ("", "NULL", "null", "NA", "na", "none", "None", "nan", "NaN")


@pytest.fixture(scope="module")
def p(sandboxes):
    return sandboxes("9999")["9999"]


def upload(p, name, text, **options):
    os.makedirs(p.path("tables/transform", name), exist_ok=True)
    if options:
        with open(p.path("tables/transform", name, "upload.json"), "w", encoding="utf-8") as f:
            json.dump(options, f)
    p.upload("transform", name, text)


def job(tables, **transforms):
    """A job of the guest alone: transforms is component -> (table, the
    component whose model it takes or None, parameters)."""
    dsl = {"components": {}}
    role = {}
    for i, t in enumerate(tables):
        dsl["components"]["reader_%d" % i] = {"module": "Reader", "output": {"data": ["data"]}}
        role["reader_%d" % i] = {"table": {"namespace": "transform", "name": t}}
    common = {}
    for name, (table, model, params) in transforms.items():
        module = params.pop("module", "DataTransform")
        c = {"module": module, "output": {"data": ["data"], "model": ["model"]},
             "input": {"data": {"data": ["reader_%d.data" % tables.index(table)]}}}
        if model:
            c["input"]["model"] = [model + ".model"]
        dsl["components"][name] = c
        if params:
            common[name] = params
    conf = {"dsl_version": 2, "initiator": {"role": "guest", "party_id": 9999},
            "role": {"guest": [9999]},
            "component_parameters": {"common": common, "role": {"guest": {"0": role}}}}
    return dsl, conf


def out(p, number, component):
    """(names, {id: fields}) of an output table."""
    text = p.read("jobs", number, "guest", component, "out/data/data.csv")
    rows = list(csv.reader(io.StringIO(text)))
    return rows[0], {r[0]: r[1:] for r in rows[1:]}


def schema(p, number, component):
    return p.read_json("jobs", number, "guest", component, "out/data/schema.json")


def run_one(p, table, **params):
    number = p.run(*job([table], data_transform_0=(table, None, params)))
    return number, out(p, number, "data_transform_0")


def same(row, want):
    """Fields of a row against numbers, None = missing."""
    assert len(row) == len(want)
    for a, b in zip(row, want):
        if b is None:
            assert a == ""
        else:
            assert float(a) == b, (row, want)


# ---- svmlight ----------------------------------------------------------------

def svmlight_rows(rng, n, width):
    rows = {}
    for i in range(n):
        some = rng.sample(range(width), rng.randrange(0, width // 2))
        rows["s%d" % i] = (rng.randrange(2), {k: rng.choice([-1, .5, 7, 1e-3]) for k in some})
    return rows


@pytest.mark.parametrize("id_delimiter, delimiter", [(" ", " "), (",", " "), (",", ",")])
def test_svmlight_files_become_dense_columns(p, rng, id_delimiter, delimiter):
    rows = svmlight_rows(rng, 200, 30)
    text = "".join(i + id_delimiter + delimiter.join(
        [str(y)] + ["%d:%r" % kv for kv in x.items()]) + "\n" for i, (y, x) in rows.items())
    upload(p, "svm", text, head=0, id_delimiter=id_delimiter, partition=4, file="a.svm",
           namespace="other", table_name="other", drop=1, with_meta=True,
           meta={"input_format": "sparse", "delimiter": delimiter, "with_label": True,
                 "label_type": "int"})
    number, (names, got) = run_one(p, "svm")
    width = 1 + max(max(x, default=-1) for _, x in rows.values())
    assert names == ["id", "label"] + ["x%d" % i for i in range(width)]
    assert set(got) == set(rows)
    for i, (y, x) in rows.items():
        same(got[i], [y] + [x.get(k, 0) for k in range(width)])
    s = schema(p, number, "data_transform_0")
    assert s["label"] == "label" and s["columns"][1]["anonymous"] == "guest_9999_x0"


# ---- tags --------------------------------------------------------------------

def test_tags_become_sorted_columns(p, rng):
    tags = ["red", "Red", "zebra", "a b", "\u00e4", "10", "9"]
    rows = {"t%d" % i: rng.sample(tags, rng.randrange(0, 4)) for i in range(100)}
    upload(p, "tags", "".join(",".join([i] + x) + "\n" for i, x in rows.items()),
           head=0, meta={"input_format": "tag"})
    _, (names, got) = run_one(p, "tags")
    want = sorted({t for x in rows.values() for t in x}, key=lambda t: t.encode())
    assert names == ["id"] + want
    for i, x in rows.items():
        same(got[i], [1 if t in x else 0 for t in want])


def test_tags_with_values_are_filled(p, rng):
    tags = ["h", "w", "age", "y0"]
    rows = {"t%d" % i: (rng.random(), {t: rng.randrange(-9, 9) / 4 for t in
                                       rng.sample(tags, rng.randrange(0, 5))})
            for i in range(120)}
    text = "".join("%s,%r;%s\n" % (i, y, ";".join("%s=%r" % kv for kv in x.items()))
                   for i, (y, x) in rows.items())
    upload(p, "tagged", text, head=0, with_meta=1,
           meta={"input_format": "tag", "tag_with_value": True, "delimiter": ";",
                 "tag_value_delimiter": "=", "with_label": True, "label_type": "float"})
    for method, f in (("min", min), ("max", max), ("mean", lambda v: sum(v) / len(v))):
        number, (names, got) = run_one(p, "tagged", missing_fill=True, missing_fill_method=method)
        want = sorted(tags)
        assert names == ["id", "label"] + want
        fill = {t: f([x[t] for _, x in rows.values() if t in x]) for t in want}
        model = p.read_json("jobs", number, "guest/data_transform_0/model/model.json")["param"]
        for h in model["header"]:
            n = sum(h["name"] not in x for _, x in rows.values())
            assert h["missing_rate"] == n / len(rows)
            assert math.isclose(h["missing_value"], fill[h["name"]], rel_tol=1e-12)
        for i, (y, x) in rows.items():
            assert float(got[i][0]) == y
            for t, v in zip(want, got[i][1:]):
                assert math.isclose(float(v), x.get(t, fill[t]), rel_tol=1e-12, abs_tol=1e-15)


# ---- dense -------------------------------------------------------------------

def dense_table(rng, n=300, width=8):
    """Names with a delimiter inside, cells that are missing in several ways."""
    names = ["x%d" % i for i in range(width - 2)] + ["a,b", 'c "d"']
    rows = {"d%d" % i: [rng.choice(MISSING) if rng.random() < .2 else
                        "-9999" if rng.random() < .05 else repr(rng.randrange(-50, 50) / 8)
                        for _ in names] + [str(rng.randrange(3))] for i in range(n)}
    f = io.StringIO()
    w = csv.writer(f, lineterminator="\n")
    w.writerow(["id"] + names + ["y"])
    w.writerows([i] + x for i, x in rows.items())
    return names, rows, f.getvalue()


def numbers(rows, k, without=("-9999",)):
    return [float(x[k]) for x in rows.values() if x[k] not in MISSING and x[k] not in without]


@pytest.mark.parametrize("method, f", [
    (None, lambda v: 0), ("min", min), ("max", max), ("mean", lambda v: math.fsum(v) / len(v)),
    ("designated", None)])
def test_fills_and_rates_equal_a_count_in_python(p, rng, method, f):
    names, rows, text = dense_table(rng)
    upload(p, "dense", text)
    own = [k / 2 for k in range(len(names))]
    params = {"with_label": True, "missing_fill": True, "missing_fill_method": method,
              "outlier_replace": True, "outlier_replace_method": method,
              "outlier_impute": [-9999]}
    if method == "designated":
        params.update({"default_value": own, "outlier_replace_value": -1})
    number, (header, got) = run_one(p, "dense", **params)
    assert header == ["id", "y"] + names
    model = p.read_json("jobs", number, "guest/data_transform_0/model/model.json")["param"]
    for k, h in enumerate(model["header"]):
        fill = own[k] if f is None else f(numbers(rows, k))
        other = -1 if f is None else fill
        assert h["name"] == names[k]
        assert math.isclose(h["missing_value"], fill, rel_tol=1e-12, abs_tol=1e-15)
        assert h["missing_rate"] == sum(x[k] in MISSING for x in rows.values()) / len(rows)
        assert h["outlier_rate"] == sum(x[k] == "-9999" for x in rows.values()) / len(rows)
        for i, x in rows.items():
            want = fill if x[k] in MISSING else other if x[k] == "-9999" else float(x[k])
            assert math.isclose(float(got[i][k + 1]), want, rel_tol=1e-12, abs_tol=1e-15)
    for i, x in rows.items():
        assert got[i][0] == x[-1]


def test_without_a_fill_missing_cells_stay_missing(p, rng):
    names, rows, text = dense_table(rng)
    upload(p, "dense", text)
    _, (_, got) = run_one(p, "dense", with_label=True, label_type="float32", module="DataIO")
    for i, x in rows.items():
        same(got[i], [float(x[-1])] + [None if v in MISSING else float(v) for v in x[:-1]])


def test_made_ids_and_match_ids(p):
    upload(p, "visits", "mail,tel,y,x0\nq,1,1,5\nq,2,0,6\n", extend_sid=True,
           meta={"with_match_id": True, "id_list": ["mail", "tel"], "with_label": True})
    number, (names, got) = run_one(p, "visits", match_id_name="mail")
    assert names == ["extend_sid", "mail", "y", "x0"]
    assert [got[i] for i in sorted(got)] == [["q", "1", "5"], ["q", "0", "6"]]
    s = schema(p, number, "data_transform_0")
    assert s["match_id"] == "mail" and s["label"] == "y"


# ---- with a model ------------------------------------------------------------

def test_new_rows_are_brought_to_the_training_header(p, rng):
    names, rows, text = dense_table(rng)
    upload(p, "dense", text)
    order = list(range(len(names)))
    rng.shuffle(order)
    f = io.StringIO()
    w = csv.writer(f, lineterminator="\n")
    w.writerow(["uid", "more"] + [names[k] for k in order])
    ids = list(rows)
    rng.shuffle(ids)
    w.writerows([i, "text"] + [rows[i][k] for k in order] for i in ids)
    upload(p, "new", f.getvalue())
    number = p.run(*job(
        ["dense", "new"],
        data_transform_0=("dense", None, {"with_label": True, "missing_fill": True,
                                          "missing_fill_method": "mean"}),
        data_transform_1=("new", "data_transform_0", {})))
    header, trained = out(p, number, "data_transform_0")
    header1, new = out(p, number, "data_transform_1")
    assert header1 == ["uid"] + header[2:] # no label there
    assert new == {i: x[1:] for i, x in trained.items()}
    assert p.read("jobs", number, "guest/data_transform_1/model/model.json") == \
        p.read("jobs", number, "guest/data_transform_0/model/model.json")


def test_a_missing_training_column_is_named(p):
    upload(p, "whole", "id,x0,x1,x2\na,1,2,3\n")
    upload(p, "part", "id,x2,x0\na,1,2\n")
    number = p.submit(*job(["whole", "part"], data_transform_0=("whole", None, {}),
                           data_transform_1=("part", "data_transform_0", {})))
    assert p.wait(number) == "failed"
    assert "the column x1 of the training data is missing" in p.error(number)


def test_unknown_tags_are_ignored(p):
    meta = {"input_format": "tag"}
    upload(p, "seen", "a,red\nb,blue,round\n", head=0, meta=meta)
    upload(p, "unseen", "c,green,round\nd\n", head=0, meta=meta)
    number = p.run(*job(["seen", "unseen"], data_transform_0=("seen", None, {}),
                        data_transform_1=("unseen", "data_transform_0", {})))
    assert out(p, number, "data_transform_1") == (
        ["id", "blue", "red", "round"], {"c": ["0", "0", "1"], "d": ["0", "0", "0"]})


# ---- refusals ----------------------------------------------------------------

def test_bad_cells_are_told_by_column_and_count(p):
    upload(p, "dirty", "id,x0,x1\na,1,secret-1\nb,2,3\nc,4,secret-2\n")
    number = p.submit(*job(["dirty"], data_transform_0=("dirty", None, {})))
    assert p.wait(number) == "failed"
    assert "column x1: 2 rows without a number" in p.error(number)
    r = subprocess.run(["grep", "-r", "secret-", p.path("jobs", number, "log"),
                        p.path("jobs", number, "error"), p.path("jobs", number, "events")],
                       capture_output=True, text=True, check=False)
    assert r.returncode == 1, r.stdout


@pytest.mark.parametrize("params, word", [
    ({"input_format": "libsvm"}, "input_format"), ({"delimitor": ""}, "delimitor"),
    ({"missing_fill_method": "median"}, "missing_fill_method"),
    ({"label_type": "bool"}, "label_type"), ({"output_format": "csr"}, "output_format"),
    ({"exclusive_data_type": {"x0": "money"}}, "exclusive_data_type/x0"),
    ({"input_format": "tag", "data_type": "str"}, "data_type"),
    ({"match_id_index": -1}, "match_id_index"), ({"missing_impute": "NA"}, "missing_impute"),
    ({"default_value": {"x0": 1}}, "default_value")])
def test_illegal_parameters_are_refused_at_submission(p, params, word):
    with pytest.raises(Refused) as e:
        p.submit(*job(["none"], data_transform_0=("none", None, params)))
    assert word in e.value.text


def test_illegal_upload_options_are_refused_when_they_are_written(p):
    os.makedirs(p.path("tables/transform/refused"), exist_ok=True)
    f = p.path("tables/transform/refused/upload.json")
    for text, word in (('{"meta": {"input_format": "libsvm"}}', "meta/input_format"),
                       ('{"heads": 0}', "heads"), ('{"head": 0', "upload.json")):
        with pytest.raises(OSError):
            with open(f, "w", encoding="utf-8") as o:
                o.write(text)
        assert word in p.read("errors")
    os.remove(f)  # it stays, and no rows are taken, until it is mended or removed
    # As an editor or rsync writes it: aside, then renamed.
    aside = p.path("tables/transform/refused/.upload.json.Ab3xYz")
    for text, good in (('{"heads": 0}', False), ('{"head": 0}', True)):
        with open(aside, "w", encoding="utf-8") as o:
            o.write(text)
        if good:
            os.rename(aside, f)
        else:
            with pytest.raises(OSError):
                os.rename(aside, f)
            assert "heads" in p.read("errors") and not os.path.exists(f)
    assert read(f) == '{"head": 0}'


def test_rows_of_unequal_length_say_what_to_write(p):
    with pytest.raises(OSError):
        upload(p, "ragged", "a,1,0:3\nb,1,0:3,1:4\n", head=0)
    assert "input_format" in p.read("errors")


def test_a_table_copied_away_and_back_is_the_same(p, tmp_path):
    """Through a disk, where nothing is shared: upload.json goes first."""
    meta = {"input_format": "sparse", "with_label": True}
    upload(p, "src", "a,1,0:3\nb,0,0:3,1:4\n", head=0, meta=meta)
    upload(p, "made", "q,5\nq,6\n", head=0, extend_sid=True)
    for name in ("src", "made"):
        there, back = str(tmp_path / name), p.path("tables/transform", name + "_back")
        os.mkdir(there)
        os.mkdir(back)
        for f in ("upload.json", "data.csv"):
            subprocess.run(["cp", p.path("tables/transform", name, f), there], check=True)
            subprocess.run(["cp", os.path.join(there, f), back], check=True)
        assert read(back, "data.csv") == p.read("tables/transform", name, "data.csv")
    number, (names, got) = run_one(p, "src_back")
    assert names == ["id", "label", "x0", "x1"]
    assert got == {"a": ["1", "3", "0"], "b": ["0", "3", "4"]}
    assert schema(p, number, "reader_0")["extra"] == {"meta": meta}
    # Inside the mount the copy shares the rows, and what belongs to them.
    subprocess.run(["cp", "-r", p.path("tables/transform/src"),
                    p.path("tables/transform/src_copy")], check=True)
    assert run_one(p, "src_copy")[1][1] == got
    # tar keeps the order in which the mount lists them.
    os.makedirs(p.path("tables/tarred"))
    subprocess.run("tar cf - src | (cd ../tarred && tar xf -)", shell=True, check=True,
                   cwd=p.path("tables/transform"), timeout=60)
    assert p.read_json("tables/tarred/src/schema.json")["extra"] == {"meta": meta}
    assert p.read("tables/tarred/src/data.csv") == p.read("tables/transform/src/data.csv")


def peak_kib(pid):
    try:
        for line in read("/proc", str(pid), "status").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def test_a_large_file_is_streamed(p):
    """What the task needs does not grow with the rows: 4 times the rows, about
    the same memory."""
    rng = random.Random(7)
    peaks = []
    for n in (25000, 100000):
        text = "".join("r%d %d %s\n" % (i, i & 1, " ".join(
            "%d:%d" % (k, rng.randrange(9)) for k in range(i % 3, 40, 3))) for i in range(n))
        upload(p, "large", text, head=0, id_delimiter=" ",
               meta={"input_format": "sparse", "delimiter": " ", "with_label": True})
        number = p.submit(*job(["large"], data_transform_0=(
            "large", None, {"missing_fill": True, "missing_fill_method": "mean"})))
        peak = [0]

        def ended():
            for pid in p.pids("rollfs-task"):
                peak[0] = max(peak[0], peak_kib(pid))
            return p.status(number) in ("success", "failed")

        eventually(ended, 60)
        assert p.status(number) == "success", p.error(number)
        assert p.read_json("jobs", number, "guest/data_transform_0/summary.json")["count"] == n
        assert peak[0] > 0
        peaks.append(peak[0])
    # A sanitizer keeps what was freed for a while.
    assert peaks[1] < peaks[0] + 16 * 1024 * SLOW, peaks
