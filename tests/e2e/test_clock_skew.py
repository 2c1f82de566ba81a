"""Three nodes whose own clocks are wrong: an hour ahead, a day behind, half a minute ahead; one runs too fast, one
too slow. What a client sees goes by the clock they share. (The windows: test_limits_nodes.py.)"""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime, timezone
from email.utils import formatdate, parsedate_to_datetime

import pytest

from support.gateway import Gateway
from support.managed import MESSAGES, Held, Nodes, Timed, ask, at_once, fault_of, login, most_in_window, statuses, token_of
from support.process import eventually
from support.redis_server import Redis
from support.skew import TAKEN_OVER, Clock
from support.vendor import Reply, Vendor

pytestmark = pytest.mark.timing  # libfaketime and a sanitizer's runtime do not go together

OFFSETS = (3600, -86400, 37)


def clocks():
    """Quartz is wrong by less than 500 in a million."""
    ahead, behind, near = OFFSETS
    return [Clock(ahead), Clock(behind, 1.0005, monotonic=True), Clock(near, 0.9995, monotonic=True)]


class SkewedNodes(Nodes):
    def __init__(self, redis: Redis, *own: Clock, **settings):
        super().__init__(0, redis, **settings)
        settings.update(API_PROXY_REDIS_URL=redis.url, API_PROXY_MASTER_KEY="5a" * 32)
        self.clocks = own or clocks()
        try:
            for clock in self.clocks:
                self.list.append(Gateway(**settings, **clock.environment))
        except BaseException:
            self.discard()
            raise


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def nodes(redis):
    with SkewedNodes(redis) as skewed:
        yield skewed


@pytest.fixture(scope="module")
def echo():
    with Vendor() as vendor:
        yield vendor


@pytest.fixture(scope="module")
def guarded(nodes, echo):
    return nodes.map(echo.url, auth="required")


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_the_clocks_are_wrong(nodes):
    for node, offset in zip(nodes, OFFSETS):
        date = parsedate_to_datetime(node.get("/health").header("date")).timestamp()
        assert abs(date - time.time() - offset) < 3


# -- logins


def claims(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.mark.parametrize("issuer", range(3))
def test_a_token_is_good_on_every_node(nodes, guarded, issuer):
    username = nodes.user()
    first = login(nodes[issuer], username).json()
    assert abs(claims(first["token"])["exp"] - time.time() - 3600) < 3
    assert statuses(nodes, guarded, first["token"]) == [200] * 3
    for node in nodes:
        again = login(node, username).json()
        assert again["token"] == first["token"] and 3590 <= again["expires_in"] <= 3600


def test_a_token_ends_on_every_node_at_once(redis, echo):
    with SkewedNodes(redis, API_PROXY_TOKEN_TTL_SECONDS="3") as nodes:
        prefix, began = nodes.map(echo.url, auth="required"), time.monotonic()
        tokens = [token_of(node, nodes.user()) for node in nodes]
        if time.monotonic() - began < 1:
            assert [statuses(nodes, prefix, token) for token in tokens] == [[200] * 3] * 3
        time.sleep(4.1)
        assert [statuses(nodes, prefix, token) for token in tokens] == [[401] * 3] * 3


def test_wrong_logins_of_a_user_over_all_nodes(nodes):
    username = nodes.user()
    assert [login(nodes[n % 3], username, "wrong").status for n in range(10)] == [401] * 10
    for node in nodes:
        answer = login(node, username)
        assert answer.status == 429 and 50 <= int(answer.header("retry-after")) <= 60


# -- clients


def test_a_client_ends_on_every_node_at_once(nodes, guarded):
    ends = int(time.time()) + 4
    key = nodes.client(expires_at=rfc3339(ends))
    before = statuses(nodes, guarded, key)
    if time.time() < ends:
        assert before == [200] * 3
    time.sleep(max(0, ends + 0.1 - time.time()))
    assert statuses(nodes, guarded, key) == [401] * 3


@pytest.mark.parametrize("ends_in, status", [(1800, 200), (-1800, 401), (-60, 401), (60, 200)])
def test_clients_that_end_later_or_have_ended(nodes, guarded, ends_in, status):
    key = nodes.client(expires_at=rfc3339(time.time() + ends_in))
    assert statuses(nodes, guarded, key) == [status] * 3


def test_a_user_ends_on_every_node_at_once(nodes, guarded):
    ends = int(time.time()) + 6
    username = nodes.user(expires_at=rfc3339(ends))
    token = token_of(nodes[0], username)
    assert [token_of(node, username) for node in nodes] == [token] * 3
    before = statuses(nodes, guarded, token)
    if time.time() < ends:
        assert before == [200] * 3
    time.sleep(max(0, ends + 0.1 - time.time()))
    assert statuses(nodes, guarded, token) == [401] * 3
    assert [login(node, username).status for node in nodes] == [401] * 3


# -- limits


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
def test_refusals_say_the_same_on_every_node(nodes, echo, dialect):
    prefix, key = nodes.map(echo.url, auth="required", dialect=dialect), nodes.client(rpm=3)
    began = time.time()
    for node in nodes:
        answer = ask(node, prefix, key)
        assert answer.status == 200 and answer.header("x-apiproxy-reset-requests") == "60"
    for node in nodes:
        answer = ask(node, prefix, key)
        passed = time.time() - began
        assert fault_of(answer) == (429, "rate_limit")
        assert 60 - passed <= int(answer.header("retry-after")) <= 61
        assert 60 - passed <= int(answer.header("x-apiproxy-reset-requests")) <= 60
        if dialect == "anthropic":
            reset = unix(answer.header("anthropic-ratelimit-requests-reset"))
            assert began + 60 - 0.1 <= reset <= time.time() + 61


def test_places_are_counted_over_all_nodes(nodes, echo):
    with Vendor() as vendor:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(max_concurrency=3)
        gate = lambda connection, received: vendor.release.wait(10)  # noqa: E731
        vendor.script(gate, gate, gate)
        held = [Held(node, prefix, key) for node in nodes]
        vendor.wait(3)
        assert [fault_of(ask(node, prefix, key)) for node in nodes] == [(429, "concurrency_limit")] * 3
        for one in held:
            one.close()
        eventually(lambda: statuses(nodes, prefix, key) == [200] * 3, 2)


def test_a_queue_keeps_its_pace_over_all_nodes(redis):
    """With clocks so bad that seven seconds are 70 ms more here and 70 ms less there."""
    own = [Clock(*OFFSETS[:1]), Clock(-86400, 1.01, monotonic=True), Clock(37, 0.99, monotonic=True)]
    with SkewedNodes(redis, *own) as nodes, Vendor() as vendor:
        prefix = nodes.map(vendor.url, auth="none", queue={"rate_per_second": 5, "capacity": 40, "timeout_seconds": 20})
        answers = at_once([lambda n=n: ask(nodes[n % 3], prefix) for n in range(36)], 36)
        assert [a.status for a in answers] == [200] * 36
        times = [r.at for r in vendor.received]
        assert most_in_window(times, 1.0) <= 5
        assert max(times) - min(times) < 7 * 1.05 + 1.2


def test_a_queue_times_out_in_real_seconds(nodes, echo):
    queue = {"rate_per_second": 0.05, "capacity": 10, "timeout_seconds": 1}
    prefix = nodes.map(echo.url, auth="none", queue=queue)
    assert ask(nodes[0], prefix).status == 200
    for waiting in [Timed(lambda n=n: ask(n, prefix)) for n in nodes]:
        answer = waiting.get()
        assert fault_of(answer) == (408, "queue_timeout") and 0.9 < waiting.took < 2.5
        assert 17 <= int(answer.header("retry-after")) <= 20


# -- vendor keys


@pytest.mark.parametrize("vendor_ahead", [0, 7200])
@pytest.mark.parametrize("node", range(3))
def test_a_key_cools_for_as_long_as_the_vendor_says(nodes, node, vendor_ahead):
    """A date is told by the vendor's clock; where the answer shows it, that clock may be wrong as well."""
    with Vendor() as vendor:
        pool = nodes.pool(f"cools-{node}-{vendor_ahead}")
        prefix = nodes.map(vendor.url, auth="none", pool=pool)
        now = time.time() + vendor_ahead
        headers = {"retry-after": formatdate(now + 4, usegmt=True)}
        if vendor_ahead:
            headers["date"] = formatdate(now, usegmt=True)
        vendor.script(Reply(429, headers))
        began = time.time()
        assert ask(nodes[node], prefix).status == 429
        health = nodes.health(f"cools-{node}-{vendor_ahead}", (node + 1) % 3)
        assert health["state"] == "cooling" and began + 2 <= unix(health["until"]) <= time.time() + 5
        for other in nodes:
            answer = ask(other, prefix)
            assert fault_of(answer) == (429, "upstream_rate_limit") and 1 <= int(answer.header("retry-after")) <= 5
        eventually(lambda: ask(nodes[(node + 2) % 3], prefix).status == 200, 6, 0.1)
        assert 2 <= time.time() - began <= 6


# -- figures


def test_usage_is_of_today(nodes, guarded):
    id, key = nodes.client_with_id()
    assert statuses(nodes, guarded, key) == [200] * 3
    today = lambda: datetime.now(timezone.utc).strftime("%Y-%m-%d")  # noqa: E731
    before = today()
    for node in nodes:
        usage = lambda: node.api("GET", f"/api/clients/{id}/usage").json()  # noqa: B023, E731
        days = eventually(lambda: (u := usage())["days"][0]["requests"] == 3 and u["days"], 2)
        assert days[0]["date"] in (before, today())
        assert sum(day["requests"] for day in days) == 3


@pytest.mark.parametrize("offset", [-90_000, 90_000])
def test_usage_without_limits_is_of_today_too(redis, echo, offset):
    """Redis is not asked before such a request, so that it is not from an answer that the node knows the time."""
    with SkewedNodes(redis, Clock(offset)) as nodes:
        prefix, (id, key) = nodes.map(echo.url, auth="required"), nodes.client_with_id()
        assert statuses(nodes, prefix, key) == [200]
        days = lambda: nodes[0].api("GET", f"/api/clients/{id}/usage").json()["days"]  # noqa: E731
        eventually(lambda: [day["requests"] for day in days()[:2]] == [1, 0], 2)


def test_the_cluster_has_one_history(nodes, echo):
    prefix = nodes.map(echo.url)
    began = time.time()
    for node in nodes:
        for _ in range(5):
            assert node.get(prefix + "/x").status == 200

    def seen(node):
        answer = node.get("/stats?scope=cluster").json()
        mine = [e for e in answer["endpoints"] if e["prefix"] == prefix]
        when = [unix(second["at"]) for second in answer["history"]]
        assert abs(when[-1] - time.time()) < 3
        counted = sum(s["requests"] for s, at in zip(answer["history"], when) if at >= began - 2)
        return mine and mine[0]["requests"] == 15 and counted >= 15 and mine[0]

    for node in nodes:
        endpoint = eventually(lambda: seen(node), 6, 0.2)  # noqa: B023
        assert abs(unix(endpoint["last_request_at"]) - began) < 5


# -- clocks that are set


def test_a_clock_that_is_set_while_it_runs(redis, echo):
    clock = Clock(0)
    with SkewedNodes(redis, clock, Clock(0)) as nodes:
        prefix = nodes.map(echo.url, auth="required")
        token = token_of(nodes[0], nodes.user())
        later, ended = (nodes.client(expires_at=rfc3339(time.time() + s)) for s in (1800, -60))
        limited = nodes.client(rpm=2)
        assert statuses(nodes, prefix, limited) == [200, 200]
        for offset in (7200, -86400):
            clock.set(offset)
            date = lambda: parsedate_to_datetime(nodes[0].get("/health").header("date")).timestamp()  # noqa: E731
            eventually(lambda: abs(date() - time.time() - offset) < 3, 3 * TAKEN_OVER, 0.1)  # noqa: B023
            assert statuses(nodes, prefix, token) == [200, 200]
            assert statuses(nodes, prefix, later) == [200, 200]
            assert statuses(nodes, prefix, ended) == [401, 401]
            assert statuses(nodes, prefix, limited) == [429, 429]
            assert ask(nodes[0], prefix, later, path=MESSAGES).status == 200
