"""Times to a target, and what they say of contestants over workloads: performance profiles and ratios."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

LIMIT = 4.0  # how many times as long as the best a profile looks.
NEVER = 4.0  # what a mean counts for a target that is never reached, in budgets.
RESAMPLES = 1_000


def evaluations_to(values: Sequence[float] | np.ndarray, target: float, *, higher: bool) -> float:
    """Returns the number of the first evaluation that reaches a target, infinite if none does."""
    reached = np.asarray(values) >= target if higher else np.asarray(values) <= target
    return float(1 + reached.argmax()) if reached.any() else np.inf


def to_best(times: pd.DataFrame) -> pd.DataFrame:
    """Returns times, by workload and contestant, over the best of the workload; infinite if none has one."""
    best = times.min(axis=1)
    return times.div(best.where(np.isfinite(best), 1.0), axis=0)


def profile(times: pd.DataFrame, factors: np.ndarray) -> pd.DataFrame:
    """Returns the share of workloads that each contestant finishes within a factor of the best."""
    ratios = to_best(times)
    return pd.DataFrame([(ratios <= factor).mean() for factor in factors], factors)


def integral(times: pd.DataFrame) -> pd.Series:
    """Returns the mean of each profile over the factors from 1 to the limit."""
    return ((LIMIT - to_best(times)).clip(lower=0) / (LIMIT - 1)).mean()


def logarithms(times: np.ndarray, never: float = NEVER) -> np.ndarray:
    """Returns logarithms of times in budgets; where the target is never reached, that of some budgets."""
    return np.log(np.where(np.isfinite(times), times, never))


def median_of(times: pd.DataFrame) -> pd.DataFrame:
    """Returns the median over the runs of each workload and contestant, from columns of these names."""
    found = times.groupby(["workload", "contestant"], sort=False).time.median()
    return found.unstack("contestant", sort=False)


def ratio_to(times: pd.DataFrame, reference: str, never: float = NEVER) -> pd.DataFrame:
    """Returns the geometric mean of each contestant's times over the reference's, and a 95 % interval."""
    contestants = list(dict.fromkeys(times.contestant))
    index = contestants.index(reference)

    def ratios(chosen: Sequence[np.ndarray]) -> np.ndarray:
        means = np.mean([logarithms(runs, never).mean(axis=0) for runs in chosen], axis=0)
        return np.exp(means - means[index])

    return _with_interval(ratios, times)


def score(times: pd.DataFrame, less: str | None = None) -> pd.DataFrame:
    """Returns each contestant's integral, or by how much it exceeds another's, and a 95 % interval."""
    contestants = list(dict.fromkeys(times.contestant))

    def scores(chosen: Sequence[np.ndarray]) -> np.ndarray:
        medians = pd.DataFrame([np.median(runs, axis=0) for runs in chosen], columns=contestants)
        found = integral(medians)
        return (found - found[less] if less else found).to_numpy()

    return _with_interval(scores, times)


def _with_interval(
    statistic: Callable[[Sequence[np.ndarray]], np.ndarray], times: pd.DataFrame
) -> pd.DataFrame:
    """Returns a figure of each contestant with the interval of a bootstrap over workloads and their runs."""
    contestants = list(dict.fromkeys(times.contestant))
    # By workload, run and contestant.
    by_workload = [
        np.array([list(group.time[group.contestant == name]) for name in contestants]).T
        for _, group in times.groupby("workload", sort=False)
    ]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        picked = [by_workload[i] for i in rng.integers(len(by_workload), size=len(by_workload))]
        # Each contestant's runs are drawn by themselves: runs of one seed have nothing in common.
        places = [rng.integers(len(runs), size=runs.shape) for runs in picked]
        resampled = [np.take_along_axis(runs, at, axis=0) for runs, at in zip(picked, places, strict=True)]
        drawn.append(statistic(resampled))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return pd.DataFrame({"value": statistic(by_workload), "low": low, "high": high}, contestants)


def best_trial(times: pd.DataFrame, ranks: pd.DataFrame) -> int:
    """Returns the trial that is best over workloads: the first in time, and among equals in its results.

    Both are tables by trial and workload; times are in budgets, ranks those of the last result.
    """
    # Rounded, so that sums in another order are equal still.
    logs = pd.Series(logarithms(times.to_numpy()).mean(axis=1), times.index).round(12)
    order = pd.DataFrame({"time": logs, "rank": ranks.mean(axis=1)})
    return int(order.sort_values(["time", "rank"], kind="stable").index[0])


def cost_of_step(ratio: float, share: float) -> float:
    """Returns a training step's time over that with AdamW, if gradients take `share` of AdamW's steps."""
    return (share + ratio) / (share + 1)
