"""Expect: 100-continue is end to end."""

from __future__ import annotations

import time

import pytest

from support.wire import Broken, chunked, request_bytes

EXPECT = ("Expect", "100-continue")


def ask(gateway, server, prefix, framing="length"):
    """The head is sent and has arrived; no byte of the body was sent."""
    client = gateway.connect()
    header = ("Content-Length", "5") if framing == "length" else ("Transfer-Encoding", "chunked")
    client.send(request_bytes("POST", prefix + "/", [EXPECT, header]))
    upstream = server.accept()
    head = upstream.read_head()
    assert head.get("expect", "").lower() == "100-continue"
    return client, upstream, head


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_client_goes_on_when_the_upstream_says_so(gateway, server, prefix, framing):
    client, upstream, head = ask(gateway, server, prefix, framing)
    assert client.silent(0.3), "nobody has said so yet"
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n")
    assert client.read_head().line.startswith(b"HTTP/1.1 100")
    client.send(b"hello" if framing == "length" else chunked(b"hello"))
    assert upstream.read_request_body(head) == (b"hello", framing)
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    answer = client.read_response()
    assert (answer.status, answer.body, answer.informational) == (200, b"ok", [])


def test_client_goes_on_after_a_second_of_silence(gateway, server, prefix):
    began = time.monotonic()
    client, upstream, head = ask(gateway, server, prefix)
    assert client.read_head().line.startswith(b"HTTP/1.1 100")
    assert 0.8 < time.monotonic() - began < 2
    client.send(b"hello")
    assert upstream.read_request_body(head)[0] == b"hello"
    upstream.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer.informational) == (200, []), "told once is enough"


@pytest.mark.parametrize("status", [401, 413, 417, 200])
def test_early_final_answer_reaches_the_client(gateway, server, prefix, status):
    client, upstream, _ = ask(gateway, server, prefix)
    upstream.send(f"HTTP/1.1 {status} Early\r\nContent-Length: 2\r\n\r\nno")
    answer = client.read_response()
    assert (answer.status, answer.body, answer.informational) == (status, b"no", [])


def test_body_sent_without_waiting(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/", [EXPECT], b"hello"))
    upstream = server.accept()
    head = upstream.read_head()
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n")
    assert upstream.read_request_body(head)[0] == b"hello"
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert client.read_response().body == b"ok"


def test_hang_up_while_waiting(gateway, server, prefix):
    client, upstream, head = ask(gateway, server, prefix)
    client.close()
    with pytest.raises(Broken):
        upstream.set_timeout(1)
        upstream.read_request_body(head)


def test_upstream_ends_while_waiting(gateway, server, prefix):
    client, upstream, _ = ask(gateway, server, prefix)
    upstream.close()
    answer = client.read_response()
    assert (answer.status, answer.header("x-apiproxy-error")) == (502, "upstream_error")


def test_connection_serves_again_afterwards(gateway, server, prefix):
    client, upstream, head = ask(gateway, server, prefix)
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n")
    client.read_head()
    client.send(b"hello")
    upstream.read_request_body(head)
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n")
    assert client.read_response().status == 204
    client.send(request_bytes("GET", prefix + "/next"))
    assert upstream.read_head().line == b"GET /next HTTP/1.1"


def test_unmapped_path_answers_at_once(gateway):
    client = gateway.connect()
    client.send(request_bytes("POST", "/nowhere", [EXPECT, ("Content-Length", "5")]))
    answer = client.read_response()
    assert (answer.status, answer.informational) == (404, [])
