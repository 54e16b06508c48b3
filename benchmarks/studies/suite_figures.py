"""The figures of the suite."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from benchmarks.reporting.figures import COLORS
from benchmarks.reporting.profiles import LIMIT, integral, median_of, profile
from benchmarks.studies.suite_report import OURS

DRAWN = {"AdamW": "--", "Muon": ":"}  # whose profiles are named beside ours.


def draw(tested: pd.DataFrame, track: str) -> Figure:
    """Returns the profiles, and the time to each target as a map; the best contestant stands first."""
    times = median_of(tested)
    scores = integral(times).sort_values(ascending=False, kind="stable")
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    _draw_profiles(left, times[scores.index])
    _draw_times(right, times, scores)
    figure.suptitle(track)
    return figure


def _draw_profiles(axes: Any, times: pd.DataFrame) -> None:
    factors = np.geomspace(1, LIMIT, 400)
    shares = profile(times, factors)
    # By name, so that a contestant has one color in all figures.
    colors = dict(
        zip(sorted(filter(OURS.search, times), reverse=True), itertools.cycle(COLORS), strict=False)
    )
    named = colors.keys() | DRAWN.keys()
    for name in times:
        style = {"color": colors.get(name, "silver"), "linewidth": 2 if name in colors else 1}
        if name in DRAWN:
            style |= {"color": "black", "linestyle": DRAWN[name], "linewidth": 2, "zorder": 3}
        axes.step(factors, shares[name], where="post", label=name if name in named else None, **style)
    axes.set(xscale="log", ylim=(0, 1.02), xlim=(1, LIMIT))
    axes.set(xlabel="steps / fewest of all", ylabel="share of workloads whose target is reached")
    axes.set_xticks([1, 1.5, 2, 3, 4], ["1", "1.5", "2", "3", "4"], minor=False)
    axes.set_xticks([], minor=True)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
    axes.legend(fontsize="small", title="grey: the others", **below)


def _draw_times(axes: Any, times: pd.DataFrame, scores: pd.Series) -> None:
    cells = (100 * times[scores.index]).T
    cells.index = [f"{name}  {score:.2f}" for name, score in scores.items()]
    shown = cells.where(np.isfinite(cells))
    options = {"cmap": "viridis_r", "vmin": 10, "vmax": 100, "linewidths": 1, "cbar": False}
    sns.heatmap(shown, annot=True, fmt=".0f", ax=axes, **options)
    for x, y in np.argwhere(shown.isna().to_numpy())[:, ::-1]:
        axes.text(x + 0.5, y + 0.5, "never", ha="center", va="center", fontsize="small", color="0.4")
    axes.set(title="time to the target, % of the budget, and scores", xlabel="", ylabel="")
    axes.set_xticks(axes.get_xticks(), cells.columns, rotation=40, ha="right")
