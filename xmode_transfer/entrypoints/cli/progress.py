"""What is shown while a run goes on: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import threading
from typing import Self, TextIO

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
        from xmode_transfer.entrypoints.cli.bars import Bars

        return Bars(sys.stderr)
    return Tally() if as_json else Lines(sys.stdout)
