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

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from scipy import stats

import lpoptax
from benchmarks.config.annealing import annealed_p
from benchmarks.reporting.figures import COLORS, write_figure
from benchmarks.reporting.tables import markdown_table, write_csv
from benchmarks.studies.convergence_theorems import (
    DIMENSION,
    METHODS,
    REGIMES,
    START,
    Method,
    Regime,
    bound,
    noise,
)

CHUNK = 500  # steps whose noise is drawn at once.


def loss(x: jax.Array) -> jax.Array:
    """Returns the sum of log(1 + x^2)."""
    return jnp.sum(jnp.log1p(x**2))


class Setting(NamedTuple):
    """What a run is decided by; all may be traced."""

    method: Any  # a Method of arrays
    learning_rate: Any
    exponent: Any
    skewed: Any
    scale: Any
    chunks: Any


def optimizer(setting: Setting, coupled: bool) -> Any:
    """Returns LPSGDM or STACEY, whose dual rate is the primal one."""
    method, rate = setting.method, setting.learning_rate
    p = annealed_p(method.p_max, method.p_final, setting.chunks * CHUNK)
    if coupled:
        return lpoptax.stacey(rate, p, mirror_p=method.mirror_p, alpha=rate)
    return lpoptax.lpsgdm(rate, p, momentum=method.momentum)


def mean_gradient(setting: Setting, coupled: bool, key: jax.Array) -> jax.Array:
    """Returns the mean over the steps of the exact gradient's size."""
    descent = optimizer(setting, coupled)

    def step(carry: Any, error: jax.Array) -> Any:
        x, state = carry
        gradient = jax.grad(loss)(x)
        updates, state = descent.update(gradient + error, state, x)
        return (optax.apply_updates(x, updates), state), jnp.sum(jnp.abs(gradient) ** setting.exponent)

    def chunk(index: jax.Array, carry: Any) -> Any:
        errors = noise(jax.random.fold_in(key, index), (CHUNK, DIMENSION), setting.skewed, setting.scale)
        run, sizes = jax.lax.scan(step, carry[0], errors)
        return run, carry[1] + sizes.mean()

    x = jnp.full(DIMENSION, START)
    _, total = jax.lax.fori_loop(0, setting.chunks, chunk, ((x, descent.init(x)), 0.0))
    return total / setting.chunks


@partial(jax.jit, static_argnums=1)
def mean_gradients(setting: Setting, coupled: bool, keys: jax.Array) -> jax.Array:
    """Returns the mean of the gradient's size, of each method with each seed, in one program."""
    axes = Setting(0, 0, 0, None, None, None)
    over_methods = jax.vmap(mean_gradient, in_axes=(axes, None, None))
    return jax.vmap(over_methods, in_axes=(None, None, 0), out_axes=1)(setting, coupled, keys)


def measure(regime: Regime, chunks: int, seeds: int) -> dict[Method, np.ndarray]:
    """Returns the mean of the gradient's size for runs of a length, of each method with each seed."""
    found: dict[Method, np.ndarray] = {}
    steps = chunks * CHUNK
    keys = jax.random.split(jax.random.key(steps), seeds)
    scale = float(1 / np.sqrt(steps)) if regime.stacey else 1.0
    for coupled in (False, True):
        # All of them in every regime, which so shares one program with the others.
        methods = [method for method in METHODS if bool(method.mirror_p) == coupled]
        columns = jax.tree.map(lambda *values: jnp.array(values), *methods)
        rates = jnp.array([regime.learning_rate(method, steps) for method in methods])
        exponents = jnp.array([regime.exponent(method) for method in methods])
        setting = Setting(columns, rates, exponents, regime.skewed, scale, chunks)
        sizes = np.asarray(mean_gradients(setting, coupled, keys), np.float64)
        found.update(zip(methods, sizes, strict=True))
    return found


def slope(lengths: Sequence[int], sizes: np.ndarray) -> tuple[float, float]:
    """Returns the mean over seeds of the slope of log(size) by log(T), and half of its 95 % interval."""
    slopes = np.polyfit(np.log(lengths), np.log(sizes), 1)[0]
    return float(slopes.mean()), float(stats.t.ppf(0.975, len(slopes) - 1) * stats.sem(slopes))


Sizes = Mapping[Regime, Mapping[Method, np.ndarray]]  # lengths x seeds.


def rows_of(found: Sizes, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Returns what was measured of each method in each regime, for each length."""
    return [
        {
            "regime": regime.title,
            "method": method.name,
            "steps": steps,
            "mean": f"{sizes.mean():.6g}",
            "std": f"{sizes.std(ddof=1):.3g}",
            "bound": "" if (allowed := bound(method, regime, steps)) is None else f"{allowed:.6g}",
        }
        for regime, by_method in found.items()
        for method in regime.methods
        for steps, sizes in zip(lengths, by_method[method], strict=True)
    ]


def tabulate(regime: Regime, sizes: Mapping[Method, np.ndarray], lengths: Sequence[int]) -> str:
    """Returns the slopes in a regime as a Markdown table."""
    cells = []
    for method in regime.methods:
        of_all = sizes[method]
        allowed = bound(method, regime, lengths[-1])
        fits = (slope(lengths, of_all), slope(lengths[-3:], of_all[-3:]))
        cells.append(
            [
                method.name,
                f"{of_all[0].mean():.3g}",
                f"{of_all[-1].mean():.3g} ± {of_all[-1].std(ddof=1):.1g}",
                "not computed" if allowed is None else f"{allowed:.3g}",
                *("{:.3f} ± {:.3f}".format(*fit) for fit in fits),
            ]
        )
    first, late_from, last = (f"T = {lengths[index]:,}" for index in (0, -3, -1))
    columns = ("method", first, last, f"bound, {last}", "slope", f"slope from {late_from}")
    return f"{regime.title}:\n\n{markdown_table(columns, cells)}"


def draw(found: Sizes, lengths: Sequence[int]) -> Figure:
    """Returns the means by T, and a line of slope -1/2."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots(1, len(found))
    for axis, (regime, sizes) in zip(axes, found.items(), strict=True):
        for method in regime.methods:
            mean, std = sizes[method].mean(axis=1), sizes[method].std(axis=1, ddof=1)
            axis.errorbar(lengths, mean, std, label=method.name, **style_of(method))
        top = 0.5 * max(sizes[method][0].mean() for method in regime.methods)
        reference = top * np.sqrt(lengths[0] / np.array(lengths)) / 2
        axis.plot(lengths, reference, color="0.6", linewidth=4, alpha=0.5, label="slope -1/2", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel="steps T")
        axis.set_title(regime.title.replace(", ", ",\n"), fontsize="small")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean squared 2-norm of the gradient")
    axes[-1].set_ylabel("mean of the dual norm to its power")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def style_of(method: Method) -> dict[str, Any]:
    """Returns a color and a marker for a method; the line is dashed with momentum, dotted for STACEY."""
    index = METHODS.index(method)
    line = ":" if method.mirror_p else "--" if method.momentum else "-"
    color = COLORS[index % len(COLORS)]
    return {"color": color, "linestyle": line, "marker": "os^Dv<>XP"[index], "markersize": 4, "linewidth": 1}


def run(quick: bool, folder: Path) -> str:
    """Measures, fits, draws and tabulates."""
    all_chunks, seeds = ((1, 2, 4), 3) if quick else ((2, 6, 20, 60, 200, 600), 16)
    lengths = [CHUNK * chunks for chunks in all_chunks]
    found = {}
    for regime in REGIMES:
        sizes = [measure(regime, chunks, seeds) for chunks in all_chunks]
        found[regime] = {m: np.array([at_length[m] for at_length in sizes]) for m in regime.methods}
    write_csv(folder / "rates.csv", rows_of(found, lengths))
    write_figure(folder / "rates.png", draw(found, lengths))
    tables = [tabulate(regime, sizes, lengths) for regime, sizes in found.items()]
    explanation = (
        "The mean over the steps of the squared 2-norm of the gradient, or for Stacey's theorem of its dual "
        f"norm to the power of its exponent: mean ± standard deviation over {seeds} seeds, what the theorem "
        "allows, and the slope of its logarithm by that of T with a 95 % interval over the seeds."
    )
    return "\n\n".join([*tables, explanation])
