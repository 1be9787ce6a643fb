"""Take back what was delivered: plan a recall, record it, and carry it out for each customer.

The record comes first: from then on no process delivers what is withdrawn. Then each customer's bucket
follows, now or as soon as the customer allows access again.
"""

import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xmode_transfer import telemetry
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.config import Configuration, Customer, Feed, held_by
from xmode_transfer.ledger import Ledger
from xmode_transfer.ledger.writer import unknown
from xmode_transfer.model.errors import (
    AccessDenied,
    AlreadyRunning,
    ConfigError,
    ExitCode,
    Interrupted,
    LeaseLost,
    LedgerError,
    Responsible,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.model.keys import count
from xmode_transfer.model.periods import Partition, Period
from xmode_transfer.model.recall import Content, Contents, Recall, RecallProgress, RecallState, Withdrawn
from xmode_transfer.model.records import FINISHED, Capabilities, Failure
from xmode_transfer.model.selection import Selection
from xmode_transfer.model.upkeep import INTENDED, OperationKind, RemovalOutcome, Scope
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer import removing
from xmode_transfer.transfer.context import Context, Operation, held, opened
from xmode_transfer.transfer.removing import Removed
from xmode_transfer.transfer.sending import defect_of, failure_of
from xmode_transfer.upkeep import recall_file
from xmode_transfer.upkeep.recalling import Recalling
from xmode_transfer.upkeep.replacing import MaySend


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be withdrawn of a feed: files that match one of ``patterns``, or that ``names`` names; all
    files if both are empty. A pattern or a name is relative to the period's directory, or to the feed's
    root. ``customer`` narrows it to one. With ``despite_hold``, a reason, held objects go too."""

    feed: str
    scope: Scope
    patterns: tuple[str, ...]
    names: tuple[str, ...]
    customer: str | None
    reason: str
    person: str
    despite_hold: str


@dataclass(slots=True)
class Share:
    """One customer's part of a recall. ``objects`` and ``bytes`` are all that it holds; of these, ``held``
    objects stay because of its hold, and ``elsewhere`` ones because they are below a former prefix."""

    customer: str
    periods: int = 0
    objects: int = 0
    bytes: int = 0
    held: int = 0
    elsewhere: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """``unknown`` are the names that no customer has ever held. ``files`` may have more than one content of
    a file, and also those that a cleanup has removed from every customer."""

    recall: Recall
    files: tuple[Withdrawn, ...]
    customers: tuple[Share, ...]
    unknown: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """True if nothing that was asked for was ever delivered."""
        return not self.files

    @property
    def objects(self) -> int:
        return sum(share.objects for share in self.customers)

    @property
    def bytes(self) -> int:
        return sum(share.bytes for share in self.customers)


def plan(context: Context, configuration: Configuration, request: Request) -> Plan:
    """Plan a recall from the ledger alone; write nothing. Raises ConfigError for a feed or a customer that
    nobody knows, and for a pattern that can match nothing."""
    ledger, name, now = context.ledger, request.feed, context.clock.now()
    delivered = ledger.deliveries.find(feed=name)
    if not delivered and name not in configuration.feeds:
        known = ", ".join(sorted(configuration.feeds)) or "none is configured"
        raise ConfigError(
            f"there is no feed {name}, and nothing of it was ever delivered", hint=f"feeds: {known}"
        )
    if request.customer is not None and all(item.customer != request.customer for item in delivered):
        raise ConfigError(f"{request.customer} has never received {name}")
    recall = Recall(
        id=f"{name}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
        feed=name,
        reason=request.reason,
        person=request.person,
        started_at=now,
        customer=request.customer or "",
        despite_hold=request.despite_hold,
    )
    wanted = _Wanted(request, configuration.feeds.get(name))
    files: set[Withdrawn] = set()
    for customer, period in sorted({(item.customer, item.period) for item in delivered}):
        if not request.scope.covers(name, period):
            continue
        takes = wanted.of(period)
        for receipt in ledger.objects.receipts(customer, name, period):
            if takes(receipt.name):
                content = (receipt.size, receipt.checksum)
                files.add(Withdrawn(recall.id, name, period, receipt.name, *content, recall.customer))
    shares = _shares(ledger, configuration.customers, recall, files)
    return Plan(recall, tuple(sorted(files)), shares, wanted.unknown)


def begin(context: Context, plan: Plan, file: Path) -> None:
    """Record the recall in the file of recalls, then in the ledger: from now on, nothing of it is delivered
    any more. A delivery that was planned meanwhile makes its customer part of the recall. Idempotent. Raises
    ConfigError if the file cannot be written; then nothing is recorded."""
    recalls, recall = context.ledger.recalls, plan.recall
    recall_file.append(file, recall, plan.files)

    def start(shares: Iterable[Share]) -> None:
        pending = (
            RecallProgress(
                recall.id, share.customer, RecallState.PENDING, recall.started_at, share.objects, share.bytes
            )
            for share in shares
        )
        recalls.start(recall, plan.files, pending)

    start(plan.customers)
    start(_shares(context.ledger, {}, recall, plan.files))


def carry_out(
    context: Context, configuration: Configuration, recall_id: str, customer: str, *, may_send: MaySend
) -> RecallProgress:
    """Carry out a recall for one customer, as far as possible, and return how far it has come. A call after a
    crash or a refusal continues. ``may_send`` says if the source of a period may be delivered, as corrected
    files are. Raises only VendorIdentityError, LedgerError and LeaseLost, which concern more than this."""
    ledger = context.ledger
    recall = ledger.recalls.get(recall_id)
    earlier = next(iter(ledger.recalls.progress(recall_id, customer)), None)
    if recall is None or earlier is None:
        raise unknown("recall", f"{recall_id} for {customer}")
    if earlier.state is RecallState.DONE:
        return earlier
    removed, error = Removed(), None
    try:
        of = configuration.customer(customer, "what is withdrawn stays with it")
        with telemetry.bind(customer=customer):
            _carry_out(context, configuration, of, recall, may_send, removed)
    except (VendorIdentityError, LedgerError, LeaseLost):
        raise
    except XmodeError as raised:
        error = raised
    except Exception as raised:  # noqa: BLE001 - a defect must not stop the recall for other customers
        telemetry.exception(Event.DEFECT)
        error = defect_of(raised)
    progress = _progress(context, recall, earlier, removed, error)
    ledger.recalls.record(progress)
    if progress.state is RecallState.DONE:
        removing.sweep(context, of, recall.feed)
    counts = {str(outcome): count for outcome, count in progress.outcomes.items()}
    cause = progress.failure.cause if progress.failure is not None else None
    line = {"recall": recall_id, "customer": customer, "outcome": str(progress.state), "cause": cause}
    telemetry.log(Event.RECALL_CARRIED_OUT, **line, **counts)
    return progress


def _carry_out(
    context: Context,
    configuration: Configuration,
    customer: Customer,
    recall: Recall,
    may_send: MaySend,
    removed: Removed,
) -> None:
    ledger, name, kind = context.ledger, customer.name, OperationKind.RECALL
    periods = contents_of(ledger.recalls.files(recall.id))
    with held(ledger, f"{kind}/{name}", context.holder) as lease:
        operation = Operation(context, lease, kind, name, person=recall.person, reason=recall.id)
        failure, whole = None, False
        try:
            with opened(context, customer, Step.RECALL) as store:
                args = (context, configuration, customer, recall, may_send, store, operation, lease, removed)
                work = Recalling(*args)
                work.run(periods)
                left = ledger.operations.of_recall(name, recall.id)
                work.settle([item for item in left if item.outcome in _OPEN])
                operations = ledger.operations.newest(name, kind, None)
                work.prove([item.id for item in operations if item.reason == recall.id])
            whole = True
        except XmodeError as error:
            failure, whole = failure_of(error), isinstance(error, AlreadyRunning)
            raise
        finally:
            if removed.keys[RemovalOutcome.HIDDEN]:
                learnt = Capabilities(versioned=True, learned_at=context.clock.now())
                ledger.checks.learn(name, learnt)
            if operation.has_begun:
                operation.finish(
                    "removed" if removed.ours else "nothing",
                    objects=removed.ours,
                    size=removed.our_bytes,
                    failed=removed.keys[RemovalOutcome.FAILED],
                    failure=failure,
                    inconclusive=not whole,
                )


def _progress(
    context: Context, recall: Recall, earlier: RecallProgress, removed: Removed, error: XmodeError | None
) -> RecallProgress:
    now, customer = context.clock.now(), earlier.customer
    last = context.ledger.operations.of_recall(customer, recall.id)
    outcomes = Counter(str(item.outcome) for item in last)
    progress = replace(earlier, updated_at=now, outcomes=outcomes, failure=None, next_attempt_at=None)
    if isinstance(error, Interrupted):
        return replace(progress, state=RecallState.PENDING)
    left = [item for item in last if item.outcome in _OPEN]
    if error is None and not left:
        return replace(progress, state=RecallState.DONE, finished_at=now, attempts=earlier.attempts + 1)
    refusal, backoff = removed.refusal, context.backoff
    if error is not None:
        failure = failure_of(error)
        blocked = error.exit_code == ExitCode.BLOCKED
    else:
        responsible = Responsible.AWS if refusal is None else refusal.responsible
        because = "" if refusal is None else f" ({refusal.message})"
        what = f"{len(left):,} of {count(len(last), 'key')} could not be deleted{because}"
        hint = (
            f"ask {customer} to allow s3:DeleteObject under the prefix (`xmode-transfer check-access "
            f"--customer {customer}` prints the statement), and to end what locks these objects. The recall "
            "then continues by itself"
        )
        failure = Failure(
            AccessDenied.code if refusal else "incomplete", str(responsible), what, hint, not refusal
        )
        blocked = refusal is not None and refusal.exit_code == ExitCode.BLOCKED and not removed.ours
    if not blocked:
        backoff = replace(backoff, longest_seconds=_LONGEST_SECONDS)
    return replace(
        progress,
        state=RecallState.BLOCKED if blocked else RecallState.FAILED,
        failure=failure,
        attempts=earlier.attempts + 1,
        next_attempt_at=backoff.next_attempt_at(earlier, now),
    )


_OPEN = (*INTENDED, RemovalOutcome.FAILED, RemovalOutcome.RETAINED)
_LONGEST_SECONDS = 86_400.0  # between two attempts to delete what a lock or a policy retains


class _Wanted:
    """What a request names. ``unknown`` has the names that were not asked about."""

    def __init__(self, request: Request, feed: Feed | None) -> None:
        try:
            self._selection = Selection.of(request.patterns) if request.patterns else None
        except ValueError as error:
            raise ConfigError(f"--files: {error}", hint="docs/recall.md shows patterns") from None
        self._names = frozenset(request.names)
        self._feed = feed
        self._found: set[str] = set()

    @property
    def unknown(self) -> tuple[str, ...]:
        return tuple(sorted(self._names - self._found))

    def of(self, period: str) -> Callable[[str], bool]:
        below = self._below(period)

        def takes(name: str) -> bool:
            both = {name, name.removeprefix(below)}
            named = both & self._names
            self._found |= named
            if named or (self._selection is None and not self._names):
                return True
            return self._selection is not None and any(map(self._selection.takes, both))

        return takes

    def _below(self, label: str) -> str:
        feed = self._feed
        if feed is None or feed.partition is None:
            return ""
        try:
            period = Period.parse(label, feed.period)
        except ValueError:  # the feed had other periods then
            return ""
        return f"{Partition(feed.partition, feed.period).path(period)}/"


def _shares(
    ledger: Ledger, customers: Mapping[str, Customer], recall: Recall, files: Iterable[Withdrawn]
) -> tuple[Share, ...]:
    """Return the customers that hold the files, or have an unfinished delivery that may put them."""
    of_period = contents_of(files)
    shares: dict[str, Share] = {}
    unfinished: dict[tuple[str, str], list[str]] = defaultdict(list)
    for delivery in ledger.deliveries.find(recall.customer or None, recall.feed):
        if delivery.period in of_period:
            found = unfinished[delivery.customer, delivery.period]
            found += [delivery.id] if delivery.status not in FINISHED else []
    for (name, period), deliveries in sorted(unfinished.items()):
        contents = of_period[period]
        held = _held(ledger, name, recall.feed, period, contents)
        planned = (item.name for delivery in deliveries for item in ledger.objects.pending(delivery))
        if not held and not any(item in contents for item in planned):
            continue
        share = shares.setdefault(name, Share(name))
        share.periods += 1
        share.objects += len(held)
        share.bytes += sum(held.values())
        customer = customers.get(name)
        if customer is not None:
            away = sum(not key.startswith(customer.destination.prefix) for key in held)
            share.elsewhere += away
            if not recall.despite_hold and held_by(customer.hold, recall.feed, period) is not None:
                share.held += len(held) - away
    return tuple(shares.values())


def contents_of(files: Iterable[Withdrawn]) -> Mapping[str, Contents]:
    """Return what is withdrawn by period and name."""
    found: dict[str, dict[str, frozenset[Content]]] = defaultdict(dict)
    for item in files:
        of = found[item.period]
        of[item.name] = of.get(item.name, frozenset()) | {Content(item.size, item.checksum)}
    return found


def _held(ledger: Ledger, customer: str, feed: str, period: str, contents: Contents) -> dict[str, int]:
    """Return the sizes of the objects with these contents that the customer holds, by key."""
    return {
        item.key: item.size
        for item in ledger.objects.receipts(customer, feed, period)
        if not item.removed and Content(item.size, item.checksum) in contents.get(item.name, ())
    }
