"""A real browser in front of a page that is really served."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from xmode_transfer.adapters.ledger import open_ledger
from xmode_transfer.adapters.memory.clock import MemoryClock
from xmode_transfer.domain.config import StatusPage
from xmode_transfer.entrypoints.web import serve

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


def _population() -> ModuleType:
    spec = importlib.util.spec_from_file_location("population", Path(__file__).with_name("population.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["population"] = module
    spec.loader.exec_module(module)
    return module


population = _population()


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
    board = population.PinnedBoard(configuration.customers)
    server = serve(
        StatusPage(listen="127.0.0.1:0"), ledger, clock, lambda: configuration, board, lambda: b"# none\n"
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
def open_tab(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """A tab: ``open_tab("/runs", width=390, dark=True, script=False)``. What the console complains of, or
    what is asked of another host, fails the test at its end."""
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
            lambda request: None if request.url.startswith(site.address) else complaints.append(request.url),
        )
        page.goto(site.address + path)
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []
