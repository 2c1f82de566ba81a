"""Managed mappings from outside: who may ask, how much, in what order; what happens when Redis fails."""

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.gateway import Gateway
from support.redis_server import Redis
from support.vendor import Reply

pytestmark = pytest.mark.concurrency
_numbers = itertools.count()


@pytest.fixture(scope="module")
def nodes():
    with Redis() as redis:
        settings = {"API_PROXY_REDIS_URL": redis.url, "API_PROXY_MASTER_KEY": "5a" * 32}
        with Gateway(**settings) as one, Gateway(**settings) as two:
            yield one, two


def client(gateway, **limits):
    """A client of its own; its key."""
    answer = gateway.api("POST", "/api/clients", {"id": f"c{next(_numbers)}", "name": "test", **limits})
    assert answer.status == 201, answer.body
    return answer.json()["key"]


def managed(gateway, target, **more):
    return gateway.route(target, auth="required", **more)


def ask(gateway, prefix, key, body=None, path="/v1/models"):
    if body is None:
        return gateway.get(prefix + path, [("Authorization", f"Bearer {key}")])
    return gateway.request("POST", prefix + path, [("Authorization", f"Bearer {key}"), ("Content-Type", "application/json")], json.dumps(body).encode())


def chat(gateway, prefix, key, **more):
    return ask(gateway, prefix, key, {"model": "m", "messages": [{"role": "user", "content": "hello"}], **more}, "/v1/chat/completions")


def code(answer):
    assert answer.header("x-apiproxy-error") == answer.json()["error"]["code"]
    return answer.status, answer.header("x-apiproxy-error")


# ---- who ----


def test_every_place_is_looked_at_and_emptied(nodes, vendor):
    one, _ = nodes
    key = client(one)
    prefix = managed(one, vendor.url)
    for headers, query in (
        ([("Authorization", f"Bearer {key}")], ""),
        ([("X-Api-Key", key)], ""),
        ([("x-goog-api-key", key)], ""),
        ([("api-key", key)], ""),
        ([], f"&key={key}"),
        ([("authorization", f"bearer {key}"), ("x-api-key", "sk-ant-other"), ("api-key", "x")], "&key=y"),
    ):
        vendor.clear()
        answer = one.get(f"{prefix}/v1/x?a=%2F{query}&b", [*headers, ("X-Other", "1")])
        assert answer.status == 200, headers
        assert vendor.received[0].target == "/v1/x?a=%2F&b"
        assert key.encode() not in vendor.received[0].raw
        names = {name.lower() for name, _ in vendor.received[0].request.head.fields}
        assert not names & {b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"} and b"x-other" in names


def test_who_may_not_is_told_so(nodes, vendor):
    one, _ = nodes
    prefix, elsewhere = managed(one, vendor.url), managed(one, vendor.url)
    assert code(one.get(prefix + "/v1/models")) == (401, "invalid_credentials")
    assert code(ask(one, prefix, "sk-ap-" + "A" * 43)) == (401, "invalid_credentials")
    assert code(ask(one, prefix, client(one, enabled=False))) == (403, "not_allowed")
    assert code(ask(one, prefix, client(one, expires_at="2020-01-01T00:00:00Z"))) == (401, "invalid_credentials")
    key = client(one, mappings=[elsewhere])
    assert code(ask(one, prefix, key)) == (403, "not_allowed")
    assert ask(one, elsewhere, key).status == 200
    assert not vendor.received[1:]


# ---- how much ----


def test_requests_per_minute_over_two_nodes(nodes, vendor):
    one, two = nodes
    key = client(one, rpm=6)
    prefix = managed(one, vendor.url)
    time.sleep(1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ask(nodes[n % 2], prefix, key), range(16)))
    assert sorted(a.status for a in answers) == [200] * 6 + [429] * 10
    assert len(vendor.received) == 6
    for answer in answers:
        assert answer.header("x-apiproxy-limit-requests") == "6"
        assert 0 <= int(answer.header("x-apiproxy-remaining-requests")) < 6
        assert 0 < int(answer.header("x-apiproxy-reset-requests")) <= 60
        if answer.status == 429:
            assert code(answer) == (429, "rate_limit")
            assert 55 <= int(answer.header("retry-after")) <= 60


def test_tokens_are_settled_with_what_the_vendor_says(nodes, vendor):
    one, _ = nodes
    vendor.input_tokens, vendor.output_tokens = 30, 20
    key = client(one, input_tpm=10_000, output_tpm=100)
    prefix = managed(one, vendor.url)
    assert code(chat(one, prefix, key, max_tokens=101)) == (429, "rate_limit")
    for used in (20, 40):
        answer = chat(one, prefix, key, max_tokens=60)
        assert answer.status == 200
        assert int(answer.header("x-apiproxy-remaining-output-tokens")) == 100 - (used - 20) - 60
        time.sleep(0.1)
    assert code(chat(one, prefix, key, max_completion_tokens=61)) == (429, "rate_limit")
    last = chat(one, prefix, key, max_completion_tokens=60)
    assert last.status == 200
    assert int(last.header("x-apiproxy-remaining-output-tokens")) == 0
    assert int(last.header("x-apiproxy-remaining-input-tokens")) > 10_000 - 30 * 2 - 200


def test_places_are_given_back_when_the_answer_or_the_client_ends(nodes, vendor):
    one, two = nodes
    key = client(one, max_concurrency=1)
    prefix = managed(one, vendor.url)
    time.sleep(1)
    vendor.gate = threading.Semaphore(0)
    body = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
    stream = one.connect()
    head = f"POST {prefix}/v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    stream.send(head.encode() + body)
    vendor.wait(1)
    for node in nodes:
        answer = ask(node, prefix, key)
        assert code(answer) == (429, "concurrency_limit") and int(answer.header("retry-after")) >= 1
    stream.close()
    deadline = time.monotonic() + 3
    while ask(two, prefix, key).status == 429:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_usage_is_shown(nodes, vendor):
    one, _ = nodes
    vendor.input_tokens, vendor.output_tokens = 30, 20
    key = client(one, rpm=50)
    name = one.api("GET", "/api/clients").json()["clients"]
    identifier = max((c["id"] for c in name), key=lambda i: int(i[1:]))
    prefix = managed(one, vendor.url)
    for _ in range(3):
        assert chat(one, prefix, key).status == 200
    time.sleep(0.2)
    usage = one.api("GET", f"/api/clients/{identifier}/usage").json()
    assert usage["current"]["requests"] == 3
    assert len(usage["days"]) == 30
    assert usage["days"][0] | {"date": ""} == {"date": "", "requests": 3, "input_tokens": 90, "output_tokens": 60}


# ---- in what order ----


def test_a_queue_paces_over_two_nodes(nodes, vendor):
    one, two = nodes
    key = client(one)
    prefix = managed(one, vendor.url, queue={"rate_per_second": 4, "capacity": 6, "timeout_seconds": 5})
    time.sleep(1)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: ask(nodes[n % 2], prefix, key), range(16)))
    assert sorted(a.status for a in answers) == [200] * 10 + [429] * 6
    assert all(code(a) == (429, "queue_full") and int(a.header("retry-after")) >= 1 for a in answers if a.status == 429)
    times = sorted(r.at for r in vendor.received)
    assert len(times) == 10
    assert all(later - first >= 0.95 for first, later in zip(times, times[4:]))


def test_who_waits_too_long_and_who_hangs_up(nodes, vendor):
    one, _ = nodes
    key = client(one, max_concurrency=3)
    prefix = managed(one, vendor.url, queue={"rate_per_second": 0.5, "capacity": 1, "timeout_seconds": 1})
    assert ask(one, prefix, key).status == 200
    began = time.monotonic()
    answer = ask(one, prefix, key)
    assert code(answer) == (408, "queue_timeout")
    assert 0.95 <= time.monotonic() - began < 1.3
    assert int(answer.header("retry-after")) >= 1 and answer.header("x-should-retry") == "false"
    time.sleep(1.1)
    vendor.clear()
    with ThreadPoolExecutor(1) as pool:
        assert ask(one, prefix, key).status == 200
        waiter = one.connect()
        waiter.send(f"GET {prefix}/v1/models HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\n\r\n".encode())
        time.sleep(0.2)
        assert code(ask(one, prefix, key)) == (429, "queue_full")
        waiter.close()
        time.sleep(0.3)
        assert pool.submit(ask, one, prefix, key).result().status == 408  # the place was free
    assert len(vendor.received) == 1


# ---- vendor keys ----


def pool_of(gateway, *keys, **more):
    name = f"pool{next(_numbers)}"
    for n, key in enumerate(keys):
        assert gateway.api("POST", "/api/keys", {"id": f"{name}-{n}", "pool": name, "key": f"vendor-{n}", **key}).status == 201
    return name


def test_keys_by_weight_and_their_limit(nodes, vendor):
    one, _ = nodes
    pool = pool_of(one, {"weight": 3}, {"weight": 1, "max_requests_per_minute": 2})
    prefix = managed(one, vendor.url, pool=pool)
    key = client(one)
    for _ in range(8):
        assert ask(one, prefix, key).status == 200
    used = [r.header("authorization") for r in vendor.received]
    assert used.count("Bearer vendor-0") == 6 and used.count("Bearer vendor-1") == 2
    assert one.api("PUT", f"/api/keys/{pool}-0", {"enabled": False}).status == 200
    answer = ask(one, prefix, key)
    assert code(answer) == (429, "upstream_rate_limit") and 50 <= int(answer.header("retry-after")) <= 60
    assert one.api("PUT", f"/api/keys/{pool}-1", {"enabled": False}).status == 200
    assert code(ask(one, prefix, key)) == (503, "no_upstream_key")


def test_the_next_key_is_tried_and_the_bad_one_cools(nodes, vendor):
    one, two = nodes
    pool = pool_of(one, {}, {})
    prefix = managed(one, vendor.url, pool=pool)
    key = client(one)
    time.sleep(1)
    vendor.script(Reply(429, {"Retry-After": "2"}, {"error": "slow down"}))
    assert chat(one, prefix, key).status == 200
    first = vendor.received[0].header("authorization")
    assert len(vendor.received) == 2 and vendor.received[1].header("authorization") != first
    for _ in range(6):
        assert chat(two, prefix, key).status == 200
    assert first not in [r.header("authorization") for r in vendor.received[2:]]
    states = {k["id"]: k["health"] for k in one.api("GET", "/api/keys").json()["keys"] if k["pool"] == pool}
    cooling = states[f"{pool}-{first[-1]}"]
    assert cooling["state"] == "cooling" and "429" in cooling["reason"] and cooling["until"]
    time.sleep(2.1)
    vendor.clear()
    for _ in range(12):
        assert chat(two, prefix, key).status == 200
        time.sleep(0.12)
    assert first in [r.header("authorization") for r in vendor.received]
    vendor.clear()
    vendor.script(Reply(500, {"X-Which": "1"}, {"n": 1}), Reply(503, {"X-Which": "2"}, {"n": 2}))
    answer = chat(one, prefix, key)
    assert (answer.status, answer.header("x-which"), answer.json()) == (503, "2", {"n": 2})


# ---- Redis fails ----


@pytest.mark.parametrize("policy", ["local", "allow", "deny"])
def test_a_redis_that_hangs(vendor, policy):
    with Redis() as redis, Gateway(API_PROXY_REDIS_URL=redis.url, API_PROXY_ON_REDIS_FAILURE=policy) as gateway:
        key, busy = client(gateway, rpm=4), client(gateway, rpm=100)
        prefix = managed(gateway, vendor.url)
        assert ask(gateway, prefix, busy).status == 200
        redis.freeze()
        began = time.monotonic()
        first = ask(gateway, prefix, busy)
        assert time.monotonic() - began < 0.9
        began = time.monotonic()
        answers = [ask(gateway, prefix, key) for _ in range(6)]
        assert time.monotonic() - began < 1.2
        if policy == "local":
            assert [first.status, *(a.status for a in answers)] == [200] * 5 + [429] * 2
        elif policy == "allow":
            assert [first.status, *(a.status for a in answers)] == [200] * 7
        else:
            assert {code(a) for a in (first, *answers)} == {(503, "redis_unavailable")}
        redis.thaw()
        fresh, deadline = None, time.monotonic() + 5
        while not fresh:  # the API waits for Redis as well
            answer = gateway.api("POST", "/api/clients", {"id": "back", "rpm": 2})
            fresh = answer.json()["key"] if answer.status == 201 else None
            assert time.monotonic() < deadline
        time.sleep(1)
        assert [ask(gateway, prefix, fresh).status for _ in range(3)] == [200, 200, 429]
        assert redis.client.exists("apiproxy:limit:{back}:c")  # decided there again
