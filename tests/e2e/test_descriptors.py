"""No descriptor is left, or no more connections are allowed: what is open goes on, what cannot be begun
waits or is told so, nothing spins, and with room everything comes back."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from support.gateway import TOKEN, Gateway
from support.process import eventually
from support.wire import RawServer, ThreadedServer, chunk, request_bytes


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def answer(connection):
    while True:
        connection.read_request()
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize("host", ("127.0.0.1", "localhost"))
def test_without_descriptors(host):
    vendor = ThreadedServer(answer)
    with RawServer() as server, Gateway(API_PROXY_WORKERS="1", API_PROXY_MAX_CONNECTIONS="5000") as gateway:
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (150, 150))
        gateway.map("/s", server.url)
        gateway.map("/v", f"http://{host}:{vendor.raw.port}")
        stream = gateway.connect()
        stream.send(request_bytes("GET", "/s"))
        upstream = server.accept()
        upstream.read_request()
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        stream.read_head()
        clients = [gateway.connect(timeout=5) for _ in range(300)]
        for client in clients:
            client.send(request_bytes("GET", "/v"))
        statuses = Counter()
        unanswered = 0
        time.sleep(2)
        for client in clients:
            client.set_timeout(0.01 if unanswered else 3)
            try:
                statuses[client.read_response().status] += 1
            except TimeoutError:
                unanswered += 1
        assert set(statuses) <= {200, 502, 503} and statuses
        before = cpu_seconds(gateway.pid)
        time.sleep(1)
        assert cpu_seconds(gateway.pid) - before < 0.3
        upstream.send(chunk(b"still here"))
        assert stream.read_chunk() == b"still here"
        for client in clients:
            client.close()
        eventually(lambda: gateway.get("/v").status == 200, 5, what="an answer when descriptors are back")
        for _ in range(20):
            assert gateway.get("/v").status == 200
        stream.close()
    vendor.close()


class Gathering(ThreadedServer):
    """Answers nobody before it is told to."""

    def __init__(self):
        self.arrived: list[int] = []
        self.answering = threading.Event()
        super().__init__(self.answer)

    def answer(self, connection):
        while True:
            connection.read_request()
            self.arrived.append(1)
            self.answering.wait(60)
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def many_descriptors():
    """For the test itself, which is clients and vendors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ("127.0.0.1", "localhost"))
def test_a_cold_burst_of_as_many_as_are_let_in(many_descriptors, host):
    """All of them connect at the same time; then as many to another vendor, while what the first one's connections
    take is still taken."""
    let_in, above = (1024 - 128) // 2, 22
    vendors = [Gathering(), Gathering()]
    with Gateway(wrapper=("prlimit", "--nofile=1024:1024")) as gateway:
        for number, vendor in enumerate(vendors):
            gateway.map(f"/{number}", f"http://{host}:{vendor.raw.port}")
        time.sleep(0.2)
        for number, vendor in enumerate(vendors):
            clients = [gateway.connect(timeout=20) for _ in range(let_in + above)]
            for client in clients:
                client.send(request_bytes("GET", f"/{number}", [("Connection", "close")]))
            eventually(lambda: len(vendor.arrived) >= let_in - 5, 20, what="all at the vendor")  # noqa: B023
            vendor.answering.set()
            answers = Counter((r.status, r.body) for r in (client.read_response() for client in clients))
            assert answers == {(200, b"ok"): let_in + above}
            for client in clients:
                client.close()
    for vendor in vendors:
        vendor.close()


@pytest.mark.parametrize("spare", range(3))
def test_connecting_outlives_a_lack_of_descriptors(spare):
    """Who is connecting meanwhile is told what came of it, also where another cannot even begin."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        fillers.append(filler)
    with Gateway(API_PROXY_WORKERS="1", API_PROXY_MAX_CONNECTIONS="5000") as gateway:
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (150, 150))
        gateway.map("/slow", f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout_seconds=3)
        clients = [gateway.connect() for _ in range(spare)]
        for _ in range(60):
            clients.append(gateway.connect(timeout=6))
            clients[-1].send(request_bytes("GET", "/slow"))
            time.sleep(0.005)
        statuses = Counter(client.read_response().status for client in clients[spare:])
        assert set(statuses) <= {502, 504} and statuses[504] > 10
        for client in clients:
            client.close()
        for filler in fillers:
            filler.close()
        with RawServer() as server:
            gateway.map("/v", server.url)
            client = gateway.connect()
            client.send(request_bytes("GET", "/v"))
            server.accept().send("HTTP/1.1 204 No\r\n\r\n")
            assert client.read_response().status == 204
    full.close()


@pytest.mark.parametrize("limit, let_in", [(256, 68), (100, 25), (40, 4)])
def test_no_more_than_the_limit_of_open_files_allows(limit, let_in):
    """Whatever is asked for: enough stay for all vendors, for Redis, for the API."""
    vendor = Gathering()
    with Gateway(wrapper=("prlimit", f"--nofile={limit}:{limit}"), API_PROXY_WORKERS="1", API_PROXY_MAX_CONNECTIONS="1000") as gateway:
        assert f"server.max_connections = 1000 is more than the limit of {limit} open files allows: it is {let_in}" in gateway.output
        gateway.map("/v", vendor.raw.url)
        time.sleep(0.3)
        clients = [gateway.connect(timeout=10) for _ in range(let_in + 20)]
        for number, client in enumerate(clients):
            client.send(request_bytes("GET", "/v" if number else "/api/config", [("Authorization", f"Bearer {TOKEN}")]))
        assert clients[0].read_response().status == 200
        eventually(lambda: len(vendor.arrived) == let_in - 1, 5, what="all that are let in")
        time.sleep(0.3)
        assert len(vendor.arrived) == let_in - 1 and len(list(Path(f"/proc/{gateway.pid}/fd").iterdir())) < limit
        vendor.answering.set()
        for client in clients[1:]:
            assert client.read_response().status == 200
            client.close()
    vendor.close()


def test_no_more_than_max_connections():
    """Who comes later waits, unread, and gets its answer once there is room."""
    with Gateway(API_PROXY_MAX_CONNECTIONS="3") as gateway:
        holders = [gateway.connect() for _ in range(3)]
        for holder in holders:
            assert holder.request("GET", "/health").status == 200
        waiting = [gateway.connect() for _ in range(5)]
        for client in waiting:
            client.send(request_bytes("GET", "/health", [("Connection", "close")]))
        before = cpu_seconds(gateway.pid)
        assert waiting[0].silent(1)
        assert cpu_seconds(gateway.pid) - before < 0.2
        for holder in holders:
            holder.close()
        assert [client.read_response().status for client in waiting] == [200] * 5
