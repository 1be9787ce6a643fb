"""`xmode-transfer daemon` and `xmode-transfer worker`: the service, on one machine or many."""

from pathlib import Path

import click

from xmode_transfer.cli import opening


@click.command()
@click.option(
    "--engine",
    type=click.Choice(["threads", "procrastinate"]),
    envvar="XMODE_ENGINE",
    default="threads",
    show_default=True,
    help="Deliver in this process, or leave it to `xmode-transfer worker` (also: XMODE_ENGINE).",
)
@click.pass_context
def daemon(ctx: click.Context, engine: str) -> int:
    """Run the service: deliver what is due to every customer, until you stop it.

    Checks customers with a `schedule` at their time, the others at every tick (`daemon.tick_seconds`). Also
    cleans up, checks access, watches health, sends alerts and serves the status page. Delivers as `run` does,
    which you may use beside it. One daemon works with one ledger.

    With `--engine procrastinate` workers on any machines deliver (`xmode-transfer worker --help`), and the
    ledger is in PostgreSQL. Any number of such daemons may run. Both ways at once are refused.

    A customer that refuses us does not hold up others: its deliveries wait, are retried, and go on in order
    once it has fixed its side. A database server that is away at the start is waited for.

    \b
    SIGHUP            reload the configuration (changed files are noticed anyway), and retry at once
                      what waits for a customer
    SIGTERM, Ctrl-C   end: running work has `daemon.drain_seconds`, then stops where it can be resumed
    a second one      end at once; nothing acknowledged is lost, nor by kill -9

    \b
    xmode-transfer daemon
    xmode-transfer daemon --engine procrastinate
    xmode-transfer status          what it does, from another terminal

    The log goes to stderr, one event a line (docs/events.md). Exit codes: 0 stopped; 2 service.yaml cannot be
    used, or the page's address is taken; 5 another daemon, or a fleet, works with this ledger.
    """
    from xmode_transfer.service import daemon_main

    opening.log_of_a_service(ctx)
    return daemon_main.run(ctx.obj.config_dir, daemon_main.Engine(engine))


@click.command()
@click.option(
    "--places",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Deliveries to run at once. Default: `cluster.places`, else `daemon.workers`.",
)
@click.option(
    "--heartbeat-file",
    type=opening.FILE,
    metavar="FILE",
    help="Touch FILE every few seconds while the worker gets on, for a probe; remove it at the end.",
)
@click.option(
    "--metrics",
    metavar="ADDRESS:PORT",
    help="Serve /metrics, /healthz and /readyz of this worker there, such as 127.0.0.1:8322.",
)
@click.pass_context
def worker(ctx: click.Context, places: int | None, heartbeat_file: Path | None, metrics: str | None) -> int:
    """Deliver, on this machine, what a fleet's daemon finds due, until you stop it.

    Any number of workers, on any machines, share the work of `xmode-transfer daemon --engine procrastinate`,
    with the same configuration and a ledger in PostgreSQL. If a worker is killed, frozen or cut off, others
    resume its deliveries within a minute. A database server that is away at the start is waited for.

    \b
    SIGTERM, Ctrl-C   end: running work has `daemon.drain_seconds`, then stops, and others resume it
    a second one      end at once; nothing acknowledged is lost, nor by kill -9
    SIGHUP            reload the configuration (changed files are noticed anyway)

    \b
    pip install 'xmode-transfer[cluster]'         install what several machines need besides
    xmode-transfer ledger copy postgresql://...   move the ledger to where all reach it
    xmode-transfer daemon --engine procrastinate  run one or more: says what is due
    xmode-transfer worker --places 32             run one or more: delivers it

    The log goes to stderr, one event a line (docs/events.md). Exit codes: 0 stopped; 2 service.yaml cannot be
    used, or is for one machine only; 5 a daemon that delivers itself works with this ledger.
    """
    from xmode_transfer.service import cluster, worker_main

    opening.log_of_a_service(ctx)
    cluster.check_installed()
    return worker_main.run(ctx.obj.config_dir, places, heartbeat_file, metrics)
