"""`xmode-transfer run`: deliver what is due."""

import click

from xmode_transfer.domain.errors import ExitCode
from xmode_transfer.entrypoints.cli import Shell


@click.command()
@click.option("--customer", "-c", "name", metavar="C", help="The customer to deliver to.")
@click.option(
    "--all", "everyone", is_flag=True, help="Every active customer; one's trouble does not stop the rest."
)
@click.option("--feed", "-f", metavar="F", help="Only this feed.")
@click.option(
    "--period", "-p", metavar="P", help="Only this period, as 2026-11-22, 2026-11-22T05, 2026-W47 or 2026-11."
)
@click.option("--since", metavar="P", help="From this period on, also outside the look-back window.")
@click.option("--until", metavar="P", help="Up to and including this period.")
@click.option("--dry-run", is_flag=True, help="Show the plan with its reasons; write nothing, call nobody.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; logs stay on stderr.")
@click.pass_obj
def command(
    shell: Shell,
    name: str | None,
    everyone: bool,
    feed: str | None,
    period: str | None,
    since: str | None,
    until: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Deliver what is due: every period that is complete at the source and not delivered yet, oldest first.

    A second run uploads nothing. A run that was stopped, or died, goes on where it was. Named periods are
    looked into even when they were delivered before; what changed since becomes a new revision beside the old
    one.

    \b
    xmode-transfer run --customer acme
    xmode-transfer run --customer acme --feed us-daily --period 2026-11-22 --dry-run
    xmode-transfer run --all --json
    """
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files
    from xmode_transfer.domain.periods import check_range
    from xmode_transfer.domain.verification import Scope
    from xmode_transfer.entrypoints.cli import progress, report, stopping
    from xmode_transfer.services.due import worst
    from xmode_transfer.services.run import run_customer, run_customers

    if everyone == (name is not None):
        raise click.UsageError("name one customer with --customer, or say --all")
    if period and (since or until):
        raise click.UsageError("--period names one; --since and --until name a range: use either")
    try:
        check_range(since, until)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    scope = Scope(feed, period, since, until)
    configuration = config_files.load(shell.config_dir)
    names = [name] if name else [n for n, c in configuration.customers.items() if c.state == "active"]
    with (
        stopping.on_signals() as stop,
        progress.shown(as_json=as_json) as shown,
        bootstrap.workbench(configuration, shown, stop) as bench,
    ):
        if dry_run:
            with shown.hidden():
                if not names and not as_json:
                    report.show_nobody(configuration)
                return report.show_preview(bench, configuration, names, scope, as_json=as_json)
        if name:
            results: list[report.Result] = [run_customer(bench, configuration, name, scope)]
        else:
            results = list(run_customers(bench, configuration, names, scope))
    if everyone:
        names += configuration.broken
        why = "nothing is delivered to it"
        results += [configuration.why_broken(broken, why) for broken in configuration.broken]
    report.show(zip(names, results, strict=True), as_json=as_json, everyone=everyone)
    if not names and not as_json:
        report.show_nobody(configuration)
    return worst(
        [*(result.exit_code for result in results), *([ExitCode.INTERRUPTED] if stop.is_set() else [])]
    )
