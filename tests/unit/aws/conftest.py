"""What the tests of both engines share."""

from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

import pytest

from tests.fakes.sessions import Provider


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def refusal(reply: Any) -> Callable[..., Any]:
    """S3's refusal, with its request ID."""

    def make(status: int, code: str = "", text: str = "because", more: str = "", **headers: str) -> Any:
        body = f"<Error><Code>{code}</Code><Message>{escape(text)}</Message>{more}</Error>" if code else ""
        return reply(status, body.encode(), {"x-amz-request-id": "R1", **headers})

    return make
