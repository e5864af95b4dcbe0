#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes breast_guest.csv and breast_host.csv (see README.md) from the file of
scikit-learn (Debian: python3-sklearn) given as the first argument."""
import csv
import math
import os
import sys

SOURCE = "/usr/lib/python3/dist-packages/sklearn/datasets/data/breast_cancer.csv"
here = os.path.dirname(os.path.abspath(__file__))
with open(sys.argv[1] if len(sys.argv) > 1 else SOURCE, encoding="ascii") as f:
    rows = list(csv.reader(f))[1:]
values = [[float(v) for v in r[:-1]] for r in rows]
labels = [r[-1] for r in rows]
columns = []
for c in zip(*values):
    mean = math.fsum(c) / len(c)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in c) / len(c))
    columns.append(["%.6f" % ((v - mean) / deviation) for v in c])


def write(name, head, cols):
    with open(os.path.join(here, name), "w", encoding="ascii", newline="") as out:
        w = csv.writer(out, lineterminator="\n")
        w.writerow(head)
        for i, cells in enumerate(zip(*cols)):
            w.writerow([i, *cells])


write("breast_guest.csv", ["id", "y"] + ["x%d" % i for i in range(10)],
      [labels] + columns[20:30])
write("breast_host.csv", ["id"] + ["x%d" % i for i in range(20)], columns[:20])
