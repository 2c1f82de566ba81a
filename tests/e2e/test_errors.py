"""Errors that apiproxy itself makes: status, code, and the dialect's shape."""

from __future__ import annotations

import time

import pytest

from support.gateway import Gateway
from support.wire import RawServer, request_bytes

ANTHROPIC_TYPES = {400: "invalid_request_error", 404: "not_found_error", 502: "api_error", 504: "timeout_error"}
GEMINI_STATUSES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 504: "DEADLINE_EXCEEDED"}


def check_shape(answer, dialect: str, status: int, code: str):
    assert (answer.status, answer.header("x-apiproxy-error")) == (status, code)
    assert answer.header("content-type").startswith("application/json")
    body = answer.json()
    if dialect == "openai":
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["code"] == code and body["error"]["param"] is None
        assert body["error"]["message"] and body["error"]["type"]
    elif dialect == "anthropic":
        assert body["type"] == "error" and {"type", "message"} <= set(body["error"])
        assert body["error"]["type"] == ANTHROPIC_TYPES[status] and body["error"]["message"]
    else:
        assert set(body) == {"error"} and body["error"]["code"] == status and body["error"]["message"]
        assert body["error"]["status"] == GEMINI_STATUSES.get(status, body["error"]["status"])
        assert body["error"]["status"].isupper()


DIALECTS = ["openai", "anthropic", "gemini"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_refused_upstream(gateway, dialect):
    with RawServer() as gone:
        url = gone.url
    check_shape(gateway.get(gateway.route(url, dialect=dialect) + "/"), dialect, 502, "upstream_error")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_late_upstream(gateway, server, dialect):
    prefix = gateway.route(server.url, dialect=dialect, timeout_seconds=1)
    check_shape(gateway.get(prefix + "/"), dialect, 504, "upstream_timeout")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_malformed_path(gateway, server, dialect):
    prefix = gateway.route(server.url, dialect=dialect)
    answer = gateway.get(prefix + "/..")
    assert (answer.status, answer.header("x-apiproxy-error")) == (400, "bad_request")
    assert "error" in answer.json()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_body_too_large(gateway, server, dialect):
    prefix = gateway.route(server.url, dialect=dialect, max_body_bytes=10)
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/", [], b"x" * 11))
    answer = client.read_response()
    assert (answer.status, answer.header("x-apiproxy-error")) == (413, "body_too_large")
    if dialect == "anthropic":
        assert answer.json()["error"]["type"] == "request_too_large"
    assert not server.pending(0.1)


def test_body_of_the_largest_size_passes(gateway, vendor):
    prefix = gateway.route(vendor.url, max_body_bytes=10)
    assert gateway.request("POST", prefix + "/", [], b"x" * 10).json()["length"] == 10


def test_chunked_body_too_large(gateway, server):
    prefix = gateway.route(server.url, max_body_bytes=10)
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/", [("Transfer-Encoding", "chunked")]) + b"8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n")
    assert client.read_response().status == 413


@pytest.mark.parametrize(
    "target,dialect",
    [
        ("https://api.openai.com", "openai"),
        ("https://api.anthropic.com", "anthropic"),
        ("https://generativelanguage.googleapis.com", "gemini"),
        ("https://api.deepseek.com/v1", "openai"),
    ],
)
def test_dialect_comes_from_the_targets_host(target, dialect):
    """Seen from the error of a vendor that cannot be reached: the way out is a dead proxy."""
    with Gateway(HTTPS_PROXY="http://127.0.0.1:9") as gateway:
        check_shape(gateway.get(gateway.route(target) + "/v1"), dialect, 502, "upstream_error")


def test_unmapped_path_speaks_openai(gateway):
    check_shape(gateway.get("/not/mapped"), "openai", 404, "no_mapping")


def test_head_of_an_error_has_no_body(gateway):
    client = gateway.connect()
    answer = client.request("HEAD", "/not/mapped")
    assert answer.status == 404 and answer.header("x-apiproxy-error") == "no_mapping"
    assert client.request("GET", "/health").status == 200


def test_own_error_keeps_the_connection_where_it_can(gateway):
    client = gateway.connect()
    for _ in range(3):
        assert client.request("POST", "/not/mapped", [], b"x" * 1000).status == 404
    assert client.request("GET", "/health").status == 200


def test_own_error_does_not_wait_for_the_body(gateway):
    client = gateway.connect()
    client.send(request_bytes("POST", "/not/mapped", [("Content-Length", "1000000")]))
    assert client.read_response().status == 404


def test_own_errors_have_a_date(gateway):
    assert gateway.get("/not/mapped").header("date")


def test_request_that_never_comes_is_408():
    with Gateway(API_PROXY_HEADER_TIMEOUT_SECONDS="1") as gateway:
        client = gateway.connect()
        client.send("GET /x HTTP/1.1\r\nHost:")
        answer = client.read_response()
        assert answer.status == 408
        assert client.wait_end(2)


def test_slow_head_does_not_stretch_its_time():
    """A byte now and then is no way around the time limit."""
    with Gateway(API_PROXY_HEADER_TIMEOUT_SECONDS="1") as gateway:
        client = gateway.connect()
        began = time.monotonic()
        client.send("GET /x HTTP/1.1\r\n")
        while client.silent(0.2):
            assert time.monotonic() - began < 4, "still waiting"
            client.send("a")
        assert client.read_response().status == 408


def test_quiet_kept_connection_is_closed():
    with Gateway(API_PROXY_IDLE_TIMEOUT_SECONDS="1") as gateway:
        client = gateway.connect()
        assert client.request("GET", "/health").status == 200
        assert client.silent(0.5)
        assert client.wait_end(3) == "fin"
