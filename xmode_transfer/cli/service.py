"""`xmode-transfer daemon` and `xmode-transfer worker`: the service, on one machine or many."""

from pathlib import Path

import click

from xmode_transfer.cli import opening
from xmode_transfer.cli.opening import Shell


@click.command()
@click.option(
    "--engine",
    type=click.Choice(["threads", "procrastinate"]),
    envvar="XMODE_ENGINE",
    default="threads",
    show_default=True,
    help="threads: deliver in this process; procrastinate: leave it to workers (also: XMODE_ENGINE).",
)
@click.pass_obj
def daemon(shell: Shell, engine: str) -> int:
    """Run the service: deliver what is due to every customer, until you stop it.

    Customers with a `schedule` are checked at their time, the others at every tick (`daemon.tick_seconds`).
    The daemon also cleans up, checks access, monitors health, sends alerts and serves the status page. You
    can use `run` at the same time. A ledger allows one daemon.

    With `--engine procrastinate`, workers on any machines deliver (`xmode-transfer worker --help`). This
    needs a ledger in PostgreSQL and allows any number of daemons. Both engines at once are refused.

    A customer that denies access does not delay others. Its deliveries wait, are retried, and continue in
    order once it has fixed its side. At the start, the daemon waits for a database server that is down.

    \b
    SIGHUP            reload the configuration (file changes are detected anyway), and retry at once
                      the deliveries that wait for a customer
    SIGTERM, Ctrl-C   stop: running work gets `daemon.drain_seconds`, then stops and can be resumed
    a second signal   exit at once; nothing acknowledged is lost, not even by kill -9

    \b
    xmode-transfer daemon
    xmode-transfer daemon --engine procrastinate
    xmode-transfer status          show its state, from another terminal

    The log goes to stderr, one event a line (docs/events.md). Exit codes: 0 stopped; 2 service.yaml is
    invalid, or the status page's address is in use; 5 another daemon, or a fleet, uses this ledger.
    """
    from xmode_transfer.service import main

    return main.run_daemon(shell.config_dir, alone=engine == "threads")


@click.command()
@click.option(
    "--places",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Number of deliveries to run in parallel. Default: `cluster.places`, else `daemon.workers`.",
)
@click.option(
    "--heartbeat-file",
    type=opening.FILE,
    metavar="FILE",
    help="Touch FILE every few seconds while the worker makes progress, for a probe; remove it at exit.",
)
@click.option(
    "--metrics",
    metavar="ADDRESS:PORT",
    help="Serve this worker's /metrics, /healthz and /readyz on this address, such as 127.0.0.1:8322.",
)
@click.pass_obj
def worker(shell: Shell, places: int | None, heartbeat_file: Path | None, metrics: str | None) -> int:
    """Run a worker: deliver, on this machine, what a daemon has queued, until you stop it.

    Any number of workers, on any machines, share the work of `xmode-transfer daemon --engine procrastinate`,
    with the same configuration and a ledger in PostgreSQL. If a worker is killed, frozen or cut off, others
    resume its deliveries within a minute. At the start, the worker waits for a database server that is down.

    \b
    SIGTERM, Ctrl-C   stop: running work gets `daemon.drain_seconds`, then stops, and others resume it
    a second signal   exit at once; nothing acknowledged is lost, not even by kill -9
    SIGHUP            reload the configuration (file changes are detected anyway)

    \b
    pip install 'xmode-transfer[cluster]'         install the packages for several machines
    xmode-transfer ledger copy postgresql://...   move the ledger to PostgreSQL
    xmode-transfer daemon --engine procrastinate  run one or more: queue what is due
    xmode-transfer worker --places 32             run one or more: deliver it

    The log goes to stderr, one event a line (docs/events.md). Exit codes: 0 stopped; 2 service.yaml is
    invalid, or for one machine only; 5 a daemon that delivers by itself uses this ledger.
    """
    from xmode_transfer.service import cluster, main

    cluster.check_installed()
    return main.run_worker(shell.config_dir, places, heartbeat_file, metrics)
