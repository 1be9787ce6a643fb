"""The files of a feed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from xmode_transfer.aws.bodies import OpenFile
from xmode_transfer.config import Feed
from xmode_transfer.model.periods import Period
from xmode_transfer.model.records import SourceFile, SourceProblem


@dataclass(frozen=True, slots=True)
class PeriodState:
    """A period at the source. ``complete`` is false while files may still be coming; ``reason`` says why in
    words.

    ``marker`` changes when the producer declares the period complete anew (the marker file's time; empty when
    completeness is by settled time).
    """

    period: Period
    complete: bool
    reason: str
    marker: str = ""


class Source(Protocol):
    """The files of one feed."""

    def periods(self, since: datetime | None = None) -> Iterator[PeriodState | SourceProblem]:
        """Every period that has something at the source, oldest first. A drop folder has the one period
        ``Period.none()``. Those that start before ``since`` (naive, as a period's start) are named without a
        look into them: incomplete, with that as the reason; or left out, where naming them costs requests.
        What stands in the partition's path and cannot be followed comes as SourceProblem, and the rest goes
        on. Raises SourceMissing when the root is not there."""
        ...

    def state(self, period: Period) -> PeriodState | None:
        """One period's state, or None when the source has nothing for it. Raises SourceUnreadable when its
        path cannot be followed."""
        ...

    def scan(self, period: Period) -> Iterator[SourceFile | SourceProblem]:
        """The period's complete files, in the order of their names' code points (which is the order of their
        UTF-8 bytes), streamed: memory does not grow with their number. In a drop folder, only files that are
        complete. A file that can never be delivered comes as SourceProblem in its place, and the scan goes
        on."""
        ...

    def open(self, file: SourceFile) -> OpenFile:
        """Opens a scanned file. Raises SourceChanged when it is no longer what the scan saw, SourceUnreadable
        when it cannot be read or its path leaves the feed's root."""
        ...


SourceFactory = Callable[[Feed], Source]

# The checksum of an open file's whole content, by algorithm as S3 names it; base64.
ChecksumOf = Callable[[OpenFile, str], str]
