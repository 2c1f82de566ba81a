"""Each refusal of a managed mapping, in each dialect, as the vendor's SDK raises it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Callable

import anthropic
import openai
import pytest
from google.genai import errors as gemini_errors

from support import sdk
from support.managed import CHAT, GENERATE, MESSAGES, Held, Nodes, ask, fault_of, name
from support.process import eventually
from support.vendor import Fault, Reply, Vendor
from support.wire import RawServer

DIALECTS = ["openai", "anthropic", "gemini"]
PATHS = {"openai": CHAT, "anthropic": MESSAGES, "gemini": GENERATE}
OPENAI = {
    400: openai.BadRequestError, 401: openai.AuthenticationError, 403: openai.PermissionDeniedError, 404: openai.NotFoundError,
    408: openai.APIStatusError, 413: openai.APIStatusError, 429: openai.RateLimitError,
    502: openai.InternalServerError, 503: openai.InternalServerError, 504: openai.InternalServerError,
}
ANTHROPIC = {
    400: anthropic.BadRequestError, 401: anthropic.AuthenticationError, 403: anthropic.PermissionDeniedError, 404: anthropic.NotFoundError,
    408: anthropic.APIStatusError, 413: anthropic.APIStatusError, 429: anthropic.RateLimitError,
    502: anthropic.APIStatusError, 503: anthropic.APIStatusError, 504: anthropic.APIStatusError,
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 502: "api_error", 503: "api_error", 504: "timeout_error",
}
GEMINI_STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}


@pytest.fixture(scope="module")
def one():
    with Nodes(1) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def denied():
    """A node that refuses while its Redis is away, which it is."""
    with Nodes(1, API_PROXY_ON_REDIS_FAILURE="deny") as nodes, Vendor() as vendor:
        nodes.prefixes = {d: nodes.map(vendor.url, dialect=d, auth="required") for d in DIALECTS}
        nodes.key = nodes.client()
        nodes.redis.kill()
        eventually(lambda: ask(nodes[0], nodes.prefixes["openai"], nodes.key).status == 503)
        yield nodes
        nodes.redis.start()


@dataclass
class Scene:
    """Where and as whom a request meets its refusal."""

    url: str
    key: str
    held: list = field(default_factory=list)

    def close(self):
        for request in self.held:
            request.close()


class Stage:
    """Sets the scene for each code."""

    def __init__(self, one: Nodes, vendor: Vendor, dialect: str, request):
        self.one, self.vendor, self.dialect, self.request = one, vendor, dialect, request

    def scene(self, key: str | None = None, prefix: str = "", **more) -> Scene:
        prefix = prefix or self.one.map(self.vendor.url, dialect=self.dialect, **{"auth": "required", **more})
        return Scene(self.one[0].url + prefix, key or self.one.client())

    def held(self, scene: Scene, count: int = 1) -> Scene:
        self.vendor.script(*[Fault("stall_before_head")] * count)
        prefix = scene.url.removeprefix(self.one[0].url)
        scene.held = [Held(self.one[0], prefix, scene.key) for _ in range(count)]
        return scene

    def invalid_credentials(self):
        return self.scene("sk-ap-wrong")

    def not_allowed(self):
        return self.scene(self.one.client(mappings=["/elsewhere"]))

    def concurrency_limit(self):
        scene = self.held(self.scene(self.one.client(max_concurrency=1)))
        self.vendor.wait(1)
        return scene

    def rate_limit(self):
        scene = self.scene(self.one.client(rpm=1))
        assert ask(self.one[0], scene.url.removeprefix(self.one[0].url), scene.key).status == 200
        return scene

    def _queue(self, **queue) -> Scene:
        scene = self.scene(queue={"rate_per_second": 0.1, **queue})
        assert ask(self.one[0], scene.url.removeprefix(self.one[0].url), scene.key).status == 200
        return scene

    def queue_full(self):
        scene = self._queue(capacity=1, timeout_seconds=20)
        prefix = scene.url.removeprefix(self.one[0].url)
        scene.held = [Held(self.one[0], prefix, scene.key)]
        eventually(lambda: f'apiproxy_queue_length{{mapping="{prefix}"}} 1' in self.one[0].api("GET", "/metrics").body.decode())
        return scene

    def queue_timeout(self):
        return self._queue(capacity=5, timeout_seconds=0.3)

    def upstream_rate_limit(self):
        scene = self.scene(pool=self.one.pool(name("k")))
        self.vendor.script(Reply(429, {"retry-after": "30"}))
        assert ask(self.one[0], scene.url.removeprefix(self.one[0].url), scene.key).status == 429
        return scene

    def no_upstream_key(self):
        return self.scene(pool=name("empty"))

    def body_too_large(self):
        return self.scene(max_body_bytes=10)

    def upstream_error(self):
        with RawServer() as gone:
            url = gone.url
        return self.scene(prefix=self.one.map(url, dialect=self.dialect, auth="required"))

    def upstream_timeout(self):
        self.vendor.script(Fault("stall_before_head"))
        return self.scene(timeout_seconds=0.3)

    def redis_unavailable(self):
        denied = self.request.getfixturevalue("denied")
        return Scene(denied[0].url + denied.prefixes[self.dialect], denied.key)


CODES = {
    "invalid_credentials": 401, "not_allowed": 403, "queue_timeout": 408, "body_too_large": 413, "concurrency_limit": 429, "rate_limit": 429,
    "queue_full": 429, "upstream_rate_limit": 429, "upstream_error": 502, "no_upstream_key": 503, "redis_unavailable": 503,
    "upstream_timeout": 504,
}


def openai_raises(scene: Scene, authority, status: int, code: str):
    with pytest.raises(OPENAI[status]) as error:
        sdk.openai_client(scene.url, authority, api_key=scene.key).chat.completions.create(model="m", messages=sdk.ASK)
    assert error.value.status_code == status and error.value.code == code
    assert error.value.type and error.value.param is None and error.value.message
    return error.value.response


def anthropic_raises(scene: Scene, authority, status: int, _):
    with pytest.raises(ANTHROPIC[status]) as error:
        sdk.anthropic_client(scene.url, authority, api_key=scene.key).messages.create(model="m", max_tokens=9, messages=sdk.ASK)
    assert error.value.status_code == status
    assert error.value.body["type"] == "error" and error.value.body["error"]["message"]
    assert error.value.body["error"]["type"] == ANTHROPIC_TYPES.get(status, error.value.body["error"]["type"])
    if status >= 502:
        assert isinstance(error.value, anthropic.InternalServerError)
    return error.value.response


def gemini_raises(scene: Scene, authority, status: int, _):
    client = sdk.gemini_client(scene.url, authority, api_key=scene.key)
    with pytest.raises(gemini_errors.ServerError if status >= 500 else gemini_errors.ClientError) as error:
        client.models.generate_content(model="m", contents="Hi")
    assert error.value.code == status and error.value.message
    assert error.value.status == GEMINI_STATUSES.get(status, error.value.status) and error.value.status.isupper()
    return error.value.response


RAISES: dict[str, Callable] = {"openai": openai_raises, "anthropic": anthropic_raises, "gemini": gemini_raises}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("code", CODES)
def test_sdk_raises_its_usual_exception(one, vendor, authority, request, dialect, code):
    scene = getattr(Stage(one, vendor, dialect, request), code)()
    try:
        response = RAISES[dialect](scene, authority, CODES[code], code)
    finally:
        scene.close()
    headers = response.headers
    assert headers["x-apiproxy-error"] == code
    assert headers["content-type"].startswith("application/json")
    if CODES[code] == 429 or code == "queue_timeout":
        assert 1 <= int(headers["retry-after"]) <= 60
    assert headers.get("x-should-retry") == ("false" if code == "queue_timeout" else None)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_shape_of_each_error(one, vendor, dialect):
    """The members that the dialect has, and no others at the top."""
    prefix = one.map(vendor.url, dialect=dialect, auth="required")
    answer = ask(one[0], prefix, "wrong", path=PATHS[dialect])
    body = answer.json()
    assert fault_of(answer) == (401, "invalid_credentials")
    if dialect == "openai":
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    elif dialect == "anthropic":
        assert set(body) == {"type", "error"} and set(body["error"]) == {"type", "message"}
    else:
        assert set(body) == {"error"} and {"code", "message", "status"} <= set(body["error"]) <= {"code", "message", "status", "details"}


def test_sdk_does_not_retry_a_queue_timeout(one, vendor, authority, request):
    scene = Stage(one, vendor, "openai", request).queue_timeout()
    client = sdk.openai_client(scene.url, authority, api_key=scene.key, max_retries=3)
    began = time.monotonic()
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="m", messages=sdk.ASK)
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_sdk_comes_back_when_retry_after_says(one, vendor, authority, dialect):
    """One retry is enough: the key is free when the refusal said it would be."""
    prefix = one.map(vendor.url, dialect=dialect, pool=one.pool(name("k")))
    vendor.script(Reply(429, {"retry-after": "2"}))
    assert ask(one[0], prefix).status == 429
    url = one[0].url + prefix
    began = time.monotonic()
    if dialect == "openai":
        assert sdk.openai_client(url, authority, max_retries=1).chat.completions.create(model="m", messages=sdk.ASK).id
    else:
        assert sdk.anthropic_client(url, authority, max_retries=1).messages.create(model="m", max_tokens=9, messages=sdk.ASK).id
    assert 0.9 <= time.monotonic() - began <= 4.5


def test_refusals_are_counted_by_code(one, vendor):
    prefix, key = one.map(vendor.url, auth="required"), one.client(rpm=1)
    for _ in range(3):
        ask(one[0], prefix, key)
    ask(one[0], prefix, "wrong")
    wanted = (
        f'apiproxy_rejected_total{{mapping="{prefix}",code="rate_limit"}} 2\n',
        f'apiproxy_rejected_total{{mapping="{prefix}",code="invalid_credentials"}} 1\n',
        f'apiproxy_requests_total{{mapping="{prefix}",status="429"}} 2\n',
        f'apiproxy_requests_total{{mapping="{prefix}",status="401"}} 1\n',
    )
    eventually(lambda: all(w in one[0].api("GET", "/metrics").body.decode() for w in wanted), 3)


def test_refusal_while_the_body_still_comes(one, vendor):
    """The refusal is there at once, and nothing of the body is waited for."""
    prefix, key = one.map(vendor.url, auth="required"), one.client(rpm=1)
    assert ask(one[0], prefix, key).status == 200
    client = one[0].connect()
    client.send(f"POST {prefix}{CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 100000\r\n\r\n{{")
    assert fault_of(client.read_response()) == (429, "rate_limit")


def test_vendors_refusals_stay_the_vendors(one, vendor, authority):
    """Of a managed mapping as well: the body as it was, the code the vendor's."""
    prefix, key = one.map(vendor.url, auth="required"), one.client(rpm=100)
    body = b'{"error":{"message":"vendor says no","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}'
    vendor.script(Reply(429, {"retry-after-ms": "5", "x-request-id": "req_1"}, body))
    with pytest.raises(openai.RateLimitError) as error:
        sdk.openai_client(one[0].url + prefix, authority, api_key=key).chat.completions.create(model="m", messages=sdk.ASK)
    assert error.value.code == "insufficient_quota" and error.value.request_id == "req_1"
    assert error.value.response.content == body and "x-apiproxy-error" not in error.value.response.headers
