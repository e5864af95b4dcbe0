# SPDX-License-Identifier: Apache-2.0
"""Parties for the tests of what goes wrong between them: each may have its own
address for each partner, its own environment, its own network namespace, a
rollsite that stands alone, or no mount at all (a relay).

  lab          fixture: lab({"1": {...}, "2": {...}}) -> Lab, options below
  Proxy        a TCP proxy on the way: cuts, resets, delays, counts
  cable(...)   two network namespaces and a wire with delay and loss
  Peer         requests by hand with a party's certificate (http.client)
  Socket       requests on rollsite's own socket, as rollfs and tasks make them
  pki helpers  certificate(): any certificate, also wrong ones
"""
import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from conftest import (BUILD, PKI, SLOW, TOP, Party, Sandbox, eventually, over, processes, read,
                      take_keys, take_ports)

SOAK = os.environ.get("SOAK") not in (None, "", "0")
FEDERATION = "sandbox"
ALLOW = ("module *", "table *", "role *", "push *")
MIB = 1 << 20


def run(*argv, **kw):
    r = subprocess.run(argv, capture_output=True, text=True, check=False,
                       timeout=60 * SLOW, **kw)
    assert r.returncode == 0, "%s: %s%s" % (" ".join(argv), r.stderr, r.stdout)
    return r.stdout


# ---- parties ---------------------------------------------------------------


class Node(Party):
    """A party of a Lab.  Options:

    to       {other: address} instead of the other's listening address
    allow    {other: [rules]} instead of everything
    knows    the parties of its configuration, instead of all
    listen   "none", or an address other than 127.0.0.1
    netns    name of the network namespace it lives in
    env      of its processes, on top of the test's
    alone    True: its rollsite is started by the test, not by rollfs
    mount    False: a relay, rollsite alone
    """

    def __init__(self, lab, party, options):
        super().__init__(lab, party)
        self.o = options
        self.port = take_ports(1)[0]
        self.env = dict(options.get("env") or {})
        self.children = []

    @property
    def host(self):
        return self.o.get("listen") or "127.0.0.1"

    @property
    def address(self):
        return None if self.host == "none" else "https://%s:%d" % (self.host, self.port)

    @property
    def log(self):
        return os.path.join(self.sandbox.dir, "etc", self.id + ".log")

    @property
    def site_log(self):
        """What its rollsite has said so far."""
        names = [os.path.join(self.state, "rollsite.log"),
                 os.path.join(self.sandbox.dir, "etc", self.id + ".site.log")]
        return "".join(read(n) for n in names if os.path.exists(n))

    def write_conf(self):
        lines = ["[rollfs]", "party = " + self.id, "federation = " + FEDERATION,
                 "state = " + self.state,
                 "listen = " + ("none" if self.host == "none" else
                                "%s:%d" % (self.host, self.port)),
                 "certificate = %s.pem" % self.id, "key = %s.key" % self.id, "ca = ca.pem",
                 "lease = %d" % self.o.get("lease", 60)]
        to, allow = self.o.get("to") or {}, self.o.get("allow") or {}
        for q in self.sandbox.parties.values():
            if q is self or q.id not in self.o.get("knows", self.sandbox.parties):
                continue
            lines += ["[party %s]" % q.id, "url = " + str(to.get(q.id) or q.address or "reverse")]
            lines += ["allow = " + a for a in allow.get(q.id, ALLOW)]
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")

    def spawn(self, program, *args, log, env=None):
        argv = [program, *args]
        executable = os.path.join(BUILD, program)
        if self.o.get("netns"):
            argv = ["nsenter", "--net=/run/netns/" + self.o["netns"], executable, *args]
            executable = shutil.which("nsenter")
        e = dict(self.sandbox.env, **{k: str(v) for k, v in self.env.items()})
        e.update({k: str(v) for k, v in (env or {}).items()})
        with open(log, "ab") as out:
            child = subprocess.Popen(argv, executable=executable, cwd="/", env=e,
                                     start_new_session=True, stdin=subprocess.DEVNULL,
                                     stdout=out, stderr=out)
        self.children.append(child)
        return child

    def start_site(self, **env):
        """rollsite on its own; returns when it answers on its socket."""
        log = os.path.join(self.sandbox.dir, "etc", self.id + ".site.log")
        child = self.spawn("rollsite", self.conf, log=log, env=env)

        def there():
            assert child.poll() is None, "rollsite of %s ended: %s" % (self.id, read(log)[-2000:])
            try:
                with Socket(self) as s:
                    return s.ask({"op": "hello"})["status"] == 0
            except OSError:
                return False
        eventually(there, 20)
        return child

    def mounted(self):
        return self.mount in self.sandbox.mounts()

    def start(self, **env):
        """Everything of this party that does not run."""
        if (self.o.get("alone") or self.o.get("mount") is False) and not self.pids("rollsite"):
            self.start_site(**env)
        if self.o.get("mount") is False or self.pids("rollfs"):
            return
        self.unmount()
        os.makedirs(self.mount, exist_ok=True)
        child = self.spawn("rollfs", self.conf, self.mount, "-f", log=self.log, env=env)

        def there():
            assert child.poll() is None, "rollfs of %s ended: %s" % (
                self.id, read(self.log)[-2000:])
            return self.mounted()
        eventually(there, 20)

    def unmount(self):
        if self.mounted():
            subprocess.run(["umount", "-l", self.mount], check=False, capture_output=True)

    def kill(self, program):
        """SIGKILL, and its end; None when there is none at the moment."""
        pids = self.pids(program)
        if not pids:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[0], signal.SIGKILL)
        eventually(lambda: self.over(pids[0]), 10, 0.002)
        return pids[0]

    def over(self, pid):
        for c in self.children:
            c.poll()
        return over(pid)

    # -- what a user sees

    def place(self, to, path):
        """Where a file for the party is written; its folders are made, but not
        those that only a mount has: where it was is a plain directory."""
        at = self.path("federation", to)
        for d in os.path.dirname(path).split("/"):
            at = os.path.join(at, d)
            if d:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(at)
        return self.path("federation", to, path)

    def put(self, to, path, data):
        f = self.place(to, path)
        with open(f, "wb") as out:
            out.write(data)
        return f

    def got(self, sender, path):
        try:
            with open(self.path("federation", sender, "inbox", path), "rb") as i:
                return i.read()
        except FileNotFoundError:
            return None

    def attributes(self, to, path):
        """The extended attributes of a sent file, without their prefix."""
        f = self.path("federation", to, path)
        return {n.rsplit(".", 1)[1]: os.getxattr(f, n).decode() for n in os.listxattr(f)}

    def state_of(self, to, path):
        return self.attributes(to, path).get("state")

    def transfers(self, other):
        """Lines of parties/<other>/transfers."""
        return self.read("parties", other, "transfers").splitlines()

    def line(self, other, path):
        """The line of one file, or ""."""
        for x in self.transfers(other):
            if path in x.split():
                return x
        return ""

    def metric(self, name):
        """A counter of rollsite, all label values added."""
        found = re.findall(r"^%s(?:\{[^}]*\})? (\S+)$" % re.escape(name), self.metrics(), re.M)
        assert found, "no counter %s in\n%s" % (name, self.metrics())
        return sum(float(x) for x in found)

    def metrics(self):
        with Socket(self) as s:
            s.ask({"op": "metrics"})
            return s.body.decode()

    def audit(self, *words):
        """Lines of its rollsite's audit trail that hold all the words."""
        return [x for x in self.site_log.splitlines()
                if "audit" in x and all(w in x for w in words)]

    def leftovers(self):
        """Files of transfers that are not over, below its state directory."""
        out = []
        for sub in ("transfer/partial", "transfer/tmp"):
            d = os.path.join(self.state, sub)
            with contextlib.suppress(FileNotFoundError):
                out += [os.path.join(sub, x) for x in os.listdir(d)]
        d = os.path.join(self.state, "federation")
        for p in os.listdir(d) if os.path.isdir(d) else []:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                out += [os.path.join("spool", p, x) for x in os.listdir(os.path.join(d, p, "spool"))]
        return out

    def peak_kib(self, program="rollsite"):
        """VmHWM of its process."""
        with open("/proc/%d/status" % self.pid(program), encoding="ascii") as f:
            return int(re.search(r"^VmHWM:\s+(\d+) kB", f.read(), re.M).group(1))


class Lab(Sandbox):
    def __init__(self, directory, options):
        super().__init__(directory, {})
        self.etc = os.path.join(directory, "etc")
        os.makedirs(self.etc, mode=0o700)
        os.makedirs(os.path.join(directory, "state"), mode=0o700)
        self.cleanup = []
        for p, o in options.items():
            self.parties[p] = Node(self, p, o)
        for p in self.parties.values():
            take_keys(self.etc, p.id)
            if p.host not in ("none", "127.0.0.1"):
                run(PKI, "party", self.etc, FEDERATION, p.id, p.host)
            os.makedirs(p.state, mode=0o700, exist_ok=True)
            p.write_conf()

    def start(self):
        for p in self.parties.values():
            p.start()
        return self

    def ready(self, *pairs, seconds=20):
        """Waits until each pair (a, b) has answered a's ping; none: all."""
        for a, b in pairs or [(a, b) for a in self.parties for b in self.parties if a != b]:
            if self[a].o.get("mount") is False:
                continue

            def ok():
                with contextlib.suppress(OSError):
                    if self[a].read("parties", b, "ping").startswith("ok"):
                        return True
                    with open(self[a].path("parties", b, "ping"), "w") as f:
                        f.write("\n")
                return False
            eventually(ok, seconds, 0.1)
        return self

    def down(self):
        for p in self.parties.values():
            if not p.mounted():
                continue
            r = subprocess.run(["umount", p.mount], capture_output=True, check=False)
            if r.returncode:
                p.unmount()
        deadline = time.monotonic() + 5 * SLOW
        while time.monotonic() < deadline and any(
                p.pids("rollfs") or (p.pids("rollsite") and not self.stands_alone(p))
                for p in self.parties.values()):
            time.sleep(0.02)
        for sig, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 20)):
            for pid, _ in processes(self.dir):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
            deadline = time.monotonic() + patience * SLOW
            while time.monotonic() < deadline and processes(self.dir):
                time.sleep(0.02)
        for p in self.parties.values():
            for c in p.children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    c.wait(5)
        for f in reversed(self.cleanup):
            f()

    def tell(self, lines=12):
        """What a person would look at when a test has failed."""
        out = []
        for p in self.parties.values():
            out += ["== party %s: %s" % (p.id, [(a[0], pid) for pid, a in processes(self.dir)
                                                if p.conf in a])]
            for q in self.parties.values():
                if q is p or not p.mounted():
                    continue
                with contextlib.suppress(OSError):
                    out += ["%s to %s: %s" % (p.id, q.id, li) for li in p.transfers(q.id)
                            if " committed " not in li]
                    out += ["ping %s: %s" % (q.id, p.read("parties", q.id, "ping").strip())]
            out += ["left: %s" % p.leftovers()]
            out += p.site_log.splitlines()[-lines:]
        return "\n".join(out)

    @staticmethod
    def stands_alone(p):
        return p.o.get("alone") or p.o.get("mount") is False


def _lab():
    made = []

    def make(options, start=True, setup=None):
        d = os.path.realpath(tempfile.mkdtemp(prefix="rollfs-test-"))
        x = Lab(d, options)
        made.append(x)
        if setup:
            setup(x)
        return x.start() if start else x

    yield make
    problems = []
    for x in made:
        try:
            x.down()
        except Exception as e:
            problems.append("down: %r" % e)
        if x.mounts():
            problems.append("still mounted: %s" % x.mounts())
        if processes(x.dir):
            problems.append("still running: %s" % processes(x.dir))
        problems += x.complaints()
        if os.environ.get("KEEP_SANDBOX"):
            print("kept", x.dir, file=sys.stderr)
        elif not x.mounts():
            shutil.rmtree(x.dir, ignore_errors=True)
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module")
def labs():
    """A factory that lives as long as the file's tests."""
    yield from _lab()


@pytest.fixture
def lab():
    """A factory for one test."""
    yield from _lab()


# ---- content ---------------------------------------------------------------


def content(path, generation, size):
    """Bytes that say what they are: the whole of one generation of one path,
    checked by content_check."""
    head = ("%s %d %d\n" % (path, generation, size)).encode()[:size]
    seed = hashlib.sha256(head).digest()
    return head + random.Random(seed).randbytes(size - len(head))


def content_check(data):
    """(path, generation) of whole content, or an AssertionError."""
    path, generation, size = data[:400].split(b"\n", 1)[0].decode().split(" ")
    assert len(data) == int(size), "%s: %d bytes of %s" % (path, len(data), size)
    assert data == content(path, int(generation), int(size)), "%s: other bytes" % path
    return path, int(generation)


# ---- requests by hand ------------------------------------------------------


class Peer:
    """Requests to a party's rollsite with some certificate."""

    def __init__(self, lab, to, cert=None, key=None, ca=None, as_party=None):
        self.host, self.port = lab[to].host, lab[to].port
        self.src, self.dst, self.etc = as_party, to, lab.etc
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self.tls.check_hostname = False
        self.tls.load_verify_locations(ca or os.path.join(lab.etc, "ca.pem"))
        if as_party and not cert:
            cert, key = [os.path.join(lab.etc, as_party + x) for x in (".pem", ".key")]
        if cert:
            self.tls.load_cert_chain(cert, key)
        self.key = key
        self.local = threading.local()

    def connection(self, timeout=20):
        return http.client.HTTPSConnection(self.host, self.port, context=self.tls,
                                           timeout=timeout * SLOW)

    def ask(self, method, target, body=None, headers=None, fresh=False):
        """Answer with .code, .headers and .data; one connection per thread."""
        if isinstance(body, (dict, list)):
            body = compact(body)
        c = getattr(self.local, "c", None)
        for again in (False, True):
            if c is None or fresh:
                c = self.connection()
            try:
                c.request(method, target, body=body, headers=headers or {})
                r = c.getresponse()
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if again or fresh:
                    raise
                c = None
        r.code, r.data = r.status, r.read()
        if fresh:
            c.close()
        else:
            self.local.c = c
        with contextlib.suppress(ValueError):
            r.json = json.loads(r.data)
        return r

    def refused(self, method="GET", target="/v1/hello", body=None):
        """True when the request is answered 403 or the handshake is refused."""
        try:
            return self.ask(method, target, body, fresh=True).code == 403
        except (ssl.SSLError, ConnectionError, http.client.HTTPException):
            return True

    # -- the steps of a transfer

    def announce(self, doc, **kw):
        return self.ask("PUT", "/v1/transfers/" + tid_of(doc), doc, **kw)

    def chunk(self, doc, index, data, headers=None, **kw):
        return self.ask("PUT", "/v1/transfers/%s/chunks/%s" % (tid_of(doc), index), data,
                        headers or digest_header(data), **kw)

    def state(self, doc, query=""):
        return self.ask("GET", "/v1/transfers/" + tid_of(doc) + query)

    def commit(self, doc, data, inline=False, manifest=None, **kw):
        """data: the whole content."""
        m = manifest or self.manifest(doc, data)
        text = compact(m)
        return self.ask("POST", "/v1/transfers/%s/commit" % tid_of(doc),
                        struct.pack("<I", len(text)) + text + (data if inline else b""), **kw)

    def manifest(self, doc, data, **change):
        m = dict(doc, size=len(data), root=merkle(chunks_of(data, doc["chunk_size"])))
        m.update(change)
        return dict(m, signature=self.sign("rollfs-manifest-v1", m))

    def abort(self, doc):
        return self.ask("DELETE", "/v1/transfers/" + tid_of(doc))

    def push(self, doc, data):
        """The whole transfer; the answer of the commit."""
        r = self.announce(doc)
        assert r.code in (200, 201), (r.code, r.data)
        for i, c in enumerate(chunks_of(data, doc["chunk_size"])):
            r = self.chunk(doc, i, c)
            assert r.code in (200, 201), (i, r.code, r.data)
        return self.commit(doc, data)

    def sign(self, domain, doc):
        r = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key],
                           input=domain.encode() + b"\n" + compact(doc), capture_output=True,
                           check=True)
        return base64.b64encode(r.stdout).decode()


def digest_header(data):
    return {"Content-Digest": "sha-256=:%s:" % base64.b64encode(
        hashlib.sha256(data).digest()).decode()}


def merkle(chunks):
    """The root over the chunks' digests (docs/protocol.md)."""
    level = [hashlib.sha256(b"\0" + hashlib.sha256(c).digest()).digest() for c in chunks]
    if not level:
        return hashlib.sha256(b"\0").hexdigest()
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest()
                 for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) & ~1:]
    return level[0].hex()


def compact(doc):
    """The canonical text: what tids and signatures are over."""
    return json.dumps(doc, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def file_doc(src, dst, path, generation=1, size=-1, **more):
    """The announcement of a file."""
    return dict({"v": 1, "kind": "file", "src": src, "dst": dst, "path": path,
                 "generation": generation, "chunk_size": 1 << 20, "size": size,
                 "created": int(time.time() * 1000), "deadline": 0}, **more)


def chunks_of(data, size):
    return [data[i:i + size] for i in range(0, len(data), size)]


def tid_of(doc):
    return message_tid(doc["key"]) if doc["kind"] == "message" else file_tid(doc)


def file_tid(doc):
    return hashlib.sha256(b"rollfs-file-v1\n" + compact(
        [doc["src"], doc["dst"], doc["path"], str(doc["generation"])])).hexdigest()


def message_doc(key, size, **more):
    return dict({"v": 1, "kind": "message", "src": key[4], "dst": key[6], "key": key,
                 "chunk_size": 1 << 20, "size": size, "created": int(time.time() * 1000),
                 "deadline": 0}, **more)


def message_tid(key):
    return hashlib.sha256(b"rollfs-transfer-v1\n" + compact(key)).hexdigest()


class Socket:
    """Requests on rollsite's socket: u32 head length, u32 body length, head,
    body; a descriptor may ride along."""

    def __init__(self, party, timeout=30):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(timeout * SLOW)
        try:
            self.s.connect(os.path.join(party.state, "rollsite.sock"))
        except OSError:
            self.s.close()
            raise
        self.body = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def _read(self, n):
        out = bytearray()
        while len(out) < n:
            got, fds, _, _ = socket.recv_fds(self.s, n - len(out), 1)
            self.fds += fds
            if not got:
                raise ConnectionResetError("rollsite closed the connection")
            out += got
        return bytes(out)

    def ask(self, head, body=b"", fd=None):
        self.fds = []
        text = json.dumps(head).encode()
        frame = struct.pack("<II", len(text), len(body)) + text + body
        if fd is None:
            self.s.sendall(frame)
        else:
            n = socket.send_fds(self.s, [frame], [fd])
            self.s.sendall(frame[n:])
        n, m = struct.unpack("<II", self._read(8))
        head = json.loads(self._read(n))
        self.body = self._read(m) if m else b""
        return head


class Fake:
    """A partner that says what the test wants: a server with the party's
    certificate at its address, whose rollsite must not run.  `say` gets a
    Request and gives (code, document), None for the usual answer; it may wait."""

    class Request:
        def __init__(self, method, target, headers, body):
            self.method, self.target, self.headers, self.body = method, target, headers, body
            m = re.match(r"/v1/transfers/([0-9a-f]{64})(?:/chunks/(\d+))?(/commit)?$",
                         target.split("?")[0])
            self.tid = m and m.group(1)
            self.index = m and m.group(2) and int(m.group(2))
            self.what = "hello" if target == "/v1/hello" else None
            if m:
                self.what = "chunk" if m.group(2) else "commit" if m.group(3) else {
                    "PUT": "announce", "GET": "state", "DELETE": "abort"}.get(method)
            if self.what == "commit":
                n = struct.unpack("<I", body[:4])[0]
                self.doc, self.inline = json.loads(body[4:4 + n]), body[4 + n:]
            elif self.what == "announce":
                self.doc = json.loads(body)

    def __init__(self, lab, party, say=None):
        self.party, self.say, self.requests, self.open = party, say, [], set()
        fake = self
        self.signer = Peer(lab, party, as_party=party)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_cert_chain(*[os.path.join(lab.etc, party + x) for x in (".pem", ".key")])
        tls.load_verify_locations(os.path.join(lab.etc, "ca.pem"))
        tls.verify_mode = ssl.CERT_REQUIRED

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args):
                pass

            def handle(self):
                with contextlib.suppress(OSError):  # the other side went away
                    super().handle()

            def setup(self):
                fake.open.add(self.request)
                self.request.settimeout(20)
                self.request.do_handshake()
                self.request.settimeout(None)
                super().setup()

            def any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                q = Fake.Request(self.command, self.path, self.headers, body)
                fake.requests.append(q)
                code, doc = (fake.say and fake.say(q)) or fake.usual(q)
                headers = {}
                if isinstance(doc, tuple):
                    doc, headers = doc
                out = doc if isinstance(doc, bytes) else b"" if doc is None else compact(doc)
                self.send_response(code)
                self.send_header("Content-Length", str(len(out)))
                for k, v in headers.items():
                    self.send_header(k, v)
                self.end_headers()
                self.wfile.write(out)
            do_GET = do_PUT = do_POST = do_DELETE = any

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

            def handle_error(self, request, client_address):
                pass
        self.server = Server(("127.0.0.1", lab[party].port), Handler, bind_and_activate=False)
        self.server.allow_reuse_address = True
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True,
                                             do_handshake_on_connect=False)
        self.server.server_bind()
        self.server.server_activate()
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        lab.cleanup.append(self.close)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        for s in self.open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def receipt(self, doc, **change):
        r = {"tid": tid_of(doc), "root": doc["root"], "size": doc["size"],
             "committed": int(time.time() * 1000), "receiver": self.party}
        r.update(change)
        return dict(r, signature=self.signer.sign("rollfs-receipt-v1", r))

    def usual(self, q):
        """What a partner says that has nothing and takes everything."""
        if q.what == "hello":
            return 200, {"party": self.party, "protocol": 2, "version": "fake",
                         "time": int(time.time() * 1000), "features": []}
        if q.what == "announce":
            return 201, {"state": "receiving", "have": "", "credit": 16}
        if q.what == "chunk":
            return 201, None
        if q.what == "state":
            return 404, problem(404, "not_found", "no such transfer")
        if q.what == "commit":
            return 200, {"state": "committed", "receipt": self.receipt(q.doc)}
        if q.what == "abort":
            return 204, None
        return 404, problem(404, "not_found", "no such request")

    def count(self, what, tid=None):
        return sum(q.what == what and tid in (None, q.tid) for q in self.requests)


def problem(code, word, detail, **more):
    return dict({"type": "urn:rollfs:error:" + word, "title": word, "status": code,
                 "detail": detail, "code": word, "hop": "2", "retryable": code in (503, 507)},
                **more)


# ---- certificates ----------------------------------------------------------


def authority(directory, name="other-ca"):
    """Another CA: (certificate, key)."""
    pem, key = [os.path.join(directory, name + x) for x in (".pem", ".key")]
    run("openssl", "req", "-new", "-x509", "-newkey", "ec", "-pkeyopt",
        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=" + name,
        "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", key, "-out", pem)
    return pem, key


def stamp(days):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400))


def certificate(directory, name, uris, ca, key=None, start=-1, end=30, usage=None):
    """A certificate with these SAN URIs, signed by ca = (pem, key) or, when ca
    is None, by itself; valid from start to end days from now."""
    d = tempfile.mkdtemp(dir=directory)
    key = key or os.path.join(directory, name + ".key")
    pem, csr, conf = os.path.join(directory, name + ".pem"), d + "/csr", d + "/conf"
    if not os.path.exists(key):
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-out", key)
        os.chmod(key, 0o600)
    with open(conf, "w", encoding="ascii") as f:
        f.write("[ca]\ndefault_ca=x\n[x]\ndatabase=%s/index\nnew_certs_dir=%s\npolicy=p\n"
                "default_md=sha256\nrand_serial=yes\nunique_subject=no\nx509_extensions=e\n"
                "[p]\ncommonName=supplied\n[e]\nbasicConstraints=critical,CA:FALSE\n"
                "keyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n%s\n" % (
                    d, d, usage or "serverAuth,clientAuth",
                    "subjectAltName=" + ",".join("URI:" + u for u in uris) if uris else ""))
    open(d + "/index", "w", encoding="ascii").close()
    run("openssl", "req", "-new", "-key", key, "-subj", "/CN=" + name, "-out", csr)
    signer = ["-selfsign", "-keyfile", key] if ca is None else ["-cert", ca[0], "-keyfile", ca[1]]
    run("openssl", "ca", "-batch", "-notext", "-config", conf, "-in", csr, "-out", pem,
        "-startdate", stamp(start), "-enddate", stamp(end), *signer)
    shutil.rmtree(d)
    return pem, key


def uri(party, federation=FEDERATION):
    return "rollfs://%s/party/%s" % (federation, party)


# ---- ways that fail --------------------------------------------------------


class Proxy:
    """Carries TCP connections to a port of this machine, and does to them what
    the test says:

    reset   fraction of the connections that is reset after some bytes
    limit   bytes per second, both ways together; 0 = no limit
    cut()   nothing passes any more, connections stay open (a pulled cable)
    heal()  goes on; sever(): all present connections are reset
    """

    def __init__(self, target, reset=0.0, limit=0, seed=1):
        self.target, self.reset, self.limit = target, reset, limit
        self.rng = random.Random(seed)
        self.bytes_up = self.bytes_down = self.connections = self.resets = 0
        self.moving = threading.Event()
        self.moving.set()
        self.closed = False
        self.pairs = set()
        self.lock = threading.Lock()
        self.next_slot = time.monotonic()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    @property
    def address(self):
        return "https://127.0.0.1:%d" % self.port

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.closed = True
        self.moving.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.sever()

    def cut(self):
        self.moving.clear()

    def heal(self):
        self.moving.set()

    @staticmethod
    def _reset(s):
        with contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            s.close()

    def sever(self):
        with self.lock:
            pairs, self.pairs = self.pairs, set()
        for p in pairs:
            for s in p:
                with contextlib.suppress(OSError):
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Wakes the pump, which closes it.
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while not self.closed:
            try:
                a, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._carry, args=(a,), daemon=True).start()

    def _wait(self, n):
        """The rate limit, over all connections."""
        if not self.limit:
            return
        with self.lock:
            now = time.monotonic()
            self.next_slot = max(self.next_slot, now) + n / self.limit
            pause = self.next_slot - now
        time.sleep(pause)

    def _carry(self, a):
        self.moving.wait()
        try:
            b = socket.create_connection(("127.0.0.1", self.target), 5)
        except OSError:
            self._reset(a)
            return
        b.settimeout(None)
        with self.lock:
            self.pairs.add((a, b))
            # Some die in the handshake, some in the midst of a chunk.
            left = None
            if self.rng.random() < self.reset:
                left = self.rng.choice((700, 50000, 5 << 20, 6 << 20))
        ends = {a: b, b: a}
        try:
            while ends:
                for s in select.select(list(ends), [], [])[0]:
                    self.moving.wait()
                    data = s.recv(65536)
                    if not data:
                        other = ends.pop(s)
                        other.shutdown(socket.SHUT_WR)
                        continue
                    self._wait(len(data))
                    ends.get(s, b if s is a else a).sendall(data)
                    if s is a:
                        self.bytes_up += len(data)
                    else:
                        self.bytes_down += len(data)
                    if left is not None:
                        left -= len(data)
                        if left < 0:
                            self.resets += 1
                            raise ConnectionResetError
        except (OSError, ValueError):
            pass
        with self.lock:
            self.pairs.discard((a, b))
        self._reset(a)
        self._reset(b)


class Cable:
    """Two network namespaces joined by a wire that delays and loses packets;
    see wire.py.  Addresses 10.77.0.1 and 10.77.0.2."""

    def __init__(self, delay=0.0, loss=0.0, rate=0, seed=1):
        tag = "rfs%d%s" % (os.getpid(), os.urandom(2).hex())
        self.ns = (tag + "a", tag + "b")
        self.hosts = ("10.77.0.1", "10.77.0.2")
        self.made = []
        try:
            for ns in self.ns:
                run("ip", "netns", "add", ns)
                self.made.append(ns)
            self.process = subprocess.Popen(
                [sys.executable, os.path.join(TOP, "tests/mount/wire.py"), *self.ns, str(seed)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self.process.stdout.readline() == "ready\n"
            for ns, me, other in zip(self.ns, self.hosts, reversed(self.hosts)):
                run("ip", "-n", ns, "link", "set", "lo", "up")
                run("ip", "-n", ns, "addr", "add", me, "peer", other, "dev", "wire0")
                run("ip", "-n", ns, "link", "set", "wire0", "up")
            self.set(delay=delay, loss=loss, rate=rate)
        except BaseException:
            self.close()
            raise

    def _tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def set(self, **what):
        """delay (seconds, one way), loss (fraction), rate (bytes/s)"""
        for k, v in what.items():
            assert self._tell("%s %g" % (k, v)) == "ok"

    def pull(self):
        assert self._tell("up 0") == "ok"

    def plug(self):
        assert self._tell("up 1") == "ok"

    def counts(self):
        """{"packets", "lost", "bytes"}"""
        return json.loads(self._tell("counts 0"))

    def close(self):
        if hasattr(self, "process"):
            self.process.stdin.close()
            self.process.wait(10)
            self.process.stdout.close()
        for ns in self.made:
            subprocess.run(["ip", "netns", "del", ns], check=False)


@pytest.fixture
def cable():
    made = []

    def make(**kw):
        made.append(Cable(**kw))
        return made[-1]
    yield make
    for c in made:
        c.close()
