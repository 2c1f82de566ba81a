"""When every key has failed: the last answer that there was is the client's, as it was."""

from __future__ import annotations

import gzip
import random
import threading
import time

import pytest

from support.managed import Held, Nodes, Timed, ask, at_once, chat_body, fault_of
from support.vendor import Fault, Reply
from support.wire import Broken, RawServer, chunk, request_bytes

NO_ANSWER = ["close_before_head", "reset_before_head"]
REFUSED_BY_POOL = [(429, "upstream_rate_limit"), (503, "no_upstream_key")]


@pytest.fixture(scope="module")
def one(authority):
    settings = {"SSL_CERT_FILE": str(authority.bundle), "CURL_CA_BUNDLE": str(authority.bundle)}
    with Nodes(1, **settings) as nodes:
        yield nodes


def refusal(status: int, which: str, size: int = 40, **headers) -> Reply:
    body = (which.encode() + b"\x00\xff\r\n") * (size // len(which) + 1)
    return Reply(status, {"x-which": which, "Retry-After": "7", **headers}, body)


def is_as_it_was(answer, reply: Reply):
    assert answer.status == reply.status and answer.body == reply.body
    assert answer.header("x-which") == reply.headers["x-which"] and answer.header("retry-after") == "7"
    assert "x-apiproxy-error" not in answer.head


def two_tries(server: RawServer, answer: str | bytes):
    """The first gets the beginning of an answer that fails; the second has been asked, too."""
    first = server.accept()
    first.read_request()
    first.send(answer)
    second = server.accept()
    second.read_request()
    return first, second


@pytest.mark.parametrize("kind", NO_ANSWER)
@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503, 504, 529])
def test_an_answer_before_a_connection_failure_is_the_last(one, vendor, status, kind):
    prefix = one.pooled(vendor.url)
    first = refusal(status, "first")
    vendor.script(first, Fault(kind))
    is_as_it_was(ask(one[0], prefix), first)
    assert len(vendor.received) == 2


@pytest.mark.parametrize(
    "steps, last",
    [
        (["first", None, None, None], "first"),
        (["first", "second", None, None], "second"),
        (["first", None, "third", None], "third"),
        ([None, "second", None, None], "second"),
        (["first", None, None, "fourth"], "fourth"),
        ([None, None, "third", "fourth"], "fourth"),
    ],
)
def test_the_last_of_several_answers(one, vendor, steps, last):
    prefix = one.pooled(vendor.url, len(steps))
    replies = {step: refusal(500 + 2 * (number % 2), step) for number, step in enumerate(steps) if step}
    vendor.script(*[replies[step] if step else Fault("close_before_head") for step in steps])
    is_as_it_was(ask(one[0], prefix), replies[last])
    assert len(vendor.received) == len(steps)


def test_a_key_that_answers_after_all(one, vendor):
    prefix = one.pooled(vendor.url, 4)
    vendor.script(refusal(429, "first"), Fault("close_before_head"), refusal(500, "third"))
    answer = ask(one[0], prefix)
    assert answer.status == 200 and "x-which" not in answer.head


def test_refused_after_an_answer(one):
    """The vendor goes down between two tries."""
    with RawServer() as server:
        prefix = one.pooled(server.url)
        asking = Timed(lambda: ask(one[0], prefix))
        connection = server.accept()
        connection.read_request()
        server.listener.close()
        connection.send("HTTP/1.1 429 Slow Down\r\nContent-Length: 9\r\nX-Which: only\r\n\r\nnot today")
        answer = asking.get()
    assert (answer.status, answer.body, answer.header("x-which")) == (429, b"not today", "only")


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("size", [100_000, 5_000_000])
def test_a_large_answer_passes_whole(one, vendor, framing, size):
    """Larger than what is held: it waited on its connection."""
    body = bytes(range(256)) * (size // 256)

    def answer(connection, _):
        head = "HTTP/1.1 529 Busy\r\nX-Which: large\r\n"
        if framing == "length":
            connection.send(head + f"Content-Length: {len(body)}\r\n\r\n")
            connection.send(body)
        elif framing == "chunked":
            connection.send(head + "Transfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 50_000):
                connection.send(chunk(body[start : start + 50_000]))
            connection.send(b"0\r\n\r\n")
        else:
            connection.send(head + "Connection: close\r\n\r\n")
            connection.send(body)
            connection.half_close()

    prefix = one.pooled(vendor.url)
    vendor.script(answer, Fault("close_before_head"))
    got = ask(one[0], prefix)
    assert got.status == 529 and got.header("x-which") == "large" and got.body == body
    assert len(vendor.received) == 2


def test_it_is_streamed(one):
    """What comes of it after the last try leaves as it comes."""
    with RawServer() as server:
        prefix = one.pooled(server.url)
        client = one[0].connect()
        client.send(request_bytes("POST", prefix + "/x", [], b"question"))
        first, second = two_tries(server, b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"one"))
        assert client.silent(0.2)
        second.close()
        head, _ = client.read_response_head()
        assert b" 500 " in head.line and client.read_chunk() == b"one"
        for piece in (b"two", b"three"):
            first.send(chunk(piece))
            assert client.read_chunk() == piece
        first.send(b"0\r\n\r\n")
        assert client.read_chunk() == b""


def test_it_breaks_off_where_the_vendor_did(one):
    with RawServer() as server:
        prefix = one.pooled(server.url)
        asking = Timed(lambda: ask(one[0], prefix))
        first, second = two_tries(server, "HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\nhalf")
        first.close()
        second.close()
        with pytest.raises(Broken) as broken:
            asking.get()
    assert broken.value.body == b"half"


def test_a_vendor_that_closes_meanwhile_is_heard_to_the_end(one):
    with RawServer() as server:
        prefix = one.pooled(server.url)
        asking = Timed(lambda: ask(one[0], prefix))
        first, second = two_tries(server, "HTTP/1.1 503 Oh\r\nConnection: close\r\n\r\nall ")
        first.send("of it")
        first.close()
        second.reset()
        answer = asking.get()
    assert (answer.status, answer.body) == (503, b"all of it")


def test_compressed_bytes_and_repeated_fields(one, vendor):
    packed = gzip.compress(b'{"error":{"message":"slow down"}}')

    def answer(connection, _):
        connection.send(
            b"HTTP/1.1 429 Too Many\r\nSet-Cookie: a=1\r\nx-B: 2\r\nSet-Cookie: c=3\r\nContent-Encoding: gzip\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(packed), packed)
        )

    prefix = one.pooled(vendor.url)
    vendor.script(answer, Fault("close_before_head"))
    got = ask(one[0], prefix)
    assert got.status == 429 and got.body == packed
    assert got.head.without("date", "content-length", "connection") == [
        (b"Set-Cookie", b"a=1"),
        (b"x-B", b"2"),
        (b"Set-Cookie", b"c=3"),
        (b"Content-Encoding", b"gzip"),
    ]


def test_head_requests(one, vendor):
    prefix = one.pooled(vendor.url)
    vendor.script(refusal(503, "head"), Fault("close_before_head"))
    answer = one[0].request("HEAD", prefix + "/x")
    assert (answer.status, answer.body, answer.header("x-which")) == (503, b"", "head")


def test_over_tls(one, tls_vendor):
    prefix = one.pooled(tls_vendor.url, 3)
    first = refusal(429, "tls", 300_000)
    tls_vendor.script(first, Fault("close_before_head"), Fault("reset_before_head"))
    is_as_it_was(ask(one[0], prefix), first)


def test_the_clients_connection_goes_on(one, vendor):
    prefix = one.pooled(vendor.url)
    client = one[0].connect()
    vendor.script(refusal(500, "kept"), Fault("close_before_head"))
    assert client.request("POST", prefix + "/x", [], b"body").status == 500
    assert client.request("POST", prefix + "/x", [], b"body").status == 200


def test_while_the_body_still_comes(one, vendor):
    """The vendor refuses what it has not read to its end; no other key gets an answer."""
    with RawServer() as server:
        prefix = one.pooled(server.url)
        client = one[0].connect()
        client.send(request_bytes("POST", prefix + "/x", [("Content-Length", "100")]) + b"begin")
        first = server.accept()
        first.read_until(b"begin")
        first.send("HTTP/1.1 429 Slow Down\r\nContent-Length: 5\r\n\r\nlater")
        second = server.accept()
        second.read_until(b"begin")
        client.send(b"more")
        second.read_until(b"more")
        second.close()
        answer = client.read_response()
        assert (answer.status, answer.body) == (429, b"later")
        assert client.wait_end(2) in ("fin", "rst")


def test_hang_up_ends_both(one):
    with RawServer() as server:
        prefix = one.pooled(server.url)
        held = Held(one[0], prefix)
        first, second = two_tries(server, "HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\nhalf")
        held.close()
        began = time.monotonic()
        assert first.wait_end(2) and second.wait_end(2)
        assert time.monotonic() - began < 1
        assert not server.pending(0.3)


def test_the_mappings_time_ends_both(one):
    with RawServer() as server:
        prefix = one.pooled(server.url, timeout_seconds=1)
        asking = Timed(lambda: ask(one[0], prefix))
        first, second = two_tries(server, "HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\nhalf")
        assert fault_of(asking.get()) == (504, "upstream_timeout")
        assert 0.8 < asking.took < 2
        assert first.wait_end(2) and second.wait_end(2)


def test_an_answer_ends_the_one_that_waits(one):
    """A success frees the connection of the failure before it, however long it streams."""
    with RawServer() as server:
        prefix = one.pooled(server.url)
        client = one[0].connect()
        client.send(request_bytes("POST", prefix + "/x", [], b"question"))
        first, second = two_tries(server, "HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\nhalf")
        second.send("HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert first.wait_end(2)
        second.send(chunk(b"word"))
        head, _ = client.read_response_head()
        assert b" 200 " in head.line and client.read_chunk() == b"word"


@pytest.mark.concurrency
def test_whatever_happens_the_last_answer_is_the_clients(one, vendor):
    """Many at once, each try with a fate of its own: what came last for a request is what its client gets."""
    fates = random.Random(20)
    given: dict[str, list[tuple[int, bytes] | None]] = {}
    lock = threading.Lock()

    def talk(connection, received):
        with lock:
            fate = fates.choice(["answer", "fail", "fail", "close", "reset"])
            status = 200 if fate == "answer" else fates.choice([401, 403, 429, 500, 502, 503, 504, 529])
            body = fates.randbytes(fates.choice([0, 10, 70_000, 300_000]))
            whole = fate in ("answer", "fail")
            given.setdefault(received.path, []).append((status, body) if whole else None)
        if whole:
            connection.send(f"HTTP/1.1 {status} Sim\r\nRetry-After: 0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        elif fate == "reset":
            connection.reset()
        else:
            connection.close()

    def send(number: int):
        size = [0, 100, 100_000, 1024 * 1024][number % 4]
        answer = one[0].request("POST", f"{prefixes[number // 4]}/{number}", [], b"b" * size)
        return answer.status, answer.body, answer.header("x-apiproxy-error")

    prefixes = [one.pooled(vendor.url, 4) for _ in range(60)]  # keys do not last long here
    vendor.script(*[talk] * 1000)
    answers = at_once([lambda n=n: send(n) for n in range(240)], 16)
    tries = 0
    for number, (status, body, code) in enumerate(answers):
        steps = given.get(f"/{number}", [])
        tries += len(steps)
        answered = [step for step in steps if step]
        if answered:
            assert (status, body, code) == (*answered[-1], None), (number, steps)
        else:
            assert (status, code) in ([(502, "upstream_error")] if steps else REFUSED_BY_POOL), (number, steps)
    assert tries > 300, tries


@pytest.mark.timing
def test_what_waits_is_bounded(one, vendor):
    """However large the answers that failed are: their connections hold them back."""
    together, size = 20, 8 * 1024 * 1024
    block, gone, seen = b"x" * size, threading.Event(), set()

    def talk(connection, received):
        if received.path in seen:  # the second key's try
            gone.wait(20)
            connection.close()
        else:
            seen.add(received.path)
            connection.send(f"HTTP/1.1 500 Oh\r\nContent-Length: {size}\r\n\r\n")
            connection.send(block)

    prefix = one.pooled(vendor.url)
    assert ask(one[0], prefix).status == 200
    pools = [one.pooled(vendor.url) for _ in range(together)]
    vendor.clear()
    vendor.script(*[talk] * (2 * together))
    before = one[0].resident_bytes()
    clients = [one[0].connect() for _ in range(together)]
    for number, client in enumerate(clients):
        client.send(request_bytes("POST", f"{pools[number]}/{number}", [], chat_body()))
    vendor.wait(2 * together)
    time.sleep(0.2)
    grown = one[0].resident_bytes() - before
    gone.set()
    answers = at_once([lambda c=client: c.read_response() for client in clients], together)
    assert {(a.status, len(a.body)) for a in answers} == {(500, size)}
    assert grown < together * 200 * 1024, grown
