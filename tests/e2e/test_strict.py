"""Section 3 at its edges: every moment of an end, every place where bytes may be cut, and what waits behind a handshake."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from support.gateway import Gateway
from support.process import eventually
from support.wire import Broken, Closed, RawServer, chunk, chunked, kernel_queues, request_bytes

KIB = 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def kept(gateway, server, prefix):
    """A client and an upstream connection that have served a request."""
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(OK)
    assert client.read_response().body == b"ok"
    return client, upstream


def answered_by_another(client, server, body: bytes):
    """What the client has sent comes whole on another upstream connection, and is answered."""
    second = server.accept()
    assert second.read_request().body == body
    second.send(OK)
    assert client.read_response().body == b"ok"


# -- what was sent before a break arrives before it


@pytest.mark.parametrize("version,framing", [("HTTP/1.1", "length"), ("HTTP/1.1", "chunked"), ("HTTP/1.0", "length")])
def test_slow_reader_gets_all_that_came_before_the_break(gateway, server, prefix, framing, version):
    client, upstream = gateway.begin(server, prefix + "/", receive_buffer=4 * KIB, version=version)
    part = b"p" * 200_000
    if framing == "length":
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + part)
    else:
        upstream.send(CHUNKED + chunk(part))
    time.sleep(0.3)
    upstream.close()
    time.sleep(0.3)
    with pytest.raises(Broken) as broken:
        client.read_response()
    assert broken.value.body.startswith(part)


# -- tunnels


def test_client_bytes_right_behind_the_upgrade_request(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("GET", prefix + "/ws", UPGRADE) + b"\x81\x02hi")
    upstream = server.accept()
    upstream.read_head()
    upstream.send(SWITCH)
    assert client.read_head().line.startswith(b"HTTP/1.1 101")
    upstream.set_timeout(2)
    assert upstream.read_exactly(4) == b"\x81\x02hi"


def test_client_bytes_before_the_answer_to_an_upgrade(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/ws", "GET", UPGRADE)
    client.send(b"\x81\x02hi")
    time.sleep(0.2)
    upstream.send(SWITCH)
    upstream.set_timeout(2)
    assert upstream.read_exactly(4) == b"\x81\x02hi"


@pytest.mark.parametrize("upstream_tls", [False, True])
def test_bytes_behind_the_handshake_over_tls(tls_gateway, server, tls_server, upstream_tls):
    there = tls_server if upstream_tls else server
    prefix = tls_gateway.route(there.url)
    client = tls_gateway.connect()
    client.send(request_bytes("GET", prefix + "/ws", UPGRADE) + b"up")
    upstream = there.accept()
    upstream.read_head()
    upstream.send(SWITCH + b"down")
    client.read_head()
    assert client.read_exactly(4) == b"down"
    upstream.set_timeout(2)
    assert upstream.read_exactly(2) == b"up"
    big = bytes(range(256)) * 4096
    thread = threading.Thread(target=upstream.send, args=(big,))
    thread.start()
    assert client.read_exactly(len(big)) == big
    thread.join()
    thread = threading.Thread(target=client.send, args=(big,))
    thread.start()
    assert upstream.read_exactly(len(big)) == big
    thread.join()


def test_half_closed_tunnel_carries_the_other_half(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", headers=UPGRADE)
    upstream.send(SWITCH)
    client.read_head()
    client.send(b"last words")
    client.half_close()
    assert upstream.read_to_end() == b"last words"
    upstream.send(b"answer")
    upstream.close()
    assert client.read_to_end() == b"answer"


def test_refused_upgrade_with_data_behind_is_no_tunnel(gateway, server, prefix):
    """What came behind a refused handshake is the next request, or the end."""
    client = gateway.connect()
    client.send(request_bytes("GET", prefix + "/ws", UPGRADE) + b"\x81\x02hi\r\n\r\n")
    upstream = server.accept()
    upstream.read_head()
    upstream.send(OK)
    assert client.read_response().body == b"ok"
    assert client.read_response().status == 400
    assert client.wait_end(5)


# -- answers cut at every byte


WHOLE = b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: 1\r\n\r\n"


def test_answer_in_two_segments_cut_at_every_byte(gateway, server, prefix):
    client, upstream = gateway.connect(), None
    for cut in range(1, len(WHOLE)):
        client.send(request_bytes("GET", f"{prefix}/{cut}"))
        upstream = upstream or server.accept()
        assert upstream.read_head().line == b"GET /%d HTTP/1.1" % cut
        upstream.send(WHOLE[:cut])
        time.sleep(0.002)
        upstream.send(WHOLE[cut:])
        assert client.read_response().body == b"hello!"


def test_answer_that_ends_at_every_byte(gateway, server, prefix):
    """Wherever an answer ends early: 502 before its head is there, broken off after it, never a clean end."""
    head = WHOLE.index(b"\r\n\r\n") + 4
    for cut in range(1, len(WHOLE)):
        client, upstream = gateway.begin(server, prefix + "/")
        upstream.send(WHOLE[:cut])
        upstream.close()
        if cut < head:
            assert client.read_response().status == 502, WHOLE[:cut]
        else:
            with pytest.raises(Broken):
                client.read_response()
        client.close()


REQUEST = b"Host: g\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: 1\r\n\r\n"


def test_request_in_two_segments_cut_at_every_byte(gateway, server, prefix):
    raw = f"POST {prefix}/x HTTP/1.1\r\n".encode() + REQUEST
    client, upstream = gateway.connect(), None
    for cut in range(1, len(raw)):
        client.send(raw[:cut])
        time.sleep(0.002)
        client.send(raw[cut:])
        upstream = upstream or server.accept()
        assert upstream.read_request().body == b"hello!"
        upstream.send(OK)
        assert client.read_response().body == b"ok"


def test_request_that_ends_at_every_byte(gateway, server, prefix):
    """Nothing whole arrives of a request that is not whole."""
    raw = f"POST {prefix}/x HTTP/1.1\r\n".encode() + REQUEST
    for cut in range(1, len(raw)):
        client = gateway.connect()
        client.send(raw[:cut])
        client.half_close() if cut % 2 else client.close()
    gateway.connect().send(request_bytes("GET", prefix + "/sentinel"))
    while True:
        upstream = server.accept()
        try:
            head = upstream.read_head()
        except Closed:
            continue
        if head.line.startswith(b"GET /sentinel"):
            break
        with pytest.raises((Broken, Closed)):
            upstream.read_request_body(head)


# -- informational answers


@pytest.mark.parametrize("status", [100, 102, 103])
def test_flood_of_informational_answers(gateway, server, prefix, status):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(b"HTTP/1.1 %d Wait\r\nLink: </a>\r\n\r\n" % status * 20_000)
    upstream.send(OK)
    answer = client.read_response()
    assert (answer.informational, answer.body) == ([], b"ok")


def test_continue_is_told_once(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", "POST", [("Expect", "100-continue"), ("Content-Length", "1")])
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 5)
    client.read_head()
    time.sleep(1.2)
    client.send(b"x")
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert client.read_response().informational == []


@pytest.mark.parametrize("expect", ["100-Continue", "100-CONTINUE"])
def test_expectation_in_any_case(gateway, server, prefix, expect):
    client, upstream = gateway.begin(server, prefix + "/", "POST", [("Expect", expect), ("Content-Length", "1")])
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.read_head().line.startswith(b"HTTP/1.1 100")


def test_no_continue_for_http10(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", "POST", [("Expect", "100-continue"), ("Content-Length", "1")], version="HTTP/1.0")
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.silent(1.3)
    client.send(b"x")
    assert upstream.read_exactly(1) == b"x"
    upstream.send(OK)
    assert client.read_response().informational == []


def test_expectation_without_a_body(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/", "GET", [("Expect", "100-continue")])
    assert client.silent(1.3)
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert client.read_response().body == b"ok"


# -- bodies that may not be, and those of odd statuses


@pytest.mark.parametrize(
    "answer,body,framing",
    [
        (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", b"", "length"),
        (b"HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", "chunked"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a", "chunked"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 00002\r\n\r\nok", b"ok", "length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"ok", "length"),
        (b"HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nok", b"ok", "length"),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok", b"ok", "length"),
    ],
)
def test_answers_of_an_odd_kind(gateway, server, prefix, answer, body, framing):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(answer)
    got = client.read_response()
    assert (got.status, got.body, got.framing) == (int(answer[9:12]), body, framing)
    assert client.request("GET", "/health").status == 200


@pytest.mark.parametrize("status", [204, 304])
def test_answer_without_a_body_that_claims_chunks(gateway, server, prefix, status):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
    answer = client.read_response()
    assert answer.status == status and answer.header("transfer-encoding") is None
    assert client.request("GET", "/health").status == 200


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_head_keeps_the_connection_in_both_versions(gateway, server, prefix, version):
    client, upstream = gateway.begin(server, prefix + "/", "HEAD", version=version, headers=[("Connection", "keep-alive")])
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    answer = client.read_response("HEAD")
    assert answer.head.all("content-length") == ["7"]
    client.send(request_bytes("GET", "/health", [("Connection", "keep-alive")], version=version))
    assert client.read_response().status == 200


BAD_ANSWERS = {
    "two codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "length on HEAD differs": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX: a\rY: b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"<html>no head</html>\r\n",
    "HTTP/3": b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status with a tail": b"HTTP/1.1 200x OK\r\nContent-Length: 0\r\n\r\n",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
    "field without an end": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    "line without an end": b"HTTP/1.1 200 " + b"y" * 200_000,
    "an HTTP/2 preface without a line": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
    "a banner without a line": b"SSH-2.0-OpenSSH",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answer_is_502_while_the_upstream_stays(gateway, server, prefix, name):
    client, upstream = gateway.begin(server, prefix + "/", "HEAD" if "HEAD" in name else "POST")
    try:
        upstream.send(BAD_ANSWERS[name])
    except OSError:
        pass
    client.set_timeout(3)
    assert client.read_response("HEAD" if "HEAD" in name else "GET").status == 502
    assert upstream.wait_end(2)


BAD_ANSWER_CHUNKS = [b"x\r\n", b"-1\r\n", b"+1\r\na\r\n", b"0x1\r\na\r\n", b"\r\n", b"1\r\nab\r\n", b"1\na\n", b"10000000000000000\r\n", b"ffffffffffffffff\r\n", b"1\r\na0\r\n\r\n", b"0\r\nbad trailer\r\n\r\n", b"1\x00\r\na\r\n"]


@pytest.mark.parametrize("raw", BAD_ANSWER_CHUNKS, ids=repr)
def test_bad_chunk_of_an_answer_breaks_it_off(gateway, server, prefix, raw):
    client, upstream = gateway.begin(server, prefix + "/")
    upstream.send(CHUNKED + b"2\r\nhi\r\n" + raw)
    client.read_response_head()
    with pytest.raises(Broken) as broken:
        client.read_chunks()
    assert broken.value.body.startswith(b"hi")
    assert upstream.wait_end(2)


# -- TLS to vendors: the end without a farewell


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", CHUNKED + b"9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_truncated_tls_is_no_clean_end(tls_gateway, tls_server, head, version):
    prefix = tls_gateway.route(tls_server.url)
    client, upstream = tls_gateway.begin(tls_server, prefix + "/", version=version)
    client.sock.suppress_ragged_eofs = False
    upstream.send(head + b"hi")
    time.sleep(0.05)
    upstream.cut()
    with pytest.raises((Broken, Closed)):
        client.read_response()


def test_close_notify_ends_a_body_cleanly(tls_gateway, tls_server):
    prefix = tls_gateway.route(tls_server.url)
    client, upstream = tls_gateway.begin(tls_server, prefix + "/")
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\nhi")
    upstream.farewell()
    assert client.read_response().body == b"hi"


def test_kept_tls_connection_that_said_farewell_takes_no_post(tls_gateway, tls_server):
    prefix = tls_gateway.route(tls_server.url)
    client, upstream = kept(tls_gateway, tls_server, prefix)
    upstream.farewell()
    time.sleep(0.2)
    client.send(request_bytes("POST", prefix + "/paid", [], b"money"))
    answered_by_another(client, tls_server, b"money")


# -- an upstream connection that ends at an awkward moment


def test_unasked_408_on_a_kept_connection_answers_nobody(gateway, server, prefix):
    client, upstream = kept(gateway, server, prefix)
    upstream.send(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    upstream.close()
    time.sleep(0.1)
    client.send(request_bytes("POST", prefix + "/paid", [], b"money"))
    answered_by_another(client, server, b"money")


@pytest.mark.parametrize("body", [None, b"small", b"x" * 60_000])
def test_put_on_a_dead_connection_is_sent_whole_once_more(gateway, server, prefix, body):
    client, upstream = kept(gateway, server, prefix)
    client.send(request_bytes("PUT", prefix + "/again", [], body))
    upstream.read_head()
    upstream.reset()
    answered_by_another(client, server, body or b"")


def test_chunked_put_in_two_halves_over_a_dead_connection(gateway, server, prefix):
    client, upstream = kept(gateway, server, prefix)
    client.send(request_bytes("PUT", prefix + "/again", [("Transfer-Encoding", "chunked")]) + chunk(b"one"))
    upstream.read_head()
    assert upstream.read_chunk() == b"one"
    upstream.reset()
    second = server.accept()
    head = second.read_head()
    client.send(chunk(b"two") + b"0\r\n\r\n")
    assert second.read_request_body(head) == (b"onetwo", "chunked")
    second.send(OK)
    assert client.read_response().body == b"ok"


def test_large_put_on_a_dead_connection_is_an_answer(gateway, server, prefix):
    client, upstream = kept(gateway, server, prefix)
    client.send(request_bytes("PUT", prefix + "/again", [], b"x" * 500_000))
    upstream.read_request()
    upstream.close()
    assert client.read_response().status == 502


# -- who goes while what


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_hang_up_while_connecting(gateway, how):
    with RawServer(backlog=0) as full:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", full.port))
        prefix = gateway.route(full.url)
        client = gateway.connect()
        client.send(request_bytes("GET", prefix + "/"))
        time.sleep(0.2)
        getattr(client, how)()
        eventually(lambda: gateway.get("/stats").json()["performance"]["active_requests"] == 0, 2)
        for filler in fillers:
            filler.close()


def test_many_pipelined_requests_and_no_reader(gateway, vendor):
    """A client that only writes cannot make the gateway hold what it answers."""
    prefix = gateway.route(vendor.url)
    client = gateway.connect(receive_buffer=4 * KIB)
    raw = b"".join(request_bytes("GET", f"{prefix}/{n}") for n in range(2000))
    done = threading.Thread(target=client.send, args=(raw,), daemon=True)
    done.start()
    time.sleep(0.5)
    for number in range(2000):
        assert client.read_response().json()["target"] == f"/{number}"
    done.join()


@pytest.mark.timing
def test_flood_after_a_refusal_does_not_stop_others():
    """A refused client that keeps sending is read over for a while; those beside it are served."""
    with Gateway(API_PROXY_WORKERS="1") as gateway:
        client = gateway.connect()
        client.send(request_bytes("POST", "/nowhere", [("Content-Length", str(1 << 40))]))
        stop = time.monotonic() + 2.5
        block = b"x" * (1 << 20)

        def flood():
            try:
                while time.monotonic() < stop:
                    client.send(block)
            except OSError:
                pass

        thread = threading.Thread(target=flood)
        thread.start()
        worst = 0.0
        while time.monotonic() < stop:
            began = time.monotonic()
            assert gateway.get("/health").status == 200
            worst = max(worst, time.monotonic() - began)
        thread.join()
        assert worst < 1, f"{worst:.2f} s for others"


# -- 64 KiB, with buffers of several sizes


def settled(sent: int, *ports: int) -> int:
    last = None
    for _ in range(50):
        now = sent - sum(a + b for a, b in kernel_queues(*ports).values())
        if now == last:
            return now
        last = now
        time.sleep(0.1)
    raise AssertionError("the queues do not settle")


@pytest.mark.parametrize("first", [1 << 20, 6 << 20])
@pytest.mark.parametrize("receive", [4 * KIB, 0])
@pytest.mark.parametrize("framing", ["length", "chunked", "close", "tunnel"])
def test_stalled_download_after_a_fast_start_holds_64_kib(gateway, first, receive, framing):
    """Reads grow with a fast client; once it stalls, no more than 64 KiB is held."""
    with RawServer(send_buffer=256 * KIB) as server:
        prefix = gateway.route(server.url)
        client, upstream = gateway.begin(server, prefix + "/", receive_buffer=receive, headers=UPGRADE if framing == "tunnel" else ())
        head = {"length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30), "chunked": CHUNKED, "close": b"HTTP/1.1 200 OK\r\n\r\n", "tunnel": SWITCH}
        upstream.send(head[framing])
        client.read_head()
        block = b"z" * (64 * KIB)
        piece = chunk(block) if framing == "chunked" else block
        sender = threading.Thread(target=lambda: [upstream.send(piece) for _ in range(first // len(block))])
        sender.start()
        got = 0
        while got < first:
            got += len(client.read_chunk()) if framing in ("chunked", "close") else len(client.read_some())
        sender.join()
        sent = upstream.send_until_blocked(piece, limit=64 << 20, quiet=0.3)
        held = settled(sent, server.port, client.local_port)
        assert held <= 66 * KIB, f"{held} bytes held"


@pytest.mark.parametrize("first", [6 << 20])
@pytest.mark.parametrize("receive", [4 * KIB, 0])
@pytest.mark.parametrize("framing", ["length", "chunked", "tunnel"])
def test_stalled_upload_after_a_fast_start_holds_64_kib(gateway, first, receive, framing):
    with RawServer(receive_buffer=receive) as server:
        prefix = gateway.route(server.url)
        headers = {"length": [("Content-Length", str(1 << 30))], "chunked": [("Transfer-Encoding", "chunked")], "tunnel": UPGRADE}
        client, upstream = gateway.begin(server, prefix + "/", "GET" if framing == "tunnel" else "POST", headers=headers[framing])
        if framing == "tunnel":
            upstream.send(SWITCH)
            client.read_head()
        block = b"z" * (64 * KIB)
        piece = chunk(block) if framing == "chunked" else block
        sender = threading.Thread(target=lambda: [client.send(piece) for _ in range(first // len(block))])
        sender.start()
        got = 0
        while got < first:
            got += len(upstream.read_chunk()) if framing == "chunked" else len(upstream.read_some())
        sender.join()
        sent = client.send_until_blocked(piece, limit=64 << 20, quiet=0.3)
        held = settled(sent, server.port, client.local_port)
        assert held <= 66 * KIB, f"{held} bytes held"


def test_stalled_tls_downloads_outlive_new_connections(authority):
    """What waits unread, its end too, is not taken for dead when other connections are made."""
    with Gateway(API_PROXY_WORKERS="1", SSL_CERT_FILE=str(authority.bundle)) as gateway:
        with RawServer(tls=authority.server_context("localhost")) as server:
            prefix = gateway.route(server.url)
            body = bytes(range(256)) * 16 * KIB
            client, upstream = gateway.begin(server, prefix + "/", receive_buffer=4 * KIB)
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            sender = threading.Thread(target=lambda: (upstream.send(body), upstream.close()))
            sender.start()
            for turn in range(3):
                time.sleep(0.6)
                gateway.begin(server, f"{prefix}/{turn}")
            assert client.read_response().body == body
            sender.join()
