"""The dispatch of bodies, for both engines: a queue for each open store, the limits that all customers of the
process share, and the retry of an object. A job waits without a thread, and is built and signed only when it
may be sent; while it waits for a retry, it counts for no limit."""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any

from xmode_transfer.aws.retrying import Allowance, Allowances, Attempts, Pace, Timer
from xmode_transfer.aws.s3_errors import Attempt
from xmode_transfer.config import BandwidthLimit, Limits
from xmode_transfer.model.errors import Defect, Interrupted, Throttled, XmodeError
from xmode_transfer.model.process import Clock
from xmode_transfer.telemetry import SystemClock

SMALL_BYTES = 1024 * 1024
"""A body up to this size is held as bytes, and may pass a large one that waits for memory."""
_PATIENCE_SECONDS = 2.0
"""A large body that has waited this long for memory goes before any other large one."""


class Job(ABC):
    """One body to send. ``operation`` is S3's name, ``held_bytes`` the share of the memory; ``sent_at`` is in
    the clock's monotonic seconds. The caller retries the object unless ``is_retried``."""

    operation: str
    is_retried = True
    retries: Attempts | None = None
    sent_at = 0.0

    def __init__(self, lane: "Lane", bucket: str, key: str, length: int, held_bytes: int) -> None:
        self.lane = lane
        self.bucket = bucket
        self.key = key
        self.length = length
        self.held_bytes = held_bytes
        self.future: Future[Any] = Future()

    @property
    def attempt(self) -> Attempt:
        return Attempt(self.operation, self.bucket, self.key)

    @abstractmethod
    def send(self) -> Future[Any]:
        """Send it through botocore."""

    def start_over(self) -> None:  # noqa: B027 - most have nothing to reset
        """Reset what was counted of the request: the object is sent again."""


class Lane:
    """The queue of one store. It is ``open`` while its store has an endpoint and credentials. ``context`` has
    what the log binds where the store was opened."""

    __slots__ = ("bandwidths", "context", "ended", "in_turn", "jobs", "open", "outstanding", "pace")

    def __init__(
        self, pace: Pace, end: Callable[["Lane"], None], bandwidths: tuple[Allowance, ...] = ()
    ) -> None:
        self.pace = pace
        self.bandwidths = bandwidths
        self.jobs: deque[Job] = deque()
        self.context = copy_context()
        self.open = True
        self.in_turn = False
        self.outstanding = 0
        self.ended = lambda _: end(self)


class Lanes:
    """The queues of all open stores, which take turns: a million files delay no other store. Thread-safe."""

    def __init__(
        self, limits: Limits, timer: Timer, wake: Callable[[], None], clock: Clock | None = None
    ) -> None:
        self._parallel = limits.parallel_objects
        self._of_customer = min(limits.parallel_objects, limits.parallel_objects_per_customer)
        # The CRT holds each body whole, the allocator frees late, and what TransferManager buffers is copied
        # once more: about half as much again was measured (docs/engine.md).
        self.memory_bytes = limits.memory_bytes // 2
        self._bandwidths = Allowances(limits, clock or SystemClock())
        self._timer = timer
        self._wake = wake
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._lanes: set[Lane] = set()
        self._turn: deque[Lane] = deque()
        self._paces: dict[str, Pace] = {}
        self._in_flight = 0
        self._held_bytes = 0
        self._without_room: dict[Pace, list[Lane]] = {}
        self._oversized: dict[Job, float] = {}
        self._spent: dict[Allowance, list[Lane]] = {}

    def lane(self, customer: str, bandwidth: BandwidthLimit | None = None) -> Lane:
        """Return a lane for one store. A customer's stores share its pace and its bandwidth."""
        with self._lock:
            pace = self._paces.setdefault(customer, Pace(self._of_customer))
            lane = Lane(pace, self.end, self._bandwidths.of(customer, bandwidth or BandwidthLimit()))
            self._lanes.add(lane)
            return lane

    def close(self, lane: Lane) -> None:
        """Wait until every future of the lane is done, and remove it."""
        with self._lock:
            self._idle.wait_for(lambda: lane.outstanding == 0)
            self._lanes.discard(lane)

    def end(self, lane: Lane) -> None:
        with self._lock:
            lane.outstanding -= 1
            if not lane.outstanding:
                self._idle.notify_all()

    def enter(self, job: Job) -> Job | None:
        """Queue a new job, count one more outstanding future, and return the next job like ``next``."""
        with self._lock:
            job.lane.outstanding += 1
            job.lane.jobs.append(job)
            self._list(job.lane)
            return self._next()

    def add(self, job: Job, *, first: bool = False) -> None:
        with self._lock:
            jobs = job.lane.jobs
            (jobs.appendleft if first else jobs.append)(job)
            self._list(job.lane)

    def next(self) -> Job | None:
        """Return the next job that may be sent now, or None. It counts for the limits until ``done``."""
        with self._lock:
            return self._next()

    @property
    def may_have_room(self) -> bool:
        """A check without the lock: a thread that makes room meanwhile checks too."""
        return bool(self._turn) and self._in_flight < self._parallel

    def done(self, job: Job, *, succeeded: bool = False) -> None:
        with self._lock:
            self._give_back(job)
            if succeeded:
                job.lane.pace.succeeded()

    def succeeded(self, job: Job) -> Job | None:
        """Release what the job took, and return the next one like ``next``."""
        with self._lock:
            self._give_back(job)
            job.lane.pace.succeeded()
            return self._next()

    def put_back(self, job: Job) -> None:
        """Close a lane until its store is ready, and put the job first in it."""
        with self._lock:
            self._give_back(job)
            for bandwidth in job.lane.bandwidths:
                bandwidth.take(-job.length)
            job.lane.open = False
            job.lane.jobs.appendleft(job)

    def open(self, lane: Lane) -> None:
        with self._lock:
            lane.open = True
            self._list(lane)

    def drain(self, lane: Lane) -> list[Job]:
        """Remove and return all jobs of a lane, and open it."""
        with self._lock:
            jobs = list(lane.jobs)
            lane.jobs.clear()
            for job in jobs:
                self._oversized.pop(job, None)
            lane.open = True
            return jobs

    def take_all(self) -> list[Job]:
        with self._lock:
            taken = [job for lane in self._lanes for job in lane.jobs]
            for lane in self._lanes:
                lane.jobs.clear()
            self._oversized.clear()
            return taken

    def slow_down(self, job: Job, now: float) -> None:
        with self._lock:
            job.lane.pace.slow_down(job.sent_at, now)

    def may_retry(self, job: Job) -> bool:
        with self._lock:
            return job.lane.pace.may_retry()

    def _next(self) -> Job | None:
        if self._in_flight >= self._parallel:
            return None
        for _ in range(len(self._turn)):
            lane = self._turn.popleft()
            lane.in_turn = False
            if not (lane.jobs and lane.open):
                continue
            if not lane.pace.has_room():
                self._without_room.setdefault(lane.pace, []).append(lane)
            elif lane.bandwidths and self._is_spent(lane):
                continue
            elif not self._fits(lane.jobs[0]):
                self._list(lane)
            else:
                job = lane.jobs.popleft()
                self._list(lane)
                self._take(job)
                return job
        return None

    def _list(self, lane: Lane) -> None:
        if lane.jobs and not lane.in_turn and lane.open:
            lane.in_turn = True
            self._turn.append(lane)

    def _take(self, job: Job) -> None:
        self._in_flight += 1
        self._held_bytes += job.held_bytes
        job.lane.pace.in_flight += 1
        if self._oversized:
            self._oversized.pop(job, None)
        for bandwidth in job.lane.bandwidths:
            bandwidth.take(job.length)

    def _give_back(self, job: Job) -> None:
        self._in_flight -= 1
        self._held_bytes -= job.held_bytes
        job.lane.pace.in_flight -= 1
        if self._without_room:
            for lane in self._without_room.pop(job.lane.pace, ()):
                self._list(lane)

    def _fits(self, job: Job) -> bool:
        fits = self._held_bytes + job.held_bytes <= self.memory_bytes or self._held_bytes == 0
        if job.held_bytes <= SMALL_BYTES:
            return fits or job.held_bytes == 0
        if not fits:
            self._oversized.setdefault(job, time.monotonic())
            return False
        if not self._oversized:
            return True
        first, since = next(iter(self._oversized.items()))
        return job is first or time.monotonic() - since < _PATIENCE_SECONDS

    def _is_spent(self, lane: Lane) -> bool:
        """Return whether the first job must wait for bandwidth. The timer then puts the lane back in turn."""
        if not lane.jobs[0].length:
            return False
        for bandwidth in lane.bandwidths:
            seconds = bandwidth.wait()
            if seconds > 0:
                waiting = self._spent.setdefault(bandwidth, [])
                waiting.append(lane)
                if len(waiting) == 1:
                    woken = partial(self._woken, bandwidth)
                    self._timer.after(seconds, woken, woken)
                return True
        return False

    def _woken(self, bandwidth: Allowance) -> None:
        with self._lock:
            for lane in self._spent.pop(bandwidth, ()):
                self._list(lane)
        self._wake()


class _Local(threading.local):
    is_sending = False


class Dispatcher:
    """Sends jobs within the limits, and retries objects. Thread-safe; one for the process."""

    def __init__(self, limits: Limits, clock: Clock, stop: threading.Event) -> None:
        self._clock = clock
        self._stop = stop
        self._timer = Timer(stop)
        self.lanes = Lanes(limits, self._timer, self.pump, clock)
        self._closed = False
        self._local = _Local()

    def submit(self, job: Job) -> Future[Any]:
        """Queue the job; return its future, which fails with domain errors only."""
        job.future.set_running_or_notify_cancel()
        # Counted down before the caller's own callbacks run, so that one of them may close the store.
        job.future.add_done_callback(job.lane.ended)
        self._begin_all(self.lanes.enter(job))
        return job.future

    def pump(self) -> None:
        """Send every job that has room now. A job that ends while another is being sent leaves this to that
        one: a long queue must not become a deep stack."""
        if not self._local.is_sending:
            self._begin_all(self.lanes.next())

    def close(self) -> None:
        """Interrupt the jobs that wait. Idempotent."""
        self._closed = True
        self.pump()
        self._timer.close()

    def _begin_all(self, job: Job | None) -> None:
        before, self._local.is_sending = self._local.is_sending, True
        try:
            while job is not None:
                if self._is_stopping():
                    self.lanes.done(job)
                    self._interrupt(job)
                else:
                    try:
                        self._begin(job)
                    except Exception as error:  # noqa: BLE001 - it belongs to the future's caller
                        self.lanes.done(job)
                        self._give_up(job, error)
                job = self.lanes.next() if self.lanes.may_have_room else None
        finally:
            self._local.is_sending = before
        if self._is_stopping():
            for waiting in self.lanes.take_all():
                self._interrupt(waiting)

    def _is_stopping(self) -> bool:
        return self._closed or self._stop.is_set()

    def _interrupt(self, job: Job) -> None:
        self._give_up(job, Interrupted("stopped before this was sent"))

    def _begin(self, job: Job) -> None:
        job.sent_at = self._clock.monotonic()
        job.send().add_done_callback(partial(self._answered, job))

    def _answered(self, job: Job, sent: Future[Any]) -> None:
        error = sent.exception()
        if error is None:
            self.lanes.done(job, succeeded=True)
            self.pump()
            job.future.set_result(sent.result())
            return
        if isinstance(error, Throttled):
            self.lanes.slow_down(job, self._clock.monotonic())
        self._fail(job, error)

    def _fail(self, job: Job, error: BaseException) -> None:
        """Retry the object, or fail it. The customer's budget holds for these and the request's retries."""
        self.lanes.done(job)
        pause = None
        transient = isinstance(error, XmodeError) and error.retryable
        if transient and job.is_retried and not self._is_stopping() and self.lanes.may_retry(job):
            job.retries = job.retries or Attempts(job.operation, job.key)
            pause = job.lane.context.copy().run(job.retries.pause_after, error)
        if pause is None:
            self.pump()
            self._give_up(job, error)
            return
        job.start_over()
        self._timer.after(pause, partial(self._enqueue, job), partial(self._give_up, job, error))
        self.pump()

    def _enqueue(self, job: Job) -> None:
        self.lanes.add(job, first=True)
        self.pump()

    def _give_up(self, job: Job, error: BaseException) -> None:
        if not isinstance(error, XmodeError):
            error = Defect(
                f"{job.attempt}: {type(error).__name__}: {error}",
                hint="this is a mistake in xmode-transfer; report it with the log",
            )
        job.future.set_exception(error)
