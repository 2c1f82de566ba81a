"""include_usage: the one case in which a body is changed, and only that one."""

from __future__ import annotations

import gzip
import json

import pytest

from support.managed import Nodes, bearer
from support.vendor import Reply
from support.wire import chunk, chunked, request_bytes

# The body, and what is put in. Everything else stays byte for byte.
ALL, FIRST, ONLY = b'"stream_options":{"include_usage":true},', b'"include_usage":true,', b'"include_usage":true'
CHANGED = [
    (b'{"model":"m","messages":[],"stream":true}', ALL),
    (b' {\n "stream" : true , "messages":[{"content":"\xc3\xa4 \\u00e4 \\/"}], "n": 1.0e0 }\n', ALL),
    (b'{"prompt":"x","stream":true}', ALL),
    (b'{"stream":true}', ALL),
    (b'{"messages":[{"stream_options":{"include_usage":true}}],"stream":true}', ALL),
    (b'{"messages":[],"stream":true,"stream_options":{}}', ONLY),
    (b'{"messages":[],"stream":true,"stream_options":{ }}', ONLY),
    (b'{"messages":[],"stream_options":{"include_obfuscation":false},"stream":true}', FIRST),
    (b'{"messages":[],"stream_options": {\t"x":{"y":[1]}},"stream":true}', FIRST),
]
REPLACED = [
    (b'{"messages":[],"stream":true,"stream_options":null,"n":1}', b"null", b'{"include_usage":true}'),
    (b'{"messages":[],"stream":true,"stream_options":{"include_usage":false,"x":1}}', b"false", b"true"),
]
KEPT = [
    b'{"messages":[],"stream":true,"stream_options":{"include_usage":true}}',
    b'{"messages":[],"stream":false}',
    b'{"messages":[],"stream":"true"}',
    b'{"messages":[]}',
    b'{"input":{"stream":true}}',
    b'{"messages":[],"stream":true',
    b"[]",
    b"",
    b"not JSON",
    gzip.compress(b'{"messages":[],"stream":true}', mtime=0),
]
FRAMINGS = ["length", "chunked", "bytes"]


@pytest.fixture(scope="module")
def one():
    with Nodes(1) as nodes:
        yield nodes


def send(one, vendor, prefix: str, body: bytes, framing: str, fields=(), path: str = "/v1/chat/completions"):
    """What reached the vendor; the connection goes on after it."""
    vendor.script(Reply(body={}))
    client = one[0].connect()
    if framing == "chunked":
        parts = [part for part in (body[:5], body[5:]) if part]
        client.send(request_bytes("POST", prefix + path, [*fields, ("Transfer-Encoding", "chunked")], chunked(*parts)))
    elif framing == "bytes":
        client.send_pieces(request_bytes("POST", prefix + path, fields, body))
    else:
        client.send(request_bytes("POST", prefix + path, fields, body))
    assert client.read_response().status == 200
    assert client.request("GET", prefix + "/y", fields).status == 200
    received = vendor.received[0]
    framed = [received.request.head.all("content-length"), received.request.head.all("transfer-encoding")]
    assert framed == ([[], ["chunked"]] if framing == "chunked" else [[str(len(received.body))], []])
    return received


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("body, put_in", CHANGED)
def test_it_is_put_in(one, vendor, body, put_in, framing):
    sent = send(one, vendor, one.map(vendor.url, include_usage=True), body, framing).body
    assert json.loads(sent)["stream_options"]["include_usage"] is True
    assert put_in in sent and sent.replace(put_in, b"", 1) == body


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("body, old, new", REPLACED)
def test_it_replaces(one, vendor, body, old, new, framing):
    sent = send(one, vendor, one.map(vendor.url, include_usage=True), body, framing).body
    assert sent == body.replace(old, new, 1)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("body", KEPT)
def test_others_are_kept(one, vendor, body, framing):
    assert send(one, vendor, one.map(vendor.url, include_usage=True), body, framing).body == body


def test_with_a_token_limit_too(one, vendor):
    """The body is read for both; it leaves once."""
    prefix = one.map(vendor.url, include_usage=True, auth="required")
    fields = bearer(one.client(input_tpm=1000, output_tpm=1000))
    body, put_in = CHANGED[0]
    assert send(one, vendor, prefix, body, "length", fields).body.replace(put_in, b"", 1) == body


MIB = 1 << 20
SIZES = [(500_000, True), (MIB - 65536, True), (MIB - 65535, True), (MIB - 1, True), (MIB, True), (MIB + 1, False), (3_000_000, False)]


def of_size(size: int) -> bytes:
    body = b'{"messages":[{"content":"%s"}],"stream":true}'
    return body % (b"x" * (size - len(body) + 2))


@pytest.mark.parametrize("framing", FRAMINGS[:2])
@pytest.mark.parametrize("size, changed", SIZES)
def test_what_cannot_be_held_is_kept(one, vendor, size, changed, framing):
    body = of_size(size)
    sent = send(one, vendor, one.map(vendor.url, include_usage=True), body, framing).body
    assert len(body) == size and sent == (body.replace(b"{", b"{" + ALL, 1) if changed else body)


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"00;a=b\r\nx: y\r\n\r\n", b"1\r\n \r\n0\r\n\r\n"])
def test_the_end_of_chunks_comes_behind_what_can_be_held(one, vendor, end):
    """Byte by byte, and nothing goes on before it is known whether there is more."""
    body, prefix = of_size(MIB), one.map(vendor.url, include_usage=True)
    vendor.script(Reply(body={}))
    client = one[0].connect()
    client.send(request_bytes("POST", prefix + "/v1/chat/completions", [("Transfer-Encoding", "chunked")], chunk(body)))
    assert client.silent(0.2) and not vendor.received
    client.send_pieces(end)
    assert client.read_response().status == 200
    assert vendor.received[0].body == (body + b" " if end[:1] == b"1" else body.replace(b"{", b"{" + ALL, 1))
    assert client.request("GET", prefix + "/y").status == 200


@pytest.mark.parametrize("framing", FRAMINGS[:2])
def test_the_next_key_gets_the_changed_body(one, vendor, framing):
    """Which is a little more than can be held."""
    body, prefix = of_size(MIB), one.pooled(vendor.url, include_usage=True)
    vendor.script(Reply(500), Reply(body={}))
    fields, content = ([("Transfer-Encoding", "chunked")], chunked(body)) if framing == "chunked" else ([], body)
    client = one[0].connect()
    client.send(request_bytes("POST", prefix + "/v1/chat/completions", fields, content))
    assert client.read_response().status == 200
    assert [r.body for r in vendor.received] == [body.replace(b"{", b"{" + ALL, 1)] * 2


@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
def test_other_dialects_are_kept(one, vendor, dialect):
    body = CHANGED[0][0]
    prefix = one.map(vendor.url, include_usage=True, dialect=dialect)
    assert send(one, vendor, prefix, body, "length").body == body


PATHS = {
    "/v1/chat/completions": True,
    "/v1/completions?a=/responses": True,
    "/openai/deployments/d/chat/completions?api-version=2025-01-01": True,
    "/openai/v1/chat/completions": True,
    "/v1/responses": False,
    "/v1/responses?a=/completions": False,
    "/v1/images/generations": False,
    "/v1/audio/transcriptions": False,
    "/v1/messages": False,
    "/v1/chat/completions/c-1": False,
    "/v1/chatcompletions": False,
    "/": False,
}


@pytest.mark.parametrize("path, changed", PATHS.items())
def test_completions_only(one, vendor, path, changed):
    """Others have a prompt and stream too, and refuse what they do not know."""
    body = b'{"prompt":{"id":"p"},"stream":true}'
    sent = send(one, vendor, one.map(vendor.url, include_usage=True), body, "length", path=path).body
    assert sent == (body.replace(b"{", b"{" + ALL, 1) if changed else body)


@pytest.mark.parametrize("base, changed", [("/v1/chat/completions", True), ("/v1/responses", False)])
def test_a_target_that_is_the_whole_path(one, vendor, base, changed):
    body = b'{"prompt":"x","stream":true}'
    sent = send(one, vendor, one.map(vendor.url + base, include_usage=True), body, "length", path="").body
    assert (sent != body) == changed
