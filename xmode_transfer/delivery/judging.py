"""Judge a period before release: read what the feed's checks need, decide, and record the verdict, once for
all customers. A verdict holds for one fingerprint of the source and one set of rules."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

from xmode_transfer import telemetry
from xmode_transfer.config import Customer, Feed
from xmode_transfer.delivery import checks
from xmode_transfer.ledger import Ledger
from xmode_transfer.model.checks import (
    Decision,
    FailedCheck,
    Judgement,
    Release,
    Verdict,
    in_force,
    next_step,
)
from xmode_transfer.model.errors import Quarantined, Rejected, XmodeError
from xmode_transfer.model.periods import Period, PeriodKind
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import SourceFile
from xmode_transfer.sources.formats import Examined, examine, is_examined
from xmode_transfer.sources.interface import PeriodState, Source
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context, held, in_order
from xmode_transfer.transfer.plan import Difference, Kind, ScanTotals
from xmode_transfer.transfer.planning import Plan, Planner

_WAIT_SECONDS = 60.0  # for another process that judges the same period
_THREADS = 16  # that read from a bucket; a local file is faster read than handed to a thread
NO_PERIOD = Period.none().label
_WHEN_STOPPED = "the next run judges the period again"


def rules_of(feed: Feed) -> str:
    """Return the digest of the feed's checks."""
    return hashlib.sha256(feed.checks.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges the periods of one feed. Without a ``ledger`` there is no history."""

    feed: Feed
    source: Source
    ledger: Ledger | None
    clock: Clock
    check_stop: Callable[[], None] = lambda: None

    def known(self, period: Period, fingerprint: str) -> Judgement | None:
        """Return the recorded verdict if it still holds."""
        last = self.ledger.judgements.last(self.feed.name, period.label) if self.ledger is not None else None
        return last if last is not None and self.holds(last, fingerprint) else None

    def holds(self, last: Judgement, fingerprint: str) -> bool:
        return last.fingerprint == fingerprint and last.rules == rules_of(self.feed)

    def judge(self, period: Period, scanned: ScanTotals, files: Iterable[SourceFile]) -> Judgement:
        """Judge the period. ``scanned`` is of all its files, ``files`` are those to read. Writes nothing.
        Raises SourceError."""
        rules, failures, shapes = self.feed.checks, checks.Failures(), self._shapes(period)
        if self.feed.period is not PeriodKind.NONE:
            for failed in self._of_period(period, scanned):
                failures.add(failed)
        wanted = (file for file in files if is_examined(file.name, rules))
        with self._reading(wanted) as examined:
            for item in examined:
                bad = item.failed
                if bad is None and item.shape is not None:
                    bad = shapes.add(item.name, item.kind, item.shape)
                if bad is not None:
                    failures.add(bad)
        listed = failures.listed()
        return Judgement(
            self.feed.name,
            period.label,
            "",
            scanned.fingerprint,
            checks.verdict(rules, listed),
            scanned.files,
            scanned.bytes,
            listed,
            self.clock.now(),
            shapes.found,
            rules_of(self.feed),
        )

    def judge_file(self, file: SourceFile) -> Judgement:
        """Judge a file of a drop folder."""
        judgement = self.judge(Period.none(), ScanTotals([file]), [file])
        return replace(judgement, name=file.name, shape={})

    def _reading(self, files: Iterable[SourceFile]) -> AbstractContextManager[Iterator[Examined]]:
        if self.feed.source.startswith("s3://"):
            return in_order(self._examined, files, name="checks", threads=_THREADS)
        return nullcontext(map(self._examined, files))

    def _examined(self, file: SourceFile) -> Examined:
        return examine(self.source, file, self.feed.checks, self.check_stop)

    def _of_period(self, period: Period, scanned: ScanTotals) -> Iterator[FailedCheck]:
        rules, name = self.feed.checks, self.feed.name
        history, had_files = [], False
        if self.ledger is not None:
            recorded = self.ledger.judgements
            if rules.change is not None:
                against = rules.change.against
                last = recorded.history(name, period.label, checks.needed_history(period.kind, against))
                history = checks.of_same_kind(period, last, against)
            had_files = not scanned.files and recorded.has_delivered_files(name)
        totals = checks.Totals(scanned.files, scanned.bytes, scanned.problems)
        return checks.of_period(rules, totals, history, had_files=had_files)

    def _shapes(self, period: Period) -> checks.Shapes:
        rules = self.feed.checks
        compares = rules.parquet is not None or rules.csv is not None
        last: list[Judgement] = []
        if compares and self.ledger is not None:
            last = self.ledger.judgements.references(self.feed.name, period.label)
        known: dict[str, tuple[str, str]] = {}
        for judgement in last:
            for kind, shape in judgement.shape.items():
                known.setdefault(kind, (shape, judgement.period))
        return checks.Shapes(rules, known)


class Gate(NamedTuple):
    """``error`` is why the delivery is held back: Quarantined or Rejected."""

    failed: tuple[FailedCheck, ...]
    error: XmodeError | None = None


def gate(
    context: Context,
    customer: Customer,
    feed: Feed,
    planner: Planner,
    plan: Plan,
    screen: "Screen | None",
) -> Gate:
    """Judge what is planned, unless that is done, and decide if it may be sent to the customer. Raises
    SourceError, AlreadyRunning while another process judges it, and Interrupted."""
    delivery = plan.delivery
    assert delivery is not None
    if screen is not None:  # its files are judged
        is_empty = not (delivery.object_count or plan.problems)
        return screen.gate() if is_empty else Gate(())
    ledger, state, fingerprint = context.ledger, planner.state, plan.scanned.fingerprint
    period, judge = state.period, judge_of(context, feed, planner.source)
    judgement = judge.known(period, fingerprint)
    if judgement is None:
        lease = f"checks/{feed.name}/{period.label}"
        with held(ledger, lease, context.holder, wait_seconds=_WAIT_SECONDS, stop=context.stop):
            judgement = judge.known(period, fingerprint)
            if judgement is None:
                files = (planned.source_file() for planned in ledger.objects.pending(delivery.id))
                judgement = judge.judge(period, plan.scanned, files)
                ledger.judgements.record(judgement)
                _log(judgement)
    if judgement.verdict is not Verdict.QUARANTINED:
        return Gate(judgement.failed)
    decided = in_force(ledger.judgements.decisions(feed.name, period.label), customer.name, fingerprint)
    if decided is None:
        return Gate(judgement.failed, quarantined(feed, period.label, judgement.failed))
    if decided.decision is Decision.RELEASED:
        return Gate(judgement.failed)
    ledger.sources.skip(customer.name, feed.name, {period.label: state.marker}, context.clock.now())
    return Gate(judgement.failed, rejected(decided))


class VerdictPreview(NamedTuple):
    """A verdict that nothing was recorded of. ``decision`` is a person's, if there is one."""

    judgement: Judgement
    decision: Release | None = None

    @property
    def is_held_back(self) -> bool:
        return self.judgement.verdict is Verdict.QUARANTINED and self.decision is None


def preview_verdict(
    judge: Judge,
    period: Period,
    scanned: ScanTotals,
    files: Iterable[SourceFile],
    customer: str = "",
    screen: "Screen | None" = None,
) -> VerdictPreview:
    """Return the recorded verdict, or else what a run for the customer would find. Raises SourceError."""
    if screen is not None:
        judgement = judge.judge(period, scanned, ())
        verdict = checks.verdict(judge.feed.checks, screen.listed)
        return VerdictPreview(replace(judgement, verdict=verdict, failed=screen.listed))
    judgement = judge.known(period, scanned.fingerprint) or judge.judge(period, scanned, files)
    if judge.ledger is None or judgement.verdict is not Verdict.QUARANTINED:
        return VerdictPreview(judgement)
    decisions = judge.ledger.judgements.decisions(judge.feed.name, period.label)
    return VerdictPreview(judgement, in_force(decisions, customer, scanned.fingerprint))


def may_send(context: Context, customer: str, feed: Feed, state: PeriodState) -> bool:
    """Return True if the period, as it is at the source now, passes the checks or is released for the
    customer. Records nothing. Raises SourceError."""
    source, period = context.sources(feed), state.period
    scanned = ScanTotals(source.scan(period))
    files = (file for file in source.scan(period) if isinstance(file, SourceFile))
    previewed = preview_verdict(judge_of(context, feed, source), period, scanned, files, customer)
    is_released = previewed.decision is not None and previewed.decision.decision is Decision.RELEASED
    return is_released or previewed.judgement.verdict is not Verdict.QUARANTINED


def quarantined(feed: Feed, period: str, failed: tuple[FailedCheck, ...]) -> Quarantined:
    return Quarantined(checks.summary(failed), hint=next_step(feed.name, period))


def rejected(decided: Release) -> Rejected:
    message = f"{decided.person} rejected it ({decided.reason}): {checks.summary(decided.failed)}"
    return Rejected(message, hint="a corrected source is judged anew")


def judge_of(context: Context, feed: Feed, source: Source) -> Judge:
    return Judge(feed, source, context.ledger, context.clock, lambda: context.check_stop(_WHEN_STOPPED))


def _log(judgement: Judgement) -> None:
    event = {
        Verdict.SOUND: None,
        Verdict.WARNED: Event.PERIOD_WARNED,
        Verdict.QUARANTINED: Event.PERIOD_QUARANTINED,
    }[judgement.verdict]
    if event is not None:
        checked = [f"{item.file}: {item.message}" if item.file else item.message for item in judgement.failed]
        telemetry.warn(event, name=judgement.name or None, checks=checked)


class Screen:
    """Judges the files of a drop folder while they are planned, and takes out those that fail. ``failed`` has
    the failed checks of those that wait for a decision. Writes nothing unless ``records``."""

    def __init__(
        self, context: Context, customer: Customer, feed: Feed, source: Source, *, records: bool = True
    ) -> None:
        self._ledger, self._customer, self._feed, self._records = context.ledger, customer, feed, records
        self._judge = judge_of(context, feed, source)
        self._known = {item.name: item for item in self._ledger.judgements.find(feed.name, NO_PERIOD)}
        self._decisions = self._ledger.judgements.decisions(feed.name, NO_PERIOD)
        self._at_source: set[str] = set()  # of the known ones
        self._rejected: Release | None = None
        self.failed: dict[str, tuple[FailedCheck, ...]] = {}

    def __call__(self, difference: Difference) -> Difference | None:
        file = difference.file
        if file is not None and file.name in self._known:
            self._at_source.add(file.name)
        if file is None or difference.kind is Kind.DELIVERED or not is_examined(file.name, self._feed.checks):
            return difference
        judgement = self._judged(file)
        decided = in_force(self._decisions, self._customer.name, judgement.fingerprint, file.name)
        is_released = decided is not None and decided.decision is Decision.RELEASED
        if judgement.verdict is not Verdict.QUARANTINED or is_released:
            return difference
        if decided is None:
            self.failed[file.name] = judgement.failed
        else:
            self._rejected = decided
        return difference._replace(kind=Kind.GONE, file=None) if difference.known is not None else None

    def _judged(self, file: SourceFile) -> Judgement:
        last = self._known.get(file.name)
        if last is not None and self._judge.holds(last, ScanTotals([file]).fingerprint):
            return last
        judgement = self._judge.judge_file(file)
        if not self._records:
            return judgement
        if judgement.verdict is not Verdict.SOUND:
            self._ledger.judgements.record(judgement)
            self._known[file.name] = judgement
            self._at_source.add(file.name)
            _log(judgement)
        elif last is not None:
            self._ledger.judgements.forget(self._feed.name, NO_PERIOD, [file.name])
            del self._known[file.name]
        return judgement

    def gate(self) -> Gate:
        """Hold back a batch without any file, if files were taken out of it."""
        if self.failed:
            return Gate(self.listed, quarantined(self._feed, NO_PERIOD, self.listed))
        return Gate((), rejected(self._rejected) if self._rejected is not None else None)

    def finish(self) -> None:
        """Forget the verdicts on files that a whole walk of the source has not seen."""
        self._ledger.judgements.forget(self._feed.name, NO_PERIOD, self._known.keys() - self._at_source)

    @property
    def listed(self) -> tuple[FailedCheck, ...]:
        failures = checks.Failures()
        for failed in self.failed.values():
            for item in failed:
                failures.add(item)
        return failures.listed()
