"""Records that come out of the ledger are the records that went in."""

import copy
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.ledger.objects import objects_of, pairs_of, receipt_row
from xmode_transfer.ledger.tables.base import text_of, time_of
from xmode_transfer.model.records import Checksum, PlannedObject, Receipt

texts = st.text(max_size=8)
zones = [UTC, timezone(timedelta(hours=-5)), timezone(timedelta(minutes=330))]
moments = st.datetimes(timezones=st.sampled_from(zones))
objects = st.builds(PlannedObject, texts, texts, st.integers(0, 2**50), st.integers(), texts, st.booleans())
receipts = st.builds(
    Receipt,
    texts,
    texts,
    st.integers(0, 2**50),
    st.builds(Checksum, texts, texts),
    texts,
    moments,
    st.none() | texts,
    st.none() | texts,
    st.just(False),
    st.just(False),
)


@given(objects, receipts)
def test_pairs_come_back_equal(item: PlannedObject, receipt: Receipt) -> None:
    receipt = receipt._replace(name=item.name)
    stored = item + receipt_row(receipt)[1:]
    assert list(pairs_of([stored])) == [(item, receipt)]
    assert list(pairs_of([(*stored, "one more column")])) == [(item, receipt)]
    assert list(pairs_of([item + (None,) * 8])) == [(item, None)]
    assert list(objects_of([item])) == [item]


@given(objects, receipts)
def test_they_are_records_like_any_other(item: PlannedObject, receipt: Receipt) -> None:
    ((made, proof),) = pairs_of([item + receipt_row(receipt)[1:]])
    assert proof is not None
    for record, kind in ((made, PlannedObject), (proof, Receipt), (proof.checksum, Checksum)):
        assert type(record) is kind
        assert hash(record) == hash(copy.copy(record))
        assert pickle.loads(pickle.dumps(record)) == record
        with pytest.raises(AttributeError):
            setattr(record, record._fields[0], "changed")
    assert repr(made) == repr(item)
    assert isinstance(made.carried, bool)


@given(st.lists(moments, max_size=5))
def test_times_sort_as_text_and_come_back_in_utc(times: list[datetime]) -> None:
    stored = [text_of(at) for at in times]
    assert [time_of(text) for text in sorted(stored)] == sorted(times)
    assert all(len(text) == 27 and time_of(text).tzinfo is UTC for text in stored)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        text_of(datetime(2026, 11, 23))  # noqa: DTZ001 - that is what is refused
