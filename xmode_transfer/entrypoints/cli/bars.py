"""The progress line of a terminal. rich is imported here alone, so that nobody else waits for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

from xmode_transfer.entrypoints.cli.tally import Tally
from xmode_transfer.entrypoints.cli.terminal import bare

_WIDE = 90
"""Columns of a terminal below which a line holds no more than who it is and how many files."""


class Bars(Tally):
    """Files, bytes, rate and time left on one line of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        console = Console(file=bare(stream))
        wide = console.width >= _WIDE
        self._progress = Progress(
            *([SpinnerColumn()] if console.encoding.startswith("utf") else []),
            TextColumn("[bold]{task.description}"),
            *([BarColumn()] if wide else []),
            TextColumn("{task.fields[files]}/{task.fields[files_total]} files"),
            *([DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True)] if wide else []),
            console=console,
            transient=True,
            redirect_stdout=False,  # an answer goes where stdout goes, and not to this terminal
        )
        self._task = self._progress.add_task("starting", total=None, files=0, files_total=0)
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

    @contextmanager
    def hidden(self) -> Iterator[None]:
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def __enter__(self) -> Self:
        self._progress.start()
        self._painter.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._painter.join()
        self._update()
        self._progress.stop()
