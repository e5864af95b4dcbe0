# SPDX-License-Identifier: Apache-2.0
"""rollfs-task as a process: describe, check, results, its end."""
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import time

import pytest

from conftest import BUILD, SLOW, eventually, read, read_json

PROGRAM = os.path.join(BUILD, "rollfs-task")


class Task:
    """One attempt in a state directory of its own."""

    def __init__(self, state, module, role="guest", params=None, lease=60, **more):
        self.state = str(state)
        self.dir = os.path.join(self.state, "jobs", "1", role, "it_0")
        self.attempt = os.path.join(self.dir, ".task", "0")
        self.result = os.path.join(self.attempt, "result.json")
        self.log = os.path.join(self.dir, "log")
        os.makedirs(self.attempt)
        task = {
            "version": 1, "job": "1", "component": "it_0", "module": module, "attempt": 0,
            "session": "1_it_0_0", "role": role, "party": "9999",
            "roles": {"guest": ["9999"], "host": ["10000"]}, "params": params or {},
            "inputs": {}, "outputs": {}, "state": self.state, "task_dir": self.dir,
            "socket": os.path.join(self.state, "rollsite.sock"), "result": self.result,
            "job_log": os.path.join(self.state, "jobs", "1", "log"), "cores": 1, "lease": lease,
        }
        task.update(more)
        self.path = os.path.join(self.attempt, "task.json")
        with open(self.path, "w", encoding="utf-8") as f:
            json.dump(task, f)

    def start(self):
        with open(self.log, "ab") as log:
            return subprocess.Popen([PROGRAM, self.path], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=log)

    def run(self):
        return self.start().wait(timeout=60 * SLOW)


def ask(*argv, text=None):
    return subprocess.run([PROGRAM, *argv], input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60 * SLOW, check=False,
                          universal_newlines=True)


def held(path):
    """An OFD write lock, as rollfs has it on its state directory."""
    f = open(path, "w", encoding="utf-8")
    fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
    return f


def test_describe_names_every_component_with_typed_parameters():
    r = ask("--describe")
    assert r.returncode == 0
    found = json.loads(r.stdout)["components"]
    assert [c["module"] for c in found] == sorted(c["module"] for c in found)
    assert {"DataTransform", "Evaluation", "HeteroLR", "Intersection", "Reader",
            "SecureAddExample"} <= {c["module"] for c in found}
    types = {"bool", "int", "number", "string", "enum", "object", "list", "any"}

    def check(params):
        for p in params:
            assert p["type"] in types and p["help"]
            assert p.get("required") or "default" in p, p["name"]
            assert p["type"] != "enum" or p["default"] is None or p["default"] in p["choices"]
            check(p.get("params", []))

    for c in found:
        assert c["help"]
        check(c["params"])


def test_check_answers_with_task_and_pointer():
    r = ask("--check", text=json.dumps({"tasks": [
        {"component": "a", "module": "Reader", "role": "guest", "roles": {},
         "params": {"table": {"namespace": "x", "name": "y"}}},
        {"component": "b", "module": "Evaluation", "role": "guest", "roles": {},
         "params": {"eval_type": "clustering"}}]}))
    assert r.returncode == 0
    (defect,) = json.loads(r.stdout)["defects"]
    assert (defect["task"], defect["pointer"]) == (1, "eval_type")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tasks": 3}', '{"tasks": []} x'])
def test_a_malformed_question_is_refused(text):
    r = ask("--check", text=text)
    assert r.returncode == 1 and r.stdout == "" and r.stderr


def test_a_task_that_succeeds_says_so(tmp_path):
    t = Task(tmp_path, "Evaluation")
    assert t.run() == 0
    assert read_json(t.result) == {"status": "success"}
    assert read(t.dir, "progress") == "100\n"


def test_a_task_that_fails_tells_partners_less_than_its_own_party(tmp_path):
    t = Task(tmp_path, "Reader", params={"table": {"namespace": "ns", "name": "secret"}})
    assert t.run() == 1
    r = read_json(t.result)
    assert r["status"] == "failed" and "ns/secret" in r["error"]
    assert r["code"] == "failed" and "secret" not in r["public"]
    assert "ns/secret" in read(t.log)
    assert "guest it_0" in read(t.state, "jobs", "1", "log")


def test_an_unknown_module_and_a_broken_task_file_fail(tmp_path):
    t = Task(tmp_path / "a", "Nothing")
    assert t.run() == 1 and "Nothing" in read_json(t.result)["error"]
    t = Task(tmp_path / "b", "Evaluation")
    with open(t.path, "w", encoding="utf-8") as f:
        f.write('{"version": 1')
    assert t.run() == 1 and not os.path.exists(t.result)


@pytest.mark.parametrize("bad", [{"secret": "12"}, {"secret": "z" * 64}, {"cores": 0}])
def test_values_out_of_range_fail_the_task(tmp_path, bad):
    t = Task(tmp_path, "Evaluation", **bad)
    assert t.run() == 1 and read_json(t.result)["status"] == "failed"


def waiting_task(state, **more):
    """It waits for a rollsite that never answers."""
    return Task(state, "SecureAddExample", params={"data_num": 10}, **more)


def test_sigterm_ends_it_at_once_without_a_result(tmp_path):
    t = waiting_task(tmp_path)
    p = t.start()
    eventually(lambda: os.path.exists(os.path.join(t.dir, "progress")))
    p.send_signal(signal.SIGTERM)
    assert p.wait(timeout=60 * SLOW) == -signal.SIGTERM
    assert not os.path.exists(t.result)


def test_its_command_line_tells_whose_it_is(tmp_path):
    t = waiting_task(tmp_path)
    p = t.start()
    try:
        with open("/proc/%d/cmdline" % p.pid, "rb") as f:
            assert eventually(f.read).split(b"\0")[1] == os.fsencode(t.path)
    finally:
        p.kill()
        p.wait()


def test_an_attempt_runs_once(tmp_path):
    t = waiting_task(tmp_path)
    p = t.start()
    try:
        eventually(lambda: os.path.exists(os.path.join(t.dir, "progress")))
        assert t.run() == 1
        assert not os.path.exists(t.result) and p.poll() is None
        assert "runs already" in read(t.log)
    finally:
        p.kill()
        p.wait()


def test_it_ends_when_its_rollfs_stays_away(tmp_path):
    t = waiting_task(tmp_path, lease=2)
    lock = held(os.path.join(t.state, "lock"))
    # A rollsite that takes the request and never answers.
    with socket.socket(socket.AF_UNIX) as silent:
        here = os.getcwd()
        os.chdir(t.state)  # the path may be too long for an address
        silent.bind("rollsite.sock")
        os.chdir(here)
        silent.listen()
        p = t.start()
        try:
            time.sleep(3)
            assert p.poll() is None
            lock.close()
            assert p.wait(timeout=60 * SLOW) == 1
            assert read_json(t.result)["error"] == "rollfs has been away for 2 s"
        finally:
            p.kill()
            p.wait()
