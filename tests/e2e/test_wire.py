"""Both sides of a conversation by the byte: what must pass is sent cut at every place, what must be
refused is a table."""

from __future__ import annotations

import os
import re
import socket
import time

import pytest

from support.wire import Broken, Closed, RawClient, RawServer, chunk, chunked, request_bytes

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def serve(server, prefix, client, raw, answer=OK):
    client.send(raw)
    upstream = server.accept()
    request = upstream.read_request()
    upstream.send(answer)
    return upstream, request


# ---- requests that must be refused; nothing of them reaches an upstream

HOST = b"Host: x\r\n"


def head(line, *fields, end=b"\r\n"):
    return line + b"\r\n" + b"".join(f + b"\r\n" for f in fields) + end


REFUSED = {
    "cl.te": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "te.cl": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked", b"Content-Length: 4") + b"0\r\n\r\n",
    "te.te": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "te identity": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: identity"),
    "te gzip, chunked": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "te chunked, chunked": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    "te chunked;q": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked;q=1") + b"0\r\n\r\n",
    "te xchunked": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "te empty": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding:") + b"0\r\n\r\n",
    "te quoted": head(b"POST {p} HTTP/1.1", b"Host: x", b'Transfer-Encoding: "chunked"') + b"0\r\n\r\n",
    "te vtab": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n",
    "te ff": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked\x0c") + b"0\r\n\r\n",
    "te nbsp": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: \xa0chunked") + b"0\r\n\r\n",
    "te comma": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding: ,chunked") + b"0\r\n\r\n",
    "te named by connection": head(b"POST {p} HTTP/1.1", b"Host: x", b"Connection: transfer-encoding", b"Transfer-Encoding: chunked", b"Content-Length: 3") + b"0\r\n\r\n",
    "cl named by connection": head(b"POST {p} HTTP/1.1", b"Host: x", b"Connection: content-length", b"Transfer-Encoding: chunked", b"Content-Length: 3") + b"0\r\n\r\n",
    "te 1.0": head(b"POST {p} HTTP/1.0", b"Host: x", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "te space colon": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding : chunked") + b"0\r\n\r\n",
    "te tab colon": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding\t: chunked") + b"0\r\n\r\n",
    "te folded": head(b"POST {p} HTTP/1.1", b"Host: x", b"Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n",
    "fold": head(b"GET {p} HTTP/1.1", b"Host: x", b"X: a", b" b"),
    "fold tab": head(b"GET {p} HTTP/1.1", b"Host: x", b"X: a", b"\tb"),
    "first line folded": head(b"GET {p} HTTP/1.1", b" Host: x", b"Host: x"),
    "cl twice": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 1", b"Content-Length: 1") + b"a",
    "cl list": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 1, 1") + b"a",
    "cl plus": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: +1") + b"a",
    "cl minus": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: -1") + b"a",
    "cl hex": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 0x1") + b"a",
    "cl empty": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length:") + b"a",
    "cl blank inside": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 1 1") + b"a",
    "cl underscore": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 1_0") + b"a",
    "cl decimal": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 1.0") + b"a",
    "cl huge": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 99999999999999999999") + b"a",
    "cl 2^63": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 9223372036854775808") + b"a",
    "cl 2^64": head(b"POST {p} HTTP/1.1", b"Host: x", b"Content-Length: 18446744073709551617") + b"a",
    "cl other digits": head(b"POST {p} HTTP/1.1", b"Host: x", "Content-Length: \u0661".encode()) + b"a",
    "no host": head(b"GET {p} HTTP/1.1"),
    "two hosts": head(b"GET {p} HTTP/1.1", b"Host: x", b"Host: x"),
    "host space": head(b"GET {p} HTTP/1.1", b"Host: x y"),
    "host slash": head(b"GET {p} HTTP/1.1", b"Host: x/y"),
    "host user": head(b"GET {p} HTTP/1.1", b"Host: u@x"),
    "host port": head(b"GET {p} HTTP/1.1", b"Host: x:99999"),
    "host port text": head(b"GET {p} HTTP/1.1", b"Host: x:a"),
    "host list": head(b"GET {p} HTTP/1.1", b"Host: x:1,y:2"),
    "host bracket": head(b"GET {p} HTTP/1.1", b"Host: [::1"),
    "host question": head(b"GET {p} HTTP/1.1", b"Host: x?y"),
    "host 1.0 twice": head(b"GET {p} HTTP/1.0", b"Host: x", b"Host: y"),
    "host nul": head(b"GET {p} HTTP/1.1", b"Host: x\0"),
    "nul in value": head(b"GET {p} HTTP/1.1", b"Host: x", b"X: a\0b"),
    "nul in name": head(b"GET {p} HTTP/1.1", b"Host: x", b"X\0: a"),
    "nul in target": head(b"GET {p}\0 HTTP/1.1", b"Host: x"),
    "nul in method": head(b"G\0T {p} HTTP/1.1", b"Host: x"),
    "bare cr in value": head(b"GET {p} HTTP/1.1", b"Host: x", b"X: a\rY: b"),
    "bare cr before end": head(b"GET {p} HTTP/1.1", b"Host: x", b"X: a\r"),
    "bare cr in line": head(b"GET {p}\r HTTP/1.1", b"Host: x"),
    "bare cr after version": head(b"GET {p} HTTP/1.1\r", b"Host: x"),
    "bare cr as line end": b"GET {p} HTTP/1.1\rHost: x\r\rX: y\r\n\r\n",
    "cr line": head(b"GET {p} HTTP/1.1", b"Host: x", b"\r"),
    "no colon": head(b"GET {p} HTTP/1.1", b"Host: x", b"Foo"),
    "empty name": head(b"GET {p} HTTP/1.1", b"Host: x", b": a"),
    "name space": head(b"GET {p} HTTP/1.1", b"Host: x", b"A B: a"),
    "name brackets": head(b"GET {p} HTTP/1.1", b"Host: x", b"A[]: a"),
    "name 8 bit": head(b"GET {p} HTTP/1.1", b"Host: x", b"A\xe9: a"),
    "name quote": head(b"GET {p} HTTP/1.1", b"Host: x", b'A": a'),
    "method brackets": head(b"G(T {p} HTTP/1.1", b"Host: x"),
    "method empty": head(b" {p} HTTP/1.1", b"Host: x"),
    "method colon": head(b"GET: {p} HTTP/1.1", b"Host: x"),
    "two spaces": head(b"GET  {p} HTTP/1.1", b"Host: x"),
    "two spaces 2": head(b"GET {p}  HTTP/1.1", b"Host: x"),
    "tab": head(b"GET\t{p} HTTP/1.1", b"Host: x"),
    "tab 2": head(b"GET {p}\tHTTP/1.1", b"Host: x"),
    "space in target": head(b"GET {p}/a b HTTP/1.1", b"Host: x"),
    "space after version": head(b"GET {p} HTTP/1.1 ", b"Host: x"),
    "no version": head(b"GET {p}", b"Host: x"),
    "version lower": head(b"GET {p} http/1.1", b"Host: x"),
    "version 1.": head(b"GET {p} HTTP/1.", b"Host: x"),
    "version 1.10": head(b"GET {p} HTTP/1.10", b"Host: x"),
    "version 01.1": head(b"GET {p} HTTP/01.1", b"Host: x"),
    "version XTTP": head(b"GET {p} XTTP/1.1", b"Host: x"),
    "del in target": head(b"GET {p}/\x7f HTTP/1.1", b"Host: x"),
    "ctl in target": head(b"GET {p}/\x01 HTTP/1.1", b"Host: x"),
    "no slash": head(b"GET x{p} HTTP/1.1", b"Host: x"),
    "dots": head(b"GET {p}/../a HTTP/1.1", b"Host: x"),
    "dot": head(b"GET {p}/./a HTTP/1.1", b"Host: x"),
    "dots end": head(b"GET {p}/.. HTTP/1.1", b"Host: x"),
    "dot end": head(b"GET {p}/. HTTP/1.1", b"Host: x"),
    "dots escaped": head(b"GET {p}/%2e%2E/a HTTP/1.1", b"Host: x"),
    "dots half": head(b"GET {p}/.%2e/a HTTP/1.1", b"Host: x"),
    "slash escaped": head(b"GET {p}/..%2fa HTTP/1.1", b"Host: x"),
    "slash escaped before": head(b"GET {p}%2f..%2Fa HTTP/1.1", b"Host: x"),
    "absolute dots": head(b"GET http://x{p}/../a HTTP/1.1", b"Host: x"),
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(gateway, server, prefix, name):
    raw = REFUSED[name].replace(b"{p}", prefix.encode())
    client = gateway.connect()
    client.send(raw + b"GET " + prefix.encode() + b"/smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = client.read_response()
    expected = {"http2": (400, 505)}.get(name, (400,))
    assert answer.status in expected, answer.head.raw
    if not (name.startswith(("dots", "dot", "slash", "absolute"))):
        assert client.read_to_end() == b"", "closed, and nothing of the rest answered"
        assert not server.pending(0.05), "nothing reaches an upstream"


BAD_CHUNKS = {
    "negative": b"-1\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n",
    "blank first": b" 5\r\nhello\r\n0\r\n\r\n",
    "blank behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "lf": b"5\nhello\r\n0\r\n\r\n",
    "lf behind data": b"5\r\nhello\n0\r\n\r\n",
    "lf at the end": b"5\r\nhello\r\n0\n\n",
    "cr alone": b"5\rhello\r\n0\r\n\r\n",
    "overflow": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "overflow 2": b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "overflow 3": b"8000000000000000\r\nhello\r\n0\r\n\r\n",
    "zeros": b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n",
    "long extension": b"5;" + b"a" * 70000 + b"\r\nhello\r\n0\r\n\r\n",
    "extension lf": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "extension cr": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "extension nul": b"5;a\0\r\nhello\r\n0\r\n\r\n",
    "underscore": b"5_\r\nhello\r\n0\r\n\r\n",
    "letter": b"5g\r\nhello\r\n0\r\n\r\n",
    "comma": b"5,\r\nhello\r\n0\r\n\r\n",
    "data longer": b"5\r\nhelloX\r\n0\r\n\r\n",
    "data shorter": b"5\r\nhell\r\n0\r\n\r\n",
    "trailer fold": b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
    "trailer no colon": b"5\r\nhello\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
    "trailer bare cr": b"5\r\nhello\r\n0\r\nA: b\rc\r\n\r\n",
    "trailer lf": b"5\r\nhello\r\n0\r\nA: b\n\r\n",
    "trailer nul": b"5\r\nhello\r\n0\r\nA: \0\r\n\r\n",
    "trailers endless": b"5\r\nhello\r\n0\r\n" + b"A: bbbbbbbbbbbbbbbb\r\n" * 10000,
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunk(gateway, server, prefix, name):
    client = gateway.connect()
    client.send(f"POST {prefix} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    upstream = server.accept()
    upstream.read_head()
    try:
        client.send(BAD_CHUNKS[name] + request_bytes("GET", prefix + "/smuggled"))
    except OSError:
        pass
    assert client.read_response().status == 400
    assert client.wait_end(5) in ("fin", "rst")
    with pytest.raises((Closed, Broken)):
        upstream.read_chunks()
    assert not server.pending(0.05)


# ---- what passes, cut everywhere


def exchange_cut(gateway, server, prefix, raw, cut, answer, method="GET", step=None):
    client = gateway.connect()
    client.send(raw[:cut])
    time.sleep(0.002)
    client.send(raw[cut:])
    upstream = server.accept()
    request = upstream.read_request()
    upstream.send(answer[0])
    time.sleep(0.002)
    if answer[1]:
        upstream.send(answer[1])
    got = client.read_response(method)
    client.close()
    upstream.close()
    return request, got


def test_request_cut_everywhere(gateway, server, prefix):
    body = b"5;x=\"y\"\r\nhello\r\n006\r\n world\r\n0\r\nT: v\r\n\r\n"
    raw = request_bytes("POST", prefix + "/a?b", [("Transfer-Encoding", "chunked"), ("X-A", "1")]) + body
    for cut in range(1, len(raw)):
        request, got = exchange_cut(gateway, server, prefix, raw, cut, (OK, b""))
        assert request.body == b"hello world" and request.framing == "chunked", cut
        assert request.head.line == b"POST /a?b HTTP/1.1"
        assert got.body == b"ok"


def test_answer_cut_everywhere(gateway, server, prefix):
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n"
        b"5;e\r\nhello\r\n6\r\n world\r\n0\r\nT: v\r\n\r\n"
    )
    raw = request_bytes("GET", prefix + "/a")
    client = gateway.connect()
    client.send(raw)
    upstream = server.accept()
    for cut in range(1, len(answer)):
        upstream.read_request()
        upstream.send(answer[:cut])
        time.sleep(0.002)
        upstream.send(answer[cut:])
        got = client.read_response()
        assert (got.status, got.body, got.framing, got.informational) == (201, b"hello world", "chunked", []), cut
        client.send(raw)
    upstream.read_request()
    upstream.send(OK)
    assert client.read_response().body == b"ok"


def test_both_by_single_bytes_pipelined(gateway, server, prefix):
    client = gateway.connect()
    raw = b"".join(request_bytes("POST", f"{prefix}/{n}", body=b"x" * n) for n in range(5))
    client.send_pieces(raw)
    upstream = server.accept()
    for n in range(5):
        request = upstream.read_request()
        assert request.target == f"/{n}" and request.body == b"x" * n
        upstream.send_pieces(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % n)
    for n in range(5):
        assert client.read_response().body == b"%d" % n


# ---- answers of vendors that lie

BAD_ANSWERS = {
    "cl differ": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "cl list differ": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
    "cl minus": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nabc",
    "cl plus": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nabc",
    "cl hex": b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nabc",
    "cl empty": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nabc",
    "cl huge": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
    "cl text": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nabc",
    "cl bad with te": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "te unknown": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "101 unasked": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nabc",
    "garbage": b"abc def ghi\r\n\r\n",
    "http/0.9": b"<html>\r\n\r\n",
    "http/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "status short": b"HTTP/1.1 20 OK\r\n\r\n",
    "status 4 digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 0": b"HTTP/1.1 000 OK\r\n\r\n",
    "status minus": b"HTTP/1.1 -20 OK\r\n\r\n",
    "space colon": b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "nul": b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n",
    "bare cr": b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    "huge head": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(180)) + b"\r\n",
    "huge line": b"HTTP/1.1 200 " + b"a" * 200000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answer(gateway, server, prefix, name):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix))
    upstream = server.accept()
    upstream.read_request()
    try:
        upstream.send(BAD_ANSWERS[name])
    except OSError:
        pass
    answer = client.read_response()
    assert answer.status == 502 and answer.header("x-apiproxy-error") == "upstream_error", answer.head.raw
    assert upstream.wait_end(2) in ("fin", "rst")
    client.send(request_bytes("GET", prefix))
    server.accept().read_request()


NOT_KEPT = {
    "two answers": OK + OK,
    "bytes behind length": OK + b"x",
    "bytes behind chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + OK,
    "bytes behind 204": b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello",
    "bytes behind 304": b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\nhello",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "close": b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
    "close in the second": b"HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "length and end": b"HTTP/1.1 200 OK\r\n\r\nok",
}


@pytest.mark.parametrize("later", (False, True))
@pytest.mark.parametrize("name", NOT_KEPT)
def test_not_kept(gateway, server, prefix, name, later):
    """An answer behind an answer is nobody's."""
    client = gateway.connect()
    client.send(request_bytes("GET", prefix))
    upstream = server.accept()
    upstream.read_request()
    answer = NOT_KEPT[name]
    if later and answer.startswith(OK):
        upstream.send(answer[: len(OK)])
        time.sleep(0.05)
        upstream.send(answer[len(OK) :])
    else:
        upstream.send(answer)
    if name == "length and end":
        upstream.half_close()
    got = client.read_response()
    assert got.body in (b"ok", b"")
    assert upstream.wait_end(2) in ("fin", "rst")
    client.send(request_bytes("GET", prefix + "/next"))
    other = server.accept()
    assert other.read_request().target == "/next"
    other.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
    assert client.read_response().body == b"mine"


def test_body_behind_head_answer(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("HEAD", prefix))
    upstream = server.accept()
    upstream.read_request()
    upstream.send(OK)
    got = client.read_response("HEAD")
    assert got.header("content-length") == "2"
    assert upstream.wait_end(2) in ("fin", "rst")
    client.send(request_bytes("GET", prefix))
    other = server.accept()
    other.read_request()
    other.send(OK)
    assert client.read_response().body == b"ok"


@pytest.mark.parametrize("status", (204, 304))
def test_lengths_without_body(gateway, server, prefix, status):
    client = gateway.connect()
    for n in range(2):
        client.send(request_bytes("GET", prefix))
        upstream = server.accept() if not n else upstream
        upstream.read_request()
        upstream.send(b"HTTP/1.1 %d X\r\nContent-Length: 7\r\nETag: a\r\n\r\n" % status)
        got = client.read_response()
        assert (got.status, got.header("content-length"), got.header("etag")) == (status, "7", "a")


def test_interim_flood_ends_with_the_answer(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix))
    upstream = server.accept()
    upstream.read_request()
    upstream.send(b"HTTP/1.1 102 Processing\r\nX-Y: z\r\n\r\n" * 20000 + OK)
    got = client.read_response()
    assert got.status == 200 and got.informational == []


# ---- Expect


EXPECT = [("Expect", "100-continue"), ("Content-Length", "5")]


def test_continue_orders(gateway, server, prefix):
    client = gateway.connect()
    began = time.monotonic()
    client.send(request_bytes("POST", prefix, EXPECT))
    upstream = server.accept()
    assert upstream.read_head().get("expect") == "100-continue"
    assert client.silent(0.3)
    upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert time.monotonic() - began < 0.9
    client.send(b"hello")
    assert upstream.read_exactly(5) == b"hello"
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    got = client.read_response()
    assert got.status == 200 and got.informational == []
    client.send(request_bytes("POST", prefix, EXPECT))
    upstream.read_head()
    began = time.monotonic()
    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert 0.8 < time.monotonic() - began < 1.6
    client.send(b"hello")
    assert upstream.read_exactly(5) == b"hello"
    upstream.send(OK)
    assert client.read_response().status == 200


def test_continue_and_final_in_one_segment(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix, EXPECT))
    upstream = server.accept()
    upstream.read_head()
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    got = client.read_response()
    assert got.status == 403 and got.informational in ([], [100])
    assert got.header("connection") == "close"
    assert client.wait_end(5) == "fin"


def test_early_final_answer(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix, EXPECT))
    upstream = server.accept()
    upstream.read_head()
    upstream.send(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno")
    got = client.read_response()
    assert (got.status, got.body, got.informational) == (417, b"no", [])
    client.send(b"hello")
    assert client.wait_end(5) in ("fin", "rst")
    assert upstream.wait_end(2) in ("fin", "rst")


def test_client_that_does_not_wait(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix, EXPECT) + b"hello")
    upstream = server.accept()
    assert upstream.read_request().body == b"hello"
    time.sleep(1.2)
    upstream.send(OK)
    got = client.read_response()
    assert got.status == 200


# ---- hop by hop


def test_hop_by_hop_in_odd_cases(gateway, server, prefix):
    client = gateway.connect()
    client.send(
        (
            f"GET {prefix} HTTP/1.1\r\nHost: x\r\nConnection: X-Foo , keep-alive\r\nconnection:,,x-bar,\r\nCONNECTION: host, content-length\r\n"
            "X-FOO: 1\r\nx-bar: 2\r\nX-Bar-Not: 3\r\nKEEP-ALIVE: 5\r\nProxy-Connection: a\r\nproxy-authorization: b\r\n"
            "tE: trailers\r\nTrailer: c\r\nUpgrade: h2c\r\nX-Last:   spaced  \r\nX-Empty:\r\nX-Dup: 1\r\nx-dup: 2\r\nContent-Length: 0\r\n\r\n"
        )
    )
    upstream = server.accept()
    request = upstream.read_request()
    assert request.head.raw == (
        f"GET / HTTP/1.1\r\nHost: {server.host}\r\nX-Bar-Not: 3\r\nX-Last:   spaced\r\nX-Empty:\r\nX-Dup: 1\r\nx-dup: 2\r\nContent-Length: 0\r\n\r\n"
    ).encode() or request.head.raw == b""
    upstream.send(
        b"HTTP/1.1 200 Fine\r\nConnection: x-a,\tx-b\r\nConnection: date\r\nX-A: 1\r\nX-B: 2\r\nDate: yesterday\r\nKeep-Alive: 3\r\n"
        b"Proxy-Authenticate: Basic\r\nTrailer: x\r\nUpgrade: h2c\r\nSet-Cookie: a\r\nset-cookie: b\r\nX-C: \r\nContent-Length: 0\r\n\r\n"
    )
    got = client.read_response()
    names = [n.lower() for n, _ in got.head.fields]
    assert got.head.all("set-cookie") == ["a", "b"]
    assert not {b"connection", b"x-a", b"x-b", b"keep-alive", b"trailer", b"upgrade"} & set(names), got.head.raw
    assert got.header("date") != "yesterday"


def test_connection_close_with_others_is_heard(gateway, server, prefix):
    client = gateway.connect()
    upstream, request = serve(server, prefix, client, request_bytes("GET", prefix, [("Connection", "x-foo, close"), ("X-Foo", "1")]))
    assert "x-foo" not in request.head and "connection" not in request.head
    got = client.read_response()
    assert got.header("connection") == "close"
    assert client.wait_end(3) == "fin"


# ---- websocket

WEBSOCKET = [("Upgrade", "websocket"), ("Connection", "keep-alive, Upgrade"), ("Sec-WebSocket-Key", "a"), ("Sec-WebSocket-Version", "13")]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: b\r\n\r\n"


def open_socket(gateway, server, prefix, behind_request=b"", behind_answer=b"", fields=WEBSOCKET):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix, fields) + behind_request)
    upstream = server.accept()
    head_ = upstream.read_head()
    upstream.send(SWITCH + behind_answer)
    return client, upstream, head_


def test_websocket_with_bytes_right_behind(gateway, server, prefix):
    client, upstream, request = open_socket(gateway, server, prefix, b"up1", b"down1")
    assert request.get("upgrade") == "websocket" and request.all("connection") == ["Upgrade"]
    answer = client.read_head()
    assert answer.line.startswith(b"HTTP/1.1 101") and answer.get("upgrade") == "websocket"
    assert client.read_exactly(5) == b"down1"
    assert upstream.read_exactly(3) == b"up1"
    client.half_close()
    assert upstream.wait_end(1) == "fin"
    upstream.send(b"still")
    assert client.read_exactly(5) == b"still"
    upstream.close()
    assert client.wait_end(3) in ("fin", "rst")


def test_websocket_end_by_vendor(gateway, server, prefix):
    client, upstream, _ = open_socket(gateway, server, prefix)
    client.read_head()
    upstream.send(b"bye")
    upstream.close()
    assert client.read_exactly(3) == b"bye"
    assert client.wait_end(3) in ("fin", "rst")


def test_websocket_reset_by_client(gateway, server, prefix):
    client, upstream, _ = open_socket(gateway, server, prefix)
    client.read_head()
    client.reset()
    assert upstream.wait_end(1) in ("fin", "rst")


def test_only_websocket_is_switched_to(gateway, server, prefix):
    """What else the client offers is not tunnelled: a protocol that nobody checks."""
    fields = [("Upgrade", "websocket, h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]
    client = gateway.connect()
    client.send(request_bytes("GET", prefix, fields))
    upstream = server.accept()
    request = upstream.read_head()
    assert "h2c" not in (request.get("upgrade") or "") and "http2-settings" not in request
    upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    assert client.read_response().status == 502


def test_websocket_refused_stays_http(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix, WEBSOCKET))
    upstream = server.accept()
    upstream.read_head()
    upstream.send(OK)
    assert client.read_response().body == b"ok"
    client.send(request_bytes("GET", prefix))
    upstream.read_request()
    upstream.send(OK)
    assert client.read_response().body == b"ok"


# ---- heads at their limits


def head_of(prefix, bytes_=0, lines=0, line=0):
    """A request whose header section has this size (its lines with their ends), or this number of lines."""
    fields = [b"Host: x\r\n"]
    if lines:
        fields += [b"X-%d: y\r\n" % n for n in range(lines - 1)]
    left = bytes_ - sum(map(len, fields))
    n = 0
    while left > 0:
        size = left if left <= 1000 else min(900, left - 50)
        fields.append(b"X-Pad-%03d: " % n + b"a" * (size - 13) + b"\r\n")
        assert len(fields[-1]) == size, (size, len(fields[-1]))
        left -= size
        n += 1
    target = prefix.encode()
    request_line = b"GET %s HTTP/1.1\r\n"
    if line:
        target += b"/" + b"a" * (line - len(request_line % target) + 2 - 1)
    raw = request_line % target
    assert not line or len(raw) == line + 2
    return raw + b"".join(fields) + b"\r\n"


@pytest.mark.parametrize("piece", (0, 997))
@pytest.mark.parametrize(
    "shape, status",
    (
        ({"bytes_": 16 * 1024, "lines": 50}, 200),
        ({"lines": 100}, 200),
        ({"bytes_": 16 * 1024, "lines": 70, "line": 16384}, 200),
        ({"bytes_": 32 * 1024}, 200),
        ({"lines": 200}, 200),
        ({"line": 32 * 1024}, 200),
        ({"bytes_": 32 * 1024 + 20}, 431),
        ({"lines": 201}, 431),
        ({"bytes_": 200 * 1024}, 431),
        ({"line": 32 * 1024 + 1}, 414),
        ({"line": 200 * 1024}, 414),
    ),
)
def test_sizes_of_heads(gateway, server, prefix, shape, status, piece):
    raw = head_of(prefix, **shape)
    client = gateway.connect()
    try:
        if piece:
            client.send_pieces(raw, piece)
        else:
            client.send(raw)
    except OSError:
        pass
    if status == 200:
        upstream = server.accept()
        got = upstream.read_request().head
        assert got.without("host") == [(f.split(b": ")[0], f.split(b": ")[1]) for f in raw.split(b"\r\n")[2:-2]]
        upstream.send(OK)
    assert client.read_response().status == status
    if status != 200:
        assert client.wait_end(5) == "fin" and not server.pending(0)


def test_answers_of_16k_and_100_lines_pass(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix))
    upstream = server.accept()
    upstream.read_request()
    fields = b"".join(b"X-%02d: %s\r\n" % (n, b"a" * 300) for n in range(98)) + b"Big: " + b"b" * 20000 + b"\r\n"
    upstream.send(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n")
    assert len(client.read_response().head.fields) == 101


# ---- ends


@pytest.mark.parametrize("how", ("fin", "rst"))
@pytest.mark.parametrize("phase", ("no answer", "in request body", "in chunked body", "waiting to go on", "after head", "in answer body", "stuck"))
def test_client_goes_at_any_time(gateway, server, prefix, phase, how):
    client = gateway.connect()
    body = {
        "in request body": ("Content-Length", "50"),
        "in chunked body": ("Transfer-Encoding", "chunked"),
        "waiting to go on": ("Content-Length", "51"),
    }.get(phase)
    fields = [body] if body else []
    if phase == "waiting to go on":
        fields.append(("Expect", "100-continue"))
    client.send(request_bytes("POST" if body else "GET", prefix, fields))
    if phase in ("in request body", "in chunked body"):
        client.send(b"5\r\nhello\r\n")
    upstream = server.accept()
    upstream.read_head()
    if phase in ("after head", "in answer body", "stuck"):
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.read_head()
    if phase == "in answer body":
        upstream.send(chunk(b"hello"))
        client.read_chunk()
    if phase == "stuck":
        upstream.send_until_blocked(chunk(b"a" * 65536), 0.3, 1 << 26)
    if how == "fin":
        client.half_close()
    else:
        client.reset()
    began = time.monotonic()
    upstream.wait_end(1)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("http", ("1.0", "1.1"))
@pytest.mark.parametrize("how", ("fin", "rst"))
@pytest.mark.parametrize("framing", ("length", "chunked", "close"))
def test_vendor_breaks_in_body(gateway, server, prefix, http, how, framing):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix, version="HTTP/" + http))
    upstream = server.accept()
    upstream.read_request()
    answer = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\nhello",
    }[framing]
    upstream.send(answer)
    time.sleep(0.1)
    if how == "fin":
        upstream.close()
    else:
        upstream.reset()
    if framing == "close" and how == "fin":
        assert client.read_response().body == b"hello"
    else:
        with pytest.raises((Broken, Closed)):
            client.read_response()


def test_bad_chunk_of_vendor_breaks_off(gateway, server, prefix):
    for bad in (b"zz\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n"):
        client = gateway.connect()
        client.send(request_bytes("GET", prefix))
        upstream = server.accept()
        upstream.read_request()
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.read_head()
        upstream.send(bad)
        with pytest.raises((Broken, Closed)):
            client.read_chunks()
        assert upstream.wait_end(2)


@pytest.mark.parametrize("method", ("GET", "PUT", "DELETE", "POST", "PATCH", "M-SEARCH"))
def test_dead_kept_connection(gateway, server, prefix, method):
    client = gateway.connect()
    upstream, _ = serve(server, prefix, client, request_bytes("GET", prefix))
    client.read_response()
    client.send(request_bytes(method, prefix + "/again", body=b"body"))
    upstream.read_request()
    upstream.close()
    if method in ("POST", "PATCH", "M-SEARCH"):
        assert client.read_response().status == 502
        assert not server.pending(0.1)
        return
    second = server.accept()
    request = second.read_request()
    assert request.body == b"body" and request.target == "/again"
    second.close()
    assert client.read_response().status == 502
    assert not server.pending(0.1)


def test_dead_kept_connection_after_interim_answer(gateway, server, prefix):
    """100 was an answer's byte: the request is not sent again."""
    client = gateway.connect()
    upstream, _ = serve(server, prefix, client, request_bytes("GET", prefix))
    client.read_response()
    client.send(request_bytes("PUT", prefix, body=b"body"))
    upstream.read_request()
    upstream.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    time.sleep(0.05)
    upstream.close()
    assert client.read_response().status == 502
    assert not server.pending(0.1)


def test_upload_refused_early_is_answered(gateway, server, prefix):
    """413 in the middle of a large upload, and a reset: the answer still arrives."""
    client = gateway.connect()
    client.send(request_bytes("POST", prefix, [("Content-Length", str(1 << 30))]))
    upstream = server.accept()
    upstream.read_head()
    client.send_until_blocked(b"a" * 65536, 0.3, 1 << 26)
    upstream.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
    got = client.read_response()
    assert (got.status, got.body) == (413, b"big")


# ---- fields added


def test_what_is_added(gateway, server, prefix):
    client = gateway.connect()
    upstream, _ = serve(server, prefix, client, request_bytes("GET", prefix), b"HTTP/1.1 200 Whatever\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nContent-Length: 0\r\n\r\n")
    got = client.read_response().head
    assert got.get("x-accel-buffering") == "no" and re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", got.get("date"))
    assert [n for n, _ in got.fields if n.lower() not in (b"date", b"x-accel-buffering")] == [b"Content-Type", b"Content-Length"]
    client.send(request_bytes("GET", prefix))
    upstream.read_request()
    upstream.send(b"HTTP/1.1 200 Whatever\r\nContent-Type: text/event-streams\r\nDate: then\r\nContent-Length: 0\r\n\r\n")
    got = client.read_response().head
    assert got.without() == [(b"Content-Type", b"text/event-streams"), (b"Date", b"then"), (b"Content-Length", b"0")]


# ---- routing

TARGETS = (
    ("{p}", "/"),
    ("{p}?", "/?"),
    ("{p}?x=/../%00", "/?x=/../%00"),
    ("{p}/", "/"),
    ("{p}//a//", "//a//"),
    ("{p}/a%2Fb%00%zz", "/a%2Fb%00%zz"),
    ("{p}/...", "/..."),
    ("{p}/.a/a./..a", "/.a/a./..a"),
    ("{p}/a;b=1/..;/c", "/a;b=1/..;/c"),
    ("{p}/\xff\xfe", "/\xff\xfe"),
    ("{p}/a\\..\\b", "/a\\..\\b"),
    ("{p}/a#frag", "/a#frag"),
    ("http://other.example{p}/a", "/a"),
    ("HTTPS://u:p@other.example:1{p}?q", "/?q"),
    ("{p}/\"<>^`{|}", "/\"<>^`{|}"),
)


@pytest.mark.parametrize("asked, got", TARGETS)
def test_targets(gateway, server, prefix, asked, got):
    client = gateway.connect()
    client.send(f"GET {asked.replace('{p}', prefix)} HTTP/1.1\r\nHost: x\r\n\r\n")
    upstream = server.accept()
    assert upstream.read_head().line == f"GET {got} HTTP/1.1".encode("latin-1")


@pytest.mark.parametrize("asked", ("{p}x", "{p}%2fa", "/{p}", "//x{p}", "/a{p}", "{P}", "http://x", "http://x?{p}"))
def test_not_matched(gateway, server, prefix, asked):
    client = gateway.connect()
    client.send(f"GET {asked.replace('{p}', prefix).replace('{P}', prefix.upper())} HTTP/1.1\r\nHost: x\r\n\r\n")
    status = client.read_response().status
    assert status in ((200, 404) if asked == "http://x" or "?" in asked else (404,))
    assert not server.pending(0.02)


@pytest.mark.parametrize("method", ("get", "X!#$%&'*+-.^_`|~", "PROPFIND", "TRACE", "A" * 1000))
def test_any_method(gateway, server, prefix, method):
    client = gateway.connect()
    client.send(f"{method} {prefix} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert server.accept().read_head().line == f"{method} / HTTP/1.1".encode()


def test_connect_and_star(gateway, server, prefix):
    assert gateway.request("CONNECT", "example.com:443").status == 405
    assert gateway.request("CONNECT", prefix).status == 405
    assert gateway.request("OPTIONS", "*").status == 404
    assert gateway.request("GET", "*").status == 400


# ---- HTTP/1.0


def test_http10_keep_alive(gateway, server, prefix):
    client = gateway.connect()
    raw = f"GET {prefix} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode()
    upstream, request = serve(server, prefix, client, raw)
    assert request.head.raw == f"GET / HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode()
    got = client.read_response()
    assert got.header("connection") == "keep-alive"
    client.send(raw)
    upstream.read_request()
    upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"one", b"two"))
    got = client.read_response()
    assert (got.framing, got.body) == ("close", b"onetwo")


def test_http10_expect_is_not_heard(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix, EXPECT, version="HTTP/1.0"))
    upstream = server.accept()
    upstream.read_head()
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.silent(1.3)
