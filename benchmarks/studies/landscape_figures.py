"""The pictures of `benchmarks.studies.landscapes`."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.reporting.figures import COLORS

RATES = ("constant", "cosine")
LIMITS = {"xlim": (-2.6, 3.6), "ylim": (-0.6, 5.2)}


class Trajectory(NamedTuple):
    """The points that a run passes on a landscape of two dimensions, and how it went there."""

    landscape: str
    curvature: tuple[float, float]
    optimum: np.ndarray
    p: str
    decays: bool
    learning_rate: float
    points: np.ndarray

    @property
    def losses(self) -> np.ndarray:
        """Returns the loss at each point."""
        return height(self.curvature, self.points - self.optimum)


def height(curvature: tuple[float, float], offsets: np.ndarray) -> np.ndarray:
    """Returns the loss at these offsets from the optimum."""
    return np.asarray(np.sum(np.array(curvature) * offsets**2, axis=-1) / 2)


def draw_landscapes(trajectories: Sequence[Trajectory]) -> Figure:
    """Returns the trajectories over the contours, and the loss by step below."""
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(5, 4))
    landscapes = list(dict.fromkeys(run.landscape for run in trajectories))
    colors = dict(zip(dict.fromkeys(run.p for run in trajectories), COLORS, strict=False))
    for column, landscape in zip(axes.T, landscapes, strict=True):
        there = [run for run in trajectories if run.landscape == landscape]
        _contours(column[0], there[0])
        for run in there:
            color = {"color": colors[run.p]}
            column[1].plot(run.losses, "--" if run.decays else "-", **color)
            if not run.decays:
                label = f"p = {run.p}, rate {run.learning_rate:.2g}"
                column[0].plot(*run.points.T, ".-", **color, markersize=4, linewidth=1, label=label)
        column[0].legend(fontsize="x-small", loc="upper left")
        column[1].set(yscale="log", ylim=(1e-12, 1e5), xlabel="step", ylabel="loss")
        column[1].grid(alpha=0.3)
    for style, label in (("-", "constant rate, as above"), ("--", "cosine-decayed rate")):
        axes[1, 0].plot([], [], style, color="grey", label=label)
    axes[1, 0].legend(fontsize="x-small", loc="lower left")
    return figure


def _contours(axis: Any, run: Trajectory) -> None:
    grid = np.stack(np.meshgrid(*(np.linspace(*limits, 200) for limits in LIMITS.values())), axis=-1)
    heights = height(run.curvature, grid - run.optimum)
    axis.contour(*np.moveaxis(grid, -1, 0), heights, levels=np.geomspace(0.02, 2000, 16), colors="0.85")
    axis.plot(*run.optimum, "k*", markersize=9)
    curvatures = " and ".join(f"{value:g}" for value in run.curvature)
    axis.set(title=f"{run.landscape}: {curvatures}", xlabel="x", ylabel="y", **LIMITS)


def draw_steps(rows: Sequence[dict[str, Any]], target: float) -> Figure:
    """Returns the steps to a target by p: panels for each kind of quadratic, and of rate."""
    rows = [row for row in rows if row["target"] == target]
    kinds = list(dict.fromkeys((row["dimension"], row["rotated"]) for row in rows))
    figure = Figure(figsize=(8, 1.3 + 1.7 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), 2, sharex=True, sharey=True)
    for axis, (kind, rate) in zip(axes.flat, itertools.product(kinds, RATES), strict=True):
        there = [row for row in rows if (row["dimension"], row["rotated"], row["rate"]) == (*kind, rate)]
        _panel(axis, there, sorted({row["condition"] for row in rows}))
        aligned = "rotated" if kind[1] else "along the axes"
        axis.set_title(f"{kind[0]:,} dimensions, {aligned}, {rate} rate", fontsize="small")
    for axis in axes[:, 0]:
        axis.set_ylabel("steps", fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel("p", fontsize="small")
    figure.suptitle(f"Fewest steps to {target:g} of the loss at the start (no marker: not reached)")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, title="condition number", loc="outside lower center", ncols=4, fontsize="small")
    return figure


def _panel(axis: Any, rows: Sequence[dict[str, Any]], conditions: list[float]) -> None:
    labels = list(dict.fromkeys(row["p"] for row in rows))
    fixed = np.array(["→" not in label for label in labels])  # no line leads to those that are annealed.
    for condition in conditions:
        steps = np.array([_number(row["steps"]) for row in rows if row["condition"] == condition])
        if len(steps):
            index = conditions.index(condition)
            style = {"color": COLORS[index], "marker": "os^D"[index], "markersize": 4}
            axis.plot(np.where(fixed, steps, np.nan), **style, label=f"{condition:g}")
            axis.plot(np.where(fixed, np.nan, steps), **style, linestyle="none")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.3)
    axis.set_xticks(range(len(labels)), labels, fontsize="x-small")


def _number(steps: int | str) -> float:
    return np.nan if isinstance(steps, str) else steps
