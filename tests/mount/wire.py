#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""wire.py NS1 NS2 SEED: a wire between two network namespaces, as a process
that carries packets from a TUN device in one to a TUN device in the other,
later, or not at all.  (The kernel's netem is not in every kernel; this is.)

Standard input: "delay SECONDS", "loss FRACTION", "rate BYTES", "up 0|1", "counts 0"; each is
answered by a line.  Ends with its input."""
import collections
import ctypes
import fcntl
import json
import os
import random
import select
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454ca
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000


def tun(ns):
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/run/netns/" + ns, "rb") as f:
        if libc.setns(f.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns " + ns)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"wire0", IFF_TUN | IFF_NO_PI))
    return fd


def main(ns1, ns2, seed):
    a, b = tun(ns1), tun(ns2)
    other = {a: b, b: a}
    rng = random.Random(int(seed))
    delay, loss, up = 0.0, 0.0, True
    rate = 0.0  # bytes/s in each direction; 0 = no limit
    free = {a: 0.0, b: 0.0}  # when the wire can take the next packet
    # (when, packet) for each direction: the delay is one for all.
    queues = {a: collections.deque(), b: collections.deque()}
    count = {"packets": 0, "lost": 0, "bytes": 0}
    poll = select.poll()
    for fd in (0, a, b):
        poll.register(fd, select.POLLIN)
    print("ready", flush=True)
    text = ""
    while True:
        first = min((q[0][0] for q in queues.values() if q), default=None)
        pause = None if first is None else max(0, (first - time.monotonic()) * 1000)
        for fd, _ in poll.poll(pause):
            if fd == 0:
                got = os.read(0, 4096).decode()
                if not got:
                    return
                text += got
                while "\n" in text:
                    line, text = text.split("\n", 1)
                    word, value = line.split()
                    if word == "delay":
                        delay = float(value)
                    elif word == "loss":
                        loss = float(value)
                    elif word == "rate":
                        rate = float(value)
                    elif word == "up":
                        up = value == "1"
                    print(json.dumps(count) if word == "counts" else "ok", flush=True)
                continue
            now = time.monotonic()
            for _ in range(64):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                except OSError:  # the device is down
                    break
                count["packets"] += 1
                count["bytes"] += len(packet)
                if not up or rng.random() < loss:
                    count["lost"] += 1
                    continue
                when = now
                if rate:
                    when = max(now, free[fd]) + len(packet) / rate
                    if when - now > 0.3:  # what a router would hold
                        count["lost"] += 1
                        continue
                    free[fd] = when
                queues[fd].append((when + delay, packet))
        now = time.monotonic()
        for fd, queue in queues.items():
            while queue and queue[0][0] <= now:
                try:
                    os.write(other[fd], queue.popleft()[1])
                except OSError:  # its queue is full: lost
                    count["lost"] += 1


main(*sys.argv[1:])
