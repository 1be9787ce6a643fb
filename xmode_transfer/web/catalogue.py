"""Every metric with its help text and labels (docs/metrics.md). Names, units and labels are public."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True)
class Described:
    """One metric, by its name as Prometheus stores it."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        return self.name.endswith("_total")

    def metric(self, samples: float | Mapping[Any, float]) -> Metric:
        """``samples`` is the value, or a value for each label (a tuple if there are several)."""
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        family = kind(self.name.removesuffix("_total"), self.help, labels=self.labels)
        for labels, value in samples.items() if isinstance(samples, Mapping) else [((), samples)]:
            family.add_metric((labels,) if isinstance(labels, str) else labels, value)
        return family


_SUBSCRIPTION = ("customer", "feed")

BUILD_INFO = Described("xmode_build_info", "Always 1; the label is the running version.", ("version",))
ASSESSED = Described("xmode_assessed_timestamp_seconds", "When the ledger was last evaluated.")
LEDGER_READABLE = Described("xmode_ledger_readable", "1 while the ledger can be evaluated, else 0.")
LEDGER_FREE = Described("xmode_ledger_free_bytes", "Free space on the ledger's disk.")
LEDGER_USED = Described("xmode_ledger_used_bytes", "Space that the ledger uses.")
CUSTOMERS = Described("xmode_customers", "Customers by health.", ("health",))
UNHEALTHY = Described(
    "xmode_customers_unhealthy",
    "Customers whose deliveries do not work, by health and cause.",
    ("health", "cause", "responsible"),
)
WARNINGS = Described(
    "xmode_customers_with_warnings",
    "Customers with a warning that stops no delivery yet, by cause.",
    ("cause", "responsible"),
)
SERVICE_ISSUES = Described(
    "xmode_service_issues", "1 for each issue of the service as a whole.", ("cause", "responsible")
)
ALERTS_OPEN = Described("xmode_alerts_open", "Open alerts by cause.", ("cause",))
ORPHANED = Described(
    "xmode_orphaned_upload_bytes", "Parts of orphaned uploads that the roles may not abort, in all buckets."
)
BACKLOG = Described("xmode_backlog_bytes", "Bytes of planned deliveries that have no receipt yet.")
WORK = Described(
    "xmode_work_bytes",
    "Bytes that workers could send now: the backlog of customers that are not blocked or failing, and an "
    "estimate for due periods.",
)
WORK_OLDEST = Described("xmode_work_oldest_seconds", "How long the oldest of that work has waited.")
QUARANTINED = Described(
    "xmode_quarantined_periods", "Quarantined periods, or files of a drop folder, by feed.", ("feed",)
)
PERIODS_DUE = Described("xmode_periods_due", "Complete periods that are due, of all active customers.")

CUSTOMER_HEALTH = Described(
    "xmode_customer_health", "Always 1; the customer's health is the label.", ("customer", "health")
)
CUSTOMER_ORPHANED = Described(
    "xmode_customer_orphaned_upload_bytes", "Parts of orphaned uploads, if there are any.", ("customer",)
)
DELIVERED = Described(
    "xmode_subscription_delivered_timestamp_seconds",
    "When the newest period was delivered.",
    _SUBSCRIPTION,
)
FRESHNESS = Described(
    "xmode_subscription_freshness_seconds",
    "Age of the customer's newest data: time since the end of the newest delivered period.",
    _SUBSCRIPTION,
)
FRESH_UNTIL = Described(
    "xmode_subscription_fresh_until_timestamp_seconds",
    "Deadline for the delivery of the next period.",
    _SUBSCRIPTION,
)
DELIVERED_BYTES = Described(
    "xmode_subscription_delivered_bytes", "Size of the newest delivery.", _SUBSCRIPTION
)
SUBSCRIPTION_DUE = Described(
    "xmode_subscription_periods_due", "Complete periods that are due, if there are any.", _SUBSCRIPTION
)
SUBSCRIPTION_OPEN = Described(
    "xmode_subscription_deliveries_open", "Unfinished deliveries, if there are any.", _SUBSCRIPTION
)
SUBSCRIPTION_BACKLOG = Described(
    "xmode_subscription_backlog_bytes",
    "Bytes that unfinished deliveries have left to send, if known.",
    _SUBSCRIPTION,
)

STARTED = Described("xmode_daemon_started_timestamp_seconds", "When this daemon started.")
TICKED = Described("xmode_daemon_ticked_timestamp_seconds", "When this daemon last ticked.")
STOPPING = Described("xmode_daemon_stopping", "1 while the daemon finishes running jobs to stop, else 0.")
SLOTS = Described("xmode_daemon_slots", "Slots: the number of customers that can be delivered to at once.")
SLOTS_BUSY = Described("xmode_daemon_slots_busy", "Slots in use: deliveries in flight.")
QUEUE_STATES = Described(
    "xmode_daemon_customers", "Active customers by their state in the queue.", ("state",)
)
CONFIGURATION_LOADED = Described(
    "xmode_configuration_loaded_timestamp_seconds", "When the configuration in use was read."
)
CONFIGURATION_PROBLEMS = Described("xmode_configuration_problems", "Errors in the files on disk now.")

FLEET_CUSTOMERS = Described(
    "xmode_fleet_customers", "Customers by their state in the queue of the whole fleet.", ("state",)
)
FLEET_OLDEST = Described(
    "xmode_fleet_queued_oldest_seconds",
    "How long the first customer in the queue has waited, not counting suspended ones.",
)
FLEET_WORKERS = Described("xmode_fleet_workers", "Worker processes by state.", ("state",))
FLEET_SLOTS = Described("xmode_fleet_slots", "Number of jobs that the running workers can take at once.")
FLEET_BUSY = Described("xmode_fleet_slots_busy", "Number of these slots in use.")
FLEET_STALLED = Described(
    "xmode_fleet_jobs_stalled", "Jobs that make no progress and wait outside the workers' slots."
)

OBJECTS = Described("xmode_objects_total", "Objects that this process finished, by outcome.", ("outcome",))
OBJECT_BYTES = Described(
    "xmode_object_bytes_total", "Bytes of the objects that this process finished, by outcome.", ("outcome",)
)
DELIVERIES_STARTED = Described(
    "xmode_deliveries_started_total", "Deliveries and cleanups that this process started."
)

CATALOGUE: tuple[Described, ...] = tuple(item for item in list(globals().values()) if type(item) is Described)
