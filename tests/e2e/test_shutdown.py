"""SIGTERM while the control plane works: what was asked before is answered, nothing crashes or waits for ever."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest

from support.gateway import TOKEN, Gateway
from support.process import Closing, HeldPort, eventually
from support.wire import Closed, RawClient, RawServer, request_bytes

pytestmark = pytest.mark.concurrency

ENDS = (OSError, Closed)
LOGIN = json.dumps({"username": "ann", "password": "a long password"})


class Asking(Closing):
    """Threads that ask the same all the time, each on a connection that it keeps."""

    def __init__(self, port: int, *requests):
        self.port, self.over, self.statuses = port, False, []
        self.threads = [threading.Thread(target=self.ask, args=(make,), daemon=True) for make in requests]
        for thread in self.threads:
            thread.start()

    def ask(self, make):
        while not self.over:
            try:
                with RawClient(self.port, timeout=2) as client:
                    while not self.over:
                        client.send(make())
                        self.statuses.append(client.read_response().status)
            except ENDS:
                time.sleep(0.001)

    def close(self):
        self.over = True
        for thread in self.threads:
            thread.join(5)


def getting(path: str):
    return lambda: request_bytes("GET", path)


def with_ops(**settings) -> tuple[Gateway, HeldPort]:
    ops = HeldPort()
    return Gateway(API_PROXY_OPS_LISTEN=f"127.0.0.1:{ops.number}", **settings), ops


def ended(gateway, within: float) -> float:
    """SIGTERM, a clean end, and how long it took."""
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(within) == 0, gateway.output[-4000:]
    gateway.check_output()
    return time.monotonic() - began


def test_end_while_figures_are_asked_for():
    """As a monitor does; what is asked during the drain does not make it longer."""
    for _ in range(3):
        gateway, ops = with_ops()
        with gateway, Asking(ops.number, *map(getting, ("/health", "/health", "/stats", "/metrics", "/performance"))) as asking:
            eventually(lambda: len(asking.statuses) > 50, 10)
            assert ended(gateway, 10) < 4
        ops.release()


def test_end_while_the_configuration_changes():
    """Each change waits for the workers, and no worker may have gone by then."""
    for _ in range(4):
        gateway, ops = with_ops()
        with gateway:
            gateway.map("/changed", "http://127.0.0.1:1")
            number = iter(range(1, 1 << 30))

            def change():
                target = f"http://127.0.0.1:{next(number) % 60000 + 1}"
                return request_bytes("PUT", "/api/mappings/changed", [("Authorization", f"Bearer {TOKEN}")], json.dumps({"target": target}))

            with Asking(ops.number, *[change] * 4) as asking:
                eventually(lambda: len(asking.statuses) > 20, 10)
                assert ended(gateway, 10) < 8
        ops.release()


def test_logins_in_flight_are_answered():
    with Gateway(API_PROXY_WORKERS="1", API_PROXY_DRAIN_SECONDS="20") as gateway:
        assert gateway.api("POST", "/api/users", {"username": "ann", "password": "a long password"}).status == 201
        clients = [gateway.connect() for _ in range(8)]
        for client in clients:
            client.send(request_bytes("POST", "/auth/login", (), LOGIN))
        clients[0].read_until(b"\r\n\r\n")
        ended(gateway, 15)
        assert [client.read_response("POST").status for client in clients[1:]] == [200] * 7


def test_a_page_nobody_reads_holds_the_drain_for_its_time_alone():
    """Monitors are told all the while."""
    gateway, ops = with_ops(API_PROXY_WORKERS="1", API_PROXY_DRAIN_SECONDS="2")
    with gateway:
        stuck = gateway.connect(receive_buffer=2048)
        stuck.send(request_bytes("GET", "/static/chart.min.js") * 40)
        stuck.read_until(b"\r\n\r\n")
        time.sleep(0.5)
        with Asking(ops.number, getting("/health")) as asking:
            eventually(lambda: len(asking.statuses) > 10, 5)
            began = time.monotonic()
            gateway.signal(signal.SIGTERM)
            eventually(lambda: 503 in asking.statuses, 2)
            time.sleep(1)
            asked = len(asking.statuses)
            eventually(lambda: len(asking.statuses) > asked, 1, what="/health is answered during the drain")
            assert set(asking.statuses[asked:]) == {503}
            assert gateway.wait(10) == 0
            assert 1.8 < time.monotonic() - began < 6
    ops.release()


def test_connections_without_a_whole_request_are_not_waited_for():
    with Gateway(API_PROXY_WORKERS="1", API_PROXY_DRAIN_SECONDS="20") as gateway:
        half = gateway.connect()
        half.send(b"GET /health HTTP/1.1\r\nHost:")
        idle = gateway.connect()
        assert idle.request("GET", "/health").status == 200
        assert ended(gateway, 10) < 4


def test_a_boot_that_fails_ends_what_it_had_started():
    """ACME is the last to start: its fault finds all other threads at work."""
    with RawServer() as taken, Gateway(
        start=False,
        API_PROXY_ACME="on",
        API_PROXY_ACME_DOMAINS="one.example.com",
        API_PROXY_ACME_EMAIL="operator@example.com",
        API_PROXY_ACME_HTTP_LISTEN=taken.host,
        API_PROXY_TLS="on",
    ) as gateway:
        gateway.expect_exit = {1}
        gateway.start(ready=False)
        assert gateway.wait(20) == 1, gateway.output
        gateway.check_output()
