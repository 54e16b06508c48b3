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
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from sklearn.datasets import load_digits

import lpoptax
from benchmarks.reporting.statistics import mean_std
from benchmarks.reporting.tables import table_of, write_csv

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
WARMUP = 20  # the share of the steps is one of so many.
TRAINED = 1350  # of the images.
SHAPES = ((64, 128), (128, 10))  # of the layers.
Params = tuple[list[jax.Array], list[jax.Array]]
Build = Callable[[optax.Schedule, int], optax.GradientTransformation]

OPTIMIZERS: dict[str, Build] = {
    "the recipe": lambda rate, steps: lpoptax.lpsgdm(
        rate, lpoptax.cosine_p_schedule(12.0, steps), normalization="rms"
    ),
    "NAdamW": lambda rate, steps: optax.nadamw(rate, weight_decay=0.0),
    "AdamW": lambda rate, steps: optax.adamw(rate, weight_decay=0.0),
}
# Whether inputs are standardized, and how many are in a batch.
TASKS = {
    "unscaled, batches of 16": (False, 16),
    "unscaled, batches of 128": (False, 128),
    "standardized, batches of 16": (True, 16),
}


@functools.cache
def digits(standardized: bool) -> tuple[jax.Array, jax.Array]:
    """Returns images as rows, in a fixed random order, and their classes."""
    pixels, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    inputs = pixels[order].astype(np.float32)
    train = inputs[:TRAINED]
    inputs = (inputs - train.mean()) / train.std() if standardized else 50 * inputs
    return jnp.asarray(inputs), jnp.asarray(classes[order])


def initial(key: jax.Array) -> Params:
    """Returns biases of zero, and normal weights, of variance 1 over the number of inputs."""
    biases = [jnp.zeros((1, size)) for _, size in SHAPES]
    keys = zip(jax.random.split(key), SHAPES, strict=True)
    return biases, [jax.random.normal(one, shape) / shape[0] ** 0.5 for one, shape in keys]


def logits(params: Params, x: jax.Array) -> jax.Array:
    """Returns what the network makes of a batch."""
    (b1, b2), (w1, w2) = params
    return jax.nn.sigmoid(x @ w1 + b1) @ w2 + b2


def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean NLL."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


@functools.partial(jax.jit, static_argnames=("build", "batch_size", "steps"))
def top1(x: Any, y: Any, seed: Any, rate: Any, build: Build, batch_size: int, steps: int) -> jax.Array:
    """Returns the share of test images, in per cent, that a new network gets right after training."""
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // WARMUP, steps)
    optimizer = build(lambda count: rate * shape(count), steps)
    order, start = jax.random.split(jax.random.key(seed))
    batches = jax.random.randint(order, (steps, batch_size), 0, TRAINED)

    def step(carry: Any, batch: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, x[batch], y[batch]), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = initial(start)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return 100 * jnp.mean(logits(params, x[TRAINED:]).argmax(axis=-1) == y[TRAINED:])


def run(quick: bool, folder: Path) -> str:
    """Trains all networks, and writes a table."""
    steps, seeds = (20, 2) if quick else (1500, 5)
    rows = []
    for task, optimizer, rate, seed in itertools.product(TASKS, OPTIMIZERS, RATES, range(seeds)):
        standardized, batch_size = TASKS[task]
        reached = top1(*digits(standardized), seed, rate, OPTIMIZERS[optimizer], batch_size, steps)
        rows.append((task, optimizer, rate, seed, float(reached)))
    frame = pd.DataFrame(rows, columns=["task", "optimizer", "learning_rate", "seed", "top1"])
    write_csv(folder / "top1.csv", frame)
    return (
        f"{tabulate(frame)}\n\nTest top-1, %, mean ± standard deviation over {seeds} seeds, "
        "by the peak learning rate."
    )


def tabulate(frame: pd.DataFrame) -> str:
    """Returns a Markdown table with a column for each learning rate."""
    frame = frame.rename(columns={"task": "inputs"})
    rates = frame.learning_rate.map("at {:g}".format)
    cells = frame.groupby(["inputs", "optimizer", rates], sort=False).top1.agg(mean_std, spec=".1f")
    return table_of(cells.unstack(sort=False).reset_index())
