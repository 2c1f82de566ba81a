"""Upgrade: websocket is tunnelled both ways."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
import websockets.exceptions
from websockets.sync.client import connect
from websockets.sync.server import serve

from support.process import eventually
from support.wire import Closed, RawServer, request_bytes

UPGRADE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
]
ACCEPT = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Extra: 1\r\n\r\n"
)


@pytest.fixture
def echo():
    """A real websocket server: echoes; "bye" makes it close with 4001."""
    seen = []

    def handle(connection):
        seen.append(connection)
        for message in connection:
            if message == "bye":
                connection.close(4001, "as you wish")
                return
            connection.send(message)

    def choose(_, offered):
        return "realtime" if "realtime" in offered else None

    with serve(handle, "127.0.0.1", 0, select_subprotocol=choose, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.seen = seen
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def address(gateway, echo):
    return f"ws://127.0.0.1:{gateway.port}{gateway.route(echo.url)}/v1/realtime?model=x"


def test_messages_both_ways(address, echo):
    with connect(address, compression=None) as client:
        for message in ("text \u00e4", b"\x00\xff", "", "x" * 200_000, os.urandom(1 << 20)):
            client.send(message)
            assert client.recv(timeout=10) == message
    assert echo.seen[0].request.path == "/v1/realtime?model=x"


def test_compression_and_subprotocol_are_negotiated_end_to_end(address):
    with connect(address, subprotocols=["other", "realtime"]) as client:
        assert client.subprotocol == "realtime"
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        client.send("again " * 1000)
        assert client.recv(timeout=10) == "again " * 1000


def test_ping_gets_its_pong(address):
    with connect(address) as client:
        assert client.ping().wait(5)


def test_close_by_the_server_reaches_the_client(address):
    with connect(address) as client:
        client.send("bye")
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            client.recv(timeout=5)
        assert closed.value.rcvd.code == 4001 and closed.value.rcvd.reason == "as you wish"


@pytest.mark.concurrency
def test_many_tunnels(address):
    clients = [connect(address) for _ in range(30)]
    for number, client in enumerate(clients):
        client.send(f"for {number}")
    for number, client in enumerate(clients):
        assert client.recv(timeout=10) == f"for {number}"
        client.close()


def tunnel(gateway, server, prefix, first: bytes = b""):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix + "/ws", UPGRADE))
    upstream = server.accept()
    head = upstream.read_head()
    upstream.send(ACCEPT.encode() + first)
    answer = client.read_head()
    return client, upstream, head, answer


def test_handshake_heads(gateway, server, prefix):
    _, _, head, answer = tunnel(gateway, server, prefix)
    assert head.line == b"GET /ws HTTP/1.1" and head.all("host") == [server.host]
    assert [v.lower() for v in head.all("upgrade")] == ["websocket"]
    assert [v.lower() for v in head.all("connection")] == ["upgrade"]
    assert head.get("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ=="
    assert answer.line.startswith(b"HTTP/1.1 101")
    assert answer.get("upgrade").lower() == "websocket" and answer.get("connection").lower() == "upgrade"
    assert answer.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" and answer.get("x-extra") == "1"


def test_bytes_right_behind_the_handshake(gateway, server, prefix):
    client, upstream, _, _ = tunnel(gateway, server, prefix, b"\x81\x02hi")
    assert client.read_exactly(4) == b"\x81\x02hi"
    client.send(b"\x81\x00")
    assert upstream.read_exactly(2) == b"\x81\x00"


def test_tunnel_carries_any_bytes_in_step(gateway, server, prefix):
    client, upstream, _, _ = tunnel(gateway, server, prefix)
    for number in range(50):
        client.send(b"\r\n\r\n%d" % number)
        assert upstream.read_exactly(4 + len(str(number))) == b"\r\n\r\n%d" % number
        upstream.send(b"HTTP/1.1 %d" % number)
        assert client.read_exactly(9 + len(str(number))) == b"HTTP/1.1 %d" % number


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_hangs_up(gateway, server, prefix, how):
    client, upstream, _, _ = tunnel(gateway, server, prefix)
    getattr(client, how)()
    assert upstream.wait_end(1)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_upstream_hangs_up(gateway, server, prefix, how):
    client, upstream, _, _ = tunnel(gateway, server, prefix)
    getattr(upstream, how)()
    assert client.wait_end(1)


FIN_WAIT2 = 5  # the peer has our end (netinet/tcp.h)
SILENCE = 5  # how long one end may be closed and the other say nothing
PAUSE = 60  # how long it may leave what is said to it


def is_over(gateway) -> bool:
    return gateway.get("/stats").json()["performance"]["active_requests"] == 0


@pytest.mark.parametrize("how", ["close", "half_close"])
def test_client_closed_and_the_upstream_takes_no_notice(gateway, server, prefix, how):
    client, upstream, _, _ = tunnel(gateway, server, prefix)
    eventually(lambda: not is_over(gateway), 1)
    began = time.monotonic()
    getattr(client, how)()
    assert upstream.wait_end(1) == "fin"
    eventually(lambda: is_over(gateway), SILENCE + 2)
    assert time.monotonic() - began >= SILENCE - 0.5
    if how == "half_close":
        assert client.wait_end(1) == "fin"


def test_client_reset_ends_it_at_once(gateway, server, prefix):
    client, upstream, _, _ = tunnel(gateway, server, prefix)
    client.send_until_blocked(b"x" * 65536, quiet=0.3, limit=2_000_000)
    time.sleep(0.3)
    client.reset()
    eventually(lambda: is_over(gateway), 1)
    assert upstream.wait_end(1) == "rst"


def test_client_half_closed_hears_what_the_upstream_still_says(gateway, server, prefix):
    client, upstream, _, _ = tunnel(gateway, server, prefix)
    client.half_close()
    assert upstream.wait_end(1) == "fin"
    for number in range(4):
        time.sleep(2)
        upstream.send(b"%d" % number)
        assert client.read_exactly(1) == b"%d" % number
    upstream.close()
    assert client.wait_end(1) == "fin"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_one_end_closed_and_the_other_reads_no_more(gateway, server, prefix):
    """What waits for it keeps a tunnel for a minute; what the kernel has by then arrives, and then an end."""
    client, idle, _, _ = tunnel(gateway, server, prefix)
    client.send_until_blocked(b"x" * 65536, quiet=0.3, limit=2_000_000)
    client.half_close()
    unread, upstream, _, _ = tunnel(gateway, server, prefix)
    upstream.send_until_blocked(b"x" * 65536, quiet=0.3)
    upstream.half_close()
    while upstream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != bytes([FIN_WAIT2]):
        unread.read_exactly(65536)  # the end is behind what nobody has taken yet
        time.sleep(0.01)
    time.sleep(PAUSE - 5)
    assert gateway.get("/stats").json()["performance"]["active_requests"] == 2
    eventually(lambda: is_over(gateway), 10)
    assert client.wait_end(1) == "fin" and idle.wait_end(5) == "fin" and unread.wait_end(5) == "fin"


def writes_and_ends(writer, count: int) -> threading.Thread:
    """Sends so many bytes and then the end, in a thread: to be joined."""

    def write():
        writer.send(b"z" * count)
        writer.half_close()

    writer.set_timeout(30)
    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("count", [1_000_000, 5_000_000])
@pytest.mark.parametrize("paused", ["client", "upstream"])
def test_a_reader_that_pauses_gets_all_of_it_after_the_end(gateway, paused, count):
    """For longer than silence may last: what is under way is in nobody's way."""
    with RawServer(receive_buffer=65536, send_buffer=65536) as server:
        client, upstream, _, _ = tunnel(gateway, server, gateway.route(server.url))
        reader, writer = (client, upstream) if paused == "client" else (upstream, client)
        thread = writes_and_ends(writer, count)
        time.sleep(SILENCE + 3)
        assert len(reader.read_exactly(count)) == count
        assert reader.wait_end(1) == "fin"
        thread.join()


@pytest.mark.parametrize("slow", ["client", "upstream"])
def test_a_slow_reader_gets_all_of_it_after_the_end(gateway, slow):
    """More than the kernel's buffers hold, for longer than silence may last."""
    with RawServer(receive_buffer=65536, send_buffer=65536) as server:
        client, upstream, _, _ = tunnel(gateway, server, gateway.route(server.url))
        reader, writer = (client, upstream) if slow == "client" else (upstream, client)
        left = 12_000_000
        thread = writes_and_ends(writer, left)
        until = time.monotonic() + SILENCE * 2
        while time.monotonic() < until:
            left -= len(reader.read_exactly(20_000))
            time.sleep(0.05)
        assert len(reader.read_exactly(left)) == left
        assert reader.wait_end(1) == "fin"
        thread.join()


def test_last_bytes_before_the_end_arrive(gateway, server, prefix):
    client, upstream, _, _ = tunnel(gateway, server, prefix)
    upstream.send(b"z" * 100_000)
    upstream.close()
    assert client.read_to_end() == b"z" * 100_000


def test_refused_upgrade_is_an_answer_like_others(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/ws", "GET", UPGRADE)
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    answer = client.read_response()
    assert (answer.status, answer.body) == (403, b"no")
    assert client.request("GET", "/health").status == 200


def test_other_upgrades_go_up_as_plain_requests(gateway, server, prefix):
    client = gateway.connect()
    fields = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]
    client.send(request_bytes("GET", prefix + "/", fields))
    head = server.accept().read_head()
    assert head.without("host") == []


def test_tunnel_has_back_pressure(gateway, server, prefix):
    client, upstream, _, _ = tunnel(gateway, server, prefix)
    sent = upstream.send_until_blocked(b"q" * 65536, quiet=0.3, limit=64 << 20)
    assert sent < 64 << 20
    assert client.read_exactly(sent) == b"q" * sent


def test_upstream_gone_before_the_handshake(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/ws", "GET", UPGRADE)
    upstream.close()
    try:
        assert client.read_response().status == 502
    except Closed as end:
        raise AssertionError("no answer") from end
