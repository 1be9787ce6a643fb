"""A log of the test's own, and registered secrets of its own."""

import io
import logging
from collections.abc import Callable, Iterator

import pytest

from xmode_transfer import telemetry
from xmode_transfer.telemetry import rendering
from xmode_transfer.telemetry.rendering import NEVER_BELOW_INFO, LineHandler


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Log = Callable[..., io.StringIO]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_protected", rendering._Protected())


@pytest.fixture
def log() -> Iterator[Log]:
    """``log()`` is a fresh stream that everything is logged to, in JSON; with ``json=False`` as text."""
    root = logging.getLogger()
    level = root.level
    levels = {name: logging.getLogger(name).level for name in NEVER_BELOW_INFO}

    def configure(*, json: bool | None = True, level: str = "DEBUG", terminal: bool = False) -> io.StringIO:
        stream = Terminal() if terminal else io.StringIO()
        root.handlers.clear()  # pytest's own raise where logging only tells of a mistake
        telemetry.configure(stream, json=json, level=level)
        return stream

    yield configure
    logging.captureWarnings(False)
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, LineHandler)]
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
