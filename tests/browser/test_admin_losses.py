"""Nothing is lost on the admin page without a question: what was typed, keys that are shown once, what others made."""

import json

import pytest
from playwright.sync_api import expect
from support.pages import confirm, entry, fill, press, row

DISCARD = "Discard what was typed?"


def question(page):
    return page.get_by_role("dialog", name=DISCARD)


def confirm_not(page):
    question(page).get_by_role("button", name="Cancel").click()


def replace(page, document):
    page.locator("#document").fill(json.dumps(document))
    page.get_by_role("button", name="Replace").click()
    page.get_by_role("dialog").get_by_role("button", name="Replace").click()


def spoil_the_token(page):
    page.evaluate("sessionStorage.setItem('apiproxy.token', 'changed-meanwhile')")


# -- forms


@pytest.mark.parametrize("way", ["Escape", "Close", "Cancel"])
def test_form_is_not_dropped_without_a_question(gateway, log_in, way):
    def go_away():
        if way == "Escape":
            page.keyboard.press("Escape")
        else:
            form.get_by_role("button", name=way, exact=True).click()

    page = log_in(gateway)
    form = page.get_by_role("dialog", name="Add a mapping")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(form).to_be_visible()
    go_away()
    expect(page.locator("dialog")).to_have_count(0)  # nothing was typed

    page.get_by_role("button", name="Add", exact=True).click()
    fill(page, {"Description": "half a thought"})
    for _ in range(3):  # a browser lets only the first Escape be prevented
        go_away()
        expect(question(page)).to_be_visible()
        page.keyboard.press("Escape") if way == "Escape" else confirm_not(page)
        expect(question(page)).to_have_count(0)
        expect(form.get_by_label("Description")).to_have_value("half a thought")
    go_away()
    question(page).get_by_role("button", name="Discard").click()
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Add", exact=True)).to_be_focused()


def test_number_that_is_none_yet_counts_as_typed(gateway, log_in):
    page = log_in(gateway, "clients")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("dialog").get_by_label("Requests per minute").press_sequentially("1e")
    page.keyboard.press("Escape")
    expect(question(page)).to_be_visible()


def reload(page, accept: bool) -> list[str]:
    """Reloads by the page's own doing, which can be refused; what the browser asked."""
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept() if accept else dialog.dismiss()))
    page.evaluate("setTimeout(() => location.reload())")
    page.wait_for_timeout(400)
    return asked


def test_reload_is_asked_about(gateway, log_in):
    page = log_in(gateway)
    assert reload(page, accept=False) == []
    page.get_by_role("button", name="Add", exact=True).click()
    fill(page, {"Description": "half a thought"})
    assert reload(page, accept=False) == ["beforeunload"]
    expect(page.get_by_role("dialog").get_by_label("Description")).to_have_value("half a thought")


def test_edited_configuration_is_not_dropped_without_a_question(gateway, log_in):
    page = log_in(gateway, "configuration")
    text = page.locator("#document")
    expect(text).not_to_have_value("")
    page.get_by_role("link", name="Keys").click()
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    page.get_by_role("link", name="Configuration").click()
    expect(text).to_be_enabled()
    text.fill('{"edited": true}')
    assert reload(page, accept=False) == ["beforeunload"]
    page.get_by_role("link", name="Keys").click()
    confirm_not(page)
    expect(text).to_have_value('{"edited": true}')
    assert page.url.endswith("#configuration")
    page.get_by_role("button", name="Log out").click()
    confirm_not(page)
    expect(text).to_have_value('{"edited": true}')
    page.get_by_role("link", name="Keys").click()
    question(page).get_by_role("button", name="Discard").click()
    expect(page.get_by_role("heading", name="Keys")).to_be_focused()
    assert page.url.endswith("#keys")
    assert reload(page, accept=False) == []


# -- a token that no longer holds


def log_in_again(page, gateway):
    again = page.get_by_role("dialog", name="Log in")
    expect(again).to_be_visible()
    again.get_by_label("Admin token").fill("wrong")
    page.keyboard.press("Enter")
    expect(again.get_by_role("alert")).to_have_text("This is not the admin token.")
    page.keyboard.press("Escape")
    again.get_by_label("Admin token").fill(gateway.admin_token)
    page.keyboard.press("Enter")
    expect(again).to_have_count(0)


def test_form_outlives_the_token(gateway, vendor, log_in):
    page = log_in(gateway)
    page.get_by_role("button", name="Add", exact=True).click()
    fill(page, {"Prefix": "/outlives", "Target": vendor.url, "Description": "precious"})
    spoil_the_token(page)
    log_in_again(page, gateway)
    spoil_the_token(page)
    page.get_by_role("button", name="Create").click()
    log_in_again(page, gateway)
    expect(page.get_by_role("dialog").get_by_label("Description")).to_have_value("precious")
    page.get_by_role("button", name="Create").click()
    expect(row(page, "/outlives")).to_contain_text("precious")
    gateway.unmap("/outlives")


def test_key_shown_once_outlives_the_token(gateway, log_in):
    assert gateway.api("POST", "/api/clients", {"id": "rotating"}).status == 201
    page = log_in(gateway, "clients")
    press(page, "rotating", "New key")
    page.get_by_role("dialog").get_by_role("button", name="New key").click()
    keys = page.get_by_role("dialog", name="Copy the key now")
    key = keys.get_by_role("textbox").input_value()
    spoil_the_token(page)
    log_in_again(page, gateway)
    assert keys.get_by_role("textbox").input_value() == key
    for _ in range(3):
        page.keyboard.press("Escape")
    expect(keys).to_be_visible()
    assert reload(page, accept=False) == ["beforeunload"]
    keys.get_by_role("button", name="I have stored it").click()
    expect(page.locator("dialog")).to_have_count(0)
    assert gateway.api("DELETE", "/api/clients/rotating").status == 204
    expect(row(page, "rotating")).to_have_count(0)  # live again


def test_edited_configuration_outlives_the_token_until_it_is_given_up(gateway, log_in):
    page = log_in(gateway, "configuration")
    text = page.locator("#document")
    expect(text).to_be_enabled()
    text.fill('{"edited": true}')
    spoil_the_token(page)
    log_in_again(page, gateway)
    expect(text).to_have_value('{"edited": true}')
    spoil_the_token(page)
    again = page.get_by_role("dialog", name="Log in")
    again.get_by_role("button", name="Log out").click()
    question(page).get_by_role("button", name="Discard").click()
    expect(page.locator("#login-token")).to_be_focused()
    expect(page.locator("dialog")).to_have_count(0)
    assert page.locator("#section").inner_text() == ""


# -- the configuration


def test_new_keys_are_shown_where_the_rest_cannot_be_read(gateway, log_in):
    page = log_in(gateway, "configuration")
    expect(page.locator("#document")).to_be_enabled()
    document = entry(gateway, "/api/config")
    page.locator("#document").fill(json.dumps({**document, "clients": [*document["clients"], {"id": "made"}]}))
    page.get_by_role("button", name="Replace").click()
    question = page.get_by_role("dialog")
    expect(question).to_be_visible()
    page.route("**/api/config", lambda route: route.abort() if route.request.method == "GET" else route.continue_())
    question.get_by_role("button", name="Replace").click()
    keys = page.get_by_role("dialog", name="Copy the key now")
    assert keys.get_by_role("textbox").input_value().startswith("sk-ap-")
    keys.get_by_role("button", name="I have stored it").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("It was replaced, but could not be read again")
    expect(page.get_by_text("Nothing was changed")).to_have_count(0)
    page.unroute_all()
    expect(page.locator("#document")).to_be_enabled(timeout=20_000)
    expect(alert).to_have_count(0)
    assert json.loads(page.locator("#document").input_value()) == entry(gateway, "/api/config")
    assert gateway.api("PUT", "/api/config", document).status == 200


def test_replacing_without_an_answer_is_not_called_undone(gateway, log_in):
    page = log_in(gateway, "configuration")
    expect(page.locator("#document")).to_be_enabled()
    document = entry(gateway, "/api/config")
    page.route("**/api/config", lambda route: route.abort() if route.request.method == "PUT" else route.continue_())
    replace(page, {**document, "clients": []})
    expect(page.get_by_role("alert")).to_contain_text("whether it was replaced is not known")
    expect(page.get_by_text("Nothing was changed")).to_have_count(0)


def test_replacing_says_what_it_would_delete_by_now(gateway, vendor, log_in):
    page = log_in(gateway, "configuration")
    text = page.locator("#document")
    expect(text).to_be_enabled()
    document = entry(gateway, "/api/config")
    many = [f"later-{n:02}" for n in range(12)]
    dialog = page.get_by_role("dialog", name="Replace the whole configuration?")
    text.fill(json.dumps(document))
    page.get_by_role("button", name="Replace").click()
    expect(dialog).to_be_visible()
    expect(dialog).not_to_contain_text("Deleted:")
    expect(dialog).not_to_contain_text("changed elsewhere")
    page.keyboard.press("Escape")

    for name in many:
        assert gateway.api("POST", "/api/clients", {"id": name}).status == 201
    prefix = gateway.route(vendor.url)
    page.get_by_role("button", name="Replace").click()
    before = len(document["clients"])
    expect(dialog).to_contain_text("It was changed elsewhere since you began to edit")
    expect(dialog).to_contain_text(f"Clients: {before + 12} → {before}")
    expect(dialog.get_by_role("listitem")).to_have_text([f"Mappings (1): {prefix}", f"Clients (12): {', '.join(many[:10])}, …"])
    confirm(page, "Cancel")
    expect(page.get_by_role("button", name="Replace")).to_be_focused()
    for name in many:
        assert gateway.api("DELETE", f"/api/clients/{name}").status == 204


def test_escape_with_the_focus_nowhere_drops_nothing(gateway, log_in):
    """The browser then closes the dialog by itself, and lets that be prevented only once."""

    def escape():
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Escape")

    page = log_in(gateway, "clients")
    page.get_by_role("button", name="Add", exact=True).click()
    fill(page, {"Id": "nowhere", "Name": "half a thought"})
    form = page.get_by_role("dialog", name="Add a client")
    for _ in range(3):
        escape()
        expect(question(page)).to_be_visible()
        confirm_not(page) if _ else page.keyboard.press("Escape")
        expect(question(page)).to_have_count(0)
        expect(form.get_by_label("Name")).to_have_value("half a thought")
    form.get_by_role("button", name="Create").click()
    keys = page.get_by_role("dialog", name="Copy the key now")
    expect(keys).to_be_visible()
    for _ in range(4):
        escape()
        page.wait_for_timeout(50)
        expect(keys).to_be_visible()
    assert keys.get_by_role("textbox").input_value().startswith("sk-ap-")
    assert gateway.api("DELETE", "/api/clients/nowhere").status == 204


def test_one_press_too_many_opens_one_form(gateway, log_in):
    page = log_in(gateway)
    page.get_by_role("button", name="Add", exact=True).evaluate("button => { button.click(); button.click(); }")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.wait_for_timeout(300)
    expect(page.get_by_role("dialog")).to_have_count(1)


def test_no_form_opens_above_the_login(gateway, log_in):
    page = log_in(gateway)
    spoil_the_token(page)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#login-token")).to_be_visible()
    page.wait_for_timeout(300)
    expect(page.locator("dialog")).to_have_count(0)
