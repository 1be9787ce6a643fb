import json
import logging
import threading
import time
import traceback
import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from xmode_transfer import telemetry
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.telemetry import protect, redact, redact_text
from xmode_transfer.telemetry import rendering as module

SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SESSION_KEY_ID = "ASIAIOSFODNN7EXAMPLE"
TOKEN = "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMSJHMEUCIQD" + "x7Y/9+" * 30 + "=="
SIGNATURE = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"

Way = Callable[[Any], object]


# --- Values that are known by their shape or by their name


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {KEY_ID} was refused", KEY_ID),
        (f"({SESSION_KEY_ID})", SESSION_KEY_ID),
        (
            f"https://b.s3.amazonaws.com/k?X-Amz-Security-Token={quote(TOKEN, safe='')}&x=1",
            quote(TOKEN, safe=""),
        ),
        (f"https://b/k?X-Amz-Date=1&X-Amz-Signature={SIGNATURE}", SIGNATURE),
        (f"https://b/k?X-Amz-Credential={KEY_ID}%2F20261122%2Fus-east-1", KEY_ID),
        (f"aws_secret_access_key = {SECRET_KEY}", SECRET_KEY),
        (f"AWS_SESSION_TOKEN='{TOKEN}'", TOKEN),
        (f'{{"SecretAccessKey": "{SECRET_KEY}"}}', SECRET_KEY),
        (json.dumps(json.dumps({"SecretAccessKey": SECRET_KEY})), SECRET_KEY),
        (f"<SecretAccessKey>{SECRET_KEY}</SecretAccessKey>", SECRET_KEY),
        (f"<SessionToken>{TOKEN}</SessionToken>", TOKEN),
        (f"Credentials(secret_access_key='{SECRET_KEY}')", SECRET_KEY),
        (f"the secret access key is {SECRET_KEY}.", SECRET_KEY),
        (f"x-amz-security-token: {TOKEN}", TOKEN),
        (f"{{'X-Amz-Security-Token': b'{TOKEN}'}}", TOKEN),
        (f"a bare {TOKEN} in the text", TOKEN),
        (
            f"Authorization: AWS4-HMAC-SHA256 Credential={KEY_ID}/x, SignedHeaders=h, Signature={SIGNATURE}",
            SIGNATURE,
        ),
        (f"{{'Authorization': b'AWS4-HMAC-SHA256 Credential=x, Signature={SIGNATURE}'}}", SIGNATURE),
        ("Authorization: Bearer abc.def-ghi_jkl", "abc.def-ghi_jkl"),
        ("curl -H 'x: Bearer abcdefghijkl'", "abcdefghijkl"),
        ("password=hunter22", "hunter22"),
        ('password: "two words"', "two words"),
        ("postgresql://xmode:s3cr3t@db/ledger", "s3cr3t"),
        ("could not connect to postgresql+psycopg://xmode:p%40ss@10.0.0.1:5432/x", "p%40ss"),
        ("api_key=0123456789", "0123456789"),
        ("client-secret: abcdef", "abcdef"),
    ],
)
def test_text_loses_its_secrets(text: str, secret: str) -> None:
    cleaned = redact_text(text)
    assert secret not in cleaned
    assert "***" in cleaned
    assert redact_text(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "delivered xmode/us-daily/2026/11/22/part-0001.parquet",
        "key=xmode/us-daily/2026/11/22/part-0001.parquet etag=9bb58f26192e4ba00f01e2e7b136bbd8",
        "2 keys, 3 tokens, no secret",
        "arn:aws:iam::111122223333:role/XMode was refused (AccessDenied)",
        "https://acme-data.s3.us-east-1.amazonaws.com/xmode/a?partNumber=3&uploadId=abc",
        "GASIAN MARKETS AND AKIA",
        "the password is missing",
        "request ID 4442587FB7D0A2F9, host ID s9lzHYrFp76ZVxRcpX9+5cjAnEH2ROuNkd2BHfIa6UkFVdtjf5mKR3=",
        "checksum crc64nvme AAAAAAAAAAA=, sha256 " + "0123456789abcdef" * 4,
    ],
)
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert redact_text(text) == text


def test_values_are_masked_by_the_names_of_their_fields() -> None:
    cleaned = redact(
        {
            "secret_access_key": "a",
            "SecretAccessKey": "b",
            "sessionToken": "c",
            "X-Amz-Security-Token": ["d"],
            b"Authorization": b"e",
            "password": {"deep": "f"},
            "credentials": object(),
            "token": 5,
            "nested": [{"api-key": "g", "fine": "h"}],
            "webhook_secret": None,
        }
    )
    assert cleaned == {
        "secret_access_key": "***",
        "SecretAccessKey": "***",
        "sessionToken": "***",
        "X-Amz-Security-Token": "***",
        "Authorization": "***",
        "password": "***",
        "credentials": "***",
        "token": "***",
        "nested": [{"api-key": "***", "fine": "h"}],
        "webhook_secret": None,
    }


def test_what_is_no_secret_keeps_its_value_and_its_type() -> None:
    kept = {
        "customer": "acme", "external_id": "AcmeCorp", "objects": 12, "seconds": 1.5, "proven": True,
        "credentials_expire_at": "2026-11-22T06:30:00Z", "version_id": None, "key": "a", "etag": '"abc"',
        "names": ["a", "b"],
    }  # fmt: skip
    assert redact(kept) == kept


def test_everything_else_becomes_what_json_knows() -> None:
    class Loud:
        def __repr__(self) -> str:
            return "Loud(password='abc123')"

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    cleaned = redact(
        {
            "time": datetime(2026, 11, 22, tzinfo=UTC),
            "pair": (1, {"x"}),
            "bytes": b"\xffabc",
            "nan": float("nan"),
            "loud": Loud(),
            "broken": Broken(),
            "error": ValueError("password=abc"),
            3: "three",
        }
    )
    assert json.loads(json.dumps(cleaned)) == {
        "time": "2026-11-22T00:00:00+00:00",
        "pair": [1, ["x"]],
        "bytes": "\\xffabc",
        "nan": "nan",
        "loud": "Loud(password=***)",
        "broken": "<Broken that cannot be shown>",
        "error": "ValueError: password=***",
        "3": "three",
    }


def test_a_circle_ends() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert json.dumps(redact(circle)).count("[") < 20


# --- Registered values


def test_a_registered_value_is_masked_wherever_it_stands() -> None:
    protect("plain-secret", "a+b/c==d")
    assert redact_text("xplain-secretx plain-secretplain-secret") == "x***x ******"
    assert redact_text(f"?t={quote('a+b/c==d', safe='')}&") == "?t=***&"
    assert redact({"x-plain-secret-x": 1, "list": ["plain-secret"]}) == {"x-***-x": "***", "list": ["***"]}


def test_the_longer_of_two_that_begin_alike_is_masked_whole() -> None:
    protect("abcdefgh", "abcdefghijkl")
    assert redact_text("abcdefghijklm abcdefghi") == "***m ***i"


def test_a_short_value_would_blot_out_ordinary_words() -> None:
    protect("test", "")
    assert redact_text("test this") == "test this"


def test_old_values_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SECRETS", 4)
    for number in range(20):
        protect(f"secret{number:04d}")
    assert redact_text("secret0019") == "***"
    assert redact_text("secret0000") == "secret0000"
    protect("secret0017")
    protect("another1")
    assert redact_text("secret0017 another1") == "*** ***"


def test_thousands_of_values_do_not_make_a_line_slow() -> None:
    for number in range(5_000):
        protect(f"{number:04d}{SECRET_KEY}", f"{number:04d}{TOKEN}")
    line = "delivered xmode/us-daily/2026/11/22/part-0001.parquet to acme " * 10
    started = time.process_time()
    for _ in range(100):
        redact_text(line)
    assert time.process_time() - started < 1


def test_threads_may_register_while_others_look() -> None:
    failed: list[BaseException] = []

    def register(start: int) -> None:
        try:
            for number in range(300):
                protect(f"{start}-{number:08d}")
                assert redact_text(f"x {start}-{number:08d}") == "x ***"
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    threads = [threading.Thread(target=register, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


# --- No secret survives any way into the log


@dataclass
class Held:
    note: str


class Shown:
    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Shown({self.value!r})"


class Unshowable:
    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        raise RuntimeError(f"cannot show {self.value}")

    __str__ = __repr__


Pair = namedtuple("Pair", "first second")  # as libraries have them


def _raised(error: BaseException, cause: BaseException | None = None) -> None:
    try:
        raise error from cause
    except BaseException:  # noqa: BLE001 - to be logged
        telemetry.exception("defect", name="a")


def _in_context(secret: str) -> None:
    try:
        try:
            raise KeyError(secret)
        except KeyError:
            raise ValueError("while handling it")  # noqa: B904 - the context is the point
    except ValueError:
        telemetry.exception("defect")


def _noted(secret: str) -> None:
    error = ValueError("with a note")
    error.add_note(f"noted {secret}")
    _raised(error)


def _in_a_frame(secret: str) -> None:
    held = {"password": secret, "plain": secret}
    _raised(ValueError(len(held)))


def _bound(secret: str) -> None:
    with telemetry.bind(customer=secret):
        telemetry.log("run.started")


def _warned(secret: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # Another test may have left it on. Then pytest has undone its effect, and True alone does nothing.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"deprecated {secret}", stacklevel=1)


def _from_a_thread(secret: str) -> None:
    thread = threading.Thread(target=lambda: telemetry.warn("source.problem", name=secret))
    thread.start()
    thread.join()


library = logging.getLogger("botocore.endpoint")
stdlib = logging.getLogger("some.library")

WAYS: dict[str, Way] = {
    "event": lambda s: telemetry.log(f"event {s}"),
    "field": lambda s: telemetry.log("run.started", note=s),
    "field in text": lambda s: telemetry.error("run.started", note=f"before{s}after"),
    "name of a field": lambda s: telemetry.log("run.started", **{s: 1}),
    "bytes": lambda s: telemetry.log("run.started", note=s.encode()),
    "dict": lambda s: telemetry.debug("run.started", note={"a": {"b": s}}),
    "key of a dict": lambda s: telemetry.log("run.started", note={s: {s.encode(): 1}}),
    "list": lambda s: telemetry.log("run.started", note=[1, (s, {s})]),
    "named tuple": lambda s: telemetry.log("run.started", note=Pair(s, [s])),
    "dataclass": lambda s: telemetry.log("run.started", note=Held(s)),
    "credentials": lambda s: telemetry.log("run.started", note=Credentials(s, s, s, datetime.now(UTC))),  # noqa: TID251
    "object": lambda s: telemetry.log("run.started", note=Shown(s)),
    "object in a list": lambda s: telemetry.log("run.started", note=[Shown({"x": s})]),
    "object that cannot be shown": lambda s: telemetry.log("run.started", note=Unshowable(s)),
    "exception as a field": lambda s: telemetry.log("run.started", note=ValueError(s)),
    "exception": lambda s: _raised(ValueError(f"no: {s}")),
    "exception's arguments": lambda s: _raised(ValueError(s, {"a": [s]})),
    "exception that cannot be shown": lambda s: _raised(ValueError(Unshowable(s))),
    "cause": lambda s: _raised(RuntimeError("outer"), ValueError(s)),
    "cause of a cause": lambda s: _raised(RuntimeError("outer"), _chained(s)),
    "context": _in_context,
    "note": _noted,
    "group": lambda s: _raised(ExceptionGroup(s, [ValueError(s), ExceptionGroup("x", [KeyError(s)])])),
    "local variable": _in_a_frame,
    "bound": _bound,
    "warning": _warned,
    "thread": _from_a_thread,
    "library": lambda s: stdlib.warning(f"retrying {s}"),
    "library's arguments": lambda s: stdlib.info("a %s b %r c %.200s", s, [s], Shown(s)),
    "library's mapping": lambda s: stdlib.info("%(a)s", {"a": s}),
    "library's mistake": lambda s: stdlib.info("%d %d", s),
    "library's debug": lambda s: library.debug("Making request %s", {"headers": {"X": s}}),
    "library's exception": lambda s: _logged(s),
    "library's extra": lambda s: stdlib.info("x", extra={"header": s}),
    "library's stack": lambda s: stdlib.info("x %s", s, stack_info=True),
    "library's object": lambda s: stdlib.info(Shown(s)),
    "library's message that cannot be shown": lambda s: stdlib.info(Unshowable(s)),
}


def _chained(secret: str) -> ValueError:
    error = ValueError("middle")
    error.__cause__ = KeyError(secret)
    return error


def _logged(secret: str) -> None:
    try:
        raise OSError(secret)
    except OSError:
        stdlib.exception("failed with %s", secret)


# Anything that may stand in a key, a token or a password. Spaces and stars are left out because lines have
# those of their own.
secrets = st.text(
    alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"),
    min_size=8,
    max_size=60,
)


@pytest.mark.parametrize("form", ["json", "terminal"])
@pytest.mark.parametrize("way", WAYS)
def test_no_registered_secret_survives(
    way: str, form: str, log: Any, capsys: pytest.CaptureFixture[str], own_registry: None
) -> None:
    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @example(SECRET_KEY)
    @example("it's \"quoted\\" + "x" * 8)
    @example("a\\nb'c\"d&e<f>")
    @example("p%40ss{word}%s%(x)s")
    @given(secrets)
    def check(secret: str) -> None:
        protect(secret)
        stream = log(json=form == "json", terminal=form == "terminal")
        WAYS[way](secret)
        written = stream.getvalue() + "".join(capsys.readouterr())
        assert secret not in written
        assert repr(secret)[1:-1] not in written
        assert json.dumps(secret)[1:-1] not in written
        assert written or way == "library's debug"
        if form == "json":
            for line in stream.getvalue().splitlines():
                json.loads(line)

    check()


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("way", WAYS)
def test_no_secret_with_a_known_form_survives(
    way: str, form: str, log: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = log(json=form == "json")
    for secret in (KEY_ID, TOKEN, f"X-Amz-Signature={SIGNATURE}", f"password={SECRET_KEY}"):
        WAYS[way](secret)
    written = stream.getvalue() + "".join(capsys.readouterr())
    for part in (KEY_ID, TOKEN, SIGNATURE, SECRET_KEY):
        assert part not in written


def test_a_traceback_tells_where_and_not_with_what(log: Any) -> None:
    stream = log()
    _in_a_frame("hunter22hunter22")
    line = json.loads(stream.getvalue())
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert any(frame["name"] == "_raised" for frame in line["exception"][0]["frames"])
    assert "locals" not in stream.getvalue()
    assert traceback.__name__ not in line["event"]
