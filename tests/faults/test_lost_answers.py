"""S3 carries a request out and its answer never arrives; or it answers with trouble that passes."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import Fault
from tests.fakes.store import MemoryObjectStore
from xmode_transfer.model.errors import Unavailable, UploadNotFound, XmodeError


@pytest.fixture(params=[True, False], ids=["resumes", "sends-anew"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryObjectStore, "resumes", request.param)


FILES = {"2026/11/22/a.csv": b"small", "2026/11/22/large.bin": bytes(range(256)) * 2}
OPERATIONS = ["put", "create_upload", "upload_part", "complete_upload", "head"]


def once(operation: str, what: Fault | XmodeError) -> Callable[[str, str, int], Fault | None]:
    """A hook that meets the first request of that kind for each key."""

    def hook(called: str, key: str, attempt: int) -> Fault | None:
        if called != operation or attempt != 1:
            return None
        if isinstance(what, XmodeError):
            raise what
        return what

    return hook


def to_the_end(world: Any) -> None:
    for _ in range(3):
        outcome = world.process()
        world.manifests()
        if outcome is not None and outcome.outcome in ("delivered", "skipped"):
            world.check_end()
            return
    raise AssertionError(outcome)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_lost_answer_doubles_nothing(make_world: Callable[..., Any], operation: str) -> None:
    world = make_world(FILES)
    world.process(faults=once(operation, Fault.LOSE_ANSWER))
    world.manifests()
    to_the_end(world)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_trouble_that_passes_is_passed(make_world: Callable[..., Any], operation: str) -> None:
    world = make_world(FILES)
    outcome = world.process(faults=once(operation, Unavailable("503 for once")))
    assert outcome is not None
    assert outcome.outcome in ("failed", "delivered")
    to_the_end(world)


@pytest.mark.parametrize("operation", ["upload_part", "complete_upload"])
def test_an_upload_that_was_ended_begins_anew(make_world: Callable[..., Any], operation: str) -> None:
    world = make_world(FILES)
    outcome = world.process(faults=once(operation, UploadNotFound("ended by a lifecycle rule")))
    assert outcome is not None
    assert outcome.outcome == "delivered"
    world.check_end()


def test_where_parts_are_refused_one_request_carries_all(make_world: Callable[..., Any]) -> None:
    world = make_world(FILES, corrected=False)
    world.buckets.parts_inherit_acl = False
    outcome = world.process()
    assert outcome is not None
    assert outcome.outcome == "delivered"
    world.check_end()


def test_a_file_that_changes_while_it_is_read_is_told_and_not_delivered(
    make_world: Callable[..., Any],
) -> None:
    world = make_world(FILES)

    def change(name: str, offset: int) -> None:
        world.source.on_read = None
        world.source.overwrite("2026/11/22/large.bin", b"shorter")

    world.source.on_read = change
    outcome = world.process()
    assert outcome is not None
    assert outcome.outcome == "failed"
    assert "2026/11/22/large.bin" in {problem.name for problem in outcome.problems}
    assert world.manifests() == []
    to_the_end(world)


def test_a_file_that_vanishes_while_we_deliver_is_told(make_world: Callable[..., Any]) -> None:
    world = make_world(FILES)

    def remove(called: str, key: str, attempt: int) -> None:
        if called == "create_upload":
            world.source.remove("2026/11/22/large.bin")

    outcome = world.process(faults=remove)
    assert outcome is not None
    assert outcome.outcome == "failed"
    assert world.manifests() == []
    to_the_end(world)
