# SPDX-License-Identifier: Apache-2.0
"""A rollsite that only notes what rollfs tells it: frames of lib/fileio.h on
STATE/rollsite.sock.  It takes files over and calls them committed."""
import json
import os
import socket
import struct
import threading


class FakeSite:
    def __init__(self, state):
        self.state = state
        self.events = []
        self.gate = threading.Event()  # file_stream is answered when it is set
        self.gate.set()
        self.refuse = 0  # errno that a put gets
        self.changed = threading.Condition()
        self.stopped = False
        self.connections = []
        path = os.path.join(state, "rollsite.sock")
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX)
        here = os.open(".", os.O_RDONLY)
        try:  # sun_path is short
            os.chdir(state)
            self.listener.bind("rollsite.sock")
        finally:
            os.fchdir(here)
            os.close(here)
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while not self.stopped:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(c)
            threading.Thread(target=self.client, args=(c,), daemon=True).start()

    def stop(self):
        self.stopped = True
        self.gate.set()
        self.listener.close()
        for c in self.connections:
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @staticmethod
    def take(c, n):
        data = b""
        while len(data) < n:
            got = c.recv(n - len(data))
            if not got:
                raise OSError("gone")
            data += got
        return data

    def client(self, c):
        try:
            while True:
                h, b = struct.unpack("<II", self.take(c, 8))
                q = json.loads(self.take(c, h))
                self.take(c, b)
                a = self.answer(q)
                if a is None:  # for ever
                    self.take(c, 1)
                a.setdefault("status", 0)
                text = json.dumps(a).encode()
                c.sendall(struct.pack("<II", len(text), 0) + text)
        except OSError:
            c.close()

    def answer(self, q):
        op = q["op"]
        if op in ("inbox", "serve"):
            return None
        if op == "hello":
            return {"child": False, "party": os.path.basename(self.state), "version": "fake"}
        if op in ("file_put", "file_stream", "file_drop", "file_deadline"):
            with self.changed:
                self.events.append(q)
                self.changed.notify_all()
        if op == "file_stream":
            self.gate.wait()
        if op == "file_put" and self.refuse:
            return {"status": -self.refuse, "error": "refused by the test"}
        if op == "file_put":
            to = os.path.join(self.state, "federation", q["party"], "out", q["path"])
            os.makedirs(os.path.dirname(to), exist_ok=True)
            try:
                os.rename(q["spool"], to)
            except OSError as e:
                return {"status": -e.errno, "error": str(e)}
        if op == "file_state":
            return {"state": {"state": "committed", "size": 1, "receipt": {"tid": "00", "size": 1},
                              "deadline": ""}}
        return {}

    def of(self, op):
        with self.changed:
            return [e for e in self.events if e["op"] == op]
