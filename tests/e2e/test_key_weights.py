"""The order of vendor keys: exactly by weight over several nodes, whatever happens in between."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from support.managed import Nodes, ask, at_once, fault_of, name
from support.process import eventually
from support.vendor import Reply

WEIGHTS = (5, 3, 1)


@pytest.fixture(scope="module")
def three():
    with Nodes(3) as nodes:
        yield nodes


def weighted(nodes, vendor, weights=WEIGHTS, **more) -> tuple[str, str, list[str]]:
    """Prefix, pool and keys."""
    pool, keys = name("weighed"), [name("w") for _ in weights]
    for key, weight in zip(keys, weights):
        entry = {"id": key, "pool": pool, "key": "secret-" + key, "weight": weight, **more}
        nodes.add("keys", entry, f"/api/keys/{key}")
    return nodes.map(vendor.url, pool=pool), pool, keys


def shares(vendor, keys: list[str]) -> list[int]:
    used = Counter((r.header("authorization") or "").removeprefix("Bearer secret-") for r in vendor.received)
    return [used[key] for key in keys]


@pytest.mark.parametrize("weights", [WEIGHTS, (1, 1), (7, 2), (50, 25, 15), (1,)])
@pytest.mark.parametrize("how", ["in turns", "node after node", "at once"])
def test_shares_are_exact(three, vendor, weights, how):
    prefix, _, keys = weighted(three, vendor, weights)
    rounds = max(1, 30 // sum(weights))
    each = rounds * sum(weights)
    order = [n % 3 for n in range(3 * each)] if how == "in turns" else sorted(list(range(3)) * each)
    calls = [lambda node=three[n]: ask(node, prefix) for n in order]
    if how == "at once":
        random.shuffle(calls)
        answers = at_once(calls, 12)
    else:
        answers = [call() for call in calls]
    assert {a.status for a in answers} == {200}
    assert shares(vendor, keys) == [3 * rounds * weight for weight in weights]


def test_heavy_keys_do_not_come_in_blocks(three, vendor):
    prefix, _, keys = weighted(three, vendor)
    for _ in range(18):
        ask(three[0], prefix)
    used = [r.header("authorization") == f"Bearer secret-{keys[0]}" for r in vendor.received]
    assert not any(all(used[n : n + 3]) for n in range(16)), used


def test_refused_requests_shift_nothing(three, vendor):
    """A client that hammers at its limit uses no key: nobody's turn comes sooner."""
    prefix, pool, keys = weighted(three, vendor)
    guarded, client = three.map(vendor.url, pool=pool, auth="required"), three.client(rpm=9)
    assert {ask(three[0], guarded, client).status for _ in range(9)} == {200}
    answers = at_once([lambda: ask(three[0], guarded, client) for _ in range(100)])
    assert {fault_of(a) for a in answers} == {(429, "rate_limit")}
    vendor.clear()
    for _ in range(18):
        ask(three[0], prefix)
    assert shares(vendor, keys) == [10, 6, 2]


def takes_its_share_again(node, vendor, prefix: str, keys: list[str]):
    """18 requests, one after the other, once the node looks whether the key is well again."""
    time.sleep(1.05)
    vendor.clear()
    for _ in range(18):
        ask(node, prefix)
    used = shares(vendor, keys)
    assert all(abs(got - due) <= 1 for got, due in zip(used, [10, 6, 2])), used


def without_the_first(node, vendor, prefix: str, keys: list[str]) -> list[int]:
    """What the keys get in four bursts; before each the node looks whether the first one is well again."""
    vendor.clear()
    for _ in range(4):
        time.sleep(1.05)
        at_once([lambda: ask(node, prefix) for _ in range(8)], 8)
    return shares(vendor, keys)


def test_a_rest_is_not_made_up_for(three, vendor):
    """A key that comes back takes its share, not all that it has missed; meanwhile the others keep theirs."""
    prefix, _, keys = weighted(three, vendor)
    vendor.script(Reply(401))
    assert ask(three[0], prefix).status == 200 and three.health(keys[0])["state"] == "cooling"
    rested = without_the_first(three[0], vendor, prefix, keys)
    assert rested[0] == 0 and abs(rested[1] - 24) <= 4
    assert three[0].api("POST", f"/api/keys/{keys[0]}/reset").status == 200
    takes_its_share_again(three[0], vendor, prefix, keys)


def test_a_full_key_is_not_made_up_for(three, vendor):
    prefix, _, keys = weighted(three, vendor)
    three.change(f"/api/keys/{keys[0]}", max_requests_per_minute=1)
    assert without_the_first(three[1], vendor, prefix, keys)[0] == 1
    three.change(f"/api/keys/{keys[0]}", max_requests_per_minute=0)
    takes_its_share_again(three[1], vendor, prefix, keys)


def test_requests_per_minute_are_exact_over_all_nodes(three, vendor):
    prefix, _, keys = weighted(three, vendor, (1, 1))
    for key, limit in zip(keys, (7, 4)):
        three.change(f"/api/keys/{key}", max_requests_per_minute=limit)
    answers = at_once([lambda node=three[n % 3]: ask(node, prefix) for n in range(60)])
    assert Counter(fault_of(a) for a in answers) == {(200, None): 11, (429, "upstream_rate_limit"): 49}
    assert shares(vendor, keys) == [7, 4]
    assert all(55 <= int(a.header("retry-after")) <= 60 for a in answers if a.status == 429)


def test_tries_of_a_failover_count_for_their_keys(three, vendor):
    prefix, _, keys = weighted(three, vendor, (1, 1), max_requests_per_minute=2)
    vendor.script(Reply(500), None, Reply(500), None)
    assert [ask(three[0], prefix).status for _ in range(2)] == [200, 200]
    assert shares(vendor, keys) == [2, 2]
    assert fault_of(ask(three[1], prefix)) == (429, "upstream_rate_limit")


@pytest.mark.parametrize("which", ["refused", "resting"])
def test_shares_while_redis_is_away(vendor, which):
    """The node goes by itself; neither refusals nor a rest are made up for."""
    with Nodes(1) as nodes:
        prefix, pool, keys = weighted(nodes, vendor)
        guarded, client = nodes.map(vendor.url, pool=pool, auth="required"), nodes.client(rpm=9)
        assert ask(nodes[0], prefix).status == 200
        nodes.redis.kill()
        eventually(lambda: nodes[0].get("/health").json()["redis"] != "ok", 5)
        if which == "refused":
            answers = [fault_of(ask(nodes[0], guarded, client)) for _ in range(100)]
            assert answers.count((429, "rate_limit")) == 91
        else:
            vendor.script(Reply(429, {"Retry-After": "1"}))
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                assert ask(nodes[0], prefix).status == 200
            time.sleep(0.1)
        vendor.clear()
        for _ in range(18):
            ask(nodes[0], prefix)
        used = shares(vendor, keys)
        assert all(abs(got - due) <= 2 for got, due in zip(used, [10, 6, 2])), used
