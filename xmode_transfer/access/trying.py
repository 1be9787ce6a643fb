"""Test every right of a customer's role in the reserved place, and delete what the check made."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from xmode_transfer.access.catalogue import ACL_CODES, Cause, error_finding, finding
from xmode_transfer.aws.policy.documents import SetupValues
from xmode_transfer.aws.probing import ProbedObject, ReservedPrefix
from xmode_transfer.model import errors
from xmode_transfer.model.errors import AccessDenied, KmsDenied, Responsible, VendorIdentityError, XmodeError
from xmode_transfer.model.findings import (
    CHALLENGE_VALID,
    Finding,
    Leftover,
    LeftoverKind,
    passed,
    skipped,
    unanswered,
)
from xmode_transfer.model.keys import is_token
from xmode_transfer.model.records import Capabilities, UploadedPart

BODY = b"A check of access by xmode-transfer; it may be deleted.\n"
FIRST_PART_BYTES = 5 * 1024 * 1024  # S3 User Guide, "Multipart upload limits"
_TAIL = b"."
STALE = timedelta(hours=1)  # older objects in the reserved place belong to no running check

_OF_OBJECT = ("head", "read", "get_acl", "encryption", "versioning", "object_lock", "delete")
_OF_PARTS = ("multipart", "list_parts", "abort")
PROBES = ("bucket", "region", "list", "put", "put_without_acl", *_OF_OBJECT, *_OF_PARTS)

_FOR_ALL = frozenset({Cause.BUCKET_MISSING, Cause.BUCKET_OTHER_OWNER, Cause.CLOCK_SKEW, Cause.ROLE_REFUSED})

P = ParamSpec("P")
T = TypeVar("T")


def attempt(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | XmodeError:
    """Return an error instead of raising it. One of our own identity is no finding about the customer."""
    try:
        return call(*args, **kwargs)
    except VendorIdentityError:
        raise
    except XmodeError as error:
        return error


class CheckOver(Exception):
    """Nothing more can be tested: the last finding holds for every probe."""


class Reserved:
    """The reserved place, with what the check found, learned and left there."""

    def __init__(
        self,
        place: ReservedPrefix,
        facts: SetupValues,
        nonce: str,
        now: datetime,
        left_before: Iterable[Leftover],
    ) -> None:
        self.place = place
        self.facts = facts
        self.now = now
        self.findings: list[Finding] = []
        self.left: list[Leftover] = []
        self.learned = Capabilities()
        self.may_put = False  # with the ACL
        self.may_delete = False
        before = list(left_before)
        undeletable = [item for item in before if item.kind is LeftoverKind.OBJECT]
        # The same keys again where the role could not delete, so that objects do not accumulate.
        self.base = f"{place.prefix}{'kept' if undeletable else nonce}/"
        self.objects = {item.key: item.bytes for item in undeletable}
        self.uploads = {
            item.id: (item.key, item.bytes) for item in before if item.kind is LeftoverKind.UPLOAD and item.id
        }

    def passed(self, probe: str, message: str, *, request_id: str | None = None) -> None:
        self.findings.append(passed(probe, message, request_id=request_id))

    def skip(self, probes: Iterable[str], why: str) -> None:
        self.findings += [skipped(probe, why) for probe in probes]

    def found(self, cause: Cause, probe: str, **more: Any) -> None:
        self.findings.append(finding(cause, probe, self.facts, **more))

    def learn(self, **facts: object) -> None:
        self.learned = replace(self.learned, **facts)  # type: ignore[arg-type]

    @contextmanager
    def probe(self, probe: str, denied: Cause) -> Iterator[None]:
        try:
            yield
        except VendorIdentityError:
            raise
        except XmodeError as error:
            self.failed(probe, error, denied)

    def failed(self, probe: str, error: XmodeError, denied: Cause) -> None:
        """Raise CheckOver when every other probe would fail in the same way."""
        item = error_finding(probe, error, denied, self.facts)
        self.findings.append(item)
        if item.cause == Cause.KMS_DENIED:
            self.learn(kms=True)
        if item.cause in _FOR_ALL:
            raise CheckOver

    def put(self, key: str, *, acl: bool) -> ProbedObject | XmodeError:
        known = key in self.objects
        self.objects[key] = len(BODY)
        answer = attempt(self.place.put, key, BODY, acl=acl)
        if not isinstance(answer, XmodeError):
            self.made(key, answer)
        elif not known and isinstance(answer, errors.StoreError) and not answer.retryable:
            del self.objects[key]  # refused for certain, so nothing is there
        return answer

    def made(self, key: str, answer: ProbedObject) -> None:
        """A bucket with versions keeps one, whatever is deleted."""
        self.objects[key] = answer.size
        self.learn(versioned=answer.version_id is not None)
        if answer.version_id is not None:
            self.left.append(Leftover(LeftoverKind.VERSION, key, answer.size, answer.version_id))
        if answer.encryption is not None:
            self.learn(kms=answer.encryption.startswith("aws:kms"))

    def delete(self, key: str) -> None:
        self.place.delete(key)
        self.objects.pop(key, None)

    def abort(self, upload_id: str) -> None:
        self.place.abort_upload(self.uploads[upload_id][0], upload_id)
        self.uploads.pop(upload_id, None)

    def clean_up(self) -> None:
        """``left`` names what stays."""
        there = [Leftover(LeftoverKind.UPLOAD, *what, upload) for upload, what in self.uploads.items()]
        there += [Leftover(LeftoverKind.OBJECT, *what) for what in self.objects.items()]
        for item in there:
            try:
                if item.id is not None:
                    self.abort(item.id)
                else:
                    self.delete(item.key)
            except XmodeError:
                self.left.append(item)


def try_rights(check: Reserved, stop: threading.Event) -> bool:
    """Clean up on every path. Return False if the check was stopped."""
    why = "not tried: the problem found before applies here too"
    try:
        for step in (_locate, _list, _try_object, _try_parts):
            if stop.is_set():
                why = "the check was stopped"
                return False
            step(check)
    except CheckOver:
        pass
    finally:
        check.clean_up()
        done = {item.probe for item in check.findings}
        check.skip([probe for probe in PROBES if probe not in done], why)
        check.findings.sort(key=lambda item: PROBES.index(item.probe))
    return True


def _locate(check: Reserved) -> None:
    with check.probe("bucket", Cause.BUCKET_MISSING):
        check.place.locate()
    configured, region = check.facts.region, check.place.region
    if region is None:
        check.skip(["region"], "no response named the bucket's region")
        return
    check.learn(region=region)
    if configured in (None, region):
        check.passed("region", f"the bucket is in {region}")
    else:
        detail = f"it is in {region}, and {configured} is configured"
        check.found(Cause.BUCKET_OTHER_REGION, "region", detail=detail)


def _list(check: Reserved) -> None:
    with check.probe("list", Cause.LIST_DENIED):
        stale = [item for item in check.place.list() if check.now - item.modified_at > _kept(check, item.key)]
        check.objects |= {item.key: item.size for item in stale}
        check.passed("bucket", f"the bucket {check.facts.bucket} exists")
        swept = f" ({len(stale)} objects of an earlier check were deleted)" if stale else ""
        check.passed("list", f"the role may list below {check.facts.place}{swept}")


def _kept(check: Reserved, key: str) -> timedelta:
    """A token that nobody has returned goes once it has expired."""
    return CHALLENGE_VALID if is_token(check.facts.prefix, key) else STALE


def _try_object(check: Reserved) -> None:
    key = f"{check.base}canary"
    canary = _put(check, key)
    if canary is None:
        check.skip(_OF_OBJECT, "there is no object of ours to test this on")
        return
    locked = _read_back(check, key, canary)
    _get_acl(check, key)
    _judge_headers(check, canary, locked)
    with check.probe("delete", Cause.DELETE_DENIED):
        check.delete(key)
        check.may_delete = True
        check.passed("delete", "the role may delete what we put")


def _put(check: Reserved, key: str) -> ProbedObject | None:
    answer = check.put(key, acl=True)
    if not isinstance(answer, XmodeError):
        check.may_put = True
        check.passed("put", "the role may put objects with the ACL bucket-owner-full-control")
        _put_without_acl(check)
        return answer
    if isinstance(answer, AccessDenied) or answer.aws_code in ACL_CODES:
        bare = check.put(key, acl=False)
        if not isinstance(bare, XmodeError):
            check.found(Cause.ACL_REFUSED, "put", request_id=answer.request_id, said=answer.message)
            check.skip(["put_without_acl"], "objects can only be put without the ACL")
            return bare
        if isinstance(bare, KmsDenied):
            answer = bare
    check.failed("put", answer, Cause.PUT_DENIED)
    check.skip(["put_without_acl"], "no object can be put with the ACL, so a denial would prove nothing")
    return None


def _put_without_acl(check: Reserved) -> None:
    answer = check.put(f"{check.base}without-acl", acl=False)
    if not isinstance(answer, XmodeError):
        check.found(Cause.PUT_WITHOUT_ACL_ALLOWED, "put_without_acl")
    elif isinstance(answer, AccessDenied):
        words = "the role denies an object without the ACL, as it should"
        check.passed("put_without_acl", words, request_id=answer.request_id)
    else:
        check.failed("put_without_acl", answer, Cause.PUT_DENIED)


def _read_back(check: Reserved, key: str, canary: ProbedObject) -> str | None:
    """HEAD and GET need one right. Return the Object Lock mode, if S3 names one."""
    seen, body = attempt(check.place.head, key), attempt(check.place.read, key)
    differs = f"does not return {key} as it was put"
    if isinstance(seen, XmodeError):
        # A HEAD's answer has no body: only that of the GET can say that it is KMS which refuses.
        check.failed("head", body if isinstance(body, KmsDenied) else seen, Cause.HEAD_DENIED)
    elif seen is None or seen.size != len(BODY) or seen.checksum != (canary.checksum or seen.checksum):
        check.findings.append(unanswered("head", f"HEAD {differs}", Responsible.AWS))
    else:
        check.passed("head", "the role may read the metadata and checksums of objects")
    if body == BODY:
        check.passed("read", "the role may read objects")
    elif not isinstance(body, XmodeError):
        check.findings.append(unanswered("read", f"GET {differs}", Responsible.AWS))
    elif isinstance(seen, XmodeError):
        check.skip(["read"], "denied, like HEAD of the object")
    else:
        check.failed("read", body, Cause.HEAD_DENIED)
    return None if seen is None or isinstance(seen, XmodeError) else seen.locked


def _get_acl(check: Reserved, key: str) -> None:
    with check.probe("get_acl", Cause.GET_ACL_DENIED):
        acl, facts = check.place.acl(key), check.facts
        # The canonical ID of the bucket's owner cannot be asked for. In the role's own account it is the
        # object's owner; from another account the canned ACL gives it a grant beside the writer's.
        whole = acl.owner_id in acl.full_control if facts.bucket_owner == facts.account else acl.full_control
        if whole:
            check.passed("get_acl", "the bucket's owner has full control of what we put")
        else:
            check.found(Cause.OWNER_LACKS_FULL_CONTROL, "get_acl")


def _judge_headers(check: Reserved, canary: ProbedObject, locked: str | None) -> None:
    if canary.encryption is None:
        check.skip(["encryption"], "encryption unknown: the response has no encryption header")
    else:
        check.passed("encryption", f"the bucket encrypts with {canary.encryption}")
    if canary.version_id is None:
        check.passed("versioning", "the bucket keeps no versions")
    else:
        check.found(Cause.VERSIONED_BUCKET, "versioning")
    if locked is None:
        words = "no response names an Object Lock; S3 returns it only to those who may read retention"
        check.passed("object_lock", words)
    else:
        check.found(Cause.OBJECT_LOCK, "object_lock", detail=f"mode {locked}")


def _try_parts(check: Reserved) -> None:
    """Complete one upload and abort another. One that may not be aborted stays, and the next check continues
    with it, so that there is never a second."""
    if not check.may_put:
        check.skip(_OF_PARTS, "no object can be put with the ACL")
        return
    if not check.may_delete:
        check.skip(_OF_PARTS, "the role denies deletion, so another five megabytes would remain")
        return
    parts: list[UploadedPart] = []
    error: XmodeError | None = None
    upload_id = attempt(_open, check)
    if not isinstance(upload_id, XmodeError):
        error = attempt(_send, check, upload_id, parts)
        # A lifecycle rule may have ended an earlier check's upload.
        if isinstance(error, errors.UploadNotFound) and not parts:
            del check.uploads[upload_id]
            upload_id = attempt(_open, check)
            if not isinstance(upload_id, XmodeError):
                error = attempt(_send, check, upload_id, parts)
    if isinstance(upload_id, XmodeError):
        check.skip(("list_parts", "abort"), "no multipart upload can be opened")
        _refused(check, upload_id)
        return
    with check.probe("list_parts", Cause.LIST_PARTS_DENIED):
        check.place.list_parts(check.uploads[upload_id][0], upload_id)
        check.passed("list_parts", "the role may list the parts of an upload")
    error = error or attempt(_complete, check, upload_id, parts)
    if error is not None:
        _refused(check, error)
        _abort(check, upload_id)
        return
    check.learn(multipart=True)
    check.passed("multipart", "the role may upload in parts")
    upload_id = attempt(_open, check)
    if isinstance(upload_id, XmodeError):
        check.failed("abort", upload_id, Cause.MULTIPART_DENIED)
    elif not _abort(check, upload_id):  # complete it as a small object, which can be deleted
        parts = []
        if attempt(_part, check, upload_id, 1, _TAIL, parts) is None:
            attempt(_complete, check, upload_id, parts)


def _open(check: Reserved) -> str:
    """An earlier check's upload may still be open."""
    for upload_id in check.uploads:
        return upload_id
    key = f"{check.base}multipart"
    opened = check.place.create_upload(key)
    check.uploads[opened] = (key, 0)
    return opened


def _send(check: Reserved, upload_id: str, parts: list[UploadedPart]) -> None:
    """The small part first: where parts are refused, nothing large is sent."""
    _part(check, upload_id, 2, _TAIL, parts)
    _part(check, upload_id, 1, _TAIL * FIRST_PART_BYTES, parts)


def _part(check: Reserved, upload_id: str, number: int, body: bytes, parts: list[UploadedPart]) -> None:
    key, size = check.uploads[upload_id]
    check.uploads[upload_id] = (key, size + len(body))
    try:
        parts.append(check.place.upload_part(key, upload_id, number, body))
    except XmodeError as error:
        if not error.retryable:
            check.uploads[upload_id] = (key, size)
        raise


def _complete(check: Reserved, upload_id: str, parts: list[UploadedPart]) -> None:
    key, size = check.uploads[upload_id]
    check.objects[key] = size
    try:
        answer = check.place.complete_upload(key, upload_id, sorted(parts, key=lambda part: part.number))
    except XmodeError as error:
        if not error.retryable:
            del check.objects[key]
        raise
    del check.uploads[upload_id]
    check.made(key, answer)


def _refused(check: Reserved, error: XmodeError) -> None:
    if isinstance(error, AccessDenied | errors.PartsRefused):
        check.learn(multipart=False)
    check.failed("multipart", error, Cause.MULTIPART_DENIED)


def _abort(check: Reserved, upload_id: str) -> bool:
    error = attempt(check.abort, upload_id)
    if error is None:
        check.learn(abort=True)
        check.passed("abort", "the role may abort a multipart upload")
        return True
    if isinstance(error, AccessDenied):
        check.learn(abort=False)
    check.failed("abort", error, Cause.ABORT_DENIED)
    return False
