"""Ends that come too early, from either side."""

from __future__ import annotations

import select
import socket
import time

import pytest

from support.process import eventually
from support.wire import Broken, Closed, RawServer, chunk, request_bytes

CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WITHIN = 1.0


HOW = {"fin": lambda client: client.close(), "rst": lambda client: client.reset(), "half": lambda client: client.half_close()}


# -- the client goes


@pytest.mark.parametrize("how", HOW)
def test_hang_up_while_the_upstream_is_silent(gateway, server, prefix, how):
    client, upstream = gateway.begin(server, prefix + "/")
    HOW[how](client)
    assert upstream.wait_end(WITHIN)


@pytest.mark.parametrize("how", HOW)
def test_hang_up_in_a_silent_body(gateway, server, prefix, how):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(CHUNKED + "2\r\nhi\r\n")
    client.read_response_head()
    assert client.read_chunk() == b"hi"
    HOW[how](client)
    assert upstream.wait_end(WITHIN)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_hang_up_after_a_whole_body(gateway, server, prefix, how):
    client, upstream = gateway.begin(server, prefix + "/", "POST", body=b"all of it")
    upstream.read_exactly(9)
    HOW[how](client)
    assert upstream.wait_end(WITHIN)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_hang_up_in_an_upload(gateway, server, prefix, how):
    client, upstream = gateway.begin(server, prefix + "/", "POST", headers=[("Transfer-Encoding", "chunked")])
    client.send(chunk(b"part"))
    assert upstream.read_chunk() == b"part"
    HOW[how](client)
    with pytest.raises(Closed):
        upstream.set_timeout(WITHIN)
        upstream.read_chunk()


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_hang_up_with_a_full_download(gateway, how):
    """The client does not read, all buffers are full, the upstream waits to write."""
    with RawServer(send_buffer=16384) as server:
        prefix = gateway.route(server.url)
        client, upstream = gateway.begin(server, prefix + "/", receive_buffer=4096)
        upstream.send("HTTP/1.1 200 OK\r\n\r\n")
        client.read_response_head()
        upstream.send_until_blocked(b"x" * 65536, quiet=0.2)
        HOW[how](client)
        deadline = time.monotonic() + WITHIN
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                upstream.set_timeout(WITHIN)
                upstream.send(b"x" * 65536)
            raise AssertionError("the upstream can still write")


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_hang_up_with_a_full_upload(gateway, how):
    """The upstream does not read, all buffers are full, the client goes."""
    with RawServer(receive_buffer=4096) as server:
        prefix = gateway.route(server.url)
        client, upstream = gateway.begin(server, prefix + "/", "POST", headers=[("Content-Length", str(1 << 30))])
        client.send_until_blocked(b"x" * 65536, quiet=0.2)
        HOW[how](client)
        if how == "rst":
            assert upstream.wait_end(WITHIN)
        else:  # a clean end comes behind what is still in the buffers
            assert upstream.wait_end(5)


def told_unread(upstream, seconds: float) -> bool:
    """Whether the end has come, to someone who watches and reads nothing."""
    watch = select.poll()
    watch.register(upstream.sock, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(watch.poll(seconds * 1000))


@pytest.fixture(params=["http", "https"])
def slow_server(request, authority):
    """An upstream with little room, that reads when the test does."""
    context = authority.server_context("localhost") if request.param == "https" else None
    with RawServer(receive_buffer=4096, tls=context) as raw:
        yield raw


def unread_upload(gateway, server, fields, body: bytes):
    """Both ends of an upload that is in the kernel's buffers on the way to an upstream that reads none of it."""
    client, upstream = gateway.begin(server, gateway.route(server.url) + "/", "POST", fields)
    client.send(body)
    time.sleep(0.3)
    return client, upstream


@pytest.mark.parametrize("length", [500_000, 600_000], ids=["all of it", "not all of it"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_hang_up_with_an_upload_that_nobody_reads(gateway, slow_server, how, length):
    client, upstream = unread_upload(gateway, slow_server, [("Content-Length", str(length))], b"x" * 500_000)
    HOW[how](client)
    assert told_unread(upstream, WITHIN)


def test_bad_chunk_behind_an_upload_that_nobody_reads(gateway, slow_server):
    body = chunk(b"x" * 500_000) + b"no size\r\n"
    client, upstream = unread_upload(gateway, slow_server, [("Transfer-Encoding", "chunked")], body)
    assert client.read_response().status == 400
    assert told_unread(upstream, WITHIN)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_hang_up_in_an_upload_that_is_read_is_an_orderly_end(gateway, server, prefix, how):
    client, upstream = gateway.begin(server, prefix + "/", "POST", headers=[("Content-Length", "600000")])
    client.send(b"x" * 500_000)
    upstream.read_exactly(500_000)
    HOW[how](client)
    assert upstream.wait_end(WITHIN) == "fin"


def test_an_answer_to_a_part_lets_the_rest_arrive(gateway, prefix, server):
    """Answered, the request is over; what of it is under way is not taken back."""
    client, upstream = gateway.begin(server, prefix + "/", "POST", body=b"x" * 500_000)
    time.sleep(0.3)
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    assert client.read_response().body == b"ok"
    assert len(upstream.read_exactly(500_000)) == 500_000
    assert upstream.wait_end(WITHIN) == "fin"


def test_a_gone_client_leaves_no_active_request(gateway, server, prefix):
    client, _ = gateway.begin(server, prefix + "/")
    eventually(lambda: gateway.get("/stats").json()["performance"]["active_requests"] >= 1, 3)
    client.close()
    eventually(lambda: gateway.get("/stats").json()["performance"]["active_requests"] == 0, 3)


@pytest.mark.concurrency
def test_many_hang_ups(gateway, server, prefix):
    pairs = [gateway.begin(server, prefix + "/") for _ in range(100)]
    for number, (client, _) in enumerate(pairs):
        HOW[("fin", "rst")[number % 2]](client)
    for _, upstream in pairs:
        assert upstream.wait_end(WITHIN * 3)


def test_kept_connection_is_not_reused_after_a_hang_up(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/")
    client.close()
    upstream.wait_end(WITHIN)
    other = gateway.connect()
    other.send(request_bytes("GET", prefix + "/next"))
    assert server.accept().read_head().line == b"GET /next HTTP/1.1"


# -- the upstream breaks off in the body

BREAKS = {"fin": lambda upstream: upstream.close(), "rst": lambda upstream: upstream.reset()}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("cut", ["5\r\nhel", "5\r\nhello\r\n", "5\r\nhello", "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n3", "", "5\r\nhello\r\nzz\r\n", "5\r\nhelloX"])
def test_broken_chunked_body(gateway, server, prefix, how, cut):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(CHUNKED)
    client.read_response_head()
    upstream.send(cut)
    BREAKS[how](upstream)
    with pytest.raises(Broken) as broken:
        client.read_chunks()
    assert b"hello".startswith(broken.value.body[:5])


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("part", ["", "h", "hell"])
def test_broken_body_with_a_length(gateway, server, prefix, how, part):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    client.read_response_head()
    upstream.send(part)
    BREAKS[how](upstream)
    with pytest.raises(Closed) as closed:
        client.read_exactly(5)
    assert part.encode().startswith(closed.value.got)


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_reset_of_a_body_until_the_end(gateway, server, prefix, version):
    client, upstream = gateway.begin(server, prefix + "/", version=version)
    upstream.send("HTTP/1.1 200 OK\r\nX-Len: none\r\n\r\npart")
    client.read_response_head()
    upstream.reset()
    with pytest.raises((Broken, Closed)):
        while True:
            if version == "HTTP/1.1":
                client.read_chunks()
                raise AssertionError("a clean end")
            if not client.read_some():
                raise AssertionError("a clean end")


@pytest.mark.parametrize("how", BREAKS)
def test_broken_chunks_for_an_http10_client_are_a_reset(gateway, server, prefix, how):
    client, upstream = gateway.begin(server, prefix + "/", version="HTTP/1.0")
    upstream.send(CHUNKED + "5\r\nhello\r\n")
    client.read_response_head()
    assert client.read_exactly(5) == b"hello"
    BREAKS[how](upstream)
    with pytest.raises(Closed) as closed:
        assert client.read_some() != b"", "a clean end"
    assert closed.value.how == "rst"


def test_broken_length_for_an_http10_client(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", version="HTTP/1.0")
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
    upstream.close()
    client.read_response_head()
    with pytest.raises(Closed):
        client.read_exactly(10)


def test_garbage_instead_of_a_chunk(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(CHUNKED + "2\r\nhi\r\n" + "not a size\r\n")
    client.read_response_head()
    with pytest.raises(Broken):
        client.read_chunks()


def test_upstream_resets_in_an_upload(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", "POST", headers=[("Content-Length", "1000000")])
    client.send(b"x" * 1000)
    upstream.reset()
    answer = client.read_response()
    assert (answer.status, answer.header("x-apiproxy-error")) == (502, "upstream_error")


# -- the mapping's own time limit


def test_timeout_before_an_answer_is_504(gateway, server):
    prefix = gateway.route(server.url, timeout_seconds=1)
    client, upstream = gateway.begin(server, prefix + "/")
    answer = client.read_response()
    assert (answer.status, answer.header("x-apiproxy-error")) == (504, "upstream_timeout")
    assert upstream.wait_end(WITHIN)


def test_timeout_in_a_body_breaks_it_off(gateway, server):
    prefix = gateway.route(server.url, timeout_seconds=1)
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(CHUNKED + "2\r\nhi\r\n")
    client.read_response_head()
    with pytest.raises(Broken):
        client.read_chunks()
    assert upstream.wait_end(WITHIN)


TIME_IS_UP = {
    "part of a head": ((), b"HTTP/1.1 200 OK\r\nX"),
    "a promise": ((), b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "an upload": ((("Content-Length", "100"),), b""),
    "an expectation": ((("Content-Length", "100"), ("Expect", "100-continue")), b""),
}


@pytest.mark.parametrize("begun", TIME_IS_UP)
def test_timeout_whatever_has_begun_is_504(gateway, server, begun):
    fields, said = TIME_IS_UP[begun]
    prefix = gateway.route(server.url, timeout_seconds=1)
    client = gateway.connect()
    client.send(request_bytes("POST" if fields else "GET", prefix, fields))
    upstream = server.accept()
    upstream.read_head()
    upstream.send(said)
    assert client.read_response().status == 504
    assert upstream.wait_end(1) in ("fin", "rst")


def test_timeout_while_the_client_reads_nothing(gateway, server):
    prefix = gateway.route(server.url, timeout_seconds=1)
    client = gateway.connect(receive_buffer=4096)
    client.send(request_bytes("GET", prefix))
    upstream = server.accept()
    upstream.read_head()
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    upstream.send_until_blocked(b"a" * 65536, 0.3)
    assert upstream.wait_end(2) in ("fin", "rst")


def test_timeout_spares_what_is_in_time(gateway, server):
    prefix = gateway.route(server.url, timeout_seconds=1)
    client = gateway.connect()
    upstream = None
    for _ in range(3):  # 1.5 s on the connection, 0.5 s each
        client.send(request_bytes("GET", prefix + "/"))
        upstream = upstream or server.accept()
        upstream.read_head()
        time.sleep(0.5)
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert client.read_response().status == 200


def test_connect_timeout(gateway):
    """A listener whose queue is full lets no connection in."""
    with RawServer(backlog=0) as full:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", full.port))
            fillers.append(filler)
        prefix = gateway.route(full.url, connect_timeout_seconds=1)
        answer = gateway.get(prefix + "/")
        for filler in fillers:
            filler.close()
    assert answer.status in (502, 504), "refused, or too late"
    assert answer.header("x-apiproxy-error") in ("upstream_error", "upstream_timeout")


# -- kept connections that ended: once more, or not


def kept(gateway, server, prefix):
    """A client and its upstream connection after one good exchange."""
    client, upstream = gateway.begin(server, prefix + "/first")
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.read_response().status == 200
    return client, upstream


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("method,body", [("GET", None), ("HEAD", None), ("OPTIONS", None), ("PUT", b"body"), ("DELETE", None), ("TRACE", None)])
def test_idempotent_request_is_sent_once_more(gateway, server, prefix, method, body, how):
    client, upstream = kept(gateway, server, prefix)
    client.send(request_bytes(method, prefix + "/again", [], body))
    assert upstream.read_request().target == "/again"
    BREAKS[how](upstream)
    second = server.accept()
    request = second.read_request()
    assert (request.method, request.target, request.body) == (method, "/again", body or b"")
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.read_response(method).status == 200


def test_once_more_is_once(gateway, server, prefix):
    client, upstream = kept(gateway, server, prefix)
    client.send(request_bytes("GET", prefix + "/again"))
    upstream.read_head()
    upstream.close()
    second = server.accept()
    second.read_head()
    second.close()
    answer = client.read_response()
    assert (answer.status, answer.header("x-apiproxy-error")) == (502, "upstream_error")
    assert not server.pending(0.1)


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("method", ["POST", "PATCH", "UNKNOWN"])
def test_post_is_never_sent_twice(gateway, server, prefix, method, how):
    client, upstream = kept(gateway, server, prefix)
    client.send(request_bytes(method, prefix + "/paid", [], b"money"))
    assert upstream.read_request().body == b"money"
    BREAKS[how](upstream)
    assert client.read_response().status == 502
    assert not server.pending(0.1)


def test_post_after_the_kept_connection_ended_goes_on_a_new_one(gateway, server, prefix):
    client, upstream = kept(gateway, server, prefix)
    upstream.close()
    time.sleep(0.1)  # the gateway has seen the end: nothing was sent, so nothing is sent twice
    client.send(request_bytes("POST", prefix + "/paid", [], b"money"))
    second = server.accept()
    assert second.read_request().body == b"money"
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.read_response().status == 200


def test_no_second_try_after_a_response_byte(gateway, server, prefix):
    client, upstream = kept(gateway, server, prefix)
    client.send(request_bytes("GET", prefix + "/again"))
    upstream.read_head()
    upstream.send("H")
    upstream.close()
    assert client.read_response().status == 502
    assert not server.pending(0.1)


def test_no_second_try_on_a_new_connection(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.close()
    assert client.read_response().status == 502
    assert not server.pending(0.1)
