"""Configuration in Redis, changed there and by other nodes; and Redis in trouble."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from support.gateway import Gateway
from support.names import known
from support.process import children, command_name, eventually
from support.redis_server import Redis

pytestmark = pytest.mark.concurrency

MAPPINGS = "apiproxy:mappings"


def node(redis_server, **settings):
    return Gateway(API_PROXY_REDIS_URL=redis_server.url, **settings)


def status(gateway, path: str) -> int:
    return gateway.get(path).status


# -- where Redis is


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
@pytest.mark.parametrize("password", ["", "pass-word"])
def test_ways_to_redis(authority, vendor, transport, password):
    with Redis(transport, password, authority=authority) as server:
        with node(server, SSL_CERT_FILE=str(authority.bundle), CURL_CA_BUNDLE=str(authority.bundle)) as gateway:
            gateway.map("/way", vendor.url)
            assert status(gateway, "/way/") == 200
            assert server.client.hget(MAPPINGS, "/way") == vendor.url
            assert gateway.get("/health").json()["redis"] == "ok"


# Nobody listens at the first one. (A preloaded library and a sanitizer's runtime do not go together: timing.)
@pytest.mark.timing
@pytest.mark.parametrize("addresses", ["::1 127.0.0.1", "127.0.0.3 127.0.0.2 127.0.0.1"])
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_name_with_several_addresses(authority, vendor, transport, addresses):
    with Redis(transport, authority=authority) as server:
        more = {"SSL_CERT_FILE": str(authority.bundle), **known("localhost", addresses)}
        url = server.url.replace("127.0.0.1", "localhost")
        with Gateway(API_PROXY_REDIS_URL=url, API_PROXY_WORKERS="1", **more) as gateway:
            gateway.map("/way", vendor.url, auth="required")
            client = gateway.api("POST", "/api/clients", {"id": "c", "rpm": 2}).json()
            assert server.client.keys(MAPPINGS)
            for _ in range(2):
                answers = [gateway.get("/way/", [("x-api-key", client["key"])]).status for _ in range(3)]
                assert answers == [200, 200, 429]
                assert server.client.exists("apiproxy:limit:{c}:c"), "limits are kept in Redis, not by the node alone"
                assert gateway.get("/health").json()["redis"] == "ok"
                server.kill()
                eventually(lambda: gateway.get("/health").json()["redis"] == "down", 5)
                server.start()
                eventually(lambda: gateway.get("/health").json()["redis"] == "ok", 5)
                client = gateway.api("POST", "/api/clients/c/rotate").json()


def test_database_number(vendor):
    with Redis("tcp", database=3) as server, node(server) as gateway:
        gateway.map("/way", vendor.url)
        assert server.client.hexists(MAPPINGS, "/way")


def test_no_child_where_redis_is_given(redis_server):
    with node(redis_server) as gateway:
        assert not [c for c in children(gateway.pid) if command_name(c).startswith("redis")]


def test_password_of_redis_is_never_shown(vendor):
    with Redis("tcp", "hidden-word") as server:
        with node(server, API_PROXY_LOG_LEVEL="debug") as gateway:
            server.kill()
            eventually(lambda: gateway.get("/health").json()["redis"] != "ok", 5)
            said = gateway.api("GET", "/errors").body.decode()
        assert "hidden-word" not in gateway.output + said


# -- what is stored


def test_stored_form(redis_server, vendor):
    with node(redis_server) as gateway:
        gateway.map("/plain", vendor.url)
        gateway.map("/more", vendor.url, timeout_seconds=7)
        assert redis_server.client.hget(MAPPINGS, "/plain") == vendor.url
        stored = json.loads(redis_server.client.hget(MAPPINGS, "/more"))
        assert (stored["target"], stored["timeout_seconds"]) == (vendor.url, 7)
        gateway.unmap("/plain")
        assert not redis_server.client.hexists(MAPPINGS, "/plain")


def test_changes_are_published(redis_server, vendor):
    with node(redis_server) as gateway:
        listener = redis_server.client.pubsub()
        listener.subscribe("apiproxy:changed")
        assert listener.get_message(timeout=2)["type"] == "subscribe"
        gateway.map("/told", vendor.url)
        message = eventually(lambda: listener.get_message(timeout=0.1), 3)
        assert message["data"] == MAPPINGS
        listener.close()


# -- changes from elsewhere


def test_other_nodes_follow_within_a_second(redis_server, vendor):
    with node(redis_server) as one, node(redis_server) as two:
        one.map("/both", vendor.url)
        assert status(one, "/both/") == 200
        eventually(lambda: status(two, "/both/") == 200, 1)
        two.unmap("/both")
        assert status(two, "/both/") == 404
        eventually(lambda: status(one, "/both/") == 404, 1)


def test_raw_hset_is_noticed_with_notifications(vendor):
    with Redis(notifications=True) as server, node(server) as gateway:
        server.client.hset(MAPPINGS, "/raw", vendor.url)
        eventually(lambda: status(gateway, "/raw/") == 200, 1)
        server.client.hdel(MAPPINGS, "/raw")
        eventually(lambda: status(gateway, "/raw/") == 404, 1)


def test_raw_hset_is_noticed_without_notifications(vendor):
    with Redis() as server, node(server) as gateway:
        server.client.config_set("notify-keyspace-events", "")
        server.client.hset(MAPPINGS, "/raw", vendor.url)
        eventually(lambda: status(gateway, "/raw/") == 200, 5)


def test_publish_is_enough(vendor):
    with Redis() as server, node(server) as gateway:
        server.client.config_set("notify-keyspace-events", "")
        server.client.hset(MAPPINGS, "/raw", vendor.url)
        server.client.publish("apiproxy:changed", MAPPINGS)
        eventually(lambda: status(gateway, "/raw/") == 200, 1)


def test_json_value_set_by_hand(redis_server, vendor, server):
    with node(redis_server) as gateway:
        value = {"target": server.url, "timeout_seconds": 1, "a_field_of_the_future": [1, 2]}
        redis_server.client.hset(MAPPINGS, "/json", json.dumps(value))
        redis_server.client.publish("apiproxy:changed", MAPPINGS)
        eventually(lambda: gateway.api("GET", "/api/mappings/json").status == 200, 2)
        eventually(lambda: status(gateway, "/json/") == 504, 3)


@pytest.mark.parametrize("prefix,value", [("/bad", "ftp://h"), ("/bad", ""), ("/bad", "{"), ("/bad", '{"target":5}'), ("/bad", "\x00\xff"), ("no-slash", "http://h"), ("/admin", "http://h"), ("/a/../b", "http://h")])
def test_bad_value_is_reported_and_skipped(redis_server, vendor, prefix, value):
    with node(redis_server) as gateway:
        redis_server.client.hset(MAPPINGS, prefix, value)
        redis_server.client.hset(MAPPINGS, "/good", vendor.url)
        redis_server.client.publish("apiproxy:changed", MAPPINGS)
        eventually(lambda: status(gateway, "/good/") == 200, 2)
        assert prefix not in [m["prefix"] for m in gateway.api("GET", "/api/mappings").json()["mappings"]]
        eventually(lambda: prefix in gateway.api("GET", "/errors").body.decode(), 2)
        assert status(gateway, "/bad/") == 404


def test_bad_value_over_a_good_one(redis_server, vendor):
    """The others keep working; the broken one is gone or as it was, never something else."""
    with node(redis_server) as gateway:
        gateway.map("/one", vendor.url)
        gateway.map("/two", vendor.url)
        redis_server.client.hset(MAPPINGS, "/one", "nonsense")
        redis_server.client.publish("apiproxy:changed", MAPPINGS)
        eventually(lambda: "/one" in gateway.api("GET", "/errors").body.decode(), 2)
        assert status(gateway, "/two/") == 200
        assert status(gateway, "/one/") in (200, 404)


def test_wrong_type_in_redis_stops_nothing(redis_server, vendor):
    with node(redis_server) as gateway:
        gateway.map("/one", vendor.url)
        redis_server.client.delete(MAPPINGS)
        redis_server.client.set(MAPPINGS, "not a hash")
        redis_server.client.publish("apiproxy:changed", MAPPINGS)
        time.sleep(0.5)
        assert status(gateway, "/one/") == 200 and gateway.alive()


def test_thousands_of_mappings(redis_server, vendor):
    with node(redis_server) as gateway:
        pipeline = redis_server.client.pipeline()
        for number in range(5000):
            pipeline.hset(MAPPINGS, f"/many/{number}", vendor.url)
        pipeline.publish("apiproxy:changed", MAPPINGS)
        pipeline.execute()
        eventually(lambda: status(gateway, "/many/4999/") == 200, 3)
        assert status(gateway, "/many/0/") == 200 and status(gateway, "/many/5000/") == 404
        assert gateway.api("GET", "/api/mappings").json()["count"] >= 5000


# -- Redis in trouble


def test_health_tells_of_the_connection_for_limits(redis_server, vendor):
    """The configuration is read and written, but scripts, which keep the limits, are not allowed."""
    with node(redis_server) as gateway:
        gateway.map("/way", vendor.url)
        assert "apiproxy_redis_up 1" in gateway.api("GET", "/metrics").body.decode()
        redis_server.client.execute_command("ACL", "SETUSER", "default", "-@scripting")
        redis_server.client.client_kill_filter(_type="normal", skipme=True)
        health = eventually(lambda: (h := gateway.get("/health")).json()["redis"] == "down" and h, 5)
        assert (health.status, health.json()["status"]) == (200, "ok")
        assert gateway.api("PUT", "/api/mappings/way", {"description": "x"}).status == 200, "the configuration is not hit"
        assert "apiproxy_redis_up 0" in gateway.api("GET", "/metrics").body.decode()
        assert gateway.api("GET", "/performance").json()["redis"] == "down"
        assert "admission: Redis fails" in gateway.api("GET", "/errors").body.decode()
        time.sleep(1.5)  # the configuration is looked at each second
        assert gateway.get("/health").json()["redis"] == "down"
        redis_server.client.execute_command("ACL", "SETUSER", "default", "+@all")
        eventually(lambda: gateway.get("/health").json()["redis"] == "ok", 5)
        assert "apiproxy_redis_up 1" in gateway.api("GET", "/metrics").body.decode()


def test_killed_redis(redis_server, vendor):
    with node(redis_server) as gateway:
        prefix = gateway.route(vendor.url)
        client = gateway.connect()
        assert client.request("GET", prefix + "/").status == 200
        redis_server.kill()
        for _ in range(20):
            assert client.request("GET", prefix + "/").status == 200
            assert status(gateway, prefix + "/") == 200
        answer = gateway.api("POST", "/api/mappings", {"prefix": "/lost", "target": vendor.url})
        assert answer.status == 503 and answer.json()["error"]["code"] == "redis_unavailable"
        assert answer.json()["error"]["message"]
        health = eventually(lambda: (h := gateway.get("/health").json())["redis"] != "ok" and h, 5)
        assert health["status"] == "ok", "it can still proxy"
        assert "apiproxy_redis_up 0" in gateway.api("GET", "/metrics").body.decode()


def test_frozen_redis(redis_server, vendor):
    with node(redis_server) as gateway:
        prefix = gateway.route(vendor.url)
        redis_server.freeze()
        try:
            for _ in range(5):
                began = time.monotonic()
                assert status(gateway, prefix + "/") == 200
                assert time.monotonic() - began < 1
            began = time.monotonic()
            answer = gateway.api("POST", "/api/mappings", {"prefix": "/lost", "target": vendor.url})
            assert answer.status == 503 and time.monotonic() - began < 2
        finally:
            redis_server.thaw()
        eventually(lambda: gateway.api("POST", "/api/mappings", {"prefix": "/found", "target": vendor.url}).status == 201, 5)
        assert status(gateway, "/found/") == 200


@pytest.mark.timing
@pytest.mark.parametrize("method, path, data", [("GET", "/api/mappings", None), ("POST", "/api/mappings", {"prefix": "/x", "target": "http://h"})])
def test_a_redis_that_hangs_counts_as_failed_after_250_ms(redis_server, method, path, data):
    with node(redis_server) as gateway:
        assert gateway.api("GET", "/api/mappings").status == 200
        redis_server.freeze()
        try:
            took = []
            for _ in range(6):
                began = time.monotonic()
                assert gateway.api(method, path, data).status == 503
                took.append(time.monotonic() - began)
            assert 0.2 < min(took) < 0.45, took  # one call may have to wait for another
        finally:
            redis_server.thaw()


def test_redis_that_comes_back_empty_empties_nobody(redis_server, vendor):
    with node(redis_server) as gateway:
        prefix = gateway.route(vendor.url)
        redis_server.kill()
        eventually(lambda: gateway.get("/health").json()["redis"] != "ok", 5)
        redis_server.start()
        eventually(lambda: gateway.get("/health").json()["redis"] == "ok", 5)
        for _ in range(10):
            assert status(gateway, prefix + "/") == 200
            time.sleep(0.1)
        assert "empty" in gateway.api("GET", "/errors").body.decode().lower()


def test_changes_are_followed_again_after_an_outage(redis_server, vendor):
    with node(redis_server) as one, node(redis_server) as two:
        redis_server.kill()
        for gateway in (one, two):
            eventually(lambda: gateway.get("/health").json()["redis"] != "ok", 5)
        redis_server.start()
        for gateway in (one, two):
            eventually(lambda: gateway.get("/health").json()["redis"] == "ok", 5)
        eventually(lambda: one.api("POST", "/api/mappings", {"prefix": "/after", "target": vendor.url}).status == 201, 5)
        eventually(lambda: status(two, "/after/") == 200, 6)


def test_all_nodes_say_that_redis_was_emptied(redis_server, vendor):
    with node(redis_server) as one, node(redis_server) as two:
        prefix = one.route(vendor.url)
        eventually(lambda: status(two, prefix + "/") == 200, 2)
        redis_server.client.flushall()
        for gateway in (one, two):
            eventually(lambda gateway=gateway: "Redis came back empty" in gateway.api("GET", "/errors").body.decode(), 3)
            assert status(gateway, prefix + "/") == 200
        with node(redis_server) as late:
            assert status(late, prefix + "/") == 200
            assert "Redis came back empty" not in late.api("GET", "/errors").body.decode()


def test_emptied_by_hand_keeps_the_nodes(redis_server, vendor):
    with node(redis_server) as gateway:
        prefix = gateway.route(vendor.url)
        redis_server.client.flushall()
        redis_server.client.publish("apiproxy:changed", MAPPINGS)
        time.sleep(0.5)
        assert status(gateway, prefix + "/") == 200


@pytest.mark.parametrize("writer", ["redis-cli", "another node"])
def test_what_is_written_to_an_emptied_redis_does_not_replace_the_rest(redis_server, vendor, writer):
    with node(redis_server) as gateway:
        prefix = gateway.route(vendor.url)
        made = gateway.api("POST", "/api/clients", {"id": "app"})
        assert made.status == 201
        if writer == "redis-cli":
            redis_server.client.eval(
                "redis.call('FLUSHALL') redis.call('HSET', KEYS[1], '/fresh', ARGV[1])", 1, MAPPINGS, vendor.url
            )
        else:
            marker = redis_server.client.get("apiproxy:bootstrapped")
            redis_server.client.eval(
                "redis.call('FLUSHALL') redis.call('SET', KEYS[1], ARGV[1]) redis.call('HSET', KEYS[2], '/fresh', ARGV[2])",
                2, "apiproxy:bootstrapped", MAPPINGS, int(marker) + 60000, vendor.url,
            )  # fmt: skip
        eventually(lambda: status(gateway, "/fresh/") == 200, 3)
        assert status(gateway, prefix + "/") == 200
        assert gateway.api("GET", "/api/clients/app").status == 200
        assert redis_server.client.hexists(MAPPINGS, prefix)
        assert "empty" in gateway.api("GET", "/errors").body.decode()


@pytest.mark.slow
def test_an_embedded_redis_that_hangs_is_replaced(vendor):
    with Gateway() as gateway:
        prefix = gateway.route(vendor.url)
        (frozen,) = [c for c in children(gateway.pid) if command_name(c).startswith("redis")]
        os.kill(frozen, signal.SIGSTOP)
        assert gateway.api("POST", "/api/mappings", {"prefix": "/lost", "target": vendor.url}).status == 503
        eventually(lambda: frozen not in children(gateway.pid), 20)
        eventually(lambda: gateway.api("POST", "/api/mappings", {"prefix": "/kept", "target": vendor.url}).status == 201, 5)
        assert status(gateway, prefix + "/") == 200
        assert gateway.api("GET", "/api/mappings" + prefix).status == 200
        assert "has not answered" in gateway.api("GET", "/errors").body.decode()


def test_connections_of_redis_cut_from_outside(redis_server, vendor):
    with node(redis_server) as gateway:
        prefix = gateway.route(vendor.url)
        redis_server.client.client_kill_filter(_type="normal", skipme=True)
        redis_server.client.client_kill_filter(_type="pubsub")
        assert status(gateway, prefix + "/") == 200
        redis_server.client.hset(MAPPINGS, "/cut", vendor.url)
        redis_server.client.publish("apiproxy:changed", MAPPINGS)
        eventually(lambda: status(gateway, "/cut/") == 200, 6)


def test_redis_that_is_away_at_the_start(vendor):
    """The gateway waits for it rather than giving up, or says so; it does not hang."""
    with Redis("tcp") as server:
        server.kill()
        gateway = Gateway(API_PROXY_REDIS_URL=server.url, start=False)
        gateway.start(ready=False)
        try:
            eventually(lambda: gateway.output or not gateway.alive(), 10)
            time.sleep(0.5)
            if not gateway.alive():
                assert gateway.wait() == 1 and server.url.split("//")[1] in gateway.output
                return
            server.start()
            gateway.wait_ready(15)
            eventually(lambda: gateway.api("POST", "/api/mappings", {"prefix": "/x", "target": vendor.url}).status == 201, 8)
            assert status(gateway, "/x/") == 200
        finally:
            gateway.stop() if gateway.alive() else gateway.discard()


@pytest.mark.concurrency
def test_outage_under_traffic(redis_server, vendor):
    with node(redis_server) as gateway:
        prefix = gateway.route(vendor.url)
        stop, failures = threading.Event(), []

        def traffic():
            while not stop.is_set():
                answer = gateway.get(prefix + "/")
                if answer.status != 200:
                    failures.append(answer.status)

        threads = [threading.Thread(target=traffic) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            redis_server.kill()
            time.sleep(0.5)
            redis_server.start()
            time.sleep(0.5)
            redis_server.freeze()
            time.sleep(0.5)
            redis_server.thaw()
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
