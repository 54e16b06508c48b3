"""Quadratics: how many steps each norm takes, along the axes and rotated.

Claim (LPSGDM paper, Fig. 3): gradient descent suits a quadratic of nearly equal curvatures and sign
descent one of very unequal ones; p that is annealed to 2 should then have the best of both.

Setting: LPSGD, eps 1e-8, on f(x) = 1/2 sum of c_i x_i^2 with curvatures c at equal ratios, from standard
normal starts, 16 in 2 dimensions, 2 in 100, 1 in 10,000. Each p has the same 28 learning rates, constant and
decayed to 0 along a cosine, and runs of 2, 3, 4, 6, 8, 11, 16, ... steps. What counts is the shortest run
that ends at 1e-3 or 1e-6 of the loss at the start, as a mean over the starts: to end there, and not to pass
it, since sign descent at a constant rate never settles. All p, rates and starts are one compiled
program for each dimension, with and without a rotation.

    python -m benchmarks landscapes --output benchmarks/results/landscapes

Result (Python 3.11.7, JAX 0.10.2, 2 CPUs, 20 minutes; resolution a factor of 1.4), steps to 1e-6 in 2
dimensions at a constant rate: condition 1.5 takes 6 at p = 2, 2896 at p = infinity, 11 at p = 6 -> 2;
condition 4000 takes 11585, 5793 and 362. So the claim holds. With the decayed rate every fixed p from 2.5
on is nearly blind to the condition number (p = 4: 11 and 23 steps, p = 2: 11 and 16384), and to anneal p
gains nothing more (11 and 32). The dimension hardly matters. But all this is of curvatures along the axes:
on rotated quadratics of condition 100 in 100 dimensions p = 2 takes 362 steps, p = 4 362, p = infinity 512
and p = 6 -> 2 512 with the decayed rate; no p is blind there.
"""

import itertools
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

import lpoptax
from benchmarks.config.annealing import annealed_p, label
from benchmarks.reporting.figures import COLORS, contours, write_figure
from benchmarks.reporting.tables import table_of, write_csv

TARGETS = (1e-3, 1e-6)  # of the loss, relative to that at the start.
LEARNING_RATES = 10.0 ** (np.arange(-24, 4) / 6)
RATES = ("constant", "cosine")  # how the learning rate goes on: the second falls to 0.
PAPER = {"strongly": (200.0, 0.05), "weakly": (1.2, 0.8)}  # curvatures along x and y.
START, OPTIMUM = np.array([-1.3, 0.2]), np.array([1.0, 4.0])
STEPS_SHOWN = 40
LIMITS = {"xlim": (-2.6, 3.6), "ylim": (-0.6, 5.2)}

Norm = tuple[float, float]  # the p of the first and of the last step.
CONSTANT: list[Norm] = [(p, p) for p in (2.0, 2.5, 3.0, 4.0, 6.0, 10.0, np.inf)]
NORMS = {label(*norm): norm for norm in [*CONSTANT, (6.0, 2.0), (10.0, 2.0)]}
SHOWN = ["2", "3", "∞", "6 → 2"]
COLUMNS = ["dimension", "condition", "rotated", "starts", "rate", "p", "target", "steps", "learning_rate"]


class Workload(NamedTuple):
    """Quadratics of one dimension and condition number, from several starts."""

    dimension: int
    condition: float
    rotated: bool
    starts: int
    longest: int  # of the numbers of steps to try.


FULL = [
    Workload(dimension, condition, rotated, starts, longest)
    for dimension, conditions, starts, longest in (
        (2, (1.5, 10.0, 100.0, 4000.0), 16, 16384),
        (100, (1.5, 10.0, 100.0, 4000.0), 2, 4096),
        (10_000, (1.5, 4000.0), 1, 256),
    )
    for rotated in (False, True)
    for condition in conditions
]
QUICK = [Workload(4, condition, rotated, 2, 64) for rotated in (False, True) for condition in (1.5, 100.0)]


class Problem(NamedTuple):
    """f(x) = 1/2 sum of curvature_i (Q x)_i^2, Q the Kronecker product of two rotations or the identity."""

    curvature: jax.Array
    rotations: tuple[jax.Array, ...]  # two or none.
    start: jax.Array

    def loss(self, x: jax.Array) -> jax.Array:
        """Returns f(x); its minimum is 0, at 0."""
        if self.rotations:
            left, right = self.rotations
            x = jnp.ravel(left @ x.reshape(len(left), len(right)) @ right.T)
        return jnp.sum(self.curvature * x**2) / 2


OVER_STARTS: Any = Problem(None, 0, 0)  # type: ignore[arg-type]  # the axes of what `problems_of` returns.


def problems_of(workload: Workload) -> Problem:
    """Returns curvatures with equal ratios, and for each start, standard normal, a rotation."""
    random = np.random.default_rng(0)
    exponents = np.linspace(0.5, -0.5, workload.dimension)
    starts = jnp.asarray(random.standard_normal((workload.starts, workload.dimension)), jnp.float32)
    right = int(np.sqrt(workload.dimension))
    sides = (workload.dimension // right, right) if workload.rotated else ()
    # The Q of a normal matrix, signs made positive on the diagonal of R, is uniform over rotations.
    factors = (np.linalg.qr(random.standard_normal((workload.starts, side, side))) for side in sides)
    rotations = (jnp.asarray(q * np.sign(np.diagonal(r, 0, 1, 2))[:, None], jnp.float32) for q, r in factors)
    return Problem(jnp.asarray(workload.condition**exponents, jnp.float32), tuple(rotations), starts)


def descend(problem: Problem, steps: Any, count: Any, first: Any, last: Any, rate: Any, decays: Any) -> Any:
    """Returns where LPSGD is after so many of its steps; all may be traced."""

    def learning_rate(index: jax.Array) -> jax.Array:
        return rate * jnp.where(decays, (1 + jnp.cos(jnp.pi * index / steps)) / 2, 1)

    descent = lpoptax.lpsgd(learning_rate, annealed_p(first, last, steps))

    def step(_: Any, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        x, state = carry
        updates, state = descent.update(jax.grad(problem.loss)(x), state)
        return x + updates, state

    return jax.lax.fori_loop(0, count, step, (problem.start, descent.init(None)))[0]


def settings(names: Iterable[str]) -> tuple[jax.Array, ...]:
    """Returns the last arguments of `descend`, to be broadcast: norms x constant or cosine x rates."""
    first, last = jnp.array([NORMS[name] for name in names]).T[..., None, None]
    return first, last, jnp.asarray(LEARNING_RATES)[None, None], jnp.array([[[False], [True]]])


@jax.jit
def mean_final_losses(problems: Problem, steps: Any, *settings: jax.Array) -> jax.Array:
    """Returns the loss after the last step, relative to that at the start, as a mean over the starts."""

    def mean(*setting: jax.Array) -> jax.Array:
        def final_loss(problem: Problem) -> jax.Array:
            return problem.loss(descend(problem, steps, steps, *setting)) / problem.loss(problem.start)

        return jax.vmap(final_loss, in_axes=(OVER_STARTS,))(problems).mean()

    return jnp.vectorize(mean)(*settings)


def lengths(longest: int) -> list[int]:
    """Returns the numbers of steps to try, each about the square root of 2 times the one before."""
    return [round(2 ** (k / 2)) for k in range(2, round(2 * np.log2(longest)) + 1)]


def measure(workload: Workload) -> pd.DataFrame:
    """Returns the fewest steps whose last is at the target at some rate, for each target and p."""
    problems = problems_of(workload)
    kinds = list(itertools.product(TARGETS, np.ndindex(len(NORMS), len(RATES))))
    found: dict[Any, tuple[int, str]] = {}
    for steps in lengths(workload.longest):
        losses = np.asarray(mean_final_losses(problems, steps, *settings(NORMS)), np.float64)
        losses[np.isnan(losses)] = np.inf
        for target, kind in kinds:
            if (target, kind) not in found and losses[kind].min() <= target:
                found[target, kind] = steps, f"{LEARNING_RATES[losses[kind].argmin()]:.4g}"
        if len(found) == len(kinds):
            break
    index = pd.MultiIndex.from_product([TARGETS, list(NORMS), RATES], names=["target", "p", "rate"])
    rows = [found.get(kind, (f">{workload.longest}", "")) for kind in kinds]
    frame = pd.DataFrame(rows, index, columns=["steps", "learning_rate"]).reset_index()
    return frame.assign(**workload._asdict())[COLUMNS]


def paths(curvature: tuple[float, float]) -> pd.DataFrame:
    """Returns the points passed on one of the paper's landscapes, at the rates that end lowest."""
    problem = Problem(jnp.array(curvature), (), jnp.array(START - OPTIMUM))
    counts = range(STEPS_SHOWN + 1)

    def points(count: jax.Array) -> jax.Array:
        point = partial(descend, problem, STEPS_SHOWN, count)
        return jnp.vectorize(point, signature="(),(),(),()->(n)")(*settings(SHOWN))

    passed = OPTIMUM + np.asarray(jax.vmap(points)(jnp.array(counts))).reshape(-1, 2)
    names = ["step", "p", "rate", "learning_rate"]
    index = pd.MultiIndex.from_product([counts, SHOWN, RATES, LEARNING_RATES], names=names)
    frame = pd.DataFrame(passed, index, columns=["x", "y"]).reset_index()
    frame["loss"] = height(passed, curvature)
    last = frame[frame.step == STEPS_SHOWN]
    best = last.loc[last.groupby(["p", "rate"]).loss.idxmin()]
    return frame.merge(best[["p", "rate", "learning_rate"]])


def height(points: np.ndarray, curvature: tuple[float, float]) -> np.ndarray:
    """Returns the loss at points [..., 2]."""
    return np.asarray(np.sum(np.array(curvature) * (points - OPTIMUM) ** 2, axis=-1) / 2)


def draw_landscapes() -> Figure:
    """Returns the paths at constant rates over the contours, and all losses by step below."""
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(5, 4))
    for (top, bottom), (name, curvature) in zip(axes.T, PAPER.items(), strict=True):
        contours(top, partial(height, curvature=curvature), **LIMITS, levels=np.geomspace(0.02, 2000, 16))
        top.plot(*OPTIMUM, "k*", markersize=9)
        top.set(title=f"{name} anisotropic: {curvature[0]:g} and {curvature[1]:g}")
        frame = paths(curvature)
        constant = frame[frame.rate == "constant"]
        name = "p = " + constant.p + constant.learning_rate.map(", rate {:.2g}".format)
        path = {"x": "x", "y": "y", "hue": name, "sort": False, "estimator": None, "palette": COLORS[:4]}
        sns.lineplot(constant, **path, marker=".", markeredgewidth=0, linewidth=1, ax=top)
        top.legend(fontsize="x-small", loc="upper left")
        sns.lineplot(frame, x="step", y="loss", hue="p", style="rate", palette=COLORS[:4], ax=bottom)
        bottom.set(yscale="log", ylim=(1e-12, 1e5))
        bottom.legend(fontsize="x-small", loc="lower left", ncols=2)
        bottom.grid(alpha=0.3)
    return figure


def draw_steps(rows: pd.DataFrame) -> Figure:
    """Returns the steps to the last target by p: a panel for each kind of quadratic, and of rate."""
    rows = rows[rows.target == TARGETS[-1]]
    aligned = rows.rotated.map({True: "rotated", False: "along the axes"})
    # No number, and no marker, where it is not reached.
    steps = pd.to_numeric(rows.steps, errors="coerce")
    rows = rows.assign(steps=steps, quadratic=rows.dimension.map("{:,} dimensions, ".format) + aligned)
    axes = {"x": "p", "y": "steps", "hue": "condition", "row": "quadratic", "col": "rate"}
    colors = COLORS[: rows.condition.nunique()]
    grid = sns.relplot(rows, **axes, style="condition", palette=colors, height=1.8, aspect=2.2)
    grid.set_titles("{row_name}, {col_name} rate", size="small").set(yscale="log")
    grid.set_ylabels(f"steps to {TARGETS[-1]:g}").tick_params("x", labelsize="x-small")
    for panel in grid.axes.flat:
        panel.grid(alpha=0.3)
    return grid.figure


def tabulate(rows: pd.DataFrame, target: float) -> str:
    """Returns the steps to a target as a Markdown table with a column for each p."""
    names = ["dimension", "condition", "rotated", "rate"]
    rows = rows[rows.target == target].assign(p="p = " + rows.p)
    table = rows.set_index([*names, "p"])["steps"].unstack(sort=False).reset_index()
    table["dimension"] = table.dimension.map("{:,}".format)
    table["condition"] = table.condition.map("{:g}".format)
    table["rotated"] = table.rotated.map({True: "yes", False: "no"})
    return f"Fewest steps to {target:g} of the initial loss:\n\n{table_of(table)}"


def run(quick: bool, folder: Path) -> str:
    """Measures, draws and tabulates."""
    rows = pd.concat(map(measure, QUICK if quick else FULL), ignore_index=True)
    write_csv(folder / "steps.csv", rows)
    write_figure(folder / "landscapes.png", draw_landscapes())
    write_figure(folder / "steps.png", draw_steps(rows))
    explanation = (
        f"Each figure is that of the best of the same {len(LEARNING_RATES)} learning rates, from "
        f"{LEARNING_RATES[0]:g} to {LEARNING_RATES[-1]:.3g}: the length of the shortest run, of those of "
        "2, 3, 4, 6, 8, 11, 16, ... steps, that ends at the target or below, in the mean over the starts."
    )
    return "\n\n".join([*(tabulate(rows, target) for target in TARGETS), explanation])
