"""Who is told what happens while it happens."""

from typing import Protocol


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
