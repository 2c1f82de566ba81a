"""A browser for the pages. Each test gets a fresh context (no storage, no cookie) and fails in the
end if the page logged an error, broke its Content-Security-Policy or asked any other origin."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the browser tests need Playwright for Python")
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")  # None: the one that Playwright installed
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What the browser itself says of an answer that the test provoked; the page's own errors read otherwise.
ANSWERS = "Failed to load resource: "

expect.set_options(timeout=10_000)


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """open_page(url, **context options) -> a page at that URL, watched until the test ends."""
    opened = []

    def open_(url: str, **options) -> Page:
        options = {"locale": "en-US", "viewport": {"width": 1280, "height": 800}, **options}
        context = chromium.new_context(**options)
        opened.append(context)
        return watch(context.new_page(), url)

    def watch(page: Page, url: str) -> Page:
        origin = "/".join(url.split("/")[:3])
        page.on("console", lambda m: m.type in ("error", "warning") and faults.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
        page.on("request", lambda r: r.url.startswith((origin + "/", "blob:", "data:")) or faults.append(f"external: {r.url}"))
        page.goto(url)
        return page

    faults: list[str] = []
    open_.watch = watch
    yield open_
    for context in opened:
        context.close()
    found = [fault for fault in faults if ANSWERS not in fault]
    assert not found, "\n".join(found)


@pytest.fixture
def log_in(open_page):
    """log_in(gateway, section) -> the admin page, logged in."""

    def log_in_(gateway, section: str = "mappings", **options) -> Page:
        page = open_page(f"{gateway.url}/admin#{section}", **options)
        page.locator("#login-token").fill(gateway.admin_token)
        page.keyboard.press("Enter")
        expect(page.locator("#section-title")).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0)
        return page

    return log_in_


@pytest.fixture(scope="session")
def static_files() -> dict[str, str]:
    folder = Path(__file__).resolve().parents[2] / "static"
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".js", ".html", ".css")}
