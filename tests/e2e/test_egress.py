"""The way out: egress proxies, and TLS that is always verified."""

from __future__ import annotations

import signal
import ssl

import pytest

from support.certs import Authority
from support.egress import EgressProxy
from support.gateway import Gateway, https_gateway
from support.process import eventually
from support.vendor import Vendor
from support.wire import Broken, RawClient, RawServer, request_bytes


def trusting(authority, **settings):
    return Gateway(SSL_CERT_FILE=str(authority.bundle), CURL_CA_BUNDLE=str(authority.bundle), **settings)


# -- proxies


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_http_proxy(vendor, name):
    with EgressProxy(("127.0.0.1", vendor.port)) as proxy, Gateway(**{name: proxy.url}) as gateway:
        prefix = gateway.route("http://vendor.test:81")
        answer = gateway.get(prefix + "/a?b=c")
        assert answer.status == 200 and answer.json()["target"] == "/a?b=c"
        assert vendor.received[0].header("host") == "vendor.test:81"
        assert "vendor.test:81" in proxy.seen[0]
        assert {n.lower() for n, _ in answer.json()["headers"]} == {"host"}, "nothing is added"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_https_proxy_tunnels_and_tls_is_verified_inside(authority, name):
    with Vendor(tls=authority.server_context("vendor.test")) as vendor:
        with EgressProxy(("127.0.0.1", vendor.port)) as proxy, trusting(authority, **{name: proxy.url}) as gateway:
            prefix = gateway.route("https://vendor.test")
            assert gateway.get(prefix + "/a").status == 200
            assert proxy.seen == ["CONNECT vendor.test:443 HTTP/1.1"]
            other = gateway.route("https://wrong.test")
            assert gateway.get(other + "/a").status == 502


def test_proxy_credentials_stay_at_the_proxy(vendor):
    with EgressProxy(("127.0.0.1", vendor.port), credential="user:pass") as proxy:
        with Gateway(HTTP_PROXY=proxy.url) as gateway:
            prefix = gateway.route("http://vendor.test")
            answer = gateway.request("GET", prefix + "/", [("Proxy-Authorization", "Basic mine")])
            assert answer.status == 200
            assert vendor.received[0].header("proxy-authorization") is None
            assert b"mine" not in vendor.received[0].raw


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "other.test,127.0.0.1", "*"])
def test_no_proxy(vendor, no_proxy):
    with EgressProxy(("127.0.0.1", vendor.port)) as proxy, Gateway(HTTP_PROXY=proxy.url, NO_PROXY=no_proxy) as gateway:
        assert gateway.get(gateway.route(vendor.url) + "/").status == 200
        assert proxy.seen == []


def test_no_proxy_of_another_host_changes_nothing(vendor):
    with EgressProxy(("127.0.0.1", vendor.port)) as proxy, Gateway(HTTP_PROXY=proxy.url, NO_PROXY="other.test") as gateway:
        assert gateway.get(gateway.route("http://vendor.test") + "/").status == 200
        assert len(proxy.seen) == 1


def test_streams_and_uploads_through_a_proxy(authority):
    with Vendor(tls=authority.server_context("vendor.test")) as vendor:
        with EgressProxy(("127.0.0.1", vendor.port)) as proxy, trusting(authority, HTTPS_PROXY=proxy.url) as gateway:
            prefix = gateway.route("https://vendor.test")
            body = b'{"stream":true,"messages":[]}'
            answer = gateway.request("POST", prefix + "/v1/chat/completions", [], body)
            assert answer.body.endswith(b"data: [DONE]\n\n")
            assert gateway.request("POST", prefix + "/x", [], b"u" * 500_000).json()["length"] == 500_000


@pytest.mark.parametrize("status", [403, 407, 502])
def test_proxy_that_refuses_is_502(status):
    with EgressProxy(("127.0.0.1", 9), refuse=status) as proxy, Gateway(HTTPS_PROXY=proxy.url) as gateway:
        answer = gateway.get(gateway.route("https://vendor.test") + "/")
        assert (answer.status, answer.header("x-apiproxy-error")) == (502, "upstream_error")


def test_proxy_that_is_away_is_502():
    with RawServer() as gone:
        url = gone.url
    with Gateway(HTTPS_PROXY=url) as gateway:
        assert gateway.get(gateway.route("https://vendor.test") + "/").status == 502


BROKEN_PROXIES = {
    "nothing": b"",
    "part of a line": b"HTTP/1.1 200",
    "garbage": b"garbage\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000,
    "part of a body": b"HTTP/1.1 503 No\r\nContent-Length: 100000\r\n\r\nx",
    "part of a chunk": b"HTTP/1.1 502 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "to go on": b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
}


@pytest.fixture(scope="module")
def behind_proxy():
    with RawServer() as proxy, Gateway(HTTPS_PROXY=proxy.url, HTTP_PROXY=proxy.url) as gateway:
        gateway.map("/v", "https://vendor.test", connect_timeout_seconds=1)
        gateway.map("/six", "http://[::1]:81/base")
        yield gateway, proxy


@pytest.mark.parametrize("then", ("close", "reset", "stay"))
@pytest.mark.parametrize("said", BROKEN_PROXIES)
def test_proxy_that_misbehaves_is_told(behind_proxy, said, then):
    gateway, proxy = behind_proxy
    client = gateway.connect()
    client.send(request_bytes("GET", "/v"))
    tunnel = proxy.accept()
    assert tunnel.read_head().line == b"CONNECT vendor.test:443 HTTP/1.1"
    try:
        tunnel.send(BROKEN_PROXIES[said])
    except OSError:
        pass
    if then != "stay":
        getattr(tunnel, then)()
    assert client.read_response().status in (502, 504)
    if then == "stay":
        assert tunnel.wait_end(1) in ("fin", "rst")


def test_hang_up_while_the_proxy_is_silent(behind_proxy):
    gateway, proxy = behind_proxy
    client = gateway.connect()
    client.send(request_bytes("GET", "/v"))
    tunnel = proxy.accept()
    tunnel.read_head()
    client.reset()
    assert tunnel.wait_end(1) in ("fin", "rst")


def test_proxy_for_an_ipv6_target(behind_proxy):
    gateway, proxy = behind_proxy
    client = gateway.connect()
    client.send(request_bytes("GET", "/six/a"))
    head = proxy.accept().read_head()
    assert head.line == b"GET http://[::1]:81/base/a HTTP/1.1" and head.get("host") == "[::1]:81"


def test_socks_proxy():
    with RawServer() as proxy, Gateway(ALL_PROXY=f"socks5h://{proxy.host}") as gateway:
        gateway.map("/v", "http://vendor.test:81/base")
        client = gateway.connect()
        client.send(request_bytes("GET", "/v/a"))
        tunnel = proxy.accept()
        assert tunnel.read_exactly(1) == b"\x05"
        tunnel.read_exactly(tunnel.read_exactly(1)[0])
        tunnel.send(b"\x05\x00")
        assert tunnel.read_exactly(18) == b"\x05\x01\x00\x03\x0bvendor.test\x00Q"
        tunnel.send(b"\x05\x00\x00\x01" + bytes(6))
        assert tunnel.read_head().raw == b"GET /base/a HTTP/1.1\r\nHost: vendor.test:81\r\n\r\n"
        tunnel.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.read_response().body == b"ok"


# -- TLS


def test_known_authority(gateway, tls_vendor):
    prefix = gateway.route(tls_vendor.url)
    answer = gateway.request("POST", prefix + "/a", [], b"body")
    assert answer.status == 200 and answer.json()["length"] == 4


def test_tls_connections_are_kept(gateway, tls_vendor):
    prefix = gateway.route(tls_vendor.url)
    client = gateway.connect()
    for _ in range(5):
        assert client.request("POST", prefix + "/a", [], b"body").status == 200
    assert tls_vendor.connections == 1


def test_large_bodies_over_tls(gateway, tls_vendor):
    prefix = gateway.route(tls_vendor.url)
    assert gateway.request("POST", prefix + "/a", [], b"u" * 3_000_000).json()["length"] == 3_000_000


def refused(gateway, context) -> bool:
    """Is an upstream with this TLS context refused, before anything is sent to it?"""
    with Vendor(tls=context) as vendor:
        answer = gateway.request("POST", gateway.route(vendor.url) + "/", [("Authorization", "Bearer sk")], b"x")
        assert vendor.received == []
        return (answer.status, answer.header("x-apiproxy-error")) == (502, "upstream_error")


def test_unknown_authority_is_502(gateway, tmp_path):
    assert refused(gateway, Authority(tmp_path).server_context("localhost", "127.0.0.1"))


def test_wrong_name_is_502(gateway, authority):
    assert refused(gateway, authority.server_context("other.test"))


def test_expired_certificate_is_502(gateway, authority):
    assert refused(gateway, authority.server_context("localhost", expired=True))


def test_old_tls_is_502(gateway, authority):
    context = authority.server_context("localhost")
    try:
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    except (ValueError, ssl.SSLError):
        pytest.skip("this OpenSSL cannot speak TLS 1.1")
    assert refused(gateway, context)


def test_server_name_is_sent(gateway, authority):
    names = []
    context = authority.server_context("localhost")
    context.sni_callback = lambda sock, name, ctx: names.append(name)
    with Vendor(tls=context) as vendor:
        assert gateway.get(gateway.route(vendor.url) + "/").status == 200
    assert names == ["localhost"]


def test_tls_upstream_that_is_cut_without_a_goodbye(gateway, authority):
    """A body without a length that ends without close_notify is broken off, not whole."""
    with RawServer(tls=authority.server_context("localhost")) as server:
        prefix = gateway.route(server.url)
        client, upstream = gateway.begin(server, prefix + "/")
        upstream.send("HTTP/1.1 200 OK\r\n\r\npart of it")
        client.read_response_head()
        upstream.cut()
        with pytest.raises(Broken):
            client.read_chunks()


# -- TLS towards clients


def test_https_listener(authority, vendor):
    with https_gateway(authority, "listener") as gateway:
        prefix = gateway.route(vendor.url)
        client = gateway.connect()
        for size in (0, 10, 300_000):
            assert client.request("POST", prefix + "/", [], b"x" * size).json()["length"] == size
        stream = client.request("POST", prefix + "/v1/chat/completions", [], b'{"stream":true,"messages":[]}')
        assert stream.body.endswith(b"data: [DONE]\n\n")


def test_self_signed_listener():
    context = ssl._create_unverified_context()
    with Gateway(tls=context, API_PROXY_TLS="on", API_PROXY_TLS_SELF_SIGNED="on") as gateway:
        assert gateway.get("/health").status == 200


def test_hangup_signal_rereads_certificates(authority):
    with https_gateway(authority, "rotated") as gateway:

        def serial():
            with RawClient(gateway.port, tls=gateway.tls) as client:
                return client.sock.getpeercert()["serialNumber"]

        before = serial()
        standing = gateway.connect()
        assert standing.request("GET", "/health").status == 200
        authority.write("localhost", stem="rotated")
        assert serial() == before, "not before it is told"
        gateway.signal(signal.SIGHUP)
        eventually(lambda: serial() != before, 5)
        assert standing.request("GET", "/health").status == 200, "open connections live on"
