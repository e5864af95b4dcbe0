# SPDX-License-Identifier: Apache-2.0
"""What crosses between the parties, recorded in the clear by a hook of the
test builds, and what a changed byte does."""
import hashlib
import os
import struct

import pytest
from conftest import BUILD, DATA, eventually, read
from test_jobs import breast, quick_keys

pytestmark = pytest.mark.skipif(os.path.basename(BUILD) == "release",
                                reason="a release has no hooks")
IDS = ["person-%07d@example.org" % i for i in range(569)]


def rename_ids(name):
    lines = read(DATA, name).splitlines()
    out = [lines[0]] + [IDS[int(x.split(",")[0])] + "," + x.split(",", 1)[1] for x in lines[1:]]
    return "\n".join(out) + "\n"


@pytest.fixture(scope="module")
def wire(sandboxes, tmp_path_factory):
    d = tmp_path_factory.mktemp("wire")
    s = sandboxes("9999", "10000", "10001", ROLLFS_HOOK_WIRE=d)
    s[9999].upload("experiment", "breast_guest", rename_ids("breast_guest.csv"))
    s[10000].upload("experiment", "breast_host", rename_ids("breast_host.csv"))
    for method in ("rsa", "ecdh"):
        dsl, conf = breast(max_iter=2)
        conf["component_parameters"]["common"]["intersection_0"]["intersect_method"] = method
        s[9999].run(dsl, quick_keys(conf), seconds=120)
    bodies = b"".join((d / n).read_bytes() for n in os.listdir(d))
    assert len(bodies) > 569 * 128, "the hook recorded next to nothing"
    return bodies


def test_no_raw_id_crosses(wire):
    assert b"@example.org" not in wire
    assert not any(i.encode() in wire for i in IDS)


def test_no_plain_hash_of_an_id_crosses(wire):
    for i in IDS[::7]:
        for h in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "sha3_256"):
            d = hashlib.new(h, i.encode())
            assert d.digest() not in wire and d.hexdigest().encode() not in wire
            assert d.hexdigest().upper().encode() not in wire
            assert d.digest()[::-1] not in wire


def columns(name):
    rows = [x.split(",")[1:] for x in read(DATA, name).splitlines()[1:]]
    return list(zip(*rows))


def test_no_feature_crosses(wire):
    for name in ("breast_guest.csv", "breast_host.csv"):
        for c in columns(name)[1 if "guest" in name else 0:]:
            for v in c[::41]:
                if len(v) < 8:
                    continue
                assert v.encode() not in wire
                assert struct.pack("<d", float(v)) not in wire
                assert struct.pack(">d", float(v)) not in wire


def test_no_label_column_crosses(wire):
    order = sorted(range(569), key=lambda i: IDS[i])
    y = [int(columns("breast_guest.csv")[0][i]) for i in order]
    for ys in (y, [2 * v - 1 for v in y]):
        for width, code in ((1, "b"), (4, "i"), (8, "q"), (8, "d"), (4, "f")):
            for end in "<>":
                run = struct.pack(end + "48" + code, *ys[100:148])
                assert run not in wire, (width, code)
    assert ",".join(map(str, y[100:124])).encode() not in wire
    assert ", ".join(map(str, y[100:124])).encode() not in wire


@pytest.mark.parametrize("message", [
    "guest_pubkey_ids", "host_sign_guest_ids", "id_digest", "paillier_pubkey", "host_gradient",
    "guest_optim_gradient"])
def test_one_changed_byte_fails_the_job_with_a_reason(sandboxes, message):
    s = sandboxes("9999", "10000", "10001", ROLLFS_HOOK_FLIP=message, LEASE=10)
    s.upload_breast()
    dsl, conf = breast(max_iter=2)
    job = s[9999].submit(dsl, quick_keys(conf))
    status = s[9999].wait(job, 60)
    assert status == "failed"
    assert s[9999].error(job).strip()
    eventually(lambda: not s[9999].pids("rollfs-task"), 10)
    s.run("down", s.dir)
