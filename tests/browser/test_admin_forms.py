"""The admin page's forms and switches: what they show is what is stored, what they send is what was changed."""

import json

import pytest
from playwright.sync_api import expect
from support.pages import add, entry, fill, press, row, save

REFUSAL = {"status": 503, "content_type": "application/json", "body": json.dumps({"error": {"code": "redis_unavailable", "message": "Redis is away"}})}


def refuse(page, method: str):
    """What would change something is answered 503; looking works."""
    page.route("**/api/**", lambda route: route.fulfill(**REFUSAL) if route.request.method == method else route.continue_())


def test_switch_goes_back_where_it_was_not_saved(gateway, vendor, log_in):
    prefix = gateway.route(vendor.url)
    page = log_in(gateway)
    refuse(page, "PUT")
    switch = row(page, prefix).get_by_role("switch")
    switch.click()
    expect(page.locator(".toast").last).to_have_text("Redis is away")
    expect(switch).to_be_checked()
    page.unroute_all()
    switch.click()
    expect(page.locator(".toast").last).to_have_text(f"Disabled: {prefix}")
    expect(switch).not_to_be_checked()


@pytest.mark.parametrize("lost", [False, True])
def test_fault_of_the_whole_form_is_seen_from_its_end(gateway, log_in, lost):
    page = log_in(gateway, viewport={"width": 1000, "height": 500})
    if lost:
        page.route("**/api/mappings", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    else:
        refuse(page, "POST")
    page.get_by_role("button", name="Add", exact=True).click()
    fill(page, {"Prefix": "/out-of-sight", "Target": "https://api.openai.com", "Starts per second": "2", "Output tokens to reserve": "1"})
    body = page.locator("dialog .dialog-body")
    body.evaluate("b => { b.scrollTop = b.scrollHeight; }")
    alert = page.get_by_role("dialog").get_by_role("alert")
    page.get_by_role("button", name="Create").click()
    expect(alert).to_have_text("No connection to the gateway." if lost else "Redis is away")
    expect(alert).to_be_focused()
    expect(alert).to_be_in_viewport()


@pytest.mark.parametrize("kind, name, label", [("clients", "taken-id", "Id"), ("users", "taken-name", "User name")])
def test_taken_name_is_said_at_its_field(gateway, log_in, kind, name, label):
    given = {"username": name, "password": "a good password"} if kind == "users" else {"id": name}
    assert gateway.api("POST", "/api/" + kind, given).status == 201
    page = log_in(gateway, kind)
    add(page, {label: name, **({"Password": "another password"} if kind == "users" else {})})
    field = page.get_by_role("dialog").get_by_label(label)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    assert gateway.api("DELETE", f"/api/{kind}/{name}").status == 204


@pytest.mark.parametrize("zone, moment", [
    ("America/New_York", "2027-11-07T06:30:00.123Z"),  # the second 01:30 of that night
    ("Asia/Kolkata", "2099-03-04T05:06:07.25+02:00"),
])  # fmt: skip
def test_expiry_that_was_not_touched_stays_as_it_is(gateway, log_in, zone, moment):
    assert gateway.api("POST", "/api/clients", {"id": "expiring", "expires_at": moment, "name": "before"}).status == 201
    before = entry(gateway, "/api/clients/expiring")["expires_at"]
    page = log_in(gateway, "clients", timezone_id=zone)
    press(page, "expiring", "Edit")
    fill(page, {"Name": "after"})
    with page.expect_request(lambda request: request.method == "PUT") as sent:
        save(page)
    assert json.loads(sent.value.post_data) == {"name": "after"}
    press(page, "expiring", "Edit")
    fill(page, {"Expires": "2030-01-02T03:04:05"})
    with page.expect_request(lambda request: request.method == "PUT") as sent:
        save(page)
    assert list(json.loads(sent.value.post_data)) == ["expires_at"]
    assert entry(gateway, "/api/clients/expiring")["expires_at"] != before
    assert gateway.api("DELETE", "/api/clients/expiring").status == 204


def test_empty_number_shows_what_holds_then(gateway, vendor, log_in):
    prefix = gateway.route(vendor.url, queue={"rate_per_second": 2})
    stored = entry(gateway, "/api/mappings" + prefix)
    page = log_in(gateway)
    page.get_by_role("button", name="Add", exact=True).click()
    dialog = page.get_by_role("dialog")
    shown = {label: dialog.get_by_label(label).get_attribute("placeholder") for label in (
        "Whole request, seconds", "Connecting, seconds", "Largest body, bytes", "Starts per second", "Places",
        "Longest wait, seconds", "Output tokens to reserve")}  # fmt: skip
    assert shown == {
        "Whole request, seconds": "no limit", "Connecting, seconds": str(stored["connect_timeout_seconds"]),
        "Largest body, bytes": "no limit", "Starts per second": None, "Places": str(stored["queue"]["capacity"]),
        "Longest wait, seconds": str(stored["queue"]["timeout_seconds"]), "Output tokens to reserve": "0",
    }  # fmt: skip
    page.keyboard.press("Escape")
    page.evaluate("location.hash = 'keys'")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_label("Weight")).to_have_attribute("placeholder", "1")
    expect(dialog.get_by_label("Requests per minute")).to_have_attribute("placeholder", "no limit")
    page.keyboard.press("Escape")
    page.evaluate("location.hash = 'clients'")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_label("Requests at once")).to_have_attribute("placeholder", "no limit")


def test_zero_is_shown_where_it_is_not_the_default(gateway, vendor, log_in):
    prefix = gateway.route(vendor.url, queue={"rate_per_second": 2, "capacity": 0})
    page = log_in(gateway)
    press(page, prefix, "Edit")
    expect(page.get_by_role("dialog").get_by_label("Places")).to_have_value("0")
    fill(page, {"Places": ""})
    save(page)
    assert entry(gateway, "/api/mappings" + prefix)["queue"]["capacity"] == 20
    press(page, prefix, "Edit")
    fill(page, {"Places": "0"})
    save(page)
    assert entry(gateway, "/api/mappings" + prefix)["queue"]["capacity"] == 0


def test_rate_is_missed_where_the_rest_of_the_queue_was_changed(gateway, vendor, log_in):
    prefix = gateway.route(vendor.url, queue={"rate_per_second": 2, "capacity": 20, "timeout_seconds": 5})
    page = log_in(gateway)
    press(page, prefix, "Edit")
    fill(page, {"Starts per second": "", "Places": "9"})
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#field-queue-rate_per_second-fault")).to_contain_text("required")
    expect(page.get_by_role("dialog").get_by_label("Starts per second")).to_be_focused()
    assert entry(gateway, "/api/mappings" + prefix)["queue"]["capacity"] == 20
    fill(page, {"Starts per second": "3"})
    save(page)
    assert entry(gateway, "/api/mappings" + prefix)["queue"] == {"rate_per_second": 3, "capacity": 9, "timeout_seconds": 5}


# -- lists


def test_mapping_whose_pool_has_no_key_says_so(gateway, vendor, log_in):
    prefix = gateway.route(vendor.url, pool="bare")
    key = {"id": "only", "pool": "bare", "key": "secret-4711-0815"}
    page = log_in(gateway)
    keyless = row(page, prefix).get_by_text("no key", exact=True)
    expect(keyless).to_be_visible()
    assert gateway.api("POST", "/api/keys", key).status == 201
    expect(keyless).to_have_count(0)
    assert gateway.api("PUT", "/api/keys/only", {"enabled": False}).status == 200
    expect(keyless).to_be_visible()
    assert gateway.api("DELETE", "/api/keys/only").status == 204


def test_deleting_the_last_key_names_who_uses_it(gateway, vendor, log_in):
    prefix = gateway.route(vendor.url, pool="shared")
    for name in ("first", "second"):
        assert gateway.api("POST", "/api/keys", {"id": name, "pool": "shared", "key": f"secret-of-{name}"}).status == 201
    page = log_in(gateway, "keys")
    dialog = page.get_by_role("dialog")
    press(page, "first", "Delete")
    expect(dialog).to_contain_text("It is no longer used")
    expect(dialog).not_to_contain_text(prefix)
    dialog.get_by_role("button", name="Delete").click()
    expect(row(page, "first")).to_have_count(0)
    press(page, "second", "Delete")
    expect(dialog).to_contain_text(f"No other key of pool shared is in use. Left without one: {prefix}")
    dialog.get_by_role("button", name="Delete").click()
    expect(row(page, "second")).to_have_count(0)


@pytest.mark.parametrize("width", [360, 1280])
def test_long_names_leave_the_other_rows_alone(gateway, vendor, log_in, width):
    usual = gateway.route(vendor.url)
    prefix, pool = "/" + "p" * 127, "k" * 64
    long = {"prefix": prefix, "target": vendor.url + "/" + "t" * 300, "description": "word " * 100, "pool": pool}
    page = log_in(gateway, viewport={"width": width, "height": 800})
    expect(row(page, usual)).to_be_visible()
    before = row(page, usual).locator("td").first.bounding_box()
    assert gateway.api("POST", "/api/mappings", long).status == 201
    expect(row(page, prefix)).to_be_visible()
    after = row(page, usual).locator("td").first.bounding_box()
    assert row(page, prefix).bounding_box()["height"] < (360 if width == 360 else 140)
    assert after["width"] >= before["width"] * 0.7 and after["height"] <= before["height"] * 1.5
    for text in (prefix, long["target"], f"keys: {pool}"):
        assert row(page, prefix).get_by_title(text, exact=True).inner_text() == text, "the title holds the whole"
    assert gateway.api("DELETE", "/api/mappings" + prefix).status == 204
