"""Failover in every form a request can have: waiting for 100, upgrading, pipelined, without a body."""

from __future__ import annotations

import calendar
import signal
import time

import pytest

from support.managed import Nodes, Timed, ask, fault_of, name
from support.process import eventually
from support.vendor import Fault, Reply
from support.wire import RawServer, request_bytes

EXPECTING = [("Expect", "100-continue"), ("Content-Length", "5")]
UPGRADING = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
FINE = "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def one():
    with Nodes(1) as nodes:
        yield nodes


# -- Expect: 100-continue


def expecting(one, server: RawServer):
    """A client that waits for 100, and the first try for it."""
    client = one[0].connect()
    client.send(request_bytes("POST", one.pooled(server.url) + "/x", EXPECTING))
    first = server.accept()
    assert first.read_head().get("expect") == "100-continue"
    return client, first


def test_refused_before_the_body(one):
    """The first key's answer comes instead of 100: the next one is asked as the first was."""
    with RawServer() as server:
        client, first = expecting(one, server)
        first.send("HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n")
        second = server.accept()
        assert second.read_head().get("expect") == "100-continue"
        assert client.silent(0.1)
        second.send("HTTP/1.1 100 Continue\r\n\r\n")
        assert b" 100 " in client.read_head().line
        client.send(b"hello")
        assert second.read_exactly(5) == b"hello"
        second.send(FINE)
        assert client.read_response().body == b"ok"


def test_refused_after_the_body(one):
    """The client has been told to go on: nobody is asked for that again, the body is there."""
    with RawServer() as server:
        client, first = expecting(one, server)
        first.send("HTTP/1.1 100 Continue\r\n\r\n")
        assert b" 100 " in client.read_head().line
        client.send(b"hello")
        assert first.read_exactly(5) == b"hello"
        first.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        second = server.accept()
        assert "expect" not in second.read_head()
        assert second.read_exactly(5) == b"hello"
        second.send(FINE)
        answer = client.read_response()
        assert answer.body == b"ok" and answer.informational == []


def test_refused_by_all_before_the_body(one):
    with RawServer() as server:
        client, first = expecting(one, server)
        first.send("HTTP/1.1 429 No\r\nContent-Length: 3\r\n\r\none")
        second = server.accept()
        second.read_head()
        second.close()
        answer = client.read_response()
        assert (answer.status, answer.body, answer.informational) == (429, b"one", [])


def test_told_to_go_on_after_a_second_then_refused(one):
    with RawServer() as server:
        client, first = expecting(one, server)
        assert b" 100 " in client.read_head().line
        client.send(b"hello")
        first.read_exactly(5)
        first.close()
        second = server.accept()
        second.read_head()
        assert second.read_exactly(5) == b"hello"
        second.send(FINE)
        assert client.read_response().body == b"ok"


# -- other forms


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH", "REPORT"])
@pytest.mark.parametrize("step", [Reply(503), Fault("close_before_head"), Fault("reset_before_head")], ids=["503", "close", "reset"])
def test_every_method(one, vendor, method, step):
    vendor.script(step)
    answer = one[0].request(method, one.pooled(vendor.url) + "/x", [], b"abc" if method in ("PUT", "PATCH") else None)
    assert answer.status == 200
    assert len({r.header("authorization") for r in vendor.received}) == len(vendor.received) == 2
    assert vendor.received[0].body == vendor.received[1].body


def test_an_upgrade_that_is_refused(one):
    with RawServer() as server:
        client = one[0].connect()
        client.send(request_bytes("GET", one.pooled(server.url) + "/x", UPGRADING))
        first = server.accept()
        first.read_head()
        first.send("HTTP/1.1 429 No\r\nContent-Length: 3\r\n\r\none")
        second = server.accept()
        assert second.read_head().get("upgrade") == "websocket"
        second.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert b" 101 " in client.read_head().line
        client.send(b"ping")
        assert second.read_exactly(4) == b"ping"
        second.send(b"pong")
        assert client.read_exactly(4) == b"pong"
        assert first.wait_end(2)


def test_pipelined_requests(one, vendor):
    """What follows on the connection is no part of the body that is held."""
    prefix = one.pooled(vendor.url)
    client = one[0].connect()
    vendor.script(Reply(500), None, Reply(502), None)
    requests = [("POST", "/a", b"one"), ("POST", "/b", b"two"), ("GET", "/c", None)]
    client.send(b"".join(request_bytes(method, prefix + path, [], body) for method, path, body in requests))
    assert [client.read_response().json()["target"] for _ in requests] == ["/a", "/b", "/c"]
    assert [r.body for r in vendor.received] == [b"one", b"one", b"two", b"two", b""]


def test_http_10(one, vendor):
    vendor.script(Reply(500))
    client = one[0].connect()
    client.send(request_bytes("POST", one.pooled(vendor.url) + "/x", [], b"one", version="HTTP/1.0"))
    assert client.read_response().status == 200
    assert [r.body for r in vendor.received] == [b"one"] * 2


def test_a_kept_connection_that_has_died(vendor):
    """The next key is tried, also for a POST; one such end cools nothing."""
    with Nodes(1, API_PROXY_WORKERS="1") as one, RawServer() as server:
        keys = [name("form") for _ in range(2)]
        prefix = one.map(server.url, pool=one.pool(*keys))
        asking = Timed(lambda: ask(one[0], prefix))
        kept = server.accept()
        kept.read_request()
        kept.send(FINE)
        assert asking.get().status == 200
        asking = Timed(lambda: ask(one[0], prefix))
        kept.read_request()
        kept.close()
        fresh = server.accept()
        fresh.read_request()
        fresh.send(FINE)
        assert asking.get().status == 200
        assert [one.health(key)["state"] for key in keys] == ["ok", "ok"]


@pytest.mark.parametrize("kind", ["close_in_head", "garbage"])
def test_an_answer_that_is_none_is_not_tried_again(one, vendor, kind):
    """A byte of it had come."""
    vendor.script(Fault(kind))
    assert fault_of(ask(one[0], one.pooled(vendor.url))) == (502, "upstream_error")
    assert len(vendor.received) == 1


def cooled(one, vendor, retry_after: str) -> tuple[str, str]:
    """A key that its vendor told to wait, and the prefix of the mapping that has no other."""
    key = name("form")
    prefix = one.map(vendor.url, pool=one.pool(key))
    vendor.script(Reply(429, {"Retry-After": retry_after}))
    assert ask(one[0], prefix).status == 429
    eventually(lambda: one.health(key)["state"] == "cooling", 2)
    return key, prefix


@pytest.mark.parametrize("text", ["0x10", "-5", "", "1e3", "inf", "nan", "1 2"])
def test_a_retry_after_that_says_nothing(one, vendor, text):
    _, prefix = cooled(one, vendor, text)
    answer = ask(one[0], prefix)
    assert fault_of(answer) == (429, "upstream_rate_limit") and 26 <= int(answer.header("retry-after")) <= 30


DAY = 86400


@pytest.mark.parametrize(
    "text",
    ["86401", "4294967295", "999999999", "99999999999999", "9" * 63, "Fri, 31 Dec 9999 23:59:59 GMT", "Tue, 01 Jan 2600 00:00:00 GMT"],
)
def test_a_retry_after_beyond_a_day_is_a_day(one, vendor, text):
    key, prefix = cooled(one, vendor, text)
    until = calendar.timegm(time.strptime(one.health(key)["until"], "%Y-%m-%dT%H:%M:%SZ"))
    assert DAY - 5 < until - time.time() <= DAY + 1
    answer = ask(one[0], prefix)
    assert fault_of(answer) == (429, "upstream_rate_limit") and DAY - 5 < int(answer.header("retry-after")) <= DAY


# -- what happens meanwhile


def send_oh(connection, status: int):
    connection.read_request()
    connection.send(f"HTTP/1.1 {status} Oh\r\nContent-Length: 2\r\n\r\nno")


@pytest.mark.parametrize("policy", ["local", "deny"])
def test_redis_hangs_between_two_tries(policy):
    """The other keys are tried without it; where the node must not decide by itself, the last answer is what came."""
    with Nodes(1, API_PROXY_ON_REDIS_FAILURE=policy) as one, RawServer() as server:
        prefix = one.pooled(server.url, 3)
        asking = Timed(lambda: ask(one[0], prefix))
        first = server.accept()
        one.redis.freeze()
        send_oh(first, 500)
        if policy == "local":
            send_oh(server.accept(), 503)
            last = server.accept()
            last.read_request()
            last.send(FINE)
        answer = asking.get()
        assert (answer.status, answer.body) == ((200, b"ok") if policy == "local" else (500, b"no"))
        one.redis.thaw()


def test_a_request_fails_over_while_draining():
    with Nodes(1) as one, RawServer() as server:
        prefix = one.pooled(server.url)
        asking = Timed(lambda: ask(one[0], prefix))
        first = server.accept()
        one[0].signal(signal.SIGTERM)
        eventually(lambda: "drain" in one[0].output, 5)
        send_oh(first, 500)
        second = server.accept()
        second.read_request()
        second.send(FINE)
        assert asking.get().status == 200 and one[0].wait(10) == 0


def test_keys_and_mapping_are_deleted_meanwhile(one):
    """The request goes on with what it began with, or with what came: it is never left without an answer."""
    with RawServer() as server:
        keys = [name("form") for _ in range(2)]
        prefix = one.map(server.url, pool=one.pool(*keys))
        asking = Timed(lambda: ask(one[0], prefix))
        first = server.accept()
        for path in [*[f"/api/keys/{key}" for key in keys], "/api/mappings" + prefix]:
            assert one[0].api("DELETE", path).status == 204
        send_oh(first, 500)
        if server.pending(0.5):
            send_oh(server.accept(), 503)
        assert asking.get().status in (500, 503) and ask(one[0], prefix).status == 404


def test_each_of_many_keys_once(one, vendor):
    pool, keys = name("form"), [name("form") for _ in range(70)]
    document = one[0].api("GET", "/api/config").json()
    document["keys"] += [{"id": key, "pool": pool, "key": "secret-" + key} for key in keys]
    assert one[0].api("PUT", "/api/config", document).status == 200
    prefix = one.map(vendor.url, pool=pool)
    vendor.script(*[Reply(500)] * 69)
    assert ask(one[0], prefix).status == 200
    assert sorted(r.header("authorization") for r in vendor.received) == sorted(f"Bearer secret-{key}" for key in keys)
