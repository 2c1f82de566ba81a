"""Vendor keys that get another secret, and what is said of a key whose cooling is over."""

from __future__ import annotations

import json
import threading
import time

import pytest

from support.managed import at_once, fault_of, name
from support.process import eventually
from support.vendor import Reply


def one_key(pair, vendor, **more) -> tuple[str, str, str]:
    """Prefix, pool and key, whose secret is "secret-KEY"."""
    key = name("renewed")
    pool = pair.pool(key, **more)
    return pair.map(vendor.url, pool=pool), pool, key


def reject(pair, vendor, prefix: str, key: str):
    vendor.script(Reply(401))
    assert pair[0].get(prefix + "/x").status == 401
    for node in range(2):
        eventually(lambda node=node: pair.health(key, node)["state"] == "cooling", 2)
    assert fault_of(pair[0].get(prefix + "/x")) == (503, "no_upstream_key")


def put_another(pair, pool, key):
    assert pair[0].api("PUT", f"/api/keys/{key}", {"key": "secret-another"}).status == 200


def put_the_same(pair, pool, key):
    assert pair[0].api("PUT", f"/api/keys/{key}", {"key": "secret-" + key}).status == 200


def delete_and_create(pair, pool, key):
    assert pair[0].api("DELETE", f"/api/keys/{key}").status == 204
    assert pair[0].api("POST", "/api/keys", {"id": key, "pool": pool, "key": "secret-" + key}).status == 201


def put_configuration(pair, pool, key):
    document = pair[0].api("GET", "/api/config").json()
    (entry,) = (k for k in document["keys"] if k["id"] == key)
    entry["key"] = "secret-" + key
    assert pair[0].api("PUT", "/api/config", document).status == 200


@pytest.mark.parametrize("renew", [put_another, put_the_same, delete_and_create, put_configuration])
def test_a_key_that_gets_a_secret_starts_anew(pair, vendor, renew):
    prefix, pool, key = one_key(pair, vendor)
    reject(pair, vendor, prefix, key)
    renew(pair, pool, key)
    assert pair[0].get(prefix + "/x").status == 200
    assert pair.health(key)["state"] == "ok"
    eventually(lambda: pair[1].get(prefix + "/x").status == 200, 1.5, 0.05)
    assert pair.health(key, 1)["state"] == "ok"


def test_a_secret_set_by_hand_starts_anew(pair, vendor):
    prefix, pool, key = one_key(pair, vendor)
    reject(pair, vendor, prefix, key)
    value = json.dumps({"pool": pool, "key": "secret-by-hand"})
    pair.redis.client.hset("apiproxy:keys", key, value)
    for node in pair:
        eventually(lambda node=node: node.get(prefix + "/x").status == 200, 6, 0.05)
    assert vendor.received[-1].header("authorization") == "Bearer secret-by-hand"
    assert pair.health(key)["state"] == "ok"


def test_the_key_at_fault_stays_cool_where_no_secret_is_given(pair, vendor):
    prefix, pool, key = one_key(pair, vendor)
    reject(pair, vendor, prefix, key)
    assert pair[0].api("PUT", f"/api/keys/{key}", {"weight": 3}).status == 200
    document = pair[0].api("GET", "/api/config").json()
    assert pair[0].api("PUT", "/api/config", document).status == 200
    assert pair.health(key)["state"] == "cooling"
    assert fault_of(pair[0].get(prefix + "/x")) == (503, "no_upstream_key")


def test_what_was_sent_with_the_old_secret_says_nothing_about_the_new_one(pair, vendor):
    prefix, pool, key = one_key(pair, vendor)
    arrived, go_on = threading.Event(), threading.Event()

    def late(connection, received):
        arrived.set()
        go_on.wait(10)
        connection.send("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

    vendor.script(late)
    asking = threading.Thread(target=pair[1].get, args=(prefix + "/x",))
    asking.start()
    assert arrived.wait(5)
    put_another(pair, pool, key)
    go_on.set()
    asking.join(5)
    time.sleep(0.2)
    assert pair.health(key)["state"] == "ok"
    assert pair[0].get(prefix + "/x").status == 200


def test_the_window_of_a_secret_that_is_given_again_goes_on(pair, vendor):
    prefix, pool, key = one_key(pair, vendor, max_requests_per_minute=3)
    for n in range(3):
        assert pair[n % 2].get(prefix + "/x").status == 200
    pair.change(f"/api/keys/{key}", key="secret-" + key)
    for node in pair:
        assert fault_of(node.get(prefix + "/x")) == (429, "upstream_rate_limit")
    pair.change(f"/api/keys/{key}", key="secret-another")
    assert at_once([lambda: pair[0].get(prefix + "/x").status] * 5, 5).count(200) == 3


def test_a_reset_holds_at_once_beside_other_keys(pair, vendor):
    first, second = name("renewed"), name("renewed")
    prefix = pair.map(vendor.url, pool=pair.pool(first, second))
    vendor.script(Reply(401))
    assert pair[0].get(prefix + "/x").status == 200, "the other key answers"
    cooled = first if vendor.received[0].header("authorization").endswith(first) else second
    eventually(lambda: pair.health(cooled)["state"] == "cooling", 2)
    pair[0].get(prefix + "/x")
    pair[0].get(prefix + "/x")
    assert pair[0].api("POST", f"/api/keys/{cooled}/reset").status == 200
    vendor.received.clear()
    for _ in range(2):
        pair[0].get(prefix + "/x")
    used = {r.header("authorization").removeprefix("Bearer secret-") for r in vendor.received}
    assert used == {first, second}


def key_up(pair, key: str) -> str:
    text = pair[0].request("GET", "/metrics", [("Authorization", f"Bearer {pair[0].admin_token}")]).body.decode()
    (line,) = (line for line in text.splitlines() if line.startswith("apiproxy_upstream_key_up{") and f'key="{key}"' in line)
    return line.split()[-1]


def test_a_cooling_that_is_over_is_told_so_though_nobody_asks(pair, vendor):
    prefix, pool, key = one_key(pair, vendor)
    vendor.script(Reply(429, {"retry-after": "1"}))
    pair[0].get(prefix + "/x")
    eventually(lambda: pair.health(key)["state"] == "cooling", 0.8)
    assert key_up(pair, key) == "0"
    time.sleep(1.2)
    for node in range(2):
        assert pair.health(key, node) == {"state": "trial", "until": None, "reason": "status 429"}
    assert key_up(pair, key) == "1"
    assert pair[1].get(prefix + "/x").status == 200
    assert pair.health(key) == {"state": "ok", "until": None, "reason": ""}
