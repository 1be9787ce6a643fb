"""What a command prints: our own colours, and nobody else's escape sequences."""

import io
import json
import sys

import click
import pytest
from rich.console import Console

from xmode_transfer.domain.errors import StoreError
from xmode_transfer.entrypoints.cli import failures, terminal
from xmode_transfer.entrypoints.cli.streaming import JsonDocument

HOSTILE = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202etxt.exe"
SHOWN = "\\x1b[31mred\\x1b]0;title\\x07\\u009b2J\\u202etxt.exe"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminals(monkeypatch: pytest.MonkeyPatch) -> tuple[Terminal, Terminal]:
    """stdout and stderr from now on; pytest puts its own in their place before each test."""
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    terminal.install()
    return out, err


def test_our_colours_come_through_and_others_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = terminals(monkeypatch)
    click.echo(f"{terminal.style('ours', fg='green')} {HOSTILE}")
    sys.stdout.write(f"{HOSTILE}\n")
    sys.stdout.writelines([HOSTILE, "\n"])
    assert streams[0].getvalue() == f"\x1b[32mours\x1b[0m {SHOWN}\n{SHOWN}\n{SHOWN}\n"


def test_nobody_borrows_a_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = terminals(monkeypatch)
    terminal.secho(HOSTILE, fg="red", err=True)
    assert streams[1].getvalue() == f"\x1b[31m{SHOWN}\x1b[0m\n"


def test_an_error_that_aws_worded_speaks_to_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = terminals(monkeypatch)
    error = StoreError(HOSTILE, hint=HOSTILE, aws_code=HOSTILE, http_status=403, request_id=HOSTILE)
    failures.show(error, as_json=False)
    told = streams[1].getvalue()
    assert SHOWN in told
    assert not any(sequence in told for sequence in ("\x1b]", "\u202e", "\x9b"))
    failures.show(error, as_json=True)
    document = streams[0].getvalue()
    assert document.rstrip("\n").isprintable()
    assert json.loads(document)["error"]["message"] == HOSTILE


def test_a_document_that_is_written_as_it_comes_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = terminals(monkeypatch)
    document = JsonDocument(sys.stdout, "rows", name=HOSTILE)
    document.row({"key": HOSTILE, "other": "\udcff\x7f"})
    document.end()
    told = streams[0].getvalue()
    assert told.rstrip("\n").isprintable()
    assert json.loads(told) == {"name": HOSTILE, "rows": [{"key": HOSTILE, "other": "\udcff\x7f"}]}


def test_what_draws_by_itself_gets_the_terminal_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = terminals(monkeypatch)
    Console(file=terminal.bare(sys.stdout), force_terminal=True, color_system="standard").print("[red]x[/]")
    assert "\x1b[31mx" in streams[0].getvalue()


def test_without_a_terminal_there_are_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    click.echo(f"{terminal.style('ours', fg='green')}")
    assert capsys.readouterr().out == "ours\n"
