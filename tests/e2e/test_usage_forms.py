"""Every form in which vendors say what a call cost, and what looks like it but is not."""

from __future__ import annotations

import json

import pytest

from support.managed import Nodes
from support.process import eventually
from support.wire import RawServer, request_bytes

JSON = "application/json"
SSE = "text/event-stream"
CALL = b'{"messages":[{"role":"user","content":"12345678"}]}'


@pytest.fixture(scope="module")
def one():
    with Nodes(1) as nodes:
        yield nodes


def data(*events, end: str = "\n\n", start: str = "data: ") -> str:
    return "".join(start + (event if isinstance(event, str) else json.dumps(event)) + end for event in events)


def named(*events) -> str:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def delta(text: str, **more) -> dict:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}], **more}


# All of them say 111 in and 22 out.
CHAT = {
    "prompt_tokens": 111,
    "completion_tokens": 22,
    "total_tokens": 133,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 10},
}
RESPONSES = {
    "input_tokens": 111,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 22,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 133,
}
MESSAGES = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 40,
    "cache_read_input_tokens": 60,
    "output_tokens": 22,
    "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 0},
}
GEMINI = {
    "promptTokenCount": 111,
    "candidatesTokenCount": 15,
    "thoughtsTokenCount": 7,
    "totalTokenCount": 133,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 111}],
    "cachedContentTokenCount": 50,
}
# What a model may have written, as arguments of a tool, is no figure of the vendor's.
WRITTEN = {
    "usage": {"prompt_tokens": 9999, "completion_tokens": 9999, "input_tokens": 9999, "output_tokens": 9999},
    "usageMetadata": {"promptTokenCount": 9999, "candidatesTokenCount": 9999},
}
OPENING = {"type": "message_start", "message": {"usage": {**MESSAGES, "output_tokens": 1}}}
GEMINI_TEXT = {"candidates": [{"content": {"parts": [{"text": "x"}]}}]}
ANSWER = {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}]}
LAST = {"choices": [], "usage": CHAT}

FORMS = {
    "chat": (JSON, json.dumps({**ANSWER, "usage": CHAT})),
    "chat, usage first": (JSON, json.dumps({"usage": CHAT, **ANSWER})),
    "chat, indented": (JSON, json.dumps({**ANSWER, "usage": CHAT}, indent=4)),
    "chat, charset": ("Application/JSON; charset=utf-8", json.dumps({**ANSWER, "usage": CHAT})),
    "chat, figures as text": (JSON, json.dumps({"choices": [{"message": {"content": json.dumps(WRITTEN)}}], "usage": CHAT})),
    "chat, figures of others": (JSON, json.dumps({"usage": CHAT, "choices": [{"message": WRITTEN}]})),
    "chat stream": (SSE, data(delta("a"), delta("b"), LAST, "[DONE]")),
    "chat stream, nulls": (SSE, data(delta("a", usage=None), LAST, "[DONE]")),
    "chat stream, CRLF": (SSE, data(delta("a"), LAST, "[DONE]", end="\r\n\r\n")),
    "chat stream, CR": (SSE, data(delta("a"), LAST, "[DONE]", end="\r\r")),
    "chat stream, no blank": (SSE, data(delta("a"), LAST, "[DONE]", start="data:")),
    "chat stream, comments": (SSE, ": wait\n\n" + data(delta("a")) + ": wait\n\n" + data(LAST)),
    "chat stream, no end": (SSE, data(delta("a")) + "data: " + json.dumps(LAST)),
    "chat stream, in the last choice": (SSE, data(delta("a"), delta("b", usage=CHAT), "[DONE]")),
    "chat stream, growing": (SSE, data(delta("a", usage={"prompt_tokens": 111, "completion_tokens": 1}), delta("b", usage=CHAT))),
    "completions": (JSON, json.dumps({"object": "text_completion", "choices": [{"text": "a"}], "usage": CHAT})),
    "completions stream": (SSE, data({"choices": [{"text": "a"}]}, LAST, "[DONE]")),
    "responses": (JSON, json.dumps({"object": "response", "output": [{"content": [{"text": "x"}]}], "usage": RESPONSES})),
    "responses stream": (
        SSE,
        named(
            {"type": "response.created", "response": {"usage": None}},
            {"type": "response.output_text.delta", "delta": "xx"},
            {"type": "response.completed", "response": {"output": [{"content": [{"text": "xx"}]}], "usage": RESPONSES}},
        ),
    ),
    "responses stream, incomplete": (
        SSE,
        named({"type": "response.created", "response": {}}, {"type": "response.incomplete", "response": {"usage": RESPONSES}}),
    ),
    "messages": (JSON, json.dumps({"type": "message", "content": [{"type": "text", "text": "x"}], "usage": MESSAGES})),
    "messages, a tool's figures": (JSON, json.dumps({"content": [{"type": "tool_use", "input": WRITTEN}], "usage": MESSAGES})),
    "messages, no cache": (
        JSON,
        json.dumps({"usage": {"input_tokens": 111, "cache_read_input_tokens": None, "output_tokens": 22}}),
    ),
    "messages stream": (SSE, named(OPENING, {"type": "ping"}, {"type": "message_delta", "usage": {"output_tokens": 22}})),
    "messages stream, all again": (SSE, named(OPENING, {"type": "message_delta", "usage": MESSAGES}, {"type": "message_stop"})),
    "messages stream, cumulative": (
        SSE,
        named(OPENING, *[{"type": "message_delta", "usage": {"output_tokens": n}} for n in (5, 9, 22)]),
    ),
    "messages stream, late": (
        SSE,
        named(
            {"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 0}}},
            {"type": "message_delta", "usage": MESSAGES},
        ),
    ),
    "messages stream, 0 for what was said": (
        SSE,
        named(OPENING, {"type": "message_delta", "usage": {**dict.fromkeys(MESSAGES, 0), "cache_creation": None, "output_tokens": 22}}),
    ),
    "chat, powers": (JSON, json.dumps({**ANSWER, "usage": {"prompt_tokens": 0, "completion_tokens": 0}}).replace(": 0,", ": 1.11e2,").replace(": 0}", ": 22.0e0}")),
    "gemini": (JSON, json.dumps({**GEMINI_TEXT, "usageMetadata": GEMINI})),
    "gemini, no thoughts": (JSON, json.dumps({"usageMetadata": {"promptTokenCount": 111, "candidatesTokenCount": 22}})),
    "gemini, a tool's figures": (
        JSON,
        json.dumps({"candidates": [{"content": {"parts": [{"functionCall": {"args": WRITTEN}}]}}], "usageMetadata": GEMINI}),
    ),
    "gemini stream": (
        SSE,
        data({**GEMINI_TEXT, "usageMetadata": {"promptTokenCount": 111}}, {"usageMetadata": GEMINI}, end="\r\n\r\n"),
    ),
    "gemini array": (
        JSON,
        "["
        + json.dumps({**GEMINI_TEXT, "usageMetadata": {"promptTokenCount": 111, "candidatesTokenCount": 3}})
        + "\n,\r\n"
        + json.dumps({"usageMetadata": GEMINI})
        + "\n]",
    ),
    "gemini array, indented": (JSON, json.dumps([GEMINI_TEXT, {"candidates": [WRITTEN], "usageMetadata": GEMINI}], indent=2)),
}


# Longer than what is scanned from its first byte on.
SPENT = {"usage": {"prompt_tokens": 999, "completion_tokens": 999}}
PICTURE = {"inlineData": {"data": "x" * 70_000}}
FORMS |= {
    "gemini array, a picture and a tool's list": (
        JSON,
        json.dumps([{"candidates": [{"content": {"parts": [PICTURE, {"functionCall": {"args": {"l": [SPENT]}}}]}}], "usageMetadata": GEMINI}]),
    ),
    "a list of others' usage": (
        JSON,
        json.dumps({"data": [{"id": i, **SPENT} for i in range(3000)], "usage": CHAT, "more": [SPENT] * 2000}),
    ),
}
NO_TYPE, PLAIN, MARK = "", "text/plain; charset=utf-8", "\ufeff"
FORMS |= {
    "no type": (NO_TYPE, FORMS["chat, indented"][1]),
    "no type, stream": (NO_TYPE, FORMS["responses stream"][1]),
    "plain text": (PLAIN, FORMS["gemini array"][1]),
    "plain text, stream": (PLAIN, FORMS["chat stream, comments"][1]),
    "plain text, byte order mark": (PLAIN, MARK + FORMS["messages"][1]),
    "byte order mark": (JSON, MARK + FORMS["chat"][1]),
    "stream, byte order mark": (SSE, MARK + FORMS["chat stream"][1]),
    "JSON called a stream": (SSE, FORMS["chat, indented"][1]),
    "gemini array called a stream": (SSE, FORMS["gemini array"][1]),
}


def figures(one, prefix: str) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """What was counted, and how much of it was estimated; both directions."""
    text = one[0].api("GET", "/metrics").body.decode()
    found = []
    for metric in ("apiproxy_tokens_total", "apiproxy_tokens_estimated_total"):
        for direction in ("input", "output"):
            start = f'{metric}{{mapping="{prefix}",direction="{direction}"}} '
            found += [int(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start)]
    return (tuple(found[:2]), tuple(found[2:])) if len(found) == 4 else None


def after_call(one, kind: str, body: str, path: str = "/v1/x", status: int = 200, cut: bool = False):
    with RawServer() as server:
        prefix = one.map(server.url)
        client = one[0].connect()
        client.send(request_bytes("POST", prefix + path, [], CALL))
        upstream = server.accept()
        upstream.read_request()
        length = len(body.encode()) + (1 if cut else 0)
        said = f"Content-Type: {kind}\r\n" if kind else ""
        upstream.send(f"HTTP/1.1 {status} Sim\r\n{said}Content-Length: {length}\r\n\r\n".encode() + body.encode())
        if cut:
            upstream.close()
            client.wait_end()
        else:
            assert client.read_response().body == body.encode()
        return eventually(lambda: figures(one, prefix), 3)


@pytest.mark.parametrize("form", FORMS)
def test_what_the_vendor_says_counts(one, form):
    assert after_call(one, *FORMS[form]) == ((111, 22), (0, 0))


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/html", "text/plain"])
def test_what_is_no_answer_of_a_model_is_not_read(one, kind):
    body = ("\n" if kind != "text/plain" else "A file: ") + json.dumps({**ANSWER, "usage": CHAT})
    assert after_call(one, kind, body) == ((0, 0), (0, 0))


def test_embeddings_have_no_output(one):
    body = json.dumps({"data": [{"embedding": [0.1] * 300}], "usage": {"prompt_tokens": 111, "total_tokens": 111}})
    assert after_call(one, JSON, body) == ((111, 0), (0, 0))


def test_a_blocked_prompt_has_no_output(one):
    body = json.dumps({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 111}})
    assert after_call(one, JSON, body) == ((111, 0), (0, 0))


@pytest.mark.parametrize(
    "body",
    [{"input_tokens": 2095}, {"totalTokens": 31}, {"error": {"message": "no"}}, {"data": [{"id": "sim-1", "object": "model"}]}],
    ids=["count_tokens", "countTokens", "error", "models"],
)
def test_what_no_model_has_said_costs_nothing(one, body):
    assert after_call(one, JSON, json.dumps(body), status=400 if "error" in body else 200) == ((0, 0), (0, 0))


# -- estimates


def test_a_silent_stream_is_estimated_and_counted_as_such(one):
    counted, estimated = after_call(one, SSE, data(delta("12345678"), delta("12345678"), "[DONE]"))
    assert counted == estimated == (len(CALL) // 4, 4)  # a quarter of the bytes of the request, and of the text


def test_what_came_of_a_broken_stream_counts(one):
    """It broke off when it had said one token, and then a hundred had come."""
    text = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * 400}}
    assert after_call(one, SSE, named(OPENING, text), cut=True) == ((111, 100), (0, 100))


def test_a_larger_figure_of_a_broken_stream_counts(one):
    body = data({**GEMINI_TEXT, "usageMetadata": GEMINI})
    assert after_call(one, SSE, body, cut=True) == ((111, 22), (0, 0))
