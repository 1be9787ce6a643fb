"""A running job: its progress and the handling of its errors."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from xmode_transfer import telemetry
from xmode_transfer.model.errors import ConfigError, LedgerError, VendorIdentityError, XmodeError
from xmode_transfer.model.jobs import Job, JobResult
from xmode_transfer.model.process import Clock, Progress
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context


class Watched:
    """A job's progress: forwards events, and records the time of the last progress and the bytes sent."""

    def __init__(self, progress: Progress, clock: Clock) -> None:
        self._progress = progress
        self._clock = clock
        self._lock = threading.Lock()
        self.moved_at = clock.monotonic()
        self.sent_bytes = 0

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        self._progress.delivery_started(customer, feed, period, objects, total_bytes)

    def bytes_sent(self, count: int) -> None:
        with self._lock:
            self.moved_at = self._clock.monotonic()
            self.sent_bytes += count
        self._progress.bytes_sent(count)

    def bytes_resumed(self, count: int) -> None:
        self._progress.bytes_resumed(count)

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        if outcome == "delivered":
            self.moved_at = self._clock.monotonic()
        self._progress.object_finished(name, size, outcome)

    def delivery_finished(self) -> None:
        self._progress.delivery_finished()


class Slot(Enum):
    """The kind of slot that a job runs in."""

    REGULAR = auto()
    SUSPENDED = auto()  # its customer is suspended
    STALLED = auto()  # started in a regular slot and makes no progress


@dataclass(slots=True, eq=False)
class RunningJob:
    """A job in a slot. ``stop`` ends it where it can be resumed."""

    job: Job
    slot: Slot
    watched: Watched
    began_at: float  # monotonic seconds
    stop: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def beginning(job: Job, slot: Slot, context: Context) -> "RunningJob":
        return RunningJob(job, slot, Watched(context.progress, context.clock), context.clock.monotonic())

    @property
    def customer(self) -> str:
        return self.job.customer


def result_of(
    name: str, deliver: Callable[[], JobResult], context: Context, on_outage: Callable[[XmodeError], object]
) -> JobResult:
    """Run a job and return its result, whatever it raises. ``on_outage`` receives errors that affect all
    customers."""
    try:
        return deliver()
    except (VendorIdentityError, LedgerError) as error:
        on_outage(error)
        return JobResult(again=True)  # queued again, and run after the outage
    except ConfigError as error:
        telemetry.warn(Event.JOB_FAILED, customer=name, **error.log_context())
        return JobResult()
    except XmodeError as error:  # a lease that was taken over: its new holder continues
        telemetry.warn(Event.JOB_FAILED, customer=name, **error.log_context())
        return _later(context, error.message)
    except Exception as error:  # noqa: BLE001 - a defect ends this customer's job, not the process
        telemetry.exception(Event.DEFECT, customer=name)
        return _later(context, f"{type(error).__name__}: {error}")


def _later(context: Context, reason: str) -> JobResult:
    return JobResult(next_at=context.backoff.next_attempt_at(None, context.clock.now()), reason=reason)
