"""What the tests of both engines share."""

from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

import pytest

from tests.fakes.sessions import Provider
from xmode_transfer.aws import retrying


def key_used(asked: Any) -> str:
    """Return the access key that a request was signed with."""
    authorization: str = asked.headers["authorization"]
    return authorization.split("Credential=")[1].split("/")[0]


def region_used(asked: Any) -> str:
    authorization: str = asked.headers["authorization"]
    return authorization.split("Credential=")[1].split("/")[2]


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def retry_rules(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets how objects are retried: ``attempts``, ``first_pause_seconds``, ..."""

    def change(**rules: float) -> None:
        for name, value in rules.items():
            monkeypatch.setattr(retrying, name.upper(), value)

    return change


@pytest.fixture
def refusal(reply: Any) -> Callable[..., Any]:
    """S3's refusal, with its request ID."""

    def make(status: int, code: str = "", text: str = "because", more: str = "", **headers: str) -> Any:
        body = f"<Error><Code>{code}</Code><Message>{escape(text)}</Message>{more}</Error>" if code else ""
        return reply(status, body.encode(), {"x-amz-request-id": "R1", **headers})

    return make
