# SPDX-License-Identifier: Apache-2.0
"""Who is let in: certificates of every wrong kind, names that disagree with the
certificate, certificates that are renewed, parties that are removed."""
import os
import ssl
import warnings

import pytest
from conftest import eventually
from net import (FEDERATION, PKI, Peer, Socket, authority, certificate, content, file_doc,
                 file_tid, labs, message_tid, run, uri)

_ = labs  # a fixture


@pytest.fixture(scope="module")
def x(labs):
    """Party 2 knows 1 and, for the time of one test, 3."""
    return labs({"1": {}, "2": {"knows": ["1"]}, "3": {}}).ready(("1", "2"), ("2", "1"))


def stored(x):
    """Everything that could have come from others."""
    out = x["2"].leftovers()
    for sub in ("federation/1/in", "federation/3/in", "transfer/in"):
        for top, _dirs, names in os.walk(os.path.join(x["2"].state, sub)):
            out += [os.path.join(top, n) for n in names]
    return sorted(out)


def pair(x):
    return os.path.join(x.etc, "ca.pem"), os.path.join(x.etc, "ca.key")


# What is wrong -> how the certificate is made.
WRONG = {
    "self-signed": lambda x: certificate(x.etc, "self", [uri("1")], None),
    "foreign authority": lambda x: certificate(x.etc, "foreign", [uri("1")], authority(x.etc)),
    "expired": lambda x: certificate(x.etc, "old", [uri("1")], pair(x), start=-9, end=-2),
    "not yet valid": lambda x: certificate(x.etc, "early", [uri("1")], pair(x), start=2, end=9),
    "other federation": lambda x: certificate(x.etc, "fed", [uri("1", "other")], pair(x)),
    "no name": lambda x: certificate(x.etc, "noname", [], pair(x)),
    "two names": lambda x: certificate(x.etc, "two", [uri("1"), uri("3")], pair(x)),
    "a party that is not configured": lambda x: certificate(x.etc, "77", [uri("77")], pair(x)),
    "a name that only begins like a party": lambda x: certificate(
        x.etc, "long", [uri("1/2")], pair(x)),
    "for servers only": lambda x: certificate(
        x.etc, "srv", [uri("1")], pair(x), usage="serverAuth"),
    "a certificate that a party signed": lambda x: certificate(
        x.etc, "sub", [uri("1")], (x.etc + "/1.pem", x.etc + "/1.key")),
    "none": lambda x: (None, None),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_is_refused(x, wrong):
    peer = Peer(x, "2", *WRONG[wrong](x))
    audits, before = len(x["2"].audit()), stored(x)
    doc = file_doc("1", "2", "wrong")
    assert peer.refused("PUT", "/v1/transfers/" + file_tid(doc), doc)
    assert peer.refused("POST", "/v1/transfers/%s/commit" % file_tid(doc), doc)
    assert peer.refused("GET", "/v1/hello")
    assert peer.refused("POST", "/v1/messages", b"x" * 100)
    assert peer.refused("GET", "/v1/no/such/thing")
    eventually(lambda: len(x["2"].audit()) > audits, 5)
    assert stored(x) == before


def test_the_right_one_is_not_refused(x):
    assert Peer(x, "2", as_party="1").ask("GET", "/v1/hello").code == 200


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_1"])
def test_only_tls_1_3_is_spoken(x, version):
    peer = Peer(x, "2", as_party="1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        peer.tls.minimum_version = ssl.TLSVersion.TLSv1
        peer.tls.maximum_version = getattr(ssl.TLSVersion, version)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        peer.ask("GET", "/v1/hello")


def test_names_that_disagree_with_the_certificate_are_refused(x):
    """Party 1's certificate, somebody else's documents."""
    peer, before = Peer(x, "2", as_party="1"), stored(x)
    audits = len(x["2"].audit())
    docs = [file_doc("3", "2", "forged", size=0), file_doc("2", "2", "forged", size=0),
            file_doc("1", "3", "misled", size=0)]
    key = ["20261123120000123456000001_a_0", "n", "t", "guest", "3", "host", "2"]
    for doc in docs:
        r = peer.ask("PUT", "/v1/transfers/" + file_tid(doc), doc)
        assert r.code == 403, (doc["src"], doc["dst"], r.code, r.data)
    m = file_doc("3", "2", "x", size=100000)
    del m["path"], m["generation"]
    m.update(kind="message", key=key)
    r = peer.ask("PUT", "/v1/transfers/" + message_tid(key), m)
    assert r.code == 403, (r.code, r.data)
    # The address of one transfer, the document of another.
    r = peer.ask("PUT", "/v1/transfers/" + "0" * 64, file_doc("1", "2", "misled", size=0))
    assert r.code in (400, 403), (r.code, r.data)
    eventually(lambda: len(x["2"].audit()) > audits, 5)
    assert stored(x) == before


def shown(x, party):
    """The certificate that the party's server presents, in PEM."""
    c = Peer(x, party, as_party="1" if party != "1" else "2").connection()
    c.connect()
    der = c.sock.getpeercert(binary_form=True)
    c.close()
    return ssl.DER_cert_to_PEM_cert(der)


def test_a_renewed_certificate_is_used_without_a_restart(x):
    pids = [x[p].pid("rollsite") for p in ("1", "2")]
    for p in ("1", "2"):
        old = shown(x, p)
        run(PKI, "party", x.etc, FEDERATION, p)
        with open(os.path.join(x.etc, p + ".pem"), encoding="ascii") as f:
            new = f.read()
        assert old.strip() != new.strip()
        eventually(lambda p=p, new=new: shown(x, p).strip() == new.strip(), 10, 0.1)
    data = content("renewed", 1, 3000000)
    x["1"].put("2", "renewed", data)
    eventually(lambda: x["2"].got("1", "renewed") == data)
    # What 2 saw of 1 is the new one: its client uses it too.
    with open(os.path.join(x.etc, "2.pem"), encoding="ascii") as f:
        new = f.read()

    def seen():
        with open(x["1"].path("parties/2/ping"), "w") as f:
            f.write("\n")
        return x["1"].read("parties/2/certificate.pem").strip() == new.strip()
    eventually(seen, 10, 0.1)
    assert pids == [x[p].pid("rollsite") for p in ("1", "2")]


def test_a_set_that_does_not_fit_is_not_taken(x):
    """The key of another: the old pair stays in use, and the log says so."""
    keep, path = shown(x, "2"), os.path.join(x.etc, "2.key")
    with open(path, "rb") as f:
        good = f.read()
    _pem, other = certificate(x.etc, "misfit", [uri("2")], pair(x))
    os.replace(other, path)
    try:
        def said():
            shown(x, "2")
            return any("WARN" in li or "ERROR" in li for li in x["2"].site_log.splitlines()
                       if "key" in li and "certificate" in li)
        eventually(said, 10, 0.1)
        assert shown(x, "2") == keep
    finally:
        with open(path + ".new", "wb") as f:
            os.fchmod(f.fileno(), 0o600)
            f.write(good)
        os.replace(path + ".new", path)
    data = content("misfit", 1, 1000)
    x["1"].put("2", "misfit", data)
    eventually(lambda: x["2"].got("1", "misfit") == data)


def test_a_removed_party_is_refused_at_once(x):
    two = x["2"]
    third = Peer(x, "2", as_party="3")
    assert third.ask("GET", "/v1/hello").code == 403
    os.mkdir(two.path("parties/3"))
    with open(two.path("parties/3/address"), "w") as f:
        f.write(x["3"].address + "\n")
    with open(two.path("parties/3/allow"), "w") as f:
        f.write("push *\n")
    assert Peer(x, "2", as_party="3").ask("GET", "/v1/hello").code == 200
    kept = Peer(x, "2", as_party="3")
    assert kept.ask("GET", "/v1/hello").code == 200
    os.rmdir(two.path("parties/3"))
    # Also on a connection that was let in before.
    assert kept.ask("GET", "/v1/hello").code == 403
    assert Peer(x, "2", as_party="3").ask("GET", "/v1/hello").code == 403
    eventually(lambda: two.audit("3"), 5)


def test_what_allow_says_counts_at_once(x):
    two, peer = x["2"], Peer(x, "2", as_party="1")
    doc = file_doc("1", "2", "policy", size=100000)
    with open(two.path("parties/1/allow"), "w") as f:
        f.write("module *\n")
    try:
        r = peer.ask("PUT", "/v1/transfers/" + file_tid(doc), doc)
        assert r.code == 403, (r.code, r.data)
    finally:
        with open(two.path("parties/1/allow"), "w") as f:
            f.write("push *\nmodule *\ntable *\nrole *\n")
    r = peer.ask("PUT", "/v1/transfers/" + file_tid(doc), doc)
    assert r.code in (200, 201), (r.code, r.data)
    assert peer.ask("DELETE", "/v1/transfers/" + file_tid(doc)).code in (200, 204)
    eventually(lambda: not two.leftovers())


def test_the_socket_is_the_owners(x):
    mode = os.stat(os.path.join(x["2"].state, "rollsite.sock")).st_mode & 0o777
    assert mode == 0o600
    with Socket(x["2"]) as s:
        assert s.ask({"op": "hello"})["party"] == "2"
