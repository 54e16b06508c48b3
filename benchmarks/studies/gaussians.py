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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import lpoptax
from benchmarks.reporting.figures import COLORS, band, contours, write_figure
from benchmarks.reporting.tables import markdown_table, write_csv

DENSITIES = (2.0, 4.0, 8.0)  # the p of the function.
MODE = (2.0, 0.0)
LEARNING_RATES = 10.0 ** (np.arange(-24, 7) / 6)  # the paper's is one of them.
PAPER_RATE = int(np.abs(LEARNING_RATES - 1e-3).argmin())
NEAR = 0.1  # the distance to count the iterations to.

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


class Course(NamedTuple):
    """What is measured after each iteration; the first axes are learning rates, densities and iterations."""

    distances: np.ndarray  # from the mode, of each start.
    points: np.ndarray  # of the first start.

    def diverged(self, rate: int, density: int) -> np.ndarray:
        """Returns which starts ended farther than any of them was at first."""
        return ~(self.distances[rate, density, -1] < self.distances[rate, density, 0].max())

    def mean_and_std(self, rate: int, density: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean distance after each iteration, and its spread, of starts that did not diverge."""
        kept = self.distances[rate, density][:, ~self.diverged(rate, density)].astype(float)
        return kept.mean(axis=-1), kept.std(axis=-1, ddof=1)

    def best_rate(self, density: int) -> int:
        """Returns the rate that ends nearest to the mode, of those at which the fewest starts diverge."""
        lost = [int(self.diverged(rate, density).sum()) for rate in range(len(LEARNING_RATES))]
        candidates = [rate for rate, count in enumerate(lost) if count == min(lost)]
        return min(candidates, key=lambda rate: float(self.mean_and_std(rate, density)[0][-1]))


def loss(x: jax.Array, p: jax.Array) -> jax.Array:
    """Returns the negative logarithm of the density, up to a constant."""
    return jnp.sum(jnp.abs(x - jnp.array(MODE)) ** p) / p


@partial(jax.jit, static_argnums=(0, 1))
def descend(build: Build, iterations: int, starts: jax.Array, rates: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the course of every rate, density and start, in one program."""

    def start(rate: jax.Array, p: jax.Array, x: jax.Array) -> Any:
        return x, build(rate, p, iterations).init(x)

    def step(rate: jax.Array, p: jax.Array, carry: Any) -> Any:
        x, state = carry
        updates, state = build(rate, p, iterations).update(jax.grad(loss)(x, p), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), jnp.linalg.norm(x - jnp.array(MODE))

    def everywhere(function: Any) -> Any:
        """Maps over starts, which are the last axis, then densities, then rates."""
        over_starts = jax.vmap(function, in_axes=(None, None, 0))
        return jax.vmap(jax.vmap(over_starts, in_axes=(None, 0, 0)), in_axes=(0, None, 0))

    def record(carry: Any, _: None) -> Any:
        carry, distances = everywhere(step)(rates, densities, carry)
        return carry, (distances, carry[0][:, :, 0])

    densities = jnp.array(DENSITIES)
    shape = (len(rates), len(densities), *starts.shape)
    carry = everywhere(start)(rates, densities, jnp.broadcast_to(starts, shape))
    return jax.lax.scan(record, carry, None, iterations)[1]


def course(build: Build, iterations: int, starts: np.ndarray) -> Course:
    """Returns how an optimizer fares at every rate."""
    found = descend(build, iterations, jnp.asarray(starts), jnp.asarray(LEARNING_RATES))
    return Course(*(np.moveaxis(np.asarray(values), 0, 2) for values in found))


def iterations_to(target: float, distances: np.ndarray) -> int | None:
    """Returns the first iteration from which on the distance stays at the target or below."""
    outside = np.flatnonzero(~(distances <= target))
    first = outside[-1] + 2 if len(outside) else 1  # iterations count from 1.
    return int(first) if first <= len(distances) else None


def rows_of(name: str, course: Course) -> list[dict[str, Any]]:
    """Returns what is measured at the paper's rate and at the best one, for each density."""
    rows = []
    for tuned, (density, p) in itertools.product((False, True), enumerate(DENSITIES)):
        rate = course.best_rate(density) if tuned else PAPER_RATE
        mean, std = course.mean_and_std(rate, density)
        rows.append(
            {
                "rate": "best" if tuned else "paper",
                "p": p,
                "optimizer": name,
                "learning_rate": f"{LEARNING_RATES[rate]:.3g}",
                "distance": f"{mean[-1]:.2g}",
                "std": f"{std[-1]:.2g}",
                "iterations": iterations_to(NEAR, mean) or "",
                "diverged": int(course.diverged(rate, density).sum()),
            }
        )
    return rows


def draw(courses: Mapping[str, Course]) -> Figure:
    """Returns trajectories at the paper's rate, and the distance from the mode at both rates."""
    figure = Figure(figsize=(8, 9), layout="constrained")
    axes = figure.subplots(3, len(DENSITIES), sharex="row", sharey="row")
    for density, (top, *below) in enumerate(axes.T):
        p = DENSITIES[density]
        contours(top, partial(norm, p=p), (-1.6, 4), (-1, 3), np.arange(0.4, 4, 0.4))
        top.plot(*MODE, "k*", markersize=9)
        top.set(title=f"p = {p:g}")
        for color, (name, course) in zip(COLORS, courses.items(), strict=False):
            style = {"color": color, "linewidth": 1}
            top.plot(*course.points[PAPER_RATE, density].T, **style, label=name)
            for axis, rate in zip(below, (PAPER_RATE, course.best_rate(density)), strict=True):
                mean, std = course.mean_and_std(rate, density)
                band(axis, np.arange(1, len(mean) + 1), mean, std, **style)
                axis.set(xscale="log", yscale="log", ylim=(1e-5, 10), xlabel="iteration")
    for axis, title in zip(axes[:, 0], ("y", "distance, rate 0.001", "distance, best rate"), strict=True):
        axis.set_ylabel(title)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize="small")
    return figure


def norm(points: np.ndarray, p: float) -> np.ndarray:
    """Returns the distances of points [..., 2] from the mode in the lp norm."""
    return np.linalg.norm(points - np.array(MODE), p, axis=-1)


def tabulate(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table with a line for each function and optimizer."""
    lines: dict[tuple[float, str], list[str]] = {}
    for row in rows:
        cells = [
            *([row["learning_rate"]] if row["rate"] == "best" else []),
            f"{row['distance']} ± {row['std']}"
            + (f" ({row['diverged']} diverged)" if row["diverged"] else ""),
            str(row["iterations"] or "not reached"),
        ]
        lines.setdefault((row["p"], row["optimizer"]), []).extend(cells)
    measured = ("distance at the end", f"iterations to {NEAR}")
    columns = ["p", "optimizer", *(f"{text}, rate 0.001" for text in measured), "best rate", *measured]
    return markdown_table(
        columns, [[f"{p:g}", name, *lines[p, name]] for p, name in sorted(lines, key=lambda k: k[0])]
    )


def run(quick: bool, folder: Path) -> str:
    """Measures, draws and tabulates."""
    count, iterations = (10, 50) if quick else (100, 5000)
    starts = np.random.default_rng(0).standard_normal((count, 2)).astype(np.float32)
    starts = starts[np.argsort(-starts[:, 1])]  # the first is drawn: that which has the longest way down.
    courses = {name: course(build, iterations, starts) for name, build in OPTIMIZERS.items()}
    rows = [row for name, found in courses.items() for row in rows_of(name, found)]
    write_csv(folder / "distances.csv", rows)
    write_figure(folder / "descent.png", draw(courses))
    rates = f"{len(LEARNING_RATES)} from {LEARNING_RATES[0]:g} to {LEARNING_RATES[-1]:g}"
    return (
        f"{tabulate(rows)}\n\nDistance from the mode after {iterations} iterations, mean ± standard "
        f"deviation over {count} starts, less those that diverged. The best rate is that of the least mean "
        f"distance at the end, of {rates}. "
        "Iterations are counted until the mean distance is at the target for good."
    )
