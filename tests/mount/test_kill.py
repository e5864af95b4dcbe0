# SPDX-License-Identifier: Apache-2.0
"""kill -9 of each process at a bad moment: the job goes on or ends with the
truth; nothing is left over."""
import json
import os
import signal

import pytest
from conftest import ENDED, SLOW, eventually, job_files, processes, read, read_json
from net import Socket
from test_jobs import breast, quick_keys


@pytest.fixture(scope="module")
def s(sandboxes):
    x = sandboxes("9999", "10000", "10001")
    x.upload_breast()
    return x


@pytest.fixture(scope="module")
def impatient(sandboxes):
    x = sandboxes("9999", "10000", "10001", LEASE=5 * SLOW)
    x.upload_breast()
    return x


def training(s, **lr):
    """A job that has reached its longest task."""
    dsl, conf = breast(**(lr or {"max_iter": 30}))
    job = s[9999].submit(dsl, quick_keys(conf))
    eventually(lambda: os.path.exists(s[9999].path("jobs", job, "guest/hetero_lr_0/log")) and
               "iteration" in s[9999].read("jobs", job, "guest/hetero_lr_0/log"), 60)
    return job


def nothing_runs(s):
    for p in s.parties.values():
        eventually(lambda: not p.pids("rollfs-task"), 15)


def test_a_killed_task_fails_its_job_with_the_reason(s):
    job = training(s, max_iter=10000, tol=1e-30)
    os.kill(s[10000].pid("rollfs-task"), 9)
    assert s[9999].wait(job, 30) == "failed"
    assert "hetero_lr_0" in s[9999].error(job)
    eventually(lambda: "party 9999 can continue the job" in s[10000].error(job))
    assert "killed by signal 9" in s[10000].error(job)
    eventually(lambda: "a rerun of the job goes on from there" in s[9999].error(job))
    nothing_runs(s)


def test_a_killed_rollsite_is_restarted_and_the_job_goes_on(s):
    job = training(s)
    for party in ("9999", "10000", "10001"):
        old = s[party].kill("rollsite")
        eventually(lambda: s[party].pids("rollsite") not in ([], [old]), 5)
    assert s[9999].wait(job, 120) == "success", s[9999].error(job)
    nothing_runs(s)


def test_a_killed_rollfs_comes_back_and_the_job_goes_on(s):
    job = training(s)
    s[9999].kill("rollfs")
    s[9999].start()
    status = s[9999].wait(job, 120)
    assert status == "success", s[9999].error(job)
    nothing_runs(s)


def test_a_task_whose_number_was_not_written_down_is_found_again(s):
    """As if rollfs had died between the start of the process and its note."""
    job = training(s)
    parties = ("9999", "guest"), ("10001", "arbiter")
    for party, _ in parties:
        s[party].kill("rollfs")
    for party, role in parties:
        os.unlink(os.path.join(s[party].state, "jobs", job, role, "hetero_lr_0/.task/0/pid"))
    for party, _ in parties:
        s[party].start()
    assert s[9999].wait(job, 120) == "success", s[9999].error(job)
    nothing_runs(s)


def test_a_task_that_went_with_the_machine_is_not_begun_twice(s):
    """The number of its process had not come to the disk; what it has read comes never again."""
    p = s[10000]
    job = training(s, max_iter=10000, tol=1e-30)
    p.kill("rollfs")
    eventually(lambda: not p.pids("rollfs"))
    for pid in p.pids("rollfs-task"):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not p.pids("rollfs-task"))
    top = os.path.join(p.state, "jobs", job)
    os.unlink(os.path.join(top, "host/hetero_lr_0/.task/0/pid"))
    for name in ("state", "recent"):
        path = os.path.join(top, ".job", name + ".json")
        state = read_json(path)
        assert state["boot"] == read("/proc/sys/kernel/random/boot_id").strip()
        state["boot"] = "the one before"
        with open(path, "w", encoding="ascii") as f:
            json.dump(state, f)
    p.start()
    assert s[9999].wait(job, 60) == "failed"
    eventually(lambda: "without a result while the machine was off" in p.error(job))
    nothing_runs(s)


def test_the_end_of_a_former_run_ends_no_rerun(s):
    """What the initiator said of it may come late: whoever reported meanwhile was told again."""
    job = training(s, max_iter=10000, tol=1e-30)
    os.kill(s[10000].pid("rollfs-task"), signal.SIGKILL)
    assert s[9999].wait(job, 30) == "failed"
    with open(s[9999].path("jobs", job, "ctl"), "w", encoding="ascii") as f:
        f.write("rerun\n")
    eventually(lambda: s[10000].pids("rollfs-task"), 30)

    def stop(run):
        with Socket(s[9999]) as rollsite:
            assert rollsite.ask(
                {"op": "rpc", "party": "10000", "verb": "stop", "timeout_ms": 20000},
                json.dumps({"job": job, "status": "canceled", "errors": [],
                            "run": run}).encode())["status"] == 0
    stop(0)
    assert s[10000].status(job) == "running" and s[10000].pids("rollfs-task")
    stop(1)
    assert s[10000].status(job) == "canceled"
    assert s[9999].wait(job, 60) in ("failed", "canceled")
    nothing_runs(s)


def test_jobs_and_tables_survive_a_restart(s):
    job = s[9999].run(*job_files("add"))
    s[9999].kill("rollfs")
    s[9999].start()
    assert s[9999].status(job) == "success"
    assert s[9999].read("tables/experiment/breast_guest/count") == "569\n"
    assert len(s[9999].pids("rollsite")) == 1


def test_partners_that_ended_a_job_without_its_initiator_say_why(impatient):
    s = impatient
    job = training(s, max_iter=10000, tol=1e-30)
    task = s[9999].pid("rollfs-task")
    rollfs = s[9999].kill("rollfs")
    # It would say that its rollfs is away.  Not before it has another parent: a group that loses
    # its parent while it is stopped gets SIGHUP.
    eventually(lambda: "\nPPid:\t%d\n" % rollfs not in read("/proc", str(task), "status"))
    os.kill(task, signal.SIGSTOP)
    for party in ("10000", "10001"):
        eventually(lambda: s[party].status(job) == "failed", 20)
        assert "party 9999, has been silent" in s[party].error(job)
    s[9999].start()
    assert s[9999].wait(job, 60) == "failed"
    assert "the initiator has been silent" in s[9999].error(job)
    nothing_runs(s)


def test_a_dead_partner_ends_the_job_truthfully(impatient):
    s = impatient
    job = training(s, max_iter=10000, tol=1e-30)
    for program in ("rollfs", "rollsite", "rollfs-task"):
        for pid in s[10000].pids(program):
            os.kill(pid, 9)
    status = s[9999].wait(job, 60)
    assert status == "failed" and "10000" in s[9999].error(job)
    eventually(lambda: not s[9999].pids("rollfs-task"), 10)
    s[10000].start()
    eventually(lambda: s[10000].status(job) in ENDED, 20)
    nothing_runs(s)
    eventually(lambda: s[9999].read("parties/10000/ping").startswith("ok"), 20)
    s[9999].run(*job_files("add"))


def test_orphans_end_themselves(sandboxes):
    x = sandboxes("1", "2", LEASE=2)
    x[1].kill("rollfs")
    eventually(lambda: not x[1].pids("rollsite"), 10)
    x[1].start()
    eventually(lambda: x[1].read("parties/2/ping").startswith("ok"), 10)


def test_half_an_upload_is_no_table(s):
    s[9999].upload("experiment", "half", "id,a\n1,2\n")
    fd = os.open(s[9999].path("tables/experiment/half/data.csv"), os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"id,a\n3,4\n")
    s[9999].kill("rollfs")
    try:
        os.close(fd)
    except OSError:
        pass
    s[9999].start()
    assert s[9999].read("tables/experiment/half/data.csv") == "id,a\n1,2\n"


def test_nothing_is_left_after_down(s):
    s.run("down", s.dir)
    assert not processes(s.dir) and not s.mounts()
