"""Ctrl-C between two steps instead of within one."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console


@contextlib.contextmanager
def interruption(console: Console) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C was pressed or the process told to end.

    Within a step the params are donated, and nothing could be saved. A second Ctrl-C acts
    at once.
    """
    requested = False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True
        console.print("Stopping as soon as nothing is lost. Again stops at once.")

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
