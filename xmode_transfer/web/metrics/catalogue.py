"""Every metric: its name, what it says, and its labels, and how samples of it are made. docs/metrics.md has a
row for each."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True)
class Described:
    """One metric: its name as Prometheus stores it, what it says, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        return self.name.endswith("_total")

    def family(self) -> Metric:
        if self.is_counter:
            return CounterMetricFamily(self.name.removesuffix("_total"), self.help, labels=self.labels)
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)


def alone(described: Described, value: float) -> Metric:
    family = described.family()
    family.add_metric((), value)  # type: ignore[attr-defined]
    return family


def counted(described: Described, values: Mapping[str, int]) -> Metric:
    """One sample for each value of the only label."""
    return labelled(described, {(label,): value for label, value in values.items()})


def labelled(described: Described, values: Mapping[tuple[str, ...], int]) -> Metric:
    family = described.family()
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)  # type: ignore[attr-defined]
    return family


_SUBSCRIPTION = ("customer", "feed")

BUILD_INFO = Described("xmode_build_info", "Always 1; which version runs.", ("version",))
ASSESSED = Described("xmode_assessed_timestamp_seconds", "When the ledger was last evaluated.")
LEDGER_READABLE = Described("xmode_ledger_readable", "1 while the ledger can be evaluated, else 0.")
LEDGER_FREE = Described("xmode_ledger_free_bytes", "Room left on the ledger's disk.")
LEDGER_USED = Described("xmode_ledger_used_bytes", "Room that the ledger takes.")
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
LEFT_BEHIND = Described(
    "xmode_orphaned_upload_bytes", "Parts of uploads that we may not abort, in all customers' buckets."
)
BACKLOG = Described(
    "xmode_backlog_bytes", "Bytes of the deliveries that were planned, as far as they have no receipt yet."
)
WORK = Described(
    "xmode_work_bytes",
    "Bytes that workers could send now: the backlog of whoever is neither refused nor fails, and an estimate "
    "for the periods that wait.",
)
WORK_OLDEST = Described("xmode_work_oldest_seconds", "How long the oldest of that work has waited.")
PERIODS_DUE = Described(
    "xmode_periods_due", "Complete periods that wait to be delivered, of all active customers."
)

CUSTOMER_HEALTH = Described(
    "xmode_customer_health", "Always 1; the customer's health is the label.", ("customer", "health")
)
CUSTOMER_LEFT_BEHIND = Described(
    "xmode_customer_orphaned_upload_bytes", "Parts of orphaned uploads, where there are some.", ("customer",)
)
DELIVERED = Described(
    "xmode_subscription_delivered_timestamp_seconds",
    "When the newest period was delivered.",
    _SUBSCRIPTION,
)
FRESHNESS = Described(
    "xmode_subscription_freshness_seconds",
    "How old the customer's newest data is: since the end of the newest delivered period.",
    _SUBSCRIPTION,
)
FRESH_UNTIL = Described(
    "xmode_subscription_fresh_until_timestamp_seconds",
    "By when the next period is to be delivered.",
    _SUBSCRIPTION,
)
DELIVERED_BYTES = Described(
    "xmode_subscription_delivered_bytes", "What the newest delivery holds.", _SUBSCRIPTION
)
SUBSCRIPTION_DUE = Described(
    "xmode_subscription_periods_due", "Complete periods that wait, where there are some.", _SUBSCRIPTION
)
SUBSCRIPTION_OPEN = Described(
    "xmode_subscription_deliveries_open", "Deliveries that were begun, where there are some.", _SUBSCRIPTION
)
SUBSCRIPTION_BACKLOG = Described(
    "xmode_subscription_backlog_bytes",
    "What those that were begun have left to send, where known.",
    _SUBSCRIPTION,
)

STARTED = Described("xmode_daemon_started_timestamp_seconds", "When this daemon was started.")
TICKED = Described("xmode_daemon_ticked_timestamp_seconds", "When its clock last ticked.")
STOPPING = Described("xmode_daemon_stopping", "1 while it ends what it does and takes nothing new, else 0.")
WORKERS = Described("xmode_daemon_slots", "How many customers it can deliver to at once: its slots.")
BUSY = Described("xmode_daemon_slots_busy", "How many slots are in use: deliveries in flight.")
TURNS = Described("xmode_daemon_customers", "Active customers by their state in the queue.", ("state",))
CONFIGURATION_LOADED = Described(
    "xmode_configuration_loaded_timestamp_seconds", "When the configuration that is in use was read."
)
CONFIGURATION_PROBLEMS = Described(
    "xmode_configuration_problems", "Mistakes in the files as they are on disk now."
)

FLEET_CUSTOMERS = Described(
    "xmode_fleet_customers", "Customers by their state in the queue of the whole fleet.", ("state",)
)
FLEET_OLDEST = Described(
    "xmode_fleet_queued_oldest_seconds",
    "How long the longest queued customer has waited, without those that are suspended.",
)
FLEET_WORKERS = Described("xmode_fleet_workers", "Worker processes by state.", ("state",))
FLEET_SLOTS = Described("xmode_fleet_slots", "How many jobs the running workers can take at once.")
FLEET_BUSY = Described("xmode_fleet_slots_busy", "How many of these slots are in use.")
FLEET_WAITING = Described(
    "xmode_fleet_jobs_stalled", "Jobs that make no progress and wait outside the workers' slots."
)

OBJECTS = Described(
    "xmode_objects_total", "Objects that this process was done with, by what became of them.", ("outcome",)
)
OBJECT_BYTES = Described(
    "xmode_object_bytes_total", "Bytes of the objects that this process was done with.", ("outcome",)
)
BEGUN = Described("xmode_deliveries_started_total", "Deliveries and cleanups that this process has started.")

CATALOGUE: tuple[Described, ...] = tuple(item for item in list(globals().values()) if type(item) is Described)
