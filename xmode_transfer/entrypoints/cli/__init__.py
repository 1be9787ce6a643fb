"""The command line. Each command is a module that is only imported when it is called: `--help` answers at
once."""

import gc
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import click

_COMMANDS = {
    "run": "Deliver what is due to a customer.",
    "daemon": "The service: deliver what is due, to everybody, for months.",
    "worker": "One of several machines that deliver what the daemon finds due.",
    "check-access": "What a customer's role lets us do, what is wrong, and how it is mended.",
    "onboard": "Take a customer in, with a kit for its side; turn it on when that is done.",
    "policy": "The policies that a customer needs, and what is wrong with those that it has.",
    "list": "What lies at a customer's destination, beside what the ledger says.",
    "verify": "Prove what was delivered; sign it, repair what is missing.",
    "cleanup": "Remove what a customer's retention policy lets go, and nothing else.",
    "status": "The last deliveries, what is due, and who must act.",
    "alerts": "What is wrong by cause, who was told, and whether a channel works.",
    "ledger": "Back up, restore, check and move our durable record.",
    "config": "Check the configuration, write its JSON Schemas.",
    "sandbox": "A local AWS with customers set up by the guide.",
    "demo": "See a whole delivery in two minutes, without an AWS account.",
}
_MODULES = {"check-access": "check_access", "list": "listing"}


@dataclass(frozen=True, slots=True)
class Shell:
    """What every command knows of the command line."""

    config_dir: Path


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 2 usage or configuration; 3 failed, tried again; 4 blocked, the customer "
    "must act; 5 already running; 1 a defect of ours; 130 interrupted.",
)
@click.option(
    "--config",
    "config_dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="XMODE_CONFIG",
    default=Path("config"),
    show_default=True,
    help="The configuration's directory (also: XMODE_CONFIG).",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    envvar="XMODE_LOG_LEVEL",
    default=None,
    help="How much goes to the log on stderr (also: XMODE_LOG_LEVEL). Default: info; error on a terminal.",
)
@click.version_option(package_name="xmode-transfer", prog_name="xmode-transfer")
@click.pass_context
def cli(ctx: click.Context, config_dir: Path, log_level: str | None) -> None:
    """Delivers data files into customers' own S3 buckets: once, whole, owned by the customer and proven.

    New here? `xmode-transfer demo` shows a real delivery on this machine; `xmode-transfer config check` reads
    your configuration; `xmode-transfer run --customer NAME --dry-run` says what would be sent, and why.
    """
    from xmode_transfer import telemetry
    from xmode_transfer.entrypoints.cli import streams, terminal

    on_terminal = sys.stderr.isatty()
    level = log_level or ("error" if on_terminal else "info")
    telemetry.configure(
        stream=terminal.bare(sys.stderr),
        json=not on_terminal,
        level=level.upper(),
        colours=streams.colours_wanted(),
    )
    ctx.obj = Shell(config_dir)


def main() -> None:
    """The console script."""
    _start_quickly()
    os.umask(os.umask(0o077) | 0o022)  # nobody else may write what we and our child processes make
    from xmode_transfer.entrypoints.cli import streams

    out = streams.prepare()
    try:
        # what is told after the command has ended keeps to the same colours
        with click.Context(cli, color=streams.colours_wanted()) as outer:
            code = _called(outer.color)
    except streams.OutputLost:
        code = 0  # ``exit_code`` knows why
    sys.exit(streams.exit_code(out, code))


def _called(color: bool | None) -> int:
    """Calls the command that the arguments name; answers the exit code."""
    from xmode_transfer.domain.errors import XmodeError
    from xmode_transfer.entrypoints.cli import failures, streams, terminal

    terminal.install()
    as_json = "--json" in sys.argv[1:]
    try:
        code = cli.main(standalone_mode=False, prog_name="xmode-transfer", color=color)
        return code if isinstance(code, int) else 0
    except streams.OutputLost:
        raise
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        failures.show_usage(error, as_json=as_json)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was done is recorded", err=True)
        return 130
    except XmodeError as error:
        failures.show(error, as_json=as_json)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last place where a defect can be told plainly
        failures.show_defect(error, as_json=as_json)
        return 1


def _start_quickly() -> None:
    """Most of a short command is importing (docs/performance.md), and hardly anything that is imported dies:
    with Python's own thresholds the garbage collector looks through it again and again, a seventh of the
    whole start. ``bootstrap`` says what holds for long work. Plugins for pydantic are not used here, so
    nothing need look for them."""
    gc.set_threshold(500_000, 20, 100)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
