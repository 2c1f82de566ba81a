"""Tokens are read from what the vendor says, and no byte of it changes."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from support import sdk
from support.process import eventually
from support.wire import chunk, request_bytes

STREAM_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{encoding}Transfer-Encoding: chunked\r\n\r\n"


def tokens(gateway, prefix: str) -> tuple[int, int]:
    for entry in gateway.get("/stats").json()["endpoints"]:
        if entry["prefix"] == prefix:
            return entry["input_tokens"], entry["output_tokens"]
    return 0, 0


def counted(gateway, prefix: str, wanted: tuple[int, int]):
    eventually(lambda: tokens(gateway, prefix) == wanted, 5, what=f"{wanted} tokens, not {tokens(gateway, prefix)}")


CALLS = [call for call in sdk.CALLS if "models" not in call.__name__]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_what_the_sdks_ask_is_counted(gateway, authority, tls_vendor, call, encoding):
    tls_vendor.input_tokens, tls_vendor.output_tokens, tls_vendor.encoding = 123, 45, encoding
    dialect = {"messages": "anthropic", "messages_stream": "anthropic", "generate": "gemini", "generate_stream": "gemini"}
    prefix = gateway.route(tls_vendor.url, dialect=dialect.get(call.__name__, "openai"))
    call(gateway.url + prefix, authority, tls_vendor)
    counted(gateway, prefix, (123, 0 if call is sdk.embeddings else 45))


def ask(gateway, prefix, path, body, **headers):
    return gateway.request("POST", prefix + path, list(headers.items()), json.dumps(body))


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_cache_counts_as_input(gateway, vendor, stream):
    vendor.input_tokens, vendor.output_tokens, vendor.cache_read_tokens, vendor.cache_creation_tokens = 10, 20, 300, 4000
    prefix = gateway.route(vendor.url, dialect="anthropic")
    ask(gateway, prefix, "/v1/messages", {"model": "m", "max_tokens": 9, "messages": [], "stream": stream})
    counted(gateway, prefix, (4310, 20))


@pytest.mark.parametrize("path", ["/v1beta/models/m:generateContent", "/v1beta/models/m:streamGenerateContent?alt=sse", "/v1beta/models/m:streamGenerateContent"])
def test_geminis_thoughts_count_as_output(gateway, vendor, path):
    vendor.input_tokens, vendor.output_tokens, vendor.thoughts_tokens = 10, 20, 500
    prefix = gateway.route(vendor.url, dialect="gemini")
    ask(gateway, prefix, path, {"contents": []})
    counted(gateway, prefix, (10, 520))


def test_stream_without_figures_is_estimated(gateway, vendor):
    prefix = gateway.route(vendor.url)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x" * 400}]}
    answer = ask(gateway, prefix, "/v1/chat/completions", body)
    assert json.loads(vendor.received[0].body) == body, "nothing was added"
    assert b'"usage"' not in answer.body
    got = eventually(lambda: (t := tokens(gateway, prefix))[0] and t, 5)
    assert 20 <= got[0] <= 400 and 1 <= got[1] <= 60


def test_include_usage_asks_for_figures(gateway, vendor):
    prefix = gateway.route(vendor.url, include_usage=True)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    ask(gateway, prefix, "/v1/chat/completions", body)
    sent = json.loads(vendor.received[0].body)
    assert sent.pop("stream_options") == {"include_usage": True} and sent == body
    counted(gateway, prefix, (11, 7))


@pytest.mark.parametrize("body", [{"model": "m", "messages": []}, {"model": "m", "stream": False, "messages": []}])
def test_include_usage_leaves_others_alone(gateway, vendor, body):
    prefix = gateway.route(vendor.url, include_usage=True)
    ask(gateway, prefix, "/v1/chat/completions", body)
    assert json.loads(vendor.received[0].body) == body


def sse(input_tokens: int, output_tokens: int) -> bytes:
    usage = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, "total_tokens": input_tokens + output_tokens}
    events = [{"choices": [{"delta": {"content": 'usage": {"prompt_tokens": 999} \\" \u00e4'}}]}, {"choices": [], "usage": usage}]
    return b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events) + b"data: [DONE]\n\n"


def deflate(data: bytes) -> bytes:
    return zlib.compress(data)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def stored_brotli(data: bytes) -> bytes:
    """RFC 7932: one uncompressed meta-block, then the empty last one."""
    return ((len(data) - 1) << 4 | 1 << 20).to_bytes(3, "little") + data + b"\x03"


def stored_zstd(data: bytes) -> bytes:
    """RFC 8878: a frame of one raw block."""
    frame = b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little")
    return frame + (1 | len(data) << 3).to_bytes(3, "little") + data


CODINGS = [("", bytes), ("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", deflate), ("deflate", raw_deflate), ("br", stored_brotli), ("zstd", stored_zstd)]


@pytest.mark.parametrize("coding,pack", CODINGS, ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_any_segmentation_counts_the_same_and_passes_unchanged(gateway, server, prefix, coding, pack, size):
    data = pack(sse(321, 54))
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/v1/chat/completions", [], b'{"stream":true,"messages":[]}'))
    upstream = server.accept()
    upstream.read_request()
    upstream.send(STREAM_HEAD.format(encoding=f"Content-Encoding: {coding}\r\n" if coding else ""))
    for start in range(0, len(data), size):
        upstream.send(chunk(data[start : start + size]))
    upstream.send("0\r\n\r\n")
    assert client.read_response().body == data
    counted(gateway, prefix, (321, 54))


UNREADABLE = {
    "no gzip": ("gzip", b"this is no gzip"),
    "cut gzip": ("gzip", gzip.compress(b"x" * 100, mtime=0)[:-9]),
    "no brotli": ("br", b"\xff" * 50),
    "unknown coding": ("unheard-of", b"abc"),
    "cut JSON": ("", b'{"usage":'),
    "wild numbers": ("", b'{"usage":{"prompt_tokens":-5,"completion_tokens":1e999}}'),
    "deep JSON": ("", b"[" * 100_000),
}


@pytest.mark.parametrize("coding,data", UNREADABLE.values(), ids=list(UNREADABLE))
def test_what_cannot_be_read_passes_unchanged(gateway, server, prefix, coding, data):
    client = gateway.connect()
    client.send(request_bytes("POST", prefix + "/v1/chat/completions", [], b'{"messages":[]}'))
    upstream = server.accept()
    upstream.read_request()
    encoding = f"Content-Encoding: {coding}\r\n" if coding else ""
    upstream.send(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{encoding}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    assert client.read_response().body == data
    assert client.request("GET", "/health").status == 200
    eventually(lambda: tokens(gateway, prefix) is not None)
    assert all(0 <= count < 1_000_000 for count in tokens(gateway, prefix))


def answer_with(gateway, server, prefix, coding: str, data: bytes):
    client = gateway.connect(timeout=30)
    client.send(request_bytes("POST", prefix + "/v1/chat/completions", [], b'{"messages":[]}'))
    upstream = server.accept()
    upstream.read_request()
    fields = f"Content-Type: application/json\r\nContent-Encoding: {coding}\r\nContent-Length: {len(data)}\r\n"
    upstream.send(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + data)
    assert client.read_response().body == data


@pytest.mark.parametrize("coding,pack", [("gzip", gzip.compress), ("deflate", deflate), ("deflate", raw_deflate)], ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.parametrize("size", [1_000_000, 50_000_000])
def test_what_compresses_a_thousandfold_counts(gateway, server, prefix, coding, pack, size):
    body = b'{"choices":[{"message":{"content":"' + b"x" * size + b'"}}],"usage":{"prompt_tokens":9,"completion_tokens":3}}'
    answer_with(gateway, server, prefix, coding, pack(body))
    counted(gateway, prefix, (9, 3))


def test_a_bomb_is_estimated_by_what_came(gateway, server, prefix):
    data = gzip.compress(b'{"content":"' + b"x" * 200_000_000 + b'","usage":{"input_tokens":9,"output_tokens":3}}')
    answer_with(gateway, server, prefix, "gzip", data)
    counted(gateway, prefix, (len(b'{"messages":[]}') // 4, (len(data) + 3) // 4))


def test_a_compressed_bomb_costs_no_memory(gateway, server, prefix):
    """200 MB of blanks in 200 KB: read on the way, never held."""
    packer = zlib.compressobj(9, wbits=31)
    data = packer.compress(b'{"a":"' + b" " * 200_000_000 + b'"}') + packer.flush()
    before = gateway.resident_bytes()
    answer_with(gateway, server, prefix, "gzip", data)
    assert gateway.resident_bytes() - before < 32 << 20
