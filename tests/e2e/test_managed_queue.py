"""The queue of a mapping, over nodes."""

from __future__ import annotations

import re
import threading
import time

import pytest

from support.managed import Held, Timed, at_once, bearer, fault_of, most_in_window
from support.process import eventually
from support.vendor import Fault

SLACK = 0.02  # an arrival is stamped some milliseconds after its start


def queued(pair, vendor, rate: float, capacity: int = 50, timeout: float = 20, **more) -> str:
    return pair.map(vendor.url, queue={"rate_per_second": rate, "capacity": capacity, "timeout_seconds": timeout}, **more)


def wait_in_line(pair, prefix: str, count: int, node: int = 0):
    wanted = re.compile(rf'^apiproxy_queue_length\{{mapping="{prefix}"\}} {count}$', re.M)
    eventually(lambda: wanted.search(pair[node].api("GET", "/metrics").body.decode()), 3, what=f"{count} waiting")


def drain(pair, prefix):
    """Uses up what may start at once."""
    assert pair[0].get(prefix + "/first").status == 200


def test_in_no_second_start_more_than_the_rate(pair, vendor):
    prefix = queued(pair, vendor, 10)
    answers = at_once([lambda n=n: pair[n % 2].get(f"{prefix}/{n}") for n in range(35)], 35)
    assert {a.status for a in answers} == {200}
    times = [r.at for r in vendor.received]
    assert most_in_window(times, 1 - SLACK) <= 10
    assert max(times) - min(times) < 4.5, "and not needlessly slow"


def test_rate_below_one_a_second(pair, vendor):
    prefix = queued(pair, vendor, 0.5)
    answers = at_once([lambda n=n: pair[n % 2].get(f"{prefix}/{n}") for n in range(3)])
    times = sorted(r.at for r in vendor.received)
    assert {a.status for a in answers} == {200}
    assert all(1.95 <= later - sooner <= 2.5 for sooner, later in zip(times, times[1:]))


def test_order_of_arrival_on_a_node(pair, vendor):
    prefix = queued(pair, vendor, 4)
    waiting = []
    for n in range(14):
        waiting.append(Held(pair[0], prefix, path=f"/{n:02}"))
        time.sleep(0.015)
    assert [request.answer().status for request in waiting] == [200] * 14
    assert [r.path for r in sorted(vendor.received, key=lambda r: r.at)] == [f"/{n:02}" for n in range(14)]


def test_up_to_capacity_wait_and_one_more_is_refused(pair, vendor):
    prefix = queued(pair, vendor, 0.5, capacity=3)
    drain(pair, prefix)
    waiting = [Held(pair[0], prefix) for _ in range(3)]
    wait_in_line(pair, prefix, 3)
    for node in pair:
        answer = node.get(prefix + "/x")
        assert fault_of(answer) == (429, "queue_full")
        assert 1 <= int(answer.header("retry-after")) <= 10
    assert waiting[0].answer().status == 200
    vendor.wait(2, 1)
    late = Held(pair[1], prefix)  # a place is free again
    assert late.client.silent(0.3)
    for request in [*waiting, late]:
        request.close()


def test_capacity_under_parallel_load(pair, vendor):
    prefix = queued(pair, vendor, 2, capacity=4, timeout=10)
    answers = at_once([lambda n=n: pair[n % 2].get(prefix + "/x") for n in range(30)], 30)
    found = [fault_of(a) for a in answers]
    assert found.count((200, None)) == 2 + 4, "two start at once, four wait"
    assert found.count((429, "queue_full")) == 24


def test_those_in_flight_are_not_counted(pair, vendor):
    prefix = queued(pair, vendor, 20, capacity=1)
    vendor.script(*[Fault("stall_before_head")] * 6)
    held = []
    for _ in range(6):
        held.append(Held(pair[0], prefix))
        time.sleep(0.06)
    vendor.wait(6, 3)
    for request in held:
        request.close()


def test_waited_too_long(pair, vendor):
    prefix = queued(pair, vendor, 0.1, capacity=5, timeout=1)
    drain(pair, prefix)
    began = time.monotonic()
    answer = pair[1].get(prefix + "/x")
    assert fault_of(answer) == (408, "queue_timeout")
    assert 0.95 <= time.monotonic() - began <= 1.6
    assert answer.header("x-should-retry") == "false"
    assert 7 <= int(answer.header("retry-after")) <= 10, "the next start is ten seconds after the first"
    assert len(vendor.received) == 1


def test_those_before_the_end_of_patience_start(pair, vendor):
    prefix = queued(pair, vendor, 2, capacity=20, timeout=1.5)
    answers = at_once([lambda n=n: pair[n % 2].get(prefix + "/x") for n in range(12)], 12)
    found = [fault_of(a) for a in answers]
    assert found.count((200, None)) == 3, "two at once, one after a second, the next would be too late"
    assert set(found) == {(200, None), (408, "queue_timeout")}


def test_hang_up_leaves_the_queue_at_once(pair, vendor):
    prefix = queued(pair, vendor, 1, capacity=2, timeout=20)
    drain(pair, prefix)
    gone = [Held(pair[0], prefix, path="/gone") for _ in range(2)]
    wait_in_line(pair, prefix, 2)
    assert fault_of(pair[0].get(prefix + "/x")) == (429, "queue_full")
    for request in gone:
        request.close()
    wait_in_line(pair, prefix, 0)
    began = time.monotonic()
    assert pair[1].get(prefix + "/after").status == 200
    assert time.monotonic() - began < 1.6, "what the gone ones would have used is free"
    assert [r.path for r in vendor.received] == ["/first", "/after"]


def test_hang_up_moves_those_behind_forward(pair, vendor):
    prefix = queued(pair, vendor, 1, capacity=5)
    drain(pair, prefix)
    gone = [Held(pair[0], prefix, path="/gone") for _ in range(3)]
    wait_in_line(pair, prefix, 3)
    behind = Held(pair[0], prefix, path="/behind")
    wait_in_line(pair, prefix, 4)
    for request in gone:
        request.close()
    assert behind.answer(2.5).status == 200 and time.monotonic() - behind.began < 1.7
    assert [r.path for r in vendor.received] == ["/first", "/behind"]


def test_hang_ups_on_one_node_move_those_on_another_forward(pair, vendor):
    """And whoever comes then: nobody waits for longer than the pace, none is sent away from an idle queue."""
    prefix = queued(pair, vendor, 1, timeout=6)
    drain(pair, prefix)
    gone = [Held(pair[1], prefix, path="/gone") for _ in range(5)]
    wait_in_line(pair, prefix, 5, 1)
    first = Held(pair[0], prefix, path="/0")
    wait_in_line(pair, prefix, 1)
    for request in gone:
        request.close()
    assert first.answer(2).status == 200 and time.monotonic() - first.began < 1.7
    for n in (1, 2, 3):
        began = time.monotonic()
        assert pair[0].get(f"{prefix}/{n}").status == 200
        assert time.monotonic() - began < 1.6
    assert [r.path for r in vendor.received] == ["/first", "/0", "/1", "/2", "/3"]
    times = [r.at for r in vendor.received]
    assert min(later - sooner for sooner, later in zip(times, times[1:])) >= 1 - SLACK


def test_waiting_counts_towards_the_mappings_timeout(pair, vendor):
    prefix = queued(pair, vendor, 0.1, timeout=10, timeout_seconds=1)
    drain(pair, prefix)
    began = time.monotonic()
    assert fault_of(pair[0].get(prefix + "/x")) == (504, "upstream_timeout")
    assert 0.9 <= time.monotonic() - began <= 1.6
    wait_in_line(pair, prefix, 0)


def test_waiting_takes_from_the_time_for_the_upstream(pair, vendor):
    prefix = queued(pair, vendor, 1, timeout=10, timeout_seconds=2)
    drain(pair, prefix)
    vendor.script(Fault("stall_before_head"))
    began = time.monotonic()
    assert fault_of(pair[0].get(prefix + "/x")) == (504, "upstream_timeout")
    assert 1.9 <= time.monotonic() - began <= 2.6
    assert len(vendor.received) == 2


def test_queue_comes_after_the_windows(pair, vendor):
    """Who is over his limit does not wait first."""
    prefix, key = queued(pair, vendor, 0.1, auth="required"), pair.client(rpm=1)
    assert pair[0].get(prefix + "/x", bearer(key)).status == 200
    began = time.monotonic()
    assert fault_of(pair[0].get(prefix + "/x", bearer(key))) == (429, "rate_limit")
    assert time.monotonic() - began < 0.5


def test_refused_by_the_queue_takes_no_request_from_the_window(pair, vendor):
    prefix, key = queued(pair, vendor, 0.2, capacity=1, timeout=1, auth="required"), pair.client(rpm=4)
    assert pair[0].get(prefix + "/x", bearer(key)).status == 200
    waiting = Timed(lambda: pair[0].get(prefix + "/x", bearer(key)))
    wait_in_line(pair, prefix, 1)
    for _ in range(4):
        assert fault_of(pair[0].get(prefix + "/x", bearer(key))) == (429, "queue_full")
    assert fault_of(waiting.get()) == (408, "queue_timeout")
    other = pair.map(vendor.url, auth="required")
    answer = pair[0].get(other + "/x", bearer(key))
    assert answer.status == 200 and answer.header("x-apiproxy-remaining-requests") == "2"


def test_body_of_a_waiting_request_arrives_whole(pair, vendor):
    prefix = queued(pair, vendor, 2)
    bodies = [bytes([65 + n]) * (300_000 + n) for n in range(4)]
    answers = at_once([lambda b=b: pair[0].request("POST", prefix + "/x", [], b) for b in bodies])
    assert sorted(a.json()["length"] for a in answers) == [len(b) for b in bodies]


def test_queue_figures(pair, vendor):
    prefix = queued(pair, vendor, 2, capacity=3)
    at_once([lambda: pair[0].get(prefix + "/x")] * 4, 4)
    wait_in_line(pair, prefix, 0)
    text = pair[0].api("GET", "/metrics").body.decode()
    count = int(re.search(rf'^apiproxy_queue_wait_seconds_count\{{mapping="{prefix}"\}} (\d+)$', text, re.M)[1])
    total = float(re.search(rf'^apiproxy_queue_wait_seconds_sum\{{mapping="{prefix}"\}} (\S+)$', text, re.M)[1])
    assert count == 4, "those that went at once have waited 0 s"
    assert 1.5 <= total <= 4


def test_many_wait_without_polling(pair, vendor):
    prefix = queued(pair, vendor, 0.5, capacity=600, timeout=60)
    drain(pair, prefix)
    waiting = [Held(pair[0], prefix) for _ in range(400)]
    wait_in_line(pair, prefix, 400)
    before = pair.redis.client.info("stats")["total_commands_processed"]
    time.sleep(1.5)
    assert pair.redis.client.info("stats")["total_commands_processed"] - before < 60
    for request in waiting:
        request.close()
    wait_in_line(pair, prefix, 0)


def come_and_go(pair, prefix: str, count: int, at_a_time: int, step: float) -> list[int]:
    """Half of them hang up, each 0 to 49 steps after it has asked; what the others are answered."""
    lock, done = threading.Lock(), []

    def one(n: int):
        request = Held(pair[n % 2], prefix)
        if n % 2 == n // 2 % 2:
            time.sleep(step * (n % 50))
            request.close()
            return
        with lock:
            done.append(request.answer(20).status)

    at_once([lambda n=n: one(n) for n in range(count)], at_a_time)
    return done


@pytest.mark.concurrency
def test_waiters_come_and_go(pair, vendor):
    """Half of them hang up while they wait; the pace holds and nobody is forgotten."""
    prefix = queued(pair, vendor, 25, capacity=400)
    assert come_and_go(pair, prefix, 120, 60, 0.002) == [200] * 60
    assert most_in_window([r.at for r in vendor.received], 1 - SLACK) <= 25


# ---- the queue changes while somebody waits ----


def waiting(pair, prefix: str, count: int, key: str | None = None, nodes=(0,)) -> list[Held]:
    """So many, in this order, who wait in line."""
    held = []
    for n in range(count):
        held.append(Held(pair[nodes[n % len(nodes)]], prefix, key, path=f"/{n:02}"))
        time.sleep(0.02)
    for node in set(nodes):
        wait_in_line(pair, prefix, sum(nodes[n % len(nodes)] == node for n in range(count)), node)
    return held


def set_queue(pair, prefix: str, **queue):
    pair.change("/api/mappings" + prefix, queue=queue)


def starts_of(vendor) -> list[str]:
    return [r.path for r in sorted(vendor.received, key=lambda r: r.at)]


def test_a_raised_rate_is_for_those_who_wait_and_for_newcomers(pair, vendor):
    prefix = queued(pair, vendor, 0.1)
    drain(pair, prefix)
    held = waiting(pair, prefix, 12)
    assert pair[0].api("PUT", "/api/mappings" + prefix, {"queue": {"rate_per_second": 4}}).status == 200
    began = time.monotonic()
    late = Held(pair[0], prefix, path="/12")  # its own node knows at once
    assert [request.answer(5).status for request in [*held, late]] == [200] * 13
    assert 2.5 < time.monotonic() - began < 4.5, "four in any second"
    assert starts_of(vendor) == ["/first", *[f"/{n:02}" for n in range(13)]]
    assert most_in_window([r.at for r in vendor.received], 1 - SLACK) <= 4


def test_a_raised_rate_does_not_wait_for_other_nodes(pair, vendor):
    """What others were told before is void, whether they know already or not."""
    prefix = queued(pair, vendor, 0.1)
    drain(pair, prefix)
    held = waiting(pair, prefix, 4, nodes=(1,))
    assert pair[0].api("PUT", "/api/mappings" + prefix, {"queue": {"rate_per_second": 20}}).status == 200
    began = time.monotonic()
    assert pair[0].get(prefix + "/late").status == 200
    assert time.monotonic() - began < 1.2
    assert [request.answer(3).status for request in held] == [200] * 4


def test_a_raised_rate_over_two_nodes(pair, vendor):
    prefix = queued(pair, vendor, 0.2)
    drain(pair, prefix)
    held = waiting(pair, prefix, 24, nodes=(0, 1))
    set_queue(pair, prefix, rate_per_second=8)
    assert [request.answer(6).status for request in held] == [200] * 24
    times = [r.at for r in vendor.received]
    assert most_in_window(times, 1 - SLACK) <= 8
    assert max(times) - sorted(times)[1] < 4.5, "and not needlessly slow"
    order = [int(path[1:]) for path in starts_of(vendor) if path != "/first"]
    assert [n for n in order if n % 2] == sorted(n for n in order if n % 2)
    assert [n for n in order if n % 2 == 0] == sorted(n for n in order if n % 2 == 0)


def test_a_lowered_rate(pair, vendor):
    prefix = queued(pair, vendor, 10)
    at_once([lambda n=n: pair[n % 2].get(f"{prefix}/x") for n in range(10)], 10)
    held = waiting(pair, prefix, 6, nodes=(0, 1))
    set_queue(pair, prefix, rate_per_second=2)
    assert len(vendor.received) == 10
    held.append(Held(pair[1], prefix))
    assert [request.answer(8).status for request in held] == [200] * 7
    times = sorted(r.at for r in vendor.received)
    assert most_in_window(times[10:], 1 - SLACK) <= 2
    assert times[10] - times[9] > 1 - SLACK, "the second before the change was full"


def test_a_queue_that_is_taken_away_lets_all_go(pair, vendor):
    prefix, key = queued(pair, vendor, 0.1, auth="required"), pair.client(rpm=20, max_concurrency=6)
    assert pair[0].get(prefix + "/first", bearer(key)).status == 200
    held = waiting(pair, prefix, 5, key, nodes=(0, 1))
    began = time.monotonic()
    pair.change("/api/mappings" + prefix, queue=None)
    assert [request.answer(3).status for request in held] == [200] * 5
    assert time.monotonic() - began < 1.5
    for node in pair:
        wait_in_line(pair, prefix, 0, 0)
        answer = node.get(prefix + "/x", bearer(key))
        assert answer.status == 200
    assert answer.header("x-apiproxy-remaining-requests") == "12", "each is counted once"
    set_queue(pair, prefix, rate_per_second=100)
    assert {a.status for a in at_once([lambda: pair[0].get(prefix + "/x", bearer(key))] * 5, 5)} == {200}


@pytest.mark.parametrize("how", ["deleted", "disabled"])
def test_a_mapping_that_goes_takes_its_waiters_with_it(pair, vendor, how):
    prefix, key = queued(pair, vendor, 0.1, auth="required"), pair.client(rpm=20, max_concurrency=4)
    assert pair[0].get(prefix + "/first", bearer(key)).status == 200
    held = waiting(pair, prefix, 3, key, nodes=(0, 1))
    if how == "deleted":
        assert pair[0].api("DELETE", "/api/mappings" + prefix).status in (200, 204)
    else:
        pair.change("/api/mappings" + prefix, enabled=False)
    for request in held:
        answer = request.answer(3)
        assert fault_of(answer) == (404, "no_mapping") and answer.header("retry-after") is None
    other = pair.map(vendor.url, auth="required")
    vendor.script(*[Fault("stall_before_head")] * 4)
    four = [Held(pair[0], other, key) for _ in range(4)]
    vendor.wait(5, 3)
    for request in four:
        request.close()
    eventually(lambda: pair[1].get(other + "/x", bearer(key)).status == 200, 3, what="places are free")
    answer = pair[1].get(other + "/x", bearer(key))
    assert int(answer.header("x-apiproxy-remaining-requests")) >= 20 - 1 - 4 - 2 - 1, "who never went counts no more"


def test_a_changed_patience_counts_from_the_arrival(pair, vendor):
    prefix = queued(pair, vendor, 0.1, timeout=2)
    drain(pair, prefix)
    short, began = Held(pair[1], prefix), time.monotonic()
    wait_in_line(pair, prefix, 1, 1)
    set_queue(pair, prefix, timeout_seconds=4)
    assert short.client.silent(2.3 - (time.monotonic() - began)), "it has more time now"
    set_queue(pair, prefix, timeout_seconds=1)
    assert fault_of(short.answer(1)) == (408, "queue_timeout")


def test_more_patience_gives_a_start(pair, vendor):
    prefix = queued(pair, vendor, 0.4, timeout=2)
    drain(pair, prefix)
    held = waiting(pair, prefix, 1)
    set_queue(pair, prefix, timeout_seconds=10)
    assert held[0].answer(4).status == 200


def test_a_smaller_capacity_sends_nobody_away(pair, vendor):
    prefix = queued(pair, vendor, 1, capacity=5)
    drain(pair, prefix)
    held = waiting(pair, prefix, 3)
    set_queue(pair, prefix, capacity=1)
    assert fault_of(pair[1].get(prefix + "/x")) == (429, "queue_full")
    assert [request.answer(5).status for request in held] == [200] * 3


def test_what_is_counted_stays_counted_once(pair, vendor):
    prefix, key = queued(pair, vendor, 0.1, auth="required"), pair.client(rpm=30, max_concurrency=8)
    assert pair[0].get(prefix + "/first", bearer(key)).status == 200
    held = waiting(pair, prefix, 8, key, nodes=(0, 1))
    assert fault_of(pair[0].get(prefix + "/x", bearer(key))) == (429, "concurrency_limit")
    set_queue(pair, prefix, rate_per_second=0.2)
    assert fault_of(pair[0].get(prefix + "/x", bearer(key))) == (429, "concurrency_limit")
    for request in held[:4]:
        request.close()
    set_queue(pair, prefix, rate_per_second=10)
    assert [request.answer(3).status for request in held[4:]] == [200] * 4
    wait_in_line(pair, prefix, 0)
    answer = pair[1].get(prefix + "/x", bearer(key))
    assert answer.header("x-apiproxy-remaining-requests") == str(30 - 1 - 4 - 1)


@pytest.mark.concurrency
def test_changes_while_waiters_come_and_go(pair, vendor):
    prefix, stop = queued(pair, vendor, 0.5, capacity=400), threading.Event()

    def change():
        for rate in (0.2, 20, 0.3, 7, 0.5, 13, 0.1, 20):
            set_queue(pair, prefix, rate_per_second=rate)
            time.sleep(0.15)
        stop.set()

    changing = Timed(change)
    done = come_and_go(pair, prefix, 80, 80, 0.01)
    changing.get()
    assert stop.is_set() and done == [200] * 40
    assert most_in_window([r.at for r in vendor.received], 1 - SLACK) <= 20
    for node in (0, 1):
        wait_in_line(pair, prefix, 0, node)
