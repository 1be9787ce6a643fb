"""`xmode-transfer check-access` and `onboard`: test a customer's role; onboard and activate a customer."""

import json
import secrets
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.model.errors import ConfigError, ExitCode, XmodeError, worst
from xmode_transfer.model.findings import AccessReport, Finding, Result, Severity
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.access.onboard import Confirmation
    from xmode_transfer.config import Customer

_LIMITS = {
    "multipart_denied": "files over 5 GiB cannot be sent",
    "abort_denied": "failed uploads remain until a lifecycle rule deletes them",
}
"""Limits of a role that follows the guide to the letter."""

_LONGEST_LINE = 4096
Answer = AccessReport | XmodeError


@click.command(name="check-access")
@opening.one_customer_option
@click.option("--deep", is_flag=True, help="Test for more rights that the role should not have.")
@opening.with_json
def check_access_command(shell: Shell, name: str | None, deep: bool, as_json: bool) -> int:
    """Test every right of a customer's role with real requests, and report what to fix.

    Without --customer, test all customers except retired ones. Objects are written below
    `<prefix>_xmode-check/` and deleted again; nothing else is touched. Wrong external IDs, and none, are
    tried too.

    \b
    xmode-transfer check-access --customer acme
    xmode-transfer check-access --json
    """
    from xmode_transfer.access.check_access import check_customers, checked_customers
    from xmode_transfer.service import assembly

    configuration = shell.configuration()
    customers = checked_customers(configuration, name)
    with shell.opened(configuration, quiet=True) as opened:
        prober = assembly.prober(opened.context)
        checked = list(check_customers(opened.context, prober, customers, deep=deep))
    answers: dict[str, Answer] = dict(zip((customer.name for customer in customers), checked, strict=True))
    if name is None:
        for broken in configuration.broken:
            answers[broken] = configuration.why_broken(broken, "its access is not checked")
    if as_json:
        terminal.answer({"customers": [_document(*pair) for pair in answers.items()]})
    else:
        _show(answers, {customer.name: customer for customer in customers})
    return worst([answer.exit_code for answer in answers.values()])


def _document(name: str, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, XmodeError):
        return {"customer": name, "outcome": "failed", "findings": [], "error": answer.log_context()}
    return {
        "customer": name,
        "outcome": answer.outcome,
        "findings": answer.findings,
        "orphaned": [left._asdict() for left in answer.left],
        "seconds": round(answer.seconds, 3),
    }


def _show(answers: dict[str, Answer], customers: dict[str, "Customer"]) -> None:
    reports = [answer for answer in answers.values() if isinstance(answer, AccessReport)]
    single = [report.findings[0] for report in reports if len(report.findings) == 1]
    if single and len(single) == len(answers):  # it is about our identity
        terminal.say("no customer was checked, because of our own AWS identity:")
        _show_finding(single[0])
        _show_fix(single[0], None)
        return
    for name, answer in answers.items():
        _show_customer(name, answer, customers.get(name))
    if len(answers) > 1:
        _show_summary(answers)
    if not answers:
        terminal.say("no customers are configured; see docs/configuration.md")


def _show_customer(name: str, answer: Answer, customer: "Customer | None") -> None:
    terminal.say()
    if isinstance(answer, XmodeError):
        terminal.say((f"{name}: {answer.message}", "bold red"))
        for problem in answer.problems if isinstance(answer, ConfigError) else ():
            terminal.say(problem, indent=2)
        return
    url = customer.destination.url if customer else ""
    outcome = terminal.state(answer.outcome)
    terminal.say((name, "bold"), f"  {url}  ", outcome, f"  ({states.duration(answer.seconds)})")
    # probes that were skipped for the same reason share a line
    for _, group in groupby(
        answer.findings, lambda item: (item.result is Result.SKIPPED and item.message) or id(item)
    ):
        first, *rest = group
        _show_finding(first, also=[item.probe for item in rest])
    for left in answer.left:
        terminal.say(f"orphaned  {left.kind} {left.key} ({states.size(left.bytes)})", indent=2)
    fixable = [item for item in answer.findings if item.fix and item.severity is not Severity.INFO]
    limits = [f"{item.cause} ({_LIMITS[item.cause]})" for item in fixable if item.cause in _LIMITS]
    if limits:
        remedy = f"`xmode-transfer policy print --customer {name} --corrected` prints a policy without them"
        terminal.say(f"known limits of the setup guide: {', '.join(limits)}; {remedy}", indent=2)
    for item in fixable:
        if item.cause not in _LIMITS:
            _show_fix(item, customer)


def _show_finding(item: Finding, *, also: Sequence[str] = ()) -> None:
    grave = item.severity is not Severity.INFO
    parts = [f"{item.severity}:"] if grave else []
    if item.cause not in (None, "ok"):
        parts.append(f"{item.cause}:")
    parts.append("a known limit of the setup guide" if item.cause in _LIMITS else item.message)
    if item.responsible and grave:
        verb = "may decide" if item.severity is Severity.WARNING else "must act"
        parts.append(f"[{states.RESPONSIBLE[item.responsible]} {verb}]")
    if also:
        parts.append(f"(also {', '.join(also)})")
    style = states.style(item.severity) if grave else ""
    label = (f"  {item.probe:<20}{item.result:<11}", states.style(item.result))
    terminal.say((" ".join(parts), style), label=label)


def _show_fix(item: Finding, customer: "Customer | None") -> None:
    """Show a fix as a block that can be mailed unchanged."""
    fix = item.fix
    if fix is None:
        return
    to = customer.company if customer is not None and item.responsible == "customer" else "us"
    terminal.say()
    terminal.say((f"--- {item.cause}, for {to} ---", "bold"))
    terminal.say(f"{item.message[:1].upper()}{item.message[1:]}.")
    terminal.say(f"{fix.summary}.")
    if fix.guide_step:
        terminal.say(f"Setup guide: {fix.guide_step}")
    if fix.statement is not None:
        click.echo(json.dumps(fix.statement, indent=2))
    if fix.command:
        click.echo(f"$ {fix.command}")
    if item.said:
        request = f", request {item.request_id}" if item.request_id else ""
        terminal.say(f"AWS's answer{request}: {item.said}")


def _show_summary(answers: dict[str, Answer]) -> None:
    terminal.say()
    width = max(map(len, answers))
    acting = 0
    for name, answer in answers.items():
        if isinstance(answer, XmodeError):
            outcome, wrong = "failed", [answer.code]
        else:
            outcome = answer.outcome
            graver = [item for item in answer.findings if item.severity is not Severity.INFO]
            wrong = [f"{item.cause} ({item.severity})" if item.cause else item.probe for item in graver]
            acting += answer.exit_code == ExitCode.BLOCKED
        text = ", ".join(dict.fromkeys(wrong)) or "ok"
        terminal.say(terminal.state(outcome, 13), text, label=f"{name:<{width}}  ")
    terminal.say(f"{states.count(len(answers), 'customer')}, {acting} must act")


@click.command(name="onboard")
@click.option("--company", metavar="NAME", default="", help="Company name, as people write it.")
@click.option("--account", metavar="A", default="", help="Its AWS account, 12 digits.")
@click.option("--bucket", metavar="B", default="", help="Its bucket.")
@click.option("--feed", "-f", "feeds", metavar="F", multiple=True, help="Feed to deliver; repeatable.")
@click.option("--name", metavar="C", default=None, help="Short name. [default: from the company's name]")
@click.option(
    "--prefix", metavar="P", default="xmode/", show_default=True, help='Prefix; "" for the whole bucket.'
)
@click.option("--region", metavar="R", default=None, help="The bucket's region. [default: detected]")
@click.option("--role-name", metavar="R", default="XMode", show_default=True, help="Name of its role.")
@click.option("--kms-key", "kms_key_arn", metavar="ARN", help="KMS key that its bucket encrypts with.")
@click.option(
    "--external-id",
    metavar="ID",
    default="generated",
    show_default=True,
    help="generated: hard to guess; company: the setup guide's form; or the ID itself.",
)
@click.option("--out", type=opening.DIRECTORY, help="New directory for the customer's setup kit.")
@click.option("--challenge", metavar="C", help="Put a token into this customer's bucket, to be returned.")
@click.option("--confirm", metavar="C", help="Check this customer's access and activate it.")
@click.option("--token", metavar="T", help="With --confirm: what the customer read; -: from stdin.")
@opening.by_option
@click.option("--force", is_flag=True, help="With --confirm and --reason: despite findings.")
@click.option("--reason", metavar="TEXT", help="With --force: the reason, for the log.")
@opening.json_option
@click.pass_context
def onboard_command(
    ctx: click.Context,
    /,
    out: Path | None,
    challenge: str | None,
    confirm: str | None,
    token: str | None,
    by: str | None,
    force: bool,
    reason: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Onboard a customer: validate the sign-up, write customers/NAME.yaml (pending) and a setup kit.

    Send the kit to the customer. When it is done, --confirm checks its access and activates it, unless
    something must be fixed first. To prove whose bucket it is, --challenge puts a random token into it, and
    --confirm --token compares what the customer read there. `onboarding.ownership` says who must prove it:
    by default those whose external ID is the company's name.

    \b
    xmode-transfer onboard --company "Acme Corp" --account 111122223333 --bucket acme-data \\
        --feed us-daily --out kits/acme
    xmode-transfer onboard --challenge acme
    xmode-transfer onboard --confirm acme --token -
    """
    chosen = [name for name, value in (("challenge", challenge), ("confirm", confirm)) if value is not None]
    if chosen:
        typed = click.core.ParameterSource.COMMANDLINE
        extra = [name for name in (*given, "out") if ctx.get_parameter_source(name) is typed]
        if extra:
            option = extra[0].replace("_", "-")
            raise click.UsageError(f"--{chosen[0]} takes no --{option}: the customer's file has the values")
    if len(chosen) > 1:
        raise click.UsageError("choose one of --challenge and --confirm")
    if confirm is None and (force or reason is not None or token is not None):
        raise click.UsageError("--force, --reason and --token require --confirm")
    if confirm is not None:
        return _confirm(ctx.obj, confirm, token, by, force, reason, as_json)
    if challenge is not None:
        return _challenge(ctx.obj, challenge, by, as_json)
    if by is not None:
        raise click.UsageError("--by requires --challenge or --confirm")
    if out is None:
        raise ConfigError(
            "--out is required: the directory for the customer's kit",
            hint="name a new directory, such as --out kits/acme",
        )
    return _onboard(ctx.obj, given, out, as_json)


def _onboard(shell: Shell, given: dict[str, Any], out: Path, as_json: bool) -> int:
    from xmode_transfer.access.kit import CustomerFiles, KitDirectory
    from xmode_transfer.access.onboard import SignUp, must_prove, onboard

    configuration = shell.configuration()
    done = onboard(
        SignUp(**given),
        configuration,
        CustomerFiles(shell.config_dir),
        KitDirectory(out),
        lambda: secrets.token_hex(16),
    )
    customer = done.customer
    if as_json:
        terminal.answer(
            {
                "customer": customer.name,
                "outcome": "pending",
                **terminal.picked(customer, "company", "external_id", "role_arn", "feeds"),
                "destination": customer.destination.model_dump(mode="json", exclude_none=True),
                "kit": out.absolute(),
                **terminal.picked(done, "file", "kit_files", "notes"),
                "must_prove_ownership": must_prove(configuration, customer),
            }
        )
        return ExitCode.DONE
    created = f"Created customer {customer.name} (pending). Nothing is delivered until it is confirmed."
    terminal.say((created, "bold green"))
    terminal.fact("external ID", customer.external_id)
    terminal.fact("role", customer.role_arn)
    terminal.fact("destination", customer.destination.url)
    terminal.fact("feeds", ", ".join(customer.feeds))
    terminal.fact("file", str(shell.config_dir / done.file))
    terminal.fact("kit", f"{out.absolute()}: {', '.join(done.kit_files)}")
    for note in done.notes:
        terminal.say((f"note: {note}", "yellow"), indent=2)
    terminal.say(f"\nSend the kit to {customer.company}. When they are done:")
    step = "challenge" if must_prove(configuration, customer) else "confirm"
    terminal.say(f"xmode-transfer onboard --{step} {customer.name}", indent=2)
    return ExitCode.DONE


def _challenge(shell: Shell, name: str, by: str | None, as_json: bool) -> int:
    from xmode_transfer.access.onboard import onboarded
    from xmode_transfer.access.ownership import challenge
    from xmode_transfer.service import assembly

    configuration = shell.configuration()
    customer = onboarded(configuration, name)
    with shell.opened(configuration, quiet=True) as opened:
        prober = assembly.prober(opened.context)
        made = challenge(opened.context, prober, customer, person=opening.requester(by))
    url = f"s3://{made.bucket}/{made.key}"
    if as_json:
        fields = terminal.picked(made, "bucket", "key", "challenged_at", "expires_at")
        terminal.answer({"customer": name, "outcome": "challenged", "url": url, "by": made.person, **fields})
        return ExitCode.DONE
    terminal.say((f"Put a token into the bucket {made.bucket}. Ask {customer.company}:", "bold green"))
    terminal.say()
    terminal.say(f"Read {url} and send us the text:", indent=2)
    click.echo(f"  aws s3 cp {url} -")
    terminal.say(f"\nIt is valid until {made.expires_at:%Y-%m-%d %H:%M} UTC. When you have the text:")
    terminal.say(f"xmode-transfer onboard --confirm {name} --token -", indent=2)
    return ExitCode.DONE


def _confirm(
    shell: Shell,
    name: str,
    token: str | None,
    by: str | None,
    force: bool,
    reason: str | None,
    as_json: bool,
) -> int:
    from xmode_transfer.access.check_access import check_access
    from xmode_transfer.access.kit import CustomerFiles
    from xmode_transfer.access.onboard import confirm
    from xmode_transfer.access.ownership import prove
    from xmode_transfer.service import assembly

    if force != (reason is not None):
        raise click.UsageError("--force and --reason go together: an override is logged with its reason")
    if token == "-":
        token = sys.stdin.buffer.readline(_LONGEST_LINE).decode(errors="replace") if sys.stdin else ""
    if token is not None and not (token := token.strip()):
        raise click.UsageError("the token is empty")
    configuration, person = shell.configuration(), opening.requester(by)
    with shell.opened(configuration, quiet=True) as opened:
        prober = assembly.prober(opened.context)
        answer = confirm(
            lambda customer: check_access(opened.context, prober, customer),
            configuration,
            CustomerFiles(shell.config_dir),
            name,
            prove=lambda customer: prove(opened.context, prober, customer, token, person=person),
            override=reason,
        )
    if as_json:
        terminal.answer(
            {
                "customer": name,
                "outcome": "active" if answer.exit_code == 0 else "refused",
                **terminal.picked(answer, "state", "overridden", "proof"),
                **terminal.picked(answer.report, "causes", "findings"),
            }
        )
    else:
        _show({name: answer.report}, {name: answer.customer})
        terminal.say()
        terminal.say((_verdict(answer), "bold green" if answer.exit_code == 0 else "bold red"))
    return answer.exit_code


def _verdict(answer: "Confirmation") -> str:
    name = answer.customer.name
    causes = ", ".join(dict.fromkeys(str(item.cause or item.probe) for item in answer.against))
    if answer.overridden and not causes:
        return f"{name} is active without a proof that the bucket is its own; the log has your reason"
    if answer.overridden:
        return f"{name} is active despite {causes}; the log has your reason"
    if answer.exit_code == 0:
        return f"{name} is active. The next run delivers to it"
    if answer.report.interrupted:
        return f"{name} remains {answer.state}: the check was stopped"
    return f"{name} remains {answer.state}, because of {causes}"
