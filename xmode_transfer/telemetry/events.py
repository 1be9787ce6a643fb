"""The vocabulary of the log: every event that we write, each with its meaning. docs/events.md is made from
it."""

from enum import StrEnum


class Event(StrEnum):
    """A stable name for programs that read the log; ``meaning`` says it for people."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> "Event":
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member

    RUN_STARTED = "run.started", "a run looks for what is due for a customer"
    RUN_FINISHED = "run.finished", "one line for the whole run: outcome, counts, bytes, seconds"

    DELIVERY_STARTED = "delivery.started", "the plan is recorded and sending begins"
    DELIVERY_FINISHED = (
        "delivery.finished",
        "one line for the whole delivery: outcome, counts, bytes, seconds, cause",
    )
    DELIVERY_STILL_BLOCKED = (
        "delivery.still_blocked",
        "a blocked delivery was retried: the customer still denies access",
    )

    OBJECT_DELIVERED = "object.delivered", "one object has its receipt (debug)"
    OBJECT_FAILED = "object.failed", "one object failed; the others go on"
    OBJECT_GONE = (
        "object.gone",
        "a delivered object is missing or changed in the bucket: it is sent again, or left out",
    )
    LISTING_REFUSED = (
        "listing.refused",
        "the role may not list the period's keys; each object is checked by itself",
    )
    OBJECT_RETRIED = "object.retried", "one object is sent again after a transient failure"

    SOURCE_PROBLEM = "source.problem", "a file cannot be delivered as it is; the reason is in the line"
    SOURCE_FAILED = "source.failed", "a feed's files, or some of its periods, cannot be listed or read"

    SESSION_OPENED = "session.opened", "a customer's role was assumed for one step"
    SESSION_REFUSED = "session.refused", "a customer's role cannot be assumed; likely causes are in the line"
    CREDENTIALS_REPLACED = (
        "credentials.replaced",
        "our access key was refused, and a new one was found in its place",
    )

    ACCESS_CHECKED = "access.checked", "one line for a whole check of a customer's access: outcome and causes"
    ACCESS_CHANGED = "access.changed", "a probe of the access gave another result than last time"

    CUSTOMER_ONBOARDED = (
        "customer.onboarded",
        "a sign-up was accepted: the customer is pending and has its setup kit",
    )
    CUSTOMER_CONFIRMED = "customer.confirmed", "the access is verified: the customer is active"
    CUSTOMER_NOT_CONFIRMED = (
        "customer.not_confirmed",
        "the access is not as required: the customer stays pending",
    )
    CUSTOMER_CONFIRMED_ANYWAY = (
        "customer.confirmed_anyway",
        "a person activated the customer despite findings; the reason is in the line",
    )

    CLEANUP_STARTED = "cleanup.started", "a cleanup looks for a customer's expired objects"
    CLEANUP_UNCONFIRMED = (
        "cleanup.unconfirmed",
        "nothing was deleted: a person has to confirm this cleanup; the reason is in the line",
    )
    CLEANUP_FINISHED = (
        "cleanup.finished",
        "one line for the whole cleanup: outcome, deleted, hidden, retained and changed objects, bytes",
    )
    SUPERSEDED_REMOVED = (
        "superseded.removed",
        "keys of an unpublished revision were deleted after its successor; one line by outcome",
    )
    SUPERSEDED_KEPT = (
        "superseded.kept",
        "keys of an unpublished revision could not be deleted; a later run or cleanup tries again",
    )
    REMOVAL_REFUSED = (
        "removal.refused",
        "an expired object stays: the bucket refuses to delete it, or somebody changed it",
    )

    MULTIPART_REFUSED = (
        "multipart.refused",
        "the destination refuses multipart uploads; files up to 5 GiB are sent in one request",
    )
    MULTIPART_NOT_ABORTED = (
        "multipart.not_aborted",
        "an upload could not be aborted this time; it is tried again",
    )
    MULTIPART_ORPHANED = (
        "multipart.orphaned",
        "we may not abort an upload: only the customer's lifecycle rule removes its parts",
    )

    VERIFY_STARTED = "verify.started", "a customer's destination is being compared with the ledger"
    VERIFY_FOUND = (
        "verify.found",
        "a key is not as it was delivered: which, how, who is responsible (the first hundred)",
    )
    VERIFY_FINISHED = "verify.finished", "one line for the whole verification: outcome, counts, seconds"
    MANIFEST_UNSIGNED = (
        "manifest.unsigned",
        "the key that signs manifests cannot be read: manifests go out unsigned",
    )
    RECEIPT_SIGNED = "receipt.signed", "the result of a verification was written to a file and signed"
    REPAIR_FINISHED = "repair.finished", "one line for a repair: what was delivered again, and what was not"
    ADOPT_FINISHED = "adopt.finished", "one line for an adoption: what was restored to the ledger"
    DELIVERY_ADOPTED = (
        "delivery.adopted",
        "a delivery known only from its manifest is in the ledger again; each object was verified",
    )

    DAEMON_STARTED = "daemon.started", "the daemon runs: version, customers, slots"
    DAEMON_STOPPING = "daemon.stopping", "the daemon was asked to stop: nothing new begins"
    DAEMON_STOPPED = "daemon.stopped", "the daemon has stopped; interrupted work resumes at the next start"
    WORKER_STARTED = "worker.started", "a worker of a fleet runs: version, customers, slots"
    WORKER_STOPPING = "worker.stopping", "the worker was asked to stop: it takes no more jobs"
    WORKER_STOPPED = "worker.stopped", "the worker has stopped; interrupted work resumes elsewhere"
    CLOCK_SET_BACK = (
        "clock.set_back",
        "this machine's clock was set back: the schedule is counted anew from now",
    )
    DOWNTIME_ENDED = "downtime.ended", "no daemon ran for a while; what was missed is caught up"
    PERIOD_SKIPPED = (
        "period.skipped",
        "a period is not caught up after a downtime, as the customer's catch_up says",
    )
    OUTAGE_BEGAN = "outage.began", "a problem of our own stops all customers: logged once, not for each"
    OUTAGE_RECOVERED = "outage.recovered", "the problem is over: deliveries go on"
    CUSTOMER_SUSPENDED = (
        "customer.suspended",
        "the customer refused us or does not answer: its deliveries wait and are retried",
    )
    CUSTOMER_RESUMED = "customer.resumed", "deliveries to the customer go on, oldest period first"
    JOB_STALLED = "job.stalled", "a delivery makes no progress and gave its slot to others (debug)"
    JOB_REASSIGNED = "job.reassigned", "a customer's worker is gone: another one takes its job"
    JOB_HELD = "job.held", "no daemon ticks: one must first decide what `catch_up` catches up"
    WORKERS_MISSING = "workers.missing", "customers are due, and no worker is running"
    SHUTDOWN_NOT_RECORDED = "shutdown.not_recorded", "the ledger could not be told that a process ended"
    MAINTENANCE_ELECTED = (
        "maintenance.elected",
        "of several daemons, this one does cleanups and access checks from now on",
    )
    JOB_FAILED = "job.failed", "a customer's job ended without a delivery; the reason is in the line"
    MAINTENANCE_FAILED = "maintenance.failed", "a cleanup or an access check could not begin"
    TICK_FAILED = "tick.failed", "a look at who is due was cut short; the next one is soon"
    WATCH_FAILED = "watch.failed", "health could not be computed, or an alert not processed, this time"
    CONFIGURATION_RELOADED = "configuration.reloaded", "the files were read again and are in use"
    CONFIGURATION_INVALID = (
        "configuration.invalid",
        "files have mistakes: the previous configuration stays in use; the lines are in the event",
    )
    CONFIGURATION_FIXED = "configuration.fixed", "no file has a mistake any more"
    CONFIGURATION_NEEDS_RESTART = (
        "configuration.needs_restart",
        "these keys of service.yaml changed and take effect at the next start",
    )
    CONFIGURATION_NOT_WATCHED = (
        "configuration.not_watched",
        "changes of files are not noticed automatically here; send SIGHUP to reload",
    )

    LEASE_LOST = "lease.lost", "another process took over our work; we write nothing more"
    LEASE_NOT_RENEWED = "lease.not_renewed", "the lease could not be renewed this time; it is tried again"

    ALERT_OPENED = "alert.opened", "something needs attention: one line for each cause"
    ALERT_RESOLVED = "alert.resolved", "the cause of an alert is gone"
    ALERT_SENT = "alert.sent", "a channel accepted a message"
    ALERT_NOT_SENT = "alert.not_sent", "a channel did not accept a message; it is tried again"
    ALERTS_NOT_RECORDED = (
        "alerts.not_recorded",
        "the ledger does not accept the state of alerts: it is kept in memory until it does",
    )
    NOTICE_PUT = (
        "notice.put",
        "a notice of a late, paused or corrected delivery was put into the customer's bucket",
    )
    NOTICE_NOT_PUT = (
        "notice.not_put",
        "a notice could not be put into the customer's bucket; it is tried again",
    )
    NOTICES_FAILED = "notices.failed", "notices to customers could not be processed this time"
    HEARTBEAT_FAILED = "heartbeat.failed", "the heartbeat was not accepted; the next one is tried in time"

    ENGINE_CHOSEN = "engine.chosen", "which transfer engine runs, and why"
    LEDGER_MIGRATED = "ledger.migrated", "the ledger's tables were migrated"
    LEDGER_UNAVAILABLE = (
        "ledger.unavailable",
        "the database server does not answer: all work waits for it; logged once",
    )
    LEDGER_RECOVERED = "ledger.recovered", "the database server answers again, and the work goes on"

    METRICS_INCOMPLETE = (
        "metrics.incomplete",
        "the ledger could not be evaluated for a scrape, which has only what is known without it",
    )
    PAGE_STARTED = "page.started", "the status page is served at this address"

    DEFECT = "defect", "a defect of this program, with its traceback; please report it"
