"""The admin API: mappings and the whole configuration (contract, section 5)."""

from __future__ import annotations

import json
import threading

import pytest

from support.gateway import Gateway


def error_of(answer, status: int) -> dict:
    assert answer.status == status, answer.body
    error = answer.json()["error"]
    assert {"code", "message"} <= set(error)
    return error


# -- who may


@pytest.mark.parametrize("path", ["/api/mappings", "/api/mappings/x", "/api/keys", "/api/clients", "/api/users", "/api/config", "/metrics", "/performance", "/errors"])
@pytest.mark.parametrize("fields", [[], [("Authorization", "Bearer wrong")], [("Authorization", "Basic YTpi")], [("Authorization", "Bearer ")]])
def test_token_is_needed(gateway, path, fields):
    assert error_of(gateway.get(path, fields), 401)["code"] == "invalid_credentials"


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t.upper(), lambda t: t[:8]])
def test_nearly_the_token_is_not_enough(gateway, change):
    assert gateway.api("GET", "/api/mappings", token=change(gateway.admin_token)).status == 401


# -- mappings


def test_life_of_a_mapping(gateway):
    created = gateway.api("POST", "/api/mappings", {"prefix": "/life", "target": "http://h/v1"})
    assert created.status == 201 and created.header("content-type").startswith("application/json")
    assert (created.json()["prefix"], created.json()["target"]) == ("/life", "http://h/v1")
    again = gateway.api("POST", "/api/mappings", {"prefix": "/life", "target": "http://h"})
    error_of(again, 409)
    read = gateway.api("GET", "/api/mappings/life")
    assert read.status == 200 and read.json() == created.json()
    changed = gateway.api("PUT", "/api/mappings/life", {"description": "mine"})
    assert changed.status == 200
    assert (changed.json()["target"], changed.json()["description"]) == ("http://h/v1", "mine")
    changed = gateway.api("PUT", "/api/mappings/life", {"target": "https://other"})
    assert (changed.json()["target"], changed.json()["description"]) == ("https://other", "mine")
    gone = gateway.api("DELETE", "/api/mappings/life")
    assert (gone.status, gone.body) == (204, b"")
    for method in ("GET", "PUT", "DELETE"):
        error_of(gateway.api(method, "/api/mappings/life", {"target": "http://h"} if method == "PUT" else None), 404)


def test_prefix_of_several_segments(gateway):
    gateway.map("/deep/er/still", "http://h")
    assert gateway.api("GET", "/api/mappings/deep/er/still").json()["prefix"] == "/deep/er/still"
    gateway.unmap("/deep/er/still")


def test_list_is_sorted_and_counted(gateway):
    for prefix in ("/zz", "/aa", "/mm/b", "/mm"):
        gateway.map(prefix, "http://h")
    data = gateway.api("GET", "/api/mappings").json()
    prefixes = [mapping["prefix"] for mapping in data["mappings"]]
    assert data["count"] == len(prefixes) and prefixes == sorted(prefixes)
    assert {"/zz", "/aa", "/mm", "/mm/b"} <= set(prefixes)
    assert all(mapping["target"] for mapping in data["mappings"])


def test_whole_object_comes_back(gateway):
    whole = {
        "prefix": "/whole", "target": "https://h/base", "dialect": "gemini", "auth": "required", "pool": "p",
        "timeout_seconds": 20, "connect_timeout_seconds": 10,
        "queue": {"rate_per_second": 2, "capacity": 20, "timeout_seconds": 5},
        "key_header": "api-key", "reserve_output_tokens": 100, "max_body_bytes": 1000, "enabled": True, "description": "d \u00e4",
    }
    assert gateway.api("POST", "/api/mappings", whole).status == 201
    got = gateway.api("GET", "/api/mappings/whole").json()
    assert {name: got[name] for name in whole} == whole
    gateway.unmap("/whole")


@pytest.mark.parametrize(
    "field,value",
    [
        ("colour", "red"), ("target", 5), ("target", None), ("enabled", "yes"), ("enabled", 1), ("timeout_seconds", "20"), ("timeout_seconds", -1),
        ("connect_timeout_seconds", "x"), ("dialect", "french"), ("auth", "maybe"), ("auth", True), ("queue", 5), ("queue", {"rate": 1}),
        ("queue", {"rate_per_second": -1}), ("max_body_bytes", -1), ("max_body_bytes", 1.5), ("description", 5), ("pool", 5), ("key_header", "a b"),
        ("prefix", 5), ("reserve_output_tokens", "x"),
    ],
)
def test_bad_field_is_named(gateway, field, value):
    document = {"prefix": "/bad-field", "target": "http://h", field: value}
    error = error_of(gateway.api("POST", "/api/mappings", document), 400)
    assert error["code"] == "bad_request" and field in error["message"]
    error_of(gateway.api("GET", "/api/mappings/bad-field"), 404)


@pytest.mark.parametrize("missing", ["prefix", "target"])
def test_missing_field_is_named(gateway, missing):
    document = {"prefix": "/missing", "target": "http://h"}
    del document[missing]
    assert missing in error_of(gateway.api("POST", "/api/mappings", document), 400)["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"{} x", b'{"prefix":"/a"', b"\xff\xfe", b'{"a":1,}', b"[" * 100_000])
def test_bad_json(gateway, body):
    assert error_of(gateway.api("POST", "/api/mappings", body), 400)["code"] == "bad_request"


def test_prefix_cannot_be_changed(gateway):
    gateway.map("/fixed", "http://h")
    answer = gateway.api("PUT", "/api/mappings/fixed", {"prefix": "/other", "target": "http://h"})
    assert answer.status == 400 or answer.json()["prefix"] == "/fixed"
    gateway.unmap("/fixed")


def test_bad_change_changes_nothing(gateway):
    gateway.map("/steady", "http://h")
    error_of(gateway.api("PUT", "/api/mappings/steady", {"target": "ftp://h"}), 400)
    assert gateway.api("GET", "/api/mappings/steady").json()["target"] == "http://h"
    gateway.unmap("/steady")


@pytest.mark.parametrize("method,path", [("PATCH", "/api/mappings"), ("DELETE", "/api/mappings"), ("POST", "/api/mappings/x"), ("POST", "/api/config"), ("DELETE", "/api/config")])
def test_wrong_verb_is_405(gateway, method, path):
    assert error_of(gateway.api(method, path, {}), 405)["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing"])
def test_unknown_resource_is_404(gateway, path):
    assert gateway.api("GET", path).status == 404


def test_own_change_holds_for_the_next_request(gateway, vendor):
    for number in range(30):
        prefix = f"/next-{number}"
        gateway.map(prefix, vendor.url)
        assert gateway.get(prefix + "/").status == 200
        assert gateway.get(prefix + "/").status == 200
        gateway.unmap(prefix)
        assert gateway.get(prefix + "/").status == 404


def test_change_holds_on_open_connections_too(gateway, vendor):
    clients = [gateway.connect() for _ in range(8)]  # on all workers
    for client in clients:
        assert client.request("GET", "/open/").status == 404
    gateway.map("/open", vendor.url)
    assert [client.request("GET", "/open/").status for client in clients] == [200] * 8
    gateway.unmap("/open")
    assert [client.request("GET", "/open/").status for client in clients] == [404] * 8


# -- the whole configuration


def test_configuration_as_one_document(vendor):
    with Gateway() as gateway:
        document = gateway.api("GET", "/api/config").json()
        assert set(document) == {"mappings", "keys", "clients", "users"}
        assert {m["prefix"] for m in document["mappings"]} >= {"/openai", "/claude", "/anthropic", "/gemini", "/deepseek"}, "the built-in list"
        document["mappings"] = [{"prefix": "/only", "target": vendor.url}]
        answer = gateway.api("PUT", "/api/config", document)
        assert answer.status == 200 and [m["prefix"] for m in answer.json()["mappings"]] == ["/only"]
        assert gateway.get("/only/").status == 200 and gateway.get("/openai/").status == 404


@pytest.mark.parametrize("section", ["mappings", "keys", "clients", "users"])
def test_missing_section_is_a_fault(gateway, section):
    document = gateway.api("GET", "/api/config").json()
    del document[section]
    assert section in json.dumps(error_of(gateway.api("PUT", "/api/config", document), 400))


def test_every_fault_is_listed_and_nothing_changes(gateway):
    before = gateway.api("GET", "/api/config").json()
    document = json.loads(json.dumps(before))
    document["mappings"] += [{"prefix": "bad", "target": "http://h"}, {"prefix": "/fine", "target": "ftp://x"}, {"prefix": "/odd", "target": "http://h", "colour": 1}]
    text = json.dumps(error_of(gateway.api("PUT", "/api/config", document), 400))
    count = len(before["mappings"])
    assert "prefix" in text and "target" in text and "colour" in text
    assert str(count) in text and str(count + 2) in text, "each with its place"
    assert gateway.api("GET", "/api/config").json() == before


def test_bootstrap_file_fills_an_empty_store(vendor):
    document = {"mappings": [{"prefix": "/boot", "target": vendor.url}], "keys": [], "clients": [], "users": []}
    with Gateway(files={"boot.json": json.dumps(document)}, API_PROXY_BOOTSTRAP="boot.json") as gateway:
        assert [m["prefix"] for m in gateway.api("GET", "/api/mappings").json()["mappings"]] == ["/boot"]
        gateway.unmap("/boot")
        gateway.map("/own", vendor.url)
        gateway.restart()
        assert [m["prefix"] for m in gateway.api("GET", "/api/mappings").json()["mappings"]] == ["/own"]


def test_builtin_list_is_loaded_once():
    with Gateway() as gateway:
        gateway.unmap("/openai")
        gateway.restart()
        assert gateway.api("GET", "/api/mappings/openai").status == 404


@pytest.mark.concurrency
def test_changes_and_traffic_at_once(gateway, vendor):
    prefix = gateway.route(vendor.url)
    stop, failures = threading.Event(), []

    def traffic():
        while not stop.is_set():
            status = gateway.get(prefix + "/").status
            if status != 200:
                failures.append(status)

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(60):
        gateway.map(f"/busy-{number % 7}", vendor.url)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
