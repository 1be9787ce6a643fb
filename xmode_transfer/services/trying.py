"""Every right of a customer's role, tried by doing the real thing in the reserved place."""

import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from xmode_transfer.domain.errors import AccessDenied, KmsDenied, Party
from xmode_transfer.domain.findings import Cause, finding, passed, unanswered
from xmode_transfer.ports import ProbedObject
from xmode_transfer.services.reserved import CheckOver, Reserved, is_acl_error
from xmode_transfer.services.trying_parts import PARTS_PROBES, try_parts

if TYPE_CHECKING:
    from xmode_transfer.domain.acl import ObjectAcl

BODY = b"A check of access by xmode-transfer; it may be deleted.\n"
STALE = timedelta(hours=1)
"""What lies in the reserved place for longer is no running check's."""

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
OF_OBJECT = (HEAD, READ, ACL, ENCRYPTION, VERSIONING, OBJECT_LOCK, DELETE)
PROBES = (BUCKET, REGION, LIST, PUT, PUT_WITHOUT_ACL, *OF_OBJECT, *PARTS_PROBES)


def try_rights(reserved: Reserved, stop: threading.Event) -> bool:
    """Tries everything, and takes away what it made on every path. False when it was told to stop."""
    steps = (_find, _list, _put_and_look, try_parts)
    why = "not tried any more: what was found before holds for this too"
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
    error = reserved.tried(reserved.place.locate)
    if error is not None:
        reserved.tell(BUCKET, error, Cause.BUCKET_MISSING)
    facts, region = reserved.facts, reserved.place.region
    if region is None:
        reserved.skip([REGION], "no answer has named the bucket's region")
        return
    reserved.learn(region=region)
    if facts.region in (None, region):
        reserved.note(passed(REGION, f"the bucket lies in {region}"))
    else:
        detail = f"it lies in {region}, and {facts.region} is configured"
        reserved.note(finding(Cause.BUCKET_OTHER_REGION, REGION, facts, detail=detail))


def _list(reserved: Reserved) -> None:
    stale: list[str] = []

    def listing() -> None:
        for item in reserved.place.list():
            if reserved.now - item.modified_at > STALE:
                stale.append(item.key)
                reserved.objects[item.key] = item.size

    error = reserved.tried(listing)
    if error is not None:
        reserved.tell(LIST, error, Cause.LIST_DENIED)
        return
    reserved.note(passed(BUCKET, f"the bucket {reserved.facts.bucket} is there"))
    swept = f" ({len(stale)} objects of an earlier check are taken away)" if stale else ""
    reserved.note(passed(LIST, f"the role may list below {reserved.facts.place}{swept}"))


def _put_and_look(reserved: Reserved) -> None:
    key = f"{reserved.base}canary"
    canary = _put(reserved, key)
    if canary is None:
        reserved.skip(OF_OBJECT, "there is no object of ours to try this on")
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
    canary, error = reserved.put(key, BODY, acl=True)
    if error is None:
        reserved.may_put = True
        reserved.note(passed(PUT, "the role may put objects with the ACL bucket-owner-full-control"))
        _put_without_acl(reserved)
        return canary
    if isinstance(error, AccessDenied) or is_acl_error(error):
        canary, bare = reserved.put(key, BODY, acl=False)
        if canary is not None:
            said, request_id = error.message, error.request_id
            reserved.note(finding(Cause.ACL_REFUSED, PUT, reserved.facts, request_id=request_id, said=said))
            reserved.skip([PUT_WITHOUT_ACL], "objects can be put without the ACL only")
            return canary
        if isinstance(bare, KmsDenied):
            error = bare
    reserved.tell(PUT, error, Cause.PUT_DENIED)
    reserved.skip([PUT_WITHOUT_ACL], "no object can be put with the ACL, so a refusal would prove nothing")
    return None


def _put_without_acl(reserved: Reserved) -> None:
    made, error = reserved.put(f"{reserved.base}without-acl", BODY, acl=False)
    if made is not None:
        reserved.note(finding(Cause.PUT_WITHOUT_ACL_ALLOWED, PUT_WITHOUT_ACL, reserved.facts))
    elif isinstance(error, AccessDenied):
        words = "the role refuses an object without the ACL, as it should"
        reserved.note(passed(PUT_WITHOUT_ACL, words, request_id=error.request_id))
    elif error is not None:
        reserved.tell(PUT_WITHOUT_ACL, error, Cause.PUT_DENIED)


def _look(reserved: Reserved, key: str, canary: ProbedObject) -> str | None:
    """HEAD and GET, which need one right; the mode of an Object Lock, if S3 names one."""
    heads: list[ProbedObject | None] = []
    bodies: list[bytes] = []
    head_error = reserved.tried(lambda: heads.append(reserved.place.head(key)))
    read_error = reserved.tried(lambda: bodies.append(reserved.place.read(key)))
    seen = heads[0] if heads else None
    if head_error is not None:
        # A HEAD's answer has no body: only that of the GET can say that it is KMS which refuses.
        error = read_error if isinstance(read_error, KmsDenied) else head_error
        reserved.tell(HEAD, error, Cause.HEAD_DENIED)
    elif seen is None or seen.size != len(BODY) or _differ(seen, canary):
        reserved.note(unanswered(HEAD, f"S3 does not show {key} as it was put", Party.AWS))
    else:
        reserved.note(passed(HEAD, "the role may look at objects and their checksums"))
    if read_error is None and bodies[0] == BODY:
        reserved.note(passed(READ, "the role may read objects"))
    elif read_error is None:
        reserved.note(unanswered(READ, f"S3 does not answer {key} as it was put", Party.AWS))
    elif head_error is not None:
        reserved.skip([READ], "refused like the look at the object")
    else:
        reserved.tell(READ, read_error, Cause.HEAD_DENIED)
    return seen.locked if seen is not None else None


def _differ(seen: ProbedObject, put: ProbedObject) -> bool:
    return None not in (seen.checksum, put.checksum) and seen.checksum != put.checksum


def _acl(reserved: Reserved, key: str) -> None:
    found: list[ObjectAcl] = []
    error = reserved.tried(lambda: found.append(reserved.place.acl(key)))
    if error is not None:
        reserved.tell(ACL, error, Cause.GET_ACL_DENIED)
        return
    acl, facts = found[0], reserved.facts
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
        reserved.skip([ENCRYPTION], "S3 has not said how it encrypts")
    else:
        reserved.note(passed(ENCRYPTION, f"the bucket encrypts with {canary.encryption}"))
    if canary.version_id is None:
        reserved.note(passed(VERSIONING, "the bucket keeps no versions"))
    else:
        reserved.note(finding(Cause.VERSIONED_BUCKET, VERSIONING, facts))
    if canary.locked is None:
        words = "no answer names an Object Lock, which S3 tells only to who may read retention"
        reserved.note(passed(OBJECT_LOCK, words))
    else:
        reserved.note(finding(Cause.OBJECT_LOCK, OBJECT_LOCK, facts, detail=f"mode {canary.locked}"))
