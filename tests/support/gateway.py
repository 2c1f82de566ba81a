"""The gateway under test: a real process with its own directory, port and data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from .certs import Authority
from .process import HeldPort, Stopping, resident_bytes
from .wire import Connection, RawClient, RawServer, Response, request_bytes

ROOT = Path(__file__).resolve().parents[2]
SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error: |Sanitizer:DEADLYSIGNAL"
)
TOKEN = "admin-token-of-the-tests-0123456789"
# What the tests' own environment may hand on: where sanitizers report, and nothing that is a setting.
SANITIZER_OPTIONS = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS")
PASSED_ON = (*SANITIZER_OPTIONS, "LANG", "TZ", "PATH", "LD_LIBRARY_PATH")


def binary() -> str:
    return os.environ.get("APIPROXY_BIN") or str(ROOT / "build" / "apiproxy")


def is_sanitized() -> bool:
    """Is the binary built with a sanitizer (slower, other memory)?"""
    with open(binary(), "rb") as file:
        data = file.read()
    return any(mark in data for mark in (b"__asan_init", b"__tsan_init", b"__ubsan_handle"))


def clean_env(**settings: str) -> dict[str, str]:
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env.update({name: str(value) for name, value in settings.items()})
    return env


def run_once(*arguments: str, cwd: Path, timeout: float = 20, **env: str) -> subprocess.CompletedProcess:
    """Runs the program to its end, as for --check."""
    return subprocess.run(
        [binary(), *arguments], cwd=cwd, env=clean_env(**env), capture_output=True, text=True, timeout=timeout
    )


class Gateway(Stopping):
    """Starts apiproxy and waits until it is ready.

    Settings are given by their environment name: Gateway(API_PROXY_WORKERS="1"). A name with the
    value None leaves a default of the tests out. `files` are written into the working directory
    first. `stop()` fails when the exit was not clean or a sanitizer complained.
    """

    def __init__(
        self,
        *arguments: str,
        files: dict[str, str] | None = None,
        folder: Path | None = None,
        port: HeldPort | None = None,
        start: bool = True,
        tls: ssl.SSLContext | None = None,
        wrapper: tuple[str, ...] = (),
        **settings: str | None,
    ):
        self.arguments = arguments
        self.own_folder = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="apiproxy-e2e-")) if folder is None else folder
        self.own_port = port is None
        self.held = port or HeldPort()
        self.port = self.held.number
        self.tls = tls
        self.wrapper = wrapper
        self.settings = {
            "API_PROXY_LISTEN": f"127.0.0.1:{self.port}",
            "API_PROXY_WORKERS": "2",
            "API_PROXY_DRAIN_SECONDS": "5",
            "ADMIN_TOKEN": TOKEN,
        }
        self.settings.update(settings)
        self.settings = {name: value for name, value in self.settings.items() if value is not None}
        for name, text in (files or {}).items():
            (self.folder / name).write_text(text)
        self.process: subprocess.Popen | None = None
        self.output = ""
        self.connections: list[RawClient] = []
        self.mapped = 0
        self.expect_exit: set[int] = {0}
        if start:
            try:
                self.start()
            except BaseException:
                self.discard()
                raise

    # -- life

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}"

    @property
    def admin_token(self) -> str:
        return self.settings.get("ADMIN_TOKEN") or (self.data_dir / "admin_token").read_text().strip()

    @property
    def data_dir(self) -> Path:
        return self.folder / self.settings.get("API_PROXY_DATA_DIR", "data")

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self, ready: bool = True):
        self.process = subprocess.Popen(
            [*self.wrapper, binary(), *self.arguments],
            cwd=self.folder,
            env=clean_env(**self.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.reader = threading.Thread(target=self._collect, args=(self.process.stdout,), daemon=True)
        self.reader.start()
        if ready:
            self.wait_ready()

    def _collect(self, pipe):
        for line in iter(pipe.readline, b""):
            self.output += line.decode("utf-8", "replace")
        pipe.close()

    def wait_ready(self, seconds: float = 30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.reader.join(2)
                raise AssertionError(f"the gateway ended with {self.process.returncode}:\n{self.output[-4000:]}")
            try:
                with RawClient(self.port, tls=self.tls, timeout=2) as client:
                    if client.request("GET", "/health").status == 200:
                        return
            except (OSError, Exception):
                pass
            time.sleep(0.01)
        raise AssertionError(f"the gateway is not ready after {seconds} s:\n{self.output[-4000:]}")

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int):
        self.process.send_signal(number)

    def wait(self, seconds: float = 15) -> int:
        status = self.process.wait(seconds)
        self.reader.join(5)
        return status

    def terminate(self, seconds: float = 15) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self):
        """SIGKILL, as a crash of the machine would."""
        self.process.kill()
        self.process.wait()
        self.reader.join(5)

    def restart(self):
        if self.alive():
            self.terminate()
        self.start()

    def stop(self):
        """Ends it and checks that it ended well."""
        try:
            if self.alive():
                self.close_connections()
                try:
                    status = self.terminate(30)
                except subprocess.TimeoutExpired:
                    raise AssertionError(f"no end within 30 s of SIGTERM:\n{self.output[-4000:]}") from None
                assert status in self.expect_exit, f"exit status {status}:\n{self.output[-6000:]}"
            self.check_output()
        finally:
            self.discard()

    def check_output(self):
        found = SANITIZER_REPORT.search(self.output)
        assert not found, f"sanitizer report:\n{self.output[max(0, found.start() - 200) :][:8000]}"

    def sanitizer_report(self) -> str:
        """What this process' sanitizer wrote into the file that its options name."""
        paths = re.findall(r"log_path=([^:]+)", " ".join(os.environ.get(name, "") for name in SANITIZER_OPTIONS))
        reports = [Path(f"{path}.{self.pid}") for path in dict.fromkeys(paths)]
        return "".join(report.read_text()[:8000] for report in reports if report.exists())

    def discard(self):
        self.close_connections()
        if self.alive():
            self.kill()
        elif self.process and self.process.returncode not in self.expect_exit:
            print(f"the gateway had ended with {self.process.returncode}:\n{self.output[-4000:]}\n{self.sanitizer_report()}")
        if self.own_port:
            self.held.release()
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def close_connections(self):
        for connection in self.connections:
            connection.close()
        self.connections.clear()

    def resident_bytes(self) -> int:
        return resident_bytes(self.pid)

    # -- requests

    def connect(self, **options) -> RawClient:
        """A raw connection, closed at the end at the latest."""
        client = RawClient(self.port, tls=self.tls, **options)
        self.connections.append(client)
        return client

    def begin(
        self, server: RawServer, target: str, method: str = "GET", headers=(), body: bytes | str | None = None,
        version: str = "HTTP/1.1", **options,
    ) -> tuple[RawClient, Connection]:
        """A request whose head has arrived at the server: both ends of it."""
        client = self.connect(**options)
        client.send(request_bytes(method, target, headers, body, version=version))
        upstream = server.accept()
        upstream.read_head()
        return client, upstream

    def request(self, method: str, target: str, headers=(), body: bytes | str | None = None, port: int | None = None) -> Response:
        """One request on a connection of its own."""
        with RawClient(port or self.port, tls=None if port else self.tls) as client:
            return client.request(method, target, headers, body)

    def get(self, target: str, headers=()) -> Response:
        return self.request("GET", target, headers)

    def api(self, method: str, path: str, data=None, token: str | None = None) -> Response:
        """The admin API; data becomes the JSON body (bytes go as they are)."""
        headers = [("Authorization", f"Bearer {token or self.admin_token}")]
        body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
        if body is not None:
            headers.append(("Content-Type", "application/json"))
        return self.request(method, path, headers, body)

    def map(self, prefix: str, target: str, **more) -> dict:
        """Adds a mapping, or replaces it."""
        answer = self.api("POST", "/api/mappings", {"prefix": prefix, "target": target, **more})
        if answer.status == 409:
            assert self.api("DELETE", "/api/mappings" + prefix).status == 204
            answer = self.api("POST", "/api/mappings", {"prefix": prefix, "target": target, **more})
        assert answer.status == 201, f"{answer.status} {answer.body!r}"
        return answer.json()

    def unmap(self, prefix: str):
        answer = self.api("DELETE", "/api/mappings" + prefix)
        assert answer.status == 204, f"{answer.status} {answer.body!r}"

    def route(self, target: str, **more) -> str:
        """Maps a prefix that no other test uses, and returns it."""
        self.mapped += 1
        prefix = f"/t{self.mapped}-{os.getpid()}"
        self.map(prefix, target, **more)
        return prefix


def https_gateway(authority: Authority, stem: str, **settings) -> Gateway:
    """Serves HTTPS with a certificate of that authority, and trusts it in vendors."""
    cert, key = authority.write("localhost", stem=stem)
    return Gateway(
        tls=authority.client_context(),
        API_PROXY_TLS="on",
        API_PROXY_TLS_CERT=str(cert),
        API_PROXY_TLS_KEY=str(key),
        SSL_CERT_FILE=str(authority.bundle),
        CURL_CA_BUNDLE=str(authority.bundle),
        **settings,
    )
