"""botocore's sessions and clients: the limits of their waits and answers, and the times that they read."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests import hostile
from tests.hostile import serving
from xmode_transfer.alerting import channels
from xmode_transfer.aws import sdk
from xmode_transfer.aws.sdk import new_session
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import Heartbeat, Vendor
from xmode_transfer.model.errors import Interrupted, NotificationFailed, SourceUnreadable, Unavailable
from xmode_transfer.sources.s3_bucket import SourceBucket, own_client
from xmode_transfer.telemetry import SystemClock


@pytest.fixture(autouse=True)
def our_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEEXAMPLE00")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s" * 40)


def list_source(stop: threading.Event | None = None) -> None:
    client = own_client(stop)
    try:
        list(SourceBucket("s3://exports/in", lambda: client, lambda: None).objects())
    finally:
        client.close()


def ask_sts(stop: threading.Event | None = None) -> None:
    RoleSessions(Vendor(), SystemClock(), stop=stop).verify_identity()


ASKS: list[tuple[Callable[..., None], type[Exception]]] = [
    (list_source, SourceUnreadable),
    (ask_sts, Unavailable),
]


@pytest.mark.parametrize(("ask", "error"), ASKS, ids=["source", "sts"])
@pytest.mark.parametrize(
    "mode", [hostile.endless_list, hostile.announced_error, hostile.laughing_error], ids=lambda m: m.__name__
)
def test_an_answer_without_end_is_refused_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[..., None], error: type[Exception], mode: hostile.Mode
) -> None:
    with serving(mode, sts_too=True) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(error, match="AWS never answers so"):
            ask()
        assert len(server.requests) == 1


@pytest.mark.parametrize(("ask", "error"), ASKS, ids=["source", "sts"])
def test_an_answer_that_trickles_has_an_end(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[..., None], error: type[Exception]
) -> None:
    monkeypatch.setattr(sdk, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    for mode in (hostile.trickled_body, hostile.trickled_headers):
        with serving(mode, sts_too=True) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            with pytest.raises(error):
                ask()
            assert server.sent_bytes > 0


@pytest.mark.parametrize(("ask", "_error"), ASKS, ids=["source", "sts"])
def test_a_stop_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[..., None], _error: type[Exception]
) -> None:
    stop = threading.Event()
    with serving(hostile.silent, sts_too=True) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        threading.Thread(target=lambda: (server.asked.wait(60), stop.set()), daemon=True).start()
        with pytest.raises(Interrupted):
            ask(stop)


def test_a_webhook_that_trickles_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmode_transfer.alerting.channels.LONGEST_SECONDS", 0.5)
    with serving(hostile.trickled_headers) as server:
        monkeypatch.setenv("HEARTBEAT", server.url)
        began = time.monotonic()
        with pytest.raises(NotificationFailed, match="no whole answer within"):
            channels.beat(Heartbeat(url="env:HEARTBEAT"))
        assert time.monotonic() - began < 9  # of the ten seconds that one piece may take


def test_what_a_webhook_says_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: hostile.Hostile, asked: hostile.Asked) -> None:
        asked.answer("500 \x1b[2Jno", b"\x1b]0;title\x07" + b"x" * 100_000)

    with serving(answer) as server:
        monkeypatch.setenv("HEARTBEAT", server.url)
        with pytest.raises(NotificationFailed) as caught:
            channels.beat(Heartbeat(url="env:HEARTBEAT"))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000


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
