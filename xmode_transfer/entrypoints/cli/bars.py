"""The progress line of a terminal. rich is imported here alone, so that nobody else waits for it."""

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

from xmode_transfer.entrypoints.cli.tally import Tally
from xmode_transfer.entrypoints.cli.terminal import bare


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
            console=Console(file=bare(stream)),
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
