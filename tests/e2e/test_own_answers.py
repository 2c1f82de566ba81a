"""Answers of apiproxy's own (pages, the API, problems): who does not take them, who takes them slowly, who vanishes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from support.gateway import Gateway
from support.process import eventually
from support.wire import request_bytes

PAGE = request_bytes("GET", "/static/chart.min.js")
PROBLEM = request_bytes("GET", "/no-such-mapping")
SEND_TIMEOUT = 60


def connections(gateway) -> int:
    """Those of others than this question's."""
    lines = gateway.api("GET", "/metrics").body.decode().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("apiproxy_connections "))) - 1


def stuck(gateway, request: bytes, count: int):
    """A client that asks and asks and reads nothing, until the gateway waits for it."""
    client = gateway.connect(receive_buffer=2048, timeout=SEND_TIMEOUT + 30)
    client.send_until_blocked(request * count, limit=len(request) * count)
    return client


ASKED = {"page": (PAGE, 60), "problem": (PROBLEM, 60_000)}


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_stuck_reader_that_goes_is_noticed(kind, how):
    with Gateway(API_PROXY_WORKERS="1") as gateway:
        client = stuck(gateway, *ASKED[kind])
        assert connections(gateway) == 1
        getattr(client, how)()
        eventually(lambda: connections(gateway) == 0, 2)


def test_a_client_that_has_said_all_gets_its_answer(gateway):
    for request, status in ((PAGE, 200), (PROBLEM, 404)):
        client = gateway.connect(receive_buffer=2048)
        client.send(request)
        client.half_close()
        assert client.read_response().status == status
        assert client.read_to_end() == b""


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_who_takes_nothing_for_a_minute_is_gone(server):
    """Whoever takes a little is not, nor is the reader of a vendor's answer."""
    with Gateway(API_PROXY_WORKERS="1", API_PROXY_HEADER_TIMEOUT_SECONDS="5", API_PROXY_IDLE_TIMEOUT_SECONDS="5") as gateway:
        prefix = gateway.route(server.url)
        patient, upstream = gateway.begin(server, prefix + "/", receive_buffer=2048)
        upstream.send("HTTP/1.1 200 OK\r\n\r\n")
        upstream.send_until_blocked(b"x" * 65536)
        slow = stuck(gateway, *ASKED["page"])
        gone = [stuck(gateway, *asked) for asked in ASKED.values()]
        began = time.monotonic()
        while time.monotonic() - began < SEND_TIMEOUT + 15:
            time.sleep(1)
            slow.read_exactly(50_000)
            if time.monotonic() - began < SEND_TIMEOUT - 10:
                assert connections(gateway) == 4
        assert connections(gateway) == 2
        assert [client.wait_end() for client in gone] == ["rst", "rst"]
        slow.read_exactly(50_000)
        assert patient.read_exactly(100_000) and gateway.alive()


def keepalive_seconds(gateway, local: int | None = None, remote: int | None = None) -> float:
    """In how long TCP asks the peer of this connection whether it is still there; 0: never."""
    for line in Path(f"/proc/{gateway.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(address.rpartition(":")[2], 16) for address in fields[1:3]]
        if fields[3] == "01" and ports == [local or ports[0], remote or ports[1]]:
            kind, _, ticks = fields[5].partition(":")
            return int(ticks, 16) / os.sysconf("SC_CLK_TCK") if kind == "02" else 0
    raise AssertionError("no such connection")


def test_vanished_peers_are_asked_for(gateway, server, prefix):
    client, _ = gateway.begin(server, prefix + "/")
    for seconds in (keepalive_seconds(gateway, gateway.port, client.local_port), keepalive_seconds(gateway, remote=server.port)):
        assert 40 < seconds <= 60.1
