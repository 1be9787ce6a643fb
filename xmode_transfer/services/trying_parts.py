"""Multipart uploads, tried with as little left behind as the role allows.

An upload that may not be aborted stays, so no check opens a second one while an earlier check's is open: it
goes on with that.
"""

from typing import TYPE_CHECKING

from xmode_transfer.domain.errors import AccessDenied, PartsRefused, UploadNotFound, XmodeError
from xmode_transfer.domain.findings import Cause, passed
from xmode_transfer.domain.records import UploadedPart
from xmode_transfer.services.reserved import Reserved

if TYPE_CHECKING:
    from xmode_transfer.ports import ProbedObject

FIRST_PART_BYTES = 5 * 1024 * 1024
"""S3 User Guide, "Multipart upload limits": every part but the last."""

MULTIPART = "multipart"
LIST_PARTS = "list_parts"
ABORT = "abort"
PARTS_PROBES = (MULTIPART, LIST_PARTS, ABORT)

_TAIL = b"."


def try_parts(reserved: Reserved) -> None:
    """Two parts, a listing of them, completion, and an abort."""
    if not reserved.may_put:
        reserved.skip(PARTS_PROBES, "no object can be put with the ACL")
        return
    if not reserved.may_delete:
        reserved.skip(PARTS_PROBES, "the role did not let us delete, so five megabytes more would stay")
        return
    upload_id, error = _open(reserved)
    if error is not None:
        _refused(reserved, error)
        reserved.skip((LIST_PARTS, ABORT), "no multipart upload can be opened")
        return
    parts, error = _send(reserved, upload_id)
    if isinstance(error, UploadNotFound) and not parts:  # an earlier check's, ended by a lifecycle rule
        del reserved.uploads[upload_id]
        upload_id, error = _open(reserved)
        if error is None:
            parts, error = _send(reserved, upload_id)
    _list_parts(reserved, upload_id)
    if error is None:
        error = _complete(reserved, upload_id, parts)
    if error is not None:
        _refused(reserved, error)
        _abort(reserved, upload_id)
        return
    reserved.learn(multipart=True)
    reserved.note(passed(MULTIPART, "the role may upload in parts"))
    _abort_another(reserved)


def _open(reserved: Reserved) -> tuple[str, XmodeError | None]:
    """An earlier check's upload that is still open, or a new one."""
    for upload_id in reserved.uploads:
        return upload_id, None
    key = f"{reserved.base}multipart"
    opened: list[str] = []
    error = reserved.tried(lambda: opened.append(reserved.place.create_upload(key)))
    if error is not None:
        return "", error
    reserved.uploads[opened[0]] = (key, 0)
    return opened[0], None


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
    error = reserved.tried(lambda: parts.append(reserved.place.upload_part(key, upload_id, number, body)))
    if error is None or error.retryable:
        reserved.uploads[upload_id] = (key, reserved.uploads[upload_id][1] + len(body))
    return error


def _complete(reserved: Reserved, upload_id: str, parts: list[UploadedPart]) -> XmodeError | None:
    key, size = reserved.uploads[upload_id]
    made: list[ProbedObject] = []
    reserved.objects[key] = size
    error = reserved.tried(lambda: made.append(reserved.place.complete_upload(key, upload_id, parts)))
    if error is None:
        del reserved.uploads[upload_id]
        reserved.made(key, made[0])
    elif not error.retryable:
        del reserved.objects[key]
    return error


def _refused(reserved: Reserved, error: XmodeError) -> None:
    if isinstance(error, AccessDenied | PartsRefused):
        reserved.learn(multipart=False)
    reserved.tell(MULTIPART, error, Cause.MULTIPART_DENIED)


def _list_parts(reserved: Reserved, upload_id: str) -> None:
    if upload_id not in reserved.uploads:
        reserved.skip([LIST_PARTS], "no multipart upload can be opened")
        return
    key = reserved.uploads[upload_id][0]
    error = reserved.tried(lambda: reserved.place.list_parts(key, upload_id))
    if error is None:
        reserved.note(passed(LIST_PARTS, "the role may list the parts of an upload"))
    else:
        reserved.tell(LIST_PARTS, error, Cause.LIST_PARTS_DENIED)


def _abort_another(reserved: Reserved) -> None:
    """The first upload is completed, so one more is opened to be aborted. Where that is refused, it is
    completed too, as a small object that can be deleted, so that nothing stays."""
    upload_id, error = _open(reserved)
    if error is not None:
        reserved.tell(ABORT, error, Cause.MULTIPART_DENIED)
        return
    if _abort(reserved, upload_id):
        return
    key = reserved.uploads[upload_id][0]
    parts: list[UploadedPart] = []
    if _part(reserved, key, upload_id, 1, _TAIL, parts) is None:
        _complete(reserved, upload_id, parts)


def _abort(reserved: Reserved, upload_id: str) -> bool:
    if upload_id not in reserved.uploads:
        reserved.skip([ABORT], "no multipart upload can be opened")
        return True
    error = reserved.abort(upload_id)
    if error is None:
        reserved.learn(abort=True)
        reserved.note(passed(ABORT, "the role may abort a multipart upload"))
        return True
    if isinstance(error, AccessDenied):
        reserved.learn(abort=False)
    reserved.tell(ABORT, error, Cause.ABORT_DENIED)
    return False
