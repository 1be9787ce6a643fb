"""`xmode-transfer run`: deliver what is due, or show the plan, and show the result."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer import telemetry
from xmode_transfer.cli import opening, release, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.model.checks import Verdict
from xmode_transfer.model.errors import ExitCode, XmodeError, worst
from xmode_transfer.model.records import DeliveryOutcome
from xmode_transfer.model.upkeep import Scope
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.config import Configuration
    from xmode_transfer.delivery.due import CustomerRun
    from xmode_transfer.transfer.context import Context

    Result = CustomerRun | XmodeError

_SHOWN_FILES = 10
_INDENT = 10
_ACTIONS = {"upload": "to upload", "skip": "to skip", "conflict": "in conflict"}


@click.command()
@click.option("--customer", "-c", "name", metavar="C", help="The customer to deliver to.")
@click.option("--all", "everyone", is_flag=True, help="Deliver to all active customers, despite failures.")
@opening.scope_options
@click.option(
    "--dry-run", is_flag=True, help="Show the plan with its reasons; write nothing and contact no customer."
)
@opening.with_json
def command(
    shell: Shell, name: str | None, everyone: bool, scope: Scope, dry_run: bool, as_json: bool
) -> int:
    """Deliver everything that is due: periods complete at the source and not delivered yet, oldest first.

    A second run uploads nothing. A stopped or killed run resumes where it left off. Periods that you name are
    checked even if they were delivered before, or are outside the look-back window; changes are delivered as
    a new revision. With --all, a failure does not stop the other customers.

    \b
    xmode-transfer run --customer acme
    xmode-transfer run --customer acme --feed us-daily --period 2026-11-22 --dry-run
    xmode-transfer run --all --json
    """
    from xmode_transfer.delivery.run import run_customer, run_customers

    if everyone == (name is not None):
        raise click.UsageError("name one customer with --customer, or use --all")
    configuration = shell.configuration()
    names = [name] if name else [n for n, c in configuration.customers.items() if c.state == "active"]
    with shell.opened(configuration, as_json=as_json) as opened:
        if dry_run:
            with opened.progress.hidden():
                if not names and not as_json:
                    _show_no_active(configuration)
                return show_preview(opened.context, configuration, names, scope, as_json=as_json)
        if name:
            results: list[Result] = [run_customer(opened.context, configuration, name, scope)]
        else:
            results = list(run_customers(opened.context, configuration, names, scope))
    if everyone:
        names += configuration.broken
        results += [
            configuration.why_broken(one, "nothing is delivered to it") for one in configuration.broken
        ]
    show(list(zip(names, results, strict=True)), as_json=as_json, everyone=everyone)
    if not names and not as_json:
        _show_no_active(configuration)
    interrupted = [ExitCode.INTERRUPTED] if opened.stop.is_set() else []
    return worst([*(result.exit_code for result in results), *interrupted])


def show(results: Sequence[tuple[str, "Result"]], *, as_json: bool, everyone: bool) -> None:
    """Show the results of a run."""
    if as_json:
        _answer([_document(*pair) for pair in results], everyone=everyone)
    for customer, result in () if as_json else results:
        if everyone:
            terminal.say((customer, "bold"))
        _show(customer, result)


def _answer(documents: Sequence[dict[str, Any]], *, everyone: bool) -> None:
    terminal.answer({"customers": documents} if everyone else documents[0])


def _document(customer: str, result: "Result") -> dict[str, Any]:
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
    return {
        **terminal.picked(outcome, "feed", "period", "revision", "outcome", "uploaded", "skipped", "failed"),
        **terminal.picked(outcome, "sent_again", "missing", "bytes", "manifest_key"),
        "seconds": round(outcome.seconds, 3),
        **terminal.failure_fields(outcome.failure),
        "files": [problem._asdict() for problem in outcome.problems],
        "checks": release.documents(outcome.checks),
    }


def _show(customer: str, result: "Result") -> None:
    if isinstance(result, XmodeError):
        terminal.say(customer, label=terminal.state("failed", _INDENT))
        terminal.show_error(result, as_json=False)
        return
    for outcome in result.deliveries:
        _show_delivery(outcome)
    _show_waiting(result, nothing=not result.deliveries)
    if result.older:
        periods = states.count(result.older, "period")
        terminal.say(f"{periods} at the source outside the look-back window: use --since to deliver")


def _show_waiting(result: "CustomerRun", *, nothing: bool) -> None:
    if nothing:
        terminal.say(f"{result.customer}: nothing is due")
    for feed, state in result.waiting:
        terminal.say(f"{feed} {state.period.label}: {state.reason}", label=terminal.state("waiting", _INDENT))


def _show_delivery(outcome: DeliveryOutcome) -> None:
    facts = []
    if outcome.uploaded:
        rate = states.size(outcome.bytes / outcome.seconds) if outcome.seconds > 0 else "?"
        facts.append(f"{states.count(outcome.uploaded, 'file')} sent, {states.size(outcome.bytes)}")
        facts.append(f"{states.duration(outcome.seconds)}, {rate}/s")
    if outcome.sent_again:
        facts.append(f"{outcome.sent_again:,} of them again: deleted from the bucket since")
    if outcome.skipped:
        facts.append(f"{states.count(outcome.skipped, 'file')} already in the bucket")
    if outcome.failed:
        facts.append(f"{states.count(outcome.failed, 'file')} not delivered")
    if outcome.missing:
        facts.append(f"{states.count(outcome.missing, 'object')} gone, listed as missing in the manifest")
    place = outcome.feed
    if outcome.period:  # without: the feed's source
        place += f" {outcome.period}" + (f" r{outcome.revision}" if outcome.revision > 1 else "")
    label = terminal.state(outcome.outcome, _INDENT)
    terminal.say(f"{place}: {'; '.join(facts) or 'nothing sent'}", label=label)
    if outcome.manifest_key and outcome.outcome == "delivered":
        terminal.say(f"manifest {outcome.manifest_key}", indent=_INDENT)
    for problem in outcome.problems[:_SHOWN_FILES]:
        terminal.say(f"{problem.name}: {problem.message}", indent=_INDENT)
    terminal.more(len(outcome.problems), _SHOWN_FILES, "file", _INDENT)
    if outcome.outcome not in ("quarantined", "skipped") or len(outcome.checks) > 1:  # else it is the message
        release.show_failed(outcome.checks, _INDENT)
    if outcome.failure and outcome.exit_code:
        terminal.show_failure(outcome.failure, _INDENT)
    elif outcome.failure:
        terminal.say(outcome.failure.message, indent=_INDENT)


def _show_no_active(configuration: "Configuration") -> None:
    if not configuration.customers:
        terminal.say("no customers are configured; see docs/configuration.md")
        return
    states: dict[str, list[str]] = {}
    for name, customer in configuration.customers.items():
        states.setdefault(customer.state, []).append(name)
    for state, names in sorted(states.items()):
        terminal.say(f"{state}: {', '.join(names)}")
    hint = "run `xmode-transfer onboard --confirm NAME` to check a pending customer's access and activate it"
    terminal.say(f"no customer is active: nothing is delivered; {hint}")


def show_preview(
    context: "Context", configuration: "Configuration", names: Sequence[str], scope: Scope, *, as_json: bool
) -> int:
    """Show the plan with its reasons, as it is made. A plan that fails hides no other customer's."""
    from xmode_transfer.delivery.due import CustomerRun
    from xmode_transfer.transfer.sending import defect_of

    documents, codes = [], []
    for name in names:
        result = CustomerRun(name, explicit=not scope.is_whole)
        try:
            document = _planned(context, configuration, result, scope, as_json=as_json)
            documents.append(document)
            held = any(item["verdict"] == Verdict.QUARANTINED for item in document["deliveries"])
            codes.append(ExitCode.WILL_RETRY if result.unfollowed or held else ExitCode.DONE)
        except Exception as error:
            if len(names) == 1:
                raise
            if not isinstance(error, XmodeError):
                telemetry.exception(telemetry.Event.DEFECT, customer=name)
                error = defect_of(error)
            documents.append(_document(name, error))
            codes.append(error.exit_code)
            if not as_json:
                _show(name, error)
    if as_json:
        _answer(documents, everyone=len(documents) != 1)
    else:
        terminal.say("dry run: nothing was written and no customer was contacted")
    return worst(codes)


def _planned(
    context: "Context", configuration: "Configuration", result: "CustomerRun", scope: Scope, *, as_json: bool
) -> dict[str, Any]:
    from xmode_transfer.delivery.run import preview

    name = result.customer
    deliveries = []
    for previewed in preview(context, configuration, name, scope, result):
        feed, state = previewed.feed, previewed.state
        if not as_json:
            terminal.say((f"{name} {feed.name} {state.period.label}", "bold"))
        counts: Counter[str] = Counter()
        total = 0
        plan = []
        for entry in previewed.entries():
            counts[entry.action] += 1
            total += entry.size if entry.action == "upload" else 0
            if as_json:
                plan.append(entry._asdict())
            else:
                columns = f"  {entry.action:<9}{states.size(entry.size):>10}  "
                terminal.say(f"{entry.name}  ({entry.reason})", label=columns)
        place = {"feed": feed.name, "period": state.period.label}
        verdict = previewed.verdict()
        document = release.verdict_document(verdict)
        deliveries.append({**place, "counts": dict(counts), "bytes": total, "plan": plan, **document})
        if not as_json:
            sums = [
                f"{states.count(number, 'file')} {_ACTIONS[action]}"
                for action, number in sorted(counts.items())
            ]
            terminal.say(f"  = {', '.join(sums) or 'no file'}; {states.size(total)} to send")
            release.show_verdict(verdict)
    if not as_json:
        _show_waiting(result, nothing=not deliveries)
        for feed_name, problem in result.unfollowed:
            terminal.say(f"not read  {feed_name} {problem.name}: {problem.message}")
    return {
        "customer": name,
        "outcome": "planned",
        "deliveries": deliveries,
        "problems": [{"feed": feed_name, **problem._asdict()} for feed_name, problem in result.unfollowed],
    }
