"""A real browser in front of a page that is really served."""

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests.fakes.clock import MemoryClock
from xmode_transfer.config import StatusPage
from xmode_transfer.ledger import open_ledger
from xmode_transfer.web.server import serve

CHROMIUM = Path("/usr/bin/chromium")
# Without the background flags Chromium looks for hosts that a closed network does not have.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MANY = 500
"""Customers, of three feeds each: more than a page shows, and than it may ask the ledger for one by one."""


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


population = _beside("population")
screenshots = _beside("screenshots")


@dataclass(frozen=True)
class Site:
    """A page over so many customers."""

    address: str
    clock: MemoryClock
    ledger_path: Path


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    path = tmp_path_factory.mktemp("site") / "ledger.db"
    population.populate(path, MANY)
    clock = MemoryClock(population.NOW)
    configuration = population.configuration(MANY)
    ledger = open_ledger(f"sqlite:///{path}", clock)
    server = serve(
        StatusPage(listen="127.0.0.1:0"),
        ledger,
        clock,
        lambda: configuration,
        population.OneDaemon(configuration.customers),
        lambda: b"# none\n",
    )
    yield Site(server.address.rstrip("/"), clock, path)
    server.close()
    ledger.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: install Debian's chromium to drive the page in a real browser")
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        except Error as error:
            pytest.skip(f"{CHROMIUM} does not start here: {error.message.splitlines()[0]}")
        yield started
        started.close()


@dataclass(frozen=True)
class KeptDemo:
    """What `demo --keep` has left running in a directory, and its page."""

    directory: Path
    shown: str
    address: str


@pytest.fixture(scope="module")
def kept_demo(sandbox_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDemo]:
    """The daemon of a real demo, over what the demo has delivered. It ends, and leaves nothing."""
    directory, home, user = (tmp_path_factory.mktemp(name) for name in ("demo", "sandboxes", "user"))
    (home / "runtime").symlink_to(sandbox_home / "runtime")
    unset = ("AWS_", "XMODE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unset)}

    def demo(option: str) -> str:
        return subprocess.run(
            [screenshots.PROGRAM, "demo", option],
            cwd=directory,
            env={**environment, "HOME": str(user), "XMODE_SANDBOX_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=500,
        ).stdout

    try:
        shown = demo("--keep")
        yield KeptDemo(directory, shown, shown.splitlines()[-1].strip().rstrip("/"))
    finally:
        told = demo("--stop")
    assert "Stopped and removed the demo." in told
    assert [path.name for path in home.iterdir()] == ["runtime"]
    assert list(directory.iterdir()) == []


@dataclass(frozen=True)
class Followed:
    """What came of the demo's advice."""

    is_ready: bool
    modes: list[int]
    status: Any
    listed: str


@pytest.fixture(scope="module")
def followed(kept_demo: KeptDemo) -> Followed:
    """The commands that the demo advises, in a shell that has nothing else. Before anything is new, one
    customer makes its mistake again: it is refused what the others are delivered."""
    advice = kept_demo.shown.split("In a shell, ")[1].splitlines()
    commands = [line.strip() for line in advice if line.startswith("     ")]
    del commands[-2:]  # demo --stop, and the page's address
    enter, write, look, ask = commands
    assert enter == ". .demo/env"

    def in_a_shell(*lines: str) -> str:
        tried = subprocess.run(
            ["/bin/sh", "-ec", "\n".join(lines)],
            cwd=kept_demo.directory,
            env={"PATH": "/usr/bin:/bin", "AWS_PROFILE": "another"},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert tried.returncode == 0, tried.stdout + tried.stderr
        return tried.stdout

    with urllib.request.urlopen(f"{kept_demo.address}/readyz", timeout=60) as answer:
        is_ready = answer.status == 200
    home = kept_demo.directory / ".demo"
    modes = [path.stat().st_mode & 0o777 for path in (home, home / "env")]
    status = json.loads(in_a_shell(enter, ask))
    screenshots.break_initech(kept_demo.directory)
    in_a_shell(enter, write)
    deadline = time.monotonic() + 500
    while "delivery.finished" not in (log := (home / "daemon.log").read_text(encoding="utf-8")):
        assert time.monotonic() < deadline, log
        time.sleep(0.1)
    while "new.csv" not in (listed := in_a_shell(enter, look)):
        assert time.monotonic() < deadline, listed  # the daemon delivers it, and nobody else
        time.sleep(0.5)
    return Followed(is_ready, modes, status, listed)


@pytest.fixture(scope="session")
def idle_tabs() -> dict[tuple[int, bool, bool], Page]:
    """A tab of each kind that a later test may have: a new one costs as much as all that is done with it."""
    return {}


@pytest.fixture
def open_tab(browser: Browser, site: Site, idle_tabs: dict[Any, Page]) -> Iterator[Callable[..., Page]]:
    """A tab on the page over many customers: ``open_tab("/runs", width=390, dark=True, script=False)``."""
    yield from tabs(browser, site.address, idle_tabs)


@pytest.fixture
def open_demo(
    browser: Browser, kept_demo: KeptDemo, followed: Followed, idle_tabs: dict[Any, Page]
) -> Iterator[Callable[..., Page]]:
    """A tab on the page of the demo's daemon."""
    yield from tabs(browser, kept_demo.address, idle_tabs)


def tabs(
    browser: Browser, address: str, idle: dict[tuple[int, bool, bool], Page]
) -> Iterator[Callable[..., Page]]:
    """What the console complains of, or what is asked of another host, fails the test at its end."""
    complaints: list[str] = []
    used: list[tuple[tuple[int, bool, bool], Page]] = []
    complained: dict[str, Callable[[Any], None]] = {
        "console": lambda line: complaints.append(line.text) if line.type == "error" else None,
        "pageerror": lambda error: complaints.append(str(error)),
        "dialog": lambda dialog: complaints.append(f"a dialog: {dialog.message}"),
        "request": lambda request: (
            None if request.url.startswith(address) else complaints.append(request.url)
        ),
    }

    def make(path: str = "/", *, width: int = 1280, dark: bool = False, script: bool = True) -> Page:
        kind = (width, dark, script)
        page = idle.pop(kind, None) or new_tab(browser, *kind)
        used.append((kind, page))
        for event, note in complained.items():
            page.on(event, note)  # type: ignore[call-overload]
        page.goto(address + path)
        return page

    yield make
    for kind, page in used:
        for event, note in complained.items():
            page.remove_listener(event, note)
        if kind in idle:
            page.context.close()
            continue
        if kind[2]:
            page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.goto("about:blank")
        idle[kind] = page
    assert complaints == []


def new_tab(browser: Browser, width: int, dark: bool, script: bool) -> Page:
    return browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        bypass_csp=False,
    ).new_page()


@pytest.fixture(scope="session")
def grave() -> Callable[..., list[str]]:
    """What axe-core finds serious or critical on a page: ``grave(tab)``, or ``grave(tab, "color-contrast")``
    for certain rules."""

    def found(tab: Page, *rules: str) -> list[str]:
        options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        return [
            f"{tab.url}: {item['id']}: {node['html'][:150]} {node['failureSummary'][:300]}"
            for item in Axe().run(tab, options=options).response["violations"]
            if item["impact"] in ("serious", "critical")
            for node in item["nodes"][:1]
        ]

    return found
