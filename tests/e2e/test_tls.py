"""Certificates of the HTTPS listener: faults, what is negotiated, what is kept."""

from __future__ import annotations

import signal
import ssl

import pytest
from cryptography import x509

from support.certs import Authority
from support.gateway import Gateway, run_once
from support.process import eventually
from support.wire import RawClient


def serial(gateway) -> int:
    pem = ssl.get_server_certificate(("127.0.0.1", gateway.port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


@pytest.fixture
def files(authority, tmp_path):
    """Certificate and key in a place of the test's own, and a function that writes another pair there."""
    cert, key = tmp_path / "front.crt", tmp_path / "front.key"

    def issue():
        leaf = authority.issue("localhost", "127.0.0.1")
        cert.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        key.write_bytes(leaf.private_key_pem.bytes())

    issue()
    return cert, key, issue


def start(authority: Authority, files, **settings) -> Gateway:
    return Gateway(
        tls=authority.client_context(),
        API_PROXY_TLS="on",
        API_PROXY_TLS_CERT=str(files[0]),
        API_PROXY_TLS_KEY=str(files[1]),
        **settings,
    )


def test_broken_certificate_keeps_the_old_one(authority, files):
    with start(authority, files) as gateway:
        before = serial(gateway)
        files[0].write_text("no certificate\n")
        gateway.signal(signal.SIGHUP)

        def faults():
            return [e["message"] for e in gateway.api("GET", "/errors").json()["errors"] if e["source"] == "tls"]

        assert str(files[0]) in eventually(faults)[0]
        assert serial(gateway) == before
        files[2]()
        gateway.signal(signal.SIGHUP)
        eventually(lambda: serial(gateway) != before)


@pytest.mark.parametrize("offered, chosen", [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), ([], None)])
def test_only_http_1_1_is_negotiated(authority, files, offered, chosen):
    with start(authority, files) as gateway:
        context = authority.client_context()
        if offered:
            context.set_alpn_protocols(offered)
        with RawClient(gateway.port, tls=context) as client:
            assert client.sock.selected_alpn_protocol() == chosen


def test_self_signed_is_made_once(tmp_path):
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    with Gateway(tls=unverified, API_PROXY_TLS="on", API_PROXY_TLS_SELF_SIGNED="on") as gateway:
        before = serial(gateway)
        trusted = ssl.create_default_context(cafile=str(gateway.data_dir / "tls" / "cert.pem"))
        with RawClient(gateway.port, tls=trusted) as client:
            assert client.sock.version() == "TLSv1.3"
        assert (gateway.data_dir / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
        gateway.restart()
        assert serial(gateway) == before


def test_mismatched_key_stops_the_start(authority, files, tmp_path):
    other = tmp_path / "other.key"
    other.write_bytes(authority.issue("localhost").private_key_pem.bytes())
    done = run_once(cwd=tmp_path, API_PROXY_TLS="on", API_PROXY_TLS_CERT=str(files[0]), API_PROXY_TLS_KEY=str(other),
                    API_PROXY_LISTEN="127.0.0.1:1", ADMIN_TOKEN="x")
    assert done.returncode == 1
    assert str(other) in done.stderr
