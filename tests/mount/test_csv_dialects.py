# SPDX-License-Identifier: Apache-2.0
"""Uploads against Python's csv module: what it writes in any dialect is read
as it reads it, to the byte."""
import csv
import io
import itertools
import json
import os

import pytest

ROWS = 700  # times the dialects: more than 10,000 rows
BITS = ("", "a", "B7", "0.5", "-1e9", " ", "\t", ",", ";", "|", '"', '""', "\n", "\r\n", "\r",
        "é", "漢", "\U0001f600", "'", "\\", "x" * 70, "NA", "#", "\u00a0")
DIALECTS = list(itertools.product((",", ";", "\t", "|"), ("\n", "\r\n"),
                                  (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))


@pytest.fixture(scope="module")
def p(sandboxes):
    # Sorted in pieces, and merged.
    return sandboxes("9999", ROLLFS_TEST_SORT_BYTES="20000")["9999"]


def field(rng, bits):
    # Most fields are plain, so that rows with and without quotes alternate.
    return str(rng.random()) if rng.random() < 0.6 else \
        "".join(rng.choice(bits) for _ in range(rng.randrange(5)))


def quoted(s):
    """A field as data.csv shows it (docs/tables.md)."""
    if s and (s[0] in " \t" or s[-1] in " \t" or any(c in s for c in ',"\n\r')):
        return '"' + s.replace('"', '""') + '"'
    return s


@pytest.mark.parametrize("delimiter, end, quoting", DIALECTS)
def test_what_python_writes_is_read_as_python_reads_it(p, rng, delimiter, end, quoting):
    width = rng.randrange(1, 9)
    plain = rng.random() < 0.5  # ids that need no quotes
    bits = BITS
    if end == "\n" and quoting == csv.QUOTE_MINIMAL:
        # Python does not quote it there, and then reads it as the end of a line.
        bits = [x for x in BITS if "\r" not in x]
    header = ["id"] + ["c%d" % i for i in range(width)]
    rows = [["%04d" % i + ("" if plain else "".join(rng.choice(bits) for _ in range(3)))] +
            [field(rng, bits) for _ in range(width)] for i in range(ROWS)]
    rng.shuffle(rows)
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(
        [header] + rows)
    written = text.getvalue()
    assert list(csv.reader(io.StringIO(written, newline=""), delimiter=delimiter)) == \
        [header] + rows
    name = "d%d" % DIALECTS.index((delimiter, end, quoting))
    os.makedirs(p.path("tables/dialects", name))
    with open(p.path("tables/dialects", name, "upload.json"), "w", encoding="utf-8") as f:
        json.dump({"id_delimiter": delimiter}, f)
    # In pieces of any size.
    data, at = written.encode(), 0
    fd = os.open(p.path("tables/dialects", name, "data.csv"), os.O_WRONLY | os.O_CREAT)
    while at < len(data):
        n = rng.choice((1, 7, 63, 64, 65, 4096, 1 << 17))
        at += os.write(fd, data[at:at + n])
    os.close(fd)
    rows.sort(key=lambda r: r[0].encode())
    want = "".join(",".join(map(quoted, r)) + "\n" for r in [header] + rows)
    with open(p.path("tables/dialects", name, "data.csv"), encoding="utf-8", newline="") as f:
        got = f.read()
    assert got == want
    assert list(csv.reader(io.StringIO(got, newline=""))) == [header] + rows
