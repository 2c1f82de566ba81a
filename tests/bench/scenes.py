"""The scenes: who takes part, how a window is measured, what is shown of it.

A window is one measurement of one proxy, a round one window of each; rounds go on in turn, so that
whatever else the machine does meets all alike. Absolute figures are medians of windows, ratios are
medians of the rounds' ratios to nginx.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from proxies import (
    LOAD_CORE, Apiproxy, ApiproxyManaged, ApiproxyRedisApart, Direct, Haproxy, Nginx, NginxTuned, Proxy,
    descriptor_limit, pinned,
)

Figures = dict[str, float]
EVENTS = "/bench/v1/events?interval_us={}"
MEGABYTE = 1_000_000


@dataclass
class Tools:
    """What a window is measured with."""

    load: str
    vendor_port: int
    quick: bool
    turn: int = 0  # which of a pair comes first


@dataclass
class Column:
    key: str
    title: str
    form: str = "{:,.0f}"
    ratio: bool = False


@dataclass
class Scene:
    name: str
    title: str
    proxies: list[type[Proxy]]
    window: Callable[[Tools, Proxy], Figures]
    columns: list[Column]
    rounds: int
    quick_rounds: int
    reference: type[Proxy] | None = None  # its figures are taken off
    one_at_a_time: bool = False  # a new process for each window: memory is measured
    in_quick: bool = True
    note: str = ""


# ---- the load ------------------------------------------------------------------------------------


def load_command(tools: Tools, proxy: Proxy, mode: str, **options: object) -> list[str]:
    options = {"key": proxy.key, "port": proxy.port, **options}
    options["pids"] = ",".join(map(str, proxy.pids()))
    options["more_pids"] = ",".join(map(str, proxy.redis_pids()))
    return pinned(LOAD_CORE, tools.load, mode, *(f"{name}={value}" for name, value in options.items()))


def run_load(tools: Tools, proxy: Proxy, mode: str, **options: object) -> Figures:
    done = subprocess.run(load_command(tools, proxy, mode, **options), capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{proxy.name}: {done.stderr.strip() or done.returncode}")
    return json.loads(done.stdout)


# ---- windows -------------------------------------------------------------------------------------


def small_requests(connections: int) -> Callable[[Tools, Proxy], Figures]:
    def window(tools: Tools, proxy: Proxy) -> Figures:
        r = run_load(
            tools, proxy, "requests", connections=connections, warm_ms=100 + connections // 3, measure_ms=500
        )
        answered = max(r["answered"], 1)
        return {
            "requests_per_s": answered / r["elapsed_ns"] * 1e9,
            "cpu_us": r["cpu_ns"] / answered / 1000,
            "redis_cpu_us": r["more_cpu_ns"] / answered / 1000,
            "p50_us": r["p50_ns"] / 1000,
            "p99_us": r["p99_ns"] / 1000,
            "errors": r["errors"],
        }

    return window


def added_latency(tools: Tools, proxy: Proxy) -> Figures:
    r = run_load(tools, proxy, "rate", connections=64, rate=2000, warm_ms=200, measure_ms=1000)
    return {
        "p50_us": r["p50_ns"] / 1000,
        "p99_us": r["p99_ns"] / 1000,
        "cpu_us": r["cpu_ns"] / max(r["answered"], 1) / 1000,
        "errors": r["errors"],
    }


def busy_streams(tools: Tools, proxy: Proxy) -> Figures:
    r = run_load(
        tools, proxy, "streams", connections=200, path=EVENTS.format(50_000), warm_ms=300, measure_ms=1000
    )
    return stream_figures(r)


def stream_figures(r: dict) -> Figures:
    return {
        "streams": r["streams"],
        "events": r["answered"],
        "p50_us": r["p50_ns"] / 1000,
        "p99_us": r["p99_ns"] / 1000,
        "cpu_percent": r["cpu_ns"] / r["elapsed_ns"] * 100,
        "cpu_us": r["cpu_ns"] / max(r["answered"], 1) / 1000,
        "lost": r["lost"],
    }


def quiet_streams(count: int) -> Callable[[Tools, Proxy], Figures]:
    """One event each 2 s; the memory is read while all are still open."""

    def window(tools: Tools, proxy: Proxy) -> Figures:
        before = proxy.own_kb()
        command = load_command(
            tools, proxy, "streams", connections=count, path=EVENTS.format(2_000_000),
            warm_ms=2100, measure_ms=2000 if tools.quick else 4000, hold=1,
        )
        load = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            line = load.stdout.readline()
            if not line:
                raise RuntimeError(f"{proxy.name}: {load.stderr.read().strip()}")
            figures = stream_figures(json.loads(line))
            figures["kb_per_stream"] = (proxy.own_kb() - before) / figures["streams"]
            figures["idle_mb"] = before / 1024
            return figures
        finally:
            load.stdin.close()
            load.wait(30)

    return window


def bodies(mode: str, connections: int, megabytes: int) -> Callable[[Tools, Proxy], Figures]:
    def window(tools: Tools, proxy: Proxy) -> Figures:
        size = megabytes * MEGABYTE
        path = f"/bench/v1/download?bytes={size}" if mode == "download" else "/bench/v1/upload"
        proxy.forget_peak()
        before = proxy.own_kb()
        r = run_load(tools, proxy, mode, connections=connections, bytes=size, path=path)
        if r["errors"]:
            raise RuntimeError(f"{proxy.name}: {r['errors']} answers were no 200")
        moved = size * connections
        return {
            "mb_per_s": moved / MEGABYTE / (r["elapsed_ns"] / 1e9),
            "cpu_s_per_gb": r["cpu_ns"] / moved,
            "peak_mb": proxy.peak_kb() / 1024,
            "grown_mb": (proxy.own_kb() - before) / 1024,
        }

    return window


def metering(connections: int) -> Callable[[Tools, Proxy], Figures]:
    """The same bytes as text, where tokens are looked for, and as octets, where they are not."""

    def window(tools: Tools, proxy: Proxy) -> Figures:
        figures = {}
        for text in ("json", "sse"):
            path = f"/bench/v1/download?bytes={100 * MEGABYTE}&text={text}"
            pair = {"text": path, "octets": path + "&opaque=1"}
            for name in sorted(pair, reverse=tools.turn % 2 == 0):
                r = run_load(tools, proxy, "download", connections=connections, bytes=100 * MEGABYTE, path=pair[name])
                moved = 100 * MEGABYTE * connections
                pair[name] = moved / MEGABYTE / (r["elapsed_ns"] / 1e9), r["cpu_ns"] / moved
            figures |= {
                f"{text}_mb_per_s": pair["text"][0],
                f"{text}_lost": (1 - pair["text"][0] / pair["octets"][0]) * 100,
                f"{text}_cpu": pair["text"][1] - pair["octets"][1],
            }
        tools.turn += 1
        return figures

    return window


def idle(tools: Tools, proxy: Proxy) -> Figures:
    """The first start, on an empty directory, then one on what that left."""
    figures = {"first_ready_ms": proxy.ready_ms}
    proxy.stop()
    proxy.start(configure=False)
    figures["ready_ms"] = proxy.ready_ms
    figures["rss_mb"] = proxy.rss_kb() / 1024
    figures["own_mb"] = proxy.own_kb() / 1024
    return figures


# ---- the table of scenes -------------------------------------------------------------------------

SMALL_COLUMNS = [
    Column("requests_per_s", "requests/s", ratio=True),
    Column("cpu_us", "CPU µs/request", "{:.1f}", ratio=True),
    Column("p50_us", "p50 µs"),
    Column("p99_us", "p99 µs"),
    Column("errors", "errors"),
]
STREAM_COLUMNS = [
    Column("p50_us", "delay p50 µs"),
    Column("p99_us", "p99 µs"),
    Column("cpu_percent", "CPU % of a core", "{:.1f}", ratio=True),
    Column("lost", "lost"),
]
QUIET_COLUMNS = [Column("streams", "streams"), Column("kb_per_stream", "KB/stream", "{:.1f}", ratio=True), *STREAM_COLUMNS]
BODY_COLUMNS = [
    Column("mb_per_s", "MB/s", ratio=True),
    Column("cpu_s_per_gb", "CPU s/GB", "{:.3f}", ratio=True),
    Column("peak_mb", "peak RSS MB", "{:.1f}"),
    Column("grown_mb", "grown MB", "{:.1f}"),
]
METERING_COLUMNS = [
    Column("json_mb_per_s", "JSON MB/s"),
    Column("json_lost", "less than as octets %", "{:+.1f}"),
    Column("json_cpu", "CPU s/GB more", "{:+.3f}"),
    Column("sse_mb_per_s", "SSE MB/s"),
    Column("sse_lost", "less than as octets %", "{:+.1f}"),
    Column("sse_cpu", "CPU s/GB more", "{:+.3f}"),
]
ALL = [Nginx, Haproxy, Apiproxy]
# Each stream takes two descriptors of a proxy.
MANY = min(9000, (descriptor_limit() - 500) // 2)

SCENES = [
    Scene("small-64", "POST 0.5 KB, answer 1 KB, 64 connections", ALL, small_requests(64), SMALL_COLUMNS, 12, 5),
    Scene("small-1000", "POST 0.5 KB, answer 1 KB, 1,000 connections", ALL, small_requests(1000), SMALL_COLUMNS, 9, 4),
    Scene(
        "managed", "the same, 64 connections: client key with three limits, vendor key, metering",
        [Nginx, Apiproxy, ApiproxyManaged, ApiproxyRedisApart], small_requests(64),
        [*SMALL_COLUMNS, Column("redis_cpu_us", "Redis CPU µs", "{:.1f}")], 8, 3,
    ),
    Scene(
        "latency", "time added at 2,000 requests/s", [Direct, *ALL], added_latency,
        [
            Column("added_p50_us", "added p50 µs", ratio=True),
            Column("added_p99_us", "added p99 µs", ratio=True),
            Column("cpu_us", "CPU µs/request", "{:.1f}"),
            Column("errors", "errors"),
        ],
        6, 3, reference=Direct,
    ),
    Scene(
        "streams-200", "200 SSE streams, 20 events/s each", [Direct, *ALL], busy_streams,
        [
            Column("added_p50_us", "added p50 µs", ratio=True),
            Column("added_p99_us", "added p99 µs", ratio=True),
            Column("cpu_us", "CPU µs/event", "{:.1f}", ratio=True),
            Column("lost", "lost"),
        ],
        5, 2, reference=Direct,
    ),
    Scene(
        "streams-2000", "2,000 quiet SSE streams, an event each 2 s", ALL, quiet_streams(2000), QUIET_COLUMNS, 1, 1,
        one_at_a_time=True,
    ),
    Scene(
        "streams-9000", f"{MANY:,} quiet SSE streams, an event each 2 s", ALL, quiet_streams(MANY), QUIET_COLUMNS, 2, 1,
        one_at_a_time=True, in_quick=False,
        note="" if MANY == 9000 else f"the limit of {descriptor_limit()} descriptors allows no more than {MANY:,} streams",
    ),
    Scene(
        "download", "8 downloads x 100 MB", [Nginx, NginxTuned, Haproxy, Apiproxy], bodies("download", 8, 100),
        BODY_COLUMNS, 5, 2,
    ),
    Scene(
        "metering-1", "what reading token counts costs a download of 100 MB; the others read none", [NginxTuned, Nginx, Apiproxy],
        metering(1), METERING_COLUMNS, 25, 5,
    ),
    Scene("metering-8", "the same, 8 downloads", [NginxTuned, Nginx, Apiproxy], metering(8), METERING_COLUMNS, 9, 2),
    Scene(
        "upload", "4 uploads x 100 MB", [Nginx, NginxTuned, Haproxy, Apiproxy], bodies("upload", 4, 100),
        BODY_COLUMNS, 5, 2,
    ),
    Scene(
        "idle", "idle", ALL, idle,
        [
            Column("first_ready_ms", "ready ms, first start", "{:.0f}"),
            Column("ready_ms", "ready ms", "{:.0f}"),
            Column("rss_mb", "RSS MB", "{:.1f}"),
            Column("own_mb", "without files' pages", "{:.1f}"),
        ],
        5, 2, one_at_a_time=True,
    ),
]


# ---- rounds --------------------------------------------------------------------------------------


def one_window(scene: Scene, tools: Tools, kind: type[Proxy], running: dict[type[Proxy], Proxy]) -> Figures:
    if kind in running:
        return scene.window(tools, running[kind])
    with kind(tools.vendor_port) as proxy:
        proxy.start()
        return scene.window(tools, proxy)


def take_off(reference: Figures, figures: Figures) -> None:
    for key in ("p50_us", "p99_us"):
        figures["added_" + key] = figures[key] - reference[key]


def run_rounds(scene: Scene, tools: Tools, kinds: list[type[Proxy]], stack: ExitStack) -> dict[str, list[Figures]]:
    running: dict[type[Proxy], Proxy] = {}
    for kind in kinds if not scene.one_at_a_time else []:
        running[kind] = stack.enter_context(kind(tools.vendor_port))
        running[kind].start()
    rounds: list[dict[type[Proxy], Figures]] = []
    for number in range(scene.quick_rounds if tools.quick else scene.rounds):
        turn = number % len(kinds)
        rounds.append({kind: one_window(scene, tools, kind, running) for kind in kinds[turn:] + kinds[:turn]})
        if scene.reference:
            for figures in rounds[-1].values():
                take_off(rounds[-1][scene.reference], figures)
    return {kind.name: [r[kind] for r in rounds] for kind in kinds}


def ratio_to(windows: list[Figures], base: list[Figures], key: str) -> float | None:
    """The median of ratios; of differences, which may be near 0, the ratio of medians."""
    if key.startswith("added_"):
        of_base = statistics.median(b[key] for b in base)
        return statistics.median(w[key] for w in windows) / of_base if of_base > 0 else None
    ratios = [w[key] / b[key] for w, b in zip(windows, base) if b[key] > 0]
    return statistics.median(ratios) if ratios else None


def summary(scene: Scene, windows: dict[str, list[Figures]]) -> dict[str, dict]:
    base = windows[Nginx.name]
    found = {}
    for name, own in windows.items():
        figures = {key: statistics.median(w[key] for w in own) for key in own[0]}
        figures |= {key: sum(w[key] for w in own) for key in ("errors", "lost") if key in figures}
        ratios = {c.key: ratio_to(own, base, c.key) for c in scene.columns if c.ratio}
        found[name] = {"median": figures, "of_nginx": ratios}
    return found


def run_scene(scene: Scene, tools: Tools) -> dict:
    kinds, absent = [], {}
    for kind in scene.proxies:
        if kind.is_there():
            kinds.append(kind)
        else:
            absent[kind.name] = f"{kind.needs or kind.name} is not installed"
    windows: dict[str, list[Figures]] = {}
    while kinds:  # whoever cannot do the scene is left out of it
        try:
            with ExitStack() as stack:
                windows = run_rounds(scene, tools, kinds, stack)
            break
        except (RuntimeError, subprocess.TimeoutExpired) as fault:
            culprit = next((k for k in kinds if str(fault).startswith(k.name + ":")), kinds[-1])
            print(f"{scene.name}: without {culprit.name}: {fault}", file=sys.stderr)
            absent[culprit.name] = str(fault)
            kinds.remove(culprit)
            if culprit is Nginx:
                break
    return {
        "scene": scene.name, "title": scene.title, "note": scene.note, "absent": absent,
        "summary": summary(scene, windows) if Nginx.name in windows else {}, "windows": windows,
    }
