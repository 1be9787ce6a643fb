"""Times and failures in tables whose modules read and write them themselves."""

from datetime import datetime
from typing import Any

from xmode_transfer.adapters.ledger.tables.base import text_of, time_of
from xmode_transfer.domain.records import Failure

__all__ = ["failure_of", "failure_values", "maybe_text_of", "maybe_time_of", "text_of", "time_of"]


def maybe_text_of(at: datetime | None) -> str | None:
    return None if at is None else text_of(at)


def maybe_time_of(text: str | None) -> datetime | None:
    return None if text is None else time_of(text)


def failure_values(failure: Failure | None) -> dict[str, object]:
    return {
        "failure_cause": failure and failure.cause,
        "failure_party": failure and failure.party,
        "failure_message": failure and failure.message,
        "failure_hint": failure and failure.hint,
        "failure_retryable": failure and failure.retryable,
        "failure_request_id": failure and failure.request_id,
    }


def failure_of(row: Any) -> Failure | None:
    if row.failure_cause is None:
        return None
    return Failure(
        row.failure_cause,
        row.failure_party,
        row.failure_message,
        row.failure_hint,
        bool(row.failure_retryable),
        row.failure_request_id,
    )
