"""Who may send next: a queue for each open store, and the limits that all customers of the process share.

A request is made, and signed, only when it is its turn: nothing grows old in a queue of the CRT's.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from xmode_transfer import telemetry
from xmode_transfer.aws.retrying import Allowance, Allowances, Attempts, Timer
from xmode_transfer.aws.s3_errors import Attempt
from xmode_transfer.config import BandwidthLimit, Limits
from xmode_transfer.model.process import Clock
from xmode_transfer.telemetry import SystemClock

SMALL_BYTES = 1024 * 1024
"""A body up to this size is held as bytes, and is small change for the memory: it may pass a large one that
waits for room."""
_PATIENCE_SECONDS = 2.0
"""A large body that has waited so long for room is let in before any other large one."""
RETRY_BUDGET = 100.0
"""Retries that one customer may use up before its successes earn new ones: when nothing works, the load must
not multiply."""
RETRY_EARNED = 0.2
"""What each success gives back."""


class Pace:
    """Requests that one customer may have in flight: halved when S3 says SlowDown, won back one by one
    (additive increase, multiplicative decrease). Whoever uses it holds the lanes' lock."""

    __slots__ = ("_cut_at", "_most", "_retries", "allowed", "in_flight")

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._cut_at = float("-inf")
        self._retries = RETRY_BUDGET
        self.allowed = float(most)
        self.in_flight = 0

    def has_room(self) -> bool:
        return self.in_flight < int(self.allowed)

    def slow_down(self, sent_at: float, now: float) -> None:
        """One cut for all that was in flight together: what was sent before the last cut says nothing new."""
        if sent_at > self._cut_at:
            self.allowed = max(1.0, self.allowed / 2)
            self._cut_at = now

    def succeeded(self) -> None:
        if self.allowed < self._most:
            self.allowed = min(self._most, self.allowed + 1 / self.allowed)
        if self._retries < RETRY_BUDGET:
            self._retries = min(RETRY_BUDGET, self._retries + RETRY_EARNED)

    def may_retry(self) -> bool:
        """Takes one retry from the budget, if there is any left."""
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True


class Job(ABC):
    """One body on its way. ``length`` is what it sends, ``held_bytes`` what it takes of the memory;
    ``future`` is what the caller waits for; ``sent_at`` is in the clock's monotonic seconds."""

    operation: str
    """S3's name of what is asked."""
    is_retried = True
    """Whether the object is tried again here; else the caller does so."""
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
        """Sends it through botocore."""

    def start_over(self) -> None:  # noqa: B027 - most have nothing to forget
        """The object is begun again: what was counted of its request counts no more."""


class Lane:
    """The queue of one store. It is ``open`` while its store knows where and as whom to send. ``bandwidths``
    are those that its bodies are taken from: the process's and the customer's, as far as they are limited.
    ``logged`` carries what the log binds where the store was opened."""

    __slots__ = ("bandwidths", "ended", "in_turn", "jobs", "logged", "open", "outstanding", "pace")

    def __init__(
        self, pace: Pace, end: Callable[["Lane"], None], bandwidths: tuple[Allowance, ...] = ()
    ) -> None:
        self.pace = pace
        self.bandwidths = bandwidths
        self.jobs: deque[Job] = deque()
        self.logged = telemetry.carry(_call)
        self.open = True
        self.in_turn = False
        self.outstanding = 0
        self.ended = partial(_for_future, partial(end, self))


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _for_future(end: Callable[[], None], _: object) -> None:
    end()


class Lanes:
    """Thread-safe. The stores take turns, so that one with a million files holds no other up."""

    def __init__(
        self, limits: Limits, timer: Timer, wake: Callable[[], None], clock: Clock | None = None
    ) -> None:
        self._parallel = limits.parallel_objects
        self._of_customer = min(limits.parallel_objects, limits.parallel_objects_per_customer)
        # The CRT holds each body whole, and the allocator gives memory back late: about half as much again
        # was measured (docs/engine.md). What TransferManager buffers is copied once more on its way.
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
        self._cramped: dict[Job, float] = {}
        self._spent: dict[Allowance, list[Lane]] = {}

    def lane(self, customer: str, bandwidth: BandwidthLimit | None = None) -> Lane:
        """A lane of its own for a store; what a customer's stores share is its pace and its bandwidth."""
        with self._lock:
            pace = self._paces.setdefault(customer, Pace(self._of_customer))
            lane = Lane(pace, self.end, self._bandwidths.of(customer, bandwidth or BandwidthLimit()))
            self._lanes.add(lane)
            return lane

    def close(self, lane: Lane) -> None:
        """Returns when every future of the lane is done, and forgets it."""
        with self._lock:
            self._idle.wait_for(lambda: lane.outstanding == 0)
            self._lanes.discard(lane)

    # --- In and out -----------------------------------------------------------------------------------

    def end(self, lane: Lane) -> None:
        with self._lock:
            lane.outstanding -= 1
            if not lane.outstanding:
                self._idle.notify_all()

    def enter(self, job: Job) -> Job | None:
        """Lets a new request queue, and counts one more future that somebody waits for. Answers like
        ``next``."""
        with self._lock:
            job.lane.outstanding += 1
            job.lane.jobs.append(job)
            self._list(job.lane)
            return self._next()

    def add(self, job: Job, *, first: bool = False) -> None:
        """Lets a request queue once more."""
        with self._lock:
            jobs = job.lane.jobs
            (jobs.appendleft if first else jobs.append)(job)
            self._list(job.lane)

    def next(self) -> Job | None:
        """The next request that may be sent now; None when none may. What it takes is taken until
        ``done``."""
        with self._lock:
            return self._next()

    @property
    def may_have_room(self) -> bool:
        """A look without the lock: whoever makes room while it looks, looks too."""
        return bool(self._turn) and self._in_flight < self._parallel

    def done(self, job: Job, *, succeeded: bool = False) -> None:
        """Gives back what the request took."""
        with self._lock:
            self._give_back(job)
            if succeeded:
                job.lane.pace.succeeded()

    def succeeded(self, job: Job) -> Job | None:
        """Gives back what the request took, which has succeeded, and answers like ``next``."""
        with self._lock:
            self._give_back(job)
            job.lane.pace.succeeded()
            return self._next()

    def put_back(self, job: Job) -> None:
        """It was its turn, but its store is not ready: the lane is closed, and the request is the first of it
        when it opens."""
        with self._lock:
            self._give_back(job)
            for bandwidth in job.lane.bandwidths:
                bandwidth.give_back(job.length)
            job.lane.open = False
            job.lane.jobs.appendleft(job)

    def open(self, lane: Lane) -> None:
        with self._lock:
            lane.open = True
            self._list(lane)

    def drain(self, lane: Lane) -> list[Job]:
        """Takes everything that waits in a lane out of it, and opens it."""
        with self._lock:
            jobs = list(lane.jobs)
            lane.jobs.clear()
            for job in jobs:
                self._cramped.pop(job, None)
            lane.open = True
            return jobs

    def take_all(self) -> list[Job]:
        """Takes out everything that waits."""
        with self._lock:
            taken = [job for lane in self._lanes for job in lane.jobs]
            for lane in self._lanes:
                lane.jobs.clear()
            self._cramped.clear()
            return taken

    def slow_down(self, job: Job, sent_at: float, now: float) -> None:
        with self._lock:
            job.lane.pace.slow_down(sent_at, now)

    def may_retry(self, job: Job) -> bool:
        with self._lock:
            return job.lane.pace.may_retry()

    # --- With the lock held ---------------------------------------------------------------------------

    def _next(self) -> Job | None:
        if self._in_flight >= self._parallel:
            return None
        for _ in range(len(self._turn)):
            lane = self._turn.popleft()
            if not (lane.jobs and lane.open):
                lane.in_turn = False
            elif not lane.pace.has_room():
                lane.in_turn = False
                self._without_room.setdefault(lane.pace, []).append(lane)
            elif lane.bandwidths and self._is_spent(lane):
                lane.in_turn = False
            elif not self._fits(lane.jobs[0]):
                self._turn.append(lane)
            else:
                job = lane.jobs.popleft()
                lane.in_turn = False
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
        if self._cramped:
            self._cramped.pop(job, None)
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
            self._cramped.setdefault(job, time.monotonic())
            return False
        return not self._cramped or self._may_pass(job)

    def _may_pass(self, job: Job) -> bool:
        """A large body passes others that wait for room, unless the first of them has waited too long."""
        patient, since = next(iter(self._cramped.items()))
        return job is patient or time.monotonic() - since < _PATIENCE_SECONDS

    def _is_spent(self, lane: Lane) -> bool:
        """Whether the first of the lane must wait for bandwidth; then the timer puts the lane back in turn.
        What has no bytes waits for none."""
        if not lane.jobs[0].length:
            return False
        for bandwidth in lane.bandwidths:
            seconds = bandwidth.wait()
            if seconds > 0:
                held = self._spent.setdefault(bandwidth, [])
                held.append(lane)
                if len(held) == 1:
                    woken = partial(self._woken, bandwidth)
                    self._timer.after(seconds, woken, woken)
                return True
        return False

    def _woken(self, bandwidth: Allowance) -> None:
        with self._lock:
            for lane in self._spent.pop(bandwidth, ()):
                self._list(lane)
        self._wake()
