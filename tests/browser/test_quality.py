"""What holds for every view: accessible, translated, safe, at home on a phone and in the dark."""

import re

import pytest
from playwright.sync_api import expect

SECTIONS = ["mappings", "keys", "clients", "users", "configuration", "errors"]
STYLES = ["light", "dark"]
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="session")
def axe():
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core comes with axe-playwright-python")
    return module.Axe()


def assert_accessible(axe, page, where: str):
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    results = axe.run(page, options=options)
    assert results.violations_count == 0, where + "\n" + results.generate_report()


def assert_no_sideways_scroll(page, where: str):
    beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert beyond <= 0, f"{where}: {beyond} px too wide"


@pytest.fixture
def filled(gateway, vendor):
    """One of each, with much to show."""
    prefix = gateway.route(vendor.url, auth="required", pool="blue", description="a long description " * 8,
                           queue={"rate_per_second": 2, "capacity": 20, "timeout_seconds": 5}, timeout_seconds=20)  # fmt: skip
    for kind, data in {
        "keys": {"id": "quality-key", "pool": "blue", "key": "secret-0815"},
        "clients": {"id": "quality-client", "name": "A client", "rpm": 60, "mappings": [prefix], "expires_at": "2020-01-01T00:00:00Z"},
        "users": {"username": "quality-user", "password": "a good password", "enabled": False},
    }.items():
        assert gateway.api("POST", f"/api/{kind}", data).status == 201
    yield prefix
    for path in ("keys/quality-key", "clients/quality-client", "users/quality-user"):
        assert gateway.api("DELETE", "/api/" + path).status == 204
    gateway.unmap(prefix)


def go(page, section: str):
    page.evaluate(f"location.hash = '{section}'")
    expect(page.locator("#sections [aria-current]")).to_have_attribute("href", "#" + section)
    expect(page.get_by_text("Loading…")).to_have_count(0)


@pytest.mark.parametrize("scheme", STYLES)
def test_statistics_are_accessible(gateway, vendor, open_page, axe, scheme):
    gateway.get(gateway.route(vendor.url) + "/x")
    page = open_page(gateway.url + "/", color_scheme=scheme)
    expect(page.locator("#endpoints tbody tr").first).to_be_visible()
    expect(page.locator("html")).to_have_attribute("data-theme", scheme)
    assert_accessible(axe, page, "statistics")


@pytest.mark.parametrize("scheme", STYLES)
def test_admin_is_accessible(gateway, filled, open_page, axe, log_in, scheme):
    page = open_page(gateway.url + "/admin", color_scheme=scheme)
    page.locator("#login-token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#login-fault")).not_to_be_empty()
    assert_accessible(axe, page, "login")
    page = log_in(gateway, color_scheme=scheme)
    for section in SECTIONS:
        go(page, section)
        assert_accessible(axe, page, section)
    for section in SECTIONS[:4]:
        go(page, section)
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_role("button", name="Create").click()
        assert_accessible(axe, page, "add " + section)
        page.keyboard.press("Escape") if page.get_by_role("dialog").count() else None
        dialogs = page.get_by_role("button", name="I have stored it")
        dialogs.click() if dialogs.count() else None
    go(page, "clients")
    page.get_by_role("button", name="Usage: quality-client").click()
    expect(page.locator("dialog canvas")).to_have_count(2)
    assert_accessible(axe, page, "usage")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Delete: quality-client").click()
    assert_accessible(axe, page, "confirmation")


def test_words_stay_whole_and_long_ones_break(gateway, filled, vendor, log_in):
    """Short prefixes, headings and badges are not broken for a long neighbour's sake; the longest stay in."""
    longest = {"prefix": "/" + "p" * 127, "target": vendor.url + "/" + "t" * 300}
    assert gateway.api("POST", "/api/mappings", longest).status == 201
    assert gateway.api("POST", "/api/keys", {"id": "i" * 64, "pool": "p" * 64, "key": "secret-4711-0815-long"}).status == 201
    page = log_in(gateway)
    lines = """nodes => nodes.map(node => {
        const range = document.createRange(); range.selectNodeContents(node);
        return [node.textContent, new Set([...range.getClientRects()].map(r => Math.round(r.top))).size];
    })"""
    for section, whole in (("mappings", "/huggingface"), ("keys", "quality-key"), ("clients", "quality-client")):
        go(page, section)
        shown = page.locator("table.list thead th:not(:last-child), table.list .badge, table.list tbody th .cut").evaluate_all(lines)
        broken = [text for text, count in shown if count > 1 and len(text) < 20]
        assert whole in " ".join(text for text, _ in shown) and not broken
        assert_no_sideways_scroll(page, section)
    page.get_by_role("button", name="Add").first.click()
    body = page.locator("dialog[open] .dialog-body")
    expect(body.get_by_text(longest["prefix"])).to_be_visible()
    assert body.evaluate("b => b.scrollWidth - b.clientWidth") <= 0
    assert gateway.api("DELETE", "/api/keys/" + "i" * 64).status == 204
    assert gateway.api("DELETE", "/api/mappings" + longest["prefix"]).status == 204


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_the_longest_prefix_leaves_room_for_its_figures(gateway, vendor, open_page, width):
    longest = "/" + "/".join("p" * 11 for _ in range(10)) + "/-tail"
    assert gateway.api("POST", "/api/mappings", {"prefix": longest, "target": vendor.url}).status == 201
    gateway.get(longest + "/x")
    page = open_page(gateway.url + "/", viewport={"width": width, "height": 800})
    shown = page.locator("#endpoints tbody tr", has_text="-tail")
    expect(shown).to_be_visible()
    name, scrolled = shown.locator("th").bounding_box(), page.locator(".scroll").bounding_box()
    assert name["width"] <= scrolled["width"] / 2
    assert shown.locator("th").evaluate("e => e.scrollWidth <= e.clientWidth"), "all of it can be read"
    assert_no_sideways_scroll(page, "statistics")
    assert gateway.api("DELETE", "/api/mappings" + longest).status == 204


@pytest.mark.parametrize("width", [320, 360])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_phone(gateway, filled, vendor, open_page, locale, width):
    gateway.get(filled + "/x")
    page = open_page(gateway.url + "/", viewport={**PHONE, "width": width}, locale=locale)
    expect(page.locator("#endpoints tbody tr").first).to_be_visible()
    assert_no_sideways_scroll(page, "statistics")
    page.goto(gateway.url + "/admin")
    assert_no_sideways_scroll(page, "login")
    page.locator("#login-token").fill(gateway.admin_token)
    page.keyboard.press("Enter")
    for section in SECTIONS:
        expect(page.locator("#section-title")).to_be_visible()
        go(page, section)
        page.wait_for_timeout(200)
        assert_no_sideways_scroll(page, section)
        if section in SECTIONS[:4]:
            page.locator("#add").click()
            expect(page.get_by_role("dialog")).to_be_visible()
            assert_no_sideways_scroll(page, "add " + section)
            wide = page.locator(".dialog-body").evaluate("e => e.scrollWidth - e.clientWidth")
            assert wide <= 0, f"the form of {section} is {wide} px too wide"
            page.keyboard.press("Escape")


# -- languages


def table(page) -> dict:
    return page.evaluate("import('/static/messages.js').then((m) => m.messages)")


def test_translation_is_complete(gateway, open_page):
    for key, words in table(open_page(gateway.url + "/")).items():
        assert len(words) == 2 and all(word.strip() for word in words), key
        english, chinese = (sorted(re.findall(r"\{\w+\}", word)) for word in words)
        assert english == chinese, f"{key}: not the same values"


def test_every_message_is_used_and_there(gateway, open_page, static_files):
    keys = set(table(open_page(gateway.url + "/")))
    code = "\n".join(text for name, text in static_files.items() if name not in ("messages.js", "i18n.js"))
    asked = set(re.findall(r"\bt\('([\w.]+)'[,)]", code)) | set(re.findall(r'data-i18n="([\w.]+)"', code))
    for attribute in re.findall(r'data-i18n-attr="([^"]+)"', code):
        asked |= {pair.split(":")[1] for pair in attribute.split(";")}
    assert asked - keys == set(), "asked for, but not in the table"
    # Made up of parts: t('column.' + name), t(`add.${kind}`).
    stems = set(re.findall(r"\bt\('([\w.]+\.)' \+", code)) | set(re.findall(r"`([\w]+\.)\$\{", code))
    unused = {key for key in keys - asked if f"'{key}'" not in code and not any(key.startswith(stem) for stem in stems)}
    assert unused == set()


def test_language_switch_is_remembered(gateway, open_page):
    page = open_page(gateway.url + "/")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    expect(page.locator("#use-title")).to_have_text("使用方法")
    expect(page.locator("#health")).to_have_text("运行正常")
    page.goto(gateway.url + "/admin")
    expect(page.get_by_role("heading", name="登录")).to_be_visible()
    page.locator("#login-token").fill(gateway.admin_token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="映射")).to_be_visible()
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", name="Mappings")).to_be_visible()
    expect(page.locator("#search")).to_have_attribute("placeholder", "Search")


def test_chinese_browser_starts_in_chinese(gateway, open_page):
    expect(open_page(gateway.url + "/admin", locale="zh-CN").get_by_role("heading", name="登录")).to_be_visible()


# -- themes and motion


def test_theme_follows_the_system_and_the_switch(gateway, open_page):
    page = open_page(gateway.url + "/", color_scheme="light")
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "light")
    page.emulate_media(color_scheme="dark")
    expect(root).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Theme: as the system").click()
    expect(root).to_have_attribute("data-theme", "light")
    page.reload()
    expect(root).to_have_attribute("data-theme", "light")
    page.get_by_role("button", name="Theme: light").click()
    page.emulate_media(color_scheme="light")
    expect(root).to_have_attribute("data-theme", "dark")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in re.findall(r"\d+", ground)[:3]) < 150


def test_reduced_motion(gateway, log_in):
    page = log_in(gateway, reduced_motion="reduce")
    moving = page.evaluate("[...document.querySelectorAll('*')].filter((e) => parseFloat(getComputedStyle(e).transitionDuration) > 0).length")
    assert moving == 0


# -- the keyboard


def test_keyboard_alone(gateway, vendor, open_page):
    prefix = gateway.route(vendor.url)
    page = open_page(gateway.url + "/")
    expect(page.locator("#live")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.goto(gateway.url + "/admin")
    expect(page.locator("#login-token")).to_be_focused()
    page.keyboard.type(gateway.admin_token)
    page.keyboard.press("Enter")
    edit = page.get_by_role("button", name=f"Edit: {prefix}")
    expect(edit).to_be_visible()
    edit.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Target")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Tab")
        outside = page.evaluate("document.activeElement !== document.body && !document.activeElement.closest('dialog')")
        assert not outside, "the focus left the dialog"
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(edit).to_be_focused()
    outline = edit.evaluate("e => getComputedStyle(e).outlineStyle + getComputedStyle(e).outlineWidth")
    assert outline == "solid2px"


# -- safety


def test_policy_of_the_pages(gateway):
    for path in ("/", "/index.html", "/admin"):
        answer = gateway.get(path)
        assert answer.status == 200
        policy = answer.header("content-security-policy") or ""
        parts = dict(part.strip().split(" ", 1) for part in policy.split(";") if part.strip())
        assert parts["default-src"] == "'none'" and parts["script-src"] == "'self'" and parts["style-src"] == "'self'"
        assert parts["connect-src"] == "'self'"


def test_nothing_parses_data_as_code(static_files):
    for name, text in static_files.items():
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser", " style=", "<style", "javascript:"):
            assert word not in text, f"{word} in {name}"
        if name.endswith(".html"):
            assert not re.search(r"\son\w+=", text), f"an inline handler in {name}"
            assert not re.search(r"<script(?![^>]*\ssrc=)", text), f"an inline script in {name}"
            assert not re.search(r"(src|href)=\"(?!/|#)", text), f"a foreign address in {name}"
