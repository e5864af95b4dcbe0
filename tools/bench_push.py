# SPDX-License-Identifier: Apache-2.0
"""The part "push" of tools/bench: a file of 1 GiB from one party to another,
against curl and nginx, and scp and sshd, on this machine.

Every way ends with the bytes fsynced where they arrived:
  rollfs    cp FILE MOUNT/federation/PARTY/f, then sync of it: committed there
  curl      curl -T over TLS 1.3, certificates on both sides, to nginx; sync
  scp       scp to an sshd of our own; sync
and with four files of a quarter each, at the same time:
  rollfs4   to one party
  parties4  to four parties
  curl4     four curls, four connections

The ways take turns in every round, each round beginning with another one, and
a ratio is taken within its round: this machine may be twice as slow a minute
later.  Environment: ROUNDS (7), SIZE in MiB (1024), WAYS (all of the above,
comma separated), BENCH_DIR (/var/tmp: the disk to measure)."""
import getpass
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1 << 20
ROUNDS = int(os.environ.get("ROUNDS") or 7)
SIZE = int(os.environ.get("SIZE") or 1024) * MIB
PARTIES = ("9999", "10000", "10001", "10002", "10003")
WAYS = ("rollfs", "curl", "scp", "rollfs4", "parties4", "curl4")
YARDSTICK = {"rollfs": ("curl", "scp"), "rollfs4": ("curl4",),
             "parties4": ("rollfs", "curl4"), "scp": ("curl",), "curl4": ("curl",)}
TICK = os.sysconf("SC_CLK_TCK")
IDLE_S = 10

NGINX = """daemon off;
{user}worker_processes {cores};
pid nginx.pid;
error_log error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path tmp;
    proxy_temp_path tmp-proxy;
    fastcgi_temp_path tmp-fastcgi;
    uwsgi_temp_path tmp-uwsgi;
    scgi_temp_path tmp-scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {etc}/10000.pem;
        ssl_certificate_key {etc}/10000.key;
        ssl_client_certificate {etc}/ca.pem;
        ssl_verify_client on;
        ssl_protocols TLSv1.3;
        root {store};
        location / {{ dav_methods PUT; }}
    }}
}}
"""
SSHD = """ListenAddress 127.0.0.1
Port {port}
HostKey {d}/host
PidFile none
AuthorizedKeysFile {d}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


def read(*path):
    with open(os.path.join(*path), encoding="utf-8", errors="replace") as f:
        return f.read()


def say(*words):
    print(*words, file=sys.stderr)
    sys.stderr.flush()


def cpu(pid, children=False):
    """Seconds that a process (and the children it has reaped) has used."""
    f = read("/proc", str(pid), "stat").rsplit(")", 1)[1].split()
    return sum(map(int, f[11:15 if children else 13])) / TICK


def peak_mib(pid):
    for line in read("/proc", str(pid), "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def wakeups(pid):
    """How often its threads have left a sleep."""
    n = 0
    for task in os.listdir("/proc/%d/task" % pid):
        try:
            text = read("/proc", str(pid), "task", task, "status")
        except OSError:
            continue  # it has ended since
        n += int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return n


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, child):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and child.poll() is None:
        with socket.socket() as s:
            if not s.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.02)
    sys.exit("bench: nothing listens on port %d" % port)


class Way:
    """One way of bringing files over.  lines(k) gives shell lines that run at
    the same time, clean(k) takes away what they left; pids are the processes
    that outlive them, by name."""

    pids = ()

    def watch(self):
        used = {}
        for name, pid in self.pids:
            used[name] = used.get(name, 0) + cpu(pid, name == "sshd")
        return used


class Rollfs(Way):
    def __init__(self, bench, files, parties):
        self.m, self.files, self.parties = os.path.join(bench.d, "s"), files, parties
        self.pids = [(name + ("_sender" if p == PARTIES[0] else "_receiver"), pid)
                     for (name, p), pid in bench.daemons.items() if p == PARTIES[0] or p in parties]

    def pairs(self, k):
        for i, (f, p) in enumerate(zip(self.files, self.parties)):
            name = "f%d-%d-%d" % (len(self.files), k, i)
            yield (f, os.path.join(self.m, PARTIES[0], "federation", p, name),
                   os.path.join(self.m, p, "federation", PARTIES[0], "inbox", name))

    def lines(self, k):
        return ["cp %s %s && sync %s" % (f, to, to) for f, to, _ in self.pairs(k)]

    def arrived(self, k):
        return [(f, inbox) for f, _, inbox in self.pairs(k)]

    def clean(self, k):
        for _, to, inbox in self.pairs(k):
            for path in (to, inbox):
                try:
                    os.unlink(path)
                except OSError as e:
                    say("bench: rm", path, e.strerror)


class Store(Way):
    """curl and scp: files into one directory."""

    def __init__(self, bench, files, name):
        self.files, self.store = files, os.path.join(bench.d, name)

    def lines(self, k):
        return [self.line(f, os.path.join(self.store, os.path.basename(f))) for f in self.files]

    def arrived(self, k):
        return [(f, os.path.join(self.store, os.path.basename(f))) for f in self.files]

    def clean(self, k):
        for _, path in self.arrived(k):
            os.unlink(path)


class Curl(Store):
    def __init__(self, bench, files):
        super().__init__(bench, files, "nginx/store")
        etc = os.path.join(bench.d, "s/etc")
        self.url = "https://127.0.0.1:%d/" % bench.nginx_port
        self.curl = ("curl -sS --fail --tlsv1.3 --cacert %s/ca.pem --cert %s/9999.pem --key %s/9999.key"
                     % (etc, etc, etc))
        with open("/proc/%d/task/%d/children" % ((bench.nginx.pid,) * 2), encoding="ascii") as f:
            self.pids = [("nginx", int(pid)) for pid in f.read().split()]

    def line(self, f, to):
        return "%s -T %s %s%s && sync %s" % (self.curl, f, self.url, os.path.basename(f), to)

class Scp(Store):
    def __init__(self, bench, files):
        super().__init__(bench, files, "ssh/store")
        d = os.path.join(bench.d, "ssh")
        self.scp = ("scp -q -F none -P %d -i %s/user -o IdentitiesOnly=yes -o BatchMode=yes"
                    " -o UserKnownHostsFile=%s/known" % (bench.sshd_port, d, d))
        self.pids = [("sshd", bench.sshd.pid)]

    def line(self, f, to):
        return "%s %s %s@127.0.0.1:%s && sync %s" % (self.scp, f, getpass.getuser(), to, to)


class Bench:
    def __init__(self, binaries):
        self.b, self.children = binaries, []
        self.made_run_sshd = False
        self.d = os.path.realpath(tempfile.mkdtemp(
            prefix="rollfs-bench-", dir=os.environ.get("BENCH_DIR") or "/var/tmp"))
        self.env = dict(os.environ, B=binaries)
        self.daemons = {}

    def up(self, wanted):
        d = self.d
        self.whole = os.path.join(d, "whole")
        with open("/dev/urandom", "rb") as src, open(self.whole, "wb") as out:
            for _ in range(SIZE // MIB):
                out.write(src.read(MIB))
        self.quarters = [os.path.join(d, "quarter%d" % i) for i in range(4)]
        with open(self.whole, "rb") as src:
            for q in self.quarters:
                with open(q, "wb") as out:
                    for _ in range(SIZE // 4 // MIB):
                        out.write(src.read(MIB))
        os.sync()
        subprocess.run([os.path.join(TOP, "tools/sandbox"), "up", d + "/s", *PARTIES],
                       env=self.env, check=True, stdout=subprocess.DEVNULL)
        self.find_daemons()
        ways = {"rollfs": Rollfs(self, [self.whole], PARTIES[1:2]),
                "rollfs4": Rollfs(self, self.quarters, PARTIES[1:2] * 4),
                "parties4": Rollfs(self, self.quarters, PARTIES[1:])}
        if self.start_nginx():
            ways["curl"] = Curl(self, [self.whole])
            ways["curl4"] = Curl(self, self.quarters)
        if self.start_sshd():
            ways["scp"] = Scp(self, [self.whole])
        return {w: ways[w] for w in wanted if w in ways}

    def find_daemons(self):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                argv = read("/proc", pid, "cmdline").split("\0")
            except OSError:
                continue
            conf = argv[1] if len(argv) > 1 else ""
            if conf.startswith(self.d + "/s/etc/") and conf.endswith(".conf"):
                self.daemons[os.path.basename(argv[0]), os.path.basename(conf)[:-5]] = int(pid)

    def start_nginx(self):
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if not program or not shutil.which("curl"):
            say("bench: no nginx or no curl: left out")
            return False
        d = os.path.join(self.d, "nginx")
        os.makedirs(d + "/store")
        self.nginx_port = free_port()
        with open(d + "/conf", "w", encoding="utf-8") as f:
            f.write(NGINX.format(port=self.nginx_port, etc=self.d + "/s/etc", store=d + "/store",
                                 cores=os.cpu_count(),
                                 user="user root;\n" if os.getuid() == 0 else ""))
        self.nginx = subprocess.Popen([program, "-p", d, "-c", d + "/conf", "-e", d + "/error.log"])
        self.children.append(self.nginx)
        wait_port(self.nginx_port, self.nginx)
        return True

    def start_sshd(self):
        program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
        if not program or not shutil.which("scp"):
            say("bench: no sshd or no scp: left out")
            return False
        d = os.path.join(self.d, "ssh")
        os.makedirs(d + "/store")
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "%s/%s" % (d, key)],
                           check=True)
        self.sshd_port = free_port()
        with open(d + "/conf", "w", encoding="utf-8") as f:
            f.write(SSHD.format(port=self.sshd_port, d=d))
        with open(d + "/known", "w", encoding="utf-8") as f:
            f.write("[127.0.0.1]:%d %s" % (self.sshd_port, read(d, "host.pub")))
        if os.getuid() == 0 and not os.path.exists("/run/sshd"):
            os.mkdir("/run/sshd", 0o755)  # its jail, which the service would make
            self.made_run_sshd = True
        self.sshd = subprocess.Popen([program, "-D", "-E", d + "/log", "-f", d + "/conf"])
        self.children.append(self.sshd)
        wait_port(self.sshd_port, self.sshd)
        return True

    def down(self):
        for child in self.children:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        subprocess.run([os.path.join(TOP, "tools/sandbox"), "down", self.d + "/s"],
                       env=self.env, check=False)
        shutil.rmtree(self.d, ignore_errors=True)
        if self.made_run_sshd:
            os.rmdir("/run/sshd")


def once(way, k, compare):
    """(seconds, {process: CPU seconds}) of one run."""
    for f in way.files:
        subprocess.run(["cat", f], stdout=subprocess.DEVNULL, check=True)  # in page cache
    os.sync()
    before, used = way.watch(), resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    children = [subprocess.Popen(["/bin/sh", "-c", line]) for line in way.lines(k)]
    status = [c.wait() for c in children]
    took = time.monotonic() - start
    if any(status):
        sys.exit("bench: failed: %s" % "; ".join(way.lines(k)))
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    time.sleep(0.1)  # sshd reaps its session
    cpus = {name: s - before[name] for name, s in way.watch().items()}
    cpus["client"] = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    for f, there in way.arrived(k):
        if os.stat(there).st_size != os.stat(f).st_size or \
                compare and subprocess.run(["cmp", f, there], check=False).returncode:
            sys.exit("bench: %s is not %s" % (there, f))
    way.clean(k)
    return took, cpus


def report(seconds, cpus, woken, daemons):
    rows = []

    def row(name, value, unit, ratio="", against=""):
        rows.append("%s\t%s\t%s\t%s\t%s" % (name, value, unit, ratio and "%.3f" % ratio, against))

    for way, took in seconds.items():
        if len(took) == 0:
            continue
        mbps = [SIZE / t / 1e6 for t in took]
        yards = [y for y in YARDSTICK.get(way, ()) if y in seconds]
        for i, y in enumerate(yards or [None]):
            each = [b / a for a, b in zip(took, seconds[y])] if y else []
            row(way if i == 0 else "%s_by_%s" % (way, y), "%.0f" % statistics.median(mbps), "MB/s",
                statistics.median(each) if each else "", "%s, median of rounds" % y if y else "")
            row((way if i == 0 else "%s_by_%s" % (way, y)) + "_best", "%.0f" % max(mbps), "MB/s",
                min(seconds[y]) / min(took) if y else "", "%s, best of each" % y if y else "")
    gib = SIZE / (1 << 30)
    for way, runs in cpus.items():
        total = [sum(r.values()) for r in runs]
        other = [sum(r.values()) for r in cpus["curl"]] if way != "curl" and "curl" in cpus else []
        row("cpu_" + way, "%.2f" % (statistics.median(total) / gib), "s/GiB",
            statistics.median(a / b for a, b in zip(total, other)) if other else "",
            "curl and nginx" if other else "")
        for name in sorted(runs[0]):
            row("cpu_%s_%s" % (way, name),
                "%.2f" % (statistics.median(r[name] for r in runs) / gib), "s/GiB")
    for (name, party), pid in sorted(daemons.items()):
        if party in PARTIES[:2]:
            side = "sender" if party == PARTIES[0] else "receiver"
            mib = peak_mib(pid)
            row("peak_%s_%s" % (name, side), "%.1f" % mib, "MiB", mib / 64, "64 MiB limit")
            row("idle_%s_%s" % (name, side), "%.1f" % woken[name, party], "wakeups/s")
    return rows


def run(binaries):
    wanted = [w for w in (os.environ.get("WAYS") or ",".join(WAYS)).split(",") if w]
    if set(wanted) - set(WAYS):
        sys.exit("bench: WAYS are " + ",".join(WAYS))
    if SIZE < 4 * MIB:
        sys.exit("bench: SIZE is 4 MiB or more")
    subprocess.run([os.path.join(TOP, "tools/install-deps"), "bench"], check=False,
                   stdout=sys.stderr)
    bench = Bench(binaries)
    try:
        ways = bench.up(wanted)
        before = {key: wakeups(pid) for key, pid in bench.daemons.items()}
        time.sleep(IDLE_S)
        woken = {key: (wakeups(pid) - before[key]) / IDLE_S for key, pid in bench.daemons.items()}
        for pid in bench.daemons.values():
            with open("/proc/%d/clear_refs" % pid, "w", encoding="ascii") as f:
                f.write("5")  # VmHWM starts again
        idle = {key: peak_mib(pid) for key, pid in bench.daemons.items()}
        names = list(ways)
        seconds, cpus = {w: [] for w in names}, {w: [] for w in names}
        for k in range(ROUNDS):
            turn = names[k % len(names):] + names[:k % len(names)]
            for w in turn:
                took, used = once(ways[w], k, k == 0)
                seconds[w].append(took)
                cpus[w].append(used)
            say("round %d: %s" % (k + 1, "  ".join("%s %.2f s" % (w, seconds[w][k]) for w in names)))
        for key in sorted(bench.daemons):
            if key[1] in PARTIES[:2]:
                say("resident %s of %s: %.1f MiB before, peak %.1f MiB" % (
                    *key, idle[key], peak_mib(bench.daemons[key])))
        return report(seconds, cpus, woken, bench.daemons)
    finally:
        bench.down()
