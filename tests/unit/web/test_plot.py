"""The plots: what they mark, that they are bounded and well-formed, and the page of a feed."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.web.conftest import NOW, Page, ask
from xmode_transfer.config import Configuration, Customer, Feed, FeedFreshness, Service
from xmode_transfer.config.times import deadlines_of
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.checks import Check, Decision, FailedCheck, Judgement, Release, Verdict
from xmode_transfer.model.health import PeriodSummary, SourceScan
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import Delivery, Failure, Status
from xmode_transfer.web.calendar import FeedRecord, Mark
from xmode_transfer.web.pages import _environment
from xmode_transfer.web.plot import (
    HEIGHT,
    SHOWN,
    WIDTH,
    Column,
    Plot,
    nice,
    of_batches,
    of_feed,
    of_subscription,
    plot,
)
from xmode_transfer.web.server import Server

DAY = timedelta(days=1)
FEED = Feed(name="us-daily", source="/data/us-daily", period="day", partition="%Y/%m/%d")
FOLDER = Feed(name="drops", source="/data/drops", period="none")
DEADLINES = deadlines_of(None, FEED)
HOSTILE = '</title><script>alert("x")</script>\u202e.gz'
STOPPED = Failure("quarantined", "vendor", f"{HOSTILE}: 3 files, and at least 10", "release it")
FAILED = FailedCheck(Check.MIN_FILES, "3 files, and at least 10")


def label(back: int) -> str:
    return f"{NOW - back * DAY:%Y-%m-%d}"


def a_customer(name: str, **changes: Any) -> Customer:
    values: dict[str, Any] = {
        "name": name,
        "company": name.title(),
        "external_id": name,
        "role_arn": f"arn:aws:iam::{len(name):012}:role/XMode",
        "destination": {"bucket": f"{name}-data", "prefix": "xmode/"},
        "feeds": ("us-daily", "drops"),
    }
    return Customer(**(values | changes))


def a_delivery(back: int, status: Status = Status.DELIVERED, revision: int = 1, **changes: Any) -> Delivery:
    """The period of that many days ago, delivered six hours after its end."""
    at = NOW.replace(hour=6) - (back - 1) * DAY
    done_at = at if status is Status.DELIVERED else None
    made = Delivery(f"d-{back}-{revision}", "acme", "us-daily", label(back), revision, status, at, at)
    made = replace(made, object_count=60, total_bytes=10**8, delivered_at=done_at)
    return replace(made, **changes)


def a_judgement(back: int, verdict: Verdict = Verdict.QUARANTINED, **changes: Any) -> Judgement:
    made = Judgement("us-daily", label(back), "", "print", verdict, 3, 10**6, (FAILED,), NOW - back * DAY)
    return replace(made, **changes)


def marks(drawn: Plot | None) -> dict[str, Mark]:
    assert drawn is not None
    return {column.label: column.mark for column in drawn.columns if column.mark is not Mark.NOTHING}


DELIVERIES = (
    a_delivery(9),
    a_delivery(8, revision=2),
    a_delivery(7, delivered_at=NOW - 3 * DAY),
    a_delivery(6, Status.QUARANTINED, failure=STOPPED, object_count=3),
    a_delivery(5, Status.QUARANTINED, revision=2, failure=STOPPED, object_count=0, total_bytes=0),
    a_delivery(4, Status.SKIPPED, failure=replace(STOPPED, cause="rejected")),
    a_delivery(3, Status.RUNNING),
    a_delivery(1),
)
EXPECTED = {
    label(9): Mark.DELIVERED,
    label(8): Mark.CORRECTED,
    label(7): Mark.DELIVERED_LATE,
    label(6): Mark.QUARANTINED,
    label(5): Mark.QUARANTINED,
    label(4): Mark.REJECTED,
    label(3): Mark.RUNNING,
    label(2): Mark.MISSING,
    label(1): Mark.DELIVERED,
    label(0): Mark.EXPECTED,
}


def of_acme() -> Plot | None:
    scan = SourceScan("acme", "us-daily", NOW, NOW - 100 * DAY)
    record = FeedRecord("us-daily", DEADLINES, {item.period: item for item in DELIVERIES}, scan)
    return of_subscription(record, Period.around(NOW, PeriodKind.DAY), NOW)


def test_a_subscription_has_a_mark_for_each_period() -> None:
    drawn = of_acme()
    assert drawn is not None
    shown = {period: mark for period, mark in marks(drawn).items() if period >= label(9)}
    assert shown == EXPECTED
    assert [mark for mark in drawn.legend if mark is Mark.DELIVERED] == []
    assert "2 quarantined" in drawn.summary


def a_summary(back: int, **changes: Any) -> PeriodSummary:
    at = NOW.replace(hour=6) - (back - 1) * DAY
    return PeriodSummary(label(back), 2, 2, 0, 0, 60, 10**8, 1, at)._replace(**changes)


@pytest.mark.parametrize(
    ("summary", "judgement", "mark", "files"),
    [
        (a_summary(3), None, Mark.DELIVERED, 60),
        (a_summary(3), a_judgement(3, Verdict.SOUND), Mark.DELIVERED, 3),
        (a_summary(3, revision=2), None, Mark.CORRECTED, 60),
        (a_summary(3, first_delivered_at=NOW), None, Mark.DELIVERED_LATE, 60),
        (a_summary(3, quarantined=1, delivered=1), a_judgement(3), Mark.QUARANTINED, 3),  # released to one
        (a_summary(3, delivered=2), a_judgement(3), Mark.DELIVERED, 3),  # released to all
        (a_summary(3, delivered=0, rejected=2), a_judgement(3), Mark.REJECTED, 3),
        (a_summary(3, delivered=0), None, Mark.LATE, 60),
        (a_summary(1, delivered=0), None, Mark.RUNNING, 60),
        (None, a_judgement(1), Mark.QUARANTINED, 3),
        (None, a_judgement(1, Verdict.WARNED), Mark.DUE, 3),
        (None, a_judgement(3, Verdict.SOUND), Mark.LATE, 3),
    ],
)
def test_a_feed_has_one_mark_for_all_customers(
    summary: PeriodSummary | None, judgement: Judgement | None, mark: Mark, files: int
) -> None:
    period = summary.period if summary else judgement.period if judgement else ""
    known = ({period: summary} if summary else {}, {period: judgement} if judgement else {})
    drawn = of_feed("us-daily", DEADLINES, *known, NOW)
    assert drawn is not None
    (column,) = (item for item in drawn.columns if item.label == period)
    assert (column.mark, column.files) == (mark, files)
    if summary is not None:
        assert f"{summary.delivered} of 2 customers" in column.note


def test_a_feed_misses_only_what_it_expects() -> None:
    weekdays = FEED.model_copy(update={"freshness": FeedFreshness(days=("mon", "tue", "wed", "thu", "fri"))})
    known = {label(back): a_summary(back) for back in (6, 5)}  # Wednesday and Thursday
    assert marks(of_feed("us-daily", deadlines_of(None, weekdays), known, {}, NOW)) == {
        **dict.fromkeys(known, Mark.DELIVERED),
        label(4): Mark.MISSING,
    }
    assert of_feed("us-daily", DEADLINES, {}, {}, NOW) is None
    assert of_feed("drops", deadlines_of(None, FOLDER), {}, {}, NOW) is None


def test_batches_of_a_drop_folder() -> None:
    batches = [a_delivery(1, status, number, period="none") for number, status in enumerate(Status, start=1)]
    drawn = of_batches("drops", batches)
    assert drawn is not None
    assert [column.label for column in drawn.columns][:2] == ["batch 1", "batch 2"]
    assert len(drawn.columns) == len(Status)
    assert of_batches("drops", []) is None


columns = st.builds(
    Column,
    st.sampled_from(["2026-11-24", "batch 7"]),
    st.sampled_from(Mark),
    files=st.none() | st.integers(0, 10**9),
    bytes=st.none() | st.integers(0, 10**17),
    note=st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
    ),
)
sized = columns.filter(lambda column: (column.files is None) == (column.bytes is None))


@given(st.lists(sized, min_size=1, max_size=3 * SHOWN))
def test_every_plot_is_bounded_and_well_formed(given: list[Column]) -> None:
    drawn = plot("us-daily", given)
    shown = given[-SHOWN:]
    if drawn is None:
        assert all(column.files is None for column in shown)
        return
    assert list(drawn.columns) == shown
    assert len(drawn.labels) <= 10
    for panel in drawn.panels:
        assert [bar.column for bar in panel.bars] == [column for column in shown if column.files is not None]
        for bar in panel.bars:
            assert bar.x >= 0
            assert bar.x + bar.width <= WIDTH
            assert panel.top - 0.2 <= bar.y
            assert bar.y + bar.height <= panel.bottom + 0.2 <= HEIGHT
            assert bar.is_sent == (bar.column.mark in (Mark.DELIVERED, Mark.DELIVERED_LATE, Mark.CORRECTED))
    plain = (Mark.DELIVERED, Mark.EXPECTED, Mark.NOTHING)
    marked = [column for column in shown if column.mark not in plain]
    chart = chart_in(rendered(drawn))
    uses = [use.get("href") for use in chart.iter("use")]
    assert len(uses) == len(marked)
    bars = [rect for rect in chart.iter("rect") if (rect.get("class") or "").startswith("column")]
    assert len(bars) == sum(len(panel.bars) for panel in drawn.panels)
    hatched = [rect for rect in bars if rect.get("fill") == "url(#p-hatch)"]
    assert len(hatched) == sum(not bar.is_sent for panel in drawn.panels for bar in panel.bars)


def rendered(drawn: Plot) -> str:
    template = '{% import "parts.html" as parts with context %}{{ parts.plot(item) }}'
    return _environment().from_string(template).render(item=drawn, at=NOW)


def chart_in(html: str) -> ET.Element:
    found = re.search(r"<svg class=\"chart\".*?</svg>", html, re.DOTALL)
    assert found is not None
    return ET.fromstring(found[0])


@given(st.integers(0, 10**18))
def test_the_top_line_is_round_and_near(largest: int) -> None:
    top = nice(largest)
    assert largest <= top <= max(1, 1.51 * largest)
    assert float(f"{top:.1e}") == top


def test_marks_are_readable_without_colour_and_by_screen_readers() -> None:
    drawn = of_acme()
    assert drawn is not None
    html = rendered(drawn)
    chart = chart_in(html)
    assert chart.get("role") == "img"
    assert "2 quarantined" in (chart.get("aria-label") or "")
    shapes = {use.get("href") for use in chart.iter("use")}
    assert {"#s-pause", "#s-check-twice", "#s-check-late"} <= shapes
    table = html[html.index("<table") :]
    for period, mark in EXPECTED.items():
        row = next(row for row in table.split("<tr>") if period in row)
        assert mark in re.sub(r"<svg.*?</svg>", "", row)
    assert 'href="/deliveries/d-6-1"' in table


# --- As it is served


def served(page: Page, ledger: Ledger) -> None:
    customers = {name: a_customer(name) for name in ("acme", "globex")}
    page.configuration = Configuration(Service(), {"us-daily": FEED, "drops": FOLDER}, customers, {})
    lease = ledger.leases.claim("delivery/anything", "host", 90)
    for delivery in DELIVERIES:
        for name in customers:
            ledger.deliveries.create(lease, replace(delivery, id=f"{name}-{delivery.id}", customer=name))
    ledger.judgements.record(a_judgement(6))
    ledger.judgements.record(replace(a_judgement(0), feed="drops", period="none", name=HOSTILE,
                                     failed=(FAILED._replace(file=HOSTILE),)))  # fmt: skip
    for name in customers:
        ledger.sources.record(SourceScan(name, "us-daily", NOW, NOW - 100 * DAY))


def test_the_page_of_a_feed(page: Page, ledger: Ledger, open_page: Callable[..., Server]) -> None:
    served(page, ledger)
    address = open_page().address
    answer = ask(address, "/feeds/us-daily")
    assert answer.status == 200
    assert answer.text.count('class="chart"') == 1
    chart = chart_in(answer.text)
    titles = [title.text or "" for title in chart.iter("title")]
    assert any(
        title.startswith(f"{label(6)}: quarantined, 3 files, 1.0 MB; 0 of 2 customers") for title in titles
    )
    assert any(title.startswith(f"{label(8)}: corrected") for title in titles)
    assert any(title.startswith(f"{label(7)}: delivered late") for title in titles)
    issues = answer.text[answer.text.index('<ul class="issues"') : answer.text.index("<dl")]
    assert issues.count('class="issue ') == 1, "the same for both customers"
    assert f"us-daily {label(6)}" in issues
    assert "3 files, and at least 10" in answer.text
    for path in ("/", "/customers/acme", "/search?q=us-daily", "/deliveries/acme-d-1-1"):
        assert 'href="/feeds/us-daily"' in ask(address, path).text, path
    gone = ask(address, "/feeds/%3Cscript%3E")
    assert (gone.status, "&lt;script&gt;" in gone.text) == (404, True)


def test_a_customer_has_a_plot_of_each_feed(
    page: Page, ledger: Ledger, open_page: Callable[..., Server]
) -> None:
    served(page, ledger)
    lease = ledger.leases.claim("delivery/other", "host", 90)
    for number in range(1, 70):
        batch = a_delivery(1, revision=number, id=f"batch-{number}", feed="drops", period="none")
        ledger.deliveries.create(lease, batch)
    text = ask(open_page().address, "/customers/acme").text
    assert text.count('class="chart"') == 2
    assert "batch 69" in text
    table = text[text.index('id="plot-drops"') :].partition("</details>")[0]
    assert table.count("<tr>") == SHOWN + 1


def test_hostile_names_are_text(page: Page, ledger: Ledger, open_page: Callable[..., Server]) -> None:
    served(page, ledger)
    address = open_page().address
    for path in ("/feeds/us-daily", "/feeds/drops", "/customers/acme", "/"):
        text = ask(address, path).text
        assert "alert(&#34;x&#34;)" in text, path
        assert "<script>alert" not in text
        assert "\u202e" not in text


def test_a_decision_is_shown_and_ends_the_quarantine(
    page: Page, ledger: Ledger, open_page: Callable[..., Server]
) -> None:
    served(page, ledger)
    release = Release("drops", "none", HOSTILE, "print", "acme", Decision.RELEASED, "ann", "it is right", NOW,
                      (FAILED,))  # fmt: skip
    ledger.judgements.decide([release])
    text = ask(open_page().address, "/feeds/drops").text
    assert "decided for 1 customer" in text
    customers = text[text.index('id="customers"') :]
    states = re.findall(
        r'class="word \w+">.*?</svg>([^<]+)</span></td><th scope="row"><a [^>]*>(\w+)', customers
    )
    assert states == [("quarantined", "globex"), ("healthy", "acme")]
