"""The simulator itself, driven by the vendors' SDKs without a gateway: it speaks as they do."""

from __future__ import annotations

import threading

import anthropic
import openai
import pytest

from support import sdk
from support.vendor import Fault, Reply
from support.wire import Broken, Closed, RawClient

ASK = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("call", sdk.CALLS, ids=lambda call: call.__name__)
def test_every_sdk_call_works(tls_vendor, authority, call):
    call(tls_vendor.url, authority, tls_vendor)
    assert tls_vendor.received[0].raw.endswith(b"\r\n\r\n")


def test_requests_are_kept_byte_for_byte(vendor):
    raw = b"POST /a?b=%2F HTTP/1.1\r\nHost: x\r\nX-oDD:  y \r\nContent-Length: 2\r\n\r\nhi"
    with RawClient(vendor.port) as client:
        client.send(raw)
        assert client.read_response().status == 200
    assert vendor.received[0].raw + vendor.received[0].body == raw


def test_script_runs_in_order(vendor):
    vendor.script(Reply(500), Reply(429, {"retry-after": "3"}), None)
    with RawClient(vendor.port) as client:
        answers = [client.request("GET", "/") for _ in range(3)]
    assert [answer.status for answer in answers] == [500, 429, 200]
    assert answers[1].header("retry-after") == "3"


@pytest.mark.parametrize("kind", ["close_before_head", "reset_before_head", "close_in_head"])
def test_faults_before_an_answer(vendor, kind):
    vendor.script(Fault(kind))
    with RawClient(vendor.port) as client, pytest.raises(Closed):
        client.request("GET", "/")


@pytest.mark.parametrize("kind", ["close_in_body", "reset_in_body"])
def test_faults_in_a_body(vendor, kind):
    vendor.script(Fault(kind))
    with RawClient(vendor.port) as client, pytest.raises(Broken) as broken:
        client.request("GET", "/")
    assert len(broken.value.body) <= 20


def test_a_hang_up_during_a_stall_is_noted(vendor):
    vendor.script(Fault("stall_in_body"))
    client = RawClient(vendor.port)
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.read_head()
    client.close()
    for _ in range(200):
        if vendor.wait()[0].hung_up:
            return
        threading.Event().wait(0.02)
    raise AssertionError("the hang-up was not noted")


def test_wrong_keys_raise_the_sdks_exceptions(vendor):
    vendor.accepted_keys = {"good"}
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=vendor.url + "/v1", api_key="bad", max_retries=0).models.list()
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=vendor.url, api_key="bad", max_retries=0).messages.create(
            model="m", max_tokens=9, messages=ASK
        )


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_answers(vendor, encoding):
    vendor.encoding = encoding
    client = openai.OpenAI(base_url=vendor.url + "/v1", api_key="k", max_retries=0)
    assert client.chat.completions.create(model="m", messages=ASK).usage.prompt_tokens == 11
