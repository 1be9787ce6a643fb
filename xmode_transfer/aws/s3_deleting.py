"""Deletes many objects by DeleteObjects, each only if it still has the ETag that we know.

S3 compares each key's ETag (S3 API reference, DeleteObjects, ObjectIdentifier). A store that ignores it would
delete changed objects unnoticed. So the first object, which a HEAD has just shown to be the right one, is
deleted under a wrong ETag: a store that compares refuses. One that does not gets a HEAD before each request.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xmode_transfer.aws.s3_calls import S3Calls
from xmode_transfer.aws.s3_errors import Answer, Attempt, error_for
from xmode_transfer.aws.stores import DELETE_MANY_KEYS, Deleted, Deletion, DeletionResult
from xmode_transfer.model import errors
from xmode_transfer.model.process import Clock
from xmode_transfer.model.records import ObjectInfo

_WRONG_ETAG = '"00000000000000000000000000000000"'
_STATUS_OF = {
    code: status
    for status, codes in (
        (403, "AccessDenied AllAccessDisabled InvalidObjectState"),
        (404, "NoSuchKey NoSuchVersion"),
        (409, "ConditionalRequestConflict OperationAborted"),
        (412, "PreconditionFailed"),
        (500, "InternalError RequestTimeout"),
        (503, "ServiceUnavailable SlowDown"),
    )
    for code in codes.split()
}
"""The status of each code: a key's error has none (S3 API reference, "Error responses")."""


@dataclass(eq=False)
class BatchDeletes:
    """Thread-safe. ``head`` and ``delete`` are the store's own for one object."""

    calls: S3Calls
    clock: Clock
    head: Callable[[str], ObjectInfo | None]
    delete: Callable[[str, str], str | None]
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _compares: bool | None = field(default=None, init=False)  # whether the store compares ETags
    _takes_many: bool = field(default=True, init=False)

    def __call__(self, wanted: Sequence[Deletion]) -> list[Deleted]:
        if len(wanted) > DELETE_MANY_KEYS:
            raise ValueError(f"{len(wanted)} keys; one request takes {DELETE_MANY_KEYS}")
        answers: dict[str, Deleted] = {}
        todo = list(wanted)
        if self._is_untried:
            with self._lock:
                if self._is_untried:
                    todo = self._find_out(todo, answers)
        if not self._compares and self._takes_many:
            todo = self._still_the_same(todo, answers)
        for answer in self._send(todo):
            answers[answer.key] = answer
        return [answers[item.key] for item in wanted]

    @property
    def _is_untried(self) -> bool:
        return self._compares is None and self._takes_many

    def _find_out(self, todo: list[Deletion], answers: dict[str, Deleted]) -> list[Deletion]:
        """Learn whether the store compares ETags. Add the answers for the keys used; return the rest."""
        for position, item in enumerate(todo):
            if not self._still_the_same([item], answers):
                continue
            try:
                (answer,) = self._request([item._replace(etag=_WRONG_ETAG)], compared=True)
            except errors.RequestRefused:  # it does not know the member
                self._compares = False
                return todo[position:]
            except errors.AccessDenied as error:
                answers[item.key] = Deleted(item.key, DeletionResult.DENIED, error)
                continue
            if answer.result is DeletionResult.CHANGED:
                self._compares = True
                return todo[position:]
            answers[item.key] = answer
            if answer.result in (DeletionResult.DELETED, DeletionResult.HIDDEN):
                self._compares = False
            if answer.result is not DeletionResult.DENIED:
                return todo[position + 1 :]
        return []

    def _still_the_same(self, todo: Iterable[Deletion], answers: dict[str, Deleted]) -> list[Deletion]:
        same = []
        for item in todo:
            found = self.head(item.key)
            if found is None:
                answers[item.key] = Deleted(item.key, DeletionResult.GONE)
            elif found.etag.strip('"') != item.etag.strip('"'):
                answers[item.key] = self._changed(item)
            else:
                same.append(item)
        return same

    def _send(self, todo: list[Deletion]) -> Iterable[Deleted]:
        if todo and self._takes_many:
            try:
                return self._request(todo, compared=bool(self._compares))
            except errors.AccessDenied:
                pass  # some stores refuse the whole request for one of its keys
            except errors.RequestRefused:
                self._takes_many = False  # no DeleteObjects here, or not with this checksum
        return [self._one(item) for item in todo]

    def _one(self, item: Deletion) -> Deleted:
        try:
            marker = self.delete(item.key, item.etag)
        except errors.ObjectExists as error:
            return Deleted(item.key, DeletionResult.CHANGED, error)
        except (errors.AccessDenied, errors.KmsDenied) as error:
            return Deleted(item.key, DeletionResult.DENIED, error)
        return Deleted(item.key, DeletionResult.DELETED if marker is None else DeletionResult.HIDDEN)

    def _request(self, todo: Sequence[Deletion], *, compared: bool) -> list[Deleted]:
        objects = [{"Key": item.key} | ({"ETag": item.etag} if compared else {}) for item in todo]
        answer = self.calls.call("DeleteObjects", Delete={"Objects": objects, "Quiet": False})
        deleted = {row.get("Key"): row for row in answer.get("Deleted", ())}
        refused = {row.get("Key"): row for row in answer.get("Errors", ())}
        return [self._answer(item, deleted.get(item.key), refused.get(item.key)) for item in todo]

    def _answer(
        self, item: Deletion, deleted: dict[str, Any] | None, refused: dict[str, Any] | None
    ) -> Deleted:
        if refused is not None:
            return self._refused(item, str(refused.get("Code") or ""), str(refused.get("Message") or ""))
        if deleted is None:
            words = f"{self._attempt(item)}: S3 gave no answer for this key"
            error = errors.Unavailable(words, hint="Tried again by itself")
            return Deleted(item.key, DeletionResult.FAILED, error)
        hidden = bool(deleted.get("DeleteMarker"))
        return Deleted(item.key, DeletionResult.HIDDEN if hidden else DeletionResult.DELETED)

    def _refused(self, item: Deletion, code: str, text: str) -> Deleted:
        answer = Answer(_STATUS_OF.get(code, 400), code, text)
        error = error_for(answer, self._attempt(item), self.clock.now())
        match error:
            case errors.ObjectNotFound():
                return Deleted(item.key, DeletionResult.GONE)
            case errors.ObjectExists():
                # S3 answers the same for a missing key as for a changed one.
                gone = item.etag != _WRONG_ETAG and self.head(item.key) is None
                return Deleted(item.key, DeletionResult.GONE) if gone else self._changed(item, error)
            case errors.AccessDenied() | errors.KmsDenied() | errors.WrongBucketOwner():
                return Deleted(item.key, DeletionResult.DENIED, error)
            case _:
                return Deleted(item.key, DeletionResult.FAILED, error)

    def _changed(self, item: Deletion, error: errors.XmodeError | None = None) -> Deleted:
        words = f"{self._attempt(item)}: it has another ETag than the object that was to be deleted"
        return Deleted(item.key, DeletionResult.CHANGED, error or errors.ObjectExists(words))

    def _attempt(self, item: Deletion) -> Attempt:
        return Attempt("DeleteObjects", self.calls.bucket, item.key)
