"""The log: named events with fields, one line each, with every secret masked. Events go through the standard
``logging``, so lines of libraries have the same form and redaction."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from enum import Enum, unique
from typing import ParamSpec, TextIO, TypeVar

from xmode_transfer.telemetry.rendering import (
    NEVER_BELOW_INFO,
    OURS,
    QUIET,
    LineHandler,
    context,
    protect,
    redact,
    redact_text,
)


@unique
class Event(Enum):
    """``RUN_STARTED`` is ``run.started`` in the log: a stable name, for programs that read it."""

    def __str__(self) -> str:
        return self.name.lower().replace("_", ".", 1)

    RUN_STARTED = "a run scans for due periods of a customer"
    RUN_FINISHED = "one line for the whole run: outcome, counts, bytes, seconds"

    DELIVERY_STARTED = "the plan is recorded and sending begins"
    DELIVERY_FINISHED = "one line for the whole delivery: outcome, counts, bytes, seconds, cause"
    DELIVERY_STILL_BLOCKED = "a blocked delivery was retried: the customer still denies access"

    OBJECT_DELIVERED = "one object has its receipt (debug)"
    OBJECT_FAILED = "one object failed; the others go on"
    OBJECT_GONE = "a delivered object is missing or changed in the bucket: it is sent again, or left out"
    TABLE_NOT_CHECKPOINTED = "a table's checkpoint or its hint could not be written; the next commit retries"
    LISTING_REFUSED = "the role may not list the period's keys; each object is checked by itself"
    OBJECT_RETRIED = "one object is sent again after a transient failure"

    SOURCE_PROBLEM = "a file cannot be delivered as it is; the reason is in the line"
    SOURCE_FAILED = "a feed's files, or some of its periods, cannot be listed or read"

    PERIOD_QUARANTINED = (
        "a check before release failed: nothing of the period, or file, is sent; which, and figures"
    )
    PERIOD_WARNED = "a check before release failed, and the feed's `on_failure` only warns: it is delivered"
    PERIOD_RELEASED = "a person released what was quarantined: it is delivered as it is"
    PERIOD_REJECTED = "a person rejected what was quarantined: it is never delivered as it is"

    SESSION_OPENED = "a customer's role was assumed for one step"
    SESSION_REFUSED = "a customer's role cannot be assumed; likely causes are in the line"
    CREDENTIALS_REPLACED = "our access key was refused, and a new one replaced it"

    ACCESS_CHECKED = "one line for a whole check of a customer's access: outcome and causes"
    ACCESS_CHANGED = "a probe of the access gave another result than last time"

    CUSTOMER_ONBOARDED = "a sign-up was accepted: the customer is pending and has its setup kit"
    CUSTOMER_CONFIRMED = "the access is verified: the customer is active"
    CUSTOMER_NOT_CONFIRMED = "the access is not as required: the customer stays pending"
    ONBOARDING_CHALLENGED = "a token was put into a customer's bucket, for its owner to return"
    ONBOARDING_PROVEN = "the token was returned: the customer can read the bucket"
    ONBOARDING_WRONG_TOKEN = "another token was given; the line has the tries left"
    ONBOARDING_TOKEN_LEFT = "a token could not be deleted; it is worthless, and a later check deletes it"
    CUSTOMER_CONFIRMED_ANYWAY = "a person activated the customer despite findings; the reason is in the line"

    CLEANUP_STARTED = "a cleanup of a customer's expired objects begins"
    CLEANUP_UNCONFIRMED = "nothing was deleted: a person has to confirm this cleanup; the line has the reason"
    CLEANUP_FINISHED = "one line for the whole cleanup: outcome, bytes, and objects by what became of them"
    SUPERSEDED_REMOVED = "keys of an unpublished revision were deleted after its successor; a line by outcome"
    SUPERSEDED_KEPT = "keys of an unpublished revision could not be deleted; a later run or cleanup retries"
    REMOVAL_REFUSED = "an expired object stays: the bucket refuses to delete it, or it was changed"

    MULTIPART_REFUSED = "the destination refuses multipart uploads; files up to 5 GiB are sent in one request"
    MULTIPART_NOT_ABORTED = "an upload could not be aborted this time; it is tried again"
    MULTIPART_ORPHANED = "we may not abort an upload: only the customer's lifecycle rule removes its parts"

    VERIFY_STARTED = "a customer's destination is being compared with the ledger"
    VERIFY_FOUND = "a key is not as it was delivered: which, how, who is responsible (the first hundred)"
    VERIFY_FINISHED = "one line for the whole verification: outcome, counts, seconds"
    MANIFEST_UNSIGNED = "the key that signs manifests cannot be read: manifests go out unsigned"
    RECEIPT_SIGNED = "the result of a verification was written to a file and signed"
    RECALL_RESTORED = "the file of recalls has a recall that the ledger lacked; it is carried out again"
    RECALL_INCOMPLETE = "the file of recalls ends with a recall that was killed before it began: dropped"
    RECALLS_NOT_WRITTEN = (
        "recalls of the ledger could not be added to the file of recalls; the next start does"
    )
    REPAIR_FINISHED = "one line for a repair: what was delivered again, and what was not"
    ADOPT_FINISHED = "one line for an adoption: what was restored to the ledger"
    RECALL_CARRIED_OUT = "what a recall has done so far for one customer: state, and keys by outcome"
    DELIVERY_ADOPTED = "a delivery known only from its manifest is in the ledger again, its objects verified"

    TABLE_COMMITTED = "a delivery or a removal is a new version of the feed's table"
    TABLE_MISSING = (
        "a feed with `table: delta` and earlier deliveries has no table yet; the line has the command"
    )
    TABLE_ENDED = "a table's log was deleted, as far as it is as we put it; the data stay"
    TABLE_NOT_OURS = "an adoption found a table's log below the feed's folder that is not ours"

    DAEMON_STARTED = "the daemon runs: version, customers, slots"
    DAEMON_STOPPING = "the daemon was asked to stop: nothing new begins"
    DAEMON_STOPPED = "the daemon has stopped; interrupted work resumes at the next start"
    WORKER_STARTED = "a worker of a fleet runs: version, customers, slots"
    WORKER_STOPPING = "the worker was asked to stop: it takes no more jobs"
    WORKER_STOPPED = "the worker has stopped; interrupted work resumes elsewhere"
    CLOCK_SET_BACK = "this machine's clock was set back: the schedule is counted anew from now"
    DOWNTIME_ENDED = "no daemon ran for a while; what was missed is caught up"
    PERIOD_SKIPPED = "a period is not caught up after a downtime, as the customer's catch_up says"
    OUTAGE_BEGAN = "a problem of our own stops all customers: logged once, not for each"
    OUTAGE_RECOVERED = "the problem is over: deliveries go on"
    CUSTOMER_SUSPENDED = "the customer refused us or does not answer: its deliveries wait and are retried"
    CUSTOMER_RESUMED = "deliveries to the customer go on, oldest period first"
    JOB_STALLED = "a delivery makes no progress and gave its slot to others (debug)"
    JOB_REASSIGNED = "a customer's worker is gone: another one takes its job"
    JOB_HELD = "no daemon ticks: one must first decide what `catch_up` catches up"
    WORKERS_MISSING = "customers are due, and no worker is running"
    SHUTDOWN_NOT_RECORDED = "the end of a process could not be recorded in the ledger"
    MAINTENANCE_ELECTED = "of several daemons, this one does cleanups and access checks from now on"
    JOB_FAILED = "a customer's job ended without a delivery; the reason is in the line"
    MAINTENANCE_FAILED = "a cleanup, an access check or a recall could not begin"
    TICK_FAILED = "a scan for due customers was cut short; the next one is soon"
    WATCH_FAILED = "health could not be computed, or an alert not processed, this time"
    CONFIGURATION_RELOADED = "the files were read again and are in use"
    CONFIGURATION_INVALID = "files have mistakes, listed in the event: the previous version stays in use"
    CONFIGURATION_FIXED = "no file has a mistake any more"
    CONFIGURATION_NEEDS_RESTART = "these keys of service.yaml changed and take effect at the next start"
    CONFIGURATION_NOT_WATCHED = "changes of files are not noticed automatically here; send SIGHUP to reload"

    LEASE_LOST = "another process took over our work; we write nothing more"
    LEASE_NOT_RENEWED = "the lease could not be renewed this time; it is tried again"

    ALERT_OPENED = "something needs attention: one line for each cause"
    ALERT_RESOLVED = "the cause of an alert is gone"
    ALERT_SENT = "a channel accepted a message"
    ALERT_NOT_SENT = "a channel did not accept a message; it is tried again"
    ALERTS_NOT_RECORDED = "the ledger does not accept the state of alerts: it is kept in memory until it does"
    NOTICE_PUT = (
        "a notice of a late, paused, corrected or withdrawn delivery was put into the customer's bucket"
    )
    NOTICE_NOT_PUT = "a notice could not be put into the customer's bucket; it is tried again"
    NOTICES_FAILED = "notices to customers could not be processed this time"
    HEARTBEAT_FAILED = "the heartbeat was not accepted; the next one is tried in time"

    ENGINE_CHOSEN = "which transfer engine runs, and why"
    LEDGER_MIGRATED = "the ledger's tables were migrated"
    LEDGER_UNAVAILABLE = "the database server does not answer: all work waits for it; logged once"
    LEDGER_RECOVERED = "the database server answers again, and the work goes on"

    METRICS_INCOMPLETE = "the ledger could not be evaluated for a scrape, which therefore lacks its metrics"
    PAGE_STARTED = "the status page is served at this address"

    DEFECT = "a defect of this program, with its traceback; please report it"


_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

_logger = logging.getLogger(OURS)
# Without ``configure``, logging's last resort shows warnings and errors.


def configure(
    stream: TextIO | None = None,
    json: bool | None = None,
    level: str | int = logging.INFO,
    colours: bool | None = None,
) -> None:
    """Send the log to ``stream`` (default: stderr). By default, a terminal gets text with colours, and
    anything else JSON. A further call replaces the previous one. Raises ValueError for an unknown level."""
    target = stream if stream is not None else sys.stderr
    as_json = json if json is not None else not target.isatty()
    root = logging.getLogger()
    root.setLevel(level)
    for handler in [known for known in root.handlers if isinstance(known, LineHandler)]:
        root.removeHandler(handler)
    root.addHandler(LineHandler(target, json=as_json, colours=colours))
    for name in (*NEVER_BELOW_INFO, *QUIET):
        lowest = logging.INFO if root.level <= logging.DEBUG else logging.WARNING
        logging.getLogger(name).setLevel(max(lowest, root.level))
    logging.captureWarnings(True)
    protect(*(os.environ.get(name, "") for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")))


def debug(event: Event | str, /, **fields: object) -> None:
    _write(logging.DEBUG, event, fields)


def log(event: Event | str, /, **fields: object) -> None:
    _write(logging.INFO, event, fields)


def warn(event: Event | str, /, **fields: object) -> None:
    """Log a problem that the program handles."""
    _write(logging.WARNING, event, fields)


def error(event: Event | str, /, **fields: object) -> None:
    """Log a problem that needs a person."""
    _write(logging.ERROR, event, fields)


def exception(event: Event | str, /, **fields: object) -> None:
    """Log an error with the current traceback."""
    _write(logging.ERROR, event, fields, with_traceback=True)


@contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Add fields to every line that this thread or task writes inside."""
    token = context.set({**context.get(), **fields})
    try:
        yield
    finally:
        context.reset(token)


def carry(function: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """Return the function with the fields that are bound here, for other threads."""
    here = copy_context()

    def carried(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
        return here.copy().run(function, *args, **kwargs)  # a context can only be entered once at a time

    return carried


def _write(
    level: int, event: Event | str, fields: dict[str, object], *, with_traceback: bool = False
) -> None:
    if _logger.isEnabledFor(level):
        # As an argument, the event may contain a %.
        _logger.log(level, "%s", str(event), exc_info=with_traceback, extra={"xmode_fields": fields})


class SystemClock:
    """The clock of the system; implements ``model.process.Clock``."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - the only place that may

    def monotonic(self) -> float:
        return time.monotonic()
