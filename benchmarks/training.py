"""The training loop: one for every model, dataset and optimizer."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.datasets import Dataset, Split
from benchmarks.models import MODELS

Variables = Any  # a tree of arrays: nnx.State is generic in types that say nothing here.


class Epoch(NamedTuple):
    """What is measured after each epoch, with the parameters as they are then."""

    train_nll: float  # mean negative log likelihood over the training images.
    held_out_nll: float
    held_out_top1: float  # share of right answers, 0 to 1.
    seconds: float  # time spent in training steps, evaluation excluded.


class TrainState(NamedTuple):
    """All that changes during training."""

    params: Variables
    batch_stats: Variables
    opt_state: optax.OptState


def train(
    model_name: str,
    dataset: Dataset,
    held_out: Split,
    optimizer: optax.GradientTransformation,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Iterator[Epoch]:
    """Trains a new model on the training split; yields the measurements of each epoch.

    The seed decides the initial parameters and the order of the images. Runs that share
    `optimizer` (the same object) share its compiled step.
    """
    images, labels = jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels)
    channels = images.shape[-1]
    model = MODELS[model_name](channels=channels, classes=dataset.classes, rngs=nnx.Rngs(seed))
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)  # type: ignore[misc]
    state = TrainState(params, batch_stats, optimizer.init(params))
    for epoch in range(epochs):
        start = time.perf_counter()
        for batch in _batches(len(labels), batch_size, seed, epoch):
            state = _train_step(graphdef, optimizer, state, images[batch], labels[batch])
        jax.block_until_ready(state)  # type: ignore[no-untyped-call]
        seconds = time.perf_counter() - start
        train_nll, _ = _evaluate(graphdef, state.params, state.batch_stats, images, labels)
        held_out_nll, held_out_top1 = _evaluate(
            graphdef, state.params, state.batch_stats, held_out.images, held_out.labels
        )
        yield Epoch(float(train_nll), float(held_out_nll), float(held_out_top1), seconds)


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Returns the number of whole batches in the training split."""
    return len(dataset.train.labels) // batch_size


def _batches(images: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    # Seeded by the epoch, so that any epoch can be run again without those before it.
    order = np.random.default_rng((seed, epoch)).permutation(images)
    whole = images // batch_size
    return order[: whole * batch_size].reshape(whole, batch_size)


@partial(jax.jit, static_argnames=("graphdef", "optimizer"), donate_argnames="state")
def _train_step(
    graphdef: nnx.GraphDef[Any],
    optimizer: optax.GradientTransformation,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
) -> TrainState:
    def loss(params: Variables) -> tuple[jax.Array, Variables]:
        model = nnx.merge(graphdef, params, state.batch_stats, copy=True)
        model.train()
        return _nll(model(images), labels), nnx.state(model, nnx.BatchStat)

    grads, batch_stats = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), batch_stats, opt_state)


@partial(jax.jit, static_argnames="graphdef")
def _evaluate(
    graphdef: nnx.GraphDef[Any],
    params: Variables,
    batch_stats: Variables,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    model = nnx.merge(graphdef, params, batch_stats)
    model.eval()
    logits = model(images)
    return _nll(logits, labels), (logits.argmax(axis=-1) == labels).mean()


def _nll(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
