"""`xmode-transfer list`: what lies at a destination, beside what the ledger says."""

import json
from collections import Counter

import click

from xmode_transfer.domain.errors import ExitCode
from xmode_transfer.domain.manifest import timestamp
from xmode_transfer.entrypoints.cli import Shell, words
from xmode_transfer.services.listing import ListedKey, Standing

_COLOURS = {
    Standing.OURS: "green",
    Standing.MANIFEST: "cyan",
    Standing.CHANGED: "red",
    Standing.MISSING: "red",
    Standing.FOREIGN: "bright_black",
}


@click.command(name="list")
@click.option("--customer", "-c", "name", metavar="C", required=True, help="The customer.")
@click.option("--feed", "-f", metavar="F", help="Only below this feed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def command(shell: Shell, name: str, feed: str | None, as_json: bool) -> int:
    """List what lies at a customer's destination, beside what the ledger says should.

    Each key is ours (as delivered), a manifest of ours, changed since, missing, or foreign: below our prefix
    and not put by us. Only lists and reads; foreign objects are nobody's business but the customer's.
    """
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files
    from xmode_transfer.entrypoints.cli.tally import Tally
    from xmode_transfer.services.listing import list_destination
    from xmode_transfer.services.run import Selection, active_customer, feeds_of

    configuration = config_files.load(shell.config_dir)
    customer = active_customer(configuration, name)
    feeds_of(configuration, customer, Selection(feed))
    counts: Counter[Standing] = Counter()
    total = 0
    place = f"s3://{customer.destination.bucket}/{customer.destination.prefix}"
    with bootstrap.workbench(configuration, Tally()) as bench:
        if as_json:
            click.echo(
                f'{{"customer":{json.dumps(name)},"destination":{json.dumps(place)},"objects":[', nl=False
            )
        for number, item in enumerate(list_destination(bench, customer, feed)):
            counts[item.standing] += 1
            total += item.there.size if item.there else 0
            if as_json:
                click.echo(
                    ("," if number else "") + json.dumps(_document(item), ensure_ascii=False), nl=False
                )
            else:
                _tell(item)
    if as_json:
        summary = {str(standing): counts[standing] for standing in Standing}
        click.echo(f'],"counts":{json.dumps(summary)},"bytes":{total}}}')
    else:
        told = ", ".join(f"{counts[standing]:,} {standing}" for standing in Standing if counts[standing])
        click.echo(f"{place}: {told or 'nothing'}; {words.size(total)}")
    return ExitCode.DONE


def _document(item: ListedKey) -> dict[str, object]:
    there, known = item.there, item.known
    return {
        "key": item.key,
        "standing": str(item.standing),
        "size": there.size if there else None,
        "modified_at": timestamp(there.modified_at) if there else None,
        "feed": known.feed if known else None,
        "period": known.period if known else None,
        "revision": known.revision if known else None,
        "delivered_at": timestamp(known.delivered_at) if known else None,
    }


def _tell(item: ListedKey) -> None:
    size = words.size(item.there.size) if item.there else "gone"
    at = item.there.modified_at if item.there else item.known.delivered_at if item.known else None
    standing = click.style(f"{item.standing:<8}", fg=_COLOURS[item.standing])
    click.echo(f"{standing} {size:>10}  {at:%Y-%m-%d %H:%M}  {item.key}")
