"""What `demo --keep` leaves running: the advice that it gives, and its daemon's page in a real browser."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

PATIENCE_MS = 30_000

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(900)]  # it begins early


def test_what_it_keeps_up_works_as_advised(followed: Any) -> None:
    assert followed.is_ready
    assert "new.csv" in followed.listed
    assert {customer["status"] for customer in followed.status["customers"]} == {"healthy"}
    assert followed.modes == [0o700, 0o600]


def test_the_page_of_the_demo(open_demo: Callable[..., Page], kept_demo: Any) -> None:
    tab = open_demo()
    base = tab.url.rstrip("/")

    expect(tab.locator(".issue", has_text="initech")).to_contain_text("role_refused", timeout=PATIENCE_MS)
    expect(tab.get_by_role("heading", level=1)).to_have_text("1 customer must act")
    expect(tab.locator(".issue", has_text="initech")).to_contain_text("Responsible: customer")
    expect(tab.locator("table.customers tbody tr")).to_have_count(3)

    # One alert, for the refused role.
    alerts = tab.get_by_role("link", name="Alerts 1")
    expect(alerts).to_be_visible(timeout=PATIENCE_MS)
    alerts.click()
    expect(tab.locator(".issue").first).to_contain_text("initech: AssumeRole is refused")

    # From the customer's calendar to an object and its receipt.
    tab.goto(f"{base}/customers/acme")
    delivered = tab.get_by_role("link", name=re.compile(r"places-daily \S+: delivered"))
    assert delivered.count() == 5
    expect(tab.get_by_role("link", name=re.compile("^batch 2: delivered"))).to_be_visible()
    data = kept_demo.directory / ".demo" / "data"
    (data / "drops" / "later.csv").write_text("the page brings itself up to date", encoding="utf-8")
    expect(tab.get_by_role("link", name=re.compile("^batch 3: delivered"))).to_be_visible(timeout=PATIENCE_MS)
    delivered.last.click()
    expect(tab.locator("table.objects tbody tr")).to_have_count(77)
    name = tab.locator("table.objects summary").first.inner_text()
    tab.locator("table.objects summary").first.click()
    receipt = tab.locator(".receipt:visible")
    expect(receipt).to_contain_text(f"xmode/places-daily/{name}")
    size = (data / "places-daily" / name).stat().st_size
    expect(receipt).to_contain_text(f"{size:,} bytes")

    # By keyboard alone from the search to the very object, and to its customer.
    tab.keyboard.press("/")
    tab.keyboard.type(f"s3://acme-data/xmode/places-daily/{name}")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search?**")
    hit = tab.locator(".hits a", has_text=name)
    hit.focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("table.objects tbody tr")).to_have_count(1)
    tab.locator(".trail a").first.focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", level=1)).to_contain_text("acme")
