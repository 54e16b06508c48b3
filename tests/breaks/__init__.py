"""Deliberate breaks, each of which the tests must catch."""

from typing import NamedTuple


class Break(NamedTuple):
    """What stands in a file once, what takes its place, and the test module that must fail."""

    file: str
    old: str
    new: str
    tests: str
