"""The installed command, as a user runs it: in a process of its own, with a configuration in a directory."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import commands
from tests.commands import COMMAND
from xmode_transfer.sandbox.model import DEFAULT_FEEDS, CustomerSetup, Sandbox, write_config


@dataclass(slots=True)
class Answer:
    """What a finished command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log, a document a line."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]


class Launched:
    """A process that works on, and its log as it grows."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.other.append(line)

    def seen(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            entry
            for entry in list(self.events)
            if entry["event"] == event and all(entry.get(name) == value for name, value in fields.items())
        ]

    def wait(self, event: str, count: int = 1, seconds: float = 120, **fields: Any) -> dict[str, Any]:
        """Until the event stands so often in the log; the last of them."""
        until = time.monotonic() + seconds
        while len(found := self.seen(event, **fields)) < count:
            assert self.process.poll() is None, f"ended: {self.told()}"
            assert time.monotonic() < until, f"no {event} {fields}: {self.told()}"
            time.sleep(0.05)
        return found[count - 1]

    def told(self) -> str:
        return "\n".join([*self.other, *(json.dumps(event) for event in self.events[-40:])])

    def end(self, number: int = signal.SIGTERM, seconds: float = 120) -> int:
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        self._reader.join(120)
        return code


@dataclass(slots=True)
class Project:
    """A configuration in a directory, and the environment of the vendor's machine."""

    directory: Path
    environment: dict[str, str]
    constants: dict[str, float] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def source(self, feed: str = "us-daily") -> Path:
        return self.directory / "exports" / feed

    def write(self, name: str, data: bytes, feed: str = "us-daily") -> Path:
        path = self.source(feed) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    @contextmanager
    def slowed_down(self, bytes_per_second: int) -> Iterator[None]:
        """So that a run that starts inside is still at work when the test looks, however slow the machine."""
        service = self.directory / "service.yaml"
        text = service.read_text()
        service.write_text(f"{text}limits: {{bandwidth_bytes_per_second: {bytes_per_second}}}\n")
        yield
        service.write_text(text)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = commands.Started(
            [COMMAND, "--config", str(self.directory), *arguments],
            env={**os.environ, **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            constants=self.constants,
        )
        self.started.append(process)
        return process

    def launch(self, *arguments: str, **environment: str) -> Launched:
        """Starts what does not end by itself, and reads its log."""
        return Launched(self.start(*arguments, **environment))

    def run(self, *arguments: str, **environment: str) -> Answer:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        return Answer(process.returncode, out, err)

    def deliver(self, customer: str = "acme", *arguments: str) -> Answer:
        return self.run("run", "--customer", customer, "--json", *arguments)


@pytest.fixture
def project(sandbox: Sandbox, customer_factory: object, tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Makes a project for some customers of the sandbox: ``project(acme, feeds=..., overrides=...)``. Its
    processes end before the customers leave, whoever asked for whom first."""

    def make(*customers: CustomerSetup, feeds: Any = DEFAULT_FEEDS, **how: Any) -> Project:
        directory = tmp_path / f"project-{len(made)}"
        write_config(directory, sandbox, customers=customers, feeds=feeds, **how)
        made.append(Project(directory, sandbox.environment()))
        return made[-1]

    made: list[Project] = []
    yield make
    for one in made:
        for process in one.started:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def bare_project(tmp_path: Path) -> Project:
    """A project without customers, for commands that ask nobody."""
    directory = tmp_path / "bare"
    directory.mkdir()
    (directory / "service.yaml").write_text("ledger: sqlite:///var/ledger.db\n")
    return Project(directory, {})
