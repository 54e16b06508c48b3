"""The rate at which the gradient vanishes, against the papers' theorems.

Claim: with a constant learning rate proportional to T^(-1/2), the mean over T steps of the squared 2-norm of
the gradient is O(T^(-1/2)) for LPSGD and LPSGDM (LPSGDM paper, Theorems 1 and 2), and so is that of its dual
norm to the power of its exponent for LPSGD at a fixed p if batches are as large as T, which makes it
O(N^(-1/4)) in N gradients (Stacey paper, Theorem 1). No theorem covers STACEY itself.

Setting: the sum of log(1 + x^2) in 10 dimensions, from 1.5, with bounded noise; constants, learning rates and
bounds as `convergence_theorems` derives them; STACEY with p = 3, its defaults, and alpha equal to
the learning rate. T from 1,000 to 300,000, 16 seeds, a line through the logarithms for each seed and a 95 %
interval over the seeds. All methods of a kind, all seeds and every T are one compiled program.

    python -m benchmarks convergence --output benchmarks/results/convergence

Result (Python 3.11.7, JAX 0.10.2, 2 CPUs, n = 16; slopes from T = 30,000 on): with symmetric noise -0.500 ±
0.004 for LPSGD at p = 2, -0.499 ± 0.004 at 3, -0.496 ± 0.004 at infinity, -0.498 ± 0.003 at 6 -> 2, and
-0.498 ± 0.001 for LPSGDM at 6 -> 2; with batches of T from -0.501 to -0.499 for LPSGD at all p. So the rates
are the theorems', to 0.004, and no mean of LPSGD is above its bound: at T = 300,000 it is 2.0 to
3.6 times below with single samples, 1.3 to 2.8 times with batches. With skewed noise of the same variance
LPSGD does not converge unless p = 2: -0.032 ± 0.001 at p = 3, -0.064 ± 0.001 at 6 -> 2, as the roots and the
sign of a gradient have another mean than the gradient. That breaks Assumption 5 of the LPSGDM paper, which so
is more than a formality. STACEY(3,2) has -0.523 ± 0.003, STACEY(3,3) -0.380 ± 0.004, with symmetric noise.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

import lpoptax
from benchmarks.config.annealing import annealed_p
from benchmarks.reporting.figures import COLORS, write_figure
from benchmarks.reporting.tables import table_of, write_csv
from benchmarks.studies import convergence_theorems as theorems
from benchmarks.studies.convergence_theorems import METHODS, REGIMES, Method, Regime

CHUNK = 500  # steps whose noise is drawn at once.
DIGITS = {"mean": ".6g", "std": ".3g", "bound": ".6g"}


def loss(x: jax.Array) -> jax.Array:
    """Returns the sum of log(1 + x^2)."""
    return jnp.sum(jnp.log1p(x**2))


def optimizer(method: Any, rate: Any, steps: Any, coupled: bool) -> Any:
    """Returns LPSGDM or STACEY, whose dual rate is the primal one; what a method holds may be traced."""
    p = annealed_p(method.p_max, method.p_final, steps)
    if coupled:
        return lpoptax.stacey(rate, p, mirror_p=method.mirror_p, alpha=rate)
    return lpoptax.lpsgdm(rate, p, momentum=method.momentum)


@partial(jax.jit, static_argnames="coupled")
def mean_gradients(
    settings: Any, keys: Any, chunks: Any, skewed: Any, scale: Any, coupled: bool
) -> jax.Array:
    """Returns the mean over the steps of the exact gradient's size: methods x seeds, in one program."""

    def mean_gradient(setting: tuple[Method, Any, Any], key: jax.Array) -> jax.Array:
        method, rate, exponent = setting
        descent = optimizer(method, rate, chunks * CHUNK, coupled)

        def step(carry: Any, error: jax.Array) -> Any:
            x, state = carry
            gradient = jax.grad(loss)(x)
            updates, state = descent.update(gradient + error, state, x)
            return (optax.apply_updates(x, updates), state), jnp.sum(jnp.abs(gradient) ** exponent)

        def chunk(index: jax.Array, carry: Any) -> Any:
            shape = (CHUNK, theorems.DIMENSION)
            errors = theorems.noise(jax.random.fold_in(key, index), shape, skewed, scale)
            run, sizes = jax.lax.scan(step, carry[0], errors)
            return run, carry[1] + sizes.mean()

        x = jnp.full(theorems.DIMENSION, theorems.START)
        _, total = jax.lax.fori_loop(0, chunks, chunk, ((x, descent.init(x)), 0.0))
        return total / chunks

    over_methods = jax.vmap(mean_gradient, in_axes=(0, None))
    return jax.vmap(over_methods, in_axes=(None, 0), out_axes=1)(settings, keys)


def measure(regime: Regime, steps: int, seeds: int) -> dict[Method, np.ndarray]:
    """Returns the mean of the gradient's size for runs of a length, of each method with each seed."""
    found: dict[Method, np.ndarray] = {}
    keys = jax.random.split(jax.random.key(steps), seeds)
    scale = float(1 / np.sqrt(steps)) if regime.stacey else 1.0
    for coupled in (False, True):
        # All of them in every regime, which so shares one program with the others.
        methods = [method for method in METHODS if bool(method.mirror_p) == coupled]
        rates = jnp.array([regime.learning_rate(method, steps) for method in methods])
        exponents = jnp.array([regime.exponent(method) for method in methods])
        settings = (Method(*jnp.array(methods).T), rates, exponents)
        sizes = mean_gradients(settings, keys, steps // CHUNK, regime.skewed, scale, coupled)
        found.update(zip(methods, np.asarray(sizes, np.float64), strict=True))
    return found


def frame_of(lengths: Sequence[int], seeds: int) -> pd.DataFrame:
    """Returns a row for each method in each regime and each length."""
    rows = []
    for regime in REGIMES:
        found = {steps: measure(regime, steps, seeds) for steps in lengths}
        for method, steps in itertools.product(regime.methods, lengths):
            sizes, bound = found[steps][method], theorems.bound(method, regime, steps)
            rows.append((regime.title, method.name, steps, sizes.mean(), sizes.std(ddof=1), bound, sizes))
    return pd.DataFrame(rows, columns=["regime", "method", "steps", "mean", "std", "bound", "sizes"])


def slope(lengths: Sequence[int], sizes: np.ndarray) -> tuple[float, float]:
    """Returns the mean over seeds of the slope of log(size) by log(T), and half of its 95 % interval."""
    slopes = np.polyfit(np.log(lengths), np.log(sizes), 1)[0]
    return float(slopes.mean()), float(stats.t.ppf(0.975, len(slopes) - 1) * stats.sem(slopes))


def tabulate(title: str, frame: pd.DataFrame) -> str:
    """Returns the slopes in a regime as a Markdown table."""
    by_method = frame.groupby("method", sort=False)
    start, end = by_method.first(), by_method.last()
    lengths = frame.steps.unique()
    first, late_from, last = (f"T = {lengths[index]:,}" for index in (0, -3, -1))
    cells = {
        first: start["mean"].map("{:.3g}".format),
        last: end["mean"].map("{:.3g}".format) + end["std"].map(" ± {:.1g}".format),
        f"bound, {last}": end.bound.map("{:.3g}".format).replace("nan", "not computed"),
    }
    for name, several in (("slope", lengths), (f"slope from {late_from}", lengths[-3:])):
        sizes = frame[frame.steps.isin(several)].groupby("method", sort=False).sizes
        cells[name] = sizes.agg(
            lambda same, several=several: "{:.3f} ± {:.3f}".format(*slope(several, np.stack(same)))
        )
    return f"{title}:\n\n{table_of(pd.DataFrame(cells).reset_index())}"


def draw(frame: pd.DataFrame) -> Figure:
    """Returns the means by T, and a line of slope -1/2."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots(1, len(REGIMES))
    for axis, (title, of_regime) in zip(axes, frame.groupby("regime", sort=False), strict=True):
        for method, same in of_regime.groupby("method", sort=False):
            axis.errorbar(same.steps, same["mean"], same["std"], label=method, **STYLES[method])
        top = of_regime.groupby("steps")["mean"].max().iloc[0] / 4
        reference = top * np.sqrt(same.steps.min() / same.steps)
        axis.plot(same.steps, reference, color="0.6", linewidth=4, alpha=0.5, label="slope -1/2", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel="steps T")
        axis.set_title(title.replace(", ", ",\n"), fontsize="small")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean squared 2-norm of the gradient")
    axes[-1].set_ylabel("mean of the dual norm to its power")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def style_of(index: int, method: Method) -> dict[str, Any]:
    """Returns a color and a marker for a method; the line is dashed with momentum, dotted for STACEY."""
    line = ":" if method.mirror_p else "--" if method.momentum else "-"
    color = COLORS[index % len(COLORS)]
    return {"color": color, "linestyle": line, "marker": "os^Dv<>XP"[index], "markersize": 4, "linewidth": 1}


STYLES = {method.name: style_of(index, method) for index, method in enumerate(METHODS)}


def run(quick: bool, folder: Path) -> str:
    """Measures, fits, draws and tabulates."""
    chunks, seeds = ((1, 2, 4), 3) if quick else ((2, 6, 20, 60, 200, 600), 16)
    frame = frame_of([CHUNK * count for count in chunks], seeds)
    text = {name: frame[name].map(f"{{:{spec}}}".format, na_action="ignore") for name, spec in DIGITS.items()}
    write_csv(folder / "rates.csv", frame.assign(**text).drop(columns="sizes"))
    write_figure(folder / "rates.png", draw(frame))
    tables = [tabulate(title, of_regime) for title, of_regime in frame.groupby("regime", sort=False)]
    explanation = (
        "The mean over the steps of the squared 2-norm of the gradient, or for Stacey's theorem of its dual "
        f"norm to the power of its exponent: mean ± standard deviation over {seeds} seeds, what the theorem "
        "allows, and the slope of its logarithm by that of T with a 95 % interval over the seeds."
    )
    return "\n\n".join([*tables, explanation])
