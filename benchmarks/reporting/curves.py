"""The picture of a comparison: what was measured at each epoch, and the p of each optimizer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.config.settings import Settings
from benchmarks.reporting.figures import band
from benchmarks.training.records import Run

COLORS = [f"C{index}" for index in (0, 1, 2, 3, 4, 5, 6, 8, 9)]  # without the grey, for the grid.
STYLES = ("-", "--", ":")  # a cycle of colors each.


def curves(
    runs: Mapping[Settings, list[Run]],
    labels: Mapping[Settings, str],
    title: str,
    *,
    likelihood: bool = False,
) -> Figure:
    """Returns train NLL and held-out error by epoch, with a band of one standard deviation, and p.

    With `likelihood` the held-out NLL takes the place of the error.
    """
    figure = Figure(figsize=(8, 9), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    by_p: dict[tuple[float, ...], list[dict[str, Any]]] = {}
    for index, (setting, same) in enumerate(runs.items()):
        cycle, color = divmod(index, len(COLORS))
        style = {"color": COLORS[color], "linestyle": STYLES[cycle % 3], "label": labels[setting]}
        _band(axes[0], _values(same, "train_nll"), style)
        held_out = _values(same, "held_out_nll") if likelihood else 100 * (1 - _values(same, "held_out_top1"))
        _band(axes[1], held_out, style)
        p = tuple(epoch.get("p", np.nan) for epoch in same[0].epochs)
        if not np.isnan(p).all():
            by_p.setdefault(p, []).append(style)
    for p, styles in by_p.items():
        shared = {**styles[0], "label": ", ".join(style["label"] for style in styles)}
        axes[2].plot(range(1, len(p) + 1), p, marker="o", markersize=3, **shared)
    if any(len(styles) > 1 for styles in by_p.values()):
        axes[2].legend(fontsize="small")
    held_out_label = "NLL (log perplexity)" if likelihood else "error, %"
    _label(axes, f"{next(iter(runs)).held_out} {held_out_label}")
    if not likelihood:
        _scale(axes[:2])
    figure.suptitle(title, fontsize="medium")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _scale(axes: Any) -> None:
    for axis in axes:
        if not any(np.any(np.isfinite(y) & (y > 0)) for y in (line.get_ydata() for line in axis.lines)):
            continue  # nothing has a logarithm: all runs diverged, or none errs.
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.yaxis.set_major_locator(
            LogLocator(subs=(1, 2, 5) if high > 5 * low else (1, 1.5, *range(2, 10)))
        )
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())


def _label(axes: Any, held_out: str) -> None:
    axes[0].set(ylabel="train NLL")
    axes[1].set(ylabel=held_out)
    axes[2].set(ylabel="p, end of epoch", xlabel="epoch")
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    for axis in axes:
        axis.grid(alpha=0.3)


def _values(runs: list[Run], name: str) -> np.ndarray:
    return np.array([[epoch[name] for epoch in run.epochs] for run in runs])


def _band(axis: Any, values: np.ndarray, style: dict[str, Any]) -> None:
    mean = values.mean(axis=0)
    with np.errstate(invalid="ignore"):  # the spread of what diverged to infinity.
        std = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(mean)
    band(axis, range(1, len(mean) + 1), mean, std, marker="o", markersize=3, **style)
