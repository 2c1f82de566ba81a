"""What is the client's own doing says nothing about a vendor key, however often it happens."""

from __future__ import annotations

import re
import time

import pytest

from support.managed import Nodes, Timed, ask, fault_of, name
from support.process import eventually
from support.vendor import Fault
from support.wire import RawServer, chunk, request_bytes

CHUNKED = [("Transfer-Encoding", "chunked")]


@pytest.fixture(scope="module")
def one():
    with Nodes(1) as nodes:
        yield nodes


def pooled(one, target: str, **more) -> tuple[str, str]:
    key = name("blame")
    return one.map(target, pool=one.pool(key), **more), key


def begin(one, server, prefix: str, headers, first: bytes):
    """A request whose beginning has reached the vendor."""
    client = one[0].connect()
    client.send(request_bytes("POST", prefix + "/x", headers) + first)
    upstream = server.accept()
    upstream.read_head()
    return client, upstream


def unanswered(one, key: str) -> int:
    """Tries of this key that brought no answer, as /metrics has them."""
    text = one[0].api("GET", "/metrics").body.decode()
    found = re.findall(rf'^apiproxy_upstream_key_requests_total{{.*key="{key}",status="0"}} (\d+)$', text, re.MULTILINE)
    return int(found[0]) if found else 0


def stays_well(one, key: str):
    time.sleep(0.2)
    assert one.health(key) == {"state": "ok", "until": None, "reason": ""}
    assert unanswered(one, key) == 0


def cools(one, key: str):
    eventually(lambda: one.health(key)["state"] == "cooling", 2)
    assert one.health(key)["reason"] == "connection failure" and unanswered(one, key) == 3


def refused_midway(one, more: bytes, fault, **limits):
    """A body whose second part is the client's own doing, four times: the key stays well."""
    with RawServer() as server:
        prefix, key = pooled(one, server.url, **limits)
        for _ in range(4):
            client, upstream = begin(one, server, prefix, CHUNKED, chunk(b"abc"))
            upstream.read_until(b"abc")
            client.send(more)
            assert fault_of(client.read_response()) == fault
            assert upstream.wait_end(2)
        stays_well(one, key)


def test_a_malformed_chunk(one):
    refused_midway(one, b"no chunk\r\n", (400, "bad_request"))


def test_a_body_that_grows_too_large(one):
    refused_midway(one, chunk(b"x" * 20), (413, "body_too_large"), max_body_bytes=10)


def test_a_body_that_does_not_come(one):
    """The mapping's time ends while the vendor waits for the client."""
    with RawServer() as server:
        prefix, key = pooled(one, server.url, timeout_seconds=0.7)
        for _ in range(4):
            client, upstream = begin(one, server, prefix, [("Content-Length", "100")], b"abc")
            upstream.read_until(b"abc")
            assert fault_of(client.read_response()) == (504, "upstream_timeout")
            assert upstream.wait_end(2)
        stays_well(one, key)


def test_a_hang_up_in_the_body(one):
    with RawServer() as server:
        prefix, key = pooled(one, server.url)
        for _ in range(4):
            client, upstream = begin(one, server, prefix, [("Content-Length", "100")], b"abc")
            upstream.read_until(b"abc")
            client.close()
            assert upstream.wait_end(2)
        stays_well(one, key)


# -- and what is not


def test_a_vendor_that_stays_silent(one):
    with RawServer() as server:
        prefix, key = pooled(one, server.url, timeout_seconds=0.3)
        for _ in range(3):
            asking = Timed(lambda: ask(one[0], prefix))
            server.accept().read_request()
            assert fault_of(asking.get()) == (504, "upstream_timeout")
        cools(one, key)


def test_a_vendor_that_does_not_take_the_body(one):
    with RawServer(receive_buffer=4096) as server:
        prefix, key = pooled(one, server.url, timeout_seconds=0.5)
        for _ in range(3):
            client = one[0].connect()
            client.send(request_bytes("POST", prefix + "/x", [("Content-Length", str(64 << 20))]))
            upstream = server.accept()
            client.send_until_blocked(b"x" * 65536, quiet=0.2)
            assert fault_of(client.read_response()) == (504, "upstream_timeout")
            upstream.close()
        cools(one, key)


@pytest.mark.parametrize("kind", ["garbage", "close_in_head"])
def test_an_answer_that_is_none(one, vendor, kind):
    prefix, key = pooled(one, vendor.url)
    vendor.script(*[Fault(kind)] * 3)
    assert [fault_of(ask(one[0], prefix)) for _ in range(3)] == [(502, "upstream_error")] * 3
    cools(one, key)


def test_refused_connections(one):
    with RawServer() as server:
        prefix, key = pooled(one, server.url)
    assert [fault_of(ask(one[0], prefix)) for _ in range(3)] == [(502, "upstream_error")] * 3
    cools(one, key)
