"""The admin page as its user handles it: rows, forms, dialogs. `page` is Playwright's."""

from __future__ import annotations

import re

from playwright.sync_api import expect


def row(page, name):
    return page.locator(f'.list tbody tr[data-id="{name}"]')


def press(page, name, action):
    row(page, name).get_by_role("button", name=f"{action}: {name}").click()


def fill(page, values: dict):
    """name -> value, by the fields' labels."""
    dialog = page.get_by_role("dialog")
    for label, value in values.items():
        field = dialog.get_by_label(re.compile(rf"^{re.escape(label)}( \*)?$"))
        field.evaluate("e => e.closest('details') && (e.closest('details').open = true)")
        if isinstance(value, bool):
            field.set_checked(value)
        elif field.evaluate("e => e.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def add(page, values: dict):
    page.get_by_role("button", name="Add", exact=True).click()
    fill(page, values)
    page.get_by_role("button", name="Create").click()


def save(page):
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def confirm(page, action):
    page.get_by_role("dialog").get_by_role("button", name=action, exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def entry(gateway, path):
    answer = gateway.api("GET", path)
    assert answer.status == 200, answer.body
    return answer.json()
