"""The configuration as a whole, and the mistakes that were found in it."""

from collections.abc import Mapping
from dataclasses import dataclass

from xmode_transfer.domain.config.customer import Customer
from xmode_transfer.domain.config.feed import Feed
from xmode_transfer.domain.config.service import Service


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake: in which file (relative to the config directory), where (from 1; 0 when no place is
    known), at which key, and what is wrong, in one sentence."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Configuration:
    """All of it.

    ``customers`` are those whose files are in order, retired ones too. A customer in ``broken`` is there with
    every reason why, and is left alone. ``problems`` has every mistake of every file, unused feeds included;
    ``hints`` what looks like one and is taken all the same.
    """

    service: Service
    feeds: Mapping[str, Feed]
    customers: Mapping[str, Customer]
    broken: Mapping[str, tuple[Problem, ...]]
    problems: tuple[Problem, ...] = ()
    hints: tuple[Problem, ...] = ()
