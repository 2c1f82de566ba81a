"""Which request goes where."""

from __future__ import annotations

import pytest

from support.wire import RawServer, request_bytes


def line_upstream(gateway, server, target: str, method: str = "GET") -> bytes:
    """Sends a request with this target; returns the request line that arrives."""
    client = gateway.connect()
    client.send(request_bytes(method, target))
    upstream = server.accept()
    head = upstream.read_head()
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n")
    assert client.read_response().status == 204
    return head.line


@pytest.mark.parametrize(
    "rest,arrives",
    [
        ("", "/"),
        ("/", "/"),
        ("?x", "/?x"),
        ("?", "/?"),
        ("/?", "/?"),
        ("/v1/models?a=%2F", "/v1/models?a=%2F"),
        ("/a//b///c/", "/a//b///c/"),
        ("//", "//"),
        ("/%41%2f%2F%zz%", "/%41%2f%2F%zz%"),
        ("/a?b=../c&d=/./e", "/a?b=../c&d=/./e"),
        ("/a??b?c#d", "/a??b?c#d"),
        ("/.a/..b/c../...", "/.a/..b/c../..."),
        ("/!\"#$&'()*+,;<=>@[\\]^`{|}~", "/!\"#$&'()*+,;<=>@[\\]^`{|}~"),
        ("/\x80\xff?\xe4", "/\x80\xff?\xe4"),
        ("/models/gemini:streamGenerateContent?alt=sse&key=k", "/models/gemini:streamGenerateContent?alt=sse&key=k"),
    ],
)
def test_rest_and_query_go_on_byte_for_byte(gateway, server, prefix, rest, arrives):
    assert line_upstream(gateway, server, prefix + rest) == b"GET " + arrives.encode("latin-1") + b" HTTP/1.1"


@pytest.mark.parametrize(
    "base,rest,arrives",
    [
        ("/v1", "", "/v1"),
        ("/v1", "/", "/v1/"),
        ("/v1", "/chat/completions", "/v1/chat/completions"),
        ("/v1", "?x=1", "/v1?x=1"),
        ("/a/b%20c", "/d", "/a/b%20c/d"),
    ],
)
def test_base_path_of_the_target(gateway, server, base, rest, arrives):
    prefix = gateway.route(server.url + base)
    assert line_upstream(gateway, server, prefix + rest) == f"GET {arrives} HTTP/1.1".encode()


def test_longest_prefix_wins_on_a_segment_boundary(gateway):
    with RawServer() as short, RawServer() as long:
        gateway.map("/seg", short.url)
        gateway.map("/seg/ment", long.url)
        assert line_upstream(gateway, short, "/seg/x") == b"GET /x HTTP/1.1"
        assert line_upstream(gateway, long, "/seg/ment/x") == b"GET /x HTTP/1.1"
    with RawServer() as short, RawServer() as long:
        gateway.map("/seg", short.url)
        gateway.map("/seg/ment", long.url)
        assert line_upstream(gateway, long, "/seg/ment?q") == b"GET /?q HTTP/1.1"
        assert line_upstream(gateway, short, "/seg/mental") == b"GET /mental HTTP/1.1"
    with RawServer() as short:
        gateway.map("/seg", short.url)
        gateway.unmap("/seg/ment")
        assert line_upstream(gateway, short, "/seg/ment/x") == b"GET /ment/x HTTP/1.1"


@pytest.mark.parametrize("change", [lambda p: p + "x", lambda p: p[:-1], lambda p: p.upper(), lambda p: "/" + p, lambda p: "/nowhere" + p])
def test_other_paths_are_404(gateway, prefix, change):
    answer = gateway.get(change(prefix) + "/a")
    assert (answer.status, answer.header("x-apiproxy-error")) == (404, "no_mapping")
    assert answer.json()["error"]["code"] == "no_mapping"


@pytest.mark.parametrize(
    "rest",
    ["/.", "/..", "/./a", "/../a", "/a/..", "/a/./b", "/%2e", "/%2E%2e/a", "/.%2e/a", "/%2e./a", "/a/%2e%2E?x", "/..?x", "/../../etc/passwd"],
)
def test_dot_segments_are_400(gateway, server, prefix, rest):
    answer = gateway.get(prefix + rest)
    assert (answer.status, answer.header("x-apiproxy-error")) == (400, "bad_request")
    assert not server.pending()


@pytest.mark.parametrize("path", ["/..", "/./health", "/%2e%2e/health", "/static/../health"])
def test_dot_segments_are_400_elsewhere_too(gateway, path):
    assert gateway.get(path).status == 400


def test_absolute_form_is_routed_by_its_path(gateway, server, prefix):
    line = line_upstream(gateway, server, f"http://somewhere.test:81{prefix}/a?b=c")
    assert line == b"GET /a?b=c HTTP/1.1"
    assert server.connections[0].requests == []


def test_absolute_form_sends_the_targets_host(gateway, server, prefix):
    client = gateway.connect()
    client.send(request_bytes("GET", f"https://other.test{prefix}/"))
    assert server.accept().read_head().all("host") == [server.host]


def test_absolute_form_with_a_dot_segment(gateway, prefix):
    assert gateway.get(f"http://h{prefix}/../x").status == 400


@pytest.mark.parametrize("host", ["user@h", "user:pass@h:80", "h:99x", "h:65536", ":80", "[::1"])
def test_absolute_form_with_a_bad_host(gateway, prefix, host):
    assert gateway.get(f"http://{host}{prefix}/").status == 400


def test_absolute_form_of_an_own_page(gateway):
    assert gateway.get("http://anything/health").status == 200


def test_options_star_is_404(gateway):
    assert gateway.request("OPTIONS", "*").status == 404


@pytest.mark.parametrize("target", ["example.com:443", "{prefix}", "127.0.0.1:80"])
def test_connect_is_405(gateway, server, prefix, target):
    answer = gateway.connect()
    answer.send(request_bytes("CONNECT", target.format(prefix=prefix)))
    response = answer.read_response()
    assert (response.status, response.header("x-apiproxy-error")) == (405, "method_not_allowed")
    assert response.header("allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert not server.pending()


def test_options_on_a_mapping_goes_up(gateway, server, prefix):
    assert line_upstream(gateway, server, prefix + "/a", "OPTIONS") == b"OPTIONS /a HTTP/1.1"


# -- how long a head may be


def with_line_of(prefix: str, length: int) -> bytes:
    """A GET whose request line has this many bytes, without its CRLF."""
    fixed = len(f"GET {prefix}/ HTTP/1.1")
    return f"GET {prefix}/{'a' * (length - fixed)} HTTP/1.1\r\nHost: g\r\n\r\n".encode()


def with_fields_of(prefix: str, size: int, lines: int) -> bytes:
    """A GET whose field lines, each with its CRLF, have this size and number."""
    fields = ["Host: g\r\n"] + [f"X-{n:03}: \r\n" for n in range(lines - 1)]
    missing = size - sum(map(len, fields))
    share, rest = divmod(missing, lines - 1)
    for n in range(1, lines):
        fields[n] = fields[n][:-2] + "v" * (share + (rest if n == 1 else 0)) + "\r\n"
    assert sum(map(len, fields)) == size
    return (f"GET {prefix}/ HTTP/1.1\r\n" + "".join(fields) + "\r\n").encode()


KIB = 1024


def status_of(gateway, raw: bytes) -> int:
    client = gateway.connect()
    try:
        client.send(raw)
    except OSError:
        pass  # refused before all of it was read
    return client.read_response().status


def test_long_request_line_passes(gateway, server, prefix):
    client = gateway.connect()
    client.send(with_line_of(prefix, 32 * KIB - 2))
    assert len(server.accept().read_head().line) == 32 * KIB - 2 - len(prefix)


@pytest.mark.parametrize("length", [32 * KIB + 1, 33 * KIB, 100 * KIB, 1024 * KIB])
def test_longer_request_line_is_414(gateway, server, prefix, length):
    assert status_of(gateway, with_line_of(prefix, length)) == 414
    assert not server.pending()


def test_endless_request_line_is_414(gateway):
    assert status_of(gateway, b"GET /" + b"a" * 200 * KIB) == 414


@pytest.mark.parametrize("size,lines", [(16 * KIB, 2), (16 * KIB, 100), (2 * KIB, 100), (15 * KIB, 3)])
def test_usual_heads_pass(gateway, server, prefix, size, lines):
    client = gateway.connect()
    client.send(with_fields_of(prefix, size, lines))
    assert len(server.accept().read_head().fields) == lines


def test_long_line_and_many_fields_together_pass(gateway, server, prefix):
    client = gateway.connect()
    line = with_line_of(prefix, 32 * KIB - 2).partition(b"\r\n")[0]
    fields = with_fields_of(prefix, 16 * KIB, 100).partition(b"\r\n")[2]
    client.send_pieces(line + b"\r\n" + fields, 1400)
    assert len(server.accept().read_head().fields) == 100


@pytest.mark.parametrize("size,lines", [(32 * KIB + 1, 2), (32 * KIB + 1, 100), (40 * KIB, 3), (3 * KIB, 201), (300 * KIB, 100), (12 * KIB, 1000)])
def test_larger_heads_are_431(gateway, server, prefix, size, lines):
    assert status_of(gateway, with_fields_of(prefix, size, lines)) == 431
    assert not server.pending()


def test_endless_head_is_431(gateway):
    assert status_of(gateway, b"GET /x HTTP/1.1\r\nHost: g\r\nX: " + b"a" * 200 * KIB) == 431


# -- what may be mapped

GOOD_PREFIXES = ["/a", "/A.b_c~d-9", "/x/y/z", "/apix", "/statistics", "/healthy", "/v1", "/.hidden", "/a..b", "/" + "p" * 127]
BAD_PREFIXES = [
    "", "a", "a/b", "/a/", "//a", "/a//b", "/a b", "/a?b", "/a#b", "/a%20b", "/\u00e4", "/a/./b", "/..", "/.", "/a/..", "/a*", "/" + "p" * 128,
    "/", "/index.html", "/static", "/stats", "/admin", "/api", "/auth", "/health", "/metrics", "/performance", "/errors", "/.well-known",
    "/static/x", "/stats/x", "/admin/x", "/api/mappings", "/auth/login", "/health/x", "/metrics/a", "/errors/b", "/.well-known/acme-challenge", "/index.html/x",
]
GOOD_TARGETS = [
    "http://h", "https://h", "http://h:1", "http://h:65535", "http://127.0.0.1:80/b", "http://[::1]:8080/b", "https://[2001:db8::1]",
    "https://api.openai.com/v1", "http://h/a/b.c_d~e-f", "http://xn--nxasmq6b.test", "http://h/a%20b",
]
BAD_TARGETS = [
    "", "h", "h:80", "//h", "ftp://h", "ws://h", "http:/h", "http://", "https:///x", "http://:80", "http://h:", "http://h:0", "http://h:65536",
    "http://h:x", "http://h:80x", "http://u@h", "http://u:p@h", "http://h?x", "http://h/a?b", "http://h#f", "http://h/a#f", "http://a b",
    "http://h/a b", "http://[::1", "http://::1", "http://[x]", "http://h\r\nX: y", "http://h/\u0001", "http://h/" + "a" * 2048,
]


@pytest.mark.parametrize("prefix", GOOD_PREFIXES)
def test_good_prefix(gateway, prefix):
    assert gateway.map(prefix, "http://h")["prefix"] == prefix
    gateway.unmap(prefix)


@pytest.mark.parametrize("prefix", BAD_PREFIXES)
def test_bad_prefix(gateway, prefix):
    answer = gateway.api("POST", "/api/mappings", {"prefix": prefix, "target": "http://h"})
    assert answer.status == 400, answer.body
    assert "prefix" in answer.json()["error"]["message"]


@pytest.mark.parametrize("target", GOOD_TARGETS)
def test_good_target(gateway, target):
    assert gateway.map("/good-target", target)["target"] == target
    gateway.unmap("/good-target")


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_bad_target(gateway, target):
    answer = gateway.api("POST", "/api/mappings", {"prefix": "/bad-target", "target": target})
    assert answer.status == 400, answer.body
    assert "target" in answer.json()["error"]["message"]
    assert gateway.get("/bad-target").status == 404


def test_longest_target_is_2048(gateway):
    target = "http://h/" + "a" * (2048 - 9)
    assert gateway.map("/long-target", target)["target"] == target
    gateway.unmap("/long-target")


def test_disabled_mapping_is_404(gateway, server):
    prefix = gateway.route(server.url, enabled=False)
    answer = gateway.get(prefix + "/")
    assert (answer.status, answer.header("x-apiproxy-error")) == (404, "no_mapping")


@pytest.mark.parametrize("path", ["/nope", "/health/x", "/stats/x", "/api/nope", "/static/nope.js"])
def test_reserved_paths_never_reach_an_upstream(gateway, path):
    assert gateway.get(path).status in (401, 404)
