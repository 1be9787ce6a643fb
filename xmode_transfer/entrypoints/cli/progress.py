"""What is shown while a run goes on: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import threading
from contextlib import suppress
from typing import Self, TextIO

from xmode_transfer.entrypoints.cli import streams, words
from xmode_transfer.entrypoints.cli.tally import Tally

_PLAIN_EVERY_SECONDS = 10.0


class Lines(Tally):
    """A line every ten seconds of long work."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._done = threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True)

    def _write(self) -> None:
        while not self._done.wait(_PLAIN_EVERY_SECONDS):
            if not self.label:
                continue
            with suppress(streams.OutputLost):  # the work goes on, and its exit code says it
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
    if sys.stderr.isatty() and not streams.is_dumb():
        from xmode_transfer.entrypoints.cli.bars import Bars

        return Bars(sys.stderr)
    return Tally() if as_json else Lines(sys.stdout)
