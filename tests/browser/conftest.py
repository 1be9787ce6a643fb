"""A real browser in front of a page that is really served."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

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
MANY = 2_000
"""Customers, of three feeds each."""


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


@pytest.fixture
def kept_demo(browser: Browser, sandbox_home: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the page of a real daemon, over what the demo has delivered. One customer has made its
    mistake again."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "runtime").symlink_to(sandbox_home / "runtime")

    def demo(option: str) -> None:
        subprocess.run(
            [screenshots.PROGRAM, "demo", option],
            cwd=tmp_path,
            env={**os.environ, "XMODE_SANDBOX_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=120,
        )

    try:
        demo("--keep")
        yield screenshots.break_initech(tmp_path).rstrip("/")
    finally:
        demo("--stop")


@pytest.fixture
def open_tab(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """A tab on the page over 2,000 customers: ``open_tab("/runs", width=390, dark=True, script=False)``."""
    yield from tabs(browser, site.address)


@pytest.fixture
def open_demo(browser: Browser, kept_demo: str) -> Iterator[Callable[..., Page]]:
    """A tab on the page of the demo's daemon."""
    yield from tabs(browser, kept_demo)


def tabs(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """What the console complains of, or what is asked of another host, fails the test at its end."""
    complaints: list[str] = []
    contexts = []

    def make(path: str = "/", *, width: int = 1280, dark: bool = False, script: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
            bypass_csp=False,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: None if request.url.startswith(address) else complaints.append(request.url),
        )
        page.goto(address + path)
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


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
