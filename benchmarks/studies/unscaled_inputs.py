"""Where the recipe fails: inputs that nobody scaled, in small batches.

Claim: a step of unit RMS is as long at a noisy gradient as at a clear one. Where gradients are noisy all
along, as with unscaled inputs in small batches, the recipe's learning rate of 0.001 is too high.

Setting: a network of 64, 128 and 10 units, with sigmoids, on 1,350 of scikit-learn's digits, tested on the
other 447; pixels times 50, so from 0 to 800, or standardized. 1,500 steps of 16 or 128 images; the learning
rate warms up for a twentieth of them and decays along a cosine; no weight decay; five seeds. The
recipe is LPSGDM at unit RMS with p from 12 to 2.

    python -m benchmarks unscaled_inputs --output benchmarks/results/unscaled_inputs

Result (Python 3.11.7, JAX 0.10.2, n = 5; test top-1): unscaled, in batches of 16, the recipe reaches
79.2 ± 4.3 % at 0.001 and 94.6 ± 0.4 % at 0.0003; NAdamW 94.3 ± 1.6 % at 0.001. Standardized inputs bring the
recipe to 98.6 ± 0.2 % at 0.001, batches of 128 to 97.7 ± 0.6 %.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import lpoptax
from benchmarks.reporting.tables import markdown_table, write_csv

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
WARMUP = 20  # the share of the steps is one of so many.
Params = dict[str, jax.Array]
Build = Callable[[optax.Schedule, int], optax.GradientTransformation]

OPTIMIZERS: dict[str, Build] = {
    "the recipe": lambda rate, steps: lpoptax.lpsgdm(
        rate, lpoptax.cosine_p_schedule(12.0, steps), normalization="rms"
    ),
    "NAdamW": lambda rate, steps: optax.nadamw(rate, weight_decay=0.0),
    "AdamW": lambda rate, steps: optax.adamw(rate, weight_decay=0.0),
}


class Task(NamedTuple):
    """How inputs are scaled, and how many are in a batch."""

    name: str
    standardized: bool
    batch_size: int


TASKS = (
    Task("unscaled, batches of 16", False, 16),
    Task("unscaled, batches of 128", False, 128),
    Task("standardized, batches of 16", True, 16),
)


class Data(NamedTuple):
    """Images as rows, and their classes."""

    train: tuple[jax.Array, jax.Array]
    test: tuple[jax.Array, jax.Array]


def digits(standardized: bool) -> Data:
    """Returns the digits in a fixed random order."""
    pixels, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    inputs, labels = pixels[order].astype(np.float32), classes[order]
    train = inputs[:1350]
    inputs = (inputs - train.mean()) / train.std() if standardized else 50 * inputs
    x, y = jnp.asarray(inputs), jnp.asarray(labels)
    return Data((x[:1350], y[:1350]), (x[1350:], y[1350:]))


def initial(key: jax.Array) -> Params:
    """Returns normal weights, of variance 1 over the number of inputs, and biases of zero."""
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (64, 128)) / 64**0.5,
        "b1": jnp.zeros((1, 128)),
        "w2": jax.random.normal(second, (128, 10)) / 128**0.5,
        "b2": jnp.zeros((1, 10)),
    }


def logits(params: Params, x: jax.Array) -> jax.Array:
    """Returns what the network makes of a batch."""
    return jax.nn.sigmoid(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean NLL."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


@functools.partial(jax.jit, static_argnames=("build", "batch_size", "steps"))
def top1(
    data: Data, seed: jax.Array, learning_rate: jax.Array, build: Build, batch_size: int, steps: int
) -> jax.Array:
    """Returns the share of test images, in per cent, that a new network gets right after training."""
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // WARMUP, steps)
    optimizer = build(lambda count: learning_rate * shape(count), steps)
    order, start = jax.random.split(jax.random.key(seed))
    x, y = data.train
    batches = jax.random.randint(order, (steps, batch_size), 0, len(x))

    def step(carry: Any, batch: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, x[batch], y[batch]), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = initial(start)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    images, classes = data.test
    return 100 * jnp.mean(logits(params, images).argmax(axis=-1) == classes)


def run(quick: bool, folder: Path) -> str:
    """Trains all networks, and writes a table."""
    steps, seeds = (20, 2) if quick else (1500, 5)
    rows, lines = [], []
    for task in TASKS:
        data = digits(task.standardized)
        for name, build in OPTIMIZERS.items():
            cells = []
            for rate in RATES:
                reached = [
                    float(top1(data, seed, rate, build, task.batch_size, steps)) for seed in range(seeds)
                ]
                mean, std = np.mean(reached), np.std(reached, ddof=1)
                cells.append(f"{mean:.1f} ± {std:.1f}")
                rows += [
                    {"task": task.name, "optimizer": name, "learning_rate": rate, "seed": seed, "top1": value}
                    for seed, value in enumerate(reached)
                ]
            lines.append([task.name, name, *cells])
    write_csv(folder / "top1.csv", rows)
    table = markdown_table(["inputs", "optimizer", *(f"at {rate:g}" for rate in RATES)], lines)
    return (
        f"{table}\n\nTest top-1, %, mean ± standard deviation over {seeds} seeds, by the peak learning rate."
    )
