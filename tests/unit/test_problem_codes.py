"""Every code of a file that cannot be delivered has a row in docs/sources.md, and no other has."""

import re
from pathlib import Path

from xmode_transfer.model.errors import KeyCollision
from xmode_transfer.sources.interface import ProblemCode
from xmode_transfer.transfer.planning import ILLEGAL_NAME

MANUAL = Path(__file__).parents[2] / "docs" / "sources.md"


def test_every_code_is_in_the_manual() -> None:
    sections = MANUAL.read_text(encoding="utf-8").partition("## Files that cannot be delivered")[2]
    rows = [
        line.split(" | ") for line in sections.partition("\n## A ")[0].splitlines() if line.startswith("| `")
    ]
    documented = [code for row in rows for code in re.findall(r"`([a-z0-9_]+)`", row[0])]
    assert sorted(documented) == sorted([*map(str, ProblemCode), ILLEGAL_NAME, KeyCollision.code])
    assert all(len(row) == 3 and all(cell.strip(" |") for cell in row) for row in rows)
