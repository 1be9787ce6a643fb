"""`xmode-transfer config`: validate the configuration offline, and write its JSON Schemas for editors."""

from collections.abc import Iterator, Sequence
from typing import Any

import click

from xmode_transfer.cli import opening, release, terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.cli.terminal import Line
from xmode_transfer.config import Configuration, Customer, Problem
from xmode_transfer.config.files import read_directory, schema_files
from xmode_transfer.model.errors import ConfigError, ExitCode
from xmode_transfer.model.keys import IllegalName
from xmode_transfer.web import states


@click.group()
def command() -> None:
    """Check the configuration, or write its JSON Schemas for editors."""


@command.command()
@click.option("--feed", "-f", metavar="F", help="Also judge a period of this feed by its checks.")
@click.option("--period", "-p", metavar="P", help="The period to judge; of a drop folder: none.")
@opening.with_json
def check(shell: Shell, feed: str | None, period: str | None, as_json: bool) -> int:
    """Read every file and list every mistake with its line. Works offline and writes nothing.

    With --feed and --period, read that period at its source and show the verdict of the checks before
    release, with the figures. Nothing is sent or recorded.

    Exit codes: 0 no mistakes; 2 mistakes; 3 the period would be quarantined.
    """
    if (feed is None) != (period is None):
        raise click.UsageError("use --feed and --period together")
    if feed is not None and period is not None:
        return _judge(shell, feed, period, as_json=as_json)
    configuration, stopping = read_directory(shell.config_dir)
    if as_json:
        terminal.answer(_document(shell, configuration, stopped=bool(stopping)))
    else:
        terminal.show(_lines(configuration, stopping))
    return ExitCode.USAGE if configuration.problems else ExitCode.DONE


@command.command()
@click.option(
    "--check", "only_check", is_flag=True, help="Write nothing; exit with 2 if a schema is out of date."
)
@opening.with_json
def schema(shell: Shell, only_check: bool, as_json: bool) -> int:
    """Write schema/service.json, feed.json and customer.json to the configuration's directory.

    The example files refer to them, so that an editor with a YAML language server completes keys and marks
    mistakes.
    """
    states: dict[str, str] = {}
    for path, text in schema_files(shell.config_dir):
        try:
            current = path.read_text(encoding="utf-8") if path.exists() else None
            if current == text:
                state = "current"
            elif only_check:
                state = "stale" if current is not None else "missing"
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                state = "written"
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be {'read' if only_check else 'written'}: {error}") from error
        states[str(path)] = state
    is_stale = not {"stale", "missing"}.isdisjoint(states.values())
    if as_json:
        files = [{"file": name, "state": state} for name, state in states.items()]
        terminal.answer({"outcome": "stale" if is_stale else "ok", "files": files})
    else:
        for name, state in states.items():
            terminal.say(name, label=terminal.state(state, 9))
        if is_stale:
            terminal.say("run: xmode-transfer config schema")
    return ExitCode.USAGE if is_stale else ExitCode.DONE


def _judge(shell: Shell, feed_name: str, label: str, *, as_json: bool) -> int:
    from xmode_transfer.config.secrets import ledger_url
    from xmode_transfer.delivery.run import judge_period
    from xmode_transfer.ledger import open_existing
    from xmode_transfer.service import assembly
    from xmode_transfer.telemetry import SystemClock

    configuration, clock = shell.configuration(), SystemClock()
    ledger = open_existing(ledger_url(configuration.service.ledger), clock)
    try:
        state, verdict = judge_period(configuration, assembly.sources(clock), ledger, clock, feed_name, label)
    finally:
        if ledger is not None:
            ledger.close()
    if as_json:
        place = {"feed": feed_name, "period": label, "complete": state.complete, "reason": state.reason}
        terminal.answer({**place, **release.verdict_document(verdict)})
    else:
        terminal.say((f"{feed_name} {label}", "bold"), f": {state.reason}")
        release.show_verdict(verdict)
    return ExitCode.WILL_RETRY if verdict.is_held_back else ExitCode.DONE


def _document(shell: Shell, configuration: Configuration, *, stopped: bool) -> dict[str, Any]:
    good = "stopped" if stopped else "ok"
    return {
        "directory": shell.config_dir,
        "outcome": "broken" if configuration.problems else "ok",
        "customers": [
            {
                "customer": name,
                "outcome": good if customer else "broken",
                "state": customer and customer.state,
                "feeds": customer and list(customer.feeds),
                "example_keys": _example_keys(configuration, customer) if customer else None,
                "destination": customer and customer.destination.url,
            }
            for name, customer in _customers(configuration)
        ],
        "feeds": sorted(configuration.feeds),
        "problems": [_problem(problem) for problem in configuration.problems],
        "hints": [_problem(hint) for hint in configuration.hints],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {**terminal.to_json(problem), "line": problem.line or None, "column": problem.column or None}


def _lines(configuration: Configuration, stopping: Sequence[Problem]) -> Iterator[Line]:
    for problem in configuration.problems:
        yield Line((str(problem),))
    for hint in configuration.hints:
        yield Line((f"hint: {hint}; the value is accepted, because requests do not go to AWS",))
    if configuration.problems or configuration.hints:
        yield Line(())
    why = " and ".join(sorted({problem.file for problem in stopping}))
    customers = list(_customers(configuration))
    width = max((len(name) for name, _ in customers), default=0)
    for name, customer in customers:
        if customer is None:
            problems = states.count(len(configuration.broken[name]), "problem")
            state, text = "broken", f"{problems}; nothing is delivered until it is fixed"
        elif stopping:
            state, text = "stopped", f"no problems of its own; nothing is delivered until {why} is fixed"
        else:
            state, text = customer.state, f"{', '.join(customer.feeds)} to {customer.destination.url}"
        yield Line((f"{name:<{width}}  {text}",), terminal.state(state, 10))
        for feed, key in _example_keys(configuration, customer).items() if customer is not None else ():
            yield Line((f"{'':10}  {'':<{width}}  {feed}: {key}",))
    text = f"{states.count(len(customers), 'customer')}, {states.count(len(configuration.feeds), 'feed')}"
    found = states.count(len(configuration.problems), "problem") if configuration.problems else "no problems"
    yield Line(((f"{text}: {found}", "bold red" if configuration.problems else "bold green"),))


def _example_keys(configuration: Configuration, customer: Customer) -> dict[str, str]:
    """Return the key of a plausible file of each feed, or why it cannot have one."""
    keys = {}
    for name in customer.feeds:
        feed = configuration.feeds.get(name)
        if feed is not None:  # a retired customer's may be gone
            try:
                keys[name] = customer.example_key(feed)
            except IllegalName as error:
                keys[name] = str(error)
    return keys


def _customers(configuration: Configuration) -> Iterator[tuple[str, Customer | None]]:
    """Yield all customers by name, with None for those that are broken."""
    for name in sorted({*configuration.customers, *configuration.broken}):
        yield name, configuration.customers.get(name)
