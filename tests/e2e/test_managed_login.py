"""Logins and clients over several nodes."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from datetime import datetime, timezone

import pytest

from support.managed import Nodes, Timed, at_once, bearer, fault_of, key_of, login, name, statuses, token_of
from support.process import eventually
from support.vendor import Vendor


@pytest.fixture(scope="module")
def echo():
    with Vendor() as vendor:
        yield vendor


@pytest.fixture(scope="module")
def guarded(pair, echo):
    return pair.map(echo.url, auth="required")


def status(node, prefix, credential) -> int:
    return node.get(prefix + "/x", bearer(credential)).status


# -- POST /auth/login


def test_answer(pair):
    answer = login(pair[0], pair.user())
    assert answer.status == 200 and answer.header("content-type").startswith("application/json")
    data = answer.json()
    assert set(data) == {"token", "token_type", "expires_in"}
    assert data["token_type"] == "Bearer" and 3590 <= data["expires_in"] <= 3600
    assert data["token"].count(".") == 2


def test_same_token_on_every_node(pair, guarded):
    username = pair.user()
    tokens = {token_of(node, username) for node in (pair[0], pair[1], pair[0])}
    tokens |= set(at_once([lambda n=n: token_of(pair[n % 2], username) for n in range(6)]))
    assert len(tokens) == 1
    assert statuses(pair, guarded, tokens.copy().pop()) == [200, 200]


def test_another_user_has_another_token(pair):
    assert token_of(pair[0], pair.user()) != token_of(pair[0], pair.user())


def test_new_token_after_login_cache_seconds(echo):
    with Nodes(2, API_PROXY_LOGIN_CACHE_SECONDS="1", API_PROXY_TOKEN_TTL_SECONDS="4") as nodes:
        username, prefix = nodes.user(), nodes.map(echo.url, auth="required")
        first = token_of(nodes[0], username)
        began = time.monotonic()
        eventually(lambda: token_of(nodes[1], username) != first, 4, 0.2)
        assert status(nodes[1], prefix, first) == 200, "the old token is good until it expires"
        eventually(lambda: status(nodes[0], prefix, first) == 401, 6, 0.2)
        assert 2.5 <= time.monotonic() - began <= 6


def test_no_cache(echo):
    with Nodes(1, API_PROXY_LOGIN_CACHE_SECONDS="0") as nodes:
        username, prefix = nodes.user(), nodes.map(echo.url, auth="required")
        for token in (token_of(nodes[0], username), token_of(nodes[0], username)):
            assert status(nodes[0], prefix, token) == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"{}", b'{"username":"a"}', b'{"password":"a"}', b'{"username":1,"password":"a"}', b'{"username":"a","password":null}']
)
def test_malformed_logins(pair, body):
    answer = pair[0].request("POST", "/auth/login", [("Content-Type", "application/json")], body)
    assert answer.status == 400 and answer.json()["error"]["code"] == "bad_request" and answer.json()["error"]["message"]


def test_wrong_verb(pair):
    assert pair[0].get("/auth/login").status == 405


def test_wrong_logins(pair):
    username = pair.user()
    for name_, password in ((username, "wrong"), (username, ""), ("nobody", "pass word"), (username.upper(), "pass word")):
        answer = login(pair[0], name_, password)
        assert (answer.status, answer.json()["error"]["code"]) == (401, "invalid_credentials")


def test_token_of_a_deleted_user(pair, guarded):
    username = pair.user()
    token = token_of(pair[0], username)
    assert statuses(pair, guarded, token) == [200, 200]
    assert pair[0].api("DELETE", f"/api/users/{username}").status == 204
    assert status(pair[0], guarded, token) == 401
    eventually(lambda: status(pair[1], guarded, token) == 401, 1)


def test_token_of_a_user_who_was_made_anew(pair, guarded):
    username = pair.user()
    token = token_of(pair[0], username)
    assert pair[0].api("DELETE", f"/api/users/{username}").status == 204
    pair.add("users", {"username": username, "password": "pass word"}, f"/api/users/{username}")
    assert status(pair[0], guarded, token) == 401


def test_token_of_a_disabled_user(pair, guarded):
    username = pair.user()
    token = token_of(pair[0], username)
    assert status(pair[1], guarded, token) == 200
    assert pair[0].api("PUT", f"/api/users/{username}", {"enabled": False}).status == 200
    assert status(pair[0], guarded, token) == 401
    eventually(lambda: status(pair[1], guarded, token) == 401, 1)
    assert login(pair[0], username).status == 401
    pair.change(f"/api/users/{username}", enabled=True)
    assert login(pair[1], username).status == 200


def test_token_of_a_user_with_a_new_password(pair, guarded):
    username = pair.user()
    token = token_of(pair[0], username)
    assert status(pair[1], guarded, token) == 200
    assert pair[0].api("PUT", f"/api/users/{username}", {"password": "new"}).status == 200
    assert status(pair[0], guarded, token) == 401
    eventually(lambda: status(pair[1], guarded, token) == 401, 1)
    assert login(pair[1], username).status == 401
    fresh = token_of(pair[1], username, "new")
    assert fresh != token and statuses(pair, guarded, fresh) == [200, 200]


def test_token_outlives_a_change_of_limits(pair, guarded):
    username = pair.user()
    token = token_of(pair[0], username)
    pair.change(f"/api/users/{username}", rpm=1000)
    assert status(pair[0], guarded, token) == 200


# -- a user's own end


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat()


def end_of(token: str) -> int:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["exp"]


@pytest.mark.parametrize("at", ["2001-02-03T04:05:06Z", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.5Z"])
def test_user_expired_long_ago(pair, guarded, at):
    username = pair.user()
    token = token_of(pair[0], username)
    pair.change(f"/api/users/{username}", expires_at=at)
    assert statuses(pair, guarded, token) == [401, 401]
    for node in pair:
        assert fault_of(node.get(guarded + "/x", bearer(token))) == (401, "invalid_credentials")
        answer = login(node, username)
        assert (answer.status, answer.json()["error"]["code"]) == (401, "invalid_credentials")
    pair.change(f"/api/users/{username}", expires_at=None)
    assert statuses(pair, guarded, token) == [200, 200]
    assert login(pair[1], username).status == 200


def test_user_ends_with_its_token(pair, guarded):
    ends = int(time.time()) + 4
    username = pair.user(expires_at=rfc3339(ends))
    answer = login(pair[0], username).json()
    token, left = answer["token"], ends - time.time()
    assert end_of(token) == ends and left <= answer["expires_in"] <= left + 2
    assert token_of(pair[1], username) == token
    assert statuses(pair, guarded, token) == [200, 200]
    time.sleep(max(0, ends + 0.1 - time.time()))
    assert statuses(pair, guarded, token) == [401, 401]
    assert [login(node, username).status for node in pair] == [401, 401]


def test_login_gives_no_token_of_before_that_lasts_too_long(pair, guarded):
    """The same token comes again for a while, but not beyond an end that was set, or brought forward, since."""
    username = pair.user()
    first = token_of(pair[0], username)
    for seconds in (100, 50, 200):
        ends = int(time.time()) + seconds
        pair.change(f"/api/users/{username}", expires_at=rfc3339(ends + 0.75))
        answers = [login(node, username).json() for node in pair]
        assert {end_of(answer["token"]) for answer in answers} == {ends}
        assert len({answer["token"] for answer in answers}) == 1
        assert all(ends - time.time() - 1 <= answer["expires_in"] <= seconds for answer in answers)
    assert status(pair[0], guarded, first) == 200, "the user has not ended yet"
    pair.change(f"/api/users/{username}", expires_at=rfc3339(time.time() - 0.5))
    assert statuses(pair, guarded, first) == [401, 401]


def test_secret_is_shared_and_kept(redis_server, echo):
    """A node that comes later reads the tokens of the first; so does one that starts again."""
    with Nodes(1, redis_server) as first:
        username, prefix = first.user(), first.map(echo.url, auth="required")
        token = token_of(first[0], username)
    with Nodes(1, redis_server) as later:
        assert status(later[0], prefix, token) == 200


def test_logins_stall_no_stream(pair, echo):
    """Hashing takes tens of milliseconds, elsewhere than where requests move."""
    plain, username = pair.map(echo.url), pair.user()
    hashing = [Timed(lambda: at_once([lambda: login(pair[0], username)] * 20, 20)) for _ in range(1)]
    client, slow = pair[0].connect(), []
    while hashing[0].thread.is_alive():
        began = time.monotonic()
        assert client.request("GET", plain + "/x").status == 200
        slow.append(time.monotonic() - began)
    assert [a.status for a in hashing[0].get()] == [200] * 20
    assert sorted(slow)[len(slow) // 2] < 0.1


# -- limits of logins


def check_limited(answer):
    assert answer.status == 429 and answer.json()["error"]["code"] == "login_limit"
    assert 1 <= int(answer.header("retry-after")) <= 60


def test_ten_wrong_logins_of_a_user_over_all_nodes():
    with Nodes(2) as nodes:
        username, other = nodes.user(), nodes.user()
        for n in range(9):
            assert login(nodes[n % 2], username, "wrong").status == 401
        assert login(nodes[0], username).status == 200, "nine wrong ones shut nobody out"
        assert login(nodes[1], username, "wrong").status == 401
        for node in nodes:
            check_limited(login(node, username, "wrong"))
            check_limited(login(node, username))
            assert login(node, other).status == 200


AWAY = {
    "refuses": lambda redis: redis.client.execute_command("ACL", "SETUSER", "default", "-eval"),
    "hangs": lambda redis: redis.freeze(),
}
BACK = {
    "refuses": lambda redis: redis.client.execute_command("ACL", "SETUSER", "default", "+eval"),
    "hangs": lambda redis: redis.thaw(),
}


@pytest.mark.parametrize("how", AWAY)
def test_wrong_logins_while_redis_is_away_count_when_it_is_back(how):
    """All nodes hear of them, each of them once, as old as they are."""
    with Nodes(2) as nodes:
        username, other, third = nodes.user(), nodes.user(), nodes.user()
        assert [login(nodes[n % 2], username, "wrong").status for n in range(6)] == [401] * 6
        AWAY[how](nodes.redis)
        assert [login(nodes[0], username, "wrong").status for _ in range(7)] == [401] * 7, "of which it has seen ten now"
        check_limited(login(nodes[0], username, "wrong"))
        assert [login(nodes[0], third, "wrong").status for _ in range(3)] == [401] * 3
        time.sleep(1)
        BACK[how](nodes.redis)
        eventually(lambda: login(nodes[0], other).status == 200, 3)
        for node in nodes:
            check_limited(login(node, username, "wrong"))
            check_limited(login(node, username))
        assert int(login(nodes[1], username).header("retry-after")) < 60
        assert [login(nodes[n % 2], third, "wrong").status for n in range(7)] == [401] * 7
        for node in nodes:
            check_limited(login(node, third))


def test_limit_holds_against_parallel_guesses():
    with Nodes(2) as nodes:
        username = nodes.user()
        answers = at_once([lambda n=n: login(nodes[n % 2], username, f"guess {n}").status for n in range(30)], 30)
        assert answers.count(401) == 10 and answers.count(429) == 20


def test_limit_of_a_name_that_nobody_has():
    with Nodes(1) as nodes:
        stranger = name("stranger")
        assert [login(nodes[0], stranger, "x").status for _ in range(11)] == [401] * 10 + [429]


def test_hundred_wrong_logins_of_an_address():
    with Nodes(2) as nodes:
        username = nodes.user()
        answers = at_once([lambda n=n: login(nodes[n % 2], f"guess{n}", "x").status for n in range(100)], 8)
        assert answers == [401] * 100
        for node in nodes:
            check_limited(login(node, "one-more", "x"))
            check_limited(login(node, username))


# -- clients


def test_client_on_all_nodes(pair, guarded):
    id, key = pair.client_with_id()
    assert statuses(pair, guarded, key) == [200, 200]
    answer = pair[1].api("POST", f"/api/clients/{id}/rotate")
    assert answer.status == 200
    fresh = answer.json()["key"]
    assert (status(pair[1], guarded, key), status(pair[1], guarded, fresh)) == (401, 200)
    eventually(lambda: status(pair[0], guarded, fresh) == 200, 1)
    assert status(pair[0], guarded, key) == 401
    assert pair[1].api("DELETE", f"/api/clients/{id}").status == 204
    assert status(pair[1], guarded, fresh) == 401
    eventually(lambda: status(pair[0], guarded, fresh) == 401, 1)


def test_only_the_hash_of_a_key_is_in_redis(pair, guarded):
    id, key = pair.client_with_id(name="Shop")
    assert status(pair[0], guarded, key) == 200
    assert json.loads(pair.redis.client.hget("apiproxy:clients", hashlib.sha256(key.encode()).hexdigest()))["id"] == id
    client = pair.redis.client
    for stored in client.scan_iter(count=1000):
        kind = client.type(stored)
        raw = client.hgetall(stored) if kind == "hash" else stored
        assert key not in str(raw) and key not in stored


def test_keys_are_random(pair):
    keys = [pair.client() for _ in range(5)]
    assert len(set(keys)) == 5
    assert all(k.startswith("sk-ap-") and len(k) >= 6 + 43 for k in keys)


def test_rotation_keeps_the_limits_used(pair, guarded):
    id, key = pair.client_with_id(rpm=2)
    assert status(pair[0], guarded, key) == 200
    fresh = pair[0].api("POST", f"/api/clients/{id}/rotate").json()["key"]
    assert status(pair[0], guarded, fresh) == 200
    assert status(pair[0], guarded, fresh) == 429


def test_document_with_a_hash(redis_server, echo):
    key = key_of("chosen")
    with Nodes(1, redis_server) as nodes:
        document = {"mappings": [{"prefix": "/d", "target": echo.url, "auth": "required"}], "keys": [], "users": []}
        document["clients"] = [{"id": "given", "key_sha256": hashlib.sha256(key.encode()).hexdigest()}]
        answer = nodes[0].api("PUT", "/api/config", document)
        assert answer.status == 200 and key not in answer.body.decode()
        assert status(nodes[0], "/d", key) == 200


def test_mapping_turned_managed_while_it_runs(pair, echo):
    prefix = pair.map(echo.url)
    assert pair[1].get(prefix + "/x").status == 200
    pair.change("/api/mappings" + prefix, auth="required")
    assert fault_of(pair[1].get(prefix + "/x")) == (401, "invalid_credentials")
    pair.change("/api/mappings" + prefix, auth="none")
    assert pair[1].get(prefix + "/x").status == 200


def test_disabled_mapping_is_404(pair, echo):
    prefix = pair.map(echo.url, auth="required")
    pair.change("/api/mappings" + prefix, enabled=False)
    assert fault_of(pair[1].get(prefix + "/x")) == (404, "no_mapping")
