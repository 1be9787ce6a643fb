"""The one renderer of the terminal: lines with labels and coloured states, errors, and JSON documents.

What others wrote (files, keys, answers of AWS) never speaks to the terminal: a line is made of plain text in
which ``visible`` has escaped what is not seen as itself, and of our own styles; only rich makes escape
sequences of these. rich is imported where something is shown to people: ``--json`` does not wait for it.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from xmode_transfer import telemetry
from xmode_transfer.cli import streams
from xmode_transfer.model.errors import ConfigError, XmodeError
from xmode_transfer.model.keys import visible
from xmode_transfer.model.records import Failure
from xmode_transfer.telemetry import Event
from xmode_transfer.web import states

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Part = str | tuple[str, str]
"""Text, or text and its style."""
_NARROWEST, _WIDEST = 30, 120
_FACT = 13


def state(word: str, width: int = 0) -> Part:
    """A state in its colour; with a ``width`` as a label: ``already_running`` -> ``already running ``."""
    words = word.replace("_", " ")
    return f"{f'{words} ' if width else words:<{width}}", f"bold {states.style(word)}"


@dataclass(frozen=True, slots=True)
class Line:
    """Text behind a label. On a terminal it is folded and goes on below its beginning; elsewhere it stays one
    line, for programs that read lines."""

    parts: tuple[Part, ...]
    label: Part = ""
    indent: int = 0

    def plain(self) -> str:
        pieces = (self.label, *self.parts)
        words = "".join(piece if isinstance(piece, str) else piece[0] for piece in pieces)
        return " " * self.indent + visible(words, "\n\t")

    def text(self, *, folded: bool) -> "Text":
        from rich.text import Text

        wide = shutil.get_terminal_size().columns
        narrow = folded and wide < 2 * _NARROWEST  # what little room there is belongs to the words
        indent = min(self.indent, 2) if narrow else self.indent
        whole = Text(" " * indent)
        for piece in (self.label, *self.parts):
            words, how = (piece, "") if isinstance(piece, str) else piece
            whole.append(visible(words, "\n\t"), how)
        if not folded:
            return whole
        label = self.label if isinstance(self.label, str) else self.label[0]
        width = max(min(wide, _WIDEST), _NARROWEST)
        hanging = 4 if narrow else min(indent + len(label) or 4, width // 3)
        return Text("\n").join(_folded(line, width, hanging) for line in whole.split("\n", allow_blank=True))


def _folded(line: "Text", width: int, hanging: int) -> "Text":
    """Between words only: a key or a command stays whole, to be copied."""
    from rich.cells import cell_len
    from rich.text import Text

    cuts: list[int] = []
    begin, room = len(line.plain) - len(line.plain.lstrip()), width
    for word in re.finditer(r"\S+", line.plain):
        if word.start() > begin and cell_len(line.plain[begin if cuts else 0 : word.end()]) > room:
            cuts.append(word.start())
            begin, room = word.start(), width - hanging
    pieces = line.divide(cuts)
    for piece in pieces:
        piece.rstrip()
    return Text("\n" + " " * hanging).join(pieces)


def _coloured(stream: TextIO) -> bool:
    wanted = streams.colours_wanted()
    return stream.isatty() if wanted is None else wanted


def console(*, err: bool = False) -> "Console":
    """rich's, for stdout or stderr as they are now, with the colours that the environment asks for."""
    from rich.console import Console

    stream = streams.bare(sys.stderr if err else sys.stdout)
    return Console(
        file=stream,
        color_system="standard" if _coloured(stream) else None,
        no_color=False,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def say(*parts: Part, label: Part = "", indent: int = 0, err: bool = False) -> None:
    """Prints one line."""
    show([Line(parts, label, indent)], err=err)


def fact(name: str, text: str, indent: int = 2, *, err: bool = False) -> None:
    """Prints a named fact below what it belongs to."""
    say(text, label=f"{name:<{_FACT}}", indent=indent, err=err)


def show(lines: Iterable[Line], *, err: bool = False) -> None:
    """Prints lines, each as it comes."""
    stream = streams.bare(sys.stderr if err else sys.stdout)
    folded = stream.isatty()
    if folded or _coloured(stream):
        here = console(err=err)
        for line in lines:
            here.print(line.text(folded=folded))
        return
    for line in lines:
        stream.write(f"{line.plain()}\n")
    stream.flush()


def more(number: int, shown: int, noun: str, indent: int = 2) -> None:
    """Prints how many items were not shown, if any."""
    if number > shown:
        say(f"and {states.count(number - shown, f'more {noun}')}: see --json", indent=indent)


def minute(at: datetime) -> str:
    """``2026-11-24 06:31 UTC``."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


# --- JSON -----------------------------------------------------------------------------------------------

_ENCODER = json.JSONEncoder(ensure_ascii=False)


def answer(document: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Prints the one document of ``--json``."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=indent))


def picked(item: object, names: str) -> dict[str, Any]:
    """The attributes of these names, in this order: those that a document shares with a record."""
    return {name: getattr(item, name) for name in names.split()}


def failure_fields(failure: Failure | None, *, request_id: bool = True) -> dict[str, Any]:
    """Why something did not go on, as every document has it; all null where nothing is wrong."""
    names = ("cause", "responsible", "message", "hint", *(["request_id"] if request_id else []))
    return {name: getattr(failure, name) if failure else None for name in names}


class JsonDocument:
    """``{<members>, "<list>": [<rows>], <members>}``, written as it comes: a million rows need no memory.
    Nothing is written before the first row or the end, so that what goes wrong at the beginning can still be
    told in a document of its own."""

    def __init__(self, stream: TextIO, rows: str, **members: object) -> None:
        self._stream = stream
        self._head = _ENCODER.encode({**members, rows: []}).removesuffix("]}")
        self._separator = ""
        self.begun = False

    def row(self, row: Mapping[str, object]) -> None:
        self._begin()
        self._stream.write(self._separator + _ENCODER.encode(row))
        self._separator = ","

    def end(self, **members: object) -> None:
        self._begin()
        self._stream.write(f"]{', ' if members else ''}{_ENCODER.encode(members)[1:]}\n")
        self._stream.flush()

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            self._stream.write(self._head)


# --- Failures: what happened, who is responsible, whether it is tried again, what to do next --------------


def show_failure(failure: Failure, indent: int) -> None:
    """Prints a failure that will be retried."""
    say(failure.message, indent=indent)
    if failure.responsible == "customer":
        retry = "next run (fails again until fixed)"
    else:
        retry = "automatic" if failure.retryable else "next run"
    responsible_for(failure.responsible, failure.hint, indent, retry=retry)
    if failure.request_id:
        fact("AWS request", failure.request_id, indent)


def responsible_for(
    responsible: str, hint: str, indent: int = 2, *, retry: str = "", err: bool = False
) -> None:
    """Prints who is responsible, when it is retried, and the fix."""
    fact("responsible", states.RESPONSIBLE[responsible], indent, err=err)
    if retry:
        fact("retry", retry, indent, err=err)
    if hint:
        fact("fix", hint, indent, err=err)


def show_error(error: XmodeError, *, as_json: bool) -> None:
    """Prints the error that ended a command: on stderr, or with ``--json`` as the document on stdout."""
    problems = error.problems if isinstance(error, ConfigError) else None
    if as_json:
        listed = {} if problems is None else {"problems": list(problems)}
        answer({"error": {**error.log_context(), **listed}})
        return
    for problem in problems or ():
        say(problem, err=True)
    say((error.message, "bold red"), err=True)
    if problems is None:
        retry = "automatic" if error.retryable else "run the command again after the fix"
        responsible_for(error.responsible, error.hint, retry=retry, err=True)
    elif error.hint:
        fact("fix", error.hint, err=True)
    if error.aws_code or error.request_id:
        said = f"{error.aws_code or '?'} (HTTP {error.http_status or '?'}, request {error.request_id or '?'})"
        fact("AWS said", said, err=True)


def show_usage(error: click.ClickException, *, as_json: bool) -> None:
    """Prints an error in the command line."""
    if not as_json:
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    help_of = context.command_path if context is not None else "xmode-transfer"
    told = ConfigError(error.format_message(), hint=f"see `{help_of} --help`").log_context()
    answer({"error": {**told, "cause": "usage", "problems": []}})


def show_defect(error: Exception, *, as_json: bool) -> None:
    """Reports a defect of this program: the traceback goes to the log, one sentence to the terminal."""
    telemetry.exception(Event.DEFECT)
    message = f"{type(error).__name__}: {error}"
    if as_json:
        answer(
            {"error": {"cause": "defect", "responsible": "vendor", "retryable": False, "message": message}}
        )
        return
    say((message, "bold red"), err=True)
    say(
        "This is a bug in xmode-transfer; see the log for details. Nothing acknowledged is lost.",
        indent=2,
        err=True,
    )
