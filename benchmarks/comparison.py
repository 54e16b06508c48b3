"""Which runs can be compared with which, and what their differences are worth."""

import dataclasses
import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.optimizers import OPTIMIZERS, label, position
from benchmarks.recording import Run
from benchmarks.settings import Settings

HYPERPARAMETERS = {"learning_rate", "weight_decay"}.union(*(one.takes for one in OPTIMIZERS.values()))
WORKLOAD = ("dataset", "model", "batch_size", "epochs", "held_out")


class Workload(NamedTuple):
    """What is compared: the runs of each setting, by setting without its seed, all of one task."""

    images: dict[str, int]
    settings: list[Settings]
    runs: dict[Settings, list[Run]]  # the finished ones.
    unfinished: list[Run]

    @property
    def first(self) -> Settings:
        """Returns a setting, for what is the same in all."""
        return self.settings[0]


def workloads(runs: list[Run]) -> list[Workload]:
    """Returns the runs by what they are to be compared on, in the order in which optimizers are listed."""
    found: dict[tuple[Any, ...], Workload] = {}
    for run in sorted(runs, key=lambda run: position(run.settings)):
        kind = (*(getattr(run.settings, name) for name in WORKLOAD), *run.images.values())
        workload = found.setdefault(kind, Workload(run.images, [], {}, []))
        setting = dataclasses.replace(run.settings, seed=0)
        if setting not in workload.settings:
            workload.settings.append(setting)
        if run.finished:
            workload.runs.setdefault(setting, []).append(run)
        else:
            workload.unfinished.append(run)
    return list(found.values())


def varying(settings: list[Settings]) -> list[str]:
    """Returns the names of what differs: a hyperparameter between settings of the same optimizer."""
    by_optimizer: dict[str, list[Settings]] = {}
    for setting in settings:
        by_optimizer.setdefault(setting.optimizer, []).append(setting)

    def varies(name: str) -> bool:
        groups = by_optimizer.values() if name in HYPERPARAMETERS else [settings]
        return any(len({getattr(one, name) for one in group}) > 1 for group in groups)

    return [field.name for field in dataclasses.fields(Settings) if varies(field.name)]


def cells(setting: Settings, names: list[str]) -> list[str]:
    """Returns the values of what varies as text."""
    values = [getattr(setting, name) for name in names]
    return ["default" if value is None else str(value) for value in values]


def top1(workload: Workload, setting: Settings) -> list[float]:
    """Returns the top-1 of each seed, in per cent."""
    return [100 * run.epochs[-1]["held_out_top1"] for run in workload.runs[setting]]


def _mean_top1(workload: Workload, setting: Settings) -> float:
    return float(np.mean(top1(workload, setting)))


def names(settings: list[Settings]) -> dict[Settings, str]:
    """Returns a name for each setting, with what sets it apart from others of its optimizer and p."""
    by_label: dict[str, list[Settings]] = {}
    for setting in settings:
        by_label.setdefault(label(setting), []).append(setting)
    shared = [name for name in varying(settings) if name not in HYPERPARAMETERS and name != "optimizer"]
    found = {}
    for text, same in by_label.items():
        more = list(dict.fromkeys([*varying(same), *shared]))
        texts = [name.replace("_", " ") for name in more]
        for setting in same:
            pairs = zip(texts, cells(setting, more), strict=True)
            found[setting] = ", ".join([text, *map(" ".join, pairs)])
    return {setting: found[setting] for setting in settings}


def best_of(workload: Workload) -> Settings | None:
    """Returns the setting with the highest top-1, if there is another to compare it with."""
    several = [setting for setting, runs in workload.runs.items() if len(runs) > 1]
    if len(several) < 2:
        return None
    return max(several, key=lambda setting: _mean_top1(workload, setting))


def verdict(workload: Workload) -> str:
    """Returns who came first, and from whom that cannot be told apart."""
    if not workload.runs:
        return "No run has finished."
    best, name_of = best_of(workload), names(workload.settings)
    top = best or max(workload.runs, key=lambda setting: _mean_top1(workload, setting))
    alone = [setting for setting, runs in workload.runs.items() if len(runs) < 2]
    among = " of several seeds" if best and alone else ""
    text = f"The highest {workload.first.held_out} top-1{among} is that of {name_of[top]}."
    if len(workload.runs) < 2:
        return text
    if best is None:
        return f"{text} From single runs no difference can be told from noise."
    tied = [
        name_of[setting]
        for setting, runs in workload.runs.items()
        if setting != best and len(runs) > 1 and not _differs(top1(workload, setting), top1(workload, best))
    ]
    if tied:
        text += f" Within noise of it (95 % Welch interval): {', '.join(tied)}."
    return text


def _welch(a: list[float], b: list[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the difference of means."""
    if np.ptp(a) == np.ptp(b) == 0:
        return (a[0] - b[0],) * 2
    with warnings.catch_warnings():
        # Seeds that agree in every image: their variance of 0 is right.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return float(found.low), float(found.high)


def _differs(a: list[float], b: list[float]) -> bool:
    low, high = _welch(a, b)
    return low > 0 or high < 0


def interval(a: list[float], b: list[float]) -> str:
    """Returns what may be told of the difference of means, with 95 % confidence."""
    low, high = _welch(a, b)
    return f"{low:+.2f} to {high:+.2f}"


def duration(settings: Settings) -> str:
    """Says for how long a run trains."""
    return "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"


def seeds(workload: Workload) -> str:
    """Says over how many seeds the figures are means, and whether some are missing."""
    counts = sorted({len(runs) for runs in workload.runs.values()})
    if not counts or counts == [1]:
        return "One seed"
    numbers = " to ".join(map(str, [counts[0], counts[-1]][: len(counts)]))
    return f"Mean ± standard deviation over {numbers} seeds"
