"""A vendor simulator: the wire formats of OpenAI, Anthropic and Gemini, with faults on request.

One thread a connection. What an answer looks like is a table from the path's end to a writer; what
goes wrong is scripted, one entry a request, in order:

    vendor.script(Reply(429, {"retry-after": "2"}), Fault("close_before_head"), None)

None means the usual answer; when the script is used up, every answer is the usual one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import ssl
import threading
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import Callable

from .process import Closing, eventually
from .wire import Closed, Connection, Request, ThreadedServer, chunk

MODEL = "sim-1"
CREATED = 1_700_000_000


@dataclass
class Reply:
    """A scripted answer; body may be text, bytes or an object for JSON."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: object = None


@dataclass
class Fault:
    """Something that breaks. kind:

    close_before_head, reset_before_head, close_in_head, garbage: no answer at all;
    close_in_body, reset_in_body: the usual answer's head and `after` bytes of its body, then the end;
    stall_before_head, stall_in_body: silence until vendor.release is set or the client hangs up.
    """

    kind: str
    after: int = 20


@dataclass
class Received:
    """A request as it came: `raw` is every byte of its head."""

    request: Request
    connection: int
    at: float
    hung_up: float | None = None  # when the client was seen to go before its answer ended

    @property
    def raw(self) -> bytes:
        return self.request.head.raw

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def path(self) -> str:
        return self.request.path

    @property
    def target(self) -> str:
        return self.request.target

    @property
    def body(self) -> bytes:
        return self.request.body

    @property
    def json(self):
        return json.loads(self.request.body)

    def header(self, name: str, default: str | None = None) -> str | None:
        return self.request.head.get(name, default)


class Vendor(Closing):
    """Listens on a free loopback port, over TLS where `tls` is given."""

    def __init__(self, tls: ssl.SSLContext | None = None):
        self.text = ["Hello", " from", " the", " simulator", "."]
        self.input_tokens, self.output_tokens = 11, 7
        self.cache_read_tokens = self.cache_creation_tokens = self.thoughts_tokens = 0
        self.headers: dict[str, str] = {}  # on every answer, as rate limits are
        self.accepted_keys: set[str] | None = None  # None: any
        self.encoding = ""  # "gzip" or "deflate": answers are compressed
        self.gate: threading.Semaphore | None = None  # each event of a stream takes one
        self.release = threading.Event()
        self.received: list[Received] = []
        self._script: deque[Reply | Fault | Callable | None] = deque()
        self._lock = threading.Lock()
        self._tls = tls
        self._server = ThreadedServer(self._talk, tls)

    @property
    def port(self) -> int:
        return self._server.raw.port

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    def script(self, *steps: Reply | Fault | Callable | None):
        """step: see the module's head; a callable gets (connection, received) and does it all."""
        self._script.extend(steps)

    def clear(self):
        """Forgets script and requests."""
        self._script.clear()
        self.received.clear()

    def wait(self, count: int = 1, seconds: float = 5) -> list[Received]:
        """Waits until `count` requests came."""
        eventually(lambda: len(self.received) >= count, seconds, what=f"{count} requests at the vendor")
        return self.received

    def close(self):
        self.release.set()
        if self.gate:
            self.gate.release(10_000)
        self._server.close()

    # -- connections

    @property
    def connections(self) -> int:
        return len(self._server.raw.connections)

    def _talk(self, connection: Connection):
        number = self._server.raw.connections.index(connection) + 1
        while self._exchange(connection, number):
            pass

    def _exchange(self, connection: Connection, number: int) -> bool:
        head = connection.read_head()
        arrived = time.time()
        if head.get("expect", "").lower() == "100-continue":
            connection.send("HTTP/1.1 100 Continue\r\n\r\n")
        body, framing = connection.read_request_body(head)
        received = Received(Request(head, body, framing, arrived), number, arrived)
        with self._lock:
            self.received.append(received)
            step = self._script.popleft() if self._script else None
        answer = Answer(self, connection, received)
        try:
            if callable(step):
                step(connection, received)
            elif isinstance(step, Reply):
                answer.reply(step)
            elif isinstance(step, Fault):
                return answer.fault(step)
            else:
                answer.usual()
        except (Closed, OSError):
            received.hung_up = time.time()
            raise
        return head.get("connection", "").lower() != "close"


class Answer:
    """Writes one answer on a connection."""

    def __init__(self, vendor: Vendor, connection: Connection, received: Received):
        self.vendor = vendor
        self.connection = connection
        self.received = received
        self.cut: int | None = None  # body bytes before a fault strikes

    # -- writing

    def head(self, status: int, fields: dict[str, str]):
        lines = [f"HTTP/1.1 {status} Sim"]
        lines += [f"{name}: {value}" for name, value in {**fields, **self.vendor.headers}.items()]
        self.connection.send("\r\n".join(lines) + "\r\n\r\n")

    def whole(self, status: int, body: bytes, content_type: str, **fields: str):
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        if self.vendor.encoding and body:
            body = self._compress(body)
            fields["content-encoding"] = self.vendor.encoding
        self.head(status, {"content-type": content_type, "content-length": str(len(body)), **fields})
        if self.received.method != "HEAD":
            self.connection.send(body if self.cut is None else body[: self.cut])
        if self.cut is not None:
            raise Cut

    def _compress(self, body: bytes) -> bytes:
        return gzip.compress(body) if self.vendor.encoding == "gzip" else zlib.compress(body)

    def json(self, data, status: int = 200, **fields: str):
        self.whole(status, json.dumps(data).encode(), "application/json", **fields)

    def stream(self, events: list[bytes], content_type: str = "text/event-stream"):
        """Chunked, one chunk an event, each in its own segment."""
        fields = {"content-type": content_type, "transfer-encoding": "chunked"}
        if self.vendor.encoding == "gzip":
            fields["content-encoding"] = "gzip"
            events = self._compress_events(events)
        self.head(200, fields)
        written = 0
        for event in events:
            if self.vendor.gate:
                self.vendor.gate.acquire()
            if self.cut is not None and written + len(event) > self.cut:
                self.connection.send(chunk(event)[: self.cut - written + 3])
                raise Cut
            self.connection.send(chunk(event))
            written += len(event)
        self.connection.send("0\r\n\r\n")

    @staticmethod
    def _compress_events(events: list[bytes]) -> list[bytes]:
        packer = zlib.compressobj(wbits=31)
        packed = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in events]
        return packed + [packer.flush()]

    def reply(self, step: Reply):
        if isinstance(step.body, (bytes, str)):
            body = step.body.encode() if isinstance(step.body, str) else step.body
        elif step.body is not None:
            body = json.dumps(step.body).encode()
        else:
            body = json.dumps(self.error(step.status, "scripted")).encode()
        fields = {"content-type": "application/json", "content-length": str(len(body)), **step.headers}
        self.head(step.status, fields)
        if self.received.method != "HEAD":
            self.connection.send(body)

    # -- faults

    def fault(self, step: Fault) -> bool:
        getattr(self, "_" + step.kind)(step)
        return False

    def _close_before_head(self, _):
        pass  # the connection is closed when no more is to come

    def _reset_before_head(self, _):
        self.connection.reset()

    def _close_in_head(self, _):
        self.connection.send("HTTP/1.1 200 OK\r\nContent-Ty")

    def _garbage(self, _):
        self.connection.send("\x16\x03\x01 this is not HTTP\r\n\r\n")

    def _close_in_body(self, step):
        self._usual_until(step.after)

    def _reset_in_body(self, step):
        self._usual_until(step.after)
        self.connection.reset()

    def _stall_before_head(self, _):
        self._stall()

    def _stall_in_body(self, step):
        self._usual_until(step.after)
        self._stall()

    def _usual_until(self, after: int):
        self.cut = after
        try:
            self.usual()
        except Cut:
            pass

    def _stall(self):
        """Until released, or the other side goes: that moment is noted."""
        while not self.vendor.release.is_set():
            if not self.connection.silent(0.02):
                self.connection.wait_end(1)
                self.received.hung_up = time.time()
                return

    # -- the usual answers

    def usual(self):
        path = self.received.path
        if not self._key_is_good():
            return self.json(self.error(401, "bad key"), 401)
        for end, writer in ROUTES:
            if path.endswith(end):
                return writer(self)
        return self.echo()

    def _key_is_good(self) -> bool:
        if self.vendor.accepted_keys is None:
            return True
        header = self.received.header
        bearer = (header("authorization") or "").removeprefix("Bearer ")
        keys = {bearer, header("x-api-key"), header("x-goog-api-key"), header("api-key")}
        return bool(keys & self.vendor.accepted_keys)

    def error(self, status: int, message: str) -> dict:
        path = self.received.path
        if path.endswith("/messages"):
            return {"type": "error", "error": {"type": "api_error", "message": message}}
        if path.endswith("enerateContent"):
            return {"error": {"code": status, "message": message, "status": "UNKNOWN"}}
        return {"error": {"message": message, "type": "api_error", "param": None, "code": None}}

    def echo(self):
        """Says what arrived, for tests that do not care about a dialect."""
        received = self.received
        self.json(
            {
                "method": received.method,
                "target": received.target,
                "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in received.request.head.fields],
                "framing": received.request.framing,
                "length": len(received.body),
                "sha256": hashlib.sha256(received.body).hexdigest(),
            }
        )

    def chat(self):
        vendor, asked = self.vendor, self.received.json
        usage = {
            "prompt_tokens": vendor.input_tokens,
            "completion_tokens": vendor.output_tokens,
            "total_tokens": vendor.input_tokens + vendor.output_tokens,
        }
        base = {"id": "chatcmpl-sim", "created": CREATED, "model": asked.get("model", MODEL)}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(vendor.text)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return self.json({**base, "object": "chat.completion", "choices": [choice], "usage": usage})
        base["object"] = "chat.completion.chunk"
        wants_usage = (asked.get("stream_options") or {}).get("include_usage")
        chunks = [
            {**base, "choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}]}
            for piece in vendor.text
        ]
        chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if wants_usage:
            chunks = [{**data, "usage": None} for data in chunks] + [{**base, "choices": [], "usage": usage}]
        self.stream([data_event(data) for data in chunks] + [b"data: [DONE]\n\n"])

    def completion(self):
        vendor, asked = self.vendor, self.received.json
        usage = {"prompt_tokens": vendor.input_tokens, "completion_tokens": vendor.output_tokens}
        choice = {"index": 0, "text": "".join(vendor.text), "finish_reason": "stop", "logprobs": None}
        base = {"id": "cmpl-sim", "object": "text_completion", "created": CREATED, "model": asked.get("model", MODEL)}
        self.json({**base, "choices": [choice], "usage": {**usage, "total_tokens": sum(usage.values())}})

    def responses(self):
        vendor, asked = self.vendor, self.received.json
        text = "".join(vendor.text)
        content = {"type": "output_text", "text": text, "annotations": []}
        item = {"type": "message", "id": "msg_sim", "status": "completed", "role": "assistant", "content": [content]}
        response = {
            "id": "resp_sim",
            "object": "response",
            "created_at": CREATED,
            "status": "completed",
            "model": asked.get("model", MODEL),
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": vendor.input_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": vendor.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": vendor.input_tokens + vendor.output_tokens,
            },
        }
        if not asked.get("stream"):
            return self.json(response)
        started = {**response, "status": "in_progress", "output": [], "usage": None}
        place = {"item_id": "msg_sim", "output_index": 0, "content_index": 0}
        steps = [{"type": "response.created", "response": started}]
        steps.append({"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}})
        steps.append({"type": "response.content_part.added", **place, "part": {**content, "text": ""}})
        steps += [{"type": "response.output_text.delta", **place, "delta": piece} for piece in vendor.text]
        steps.append({"type": "response.output_text.done", **place, "text": text})
        steps.append({"type": "response.completed", "response": response})
        self.stream([named_event(s["type"], {**s, "sequence_number": n}) for n, s in enumerate(steps)])

    def embeddings(self):
        asked = self.received.json
        inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        data = [{"object": "embedding", "index": n, "embedding": [0.25, -0.5]} for n, _ in enumerate(inputs)]
        usage = {"prompt_tokens": self.vendor.input_tokens, "total_tokens": self.vendor.input_tokens}
        self.json({"object": "list", "data": data, "model": asked.get("model", MODEL), "usage": usage})

    def models(self):
        if "/v1beta/" in self.received.path:
            model = {"name": f"models/{MODEL}", "displayName": "Simulated", "version": "1"}
            return self.json({"models": [model]})
        if self.received.header("anthropic-version"):
            model = {"type": "model", "id": MODEL, "display_name": "Simulated", "created_at": "2025-01-01T00:00:00Z"}
            return self.json({"data": [model], "has_more": False, "first_id": MODEL, "last_id": MODEL})
        model = {"id": MODEL, "object": "model", "created": CREATED, "owned_by": "sim"}
        self.json({"object": "list", "data": [model]})

    def messages(self):
        vendor, asked = self.vendor, self.received.json
        usage = {
            "input_tokens": vendor.input_tokens,
            "cache_read_input_tokens": vendor.cache_read_tokens,
            "cache_creation_input_tokens": vendor.cache_creation_tokens,
            "output_tokens": vendor.output_tokens,
        }
        message = {
            "id": "msg_sim",
            "type": "message",
            "role": "assistant",
            "model": asked.get("model", MODEL),
            "content": [{"type": "text", "text": "".join(vendor.text)}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }
        if not asked.get("stream"):
            return self.json(message, request_id="req_sim")
        opening = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        steps = [{"type": "message_start", "message": opening}]
        steps.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        steps.append({"type": "ping"})
        for piece in vendor.text:
            steps.append({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
        steps.append({"type": "content_block_stop", "index": 0})
        ending = {"stop_reason": "end_turn", "stop_sequence": None}
        steps.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": vendor.output_tokens}})
        steps.append({"type": "message_stop"})
        self.stream([named_event(step["type"], step) for step in steps])

    def _gemini_part(self, text: str, last: bool) -> dict:
        candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        if last:
            candidate["finishReason"] = "STOP"
        usage = {
            "promptTokenCount": self.vendor.input_tokens,
            "candidatesTokenCount": self.vendor.output_tokens if last else 1,
            "thoughtsTokenCount": self.vendor.thoughts_tokens,
        }
        usage["totalTokenCount"] = sum(usage.values())
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL}

    def generate(self):
        self.json(self._gemini_part("".join(self.vendor.text), True))

    def stream_generate(self):
        count = len(self.vendor.text)
        parts = [self._gemini_part(text, n == count - 1) for n, text in enumerate(self.vendor.text)]
        if "alt=sse" in self.received.request.query:
            return self.stream([f"data: {json.dumps(part)}\r\n\r\n".encode() for part in parts])
        pieces = [(b"[" if n == 0 else b",\r\n") + json.dumps(part).encode() for n, part in enumerate(parts)]
        self.stream(pieces + [b"]"], "application/json")


class Cut(Exception):
    """A fault's place in a body is reached."""


def data_event(data) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def named_event(name: str, data) -> bytes:
    return b"event: " + name.encode() + b"\n" + data_event(data)


ROUTES = (
    ("/chat/completions", Answer.chat),
    ("/completions", Answer.completion),
    ("/responses", Answer.responses),
    ("/embeddings", Answer.embeddings),
    ("/models", Answer.models),
    ("/messages", Answer.messages),
    (":generateContent", Answer.generate),
    (":streamGenerateContent", Answer.stream_generate),
)
