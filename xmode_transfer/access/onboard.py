"""Validate a customer's sign-up, write its file and kit; later check its access and activate it."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from xmode_transfer import telemetry
from xmode_transfer.access.ownership import unproven
from xmode_transfer.config import Configuration, Customer, CustomerState, Ownership
from xmode_transfer.config.base import SLUG_PATTERN
from xmode_transfer.config.configuration import Claim, cross_check
from xmode_transfer.config.names import check_account
from xmode_transfer.model.errors import ConfigError, ExitCode, OwnershipUnproven
from xmode_transfer.model.findings import AccessReport, Finding, Proof, Severity
from xmode_transfer.telemetry import Event

if TYPE_CHECKING:
    from xmode_transfer.access.kit import CustomerFiles, KitDirectory

GENERATED, FROM_COMPANY = "generated", "company"  # external IDs: random, or in the setup guide's form

# They end a company's name, and make no good name for a file.
_LEGAL_FORMS = re.compile(
    "ab|ag|aps|as|bv|co|company|corp|corporation|gmbh|inc|incorporated|kg|kk|limited|llc|llp|lp|ltd|nv|oy|oyj|"
    "plc|pte|pty|sa|sarl|sas|se|spa|srl"
)
_ROLE_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")  # IAM: names of roles
_SLUG_MAX = 40  # leaves room in a line and in a role session's name
_NEW = "(this sign-up)"
# The options in their order, with the fields of the customer's model that they give.
_FIELDS = {
    "--company": ["company"],
    "--name": ["name"],
    "--external-id": ["external_id"],
    "--account": [],
    "--role-name": ["role_arn"],
    "--bucket": ["destination.bucket"],
    "--prefix": ["destination.prefix"],
    "--region": ["destination.region", "destination"],
    "--kms-key": ["destination.kms_key_arn"],
    "--feed": ["feeds"],
    "sign-up": [],
}
_OPTIONS = {field: option for option, fields in _FIELDS.items() for field in fields}


class Mistake(NamedTuple):
    option: str
    message: str

    def __str__(self) -> str:
        return f"{self.option}: {self.message}"


@dataclass(frozen=True, slots=True)
class SignUp:
    """Unchecked. None: ``name`` is derived from the company, ``region`` from the KMS key. ``external_id`` is
    GENERATED, FROM_COMPANY, or the ID itself."""

    company: str
    account: str
    bucket: str
    feeds: tuple[str, ...]
    name: str | None = None
    prefix: str = "xmode/"
    region: str | None = None
    role_name: str = "XMode"
    kms_key_arn: str | None = None
    external_id: str = GENERATED


@dataclass(frozen=True, slots=True)
class Onboarded:
    customer: Customer
    file: str
    kit_files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """``against`` are the findings against activation, ``proof`` is that of the bucket's ownership;
    ``overridden`` if it was activated nevertheless."""

    customer: Customer
    report: AccessReport
    against: tuple[Finding, ...]
    state: CustomerState
    overridden: bool = False
    proof: Proof = Proof.NONE

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
    """Create a customer as pending. Raises ConfigError with every mistake; then nothing is written."""
    vendor = configuration.service.vendor
    customer, mistakes = drafted(sign_up, partition=vendor.partition, token=token)
    if customer is None:
        # Mistakes in feeds are reported with the others, so that a person fixes all at once.
        known = ", ".join(sorted(configuration.feeds)) or "none is configured"
        mistakes += [
            Mistake("--feed", f"there is no valid feed {feed} (feeds: {known})")
            for feed in dict.fromkeys(sign_up.feeds)
            if feed not in configuration.feeds
        ]
        raise _refused(mistakes)
    claims = registry.claims()
    if clashes := list(_clashes(customer, configuration, registry, claims)):
        raise _refused(clashes)
    kit_files = place.write(customer, vendor.principal_arn, configuration.feeds)
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
    prove: Callable[[Customer], Proof],
    override: str | None = None,
) -> Confirmation:
    """Check the customer's access and activate it unless a finding must be fixed first, or it has to prove
    that the bucket is its own. ``override`` is a person's reason to activate it nevertheless; it is logged.
    Raises ConfigError, OwnershipUnproven and what ``prove`` raises."""
    customer = onboarded(configuration, name)
    if override is not None and not override.strip():
        raise ConfigError(
            "an override requires a reason", hint='give --reason "..."; it is logged with your decision'
        )
    proof = prove(customer)
    doubtful = proof is not Proof.PROVEN and must_prove(configuration, customer)
    if doubtful and override is None:
        telemetry.warn(Event.CUSTOMER_NOT_CONFIRMED, customer=name, causes=[OwnershipUnproven.code])
        raise unproven(customer, proof)
    report = check(customer)
    acting = (Severity.ERROR, Severity.CRITICAL)
    against = tuple(finding for finding in report.findings if finding.severity in acting)
    causes = [OwnershipUnproven.code] * doubtful + [str(cause) for cause in report.causes]
    fields = {"customer": name, "causes": causes}
    # If our own identity was wrong, that is the one finding, and there is nothing to override.
    probed = not report.interrupted and len(report.findings) > 1
    if report.interrupted or (against and (override is None or not probed)):
        telemetry.warn(Event.CUSTOMER_NOT_CONFIRMED, **fields)
        return Confirmation(customer, report, against, customer.state, proof=proof)
    if customer.state is not CustomerState.ACTIVE:
        registry.set_state(customer, CustomerState.ACTIVE)
    overridden = doubtful or bool(against)
    if overridden:
        telemetry.warn(Event.CUSTOMER_CONFIRMED_ANYWAY, **fields, reason=override)
    else:
        telemetry.log(Event.CUSTOMER_CONFIRMED, **fields)
    return Confirmation(customer, report, against, CustomerState.ACTIVE, overridden, proof)


def must_prove(configuration: Configuration, customer: Customer) -> bool:
    """Return whether the customer is activated only with a proof that the bucket is its own. An active one
    is not asked."""
    mode = configuration.service.onboarding.ownership
    if customer.state is CustomerState.ACTIVE or mode is Ownership.OFF:
        return False
    guessable = guide_external_id(customer.company).casefold() == customer.external_id.casefold()
    return guessable or mode is Ownership.REQUIRED


def onboarded(configuration: Configuration, name: str) -> Customer:
    """Return a pending or active customer. Raises ConfigError."""
    customer = configuration.customer(name, "it is not activated")
    if customer.state is CustomerState.RETIRED:
        raise ConfigError(
            f"{name} is retired; it is not activated",
            hint=f"if it comes back, set `state: pending` in customers/{name}.yaml first",
        )
    return customer


def slug_of(company: str) -> str:
    """``Acme Corp`` -> ``acme``. Empty when no character of the company's name may be in it."""
    folded = unicodedata.normalize("NFKD", company.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", re.sub(r"['’.]", "", folded.lower()))
    while len(words) > 1 and _LEGAL_FORMS.fullmatch(words[-1]):
        words.pop()
    slug = "-".join(words)[:_SLUG_MAX].strip("-")
    return slug if re.fullmatch(SLUG_PATTERN, slug) else ""


def guide_external_id(company: str) -> str:
    """The setup guide's form: without spaces and special characters, except ``= , . @ : / - _``."""
    return re.sub(r"[^A-Za-z0-9=,.@:/_-]", "", company)


def drafted(
    sign_up: SignUp, *, partition: str, token: Callable[[], str]
) -> tuple[Customer | None, list[Mistake]]:
    """Return the customer or every mistake of the sign-up itself. ``partition`` is our own user's; ``token``
    returns new random text of the external IDs' alphabet, hard to guess."""
    name = sign_up.name if sign_up.name is not None else slug_of(sign_up.company)
    external_id = sign_up.external_id
    if external_id == GENERATED:
        external_id = f"{name}-{token()}"
    elif external_id == FROM_COMPANY:
        external_id = guide_external_id(sign_up.company)
    region = sign_up.region
    if region is None and sign_up.kms_key_arn is not None and sign_up.kms_key_arn.count(":") > 3:
        region = sign_up.kms_key_arn.split(":")[3]  # S3 takes only keys of the bucket's own region
    document: dict[str, Any] = {
        "name": name,
        "company": sign_up.company.strip(),
        "external_id": external_id,
        "role_arn": f"arn:{partition}:iam::{sign_up.account}:role/{sign_up.role_name}",
        "destination": {
            "bucket": sign_up.bucket,
            "prefix": sign_up.prefix,
            "region": region,
            "kms_key_arn": sign_up.kms_key_arn,
        },
        "feeds": sign_up.feeds,
        "state": CustomerState.PENDING,
    }
    mistakes = list(_mistakes(sign_up, name))
    reported = {mistake.option for mistake in mistakes}
    try:
        customer = Customer.model_validate(document)
    except ValidationError as refused:
        errors = refused.errors(include_url=False)
    else:
        return (None, mistakes) if mistakes else (customer, [])
    if sign_up.name is None:
        reported.add("--name")  # it is made of the company's, which is reported
    if "--account" in reported:
        reported.add("--role-name")  # both are in the role's ARN
    for error in errors:
        option = _OPTIONS.get(".".join(map(str, error["loc"])), "sign-up")
        if option not in reported:
            mistakes.append(Mistake(option, error["msg"].removeprefix("Value error, ")))
    return None, sorted(mistakes, key=lambda mistake: list(_FIELDS).index(mistake.option))


def _mistakes(sign_up: SignUp, name: str) -> Iterator[Mistake]:
    """Yield the mistakes that the customer's model cannot see."""
    if sign_up.company.strip() and not name and sign_up.name is None:
        yield Mistake("--name", "the company name gives no short name; give one of small letters and digits")
    if sign_up.external_id == FROM_COMPANY and len(guide_external_id(sign_up.company)) < 2:
        yield Mistake(
            "--external-id",
            "the company's name has fewer than two characters that an external ID may have; leave the option "
            "out to generate one",
        )
    try:
        check_account(sign_up.account)
    except ValueError as error:
        yield Mistake("--account", str(error))
    if not _ROLE_NAME.fullmatch(sign_up.role_name):
        yield Mistake(
            "--role-name",
            f"{sign_up.role_name!r} is not a valid role name: letters, digits and _+=,.@-, 64 at most",
        )
    if not sign_up.feeds:
        yield Mistake("--feed", "select at least one feed")


def _refused(mistakes: Sequence[Mistake]) -> ConfigError:
    count = len(mistakes)
    return ConfigError(
        f"the sign-up is invalid: {count} {'mistakes' if count > 1 else 'mistake'}; nothing was written",
        hint="correct the options named above, then run the same command again",
        problems=tuple(map(str, mistakes)),
    )


def _clashes(
    customer: Customer, configuration: Configuration, registry: "CustomerFiles", claims: Sequence[Claim]
) -> Iterator[Mistake]:
    """Yield what others claim, or claimed, already. Compare under another name: this one may be taken."""
    if any(claim.customer == customer.name for claim in claims) or customer.name in configuration.broken:
        message = f"customer {customer.name} already exists; give another name with --name"
        yield Mistake("--name", message)
    # Feeds with mistakes in their files exist too.
    files = {problem.file for problem in configuration.problems}
    unknown_feeds = set(customer.feeds) - configuration.feeds.keys()
    options = {"role_arn": "--account, --role-name", "destination": "--bucket, --prefix"}
    for clash in cross_check(
        {_NEW: customer.model_copy(update={"name": _NEW})},
        configuration.feeds,
        configuration.service.vendor,
        broken_feeds={feed for feed in unknown_feeds if f"feeds/{feed}.yaml" in files},
        broken_customers=claims,
    ):
        if clash.customer == _NEW:
            field = str(clash.path[0])
            message = clash.message.replace(f"customers/{_NEW}.yaml", "this sign-up")
            yield Mistake(options.get(field) or _OPTIONS.get(field, "sign-up"), message)
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
