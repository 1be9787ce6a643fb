"""`xmode-transfer release`: release what the checks quarantined, or reject it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.model.checks import Decision, FailedCheck
from xmode_transfer.model.errors import ExitCode
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.delivery.judging import VerdictPreview

_INDENT = 13


@click.command()
@click.option("--feed", "-f", metavar="F", required=True, help="The feed.")
@click.option(
    "--period", "-p", metavar="P", required=True, help="The quarantined period; of a drop folder: none."
)
@click.option("--file", metavar="NAME", help="Only this file of a drop folder.")
@click.option("--customer", "-c", metavar="C", help="Decide for this customer only. Default: for all.")
@click.option("--reject", is_flag=True, help="Never deliver it as it is.")
@opening.by_option
@click.option("--reason", required=True, metavar="TEXT", help="Reason to record; the manifest has it too.")
@opening.with_json
def command(
    shell: Shell,
    feed: str,
    period: str,
    file: str | None,
    customer: str | None,
    reject: bool,
    by: str | None,
    reason: str,
    as_json: bool,
) -> int:
    """Release a quarantined period: deliver it as it is, although a check before release failed.

    The decision holds for the source as it was judged. If the source changes, it is judged anew. The manifest
    names who released it, why, and the failed checks. With --reject, it is never delivered as it is.

    \b
    xmode-transfer release --feed us-daily --period 2026-11-22 --by alice --reason "public holiday"
    xmode-transfer release --feed us-daily --period 2026-11-22 --customer acme --reason "asked for it"
    xmode-transfer release --feed us-daily --period 2026-11-22 --reject --reason "wrong export"
    """
    from xmode_transfer.delivery.release import Request, decide
    from xmode_transfer.ledger import database
    from xmode_transfer.service import assembly

    configuration = shell.configuration()
    decision = Decision.REJECTED if reject else Decision.RELEASED
    request = Request(feed, period, customer, file, decision, opening.requester(by), reason)
    with assembly.ledger(configuration.service) as (ledger, clock):
        decided = decide(configuration, ledger, clock, database.this_process(), request)
    failed = [check for judgement in decided.judgements for check in judgement.failed]
    if as_json:
        terminal.answer(
            {
                "feed": feed,
                "period": period,
                "customer": customer,
                "decision": decision,
                "by": request.person,
                "reason": reason,
                "files": [judgement.name for judgement in decided.judgements if judgement.name],
                "checks": documents(failed),
                "customers": list(decided.customers),
            }
        )
        return ExitCode.DONE
    terminal.say(
        f"{feed} {period}: for {customer or 'all customers'}", label=terminal.state(decision, _INDENT)
    )
    show_failed(failed, _INDENT)
    if not reject:
        waiting = f"{states.count(len(decided.customers), 'customer')} waited for it"
        terminal.say(
            f"{waiting}. A daemon delivers it at its next scan; `run` delivers it now", indent=_INDENT
        )
    return ExitCode.DONE


def documents(failed: Iterable[FailedCheck]) -> list[dict[str, str | None]]:
    return [{"check": item.check, "file": item.file or None, "message": item.message} for item in failed]


def verdict_document(previewed: "VerdictPreview | None") -> dict[str, Any]:
    """Return what a run would decide: ``released`` and ``rejected`` are a person's decisions."""
    if previewed is None:
        return {"verdict": None, "source": None, "checks": []}
    judgement = previewed.judgement
    return {
        "verdict": previewed.decision.decision if previewed.decision else judgement.verdict,
        "source": terminal.picked(judgement, "files", "bytes"),
        "checks": documents(judgement.failed),
    }


def show_verdict(previewed: "VerdictPreview | None") -> None:
    if previewed is None:
        return
    document, judgement = verdict_document(previewed), previewed.judgement
    figures = f"{states.count(judgement.files, 'file')}, {states.size(judgement.bytes)} at the source"
    terminal.say(figures, label=terminal.state(document["verdict"], _INDENT), indent=2)
    show_failed(judgement.failed, _INDENT + 2)


def show_failed(failed: Iterable[FailedCheck], indent: int) -> None:
    for check in failed:
        file = f"{check.file}: " if check.file else ""
        terminal.say(f"{file}{check.message}", label=f"{check.check}  ", indent=indent)
