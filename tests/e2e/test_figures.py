"""Pages and figures."""

from __future__ import annotations

import json
import re
import time

import pytest

from support.gateway import Gateway
from support.process import HeldPort, eventually
from support.vendor import Fault, Reply
from support.wire import Broken

pytestmark = pytest.mark.concurrency

PERFORMANCE = {
    "requests_per_sec", "avg_response_time_ms", "p50_response_time_ms", "p95_response_time_ms", "p99_response_time_ms", "error_rate",
    "success_rate", "memory_usage_mb", "cpu_percent", "active_requests", "active_connections",
}
TOTALS = {"requests", "errors", "bytes_in", "bytes_out", "input_tokens", "output_tokens", "dropped_events"}
ENDPOINT = {
    "prefix", "requests", "errors", "error_rate", "requests_per_sec", "avg_response_time_ms", "p50_response_time_ms", "p95_response_time_ms",
    "p99_response_time_ms", "active_requests", "bytes_in", "bytes_out", "input_tokens", "output_tokens", "last_request_at",
}
FAMILIES = [
    "apiproxy_build_info", "apiproxy_requests_total", "apiproxy_request_duration_seconds", "apiproxy_time_to_first_byte_seconds",
    "apiproxy_overhead_seconds", "apiproxy_active_requests", "apiproxy_connections", "apiproxy_redis_up", "apiproxy_config_reloads_total",
    "apiproxy_stats_dropped_total", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds",
]


def stats(gateway) -> dict:
    return gateway.get("/stats").json()


def endpoint(gateway, prefix: str) -> dict:
    return next((e for e in stats(gateway)["endpoints"] if e["prefix"] == prefix), {})


def metrics(gateway) -> str:
    answer = gateway.api("GET", "/metrics")
    assert answer.status == 200 and answer.header("content-type").startswith("text/plain")
    return answer.body.decode()


# -- pages


@pytest.mark.parametrize("path", ["/", "/index.html", "/admin"])
def test_pages(gateway, path):
    answer = gateway.get(path)
    assert answer.status == 200 and answer.header("content-type").startswith("text/html")
    assert answer.header("content-security-policy")
    text = answer.body.decode()
    for place in re.findall(r'(?:src|href)="([^"#]+)"', text):
        if place.startswith(("http:", "https:", "//")):
            assert re.search(rf'<a[^>]+href="{re.escape(place)}"', text), f"{path} asks {place}"
        elif place.startswith("/static/"):
            assert gateway.get(place.partition("?")[0]).status == 200, place


def test_pages_answer_head(gateway):
    client = gateway.connect()
    answer = client.request("HEAD", "/")
    assert answer.status == 200 and int(answer.header("content-length")) > 0
    assert client.request("GET", "/health").status == 200


# -- /health


def test_health(gateway):
    answer = gateway.get("/health")
    assert answer.status == 200 and answer.header("content-type").startswith("application/json")
    data = answer.json()
    assert (data["status"], data["redis"]) == ("ok", "ok")


# -- /stats


def test_stats_shape(gateway, vendor):
    prefix = gateway.route(vendor.url)
    gateway.get(prefix + "/")
    eventually(lambda: endpoint(gateway, prefix), 5)
    data = stats(gateway)
    assert {"version", "node", "uptime_seconds", "performance", "totals", "endpoints", "history"} <= set(data)
    assert PERFORMANCE <= set(data["performance"]) and TOTALS <= set(data["totals"])
    assert ENDPOINT <= set(endpoint(gateway, prefix))
    assert all({"at", "requests", "errors", "p95_response_time_ms"} <= set(point) for point in data["history"])


def test_stats_count_requests_bytes_and_errors(gateway, vendor):
    prefix = gateway.route(vendor.url)
    for _ in range(10):
        gateway.request("POST", prefix + "/", [], b"x" * 1000)
    vendor.script(Reply(500), Reply(404), Fault("close_before_head"), Fault("close_in_body"))
    for _ in range(4):
        try:
            gateway.request("POST", prefix + "/", [], b"x")
        except Broken:
            pass
    entry = eventually(lambda: (e := endpoint(gateway, prefix)).get("requests") == 14 and e, 5)
    assert entry["errors"] == 3, "500, 502 and the broken-off one; 404 is none"
    assert entry["error_rate"] == pytest.approx(3 / 14 * 100, abs=0.01)
    assert entry["bytes_in"] >= 10_000 and entry["bytes_out"] > 0
    assert entry["p50_response_time_ms"] <= entry["p95_response_time_ms"] <= entry["p99_response_time_ms"]
    assert entry["requests_per_sec"] > 0 and entry["active_requests"] == 0
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", entry["last_request_at"])


def test_rates_have_two_decimals(gateway, vendor):
    prefix = gateway.route(vendor.url)
    vendor.script(Reply(500), None, None)
    for _ in range(3):
        gateway.get(prefix + "/")
    entry = eventually(lambda: (e := endpoint(gateway, prefix)).get("requests") == 3 and e, 5)
    assert entry["error_rate"] == 33.33
    performance = stats(gateway)["performance"]
    for name in ("error_rate", "success_rate", "memory_usage_mb"):
        assert performance[name] == round(performance[name], 2), name
    text = gateway.get("/stats").body.decode()
    for name in ("error_rate", "success_rate", "cpu_percent", "memory_usage_mb"):
        assert re.findall(rf'"{name}":([^,}}]+)', text)
        assert all(re.fullmatch(r"\d+\.\d\d", value) for value in re.findall(rf'"{name}":([^,}}]+)', text)), name


def test_stats_know_the_time_a_request_takes(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/")
    time.sleep(0.3)
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    client.read_response()
    entry = eventually(lambda: endpoint(gateway, prefix), 5)
    assert 290 <= entry["p50_response_time_ms"] < 600 and 290 <= entry["avg_response_time_ms"] < 600


def test_stats_show_what_is_active(gateway, server, prefix):
    client, upstream = gateway.begin(server, prefix + "/")
    eventually(lambda: endpoint(gateway, prefix).get("active_requests") == 1, 5)
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n")
    client.read_response()
    eventually(lambda: endpoint(gateway, prefix).get("active_requests") == 0, 5)


def test_stats_count_tokens_of_transparent_mappings(gateway, vendor):
    prefix = gateway.route(vendor.url)
    body = json.dumps({"model": "m", "messages": []})
    gateway.request("POST", prefix + "/v1/chat/completions", [], body)
    entry = eventually(lambda: (e := endpoint(gateway, prefix)).get("input_tokens") and e, 5)
    assert (entry["input_tokens"], entry["output_tokens"]) == (11, 7)


def test_unmatched_requests_are_not_counted(gateway):
    before = stats(gateway)["totals"]["requests"]
    for number in range(5):
        gateway.get(f"/unmapped-{number}")
    time.sleep(1)
    data = stats(gateway)
    assert data["totals"]["requests"] == before
    assert not any("unmapped" in e["prefix"] for e in data["endpoints"])


def test_totals_survive_a_restart(vendor):
    with Gateway() as gateway:
        prefix = gateway.route(vendor.url)
        for _ in range(7):
            gateway.get(prefix + "/")
        gateway.restart()
        eventually(lambda: stats(gateway)["totals"]["requests"] == 7, 5)


def test_cluster_scope_sums_the_nodes(redis_server, vendor):
    with Gateway(API_PROXY_REDIS_URL=redis_server.url) as one, Gateway(API_PROXY_REDIS_URL=redis_server.url) as two:
        prefix = one.route(vendor.url)
        eventually(lambda: two.get(prefix + "/").status == 200, 3)
        for _ in range(4):
            one.get(prefix + "/")
        total = lambda: two.get("/stats?scope=cluster").json()["totals"]["requests"]  # noqa: E731
        eventually(lambda: total() >= 5, 6)
        assert stats(one)["node"] != stats(two)["node"]


def test_stats_can_be_switched_off(vendor):
    with Gateway(API_PROXY_STATS="off") as gateway:
        prefix = gateway.route(vendor.url)
        assert gateway.get(prefix + "/").status == 200
        assert gateway.get("/stats").status in (200, 404)


# -- who may see them


def test_public_stats_off():
    with Gateway(API_PROXY_PUBLIC_STATS="off") as gateway:
        assert gateway.get("/stats").status == 401
        assert gateway.get("/").status == 401
        assert gateway.api("GET", "/stats").status == 200
        assert gateway.get("/health").status == 200


def test_operations_listener(vendor):
    ops = HeldPort()
    with Gateway(API_PROXY_OPS_LISTEN=f"127.0.0.1:{ops.number}", API_PROXY_PUBLIC_STATS="off") as gateway:
        prefix = gateway.route(vendor.url)
        for path in ("/health", "/metrics", "/performance", "/errors", "/stats"):
            assert gateway.request("GET", path, port=ops.number).status == 200, path
        assert gateway.request("GET", "/api/mappings", port=ops.number).status == 401
        assert gateway.request("GET", prefix + "/", port=ops.number).status == 404, "it proxies nothing"
    assert vendor.received == []
    ops.release()


# -- /performance and /errors


def test_performance(gateway):
    answer = gateway.api("GET", "/performance")
    assert answer.status == 200 and answer.json()


def test_errors_tell_what_went_wrong_without_secrets(gateway):
    prefix = gateway.route("http://127.0.0.1:9")
    gateway.request("GET", prefix + "/x?key=sk-hidden", [("Authorization", "Bearer sk-hidden")])
    answer = gateway.api("GET", "/errors")
    assert answer.status == 200
    text = json.dumps(answer.json())
    assert "127.0.0.1:9" in text or prefix in text
    assert "sk-hidden" not in text


# -- /metrics


def test_metrics_families(gateway, vendor):
    prefix = gateway.route(vendor.url)
    gateway.request("POST", prefix + "/v1/chat/completions", [], '{"messages":[]}')
    eventually(lambda: f'mapping="{prefix}"' in metrics(gateway), 5)
    text = metrics(gateway)
    for family in FAMILIES:
        assert re.search(rf"^# TYPE {family} (counter|gauge|histogram)$", text, re.M), family
    assert re.search(rf'^apiproxy_requests_total\{{mapping="{prefix}",status="200"\}} 1$', text, re.M)
    for family in ("request_duration", "time_to_first_byte", "overhead"):
        assert f'apiproxy_{family}_seconds_count{{mapping="{prefix}"}} 1' in text
        assert f'apiproxy_{family}_seconds_bucket{{mapping="{prefix}",le="+Inf"}} 1' in text
    assert f'apiproxy_tokens_total{{mapping="{prefix}",direction="input"}} 11' in text
    assert f'apiproxy_tokens_total{{mapping="{prefix}",direction="output"}} 7' in text
    assert re.search(r"^apiproxy_redis_up 1$", text, re.M)


def test_metrics_are_well_formed(gateway, vendor):
    gateway.get(gateway.route(vendor.url) + "/")
    text = metrics(gateway)
    assert text.endswith("\n")
    typed, seen = set(), set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in typed, f"{name} twice"
            typed.add(name)
        elif not line.startswith("#"):
            match = re.fullmatch(r'([a-zA-Z_:][\w:]*)(\{[^{}]*\})? (\S+)', line)
            assert match, line
            float(match[3])
            assert line.rsplit(" ", 1)[0] not in seen, f"{line} twice"
            seen.add(line.rsplit(" ", 1)[0])
            assert re.sub(r"_(bucket|sum|count)$", "", match[1]) in typed or match[1] in typed, line


def test_unmatched_paths_never_become_labels(gateway):
    for number in range(5):
        gateway.get(f"/random-path-{number}")
    gateway.request("ODD", "/random-path")
    time.sleep(0.5)
    assert "random-path" not in metrics(gateway)


def test_rejections_are_counted(gateway, server):
    prefix = gateway.route(server.url, max_body_bytes=5)
    assert gateway.request("POST", prefix + "/", [], b"123456").status == 413
    wanted = f'apiproxy_rejected_total{{mapping="{prefix}",code="body_too_large"}} 1'
    eventually(lambda: wanted in metrics(gateway), 5)
