"""Sends jobs through the CRT, with retries for the request, and translates what the CRT reports.

Callbacks run on the CRT's event loops and must not wait: what may take time runs on other threads.
"""

import os
import random
import threading
import time
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from awscrt.exceptions import AwsCrtError
from awscrt.s3 import S3ResponseError

from xmode_transfer import telemetry
from xmode_transfer.aws import lanes
from xmode_transfer.aws.lanes import Lane
from xmode_transfer.aws.s3_errors import (
    CERTIFICATE_HINT,
    NETWORK_HINT,
    Answer,
    Attempt,
    answer_of_body,
    error_for,
)
from xmode_transfer.aws.s3_fast import direct
from xmode_transfer.aws.s3_fast.channel import Channel, Clients, Ready
from xmode_transfer.aws.s3_fast.direct import Headers
from xmode_transfer.aws.sdk import FINISH_SECONDS
from xmode_transfer.config import Limits
from xmode_transfer.model import errors
from xmode_transfer.model.process import Clock

ATTEMPTS = 5
"""The attempts of one request in all. docs/retries.md has the levels above."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0
_LEAST_SECONDS = 120.0
_LEAST_BYTES_PER_SECOND = 16 * 1024
_WATCH_SECONDS = 0.25
_END_SECONDS = 10.0
_GROWN_BYTES = 128 * 1024 * 1024
"""The allowed growth of the process while a request is in flight, besides the memory for bodies: the CRT
reads the whole answer, however long it is, before it reports anything."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_RESIDENT = Path("/proc/self/statm")
_PREPARING_THREADS = 16
_CONNECTIONS_TO_SPARE = 4
_REDIRECTS = (301, 302, 307, 400, 403)


# The CRT does not report these answers: its own retries would handle them (awscrt 0.38; docs/engine.md).
_HIDDEN = {
    "AWS_ERROR_S3_SLOW_DOWN": Answer(503, "", ""),
    "AWS_ERROR_S3_INTERNAL_ERROR": Answer(500, "", ""),
    "AWS_ERROR_S3_REQUEST_TIMEOUT": Answer(400, "RequestTimeout", ""),
    "AWS_ERROR_S3_REQUEST_TIME_TOO_SKEWED": Answer(403, "RequestTimeTooSkewed", ""),
}
_REFUSED_HINT = "The request could not be sent as it is; report it with the log, it is a defect of ours"
_OF_THE_NETWORK = ("AWS_IO_", "AWS_ERROR_HTTP_", "AWS_ERROR_S3_", "AWS_ERROR_CRT_", "AWS_ERROR_SYS_")


class Failure(NamedTuple):
    """Why a request failed. ``hidden``: the CRT does not report S3's answer; ``hopeless``: another attempt
    through the CRT would fail too, and botocore reports more."""

    error: errors.XmodeError
    answer: Answer | None = None
    hidden: bool = False
    hopeless: bool = False


def failure_of(error: BaseException, attempt: Attempt, now: datetime) -> Failure:
    """Return the failure that the CRT's ``on_done`` reports. ``now`` is our clock's time."""
    if isinstance(error, S3ResponseError) and error.status_code:
        answer = answer_of_body(error.status_code, dict(error.headers or ()), error.body or b"")
        return Failure(error_for(answer, attempt, now), answer)
    if not isinstance(error, AwsCrtError):
        return Failure(errors.RequestRefused(f"{attempt}: {error}", hint=_REFUSED_HINT))
    known = _HIDDEN.get(error.name)
    if known is not None:
        refusal = error_for(known, attempt, now)
        return Failure(refusal, hidden=True, hopeless=not refusal.retryable)
    words = f"{attempt}: {error.message.rstrip('.')} ({error.name})"
    if "_TLS_" in error.name:
        # s2n takes 10 to 30 seconds to report this, each time
        return Failure(errors.CertificateRefused(words, hint=CERTIFICATE_HINT), hopeless=True)
    if error.name.startswith(_OF_THE_NETWORK):
        return Failure(errors.Unavailable(words, hint=NETWORK_HINT))
    return Failure(errors.RequestRefused(words, hint=_REFUSED_HINT))


class Job(lanes.Job):
    """One request, sent until it is answered. ``attempts`` counts how often it was sent, ``settled`` how
    often that had an outcome; ``detoured``: botocore sends it; ``stays_detoured``: also if the object is
    retried; ``resident_bytes`` is the memory of the process when the request was first seen in flight."""

    # In the class, since most jobs never change them: making a job must cost little.
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

    def __init__(
        self, engine: "SendingEngine", channel: Channel, lane: Lane, bucket: str, key: str, length: int
    ) -> None:
        super().__init__(lane, bucket, key, length, length)
        self.engine = engine
        self.channel = channel

    def start_over(self) -> None:
        self.attempts = self.settled = 0
        self.renewed = self.moved = False
        self.detoured = self.stays_detoured

    @abstractmethod
    def body_error(self, error: BaseException) -> BaseException | None:
        """Return the failure of the body that caused the CRT's ``error``, if any."""

    @abstractmethod
    def build(self, ready: Ready) -> tuple[Any, Any]:
        """Return the HttpRequest and its signing config. Raises the source's errors."""

    @abstractmethod
    def result(self) -> Any:
        """Return the value of the future, from the headers of a successful answer."""

    def cancel(self) -> None:
        request = self.request
        if request is not None:
            request.cancel()

    def on_headers(self, headers: Headers) -> None:
        self.headers = headers

    def on_done(self, error: BaseException | None) -> None:
        self.engine.done(self, error)


class SendingEngine(lanes.Dispatcher):
    """The dispatcher that sends through the CRT. Thread-safe; one for the process."""

    def __init__(self, limits: Limits, clock: Clock, stop: threading.Event) -> None:
        super().__init__(limits, clock, stop)
        self._clients = Clients(limits.parallel_objects + _CONNECTIONS_TO_SPARE)
        self._threads = ThreadPoolExecutor(_PREPARING_THREADS, thread_name_prefix="s3-fast")
        self._in_flight: set[Job] = set()
        self._grown_bytes = limits.memory_bytes + _GROWN_BYTES
        self._watching = False

    def close(self) -> None:
        """Cancel what is in flight, wait ten seconds at most, and free everything. Idempotent."""
        self._closed = True
        self.pump()
        for job in list(self._in_flight):
            job.cancel()
        end = time.monotonic() + _END_SECONDS
        while self._in_flight and time.monotonic() < end:
            time.sleep(0.05)
        self._timer.close()
        self._threads.shutdown(wait=True)
        self._clients.close()

    def _begin(self, job: lanes.Job) -> None:
        if not isinstance(job, Job) or job.detoured:
            super()._begin(job)
            return
        now = self._clock.monotonic()
        ready = job.channel.ready_at(now)
        if ready is None:
            self.lanes.put_back(job)
            with suppress(RuntimeError):  # closed meanwhile: then all that waits is interrupted
                self._threads.submit(self._prepare, job)
            return
        # Before the client: an error keeps its frames, and a frame must not keep the client.
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
        """Prepare a lane, closed meanwhile, for its first job. All its jobs share the outcome."""
        lane = job.lane
        try:
            job.channel.prepare()
        except Exception as error:  # noqa: BLE001 - it belongs to the callers that wait for the futures
            for waiting in self.lanes.drain(lane):
                self._give_up(cast("Job", waiting), error)
        else:
            self.lanes.open(lane)
        self.pump()

    def done(self, job: Job, error: BaseException | None) -> None:
        """Handle the CRT's ``on_done``, which ignores exceptions, so none is raised."""
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
        except Exception as unexpected:  # noqa: BLE001 - a future that never ends would block its caller
            telemetry.exception("defect", key=job.key)
            if not job.future.done():
                self._give_up(job, unexpected)

    def _settle(self, job: Job, error: BaseException) -> None:
        of_body = job.body_error(error)
        if of_body is not None:
            self._fail(job, of_body)
            return
        failure = failure_of(error, job.attempt, self._clock.now())
        if job.overdue:
            job.overdue = False
            seconds = deadline_seconds(job.length)
            late = f"{job.attempt}: no answer within {seconds:.0f} s for {job.length} bytes"
            hint = "Tried again by itself. If it stays, look at this machine's network"
            failure = Failure(errors.Unavailable(late, hint=hint))
        elif job.swollen:
            job.swollen = False
            job.resident_bytes = None
            failure = failure._replace(hopeless=True)  # botocore bounds answers, and reports this one
        elif self._closed or self._stop.is_set():
            failure = Failure(errors.Interrupted(f"{job.attempt}: ended before it was answered"))
        if isinstance(failure.error, errors.Throttled):
            self.lanes.slow_down(job, self._clock.monotonic())
        if self._has_recovered(job, failure):
            self._again(job)
        elif failure.hopeless:
            job.detoured = job.stays_detoured = True
            self._again(job)
        elif failure.error.retryable and not isinstance(failure.error, errors.SessionExpired):
            self._retry(job, failure)
        else:
            self._fail(job, failure.error)

    def _has_recovered(self, job: Job, failure: Failure) -> bool:
        """Replace an expired session or a wrong Region, once a request, without a pause."""
        used = job.ready
        assert used is not None
        if isinstance(failure.error, errors.SessionExpired) and not job.renewed:
            job.renewed = True
            job.channel.renew(used)
            return True
        answer = failure.answer
        region = answer.bucket_region if answer is not None and answer.status in _REDIRECTS else None
        if region and region != used.region and not job.moved:
            job.moved = True
            job.channel.move(used, region)
            return True
        return False

    def _retry(self, job: Job, failure: Failure) -> None:
        """Retry later. If the CRT hides S3's answer, botocore makes the last attempt, which does."""
        last = job.attempts >= (ATTEMPTS - 1 if failure.hidden else ATTEMPTS)
        if (last and not failure.hidden) or not self.lanes.may_retry(job):
            self._fail(job, failure.error)
            return
        job.detoured = last
        self.lanes.done(job)
        pause = pause_before(job.attempts + 1, random.random())
        self._timer.after(pause, partial(self._enqueue, job), partial(self._give_up, job, failure.error))
        self.pump()

    def _again(self, job: Job) -> None:
        self.lanes.done(job)
        self._enqueue(job)

    def _watch(self) -> None:
        """Cancel requests that take longer than their size allows, and all if the process grows more than
        bodies explain."""
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
        """Give requests in flight a moment to be answered on a stop."""
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
    """Return the memory of the process; 0 on systems without ``/proc``."""
    try:
        return int(_RESIDENT.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def pause_before(attempt: int, chance: float) -> float:
    """Return the seconds before attempt 2, 3, ..., with full jitter. ``chance`` is between 0 and 1."""
    return chance * min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 2))


def deadline_seconds(length: int) -> float:
    """Return a request's time limit. The CRT itself ends an idle connection sooner (docs/engine.md)."""
    return _LEAST_SECONDS + length / _LEAST_BYTES_PER_SECOND
