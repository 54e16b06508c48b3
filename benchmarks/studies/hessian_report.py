"""The pictures and the tables of the Hessian's spectrum over training."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator

from benchmarks.config.labels import label
from benchmarks.reporting.figures import COLORS
from benchmarks.reporting.statistics import mean_std
from benchmarks.reporting.tables import table_of
from benchmarks.training.records import Run
from lpoptax import curvature

BINS = 160
WIDTH = 4  # of the Gaussian that stands for a Ritz value, in bins.
LINEAR = 0.01  # the axis of the eigenvalues is linear up to here, logarithmic beyond.
DENSITY_COLORS = colormaps["YlGnBu"].with_extremes(under="white")
CURVES = {
    "largest": ("largest eigenvalue", "log"),
    "negated": ("smallest eigenvalue, negated", "log"),
    "trace": ("trace", "symlog"),
    "directions": ("effective directions, d φ(λ)", "log"),
    "coordinate_evenness": ("evenness of the coordinates' curvature, φ(c)", "linear"),
    "gradient_evenness": ("evenness of the gradient, φ(g)", "linear"),
}
COLUMNS = {
    "largest": "largest",
    "smallest": "smallest",
    "trace": "trace",
    "frobenius_norm": "‖H‖",
    "directions": "d φ(λ)",
    "coordinate_evenness": "φ(c)",
    "gradient_evenness": "φ(g)",
    "loss": "loss",
}


def frame_of(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns a row for each measurement, with what follows from it."""
    rows = [
        {**line, "optimizer": label(run.settings), "seed": run.settings.seed}
        for run in runs
        for line in run.epochs
        if "eigenvalues" in line
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(
        directions=frame.num_params * frame.evenness,
        negated=-frame.smallest,
        convexity=-frame.smallest / frame.largest,
        preference=frame.gradient_evenness / frame.coordinate_evenness**0.5,
    )


def densities(frame: pd.DataFrame, title: str) -> Figure:
    """Returns the density of the eigenvalues: a panel for each optimizer, a row for each epoch."""
    edges = _edges(frame)
    groups = frame.groupby("optimizer", sort=False)
    figure = Figure(figsize=(8, 1.2 + 1.25 * len(groups)), layout="constrained")
    axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (optimizer, same) in zip(axes, groups, strict=True):
        by_epoch = same.groupby("epoch")
        epochs = list(by_epoch.groups)
        rows = np.arange(len(epochs) + 1) - 0.5
        heights = [_expected(at, edges) for _, at in by_epoch]
        mesh = axis.pcolormesh(
            np.sinh(edges) * LINEAR, rows, heights, norm=LogNorm(0.1, 1e4), cmap=DENSITY_COLORS
        )
        for name in ("smallest", "largest"):
            ends = by_epoch[name].mean()
            axis.plot(ends, range(len(epochs)), "|", color="red", markersize=11, markeredgewidth=1.6)
        axis.set_yticks(range(len(epochs)), epochs)
        axis.invert_yaxis()
        axis.set(ylabel="epoch")
        axis.set_title(str(optimizer), fontsize="medium", loc="left", pad=3)
        axis.set_xscale("asinh", linear_width=LINEAR)
    axes[-1].xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=LINEAR))
    axes[-1].xaxis.set_major_formatter("{x:g}")
    axes[-1].set(xlabel="eigenvalue of the Hessian (red: largest and smallest)")
    figure.colorbar(mesh, ax=axes, label="expected number of eigenvalues in a bin", extend="both", aspect=40)
    figure.suptitle(title, fontsize="medium")
    return figure


def _edges(frame: pd.DataFrame) -> np.ndarray:
    """Returns the edges of the bins, equidistant on the axis shown."""
    low, high = np.arcsinh([frame.smallest.min() / LINEAR, frame.largest.max() / LINEAR])
    return np.linspace(low - 0.5, high + 0.5, BINS + 1)


def _expected(frame: pd.DataFrame, edges: np.ndarray) -> np.ndarray:
    """Returns how many eigenvalues fall into each bin, the mean over the seeds."""
    eigenvalues, weights = (
        jnp.asarray(np.concatenate(list(frame[name]))) for name in ("eigenvalues", "weights")
    )
    size = frame.num_params.iloc[0]
    on_axis = curvature.HessianSpectrum(jnp.arcsinh(eigenvalues / LINEAR), weights, jnp.asarray(size))
    step = edges[1] - edges[0]
    density = curvature.spectral_density(on_axis, edges[:-1] + step / 2, WIDTH * step)
    return np.asarray(size * step * density)


def curves(frame: pd.DataFrame, title: str) -> Figure:
    """Returns extremes, trace and evenness by epoch; a band is one standard deviation over the seeds."""
    grid = sns.relplot(
        frame.melt(["optimizer", "seed", "epoch"], list(CURVES), "quantity"),
        kind="line",
        x="epoch",
        y="value",
        hue="optimizer",
        style="optimizer",
        col="quantity",
        palette=COLORS[: frame.optimizer.nunique()],
        markers=True,
        dashes=False,
        errorbar="sd",
        col_wrap=2,
        height=2.4,
        aspect=1.6,
        facet_kws={"sharey": False},
    )
    for axes, (text, scale) in zip(grid.axes.flat, CURVES.values(), strict=True):
        axes.set_yscale(scale, **({"linthresh": 1} if scale == "symlog" else {}))
        axes.set(ylabel="")
        axes.set_title(text, fontsize="medium")
        axes.grid(alpha=0.3)
    grid.figure.suptitle(title, fontsize="medium")
    grid.tight_layout()
    return grid.figure


def table(frame: pd.DataFrame) -> str:
    """Returns what was measured in each epoch, mean and standard deviation over the seeds."""
    groups = frame.groupby(["optimizer", "epoch"], sort=False)
    spreads = groups[list(COLUMNS)].agg(mean_std, ".3g", ".2g").reset_index()
    return table_of(spreads.rename(columns=COLUMNS))


def answer(frame: pd.DataFrame) -> str:
    """Returns in how many runs the premise holds, part by part, and by how much in the middle one."""
    names = ["frobenius_norm", "convexity", "directions", "coordinate_evenness", "preference"]
    runs = frame.groupby(["optimizer", "seed"])[names]
    factors = runs.last() / runs.first()

    def count(name: str, holds: pd.Series) -> str:
        return f"{holds.sum()} of {len(holds)} (median {factors[name].median():.3g})"

    falls = {name: count(name, factors[name] < 1) for name in names}
    rises = {name: count(name, factors[name] > 1) for name in names}
    return "\n".join(
        [
            "From the first measurement to the last, in how many runs, and the factor in the middle one:",
            "",
            f"- Flat late: ‖H‖ falls in {falls['frobenius_norm']}.",
            f"- Convex late: the negative end shrinks beside the positive in {falls['convexity']}.",
            f"- Anisotropic early: the effective directions increase in {rises['directions']}, "
            f"the evenness of the coordinates in {rises['coordinate_evenness']}.",
            f"- A large p early: φ(g)/√φ(c) falls in {falls['preference']}.",
        ]
    )
