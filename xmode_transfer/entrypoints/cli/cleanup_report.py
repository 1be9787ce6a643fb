"""How a cleanup is told: a line a period for people, one document for programs."""

import json
from typing import Any

import click

from xmode_transfer.domain.acts import RemovalOutcome
from xmode_transfer.domain.retention import Reason
from xmode_transfer.entrypoints.cli import words
from xmode_transfer.entrypoints.cli.terminal import style
from xmode_transfer.services.cleanup import CleanupOutcome
from xmode_transfer.services.expiring import ExpiringPeriod

_SHOWN_PERIODS = 20
_SHOWN_KEYS = 10
_INDENT = 12
_COLOURS = {
    "cleaned": "green",
    "nothing": "bright_black",
    "dry_run": "cyan",
    "unconfirmed": "yellow",
    "interrupted": "yellow",
    "already_running": "yellow",
    "failed": "red",
    "blocked": "yellow",
}
_LEFT = {
    RemovalOutcome.CHANGED: "changed by somebody since: it is the customer's now, and was left alone",
    RemovalOutcome.RETAINED: "the customer retains it: its bucket does not let it go (a lock, or a policy)",
    RemovalOutcome.FAILED: "could not be removed this time; the next cleanup tries again",
    RemovalOutcome.GONE: "gone already: somebody else had removed it",
}
_STAYS = {
    Reason.NO_POLICY: "without a policy",
    Reason.HELD: "held",
    Reason.UNFINISHED: "being delivered or corrected",
    Reason.UNDATED: "without a date",
    Reason.NEWEST: "the newest of their feed",
    Reason.KEEP_LAST: "among the newest that stay",
    Reason.YOUNG: "young enough",
    Reason.FITS: "within max_bytes",
}
_WHO = {"us": "we", "customer": "the customer", "aws": "AWS, or the network to it"}


def show(outcome: CleanupOutcome, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document(outcome, dry_run=dry_run), ensure_ascii=False))
    else:
        _tell(outcome)


def document(outcome: CleanupOutcome, *, dry_run: bool) -> dict[str, Any]:
    """The JSON of one cleanup (docs/cli.md)."""
    plan, removed, failure = outcome.expiring, outcome.removed, outcome.failure
    superseded = outcome.superseded
    return {
        "customer": outcome.customer,
        "outcome": outcome.outcome,
        "dry_run": dry_run,
        "act": outcome.act_id,
        "expiring": {"objects": plan.objects, "manifests": plan.manifests, "bytes": plan.bytes},
        "periods": [_period(period) for period in outcome.periods],
        "removed": {
            str(one): {"keys": removed.keys[one], "bytes": removed.bytes[one]} for one in sorted(removed.keys)
        },
        "superseded": {
            str(one): {"keys": superseded.keys[one], "bytes": superseded.bytes[one]}
            for one in sorted(superseded.keys)
        },
        "stay": {str(reason): count for reason, count in sorted(outcome.kept.items())},
        "foreign": plan.foreign,
        "left": [{"key": item.key, "outcome": str(item.outcome)} for item in outcome.left],
        "asks": outcome.asks,
        "lifecycle_rule": outcome.lifecycle_rule,
        "seconds": round(outcome.seconds, 3),
        "cause": failure.cause if failure else None,
        "party": failure.party if failure else None,
        "message": failure.message if failure else None,
        "hint": failure.hint if failure else None,
        "request_id": failure.request_id if failure else None,
    }


def _period(period: ExpiringPeriod) -> dict[str, Any]:
    return {
        "feed": period.feed,
        "period": period.period,
        "reason": period.reason,
        "objects": period.objects,
        "manifests": len(period.manifests),
        "bytes": period.bytes,
        "doubtful": period.doubtful,
        "removed": period.removed,
        "removed_bytes": period.removed_bytes,
        "kept_because": period.kept_because or None,
    }


def _tell(outcome: CleanupOutcome) -> None:
    for period in outcome.periods[:_SHOWN_PERIODS]:
        _tell_period(period, outcome)
    more = len(outcome.periods) - _SHOWN_PERIODS
    if more > 0:
        click.echo(f"{'':<{_INDENT}}and {words.count(more, 'period')} more; --json names them all")
    if outcome.kept:
        stays = ", ".join(f"{count:,} {_STAYS[reason]}" for reason, count in outcome.kept.most_common())
        click.echo(words.folded(f"{'stays':<{_INDENT}}{stays}"))
    _tell_left(outcome)
    if outcome.superseded.keys:
        what = ", ".join(f"{count:,} {one}" for one, count in sorted(outcome.superseded.keys.items()))
        told = f"objects of revisions that were never published: {what}"
        click.echo(style(f"{'superseded':<{_INDENT}}", fg="yellow") + told)
    _tell_end(outcome)


def _tell_period(period: ExpiringPeriod, outcome: CleanupOutcome) -> None:
    what = f"{words.count(period.objects, 'object')}, {words.size(period.bytes)}"
    if period.kept_because:
        word, colour, why = "stays", "yellow", period.kept_because
    elif outcome.removed.keys:
        word, colour, why = "removed", "green", period.reason
        if period.removed < period.objects:
            what = f"{period.removed:,} of {what}"
    else:
        word, colour, why = "goes", "cyan", period.reason
    head = style(f"{word:<{_INDENT}}", fg=colour)
    click.echo(words.folded(f"{head}{period.feed} {period.period}: {what}; {why}"))


def _tell_left(outcome: CleanupOutcome) -> None:
    for item in outcome.left[:_SHOWN_KEYS]:
        click.echo(style(f"{item.outcome:<{_INDENT}}", fg="yellow") + item.key)
    if len(outcome.left) > _SHOWN_KEYS:
        click.echo(f"{'':<{_INDENT}}and {len(outcome.left) - _SHOWN_KEYS:,} keys more; --json names them")
    for kind in dict.fromkeys(item.outcome for item in outcome.left):
        click.echo(words.wrapped(f"{kind}: {_LEFT[kind]}", _INDENT))


def _tell_end(outcome: CleanupOutcome) -> None:
    removed, plan = outcome.removed, outcome.expiring
    deleted, hidden = removed.keys[RemovalOutcome.DELETED], removed.keys[RemovalOutcome.HIDDEN]
    click.echo(
        style(f"{outcome.outcome:<{_INDENT}}", fg=_COLOURS[outcome.outcome]) + f"{outcome.customer}: ",
        nl=False,
    )
    if deleted or hidden:
        freed = words.size(removed.bytes[RemovalOutcome.DELETED])
        click.echo(f"{words.count(deleted, 'key')} removed, {freed} freed" if deleted else "nothing freed")
    elif plan.objects or plan.manifests:
        keys = f"{words.count(plan.objects, 'object')} and {words.count(plan.manifests, 'manifest')}"
        click.echo(f"{keys} expire, {words.size(plan.bytes)}; nothing was removed")
    else:
        click.echo("nothing was removed" if outcome.failure else "nothing to remove")
    if outcome.asks:
        told = f"without --confirm it will stop there: {outcome.asks}"
        click.echo(words.wrapped(told, _INDENT))
    if hidden:
        stored = words.size(removed.bytes[RemovalOutcome.HIDDEN])
        told = (
            f"{words.count(hidden, 'key')} hidden, {stored} still stored at the customer's cost: the bucket "
            "keeps versions, and we may not remove them. This lifecycle rule frees them; the customer adds "
            "it to the rules that its bucket has:"
        )
        click.echo(words.wrapped(told, _INDENT))
        click.echo(json.dumps({"Rules": [outcome.lifecycle_rule]}, indent=2))
    if outcome.failure is not None:
        failure = outcome.failure
        click.echo(words.wrapped(failure.message, _INDENT, "why"))
        click.echo(words.wrapped(_WHO.get(failure.party, failure.party), _INDENT, "who must act"))
        if failure.hint:
            click.echo(words.wrapped(failure.hint, _INDENT, "what to do"))
