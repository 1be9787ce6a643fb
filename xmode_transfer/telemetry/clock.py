"""The machine's clock: the one place that asks the operating system for the time."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Implements ``model.process.Clock``."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - this is the Clock port's own adapter

    def monotonic(self) -> float:
        return time.monotonic()
