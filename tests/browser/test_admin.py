"""The page at /admin: everything that can be managed, as an operator would do it."""

import json
import re

import pytest
from playwright.sync_api import expect
from support.gateway import Gateway
from support.pages import add, confirm, entry, fill, press, row, save
from support.process import eventually
from support.vendor import Reply

# -- logging in


def test_log_in_and_out(gateway, open_page):
    page = open_page(gateway.url + "/admin")
    expect(page.locator("#login-token")).to_be_focused()
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#login-fault")).to_have_text("This is needed.")
    page.locator("#login-token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#login-fault")).to_have_text("This is not the admin token.")
    page.locator("#login-token").fill("wröng")
    page.keyboard.press("Enter")
    expect(page.locator("#login-fault")).to_have_text("This is not the admin token.")
    page.locator("#login-token").fill(gateway.admin_token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Mappings")).to_be_focused()
    assert gateway.admin_token not in page.url
    assert gateway.admin_token not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
    page.reload()
    expect(page.get_by_role("heading", name="Mappings")).to_be_visible()
    other = open_page.watch(page.context.new_page(), gateway.url + "/admin")
    expect(other.locator("#login-token")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#login-token")).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    expect(page.locator("#login-token")).to_be_visible()


def test_token_that_no_longer_holds(gateway, log_in):
    page = log_in(gateway)
    page.evaluate("sessionStorage.setItem('apiproxy.token', 'changed-meanwhile')")
    expect(page.locator("#login-fault")).to_have_text("The token no longer holds. Log in again.")
    expect(page.locator("#admin")).to_be_hidden()
    assert page.locator("#section").inner_text() == ""


# -- mappings


def test_mapping_from_birth_to_death(gateway, vendor, log_in):
    page = log_in(gateway)
    add(page, {"Prefix": "/born", "Target": vendor.url, "Description": "<img src=x onerror=alert(1)> & <b>bold</b>"})
    expect(row(page, "/born")).to_contain_text("<img src=x onerror=alert(1)> & <b>bold</b>")
    assert gateway.get("/born/x").status == 200

    press(page, "/born", "Edit")
    expect(page.get_by_role("dialog").get_by_label("Prefix")).to_have_attribute("readonly", "")
    fill(page, {"Target": vendor.url + "/base", "Description": ""})
    save(page)
    expect(row(page, "/born")).to_contain_text(vendor.url + "/base")
    assert gateway.get("/born/x").json()["target"] == "/base/x"
    assert not entry(gateway, "/api/mappings/born").get("description")

    row(page, "/born").get_by_role("switch").click()
    expect(page.locator(".toast").last).to_have_text("Disabled: /born")
    assert gateway.get("/born/x").status == 404
    row(page, "/born").get_by_role("switch").click()
    expect(page.locator(".toast").last).to_have_text("Enabled: /born")
    assert gateway.get("/born/x").status == 200

    press(page, "/born", "Delete")
    confirm(page, "Cancel")
    assert gateway.get("/born/x").status == 200
    press(page, "/born", "Delete")
    confirm(page, "Delete")
    expect(row(page, "/born")).to_have_count(0)
    assert gateway.get("/born/x").status == 404


def test_every_managed_field(gateway, log_in):
    page = log_in(gateway)
    page.get_by_role("button", name="Add", exact=True).click()
    fill(page, {
        "Prefix": "/all", "Target": "https://api.anthropic.com", "Description": "all of it", "Dialect": "anthropic",
        "Who may ask": "required", "Pool of vendor keys": "some", "Header for the vendor key": "x-key",
        "Whole request, seconds": "20", "Connecting, seconds": "3", "Largest body, bytes": "1000000",
        "Starts per second": "0.5", "Places": "7", "Longest wait, seconds": "4", "Output tokens to reserve": "512",
        "Enabled": False,
    })  # fmt: skip
    page.get_by_role("button", name="Create").click()
    expect(row(page, "/all")).to_be_visible()
    wanted = {
        "prefix": "/all", "target": "https://api.anthropic.com", "description": "all of it", "dialect": "anthropic",
        "auth": "required", "pool": "some", "key_header": "x-key", "timeout_seconds": 20, "connect_timeout_seconds": 3,
        "max_body_bytes": 1000000, "queue": {"rate_per_second": 0.5, "capacity": 7, "timeout_seconds": 4},
        "reserve_output_tokens": 512, "enabled": False,
    }  # fmt: skip
    got = entry(gateway, "/api/mappings/all")
    assert {name: got.get(name) for name in wanted} == wanted

    press(page, "/all", "Edit")
    for label in ("Starts per second", "Places", "Longest wait, seconds"):
        expect(page.get_by_role("dialog").get_by_label(label)).to_be_visible()
    fill(page, {"Pool of vendor keys": "", "Starts per second": "", "Places": "", "Longest wait, seconds": "", "Whole request, seconds": ""})
    save(page)
    got = entry(gateway, "/api/mappings/all")
    assert not got.get("pool") and not got.get("queue") and not got.get("timeout_seconds")

    # The rate alone makes a queue, and taken away takes it away.
    press(page, "/all", "Edit")
    fill(page, {"Places": "7"})
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.locator("#field-queue-rate_per_second-fault")).not_to_be_empty()
    fill(page, {"Starts per second": "2"})
    save(page)
    assert entry(gateway, "/api/mappings/all")["queue"] == {"rate_per_second": 2, "capacity": 7, "timeout_seconds": 5}
    press(page, "/all", "Edit")
    fill(page, {"Starts per second": ""})
    save(page)
    got = entry(gateway, "/api/mappings/all")
    assert not got.get("queue")
    assert got["connect_timeout_seconds"] == 3 and got["auth"] == "required"
    assert gateway.api("DELETE", "/api/mappings/all").status == 204


def test_an_edit_sends_only_what_changed(gateway, vendor, log_in):
    prefix = gateway.route(vendor.url)
    page = log_in(gateway)
    press(page, prefix, "Edit")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert gateway.api("PUT", "/api/mappings" + prefix, {"description": "by someone else"}).status == 200
    fill(page, {"Whole request, seconds": "9"})
    with page.expect_request(lambda request: request.method == "PUT") as sent:
        save(page)
    assert json.loads(sent.value.post_data) == {"timeout_seconds": 9}
    got = entry(gateway, "/api/mappings" + prefix)
    assert (got["description"], got["timeout_seconds"]) == ("by someone else", 9)


@pytest.mark.parametrize("target", ["ftp://example.com", "http://", "https://user@example.com"])
def test_fault_of_the_gateway_stands_at_its_field(gateway, log_in, target):
    page = log_in(gateway)
    add(page, {"Prefix": "/faulty", "Target": target})
    field = page.get_by_role("dialog").get_by_label("Target")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#field-target-fault")).not_to_be_empty()
    assert gateway.api("GET", "/api/mappings/faulty").status == 404
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_faults_found_before_sending(gateway, log_in):
    page = log_in(gateway)
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#field-prefix-fault")).to_have_text("This is needed.")
    expect(page.locator("#field-target-fault")).to_have_text("This is needed.")
    expect(page.get_by_role("dialog").get_by_label("Prefix")).to_be_focused()


def test_taken_prefix_is_said(gateway, vendor, log_in):
    prefix = gateway.route(vendor.url)
    page = log_in(gateway)
    add(page, {"Prefix": prefix, "Target": vendor.url})
    expect(page.locator("#field-prefix-fault")).to_contain_text("already")
    expect(page.get_by_role("dialog").get_by_label("Prefix")).to_be_focused()


def test_changes_of_others_come_in_live_and_focus_stays(gateway, vendor, log_in):
    mine, other = gateway.route(vendor.url), gateway.route(vendor.url)
    page = log_in(gateway)
    row(page, mine).get_by_role("button", name="Edit").focus()
    added = gateway.route(vendor.url)
    assert gateway.api("PUT", "/api/mappings" + mine, {"description": "changed"}).status == 200
    gateway.unmap(other)
    expect(row(page, added)).to_be_visible()
    expect(row(page, mine)).to_contain_text("changed")
    expect(row(page, other)).to_have_count(0)
    expect(row(page, mine).get_by_role("button", name="Edit")).to_be_focused()


def test_search(gateway, vendor, log_in):
    prefixes = [gateway.route(vendor.url) for _ in range(2)]
    gateway.api("PUT", "/api/mappings" + prefixes[0], {"description": "The Needle"})
    page = log_in(gateway)
    page.get_by_role("searchbox", name="Search").fill("needle")
    expect(row(page, prefixes[0])).to_be_visible()
    expect(row(page, prefixes[1])).to_be_hidden()
    expect(page.locator("#count")).to_have_text(re.compile(r"^1 of \d+$"))
    page.get_by_role("searchbox", name="Search").fill("needle in no haystack")
    expect(page.get_by_text("Nothing matches the search.")).to_be_visible()


# -- keys


def test_vendor_keys(gateway, vendor, log_in):
    secret = "sk-vendor-secret-4711"
    prefix = gateway.route(vendor.url, pool="red")
    page = log_in(gateway, "keys")
    add(page, {"Id": "k1", "Pool of vendor keys": "red", "Key": secret, "Weight": "3", "Requests per minute": "600"})
    expect(row(page, "k1")).to_contain_text("4711")
    expect(row(page, "k1")).to_contain_text("ok")
    assert secret not in page.content()
    got = entry(gateway, "/api/keys/k1")
    assert (got["pool"], got["weight"], got["max_requests_per_minute"]) == ("red", 3, 600)
    press(page, "k1", "Edit")
    assert page.get_by_role("dialog").get_by_label("Key", exact=True).input_value() == ""
    fill(page, {"Weight": "5"})
    save(page)
    assert entry(gateway, "/api/keys/k1")["weight"] == 5
    assert gateway.get(prefix + "/x").status == 200, "the key itself stays"

    vendor.script(Reply(401))
    gateway.get(prefix + "/v1/models")
    expect(row(page, "k1")).to_contain_text("cooling")
    expect(row(page, "k1")).to_contain_text("401")
    press(page, "k1", "Reset")
    expect(row(page, "k1").get_by_role("button", name="Reset")).to_have_count(0)
    expect(row(page, "k1")).to_contain_text("ok")
    press(page, "k1", "Delete")
    confirm(page, "Delete")
    expect(row(page, "k1")).to_have_count(0)


# -- clients and users


def shown_key(page) -> str:
    dialog = page.get_by_role("dialog", name="Copy the key now")
    expect(dialog).to_contain_text("It is shown this once.")
    key = dialog.get_by_role("textbox").input_value()
    dialog.get_by_role("button", name="Copy", exact=True).click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == key
    page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="I have stored it").click()
    expect(page.locator("dialog")).to_have_count(0)
    assert key not in page.content()
    return key


def test_clients(gateway, vendor, log_in):
    prefix = gateway.route(vendor.url, auth="required")
    page = log_in(gateway, "clients", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Add", exact=True).click()
    fill(page, {"Id": "c1", "Name": "One", "Requests per minute": "60", "Input tokens per minute": "100000",
                "Output tokens per minute": "20000", "Requests at once": "4", "Expires": "2099-01-02T03:04:05", prefix: True})  # fmt: skip
    page.get_by_role("button", name="Create").click()
    first = shown_key(page)
    assert re.fullmatch(r"sk-ap-[A-Za-z0-9_-]{40,}", first)
    got = entry(gateway, "/api/clients/c1")
    assert (got["name"], got["rpm"], got["input_tpm"], got["output_tpm"], got["max_concurrency"]) == ("One", 60, 100000, 20000, 4)
    assert got["mappings"] == [prefix] and got["expires_at"].startswith("2099-01-0")
    bearer = [("Authorization", f"Bearer {first}")]
    assert gateway.get(prefix + "/x", bearer).status == 200

    press(page, "c1", "New key")
    page.get_by_role("dialog").get_by_role("button", name="New key").click()
    second = shown_key(page)
    assert second != first
    assert gateway.get(prefix + "/x", bearer).status == 401
    assert gateway.get(prefix + "/x", [("Authorization", f"Bearer {second}")]).status == 200

    press(page, "c1", "Usage")
    dialog = page.get_by_role("dialog", name="Usage of c1")
    expect(dialog).to_contain_text("of 60")
    expect(dialog.locator("canvas")).to_have_count(2)
    dialog.get_by_text("The same as a table").click()
    assert 1 <= dialog.locator("tbody tr").count() <= 30
    page.keyboard.press("Escape")

    press(page, "c1", "Edit")
    fill(page, {"Requests per minute": "", "Expires": "", prefix: False})
    save(page)
    got = entry(gateway, "/api/clients/c1")
    assert not got.get("rpm") and not got.get("expires_at") and not got.get("mappings") and got["input_tpm"] == 100000
    press(page, "c1", "Delete")
    confirm(page, "Delete")
    expect(row(page, "c1")).to_have_count(0)


def test_users(gateway, log_in):
    def log_in_as(password):
        return gateway.request("POST", "/auth/login", [("Content-Type", "application/json")], json.dumps({"username": "ada", "password": password})).status

    page = log_in(gateway, "users")
    add(page, {"User name": "ada", "Password": "first password", "Requests per minute": "30"})
    expect(row(page, "ada")).to_contain_text("30 requests/min")
    assert log_in_as("first password") == 200
    press(page, "ada", "Edit")
    fill(page, {"Password": "second password"})
    save(page)
    eventually(lambda: log_in_as("second password") == 200)
    assert log_in_as("first password") == 401
    press(page, "ada", "Usage")
    expect(page.get_by_role("dialog", name="Usage of ada")).to_contain_text("of 30")
    page.keyboard.press("Escape")
    press(page, "ada", "Delete")
    confirm(page, "Delete")
    expect(row(page, "ada")).to_have_count(0)
    assert log_in_as("second password") == 401


# -- the whole configuration, errors


def test_nothing_is_to_be_edited_before_the_configuration_has_come(gateway, log_in):
    page = log_in(gateway, "configuration")
    held, let_go = [], []
    page.route("**/api/config", lambda route: route.continue_() if let_go else held.append(route))
    page.reload()
    changing = page.locator("#document, #save-file, #open-file, #revert, #replace")
    expect(changing).to_have_count(5)
    assert changing.evaluate_all("all => all.map((e) => e.disabled)") == [True] * 5
    let_go.append(True)
    for route in held:
        route.continue_()
    page.locator("#document").fill("{}")
    page.get_by_role("button", name="Revert").click()
    assert json.loads(page.locator("#document").input_value()) == entry(gateway, "/api/config")


def test_configuration(gateway, vendor, log_in, tmp_path):
    page = log_in(gateway, "configuration")
    text = page.locator("#document")
    expect(text).not_to_have_value("")
    assert json.loads(text.input_value()) == entry(gateway, "/api/config")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save to a file").click()
    download.value.save_as(tmp_path / "saved.json")
    document = json.loads((tmp_path / "saved.json").read_text())
    assert document == entry(gateway, "/api/config")

    text.fill("{")
    page.get_by_role("button", name="Replace").click()
    expect(page.get_by_role("alert")).to_contain_text("Not JSON")

    bad = {**document, "mappings": [{"prefix": "nope", "target": "ftp://x"}, {"prefix": "/ok", "target": "nowhere"}]}
    text.fill(json.dumps(bad))
    page.get_by_role("button", name="Replace").click()
    page.get_by_role("dialog").get_by_role("button", name="Replace").click()
    expect(page.get_by_role("alert")).to_contain_text("mappings[0]")
    expect(page.get_by_role("alert")).to_contain_text("mappings[1]")
    assert page.get_by_role("alert").locator("li").count() >= 3
    assert entry(gateway, "/api/config") == document

    good = {**document, "mappings": [*document["mappings"], {"prefix": "/imported", "target": vendor.url}],
            "clients": [*document["clients"], {"id": "imported", "name": "from a file"}]}  # fmt: skip
    (tmp_path / "good.json").write_text(json.dumps(good))
    page.locator("#file").set_input_files(tmp_path / "good.json")
    expect(text).to_have_value(re.compile("/imported"))
    page.get_by_role("button", name="Replace").click()
    count = len(document["mappings"])
    expect(page.get_by_role("dialog")).to_contain_text(f"Mappings: {count} → {count + 1}")
    page.get_by_role("dialog").get_by_role("button", name="Replace").click()
    keys = page.get_by_role("dialog", name="Copy the key now")
    assert keys.get_by_role("textbox").input_value().startswith("sk-ap-")
    keys.get_by_role("button", name="I have stored it").click()
    assert gateway.get("/imported/x").status == 200
    page.reload()
    text.fill(json.dumps(document))
    page.get_by_role("button", name="Revert").click()
    assert json.loads(text.input_value()) == entry(gateway, "/api/config")
    assert gateway.api("PUT", "/api/config", document).status == 200


def test_errors(gateway, log_in):
    page = log_in(gateway, "errors")
    listed = entry(gateway, "/errors")["errors"]
    if listed:
        expect(page.locator(".list tbody tr").first).to_contain_text(listed[0]["message"])
    else:
        expect(page.get_by_text("Nothing went wrong.")).to_be_visible()


def test_lost_gateway_is_said(log_in):
    with Gateway() as gateway:
        page = log_in(gateway)
        gateway.terminate()
        expect(page.locator("#lost")).to_contain_text("No connection to the gateway")
        assert page.locator(".list tbody tr").count() > 0, "what was there stays readable"
        page.get_by_role("button", name="Edit").first.click()
        fill(page, {"Description": "not lost"})
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("No connection to the gateway.")
        gateway.start()
        save(page)
        expect(page.locator("#lost")).to_be_hidden(timeout=20_000)
        expect(page.locator(".list")).to_contain_text("not lost")
