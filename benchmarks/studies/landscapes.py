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

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import lpoptax
from benchmarks.config.annealing import annealed_p, label
from benchmarks.reporting.figures import write_figure
from benchmarks.reporting.tables import table_of, write_csv
from benchmarks.studies.landscape_figures import OPTIMUM, draw_landscapes, draw_steps, height

TARGETS = (1e-3, 1e-6)  # of the loss, relative to that at the start.
LEARNING_RATES = 10.0 ** (np.arange(-24, 4) / 6)
RATES = ("constant", "cosine")  # how the learning rate goes on: the second falls to 0.
PAPER = {"strongly": (200.0, 0.05), "weakly": (1.2, 0.8)}  # curvatures along x and y.
START = np.array([-1.3, 0.2])
STEPS_SHOWN = 40


class Norm(NamedTuple):
    """The p of the first and of the last step."""

    first: Any
    last: Any


NORMS = [*(Norm(p, p) for p in (2.0, 2.5, 3.0, 4.0, 6.0, 10.0, np.inf)), Norm(6.0, 2.0), Norm(10.0, 2.0)]
SHOWN = [Norm(2.0, 2.0), Norm(3.0, 3.0), Norm(np.inf, np.inf), Norm(6.0, 2.0)]


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
    rotations: tuple[jax.Array, jax.Array] | None

    def loss(self, x: jax.Array) -> jax.Array:
        """Returns f(x); its minimum is 0, at 0."""
        if self.rotations is not None:
            left, right = self.rotations
            x = jnp.ravel(left @ x.reshape(len(left), len(right)) @ right.T)
        return jnp.sum(self.curvature * x**2) / 2


class Setting(NamedTuple):
    """What a run is decided by; all may be traced."""

    norm: Any  # a Norm.
    learning_rate: Any
    decays: Any  # whether the learning rate does, to 0 along half a cosine.
    steps: Any


def stepping(problem: Problem, setting: Setting) -> Any:
    """Returns a function that takes a step of LPSGD, and the state of the optimizer before the first."""
    norm, rate, decays, steps = setting

    def learning_rate(count: jax.Array) -> jax.Array:
        return rate * jnp.where(decays, (1 + jnp.cos(jnp.pi * count / steps)) / 2, 1)

    descent = lpoptax.lpsgd(learning_rate, annealed_p(norm.first, norm.last, steps))

    def step(x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        updates, state = descent.update(jax.grad(problem.loss)(x), state)
        return x + updates, state

    return step, descent.init(None)


def final_loss(setting: Setting, problem: Problem, start: jax.Array) -> jax.Array:
    """Returns the loss after the last step, relative to that at the start."""
    step, state = stepping(problem, setting)
    x, _ = jax.lax.fori_loop(0, setting.steps, lambda _, carry: step(*carry), (start, state))
    return problem.loss(x) / problem.loss(start)


def trajectory(setting: Setting, problem: Problem, start: jax.Array) -> jax.Array:
    """Returns the points that a short run passes."""
    step, state = stepping(problem, setting)

    def record(carry: Any, _: None) -> Any:
        return step(*carry), carry[0]

    return jax.lax.scan(record, (start, state), None, STEPS_SHOWN + 1)[1]


def over_settings(run: Any) -> Any:
    """Returns a function that runs every p, with and without decay, at every rate: norms x 2 x rates."""
    for axes in (Setting(None, 0, None, None), Setting(None, None, 0, None), Setting(0, None, None, None)):
        run = jax.vmap(run, in_axes=(axes, None, None))
    return run


def settings(norms: list[Norm], steps: int) -> Setting:
    """Returns all settings, the axes of `over_settings` not yet combined."""
    norm = Norm(*jnp.array(norms).T)
    return Setting(norm, jnp.asarray(LEARNING_RATES), jnp.array([False, True]), steps)


@jax.jit
def mean_final_losses(setting: Setting, problems: Problem, starts: jax.Array) -> jax.Array:
    """Returns the relative loss after the last step: norms x 2 x rates, a mean over the starts."""

    def over_starts(one: Setting, problems: Problem, starts: jax.Array) -> jax.Array:
        axes: Any = Problem(None, None if problems.rotations is None else (0, 0))  # type: ignore[arg-type]
        return jax.vmap(partial(final_loss, one), in_axes=(axes, 0))(problems, starts).mean()

    return over_settings(over_starts)(setting, problems, starts)


trajectories = jax.jit(over_settings(trajectory))


def problems_of(workload: Workload) -> tuple[Problem, jax.Array]:
    """Returns curvatures with equal ratios, a rotation for each start, and the starts, standard normal."""
    random = np.random.default_rng(0)
    exponents = np.linspace(0.5, -0.5, workload.dimension)
    starts = jnp.asarray(random.standard_normal((workload.starts, workload.dimension)), jnp.float32)
    right = int(np.sqrt(workload.dimension))
    sides = (workload.dimension // right, right)
    # The Q of a normal matrix, signs made positive on the diagonal of R, is uniform over rotations.
    factors = (np.linalg.qr(random.standard_normal((workload.starts, side, side))) for side in sides)
    rotations = [jnp.asarray(q * np.sign(np.diagonal(r, 0, 1, 2))[:, None], jnp.float32) for q, r in factors]
    curvature = jnp.asarray(workload.condition**exponents, jnp.float32)
    return Problem(curvature, (rotations[0], rotations[1]) if workload.rotated else None), starts


def lengths(longest: int) -> Iterator[int]:
    """Yields the numbers of steps to try, each about the square root of 2 times the one before."""
    yield from (round(2 ** (k / 2)) for k in range(2, round(2 * np.log2(longest)) + 1))


def measure(workload: Workload) -> pd.DataFrame:
    """Returns the fewest steps whose last is at the target at some rate, for each target and p."""
    problems, starts = problems_of(workload)
    labels = [label(*norm) for norm in NORMS]
    index = pd.MultiIndex.from_product([TARGETS, labels, RATES], names=["target", "p", "rate"])
    found = pd.DataFrame({"steps": f">{workload.longest}", "learning_rate": ""}, index, dtype=object)
    target = index.get_level_values("target")
    missing = np.full(len(index), True)
    for steps in lengths(workload.longest):
        losses = np.nan_to_num(mean_final_losses(settings(NORMS, steps), problems, starts), nan=np.inf)
        least, best = (
            np.tile(of_rates(axis=-1).ravel(), len(TARGETS)) for of_rates in (losses.min, losses.argmin)
        )
        new = missing & (least <= target)
        found.loc[new, "steps"] = steps
        found.loc[new, "learning_rate"] = [f"{rate:.4g}" for rate in LEARNING_RATES[best[new]]]
        missing &= ~new
        if not missing.any():
            break
    rows = found.reset_index().assign(**workload._asdict())
    return rows[
        ["dimension", "condition", "rotated", "starts", "rate", "p", "target", "steps", "learning_rate"]
    ]


def paths() -> pd.DataFrame:
    """Returns the points passed on the paper's landscapes, at the rate that ends lowest."""
    found = []
    for name, curvature in PAPER.items():
        problem = Problem(jnp.array(curvature), None)
        start = jnp.array(START - OPTIMUM)
        points = OPTIMUM + np.asarray(trajectories(settings(SHOWN, STEPS_SHOWN), problem, start))
        losses = height(points, curvature)
        best = np.nan_to_num(losses[..., -1], nan=np.inf).argmin(axis=-1)
        for i, j in np.ndindex(best.shape):
            k = best[i, j]
            x, y = points[i, j, k].T
            path = {"step": range(len(x)), "x": x, "y": y, "loss": losses[i, j, k]}
            how = {"landscape": name, "p": label(*SHOWN[i]), "rate": RATES[j]}
            found.append(pd.DataFrame(path).assign(**how, learning_rate=LEARNING_RATES[k]))
    return pd.concat(found, ignore_index=True)


def tabulate(rows: pd.DataFrame, target: float) -> str:
    """Returns the steps to a target as a Markdown table with a column for each p."""
    names = ["dimension", "condition", "rotated", "rate"]
    table = rows[rows.target == target].set_index([*names, "p"])["steps"].unstack(sort=False).reset_index()
    table["dimension"] = table.dimension.map("{:,}".format)
    table["condition"] = table.condition.map("{:g}".format)
    table["rotated"] = table.rotated.map({True: "yes", False: "no"})
    return table_of(table.rename(columns=lambda name: name if name in names else f"p = {name}"))


def run(quick: bool, folder: Path) -> str:
    """Measures, draws and tabulates."""
    rows = pd.concat([measure(workload) for workload in (QUICK if quick else FULL)], ignore_index=True)
    write_csv(folder / "steps.csv", rows.to_dict("records"))
    write_figure(folder / "landscapes.png", draw_landscapes(paths(), PAPER))
    write_figure(folder / "steps.png", draw_steps(rows, TARGETS[1]))
    tables = [
        f"Fewest steps to {target:g} of the initial loss:\n\n{tabulate(rows, target)}" for target in TARGETS
    ]
    explanation = (
        f"Each figure is that of the best of the same {len(LEARNING_RATES)} learning rates, from "
        f"{LEARNING_RATES[0]:g} to {LEARNING_RATES[-1]:.3g}: the length of the shortest run, of those of "
        "2, 3, 4, 6, 8, 11, 16, ... steps, that ends at the target or below, in the mean over the starts."
    )
    return "\n\n".join([*tables, explanation])
