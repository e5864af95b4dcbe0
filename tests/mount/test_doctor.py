# SPDX-License-Identifier: Apache-2.0
"""rollsite --doctor: which hop is named, and that it says what to do."""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from conftest import BUILD, SLOW, TOP, eventually, read, take_ports

PKI = os.path.join(TOP, "tools", "rollfs-pki")


def doctor(conf):
    """(exit status, lines); every line is judged and a failure has advice."""
    r = subprocess.run([os.path.join(BUILD, "rollsite"), "--doctor", conf], capture_output=True,
                       text=True, timeout=60 * SLOW, check=False)
    assert r.stderr == ""
    lines = r.stdout.splitlines()
    for line in lines:
        assert re.match(r"(ok  |warn|FAIL) [^:]+: .", line), line
        if not line.startswith("ok"):
            assert "; " in line, "no advice: " + line
    assert r.returncode == any(x.startswith("FAIL") for x in lines), r.stdout
    return r.returncode, lines


def failures(conf):
    return [x[5:] for x in doctor(conf)[1] if x.startswith("FAIL")]


def changed(conf, text, new):
    """A copy of a configuration beside it with another line in it."""
    whole = read(conf)
    assert re.search(text, whole, re.M), text
    path = conf[:-5] + "-changed.conf"
    with open(path, "w", encoding="utf-8") as f:
        f.write(re.sub(text, new, whole, flags=re.M))
    return path


def pki(*args, **env):
    subprocess.run([PKI, *args], check=True, capture_output=True,
                   env=dict(os.environ, **env))


@pytest.fixture(scope="module")
def pair(sandboxes):
    return sandboxes("9999", "10000")


def put(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def test_all_is_well(pair):
    def well():
        status, lines = doctor(pair[9999].conf)
        return not status and lines

    lines = eventually(well, 10)
    for part in ("configuration", "certificate", "clock", "state", "rollsite", "port",
                 "party 10000, TCP and TLS", "party 10000, certificate", "party 10000, hello",
                 "party 10000, clock", "party 10000, way back", "party 10000, allow"):
        assert any(x.startswith("ok   %s: " % part) for x in lines), part


def test_a_configuration_with_a_defect_is_the_only_line(pair):
    conf = changed(pair[9999].conf, "^ca = ", "caa = ")
    (line,) = failures(conf)
    assert line.startswith("configuration: " + conf + ":8: unknown key 'caa'")
    with_missing = failures("/nonexistent.conf")
    assert with_missing[0].startswith("configuration: /nonexistent.conf: No such file")


def test_wrong_calls_are_told():
    for args in (["--doctor"], ["--doctor", "a", "b"], []):
        r = subprocess.run([os.path.join(BUILD, "rollsite"), *args], capture_output=True,
                           text=True, check=False)
        assert r.returncode == 2 and "--doctor CONFIG" in r.stderr


def test_a_partner_that_is_down(sandboxes):
    s = sandboxes("1", "2")
    s[2].kill("rollfs")
    eventually(lambda: not s[2].pids("rollfs"))
    for pid in s[2].pids("rollsite"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (line,) = eventually(lambda: failures(s[1].conf), 10)
    assert line.startswith("party 2, TCP: 127.0.0.1 port ")
    assert "Connection refused; start rollfs there" in line
    # Seen from there: nothing of it runs, its port is free, we are well.
    lines = failures(s[2].conf)
    assert [x for x in lines if x.startswith("rollsite: it does not run")]
    assert "ok   port: " in "\n".join(doctor(s[2].conf)[1])
    assert not [x for x in lines if x.startswith("party 1, TCP")]


def test_a_rollsite_that_hangs(sandboxes):
    s = sandboxes("1")
    pid = s[1].pid("rollsite")
    os.kill(pid, signal.SIGSTOP)
    try:
        (line,) = failures(s[1].conf)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert line.startswith("rollsite: it runs, but does not answer (")
    eventually(lambda: not failures(s[1].conf))


def test_a_port_that_another_program_has(sandboxes):
    s = sandboxes("1")
    with socket.socket() as x:
        x.bind(("127.0.0.1", 0))
        x.listen()
        port = x.getsockname()[1]
        # Ours runs, but not where the configuration says.
        conf = changed(s[1].conf, "^listen = .*", "listen = 127.0.0.1:%d" % port)
        (line,) = failures(conf)
        assert line.startswith("port: rollsite runs, but not on 127.0.0.1:%d" % port)
        state = os.path.join(s.dir, "other")
        os.mkdir(state, 0o700)
        conf = changed(conf, "^state = .*", "state = " + state)
        lines = failures(conf)
        assert any(x.startswith("port: 127.0.0.1:%d: Address already in use; stop" % port)
                   for x in lines)


def test_a_port_that_another_rollsite_has_is_not_shared(pair, tmp_path):
    conf = changed(pair[9999].conf, "^state = .*", "state = %s" % tmp_path)
    where = re.search(r"^listen = (.*)$", read(conf), re.M).group(1)
    r = subprocess.run([os.path.join(BUILD, "rollsite"), conf], capture_output=True, text=True,
                       timeout=60 * SLOW, check=False)
    assert r.returncode == 1
    assert r.stderr.endswith("rollsite: cannot listen: %s: Address already in use\n" % where)


def test_names_ports_and_services_that_are_wrong(pair):
    p = pair[9999]
    (closed,) = take_ports(1)
    own = re.search(r"^listen = (.*)$", read(p.conf), re.M).group(1)
    for address, want in (
            ("https://no-such-host.invalid:1", "party 10000, name: no-such-host.invalid: "),
            ("https://127.0.0.1:%d" % closed, "party 10000, TCP: 127.0.0.1 port %d: " % closed),
            ("https://" + own, "party 10000, certificate: party 9999 answers there")):
        # What is written through the mount wins; here the file alone counts.
        conf = changed(p.conf, "^url = .*", "url = " + address)
        lines = failures(conf)
        assert any(x.startswith(want) for x in lines), lines
    with socket.socket() as x:  # listens and says nothing
        x.bind(("127.0.0.1", 0))
        x.listen()
        began = time.monotonic()
        conf = changed(p.conf, "^url = .*", "url = https://127.0.0.1:%d" % x.getsockname()[1])
        lines = failures(conf)
        assert any(x.startswith("party 10000, TLS: ") and "no answer within 5 s" in x
                   for x in lines), lines
        assert time.monotonic() - began < 20 * SLOW


def test_certificates_that_do_not_fit(pair, tmp_path):
    p = pair[9999]
    etc = os.path.dirname(p.conf)
    # Of another CA: neither ours nor theirs is believed.
    other = str(tmp_path / "ca")
    pki("ca", other, "sandbox")
    pki("party", other, "sandbox", "9999")
    conf = changed(p.conf, "^certificate = .*\nkey = .*",
                   "certificate = %s/9999.pem\nkey = %s/9999.key" % (other, other))
    lines = failures(conf)
    assert any(x.startswith("certificate: ") and "does not lead to the CA" in x for x in lines)
    assert any(x.startswith("party 10000, hello: ") for x in lines), lines
    conf = changed(p.conf, "^ca = .*", "ca = %s/ca.pem" % other)
    lines = failures(conf)
    assert any(x.startswith("party 10000, certificate: it does not lead to our CA") for x in lines)
    # A key of another certificate: nobody is asked.
    conf = changed(p.conf, "^key = .*", "key = %s/9999.key" % other)
    lines = failures(conf)
    assert any(x.startswith("certificate: ") and "not the key of" in x for x in lines)
    assert any(x.startswith("party 10000: not tried") for x in lines)
    # Another party's, and one of another federation.
    conf = changed(p.conf, "^certificate = .*\nkey = .*", "certificate = 10000.pem\nkey = 10000.key")
    assert any("is not that of party 9999" in x and "it is party 10000" in x
               for x in failures(conf))
    conf = changed(p.conf, "^federation = .*", "federation = elsewhere")
    assert any("rollfs://elsewhere/party/ID is expected" in x for x in failures(conf))
    # Expired, and soon to be; their CA is the right one.
    soon = str(tmp_path / "soon")
    shutil.copytree(etc, soon, ignore=shutil.ignore_patterns("*.log"))
    pki("party", soon, "sandbox", "9999", DAYS="7")
    conf = changed(p.conf, "^certificate = .*\nkey = .*",
                   "certificate = %s/9999.pem\nkey = %s/9999.key" % (soon, soon))
    lines = doctor(conf)[1]
    assert any(re.match(r"warn certificate: valid until 20..-..-.. \([67] days\); make a new one", x)
               for x in lines), lines
    old = str(tmp_path / "old")
    os.mkdir(old)
    expired(soon, old)
    conf = changed(p.conf, "^certificate = .*\nkey = .*",
                   "certificate = %s/9999.pem\nkey = %s/9999.key" % (old, soon))
    lines = failures(conf)
    assert any(x.startswith("certificate: ") and "has expired" in x for x in lines), lines
    # The same certificate at the other end, behind any TLS server.
    (port,) = take_ports(1)
    server = subprocess.Popen(["openssl", "s_server", "-accept", "127.0.0.1:%d" % port, "-quiet",
                               "-cert", old + "/9999.pem", "-key", soon + "/9999.key"],
                              stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        conf = changed(p.conf, "^url = .*", "url = https://127.0.0.1:%d" % port)

        def listens():
            with socket.socket() as y:
                return y.connect_ex(("127.0.0.1", port)) == 0
        eventually(listens)
        (line,) = failures(conf)
        assert line.startswith("party 10000, certificate: it or its CA has expired (valid until 2020")
    finally:
        server.kill()
        server.wait()


def expired(source, target):
    """9999's certificate of `source` once more, over since 2020."""
    with open(os.path.join(target, "ext"), "w", encoding="utf-8") as f:
        f.write("[ca]\ndefault_ca = x\n[x]\ndatabase = %s/index\nnew_certs_dir = %s\n"
                "serial = %s/serial\npolicy = p\ndefault_md = sha256\nemail_in_dn = no\n"
                "[p]\ncommonName = optional\n"
                "[ext]\nsubjectAltName = URI:rollfs://sandbox/party/9999\n"
                % (target, target, target))
    for name, text in (("index", ""), ("serial", "77\n")):
        put(os.path.join(target, name), text)

    def ssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True)

    ssl("req", "-new", "-key", source + "/9999.key", "-subj", "/CN=9999", "-out", target + "/csr")
    ssl("ca", "-batch", "-config", target + "/ext", "-cert", source + "/ca.pem",
        "-keyfile", source + "/ca.key", "-startdate", "20190101000000Z",
        "-enddate", "20200101000000Z", "-extensions", "ext", "-notext",
        "-in", target + "/csr", "-out", target + "/9999.pem")


def test_a_party_that_does_not_know_us(sandboxes):
    s = sandboxes("1", "2")
    pki("party", os.path.dirname(s[1].conf), "sandbox", "3")
    state = os.path.join(s.dir, "third")
    os.mkdir(state, 0o700)
    conf = changed(s[1].conf, r"^party = 1$", "party = 3")
    conf = changed(conf, "^certificate = .*\nkey = .*", "certificate = 3.pem\nkey = 3.key")
    conf = changed(conf, "^state = .*", "state = " + state)
    lines = failures(conf)
    (line,) = [x for x in lines if x.startswith("party 2, hello: ")]
    assert "it refuses us (403" in line and "mkdir parties/3" in line


def test_what_may_be_done_here_and_how_much_room_is_left(sandboxes):
    s = sandboxes("1", "2")
    p = s[1]
    put(p.path("parties/2/allow"), "# nothing\nlimit floor 1000T\n")
    lines = doctor(p.conf)[1]
    assert any(x.startswith("warn party 2, allow: empty, so it may do nothing here") for x in lines)
    assert any(x.startswith("FAIL state: party 2 leaves ") for x in lines)
    put(p.path("parties/2/allow"), "role *\n")
    assert any("no push: its files are refused" in x for x in doctor(p.conf)[1])


def test_parties_behind_others_are_asked_through_rollsite(sandboxes):
    s = sandboxes("1", "2", "3")
    p = s[1]
    # 1 and 3 know each other only through 2, which carries their requests.
    put(p.path("parties/3/address"), "via 2\n")
    put(s[3].path("parties/1/address"), "via 2\n")
    lines = []

    def well():
        lines[:] = failures(p.conf)
        return not lines
    for a, b in (("1", "3"), ("3", "1")):
        before = s[2].read("parties", a, "allow")
        put(s[2].path("parties", a, "allow"), before + "relay %s\n" % b)
    eventually(well, 20, every=0.5)
    assert any(x.startswith("ok   party 3, via 2: ok ") for x in doctor(p.conf)[1])
    # The relay may not carry: the hop and the reason are named.
    put(s[2].path("parties/1/allow"), "push *\n")
    (line,) = failures(p.conf)
    assert line.startswith("party 3, via 2: failed ") and "2" in line[24:], line


def test_a_party_that_cannot_listen_is_looked_for_in_its_polls(sandboxes):
    s = sandboxes("1", "2")
    put(s[1].path("parties/2/address"), "reverse\n")
    conf = s[2].conf
    whole = re.sub("^listen = .*", "listen = none", read(conf), flags=re.M)
    s[2].kill("rollfs")
    eventually(lambda: not s[2].pids("rollfs"))
    for pid in s[2].pids("rollsite"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    put(conf, whole)
    s[2].start()
    eventually(lambda: not failures(s[1].conf), 30, every=0.5)
    lines = doctor(s[1].conf)[1]
    assert any(x.startswith("ok   party 2, reverse: it last asked ") for x in lines)
    assert any(x.startswith("ok   party 2, reverse: ok ") for x in lines)
    assert any(x.startswith("ok   port: none") for x in doctor(conf)[1])


def test_hops_behind_others_are_named(sandboxes):
    s = sandboxes("1", "2", "3")
    p = s[1]
    put(p.path("parties/3/address"), "via 2\n")
    put(p.path("parties/2/address"), "https://no-such-host.invalid:1\n")
    lines = failures(p.conf)
    assert any(x.startswith("party 3, via 2: the hop to relay 2 fails; see party 2") for x in lines)
    put(p.path("parties/2/address"), "reverse\n")
    lines = failures(p.conf)
    assert any(x.startswith("party 2, reverse: it has not connected to us") for x in lines), lines
