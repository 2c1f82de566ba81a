"""The queue and the windows over more than a minute, by Redis' own clock, which the tests move."""

from __future__ import annotations

import pytest

from support.managed import Nodes, Timed, ask, fault_of
from support.process import eventually
from support.redis_server import Redis


@pytest.fixture(scope="module")
def pair():
    with Redis(clock=True) as redis, Nodes(2, redis=redis) as nodes:
        yield nodes


def waiting(pair, prefix: str) -> bool:
    return f'apiproxy_queue_length{{mapping="{prefix}"}} 1' in pair[0].api("GET", "/metrics").body.decode()


def one_waits(pair, vendor, key: str) -> Timed:
    """A second of the true clock, which is a minute of Redis' where the test says so."""
    line = pair.map(vendor.url, auth="required", queue={"rate_per_second": 0.8, "capacity": 5, "timeout_seconds": 300})
    assert ask(pair[0], line, key).status == 200
    waits = Timed(lambda: ask(pair[0], line, key))
    eventually(lambda: waiting(pair, line), 1)
    return waits


def test_who_waits_for_more_than_a_minute_asks_again_whether_there_is_room(pair, vendor):
    key = pair.client(rpm=2)
    direct = pair.map(vendor.url, auth="required")
    waits = one_waits(pair, vendor, key)
    pair.redis.advance(61)
    assert [ask(node, direct, key).status for node in pair] == [200, 200]
    answer = waits.get()
    assert fault_of(answer) == (429, "rate_limit") and 55 <= int(answer.header("retry-after")) <= 60
    assert len(vendor.received) == 3


def test_who_waits_for_more_than_a_minute_goes_where_there_is_room(pair, vendor):
    key = pair.client(rpm=2)
    direct = pair.map(vendor.url, auth="required")
    waits = one_waits(pair, vendor, key)
    pair.redis.advance(61)
    assert ask(pair[1], direct, key).status == 200
    answer = waits.get()
    assert answer.status == 200 and answer.header("x-apiproxy-remaining-requests") == "0"
    assert fault_of(ask(pair[1], direct, key)) == (429, "rate_limit")


def test_a_start_is_what_counts_for_a_minute(pair, vendor):
    """It waits for 40 s of Redis' clock, which its event does not: room comes a minute after its start."""
    key = pair.client(rpm=2)
    direct = pair.map(vendor.url, auth="required")
    waits = one_waits(pair, vendor, key)
    pair.redis.advance(40)
    assert waits.get().status == 200
    pair.redis.advance(21)  # the first one's minute is over
    assert ask(pair[1], direct, key).status == 200
    answer = ask(pair[0], direct, key)
    assert fault_of(answer) == (429, "rate_limit") and 33 <= int(answer.header("retry-after")) <= 39
