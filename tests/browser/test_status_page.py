"""The status page in a real browser, over many customers of three feeds each."""

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from playwright.sync_api import Page, expect

Tab = Callable[..., Page]
Grave = Callable[..., list[str]]
PAGES = [
    "/",
    "/customers/acme",
    "/customers/umbrella",
    "/customers/initech/access",
    "/feeds/us-daily",
    "/runs",
    "/alerts",
    "/search?q=nobody-has-this",
]


def delivery_of(tab: Page) -> Page:
    """acme's newest daily delivery, by way of its calendar."""
    tab.get_by_role("link", name="us-daily 2026-11-23: delivered").first.click()
    return tab


# --- What is shown -------------------------------------------------------------------------------------


def test_the_overview_lists_issues_first(open_tab: Tab) -> None:
    tab = open_tab()
    expect(tab.get_by_role("heading", level=1)).to_have_text(
        re.compile("2 customers need vendor action, 1 customer must act, 1 customer waits for AWS")
    )
    issue = tab.locator(".issue")
    expect(issue.first).to_contain_text("broken")
    expect(issue.first).to_contain_text("customers/umbrella.yaml:17:3")
    initech = issue.filter(has_text="initech")
    expect(initech).to_have_count(1)  # three feeds, one cause
    expect(initech).to_contain_text("Responsible: customer")
    expect(initech).to_contain_text("xmode-transfer check-access --customer initech")
    expect(tab.get_by_text(re.compile(r"acme us-daily 2026-11-23 for \d min"))).to_be_visible()
    rows = tab.locator("table.customers tbody tr")
    expect(rows).to_have_count(100)
    expect(rows.first).to_contain_text("acme")
    tab.get_by_role("link", name="Next", exact=True).click()
    expect(tab.get_by_text("Page 2 of 5")).to_be_visible()


def test_a_state_links_to_its_customers(open_tab: Tab) -> None:
    tab = open_tab()
    tab.get_by_role("link", name="1 blocked").click()
    expect(tab.locator("table.customers tbody tr")).to_have_count(1)
    expect(tab.locator("table.customers tbody")).to_contain_text("initech")


def test_a_customer_has_a_calendar_of_its_periods(open_tab: Tab) -> None:
    tab = open_tab("/customers/acme")
    expect(tab.get_by_role("heading", level=1)).to_contain_text("acme")
    for told in (
        "us-daily 2026-11-15: delivered late, 60 objects; deadline 2026-11-17",
        "us-daily 2026-11-19: corrected, 60 objects; revision 2",
        "us-daily 2026-11-02: missing",
        "us-daily 2026-11-24: expected",
        "ticks 2026-11-24T06: delivered, 4 objects",
        "weekly 2026-W47: delivered",
        "monthly 2026-10: delivered",
        "batch 18: delivered",
    ):
        assert tab.get_by_text(told).count() > 0, told
    expect(tab.get_by_role("list", name="Legend")).to_contain_text("delivered late")
    tab.get_by_role("link", name="Earlier").click()
    expect(tab.get_by_role("link", name="Later")).to_be_visible()
    expect(tab.locator(".calendar .months").first).to_contain_text("October 2026")


def test_an_object_has_its_receipt(open_tab: Tab) -> None:
    tab = delivery_of(open_tab("/customers/acme"))
    expect(tab.get_by_role("heading", level=1)).to_have_text("us-daily 2026-11-23")
    expect(tab.get_by_text("s3://acme-data/xmode/us-daily/_manifests/2026-11-23/000001.json")).to_be_visible()
    expect(tab.locator("table.objects tbody tr")).to_have_count(100)
    tab.get_by_text("2026/11/23/part-0000007.parquet", exact=True).click()
    receipt = tab.locator(".receipt:visible")
    for told in (
        "xmode/us-daily/2026/11/23/part-0000007.parquet",
        "CRC64NVME",
        "1,747,626 bytes",
        "3HL4kqtJvj",
    ):
        expect(receipt).to_contain_text(told)
    tab.get_by_role("link", name="Next 100").click()
    expect(tab.locator("table.objects tbody tr").first).to_contain_text("part-0000099")
    tab.get_by_role("searchbox", name="Find objects").fill("part-000024")
    tab.get_by_role("button", name="Find").click()
    expect(tab.locator("table.objects tbody tr")).to_have_count(10)
    expect(tab.locator("table.objects tbody tr").first).to_contain_text("to be sent")


def test_the_last_access_check_has_its_fixes(open_tab: Tab) -> None:
    tab = open_tab("/customers/initech")
    tab.get_by_role("link", name="blocked", exact=True).click()
    fix = tab.locator(".fix").first
    expect(fix).to_contain_text("role_refused")
    fix.locator("summary", has_text="Command for").click()
    expect(fix.locator("pre:visible")).to_contain_text("aws iam update-assume-role-policy --role-name XMode")
    fix.locator("summary", has_text="Policy statement").click()
    expect(fix.locator("pre").first).to_contain_text('"sts:ExternalId": "initechData"')


def test_an_alert_shows_responsible_and_notifications(open_tab: Tab) -> None:
    tab = open_tab()
    tab.get_by_role("link", name="Alerts 4").click()
    opened = tab.get_by_role("region", name="Open")
    expect(opened.locator(".issue")).to_have_count(4)
    initech = opened.locator(".issue", has_text="initech")
    expect(initech).to_contain_text("role_refused")
    expect(initech).to_contain_text("Responsible: customer")
    expect(initech).to_contain_text(re.compile(r"on-call: opened 3\d min ago"))
    mistaken = opened.locator(".issue", has_text="customers/umbrella.yaml:17:3")
    expect(mistaken).to_contain_text(re.compile(r"on-call: opened 1\d min ago"))
    initech.get_by_role("link", name="initech", exact=True).click()
    expect(tab.get_by_role("heading", level=1)).to_contain_text("initech")


def test_runs_show_their_throughput(open_tab: Tab) -> None:
    tab = open_tab("/runs")
    rows = tab.locator("table.runs tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.filter(has_text="us-daily").first).to_contain_text("MB/s")


FOUND = [
    ("ACME", "acme"),
    ("Söhne", "hostile"),
    ("البيانات", "shirka"),
    ("arn:aws:iam::000000000010:role", "globex"),
    ("weekly", "by the week, 1 customer"),
    (
        "s3://acme-data/xmode/us-daily/2026/11/23/part-0000007",
        "xmode/us-daily/2026/11/23/part-0000007.parquet",
    ),
    ("s3://acme-data/xmode/us-daily/_manifests/2026-11-23/000001.json", "manifest"),
]


def test_search_finds_customers_and_objects(open_tab: Tab) -> None:
    tab = open_tab("/runs")
    base = tab.url.removesuffix("/runs")
    for text, found in FOUND:
        tab.goto(f"{base}/runs")
        tab.keyboard.press("/")
        tab.keyboard.type(text)
        tab.keyboard.press("Enter")
        tab.wait_for_url("**/search?**")
        expect(tab.locator(".hits").first).to_contain_text(found)


def test_a_truncated_search_says_so(open_tab: Tab) -> None:
    """CustomerMetrics has such a key, and only some are looked at; with the bucket it is one."""
    tab = open_tab("/search?q=xmode/us-daily/2026/11/23/none-of-this-name")
    expect(tab.get_by_text("No match in the subscriptions searched")).to_be_visible()
    tab = open_tab("/search?q=s3://acme-data/xmode/us-daily/2026/11/23/none-of-this-name")
    expect(tab.get_by_text("No match.")).to_be_visible()


def test_hostile_names_are_text(open_tab: Tab) -> None:
    tab = open_tab("/customers/hostile")
    expect(tab.get_by_role("heading", level=1)).to_contain_text(
        '<script>alert("x")</script> & \'Söhne\' "GmbH"'
    )
    assert tab.locator("main script").count() == 0
    tab.goto(tab.url.replace("customers/hostile", 'search?q="><script>alert(1)</script>'))
    expect(tab.get_by_role("heading", level=1)).to_contain_text('"><script>alert(1)</script>')
    tab.goto(re.sub(r"search.*", "customers/acme", tab.url))
    delivery_of(tab)
    expect(tab.get_by_text("2026/11/23/<img src=x onerror=alert(1)>.csv", exact=True)).to_be_visible()
    assert tab.locator("main img").count() == 0
    company = open_tab("/customers/shirka").locator("h1 bdi")
    expect(company).to_have_text("شركة البيانات")
    assert company.evaluate("it => getComputedStyle(it).unicodeBidi") == "isolate"


# --- By itself, by keyboard, anywhere ------------------------------------------------------------------


def updates(tab: Page) -> int:
    return int(tab.evaluate("Number(document.documentElement.dataset.updates || 0)"))


def change_status(path: Path, customer: str, status: str) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "UPDATE deliveries SET status = :status, failure_cause = 'throttled', "
                "failure_responsible = 'aws', failure_message = 'AWS slows us down', failure_hint = '' "
                "WHERE period_id = (SELECT id FROM periods WHERE customer = :customer AND feed = 'prices' "
                "AND period = '2026-11-23')"
            ),
            {"status": status, "customer": customer},
        )
    engine.dispose()


def test_the_page_refreshes_and_keeps_its_state(open_tab: Tab, site: Any) -> None:
    tab = open_tab("/customers/customer-0044")
    tab.evaluate("document.body.dataset.everyMs = '0'")
    expect(tab.locator(".title .word")).to_have_text("healthy")
    link = tab.locator("a.cell").nth(3)
    link.focus()
    change_status(site.ledger_path, "customer-0044", "failed")
    site.clock.advance(4)
    try:
        tab.evaluate("refresh()")
        expect(tab.locator(".title .word")).to_have_text("failing")
        expect(tab.locator(".issues")).to_contain_text("AWS slows us down")
        assert tab.evaluate("document.activeElement.tagName") == "A"
    finally:
        change_status(site.ledger_path, "customer-0044", "delivered")
        site.clock.advance(4)
    tab.get_by_role("button", name="Pause updates").click()
    before = updates(tab)
    tab.evaluate("refresh()")
    assert updates(tab) == before
    tab.get_by_role("button", name="Resume updates").click()
    tab.evaluate("refresh()")
    assert updates(tab) > before


def test_the_page_says_when_the_daemon_does_not_answer(open_tab: Tab) -> None:
    tab = open_tab("/runs")
    tab.evaluate("() => { window.fetch = () => Promise.reject(new Error('gone')); }")
    tab.evaluate("refresh()")
    expect(tab.get_by_role("status")).to_contain_text("not updated since: the daemon does not answer")
    refused = open_tab("/runs")
    refused.evaluate("() => { window.fetch = () => Promise.resolve(new Response('', {status: 503})); }")
    refused.evaluate("refresh()")
    expect(refused.get_by_role("status")).to_contain_text("the daemon answers 503; load the page anew")
    expect(refused.locator("table.runs")).to_be_visible()  # what was known stays


def test_the_page_works_without_scripts(open_tab: Tab) -> None:
    tab = open_tab("/", script=False)
    assert tab.locator('meta[http-equiv="refresh"]').get_attribute("content") == "60"
    expect(tab.get_by_role("button", name="Pause")).to_be_hidden()
    tab.get_by_role("searchbox").fill("initech")
    tab.get_by_role("searchbox").press("Enter")
    tab.get_by_role("link", name="initech", exact=True).first.click()
    expect(tab.get_by_role("heading", level=1)).to_contain_text("initech")


def test_the_page_works_with_the_keyboard_alone(open_tab: Tab) -> None:
    tab = open_tab()
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="Skip to content")).to_be_focused()
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="500 all")).to_be_focused()
    tab.get_by_role("link", name="initech", exact=True).first.focus()
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", level=1)).to_contain_text("initech")
    assert outline != "none"
    tab.go_back()
    tab.keyboard.press("/")
    expect(tab.get_by_role("searchbox")).to_be_focused()
    tab.goto(re.sub(r"^(https?://[^/]+).*", r"\1/customers/acme", tab.url))
    delivery_of(tab)
    summary = tab.locator("summary").nth(2)
    summary.focus()
    tab.keyboard.press("Enter")
    expect(tab.locator(".receipt:visible")).to_have_count(1)


def test_the_page_fits_a_phone(open_tab: Tab) -> None:
    tab = open_tab("/", width=360)
    for path in (*PAGES, "/customers/hostile", "/search?q=acme"):
        tab.goto(re.sub(r"^(https?://[^/]+).*", rf"\1{path}", tab.url))
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, path
    tab.goto(re.sub(r"^(https?://[^/]+).*", r"\1/customers/acme", tab.url))
    days = tab.get_by_role("region", name="Feeds by the day")
    expect(days.get_by_text("November 2026")).to_be_in_viewport()
    expect(days.get_by_role("link", name="us-daily 2026-11-23: delivered")).to_be_in_viewport()
    delivery_of(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_states_are_readable_without_colour(open_tab: Tab) -> None:
    """Each state has a shape of its own besides its word."""
    tab = open_tab("/customers/acme")
    shapes = tab.evaluate(
        "[...document.querySelectorAll('.legend .word')].map("
        "it => [it.textContent.trim(), it.querySelector('use').getAttribute('href')])"
    )
    assert len(shapes) >= 5
    assert len({shape for _, shape in shapes}) == len(shapes)
    assert all(word for word, _ in shapes)


def test_the_page_is_accessible(open_tab: Tab, grave: Grave) -> None:
    tab = open_tab()
    base = tab.url.rstrip("/")
    found = []
    for path in ("/?health=blocked", *PAGES[1:]):  # a hundred rows alike would only take longer
        tab.goto(base + path)
        found += grave(tab)
    tab.goto(base + "/customers/acme")
    delivery_of(tab)
    tab.locator("summary").first.click()
    assert found + grave(tab) == []


def lightness(tab: Page) -> int:
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in re.findall(r"\d+", background)[:3])


def test_the_dark_page_is_dark_and_has_enough_contrast(open_tab: Tab, grave: Grave) -> None:
    assert lightness(open_tab("/?health=blocked")) >= 200
    tab = open_tab("/?health=blocked", dark=True)
    assert lightness(tab) < 200
    found = grave(tab, "color-contrast")
    base = tab.url.partition("?")[0]
    for path in ("customers/initech", "feeds/us-daily", "alerts"):
        tab.goto(base + path)
        found += grave(tab, "color-contrast")
    assert found == []


# --- Many ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/", 25),
        ("/?health=healthy&page=3", 25),
        ("/customers/acme", 100),
        ("/feeds/us-daily", 25),
        ("/runs", 150),
        ("/alerts", 25),
        ("/search?q=customer", 25),
        ("/search?q=xmode/us-daily/2026/11/23/part", 30),
    ],
)
def test_queries_of_a_page_do_not_grow_with_the_customers(site: Any, path: str, most: int) -> None:
    """That is what keeps it fast for thousands of them; docs/status-page.md has the times."""
    asked = []

    def note(*statement: Any) -> None:
        asked.append(statement[2])

    site.clock.advance(4)  # what is known is asked anew
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        with urllib.request.urlopen(site.address + path) as answer:
            size = len(answer.read())
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
    assert 0 < len(asked) <= most
    assert size < 250_000
