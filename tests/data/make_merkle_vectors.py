#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the vectors of tests/unit/test_documents.c: the root over n chunks,
of which chunk i is the text "chunk i", and the ids of two transfers.  Level by
level, as docs/protocol.md tells it, and not as transfer/object.c computes it."""
import hashlib
import json


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root(n):
    if n == 0:
        return sha(b"\0")
    level = [sha(b"\0", sha(b"chunk %d" % i)) for i in range(n)]
    while len(level) > 1:
        up = [sha(b"\1", *level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            up.append(level[-1])
        level = up
    return level[0]


def tid(domain, fields):
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    return sha(domain, text.encode()).hex()


for n in (0, 1, 2, 3, 4, 5, 7, 8, 1000):
    print('\t{ %d, "%s" },' % (n, root(n).hex()))
print(tid(b"rollfs-file-v1\n", ["9999", "10000", 'a/b "ü".csv', "7"]))
print(tid(b"rollfs-transfer-v1\n", ["1_a_0", "x", "0.1", "guest", "9999", "host", "10000"]))
