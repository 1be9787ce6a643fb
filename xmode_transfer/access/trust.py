"""Trust, tried in the negative: a role must let us in with its external ID, and with no other.

AWS advises vendors to try both, and not to keep a role that lets them in without (IAM User Guide, "Access to
AWS accounts owned by third parties").
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from xmode_transfer.access.catalogue import (
    NO_ID,
    OTHER_CASE,
    RANDOM_ID,
    SIMILAR_ID,
    finding,
    wrongly_accepted,
)
from xmode_transfer.aws.denials import denial_in, responsible_of
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.aws.probing import ProbedObject, Prober, ReservedPrefix
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import (
    AccessDenied,
    BucketMissing,
    ClockSkew,
    KmsDenied,
    PartsRefused,
    Responsible,
    RoleRefused,
    StoreError,
    VendorIdentityError,
    WrongBucketOwner,
    XmodeError,
)
from xmode_transfer.model.findings import Cause, Finding, Leftover, LeftoverKind, passed, skipped, unanswered
from xmode_transfer.model.records import Capabilities

ASSUME = "assume_role"
AGAIN = "assume_again"
PROBES = (ASSUME, NO_ID, RANDOM_ID, SIMILAR_ID, OTHER_CASE, AGAIN)

_REFUSED = frozenset({"AccessDenied", "AccessDeniedException"})


def try_trust(
    prober: Prober, customer: Customer, facts: SetupValues, nonce: str, stop: threading.Event
) -> tuple[bool, list[Finding]]:
    """With the right ID, wrong ones, none, and right again: whether the role allows access with its own, and
    what was found; incomplete when it was told to stop. ``nonce`` is random. Raises VendorIdentityError."""
    error = _trial(prober, customer, customer.external_id)
    if error is not None:
        why = "the role cannot be assumed with its own external ID, so a denial would prove nothing"
        return False, [told(ASSUME, error, facts), *(skipped(probe, why) for probe in PROBES[1:])]
    findings = [passed(ASSUME, "the role allows access with its external ID")]
    trials: list[tuple[str, str | None]] = [
        (RANDOM_ID, f"xm-{nonce}"),
        (SIMILAR_ID, f"{customer.external_id}-{nonce}"),
        (NO_ID, None),
        (OTHER_CASE, customer.external_id.swapcase()),
    ]
    answers: dict[str, XmodeError | None] = {}
    for probe, external_id in trials:
        if stop.is_set():
            return True, findings
        if probe != OTHER_CASE or external_id != customer.external_id:
            answers[probe] = _trial(prober, customer, external_id)
    control = _trial(prober, customer, customer.external_id)
    findings += _judged(answers, facts, control)
    if control is None:
        findings.append(passed(AGAIN, "the role allows access again with its external ID"))
    else:
        findings.append(told(AGAIN, control, facts))
    return True, findings


def told(probe: str, error: XmodeError, facts: SetupValues) -> Finding:
    """A failed AssumeRole as a finding. AWS's own words decide only where they name a policy of ours."""
    said, request_id = error.message, error.request_id
    if isinstance(error, RoleRefused):
        cause = Cause.ROLE_REFUSED
        if error.aws_code == "RegionDisabledException":
            cause = Cause.STS_REGION_DISABLED
        elif (denial := denial_in(said)) and responsible_of(denial, assuming=True) is Responsible.VENDOR:
            cause = Cause.VENDOR_POLICY_DENIES_ASSUME
        return finding(cause, probe, facts, request_id=request_id, said=said)
    return unanswered(probe, said, error.responsible, request_id)


def _trial(prober: Prober, customer: Customer, external_id: str | None) -> XmodeError | None:
    try:
        prober.assume(customer, external_id)
    except VendorIdentityError:
        raise
    except XmodeError as error:
        return error
    return None


def _judged(
    answers: dict[str, XmodeError | None], facts: SetupValues, control: XmodeError | None
) -> Iterator[Finding]:
    """A role that allows access has said so for good. A refusal proves something only when it allows access
    again afterwards: else STS was busy, or the role had just gone."""
    accepted = {probe for probe, error in answers.items() if error is None}
    for probe in (NO_ID, RANDOM_ID, SIMILAR_ID, OTHER_CASE):
        if probe not in answers:
            yield skipped(probe, "the external ID has no letters")
        elif probe in accepted:
            yield wrongly_accepted(probe, accepted, facts)
        else:
            yield _refused(probe, answers[probe], control)


def _refused(probe: str, error: XmodeError | None, control: XmodeError | None) -> Finding:
    assert error is not None
    if not isinstance(error, RoleRefused) or error.aws_code not in _REFUSED:
        responsible = Responsible.AWS if error.retryable else Responsible.VENDOR
        words = f"only AccessDenied proves a denial; STS answered: {error.message}"
        return unanswered(probe, words, responsible, error.request_id)
    if control is not None:
        return skipped(probe, "the role did not allow access again afterwards, so this denial proves nothing")
    what = {
        NO_ID: "without an external ID",
        RANDOM_ID: "with an external ID that was never issued",
        SIMILAR_ID: "with an external ID that only begins with the right one",
        OTHER_CASE: "with the external ID in a different letter case",
    }[probe]
    return passed(probe, f"the role denies access {what}, as it should", request_id=error.request_id)


T = TypeVar("T")

_ACL_CODES = frozenset({"AccessControlListNotSupported", "InvalidBucketAclWithObjectOwnership"})
_REGION_CODES = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect"})
_ALWAYS: tuple[tuple[type[XmodeError], Cause], ...] = (
    (KmsDenied, Cause.KMS_DENIED),
    (BucketMissing, Cause.BUCKET_MISSING),
    (WrongBucketOwner, Cause.BUCKET_OTHER_OWNER),
    (ClockSkew, Cause.CLOCK_SKEW),
)
_FOR_ALL = frozenset({Cause.BUCKET_MISSING, Cause.BUCKET_OTHER_OWNER, Cause.CLOCK_SKEW, Cause.ROLE_REFUSED})


class CheckOver(Exception):
    """Nothing more can be tried: what was found holds for every probe."""


class Reserved:
    """The reserved place with its bookkeeping. ``findings``, ``left`` and ``learned`` are what came of the
    check. ``may_put`` is true once an object was put with the ACL, ``may_delete`` false once a deletion was
    refused."""

    def __init__(
        self,
        place: ReservedPrefix,
        facts: SetupValues,
        *,
        nonce: str,
        now: datetime,
        left_before: Iterable[Leftover] = (),
    ) -> None:
        self.place = place
        self.facts = facts
        self.now = now
        self.findings: list[Finding] = []
        self.left: list[Leftover] = []
        self.learned = Capabilities()
        self.may_put = False
        self.may_delete = True
        before = list(left_before)
        undeletable = [item for item in before if item.kind is LeftoverKind.OBJECT]
        # Where the role could not delete last time, each check would leave more behind: it takes the same
        # keys again.
        self.base = f"{place.prefix}{'kept' if undeletable else nonce}/"
        self.objects = {item.key: item.bytes for item in undeletable}
        self.uploads = {
            item.id: (item.key, item.bytes) for item in before if item.kind is LeftoverKind.UPLOAD and item.id
        }

    # --- Findings -----------------------------------------------------------------------------------

    def note(self, item: Finding) -> None:
        self.findings.append(item)

    def skip(self, probes: Iterable[str], why: str) -> None:
        self.findings += [skipped(probe, why) for probe in probes]

    def learn(self, **facts: object) -> None:
        self.learned = replace(self.learned, **facts)  # type: ignore[arg-type]

    def tell(self, probe: str, error: XmodeError, denied: Cause) -> None:
        """The error as a finding; ``denied`` is the cause when it is a refusal. Raises CheckOver when the
        same would meet every probe."""
        item = self._told(probe, error, denied)
        self.note(item)
        if item.cause is Cause.KMS_DENIED:
            self.learn(kms=True)
        if item.cause in _FOR_ALL:
            raise CheckOver

    def _told(self, probe: str, error: XmodeError, denied: Cause) -> Finding:
        if isinstance(error, RoleRefused):
            return told(probe, error, self.facts)
        cause = next((cause for kind, cause in _ALWAYS if isinstance(error, kind)), None)
        if cause is None and isinstance(error, AccessDenied | PartsRefused):
            cause = denied
        elif cause is None and is_acl_error(error):
            cause = Cause.ACL_REFUSED
        elif cause is None and error.aws_code in _REGION_CODES:
            cause = Cause.BUCKET_OTHER_REGION
        if cause is None:
            return unanswered(probe, error.message, error.responsible, error.request_id)
        return finding(cause, probe, self.facts, request_id=error.request_id, said=error.message)

    # --- What is there ------------------------------------------------------------------------------

    def tried(self, work: Callable[[], T]) -> T | XmodeError:
        """What it answers, or the error. Trouble with our own identity is raised: it is no finding about the
        customer."""
        try:
            return work()
        except VendorIdentityError:
            raise
        except XmodeError as error:
            return error

    def put(self, key: str, body: bytes, *, acl: bool) -> ProbedObject | XmodeError:
        """Puts one object: S3's answer, or the error."""
        known = key in self.objects
        self.objects[key] = len(body)
        answer = self.tried(lambda: self.place.put(key, body, acl=acl))
        if not isinstance(answer, XmodeError):
            self.made(key, answer)
        elif not known and isinstance(answer, StoreError) and not answer.retryable:
            del self.objects[key]  # refused for certain, so nothing is there
        return answer

    def made(self, key: str, answer: ProbedObject) -> None:
        """Remembers what is there now, and what a bucket with versions will keep of it."""
        self.objects[key] = answer.size
        self.learn(versioned=answer.version_id is not None)
        if answer.version_id is not None:
            self.left.append(Leftover(LeftoverKind.VERSION, key, answer.size, answer.version_id))
        if answer.encryption is not None:
            self.learn(kms=answer.encryption.startswith("aws:kms"))

    def delete(self, key: str) -> XmodeError | None:
        answer = self.tried(lambda: self.place.delete(key))
        if isinstance(answer, XmodeError):
            return answer
        self.objects.pop(key, None)
        return None

    def abort(self, upload_id: str) -> XmodeError | None:
        key, _ = self.uploads[upload_id]
        answer = self.tried(lambda: self.place.abort_upload(key, upload_id))
        if isinstance(answer, XmodeError):
            return answer
        self.uploads.pop(upload_id, None)
        return None

    def clean_up(self) -> None:
        """Takes away everything that may be there; what stays is named in ``left``. Raises nothing of AWS's,
        nor of our own identity's: then nothing can be taken away, and all of it is named."""
        there = [Leftover(LeftoverKind.UPLOAD, *what, upload) for upload, what in self.uploads.items()]
        there += [Leftover(LeftoverKind.OBJECT, *what) for what in self.objects.items()]
        for item in there:
            try:
                error = self.abort(item.id) if item.id is not None else self.delete(item.key)
            except XmodeError as ours:
                error = ours
            if error is not None:
                self.left.append(item)


def is_acl_error(error: XmodeError) -> bool:
    """Whether S3 refuses the ACL itself, because the bucket takes none (S3 User Guide, "Object
    Ownership")."""
    return error.aws_code in _ACL_CODES
