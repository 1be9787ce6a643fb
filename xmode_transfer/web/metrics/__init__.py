"""Metrics for Prometheus: health of customers, status of the daemon, and counters of this process.
docs/metrics.md has a row for each; names, units and labels are public.

There are few series: one per customer for its health, four per subscription, and more only where they apply.
There are no histograms and no unbounded labels.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from xmode_transfer.alerting.health_records import Assessment
from xmode_transfer.model.jobs import WorkQueue
from xmode_transfer.model.process import Clock
from xmode_transfer.web.facts import StatusView
from xmode_transfer.web.metrics.catalogue import CATALOGUE
from xmode_transfer.web.metrics.customers import KEPT_SECONDS, CustomerMetrics, FleetMetrics
from xmode_transfer.web.metrics.process import Counters, Process


def renderer(
    assessment: Callable[[], Assessment],
    clock: Clock,
    status_view: StatusView | None = None,
    counters: Counters | None = None,
    open_alerts: Callable[[], Iterable[str]] | None = None,
    fleet: WorkQueue | None = None,
) -> Callable[[], bytes]:
    """Return a function that renders a scrape (Prometheus text format 0.0.4). Any thread may call it.

    ``assessment`` is called for it, at most once in five seconds; when the ledger cannot be read, the text
    says that and what is known without it. ``open_alerts`` answers the cause of each open alert.
    With the queue of a ``fleet``, it also says how that and its workers are.
    """
    process = _process(status_view, counters)
    customers = CustomerMetrics(
        assessment, clock, open_alerts, FleetMetrics(fleet, clock) if fleet is not None else None
    )

    def render() -> bytes:
        return generate_latest(process) + customers.render()

    return render


def of_process(counters: Counters) -> Callable[[], bytes]:
    """Like ``renderer``, for a worker: metrics of the process alone. Daemons report customers and the
    fleet."""
    process = _process(None, counters)
    return lambda: generate_latest(process)


def _process(status_view: StatusView | None, counters: Counters | None) -> CollectorRegistry:
    process = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=process)
    PlatformCollector(registry=process)
    process.register(Process(status_view, counters))
    return process
