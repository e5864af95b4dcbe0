# SPDX-License-Identifier: Apache-2.0
"""The life of a job where it is not the usual one: queues, retries, timeouts,
cancels and restarts at every side."""
import os

import pytest
from conftest import SLOW, eventually, job_files
from test_jobs import breast, quick_keys


@pytest.fixture(scope="module")
def s(sandboxes):
    x = sandboxes("9999", "10000", "10001", LEASE=8 * SLOW, CORES=2)
    x.upload_breast()
    return x


@pytest.fixture(autouse=True)
def nothing_runs_on(s):
    """A test that failed half-way must not hold the cores of the next one."""
    yield
    for p in s.parties.values():
        for job in os.listdir(p.path("jobs")):
            if job.isdigit() and p.status(job) in ("waiting", "running"):
                try:
                    ctl(p, job, "cancel")
                except OSError:
                    continue # it ended meanwhile
    eventually(lambda: all(cores_free(p) for p in s.parties.values()), 20)


def add(**job):
    dsl, conf = job_files("add")
    conf["job_parameters"]["common"].update(job)
    return dsl, conf


def lr(iterations=6, **job):
    dsl, conf = breast(max_iter=iterations, tol=1e-30)
    conf["job_parameters"]["common"].update(job)
    return dsl, quick_keys(conf)


def training(s, iterations=30, **job):
    """A job that has reached its longest task."""
    job = s[9999].submit(*lr(iterations, **job))
    log = s[9999].path("jobs", job, "guest/hetero_lr_0/log")
    eventually(lambda: os.path.exists(log) and "iteration" in s[9999].read(log), 60)
    return job


def ctl(p, job, line):
    with open(p.path("jobs", job, "ctl"), "w", encoding="utf-8") as f:
        f.write(line + "\n")


def all_end(s, job, status, parties=("9999", "10000", "10001")):
    for p in parties:
        eventually(lambda: s[p].status(job) == status, 15)
    for p in parties:
        eventually(lambda: not s[p].pids("rollfs-task"), 15)


def cores_free(p):
    return [x.split()[1] for x in p.read("metrics").splitlines()
            if x.startswith("rollfs_cores_free ")] == ["2"]


def idle(s):
    for p in s.parties.values():
        eventually(lambda: cores_free(p), 15)


def test_a_killed_task_is_retried_everywhere(s):
    job = training(s, iterations=60, auto_retries=1, auto_retry_delay=1)
    os.kill(s[10000].pid("rollfs-task"), 9)
    assert s[9999].wait(job, 120) == "success", s[9999].error(job)
    all_end(s, job, "success")
    for p in s.parties.values():
        assert p.error(job) == ""
    assert "attempt 1 follows" in s[9999].read("jobs", job, "events")
    idle(s)


def test_retries_are_not_endless(s):
    job = training(s, iterations=10000, auto_retries=1, auto_retry_delay=0)
    first = s[10000].pid("rollfs-task")
    os.kill(first, 9)
    second = eventually(lambda: [x for x in s[10000].pids("rollfs-task") if x != first], 20)
    os.kill(second[0], 9)
    assert s[9999].wait(job, 60) == "failed"
    all_end(s, job, "failed")
    assert "killed" in s[10000].error(job)
    idle(s)


def test_the_timeout_of_a_job_is_its_end_everywhere(s):
    job = s[9999].submit(*lr(10000, timeout=6 * SLOW))
    assert s[9999].wait(job, 60) == "timeout"
    assert "timeout" in s[9999].error(job)
    # On a busy machine it has not come to its training, and waits for a partner just then.
    components = s[9999].path("jobs", job, "guest")
    ends = {s[9999].read(components, c, "status").strip() for c in os.listdir(components)}
    assert ends & {"timeout", "skipped"} and ends <= {"success", "timeout", "skipped"}, ends
    all_end(s, job, "timeout")
    idle(s)


def test_jobs_queue_for_cores_and_all_succeed(s):
    jobs = [s[9999].submit(*lr(4, task_cores=2)) for _ in range(3)]
    for line in s[9999].read("jobs/queue").splitlines():
        assert len(line.split()) > 5, line  # every one says why
    for job in jobs:
        assert s[9999].wait(job, 120) == "success", s[9999].error(job)
    eventually(lambda: s[9999].read("jobs/queue") == "")
    idle(s)


def test_two_initiators_want_the_same_cores(s):
    dsl, conf = add(task_cores=2)
    conf["initiator"]["party_id"] = 10000
    conf["role"] = {"guest": [10000], "host": [9999]}
    a, b = [], []
    for _ in range(2):
        a.append(s[9999].submit(*add(task_cores=2)))
        b.append(s[10000].submit(dsl, conf))
    for p, jobs in ((s[9999], a), (s[10000], b)):
        for job in jobs:
            assert p.wait(job, 90) == "success", p.error(job)
    idle(s)


def test_cancel_while_waiting_in_the_queue(s):
    first = training(s, iterations=10000, task_cores=2)
    second = s[9999].submit(*add(task_cores=2))
    eventually(lambda: second in s[9999].read("jobs/queue"))
    assert s[9999].status(second) == "waiting"
    ctl(s[9999], second, "cancel")
    assert s[9999].wait(second, 10) == "canceled"
    ctl(s[9999], first, "cancel")
    all_end(s, first, "canceled")
    idle(s)


def test_cancel_of_a_job_that_waits_for_a_partner(s):
    held = training(s, iterations=10000, task_cores=2)
    dsl, conf = add()
    conf["initiator"]["party_id"] = 10001
    conf["role"] = {"guest": [10001], "host": [10000]}
    waits = s[10001].submit(dsl, conf)
    eventually(lambda: waits in s[10000].read("jobs/queue"), 20)
    eventually(lambda: "party 10000" in s[10001].read("jobs/queue"))
    ctl(s[10001], waits, "cancel")
    assert s[10001].wait(waits, 10) == "canceled"
    eventually(lambda: s[10000].status(waits) == "canceled", 5)
    ctl(s[9999], held, "cancel")
    all_end(s, held, "canceled")
    idle(s)


def test_cancel_from_the_mount_of_a_partner(s):
    job = training(s, iterations=10000)
    ctl(s[10000], job, "cancel")
    assert s[9999].wait(job, 20) == "canceled"
    all_end(s, job, "canceled")
    idle(s)


@pytest.mark.parametrize("party", ["9999", "10000", "10001"])
def test_a_restart_of_any_party_while_a_job_runs(s, party):
    job = training(s)
    s[party].kill("rollfs")
    s[party].start()
    assert s[9999].wait(job, 120) == "success", s[9999].error(job)
    all_end(s, job, "success")
    idle(s)


def test_an_end_that_was_said_is_the_end_after_a_kill(s):
    job = training(s, iterations=10000)
    ctl(s[9999], job, "cancel")
    s[9999].kill("rollfs")
    s[9999].start()
    assert s[9999].wait(job, 20) == "canceled"
    all_end(s, job, "canceled")
    idle(s)


def test_a_partner_that_was_away_at_the_end_hears_of_it(s):
    job = s[9999].submit(*add())
    pid = s[10000].pid("rollfs")
    eventually(lambda: os.path.exists(s[10000].path("jobs", job)), 20)
    os.kill(pid, 9)
    s[9999].wait(job, 60)
    s[10000].start()
    eventually(lambda: s[10000].status(job) == s[9999].status(job), 20)
    idle(s)


def test_rerun_right_after_the_end(s):
    job = s[9999].run(*add())
    for _ in range(3):
        ctl(s[9999], job, "rerun force")
        assert s[9999].wait(job, 30) == "success", s[9999].error(job)
    all_end(s, job, "success", ("9999", "10000"))
    idle(s)
