"""`xmode-transfer onboard`: take a customer in, and turn it on once its side is set up."""

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.domain.errors import ConfigError
from xmode_transfer.domain.sign_up import FROM_COMPANY, GENERATED, SignUp
from xmode_transfer.entrypoints.cli.terminal import secho

if TYPE_CHECKING:
    from xmode_transfer.entrypoints.cli import Shell
    from xmode_transfer.services.onboard import Confirmation, Onboarded


@click.command()
@click.option("--company", metavar="NAME", default="", help="The company's name as people write it.")
@click.option("--account", metavar="A", default="", help="Its AWS account, 12 digits.")
@click.option("--bucket", metavar="B", default="", help="The bucket that it receives in.")
@click.option("--feed", "-f", "feeds", metavar="F", multiple=True, help="A feed to receive; at least one.")
@click.option("--name", metavar="C", default=None, help="Its short name. [default: from the company's name]")
@click.option(
    "--prefix",
    metavar="P",
    default="xmode/",
    show_default=True,
    help='The folder in the bucket that is ours; "" for all of it.',
)
@click.option("--region", metavar="R", default=None, help="The bucket's region. [default: learnt from AWS]")
@click.option("--role-name", metavar="R", default="XMode", show_default=True, help="The role that it makes.")
@click.option(
    "--kms-key", "kms_key_arn", metavar="ARN", default=None, help="The key its bucket encrypts with."
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
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Where its kit goes: a directory that is not there yet.",
)
@click.option("--confirm", metavar="C", default=None, help="Check this customer's access and turn it on.")
@click.option("--force", is_flag=True, help="With --confirm: turn it on whatever was found. Needs --reason.")
@click.option("--reason", metavar="TEXT", default=None, help="With --force: why; it is logged.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; logs stay on stderr.")
@click.pass_context
def command(ctx: click.Context, /, out: Path | None, confirm: str | None, as_json: bool, **given: Any) -> int:
    """Take a customer in: check the sign-up, write customers/NAME.yaml (pending) and a kit for the customer.

    The kit has instructions to read and to print, the policies, a script, a CloudFormation template and a
    Terraform module, all filled in. Send it; when the customer is done, --confirm checks its access and
    turns it on. It is not turned on while somebody must act; a role that works without the external ID is
    refused.

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
                f"--confirm goes without --{told[0].replace('_', '-')}: the file says it all"
            )
        return _confirm(ctx.obj, confirm, force, reason, as_json)
    if force or reason is not None:
        raise click.UsageError("--force and --reason go with --confirm")
    if out is None:
        raise ConfigError(
            "say with --out where the customer's kit goes",
            hint="name a directory that is not there yet, such as --out kits/acme",
        )
    return _onboard(ctx.obj, SignUp(**given), out, as_json)


def _onboard(shell: "Shell", sign_up: SignUp, out: Path, as_json: bool) -> int:
    from xmode_transfer.adapters import config_files
    from xmode_transfer.adapters.config_files.registry import CustomerFiles
    from xmode_transfer.adapters.kit import KitDirectory
    from xmode_transfer.services.onboard import onboard

    configuration = config_files.load(shell.config_dir)
    done = onboard(
        sign_up,
        configuration,
        CustomerFiles(shell.config_dir),
        KitDirectory(out),
        lambda: secrets.token_hex(16),
    )
    if as_json:
        click.echo(json.dumps(_onboarded(done, out), ensure_ascii=False))
        return 0
    customer = done.customer
    secho(f"{customer.name} is taken in, pending: nothing is delivered yet", fg="green", bold=True)
    click.echo(f"  external ID   {customer.external_id}")
    click.echo(f"  role          {customer.role_arn}")
    click.echo(f"  destination   s3://{customer.destination.bucket}/{customer.destination.prefix}")
    click.echo(f"  feeds         {', '.join(customer.feeds)}")
    click.echo(f"  file          {shell.config_dir / done.file}")
    click.echo(f"  kit           {out.absolute()}: {', '.join(done.kit_files)}")
    for note in done.notes:
        secho(f"  note: {note}", fg="yellow")
    click.echo(f"\nSend the kit to {customer.company}. When they are done:")
    click.echo(f"  xmode-transfer onboard --confirm {customer.name}")
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


def _confirm(shell: "Shell", name: str, force: bool, reason: str | None, as_json: bool) -> int:
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files
    from xmode_transfer.adapters.config_files.registry import CustomerFiles
    from xmode_transfer.entrypoints.cli import check_access as shown
    from xmode_transfer.entrypoints.cli import stopping
    from xmode_transfer.entrypoints.cli.tally import Tally
    from xmode_transfer.services.check_access import check_access
    from xmode_transfer.services.onboard import confirm

    if force != (reason is not None):
        raise click.UsageError("--force and --reason go together: an override is logged with its reason")
    configuration = config_files.load(shell.config_dir)
    with stopping.on_signals() as stop, bootstrap.workbench(configuration, Tally(), stop) as bench:
        prober = bootstrap.prober(bench)
        answer = confirm(
            lambda customer: check_access(bench, prober, customer),
            configuration,
            CustomerFiles(shell.config_dir),
            name,
            override=reason,
        )
    if as_json:
        document = {
            "customer": name,
            "outcome": _outcome(answer),
            "state": str(answer.state),
            "overridden": answer.overridden,
            "causes": [str(cause) for cause in answer.report.causes],
            "findings": [shown.finding_document(item) for item in answer.report.findings],
        }
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        shown.show([(name, answer.report)], {name: answer.customer})
        click.echo()
        secho(_told(answer), fg="green" if answer.exit_code == 0 else "red", bold=True)
    return answer.exit_code


def _outcome(answer: "Confirmation") -> str:
    return "active" if answer.exit_code == 0 else "refused"


def _told(answer: "Confirmation") -> str:
    name = answer.customer.name
    causes = ", ".join(dict.fromkeys(str(item.cause or item.probe) for item in answer.against))
    if answer.overridden:
        return f"{name} is turned on in spite of {causes}; your reason is in the log"
    if answer.exit_code == 0:
        return f"{name} is turned on: the next run delivers to it"
    if answer.report.interrupted:
        return f"{name} stays {answer.state}: the check was stopped"
    return f"{name} stays {answer.state}, because of {causes}"
