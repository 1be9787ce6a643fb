"""`xmode-transfer status`: who has what, what is due, and who must act."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from xmode_transfer.adapters.ledger import Ledger
from xmode_transfer.domain.alerts import conditions
from xmode_transfer.domain.config import Configuration, CustomerState
from xmode_transfer.domain.errors import ConfigError, ExitCode
from xmode_transfer.domain.health import Assessment, CustomerHealth, Health, SubscriptionHealth, Trouble
from xmode_transfer.domain.looks import OpenDelivery
from xmode_transfer.domain.manifest import timestamp
from xmode_transfer.domain.records import Delivery, MultipartUpload, UploadStatus
from xmode_transfer.entrypoints.cli import Shell, standing, streams, words
from xmode_transfer.entrypoints.cli.terminal import bare, rendered
from xmode_transfer.ports import Clock

_LOOK_AGAIN_SECONDS = 60


@click.command()
@click.option("--customer", "-c", "name", metavar="C", help="Only this customer.")
@click.option("--all", "everybody", is_flag=True, help="Tell of everybody, who fares well too.")
@click.option("--look/--no-look", default=None, help="Look at the sources first, or do not (see below).")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--every", type=click.IntRange(1, 3600), default=5, show_default=True, help="Seconds, with --watch."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
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
    """Show how every customer fares, the last deliveries, what is due, and who must act.

    \b
    xmode-transfer status                        trouble first, who fares well at the end
    xmode-transfer status --customer acme        all of one customer
    xmode-transfer status --watch                on a screen, until Ctrl-C

    Reads the ledger and calls nobody, so it works when AWS does not. What is due it knows from the last look
    at the sources: the daemon's, or a run's. Where no daemon is alive it looks itself; --no-look leaves that
    out, --look does it in any case. A ledger that it may only read is enough: what it sees is then shown, and
    not recorded.
    """
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files

    if watch and (as_json or not sys.stdout.isatty() or streams.is_dumb()):
        raise ConfigError(
            "--watch wants a terminal", hint="call `status --json` as often as you like instead"
        )
    configuration = _only(config_files.load(shell.config_dir), name)
    engine, reason = bootstrap.engine_choice(configuration.service)
    with bootstrap.ledger(configuration.service) as (ledger, clock):
        view = _View(configuration, ledger, clock, look)
        if watch:
            view.watch(f"{engine} ({reason})", every, everybody=everybody or name is not None)
            return ExitCode.DONE
        assessment = view.assessment()
        if as_json:
            document = {
                "engine": {"name": engine, "reason": reason},
                **_document(assessment, view),
                "not_recorded": view.not_recorded,
            }
            click.echo(json.dumps(document, ensure_ascii=False))
            return ExitCode.DONE
    told = standing.lines(assessment, f"{engine} ({reason})", everybody=everybody or name is not None)
    for line in told:
        click.echo(words.folded(line))
    if view.not_recorded is not None:
        refused = f"the sources were looked at just now, and the ledger did not take it: {view.not_recorded}"
        click.echo(words.folded(refused))
    return ExitCode.DONE


def _only(configuration: Configuration, name: str | None) -> Configuration:
    """The configuration with that customer alone. Raises ConfigError when there is none."""
    if name is None:
        return configuration
    names = sorted({*configuration.customers, *configuration.broken})
    if name not in names:
        raise ConfigError(f"there is no customer {name}", hint=f"customers: {', '.join(names) or 'none'}")
    return Configuration(
        configuration.service,
        configuration.feeds,
        {key: value for key, value in configuration.customers.items() if key == name},
        {key: value for key, value in configuration.broken.items() if key == name},
        configuration.problems,
    )


class _View:
    """What is shown, taken anew at each call."""

    def __init__(self, configuration: Configuration, ledger: Ledger, clock: Clock, look: bool | None) -> None:
        from xmode_transfer.services.status import Looks

        self.configuration = configuration
        self.ledger = ledger
        self._clock = clock
        self._look = look
        self._looked_at: float | None = None
        self._looks = Looks(ledger, clock)

    @property
    def not_recorded(self) -> str | None:
        """Why the ledger did not take what was seen at the sources, where it did not."""
        return self._looks.refusal.message if self._looks.refusal is not None else None

    def assessment(self) -> Assessment:
        self._look_at_sources()
        return self._looks.assess(self.configuration)

    def _look_at_sources(self) -> None:
        from xmode_transfer import bootstrap
        from xmode_transfer.services import status

        now = self._clock.monotonic()
        if self._looked_at is not None and now - self._looked_at < _LOOK_AGAIN_SECONDS:
            return
        wanted = self._look
        if wanted is None:
            wanted = not status.daemon_looks(self.ledger, self._clock)
        if not wanted:
            return
        self._looked_at = now
        names = sorted(self.configuration.customers)
        with _progress(quiet=len(names) < 10 or self._looked_at is None) as told:
            self._looks.take(self.configuration, bootstrap.sources(self._clock), names, told)

    def watch(self, engine: str, every: int, *, everybody: bool) -> None:
        """On the whole screen, until Ctrl-C."""
        import time

        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        def picture() -> Text:
            shown = standing.lines(self.assessment(), engine, everybody=everybody)
            return Text.from_ansi(rendered("\n".join(shown)))

        with (
            Live(picture(), console=Console(file=bare(sys.stdout)), screen=True, auto_refresh=False) as live,
        ):
            try:
                while True:
                    time.sleep(every)
                    live.update(picture(), refresh=True)
            except KeyboardInterrupt:
                return


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty() or streams.is_dumb():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=bare(sys.stderr)), transient=True) as progress:
        task = progress.add_task("looking at the sources", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


# --- JSON


def _document(assessment: Assessment, view: _View) -> dict[str, Any]:
    left: dict[str, list[MultipartUpload]] = {}
    for upload in view.ledger.uploads.find(statuses=[UploadStatus.LEFT_BEHIND]):
        left.setdefault(upload.customer, []).append(upload)
    daemon = assessment.daemon
    return {
        "assessed_at": timestamp(assessment.assessed_at),
        "counts": {str(word): count for word, count in assessment.counts.items()},
        "daemon": {
            "alive": daemon.is_alive(assessment.assessed_at),
            "ticked_at": timestamp(daemon.ticked_at),
            "busy": daemon.busy,
            "workers": daemon.workers,
        }
        if daemon
        else None,
        "cares": [_trouble(care) for care in assessment.cares],
        "causes": [
            {
                "fingerprint": found.fingerprint,
                "cause": found.cause,
                "detail": found.detail,
                "party": str(found.party),
                "urgent": found.urgent,
                "summary": found.summary,
                "since_at": timestamp(found.since_at),
                "customers": list(found.customers),
                "customer_count": found.customer_count,
            }
            for found in conditions(assessment.all_troubles())
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
        "troubles": [_trouble(trouble) for trouble in item.troubles],
        "cares": [_trouble(care) for care in item.cares],
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
    look = item.look
    return {
        "feed": item.feed,
        "status": str(item.health),
        "trouble": _trouble(item.trouble) if item.trouble else None,
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


def _trouble(trouble: Trouble) -> dict[str, Any]:
    return {
        "cause": trouble.cause,
        "detail": trouble.detail,
        "party": str(trouble.party),
        "message": trouble.message,
        "hint": trouble.hint,
        "since_at": timestamp(trouble.since_at),
        "feed": trouble.feed,
        "period": trouble.period,
        "retryable": trouble.retryable,
        "request_id": trouble.request_id,
    }


def _open(begun: OpenDelivery) -> dict[str, Any]:
    return {**_delivery(begun.delivery), "since_at": timestamp(begun.since_at)}


def _delivery(delivery: Delivery) -> dict[str, Any]:
    failure = delivery.failure
    return {
        "period": delivery.period,
        "revision": delivery.revision,
        "status": str(delivery.status),
        "objects": delivery.object_count,
        "bytes": delivery.total_bytes,
        "missing": delivery.missing_count,
        "delivered_at": timestamp(delivery.delivered_at) if delivery.delivered_at else None,
        "manifest_key": delivery.manifest_key,
        "not_attested": delivery.not_attested,
        "attempts": delivery.attempts,
        "cause": failure.cause if failure else None,
        "party": failure.party if failure else None,
        "message": failure.message if failure else None,
        "hint": failure.hint if failure else None,
    }
