"""`xmode-transfer sandbox`: a local AWS with customers set up by the guide."""

import shlex
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.config.base import check_slug, did_you_mean
from xmode_transfer.sandbox import server
from xmode_transfer.sandbox.accounts import DEFAULT_CUSTOMERS
from xmode_transfer.sandbox.model import Sandbox, SandboxError, Variant, write_config

_CLEARED = (  # each could lead a process to another AWS, or to none
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)
_WATCH_SECONDS = 1.0


def _customers(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, Variant]:
    """Parse ``acme`` or ``acme=abort-granted`` of each --customer."""
    customers: dict[str, Variant] = {}
    for text in given:
        name, equals, word = text.partition("=")
        try:
            check_slug(name)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        if equals and word not in list(Variant):
            hint = f"{did_you_mean(word, Variant)}; choose from {', '.join(Variant)}"
            raise click.BadParameter(f"{word!r} is not a variant{hint}")
        if name in customers:
            raise click.BadParameter(f"{name} is given twice.")
        customers[name] = Variant(word) if equals else Variant.GUIDE
    return customers


home_option = click.option(
    "--home",
    type=opening.DIRECTORY,
    envvar="XMODE_SANDBOX_HOME",
    default=".sandbox",
    show_default=True,
    show_envvar=True,
    help="Directory of the local AWS and its sandboxes. Delete it when none is running.",
)


@click.group(
    name="sandbox",
    invoke_without_command=True,
    epilog="The first start downloads the local AWS (MiniStack, about 90 MB) from pip's package index.",
)
@click.option(
    "--customer",
    "customers",
    metavar="NAME[=VARIANT]",
    callback=_customers,
    multiple=True,
    help="Customer to set up; repeatable. Default: acme and globex, both by the guide.",
)
@click.option("--detach", is_flag=True, help="Run in the background, until `xmode-transfer sandbox stop ID`.")
@click.option(
    "--write-config",
    "config",
    type=opening.DIRECTORY,
    metavar="DIR",
    help="Write a configuration for its customers to DIR, which must be new or empty.",
)
@home_option
@opening.json_option
@click.pass_context
def command(
    context: click.Context,
    customers: dict[str, Variant],
    detach: bool,
    config: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    """Start a local AWS, with customers whose roles follow the setup guide.

    Listens only on 127.0.0.1, enforces IAM policies, and forgets everything when it stops. Runs until Ctrl-C.

    \b
    A variant is how a customer has set up its side:
      guide              the guide's two policies, to the letter (the default)
      abort-granted      the corrected policy of `xmode-transfer policy print`
      prefix-only        list and objects below the prefix only
      no-acl-condition   the guide's policy without its ACL condition
      kms-bucket         the bucket encrypts with the customer's own KMS key
      versioned          the bucket keeps every version
      no-role            the role does not exist
      wrong-external-id  the role requires another external ID

    \b
    xmode-transfer sandbox --write-config try    then in another shell: eval "$(xmode-transfer sandbox env)"
    xmode-transfer sandbox --detach --customer acme --customer initech=no-role
    """
    if context.invoked_subcommand is not None:
        typed = click.core.ParameterSource.COMMANDLINE
        if any(context.get_parameter_source(name) is typed for name in context.params):
            raise click.UsageError(f"Write options after `{context.invoked_subcommand}`, not before it.")
        return
    if config is not None and config.exists() and any(config.iterdir()):
        raise click.BadParameter(f"{config} is not empty; name a new directory.", param_hint="--write-config")
    sandbox = server.start(
        home, customers or DEFAULT_CUSTOMERS, detach=detach, say=lambda line: click.echo(line, err=True)
    )
    stopped = threading.Event()
    try:
        for number in () if detach else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stopped.set())
        if config is not None:
            write_config(config, sandbox)
        if as_json:
            terminal.answer({**_document(sandbox), "config": config}, indent=2)
        else:
            _show(sandbox, config, detach=detach)
        if detach:
            return
        while not stopped.wait(_WATCH_SECONDS):
            if not server.is_running(sandbox):
                raise SandboxError(
                    f"The local AWS of {sandbox.id} has stopped unexpectedly.",
                    hint="Start another. If that stops too, check the free memory of this machine.",
                )
    except BaseException:
        server.stop(sandbox)
        raise
    server.stop(sandbox)
    click.echo(f"{sandbox.id} is stopped and removed.", err=True)


@command.command("list")
@home_option
@opening.json_option
def list_command(home: Path, as_json: bool) -> None:
    """List running and ended sandboxes."""
    found = [(sandbox, server.is_running(sandbox)) for sandbox in server.find_all(home)]
    if as_json:
        listed = [{**_document(sandbox), "running": alive} for sandbox, alive in found]
        terminal.answer({"sandboxes": listed}, indent=2)
        return
    if not found:
        click.echo(f"No sandbox in {home}.")
    for sandbox, alive in found:
        state = f"running at {sandbox.endpoint}" if alive else "ended; `sandbox stop` removes its directory"
        names = ", ".join(customer.name for customer in sandbox.customers)
        click.echo(f"{sandbox.id}  {state}  ({names or 'no customers'})")


@command.command("stop")
@click.argument("sandbox_ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="Stop all sandboxes.")
@home_option
@opening.json_option
def stop_command(sandbox_ids: tuple[str, ...], every: bool, home: Path, as_json: bool) -> None:
    """Stop sandboxes and remove their data."""
    if every == bool(sandbox_ids):
        raise click.UsageError("Give the IDs of sandboxes, or --all.")
    chosen = server.find_all(home) if every else [server.find(sandbox_id, home) for sandbox_id in sandbox_ids]
    stopped = [{"id": sandbox.id, "was_running": server.stop(sandbox)} for sandbox in chosen]
    if as_json:
        terminal.answer({"stopped": stopped}, indent=2)
        return
    for entry in stopped:
        state = "stopped" if entry["was_running"] else "had ended; removed its directory"
        click.echo(f"{entry['id']}  {state}")
    if not stopped:
        click.echo(f"No sandbox in {home}.")


@command.command("env")
@click.argument("sandbox_id", required=False, metavar="[ID]")
@home_option
@opening.json_option
def env_command(sandbox_id: str | None, home: Path, as_json: bool) -> None:
    """Print the variables with which a shell acts as the vendor in a sandbox. Omit ID if only one runs.

    \b
    eval "$(xmode-transfer sandbox env)"
    """
    if sandbox_id is not None:
        sandbox = server.find(sandbox_id, home)
    else:
        alive = [found for found in server.find_all(home) if server.is_running(found)]
        if len(alive) != 1:
            raise SandboxError(
                f"{len(alive)} sandboxes run in {home}.", hint="Start one, or name one: sandbox env ID."
            )
        sandbox = alive[0]
    if as_json:
        terminal.answer(sandbox.environment(), indent=2)
    else:
        click.echo("\n".join(shell_lines(sandbox.environment())))


def _show(sandbox: Sandbox, config: Path | None, *, detach: bool) -> None:
    click.echo(f"{sandbox.id}: a local AWS at {sandbox.endpoint}\n")
    click.echo("To act as the vendor in a shell:\n")
    click.echo("\n".join(shell_lines(sandbox.environment())))
    click.echo("\nIts customers:\n")
    for customer in sandbox.customers:
        click.echo(f"  {customer.name} ({customer.company}), variant {customer.variant}")
        terminal.fact("account", customer.account, 4)
        terminal.fact("role", customer.role_arn, 4)
        terminal.fact("external ID", customer.external_id, 4)
        below = customer.prefix or "no prefix"
        terminal.fact("bucket", f"{customer.bucket} in {customer.region}, below {below}", 4)
        click.echo()
    if sandbox.customers:
        click.echo("To act as a customer, use its account as the access key ID, and this secret access key:")
        click.echo(f"  {sandbox.root_secret}\n")
    if config is not None:
        at = f"xmode-transfer --config {shlex.quote(str(config))}"
        name = sandbox.customers[0].name
        click.echo(f"A configuration is in {config}. In a shell that acts as the vendor:\n")
        click.echo(f"  {at} check-access")
        click.echo(f"  day={shlex.quote(str(config))}/exports/us-daily/2026/01/31")
        click.echo('  mkdir -p "$day" && echo hello > "$day/hello.csv" && touch "$day/_SUCCESS"')
        click.echo(f"  {at} run --customer {name} --period 2026-01-31\n")
    click.echo(
        f"Stop it with: xmode-transfer sandbox stop {sandbox.id}" if detach else "Press Ctrl-C to stop it."
    )


def shell_lines(environment: Mapping[str, str]) -> list[str]:
    """Return the lines that give a shell these variables, without others that lead to another AWS."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return [f"unset {' '.join(_CLEARED)}", *exports]


def _document(sandbox: Sandbox) -> dict[str, Any]:
    customers = [terminal.to_json(customer) for customer in sandbox.customers]
    for customer in customers:
        del customer["endpoint"]
    return {
        **terminal.picked(sandbox, "id", "endpoint", "pid", "directory"),
        "environment": sandbox.environment(),
        "customers": customers,
    }
