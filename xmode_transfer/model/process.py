"""What belongs to one process: its time, who is told what it does, and its signature."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """The wall clock, UTC-aware."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""
        ...


class Progress(Protocol):
    """Told what happens while it happens; must not raise and must not block. Called from several threads."""

    def delivery_started(
        self, customer: str, feed: str, period: str, objects: int, total_bytes: int
    ) -> None: ...

    def bytes_sent(self, count: int) -> None: ...

    def bytes_resumed(self, count: int) -> None:
        """So many bytes of what is to be sent were sent by an earlier run."""
        ...

    def object_finished(self, name: str, size: int, outcome: str) -> None: ...

    def delivery_finished(self) -> None: ...


class Attestation(Protocol):
    """Our signature under manifests, and whether one is ours."""

    def sign(self, statement: bytes) -> dict[str, str] | None:
        """The signature as a manifest carries it; None where there is no key to sign with."""
        ...

    def why_not_attested(self, statement: bytes, signature: object) -> str | None:
        """Why ``signature``, as it was read from a manifest, does not vouch for the statement, in words for
        people; None when it does."""
        ...
