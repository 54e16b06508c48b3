"""The picture of a comparison: what was measured at each epoch, and the p of each optimizer."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.config.settings import Settings
from benchmarks.reporting.figures import band
from benchmarks.reporting.statistics import TOP1, measure_of

# A cycle of colors for each way of drawing a line; without the grey, which is for the grid.
STYLES = cycler(linestyle=["-", "--", ":"]) * cycler(color=[f"C{index}" for index in (*range(7), 8, 9)])

NAMES = {"held_out_nll": "NLL (log perplexity)"}


def curves(frame: pd.DataFrame, labels: Mapping[Settings, str], title: str) -> Figure:
    """Returns train NLL and held-out error or NLL by epoch, with a band of one standard deviation, and p."""
    figure = Figure(figsize=(8, 9), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    measure = measure_of(frame.dataset.iloc[0])
    of_classes = measure is TOP1
    frame = frame.assign(error=100 - frame.top1)
    by_p: dict[tuple[float, ...], list[dict[str, Any]]] = {}
    for cycled, (setting, same) in zip(itertools.cycle(STYLES), frame.groupby("setting", sort=False)):
        style = {**cycled, "label": labels[setting]}
        _band(axes[0], same, "train_nll", style)
        _band(axes[1], same, "error" if of_classes else measure.key, style)
        p = same[same.seed == same.seed.iloc[0]].p_now
        if p.notna().any():
            by_p.setdefault(tuple(p), []).append(style)
    for values, styles in by_p.items():
        shared = {**styles[0], "label": ", ".join(style["label"] for style in styles)}
        axes[2].plot(range(1, len(values) + 1), values, marker="o", markersize=3, **shared)
    if any(len(styles) > 1 for styles in by_p.values()):
        axes[2].legend(fontsize="small")
    axes[0].set(ylabel="train NLL")
    shown = "error, %" if of_classes else NAMES.get(measure.key, measure.name)
    axes[1].set(ylabel=f"{frame.held_out.iloc[0]} {shown}")
    axes[2].set(ylabel="p, end of epoch", xlabel="epoch")
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    for axis in axes:
        axis.grid(alpha=0.3)
    for axis in axes[:2] if of_classes else ():
        _scale(axis)
    figure.suptitle(title, fontsize="medium")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _band(axis: Any, frame: pd.DataFrame, name: str, style: dict[str, Any]) -> None:
    values = frame.pivot(index="seed", columns="epoch", values=name).to_numpy()
    with np.errstate(invalid="ignore"):  # the spread of what diverged to infinity.
        std = values.std(axis=0, ddof=min(1, len(values) - 1))
    epochs = range(1, values.shape[1] + 1)
    band(axis, epochs, values.mean(axis=0), std, marker="o", markersize=3, **style)


def _scale(axis: Any) -> None:
    if not any(np.any(np.isfinite(y) & (y > 0)) for y in (line.get_ydata() for line in axis.lines)):
        return  # nothing has a logarithm: all runs diverged, or none errs.
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 5 * low else (1, 1.5, *range(2, 10))))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
