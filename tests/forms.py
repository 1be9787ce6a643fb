"""The two forms of a test: the short one of `make check`, and the long one of `make soak`.

A test that has both is marked ``short``; what only `make soak` runs is marked ``slow``.
"""

import os

IS_SOAK = "XMODE_SOAK" in os.environ


def examples(short: int) -> int:
    """How many a property is tried with that costs much: ten times as many in the long form."""
    return 10 * short if IS_SOAK else short


def points(every: int, first: int = 1) -> range:
    """Where something happens, counted from 1: at each point in the long form, else at every so-manyth."""
    return range(1, 400) if IS_SOAK else range(first, 400, every)
