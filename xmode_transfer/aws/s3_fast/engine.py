"""Sends jobs through the CRT, with retries for the request.

Callbacks run on the CRT's event loops. Nothing in them waits: what may take time (a role session, a Region, a
request through botocore) happens on threads of its own.
"""

import os
import random
import threading
import time
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from xmode_transfer import telemetry
from xmode_transfer.aws import dispatch, lanes
from xmode_transfer.aws.lanes import Lane
from xmode_transfer.aws.retrying import RetryRules
from xmode_transfer.aws.s3_fast import direct
from xmode_transfer.aws.s3_fast.answers import Failure, Headers, failure_of
from xmode_transfer.aws.s3_fast.channel import Channel, Clients, Ready
from xmode_transfer.aws.sdk import FINISH_SECONDS
from xmode_transfer.config import Limits
from xmode_transfer.model.errors import Interrupted, SessionExpired, Throttled, Unavailable
from xmode_transfer.model.process import Clock

ATTEMPTS = 5
"""How often one request is sent in all. docs/retries.md has the levels above."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0
_LEAST_SECONDS = 120.0
_LEAST_BYTES_PER_SECOND = 16 * 1024
_WATCH_SECONDS = 0.25
_END_SECONDS = 10.0
_GROWN_BYTES = 128 * 1024 * 1024
"""What the process may grow by while a request is in flight, besides the memory for bodies. The CRT reads the
answer to a request whole, however long it is, and says nothing before its end. Who is ended for another's
growth only makes a detour."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_RESIDENT = Path("/proc/self/statm")
_PREPARING_THREADS = 16
_CONNECTIONS_TO_SPARE = 4
_REDIRECTS = (301, 302, 307, 400, 403)


class Job(lanes.Job):
    """One request, sent until it is answered. ``attempts`` counts how often it was sent, ``settled`` how
    often something came of that; ``detoured`` means that botocore sends it, ``stays_detoured`` that it does
    so whenever the object is begun; ``path`` is a file that the CRT takes the body from, where the request
    has none; ``resident_bytes`` is what the process had in memory when the request was first seen in
    flight."""

    # What most jobs never change stays in the class: making a job must cost little.
    attempts = 0
    settled = 0
    detoured = False
    stays_detoured = False
    renewed = False
    moved = False
    overdue = False
    swollen = False
    resident_bytes: int | None = None
    headers: Headers = ()
    path: str | None = None
    ready: Ready | None = None
    request: Any = None

    def __init__(self, engine: "SendingEngine", channel: Channel, lane: Lane, key: str, length: int) -> None:
        super().__init__(lane, channel.bucket, key, length, length)
        self.engine = engine
        self.channel = channel

    def start_over(self) -> None:
        self.attempts = self.settled = 0
        self.renewed = self.moved = False
        self.detoured = self.stays_detoured

    @abstractmethod
    def body_error(self, error: BaseException) -> BaseException | None:
        """What went wrong with the body while the CRT read it, if that is what is behind its ``error``."""

    @abstractmethod
    def build(self, ready: Ready) -> tuple[Any, Any]:
        """The HttpRequest and how it is signed. Raises SourceChanged and what the source raises."""

    @abstractmethod
    def result(self) -> Any:
        """The value of the future, from the headers of a successful answer."""

    def cancel(self) -> None:
        """Ends it, if it is in flight."""
        request = self.request
        if request is not None:
            request.cancel()

    # --- Told by the CRT: ``direct.Answered`` --------------------------------------------------------

    def on_headers(self, headers: Headers) -> None:
        self.headers = headers

    def on_done(self, error: BaseException | None) -> None:
        self.engine.done(self, error)


class SendingEngine(dispatch.Dispatcher):
    """Thread-safe. One for the process."""

    def __init__(
        self, limits: Limits, clock: Clock, stop: threading.Event, rules: RetryRules | None = None
    ) -> None:
        super().__init__(limits, clock, stop, rules)
        self._clients = Clients(limits.parallel_objects + _CONNECTIONS_TO_SPARE)
        self._threads = ThreadPoolExecutor(_PREPARING_THREADS, thread_name_prefix="s3-fast")
        self._in_flight: set[Job] = set()
        self._grown_bytes = limits.memory_bytes + _GROWN_BYTES
        self._watching = False

    def close(self) -> None:
        """Ends what is still in flight, ten seconds at most, and frees everything. Idempotent."""
        self._closed = True
        self.pump()
        for job in list(self._in_flight):
            job.cancel()
        waited = threading.Event()
        for _ in range(int(_END_SECONDS / 0.05)):
            if not self._in_flight:
                break
            waited.wait(0.05)
        self._timer.close()
        self._threads.shutdown(wait=True)
        self._clients.close()

    # --- Beginning --------------------------------------------------------------------------------------

    def _begin(self, job: lanes.Job) -> None:
        if not isinstance(job, Job) or job.detoured:
            super()._begin(job)
            return
        now = self._clock.monotonic()
        ready = job.channel.ready_at(now)
        if ready is None:
            self.lanes.put_back(job)
            with suppress(RuntimeError):  # closed meanwhile: then it is given up with all that waits
                self._threads.submit(self._prepare, job)
            return
        try:
            self._send(job, ready, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one who waits for the future
            self.lanes.done(job)
            self._tell(job, error)

    def _send(self, job: Job, ready: Ready, now: float) -> None:
        # Before the client: an error keeps the frames that it passed, and a frame must not keep the client.
        request, signing = job.build(ready)
        client = self._clients.get(tls=ready.endpoint.tls, port=ready.endpoint.port)
        job.ready = ready
        job.attempts += 1
        job.sent_at = now
        self._in_flight.add(job)
        if not self._watching:
            self._watching = True
            self._timer.after(_WATCH_SECONDS, self._watch, self._watch_the_end)
        try:
            sent = direct.send(client, job.operation, request, signing, job, job.path)
        except BaseException:
            self._in_flight.discard(job)
            raise
        # its answer may have come already
        job.request = sent if job.settled < job.attempts else None

    def _prepare(self, job: Job) -> None:
        """For the first of a lane that is closed meanwhile; what waits there shares what comes of it."""
        lane = job.lane
        try:
            job.channel.prepare()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait for the futures
            for waiting in self.lanes.drain(lane):
                self._tell(cast("Job", waiting), error)
        else:
            self.lanes.open(lane)
        self.pump()

    # --- Settling ---------------------------------------------------------------------------------------

    def done(self, job: Job, error: BaseException | None) -> None:
        """The CRT's ``on_done``: it swallows what is raised here, so nothing is."""
        direct.keep_state()
        job.settled += 1
        job.request = None
        self._in_flight.discard(job)
        try:
            if error is None:
                result = job.result()
                self._begin_all(self.lanes.succeeded(job))
                job.future.set_result(result)
            else:
                self._settle(job, error)
        except Exception as unexpected:  # noqa: BLE001 - a future that nobody ends would be waited for for ever
            telemetry.exception("defect", key=job.key)
            if not job.future.done():
                self._tell(job, unexpected)

    def _settle(self, job: Job, error: BaseException) -> None:
        of_body = job.body_error(error)
        if of_body is not None:
            self._fail(job, of_body)
            return
        failure = failure_of(error, job.attempt, self._clock.now())
        if job.overdue:
            job.overdue = False
            failure = Failure(_overdue(job))
        elif job.swollen:
            job.swollen = False
            job.resident_bytes = None
            failure = failure._replace(hopeless=True)  # botocore, whose answers are bounded, says what it is
        elif self._closed or self._stop.is_set():
            failure = Failure(Interrupted(f"{job.attempt}: ended before it was answered"))
        if isinstance(failure.error, Throttled):
            self.lanes.slow_down(job, job.sent_at, self._clock.monotonic())
        if self._has_recovered(job, failure):
            self._again(job)
        elif failure.hopeless:
            job.detoured = job.stays_detoured = True
            self._again(job)
        elif failure.error.retryable and not isinstance(failure.error, SessionExpired):
            self._retry(job, failure)
        else:
            self._fail(job, failure.error)

    def _has_recovered(self, job: Job, failure: Failure) -> bool:
        """A dead session and a wrong Region are replaced once for each request, without a pause."""
        used = job.ready
        assert used is not None
        if isinstance(failure.error, SessionExpired) and not job.renewed:
            job.renewed = True
            job.channel.renew(used)
            return True
        region = failure.answer.bucket_region if failure.answer is not None else None
        redirected = failure.answer is not None and failure.answer.status in _REDIRECTS
        if region and redirected and region != used.region and not job.moved:
            job.moved = True
            job.channel.move(used, region)
            return True
        return False

    def _retry(self, job: Job, failure: Failure) -> None:
        """Later, with full jitter. Where the CRT keeps S3's answer to itself, botocore makes the last
        attempt: it says what S3 said."""
        last = job.attempts >= (ATTEMPTS - 1 if failure.swallowed else ATTEMPTS)
        if (last and not failure.swallowed) or not self.lanes.may_retry(job):
            self._fail(job, failure.error)
            return
        job.detoured = last
        self.lanes.done(job)
        pause = pause_before(job.attempts + 1, random.random())
        self._timer.after(pause, partial(self._enqueue, job), partial(self._tell, job, failure.error))
        self.pump()

    def _again(self, job: Job) -> None:
        self.lanes.done(job)
        self._enqueue(job)

    def _watch(self) -> None:
        """Ends what has taken longer than its size allows, and all when the process grows as no body of ours
        makes it grow. Runs as long as something is in flight."""
        now, resident = self._clock.monotonic(), _resident_bytes()
        jobs = list(self._in_flight)
        for job in jobs:
            if job.resident_bytes is None:
                job.resident_bytes = resident
            if now - job.sent_at > deadline_seconds(job.length):
                job.overdue = True
                job.cancel()
        if any(resident - (job.resident_bytes or resident) > self._grown_bytes for job in jobs):
            for job in jobs:
                job.swollen = True
                job.cancel()
        self._watching = bool(self._in_flight) and not self._closed
        if self._watching:
            self._timer.after(_WATCH_SECONDS, self._watch, self._watch_the_end)

    def _watch_the_end(self) -> None:
        """We are asked to stop: what is in flight has a moment to be answered."""
        self._watching = False
        threading.Thread(target=self._end_in_flight, name="s3-fast end", daemon=True).start()

    def _end_in_flight(self) -> None:
        end = time.monotonic() + FINISH_SECONDS
        while self._in_flight and time.monotonic() < end:
            time.sleep(_WATCH_SECONDS)
        while self._in_flight:
            for job in list(self._in_flight):
                job.cancel()
            time.sleep(_WATCH_SECONDS)


def _resident_bytes() -> int:
    """What the process has in memory; 0 where the system does not say it in this way."""
    try:
        return int(_RESIDENT.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _overdue(job: Job) -> Unavailable:
    return Unavailable(
        f"{job.attempt}: no answer within {deadline_seconds(job.length):.0f} s for {job.length} bytes",
        hint="Tried again by itself. If it stays, look at this machine's network",
    )


def pause_before(attempt: int, chance: float) -> float:
    """Seconds to wait before attempt 2, 3, ...: with full jitter, anything up to ``0.5 * 2**(attempt - 2)``,
    20 at most. ``chance`` lies between 0 and 1."""
    return chance * min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 2))


def deadline_seconds(length: int) -> float:
    """How long a request with that many bytes may take. A connection on which nothing moves is ended sooner,
    by the CRT's own monitor (docs/engine.md)."""
    return _LEAST_SECONDS + length / _LEAST_BYTES_PER_SECOND
