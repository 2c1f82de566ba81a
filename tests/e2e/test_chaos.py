"""Everything at once: rude clients, broken vendors, changes, outages. Nothing may be lost, mixed up or left over."""

from __future__ import annotations

import json
import os
import random
import threading
import time

import pytest

from support.gateway import Gateway
from support.process import eventually
from support.vendor import Fault
from support.wire import Broken, Closed, RawClient, chunked, request_bytes

pytestmark = pytest.mark.concurrency

SECONDS = float(os.environ.get("CHAOS_SECONDS", 4))
SEED = int(os.environ.get("CHAOS_SEED", 1))
FAULTS = ["close_before_head", "reset_before_head", "close_in_head", "garbage", "close_in_body", "reset_in_body"]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class Rude:
    """A client that does what clients do, from a seed; notes answers that are not its own."""

    def __init__(self, gateway, prefixes, seed: int, key: str):
        self.gateway, self.prefixes, self.key = gateway, prefixes, key
        self.random = random.Random(seed)
        self.seed = seed
        self.wrong: list[str] = []
        self.whole = 0

    def run(self, until: float):
        while time.monotonic() < until:
            try:
                with RawClient(self.gateway.port, timeout=10) as client:
                    for turn in range(self.random.randrange(1, 8)):
                        if not self.act(client, turn):
                            break
            except (Closed, Broken, OSError):
                pass  # broken vendors, or itself

    def act(self, client: RawClient, turn: int) -> bool:
        choose = self.random.random()
        tag = f"{self.seed}-{turn}-{self.random.randrange(1 << 30)}"
        target = f"{self.random.choice(self.prefixes)}/{tag}"
        body = os.urandom(self.random.choice([0, 1, 100, 5000, 70_000]))
        fields = [("Authorization", f"Bearer {self.key}")]
        if self.random.random() < 0.5:
            raw = request_bytes("POST", target, fields + [("Transfer-Encoding", "chunked")], chunked(*([body] if body else [])))
        else:
            raw = request_bytes(self.random.choice(["POST", "PUT", "GET"]), target, fields, body)
        if choose < 0.1:
            client.send(raw[: self.random.randrange(len(raw))])
            client.reset() if choose < 0.05 else client.close()
            return False
        client.send(raw)
        if choose < 0.2:
            client.reset() if choose < 0.15 else client.close()
            return False
        if choose < 0.3:
            client.send(raw)  # pipelined
            self.check(client.read_response(), tag, body)
        self.check(client.read_response(), tag, body)
        return True

    def check(self, answer, tag: str, body: bytes):
        if answer.status == 200:
            said = answer.json()
            self.whole += 1
            if said["target"] != "/" + tag or said["length"] != len(body):
                self.wrong.append(f"{tag} got {said['target']}")
        elif answer.status not in (404, 408, 429, 502, 503):
            self.wrong.append(f"{tag} got {answer.status}")


def test_chaos(vendor, redis_server):
    luck = random.Random(SEED)
    with Gateway(API_PROXY_REDIS_URL=redis_server.url, API_PROXY_WORKERS="3") as gateway:
        for n in range(3):
            assert gateway.api("POST", "/api/keys", {"id": f"k{n}", "pool": "p", "key": f"vk{n}"}).status == 201
        key = gateway.api("POST", "/api/clients", {"id": "c", "name": "c", "rpm": 1_000_000}).json()["key"]
        plain = gateway.route(vendor.url)
        managed = gateway.route(vendor.url, auth="required", pool="p", timeout_seconds=5)
        queue = {"rate_per_second": 50, "capacity": 4, "timeout_seconds": 1}
        queued = gateway.route(vendor.url, auth="required", pool="p", queue=queue)
        changing = gateway.route(vendor.url)
        before = descriptors(gateway.pid)
        until = time.monotonic() + SECONDS
        clients = [Rude(gateway, [plain, managed, queued, changing], SEED * 100 + n, key) for n in range(12)]
        threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
        for thread in threads:
            thread.start()
        outage = time.monotonic() + SECONDS / 2
        while time.monotonic() < until:
            vendor.script(Fault(luck.choice(FAULTS), after=luck.randrange(60)), None, None, None)
            gateway.api("PUT", "/api/mappings" + changing, {"description": str(luck.random()), "enabled": luck.random() < 0.7})
            if outage and time.monotonic() > outage:
                redis_server.kill()
                time.sleep(0.3)
                redis_server.start()
                outage = 0
            time.sleep(0.02)
        for thread in threads:
            thread.join()

        wrong = [w for client in clients for w in client.wrong]
        assert not wrong, wrong[:5]
        assert sum(client.whole for client in clients) > 50
        vendor.clear()
        assert gateway.get(plain + "/after").status == 200
        # The count itself is a request on a connection.
        eventually(lambda: gateway.get("/stats").json()["performance"]["active_requests"] == 0, 5)
        eventually(lambda: gateway.get("/stats").json()["performance"]["active_connections"] <= 1, 5)
        kept = len(vendor._server.raw.connections)
        eventually(lambda: descriptors(gateway.pid) <= before + min(kept, 64) + 8, 5, what=f"{descriptors(gateway.pid)} descriptors, {before} before")


def test_no_descriptor_is_left_over(vendor):
    """Every kind of end, many times: what was opened for it is closed."""
    with Gateway(API_PROXY_WORKERS="1") as gateway:
        prefix = gateway.route(vendor.url)
        gateway.get(prefix + "/")
        dead = gateway.route("http://127.0.0.1:9")
        before = descriptors(gateway.pid)
        body = json.dumps({"stream": True, "messages": []}).encode()
        for turn in range(20):
            for fault in FAULTS:
                vendor.script(Fault(fault))
                try:
                    gateway.request("POST", prefix + "/v1/chat/completions", [], body)
                except (Broken, Closed):
                    pass
            gateway.get(dead + "/")
            gateway.get("/stats")
            gateway.get("/unmapped")
            client = gateway.connect()
            client.send("GET / HTTP/1.1\r\nbroken")
            client.close()
            client = gateway.connect()
            client.send(request_bytes("POST", prefix + "/x", [("Content-Length", "100")], b"half"))
            client.reset()
        eventually(lambda: descriptors(gateway.pid) <= before + 4, 5, what=f"{descriptors(gateway.pid)} descriptors, {before} before")


def test_places_of_those_who_hang_up_come_back(vendor):
    """Whenever a client goes, before, while or after it is admitted, its place is free again."""
    with Gateway(API_PROXY_WORKERS="2") as gateway:
        key = gateway.api("POST", "/api/clients", {"id": "one", "name": "n", "max_concurrency": 1}).json()["key"]
        prefix = gateway.route(vendor.url, auth="required")
        raw = request_bytes("GET", prefix + "/", [("Authorization", f"Bearer {key}")])
        luck = random.Random(2)
        for _ in range(400):
            with RawClient(gateway.port) as client:
                client.send(raw)
                wait = time.perf_counter() + luck.random() * 0.001
                while time.perf_counter() < wait:
                    pass
                client.reset() if luck.random() < 0.5 else client.close()
        ask = lambda: gateway.get(prefix + "/", [("Authorization", f"Bearer {key}")]).status  # noqa: E731
        eventually(lambda: ask() == 200, 5)
        assert [ask() for _ in range(5)] == [200] * 5
