"""The command line. A command's module is imported only when it is called: starting is fast."""

import gc
import importlib
import os
import sys
from pathlib import Path

import click

from xmode_transfer.cli.opening import DIRECTORY, Shell

_COMMANDS = {
    "run": "Deliver everything that is due to a customer.",
    "daemon": "Run the service: deliver what is due to every customer.",
    "worker": "Run a worker: deliver what a daemon has queued.",
    "check-access": "Test a customer's role and report what to fix.",
    "onboard": "Onboard a customer, and activate it once access is verified.",
    "policy": "Print or lint a customer's IAM policies.",
    "list": "List a customer's destination and compare it with the ledger.",
    "verify": "Verify deliveries, sign a receipt, or repair missing objects.",
    "release": "Release a quarantined period, or reject it.",
    "cleanup": "Delete what has expired under a customer's retention policy.",
    "recall": "Take back what was delivered, from all customers that hold it.",
    "table": "Begin, end or list Delta tables of customers' feeds.",
    "status": "Show health, recent deliveries and pending work.",
    "alerts": "List alerts by cause, or test the channels.",
    "ledger": "Back up, restore, check or copy the ledger.",
    "config": "Check the configuration, or write its JSON Schemas.",
    "sandbox": "Start a local AWS with customers that follow the setup guide.",
    "demo": "Run a complete delivery on this machine, without AWS.",
}
_MODULES = {
    "check-access": ("access", "check_access_command"),
    "onboard": ("access", "onboard_command"),
    "list": ("listing", "command"),
    "daemon": ("service", "daemon"),
    "worker": ("service", "worker"),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _MODULES.get(cmd_name, (cmd_name, "command"))
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 2 usage or configuration; 3 failed, will be retried; 4 blocked, the customer "
    "must act; 5 already running; 1 a bug in xmode-transfer; 130 interrupted.",
)
@click.option(
    "--config",
    "config_dir",
    type=DIRECTORY,
    envvar="XMODE_CONFIG",
    default=Path("config"),
    show_default=True,
    help="Configuration directory (also: XMODE_CONFIG).",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    envvar="XMODE_LOG_LEVEL",
    default=None,
    help="Level of the log on stderr (also: XMODE_LOG_LEVEL). Default: info; error on a terminal.",
)
@click.version_option(package_name="xmode-transfer", prog_name="xmode-transfer")
@click.pass_context
def cli(ctx: click.Context, config_dir: Path, log_level: str | None) -> None:
    """Deliver data files to customers' own S3 buckets: once, complete, owned by the customer and verified.

    New here? Run `xmode-transfer demo` to see a real delivery on this machine.
    """
    from xmode_transfer import telemetry
    from xmode_transfer.cli import streams

    is_service = ctx.invoked_subcommand in ("daemon", "worker")
    level = log_level or ("info" if is_service or not sys.stderr.isatty() else "error")
    telemetry.configure(streams.bare(sys.stderr), level=level.upper(), colours=streams.colours_wanted())
    ctx.obj = Shell(config_dir)


def main() -> None:
    """Run the console script."""
    _start_quickly()
    os.umask(os.umask(0o077) | 0o022)  # only the user may write what this process and its children create
    from xmode_transfer.cli import streams

    out = streams.prepare()
    try:
        # errors printed after the command use the same colours
        with click.Context(cli, color=streams.colours_wanted()) as outer:
            code = _run(outer.color)
    except streams.OutputLost:
        code = 0  # ``exit_code`` has the cause
    sys.exit(streams.exit_code(out, code))


def _run(color: bool | None) -> int:
    from xmode_transfer.cli import streams, terminal
    from xmode_transfer.model.errors import XmodeError

    streams.install_screens()
    as_json = "--json" in sys.argv[1:]
    try:
        code = cli.main(standalone_mode=False, prog_name="xmode-transfer", color=color)
        return code if isinstance(code, int) else 0
    except streams.OutputLost:
        raise
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        terminal.show_usage(error, as_json=as_json)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; completed work is recorded", err=True)
        return 130
    except XmodeError as error:
        terminal.show_error(error, as_json=as_json)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last place where a defect can be reported
        terminal.show_defect(error, as_json=as_json)
        return 1


def _start_quickly() -> None:
    """Save a seventh of the start, which is mostly importing (docs/performance.md): the garbage collector
    need not scan what never dies (``service.assembly`` resets it), nor pydantic search for plugins."""
    gc.set_threshold(500_000, 20, 100)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
