#!/usr/bin/env python3
"""Measures apiproxy beside nginx and HAProxy, on this machine, in one run, over loopback only.

    tests/bench/run.py [--binary build/apiproxy] [--quick] [--scene NAME]... [--json FILE]

Every proxy has one worker and one core; the load and the vendor share another. How to read the figures:
docs/performance.md. Ends with 0 when the scenes ran, whatever the figures are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import proxies
import scenes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOOLS = {"vendor": ["vendor.c"], "load": ["load.c", "load_response.c"]}


def arguments() -> argparse.Namespace:
    names = [scene.name for scene in scenes.SCENES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(ROOT / "build" / "apiproxy"), help="apiproxy's program")
    parser.add_argument("--quick", action="store_true", help="about a minute: few rounds, no scene of 9,000 streams")
    parser.add_argument("--scene", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", default=str(ROOT / ".reports" / "bench.json"), help="where all figures go")
    return parser.parse_args()


def build_tools(folder: Path) -> None:
    compiler = os.environ.get("CC") or shutil.which("gcc") or "cc"
    for name, sources in TOOLS.items():
        command = [*compiler.split(), "-O2", "-std=gnu11", "-D_GNU_SOURCE", "-o", str(folder / name)]
        subprocess.run([*command, *(str(HERE / source) for source in sources)], check=True)


def start_vendor(folder: Path) -> tuple[subprocess.Popen, int]:
    """Ends when its input does, also when this process is killed."""
    command = proxies.pinned(proxies.LOAD_CORE, str(folder / "vendor"))
    vendor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return vendor, int(vendor.stdout.readline())


def cell(column: scenes.Column, figures: dict) -> str:
    text = column.form.format(figures["median"][column.key])
    ratio = figures["of_nginx"].get(column.key)
    return text if ratio is None else f"{text} ({ratio:.2f})"


def show(scene: scenes.Scene, result: dict) -> None:
    titles = {kind.name: kind.title for kind in scene.proxies}
    rows = [[scene.title] + [c.title + (" (of nginx)" if c.ratio else "") for c in scene.columns]]
    for kind in scene.proxies:
        figures = result["summary"].get(kind.name)
        if kind is scene.reference:
            continue
        rows.append([titles[kind.name]] + [cell(c, figures) if figures else "n/a" for c in scene.columns])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print("| " + row[0].ljust(widths[0]) + " | " + " | ".join(c.rjust(w) for c, w in zip(row[1:], widths[1:])) + " |")
    for name, why in result["absent"].items():
        print(f"{titles[name]}: n/a: {why}")
    if scene.note:
        print(scene.note)
    print(flush=True)


def versions(binary: str) -> dict[str, str]:
    commands = {"apiproxy": [binary, "--version"], "nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"]}
    found = {}
    for name, command in commands.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
            found[name] = (done.stdout + done.stderr).splitlines()[0]
        except (OSError, IndexError):
            found[name] = "n/a"
    return found


def run_all(options: argparse.Namespace, folder: Path) -> list[dict]:
    vendor, port = start_vendor(folder)
    tools = scenes.Tools(load=str(folder / "load"), vendor_port=port, quick=options.quick)
    results = []
    try:
        for scene in scenes.SCENES:
            if options.scene and scene.name not in options.scene:
                continue
            if options.quick and not scene.in_quick and not options.scene:
                continue
            if vendor.poll() is not None:
                raise RuntimeError(f"the vendor ended with {vendor.returncode}")
            began = time.monotonic()
            result = scenes.run_scene(scene, tools)
            result["seconds"] = round(time.monotonic() - began, 1)
            show(scene, result)
            results.append(result)
    finally:
        vendor.stdin.close()
        vendor.wait(10)
    return results


def main() -> int:
    options = arguments()
    proxies.Apiproxy.binary = str(Path(options.binary).resolve())
    if not proxies.Apiproxy.is_there():
        print(f"{options.binary} is not there: make builds it", file=sys.stderr)
        return 1
    if len(os.sched_getaffinity(0)) < 2:
        print("two cores are needed: one for the proxy, one for the load and the vendor", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    proxies.raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="apiproxy-bench-") as folder:
        build_tools(Path(folder))
        results = run_all(options, Path(folder))
    report = {"versions": versions(proxies.Apiproxy.binary), "quick": options.quick, "scenes": results}
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    Path(options.json).write_text(json.dumps(report, indent=1))
    print(f"All windows: {options.json}. {sum(r['seconds'] for r in results):.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
