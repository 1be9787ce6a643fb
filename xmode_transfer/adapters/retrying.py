"""An object store that tries again what passes by itself: once more for the object, after the engine's own
tries for the request are used up. docs/retries.md has all levels and their product.

No thread waits for an object that waits: one timer for the process begins it again.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, stop_after_attempt, stop_after_delay, wait_random_exponential

from xmode_transfer import telemetry
from xmode_transfer.adapters.timer import Timer
from xmode_transfer.domain.acl import ObjectAcl
from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.errors import ChecksumMismatch, Unavailable, XmodeError
from xmode_transfer.domain.records import UploadedPart
from xmode_transfer.ports import (
    CredentialsProvider,
    Deleted,
    Deletion,
    ListedObject,
    ObjectInfo,
    ObjectStore,
    ObjectStores,
    OpenFile,
    PutAnswer,
    PutRequest,
)

T = TypeVar("T")

ATTEMPTS = 4
"""How often one operation is begun in all."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 20.0
"""The pause before attempt n is anything between 0 and ``min(20, 2**(n - 2))`` seconds (full jitter)."""
DEADLINE_SECONDS = 300.0
"""Counted from an operation's begin: later than this, nothing is begun again."""

Begin = Callable[[], Future[T]]


class RetryRules:
    """When to try again, and after which pause."""

    def __init__(
        self,
        *,
        attempts: int = ATTEMPTS,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._wait = wait_random_exponential(multiplier=first_pause_seconds, max=longest_pause_seconds)
        self._stop = stop_after_attempt(attempts) | stop_after_delay(deadline_seconds)

    def begin(self, what: str, key: str, *, unless: tuple[type[XmodeError], ...] = ()) -> "Attempts":
        return Attempts(self._wait, self._stop, what, key, unless)


class Attempts:
    """The attempts of one operation. ``unless`` are errors that would pass, and yet must not be tried again
    here."""

    def __init__(
        self,
        wait: Callable[[RetryCallState], float],
        stop: Callable[[RetryCallState], bool],
        what: str,
        key: str,
        unless: tuple[type[XmodeError], ...],
    ) -> None:
        self._wait = wait
        self._stop = stop
        self._what = what
        self._key = key
        self._unless = unless
        self._state = RetryCallState(Retrying(), None, (), {})

    def pause_after(self, error: BaseException) -> float | None:
        """Seconds until the next attempt, or None when the error is final."""
        if not isinstance(error, XmodeError) or not error.retryable or isinstance(error, self._unless):
            return None
        self._state.set_exception((type(error), error, error.__traceback__))
        if self._stop(self._state):
            return None
        pause = self._wait(self._state)
        telemetry.log(
            telemetry.Event.OBJECT_RETRIED,
            operation=self._what,
            key=self._key,
            attempt=self._state.attempt_number,
            pause_seconds=round(pause, 3),
            **error.log_context(),
        )
        self._state.prepare_for_next_attempt()
        return pause


class RetryingStores:
    """Implements ``ports.ObjectStores`` around another. ``stop`` ends all waiting at once."""

    def __init__(self, stores: ObjectStores, stop: threading.Event, rules: RetryRules | None = None) -> None:
        self.info = stores.info
        self._stores = stores
        self._stop = stop
        self._rules = rules or RetryRules()
        self._timer = Timer(stop)

    def open(
        self, customer: Customer, credentials: CredentialsProvider, region: str | None
    ) -> "RetryingStore":
        store = self._stores.open(customer, credentials, region)
        return RetryingStore(store, self._rules, self._timer, self._stop)

    def close(self) -> None:
        self._timer.close()
        self._stores.close()


class RetryingStore:
    """Implements ``ports.ObjectStore`` around another.

    A put whose answer was lost and that is sent again may meet its own object: that ObjectExists is not
    hidden, the caller settles it with a HEAD. A lost answer to ``complete_upload`` is not tried again here
    for the same reason.
    """

    def __init__(self, store: ObjectStore, rules: RetryRules, timer: Timer, stop: threading.Event) -> None:
        self._store = store
        self._rules = rules
        self._timer = timer
        self._stop = stop
        self._waiting = 0
        self._idle = threading.Condition()

    @property
    def region(self) -> str | None:
        return self._store.region

    @property
    def checksum_algorithm(self) -> str:
        return self._store.checksum_algorithm

    def put(self, request: PutRequest, body: OpenFile) -> Future[PutAnswer]:
        attempts = self._rules.begin("put", request.key)
        return self._later(lambda: self._store.put(request, body), attempts)

    def upload_part(
        self, key: str, upload_id: str, number: int, body: OpenFile, offset: int, length: int
    ) -> Future[UploadedPart]:
        attempts = self._rules.begin("upload_part", key)
        return self._later(
            lambda: self._store.upload_part(key, upload_id, number, body, offset, length), attempts
        )

    def create_upload(self, request: PutRequest) -> tuple[str, datetime | None]:
        return self._now(
            lambda: self._store.create_upload(request), self._rules.begin("create_upload", request.key)
        )

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], size: int
    ) -> PutAnswer:
        attempts = self._rules.begin("complete_upload", key, unless=(Unavailable, ChecksumMismatch))
        return self._now(lambda: self._store.complete_upload(key, upload_id, parts, size), attempts)

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._now(lambda: self._store.abort_upload(key, upload_id), self._rules.begin("abort_upload", key))

    def head(self, key: str) -> ObjectInfo | None:
        return self._now(lambda: self._store.head(key), self._rules.begin("head", key))

    def acl(self, key: str) -> ObjectAcl:
        return self._now(lambda: self._store.acl(key), self._rules.begin("acl", key))

    def delete(self, key: str, etag: str | None = None) -> str | None:
        return self._now(lambda: self._store.delete(key, etag), self._rules.begin("delete", key))

    def delete_many(self, wanted: Sequence[Deletion]) -> Sequence[Deleted]:
        """A second attempt is harmless: what the first deleted is gone, and all else is compared again."""
        first = wanted[0].key if wanted else ""
        return self._now(lambda: self._store.delete_many(wanted), self._rules.begin("delete_many", first))

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ListedObject]:
        """After a failure the listing goes on behind the last key that was given out; each key that comes
        begins the count of attempts anew."""
        attempts = self._rules.begin("list", prefix)
        rows = self._store.list(prefix, start_after)
        last = start_after
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except XmodeError as error:
                self._pause(attempts, error)
                rows = self._store.list(prefix, last)
                continue
            if row.key != last:
                attempts = self._rules.begin("list", prefix)
            last = row.key
            yield row

    def read(self, key: str) -> Iterator[bytes]:
        """Tried again until the first bytes are there; what breaks off later is the caller's to begin
        anew."""
        attempts = self._rules.begin("read", key)

        def first() -> tuple[bytes, Iterator[bytes]]:
            chunks = self._store.read(key)
            return next(chunks, b""), chunks

        head, rest = self._now(first, attempts)
        if head:
            yield head
        yield from rest

    def close(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._waiting == 0)
        self._store.close()

    def _now(self, call: Callable[[], T], attempts: Attempts) -> T:
        while True:
            try:
                return call()
            except XmodeError as error:
                self._pause(attempts, error)

    def _pause(self, attempts: Attempts, error: XmodeError) -> None:
        """Returns when it is time for the next attempt; raises the error when there is none."""
        pause = attempts.pause_after(error)
        if pause is None or self._stop.wait(pause):
            raise error

    def _later(self, begin: Begin[T], attempts: Attempts) -> Future[T]:
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        with self._idle:
            self._waiting += 1
        # Counted down before the caller's own callbacks run, so that one of them may close the store.
        outer.add_done_callback(self._settled)
        _Retried(outer, begin, attempts, self._timer).start()
        return outer

    def _settled(self, _: Future[Any]) -> None:
        with self._idle:
            self._waiting -= 1
            self._idle.notify_all()


class _Retried:
    """One future that is begun again until it succeeds or its error is final."""

    def __init__(self, outer: Future[T], begin: Begin[T], attempts: Attempts, timer: Timer) -> None:
        self._outer: Future[Any] = outer
        self._begin: Begin[Any] = begin
        self._attempts = attempts
        self._timer = timer
        self._carried = telemetry.carry(self._finished)

    def start(self) -> None:
        try:
            inner = self._begin()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one who waits for the future
            self._failed(error)
        else:
            inner.add_done_callback(self._carried)

    def _finished(self, inner: Future[Any]) -> None:
        error = inner.exception()
        if error is None:
            self._outer.set_result(inner.result())
        else:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        pause = self._attempts.pause_after(error)
        if pause is None:
            self._outer.set_exception(error)
        else:
            self._timer.after(pause, self.start, lambda: self._outer.set_exception(error))
