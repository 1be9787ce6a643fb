"""Help must not import what a command works with, so the commands spell some words of the records again."""

import click
import pytest

from xmode_transfer.access.catalogue import Cause
from xmode_transfer.access.lint.records import Kind
from xmode_transfer.aws.policy.documents import Step
from xmode_transfer.cli import access, cleanup, policy
from xmode_transfer.upkeep.retention import Reason

EXPIRING = {Reason.EMPTY, Reason.TOO_OLD, Reason.BEYOND_LAST, Reason.TOO_MUCH}


@pytest.mark.parametrize(
    ("command", "option", "words"), [("print", "step", set(Step)), ("lint", "kind", set(Kind))]
)
def test_an_option_offers_the_words_of_its_record(command: str, option: str, words: set[str]) -> None:
    (found,) = (one for one in policy.command.commands[command].params if one.name == option)
    assert isinstance(found.type, click.Choice)
    assert set(found.type.choices) == words


def test_each_reason_to_keep_a_delivery_has_its_words() -> None:
    assert set(cleanup._KEPT) == set(Reason) - EXPIRING


def test_the_limits_of_the_guide_are_causes() -> None:
    assert set(access._LIMITS) <= set(Cause)
