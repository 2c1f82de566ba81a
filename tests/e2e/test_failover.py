"""Vendor keys: which answers try the next one, and which say nothing about a key."""

from __future__ import annotations

import itertools
import json
import threading

import anthropic
import openai
import pytest
from google.genai import errors as gemini_errors

from support import sdk
from support.gateway import Gateway
from support.process import eventually
from support.redis_server import Redis
from support.vendor import Fault, Reply
from support.wire import request_bytes

numbers = itertools.count()
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()


@pytest.fixture(scope="module")
def gateway(authority):
    with Gateway(SSL_CERT_FILE=str(authority.bundle), CURL_CA_BUNDLE=str(authority.bundle)) as own:
        yield own


def pool_of(gateway, count: int, **more) -> str:
    name = f"pool{next(numbers)}"
    for n in range(count):
        answer = gateway.api("POST", "/api/keys", {"id": f"{name}-{n}", "pool": name, "key": f"vendor-{name}-{n}", **more})
        assert answer.status == 201, answer.body
    return name


def health(gateway, pool: str) -> list[str]:
    keys = gateway.api("GET", "/api/keys").json()["keys"]
    return sorted(key["health"]["state"] for key in keys if key["pool"] == pool)


def ask(gateway, prefix, path="/v1/chat/completions", body=BODY, headers=()):
    return gateway.request("POST", prefix + path, list(headers), body)


# -- where the key goes


@pytest.mark.parametrize(
    "dialect,field,value",
    [("openai", "authorization", "Bearer {}"), ("anthropic", "x-api-key", "{}"), ("gemini", "x-goog-api-key", "{}")],
)
def test_the_key_goes_where_the_dialect_has_it(gateway, vendor, dialect, field, value):
    pool = pool_of(gateway, 1)
    prefix = gateway.route(vendor.url, dialect=dialect, pool=pool)
    ask(gateway, prefix, headers=[("X-First", "1"), (field, value.format("clients-own")), ("X-Last", "2")])
    assert vendor.received[0].request.head.all(field) == [value.format(f"vendor-{pool}-0")]
    assert b"clients-own" not in vendor.received[0].raw


def test_the_key_goes_where_the_mapping_says(gateway, vendor):
    pool = pool_of(gateway, 1)
    prefix = gateway.route(vendor.url, pool=pool, key_header="api-key")
    ask(gateway, prefix)
    assert vendor.received[0].request.head.all("api-key") == [f"vendor-{pool}-0"]
    assert "authorization" not in vendor.received[0].request.head


def test_all_else_passes_as_it_was(gateway, server):
    pool = pool_of(gateway, 1)
    prefix = gateway.route(server.url, pool=pool)
    client = gateway.connect()
    fields = [("X-One", "1"), ("x-two", ""), ("X-One", "3"), ("anthropic-beta", "a,b"), ("Content-Type", "application/json")]
    client.send(request_bytes("POST", prefix + "/v1/x?beta=true&a=%2F&a", fields, b"{ not JSON"))
    request = server.accept().read_request()
    assert request.target == "/v1/x?beta=true&a=%2F&a" and request.body == b"{ not JSON"
    kept = request.head.without("host", "authorization", "content-length")
    assert kept == [(n.encode(), v.encode()) for n, v in fields]


# -- which failures try the next key


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503, 504, 529])
def test_the_next_key_is_tried(gateway, vendor, status):
    pool = pool_of(gateway, 2)
    prefix = gateway.route(vendor.url, pool=pool)
    vendor.script(Reply(status, {"retry-after": "1"}))
    assert ask(gateway, prefix).status == 200
    used = [r.header("authorization") for r in vendor.received]
    assert len(set(used)) == 2 and [r.body for r in vendor.received] == [BODY, BODY]
    states = eventually(lambda: (s := health(gateway, pool)) and (status not in (401, 403, 429, 503) or "cooling" in s) and s, 3)
    assert states == (["cooling", "ok"] if status in (401, 403, 429, 503) else ["ok", "ok"])


@pytest.mark.parametrize("kind", ["close_before_head", "reset_before_head"])
def test_a_connection_that_ends_tries_the_next_key(gateway, vendor, kind):
    pool = pool_of(gateway, 2)
    prefix = gateway.route(vendor.url, pool=pool)
    vendor.script(Fault(kind))
    assert ask(gateway, prefix).status == 200
    assert len({r.header("authorization") for r in vendor.received}) == 2


@pytest.mark.parametrize("status", [400, 402, 404, 405, 408, 409, 413, 415, 422, 501])
def test_the_clients_own_errors_harm_no_key(gateway, vendor, status):
    pool = pool_of(gateway, 2)
    prefix = gateway.route(vendor.url, pool=pool)
    for _ in range(4):
        vendor.script(Reply(status, {"x-from": "vendor"}))
        answer = ask(gateway, prefix)
        assert (answer.status, answer.header("x-from")) == (status, "vendor")
    assert len(vendor.received) == 4 and health(gateway, pool) == ["ok", "ok"]


def test_each_key_is_tried_once_and_the_last_answer_passes(gateway, vendor):
    pool = pool_of(gateway, 3)
    prefix = gateway.route(vendor.url, pool=pool)
    vendor.script(*[Reply(500, {"x-turn": str(n)}, f"body {n}") for n in range(5)])
    answer = ask(gateway, prefix)
    assert (answer.status, answer.header("x-turn"), answer.body) == (500, "2", b"body 2")
    assert answer.header("x-apiproxy-error") is None
    assert len({r.header("authorization") for r in vendor.received}) == len(vendor.received) == 3


def test_no_next_key_once_the_answer_began(gateway, vendor):
    pool = pool_of(gateway, 2)
    prefix = gateway.route(vendor.url, pool=pool)
    vendor.script(Fault("close_in_body"))
    with pytest.raises(Exception):
        ask(gateway, prefix)
    assert len(vendor.received) == 1


@pytest.mark.parametrize("size,tries", [(1 << 20, 2), ((1 << 20) + 1, 1)])
def test_bodies_are_held_up_to_a_mebibyte(gateway, vendor, size, tries):
    pool = pool_of(gateway, 2)
    prefix = gateway.route(vendor.url, pool=pool)
    vendor.script(Reply(500))
    answer = ask(gateway, prefix, "/x", b"x" * size)
    assert len(vendor.received) == tries and answer.status == (200 if tries == 2 else 500)
    assert all(len(r.body) == size for r in vendor.received)


def test_chunked_bodies_are_held_too(gateway, vendor):
    pool = pool_of(gateway, 2)
    prefix = gateway.route(vendor.url, pool=pool)
    vendor.script(Reply(503))
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/x", [("Transfer-Encoding", "chunked")]) + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert client.read_response().status == 200
    assert [r.body for r in vendor.received] == [b"abcde"] * 2
    assert [r.request.framing for r in vendor.received] == ["chunked"] * 2


def test_hang_up_between_tries_ends_them(gateway, vendor):
    pool = pool_of(gateway, 2)
    prefix = gateway.route(vendor.url, pool=pool)
    client = gateway.connect()
    gone = threading.Event()

    def hang_up(connection, _):
        client.close()
        gone.wait(1)
        connection.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    vendor.script(hang_up)
    client.send(request_bytes("POST", prefix + "/x", [], BODY))
    vendor.wait(1)
    gone.wait(1.5)
    assert len(vendor.received) == 1


def test_three_failures_in_a_row_cool_a_key(gateway, vendor):
    pool = pool_of(gateway, 1)
    prefix = gateway.route(vendor.url, pool=pool)
    for turn in range(3):
        assert health(gateway, pool) == ["ok"], turn
        vendor.script(Reply(500))
        assert ask(gateway, prefix).status == 500
    eventually(lambda: health(gateway, pool) == ["cooling"], 2)
    answer = ask(gateway, prefix)
    assert answer.status in (429, 503) and answer.header("x-apiproxy-error") in ("upstream_rate_limit", "no_upstream_key")
    assert len(vendor.received) == 3
    assert gateway.api("POST", f"/api/keys/{pool}-0/reset").status == 200
    assert ask(gateway, prefix).status == 200 and health(gateway, pool) == ["ok"]


def test_a_success_between_failures_keeps_a_key(gateway, vendor):
    pool = pool_of(gateway, 1)
    prefix = gateway.route(vendor.url, pool=pool)
    for _ in range(3):
        vendor.script(Reply(500), Reply(500), None)
        assert [ask(gateway, prefix).status for _ in range(3)] == [500, 500, 200]
    assert health(gateway, pool) == ["ok"]


def test_no_key_at_all(gateway, vendor):
    prefix = gateway.route(vendor.url, pool="nobody-has-made-this")
    answer = ask(gateway, prefix)
    assert (answer.status, answer.header("x-apiproxy-error")) == (503, "no_upstream_key")
    assert vendor.received == []


def test_health_is_shared_by_nodes(vendor):
    with Redis() as redis:
        settings = {"API_PROXY_REDIS_URL": redis.url, "API_PROXY_MASTER_KEY": "5a" * 32}
        with Gateway(**settings) as one, Gateway(**settings) as two:
            pool = pool_of(one, 1)
            prefix = one.route(vendor.url, pool=pool)
            eventually(lambda: ask(two, prefix).status == 200, 3)
            count = len(vendor.received)
            vendor.script(Reply(429, {"retry-after": "30"}))
            assert ask(one, prefix).status == 429
            answer = eventually(lambda: (a := ask(two, prefix)).status == 429 and a, 2)
            assert answer.header("x-apiproxy-error") == "upstream_rate_limit" and 1 <= int(answer.header("retry-after")) <= 30
            assert len(vendor.received) <= count + 2
        assert b"vendor-" not in str(redis.client.hgetall("apiproxy:keys")).encode(), "encrypted at rest"


def test_wrong_master_key_leaves_keys_untouched(vendor):
    with Redis() as redis:
        with Gateway(API_PROXY_REDIS_URL=redis.url, API_PROXY_MASTER_KEY="5a" * 32) as one:
            pool = pool_of(one, 1)
            prefix = one.route(vendor.url, pool=pool)
        before = redis.client.hgetall("apiproxy:keys")
        with Gateway(API_PROXY_REDIS_URL=redis.url, API_PROXY_MASTER_KEY="a5" * 32) as two:
            assert ask(two, prefix).header("x-apiproxy-error") == "no_upstream_key"
            assert f"{pool}-0" in two.api("GET", "/errors").body.decode()
            assert redis.client.hgetall("apiproxy:keys") == before
        with Gateway(API_PROXY_REDIS_URL=redis.url, API_PROXY_MASTER_KEY="5a" * 32) as three:
            assert ask(three, prefix).status == 200


# -- what the SDKs' users see of managed mappings


def client_key(gateway, **limits) -> str:
    answer = gateway.api("POST", "/api/clients", {"id": f"sdk{next(numbers)}", "name": "n", **limits})
    return answer.json()["key"]


@pytest.mark.parametrize("call", sdk.CALLS, ids=lambda call: call.__name__)
def test_sdk_calls_with_client_and_vendor_keys(gateway, authority, tls_vendor, call, monkeypatch):
    key = client_key(gateway, rpm=100, input_tpm=100_000, output_tpm=100_000)
    dialect = {"messages": "anthropic", "messages_stream": "anthropic", "anthropic_models": "anthropic", "generate": "gemini", "generate_stream": "gemini"}
    pool = pool_of(gateway, 1)
    tls_vendor.accepted_keys = {f"vendor-{pool}-0"}
    prefix = gateway.route(tls_vendor.url, dialect=dialect.get(call.__name__, "openai"), auth="required", pool=pool)
    for name in ("openai_client", "anthropic_client", "gemini_client"):
        plain = getattr(sdk, name)
        monkeypatch.setattr(sdk, name, lambda url, ca, plain=plain: plain(url, ca, api_key=key))
    call(gateway.url + prefix, authority, tls_vendor)
    assert key.encode() not in tls_vendor.received[0].raw


def test_sdk_exceptions_of_refusals(gateway, authority, vendor):
    spent = client_key(gateway, rpm=1)
    routes = {d: gateway.url + gateway.route(vendor.url, dialect=d, auth="required") for d in ("openai", "anthropic", "gemini")}

    def chat(key):
        return sdk.openai_client(routes["openai"], authority, api_key=key).chat.completions.create(model="m", messages=sdk.ASK)

    def message(key):
        return sdk.anthropic_client(routes["anthropic"], authority, api_key=key).messages.create(model="m", max_tokens=9, messages=sdk.ASK)

    def generate(key):
        client = sdk.gemini_client(routes["gemini"], authority, api_key=key)
        return client.models.generate_content(model="m", contents="Hi")

    for call, kind in ((chat, openai.AuthenticationError), (message, anthropic.AuthenticationError)):
        with pytest.raises(kind):
            call("sk-ap-wrong")
    with pytest.raises(gemini_errors.ClientError) as error:
        generate("sk-ap-wrong")
    assert (error.value.code, error.value.status) == (401, "UNAUTHENTICATED")

    assert chat(spent)
    with pytest.raises(openai.RateLimitError) as error:
        chat(spent)
    assert error.value.code == "rate_limit" and 1 <= int(error.value.response.headers["retry-after"]) <= 60
    assert error.value.response.headers["x-ratelimit-limit-requests"] == "1"
    assert error.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(anthropic.RateLimitError) as error:
        message(spent)
    assert error.value.body["error"]["type"] == "rate_limit_error"
    assert error.value.response.headers["anthropic-ratelimit-requests-limit"] == "1"
    with pytest.raises(gemini_errors.ClientError) as error:
        generate(spent)
    assert (error.value.code, error.value.status) == (429, "RESOURCE_EXHAUSTED")

    forbidden = client_key(gateway, mappings=["/elsewhere"])
    with pytest.raises(openai.PermissionDeniedError):
        chat(forbidden)
    with pytest.raises(anthropic.PermissionDeniedError):
        message(forbidden)


def test_preflight_needs_no_credential(vendor):
    with Gateway(API_PROXY_CORS_ORIGINS="*") as own:
        prefix = own.route(vendor.url, auth="required")
        answer = own.request("OPTIONS", prefix + "/v1", [("Origin", "https://a.test"), ("Access-Control-Request-Method", "POST")])
        assert answer.status in (200, 204) and answer.header("access-control-allow-origin")
        refused = own.request("POST", prefix + "/v1", [("Origin", "https://a.test")], b"{}")
        assert refused.status == 401 and refused.header("access-control-allow-origin"), "a page may read why"


def test_strangers_bodies_are_not_read(gateway, vendor):
    prefix = gateway.route(vendor.url, auth="required")
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/x", [("Content-Length", "1000000000")]))
    assert client.read_response().status == 401
