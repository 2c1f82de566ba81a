"""ACME against a real server of the protocol: a certificate comes, goes live, and faults are told."""

from __future__ import annotations

import ssl

import pytest
from cryptography import x509

from support.acme import Pebble, is_installed, trusting
from support.gateway import Gateway
from support.process import HeldPort, eventually

pytestmark = pytest.mark.skipif(not is_installed(), reason="needs uacme, pebble and unshare")

NAMES = ("one.example.com", "two.example.com")


@pytest.fixture(scope="module")
def wrapper(authority):
    found = trusting(authority)
    if not found:
        pytest.skip("mount namespaces are not permitted here")
    return found


@pytest.fixture
def http_port():
    port = HeldPort()
    yield port.number
    port.release()


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def acme_gateway(wrapper, pebble, http_port, **settings):
    return Gateway(
        tls=unverified(),
        wrapper=wrapper,
        API_PROXY_ACME="on",
        API_PROXY_ACME_DOMAINS=", ".join(NAMES),
        API_PROXY_ACME_EMAIL="operator@example.com",
        API_PROXY_ACME_DIRECTORY_URL=pebble.url,
        API_PROXY_ACME_HTTP_LISTEN=f"127.0.0.1:{http_port}",
        **settings,
    )


def served_certificate(gateway) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", gateway.port)).encode())


def issuer(certificate: x509.Certificate) -> str:
    return certificate.issuer.rfc4514_string()


def names_of(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName)


def test_certificate_comes_and_goes_live(authority, wrapper, http_port):
    with Pebble(authority, http_port) as pebble, acme_gateway(wrapper, pebble, http_port) as gateway:
        open_connection = gateway.connect()
        assert open_connection.request("GET", "/health").status == 200
        eventually(lambda: "Pebble" in issuer(served_certificate(gateway)), 60, 0.1)
        assert set(NAMES) <= set(names_of(served_certificate(gateway)))
        assert open_connection.request("GET", "/health").status == 200  # with the one it began with
        assert not list(gateway.data_dir.glob("acme/*/challenges/*"))

        # Another start has it at once and asks for no other.
        serial = served_certificate(gateway).serial_number
        gateway.restart()
        assert served_certificate(gateway).serial_number == serial


def test_plain_http_redirects(authority, wrapper, http_port):
    with Pebble(authority, http_port) as pebble, acme_gateway(wrapper, pebble, http_port) as gateway:
        def ask(method, target, headers=(("Host", "one.example.com:80"),)):
            return gateway.request(method, target, headers, port=http_port)

        base = f"https://one.example.com:{gateway.port}"
        answer = ask("GET", "/openai/v1?a=%2F&b")
        assert (answer.status, answer.header("location")) == (301, f"{base}/openai/v1?a=%2F&b")
        answer = ask("POST", "/x")
        assert (answer.status, answer.header("location")) == (308, f"{base}/x")
        assert ask("GET", "/.well-known/acme-challenge/unknown").status == 404
        assert ask("GET", "/.well-known/acme-challenge/../hook.sh").status == 404
        assert ask("GET", "/x", (("Host", "a b"),)).status == 400


def test_refused_certificate_is_reported(authority, wrapper, http_port):
    elsewhere = HeldPort()  # where nobody answers challenges
    with Pebble(authority, elsewhere.number) as pebble, acme_gateway(wrapper, pebble, http_port) as gateway:
        def faults():
            return [e["message"] for e in gateway.api("GET", "/errors").json()["errors"] if e["source"] == "acme"]

        message = eventually(faults, 60, 0.1)[0]
        assert NAMES[0] in message
        assert "apiproxy" in issuer(served_certificate(gateway))  # the self-signed one
        assert gateway.get("/health").status == 200
    elsewhere.release()
