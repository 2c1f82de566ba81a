"""Vendor keys: choice, health, failover."""

from __future__ import annotations

import calendar
import email.utils
import json
import re
import threading
import time
from collections import Counter

import pytest

from support.managed import CHAT, Held, Nodes, Timed, ask, at_once, chat_body, fault_of, name
from support.process import eventually
from support.vendor import Fault, Reply
from support.wire import Broken, RawServer

MEBIBYTE = 1024 * 1024
CONNECTION_FAULTS = ["close_before_head", "reset_before_head"]
KEY_FAULTS = [401, 403, 429, 500, 502, 503, 504, 529]


def keys_used(vendor) -> list[str]:
    return [(r.header("authorization") or "").removeprefix("Bearer secret-") for r in vendor.received]


def pooled(pair, vendor, count: int = 2, **more) -> tuple[str, list[str]]:
    keys = [name("k") for _ in range(count)]
    return pair.map(vendor.url, pool=pair.pool(*keys, **more)), keys


def cooling_for(health: dict) -> float:
    """Seconds until the end of a cooling, which is told in whole seconds, rounded up."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", health["until"]), health
    whole, _, fraction = health["until"].rstrip("Z").partition(".")
    at = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + (fraction or "0"))
    return at - time.time()


def cools(pair, key: str) -> dict:
    """The health of a key that is cooling, the same on both nodes."""
    for node in range(2):
        eventually(lambda node=node: pair.health(key, node)["state"] == "cooling", 2)
    first, second = pair.health(key, 0), pair.health(key, 1)
    assert first == second
    return first


# -- choice


def test_by_weight_over_both_nodes(pair, vendor):
    keys = [name("w") for _ in range(3)]
    pool = pair.pool(keys[0], weight=1)
    for key, weight in zip(keys[1:], (2, 3)):
        pair.add("keys", {"id": key, "pool": pool, "key": "secret-" + key, "weight": weight}, f"/api/keys/{key}")
    prefix = pair.map(vendor.url, pool=pool)
    for n in range(60):
        assert pair[n % 2].get(prefix + "/x").status == 200
    used = Counter(keys_used(vendor))
    assert [used[k] for k in keys] == [10, 20, 30]


def test_smooth_rather_than_in_blocks(pair, vendor):
    prefix, keys = pooled(pair, vendor, 2)
    for _ in range(8):
        pair[0].get(prefix + "/x")
    assert all(a != b for a, b in zip(keys_used(vendor), keys_used(vendor)[1:]))


def test_weight_is_changed_while_it_runs(pair, vendor):
    prefix, keys = pooled(pair, vendor, 2)
    pair.change(f"/api/keys/{keys[0]}", weight=9)
    for _ in range(20):
        pair[1].get(prefix + "/x")
    assert Counter(keys_used(vendor)) == {keys[0]: 18, keys[1]: 2}


def test_disabled_key_is_not_used(pair, vendor):
    prefix, keys = pooled(pair, vendor, 2)
    pair.change(f"/api/keys/{keys[0]}", enabled=False)
    assert pair.health(keys[0])["state"] == "disabled"
    for n in range(4):
        pair[n % 2].get(prefix + "/x")
    assert set(keys_used(vendor)) == {keys[1]}


def test_new_key_of_a_pool_is_used_at_once(pair, vendor):
    pool = name("later")
    prefix = pair.map(vendor.url, pool=pool)
    assert fault_of(pair[0].get(prefix + "/x")) == (503, "no_upstream_key")
    key = name("k")
    pair.add("keys", {"id": key, "pool": pool, "key": "secret-" + key}, f"/api/keys/{key}")
    for node in pair:
        assert node.get(prefix + "/x").status == 200
    assert pair[0].api("PUT", f"/api/keys/{key}", {"key": "secret-another"}).status == 200
    assert pair[0].get(prefix + "/x").status == 200
    assert keys_used(vendor) == [key, key, "another"]


# -- max_requests_per_minute


def test_requests_per_minute_of_a_key_over_both_nodes(pair, vendor):
    prefix, (key,) = pooled(pair, vendor, 1, max_requests_per_minute=10)
    answers = at_once([lambda n=n: pair[n % 2].get(prefix + "/x") for n in range(30)], 15)
    found = Counter(fault_of(a) for a in answers)
    assert found == {(200, None): 10, (429, "upstream_rate_limit"): 20}
    refused = next(a for a in answers if a.status == 429)
    assert 50 <= int(refused.header("retry-after")) <= 60


def test_the_next_key_takes_over_at_the_limit(pair, vendor):
    keys = [name("k") for _ in range(2)]
    pool = pair.pool(keys[0], max_requests_per_minute=3)
    pair.add("keys", {"id": keys[1], "pool": pool, "key": "secret-" + keys[1], "max_requests_per_minute": 5}, f"/api/keys/{keys[1]}")
    prefix = pair.map(vendor.url, pool=pool)
    answers = at_once([lambda n=n: pair[n % 2].get(prefix + "/x").status for n in range(12)], 6)
    assert Counter(answers) == {200: 8, 429: 4}
    assert Counter(keys_used(vendor)) == {keys[0]: 3, keys[1]: 5}


# -- what cools a key


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "headers,least,most",
    [({"retry-after": "7"}, 5.5, 7), ({"Retry-After": "100"}, 98, 100), ({}, 28, 30), ({"retry-after": "soon"}, 28, 30), ("date", 17, 21)],
)
def test_throttled_key_cools_for_its_retry_after(pair, vendor, status, headers, least, most):
    prefix, (key, _) = pooled(pair, vendor, 2)
    if headers == "date":
        headers = {"retry-after": email.utils.formatdate(time.time() + 20, usegmt=True)}
    pair.change(f"/api/keys/{key}", weight=100)
    vendor.script(Reply(status, headers))
    assert pair[0].get(prefix + "/x").status == 200
    health = cools(pair, key)
    assert least <= cooling_for(health) <= most + 1
    assert str(status) in health["reason"]
    for n in range(4):
        assert pair[n % 2].get(prefix + "/x").status == 200
    assert keys_used(vendor)[0] == key and key not in keys_used(vendor)[1:]


def test_storm_of_429_is_no_longer_than_the_vendor_asked(pair, vendor):
    prefix, (key,) = pooled(pair, vendor, 1)
    barrier = threading.Barrier(8)

    def throttled(connection, received):
        barrier.wait(5)
        connection.send("HTTP/1.1 429 Slow\r\nretry-after: 3\r\nContent-Length: 0\r\n\r\n")

    vendor.script(*[throttled] * 8)
    assert set(at_once([lambda n=n: pair[n % 2].get(prefix + "/x").status for n in range(8)], 8)) == {429}
    assert cooling_for(cools(pair, key)) <= 4
    eventually(lambda: pair[1].get(prefix + "/x").status == 200, 5, 0.1)
    assert pair.health(key)["state"] == "ok"


@pytest.mark.parametrize("status", [401, 403])
def test_rejected_key_cools_for_five_minutes(pair, vendor, status):
    prefix, (key, other) = pooled(pair, vendor, 2)
    pair.change(f"/api/keys/{key}", weight=100)
    vendor.script(Reply(status, {"retry-after": "1"}))
    assert pair[0].get(prefix + "/x").status == 200
    assert 297 <= cooling_for(cools(pair, key)) <= 301
    assert pair.health(other)["state"] == "ok"


@pytest.mark.parametrize("fault", [Reply(500), Reply(502), Reply(504), Reply(529), *map(Fault, CONNECTION_FAULTS)], ids=repr)
def test_three_failures_in_a_row_cool_over_both_nodes(pair, vendor, fault):
    prefix, (key,) = pooled(pair, vendor, 1)
    vendor.script(fault, fault, None, fault, fault, fault)
    for n in range(5):
        pair[n % 2].request("POST", prefix + "/x", [], b"y")
        time.sleep(0.05)
    assert pair.health(key)["state"] == "ok", "a success between starts the count anew"
    pair[0].request("POST", prefix + "/x", [], b"y")
    assert 8.5 <= cooling_for(cools(pair, key)) <= 11
    assert len(vendor.received) == 6
    assert fault_of(pair[1].get(prefix + "/x")) == (503, "no_upstream_key")


def test_refused_connections_cool(pair):
    with RawServer() as gone:
        url = gone.url
    key = name("k")
    prefix = pair.map(url, pool=pair.pool(key))
    for n in range(3):
        assert fault_of(pair[n % 2].get(prefix + "/x")) == (502, "upstream_error")
        time.sleep(0.05)
    cools(pair, key)
    assert fault_of(pair[0].get(prefix + "/x")) == (503, "no_upstream_key")


@pytest.mark.parametrize("status", [400, 402, 404, 405, 408, 409, 413, 415, 422, 499])
def test_other_4xx_say_nothing_about_a_key(pair, vendor, status):
    prefix, (key, other) = pooled(pair, vendor, 2)
    vendor.script(*[Reply(status, {"x-from": "vendor"})] * 8)
    for n in range(8):
        answer = pair[n % 2].get(prefix + "/x")
        assert answer.status == status and answer.header("x-from") == "vendor"
    assert len(vendor.received) == 8, "no failover for the client's own fault"
    assert pair.health(key)["state"] == pair.health(other)["state"] == "ok"


def test_other_4xx_do_not_end_a_row_of_failures_nor_lengthen_it(pair, vendor):
    prefix, (key,) = pooled(pair, vendor, 1)
    vendor.script(Reply(500), Reply(400), Reply(500), Reply(400))
    for _ in range(4):
        pair[0].get(prefix + "/x")
        time.sleep(0.03)
    assert pair.health(key)["state"] == "ok"


def test_hang_up_of_a_client_says_nothing_about_a_key(pair, vendor):
    prefix, (key,) = pooled(pair, vendor, 1)
    vendor.script(*[Fault("stall_before_head")] * 4)
    for n in range(4):
        request = Held(pair[n % 2], prefix)
        vendor.wait(n + 1)
        request.close()
        eventually(lambda n=n: vendor.received[n].hung_up, 2)
    time.sleep(0.1)
    assert pair.health(key)["state"] == "ok"


# -- the end of a cooling


def test_trial_request_goes_first(pair, vendor):
    prefix, (key,) = pooled(pair, vendor, 1)
    vendor.script(Reply(429, {"retry-after": "1"}), Fault("stall_before_head"))
    assert pair[0].get(prefix + "/x").status == 429
    health = cools(pair, key)
    assert fault_of(pair[1].get(prefix + "/x")) == (429, "upstream_rate_limit")
    time.sleep(max(0, cooling_for(health)) + 0.1)
    trial = Held(pair[0], prefix)
    vendor.wait(2)
    assert pair.health(key, 0)["state"] == pair.health(key, 1)["state"] == "trial"
    for node in pair:
        assert node.get(prefix + "/x").status in (429, 503), "one goes first"
    assert len(vendor.received) == 2
    vendor.release.set()
    trial.close()


def test_success_of_the_trial_ends_it(pair, vendor):
    prefix, (key,) = pooled(pair, vendor, 1)
    vendor.script(Reply(429, {"retry-after": "1"}))
    pair[0].get(prefix + "/x")
    cools(pair, key)
    eventually(lambda: pair[1].get(prefix + "/x").status == 200, 3, 0.05)
    for node in (0, 1):
        assert pair.health(key, node)["state"] == "ok"
        assert pair[node].get(prefix + "/x").status == 200


def test_success_of_the_trial_ends_it_with_the_head(pair, vendor):
    """A stream that runs for long is a success from its first byte on."""
    prefix, (key,) = pooled(pair, vendor, 1)
    vendor.script(Reply(429, {"retry-after": "1"}), Fault("stall_in_body", after=5))
    pair[0].get(prefix + "/x")
    time.sleep(1.1)
    stream = Held(pair[0], prefix)
    assert stream.client.read_response_head()[0].line.split()[1] == b"200"
    eventually(lambda: pair.health(key, 1)["state"] == "ok", 1)
    assert pair[1].get(prefix + "/x").status == 200
    stream.close()


@pytest.mark.timeout(90)
def test_failed_trial_doubles_the_cooling(pair, vendor):
    prefix, (key,) = pooled(pair, vendor, 1)
    vendor.script(*[Reply(500)] * 4)
    for _ in range(3):
        pair[0].get(prefix + "/x")
        time.sleep(0.03)
    wait = cooling_for(cools(pair, key))
    assert 8.5 <= wait <= 11
    time.sleep(wait + 0.1)
    assert pair[1].get(prefix + "/x").status == 500
    assert 18.5 <= cooling_for(cools(pair, key)) <= 21
    assert len(vendor.received) == 4


def test_reset_by_the_api(pair, vendor):
    prefix, (key,) = pooled(pair, vendor, 1)
    vendor.script(Reply(401))
    assert pair[0].get(prefix + "/x").status == 401
    cools(pair, key)
    assert fault_of(pair[0].get(prefix + "/x")) == (503, "no_upstream_key")
    answer = pair[1].api("POST", f"/api/keys/{key}/reset")
    assert answer.status == 200
    assert pair.health(key, 0)["state"] == pair.health(key, 1)["state"] == "ok"
    assert pair[1].get(prefix + "/x").status == 200
    eventually(lambda: pair[0].get(prefix + "/x").status == 200, 1.5)
    assert pair[0].api("POST", "/api/keys/nobody/reset").status == 404


def test_health_in_the_list_on_both_nodes(pair, vendor):
    prefix, (key, other) = pooled(pair, vendor, 2)
    pair.change(f"/api/keys/{key}", weight=100)
    vendor.script(Reply(429, {"retry-after": "50"}))
    pair[0].get(prefix + "/x")
    cools(pair, key)
    for node in pair:
        data = node.api("GET", "/api/keys").json()
        found = {k["id"]: k["health"] for k in data["keys"] if k["id"] in (key, other)}
        assert found[key]["state"] == "cooling" and found[key]["reason"] and found[key]["until"]
        assert found[other]["state"] == "ok"
        assert "secret-" not in json.dumps(data)


def test_health_survives_a_restart_of_the_nodes(redis_server, vendor):
    with Nodes(1, redis_server) as nodes:
        prefix = nodes.map(vendor.url, pool=nodes.pool("lasting"))
        vendor.script(Reply(401))
        nodes[0].get(prefix + "/x")
        eventually(lambda: nodes.health("lasting")["state"] == "cooling", 2)
    with Nodes(1, redis_server) as nodes:
        assert nodes.health("lasting")["state"] == "cooling"
        assert fault_of(nodes[0].get(prefix + "/x")) == (503, "no_upstream_key")
    assert len(vendor.received) == 1


# -- failover


@pytest.mark.parametrize("status", KEY_FAULTS)
def test_next_key_is_tried_after(pair, vendor, status):
    prefix, keys = pooled(pair, vendor, 3)
    vendor.script(Reply(status, body="no"), Reply(status, body="no"))
    answer = ask(pair[0], prefix)
    assert answer.status == 200 and answer.json()["id"] == "chatcmpl-sim"
    assert sorted(keys_used(vendor)) == sorted(keys), "each key once"
    assert [r.body for r in vendor.received] == [chat_body()] * 3
    assert "x-apiproxy-error" not in answer.head


@pytest.mark.parametrize("kind", CONNECTION_FAULTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_next_key_is_tried_after_a_connection_failure(pair, vendor, kind, method):
    prefix, keys = pooled(pair, vendor, 2)
    vendor.script(Fault(kind))
    answer = pair[0].request(method, prefix + "/x", [], b"body" if method == "POST" else None)
    assert answer.status == 200
    assert sorted(keys_used(vendor)) == sorted(keys)


def test_last_response_comes_as_it_was(pair, vendor):
    prefix, keys = pooled(pair, vendor, 3)
    last = Reply(529, {"x-which": "last", "Retry-After": "11", "x-ratelimit-remaining-requests": "3"}, b"\x00last one\xff" * 3000)
    vendor.script(Reply(429, {"x-which": "first"}), Reply(500, {"x-which": "second"}), last)
    answer = ask(pair[0], prefix)
    assert answer.status == 529 and answer.body == last.body
    assert (answer.header("x-which"), answer.header("retry-after")) == ("last", "11")
    assert answer.head.all("x-ratelimit-remaining-requests") == ["3"] and "x-apiproxy-error" not in answer.head
    assert sorted(keys_used(vendor)) == sorted(keys)


def test_last_connection_failure_is_502(pair, vendor):
    prefix, keys = pooled(pair, vendor, 2)
    vendor.script(*[Fault("close_before_head")] * 2)
    assert fault_of(ask(pair[0], prefix)) == (502, "upstream_error")
    assert sorted(keys_used(vendor)) == sorted(keys)


def test_no_failover_after_the_first_byte(pair, vendor):
    prefix, _ = pooled(pair, vendor, 2)
    vendor.script(Fault("reset_in_body", after=10))
    with pytest.raises(Broken):
        ask(pair[0], prefix)
    assert len(vendor.received) == 1


def test_cooling_keys_are_not_tried_again(pair, vendor):
    prefix, keys = pooled(pair, vendor, 3)
    vendor.script(Reply(401), Reply(401))
    assert ask(pair[0], prefix).status == 200
    assert ask(pair[1], prefix).status == 200
    assert len(vendor.received) == 4 and keys_used(vendor)[3] == keys_used(vendor)[2]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size,held", [(MEBIBYTE - 1000, True), (MEBIBYTE, True), (MEBIBYTE + 1, False), (3 * MEBIBYTE, False)])
def test_bodies_up_to_a_mebibyte_fail_over(pair, vendor, size, held, framing):
    prefix, _ = pooled(pair, vendor, 2)
    body = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    vendor.script(Reply(500, {"x-from": "vendor"}))
    if framing == "length":
        answer = pair[0].request("POST", prefix + "/x", [], body)
    else:
        pieces = [body[at : at + 65536] for at in range(0, size, 65536)]
        raw = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
        answer = pair[0].request("POST", prefix + "/x", [("Transfer-Encoding", "chunked")], raw)
    assert answer.status == (200 if held else 500)
    assert [r.body == body for r in vendor.received] == [True] * (2 if held else 1)
    if not held:
        assert answer.header("x-from") == "vendor"


def test_early_refusal_while_the_body_still_comes(pair, vendor):
    """The second key gets the whole body, also the part that came after the first had answered."""
    prefix, keys = pooled(pair, vendor, 2)
    with RawServer() as server:
        prefix = pair.map(server.url, pool=pair[0].api("GET", f"/api/keys/{keys[0]}").json()["pool"])
        client = pair[0].connect()
        client.send(f"POST {prefix}/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        first = server.accept()
        first.read_head()
        assert first.read_exactly(5) == b"12345"
        first.send("HTTP/1.1 429 Slow\r\nContent-Length: 2\r\nretry-after: 1\r\n\r\nno")
        second = server.accept()
        head = second.read_head()
        assert second.read_exactly(5) == b"12345"
        client.send("67890")
        assert second.read_exactly(5) == b"67890"
        second.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert head.get("content-length") == "10"
        assert client.read_response().body == b"ok"


def test_hang_up_between_tries(pair, vendor):
    prefix, _ = pooled(pair, vendor, 3)
    vendor.script(Reply(500), Fault("stall_before_head"))
    request = Held(pair[0], prefix)
    vendor.wait(2)
    request.close()
    eventually(lambda: vendor.received[1].hung_up, 1.5)
    time.sleep(0.2)
    assert len(vendor.received) == 2


def test_timeout_of_the_mapping_covers_all_tries(pair, vendor):
    keys = [name("k") for _ in range(3)]
    prefix = pair.map(vendor.url, pool=pair.pool(*keys), timeout_seconds=1)

    def slow(connection, received):
        time.sleep(0.7)
        connection.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    vendor.script(slow, slow, slow)
    began = time.monotonic()
    assert fault_of(ask(pair[0], prefix)) == (504, "upstream_timeout")
    assert 0.9 <= time.monotonic() - began <= 1.6
    assert len(vendor.received) == 2


def test_keep_alive_over_failover(pair, vendor):
    prefix, _ = pooled(pair, vendor, 2)
    vendor.script(Reply(500), None, Reply(503, {"retry-after": "1"}), None)
    client = pair[0].connect()
    for _ in range(2):
        assert client.request("POST", prefix + CHAT, [], chat_body()).status == 200
    assert len(vendor.received) == 4


def test_failover_counts_once_for_the_client(pair, vendor):
    keys = [name("k") for _ in range(2)]
    prefix, key = pair.map(vendor.url, pool=pair.pool(*keys), auth="required"), pair.client(rpm=5)
    vendor.script(Reply(500))
    answer = ask(pair[0], prefix, key)
    assert answer.status == 200 and answer.header("x-apiproxy-remaining-requests") == "4"
    answer = ask(pair[0], prefix, key)
    assert answer.header("x-apiproxy-remaining-requests") == "3"


# -- none is left


def test_all_cooling_after_a_429(pair, vendor):
    prefix, keys = pooled(pair, vendor, 2)
    vendor.script(Reply(429, {"retry-after": "40"}), Reply(429, {"retry-after": "20"}))
    assert ask(pair[0], prefix).status == 429
    for key in keys:
        cools(pair, key)
    for node in pair:
        answer = ask(node, prefix)
        assert fault_of(answer) == (429, "upstream_rate_limit")
        assert 17 <= int(answer.header("retry-after")) <= 20, "the first of them is back then"
    assert len(vendor.received) == 2


def test_none_usable(pair, vendor):
    prefix, keys = pooled(pair, vendor, 2)
    for key in keys:
        pair.change(f"/api/keys/{key}", enabled=False)
    answer = ask(pair[1], prefix)
    assert fault_of(answer) == (503, "no_upstream_key") and answer.json()["error"]["code"] == "no_upstream_key"
    assert not vendor.received


def test_keys_of_another_master_key_are_unused_and_untouched(redis_server, vendor):
    with Nodes(1, redis_server) as nodes:
        prefix = nodes.map(vendor.url, pool=nodes.pool("sealed"))
        stored = redis_server.client.hget("apiproxy:keys", "sealed")
        assert "secret-sealed" not in stored
    with Nodes(1, redis_server, API_PROXY_MASTER_KEY="6b" * 32) as nodes:
        assert fault_of(nodes[0].get(prefix + "/x")) == (503, "no_upstream_key")
        assert redis_server.client.hget("apiproxy:keys", "sealed") == stored
        assert "sealed" in nodes[0].api("GET", "/errors").body.decode()
    with Nodes(1, redis_server) as nodes:
        assert nodes[0].get(prefix + "/x").status == 200
    assert keys_used(vendor) == ["sealed"]


# -- figures


def test_metrics_of_keys(pair, vendor):
    keys = [name("k") for _ in range(2)]
    pool = pair.pool(*keys)
    prefix = pair.map(vendor.url, pool=pool)
    pair.change(f"/api/keys/{keys[0]}", weight=100)
    vendor.script(Reply(401))
    assert ask(pair[0], prefix).status == 200
    cools(pair, keys[0])
    text = lambda: pair[0].api("GET", "/metrics").body.decode()  # noqa: E731
    eventually(lambda: f'apiproxy_upstream_key_up{{pool="{pool}",key="{keys[0]}"}} 0' in text(), 3)
    assert f'apiproxy_upstream_key_up{{pool="{pool}",key="{keys[1]}"}} 1' in text()
    eventually(lambda: f'apiproxy_upstream_key_requests_total{{pool="{pool}",key="{keys[0]}",status="401"}} 1' in text(), 3)
    assert f'apiproxy_upstream_key_requests_total{{pool="{pool}",key="{keys[1]}",status="200"}} 1' in text()
    assert "secret-" not in text()


def test_failures_that_no_client_sees_are_told(pair, vendor):
    """/errors has them, once until the key is well again: a storm does not push the others out."""
    prefix, keys = pooled(pair, vendor, 2)

    def told() -> list[str]:
        errors = pair[0].api("GET", "/errors").json()["errors"]
        return sorted(e["message"] for e in errors if e["source"] == "key" and any(key in e["message"] for key in keys))

    pool = pair[0].api("GET", f"/api/keys/{keys[0]}").json()["pool"]
    vendor.script(Reply(401))
    assert ask(pair[0], prefix).status == 200
    first = f"{keys_used(vendor)[0]} (pool {pool}): status 401"
    assert told() == [first]
    for key in keys:
        assert pair[0].api("POST", f"/api/keys/{key}/reset").status == 200
    time.sleep(1.1)
    assert [ask(pair[0], prefix).status for _ in range(4)] == [200] * 4
    vendor.script(*[Fault("close_before_head")] * 4)
    assert [ask(pair[0], prefix).status for _ in range(2)] == [502, 502]
    assert told() == sorted([first, *[f"{key} (pool {pool}): connection failure" for key in keys]])


def test_secrets_are_nowhere(pair, vendor):
    prefix, (key,) = pooled(pair, vendor, 1)
    vendor.script(Fault("garbage"), Reply(401))
    ask(pair[0], prefix)
    ask(pair[0], prefix)
    for path in ("/api/keys", "/api/config", "/errors", "/stats", "/metrics"):
        assert "secret-" + key not in pair[0].api("GET", path).body.decode(), path
    assert "secret-" + key not in pair[0].output
    assert "secret-" + key not in str(pair.redis.client.hgetall("apiproxy:keys"))


@pytest.mark.concurrency
def test_failover_under_parallel_load(pair, vendor):
    """One of three keys fails all the time: no client sees it."""
    prefix, keys = pooled(pair, vendor, 3)
    vendor.accepted_keys = {"secret-" + k for k in keys[1:]}
    answers = at_once([lambda n=n: ask(pair[n % 2], prefix).status for n in range(60)], 12)
    assert answers == [200] * 60
    assert Counter(keys_used(vendor))[keys[0]] <= 12


def test_kept_waiting_client_is_no_obstacle(pair, vendor):
    """A try that hangs holds up nobody else."""
    prefix, _ = pooled(pair, vendor, 2)
    vendor.script(Fault("stall_before_head"))
    stuck = Timed(lambda: ask(pair[0], prefix).status)
    vendor.wait(1)
    assert ask(pair[0], prefix).status == 200
    vendor.release.set()
    assert stuck.get() in (200, 502)
