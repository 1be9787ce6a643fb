"""The plots of a feed and of a subscription: bytes and files of each period, with its state. Pure: geometry
for the template, in units of the SVG's view box."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from xmode_transfer.config.times import Deadlines
from xmode_transfer.model.checks import Judgement, Verdict
from xmode_transfer.model.health import PeriodSummary
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.records import FINISHED, Delivery
from xmode_transfer.web import states
from xmode_transfer.web.calendar import STOPPED, Cell, FeedRecord, Mark, cell

SHOWN = 60  # periods, or batches of a drop folder
WIDTH, HEIGHT = 1100, 290
_LEFT, _RIGHT = 74, 4  # margins
_PANELS = (("bytes", 30, 120), ("files", 176, 84))  # name, top and height
_SENT = frozenset({Mark.DELIVERED, Mark.DELIVERED_LATE, Mark.CORRECTED})
_LABELS = 10  # below the plot, at most


@dataclass(frozen=True, slots=True)
class Column:
    """One period. Without a delivery or a verdict its sizes are None."""

    label: str
    mark: Mark
    files: int | None = None
    bytes: int | None = None
    note: str = ""
    delivery_id: str = ""

    @property
    def is_marked(self) -> bool:
        return self.mark not in (Mark.DELIVERED, Mark.EXPECTED, Mark.NOTHING)

    @property
    def text(self) -> str:
        sizes = ""
        if self.files is not None and self.bytes is not None:
            sizes = f", {states.count(self.files, 'file')}, {states.size(self.bytes)}"
        return f"{self.label}: {self.mark}{sizes}" + (f"; {self.note}" if self.note else "")


@dataclass(frozen=True, slots=True)
class Bar:
    """``is_sent`` is False for what is not delivered: it is hatched."""

    column: Column
    x: float
    y: float
    width: float
    height: float
    is_sent: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """``lines`` are the values of the horizontal lines, with their height and text."""

    name: str
    top: float
    bottom: float
    lines: tuple[tuple[float, str], ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """``places`` have the middle of each column, ``step`` apart; ``labels`` are those below the plot."""

    name: str
    columns: tuple[Column, ...]
    panels: tuple[Panel, ...]
    places: tuple[tuple[float, Column], ...]
    labels: tuple[tuple[float, str], ...]
    step: float

    @property
    def has_unsent(self) -> bool:
        return any(not bar.is_sent for panel in self.panels for bar in panel.bars)

    @property
    def summary(self) -> str:
        """For screen readers, which do not see the bars."""
        marks = Counter(column.mark for column in self.columns if column.mark is not Mark.NOTHING)
        counts = ", ".join(f"{count} {mark}" for mark, count in marks.items()) or "nothing yet"
        return f"{self.name} from {self.columns[0].label} to {self.columns[-1].label}: {counts}"

    @property
    def legend(self) -> list[Mark]:
        there = {column.mark for column in self.columns if column.is_marked}
        return [mark for mark in Mark if mark in there]


def plot(name: str, columns: Sequence[Column]) -> Plot | None:
    """Draw the last columns, from old to new; None without any size."""
    shown = tuple(columns[-SHOWN:])
    if all(column.files is None for column in shown):
        return None
    width = round((WIDTH - _LEFT - _RIGHT) / max(len(shown), 12), 2)
    middles = [round(_LEFT + (number + 0.5) * width, 1) for number in range(len(shown))]
    widest = WIDTH - 34  # half a label is to the right of it
    every = -(-len(shown) // _LABELS)
    return Plot(
        name,
        shown,
        tuple(_panel(panel, top, height, shown, middles, width) for panel, top, height in _PANELS),
        tuple(zip(middles, shown, strict=True)),
        tuple((min(middles[at], widest), shown[at].label) for at in range(len(shown) - 1, -1, -every)),
        width,
    )


def _panel(
    name: str, top: float, height: float, columns: Sequence[Column], middles: Sequence[float], width: float
) -> Panel:
    values = [getattr(column, name) for column in columns]
    limit = nice(max(value for value in values if value is not None))
    bottom, bars = top + height, []
    for column, middle, value in zip(columns, middles, values, strict=True):
        if value is not None:
            tall = max(height * value / limit, 1.5)  # an empty period is seen too
            bar = (round(middle - width * 0.36, 1), round(bottom - tall, 1), round(width * 0.72, 1))
            bars.append(Bar(column, *bar, round(tall, 1), column.mark in _SENT))
    shown = [limit] if name == "files" and limit % 2 else [limit / 2, limit]
    say = states.size if name == "bytes" else "{:,.0f}".format
    lines = tuple((round(bottom - height * value / limit, 1), say(value)) for value in (0, *shown))
    return Panel(name, top, bottom, lines, tuple(bars))


def nice(largest: float) -> float:
    """Return a round number that is not less, for the top line."""
    if largest <= 1:
        return 1
    power = 10 ** math.floor(math.log10(largest))
    return next(
        float(factor * power) for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if factor * power >= largest
    )


def periods_until(newest: Period) -> tuple[Period, ...]:
    return tuple(newest.step(step) for step in range(1 - SHOWN, 1))


def of_subscription(record: FeedRecord, newest: Period, now: datetime) -> Plot | None:
    cells = [cell(record, period, now) for period in periods_until(newest)]
    return plot(record.feed, [_of_cell(item) for item in cells])


def _of_cell(item: Cell) -> Column:
    delivery = item.delivery
    if delivery is None:
        return Column(item.period, item.mark, note=item.note)
    sizes = (delivery.object_count, delivery.total_bytes)
    return Column(item.period, item.mark, *sizes, item.note, delivery.id)


def of_batches(feed: str, batches: Sequence[Delivery]) -> Plot | None:
    """Draw the batches of a drop folder, from old to new."""
    columns = [
        Column(
            f"batch {batch.revision}",
            Mark.DELIVERED if batch.status in FINISHED else STOPPED.get(batch.status, Mark.RUNNING),
            batch.object_count,
            batch.total_bytes,
            batch.failure.message if batch.failure else "",
            batch.id,
        )
        for batch in batches
    ]
    return plot(feed, columns) if columns else None


def of_feed(
    name: str,
    deadlines: Deadlines,
    summaries: Mapping[str, PeriodSummary],
    judgements: Mapping[str, Judgement],
    now: datetime,
) -> Plot | None:
    """Draw a feed for all its customers: what was judged at the source, otherwise what was delivered."""
    if deadlines.kind is PeriodKind.NONE:
        return None
    return plot(name, list(_of_periods(deadlines, summaries, judgements, now)))


def _of_periods(
    deadlines: Deadlines,
    summaries: Mapping[str, PeriodSummary],
    judgements: Mapping[str, Judgement],
    now: datetime,
) -> Iterator[Column]:
    known = False
    for period in periods_until(Period.around(now, deadlines.kind)):
        summary, judgement = summaries.get(period.label), judgements.get(period.label)
        is_past = deadlines.of(period) <= now
        if summary is None and judgement is None:
            missing = known and is_past and deadlines.expects(period)
            yield Column(period.label, Mark.MISSING if missing else Mark.NOTHING)
            continue
        known = True
        mark = _mark_of(summary, judgement, deadlines.of(period), is_past=is_past)
        notes = [f"{summary.delivered:,} of {states.count(summary.customers, 'customer')}"] if summary else []
        if judgement is not None:
            notes += [
                f"{failed.file}: {failed.message}".removeprefix(": ") for failed in judgement.failed[:2]
            ]
            sizes = (judgement.files, judgement.bytes)
        elif summary is not None:
            sizes = (summary.files, summary.bytes)
        yield Column(period.label, mark, *sizes, "; ".join(notes))


def _mark_of(
    summary: PeriodSummary | None, judgement: Judgement | None, deadline: datetime, *, is_past: bool
) -> Mark:
    if summary is None:
        held = judgement is not None and judgement.verdict is Verdict.QUARANTINED
        return Mark.QUARANTINED if held else Mark.LATE if is_past else Mark.DUE
    if summary.quarantined:
        return Mark.QUARANTINED
    if summary.delivered:
        if summary.revision > 1:
            return Mark.CORRECTED
        first_at = summary.first_delivered_at
        return Mark.DELIVERED_LATE if first_at is not None and first_at > deadline else Mark.DELIVERED
    if summary.rejected:
        return Mark.REJECTED
    return Mark.LATE if is_past else Mark.RUNNING
