"""`xmode-transfer list --adopt`: what a lost ledger no longer knows is taken back from its manifests."""

import json
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.entrypoints.cli import Shell, words
from xmode_transfer.entrypoints.cli.terminal import secho, style

if TYPE_CHECKING:
    from xmode_transfer.services.adopt import AdoptedDelivery, Adoption

_COLOURS = {"adopted": "green", "attested": "green", "found": "cyan", "refused": "yellow"}
_SHOWN = 20
_INDENT = 10


def adopt(
    shell: Shell,
    name: str,
    feed: str | None,
    period: str | None,
    by: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Adopts, tells, and answers the exit code."""
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files
    from xmode_transfer.domain.verification import Scope
    from xmode_transfer.entrypoints.cli import person, progress, stopping
    from xmode_transfer.services import adopt as service
    from xmode_transfer.services.run import active_customer

    configuration = config_files.load(shell.config_dir)
    customer = active_customer(configuration, name)
    with (
        stopping.on_signals() as stop,
        progress.shown(as_json=as_json) as shown,
        bootstrap.workbench(configuration, shown, stop) as bench,
    ):
        found = service.adopt(
            bench,
            configuration,
            customer,
            Scope(feed, period),
            bootstrap.reader(bench, customer),
            by=person.asking(by),
            dry_run=dry_run,
        )
    if as_json:
        click.echo(json.dumps(_document(found, dry_run=dry_run), ensure_ascii=False))
    else:
        _tell(found, dry_run=dry_run)
    return found.exit_code


def _document(found: "Adoption", *, dry_run: bool) -> dict[str, Any]:
    failure = found.failure
    return {
        "customer": found.customer,
        "dry_run": dry_run,
        "act": found.act_id,
        "known": found.known,
        "deliveries": [_delivery(item) for item in found.deliveries],
        "cause": failure.cause if failure else None,
        "party": failure.party if failure else None,
        "message": failure.message if failure else None,
        "hint": failure.hint if failure else None,
    }


def _delivery(item: "AdoptedDelivery") -> dict[str, Any]:
    return {
        **item.place._asdict(),
        "manifest_key": item.manifest_key,
        "outcome": item.outcome,
        "message": item.message or None,
        "attested": None if item.outcome == "refused" else item.not_attested is None,
        "not_attested": item.not_attested if item.outcome != "refused" else None,
        "objects": item.objects,
        "bytes": item.bytes,
        "unproven_count": item.unproven_count,
        "unproven": [{"key": key, "message": message} for key, message in item.unproven],
    }


def _tell(found: "Adoption", *, dry_run: bool) -> None:
    for item in found.deliveries:
        place = item.place
        revision = f" r{place.revision}" if place.revision > 1 else ""
        word = style(f"{item.outcome:<{_INDENT}}", fg=_COLOURS[item.outcome], bold=True)
        told = f"{words.count(item.objects, 'object')}, {words.size(item.bytes)}"
        click.echo(f"{word}{place.feed} {place.period}{revision}: {item.message or told}")
        if item.not_attested and item.outcome != "refused":
            click.echo(words.wrapped(item.not_attested, _INDENT, "not attested"))
        for key, message in item.unproven[:_SHOWN]:
            click.echo(words.wrapped(f"{key}: {message}", _INDENT, "not proven"))
        if item.unproven_count > _SHOWN:
            click.echo(f"{'':<{_INDENT}}and {item.unproven_count - _SHOWN:,} more: see --json")
    if found.failure is not None:
        secho(found.failure.message, fg="red", bold=True)
        if found.failure.hint:
            click.echo(words.wrapped(found.failure.hint, 2, "what to do"))
    if not found.deliveries and found.failure is None:
        told = f"every manifest of ours is in the ledger ({found.known:,} known)"
        click.echo(f"{found.customer}: {told if found.known else 'no manifest lies at the destination'}")
    elif dry_run:
        click.echo("dry run: nothing was recorded; without --dry-run these are taken back into the ledger")
    if any(item.outcome == "refused" for item in found.deliveries):
        hint = (
            "a manifest that was altered is no proof any more. Ask the customer who wrote it; once it is "
            "moved away, the next run finds the objects and puts ours again, if the source has the period"
        )
        click.echo(words.wrapped(hint, 2, "refused"))
    if any(item.not_attested and item.outcome != "refused" for item in found.deliveries):
        hint = (
            "nothing says that we have delivered what these manifests list, so no receipt is signed for it. "
            "Are our public keys in service.yaml (receipts.public_keys)? Adopt again when they are"
        )
        click.echo(words.wrapped(hint, 2, "not attested"))
    if any(item.unproven_count for item in found.deliveries):
        hint = (
            "`verify` names what is not proven, and --repair delivers again what is missing; no cleanup ever "
            "touches it"
        )
        click.echo(words.wrapped(hint, 2, "what to do"))
