"""Vendor keys over minutes, by Redis' own clock, which the tests move."""

from __future__ import annotations

import calendar
import email.utils
import time
from collections import Counter

import pytest

from support.managed import Nodes, Timed, ask, at_once, fault_of, name
from support.process import eventually
from support.redis_server import Redis
from support.vendor import Fault, Reply

PAUSES = [10, 20, 40, 80, 160, 300, 300, 300]
REFUSED_BY_POOL = {(429, "upstream_rate_limit"), (503, "no_upstream_key")}


@pytest.fixture(scope="module")
def pair():
    with Redis(clock=True) as redis, Nodes(2, redis=redis) as nodes:
        yield nodes


def pooled(pair, vendor, count: int = 1, **more) -> tuple[str, list[str]]:
    keys = [name("t") for _ in range(count)]
    return pair.map(vendor.url, pool=pair.pool(*keys, **more)), keys


def left(pair, key: str) -> float:
    """Seconds of Redis' clock until a cooling ends, which is told in whole seconds, rounded up."""
    until = pair.health(key)["until"]
    return calendar.timegm(time.strptime(until, "%Y-%m-%dT%H:%M:%SZ")) - pair.redis.time()


def cools_for(pair, key: str, seconds: float, reason: str):
    eventually(lambda: pair.health(key)["state"] == "cooling", 2)
    assert seconds - 4 < left(pair, key) <= seconds + 1, (seconds, pair.health(key))  # a busy machine takes its time
    assert pair.health(key) == pair.health(key, 1) and pair.health(key)["reason"] == reason


def is_well(pair, key: str):
    eventually(lambda: pair.health(key)["state"] == "ok", 2)
    assert pair.health(key) == {"state": "ok", "until": None, "reason": ""}


def is_used_again_after(pair, vendor, prefix: str, key: str, cooling: float, *steps):
    """Nothing is asked for `cooling` seconds, then the next request is: it meets `steps`."""
    asked = len(vendor.received)
    pair.redis.advance(cooling - 5)
    assert [fault_of(ask(node, prefix)) in REFUSED_BY_POOL for node in pair] == [True, True]
    assert len(vendor.received) == asked
    pair.redis.advance(5.5)
    vendor.script(*steps)
    answer = ask(pair[asked % 2], prefix)
    assert len(vendor.received) == asked + 1
    return answer


FAILURES = [
    (Reply(500), "status 500", 500),
    (Reply(502), "status 502", 502),
    (Reply(504), "status 504", 504),
    (Reply(529), "status 529", 529),
    (Fault("close_before_head"), "connection failure", 502),
]


@pytest.mark.parametrize("step, reason, status", FAILURES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_failed_trial_doubles_the_cooling_to_five_minutes(pair, vendor, step, reason, status):
    prefix, (key,) = pooled(pair, vendor)
    vendor.script(step, step, step)
    assert [ask(pair[n % 2], prefix).status for n in range(3)] == [status] * 3
    for pause in PAUSES:
        cools_for(pair, key, pause, reason)
        assert is_used_again_after(pair, vendor, prefix, key, pause, step).status == status
    cools_for(pair, key, 300, reason)
    assert is_used_again_after(pair, vendor, prefix, key, 300).status == 200
    is_well(pair, key)


def test_a_success_begins_anew(pair, vendor):
    """After it, it takes three failures again, and ten seconds are the first pause again."""
    prefix, (key,) = pooled(pair, vendor)
    vendor.script(*[Reply(500)] * 3)
    for _ in range(3):
        ask(pair[0], prefix)
    for pause in PAUSES[:3]:
        cools_for(pair, key, pause, "status 500")
        is_used_again_after(pair, vendor, prefix, key, pause, Reply(500))
    assert is_used_again_after(pair, vendor, prefix, key, 80).status == 200
    is_well(pair, key)
    vendor.script(Reply(500), Reply(500))
    assert [ask(node, prefix).status for node in pair] == [500, 500]
    is_well(pair, key)
    vendor.script(Reply(500))
    ask(pair[0], prefix)
    cools_for(pair, key, 10, "status 500")


def test_a_reset_begins_anew(pair, vendor):
    prefix, (key,) = pooled(pair, vendor)
    vendor.script(*[Reply(500)] * 3)
    for _ in range(3):
        ask(pair[0], prefix)
    cools_for(pair, key, 10, "status 500")
    is_used_again_after(pair, vendor, prefix, key, 10, Reply(500))
    cools_for(pair, key, 20, "status 500")
    assert pair[1].api("POST", f"/api/keys/{key}/reset").status == 200
    is_well(pair, key)
    vendor.script(*[Reply(500)] * 3)
    assert [ask(node, prefix).status for node in [pair[1], *pair]] == [500] * 3
    cools_for(pair, key, 10, "status 500")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_rests_five_minutes_each_time(pair, vendor, status):
    prefix, (key,) = pooled(pair, vendor)
    vendor.script(Reply(status))
    ask(pair[0], prefix)
    for _ in range(3):
        cools_for(pair, key, 300, f"status {status}")
        assert is_used_again_after(pair, vendor, prefix, key, 300, Reply(status)).status == status
    assert is_used_again_after(pair, vendor, prefix, key, 300).status == 200
    is_well(pair, key)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked, seconds", [("90", 90), ("date", 90), (None, 30), ("soon", 30), ("4000", 4000)])
def test_a_throttled_key_rests_as_long_as_the_vendor_asks_each_time(pair, vendor, status, asked, seconds):
    prefix, (key,) = pooled(pair, vendor)

    def refuse(connection, _):
        told = email.utils.formatdate(time.time() + seconds, usegmt=True) if asked == "date" else asked
        field = f"Date: {email.utils.formatdate(usegmt=True)}\r\n" + (f"Retry-After: {told}\r\n" if told else "")
        connection.send(f"HTTP/1.1 {status} No\r\n{field}Content-Length: 0\r\n\r\n")

    vendor.script(refuse)
    ask(pair[0], prefix)
    for _ in range(3):  # never longer for having been refused before
        cools_for(pair, key, seconds, f"status {status}")
        assert is_used_again_after(pair, vendor, prefix, key, seconds, refuse).status == status
    assert is_used_again_after(pair, vendor, prefix, key, seconds).status == 200
    is_well(pair, key)


def test_a_storm_of_429_bans_nobody_longer_than_asked(pair, vendor):
    """Sixty requests at once meet it, from both nodes; the pool is there again when the vendor said."""
    prefix, keys = pooled(pair, vendor, 3)
    storm = Reply(429, {"Retry-After": "120"})
    vendor.script(*[storm] * 200)
    answers = at_once([lambda node=pair[n % 2]: ask(node, prefix) for n in range(60)])
    assert {a.status for a in answers} == {429}
    vendor.clear()
    for key in keys:
        cools_for(pair, key, 120, "status 429")
    told = ask(pair[0], prefix)
    assert fault_of(told) == (429, "upstream_rate_limit") and 114 <= int(told.header("retry-after")) <= 120
    gauges = pair[0].api("GET", "/metrics").body.decode()
    assert all(f'key="{key}"}} 0' in gauges for key in keys)
    pair.redis.advance(121)
    time.sleep(1.1)  # for that long at most, a node believes what it heard of a key
    assert [ask(pair[n % 2], prefix).status for n in range(18)] == [200] * 18
    for key in keys:
        is_well(pair, key)
    gauges = pair[1].api("GET", "/metrics").body.decode()
    assert all(f'key="{key}"}} 1' in gauges for key in keys)


def test_failures_while_it_cools_do_not_lengthen_it(pair, vendor):
    """What was on its way when the cooling began says nothing new."""
    prefix, (key,) = pooled(pair, vendor)
    vendor.release.clear()

    def late(connection, _):
        vendor.release.wait(10)
        connection.send("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")

    vendor.script(*[late] * 8)
    asking = [Timed(lambda n=n: ask(pair[n % 2], prefix)) for n in range(8)]
    vendor.wait(8)
    vendor.release.set()
    assert [a.get().status for a in asking] == [500] * 8
    cools_for(pair, key, 10, "status 500")


def test_one_trial_goes_and_the_others_wait_for_it(pair, vendor):
    prefix, (key,) = pooled(pair, vendor)
    vendor.script(Reply(429, {"Retry-After": "20"}))
    ask(pair[0], prefix)
    cools_for(pair, key, 20, "status 429")
    pair.redis.advance(21)
    vendor.clear()
    vendor.script(Fault("stall_before_head"))
    trial = Timed(lambda: ask(pair[0], prefix))
    vendor.wait(1)
    eventually(lambda: pair.health(key, 1)["state"] == "trial", 2)
    answers = at_once([lambda node=pair[n % 2]: ask(node, prefix) for n in range(10)])
    assert {fault_of(a) for a in answers} == {(429, "upstream_rate_limit")}
    assert {a.header("retry-after") for a in answers} == {"1"} and len(vendor.received) == 1
    pair.redis.advance(61)  # a trial that says nothing for a minute makes room for the next
    assert ask(pair[1], prefix).status == 200
    is_well(pair, key)
    vendor.release.set()
    trial.get()
    is_well(pair, key)


def test_requests_per_minute_of_a_key_over_minutes(pair, vendor):
    """Never more in any minute, over both nodes, and retry-after says when there is room."""
    prefix, _ = pooled(pair, vendor, max_requests_per_minute=3)
    for _ in range(3):
        assert ask(pair[0], prefix).status == 200
        pair.redis.advance(10)
    for node in pair:
        answer = ask(node, prefix)
        assert fault_of(answer) == (429, "upstream_rate_limit") and 26 <= int(answer.header("retry-after")) <= 30
    pair.redis.advance(int(answer.header("retry-after")) - 5)
    assert fault_of(ask(pair[1], prefix)) == (429, "upstream_rate_limit")
    pair.redis.advance(5)
    assert ask(pair[1], prefix).status == 200
    answer = ask(pair[0], prefix)
    assert fault_of(answer) == (429, "upstream_rate_limit") and 6 <= int(answer.header("retry-after")) <= 10
    pair.redis.advance(60)
    burst = at_once([lambda node=pair[n % 2]: ask(node, prefix) for n in range(12)])
    assert Counter(a.status for a in burst) == {200: 3, 429: 9}


def test_the_soonest_key_is_told(pair, vendor):
    prefix, keys = pooled(pair, vendor, 3)
    vendor.script(*[Reply(429, {"Retry-After": str(seconds)}) for seconds in (50, 20, 90)])
    ask(pair[0], prefix)
    for node in pair:
        answer = ask(node, prefix)
        assert fault_of(answer) == (429, "upstream_rate_limit") and 16 <= int(answer.header("retry-after")) <= 20
    pair.redis.advance(20.5)
    assert ask(pair[1], prefix).status == 200
