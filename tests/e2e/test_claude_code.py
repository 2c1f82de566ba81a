"""What Claude Code asks of a gateway: with its own credentials, limits, and vendor keys that fail over."""

from __future__ import annotations

import json

import pytest

from support import sdk
from support.managed import MESSAGES, Nodes, bearer, chat_body, fault_of, name
from support.vendor import Fault, Reply
from support.wire import RawServer, chunk, request_bytes

OVERLOADED = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"})
# As it sends them, in its order and case; the credentials are put where a test wants them.
FIELDS = [
    ("Accept", "application/json"),
    ("X-Stainless-Retry-Count", "0"),
    ("X-Stainless-Timeout", "600"),
    ("User-Agent", "claude-cli/2.1.0 (external, cli)"),
    ("anthropic-dangerous-direct-browser-access", "true"),
    ("anthropic-version", "2023-06-01"),
    ("x-app", "cli"),
    ("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14"),
    ("anthropic-beta", "another-one"),
    ("Content-Type", "application/json"),
    ("accept-encoding", "br, gzip, deflate"),
]
CREDENTIALS = ("authorization", "x-api-key")


@pytest.fixture(scope="module")
def one():
    with Nodes(1) as nodes:
        yield nodes


class Claude:
    """A mapping as its documentation sets one up, a client's key, and two vendor keys."""

    def __init__(self, one, target: str, **limits):
        self.gateway = one[0]
        self.keys = [name("cc") for _ in range(2)]
        self.prefix = one.map(target, auth="required", dialect="anthropic", pool=one.pool(*self.keys))
        self.key = one.client(**limits)

    def fields(self) -> list[tuple[str, str]]:
        return [*FIELDS[:4], *bearer(self.key), *FIELDS[4:], ("x-api-key", self.key)]

    def ask(self, method: str, target: str, body: bytes | None = None):
        return self.gateway.request(method, self.prefix + target, self.fields(), body)


def test_path_query_and_fields_are_kept_and_both_credentials_replaced(one, vendor):
    claude = Claude(one, vendor.url)
    body = chat_body(max_tokens=5, metadata={"user_id": "u"})
    assert claude.ask("POST", "/v1/messages?beta=true", body).status == 200
    seen = vendor.received[0]
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/messages?beta=true", body)
    fields = [(n.decode(), v.decode()) for n, v in seen.request.head.without("host", "content-length", *CREDENTIALS)]
    assert fields == FIELDS
    assert "authorization" not in seen.request.head
    assert seen.request.head.all("x-api-key") in [["secret-" + key] for key in claude.keys]
    assert claude.key.encode() not in seen.raw


@pytest.mark.parametrize(
    "method, target", [("HEAD", "/api/hello"), ("GET", "/v1/models?limit=1000"), ("GET", "/v1/models/sim-1?beta=true"), ("HEAD", "/")]
)
def test_what_it_asks_besides(one, vendor, method, target):
    claude = Claude(one, vendor.url)
    answer = claude.ask(method, target)
    assert answer.status == 200 and (method == "GET" or answer.body == b"")
    assert (vendor.received[0].method, vendor.received[0].target) == (method, target)


def test_hello_without_a_credential(one, vendor):
    """An answer, so that it knows the gateway is there; nothing goes to the vendor."""
    claude = Claude(one, vendor.url)
    answer = claude.gateway.request("HEAD", claude.prefix + "/api/hello")
    assert fault_of(answer) == (401, "invalid_credentials") and answer.body == b"" and not vendor.received


def test_counting_tokens_takes_none(one, vendor):
    """It counts the whole conversation before it sends it: that must not eat up the limit twice."""
    claude = Claude(one, vendor.url, input_tpm=1000, output_tpm=1000, rpm=50)
    body = json.dumps({"model": "sim-1", "max_tokens": 900, "messages": [{"role": "user", "content": "word " * 700}]}).encode()
    for count in range(1, 6):
        vendor.script(Reply(200, {}, {"input_tokens": 2095}))
        answer = claude.ask("POST", "/v1/messages/count_tokens?beta=true", body)
        assert (answer.status, answer.json()) == (200, {"input_tokens": 2095})
        assert answer.header("x-apiproxy-remaining-input-tokens") == answer.header("x-apiproxy-remaining-output-tokens") == "1000"
        assert answer.header("x-apiproxy-remaining-requests") == str(50 - count)
    assert vendor.received[0].target == "/v1/messages/count_tokens?beta=true" and vendor.received[0].body == body
    counted = claude.ask("POST", MESSAGES, body)
    assert counted.status == 200 and int(counted.header("x-apiproxy-remaining-input-tokens")) < 200


@pytest.mark.parametrize("path", ["/v1/responses/input_tokens", "/v1beta/models/sim-1:countTokens"])
def test_other_vendors_counting_takes_none_either(one, vendor, path):
    prefix, key = one.map(vendor.url, auth="required", reserve_output_tokens=500), one.client(input_tpm=10, output_tpm=10)
    body = json.dumps({"input": "word " * 700, "max_output_tokens": 100}).encode()
    answer = one[0].request("POST", prefix + path, bearer(key), body)
    assert answer.status == 200 and answer.header("x-apiproxy-remaining-input-tokens") == "10"
    near = one[0].request("POST", prefix + path + "_", bearer(key), body)
    assert fault_of(near) == (429, "rate_limit")


def test_stream_with_pings_arrives_as_it_comes(one):
    events = [
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n',
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b": comment\n\n",
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"\xc3\xa4"}}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
    ]
    with RawServer() as server:
        claude = Claude(one, server.url, rpm=5)
        client = claude.gateway.connect()
        client.send(request_bytes("POST", claude.prefix + "/v1/messages?beta=true", claude.fields(), chat_body(stream=True)))
        upstream = server.accept()
        upstream.read_request()
        upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nrequest-id: req_1\r\nTransfer-Encoding: chunked\r\n\r\n")
        head, _ = client.read_response_head()
        assert head.get("request-id") == "req_1" and head.get("x-accel-buffering") == "no"
        for event in events:
            upstream.send(chunk(event))
            assert client.read_chunk() == event
        upstream.send("0\r\n\r\n")
        assert client.read_chunk() == b""


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_its_own_errors_pass_as_they_are(one, vendor, status):
    claude = Claude(one, vendor.url)
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 1 > 0"},"request_id":"req_2"}'
    vendor.script(Reply(status, {"request-id": "req_2", "x-should-retry": "false"}, body))
    answer = claude.ask("POST", "/v1/messages?beta=true", chat_body())
    assert (answer.status, answer.body) == (status, body) and len(vendor.received) == 1
    assert (answer.header("request-id"), answer.header("x-should-retry")) == ("req_2", "false")


@pytest.mark.parametrize("status", [429, 529])
def test_when_every_key_is_overloaded_it_hears_so_itself(one, vendor, status):
    """With what its own retries go by, and the vendor's figures beside the gateway's."""
    claude = Claude(one, vendor.url, rpm=5)
    told = {"retry-after": "3", "retry-after-ms": "2500", "x-should-retry": "true", "request-id": "req_1"}
    told |= {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-requests-remaining": "0"}
    vendor.script(Reply(status, told, OVERLOADED), Reply(status, told, OVERLOADED))
    answer = claude.ask("POST", "/v1/messages?beta=true", chat_body())
    assert (answer.status, answer.body.decode()) == (status, OVERLOADED) and len(vendor.received) == 2
    assert {field: answer.head.all(field) for field in told} == {field: [value] for field, value in told.items()}
    assert answer.header("x-apiproxy-remaining-requests") == "4" and "x-apiproxy-error" not in answer.head


def test_preflight_is_answered_first(vendor):
    with Nodes(1, API_PROXY_CORS_ORIGINS="*") as nodes:
        claude = Claude(nodes, vendor.url)
        asked = [("Origin", "https://app.test"), ("Access-Control-Request-Method", "POST")]
        asked.append(("Access-Control-Request-Headers", "x-api-key,anthropic-version"))
        answer = nodes[0].request("OPTIONS", claude.prefix + MESSAGES, asked)
        assert answer.status in (200, 204) and answer.header("access-control-allow-origin") in ("*", "https://app.test")
        assert "anthropic-version" in answer.header("access-control-allow-headers") and not vendor.received


# -- the SDKs do not see that a key has failed


FAULTS = {"429": Reply(429, {"retry-after": "30"}, OVERLOADED), "closed": Fault("close_before_head")}
DIALECTS = {"messages": "anthropic", "anthropic": "anthropic", "generate": "gemini"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", sdk.CALLS, ids=lambda call: call.__name__)
def test_no_sdk_sees_a_key_that_fails(one, authority, vendor, call, fault):
    dialect = DIALECTS.get(call.__name__.split("_")[0], "openai")
    prefix = one.map(vendor.url, dialect=dialect, pool=one.pool(name("cc"), name("cc")))
    vendor.script(FAULTS[fault])
    call(one[0].url + prefix, authority, vendor)
    assert len(vendor.received) == 2 and vendor.received[0].body == vendor.received[1].body


def test_sdk_counts_tokens(one, authority, vendor):
    prefix, key = one.map(vendor.url, auth="required", dialect="anthropic"), one.client(input_tpm=5)
    client = sdk.anthropic_client(one[0].url + prefix, authority, api_key=key)
    vendor.script(Reply(200, {}, {"input_tokens": 14}))
    answer = client.messages.count_tokens(model="sim-1", messages=[{"role": "user", "content": "word " * 100}])
    assert answer.input_tokens == 14


def test_sdk_stream_that_breaks_after_the_first_event_is_not_tried_again(one, authority, vendor):
    prefix = one.map(vendor.url, dialect="anthropic", pool=one.pool(name("cc"), name("cc")))
    vendor.script(Fault("close_in_body", after=300))
    with pytest.raises(Exception) as error:
        with sdk.anthropic_client(one[0].url + prefix, authority).messages.stream(
            model="sim-1", max_tokens=64, messages=sdk.ASK
        ) as stream:
            list(stream.text_stream)
    assert "incomplete" in str(error.value) or "peer closed" in str(error.value), error.value
    assert len(vendor.received) == 1
