"""An answer on its way down."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import os
import threading
import time

import pytest

from support.wire import Broken, RawServer, chunk, chunked, request_bytes


class Pair:
    """A client and, once a request is under way, the upstream's side."""

    def __init__(self, gateway, server, prefix):
        self.gateway, self.server, self.prefix = gateway, server, prefix
        self.client = gateway.connect()

    def ask(self, method="GET", version="HTTP/1.1", headers=(), path="/"):
        self.method = method
        self.client.send(request_bytes(method, self.prefix + path, headers, version=version))
        self.upstream = self.server.accept()
        self.upstream.read_request()
        return self.upstream

    def answer(self, raw: bytes | str, method="GET", end=False, **options):
        self.ask(method, **options)
        self.upstream.send(raw)
        if end:
            self.upstream.close()
        return self.client.read_response(method)

    def still_usable(self) -> bool:
        return self.client.request("GET", "/health").status == 200


@pytest.fixture
def pair(gateway, server, prefix):
    return Pair(gateway, server, prefix)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 207, 226, 299, 300, 301, 307, 400, 401, 402, 404, 407, 408, 418, 421, 425, 429, 451, 499, 500, 502, 503, 529, 599])
def test_status_passes(pair, status):
    answer = pair.answer(f"HTTP/1.1 {status} Whatever It Says\r\nContent-Length: 2\r\n\r\nok")
    assert (answer.status, answer.body) == (status, b"ok")
    assert answer.header("x-apiproxy-error") is None


@pytest.mark.parametrize("line", ["HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 200 OK", "HTTP/1.1 200 \xfcber"])
def test_status_lines_of_the_wild(pair, line):
    answer = pair.answer(f"{line}\r\nContent-Length: 2\r\n\r\nok")
    assert (answer.status, answer.body) == (200, b"ok")


def test_headers_pass_in_order(pair):
    fields = [
        (b"Date", b"Mon, 01 Jan 2024 00:00:00 GMT"),
        (b"Content-Type", b"text/plain"),
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"X-Empty", b""),
        (b"set-cookie", b"b=2"),
        (b"Server", b"sim"),
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"anthropic-ratelimit-requests-remaining", b"9"),
        (b"X-RateLimit-Reset-Tokens", b"6m0s"),
        (b"X-High", b"\xe4\xff"),
        (b"WWW-Authenticate", b'Basic realm="x", Digest a=b'),
        (b"Content-Length", b"2"),
        (b"ETag", b'W/"x"'),
    ]
    raw = b"HTTP/1.1 200 OK\r\n" + b"".join(n + b": " + v + b"\r\n" for n, v in fields) + b"\r\nok"
    answer = pair.answer(raw)
    got = answer.head.without("connection", "keep-alive")
    assert [(n.lower(), v) for n, v in got] == [(n.lower(), v) for n, v in fields]


def test_large_response_head_passes(pair):
    fields = "".join(f"X-Line-{n}: {'v' * 150}\r\n" for n in range(90))
    answer = pair.answer(f"HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n")
    assert answer.status == 200 and answer.header("x-line-89") == "v" * 150


def test_response_head_in_single_bytes(pair):
    pair.ask().send_pieces(b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"slow", b"ly"))
    assert pair.client.read_response().body == b"slowly"


def test_hop_by_hop_goes_no_further(pair):
    answer = pair.answer(
        "HTTP/1.1 200 OK\r\nConnection: close, X-Named\r\nX-Named: 1\r\nKeep-Alive: timeout=9\r\nX-Stays: 1\r\n"
        "Proxy-Connection: close\r\nTrailer: X-T\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok"
    )
    assert answer.header("x-stays") == "1"
    for name in ("x-named", "keep-alive", "proxy-connection", "trailer", "upgrade"):
        assert answer.header(name) is None, name
    assert (answer.header("connection") or "keep-alive").lower() == "keep-alive"
    assert pair.still_usable(), "the upstream's Connection: close is not the client's"


def test_nothing_but_date_is_added(pair):
    answer = pair.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    names = sorted(n.lower() for n, _ in answer.head.without("connection", "keep-alive"))
    assert names == [b"content-length", b"date"]


def test_date_is_added_where_missing(pair):
    answer = pair.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    date = answer.header("date")
    assert date.endswith(" GMT")
    assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 5


def test_date_is_kept_where_given(pair):
    answer = pair.answer("HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n")
    assert answer.head.all("date") == ["Mon, 01 Jan 2024 00:00:00 GMT"]


@pytest.mark.parametrize("kind", ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream"])
def test_event_streams_are_not_buffered_by_others(pair, kind):
    answer = pair.answer(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert answer.head.all("x-accel-buffering") == ["no"]


def test_accel_header_is_not_doubled(pair):
    answer = pair.answer(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\nContent-Length: 0\r\n\r\n"
    )
    assert answer.head.all("x-accel-buffering") == ["no"]


@pytest.mark.parametrize("kind", ["application/json", "text/event-streams", "text/plain"])
def test_accel_header_only_on_event_streams(pair, kind):
    answer = pair.answer(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 0\r\n\r\n")
    assert answer.header("x-accel-buffering") is None


def test_length_stays_length(pair):
    answer = pair.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert (answer.framing, answer.body) == ("length", b"hello")
    assert answer.head.all("content-length") == ["5"] and pair.still_usable()


def test_chunked_stays_chunked(pair):
    answer = pair.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"a" * 100, b"b"))
    assert (answer.framing, answer.body) == ("chunked", b"a" * 100 + b"b")
    assert pair.still_usable()


def test_chunk_extensions_and_trailers_are_read_over(pair):
    answer = pair.answer(
        b"HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"
    )
    assert answer.body == b"hello" and answer.header("x-t") is None
    assert pair.still_usable()


def test_close_delimited_answer(pair):
    answer = pair.answer("HTTP/1.1 200 OK\r\n\r\nuntil the end", end=True)
    assert answer.body == b"until the end"
    assert answer.framing in ("chunked", "close")


def test_http10_upstream(pair):
    answer = pair.answer("HTTP/1.0 200 OK\r\nContent-Type: a/b\r\n\r\nold", end=True)
    assert answer.body == b"old" and answer.header("content-type") == "a/b"


def test_chunked_for_an_http10_client(pair):
    answer = pair.answer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"for", b"old"), version="HTTP/1.0"
    )
    assert answer.framing == "close" and answer.body == b"forold"
    assert answer.header("transfer-encoding") is None


def test_empty_body(pair):
    answer = pair.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert answer.body == b"" and answer.head.all("content-length") == ["0"]
    assert pair.still_usable()


def test_blanks_behind_a_chunks_size_are_read_over(pair):
    answer = pair.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n1\t\r\n!\r\n0  \r\n\r\n")
    assert (answer.framing, answer.body) == ("chunked", b"ok!")


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_large_body_is_unchanged(gateway, server, prefix, framing):
    body = os.urandom(1 << 20) * 8
    head = {"length": f"Content-Length: {len(body)}\r\n", "chunked": "Transfer-Encoding: chunked\r\n", "close": ""}

    def serve():
        upstream = server.accept()
        upstream.read_request()
        upstream.send(f"HTTP/1.1 200 OK\r\n{head[framing]}\r\n")
        if framing == "chunked":
            for start in range(0, len(body), 77_777):
                upstream.send(chunk(body[start : start + 77_777]))
            upstream.send("0\r\n\r\n")
        else:
            upstream.send(body)
        if framing == "close":
            upstream.close()

    thread = threading.Thread(target=serve)
    thread.start()
    answer = gateway.get(prefix + "/large")
    thread.join()
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()


def test_compressed_bodies_are_not_touched(pair):
    packed = gzip.compress(b"secret" * 100)
    answer = pair.answer(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    )
    assert answer.body == packed and answer.header("content-encoding") == "gzip"


# -- answers without a body


def test_head_keeps_its_length(pair):
    answer = pair.answer("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX-A: 1\r\n\r\n", method="HEAD")
    assert answer.head.all("content-length") == ["12345"] and answer.header("x-a") == "1"
    assert pair.still_usable(), "no body followed"


def test_head_without_length_gets_none(pair):
    answer = pair.answer("HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n", method="HEAD")
    assert answer.header("content-length") is None
    assert pair.still_usable()


def test_head_of_a_chunked_resource(pair):
    answer = pair.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", method="HEAD")
    assert answer.status == 200 and answer.header("content-length") is None
    assert pair.still_usable()


def test_head_of_an_error(pair):
    answer = pair.answer("HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n", method="HEAD")
    assert answer.status == 404 and answer.head.all("content-length") == ["99"]
    assert pair.still_usable()


@pytest.mark.parametrize("length", ["", "Content-Length: 321\r\n", "Content-Length: 0\r\n"])
def test_304_has_no_body_and_keeps_its_length(pair, length):
    answer = pair.answer(f'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n{length}\r\n')
    assert answer.status == 304 and answer.header("etag") == '"x"'
    assert answer.head.all("content-length") == ([length[16:-2]] if length else [])
    assert pair.still_usable()


def test_204_has_no_body_and_no_length(pair):
    answer = pair.answer("HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n")
    assert answer.status == 204 and answer.header("content-length") is None
    assert answer.header("transfer-encoding") is None
    assert pair.still_usable()


# -- informational answers


@pytest.mark.parametrize("status", [102, 103, 150, 199])
def test_other_informational_answers_are_dropped(pair, status):
    answer = pair.answer(f"HTTP/1.1 {status} Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert answer.informational == [] and answer.body == b"ok"
    assert answer.header("link") is None


def test_unasked_100_does_no_harm(pair):
    answer = pair.answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert answer.body == b"ok" and pair.still_usable()


def test_unasked_101_is_no_tunnel(pair):
    answer = pair.answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
    assert answer.status == 502


# -- answers that are none: 502


@pytest.mark.parametrize(
    "raw",
    [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
        "hello, I am no HTTP\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 000 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Cut: a",
        "HTTP/1.1 200 OK\r\n",
        "HTTP",
        "",
    ],
    ids=repr,
)
def test_garbage_is_502(pair, raw):
    answer = pair.answer(raw, end=True)
    assert (answer.status, answer.header("x-apiproxy-error")) == (502, "upstream_error")
    assert answer.json()["error"]["code"] == "upstream_error"
    assert pair.still_usable()


def test_endless_head_is_502(pair):
    pair.ask()
    try:
        pair.upstream.send("HTTP/1.1 200 OK\r\n" + "X-Pad: " + "x" * 4_000_000)
    except OSError:
        pass  # refused before all of it was read
    assert pair.client.read_response().status == 502


def test_bytes_after_an_answer_belong_to_nobody(gateway, server, prefix):
    """What an upstream says unasked must never become the answer to the next request."""
    client = gateway.connect()
    client.send(request_bytes("GET", prefix + "/1"))
    first = server.accept()
    first.read_request()
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    assert client.read_response().body == b"1"
    client.send(request_bytes("GET", prefix + "/2"))
    second = server.accept()
    assert second.read_head().line == b"GET /2 HTTP/1.1"
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
    assert client.read_response().body == b"2"


def test_two_framings_never_reach_the_client(pair):
    pair.ask().send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"both")
    )
    try:
        answer = pair.client.read_response()
    except Broken:
        raise AssertionError("the client was told two framings") from None
    if answer.status == 200:
        assert answer.body == b"both"
        assert not ("content-length" in answer.head and "transfer-encoding" in answer.head)
    else:
        assert answer.status == 502


# -- nobody there


def test_refused_connection_is_502(gateway):
    with RawServer() as gone:
        prefix = gateway.route(gone.url)
    answer = gateway.get(prefix + "/")
    assert (answer.status, answer.header("x-apiproxy-error")) == (502, "upstream_error")


def test_unknown_name_is_502(gateway):
    answer = gateway.get(gateway.route("http://no-such-host.invalid") + "/")
    assert (answer.status, answer.header("x-apiproxy-error")) == (502, "upstream_error")


def test_plain_upstream_where_tls_was_meant(gateway, server):
    prefix = gateway.route(f"https://127.0.0.1:{server.port}")
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/", [], b"secret"))
    upstream = server.accept()
    upstream.send("HTTP/1.1 400 This is plain\r\n\r\n")
    upstream.close()
    assert client.read_response().status == 502
