"""`xmode-transfer status`: health, recent deliveries and pending work."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.cli import opening, streams, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.cli.terminal import Line, minute, state
from xmode_transfer.model.delta import TableCommit
from xmode_transfer.model.errors import ConfigError, ExitCode
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Delivery, MultipartUpload, UploadStatus
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.alerting.health_records import Assessment, CustomerHealth, Issue, SubscriptionHealth
    from xmode_transfer.config import Configuration
    from xmode_transfer.delivery.due import Scans
    from xmode_transfer.ledger import Ledger

_SCAN_AGAIN_SECONDS = 60
_SHOWN_PERIODS = 5
_SHOWN_UNHEALTHY = 30
_SHOWN_HEALTHY = 10
_INDENT = 11


@click.command()
@opening.one_customer_option
@click.option("--all", "show_all", is_flag=True, help="Include healthy customers.")
@click.option("--look/--no-look", default=None, help="Scan the sources first, or never (see above).")
@click.option("--watch", is_flag=True, help="Refresh the whole screen until Ctrl-C.")
@click.option(
    "--every", type=click.IntRange(1, 3600), default=5, show_default=True, help="Refresh interval in seconds."
)
@opening.with_json
def command(
    shell: Shell, name: str | None, show_all: bool, look: bool | None, watch: bool, every: int, as_json: bool
) -> int:
    """Show health, recent deliveries and pending work; customers that need attention come first.

    \b
    xmode-transfer status
    xmode-transfer status --customer acme        show everything about one customer
    xmode-transfer status --watch

    Reads only the ledger, so it works when AWS does not. Pending work comes from the last source scan, by
    the daemon or a run. If no daemon is alive, status scans the sources itself; --no-look never scans,
    --look always does. With a read-only ledger, it shows the result of the scan and does not record it.
    """
    from xmode_transfer.service import assembly

    if watch and (as_json or not sys.stdout.isatty() or streams.is_dumb()):
        raise ConfigError("--watch requires a terminal", hint="use `status --json` instead")
    configuration = shell.configuration()
    if name is not None and name in configuration.broken:
        configuration = replace(configuration, customers={}, broken={name: configuration.broken[name]})
    elif name is not None:
        customer = configuration.customer(name, "its state is not known")
        configuration = replace(configuration, customers={name: customer}, broken={})
    engine, reason = assembly.engine_choice(configuration.service)
    with assembly.ledger(configuration.service) as (ledger, clock):
        view = _View(configuration, ledger, clock, look, f"{engine} ({reason})", show_all or name is not None)
        if watch:
            view.watch(every)
            return ExitCode.DONE
        assessment = view.assessment()
        if as_json:
            settings = {"engine": {"name": engine, "reason": reason}, "warnings": view.warnings}
            document = _document(assessment, configuration, ledger)
            terminal.answer({**settings, **document, "not_recorded": view.not_recorded})
            return ExitCode.DONE
    terminal.show(view.lines(assessment))
    if view.not_recorded is not None:
        terminal.say(f"the ledger did not record the result of the source scan: {view.not_recorded}")
    return ExitCode.DONE


@dataclass(slots=True)
class _View:
    """The status view; each assessment reads the ledger again."""

    configuration: "Configuration"
    ledger: "Ledger"
    clock: Clock
    scan: bool | None
    engine: str
    show_all: bool
    _scans: "Scans | None" = None
    _scanned_at: float | None = None

    @property
    def warnings(self) -> list[str]:
        """Warnings about settings that disable a safeguard."""
        vendor = self.configuration.service.vendor
        problem = "vendor.verify_identity is false: nothing proves that our access key belongs to"
        return [] if vendor.verify_identity else [f"{problem} {vendor.principal_arn}"]

    @property
    def not_recorded(self) -> str | None:
        """Why the ledger did not record the source scan; None if it did."""
        refusal = self._scans and self._scans.refusal
        return refusal.message if refusal else None

    def assessment(self) -> "Assessment":
        from xmode_transfer.alerting.health import assess

        self._scan_sources()
        snapshot = self.ledger.snapshot()
        if self._scans is not None:
            snapshot = replace(snapshot, scans={**snapshot.scans, **self._scans.unrecorded})
        return assess(self.configuration, snapshot, self.clock.now())

    def _scan_sources(self) -> None:
        now = self.clock.monotonic()
        if self._scanned_at is not None and now - self._scanned_at < _SCAN_AGAIN_SECONDS:
            return
        wanted = self.scan
        if wanted is None:
            daemons = self.ledger.daemons.newest(1)
            wanted = not any(daemon.is_alive(self.clock.now()) for daemon in daemons)
        if wanted:
            from xmode_transfer.delivery.due import scan_all
            from xmode_transfer.service import assembly

            self._scanned_at = now
            quiet = len(self.configuration.customers) < 10
            with terminal.counted("scanning the sources", quiet=quiet) as progress:
                sources = assembly.sources(self.clock)
                self._scans = scan_all(self.configuration, sources, self.ledger, self.clock, progress)

    def watch(self, every: int) -> None:
        """Refresh the whole screen until Ctrl-C."""
        from rich.live import Live
        from rich.text import Text

        def screen() -> Text:
            return Text("\n").join(line.text(folded=True) for line in self.lines(self.assessment()))

        with Live(screen(), console=terminal.console(), screen=True, auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(every)
                    live.update(screen(), refresh=True)
            except KeyboardInterrupt:
                return

    def lines(self, assessment: "Assessment") -> Iterator[Line]:
        """Yield the summary, the causes, and the customers, the most severe first. Unless all are shown, long
        lists are cut, and healthy customers only named."""
        from xmode_transfer.alerting.health_records import GRAVITY, SOUND

        if not assessment.customers:
            yield Line(("no customers are configured; see docs/configuration.md",))
        if len(assessment.customers) > 1:
            yield _summary(assessment)
        yield from _service(assessment)
        ordered = sorted(assessment.customers, key=lambda item: (GRAVITY.index(item.health), item.customer))
        unhealthy = [item for item in ordered if item.health not in SOUND]
        healthy = [item for item in ordered if item.health in SOUND]
        if len(unhealthy) > 1:
            yield from _causes(assessment)
        shown = unhealthy if self.show_all else unhealthy[:_SHOWN_UNHEALTHY]
        for item in shown:
            yield from _customer(item)
        yield from _named(unhealthy[len(shown) :])
        shown = healthy
        if not self.show_all and len(healthy) > _SHOWN_HEALTHY:
            shown = [it for it in healthy if it.warnings or any(of.not_attested for of in it.subscriptions)]
            shown = shown[:_SHOWN_UNHEALTHY]
        for item in shown:
            yield from _customer(item)
        yield from _named([item for item in healthy if item not in shown])
        for warning in self.warnings:
            yield Line((state("warning"), f": {warning}"))
        yield Line((f"engine {self.engine}",))


def _summary(assessment: "Assessment") -> Line:
    counts = [(f"{count:,} {word}", states.style(word)) for word, count in assessment.counts.items() if count]
    parted = [part for count in counts for part in (", ", count)]
    total = states.count(len(assessment.customers), "customer")
    return Line(((total, "bold"), ": ", *parted[1:], f"; {minute(assessment.assessed_at)}"))


def _service(assessment: "Assessment") -> Iterator[Line]:
    daemon = assessment.daemon
    if daemon is not None and daemon.is_alive(assessment.assessed_at):
        ago = states.duration(max((assessment.assessed_at - daemon.ticked_at).total_seconds(), 0))
        stopping = ", stopping" if daemon.stopping else ""
        yield Line((f"daemon: {daemon.busy} of {daemon.workers} workers busy, ticked {ago} ago{stopping}",))
    for issue in assessment.warnings:
        yield from _issue(issue, "the service: ")


def _causes(assessment: "Assessment") -> Iterator[Line]:
    from xmode_transfer.alerting.alerts import by_cause

    several = [alert for alert in by_cause(assessment.all_issues()) if alert.customer_count > 1]
    for alert in sorted(several, key=lambda alert: -alert.customer_count):
        yield Line(((alert.summary, "bold"),))
        yield Line((alert.message,), indent=_INDENT)
        yield _must_act(alert.responsible, alert.hint, _INDENT)


def _customer(item: "CustomerHealth") -> Iterator[Line]:
    yield Line(((item.customer, "bold"),), state(item.health, _INDENT))
    for problem in item.problems:
        yield Line((problem,), indent=_INDENT)
    for subscription in item.subscriptions:
        yield from _subscription(subscription)
    left = item.orphaned
    if left is not None and not left.kept and left.ends_at is not None:
        uploads = f"{states.count(left.count, 'orphaned multipart upload')} ({states.size(left.bytes)})"
        rule = f"the bucket's lifecycle rule removes them by {left.ends_at:%Y-%m-%d}"
        yield Line((f"{uploads}: we may not abort them; {rule}",), indent=_INDENT)
    for issue in item.warnings:
        yield from _issue(issue, "", _INDENT)


def _subscription(item: "SubscriptionHealth") -> Iterator[Line]:
    below = _INDENT + 2
    yield Line((f"{_last(item)}{_due(item)}",), f"{item.feed}: ", _INDENT)
    if item.not_attested:
        count = states.count(item.not_attested, "delivery")
        text = f"not attested: {count} recovered without our signature (docs/verify.md)"
        yield Line((text,), indent=below)
    issues = {issue.period: (word, issue) for word, issue in reversed(item.issues)}
    for begun in item.open:
        delivery = begun.delivery
        head = f"{delivery.status} {delivery.period} r{delivery.revision} since {minute(begun.since_at)}"
        why = f": {delivery.failure.message}" if delivery.failure else ""
        yield Line((f"{head}{why}",), indent=below)
        _, issue = issues.pop(delivery.period, ("", None))
        if issue is not None and issue.hint:
            yield _must_act(issue.responsible, issue.hint, below + 2)
    for word, issue in sorted(issues.values(), key=lambda found: found[1].since_at):
        yield Line((f"{word} since {minute(issue.since_at)}: {issue.message}",), indent=below)
        if issue.hint:
            yield _must_act(issue.responsible, issue.hint, below + 2)
    if item.scan is not None:
        for period, reason in item.scan.waiting[-_SHOWN_PERIODS:]:
            yield Line((f"waiting {period}: {reason}",), indent=below)


def _issue(issue: "Issue", prefix: str, indent: int = 0) -> Iterator[Line]:
    yield Line((f"{prefix}{issue.message} (since {minute(issue.since_at)})",), indent=indent)
    yield _must_act(issue.responsible, issue.hint, indent + 2)


def _must_act(responsible: str, hint: str, indent: int) -> Line:
    return Line((hint,), f"{states.RESPONSIBLE[responsible]} must act: ", indent)


def _named(rest: Sequence["CustomerHealth"]) -> Iterator[Line]:
    """Names of customers, grouped by health."""
    from xmode_transfer.alerting.health_records import Health

    for word in Health:
        names = [item.customer for item in rest if item.health is word]
        if names:
            few = ", ".join(names[:_SHOWN_HEALTHY])
            more = f" and {len(names) - _SHOWN_HEALTHY:,} more (--all)" if len(names) > _SHOWN_HEALTHY else ""
            yield Line((f"{few}{more}",), state(word, _INDENT))


def _last(item: "SubscriptionHealth") -> str:
    last = item.last_delivered
    if last is None or last.delivered_at is None:
        seen = "" if item.scan is not None else ", source not scanned yet"
        return f"nothing delivered yet{seen}"
    missing = f"{last.missing_count:,} missing, " if last.missing_count else ""
    return (
        f"last {last.period} r{last.revision}, {states.count(last.object_count, 'object')}, {missing}"
        f"{states.size(last.total_bytes)}, {minute(last.delivered_at)}"
    )


def _due(item: "SubscriptionHealth") -> str:
    if not item.due:
        return ""
    rest = item.due_count - len(item.due[:_SHOWN_PERIODS])
    more = f" and {rest} more" if rest > 0 else ""
    return f"; due: {', '.join(item.due[:_SHOWN_PERIODS])}{more}"


def _document(assessment: "Assessment", configuration: "Configuration", ledger: "Ledger") -> dict[str, Any]:
    from xmode_transfer.alerting.alerts import by_cause

    orphaned: dict[str, list[MultipartUpload]] = {}
    for upload in ledger.uploads.find(statuses=[UploadStatus.ORPHANED]):
        orphaned.setdefault(upload.customer, []).append(upload)
    commits = _commits(assessment, ledger)
    daemon = assessment.daemon
    return {
        "assessed_at": assessment.assessed_at,
        "counts": dict(assessment.counts),
        "daemon": daemon
        and {
            "alive": daemon.is_alive(assessment.assessed_at),
            **terminal.picked(daemon, "ticked_at", "busy", "workers"),
        },
        "issues": assessment.warnings,
        "causes": [alert.document() for alert in by_cause(assessment.all_issues())],
        "customers": [
            _customer_document(item, configuration, orphaned.get(item.customer, []), commits)
            for item in assessment.customers
        ],
    }


def _customer_document(
    item: "CustomerHealth",
    configuration: "Configuration",
    orphaned: Sequence[MultipartUpload],
    commits: Mapping[str, TableCommit],
) -> dict[str, Any]:
    customer = configuration.customers.get(item.customer)
    configured = customer.state if customer else "active"
    return {
        **terminal.picked(item, "customer", "company", "problems", "issues", "warnings", "lifecycle_rule"),
        "state": "broken" if item.health == "broken" else configured,
        "status": item.health,
        "feeds": [_feed(subscription, commits) for subscription in item.subscriptions],
        "multipart": item.capabilities.multipart,
        "region": item.capabilities.region,
        "orphaned": [
            {
                **terminal.picked(upload, "key", "upload_id"),
                "bytes": upload.sent_bytes,
                "ends_at": upload.abort_at and upload.abort_at.isoformat(),
            }
            for upload in orphaned
        ],
    }


def _feed(item: "SubscriptionHealth", commits: Mapping[str, TableCommit]) -> dict[str, Any]:
    scan, last = item.scan, item.last_delivered
    commit = commits.get(last.id) if last is not None else None
    return {
        **terminal.picked(item, "feed", "issue", "not_attested", "due", "due_count", "fresh_until_at"),
        "quarantined": item.quarantined,
        "status": item.health,
        "last_delivered": last
        and {**_delivery(last), "table": commit and terminal.picked(commit, "version", "rows")},
        "open": [{**_delivery(begun.delivery), "since_at": begun.since_at} for begun in item.open],
        "waiting": [waiting._asdict() for waiting in scan.waiting] if scan else [],
        "source_error": scan.failure.message if scan and scan.failure else None,
        "looked_at": scan.looked_at if scan else None,
    }


def _commits(assessment: "Assessment", ledger: "Ledger") -> dict[str, TableCommit]:
    """Return the table's commit of each feed's last delivery, by the delivery's ID."""
    tables = {(table.customer, table.feed) for table in ledger.tables.find()}
    found = {}
    for last in (part.last_delivered for item in assessment.customers for part in item.subscriptions):
        if last is not None and (last.customer, last.feed) in tables:
            commit = ledger.tables.of_delivery(last)
            if commit is not None:
                found[last.id] = commit
    return found


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        **terminal.picked(delivery, "period", "revision", "status", "delivered_at", "attempts"),
        **terminal.picked(delivery, "manifest_key", "not_attested"),
        "objects": delivery.object_count,
        "bytes": delivery.total_bytes,
        "missing": delivery.missing_count,
        **terminal.failure_fields(delivery.failure),
    }
