"""Installing the local AWS from two tiny wheels on disk, ending processes, and finding sandboxes."""

import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import xmode_transfer
from xmode_transfer.sandbox import server
from xmode_transfer.sandbox.model import Sandbox, SandboxError
from xmode_transfer.sandbox.server import REQUIREMENTS, default_home, install

UV = shutil.which("uv")
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
INSTALL = """
import sys
from pathlib import Path
from xmode_transfer.sandbox.server import install
said = lambda line: print(line, file=sys.stderr)
print(install(Path(sys.argv[1]), requirements=Path(sys.argv[2]), say=said))
"""


def make_wheel(directory: Path, name: str, modules: dict[str, str]) -> str:
    """Writes a wheel; answers its line for requirements.txt."""
    info = f"{name}-1.0.dist-info"
    files = modules | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    wheel = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A requirements.txt that pip can fulfil without any network, and no uv."""
    index = tmp_path / "index"
    index.mkdir()
    lines = make_wheel(index, "hypercorn", {"hypercorn/__init__.py": "", "hypercorn/asyncio.py": ""})
    lines += make_wheel(index, "ministack", {"ministack/__init__.py": "", "ministack/app.py": ""})
    path = tmp_path / "requirements.txt"
    path.write_text(lines)
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return path


def runtimes(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "runtime").iterdir() if path.name != ".lock")


def test_two_at_once_build_one_environment_and_later_calls_build_none(
    tmp_path: Path, requirements: Path
) -> None:
    home = tmp_path / "home"
    leftover = home / "runtime" / "building-by-one-that-was-killed"
    leftover.mkdir(parents=True)
    command = [sys.executable, "-c", INSTALL, str(home), str(requirements)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        (python, said), (other_python, other_said) = one.communicate(), other.communicate()
    assert one.returncode == other.returncode == 0, said + other_said
    assert python == other_python
    assert (said + other_said).count("Installing") == 1
    assert len(runtimes(home)) == 1

    before = Path(python.strip()).lstat()
    told: list[str] = []
    assert str(install(home, requirements=requirements, say=told.append)) == python.strip()
    assert Path(python.strip()).lstat() == before
    assert told == []


@pytest.mark.slow
def test_a_package_other_than_the_pinned_one_is_refused(tmp_path: Path, requirements: Path) -> None:
    make_wheel(tmp_path / "index", "ministack", {"ministack/app.py": "print('not what was pinned')"})
    with pytest.raises(SandboxError) as caught:
        install(tmp_path / "home", requirements=requirements)
    assert "could not be installed" in caught.value.message
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in caught.value.message
    assert "pip's configuration" in caught.value.hint
    assert runtimes(tmp_path / "home") == []


@pytest.mark.slow
def test_a_python_that_has_pip_uses_its_own(tmp_path: Path, requirements: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "ours")], check=True)
    command = [str(tmp_path / "ours/bin/python"), "-c", INSTALL, str(tmp_path / "home"), str(requirements)]
    environment = os.environ | {"PYTHONPATH": str(Path(xmode_transfer.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    python = Path(done.stdout.strip())
    assert subprocess.run([python, "-c", "import ministack.app"], check=False).returncode == 0
    assert subprocess.run([python, "-c", "import pip"], check=False, capture_output=True).returncode == 1


def test_what_failed_is_told_and_nothing_is_left(
    tmp_path: Path, requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nseq 100\necho ensurepip is not available\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SandboxError) as caught:
        install(tmp_path / "home", requirements=requirements)
    first, *shown = caught.value.message.splitlines()
    assert "could not be installed" in first
    assert f"{python} -m venv" in first
    assert [line.strip() for line in shown[-2:]] == ["100", "ensurepip is not available"]
    assert len(shown) == 12
    assert "proxy" in caught.value.hint
    assert caught.value.exit_code == 2
    assert runtimes(tmp_path / "home") == []


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path, requirements: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SandboxError, match="cannot be written") as caught:
        install(tmp_path / "file" / "home", requirements=requirements)
    assert "XMODE_SANDBOX_HOME" in caught.value.hint


@pytest.mark.skipif(UV is None, reason="uv is not on PATH")
def test_uv_installs_it_too_and_changed_requirements_anew(
    tmp_path: Path, requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(UV or '').parent}:/usr/bin:/bin")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))
    first = install(tmp_path / "home", requirements=requirements)
    requirements.write_text(f"# changed\n{requirements.read_text()}")
    second = install(tmp_path / "home", requirements=requirements)
    assert first != second
    assert first.exists()
    assert second.exists()

    second.unlink()
    second.symlink_to(tmp_path / "a-python-that-was-removed")
    assert install(tmp_path / "home", requirements=requirements).exists()
    assert len(runtimes(tmp_path / "home")) == 2


@pytest.mark.slow
def test_where_uv_fails_pip_is_tried(
    tmp_path: Path, requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\necho this index cannot be reached >&2\nexit 1\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}:/usr/bin:/bin")
    told: list[str] = []
    assert install(tmp_path / "home", requirements=requirements, say=told.append).exists()
    assert [line for line in told if "trying pip" in line]


def test_every_package_is_pinned_by_hash_and_no_address_is_named() -> None:
    text = REQUIREMENTS.read_text(encoding="utf-8")
    packages = text.replace("\\\n", " ").strip().splitlines()
    assert [line for line in packages if "==" not in line or "--hash=sha256:" not in line] == []
    assert any(line.startswith("ministack==") for line in packages)
    assert "://" not in text


def test_the_home_is_the_variables_or_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_home() == tmp_path / ".sandbox"
    monkeypatch.setenv("XMODE_SANDBOX_HOME", str(tmp_path / "elsewhere"))
    assert default_home() == tmp_path / "elsewhere"


# --- Processes


@pytest.fixture(params=[SLEEP])
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"up\n"
        yield started
        started.kill()


def test_a_process_that_has_ended_has_no_birth_even_before_it_is_collected(
    child: subprocess.Popen[bytes],
) -> None:
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert server.birth(child.pid) is None
    child.wait()
    assert server.birth(child.pid) is None


def test_a_later_process_with_the_same_number_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    assert not server.end(child.pid, "born at another time")
    assert child.poll() is None


@pytest.mark.parametrize(
    ("child", "with_signal"), [(SLEEP, signal.SIGTERM), (STUBBORN, signal.SIGKILL)], indirect=["child"]
)
def test_it_ends_the_process(child: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    born = server.birth(child.pid)
    assert born is not None
    assert server.end(child.pid, born, grace_seconds=0.3)
    assert child.wait() == -with_signal


# --- Sandboxes


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
