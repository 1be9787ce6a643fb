"""Onboard a customer: validate the sign-up against all others, write its file and kit; later, once it has
set up its side, check its access and activate it."""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xmode_transfer import telemetry
from xmode_transfer.access.kit import customer_file
from xmode_transfer.access.sign_up import FROM_COMPANY, GENERATED, Mistake, SignUp, drafted
from xmode_transfer.config import Configuration, Customer, CustomerState
from xmode_transfer.config.configuration import Claim, cross_check
from xmode_transfer.config.files import CUSTOMERS, ConfigFile, claim_of, customer_names, read_directory
from xmode_transfer.model.errors import ConfigError, ExitCode
from xmode_transfer.model.findings import AccessReport, Finding, Severity
from xmode_transfer.telemetry import Event

if TYPE_CHECKING:
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


class CustomerFiles:
    """The customers/ directory of a configuration."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def claims(self) -> Sequence[Claim]:
        """What every customer claims: retired ones, and those whose files have mistakes, too."""
        files = ((name, self._file(name)) for name in customer_names(self._directory))
        return [claim_of(name, file.data) for name, file in files if file.data is not None]

    def illegible(self, text: str) -> str | None:
        """The name of a customer whose file is no YAML at all and has this text in it, whatever its capitals:
        nobody can tell what such a file claims."""
        for name in customer_names(self._directory):
            file = self._file(name)
            if file.data is None and text.casefold() in file.text.casefold():
                return name
        return None

    def add(self, customer: Customer) -> str:
        """Writes the customer's new file and reads the whole configuration anew. Answers the file's name.

        Raises ConfigError when there is such a file already, when it cannot be written, and when the
        configuration with it is not what was meant: then the file is gone again.
        """
        path = self._path(customer.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _partial(path, customer_file(customer)) as partial:
                os.link(partial, path)  # fails when the name is taken, unlike a rename
        except FileExistsError:
            raise ConfigError(
                f"there is a file {CUSTOMERS}/{customer.name}.yaml already; it is left as it is",
                hint="give the customer another name with --name",
            ) from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        configuration, _ = read_directory(self._directory)
        if configuration.customers.get(customer.name) != customer:
            problems = tuple(map(str, configuration.broken.get(customer.name, ())))
            path.unlink(missing_ok=True)
            raise ConfigError(
                f"{customer.name} does not fit into the configuration; its file was not kept",
                hint="somebody else may have changed the configuration meanwhile: try again",
                problems=problems,
            )
        return f"{CUSTOMERS}/{customer.name}.yaml"

    def set_state(self, customer: Customer, state: CustomerState) -> None:
        """Changes the one word behind ``state:`` in the customer's file; all else, comments too, stays.
        Raises ConfigError when the file does not allow that."""
        path = self._path(customer.name)
        file = self._file(customer.name)
        if file.data is None or file.data.get("state") != str(customer.state):
            raise ConfigError(
                f"{CUSTOMERS}/{customer.name}.yaml does not say `state: {customer.state}` (any more)",
                hint="somebody else may have changed it meanwhile: look at it, and try again",
            )
        line, column = file.position(("state",))
        before = path.read_bytes()
        lines = before.decode("utf-8-sig").splitlines(keepends=True)
        head, rest = lines[line - 1][: column - 1], lines[line - 1][column - 1 :]
        quote = rest[0] if rest[0] in "\"'" else ""
        written = f"{quote}{customer.state}{quote}"
        if not rest.startswith(written):
            raise ConfigError(
                f"the state of {customer.name} is written in a way that is not changed by itself",
                hint=f"write `state: {state}` into {CUSTOMERS}/{customer.name}.yaml by hand",
            )
        lines[line - 1] = f"{head}{quote}{state}{quote}{rest[len(written) :]}"
        mark = "\ufeff" if before.startswith(b"\xef\xbb\xbf") else ""
        mode = path.stat().st_mode & 0o7777
        try:
            with _partial(path, mark + "".join(lines), mode) as partial:
                partial.replace(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        configuration, _ = read_directory(self._directory)
        if configuration.customers.get(customer.name) != customer.model_copy(update={"state": state}):
            path.write_bytes(before)
            raise ConfigError(
                f"{CUSTOMERS}/{customer.name}.yaml was not as expected after the change; it was put back",
                hint=f"write `state: {state}` into it by hand",
                problems=tuple(map(str, configuration.broken.get(customer.name, ()))),
            )

    def _file(self, name: str) -> ConfigFile:
        return ConfigFile(self._directory, f"{CUSTOMERS}/{name}.yaml")

    def _path(self, name: str) -> Path:
        return self._directory / CUSTOMERS / f"{name}.yaml"


@contextlib.contextmanager
def _partial(path: Path, text: str, mode: int | None = None) -> Iterator[Path]:
    """A whole file beside ``path``, hidden from readers of the configuration; gone afterwards."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            partial.chmod(mode)
        yield partial
    finally:
        partial.unlink(missing_ok=True)
