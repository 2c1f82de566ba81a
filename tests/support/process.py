"""Ports and processes: what every server that a test starts needs."""

from __future__ import annotations

import socket
import time
from pathlib import Path


class Closing:
    """What a `with` closes at its end."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Stopping:
    """What a `with` stops at its end, and looks how it ended; after a fault it only goes away."""

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.discard()


class HeldPort:
    """A free TCP port nobody else on the machine is given while this object lives.

    The socket stays bound without listening; REUSEADDR and REUSEPORT are set after the bind, so that
    the port was free for sure, and the server under test may still take it.
    """

    def __init__(self):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.number = self.sock.getsockname()[1]

    def release(self):
        self.sock.close()


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def command_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """A zombie does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def eventually(check, seconds: float = 5.0, every: float = 0.01, what: str = ""):
    """Waits until check() is truthy and returns it; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or check}; last value {value!r}")
        time.sleep(every)
