"""Times of the tables whose modules read and write their columns themselves."""

from datetime import datetime

from xmode_transfer.adapters.ledger.tables.base import text_of, time_of

__all__ = ["maybe_text_of", "maybe_time_of", "text_of", "time_of"]


def maybe_text_of(at: datetime | None) -> str | None:
    return None if at is None else text_of(at)


def maybe_time_of(text: str | None) -> datetime | None:
    return None if text is None else time_of(text)
