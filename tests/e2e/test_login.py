"""POST /auth/login: tokens of users, the same on every node, and limits on guessing."""

import base64
import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.gateway import Gateway
from support.vendor import Vendor

SECRET = "the-secret-of-these-tests-0123456789abcdef"


@pytest.fixture(scope="module")
def nodes():
    """Two nodes on one Redis, a vendor, and a mapping that wants to know who asks."""
    from support.redis_server import Redis

    with Redis() as redis, Vendor() as vendor:
        settings = {"API_PROXY_REDIS_URL": redis.url, "API_PROXY_JWT_SECRET": SECRET}
        with Gateway(**settings) as one, Gateway(**settings) as two:
            one.map("/managed", vendor.url, auth="required")
            one.redis = two.redis = redis
            time.sleep(1)
            yield one, two


_names = iter(f"user-{n}" for n in range(1000))


@pytest.fixture
def user(nodes):
    name = next(_names)
    answer = nodes[0].api("POST", "/api/users", {"username": name, "password": "correct horse"})
    assert answer.status == 201, answer.body
    time.sleep(1)
    return name


def login(node, username, password="correct horse"):
    return node.request("POST", "/auth/login", [("Content-Type", "application/json")], json.dumps({"username": username, "password": password}).encode())


def ask(node, token):
    return node.get("/managed/v1/models", [("Authorization", f"Bearer {token}")])


def encode(data) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(header, claims, secret=SECRET, digest=hashlib.sha256) -> str:
    head = f"{encode(header)}.{encode(claims)}"
    return f"{head}.{encode(hmac.new(secret.encode(), head.encode(), digest).digest())}"


def claims_of(token) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_a_login_gives_a_token_that_opens_the_mapping(nodes, user):
    one, two = nodes
    answer = login(one, user)
    assert answer.status == 200
    data = answer.json()
    assert set(data) == {"token", "token_type", "expires_in"} and data["token_type"] == "Bearer"
    claims = claims_of(data["token"])
    assert claims["sub"] == user
    assert abs(claims["exp"] - time.time() - data["expires_in"]) < 3 and 3590 < data["expires_in"] <= 3600
    assert ask(one, data["token"]).status == 200
    assert ask(two, data["token"]).status == 200
    assert login(one, user).json()["token"] == data["token"] == login(two, user).json()["token"]


def test_other_tokens_are_401(nodes, user):
    one, _ = nodes
    token = login(one, user).json()["token"]
    claims = claims_of(token)
    hs256 = {"alg": "HS256", "typ": "JWT"}
    assert ask(one, sign(hs256, claims)).status == 200
    wrong = [
        sign({"alg": "HS384", "typ": "JWT"}, claims, digest=hashlib.sha384),
        sign({"alg": "HS512", "typ": "JWT"}, claims, digest=hashlib.sha512),
        f"{encode({'alg': 'none'})}.{encode(claims)}.",
        f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(claims)}.{token.split('.')[2]}",
        sign(hs256, {k: v for k, v in claims.items() if k != "exp"}),
        sign(hs256, {**claims, "exp": int(time.time()) - 1}),
        sign(hs256, {**claims, "sub": "nobody"}),
        sign(hs256, claims, secret=SECRET + "x"),
        token[:-8],
        "",
    ]
    for forged in wrong:
        answer = ask(one, forged)
        assert answer.status == 401 and answer.header("x-apiproxy-error") == "invalid_credentials", forged


def test_a_token_dies_with_the_password_and_the_user(nodes, user):
    one, two = nodes
    token = login(one, user).json()["token"]
    assert one.api("PUT", f"/api/users/{user}", {"password": "battery staple"}).status == 200
    assert ask(one, token).status == 401
    assert login(one, user).status == 401
    second = login(one, user, "battery staple").json()["token"]
    assert second != token and ask(one, second).status == 200
    assert one.api("PUT", f"/api/users/{user}", {"enabled": False}).status == 200
    assert ask(one, second).status == 401
    assert login(one, user, "battery staple").status in (401, 403)
    assert one.api("PUT", f"/api/users/{user}", {"enabled": True}).status == 200
    assert ask(one, second).status == 200
    assert one.api("DELETE", f"/api/users/{user}").status == 204
    assert ask(one, second).status == 401
    time.sleep(1)
    assert ask(two, second).status == 401


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"username":"a"}', b'{"username":1,"password":"x"}', b'{"username":"a","password":"b","more":1}',
             b'{"username":"a","username":"a","password":"b"}', b'{"username":"a","password":"b\\u0000"}', b'{"username":"a","password":"b\tc"}']
)
def test_bad_bodies_are_400(nodes, body):
    answer = nodes[0].request("POST", "/auth/login", [("Content-Type", "application/json")], body)
    assert answer.status == 400 and answer.json()["error"]["code"] == "bad_request"


def test_ten_wrong_ones_end_it_for_the_right_one_too(nodes, user):
    one, two = nodes
    with ThreadPoolExecutor(8) as pool:  # many at once do not slip through
        answers = list(pool.map(lambda n: login((one, two)[n % 2], user, "wrong"), range(14)))
    assert sorted(a.status for a in answers) == [401] * 10 + [429] * 4
    for node in (one, two):
        answer = login(node, user)
        assert answer.status == 429 and answer.json()["error"]["code"] == "login_limit"
        assert 1 <= int(answer.header("retry-after")) <= 60


def test_right_ones_at_once_are_not_refused(nodes, user):
    with ThreadPoolExecutor(14) as pool:
        answers = list(pool.map(lambda n: login(nodes[n % 2], user), range(14)))
    assert [a.status for a in answers] == [200] * 14
    assert len({a.json()["token"] for a in answers}) == 1


def test_streams_do_not_wait_for_hashes(nodes, user):
    """A hash takes tens of milliseconds; other requests of the node do not notice."""
    one, _ = nodes
    with ThreadPoolExecutor(4) as pool:
        logins = [pool.submit(login, one, user) for _ in range(8)]
        slowest = 0
        while not all(job.done() for job in logins):
            began = time.monotonic()
            assert one.get("/managed/v1/models").status == 401
            slowest = max(slowest, time.monotonic() - began)
    assert all(job.result().status == 200 for job in logins)
    assert slowest < 0.5


def test_without_redis_a_login_still_works_and_guesses_are_still_counted():
    from support.redis_server import Redis

    with Redis() as redis, Gateway(API_PROXY_REDIS_URL=redis.url, API_PROXY_JWT_SECRET=SECRET) as gateway:
        for name in ("ann", "bob"):
            assert gateway.api("POST", "/api/users", {"username": name, "password": "correct horse"}).status == 201
        redis.kill()
        first = login(gateway, "ann")
        assert first.status == 200
        assert login(gateway, "ann").json()["token"] == first.json()["token"]
        assert [login(gateway, "bob", "wrong").status for _ in range(10)] == [401] * 10
        assert login(gateway, "bob").status == 429
        assert login(gateway, "ann").status == 200
