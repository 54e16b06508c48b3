"""Which runs can be compared with which, and what their differences are worth."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.config.labels import names, position
from benchmarks.config.settings import Settings
from benchmarks.data.registry import is_text
from benchmarks.training.records import Run

WORKLOAD = ("dataset", "model", "batch_size", "epochs", "held_out")


class Measure(NamedTuple):
    """A figure that is reported."""

    name: str
    key: str  # of what is recorded of an epoch.
    of: Callable[[float], float]  # returns the figure from that.
    spec: str  # how to print it.
    unit: str = ""
    best: str = "lowest"

    def at(self, epoch: dict[str, Any]) -> float:
        """Returns the figure of an epoch."""
        with np.errstate(over="ignore"):  # of what diverged.
            return float(self.of(epoch[self.key]))


TRAIN_NLL = Measure("train NLL", "train_nll", float, ".4f")
TOP1 = Measure("top-1", "held_out_top1", lambda share: 100 * share, ".2f", " %", "highest")
NLL = Measure("NLL", "held_out_nll", float, ".4f")
PERPLEXITY = Measure("perplexity", "held_out_nll", np.exp, ".2f")


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
        """Returns what is compared: of images the share of right answers, of text the likelihood."""
        return NLL if is_text(self.first.dataset) else TOP1


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
        and not _differs(results(workload, setting), results(workload, best))
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
    if not np.isfinite([*a, *b]).all():
        return True
    low, high = _welch(a, b)
    return low > 0 or high < 0


def interval(workload: Workload, setting: Settings, best: Settings) -> str:
    """Returns what may be told of the difference of means, with 95 % confidence."""
    return difference(workload.measure, results(workload, setting), results(workload, best))


def difference(measure: Measure, a: list[float], b: list[float]) -> str:
    """Returns the 95 % interval of the difference of means as text."""
    if not np.isfinite([*a, *b]).all():
        return "diverged"
    return " to ".join(f"{end:+{measure.spec}}" for end in _welch(a, b))


def seeds(workload: Workload) -> str:
    """Says over how many seeds the figures are means, and whether some are missing."""
    counts = sorted({len(runs) for runs in workload.runs.values()})
    if not counts or counts == [1]:
        return "One seed"
    numbers = " to ".join(map(str, [counts[0], counts[-1]][: len(counts)]))
    return f"Mean ± standard deviation over {numbers} seeds"
