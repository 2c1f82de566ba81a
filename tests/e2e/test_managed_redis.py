"""A Redis that dies, hangs and comes back, under managed mappings."""

from __future__ import annotations

import threading
import time

import pytest

from support.managed import Held, Nodes, Timed, ask, at_once, bearer, fault_of, login, most_in_window
from support.process import eventually
from support.vendor import Fault, Reply

POLICIES = ["local", "allow", "deny"]
DEADLINE = 0.25
SLOW = DEADLINE + 0.5  # on a busy machine


def fail(nodes, how: str):
    nodes.redis.kill() if how == "kill" else nodes.redis.freeze()


def mend(nodes, how: str):
    nodes.redis.start() if how == "kill" else nodes.redis.thaw()


def decided_together(nodes, prefix) -> bool:
    """Is a new client's limit one for both nodes?"""
    id, key = nodes.client_with_id(rpm=6)
    answers = [nodes[n % 2].get(prefix + "/x", bearer(key)).status for n in range(12)]
    return answers == [200] * 6 + [429] * 6 and used(nodes, id)


def used(nodes, id: str) -> bool:
    return bool(nodes.redis.client.exists(f"apiproxy:limit:{{{id}}}:c"))


@pytest.mark.parametrize("how", ["kill", "freeze"])
@pytest.mark.parametrize("policy", POLICIES)
def test_policy(vendor, policy, how):
    with Nodes(2, API_PROXY_ON_REDIS_FAILURE=policy) as nodes:
        prefix, key, busy = nodes.map(vendor.url, auth="required"), nodes.client(rpm=3), nodes.client(rpm=1000)
        plain = nodes.map(vendor.url)
        for node in nodes:
            assert node.get(prefix + "/x", bearer(busy)).status == 200
        fail(nodes, how)
        for node in nodes:
            took = []
            for _ in range(5):
                began = time.monotonic()
                answer = node.get(prefix + "/x", bearer(busy))
                took.append(time.monotonic() - began)
                assert fault_of(answer) == ((503, "redis_unavailable") if policy == "deny" else (200, None))
            assert took[0] < SLOW and sorted(took)[2] < DEADLINE, "it is known to have failed, and not asked each time"
        found = [[fault_of(node.get(prefix + "/x", bearer(key))) for _ in range(5)] for node in nodes]
        whole = {
            "local": [(200, None)] * 3 + [(429, "rate_limit")] * 2,
            "allow": [(200, None)] * 5,
            "deny": [(503, "redis_unavailable")] * 5,
        }
        assert found == [whole[policy]] * 2, "each node by itself"
        assert [node.get(plain + "/x").status for node in nodes] == [200, 200], "transparent mappings never notice"
        mend(nodes, how)
        for node in nodes:
            eventually(lambda node=node: node.get(prefix + "/x", bearer(busy)).status == 200, 5, 0.05)


def test_nobody_is_told_to_wait_for_more_than_a_minute(vendor):
    """Not even who is refused in the millisecond of the event that he waits for."""
    with Nodes(1) as nodes:
        guarded, plain = nodes.map(vendor.url, auth="required"), nodes.map(vendor.url, pool=nodes.pool("a-minute", max_requests_per_minute=1))
        scenes = [(guarded, bearer(nodes.client(rpm=1))) for _ in range(20)] + [(plain, ())]
        fail(nodes, "kill")
        for prefix, fields in scenes:
            answers = at_once([lambda: nodes[0].get(prefix + "/x", fields)] * 6, 6)
            told = [answer.header("retry-after") for answer in answers if answer.status == 429]
            assert told == ["60"] * 5


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_exact_again_when_it_is_back(vendor, how):
    with Nodes(2) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(rpm=6)
        assert nodes[0].get(prefix + "/x", bearer(key)).status == 200
        fail(nodes, how)
        assert nodes[0].get(prefix + "/x", bearer(key)).status == 200
        mend(nodes, how)
        eventually(lambda: decided_together(nodes, prefix), 5, 0.1)
        found = [nodes[0].get(prefix + "/x", bearer(key)).status for _ in range(6)]
        assert found == [200] * 4 + [429] * 2, "what was admitted without Redis counts"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_connection_that_ends_is_no_failure(vendor, policy):
    """A fail-over, or a proxy in between: Redis is there, and what one node admitted holds for the other one."""
    with Nodes(2, API_PROXY_ON_REDIS_FAILURE=policy) as nodes:
        prefix, busy = nodes.map(vendor.url, auth="required"), nodes.client(rpm=1000)
        for _ in range(2):
            key = nodes.client(rpm=3)
            assert [nodes[0].get(prefix + "/x", bearer(key)).status for _ in range(3)] == [200] * 3
            time.sleep(0.6)
            nodes.redis.client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.02)
            assert [fault_of(node.get(prefix + "/x", bearer(key))) for node in nodes] == [(429, "rate_limit")] * 2
            answers = at_once([lambda n=n: nodes[n % 2].get(prefix + "/x", bearer(busy)).status for n in range(20)], 4)
            assert answers == [200] * 20


def test_a_redis_that_comes_back_empty_empties_no_node(vendor):
    with Nodes(2) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required", pool=nodes.pool("kept")), nodes.client(rpm=1000)
        token = login(nodes[0], nodes.user()).json()["token"]
        assert nodes[0].get(prefix + "/x", bearer(token)).status == 200
        fail(nodes, "kill")
        mend(nodes, "kill")
        time.sleep(1.5)
        for node in nodes:
            for credential in (key, token):
                assert node.get(prefix + "/x", bearer(credential)).status == 200
            assert node.api("GET", "/errors").json()
        assert vendor.received[-1].header("authorization") == "Bearer secret-kept"


def longest_gap(node, plain: str, call) -> float:
    """Between requests that need no Redis, while the others are made."""
    client, gaps, managed = node.connect(), [], Timed(call)
    while managed.thread.is_alive() or len(gaps) < 20:
        began = time.monotonic()
        assert client.request("GET", plain + "/x").status == 200
        gaps.append(time.monotonic() - began)
        time.sleep(0.005)
    managed.get()
    return max(gaps)


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_no_stream_stalls(vendor, how):
    """A worker never waits for Redis. A busy machine stalls it now and then, a wait would each time."""
    with Nodes(1, API_PROXY_WORKERS="1") as nodes:
        prefix, plain, key = nodes.map(vendor.url, auth="required"), nodes.map(vendor.url), nodes.client(rpm=1000)

        def ask_managed(count: int):
            assert [nodes[0].get(prefix + "/x", bearer(key)).status for _ in range(count)] == [200] * count

        gaps = []
        while len(gaps) < 3 and (not gaps or gaps[-1] > 0.2):
            eventually(lambda: nodes[0].get("/health").json()["redis"] == "ok", 5)
            ask_managed(1)
            fail(nodes, how)
            gaps.append(longest_gap(nodes[0], plain, lambda: ask_managed(5)))
            mend(nodes, how)
        assert gaps[-1] < 0.2, gaps


def test_request_in_flight_ends_well(vendor):
    """Admitted with Redis, ended without it, and settled when it is back."""
    with Nodes(1) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(max_concurrency=1)
        vendor.gate = threading.Semaphore(1)
        body = b'{"model":"m","messages":[],"stream":true}'
        stream = Timed(lambda: ask(nodes[0], prefix, key, body))
        vendor.wait(1)
        fail(nodes, "freeze")
        vendor.gate.release(100)
        assert stream.get().body.endswith(b"data: [DONE]\n\n")
        vendor.gate = None
        assert nodes[0].get(prefix + "/x", bearer(key)).status == 200, "its place is free on this node"
        mend(nodes, "freeze")
        eventually(lambda: nodes[0].get(prefix + "/x", bearer(key)).status == 200, 5, 0.05)


def test_concurrency_without_redis(vendor):
    with Nodes(1) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(max_concurrency=2)
        fail(nodes, "kill")
        vendor.script(*[Fault("stall_before_head")] * 2)
        held = [Held(nodes[0], prefix, key) for _ in range(2)]
        vendor.wait(2)
        assert fault_of(nodes[0].get(prefix + "/x", bearer(key))) == (429, "concurrency_limit")
        held[0].close()
        eventually(lambda: nodes[0].get(prefix + "/x", bearer(key)).status == 200, 2)
        held[1].close()
        mend(nodes, "kill")


def test_tokens_without_redis(vendor):
    with Nodes(1) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(output_tpm=100)
        fail(nodes, "kill")
        vendor.output_tokens = 60
        body = b'{"messages":[],"max_tokens":90}'
        assert ask(nodes[0], prefix, key, body).status == 200
        eventually(lambda: ask(nodes[0], prefix, key, b'{"messages":[],"max_tokens":40}').status == 200, 2)
        eventually(lambda: fault_of(ask(nodes[0], prefix, key, body)) == (429, "rate_limit"), 2)
        mend(nodes, "kill")


def test_queue_without_redis(vendor):
    with Nodes(1) as nodes:
        prefix = nodes.map(vendor.url, queue={"rate_per_second": 5, "capacity": 8, "timeout_seconds": 10})
        assert nodes[0].get(prefix + "/x").status == 200
        fail(nodes, "freeze")
        answers = at_once([lambda: fault_of(nodes[0].get(prefix + "/x"))] * 20, 20)
        assert answers.count((200, None)) + answers.count((429, "queue_full")) == 20
        assert 8 <= answers.count((200, None)) <= 14
        assert most_in_window([r.at for r in vendor.received], 0.97) <= 5
        mend(nodes, "freeze")


def test_vendor_keys_without_redis(vendor):
    with Nodes(1) as nodes:
        prefix = nodes.map(vendor.url, pool=nodes.pool("left", "right"))
        fail(nodes, "kill")
        vendor.script(Reply(401))
        for _ in range(6):
            assert nodes[0].get(prefix + "/x").status == 200, "failover goes on"
        keys = [r.header("authorization") for r in vendor.received]
        assert len(vendor.received) == 7 and keys[0] not in keys[1:]
        vendor.script(Reply(401))
        assert nodes[0].get(prefix + "/x").status == 401
        assert fault_of(nodes[0].get(prefix + "/x")) == (503, "no_upstream_key")
        mend(nodes, "kill")


def test_a_hanging_redis_is_told(vendor):
    with Nodes(1) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(rpm=100)
        fail(nodes, "freeze")
        nodes[0].get(prefix + "/x", bearer(key))
        eventually(lambda: nodes[0].get("/health").json()["redis"] != "ok", 3)
        assert nodes[0].get("/health").status == 200, "it can proxy"
        mend(nodes, "freeze")
        eventually(lambda: nodes[0].get("/health").json()["redis"] == "ok", 5)
