"""`xmode-transfer onboard`: onboard a customer, and activate it once its side is set up."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.access.onboard import FROM_COMPANY, GENERATED, SignUp
from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.model.errors import ConfigError

if TYPE_CHECKING:
    from xmode_transfer.access.onboard import Confirmation, Onboarded


@click.command()
@click.option("--company", metavar="NAME", default="", help="Company name, as people write it.")
@click.option("--account", metavar="A", default="", help="Its AWS account, 12 digits.")
@click.option("--bucket", metavar="B", default="", help="Its bucket.")
@click.option("--feed", "-f", "feeds", metavar="F", multiple=True, help="Feed to deliver; repeatable.")
@click.option("--name", metavar="C", default=None, help="Short name. [default: from the company's name]")
@click.option(
    "--prefix",
    metavar="P",
    default="xmode/",
    show_default=True,
    help='Prefix to deliver to; "" for the whole bucket.',
)
@click.option("--region", metavar="R", default=None, help="The bucket's region. [default: detected]")
@click.option("--role-name", metavar="R", default="XMode", show_default=True, help="Name of its role.")
@click.option(
    "--kms-key", "kms_key_arn", metavar="ARN", default=None, help="KMS key that its bucket encrypts with."
)
@click.option(
    "--external-id",
    metavar="ID",
    default=GENERATED,
    show_default=True,
    help=f"{GENERATED}: hard to guess; {FROM_COMPANY}: the setup guide's form; or the ID itself.",
)
@click.option(
    "--out",
    type=opening.DIRECTORY,
    default=None,
    help="New directory for the customer's setup kit.",
)
@click.option("--confirm", metavar="C", default=None, help="Check this customer's access and activate it.")
@click.option("--force", is_flag=True, help="With --confirm: activate it despite findings. Needs --reason.")
@click.option("--reason", metavar="TEXT", default=None, help="With --force: the reason, for the log.")
@opening.json_option
@click.pass_context
def command(ctx: click.Context, /, out: Path | None, confirm: str | None, as_json: bool, **given: Any) -> int:
    """Onboard a customer: validate the sign-up, write customers/NAME.yaml (pending) and a setup kit.

    The kit has instructions to read and to print, the policies, a script, a CloudFormation template and a
    Terraform module, all filled in. Send it to the customer. When the customer is done, --confirm checks its
    access and activates it, unless something must be fixed first. It refuses a role that works without the
    external ID.

    \b
    xmode-transfer onboard --company "Acme Corp" --account 111122223333 --bucket acme-data \\
        --feed us-daily --out kits/acme
    xmode-transfer onboard --confirm acme
    """
    force, reason = given.pop("force"), given.pop("reason")
    if confirm is not None:
        typed = click.core.ParameterSource.COMMANDLINE
        told = [name for name in (*given, "out") if ctx.get_parameter_source(name) is typed]
        if told:
            raise click.UsageError(
                f"--confirm takes no --{told[0].replace('_', '-')}: the customer's file has the values"
            )
        return _confirm(ctx.obj, confirm, force, reason, as_json)
    if force or reason is not None:
        raise click.UsageError("--force and --reason require --confirm")
    if out is None:
        raise ConfigError(
            "--out is required: the directory for the customer's kit",
            hint="name a new directory, such as --out kits/acme",
        )
    return _onboard(ctx.obj, SignUp(**given), out, as_json)


def _onboard(shell: Shell, sign_up: SignUp, out: Path, as_json: bool) -> int:
    from xmode_transfer.access.kit import CustomerFiles, KitDirectory
    from xmode_transfer.access.onboard import onboard

    configuration = shell.configuration()
    done = onboard(
        sign_up,
        configuration,
        CustomerFiles(shell.config_dir),
        KitDirectory(out),
        lambda: secrets.token_hex(16),
    )
    if as_json:
        terminal.answer(_onboarded(done, out))
        return 0
    customer = done.customer
    terminal.say(
        (
            f"Created customer {customer.name} (pending). Nothing is delivered until it is confirmed.",
            "bold green",
        )
    )
    facts = {
        "external ID": customer.external_id,
        "role": customer.role_arn,
        "destination": f"s3://{customer.destination.bucket}/{customer.destination.prefix}",
        "feeds": ", ".join(customer.feeds),
        "file": f"{shell.config_dir / done.file}",
        "kit": f"{out.absolute()}: {', '.join(done.kit_files)}",
    }
    for name, value in facts.items():
        terminal.fact(name, value)
    for note in done.notes:
        terminal.say((f"note: {note}", "yellow"), indent=2)
    terminal.say(f"\nSend the kit to {customer.company}. When they are done:")
    terminal.say(f"xmode-transfer onboard --confirm {customer.name}", indent=2)
    return 0


def _onboarded(done: "Onboarded", out: Path) -> dict[str, Any]:
    customer = done.customer
    return {
        "customer": customer.name,
        "outcome": "pending",
        "company": customer.company,
        "external_id": customer.external_id,
        "role_arn": customer.role_arn,
        "destination": customer.destination.model_dump(mode="json", exclude_none=True),
        "feeds": list(customer.feeds),
        "file": done.file,
        "kit": str(out.absolute()),
        "kit_files": list(done.kit_files),
        "notes": list(done.notes),
    }


def _confirm(shell: Shell, name: str, force: bool, reason: str | None, as_json: bool) -> int:
    from xmode_transfer.access.check_access import check_access
    from xmode_transfer.access.kit import CustomerFiles
    from xmode_transfer.access.onboard import confirm
    from xmode_transfer.cli import check_access as shown
    from xmode_transfer.service import assembly

    if force != (reason is not None):
        raise click.UsageError("--force and --reason go together: an override is logged with its reason")
    configuration = shell.configuration()
    with shell.opened(configuration, quiet=True) as opened:
        prober = assembly.prober(opened.context)
        answer = confirm(
            lambda customer: check_access(opened.context, prober, customer),
            configuration,
            CustomerFiles(shell.config_dir),
            name,
            override=reason,
        )
    if as_json:
        terminal.answer(
            {
                "customer": name,
                "outcome": "active" if answer.exit_code == 0 else "refused",
                "state": str(answer.state),
                "overridden": answer.overridden,
                "causes": [str(cause) for cause in answer.report.causes],
                "findings": [shown.finding_document(item) for item in answer.report.findings],
            }
        )
    else:
        shown.show([(name, answer.report)], {name: answer.customer})
        terminal.say()
        terminal.say((_told(answer), "bold green" if answer.exit_code == 0 else "bold red"))
    return answer.exit_code


def _told(answer: "Confirmation") -> str:
    name = answer.customer.name
    causes = ", ".join(dict.fromkeys(str(item.cause or item.probe) for item in answer.against))
    if answer.overridden:
        return f"{name} is active despite {causes}; the log has your reason"
    if answer.exit_code == 0:
        return f"{name} is active. The next run delivers to it"
    if answer.report.interrupted:
        return f"{name} remains {answer.state}: the check was stopped"
    return f"{name} remains {answer.state}, because of {causes}"
