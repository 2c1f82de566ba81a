"""Changes that come while a request is under way: it waits in a queue, for its own body, for an answer that does not do,
or goes once more. What goes to a vendor goes as the configuration is then."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

from support.managed import Held, Nodes, Timed, bearer, fault_of, name, token_of
from support.process import eventually
from support.vendor import Reply, Vendor
from support.wire import request_bytes

WAIT = 1.3  # of the first in a queue, in which the second waits twice as long
GONE = (503, "no_upstream_key")
LAST = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nlast"


@pytest.fixture
def other():
    with Vendor() as simulator:
        yield simulator


def rfc3339(seconds: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def remove(node, path: str):
    assert node.api("DELETE", "/api" + path).status == 204


def put(node, path: str, **fields):
    answer = node.api("PUT", "/api" + path, fields)
    assert answer.status == 200, answer.body


def post(node, section: str, **fields) -> dict:
    answer = node.api("POST", f"/api/{section}", fields)
    assert answer.status == 201, answer.body
    return answer.json()


def secrets(vendor) -> list[str | None]:
    """What each request brought in the vendor key's place, the one that made the others wait left out."""
    found = [r.header("authorization") for r in vendor.received if r.path != "/first"]
    return [value and value.removeprefix("Bearer ") for value in found]


class Setting:
    """A mapping with a pool of so many keys."""

    def __init__(self, nodes, vendor, keys: int = 1, queue: bool = True, **more):
        self.nodes, self.vendor, self.keys = nodes, vendor, [name("fresh") for _ in range(keys)]
        self.pool = nodes.pool(*self.keys)
        if queue:
            more["queue"] = {"rate_per_second": 1 / WAIT, "capacity": 9, "timeout_seconds": 20}
        self.prefix = nodes.map(vendor.url, pool=self.pool, **more)

    def fill(self, credential: str | None = None):
        """The next one waits."""
        self.nodes[0].get(self.prefix + "/first", bearer(credential) if credential else [])

    def wait(self, credential: str | None = None, path: str = "/x") -> Held:
        held = Held(self.nodes[0], self.prefix, credential, path)
        assert held.client.silent(0.05)
        return held


# -- the vendor key of one that waits in a queue


def delete_key(node, s):
    remove(node, f"/keys/{s.keys[0]}")


def disable_key(node, s):
    put(node, f"/keys/{s.keys[0]}", enabled=False)


def move_key(node, s):
    put(node, f"/keys/{s.keys[0]}", pool=name("elsewhere"))


def replace_secret(node, s):
    put(node, f"/keys/{s.keys[0]}", key="secret-new")


def change_pool(node, s):
    post(node, "keys", id=name("key"), pool=s.pool + "b", key="secret-of-b")
    put(node, "/mappings" + s.prefix, pool=s.pool + "b")


def unset_pool(node, s):
    put(node, "/mappings" + s.prefix, pool=None)


def unset_queue_and_delete_key(node, s):
    remove(node, f"/keys/{s.keys[0]}")
    put(node, "/mappings" + s.prefix, queue=None)


KEY_CHANGES = [
    (delete_key, GONE, []),
    (disable_key, GONE, []),
    (move_key, GONE, []),
    (unset_queue_and_delete_key, GONE, []),
    (replace_secret, (200, None), ["secret-new"]),
    (change_pool, (200, None), ["secret-of-b"]),
    (unset_pool, (200, None), [None]),
]


@pytest.mark.parametrize("change, fault, sent", KEY_CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_who_waits_gets_a_key_of_now(pair, vendor, change, fault, sent):
    s = Setting(pair, vendor)
    s.fill()
    waiting = s.wait()
    change(pair[0], s)
    assert fault_of(waiting.answer()) == fault
    assert secrets(vendor) == sent


def test_a_change_on_another_node_is_for_who_waits_here(pair, vendor):
    s = Setting(pair, vendor)
    s.fill()
    waiting = [s.wait(), s.wait()]
    time.sleep(0.2)  # the second waits for more than a second yet
    replace_secret(pair[1], s)
    assert [w.answer().status for w in waiting] == [200, 200]
    assert secrets(vendor)[1] == "secret-new"


def test_who_waits_gets_a_key_that_was_added(pair, vendor):
    s = Setting(pair, vendor)
    s.fill()
    delete_key(pair[0], s)
    waiting = s.wait()
    post(pair[0], "keys", id=name("late"), pool=s.pool, key="secret-late")
    assert waiting.answer().status == 200
    assert secrets(vendor) == ["secret-late"]


def test_who_waits_goes_to_the_target_of_now(pair, vendor, other):
    """And the new pool's key nowhere else."""
    s = Setting(pair, vendor)
    s.fill()
    waiting = s.wait(path="/x?y")
    post(pair[0], "keys", id=name("key"), pool=s.pool + "b", key="secret-of-b")
    put(pair[0], "/mappings" + s.prefix, pool=s.pool + "b", target=other.url + "/base", key_header="api-key")
    assert waiting.answer().status == 200
    assert secrets(vendor) == []
    (received,) = other.received
    assert (received.target, received.header("api-key")) == ("/base/x?y", "secret-of-b")
    assert received.header("host") == other.url.removeprefix("http://")


def test_who_said_who_he_is_does_not_say_so_to_a_vendor(pair, vendor):
    """Not even where the mapping asks nobody any more, and has no key to put in."""
    s = Setting(pair, vendor, auth="required")
    key = pair.client()
    s.fill(key)
    waiting = s.wait(key)
    put(pair[0], "/mappings" + s.prefix, pool=None, auth=None)
    assert waiting.answer().status == 200
    assert key not in vendor.received[-1].raw.decode()


@pytest.mark.parametrize("policy", ["local", "allow"])
def test_without_redis_who_waits_gets_a_key_of_now(vendor, policy):
    with Nodes(1, API_PROXY_ON_REDIS_FAILURE=policy) as nodes:
        s = Setting(nodes, vendor, keys=2)
        s.fill()
        waiting = s.wait()
        replace_secret(nodes[0], s)
        remove(nodes[0], f"/keys/{s.keys[1]}")
        nodes.redis.kill()
        assert waiting.answer().status == 200
        assert secrets(vendor) == ["secret-new"]


# -- who waits


def expire_client(node, id):
    put(node, f"/clients/{id}", expires_at=rfc3339(0.2))


def disable_client(node, id):
    put(node, f"/clients/{id}", enabled=False)


def rotate_client(node, id):
    assert node.api("POST", f"/api/clients/{id}/rotate").status == 200


def send_client_elsewhere(node, id):
    put(node, f"/clients/{id}", mappings=["/elsewhere"])


def delete_client(node, id):
    remove(node, f"/clients/{id}")


CLIENT_CHANGES = [delete_client, disable_client, expire_client, rotate_client, send_client_elsewhere]


@pytest.mark.parametrize("change", CLIENT_CHANGES)
def test_a_client_who_waits_is_looked_at_again(pair, vendor, change):
    s = Setting(pair, vendor, auth="required")
    id, key = pair.client_with_id(rpm=100)
    s.fill(key)
    waiting = s.wait(key)
    change(pair[0], id)
    answer = waiting.answer()
    new = pair[0].get(s.prefix + "/x", bearer(key))
    assert fault_of(answer) == fault_of(new) and answer.status in (401, 403)
    assert answer.header("www-authenticate") == new.header("www-authenticate")
    assert answer.header("retry-after") is None
    assert secrets(vendor) == []


def delete_user(node, username):
    remove(node, f"/users/{username}")


def disable_user(node, username):
    put(node, f"/users/{username}", enabled=False)


def change_password(node, username):
    put(node, f"/users/{username}", password="another one")


def send_user_elsewhere(node, username):
    put(node, f"/users/{username}", mappings=["/elsewhere"])


@pytest.mark.parametrize("change", [delete_user, disable_user, change_password, send_user_elsewhere])
def test_a_user_who_waits_is_looked_at_again(pair, vendor, change):
    s = Setting(pair, vendor, auth="required")
    username = pair.user()
    token = token_of(pair[0], username)
    s.fill(token)
    waiting = s.wait(token)
    change(pair[0], username)
    answer = waiting.answer()
    assert fault_of(answer) == fault_of(pair[0].get(s.prefix + "/x", bearer(token))) and answer.status in (401, 403)
    assert secrets(vendor) == []


def test_a_client_may_expire_while_he_waits(pair, vendor):
    s = Setting(pair, vendor, auth="required")
    key = pair.client(expires_at=rfc3339(1))
    s.fill(pair.client())
    assert fault_of(s.wait(key).answer()) == (401, "invalid_credentials")
    assert secrets(vendor) == []


def test_a_mapping_may_begin_to_ask(pair, vendor):
    s = Setting(pair, vendor)
    s.fill()
    waiting = [s.wait(), s.wait(pair.client())]
    put(pair[0], "/mappings" + s.prefix, auth="required")
    assert [fault_of(w.answer()) for w in waiting] == [(401, "invalid_credentials"), (200, None)]


def test_what_he_had_taken_is_given_back(pair, vendor):
    s = Setting(pair, vendor, auth="required")
    id, key = pair.client_with_id(rpm=10, input_tpm=1000, max_concurrency=1)
    s.fill(pair.client())
    waiting = s.wait(key)
    disable_client(pair[0], id)
    assert fault_of(waiting.answer()) == (403, "not_allowed")
    put(pair[0], f"/clients/{id}", enabled=True)
    answer = pair[0].get(s.prefix + "/x", bearer(key))
    assert answer.status == 200
    assert answer.header("x-apiproxy-remaining-requests") == "9"


def test_his_start_is_the_next_ones(pair, vendor):
    """Who comes behind three who are sent away does not wait for their starts, and their places are free."""
    s = Setting(pair, vendor, auth="required")
    id, key = pair.client_with_id()
    mine = pair.client()
    s.fill(mine)
    began = time.monotonic()
    gone = [s.wait(key) for _ in range(3)]
    waiting = [s.wait(mine), s.wait(mine)]
    delete_client(pair[0], id)
    assert [fault_of(w.answer()) for w in gone] == [(401, "invalid_credentials")] * 3
    assert [w.answer().status for w in waiting] == [200, 200]
    assert 1.7 * WAIT < time.monotonic() - began < 4 * WAIT, "one after the other, and at once"
    assert not pair.redis.client.zcount(f"apiproxy:limit:{{{s.prefix}}}:q:w", time.time() * 1000 + 50, "+inf")


# -- another key


class Failing:
    """A request whose first attempt fails when it is told to."""

    def __init__(self, setting: Setting, credential: str | None = None):
        self.fail = threading.Event()
        setting.vendor.script(lambda connection, received: (self.fail.wait(10), connection.send(LAST)))
        fields = bearer(credential) if credential else []
        self.request = Timed(lambda: setting.nodes[0].request("POST", setting.prefix + "/x", fields, b"{}"))
        first = setting.vendor.wait(1)[0].header("authorization").removeprefix("Bearer secret-")
        self.tried = first
        (self.left,) = [key for key in setting.keys if key != first] or [None]

    def answer(self):
        self.fail.set()
        return self.request.get()


def failing(pair, vendor, keys: int = 2, **more) -> tuple[Setting, Failing]:
    setting = Setting(pair, vendor, keys=keys, queue=False, **more)
    return setting, Failing(setting)


@pytest.mark.parametrize("how", ["deleted", "disabled", "moved"])
@pytest.mark.parametrize("on", [0, 1])
def test_the_next_key_is_none_that_is_gone(pair, vendor, on, how):
    s, f = failing(pair, vendor)
    path = f"/keys/{f.left}"
    if how == "deleted":
        remove(pair[on], path)
    else:
        put(pair[on], path, **({"enabled": False} if how == "disabled" else {"pool": name("elsewhere")}))
    time.sleep(1 if on else 0)
    answer = f.answer()
    assert (answer.status, answer.body) == (500, b"last")
    assert secrets(vendor) == ["secret-" + f.tried]


def test_the_next_key_has_the_secret_of_now(pair, vendor):
    s, f = failing(pair, vendor)
    put(pair[0], f"/keys/{f.left}", key="secret-new")
    assert f.answer().status == 200
    assert secrets(vendor) == ["secret-" + f.tried, "secret-new"]


def test_the_next_key_may_have_been_added(pair, vendor):
    """Before the one that was tried, in the pool's order and after it: that one is not tried again."""
    s, f = failing(pair, vendor)
    remove(pair[0], f"/keys/{f.left}")
    for id in ("0" + name("added"), "z" + name("added")):
        post(pair[0], "keys", id=id, pool=s.pool, key="secret-added")
    vendor.script(Reply(500), Reply(502))
    assert f.answer().status == 502
    assert secrets(vendor) == ["secret-" + f.tried, "secret-added", "secret-added"]


def test_the_key_that_was_tried_is_tried_with_a_new_secret(pair, vendor):
    s, f = failing(pair, vendor, keys=1)
    put(pair[0], f"/keys/{f.tried}", key="secret-new")
    assert f.answer().status == 200
    assert secrets(vendor) == ["secret-" + f.tried, "secret-new"]


def test_what_the_key_did_is_said_of_it(pair, vendor):
    """Though its pool is not the mapping's any more."""
    s, f = failing(pair, vendor, keys=1)
    vendor.script(Reply(429))
    post(pair[0], "keys", id=name("key"), pool=s.pool + "b", key="secret-of-b")
    put(pair[0], "/mappings" + s.prefix, pool=s.pool + "b")
    f.fail.set()
    assert f.request.get().status == 429
    assert secrets(vendor) == ["secret-" + f.tried, "secret-of-b"]
    for _ in range(2):
        vendor.script(Reply(500))
        put(pair[0], "/mappings" + s.prefix, pool=s.pool)
        assert pair[0].get(s.prefix + "/x").status == 500
    eventually(lambda: pair.health(f.tried)["state"] == "cooling", 2)


def test_the_next_key_goes_to_the_target_of_now(pair, vendor, other):
    s, f = failing(pair, vendor)
    post(pair[0], "keys", id=name("key"), pool=s.pool + "b", key="secret-of-b")
    put(pair[0], "/mappings" + s.prefix, pool=s.pool + "b", target=other.url)
    assert f.answer().status == 200
    assert secrets(vendor) == ["secret-" + f.tried] and secrets(other) == ["secret-of-b"]


@pytest.mark.parametrize("fields", [{"enabled": False}, {"pool": None}, {"pool": "nobody-has-this"}])
def test_without_a_mapping_or_a_pool_there_is_no_next_key(pair, vendor, fields):
    s, f = failing(pair, vendor)
    put(pair[0], "/mappings" + s.prefix, **fields)
    assert f.answer().body == b"last"
    assert len(vendor.received) == 1


@pytest.mark.parametrize("change", CLIENT_CHANGES)
def test_there_is_no_next_key_for_who_may_not_ask_any_more(pair, vendor, change):
    id, key = pair.client_with_id(rpm=100, max_concurrency=1)
    s = Setting(pair, vendor, keys=2, queue=False, auth="required")
    f = Failing(s, key)
    change(pair[0], id)
    time.sleep(0.3)
    assert f.answer().body == b"last"
    assert len(vendor.received) == 1


@pytest.mark.parametrize("policy", ["local", "allow"])
def test_without_redis_the_next_key_is_one_of_now(vendor, policy):
    with Nodes(1, API_PROXY_ON_REDIS_FAILURE=policy) as nodes:
        s, f = failing(nodes, vendor, keys=2)
        put(nodes[0], f"/keys/{f.left}", key="secret-new")
        nodes.redis.kill()
        assert f.answer().status == 200
        assert secrets(vendor) == ["secret-" + f.tried, "secret-new"]


def test_many_changes_between_many_keys(pair, vendor):
    """Of a pool of more than 64 keys each is tried once, wherever it stands by then."""
    s, f = failing(pair, vendor, keys=1)
    keys = [f"{n:03}{s.pool}" for n in range(80)]
    for n, id in enumerate(keys):
        post(pair[0], "keys", id=id, pool=s.pool, key=f"s{n}")

    def fail(connection, received):
        if len(vendor.received) % 9 == 0:
            remove(pair[0], f"/keys/{keys.pop(0)}")
        connection.send(LAST)

    vendor.script(*[fail] * 81)
    assert f.answer().body == b"last"
    sent = secrets(vendor)
    assert len(sent) == len(set(sent)) and 70 <= len(sent) <= 81


# -- a body that takes its time, and a connection that had ended


@pytest.fixture
def slow_body(pair, vendor):
    """A request whose admission waits for its body: the setting, its client's id, its connection."""
    s = Setting(pair, vendor, queue=False, auth="required")
    id, key = pair.client_with_id(output_tpm=10_000)
    client = pair[0].connect()
    client.send(request_bytes("POST", s.prefix + "/x", [*bearer(key), ("Content-Length", "10")]) + b"01234")
    time.sleep(0.1)
    return s, id, client


@pytest.mark.parametrize("change, fault, sent", KEY_CHANGES[:1] + KEY_CHANGES[4:6], ids=lambda value: getattr(value, "__name__", ""))
def test_a_key_of_now_for_a_slow_body(pair, vendor, slow_body, change, fault, sent):
    s, _, client = slow_body
    change(pair[0], s)
    client.send(b"56789")
    assert fault_of(client.read_response()) == fault
    assert secrets(vendor) == sent


@pytest.mark.parametrize("change", CLIENT_CHANGES)
def test_who_has_a_slow_body_is_looked_at_again(pair, vendor, slow_body, change):
    _, id, client = slow_body
    change(pair[0], id)
    time.sleep(0.3)
    client.send(b"56789")
    assert client.read_response().status in (401, 403)
    assert secrets(vendor) == []


@pytest.mark.parametrize("change, fault, sent", KEY_CHANGES[:1] + KEY_CHANGES[4:6], ids=lambda value: getattr(value, "__name__", ""))
def test_what_goes_once_more_goes_with_a_key_of_now(pair, server, change, fault, sent):
    ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    s = Setting(pair, server, queue=False)
    client = pair[0].connect()
    client.send(request_bytes("GET", s.prefix + "/x"))
    upstream = server.accept()
    upstream.read_head()
    upstream.send(ok)
    assert client.read_response().status == 200
    client.send(request_bytes("GET", s.prefix + "/x"))
    upstream.read_head()
    change(pair[0], s)
    upstream.close()
    for secret in sent:
        upstream = server.accept()
        assert upstream.read_head().get("authorization") == "Bearer " + secret
        upstream.send(ok)
    assert fault_of(client.read_response()) == fault
    assert not server.pending(0.1)
