"""Several nodes on one Redis, and what managed mappings need: clients, vendor keys, many requests at once."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from .gateway import Gateway
from .process import Stopping
from .redis_server import Redis
from .wire import RawClient, Response

WINDOW = 60.0
CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
GENERATE = "/v1beta/models/sim-1:generateContent"
numbers = itertools.count(1)


def name(stem: str) -> str:
    """A name that no other test uses."""
    return f"{stem}{next(numbers)}"


def key_of(stem: str) -> str:
    """A client key of the right form that the test itself chose."""
    digits = hashlib.sha256(stem.encode()).hexdigest()[:43]
    return "sk-ap-" + digits


def chat_body(**more) -> bytes:
    return json.dumps({"model": "sim-1", "messages": [{"role": "user", "content": "Hi"}], **more}).encode()


class Nodes(Stopping):
    """`count` gateways that share a Redis."""

    def __init__(self, count: int = 2, redis: Redis | None = None, **settings):
        self.redis = redis or Redis()
        self.own_redis = redis is None
        settings.setdefault("API_PROXY_MASTER_KEY", "5a" * 32)
        settings["API_PROXY_REDIS_URL"] = self.redis.url
        self.list: list[Gateway] = []
        try:
            for _ in range(count):
                self.list.append(Gateway(**settings))
        except BaseException:
            self.discard()
            raise

    def pooled(self, target: str, count: int = 2, **more) -> str:
        """The prefix of a mapping with so many vendor keys of its own."""
        return self.map(target, pool=self.pool(*[name("pooled") for _ in range(count)]), **more)

    def __getitem__(self, index) -> Gateway:
        return self.list[index]

    def __iter__(self):
        return iter(self.list)

    def stop(self):
        try:
            for node in self.list:
                node.stop()
        finally:
            self.discard()

    def discard(self):
        for node in self.list:
            node.discard()
        if self.own_redis:
            self.redis.close()

    # -- configuration, known to all nodes when a call returns

    def _known(self, path: str):
        """A node's own change holds when its answer is there: an empty one makes it read all others."""
        for node in self.list[1:]:
            answer = node.api("PUT", path, {})
            assert answer.status == 200, f"{answer.status} {answer.body!r}"

    def add(self, section: str, entry: dict, path: str) -> dict:
        answer = self[0].api("POST", f"/api/{section}", entry)
        assert answer.status == 201, f"{answer.status} {answer.body!r}"
        self._known(path)
        return answer.json()

    def change(self, path: str, **fields):
        answer = self[0].api("PUT", path, fields)
        assert answer.status == 200, f"{answer.status} {answer.body!r}"
        self._known(path)

    def map(self, target: str, **more) -> str:
        prefix = "/" + name("m")
        self.add("mappings", {"prefix": prefix, "target": target, **more}, "/api/mappings" + prefix)
        return prefix

    def client(self, **limits) -> str:
        """A new client's key."""
        return self.client_with_id(**limits)[1]

    def client_with_id(self, **limits) -> tuple[str, str]:
        id = limits.pop("id", None) or name("client")
        return id, self.add("clients", {"id": id, **limits}, f"/api/clients/{id}")["key"]

    def user(self, password: str = "pass word", **limits) -> str:
        username = name("user")
        self.add("users", {"username": username, "password": password, **limits}, f"/api/users/{username}")
        return username

    def pool(self, *keys: str, **more) -> str:
        """A pool with these keys; each one's id is the key itself."""
        pool = name("pool")
        for key in keys:
            self.add("keys", {"id": key, "pool": pool, "key": "secret-" + key, **more}, f"/api/keys/{key}")
        return pool

    def health(self, key: str, node: int = 0) -> dict:
        return self[node].api("GET", f"/api/keys/{key}").json()["health"]


def bearer(key: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {key}")]


def ask(gateway: Gateway, prefix: str, key: str | None = None, body: bytes | None = None, path: str = CHAT, headers=()) -> Response:
    """One chat (or another call with a body)."""
    fields = [*(bearer(key) if key else []), ("Content-Type", "application/json"), *headers]
    return gateway.request("POST", prefix + path, fields, chat_body() if body is None else body)


def login(gateway: Gateway, username: str, password: str = "pass word") -> Response:
    body = json.dumps({"username": username, "password": password})
    return gateway.request("POST", "/auth/login", [("Content-Type", "application/json")], body)


def token_of(gateway: Gateway, username: str, password: str = "pass word") -> str:
    answer = login(gateway, username, password)
    assert answer.status == 200, answer.body
    return answer.json()["token"]


def statuses(nodes, prefix: str, credential: str) -> list[int]:
    """What each node says to it."""
    return [node.get(prefix + "/x", bearer(credential)).status for node in nodes]


def at_once(calls, workers: int = 16) -> list:
    """Runs all calls from several threads, results in their order."""
    with ThreadPoolExecutor(workers) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


class Held:
    """A request that stays in flight until it is closed or released."""

    def __init__(self, gateway: Gateway, prefix: str, key: str | None = None, path: str = "/held", headers=()):
        self.client: RawClient = gateway.connect()
        fields = "".join(f"{n}: {v}\r\n" for n, v in [*(bearer(key) if key else []), *headers])
        self.client.send(f"GET {prefix}{path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
        self.began = time.monotonic()

    def answer(self, seconds: float = 10) -> Response:
        self.client.set_timeout(seconds)
        return self.client.read_response()

    def close(self):
        self.client.close()


def fault_of(answer: Response) -> tuple[int, str | None]:
    return answer.status, answer.header("x-apiproxy-error")


def most_in_window(times: list[float], window: float = WINDOW) -> int:
    """The largest number of moments in any half-open window."""
    times = sorted(times)
    first = most = 0
    for last, at in enumerate(times):
        while times[first] <= at - window:
            first += 1
        most = max(most, last - first + 1)
    return most


class Timed:
    """Runs `call` in a thread and remembers when its result came."""

    def __init__(self, call):
        self.result = self.error = None
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self.thread.start()

    def _run(self, call):
        try:
            self.result = call()
        except BaseException as error:  # handed to the test's own thread
            self.error = error
        self.took = time.monotonic() - self.began

    def get(self, seconds: float = 20):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), f"no end within {seconds} s"
        if self.error:
            raise self.error
        return self.result
