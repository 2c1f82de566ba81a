"""What a managed request costs and where that is shown; and the rest of its way."""

from __future__ import annotations

import gzip
import json
import re
import signal
import socket
import threading
import time
import zlib
from datetime import datetime, timezone

import pytest

from support import sdk
from support.gateway import Gateway
from support.managed import CHAT, GENERATE, MESSAGES, Held, Nodes, ask, at_once, bearer, chat_body, fault_of, login, name
from support.process import eventually
from support.vendor import Fault, Reply
from support.wire import RawServer, chunked

STREAM = GENERATE.replace("generateContent", "streamGenerateContent")


def usage(pair, who: str, node: int = 1) -> dict:
    answer = pair[node].api("GET", f"/api/{who}/usage")
    assert answer.status == 200
    return answer.json()


def counted(pair, who: str, requests: int, tokens: tuple[int, int]) -> dict:
    wanted = {"requests": requests, "input_tokens": tokens[0], "output_tokens": tokens[1]}

    def same():
        data = usage(pair, who)
        today = {k: data["days"][0][k] for k in wanted}
        return data if data["current"] == today == wanted else None

    try:
        return eventually(same, 3, 0.05)
    except AssertionError:
        data = usage(pair, who)
        raise AssertionError(f"wanted {wanted}, current {data['current']}, today {data['days'][0]}") from None


def left(answer, family: str = "output-tokens") -> int:
    return int(answer.header(f"x-apiproxy-remaining-{family}"))


# -- every form of answer reaches the windows and the usage of the client


FORMS = {
    "chat": (CHAT, {"messages": []}, (11, 7)),
    "chat stream": (CHAT, {"messages": [], "stream": True, "stream_options": {"include_usage": True}}, (11, 7)),
    "completion": ("/v1/completions", {"prompt": "Hi"}, (11, 7)),
    "responses": ("/v1/responses", {"input": "Hi"}, (11, 7)),
    "responses stream": ("/v1/responses", {"input": "Hi", "stream": True}, (11, 7)),
    "embeddings": ("/v1/embeddings", {"input": "Hi"}, (11, 0)),
    "messages": (MESSAGES, {"messages": []}, (11 + 100 + 20, 7)),
    "messages stream": (MESSAGES, {"messages": [], "stream": True}, (11 + 100 + 20, 7)),
    "gemini": (GENERATE, {"contents": []}, (11, 7 + 5)),
    "gemini sse": (STREAM + "?alt=sse", {"contents": []}, (11, 7 + 5)),
    "gemini array": (STREAM, {"contents": []}, (11, 7 + 5)),
}


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("form", FORMS)
def test_what_the_vendor_says_is_counted(pair, vendor, guarded, form, encoding):
    path, body, tokens = FORMS[form]
    vendor.cache_read_tokens, vendor.cache_creation_tokens, vendor.thoughts_tokens, vendor.encoding = 100, 20, 5, encoding
    id, key = pair.client_with_id(rpm=50, input_tpm=5000, output_tpm=5000)
    assert ask(pair[0], guarded, key, json.dumps({"model": "m", "max_tokens": 300, **body}).encode(), path).status == 200
    data = counted(pair, f"clients/{id}", 1, tokens)
    assert data["limits"] == {"requests": 50, "input_tokens": 5000, "output_tokens": 5000}
    assert len(data["days"]) == 30 and data["days"][0]["date"] == datetime.now(timezone.utc).date().isoformat()
    answer = pair[1].get(guarded + "/x", bearer(key))
    assert (left(answer, "requests"), left(answer)) == (48, 5000 - tokens[1])


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_compressed_answers_pass_as_they_are(pair, vendor, guarded, pack):
    coding = "gzip" if pack is gzip.compress else "deflate"
    data = pack(json.dumps({"usage": {"prompt_tokens": 5, "completion_tokens": 6}}).encode())
    vendor.script(Reply(200, {"content-encoding": coding}, data))
    answer = ask(pair[0], guarded, pair.client(output_tpm=1000))
    assert answer.body == data and answer.header("content-encoding") == coding


def test_usage_adds_up_over_nodes_and_for_users(pair, vendor, guarded):
    username = pair.user(rpm=1000)
    token = login(pair[0], username).json()["token"]
    assert {a.status for a in at_once([lambda n=n: ask(pair[n % 2], guarded, token) for n in range(10)])} == {200}
    counted(pair, f"users/{username}", 10, (110, 70))


def test_usage_of_a_client_without_limits(pair, vendor, guarded):
    id, key = pair.client_with_id()
    for n in range(3):
        assert ask(pair[n % 2], guarded, key).status == 200
    eventually(lambda: usage(pair, f"clients/{id}")["days"][0]["requests"] == 3, 3)
    today = usage(pair, f"clients/{id}")["days"][0]
    assert (today["input_tokens"], today["output_tokens"]) == (33, 21)


def test_current_minute_of_a_client_without_limits(pair, vendor, guarded):
    id, key = pair.client_with_id()
    busy_id, busy = pair.client_with_id(max_concurrency=20)
    for n in range(3):
        assert {ask(pair[n % 2], guarded, k).status for k in (key, busy)} == {200}
    assert {a.status for a in at_once([lambda n=n: ask(pair[n % 2], guarded, busy) for n in range(20)])} == {200}
    counted(pair, f"clients/{id}", 3, (33, 21))
    counted(pair, f"clients/{busy_id}", 23, (253, 161))


def test_limits_that_come_later_know_of_the_last_minute(pair, vendor, guarded):
    id, key = pair.client_with_id()
    for n in range(3):
        assert ask(pair[n % 2], guarded, key).status == 200
    counted(pair, f"clients/{id}", 3, (33, 21))
    pair.change(f"/api/clients/{id}", rpm=5)
    assert [ask(pair[n % 2], guarded, key).status for n in range(4)] == [200, 200, 429, 429]


def test_refused_requests_are_no_usage(pair, vendor, guarded):
    id, key = pair.client_with_id(rpm=1)
    for _ in range(3):
        ask(pair[0], guarded, key)
    counted(pair, f"clients/{id}", 1, (11, 7))


def upload(node, prefix: str, key: str, announced: int, body: bytes):
    """A client that sends less than it announced."""
    client = node.connect()
    head = f"POST {prefix}{CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: {announced}\r\n\r\n"
    client.send(head.encode() + body)
    return client


LONG = json.dumps({"max_tokens": 900, "messages": [{"role": "user", "content": "word " * 240_000}]}).encode()


@pytest.mark.parametrize("announced", [9_000_000_000_000_000_000, 2 * len(LONG)])
def test_an_upload_that_breaks_off_costs_what_came(pair, announced):
    """More than is kept was sent: the vendor has some of it, and its work ends with the client's."""
    with RawServer() as server:
        prefix, (id, key) = pair.map(server.url, auth="required"), pair.client_with_id(rpm=50, output_tpm=1000)
        client = upload(pair[0], prefix, key, announced, LONG)
        upstream = server.accept()
        upstream.read_head()
        upstream.read_exactly(len(LONG))
        held = usage(pair, f"clients/{id}")["current"]
        assert held["requests"] == 1 and held["output_tokens"] == 900
        assert held["input_tokens"] == pytest.approx(min(announced // 4, 2**32 - 1), rel=0.01)
        client.close()
        expected = {"requests": 1, "input_tokens": pytest.approx(len(LONG) // 4, rel=0.01), "output_tokens": 0}

        def settled():
            data = usage(pair, f"clients/{id}")
            today = {name: data["days"][0][name] for name in expected}
            return data["current"] == expected and today == expected

        eventually(settled, 3, 0.05)


def test_uploads_that_break_off_leave_the_node_well(pair):
    """However large they said to be, and however many."""
    with RawServer() as server:
        prefix, (id, key) = pair.map(server.url, auth="required"), pair.client_with_id(output_tpm=100_000)
        clients = [upload(pair[0], prefix, key, 9_000_000_000_000_000_000, LONG) for _ in range(6)]
        for _ in clients:
            server.accept().read_head()
        assert usage(pair, f"clients/{id}", 0)["current"]["input_tokens"] == 6 * (2**32 - 1)
        for client in clients:
            client.close()
        eventually(lambda: usage(pair, f"clients/{id}")["current"]["input_tokens"] < 6 * len(LONG), 3)


def test_an_early_answer_costs_what_came(pair):
    """The vendor does not wait for the end, and says nothing of tokens."""
    with RawServer() as server:
        prefix, (id, key) = pair.map(server.url, auth="required"), pair.client_with_id(output_tpm=1000)
        client = upload(pair[0], prefix, key, 9_000_000_000_000_000_000, LONG)
        upstream = server.accept()
        upstream.read_head()
        upstream.read_exactly(len(LONG))
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.read_response().status == 200
        eventually(lambda: 0 < usage(pair, f"clients/{id}")["current"]["input_tokens"] < len(LONG), 3)


def test_stream_without_usage_is_estimated(pair, vendor, guarded):
    vendor.text = ["word "] * 100
    id, key = pair.client_with_id(output_tpm=10_000)
    assert ask(pair[0], guarded, key, chat_body(stream=True, max_tokens=5000)).status == 200
    eventually(lambda: 60 <= usage(pair, f"clients/{id}")["current"]["output_tokens"] <= 250, 3)


def test_include_usage_settles_by_what_the_vendor_says(pair, vendor):
    prefix, (id, key) = pair.map(vendor.url, auth="required", include_usage=True), pair.client_with_id(output_tpm=1000)
    body = b'{"model":"m", "stream" : true,"messages":[ ],"max_tokens":500}'
    answer = ask(pair[0], prefix, key, body)
    assert answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n")
    sent = vendor.received[-1]
    assert sent.json == {**json.loads(body), "stream_options": {"include_usage": True}}
    assert sent.header("content-length") == str(len(sent.body))
    counted(pair, f"clients/{id}", 1, (11, 7))


def test_include_usage_fails_over_with_the_changed_body(pair, vendor):
    prefix = pair.map(vendor.url, include_usage=True, pool=pair.pool(name("k"), name("k")))
    vendor.script(Reply(500))
    assert ask(pair[0], prefix, None, chat_body(stream=True)).status == 200
    bodies = [r.body for r in vendor.received]
    assert len(bodies) == 2 and bodies[0] == bodies[1] and json.loads(bodies[0])["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("more", [{}, {"stream": False}, {"stream": True, "stream_options": {"include_usage": True}}], ids=str)
def test_include_usage_changes_no_other_body(pair, vendor, more):
    prefix = pair.map(vendor.url, include_usage=True)
    body = chat_body(**more)
    assert ask(pair[0], prefix, None, body).status == 200
    assert vendor.received[-1].body == body


def test_broken_stream_costs_what_came(pair, vendor, guarded):
    id, key = pair.client_with_id(output_tpm=10_000)
    vendor.script(Fault("reset_in_body", after=900))
    with pytest.raises(Exception):
        ask(pair[0], guarded, key, chat_body(stream=True, max_tokens=5000))
    eventually(lambda: usage(pair, f"clients/{id}")["current"]["requests"] == 1, 3)
    eventually(lambda: left(pair[1].get(guarded + "/x", bearer(key))) <= 10_000, 3)


# -- figures


def test_figures_of_managed_mappings(pair, vendor, guarded):
    key = pair.client()
    for _ in range(3):
        assert ask(pair[0], guarded, key).status == 200
    metrics = lambda: pair[0].api("GET", "/metrics").body.decode()  # noqa: E731
    eventually(lambda: f'apiproxy_tokens_total{{mapping="{guarded}",direction="input"}} 33\n' in metrics(), 3)
    assert f'apiproxy_tokens_total{{mapping="{guarded}",direction="output"}} 21\n' in metrics()
    entry = next(e for e in pair[0].get("/stats").json()["endpoints"] if e["prefix"] == guarded)
    assert (entry["requests"], entry["errors"], entry["input_tokens"], entry["output_tokens"]) == (3, 0, 33, 21)


def overhead(node, prefix: str) -> float:
    """Seconds, of all requests."""
    text = node.api("GET", "/metrics").body.decode()
    count = re.search(rf'^apiproxy_overhead_seconds_count\{{mapping="{prefix}"\}} (\d+)$', text, re.MULTILINE)
    assert int(count[1]) > 0
    return float(re.search(rf'^apiproxy_overhead_seconds_sum\{{mapping="{prefix}"\}} (\S+)$', text, re.MULTILINE)[1])


def test_time_in_the_queue_is_not_overhead(pair, vendor):
    prefix = pair.map(vendor.url, queue={"rate_per_second": 1, "capacity": 5, "timeout_seconds": 10})
    for _ in range(3):
        assert pair[0].get(prefix + "/x").status == 200
    assert overhead(pair[0], prefix) < 0.3


def test_time_of_a_slow_upload_is_not_overhead(pair, guarded):
    body, key = chat_body(), pair.client(input_tpm=1_000_000)
    client = upload(pair[0], guarded, key, len(body), b"")
    for at in range(0, len(body), len(body) // 3 + 1):
        time.sleep(0.3)
        client.send(body[at : at + len(body) // 3 + 1])
    assert client.read_response().status == 200
    assert overhead(pair[0], guarded) < 0.3, "0.9 s were the client's"


# -- one round trip


def test_one_call_before_and_one_after(pair, vendor):
    """A request that neither waits nor fails over costs Redis one decision and one write."""
    with Nodes(1, API_PROXY_STATS="off") as nodes:
        prefix = nodes.map(vendor.url, auth="required", pool=nodes.pool("counted", max_requests_per_minute=1000))
        key = nodes.client(rpm=1000, input_tpm=1_000_000, output_tpm=1_000_000, max_concurrency=50)
        for _ in range(10):
            assert ask(nodes[0], prefix, key).status == 200
        time.sleep(0.3)
        before = nodes.redis.client.info("commandstats")
        for _ in range(100):
            assert ask(nodes[0], prefix, key).status == 200
        time.sleep(0.3)
        after = nodes.redis.client.info("commandstats")
        calls = lambda stats: stats.get("cmdstat_evalsha", {"calls": 0})["calls"] + stats.get("cmdstat_eval", {"calls": 0})["calls"]  # noqa: E731
        assert 200 <= calls(after) - calls(before) <= 210


# -- bodies on their way


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [100, 70_000, 1_000_000, 3_000_000])
def test_bodies_pass_whole_where_tokens_are_estimated(pair, vendor, guarded, size, framing):
    key, body = pair.client(input_tpm=10_000_000), json.dumps({"messages": [{"content": "x" * size}]}).encode()
    path = guarded + "/echo"
    if framing == "length":
        answer = pair[0].request("POST", path, bearer(key), body)
    else:
        pieces = [body[at : at + 30_000] for at in range(0, len(body), 30_000)]
        answer = pair[0].request("POST", path, [*bearer(key), ("Transfer-Encoding", "chunked")], chunked(*pieces))
    assert answer.status == 200 and answer.json()["length"] == len(body) and answer.json()["framing"] == framing
    assert vendor.received[-1].body == body


def test_expect_100_continue_on_a_managed_mapping(pair, vendor, guarded):
    key, client = pair.client(input_tpm=10_000), pair[0].connect()
    client.send(f"POST {guarded}{CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nExpect: 100-continue\r\nContent-Length: {len(chat_body())}\r\n\r\n")
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
    client.send(chat_body())
    assert client.read_response().status == 200


def test_expect_is_refused_without_the_body(pair, vendor, guarded):
    client = pair[0].connect()
    client.send(f"POST {guarded}{CHAT} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
    assert client.read_response().informational == [] and not vendor.received


def test_body_that_never_comes_ends_with_the_mappings_timeout(pair, vendor):
    prefix, key = pair.map(vendor.url, auth="required", timeout_seconds=0.5), pair.client(input_tpm=100)
    client = pair[0].connect()
    client.send(f"POST {prefix}{CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 100\r\n\r\n{{")
    assert client.read_response().status in (408, 504)
    assert not vendor.received


def test_streams_leave_as_they_come(pair, vendor, authority):
    prefix, key = pair.map(vendor.url, auth="required", pool=pair.pool(name("k"))), pair.client(output_tpm=1000)
    vendor.gate = threading.Semaphore(1)
    stream = sdk.openai_client(pair[0].url + prefix, authority, api_key=key).chat.completions.create(model="m", messages=sdk.ASK, stream=True)
    for piece in vendor.text:
        assert next(stream).choices[0].delta.content == piece
        vendor.gate.release()
    vendor.gate.release(10)
    assert [chunk.choices[0].finish_reason for chunk in stream] == ["stop"]


def test_websocket_of_a_client(pair):
    with RawServer() as server:
        prefix, key = pair.map(server.url, auth="required"), pair.client(max_concurrency=1)
        client = pair[0].connect()
        client.send(f"GET {prefix}/ws?key={key} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n")
        upstream = server.accept()
        assert key.encode() not in upstream.read_head().raw
        upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        assert client.read_response_head()[0].line.split()[1] == b"101" and client.read_exactly(5) == b"hello"
        client.send("back")
        assert upstream.read_exactly(4) == b"back"
        assert fault_of(pair[1].get(prefix + "/x", bearer(key))) == (429, "concurrency_limit")
        client.close()
        upstream.close()


# -- connecting


def test_connect_timeout_is_a_connection_failure(pair):
    """A listener whose queue is full answers no SYN."""
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler.connect(full.getsockname())
        others = [socket.socket() for _ in range(2)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        time.sleep(0.05)
        keys = [name("k") for _ in range(3)]
        prefix = pair.map(f"http://127.0.0.1:{full.getsockname()[1]}", pool=pair.pool(*keys), connect_timeout_seconds=1)
        began = time.monotonic()
        answer = ask(pair[0], prefix)
        assert answer.status in (502, 504) and 2.7 <= time.monotonic() - began <= 4.5, "each key once"
        for other in others:
            other.close()


def test_untrusted_certificate_is_a_connection_failure(pair, tls_vendor):
    """These nodes do not know the tests' authority."""
    key = name("k")
    prefix = pair.map(tls_vendor.url, pool=pair.pool(key))
    for n in range(3):
        assert fault_of(ask(pair[n % 2], prefix)) == (502, "upstream_error")
        time.sleep(0.05)
    eventually(lambda: pair.health(key)["state"] == "cooling", 2)
    assert not tls_vendor.received


# -- the end of a node


def test_a_waiting_request_is_finished_while_draining(vendor):
    with Nodes(1) as nodes:
        prefix = nodes.map(vendor.url, queue={"rate_per_second": 1, "capacity": 5, "timeout_seconds": 10})
        assert nodes[0].get(prefix + "/x").status == 200
        waiting = Held(nodes[0], prefix)
        assert waiting.client.silent(0.2)
        nodes[0].signal(signal.SIGTERM)
        assert waiting.answer(3).status == 200
        assert nodes[0].wait() == 0


def test_waiters_of_a_killed_node_block_nobody_for_long(vendor):
    with Nodes(2) as nodes:
        prefix = nodes.map(vendor.url, queue={"rate_per_second": 2, "capacity": 3, "timeout_seconds": 20})
        waiting = [Held(nodes[1], prefix) for _ in range(5)]
        vendor.wait(2)
        nodes[1].kill()
        assert len(vendor.received) < 5, "some still waited"
        eventually(lambda: nodes[0].get(prefix + "/x").status == 200, 4)
        for request in waiting:
            request.close()


def test_usage_survives_the_end_of_a_node(redis_server, vendor):
    with Nodes(1, redis_server) as nodes:
        prefix, (id, key) = nodes.map(vendor.url, auth="required"), nodes.client_with_id(rpm=3)
        for _ in range(2):
            assert ask(nodes[0], prefix, key).status == 200
    with Nodes(1, redis_server) as nodes:
        assert [ask(nodes[0], prefix, key).status for _ in range(2)] == [200, 429]
        eventually(lambda: nodes[0].api("GET", f"/api/clients/{id}/usage").json()["days"][0]["input_tokens"] == 33, 3)


def test_embedded_redis_limits_as_well(vendor):
    with Gateway() as gateway:
        gateway.map("/g", vendor.url, auth="required", pool="p", queue={"rate_per_second": 100, "capacity": 9, "timeout_seconds": 5})
        assert gateway.api("POST", "/api/keys", {"id": "k", "pool": "p", "key": "secret-k"}).status == 201
        key = gateway.api("POST", "/api/clients", {"id": "c", "rpm": 3, "output_tpm": 1000}).json()["key"]
        assert [ask(gateway, "/g", key).status for _ in range(5)] == [200] * 3 + [429] * 2
        assert vendor.received[-1].header("authorization") == "Bearer secret-k"
        gateway.restart()
        assert fault_of(ask(gateway, "/g", key)) == (429, "rate_limit"), "its windows outlive a restart"
