"""The status page of the demo's own daemon in a real browser: what was really delivered, looked at."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

PATIENCE_MS = 30_000

pytestmark = pytest.mark.sandbox


def test_the_page_of_the_demo(
    open_demo: Callable[..., Page], grave: Callable[..., list[str]], tmp_path: Path
) -> None:
    """One test, because each demo takes half a minute."""
    tab = open_demo()
    base = tab.url.rstrip("/")

    # The page has been open since before initech was refused: it brings itself up to date.
    expect(tab.locator(".issue", has_text="initech")).to_contain_text("role_refused", timeout=PATIENCE_MS)
    expect(tab.get_by_role("heading", level=1)).to_have_text("1 customer must act")
    expect(tab.locator(".issue", has_text="initech")).to_contain_text("Responsible: customer")
    expect(tab.locator("table.customers tbody tr")).to_have_count(3)
    serious = grave(tab)

    # One alert, for the refused role.
    alerts = tab.get_by_role("link", name="Alerts 1")
    expect(alerts).to_be_visible(timeout=PATIENCE_MS)
    alerts.click()
    expect(tab.locator(".issue").first).to_contain_text("initech: AssumeRole is refused")
    serious += grave(tab)

    # From the customer's calendar to an object and its receipt.
    tab.goto(f"{base}/customers/acme")
    delivered = tab.get_by_role("link", name=re.compile(r"places-daily \S+: delivered"))
    assert delivered.count() == 5
    expect(tab.get_by_role("link", name=re.compile("^batch 2: delivered"))).to_be_visible(timeout=PATIENCE_MS)
    serious += grave(tab)
    delivered.last.click()
    expect(tab.locator("table.objects tbody tr")).to_have_count(77)
    name = tab.locator("table.objects summary").first.inner_text()
    tab.locator("table.objects summary").first.click()
    receipt = tab.locator(".receipt:visible")
    expect(receipt).to_contain_text(f"xmode/places-daily/{name}")
    size = (tmp_path / ".demo" / "data" / "places-daily" / name).stat().st_size
    expect(receipt).to_contain_text(f"{size:,} bytes")
    serious += grave(tab)

    # By keyboard alone from the search to the very object, and to its customer.
    tab.keyboard.press("/")
    tab.keyboard.type(f"s3://acme-data/xmode/places-daily/{name}")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search?**")
    hit = tab.locator(".hits a", has_text=name)
    hit.focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("table.objects tbody tr")).to_have_count(1)
    tab.locator(".trail a").focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", level=1)).to_contain_text("acme")

    # On a phone, in the dark.
    phone = open_demo("/", width=390, dark=True)
    for path in ("/", "/customers/acme", "/customers/initech", "/runs", "/alerts", "/search?q=acme"):
        phone.goto(base + path)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390, path
        serious += grave(phone, "color-contrast")
    assert serious == []
