"""`xmode-transfer status`: who has what, what is due, and who must act."""

import json
from typing import Any

import click

from xmode_transfer.domain.errors import ConfigError, ExitCode
from xmode_transfer.domain.manifest import timestamp
from xmode_transfer.domain.records import Delivery
from xmode_transfer.entrypoints.cli import Shell, words
from xmode_transfer.services.status import CustomerStatus, SubscriptionStatus, status_of

_COLOURS = {
    "healthy": "green",
    "due": "cyan",
    "blocked": "yellow",
    "failing": "red",
    "broken": "red",
    "pending": "bright_black",
    "retired": "bright_black",
}
_SHOWN_PERIODS = 5


@click.command()
@click.option("--customer", "-c", "name", metavar="C", help="Only this customer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def command(shell: Shell, name: str | None, as_json: bool) -> int:
    """Show the last deliveries, what is due or waits, and who must act.

    Reads the ledger and looks at the sources; calls nobody, so it works when AWS does not.
    """
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files

    configuration = config_files.load(shell.config_dir)
    names = sorted({*configuration.customers, *configuration.broken})
    if name is not None:
        if name not in names:
            raise ConfigError(f"there is no customer {name}", hint=f"customers: {', '.join(names) or 'none'}")
        names = [name]
    engine, reason = bootstrap.engine_choice(configuration.service)
    with bootstrap.ledger(configuration.service) as (ledger, clock):
        statuses = [status_of(configuration, ledger, bootstrap.sources(clock), clock, name) for name in names]
    if as_json:
        document = {
            "engine": {"name": engine, "reason": reason},
            "customers": [_document(status) for status in statuses],
        }
        click.echo(json.dumps(document, ensure_ascii=False))
        return ExitCode.DONE
    for status in statuses:
        _tell(status)
    if not statuses:
        click.echo("no customer is configured; see docs/configuration.md")
    click.echo(f"engine {engine} ({reason})")
    return ExitCode.DONE


def _document(status: CustomerStatus) -> dict[str, Any]:
    return {
        "customer": status.customer,
        "state": status.state,
        "status": status.word,
        "problems": list(status.problems),
        "feeds": [_feed(item) for item in status.subscriptions],
        "multipart": status.capabilities.multipart,
        "region": status.capabilities.region,
        "left_behind": [
            {
                "key": upload.key,
                "upload_id": upload.upload_id,
                "bytes": upload.sent_bytes,
                "ends_at": upload.abort_at and upload.abort_at.isoformat(),
            }
            for upload in status.left_behind
        ],
        "lifecycle_rule": status.lifecycle_rule,
    }


def _feed(item: SubscriptionStatus) -> dict[str, Any]:
    return {
        "feed": item.feed,
        "last_delivered": _delivery(item.last_delivered) if item.last_delivered else None,
        "open": [_delivery(delivery) for delivery in item.open],
        "due": item.due,
        "waiting": [{"period": period, "reason": reason} for period, reason in item.waiting],
        "source_error": item.source_failure.message if item.source_failure else None,
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    failure = delivery.failure
    return {
        "period": delivery.period,
        "revision": delivery.revision,
        "status": str(delivery.status),
        "objects": delivery.object_count,
        "bytes": delivery.total_bytes,
        "delivered_at": timestamp(delivery.delivered_at) if delivery.delivered_at else None,
        "manifest_key": delivery.manifest_key,
        "attempts": delivery.attempts,
        "cause": failure.cause if failure else None,
        "party": failure.party if failure else None,
        "message": failure.message if failure else None,
        "hint": failure.hint if failure else None,
    }


def _tell(status: CustomerStatus) -> None:
    head = click.style(f"{status.word:<8}", fg=_COLOURS.get(status.word), bold=True)
    click.echo(f"{head} {click.style(status.customer, bold=True)}")
    for problem in status.problems:
        click.echo(f"         {problem}")
    for item in status.subscriptions:
        click.echo(f"         {item.feed}: {_last(item)}{_due(item)}")
        for delivery in item.open:
            head = f"{delivery.status} {delivery.period} r{delivery.revision}"
            click.echo(words.wrapped(f"{head}{_why(delivery)}", 11))
            if delivery.failure and delivery.failure.hint:
                who = "we" if delivery.failure.party == "us" else f"the {delivery.failure.party}"
                click.echo(words.wrapped(f"{who} must act: {delivery.failure.hint}", 13))
        if item.source_failure:
            click.echo(words.wrapped(item.source_failure.message, 11))
        for period, reason in item.waiting[:_SHOWN_PERIODS]:
            click.echo(f"           waiting {period}: {reason}")
    if status.left_behind:
        total = words.size(sum(upload.sent_bytes for upload in status.left_behind))
        uploads = words.count(len(status.left_behind), "multipart upload")
        click.echo(
            words.wrapped(f"{uploads} left behind ({total}): we may not abort them. {_frees(status)}", 9)
        )


def _frees(status: CustomerStatus) -> str:
    if status.lifecycle_rule is None:
        last = max(upload.abort_at for upload in status.left_behind if upload.abort_at)
        return f"The bucket's own lifecycle rule frees them by {last:%Y-%m-%d}"
    rule = json.dumps({"Rules": [status.lifecycle_rule]})
    return f"This lifecycle rule frees them; the customer adds it to those of the bucket: {rule}"


def _last(item: SubscriptionStatus) -> str:
    last = item.last_delivered
    if last is None or last.delivered_at is None:
        return "nothing delivered yet"
    return (
        f"last {last.period} r{last.revision}, {words.count(last.object_count, 'object')}, "
        f"{words.size(last.total_bytes)}, {last.delivered_at:%Y-%m-%d %H:%M} UTC"
    )


def _due(item: SubscriptionStatus) -> str:
    if not item.due:
        return ""
    more = f" and {len(item.due) - _SHOWN_PERIODS} more" if len(item.due) > _SHOWN_PERIODS else ""
    return f"; due: {', '.join(item.due[:_SHOWN_PERIODS])}{more}"


def _why(delivery: Delivery) -> str:
    return f": {delivery.failure.message}" if delivery.failure else ""
