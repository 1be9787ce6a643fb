"""`xmode-transfer alerts`: what is wrong by cause, who was told, and whether a channel works."""

import json
from typing import Any

import click

from xmode_transfer.domain.alerts import Alert, AlertState, Telling
from xmode_transfer.domain.config import Configuration
from xmode_transfer.domain.errors import ConfigError, ExitCode, Party, XmodeError
from xmode_transfer.domain.manifest import timestamp
from xmode_transfer.entrypoints.cli import Shell, words
from xmode_transfer.entrypoints.cli.terminal import style

_COLOURS = {AlertState.OPEN: "red", AlertState.PENDING: "yellow", AlertState.RESOLVED: "green"}
_WHO = {Party.US: "we", Party.CUSTOMER: "the customer", Party.AWS: "AWS"}
_NAMED = 8


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

    What is wrong and has not lasted long enough to be told is shown as pending; so is what nobody tells of
    because no daemon runs.
    """
    from xmode_transfer import bootstrap
    from xmode_transfer.services import watch

    configuration = _configuration(shell)
    with bootstrap.ledger(configuration.service) as (ledger, clock):
        found = watch.current_alerts(configuration, ledger, clock)
        tellings = ledger.alerts.tellings()
    shown = [alert for alert in found if everything or alert.state is not AlertState.RESOLVED]
    told: dict[str, list[Telling]] = {}
    for telling in tellings:
        told.setdefault(telling.fingerprint, []).append(telling)
    if as_json:
        document = {"alerts": [_document(alert, told.get(alert.fingerprint, ())) for alert in shown]}
        click.echo(json.dumps(document, ensure_ascii=False))
        return ExitCode.DONE
    for alert in shown:
        _tell(alert, told.get(alert.fingerprint, ()))
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
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters.clock import SystemClock
    from xmode_transfer.services import watch

    configuration = _configuration(shell)
    notifiers = bootstrap.notifiers(configuration.service)
    names = [notifier.route.channel for notifier in notifiers]
    if name is not None and name not in names:
        raise ConfigError(f"there is no channel {name}", hint=f"channels: {', '.join(names) or 'none'}")
    if not notifiers:
        raise ConfigError(
            "no channel is configured",
            hint="write one under `alerts:` in service.yaml (docs/alerts.md); the log has every alert anyway",
        )
    answers: list[dict[str, Any]] = []
    for notifier in notifiers:
        channel = notifier.route.channel
        if name is not None and channel != name:
            continue
        try:
            answer = watch.send_test(notifier, SystemClock())
        except XmodeError as error:
            answers.append({"channel": channel, "sent": False, "error": error.message, "hint": error.hint})
        else:
            answers.append({"channel": channel, "sent": True, "answer": answer})
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


def _document(alert: Alert, tellings: list[Telling] | tuple[Telling, ...]) -> dict[str, Any]:
    condition = alert.condition
    return {
        "fingerprint": condition.fingerprint,
        "state": str(alert.state),
        "cause": condition.cause,
        "detail": condition.detail,
        "party": str(condition.party),
        "urgent": condition.urgent,
        "summary": condition.summary,
        "message": condition.message,
        "hint": condition.hint,
        "customers": list(condition.customers),
        "customer_count": condition.customer_count,
        "since_at": timestamp(condition.since_at),
        "opened_at": timestamp(alert.opened_at) if alert.opened_at else None,
        "resolved_at": timestamp(alert.resolved_at) if alert.resolved_at else None,
        "channels": [
            {
                "channel": item.channel,
                "told": str(item.told) if item.told else None,
                "told_at": timestamp(item.told_at) if item.told_at else None,
                "attempts": item.attempts,
                "next_attempt_at": timestamp(item.next_attempt_at) if item.next_attempt_at else None,
                "error": item.error or None,
            }
            for item in tellings
            if item.episode == alert.episode
        ],
    }


def _tell(alert: Alert, tellings: list[Telling] | tuple[Telling, ...]) -> None:
    condition = alert.condition
    head = style(f"{alert.state:<9}", fg=_COLOURS[alert.state], bold=True)
    click.echo(words.folded(f"{head}{style(condition.summary, bold=True)}"))
    click.echo(words.wrapped(condition.message, 9))
    if alert.state is not AlertState.RESOLVED:
        click.echo(words.wrapped(_WHO[condition.party], 9, "who must act"))
        click.echo(words.wrapped(condition.hint, 9, "what to do"))
    if condition.customer_count > 1:
        named = ", ".join(condition.customers[:_NAMED])
        more = condition.customer_count - min(_NAMED, len(condition.customers))
        click.echo(words.wrapped(f"{named}{f' and {more:,} more' if more > 0 else ''}", 9, "customers"))
    urgent = ", urgent" if condition.urgent else ""
    click.echo(words.wrapped(f"{condition.cause}{urgent}", 9, "cause"))
    for item in tellings:
        if item.episode != alert.episode:
            continue
        told = f"{item.channel}: {item.told} at {item.told_at:%Y-%m-%d %H:%M} UTC" if item.told_at else ""
        failed = f"{item.channel} did not take it ({item.error})" if item.attempts else ""
        click.echo(words.wrapped("; ".join(filter(None, (told, failed))), 9, "told"))
