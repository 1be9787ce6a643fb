"""`xmode-transfer policy`: print the policies that a customer needs, and lint those that it sent."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.cli.terminal import Line
from xmode_transfer.model.errors import ConfigError
from xmode_transfer.model.findings import Finding, Result, Severity
from xmode_transfer.web import states

if TYPE_CHECKING:
    from xmode_transfer.access.lint.records import Issue, Report
    from xmode_transfer.config import Customer, Vendor

_VERDICTS = {
    "ok": "nothing to fix",
    "fix": "the customer must fix the issues marked error or critical",
    "unclear": "no mistake found, but these documents do not decide everything",
}


@click.group()
def command() -> None:
    """Print the policies that a customer needs, or lint those that it has. Works offline."""


@command.command("print")
@opening.customer_option
@click.option(
    "--kind",
    type=click.Choice(["trust", "permission", "session"]),
    default="permission",
    show_default=True,
    help="trust: who may assume the role; permission: what it may do; session: limits of our sessions.",
)
@click.option(
    "--corrected",
    is_flag=True,
    help="Print the recommended policy, not the setup guide's: below the prefix, parts, KMS.",
)
@click.option(
    "--step",
    type=click.Choice(["deliver", "check", "list", "verify", "cleanup", "notice", "recall"]),
    help="With --kind session: the step of the session. [default: deliver]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the document on one line.")
@click.pass_obj
def print_(shell: Shell, name: str, kind: str, corrected: bool, step: str | None, as_json: bool) -> int:
    """Print one policy document with the customer's values, ready to paste.

    \b
    xmode-transfer policy print --customer acme --kind trust
    xmode-transfer policy print --customer acme --corrected > permission-policy.json
    xmode-transfer policy print --customer acme --kind session --step cleanup
    """
    if step is not None and kind != "session":
        raise click.UsageError("--step requires --kind session")
    configuration = shell.configuration()
    customer = configuration.customer(name, "its values are not known")
    document = _document_of(customer, configuration.service.vendor, kind, corrected, step or "deliver")
    click.echo(json.dumps(document, indent=None if as_json else 2))
    return 0


def _document_of(
    customer: "Customer", vendor: "Vendor", kind: str, corrected: bool, step: str
) -> dict[str, Any]:
    from xmode_transfer.aws.policy import documents

    destination = customer.destination
    bucket, prefix, kms_key = destination.bucket, destination.prefix, destination.kms_key_arn
    if kind == "session":
        return documents.session_policy(
            documents.Step(step),
            bucket=bucket,
            prefix=prefix,
            partition=customer.partition,
            kms_key_arn=kms_key,
        )
    if kind == "trust":
        build = documents.corrected_trust_policy if corrected else documents.guide_trust_policy
        return build(customer.external_id, vendor.principal_arn)
    if corrected:
        region = destination.region or (kms_key.split(":")[3] if kms_key else None)
        return documents.corrected_permission_policy(
            bucket, prefix, kms_key, region, partition=customer.partition
        )
    if customer.partition != "aws":
        raise click.UsageError(
            f"the setup guide's document does not fit the partition {customer.partition}; add --corrected"
        )
    if kms_key is not None:
        click.echo("note: the setup guide's document denies the KMS key; add --corrected", err=True)
    return documents.guide_permission_policy(bucket)


def _value(option: str, metavar: str, text: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return an option for a value of a customer that is not configured."""

    def checked(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
        from xmode_transfer.config import names

        check = getattr(names, f"check_{option.strip('-').replace('-', '_')}")
        try:
            return None if value is None else check(value)
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}") from None

    return click.option(option, metavar=metavar, callback=checked, help=f"Without --customer: its {text}.")


@command.command("lint")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--customer", "-c", "name", metavar="C", help="Compare with this customer's values.")
@_value("--external-id", "ID", "external ID")
@_value("--bucket", "B", "bucket")
@_value("--prefix", "P", "prefix, with a slash at the end")
@_value("--account", "A", "AWS account, 12 digits")
@_value("--region", "R", "bucket's region")
@_value("--kms-key", "ARN", "bucket's KMS key")
@click.option(
    "--kind",
    type=click.Choice(["trust", "permission", "bucket", "key"]),
    help="Kind of all documents. Default: detected.",
)
@opening.with_json
def lint_(
    shell: Shell, /, files: tuple[str, ...], name: str | None, kind: str | None, as_json: bool, **values: Any
) -> int:
    """Lint trust, permission, bucket and key policies that a customer sent; `-` reads stdin.

    The files are evaluated together, as one customer's. They may have what the AWS CLI prints around a
    document, and the guide's own command lines. Values that you omit are taken from the documents.

    Exit codes: 0 nothing to fix (warnings allowed); 4 the customer must fix something; 2 a file cannot be
    read.

    \b
    xmode-transfer policy lint trust.json permission.json --customer acme
    pbpaste | xmode-transfer policy lint - --bucket acme-data --external-id AcmeCorp
    """
    from xmode_transfer.access.lint import Kind, Source, lint
    from xmode_transfer.access.lint.records import Given
    from xmode_transfer.aws.policy.documents import SetupValues, setup_values

    if name is None:
        known: Given | SetupValues = Given(kms_key_arn=values.pop("kms_key"), **values)
    elif extra := [value for value in values if values[value] is not None]:
        option = extra[0].replace("_", "-")
        raise click.UsageError(f"--customer already gives this value; leave out --{option}")
    else:
        configuration = shell.configuration()
        customer = configuration.customer(name, "its values are not known")
        known = setup_values(customer, configuration.service.vendor.principal_arn)
    of_kind = Kind(kind) if kind else None
    report = lint([Source(file, _text(file), of_kind) for file in files], known)
    if as_json:
        terminal.answer(_document(report))
    else:
        terminal.show(_lines(report))
    return report.exit_code


def _text(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror or error}",
            hint="give the name of a file, or - for stdin",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text", hint="save the document as plain text") from None


def _document(report: "Report") -> dict[str, Any]:
    return {
        "outcome": report.outcome,
        "documents": [{"file": file, "kind": kind} for file, kind in report.kinds],
        "findings": [
            *({**terminal.to_json(finding), "file": None, "statement": None} for finding in report.findings),
            *map(_issue_document, report.issues),
        ],
    }


def _issue_document(issue: "Issue") -> dict[str, Any]:
    return {
        "probe": "document",
        "result": None,
        "cause": issue.fault,
        "responsible": "customer" if issue.severity in (Severity.ERROR, Severity.CRITICAL) else None,
        "request_id": None,
        **terminal.picked(issue, "severity", "message", "fix", "file", "statement"),
    }


def _lines(report: "Report") -> Iterator[Line]:
    for file, kind in report.kinds:
        yield Line((f"{file}: {kind} policy",))
    yield Line(())
    correct = [finding.probe for finding in report.findings if finding.result is Result.OK]
    wrong = [finding for finding in report.findings if finding.result in (Result.DENIED, Result.UNEXPECTED)]
    items: list[Issue | Finding] = [*report.issues, *wrong]
    gravest_first = list(reversed(Severity))
    for item in sorted(items, key=lambda one: gravest_first.index(one.severity)):
        yield from _item(item)
    if correct:
        yield Line(((f"correct: {', '.join(correct)}", "green"),))
    yield Line((terminal.state(report.outcome), f": {_VERDICTS[report.outcome]}"))


def _item(item: "Issue | Finding") -> Iterator[Line]:
    cause, where = (item.cause, "") if isinstance(item, Finding) else (item.fault, f"{item.file}: ")
    yield Line(((str(cause), "bold"),), (f"{item.severity:<10}", states.style(item.severity)))
    yield Line((f"{where}{item.message}",), indent=2)
    if item.fix is not None:
        yield Line((item.fix.summary,), "fix: ", 2)
        if item.fix.guide_step:
            yield Line((item.fix.guide_step,), "setup guide: ", 2)
        if item.fix.statement is not None and item.severity is not Severity.INFO:
            yield Line((json.dumps(item.fix.statement),), "statement: ", 2)
        if item.fix.command and item.severity is not Severity.INFO:
            yield Line((item.fix.command,), "$ ", 2)
    yield Line(())
