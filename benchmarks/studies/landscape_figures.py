"""The pictures of `benchmarks.studies.landscapes`."""

from functools import partial

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from benchmarks.reporting.figures import COLORS, contours

OPTIMUM = np.array([1.0, 4.0])
LIMITS = {"xlim": (-2.6, 3.6), "ylim": (-0.6, 5.2)}


def height(points: np.ndarray, curvature: tuple[float, float]) -> np.ndarray:
    """Returns the loss at points [..., 2]."""
    return np.asarray(np.sum(np.array(curvature) * (points - OPTIMUM) ** 2, axis=-1) / 2)


def draw_landscapes(paths: pd.DataFrame, curvatures: dict[str, tuple[float, float]]) -> Figure:
    """Returns the paths at constant rates over the contours, and all losses by step below."""
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(5, 4))
    for (top, bottom), (name, curvature) in zip(axes.T, curvatures.items(), strict=True):
        there = paths[paths.landscape == name]
        contours(top, partial(height, curvature=curvature), **LIMITS, levels=np.geomspace(0.02, 2000, 16))
        top.plot(*OPTIMUM, "k*", markersize=9)
        top.set(title=f"{name} anisotropic: {curvature[0]:g} and {curvature[1]:g}")
        constant = there[there.rate == "constant"].groupby(["p", "learning_rate"], sort=False)
        for color, ((p, rate), path) in zip(COLORS, constant, strict=False):
            label = f"p = {p}, rate {rate:.2g}"
            top.plot(path.x, path.y, ".-", color=color, markersize=4, linewidth=1, label=label)
        top.legend(fontsize="x-small", loc="upper left")
        sns.lineplot(there, x="step", y="loss", hue="p", style="rate", palette=COLORS[:4], ax=bottom)
        bottom.set(yscale="log", ylim=(1e-12, 1e5))
        bottom.legend(fontsize="x-small", loc="lower left", ncols=2)
        bottom.grid(alpha=0.3)
    return figure


def draw_steps(rows: pd.DataFrame, target: float) -> Figure:
    """Returns the steps to a target by p: a panel for each kind of quadratic, and of rate."""
    rows = rows[rows.target == target]
    aligned = rows.rotated.map({True: "rotated", False: "along the axes"})
    grid = sns.relplot(
        rows.assign(
            steps=pd.to_numeric(
                rows.steps, errors="coerce"
            ),  # no number, and no marker, where it is not reached.
            quadratic=rows.dimension.map("{:,} dimensions, ".format) + aligned,
        ),
        x="p",
        y="steps",
        hue="condition",
        style="condition",
        row="quadratic",
        col="rate",
        palette=COLORS[: rows.condition.nunique()],
        height=1.8,
        aspect=2.2,
    )
    grid.set_titles("{row_name}, {col_name} rate", size="small").set(yscale="log")
    grid.set_ylabels(f"steps to {target:g}").tick_params("x", labelsize="x-small")
    for axes in grid.axes.flat:
        axes.grid(alpha=0.3)
    return grid.figure
