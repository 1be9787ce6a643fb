"""`xmode-transfer verify`: proof of delivery, and the receipts that carry it."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xmode_transfer.domain.errors import ConfigError
from xmode_transfer.entrypoints.cli import Shell

if TYPE_CHECKING:
    from xmode_transfer.adapters.receipt_files import ReceiptFile
    from xmode_transfer.domain.config import Configuration, Customer
    from xmode_transfer.domain.verification import Scope
    from xmode_transfer.entrypoints.cli.tally import Tally
    from xmode_transfer.entrypoints.cli.verify_report import Report
    from xmode_transfer.services.repair import Repaired
    from xmode_transfer.services.verify import Verification
    from xmode_transfer.services.workbench import Workbench

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--customer", "-c", "name", metavar="C", help="The customer.")
@click.option("--feed", "-f", metavar="F", help="Only this feed.")
@click.option("--period", "-p", metavar="P", help="Only this period, as 2026-11-22 or 2026-W47.")
@click.option("--since", metavar="P", help="From this period on.")
@click.option("--until", metavar="P", help="Up to and including this period.")
@click.option("--deep", is_flag=True, help="Read every object back too, within the bandwidth limits.")
@click.option("--sample", metavar="N", type=click.IntRange(0), help="Look at so many ACLs. Default: 1000.")
@click.option("--all", "every_acl", is_flag=True, help="Look at the ACL of every key.")
@click.option("--repair", is_flag=True, help="Deliver again what is missing, if the source has it unchanged.")
@click.option("--by", metavar="NAME", help="Who asks for the repair. Default: the user of the system.")
@click.option("--receipt", metavar="FILE", type=_FILE, help="Write a signed receipt; or check one.")
@click.option(
    "--public-key",
    "public_keys",
    metavar="FILE",
    type=_FILE,
    multiple=True,
    help="Our public key, to check with.",
)
@click.option("--new-key", metavar="FILE", type=_FILE, help="Make a key that signs receipts, and FILE.pub.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; logs stay on stderr.")
@click.pass_obj
def command(
    shell: Shell,
    name: str | None,
    feed: str | None,
    period: str | None,
    since: str | None,
    until: str | None,
    deep: bool,
    sample: int | None,
    every_acl: bool,
    repair: bool,
    by: str | None,
    receipt: Path | None,
    public_keys: tuple[Path, ...],
    new_key: Path | None,
    as_json: bool,
) -> int:
    """Prove what was delivered: every key is looked at (size, S3's own checksum, the owner's full control)
    and compared with the ledger, every manifest read. What was deleted, altered or given other rights is
    named, with who must act, and nothing else.

    --deep reads the bytes back too. --repair delivers again what somebody has deleted; it overwrites nothing.
    --receipt writes what was found into a file that is signed; without --customer it checks such a file,
    offline, with nothing but our public key (docs/verify.md).

    \b
    xmode-transfer verify --customer acme
    xmode-transfer verify --customer acme --feed us-daily --period 2026-11-22 --deep --all
    xmode-transfer verify --customer acme --since 2026-11-01 --receipt acme-november.receipt
    xmode-transfer verify --customer acme --repair --by alice
    xmode-transfer verify --receipt acme-november.receipt --public-key xmode-receipts.pem.pub
    xmode-transfer verify --new-key /etc/xmode-transfer/receipts.pem
    """
    from xmode_transfer.domain.periods import check_range
    from xmode_transfer.entrypoints.cli import receipts

    if new_key is not None:
        return receipts.make_key(new_key, as_json=as_json)
    if name is None:
        if receipt is None:
            raise click.UsageError("name a --customer to verify, or a --receipt to check")
        return receipts.check(shell, receipt, public_keys, as_json=as_json)
    if public_keys:
        raise click.UsageError("--public-key belongs to the check of a --receipt, which names no --customer")
    if period and (since or until):
        raise click.UsageError("--period names one; --since and --until name a range: use either")
    try:
        check_range(since, until)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if every_acl and sample is not None:
        raise click.UsageError("--all looks at every ACL, --sample at some: use either")
    from xmode_transfer.domain.verification import Scope

    scope = Scope(feed, period, since, until)
    acl_sample = None if every_acl else 1000 if sample is None else sample
    return _verify(
        shell,
        name,
        scope,
        deep=deep,
        acl_sample=acl_sample,
        repair=repair,
        by=by,
        receipt=receipt,
        as_json=as_json,
    )


def _verify(
    shell: Shell,
    name: str,
    scope: "Scope",
    *,
    deep: bool,
    acl_sample: int | None,
    repair: bool,
    by: str | None,
    receipt: Path | None,
    as_json: bool,
) -> int:
    from xmode_transfer import bootstrap
    from xmode_transfer.adapters import config_files
    from xmode_transfer.entrypoints.cli import person, progress, stopping
    from xmode_transfer.entrypoints.cli.verify_report import Report
    from xmode_transfer.services.due import check_delivered, check_scope
    from xmode_transfer.services.run import active_customer
    from xmode_transfer.services.verify import Verification

    configuration = config_files.load(shell.config_dir)
    customer = active_customer(configuration, name)
    with ExitStack() as stack:
        file = stack.enter_context(_receipt_file(configuration, receipt)) if receipt is not None else None
        stop = stack.enter_context(stopping.on_signals())
        shown = stack.enter_context(progress.shown(as_json=as_json))
        bench = stack.enter_context(bootstrap.workbench(configuration, shown, stop))
        check_scope(
            bench.ledger, configuration, customer, scope.feed, [scope.period, scope.since, scope.until]
        )
        if scope.period is not None:
            check_delivered(bench.ledger, customer, scope.feed, scope.period)

        def verification() -> Verification:
            reader = bootstrap.reader(bench, customer)
            return Verification(bench, customer, scope, reader, deep=deep, acl_sample=acl_sample)

        report = Report(sys.stdout, customer, scope, as_json=as_json)
        if repair:
            report.repaired = _repair(bench, configuration, customer, verification(), person.asking(by))
        return _run(verification(), report, file, shown)


def _run(verification: "Verification", report: "Report", file: "ReceiptFile | None", shown: "Tally") -> int:
    """Verifies, telling and writing down what is found as it comes."""
    from xmode_transfer.domain import signed_receipt
    from xmode_transfer.domain.errors import XmodeError
    from xmode_transfer.services.due import why_nothing
    from xmode_transfer.services.listing import not_attested
    from xmode_transfer.services.verify import Verified

    bench, verified = verification.bench, verification.verified
    started = bench.clock.monotonic()
    scope = verification.scope
    report.not_attested = {
        place: why
        for place, why in not_attested(bench, verification.customer.name, scope.feed).items()
        if scope.covers(*place[:2])
    }
    signed = Verified()
    if file is not None:
        head = signed_receipt.head(
            verification.customer,
            bench.vendor.principal_arn,
            verification.scope,
            deep=verification.deep,
            acl_sample=verification.acl_sample,
            checked_at=bench.clock.now(),
        )
        file.add(head)
    try:
        for checked, finding in verification:
            if finding is not None:
                with shown.hidden():
                    report.finding(finding)
            known = checked.known
            if file is not None and (known.feed, known.period, known.revision) not in report.not_attested:
                file.add(signed_receipt.entry(checked, finding))
                signed.count(checked)
    except XmodeError as error:
        with shown.hidden():
            return report.broken_off(verified, error)
    if file is not None and (signed.keys or not verified.keys):
        file.sign(signed.summary(bench.clock.now()))
    elif file is not None:
        report.nothing_signed = True
    if not verified.keys:
        report.why_nothing = why_nothing(bench.ledger, verification.customer, verification.scope)
    with shown.hidden():
        return report.done(verified, bench.clock.monotonic() - started, file)


def _repair(
    bench: "Workbench", configuration: "Configuration", customer: "Customer", first: "Verification", by: str
) -> "Repaired":
    """What is missing, by a verification of its own, is delivered again; the next one proves it."""
    from xmode_transfer.services.repair import ToRepair, repair

    found = ToRepair()
    for _, finding in first:
        if finding is not None:
            found.add(finding)
    return repair(bench, configuration, customer, found, by=by)


def _receipt_file(configuration: "Configuration", path: Path) -> "ReceiptFile":
    from xmode_transfer.adapters.receipt_files import ReceiptFile
    from xmode_transfer.adapters.signing import configured_signer

    signer = configured_signer(configuration.service.receipts)
    if signer is None:
        raise ConfigError(
            "receipts.key is not set in service.yaml: there is nothing to sign with",
            hint="make a key with `xmode-transfer verify --new-key FILE`; it says what to write",
        )
    return ReceiptFile(path, signer)
