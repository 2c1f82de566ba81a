"""A real redis-server: unix socket or TCP, with password or TLS, that can be killed or frozen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis

from .process import Closing, HeldPort


class Redis(Closing):
    """transport: "unix", "tcp" or "tls". Keeps nothing on disk: it comes back empty.

    With `clock`, advance() moves the time that it tells, and by which its keys expire.
    """

    def __init__(
        self,
        transport: str = "unix",
        password: str = "",
        authority=None,
        notifications: bool = False,
        database: int = 0,
        clock: bool = False,
    ):
        self.folder = Path(tempfile.mkdtemp(prefix="apiproxy-redis-"))
        self.transport = transport
        self.password = password
        self.authority = authority
        self.notifications = notifications
        self.database = database
        self.ahead = 0.0  # of the true time, in seconds
        self.clock = self._build_clock() if clock else None
        self.held = HeldPort() if transport != "unix" else None
        self.socket = self.folder / "redis.sock"
        self.process: subprocess.Popen | None = None
        self.start()

    @property
    def url(self) -> str:
        credential = f":{self.password}@" if self.password else ""
        suffix = f"/{self.database}" if self.database else ""
        if self.transport == "unix":
            return f"unix://{credential}{self.socket}" + (f"?db={self.database}" if self.database else "")
        if self.transport == "tls":
            return f"rediss://{credential}localhost:{self.held.number}{suffix}"
        return f"redis://{credential}127.0.0.1:{self.held.number}{suffix}"

    def _arguments(self) -> list[str]:
        options = ["--save", "", "--appendonly", "no", "--dir", str(self.folder), "--loglevel", "warning"]
        if self.transport == "unix":
            options += ["--port", "0", "--unixsocket", str(self.socket)]
        elif self.transport == "tcp":
            options += ["--port", str(self.held.number), "--bind", "127.0.0.1"]
        else:
            cert, key = self.authority.write("localhost", "127.0.0.1", stem=f"redis-{self.held.number}")
            options += ["--port", "0", "--tls-port", str(self.held.number), "--bind", "127.0.0.1"]
            options += ["--tls-cert-file", str(cert), "--tls-key-file", str(key)]
            options += ["--tls-ca-cert-file", str(self.authority.bundle), "--tls-auth-clients", "no"]
        if self.password:
            options += ["--requirepass", self.password]
        if self.notifications:
            options += ["--notify-keyspace-events", "KEA"]
        return options

    def _build_clock(self) -> Path:
        source = Path(__file__).with_name("clock_ahead.c")
        command = ["cc", "-shared", "-fPIC", "-O2", "-o", self.folder / "clock_ahead.so", source]
        subprocess.run(command, check=True)
        return self.folder / "clock"

    def advance(self, seconds: float):
        """From now on its clock is that much later."""
        self.ahead += seconds
        with open(self.clock, "r+b" if self.clock.exists() else "wb") as file:
            file.write(round(self.ahead * 1e9).to_bytes(8, sys.byteorder))

    def time(self) -> float:
        seconds, microseconds = self.client.time()
        return seconds + microseconds / 1e6

    def _environment(self) -> dict[str, str]:
        if not self.clock:
            return dict(os.environ)
        self.advance(0)
        return {**os.environ, "LD_PRELOAD": str(self.folder / "clock_ahead.so"), "CLOCK_AHEAD": str(self.clock)}

    def start(self):
        """Starts it, empty."""
        self.process = subprocess.Popen(
            ["redis-server", *self._arguments()],
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = self._connect()
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.01)

    def _connect(self) -> redis.Redis:
        common = {"password": self.password or None, "db": self.database, "decode_responses": True, "retry": None}
        if self.transport == "unix":
            return redis.Redis(unix_socket_path=str(self.socket), **common)
        if self.transport == "tls":
            return redis.Redis(
                host="localhost", port=self.held.number, ssl=True, ssl_ca_certs=str(self.authority.bundle), **common
            )
        return redis.Redis(host="127.0.0.1", port=self.held.number, **common)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.client.close()

    def freeze(self):
        """SIGSTOP: it hangs, its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        if self.process.poll() is None:
            self.thaw()
            self.kill()
        if self.held:
            self.held.release()
        shutil.rmtree(self.folder, ignore_errors=True)
