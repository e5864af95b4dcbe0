#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Known answers for Okamoto-Uchiyama (Eurocrypt '98), computed with Python's
integers alone.  Prints the constants of tests/unit/test_ou.c.
"""
import random

BITS = 1024
rng = random.Random(1998)


def probable_prime(n, rounds=40):
    """Miller and Rabin."""
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for _ in range(rounds):
        x = pow(rng.randrange(2, n - 1), d, n)
        if x in (1, n - 1):
            continue
        for _ in range(s - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def prime(bits):
    while True:
        n = rng.getrandbits(bits) | 7 << bits - 3 | 1
        if all(n % f for f in (3, 5, 7, 11, 13, 17, 19, 23)) and probable_prime(n):
            return n


p, q = prime(BITS // 3), prime(BITS - 2 * (BITS // 3))
n = p * p * q
assert n.bit_length() == BITS and (p - 1) % q and (q - 1) % p
g = rng.randrange(2, n)
h = pow(g, n, n)


def encrypt(m):
    return pow(g, m, n) * pow(h, rng.randrange(n), n) % n


def log(c):
    x = pow(c, p - 1, p * p)
    assert x % p == 1
    return (x - 1) // p


def decrypt(c):
    m = log(c) * pow(log(g), -1, p) % p
    return m if m < p // 2 else m - p


LIMIT = 2 ** (BITS // 3 - 129)
PLAIN = [5, -3, LIMIT - 1, 1 - LIMIT]
PLUS = [-7, 2 ** 90, 1 - LIMIT, LIMIT - 1]
TIMES = [-3, 2 ** 40 + 1, 1, -1]
DOT = [-9, 2 ** 52 - 1, 1, 1]

c = [encrypt(m) for m in PLAIN]
plus = [x * pow(g, v, n) % n for x, v in zip(c, PLUS)]
times = [pow(x, v, n) for x, v in zip(c, TIMES)]
dot = 1
for x, v in zip(c, DOT):
    dot = dot * pow(x, v, n) % n
assert [decrypt(x) for x in c] == PLAIN
assert [decrypt(x) for x in plus] == [a + b for a, b in zip(PLAIN, PLUS)]
assert [decrypt(x) for x in times] == [a * b for a, b in zip(PLAIN, TIMES)]
assert decrypt(dot) == sum(a * b for a, b in zip(PLAIN, DOT))


def show(name, values):
    print("static const char *const %s[] = {" % name)
    for v in values:
        text = "%x" % v
        for i in range(0, len(text), 64):
            print('\t"%s"%s' % (text[i:i + 64], "," if i + 64 >= len(text) else ""))
    print("};")


show("key_numbers", [p, q, g])
show("ciphertexts", c)
show("plus", plus)
show("times", times)
show("dot", [dot])
