"""The vendors' own SDKs through the gateway to simulators over TLS, as users have it."""

from __future__ import annotations

import threading

import anthropic
import openai
import pytest
from google.genai import errors as gemini_errors

from support import sdk
from support.process import eventually
from support.vendor import Fault, Reply
from support.wire import RawServer


@pytest.mark.parametrize("call", sdk.CALLS, ids=lambda call: call.__name__)
def test_call(gateway, authority, tls_vendor, call):
    prefix = gateway.route(tls_vendor.url)
    call(gateway.url + prefix, authority, tls_vendor)
    assert tls_vendor.received[0].header("host") == f"localhost:{tls_vendor.port}"


@pytest.mark.parametrize("call", [sdk.chat, sdk.messages, sdk.generate, sdk.chat_stream], ids=lambda call: call.__name__)
def test_compressed_answers(gateway, authority, tls_vendor, call):
    tls_vendor.encoding = "gzip"
    call(gateway.url + gateway.route(tls_vendor.url), authority, tls_vendor)


def test_stream_arrives_piece_by_piece(gateway, authority, tls_vendor):
    tls_vendor.gate = threading.Semaphore(0)
    client = sdk.openai_client(gateway.url + gateway.route(tls_vendor.url), authority)
    tls_vendor.gate.release()
    stream = client.chat.completions.create(model="m", messages=sdk.ASK, stream=True)
    for piece in tls_vendor.text:  # the next event leaves the vendor only after this one was read
        assert next(stream).choices[0].delta.content == piece
        tls_vendor.gate.release()
    tls_vendor.gate.release(10)
    assert [chunk.choices[0].finish_reason for chunk in stream] == ["stop"]


def test_anthropic_pings_and_events_pass(gateway, authority, tls_vendor):
    client = sdk.anthropic_client(gateway.url + gateway.route(tls_vendor.url), authority)
    stream = client.messages.create(model="m", max_tokens=9, messages=sdk.ASK, stream=True)
    kinds = [event.type for event in stream]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"


def test_closing_a_stream_ends_the_vendors_work(gateway, authority, tls_vendor):
    tls_vendor.script(Fault("stall_in_body", after=400))
    client = sdk.openai_client(gateway.url + gateway.route(tls_vendor.url), authority)
    stream = client.chat.completions.create(model="m", messages=sdk.ASK, stream=True)
    next(stream)
    stream.close()
    eventually(lambda: tls_vendor.received[0].hung_up, 2, what="the vendor notices")


def test_vendors_headers_reach_the_client(gateway, authority, tls_vendor):
    tls_vendor.headers = {"x-ratelimit-remaining-requests": "41", "x-request-id": "req_9"}
    client = sdk.openai_client(gateway.url + gateway.route(tls_vendor.url), authority)
    raw = client.chat.completions.with_raw_response.create(model="m", messages=sdk.ASK)
    assert raw.headers["x-ratelimit-remaining-requests"] == "41" and raw.request_id == "req_9"


@pytest.mark.parametrize(
    "status,kind",
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_vendors_errors_stay_the_vendors(gateway, authority, tls_vendor, status, kind):
    tls_vendor.script(Reply(status, {"x-from": "vendor"}))
    client = sdk.openai_client(gateway.url + gateway.route(tls_vendor.url), authority)
    with pytest.raises(kind) as error:
        client.chat.completions.create(model="m", messages=sdk.ASK)
    assert error.value.response.headers["x-from"] == "vendor"
    assert "x-apiproxy-error" not in error.value.response.headers


def test_sdk_retries_what_the_vendor_asks_for(gateway, authority, tls_vendor):
    tls_vendor.script(Reply(429, {"retry-after-ms": "10"}), Reply(500, {"retry-after-ms": "10"}), None)
    client = sdk.openai_client(gateway.url + gateway.route(tls_vendor.url), authority, max_retries=2)
    assert client.chat.completions.create(model="m", messages=sdk.ASK).id == "chatcmpl-sim"
    assert len(tls_vendor.received) == 3


# -- the gateway's own errors, as the SDKs raise them


@pytest.fixture
def dead(gateway):
    with RawServer() as gone:
        url = gone.url
    return lambda dialect: gateway.url + gateway.route(url, dialect=dialect)


def test_openai_sees_a_server_error(dead, authority):
    with pytest.raises(openai.InternalServerError) as error:
        sdk.openai_client(dead("openai"), authority).chat.completions.create(model="m", messages=sdk.ASK)
    assert error.value.status_code == 502 and error.value.code == "upstream_error"


def test_anthropic_sees_a_server_error(dead, authority):
    with pytest.raises(anthropic.InternalServerError) as error:
        sdk.anthropic_client(dead("anthropic"), authority).messages.create(model="m", max_tokens=9, messages=sdk.ASK)
    assert error.value.status_code == 502 and error.value.body["error"]["type"] == "api_error"


def test_gemini_sees_a_server_error(dead, authority):
    client = sdk.gemini_client(dead("gemini"), authority)
    with pytest.raises(gemini_errors.ServerError) as error:
        client.models.generate_content(model="m", contents="Hi")
    assert error.value.code == 502


def test_unmapped_path_is_not_found(gateway, authority):
    with pytest.raises(openai.NotFoundError):
        sdk.openai_client(gateway.url + "/unmapped", authority).models.list()


def test_broken_stream_is_an_error_for_the_sdk(gateway, authority, tls_vendor):
    tls_vendor.script(Fault("reset_in_body", after=600))
    client = sdk.openai_client(gateway.url + gateway.route(tls_vendor.url), authority)
    with pytest.raises(Exception) as error:
        for _ in client.chat.completions.create(model="m", messages=sdk.ASK, stream=True):
            pass
    assert "incomplete" in str(error.value).lower() or "peer closed" in str(error.value).lower() or "connection" in str(error.value).lower()


def test_mapping_is_edited_while_a_stream_runs(gateway, authority, tls_vendor, vendor):
    tls_vendor.gate = threading.Semaphore(2)
    prefix = gateway.route(tls_vendor.url)
    client = sdk.openai_client(gateway.url + prefix, authority)
    stream = client.chat.completions.create(model="m", messages=sdk.ASK, stream=True)
    assert next(stream).choices[0].delta.content == tls_vendor.text[0]
    assert gateway.api("PUT", "/api/mappings" + prefix, {"target": vendor.url}).status == 200
    assert sdk.openai_client(gateway.url + prefix, authority).models.list().data[0].id == sdk.MODEL
    assert [r.path for r in vendor.received] == ["/v1/models"]
    gateway.unmap(prefix)
    tls_vendor.gate.release(20)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == "".join(tls_vendor.text[1:])


@pytest.mark.concurrency
def test_many_sdk_calls_at_once(gateway, authority, tls_vendor):
    url = gateway.url + gateway.route(tls_vendor.url)
    failures = []

    def run(call):
        try:
            for _ in range(3):
                call(url, authority, tls_vendor)
        except Exception as error:  # handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in sdk.CALLS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
