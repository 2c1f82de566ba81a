"""Requests that wait in a queue with their bodies on the way: nothing of one is lost, and no end is overlooked behind it."""

from __future__ import annotations

import re
import time

import pytest

from support.managed import fault_of
from support.process import eventually
from support.wire import chunk, chunked, request_bytes

CHUNKED = [("Transfer-Encoding", "chunked")]
OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
BAD = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def waits(pair, server):
    """A function that queues a request: its client, and the mapping's prefix."""

    def queue(fields, body: bytes, seconds: float = 1.5, **more):
        prefix = pair.map(server.url, queue={"rate_per_second": 1 / seconds, "capacity": 1, "timeout_seconds": 30}, **more)
        first = pair[0].connect()
        first.send(request_bytes("GET", prefix + "/first"))
        upstream = server.accept()
        upstream.read_head()
        upstream.send(OK)
        assert first.read_response().status == 200
        client = pair[0].connect()
        client.send(request_bytes("POST", prefix + "/x", fields))
        eventually(lambda: in_line(pair, prefix) == 1, 3)
        client.send(body)
        return client, prefix

    return queue


def in_line(pair, prefix: str) -> int:
    figures = pair[0].api("GET", "/metrics").body.decode()
    return int(re.search(rf'^apiproxy_queue_length\{{mapping="{prefix}"\}} (\d+)$', figures, re.M)[1])


def length(body: bytes, more: int = 0):
    return [("Content-Length", str(len(body) + more))], body


UPLOADS = {
    "a whole body": length(b"x" * 900_000),
    "a part of a body": length(b"x" * 500_000, 1_000_000),
    "chunks": (CHUNKED, chunked(b"x" * 500_000)),
    "a part of the chunks": (CHUNKED, chunk(b"x" * 500_000) + b"5\r\nx"),
}


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
@pytest.mark.parametrize("upload", UPLOADS)
def test_hang_up_behind_a_body(pair, waits, server, upload, how):
    client, prefix = waits(*UPLOADS[upload], seconds=20)
    getattr(client, how)()
    eventually(lambda: in_line(pair, prefix) == 0, 1)
    assert not server.pending(0.1)


def test_what_waits_is_not_all_taken(waits):
    """Of a long body no more than is promised, and what the kernel's buffers hold."""
    client, _ = waits([("Content-Length", str(1 << 30))], b"", seconds=20)
    assert client.send_until_blocked(b"x" * 65536, quiet=0.5) < 64 << 20


BODIES = [300_000, 1 << 20, 3_000_000]


@pytest.mark.parametrize("size", BODIES)
def test_a_body_keeps_its_length(waits, server, size):
    body = bytes(range(251)) * (size // 251)
    client, _ = waits(*length(body))
    request = server.accept().read_request()
    assert (request.framing, request.body) == ("length", body)
    server.connections[-1].send(OK)
    assert client.read_response().body == b"ok"


@pytest.mark.parametrize("size", BODIES)
def test_chunks_stay_chunks(waits, server, size):
    body = bytes(range(251)) * (size // 251)
    client, _ = waits(CHUNKED, chunked(body[:7], body[7:100_000], body[100_000:]))
    request = server.accept().read_request()
    assert (request.framing, request.body) == ("chunked", body)
    server.connections[-1].send(OK)
    assert client.read_response().body == b"ok"


def test_the_rest_of_a_body_may_come_after_the_wait(waits, server):
    client, _ = waits(*length(b"x" * 200_000, 200_000))
    upstream = server.accept()
    head = upstream.read_head()
    assert head.get("content-length") == "400000" and upstream.read_exactly(200_000)
    client.send(b"y" * 200_000)
    assert upstream.read_exactly(200_000) == b"y" * 200_000
    upstream.send(OK)
    assert client.read_response().body == b"ok"


def test_the_next_key_gets_all_of_it(pair, waits, server):
    body = bytes(range(251)) * 2000
    client, _ = waits(*length(body), pool=pair.pool("behind-a-body-1", "behind-a-body-2"))
    for answer in (BAD, OK):
        upstream = server.accept()
        assert upstream.read_request().body == body
        upstream.send(answer)
    assert client.read_response().body == b"ok"


def test_nobody_is_told_to_go_on_while_he_waits(waits, server):
    client, _ = waits([("Content-Length", "5"), ("Expect", "100-continue")], b"")
    assert client.silent(0.7)
    upstream = server.accept()
    assert upstream.read_head().get("expect") == "100-continue"
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n")
    assert client.read_head().line.startswith(b"HTTP/1.1 100")
    client.send(b"hello")
    assert upstream.read_exactly(5) == b"hello"
    upstream.send(OK)
    assert client.read_response().body == b"ok"


WRONG = {"too large": (413, "body_too_large", chunk(b"x" * 2000)), "no chunk": (400, "bad_request", b"no size\r\n")}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_body_waits_no_longer(pair, waits, server, what):
    status, code, body = WRONG[what]
    client, prefix = waits(CHUNKED, body, seconds=20, max_body_bytes=1000)
    began = time.monotonic()
    assert fault_of(client.read_response()) == (status, code)
    assert time.monotonic() - began < 1
    eventually(lambda: in_line(pair, prefix) == 0, 1)
    assert not server.pending(0.1)
