"""One JSON document with a long list in it, written as it comes: a million rows need no memory."""

import json
from collections.abc import Mapping
from typing import TextIO

_ENCODER = json.JSONEncoder(ensure_ascii=False)


class JsonDocument:
    """``{<members>, "<list>": [<rows>], <members>}``. Nothing is written before the first row or the end, so
    that what goes wrong at the beginning can still be told in a document of its own."""

    def __init__(self, stream: TextIO, rows: str, **members: object) -> None:
        self._stream = stream
        self._rows = rows
        self._members = members
        self._count = 0
        self.begun = False

    def row(self, row: Mapping[str, object]) -> None:
        self._begin()
        self._stream.write(("," if self._count else "") + _ENCODER.encode(row))
        self._count += 1

    def end(self, **members: object) -> None:
        self._begin()
        tail = "".join(
            f", {_ENCODER.encode(name)}: {_ENCODER.encode(value)}" for name, value in members.items()
        )
        self._stream.write(f"]{tail}}}\n")
        self._stream.flush()

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            head = "".join(
                f"{_ENCODER.encode(name)}: {_ENCODER.encode(value)}, "
                for name, value in self._members.items()
            )
            self._stream.write(f"{{{head}{_ENCODER.encode(self._rows)}: [")
