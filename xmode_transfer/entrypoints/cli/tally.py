"""Counts of a run under way; what every form of progress is made of."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


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

    def bytes_resumed(self, count: int) -> None:
        self.bytes_sent(count)  # what is shown is how far it is

    def object_finished(self, name: str, size: int, outcome: str) -> None:
        with self._lock:
            self.files += 1
            self.failed += outcome == "failed"

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
