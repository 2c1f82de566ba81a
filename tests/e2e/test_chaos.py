"""Everything at once: rude clients, broken vendors, changes, outages. Nothing may be lost, mixed up or left over."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time

import pytest

from support.gateway import Gateway
from support.process import eventually
from support.vendor import Fault
from support.wire import Broken, Closed, RawClient, ThreadedServer, chunk, chunked, request_bytes

pytestmark = pytest.mark.concurrency

SECONDS = float(os.environ.get("CHAOS_SECONDS", 4))
SEED = int(os.environ.get("CHAOS_SEED", 1))
CLIENTS = int(os.environ.get("CHAOS_CLIENTS", 40))
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


# -- a vendor that does what it likes, and clients that do too


OK = "HTTP/1.1 200 OK\r\n"
UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
GARBAGE = ["", "HTTP/1.1 200 OK\r\nContent-Length: 3", "SSH-2.0-x", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", OK + "X: a\r\n b\r\n\r\n"]


class Capricious:
    """A vendor; each connection has luck of its own. Whole answers repeat the request's target until they are long enough."""

    def __init__(self, seed: int, tls=None):
        self.seed = seed
        self.server = ThreadedServer(self.talk, tls)
        self.url = f"https://localhost:{self.server.raw.port}" if tls else f"http://127.0.0.1:{self.server.raw.port}"

    def talk(self, connection):
        luck = random.Random(self.seed * 1_000_003 + self.server.raw.connections.index(connection))
        while self.exchange(connection, luck):
            pass

    def exchange(self, connection, luck) -> bool:
        head = connection.read_head()
        if luck.random() < 0.1:  # an answer before the body was read
            connection.send(f"HTTP/1.1 {luck.choice([401, 413, 429, 503])} Early\r\nContent-Length: 0\r\n\r\n")
            return False
        if luck.random() < 0.2:
            connection.send("HTTP/1.1 100 Continue\r\n\r\n" * luck.randrange(1, 50))
        connection.read_request_body(head)
        time.sleep(luck.choice([0, 0, 0.001, 0.05]))
        if head.get("upgrade"):
            return self.tunnel(connection, luck)
        choose = luck.random()
        if choose < 0.08:
            connection.send(luck.choice(GARBAGE))
            return False
        if choose < 0.12:
            connection.reset()
            return False
        return self.answer(connection, luck, head)

    def tunnel(self, connection, luck) -> bool:
        connection.send(SWITCH + "hello")
        for _ in range(luck.randrange(20)):
            connection.send(connection.read_some() or b"!")
        if luck.random() < 0.3:
            connection.reset()
        return False

    def answer(self, connection, luck, head) -> bool:
        tag = head.line.split(b" ")[1] + b" "
        body = tag * (luck.choice([0, 1, 300, 100_000]) // len(tag) + 1)
        framing = luck.choice(["Content-Length: %d\r\n" % len(body), "Transfer-Encoding: chunked\r\n", "Connection: close\r\n"])
        kind = luck.choice(["text/event-stream", "application/json", "text/plain"])
        connection.send(f"{OK}Content-Type: {kind}\r\n{framing}\r\n")
        if head.line.startswith(b"HEAD"):
            return False
        breaks = luck.random() < 0.15 and not framing.startswith("Connection")  # an end without framing is an end
        cut = luck.randrange(len(body)) if breaks else len(body)
        if not framing.startswith("Transfer"):
            connection.send(body[:cut])
            return cut == len(body) and framing.startswith("Content")
        step = luck.choice([1000, 20_000, 200_000])
        for start in range(0, cut, step):
            connection.send(chunk(body[start : min(start + step, cut)]))
            time.sleep(luck.choice([0, 0, 0.002]))
        connection.send("0\r\n\r\n" if cut == len(body) else luck.choice(["", "zz\r\n", "5\r\nab"]))
        return cut == len(body)


class Reckless(Rude):
    """Whole answers must be made of the request's own target alone."""

    def act(self, client, turn: int) -> bool:
        choose = self.random.random()
        tag = f"{self.seed}-{turn}-{self.random.randrange(1 << 30)}"
        target = f"{self.random.choice(self.prefixes)}/{tag}"
        fields = [("x-api-key", self.key)]
        if choose < 0.1:
            return self.talk(client, target, fields)
        if choose < 0.15:
            client.send(request_bytes("POST", target, fields + [("Transfer-Encoding", "chunked")]) + chunk(b"x" * 3000) + b"zz\r\n")
            client.read_response()
            return False
        if choose < 0.25:
            fields.append(("Expect", "100-continue"))
        method = self.random.choice(["GET", "POST", "PUT", "HEAD", "DELETE"])
        body = b"b" * self.random.choice([0, 10, 10_000, 300_000])
        raw = request_bytes(method, target, fields, body, version=self.random.choice(["HTTP/1.0", "HTTP/1.1", "HTTP/1.1"]))
        if choose > 0.9:
            client.send_pieces(raw[:300])
            raw = raw[300:]
        client.send(raw[: self.random.randrange(len(raw) + 1)] if choose > 0.95 else raw)
        if choose > 0.85:
            if self.random.random() < 0.5:
                client.read_response_head()
            client.reset() if choose > 0.9 else client.close()
            return False
        answer = client.read_response(method)
        words = set(answer.body.split())
        if answer.status == 200 and method != "HEAD" and words and not all(word.endswith(tag.encode()) for word in words):
            self.wrong.append(f"{tag} got {words}")
        self.whole += answer.status == 200
        return not (answer.header("connection") == "close" or raw.endswith(b"HTTP/1.0"))

    def talk(self, client, target: str, fields) -> bool:
        client.send(request_bytes("GET", target, fields + UPGRADE) + b"early")
        if b" 101 " not in client.read_head().line:
            return False
        for _ in range(self.random.randrange(10)):
            client.send(os.urandom(self.random.choice([1, 100, 50_000])))
            client.read_some()
        return False


def disturb(gateway, redis_server, changing: list[str], urls: list[str], luck, until: float):
    """What operators and machines do meanwhile."""
    while time.monotonic() < until:
        choose = luck.random()
        if choose < 0.6:
            change = {"enabled": luck.random() < 0.8, "target": luck.choice(urls), "timeout_seconds": luck.choice([0, 1])}
            gateway.api("PUT", "/api/mappings" + luck.choice(changing), change)
        elif choose < 0.7:
            gateway.signal(signal.SIGHUP)
        elif choose < 0.75:
            redis_server.freeze()
            time.sleep(luck.random() * 0.5)
            redis_server.thaw()
        elif choose < 0.78:
            redis_server.kill()
            time.sleep(luck.random() * 0.5)
            redis_server.start()
        elif choose < 0.85:
            prefix = gateway.route(urls[0])
            gateway.api("DELETE", "/api/mappings" + prefix)
        else:
            gateway.get("/stats?scope=cluster")
        time.sleep(luck.random() * 0.05)


@pytest.mark.timeout(60 + 2 * SECONDS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_capricious_vendors_and_reckless_clients(redis_server, authority, tls):
    """Hours of a bad day in seconds; then a drain under load, with nothing left over."""
    luck = random.Random(SEED)
    context = authority.server_context("localhost") if tls else None
    vendors = [Capricious(SEED, context), Capricious(SEED + 1, context)]
    trust = {"SSL_CERT_FILE": str(authority.bundle)}
    with Gateway(API_PROXY_REDIS_URL=redis_server.url, API_PROXY_WORKERS="3", API_PROXY_DRAIN_SECONDS="2", **trust) as gateway:
        urls = [vendor.url for vendor in vendors]
        for n in range(3):
            assert gateway.api("POST", "/api/keys", {"id": f"k{n}", "pool": "p", "key": f"vk{n}"}).status == 201
        key = gateway.api("POST", "/api/clients", {"id": "c", "name": "c", "rpm": 1_000_000, "max_concurrency": 20}).json()["key"]
        queue = {"rate_per_second": 100, "capacity": 5, "timeout_seconds": 1}
        changing = [gateway.route(urls[0]) for _ in range(3)]
        managed = gateway.route(urls[1], auth="required", pool="p", dialect="anthropic", timeout_seconds=3)
        queued = gateway.route(urls[0], auth="required", pool="p", queue=queue, max_body_bytes=200_000)
        prefixes = [gateway.route(urls[1]), *changing, managed, queued]
        before = descriptors(gateway.pid)

        def load(seconds: float, seed: int):
            until = time.monotonic() + seconds
            clients = [Reckless(gateway, prefixes, seed * 1000 + n, key) for n in range(CLIENTS)]
            threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
            for thread in threads:
                thread.start()
            return clients, threads, until

        clients, threads, until = load(SECONDS, SEED)
        disturb(gateway, redis_server, changing, urls, luck, until)
        for thread in threads:
            thread.join()
        wrong = [w for client in clients for w in client.wrong]
        assert not wrong, wrong[:5]
        assert sum(client.whole for client in clients) > 20
        assert gateway.alive(), gateway.output[-6000:]
        eventually(lambda: gateway.get("/stats").json()["performance"]["active_requests"] == 0, 5)
        eventually(lambda: gateway.get("/stats").json()["performance"]["active_connections"] <= 1, 5)
        eventually(lambda: descriptors(gateway.pid) <= before + 64, 5, what=f"{descriptors(gateway.pid)} descriptors, {before} before")

        _, threads, _ = load(1, SEED + 1)
        time.sleep(0.5)
        assert gateway.terminate() == 0, gateway.output[-6000:]
        for thread in threads:
            thread.join()
    for vendor in vendors:
        vendor.server.close()
