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

    RUN_STARTED = "run.started", "a customer's feeds are being looked at for what is due"
    RUN_FINISHED = "run.finished", "one line for the whole run: outcome, counts, bytes, seconds"

    DELIVERY_STARTED = "delivery.started", "the plan is recorded and the first object is about to be sent"
    DELIVERY_FINISHED = (
        "delivery.finished",
        "one line for the whole delivery: outcome, counts, bytes, seconds, cause",
    )
    DELIVERY_STILL_REFUSED = (
        "delivery.still_refused",
        "a blocked delivery was tried again: the customer does not let us in yet",
    )

    OBJECT_DELIVERED = "object.delivered", "one object has its receipt (debug)"
    OBJECT_FAILED = "object.failed", "one object did not get through; the others go on"
    OBJECT_GONE = (
        "object.gone",
        "an object that was delivered is not in the bucket as we put it: it is sent again, or left out",
    )
    LISTING_REFUSED = (
        "listing.refused",
        "the role may not list the period's keys; each object is looked at by itself",
    )
    OBJECT_RETRIED = "object.retried", "one object is sent once more after a passing failure"

    SOURCE_PROBLEM = "source.problem", "a file that cannot be delivered as it is, and why"
    SOURCE_FAILED = (
        "source.failed",
        "a feed's files cannot be listed or read at all, or some of its periods cannot",
    )

    SESSION_OPENED = "session.opened", "a customer's role was assumed for one step"
    SESSION_REFUSED = "session.refused", "a customer's role cannot be assumed; the causes are in the line"
    KEYS_REPLACED = "keys.replaced", "our access key was refused, and another one was found in its place"

    ACCESS_CHECKED = "access.checked", "one line for a whole check of a customer's access: outcome and causes"
    ACCESS_CHANGED = "access.changed", "a probe of the access ended otherwise than the last time"

    CUSTOMER_ONBOARDED = "customer.onboarded", "a sign-up was taken: the customer is pending and has its kit"
    CUSTOMER_CONFIRMED = "customer.confirmed", "the access is as it should be: the customer is turned on"
    CUSTOMER_NOT_CONFIRMED = (
        "customer.not_confirmed",
        "somebody must act first: the customer is not turned on",
    )
    CUSTOMER_CONFIRMED_ANYWAY = (
        "customer.confirmed_anyway",
        "a person turned the customer on in spite of the findings; the reason is in the line",
    )

    CLEANUP_STARTED = "cleanup.started", "a customer's expired objects are being looked for"
    CLEANUP_UNCONFIRMED = (
        "cleanup.unconfirmed",
        "nothing was removed: a person has to confirm this cleanup; why is in the line",
    )
    CLEANUP_FINISHED = (
        "cleanup.finished",
        "one line for the whole cleanup: outcome, removed, hidden, retained and changed objects, bytes",
    )
    SUPERSEDED_REMOVED = (
        "superseded.removed",
        "keys of a revision that was never published were removed after its successor: one line, by outcome",
    )
    SUPERSEDED_KEPT = (
        "superseded.kept",
        "keys of a revision that was never published could not be removed; a later run or cleanup does",
    )
    REMOVAL_REFUSED = (
        "removal.refused",
        "an expired object stays: the bucket does not let it go, or somebody has changed it",
    )

    MULTIPART_REFUSED = (
        "multipart.refused",
        "the destination takes no parts; files up to 5 GiB are sent whole",
    )
    MULTIPART_NOT_ABORTED = (
        "multipart.not_aborted",
        "an upload could not be ended this time; it is tried again",
    )
    MULTIPART_LEFT_BEHIND = (
        "multipart.left_behind",
        "we may not end an upload: only the customer's lifecycle rule cleans its parts up",
    )

    VERIFY_STARTED = "verify.started", "a customer's destination is being compared with the ledger"
    VERIFY_FOUND = (
        "verify.found",
        "a key is not as it was delivered: which, how, who must act (the first hundred)",
    )
    VERIFY_FINISHED = "verify.finished", "one line for the whole verification: outcome, counts, seconds"
    MANIFEST_UNSIGNED = (
        "manifest.unsigned",
        "the key that signs manifests cannot be read: deliveries go on, and their manifests are not signed",
    )
    RECEIPT_SIGNED = "receipt.signed", "what a verification found was written to a file and signed"
    REPAIR_FINISHED = "repair.finished", "one line for a repair: what was delivered again, and what was not"
    ADOPT_FINISHED = "adopt.finished", "one line for an adoption: what was taken back into the ledger"
    DELIVERY_ADOPTED = (
        "delivery.adopted",
        "a delivery that only its manifest knew is in the ledger again, its objects proven one by one",
    )

    DAEMON_STARTED = "daemon.started", "the daemon works: version, customers, workers"
    DAEMON_STOPPING = "daemon.stopping", "the daemon was asked to end: nothing begins any more"
    DAEMON_STOPPED = "daemon.stopped", "the daemon has ended; what was cut short goes on at the next start"
    WORKER_STARTED = "worker.started", "a worker of a fleet works: version, customers, places"
    WORKER_STOPPING = "worker.stopping", "the worker was asked to end: it takes no turn any more"
    WORKER_STOPPED = "worker.stopped", "the worker has ended; what was cut short goes on elsewhere"
    CLOCK_SET_BACK = "clock.set_back", "this machine's clock was set back: ticks are counted anew from now"
    OUTAGE_ENDED = "outage.ended", "no daemon worked for a while; what was missed is made up for"
    PERIOD_PASSED_OVER = (
        "period.passed_over",
        "a period is not made up for after an outage, as the customer's catch_up says",
    )
    TROUBLE_BEGAN = "trouble.began", "something of ours stops all customers: told once, not by each"
    TROUBLE_ENDED = "trouble.ended", "it is over: deliveries go on"
    CUSTOMER_BROKEN_OFF = (
        "customer.broken_off",
        "the customer was refused or does not answer: its deliveries wait and are tried again by themselves",
    )
    CUSTOMER_RESUMED = "customer.resumed", "the customer is delivered to again, oldest period first"
    TURN_STALLED = "turn.stalled", "a delivery makes no progress and gave its place to others (debug)"
    TURN_TAKEN_OVER = "turn.taken_over", "a customer's worker is gone: its turn goes on with another"
    TURN_HELD = "turn.held", "no daemon ticks: one must first say what `catch_up` makes up for"
    WORKERS_MISSING = "workers.missing", "customers are due, and no worker lives that would take their turns"
    END_NOT_NOTED = "end.not_noted", "the ledger could not be told of a process's end: it falls silent"
    HOUSE_TAKEN = "house.taken", "of several daemons, this one cleans up and checks access from now on"
    TURN_FAILED = "turn.failed", "a customer's turn ended without a delivery; the reason is in the line"
    HOUSEKEEPING_FAILED = "housekeeping.failed", "a cleanup or an access check could not begin"
    TICK_FAILED = "tick.failed", "a look at who is due was cut short; the next one is soon"
    WATCH_FAILED = "watch.failed", "health could not be computed this time, or an alert not be handled"
    CONFIGURATION_RELOADED = "configuration.reloaded", "the files were read again and are in use"
    CONFIGURATION_BROKEN = (
        "configuration.broken",
        "files have mistakes: what was in order before stays in use; the lines are in the event",
    )
    CONFIGURATION_MENDED = "configuration.mended", "no file has a mistake any more"
    CONFIGURATION_NEEDS_RESTART = (
        "configuration.needs_restart",
        "these keys of service.yaml changed and are taken over at the next start only",
    )
    CONFIGURATION_NOT_WATCHED = (
        "configuration.not_watched",
        "changes of files are not noticed by themselves here; SIGHUP reads them",
    )

    LEASE_LOST = "lease.lost", "another process has taken our work over; we write nothing more"
    LEASE_NOT_RENEWED = "lease.not_renewed", "the lease could not be prolonged this time; it is tried again"

    ALERT_OPENED = "alert.opened", "something is wrong that somebody must act on: one line a cause"
    ALERT_RESOLVED = "alert.resolved", "what an alert was opened for is well again"
    ALERT_SENT = "alert.sent", "a channel took a message"
    ALERT_NOT_SENT = "alert.not_sent", "a channel did not take a message; it is tried again"
    ALERTS_NOT_RECORDED = (
        "alerts.not_recorded",
        "the ledger does not take what became of alerts: it is kept in memory until it does",
    )
    NOTICE_PUT = "notice.put", "a customer was told of a late, paused or corrected delivery, in its bucket"
    NOTICE_NOT_PUT = (
        "notice.not_put",
        "a notice for a customer did not get into its bucket; it is tried again",
    )
    NOTICES_FAILED = "notices.failed", "what there is to tell customers could not be seen to this time"
    HEARTBEAT_FAILED = "heartbeat.failed", "the heartbeat did not get through; the next one is tried in time"

    ENGINE_CHOSEN = "engine.chosen", "which transfer engine runs, and why"
    LEDGER_MIGRATED = "ledger.migrated", "the ledger's tables were brought up to date"
    LEDGER_AWAY = "ledger.away", "the database server does not answer: everybody waits for it, told once"
    LEDGER_BACK = "ledger.back", "the database server answers again, and the work goes on"

    METRICS_INCOMPLETE = (
        "metrics.incomplete",
        "the ledger could not be evaluated for a scrape, which then has only what is known without it",
    )
    PAGE_STARTED = "page.started", "the status page is being served at this address"

    DEFECT = "defect", "a mistake of this program, with its traceback; please report it"
