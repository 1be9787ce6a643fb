"""``config check``: the configuration read and judged without any network; ``config schema``: for editors."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.adapters.config_files import schema_files, survey
from xmode_transfer.domain.config import Configuration, Customer, Problem
from xmode_transfer.domain.errors import ConfigError, ExitCode
from xmode_transfer.entrypoints.cli import words
from xmode_transfer.entrypoints.cli.terminal import style

if TYPE_CHECKING:
    from xmode_transfer.entrypoints.cli import Shell


@click.group()
def command() -> None:
    """Check the configuration; write the JSON Schemas that editors use."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def check(shell: "Shell", as_json: bool) -> int:
    """Read every file and tell every mistake with its line. Nobody is called, nothing is written.

    Exit codes: 0 all is in order; 2 something is not.
    """
    configuration, stopping = survey(shell.config_dir)
    if as_json:
        document = _document(shell, configuration, stopped=bool(stopping))
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        for line in _lines(configuration, stopping):
            click.echo(words.folded(line))
    return ExitCode.USAGE if configuration.problems else ExitCode.DONE


@command.command()
@click.option(
    "--check", "only_check", is_flag=True, help="Write nothing; exit 2 when a schema is not current."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def schema(shell: "Shell", only_check: bool, as_json: bool) -> int:
    """Write schema/service.json, feed.json and customer.json in the configuration's directory.

    The example files name them: an editor with a YAML language server then completes keys and marks mistakes.
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
        click.echo(json.dumps({"outcome": "stale" if is_stale else "ok", "files": files}, ensure_ascii=False))
    else:
        for name, state in states.items():
            click.echo(f"{state:<9}{name}")
        if is_stale:
            click.echo("run: xmode-transfer config schema")
    return ExitCode.USAGE if is_stale else ExitCode.DONE


def _document(shell: "Shell", configuration: Configuration, *, stopped: bool) -> dict[str, Any]:
    good = "stopped" if stopped else "ok"
    return {
        "directory": str(shell.config_dir),
        "outcome": "broken" if configuration.problems else "ok",
        "customers": [
            {
                "customer": name,
                "outcome": good if customer is not None else "broken",
                "state": str(customer.state) if customer is not None else None,
                "feeds": list(customer.feeds) if customer is not None else None,
                "destination": _place(customer) if customer is not None else None,
            }
            for name, customer in _customers(configuration)
        ],
        "feeds": sorted(configuration.feeds),
        "problems": [_problem(problem) for problem in configuration.problems],
        "hints": [_problem(hint) for hint in configuration.hints],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line or None,
        "column": problem.column or None,
        "path": problem.path,
        "message": problem.message,
    }


def _lines(configuration: Configuration, stopping: Sequence[Problem]) -> Iterator[str]:
    for problem in configuration.problems:
        yield str(problem)
    for hint in configuration.hints:
        yield f"hint: {hint}; it is used as it is, since requests do not go to AWS"
    if configuration.problems or configuration.hints:
        yield ""
    why = " and ".join(sorted({problem.file for problem in stopping}))
    customers = list(_customers(configuration))
    width = max((len(name) for name, _ in customers), default=0)
    for name, customer in customers:
        if customer is None:
            state = style(f"{'broken':<8}", fg="red")
            told = words.count(len(configuration.broken[name]), "problem")
            yield f"{state}  {name:<{width}}  {told}; nothing is delivered until mended"
        elif stopping:
            state = style(f"{'stopped':<8}", fg="red")
            yield f"{state}  {name:<{width}}  in order itself; nothing is delivered until {why} is mended"
        else:
            state = style(f"{customer.state:<8}", fg="green" if customer.state == "active" else "cyan")
            yield f"{state}  {name:<{width}}  {', '.join(customer.feeds)} to {_place(customer)}"
    told = f"{words.count(len(customers), 'customer')}, {words.count(len(configuration.feeds), 'feed')}"
    if configuration.problems:
        yield style(f"{told}: {words.count(len(configuration.problems), 'problem')}", fg="red", bold=True)
    else:
        yield style(f"{told}: all in order", fg="green", bold=True)


def _customers(configuration: Configuration) -> Iterator[tuple[str, Customer | None]]:
    """All by name; None for the broken ones."""
    for name in sorted({*configuration.customers, *configuration.broken}):
        yield name, configuration.customers.get(name)


def _place(customer: Customer) -> str:
    return f"s3://{customer.destination.bucket}/{customer.destination.prefix}"
