"""Certificates of the HTTPS listener: faults, what is negotiated, what is kept."""

from __future__ import annotations

import signal
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

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


def encrypted(leaf) -> bytes:
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pass")
    )


BAD_PAIRS = {
    "junk certificate": ("cert", lambda authority: b"junk\n", "a certificate chain, PEM"),
    "empty certificate": ("cert", lambda authority: b"", "a certificate chain, PEM"),
    "junk key": ("key", lambda authority: b"junk\n", "private key, PEM"),
    "empty key": ("key", lambda authority: b"", "private key, PEM"),
    "key of another": ("key", lambda authority: authority.issue("localhost").private_key_pem.bytes(), "private key, PEM"),
    "key with a pass phrase": ("key", lambda authority: encrypted(authority.issue("localhost")), "without a pass phrase"),
}


@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["start", "check"])
@pytest.mark.parametrize("fault", BAD_PAIRS)
def test_pair_that_cannot_be_used_is_refused(authority, files, tmp_path, arguments, fault):
    """In a line as of every other bad value, before anything is made."""
    which, make, accepted = BAD_PAIRS[fault]
    path = tmp_path / f"front.{'crt' if which == 'cert' else 'key'}"
    path.write_bytes(make(authority))
    ini = f"[tls]\nenabled = on\ncert = {files[0]}\nkey = {files[1]}\n"
    (tmp_path / "apiproxy.ini").write_text(ini)
    by_file = run_once(*arguments, cwd=tmp_path, API_PROXY_LISTEN="127.0.0.1:1")
    assert (by_file.returncode, by_file.stderr.count("\n")) == (1, 1)
    assert by_file.stderr.startswith(f"apiproxy: apiproxy.ini:{3 if which == 'cert' else 4}: tls.{which} = {path}: ")
    assert accepted in by_file.stderr
    name = f"API_PROXY_TLS_{which.upper()}"
    by_name = run_once(*arguments, cwd=tmp_path, API_PROXY_LISTEN="127.0.0.1:1", **{name: str(path)})
    assert (by_name.returncode, by_name.stderr.count("\n")) == (1, 1)
    assert by_name.stderr.startswith(f"apiproxy: environment {name} = {path}: ")
    assert not (tmp_path / "data").exists()


def test_check_of_a_good_pair(authority, files, tmp_path):
    settings = {"API_PROXY_TLS_CERT": str(files[0]), "API_PROXY_TLS_KEY": str(files[1])}
    assert run_once("--check", cwd=tmp_path, API_PROXY_TLS="on", **settings).returncode == 0
    files[0].write_text("not needed\n")
    assert run_once("--check", cwd=tmp_path, API_PROXY_TLS="off", **settings).returncode == 0
