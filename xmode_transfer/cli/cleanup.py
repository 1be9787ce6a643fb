"""`xmode-transfer cleanup`: delete expired objects and show the result."""

from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.model.upkeep import RemovalOutcome
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.transfer.removing import ExpiringPeriod, Removed
    from xmode_transfer.upkeep.cleanup import CleanupOutcome

_SHOWN_PERIODS = 20
_SHOWN_KEYS = 10
_INDENT = 12
_REASONS = {
    RemovalOutcome.CHANGED: "changed since delivery: it now belongs to the customer and was kept",
    RemovalOutcome.RETAINED: "retained by the customer's bucket (a lock, or a policy)",
    RemovalOutcome.FAILED: "not deleted; the next cleanup tries again",
    RemovalOutcome.GONE: "already deleted by someone else",
}
_KEPT = {
    "no_policy": "without a retention policy",
    "held": "held",
    "unfinished": "being delivered or corrected",
    "undated": "without a date",
    "newest": "the newest of their feed",
    "keep_last": "within keep_last",
    "young": "not old enough",
    "fits": "within max_bytes",
}


@click.command()
@opening.customer_option
@opening.feed_option
@click.option(
    "--dry-run", is_flag=True, help="Show what would be deleted and why; delete and record nothing."
)
@click.option("--confirm", is_flag=True, help="Allow a first cleanup, or more than retention.caps allow.")
@opening.by_option
@opening.with_json
def command(
    shell: Shell, name: str, feed: str | None, dry_run: bool, confirm: bool, by: str | None, as_json: bool
) -> int:
    """Delete objects that have expired under a customer's retention policy.

    Only objects that we delivered and that have not changed since are deleted, a manifest before its objects.
    Without `retention` in the customer's file nothing expires. The newest complete delivery of each feed is
    kept, as are deliveries that are held (`hold`) or being corrected. A customer's first cleanup, and one
    beyond `retention.caps`, deletes nothing without --confirm.

    \b
    xmode-transfer cleanup --customer acme --dry-run
    xmode-transfer cleanup --customer acme --confirm --by alice
    xmode-transfer cleanup --customer acme --feed us-daily --json
    """
    from xmode_transfer.upkeep.cleanup import cleanup

    if dry_run and confirm:
        raise click.UsageError("use either --dry-run or --confirm: a dry run deletes nothing")
    configuration = shell.configuration()
    with shell.opened(configuration, as_json=as_json) as opened:
        outcome = cleanup(
            opened.context,
            configuration,
            name,
            by=opening.requester(by),
            feed=feed,
            confirmed=confirm,
            dry_run=dry_run,
        )
    if as_json:
        terminal.answer(_document(outcome, dry_run=dry_run))
    else:
        _show(outcome)
    return outcome.exit_code


def _document(outcome: "CleanupOutcome", *, dry_run: bool) -> dict[str, Any]:
    plan = outcome.expiring
    return {
        **terminal.picked(outcome, "customer", "outcome", "asks", "lifecycle_rule"),
        "dry_run": dry_run,
        "operation": outcome.operation_id,
        "expiring": terminal.picked(plan, "objects", "manifests", "bytes"),
        "periods": [_period(period) for period in outcome.periods],
        "removed": _removed(outcome.removed),
        "superseded": _removed(outcome.superseded),
        "stay": dict(sorted(outcome.kept.items())),
        "unmanaged": plan.unmanaged,
        "left": [terminal.picked(item, "key", "outcome") for item in outcome.left],
        "seconds": round(outcome.seconds, 3),
        **terminal.failure_fields(outcome.failure),
    }


def _removed(removed: "Removed") -> dict[str, Any]:
    return {one: {"keys": removed.keys[one], "bytes": removed.bytes[one]} for one in sorted(removed.keys)}


def _period(period: "ExpiringPeriod") -> dict[str, Any]:
    return {
        **terminal.picked(period, "feed", "period", "reason", "objects", "bytes", "doubtful"),
        **terminal.picked(period, "removed", "removed_bytes"),
        "manifests": len(period.manifests),
        "kept_because": period.kept_because or None,
    }


def _show(outcome: "CleanupOutcome") -> None:
    for period in outcome.periods[:_SHOWN_PERIODS]:
        _show_period(period, outcome)
    terminal.more(len(outcome.periods), _SHOWN_PERIODS, "period", _INDENT)
    if outcome.kept:
        kept = ", ".join(f"{count:,} {_KEPT[reason]}" for reason, count in outcome.kept.most_common())
        terminal.say(kept, label=f"{'stays':<{_INDENT}}")
    for item in outcome.left[:_SHOWN_KEYS]:
        terminal.say(item.key, label=terminal.state(item.outcome, _INDENT))
    terminal.more(len(outcome.left), _SHOWN_KEYS, "key", _INDENT)
    for kind in dict.fromkeys(item.outcome for item in outcome.left):
        terminal.say(f"{kind}: {_REASONS[kind]}", indent=_INDENT)
    if outcome.superseded.keys:
        counts = ", ".join(f"{count:,} {one}" for one, count in sorted(outcome.superseded.keys.items()))
        label = terminal.state("superseded", _INDENT)
        terminal.say(f"objects of revisions that were never published: {counts}", label=label)
    _show_end(outcome)


def _show_period(period: "ExpiringPeriod", outcome: "CleanupOutcome") -> None:
    what = f"{states.count(period.objects, 'object')}, {states.size(period.bytes)}"
    if period.kept_because:
        word, why = "stays", period.kept_because
    elif outcome.removed.keys:
        word, why = "removed", period.reason
        if period.removed < period.objects:
            what = f"{period.removed:,} of {what}"
    else:
        word, why = "expires", period.reason
    terminal.say(f"{period.feed} {period.period}: {what}; {why}", label=terminal.state(word, _INDENT))


def _show_end(outcome: "CleanupOutcome") -> None:
    removed, plan = outcome.removed, outcome.expiring
    deleted, hidden = removed.keys[RemovalOutcome.DELETED], removed.keys[RemovalOutcome.HIDDEN]
    if deleted:
        freed = states.size(removed.bytes[RemovalOutcome.DELETED])
        text = f"{states.count(deleted, 'key')} deleted, {freed} freed"
    elif hidden:
        text = "nothing freed"
    elif plan.objects or plan.manifests:
        keys = f"{states.count(plan.objects, 'object')} and {states.count(plan.manifests, 'manifest')}"
        text = f"{keys} expire, {states.size(plan.bytes)}; nothing was deleted"
    else:
        text = "nothing was deleted" if outcome.failure else "nothing to delete"
    terminal.say(f"{outcome.customer}: {text}", label=terminal.state(outcome.outcome, _INDENT))
    if outcome.asks:
        terminal.say(f"--confirm is required: {outcome.asks}", indent=_INDENT)
    if hidden:
        stored = states.size(removed.bytes[RemovalOutcome.HIDDEN])
        terminal.say(
            f"{states.count(hidden, 'key')} hidden, {stored} still stored at the customer's cost: the bucket "
            "keeps versions, and we may not delete them. Ask the customer to add this lifecycle rule to the "
            "bucket's rules:",
            indent=_INDENT,
        )
        terminal.answer({"Rules": [outcome.lifecycle_rule]}, indent=2)
    if outcome.failure is not None:
        terminal.say(outcome.failure.message, label=f"{'reason':<13}", indent=_INDENT)
        terminal.responsible_for(outcome.failure.responsible, outcome.failure.hint, _INDENT)
