"""Bytes leave as they arrive: proven by handshakes, not by clocks."""

from __future__ import annotations

import hashlib
import os
import select
import threading
import time

import pytest

from support.process import eventually
from support.wire import RawClient, RawServer, chunk, kernel_queues, request_bytes

KIB = 1024
BLOCK = bytes(range(256)) * 64


def start(gateway, server, prefix, head: str, method="GET", **options):
    """Client and upstream of a request whose answer's head has arrived."""
    client = gateway.connect(**options)
    client.send(request_bytes(method, prefix + "/"))
    upstream = server.accept()
    upstream.read_request()
    upstream.send(head)
    answer, _ = client.read_response_head()
    return client, upstream, answer


HEADS = {
    "chunked": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    "length": "HTTP/1.1 200 OK\r\nContent-Length: 2700\r\n\r\n",
    "close": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
}


@pytest.mark.parametrize("framing", HEADS)
def test_head_and_each_event_arrive_before_the_next_is_sent(gateway, server, prefix, framing):
    client, upstream, head = start(gateway, server, prefix, HEADS[framing])
    in_chunks = "transfer-encoding" in head
    for number in range(100):
        event = b"data: event number %05d\n\n\n" % number
        upstream.send(chunk(event) if framing == "chunked" else event)
        got = b""
        while len(got) < len(event):
            got += client.read_chunk() if in_chunks else client.read_some()
        assert got == event


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_upload_head_and_pieces_arrive_before_the_next_is_sent(gateway, server, prefix, framing):
    client = gateway.connect()
    header = ("Transfer-Encoding", "chunked") if framing == "chunked" else ("Content-Length", "1000")
    client.send(request_bytes("POST", prefix + "/", [header]))
    upstream = server.accept()
    upstream.read_head()
    for number in range(100):
        piece = b"%09d\n" % number
        client.send(chunk(piece) if framing == "chunked" else piece)
        got = b""
        while len(got) < len(piece):
            got += upstream.read_chunk() if framing == "chunked" else upstream.read_some()
        assert got == piece


def test_both_directions_at_once(gateway, server, prefix):
    """The upstream answers each piece of an upload before the next one comes."""
    client, upstream = gateway.begin(server, prefix + "/", "POST", [("Transfer-Encoding", "chunked")])
    upstream.send(HEADS["chunked"])
    client.read_response_head()
    for number in range(50):
        client.send(chunk(b"%d" % number))
        assert upstream.read_chunk() == b"%d" % number
        upstream.send(chunk(b"-%d" % number))
        assert client.read_chunk() == b"-%d" % number
    client.send("0\r\n\r\n")
    assert upstream.read_chunk() == b""
    upstream.send("0\r\n\r\n")
    assert client.read_chunk() == b""


def test_early_answer_reaches_a_client_that_still_uploads(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/", [("Content-Length", "1000000")], b""))
    client.send(b"x" * 1000)
    upstream = server.accept()
    upstream.read_head()
    upstream.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
    upstream.half_close()
    answer = client.read_response()
    assert (answer.status, answer.body) == (413, b"big")


def test_early_answer_then_the_rest_of_the_upload(gateway, server, prefix):
    """An answer before the end of the body does not end the upload by itself."""
    client, upstream = gateway.begin(server, prefix + "/", "POST", [("Content-Length", "10")], b"12345")
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + "2\r\nhi\r\n")
    client.read_response_head()
    assert client.read_chunk() == b"hi"
    client.send(b"67890")
    assert upstream.read_exactly(10) == b"1234567890"
    upstream.send("0\r\n\r\n")
    assert client.read_chunk() == b""


def test_quiet_stream_stays_open(gateway, server, prefix):
    client, upstream, _ = start(gateway, server, prefix, HEADS["chunked"])
    assert client.silent(2)
    upstream.send(chunk(b"still there"))
    assert client.read_chunk() == b"still there"


def test_slow_reader_gets_every_byte(gateway, server, prefix):
    body = os.urandom(4 << 20)
    client, upstream, _ = start(
        gateway, server, prefix, f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n", receive_buffer=4096
    )
    sender = threading.Thread(target=upstream.send, args=(body,))
    sender.start()
    got = client.read_exactly(100)
    time.sleep(0.3)
    got += client.read_exactly(len(body) - 100)
    sender.join()
    assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()


# -- how much is held


def held_bytes(sent: int, *ports: int) -> int:
    """Bytes that the gateway holds: all that went in, less what waits in any kernel buffer."""
    return sent - sum(to_send + to_read for to_send, to_read in kernel_queues(*ports).values())


def settled_held_bytes(sent: int, *ports: int) -> int:
    """The same once nothing moves any more (a byte under way may be in two queues or in none)."""
    last = None
    for _ in range(50):
        now = held_bytes(sent, *ports)
        if now == last:
            return now
        last = now
        time.sleep(0.1)
    raise AssertionError("the queues do not settle")


def test_download_holds_64_kib_at_most(gateway):
    with RawServer(send_buffer=16 * KIB) as server:
        prefix = gateway.route(server.url)
        client, upstream, _ = start(
            gateway, server, prefix, f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 30}\r\n\r\n", receive_buffer=16 * KIB
        )
        sent = upstream.send_until_blocked(BLOCK, limit=64 << 20)
        assert sent < 64 << 20, "no back pressure"
        held = settled_held_bytes(sent, server.port, client.local_port)
        assert held <= 64 * KIB + 512, f"{held} bytes held"  # a head may still be on its way
        got = client.read_exactly(sent)
        assert got == (BLOCK * (sent // len(BLOCK) + 1))[:sent]


def test_chunked_download_holds_64_kib_at_most(gateway):
    with RawServer(send_buffer=16 * KIB) as server:
        prefix = gateway.route(server.url)
        client, upstream, _ = start(gateway, server, prefix, HEADS["chunked"], receive_buffer=16 * KIB)
        sent = upstream.send_until_blocked(chunk(BLOCK), limit=64 << 20)
        assert sent < 64 << 20, "no back pressure"
        held = settled_held_bytes(sent, server.port, client.local_port)
        assert held <= 64 * KIB + 4 * KIB, f"{held} bytes held"  # chunk sizes are no payload


def test_upload_holds_64_kib_at_most(gateway):
    with RawServer(receive_buffer=16 * KIB) as server:
        prefix = gateway.route(server.url)
        client, upstream = gateway.begin(server, prefix + "/", "POST", [("Content-Length", str(1 << 30))])
        sent = client.send_until_blocked(BLOCK, limit=64 << 20)
        assert sent < 64 << 20, "no back pressure"
        held = settled_held_bytes(sent, server.port, client.local_port)
        assert held <= 64 * KIB + 512, f"{held} bytes held"
        assert upstream.read_exactly(sent) == (BLOCK * (sent // len(BLOCK) + 1))[:sent]


def fill(connections, quiet: float = 0.3):
    """Sends on all of them at once, until none takes more."""
    sockets = [connection.sock for connection in connections]
    for sock in sockets:
        sock.setblocking(False)
    while writable := select.select([], sockets, [], quiet)[1]:
        for sock in writable:
            try:
                sock.send(BLOCK)
            except BlockingIOError:
                pass


@pytest.mark.timing
def test_memory_of_stalled_downloads(gateway):
    with RawServer(send_buffer=16 * KIB) as server:
        prefix = gateway.route(server.url)
        pairs = []
        for _ in range(2):  # warm up, so that pools of the process exist
            pairs.append(start(gateway, server, prefix, HEADS["close"], receive_buffer=4 * KIB)[:2])
        before = gateway.resident_bytes()
        for _ in range(64):
            pairs.append(start(gateway, server, prefix, HEADS["close"], receive_buffer=4 * KIB)[:2])
        fill([upstream for _, upstream in pairs])
        grown = gateway.resident_bytes() - before
        assert grown < 64 * 96 * KIB + 2048 * KIB, f"{grown // 64} bytes a stream"


@pytest.mark.concurrency
def test_many_streams_at_once(gateway, vendor):
    """Each gets its own events in order, none of another's."""
    prefix = gateway.route(vendor.url)
    vendor.gate = threading.Semaphore(0)
    clients = []
    for number in range(100):
        client = gateway.connect()
        body = b'{"model":"m%d","stream":true,"messages":[]}' % number
        client.send(request_bytes("POST", prefix + "/v1/chat/completions", [], body))
        clients.append(client)
    vendor.wait(100)
    vendor.gate.release(100 * 10)
    for number, client in enumerate(clients):
        answer = client.read_response()
        assert answer.body.count(b'"m%d"' % number) == 6 and answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.concurrency
def test_many_clients_with_many_requests(gateway, vendor):
    prefix = gateway.route(vendor.url)
    failures = []

    def run(number: int):
        try:
            with RawClient(gateway.port) as client:
                for turn in range(20):
                    body = b"%d" % number * (turn * 37)
                    said = client.request("POST", f"{prefix}/{number}/{turn}", [], body).json()
                    assert said["target"] == f"/{number}/{turn}" and said["length"] == len(body)
        except Exception as error:  # handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert eventually(lambda: len(vendor.received) == 24 * 20)
    assert vendor.connections <= 24 * 2, "connections are kept and used again"
