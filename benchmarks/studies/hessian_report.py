"""The pictures and the tables of the Hessian's spectrum over training."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator

from benchmarks.reporting.figures import COLORS
from benchmarks.reporting.tables import markdown_table
from lpoptax import curvature

Record = dict[str, Any]  # of one epoch.
Measured = dict[str, list[list[Record]]]  # by the optimizer's label, for each seed, for each epoch.
BINS = 160
WIDTH = 4  # of the Gaussian that stands for a Ritz value, in bins.
LINEAR = 0.01  # the axis of the eigenvalues is linear up to here, logarithmic beyond.
DENSITY_COLORS = colormaps["YlGnBu"].with_extremes(under="white")
MARKERS = "osD^v"
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


def densities(measured: Measured, title: str) -> Figure:
    """Returns the density of the eigenvalues: a panel for each optimizer, a row for each epoch."""
    records = [record for seeds in measured.values() for run in seeds for record in run]
    edges = _edges(records)
    figure = Figure(figsize=(8, 1.2 + 1.25 * len(measured)), layout="constrained")
    axes = figure.subplots(len(measured), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, seeds) in zip(axes, measured.items(), strict=True):
        epochs = [record["epoch"] for record in seeds[0]]
        rows = np.arange(len(epochs) + 1) - 0.5
        heights = [_expected(same, edges) for same in zip(*seeds, strict=True)]
        mesh = axis.pcolormesh(
            np.sinh(edges) * LINEAR, rows, heights, norm=LogNorm(0.1, 1e4), cmap=DENSITY_COLORS
        )
        for name in ("smallest", "largest"):
            ends = [np.mean([record[name] for record in same]) for same in zip(*seeds, strict=True)]
            axis.plot(ends, range(len(epochs)), "|", color="red", markersize=11, markeredgewidth=1.6)
        axis.set_yticks(range(len(epochs)), epochs)
        axis.invert_yaxis()
        axis.set(ylabel="epoch")
        axis.set_title(label, fontsize="medium", loc="left", pad=3)
        axis.set_xscale("asinh", linear_width=LINEAR)
    axes[-1].xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=LINEAR))
    axes[-1].xaxis.set_major_formatter("{x:g}")
    axes[-1].set(xlabel="eigenvalue of the Hessian (red: largest and smallest)")
    figure.colorbar(mesh, ax=axes, label="expected number of eigenvalues in a bin", extend="both", aspect=40)
    figure.suptitle(title, fontsize="medium")
    return figure


def _edges(records: Sequence[Record]) -> np.ndarray:
    """Returns the edges of the bins, equidistant on the axis shown."""
    reach = [np.arcsinh(record[name] / LINEAR) for record in records for name in ("smallest", "largest")]
    return np.linspace(min(reach) - 0.5, max(reach) + 0.5, BINS + 1)


def _expected(records: Sequence[Record], edges: np.ndarray) -> np.ndarray:
    """Returns how many eigenvalues fall into each bin, the mean over the seeds."""
    eigenvalues, weights = (
        jnp.concatenate([jnp.asarray(record[name]) for record in records])
        for name in ("eigenvalues", "weights")
    )
    size = records[0]["num_params"]
    on_axis = curvature.HessianSpectrum(jnp.arcsinh(eigenvalues / LINEAR), weights, jnp.asarray(size))
    step = edges[1] - edges[0]
    density = curvature.spectral_density(on_axis, edges[:-1] + step / 2, WIDTH * step)
    return np.asarray(size * step * density)


def curves(measured: Measured, title: str) -> Figure:
    """Returns extremes, trace and evenness by epoch; a band is one standard deviation over the seeds."""
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    axes = figure.subplots(3, 2, sharex=True).ravel()
    for axis, (name, (text, scale)) in zip(axes, CURVES.items(), strict=True):
        for index, (label, seeds) in enumerate(measured.items()):
            epochs = [record["epoch"] for record in seeds[0]]
            values = np.array([[quantity(record, name) for record in run] for run in seeds])
            hue, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
            axis.plot(epochs, values.mean(axis=0), label=label, color=hue, marker=marker, markersize=4)
            axis.fill_between(epochs, *_band(values), color=hue, alpha=0.12, linewidth=0)
        axis.set_yscale(scale, **({"linthresh": 1} if scale == "symlog" else {}))
        if scale == "linear":
            axis.set_ylim(bottom=0)
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks(epochs, [str(epoch) for epoch in epochs])
        axis.minorticks_off()
        axis.set_title(text, fontsize="medium", loc="left")
        axis.grid(alpha=0.3)
    for axis in axes[-2:]:
        axis.set(xlabel="epoch")
    figure.suptitle(title, fontsize="medium")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    return figure


def _band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean minus and plus a standard deviation; it keeps the sign, for a logarithmic axis."""
    mean = values.mean(axis=0)
    std = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(mean)
    low = np.where(values.min(axis=0) > 0, np.maximum(mean - std, mean / 3), mean - std)
    return low, mean + std


def quantity(record: Record, name: str) -> float:
    """Returns what was measured, or what follows from it."""
    derived = {
        "directions": lambda: record["num_params"] * record["evenness"],
        "negated": lambda: -record["smallest"],
        "convexity": lambda: -record["smallest"] / record["largest"],
        "preference": lambda: record["gradient_evenness"] / record["coordinate_evenness"] ** 0.5,
    }
    return float(derived[name]() if name in derived else record[name])


def table(measured: Measured) -> str:
    """Returns what was measured in each epoch, mean and standard deviation over the seeds."""
    rows = [
        [name, str(same[0]["epoch"]), *(_spread([quantity(one, of) for one in same]) for of in COLUMNS)]
        for name, seeds in measured.items()
        for same in zip(*seeds, strict=True)
    ]
    return markdown_table(["optimizer", "epoch", *COLUMNS.values()], rows)


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.3g}"
    return f"{mean} ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else mean


def answer(measured: Measured) -> str:
    """Returns in how many runs the premise holds, part by part, and by how much in the middle one."""
    ends = [(run[0], run[-1]) for seeds in measured.values() for run in seeds]

    def changes(name: str) -> list[float]:
        return [quantity(last, name) / quantity(first, name) for first, last in ends]

    flatter, convex = changes("frobenius_norm"), changes("convexity")
    even = {name: changes(name) for name in ("directions", "coordinate_evenness", "preference")}
    return "\n".join(
        [
            "From the first measurement to the last, in how many runs, and the factor in the middle one:",
            "",
            f"- Flat late: ‖H‖ falls in {_count(flatter, below=True)}.",
            f"- Convex late: the negative end shrinks beside the positive in {_count(convex, below=True)}.",
            f"- Anisotropic early: the effective directions increase in {_count(even['directions'])}, "
            f"the evenness of the coordinates in {_count(even['coordinate_evenness'])}.",
            f"- A large p early: φ(g)/√φ(c) falls in {_count(even['preference'], below=True)}.",
        ]
    )


def _count(factors: list[float], *, below: bool = False) -> str:
    count = sum(factor < 1 if below else factor > 1 for factor in factors)
    return f"{count} of {len(factors)} (median {np.median(factors):.3g})"
