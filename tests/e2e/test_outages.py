"""What ends while Redis takes nothing is settled when it does again: places, reservations, usage."""

from __future__ import annotations

import threading
import time

import pytest

from support.managed import Held, Nodes, Timed, ask, bearer, fault_of
from support.process import eventually
from support.vendor import Fault

# It hangs; or it is well, and refuses what a script writes.
OUTAGES = {
    "freeze": (lambda redis: redis.freeze(), lambda redis: redis.thaw()),
    "full": (
        lambda redis: redis.client.config_set("maxmemory", "1"),
        lambda redis: redis.client.config_set("maxmemory", "0"),
    ),
    "replica": (lambda redis: redis.client.replicaof("127.0.0.1", "1"), lambda redis: redis.client.replicaof("no", "one")),
    "forbidden": (
        lambda redis: redis.client.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval"),
        lambda redis: redis.client.execute_command("ACL", "SETUSER", "default", "+evalsha", "+eval"),
    ),
}


@pytest.fixture(params=OUTAGES)
def outage(request):
    return OUTAGES[request.param]


def used(nodes, id: str) -> list[int]:
    days = nodes[1].api("GET", f"/api/clients/{id}/usage").json()["days"]
    return [sum(day[what] for day in days) for what in ("requests", "input_tokens", "output_tokens")]


def test_a_place_comes_free(vendor, outage):
    begin, end = outage
    with Nodes(2) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(max_concurrency=1)
        vendor.script(Fault("stall_before_head"))
        held = Held(nodes[0], prefix, key)
        vendor.wait(1)
        assert fault_of(nodes[1].get(prefix + "/x", bearer(key))) == (429, "concurrency_limit")
        begin(nodes.redis)
        held.close()
        eventually(lambda: nodes[0].get("/stats").json()["performance"]["active_requests"] == 0, 5)
        time.sleep(0.5)
        end(nodes.redis)
        eventually(lambda: nodes[1].get(prefix + "/x", bearer(key)).status == 200, 8, 0.2)
        held = Held(nodes[0], prefix, key)
        assert held.answer().status == 200


def test_a_place_that_is_taken_stays_so(vendor, outage):
    """One of two ended meanwhile; the other one goes on, and counts on all nodes."""
    begin, end = outage
    with Nodes(2) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(max_concurrency=2)
        vendor.script(*[Fault("stall_before_head")] * 3)
        first, second = Held(nodes[0], prefix, key), Held(nodes[0], prefix, key)
        vendor.wait(2)
        begin(nodes.redis)
        first.close()
        time.sleep(0.5)
        end(nodes.redis)
        third = eventually(lambda: entered(nodes[1], prefix, key, vendor), 8, 0.3)
        time.sleep(1.5)
        assert fault_of(nodes[1].get(prefix + "/x", bearer(key))) == (429, "concurrency_limit")
        second.close()
        third.close()
        eventually(lambda: nodes[1].get(prefix + "/x", bearer(key)).status == 200, 8, 0.2)


def entered(node, prefix: str, key: str, vendor) -> Held | None:
    """A request that the vendor holds; None: it was refused."""
    before = len(vendor.received)
    held = Held(node, prefix, key)
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        if len(vendor.received) > before:
            return held
        time.sleep(0.01)
    held.close()
    return None


def test_reservations_are_settled(vendor, outage):
    begin, end = outage
    with Nodes(2) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(output_tpm=1000)
        vendor.output_tokens = 10
        vendor.gate = threading.Semaphore(1)
        stream = Timed(lambda: ask(nodes[0], prefix, key, b'{"messages":[],"max_tokens":400,"stream":true}'))
        vendor.wait(1)
        begin(nodes.redis)
        vendor.gate.release(100)
        assert stream.get().body.endswith(b"data: [DONE]\n\n")
        vendor.gate = None
        time.sleep(0.5)
        end(nodes.redis)
        eventually(lambda: ask(nodes[1], prefix, key, b'{"messages":[],"max_tokens":900}').status == 200, 8, 0.2)


def test_usage_is_not_lost(vendor, outage):
    begin, end = outage
    with Nodes(2) as nodes:
        prefix = nodes.map(vendor.url, auth="required")
        id, key = nodes.client_with_id(rpm=1000)
        vendor.input_tokens, vendor.output_tokens = 5, 7
        assert ask(nodes[0], prefix, key).status == 200
        eventually(lambda: used(nodes, id) == [1, 5, 7], 5)
        begin(nodes.redis)
        time.sleep(0.1)
        for _ in range(4):
            assert ask(nodes[0], prefix, key).status == 200
        time.sleep(1.5)
        assert ask(nodes[0], prefix, key).status == 200
        end(nodes.redis)
        eventually(lambda: used(nodes, id) == [6, 30, 42], 8)
        assert ask(nodes[0], prefix, key).status == 200
        eventually(lambda: used(nodes, id) == [7, 35, 49], 5)


def test_what_remains_is_told_after_an_outage(vendor):
    """Redis has not seen what this node admitted by itself; the client is told of both."""
    with Nodes(1) as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(rpm=5)
        assert nodes[0].get(prefix + "/x", bearer(key)).header("x-apiproxy-remaining-requests") == "4"
        begin, end = OUTAGES["full"]
        begin(nodes.redis)
        found = [nodes[0].get(prefix + "/x", bearer(key)).header("x-apiproxy-remaining-requests") for _ in range(2)]
        assert found == ["3", "2"]
        end(nodes.redis)
        answer = nodes[0].get(prefix + "/x", bearer(key))
        assert answer.status == 200 and answer.header("x-apiproxy-remaining-requests") == "1"
