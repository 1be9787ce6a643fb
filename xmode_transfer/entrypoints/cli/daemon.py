"""`xmode-transfer daemon`: the service itself."""

import logging
import sys

import click

from xmode_transfer.entrypoints.cli import Shell
from xmode_transfer.entrypoints.cli.terminal import bare


@click.command()
@click.option(
    "--engine",
    type=click.Choice(["threads", "procrastinate"]),
    envvar="XMODE_ENGINE",
    default="threads",
    show_default=True,
    help="Who delivers: this process, or any number of `xmode-transfer worker` (also: XMODE_ENGINE).",
)
@click.pass_context
def command(ctx: click.Context, engine: str) -> int:
    """Deliver what is due, for all customers, until you stop it.

    Customers with a `schedule` are looked at when their time has come, the others at every tick
    (`daemon.tick_seconds`). It delivers with the same functions as `run`, which may be used beside it; cleans
    up, checks access, watches over health, and serves the status page. One daemon works with one ledger.

    Where one machine is too small, `--engine procrastinate` leaves the deliveries to workers on any machines
    (`xmode-transfer worker --help`), by way of a ledger in PostgreSQL. Any number of such daemons may run,
    each with its page: the ledger sees to it that nothing is done twice. Both ways at once are refused.

    A customer who refuses us does not hold up the others. Its deliveries wait, are tried again by themselves,
    and go on in order once it has mended its side.

    \b
    SIGHUP            reads the configuration again (changed files are noticed by themselves), and
                      tries at once what waits for a customer
    SIGTERM, Ctrl-C   ends: what runs has `daemon.drain_seconds`, then stops where it can be resumed
    a second one      ends at once; nothing that was acknowledged is lost
    kill -9           the same: the next start goes on from the ledger

    \b
    xmode-transfer daemon
    xmode-transfer --log-level debug daemon
    xmode-transfer daemon --engine procrastinate
    systemctl reload xmode-transfer
    xmode-transfer status          what it does, from another terminal

    A database server that is away when the daemon starts is waited for.

    The log is one event a line on stderr (docs/events.md). Exit codes: 0 it was stopped; 2 service.yaml
    cannot be used or names a ledger that is not there or refuses us, or the page's address is taken; 5
    another daemon works with this ledger, or a fleet where this one would take all turns itself.
    """
    from xmode_transfer import telemetry
    from xmode_transfer.entrypoints import daemon
    from xmode_transfer.entrypoints.cli import streams

    shell = ctx.obj
    assert isinstance(shell, Shell)
    assert ctx.parent is not None
    if ctx.parent.params["log_level"] is None:  # a service tells what it does on a terminal, too
        telemetry.configure(stream=bare(sys.stderr), level=logging.INFO, colours=streams.colours_wanted())
    return daemon.run(shell.config_dir, daemon.Engine(engine))
