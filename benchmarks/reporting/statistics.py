"""The figures that are reported, their means over seeds, and what a difference is worth."""

import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.config.labels import method, p_text, without_seed
from benchmarks.data.registry import objective_of
from benchmarks.training.records import Run

Values: TypeAlias = Sequence[float] | np.ndarray | pd.Series


class Measure(NamedTuple):
    """A figure that is reported."""

    name: str
    key: str  # of the data frame's column.
    spec: str  # how to print it.
    unit: str = ""
    best: str = "lowest"


TRAIN_NLL = Measure("train NLL", "train_nll", ".4f")
TOP1 = Measure("top-1", "top1", ".2f", " %", "highest")
NLL = Measure("NLL", "held_out_nll", ".4f")
MSE = Measure("squared error", "held_out_mse", ".5f")
PERPLEXITY = Measure("perplexity", "perplexity", ".2f")


def measure_of(dataset: str) -> Measure:
    """Returns what is compared: the share of right answers, the likelihood or the squared error."""
    return {"nll": NLL, "top1": TOP1, "mse": MSE}[objective_of(dataset).judged_by]


def frame_of(runs: Iterable[Run]) -> pd.DataFrame:
    """Returns a row for each epoch of each run: its settings, p as text, and what was measured."""
    with np.errstate(over="ignore"):  # of what diverged.
        rows = [
            {
                **epoch,
                **vars(run.settings),
                "top1": 100 * epoch.get("held_out_top1", np.nan),
                "perplexity": np.exp(epoch.get("held_out_nll", np.nan)),
                "p_now": epoch.get("p", np.nan),
                "setting": without_seed(run.settings),
                "method": method(run.settings),
                "p": p_text(run.settings),
            }
            for run in runs
            for epoch in run.epochs
            if epoch["epoch"] > 0
        ]
    return pd.DataFrame(rows)


def final(runs: Iterable[Run]) -> pd.DataFrame:
    """Returns a row for each run that has finished: how it ended."""
    frame = frame_of(runs)
    frame = frame[frame.epoch == frame.epochs]
    # Of a run that diverged nothing is shown, whatever it got right by chance.
    shown = [row[measure_of(row.dataset).key] for _, row in frame.iterrows()]
    return frame.assign(shown=pd.Series(shown, frame.index).where(np.isfinite(frame.held_out_nll)))


def scores(frame: pd.DataFrame, by: str | list[str], measure: Measure = NLL) -> pd.Series:
    """Returns what decides which group is best, the lowest: a mean over runs, infinite if one diverged."""
    sign = 1 if measure.best == "lowest" else -1
    means = frame.groupby(by, sort=False)[measure.key].agg(lambda values: sign * values.to_numpy().mean())
    return means.fillna(np.inf)


def is_at_an_end(chosen: float, tried: Collection[float]) -> bool:
    """Says whether nothing lower, or nothing higher, was tried."""
    return chosen in (min(tried), max(tried))


def mean_std(values: Values, spec: str, spec_of_std: str | None = None) -> str:
    """Returns mean and standard deviation as text."""
    values = np.asarray(values)  # of a series pandas would leave out what diverged.
    with np.errstate(invalid="ignore"):  # the spread of what diverged to infinity.
        spread = f" ± {np.std(values, ddof=1):{spec_of_std or spec}}" if len(values) > 1 else ""
    return f"{np.mean(values):{spec}}{spread}"


def welch(a: Values, b: Values) -> tuple[float, float] | None:
    """Returns the 95 % interval of the difference of means, or None if a run diverged."""
    a, b = np.asarray(a), np.asarray(b)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    if np.ptp(a) == np.ptp(b) == 0:
        return (float(a[0] - b[0]),) * 2
    with warnings.catch_warnings():
        # Seeds that agree in every image: their variance of 0 is right.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return float(found.low), float(found.high)


def differs(a: Values, b: Values) -> bool:
    """Says whether a difference of means cannot be noise, with 95 % confidence."""
    found = welch(a, b)
    return found is None or found[0] > 0 or found[1] < 0


def difference(measure: Measure, a: Values, b: Values) -> str:
    """Returns the 95 % interval of the difference of means as text."""
    found = welch(a, b)
    return "diverged" if found is None else " to ".join(f"{end:+{measure.spec}}" for end in found)
