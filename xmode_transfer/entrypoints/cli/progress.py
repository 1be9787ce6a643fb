"""What is shown while a run goes on: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import threading
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from xmode_transfer.entrypoints.cli import words

_PLAIN_EVERY_SECONDS = 10.0


class Tally:
    """Counts; what every form of progress is made of, and all of it where nothing is to be shown."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.label = ""
        self.files = self.files_total = 0
        self.failed = 0
        self.sent_bytes = self.total_bytes = 0

    def delivery_started(self, customer: str, feed: str, period: str, objects: int, total_bytes: int) -> None:
        with self._lock:
            self.label = f"{customer} {feed} {period}"
            self.files_total += objects
            self.total_bytes += total_bytes

    def bytes_sent(self, count: int) -> None:
        with self._lock:
            self.sent_bytes += count

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        with self._lock:
            self.files += 1
            self.failed += outcome == "failed"

    def delivery_finished(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Bars(Tally):
    """Files, bytes, rate and time left on one line of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[files]}/{task.fields[files_total]} files"),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=Console(file=stream),
            transient=True,
        )
        self._task = self._progress.add_task("looking at the source", total=None, files=0, files_total=0)
        self._done = threading.Event()
        self._painter = threading.Thread(target=self._paint, daemon=True)

    def _paint(self) -> None:
        # painted by time, not by event: a hundred thousand small files must not pay for the picture
        while not self._done.wait(0.1):
            self._update()

    def _update(self) -> None:
        if not self.label:
            return
        self._progress.update(
            self._task,
            description=self.label,
            total=self.total_bytes or None,
            completed=self.sent_bytes,
            files=f"{self.files:,}",
            files_total=f"{self.files_total:,}",
        )

    def __enter__(self) -> Self:
        self._progress.start()
        self._painter.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._painter.join()
        self._update()
        self._progress.stop()


class Lines(Tally):
    """A line every ten seconds of long work."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._done = threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True)

    def _write(self) -> None:
        while not self._done.wait(_PLAIN_EVERY_SECONDS):
            if self.label:
                sent, total = words.size(self.sent_bytes), words.size(self.total_bytes)
                print(
                    f"{self.label}: {self.files:,} of {words.count(self.files_total, 'file')}, "
                    f"{sent} of {total}",
                    file=self._stream,
                    flush=True,
                )

    def __enter__(self) -> Self:
        self._writer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._writer.join()


def shown(*, as_json: bool) -> Tally:
    """The right form for where the output goes. With ``--json`` nothing is mixed into stdout or the log."""
    if sys.stderr.isatty():
        return Bars(sys.stderr)
    return Tally() if as_json else Lines(sys.stdout)
