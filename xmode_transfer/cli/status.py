"""`xmode-transfer status`: health, recent deliveries and pending work."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.alerting.alerts import by_cause
from xmode_transfer.alerting.health_records import (
    Assessment,
    CustomerHealth,
    Health,
    Issue,
    SubscriptionHealth,
)
from xmode_transfer.cli import opening, standing, streams, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.cli.progress import counted
from xmode_transfer.config import Configuration, CustomerState
from xmode_transfer.model.errors import ConfigError, ExitCode
from xmode_transfer.model.health import OpenDelivery
from xmode_transfer.model.manifest import timestamp
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import Delivery, MultipartUpload, UploadStatus

if TYPE_CHECKING:
    from xmode_transfer.delivery.due import Scans
    from xmode_transfer.ledger import Ledger

_LOOK_AGAIN_SECONDS = 60


@click.command()
@opening.one_customer_option
@click.option("--all", "everybody", is_flag=True, help="Include healthy customers.")
@click.option("--look/--no-look", default=None, help="Scan the sources first, or never (see above).")
@click.option("--watch", is_flag=True, help="Refresh the whole screen until Ctrl-C.")
@click.option(
    "--every",
    type=click.IntRange(1, 3600),
    default=5,
    show_default=True,
    help="Refresh interval in seconds.",
)
@opening.json_option
@click.pass_obj
def command(
    shell: Shell,
    name: str | None,
    everybody: bool,
    look: bool | None,
    watch: bool,
    every: int,
    as_json: bool,
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
    configuration = _only(shell.configuration(), name)
    engine, reason = assembly.engine_choice(configuration.service)
    with assembly.ledger(configuration.service) as (ledger, clock):
        view = _View(configuration, ledger, clock, look)
        if watch:
            view.watch(f"{engine} ({reason})", every, everybody=everybody or name is not None)
            return ExitCode.DONE
        assessment = view.assessment()
        if as_json:
            terminal.answer(
                {
                    "engine": {"name": engine, "reason": reason},
                    "warnings": view.warnings,
                    **_document(assessment, view),
                    "not_recorded": view.not_recorded,
                }
            )
            return ExitCode.DONE
    everybody = everybody or name is not None
    warnings = view.warnings
    terminal.show(standing.lines(assessment, f"{engine} ({reason})", everybody=everybody, warnings=warnings))
    if view.not_recorded is not None:
        terminal.say(
            f"the sources were scanned, but the ledger did not record the result: {view.not_recorded}"
        )
    return ExitCode.DONE


def _only(configuration: Configuration, name: str | None) -> Configuration:
    """The configuration with that customer alone. Raises ConfigError when there is none."""
    if name is None:
        return configuration
    if name not in configuration.broken:
        configuration.customer(name, "its state is not known")
    return Configuration(
        configuration.service,
        configuration.feeds,
        {key: value for key, value in configuration.customers.items() if key == name},
        {key: value for key, value in configuration.broken.items() if key == name},
        configuration.problems,
    )


class _View:
    """The data of the status view; each assessment reads it again."""

    def __init__(
        self, configuration: Configuration, ledger: "Ledger", clock: Clock, look: bool | None
    ) -> None:
        self.configuration = configuration
        self.ledger = ledger
        self._clock = clock
        self._look = look
        self._looked_at: float | None = None
        self._scans: Scans | None = None

    @property
    def warnings(self) -> list[str]:
        """Warnings about settings that disable a safeguard."""
        vendor = self.configuration.service.vendor
        if vendor.verify_identity:
            return []
        principal = vendor.principal_arn
        return [f"vendor.verify_identity is false: nothing proves that our access key belongs to {principal}"]

    @property
    def not_recorded(self) -> str | None:
        """Why the ledger did not record the source scan; None if it did."""
        if self._scans is None or self._scans.refusal is None:
            return None
        return self._scans.refusal.message

    def assessment(self) -> Assessment:
        from xmode_transfer.alerting.health import assess

        self._look_at_sources()
        snapshot = self.ledger.snapshot()
        if self._scans is not None:
            snapshot = replace(snapshot, scans={**snapshot.scans, **self._scans.unrecorded})
        return assess(self.configuration, snapshot, self._clock.now())

    def _look_at_sources(self) -> None:
        from xmode_transfer.delivery.due import scan_all
        from xmode_transfer.service import assembly

        now = self._clock.monotonic()
        if self._looked_at is not None and now - self._looked_at < _LOOK_AGAIN_SECONDS:
            return
        wanted = self._look
        if wanted is None:
            daemons = self.ledger.daemons.newest(1)
            wanted = not any(daemon.is_alive(self._clock.now()) for daemon in daemons)
        if not wanted:
            return
        self._looked_at = now
        with counted("scanning the sources", quiet=len(self.configuration.customers) < 10) as progress:
            sources = assembly.sources(self._clock)
            self._scans = scan_all(self.configuration, sources, self.ledger, self._clock, progress)

    def watch(self, engine: str, every: int, *, everybody: bool) -> None:
        """Refreshes the whole screen until Ctrl-C."""
        import time

        from rich.live import Live
        from rich.text import Text

        def picture() -> Text:
            shown = standing.lines(self.assessment(), engine, everybody=everybody, warnings=self.warnings)
            return Text("\n").join(line.text(folded=True) for line in shown)

        with Live(picture(), console=terminal.console(), screen=True, auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(every)
                    live.update(picture(), refresh=True)
            except KeyboardInterrupt:
                return


# --- JSON


def _document(assessment: Assessment, view: _View) -> dict[str, Any]:
    left: dict[str, list[MultipartUpload]] = {}
    for upload in view.ledger.uploads.find(statuses=[UploadStatus.ORPHANED]):
        left.setdefault(upload.customer, []).append(upload)
    daemon = assessment.daemon
    return {
        "assessed_at": timestamp(assessment.assessed_at),
        "counts": {str(word): count for word, count in assessment.counts.items()},
        "daemon": {
            "alive": daemon.is_alive(assessment.assessed_at),
            "ticked_at": timestamp(daemon.ticked_at),
            **terminal.picked(daemon, "busy workers"),
        }
        if daemon
        else None,
        "cares": [_trouble(care) for care in assessment.warnings],
        "causes": [
            {
                **terminal.picked(found, "fingerprint cause detail responsible urgent summary"),
                "since_at": timestamp(found.since_at),
                "customers": list(found.customers),
                "customer_count": found.customer_count,
            }
            for found in by_cause(assessment.all_issues())
        ],
        "customers": [
            _customer(item, _state(item, view.configuration), left.get(item.customer, []))
            for item in assessment.customers
        ],
    }


def _state(item: CustomerHealth, configuration: Configuration) -> str:
    if item.health is Health.BROKEN:
        return "broken"
    customer = configuration.customers.get(item.customer)
    return str(customer.state if customer else CustomerState.ACTIVE)


def _customer(item: CustomerHealth, state: str, left: list[MultipartUpload]) -> dict[str, Any]:
    return {
        "customer": item.customer,
        "company": item.company,
        "state": state,
        "status": str(item.health),
        "problems": list(item.problems),
        "troubles": [_trouble(trouble) for trouble in item.issues],
        "cares": [_trouble(care) for care in item.warnings],
        "feeds": [_feed(subscription) for subscription in item.subscriptions],
        "multipart": item.capabilities.multipart,
        "region": item.capabilities.region,
        "left_behind": [
            {
                "key": upload.key,
                "upload_id": upload.upload_id,
                "bytes": upload.sent_bytes,
                "ends_at": upload.abort_at and upload.abort_at.isoformat(),
            }
            for upload in left
        ],
        "lifecycle_rule": item.lifecycle_rule,
    }


def _feed(item: SubscriptionHealth) -> dict[str, Any]:
    look = item.scan
    return {
        "feed": item.feed,
        "status": str(item.health),
        "trouble": _trouble(item.issue) if item.issue else None,
        "last_delivered": _delivery(item.last_delivered) if item.last_delivered else None,
        "not_attested": item.not_attested,
        "open": [_open(begun) for begun in item.open],
        "due": list(item.due),
        "due_count": item.due_count,
        "waiting": [
            {"period": period, "reason": reason} for period, reason in (look.waiting if look else ())
        ],
        "source_error": look.failure.message if look and look.failure else None,
        "looked_at": timestamp(look.looked_at) if look else None,
        "fresh_until_at": timestamp(item.fresh_until_at) if item.fresh_until_at else None,
    }


def _trouble(trouble: Issue) -> dict[str, Any]:
    return {
        **terminal.picked(trouble, "cause detail responsible message hint"),
        "since_at": timestamp(trouble.since_at),
        **terminal.picked(trouble, "feed period retryable request_id"),
    }


def _open(begun: OpenDelivery) -> dict[str, Any]:
    return {**_delivery(begun.delivery), "since_at": timestamp(begun.since_at)}


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        **terminal.picked(delivery, "period revision status"),
        "objects": delivery.object_count,
        "bytes": delivery.total_bytes,
        "missing": delivery.missing_count,
        "delivered_at": timestamp(delivery.delivered_at) if delivery.delivered_at else None,
        **terminal.picked(delivery, "manifest_key not_attested attempts"),
        **terminal.failure_fields(delivery.failure, request_id=False),
    }
