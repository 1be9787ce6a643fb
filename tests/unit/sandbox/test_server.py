"""Finding sandboxes, and a server that does not come up."""

import sys
from pathlib import Path

import pytest

from xmode_transfer.sandbox import server
from xmode_transfer.sandbox.model import Sandbox, SandboxError


@pytest.fixture
def broken_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose installed Python has no MiniStack in it."""
    monkeypatch.setattr(server, "install", lambda home, say: Path(sys.executable))
    return tmp_path / "home"


def test_a_server_that_does_not_start_is_told_with_its_log_and_leaves_nothing(broken_home: Path) -> None:
    with pytest.raises(SandboxError, match="did not start") as caught:
        server.start(broken_home)
    assert "ModuleNotFoundError" in caught.value.message
    assert list(broken_home.iterdir()) == []


def test_an_unknown_sandbox_is_told(tmp_path: Path) -> None:
    for sandbox_id in ("sbx-000000", "../elsewhere", "", "runtime"):
        with pytest.raises(SandboxError, match="There is no sandbox"):
            server.find(sandbox_id, tmp_path)


def test_what_is_no_sandbox_is_not_listed(tmp_path: Path) -> None:
    assert server.find_all(tmp_path / "absent") == []
    (tmp_path / "sbx-000001").mkdir()
    (tmp_path / "sbx-000001" / "sandbox.json").write_text("{")
    assert server.find_all(tmp_path) == []


def test_a_sandbox_left_over_from_a_crash_is_listed_and_removed(tmp_path: Path) -> None:
    directory = tmp_path / "sbx-0a1b2c"
    directory.mkdir()
    left = Sandbox(
        id=directory.name,
        endpoint="http://127.0.0.1:1",
        pid=1,  # somebody else's by now
        born="at another time",
        directory=directory,
        root_secret="s",
    )
    left.save()
    assert server.find_all(tmp_path) == [left]
    assert not server.is_running(left)
    assert not server.stop(server.find("sbx-0a1b2c", tmp_path))
    assert list(tmp_path.iterdir()) == []
