"""A sign-up, and the customer made from it."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from xmode_transfer.config.base import SLUG_PATTERN
from xmode_transfer.config.customer import Customer, CustomerState
from xmode_transfer.config.names import check_account

GENERATED, FROM_COMPANY = "generated", "company"
"""How an external ID is chosen: made by us, or the setup guide's form."""

# What a company's name ends with for the register's sake; it makes no good name for a file.
_LEGAL_FORMS = re.compile(
    "ab|ag|aps|as|bv|co|company|corp|corporation|gmbh|inc|incorporated|kg|kk|limited|llc|llp|lp|ltd|nv|oy|oyj|"
    "plc|pte|pty|sa|sarl|sas|se|spa|srl"
)
_ROLE_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")  # IAM: names of roles
_SLUG_MAX = 40  # leaves room in a line and in a role session's name


class Mistake(NamedTuple):
    """What is wrong with the sign-up: at which option, and in one sentence."""

    option: str
    message: str

    def __str__(self) -> str:
        return f"{self.option}: {self.message}"


@dataclass(frozen=True, slots=True)
class SignUp:
    """As it came in, unchecked. ``name`` is derived from the company when it is left out, ``region`` from the
    KMS key. ``external_id`` is GENERATED, FROM_COMPANY, or the ID itself."""

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


def slug_of(company: str) -> str:
    """A short name for files and commands: ``Acme Corp`` -> ``acme``. Empty when nothing is left that a name
    may have."""
    folded = unicodedata.normalize("NFKD", company.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", re.sub(r"['’.]", "", folded.lower()))
    while len(words) > 1 and _LEGAL_FORMS.fullmatch(words[-1]):
        words.pop()
    slug = "-".join(words)[:_SLUG_MAX].strip("-")
    return slug if re.fullmatch(SLUG_PATTERN, slug) else ""


def guide_external_id(company: str) -> str:
    """The setup guide's form: the company's name without spaces and special characters, ``= , . @ : / - _``
    excepted."""
    return re.sub(r"[^A-Za-z0-9=,.@:/_-]", "", company)


def drafted(
    sign_up: SignUp, *, partition: str, token: Callable[[], str]
) -> tuple[Customer | None, tuple[Mistake, ...]]:
    """The customer, pending, or every mistake of the sign-up that can be told without looking at others.

    ``partition`` is our own user's: no other can be served. ``token`` answers fresh random text of the
    external IDs' alphabet, hard to guess.
    """
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
    own = tuple(_mistakes(sign_up, name))
    told = {mistake.option for mistake in own}
    try:
        customer = Customer.model_validate(document)
    except ValidationError as refused:
        errors = refused.errors(include_url=False)
    else:
        return (None, own) if own else (customer, ())
    if sign_up.name is None:
        told.add("--name")  # it is made of the company's, which is told
    if "--account" in told:
        told.add("--role-name")  # both are in the role's ARN
    of_model = [
        Mistake(
            _OPTIONS.get(".".join(map(str, error["loc"])), "sign-up"),
            error["msg"].removeprefix("Value error, "),
        )
        for error in errors
    ]
    found = [*own, *(mistake for mistake in of_model if mistake.option not in told)]
    return None, tuple(sorted(found, key=lambda mistake: _ORDER.index(mistake.option)))


_OPTIONS: Mapping[str, str] = {
    "name": "--name",
    "company": "--company",
    "external_id": "--external-id",
    "role_arn": "--role-name",
    "destination": "--region",
    "destination.bucket": "--bucket",
    "destination.prefix": "--prefix",
    "destination.region": "--region",
    "destination.kms_key_arn": "--kms-key",
    "feeds": "--feed",
}
_ORDER = (
    *("--company", "--name", "--external-id", "--account", "--role-name"),
    *("--bucket", "--prefix", "--region", "--kms-key", "--feed", "sign-up"),
)


def _mistakes(sign_up: SignUp, name: str) -> Iterator[Mistake]:
    """What the customer's model cannot tell, because it does not see what was signed up with."""
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
