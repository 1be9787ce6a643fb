"""What every test is given: a clean environment, no network but loopback, and the sandbox where asked for."""

import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import is_hypothesis_test, settings

from tests import commands
from tests.bucket import remove_customer
from tests.forms import IS_SOAK
from tests.statements import keep_statements
from xmode_transfer.sandbox import server
from xmode_transfer.sandbox.accounts import add_customer
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox, SandboxError, Variant, write_config
from xmode_transfer.sandbox.server import install

pytest_plugins = ["tests.postgres"]
CHECKOUT = Path(__file__).parents[1]
ON_CI = bool(os.environ.get("CI"))
REAL_HOME = os.environ.get("HOME", "")
# The same examples each time, so that a change is judged by itself; `make soak` looks for new ones.
settings.register_profile("check", max_examples=40, derandomize=True, deadline=None)
settings.register_profile("soak", max_examples=1000, deadline=None)
settings.load_profile("soak" if IS_SOAK else "check")
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}


def pytest_configure() -> None:
    """A shell starts what is to run in the background with SIGINT ignored, and all that it starts inherits
    that: tests send SIGINT to processes of theirs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    commands.keep_aws_models()
    keep_statements()


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no garbage collection needs to look at it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    commands.close()


# --- What is run when --------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Marks what `make test` leaves out as ``thorough``, and in `make soak` what has a long form as ``slow``.
    Leaves out what is slow, unless `make soak` (or ``-m slow``) asks for it. What takes longest begins first,
    so that no process is still at it when the others have nothing left."""
    for item in items:
        if _is_thorough(item):
            item.add_marker("thorough")
        if IS_SOAK and (item.get_closest_marker("short") or is_hypothesis_test(getattr(item, "obj", None))):
            item.add_marker("slow")
    if not IS_SOAK and "slow" not in config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    yield
    items.sort(key=_timeout, reverse=True)


def _is_thorough(item: pytest.Item) -> bool:
    """Functional tests but the smoke, and what needs PostgreSQL, moto, a browser or a fault."""
    folder = item.path.relative_to(CHECKOUT / "tests").parts[0]
    if folder == "functional":
        return item.get_closest_marker("smoke") is None
    case = getattr(item, "callspec", None)
    values = [] if case is None else [one for one in case.params.values() if isinstance(one, str)]
    on_server = any(value == "postgresql" or value.endswith("-moto") for value in values)
    return folder in ("browser", "faults") or on_server or "postgres_server" in _fixtures(item)


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


def _timeout(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return marker.args[0] if marker else 0.0


# --- What simulations measure ---------------------------------------------------------------------------


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Takes lines that pytest prints at the end of the session: ``figures("p99 12 s", ...)``. Passing says
    that a bound holds; the figures say by how much."""

    def note(*lines: str) -> None:
        for line in lines:
            record_property("figures", line)

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures, from all workers."""
    told = {
        report.nodeid: [line for name, line in report.user_properties if name == "figures"]
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        if report.when == "call"
    }
    if any(told.values()):
        terminalreporter.section("figures")
    for test, lines in sorted(told.items()):
        if lines:
            terminalreporter.write_line(test)
        for line in lines:
            terminalreporter.write_line(f"  {line}")


# --- The environment -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """New directories; pytest's own are looked for among all that there are, for each test."""
    base = tmp_path_factory.mktemp("homes")
    return (base / str(number) for number in count())


@pytest.fixture(autouse=True)
def clean_environment(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's AWS or xmode-transfer set-up reaches a test or a process of it."""
    (home := next(homes)).mkdir()
    for name in os.environ:
        if name.startswith(("AWS_", "XMODE_")) or name.upper() in PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


# --- The network ---------------------------------------------------------------------------------------


class NetworkForbiddenError(RuntimeError):
    """A test tried to leave this machine."""


def _is_local(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuses every other address before a packet is sent; the test fails even if it swallows the refusal.

    Answers the list of what was refused so far, of which the test is found guilty at its end.
    """
    attempts: list[str] = []

    def check(host: object) -> None:
        if not _is_local(host):
            attempts.append(str(host))
            raise NetworkForbiddenError(f"tests may talk to 127.0.0.1 only, not to {host!r}")

    def guarded(name: str) -> Callable[..., Any]:
        original = getattr(socket.socket, name)

        def call(self: socket.socket, *arguments: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                check(arguments[-1][0])
            return original(self, *arguments)

        return call

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, guarded(name))
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        check(host)
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield attempts
    assert not attempts, f"the test tried to reach {', '.join(sorted(set(attempts)))}"


# --- The sandbox ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sandbox_home() -> Path:
    """Where MiniStack is installed, once for the checkout. Skips when it cannot be; fails instead on CI."""
    home = CHECKOUT / ".cache" / "sandbox"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", REAL_HOME)  # where pip's configuration may be
            install(home)
    except SandboxError as error:
        reason = f"{error} {error.hint}"
        if ON_CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return home


@pytest.fixture(scope="session")
def sandbox(sandbox_home: Path) -> Iterator[Sandbox]:
    """A local AWS with the vendor's user and no customer: one for each session, or worker of pytest-xdist."""
    with server.running(sandbox_home, {}) as running:
        yield running


_accounts = count(700_000_000_001)


@pytest.fixture
def customer_factory(sandbox: Sandbox) -> Iterator[Callable[..., CustomerSetup]]:
    """Makes customers that no other test shares: ``customer_factory("acme", Variant.GUIDE, prefix="in/")``.

    Each has an account and a bucket of its own, whatever its name. The keyword arguments are those of
    ``add_customer``.
    """

    def make(name: str = "acme", variant: Variant = Variant.GUIDE, **how: Any) -> CustomerSetup:
        account = str(next(_accounts))
        how = {"account": account, "bucket": f"{name}-{account}", **how}
        made.append(add_customer(sandbox, name, variant, **how))
        return made[-1]

    made: list[CustomerSetup] = []
    yield make
    for customer in made:
        remove_customer(sandbox, customer)


@pytest.fixture
def acme(customer_factory: Callable[..., CustomerSetup]) -> CustomerSetup:
    """A fresh customer that has followed the guide to the letter."""
    return customer_factory("acme")


@pytest.fixture
def globex(customer_factory: Callable[..., CustomerSetup]) -> CustomerSetup:
    """A second one, in another account."""
    return customer_factory("globex")


@pytest.fixture
def as_vendor(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process, and those that it starts, are the vendor in the sandbox; the variables that say so."""
    variables = sandbox.environment()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def config_directory(sandbox: Sandbox, tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration for given customers: ``config_directory(acme, globex, feeds={...})``."""

    def make(*customers: CustomerSetup, **how: Any) -> Path:
        return write_config(tmp_path / "config", sandbox, customers=customers, **how)

    return make
