"""Tricks of clients and vendors: what is malformed or means two things goes no further, and what one has
said is never another's."""

from __future__ import annotations

import time

import pytest

from support.wire import Broken, Closed, request_bytes

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def serve(server, prefix, client, raw, answer=OK):
    client.send(raw)
    upstream = server.accept()
    request = upstream.read_request()
    upstream.send(answer)
    return upstream, request


# ---- requests that must be refused; nothing of them reaches an upstream

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


# ---- answers of vendors that lie

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
    ).encode()
    upstream.send(
        b"HTTP/1.1 200 Fine\r\nConnection: x-a,\tx-b\r\nConnection: date\r\nX-A: 1\r\nX-B: 2\r\nDate: yesterday\r\nKeep-Alive: 3\r\n"
        b"Proxy-Authenticate: Basic\r\nTrailer: x\r\nUpgrade: h2c\r\nSet-Cookie: a\r\nset-cookie: b\r\nX-C: \r\nContent-Length: 0\r\n\r\n"
    )
    got = client.read_response()
    names = [n.lower() for n, _ in got.head.fields]
    assert got.head.all("set-cookie") == ["a", "b"]
    assert not {b"connection", b"x-a", b"x-b", b"keep-alive", b"trailer", b"upgrade"} & set(names), got.head.raw
    assert got.header("date") != "yesterday"


def test_connection_may_name_many(gateway, server, prefix):
    """All that a head has room for, from either side, in any order and case."""
    ours = [(f"X-{'ab'[n % 2]}{n * 7 % 90}", "1") for n in range(90)] + [("X-Stays", "2")]
    named = ", ".join([f"not-there-{n}" for n in range(900)] + [n.upper() for n, _ in ours[:-1]] + ["Host", "Content-Length"])
    client = gateway.connect()
    client.send(request_bytes("POST", prefix, [*ours, ("Connection", named)], b"body"))
    upstream = server.accept()
    request = upstream.read_request()
    assert request.head.without("host") == [(b"X-Stays", b"2"), (b"Content-Length", b"4")] and request.body == b"body"
    fields = "".join(f"{n}: {v}\r\n" for n, v in ours)
    upstream.send(f"HTTP/1.1 200 OK\r\n{fields}Connection: {named}\r\nContent-Length: 2\r\n\r\nok")
    answer = client.read_response()
    assert answer.head.without("date") == [(b"X-Stays", b"2"), (b"Content-Length", b"2")] and answer.body == b"ok"


def test_connection_close_with_others_is_heard(gateway, server, prefix):
    client = gateway.connect()
    upstream, request = serve(server, prefix, client, request_bytes("GET", prefix, [("Connection", "x-foo, close"), ("X-Foo", "1")]))
    assert "x-foo" not in request.head and "connection" not in request.head
    got = client.read_response()
    assert got.header("connection") == "close"
    assert client.wait_end(3) == "fin"


# ---- websocket

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
