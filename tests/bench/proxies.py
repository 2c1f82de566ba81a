"""What is measured, as processes: apiproxy, nginx as it comes and tuned, HAProxy, and the vendor itself.

Each listens on a free port of 127.0.0.1, has one worker, runs on the proxy's core alone and passes on
what comes below /bench. Everything is a child of this process, in a directory that is removed again.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROXY_CORE, LOAD_CORE = (sorted(os.sched_getaffinity(0)) * 2)[:2]
TOKEN = "bench-admin-token-0123456789abcdef"
PLENTY = 1_000_000_000


def descriptor_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_descriptor_limit() -> None:
    hard = descriptor_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def pinned(core: int, *command: str) -> list[str]:
    """On one core, and gone when this process is, however it ends."""
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *command]


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def process_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def kilobytes(pid: int, file: str, field: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


class Proxy:
    """One proxy, from start to stop; subclasses say how it is configured."""

    name = ""
    title = ""
    needs = ""

    def __init__(self, vendor_port: int):
        self.vendor_port = vendor_port
        self.folder = Path(tempfile.mkdtemp(prefix="apiproxy-bench-"))
        self.port = free_port()
        self.key = "sk-bench-0123456789abcdef"
        self.process: subprocess.Popen | None = None
        self.ready_ms = 0.0

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def configure(self) -> None:
        """What is set once it runs."""

    @classmethod
    def is_there(cls) -> bool:
        return shutil.which(cls.needs) is not None

    def start(self, configure: bool = True) -> "Proxy":
        log = open(self.folder / "log", "ab")
        began = time.monotonic()
        self.process = subprocess.Popen(
            pinned(PROXY_CORE, *self.command()),
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        self.wait_until_ready(began)
        if configure:
            self.configure()
        return self

    def wait_until_ready(self, began: float) -> None:
        while time.monotonic() - began < 15:
            if self.process.poll() is not None:
                break
            try:
                self.ask("GET", "/health")
                self.ready_ms = (time.monotonic() - began) * 1000
                return
            except OSError:
                time.sleep(0.001)
        raise RuntimeError(f"{self.name} did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            text = json.dumps(body) if body is not None else None
            connection.request(method, path, text, {"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                for pid in reversed(descendants(self.process.pid)):
                    os.kill(pid, 9)
                self.process.wait()
        self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_) -> None:
        self.remove()

    # Redis is counted apart: it serves all nodes, and may be anywhere.

    def pids(self) -> list[int]:
        return [p for p in descendants(self.process.pid) if process_name(p) != "redis-server"]

    def redis_pids(self) -> list[int]:
        return [p for p in descendants(self.process.pid) if process_name(p) == "redis-server"]

    def own_kb(self) -> int:
        """Memory that is not a file's: libraries may be shared with whatever else runs."""
        fields = ("Pss_Anon", "Pss_Shmem")
        return sum(kilobytes(p, "smaps_rollup", field) for p in self.pids() for field in fields)

    def rss_kb(self) -> int:
        """Of the largest process: others share most of it."""
        return max(kilobytes(p, "status", "VmRSS") for p in self.pids())

    def forget_peak(self) -> None:
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_kb(self) -> int:
        return max(kilobytes(p, "status", "VmHWM") for p in self.pids())


class Direct(Proxy):
    """No proxy: the vendor itself, to be taken off."""

    name, title, needs = "direct", "no proxy", "true"

    def __init__(self, vendor_port: int):
        super().__init__(vendor_port)
        self.port = vendor_port

    def start(self, configure: bool = True) -> "Proxy":
        return self

    def pids(self) -> list[int]:
        return []

    redis_pids = pids


class Nginx(Proxy):
    name, title, needs = "nginx", "nginx", "nginx"
    bodies = ""

    def command(self) -> list[str]:
        limit = descriptor_limit()
        user = "user root;" if os.geteuid() == 0 else ""
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(f"""
daemon off; {user}
worker_processes 1; worker_rlimit_nofile {limit};
pid {self.folder}/nginx.pid; error_log {self.folder}/error.log crit;
events {{ worker_connections {limit - 100}; }}
http {{
  access_log off;
  {temporary}
  keepalive_timeout 300s; keepalive_requests 100000000; client_max_body_size 0;
  proxy_http_version 1.1; proxy_set_header Connection "";
  proxy_read_timeout 300s; {self.bodies}
  upstream vendor {{ server 127.0.0.1:{self.vendor_port}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    location / {{ proxy_pass http://vendor; }}
    location /bench/v1/events {{ proxy_pass http://vendor; proxy_buffering off; }}
  }}
}}
""")
        return ["nginx", "-e", f"{self.folder}/error.log", "-c", f"{self.folder}/nginx.conf", "-p", str(self.folder)]


class NginxTuned(Nginx):
    name, title = "nginx-tuned", "nginx, tuned"
    bodies = (
        "proxy_buffer_size 32k; proxy_buffers 16 32k; proxy_busy_buffers_size 64k;"
        " proxy_request_buffering off; client_body_buffer_size 512k;"
    )


class Haproxy(Proxy):
    name, title, needs = "haproxy", "HAProxy", "haproxy"

    def command(self) -> list[str]:
        (self.folder / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn {min(9900, (descriptor_limit() - 200) // 2)}
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  option http-no-delay
  http-reuse always
frontend front
  bind 127.0.0.1:{self.port} backlog 4096
  default_backend vendor
backend vendor
  server vendor 127.0.0.1:{self.vendor_port}
""")
        return ["haproxy", "-db", "-f", f"{self.folder}/haproxy.cfg"]


class Apiproxy(Proxy):
    """As it comes, statistics on, with its own Redis beside it on the same core."""

    name, title = "apiproxy", "apiproxy"
    binary = ""
    mapping: dict = {}

    @classmethod
    def is_there(cls) -> bool:
        return os.access(cls.binary, os.X_OK)

    def command(self) -> list[str]:
        return [self.binary]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LD_LIBRARY_PATH")}
        return kept | {
            "API_PROXY_LISTEN": f"127.0.0.1:{self.port}",
            "API_PROXY_WORKERS": "1",
            "API_PROXY_DATA_DIR": f"{self.folder}/data",
            "API_PROXY_DRAIN_SECONDS": "1",
            "ADMIN_TOKEN": TOKEN,
        }

    def create(self, path: str, body: dict) -> dict:
        status, text = self.ask("POST", path, body)
        if status != 201:
            raise RuntimeError(f"POST {path}: {status} {text[:300]!r}")
        return json.loads(text)

    def configure(self) -> None:
        target = f"http://127.0.0.1:{self.vendor_port}"
        self.create("/api/mappings", {"prefix": "/bench", "target": target, **self.mapping})


class ApiproxyManaged(Apiproxy):
    """A client key with all three limits, a vendor key of a pool, metering. Nothing is ever refused."""

    name, title = "apiproxy-managed", "apiproxy, managed"
    mapping = {"auth": "required", "pool": "bench"}

    def configure(self) -> None:
        super().configure()
        self.create("/api/keys", {"id": "bench", "pool": "bench", "key": "sk-vendor-0123456789abcdef"})
        limits = {"rpm": PLENTY, "input_tpm": PLENTY, "output_tpm": PLENTY}
        self.key = self.create("/api/clients", {"id": "bench", "name": "bench", **limits})["key"]


class ApiproxyRedisApart(ApiproxyManaged):
    """The same, with a Redis on the other core, as one that serves several nodes."""

    name, title = "apiproxy-managed-redis-apart", "apiproxy, managed, Redis on the other core"

    def __init__(self, vendor_port: int):
        super().__init__(vendor_port)
        self.redis: subprocess.Popen | None = None

    def start(self, configure: bool = True) -> "Proxy":
        self.redis = subprocess.Popen(
            pinned(LOAD_CORE, "redis-server", "--port", "0", "--unixsocket", f"{self.folder}/redis.sock", "--save", ""),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(500):
            if (self.folder / "redis.sock").exists():
                return super().start(configure)
            time.sleep(0.01)
        raise RuntimeError("redis-server did not start")

    def environment(self) -> dict[str, str]:
        return super().environment() | {"API_PROXY_REDIS_URL": f"unix://{self.folder}/redis.sock"}

    def redis_pids(self) -> list[int]:
        return [self.redis.pid]

    def stop(self) -> None:
        super().stop()
        if self.redis:
            self.redis.terminate()
            self.redis.wait(10)
            self.redis = None
