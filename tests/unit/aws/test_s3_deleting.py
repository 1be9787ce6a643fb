"""Deleting many: what each kind of store answers, and that nothing goes which has another ETag."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes import MemoryClock
from xmode_transfer.aws.s3_deleting import BatchDeletes
from xmode_transfer.aws.stores import Deleted, Deletion, DeletionResult
from xmode_transfer.model.errors import AccessDenied, ObjectExists, RequestRefused, Throttled, Unavailable
from xmode_transfer.model.records import ObjectInfo

AT = datetime(2026, 11, 22, tzinfo=UTC)
KEYS = ("a", "b", "c", "d")


class Store:
    """A bucket behind DeleteObjects. ``compares`` ETags or ignores them; ``refuses`` fails requests as a
    whole; ``errors`` are its answers for single keys; ``silent`` keys get none."""

    bucket = "acme-data"

    def __init__(self) -> None:
        self.objects = {key: f'"{key}1"' for key in KEYS}
        self.compares = True
        self.versioned = False
        self.refuses: Any = lambda objects: None
        self.errors: dict[str, str] = {}
        self.silent: set[str] = set()
        self.requests: list[list[dict[str, str]]] = []
        self.heads = 0

    def call(self, operation: str, key: str | None = None, **parameters: Any) -> dict[str, Any]:
        assert (operation, key, parameters["Delete"]["Quiet"]) == ("DeleteObjects", None, False)
        objects = parameters["Delete"]["Objects"]
        self.requests.append(objects)
        if (refusal := self.refuses(objects)) is not None:
            raise refusal
        deleted, errors = [], []
        for item in objects:
            name = item["Key"]
            if name in self.errors:
                errors.append({"Key": name, "Code": self.errors[name], "Message": "because"})
            elif self.compares and "ETag" in item and self.objects.get(name) != item["ETag"]:
                errors.append({"Key": name, "Code": "PreconditionFailed"})
            elif name not in self.silent:
                self.objects.pop(name, None)
                deleted.append({"Key": name, **({"DeleteMarker": True} if self.versioned else {})})
        return {"Deleted": deleted, "Errors": errors}

    def head(self, key: str) -> ObjectInfo | None:
        self.heads += 1
        etag = self.objects.get(key)
        return etag and ObjectInfo(key, 1, etag, None, None, None, AT)  # type: ignore[return-value]

    def delete(self, key: str, etag: str) -> str | None:
        if self.errors.get(key) == "AccessDenied":
            raise AccessDenied("no")
        if self.objects.get(key) not in (etag, None):
            raise ObjectExists("changed")
        self.objects.pop(key, None)
        return "marker" if self.versioned else None


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def delete_many(store: Store) -> BatchDeletes:
    return BatchDeletes(store, MemoryClock(), store.head, store.delete)


WANTED = [Deletion(key, f'"{key}1"') for key in KEYS]


def results(answers: list[Deleted]) -> list[str]:
    return [str(answer.result) for answer in answers]


def test_aws_compares_and_is_asked_in_one_request_from_then_on(
    store: Store, delete_many: BatchDeletes
) -> None:
    store.objects["b"] = '"theirs"'
    del store.objects["c"]
    assert results(delete_many(WANTED)) == ["deleted", "changed", "gone", "deleted"]
    assert store.objects == {"b": '"theirs"'}
    probe, request = store.requests
    assert probe == [{"Key": "a", "ETag": '"00000000000000000000000000000000"'}]
    assert request == [{"Key": item.key, "ETag": item.etag} for item in WANTED]
    delete_many(WANTED[:1])
    assert len(store.requests) == 3


def test_a_store_that_ignores_etags_is_found_out_on_an_object_that_was_to_go(
    store: Store, delete_many: BatchDeletes
) -> None:
    store.compares = False
    store.objects |= {"a": '"theirs"', "c": '"theirs"'}
    assert results(delete_many(WANTED)) == ["changed", "deleted", "changed", "deleted"]
    assert store.objects == {"a": '"theirs"', "c": '"theirs"'}
    assert [[item["Key"] for item in request] for request in store.requests] == [["b"], ["d"]]
    assert "ETag" not in store.requests[1][0]
    store.objects["d"] = '"theirs too"'
    assert results(delete_many(WANTED[3:])) == ["changed"]
    assert store.objects["d"] == '"theirs too"'


@pytest.mark.parametrize("status", [501, 400])
def test_a_store_that_refuses_etags_is_asked_without_after_a_head(
    store: Store, delete_many: BatchDeletes, status: int
) -> None:
    store.refuses = lambda objects: (
        RequestRefused("what is ETag?", http_status=status) if "ETag" in objects[0] else None
    )
    store.objects["b"] = '"theirs"'
    assert results(delete_many(WANTED)) == ["deleted", "changed", "deleted", "deleted"]
    assert store.objects == {"b": '"theirs"'}


def test_a_store_without_delete_objects_is_asked_one_by_one(store: Store, delete_many: BatchDeletes) -> None:
    store.refuses = lambda objects: RequestRefused("no DeleteObjects", http_status=501)
    store.objects["b"] = '"theirs"'
    assert results(delete_many(WANTED)) == ["deleted", "changed", "deleted", "deleted"]
    asked = len(store.requests)
    assert results(delete_many(WANTED)) == ["deleted", "changed", "deleted", "deleted"]
    assert len(store.requests) == asked


def test_every_keys_error_is_read(store: Store, delete_many: BatchDeletes) -> None:
    store.errors = {"a": "SlowDown", "b": "AccessDenied", "c": "NoSuchKey"}
    store.silent = {"d"}
    delete_many._compares = True
    answers = delete_many(WANTED)
    assert results(answers) == ["failed", "denied", "gone", "failed"]
    assert isinstance(answers[0].error, Throttled)
    assert isinstance(answers[1].error, AccessDenied)
    assert isinstance(answers[3].error, Unavailable)  # an answer that is missing is none
    assert store.objects.keys() == set(KEYS)


@pytest.mark.parametrize(
    ("code", "result", "passes"),
    [
        ("InternalError", "failed", True),
        ("ServiceUnavailable", "failed", True),
        ("OperationAborted", "failed", True),
        ("ConditionalRequestConflict", "failed", True),
        ("MethodNotAllowed", "failed", False),
        ("", "failed", False),
        ("AccessDenied", "denied", False),
        ("InvalidObjectState", "denied", False),
    ],
)
def test_what_a_keys_error_means(
    store: Store, delete_many: BatchDeletes, code: str, result: str, passes: bool
) -> None:
    store.errors = {"a": code}
    delete_many._compares = True
    (answer,) = delete_many(WANTED[:1])
    assert str(answer.result) == result
    assert answer.error is not None
    assert answer.error.retryable is passes
    assert "acme-data/a" in answer.error.message


def test_a_marker_hides(store: Store, delete_many: BatchDeletes) -> None:
    store.versioned = True
    assert results(delete_many(WANTED)) == ["hidden"] * 4
    store.objects = {key: f'"{key}1"' for key in KEYS}
    store.compares = False
    other = BatchDeletes(store, MemoryClock(), store.head, store.delete)
    assert results(other(WANTED)) == ["hidden"] * 4


def test_a_refusal_of_the_whole_request_is_looked_into_key_by_key(
    store: Store, delete_many: BatchDeletes
) -> None:
    """Some stores answer so when one key of many may not be deleted."""
    store.errors = {"b": "AccessDenied"}
    store.refuses = lambda objects: (
        AccessDenied("403") if any(item["Key"] in store.errors for item in objects) else None
    )
    assert results(delete_many(WANTED)) == ["deleted", "denied", "deleted", "deleted"]
    assert store.objects.keys() == {"b"}


def test_where_the_first_may_not_go_the_next_tells(store: Store, delete_many: BatchDeletes) -> None:
    store.errors = {"a": "AccessDenied"}
    store.objects["b"] = '"theirs"'
    assert results(delete_many(WANTED)) == ["denied", "changed", "deleted", "deleted"]
    assert [item["Key"] for item in store.requests[-1]] == ["c", "d"]


def test_what_concerns_the_request_is_raised(store: Store, delete_many: BatchDeletes) -> None:
    delete_many._compares = True
    store.refuses = lambda objects: Unavailable("the line is dead")
    with pytest.raises(Unavailable):
        delete_many(WANTED)
    assert store.objects.keys() == set(KEYS)


def test_an_answer_that_is_failed_while_finding_out_leaves_it_open(
    store: Store, delete_many: BatchDeletes
) -> None:
    store.errors = {"a": "SlowDown"}
    assert results(delete_many(WANTED[:1])) == [str(DeletionResult.FAILED)]
    store.errors = {}
    store.objects["b"] = '"theirs"'
    assert results(delete_many(WANTED)) == ["deleted", "changed", "deleted", "deleted"]
