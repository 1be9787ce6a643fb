"""Every right of a customer's role, tried by doing the real thing in the reserved place."""

import threading
from dataclasses import replace
from datetime import timedelta

from xmode_transfer.access.catalogue import finding
from xmode_transfer.access.trust import CheckOver, Reserved, is_acl_error
from xmode_transfer.aws.probing import ProbedObject
from xmode_transfer.model.errors import (
    AccessDenied,
    KmsDenied,
    PartsRefused,
    Responsible,
    UploadNotFound,
    XmodeError,
)
from xmode_transfer.model.findings import Cause, passed, unanswered
from xmode_transfer.model.records import UploadedPart

BODY = b"A check of access by xmode-transfer; it may be deleted.\n"
FIRST_PART_BYTES = 5 * 1024 * 1024
"""S3 User Guide, "Multipart upload limits": every part but the last."""
_TAIL = b"."
STALE = timedelta(hours=1)
"""Objects older than this in the reserved place belong to no running check."""

BUCKET = "bucket"
REGION = "region"
LIST = "list"
PUT = "put"
PUT_WITHOUT_ACL = "put_without_acl"
HEAD = "head"
READ = "read"
ACL = "get_acl"
ENCRYPTION = "encryption"
VERSIONING = "versioning"
OBJECT_LOCK = "object_lock"
DELETE = "delete"
MULTIPART = "multipart"
LIST_PARTS = "list_parts"
ABORT = "abort"
PARTS_PROBES = (MULTIPART, LIST_PARTS, ABORT)
OF_OBJECT = (HEAD, READ, ACL, ENCRYPTION, VERSIONING, OBJECT_LOCK, DELETE)
PROBES = (BUCKET, REGION, LIST, PUT, PUT_WITHOUT_ACL, *OF_OBJECT, *PARTS_PROBES)


def try_rights(reserved: Reserved, stop: threading.Event) -> bool:
    """Tries everything, and takes away what it made on every path. False when it was told to stop."""
    steps = (_find, _list, _put_and_look, _try_parts)
    why = "not tried: the problem found before applies here too"
    try:
        for step in steps:
            if stop.is_set():
                why = "the check was stopped"
                return False
            step(reserved)
    except CheckOver:
        pass
    finally:
        reserved.clean_up()
        done = {item.probe for item in reserved.findings}
        reserved.skip([probe for probe in PROBES if probe not in done], why)
        order = {probe: position for position, probe in enumerate(PROBES)}
        reserved.findings.sort(key=lambda item: order.get(item.probe, len(order)))
    return True


def _find(reserved: Reserved) -> None:
    answer = reserved.tried(reserved.place.locate)
    if isinstance(answer, XmodeError):
        reserved.tell(BUCKET, answer, Cause.BUCKET_MISSING)
    facts, region = reserved.facts, reserved.place.region
    if region is None:
        reserved.skip([REGION], "no response named the bucket's region")
        return
    reserved.learn(region=region)
    if facts.region in (None, region):
        reserved.note(passed(REGION, f"the bucket is in {region}"))
    else:
        detail = f"it is in {region}, and {facts.region} is configured"
        reserved.note(finding(Cause.BUCKET_OTHER_REGION, REGION, facts, detail=detail))


def _list(reserved: Reserved) -> None:
    listed = reserved.tried(reserved.place.list)
    if isinstance(listed, XmodeError):
        reserved.tell(LIST, listed, Cause.LIST_DENIED)
        return
    stale = {item.key: item.size for item in listed if reserved.now - item.modified_at > STALE}
    reserved.objects |= stale
    reserved.note(passed(BUCKET, f"the bucket {reserved.facts.bucket} exists"))
    swept = f" ({len(stale)} objects of an earlier check were deleted)" if stale else ""
    reserved.note(passed(LIST, f"the role may list below {reserved.facts.place}{swept}"))


def _put_and_look(reserved: Reserved) -> None:
    key = f"{reserved.base}canary"
    canary = _put(reserved, key)
    if canary is None:
        reserved.skip(OF_OBJECT, "there is no object of ours to test this on")
        return
    locked = _look(reserved, key, canary)
    _acl(reserved, key)
    _told_by_answers(reserved, replace(canary, locked=locked))
    error = reserved.delete(key)
    if error is None:
        reserved.note(passed(DELETE, "the role may delete what we put"))
    else:
        reserved.may_delete = False
        reserved.tell(DELETE, error, Cause.DELETE_DENIED)


def _put(reserved: Reserved, key: str) -> ProbedObject | None:
    answer = reserved.put(key, BODY, acl=True)
    if not isinstance(answer, XmodeError):
        reserved.may_put = True
        reserved.note(passed(PUT, "the role may put objects with the ACL bucket-owner-full-control"))
        _put_without_acl(reserved)
        return answer
    if isinstance(answer, AccessDenied) or is_acl_error(answer):
        bare = reserved.put(key, BODY, acl=False)
        if not isinstance(bare, XmodeError):
            said, request_id = answer.message, answer.request_id
            reserved.note(finding(Cause.ACL_REFUSED, PUT, reserved.facts, request_id=request_id, said=said))
            reserved.skip([PUT_WITHOUT_ACL], "objects can only be put without the ACL")
            return bare
        if isinstance(bare, KmsDenied):
            answer = bare
    reserved.tell(PUT, answer, Cause.PUT_DENIED)
    reserved.skip([PUT_WITHOUT_ACL], "no object can be put with the ACL, so a denial would prove nothing")
    return None


def _put_without_acl(reserved: Reserved) -> None:
    answer = reserved.put(f"{reserved.base}without-acl", BODY, acl=False)
    if not isinstance(answer, XmodeError):
        reserved.note(finding(Cause.PUT_WITHOUT_ACL_ALLOWED, PUT_WITHOUT_ACL, reserved.facts))
    elif isinstance(answer, AccessDenied):
        words = "the role denies an object without the ACL, as it should"
        reserved.note(passed(PUT_WITHOUT_ACL, words, request_id=answer.request_id))
    else:
        reserved.tell(PUT_WITHOUT_ACL, answer, Cause.PUT_DENIED)


def _look(reserved: Reserved, key: str, canary: ProbedObject) -> str | None:
    """HEAD and GET, which need one right; the mode of an Object Lock, if S3 names one."""
    seen = reserved.tried(lambda: reserved.place.head(key))
    body = reserved.tried(lambda: reserved.place.read(key))
    refused = isinstance(seen, XmodeError)
    if isinstance(seen, XmodeError):
        # A HEAD's answer has no body: only that of the GET can say that it is KMS which refuses.
        reserved.tell(HEAD, body if isinstance(body, KmsDenied) else seen, Cause.HEAD_DENIED)
    elif seen is None or seen.size != len(BODY) or _differ(seen, canary):
        reserved.note(unanswered(HEAD, f"HEAD does not return {key} as it was put", Responsible.AWS))
    else:
        reserved.note(passed(HEAD, "the role may read the metadata and checksums of objects"))
    if body == BODY:
        reserved.note(passed(READ, "the role may read objects"))
    elif not isinstance(body, XmodeError):
        reserved.note(unanswered(READ, f"GET does not return {key} as it was put", Responsible.AWS))
    elif refused:
        reserved.skip([READ], "denied, like HEAD of the object")
    else:
        reserved.tell(READ, body, Cause.HEAD_DENIED)
    return None if seen is None or isinstance(seen, XmodeError) else seen.locked


def _differ(seen: ProbedObject, put: ProbedObject) -> bool:
    return None not in (seen.checksum, put.checksum) and seen.checksum != put.checksum


def _acl(reserved: Reserved, key: str) -> None:
    acl, facts = reserved.tried(lambda: reserved.place.acl(key)), reserved.facts
    if isinstance(acl, XmodeError):
        reserved.tell(ACL, acl, Cause.GET_ACL_DENIED)
        return
    # The canonical ID of the bucket's owner cannot be asked for. In the role's own account it is the
    # object's owner; from another account the canned ACL gives it a grant beside the writer's.
    whole = acl.owner_id in acl.full_control if facts.bucket_owner == facts.account else acl.full_control
    if whole:
        reserved.note(passed(ACL, "the bucket's owner has full control of what we put"))
    else:
        reserved.note(finding(Cause.OWNER_LACKS_FULL_CONTROL, ACL, facts))


def _told_by_answers(reserved: Reserved, canary: ProbedObject) -> None:
    facts = reserved.facts
    if canary.encryption is None:
        reserved.skip([ENCRYPTION], "encryption unknown: the response has no encryption header")
    else:
        reserved.note(passed(ENCRYPTION, f"the bucket encrypts with {canary.encryption}"))
    if canary.version_id is None:
        reserved.note(passed(VERSIONING, "the bucket keeps no versions"))
    else:
        reserved.note(finding(Cause.VERSIONED_BUCKET, VERSIONING, facts))
    if canary.locked is None:
        words = "no response names an Object Lock; S3 returns it only to those who may read retention"
        reserved.note(passed(OBJECT_LOCK, words))
    else:
        reserved.note(finding(Cause.OBJECT_LOCK, OBJECT_LOCK, facts, detail=f"mode {canary.locked}"))


# --- Multipart uploads, tried with as little left behind as the role allows


def _try_parts(reserved: Reserved) -> None:
    """Two parts, a listing of them, completion, and an abort. An upload that may not be aborted stays, so no
    check opens a second one while an earlier check's is open: it goes on with that."""
    if not reserved.may_put:
        reserved.skip(PARTS_PROBES, "no object can be put with the ACL")
        return
    if not reserved.may_delete:
        reserved.skip(PARTS_PROBES, "the role denies deletion, so another five megabytes would remain")
        return
    upload_id = _open(reserved)
    if not isinstance(upload_id, XmodeError):
        parts, error = _send(reserved, upload_id)
        if isinstance(error, UploadNotFound) and not parts:  # an earlier check's, ended by a lifecycle rule
            del reserved.uploads[upload_id]
            upload_id = _open(reserved)
            if not isinstance(upload_id, XmodeError):
                parts, error = _send(reserved, upload_id)
    if isinstance(upload_id, XmodeError):
        reserved.skip((LIST_PARTS, ABORT), "no multipart upload can be opened")
        _refused(reserved, upload_id)
        return
    _list_parts(reserved, upload_id)
    error = error or _complete(reserved, upload_id, parts)
    if error is not None:
        _refused(reserved, error)
        _abort(reserved, upload_id)
        return
    reserved.learn(multipart=True)
    reserved.note(passed(MULTIPART, "the role may upload in parts"))
    _abort_another(reserved)


def _open(reserved: Reserved) -> str | XmodeError:
    """An earlier check's upload that is still open, or a new one."""
    for upload_id in reserved.uploads:
        return upload_id
    key = f"{reserved.base}multipart"
    opened = reserved.tried(lambda: reserved.place.create_upload(key))
    if isinstance(opened, XmodeError):
        return opened
    reserved.uploads[opened] = (key, 0)
    return opened


def _send(reserved: Reserved, upload_id: str) -> tuple[list[UploadedPart], XmodeError | None]:
    """Both parts, the small one first: where parts are refused, nothing large is sent."""
    key = reserved.uploads[upload_id][0]
    parts: list[UploadedPart] = []
    for number, body in ((2, _TAIL), (1, _TAIL * FIRST_PART_BYTES)):
        error = _part(reserved, key, upload_id, number, body, parts)
        if error is not None:
            return parts, error
    return sorted(parts, key=lambda part: part.number), None


def _part(
    reserved: Reserved, key: str, upload_id: str, number: int, body: bytes, parts: list[UploadedPart]
) -> XmodeError | None:
    answer = reserved.tried(lambda: reserved.place.upload_part(key, upload_id, number, body))
    if not isinstance(answer, XmodeError) or answer.retryable:
        reserved.uploads[upload_id] = (key, reserved.uploads[upload_id][1] + len(body))
    if isinstance(answer, XmodeError):
        return answer
    parts.append(answer)
    return None


def _complete(reserved: Reserved, upload_id: str, parts: list[UploadedPart]) -> XmodeError | None:
    key, size = reserved.uploads[upload_id]
    reserved.objects[key] = size
    answer = reserved.tried(lambda: reserved.place.complete_upload(key, upload_id, parts))
    if not isinstance(answer, XmodeError):
        del reserved.uploads[upload_id]
        reserved.made(key, answer)
        return None
    if not answer.retryable:
        del reserved.objects[key]
    return answer


def _refused(reserved: Reserved, error: XmodeError) -> None:
    if isinstance(error, AccessDenied | PartsRefused):
        reserved.learn(multipart=False)
    reserved.tell(MULTIPART, error, Cause.MULTIPART_DENIED)


def _list_parts(reserved: Reserved, upload_id: str) -> None:
    key = reserved.uploads[upload_id][0]
    answer = reserved.tried(lambda: reserved.place.list_parts(key, upload_id))
    if isinstance(answer, XmodeError):
        reserved.tell(LIST_PARTS, answer, Cause.LIST_PARTS_DENIED)
    else:
        reserved.note(passed(LIST_PARTS, "the role may list the parts of an upload"))


def _abort_another(reserved: Reserved) -> None:
    """The first upload is completed, so one more is opened to be aborted. Where that is refused, it is
    completed too, as a small object that can be deleted, so that nothing stays."""
    upload_id = _open(reserved)
    if isinstance(upload_id, XmodeError):
        reserved.tell(ABORT, upload_id, Cause.MULTIPART_DENIED)
        return
    if _abort(reserved, upload_id):
        return
    key = reserved.uploads[upload_id][0]
    parts: list[UploadedPart] = []
    if _part(reserved, key, upload_id, 1, _TAIL, parts) is None:
        _complete(reserved, upload_id, parts)


def _abort(reserved: Reserved, upload_id: str) -> bool:
    error = reserved.abort(upload_id)
    if error is None:
        reserved.learn(abort=True)
        reserved.note(passed(ABORT, "the role may abort a multipart upload"))
        return True
    if isinstance(error, AccessDenied):
        reserved.learn(abort=False)
    reserved.tell(ABORT, error, Cause.ABORT_DENIED)
    return False
