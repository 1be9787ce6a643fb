"""Sends jobs: begins them when it is their turn, and settles what comes of them.

Callbacks run on the CRT's event loops. Nothing in them waits: what may take time (a role session, a Region, a
request through botocore) happens on threads of its own.
"""

import os
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from xmode_transfer import telemetry
from xmode_transfer.adapters.aws_http import FINISH_SECONDS
from xmode_transfer.adapters.s3_fast import direct, pacing
from xmode_transfer.adapters.s3_fast.answers import Failure, failure_of
from xmode_transfer.adapters.s3_fast.channel import Ready
from xmode_transfer.adapters.s3_fast.clients import Clients
from xmode_transfer.adapters.s3_fast.jobs import Job
from xmode_transfer.adapters.s3_fast.lanes import Lanes, Waiting
from xmode_transfer.adapters.s3_fast.threads import keep_state
from xmode_transfer.adapters.timer import Timer
from xmode_transfer.domain.config import Limits
from xmode_transfer.domain.errors import (
    Defect,
    Interrupted,
    SessionExpired,
    Throttled,
    Unavailable,
    XmodeError,
)
from xmode_transfer.ports import Clock

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


class SendingEngine:
    """Thread-safe. One for the process."""

    def __init__(self, limits: Limits, clock: Clock, stop: threading.Event) -> None:
        self._clock = clock
        self._stop = stop
        self._timer = Timer(stop)
        self.lanes = Lanes(limits, self._timer, self.pump, clock)
        self._clients = Clients(limits.parallel_objects + _CONNECTIONS_TO_SPARE)
        self._threads = ThreadPoolExecutor(_PREPARING_THREADS, thread_name_prefix="s3-fast")
        self._in_flight: set[Job] = set()
        self._grown_bytes = limits.memory_bytes + _GROWN_BYTES
        self._watching = False
        self._closed = False

    def submit(self, job: Job, *, first: bool = False) -> Future[Any]:
        """The job's future; it fails with domain errors only."""
        job.future.set_running_or_notify_cancel()
        # Counted down before the caller's own callbacks run, so that one of them may close the store.
        job.future.add_done_callback(job.lane.ended)
        self._begin_all(self.lanes.enter(job, first=first))
        return job.future

    def aside(self, call: Any) -> Future[Any]:
        """Runs a call that waits, on a thread of its own."""
        return self._threads.submit(call)

    def pump(self) -> None:
        """Begins everything that has room now."""
        self._begin_all(self.lanes.next())

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

    def _begin_all(self, job: Waiting | None) -> None:
        """Begins this one, and what has room besides."""
        while job is not None:
            if job.stoppable and self._is_stopping():
                self.lanes.done(job)
                self._interrupt(job)
            else:
                self._begin(cast("Job", job))
            job = self.lanes.next() if self.lanes.may_have_room else None
        if self._is_stopping():
            for waiting in self.lanes.take_all():
                self._interrupt(waiting)

    def _is_stopping(self) -> bool:
        return self._closed or self._stop.is_set()

    def _interrupt(self, job: Waiting) -> None:
        self._tell(cast("Job", job), Interrupted("we were asked to stop before this was sent"))

    def _begin(self, job: Job) -> None:
        now = self._clock.monotonic()
        ready = None if job.detoured else job.route.channel.ready_at(now)
        if ready is None and not job.detoured:
            self.lanes.put_back(job)
            with suppress(RuntimeError):  # closed meanwhile: then it is given up with all that waits
                self._threads.submit(self._prepare, job)
            return
        try:
            if ready is None:
                job.detour().add_done_callback(partial(self._came_back, job))
            else:
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
            job.route.channel.prepare()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait for the futures
            for waiting in self.lanes.drain(lane):
                self._tell(cast("Job", waiting), error)
        else:
            self.lanes.open(lane)
        self.pump()

    # --- Settling ---------------------------------------------------------------------------------------

    def done(self, job: Job, error: BaseException | None) -> None:
        """The CRT's ``on_done``: it swallows what is raised here, so nothing is."""
        keep_state()
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
            job.detoured = True
            self._again(job)
        elif failure.error.retryable and not isinstance(failure.error, SessionExpired):
            self._retry(job, failure)
        else:
            self._fail(job, failure.error)

    def _has_recovered(self, job: Job, failure: Failure) -> bool:
        """A dead session and a wrong Region are mended once for each request, at once."""
        used = job.ready
        assert used is not None
        if isinstance(failure.error, SessionExpired) and not job.renewed:
            job.renewed = True
            job.route.channel.renew(used)
            return True
        region = failure.answer.bucket_region if failure.answer is not None else None
        redirected = failure.answer is not None and failure.answer.status in _REDIRECTS
        if region and redirected and region != used.region and not job.moved:
            job.moved = True
            job.route.channel.move(used, region)
            return True
        return False

    def _retry(self, job: Job, failure: Failure) -> None:
        """Later, with full jitter. Where the CRT keeps S3's answer to itself, botocore makes the last
        attempt: it says what S3 said."""
        last = job.attempts >= (pacing.ATTEMPTS - 1 if failure.swallowed else pacing.ATTEMPTS)
        if (last and not failure.swallowed) or not self.lanes.may_retry(job):
            self._fail(job, failure.error)
            return
        job.detoured = last
        self.lanes.done(job)
        pause = pacing.pause_before(job.attempts + 1, random.random())
        self._timer.after(pause, partial(self._enqueue, job), partial(self._tell, job, failure.error))
        self.pump()

    def _again(self, job: Job) -> None:
        self.lanes.done(job)
        self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        self.lanes.add(job, first=True)
        self.pump()

    def _came_back(self, job: Job, detour: Future[Any]) -> None:
        self.lanes.done(job)
        self.pump()
        error = detour.exception()
        if error is None:
            job.future.set_result(detour.result())
        else:
            self._tell(job, error)

    def _fail(self, job: Job, error: BaseException) -> None:
        self.lanes.done(job)
        self.pump()
        self._tell(job, error)

    def _tell(self, job: Job, error: BaseException) -> None:
        if not isinstance(error, XmodeError):
            error = Defect(
                f"{job.attempt}: {type(error).__name__}: {error}",
                hint="this is a mistake in xmode-transfer; report it with the log",
            )
        job.future.set_exception(error)

    def _watch(self) -> None:
        """Ends what has taken longer than its size allows, and all when the process grows as no body of ours
        makes it grow. Runs as long as something is in flight."""
        now, resident = self._clock.monotonic(), _resident_bytes()
        jobs = list(self._in_flight)
        for job in jobs:
            if job.resident_bytes is None:
                job.resident_bytes = resident
            if now - job.sent_at > pacing.deadline_seconds(job.length):
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
        f"{job.attempt}: no answer within {pacing.deadline_seconds(job.length):.0f} s for {job.length} bytes",
        hint="Tried again by itself. If it stays, look at this machine's network",
    )
