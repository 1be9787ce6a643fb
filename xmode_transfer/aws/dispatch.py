"""The one line that every body passes, whichever engine sends it: limits and bandwidth before it, the retry
of an object after it.

A job waits in its store's lane until it is its turn, without a thread. Then the engine sends it, with retries
of its own for the request. What fails and may pass is begun again later, as ``retrying`` says; meanwhile it
takes up no place among what is in flight, no memory and no bandwidth.
"""

import threading
from concurrent.futures import Future
from functools import partial
from typing import Any

from xmode_transfer.aws.lanes import Job, Lanes
from xmode_transfer.aws.retrying import Attempts, RetryRules, Timer
from xmode_transfer.config import Limits
from xmode_transfer.model.errors import Defect, Interrupted, Throttled, XmodeError
from xmode_transfer.model.process import Clock


class _Here(threading.local):
    is_beginning = False


class Dispatcher:
    """Thread-safe. One for the process."""

    def __init__(
        self, limits: Limits, clock: Clock, stop: threading.Event, rules: RetryRules | None = None
    ) -> None:
        self._clock = clock
        self._stop = stop
        self._rules = rules or RetryRules()
        self._timer = Timer(stop)
        self.lanes = Lanes(limits, self._timer, self.pump, clock)
        self._closed = False
        self._here = _Here()

    def submit(self, job: Job) -> Future[Any]:
        """The job's future; it fails with domain errors only."""
        job.future.set_running_or_notify_cancel()
        # Counted down before the caller's own callbacks run, so that one of them may close the store.
        job.future.add_done_callback(job.lane.ended)
        self._begin_all(self.lanes.enter(job))
        return job.future

    def pump(self) -> None:
        """Begins everything that has room now. What ends at once while something is begun leaves that to
        whoever begins: a long queue must not become a deep stack."""
        if not self._here.is_beginning:
            self._begin_all(self.lanes.next())

    def close(self) -> None:
        """Gives up what still waits. Idempotent."""
        self._closed = True
        self.pump()
        self._timer.close()

    # --- Beginning --------------------------------------------------------------------------------------

    def _begin_all(self, job: Job | None) -> None:
        """Begins this one, and what has room besides."""
        before, self._here.is_beginning = self._here.is_beginning, True
        try:
            while job is not None:
                if self._is_stopping():
                    self.lanes.done(job)
                    self._interrupt(job)
                else:
                    self._begin(job)
                job = self.lanes.next() if self.lanes.may_have_room else None
        finally:
            self._here.is_beginning = before
        if self._is_stopping():
            for waiting in self.lanes.take_all():
                self._interrupt(waiting)

    def _is_stopping(self) -> bool:
        return self._closed or self._stop.is_set()

    def _interrupt(self, job: Job) -> None:
        self._tell(job, Interrupted("we were asked to stop before this was sent"))

    def _begin(self, job: Job) -> None:
        job.sent_at = self._clock.monotonic()
        try:
            job.send().add_done_callback(partial(self._came_back, job))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one who waits for the future
            self.lanes.done(job)
            self._tell(job, error)

    # --- Settling ---------------------------------------------------------------------------------------

    def _came_back(self, job: Job, sent: Future[Any]) -> None:
        error = sent.exception()
        if error is None:
            self.lanes.done(job, succeeded=True)
            self.pump()
            job.future.set_result(sent.result())
            return
        if isinstance(error, Throttled):
            self.lanes.slow_down(job, job.sent_at, self._clock.monotonic())
        self._fail(job, error)

    def _fail(self, job: Job, error: BaseException) -> None:
        """The request has used up its own retries; the object is tried again, or ends. The customer's budget
        holds for both: when nothing works, the load must not multiply."""
        self.lanes.done(job)
        pause = None
        passing = isinstance(error, XmodeError) and error.retryable
        if passing and job.is_retried and not self._is_stopping() and self.lanes.may_retry(job):
            job.retries = job.retries or Attempts(self._rules, job.operation, job.key)
            pause = job.lane.logged(job.retries.pause_after, error)
        if pause is None:
            self.pump()
            self._tell(job, error)
            return
        job.start_over()
        self._timer.after(pause, partial(self._enqueue, job), partial(self._tell, job, error))
        self.pump()

    def _enqueue(self, job: Job) -> None:
        self.lanes.add(job, first=True)
        self.pump()

    def _tell(self, job: Job, error: BaseException) -> None:
        if not isinstance(error, XmodeError):
            error = Defect(
                f"{job.attempt}: {type(error).__name__}: {error}",
                hint="this is a mistake in xmode-transfer; report it with the log",
            )
        job.future.set_exception(error)
