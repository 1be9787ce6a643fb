"""What is shown while work goes on: a bar on a terminal, a plain line now and then elsewhere. stderr has the
bars, and rich draws them; it is imported where one is drawn."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

import click

from xmode_transfer.cli import streams, terminal
from xmode_transfer.web import states

_PLAIN_EVERY_SECONDS = 10.0
_PAINT_EVERY_SECONDS = 0.1
_WIDE = 90
"""Columns of a terminal below which a line holds no more than who it is and how many files."""


class Tally:
    """Counts of a run under way, and all of the progress where nothing is to be shown."""

    def __init__(self) -> None:
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

    def bytes_resumed(self, count: int) -> None:
        self.bytes_sent(count)  # what is shown is how far it is

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        with self._lock:
            self.files += 1

    def delivery_finished(self) -> None:
        pass

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """While something else is written: nothing of the progress is on the terminal then."""
        yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class _Shown(Tally):
    """Told by a thread now and then, not by event: many small files must not pay for the picture."""

    every_seconds = _PLAIN_EVERY_SECONDS

    def __init__(self) -> None:
        super().__init__()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def _go_on(self) -> None:
        while not self._done.wait(self.every_seconds):
            if self.label:
                self.update()

    def update(self) -> None:
        """A plain line."""
        with suppress(streams.OutputLost):  # the work goes on, and its exit code says it
            files = f"{self.files:,} of {states.count(self.files_total, 'file')}"
            sizes = f"{states.size(self.sent_bytes)} of {states.size(self.total_bytes)}"
            click.echo(f"{self.label}: {files}, {sizes}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()


class _Bar(_Shown):
    """Files, bytes, rate and time left on one line of a terminal."""

    every_seconds = _PAINT_EVERY_SECONDS

    def __init__(self) -> None:
        from rich import progress

        super().__init__()
        console = terminal.console(err=True)
        wide = console.width >= _WIDE
        sizes = [
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(compact=True),
        ]
        self._progress = progress.Progress(
            *([progress.SpinnerColumn()] if console.encoding.startswith("utf") else []),
            progress.TextColumn("[bold]{task.description}"),
            *([progress.BarColumn()] if wide else []),
            progress.TextColumn("{task.fields[files]}/{task.fields[files_total]} files"),
            *(sizes if wide else []),
            console=console,
            transient=True,
            redirect_stdout=False,  # an answer goes where stdout goes, and not to this terminal
        )
        self._task = self._progress.add_task("starting", total=None, files=0, files_total=0)

    def update(self) -> None:
        self._progress.update(
            self._task,
            description=self.label or "starting",
            total=self.total_bytes or None,
            completed=self.sent_bytes,
            files=f"{self.files:,}",
            files_total=f"{self.files_total:,}",
        )

    @contextmanager
    def hidden(self) -> Iterator[None]:
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def __enter__(self) -> Self:
        self._progress.start()
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self.update()
        self._progress.stop()


def _is_drawn() -> bool:
    return sys.stderr.isatty() and not streams.is_dumb()


def shown(*, as_json: bool) -> Tally:
    """The right form for where the output goes. With ``--json`` nothing is mixed into stdout or the log."""
    if _is_drawn():
        return _Bar()
    return Tally() if as_json else _Shown()


@contextmanager
def counted(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """A bar for steps that are counted (done, of how many); None where none is drawn."""
    if quiet or not _is_drawn():
        yield None
        return
    from rich.progress import Progress

    with Progress(console=terminal.console(err=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
