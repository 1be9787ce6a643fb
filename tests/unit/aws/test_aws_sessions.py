"""What all of botocore's sessions have in common."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from xmode_transfer.aws.sdk import new_session


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("2026-11-22T06:30:00.123Z", datetime(2026, 11, 22, 6, 30, 0, 123000, tzinfo=UTC)),
        ("2026-11-22T06:30:00+01:00", datetime(2026, 11, 22, 6, 30, tzinfo=timezone(timedelta(hours=1)))),
        ("Sun, 22 Nov 2026 06:30:00 GMT", datetime(2026, 11, 22, 6, 30, tzinfo=UTC)),
        ("1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1700000000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
    ],
)
def test_times_are_read_in_whichever_form_a_store_writes_them(said: object, at: datetime) -> None:
    parsers = new_session().get_component("response_parser_factory")
    assert parsers.create_parser("rest-xml")._timestamp_parser(said) == at
