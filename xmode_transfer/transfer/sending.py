"""Send a delivery's pending objects: each ends in a receipt or a recorded failure.

Callbacks drive small objects, because a thread costs more than the request. A permanent refusal halts the
delivery: a broken role causes one refusal, not a million.
"""

import base64
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from xmode_transfer import telemetry
from xmode_transfer.aws import checksums
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.stores import SINGLE_PUT_MAX_BYTES, ObjectStore, PutAnswer, PutRequest
from xmode_transfer.config import Customer, Feed
from xmode_transfer.model import keys
from xmode_transfer.model.errors import (
    ClockSkew,
    Defect,
    ExitCode,
    KeyCollision,
    LeaseLost,
    LedgerError,
    ObjectExists,
    PartsRefused,
    RequestRefused,
    RoleRefused,
    VendorIdentityError,
    XmodeError,
)
from xmode_transfer.model.keys import count
from xmode_transfer.model.records import (
    Delivery,
    Failure,
    Lease,
    ObjectInfo,
    PlannedObject,
    Receipt,
    same_etag,
)
from xmode_transfer.sources.interface import Source
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.large import LargeObjects
from xmode_transfer.transfer.planning import own_ids

LARGE_BYTES = 64 * 1024 * 1024
_MAX_CONSECUTIVE_FAILURES = 20
_MAX_KEPT_FAILURES = 100
_WINDOW = 32  # objects begun for each request in flight: they hide the ledger's group commit
_REFILL = 0.75  # of the window: it empties this far before it is filled again


@dataclass(slots=True)
class Sent:
    """``failures`` has the first ones by the source's name. ``halted`` is the error that ended the delivery,
    ``passing`` the first failure if all are transient. If ``stale``, a new revision is due."""

    uploaded: int = 0
    uploaded_bytes: int = 0
    adopted: int = 0
    failed: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    halted: XmodeError | None = None
    passing: XmodeError | None = None
    stale: bool = False


def failure_of(error: XmodeError) -> Failure:
    return Failure(
        cause=error.code,
        responsible=str(error.responsible),
        message=error.message,
        hint=error.hint,
        retryable=error.retryable,
        request_id=error.request_id,
    )


def halts(error: XmodeError) -> bool:
    """Return whether every other object would fail with the error too."""
    if isinstance(error, ObjectExists | PartsRefused):
        return False
    fatal = (Defect, LeaseLost, LedgerError, VendorIdentityError, RoleRefused, ClockSkew)
    return isinstance(error, fatal) or error.exit_code == ExitCode.BLOCKED


class Sender:
    """Use once. Adds its counts to ``sent``, the result of an earlier send without failures."""

    def __init__(
        self,
        context: Context,
        customer: Customer,
        feed: Feed,
        source: Source,
        store: ObjectStore,
        delivery: Delivery,
        lease: Lease,
        sent: Sent | None = None,
    ) -> None:
        self._context = context
        self._feed = feed
        self._source = source
        self._store = store
        self._delivery = delivery
        self._lease = lease
        self._sent = sent or Sent()
        self._lock = threading.Condition()
        self._outstanding = 0
        self._consecutive = 0
        self._window = _WINDOW * context.parallel
        self._refill_below = int(_REFILL * self._window)
        self._settling = ThreadPoolExecutor(max_workers=8, thread_name_prefix="settle")
        self._large_threads = ThreadPoolExecutor(max_workers=3, thread_name_prefix="large")
        self._large = LargeObjects(context, customer, store, delivery, lease)

    def send(self, pending: Iterable[PlannedObject]) -> Sent:
        """Sends all objects, or those before an error halts it. Waits for the requests in flight."""
        try:
            for planned in pending:
                if self._halted():
                    break
                self._begin(planned)
        finally:
            with self._lock:
                self._lock.wait_for(lambda: self._outstanding == 0)
            self._large_threads.shutdown()
            self._settling.shutdown()
        self._sent.uploaded_bytes += self._large.sent_bytes
        return self._sent

    def _halted(self) -> bool:
        return self._context.stop.is_set() or self._sent.halted is not None

    def _begin(self, planned: PlannedObject) -> None:
        with self._lock:
            if self._outstanding >= self._window:
                self._lock.wait_for(lambda: self._outstanding <= self._refill_below)
            self._outstanding += 1
        if planned.size > LARGE_BYTES and self._large.usable:
            step = partial(self._send_large, planned)
            self._large_threads.submit(telemetry.carry(self._guarded), planned, step)
        else:
            self._guarded(planned, partial(self._send_small, planned))

    def _guarded(self, planned: PlannedObject, step: Callable[[], None]) -> None:
        """An error of the step fails the object; it never ends a thread silently."""
        try:
            step()
        except XmodeError as error:
            self._failed(planned, error)
        except Exception as error:  # noqa: BLE001 - a defect must end the delivery, not vanish in a callback
            telemetry.exception(Event.DEFECT, name=planned.name)
            self._failed(planned, defect_of(error))

    def _send_small(self, planned: PlannedObject) -> None:
        if self._halted():
            self._finish()
            return
        if planned.size > SINGLE_PUT_MAX_BYTES:
            raise PartsRefused(
                f"{planned.name} has {count(planned.size, 'byte')}. A single PutObject sends at most "
                f"{SINGLE_PUT_MAX_BYTES:,}, and the destination refuses multipart uploads",
                hint="ask the customer to allow multipart uploads (`xmode-transfer check-access` prints the "
                "statement), or split the file at the source",
            )
        body = self._source.open(planned.source_file())
        try:
            sha256 = self._sha256(body)
            future = self._store.put(self._request(planned), body)
        except BaseException:
            body.close()
            raise

        # It takes the future as its argument: one that it held would be in a circle with it, which only the
        # garbage collector frees.
        def answered(done: Future[PutAnswer]) -> None:
            self._guarded(planned, partial(self._answered, planned, body, sha256, done))

        future.add_done_callback(telemetry.carry(answered))

    def _send_large(self, planned: PlannedObject) -> None:
        if self._halted():
            self._finish()
            return
        with self._source.open(planned.source_file()) as body:
            sha256 = self._sha256(body)
            try:
                answer = self._large.send(planned, self._request(planned), body)
            except ObjectExists as error:
                self._adopt(planned, body, sha256, error)
                return
        if answer is None:  # parts are refused here, or we are asked to stop
            self._send_small(planned)
        else:
            self._prove(planned, sha256, answer)

    def _sha256(self, body: OpenFile) -> str | None:
        return base64.b64decode(checksums.of(body, "sha256")).hex() if self._feed.sha256 else None

    def _request(self, planned: PlannedObject) -> PutRequest:
        return PutRequest(planned.key, self._delivery.id, planned.size, keys.content_type(planned.name))

    def _answered(
        self, planned: PlannedObject, body: OpenFile, sha256: str | None, done: Future[PutAnswer]
    ) -> None:
        error = done.exception()
        if isinstance(error, ObjectExists):
            self._settle(planned, partial(self._adopt, planned, body, sha256, error))
            return
        body.close()
        if error is not None:
            raise error
        answer = done.result()
        prove = partial(self._prove, planned, sha256, answer)
        if answer.proven:
            prove()
        else:
            self._settle(planned, prove)

    def _settle(self, planned: PlannedObject, step: Callable[[], None]) -> None:
        """Runs further requests to the destination outside of the engine's threads."""
        self._settling.submit(telemetry.carry(self._guarded), planned, step)

    def _prove(self, planned: PlannedObject, sha256: str | None, answer: PutAnswer) -> None:
        """Records the receipt. If S3's response has no checksum, a HEAD is the proof."""
        version_id = answer.version_id
        if not answer.proven:
            info = self._store.head(planned.key)
            if info is None or info.size != planned.size or _differs(info, answer):
                raise RequestRefused(
                    f"{planned.key}: the destination acknowledged the upload, but holds something else",
                    hint="check whether something else writes to this prefix. The object is left as it is",
                )
            version_id = version_id or info.version_id
        name, key, size = planned[:3]
        now = self._context.clock.now()
        receipt = Receipt(name, key, size, answer.checksum, answer.etag, now, version_id, sha256)
        self._record(planned, receipt, adopted=False)

    def _adopt(self, planned: PlannedObject, body: OpenFile, sha256: str | None, taken: ObjectExists) -> None:
        """Handles a key that exists. Our own object, after a lost response, is a success. Our own object with
        older content needs a new revision. Anything else is a conflict, and nothing is changed."""
        with body:
            info = self._store.head(planned.key)
            if info is None:
                raise ObjectExists(
                    f"{planned.key} existed during the upload and is gone now",
                    hint="ask the customer what else writes to this key. The delivery is retried",
                )
            if info.checksum is not None and info.token in own_ids(self._delivery):
                objects = self._context.ledger.objects
                other = objects.other_name(self._delivery.id, planned.name, planned.key)
                if other is not None:
                    raise KeyCollision(
                        f"{planned.key} is the key of {planned.name} and holds the object of {other}",
                        hint="rename one of the two files, or change the feed's layout. Nothing was "
                        "overwritten",
                    )
                value = checksums.of(body, info.checksum.algorithm)
                body.check_unchanged()
                if info.size == planned.size and value == info.checksum.value:
                    self._record(planned, receipt_of(planned, info, sha256), adopted=True)
                else:
                    self._note_stale(planned, info)
                return
        raise ObjectExists(
            f"{planned.key} already holds an object that is not ours "
            f"({count(info.size, 'byte')}, modified on {info.modified_at:%Y-%m-%d})",
            hint="ask the customer to move that object, or change the prefix. Nothing was overwritten",
            aws_code=taken.aws_code,
            http_status=taken.http_status,
            request_id=taken.request_id,
        )

    def _note_stale(self, planned: PlannedObject, info: ObjectInfo) -> None:
        """Records the object as it exists: to the planner it is delivered, with a changed source."""
        older = planned._replace(size=info.size, modified_ns=0, identity="superseded")
        objects, receipt = self._context.ledger.objects, receipt_of(older, info, None)
        objects.plan(self._lease, self._delivery.id, [older])
        objects.record_receipt(self._lease, self._delivery.id, receipt).result()
        with self._lock:
            self._sent.stale = True
        self._finish()

    def _record(self, planned: PlannedObject, receipt: Receipt, *, adopted: bool) -> None:
        def recorded(done: Future[None]) -> None:
            error = done.exception()
            if error is not None:
                self._failed(planned, error if isinstance(error, XmodeError) else defect_of(error))
                return
            # parts are counted as they are sent: an earlier run may have sent some
            whole = not (planned.size > LARGE_BYTES and self._large.usable)
            with self._lock:
                self._consecutive = 0
                if adopted:
                    self._sent.adopted += 1
                else:
                    self._sent.uploaded += 1
                    self._sent.uploaded_bytes += planned.size if whole else 0
            if whole:
                self._context.progress.bytes_sent(planned.size)
            telemetry.debug(Event.OBJECT_DELIVERED, key=planned.key, size_bytes=planned.size, adopted=adopted)
            self._context.progress.object_finished(planned.name, planned.size, "delivered")
            self._finish()

        future = self._context.ledger.objects.record_receipt(self._lease, self._delivery.id, receipt)
        future.add_done_callback(telemetry.carry(recorded))

    def _failed(self, planned: PlannedObject, error: XmodeError) -> None:
        with self._lock:
            self._consecutive += 1
            self._sent.failed += 1
            if self._sent.failed == 1:
                self._sent.passing = error
            if not error.retryable:
                self._sent.passing = None
            if len(self._sent.failures) < _MAX_KEPT_FAILURES:
                self._sent.failures[planned.name] = failure_of(error)
            if self._sent.halted is None and (halts(error) or self._consecutive >= _MAX_CONSECUTIVE_FAILURES):
                self._sent.halted = error
        telemetry.warn(Event.OBJECT_FAILED, name=planned.name, key=planned.key, **error.log_context())
        self._context.progress.object_finished(planned.name, planned.size, "failed")
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            self._outstanding -= 1
            if self._outstanding in (0, self._refill_below):
                self._lock.notify_all()


def receipt_of(planned: PlannedObject, info: ObjectInfo, sha256: str | None) -> Receipt:
    """Return a receipt for one of our objects, with the object's own time."""
    assert info.checksum is not None
    name, key = planned.name, planned.key
    return Receipt(name, key, info.size, info.checksum, info.etag, info.modified_at, info.version_id, sha256)


def _differs(info: ObjectInfo, answer: PutAnswer) -> bool:
    if info.checksum is not None and info.checksum.algorithm == answer.checksum.algorithm:
        return info.checksum.value != answer.checksum.value
    return not same_etag(info.etag, answer.etag)


def defect_of(error: BaseException) -> Defect:
    """Return a bug of this program as the failure of one delivery or feed; the rest continues."""
    hint = "this is a bug in xmode-transfer: report it with the log. The next run resumes from here"
    return Defect(f"{type(error).__name__}: {error}", hint=hint)
