"""The REST API: each row, each error, and changes made with redis-cli."""

from __future__ import annotations

import hashlib
import json
import re
import time
from datetime import date, datetime, timezone
from urllib.parse import quote

import pytest

from support.gateway import TOKEN, Gateway
from support.process import eventually
from support.redis_server import Redis
from support.wire import RawClient, chunked, request_bytes

SECTIONS = {"mappings": "prefix", "keys": "id", "clients": "id", "users": "username"}
NEW = {
    "mappings": {"prefix": "/new", "target": "http://127.0.0.1:9"},
    "keys": {"id": "new", "pool": "p", "key": "sk-vendor-secret-0001"},
    "clients": {"id": "new", "name": "New"},
    "users": {"username": "new", "password": "correct horse"},
}
EMPTY = {section: [] for section in SECTIONS}


@pytest.fixture(scope="module")
def store():
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def node(store):
    """A gateway on a Redis of our own; each test starts with an empty configuration."""
    gateway = Gateway(API_PROXY_REDIS_URL=store.url, API_PROXY_OPS_LISTEN=None)
    yield gateway
    gateway.stop()


@pytest.fixture
def api(node):
    assert node.alive(), node.output[-4000:]
    assert node.api("PUT", "/api/config", EMPTY).status == 200
    return node


def error(answer, status: int, code: str | None = None) -> str:
    """Checks an answer's error and returns its message."""
    assert answer.status == status, f"{answer.status} {answer.body!r}"
    assert answer.header("content-type") == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert code is None or body["error"]["code"] == code
    assert body["error"]["message"]
    return body["error"]["message"]


def error_of(answer) -> str:
    assert answer.status == 400, answer.body
    return answer.json()["error"]["message"]


def path_of(section: str, entry: dict) -> str:
    return f"/api/{section}/{entry[SECTIONS[section]].removeprefix('/')}"


def created(node, section: str, entry: dict) -> dict:
    answer = node.api("POST", f"/api/{section}", entry)
    assert answer.status == 201, f"{answer.status} {answer.body!r}"
    return answer.json()


def has_no_secret(text: str):
    for secret in ("sk-vendor-secret", "correct horse", "$y$", "password", "key_sha256", "key_encrypted", "v1."):
        assert secret not in text, f"{secret} in {text}"


# -- who may ask


@pytest.mark.parametrize("path", [f"/api/{section}" for section in SECTIONS] + ["/api/config", "/api/keys/x/reset", "/api/nothing"])
@pytest.mark.parametrize("credential", [None, "", "Bearer", "Bearer wrong", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x"])
def test_the_token_is_needed(node, path, credential):
    headers = [] if credential is None else [("Authorization", credential)]
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        answer = node.request(method, path, headers, b"{}" if method in ("POST", "PUT") else None)
        error(answer, 401, "invalid_credentials")
        assert answer.header("www-authenticate", "").startswith("Bearer")


def test_the_token_is_needed_on_the_ops_listener_too(authority):
    with Gateway(start=False) as other:
        from support.process import HeldPort

        ops = HeldPort()
        other.settings["API_PROXY_OPS_LISTEN"] = f"127.0.0.1:{ops.number}"
        other.start()
        for path in ("/health", "/metrics", "/performance", "/errors", "/stats"):
            assert other.request("GET", path, port=ops.number).status == 200, path
        for path in ("/api/mappings", "/api/config"):
            error(other.request("GET", path, port=ops.number), 401, "invalid_credentials")
            assert other.request("GET", path, [("Authorization", f"Bearer {TOKEN}")], port=ops.number).status == 200
        for path in ("/metrics", "/performance", "/errors"):
            error(other.request("GET", path), 401, "invalid_credentials")
            # A client cannot say by itself where it came in.
            error(other.request("GET", path, [("x-apiproxy-listener", "ops")]), 401, "invalid_credentials")
        ops.release()


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing"])
def test_below_api_a_stranger_learns_nothing(node, path):
    error(node.request("GET", path), 401, "invalid_credentials")
    error(node.api("GET", path), 404, "no_mapping")


def test_a_stranger_sends_no_long_body(node):
    with RawClient(node.port) as client:
        client.send("PUT /api/config HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
        answer = client.read_response()
        error(answer, 401, "invalid_credentials")


BODY = b'{"prefix":"/expected","target":"http://h"}'


@pytest.mark.parametrize("expect", [(), (("Expect", "100-continue"),)], ids=["plain", "expect"])
@pytest.mark.parametrize("framing", [("Content-Length", str(len(BODY))), ("Transfer-Encoding", "chunked")], ids=["length", "chunked"])
@pytest.mark.parametrize(
    "line,token,status",
    [
        ("POST /api/mappings", "wrong", 401),
        ("POST /api/mappings", None, 401),
        ("PUT /api/config", "wrong", 401),
        ("PATCH /api/mappings", TOKEN, 405),
        ("POST /api/nothing", TOKEN, 404),
    ],
)
def test_what_the_head_decides_is_answered_before_the_body(node, line, token, status, framing, expect):
    with RawClient(node.port) as client:
        method, path = line.split()
        fields = [framing, *expect, *([("Authorization", f"Bearer {token}")] if token else [])]
        client.set_timeout(1.5)
        client.send(request_bytes(method, path, fields))
        answer = client.read_response()
        error(answer, status)
        assert answer.informational == []
        # What is sent of the body all the same is no request.
        client.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_to_end() == b""


def test_a_body_too_long_is_answered_before_it_comes(node):
    with RawClient(node.port) as client:
        fields = [("Content-Length", "2000000"), ("Expect", "100-continue"), ("Authorization", f"Bearer {TOKEN}")]
        client.send(request_bytes("POST", "/api/mappings", fields))
        answer = client.read_response()
        error(answer, 413, "body_too_large")
        assert answer.informational == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_is_wanted_is_asked_for_at_once(api, framing):
    field = ("Content-Length", str(len(BODY))) if framing == "length" else ("Transfer-Encoding", "chunked")
    with RawClient(api.port) as client:
        began = time.monotonic()
        fields = [field, ("Expect", "100-continue"), ("Authorization", f"Bearer {TOKEN}")]
        client.send(request_bytes("POST", "/api/mappings", fields))
        assert client.read_head().line.startswith(b"HTTP/1.1 100")
        assert time.monotonic() - began < 0.8
        client.send(BODY if framing == "length" else chunked(BODY))
        assert client.read_response().status == 201
        # and the connection is good for more
        client.send(request_bytes("GET", "/health", []))
        assert client.read_response().status == 200


def test_a_connection_lasts_where_a_refused_body_was_there_already(node):
    with RawClient(node.port) as client:
        for _ in range(3):
            client.send(request_bytes("POST", "/api/mappings", [("Authorization", "Bearer wrong")], BODY))
            error(client.read_response(), 401, "invalid_credentials")


# -- the four collections


@pytest.mark.parametrize("section", SECTIONS)
def test_create_read_update_delete(api, section):
    new, id_field = NEW[section], SECTIONS[section]
    path = path_of(section, new)
    assert api.api("GET", f"/api/{section}").json() == {section: [], "count": 0}
    error(api.api("GET", path), 404)
    error(api.api("PUT", path, {"enabled": False}), 404)
    error(api.api("DELETE", path), 404)

    made = created(api, section, new)
    assert made[id_field] == new[id_field] and made["enabled"] is True
    error(api.api("POST", f"/api/{section}", new), 409)
    shown = api.api("GET", path)
    assert shown.status == 200 and shown.json()[id_field] == new[id_field]
    assert shown.header("cache-control") == "no-store"
    listed = api.api("GET", f"/api/{section}").json()
    assert listed["count"] == 1 and listed[section] == [shown.json()]

    changed = api.api("PUT", path, {"enabled": False})
    assert changed.status == 200
    # What was left out keeps its value.
    expected = {**shown.json(), "enabled": False}
    if section == "keys":
        expected["health"] = {"state": "disabled", "until": None, "reason": "disabled"}
    assert changed.json() == expected == api.api("GET", path).json()
    # The id may be repeated, not changed.
    assert api.api("PUT", path, {id_field: new[id_field], "enabled": True}).json() == shown.json()
    other = "/other" if section == "mappings" else "other"
    assert id_field in error(api.api("PUT", path, {id_field: other}), 400, "bad_request")
    # What GET shows, PUT takes.
    assert api.api("PUT", path, shown.json()).status == 200

    assert len(api.api("HEAD", path).body) == 0
    gone = api.api("DELETE", path)
    assert (gone.status, gone.body) == (204, b"")
    error(api.api("GET", path), 404)
    error(api.api("DELETE", path), 404)


@pytest.mark.parametrize("section", SECTIONS)
def test_wrong_verbs(api, section):
    for path, allowed in ((f"/api/{section}", {"GET", "HEAD", "POST"}), (f"/api/{section}/x", {"GET", "HEAD", "PUT", "DELETE"})):
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"} - allowed:
            answer = api.api(method, path)
            error(answer, 405, "method_not_allowed")
            assert set(answer.header("allow").split(", ")) == allowed


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/mappings/", "/api/keys/", "/api/keys/a/b", "/api/keys/a/rotate", "/api/clients/a/reset", "/api/config/x"])
def test_unknown_paths(api, path):
    error(api.api("GET", path), 404)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "line 1"),
        (b'{"enabled":true', "line 1"),
        (b'{\n"enabled": yes}', "line 2"),
        (b'{"enabled":true} {}', "line 1, column 18"),
        (b'{"enabled":true}\x00', "line 1, column 17"),
        (b'{"enabled":"\xff"}', "line 1"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'"x"', "object"),
        (b'{"enabled":true,"enabled":false}', "enabled"),
        (b'{"nonsense":1}', "nonsense"),
        (b'{"enabled":"yes"}', "enabled"),
        (b'{"enabled":1}', "enabled"),
    ],
)
def test_bad_bodies(api, section, body, says):
    created(api, section, NEW[section])
    before = api.api("GET", path_of(section, NEW[section])).json()
    assert says in error(api.api("POST", f"/api/{section}", body), 400, "bad_request")
    assert says in error(api.api("PUT", path_of(section, NEW[section]), body), 400, "bad_request")
    assert api.api("GET", path_of(section, NEW[section])).json() == before


def test_content_type_does_not_matter(api):
    authorization = ("Authorization", f"Bearer {TOKEN}")
    for number, headers in enumerate(([], [("Content-Type", "text/plain")], [("Content-Type", "application/x-www-form-urlencoded")])):
        body = json.dumps({"prefix": f"/t{number}", "target": "http://127.0.0.1:9"}).encode()
        assert api.request("POST", "/api/mappings", [authorization, *headers], body).status == 201


def test_a_chunked_body_is_taken(api):
    body = json.dumps(NEW["mappings"]).encode()
    with RawClient(api.port) as client:
        client.send(f"POST /api/mappings HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in body:
            client.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert client.read_response("POST").status == 201
        assert client.request("GET", "/health").status == 200


def test_a_body_that_is_too_large(api):
    with RawClient(api.port) as client:
        client.send(f"PUT /api/config HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {64 * 1024 * 1024 + 1}\r\n\r\n")
        error(client.read_response("PUT"), 413, "body_too_large")
    padded = json.dumps(EMPTY).encode().ljust(64 * 1024 * 1024)
    assert api.api("PUT", "/api/config", padded).status == 200
    long = json.dumps(NEW["mappings"]).encode().ljust(1024 * 1024)
    error(api.api("POST", "/api/mappings", long + b" "), 413, "body_too_large")
    assert api.api("POST", "/api/mappings", long).status == 201


# -- mappings


def test_mappings_are_sorted_and_whole(api):
    for prefix in ("/b", "/a/z", "/a", "/a-b", "/B"):
        created(api, "mappings", {"prefix": prefix, "target": "https://example.com/base"})
    listed = api.api("GET", "/api/mappings").json()
    assert [m["prefix"] for m in listed["mappings"]] == sorted(["/b", "/a/z", "/a", "/a-b", "/B"])
    assert listed["count"] == 5
    assert all(m["target"] == "https://example.com/base" for m in listed["mappings"])


def test_a_whole_mapping_is_kept(api):
    whole = {
        "prefix": "/gemini",
        "target": "https://generativelanguage.googleapis.com",
        "dialect": "gemini",
        "auth": "required",
        "pool": "gemini",
        "timeout_seconds": 20,
        "connect_timeout_seconds": 10,
        "queue": {"rate_per_second": 0.5, "capacity": 20, "timeout_seconds": 5},
        "key_header": "api-key",
        "reserve_output_tokens": 100,
        "max_body_bytes": 1000000,
        "include_usage": True,
        "enabled": True,
        "description": "Grüße",
    }
    assert created(api, "mappings", whole) == whole
    assert api.api("GET", "/api/mappings/gemini").json() == whole
    changed = api.api("PUT", "/api/mappings/gemini", {"queue": {"capacity": 3}, "pool": None}).json()
    expected = {**whole, "queue": {**whole["queue"], "capacity": 3}}
    del expected["pool"]
    assert {k: v for k, v in changed.items() if v is not None} == expected


def test_prefixes_with_slashes_and_escapes(api, server):
    created(api, "mappings", {"prefix": "/a/b.c/~d", "target": server.url})
    for path in ("/api/mappings/a/b.c/~d", "/api/mappings/a%2Fb.c%2F%7Ed", "/api/mappings/%61/b.c/~d"):
        assert api.api("GET", path).json()["prefix"] == "/a/b.c/~d"
    for path in ("/api/mappings/a", "/api/mappings/a/b.c/~d/", "/api/mappings//a/b.c/~d", "/api/mappings/a%252Fb"):
        error(api.api("GET", path), 404)
    for path in ("/api/mappings/a%", "/api/mappings/a%zz", "/api/mappings/a%00"):
        error(api.api("GET", path), 400, "bad_request")
    assert api.api("DELETE", "/api/mappings/a%2fb.c/~d").status == 204


@pytest.mark.parametrize(
    "prefix",
    ["", "x", "/", "/x/", "/x//y", "/.", "/..", "/a/../b", "/a b", "/a%20b", "/ä", "/a?b", "/" + "x" * 128, "/index.html", "/static",
     "/static/x", "/stats", "/admin", "/admin/x", "/api", "/api/v1", "/auth", "/health", "/metrics", "/performance", "/errors",
     "/.well-known/acme", 7, None, ["/x"]],
)
def test_bad_prefixes(api, prefix):
    assert "prefix" in error(api.api("POST", "/api/mappings", {"prefix": prefix, "target": "http://127.0.0.1:9"}), 400, "bad_request")


@pytest.mark.parametrize("prefix", ["/x", "/" + "x" * 127, "/healthy", "/apis", "/a/api", "/A.b_c~d-e/0", "/...", "/v1/stats"])
def test_good_prefixes(api, prefix):
    assert created(api, "mappings", {"prefix": prefix, "target": "http://127.0.0.1:9"})["prefix"] == prefix
    assert api.api("DELETE", "/api/mappings" + prefix).status == 204


@pytest.mark.parametrize(
    "target",
    ["", "x", "ftp://h", "http://", "http:///x", "https://h?x", "https://h#x", "https://u@h", "https://u:p@h/", "http://h:0", "http://h:65536",
     "http://h:x", "http://[::1", "http://h/a b", "http://h" + "/x" * 1024, 7, None],
)
def test_bad_targets(api, target):
    assert "target" in error(api.api("POST", "/api/mappings", {"prefix": "/x", "target": target}), 400, "bad_request")


@pytest.mark.parametrize(
    ("field", "value"),
    [("dialect", "klingon"), ("auth", "maybe"), ("auth", True), ("timeout_seconds", -1), ("timeout_seconds", "1"),
     ("connect_timeout_seconds", []), ("queue", 5), ("queue", {}), ("queue", {"rate_per_second": 0}), ("queue", {"rate_per_second": 1, "x": 1}),
     ("queue", {"rate_per_second": 1, "capacity": 1.5}), ("key_header", "a b"), ("reserve_output_tokens", -1), ("max_body_bytes", 0.5),
     ("enabled", 1), ("description", 1), ("pool", "a b"), ("include_usage", "yes")],
)
def test_bad_fields_of_a_mapping(api, field, value):
    assert field in error(api.api("POST", "/api/mappings", {**NEW["mappings"], field: value}), 400, "bad_request")


def test_a_request_after_the_reply_sees_the_change(api, server):
    with RawClient(api.port) as client:
        authorization = [("Authorization", f"Bearer {TOKEN}")]
        for round_number in range(20):
            body = json.dumps({"prefix": "/live", "target": server.url}).encode()
            assert client.request("POST", "/api/mappings", authorization, body).status == 201
            client.send("GET /live/x HTTP/1.1\r\nHost: a\r\n\r\n")
            with server.accept() as upstream:
                upstream.read_request()
                upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                assert client.read_response().status == 200
            assert client.request("PUT", "/api/mappings/live", authorization, b'{"enabled":false}').status == 200
            assert client.request("GET", "/live/x").status == 404
            assert client.request("DELETE", "/api/mappings/live", authorization).status == 204
            assert client.request("GET", "/live/x").status == 404, round_number


# -- vendor keys


def test_a_vendor_key_is_never_shown(api, store):
    made = created(api, "keys", NEW["keys"])
    for answer in (api.api("GET", "/api/keys"), api.api("GET", "/api/keys/new"), api.api("GET", "/api/config"), api.api("PUT", "/api/keys/new", {"weight": 3})):
        has_no_secret(answer.body.decode())
    has_no_secret(json.dumps(made))
    assert made["weight"] == 1 and made["max_requests_per_minute"] == 0
    assert made["health"] == {"state": "ok", "until": None, "reason": ""}
    # Nor is it plain in Redis.
    assert "sk-vendor-secret" not in store.client.hget("apiproxy:keys", "new")


def test_an_id_is_generated(api):
    for section, entry in (("keys", {"pool": "p", "key": "sk-1"}), ("clients", {"name": "x"})):
        ids = {created(api, section, entry)["id"] for _ in range(3)}
        assert len(ids) == 3 and all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", i) for i in ids)


@pytest.mark.parametrize("given", ["", "a b", "a/b", "ä", "x" * 65, 5, ["x"]])
def test_bad_ids(api, given):
    for section in ("keys", "clients"):
        assert "id" in error(api.api("POST", f"/api/{section}", {**NEW[section], "id": given}), 400, "bad_request")


@pytest.mark.parametrize(
    ("field", "value"),
    [("pool", None), ("pool", 1), ("key", 1), ("key", None), ("key", "with space"), ("weight", 0), ("weight", -1), ("weight", 1.5), ("max_requests_per_minute", -1)],
)
def test_bad_fields_of_a_key(api, field, value):
    entry = {k: v for k, v in {**NEW["keys"], field: value}.items() if v is not None}
    assert field in error(api.api("POST", "/api/keys", entry), 400, "bad_request")


def test_reset_ends_a_cooling(api, server):
    created(api, "keys", NEW["keys"])
    created(api, "mappings", {"prefix": "/pooled", "target": server.url, "pool": "p"})
    with RawClient(api.port) as client:
        client.send("GET /pooled/x HTTP/1.1\r\nHost: a\r\n\r\n")
        with server.accept() as upstream:
            assert upstream.read_request().head.get("authorization") == "Bearer sk-vendor-secret-0001"
            upstream.send("HTTP/1.1 429 Slow Down\r\nRetry-After: 77\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            assert client.read_response().status == 429
    health = eventually(lambda: next((h for h in [api.api("GET", "/api/keys/new").json()["health"]] if h["state"] != "ok"), None))
    assert health["state"] == "cooling" and "429" in health["reason"]
    until = datetime.fromisoformat(health["until"].replace("Z", "+00:00"))
    assert 60 < (until - datetime.now(timezone.utc)).total_seconds() <= 78
    assert api.api("GET", "/api/keys").json()["keys"][0]["health"] == health
    answer = api.api("POST", "/api/keys/new/reset")
    assert answer.status == 200 and answer.json()["health"]["state"] == "ok"
    assert api.api("GET", "/api/keys/new").json()["health"] == {"state": "ok", "until": None, "reason": ""}
    error(api.api("POST", "/api/keys/nobody/reset"), 404)
    error(api.api("GET", "/api/keys/new/reset"), 405, "method_not_allowed")


# -- clients


def managed(api, server):
    created(api, "mappings", {"prefix": "/managed", "target": server.url, "auth": "required"})


def status_with(api, server, key: str) -> int:
    """200 where the key opens the mapping."""
    with RawClient(api.port) as client:
        client.send(f"GET /managed/x HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\n\r\n")
        if server.pending(0.3):
            with server.accept() as upstream:
                upstream.read_request()
                upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return client.read_response().status
        return client.read_response().status


def test_a_client_key_is_shown_once(api, store, server):
    managed(api, server)
    made = created(api, "clients", {"name": "Shop", "rpm": 5, "mappings": ["/managed"], "expires_at": "2999-01-31T12:00:00Z"})
    key = made.pop("key")
    assert re.fullmatch(r"sk-ap-[A-Za-z0-9_-]{43}", key)
    assert made["rpm"] == 5 and made["mappings"] == ["/managed"] and made["expires_at"].startswith("2999-01-31T12:00:00")
    assert api.api("GET", f"/api/clients/{made['id']}").json() == made
    assert key not in api.api("GET", "/api/clients").body.decode() + api.api("GET", "/api/config").body.decode()
    assert list(store.client.hgetall("apiproxy:clients")) == [hashlib.sha256(key.encode()).hexdigest()]
    assert key not in str(store.client.hgetall("apiproxy:clients"))
    assert status_with(api, server, key) == 200

    rotated = api.api("POST", f"/api/clients/{made['id']}/rotate")
    assert rotated.status == 200
    new_key = rotated.json()["key"]
    assert {k: v for k, v in rotated.json().items() if k != "key"} == made
    assert new_key != key and re.fullmatch(r"sk-ap-[A-Za-z0-9_-]{43}", new_key)
    assert status_with(api, server, new_key) == 200
    assert status_with(api, server, key) == 401
    assert api.api("PUT", f"/api/clients/{made['id']}", {"enabled": False}).status == 200
    assert status_with(api, server, new_key) == 403
    assert api.api("DELETE", f"/api/clients/{made['id']}").status == 204
    assert status_with(api, server, new_key) == 401
    error(api.api("POST", f"/api/clients/{made['id']}/rotate"), 404)


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", 1), ("rpm", -1), ("rpm", 1.5), ("rpm", "5"), ("input_tpm", True), ("output_tpm", []), ("max_concurrency", -1),
     ("mappings", "/x"), ("mappings", ["x"]), ("mappings", [1]), ("expires_at", "tomorrow"), ("expires_at", 5), ("key", "sk-ap-x")],
)
def test_bad_fields_of_a_client(api, field, value):
    assert field in error(api.api("POST", "/api/clients", {**NEW["clients"], field: value}), 400, "bad_request")


def test_usage(api, server):
    managed(api, server)
    made = created(api, "clients", {"id": "c", "rpm": 10})
    created(api, "users", NEW["users"])
    for path in ("/api/clients/c/usage", "/api/users/new/usage"):
        usage = api.api("GET", path)
        assert usage.status == 200
        usage = usage.json()
        assert usage["current"] == {"requests": 0, "input_tokens": 0, "output_tokens": 0}
        assert usage["limits"] == {"requests": 10 if "clients" in path else 0, "input_tokens": 0, "output_tokens": 0}
        assert len(usage["days"]) == 30
    assert status_with(api, server, made["key"]) == 200

    def counted():
        answer = api.api("GET", "/api/clients/c/usage").json()
        return answer if answer["days"][0]["requests"] else None

    usage = eventually(counted)
    assert usage["current"]["requests"] == 1 and usage["days"][0]["requests"] == 1
    assert abs((date.fromisoformat(usage["days"][0]["date"]) - datetime.now(timezone.utc).date()).days) <= 1
    assert [d["date"] for d in usage["days"]] == sorted((d["date"] for d in usage["days"]), reverse=True)
    for path in ("/api/clients/nobody/usage", "/api/users/nobody/usage"):
        error(api.api("GET", path), 404)
    error(api.api("POST", "/api/clients/c/usage"), 405, "method_not_allowed")


# -- users


def test_a_password_is_hashed_and_never_shown(api, store):
    made = created(api, "users", {**NEW["users"], "rpm": 7})
    has_no_secret(json.dumps(made))
    for answer in (api.api("GET", "/api/users"), api.api("GET", "/api/users/new"), api.api("GET", "/api/config")):
        has_no_secret(answer.body.decode())
    kept = json.loads(store.client.hget("apiproxy:users", "new"))
    assert kept["password_hash"].startswith("$y$")
    assert "correct horse" not in json.dumps(kept)
    assert api.api("PUT", "/api/users/new", {"rpm": 8}).json()["rpm"] == 8
    assert json.loads(store.client.hget("apiproxy:users", "new"))["password_hash"] == kept["password_hash"]
    assert api.api("PUT", "/api/users/new", {"password": "another"}).status == 200
    assert json.loads(store.client.hget("apiproxy:users", "new"))["password_hash"] != kept["password_hash"]


@pytest.mark.parametrize("name", ["ann@example.com", "Zoë", "a+b=c&d", "x;y:z", "名前", "usage"])
@pytest.mark.parametrize("safe", ["", "@+=&;:"], ids=["encoded", "as it is"])
def test_a_name_need_not_be_an_id(api, name, safe):
    path = "/api/users/" + quote(name, safe=safe)
    created(api, "users", {"username": name, "password": "first"})
    assert api.api("GET", path).json()["username"] == name
    assert api.api("PUT", path, {"rpm": 3, "password": "second"}).json()["rpm"] == 3
    assert api.api("GET", path + "/usage").json()["limits"]["requests"] == 3
    login = api.request("POST", "/auth/login", (), json.dumps({"username": name, "password": "second"}))
    assert login.status == 200
    assert api.api("DELETE", path).status == 204
    assert api.api("GET", path).status == 404


def test_a_user_logs_in_as_soon_as_it_is_there(api):
    created(api, "users", NEW["users"])
    login = {"username": "new", "password": "correct horse"}
    answer = api.request("POST", "/auth/login", body=json.dumps(login).encode())
    assert answer.status == 200 and answer.json()["token_type"] == "Bearer"
    assert api.api("DELETE", "/api/users/new").status == 204
    assert api.request("POST", "/auth/login", body=json.dumps(login).encode()).status == 401


@pytest.mark.parametrize(
    ("field", "value"), [("username", ""), ("username", "a b"), ("username", "a/b"), ("username", 5), ("username", None), ("password", ""), ("password", 5), ("password", None), ("rpm", -1)]
)
def test_bad_fields_of_a_user(api, field, value):
    entry = {k: v for k, v in {**NEW["users"], field: value}.items() if v is not None}
    assert field in error(api.api("POST", "/api/users", entry), 400, "bad_request")


# -- the whole configuration


def fill(api) -> dict:
    for section, entry in NEW.items():
        created(api, section, entry)
    return api.api("GET", "/api/config").json()


def test_the_document(api):
    document = fill(api)
    assert list(document) == list(SECTIONS)
    has_no_secret(json.dumps(document))
    for section, entries in document.items():
        assert len(entries) == 1


def test_a_document_goes_back_as_it_came(api, store):
    document = fill(api)
    kept = {section: store.client.hgetall(f"apiproxy:{section}") for section in SECTIONS}
    answer = api.api("PUT", "/api/config", document)
    assert answer.status == 200 and answer.json() == document
    # Entries without their secrets keep those that are stored.
    for section in ("clients", "users"):
        assert store.client.hgetall(f"apiproxy:{section}").keys() == kept[section].keys()
    assert json.loads(store.client.hget("apiproxy:users", "new"))["password_hash"] == json.loads(kept["users"]["new"])["password_hash"]
    assert api.api("GET", "/api/config").json() == document


def test_a_large_document_goes_back_too(api):
    mappings = [{"prefix": f"/large/{number}", "target": "http://127.0.0.1:9", "description": "d" * 4000} for number in range(4000)]
    assert api.api("PUT", "/api/config", {**EMPTY, "mappings": mappings}).status == 200
    document = api.api("GET", "/api/config").json()
    assert len(document["mappings"]) == 4000
    answer = api.api("PUT", "/api/config", document)
    assert answer.status == 200 and answer.json() == document


def test_a_document_replaces_everything(api):
    fill(api)
    answer = api.api("PUT", "/api/config", {**EMPTY, "clients": [{"id": "c1"}, {"id": "c2"}], "mappings": [{"prefix": "/z", "target": "http://127.0.0.1:9"}]})
    assert answer.status == 200
    assert [re.fullmatch(r"sk-ap-[A-Za-z0-9_-]{43}", c["key"]) is not None for c in answer.json()["clients"]] == [True, True]
    assert answer.json()["keys"] == answer.json()["users"] == []
    again = api.api("PUT", "/api/config", {k: [{f: v for f, v in e.items() if f != "key"} for e in entries] for k, entries in answer.json().items()})
    assert again.status == 200 and "sk-ap-" not in again.body.decode()
    error(api.api("GET", "/api/mappings/new"), 404)
    assert api.api("GET", "/api/mappings/z").status == 200


@pytest.mark.parametrize("key", ["sk-ap-" + "k" * 43, "sk-of-another-gateway", "with.two.dots", "x"])
def test_a_key_given_by_its_hash(api, server, key):
    entry = {"id": "given", "key_sha256": hashlib.sha256(key.encode()).hexdigest()}
    mapping = {"prefix": "/managed", "target": server.url, "auth": "required"}
    answer = api.api("PUT", "/api/config", {**EMPTY, "clients": [entry], "mappings": [mapping]})
    assert answer.status == 200 and "key" not in answer.json()["clients"][0]
    assert status_with(api, server, key) == 200


def test_a_given_hash_that_another_client_keeps(api):
    entry = {"id": "given", "key_sha256": "ab" * 32}
    assert api.api("PUT", "/api/config", {**EMPTY, "clients": [entry]}).status == 200
    answer = api.api("PUT", "/api/config", {**EMPTY, "clients": [{"id": "given"}, {**entry, "id": "other"}]})
    assert "clients[1].key_sha256" in error(answer, 400)


@pytest.mark.parametrize("missing", SECTIONS)
def test_a_missing_section(api, missing):
    before = fill(api)
    assert missing in error(api.api("PUT", "/api/config", {k: v for k, v in EMPTY.items() if k != missing}), 400, "bad_request")
    assert api.api("GET", "/api/config").json() == before


def test_every_fault_is_listed_with_its_place(api):
    before = fill(api)
    bad = {
        "mappings": [{"prefix": "/ok", "target": "http://127.0.0.1:9"}, {"prefix": "bad", "target": "ftp://x", "queue": {"rate_per_second": -1}}],
        "keys": [{"id": "nokey", "pool": "p"}, {"pool": 5, "key": "k"}],
        "clients": [{"id": "c", "rpm": "many"}],
        "users": [{"username": "u", "password": "x", "nonsense": 1}, {"username": "nopassword"}],
    }
    message = error(api.api("PUT", "/api/config", bad), 400, "bad_request")
    for place in ("mappings[1].prefix", "mappings[1].target", "mappings[1].queue.rate_per_second", "keys[0].key", "keys[1].pool",
                  "clients[0].rpm", "users[0].nonsense", "users[1].password"):
        assert place in message, message
    assert "mappings[0]" not in message
    assert api.api("GET", "/api/config").json() == before


def test_a_faulty_entry_is_looked_at_to_its_end(api):
    """What it lacks, and whether it repeats another one, is told beside its first fault."""
    bad = {
        "mappings": [{"prefix": "/m", "target": "x"}, {"prefix": "/m", "target": "http://127.0.0.1:9"}],
        "keys": [{"id": "k", "weight": -1, "pool": "p"}, 5],
        "clients": [{"id": "c", "key_sha256": "zz"}, {"id": "c"}],
        "users": [{"username": "u", "rpm": "many"}, "u"],
    }
    message = error(api.api("PUT", "/api/config", bad), 400, "bad_request")
    for place in ("mappings[0].target", "mappings[1].prefix", "keys[0].weight", "keys[0].key", "keys[1]", "clients[0].key_sha256",
                  "clients[1].id", "users[0].rpm", "users[0].password", "users[1]"):
        assert place in message, (place, message)
    assert "keys[1].key" not in message and "users[1].password" not in message


def test_repeated_names_and_nuls_are_faults_among_others(api):
    document = (
        '{"mappings":[{"prefix":"/a","prefix":"/b","target":"http://h","queue":{"rate_per_second":1,"rate_per_second":2}},'
        '{"prefix":"/c","target":"x","description":"a\\u0000b"}],"keys":[],"users":[],'
        '"clients":[{"id":"c","mappings":["/a\\u0000"]}],"clients":[]}'
    )
    answer = api.request("PUT", "/api/config", [("Authorization", f"Bearer {TOKEN}")], document)
    assert answer.status == 400
    told = {fault.split(": ")[0]: fault for fault in answer.json()["error"]["faults"]}
    assert set(told) == {
        "mappings[0].prefix", "mappings[0].queue.rate_per_second", "mappings[1].target", "mappings[1].description",
        "clients[0].mappings[0]", "clients",
    }  # fmt: skip
    for place in ("mappings[0].prefix", "mappings[0].queue.rate_per_second", "clients"):
        assert "more than once" in told[place]
    assert "NUL" in told["mappings[1].description"] and "NUL" in told["clients[0].mappings[0]"]
    assert api.api("GET", "/api/config").json() == EMPTY


@pytest.mark.parametrize(
    "document, known",
    [
        ('{"mappings":[{"target":"http://h",%s}],"keys":[],"clients":[],"users":[]}', '"prefix":"/a"'),
        ('{"mappings":[],"keys":[],"users":[],%s}', '"clients":[]'),
    ],
    ids=["fields", "sections"],
)
def test_many_repeated_names_behind_as_many_unknown_ones(api, document, known):
    """To look for each among those before it would take minutes. What is not told is counted."""
    count = 400_000
    document %= ",".join(['"a":1'] * count + [known] * count)
    answer = api.request("PUT", "/api/config", [("Authorization", f"Bearer {TOKEN}")], document)
    assert answer.status == 400
    told = answer.json()["error"]
    assert told["message"].endswith(f"; and {2 * count - 1 - len(told['faults'])} more")
    assert api.api("GET", "/api/config").json() == EMPTY


def test_a_put_with_a_nul_changes_nothing(api):
    created(api, "mappings", NEW["mappings"])
    answer = api.request("PUT", "/api/mappings/new", [("Authorization", f"Bearer {TOKEN}")], '{"description":"\\u0000"}')
    assert "description" in error_of(answer)
    assert api.api("GET", "/api/mappings/new").json()["description"] == ""


@pytest.mark.parametrize(
    "value,line,column",
    [("01", 2, 11), ("1.", 2, 12), ("-", 2, 11), (".5", 2, 10), ('"a\tb"', 2, 12), ('"a\nb"', 2, 12), ("\v1", 2, 10), ("1\f", 2, 11), ('"\x01"', 2, 11)],
)
def test_what_is_no_json_is_refused_with_its_place(api, value, line, column):
    body = '{"prefix":"/j","target":"http://h",\n"weight":' + value + "}"
    for method, path in (("POST", "/api/mappings"), ("PUT", "/api/config")):
        message = error(api.request(method, path, [("Authorization", f"Bearer {TOKEN}")], body), 400, "bad_request")
        assert f"line {line}, column {column}" in message


def test_hundreds_of_faults_are_listed_too(api):
    bad = [{"prefix": f"/m{number}", "target": "nonsense"} for number in range(500)]
    message = error(api.api("PUT", "/api/config", {**EMPTY, "mappings": bad}), 400, "bad_request")
    assert message.count("target: ") == 500 and "mappings[499].target: " in message and "more" not in message


@pytest.mark.parametrize(
    ("section", "entries"),
    [("mappings", [NEW["mappings"], NEW["mappings"]]), ("keys", [NEW["keys"], NEW["keys"]]), ("clients", [{"id": "a"}, {"id": "a"}]),
     ("users", [NEW["users"], NEW["users"]]), ("mappings", {}), ("keys", "x"), ("clients", [5]), ("users", None)],
)
def test_bad_sections(api, section, entries):
    assert section in error(api.api("PUT", "/api/config", {**EMPTY, section: entries}), 400, "bad_request")


def test_unknown_sections(api):
    assert "extra" in error(api.api("PUT", "/api/config", {**EMPTY, "extra": []}), 400, "bad_request")


# -- other nodes, redis-cli, a Redis that is away


@pytest.mark.parametrize("section", SECTIONS)
def test_an_entry_that_cannot_be_read_is_not_there(api, store, section):
    new = {**NEW[section], "key_sha256": "ab" * 32} if section == "clients" else NEW[section]
    field = new["key_sha256"] if section == "clients" else new[SECTIONS[section]]
    store.client.hset(f"apiproxy:{section}", field, "{nonsense")
    path = path_of(section, new)
    error(api.api("GET", path), 404)
    error(api.api("PUT", path, new), 404)
    created(api, section, new)
    assert api.api("GET", path).status == 200
    error(api.api("POST", f"/api/{section}", new), 409)


def test_a_change_holds_on_all_nodes_within_a_second(api, store):
    with Gateway(API_PROXY_REDIS_URL=store.url) as second:
        assert second.get("/new/x").status == 404
        created(api, "mappings", NEW["mappings"])
        eventually(lambda: second.get("/new/x").status == 502, 1.0)
        assert api.api("DELETE", "/api/mappings/new").status == 204
        eventually(lambda: second.get("/new/x").status == 404, 1.0)


@pytest.mark.parametrize("notifications", [True, False])
def test_redis_cli_is_noticed(notifications):
    with Redis(notifications=notifications) as store, Gateway(API_PROXY_REDIS_URL=store.url) as node:
        store.client.hset("apiproxy:mappings", "/raw", "http://127.0.0.1:9")
        eventually(lambda: node.get("/raw/x").status == 502, 1.0 if notifications else 5.0)
        assert node.api("GET", "/api/mappings/raw").json()["target"] == "http://127.0.0.1:9"
        store.client.hdel("apiproxy:mappings", "/raw")
        eventually(lambda: node.get("/raw/x").status == 404, 1.0 if notifications else 5.0)


def test_bad_values_in_redis_are_skipped_and_reported(api, store):
    created(api, "mappings", NEW["mappings"])
    store.client.hset("apiproxy:mappings", "/bad", "ftp://nowhere")
    store.client.hset("apiproxy:mappings", "/worse", "{")
    store.client.hset("apiproxy:mappings", "/upgraded", json.dumps({"target": "http://127.0.0.1:9", "from_the_future": {"x": 1}}))
    eventually(lambda: api.get("/upgraded/x").status == 502, 5.0)
    for path, status in (("/bad/x", 404), ("/worse/x", 404), ("/new/x", 502)):
        assert api.get(path).status == status
    errors = api.api("GET", "/errors").body.decode()
    assert "/bad" in errors and "/worse" in errors
    assert {m["prefix"] for m in api.api("GET", "/api/mappings").json()["mappings"]} >= {"/new", "/upgraded"}


def test_a_plain_vendor_key_is_encrypted_in_place(api, store, server):
    created(api, "mappings", {"prefix": "/pooled", "target": server.url, "pool": "p"})
    store.client.hset("apiproxy:keys", "raw", json.dumps({"pool": "p", "key": "sk-vendor-secret-raw"}))
    eventually(lambda: "sk-vendor-secret-raw" not in store.client.hget("apiproxy:keys", "raw"), 6.0)
    with RawClient(api.port) as client:
        client.send("GET /pooled/x HTTP/1.1\r\nHost: a\r\n\r\n")
        with server.accept() as upstream:
            assert upstream.read_request().head.get("authorization") == "Bearer sk-vendor-secret-raw"
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            assert client.read_response().status == 200


def test_a_redis_that_is_away(server):
    with Redis() as store, Gateway(API_PROXY_REDIS_URL=store.url) as node:
        created(node, "mappings", NEW["mappings"])
        store.kill()
        assert node.get("/new/x").status == 502
        for method, path, data in (
            ("GET", "/api/mappings", None),
            ("GET", "/api/mappings/new", None),
            ("POST", "/api/mappings", {"prefix": "/y", "target": "http://127.0.0.1:9"}),
            ("PUT", "/api/mappings/new", {"enabled": False}),
            ("DELETE", "/api/mappings/new", None),
            ("GET", "/api/keys", None),
            ("GET", "/api/config", None),
            ("PUT", "/api/config", EMPTY),
        ):
            assert "Redis" in error(node.api(method, path, data), 503, "redis_unavailable")
        assert eventually(lambda: node.get("/health").json()["redis"] == "down")
        assert node.get("/health").status == 200
        # It comes back empty: what is configured stays, and /errors says so.
        store.start()
        eventually(lambda: node.get("/health").json()["redis"] == "ok", 10)
        assert node.get("/new/x").status == 502
        eventually(lambda: node.api("GET", "/api/mappings/new").status == 200)
        assert "empty" in node.api("GET", "/errors").body.decode()


def test_a_redis_that_hangs(server):
    with Redis() as store, Gateway(API_PROXY_REDIS_URL=store.url) as node:
        store.freeze()
        try:
            error(node.api("GET", "/api/mappings"), 503, "redis_unavailable")
            assert node.get("/health").status == 200
        finally:
            store.thaw()
        eventually(lambda: node.api("GET", "/api/mappings").status == 200)
