"""Three nodes that never stop asking, one of them killed and started again: the vendor's own clock is the judge."""

import itertools
import random
import threading
import time

import pytest

from support.gateway import Gateway
from support.redis_server import Redis
from support.vendor import Vendor
from support.wire import Broken, Closed, RawClient

SPAN = 60.0
ON_THE_WAY = 0.1  # between Redis' decision and the vendor's clock: two requests may be this much closer there


class Callers:
    """Threads that ask one node for one client as fast as they are let."""

    def __init__(self, node, prefix, key, label, until, rng):
        self.node, self.until = node, until
        self.request = (prefix + "/" + label, [("x-api-key", key)])
        self.rng = random.Random(rng.random())
        self.refused = 0
        self.wrong = []
        self.threads = [threading.Thread(target=self.run) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while time.monotonic() < self.until:
            try:
                with RawClient(self.node.port) as client:
                    while time.monotonic() < self.until:
                        answer = client.request("GET", *self.request)
                        if answer.status == 429:
                            self.refused += 1
                            if not 1 <= int(answer.header("retry-after")) <= 60:
                                self.wrong.append(answer)
                            time.sleep(self.rng.uniform(0.02, 0.08))
                        elif answer.status == 503:
                            time.sleep(0.05)
                        elif answer.status != 200:
                            self.wrong.append(answer)
            except (OSError, Closed, Broken):
                time.sleep(0.05)  # its node was killed


def most_within(times, span):
    most, first = 0, 0
    for last, t in enumerate(times):
        while times[first] <= t - span:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.timing
@pytest.mark.timeout(150)
def test_three_nodes_never_let_one_too_many_through():
    rng = random.Random(3)
    limits = {f"c{n}": rng.choice([7, 40, 150]) * (n + 1) for n in range(3)}
    with Redis() as redis, Vendor() as vendor:
        # deny: on a machine so busy that Redis takes 250 ms, each node would go on by itself, with limits of its own
        settings = {"API_PROXY_REDIS_URL": redis.url, "API_PROXY_WORKERS": "2", "API_PROXY_ON_REDIS_FAILURE": "deny"}
        nodes = [Gateway(**settings) for _ in range(3)]
        try:
            nodes[0].map("/m", vendor.url, auth="required")
            keys = {c: nodes[0].api("POST", "/api/clients", {"id": c, "rpm": limit}).json()["key"] for c, limit in limits.items()}
            time.sleep(1.1)
            until = time.monotonic() + SPAN + 6
            callers = [Callers(node, "/m", keys[c], c, until, rng) for node, c in itertools.product(nodes, limits)]
            time.sleep(rng.uniform(0.2, 0.6))
            nodes[2].kill()
            time.sleep(rng.uniform(1, 20))
            nodes[2].start()
            for thread in itertools.chain(*(c.threads for c in callers)):
                thread.join()
            assert all(not c.wrong for c in callers)
            assert sum(c.refused for c in callers) > 100
            for c, limit in limits.items():
                times = sorted(r.at for r in vendor.received if r.path == f"/{c}")
                assert most_within(times, SPAN - ON_THE_WAY) <= limit
                lost = 8  # on the way when their node was killed
                assert len(times) >= 0.99 * 2 * limit - lost, (c, limit, len(times))
        finally:
            for node in nodes:
                node.discard()
