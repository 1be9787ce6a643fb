"""Onboard a customer: validate the sign-up against all others, write its file and kit; later, once it has
set up its side, check its access and activate it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xmode_transfer import telemetry
from xmode_transfer.access.sign_up import FROM_COMPANY, GENERATED, Mistake, SignUp, drafted
from xmode_transfer.config import Configuration, Customer, CustomerState
from xmode_transfer.config.cross_check import Claim, cross_check
from xmode_transfer.model.errors import ConfigError, ExitCode
from xmode_transfer.model.findings import AccessReport, Finding, Severity
from xmode_transfer.telemetry import Event

if TYPE_CHECKING:
    from xmode_transfer.access.customer_files import CustomerFiles
    from xmode_transfer.access.kit import KitDirectory

_ACTING = frozenset({Severity.ERROR, Severity.CRITICAL})
_NEW = "(this sign-up)"
_OPTION_OF = {
    "external_id": "--external-id",
    "role_arn": "--account, --role-name",
    "destination": "--bucket, --prefix",
    "feeds": "--feed",
}


@dataclass(frozen=True, slots=True)
class Onboarded:
    """A customer that was created and has yet to set up its side."""

    customer: Customer
    file: str
    kit_files: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The result of activating a customer. ``against`` are the findings against it; ``overridden`` if it was
    activated nevertheless."""

    customer: Customer
    report: AccessReport
    against: tuple[Finding, ...]
    state: CustomerState
    overridden: bool = False

    @property
    def exit_code(self) -> int:
        on = self.state is CustomerState.ACTIVE and (self.overridden or not self.against)
        return ExitCode.DONE if on else self.report.exit_code or ExitCode.WILL_RETRY


def onboard(
    sign_up: SignUp,
    configuration: Configuration,
    registry: "CustomerFiles",
    place: "KitDirectory",
    token: Callable[[], str],
) -> Onboarded:
    """Creates a customer as pending, offline. Raises ConfigError with every mistake; then nothing is
    written."""
    vendor = configuration.service.vendor
    customer, mistakes = drafted(sign_up, partition=vendor.partition, token=token)
    if customer is None:
        # Mistakes in feeds are reported with the others, so that a person fixes all at once.
        raise _refused([*mistakes, *_unknown_feeds(sign_up, configuration)])
    claims = registry.claims()
    clashes = list(_clashes(customer, configuration, claims))
    clashes += _illegible(customer, registry)
    if clashes:
        raise _refused(clashes)
    kit_files = place.write(customer, vendor.principal_arn)
    try:
        file = registry.add(customer)
    except BaseException:
        place.remove()
        raise
    telemetry.log(
        Event.CUSTOMER_ONBOARDED,
        customer=customer.name,
        account=customer.account_id,
        bucket=customer.destination.bucket,
        prefix=customer.destination.prefix,
        feeds=list(customer.feeds),
    )
    return Onboarded(customer, file, kit_files, tuple(_notes(sign_up, customer, claims)))


def confirm(
    check: Callable[[Customer], AccessReport],
    configuration: Configuration,
    registry: "CustomerFiles",
    name: str,
    *,
    override: str | None = None,
) -> Confirmation:
    """Checks the customer's access with ``check`` and activates the customer unless a finding must be
    fixed first. ``override`` is a person's reason to activate it nevertheless; it is logged. Raises
    ConfigError for what is not configured, retired, or cannot be written."""
    customer = _confirmable(configuration, name)
    if override is not None and not override.strip():
        raise ConfigError(
            "an override requires a reason", hint='give --reason "..."; it is logged with your decision'
        )
    report = check(customer)
    against = tuple(finding for finding in report.findings if finding.severity in _ACTING)
    told = {"customer": name, "causes": [str(cause) for cause in report.causes]}
    checked = not report.interrupted and _was_probed(report)
    if report.interrupted or (against and (override is None or not checked)):
        telemetry.warn(Event.CUSTOMER_NOT_CONFIRMED, **told)
        return Confirmation(customer, report, against, customer.state)
    if customer.state is not CustomerState.ACTIVE:
        registry.set_state(customer, CustomerState.ACTIVE)
    if against:
        telemetry.warn(Event.CUSTOMER_CONFIRMED_ANYWAY, **told, reason=override)
    else:
        telemetry.log(Event.CUSTOMER_CONFIRMED, **told)
    return Confirmation(customer, report, against, CustomerState.ACTIVE, overridden=bool(against))


def _was_probed(report: AccessReport) -> bool:
    """False when our own identity was wrong: then nothing is known of the customer, and there is nothing to
    override."""
    return len(report.findings) > 1


def _confirmable(configuration: Configuration, name: str) -> Customer:
    customer = configuration.customer(name, "it is not activated")
    if customer.state is CustomerState.RETIRED:
        raise ConfigError(
            f"{name} is retired; it is not activated",
            hint=f"if it comes back, set `state: pending` in customers/{name}.yaml first",
        )
    return customer


def _refused(mistakes: Sequence[Mistake]) -> ConfigError:
    count = len(mistakes)
    return ConfigError(
        f"the sign-up is invalid: {count} {'mistakes' if count > 1 else 'mistake'}; nothing was written",
        hint="correct the options named above, then run the same command again",
        problems=tuple(map(str, mistakes)),
    )


def _clashes(customer: Customer, configuration: Configuration, claims: Sequence[Claim]) -> Iterator[Mistake]:
    """What others have, or had, already. The name may be one of theirs, so the comparison has its own."""
    if any(claim.customer == customer.name for claim in claims) or customer.name in configuration.broken:
        told = f"customer {customer.name} already exists; give another name with --name"
        yield Mistake("--name", told)
    for clash in cross_check(
        {_NEW: customer.model_copy(update={"name": _NEW})},
        configuration.feeds,
        configuration.service.vendor,
        broken_feeds=_broken_feeds(configuration, customer),
        broken_customers=claims,
    ):
        if clash.customer == _NEW:
            told = clash.message.replace(f"customers/{_NEW}.yaml", "this sign-up")
            yield Mistake(_OPTION_OF.get(str(clash.path[0]), "sign-up"), told)


def _unknown_feeds(sign_up: SignUp, configuration: Configuration) -> Iterator[Mistake]:
    known = ", ".join(sorted(configuration.feeds)) or "none is configured"
    for feed in dict.fromkeys(sign_up.feeds):
        if feed not in configuration.feeds:
            yield Mistake("--feed", f"there is no valid feed {feed} (feeds: {known})")


def _broken_feeds(configuration: Configuration, customer: Customer) -> Collection[str]:
    """Feeds that have a file, which is wrong: they are in no order, but they exist."""
    files = {problem.file for problem in configuration.problems}
    return {feed for feed in customer.feeds if f"feeds/{feed}.yaml" in files} - configuration.feeds.keys()


def _illegible(customer: Customer, registry: "CustomerFiles") -> Iterator[Mistake]:
    for option, text in (("--external-id", customer.external_id), ("--role-name", customer.role_arn)):
        other = registry.illegible(text)
        if other is not None:
            yield Mistake(
                option,
                f"{text} is in customers/{other}.yaml, which cannot be read; fix that file first, to see "
                "which customer uses it",
            )


def _notes(sign_up: SignUp, customer: Customer, claims: Sequence[Claim]) -> Iterator[str]:
    if sign_up.external_id == FROM_COMPANY:
        yield (
            "the external ID is the company's name, as the setup guide says; others can guess it. "
            f"AWS recommends an ID that the vendor generates: --external-id {GENERATED}"
        )
    if not customer.destination.prefix:
        yield "no prefix: the whole bucket is this customer's destination, and ours to write into"
    account = f"::{customer.account_id}:"
    others = sorted(claim.customer for claim in claims if claim.role_arn and account in claim.role_arn)
    if others:
        yield (
            f"account {customer.account_id} has roles for {', '.join(others)} too; check that it is one "
            "company's"
        )
