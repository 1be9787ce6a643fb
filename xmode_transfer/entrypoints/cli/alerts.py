"""`xmode-transfer alerts`: what is wrong by cause, who was told, and whether a channel works."""

import json
from typing import Any

import click

from xmode_transfer.domain.alerts import Alert, AlertState, Event, Message
from xmode_transfer.domain.config import Configuration
from xmode_transfer.domain.errors import ConfigError, ExitCode, XmodeError
from xmode_transfer.domain.manifest import timestamp
from xmode_transfer.entrypoints.cli import Shell, words
from xmode_transfer.entrypoints.cli.terminal import style

_COLOURS = {AlertState.OPEN: "red", AlertState.RESOLVED: "green"}


@click.group(name="alerts")
def command() -> None:
    """Alerts: one for each cause, however many customers it hurts.

    \b
    xmode-transfer alerts list               what is open, since when, who must act, who was told
    xmode-transfer alerts test               sends a test message to every channel
    """


@command.command(name="list")
@click.option("--all", "everything", is_flag=True, help="Also those that were resolved in the last 30 days.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def list_(shell: Shell, everything: bool, as_json: bool) -> int:
    """What is open. Reads the ledger and calls nobody.

    What is wrong is shown as open also where no daemon runs that tells anybody of it.
    """
    from xmode_transfer import bootstrap
    from xmode_transfer.services import watch

    configuration = _configuration(shell)
    with bootstrap.ledger(configuration.service) as (ledger, clock):
        found = watch.current_alerts(configuration, ledger, clock)
    shown = [alert for alert in found if everything or alert.state is AlertState.OPEN]
    if as_json:
        click.echo(json.dumps({"alerts": [_document(alert) for alert in shown]}, ensure_ascii=False))
        return ExitCode.DONE
    for alert in shown:
        _tell(alert)
    if not shown:
        click.echo("nothing is wrong")
    return ExitCode.DONE


@command.command()
@click.option("--channel", "-c", "name", metavar="NAME", help="Only this channel.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def test(shell: Shell, name: str | None, as_json: bool) -> int:
    """Send one message to each channel, and say what it answered.

    It goes out at once, whatever the channel's parties, and in quiet hours too. A channel with states (a
    pager) is told right after that the test is resolved. Exit code 3: a channel did not take it.
    """
    from xmode_transfer.adapters import notify
    from xmode_transfer.adapters.clock import SystemClock
    from xmode_transfer.services import watch

    channels = {channel.name: channel for channel in _configuration(shell).service.alerts}
    if name is not None and name not in channels:
        raise ConfigError(f"there is no channel {name}", hint=f"channels: {', '.join(channels) or 'none'}")
    if not channels:
        raise ConfigError(
            "no channel is configured",
            hint="write one under `alerts:` in service.yaml (docs/alerts.md); the log has every alert anyway",
        )
    answers: list[dict[str, Any]] = []
    for channel in channels.values() if name is None else [channels[name]]:
        try:
            answer = watch.send_test(channel, notify.send, SystemClock())
        except XmodeError as error:
            answers.append(
                {"channel": channel.name, "sent": False, "error": error.message, "hint": error.hint}
            )
        else:
            answers.append({"channel": channel.name, "sent": True, "answer": answer})
    if as_json:
        click.echo(json.dumps({"channels": answers}, ensure_ascii=False))
    else:
        for item in answers:
            _tell_answer(item)
    return ExitCode.DONE if all(item["sent"] for item in answers) else ExitCode.WILL_RETRY


def _configuration(shell: Shell) -> Configuration:
    from xmode_transfer.adapters import config_files

    return config_files.load(shell.config_dir)


def _tell_answer(item: dict[str, Any]) -> None:
    if item["sent"]:
        click.echo(f"{style('sent', fg='green')}      {item['channel']}: {item['answer']}")
        return
    click.echo(f"{style('not sent', fg='red')}  {item['channel']}: {item['error']}")
    if item["hint"]:
        click.echo(words.wrapped(item["hint"], 10, "what to do"))


def _document(alert: Alert) -> dict[str, Any]:
    return {
        **alert.document(),
        "channels": [
            {
                "channel": channel,
                "told": str(item.sent) if item.sent else None,
                "told_at": timestamp(item.sent_at) if item.sent_at else None,
                "attempts": item.attempts,
                "next_attempt_at": timestamp(item.next_attempt_at) if item.next_attempt_at else None,
                "error": item.error or None,
            }
            for channel, item in alert.notifications.items()
        ],
    }


def _tell(alert: Alert) -> None:
    """As a channel is sent it, and what each channel knows."""
    head = style(f"{alert.state:<9}", fg=_COLOURS[alert.state], bold=True)
    click.echo(words.folded(f"{head}{style(alert.summary, bold=True)}"))
    is_open = alert.state is AlertState.OPEN
    for line in Message(Event.OPENED if is_open else Event.RESOLVED, alert, alert.since_at).body.split("\n"):
        click.echo(words.wrapped(line, 9))
    for channel, item in alert.notifications.items():
        told = f"{channel}: {item.sent} at {item.sent_at:%Y-%m-%d %H:%M} UTC" if item.sent_at else ""
        failed = f"{channel} did not take it ({item.error})" if item.attempts else ""
        click.echo(words.wrapped("; ".join(filter(None, (told, failed))), 9, "told"))
    if not alert.notifications:
        click.echo(words.wrapped("nobody", 9, "told"))
