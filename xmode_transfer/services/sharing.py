"""Sending a delivery with several workers, as the one that has its turn does: the closer.

It divides what is pending into chunks, calls helpers (``services.helping``), takes chunks itself, and waits
for the rest; a chunk whose worker is gone it takes over. Then the delivery goes on as any other: the manifest
is put last, once, by the closer.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from xmode_transfer import telemetry
from xmode_transfer.domain.config import Customer, Feed
from xmode_transfer.domain.errors import (
    Defect,
    Interrupted,
    LeaseLost,
    LedgerError,
    RoleRefused,
    SourceError,
    StoreError,
    Unavailable,
    UnsafeRole,
    XmodeError,
)
from xmode_transfer.domain.records import Delivery, Failure, Lease
from xmode_transfer.domain.sharing import (
    MOST_KEPT_FAILURES,
    Chunk,
    ChunkResult,
    Division,
    DivisionState,
    divide,
    fingerprint,
    large_enough,
    part_of,
)
from xmode_transfer.ports import ObjectStore, Progress, Source
from xmode_transfer.services import leasing
from xmode_transfer.services.sending import ObjectFailure, Sender, Sent, failure_of
from xmode_transfer.services.workbench import Sharing, Workbench
from xmode_transfer.telemetry import Event

_ASK_SECONDS = 10.0  # helpers that have gone are called again so often
_TELL_LOOKS = 5  # looks between two words on how much of a chunk is sent
_FENCE_LOOKS = 1.5  # looks within which helpers whose chunks were taken back find out
_GRACE_LOOKS = 4  # looks that helpers have to end by themselves when they are called off


def send(
    bench: Workbench,
    customer: Customer,
    feed: Feed,
    source: Source,
    store: ObjectStore,
    delivery: Delivery,
    lease: Lease,
    count: int,
    size: int,
) -> Sent:
    """Sends what is pending of the delivery, ``count`` objects with ``size`` bytes: alone, or with helpers
    where that is large and there are any. As ``Sender.send`` besides."""
    sharing = bench.sharing
    if sharing is not None:
        if sharing.shares.withdraw(lease, delivery.id):  # what a closer before us has left
            # Its helpers find out within a look; until then the customer's limits are theirs.
            bench.stop.wait(_FENCE_LOOKS * sharing.look_seconds)
        if sharing.is_large(count, size):
            work = Work(bench, customer, feed, source, store, delivery)
            division = Division(delivery.id, customer.name, lease, fingerprint(customer, feed))
            shared = _Closer(bench, sharing, work, division).send(count, size)
            if shared is not None:
                return shared
    pending = bench.ledger.objects.pending(delivery.id)
    return Sender(bench, customer, feed, source, store, delivery, lease).send(pending)


@dataclass(frozen=True, slots=True)
class Work:
    """What a chunk is sent with."""

    bench: Workbench
    customer: Customer
    feed: Feed
    source: Source
    store: ObjectStore
    delivery: Delivery

    def on(self, chunk: Chunk, eye: "Eye") -> Sent:
        """Sends what is pending of a chunk. The lease is kept, and is the caller's to give back."""
        names = chunk.names
        with leasing.kept(self.bench.ledger, chunk.lease), eye.on(chunk) as bench:
            pending = bench.ledger.objects.pending(self.delivery.id, after=names.after, last=names.last)
            sender = Sender(
                bench, self.customer, self.feed, self.source, self.store, self.delivery, chunk.lease
            )
            return sender.send(pending)


def result_of(sent: Sent) -> ChunkResult:
    return ChunkResult(
        sent.uploaded,
        sent.uploaded_bytes,
        sent.adopted,
        sent.failed,
        tuple((failed.name, failed.failure) for failed in sent.failures[:MOST_KEPT_FAILURES]),
        passing=sent.passing is not None,
        halted=failure_of(sent.halted) if sent.halted is not None else None,
        stale=sent.stale,
    )


class Eye:
    """Looks at a division every few seconds, for as long as this process sends some of it: keeps to its part
    of what the customer may take, and sets ``stop`` when nothing more is to be sent, because we are asked to
    end or because of what others found."""

    def __init__(self, bench: Workbench, sharing: Sharing, division: Division) -> None:
        self._bench = bench
        self._sharing = sharing
        self._division = division
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._chunk: tuple[Chunk, _Counting] | None = None
        self._by_others = 0
        self._looks = 0
        self.stop = threading.Event()
        self._thread = threading.Thread(target=telemetry.carry(self._run), name="division", daemon=True)

    def __enter__(self) -> "Eye":
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        holders: frozenset[str] = frozenset()
        with suppress(XmodeError):
            state = self._sharing.shares.state(self._division.delivery_id)
            holders = state.holders if state is not None else holders
        # another helper of this very process may still be at it
        part = part_of(holders, self._bench.holder) if self._bench.holder in holders else 1
        self._bench.stores.share(self._division.customer, part)

    @property
    def stopped(self) -> bool:
        return self.stop.is_set() or self._bench.stop.is_set()

    def wait(self, looks: float = 1.0) -> None:
        """Waits for about so many looks, or until there is nothing more to wait for."""
        self.stop.wait(looks * self._sharing.look_seconds)

    def look(self) -> DivisionState | None:
        """How the division stands; None when it is no more."""
        state = self._sharing.shares.state(self._division.delivery_id)
        if state is not None and state.division.lease.generation != self._division.lease.generation:
            state = None
        if state is None or state.ends:
            self.stop.set()
        if state is not None:
            self._bench.stores.share(self._division.customer, part_of(state.holders, self._bench.holder))
            self._tell_progress(state)
        return state

    @contextmanager
    def on(self, chunk: Chunk) -> Iterator[Workbench]:
        """A workbench for the chunk, that ends its work when ``stop`` is set."""
        counting = _Counting(self._bench.progress)
        self._chunk = (chunk, counting)
        try:
            yield replace(self._bench, stop=self.stop, progress=counting)
        finally:
            self._chunk = None

    def _run(self) -> None:
        while not self._done.wait(self._sharing.look_seconds):
            if self._bench.stop.is_set():
                self.stop.set()
            try:
                self.look()
                self._looks += 1
                if self._looks % _TELL_LOOKS == 0:
                    self._tell_sent()
            except LeaseLost:
                pass  # the chunk's own work meets the same
            except XmodeError as error:
                telemetry.log(Event.DIVISION_NOT_SEEN, **error.log_context())

    def _tell_sent(self) -> None:
        working = self._chunk
        if working is not None and working[1].is_news():
            self._sharing.shares.tell(working[0], working[1].sent_bytes)

    def _tell_progress(self, state: DivisionState) -> None:
        """The closer's turn gets on while others send."""
        if self._bench.holder != self._division.lease.holder:
            return
        sent = sum(
            max(chunk.told_bytes, chunk.result.uploaded_bytes)
            for chunk in state.chunks
            if chunk.worked_by not in (None, self._bench.holder)
        )
        with self._lock:
            news, self._by_others = sent - self._by_others, max(sent, self._by_others)
        if news > 0:
            self._bench.progress.bytes_sent(news)


class _Counting:
    """Implements ``ports.Progress`` in front of another, and counts the bytes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._told_bytes = 0
        self.sent_bytes = 0

    def is_news(self) -> bool:
        """Whether something was sent since this was asked last."""
        told, self._told_bytes = self._told_bytes, self.sent_bytes
        return self._told_bytes > told

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        self._progress.delivery_started(customer, feed, period, objects, total_bytes)

    def bytes_sent(self, count: int) -> None:
        with self._lock:
            self.sent_bytes += count
        self._progress.bytes_sent(count)

    def bytes_resumed(self, count: int) -> None:
        self._progress.bytes_resumed(count)

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        self._progress.object_finished(name, size, outcome)

    def delivery_finished(self) -> None:
        self._progress.delivery_finished()


class _Closer:
    def __init__(self, bench: Workbench, sharing: Sharing, work: Work, division: Division) -> None:
        self._bench = bench
        self._shares = sharing.shares
        self._sharing = sharing
        self._work = work
        self._division = division
        self._helpers = 0
        self._asked_at = bench.clock.monotonic()
        self._halted: XmodeError | None = None

    def send(self, count: int, size: int) -> Sent | None:
        """None when it cannot be divided, or nobody may help."""
        rules, limits = self._sharing.rules, self._bench.limits
        ranges = list(
            divide(
                self._bench.ledger.objects.pending(self._division.delivery_id),
                large_enough(rules.chunk_objects, count),
                large_enough(rules.chunk_bytes, size),
            )
        )
        # Each has a part of the requests that one customer may have in flight: one at least.
        most = min(limits.parallel_objects, limits.parallel_objects_per_customer) - 1
        self._helpers = min(rules.helpers, len(ranges) - 1, most)
        if self._helpers < 1:
            return None
        self._shares.divide(self._division, ranges, self._helpers)
        telemetry.log(Event.DELIVERY_DIVIDED, chunks=len(ranges), helpers=self._helpers)
        try:
            with Eye(self._bench, self._sharing, self._division) as eye:
                self._take_chunks(eye)
                self._call_off(eye)
            sent = self._summed()
        except BaseException:
            with suppress(XmodeError):  # whoever claims the delivery next fences the helpers off anyway
                self._withdraw()
            raise
        self._withdraw()
        return sent

    def _withdraw(self) -> None:
        self._shares.withdraw(self._division.lease, self._division.delivery_id)

    def _take_chunks(self, eye: Eye) -> None:
        """Until all are done, or nothing more is to be sent."""
        while not eye.stopped:
            chunk = self._shares.take(self._division, self._bench.holder, leasing.TTL_SECONDS)
            if chunk is not None:
                eye.look()
                self._settle(chunk, eye, self._work.on(chunk, eye))
            elif (state := eye.look()) is not None and not state.ends:
                eye.wait()
            self._ask(eye)

    def _settle(self, chunk: Chunk, eye: Eye, sent: Sent) -> None:
        if isinstance(sent.halted, LeaseLost):
            return  # of the chunk alone, if the next one can be taken
        if sent.halted is not None:
            self._halted = sent.halted
            eye.stop.set()
            if isinstance(sent.halted, LedgerError):
                return
        elif eye.stopped or was_interrupted(sent):
            self._shares.give_back(chunk, result_of(sent))
            return
        self._shares.finish(chunk, result_of(sent))

    def _ask(self, eye: Eye) -> None:
        """Helpers come and go: where chunks lie about and fewer help than may, they are called again."""
        now = self._bench.clock.monotonic()
        if eye.stopped or now - self._asked_at < _ASK_SECONDS:
            return
        self._asked_at = now
        state = eye.look()
        if state is not None and state.unclaimed_count:
            missing = self._helpers - len(state.holders - {self._bench.holder})
            if missing > 0:
                self._shares.ask(self._division, min(missing, state.unclaimed_count))

    def _call_off(self, eye: Eye) -> None:
        """Where it ends early, those who help have a moment to end where nothing is sent twice."""
        state = self._shares.state(self._division.delivery_id)
        if state is None or not state.open_count:
            return
        self._shares.call_off(self._division)
        pause = threading.Event()
        for _ in range(_GRACE_LOOKS):
            state = self._shares.state(self._division.delivery_id)
            if state is None or not state.holders - {self._bench.holder}:
                return
            pause.wait(self._sharing.look_seconds)

    def _summed(self) -> Sent:
        """What came of all chunks, whoever sent them."""
        state = self._shares.state(self._division.delivery_id)
        if state is None:
            # Only whoever claims the delivery anew can have removed it: the next write says so.
            return Sent(halted=self._halted)
        sent = Sent(halted=self._halted)
        passing = True
        for result in (chunk.result for chunk in state.chunks):
            sent.uploaded += result.uploaded
            sent.uploaded_bytes += result.uploaded_bytes
            sent.adopted += result.adopted
            sent.failed += result.failed
            sent.failures += [ObjectFailure(name, failure) for name, failure in result.failures]
            sent.stale = sent.stale or result.stale
            passing = passing and (result.passing or not result.failed)
        if sent.halted is None and state.halted is not None:
            sent.halted = _error_of(state.halted)
        if passing and sent.failures:
            sent.passing = _error_of(sent.failures[0].failure)
        return sent


def was_interrupted(sent: Sent) -> bool:
    """Whether the engine was asked to stop while it sent, so that what failed did not fail."""
    return any(failed.failure.cause == Interrupted.code for failed in sent.failures)


def _error_of(failure: Failure) -> XmodeError:
    """The error that a helper met, as if we had met it."""
    kinds: list[type[XmodeError]] = [StoreError, SourceError, RoleRefused, UnsafeRole]
    for kind in kinds:
        kinds += kind.__subclasses__()
    otherwise = Unavailable if failure.retryable else Defect
    kind = next((kind for kind in kinds if kind.code == failure.cause), otherwise)
    return kind(failure.message, hint=failure.hint, request_id=failure.request_id)
