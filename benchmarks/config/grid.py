"""Grids of runs: what a study tries with an optimizer."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.config.selection import select
from benchmarks.config.settings import Settings

Norm = tuple[float, float]  # the p of the first and of the last step; between them is half a cosine.


class Grid(NamedTuple):
    """What is tried with an optimizer: every rate, with every p if it has one, and fixed settings."""

    optimizer: str
    learning_rates: tuple[float, ...]
    norms: tuple[Norm, ...] = ()
    fixed: Mapping[str, Any] = MappingProxyType({})


def rates(lowest: float, highest: float) -> tuple[float, ...]:
    """Returns 1, 3, 10, 30, ... within these bounds."""
    tried = (float(f"{digit}e{exponent}") for exponent in range(-9, 3) for digit in (1, 3))
    return tuple(rate for rate in tried if lowest <= rate <= highest)


def runs_of(task: Mapping[str, Any], grid: Grid, seeds: Sequence[int]) -> list[Settings]:
    """Returns the runs of a grid on a task, judged on validation data; p changes every step.

    A task has settings by name, of weight decay maybe several.
    """
    named: dict[str, Sequence[Any]] = {
        "batch_size": [task["batch_size"]],
        "epochs": [task["epochs"]],
        "learning_rate": grid.learning_rates,
        "weight_decay": task.get("weight_decay", [0.0]),
        "held_out": ["validation"],
        **{name: [value] for name, value in grid.fixed.items()},
    }
    norms: list[dict[str, Any]] = [
        {"p": [p], "p_final": [p_final], "anneal": ["step"]} for p, p_final in grid.norms
    ] or [{}]
    return [
        run
        for norm in norms
        for run in select(task["dataset"], task["model"], [grid.optimizer], seeds, {**named, **norm})
    ]
