#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Known answers for Paillier, computed a second way: the textbook's formulas
(Paillier 1999, g = n + 1: c = g^m r^n mod n^2, decryption by
lambda and mu) on Python's integers.  Prints the constants of
tests/unit/test_paillier.c."""
import hashlib
from math import gcd

def prime(label, bits):
    """The first prime 3 mod 4 from a hash of the label on, two top bits set."""
    p = int.from_bytes(hashlib.shake_256(label).digest(bits // 8), "big")
    p |= 3 << (bits - 2) | 3
    while any(p % d == 0 for d in range(3, 2000, 2)) or not all(
            pow(a, p - 1, p) == 1 for a in (2, 3, 5, 7, 11, 13, 17, 19)):
        p += 4
    return p

def lines(name, v):
    text = "%x" % v
    rows = [text[i:i + 64] for i in range(0, len(text), 64)]
    print("#define %s \\\n%s" % (name, " \\\n".join('\t"%s"' % r for r in rows)))

p, q = prime(b"rollfs paillier p", 512), prime(b"rollfs paillier q", 512)
n = p * q
lam = (p - 1) * (q - 1) // gcd(p - 1, q - 1)

r = int.from_bytes(hashlib.shake_256(b"r").digest(126), "big")
lines("KAT_P", p)
lines("KAT_Q", q)
for i, m in enumerate((123456789 << 20, n - (987654321 << 20))):
    c = pow(n + 1, m, n * n) * pow(r + i, n, n * n) % (n * n)
    mu = pow((pow(n + 1, lam, n * n) - 1) // n, -1, n)
    assert (pow(c, lam, n * n) - 1) // n * mu % n == m
    lines("KAT_C%d" % i, c)
