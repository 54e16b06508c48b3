"""Which runs can be compared with which, and what their differences are worth."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from benchmarks.config.labels import names, position
from benchmarks.config.settings import Settings
from benchmarks.reporting.statistics import Measure, difference, differs, measure_of
from benchmarks.training.records import Run

WORKLOAD = ("dataset", "model", "batch_size", "epochs", "held_out")


class Workload(NamedTuple):
    """What is compared: the runs of each setting, by setting without its seed, all of one task."""

    examples: dict[str, int]
    settings: list[Settings]
    runs: dict[Settings, list[Run]]  # the finished ones.
    unfinished: list[Run]

    @property
    def first(self) -> Settings:
        """Returns a setting, for what is the same in all."""
        return self.settings[0]

    @property
    def measure(self) -> Measure:
        """Returns what is compared."""
        return measure_of(self.first.dataset)


def workloads(runs: list[Run]) -> list[Workload]:
    """Returns the runs by what they are to be compared on, in the order in which optimizers are listed."""
    found: dict[tuple[Any, ...], Workload] = {}
    for run in sorted(runs, key=lambda run: position(run.settings)):
        kind = (*(getattr(run.settings, name) for name in WORKLOAD), *run.examples.values())
        workload = found.setdefault(kind, Workload(run.examples, [], {}, []))
        setting = dataclasses.replace(run.settings, seed=0)
        if setting not in workload.settings:
            workload.settings.append(setting)
        if run.finished:
            workload.runs.setdefault(setting, []).append(run)
        else:
            workload.unfinished.append(run)
    return list(found.values())


def results(workload: Workload, setting: Settings) -> list[float]:
    """Returns what is compared, for each seed."""
    return [workload.measure.at(run.epochs[-1]) for run in workload.runs[setting]]


def _best(workload: Workload, settings: list[Settings]) -> Settings:
    sign = 1 if workload.measure.best == "highest" else -1

    def rank(setting: Settings) -> float:
        mean = sign * float(np.mean(results(workload, setting)))
        return -math.inf if math.isnan(mean) else mean  # diverged

    return max(settings, key=rank)


def best_of(workload: Workload) -> Settings | None:
    """Returns the setting with the best mean, if there is another to compare it with."""
    several = [setting for setting, runs in workload.runs.items() if len(runs) > 1]
    if len(several) < 2:
        return None
    return _best(workload, several)


def verdict(workload: Workload) -> str:
    """Returns who came first, and from whom that cannot be told apart."""
    if not workload.runs:
        return "No run has finished."
    best, name_of, measure = best_of(workload), names(workload.settings), workload.measure
    top = best or _best(workload, list(workload.runs))
    alone = [setting for setting, runs in workload.runs.items() if len(runs) < 2]
    among = " of several seeds" if best and alone else ""
    text = f"The {measure.best} {workload.first.held_out} {measure.name}{among} is that of {name_of[top]}."
    if len(workload.runs) < 2:
        return text
    if best is None:
        return f"{text} From single runs no difference can be told from noise."
    tied = [
        name_of[setting]
        for setting, runs in workload.runs.items()
        if setting != best
        and len(runs) > 1
        and not differs(results(workload, setting), results(workload, best))
    ]
    if tied:
        text += f" Within noise of it (95 % Welch interval): {', '.join(tied)}."
    return text


def interval(workload: Workload, setting: Settings, best: Settings) -> str:
    """Returns what may be told of the difference of means, with 95 % confidence."""
    return difference(workload.measure, results(workload, setting), results(workload, best))


def seeds(workload: Workload) -> str:
    """Says over how many seeds the figures are means, and whether some are missing."""
    counts = sorted({len(runs) for runs in workload.runs.values()})
    if not counts or counts == [1]:
        return "One seed"
    numbers = " to ".join(map(str, [counts[0], counts[-1]][: len(counts)]))
    return f"Mean ± standard deviation over {numbers} seeds"
