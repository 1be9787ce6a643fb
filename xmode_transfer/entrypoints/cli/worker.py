"""`xmode-transfer worker`: one of the machines that deliver."""

import logging
import sys
from pathlib import Path

import click

from xmode_transfer.entrypoints.cli import Shell
from xmode_transfer.entrypoints.cli.terminal import bare


@click.command()
@click.option(
    "--places",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Deliveries that it runs at once (`cluster.places`, else `daemon.workers`).",
)
@click.option(
    "--heartbeat-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Touched every few seconds while the worker gets on, for a probe; removed at its end.",
)
@click.option(
    "--metrics",
    metavar="ADDRESS:PORT",
    help="Answer /metrics (what this worker has sent), /healthz and /readyz there, such as 127.0.0.1:8322.",
)
@click.pass_context
def command(ctx: click.Context, places: int | None, heartbeat_file: Path | None, metrics: str | None) -> int:
    """Deliver what a fleet's daemon finds due, on this machine, until you stop it.

    Any number of workers, on any machines, share the work of `xmode-transfer daemon --engine procrastinate`;
    add one and it takes its part, end one and the others take its. All read the same configuration, and the
    ledger, which lies in PostgreSQL, decides who delivers what. A worker that is killed, frozen or cut off is
    found out: others go on with its deliveries within a minute, from the last part that was sent.

    \b
    SIGTERM, Ctrl-C   ends: what runs has `daemon.drain_seconds`, then stops where it can be resumed, and
                      others go on with it
    a second one      ends at once; nothing that was acknowledged is lost
    SIGHUP            reads the configuration again (changed files are noticed by themselves)
    kill -9           the others go on from the ledger

    \b
    pip install 'xmode-transfer[cluster]'         what several machines need besides
    xmode-transfer ledger copy postgresql://...   moves the ledger to where all reach it
    xmode-transfer daemon --engine procrastinate  says what is due: one or more
    xmode-transfer worker                         delivers it: one or more
    xmode-transfer worker --places 32

    A database server that is away when the worker starts is waited for.

    The log is one event a line on stderr (docs/events.md). Exit codes: 0 it was stopped; 2 service.yaml
    cannot be used, is for one machine only, or names a ledger that is not there or refuses us; 5 a daemon
    that takes all turns itself works with this ledger.
    """
    shell = ctx.obj
    assert isinstance(shell, Shell)
    assert ctx.parent is not None
    from xmode_transfer import telemetry
    from xmode_transfer.entrypoints.cli import streams

    if ctx.parent.params["log_level"] is None:  # a service tells what it does on a terminal, too
        telemetry.configure(stream=bare(sys.stderr), level=logging.INFO, colours=streams.colours_wanted())
    from xmode_transfer.bootstrap import cluster

    cluster.check_installed()
    from xmode_transfer.entrypoints import worker

    return worker.run(shell.config_dir, places, heartbeat_file, metrics)
