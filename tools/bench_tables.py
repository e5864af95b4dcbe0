# SPDX-License-Identifier: Apache-2.0
"""The part "tables" of tools/bench: a CSV of ids in random order and 20
numbers, into a table and out of it, through a mount and beside it.

Into a store, until the bytes are durable (MB of CSV a second):
  upload      cp FILE MOUNT/tables/bench/t/data.csv
  store       the same without a mount, by bench_tables
  sqlite      sqlite3's .import into a table without key
  duckdb      CREATE TABLE AS SELECT * FROM read_csv, two threads
  copy        cp and sync: what the disk can do
Out of it again:
  read        cat of data.csv that nobody has read before
  read_again  and from the page cache: the best of AGAIN, in turns with
              passthrough
  store_read  the CSV view without a mount
  duckdb_copy COPY TO a CSV file
  pandas      pandas.read_csv of the file on disk
  pandas_mount  and of data.csv
  passthrough the file through libfuse's example passthrough_ll, in its cache
The processor's time, of the reader and of rollfs together, of a sum of all
numbers:
  pandas_cpu  of pandas.read_csv of the file on disk
  pandas_mount_cpu  of data.csv, which is in the page cache
  npy_cpu     of numpy.load of data.npy that nobody has read before
  npy_again_cpu  and once more
The ways take turns in every round; a ratio is taken within its round.
Once, at the end: rows, and "ls -l" and find over a namespace of many tables.

Environment: ROUNDS (3), SIZE in MiB (512), TABLES (10000), BENCH_DIR (/var/tmp:
the disk),
DUCKDB=1: install @duckdb/node-api below build/duckdb with npm, if it is not
there.  What is not installed is left out, and said."""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROUNDS = int(os.environ.get("ROUNDS") or 3)
SIZE = int(os.environ.get("SIZE") or 512)
ROW_BYTES = 201
COLUMNS = 20
DUCKDB = os.path.join(TOP, "build/duckdb")
EXAMPLE = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"
TABLES = int(os.environ.get("TABLES") or 10000)
AGAIN = 7
READERS = 2
LOOKUPS = 20000
# What a way is measured against.
AGAINST = {"upload": ("sqlite", "duckdb", "copy"), "store": ("sqlite", "duckdb"),
           "read": ("duckdb_copy", "pandas"), "read_again": ("passthrough",),
           "store_read": ("duckdb_copy",), "pandas_mount": ("pandas",),
           "pandas_mount_cpu": ("pandas_cpu",), "npy_cpu": ("pandas_cpu",),
           "npy_again_cpu": ("pandas_cpu",)}
SQL = """const d = require(process.argv[1] + "/node_modules/@duckdb/node-api");
(async () => {
  const i = await d.DuckDBInstance.create(process.argv[2], {threads: "2"});
  const c = await i.connect();
  await c.run(process.argv[3]);
  c.closeSync();
  i.closeSync();
})().catch(e => { console.error(e); process.exit(1); });"""
PANDAS = """import sys, time, pandas
t = time.monotonic()
assert len(pandas.read_csv(sys.argv[1])) == int(sys.argv[2])
print(time.monotonic() - t)"""
SUM = """import sys, time, numpy, pandas
t = time.process_time()
x = (numpy.load(sys.argv[1]) if sys.argv[1].endswith(".npy")
     else pandas.read_csv(sys.argv[1], index_col=0).to_numpy())
x.sum()
t = time.process_time() - t
assert x.shape == (int(sys.argv[2]), int(sys.argv[3])) and x.dtype == float
print(t)"""


def call(*argv, **kw):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, **kw).stdout


def timed(*argv, **kw):
    start = time.monotonic()
    call(*argv, **kw)
    return time.monotonic() - start


def duckdb(db, sql):
    return timed("node", "-e", SQL, DUCKDB, db, sql)


def durable(path):
    fd = os.open(path, os.O_RDONLY)
    start = time.monotonic()
    os.fsync(fd)
    os.close(fd)
    return time.monotonic() - start


def daemon(mount):
    """The rollfs of a mount: its process id, None."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, encoding="utf-8") as f:
                argv = f.read().split("\0")
            if os.path.basename(argv[0]) == "rollfs" and mount in argv:
                return int(pid)
        except OSError:
            continue
    return None


def memory(pid):
    """Peak resident MiB."""
    with open("/proc/%d/status" % pid, encoding="utf-8") as f:
        return next(int(x.split()[1]) / 1024 for x in f if x.startswith("VmHWM:"))


def cpu(pid):
    """Seconds, user and system."""
    with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
        after = f.read().rpartition(")")[2].split()
    return (int(after[11]) + int(after[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, o, d):
        self.program = os.path.join(o, "tools/bench_tables")
        self.dir, self.rows = d, SIZE * (1 << 20) // ROW_BYTES
        self.csv = os.path.join(d, "big.csv")
        call(self.program, "make", self.csv, str(self.rows))
        self.mb = os.path.getsize(self.csv) / 1e6
        self.mount = os.path.join(d, "sandbox/9999")
        self.passthrough = self.make_passthrough()
        self.lookups = []

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def has(self, way):
        if way.startswith("duckdb"):
            return os.path.isdir(os.path.join(DUCKDB, "node_modules/@duckdb/node-api"))
        if way.startswith(("pandas", "npy")):
            return subprocess.run(["/usr/bin/python3", "-c", "import pandas"], check=False,
                                  stderr=subprocess.DEVNULL).returncode == 0
        if way == "sqlite":
            return shutil.which("sqlite3") is not None
        if way == "passthrough":
            return self.passthrough is not None
        return True

    def make_passthrough(self):
        """Debian's package of libfuse comes with the example's source."""
        if not os.path.exists(EXAMPLE):
            return None
        out = self.path("passthrough_ll")
        flags = call("pkg-config", "--cflags", "--libs", "fuse3").split()
        call("gcc", "-O2", "-w", "-D_GNU_SOURCE", EXAMPLE, "-o", out, *flags)
        at = self.path("passthrough")
        os.mkdir(at)
        call(out, "-o", "source=%s,cache=always" % self.dir, at)
        return at

    # One function a way; seconds.

    def upload(self, k):
        d = os.path.join(self.mount, "tables/bench/t%d" % k)
        os.makedirs(d)
        return timed("cp", self.csv, d + "/data.csv")

    def store(self, k):
        d = self.path("store%d" % k)
        out = dict(x.split() for x in call(self.program, "store", self.csv, d).splitlines())
        shutil.rmtree(d)
        self.lookups.append(float(out["lookup"]))
        self.store_read_s = float(out["read"])
        return float(out["upload"])

    def store_read(self, _):
        return self.store_read_s

    def sqlite(self, k):
        db = self.path("sqlite%d" % k)
        took = timed("sqlite3", db, ".mode csv", ".import %s t" % self.csv) + durable(db)
        os.unlink(db)
        return took

    def duckdb(self, k):
        db = self.path("duckdb%d" % k)
        return duckdb(db, "CREATE TABLE t AS SELECT * FROM read_csv('%s')" % self.csv) + durable(db)

    def duckdb_copy(self, k):
        out, db = self.path("out.csv"), self.path("duckdb%d" % k)
        took = duckdb(db, "COPY t TO '%s' (HEADER)" % out)
        os.unlink(out)
        os.unlink(db)
        return took

    def copy(self, _):
        to = self.path("copy")
        took = timed("cp", self.csv, to) + durable(to)
        os.unlink(to)
        return took

    def cat(self, path):
        with open(os.devnull, "w", encoding="utf-8") as null:
            start = time.monotonic()
            subprocess.run(["dd", "if=" + path, "bs=128k", "status=none"], stdout=null, check=True)
            return time.monotonic() - start

    def data(self, k):
        return os.path.join(self.mount, "tables/bench/t%d/data.csv" % k)

    def read(self, k):
        return self.cat(self.data(k))

    def read_again(self, k):
        """Both files are taken into the page cache side by side, so that their pages lie alike
        in memory (that alone may make a copy slower by half), and are read in turns."""
        through = self.passthrough and os.path.join(self.passthrough, "big.csv")
        paths = [self.data(k)] + ([through] if through else [])
        fds = [os.open(p, os.O_RDONLY) for p in paths]
        for fd in fds:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for at in range(0, os.fstat(fds[0]).st_size, 1 << 20):
            for fd in fds:
                os.pread(fd, 1 << 20, at)
        for fd in fds:
            os.close(fd)
        best = [min(x) for x in zip(*[[self.cat(p) for p in paths] for _ in range(AGAIN)])]
        self.through_s = best[-1]
        return best[0]

    def through(self, _):
        return self.through_s

    def pandas(self, _, path=None):
        return float(call("/usr/bin/python3", "-c", PANDAS, path or self.csv, str(self.rows)))

    def pandas_mount(self, k):
        return self.pandas(k, self.data(k))

    def sum_cpu(self, path):
        pid = daemon(self.mount)
        before = cpu(pid)
        took = float(call("/usr/bin/python3", "-c", SUM, path, str(self.rows), str(COLUMNS)))
        return took + cpu(pid) - before

    def pandas_cpu(self, _):
        return self.sum_cpu(self.csv)

    def pandas_mount_cpu(self, k):
        return self.sum_cpu(self.data(k))

    def npy_cpu(self, k):
        return self.sum_cpu(os.path.join(os.path.dirname(self.data(k)), "data.npy"))

    npy_again_cpu = npy_cpu

    def rows_a_second(self, k):
        """Rows of rows/<key> that READERS processes open, read and close in a second, each the
        same LOOKUPS: for the first time, and again."""
        d = os.path.join(self.mount, "tables/bench/t%d/rows" % k)
        took = []
        for _ in range(4):
            start = time.monotonic()
            all_ = [subprocess.Popen([self.program, "rows", d, str(LOOKUPS), str(self.rows)])
                    for _ in range(READERS)]
            if any(p.wait() for p in all_):
                sys.exit("bench: a row was not there")
            took.append(READERS * LOOKUPS / (time.monotonic() - start))
        return took[0], max(took[1:])

    def many(self):
        """Seconds of ls -l and of find over a namespace of TABLES tables, each the first time
        and the best of three more."""
        call(self.program, "many", self.path("sandbox/state/9999/tables"), str(TABLES))
        d = os.path.join(self.mount, "tables/many")
        out = {}
        for name, argv in ("ls_l", ("ls", "-l", d)), ("find", ("find", d)):
            took = [timed(*argv) for _ in range(4)]
            out[name + "_first"], out[name] = took[0], min(took[1:])
        if len(os.listdir(d)) != TABLES:
            sys.exit("bench: not all tables are listed")
        return out

    def round(self, k, took):
        order = ["upload", "sqlite", "duckdb", "store", "copy"]
        order = order[k % len(order):] + order[:k % len(order)]
        order += ["read", "read_again", "duckdb_copy", "store_read", "pandas", "pandas_mount",
                  "pandas_cpu", "pandas_mount_cpu", "npy_cpu", "npy_again_cpu", "passthrough"]
        for way in filter(self.has, order):
            fn = getattr(self, "through" if way == "passthrough" else way)
            took.setdefault(way, []).append(fn(k))
        if k == 0 and subprocess.run(
                ["/bin/sh", "-c", "LC_ALL=C sort -c -s -t, -k1,1 <<E\n$(sed 1d %s | head -n 100000)\nE"
                 % self.data(k)], check=False).returncode:
            sys.exit("bench: the rows are not in order")


def row(name, value, unit, ratio="", against=""):
    return "%s\t%s\t%s\t%s\t%s" % (name, value, unit, ratio, against)


def measure(b):
    took, out = {}, []
    for k in range(ROUNDS):
        b.round(k, took)
        print("bench: round %d of %d: %s" % (k + 1, ROUNDS, json.dumps(
            {w: round(t[-1], 2) for w, t in took.items()})), file=sys.stderr)
        if k + 1 < ROUNDS:
            shutil.rmtree(os.path.dirname(b.data(k)))
    for way, seconds in took.items():
        value, unit = "%.0f" % statistics.median(b.mb / s for s in seconds), "MB/s"
        if way.endswith("_cpu"):
            value = "%.1f" % (statistics.median(seconds) / b.rows / COLUMNS * 1e9)
            unit = "ns a cell"
        yards = [y for y in AGAINST.get(way, ()) if y in took]
        out.append(row(way, value, unit))
        out += [row("%s_by_%s" % (way, y), value, unit, "%.2f" % statistics.median(
            theirs / ours for ours, theirs in zip(seconds, took[y])), y) for y in yards]
    out.append(row("store_lookup", "%.1f" % (statistics.median(b.lookups) * 1e6), "us"))
    first, again = b.rows_a_second(ROUNDS - 1)
    out.append(row("rows_first", "%.0f" % first, "1/s"))
    out.append(row("rows", "%.0f" % again, "1/s", "%.2f" % (again / 20000), "20,000 a second"))
    for name, seconds in b.many().items():
        limit = (1 if name.startswith("ls") else 3) * TABLES / 10000
        out.append(row(name, "%.2f" % seconds, "s", "%.2f" % (seconds / limit),
                       "%g s limit" % limit))
    rss = memory(daemon(b.mount))
    out.append(row("peak_rollfs", "%.0f" % rss, "MiB", "%.2f" % (rss / 256), "256 MiB limit"))
    for way in ("sqlite", "duckdb", "pandas", "passthrough"):
        if not b.has(way):
            print("bench: %s is not installed: left out" % way, file=sys.stderr)
    return out


def run(o):
    if os.environ.get("DUCKDB") and not os.path.isdir(DUCKDB):
        call("npm", "install", "--no-audit", "--no-fund", "--prefix", DUCKDB, "@duckdb/node-api")
    d = os.path.realpath(tempfile.mkdtemp(prefix="rollfs-bench-",
                                          dir=os.environ.get("BENCH_DIR") or "/var/tmp"))
    env = dict(os.environ, B=o)
    sandbox = os.path.join(TOP, "tools/sandbox")
    b = None
    try:
        call(sandbox, "up", os.path.join(d, "sandbox"), "9999", env=env)
        b = Bench(o, d)
        return measure(b)
    finally:
        if b and b.passthrough:
            subprocess.run(["fusermount3", "-u", b.passthrough], check=False)
        subprocess.run([sandbox, "down", os.path.join(d, "sandbox")], env=env, check=False)
        shutil.rmtree(d, ignore_errors=True)
