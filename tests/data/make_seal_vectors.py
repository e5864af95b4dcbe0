#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Known answers for transfer/seal.c, computed a second way: HPKE (RFC 9180,
sections 4.1, 5.1, 5.3 and 7.1) from X25519 and AES-GCM of python3-cryptography
and an HKDF of hmac.  Prints the constants of tests/unit/test_seal.c.

The same functions with AES-128-GCM must first give the vector that the RFC
prints in appendix A.1.1.
"""
import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey, X25519PublicKey)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEM = b"KEM" + (0x20).to_bytes(2, "big")


def extract(salt, ikm):
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def expand(prk, info, n):
    out, block, i = b"", b"", 1
    while len(out) < n:
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
        i += 1
    return out[:n]


def labeled_extract(suite, salt, label, ikm):
    return extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite, prk, label, info, n):
    return expand(prk, n.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, n)


def public(private):
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def sender(ephemeral, pk_r, info, aead_id, key_n):
    """The key schedule of a sender whose ephemeral key is known."""
    enc = public(ephemeral)
    dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(pk_r))
    prk = labeled_extract(KEM, b"", b"eae_prk", dh)
    shared = labeled_expand(KEM, prk, b"shared_secret", enc + pk_r, 32)
    suite = b"HPKE" + b"".join(v.to_bytes(2, "big") for v in (0x20, 1, aead_id))
    context = (b"\0" + labeled_extract(suite, b"", b"psk_id_hash", b"")
               + labeled_extract(suite, b"", b"info_hash", info))
    secret = labeled_extract(suite, shared, b"secret", b"")
    return {
        "suite": suite,
        "enc": enc,
        "shared": shared,
        "key": labeled_expand(suite, secret, b"key", context, key_n),
        "nonce": labeled_expand(suite, secret, b"base_nonce", context, 12),
        "exporter": labeled_expand(suite, secret, b"exp", context, 32),
    }


def export(s, context, n):
    return labeled_expand(s["suite"], s["exporter"], b"sec", context, n)


# Keys, info, first plaintext and its aad of RFC 9180, appendix A.1.1.
SK_E = bytes.fromhex(
    "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736")
SK_R = bytes.fromhex(
    "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
PT = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
AAD = b"Count-0"

ephemeral = X25519PrivateKey.from_private_bytes(SK_E)
pk_r = public(X25519PrivateKey.from_private_bytes(SK_R))

a1 = sender(ephemeral, pk_r, INFO, 1, 16)
assert a1["shared"].hex() == (
    "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc")
assert a1["key"].hex() == "4531685d41d65f03dc48f6b8302c05b0"
assert a1["nonce"].hex() == "56d890e5accaaf011cff4b7d"
assert a1["exporter"].hex() == (
    "45ff1c2e220db587171952c0592d5f5ebe103f1561a2614e38f2ffd47e99e3f8")
assert AESGCM(a1["key"]).encrypt(a1["nonce"], PT, AAD).hex() == (
    "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a9"
    "6d8770ac83d07bea87e13c512a")

s = sender(ephemeral, pk_r, INFO, 2, 32)
answer = export(s, b"rollfs answer", 32)
for name, value in (
        ("PRIV", SK_R), ("PUB", pk_r), ("ENC", s["enc"]),
        ("SEALED", AESGCM(s["key"]).encrypt(s["nonce"], PT, AAD)),
        ("ANSWER_KEY", answer),
        ("ANSWER", AESGCM(answer).encrypt(bytes(12), b"yes", None))):
    text = value.hex()
    lines = [text[i:i + 64] for i in range(0, len(text), 64)]
    print(f"#define {name} \\")
    print(" \\\n".join(f'\t"{line}"' for line in lines))
