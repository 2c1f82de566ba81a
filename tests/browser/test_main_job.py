"""What apiproxy is for: SDKs stream from a vendor over TLS while somebody edits the mapping in a browser.
The streams go on from the old target undisturbed; the next request goes to the new one."""

from __future__ import annotations

import threading

import pytest
from playwright.sync_api import expect

from support.sdk import ASK, MODEL, anthropic_client, openai_client
from support.vendor import Vendor


def openai_texts(url, authority):
    with openai_client(url, authority).chat.completions.create(model=MODEL, messages=ASK, stream=True) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


def anthropic_texts(url, authority):
    with anthropic_client(url, authority).messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream:
        yield from stream.text_stream


@pytest.mark.parametrize("texts", [openai_texts, anthropic_texts])
def test_a_stream_survives_the_edit_of_its_mapping(gateway, authority, tls_vendor, log_in, texts):
    prefix = gateway.route(tls_vendor.url)
    tls_vendor.gate = threading.Semaphore(4)
    stream = texts(gateway.url + prefix, authority)
    got = [next(stream)]

    with Vendor(tls=authority.server_context()) as other:
        page = log_in(gateway)
        row = page.get_by_role("row").filter(has_text=prefix)
        row.get_by_role("button", name="Edit").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Target").fill(other.url)
        dialog.get_by_role("button", name="Save").click()
        expect(row).to_contain_text(other.url)

        assert "".join(texts(gateway.url + prefix, authority)) == "".join(other.text)
        assert len(other.received) == 1, "the next request goes to the new target"

        tls_vendor.gate.release(10_000)
        got += list(stream)
        assert "".join(got) == "".join(tls_vendor.text), "the stream came whole from the old one"
        assert len(tls_vendor.received) == 1
