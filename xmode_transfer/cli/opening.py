"""What commands share: options, the configuration and the context, and signals."""

import getpass
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from xmode_transfer.model.errors import Interrupted, XmodeError

if TYPE_CHECKING:
    from xmode_transfer.cli.terminal import Tally
    from xmode_transfer.config import Configuration
    from xmode_transfer.transfer.context import Context

LAST_RESORT_SECONDS = 6.0
"""Requests end before (``aws.sdk``); what still runs waits for a name server, a connection or a backoff."""

FILE = click.Path(dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document; logs go to stderr."
)
customer_option = click.option("--customer", "-c", "name", metavar="C", required=True, help="The customer.")
one_customer_option = click.option("--customer", "-c", "name", metavar="C", help="Only this customer.")
feed_option = click.option("--feed", "-f", metavar="F", help="Only this feed.")
period_option = click.option(
    "--period", "-p", metavar="P", help="Only this period: 2026-11-22, 2026-11-22T05, 2026-W47 or 2026-11."
)
by_option = click.option(
    "--by", metavar="NAME", help="Name to record as the requester. Default: your user name."
)


def with_json(command: Callable[..., int]) -> Callable[..., int]:
    """Add --json to a command, and pass the Shell as its first argument."""
    return json_option(click.pass_obj(command))


def scope_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add --feed, --period, --since and --until to a command, which gets them as one ``scope``."""

    @feed_option
    @period_option
    @click.option("--since", metavar="P", help="Only from this period on.")
    @click.option("--until", metavar="P", help="Only up to and including this period.")
    @wraps(command)
    def with_scope(
        *given: Any, feed: str | None, period: str | None, since: str | None, until: str | None, **rest: Any
    ) -> int:
        from xmode_transfer.model.periods import check_range
        from xmode_transfer.model.upkeep import Scope

        if period and (since or until):
            raise click.UsageError("use either --period, or a range with --since and --until")
        try:
            check_range(since, until)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return command(*given, scope=Scope(feed, period, since, until), **rest)

    return with_scope


@dataclass(frozen=True, slots=True)
class Opened:
    """The context of a command. ``stop`` is set when the command is asked to stop."""

    configuration: "Configuration"
    context: "Context"
    stop: threading.Event
    progress: "Tally"


@dataclass(frozen=True, slots=True)
class Shell:
    """The global options of the command line."""

    config_dir: Path

    def configuration(self) -> "Configuration":
        """Load the configuration. Raise ConfigError if a part that all customers need is broken."""
        from xmode_transfer.config import files

        return files.load(self.config_dir)

    @contextmanager
    def opened(
        self, configuration: "Configuration", *, as_json: bool = False, quiet: bool = False
    ) -> Iterator[Opened]:
        """Yield the context of a command. ``quiet`` shows no progress."""
        from xmode_transfer.cli import terminal
        from xmode_transfer.service import assembly

        with (
            on_signals() as stop,
            terminal.progress(as_json=as_json, quiet=quiet) as tally,
            assembly.context(configuration, tally, stop) as context,
        ):
            yield Opened(configuration, context, stop, tally)


def requester(by: str | None) -> str:
    """Return the name in ``--by``, else the user and who became it by sudo."""
    if by:
        return by
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    sudoer = os.environ.get("SUDO_USER")
    return f"{user} (sudo by {sudoer})" if sudoer and sudoer != user else user


@contextmanager
def on_signals() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets; what still waits after a few seconds is ended. A
    second signal ends the process at once."""
    stop, signalled, done = threading.Event(), threading.Event(), threading.Event()

    def end() -> None:
        # the ledger's leases are free once the process is gone
        if not done.wait(LAST_RESORT_SECONDS):
            sys.stderr.write("stopped; everything acknowledged is recorded\n")
            sys.stderr.flush()
            os._exit(130)

    def handle(_number: int, _frame: FrameType | None) -> None:
        if signalled.is_set():
            os._exit(130)  # the ledger is always durable: nothing acknowledged is lost
        signalled.set()
        stop.set()
        threading.Thread(target=end, name="last resort", daemon=True).start()
        sys.stderr.write("\nstopping: work in flight gets a moment to finish (again: stop at once)\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except XmodeError as error:
        if not signalled.is_set() or isinstance(error, Interrupted):
            raise
        raise Interrupted(f"stopped on request; last error: {error.message}") from error
    finally:
        if not signalled.is_set():  # otherwise the process still has to end
            done.set()
        for number, handler in before.items():
            signal.signal(number, handler)
