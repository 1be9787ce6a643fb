"""`xmode-transfer list`: compare a destination with the ledger, and recover a lost ledger with --adopt."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import Opened, Shell
from xmode_transfer.model.errors import ExitCode, XmodeError
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.config import Customer
    from xmode_transfer.upkeep.adopt import AdoptedDelivery, Adoption
    from xmode_transfer.upkeep.listing import ListedKey, Listing, Sum

_SHOWN = 20
_INDENT = 10


@click.command(name="list")
@opening.customer_option
@opening.feed_option
@opening.period_option
@click.option("--summary", is_flag=True, help="Show totals for each feed and period instead of every key.")
@click.option("--adopt", is_flag=True, help="Recover a lost ledger from our manifests.")
@click.option("--dry-run", is_flag=True, help="With --adopt: verify everything, record nothing.")
@opening.by_option
@opening.with_json
def command(
    shell: Shell,
    name: str,
    feed: str | None,
    period: str | None,
    summary: bool,
    adopt: bool,
    dry_run: bool,
    by: str | None,
    as_json: bool,
) -> int:
    """List a customer's destination and compare it with the ledger.

    Each key is ours (as delivered, by size and ETag), a manifest or notice of ours, of a table's log, changed
    since, missing, superseded (of a revision that was never published), withdrawn (by a recall, and still
    there), unmanaged (below our prefix, not written by us), or elsewhere (delivered to another prefix than
    the current one). `verify` checks more. Nothing is written.

    --adopt recovers a lost ledger (docs/operations.md): it verifies the size, checksum and mark of every
    object that a manifest lists, and records the deliveries that the ledger lacks.

    \b
    xmode-transfer list --customer acme --summary
    xmode-transfer list --customer acme --feed us-daily --period 2026-11-22
    xmode-transfer list --customer acme --json | jq -r '.objects[] | select(.standing == "missing").key'
    xmode-transfer list --customer acme --adopt --dry-run
    """
    from xmode_transfer.service import assembly
    from xmode_transfer.upkeep.adopt import adopt as adopt_deliveries

    if (dry_run or by) and not adopt:
        raise click.UsageError("--dry-run and --by require --adopt; a listing changes nothing")
    configuration, scope = shell.configuration(), Scope(feed, period)
    customer = configuration.active_customer(name)
    with shell.opened(configuration, as_json=as_json, quiet=not adopt) as opened:
        if adopt:
            found = adopt_deliveries(
                opened.context,
                configuration,
                customer,
                scope,
                assembly.reader(opened.context, customer),
                by=opening.requester(by),
                dry_run=dry_run,
            )
        else:
            return _list(opened, customer, scope, summary=summary, as_json=as_json)
    if as_json:
        terminal.answer(_adoption(found, dry_run=dry_run))
    else:
        _show_adoption(found, dry_run=dry_run)
    return found.exit_code


def _list(opened: Opened, customer: "Customer", scope: Scope, *, summary: bool, as_json: bool) -> int:
    from xmode_transfer.upkeep.listing import Listing, check_scope

    check_scope(opened.context.ledger, opened.configuration, customer, scope.feed, [scope.period])
    known, url = opened.configuration.feeds, customer.destination.url
    feeds = {name: known[name] for name in customer.feeds if name in known}
    listing = Listing(opened.context, customer, feeds, scope.feed, scope.period)
    if not as_json:
        terminal.show(_line(item) for item in listing if not summary)
        terminal.show(_sum_lines(url, listing))
        return ExitCode.DONE
    document = terminal.JsonDocument(sys.stdout, "objects", customer=customer.name, destination=url)
    try:
        for item in listing:
            if not summary:
                document.row(_document(item))
    except XmodeError as error:
        if not document.begun:
            raise
        document.end(complete=False, **_sums(listing), error=error.log_context())
        return error.exit_code
    document.end(complete=True, **_sums(listing))
    return ExitCode.DONE


def _document(item: "ListedKey") -> dict[str, Any]:
    there, known = item.there, item.known
    return {
        **terminal.picked(item, "key", "standing"),
        "size": there and there.size,
        "modified_at": there and there.modified_at,
        "feed": known and known.feed,
        "period": known and known.period,
        "revision": known and known.revision,
        "delivered_at": known and known.delivered_at,
        "attested": item.attested if known else None,
    }


def _sums(listing: "Listing") -> dict[str, Any]:
    periods = [{"feed": place.feed, "period": place.period, **_counts(of)} for place, of in listing.sums]
    return {**_counts(listing.whole), "periods": periods}


def _counts(of: "Sum") -> dict[str, Any]:
    from xmode_transfer.upkeep.listing import Standing

    counts = {standing: of.counts[standing] for standing in Standing}
    return {"counts": counts, "bytes": of.bytes, "not_attested": of.not_attested}


def _line(item: "ListedKey") -> terminal.Line:
    size = states.size(item.there.size) if item.there else "gone" if item.standing == "missing" else ""
    at = item.there.modified_at if item.there else item.known.delivered_at if item.known else None
    minute = f"{at:%Y-%m-%d %H:%M}" if at else ""
    note = "" if item.attested else "  (not attested)"
    label = terminal.state(item.standing, _INDENT + 1)
    return terminal.Line((f"{size:>10}  {minute}  {item.key}{note}",), label)


def _sum_lines(url: str, listing: "Listing") -> Iterator[terminal.Line]:
    for where, of in listing.sums:
        label = f"{where.feed} {where.period or '(no period)'}" if where.feed else "(no feed)"
        yield terminal.Line((f"{label}: {_sum(of)}",))
    yield terminal.Line((f"{url}: {_sum(listing.whole)}",))


def _sum(of: "Sum") -> str:
    every = _counts(of)["counts"]
    counts = ", ".join(f"{number:,} {standing}" for standing, number in every.items() if number)
    note = f"; {of.not_attested:,} not attested" if of.not_attested else ""
    return f"{counts or 'nothing'}; {states.size(of.bytes)}{note}"


def _adoption(found: "Adoption", *, dry_run: bool) -> dict[str, Any]:
    return {
        **terminal.picked(found, "customer", "known"),
        "dry_run": dry_run,
        "operation": found.operation_id,
        "deliveries": [_adopted(item) for item in found.deliveries],
        **terminal.failure_fields(found.failure),
    }


def _adopted(item: "AdoptedDelivery") -> dict[str, Any]:
    refused = item.outcome == "refused"
    return {
        **item.of._asdict(),
        **terminal.picked(item, "manifest_key", "outcome", "objects", "bytes", "unproven_count"),
        "message": item.message or None,
        "attested": None if refused else item.not_attested is None,
        "not_attested": None if refused else item.not_attested,
        "unproven": [{"key": key, "message": message} for key, message in item.unproven],
    }


def _show_adoption(found: "Adoption", *, dry_run: bool) -> None:
    for item in found.deliveries:
        feed, period, revision = item.of
        number = f" r{revision}" if revision > 1 else ""
        text = item.message or f"{states.count(item.objects, 'object')}, {states.size(item.bytes)}"
        terminal.say(f"{feed} {period}{number}: {text}", label=terminal.state(item.outcome, _INDENT))
        if item.outcome != "refused" and item.not_attested:
            terminal.fact("not attested", item.not_attested, _INDENT)
        for key, message in item.unproven[:_SHOWN]:
            terminal.fact("not proven", f"{key}: {message}", _INDENT)
        terminal.more(item.unproven_count, _SHOWN, "object", _INDENT)
    if found.failure is not None:
        terminal.say((found.failure.message, "bold red"))
        terminal.responsible_for(found.failure.responsible, found.failure.hint)
    elif not found.deliveries:
        known = f"the ledger has every manifest of ours ({found.known:,} known)"
        terminal.say(f"{found.customer}: {known if found.known else 'the destination has no manifests'}")
    if dry_run and found.deliveries:
        terminal.say("dry run: nothing was recorded; run without --dry-run to record these deliveries")
    if any(item.outcome == "refused" for item in found.deliveries):
        terminal.fact(
            "refused",
            "an altered manifest proves nothing. Ask the customer who wrote it, and to move it away. The "
            "next run finds the objects and writes our manifest again, if the source has the period",
        )
    if any(item.outcome != "refused" and item.not_attested for item in found.deliveries):
        terminal.fact(
            "not attested",
            "nothing proves that we delivered what these manifests list, so no receipt is signed for it. "
            "Add our public keys to service.yaml (receipts.public_keys), then adopt again",
        )
    if any(item.unproven_count for item in found.deliveries):
        terminal.fact(
            "fix",
            "run `verify` to list unproven objects, and `verify --repair` to deliver them again; cleanup "
            "never deletes them",
        )
