"""Descent to the mode of p-generalised Gaussians.

Claim (Stacey paper, Fig. 1): on |x - (2, 0)|_p^p / p, at a learning rate of 1e-3, STACEY converges faster
than AdamW and Lion, most of all for p = 8, and is more stable.

Setting: exact gradients, 5000 iterations, p of 2, 4 and 8 for the function and for STACEY, no weight decay,
100 standard normal starts. The paper names neither alpha nor tau here: ours are alpha = 0.01 and
tau = 0.001, the library's, and besides alpha equal to the learning rate. Each optimizer also runs at the best
of the same 31 rates. All rates, p and starts are one compiled program for each optimizer.

    python -m benchmarks gaussians --output benchmarks/results/gaussians

Result (Python 3.11.7, JAX 0.10.2, 2 CPUs, a minute; n = 100, mean ± std of the distance from the mode): at
1e-3 and p = 8 STACEY(p,p) ends at 0.49 ± 0.24, AdamW at 1.0 ± 0.51, Lion at 0.0054 ± 0.020, LPSGDM at
0.34 ± 0.05; and STACEY(p,2) diverges from 81 of the 100 starts (54 with alpha = 1e-3; 54 for p = 4). So
STACEY(p,p) is nearer than AdamW for p = 4 and 8, as claimed, but not than Lion, and STACEY(p,2) is the least
stable of all. At the rate that ends nearest STACEY does approach fastest for p = 4 and 8: to 0.1 in 28
iterations for p = 4 (AdamW 89, LPSGDM 106, Lion 3030) and 167 for p = 8; not for p = 2 (1142, AdamW 94),
where it ends farther at 1e-3, too. Then it comes no nearer: at the end the nearest is LPSGDM
for p = 4 (7.4e-5) and Lion for p = 8 (0.0016).
"""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from matplotlib.figure import Figure

import lpoptax
from benchmarks.reporting.figures import COLORS, band, contours, write_figure
from benchmarks.reporting.tables import table_of, write_csv

DENSITIES = (2.0, 4.0, 8.0)  # the p of the function.
MODE = np.array([2.0, 0.0])
LEARNING_RATES = 10.0 ** (np.arange(-24, 7) / 6)
PAPER_RATE = 1e-3  # which is one of them.
NEAR = 0.1  # the distance to count the iterations to.
COLUMNS = ["rate", "p", "optimizer", "learning_rate", "distance", "std", "iterations", "diverged"]

Build = Callable[[Any, Any, int], optax.GradientTransformation]

# Each from the learning rate, the p of the function and the number of iterations.
OPTIMIZERS: dict[str, Build] = {
    "STACEY(p,2)": lambda rate, p, steps: lpoptax.stacey(rate, p),
    "STACEY(p,p)": lambda rate, p, steps: lpoptax.stacey(rate, p, mirror_p=p),
    "STACEY(p,2), alpha = rate": lambda rate, p, steps: lpoptax.stacey(rate, p, alpha=rate),
    "AdamW": lambda rate, p, steps: optax.adamw(rate, weight_decay=0.0),
    "Lion": lambda rate, p, steps: optax.lion(rate, weight_decay=0.0),
    "LPSGDM, 6 → 2": lambda rate, p, steps: lpoptax.lpsgdm(rate, lpoptax.cosine_p_schedule(6.0, steps)),
}


def loss(x: jax.Array, p: jax.Array) -> jax.Array:
    """Returns the negative logarithm of the density, up to a constant."""
    return jnp.sum(jnp.abs(x - MODE) ** p) / p


@partial(jax.jit, static_argnums=(0, 1))
def descend(
    build: Build, iterations: int, starts: jax.Array, rates: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns all distances from the mode: rates x densities x iterations x starts, and the first points."""

    def run(rate: jax.Array, p: jax.Array, start: jax.Array) -> Any:
        optimizer = build(rate, p, iterations)

        def step(carry: Any, _: None) -> Any:
            x, state = carry
            updates, state = optimizer.update(jax.grad(loss)(x, p), state, x)
            x = optax.apply_updates(x, updates)
            return (x, state), (jnp.linalg.norm(x - MODE), x)

        return jax.lax.scan(step, (start, optimizer.init(start)), None, iterations)[1]

    over_starts = jax.vmap(run, in_axes=(None, None, 0), out_axes=1)
    over_densities = jax.vmap(over_starts, in_axes=(None, 0, None))
    everywhere = jax.vmap(over_densities, in_axes=(0, None, None))
    distances, points = everywhere(rates, jnp.array(DENSITIES), starts)
    return distances, points[..., 0, :]


def summary(distances: np.ndarray) -> dict[str, Any]:
    """Returns mean and spread after each iteration, of iterations x starts, less the starts that diverge."""
    there = pd.DataFrame(distances, dtype=float)
    # They end farther than any was at first.
    kept = there.loc[:, there.iloc[-1] < there.iloc[0].max()]
    mean, lost = kept.mean(axis=1), there.shape[1] - kept.shape[1]
    return {"mean": mean, "spread": kept.std(axis=1), "end": mean.iloc[-1], "diverged": lost}


def iterations_to(target: float, distances: pd.Series) -> int | str:
    """Returns the first iteration from which on the distance stays at the target or below."""
    outside = np.flatnonzero(~(distances <= target))
    first = outside[-1] + 2 if len(outside) else 1  # iterations count from 1.
    return int(first) if first <= len(distances) else ""


def measure(name: str, iterations: int, starts: np.ndarray) -> pd.DataFrame:
    """Returns how an optimizer fares with each density and rate."""
    distances, paths = map(np.asarray, descend(OPTIMIZERS[name], iterations, starts, LEARNING_RATES))
    index = itertools.product(enumerate(LEARNING_RATES), enumerate(DENSITIES))
    return pd.DataFrame(
        {"p": p, "optimizer": name, "learning_rate": rate, "path": paths[i, j], **summary(distances[i, j])}
        for (i, rate), (j, p) in index
    )


def chosen(courses: pd.DataFrame) -> pd.DataFrame:
    """Returns the courses at the paper's rate, and at that which ends nearest if the fewest diverge."""
    paper = courses[courses.learning_rate == PAPER_RATE]
    best = courses.sort_values(["diverged", "end"]).drop_duplicates("p").sort_values("p")
    rows = pd.concat([paper.assign(rate="paper"), best.assign(rate="best")])
    return rows.assign(
        learning_rate=rows.learning_rate.map("{:.3g}".format),
        distance=rows.end.map("{:.2g}".format),
        std=rows.spread.map(lambda spread: f"{spread.iloc[-1]:.2g}"),
        iterations=rows["mean"].map(partial(iterations_to, NEAR)),
    )


def draw(rows: pd.DataFrame) -> Figure:
    """Returns trajectories at the paper's rate, and the distance from the mode at both rates."""
    figure = Figure(figsize=(8, 9), layout="constrained")
    axes = figure.subplots(3, len(DENSITIES), sharex="row", sharey="row")
    colors = dict(zip(OPTIMIZERS, COLORS, strict=False))
    for (p, of_p), (top, *below) in zip(rows.groupby("p"), axes.T, strict=True):
        contours(top, partial(norm, p=p), (-1.6, 4), (-1, 3), np.arange(0.4, 4, 0.4))
        top.plot(*MODE, "k*", markersize=9)
        top.set(title=f"p = {p:g}")
        for row in of_p.to_dict("records"):
            style = {"color": colors[row["optimizer"]], "linewidth": 1, "label": row["optimizer"]}
            axis = below[row["rate"] == "best"]
            band(axis, row["mean"].index + 1, row["mean"], row["spread"], **style)
            axis.set(xscale="log", yscale="log", ylim=(1e-5, 10), xlabel="iteration")
            if row["rate"] == "paper":
                top.plot(*row["path"].T, **style)
    for axis, title in zip(axes[:, 0], ("y", "distance, rate 0.001", "distance, best rate"), strict=True):
        axis.set_ylabel(title)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize="small")
    return figure


def norm(points: np.ndarray, p: float) -> np.ndarray:
    """Returns the distances of points [..., 2] from the mode in the lp norm."""
    return np.linalg.norm(points - MODE, p, axis=-1)


def tabulate(rows: pd.DataFrame) -> str:
    """Returns a Markdown table with a line for each function and optimizer."""
    rows = rows.sort_values("p", kind="stable")
    lost = rows.diverged.map(lambda count: f" ({count} diverged)" if count else "")
    cells = {
        "p": rows.p.map("{:g}".format),
        "optimizer": rows.optimizer,
        "best rate": rows.learning_rate,
        "distance at the end": rows.distance + " ± " + rows["std"] + lost,
        f"iterations to {NEAR}": rows.iterations.replace("", "not reached"),
    }
    frame = pd.DataFrame(cells)
    paper, best = frame[rows.rate == "paper"].drop(columns="best rate"), frame[rows.rate == "best"]
    return table_of(paper.merge(best, on=["p", "optimizer"], suffixes=(", rate 0.001", "")))


def run(quick: bool, folder: Path) -> str:
    """Measures, draws and tabulates."""
    count, iterations = (10, 50) if quick else (100, 5000)
    starts = np.random.default_rng(0).standard_normal((count, 2)).astype(np.float32)
    starts = starts[np.argsort(-starts[:, 1])]  # the first is drawn: that which has the longest way down.
    found = [chosen(measure(name, iterations, starts)) for name in OPTIMIZERS]
    rows = pd.concat(found, ignore_index=True)
    write_csv(folder / "distances.csv", rows[COLUMNS])
    write_figure(folder / "descent.png", draw(rows))
    rates = f"{len(LEARNING_RATES)} from {LEARNING_RATES[0]:g} to {LEARNING_RATES[-1]:g}"
    return (
        f"{tabulate(rows)}\n\nDistance from the mode after {iterations} iterations, mean ± standard "
        f"deviation over {count} starts, less those that diverged. The best rate is that of the least mean "
        f"distance at the end, of {rates}. "
        "Iterations are counted until the mean distance is at the target for good."
    )
