"""Where the plain cases of section 3 meet: early answers, time limits, odd peers, TLS in front."""

from __future__ import annotations

import time

import pytest

from support.gateway import Gateway, https_gateway
from support.process import eventually
from support.wire import Broken, Closed, RawClient, RawServer, chunk, chunked, request_bytes

CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


# -- answers that come before the end of an upload


@pytest.mark.parametrize("turn", range(5))
def test_early_answer_with_a_reset_behind_it(gateway, server, prefix, turn):
    """An upstream that answers and closes with unread data resets; its answer counts all the same."""
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/", [("Content-Length", "3000000")]) + b"x" * 100_000)
    upstream = server.accept()
    upstream.read_head()
    upstream.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
    upstream.close()
    answer = client.read_response()
    assert (answer.status, answer.body) == (413, b"big")


def test_early_answer_for_a_client_that_writes_first_and_reads_then(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", "POST", [("Content-Length", "8000000")], timeout=20)
    upstream.send("HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
    upstream.half_close()
    try:
        for _ in range(80):
            client.send(b"x" * 100_000)
    except OSError:
        pass  # the gateway may stop reading, but its answer must have arrived
    answer = client.read_response()
    assert (answer.status, answer.body) == (401, b"no")


@pytest.mark.parametrize("path,status", [("/not/mapped", 404), ("{prefix}/..", 400), ("/api/mappings", 401)])
def test_own_answer_for_a_client_that_writes_first(gateway, prefix, path, status):
    client = gateway.connect(timeout=20)
    client.send(request_bytes("POST", path.format(prefix=prefix), [("Content-Length", "5000000")]))
    time.sleep(0.05)
    try:
        for _ in range(50):
            client.send(b"x" * 100_000)
    except OSError:
        pass
    assert client.read_response().status == status


def test_too_large_body_for_a_client_that_writes_first(gateway, server):
    prefix = gateway.route(server.url, max_body_bytes=1000)
    client = gateway.connect(timeout=20)
    try:
        client.send(request_bytes("POST", prefix + "/", [], b"x" * 5_000_000))
    except OSError:
        pass
    assert client.read_response().status == 413


def test_refused_expectation_never_turns_a_body_into_a_request(gateway, server, prefix):
    client = gateway.connect()
    hidden = request_bytes("GET", prefix + "/hidden")
    client.send(request_bytes("POST", prefix + "/", [("Expect", "100-continue"), ("Content-Length", str(len(hidden)))]))
    upstream = server.accept()
    upstream.read_head()
    upstream.send("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
    assert client.read_response().status == 401
    try:
        client.send(hidden + request_bytes("GET", prefix + "/next"))
    except OSError:
        pass
    gateway.connect().send(request_bytes("GET", prefix + "/sentinel"))
    seen = server.first_head().line if server.pending(1) else upstream.read_head().line
    assert seen in (b"GET /next HTTP/1.1", b"GET /sentinel HTTP/1.1")


# -- no time limit where none is set


def test_slow_upload_outlives_the_limits_for_heads_and_idleness(server):
    with Gateway(API_PROXY_HEADER_TIMEOUT_SECONDS="1", API_PROXY_IDLE_TIMEOUT_SECONDS="1") as gateway:
        prefix = gateway.route(server.url)
        client, upstream = gateway.begin(server, prefix + "/", "POST", [("Content-Length", "3")])
        stream, other = gateway.begin(server, prefix + "/")
        other.send(CHUNKED + "1\r\na\r\n")
        for byte in b"abc":
            time.sleep(0.9)
            client.send(bytes([byte]))
            assert upstream.read_exactly(1) == bytes([byte])
        other.send("1\r\nb\r\n0\r\n\r\n")
        stream.read_response_head()
        assert stream.read_chunks() == b"ab"
        time.sleep(1.5)
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.read_response().body == b"ok"


def test_quiet_tunnel_outlives_the_limit_for_idleness(server):
    with Gateway(API_PROXY_HEADER_TIMEOUT_SECONDS="1", API_PROXY_IDLE_TIMEOUT_SECONDS="1") as gateway:
        prefix = gateway.route(server.url)
        client, upstream = gateway.begin(server, prefix + "/", "GET", [("Connection", "Upgrade"), ("Upgrade", "websocket")])
        upstream.send("HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        client.read_head()
        assert client.silent(2.5)
        upstream.send(b"late")
        assert client.read_exactly(4) == b"late"


def test_connection_that_says_nothing_is_closed():
    with Gateway(API_PROXY_HEADER_TIMEOUT_SECONDS="1", API_PROXY_IDLE_TIMEOUT_SECONDS="1") as gateway:
        client = gateway.connect()
        assert client.wait_end(5)


def test_kept_connection_waits_anew_for_each_head():
    with Gateway(API_PROXY_HEADER_TIMEOUT_SECONDS="1", API_PROXY_IDLE_TIMEOUT_SECONDS="5") as gateway:
        client = gateway.connect()
        assert client.request("GET", "/health").status == 200
        time.sleep(1.5)
        assert client.request("GET", "/health").status == 200
        client.send("GET /health HTTP/1.1\r\n")
        assert client.read_response().status == 408


# -- upstreams that are kept, and those that must not be


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_upstream_that_is_about_to_close_is_not_kept(gateway, server, prefix, answer):
    client = gateway.connect()
    for number in range(2):
        client.send(request_bytes("POST", f"{prefix}/{number}", [], b"x"))
        upstream = server.accept()
        assert upstream.read_request().target == f"/{number}"
        upstream.send(answer)
        assert client.read_response().body == b"ok"


@pytest.mark.parametrize(
    "method,answer",
    [
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nextra"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\nextra"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra"),
    ],
)
def test_body_where_none_may_be_poisons_nothing(gateway, server, prefix, method, answer):
    client, upstream = gateway.begin(server, prefix + "/1", method)
    upstream.send(answer)
    assert client.read_response(method).body == b""
    client.send(request_bytes("GET", prefix + "/2"))
    second = server.accept()
    assert second.read_head().line == b"GET /2 HTTP/1.1"
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
    assert client.read_response().body == b"2"


def test_answer_before_the_end_of_an_upload_spoils_the_upstream_connection(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/1", "POST", [("Content-Length", "10")], b"12345")
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert client.read_response().body == b"ok"
    other = gateway.connect()
    other.send(request_bytes("GET", prefix + "/2"))
    assert server.first_head().line == b"GET /2 HTTP/1.1"


# -- heads that end in other ways


@pytest.mark.parametrize("raw", ["GET {p}/lf HTTP/1.1\nHost: g\nX: a\n\n", "GET {p}/lf HTTP/1.1\r\nHost: g\nX: a\r\n\r\n", "GET {p}/lf HTTP/1.1\r\nHost: g\r\nX: a\nY: b\r\n\r\n"])
def test_bare_line_feeds_are_refused_or_made_whole(gateway, server, prefix, raw):
    client = gateway.connect()
    client.send(raw.replace("{p}", prefix))
    if not server.pending(0.5):
        assert client.read_response().status == 400
        return
    head = server.accept().read_head()
    assert head.line == b"GET /lf HTTP/1.1" and b"\n" not in head.raw.replace(b"\r\n", b"")


@pytest.mark.parametrize("field", ["X: a\nY: b", "X: a\r\n b", "X: a\rb"])
def test_odd_line_ends_of_an_answer_are_refused_or_made_whole(gateway, server, prefix, field):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(f"HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 2\r\n\r\nok")
    answer = client.read_response()
    assert answer.status in (200, 502)
    bare = answer.head.raw.replace(b"\r\n", b"")
    assert b"\n" not in bare and b"\r" not in bare


@pytest.mark.parametrize("body", [b"5;" + b"a" * 2_000_000 + b"\r\nhello\r\n0\r\n\r\n", b"0" * 2_000_000 + b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 300_000 + b"\r\n"], ids=["extension", "size", "trailers"])
def test_endless_chunk_lines_are_not_read_for_ever(gateway, server, prefix, body):
    client = gateway.connect()
    try:
        client.send(request_bytes("POST", prefix + "/", [("Transfer-Encoding", "chunked")]) + body)
    except OSError:
        pass
    if server.pending(0.5):
        upstream = server.accept()
        try:
            upstream.read_request()
            return  # read over in bounded memory is fine too
        except (Broken, Closed):
            pass
    assert client.read_response().status in (400, 431)


def test_many_requests_in_one_segment_with_a_bad_one(gateway, vendor):
    """Those before the bad one are answered, those behind it are not."""
    prefix = gateway.route(vendor.url)
    client = gateway.connect()
    good = b"".join(request_bytes("GET", f"{prefix}/{n}") for n in range(5))
    client.send(good + b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + request_bytes("GET", prefix + "/behind"))
    for number in range(5):
        assert client.read_response().json()["target"] == f"/{number}"
    assert client.read_response().status == 400
    assert client.wait_end(5)
    assert [r.target for r in vendor.received] == [f"/{n}" for n in range(5)]


# -- the same over TLS


@pytest.mark.parametrize("upstream_tls", [False, True])
def test_events_step_by_step_over_tls(tls_gateway, authority, upstream_tls):
    with RawServer(tls=authority.server_context("localhost") if upstream_tls else None) as server:
        prefix = tls_gateway.route(server.url)
        client, upstream = tls_gateway.begin(server, prefix + "/", "POST", [("Transfer-Encoding", "chunked")])
        upstream.send(CHUNKED)
        client.read_response_head()
        for number in range(50):
            client.send(chunk(b"up %d" % number))
            assert upstream.read_chunk() == b"up %d" % number
            upstream.send(chunk(b"down %d" % number))
            assert client.read_chunk() == b"down %d" % number


@pytest.mark.parametrize("how", ["cut", "reset", "farewell"])
@pytest.mark.parametrize("began", [False, True])
def test_hang_up_over_tls(tls_gateway, server, how, began):
    client, upstream = tls_gateway.begin(server, tls_gateway.route(server.url) + "/")
    if began:
        upstream.send(CHUNKED + "1\r\na\r\n")
        client.read_response_head()
        client.read_chunk()
    getattr(client, how)()
    assert upstream.wait_end(1)


def test_farewell_behind_a_body_that_nobody_reads(tls_gateway, vendor):
    """In a queue the body waits where it is; what comes behind it is noticed all the same."""
    prefix = tls_gateway.route(vendor.url, queue={"rate_per_second": 0.1, "capacity": 1, "timeout_seconds": 30})
    assert tls_gateway.get(prefix + "/first").status == 200
    client = tls_gateway.connect()
    client.send(request_bytes("POST", prefix + "/waits", [], b"body"))

    def active():
        return tls_gateway.get("/stats").json()["performance"]["active_requests"]

    eventually(active, 3)
    client.farewell()
    eventually(lambda: not active(), 1)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_broken_upstream_over_tls(tls_gateway, server, how):
    client, upstream = tls_gateway.begin(server, tls_gateway.route(server.url) + "/")
    upstream.send(CHUNKED + "1\r\na\r\n")
    client.read_response_head()
    assert client.read_chunk() == b"a"
    getattr(upstream, how)()
    with pytest.raises(Closed):
        client.read_chunk()


def test_plain_request_on_the_tls_port(tls_gateway):
    with RawClient(tls_gateway.port) as client:
        client.send(request_bytes("GET", "/health"))
        try:
            assert client.read_response().status == 400
        except Closed:
            pass
    assert tls_gateway.get("/health").status == 200


def test_tls_handshake_that_never_ends(authority):
    with https_gateway(authority, "slow", API_PROXY_HEADER_TIMEOUT_SECONDS="1") as gateway:
        with RawClient(gateway.port) as client:
            client.send(b"\x16\x03\x01")
            assert client.wait_end(5)


def test_pipelined_chunked_requests(gateway, vendor):
    prefix = gateway.route(vendor.url)
    client = gateway.connect()
    client.send(b"".join(request_bytes("POST", f"{prefix}/{n}", [("Transfer-Encoding", "chunked")], chunked(b"x" * n, b"y")) for n in range(1, 9)))
    assert [client.read_response().json()["length"] for _ in range(8)] == list(range(2, 10))
