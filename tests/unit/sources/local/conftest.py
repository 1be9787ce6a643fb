"""What the tests of the local source share: a root, a clock set by hand, a way to lose root's rights."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import MemoryClock
from xmode_transfer.config import Feed
from xmode_transfer.sources.local import LocalSource

NOBODY = 65534


@pytest.fixture
def clock() -> MemoryClock:
    """Ahead of the machine's own: what a test has made has settled unless told otherwise."""
    return MemoryClock(datetime(2126, 11, 24, 6, 30, tzinfo=UTC))


@pytest.fixture
def root() -> Iterator[Path]:
    """A feed's root that other users can reach as well, unlike pytest's own directories."""
    directory = Path(tempfile.mkdtemp(prefix="xmode-test-")).resolve()
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def source_of(root: Path, clock: MemoryClock) -> Callable[..., LocalSource]:
    """``source_of()`` is a drop folder that takes everything that has settled for a minute."""

    def make(**changes: Any) -> LocalSource:
        feed: dict[str, Any] = {"name": "daily", "source": str(root), "period": "none", "exclude": []}
        if "period" not in changes:
            feed["complete"] = {"settle_seconds": 60}
        return LocalSource(Feed.model_validate(feed | changes), clock)

    return make


@pytest.fixture
def age(clock: MemoryClock) -> Callable[..., None]:
    """Sets a file's or directory's time to so many seconds ago."""

    def set_age(path: Path, seconds: float, *, follow_symlinks: bool = True) -> None:
        changed = int((clock.now().timestamp() - seconds) * 1000) * 10**6
        os.utime(path, ns=(changed, changed), follow_symlinks=follow_symlinks)

    return set_age


@pytest.fixture
def put(root: Path, age: Callable[..., None]) -> Callable[..., Path]:
    """Writes a file below the root, an hour old unless told."""

    def write(name: str, data: bytes = b"data", seconds: float = 3600) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        age(path, seconds)
        return path

    return write


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """In this context, file permissions hold for us too, even where the tests run as root."""

    @contextmanager
    def drop() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return drop


@pytest.fixture
def open_descriptors() -> Callable[[], set[str]]:
    """What this process holds open below temporary directories, by path."""

    def look() -> set[str]:
        found = set()
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                target = str(descriptor.readlink())
                if "xmode-" in target or "(deleted)" in target:
                    found.add(f"{descriptor.name} {target}")
        return found

    return look
