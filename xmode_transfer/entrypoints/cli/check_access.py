"""`xmode-transfer check-access`: what a customer's role lets us do, what is wrong, and how it is mended."""

import json
import shutil
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import click

from xmode_transfer.domain.config import Customer
from xmode_transfer.domain.errors import ConfigError, ExitCode, XmodeError
from xmode_transfer.domain.findings import AccessReport, Finding, Result, Severity
from xmode_transfer.entrypoints.cli import Shell, words
from xmode_transfer.entrypoints.cli.terminal import secho, style

_COLOURS = {
    Result.OK: "green",
    Result.DENIED: "red",
    Result.UNEXPECTED: "yellow",
    Result.UNKNOWN: None,
    Result.SKIPPED: None,
}
_GRAVITY = {Severity.CRITICAL: "red", Severity.ERROR: "red", Severity.WARNING: "yellow"}
_OUTCOMES = {"ok": "green", "blocked": "yellow", "failed": "red", "interrupted": "yellow"}
_WHO = {"us": "we", "customer": "the customer", "aws": "AWS"}

Answer = AccessReport | XmodeError


@click.command(name="check-access")
@click.option("--customer", "-c", "name", metavar="C", help="Only this customer; all but retired without it.")
@click.option("--deep", is_flag=True, help="Look for more rights that the role should not have.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; logs stay on stderr.")
@click.pass_obj
def command(shell: Shell, name: str | None, deep: bool, as_json: bool) -> int:
    """Try every right of a customer's role by doing the real thing; say what is wrong, and how it is mended.

    Objects are written below `<prefix>_xmode-check/` and taken away again; nothing else is touched. That the
    role demands the external ID is tried with wrong ones and with none. Pending customers are checked too.

    \b
    xmode-transfer check-access --customer acme
    xmode-transfer check-access --json
    """
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files
    from xmode_transfer.entrypoints.cli import stopping
    from xmode_transfer.entrypoints.cli.tally import Tally
    from xmode_transfer.services.check_access import check_customers, checked_customers
    from xmode_transfer.services.due import worst

    configuration = config_files.load(shell.config_dir)
    customers = checked_customers(configuration, name)
    with stopping.on_signals() as stop, bootstrap.workbench(configuration, Tally(), stop) as bench:
        prober = bootstrap.prober(bench)
        answers: list[Answer] = list(check_customers(bench, prober, customers, deep=deep))
    told = [(customer.name, answer) for customer, answer in zip(customers, answers, strict=True)]
    if name is None:
        why = "its access is not checked"
        told += [(broken, configuration.why_broken(broken, why)) for broken in configuration.broken]
    if as_json:
        click.echo(json.dumps({"customers": [_document(*one) for one in told]}, ensure_ascii=False))
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
    fix = item.fix
    return {
        "probe": item.probe,
        "result": str(item.result),
        "cause": item.cause and str(item.cause),
        "party": item.party and str(item.party),
        "severity": str(item.severity),
        "message": item.message,
        "fix": fix
        and {
            "summary": fix.summary,
            "statement": fix.statement,
            "command": fix.command,
            "guide_step": fix.guide_step,
        },
        "request_id": item.request_id,
        "said": item.said,
    }


# --- For people -------------------------------------------------------------------------------------


def show(told: Sequence[tuple[str, Answer]], customers: dict[str, Customer]) -> None:
    """What was found, customer by customer, and how it is mended."""
    ours = _about_us(told)
    if ours is not None:
        click.echo("no customer was probed, because of our own identity:")
        _row(ours)
        _fix(ours, None)
        return
    for name, answer in told:
        _show_one(name, answer, customers.get(name))
    if len(told) > 1:
        _summary(told)
    if not told:
        click.echo("no customer is configured; see docs/configuration.md")


def _about_us(told: Sequence[tuple[str, Answer]]) -> Finding | None:
    """The finding about our identity, when it is all that was found for everybody."""
    reports = [answer for _, answer in told if isinstance(answer, AccessReport)]
    alone = [report.findings[0] for report in reports if len(report.findings) == 1]
    return alone[0] if alone and len(alone) == len(told) else None


def _show_one(name: str, answer: Answer, customer: Customer | None) -> None:
    click.echo()
    if isinstance(answer, XmodeError):
        secho(f"{name}: {answer.message}", fg="red", bold=True)
        for problem in answer.problems if isinstance(answer, ConfigError) else ():
            click.echo(f"  {problem}")
        return
    place = f"s3://{customer.destination.bucket}/{customer.destination.prefix}" if customer else ""
    head = style(name, bold=True)
    outcome = style(answer.outcome, fg=_OUTCOMES[answer.outcome], bold=True)
    click.echo(f"{head}  {place}  {outcome}  ({words.duration(answer.seconds)})")
    _rows(answer.findings)
    for left in answer.left:
        click.echo(f"  left behind  {left.kind} {left.key} ({words.size(left.bytes)})")
    mendable = [item for item in answer.findings if item.fix is not None and item.severity != Severity.INFO]
    for item in mendable:
        _fix(item, customer)


def _rows(findings: Sequence[Finding]) -> None:
    """A line each; probes that were skipped for the same reason share one."""
    for _, group in groupby(
        findings, lambda item: (item.result is Result.SKIPPED and item.message) or id(item)
    ):
        items = list(group)
        _row(items[0], also=[item.probe for item in items[1:]])


def _row(item: Finding, *, also: Sequence[str] = ()) -> None:
    parts = []
    if item.severity is not Severity.INFO:
        parts.append(f"{item.severity}:")
    if item.cause not in (None, "ok"):
        parts.append(f"{item.cause}:")
    parts.append(item.message)
    if item.party and item.severity is not Severity.INFO:
        grave = item.severity is not Severity.WARNING
        parts.append(f"[{_WHO[item.party]} must act]" if grave else f"[for {_WHO[item.party]} to decide]")
    if also:
        parts.append(f"(also {', '.join(also)})")
    columns = shutil.get_terminal_size((110, 24)).columns
    indent = " " * (33 if columns >= 73 else 4)
    width = max(26, columns - len(indent))
    lines = textwrap.wrap(" ".join(parts), width, break_long_words=False, break_on_hyphens=False)
    head = f"  {item.probe:<20}" + style(f"{item.result:<10}", fg=_COLOURS[item.result])
    first = style(lines[0], fg=_GRAVITY.get(item.severity))
    click.echo(f"{head} {first}" if columns >= 73 else f"{head}\n{indent}{first}")
    for line in lines[1:]:
        click.echo(indent + line)


def _fix(item: Finding, customer: Customer | None) -> None:
    """A block that can be mailed as it stands."""
    fix = item.fix
    if fix is None:
        return
    to = customer.company if customer is not None and item.party == "customer" else "us"
    click.echo()
    secho(f"--- {item.cause}, for {to} ---", bold=True)
    click.echo(_filled(f"{item.message[:1].upper()}{item.message[1:]}."))
    click.echo(_filled(f"{fix.summary}."))
    if fix.guide_step:
        click.echo(f"Setup guide: {fix.guide_step}")
    if fix.statement is not None:
        click.echo(json.dumps(fix.statement, indent=2))
    if fix.command:
        click.echo(f"$ {fix.command}")
    if item.said:
        request = f", request {item.request_id}" if item.request_id else ""
        click.echo(_filled(f"AWS's answer{request}: {item.said}"))


def _filled(text: str) -> str:
    width = min(100, max(26, shutil.get_terminal_size((100, 24)).columns))
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _summary(told: Sequence[tuple[str, Answer]]) -> None:
    """Customers side by side: a line each, with what is wrong and who must act."""
    click.echo()
    width = max(len(name) for name, _ in told)
    for name, answer in told:
        if isinstance(answer, XmodeError):
            click.echo(f"{name:<{width}}  {style('failed', fg='red')}       {answer.code}")
            continue
        graver = [
            f"{item.cause} ({item.severity})" if item.cause else item.probe
            for item in answer.findings
            if item.severity != Severity.INFO
        ]
        outcome = style(f"{answer.outcome:<11}", fg=_OUTCOMES[answer.outcome])
        wrong = ", ".join(dict.fromkeys(graver))
        click.echo(words.folded(f"{name:<{width}}  {outcome}  {wrong or 'all is well'}"))
    acting = sum(
        isinstance(answer, AccessReport) and answer.exit_code == ExitCode.BLOCKED for _, answer in told
    )
    click.echo(f"{words.count(len(told), 'customer')}, {acting} must act")
