"""The page at /: live figures, and how to use the proxy."""

import ast
import re
import subprocess

import pytest
from playwright.sync_api import expect
from support.gateway import Gateway
from support.process import eventually


def row(page, prefix):
    return page.locator("#endpoints tbody tr", has=page.get_by_role("rowheader", name=prefix, exact=True))


def requests_of(page, prefix) -> int:
    return int(row(page, prefix).locator("td").first.inner_text().replace(",", ""))


def points(page, chart: str, series: int = 0) -> list:
    return page.evaluate(f"Chart.getChart('chart-{chart}').data.datasets[{series}].data")


def test_figures_are_live(gateway, vendor, open_page):
    prefix = gateway.route(vendor.url)
    for _ in range(3):
        assert gateway.get(prefix + "/x").status == 200
    page = open_page(gateway.url + "/")
    expect(row(page, prefix)).to_be_visible()
    eventually(lambda: requests_of(page, prefix) == 3)
    for _ in range(4):
        assert gateway.get(prefix + "/x").status == 200
    page.wait_for_timeout(3000)
    assert requests_of(page, prefix) == 7
    expect(page.locator("#health")).to_have_text("Healthy")
    expect(page.locator("#tiles .value").first).not_to_have_text("–")
    assert "node" not in page.title()


def test_charts_are_drawn(gateway, vendor, open_page):
    prefix = gateway.route(vendor.url)
    gateway.get(prefix + "/x")
    page = open_page(gateway.url + "/index.html")
    expect(page.locator("#chart-requests")).to_have_attribute("aria-label", re.compile("Chart: Requests per second"))
    page.wait_for_timeout(4500)
    assert len(points(page, "requests")) > 30, "the last minute comes from history"
    assert sum(point["y"] for point in points(page, "requests")) >= 1
    for series in range(3):
        assert len(points(page, "latency", series)) >= 2
    assert all(b["x"] > a["x"] for a, b in zip(points(page, "requests"), points(page, "requests")[1:]))
    blank = page.evaluate("document.createElement('canvas').toDataURL()")
    for chart in ("requests", "latency", "errors", "tokens"):
        assert page.evaluate(f"document.getElementById('chart-{chart}').toDataURL()") != blank


def test_table_sorts_and_filters(gateway, vendor, open_page):
    prefixes = [gateway.route(vendor.url) for _ in range(2)]
    for prefix, count in zip(prefixes, (1, 3)):
        for _ in range(count):
            gateway.get(prefix + "/x")
    page = open_page(gateway.url + "/")
    heads = page.locator("#endpoints tbody th")
    page.locator("#filter").fill(prefixes[0][:2])
    expect(row(page, prefixes[1])).to_be_visible()
    eventually(lambda: requests_of(page, prefixes[1]) == 3)
    assert heads.all_inner_texts().index(prefixes[1]) < heads.all_inner_texts().index(prefixes[0])
    page.get_by_role("button", name="Requests", exact=True).click()
    assert heads.all_inner_texts().index(prefixes[1]) > heads.all_inner_texts().index(prefixes[0])
    expect(page.locator("#endpoints th[aria-sort]")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Prefix", exact=True).click()
    assert heads.all_inner_texts() == sorted(heads.all_inner_texts())
    page.locator("#filter").fill(prefixes[1])
    assert heads.all_inner_texts() == [prefixes[1]]
    page.locator("#filter").fill("nothing-has-this")
    expect(page.get_by_text("Nothing matches the search.")).to_be_visible()


def test_pause_and_scope(gateway, open_page):
    asked = []
    page = open_page(gateway.url + "/")
    page.on("request", lambda request: asked.append(request.url))
    expect(page.locator("#live")).to_be_visible()
    page.get_by_text("Cluster", exact=True).click()
    eventually(lambda: any(url.endswith("/stats?scope=cluster") for url in asked) or page.wait_for_timeout(100))
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(500)
    asked.clear()
    page.wait_for_timeout(3000)
    assert not asked, "paused means that nothing is asked"
    page.get_by_role("button", name="Resume").click()
    eventually(lambda: asked or page.wait_for_timeout(100))


def test_lost_connection_is_said_and_survived(open_page):
    with Gateway() as gateway:
        page = open_page(gateway.url + "/")
        expect(page.locator("#health")).to_have_text("Healthy")
        expect(page.locator("#lost")).to_be_hidden()
        gateway.terminate()
        expect(page.locator("#lost")).to_contain_text("No connection to the gateway")
        expect(page.locator("#health")).to_have_text("State unknown")
        expect(page.locator("#tiles")).to_be_visible()
        gateway.start()
        expect(page.locator("#lost")).to_be_hidden(timeout=20_000)
        expect(page.locator("#health")).to_have_text("Healthy")


def test_private_statistics_ask_for_the_token(open_page):
    with Gateway(API_PROXY_PUBLIC_STATS="off") as gateway:
        page = open_page(gateway.url + "/")
        expect(page.locator("#gate-token")).to_be_focused()
        expect(page.locator("#live")).to_be_hidden()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#gate-fault")).to_have_text("This is not the admin token.")
        page.locator("#gate-token").fill(gateway.admin_token)
        page.get_by_role("button", name="Show statistics").click()
        expect(page.locator("#live")).to_be_visible()
        assert gateway.admin_token not in page.url
        assert gateway.admin_token not in page.evaluate("JSON.stringify(localStorage)")


def snippet(page, tab: str, prefix: str) -> str:
    page.get_by_role("tab", name=tab).click()
    panel = page.get_by_role("tabpanel")
    panel.get_by_label("Mapping").select_option(prefix)
    return panel.locator("code").inner_text()


def test_curl_snippet_works(gateway, vendor, open_page):
    prefix = gateway.route(vendor.url)
    gateway.get(prefix + "/x")
    page = open_page(gateway.url + "/")
    expect(row(page, prefix)).to_be_visible()
    command = snippet(page, "curl", prefix)
    assert f'"{gateway.url}{prefix}/v1/chat/completions"' in command
    done = subprocess.run(["sh", "-c", command], env={"API_KEY": "k", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "data: [DONE]" in done.stdout


@pytest.mark.parametrize(
    "tab, dialect, wanted",
    [
        ("OpenAI", "openai", 'base_url="{at}/v1"'),
        ("Anthropic", "anthropic", 'base_url="{at}"'),
        ("Google Gen AI", "gemini", 'base_url="{at}"'),
    ],
)
def test_sdk_snippets(gateway, vendor, open_page, log_in, tab, dialect, wanted):
    """Logged in, the page knows the dialects."""
    prefix = gateway.route(vendor.url, dialect=dialect)
    page = log_in(gateway)
    page.goto(gateway.url + "/")
    expect(page.locator(f"#prefix-curl option[value='{prefix}']")).to_be_attached()
    text = snippet(page, tab, prefix)
    assert wanted.format(at=gateway.url + prefix) in text
    ast.parse(text)
    other = {"OpenAI": "Anthropic", "Anthropic": "Google Gen AI", "Google Gen AI": "OpenAI"}[tab]
    page.get_by_role("tab", name=other).click()
    assert page.get_by_role("tabpanel").locator(f"option[value='{prefix}']").count() == 0


def test_tabs_by_keyboard_and_copy(gateway, vendor, open_page):
    page = open_page(gateway.url + "/", permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator("#live")).to_be_visible()
    page.get_by_role("tab", name="curl").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="OpenAI")).to_be_focused()
    expect(page.get_by_role("tab", name="OpenAI")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Environment")).to_be_focused()
    page.keyboard.press("ArrowRight")
    panel = page.get_by_role("tabpanel")
    panel.get_by_role("button", name="Copy").click()
    expect(panel.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == panel.locator("code").inner_text()


def test_copy_without_clipboard_api(gateway, open_page):
    """On plain http away from localhost the API is not there."""
    page = open_page(gateway.url + "/")
    page.evaluate("Object.defineProperty(window, 'isSecureContext', {value: false})")
    page.evaluate("document.addEventListener('copy', () => { window.copied = getSelection().toString() || document.activeElement.value; })")
    panel = page.get_by_role("tabpanel")
    panel.get_by_role("button", name="Copy").click()
    expect(panel.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("window.copied") == panel.locator("code").inner_text()
