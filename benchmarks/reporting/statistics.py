"""The figures that are reported, their means over seeds, and what a difference is worth."""

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.config.labels import method, p_text
from benchmarks.config.optimizers import swept
from benchmarks.data.registry import is_text
from benchmarks.training.records import Run


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


def measure_of(dataset: str) -> Measure:
    """Returns what is compared: of images the share of right answers, of text the likelihood."""
    return NLL if is_text(dataset) else TOP1


def mean_std(values: Sequence[float], spec: str) -> str:
    """Returns mean and standard deviation as text."""
    with np.errstate(invalid="ignore"):  # the spread of what diverged to infinity.
        spread = f" ± {np.std(values, ddof=1):{spec}}" if len(values) > 1 else ""
    return f"{np.mean(values):{spec}}{spread}"


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the difference of means."""
    if np.ptp(a) == np.ptp(b) == 0:
        return (a[0] - b[0],) * 2
    with warnings.catch_warnings():
        # Seeds that agree in every image: their variance of 0 is right.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return float(found.low), float(found.high)


def differs(a: Sequence[float], b: Sequence[float]) -> bool:
    """Says whether a difference of means cannot be noise, with 95 % confidence."""
    if not np.isfinite([*a, *b]).all():
        return True
    low, high = welch(a, b)
    return low > 0 or high < 0


def difference(measure: Measure, a: Sequence[float], b: Sequence[float]) -> str:
    """Returns the 95 % interval of the difference of means as text."""
    if not np.isfinite([*a, *b]).all():
        return "diverged"
    return " to ".join(f"{end:+{measure.spec}}" for end in welch(a, b))


def final(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns a row for each run: which it was, and how its last epoch ended."""
    rows = [
        {
            "dataset": run.settings.dataset,
            "method": method(run.settings),
            "p": p_text(run.settings),
            "p_first": swept(run.settings).p,
            "p_last": swept(run.settings).p_final,
            **{name: getattr(run.settings, name) for name in ("learning_rate", "weight_decay", "seed")},
            **{name: run.epochs[-1][name] for name in ("held_out_nll", "held_out_top1")},
        }
        for run in runs
    ]
    frame = pd.DataFrame(rows)
    shown = [measure_of(run.settings.dataset).at(run.epochs[-1]) for run in runs]
    # Of a run that diverged nothing is shown, whatever it got right by chance.
    return frame.assign(shown=np.where(np.isfinite(frame.held_out_nll), shown, np.nan))


def scores(frame: pd.DataFrame, by: list[str]) -> pd.Series:
    """Returns the mean NLL of each group, infinite if a run diverged: it decides what is best."""
    means = frame.groupby(by, sort=False).held_out_nll.agg(lambda values: values.to_numpy().mean())
    return means.fillna(np.inf)


def is_at_an_end(chosen: float, tried: Collection[float]) -> bool:
    """Says whether nothing lower, or nothing higher, was tried."""
    return chosen in (min(tried), max(tried))
