"""What a command prints: our own colours, and nobody else's escape sequences."""

import io
import json
import sys

import click
import pytest
from rich.console import Console

from xmode_transfer.cli import streams, terminal
from xmode_transfer.model.errors import StoreError

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
    streams.install_screens()
    return out, err


def test_our_colours_come_through_and_others_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminals(monkeypatch)
    terminal.say(("ours", "green"), f" {HOSTILE}")
    click.echo(HOSTILE)
    sys.stdout.write(f"{HOSTILE}\n")
    sys.stdout.writelines([HOSTILE, "\n"])
    assert shown[0].getvalue() == f"\x1b[32mours\x1b[0m {SHOWN}\n{SHOWN}\n{SHOWN}\n{SHOWN}\n"


def test_nobody_borrows_a_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminals(monkeypatch)
    terminal.say((HOSTILE, "red"), "[bold]:smile:[/bold]", err=True)
    assert shown[1].getvalue() == f"\x1b[31m{SHOWN}\x1b[0m[bold]:smile:[/bold]\n"


def test_a_state_is_in_words_and_never_sticks_to_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("us-daily: nothing sent", label=terminal.state("already_running", 10))
    assert capsys.readouterr().out == "already running us-daily: nothing sent\n"


def test_on_a_terminal_a_line_goes_on_below_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminals(monkeypatch)
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.fact("fix", "word " * 20)
    first, second, _ = shown[0].getvalue().split("\n")
    assert (first[:19], second[:19]) == ("  fix          word", "               word")
    assert max(len(first), len(second)) <= 70
    assert (first + second).count("word") == 20
    monkeypatch.setattr(Terminal, "isatty", lambda _: False)
    terminal.fact("fix", "word " * 20)
    assert len(shown[0].getvalue().splitlines()) == 3


def test_an_error_that_aws_worded_speaks_to_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminals(monkeypatch)
    error = StoreError(HOSTILE, hint=HOSTILE, aws_code=HOSTILE, http_status=403, request_id=HOSTILE)
    terminal.show_error(error, as_json=False)
    told = shown[1].getvalue()
    assert SHOWN in told
    assert not any(sequence in told for sequence in ("\x1b]", "\u202e", "\x9b"))
    terminal.show_error(error, as_json=True)
    document = shown[0].getvalue()
    assert document.rstrip("\n").isprintable()
    assert json.loads(document)["error"]["message"] == HOSTILE


def test_a_document_that_is_written_as_it_comes_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminals(monkeypatch)
    document = terminal.JsonDocument(sys.stdout, "rows", name=HOSTILE)
    document.row({"key": HOSTILE, "other": "\udcff\x7f"})
    document.end()
    told = shown[0].getvalue()
    assert told.rstrip("\n").isprintable()
    assert json.loads(told) == {"name": HOSTILE, "rows": [{"key": HOSTILE, "other": "\udcff\x7f"}]}


def test_what_draws_by_itself_gets_the_terminal_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminals(monkeypatch)
    Console(file=streams.bare(sys.stdout), force_terminal=True, color_system="standard").print("[red]x[/]")
    assert "\x1b[31mx" in shown[0].getvalue()


def test_without_a_terminal_there_are_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(("ours", "green"))
    assert capsys.readouterr().out == "ours\n"
