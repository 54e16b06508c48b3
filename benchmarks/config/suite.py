"""Workloads and contestants of the suite: each is a row of a file.

All search spaces have two factors of ten for the learning rate and three for the weight decay. Their
middles multiply to 1e-4, so that a middling run decays its parameters alike with every optimizer (that of
SGD is ten times as long as its learning rate, for its momentum adds up).
"""

import csv
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import qmc

from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.selection import select
from benchmarks.config.settings import KINDS, Settings, SettingsError, value_of

HERE = Path(__file__).parent
SETTINGS = KINDS.keys() - {"optimizer"}  # that a contestant may have in a column of its own.


class Workload(NamedTuple):
    """What is trained on what, and for how long; each epoch ends with an evaluation."""

    name: str
    dataset: str
    model: str
    batch_size: int
    epochs: int


class Contestant(NamedTuple):
    """An optimizer, and where its learning rate and weight decay are looked for."""

    name: str
    optimizer: str
    settings: dict[str, Any]  # what is not at its default.
    learning_rate: tuple[float, float]
    weight_decay: tuple[float, float]
    timed_as: str  # its name in the study of the time of a step, or empty.


class Cell(NamedTuple):
    """One run of the suite."""

    workload: Workload
    contestant: Contestant
    trial: int  # number of the learning rate and the weight decay.
    seed: int
    held_out: str


@functools.cache
def workloads() -> tuple[Workload, ...]:
    """Returns the workloads, as the file lists them."""
    rows = _rows("workloads.csv")
    return tuple(
        Workload(row["workload"], row["dataset"], row["model"], int(row["batch_size"]), int(row["epochs"]))
        for row in rows
    )


@functools.cache
def contestants() -> tuple[Contestant, ...]:
    """Returns the contestants, as the file lists them."""
    return tuple(map(_contestant, _rows("contestants.csv")))


def _contestant(row: dict[str, str]) -> Contestant:
    rate, decay = ((float(row[f"{name}_from"]), float(row[f"{name}_to"])) for name in ("rate", "decay"))
    settings = {name: value_of(name, text) for name, text in row.items() if name in SETTINGS and text}
    if "p_final" in settings:
        settings["anneal"] = "step"
    return Contestant(row["contestant"], row["optimizer"], settings, rate, decay, row["timed_as"])


def _rows(file: str) -> list[dict[str, str]]:
    with (HERE / file).open(encoding="utf-8", newline="") as content:
        return list(csv.DictReader(content))


@functools.cache
def points(count: int) -> np.ndarray:
    """Returns quasi-random points of the unit square: Halton's, the same for every contestant."""
    return qmc.Halton(2, rng=np.random.default_rng(0)).random(count)


def hyperparameters(contestant: Contestant, trial: int) -> tuple[float, float]:
    """Returns learning rate and weight decay of a trial, with three digits."""
    bounds = np.log([contestant.learning_rate, contestant.weight_decay])
    found = np.exp(bounds[:, 0] + points(trial + 1)[trial] * (bounds[:, 1] - bounds[:, 0]))
    rate, decay = (float(f"{value:.2e}") for value in found)
    return rate, decay


def settings_of(cell: Cell) -> Settings:
    """Returns the settings of a run."""
    workload, contestant = cell.workload, cell.contestant
    if contestant.optimizer not in OPTIMIZERS:
        raise SettingsError(
            f"the optimizer of {contestant.name} in contestants.csv is {contestant.optimizer!r}, "
            f"which is none of {', '.join(OPTIMIZERS)}"
        )
    rate, decay = hyperparameters(contestant, cell.trial)
    named = {
        "batch_size": workload.batch_size,
        "epochs": workload.epochs,
        "learning_rate": rate,
        "weight_decay": decay,
        "held_out": cell.held_out,
        **contestant.settings,
    }
    overrides = {name: [value] for name, value in named.items()}
    (settings,) = select(workload.dataset, workload.model, [contestant.optimizer], [cell.seed], overrides)
    return settings
