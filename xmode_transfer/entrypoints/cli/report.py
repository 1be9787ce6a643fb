"""How a run is told: a line a delivery for people, one document for programs."""

import json
from collections.abc import Iterable
from typing import Any

import click

from xmode_transfer import telemetry
from xmode_transfer.domain.config import Configuration, CustomerState
from xmode_transfer.domain.errors import ExitCode, XmodeError
from xmode_transfer.domain.records import DeliveryOutcome, Failure
from xmode_transfer.domain.verification import Scope
from xmode_transfer.entrypoints.cli import failures, words
from xmode_transfer.entrypoints.cli.terminal import secho, style
from xmode_transfer.services.due import CustomerRun, worst
from xmode_transfer.services.run import preview
from xmode_transfer.services.sending import defect_of
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event

Result = CustomerRun | XmodeError
COLOURS = {
    "delivered": "green",
    "skipped": "bright_black",
    "planned": "cyan",
    "running": "cyan",
    "failed": "red",
    "blocked": "yellow",
    "already_running": "yellow",
    "interrupted": "yellow",
}
_WHO = {"us": "we", "customer": "the customer", "aws": "AWS, or the network to it"}
_SHOWN_FILES = 10
_INDENT = 10  # below the outcome


def document(customer: str, result: Result) -> dict[str, Any]:
    """The JSON of one customer's run (docs/cli.md)."""
    if isinstance(result, XmodeError):
        return {"customer": customer, "outcome": "failed", "deliveries": [], "error": result.log_context()}
    return {
        "customer": customer,
        "outcome": result.outcome,
        "deliveries": [_delivery(delivery) for delivery in result.deliveries],
        "waiting": [
            {"feed": feed, "period": state.period.label, "reason": state.reason}
            for feed, state in result.waiting
        ],
        "outside_look_back": result.older,
    }


def _delivery(outcome: DeliveryOutcome) -> dict[str, Any]:
    failure = outcome.failure
    return {
        "feed": outcome.feed,
        "period": outcome.period,
        "revision": outcome.revision,
        "outcome": outcome.outcome,
        "uploaded": outcome.uploaded,
        "skipped": outcome.skipped,
        "failed": outcome.failed,
        "sent_again": outcome.sent_again,
        "missing": outcome.missing,
        "bytes": outcome.bytes,
        "seconds": round(outcome.seconds, 3),
        "manifest_key": outcome.manifest_key,
        "cause": failure.cause if failure else None,
        "party": failure.party if failure else None,
        "message": failure.message if failure else None,
        "hint": failure.hint if failure else None,
        "request_id": failure.request_id if failure else None,
        "files": [problem._asdict() for problem in outcome.problems],
    }


def tell(customer: str, result: Result) -> None:
    """The same for people."""
    if isinstance(result, XmodeError):
        click.echo(style(f"{'failed':<10}", fg="red") + customer)
        failures.show(result, as_json=False)
        return
    for outcome in result.deliveries:
        _tell_delivery(outcome)
    if not result.deliveries:
        click.echo(f"{customer}: nothing is due")
    for feed, state in result.waiting:
        waiting = style(f"{'waiting':<10}", fg="cyan")
        click.echo(words.folded(f"{waiting}{feed} {state.period.label}: {state.reason}"))
    if result.older:
        periods = words.count(result.older, "period")
        click.echo(
            words.folded(f"{periods} at the source lie outside the look-back window; --since delivers them")
        )


def _tell_delivery(outcome: DeliveryOutcome) -> None:
    head = style(f"{outcome.outcome:<10}", fg=COLOURS.get(outcome.outcome), bold=True)
    revision = f" r{outcome.revision}" if outcome.revision > 1 else ""
    facts = []
    if outcome.uploaded:
        rate = words.size(outcome.bytes / outcome.seconds) if outcome.seconds > 0 else "?"
        facts.append(f"{words.count(outcome.uploaded, 'file')} sent, {words.size(outcome.bytes)}")
        facts.append(f"{words.duration(outcome.seconds)}, {rate}/s")
    if outcome.sent_again:
        facts.append(f"{outcome.sent_again:,} of them again: gone from the bucket since")
    if outcome.skipped:
        facts.append(f"{words.count(outcome.skipped, 'file')} there already")
    if outcome.failed:
        facts.append(f"{words.count(outcome.failed, 'file')} not delivered")
    if outcome.missing:
        facts.append(f"{words.count(outcome.missing, 'object')} gone, and named as missing in the manifest")
    of_period = f" {outcome.period}{revision}" if outcome.period else ""  # without: the feed's source
    told = f"{outcome.feed}{of_period}: {'; '.join(facts) or 'nothing sent'}"
    click.echo(words.folded(head + told))
    if outcome.manifest_key and outcome.outcome == "delivered":
        click.echo(f"{'':<10}manifest {outcome.manifest_key}")
    for problem in outcome.problems[:_SHOWN_FILES]:
        click.echo(words.folded(f"{'':<10}{problem.name}: {problem.message}"))
    if len(outcome.problems) > _SHOWN_FILES:
        click.echo(f"{'':<10}and {len(outcome.problems) - _SHOWN_FILES} more: see the log or --json")
    if outcome.failure:
        _tell_failure(outcome.failure)


def _tell_failure(failure: Failure) -> None:
    click.echo(words.wrapped(failure.message, _INDENT))
    again = "yes, by itself" if failure.retryable else "by the next run"
    lines = [("who must act", _WHO.get(failure.party, failure.party)), ("tried again", again)]
    if failure.party == "customer":
        lines[1] = ("tried again", "by the next run; it ends the same way until that is mended")
    if failure.hint:
        lines.append(("what to do", failure.hint))
    if failure.request_id:
        lines.append(("AWS request", failure.request_id))
    for name, value in lines:
        click.echo(words.wrapped(value, _INDENT, name))


def show(results: Iterable[tuple[str, Result]], *, as_json: bool, everyone: bool) -> None:
    """All of a run."""
    pairs = list(results)
    if as_json:
        documents = [document(*pair) for pair in pairs]
        click.echo(json.dumps({"customers": documents} if everyone else documents[0], ensure_ascii=False))
        return
    for customer, result in pairs:
        if everyone:
            secho(customer, bold=True)
        tell(customer, result)


def show_nobody(configuration: Configuration) -> None:
    """That nobody is active, and why."""
    if not configuration.customers:
        click.echo("no customer is configured; see docs/configuration.md")
        return
    for state in CustomerState:
        names = [name for name, customer in configuration.customers.items() if customer.state is state]
        if names:
            click.echo(words.wrapped(f"{state}: {', '.join(names)}", 0))
    hint = "`xmode-transfer onboard --confirm NAME` checks a pending customer's access and activates it"
    click.echo(words.wrapped(f"no customer is active: nothing is delivered. {hint}", 0))


def show_preview(
    bench: Workbench, configuration: Configuration, names: list[str], scope: Scope, *, as_json: bool
) -> int:
    """The plan with its reasons, streamed; nothing is written and nobody called. Of several customers, one
    whose plan cannot be made does not hide the others'."""
    documents, codes = [], []
    for name in names:
        result = CustomerRun(name, explicit=not scope.is_whole)
        try:
            documents.append(_preview(bench, configuration, result, scope, as_json=as_json))
            codes.append(ExitCode.WILL_RETRY if result.unfollowed else ExitCode.DONE)
        except Exception as error:
            if len(names) == 1:
                raise
            if not isinstance(error, XmodeError):
                telemetry.exception(Event.DEFECT, customer=name)
                error = defect_of(error)
            documents.append(document(name, error))
            codes.append(error.exit_code)
            if not as_json:
                tell(name, error)
    if as_json:
        click.echo(
            json.dumps(documents[0] if len(documents) == 1 else {"customers": documents}, ensure_ascii=False)
        )
    else:
        click.echo("dry run: nothing was written and nobody was called")
    return worst(codes)


def _preview(
    bench: Workbench,
    configuration: Configuration,
    result: CustomerRun,
    scope: Scope,
    *,
    as_json: bool,
) -> dict[str, Any]:
    name = result.customer
    deliveries = []
    for feed, state, entries in preview(bench, configuration, name, scope, result):
        if not as_json:
            secho(f"{name} {feed.name} {state.period.label}", bold=True)
        counts: dict[str, int] = {}
        total = 0
        listed = []
        for entry in entries:
            counts[entry.action] = counts.get(entry.action, 0) + 1
            total += entry.size if entry.action == "upload" else 0
            if as_json:
                listed.append(entry._asdict())
            else:
                click.echo(f"  {entry.action:<9}{words.size(entry.size):>10}  {entry.name}  ({entry.reason})")
        deliveries.append(
            {
                "feed": feed.name,
                "period": state.period.label,
                "counts": counts,
                "bytes": total,
                "plan": listed,
            }
        )
        if not as_json:
            told = ", ".join(f"{number:,} {action}" for action, number in sorted(counts.items())) or "nothing"
            click.echo(f"  = {told}; {words.size(total)} to send")
    if not as_json:
        if not deliveries:
            click.echo(f"{name}: nothing is due")
        for feed_name, waiting in result.waiting:
            click.echo(f"waiting   {feed_name} {waiting.period.label}: {waiting.reason}")
        for feed_name, problem in result.unfollowed:
            click.echo(f"not read  {feed_name} {problem.name}: {problem.message}")
    return {
        "customer": name,
        "outcome": "planned",
        "deliveries": deliveries,
        "problems": [{"feed": feed_name, **problem._asdict()} for feed_name, problem in result.unfollowed],
    }
