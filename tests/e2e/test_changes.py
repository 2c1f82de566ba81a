"""Changes of the configuration while traffic runs, and its first filling.

The resources one by one are in test_api.py.
"""

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


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t.upper(), lambda t: t[:8]])
def test_nearly_the_token_is_not_enough(gateway, change):
    assert gateway.api("GET", "/api/mappings", token=change(gateway.admin_token)).status == 401


# -- mappings


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
