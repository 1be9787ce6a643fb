"""How an error is told: what happened, who must act, whether it is tried again, what to do next."""

import json

import click

from xmode_transfer import telemetry
from xmode_transfer.domain.errors import ConfigError, Party, XmodeError
from xmode_transfer.entrypoints.cli import words
from xmode_transfer.entrypoints.cli.terminal import secho
from xmode_transfer.telemetry import Event

_WHO = {Party.US: "we", Party.CUSTOMER: "the customer", Party.AWS: "AWS, or the network to it"}


def show(error: XmodeError, *, as_json: bool) -> None:
    """On stderr for people; with ``--json`` the one document on stdout, so that scripts need not read
    prose."""
    if as_json:
        document = {"error": error.log_context()}
        if isinstance(error, ConfigError):
            document["error"]["problems"] = list(error.problems)  # type: ignore[assignment]
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    if isinstance(error, ConfigError):
        for problem in error.problems:
            click.echo(problem, err=True)
        secho(error.message, fg="red", bold=True, err=True)
    else:
        secho(error.message, fg="red", bold=True, err=True)
        again = "yes, by itself" if error.retryable else "no, not before that"
        click.echo(words.wrapped(_WHO[error.party], 2, "who must act"), err=True)
        click.echo(words.wrapped(again, 2, "tried again"), err=True)
    if error.hint:
        click.echo(words.wrapped(error.hint, 2, "what to do"), err=True)
    if error.aws_code or error.request_id:
        said = f"{error.aws_code or '?'} (HTTP {error.http_status or '?'}, request {error.request_id or '?'})"
        click.echo(words.wrapped(said, 2, "AWS said"), err=True)


def show_usage(error: click.ClickException, *, as_json: bool) -> None:
    """What is wrong with the command line itself."""
    if not as_json:
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    help_of = context.command_path if context is not None else "xmode-transfer"
    told = ConfigError(error.format_message(), hint=f"see `{help_of} --help`").log_context()
    click.echo(json.dumps({"error": {**told, "cause": "usage", "problems": []}}, ensure_ascii=False))


def show_defect(error: Exception, *, as_json: bool) -> None:
    """A mistake of this program: the log has the traceback, the person a plain sentence."""
    telemetry.exception(Event.DEFECT)
    message = f"{type(error).__name__}: {error}"
    if as_json:
        document = {"cause": "defect", "party": "us", "retryable": False, "message": message}
        click.echo(json.dumps({"error": document}, ensure_ascii=False))
    else:
        secho(message, fg="red", bold=True, err=True)
        click.echo(
            "  this is a mistake in xmode-transfer; the log has the details. Nothing acknowledged is lost",
            err=True,
        )
