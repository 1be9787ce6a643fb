"""`xmode-transfer cleanup`: remove what has expired."""

import click

from xmode_transfer.entrypoints.cli import Shell


@click.command()
@click.option("--customer", "-c", "name", metavar="C", required=True, help="The customer.")
@click.option("--feed", "-f", metavar="F", help="Only this feed.")
@click.option("--dry-run", is_flag=True, help="Show what would go, with reasons; remove and record nothing.")
@click.option(
    "--confirm",
    is_flag=True,
    help="Go ahead though it is the customer's first cleanup, or more than retention.caps allow.",
)
@click.option(
    "--by", metavar="NAME", help="Who asks for it, for the record. Default: the user of the system."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; logs stay on stderr.")
@click.pass_obj
def command(
    shell: Shell,
    name: str,
    feed: str | None,
    dry_run: bool,
    confirm: bool,
    by: str | None,
    as_json: bool,
) -> int:
    """Remove what the retention policy of a customer lets go: objects that we delivered, that nobody has
    changed since, and no others.

    Without `retention` in the customer's file nothing ever goes. The newest complete delivery of a feed
    stays, as does what is held (`hold`) or being corrected. A manifest goes before its objects. The first
    cleanup of a customer, and one beyond `retention.caps`, removes nothing until you say --confirm.

    \b
    xmode-transfer cleanup --customer acme --dry-run
    xmode-transfer cleanup --customer acme --confirm --by alice
    xmode-transfer cleanup --customer acme --feed us-daily --json
    """
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files
    from xmode_transfer.entrypoints.cli import cleanup_report, person, progress, stopping
    from xmode_transfer.services.cleanup import cleanup

    if dry_run and confirm:
        raise click.UsageError("--dry-run removes nothing, so there is nothing to --confirm: use either")
    configuration = config_files.load(shell.config_dir)
    with (
        stopping.on_signals() as stop,
        progress.shown(as_json=as_json) as shown,
        bootstrap.workbench(configuration, shown, stop) as bench,
    ):
        outcome = cleanup(
            bench,
            configuration,
            name,
            by=person.asking(by),
            feed=feed,
            confirmed=confirm,
            dry_run=dry_run,
        )
    cleanup_report.show(outcome, dry_run=dry_run, as_json=as_json)
    return outcome.exit_code
