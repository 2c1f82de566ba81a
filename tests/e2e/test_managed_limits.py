"""Concurrency and the three windows, over nodes."""

from __future__ import annotations

import calendar
import json
import re
import threading
import time

import pytest

from support.managed import (
    CHAT, GENERATE, MESSAGES, WINDOW, Held, Nodes, ask, at_once, bearer, chat_body, fault_of, login,
)
from support.process import eventually
from support.vendor import Fault, Reply, Vendor
from support.wire import Broken, RawServer, chunked, request_bytes

REFUSED = (429, "rate_limit")
FAMILIES = ("requests", "input-tokens", "output-tokens")


def figure(answer, what: str, family: str = "requests") -> int:
    return int(answer.header(f"x-apiproxy-{what}-{family}"))


def statuses(answers) -> dict:
    found: dict = {}
    for answer in answers:
        found[fault_of(answer)] = found.get(fault_of(answer), 0) + 1
    return found


# -- concurrency


def test_concurrency_over_both_nodes(pair, vendor, guarded):
    vendor.script(*[Fault("stall_before_head")] * 2)
    key = pair.client(max_concurrency=2)
    held = [Held(pair[0], guarded, key), Held(pair[1], guarded, key)]
    vendor.wait(2)
    for node in pair:
        answer = node.get(guarded + "/x", bearer(key))
        assert fault_of(answer) == (429, "concurrency_limit")
        assert int(answer.header("retry-after")) >= 1
        assert answer.json()["error"]["code"] == "concurrency_limit"
    assert len(vendor.received) == 2
    held[0].close()
    eventually(lambda: pair[1].get(guarded + "/x", bearer(key)).status == 200, 2)
    held[1].close()


def test_concurrency_under_parallel_load(pair, vendor, guarded):
    """Never more than the limit at the vendor at any moment."""
    key, lock, active, most = pair.client(max_concurrency=3), threading.Lock(), [0], [0]

    def slow(connection, received):
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        time.sleep(0.03)
        with lock:
            active[0] -= 1
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    vendor.script(*[slow] * 200)
    answers = at_once([lambda n=n: pair[n % 2].get(guarded + "/x", bearer(key)) for n in range(120)], 24)
    assert set(statuses(answers)) == {(200, None), (429, "concurrency_limit")}
    assert most[0] == 3


def test_concurrency_of_a_user_is_over_all_its_tokens(vendor):
    with Nodes(1, API_PROXY_LOGIN_CACHE_SECONDS="0") as nodes:
        prefix, username = nodes.map(vendor.url, auth="required"), nodes.user(max_concurrency=1)
        first = login(nodes[0], username).json()["token"]
        time.sleep(1.1)
        second = login(nodes[0], username).json()["token"]
        assert first != second
        vendor.script(Fault("stall_before_head"))
        held = Held(nodes[0], prefix, first)
        vendor.wait(1)
        assert fault_of(nodes[0].get(prefix + "/x", bearer(second))) == (429, "concurrency_limit")
        held.close()


@pytest.mark.parametrize("fault", ["close_before_head", "reset_before_head", "close_in_body", "reset_in_body", "garbage"])
def test_place_of_a_failed_request_is_free_again(pair, vendor, guarded, fault):
    key = pair.client(max_concurrency=1)
    for _ in range(3):
        vendor.script(Fault(fault))
        try:
            assert pair[0].get(guarded + "/x", bearer(key)).status in (200, 502), "200: sent once more on a new connection"
        except Broken:
            assert "in_body" in fault
        eventually(lambda: pair[0].get(guarded + "/x", bearer(key)).status == 200, 1)


@pytest.mark.concurrency
def test_one_at_a_time_is_never_two(pair, guarded):
    """Who asks again as soon as his answer has ended finds the place free, on whichever node and connection."""
    key, busy, done = pair.client(max_concurrency=1), pair.client(), threading.Event()

    def load(n: int):
        client = pair[n % 2].connect()
        while not done.is_set():
            client.request("GET", guarded + "/x", bearer(busy))

    others = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for thread in others:
        thread.start()
    found = statuses(pair[n % 2].get(guarded + "/x", bearer(key)) for n in range(400))
    done.set()
    for thread in others:
        thread.join()
    assert found == {(200, None): 400}


def test_place_is_free_when_the_answer_has_ended(pair, guarded):
    key = pair.client(max_concurrency=1)
    client = pair[0].connect()
    for _ in range(30):
        assert client.request("GET", guarded + "/x", bearer(key)).status == 200


def test_no_limit_is_no_limit(pair, guarded):
    key = pair.client(rpm=0, max_concurrency=0)
    answers = at_once([lambda n=n: pair[n % 2].get(guarded + "/x", bearer(key)) for n in range(50)])
    assert statuses(answers) == {(200, None): 50}
    assert answers[0].header("x-apiproxy-limit-requests") is None


# -- requests per minute


def test_rpm_is_exact_over_both_nodes(pair, vendor, guarded):
    key = pair.client(rpm=25)
    answers = at_once([lambda n=n: pair[n % 2].get(guarded + "/x", bearer(key)) for n in range(100)], 25)
    assert statuses(answers) == {(200, None): 25, REFUSED: 75}
    assert len(vendor.received) == 25


def test_refusal_tells_the_truth(pair, guarded):
    key = pair.client(rpm=3)
    began = time.time()
    remaining = []
    for n in range(3):
        answer = pair[n % 2].get(guarded + "/x", bearer(key))
        assert (answer.status, figure(answer, "limit")) == (200, 3)
        assert 0 <= figure(answer, "reset") <= 60
        remaining.append(figure(answer, "remaining"))
    assert remaining == [2, 1, 0]
    refused = pair[0].get(guarded + "/x", bearer(key))
    assert fault_of(refused) == REFUSED
    assert (figure(refused, "limit"), figure(refused, "remaining")) == (3, 0)
    free_in = began + WINDOW - time.time()
    assert free_in - 2 <= int(refused.header("retry-after")) <= 60
    assert free_in - 2 <= figure(refused, "reset") <= 60


def test_windows_belong_to_the_client_not_to_the_mapping(pair, vendor, guarded):
    key, other = pair.client(rpm=2), pair.map(vendor.url, auth="required")
    assert pair[0].get(guarded + "/x", bearer(key)).status == 200
    assert pair[1].get(other + "/x", bearer(key)).status == 200
    assert fault_of(pair[0].get(other + "/x", bearer(key))) == REFUSED
    assert pair[0].get(other + "/x", bearer(pair.client(rpm=2))).status == 200


def test_windows_of_a_user(pair, guarded):
    token = login(pair[0], pair.user(rpm=2)).json()["token"]
    answers = at_once([lambda n=n: pair[n % 2].get(guarded + "/x", bearer(token)) for n in range(8)], 8)
    assert statuses(answers) == {(200, None): 2, REFUSED: 6}


def test_limit_is_changed_while_it_runs(pair, guarded):
    id, key = pair.client_with_id(rpm=1)
    assert pair[0].get(guarded + "/x", bearer(key)).status == 200
    assert pair[0].get(guarded + "/x", bearer(key)).status == 429
    pair.change(f"/api/clients/{id}", rpm=2)
    assert pair[1].get(guarded + "/x", bearer(key)).status == 200
    assert pair[1].get(guarded + "/x", bearer(key)).status == 429
    pair.change(f"/api/clients/{id}", rpm=0)
    assert pair[1].get(guarded + "/x", bearer(key)).status == 200


def test_what_never_reached_a_vendor_is_given_back(pair):
    with RawServer() as gone:
        url = gone.url
    prefix, key = pair.map(url, auth="required"), pair.client(rpm=2)
    for _ in range(6):
        assert fault_of(pair[0].get(prefix + "/x", bearer(key))) == (502, "upstream_error")
        time.sleep(0.03)


def test_refusals_take_nothing(pair, guarded):
    """A refused request does not count as one, at whichever stage it is refused."""
    key = pair.client(rpm=5, output_tpm=100)
    body = chat_body(max_tokens=101)
    for _ in range(10):
        assert fault_of(ask(pair[0], guarded, key, body)) == REFUSED
    answer = ask(pair[0], guarded, key, chat_body(max_tokens=1))
    assert answer.status == 200 and figure(answer, "remaining") == 4


def test_malformed_and_unknown_requests_take_nothing(pair, guarded):
    key = pair.client(rpm=2)
    for _ in range(3):
        assert pair[0].get(guarded + "/../x", bearer(key)).status == 400
        assert pair[0].get("/unknown", bearer(key)).status == 404
    assert pair[0].get(guarded + "/x", bearer(key)).header("x-apiproxy-remaining-requests") == "1"


def test_the_limits_of_another_apiproxy_behind_it(pair, vendor, guarded):
    """Its figures are not told beside those of the same name; on a transparent mapping they are the vendor's."""
    told = {"X-Apiproxy-Remaining-Requests": "99", "x-apiproxy-limit-input-tokens": "7", "x-apiproxy-error": "rate_limit"}
    vendor.script(*[Reply(429, told)] * 2)
    answer, plain = pair[0].get(guarded + "/x", bearer(pair.client(rpm=5))), pair[0].get(pair.map(vendor.url) + "/x")
    assert (answer.status, plain.status) == (429, 429)
    assert answer.head.all("x-apiproxy-remaining-requests") == ["4"] and plain.head.all("x-apiproxy-remaining-requests") == ["99"]
    for each in (answer, plain):
        assert each.header("x-apiproxy-limit-input-tokens") == "7" and each.header("x-apiproxy-error") == "rate_limit"


# -- a minute


def killed_nodes_places(nodes, prefix, key, vendor):
    """A killed node's places are free within 60 s."""
    held = [Held(nodes[2], prefix, key, path="/killed") for _ in range(2)]
    eventually(lambda: sum(r.path == "/killed" for r in vendor.received) == 2)
    nodes[2].kill()
    killed = time.monotonic()
    assert fault_of(nodes[1].get(prefix + "/x", bearer(key))) == (429, "concurrency_limit")
    eventually(lambda: nodes[1].get(prefix + "/x", bearer(key)).status == 200, 60 - (time.monotonic() - killed), 0.5)
    for request in held:
        request.close()


def long_requests_place(nodes, prefix, key, vendor):
    """What frees a dead node's places takes none from a request that only lasts."""
    held = Held(nodes[0], prefix, key, path="/long")
    eventually(lambda: any(r.path == "/long" for r in vendor.received))
    while time.monotonic() < held.began + 62:
        assert fault_of(nodes[1].get(prefix + "/x", bearer(key))) == (429, "concurrency_limit")
        time.sleep(0.5)
    held.close()
    eventually(lambda: nodes[1].get(prefix + "/x", bearer(key)).status == 200, 2)


def truth_of_retry_after(nodes, prefix, key, vendor):
    """Neither too short nor too long."""
    assert nodes[0].get(prefix + "/x", bearer(key)).status == 200
    time.sleep(50)
    refused = nodes[1].get(prefix + "/x", bearer(key))
    wait = int(refused.header("retry-after"))
    assert refused.status == 429 and 8 <= wait <= 11
    time.sleep(wait - 1.5)
    assert nodes[0].get(prefix + "/x", bearer(key)).status == 429
    time.sleep(1.5)
    assert nodes[0].get(prefix + "/x", bearer(key)).status == 200


def requests_leave_a_window_one_by_one(nodes, prefix, key, vendor):
    assert nodes[0].get(prefix + "/x", bearer(key)).status == 200
    time.sleep(3)
    assert nodes[1].get(prefix + "/x", bearer(key)).status == 200
    refused = nodes[0].get(prefix + "/x", bearer(key))
    assert 55 <= int(refused.header("retry-after")) <= 57, "when the first one leaves"
    assert 58 <= figure(refused, "reset") <= 60, "when all have left"
    time.sleep(int(refused.header("retry-after")))
    assert nodes[0].get(prefix + "/x", bearer(key)).status == 200
    assert nodes[1].get(prefix + "/x", bearer(key)).status == 429


def tokens_come_back_when_their_request_leaves(nodes, prefix, key, vendor):
    vendor.output_tokens = 100
    assert ask(nodes[0], prefix, key, chat_body(max_tokens=50)).status == 200
    eventually(lambda: ask(nodes[1], prefix, key, chat_body(max_tokens=1)).status == 429, 2)
    time.sleep(57)
    refused = ask(nodes[0], prefix, key, chat_body(max_tokens=100))
    assert refused.status == 429 and 1 <= int(refused.header("retry-after")) <= 4
    time.sleep(int(refused.header("retry-after")))
    assert ask(nodes[1], prefix, key, chat_body(max_tokens=100)).status == 200


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.timeout(120)
def test_what_takes_a_minute():
    """All at once, each with a client of its own."""

    def answer(connection, received):
        if received.path in ("/killed", "/long"):
            connection.wait_end(120)
        elif received.path == CHAT:
            body = b'{"usage":{"prompt_tokens":1,"completion_tokens":%d}}' % vendor.output_tokens
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        else:
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    scenes = {
        killed_nodes_places: {"max_concurrency": 2},
        long_requests_place: {"max_concurrency": 1},
        truth_of_retry_after: {"rpm": 1},
        requests_leave_a_window_one_by_one: {"rpm": 2},
        tokens_come_back_when_their_request_leaves: {"output_tpm": 100},
    }
    with Vendor() as vendor, Nodes(3) as nodes:
        vendor.script(*[answer] * 5000)
        prefix = nodes.map(vendor.url, auth="required")
        keys = {scene: nodes.client(**limits) for scene, limits in scenes.items()}
        at_once([lambda scene=scene: scene(nodes, prefix, keys[scene], vendor) for scene in scenes], len(scenes))


# -- tokens


def test_output_is_reserved_by_the_requests_own_maximum(pair, vendor, guarded):
    key = pair.client(output_tpm=100)
    vendor.script(Fault("stall_before_head"))
    client = pair[0].connect()
    body = chat_body(max_tokens=60)
    client.send(f"POST {guarded}{CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    vendor.wait(1)
    refused = ask(pair[1], guarded, key, chat_body(max_tokens=41))
    assert fault_of(refused) == REFUSED
    assert figure(refused, "limit", "output-tokens") == 100 and figure(refused, "remaining", "output-tokens") == 40
    answer = ask(pair[1], guarded, key, chat_body(max_tokens=40))
    assert answer.status == 200 and figure(answer, "remaining", "output-tokens") == 0
    client.close()


@pytest.mark.parametrize(
    "path,body",
    [
        (CHAT, {"messages": [], "max_tokens": 90}),
        (CHAT, {"messages": [], "max_completion_tokens": 90}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 90}),
        (MESSAGES, {"messages": [], "max_tokens": 90}),
        (GENERATE, {"contents": [], "generationConfig": {"maxOutputTokens": 90}}),
        (GENERATE, {"contents": [], "generation_config": {"maxOutputTokens": 90}}),
    ],
)
def test_names_of_the_maximum(pair, guarded, path, body):
    answer = ask(pair[0], guarded, pair.client(output_tpm=100), json.dumps(body).encode(), path)
    assert answer.status == 200 and figure(answer, "remaining", "output-tokens") == 10


@pytest.mark.parametrize("size", [1_000_000, (1 << 20) - 65535, 1 << 20])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_maximum_may_come_last(pair, vendor, guarded, size, framing):
    """Of all that can be held."""
    body, key = b'{"messages":"%s","max_tokens":2000}', pair.client(output_tpm=1000)
    body %= b"y" * (size - len(body) + 2)
    fields, content = ([("Transfer-Encoding", "chunked")], chunked(body[:70_000], body[70_000:])) if framing == "chunked" else ([], body)
    client = pair[0].connect()
    client.send(request_bytes("POST", guarded + CHAT, [*bearer(key), *fields], content))
    answer = client.read_response()
    assert len(body) == size and fault_of(answer) == REFUSED and not vendor.received
    assert figure(answer, "remaining", "output-tokens") == 1000


def test_reserve_of_the_mapping(pair, vendor):
    prefix, key = pair.map(vendor.url, auth="required", reserve_output_tokens=70), pair.client(output_tpm=100)
    assert figure(ask(pair[0], prefix, key), "remaining", "output-tokens") == 30
    answer = ask(pair[0], prefix, key, chat_body(max_tokens=20))
    assert figure(answer, "remaining", "output-tokens") == 100 - 20 - vendor.output_tokens, "its own maximum is the request's"


def test_settled_with_what_the_vendor_reports(pair, vendor, guarded):
    key = pair.client(output_tpm=1000, input_tpm=1000)
    vendor.input_tokens, vendor.output_tokens = 123, 45
    assert ask(pair[0], guarded, key, chat_body(max_tokens=900)).status == 200

    def settled():
        answer = pair[1].get(guarded + "/x", bearer(key))
        return figure(answer, "remaining", "output-tokens") == 1000 - 45 and figure(answer, "remaining", "input-tokens") <= 1000 - 123

    eventually(settled, 3)


@pytest.mark.parametrize("reported", [5_000_000_000, 1 << 53, 1e300])
def test_a_reservation_stands_where_more_is_reported_than_can_be_true(pair, vendor, guarded, reported):
    key = pair.client(output_tpm=50)
    vendor.output_tokens = reported
    assert ask(pair[0], guarded, key, chat_body(max_tokens=40)).status == 200
    vendor.output_tokens = 1
    time.sleep(0.3)
    assert fault_of(ask(pair[1], guarded, key, chat_body(max_tokens=11))) == REFUSED
    assert ask(pair[1], guarded, key, chat_body(max_tokens=10)).status == 200


def test_settlement_above_the_reservation_stops_admission(pair, vendor, guarded):
    key = pair.client(output_tpm=50)
    vendor.output_tokens = 500
    assert ask(pair[0], guarded, key, chat_body(max_tokens=10)).status == 200
    eventually(lambda: fault_of(ask(pair[1], guarded, key, chat_body(max_tokens=1))) == REFUSED, 3)
    refused = ask(pair[1], guarded, key, chat_body(max_tokens=1))
    assert figure(refused, "remaining", "output-tokens") == 0 and int(refused.header("retry-after")) > 50
    assert fault_of(ask(pair[0], guarded, key)) == REFUSED, "no maximum named: stopped as well"


def test_input_is_reserved_by_an_estimate(pair, vendor, guarded):
    key = pair.client(input_tpm=100)
    vendor.script(Fault("stall_before_head"))
    client = pair[0].connect()
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 60}]}).encode()
    client.send(f"POST {guarded}{CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    vendor.wait(1)
    refused = ask(pair[1], guarded, key, body)
    assert fault_of(refused) == REFUSED
    assert 10 <= figure(refused, "remaining", "input-tokens") <= 70, "60 words are 40 to 90 tokens"
    client.close()


@pytest.mark.parametrize(
    "limits, body, message",
    [
        ({"output_tpm": 10}, chat_body(max_tokens=11), "needs 11 output tokens; the limit is 10 a minute"),
        ({"input_tpm": 30}, chat_body(messages=[{"role": "user", "content": "word " * 60}]), "input tokens; the limit is 30 a minute"),
    ],
)
def test_one_request_over_the_whole_limit_is_refused(pair, vendor, guarded, limits, body, message):
    """However long it waits, it will never fit: an SDK that came again by itself would only lose a minute."""
    key = pair.client(**limits)
    answer = ask(pair[0], guarded, key, body)
    assert fault_of(answer) == REFUSED and 1 <= int(answer.header("retry-after")) <= 60
    assert message in answer.json()["error"]["message"] and answer.header("x-should-retry") == "false"
    assert not vendor.received
    assert ask(pair[0], guarded, key, chat_body(max_tokens=8)).status == 200


def test_a_request_that_will_fit_may_come_again(pair, vendor, guarded):
    key = pair.client(output_tpm=10, rpm=5)
    assert ask(pair[0], guarded, key, chat_body(max_tokens=8)).status == 200
    answer = ask(pair[0], guarded, key, chat_body(max_tokens=10))
    assert fault_of(answer) == REFUSED and answer.header("x-should-retry") is None


def test_reservations_under_parallel_load_never_exceed(pair, vendor, guarded):
    key = pair.client(output_tpm=1000)
    vendor.output_tokens = 100
    answers = at_once([lambda n=n: ask(pair[n % 2], guarded, key, chat_body(max_tokens=100)) for n in range(40)], 20)
    assert statuses(answers) == {(200, None): 10, REFUSED: 30}


@pytest.mark.parametrize("fault", [Reply(400), Reply(500), Reply(429), Fault("close_before_head"), Fault("garbage")])
def test_failing_requests_give_tokens_back(pair, vendor, guarded, fault):
    key = pair.client(output_tpm=100, input_tpm=1000)
    for _ in range(4):
        vendor.script(fault)
        assert ask(pair[0], guarded, key, chat_body(max_tokens=90)).status in (400, 429, 500, 502)
        eventually(lambda: pair[0].api("GET", "/health").status == 200, 1)
        time.sleep(0.05)
    answer = ask(pair[1], guarded, key, chat_body(max_tokens=90))
    assert answer.status == 200 and figure(answer, "remaining", "output-tokens") == 10


def test_stream_is_settled(pair, vendor, guarded):
    key = pair.client(output_tpm=1000)
    body = chat_body(max_tokens=900, stream=True, stream_options={"include_usage": True})
    assert ask(pair[0], guarded, key, body).status == 200
    left = lambda: figure(pair[1].get(guarded + "/x", bearer(key)), "remaining", "output-tokens")  # noqa: E731
    eventually(lambda: left() == 1000 - vendor.output_tokens, 3)


def test_windows_settle_without_figures(vendor):
    with Nodes(1, API_PROXY_STATS="off") as nodes:
        prefix, key = nodes.map(vendor.url, auth="required"), nodes.client(output_tpm=1000)
        assert ask(nodes[0], prefix, key, chat_body(max_tokens=900)).status == 200
        left = lambda: figure(nodes[0].get(prefix + "/x", bearer(key)), "remaining", "output-tokens")  # noqa: E731
        eventually(lambda: left() == 1000 - vendor.output_tokens, 3)


# -- headers


def test_every_managed_response_says_its_figures(pair, vendor, guarded):
    key = pair.client(rpm=100, input_tpm=10000, output_tpm=20000)
    vendor.script(None, Reply(404), Fault("close_before_head"))
    for status in (200, 404, 502, 200):
        answer = ask(pair[0], guarded, key)
        assert answer.status == status
        for what in ("limit", "remaining", "reset"):
            for family in FAMILIES:
                assert figure(answer, what, family) >= 0
        assert [figure(answer, "limit", f) for f in FAMILIES] == [100, 10000, 20000]
        assert all(figure(answer, "reset", f) <= 60 for f in FAMILIES)


def test_vendors_own_headers_pass_unchanged(pair, vendor, guarded):
    vendor.headers = {"x-ratelimit-remaining-requests": "41", "anthropic-ratelimit-tokens-remaining": "7", "retry-after": "9"}
    answer = ask(pair[0], guarded, pair.client(rpm=5))
    assert answer.head.all("x-ratelimit-remaining-requests") == ["41"] and answer.header("anthropic-ratelimit-tokens-remaining") == "7"
    assert answer.header("retry-after") == "9" and "x-ratelimit-limit-requests" not in answer.head


def spent(pair, vendor, dialect: str):
    prefix, key = pair.map(vendor.url, auth="required", dialect=dialect), pair.client(rpm=1, input_tpm=1000, output_tpm=500)
    assert ask(pair[0], prefix, key, chat_body(max_tokens=100)).status == 200
    answer = ask(pair[1], prefix, key, chat_body(max_tokens=100))
    assert fault_of(answer) == REFUSED
    return answer


def test_openai_limit_headers(pair, vendor):
    answer = spent(pair, vendor, "openai")
    assert (answer.header("x-ratelimit-limit-requests"), answer.header("x-ratelimit-remaining-requests")) == ("1", "0")
    for family in ("requests", "tokens"):
        assert int(answer.header(f"x-ratelimit-limit-{family}")) > 0 and int(answer.header(f"x-ratelimit-remaining-{family}")) >= 0
        assert re.fullmatch(r"(\d+h)?(\d+m)?(\d+(\.\d+)?s)?|\d+ms", answer.header(f"x-ratelimit-reset-{family}"))
    assert answer.json()["error"]["code"] == "rate_limit"


def test_anthropic_limit_headers(pair, vendor):
    answer = spent(pair, vendor, "anthropic")
    for family, limit in zip(FAMILIES, (1, 1000, 500)):
        assert int(answer.header(f"anthropic-ratelimit-{family}-limit")) == limit
        assert 0 <= int(answer.header(f"anthropic-ratelimit-{family}-remaining")) <= limit
        reset = time.strptime(answer.header(f"anthropic-ratelimit-{family}-reset"), "%Y-%m-%dT%H:%M:%SZ")
        assert -2 <= calendar.timegm(reset) - time.time() <= 62
    assert answer.json()["error"]["type"] == "rate_limit_error"


def test_gemini_retry_info(pair, vendor):
    answer = spent(pair, vendor, "gemini")
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
    info = next(d for d in error["details"] if d["@type"] == "type.googleapis.com/google.rpc.RetryInfo")
    assert info["retryDelay"] == answer.header("retry-after") + "s"


# -- what is left in Redis


def test_limiter_keys_expire_and_carry_hash_tags(pair, vendor, guarded):
    prefix = pair.map(vendor.url, auth="required", pool=pair.pool("expiring", max_requests_per_minute=5), queue={"rate_per_second": 50, "capacity": 5, "timeout_seconds": 2})
    id, key = pair.client_with_id(rpm=10, input_tpm=1000, output_tpm=1000, max_concurrency=2)
    assert ask(pair[0], prefix, key).status == 200
    redis = pair.redis.client
    kept = {"apiproxy:mappings", "apiproxy:keys", "apiproxy:clients", "apiproxy:users"}
    limiter = [k for k in redis.scan_iter("apiproxy:limit:*", count=1000)]
    assert any(k.startswith(f"apiproxy:limit:{{{id}}}:") for k in limiter)
    assert all(re.match(r"apiproxy:limit:\{[^{}]+\}:", k) for k in limiter)
    for stored in limiter:
        assert redis.ttl(stored) > 0, stored
    assert kept <= set(redis.scan_iter(count=1000)) | {"apiproxy:users"}


def test_memory_of_a_large_window_is_bounded(pair, vendor):
    prefix, (id, key) = pair.map(vendor.url, auth="required"), pair.client_with_id(rpm=1_000_000)
    client = pair[0].connect()
    for _ in range(300):
        assert client.request("GET", prefix + "/x", bearer(key)).status == 200
    redis = pair.redis.client
    assert sum(redis.memory_usage(k) or 0 for k in redis.scan_iter(f"apiproxy:limit:{{{id}}}:*", count=1000)) < 300_000
