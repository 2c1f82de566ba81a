"""A request on its way up: what arrives is what was sent."""

from __future__ import annotations

import hashlib
import os

import pytest

from support.wire import chunked, request_bytes

HOP_BY_HOP = [
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authorization", "Basic eDp5"),
    ("TE", "trailers"),
    ("Trailer", "X-Sum"),
    ("Upgrade", "h2c"),
]


def pass_on(gateway, server, raw: bytes):
    """Sends raw bytes, answers 204; returns the head that arrived upstream."""
    client = gateway.connect()
    client.send(raw)
    upstream = server.accept()
    request = upstream.read_request()
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n")
    assert client.read_response().status == 204
    return request


def test_head_arrives_byte_for_byte(gateway, server, prefix):
    fields = (
        b"accept: */*\r\nX-UPPER: 1\r\nx-lower: 2\r\nX-MiXeD-cAsE: 3\r\nX-Empty:\r\nX-Dup: a\r\nX-Between: b\r\n"
        b"X-Dup: c\r\nX-Dup: a\r\nCookie: a=b; c=d\r\nCookie: e=f\r\nAuthorization: Bearer sk-x\r\n"
        b"X-Punct: \"quoted\", (comment); a=b\tc  d\r\nX-High: \xe4\xf6\xff\r\nUser-Agent: t/1\r\n"
        b"X-Forwarded-For: 192.0.2.1\r\nVia: 1.1 other\r\n!#$%&'*+-.^_`|~9: token\r\n"
    )
    request = pass_on(gateway, server, b"GET " + prefix.encode() + b"/a HTTP/1.1\r\nHost: g.test\r\n" + fields + b"\r\n")
    assert request.head.line == b"GET /a HTTP/1.1"
    assert request.head.all("host") == [server.host]
    sent = [line.partition(b":")[::2] for line in fields[:-2].split(b"\r\n")]
    assert request.head.without("host") == [(name, value.strip()) for name, value in sent]


def test_nothing_is_added(gateway, server, prefix):
    request = pass_on(gateway, server, f"GET {prefix}/ HTTP/1.1\r\nHost: g.test\r\n\r\n".encode())
    assert [name.lower() for name, _ in request.head.fields] == [b"host"]


def test_nothing_is_added_to_a_post(gateway, server, prefix):
    raw = f"POST {prefix}/ HTTP/1.1\r\nHost: g.test\r\nContent-Length: 2\r\n\r\nhi".encode()
    request = pass_on(gateway, server, raw)
    assert [name for name, _ in request.head.without("host")] == [b"Content-Length"]
    assert request.body == b"hi"


def test_order_holds_where_host_comes_last(gateway, server, prefix):
    request = pass_on(gateway, server, f"GET {prefix}/ HTTP/1.1\r\nA: 1\r\nB: 2\r\nHost: g.test\r\n\r\n".encode())
    assert request.head.without("host") == [(b"A", b"1"), (b"B", b"2")]
    assert request.head.all("host") == [server.host]


@pytest.mark.parametrize("name,value", HOP_BY_HOP)
def test_hop_by_hop_goes_no_further(gateway, server, prefix, name, value):
    raw = request_bytes("GET", prefix + "/", [("X-Before", "1"), (name, value), ("X-After", "2")])
    request = pass_on(gateway, server, raw)
    assert request.head.without("host") == [(b"X-Before", b"1"), (b"X-After", b"2")]


@pytest.mark.parametrize(
    "connection",
    [["close, X-Named"], ["keep-alive", "x-named"], ["X-NAMED ,, close"], [" x-named"], ["keep-alive,\tx-NAMED,"]],
)
def test_what_connection_names_goes_no_further(gateway, server, prefix, connection):
    fields = [("X-Named", "1"), ("X-Stays", "2"), *(("Connection", value) for value in connection), ("X-Named", "3")]
    request = pass_on(gateway, server, request_bytes("GET", prefix + "/", fields))
    assert request.head.without("host") == [(b"X-Stays", b"2")]


def test_connection_cannot_name_the_framing_away(gateway, server, prefix):
    raw = request_bytes("POST", prefix + "/", [("Connection", "content-length, host")], b"GET /evil HTTP/1.1\r\n\r\n")
    client = gateway.connect()
    client.send(raw)
    if server.pending(1):
        upstream = server.accept()
        request = upstream.read_request()
        assert request.head.all("host") == [server.host]
        assert request.body == b"GET /evil HTTP/1.1\r\n\r\n"
    else:
        assert client.read_response().status == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE", "get", "M-SEARCH", "a.b!#'"])
def test_any_method(gateway, server, prefix, method):
    request = pass_on(gateway, server, request_bytes(method, prefix + "/m"))
    assert request.head.line == f"{method} /m HTTP/1.1".encode()


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE", "OPTIONS", "REPORT"])
def test_length_stays_length(gateway, server, prefix, method):
    request = pass_on(gateway, server, request_bytes(method, prefix + "/", [], b"\x00\xff body"))
    assert (request.framing, request.body) == ("length", b"\x00\xff body")
    assert request.head.all("content-length") == ["7"]


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
def test_chunked_stays_chunked(gateway, server, prefix, method):
    raw = request_bytes(method, prefix + "/", [("Transfer-Encoding", "chunked")], chunked(b"one", b"two" * 1000))
    request = pass_on(gateway, server, raw)
    assert (request.framing, request.body) == ("chunked", b"one" + b"two" * 1000)
    assert [v.lower() for v in request.head.all("transfer-encoding")] == ["chunked"]
    assert "content-length" not in request.head


def test_chunk_extensions_and_trailers_are_no_body(gateway, server, prefix):
    body = b'5;name="va;lue"\r\nhello\r\n00006;a=b;c\r\n world\r\n000\r\nX-Trailer: t\r\n\r\n'
    request = pass_on(gateway, server, request_bytes("POST", prefix + "/", [("Transfer-Encoding", "Chunked")], body))
    assert request.body == b"hello world"


def test_no_body_stays_no_body(gateway, server, prefix):
    request = pass_on(gateway, server, request_bytes("POST", prefix + "/"))
    assert request.framing == "none" and request.head.without("host") == []


def test_empty_body_keeps_its_length(gateway, server, prefix):
    request = pass_on(gateway, server, request_bytes("POST", prefix + "/", [("Content-Length", "0")]))
    assert request.head.all("content-length") == ["0"]


def test_empty_chunked_body_stays_chunked(gateway, server, prefix):
    request = pass_on(gateway, server, request_bytes("POST", prefix + "/", [("Transfer-Encoding", "chunked")], chunked()))
    assert (request.framing, request.body) == ("chunked", b"")


def test_http10_request_goes_up_as_http11(gateway, server, prefix):
    client = gateway.connect()
    client.send(f"POST {prefix}/old HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
    upstream = server.accept()
    request = upstream.read_request()
    assert request.head.line == b"POST /old HTTP/1.1"
    assert request.head.all("host") == [server.host]
    assert request.body == b"abc"
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert client.read_response().body == b"ok"
    assert client.wait_end() == "fin"


@pytest.mark.parametrize("size", [1, 3, 7])
def test_head_in_small_segments(gateway, server, prefix, size):
    client = gateway.connect()
    client.send_pieces(request_bytes("POST", prefix + "/slow", [("X-A", "b")], b"12345"), size)
    upstream = server.accept()
    request = upstream.read_request()
    assert request.head.line == b"POST /slow HTTP/1.1" and request.body == b"12345"


def test_chunked_body_in_single_bytes(gateway, server, prefix):
    client = gateway.connect()
    raw = request_bytes("POST", prefix + "/", [("Transfer-Encoding", "chunked")], chunked(b"a" * 17, b"b", b"c" * 40))
    client.send_pieces(raw)
    assert server.accept().read_request().body == b"a" * 17 + b"b" + b"c" * 40


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_large_body_is_unchanged(gateway, vendor, framing):
    prefix = gateway.route(vendor.url)
    body = os.urandom(1 << 20) * 8
    client = gateway.connect(timeout=30)
    if framing == "length":
        client.send(request_bytes("POST", prefix + "/echo", [("Content-Length", str(len(body)))]))
        client.send(body)
    else:
        client.send(request_bytes("POST", prefix + "/echo", [("Transfer-Encoding", "chunked")]))
        sizes = [1, 70_000, 4096, 65_536, 333_333]
        start = turn = 0
        while start < len(body):
            part = body[start : start + sizes[turn % len(sizes)]]
            client.send(b"%x\r\n%s\r\n" % (len(part), part))
            start, turn = start + len(part), turn + 1
        client.send("0\r\n\r\n")
    said = client.read_response().json()
    assert (said["length"], said["framing"]) == (len(body), framing)
    assert said["sha256"] == hashlib.sha256(body).hexdigest()


def test_requests_follow_each_other_on_one_connection(gateway, server, prefix):
    client = gateway.connect()
    upstream = None
    for number in range(20):
        client.send(request_bytes("POST", f"{prefix}/{number}", [], b"x" * number))
        upstream = upstream or server.accept()
        request = upstream.read_request()
        assert request.head.line == f"POST /{number} HTTP/1.1".encode() and len(request.body) == number
        upstream.send(f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{number:02}")
        assert client.read_response().body == f"{number:02}".encode()
    assert not server.pending(), "kept connections are used again"


def test_pipelined_requests_are_answered_in_order(gateway, vendor):
    prefix = gateway.route(vendor.url)
    client = gateway.connect()
    client.send(b"".join(request_bytes("POST", f"{prefix}/{n}", [], b"x" * n) for n in range(10)))
    answers = [client.read_response().json() for _ in range(10)]
    assert [(a["target"], a["length"]) for a in answers] == [(f"/{n}", n) for n in range(10)]


def test_connection_close_is_honoured(gateway, vendor):
    prefix = gateway.route(vendor.url)
    client = gateway.connect()
    answer = client.request("GET", prefix + "/", [("Connection", "close")])
    assert answer.status == 200
    assert client.wait_end() == "fin"
    assert vendor.received[0].header("connection") is None


def test_http10_keep_alive(gateway, vendor):
    prefix = gateway.route(vendor.url)
    client = gateway.connect()
    for _ in range(2):
        client.send(f"GET {prefix}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = client.read_response()
        assert answer.framing in ("length", "close")
        if answer.framing == "close" or (answer.header("connection") or "").lower() != "keep-alive":
            return  # not keeping it is allowed, as long as the client can tell
    assert len(vendor.received) == 2


def test_blank_line_before_a_request_is_ignored(gateway, server, prefix):
    client = gateway.connect()
    client.send(b"\r\n" + request_bytes("GET", prefix + "/blank"))
    assert server.accept().read_head().line == b"GET /blank HTTP/1.1"


def test_expect_of_something_else_is_a_header_like_others(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix + "/", [("Expect", "x-other")]))
    # RFC 9110 10.1.1 allows 417.
    if server.pending(1):
        assert server.accept().read_head().get("expect") == "x-other"
    else:
        assert client.read_response().status == 417
