"""Ambiguous and malformed requests: 400, closed, nothing reaches an upstream."""

from __future__ import annotations

import pytest

from support.wire import Broken, Closed, request_bytes

CHUNKED = "Transfer-Encoding: chunked\r\n"
HOST = "Host: g.test\r\n"
EMPTY = "0\r\n\r\n"

# {p} is a mapped prefix. What follows a bad head is what an attacker would hide there.
BAD_HEADS = {
    "length and chunked": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 5\r\n" + CHUNKED + "\r\n" + EMPTY,
    "chunked and length": "POST {p}/ HTTP/1.1\r\n" + HOST + CHUNKED + "Content-Length: 5\r\n\r\n" + EMPTY,
    "GET with both": "GET {p}/ HTTP/1.1\r\n" + HOST + CHUNKED + "Content-Length: 5\r\n\r\n" + EMPTY,
    "zero length and chunked": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 0\r\n" + CHUNKED + "\r\n" + EMPTY,
    "two lengths": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "two equal lengths": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "two lengths in a line": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 2, 2\r\n\r\nab",
    "length in words": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: two\r\n\r\nab",
    "negative length": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: -1\r\n\r\nab",
    "signed length": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: +2\r\n\r\nab",
    "hexadecimal length": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 0x2\r\n\r\nab",
    "empty length": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length:\r\n\r\nab",
    "length with a space": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 1 2\r\n\r\nab",
    "length with a fraction": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 2.0\r\n\r\nab",
    "length beyond 64 bits": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 18446744073709551618\r\n\r\nab",
    "length beyond 63 bits": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length: 9223372036854775808\r\n\r\nab",
    "gzip, chunked": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: gzip, chunked\r\n\r\n" + EMPTY,
    "chunked, gzip": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: chunked, gzip\r\n\r\n" + EMPTY,
    "chunked twice in a line": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: chunked, chunked\r\n\r\n" + EMPTY,
    "chunked twice": "POST {p}/ HTTP/1.1\r\n" + HOST + CHUNKED + CHUNKED + "\r\n" + EMPTY,
    "identity": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: identity\r\n\r\n",
    "identity and chunked": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: identity\r\n" + CHUNKED + "\r\n" + EMPTY,
    "unknown coding": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: x\r\n\r\n",
    "coding like chunked": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: xchunked\r\n\r\n" + EMPTY,
    "coding with a tail": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: chunked;q=1\r\n\r\n" + EMPTY,
    "coding with a vertical tab": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: \x0bchunked\r\n\r\n" + EMPTY,
    "coding in quotes": "POST {p}/ HTTP/1.1\r\n" + HOST + 'Transfer-Encoding: "chunked"\r\n\r\n' + EMPTY,
    "coding with a comma": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding: chunked,\r\n\r\n" + EMPTY,
    "empty coding": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding:\r\n\r\n",
    "chunked in HTTP/1.0": "POST {p}/ HTTP/1.0\r\n" + HOST + CHUNKED + "\r\n" + EMPTY,
    "no host": "GET {p}/ HTTP/1.1\r\nX: y\r\n\r\n",
    "two hosts": "GET {p}/ HTTP/1.1\r\n" + HOST + "Host: other\r\n\r\n",
    "two equal hosts": "GET {p}/ HTTP/1.1\r\n" + HOST + HOST + "\r\n",
    "two hosts in HTTP/1.0": "GET {p}/ HTTP/1.0\r\n" + HOST + HOST + "\r\n",
    "host with a space": "GET {p}/ HTTP/1.1\r\nHost: a b\r\n\r\n",
    "host with userinfo": "GET {p}/ HTTP/1.1\r\nHost: user@host\r\n\r\n",
    "host with a path": "GET {p}/ HTTP/1.1\r\nHost: host/path\r\n\r\n",
    "host with a query": "GET {p}/ HTTP/1.1\r\nHost: host?x\r\n\r\n",
    "host with a fragment": "GET {p}/ HTTP/1.1\r\nHost: host#x\r\n\r\n",
    "host with two ports": "GET {p}/ HTTP/1.1\r\nHost: host:1:2\r\n\r\n",
    "host with a wordy port": "GET {p}/ HTTP/1.1\r\nHost: host:http\r\n\r\n",
    "host with an open bracket": "GET {p}/ HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "host with a list": "GET {p}/ HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "host with a backslash": "GET {p}/ HTTP/1.1\r\nHost: a\\b\r\n\r\n",
    "method with a bracket": "G(T {p}/ HTTP/1.1\r\n" + HOST + "\r\n",
    "method with a colon": "G:T {p}/ HTTP/1.1\r\n" + HOST + "\r\n",
    "method with a high byte": "G\xc4T {p}/ HTTP/1.1\r\n" + HOST + "\r\n",
    "no method": " {p}/ HTTP/1.1\r\n" + HOST + "\r\n",
    "no version": "GET {p}/\r\n" + HOST + "\r\n",
    "no target": "GET HTTP/1.1\r\n" + HOST + "\r\n",
    "small letters in the version": "GET {p}/ http/1.1\r\n" + HOST + "\r\n",
    "version with a tail": "GET {p}/ HTTP/1.1x\r\n" + HOST + "\r\n",
    "version 1.10": "GET {p}/ HTTP/1.10\r\n" + HOST + "\r\n",
    "a fourth word": "GET {p}/ x HTTP/1.1\r\n" + HOST + "\r\n",
    "target without a slash": "GET x{p}/ HTTP/1.1\r\n" + HOST + "\r\n",
    "name with a space": "GET {p}/ HTTP/1.1\r\n" + HOST + "X Y: z\r\n\r\n",
    "name with a bracket": "GET {p}/ HTTP/1.1\r\n" + HOST + "X(Y): z\r\n\r\n",
    "name with a slash": "GET {p}/ HTTP/1.1\r\n" + HOST + "X/Y: z\r\n\r\n",
    "name with a high byte": "GET {p}/ HTTP/1.1\r\n" + HOST + "X\xc4: z\r\n\r\n",
    "name with DEL": "GET {p}/ HTTP/1.1\r\n" + HOST + "X\x7f: z\r\n\r\n",
    "empty name": "GET {p}/ HTTP/1.1\r\n" + HOST + ": z\r\n\r\n",
    "no colon": "GET {p}/ HTTP/1.1\r\n" + HOST + "nothing\r\n\r\n",
    "space before the colon": "GET {p}/ HTTP/1.1\r\n" + HOST + "X : z\r\n\r\n",
    "tab before the colon": "GET {p}/ HTTP/1.1\r\n" + HOST + "X\t: z\r\n\r\n",
    "space before a coding's colon": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding : chunked\r\n\r\n" + EMPTY,
    "space before a length's colon": "POST {p}/ HTTP/1.1\r\n" + HOST + "Content-Length : 2\r\n\r\nab",
    "space before the first name": "GET {p}/ HTTP/1.1\r\n X: z\r\n" + HOST + "\r\n",
    "folded with a space": "GET {p}/ HTTP/1.1\r\n" + HOST + "X: a\r\n b\r\n\r\n",
    "folded with a tab": "GET {p}/ HTTP/1.1\r\n" + HOST + "X: a\r\n\tb\r\n\r\n",
    "folded coding": "POST {p}/ HTTP/1.1\r\n" + HOST + "Transfer-Encoding:\r\n chunked\r\n\r\n" + EMPTY,
    "bare CR in a value": "GET {p}/ HTTP/1.1\r\n" + HOST + "X: a\rb\r\n\r\n",
    "bare CR before a field": "GET {p}/ HTTP/1.1\r\n" + HOST + "X: a\rContent-Length: 5\r\n\r\n",
    "bare CR in the line": "GET {p}/\r HTTP/1.1\r\n" + HOST + "\r\n",
    "bare CR at the end": "GET {p}/ HTTP/1.1\r\n" + HOST + "X: a\r\r\n\r\n",
    "NUL in a value": "GET {p}/ HTTP/1.1\r\n" + HOST + "X: a\0b\r\n\r\n",
    "NUL in a name": "GET {p}/ HTTP/1.1\r\n" + HOST + "X\0Y: b\r\n\r\n",
    "NUL in the target": "GET {p}/\0 HTTP/1.1\r\n" + HOST + "\r\n",
    "NUL in the method": "GE\0T {p}/ HTTP/1.1\r\n" + HOST + "\r\n",
    "control in the target": "GET {p}/a\x01b HTTP/1.1\r\n" + HOST + "\r\n",
    "tab in the target": "GET {p}/a\tb HTTP/1.1\r\n" + HOST + "\r\n",
    "DEL in the target": "GET {p}/a\x7fb HTTP/1.1\r\n" + HOST + "\r\n",
    "control in the query": "GET {p}/?a\x1fb HTTP/1.1\r\n" + HOST + "\r\n",
}

HIDDEN = b"GET {p}/hidden HTTP/1.1\r\nHost: h\r\n\r\n"


def ends_with_400(client) -> bytes:
    answer = client.read_response()
    assert answer.status == 400, answer.head.raw
    assert answer.header("x-apiproxy-error") == "bad_request"
    assert client.wait_end(5) in ("fin", "rst")
    return answer


@pytest.mark.parametrize("name", BAD_HEADS)
def test_bad_head(gateway, server, prefix, name):
    client = gateway.connect()
    raw = BAD_HEADS[name].replace("{p}", prefix).encode("latin-1")
    client.send(raw + HIDDEN.replace(b"{p}", prefix.encode()))
    ends_with_400(client)
    gateway.connect().send(request_bytes("GET", prefix + "/sentinel"))
    assert server.first_head().line == b"GET /sentinel HTTP/1.1"


@pytest.mark.parametrize("name", ["two lengths", "folded with a space", "no host", "bare CR in a value"])
def test_bad_head_after_a_good_request(gateway, server, prefix, name):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix + "/good"))
    upstream = server.accept()
    upstream.read_request()
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n")
    client.read_response()
    client.send(BAD_HEADS[name].replace("{p}", prefix).encode("latin-1"))
    ends_with_400(client)
    assert upstream.silent(0.05) or upstream.wait_end(1)


@pytest.mark.parametrize("name", ["chunked and length", "two equal lengths", "NUL in a value"])
def test_bad_head_on_an_unmapped_path_and_on_pages(gateway, name):
    for path in ("/nowhere", "/health"):
        client = gateway.connect()
        client.send(BAD_HEADS[name].replace("{p}", path).encode("latin-1"))
        ends_with_400(client)


BAD_CHUNKS = {
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "word for a size": b"five\r\nhello\r\n0\r\n\r\n",
    "negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "0x size": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size of all ones": b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "underscore in the size": b"5_0\r\nhello\r\n0\r\n\r\n",
    "data longer than its size": b"5\r\nhello!\r\n0\r\n\r\n",
    "no end after the data": b"5\r\nhello0\r\n\r\n",
    "LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "CR alone after the size": b"5\rhello\r\n0\r\n\r\n",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "NUL after the size": b"5\0\r\nhello\r\n0\r\n\r\n",
    "trailer without a colon": b"5\r\nhello\r\n0\r\nnothing\r\n\r\n",
    "folded trailer": b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunk_breaks_the_request_off(gateway, server, prefix, name):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/chunks", [("Transfer-Encoding", "chunked")]))
    upstream = server.accept()
    head = upstream.read_head()
    client.send(BAD_CHUNKS[name])
    with pytest.raises((Closed, Broken)):
        upstream.read_request_body(head)
    ends_with_400(client)


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunk_together_with_the_head(gateway, server, prefix, name):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/chunks", [("Transfer-Encoding", "chunked")]) + BAD_CHUNKS[name])
    ends_with_400(client)
    if server.pending(0.1):
        with pytest.raises((Closed, Broken)):
            server.accept().read_request()


def test_bad_chunk_after_good_ones(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/", [("Transfer-Encoding", "chunked")]) + b"5\r\nhello\r\n")
    upstream = server.accept()
    upstream.read_head()
    assert upstream.read_chunk() == b"hello"
    client.send("zz\r\n")
    with pytest.raises(Closed):
        upstream.read_chunk()
    ends_with_400(client)


def test_bad_chunk_after_the_answer_began_breaks_the_answer(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", "POST", [("Transfer-Encoding", "chunked")])
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    client.read_response_head()
    assert client.read_chunk() == b"first"
    client.send("zz\r\n")
    with pytest.raises(Closed):
        client.read_chunk()
    assert upstream.wait_end(2)


def test_short_body_breaks_the_request_off(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", "POST", [("Content-Length", "10")], b"12345")
    client.close()
    with pytest.raises(Closed):
        upstream.read_exactly(10)


def test_version_2_is_no_request(gateway):
    client = gateway.connect()
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert client.read_response().status in (400, 404, 405, 505)
    assert client.wait_end(5)
