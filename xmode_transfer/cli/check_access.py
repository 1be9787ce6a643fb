"""`xmode-transfer check-access`: test what a customer's role allows, and show what to fix."""

import json
import shutil
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import click

from xmode_transfer.access.catalogue import Cause
from xmode_transfer.access.check_access import check_customers, checked_customers
from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import ConfigError, ExitCode, XmodeError
from xmode_transfer.model.findings import AccessReport, Finding, Fix, Result, Severity
from xmode_transfer.web import states

_LIMITS = {
    Cause.MULTIPART_DENIED: "files over 5 GiB cannot be sent",
    Cause.ABORT_DENIED: "failed uploads remain until a lifecycle rule deletes them",
}
"""Limits of a role that follows the guide to the letter."""

Answer = AccessReport | XmodeError


@click.command(name="check-access")
@opening.one_customer_option
@click.option("--deep", is_flag=True, help="Test for more rights that the role should not have.")
@opening.json_option
@click.pass_obj
def command(shell: Shell, name: str | None, deep: bool, as_json: bool) -> int:
    """Test every right of a customer's role with real requests, and report what to fix.

    Without --customer, tests all customers except retired ones. Writes objects below
    `<prefix>_xmode-check/`, deletes them again, and touches nothing else. Also tries wrong external IDs, and
    none.

    \b
    xmode-transfer check-access --customer acme
    xmode-transfer check-access --json
    """
    from xmode_transfer.model.errors import worst
    from xmode_transfer.service import assembly

    configuration = shell.configuration()
    customers = checked_customers(configuration, name)
    with shell.opened(configuration, quiet=True) as opened:
        prober = assembly.prober(opened.context)
        answers: list[Answer] = list(check_customers(opened.context, prober, customers, deep=deep))
    told = [(customer.name, answer) for customer, answer in zip(customers, answers, strict=True)]
    if name is None:
        why = "its access is not checked"
        told += [(broken, configuration.why_broken(broken, why)) for broken in configuration.broken]
    if as_json:
        terminal.answer({"customers": [_document(*one) for one in told]})
    else:
        show(told, {customer.name: customer for customer in customers})
    return worst([answer.exit_code for _, answer in told])


# --- For programs -----------------------------------------------------------------------------------


def _document(name: str, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, XmodeError):
        return {"customer": name, "outcome": "failed", "findings": [], "error": answer.log_context()}
    return {
        "customer": name,
        "outcome": answer.outcome,
        "findings": [finding_document(item) for item in answer.findings],
        "left_behind": [
            {"kind": str(item.kind), "key": item.key, "bytes": item.bytes, "id": item.id}
            for item in answer.left
        ],
        "seconds": round(answer.seconds, 3),
    }


def finding_document(item: Finding) -> dict[str, Any]:
    """One finding as ``--json`` has it."""
    return {
        "probe": item.probe,
        "result": str(item.result),
        "cause": item.cause and str(item.cause),
        "responsible": item.responsible and str(item.responsible),
        "severity": str(item.severity),
        "message": item.message,
        "fix": fix_document(item.fix),
        "request_id": item.request_id,
        "said": item.said,
    }


def fix_document(fix: Fix | None) -> dict[str, Any] | None:
    return terminal.picked(fix, "summary statement command guide_step") if fix else None


# --- For people -------------------------------------------------------------------------------------


def show(told: Sequence[tuple[str, Answer]], customers: dict[str, Customer]) -> None:
    """Shows the findings of each customer and how to fix them."""
    ours = _about_us(told)
    if ours is not None:
        terminal.say("no customer was checked, because of our own AWS identity:")
        _row(ours)
        _fix(ours, None)
        return
    for name, answer in told:
        _show_one(name, answer, customers.get(name))
    if len(told) > 1:
        _summary(told)
    if not told:
        terminal.say("no customers are configured; see docs/configuration.md")


def _about_us(told: Sequence[tuple[str, Answer]]) -> Finding | None:
    """The finding about our identity, if it is the only finding for every customer."""
    reports = [answer for _, answer in told if isinstance(answer, AccessReport)]
    alone = [report.findings[0] for report in reports if len(report.findings) == 1]
    return alone[0] if alone and len(alone) == len(told) else None


def _show_one(name: str, answer: Answer, customer: Customer | None) -> None:
    terminal.say()
    if isinstance(answer, XmodeError):
        terminal.say((f"{name}: {answer.message}", "bold red"))
        for problem in answer.problems if isinstance(answer, ConfigError) else ():
            terminal.say(problem, indent=2)
        return
    place = f"s3://{customer.destination.bucket}/{customer.destination.prefix}" if customer else ""
    outcome = terminal.state(answer.outcome)
    terminal.say((name, "bold"), f"  {place}  ", outcome, f"  ({states.duration(answer.seconds)})")
    # probes that were skipped for the same reason share a line
    for _, group in groupby(
        answer.findings, lambda item: (item.result is Result.SKIPPED and item.message) or id(item)
    ):
        first, *rest = group
        _row(first, also=[item.probe for item in rest])
    for left in answer.left:
        terminal.say(f"orphaned  {left.kind} {left.key} ({states.size(left.bytes)})", indent=2)
    fixable = [item for item in answer.findings if item.fix and item.severity is not Severity.INFO]
    limits = [f"{item.cause} ({_LIMITS[Cause(item.cause)]})" for item in fixable if item.cause in _LIMITS]
    if limits:
        remedy = f"`xmode-transfer policy print --customer {name} --corrected` prints a policy without them"
        terminal.say(f"known limits of the setup guide: {', '.join(limits)}; {remedy}", indent=2)
    for item in fixable:
        if item.cause not in _LIMITS:
            _fix(item, customer)


def _row(item: Finding, *, also: Sequence[str] = ()) -> None:
    grave = item.severity is not Severity.INFO
    parts = [f"{item.severity}:"] if grave else []
    if item.cause not in (None, "ok"):
        parts.append(f"{item.cause}:")
    parts.append("a known limit of the setup guide" if item.cause in _LIMITS else item.message)
    if item.responsible and grave:
        whose = states.RESPONSIBLE[item.responsible]
        decides = item.severity is Severity.WARNING
        parts.append(f"[{whose} may decide]" if decides else f"[{whose} must act]")
    if also:
        parts.append(f"(also {', '.join(also)})")
    style = states.style(item.severity) if grave else ""
    label = (f"  {item.probe:<20}{item.result:<11}", states.style(item.result))
    terminal.say((" ".join(parts), style), label=label)


def _fix(item: Finding, customer: Customer | None) -> None:
    """Shows a fix as a block that can be mailed unchanged."""
    fix = item.fix
    if fix is None:
        return
    to = customer.company if customer is not None and item.responsible == "customer" else "us"
    terminal.say()
    terminal.say((f"--- {item.cause}, for {to} ---", "bold"))
    terminal.say(_filled(f"{item.message[:1].upper()}{item.message[1:]}."))
    terminal.say(_filled(f"{fix.summary}."))
    if fix.guide_step:
        terminal.say(f"Setup guide: {fix.guide_step}")
    if fix.statement is not None:
        click.echo(json.dumps(fix.statement, indent=2))
    if fix.command:
        click.echo(f"$ {fix.command}")
    if item.said:
        request = f", request {item.request_id}" if item.request_id else ""
        terminal.say(_filled(f"AWS's answer{request}: {item.said}"))


def _filled(text: str) -> str:
    width = min(100, max(26, shutil.get_terminal_size((100, 24)).columns))
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _summary(told: Sequence[tuple[str, Answer]]) -> None:
    """Shows one line for each customer, with its causes."""
    terminal.say()
    width = max(len(name) for name, _ in told)
    for name, answer in told:
        if isinstance(answer, XmodeError):
            outcome, wrong = "failed", [answer.code]
        else:
            outcome = answer.outcome
            graver = [item for item in answer.findings if item.severity is not Severity.INFO]
            wrong = [f"{item.cause} ({item.severity})" if item.cause else item.probe for item in graver]
        text = ", ".join(dict.fromkeys(wrong)) or "ok"
        terminal.say(terminal.state(outcome, 13), text, label=f"{name:<{width}}  ")
    acting = sum(
        isinstance(answer, AccessReport) and answer.exit_code == ExitCode.BLOCKED for _, answer in told
    )
    terminal.say(f"{states.count(len(told), 'customer')}, {acting} must act")
