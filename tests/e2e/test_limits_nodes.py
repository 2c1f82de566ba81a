"""Three nodes whose clocks differ, and callers who never stop asking: not one too many, and not needlessly few.

Nodes are killed at random and start again with another wrong clock; clocks are set while they run. The
judge is a checker that knows nothing of the nodes: the vendor's own timestamps, and every window of 60 s.
"""

from __future__ import annotations

import random
import threading
import time

import pytest

from support.gateway import Gateway
from support.managed import CHAT, Held, ask, chat_body, fault_of
from support.redis_server import Redis
from support.skew import Clock
from support.vendor import Fault, Vendor
from support.wire import Broken, Closed, RawClient

SPAN = 60.0
KILLS = 3
THREADS = 2  # of each caller on each node
TOKENS = 25  # what each request asks for, and what the vendor says it used


class Caller:
    """Asks one node for one client as fast as it is let; each request says when it was sent."""

    def __init__(self, node: Gateway, label: str, key: str, body: bytes | None, until: float, seed: float):
        self.node, self.until, self.body, self.rng = node, until, body, random.Random(seed)
        self.method, self.path = ("POST", f"/m/{label}{CHAT}") if body else ("GET", f"/m/{label}")
        self.fields = [("x-api-key", key)] + ([("Content-Type", "application/json")] if body else [])
        self.refused = 0
        self.wrong = []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while time.monotonic() < self.until:
            try:
                with RawClient(self.node.port) as client:
                    while time.monotonic() < self.until:
                        self.ask(client)
            except (OSError, Closed, Broken):
                time.sleep(0.05)  # its node was killed

    def ask(self, client):
        answer = client.request(self.method, self.path, [*self.fields, ("x-sent", repr(time.time()))], self.body)
        if answer.status == 429:
            self.refused += 1
            waits = 1 <= int(answer.header("retry-after")) <= 61
            if not waits or answer.header("x-apiproxy-error") != "rate_limit":
                self.wrong.append(answer)
            self.pause()
        elif answer.status == 503:  # Redis was too slow on a busy machine
            time.sleep(0.05)
        elif answer.status != 200:
            self.wrong.append(answer)
        elif self.rng.random() < 0.05:
            self.pause()

    def pause(self):
        time.sleep(self.rng.uniform(0.02, 0.08))


def most_for_sure(requests, weight=1, span=SPAN):
    """The most that surely was let through within `span`: between a request's sending and its arrival at the
    vendor lies the moment that counts, so a window holds those that were sent in it and arrived in it."""
    requests = sorted(requests)
    most = 0
    for first, (begins, _) in enumerate(requests):
        inside = 0
        for sent, arrived in requests[first:]:
            if sent > begins + span:
                break
            inside += arrived <= begins + span
        most = max(most, inside * weight)
    return most


def test_the_checker_sees_one_too_many():
    steady = [(float(t), t + 0.01) for t in range(200)]
    assert most_for_sure(steady) == 60
    assert most_for_sure(steady + [(100.5, 100.51)]) == 61
    assert most_for_sure(steady + [(100.5, 100.51)], weight=25) == 61 * 25


def random_clock(rng) -> Clock:
    return Clock(rng.uniform(-90_000, 90_000), rng.choice([1, 0.99, 1.01]), monotonic=rng.random() < 0.5)


def disturb(nodes, clocks, rng, until):
    """Kills nodes, starts them with other clocks, and sets the clocks of those that run."""
    for turn in range(KILLS):
        victim = 2 if turn == 0 else rng.randrange(3)
        time.sleep(rng.uniform(0.2, 0.6) if turn == 0 else rng.uniform(1, 14))
        nodes[victim].kill()
        time.sleep(rng.uniform(0.5, 5))
        clocks[rng.randrange(3)].set(rng.uniform(-90_000, 90_000))
        clocks[victim] = random_clock(rng)
        nodes[victim].settings.update(clocks[victim].environment)
        nodes[victim].start()
    while time.monotonic() < until - 2:
        time.sleep(min(rng.uniform(2, 6), max(0, until - 2 - time.monotonic())))
        clocks[rng.randrange(3)].set(rng.uniform(-90_000, 90_000))


@pytest.mark.timing
@pytest.mark.timeout(150)
def test_three_nodes_never_let_one_too_many_through():
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    limits = {f"c{n}": {"rpm": rng.randint(7, 150) * (n + 1)} for n in range(3)}
    limits["input"], limits["output"] = {"input_tpm": rng.randint(5000, 9000)}, {"output_tpm": TOKENS * rng.randint(150, 300)}
    bodies = {"input": chat_body(messages=[{"role": "user", "content": "word " * 40}]), "output": chat_body(max_tokens=TOKENS)}
    clocks = [Clock(3600), Clock(-86400, 1.01, monotonic=True), Clock(37, 0.99, monotonic=True)]
    with Redis() as redis, Vendor() as vendor, Vendor() as silent:
        vendor.input_tokens = vendor.output_tokens = TOKENS
        silent.script(Fault("stall_before_head"))
        # deny: on a machine so busy that Redis takes 250 ms, each node would go on by itself, with limits of its own
        settings = {"API_PROXY_REDIS_URL": redis.url, "API_PROXY_MASTER_KEY": "5a" * 32, "API_PROXY_ON_REDIS_FAILURE": "deny"}
        nodes = []
        try:
            nodes += [Gateway(**settings, **clock.environment) for clock in clocks]
            nodes[0].map("/m", vendor.url, auth="required")
            nodes[0].map("/silent", silent.url, auth="required")
            add = lambda id, **more: nodes[0].api("POST", "/api/clients", {"id": id, **more}).json()["key"]  # noqa: E731
            keys = {id: add(id, **limit) for id, limit in limits.items()}
            place, probe = add("place", max_concurrency=1), add("probe", input_tpm=10_000)
            time.sleep(1.1)
            Held(nodes[2], "/silent", place)
            silent.wait(1)
            assert fault_of(ask(nodes[0], "/silent", place)) == (429, "concurrency_limit")
            estimate = 10_000 - int(ask(nodes[1], "/m", probe, bodies["input"]).header("x-apiproxy-remaining-input-tokens"))
            assert estimate >= TOKENS, "else the vendor's figure goes over the reservation, and over the limit"

            until = time.monotonic() + SPAN + 6
            callers = [
                Caller(node, id, keys[id], bodies.get(id), until, rng.random())
                for node in nodes for id in limits for _ in range(1 if id in bodies else THREADS)
            ]
            disturb(nodes, clocks, rng, until)
            for caller in callers:
                caller.thread.join()

            assert not [wrong for c in callers for wrong in c.wrong]
            assert sum(c.refused for c in callers) > 100
            assert ask(nodes[0], "/silent", place).status == 200, "the place that a killed node had is free again"
            for id, limit in limits.items():
                requests = [(float(r.header("x-sent")), r.at) for r in vendor.received if r.path.startswith(f"/{id}/") or r.path == f"/{id}"]
                (most,), weight = limit.values(), TOKENS if id in bodies else 1
                assert most_for_sure(requests, weight) <= most, (seed, id, limit)
                asked = estimate if id == "input" else weight  # the last one must fit in with what it asks for
                lost = KILLS * THREADS * asked  # on the way when their node was killed
                assert len(requests) * weight >= 0.99 * 2 * (most - asked + weight) - lost, (seed, id, limit, len(requests))
        finally:
            for node in nodes:
                node.discard()
