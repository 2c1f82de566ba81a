"""The other fixtures, without a gateway: what they promise, so that a failure elsewhere is not theirs."""

from __future__ import annotations

import httpx
import pytest
import redis

from support.egress import EgressProxy
from support.process import eventually
from support.redis_server import Redis
from support.wire import Broken, Closed, RawClient, RawServer, chunked, kernel_queues


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
def test_redis_in_all_its_forms(authority, transport):
    with Redis(transport, "word", authority=authority) as server:
        assert server.client.set("a", "b")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            server.client.get("a")
        server.start()
        assert server.client.get("a") is None


def test_frozen_redis_does_not_answer():
    with Redis("tcp") as server:
        server.freeze()
        client = redis.Redis(port=server.held.number, socket_timeout=0.2, retry=None)
        with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
            client.ping()
        server.thaw()
        assert server.client.ping()


def test_egress_proxy(authority, tls_vendor, vendor):
    with EgressProxy(("127.0.0.1", tls_vendor.port), credential="u:p") as proxy:
        with httpx.Client(proxy=proxy.url, verify=authority.client_context()) as client:
            assert client.get("https://localhost/x").json()["target"] == "/x"
        assert proxy.seen == ["CONNECT localhost:443 HTTP/1.1"]
    with EgressProxy(("127.0.0.1", vendor.port), credential="u:p") as proxy:
        with httpx.Client(proxy=proxy.url) as client:
            assert client.get("http://any.test/x?y").json()["target"] == "/x?y"
        with httpx.Client(proxy=proxy.url.replace("u:p@", "")) as client:
            assert client.get("http://any.test/x").status_code == 407


def pair():
    server = RawServer()
    client = RawClient(server.port)
    return server, client, server.accept()


def test_ends_are_told_apart():
    for act, how in (("close", "fin"), ("reset", "rst"), ("half_close", "fin")):
        server, client, peer = pair()
        getattr(client, act)()
        assert peer.wait_end(1) == how
        server.close()


def test_framing_that_breaks_is_broken():
    for sent in (b"Content-Length: 5\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"):
        server, client, peer = pair()
        peer.send(b"HTTP/1.1 200 OK\r\n" + sent)
        peer.close()
        with pytest.raises(Broken) as broken:
            client.read_response()
        assert broken.value.body == b"abc"
        server.close()


def test_chunks_are_read_back():
    server, client, peer = pair()
    client.send(chunked(b"abc", b"d" * 100))
    assert (peer.read_chunk(), peer.read_chunk(), peer.read_chunk()) == (b"abc", b"d" * 100, b"")
    client.close()
    with pytest.raises(Closed):
        peer.read_exactly(1)
    server.close()


def test_kernel_queues_account_for_every_byte():
    server, client, peer = pair()
    sent = peer.send_until_blocked(b"x" * 65536, quiet=0.2)
    assert sent > 100_000
    eventually(lambda: sum(a + b for a, b in kernel_queues(server.port).values()) == sent)
    assert len(client.read_exactly(sent)) == sent
    server.close()
