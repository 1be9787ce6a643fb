"""The one renderer: lines with labels and coloured states, JSON documents, errors, and progress.

Control characters in text of others are escaped: only rich writes escape sequences, for our own styles.
``--json`` does not wait for rich.
"""

import json
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

from xmode_transfer import telemetry
from xmode_transfer.cli import streams
from xmode_transfer.model.errors import ConfigError, XmodeError
from xmode_transfer.model.keys import visible
from xmode_transfer.model.manifest import timestamp
from xmode_transfer.model.records import Failure
from xmode_transfer.telemetry import Event
from xmode_transfer.web import states

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

Part = str | tuple[str, str]  # text, or text and its style
_FACT = 13
_NARROWEST, _WIDEST = 30, 120
_PLAIN_EVERY_SECONDS, _PAINT_EVERY_SECONDS = 10.0, 0.1
_WIDE = 90  # columns that a bar with sizes needs


def state(word: str, width: int = 0) -> Part:
    """Return a state in its colour: ``already_running`` -> ``already running``; a ``width`` makes a label."""
    words = word.replace("_", " ")
    return f"{f'{words} ' if width else words:<{width}}", f"bold {states.style(word)}"


@dataclass(frozen=True, slots=True)
class Line:
    """Text behind a label. A terminal folds it below its beginning; elsewhere it stays one line."""

    parts: tuple[Part, ...]
    label: Part = ""
    indent: int = 0

    def plain(self) -> str:
        return " " * self.indent + "".join(words for words, _ in self._pieces())

    def text(self, *, folded: bool) -> "Text":
        from rich.text import Text

        pieces = self._pieces()
        wide = shutil.get_terminal_size().columns
        narrow = folded and wide < 2 * _NARROWEST
        indent = min(self.indent, 2) if narrow else self.indent
        whole = Text.assemble(" " * indent, *pieces)
        if not folded:
            return whole
        width = max(min(wide, _WIDEST), _NARROWEST)
        hanging = 4 if narrow else min(indent + len(pieces[0][0]) or 4, width // 3)
        return Text("\n").join(_folded(line, width, hanging) for line in whole.split("\n", allow_blank=True))

    def _pieces(self) -> list[tuple[str, str]]:
        pieces = ((piece, "") if isinstance(piece, str) else piece for piece in (self.label, *self.parts))
        return [(visible(words, "\n\t"), style) for words, style in pieces]


def _folded(line: "Text", width: int, hanging: int) -> "Text":
    """Fold between words only: a key or a command stays whole, to be copied."""
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
    """Return a rich console with the colours that the environment asks for."""
    from rich.console import Console

    stream = streams.bare(sys.stderr if err else sys.stdout)
    colours: Literal["standard"] | None = "standard" if _coloured(stream) else None
    return Console(file=stream, color_system=colours, no_color=False, soft_wrap=True)


def say(*parts: Part, label: Part = "", indent: int = 0, err: bool = False) -> None:
    show([Line(parts, label, indent)], err=err)


def fact(name: str, text: str, indent: int = 2, *, err: bool = False) -> None:
    """Print a named fact below what it belongs to."""
    say(text, label=f"{name:<{_FACT}}", indent=indent, err=err)


def show(lines: Iterable[Line], *, err: bool = False) -> None:
    """Print lines, each as it comes."""
    stream = streams.bare(sys.stderr if err else sys.stdout)
    folded = stream.isatty()
    if folded or _coloured(stream):
        here = console(err=err)
        for line in lines:
            here.print(line.text(folded=folded))
        return
    stream.writelines(f"{line.plain()}\n" for line in lines)
    stream.flush()


def more(number: int, shown: int, noun: str, indent: int = 2) -> None:
    """Print how many items were not shown, if any."""
    if number > shown:
        say(f"and {states.count(number - shown, f'more {noun}')}: see --json", indent=indent)


def minute(at: datetime) -> str:
    """Return a time as people read it: ``2026-11-24 06:31 UTC``."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


# --- JSON


def to_json(value: object) -> Any:
    """Return a record as its fields, and a time or a path as text: what JSON does not know by itself."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return timestamp(value) if isinstance(value, datetime) else str(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=to_json)


def answer(document: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Print the one document of ``--json``."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=indent, default=to_json))


def failure_fields(failure: Failure | None) -> dict[str, Any]:
    """Return why something failed, as every document has it: all null if nothing failed."""
    names = ("cause", "responsible", "message", "hint", "request_id")
    return {name: getattr(failure, name, None) for name in names}


def picked(record: object, *names: str) -> dict[str, Any]:
    """Return these fields of a record."""
    return {name: getattr(record, name) for name in names}


class JsonDocument:
    """A document ``{<members>, "<rows>": [...], <members>}``, written row by row, in constant memory. Nothing
    is written before the first row or the end: an error before can be the document."""

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


# --- Errors: what happened, who is responsible, when it is retried, and the fix


def show_failure(failure: Failure, indent: int) -> None:
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
    fact("responsible", states.RESPONSIBLE[responsible], indent, err=err)
    if retry:
        fact("retry", retry, indent, err=err)
    if hint:
        fact("fix", hint, indent, err=err)


def show_error(error: XmodeError, *, as_json: bool) -> None:
    """Print the error that ended a command: on stderr, or with ``--json`` as the document on stdout."""
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
    if not as_json:
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    help_of = context.command_path if context is not None else "xmode-transfer"
    fields = ConfigError(error.format_message(), hint=f"see `{help_of} --help`").log_context()
    answer({"error": {**fields, "cause": "usage", "problems": []}})


def show_defect(error: Exception, *, as_json: bool) -> None:
    """Report a defect of this program. The log has the traceback."""
    telemetry.exception(Event.DEFECT)
    message = f"{type(error).__name__}: {error}"
    if as_json:
        fields = {"cause": "defect", "responsible": "vendor", "retryable": False, "message": message}
        answer({"error": fields})
        return
    say((message, "bold red"), err=True)
    note = "This is a bug in xmode-transfer; see the log for details. Nothing acknowledged is lost."
    say(note, indent=2, err=True)


# --- Progress


class Tally:
    """The counts of work under way, and its bar, if one is drawn."""

    def __init__(self, bar: "Progress | None" = None) -> None:
        self.bar = bar
        self._lock = threading.Lock()
        self.label = ""
        self.files = self.files_total = 0
        self.sent_bytes = self.total_bytes = 0

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        with self._lock:
            self.label = f"{customer} {feed} {period}"
            self.files_total += objects
            self.total_bytes += total_bytes

    def bytes_sent(self, count: int) -> None:
        with self._lock:
            self.sent_bytes += count

    bytes_resumed = bytes_sent

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        with self._lock:
            self.files += 1

    def delivery_finished(self) -> None: ...

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar off the terminal while something else is written."""
        if self.bar is not None:
            self.bar.stop()
        try:
            yield
        finally:
            if self.bar is not None:
                self.bar.start()

    def show(self) -> None:
        if self.bar is not None:
            self.bar.update(
                self.bar.task_ids[0],
                description=self.label or "starting",
                total=self.total_bytes or None,
                completed=self.sent_bytes,
                files=f"{self.files:,}",
                files_total=f"{self.files_total:,}",
            )
        elif self.label:
            files = f"{self.files:,} of {states.count(self.files_total, 'file')}"
            sizes = f"{states.size(self.sent_bytes)} of {states.size(self.total_bytes)}"
            with suppress(streams.OutputLost):  # the work goes on; the exit code reports it
                click.echo(f"{self.label}: {files}, {sizes}")


@contextmanager
def progress(*, as_json: bool, quiet: bool) -> Iterator[Tally]:
    """Count the work of the block, and show it: as a bar on a terminal, else as a plain line now and then.
    ``--json`` without a terminal, and ``quiet``, show nothing."""
    drawn = not quiet and _can_draw()
    tally = Tally(_bar() if drawn else None)
    if not drawn and (quiet or as_json):
        yield tally
        return
    done = threading.Event()

    def paint() -> None:  # by a thread, not by event: many small files do not wait for the picture
        while not done.wait(_PAINT_EVERY_SECONDS if drawn else _PLAIN_EVERY_SECONDS):
            tally.show()

    thread = threading.Thread(target=paint, daemon=True)
    with tally.bar or nullcontext():
        thread.start()
        try:
            yield tally
        finally:
            done.set()
            thread.join()
            if drawn:
                tally.show()


def _can_draw() -> bool:
    return sys.stderr.isatty() and not streams.is_dumb()


def _bar() -> "Progress":
    from rich import progress as columns

    shown = console(err=True)
    wide = shown.width >= _WIDE
    left = columns.TimeRemainingColumn(compact=True)
    sizes = (columns.DownloadColumn(), columns.TransferSpeedColumn(), left)
    bar = columns.Progress(
        *([columns.SpinnerColumn()] if shown.encoding.startswith("utf") else []),
        columns.TextColumn("[bold]{task.description}"),
        *([columns.BarColumn()] if wide else []),
        columns.TextColumn("{task.fields[files]}/{task.fields[files_total]} files"),
        *(sizes if wide else []),
        console=shown,
        transient=True,
        redirect_stdout=False,  # stdout may not be this terminal
    )
    bar.add_task("starting", total=None, files=0, files_total=0)
    return bar


@contextmanager
def counted(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """Draw a bar for counted steps: yield a callback (done, total), or None if no bar is drawn."""
    if quiet or not _can_draw():
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console(err=True), transient=True) as drawn:
        task = drawn.add_task(what, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)
