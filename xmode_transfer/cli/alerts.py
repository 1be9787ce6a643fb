"""`xmode-transfer alerts`: list alerts with their notifications, and test the channels."""

from typing import Any

import click

from xmode_transfer.cli import opening, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.model.errors import ConfigError, ExitCode, XmodeError
from xmode_transfer.model.health import Alert, AlertState, Event
from xmode_transfer.telemetry import SystemClock

_INDENT = 9


@click.group(name="alerts")
def command() -> None:
    """List alerts, one for each cause, or test the channels.

    \b
    xmode-transfer alerts list     show open alerts, since when, who is responsible, who was notified
    xmode-transfer alerts test     send a test message to every channel
    """


@command.command(name="list")
@click.option("--all", "everything", is_flag=True, help="Include alerts resolved in the last 30 days.")
@opening.with_json
def list_(shell: Shell, everything: bool, as_json: bool) -> int:
    """List open alerts, even if no daemon runs to send notifications. Only the ledger is read."""
    from xmode_transfer.alerting import watch
    from xmode_transfer.service import assembly

    configuration = shell.configuration()
    with assembly.ledger(configuration.service) as (ledger, clock):
        found = watch.current_alerts(configuration, ledger, clock)
    shown = [alert for alert in found if everything or alert.state is AlertState.OPEN]
    if as_json:
        terminal.answer({"alerts": [_document(alert) for alert in shown]})
        return ExitCode.DONE
    for alert in shown:
        _show(alert)
    if not shown:
        terminal.say("no alerts")
    return ExitCode.DONE


@command.command()
@click.option("--channel", "-c", "name", metavar="NAME", help="Only this channel.")
@opening.with_json
def test(shell: Shell, name: str | None, as_json: bool) -> int:
    """Send a test message to each channel and show its response.

    The channel's `responsible` filter and quiet hours do not apply. A channel with states (a pager) then gets
    a resolution. Exit code 3: a channel did not accept the message.
    """
    from xmode_transfer.alerting import channels as sending
    from xmode_transfer.alerting import watch

    channels = {channel.name: channel for channel in shell.configuration().service.alerts}
    if name is not None and name not in channels:
        known = ", ".join(channels) or "none"
        raise ConfigError(f"there is no alert channel {name}", hint=f"channels: {known}")
    if not channels:
        raise ConfigError(
            "no alert channel is configured",
            hint="add one under `alerts:` in service.yaml (docs/alerts.md); the log always has every alert",
        )
    answers: list[dict[str, Any]] = []
    for channel in channels.values() if name is None else [channels[name]]:
        try:
            answer = {"sent": True, "answer": watch.send_test(channel, sending.send, SystemClock())}
        except XmodeError as error:
            answer = {"sent": False, "error": error.message, "hint": error.hint}
        answers.append({"channel": channel.name, **answer})
    if as_json:
        terminal.answer({"channels": answers})
    for item in () if as_json else answers:
        state = terminal.state("sent" if item["sent"] else "not_sent", _INDENT + 1)
        terminal.say(f"{item['channel']}: {item['answer' if item['sent'] else 'error']}", label=state)
        if item.get("hint"):
            terminal.fact("fix", item["hint"], _INDENT + 1)
    return ExitCode.DONE if all(item["sent"] for item in answers) else ExitCode.WILL_RETRY


def _document(alert: Alert) -> dict[str, Any]:
    channels = [
        {"channel": name, **terminal.to_json(item), "error": item.error or None}
        for name, item in alert.notifications.items()
    ]
    return {**alert.document(), "channels": channels}


def _show(alert: Alert) -> None:
    """Show an alert as a channel gets it."""
    from xmode_transfer.alerting.alerts import Message

    terminal.say((alert.summary, "bold"), label=terminal.state(alert.state, _INDENT))
    event = Event.OPENED if alert.state is AlertState.OPEN else Event.RESOLVED
    for line in Message(event, alert, alert.since_at).body.split("\n"):
        terminal.say(line, indent=_INDENT)
    for channel, item in alert.notifications.items():
        sent = f"{channel}: {item.sent} at {terminal.minute(item.sent_at)}" if item.sent_at else ""
        failed = f"{channel} did not accept it ({item.error})" if item.attempts else ""
        terminal.fact("notified", "; ".join(filter(None, (sent, failed))), _INDENT)
    if not alert.notifications:
        terminal.fact("notified", "no channel", _INDENT)
