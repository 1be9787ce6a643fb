"""`xmode-transfer recall`: take back what was delivered, and show recalls."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import FILE, Opened, Shell
from xmode_transfer.model.errors import ConfigError, ExitCode, Interrupted
from xmode_transfer.model.recall import Recall, RecallProgress, RecallState
from xmode_transfer.model.upkeep import Removal, RemovalOutcome, Scope, purge_command
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.config import Configuration
    from xmode_transfer.upkeep.recall import Plan, Share

_AT_ONCE = 4  # customers
_SHOWN = 20
_INDENT = 12
_DONE = (RemovalOutcome.DELETED, RemovalOutcome.GONE)


@click.group(name="recall", invoke_without_command=True)
@opening.scope_options
@click.option("--files", "patterns", metavar="GLOB", multiple=True, help="Only files like this: '*/eu/*'.")
@click.option("--names", metavar="FILE", type=FILE, help="Only the files that FILE names, one a line.")
@opening.one_customer_option
@click.option("--reason", metavar="TEXT", help="Why: for the record and the report.")
@click.option("--by", metavar="NAME", help="Who requests it.")
@click.option(
    "--despite-hold", metavar="REASON", default="", help="Also withdraw what `hold` keeps, and why."
)
@click.option("--dry-run", is_flag=True, help="Show what would be withdrawn; record and change nothing.")
@click.option("--confirm", is_flag=True, help="Record the recall and carry it out.")
@opening.with_json
@click.pass_context
def command(
    context: click.Context,
    shell: Shell,
    scope: Scope,
    patterns: tuple[str, ...],
    names: Path | None,
    name: str | None,
    reason: str | None,
    by: str | None,
    despite_hold: str,
    dry_run: bool,
    confirm: bool,
    as_json: bool,
) -> int:
    """Take back delivered files from all customers that hold them, and never deliver them again.

    Each customer gets a new manifest without the files; then older manifests and the objects are deleted.
    Without --confirm, only the plan is shown. The daemon continues for customers that are blocked.

    \b
    xmode-transfer recall --feed us-daily --period 2026-11-22 --reason "wrong file" --by alice
    xmode-transfer recall --feed us-daily --since 2026-01-01 --names optout.txt \\
        --reason "opt-out 4711" --by alice --confirm
    xmode-transfer recall list
    xmode-transfer recall show ID --report optout.report

    \b
    Exit codes: 0 done; 2 nothing matches, or --confirm is required; 3 failed for a customer, is tried
    again; 4 blocked for a customer.
    """
    from xmode_transfer.upkeep import recall

    if context.invoked_subcommand is not None:
        return ExitCode.DONE
    if scope.feed is None or scope.is_whole:
        raise click.UsageError("give --feed, and --period, or a range with --since and --until")
    if not reason or not by:
        raise click.UsageError("give --reason and --by: they are recorded, and are in the report")
    if dry_run and confirm:
        raise click.UsageError("use either --dry-run or --confirm: a dry run changes nothing")
    listed = _names(names) if names is not None else ()
    configuration = shell.configuration()
    with shell.opened(configuration, as_json=as_json) as opened:
        request = recall.Request(scope.feed, scope, patterns, listed, name, reason, by, despite_hold)
        plan = recall.plan(opened.context, configuration, request)
        if not as_json:
            with opened.progress.hidden():
                _show_plan(plan)
        if plan.is_empty or not confirm:
            outcome = "nothing" if plan.is_empty else "dry_run" if dry_run else "unconfirmed"
            _show_unchanged(plan, outcome, as_json=as_json)
            return ExitCode.DONE if outcome == "dry_run" else ExitCode.USAGE
        recall.begin(opened.context, plan, Path(configuration.service.recalls))
        progress = opened.context.ledger.recalls.progress(plan.recall.id)
        return _carry_out(opened, plan.recall, progress, plan, as_json=as_json)


def _names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"--names: {path} cannot be read: {why}") from None
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise ConfigError(f"--names: {path} names no file", hint="write one name a line")
    return found


@command.command(name="list")
@opening.with_json
def list_command(shell: Shell, as_json: bool) -> int:
    """List all recalls, newest first."""
    from xmode_transfer.service import assembly

    with assembly.ledger(shell.configuration().service) as (ledger, _):
        found = [(item, ledger.recalls.progress(item.id)) for item in ledger.recalls.newest()]
    if as_json:
        terminal.answer({"recalls": [_document(item, progress) for item, progress in found]})
        return ExitCode.DONE
    for item, progress in found:
        _show_head(item, progress)
    if not found:
        terminal.say("nothing was ever recalled")
    return ExitCode.DONE


@command.command()
@click.argument("recall_id", metavar="ID")
@click.option("--report", metavar="FILE", type=FILE, help="Write a signed report to FILE.")
@opening.with_json
def show(shell: Shell, recall_id: str, report: Path | None, as_json: bool) -> int:
    """Show a recall: each customer, and each key that is not gone, with the reason and the next step.

    --report writes what was removed from whom and when, and what was not and why, signed with the key of
    receipts (receipts.key). `xmode-transfer verify --receipt FILE` checks it offline (docs/recall.md).
    """
    from xmode_transfer.cli import receipts
    from xmode_transfer.upkeep import recall_report
    from xmode_transfer.upkeep.receipts import RECALL_FORMAT

    configuration = shell.configuration()
    with shell.opened(configuration, as_json=as_json, quiet=True) as opened:
        item, progress = _known(opened, recall_id)
        _show_outcome(opened, item, progress, as_json=as_json)
        if report is not None:
            with receipts.new_file(configuration, report, RECALL_FORMAT) as file:
                recall_report.write(opened.context, configuration, item, file)
                if not as_json:
                    terminal.say(f"report {file.path}, signed with the key {file.key_id}")
    return ExitCode.DONE


@command.command()
@click.argument("recall_id", metavar="ID")
@opening.with_json
def retry(shell: Shell, recall_id: str, as_json: bool) -> int:
    """Continue a recall now for the customers that are not done. The daemon does so by itself."""
    configuration = shell.configuration()
    with shell.opened(configuration, as_json=as_json) as opened:
        item, progress = _known(opened, recall_id)
        return _carry_out(opened, item, progress, None, as_json=as_json)


def _known(opened: Opened, recall_id: str) -> tuple[Recall, list[RecallProgress]]:
    recalls = opened.context.ledger.recalls
    found = recalls.get(recall_id)
    if found is None:
        raise ConfigError(
            f"there is no recall {recall_id}", hint="`xmode-transfer recall list` has their IDs"
        )
    return found, recalls.progress(recall_id)


def _carry_out(
    opened: Opened, item: Recall, progress: Sequence[RecallProgress], plan: "Plan | None", *, as_json: bool
) -> int:
    """Carry the recall out for the customers that are not done, and put their notices."""
    from xmode_transfer.alerting.notifying import Notices
    from xmode_transfer.delivery import judging
    from xmode_transfer.service.maintenance import COMMAND_LEASE
    from xmode_transfer.transfer.context import held, in_order
    from xmode_transfer.upkeep import recall, recall_report

    context, configuration = opened.context, opened.configuration

    def work(customer: str) -> RecallProgress:
        context.check_stop(f"`xmode-transfer recall retry {item.id}`, or the daemon, continues")
        may_send = partial(judging.may_send, context, customer)
        return recall.carry_out(context, configuration, item.id, customer, may_send=may_send)

    notices = Notices(context)
    waiting = [of.customer for of in progress if of.state is not RecallState.DONE]
    with (
        held(context.ledger, f"{COMMAND_LEASE}{item.id}", context.holder),
        in_order(work, waiting, name="recall", threads=_AT_ONCE) as results,
    ):
        for _ in results:
            notices.put_withdrawn(configuration)
    notices.close(0)
    progress = context.ledger.recalls.progress(item.id)
    with opened.progress.hidden():
        _show_outcome(opened, item, progress, plan, as_json=as_json)
    state = recall_report.state_of(progress)
    if context.stop.is_set() and state is not RecallState.DONE:
        raise Interrupted("stopped on request", hint=f"continue with `xmode-transfer recall retry {item.id}`")
    codes = {RecallState.DONE: ExitCode.DONE, RecallState.BLOCKED: ExitCode.BLOCKED}
    return codes.get(state, ExitCode.WILL_RETRY)


def _show_plan(plan: "Plan") -> None:
    for share in plan.customers:
        notes = [f"{share.held:,} held"] if share.held else []
        notes += [f"{share.elsewhere:,} elsewhere (below a former prefix)"] if share.elsewhere else []
        periods, objects = states.count(share.periods, "period"), states.count(share.objects, "object")
        facts = ", ".join([periods, objects, states.size(share.bytes), *notes])
        terminal.say(f"{share.customer}: {facts}", label=terminal.state("planned", _INDENT))
    for unknown in plan.unknown[:_SHOWN]:
        terminal.say(f"{unknown}: no customer ever received it", label=terminal.state("unknown", _INDENT))
    terminal.more(len(plan.unknown), _SHOWN, "unknown name", _INDENT)


def _show_unchanged(plan: "Plan", outcome: str, *, as_json: bool) -> None:
    recall = plan.recall
    if as_json:
        customers = [_share(share) for share in plan.customers]
        members = {"feed": recall.feed, "reason": recall.reason, "by": recall.person, "outcome": outcome}
        terminal.answer({"recall": None, **members, **_files(plan), "customers": customers})
        return
    files, whom = states.count(len(plan.files), "file"), states.count(len(plan.customers), "customer")
    text = f"{files} of {recall.feed}, {whom}: {states.count(plan.objects, 'object')}, "
    text += f"{states.size(plan.bytes)}; nothing was changed"
    terminal.say("nothing matches" if plan.is_empty else text, label=terminal.state(outcome, _INDENT))
    if outcome == "unconfirmed":
        terminal.say("--confirm is required: it records the recall and carries it out", indent=_INDENT)


def _files(plan: "Plan") -> dict[str, Any]:
    return {"files": len(plan.files), "unknown": plan.unknown}


def _share(share: "Share") -> dict[str, Any]:
    return terminal.picked(share, "customer", "periods", "objects", "bytes", "held", "elsewhere")


def _show_outcome(
    opened: Opened,
    item: Recall,
    progress: Sequence[RecallProgress],
    plan: "Plan | None" = None,
    *,
    as_json: bool,
) -> None:
    ledger, configuration = opened.context.ledger, opened.configuration
    left = {}
    for of in progress:
        found = ledger.operations.of_recall(of.customer, item.id)
        left[of.customer] = [removal for removal in found if removal.outcome not in _DONE]
    if as_json:
        document = _document(item, progress)
        customers: list[dict[str, Any]] = document["customers"]
        for customer in customers:
            customer["left"] = [
                _left(configuration, customer["customer"], one) for one in left[customer["customer"]]
            ]
        terminal.answer({"recall": item.id, **document, **(_files(plan) if plan is not None else {})})
        return
    _show_head(item, progress)
    for of in progress:
        _show_customer(configuration, of, left[of.customer])


def _document(item: Recall, progress: Sequence[RecallProgress]) -> dict[str, Any]:
    from xmode_transfer.upkeep.recall_report import state_of

    return {
        **terminal.picked(item, "id", "feed", "reason"),
        "by": item.person,
        **terminal.picked(item, "started_at", "finished_at"),
        "customer": item.customer or None,
        "despite_hold": item.despite_hold or None,
        "state": state_of(progress),
        "customers": [
            {
                **terminal.picked(of, "customer", "state", "objects", "bytes", "outcomes", "attempts"),
                **terminal.picked(of, "updated_at", "next_attempt_at", "finished_at"),
                **terminal.failure_fields(of.failure),
            }
            for of in progress
        ],
    }


def _left(configuration: "Configuration", customer: str, removal: Removal) -> dict[str, Any]:
    return {
        **terminal.picked(removal, "key", "period", "revision", "manifest", "outcome", "at"),
        "locked_until": removal.locked_until,
        "reason": _reason(removal),
        "fix": _next_step(configuration, customer, removal),
    }


def _reason(removal: Removal) -> str:
    from xmode_transfer.upkeep.recall_report import reason_of

    return reason_of(removal)


def _next_step(configuration: "Configuration", customer: str, removal: Removal) -> str | None:
    """Return what to do about a key that is not gone."""
    known = configuration.customers.get(customer)
    if removal.outcome is RemovalOutcome.HIDDEN and known is not None:
        command = purge_command(known.destination.bucket, removal.key)
        return f"the customer purges the versions of each key, like: {command}"
    return {
        RemovalOutcome.RETAINED: "ask the customer to end the lock, or to allow s3:DeleteObject; the daemon "
        "tries again each day",
        RemovalOutcome.CHANGED: "ask the customer whether the object that replaced ours must go too",
        RemovalOutcome.HELD: "recall again with --despite-hold REASON, or when the hold has ended",
        RemovalOutcome.ELSEWHERE: "the customer deletes the key; verify that it did",
        RemovalOutcome.FAILED: "see the log; the daemon tries again",
    }.get(removal.outcome)


def _show_head(item: Recall, progress: Sequence[RecallProgress]) -> None:
    from xmode_transfer.upkeep.recall_report import state_of

    whom = f" from {item.customer}" if item.customer else ""
    text = (
        f"{item.id}: {item.feed}{whom}, {item.reason} (by {item.person}, {terminal.minute(item.started_at)})"
    )
    terminal.say(text, label=terminal.state(state_of(progress), _INDENT))


def _show_customer(configuration: "Configuration", progress: RecallProgress, left: Sequence[Removal]) -> None:
    counts = ", ".join(f"{number:,} {word}" for word, number in progress.outcomes.items() if number)
    text = counts or f"{states.count(progress.objects, 'object')}, {states.size(progress.bytes)} to withdraw"
    terminal.say(f"{progress.customer}: {text}", label=terminal.state(progress.state, _INDENT))
    if progress.failure is not None:
        terminal.show_failure(progress.failure, _INDENT)
    for reason in dict.fromkeys(map(_reason, left)):
        alike = [removal for removal in left if _reason(removal) == reason]
        terminal.say(reason, label=terminal.state(alike[0].outcome, _INDENT), indent=_INDENT)
        for removal in alike[:_SHOWN]:
            terminal.say(removal.key, indent=2 * _INDENT)
        terminal.more(len(alike), _SHOWN, "key", 2 * _INDENT)
        step = _next_step(configuration, progress.customer, alike[0])
        if step:
            terminal.fact("next", step, 2 * _INDENT)
