# SPDX-License-Identifier: Apache-2.0
"""metrics/ and checkpoints/ of a task: they stand in its directory on disk and
are seen as they grow."""
import os
import select
import stat
import subprocess
import threading

import pytest
from conftest import SLOW, eventually, job_files


@pytest.fixture(scope="module")
def task(three):
    """(party, task in the mount, task on disk) of a job that has ended."""
    p = three[9999]
    job = p.run(*job_files("add"))
    component = sorted(os.listdir(p.path("jobs", job, "guest")))[0]
    where = os.path.join("jobs", job, "guest", component)
    return p, p.path(where), os.path.join(p.state, where)


def append(path, text):
    with open(path, "a", encoding="utf-8") as f:
        f.write(text)


def test_what_is_not_written_is_not_there(task):
    _, t, _ = task
    assert not {"metrics", "checkpoints"} & set(os.listdir(t))
    assert not os.path.exists(t + "/metrics/train/loss.tsv")


def test_a_curve_is_seen_while_it_grows(task):
    _, t, disk = task
    os.makedirs(disk + "/metrics/train")
    append(disk + "/metrics/train/loss.tsv", "0\t0.5\n")
    assert "metrics" in os.listdir(t)
    assert os.listdir(t + "/metrics") == ["train"]
    f = t + "/metrics/train/loss.tsv"
    tail = subprocess.Popen(["tail", "-n", "+1", "-f", f], stdout=subprocess.PIPE, text=True)
    try:
        assert tail.stdout.readline() == "0\t0.5\n"
        for i in range(1, 4):
            line = "%d\t0.%d\n" % (i, 5 - i)
            append(disk + "/metrics/train/loss.tsv", line)
            assert os.stat(f).st_size == os.stat(disk + "/metrics/train/loss.tsv").st_size
            assert tail.stdout.readline() == line
    finally:
        tail.kill()
        tail.wait()
    assert stat.S_IMODE(os.stat(f).st_mode) & 0o222 == 0
    with pytest.raises(PermissionError):
        os.open(f, os.O_WRONLY | os.O_APPEND)
    with open(f, encoding="utf-8") as i:
        assert len(i.read()) == os.stat(f).st_size


@pytest.mark.parametrize("name", ["log", "events", "metrics/polled/loss.tsv"])
def test_poll_and_epoll_wait_for_what_was_not_read(task, name):
    """Other processes write these files."""
    _, t, disk = task
    os.makedirs(disk + "/metrics/polled", exist_ok=True)
    append(disk + "/" + name, "")
    with open(t + "/" + name, "rb", buffering=0) as f:
        poll, epoll, edge = select.poll(), select.epoll(), select.epoll()
        poll.register(f, select.POLLIN)
        epoll.register(f, select.EPOLLIN)
        while f.read(4096):
            pass
        edge.register(f, select.EPOLLIN | select.EPOLLET)
        for k in range(3):
            assert not poll.poll(50) and not epoll.poll(0.05) and not edge.poll(0.05)
            later = threading.Timer(0.1, append, (disk + "/" + name, "line %d\n" % k))
            later.start()
            waiter = (lambda: poll.poll(60000 * SLOW), lambda: epoll.poll(60 * SLOW),
                      lambda: edge.poll(60 * SLOW))[k]
            assert waiter() == [(f.fileno(), select.POLLIN)]
            later.join()
            assert poll.poll(0) and epoll.poll(0)  # as long as it is not read
            assert f.read(5) == b"line " and poll.poll(0)
            assert f.read(100) == b"%d\n" % k
            edge.poll(0)
        epoll.close()
        edge.close()


def test_a_checkpoint_is_private_and_a_half_written_one_unseen(task):
    _, t, disk = task
    os.makedirs(disk + "/checkpoints/deeper", exist_ok=True)
    append(disk + "/checkpoints/7.json", '{"module": "HeteroLR"}\n')
    append(disk + "/checkpoints/.123.1.tmp", '{"modu')
    assert os.listdir(t + "/checkpoints") == ["7.json"]
    assert not os.path.exists(t + "/checkpoints/.123.1.tmp")
    assert stat.S_IMODE(os.stat(t + "/checkpoints/7.json").st_mode) == 0o600
    with open(t + "/checkpoints/7.json", encoding="utf-8") as f:
        assert f.read() == '{"module": "HeteroLR"}\n'


def test_tools_go_through_and_the_job_is_removed_with_them(task, tmp_path):
    p, t, disk = task
    os.makedirs(disk + "/metrics/validate", exist_ok=True)
    append(disk + "/metrics/validate/auc.tsv", "0\t\n")
    before = os.stat(t + "/metrics/validate/auc.tsv").st_ino
    p.kill("rollfs")
    p.start()
    assert os.stat(t + "/metrics/validate/auc.tsv").st_ino == before
    for script in ("tar cf - . | tar tf - | grep metrics/validate/auc.tsv", "cp -r . $OUT/copy",
                   "cmp metrics/validate/auc.tsv $OUT/copy/metrics/validate/auc.tsv"):
        r = subprocess.run(["bash", "-c", script], cwd=t, env=dict(os.environ, OUT=str(tmp_path)),
                           timeout=60 * SLOW, capture_output=True, text=True, check=False)
        assert r.returncode == 0, r.stderr
    job = os.path.dirname(os.path.dirname(t))
    r = subprocess.run(["rm", "-r", job], timeout=60 * SLOW, capture_output=True, text=True,
                       check=False)
    assert r.returncode == 0, r.stderr
    eventually(lambda: not os.path.exists(disk), 10)
